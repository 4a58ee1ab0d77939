//! Every way into a state, as one match arm: [`State::enter`].
//!
//! No state calls another one: it returns the transition that its input causes. States in which nothing of the term
//! may run are entered with an empty tree only (2.3).

use std::time::Duration;

use super::campaigning::{CampaignFailure, Campaigning};
use super::cooling_down::CoolingDown;
use super::ineligible::Ineligible;
use super::leading::Leading;
use super::leading_idle::{HoldPurpose, LeadingIdle};
use super::ousted_hook::OustedHook;
use super::releasing::Releasing;
use super::stopping::{HeldLease, Stopping};
use super::stopping_follower::StoppingFollower;
use super::verifying::Verifying;
use super::{State, Step, VERIFY_TIMEOUT_NO_TTL};
use crate::context::Context;
use crate::input::{Input, KeeperInput};
use crate::mutation::Mutation;
use crate::{Action, CommandEnd, Hook, HookFailure, Lease, Notice, Outcome, Program, Reason, Term, Time};

/// The way from one state into another.
#[derive(Debug)]
pub(super) enum Transition {
    /// Ask the store for the boundary at `ask_at`; hints count from `hints_from` on.
    Campaign { ask_at: Time, hints_from: Time, failure: Option<CampaignFailure> },
    /// The same at `ask_at`, after several resignations.
    CampaignAfterRest { ask_at: Time },
    /// End the candidacy at the campaign limit.
    GiveUp { term: Option<Term>, failure: CampaignFailure },
    /// Verify a win.
    Verify { term: Term },
    /// Give back a win whose term is not above every term seen (S1).
    RejectTerm { term: Term },
    /// Begin a term.
    Lead { term: Term, lease: Lease },
    /// Start the command again in the same term.
    Restart { term: Term, lease: Lease, renew_at: Time },
    /// Stop the command, or the hook before it.
    Stop(StopOrder),
    /// Keep the boundary while nothing runs.
    Idle { term: Term, lease: Lease, renew_at: Time, purpose: HoldPurpose },
    /// Leave a leadership: run `--on-ousted`, if there is one.
    Leave { term: Term, held: HeldLease, renew_at: Time, then: AfterRelease, stop_asked: bool },
    /// Leave a leadership whose `--on-ousted` is over.
    LeaveAfterHook { term: Term, held: HeldLease, then: AfterRelease },
    /// Give the boundary, or the place in the queue, back.
    Release { term: Option<Term>, then: AfterRelease },
    /// Take up whatever was to follow a release.
    Proceed(AfterRelease),
    /// Leave the election until the candidate is eligible, and campaign no earlier than `campaign_from` then.
    BecomeIneligible { may_hold_place: bool, campaign_from: Time },
    /// Stay away from the store.
    CoolDown { until: Time, failure: Option<CampaignFailure> },
    /// End the candidacy, once the follower is gone.
    Exit(Outcome),
    /// End the candidacy, of which nothing is left.
    End(Outcome),
}

/// The end of a leadership whose programs are to be stopped.
#[derive(Debug)]
pub(super) struct StopOrder {
    pub(super) term: Term,
    pub(super) reason: Reason,
    pub(super) held: HeldLease,
    /// The kill deadline of the last lease.
    pub(super) kill_by: Time,
    pub(super) renew_at: Time,
    /// The end of the command's main process, if that is the reason.
    pub(super) end: Option<CommandEnd>,
}

/// The continuation after a release.
#[derive(Debug, Clone)]
pub(crate) enum AfterRelease {
    /// Campaign, with the failure of the last campaign, if that did not lead to leadership.
    Campaign(Option<CampaignFailure>),
    /// Campaign after this time: the store gave a term that is too low (S1).
    CampaignAfter(Duration),
    /// Campaign after the others, and after this time: the candidate has resigned, perhaps again and again.
    CampaignBehind(Duration),
    /// Campaign after a cooldown of this length.
    CoolDown(Duration),
    Exit(Outcome),
}

impl AfterRelease {
    /// A stop that was asked for meanwhile replaces any further campaign; it does not replace another outcome.
    pub(super) fn replace_campaign(&mut self, outcome: Outcome) {
        match self {
            AfterRelease::Campaign(_)
            | AfterRelease::CampaignAfter(_)
            | AfterRelease::CampaignBehind(_)
            | AfterRelease::CoolDown(_) => {
                *self = AfterRelease::Exit(outcome);
            }
            AfterRelease::Exit(_) => {}
        }
    }
}

