//! The store says that we won. Nothing may run before a renewal, sent after that word, has been credited.

use super::leading::become_leading;
use super::releasing::{Then, become_releasing};
use super::standing::{Setback, give_up};
use super::{Input, State, VERIFY_WITHIN, credit};
use crate::election::Core;
use crate::election::event::{Answer, Outcome, Renewed, Report, Term};
use crate::election::sabotage::Sabotage;
use crate::election::time::Time;

#[derive(Debug)]
pub(in crate::election) struct Verifying {
    pub(super) term: Term,
    pub(super) renew_at: Time,
    /// If no renewal has been credited by then, the win is given back (K5).
    pub(super) give_up_at: Time,
}

pub(super) fn become_verifying(core: &mut Core, now: Time, term: Term) -> State {
    core.report(Report::Won { term });
    if core.breaks(Sabotage::NoVerification) {
        let lease = core.timing.lease(now);
        return become_leading(core, now, term, lease);
    }
    let give_up_at = now + core.timing.ttl().unwrap_or(VERIFY_WITHIN);
    State::Verifying(Verifying { term, renew_at: now, give_up_at })
}

impl Verifying {
    pub(super) fn next(mut self, core: &mut Core, now: Time, input: Input) -> State {
        match input {
            Input::Time => {
                if now >= self.give_up_at {
                    return self.unverified(core, now);
                }
                if core.requests.is_idle() && now >= self.renew_at {
                    core.renew(now);
                }
            }
            Input::Answer(Answer::Renew(answer)) => match answer {
                Renewed::Credited { sent, ttl } => match credit(core, sent, ttl) {
                    // K5: with one renewal or less left in it, the next credit decides.
                    Ok(lease) if lease.stop_by.since(now) > core.timing.renew() => {
                        return become_leading(core, now, self.term, lease);
                    }
                    Ok(_) => self.renew_at = now,
                    Err(error) => {
                        core.report(Report::Unusable(error.clone()));
                        return become_releasing(core, now, Some(self.term), Then::End(Outcome::Unusable(error)));
                    }
                },
                Renewed::Lost => return Then::Stand(Some(Setback::Behind)).follow(core, now),
                Renewed::Failed => self.renew_at = now + core.backoff(),
            },
            Input::Ousted => return Then::Stand(Some(Setback::Behind)).follow(core, now),
            Input::Stop(signal) => {
                return become_releasing(core, now, Some(self.term), Then::End(Outcome::Stopped(signal)));
            }
            Input::KeeperDied => {
                core.report(Report::KeeperDied);
                return become_releasing(core, now, Some(self.term), Then::End(Outcome::KeeperDied));
            }
            Input::Answer(Answer::Campaign(_) | Answer::Release(_))
            | Input::Hint
            | Input::Started(_)
            | Input::NotStarted(_)
            | Input::Exited(_)
            | Input::Expired
            | Input::Empty
            | Input::Swept { .. }
            | Input::Forward(_) => {}
        }
        State::Verifying(self)
    }

    /// The store has fallen silent: the win is given back.
    fn unverified(self, core: &mut Core, now: Time) -> State {
        if core.is_out_of_patience(now) {
            return give_up(core, now, Some(self.term), Setback::Silence);
        }
        become_releasing(core, now, Some(self.term), Then::Stand(Some(Setback::Silence)))
    }
}
