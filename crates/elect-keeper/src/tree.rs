//! Finding, stopping and killing a tree of processes by walking `/proc` (K6, tier `tree`).
//!
//! A subreaper keeps every descendant findable: a descendant whose parent dies becomes our child, even in another
//! session or group. No function here allocates once a [`Scanner`] exists (K3).

use std::cell::Cell;
use std::fmt::Write as _;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::{Whence, lseek};

use super::memory;
use super::sys;

/// The number of descendants found in one round.
pub const DESCENDANTS_MAX: usize = 32 * 1024;
/// The rounds over a growing tree before other work gets its turn.
const SWEEP_ROUNDS_MAX: usize = 8;
/// The number of processes handled between two reports of progress, and in one slice of [`Scanner::kill_slice`].
pub const BATCH: usize = 256;

/// Walks trees of processes with memory allocated once.
#[derive(Debug)]
pub struct Scanner {
    found: Vec<i32>,
    seen: PidSet,
    entries: Box<[u8; 4096]>,
    text: Box<[u8; 4096]>,
    /// The `children` files of these processes' main threads, opened at the start: when no new descriptor is available
    /// (`ENFILE`, `EMFILE`), a tree is killed from its top, whose orphans become children of the same process.
    roots: Vec<(i32, OwnedFd)>,
    /// The number of processes that the present sweep has found.
    swept: usize,
}

impl Scanner {
    /// Creates a scanner for the trees of these processes.
    pub fn new(roots: &[i32]) -> Scanner {
        let mut scanner = Scanner {
            found: Vec::with_capacity(DESCENDANTS_MAX),
            seen: PidSet::new(),
            entries: Box::new([0; 4096]),
            text: Box::new([0; 4096]),
            roots: Vec::new(),
            swept: 0,
        };
        scanner.add_roots(roots);
        scanner
    }

    /// Lists these processes too when no new descriptor is available.
    pub fn add_roots(&mut self, roots: &[i32]) {
        self.roots.extend(roots.iter().filter_map(|pid| open_children(*pid)));
    }

    /// Takes its memory from the kernel, but for what only a tree needs whose process ids lie in more than
    /// [`PidSet::BLOCKS_HELD`] blocks. Must be repeated after each fork, which shares all of it with the child until it is
    /// written to.
    pub fn hold(&mut self) {
        self.found.resize(DESCENDANTS_MAX, 0);
        memory::hold(&mut self.found);
        self.found.clear();
        self.seen.hold();
        memory::hold(&mut self.entries[..]);
        memory::hold(&mut self.text[..]);
    }

    /// Every descendant of `root` (a process, all its threads), without `except` and their descendants.
    pub fn descendants(&mut self, root: i32, except: &[i32]) -> &[i32] {
        self.seen.clear();
        self.walk(root, except, DESCENDANTS_MAX, |_| (), &mut || ());
        &self.found
    }

    /// The children of a process; `None` if they could not be listed.
    pub fn children_of(&mut self, root: i32) -> Option<&[i32]> {
        self.found.clear();
        self.children(root, &[]).then_some(&self.found[..])
    }

    /// A few descendants, found without a walk through all.
    pub fn first_descendants(&mut self, root: i32, most: usize) -> &[i32] {
        self.seen.clear();
        self.walk(root, &[], most, |_| (), &mut || ());
        &self.found[..most.min(self.found.len())]
    }

    /// The same, or nothing if the children of a process could not be listed.
    pub fn all_descendants(&mut self, root: i32, except: &[i32]) -> Option<&[i32]> {
        self.seen.clear();
        let walked = self.walk(root, except, DESCENDANTS_MAX, |_| (), &mut || ());
        (walked.root_listed && walked.all_listed).then_some(&self.found[..])
    }

