//! Finding, stopping and killing a tree of processes by walking `/proc` (K6, tier `tree`).
//!
//! A subreaper keeps every descendant findable: one whose parent dies becomes our child, whatever it did to its session
//! or group. Nothing here allocates once a [`Scanner`] exists (K3).

use std::fmt::Write as _;
use std::io;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use super::sys;

/// More descendants than this are found in several rounds.
const MOST: usize = 32 * 1024;
/// How often a tree that keeps growing is looked at again before others have their turn.
const ROUNDS: usize = 8;

/// Walks trees of processes with memory taken once.
#[derive(Debug)]
pub struct Scanner {
    found: Vec<i32>,
    entries: Box<[u8; 4096]>,
    text: Box<[u8; 4096]>,
}

impl Scanner {
    pub fn new() -> Scanner {
        Scanner { found: Vec::with_capacity(MOST), entries: Box::new([0; 4096]), text: Box::new([0; 4096]) }
    }

    /// Every descendant of `root` (a process, all its threads), `except` and what descends from it left out.
    pub fn descendants(&mut self, root: i32, except: &[i32]) -> &[i32] {
        self.walk(root, except, |_| ());
        &self.found
    }

    /// Finds every descendant, and shows each to `visit` before it is asked for its own children. Returns whether the
    /// root could be asked for its own.
    fn walk(&mut self, root: i32, except: &[i32], visit: impl Fn(i32)) -> bool {
        self.found.clear();
        let listed = self.children(root, except);
        let mut next = 0;
        while let Some(&pid) = self.found.get(next) {
            visit(pid);
            self.children(pid, except);
            next += 1;
        }
        listed
    }

    /// Appends the children of all threads of a process. Returns false if they cannot be listed although it lives.
    fn children(&mut self, pid: i32, except: &[i32]) -> bool {
        let path = Path::of(format_args!("/proc/{pid}/task"));
        let tasks = match open(path.as_str(), READ | OFlag::O_DIRECTORY, NO_MODE) {
            Ok(tasks) => tasks,
            Err(errno) => return errno == Errno::ENOENT,
        };
        let mut listed = true;
        while let Ok(filled @ 1..) = sys::read_directory(tasks.as_fd(), &mut self.entries[..]) {
            let mut rest = &self.entries[..filled];
            // struct linux_dirent64: inode 8, offset 8, length 2, type 1, name.
            while let [_, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, low, high, _, name @ ..] = rest {
                let length = usize::from(u16::from_ne_bytes([*low, *high]));
                if let Some(task) = leading_number(name) {
                    let path = Path::of(format_args!("/proc/{pid}/task/{task}/children"));
                    listed &= list(path.as_str(), &mut self.text, &mut self.found, except);
                }
                rest = rest.get(length..).unwrap_or_default();
            }
        }
        listed
    }

    /// Sends a signal to those descendants that `chosen` picks.
    pub fn signal_those(&mut self, root: i32, except: &[i32], signal: i32, chosen: impl Fn(i32) -> bool) {
        for &pid in self.descendants(root, except).iter().filter(|&&pid| chosen(pid)) {
            // It may be gone by now, or belong to somebody we may not signal (2.2).
            let _ = sys::kill(pid, signal);
        }
    }

    /// Stops and kills every descendant, again until none is new, for some are born or adopted meanwhile. To be repeated
    /// until the tree is empty. Returns how many there were; `None` if that cannot be told.
    ///
    /// Each is stopped before its children are looked for: from then on it has no more of them, and cannot reap one and
    /// free a number that is about to be killed.
    pub fn kill(&mut self, root: i32, except: &[i32]) -> Option<usize> {
        let mut before = 0;
        let mut listed = true;
        for _ in 0..ROUNDS {
            listed = self.walk(root, except, |pid| drop(sys::kill(pid, libc::SIGSTOP)));
            for &pid in &self.found {
                let _ = sys::kill(pid, libc::SIGKILL);
            }
            if self.found.len() == before {
                break;
            }
            before = self.found.len();
        }
        listed.then_some(self.found.len())
    }
}

const READ: OFlag = OFlag::O_RDONLY.union(OFlag::O_CLOEXEC);
const NO_MODE: Mode = Mode::empty();

/// Whether this kernel and this `/proc` can list children at all.
///
/// # Errors
///
/// Says what is missing.
pub fn probe() -> io::Result<()> {
    let pid = std::process::id();
    let shown = std::fs::read_link("/proc/self").ok().and_then(|name| name.to_str()?.parse().ok());
    if shown != Some(pid) {
        // Its numbers would be those of strangers, and killing goes by number.
        return Err(io::Error::other("/proc is not mounted, or shows another PID namespace (unshare --mount-proc)"));
    }
    open(Path::of(format_args!("/proc/{pid}/task/{pid}/children")).as_str(), READ, NO_MODE)
        .map(drop)
        .map_err(|errno| io::Error::new(io::Error::from(errno).kind(), "/proc does not list the children of a process"))
}

/// Appends the numbers in the file, as long as there is room. Returns false if it exists and cannot be read.
fn list(path: &str, text: &mut [u8; 4096], found: &mut Vec<i32>, except: &[i32]) -> bool {
    let file = match open(path, READ, NO_MODE) {
        Ok(file) => file,
        Err(errno) => return errno == Errno::ENOENT,
    };
    let mut number = 0i32;
    loop {
        let read = match nix::unistd::read(&file, &mut text[..]) {
            Ok(0) | Err(Errno::ESRCH) => return true,
            Ok(read) => read,
            Err(_) => return false,
        };
        for &byte in &text[..read] {
            if byte.is_ascii_digit() {
                number = number.wrapping_mul(10).wrapping_add(i32::from(byte - b'0'));
            } else if number > 0 {
                if found.len() < MOST && !except.contains(&number) {
                    found.push(number);
                }
                number = 0;
            }
        }
    }
}

fn leading_number(name: &[u8]) -> Option<u32> {
    let digits = name.iter().position(|byte| !byte.is_ascii_digit())?;
    std::str::from_utf8(&name[..digits]).ok()?.parse().ok()
}

/// A short path built without allocating.
struct Path {
    text: [u8; 64],
    length: usize,
}

impl Path {
    fn of(arguments: std::fmt::Arguments<'_>) -> Path {
        let mut path = Path { text: [0; 64], length: 0 };
        path.write_fmt(arguments).expect("two numbers and the words between them fit");
        path
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.text[..self.length]).expect("it was made of text")
    }
}

impl std::fmt::Write for Path {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let place = self.text.get_mut(self.length..self.length + text.len()).ok_or(std::fmt::Error)?;
        place.copy_from_slice(text.as_bytes());
        self.length += text.len();
        Ok(())
    }
}

/// The children of this process right now.
///
/// # Errors
///
/// As [`probe`].
pub fn own_children() -> io::Result<Vec<i32>> {
    probe()?;
    let mut scanner = Scanner::new();
    scanner.children(std::process::id().cast_signed(), &[]);
    Ok(scanner.found)
}
