//! The directory, and the names in it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::sys::statfs::{FsType, statfs};
use nix::unistd::geteuid;

use super::StoreError;
use super::record_file::Files;
use elect_core::boundary::Boundary;
use elect_core::limits::insert_boundary;

/// By uid alone, so that a terminal, a crontab and a unit meet.
pub fn default_directory() -> PathBuf {
    let uid = geteuid();
    if uid.is_root() { PathBuf::from("/run/elect") } else { PathBuf::from(format!("/tmp/elect-{uid}")) }
}

/// The directory by uid alone, made if it is missing and checked to be ours: for what else a candidate keeps on this host.
///
/// # Errors
///
/// It cannot be made, or is not ours.
pub fn runtime_directory() -> Result<PathBuf, StoreError> {
    let directory = Directory { path: default_directory(), is_default: true, for_locks: false };
    directory.prepare()?;
    Ok(directory.path)
}

/// Where locks and records are.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// Chosen by elect, so that its owner and mode can be insisted on. A named one may be shared.
    is_default: bool,
    /// Whether another one may be named instead.
    for_locks: bool,
}

/// File systems whose locks do not reach as far as their files do, or only sometimes.
const ELSEWHERE: &[(i64, &str)] = &[
    (0x6969, "NFS"),
    (0x517B, "SMB"),
    (0xFE53_4D42, "SMB2"),
    (0xFF53_4D42, "CIFS"),
    (0x0102_1997, "9p"),
    (0x00C3_6400, "Ceph"),
    (0x6573_5546, "FUSE (sshfs, gluster and their like)"),
    (0x5346_414F, "AFS"),
    (0x6B41_4653, "AFS"),
    (0x7375_7245, "Coda"),
    (0x564C, "NCP"),
    (0x0BD0_0BD0, "Lustre"),
    (0x0116_1970, "GFS2"),
    (0x7461_636F, "OCFS2"),
    (0x4750_4653, "GPFS"),
    (0x1983_0326, "BeeGFS"),
    (0x2003_0528, "OrangeFS"),
    (0x786F_4256, "VirtualBox shared folders"),
    (0xBACB_ACBC, "VMware shared folders"),
];

impl Directory {
    /// What stands behind `file:`: nothing, `DIR` or `///DIR`.
    pub fn parse(rest: &str) -> Result<Directory, String> {
        let path = match rest.strip_prefix("//") {
            None => rest,
            Some(path) if path.starts_with('/') => path,
            Some(_) => {
                return Err("it names another host: write file:DIR or file:///DIR, with three slashes".to_owned());
            }
        };
        if path.is_empty() {
            return Ok(Directory { path: default_directory(), is_default: true, for_locks: true });
        }
        if !path.starts_with('/') {
            let here = std::env::current_dir().map_or_else(|_| PathBuf::from("/DIR"), |here| here.join(path));
            return Err(format!(
                "{path:?} is a relative path, which leads to another election in each working directory: write file:{}",
                here.display()
            ));
        }
        Ok(Directory { path: PathBuf::from(path), is_default: false, for_locks: true })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn files(&self, boundary: &Boundary) -> Files {
        Files::new(&self.path, self.path.clone(), boundary.as_str())
    }

    /// Makes the directory if it is missing, and checks that locks in it mean what they should.
    pub fn prepare(&self) -> Result<(), StoreError> {
        let shown = self.path.display();
        let made = if self.is_default { make_private(&self.path) } else { make_all(&self.path) };
        made.map_err(|error| refused_if_permanent(&error, format!("{shown}: cannot be created: {error}")))?;
        match self.check() {
            Ok(true) => Ok(()),
            Ok(false) => Err(StoreError::Unavailable(format!("{shown} was removed"))),
            Err(error) => Err(error),
        }
    }

    /// Whether it is there; an error if it is, and locks in it would not mean what they should.
    pub fn check(&self) -> Result<bool, StoreError> {
        let shown = self.path.display();
        let found = if self.is_default { fs::symlink_metadata(&self.path) } else { fs::metadata(&self.path) };
        let found = match found {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(refused_if_permanent(&error, format!("{shown}: {error}"))),
        };
        let fault = if found.file_type().is_symlink() {
            Some("is a symbolic link".to_owned())
        } else if !found.is_dir() {
            Some("is not a directory".to_owned())
        } else if self.is_default && found.uid() != geteuid().as_raw() {
            Some(format!("belongs to uid {}, not to us (uid {})", found.uid(), geteuid()))
        } else if self.is_default && found.mode() & 0o022 != 0 {
            Some(format!("can be written by others (mode {:o})", found.mode() & 0o7777))
        } else if found.mode() & 0o1000 != 0 && found.mode() & 0o022 != 0 && found.uid() != geteuid().as_raw() {
            Some("has the sticky bit, so that records of other users could not be replaced".to_owned())
        } else {
            self.elsewhere().map(|kind| format!("is on {kind}, whose locks cannot be relied on"))
        };
        match fault {
            None => Ok(true),
            Some(fault) => {
                let advice = if self.for_locks { ": name another directory with --store file:DIR" } else { "" };
                Err(StoreError::Refused(format!("{shown} {fault}{advice}")))
            }
        }
    }

    fn elsewhere(&self) -> Option<&'static str> {
        let FsType(magic) = statfs(&self.path).ok()?.filesystem_type();
        ELSEWHERE.iter().find(|(known, _)| *known == magic).map(|(_, name)| *name)
    }

