//! The processes that hold a lock, found without touching it.

use std::collections::{HashMap, HashSet};
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};

use super::lock_label::LockLabel;
use super::session::LockFile;
use crate::text::escaped;

/// The PID namespace of the host has this name on every kernel.
const HOST_PID_NAMESPACE: &str = "pid:[4026531836]";
/// The most processes that a message names.
const NAMED_MAX: usize = 8;

/// The processes that hold the `flock` on a file, as far as this user may see.
#[derive(Debug, Clone, Default)]
pub struct LockHolders {
    held: bool,
    pids: Vec<u32>,
}

impl LockHolders {
    /// Looks in the kernel's list of locks, and at the descriptors of every process that we may look at: the list names
    /// who took the lock, which may be dead, and leaves out those of another PID namespace.
    pub fn of(path: &Path) -> LockHolders {
        LockHolders::of_each(&[path]).pop().unwrap_or_default()
    }

    /// The same for many files, in their order, at the cost of one.
    pub fn of_each(paths: &[&Path]) -> Vec<LockHolders> {
        let file = |path: &&Path| fs::symlink_metadata(path).ok().map(|found| LockFile::from(&found));
        let files: Vec<Option<LockFile>> = paths.iter().map(file).collect();
        let mut pids: HashMap<LockFile, Vec<u32>> = files.iter().flatten().map(|&file| (file, Vec::new())).collect();
        if pids.is_empty() {
            return files.iter().map(|_| LockHolders::default()).collect();
        }
        for pid in processes() {
            for (descriptor, _) in locked_descriptors(pid).into_iter().flatten() {
                let Ok(found) = fs::metadata(descriptor) else { continue };
                let Some(pids) = pids.get_mut(&LockFile::from(&found)) else { continue };
                if !pids.contains(&pid) {
                    pids.push(pid);
                }
            }
        }
        let holders = |file: Option<LockFile>| {
            let Some(file) = file else { return LockHolders::default() };
            let pids = pids.get(&file).cloned().unwrap_or_default();
            LockHolders { held: !pids.is_empty() || is_listed(file, "FLOCK"), pids }
        };
        files.into_iter().map(holders).collect()
    }

    /// Whether a process holds it, seen or not.
    pub fn is_held(&self) -> bool {
        self.held
    }

    /// Whether a process has been seen to hold it.
    pub fn any(&self) -> bool {
        !self.pids.is_empty()
    }

    /// For a lock that no living leader holds.
    pub fn describe(&self) -> String {
        if self.pids.is_empty() {
            return "the lock is held by a process that cannot be seen from here".to_owned();
        }
        let holders: Vec<String> =
            self.pids.iter().take(NAMED_MAX).map(|&pid| format!("{pid} ({})", escaped(&name(pid)))).collect();
        let more = match self.pids.len().saturating_sub(NAMED_MAX) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!("the lock is held, though no leader is alive, by process {}{more}", holders.join(", "))
    }
}

/// An earlier lock file of the same path, on which a leader, or what it left behind, may still hold the lock.
#[derive(Debug, Clone)]
pub struct Earlier {
    /// The lock file that is there now.
    pub present: LockFile,
    /// How a lock file of this path describes itself.
    pub label: LockLabel,
    /// The lock file of which the record tells.
    pub recorded: Option<LockFile>,
}

/// The result of a look through `/proc`.
#[derive(Debug, Clone)]
pub struct Search {
    pub holders: LockHolders,
    /// Why a holder may exist that could not be seen.
    pub blind: Option<&'static str>,
}

impl Earlier {
    /// Looks at every lock that any process holds. A descriptor's lock is asked for first, so that a file system that does not
    /// answer is met only where somebody has locked a file on it.
    pub fn search(&self) -> Search {
        let mut pids = Vec::new();
        let mut seen = HashSet::new();
        let mut shut_out = false;
        for pid in processes() {
            let descriptors = match locked_descriptors(pid) {
                Ok(descriptors) => descriptors,
                Err(error) => {
                    shut_out |= error.kind() == io::ErrorKind::PermissionDenied;
                    continue;
                }
            };
            for (descriptor, target) in descriptors {
                let Ok(found) = fs::metadata(&descriptor) else { continue };
                let file = LockFile::from(&found);
                seen.insert(file);
                if file != self.present && !pids.contains(&pid) && self.is_one(&descriptor, file, &target) {
                    pids.push(pid);
                }
            }
        }
        let blind = blindness(shut_out, &seen);
        Search { holders: LockHolders { held: !pids.is_empty(), pids }, blind }
    }

    fn is_one(&self, descriptor: &Path, file: LockFile, target: &Path) -> bool {
        if self.recorded == Some(file) {
            return true;
        }
        // As elect 0.1 and flock(1) lock it: without a label.
        let mut deleted = self.label.path.as_os_str().to_owned();
        deleted.push(" (deleted)");
        if target.as_os_str() == deleted {
            return true;
        }
        matches!(read_label(descriptor), Some(label) if label == self.label)
    }
}

/// The contents of a file that is reached by another process's descriptor, which is a link that has to be followed.
fn read_label(descriptor: &Path) -> Option<LockLabel> {
    if !fs::metadata(descriptor).ok()?.is_file() {
        return None;
    }
    let mut options = OpenOptions::new();
    let file = options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(descriptor).ok()?;
    LockLabel::read(&file).ok()?
}

