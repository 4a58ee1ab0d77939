//! The states, a file for each: what it knows, the way into it, and the one function that says what happens next.

mod campaigning;
mod cooling_down;
mod leading;
mod leading_idle;
mod ousted_hook;
mod releasing;
mod stopping;
mod stopping_follower;
mod verifying;

use std::time::Duration;

use campaigning::Campaigning;
use cooling_down::CoolingDown;
use leading::Leading;
use leading_idle::LeadingIdle;
use ousted_hook::OustedHook;
use releasing::{AfterRelease, Releasing};
use stopping::Stopping;
use stopping_follower::StoppingFollower;
use verifying::Verifying;

use super::event::{Action, Answer, CommandEnd, HookContext, LeaderKey, NotStarted, Outcome, Signal, Term};
use super::mutation::Mutation;
use super::policy::OnLost;
use super::time::Time;
use super::timing::{Lease, TimingError};
use super::{Context, Phase};

/// How long a win may wait for its verification where the store grants no ttl.
const VERIFY_TIMEOUT_NO_TTL: Duration = Duration::from_secs(10);
/// How often people are told that a killed tree is still there.
pub(super) const UNCONFIRMED_REPORT_INTERVAL: Duration = Duration::from_secs(60);
/// How often the campaigner sweeps the tree that a dead keeper left it.
pub(super) const SWEEP_INTERVAL: Duration = Duration::from_millis(5);

/// An event that has been found to concern us now.
#[derive(Debug, Clone, Copy)]
pub(super) enum Input {
    Time,
    Answer(Answer),
    Hint,
    Leader(Option<LeaderKey>),
    Ousted,
    Started(i32),
    Idle,
    NotStarted(NotStarted),
    Exited(CommandEnd),
    Expired,
    Empty,
    Cleared,
    KeeperDied,
    Swept { empty: bool },
    Stop(Signal),
    Forward(Signal),
    Ask,
    Resign,
}

#[derive(Debug)]
pub(super) enum State {
    Campaigning(Campaigning),
    Verifying(Verifying),
    Leading(Leading),
    Stopping(Stopping),
    LeadingIdle(LeadingIdle),
    OustedHook(OustedHook),
    Releasing(Releasing),
    CoolingDown(CoolingDown),
    StoppingFollower(StoppingFollower),
    Ended,
}

impl State {
    pub(super) fn new() -> State {
        State::Campaigning(Campaigning {
            ask_at: Time::BOOT,
            rests_until: Time::BOOT,
            hinted: false,
            failures: 0,
            setback: None,
        })
    }

    pub(super) fn next(self, context: &mut Context, now: Time, input: Input) -> State {
        match self {
            State::Campaigning(standing) => standing.next(context, now, input),
            State::Verifying(verifying) => verifying.next(context, now, input),
            State::Leading(leading) => leading.next(context, now, input),
            State::Stopping(stopping) => stopping.next(context, now, input),
            State::LeadingIdle(holding) => holding.next(context, now, input),
            State::OustedHook(ousting) => ousting.next(context, now, input),
            State::Releasing(releasing) => releasing.next(context, now, input),
            State::CoolingDown(cooldown) => cooldown.next(context, now, input),
            State::StoppingFollower(parting) => parting.next(context, input),
            State::Ended => State::Ended,
        }
    }

    /// Starts what is due, now that everything has been heard.
    pub(super) fn settle(self, context: &mut Context, now: Time) -> State {
        match self {
            State::LeadingIdle(holding) => holding.restart_if_due(context, now),
            State::Verifying(verifying) => verifying.lead_if_alone(context, now),
            State::StoppingFollower(parting) => parting.end_if_alone(context),
            State::Campaigning(_) => {
                context.start_follower_if_due(now);
                self
            }
            State::Leading(_)
            | State::Stopping(_)
            | State::OustedHook(_)
            | State::Releasing(_)
            | State::CoolingDown(_)
            | State::Ended => self,
        }
    }

    /// The two states that may hold a live leader command, and the one in which the hook after it runs. A follower is
    /// nobody's but its own ([`Follower`](super::follower::Follower)).
    pub(super) fn may_hold_a_tree(&self) -> bool {
        match self {
            State::Leading(_) | State::Stopping(_) | State::OustedHook(_) => true,
            State::Campaigning(_)
            | State::Verifying(_)
            | State::LeadingIdle(_)
            | State::Releasing(_)
            | State::CoolingDown(_)
            | State::StoppingFollower(_)
            | State::Ended => false,
        }
    }

    /// Whether a hook may be started beside whatever runs: nothing is being stopped, and nothing is about to be given back.
    pub(super) fn background_hook_slot(&self, context: &Context) -> Option<HookContext> {
        match self {
            State::Campaigning(_) | State::CoolingDown(_) => context
                .follower
                .is_undisturbed()
                .then(|| context.follower.running().map_or(HookContext::Alone, HookContext::WithRun)),
            State::Leading(leading) => leading.has_begun().then_some(HookContext::WithRun(context.run)),
            State::Verifying(_)
            | State::Stopping(_)
            | State::LeadingIdle(_)
            | State::OustedHook(_)
            | State::Releasing(_)
            | State::StoppingFollower(_)
            | State::Ended => None,
        }
    }

    pub(super) fn has_begun(&self) -> bool {
        match self {
            State::Leading(leading) => leading.has_begun(),
            State::Campaigning(_)
            | State::Verifying(_)
            | State::Stopping(_)
            | State::LeadingIdle(_)
            | State::OustedHook(_)
            | State::Releasing(_)
            | State::CoolingDown(_)
            | State::StoppingFollower(_)
            | State::Ended => false,
        }
    }

