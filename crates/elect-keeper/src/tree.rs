//! Finding, stopping and killing a tree of processes by walking `/proc` (K6, tier `tree`).
//!
//! A subreaper keeps every descendant findable: one whose parent dies becomes our child, whatever it did to its session
//! or group. Nothing here allocates once a [`Scanner`] exists (K3).

use std::cell::Cell;
use std::fmt::Write as _;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::{Whence, lseek};

use super::sys;

/// More descendants than this are found in several rounds.
pub const DESCENDANTS_MAX: usize = 32 * 1024;
/// How often a tree that keeps growing is looked at again before others have their turn.
const SWEEP_ROUNDS_MAX: usize = 8;
/// How many processes are dealt with between two reports of progress, and in one slice of [`Scanner::kill_slice`].
pub const BATCH: usize = 256;

/// Walks trees of processes with memory taken once.
#[derive(Debug)]
pub struct Scanner {
    found: Vec<i32>,
    seen: PidSet,
    entries: Box<[u8; 4096]>,
    text: Box<[u8; 4096]>,
    /// The lists of the main threads' children of these processes, open from the start: where no descriptor is to be had any
    /// more (`ENFILE`, `EMFILE`), a tree is killed from its top, whose orphans become children of the same process.
    roots: Vec<(i32, OwnedFd)>,
    /// How many new ones the present hunt has found.
    swept: usize,
}

impl Scanner {
    /// For the trees of these processes.
    pub fn new(roots: &[i32]) -> Scanner {
        let opened = |&pid: &i32| {
            let path = Path::of(format_args!("/proc/{pid}/task/{pid}/children"));
            open(path.as_str(), READ, NO_MODE).ok().map(|children| (pid, children))
        };
        Scanner {
            found: Vec::with_capacity(DESCENDANTS_MAX),
            seen: PidSet::new(),
            entries: Box::new([0; 4096]),
            text: Box::new([0; 4096]),
            roots: roots.iter().filter_map(opened).collect(),
            swept: 0,
        }
    }

    /// Every descendant of `root` (a process, all its threads), `except` and what descends from it left out.
    pub fn descendants(&mut self, root: i32, except: &[i32]) -> &[i32] {
        self.seen.clear();
        self.walk(root, except, DESCENDANTS_MAX, |_| (), &mut || ());
        &self.found
    }

    /// Finds every descendant, and shows each to `visit` before it is asked for its own children, unless it has been asked
    /// before; no more than so many. Reports progress after each batch.
    fn walk(
        &mut self,
        root: i32,
        except: &[i32],
        most: usize,
        visit: impl Fn(i32),
        progress: &mut dyn FnMut(),
    ) -> Walked {
        self.found.clear();
        let mut walked = Walked { root_listed: self.children(root, except), all_listed: true, new: 0 };
        let mut next = 0;
        while let Some(&pid) = self.found.get(next).filter(|_| next < most) {
            visit(pid);
            if self.seen.is_new(pid) {
                walked.new += 1;
                walked.all_listed &= self.children(pid, except);
            }
            next += 1;
            if next.is_multiple_of(BATCH) {
                progress();
            }
        }
        walked
    }

    /// Appends the children of all threads of a process. Returns false if they cannot be listed although it lives.
    fn children(&mut self, pid: i32, except: &[i32]) -> bool {
        let path = Path::of(format_args!("/proc/{pid}/task"));
        let tasks = match open(path.as_str(), READ | OFlag::O_DIRECTORY, NO_MODE) {
            Ok(tasks) => tasks,
            Err(Errno::ENOENT) => return true,
            Err(_) => return self.children_of_root(pid, except),
        };
        let before = self.found.len();
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
        if !listed {
            // The directory could be opened, and then no more.
            self.found.truncate(before);
            return self.children_of_root(pid, except);
        }
        true
    }

    /// The same without a new descriptor, for a root; of its main thread, which is the only one that the trees here have.
    fn children_of_root(&mut self, pid: i32, except: &[i32]) -> bool {
        let Some((_, children)) = self.roots.iter().find(|(root, _)| *root == pid) else { return false };
        lseek(children, 0, Whence::SeekSet).is_ok()
            && read_numbers(children.as_fd(), &mut self.text, &mut self.found, except)
    }

    /// Sends a signal to those descendants that `chosen` picks.
    pub fn signal_descendants(&mut self, root: i32, except: &[i32], signal: i32, chosen: impl Fn(i32) -> bool) {
        for &pid in self.descendants(root, except).iter().filter(|&&pid| chosen(pid)) {
            // It may be gone by now, or belong to somebody we may not signal (2.2).
            let _ = sys::kill(pid, signal);
        }
    }