/// Why some holder may be out of sight.
fn blindness(shut_out: bool, seen: &HashSet<LockFile>) -> Option<&'static str> {
    if !is_in_host_pid_namespace() {
        return Some("processes outside of this PID namespace cannot be seen");
    }
    let hidden = fs::symlink_metadata("/proc/1").is_err();
    if !shut_out && !hidden {
        return None;
    }
    // The kernel's list has every lock of the host, but not the path of its file.
    let Ok(locks) = fs::read_to_string("/proc/locks") else { return Some("the kernel's list of locks cannot be read") };
    let accounted = |place: &str| seen.iter().any(|&file| is_at(file, place));
    let unknown = held_flocks(&locks).any(|place| !accounted(place));
    unknown.then_some("other users' processes cannot be looked at")
}

pub fn is_in_host_pid_namespace() -> bool {
    fs::read_link("/proc/self/ns/pid").is_ok_and(|name| name.as_os_str() == HOST_PID_NAMESPACE)
}

/// Where the files are whose `flock` is held.
fn held_flocks(locks: &str) -> impl Iterator<Item = &str> {
    locks.lines().filter_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        (words.next() == Some("FLOCK")).then(|| words.nth(3))?
    })
}

/// Whether a process is known to wait for the `flock` on the file. Those of another PID namespace are not listed.
pub fn is_waited_for(file: LockFile) -> bool {
    let Ok(locks) = fs::read_to_string("/proc/locks") else { return false };
    // 1: -> FLOCK  ADVISORY  WRITE 4711 fe:00:1234 0 EOF
    locks.lines().any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.get(1..3) == Some(&["->", "FLOCK"]) && words.get(6).is_some_and(|place| is_at(file, place))
    })
}

/// Whether the kernel's list has a `flock` on the file.
pub fn is_listed_at(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| is_listed(LockFile::from(&found), "FLOCK"))
}

/// Whether the kernel's list has a lock of this kind on the file.
pub fn is_listed(file: LockFile, kind: &str) -> bool {
    let Ok(locks) = fs::read_to_string("/proc/locks") else { return false };
    // 1: FLOCK  ADVISORY  WRITE 4711 fe:00:1234 0 EOF; a waiter has -> after the number.
    locks.lines().any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.get(1) == Some(&kind) && words.get(5).is_some_and(|place| is_at(file, place))
    })
}

/// Some file systems (overlay, btrfs) show people another device than they show there; both have no major number then.
fn is_at(file: LockFile, place: &str) -> bool {
    let (device, inode) = (file.device, file.inode);
    let anonymous = |place: &str| major(device) == 0 && place.starts_with("00:");
    place
        .strip_suffix(&format!(":{inode}"))
        .is_some_and(|place| place == format!("{:02x}:{:02x}", major(device), minor(device)) || anonymous(place))
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// A process's descriptors whose descriptions carry a `flock`, each with what the kernel calls its file.
fn locked_descriptors(pid: u32) -> io::Result<Vec<(PathBuf, PathBuf)>> {
    let mut locked = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))?.flatten() {
        let info = format!("/proc/{pid}/fdinfo/{}", entry.file_name().to_string_lossy());
        if carries_a_lock(Path::new(&info)) {
            locked.push((entry.path(), fs::read_link(entry.path()).unwrap_or_default()));
        }
    }
    Ok(locked)
}

/// Whether a descriptor's description carries a `flock`.
fn carries_a_lock(info: &Path) -> bool {
    fs::read_to_string(info)
        .is_ok_and(|info| info.lines().any(|line| line.starts_with("lock:") && line.contains("FLOCK")))
}

fn name(pid: u32) -> String {
    // A process may call itself anything, in bytes that are no text too.
    fs::read(format!("/proc/{pid}/comm")).map_or_else(
        |_| "gone".to_owned(),
        |name| escaped(String::from_utf8_lossy(&name).trim_end_matches('\n')).into_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_told_from_the_wait_for_one() {
        let locks = "1: FLOCK  ADVISORY  WRITE 4711 fe:00:1234 0 EOF\n\
                     1: -> FLOCK  ADVISORY  WRITE 4712 fe:00:1234 0 EOF\n\
                     2: OFDLCK ADVISORY  WRITE -1 fe:00:99 0 EOF\n\
                     3: FLOCK  ADVISORY  READ 12 00:19:7 0 EOF\n";
        assert_eq!(held_flocks(locks).collect::<Vec<_>>(), ["fe:00:1234", "00:19:7"]);
        let file = LockFile { device: nix::sys::stat::makedev(0xfe, 0), inode: 1234 };
        assert!(is_at(file, "fe:00:1234") && !is_at(file, "fe:00:234") && !is_at(file, "fe:01:1234"));
    }

    /// A directory of a container may have the same path.
    #[test]
    fn a_lock_under_the_same_path_in_another_mount_namespace_is_no_earlier_one() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (present, other) = (directory.path().join("cron.lock"), directory.path().join("other"));
        fs::write(&present, "").expect("written");
        let present = LockFile::from(&fs::metadata(&present).expect("there"));
        let label = LockLabel::of(&directory.path().join("cron.lock")).expect("a namespace");
        let elsewhere = LockLabel { namespace: "mnt:[1]".to_owned(), ..label.clone() };
        for (said, is_one) in [(&label, true), (&elsewhere, false)] {
            fs::write(&other, "").expect("written");
            let file = OpenOptions::new().read(true).write(true).open(&other).expect("opened");
            said.write(&file).expect("written");
            file.lock().expect("locked");
            let earlier = Earlier { present, label: label.clone(), recorded: None };
            assert_eq!(earlier.search().holders.any(), is_one, "{said:?}");
        }
    }
}
