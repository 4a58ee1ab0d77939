//! The system calls that have no safe wrapper, each in the smallest function that makes it safe to call.

use std::ffi::{CStr, CString, c_char, c_int};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};

use super::descriptors;

/// Signals that elect ignores and whose dispositions are restored for the command: a write into a closed pipe, or
/// beyond the file size limit, is an error for elect and must not kill it.
const IGNORED_SIGNALS: [c_int; 2] = [libc::SIGPIPE, libc::SIGXFSZ];
/// Whether each of these was ignored when elect was started. Rust's runtime ignores SIGPIPE before `main`, so the
/// dispositions are read earlier.
static IGNORED_AT_START: [AtomicBool; 2] = [AtomicBool::new(false), AtomicBool::new(false)];

extern "C" fn remember_ignored() {
    for (signal, ignored) in IGNORED_SIGNALS.into_iter().zip(&IGNORED_AT_START) {
        ignored.store(is_ignored(signal), Ordering::Relaxed);
    }
}

/// Makes a write beyond the file size limit (`RLIMIT_FSIZE`) fail with EFBIG from now on.
pub fn ignore_file_size_signal() {
    set_disposition(libc::SIGXFSZ, libc::SIG_IGN);
}

/// An extended attribute of a file, as far as 64 bytes show it.
///
/// # Errors
///
/// There is none of this name, or it is not for this user.
pub fn attribute(path: &Path, name: &CStr) -> io::Result<Vec<u8>> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut value = [0u8; 64];
    // SAFETY: both texts end with a zero, and the kernel writes at most as many bytes as the buffer has.
    let length = unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    Ok(value[..length].to_vec())
}

/// Changes the environment that every program of this process inherits; `None` removes a variable. Must be called before the first
/// thread is made.
pub fn change_environment(changes: &[(std::ffi::OsString, Option<std::ffi::OsString>)]) {
    for (name, value) in changes {
        // SAFETY: this process has one thread, as the caller sees to, so that no other one reads the environment meanwhile.
        unsafe {
            match value {
                Some(value) => std::env::set_var(name, value),
                None => std::env::remove_var(name),
            }
        }
    }
}

// SAFETY: the loader calls the entries of this section once, before `main`, as functions without arguments that matter;
// the function touches nothing but its own atomics.
#[used]
#[unsafe(link_section = ".init_array")]
static REMEMBER_IGNORED: extern "C" fn() = remember_ignored;

/// The state that elect was started with and that the keeper changes; it is restored for the command (rust #39185,
/// #101077).
#[derive(Debug, Clone, Copy)]
pub struct Inherited {
    scheduling: Scheduling,
    mask: SigSet,
    child_ignored: bool,
}

impl Inherited {
    /// Reads the state of the calling thread, and makes children waitable even where SIGCHLD was ignored.
    pub fn take() -> Inherited {
        let mask = SigSet::thread_get_mask().unwrap_or_else(|_| SigSet::empty());
        let child_ignored = is_ignored(libc::SIGCHLD);
        set_disposition(libc::SIGCHLD, libc::SIG_DFL);
        Inherited { scheduling: Scheduling::own(), mask, child_ignored }
    }

    /// Restores the mask after [`block_signals`]; signals that arrived meanwhile are delivered now.
    pub fn unblock(self) {
        // A failure leaves signals blocked, which is harmless.
        let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.mask), None);
    }

    /// Restores the scheduling after [`schedule_first`].
    pub fn schedule_as_before(self) {
        self.scheduling.set();
    }

    /// Restores scheduling, mask and dispositions. For the child between fork and exec.
    fn restore(self) {
        self.schedule_as_before();
        for (signal, ignored) in IGNORED_SIGNALS.into_iter().zip(&IGNORED_AT_START) {
            if !ignored.load(Ordering::Relaxed) {
                set_disposition(signal, libc::SIG_DFL);
            }
        }
        if self.child_ignored {
            set_disposition(libc::SIGCHLD, libc::SIG_IGN);
        }
        self.unblock();
    }
}