    /// The bits of a lock file's mode: whoever may create files in the directory may take part.
    pub fn sharing(&self) -> u32 {
        let mode = fs::metadata(&self.path).map_or(0, |found| found.mode());
        let group = if mode & 0o020 == 0 { 0 } else { 0o060 };
        let others = if mode & 0o002 == 0 { 0 } else { 0o006 };
        0o600 | group | others
    }

    pub fn boundaries(&self) -> Result<Vec<Boundary>, StoreError> {
        if !self.check()? {
            return Ok(Vec::new());
        }
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(closed(&self.path, &self.path.display()));
            }
            Err(error) => {
                return Err(refused_if_permanent(&error, format!("{}: {error}", self.path.display())));
            }
        };
        let mut found = BTreeSet::new();
        let names =
            entries.filter_map(|entry| decode(entry.ok()?.file_name().to_str()?.strip_suffix(".json")?)?.parse().ok());
        for boundary in names {
            insert_boundary(&mut found, boundary);
        }
        Ok(found.into_iter().collect())
    }
}

/// Makes a directory for this user alone, whatever the umask; one that is there keeps its mode, unless it is this user's and
/// shut to its owner, as elect itself made it under a umask of 777.
///
/// # Errors
///
/// It cannot be made, or not be opened to its owner.
pub fn make_private(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Ok(()) | Err(_) => open_to_owner(path),
    }
}

/// Makes a directory and those above it. The umask decides, but never shuts out this user.
fn make_all(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o777).create(path) {
        Ok(()) => open_to_owner(path),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let Some(parent) = path.parent() else { return Err(error) };
            make_all(parent)?;
            match DirBuilder::new().mode(0o777).create(path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
                Ok(()) | Err(_) => open_to_owner(path),
            }
        }
        Err(error) => Err(error),
    }
}

/// A directory of this user's is given the three bits that its owner needs.
fn open_to_owner(path: &Path) -> io::Result<()> {
    let found = fs::symlink_metadata(path)?;
    if !found.is_dir() || found.uid() != geteuid().as_raw() || found.mode() & 0o700 == 0o700 {
        return Ok(());
    }
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let directory = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let mode = directory.metadata()?.mode() & 0o7777 | 0o700;
    fs::set_permissions(format!("/proc/self/fd/{}", directory.as_raw_fd()), fs::Permissions::from_mode(mode))
}

/// Another user's.
pub fn closed(directory: &Path, what: &impl std::fmt::Display) -> StoreError {
    let us = geteuid();
    let whom = fs::metadata(directory).map_or("somebody else".to_owned(), |found| format!("uid {}", found.uid()));
    StoreError::Refused(format!(
        "{what} cannot be read by us (uid {us}): its directory belongs to {whom}, ask as that user"
    ))
}

