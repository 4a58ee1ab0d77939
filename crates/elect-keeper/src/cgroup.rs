//! The tier `cgroup`: a leaf of the unified hierarchy (v2) below elect's own cgroup, for the command alone. The health
//! check has a second leaf beside it (H5).
//!
//! A candidate uses its leaves from start to end. Campaigner and keeper hold the same descriptors of it, opened before the
//! keeper is forked, and with them a lock on its directory: a leaf without a lock belongs to a candidate that was
//! killed, and the next candidate that starts in the same cgroup removes the leaf if it is empty.
//!
//! Not here: controllers and limits. The leaf has none; a `MemoryMax=` belongs to the unit.

use std::ffi::{CStr, OsStr, OsString};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::pipe2;

use super::sys::{self, Forked};

/// The prefix of a leaf's name; the campaigner's process id and a random number follow.
const PREFIX: &str = "elect-";
/// The attributes of a cgroup that systemd has delegated.
const DELEGATION_MARKS: [&CStr; 2] = [c"trusted.delegate", c"user.delegate"];
/// Attempts to create a leaf: another candidate that removes abandoned leaves may remove a new one.
const ATTEMPTS: usize = 3;
/// The cgroup below a leaf in which the creation of processes is proven.
const PROBE_NAME: &str = "probe";

#[derive(Debug)]
pub struct CommandCgroup {
    path: PathBuf,
    /// Locked until the process ends.
    directory: File,
    procs: File,
    kill: File,
    events: File,
    /// Whether the command is created in it; otherwise it is created beside the keeper and moves itself, which takes 1 to 15 ms.
    creates_inside: AtomicBool,
}

/// The ways into a leaf that will be used, one of which is proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entrance {
    /// Where a process cannot be created in it, it moves.
    CreationOrMove,
    Move,
}

/// The directory of a cgroup for one proof, removed with this value.
struct ProbeDirectory(PathBuf);

impl Drop for ProbeDirectory {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

impl CommandCgroup {
    /// Creates a leaf below our own cgroup, and proves that a child can be put into it and is killed in it.
    ///
    /// # Errors
    ///
    /// No unified hierarchy, no permission, a kernel without `cgroup.kill`.
    pub fn make(entrance: Entrance) -> io::Result<CommandCgroup> {
        let parent = own_directory()?;
        remove_abandoned(&parent);
        let mut last = io::ErrorKind::NotFound.into();
        for _ in 0..ATTEMPTS {
            let path = parent.join(leaf_name(std::process::id(), fastrand::u64(..)));
            // `mkdir` fails if the directory exists, so two candidates never share one.
            fs::create_dir(&path).map_err(|error| with_path(&path, &error))?;
            match CommandCgroup::open(&path).and_then(|leaf| leaf.validate(entrance).map(|()| leaf)) {
                Ok(leaf) => return Ok(leaf),
                Err(error) => {
                    let _ = fs::remove_dir(&path);
                    last = with_path(&path, &error);
                }
            }
        }
        Err(last)
    }

