//! What a candidate and its boundary look like from outside.
//!
//! ```text
//!                           ┌── systemd (told by the driver's own loop)
//! driver ── Surface ── View ┤
//!                           └── pages ── listen (asked over HTTP)
//! ```
//!
//! Nothing here decides anything, and nothing here is waited for: what is shown is what the driver last wrote.

pub mod control;
#[cfg(feature = "listen")]
pub mod listen;
#[cfg(not(feature = "listen"))]
#[path = "no_listen.rs"]
mod listen;
#[cfg(feature = "listen")]
mod metrics;
pub mod occurrence;
#[cfg(feature = "listen")]
mod pages;
pub mod status;
mod systemd;
mod view;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use crate::clock;
use crate::election::{Answer, Candidate, Phase, Renewed, Report, Term, Time};
use crate::store::{Identity, Observation};
#[cfg(not(feature = "listen"))]
use listen::Metrics;
pub use listen::Pages;
#[cfg(feature = "listen")]
use metrics::Metrics;
use systemd::Systemd;
use view::Runs;
pub use view::View;

/// Everything that shows this candidate to others; the driver's side of it.
#[derive(Debug)]
pub struct Surface {
    shown: Rc<Shown>,
    systemd: Systemd,
    /// The leader that was last seen, or that we were: a change is counted once.
    known: Option<(String, Option<Term>)>,
    started_in: Option<Term>,
    stopping_since: Option<Time>,
}

/// What can be asked for at any time. All of it lives on one thread, and nobody keeps a borrow across an await point.
#[derive(Debug)]
struct Shown {
    view: RefCell<View>,
    metrics: Metrics,
}

/// What is counted.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(not(feature = "listen"), expect(dead_code, reason = "counted for the pages"))]
enum Fact {
    Renewal(Renewed),
    /// What was left of the lease that a renewal has replaced.
    LeaseLeft(Duration),
    LeaderChanged,
    Restarted,
    Stopped(Duration),
}

impl Surface {
    /// Shows a candidate that has not done anything yet.
    #[must_use]
    pub fn new(view: View) -> Surface {
        let shown = Shown { metrics: Metrics::new(view.boundary(), view.store()), view: RefCell::new(view) };
        Surface {
            shown: Rc::new(shown),
            systemd: Systemd::from_environment(),
            known: None,
            started_in: None,
            stopping_since: None,
        }
    }

    /// A transition of the election.
    pub fn report(&mut self, now: Time, report: &Report) {
        match report {
            Report::Elected { term } => {
                self.shown.view.borrow_mut().elected(now, *term, clock::wall_millis());
                self.leader_may_have_changed();
            }
            Report::Started { term, pid } => {
                self.shown.view.borrow_mut().runs(Some(*pid));
                if self.started_in.replace(*term) == Some(*term) {
                    self.count(Fact::Restarted);
                }
            }
            Report::FollowerStarted { pid } => self.shown.view.borrow_mut().runs(Some(*pid)),
            Report::CommandEnded { .. } | Report::FollowerEnded { .. } => self.shown.view.borrow_mut().runs(None),
            Report::Won { .. }
            | Report::TermTooLow { .. }
            | Report::Stopping { .. }
            | Report::Restarting { .. }
            | Report::Holding { .. }
            | Report::LostAtRest { .. }
            | Report::GivenUp { .. }
            | Report::NotAccepted { .. }
            | Report::HookFailed { .. }
            | Report::FollowerCannotStart(_)
            | Report::FollowerStopping { .. }
            | Report::FollowerUnconfirmed
            | Report::StandsAgain
            | Report::Unconfirmed { .. }
            | Report::Released { .. }
            | Report::NotReleased { .. }
            | Report::Unusable(_)
            | Report::NotElected
            | Report::Unavailable
            | Report::KeeperSilent
            | Report::KeeperDied => {}
        }
    }

    /// Who leads, as far as the store can tell.
    pub fn sighted(&mut self, now: Time, sighting: &Observation) {
        self.shown.view.borrow_mut().sighted(now, sighting);
        self.leader_may_have_changed();
    }

    /// The store has been asked something.
    pub fn asked(&mut self, now: Time) {
        self.shown.view.borrow_mut().asked(now);
    }

    /// It has answered; to be said before the election hears of it.
    pub fn answered(&mut self, now: Time, answer: &Answer) {
        self.shown.view.borrow_mut().answered();
        if let Answer::Renew(renewed) = answer {
            self.count(Fact::Renewal(*renewed));
            let left = self.shown.view.borrow().lease_left(now);
            if let (Renewed::Credited { .. }, Some(left)) = (renewed, left) {
                self.count(Fact::LeaseLeft(left));
            }
        }
    }

    /// We are called this from now on.
    pub fn rename(&mut self, identity: &Identity) {
        self.shown.view.borrow_mut().rename(identity);
    }

    /// Somebody wants elect to stop.
    pub fn leave(&mut self) {
        self.shown.view.borrow_mut().leave();
    }

    /// Where the election is, after each event.
    pub fn settle(&mut self, now: Time, candidate: &Candidate) {
        let phase = candidate.phase();
        let runs = Runs { follows: candidate.has_a_follower(), has_begun: candidate.has_begun() };
        self.shown.view.borrow_mut().settle(phase, candidate.term(), candidate.lease(), runs);
        if phase == Phase::Stopping {
            self.stopping_since.get_or_insert(now);
        } else if let Some(since) = self.stopping_since.take() {
            self.count(Fact::Stopped(now.since(since)));
        }
    }

    /// Tells systemd what is new or due. The driver's loop calls it each time before it waits, so that a loop that stalls is
    /// noticed. Returns when to call again at the latest.
    pub fn before_waiting(&mut self, now: Time, wakes_at: Time) -> Time {
        let mut view = self.shown.view.borrow_mut();
        view.sleep_until(wakes_at);
        self.systemd.tell(now, &view);
        self.systemd.wake_at()
    }

    fn leader_may_have_changed(&mut self) {
        let view = self.shown.view.borrow();
        let seen = view.leader().map(|(id, term)| (id.to_owned(), term));
        drop(view);
        if seen.is_some() && seen != self.known {
            self.known = seen;
            self.count(Fact::LeaderChanged);
        }
    }

    fn count(&self, fact: Fact) {
        self.shown.metrics.count(fact);
    }
}
