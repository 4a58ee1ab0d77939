//! The keeper as a pure state machine (K12): one deadline, one tree.
//!
//! The machine knows no clock, no process, no socket and no descriptor: it takes in the observations of its shell with
//! their times ([`KeeperMachine::handle`]) and returns actions ([`KeeperMachine::next_action`]). It names processes by
//! their ids, runs by their numbers, and nothing else. The shell (`KeeperLoop` in elect-keeper) performs each action at
//! once and hands its result back before anything else happens; it decides nothing. The simulation runs the same
//! machine over a model of processes.
//!
//! # States
//!
//! ```text
//!           start            exec           stop · main ended          kill_at · deadline · kill
//! Empty ──────────▶ Starting ─────▶ Running ───────────────▶ Terminating ─────────────────────▶ Killing ──▶ Empty
//!   ▲                  │ not executed
//!   └── cleared ── Refused
//! ```
//!
//! Six facts are kept beside the tree, each with its own rule:
//!
//! - the *campaigner*: present, dismissed (an orderly exit) or gone (K2); only `Present` is ever left;
//! - the *kill deadline*: of one term, only ever later (K1);
//! - the *running hook*: a background hook beside the tree or alone, with its own time-out (K6);
//! - the *running check*: the health check beside the tree or alone, with its own time-out (H3);
//! - the *claim hold*: until when a claim is kept without a campaigner (K2);
//! - the *pending ousted hook*: the term after which `--on-ousted` still has to run (K2).
//!
//! # Events and actions
//!
//! [`KeeperEvent`] and [`KeeperAction`] list them. Four actions have a result that comes as the next event: `Spawn`,
//! `SpawnHook`, `SpawnCheck` and `KillTree`. Each is the last action of the event that it follows from, so that no decision is made
//! between the action and its result. The results of `ListDescendants` and of the terminal's actions are only passed on.
//!
//! # The order of a round
//!
//! 1. `RoundBegins`: the deadlines, before anything else, so that no flood of messages delays a kill (K1);
//! 2. `Order`, at most one batch, or `CampaignerGone`;
//! 3. `Executed` or `NotExecuted`, then `ChildEnded`, at most one batch, or `NoChildren`; the exec status of a child is
//!    always handed in before its end, as is `CheckEnds` for the main process of a check; `OnlyCheckLeft` in place of
//!    `NoChildren` if a check is stuck;
//! 4. `TerminalChecked`;
//! 5. `MessageSent` for each message of the outbox that the socket takes;
//! 6. `RoundEnds`: the decision whether all work is done.
//!
//! # Invariants
//!
//! - `Spawn` is returned with an empty tree only (2.3), and a governed program only with a deadline of its term that
//!   has not passed (K5).
//! - The tree becomes empty in three ways only: by `NoChildren` with an empty cgroup (K6); by `OnlyCheckLeft`, likewise
//!   (H5); or when a refused start, whose child and init have been reaped, leaves a background hook or a health check
//!   behind (K5).
//! - A kill that has begun is repeated until the tree is empty, and never turned back into a stop (K1).
//! - `Exit { releases: true }` is returned once, with an empty tree and no hook, after the campaigner is gone (K2).
//! - Deciding to kill allocates nothing: the buffer of actions has room for those of any event (K3).
//!
//! Deliberately absent: descriptors, claims, environment variables and argument lists, which no decision depends on;
//! and the state of the terminal, which is read and changed in one step by the shell's `Terminal`.

mod action;
mod check;
mod children;
mod event;
mod final_report;
mod hook;
mod mutation;
mod orders;
mod start;
mod stopping;
#[cfg(test)]
mod tests;
mod tree;

use std::collections::VecDeque;
use std::time::Duration;

use crate::{FromKeeper, Hooks, Program, RunId, Signal, StopTo, Term, Time};

pub use action::{IdentitySource, KeeperAction, Recipients};
use check::{CheckLeftovers, RunningCheck};
pub use event::{ChildEnd, KeeperEvent, KeeperOrder};
pub use final_report::FinalReport;
use hook::RunningHook;
#[cfg(test)]
pub(crate) use mutation::KeeperMutation;
use start::AwaitedSpawn;
use tree::{CommandTree, MainProcess, Stop};

/// SIGKILL has this number on every architecture, as have the two below.
const SIGKILL: Signal = Signal(9);
const SIGINT: Signal = Signal(2);
const SIGQUIT: Signal = Signal(3);
/// Errors of a start that no system call reported.
const ENOENT: i32 = 2;
const EBUSY: i32 = 16;

