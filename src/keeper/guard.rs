//! The keeper's own loop: one socket, one deadline, one tree.
//!
//! What starts it is in [`start`]; hooks that run beside it are in [`beside`].
//!
//! ```text
//!           start            exec           stop · main ended          kill_at · deadline · kill
//! Empty ──────────▶ Starting ─────▶ Running ───────────────▶ stopping ─────────────────────────▶ killing ──▶ Empty
//! ```
//!
//! It knows no store and no network. Whatever happens, in this order: the deadlines are enforced, the dead are reaped,
//! the campaigner is listened to. The end of the campaigner is a stop request that nobody can withdraw (K2);
//! with a `--min-hold` that still runs, the claim is kept until it is over, or left to a lease that ends before that.

mod beside;
mod start;
mod terminal;

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;

use super::containment::Tier;
use super::namespace::Init;
use super::protocol::{Channel, Claim, LONGEST, Received, ToKeeper};
use super::spawn::{ExecStatus, Program, Spawned};
use super::sys::{self, Inherited, Reaped};
use super::terminal::Terminal;
use super::tree::{Killed, Scanner};
use crate::clock::{self, Alarm};
use crate::election::{CommandEnd, FromKeeper, Job, Run, Term, Time};
use beside::Beside;
use start::Ousted;

/// How many messages, or ends of children, are dealt with before the deadlines are looked at again: neither a campaigner
/// that never stops talking nor a hail of orphans may put a kill off.
const AT_ONCE: usize = 64;
/// How soon a killed tree is looked at again if no child's end says so first; doubled up to the longest.
const SWEEP_AGAIN: Duration = Duration::from_millis(5);
const SWEEP_AGAIN_LONGEST: Duration = Duration::from_millis(100);

/// How often progress is reported at most.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(25);

pub struct Guard {
    channel: Channel,
    campaigner: Campaigner,
    deadline: Option<Deadline>,
    tree: Tree,
    beside: Option<Beside>,
    /// The one that the tree is of.
    run: Run,
    /// The last one that was ordered: what is empty is so after that order, whatever became of it.
    heard: Run,
    ousted: Option<Ousted>,
    hold: Option<Hold>,
    claim: Option<Claim>,
    program: Option<Program>,
    inherited: Inherited,
    tier: Tier,
    terminal: Terminal,
    /// Answers that the socket had no room for.
    outbox: VecDeque<FromKeeper>,
    /// Signals for a main process that has not executed yet: it would be ended by them, or never see them.
    kept: Vec<i32>,
    /// Of hooks whose leftovers are the tree's: dropped, it would take them along at once.
    inits: Vec<Init>,
    scanner: Scanner,
    own_pid: i32,
    buffer: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Campaigner {
    Present,
    /// It ends in good order: nothing is left to release.
    Dismissed,
    /// End of file: it was killed, or it crashed.
    Gone,
}

/// K1: the time after which nothing of this term may live.
#[derive(Debug, Clone, Copy)]
struct Deadline {
    term: Term,
    kill_by: Time,
    expired: bool,
}

/// K2: until when the claim is kept even if the campaigner dies: for so long after the first start in a term.
#[derive(Debug, Clone, Copy)]
struct Hold {
    term: Term,
    until: Time,
}

#[derive(Debug)]
enum Tree {
    Empty,
    /// The main process leads a group of its own, which keeps the number when the process is gone.
    Alive {
        job: Job,
        main: Main,
        group: i32,
        stop: Stop,
        /// Of its namespace, in that tier, until it has been reaped.
        init: Option<Init>,
        /// SIGKILL at this time: a hook's time-out.
        until: Time,
    },
}

/// What is left to be done when the dead have been reaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Remaining {
    /// More of them, at once.
    Dead,
    /// Children, who tell of their end.
    Living,
    /// No child, and still somebody in the leaf, which tells of it (K6).
    Inmates,
}

