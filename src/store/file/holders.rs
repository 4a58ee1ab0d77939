//! Who holds a lock, found out without touching it: for people.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::stat::{major, minor};

use super::LockFile;

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
        let Ok(found) = fs::metadata(path) else { return Holders::default() };
        let file = LockFile { device: found.dev(), inode: found.ino() };
        let holders = Holders::on(file);
        Holders { held: holders.any() || is_listed(file), ..holders }
    }

    /// Those on a file that may have no name any more.
    pub fn on(file: LockFile) -> Holders {
        Holders::whose(|descriptor| {
            fs::metadata(descriptor).is_ok_and(|found| found.dev() == file.device && found.ino() == file.inode)
        })
    }

    /// Those on files that were deleted and had this path.
    pub fn of_deleted(path: &Path) -> Holders {
        let mut name = path.as_os_str().to_owned();
        name.push(" (deleted)");
        Holders::whose(|descriptor| fs::read_link(descriptor).is_ok_and(|target| target.as_os_str() == name))
    }

    fn whose(is_on_it: impl Fn(&Path) -> bool) -> Holders {
        let pids: Vec<u32> = fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(|&pid| holds(pid, &is_on_it))
            .collect();
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

fn is_listed(file: LockFile) -> bool {
    let Ok(locks) = fs::read_to_string("/proc/locks") else { return false };
    let file = format!("{:02x}:{:02x}:{}", major(file.device), minor(file.device), file.inode);
    // 1: FLOCK  ADVISORY  WRITE 4711 fe:00:1234 0 EOF; a waiter has -> after the number.
    locks.lines().any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.get(1) == Some(&"FLOCK") && words.get(5) == Some(&file.as_str())
    })
}

/// Whether a descriptor of the process is on the file and carries its `flock`.
fn holds(pid: u32, is_on_it: impl Fn(&Path) -> bool) -> bool {
    fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten().any(|entry| {
        is_on_it(&entry.path())
            && fs::read_to_string(format!("/proc/{pid}/fdinfo/{}", entry.file_name().to_string_lossy()))
                .is_ok_and(|info| info.lines().any(|line| line.starts_with("lock:") && line.contains("FLOCK")))
    })
}

fn name(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).map_or_else(|_| "gone".to_owned(), |name| name.trim().to_owned())
}