impl State {
    /// Makes one transition, and returns the step that the new state takes at once.
    pub(super) fn enter(&mut self, context: &mut Context, now: Time, transition: Transition) -> Step {
        match transition {
            Transition::Campaign { ask_at, .. } | Transition::CampaignAfterRest { ask_at }
                if !context.is_eligible(now) =>
            {
                Step::Go(Transition::BecomeIneligible { may_hold_place: false, campaign_from: ask_at })
            }
            Transition::BecomeIneligible { may_hold_place, campaign_from } => {
                context.becomes_ineligible(now);
                let ineligible = Ineligible::new(context, now, may_hold_place, campaign_from);
                let _ = self.stand_back(context, State::Ineligible(ineligible));
                self.next(context, now, Input::Time)
            }
            Transition::Campaign { ask_at, hints_from, failure } => {
                let stays = self.stand_back(context, State::Campaigning(Campaigning::new(ask_at, hints_from, failure)));
                if now < ask_at { stays } else { self.next(context, now, Input::Time) }
            }
            Transition::CampaignAfterRest { ask_at } => {
                let resting = Campaigning::new(ask_at, ask_at, None).resting(context, now);
                self.stand_back(context, State::Campaigning(resting))
            }
            Transition::GiveUp { term, failure } => give_up(context, term, failure),
            Transition::Verify { term } if term <= context.highest_term => Step::Go(Transition::RejectTerm { term }),
            Transition::Verify { term } => self.verify(context, now, term),
            Transition::RejectTerm { term } => reject_term(context, term),
            Transition::Lead { term, lease } => {
                context.debug_assert_empty_tree();
                debug_assert!(context.is_without_follower() || context.has_mutation(), "no follower beside a leader");
                *self = State::Leading(begin_term(context, now, term, lease));
                Step::Stay
            }
            Transition::Restart { term, lease, renew_at } => {
                context.debug_assert_empty_tree();
                context.restart_tracker.restarted(now);
                context.arm_next_run(term, lease);
                let program = Program::Command { term };
                *self = State::Leading(Leading::start_program(context, now, program, (term, lease), renew_at));
                Step::Stay
            }
            Transition::Stop(order) => {
                let keeper_died = order.reason == Reason::KeeperDied;
                *self = State::Stopping(Stopping::new(context, now, &order));
                if keeper_died { self.next(context, now, Input::Keeper(KeeperInput::Died)) } else { Step::Stay }
            }
            Transition::Idle { term, lease, renew_at, purpose } => {
                context.debug_assert_empty_tree();
                notice_hold(context, now, term, &purpose);
                context.keeper.reset();
                *self = State::LeadingIdle(LeadingIdle { term, lease, renew_at, purpose });
                self.next(context, now, Input::Time)
            }
            Transition::Leave { term, held, renew_at, then, stop_asked } => {
                context.leaves(now);
                if !start_ousted_hook(context, now, term, held) {
                    return Step::Go(Transition::LeaveAfterHook { term, held, then });
                }
                *self = State::OustedHook(OustedHook::new(term, held, renew_at, then, stop_asked));
                self.next(context, now, Input::Time)
            }
            Transition::LeaveAfterHook { term, held, then } => leave_after_hook(context, now, term, held, then),
            Transition::Release { term, then } => self.release(context, now, term, then),
            Transition::Proceed(then) => proceed(context, now, then),
            Transition::CoolDown { until, failure } => {
                self.stand_back(context, State::CoolingDown(CoolingDown { until, failure }))
            }
            Transition::Exit(outcome) if context.follower.is_gone() => {
                context.store_requests.abandon();
                Step::Go(Transition::End(outcome))
            }
            Transition::Exit(outcome) => {
                self.stand_back(context, State::StoppingFollower(StoppingFollower { outcome }))
            }
            Transition::End(outcome) => {
                context.debug_assert_empty_tree();
                context.act(Action::End(with_follower_end(context, outcome)));
                *self = State::Ended;
                Step::Stay
            }
        }
    }

    /// Enters a state of which no program of a term is part, and in which no earlier request is answered.
    fn stand_back(&mut self, context: &mut Context, state: State) -> Step {
        context.debug_assert_empty_tree();
        context.store_requests.abandon();
        *self = state;
        Step::Stay
    }

    /// Nothing of ours runs, so the boundary may go to another candidate (2.3).
    fn release(&mut self, context: &mut Context, now: Time, term: Option<Term>, then: AfterRelease) -> Step {
        context.debug_assert_empty_tree();
        context.store_requests.abandon();
        context.keeper.reset();
        context.end_hold(now);
        let until = now + 3 * context.timing.request_timeout();
        *self = State::Releasing(Releasing { term, ask_at: now, until, then, stop_asked: false });
        self.next(context, now, Input::Time)
    }

    /// Nothing starts before a renewal is credited.
    fn verify(&mut self, context: &mut Context, now: Time, term: Term) -> Step {
        context.debug_assert_empty_tree();
        context.notice(Notice::Won { term });
        if context.mutated(Mutation::NoVerification) {
            let lease = context.timing.lease(now);
            return Step::Go(Transition::Lead { term, lease });
        }
        let give_up_at = now + context.timing.ttl().unwrap_or(VERIFY_TIMEOUT_NO_TTL);
        *self = State::Verifying(Verifying::new(term, now, give_up_at));
        Step::Stay
    }
}

/// The campaign limit is reached. Anything that the store holds for us, a place in the queue too, is given back first.
fn give_up(context: &mut Context, term: Option<Term>, failure: CampaignFailure) -> Step {
    let (notice, outcome) = match failure {
        CampaignFailure::NotElected => (Notice::NotElected, Outcome::NotElected),
        CampaignFailure::StoreUnavailable => (Notice::Unavailable, Outcome::Unavailable),
    };
    context.notice(notice);
    if context.mutated(Mutation::PlaceKept) {
        return Step::Go(Transition::Exit(outcome));
    }
    Step::Go(Transition::Release { term, then: AfterRelease::Exit(outcome) })
}