#[derive(Debug)]
enum Main {
    /// Forked; whether exec succeeds is still open.
    Starting(Spawned),
    Running(i32),
    /// It has refused to execute, and that is reported; the child, until it has been reaped (K5).
    Refused(Option<i32>),
    /// Its end has been reported; what descends from it may live (K10).
    Ended,
    /// There is no command: the tree is one until it is stopped, whoever is in it.
    Nothing,
}

#[derive(Debug, Clone, Copy)]
enum Stop {
    NotAsked,
    /// The stop signal was sent; SIGKILL follows.
    Asked {
        kill_at: Time,
    },
    /// SIGKILL was sent, and is sent again until nothing is left.
    Killing {
        again_at: Time,
        rest: Duration,
    },
}

impl Guard {
    pub fn new(
        channel: Channel,
        program: Option<Program>,
        inherited: Inherited,
        tier: Tier,
        terminal: Terminal,
    ) -> Guard {
        let own_pid = std::process::id().cast_signed();
        Guard {
            channel,
            campaigner: Campaigner::Present,
            deadline: None,
            tree: Tree::Empty,
            beside: None,
            run: 0,
            heard: 0,
            ousted: None,
            hold: None,
            claim: None,
            program,
            inherited,
            tier,
            terminal,
            outbox: VecDeque::with_capacity(64),
            kept: Vec::new(),
            inits: Vec::new(),
            scanner: Scanner::new(&[own_pid]),
            own_pid,
            buffer: vec![0; LONGEST],
        }
    }

    /// Runs until the campaigner is gone and the tree is empty. Returns the claim if it is still to be released.
    ///
    /// # Errors
    ///
    /// The kernel refuses a timer or a signal descriptor: at start, before anything can have been claimed.
    pub fn run(mut self) -> nix::Result<Option<Claim>> {
        // Blocked like all others, and taken from the descriptor.
        let child = SigSet::from_iter([Signal::SIGCHLD]);
        let children = SignalFd::with_flags(&child, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let alarm = Alarm::new()?;
        let mut buffer = std::mem::take(&mut self.buffer);
        loop {
            self.enforce(clock::now());
            self.listen(&mut buffer);
            let remaining = self.reap();
            self.look_at_terminal();
            self.send();
            if let ControlFlow::Break(claim) = self.part() {
                self.tier.remove();
                return Ok(claim);
            }
            alarm.set(self.wake_at());
            self.wait(&children, &alarm, remaining);
        }
    }

    /// Whether all is done, and with which claim to be released.
    fn part(&mut self) -> ControlFlow<Option<Claim>> {
        // Whatever ran beside nothing was made a tree when the campaigner went.
        if !matches!(self.tree, Tree::Empty) {
            return ControlFlow::Continue(());
        }
        let held = clock::now() < self.held_until();
        match self.campaigner {
            Campaigner::Dismissed => ControlFlow::Break(None),
            // The claim is kept, or the campaigner keeps it.
            Campaigner::Gone if held && !self.outlives_its_lease() => ControlFlow::Continue(()),
            Campaigner::Present => ControlFlow::Continue(()),
            Campaigner::Gone => {
                if self.ousts() {
                    return ControlFlow::Continue(());
                }
                ControlFlow::Break(self.claim.take().filter(|_| !held))
            }
        }
    }

    /// Sleeps until something happens. Which of them it was does not matter: the loop looks at everything.
    fn wait(&self, children: &SignalFd, alarm: &Alarm, remaining: Remaining) {
        let child = || PollFd::new(children.as_fd(), PollFlags::POLLIN);
        let clock = PollFd::new(alarm.as_fd(), PollFlags::POLLIN);
        // A socket whose other end is gone is always ready: it is left out then. What is left out is one more look at the
        // children.
        let socket = match self.campaigner {
            Campaigner::Present if self.outbox.is_empty() => Some(PollFlags::POLLIN),
            Campaigner::Present => Some(PollFlags::POLLIN | PollFlags::POLLOUT),
            Campaigner::Dismissed | Campaigner::Gone => None,
        };
        let socket = socket.map_or_else(child, |events| PollFd::new(self.channel.socket().as_fd(), events));
        let exec = self.exec_pipe().map_or_else(child, |pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN));
        let leaf = self.tier.events().filter(|_| remaining == Remaining::Inmates);
        let leaf = leaf.map_or_else(child, |events| PollFd::new(events, PollFlags::POLLPRI));
        let longest = if remaining == Remaining::Dead { PollTimeout::ZERO } else { PollTimeout::NONE };
        let result = poll(&mut [child(), clock, socket, exec, leaf], longest);
        debug_assert!(matches!(result, Ok(_) | Err(Errno::EINTR)), "{result:?}");
        while let Ok(Some(_)) = children.read_signal() {}
        alarm.silence();
    }

