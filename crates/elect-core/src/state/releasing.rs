//! Nothing of ours runs: the boundary, or our place in the queue, is given back, within a bounded time.

use super::campaigning::{CampaignFailure, become_campaigning, become_resting};
use super::cooling_down::become_cooling_down;
use super::{Input, State, become_ended};
use std::time::Duration;

use crate::Context;
use crate::event::{Answer, Notice, Outcome, Term};
use crate::mutation::Mutation;
use crate::time::Time;

#[derive(Debug)]
pub(crate) struct Releasing {
    pub(super) term: Option<Term>,
    pub(super) ask_at: Time,
    /// Bounded: after that the lease runs out by itself.
    pub(super) until: Time,
    pub(super) then: AfterRelease,
    /// Somebody asked us to stop while we were at it.
    asked: bool,
}

#[derive(Debug)]
pub(super) enum AfterRelease {
    /// With what came of the last attempt, if that was none that led to leadership.
    Campaign(Option<CampaignFailure>),
    /// The store gave a term that is too low: again after so long (S1).
    CampaignAfter(Duration),
    /// Not before so long.
    CoolDown(Duration),
    Exit(Outcome),
}

/// Only with an empty tree: nothing of ours runs, so the boundary may go to somebody else (2.3).
pub(super) fn become_releasing(context: &mut Context, now: Time, term: Option<Term>, then: AfterRelease) -> State {
    context.store_requests.abandon();
    context.keeper.reset();
    context.end_hold(now);
    let until = now + 3 * context.timing.request_timeout();
    Releasing { term, ask_at: now, until, then, asked: false }.next(context, now, Input::Time)
}

impl Releasing {
    pub(super) fn next(mut self, context: &mut Context, now: Time, input: Input) -> State {
        match input {
            Input::Time => {
                if now >= self.until {
                    return self.finish(context, now, false);
                }
                if context.store_requests.is_idle() && now >= self.ask_at {
                    context.release(now);
                }
            }
            Input::Answer(Answer::Release(true)) => return self.finish(context, now, true),
            Input::Answer(Answer::Release(false)) => self.ask_at = now + context.backoff(),
            Input::Stop(signal) => match self.then {
                AfterRelease::Campaign(_) | AfterRelease::CampaignAfter(_) | AfterRelease::CoolDown(_) => {
                    self.then = AfterRelease::Exit(Outcome::Stopped(signal));
                }
                // A command that ended just before the stop that was meant for it: the others are not to wait for a lease
                // because of that.
                AfterRelease::Exit(Outcome::Command(_)) if !self.asked => self.asked = true,
                // The second time they mean at once.
                AfterRelease::Exit(_) => return self.finish(context, now, false),
            },
            Input::KeeperDied => {
                context.notice(Notice::KeeperDied);
                self.then = AfterRelease::Exit(Outcome::KeeperDied);
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

    fn finish(self, context: &mut Context, now: Time, released: bool) -> State {
        context.pending_requests.release_ended(released);
        if let Some(term) = self.term {
            context.notice(if released { Notice::Released { term } } else { Notice::NotReleased { term } });
        }
        self.then.follow(context, now)
    }
}

impl AfterRelease {
    pub(super) fn follow(self, context: &mut Context, now: Time) -> State {
        match self {
            // 2.3: a follower that was killed and is still there.
            AfterRelease::Campaign(setback) if context.is_held_up(now) => become_cooling_down(context, now, setback),
            AfterRelease::Campaign(setback) => {
                let ask_at = now + context.backoff();
                become_resting(context, ask_at, setback)
            }
            AfterRelease::CampaignAfter(rest) => become_resting(context, now + rest, Some(CampaignFailure::NotElected)),
            AfterRelease::CoolDown(_) if context.mutated(Mutation::NoSittingOut) => {
                become_campaigning(context, now, None)
            }
            AfterRelease::CoolDown(duration) => become_cooling_down(context, now + duration, None),
            AfterRelease::Exit(outcome) => become_ended(context, outcome),
        }
    }
}
