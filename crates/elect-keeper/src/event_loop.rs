//! The keeper's own loop: one socket, one deadline, one tree.
//!
//! [`start`] starts a tree, [`stopping`] stops and kills it, [`running_hook`] runs background hooks beside it.
//!
//! ```text
//!           start            exec           stop · main ended          kill_at · deadline · kill
//! Empty ──────────▶ Starting ─────▶ Running ───────────────▶ stopping ─────────────────────────▶ killing ──▶ Empty
//! ```
//!
//! The loop knows no store and no network. The order of each iteration is fixed: enforce the deadlines, read the
//! campaigner's messages, reap ended children. The campaigner's end is a stop request that cannot be withdrawn (K2);
//! while a `--min-hold` still runs, the claim is kept until the hold is over, or left to a lease that ends before that.

mod running_hook;
mod start;
mod stopping;
mod terminal;

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::containment::Tier;
use super::namespace::Init;
use super::protocol::{Channel, Claim, MESSAGE_BYTES_MAX, Received, ToKeeper};
use super::spawn::{CommandSpec, ExecStatus, Spawned};
use super::sys::{self, Inherited, Reaped};
use super::terminal::Terminal;
use super::tree::Scanner;
use crate::clock::{self, Alarm};
use elect_core::{CommandEnd, FromKeeper, Program, RunId, Term, Time};
use running_hook::RunningHook;
use start::PendingOustedHook;
use stopping::Stop;

/// Bounds work per iteration, so that neither a message flood nor mass child exits delay a kill.
const EVENT_BATCH: usize = 64;
pub struct KeeperLoop {
    channel: Channel,
    campaigner: CampaignerState,
    deadline: Option<KillDeadline>,
    tree: CommandTree,
    running_hook: Option<RunningHook>,
    /// The run of the present tree.
    run: RunId,
    /// The run of the last start order: an `Empty` message confirms that order, whether or not it started a tree.
    last_ordered_run: RunId,
    pending_ousted_hook: Option<PendingOustedHook>,
    hold: Option<ClaimHold>,
    claim: Option<Claim>,
    /// The last claim came without its lock: no program that holds the lock can start.
    claim_is_incomplete: bool,
    spec: Option<CommandSpec>,
    inherited: Inherited,
    tier: Tier,
    terminal: Terminal,
    /// Messages that the socket had no room for.
    outbox: VecDeque<FromKeeper>,
    /// Signals for a main process that has not executed yet: before exec a signal would end it or be lost.
    pending_signals: Vec<i32>,
    /// Inits of hooks whose leftovers belong to the tree now: dropping an init kills its namespace.
    leftover_inits: Vec<Init>,
    scanner: Scanner,
    own_pid: i32,
    buffer: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CampaignerState {
    Present,
    /// An orderly exit: no claim is left to release.
    Dismissed,
    /// End of file: the campaigner was killed or crashed.
    Gone,
}

/// K1: the time after which no process of this term may live.
#[derive(Debug, Clone, Copy)]
struct KillDeadline {
    term: Term,
    kill_by: Time,
    expired: bool,
}

/// K2: the time until which the claim is kept even if the campaigner dies, counted from the first start in a term.
#[derive(Debug, Clone, Copy)]
struct ClaimHold {
    term: Term,
    until: Time,
}

#[derive(Debug)]
enum CommandTree {
    Empty,
    /// The main process leads its own process group, which keeps its number when the process is gone.
    Alive {
        /// `None`: a background hook or its leftovers, without a program beside them.
        program: Option<Program>,
        main: MainProcess,
        group: i32,
        stop: Stop,
        /// The init of the program's PID namespace (tier `pidns`), until it has been reaped.
        init: Option<Init>,
        /// The time of SIGKILL: a hook's time-out.
        until: Time,
    },
}

/// The result of reaping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReapResult {
    /// More zombies may exist: reap again at once.
    MoreZombies,
    /// Children are alive; SIGCHLD announces their ends.
    ChildrenAlive,
    /// No child is left, but the leaf is populated; the leaf's events announce a change (K6).
    CgroupPopulated,
}