    fn exec_pipe(&self) -> Option<&OwnedFd> {
        match &self.tree {
            Tree::Alive { main: Main::Starting(spawned), .. } => Some(&spawned.status),
            Tree::Alive { main: Main::Running(_) | Main::Refused(_) | Main::Ended | Main::Nothing, .. }
            | Tree::Empty => None,
        }
    }

    fn wake_at(&self) -> Time {
        let beside = self.beside_wakes_at();
        let Tree::Alive { job, stop, until, .. } = &self.tree else { return self.held_until().min(beside) };
        let deadline = match self.deadline.filter(|_| job.governed_by().is_some()) {
            Some(Deadline { expired: false, kill_by, .. }) => kill_by,
            Some(Deadline { expired: true, .. }) | None => Time::NEVER,
        };
        let stop = match *stop {
            Stop::NotAsked => self.terminal.look_at().min(*until),
            Stop::Asked { kill_at } => kill_at.min(*until),
            Stop::Killing { again_at, .. } => again_at,
        };
        deadline.min(stop).min(beside)
    }

    // ---- the hold

    /// When to look at the hold: never, as long as the campaigner is there to do it.
    fn held_until(&self) -> Time {
        match (self.hold, self.campaigner) {
            (Some(hold), Campaigner::Gone) => hold.until,
            (_, Campaigner::Present | Campaigner::Dismissed) => Time::NEVER,
            (None, Campaigner::Gone) => Time::BOOT,
        }
    }

    /// Nobody renews any more: a hold that ends after its lease leaves nothing to be released, and is not to be cut short.
    fn outlives_its_lease(&self) -> bool {
        let lease_ends = self.deadline.map_or(Time::NEVER, |deadline| deadline.kill_by);
        self.hold.is_some_and(|hold| hold.until > lease_ends)
    }

    // ---- deadlines

    /// K1: past a deadline the tree is killed, whatever anybody says; but for a follower and the hook after a term, which have
    /// nothing to do with it.
    fn enforce(&mut self, now: Time) {
        self.enforce_beside(now);
        let Tree::Alive { job, stop, until, .. } = &self.tree else { return };
        let due = match *stop {
            Stop::NotAsked => now >= *until,
            Stop::Asked { kill_at } => now >= kill_at.min(*until),
            Stop::Killing { again_at, .. } => now >= again_at,
        };
        let governed = job.governed_by().is_some();
        let expired = self.deadline.filter(|deadline| governed && !deadline.expired && now >= deadline.kill_by);
        if due || expired.is_some() {
            self.kill();
        }
        if let (Some(Deadline { term, .. }), Some(deadline)) = (expired, self.deadline.as_mut()) {
            deadline.expired = true;
            self.outbox.push_back(FromKeeper::Expired { term });
        }
    }