/// Room for the actions of one event, and for the messages of a few rounds.
const BUFFER: usize = 64;
/// More messages than a round needs before its first kill.
const OUTBOX_ROOM: usize = 16;

/// The configuration of a keeper, fixed before it is forked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeeperPolicy {
    /// The signal that asks a tree to stop.
    pub stop_signal: Signal,
    /// The processes that get it first.
    pub stop_to: StopTo,
    /// The time between the stop signal and SIGKILL.
    pub stop_timeout: Duration,
    /// The time, from the command's first start in a term, for which the claim is kept without a campaigner.
    pub min_hold: Duration,
    /// Whether there is a leader command. Without one, a run is a tree without a process.
    pub has_command: bool,
    /// Whether there is a follower.
    pub has_follower: bool,
    /// The hooks that are configured, and their time-out.
    pub hooks: Hooks,
    /// The time-out of the health check; `None`: there is none.
    pub health_timeout: Option<Duration>,
}

/// The keeper's state.
#[derive(Debug)]
pub struct KeeperMachine {
    policy: KeeperPolicy,
    campaigner: CampaignerState,
    deadline: Option<KillDeadline>,
    tree: CommandTree,
    running_hook: Option<RunningHook>,
    running_check: Option<RunningCheck>,
    /// Processes that an ended check may have left, while there is no tree that they could belong to.
    check_leftovers: Option<CheckLeftovers>,
    /// A stop or a kill was ordered while only a check or its leftovers were there; `Empty` answers it when they are
    /// gone.
    is_empty_awaited: bool,
    awaited_spawn: Option<AwaitedSpawn>,
    /// The run of the present tree.
    run: RunId,
    /// The run of the last start order: an `Empty` message confirms that order, whether or not it started a tree.
    last_ordered_run: RunId,
    /// The term after which `--on-ousted` must still run.
    pending_ousted_hook: Option<Term>,
    hold: Option<ClaimHold>,
    /// Signals for a main process that has not executed yet: before exec a signal would end it or be lost.
    pending_signals: Vec<Signal>,
    /// What has been done since the campaigner's death.
    final_report: FinalReport,
    /// Messages that the socket has not taken yet.
    outbox: VecDeque<FromKeeper>,
    actions: VecDeque<KeeperAction>,
    #[cfg(test)]
    mutation: Option<KeeperMutation>,
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

/// An empty queue whose memory has been written to, so that deciding to kill uses none that the kernel has not given (K3).
fn written_queue<T: Copy>(filler: T) -> VecDeque<T> {
    let mut queue = VecDeque::with_capacity(BUFFER);
    write_free_places(&mut queue, filler);
    queue
}

/// Allocates nothing.
fn write_free_places<T: Copy>(queue: &mut VecDeque<T>, filler: T) {
    let length = queue.len();
    queue.resize(queue.capacity(), filler);
    // Otherwise the compiler may leave out what nothing reads.
    std::hint::black_box(&mut *queue).truncate(length);
}

impl KeeperMachine {
    /// A keeper without a tree, whose campaigner is present.
    #[must_use]
    pub fn new(policy: KeeperPolicy) -> KeeperMachine {
        KeeperMachine {
            policy,
            campaigner: CampaignerState::Present,
            deadline: None,
            tree: CommandTree::Empty,
            running_hook: None,
            running_check: None,
            check_leftovers: None,
            is_empty_awaited: false,
            awaited_spawn: None,
            run: 0,
            last_ordered_run: 0,
            pending_ousted_hook: None,
            hold: None,
            pending_signals: Vec::new(),
            final_report: FinalReport::default(),
            outbox: written_queue(FromKeeper::Pong),
            actions: written_queue(KeeperAction::ScheduleFirst),
            #[cfg(test)]
            mutation: None,
        }
    }

    /// Writes to the memory of the queues, and changes nothing: a process shares its memory with a child that it has forked,
    /// and the first write to a part of it takes memory from the kernel (K3).
    pub fn hold(&mut self) {
        write_free_places(&mut self.outbox, FromKeeper::Pong);
        write_free_places(&mut self.actions, KeeperAction::ScheduleFirst);
    }

