//! The directory, the names in it, and the record: everything about files but the locks.

use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::sys::statfs::{FsType, statfs};
use nix::unistd::geteuid;

use super::super::record::VERSION;
use super::{FileRecord, StoreError};
use crate::boundary::Boundary;

/// A record is less than a kilobyte; whatever is longer is none.
const LONGEST_RECORD: u64 = 64 * 1024;

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
        let path = std::path::absolute(path).map_err(|error| error.to_string())?;
        Ok(Directory { path, is_default: false, for_locks: true })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn files(&self, boundary: &Boundary) -> Files {
        Files::new(&self.path, boundary.as_str())
    }

    /// Makes the directory if it is missing, and checks that locks in it mean what they should.
    pub fn prepare(&self) -> Result<(), StoreError> {
        let shown = self.path.display();
        let mode = if self.is_default { 0o700 } else { 0o777 };
        match DirBuilder::new().recursive(!self.is_default).mode(mode).create(&self.path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(refused_if_permanent(&error, format!("{shown}: cannot be created: {error}"))),
        }
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
        let mut boundaries: Vec<Boundary> = entries
            .filter_map(|entry| decode(entry.ok()?.file_name().to_str()?.strip_suffix(".json")?)?.parse().ok())
            .collect();
        boundaries.sort();
        Ok(boundaries)
    }
}

/// Another user's.
fn closed(directory: &Path, what: &impl std::fmt::Display) -> StoreError {
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

/// The two files of one boundary.
#[derive(Debug)]
pub struct Files {
    directory: PathBuf,
    pub lock: PathBuf,
    pub record: PathBuf,
    temporary: PathBuf,
}

/// Why there is no record to be read.
#[derive(Debug)]
pub enum ReadError {
    Io(io::Error),
    /// Written by something that is not elect, or cut short.
    Corrupt(String),
    /// Written by a newer elect: this one must not stand beside it.
    Newer(u32),
}

impl Files {
    pub fn new(directory: &Path, boundary: &str) -> Files {
        let name = encode(boundary);
        Files {
            directory: directory.to_owned(),
            lock: directory.join(format!("{name}.lock")),
            record: directory.join(format!("{name}.json")),
            temporary: directory.join(format!(".{name}.json.new")),
        }
    }

    pub fn trouble(&self, what: &str, error: &io::Error) -> StoreError {
        refused_if_permanent(error, format!("{} {what}: {error}", self.lock.display()))
    }

    /// The record; `None` if there is none yet.
    pub fn read(&self) -> Result<Option<FileRecord>, ReadError> {
        let file =
            match OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(&self.record) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(ReadError::Io(error)),
            };
        let mut bytes = Vec::new();
        file.take(LONGEST_RECORD).read_to_end(&mut bytes).map_err(ReadError::Io)?;
        parse(&bytes).map(Some)
    }

    /// Replaces the record, so that a reader finds the old one or the new one and a crash leaves one of them. Under the lock.
    pub fn write(&self, record: &FileRecord) -> Result<(), StoreError> {
        let replaced = || -> io::Result<()> {
            let mut bytes = serde_json::to_vec(record)?;
            bytes.push(b'\n');
            // Left over from a crash, or put there by somebody: not to be followed.
            match fs::remove_file(&self.temporary) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&self.temporary)?;
            file.write_all(&bytes)?;
            file.set_permissions(fs::Permissions::from_mode(0o644))?;
            file.sync_all()?;
            fs::rename(&self.temporary, &self.record)?;
            File::open(&self.directory)?.sync_all()
        };
        replaced().map_err(|error| {
            let _ = fs::remove_file(&self.temporary);
            refused_if_permanent(&error, format!("{} cannot be written: {error}", self.record.display()))
        })
    }
}

fn parse(bytes: &[u8]) -> Result<FileRecord, ReadError> {
    #[derive(serde::Deserialize)]
    struct Format {
        version: u32,
    }
    let corrupt = |error: serde_json::Error| ReadError::Corrupt(error.to_string());
    let Format { version } = serde_json::from_slice(bytes).map_err(corrupt)?;
    if version > VERSION {
        return Err(ReadError::Newer(version));
    }
    serde_json::from_slice(bytes).map_err(corrupt)
}