    fn kill(&mut self) {
        let Tree::Alive { main, stop, init, .. } = &mut self.tree else { return };
        sys::schedule_first();
        // Each of these kills many in one call, before those that find the others.
        if let Some(init) = init {
            init.kill();
        }
        if let Some(pid) = main.pid() {
            signal_group(pid, libc::SIGKILL);
        }
        let progress = &mut Progress::of(&self.channel, self.campaigner);
        if let Killed::All(_) = self.tier.kill(&mut self.scanner, self.own_pid, &[], &mut || progress.report()) {
            // What is left is to see them die. To reap somebody whom `ps` is looking at takes until that has let go, which
            // the kernel waits for in a busy loop, and whoever goes before all others keeps `ps` from it: for a second.
            self.inherited.schedule_as_before();
        }
        let rest = match *stop {
            Stop::Killing { rest, .. } => (rest * 2).min(SWEEP_AGAIN_LONGEST),
            Stop::NotAsked | Stop::Asked { .. } => SWEEP_AGAIN,
        };
        *stop = Stop::Killing { again_at: clock::now() + rest, rest };
    }

    /// The stop signal now, SIGKILL at `kill_at` or when it was already due, whichever is first.
    fn stop(&mut self, kill_at: Time) {
        let Some(program) = &self.program else { return };
        let stop_signal = program.stop_signal;
        let beside = self.group_beside();
        let Tree::Alive { main, stop, .. } = &mut self.tree else { return };
        let before = std::mem::replace(stop, stop.asked(kill_at));
        if !matches!(before, Stop::NotAsked) {
            return;
        }
        if let Some(pid) = main.pid() {
            signal_group(pid, stop_signal);
            // A stopped process takes no signal but SIGKILL and this one.
            signal_group(pid, libc::SIGCONT);
            if let Some(group) = beside {
                signal_group(group, stop_signal);
                signal_group(group, libc::SIGCONT);
            }
        } else {
            self.signal_those(stop_signal, |_| true);
        }
    }

    fn signal_those(&mut self, signal: i32, chosen: impl Fn(i32) -> bool) {
        self.scanner.signal_those(self.own_pid, &[], signal, &chosen);
        self.scanner.signal_those(self.own_pid, &[], libc::SIGCONT, &chosen);
    }

    // ---- children

    fn reap(&mut self) -> Remaining {
        self.look_at_exec();
        for _ in 0..AT_ONCE {
            match self.reap_next() {
                Reaped::Child { pid, status } => {
                    if let Tree::Alive { main: Main::Refused(child), .. } = &mut self.tree
                        && *child == Some(pid)
                    {
                        *child = None;
                    } else if self.main_pid() == Some(pid) {
                        self.main_ended(status);
                    } else {
                        self.beside_ended(pid, status);
                    }
                    // Its number may be somebody else's from now on.
                    self.inits.retain(|init| init.pid != pid);
                    if let Tree::Alive { init, .. } = &mut self.tree {
                        init.take_if(|init| init.pid == pid);
                    }
                    self.clear_what_was_refused();
                }
                Reaped::NoneEnded => return Remaining::Living,
                // K6: no descendant is left, for a subreaper's descendants have nowhere else to go; and nobody else in
                // the leaf either.
                Reaped::NoChildren => {
                    if self.tier.is_populated() && !(matches!(self.tree, Tree::Empty) && self.is_alone()) {
                        return Remaining::Inmates;
                    }
                    self.nothing_is_beside();
                    match self.tree {
                        Tree::Empty | Tree::Alive { main: Main::Nothing, stop: Stop::NotAsked, .. } => {}
                        Tree::Alive { .. } => {
                            self.tree = Tree::Empty;
                            sys::schedule_first();
                            self.outbox.push_back(FromKeeper::Empty { run: self.heard });
                        }
                    }
                    return Remaining::Living;
                }
            }
        }
        Remaining::Dead
    }

    /// One that has ended. Before a main process is reaped whose exec is still open, it is looked at: only then can it be told
    /// whether it ended before.
    fn reap_next(&mut self) -> Reaped {
        if let Tree::Alive { main: Main::Starting(spawned), .. } = &self.tree
            && let Some(pid) = sys::ended_child(None)
        {
            if pid == spawned.pid {
                self.look_at_exec();
            }
            return sys::reap(pid);
        }
        sys::reap(-1)
    }

