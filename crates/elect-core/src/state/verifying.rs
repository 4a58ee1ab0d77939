//! The store says that we won. Nothing may run before a renewal, sent after that word, has been credited; nor before the
//! follower is gone, for which the renewals go on.

use super::campaigning::{CampaignFailure, give_up};
use super::leading::become_leading;
use super::releasing::{AfterRelease, become_releasing};
use super::{Input, State, VERIFY_TIMEOUT_NO_TTL, credit, next_renewal};
use crate::Context;
use crate::event::{Answer, Notice, Outcome, Renewed, Term};
use crate::mutation::Mutation;
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

pub(super) fn become_verifying(context: &mut Context, now: Time, term: Term) -> State {
    // S1: whoever compares terms would refuse this leader.
    if term <= context.highest_term {
        return give_back_low_term(context, now, term);
    }
    context.notice(Notice::Won { term });
    if context.mutated(Mutation::NoVerification) {
        let lease = context.timing.lease(now);
        return become_leading(context, now, term, lease);
    }
    let give_up_at = now + context.timing.ttl().unwrap_or(VERIFY_TIMEOUT_NO_TTL);
    State::Verifying(Verifying { term, renew_at: now, give_up_at, lease: None })
}

/// S1: the term is not above every term seen. Others may lead meanwhile; each time in a row the rest is twice as long.
fn give_back_low_term(context: &mut Context, now: Time, term: Term) -> State {
    context.notice(Notice::TermTooLow { term, seen: context.highest_term });
    let rest_max = context.timing.ttl().unwrap_or(VERIFY_TIMEOUT_NO_TTL);
    let rest = (context.backoff() * 2u32.pow(context.low_terms.min(16))).min(rest_max);
    context.low_terms += 1;
    become_releasing(context, now, Some(term), AfterRelease::CampaignAfter(rest))
}

impl Verifying {
    pub(super) fn next(mut self, context: &mut Context, now: Time, input: Input) -> State {
        match input {
            Input::Time => {
                if now >= self.give_up_at {
                    return self.unverified(context, now);
                }
                // K11: a follower that cannot be emptied.
                if context.is_held_up(now) {
                    return become_releasing(
                        context,
                        now,
                        Some(self.term),
                        AfterRelease::Campaign(Some(CampaignFailure::NotElected)),
                    );
                }
                if context.store_requests.is_idle() && now >= self.renew_at {
                    context.renew(now);
                }
            }
            Input::Answer(Answer::Renew(answer)) => match answer {
                Renewed::Credited { sent, ttl } => match credit(context, self.term, sent, ttl) {
                    // K5: with one renewal or less left in it, the next credit decides.
                    Ok(lease) if lease.stop_by.since(now) > context.timing.renew() => {
                        if self.term < context.highest_term {
                            return give_back_low_term(context, now, self.term);
                        }
                        if context.is_without_follower() {
                            return become_leading(context, now, self.term, lease);
                        }
                        self.lease = Some(lease);
                        self.renew_at = next_renewal(context, now, lease.sent);
                        self.give_up_at = now + context.timing.ttl().unwrap_or(VERIFY_TIMEOUT_NO_TTL);
                    }
                    Ok(_) => self.renew_at = now,
                    Err(error) => {
                        context.notice(Notice::Unusable(error.clone()));
                        return become_releasing(
                            context,
                            now,
                            Some(self.term),
                            AfterRelease::Exit(Outcome::Unusable(error)),
                        );
                    }
                },
                // The same place in the store, another term: not a setback.
                Renewed::Outdated => return AfterRelease::Campaign(None).follow(context, now),
                Renewed::Lost => return AfterRelease::Campaign(Some(CampaignFailure::NotElected)).follow(context, now),
                Renewed::Failed => self.renew_at = now + context.backoff(),
            },
            Input::Ousted => return AfterRelease::Campaign(Some(CampaignFailure::NotElected)).follow(context, now),
            Input::Stop(signal) => {
                return become_releasing(context, now, Some(self.term), AfterRelease::Exit(Outcome::Stopped(signal)));
            }
            Input::KeeperDied => {
                context.notice(Notice::KeeperDied);
                return become_releasing(context, now, Some(self.term), AfterRelease::Exit(Outcome::KeeperDied));
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
    pub(super) fn lead_if_alone(mut self, context: &mut Context, now: Time) -> State {
        if !context.follower.is_gone() {
            return State::Verifying(self);
        }
        match self.lease.take() {
            Some(_) if self.term < context.highest_term => {
                return give_back_low_term(context, now, self.term);
            }
            Some(lease) if lease.stop_by.since(now) > context.timing.renew() => {
                return become_leading(context, now, self.term, lease);
            }
            Some(_) => self.renew_at = now,
            None => {}
        }
        State::Verifying(self)
    }

    /// The store has fallen silent: the win is given back.
    fn unverified(self, context: &mut Context, now: Time) -> State {
        if context.campaign_timed_out(now) {
            return give_up(context, now, Some(self.term), CampaignFailure::StoreUnavailable);
        }
        become_releasing(context, now, Some(self.term), AfterRelease::Campaign(Some(CampaignFailure::StoreUnavailable)))
    }
}
