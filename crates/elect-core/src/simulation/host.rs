//! One candidate on a host of its own: campaigner, keeper, command, clock, and what lies in its queues.

use std::collections::VecDeque;
use std::time::Duration;

use super::super::time::Time;
use super::super::{Candidate, Phase};
use super::clock::Clock;
use super::command::{SimTier, Tree};
use super::eligibility_check::EligibilityCheck;
use super::follower_check::FollowerCheck;
use super::health_check::CheckOrders;
use super::invariants::ReferenceState;
use super::keeper_shell::{KeeperProcess, ModelMessage, Strike};
use super::request_check::RequestCheck;
use super::restart_check::RestartCheck;
use super::store::{Client, Reply};
use super::wait_check::WaitCheck;
use crate::{Action, Attempt, Event, FromKeeper, Signal, Term};

/// Of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProcessState {
    Running {
        since: Duration,
    },
    /// SIGSTOP.
    Stopped,
    Dead,
}

impl ProcessState {
    pub(super) fn is_running(self) -> bool {
        matches!(self, ProcessState::Running { .. })
    }

    /// Since when it has been able to act; never, if it is not.
    pub(super) fn since(self) -> Duration {
        match self {
            ProcessState::Running { since } => since,
            ProcessState::Stopped | ProcessState::Dead => Duration::MAX,
        }
    }
}

/// An event that reaches a campaigner from outside.
#[derive(Debug, Clone, Copy)]
pub(super) enum Delivery {
    Signal(Event),
    Keeper(FromKeeper),
    KeeperDied,
    Swept {
        empty: bool,
    },
    Reply {
        attempt: Attempt,
        leg: u8,
        reply: Reply,
    },
    Hint,
    Ousted(Term),
    /// The answer to an observation.
    Observed {
        attempt: Attempt,
        answered: bool,
    },
}

impl Delivery {
    /// The order in which the driver looks at its queues.
    pub(super) fn rank(&self) -> u8 {
        match self {
            Delivery::Signal(_) => 0,
            Delivery::Keeper(_) | Delivery::KeeperDied | Delivery::Swept { .. } => 1,
            Delivery::Reply { .. } | Delivery::Hint | Delivery::Ousted(_) | Delivery::Observed { .. } => 2,
        }
    }
}

#[derive(Debug)]
pub(super) struct SimHost {
    pub name: char,
    pub clock: Clock,
    pub candidate: Candidate,
    pub campaigner: ProcessState,
    /// The events that arrived while the campaigner was stopped.
    pub inbox: Vec<Delivery>,
    /// The actions that it has not performed yet, each with the time of its decision.
    pub unperformed: VecDeque<(Time, Action)>,
    /// A fault that strikes it after so many actions.
    pub strike: Option<Strike>,
    /// Messages to the keeper that found no room.
    pub outbox: VecDeque<ModelMessage>,
    /// The number of messages that the socket has room for in each direction.
    pub socket_room: usize,
    pub keeper: KeeperProcess,
    /// The processes of the last program that the keeper forked.
    pub tree: Tree,
    /// Those of its background hooks.
    pub hooks: Vec<Tree>,
    /// Those of its health checks.
    pub checks: Vec<Tree>,
    pub check_orders: CheckOrders,
    pub next_pid: i32,
    pub tier: SimTier,
    /// Children that elect inherited when it was executed: the campaigner's, and never killed.
    pub preexisting: Tree,
    /// The processes that the campaigner excludes from a sweep.
    pub excluded: Vec<i32>,
    pub has_reaped_keeper: bool,
    /// When the terminal stopped the command last.
    pub suspended_at: Duration,
    /// Signals that were forwarded to a program before its exec.
    pub early_signals: Vec<Signal>,
    /// Until when a process that is no descendant is in the command's cgroup.
    pub leaf_until: Option<Duration>,
    /// Since when no tree runs beside the background hook, in the keeper's eyes.
    pub alone_since: Duration,
    /// The next death that is planned.
    pub death_at: Option<Duration>,
    /// Whether the campaigner has ended without dismissing the keeper.
    pub campaigner_was_killed: bool,
    pub client: Client,
    pub stop_timeout: Duration,
    pub wake: (u64, Time),
    /// How often in a row it has asked to be woken at once.
    pub immediate_wakeups: u32,
    /// When the last message on its way over the socket arrives: it keeps their order.
    pub to_keeper_at: Duration,
    pub from_keeper_at: Duration,
    /// How many cuts there are in the network from here, and to here.
    pub cuts: (u32, u32),
    /// The latest of its requests that has reached the store.
    pub last_arrived: Attempt,
    pub reference: ReferenceState,
    pub wait_check: WaitCheck,
    pub restart_check: RestartCheck,
    pub follower_check: FollowerCheck,
    pub request_check: RequestCheck,
    pub eligibility_check: EligibilityCheck,
}

impl SimHost {
    /// Whether anything of it still runs.
    pub(super) fn is_over(&self) -> bool {
        self.campaigner == ProcessState::Dead && self.keeper.state == ProcessState::Dead && !self.has_descendants()
    }

    /// Whether a process lives that the keeper, or the campaigner after it, has to kill.
    pub(super) fn has_descendants(&self) -> bool {
        let beside = self.hooks.iter().chain(&self.checks);
        self.tree.has_processes() || self.leaf_until.is_some() || beside.into_iter().any(Tree::has_processes)
    }

    /// The processes of the program, of the background hooks and of the health checks.
    pub(super) fn trees(&mut self) -> impl Iterator<Item = &mut Tree> {
        std::iter::once(&mut self.tree).chain(&mut self.hooks).chain(&mut self.checks)
    }

    /// The process id of a new PID namespace's init, in that tier.
    pub(super) fn new_init(&mut self) -> Option<i32> {
        (self.tier == SimTier::Pidns).then(|| {
            self.next_pid += 1;
            self.next_pid
        })
    }

    /// The messages of the keeper that a stopped campaigner has not read.
    pub(super) fn unread_keeper_messages(&self) -> usize {
        self.inbox.iter().filter(|letter| matches!(letter, Delivery::Keeper(_))).count()
    }

    /// Whether the campaigner cannot act although it has not ended in good order.
    pub(super) fn campaigner_is_out_of_action(&self) -> bool {
        match self.campaigner {
            ProcessState::Running { .. } => false,
            ProcessState::Stopped => true,
            ProcessState::Dead => self.campaigner_was_killed,
        }
    }

    pub(super) fn leads(&self) -> bool {
        self.campaigner.is_running() && self.candidate.phase() == Phase::Leading && self.tree.is_alive()
    }
}