pub fn refused_if_permanent(error: &io::Error, message: String) -> StoreError {
    let permanent = [
        io::ErrorKind::PermissionDenied,
        io::ErrorKind::ReadOnlyFilesystem,
        io::ErrorKind::NotADirectory,
        io::ErrorKind::NotFound,
    ];
    if permanent.contains(&error.kind()) { StoreError::Refused(message) } else { StoreError::Unavailable(message) }
}

/// A boundary as a file's name: what is not plain becomes `%XX`, a dot in front too, so that no two meet.
pub fn encode(boundary: &str) -> String {
    let mut name = String::with_capacity(boundary.len());
    for (index, byte) in boundary.bytes().enumerate() {
        let plain = byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-' || (byte == b'.' && index > 0);
        if plain {
            name.push(char::from(byte));
        } else {
            let _ = write!(name, "%{byte:02X}");
        }
    }
    name
}

fn decode(name: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let [first, tail @ ..] = rest {
        if *first == b'%' {
            let (code, after) = tail.split_at_checked(2)?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(code).ok()?, 16).ok()?);
            rest = after;
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    let boundary = String::from_utf8(bytes).ok()?;
    // What we would not have written is not ours.
    (encode(&boundary) == name).then_some(boundary)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use elect_core::proptest_support;

    #[test]
    fn names_in_files_never_meet_and_come_back() {
        let longest = "/".repeat(80);
        let names = ["a", "a/b", "a%2Fb", ".a", "a.b", "..", "Zürich", "a.json", "a.lock", " ", longest.as_str()];
        for name in names {
            let encoded = encode(name);
            assert!(!encoded.starts_with('.') && !encoded.contains('/'), "{encoded}");
            assert_eq!(decode(&encoded).as_deref(), Some(name));
            // As in `Files`, with the longest suffix.
            assert!(format!(".{encoded}.json.12345678").len() <= 255, "{encoded}");
        }
        assert_eq!(encode("a/b"), "a%2Fb");
        assert_eq!(encode(".a"), "%2Ea");
        for foreign in ["%", "%2", "%zz", "a%2fb", "a b", ".hidden"] {
            assert_eq!(decode(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn a_url_names_a_directory_with_or_without_slashes_but_no_host() {
        assert_eq!(Directory::parse("/srv/locks").expect("a path").path(), Path::new("/srv/locks"));
        assert_eq!(Directory::parse("///srv/locks").expect("a path").path(), Path::new("/srv/locks"));
        assert!(Directory::parse("").expect("the default").is_default);
        for relative in ["locks", "./locks", "../locks"] {
            let message = Directory::parse(relative).expect_err("relative");
            let absolute = std::env::current_dir().expect("here").join(relative);
            assert!(message.contains(&format!("file:{}", absolute.display())), "{message}");
        }
        let message = Directory::parse("//srv/locks").expect_err("a host");
        assert!(message.contains("file:///DIR"), "{message}");
    }

    #[test]
    fn a_directory_that_was_shut_to_its_owner_is_opened_and_others_keep_their_mode() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("private");
        let mode = |path: &Path| fs::metadata(path).expect("there").mode() & 0o7777;
        make_private(&path).expect("made");
        assert_eq!(mode(&path), 0o700);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).expect("ours");
        make_private(&path).expect("opened");
        assert_eq!(mode(&path), 0o700);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("ours");
        make_private(&path).expect("there");
        assert_eq!(mode(&path), 0o755);
        make_all(&path.join("a/b/c")).expect("made");
        make_all(&path.join("a/b/c")).expect("there");
        assert_eq!(mode(&path.join("a/b")) & 0o700, 0o700);
        std::os::unix::fs::symlink("private", place.path().join("link")).expect("a link");
        make_private(&place.path().join("link")).expect("refused later, by Directory::check");
        assert_eq!(mode(&path), 0o755);
    }

    #[test]
    fn any_name_of_a_file_is_nobodys_or_one_boundarys() {
        let names = prop_oneof![
            proptest_support::text(),
            proptest_support::punctuation(),
            proptest_support::text().prop_map(|name| encode(&name))
        ];
        proptest_support::check(proptest_support::FAST, &names, |name| {
            if let Some(boundary) = decode(&name) {
                assert_eq!(encode(&boundary), name);
            }
            assert_eq!(decode(&encode(&name)), Some(name));
        });
    }
}