    /// Handles an event. [`KeeperMachine::next_action`] returns the actions that follow from it.
    pub fn handle(&mut self, now: Time, event: KeeperEvent) {
        if !matches!(event, KeeperEvent::RoundBegins) {
            // K3: what is decided below may be a kill. The deadlines find the room that the last event left.
            self.outbox.reserve(OUTBOX_ROOM);
        }
        match event {
            KeeperEvent::RoundBegins => self.enforce(now),
            KeeperEvent::Order(order) => self.on_order(now, order),
            KeeperEvent::CampaignerGone => self.on_campaigner_gone(now),
            KeeperEvent::Spawned { pid, init } => self.on_spawned(now, pid, init),
            KeeperEvent::NotSpawned { errno } => self.on_not_spawned(now, errno),
            KeeperEvent::Executed => self.on_executed(now),
            KeeperEvent::NotExecuted(why) => self.on_not_executed(why),
            KeeperEvent::ChildEnded { pid, end } => self.on_child_ended(now, pid, end),
            KeeperEvent::CheckEnds { not_executed } => self.on_check_ends(not_executed),
            KeeperEvent::OnlyCheckLeft { is_cgroup_populated } => self.on_only_check_left(is_cgroup_populated),
            KeeperEvent::NoChildren { is_cgroup_populated } => self.on_no_children(is_cgroup_populated),
            KeeperEvent::TreeKilled { is_complete, processes } => self.on_tree_killed(now, is_complete, processes),
            KeeperEvent::DescendantsListed(processes) => self.on_descendants_listed(processes),
            KeeperEvent::TerminalChecked { stopped_by } => self.on_terminal_checked(stopped_by),
            KeeperEvent::TerminalChanged(event) => self.outbox.push_back(FromKeeper::Terminal(event)),
            KeeperEvent::MessageSent => drop(self.outbox.pop_front()),
            KeeperEvent::ConnectionClosed => self.outbox.clear(),
            KeeperEvent::RoundEnds => self.finish(now),
        }
    }

    /// The next action to perform, in order.
    pub fn next_action(&mut self) -> Option<KeeperAction> {
        self.actions.pop_front()
    }

    /// The next message to the campaigner. It stays the next until [`KeeperEvent::MessageSent`].
    #[must_use]
    pub fn next_message(&self) -> Option<&FromKeeper> {
        self.outbox.front()
    }

    /// Whether orders are still read: not after the campaigner has dismissed the keeper, or is gone.
    #[must_use]
    pub fn has_campaigner(&self) -> bool {
        self.campaigner == CampaignerState::Present
    }

    /// Whether a process of a tree, of a background hook or of a health check may be left, so that the cgroups have to
    /// become empty.
    #[must_use]
    pub fn has_processes(&self) -> bool {
        !self.tree.is_empty() || self.running_hook.is_some() || self.has_check_processes()
    }

    /// The child whose exec status is awaited.
    #[must_use]
    pub fn starting_child(&self) -> Option<i32> {
        match &self.tree {
            CommandTree::Alive { main: MainProcess::Starting(pid), .. } => Some(*pid),
            CommandTree::Alive {
                main: MainProcess::Running(_) | MainProcess::Refused(_) | MainProcess::Ended | MainProcess::Nothing,
                ..
            }
            | CommandTree::Empty => None,
        }
    }

    /// The main process that may stop for the terminal: only the command uses it, no hook and no follower.
    #[must_use]
    pub fn process_at_terminal(&self) -> Option<i32> {
        match &self.tree {
            CommandTree::Alive { program: Some(Program::Command { .. }), main, .. } => main.pid(),
            CommandTree::Alive { .. } | CommandTree::Empty => None,
        }
    }

    /// The time of the next round if nothing else happens earlier. `foreground_poll_at` is the time at which a command
    /// that waits for the terminal wants to be looked at.
    #[must_use]
    pub fn wake_at(&self, foreground_poll_at: Time) -> Time {
        let hook_wake_at = self.running_hook.as_ref().map_or(Time::NEVER, |hook| hook.kill_at);
        let beside_wake_at = hook_wake_at.min(self.check_wake_at());
        let CommandTree::Alive { stop, until, .. } = &self.tree else {
            return self.hold_ends_at().min(beside_wake_at);
        };
        let deadline = match self.deadline.filter(|_| self.is_governed()) {
            Some(KillDeadline { expired: false, kill_by, .. }) => kill_by,
            Some(KillDeadline { expired: true, .. }) | None => Time::NEVER,
        };
        let stop = match *stop {
            Stop::NotRequested => foreground_poll_at.min(*until),
            Stop::Terminating { kill_at, .. } => kill_at.min(*until).min(stop.rest_at()),
            Stop::Killing { retry_at, .. } => retry_at,
        };
        deadline.min(stop).min(beside_wake_at)
    }

