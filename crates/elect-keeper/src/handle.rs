//! The campaigner's handle on the keeper, and the keeper's process from fork to exit.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use nix::sys::mman::munlockall;
use nix::sys::prctl;
use nix::unistd::{Pid, setpgid};

use super::containment::{Containment, NoContainment, Tier};
use super::event_loop::KeeperLoop;
use super::memory;
use super::preexisting_children::PreexistingChild;
use super::protocol::{Channel, Claim, Received, ToKeeper};
use super::spawn::CommandSpec;
use super::sys::{self, Forked, Inherited, Reaped};
use super::terminal::Terminal;
use super::tree::{self, Scanner, SweepSlice};
use elect_core::{FinalReport, FromKeeper};

/// The last step of a keeper whose campaigner has died: releases the claim as its store requires, and reports (K2).
pub type Release = fn(Departure);

/// The things that a keeper has left when its campaigner has died and the tree is empty.
#[derive(Debug)]
pub struct Departure {
    /// The claim, if it has to be released.
    pub claim: Option<Claim>,
    /// Whether there was a claim at all.
    pub had_claim: bool,
    /// What was done.
    pub report: FinalReport,
}

/// Zombies reaped in one call, so that other work gets its turn.
const REAP_BATCH: usize = 256;

/// The campaigner's handle on its keeper.
#[derive(Debug)]
pub struct Keeper {
    pid: i32,
    /// The keeper has been reaped: its process id may belong to another process by now.
    reaped: bool,
    channel: Channel,
    pub(super) scanner: Scanner,
    /// Children inherited across exec (`sh -c 'x & exec elect'`) and their descendants. Never killed.
    pub(super) preexisting_children: Vec<PreexistingChild>,
    /// Such children existed at the start. Their orphaned descendants become children of this process later, when the
    /// original children may all be gone.
    has_preexisting_children: bool,
    /// A sweep has begun and has not visited every process yet.
    sweeping: bool,
    /// Held by the campaigner too: to kill without the keeper's help, and to know when the tree is empty after the
    /// keeper's death.
    pub(super) tier: Tier,
    /// The reason for the tier `tree` under `--containment auto`.
    fallback: Option<io::Error>,
    /// The terminal, to take it back if the keeper is dead.
    terminal: Terminal,
}

/// Tries whether this process may lock its memory, as its keeper does, and unlocks it.
///
/// # Errors
///
/// The limit on locked memory is too low.
pub fn can_lock_memory() -> io::Result<()> {
    memory::lock()?;
    Ok(munlockall()?)
}

/// The error of [`Keeper::fork`].
#[derive(Debug, thiserror::Error)]
pub enum ForkError {
    /// The requested containment is not available.
    #[error(transparent)]
    Containment(#[from] NoContainment),
    /// The kernel refuses a system call that every keeper needs.
    #[error("the keeper could not be started: {0}{advice}", advice = limit_advice(.0))]
    System(#[from] io::Error),
}

/// The limit whose end an error of the kernel reports.
fn limit_advice(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EMFILE) => "; raise the limit on open files (ulimit -n)",
        Some(libc::ENFILE) => "; raise the limit on open files of this host (fs.file-max)",
        Some(libc::EAGAIN) => "; raise the limit on processes (ulimit -u, or TasksMax= of a systemd unit)",
        Some(libc::ENOMEM) => "; free memory, or raise the limit on it",
        Some(_) | None => "",
    }
}

impl From<nix::Error> for ForkError {
    fn from(error: nix::Error) -> ForkError {
        ForkError::System(error.into())
    }
}