#[derive(Debug)]
enum MainProcess {
    /// Forked; the result of exec is still open.
    Starting(Spawned),
    Running(i32),
    /// Exec failed, and the failure has been reported; the child, until it has been reaped (K5).
    Refused(Option<i32>),
    /// The main process's end has been reported; descendants may live (K10).
    Ended,
    /// A run without a command: the tree exists until it is stopped, even if no process is in it.
    Nothing,
}

impl KeeperLoop {
    pub fn new(
        channel: Channel,
        spec: Option<CommandSpec>,
        inherited: Inherited,
        tier: Tier,
        terminal: Terminal,
    ) -> KeeperLoop {
        let own_pid = std::process::id().cast_signed();
        KeeperLoop {
            channel,
            campaigner: CampaignerState::Present,
            deadline: None,
            tree: CommandTree::Empty,
            running_hook: None,
            run: 0,
            last_ordered_run: 0,
            pending_ousted_hook: None,
            hold: None,
            claim: None,
            claim_is_incomplete: false,
            spec,
            inherited,
            tier,
            terminal,
            outbox: VecDeque::with_capacity(64),
            pending_signals: Vec::new(),
            leftover_inits: Vec::new(),
            scanner: Scanner::new(&[own_pid]),
            own_pid,
            buffer: vec![0; MESSAGE_BYTES_MAX],
        }
    }

    /// Runs until the campaigner is gone and the tree is empty. Returns the claim if it must still be released.
    ///
    /// # Errors
    ///
    /// The kernel refuses a timer or a signal descriptor: at the start, before any claim can exist.
    pub fn run(mut self) -> nix::Result<Option<Claim>> {
        // SIGCHLD is blocked like all other signals and read from the descriptor.
        let child = SigSet::from_iter([Signal::SIGCHLD]);
        let children = SignalFd::with_flags(&child, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let alarm = Alarm::new()?;
        let mut buffer = std::mem::take(&mut self.buffer);
        loop {
            self.enforce(clock::now());
            self.receive_messages(&mut buffer);
            let remaining = self.reap();
            self.check_terminal();
            self.send();
            if let ControlFlow::Break(claim) = self.finished() {
                self.tier.remove();
                return Ok(claim);
            }
            alarm.set(self.wake_at());
            self.wait(&children, &alarm, remaining);
        }
    }

    /// Breaks when all work is done, with the claim that must be released.
    fn finished(&mut self) -> ControlFlow<Option<Claim>> {
        // A hook without a tree was made a tree when the campaigner went.
        if !matches!(self.tree, CommandTree::Empty) {
            return ControlFlow::Continue(());
        }
        let held = clock::now() < self.hold_ends_at();
        match self.campaigner {
            CampaignerState::Dismissed => ControlFlow::Break(None),
            // The claim is kept until the hold ends.
            CampaignerState::Gone if held && !self.hold_exceeds_lease() => ControlFlow::Continue(()),
            CampaignerState::Present => ControlFlow::Continue(()),
            CampaignerState::Gone => {
                if self.run_ousted_hook() {
                    return ControlFlow::Continue(());
                }
                ControlFlow::Break(self.claim.take().filter(|_| !held))
            }
        }
    }

    /// Sleeps until an event arrives. The kind of event does not matter: the loop checks every source.
    fn wait(&self, children: &SignalFd, alarm: &Alarm, remaining: ReapResult) {
        let child = || PollFd::new(children.as_fd(), PollFlags::POLLIN);
        let clock = PollFd::new(alarm.as_fd(), PollFlags::POLLIN);
        // A socket whose other end is gone is always ready, so it is left out then. An absent source is replaced by
        // another poll of the child descriptor.
        let socket = match self.campaigner {
            CampaignerState::Present if self.outbox.is_empty() => Some(PollFlags::POLLIN),
            CampaignerState::Present => Some(PollFlags::POLLIN | PollFlags::POLLOUT),
            CampaignerState::Dismissed | CampaignerState::Gone => None,
        };
        let socket = socket.map_or_else(child, |events| PollFd::new(self.channel.socket().as_fd(), events));
        let exec = self.exec_pipe().map_or_else(child, |pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN));
        let leaf = self.tier.events().filter(|_| remaining == ReapResult::CgroupPopulated);
        let leaf = leaf.map_or_else(child, |events| PollFd::new(events, PollFlags::POLLPRI));
        let longest = if remaining == ReapResult::MoreZombies { PollTimeout::ZERO } else { PollTimeout::NONE };
        let result = poll(&mut [child(), clock, socket, exec, leaf], longest);
        debug_assert!(matches!(result, Ok(_) | Err(Errno::EINTR)), "{result:?}");
        while let Ok(Some(_)) = children.read_signal() {}
        alarm.acknowledge();
    }

