//! The store says that we won. Nothing may run before a renewal, sent after that word, has been credited; nor before the
//! follower is gone, for which the renewals go on.

use super::leading::become_leading;
use super::releasing::{Then, become_releasing};
use super::standing::{Setback, give_up};
use super::{Input, State, VERIFY_WITHIN, credit, next_renewal};
use crate::Core;
use crate::event::{Answer, Outcome, Renewed, Report, Term};
use crate::sabotage::Sabotage;
use crate::time::Time;
use crate::timing::Lease;

#[derive(Debug)]
pub(crate) struct Verifying {
    pub(super) term: Term,
    pub(super) renew_at: Time,
    /// If no renewal has been credited by then, the win is given back (K5).
    pub(super) give_up_at: Time,
    /// What was credited last: we lead as soon as the follower is gone.
    lease: Option<Lease>,
}

pub(super) fn become_verifying(core: &mut Core, now: Time, term: Term) -> State {
    // S1: whoever compares terms would refuse this leader.
    if term <= core.highest_term {
        return give_back_low_term(core, now, term);
    }
    core.report(Report::Won { term });
    if core.breaks(Sabotage::NoVerification) {
        let lease = core.timing.lease(now);
        return become_leading(core, now, term, lease);
    }
    let give_up_at = now + core.timing.ttl().unwrap_or(VERIFY_WITHIN);
    State::Verifying(Verifying { term, renew_at: now, give_up_at, lease: None })
}

/// S1: the term is not above every term seen. Others may lead meanwhile; each time in a row the rest is twice as long.
fn give_back_low_term(core: &mut Core, now: Time, term: Term) -> State {
    core.report(Report::TermTooLow { term, seen: core.highest_term });
    let rest_max = core.timing.ttl().unwrap_or(VERIFY_WITHIN);
    let rest = (core.backoff() * 2u32.pow(core.low_terms.min(16))).min(rest_max);
    core.low_terms += 1;
    become_releasing(core, now, Some(term), Then::StandAfter(rest))
}

impl Verifying {
    pub(super) fn next(mut self, core: &mut Core, now: Time, input: Input) -> State {
        match input {
            Input::Time => {
                if now >= self.give_up_at {
                    return self.unverified(core, now);
                }
                // K11: a follower that cannot be emptied.
                if core.is_held_up(now) {
                    return become_releasing(core, now, Some(self.term), Then::Stand(Some(Setback::Behind)));
                }
                if core.requests.is_idle() && now >= self.renew_at {
                    core.renew(now);
                }
            }
            Input::Answer(Answer::Renew(answer)) => match answer {
                Renewed::Credited { sent, ttl } => match credit(core, self.term, sent, ttl) {
                    // K5: with one renewal or less left in it, the next credit decides.
                    Ok(lease) if lease.stop_by.since(now) > core.timing.renew() => {
                        if self.term < core.highest_term {
                            return give_back_low_term(core, now, self.term);
                        }
                        if core.is_without_follower() {
                            return become_leading(core, now, self.term, lease);
                        }
                        self.lease = Some(lease);
                        self.renew_at = next_renewal(core, now, lease.sent);
                        self.give_up_at = now + core.timing.ttl().unwrap_or(VERIFY_WITHIN);
                    }
                    Ok(_) => self.renew_at = now,
                    Err(error) => {
                        core.report(Report::Unusable(error.clone()));
                        return become_releasing(core, now, Some(self.term), Then::End(Outcome::Unusable(error)));
                    }
                },
                // The same place in the store, another term: not a setback.
                Renewed::Outdated => return Then::Stand(None).follow(core, now),
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
            | Input::Leader(_)
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
        State::Verifying(self)
    }

    /// The follower is gone; what was credited meanwhile counts if more than one renewal is left in it (K5).
    pub(super) fn lead_if_alone(mut self, core: &mut Core, now: Time) -> State {
        if !core.follower.is_gone() {
            return State::Verifying(self);
        }
        match self.lease.take() {
            Some(_) if self.term < core.highest_term => {
                return give_back_low_term(core, now, self.term);
            }
            Some(lease) if lease.stop_by.since(now) > core.timing.renew() => {
                return become_leading(core, now, self.term, lease);
            }
            Some(_) => self.renew_at = now,
            None => {}
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
