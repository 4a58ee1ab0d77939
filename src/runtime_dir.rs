//! The directory of this user on this host, which holds the control sockets and, by default, the files of the file store.

use std::fmt::Write as _;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::sys::statfs::{FsType, statfs};
use nix::unistd::geteuid;

use crate::path_descriptor::open_path;

/// File systems whose locks do not reach as far as their files do, or only sometimes.
const UNRELIABLE_FILE_SYSTEMS: &[(i64, &str)] = &[
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

/// Usual file systems of one host.
const FILE_SYSTEMS: &[(i64, &str)] = &[
    (0xEF53, "ext4"),
    (0x5846_5342, "XFS"),
    (0x9123_683E, "Btrfs"),
    (0x0102_1994, "tmpfs"),
    (0x794C_7630, "overlayfs"),
    (0x2FC1_2FC1, "ZFS"),
    (0xF2F5_2010, "F2FS"),
];

/// The path, by uid alone, so that a terminal, a crontab and a unit meet.
pub fn path() -> PathBuf {
    let uid = geteuid();
    if uid.is_root() { PathBuf::from("/run/elect") } else { PathBuf::from(format!("/tmp/elect-{uid}")) }
}

/// Makes the directory if it is missing, and checks that it belongs to this user alone.
///
/// # Errors
///
/// In a few words for the log: the directory cannot be made, or is not this user's.
pub fn prepare() -> Result<PathBuf, String> {
    let path = path();
    let shown = path.display();
    make_private(&path).map_err(|error| format!("{shown}: cannot be created: {error}"))?;
    match find_fault(&path, true) {
        Ok(None) => Ok(path),
        Ok(Some(fault)) => Err(format!("{shown} {fault}")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(format!("{shown} was removed")),
        Err(error) => Err(format!("{shown}: {error}")),
    }
}

/// The reason why files in a directory do not mean what they should, if there is one. A private directory is one that elect
/// has chosen, so that its owner and mode can be insisted on; a named one may be shared.
///
/// # Errors
///
/// The directory cannot be examined.
pub fn find_fault(path: &Path, is_private: bool) -> io::Result<Option<String>> {
    let found = if is_private { fs::symlink_metadata(path)? } else { fs::metadata(path)? };
    Ok(if found.file_type().is_symlink() {
        Some("is a symbolic link".to_owned())
    } else if !found.is_dir() {
        Some("is not a directory".to_owned())
    } else if is_private && found.uid() != geteuid().as_raw() {
        Some(format!("belongs to uid {}, not to us (uid {})", found.uid(), geteuid()))
    } else if is_private && found.mode() & 0o022 != 0 {
        Some(format!("can be written by others (mode {:o})", found.mode() & 0o7777))
    } else if found.mode() & 0o1000 != 0 && found.mode() & 0o022 != 0 && found.uid() != geteuid().as_raw() {
        Some("has the sticky bit, so that records of other users could not be replaced".to_owned())
    } else {
        unreliable_file_system(path).map(|kind| format!("is on {kind}, whose locks cannot be relied on"))
    })
}

/// The kind of the file system on which a path is, by its usual name or its number. `None`: it cannot be examined.
pub fn file_system(path: &Path) -> Option<String> {
    let magic = file_system_number(path)?;
    let known = UNRELIABLE_FILE_SYSTEMS.iter().chain(FILE_SYSTEMS).find(|(known, _)| *known == magic);
    Some(known.map_or_else(|| format!("a file system of type {magic:#x}"), |(_, name)| (*name).to_owned()))
}

fn file_system_number(path: &Path) -> Option<i64> {
    let FsType(magic) = statfs(path).ok()?.filesystem_type();
    // i64 with glibc, u64 with musl; all numbers have 32 bits.
    Some(magic as _)
}

fn unreliable_file_system(path: &Path) -> Option<&'static str> {
    let magic = file_system_number(path)?;
    UNRELIABLE_FILE_SYSTEMS.iter().find(|(known, _)| *known == magic).map(|(_, name)| *name)
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

/// A directory of this user's is given the three bits that its owner needs.
///
/// # Errors
///
/// Its mode cannot be changed.
pub fn open_to_owner(path: &Path) -> io::Result<()> {
    let found = fs::symlink_metadata(path)?;
    if !found.is_dir() || found.uid() != geteuid().as_raw() || found.mode() & 0o700 == 0o700 {
        return Ok(());
    }
    let directory = open_path(path, OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW)?;
    let mode = directory.metadata()?.mode() & 0o7777 | 0o700;
    fs::set_permissions(format!("/proc/self/fd/{}", directory.as_raw_fd()), fs::Permissions::from_mode(mode))
}

/// Encodes a boundary as a file's name: what is not plain becomes `%XX`, a dot in front too, so that no two meet.
#[must_use]
pub fn encode_file_name(boundary: &str) -> String {
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

/// Decodes a file's name. `None`: elect would not have written this name.
#[must_use]
pub fn decode_file_name(name: &str) -> Option<String> {
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
    // A name that elect would not have written belongs to another program.
    (encode_file_name(&boundary) == name).then_some(boundary)
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
            let encoded = encode_file_name(name);
            assert!(!encoded.starts_with('.') && !encoded.contains('/'), "{encoded}");
            assert_eq!(decode_file_name(&encoded).as_deref(), Some(name));
            // As in `Files`, with the longest suffix.
            assert!(format!(".{encoded}.json.12345678").len() <= 255, "{encoded}");
        }
        assert_eq!(encode_file_name("a/b"), "a%2Fb");
        assert_eq!(encode_file_name(".a"), "%2Ea");
        for foreign in ["%", "%2", "%zz", "a%2fb", "a b", ".hidden"] {
            assert_eq!(decode_file_name(foreign), None, "{foreign}");
        }
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
        std::os::unix::fs::symlink("private", place.path().join("link")).expect("a link");
        make_private(&place.path().join("link")).expect("refused later, by find_fault");
        assert_eq!(mode(&path), 0o755);
    }

    #[test]
    fn any_name_of_a_file_is_nobodys_or_one_boundarys() {
        let names = prop_oneof![
            proptest_support::text(),
            proptest_support::punctuation(),
            proptest_support::text().prop_map(|name| encode_file_name(&name))
        ];
        proptest_support::check(proptest_support::FAST, &names, |name| {
            if let Some(boundary) = decode_file_name(&name) {
                assert_eq!(encode_file_name(&boundary), name);
            }
            assert_eq!(decode_file_name(&encode_file_name(&name)), Some(name));
        });
    }
}