    fn exec_pipe(&self) -> Option<&OwnedFd> {
        match &self.tree {
            CommandTree::Alive { main: MainProcess::Starting(spawned), .. } => Some(&spawned.status),
            CommandTree::Alive {
                main: MainProcess::Running(_) | MainProcess::Refused(_) | MainProcess::Ended | MainProcess::Nothing,
                ..
            }
            | CommandTree::Empty => None,
        }
    }

    fn wake_at(&self) -> Time {
        let hook_wake_at = self.hook_wake_at();
        let CommandTree::Alive { program, stop, until, .. } = &self.tree else {
            return self.hold_ends_at().min(hook_wake_at);
        };
        let deadline = match self.deadline.filter(|_| program.and_then(Program::deadline_term).is_some()) {
            Some(KillDeadline { expired: false, kill_by, .. }) => kill_by,
            Some(KillDeadline { expired: true, .. }) | None => Time::NEVER,
        };
        let stop = match *stop {
            Stop::NotRequested => self.terminal.foreground_poll_at().min(*until),
            Stop::Terminating { kill_at } => kill_at.min(*until),
            Stop::Killing { retry_at, .. } => retry_at,
        };
        deadline.min(stop).min(hook_wake_at)
    }

    // ---- the hold

    /// The time at which the hold must be checked: never while the campaigner is present, which checks it itself.
    fn hold_ends_at(&self) -> Time {
        match (self.hold, self.campaigner) {
            (Some(hold), CampaignerState::Gone) => hold.until,
            (_, CampaignerState::Present | CampaignerState::Dismissed) => Time::NEVER,
            (None, CampaignerState::Gone) => Time::BOOT,
        }
    }

    /// Without a campaigner the lease is not renewed: if the hold ends after the lease, no claim is left to release,
    /// and the hold must not be cut short.
    fn hold_exceeds_lease(&self) -> bool {
        let lease_ends = self.deadline.map_or(Time::NEVER, |deadline| deadline.kill_by);
        self.hold.is_some_and(|hold| hold.until > lease_ends)
    }

    // ---- children

    fn reap(&mut self) -> ReapResult {
        self.poll_exec();
        for _ in 0..EVENT_BATCH {
            match self.reap_next() {
                Reaped::Child { pid, status } => {
                    if let CommandTree::Alive { main: MainProcess::Refused(child), .. } = &mut self.tree
                        && *child == Some(pid)
                    {
                        *child = None;
                    } else if self.main_pid() == Some(pid) {
                        self.on_main_ended(status);
                    } else {
                        self.on_hook_child_ended(pid, status);
                    }
                    // The process id may be reused from now on.
                    self.leftover_inits.retain(|init| init.pid != pid);
                    if let CommandTree::Alive { init, .. } = &mut self.tree {
                        init.take_if(|init| init.pid == pid);
                    }
                    self.clear_refused_start();
                }
                Reaped::NoneEnded => return ReapResult::ChildrenAlive,
                // K6: no descendant is left, because orphaned descendants of a subreaper become its children; the leaf
                // is empty too.
                Reaped::NoChildren => {
                    if self.tier.is_populated() && !(matches!(self.tree, CommandTree::Empty) && self.has_no_hook()) {
                        return ReapResult::CgroupPopulated;
                    }
                    self.debug_assert_no_hook();
                    match self.tree {
                        CommandTree::Empty
                        | CommandTree::Alive { main: MainProcess::Nothing, stop: Stop::NotRequested, .. } => {}
                        CommandTree::Alive { .. } => {
                            self.tree = CommandTree::Empty;
                            sys::schedule_first();
                            self.outbox.push_back(FromKeeper::Empty { run: self.last_ordered_run });
                        }
                    }
                    return ReapResult::ChildrenAlive;
                }
            }
        }
        ReapResult::MoreZombies
    }