    /// Finds every descendant, at most `most`, and calls `visit` for each before its children are listed, unless they
    /// have been listed before. Reports progress after each batch.
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
            // The directory could be opened, but no further file.
            self.found.truncate(before);
            return self.children_of_root(pid, except);
        }
        true
    }

    /// Appends the children of a root without a new descriptor: those of its main thread, which is the only thread of
    /// the roots here.
    fn children_of_root(&mut self, pid: i32, except: &[i32]) -> bool {
        let Some((_, children)) = self.roots.iter().find(|(root, _)| *root == pid) else { return false };
        lseek(children, 0, Whence::SeekSet).is_ok()
            && read_numbers(children.as_fd(), &mut self.text, &mut self.found, except)
    }

    /// Sends a signal to those descendants that `chosen` picks.
    pub fn signal_descendants(&mut self, root: i32, except: &[i32], signal: i32, chosen: impl Fn(i32) -> bool) {
        for &pid in self.descendants(root, except).iter().filter(|&&pid| chosen(pid)) {
            // The process may be gone by now, or run as a user whom we may not signal (2.2).
            let _ = sys::kill(pid, signal);
        }
    }

    /// Stops and kills every descendant, at most `most`; repeats until none is new, because processes are forked or
    /// adopted meanwhile. Must be repeated until the tree is empty.
    ///
    /// Each process is stopped before its children are listed: from then on it forks no more, and cannot reap a child
    /// and free a process id that is about to be killed. So each process's children are listed only once: rescanning
    /// the zombies of a fork storm would let the survivors fork faster than they are killed.
    ///
    /// `progress` is called after each batch, so that the caller can report that it lives (K4).
    #[inline(never)] // There is one copy of it, the rehearsed one.
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

    /// Kills every child of `root`, and takes the ways that a kill takes in few cases: with more processes than one may kill,
    /// without a new descriptor, and with a signal that the kernel refuses.
    pub fn rehearse(&mut self, root: i32, nobody: i32, progress: &mut dyn FnMut()) {
        self.found.clear();
        let _ = self.children_of_root(root, &[]);
        let _ = self.children_of_root(nobody, &[]);
        let _ = sys::kill(nobody, libc::SIGSTOP).is_err_and(|error| error.kind() == ErrorKind::PermissionDenied);
        let _ = self.kill(nobody, &[], DESCENDANTS_MAX, progress);
        let _ = self.kill(root, &[], 0, progress);
    }

    /// Begins a sweep by slices, with no process visited yet.
    pub fn begin_sweep(&mut self) {
        self.seen.clear();
        self.swept = 0;
    }

    /// The number of processes that the present sweep has found.
    pub fn swept(&self) -> usize {
        self.swept
    }

    /// Stops and kills a batch of the processes that the present sweep has not visited yet, so that the caller is
    /// delayed by no more than one batch. The walk begins at the root each time: no process id is kept from one slice
    /// to the next, because it may be reused by then. A process that loses its parent in one slice is a child of the
    /// root in the next.
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

/// The result of one slice of a sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SweepSlice {
    /// Every process has been killed before; `left` of them have not been reaped.
    Done { left: usize },
    /// More processes may exist.
    More,
    /// The processes could not be listed.
    Unlistable,
}

/// The result of killing processes one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KillSweep {
    /// All processes found (their number) were killed; the tree is empty when they are reaped.
    Complete(usize),
    /// More processes may exist: they fork too fast, are too many, or belong to another user.
    Partial,
    /// The processes could not be listed.
    Unlistable,
}

/// A set of process ids: a bit for each possible id. Only blocks that an id was found in have bits, one block after the other, so
/// that a walk touches little memory wherever the ids lie.
#[derive(Debug)]
struct PidSet {
    /// For each block of ids, the place of its bits, counted from one; zero for a block without.
    places: Vec<u16>,
    /// The blocks that have bits.
    used: usize,
    bits: Vec<u64>,
}

impl PidSet {
    const BLOCK_PIDS: usize = 512;
    const BLOCK_WORDS: usize = PidSet::BLOCK_PIDS / 64;
    /// Up to `PID_MAX_LIMIT` of a 64-bit kernel.
    const BLOCKS: usize = 4 * 1024 * 1024 / PidSet::BLOCK_PIDS;
    /// Each process of a tree needs at most one block, and processes that are forked one after the other share one.
    const BLOCKS_HELD: usize = 2 * 1024;

    fn new() -> PidSet {
        // Both come from the kernel as zeros, and take memory where they are used.
        PidSet { places: vec![0; PidSet::BLOCKS], used: 0, bits: vec![0; PidSet::BLOCKS * PidSet::BLOCK_WORDS] }
    }