    pub(super) fn term(&self) -> Option<Term> {
        match self {
            State::Verifying(verifying) => Some(verifying.term),
            State::Leading(leading) => Some(leading.term),
            State::Stopping(stopping) => Some(stopping.term),
            State::LeadingIdle(holding) => Some(holding.term),
            State::OustedHook(ousting) => Some(ousting.term),
            State::Campaigning(_)
            | State::Releasing(_)
            | State::CoolingDown(_)
            | State::StoppingFollower(_)
            | State::Ended => None,
        }
    }

    /// The term that is led in, with a lease whose renewals count: whoever asks can be told that we lead.
    pub(super) fn leading_term(&self) -> Option<Term> {
        match self {
            State::Leading(leading) => Some(leading.term),
            State::Stopping(stopping) => stopping.leading_term().then_some(stopping.term),
            State::LeadingIdle(holding) => Some(holding.term),
            State::Campaigning(_)
            | State::Verifying(_)
            | State::OustedHook(_)
            | State::Releasing(_)
            | State::CoolingDown(_)
            | State::StoppingFollower(_)
            | State::Ended => None,
        }
    }

    pub(super) fn lease(&self) -> Option<Lease> {
        match self {
            State::Leading(leading) => Some(leading.lease),
            State::Stopping(stopping) => stopping.lease(),
            State::LeadingIdle(holding) => Some(holding.lease),
            State::Campaigning(_)
            | State::Verifying(_)
            | State::OustedHook(_)
            | State::Releasing(_)
            | State::CoolingDown(_)
            | State::StoppingFollower(_)
            | State::Ended => None,
        }
    }

    pub(super) fn phase(&self) -> Phase {
        match self {
            State::Campaigning(_) => Phase::Campaigning,
            State::Verifying(_) => Phase::Verifying,
            State::Leading(_) => Phase::Leading,
            State::Stopping(_) => Phase::Stopping,
            State::LeadingIdle(_) => Phase::LeadingIdle,
            State::OustedHook(_) => Phase::OustedHook,
            State::Releasing(_) => Phase::Releasing,
            State::CoolingDown(_) => Phase::CoolingDown,
            State::StoppingFollower(_) => Phase::StoppingFollower,
            State::Ended => Phase::Ended,
        }
    }

    /// The next time that changes something; the times at which a request is due count only if none is under way.
    pub(super) fn wake_at(&self, context: &Context) -> Time {
        let idle = context.store_requests.is_idle();
        let request_at = |at: Time| if idle { at } else { Time::NEVER };
        match self {
            State::Campaigning(standing) => standing.gives_up_at(context).min(request_at(standing.ask_at)),
            State::Verifying(verifying) => verifying.give_up_at.min(request_at(verifying.renew_at)),
            State::Leading(leading) => {
                leading.lease.stop_by.min(leading.gives_up_at()).min(request_at(leading.renew_at))
            }
            State::Stopping(stopping) => stopping.wake_at(idle),
            State::LeadingIdle(holding) => holding.wake_at(idle),
            State::OustedHook(ousting) => ousting.wake_at(idle),
            State::CoolingDown(cooldown) => cooldown.wake_at(context),
            State::Releasing(releasing) => releasing.until.min(request_at(releasing.ask_at)),
            State::StoppingFollower(_) | State::Ended => Time::NEVER,
        }
    }
}

/// A follower that is still there is waited for.
fn become_ended(context: &mut Context, outcome: Outcome) -> State {
    context.store_requests.abandon();
    if context.follower.is_gone() {
        end(context, outcome)
    } else {
        State::StoppingFollower(StoppingFollower { outcome })
    }
}

fn end(context: &mut Context, outcome: Outcome) -> State {
    let outcome = match (outcome, context.follower.last_word()) {
        // A follower is a command: its status is ours if that is what was stopped.
        (Outcome::Stopped(_), Some(end)) => Outcome::Command(end),
        (outcome, _) => outcome,
    };
    context.act(Action::End(outcome));
    State::Ended
}

/// What follows a leadership that was lost, once the tree is empty.
fn after_loss(context: &Context) -> AfterRelease {
    match context.policy.on_lost {
        OnLost::Recampaign => AfterRelease::Campaign(None),
        OnLost::End if context.mutated(Mutation::CampaignsAgain) => AfterRelease::Campaign(None),
        OnLost::End => AfterRelease::Exit(Outcome::LeadershipLost),
    }
}

/// After a renewal that was sent then: at once, if somebody waits for one that is sent from now on.
fn next_renewal(context: &Context, now: Time, sent: Time) -> Time {
    if context.pending_requests.wait_for_a_renewal() { now } else { (sent + context.timing.renew()).max(now) }
}

/// The lease that a credited renewal stands for, in the timings of the ttl that was granted (T3).
fn credit(context: &mut Context, term: Term, sent: Time, granted: Option<Duration>) -> Result<Lease, TimingError> {
    if let Some(ttl) = granted {
        context.timing = context.timing.for_granted(ttl).inspect_err(|_| {
            // Nobody can be told how long that lasts, and nobody is to be renewed for.
            let answers = context.pending_requests.leads_no_longer();
            context.actions.extend(answers);
        })?;
    }
    let lease = context.granted(sent);
    let any = context.mutated(Mutation::OldRenewalAnswers);
    let answers = context.pending_requests.credited(Some(term), lease, any);
    context.actions.extend(answers);
    Ok(lease)
}
