//! The campaigner's handle on the keeper, and the keeper's process from fork to exit.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::prctl;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::{Pid, setpgid};

use super::containment::{Containment, NoContainment, Tier};
use super::event_loop::KeeperLoop;
use super::preexisting_children::PreexistingChild;
use super::protocol::{Channel, Claim, Received, ToKeeper};
use super::spawn::CommandSpec;
use super::sys::{self, Forked, Inherited, Reaped};
use super::terminal::Terminal;
use super::tree::{self, Scanner, SweepSlice};
use elect_core::FromKeeper;

/// Gives a claim back in the store's own way, in the keeper's process, after the campaigner's death (K2).
pub type Release = fn(Claim);

/// How many of the dead are reaped before others have their turn.
const REAP_BATCH: usize = 256;

/// The campaigner's handle on its keeper.
#[derive(Debug)]
pub struct Keeper {
    pid: i32,
    /// Reaped: the number may be somebody else's by now.
    reaped: bool,
    channel: Channel,
    pub(super) scanner: Scanner,
    /// Children that elect was born with, and what descends from them: nobody's tree, to be left alone.
    pub(super) preexisting_children: Vec<PreexistingChild>,
    /// There were such: whoever of theirs is orphaned later becomes a child of ours, when they may all be gone.
    has_preexisting_children: bool,
    /// A sweep has begun, and has not seen everybody yet.
    sweeping: bool,
    /// Held here too: to kill without the keeper's help, and to know when nobody is left after its death.
    pub(super) tier: Tier,
    /// Why it is no better one than a tree, where that was left to us.
    fallback: Option<io::Error>,
    /// For the day when the keeper is dead.
    terminal: Terminal,
}

