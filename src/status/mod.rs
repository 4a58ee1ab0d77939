//! The status of a candidate and its boundary, for systemd and over HTTP.
//!
//! ```text
//!                                                 ┌── systemd (told by the driver's own loop)
//! driver ── StatusPublisher ── StatusSnapshot ┤
//!                                                 └── http (asked over HTTP)
//! ```
//!
//! Nothing here decides anything, and nothing here is waited for: what is shown is what the driver last wrote.

mod change_document;
mod changes;
mod document;
mod hook_runs;
#[cfg(feature = "listen")]
mod metrics;
#[cfg(not(feature = "listen"))]
#[path = "metrics_disabled.rs"]
mod metrics;
pub(crate) mod snapshot;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use crate::log;
use crate::store::worker::StoreNote;
use crate::store::{Identity, Observation, StoreError};
use crate::systemd::{ServiceStatus, SystemdNotifier};
pub use change_document::ChangeDocument;
pub use document::StatusDocument;
use elect_core::{Action, Answer, Candidate, FromKeeper, Notice, Phase, Renewed, Term, Time};
use elect_keeper::clock;
use hook_runs::{HookRun, HookRuns};
use metrics::Metrics;
use snapshot::RunState;
pub use snapshot::StatusSnapshot;

/// The driver's side of everything that shows this candidate to others.
#[derive(Debug)]
pub struct StatusPublisher {
    pub(crate) shared: Rc<SharedStatus>,
    systemd: SystemdNotifier,
    /// The leader that was last seen, which may be this candidate: a change is counted once.
    last_leader: Option<(String, Option<Term>)>,
    last_started_term: Option<Term>,
    stopping_since: Option<Time>,
    hook_runs: HookRuns,
    /// Whether the store has answered or this candidate was elected: before that, it is not known who leads.
    has_seen: bool,
}

/// The state that can be read at any time. All of it lives on one thread, and no borrow is kept across an await point.
#[derive(Debug)]
pub(crate) struct SharedStatus {
    pub(crate) snapshot: RefCell<StatusSnapshot>,
    pub(crate) metrics: Metrics,
}

/// An event that is counted.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(not(feature = "listen"), expect(dead_code, reason = "counted for the pages"))]
pub(crate) enum MetricEvent {
    Renewal(Renewed),
    /// The rest of the lease that a renewal has replaced.
    LeaseLeft(Duration),
    LeaderChanged,
    Restarted,
    Stopped(Duration),
    StoreError(StoreErrorKind),
    Hook(HookRun),
}

