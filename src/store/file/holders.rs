//! Who holds a lock, found out without touching it: for people.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};

use super::LockFile;
use crate::text::escaped;

/// The processes that hold the `flock` on a file, as far as this user may see.
#[derive(Debug, Default)]
pub struct Holders {
    held: bool,
    pids: Vec<u32>,
}

impl Holders {
    /// Looks in the kernel's list of locks, and at the descriptors of every process that we may look at: the list names
    /// who took the lock, which may be dead, and leaves out those of another PID namespace.
    pub fn of(path: &Path) -> Holders {
        Holders::of_each(&[path]).pop().unwrap_or_default()
    }

    /// The same for many files, in their order, at the cost of one.
    pub fn of_each(paths: &[&Path]) -> Vec<Holders> {
        let file = |path: &&Path| fs::metadata(path).ok().map(|found| LockFile::from(&found));
        let files: Vec<Option<LockFile>> = paths.iter().map(file).collect();
        let mut pids: HashMap<LockFile, Vec<u32>> = files.iter().flatten().map(|&file| (file, Vec::new())).collect();
        if pids.is_empty() {
            return files.iter().map(|_| Holders::default()).collect();
        }
        for pid in processes() {
            for (descriptor, info) in descriptors(pid) {
                let Ok(found) = fs::metadata(descriptor) else { continue };
                let Some(pids) = pids.get_mut(&LockFile::from(&found)) else { continue };
                if !pids.contains(&pid) && carries_a_lock(&info) {
                    pids.push(pid);
                }
            }
        }
        let holders = |file: Option<LockFile>| {
            let Some(file) = file else { return Holders::default() };
            let pids = pids.get(&file).cloned().unwrap_or_default();
            Holders { held: !pids.is_empty() || is_listed(file, "FLOCK"), pids }
        };
        files.into_iter().map(holders).collect()
    }

    /// Those on a file that may have no name any more.
    pub fn on(file: LockFile) -> Holders {
        Holders::whose(|descriptor| fs::metadata(descriptor).is_ok_and(|found| LockFile::from(&found) == file))
    }

    /// Those on files that were deleted and had this path.
    pub fn of_deleted(path: &Path) -> Holders {
        let mut name = path.as_os_str().to_owned();
        name.push(" (deleted)");
        Holders::whose(|descriptor| fs::read_link(descriptor).is_ok_and(|target| target.as_os_str() == name))
    }

    fn whose(is_on_it: impl Fn(&Path) -> bool) -> Holders {
        let holds = |pid: &u32| descriptors(*pid).any(|(path, info)| is_on_it(&path) && carries_a_lock(&info));
        let pids: Vec<u32> = processes().filter(holds).collect();
        Holders { held: !pids.is_empty(), pids }
    }

    /// Whether anybody holds it, seen or not.
    pub fn is_held(&self) -> bool {
        self.held
    }

    /// Whether anybody has been seen to hold it.
    pub fn any(&self) -> bool {
        !self.pids.is_empty()
    }

    /// For a lock that no living leader holds.
    pub fn describe(&self) -> String {
        if self.pids.is_empty() {
            return "the lock is held by a process that cannot be seen from here".to_owned();
        }
        let holders: Vec<String> = self.pids.iter().map(|&pid| format!("{pid} ({})", name(pid))).collect();
        format!("the lock is held, though no leader is alive, by process {}", holders.join(", "))
    }
}

/// Whether the kernel's list has a `flock` on the file.
pub fn is_listed_at(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| is_listed(LockFile::from(&found), "FLOCK"))
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

/// A process's descriptors, each with where more is said about it.
fn descriptors(pid: u32) -> impl Iterator<Item = (PathBuf, PathBuf)> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    entries.map(move |entry| {
        let info = format!("/proc/{pid}/fdinfo/{}", entry.file_name().to_string_lossy());
        (entry.path(), PathBuf::from(info))
    })
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