/// A scheduling policy and its priority; the kernel stores the nice value separately.
#[derive(Debug, Clone, Copy)]
struct Scheduling {
    policy: c_int,
    priority: c_int,
}

impl Scheduling {
    // Raw system calls, because musl implements none of these.

    fn own() -> Scheduling {
        let mut priority = 0;
        // SAFETY: the kernel writes the one integer that struct sched_param consists of.
        let policy = unsafe {
            libc::syscall(libc::SYS_sched_getparam, 0, &raw mut priority);
            libc::syscall(libc::SYS_sched_getscheduler, 0)
        };
        Scheduling { policy: c_int::try_from(policy).unwrap_or(libc::SCHED_OTHER), priority }
    }

    fn set(self) {
        // SAFETY: the kernel reads the one integer that struct sched_param consists of.
        unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, self.policy, &raw const self.priority) };
    }
}

/// Gives this process real-time priority, if permitted: a tree that forks as fast as it can would otherwise leave
/// hardly any time to kill it. The process sleeps whenever it has no work.
pub fn schedule_first() {
    Scheduling { policy: libc::SCHED_RR, priority: 1 }.set();
}

/// Blocks every signal in the calling thread.
///
/// A raw system call, because glibc leaves out two signals that it uses itself, and either would end the keeper.
pub fn block_signals() {
    let all = u64::MAX;
    // SAFETY: the kernel reads eight bytes, which is what `all` has, and writes nothing.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const all,
            std::ptr::null_mut::<u64>(),
            size_of_val(&all),
        )
    };
}

fn set_disposition(signal: c_int, disposition: libc::sighandler_t) {
    // SAFETY: the disposition is SIG_DFL or SIG_IGN, so no handler can be called.
    unsafe { libc::signal(signal, disposition) };
}

/// Whether a signal is ignored, as SIGHUP is under `nohup`.
pub fn is_ignored(signal: c_int) -> bool {
    // SAFETY: sigaction with a null new action only reads; `old` is a valid place for the answer.
    unsafe {
        let mut old: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &raw mut old) == 0 && old.sa_sigaction == libc::SIG_IGN
    }
}

/// Ignores a signal from now on.
pub fn ignore(signal: c_int) {
    set_disposition(signal, libc::SIG_IGN);
}

/// Sends a signal as a terminal does: to every process of our group, including this one, which handles it before this
/// function returns.
pub fn signal_own_group(signal: c_int) {
    // Our own group exists as long as this process. The kernel delivers the signal to the main thread, which is this
    // one, if it can.
    let _ = kill(0, signal);
}

/// Closes every descriptor that elect was started with except standard input, output and error: the command must not
/// inherit it (K9), and an inherited lock or pipe end must not stay open in elect. Must be called before elect opens a
/// descriptor.
pub fn close_inherited() {
    // SAFETY: no value in this process owns any of these, as the caller promises: they are inherited.
    unsafe { descriptors::close_from(3) };
}

/// Ends this process by the given signal, without a core dump; returns if the signal did not do it (PID 1).
pub fn die_by(signal: c_int) {
    let _ = nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_CORE, 0, 0);
    let _ = nix::sys::prctl::set_dumpable(false);
    set_disposition(signal, libc::SIG_DFL);
    // SAFETY: a plain sigset on the stack, initialised by sigemptyset before it is read.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, signal);
        libc::raise(signal);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut());
    }
}

