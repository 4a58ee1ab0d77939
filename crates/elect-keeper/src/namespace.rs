//! The tier `pidns`: a new PID namespace for each start of the command. When its first process dies, the kernel kills the rest.
//!
//! ```text
//! keeper ─┬─ init      number 1 in the namespace: adopts and forgets what the command leaves behind
//!         └─ command   number 2
//! ```
//!
//! Both are the keeper's own children, so that everything else is as in the other tiers: the keeper waits for the command
//! itself and signals it by a number of its own namespace. The command is not number 1, because the kernel keeps all signals
//! from a number 1 that has no handler for them.
//!
//! The init dies with the keeper, by `PR_SET_PDEATHSIG` and by the end of a pipe (its leash), whichever works. It ends in
//! good order when the main process has, and nobody is left that it has adopted.
//!
//! Not here: `/proc`. It is not mounted anew, for that would take the command's mounts away from the host: what the command
//! sees there are the host's numbers, and its own `$$` is not one of them.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::pipe2;

use super::sys::{self, Forked, Inherited};

/// The namespace that we live in ourselves, and in which later children are born again.
#[derive(Debug)]
pub struct ParentPidNs(File);

impl ParentPidNs {
    /// Looks whether a namespace can be made and left behind.
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

    /// Makes a namespace with an init, and calls `bear`, whose children are born in it.
    ///
    /// # Errors
    ///
    /// No permission, no process to be had, or what `bear` says; then nothing is left.
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
            // Nothing could be started any more, and somebody may have been. Our end is theirs (K8).
            sys::exit_now(libc::EXIT_FAILURE);
        }
        spawned
    }
}

/// The first process of a namespace. Dropping this ends it, and with it everybody inside.
#[derive(Debug)]
pub struct Init {
    /// As we see it.
    pub pid: i32,
    control_pipe_w: OwnedFd,
}

impl Init {
    /// To end when nobody is left: the main process has.
    pub fn dismiss(&self) {
        // It fails if it is dead.
        let _ = nix::unistd::write(&self.control_pipe_w, b".");
    }

    /// SIGKILL to it, and so to everybody inside, those included that are being forked right now. Not after it was reaped.
    pub fn kill(&self) {
        let _ = sys::kill(self.pid, libc::SIGKILL);
    }
}

/// The life of the init: a fork of the keeper, with every signal blocked, that holds on to nothing.
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
            // The keeper is dead, or was before it could be said that we are to die with it.
            Ok(_) | Err(_) => sys::exit_now(libc::EXIT_FAILURE),
        }
    }
    if sys::is_abandoned(&control_pipe_r) {
        sys::exit_now(libc::EXIT_FAILURE);
    }
    sys::await_no_children();
    sys::exit_now(libc::EXIT_SUCCESS)
}