    /// K5: of a start that was refused nothing is left once its child, and the init of its namespace, have been reaped. A hook
    /// that runs beside it goes on, beside nothing. Where none does, the end of all children tells.
    fn clear_what_was_refused(&mut self) {
        let Tree::Alive { main: Main::Refused(None), init: None, stop: Stop::NotAsked, .. } = self.tree else { return };
        let Some(beside) = &self.beside else { return };
        let left_behind = beside.has_ended();
        self.tree = Tree::Empty;
        self.outbox.push_back(FromKeeper::Cleared { run: self.run });
        if left_behind {
            self.stop_what_a_hook_left();
        }
    }

    fn main_pid(&self) -> Option<i32> {
        match &self.tree {
            Tree::Alive { main, .. } => main.pid(),
            Tree::Empty => None,
        }
    }

    fn look_at_exec(&mut self) {
        let Tree::Alive { job, main, init, .. } = &mut self.tree else { return };
        let job = *job;
        let Main::Starting(spawned) = main else { return };
        match spawned.exec_status() {
            ExecStatus::Pending => {}
            ExecStatus::Succeeded => {
                let pid = spawned.pid;
                *main = Main::Running(pid);
                if let (Some(program), Job::Command { term }) = (&self.program, job)
                    && self.hold.is_none_or(|hold| hold.term != term)
                {
                    self.hold = Some(Hold { term, until: clock::now() + program.min_hold });
                }
                self.outbox.push_back(FromKeeper::Started { run: self.run, pid });
                // Processes that an earlier hook has left behind are from now on part of this tree.
                self.adopt_what_is_beside();
                for signal in std::mem::take(&mut self.kept) {
                    let _ = sys::kill(pid, signal);
                }
            }
            // The child that says so ends by itself, and is reaped as nobody's main process.
            ExecStatus::Failed(why) => {
                *main = Main::Refused(Some(spawned.pid));
                self.kept.clear();
                init.iter().for_each(Init::dismiss);
                self.outbox.push_back(FromKeeper::NotStarted { run: self.run, why });
                self.take_terminal_back(CommandEnd::Exited(127), true);
            }
        }
    }

    fn main_ended(&mut self, status: i32) {
        // It may have been faster than the word that it started.
        self.look_at_exec();
        let Tree::Alive { main, stop, init, .. } = &mut self.tree else { return };
        if matches!(main, Main::Ended) {
            return;
        }
        if matches!(main, Main::Refused(_)) {
            *main = Main::Refused(None);
            return;
        }
        *main = Main::Ended;
        init.iter().for_each(Init::dismiss);
        let (escalated, asked) = (matches!(stop, Stop::Killing { .. }), !matches!(stop, Stop::NotAsked));
        let end = match sys::decode(status) {
            Ok(status) => CommandEnd::Exited(status),
            Err(signal) => CommandEnd::Killed {
                signal: crate::election::Signal(signal),
                escalated: escalated && signal == libc::SIGKILL,
            },
        };
        self.outbox.push_back(FromKeeper::Exited { run: self.run, end });
        self.adopt_what_is_beside();
        self.stop_the_rest();
        self.take_terminal_back(end, asked);
    }

    /// K10: what remains gets the stop signal and, within the time-out that already runs or starts now, SIGKILL.
    fn stop_the_rest(&mut self) {
        let Some(program) = &self.program else { return };
        let (signal, timeout) = (program.stop_signal, program.stop_timeout);
        let beside = self.group_beside();
        let Tree::Alive { group, stop, .. } = &mut self.tree else { return };
        let groups = [Some(*group), beside];
        match *stop {
            Stop::NotAsked => {
                *stop = stop.asked(clock::now() + timeout);
                self.signal_those(signal, |_| true);
            }
            // Its group has had the signal already, and that of a hook beside it; to some a second one means "at once".
            Stop::Asked { .. } => self.signal_those(signal, |pid| {
                nix::unistd::getpgid(Some(Pid::from_raw(pid))).is_ok_and(|of| !groups.contains(&Some(of.as_raw())))
            }),
            Stop::Killing { .. } => {}
        }
    }