/// Calls `kill(2)` with a signal number: nix has no names for real-time signals.
pub fn kill(pid: i32, signal: c_int) -> io::Result<()> {
    // SAFETY: kill takes two integers.
    match unsafe { libc::kill(pid, signal) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The result of `waitpid`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reaped {
    /// This child has ended, with this raw status.
    Child { pid: i32, status: c_int },
    /// Children exist, and none has ended.
    NoneEnded,
    /// No child is left (`ECHILD`).
    NoChildren,
}

/// Reaps one child without waiting: `pid` or any (-1), including children of a `clone` without SIGCHLD.
///
/// A raw system call, because nix turns a death by a real-time signal into an error and loses the status.
pub fn reap(pid: i32) -> Reaped {
    let mut status = 0;
    // SAFETY: `status` is a valid place for the answer.
    match unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG | libc::__WALL) } {
        0 => Reaped::NoneEnded,
        -1 if io::Error::last_os_error().raw_os_error() == Some(libc::ECHILD) => Reaped::NoChildren,
        -1 => Reaped::NoneEnded,
        pid => Reaped::Child { pid, status },
    }
}

/// A child that has ended and has not been reaped: the given one, or any (`None`).
pub fn ended_child(pid: Option<i32>) -> Option<i32> {
    let mut found = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT | libc::__WALL;
    let (kind, number) = pid.map_or((libc::P_ALL, 0), |pid| (libc::P_PID, pid.unsigned_abs()));
    // SAFETY: `found` is a valid place for the answer, which is all zero where the kernel writes none; the field is
    // there in every answer that waitid gives.
    unsafe {
        let answered = libc::waitid(kind, number, found.as_mut_ptr(), flags) == 0;
        let ended = found.assume_init().si_pid();
        (answered && ended != 0).then_some(ended)
    }
}

/// Whether this child exists and has not ended.
pub fn is_living_child(pid: i32) -> bool {
    let mut found = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT | libc::__WALL;
    // SAFETY: as in `ended_child`.
    unsafe {
        let answered = libc::waitid(libc::P_PID, pid.unsigned_abs(), found.as_mut_ptr(), flags) == 0;
        answered && found.assume_init().si_pid() == 0
    }
}

/// One number from `/proc/<pid>/stat`, counted as in the manual (from 3: the second field is a name). `None` if no such
/// process exists; the caller judges other errors.
///
/// # Errors
///
/// No descriptor, no memory, no permission.
pub fn stat_field(pid: i32, field: usize) -> io::Result<Option<u64>> {
    let text = match std::fs::read(format!("/proc/{pid}/stat")) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    // The name may contain any byte, including a parenthesis.
    let name_ends = text.iter().rposition(|&byte| byte == b')').unwrap_or_default();
    let rest = String::from_utf8_lossy(&text[name_ends..]);
    Ok(rest.split_ascii_whitespace().nth(field - 2).and_then(|number| number.parse().ok()))
}

/// The start time of a process in ticks since boot: process id and start time together are unique.
///
/// # Errors
///
/// As [`stat_field`].
pub fn start_time_of(pid: i32) -> io::Result<Option<u64>> {
    stat_field(pid, 22)
}

/// Whether this process has not called exec since its fork; `false` if that cannot be determined.
pub fn is_forked_only(pid: i32) -> bool {
    /// The kernel's `PF_FORKNOEXEC`; every process may read these flags.
    const FORKED_ONLY: u64 = 0x40;
    stat_field(pid, 9).ok().flatten().is_some_and(|flags| flags & FORKED_ONLY != 0)
}

/// The signal that has stopped this child since the last call, if any. The child's end is left to [`reap`].
pub fn stop_signal_of(pid: i32) -> Option<c_int> {
    let mut found = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
    let flags = libc::WSTOPPED | libc::WNOHANG | libc::__WALL;
    let pid = libc::id_t::try_from(pid).ok()?;
    // SAFETY: `found` is a valid place for the answer, which is all zero where the kernel writes none; the two fields
    // are there in every answer that waitid gives.
    unsafe {
        let answered = libc::waitid(libc::P_PID, pid, found.as_mut_ptr(), flags) == 0;
        let found = found.assume_init();
        (answered && found.si_pid() != 0).then(|| found.si_status())
    }
}