    /// Reaps one ended child. The exec status of a main process is read before it is reaped: only then can the kernel
    /// still tell whether it ended before exec.
    fn reap_next(&mut self) -> Reaped {
        let CommandTree::Alive { main: MainProcess::Starting(spawned), .. } = &self.tree else {
            return sys::reap(-1);
        };
        // A child that ends after this question is reaped in the next iteration: it may be the main process.
        let Some(pid) = sys::ended_child(None) else { return Reaped::NoneEnded };
        if pid == spawned.pid {
            self.poll_exec();
        }
        sys::reap(pid)
    }

    /// K5: a refused start is cleared once its child, and the init of its namespace, have been reaped. A background
    /// hook that runs beside it goes on, without a tree. Without a hook, the end of all children clears the start.
    fn clear_refused_start(&mut self) {
        let CommandTree::Alive { main: MainProcess::Refused(None), init: None, stop: Stop::NotRequested, .. } =
            self.tree
        else {
            return;
        };
        let Some(hook) = &self.running_hook else { return };
        let hook_has_ended = hook.has_ended();
        self.tree = CommandTree::Empty;
        self.outbox.push_back(FromKeeper::Cleared { run: self.run });
        if hook_has_ended {
            self.stop_hook_leftovers();
        }
    }

    fn main_pid(&self) -> Option<i32> {
        match &self.tree {
            CommandTree::Alive { main, .. } => main.pid(),
            CommandTree::Empty => None,
        }
    }

    fn poll_exec(&mut self) {
        let CommandTree::Alive { program, main, init, .. } = &mut self.tree else { return };
        let program = *program;
        let MainProcess::Starting(spawned) = main else { return };
        match spawned.exec_status() {
            ExecStatus::Pending => {}
            ExecStatus::Succeeded => {
                let pid = spawned.pid;
                *main = MainProcess::Running(pid);
                if let (Some(spec), Some(Program::Command { term })) = (&self.spec, program)
                    && self.hold.is_none_or(|hold| hold.term != term)
                {
                    self.hold = Some(ClaimHold { term, until: clock::now() + spec.min_hold });
                }
                self.outbox.push_back(FromKeeper::Started { run: self.run, pid });
                // Leftovers of an earlier hook belong to this tree from now on.
                self.adopt_finished_hook();
                for signal in std::mem::take(&mut self.pending_signals) {
                    let _ = sys::kill(pid, signal);
                }
            }
            // The child that reported the failure ends by itself, and is reaped without being the main process.
            ExecStatus::Failed(why) => {
                *main = MainProcess::Refused(Some(spawned.pid));
                self.pending_signals.clear();
                init.iter().for_each(Init::dismiss);
                self.outbox.push_back(FromKeeper::NotStarted { run: self.run, why });
                self.take_terminal_back(CommandEnd::Exited(127), true);
            }
        }
    }

    fn on_main_ended(&mut self, status: i32) {
        // The end may be seen before the exec status.
        self.poll_exec();
        let CommandTree::Alive { main, stop, init, .. } = &mut self.tree else { return };
        if matches!(main, MainProcess::Ended) {
            return;
        }
        if matches!(main, MainProcess::Refused(_)) {
            *main = MainProcess::Refused(None);
            return;
        }
        *main = MainProcess::Ended;
        init.iter().for_each(Init::dismiss);
        let (escalated, asked) = (matches!(stop, Stop::Killing { .. }), !matches!(stop, Stop::NotRequested));
        let end = match sys::decode(status) {
            Ok(status) => CommandEnd::Exited(status),
            Err(signal) => CommandEnd::Killed {
                signal: elect_core::Signal(signal),
                escalated: escalated && signal == libc::SIGKILL,
            },
        };
        self.outbox.push_back(FromKeeper::Exited { run: self.run, end });
        self.adopt_finished_hook();
        self.stop_descendants();
        self.take_terminal_back(end, asked);
    }

    // ---- the campaigner

    fn receive_messages(&mut self, buffer: &mut [u8]) {
        for _ in 0..EVENT_BATCH {
            if self.campaigner != CampaignerState::Present {
                return;
            }
            match self.channel.receive(buffer) {
                Received::Message(Some(message)) => self.on_message(message),
                Received::Message(None) => {}
                Received::Incomplete => self.claim_is_incomplete = true,
                Received::Nothing => return,
                Received::End => self.on_campaigner_gone(),
            }
        }
    }