    // ---- the campaigner

    fn listen(&mut self, buffer: &mut [u8]) {
        for _ in 0..AT_ONCE {
            if self.campaigner != Campaigner::Present {
                return;
            }
            match self.channel.receive(buffer) {
                Received::Message(Some(message)) => self.obey(message),
                Received::Message(None) => {}
                Received::Nothing => return,
                Received::End => self.bereaved(),
            }
        }
    }

    fn obey(&mut self, message: ToKeeper) {
        match message {
            ToKeeper::Claim(claim) => self.claim = Some(claim),
            ToKeeper::Arm { term, kill_by } => self.arm(term, kill_by),
            ToKeeper::Start { job, run, identity } => self.start(job, run, identity),
            ToKeeper::Aside { aside, beside, identity } => self.start_aside(aside, beside, &identity),
            ToKeeper::Stop { .. } | ToKeeper::Kill if matches!(self.tree, Tree::Empty) && self.is_alone() => {
                self.outbox.push_back(FromKeeper::Empty { run: self.heard });
            }
            ToKeeper::Stop { kill_at } => {
                self.gather(Job::Follower);
                self.stop(kill_at);
            }
            ToKeeper::Kill => {
                self.gather(Job::Follower);
                self.kill();
            }
            ToKeeper::Forward { signal } => self.forward(signal),
            // One answer is enough for all that it has not read an answer to.
            ToKeeper::Ping if self.outbox.contains(&FromKeeper::Pong) => {}
            ToKeeper::Ping => self.outbox.push_back(FromKeeper::Pong),
            ToKeeper::Resume => {
                if let Some(group) = self.running_group() {
                    let command = matches!(self.tree, Tree::Alive { job: Job::Command { .. }, .. });
                    self.terminal.resume(group, command);
                }
            }
            ToKeeper::EndHold => self.hold = None,
            ToKeeper::Dismiss => {
                self.campaigner = Campaigner::Dismissed;
                self.stop_for_good();
            }
        }
    }

    /// To the main process, once it has executed.
    fn forward(&mut self, signal: i32) {
        match &self.tree {
            Tree::Alive { main: Main::Running(pid), .. } => drop(sys::kill(*pid, signal)),
            // Each once, as a process keeps what it blocks.
            Tree::Alive { main: Main::Starting(_), .. } if !self.kept.contains(&signal) => self.kept.push(signal),
            Tree::Alive { .. } | Tree::Empty => {}
        }
    }

    /// K2: nobody is left to ask, so the tree is stopped within the deadline in force.
    fn bereaved(&mut self) {
        self.campaigner = Campaigner::Gone;
        self.stop_for_good();
    }

    fn stop_for_good(&mut self) {
        self.outbox.clear();
        if self.campaigner == Campaigner::Dismissed {
            // There should be nothing left, and nobody is left to wait for it.
            self.gather(Job::Follower);
            return self.kill();
        }
        let timeout = self.program.as_ref().map_or(Duration::ZERO, |program| program.stop_timeout);
        let job = match &self.tree {
            // Nothing is left to be told by a hook that runs beside nothing.
            Tree::Empty if !self.is_alone() => {
                self.gather(Job::Follower);
                return self.kill();
            }
            Tree::Empty => return,
            Tree::Alive { job, .. } => *job,
        };
        let kill_at = clock::now() + timeout;
        let deadline = self.deadline.filter(|_| job.governed_by().is_some());
        match job {
            Job::Command { .. } | Job::OnElected { .. } | Job::Follower => {
                self.stop(kill_at.min(deadline.map_or(Time::NEVER, |deadline| deadline.kill_by)));
            }
            // It has its time, and is not run again.
            Job::OnOusted { .. } => {}
        }
    }