impl Keeper {
    /// Forks the keeper. Must be called before any thread exists; the calling process becomes a subreaper.
    ///
    /// # Errors
    ///
    /// `/proc` cannot list children, the containment is not available, or the kernel grants no socket or process.
    pub fn fork(spec: Option<CommandSpec>, release: Release, containment: Containment) -> Result<Keeper, ForkError> {
        tree::probe()?;
        let own = std::process::id().cast_signed();
        // The keeper goes on with a copy of it, which costs less than a new one.
        let mut scanner = Scanner::new(&[]);
        let preexisting_children: Vec<PreexistingChild> =
            scanner.descendants(own, &[]).to_vec().into_iter().filter_map(PreexistingChild::of).collect();
        let has_preexisting_children = !preexisting_children.is_empty();
        let inherited = Inherited::take();
        let has_check = spec.as_ref().is_some_and(|spec| spec.scripts.health.is_some());
        let (tier, fallback) = containment.establish(has_check)?;
        let terminal = Terminal::of_this_job();
        prctl::set_child_subreaper(true)?;
        let (ours, theirs) = Channel::pair()?;
        // Signals stay blocked in the keeper from its first instruction on: a terminal, a shell's `kill` or a cgroup
        // delivers them to every process (K3).
        sys::block_signals();
        // SAFETY: no other thread exists, as the caller promises; in tests the others hold nothing that the child
        // needs.
        let forked = unsafe { sys::fork() };
        match forked {
            Ok(Forked::Parent(pid)) => {
                inherited.unblock();
                scanner.add_roots(&[pid, own]);
                let channel = ours;
                let (reaped, sweeping) = (false, false);
                Ok(Keeper {
                    pid,
                    reaped,
                    channel,
                    scanner,
                    preexisting_children,
                    has_preexisting_children,
                    sweeping,
                    tier,
                    fallback,
                    terminal,
                })
            }
            Err(error) => {
                inherited.unblock();
                tier.remove();
                Err(error.into())
            }
            Ok(Forked::Child) => {
                // An open copy of the campaigner's end in the keeper would hide the campaigner's death (K2).
                drop(ours);
                sys::exit_now(run_keeper(theirs, spec, (release, inherited), (tier, terminal), scanner))
            }
        }
    }

    /// The keeper's process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// The name of the containment tier.
    #[must_use]
    pub fn containment(&self) -> &'static str {
        self.tier.name()
    }

    /// The reason for the tier `tree`, if `--containment auto` found no better one.
    #[must_use]
    pub fn fallback(&self) -> Option<&io::Error> {
        self.fallback.as_ref()
    }

    /// Sends without waiting.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if the keeper has stopped reading for long, `BrokenPipe` if the keeper is dead.
    pub fn send(&self, message: &ToKeeper) -> io::Result<()> {
        self.channel.send(message)
    }

    /// Receives a message from the keeper; `None` inside stands for a message that cannot be decoded.
    #[must_use]
    pub fn receive(&self) -> Received<Option<FromKeeper>> {
        self.channel.receive_answer()
    }

    /// SIGKILL to the keeper itself (K4).
    pub fn kill(&self) {
        if !self.reaped {
            let _ = sys::kill(self.pid, libc::SIGKILL);
        }
    }

    /// Sends SIGKILL to every process below the keeper, without the keeper's help: the second of the two processes that
    /// kill by the deadline. Works in batches: returns whether [`Keeper::kill_more`] must be called for the next batch.
    pub fn kill_tree(&mut self) -> bool {
        self.scanner.begin_sweep();
        self.kill_more()
    }

    /// Kills the next batch.
    pub fn kill_more(&mut self) -> bool {
        !self.reaped && self.tier.kill_slice(&mut self.scanner, self.pid, &[]) == SweepSlice::More
    }

    /// Reaps ended children: as PID 1, any process may become our child. Returns whether the keeper has ended, now or
    /// before.
    pub fn reap(&mut self) -> bool {
        for _ in 0..REAP_BATCH {
            let Reaped::Child { pid, .. } = sys::reap(-1) else { return self.reaped };
            self.reaped |= pid == self.pid;
            self.preexisting_children.retain(|child| child.pid != pid);
        }
        // Mass child exits must not delay other work: the SIGCHLD below continues the reaping later.
        let _ = sys::kill(std::process::id().cast_signed(), libc::SIGCHLD);
        self.reaped
    }

    /// Before a start: records the state of the terminal, in case the keeper dies and the campaigner must restore it.
    pub fn note_terminal(&mut self) {
        let _ = self.terminal.lend();
    }

    /// After the keeper's death: takes the terminal back from the command.
    pub fn take_terminal_back(&mut self) {
        let own = std::process::id().cast_signed();
        let preexisting_children = self.living_preexisting_children();
        let _ = self.terminal.take_back(0, true, (own, &preexisting_children), &mut self.scanner);
    }

    /// Refreshes the list of preexisting children while the keeper lives: until its death, every child of this process
    /// but the keeper is one.
    ///
    /// After the keeper's death its tree becomes ours. So the new list counts only if the keeper is known to have lived
    /// when the last of the list was read (K4); a process id that passed to the tree meanwhile is below the keeper at
    /// the second scan.
    pub fn refresh_preexisting_children(&mut self) {
        if !self.has_preexisting_children || self.reaped {
            return;
        }
        let (own, keeper) = (std::process::id().cast_signed(), [self.pid]);
        // A list that cannot be read in full would leave children out, and they would be killed with the tree later.
        let Some(found) = self.scanner.all_descendants(own, &keeper) else { return };
        let found: io::Result<Vec<_>> = found.iter().copied().map(PreexistingChild::read).collect();
        let Ok(found) = found else { return };
        let mut preexisting_children: Vec<PreexistingChild> = found.into_iter().flatten().collect();
        let Some(again) = self.scanner.all_descendants(own, &keeper) else { return };
        let mut again = again.to_vec();
        again.sort_unstable();
        preexisting_children.retain(|child| again.binary_search(&child.pid).is_ok());
        if sys::is_living_child(self.pid) {
            self.preexisting_children = preexisting_children;
        }
    }

    /// The process ids of the preexisting children that still exist.
    fn living_preexisting_children(&mut self) -> Vec<i32> {
        self.preexisting_children.retain(|child| child.still_exists());
        self.preexisting_children.iter().map(|child| child.pid).collect()
    }

    /// Whether a sweep has more to kill than one batch.
    pub fn is_sweeping(&self) -> bool {
        self.sweeping
    }

    /// After the keeper's death: kills and reaps the remaining tree, one batch per call. Returns whether the tree is
    /// empty (K4, K6).
    pub fn sweep(&mut self) -> bool {
        let own = std::process::id().cast_signed();
        self.reap();
        if !std::mem::replace(&mut self.sweeping, true) {
            self.scanner.begin_sweep();
        }
        let preexisting_children = self.living_preexisting_children();
        let slice = self.tier.kill_slice(&mut self.scanner, own, &preexisting_children);
        self.sweeping = slice == SweepSlice::More;
        self.reap();
        // A process id that left the list of preexisting children during the scan may have hidden a process of the
        // tree.
        let empty = slice == SweepSlice::Done { left: 0 }
            && self.living_preexisting_children() == preexisting_children
            && !self.tier.is_populated();
        if empty {
            self.tier.remove();
        }
        empty
    }
}

