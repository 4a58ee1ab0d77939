//! One candidate on a host of its own: campaigner, keeper, command, clock, and what lies in its queues.

use std::collections::VecDeque;
use std::time::Duration;

use super::super::time::Time;
use super::super::{Candidate, Phase};
use super::clock::Clock;
use super::command::Tree;
use super::follower_check::FollowerCheck;
use super::invariants::ReferenceState;
use super::request_check::RequestCheck;
use super::restart_check::RestartCheck;
use super::store::{Client, Reply};
use super::wait_check::WaitCheck;
use crate::{Attempt, Event, FromKeeper, Program, RunId, Term};

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

/// What reaches a campaigner from outside.
#[derive(Debug, Clone, Copy)]
pub(super) enum Delivery {
    Signal(Event),
    Keeper(FromKeeper),
    KeeperDied,
    Swept { empty: bool },
    Reply { attempt: Attempt, leg: u8, reply: Reply },
    Hint,
    Ousted(Term),
}

impl Delivery {
    /// The order in which the driver looks at its queues.
    pub(super) fn rank(&self) -> u8 {
        match self {
            Delivery::Signal(_) => 0,
            Delivery::Keeper(_) | Delivery::KeeperDied | Delivery::Swept { .. } => 1,
            Delivery::Reply { .. } | Delivery::Hint | Delivery::Ousted(_) => 2,
        }
    }
}

/// What the campaigner says to its keeper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ModelMessage {
    Arm {
        term: Term,
        kill_by: Time,
    },
    /// The same, out of the past.
    Stray {
        term: Term,
        kill_by: Time,
    },
    Start {
        program: Program,
        run: RunId,
    },
    Stop {
        kill_at: Time,
    },
    Kill,
    Ping,
    EndHold,
    /// The campaigner ends in good order.
    Dismiss,
    /// End of file: the campaigner is gone.
    End,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct ModelDeadline {
    pub term: Term,
    pub kill_by: Time,
    pub expired: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CampaignerModel {
    Present,
    Dismissed,
    Gone,
}

#[derive(Debug)]
pub(super) struct KeeperModel {
    pub state: ProcessState,
    pub inbox: VecDeque<ModelMessage>,
    pub deadline: Option<ModelDeadline>,
    pub kill_at: Time,
    /// When a hook has had its time.
    pub until: Time,
    /// The term after which the hook is still to run.
    pub ousted_due: Option<Term>,
    pub run: RunId,
    /// A start that was refused, of which something is still left; and whether a stop has been asked for since.
    pub refused: Option<(RunId, bool)>,
    /// Of which term, and until when, the claim is kept should the campaigner die.
    pub hold: Option<(Term, Time)>,
    pub campaigner: CampaignerModel,
    pub end_reported: bool,
    pub empty_reported: bool,
    /// When the timer is set to, and which setting that is.
    pub due: Time,
    pub stopped_for_good: bool,
    pub timer: u64,
    /// Deadlines of the past, one of which may stray in again.
    pub heard: Vec<(Term, Time)>,
}

#[derive(Debug)]
pub(super) struct SimHost {
    pub name: char,
    pub clock: Clock,
    pub candidate: Candidate,
    pub campaigner: ProcessState,
    /// What came while the campaigner was stopped.
    pub inbox: Vec<Delivery>,
    pub keeper: KeeperModel,
    pub tree: Tree,
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
}

impl SimHost {
    /// Whether anything of it still runs.
    pub(super) fn is_over(&self) -> bool {
        self.campaigner == ProcessState::Dead && self.keeper.state == ProcessState::Dead && !self.tree.is_alive()
    }

    pub(super) fn leads(&self) -> bool {
        self.campaigner.is_running() && self.candidate.phase() == Phase::Leading && self.tree.is_alive()
    }
}

impl KeeperModel {
    pub(super) fn new(now: Duration) -> KeeperModel {
        KeeperModel {
            state: ProcessState::Running { since: now },
            inbox: VecDeque::new(),
            deadline: None,
            kill_at: Time::NEVER,
            until: Time::NEVER,
            ousted_due: None,
            run: 0,
            refused: None,
            hold: None,
            campaigner: CampaignerModel::Present,
            end_reported: true,
            empty_reported: true,
            due: Time::NEVER,
            stopped_for_good: false,
            timer: 0,
            heard: Vec::new(),
        }
    }
}