    fn hold(&mut self) {
        memory::hold(&mut self.places);
        memory::hold(&mut self.bits[..PidSet::BLOCKS_HELD * PidSet::BLOCK_WORDS]);
    }

    fn clear(&mut self) {
        self.bits[..self.used * PidSet::BLOCK_WORDS].fill(0);
        self.places.fill(0);
        self.used = 0;
    }

    /// Inserts a process id. Returns whether it is new; one that no kernel gives always is.
    fn is_new(&mut self, pid: i32) -> bool {
        let number = pid.unsigned_abs() as usize;
        let Some(place) = self.places.get_mut(number / PidSet::BLOCK_PIDS) else { return true };
        if *place == 0 {
            self.used += 1;
            *place = u16::try_from(self.used).unwrap_or(u16::MAX);
        }
        let within = number % PidSet::BLOCK_PIDS;
        let index = (usize::from(*place) - 1) * PidSet::BLOCK_WORDS + within / 64;
        let (word, bit) = (&mut self.bits[index], 1 << (within % 64));
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }
}

const READ: OFlag = OFlag::O_RDONLY.union(OFlag::O_CLOEXEC);
const NO_MODE: Mode = Mode::empty();

/// Checks that this kernel and this `/proc` can list children.
///
/// # Errors
///
/// Names the missing feature.
pub fn probe() -> io::Result<()> {
    let pid = std::process::id();
    let shown = std::fs::read_link("/proc/self").ok().and_then(|name| name.to_str()?.parse().ok());
    if shown != Some(pid) {
        // Its process ids would denote other processes, and processes are killed by id.
        return Err(io::Error::other("/proc is not mounted, or shows another PID namespace (unshare --mount-proc)"));
    }
    open(Path::of(format_args!("/proc/{pid}/task/{pid}/children")).as_str(), READ, NO_MODE)
        .map(drop)
        .map_err(|errno| io::Error::new(io::Error::from(errno).kind(), "/proc does not list the children of a process"))
}

/// Appends the numbers in the file while there is room. Returns false if the file exists and cannot be read.
fn list(path: &str, text: &mut [u8; 4096], found: &mut Vec<i32>, except: &[i32]) -> bool {
    let file = match open(path, READ, NO_MODE) {
        Ok(file) => file,
        Err(errno) => return errno == Errno::ENOENT,
    };
    read_numbers(file.as_fd(), text, found, except)
}

/// Appends the numbers in an open file.
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
pub struct Path {
    text: [u8; 64],
    length: usize,
}

impl Path {
    pub fn of(arguments: std::fmt::Arguments<'_>) -> Path {
        let mut path = Path { text: [0; 64], length: 0 };
        path.write_fmt(arguments).expect("two numbers and the words between them fit");
        path
    }

    pub fn as_str(&self) -> &str {
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

/// The `children` file of a process's main thread.
fn open_children(pid: i32) -> Option<(i32, OwnedFd)> {
    let path = Path::of(format_args!("/proc/{pid}/task/{pid}/children"));
    open(path.as_str(), READ, NO_MODE).ok().map(|children| (pid, children))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_new_once_wherever_it_lies() {
        let mut seen = PidSet::new();
        let ids = [1, 64, 511, 512, 32_768, 4_000_000, 4_194_303];
        assert!(ids.iter().all(|&pid| seen.is_new(pid)));
        assert!(!ids.iter().any(|&pid| seen.is_new(pid)));
        seen.clear();
        assert!(ids.iter().all(|&pid| seen.is_new(pid)));
    }

    #[test]
    fn ids_of_every_block_find_room_and_only_the_blocks_in_use_are_cleared() {
        let mut seen = PidSet::new();
        let one_of_each =
            || (0..PidSet::BLOCKS).map(|block| i32::try_from(block * PidSet::BLOCK_PIDS + 7).expect("small"));
        for _ in 0..2 {
            assert!(one_of_each().rev().all(|pid| seen.is_new(pid)));
            assert!(!one_of_each().any(|pid| seen.is_new(pid)));
            seen.clear();
            assert!(seen.bits.iter().all(|&word| word == 0));
        }
        assert!(seen.is_new(i32::MAX) && seen.is_new(i32::MAX), "no kernel gives it");
    }
}