impl ReadError {
    pub fn into_store_error(self, files: &Files) -> StoreError {
        let record = files.record.display();
        match self {
            ReadError::Io(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                closed(&files.directory, &record)
            }
            ReadError::Io(error) => refused_if_permanent(&error, format!("{record} cannot be read: {error}")),
            ReadError::Corrupt(reason) => {
                // It repeats what it does not know, line breaks and all.
                let reason = reason.replace(|c: char| c.is_control(), " ");
                StoreError::Unavailable(format!("{record} is not a record: {reason}; the next leader replaces it"))
            }
            ReadError::Newer(version) => StoreError::Refused(format!(
                "{record} was written by a newer elect (format {version}, this one knows {VERSION}): upgrade this one"
            )),
        }
    }
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

    use super::super::super::record::{Record, RecordState};
    use super::super::LockFile;
    use super::*;
    use crate::election::Term;
    use crate::fuzz;

    #[test]
    fn names_in_files_never_meet_and_come_back() {
        let longest = "/".repeat(80);
        let names = ["a", "a/b", "a%2Fb", ".a", "a.b", "..", "Zürich", "a.json", "a.lock", " ", longest.as_str()];
        for name in names {
            let encoded = encode(name);
            assert!(!encoded.starts_with('.') && !encoded.contains('/'), "{encoded}");
            assert_eq!(decode(&encoded).as_deref(), Some(name));
            let files = Files::new(Path::new("/d"), name);
            let longest = files.temporary.file_name().expect("a name").len();
            assert!(longest <= 255, "{longest}");
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
        assert!(Directory::parse("locks").expect("a path").path().is_absolute());
        let message = Directory::parse("//srv/locks").expect_err("a host");
        assert!(message.contains("file:///DIR"), "{message}");
    }

    #[test]
    fn a_record_that_is_none_is_told_from_one_that_is_newer() {
        assert!(matches!(parse(b""), Err(ReadError::Corrupt(_))));
        assert!(matches!(parse(b"\0\0\0\0"), Err(ReadError::Corrupt(_))));
        assert!(matches!(parse(b"{\"version\":1}"), Err(ReadError::Corrupt(_))));
        assert!(matches!(parse(b"{\"version\":3,\"whatever\":[]}"), Err(ReadError::Newer(3))));
    }

    fn records() -> impl Strategy<Value = FileRecord> {
        let state = prop_oneof![Just(RecordState::Held), Just(RecordState::Free)];
        let who = (fuzz::text(), fuzz::text(), fuzz::text(), any::<Option<u16>>());
        let numbers = (0..=VERSION, any::<Term>(), any::<Option<u64>>(), any::<u64>());
        (state, who, numbers, any::<[u64; 2]>(), any::<Option<Term>>()).prop_map(
            |(state, (id, name, host, port), (version, term, ttl, since), [device, inode], former)| FileRecord {
                record: Record { version, state, id, name, host, port, term, ttl, since },
                lock: LockFile { device, inode },
                former,
            },
        )
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        let directory = tempfile::tempdir().expect("a directory");
        let files = Files::new(directory.path(), "cron");
        fuzz::holds(fuzz::DEAR, &records(), |record| {
            files.write(&record).expect("written");
            assert_eq!(files.read().expect("a record"), Some(record));
        });
    }

    #[test]
    fn whatever_is_found_in_a_record_is_read_without_harm_and_stays() {
        let json = || records().prop_map(|record| serde_json::to_vec(&record).expect("JSON"));
        let found = prop_oneof![fuzz::noise(), fuzz::mangled(json()), fuzz::miswritten(json())];
        fuzz::holds(fuzz::CHEAP, &found, |bytes| {
            if let Ok(record) = parse(&bytes) {
                let again = serde_json::to_vec(&record).expect("JSON");
                assert_eq!(parse(&again).expect("a record"), record);
            }
        });
        let directory = tempfile::tempdir().expect("a directory");
        let files = Files::new(directory.path(), "cron");
        fuzz::holds(fuzz::DEAR, &found, |bytes| {
            fs::write(&files.record, &bytes).expect("written");
            if let Err(error) = files.read() {
                assert_eq!(error.into_store_error(&files).to_string().lines().count(), 1);
            }
            assert_eq!(fs::read(&files.record).expect("still there"), bytes);
        });
    }

    #[test]
    fn noise_is_no_record() {
        fuzz::holds(fuzz::CHEAP, &fuzz::noise(), |bytes| assert!(parse(&bytes).is_err()));
    }

    #[test]
    fn any_name_of_a_file_is_nobodys_or_one_boundarys() {
        let names = prop_oneof![fuzz::text(), fuzz::punctuation(), fuzz::text().prop_map(|name| encode(&name))];
        fuzz::holds(fuzz::CHEAP, &names, |name| {
            if let Some(boundary) = decode(&name) {
                assert_eq!(encode(&boundary), name);
            }
            assert_eq!(decode(&encode(&name)), Some(name));
        });
    }
}