/// Why there is no keeper.
#[derive(Debug, thiserror::Error)]
pub enum ForkError {
    /// The containment that was named is not to be had.
    #[error(transparent)]
    Containment(#[from] NoContainment),
    /// The kernel refuses something that everything needs.
    #[error("the keeper could not be started: {0}")]
    System(#[from] io::Error),
}

impl From<nix::Error> for ForkError {
    fn from(error: nix::Error) -> ForkError {
        ForkError::System(error.into())
    }
}

impl Keeper {
    /// Forks the keeper. To be called before any thread exists; the calling process becomes a subreaper.
    ///
    /// # Errors
    ///
    /// `/proc` cannot list children, the containment cannot be had, or the kernel gives no socket or process.
    pub fn fork(spec: Option<CommandSpec>, release: Release, containment: Containment) -> Result<Keeper, ForkError> {
        tree::probe()?;
        let preexisting_children: Vec<PreexistingChild> =
            tree::own_descendants()?.into_iter().filter_map(PreexistingChild::of).collect();
        let has_preexisting_children = !preexisting_children.is_empty();
        let inherited = Inherited::take();
        let (tier, fallback) = containment.establish()?;
        let terminal = Terminal::of_this_job();
        prctl::set_child_subreaper(true)?;
        let (ours, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        )?;
        // Blocked for good in the keeper, from its first moment: a terminal, a shell's kill or a cgroup delivers them to
        // everyone (K3).
        sys::block_signals();
        // SAFETY: no other thread exists, as the caller promises; in tests the others hold nothing that the child needs.
        let forked = unsafe { sys::fork() };
        match forked {
            Ok(Forked::Parent(pid)) => {
                inherited.unblock();
                let own = std::process::id().cast_signed();
                let (channel, scanner) = (Channel::new(ours), Scanner::new(&[pid, own]));
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
                // Kept open here it would hide the campaigner's end (K2).
                drop(ours);
                sys::exit_now(run_keeper(theirs, spec, release, inherited, (tier, terminal)))
            }
        }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// The tier of containment, as people know it.
    #[must_use]
    pub fn containment(&self) -> &'static str {
        self.tier.name()
    }

    /// Why the tier is no more than a tree, if another one would have been preferred.
    #[must_use]
    pub fn fallback(&self) -> Option<&io::Error> {
        self.fallback.as_ref()
    }

    /// Sends without waiting.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if it has stopped reading for long, `BrokenPipe` if it is dead.
    pub fn send(&self, message: &ToKeeper) -> io::Result<()> {
        self.channel.send(message)
    }

    /// What it said, if anything; a message that cannot be read is `None` inside.
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

    /// SIGKILL to everything below the keeper, without its help: the second of the two that kill by the deadline. A batch at a
    /// time: returns whether [`Keeper::kill_more`] is to be called for the next.
    pub fn kill_tree(&mut self) -> bool {
        self.scanner.begin_sweep();
        self.kill_more()
    }

    /// The next batch of them.
    pub fn kill_more(&mut self) -> bool {
        !self.reaped && self.tier.kill_slice(&mut self.scanner, self.pid, &[]) == SweepSlice::More
    }

    /// Reaps what has ended: as PID 1 any process may become our child. Returns whether the keeper has, now or before.
    pub fn reap(&mut self) -> bool {
        for _ in 0..REAP_BATCH {
            let Reaped::Child { pid, .. } = sys::reap(-1) else { return self.reaped };
            self.reaped |= pid == self.pid;
            self.preexisting_children.retain(|child| child.pid != pid);
        }
        // A hail of orphans holds nothing else up: the rest when we are told again.
        let _ = sys::kill(std::process::id().cast_signed(), libc::SIGCHLD);
        self.reaped
    }

    /// Before a start: how the terminal is, should the keeper die and leave it to us.
    pub fn note_terminal(&mut self) {
        let _ = self.terminal.lend();
    }

    /// After the keeper's death: what the command had of the terminal.
    pub fn take_terminal_back(&mut self) {
        let own = std::process::id().cast_signed();
        let preexisting_children = self.living_preexisting_children();
        let _ = self.terminal.take_back(0, true, (own, &preexisting_children), &mut self.scanner);
    }

    /// Keeps the list of strangers current while the keeper lives: until then every other child of ours is one.
    ///
    /// With the keeper's death its tree becomes ours. So the new list counts only if the keeper is known to have lived when
    /// the last of it was read (K4); a number that passed to the tree meanwhile is below the keeper at the second look.
    pub fn refresh_preexisting_children(&mut self) {
        if !self.has_preexisting_children || self.reaped {
            return;
        }
        let (own, keeper) = (std::process::id().cast_signed(), [self.pid]);
        let found = self.scanner.descendants(own, &keeper).to_vec();
        let mut preexisting_children: Vec<PreexistingChild> =
            found.into_iter().filter_map(PreexistingChild::of).collect();
        let mut again = self.scanner.descendants(own, &keeper).to_vec();
        again.sort_unstable();
        preexisting_children.retain(|child| again.binary_search(&child.pid).is_ok());
        if sys::is_living_child(self.pid) {
            self.preexisting_children = preexisting_children;
        }
    }

    /// The numbers of those strangers that are still there.
    fn living_preexisting_children(&mut self) -> Vec<i32> {
        self.preexisting_children.retain(|child| child.still_exists());
        self.preexisting_children.iter().map(|child| child.pid).collect()
    }

    /// Whether a sweep has more to kill than one batch.
    pub fn is_sweeping(&self) -> bool {
        self.sweeping
    }

    /// After the keeper's death: kills and reaps what it left us, a batch at a time. Returns whether nothing is left (K4, K6).
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
        // A number that was a stranger's before the look, and is not after it, may have hidden one of the tree.
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

/// The life of the keeper, in its own process. Returns its exit status.
fn run_keeper(
    socket: OwnedFd,
    spec: Option<CommandSpec>,
    release: Release,
    inherited: Inherited,
    (tier, terminal): (Tier, Terminal),
) -> i32 {
    // Whatever goes wrong here, 1 and 2 belong to the command (K3), and what is above this function to the campaigner.
    // Tests have a hook that does the same, because one that is in use at the moment of the fork cannot be replaced.
    #[cfg(not(test))]
    std::panic::set_hook(Box::new(|_| sys::exit_now(libc::EXIT_FAILURE)));
    let prepared = setpgid(Pid::from_raw(0), Pid::from_raw(0))
        .and_then(|()| prctl::set_child_subreaper(true))
        .and_then(|()| prctl::set_name(c"keeper"));
    if prepared.is_err() {
        return libc::EXIT_FAILURE;
    }
    let keeper_loop = KeeperLoop::new(Channel::new(socket), spec, inherited, tier, terminal);
    sys::schedule_first();
    // Where the limit allows it. What exists by now is all that killing needs; later memory stays out of it, lest an
    // allocation fail for a limit on locked pages.
    let _ = mlockall(MlockAllFlags::MCL_CURRENT);
    match keeper_loop.run() {
        Ok(Some(claim)) => {
            inherited.schedule_as_before();
            release(claim);
            libc::EXIT_SUCCESS
        }
        Ok(None) => libc::EXIT_SUCCESS,
        Err(_) => libc::EXIT_FAILURE,
    }
}