    /// K1: a new term opens only over an empty tree, and there any does: the store that gives them may have been rebuilt. Within a
    /// term the deadline only moves forward, and not once it has killed. While a tree lives, a message for another term changes
    /// nothing.
    fn arm(&mut self, term: Term, kill_by: Time) {
        let nothing_to_kill = matches!(self.tree, Tree::Empty);
        let deadline = match (&mut self.deadline, &self.tree) {
            (Some(deadline), _) if deadline.term == term => {
                // One that found nothing to kill was for a start that came too late: the next renewal is for the next.
                if (nothing_to_kill && !deadline.expired) || clock::now() < deadline.kill_by {
                    deadline.kill_by = deadline.kill_by.max(kill_by);
                }
                *deadline
            }
            (deadline, Tree::Empty) => *deadline.insert(Deadline { term, kill_by, expired: false }),
            (_, Tree::Alive { .. }) => return,
        };
        self.outbox.push_back(FromKeeper::Armed { term: deadline.term, kill_by: deadline.kill_by });
    }

    /// Without waiting (K3): what finds no room stays until there is some.
    fn send(&mut self) {
        while let Some(answer) = self.outbox.front() {
            match self.channel.answer(answer) {
                Ok(()) => drop(self.outbox.pop_front()),
                // The end of file follows.
                Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                    self.outbox.clear();
                }
                // No room, or no memory: what is not said would be waited for.
                Err(_) => return,
            }
        }
    }
}

impl Stop {
    /// The state after another stop was requested: a date is only ever moved forward, and a kill that has begun is never
    /// turned back into a stop (K1).
    fn asked(self, kill_at: Time) -> Stop {
        match self {
            Stop::NotAsked => Stop::Asked { kill_at },
            Stop::Asked { kill_at: before } => Stop::Asked { kill_at: before.min(kill_at) },
            Stop::Killing { .. } => self,
        }
    }
}

impl Main {
    fn pid(&self) -> Option<i32> {
        match self {
            Main::Starting(spawned) => Some(spawned.pid),
            Main::Running(pid) => Some(*pid),
            Main::Refused(child) => *child,
            Main::Ended | Main::Nothing => None,
        }
    }
}

/// Tells the campaigner, while many are being killed, that the keeper lives (K4). What finds no room is not said.
struct Progress<'a> {
    channel: Option<&'a Channel>,
    last: Time,
}

impl Progress<'_> {
    fn of(channel: &Channel, campaigner: Campaigner) -> Progress<'_> {
        Progress { channel: Some(channel).filter(|_| campaigner == Campaigner::Present), last: clock::now() }
    }

    fn report(&mut self) {
        let now = clock::now();
        if let Some(channel) = self.channel
            && now.since(self.last) >= PROGRESS_INTERVAL
        {
            self.last = now;
            channel.report_progress();
        }
    }
}

/// Signals the group of the main process, and the main process itself should it have left for another.
fn signal_group(main: i32, signal: i32) {
    let _ = sys::kill(-main, signal);
    if nix::unistd::getpgid(Some(Pid::from_raw(main))).is_ok_and(|group| group.as_raw() != main) {
        let _ = sys::kill(main, signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Time = Time::from_nanos(1_000);
    const LATER: Time = Time::from_nanos(2_000);

    #[test]
    fn a_kill_that_has_begun_is_never_turned_back_into_a_stop() {
        let killing = Stop::Killing { again_at: SOON, rest: SWEEP_AGAIN };
        for kill_at in [Time::BOOT, SOON, LATER, Time::NEVER] {
            assert!(matches!(killing.asked(kill_at), Stop::Killing { again_at: SOON, rest: SWEEP_AGAIN }));
        }
    }

    #[test]
    fn a_kill_that_is_due_is_not_put_off_by_another_stop() {
        let asked = Stop::NotAsked.asked(SOON);
        assert!(matches!(asked, Stop::Asked { kill_at: SOON }));
        assert!(matches!(asked.asked(LATER), Stop::Asked { kill_at: SOON }));
        assert!(matches!(asked.asked(Time::BOOT), Stop::Asked { kill_at: Time::BOOT }));
    }
}