/// Decodes a raw wait status: an exit status, or a signal.
pub fn decode(status: c_int) -> Result<u8, c_int> {
    if libc::WIFSIGNALED(status) {
        Err(libc::WTERMSIG(status))
    } else {
        Ok(u8::try_from(libc::WEXITSTATUS(status) & 0xff).unwrap_or(u8::MAX))
    }
}

/// Reads directory entries into `buffer` without allocating; the number of bytes, zero at the end.
pub fn read_directory(directory: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the kernel writes at most `buffer.len()` bytes into the buffer.
    let read = unsafe { libc::syscall(libc::SYS_getdents64, directory.as_raw_fd(), buffer.as_mut_ptr(), buffer.len()) };
    usize::try_from(read).map_err(|_| io::Error::last_os_error())
}

/// The side of a fork.
pub enum Forked {
    Parent(i32),
    Child,
}

/// Forks this process.
///
/// # Errors
///
/// As `fork(2)`: too many processes, no memory.
///
/// # Safety
///
/// The calling thread is the only one that lives on in the child: no other thread may hold a lock that the child needs.
pub unsafe fn fork() -> io::Result<Forked> {
    // SAFETY: the caller's promise.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Forked::Child),
        pid => Ok(Forked::Parent(pid)),
    }
}

/// Forks this process; the child is created in the cgroup whose directory is given (`CLONE_INTO_CGROUP`, Linux 5.7).
///
/// # Errors
///
/// As `fork(2)`; also: an older kernel, a filter for system calls, a cgroup that is gone.
///
/// # Safety
///
/// As [`fork`]. The C library does not know of this fork: the child may make system calls, and must end or call exec.
pub unsafe fn fork_into(cgroup: BorrowedFd<'_>) -> io::Result<Forked> {
    /// The kernel's `struct clone_args`, as long as it has the field `cgroup`; musl's headers have none.
    #[repr(C, align(8))]
    #[derive(Default)]
    struct CloneArgs {
        flags: u64,
        pidfd: u64,
        child_tid: u64,
        parent_tid: u64,
        exit_signal: u64,
        stack: u64,
        stack_size: u64,
        tls: u64,
        set_tid: u64,
        set_tid_size: u64,
        cgroup: u64,
    }
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    let arguments = CloneArgs {
        flags: CLONE_INTO_CGROUP,
        exit_signal: u64::from(libc::SIGCHLD.unsigned_abs()),
        cgroup: u64::from(cgroup.as_raw_fd().unsigned_abs()),
        ..CloneArgs::default()
    };
    // SAFETY: the kernel reads the structure, which has the given size. Without a stack and without CLONE_VM the child
    // goes on with a copy of this process, as after fork; for the rest, the caller's promise.
    match unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<CloneArgs>()) } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Forked::Child),
        pid => Ok(Forked::Parent(i32::try_from(pid).unwrap_or(i32::MAX))),
    }
}

/// Closes every descriptor but the given one, which becomes number 0.
pub fn keep_only(fd: OwnedFd) -> OwnedFd {
    let number = fd.into_raw_fd();
    // SAFETY: no value in this process owns a closed descriptor: the process has just been forked and uses none of its
    // parent's descriptors but this one, whose owner is gone and whose copy gets a new owner.
    unsafe {
        if number != 0 {
            libc::dup2(number, 0);
        }
        descriptors::close_from(1);
        own(0)
    }
}

/// Makes the kernel reap all children of this process, present and future, without a status.
pub fn disown_children() {
    set_disposition(libc::SIGCHLD, libc::SIG_IGN);
}

/// Whether the other end of a pipe is closed in every process.
pub fn is_abandoned(pipe: &OwnedFd) -> bool {
    let mut end = [PollFd::new(pipe.as_fd(), PollFlags::empty())];
    poll(&mut end, PollTimeout::ZERO).is_ok()
        && end[0].revents().is_some_and(|found| found.intersects(PollFlags::POLLERR | PollFlags::POLLHUP))
}

