//! The states, a file for each: its data, its reaction to every input, and its facts. The ways from one state into
//! another are all in `transition`.

mod campaigning;
mod cooling_down;
mod ineligible;
mod leading;
mod leading_idle;
mod ousted_hook;
mod releasing;
mod stopping;
mod stopping_follower;
mod transition;
mod verifying;

use std::time::Duration;

use campaigning::Campaigning;
use cooling_down::CoolingDown;
use ineligible::Ineligible;
pub(super) use ineligible::LEASE_NO_TTL;
use leading::Leading;
use leading_idle::LeadingIdle;
use ousted_hook::OustedHook;
use releasing::Releasing;
use stopping::Stopping;
use stopping_follower::StoppingFollower;
pub(super) use transition::AfterRelease;
use transition::Transition;
use verifying::Verifying;

use crate::context::Context;
use crate::input::Input;
use crate::{HookContext, Lease, Phase, Term, Time};

/// The time that a win may wait for its verification where the store grants no ttl.
const VERIFY_TIMEOUT_NO_TTL: Duration = Duration::from_secs(10);
/// The interval between two sweeps of the tree that a dead keeper left to the campaigner.
pub(super) const SWEEP_INTERVAL: Duration = Duration::from_millis(5);

#[derive(Debug)]
pub(super) enum State {
    Campaigning(Campaigning),
    Verifying(Verifying),
    Leading(Leading),
    Stopping(Stopping),
    LeadingIdle(LeadingIdle),
    OustedHook(OustedHook),
    Releasing(Releasing),
    Ineligible(Ineligible),
    CoolingDown(CoolingDown),
    StoppingFollower(StoppingFollower),
    Ended,
}

/// The result of an input: the state stays, with other data perhaps, or gives way to another.
#[derive(Debug)]
#[must_use]
enum Step {
    Stay,
    Go(Transition),
}

/// The answers of a state to every question about it, in one place.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) phase: Phase,
    /// The term that is being verified, led, or wound up.
    pub(super) term: Option<Term>,
    /// The term that is led with a lease whose renewals count: leadership can be confirmed.
    pub(super) leading_term: Option<Term>,
    pub(super) lease: Option<Lease>,
    /// Whether the command or a hook of the term may be alive. The tree of a follower is that of
    /// [`Follower`](crate::follower::Follower).
    pub(super) may_hold_tree: bool,
    /// Whether the command runs, or would run if there were one.
    pub(super) has_begun: bool,
    /// The context in which a background hook may be started now. There is none while anything is being stopped or
    /// released.
    pub(super) background_hook_slot: Option<HookContext>,
    /// The next time that changes something. The time at which a request is due counts only if none is outstanding.
    pub(super) wake_at: Time,
}

impl State {
    pub(super) fn new() -> State {
        State::Campaigning(Campaigning::new(Time::BOOT, Time::BOOT, None))
    }

    /// Handles one input, and makes the transitions that follow from it.
    pub(super) fn handle(&mut self, context: &mut Context, now: Time, input: Input) {
        let step = self.next(context, now, input);
        self.follow(context, now, step);
    }

    /// Starts programs that are due, after every input has been handled.
    pub(super) fn settle(&mut self, context: &mut Context, now: Time) {
        let step = match self {
            State::LeadingIdle(idle) => idle.restart_if_due(context, now),
            State::Verifying(verifying) => verifying.lead_if_alone(context, now),
            State::StoppingFollower(stopping) => stopping.end_if_alone(context),
            State::Campaigning(_) | State::Ineligible(_) => {
                context.start_follower_if_due(now);
                Step::Stay
            }
            State::Leading(_)
            | State::Stopping(_)
            | State::OustedHook(_)
            | State::Releasing(_)
            | State::CoolingDown(_)
            | State::Ended => Step::Stay,
        };
        self.follow(context, now, step);
    }

    /// Whether a command that has ended is to be started again.
    pub(super) fn is_between_runs(&self) -> bool {
        match self {
            State::LeadingIdle(idle) => idle.is_between_runs(),
            State::Campaigning(_)
            | State::Verifying(_)
            | State::Leading(_)
            | State::Stopping(_)
            | State::OustedHook(_)
            | State::Releasing(_)
            | State::Ineligible(_)
            | State::CoolingDown(_)
            | State::StoppingFollower(_)
            | State::Ended => false,
        }
    }

    /// Whether nothing of the candidate runs as a leader, and all has been done to give back what the store held for it.
    pub(super) fn has_left(&self) -> bool {
        match self {
            State::Ineligible(ineligible) => ineligible.has_left(),
            State::CoolingDown(_) | State::StoppingFollower(_) | State::Ended => true,
            State::Campaigning(_)
            | State::Verifying(_)
            | State::Leading(_)
            | State::Stopping(_)
            | State::LeadingIdle(_)
            | State::OustedHook(_)
            | State::Releasing(_) => false,
        }
    }

    /// Whether nothing but the end follows the release that is under way.
    pub(super) fn is_ending(&self) -> bool {
        matches!(self, State::Releasing(releasing) if releasing.ends())
    }

    pub(super) fn facts(&self, context: &Context) -> Facts {
        match self {
            State::Campaigning(campaigning) => campaigning.facts(context),
            State::Verifying(verifying) => verifying.facts(context),
            State::Leading(leading) => leading.facts(context),
            State::Stopping(stopping) => stopping.facts(context),
            State::LeadingIdle(idle) => idle.facts(context),
            State::OustedHook(ousted_hook) => ousted_hook.facts(context),
            State::Releasing(releasing) => releasing.facts(context),
            State::Ineligible(ineligible) => ineligible.facts(context),
            State::CoolingDown(cooling_down) => cooling_down.facts(context),
            State::StoppingFollower(_) => StoppingFollower::facts(),
            State::Ended => Facts {
                phase: Phase::Ended,
                term: None,
                leading_term: None,
                lease: None,
                may_hold_tree: false,
                has_begun: false,
                background_hook_slot: None,
                wake_at: Time::NEVER,
            },
        }
    }

    fn next(&mut self, context: &mut Context, now: Time, input: Input) -> Step {
        match self {
            State::Campaigning(campaigning) => campaigning.next(context, now, input),
            State::Verifying(verifying) => verifying.next(context, now, input),
            State::Leading(leading) => leading.next(context, now, input),
            State::Stopping(stopping) => stopping.next(context, now, input),
            State::LeadingIdle(idle) => idle.next(context, now, input),
            State::OustedHook(ousted_hook) => ousted_hook.next(context, now, input),
            State::Releasing(releasing) => releasing.next(context, now, input),
            State::Ineligible(ineligible) => ineligible.next(context, now, input),
            State::CoolingDown(cooling_down) => cooling_down.next(context, now, input),
            State::StoppingFollower(stopping) => stopping.next(context, input),
            State::Ended => Step::Stay,
        }
    }

    fn follow(&mut self, context: &mut Context, now: Time, mut step: Step) {
        while let Step::Go(transition) = step {
            step = self.enter(context, now, transition);
        }
    }
}