/// What a request to the store has failed of, as a label.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(not(feature = "listen"), expect(dead_code, reason = "counted for the pages"))]
pub(crate) struct StoreErrorKind(pub(crate) &'static str);

impl StoreErrorKind {
    const UNAVAILABLE: &'static str = "unavailable";
    const REFUSED: &'static str = "refused";
    const OBSTACLE: &'static str = "obstacle";
    /// Every kind that a running candidate meets.
    #[cfg(feature = "listen")]
    pub(crate) const ALL: [&'static str; 3] =
        [StoreErrorKind::UNAVAILABLE, StoreErrorKind::REFUSED, StoreErrorKind::OBSTACLE];

    fn of(error: &StoreError) -> StoreErrorKind {
        StoreErrorKind(match error {
            // A renewal or a release has to wait for a connection.
            StoreError::Unavailable(_) | StoreError::Connecting(_) => StoreErrorKind::UNAVAILABLE,
            StoreError::Refused(_) | StoreError::Misused(_) => StoreErrorKind::REFUSED,
            StoreError::Obstacle(_) => StoreErrorKind::OBSTACLE,
        })
    }
}

impl StatusPublisher {
    /// Shows a candidate that has not done anything yet.
    #[must_use]
    pub fn new(snapshot: StatusSnapshot) -> StatusPublisher {
        let shared = SharedStatus {
            metrics: Metrics::new(snapshot.boundary(), snapshot.store()),
            snapshot: RefCell::new(snapshot),
        };
        StatusPublisher {
            shared: Rc::new(shared),
            systemd: SystemdNotifier::from_environment(),
            last_leader: None,
            last_started_term: None,
            stopping_since: None,
            hook_runs: HookRuns::default(),
            has_seen: false,
        }
    }

    /// Notes a transition of the election.
    pub fn notice(&mut self, now: Time, notice: &Notice) {
        match notice {
            Notice::Elected { term } => {
                self.shared.snapshot.borrow_mut().elected(now, *term, clock::wall_millis());
                self.has_seen = true;
                self.note_leader(now);
            }
            Notice::HookFailed { hook, failure } => {
                let run = self.hook_runs.failed(*hook, *failure);
                self.count(MetricEvent::Hook(run));
            }
            Notice::Started { term, pid } => {
                self.shared.snapshot.borrow_mut().set_pid(Some(*pid));
                if self.last_started_term.replace(*term) == Some(*term) {
                    self.count(MetricEvent::Restarted);
                }
            }
            Notice::FollowerStarted { pid } => self.shared.snapshot.borrow_mut().set_pid(Some(*pid)),
            Notice::CommandEnded { .. } | Notice::FollowerEnded { .. } => {
                self.shared.snapshot.borrow_mut().set_pid(None);
            }
            Notice::Won { .. }
            | Notice::TermTooLow { .. }
            | Notice::Stopping { .. }
            | Notice::Restarting { .. }
            | Notice::LeadingIdle { .. }
            | Notice::LostAtRest { .. }
            | Notice::GivenUp { .. }
            | Notice::NotAccepted { .. }
            | Notice::FollowerCannotStart(_)
            | Notice::FollowerStopping { .. }
            | Notice::FollowerUnconfirmed
            | Notice::CampaignsAgain
            | Notice::Drained
            | Notice::Undrained
            | Notice::Healthy
            | Notice::Unhealthy { .. }
            | Notice::LongUnhealthy { .. }
            | Notice::Unconfirmed { .. }
            | Notice::Released { .. }
            | Notice::NotReleased { .. }
            | Notice::Unusable(_)
            | Notice::NotElected
            | Notice::Unavailable
            | Notice::KeeperSilent
            | Notice::LeftBehind { .. }
            | Notice::StopTimedOut { .. }
            | Notice::StopShortened { .. }
            | Notice::Killing { .. }
            | Notice::FollowerKilling
            | Notice::KeeperDied => {}
        }
    }

    /// Notes the leader that the store reports.
    pub fn set_observation(&mut self, now: Time, observation: &Observation) {
        self.shared.snapshot.borrow_mut().set_observation(now, observation);
        self.has_seen = true;
        self.note_leader(now);
    }

    /// Notes an action of the election, before it is performed.
    pub fn action(&mut self, action: &Action) {
        if let Action::Start { program, run } = action {
            self.hook_runs.starting(*program, *run);
        } else if let Action::StartBackgroundHook { background_hook, .. } = action {
            self.hook_runs.starting_beside(*background_hook);
        }
    }

    /// Notes a message of the keeper; to be called before the election handles it.
    pub fn keeper_message(&mut self, message: &FromKeeper) {
        if let Some(run) = self.hook_runs.ended_well(message) {
            self.count(MetricEvent::Hook(run));
        }
    }

    /// Notes a request to the store.
    pub fn request_sent(&mut self, now: Time) {
        self.shared.snapshot.borrow_mut().request_sent(now);
    }

    /// Notes an answer of the store; to be called before the election handles it.
    pub fn request_answered(&mut self, now: Time, answer: &Answer, note: &StoreNote) {
        if let StoreNote::Error(error) = note {
            self.count(MetricEvent::StoreError(StoreErrorKind::of(error)));
        }
        self.shared.snapshot.borrow_mut().request_answered();
        if let Answer::Renew(renewed) = answer {
            self.count(MetricEvent::Renewal(*renewed));
            let left = self.shared.snapshot.borrow().lease_left(now);
            if let (Renewed::Credited { .. }, Some(left)) = (renewed, left) {
                self.count(MetricEvent::LeaseLeft(left));
            }
        }
    }

    /// Notes the candidate's new name and address.
    pub fn rename(&mut self, identity: &Identity) {
        log::rename_origin(&identity.name);
        self.shared.snapshot.borrow_mut().rename(identity);
        self.note_leader(clock::now());
    }

    /// Notes that elect was asked to stop.
    pub fn begin_shutdown(&mut self) {
        self.shared.snapshot.borrow_mut().begin_shutdown();
    }

    /// Notes the state of the election, after each event.
    pub fn update(&mut self, now: Time, candidate: &Candidate) {
        let phase = candidate.phase();
        let run_state = RunState { has_follower: candidate.has_a_follower(), has_begun: candidate.has_begun() };
        let mut snapshot = self.shared.snapshot.borrow_mut();
        snapshot.update(phase, candidate.term(), candidate.lease(), run_state);
        snapshot.set_ineligible(candidate.ineligible_reasons());
        drop(snapshot);
        self.note_leader(now);
        if phase == Phase::Stopping {
            self.stopping_since.get_or_insert(now);
        } else if let Some(since) = self.stopping_since.take() {
            self.count(MetricEvent::Stopped(now.since(since)));
        }
    }

    /// Whether the leader command can be talked to, as `/leader` shows it.
    #[must_use]
    pub fn is_serving(&self, now: Time) -> bool {
        self.shared.snapshot.borrow().is_serving(now)
    }

    /// Tells systemd what is new or due. The driver's loop calls it each time before it waits, so that a loop that
    /// stalls is noticed. Returns when to call again at the latest.
    pub fn flush(&mut self, now: Time, wakes_at: Time) -> Time {
        let mut snapshot = self.shared.snapshot.borrow_mut();
        snapshot.set_wakeup(wakes_at);
        let status = ServiceStatus {
            text: snapshot.to_string(),
            is_stopping: snapshot.is_shutting_down(),
            is_alive: snapshot.is_alive(now),
        };
        self.systemd.notify(now, status);
        self.systemd.wake_at()
    }

    fn note_leader(&mut self, now: Time) {
        if self.has_seen {
            self.shared.snapshot.borrow_mut().note_change(now, clock::wall_millis());
        }
        let snapshot = self.shared.snapshot.borrow();
        let seen = snapshot.leader().map(|(id, term)| (id.to_owned(), term));
        drop(snapshot);
        if seen.is_some() && seen != self.last_leader {
            self.last_leader = seen;
            self.count(MetricEvent::LeaderChanged);
        }
    }

    fn count(&self, event: MetricEvent) {
        self.shared.metrics.count(event);
    }
}
