//! The tier `pidns`: a new PID namespace for each start of the command. When its first process dies, the kernel kills
//! every other process in it.
//!
//! ```text
//! keeper ─┬─ init      number 1 in the namespace: adopts and forgets what the command leaves behind
//!         └─ command   number 2
//! ```
//!
//! Both are the keeper's own children, so that everything else is as in the other tiers: the keeper waits for the
//! command itself and signals it by a number of its own namespace. The command is not number 1, because the kernel
//! discards signals to a number 1 that has no handler for them.
//!
//! The init dies with the keeper, by `PR_SET_PDEATHSIG` and by the end of a pipe (the control pipe), whichever works.
//! It exits normally once the main process has ended and no adopted process is left.
//!
//! Not here: `/proc`. It is not mounted again, because that would hide the command's mounts from the host: the command
//! sees the host's process ids there, and its own `$$` is not one of them.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::pipe2;

use super::sys::{self, Forked, Inherited};

/// The keeper's own PID namespace, in which later children are created again.
#[derive(Debug)]
pub struct ParentPidNs(File);

impl ParentPidNs {
    /// Checks that a namespace can be created and left again.
    ///
    /// # Errors
    ///
    /// No permission.
    pub fn probe() -> io::Result<ParentPidNs> {
        let parent_ns = ParentPidNs(File::open("/proc/self/ns/pid")?);
        unshare(CloneFlags::CLONE_NEWPID)?;
        parent_ns.return_to_parent()?;
        Ok(parent_ns)
    }

    fn return_to_parent(&self) -> nix::Result<()> {
        setns(&self.0, CloneFlags::CLONE_NEWPID)
    }

    /// Creates a namespace with an init, and calls `spawn`, whose children are created in it.
    ///
    /// # Errors
    ///
    /// No permission, no process available, or the error of `spawn`; then no process is left.
    pub fn with_child_namespace<T>(
        &self,
        inherited: Inherited,
        spawn: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<(T, Init)> {
        let (control_pipe_r, control_pipe_w) = pipe2(OFlag::O_CLOEXEC)?;
        unshare(CloneFlags::CLONE_NEWPID)?;
        // SAFETY: the keeper has one thread, so no lock is held by another.
        let spawned = match unsafe { sys::fork() } {
            Ok(Forked::Child) => {
                drop(control_pipe_w);
                run_init(control_pipe_r, inherited)
            }
            Ok(Forked::Parent(pid)) => spawn().map(|spawned| (spawned, Init { pid, control_pipe_w })),
            Err(error) => Err(error),
        };
        if self.return_to_parent().is_err() {
            // No program could be started any more, but the command may have been. Exiting kills both children (K8).
            sys::exit_now(libc::EXIT_FAILURE);
        }
        spawned
    }
}

/// The first process of a namespace. Dropping this value kills it, and with it every process inside.
#[derive(Debug)]
pub struct Init {
    /// The process id in the keeper's namespace.
    pub pid: i32,
    control_pipe_w: OwnedFd,
}

impl Init {
    /// An init that no process has this id of, for a rehearsal. The other end of its pipe is returned too.
    ///
    /// # Errors
    ///
    /// No descriptor is left.
    pub fn of_no_process(pid: i32) -> nix::Result<(Init, OwnedFd)> {
        let (control_pipe_r, control_pipe_w) = pipe2(OFlag::O_CLOEXEC)?;
        Ok((Init { pid, control_pipe_w }, control_pipe_r))
    }

    /// Tells the init to exit once no process is left in the namespace; called when the main process has ended.
    pub fn dismiss(&self) {
        // The write fails if the init is dead.
        let _ = nix::unistd::write(&self.control_pipe_w, b".");
    }

    /// Sends SIGKILL to the init, and so to every process inside, including those that are being forked right now. Must
    /// not be called after the init was reaped.
    #[inline(never)] // There is one copy of it, the rehearsed one.
    pub fn kill(&self) {
        let _ = sys::kill(self.pid, libc::SIGKILL);
    }
}

/// The main function of the init: a fork of the keeper, with every signal blocked, that keeps no descriptor but the
/// control pipe.
fn run_init(control_pipe_r: OwnedFd, inherited: Inherited) -> ! {
    let _ = prctl::set_name(c"keeper-init");
    let _ = prctl::set_pdeathsig(Signal::SIGKILL);
    inherited.schedule_as_before();
    sys::disown_children();
    let control_pipe_r = sys::keep_only(control_pipe_r);
    let mut word = [0];
    loop {
        match nix::unistd::read(&control_pipe_r, &mut word) {
            Ok(1) => break,
            Err(nix::errno::Errno::EINTR) => {}
            // The keeper is dead, or died before `PR_SET_PDEATHSIG` was set.
            Ok(_) | Err(_) => sys::exit_now(libc::EXIT_FAILURE),
        }
    }
    if sys::is_abandoned(&control_pipe_r) {
        sys::exit_now(libc::EXIT_FAILURE);
    }
    sys::await_no_children();
    sys::exit_now(libc::EXIT_SUCCESS)
}