    fn open(path: &Path) -> io::Result<CommandCgroup> {
        let directory = open_directory(path)?;
        directory.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => io::ErrorKind::WouldBlock.into(),
            TryLockError::Error(error) => error,
        })?;
        let kill = OpenOptions::new().write(true).open(path.join("cgroup.kill")).map_err(|error| {
            if error.kind() == io::ErrorKind::NotFound {
                io::Error::new(error.kind(), "this kernel has no cgroup.kill (5.14 has)")
            } else {
                error
            }
        })?;
        let procs = OpenOptions::new().write(true).open(path.join("cgroup.procs"))?;
        let events = File::open(path.join("cgroup.events"))?;
        Ok(CommandCgroup {
            path: path.to_owned(),
            directory,
            procs,
            kill,
            events,
            creates_inside: AtomicBool::new(false),
        })
    }

    /// A leaf that no process can enter.
    #[cfg(test)]
    pub fn full(directory: &Path) -> CommandCgroup {
        let events = directory.join("cgroup.events");
        fs::write(&events, "populated 0\n").expect("written");
        let writes_to = |path: &str| OpenOptions::new().write(true).open(path).expect("opened");
        CommandCgroup {
            path: directory.to_owned(),
            directory: File::open(directory).expect("opened"),
            procs: writes_to("/dev/full"),
            kill: writes_to("/dev/null"),
            events: File::open(events).expect("opened"),
            creates_inside: AtomicBool::new(false),
        }
    }

    /// The proof: a process can be created in it, or moved into it, and `cgroup.kill` kills it there.
    fn validate(&self, entrance: Entrance) -> io::Result<()> {
        if entrance == Entrance::CreationOrMove && self.validate_creation().is_ok_and(|works| works) {
            self.creates_inside.store(true, Ordering::Relaxed);
            return Ok(());
        }
        let (childs, ours) = pipe2(OFlag::O_CLOEXEC)?;
        // SAFETY: no other thread exists yet, and the child calls nothing but the kernel.
        let child = match unsafe { sys::fork() }? {
            Forked::Parent(child) => child,
            Forked::Child => await_kill(ours, &childs),
        };
        let entered = self.move_process(child);
        self.kill();
        // A child that has survived the kill ends now.
        drop(ours);
        let status = sys::await_child(child)?;
        entered?;
        if sys::decode(status) == Err(libc::SIGKILL) {
            Ok(())
        } else {
            Err(io::Error::other("a process in it is not killed by cgroup.kill"))
        }
    }

    /// The same for a process that is created in a cgroup below the leaf, because a leaf that was killed is of no use to
    /// [`CommandCgroup::fork`]. Returns whether the process has run, and was killed then.
    fn validate_creation(&self) -> io::Result<bool> {
        let path = ProbeDirectory(self.path.join(PROBE_NAME));
        fs::create_dir(&path.0)?;
        let directory = open_directory(&path.0)?;
        let kill = OpenOptions::new().write(true).open(path.0.join("cgroup.kill"))?;
        let (ours, childs) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)?;
        // SAFETY: no other thread exists yet, and the child calls nothing but the kernel.
        let child = match unsafe { sys::fork_into(directory.as_fd()) }? {
            Forked::Parent(child) => child,
            Forked::Child => {
                let _ = nix::unistd::write(&childs, b".");
                await_kill(ours, &childs)
            }
        };
        drop(childs);
        // A child that is killed at its birth writes nothing.
        let has_run = nix::unistd::read(&ours, &mut [0]).is_ok_and(|length| length == 1);
        let _ = kill.write_at(b"1", 0);
        drop(ours);
        let status = sys::await_child(child)?;
        Ok(has_run && sys::decode(status) == Err(libc::SIGKILL))
    }

    /// Forks this process, and creates the child in the leaf if that works here. The second value says whether it did:
    /// otherwise the child has to [`enter`](CommandCgroup::enter) the leaf.
    ///
    /// The creation waits for the mutex of all cgroups, which is free most of the time; in a storm of forks it was held for up to 2 s.
    /// The caller answers nothing meanwhile, and reads its orders before it lets the child execute. A move would wait for a
    /// grace period of the kernel each time.
    ///
    /// Kernels since February 2025 (6.18 among them, and stable ones) kill a process at its birth in a cgroup if the number of kills
    /// of that cgroup is not that of its parent process's cgroup. So the proof kills another cgroup, and after a kill
    /// of the leaf, processes are created outside.
    ///
    /// # Errors
    ///
    /// As `fork(2)`.
    ///
    /// # Safety
    ///
    /// As [`sys::fork_into`].
    pub unsafe fn fork(&self) -> io::Result<(Forked, bool)> {
        if self.creates_inside.load(Ordering::Relaxed) {
            // SAFETY: the caller's promise.
            if let Ok(forked) = unsafe { sys::fork_into(self.directory.as_fd()) } {
                return Ok((forked, true));
            }
        }
        // SAFETY: the caller's promise.
        Ok((unsafe { sys::fork() }?, false))
    }

    /// Processes are created outside of the leaf from now on: it is being killed, or may have been.
    pub fn create_outside(&self) {
        self.creates_inside.store(false, Ordering::Relaxed);
    }

    /// Undoes [`CommandCgroup::create_outside`] after a death that had nothing to do with the leaf.
    pub fn restore_creation(&self, creates_inside: bool) {
        self.creates_inside.store(creates_inside, Ordering::Relaxed);
    }

    /// Moves the calling process into the leaf. Called by a child between fork and exec, while it has no children yet.
    ///
    /// Until the child has entered the leaf, it is found and killed as the keeper's child.
    ///
    /// # Errors
    ///
    /// The leaf is gone (`ENODEV`).
    pub fn enter(&self) -> io::Result<()> {
        self.move_process(0)
    }

    fn move_process(&self, pid: i32) -> io::Result<()> {
        let mut text = [0u8; 16];
        let mut rest = &mut text[..];
        write!(rest, "{pid}")?;
        let length = 16 - rest.len();
        self.procs.write_at(&text[..length], 0).map(drop)
    }

    /// Sends SIGKILL to every process inside, including those that are being forked right now.
    pub fn kill(&self) {
        self.create_outside();
        // The write fails if the leaf has been removed; only an empty leaf can be removed.
        self.order_kill(*b"1");
    }

    /// Takes the way of [`CommandCgroup::kill`] as far as the kernel, which refuses this number before it waits for a lock.
    pub fn rehearse_kill(&self) {
        self.order_kill(*b"0");
    }

    #[inline(never)] // There is one copy of it, the rehearsed one.
    pub(super) fn order_kill(&self, number: [u8; 1]) {
        let _ = self.kill.write_at(&number, 0);
    }

    /// Whether a process is in the leaf, or below it. A removed leaf was empty; a leaf that cannot be read may not be.
    pub fn is_populated(&self) -> bool {
        let mut text = [0; 128];
        match self.events.read_at(&mut text, 0) {
            Ok(length) => !is_unpopulated(&text[..length]),
            Err(error) => error.raw_os_error() != Some(libc::ENODEV),
        }
    }

    /// Ready (`POLLPRI`) when `cgroup.events` has changed since [`CommandCgroup::is_populated`] read it.
    pub fn events(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    /// Removes the leaf, and the cgroups that the command may have created below it. A leaf that is not empty stays.
    pub fn remove(&self) {
        let _ = remove_empty(&self.path);
    }

    /// Whether [`CommandCgroup::fork`] creates processes in the leaf.
    pub fn creates_inside(&self) -> bool {
        self.creates_inside.load(Ordering::Relaxed)
    }

    #[cfg(test)]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The systemd service that this process runs in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SystemdUnit {
    /// With its suffix.
    pub name: String,
    /// Whether systemd leaves the cgroups below the unit's to the service (`Delegate=yes`), as far as this user may know.
    pub is_delegated: bool,
}

