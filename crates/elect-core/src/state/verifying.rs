//! The store says that we won. Nothing may run before a renewal that it has executed after the win has been credited, nor
//! before the follower is gone; the renewals go on until then. A renewal is asked for here; a store may have sent it behind
//! the request that won (DESIGN.md 5.4), or the half of it that prolongs the lease beside that
//! request: then only the check is executed after the win (5.2).

use std::time::Duration;

use super::campaigning::CampaignFailure;
use super::transition::{AfterRelease, Transition};
use super::{Facts, Step, VERIFY_TIMEOUT_NO_TTL};
use crate::context::Context;
use crate::input::{ControlInput, Input, KeeperInput, StoreInput};
use crate::{Answer, Lease, Notice, Outcome, Phase, Renewed, Term, Time};

#[derive(Debug)]
pub(crate) struct Verifying {
    term: Term,
    renew_at: Time,
    /// If no renewal has been credited by then, the win is given back (K5).
    give_up_at: Time,
    /// The lease that was credited last. We lead as soon as the follower is gone.
    lease: Option<Lease>,
}

impl Verifying {
    pub(super) fn new(term: Term, renew_at: Time, give_up_at: Time) -> Verifying {
        Verifying { term, renew_at, give_up_at, lease: None }
    }

    pub(super) fn next(&mut self, context: &mut Context, now: Time, input: Input) -> Step {
        match input {
            Input::Time => self.pass_time(context, now),
            Input::Store(StoreInput::Answer(Answer::Renew(answer))) => match answer {
                Renewed::Credited { sent, ttl } => self.credited(context, now, sent, ttl),
                // The store keeps the same place under another term: no failure of the campaign.
                Renewed::Outdated => Step::Go(Transition::Proceed(AfterRelease::Campaign(None))),
                Renewed::Lost => lost(),
                Renewed::Failed => {
                    self.renew_at = now + context.backoff();
                    Step::Stay
                }
            },
            Input::Store(StoreInput::Ousted) => lost(),
            Input::Keeper(KeeperInput::Died) => {
                context.notice(Notice::KeeperDied);
                self.release(AfterRelease::Exit(Outcome::KeeperDied))
            }
            Input::Control(ControlInput::Stop(signal)) => self.release(AfterRelease::Exit(Outcome::Stopped(signal))),
            Input::Store(StoreInput::Answer(_) | StoreInput::Hint | StoreInput::LeaderObserved(_))
            | Input::Keeper(_)
            | Input::Control(_) => Step::Stay,
        }
    }

    fn pass_time(&mut self, context: &mut Context, now: Time) -> Step {
        if now >= self.give_up_at {
            return self.unverified(context, now);
        }
        // H2: the win is given back before anything of it starts.
        if !context.is_eligible(now) {
            return self.release(AfterRelease::Campaign(None));
        }
        // K11: a follower that cannot be emptied.
        if context.is_held_up(now) {
            return self.release(AfterRelease::Campaign(Some(CampaignFailure::NotElected)));
        }
        if context.store_requests.is_idle() && now >= self.renew_at {
            context.renew(now);
        }
        Step::Stay
    }

    fn credited(&mut self, context: &mut Context, now: Time, sent: Time, ttl: Option<Duration>) -> Step {
        match context.credit(self.term, sent, ttl) {
            // K5: with one renewal or less left in it, the next credit decides.
            Ok(lease) if lease.stop_by.since(now) > context.timing.renew() => {
                if self.term <= context.highest_term {
                    return Step::Go(Transition::RejectTerm { term: self.term });
                }
                if context.is_without_follower() {
                    return Step::Go(Transition::Lead { term: self.term, lease });
                }
                self.lease = Some(lease);
                self.renew_at = context.next_renewal(now, lease.sent);
                self.give_up_at = now + context.timing.ttl().unwrap_or(VERIFY_TIMEOUT_NO_TTL);
                Step::Stay
            }
            Ok(_) => {
                self.renew_at = now;
                Step::Stay
            }
            Err(error) => {
                context.notice(Notice::Unusable(error.clone()));
                self.release(AfterRelease::Exit(Outcome::Unusable(error)))
            }
        }
    }

    /// Once the follower is gone, the lease credited last counts if more than one renewal is left in it (K5).
    pub(super) fn lead_if_alone(&mut self, context: &Context, now: Time) -> Step {
        if !context.follower.is_gone() {
            return Step::Stay;
        }
        match self.lease.take() {
            Some(_) if self.term <= context.highest_term => Step::Go(Transition::RejectTerm { term: self.term }),
            Some(lease) if lease.stop_by.since(now) > context.timing.renew() => {
                Step::Go(Transition::Lead { term: self.term, lease })
            }
            Some(_) => {
                self.renew_at = now;
                Step::Stay
            }
            None => Step::Stay,
        }
    }

    /// The store has stopped answering: the win is given back.
    fn unverified(&self, context: &Context, now: Time) -> Step {
        let failure = CampaignFailure::StoreUnavailable;
        if context.campaign_timed_out(now) {
            return Step::Go(Transition::GiveUp { term: Some(self.term), failure });
        }
        self.release(AfterRelease::Campaign(Some(failure)))
    }

    fn release(&self, then: AfterRelease) -> Step {
        Step::Go(Transition::Release { term: Some(self.term), then })
    }

    pub(super) fn facts(&self, context: &Context) -> Facts {
        Facts {
            phase: Phase::Verifying,
            term: Some(self.term),
            leading_term: None,
            lease: None,
            may_hold_tree: false,
            has_begun: false,
            background_hook_slot: None,
            wake_at: self.give_up_at.min(context.when_idle(self.renew_at)),
        }
    }
}

fn lost() -> Step {
    Step::Go(Transition::Proceed(AfterRelease::Campaign(Some(CampaignFailure::NotElected))))
}
