//! Not the leader: the store is asked for the boundary, again and again, until the campaign limit.

use std::time::Duration;

use super::transition::{AfterRelease, Transition};
use super::{Facts, Step};
use crate::context::Context;
use crate::input::{ControlInput, Input, KeeperInput, StoreInput};
use crate::mutation::Mutation;
use crate::{Answer, CampaignLimit, Campaigned, Notice, Outcome, Phase, Term, Time};

#[derive(Debug)]
pub(crate) struct Campaigning {
    ask_at: Time,
    /// Hints before this time are left to the other candidates: the first of them tells of our own release.
    hints_from: Time,
    /// A long rest after resignations in a row: the leader is observed meanwhile. `None`: no rest.
    rest: Option<Rest>,
    /// A hint came while a request was outstanding: the answer may be older than the hint.
    hinted: bool,
    /// Requests that failed in a row.
    failures: u32,
    /// The failure of the last request; `None` while the first has not been answered.
    failure: Option<CampaignFailure>,
}

/// A candidate that rests takes no part in the election, unless another one has led since it resigned.
#[derive(Debug, Clone, Copy)]
struct Rest {
    observe_at: Time,
    /// The highest term that was known when the rest began.
    highest_term: Term,
}

/// The reason why a candidate was not elected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CampaignFailure {
    /// The store has answered that another candidate leads, or that none may lead yet.
    NotElected,
    /// The store did not answer.
    StoreUnavailable,
}

impl Campaigning {
    pub(super) fn new(ask_at: Time, hints_from: Time, failure: Option<CampaignFailure>) -> Campaigning {
        Campaigning { ask_at, hints_from, rest: None, hinted: false, failures: 0, failure }
    }

    /// A campaign that begins with a rest. If it is longer than the renewal interval, the leader is observed meanwhile.
    pub(super) fn resting(mut self, context: &Context, now: Time) -> Campaigning {
        let observe_at = now + context.timing.renew();
        let rest = Rest { observe_at, highest_term: context.highest_term };
        self.rest = (observe_at < self.ask_at).then_some(rest);
        self
    }

    pub(super) fn next(&mut self, context: &mut Context, now: Time, input: Input) -> Step {
        match input {
            Input::Time => return self.pass_time(context, now),
            Input::Store(StoreInput::Answer(Answer::Campaign(answer))) => return self.answered(context, now, answer),
            Input::Store(StoreInput::Answer(Answer::Observe(_))) => {
                if let Some(rest) = &mut self.rest {
                    rest.observe_at = now + context.timing.renew();
                    // Another candidate has led, and has left again.
                    if context.highest_term > rest.highest_term {
                        self.end_rest(now);
                    }
                }
            }
            Input::Store(StoreInput::Hint) => {
                self.hinted = true;
                if self.failures == 0 && now >= self.hints_from {
                    self.ask_at = now;
                }
            }
            Input::Store(StoreInput::LeaderObserved(leader)) => {
                context.leader_observed(now, leader);
                if leader.is_some() {
                    self.end_rest(now);
                }
            }
            Input::Keeper(KeeperInput::Died) => {
                context.notice(Notice::KeeperDied);
                return exit(Outcome::KeeperDied);
            }
            Input::Control(ControlInput::Stop(signal)) => return exit(Outcome::Stopped(signal)),
            Input::Store(StoreInput::Ousted | StoreInput::Answer(Answer::Renew(_) | Answer::Release(_)))
            | Input::Keeper(_)
            | Input::Control(_) => {}
        }
        Step::Stay
    }

    fn pass_time(&mut self, context: &mut Context, now: Time) -> Step {
        if let Some(failure) = self.failure
            && context.campaign_timed_out(now)
        {
            return Step::Go(Transition::GiveUp { term: None, failure });
        }
        if !context.is_eligible(now) {
            return Step::Go(Transition::BecomeIneligible { may_hold_place: true, campaign_from: Time::BOOT });
        }
        // 2.3: no candidacy beside a killed tree that still exists; the place in the queue goes to others.
        if context.is_held_up(now) {
            return Step::Go(Transition::Release { term: None, then: AfterRelease::Campaign(self.failure) });
        }
        if context.store_requests.is_idle() && now >= self.ask_at {
            (self.hinted, self.rest) = (false, None);
            context.campaign(now);
        }
        if let Some(rest) = self.rest
            && context.store_requests.is_idle()
            && now >= rest.observe_at
        {
            context.observe(now);
        }
        Step::Stay
    }

    /// Another candidate has had its turn: this one campaigns again.
    fn end_rest(&mut self, now: Time) {
        if self.rest.take().is_some() {
            self.ask_at = now;
        }
    }

    fn answered(&mut self, context: &mut Context, now: Time, answer: Campaigned) -> Step {
        match answer {
            Campaigned::Won(term) => {
                context.store_answered = true;
                return Step::Go(Transition::Verify { term });
            }
            Campaigned::Waiting { again, decided } => {
                context.store_answered = true;
                self.failures = 0;
                // With --no-wait an undecided reply does not count as the one attempt.
                let asks_once = context.policy.campaign_limit == CampaignLimit::For(Duration::ZERO);
                if decided || !asks_once || context.mutated(Mutation::UndecidedCounts) {
                    self.failure = Some(CampaignFailure::NotElected);
                }
                let rest = again.unwrap_or(context.timing.renew()).min(context.timing.renew());
                self.ask_at = if self.hinted { now } else { now + rest };
            }
            // T6: the next attempt goes on with the same connection. With --no-wait connecting does not count as the one attempt.
            Campaigned::Connecting => {
                if context.policy.campaign_limit != CampaignLimit::For(Duration::ZERO) {
                    self.failure = Some(CampaignFailure::StoreUnavailable);
                }
                self.ask_at = now + context.backoff();
            }
            Campaigned::Refused if !context.store_answered => return Step::Go(Transition::Exit(Outcome::Refused)),
            Campaigned::Refused | Campaigned::Failed => {
                // The backoff doubles, but never beyond the interval at which a waiter asks anyway.
                let backoff = context.backoff() * 2u32.pow(self.failures.min(16));
                self.failures += 1;
                self.failure = Some(CampaignFailure::StoreUnavailable);
                self.ask_at = now + backoff.min(context.timing.renew());
            }
        }
        Step::Stay
    }

    pub(super) fn facts(&self, context: &Context) -> Facts {
        // The limit does not count before the first request has been answered, or has timed out.
        let give_up_at = self.failure.and(context.campaign_deadline).unwrap_or(Time::NEVER);
        let observe_at = self.rest.map_or(Time::NEVER, |rest| rest.observe_at);
        Facts {
            phase: Phase::Campaigning,
            term: None,
            leading_term: None,
            lease: None,
            may_hold_tree: false,
            has_begun: false,
            background_hook_slot: context.follower.background_hook_slot(),
            wake_at: give_up_at.min(context.when_idle(self.ask_at.min(observe_at))),
        }
    }
}

fn exit(outcome: Outcome) -> Step {
    Step::Go(Transition::Release { term: None, then: AfterRelease::Exit(outcome) })
}