impl SystemdUnit {
    /// `None`: this process runs in no service.
    #[must_use]
    pub fn own() -> Option<SystemdUnit> {
        let cgroups = fs::read("/proc/self/cgroup").ok()?;
        let name = own_path(&cgroups)?.file_name()?.to_str()?.to_owned();
        if Path::new(&name).extension() != Some(OsStr::new("service")) {
            return None;
        }
        let directory = own_directory().ok();
        // systemd writes both; the first one is for root alone.
        let is_marked = |directory: &PathBuf| {
            DELEGATION_MARKS.iter().any(|mark| sys::attribute(directory, mark).is_ok_and(|value| value == b"1"))
        };
        Some(SystemdUnit { name, is_delegated: directory.as_ref().is_some_and(is_marked) })
    }
}

/// The child that is killed as a proof. It waits for the kill for as long as its parent needs, and ends without one when the
/// parent closes its end of the pipe or dies.
pub fn await_kill(parents: OwnedFd, childs: &OwnedFd) -> ! {
    // The copy would keep the pipe open.
    drop(parents);
    while nix::unistd::read(childs, &mut [0]) == Err(Errno::EINTR) {}
    sys::exit_now(libc::EXIT_SUCCESS)
}

fn is_unpopulated(events: &[u8]) -> bool {
    events.split(|&byte| byte == b'\n').any(|line| line == b"populated 0")
}

fn open_directory(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW).open(path)
}

fn with_path(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Removes cgroups from the bottom to the top; the kernel refuses to remove a cgroup with a process in it.
fn remove_empty(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let _ = remove_empty(&entry.path());
        }
    }
    fs::remove_dir(path)
}

fn leaf_name(pid: u32, number: u64) -> String {
    format!("{PREFIX}{pid}-{number:016x}")
}

/// Whether a candidate created a cgroup of this name. The cgroup of a unit may have the same prefix.
fn is_ours(leaf: &str) -> bool {
    let (pid, number) = leaf.strip_prefix(PREFIX).and_then(|rest| rest.split_once('-')).unwrap_or_default();
    matches!((pid.parse(), u64::from_str_radix(number, 16)), (Ok(pid), Ok(number)) if leaf_name(pid, number) == leaf)
}

/// Removes the empty leaves of candidates that were killed with their keepers.
fn remove_abandoned(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let is_leaf = entry.file_name().to_str().is_some_and(is_ours);
        if !is_leaf || !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let path = entry.path();
        let Ok(directory) = open_directory(&path) else { continue };
        if directory.try_lock().is_ok()
            && fs::read(path.join("cgroup.events")).is_ok_and(|events| is_unpopulated(&events))
        {
            let _ = remove_empty(&path);
        }
    }
}