impl AsRawFd for Keeper {
    fn as_raw_fd(&self) -> RawFd {
        self.channel.socket().as_raw_fd()
    }
}

/// The keeper's main function, in its own process. Returns the exit status.
fn run_keeper(
    channel: Channel,
    spec: Option<CommandSpec>,
    (release, inherited): (Release, Inherited),
    (tier, terminal): (Tier, Terminal),
    scanner: Scanner,
) -> i32 {
    // A panic must neither write to standard output or error, which belong to the command (K3), nor unwind into the
    // campaigner's frames. Tests install an equivalent hook themselves, because a hook that is running at the moment of
    // the fork cannot be replaced.
    #[cfg(not(test))]
    std::panic::set_hook(Box::new(|_| sys::exit_now(libc::EXIT_FAILURE)));
    let prepared = setpgid(Pid::from_raw(0), Pid::from_raw(0))
        .and_then(|()| prctl::set_child_subreaper(true))
        .and_then(|()| prctl::set_name(c"keeper"));
    if prepared.is_err() {
        return libc::EXIT_FAILURE;
    }
    let keeper_loop = KeeperLoop::new(channel, spec, inherited, (tier, terminal), scanner);
    // Memory is locked if the limit allows it. Killing needs only memory that exists by now.
    memory::release_stack();
    memory::hold_stack();
    let _ = memory::lock();
    match keeper_loop.run() {
        Ok(Some(departure)) => {
            inherited.schedule_as_before();
            release(departure);
            libc::EXIT_SUCCESS
        }
        Ok(None) => libc::EXIT_SUCCESS,
        Err(_) => libc::EXIT_FAILURE,
    }
}
