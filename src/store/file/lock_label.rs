//! The contents of a lock file: under which path, and in which mount namespace, it was locked.
//!
//! The label is written under the lock, before the record, once it is certain that no process holds an earlier lock file of
//! the same path. A candidate that finds the file without a label therefore looks for such a holder itself.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Longer than any path and any name of a namespace.
const LABEL_BYTES_MAX: u64 = 8 * 1024;

/// The path of a lock file, and the mount namespace in which it has that path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockLabel {
    pub path: PathBuf,
    pub namespace: String,
}

impl LockLabel {
    /// Of the lock file at this real path, for this process.
    pub fn of(path: &Path) -> io::Result<LockLabel> {
        let namespace = fs::read_link("/proc/self/ns/mnt")?.to_string_lossy().into_owned();
        Ok(LockLabel { path: path.to_owned(), namespace })
    }

    /// The contents; `None` if the file is empty, or holds nothing that elect wrote in full.
    pub fn read(file: &File) -> io::Result<Option<LockLabel>> {
        let mut bytes = Vec::new();
        let mut at = ReadAt { file, offset: 0 };
        (&mut at).take(LABEL_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(LockLabel::parse(&bytes))
    }

    /// Writes it, unless the file says so already. Under the lock.
    pub fn write(&self, file: &File) -> io::Result<()> {
        if LockLabel::read(file)?.as_ref() == Some(self) {
            return Ok(());
        }
        let bytes = self.bytes();
        file.set_len(0)?;
        file.write_all_at(&bytes, 0)
    }

    /// The namespace first, since a path may have line breaks in it.
    fn bytes(&self) -> Vec<u8> {
        [self.namespace.as_bytes(), b"\n", self.path.as_os_str().as_bytes(), b"\n"].concat()
    }

    fn parse(bytes: &[u8]) -> Option<LockLabel> {
        let text = bytes.strip_suffix(b"\n")?;
        let end = text.iter().position(|&byte| byte == b'\n')?;
        let namespace = std::str::from_utf8(&text[..end]).ok().filter(|text| text.starts_with("mnt:["))?;
        let path = &text[end + 1..];
        path.starts_with(b"/").then(|| LockLabel {
            path: PathBuf::from(OsString::from_vec(path.to_vec())),
            namespace: namespace.to_owned(),
        })
    }
}

/// Reads without moving the offset, which all copies of a descriptor share.
struct ReadAt<'a> {
    file: &'a File,
    offset: u64,
}

impl Read for ReadAt<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {

    use super::*;
    use elect_core::proptest_support;

    #[test]
    fn what_is_written_is_what_is_read_and_nothing_else_is() {
        let file = tempfile::tempfile().expect("a file");
        let path = proptest::collection::vec(1..=255_u8, 0..60);
        proptest_support::check(proptest_support::SLOW, &path, |path| {
            let path = PathBuf::from(OsString::from_vec([b"/".as_slice(), &path].concat()));
            let label = LockLabel::of(&path).expect("a namespace");
            label.write(&file).expect("written");
            assert_eq!(LockLabel::read(&file).expect("read"), Some(label));
        });
        proptest_support::check(proptest_support::FAST, &proptest_support::random_bytes(), |noise| {
            assert_eq!(LockLabel::parse(&noise), None);
        });
        let full = LockLabel { path: "/a/b".into(), namespace: "mnt:[1]".to_owned() }.bytes();
        for cut in 0..full.len() {
            assert_eq!(LockLabel::parse(&full[..cut]), None, "cut short at {cut}");
        }
    }
}