/// The directory of our own cgroup.
fn own_directory() -> io::Result<PathBuf> {
    let missing = |what: &str| io::Error::new(io::ErrorKind::NotFound, what.to_owned());
    // Names of cgroups and mount points are bytes: a name that is not UTF-8 does not affect the others.
    let cgroups = fs::read("/proc/self/cgroup")?;
    let own = own_path(&cgroups).ok_or_else(|| missing("no unified cgroup hierarchy (v2)"))?;
    let mounts = fs::read("/proc/self/mountinfo")?;
    directories(&mounts, own)
        .into_iter()
        .find(|directory| directory.join("cgroup.procs").exists())
        .ok_or_else(|| missing("the cgroup hierarchy (v2) is not mounted, or not where elect's own cgroup is"))
}

/// Our path in the unified hierarchy, from `/proc/self/cgroup`.
fn own_path(cgroups: &[u8]) -> Option<&Path> {
    lines(cgroups).find_map(|line| line.strip_prefix(b"0::")).map(|path| Path::new(OsStr::from_bytes(path)))
}

/// The directories of that path in the file system, from `/proc/self/mountinfo`; several if the hierarchy is mounted
/// several times.
fn directories(mounts: &[u8], own: &Path) -> Vec<PathBuf> {
    let directory = |line: &[u8]| {
        let words: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
        // id, parent, device, root of the mount in its file system, mount point; more; a dash, and the kind of file
        // system.
        let [_, _, _, root, point, ref more @ ..] = words[..] else { return None };
        let dash = more.iter().position(|&word| word == b"-")?;
        let below = own.strip_prefix(unescaped(root)).ok()?;
        (more.get(dash + 1) == Some(&&b"cgroup2"[..])).then(|| {
            let mut directory = unescaped(point);
            directory.extend(below);
            directory
        })
    };
    lines(mounts).filter_map(directory).collect()
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|&byte| byte == b'\n')
}

/// Decodes octal escapes such as `\040`, which the kernel writes for separators.
fn unescaped(word: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word;
    while let [first, after @ ..] = rest {
        let code = after.get(..3).filter(|_| *first == b'\\').and_then(|code| std::str::from_utf8(code).ok());
        if let Some(byte) = code.and_then(|code| u8::from_str_radix(code, 8).ok()) {
            bytes.push(byte);
            rest = &after[3..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_cgroup_is_found_wherever_it_is_mounted() {
        let hybrid = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
36 31 0:33 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw
";
        let found = |mounts: &str, cgroups: &str| {
            directories(mounts.as_bytes(), own_path(cgroups.as_bytes()).expect("a place"))
        };
        let own = "9:name=systemd:/\n8:pids:/x\n0::/system.slice/cron.service\n";
        assert_eq!(found(hybrid, own), [Path::new("/sys/fs/cgroup/unified/system.slice/cron.service")]);
        let container = "700 690 0:26 /docker/abc /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw,nsdelegate\n";
        assert_eq!(found(container, "0::/docker/abc\n"), [Path::new("/sys/fs/cgroup")]);
        assert_eq!(found(container, "0::/docker/abc/job\n"), [Path::new("/sys/fs/cgroup/job")]);
        // A path that only shares a textual prefix with the mount is not below it.
        assert!(found(container, "0::/docker/abcd\n").is_empty());
        let spaced = r"41 31 0:38 / /mnt/two\040words rw - cgroup2 none rw";
        assert_eq!(found(spaced, "0::/\n"), [Path::new("/mnt/two words")]);
        assert_eq!(own_path(b"8:pids:/x\n"), None);
    }

    #[test]
    fn a_name_that_is_no_text_hides_no_cgroup() {
        let mounts = b"30 1 0:27 / /mnt/caf\xe9 rw shared:1 - tmpfs tmpfs rw\n\
            41 31 0:38 / /mnt/\\303\\251\xff rw,relatime shared:9 master:1 - cgroup2 cgroup2 rw\n";
        let own = own_path(b"1:name=\xff:/\n0::/a\xe9b\n").expect("a place");
        assert_eq!(directories(mounts, own), [Path::new(OsStr::from_bytes(b"/mnt/\xc3\xa9\xff/a\xe9b"))]);
    }

    #[test]
    fn no_leaf_is_ours_but_those_named_as_we_name_them() {
        assert!(is_ours(&leaf_name(4711, 7)));
        for other in ["elect-4711", "elect-4711-7", "elect-cron.service", "elect-x-0000000000000007", "job", "elect--"]
        {
            assert!(!is_ours(other), "{other}");
        }
    }

    #[test]
    fn only_a_plain_no_means_that_nobody_is_there() {
        assert!(is_unpopulated(b"populated 0\nfrozen 0\n"));
        assert!(is_unpopulated(b"frozen 0\npopulated 0"));
        for other in [&b"populated 1\nfrozen 0\n"[..], b"", b"populated 01", b"frozen 0\n"] {
            assert!(!is_unpopulated(other));
        }
    }
}