    fn act(&mut self, action: KeeperAction) {
        self.actions.push_back(action);
    }

    fn send(&mut self, message: FromKeeper) {
        self.outbox.push_back(message);
    }

    /// Decides whether all work is done, and whether the claim must be released.
    fn finish(&mut self, now: Time) {
        if !self.tree.is_empty() {
            return;
        }
        if self.campaigner != CampaignerState::Present && self.has_processes() && !self.has_mutation() {
            // A start that was refused after the campaigner had gone has left a hook or a check without a tree.
            self.take_over_leftovers();
            return self.kill(now);
        }
        let is_held = now < self.hold_ends_at();
        match self.campaigner {
            CampaignerState::Present => {}
            CampaignerState::Dismissed => self.act(KeeperAction::Exit { releases: false }),
            // The claim is kept until the hold ends.
            CampaignerState::Gone if is_held && !self.hold_exceeds_lease() => {}
            CampaignerState::Gone => {
                if !self.run_ousted_hook(now) {
                    self.act(KeeperAction::Exit { releases: !is_held });
                }
            }
        }
    }

    /// The time at which the hold must be checked: never while the campaigner is present, which checks it itself.
    fn hold_ends_at(&self) -> Time {
        match (self.hold, self.campaigner) {
            (Some(hold), CampaignerState::Gone) if !self.mutated(mutation::KeeperMutation::ForgetsHold) => hold.until,
            (_, CampaignerState::Present | CampaignerState::Dismissed) => Time::NEVER,
            (Some(_) | None, CampaignerState::Gone) => Time::BOOT,
        }
    }

    /// Without a campaigner the lease is not renewed: if the hold ends after the lease, no claim is left to release,
    /// and the hold must not be cut short.
    fn hold_exceeds_lease(&self) -> bool {
        let lease_ends = self.deadline.map_or(Time::NEVER, |deadline| deadline.kill_by);
        self.hold.is_some_and(|hold| hold.until > lease_ends)
    }
}

/// Queries and settings of the simulation.
#[cfg(test)]
impl KeeperMachine {
    /// The same machine with a broken rule.
    pub(crate) fn breaking(self, mutation: Option<KeeperMutation>) -> KeeperMachine {
        KeeperMachine { mutation, ..self }
    }

    /// The term and the time of the kill deadline.
    pub(crate) fn deadline(&self) -> Option<(Term, Time)> {
        self.deadline.map(|deadline| (deadline.term, deadline.kill_by))
    }

    /// The state without its times, for counting distinct states.
    pub(crate) fn hash_state(&self, now: Time, state: &mut impl std::hash::Hasher) {
        use std::hash::Hash;
        use std::mem::discriminant;

        let deadline = self.deadline.map(|deadline| (deadline.expired, now >= deadline.kill_by));
        (discriminant(&self.campaigner), deadline, self.running_hook.is_some(), self.awaited_spawn.is_some())
            .hash(state);
        (self.running_check.is_some(), self.check_leftovers.is_some()).hash(state);
        (self.last_ordered_run == self.run, self.pending_ousted_hook.is_some(), self.hold.is_some()).hash(state);
        (self.pending_signals.len(), self.outbox.len(), self.actions.len()).hash(state);
        if let CommandTree::Alive { program, main, stop, init, .. } = &self.tree {
            program.map(|program| discriminant(&program)).hash(state);
            (discriminant(main), discriminant(stop), init.is_some()).hash(state);
        }
    }

    pub(crate) fn stop_to(&self) -> StopTo {
        self.policy.stop_to
    }

    pub(crate) fn has_actions(&self) -> bool {
        !self.actions.is_empty()
    }

    pub(crate) fn has_tree(&self) -> bool {
        !self.tree.is_empty()
    }

    /// Whether the tree is that of a run without a command.
    pub(crate) fn runs_nothing(&self) -> bool {
        matches!(self.tree, CommandTree::Alive { main: MainProcess::Nothing, .. })
    }

    /// The run of the present tree, or of the last one.
    pub(crate) fn run(&self) -> RunId {
        self.run
    }
}