    fn on_message(&mut self, message: ToKeeper) {
        match message {
            ToKeeper::Claim(claim) => {
                self.claim = Some(claim);
                self.claim_is_incomplete = false;
            }
            ToKeeper::Arm { term, kill_by } => self.arm(term, kill_by),
            ToKeeper::Start { program, run, identity } => self.start(program, run, identity),
            ToKeeper::BackgroundHook { background_hook, context, identity } => {
                self.start_background_hook(background_hook, context, &identity);
            }
            ToKeeper::Stop { .. } | ToKeeper::Kill if matches!(self.tree, CommandTree::Empty) && self.has_no_hook() => {
                self.outbox.push_back(FromKeeper::Empty { run: self.last_ordered_run });
            }
            ToKeeper::Stop { kill_at } => {
                self.take_over_hook_leftovers();
                self.stop(kill_at);
            }
            ToKeeper::Kill => {
                self.take_over_hook_leftovers();
                self.kill();
            }
            ToKeeper::Forward { signal } => self.forward(signal),
            // One answer is enough for all pings that the campaigner has not read an answer to.
            ToKeeper::Ping if self.outbox.contains(&FromKeeper::Pong) => {}
            ToKeeper::Ping => self.outbox.push_back(FromKeeper::Pong),
            ToKeeper::Resume => {
                if let Some(group) = self.running_group() {
                    let command =
                        matches!(self.tree, CommandTree::Alive { program: Some(Program::Command { .. }), .. });
                    self.terminal.resume(group, command);
                }
            }
            ToKeeper::EndHold => self.hold = None,
            ToKeeper::Dismiss => {
                self.campaigner = CampaignerState::Dismissed;
                self.begin_final_stop();
            }
        }
    }

    /// Forwards a signal to the main process, once it has executed.
    fn forward(&mut self, signal: i32) {
        match &self.tree {
            CommandTree::Alive { main: MainProcess::Running(pid), .. } => drop(sys::kill(*pid, signal)),
            // Each signal once, as the kernel keeps a blocked signal.
            CommandTree::Alive { main: MainProcess::Starting(_), .. } if !self.pending_signals.contains(&signal) => {
                self.pending_signals.push(signal);
            }
            CommandTree::Alive { .. } | CommandTree::Empty => {}
        }
    }

    /// K2: without a campaigner the tree is stopped within the deadline in force.
    fn on_campaigner_gone(&mut self) {
        self.campaigner = CampaignerState::Gone;
        self.begin_final_stop();
    }

    /// K1: a new term opens only over an empty tree. Any number is accepted then, because the store that issues terms
    /// may have been rebuilt. Within a term the deadline only moves forward, and not after it has killed. While a tree
    /// lives, a message for another term changes nothing.
    fn arm(&mut self, term: Term, kill_by: Time) {
        let nothing_to_kill = matches!(self.tree, CommandTree::Empty);
        let deadline = match (&mut self.deadline, &self.tree) {
            (Some(deadline), _) if deadline.term == term => {
                // A deadline that expired over an empty tree belonged to a start that came too late: the next renewal
                // is for the next start.
                if (nothing_to_kill && !deadline.expired) || clock::now() < deadline.kill_by {
                    deadline.kill_by = deadline.kill_by.max(kill_by);
                }
                *deadline
            }
            (deadline, CommandTree::Empty) => *deadline.insert(KillDeadline { term, kill_by, expired: false }),
            (_, CommandTree::Alive { .. }) => return,
        };
        self.outbox.push_back(FromKeeper::Armed { term: deadline.term, kill_by: deadline.kill_by });
    }

    /// Sends without waiting (K3): messages that find no room stay in the outbox.
    fn send(&mut self) {
        while let Some(answer) = self.outbox.front() {
            match self.channel.answer(answer) {
                Ok(()) => drop(self.outbox.pop_front()),
                // The end of file follows.
                Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                    self.outbox.clear();
                }
                // No room, or no memory: keep the message, because the campaigner waits for it.
                Err(_) => return,
            }
        }
    }
}

impl MainProcess {
    fn pid(&self) -> Option<i32> {
        match self {
            MainProcess::Starting(spawned) => Some(spawned.pid),
            MainProcess::Running(pid) => Some(*pid),
            MainProcess::Refused(child) => *child,
            MainProcess::Ended | MainProcess::Nothing => None,
        }
    }
}