    /// Stops and kills every descendant, or so many; again until none is new, for some are born or adopted meanwhile. To be
    /// repeated until the tree is empty.
    ///
    /// Each is stopped before its children are looked for: from then on it has no more of them, and cannot reap one and
    /// free a number that is about to be killed. So they are looked for once: the dead, of whom a storm leaves many, would
    /// otherwise take all the time in which the living have children.
    ///
    /// `progress` is called after each batch: the caller says that it lives (K4).
    pub fn kill(&mut self, root: i32, except: &[i32], most: usize, progress: &mut dyn FnMut()) -> KillSweep {
        self.seen.clear();
        let mut all = 0;
        for _ in 0..SWEEP_ROUNDS_MAX {
            let refused = Cell::new(false);
            let stop = |pid| {
                let stopped = sys::kill(pid, libc::SIGSTOP);
                refused.set(refused.get() || stopped.is_err_and(|error| error.kind() == ErrorKind::PermissionDenied));
            };
            let walked = self.walk(root, except, most, stop, progress);
            for batch in self.found.chunks(BATCH) {
                for &pid in batch {
                    let _ = sys::kill(pid, libc::SIGKILL);
                }
                progress();
            }
            all += walked.new;
            if !walked.root_listed {
                return KillSweep::Unlistable;
            }
            if refused.get() || !walked.all_listed || self.found.len() > most {
                return KillSweep::Partial;
            }
            if walked.new == 0 {
                return KillSweep::Complete(all);
            }
        }
        KillSweep::Partial
    }

    /// Begins a hunt by slices: nobody has been seen.
    pub fn begin_sweep(&mut self) {
        self.seen.clear();
        self.swept = 0;
    }

    /// How many the present hunt has found.
    pub fn swept(&self) -> usize {
        self.swept
    }

    /// Stops and kills a batch of those that the present hunt has not seen yet, so that whoever has other things to do is held
    /// up by no more than that. The walk begins at the root each time: no number is kept from one slice to the next, for it
    /// may be somebody else's by then. Whoever loses its parent to a slice is a child of the root by the next.
    pub fn kill_slice(&mut self, root: i32, except: &[i32]) -> SweepSlice {
        self.found.clear();
        if !self.children(root, except) {
            return SweepSlice::Unlistable;
        }
        let (mut next, mut new, mut all_listed) = (0, 0, true);
        while let Some(&pid) = self.found.get(next) {
            if new == BATCH {
                self.swept += new;
                return SweepSlice::More;
            }
            if self.seen.is_new(pid) {
                new += 1;
                let _ = sys::kill(pid, libc::SIGSTOP);
                all_listed &= self.children(pid, except);
                let _ = sys::kill(pid, libc::SIGKILL);
            }
            next += 1;
        }
        self.swept += new;
        if new > 0 || !all_listed { SweepSlice::More } else { SweepSlice::Done { left: self.found.len() } }
    }
}

/// The result of a walk.
struct Walked {
    root_listed: bool,
    all_listed: bool,
    new: usize,
}

/// The result of one slice of a hunt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SweepSlice {
    /// Every one has been killed before; so many are still to be reaped.
    Done { left: usize },
    /// There may be more.
    More,
    /// They could not be listed.
    Unlistable,
}

/// What killing them one by one has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KillSweep {
    /// So many there were, and no more: it is over when they are reaped.
    Complete(usize),
    /// There may be more: they are too fast, too many, or somebody else's.
    Partial,
    /// They could not be listed.
    Unlistable,
}

/// Which numbers of processes have been seen: a bit for each that there can be.
#[derive(Debug)]
struct PidSet(Vec<u64>);

impl PidSet {
    /// `PID_MAX_LIMIT` of a 64-bit kernel.
    const NUMBERS: usize = 4 * 1024 * 1024;

    fn new() -> PidSet {
        PidSet(vec![0; PidSet::NUMBERS / 64])
    }

    fn clear(&mut self) {
        self.0.fill(0);
    }

    /// Whether it had not been seen before.
    fn is_new(&mut self, pid: i32) -> bool {
        let number = pid.unsigned_abs() as usize % PidSet::NUMBERS;
        let (word, bit) = (&mut self.0[number / 64], 1 << (number % 64));
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
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
    read_numbers(file.as_fd(), text, found, except)
}

/// The same for a file that is open.
fn read_numbers(file: BorrowedFd<'_>, text: &mut [u8; 4096], found: &mut Vec<i32>, except: &[i32]) -> bool {
    let mut number = 0i32;
    loop {
        let read = match nix::unistd::read(file, &mut text[..]) {
            Ok(0) | Err(Errno::ESRCH) => return true,
            Ok(read) => read,
            Err(_) => return false,
        };
        for &byte in &text[..read] {
            if byte.is_ascii_digit() {
                number = number.wrapping_mul(10).wrapping_add(i32::from(byte - b'0'));
            } else if number > 0 {
                if found.len() < DESCENDANTS_MAX && !except.contains(&number) {
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

/// All that descends from this process right now.
///
/// # Errors
///
/// As [`probe`].
pub fn own_descendants() -> io::Result<Vec<i32>> {
    probe()?;
    let mut scanner = Scanner::new(&[]);
    Ok(scanner.descendants(std::process::id().cast_signed(), &[]).to_vec())
}