/// Waits for the end of this child. Returns its raw status.
pub fn await_child(pid: i32) -> io::Result<c_int> {
    let mut status = 0;
    loop {
        // SAFETY: `status` is a valid place for the answer.
        if unsafe { libc::waitpid(pid, &raw mut status, 0) } == pid {
            return Ok(status);
        }
        if errno() != libc::EINTR {
            return Err(io::Error::last_os_error());
        }
    }
}

/// Waits until no child is left.
pub fn await_no_children() {
    loop {
        // SAFETY: no place for a status is given, and none is written.
        let waited = unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::__WALL) };
        if waited == -1 && errno() != libc::EINTR {
            return;
        }
    }
}

/// Ends this process at once: no destructor, no exit handler of a runtime that belongs to another process.
pub fn exit_now(status: c_int) -> ! {
    // SAFETY: _exit never returns and touches no memory of ours.
    unsafe { libc::_exit(status) }
}

/// Takes over a descriptor that the kernel has just handed us (`SCM_RIGHTS`).
///
/// # Safety
///
/// `fd` is open and has no other owner.
pub unsafe fn own(fd: RawFd) -> OwnedFd {
    use std::os::fd::FromRawFd;
    // SAFETY: the caller's promise.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// An array of pointers for `execve`, and the strings it points to.
pub struct Pointers {
    /// Owns the strings; must not be dropped before the pointers.
    _strings: Vec<CString>,
    pointers: Vec<*const c_char>,
}

impl Pointers {
    pub fn new(strings: Vec<CString>) -> Pointers {
        let pointers = strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect();
        Pointers { _strings: strings, pointers }
    }
}

/// The child's steps between fork and exec, all determined before the fork.
pub struct Exec<'a> {
    /// The file to execute.
    pub path: &'a CStr,
    /// The arguments, including the first.
    pub arguments: &'a Pointers,
    /// The arguments for `/bin/sh` if the file is a script without an interpreter line.
    pub shell_arguments: &'a Pointers,
    /// The environment.
    pub environment: &'a Pointers,
    /// The state that elect was started with.
    pub inherited: Inherited,
    /// A descriptor that the command inherits, and its number there (K9).
    pub pass: Option<(BorrowedFd<'a>, RawFd)>,
}

/// Replaces this process if `allowed` returns true at the last moment (K5). For the child of a fork.
///
/// Returns only on failure: the `errno`, or `None` if `allowed` returned false.
pub fn exec(exec: &Exec<'_>, allowed: impl Fn() -> bool) -> Option<c_int> {
    descriptors::close_at_exec_from(3);
    if let Some((fd, number)) = exec.pass
        && let Err(errno) = descriptors::pass(fd, number)
    {
        return Some(errno);
    }
    exec.inherited.restore();
    if !allowed() {
        return None;
    }
    // SAFETY: both arrays end in a null pointer and point to strings that live until exec.
    unsafe {
        libc::execve(exec.path.as_ptr(), exec.arguments.pointers.as_ptr(), exec.environment.pointers.as_ptr());
        if errno() == libc::ENOEXEC && !is_elf(exec.path) {
            // To read the file may have taken any time.
            if !allowed() {
                return None;
            }
            let shell = c"/bin/sh".as_ptr();
            libc::execve(shell, exec.shell_arguments.pointers.as_ptr(), exec.environment.pointers.as_ptr());
        }
    }
    Some(errno())
}

/// Whether a file that the kernel does not execute is a program for another kind of machine: a shell would read it as text. For the child of a fork; leaves ENOEXEC as the error.
fn is_elf(path: &CStr) -> bool {
    let mut start = [0_u8; 4];
    // SAFETY: the path ends in a null byte; the buffer lives and has as many bytes as are read.
    let read = unsafe {
        let file = libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK);
        let read = libc::read(file, start.as_mut_ptr().cast(), start.len());
        *libc::__errno_location() = libc::ENOEXEC;
        read
    };
    read == 4 && start == *b"\x7fELF"
}

pub fn errno() -> c_int {
    io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}
