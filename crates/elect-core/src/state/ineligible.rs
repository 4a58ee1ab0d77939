//! Not eligible: unhealthy, drained, or both. The place at the store is given back first; then the leader is observed,
//! and a follower may run, because its health may be the very thing that the check waits for.

use std::time::Duration;

use super::campaigning::CampaignFailure;
use super::transition::Transition;
use super::{Facts, Step};
use crate::context::Context;
use crate::input::{ControlInput, Input, KeeperInput, StoreInput};
use crate::{Answer, CampaignLimit, Notice, Outcome, Phase, Term, Time};

#[derive(Debug)]
pub(crate) struct Ineligible {
    /// The end of the attempts to give the place back; `None`: it is given back, or runs out by itself.
    release_until: Option<Time>,
    ask_at: Time,
    /// A campaign that follows begins no earlier: the candidate has resigned, and no other candidate has led since.
    campaign_from: Time,
    /// When the candidate became ineligible.
    highest_term: Term,
    /// Requests that failed in a row.
    failures: u32,
}

impl Ineligible {
    /// `may_hold_place`: the store may hold a place in the queue for this candidate.
    pub(super) fn new(context: &Context, now: Time, may_hold_place: bool, campaign_from: Time) -> Ineligible {
        let release_until = may_hold_place.then(|| now + 3 * context.timing.request_timeout());
        Ineligible { release_until, ask_at: now, campaign_from, highest_term: context.highest_term, failures: 0 }
    }

    pub(super) fn next(&mut self, context: &mut Context, now: Time, input: Input) -> Step {
        match input {
            Input::Time => return self.pass_time(context, now),
            Input::Store(StoreInput::Answer(answer)) => {
                self.answered(context, now, answer);
                // Another candidate has led, and may have left again.
                if context.highest_term > self.highest_term {
                    self.campaign_from = Time::BOOT;
                }
            }
            Input::Store(StoreInput::Hint) => {
                if self.failures == 0 && self.release_until.is_none() {
                    self.ask_at = now;
                }
            }
            Input::Store(StoreInput::LeaderObserved(leader)) => {
                context.leader_observed(now, leader);
                if leader.is_some() {
                    self.campaign_from = Time::BOOT;
                }
            }
            Input::Keeper(KeeperInput::Died) => {
                context.notice(Notice::KeeperDied);
                return Step::Go(Transition::Exit(Outcome::KeeperDied));
            }
            Input::Control(ControlInput::Stop(signal)) => return Step::Go(Transition::Exit(Outcome::Stopped(signal))),
            Input::Store(StoreInput::Ousted) | Input::Keeper(_) | Input::Control(_) => {}
        }
        Step::Stay
    }

    fn pass_time(&mut self, context: &mut Context, now: Time) -> Step {
        if self.release_until.is_some_and(|until| now >= until) {
            self.given_back(context, now, false);
        }
        if self.release_until.is_none() {
            if context.is_eligible(now) && !context.is_held_up(now) {
                let ask_at = self.campaign_from.max(now);
                return Step::Go(Transition::Campaign { ask_at, hints_from: ask_at, failure: None });
            }
            // H7: with a limit the candidacy ends, once it is known that the candidate is not eligible.
            let is_limited = context.policy.campaign_limit != CampaignLimit::Unlimited;
            if is_limited && (!context.eligibility.is_undecided() || context.campaign_timed_out(now)) {
                let failure = CampaignFailure::NotElected;
                return Step::Go(Transition::GiveUp { term: None, failure });
            }
        }
        if context.store_requests.is_idle() && now >= self.ask_at {
            if self.release_until.is_some() {
                context.release(now);
            } else {
                context.observe(now);
            }
        }
        Step::Stay
    }

    fn answered(&mut self, context: &mut Context, now: Time, answer: Answer) {
        match answer {
            Answer::Release(true) if self.release_until.is_some() => self.given_back(context, now, true),
            Answer::Release(_) => self.ask_at = now + context.backoff(),
            Answer::Observe(true) => {
                context.store_answered = true;
                self.failures = 0;
                self.ask_at = now + context.timing.renew();
            }
            Answer::Observe(false) => {
                let backoff = context.backoff() * 2u32.pow(self.failures.min(16));
                self.failures += 1;
                self.ask_at = now + backoff.min(context.timing.renew());
            }
            Answer::Campaign(_) | Answer::Renew(_) => {}
        }
    }

    fn given_back(&mut self, context: &mut Context, now: Time, released: bool) {
        let began = self.release_until.take().map_or(now, |until| until - 3 * context.timing.request_timeout());
        self.ask_at = now;
        context.release_ended(began, released);
    }

    /// Whether the store holds nothing for this candidate any more, as far as that can be reached.
    pub(super) fn has_left(&self) -> bool {
        self.release_until.is_none()
    }

    pub(super) fn facts(&self, context: &Context) -> Facts {
        let limit_at = context.campaign_deadline.unwrap_or(Time::NEVER);
        let release_until = self.release_until.unwrap_or(Time::NEVER);
        Facts {
            phase: Phase::Ineligible,
            term: None,
            leading_term: None,
            lease: None,
            may_hold_tree: false,
            has_begun: false,
            background_hook_slot: context.follower.background_hook_slot(),
            wake_at: limit_at.min(release_until).min(context.when_idle(self.ask_at)),
        }
    }
}

/// The longest time that the lease of an unconfirmed release may last where the store grants no ttl.
pub(crate) const LEASE_NO_TTL: Duration = Duration::from_secs(10);
