//! Nothing of ours runs: the boundary, or our place in the queue, is given back, within a bounded time.

use super::sitting_out::become_sitting_out;
use super::standing::{Setback, become_resting, become_standing};
use super::{Input, State, become_ended};
use std::time::Duration;

use crate::Core;
use crate::event::{Answer, Outcome, Report, Term};
use crate::sabotage::Sabotage;
use crate::time::Time;

#[derive(Debug)]
pub(crate) struct Releasing {
    pub(super) term: Option<Term>,
    pub(super) ask_at: Time,
    /// Bounded: after that the lease runs out by itself.
    pub(super) until: Time,
    pub(super) then: Then,
    /// Somebody asked us to stop while we were at it.
    asked: bool,
}

#[derive(Debug)]
pub(super) enum Then {
    /// With what came of the last attempt, if that was none that led to leadership.
    Stand(Option<Setback>),
    /// The store gave a term that is too low: again after so long (S1).
    StandAfter(Duration),
    /// Not before so long.
    SitOut(Duration),
    End(Outcome),
}

/// Only with an empty tree: nothing of ours runs, so the boundary may go to somebody else (2.3).
pub(super) fn become_releasing(core: &mut Core, now: Time, term: Option<Term>, then: Then) -> State {
    core.requests.abandon();
    core.keeper.rest();
    core.end_hold(now);
    let until = now + 3 * core.timing.request_timeout();
    Releasing { term, ask_at: now, until, then, asked: false }.next(core, now, Input::Time)
}

impl Releasing {
    pub(super) fn next(mut self, core: &mut Core, now: Time, input: Input) -> State {
        match input {
            Input::Time => {
                if now >= self.until {
                    return self.finish(core, now, false);
                }
                if core.requests.is_idle() && now >= self.ask_at {
                    core.release(now);
                }
            }
            Input::Answer(Answer::Release(true)) => return self.finish(core, now, true),
            Input::Answer(Answer::Release(false)) => self.ask_at = now + core.backoff(),
            Input::Stop(signal) => match self.then {
                Then::Stand(_) | Then::StandAfter(_) | Then::SitOut(_) => {
                    self.then = Then::End(Outcome::Stopped(signal));
                }
                // A command that ended just before the stop that was meant for it: the others are not to wait for a lease
                // because of that.
                Then::End(Outcome::Command(_)) if !self.asked => self.asked = true,
                // The second time they mean at once.
                Then::End(_) => return self.finish(core, now, false),
            },
            Input::KeeperDied => {
                core.report(Report::KeeperDied);
                self.then = Then::End(Outcome::KeeperDied);
            }
            Input::Answer(Answer::Campaign(_) | Answer::Renew(_))
            | Input::Hint
            | Input::Leader(_)
            | Input::Ousted
            | Input::Started(_)
            | Input::Idle
            | Input::Cleared
            | Input::NotStarted(_)
            | Input::Exited(_)
            | Input::Expired
            | Input::Empty
            | Input::Swept { .. }
            | Input::Forward(_)
            | Input::Ask
            | Input::Resign => {}
        }
        State::Releasing(self)
    }

    fn finish(self, core: &mut Core, now: Time, released: bool) -> State {
        core.petitions.release_ended(released);
        if let Some(term) = self.term {
            core.report(if released { Report::Released { term } } else { Report::NotReleased { term } });
        }
        self.then.follow(core, now)
    }
}

impl Then {
    pub(super) fn follow(self, core: &mut Core, now: Time) -> State {
        match self {
            // 2.3: a follower that was killed and is still there.
            Then::Stand(setback) if core.is_held_up(now) => become_sitting_out(core, now, setback),
            Then::Stand(setback) => {
                let ask_at = now + core.backoff();
                become_resting(core, ask_at, setback)
            }
            Then::StandAfter(rest) => become_resting(core, now + rest, Some(Setback::Behind)),
            Then::SitOut(_) if core.breaks(Sabotage::NoSittingOut) => become_standing(core, now, None),
            Then::SitOut(duration) => become_sitting_out(core, now + duration, None),
            Then::End(outcome) => become_ended(core, outcome),
        }
    }
}