/// S1: a reader that compares terms would refuse this leader. Others may lead meanwhile; each time in a row the rest
/// is twice as long.
fn reject_term(context: &mut Context, term: Term) -> Step {
    context.notice(Notice::TermTooLow { term, seen: context.highest_term });
    let rest_max = context.timing.ttl().unwrap_or(VERIFY_TIMEOUT_NO_TTL);
    let rest = (context.backoff() * 2u32.pow(context.low_terms.min(16))).min(rest_max);
    context.low_terms += 1;
    Step::Go(Transition::Release { term: Some(term), then: AfterRelease::CampaignAfter(rest) })
}

/// Only with a lease that was credited and has more than one renewal left in it (K5).
fn begin_term(context: &mut Context, now: Time, term: Term, lease: Lease) -> Leading {
    context.notice(Notice::Elected { term });
    context.highest_term = context.highest_term.max(term);
    context.low_terms = 0;
    context.campaign_deadline = None;
    context.restart_tracker.term_begins();
    context.resign_tracker.term_begins(now);
    context.eligibility.term_begins(now);
    // An older lease of this candidate is no longer of any account.
    context.release_ended(now, true);
    context.arm(term, lease);
    let program = if context.policy.hooks.on_elected { Program::OnElected { term } } else { Program::Command { term } };
    let renew_at = context.next_renewal(now, lease.sent);
    Leading::start_program(context, now, program, (term, lease), renew_at)
}

fn notice_hold(context: &mut Context, now: Time, term: Term, purpose: &HoldPurpose) {
    match purpose {
        HoldPurpose::RestartAt { at } => context.notice(Notice::Restarting { term, delay: at.since(now) }),
        HoldPurpose::RestartAfterRenewal => {}
        HoldPurpose::ReleaseAt { at, .. } => context.notice(Notice::LeadingIdle { term, left: at.since(now) }),
    }
}

/// Starts `--on-ousted`, if there is one and a keeper to run it, and returns whether the hook is to be waited for.
fn start_ousted_hook(context: &mut Context, now: Time, term: Term, held: HeldLease) -> bool {
    let left_out = context.mutated(Mutation::NotOustedWhenLost) && matches!(held, HeldLease::Lost);
    if !context.policy.hooks.on_ousted || left_out {
        return false;
    }
    if context.keeper_died {
        context.notice(Notice::HookFailed { hook: Hook::OnOusted, failure: HookFailure::NoKeeper });
        return false;
    }
    context.end_hold(now);
    context.keeper.forget_question();
    context.start(Program::OnOusted { term });
    !context.mutated(Mutation::ReleaseBeforeOusted)
}

/// A lease that is lost leaves nothing to release.
fn leave_after_hook(context: &mut Context, now: Time, term: Term, held: HeldLease, then: AfterRelease) -> Step {
    match held {
        HeldLease::Valid(_) | HeldLease::Expired(_) => Step::Go(Transition::Release { term: Some(term), then }),
        HeldLease::Lost => {
            context.keeper.reset();
            context.release_ended(now, true);
            context.end_hold(now);
            Step::Go(Transition::Proceed(then))
        }
    }
}

fn proceed(context: &mut Context, now: Time, then: AfterRelease) -> Step {
    Step::Go(match then {
        // 2.3: a killed follower still exists.
        AfterRelease::Campaign(failure) if context.is_held_up(now) => Transition::CoolDown { until: now, failure },
        AfterRelease::CampaignBehind(rest) if context.is_held_up(now) => {
            Transition::CoolDown { until: now + rest, failure: None }
        }
        AfterRelease::CampaignBehind(rest) => {
            Transition::CampaignAfterRest { ask_at: now + rest.max(context.backoff()) }
        }
        // After a release the other candidates come first: until its next request no hint counts.
        AfterRelease::Campaign(failure) => {
            let ask_at = now + context.backoff();
            Transition::Campaign { ask_at, hints_from: ask_at, failure }
        }
        AfterRelease::CampaignAfter(rest) => {
            let (ask_at, failure) = (now + rest, Some(CampaignFailure::NotElected));
            Transition::Campaign { ask_at, hints_from: ask_at, failure }
        }
        AfterRelease::CoolDown(_) if context.mutated(Mutation::NoSittingOut) => {
            Transition::Campaign { ask_at: now, hints_from: Time::BOOT, failure: None }
        }
        AfterRelease::CoolDown(duration) => Transition::CoolDown { until: now + duration, failure: None },
        AfterRelease::Exit(outcome) => Transition::Exit(outcome),
    })
}

/// A follower is a command too: after a stop its exit status is the program's.
fn with_follower_end(context: &Context, outcome: Outcome) -> Outcome {
    match (outcome, context.follower.end_after_stop()) {
        (Outcome::Stopped(_), Some(end)) => Outcome::Command(end),
        (outcome, _) => outcome,
    }
}
