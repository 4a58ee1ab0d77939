//! The states, a file for each: what it knows, the way into it, and the one function that says what happens next.

mod holding;
mod leading;
mod ousting;
mod parting;
mod releasing;
mod sitting_out;
mod standing;
mod stopping;
mod verifying;

use std::time::Duration;

use holding::Holding;
use leading::Leading;
use ousting::Ousting;
use parting::Parting;
use releasing::{Releasing, Then};
use sitting_out::SittingOut;
use standing::Standing;
use stopping::Stopping;
use verifying::Verifying;

use super::event::{Action, Answer, Beside, CommandEnd, LeaderKey, NotStarted, Outcome, Signal, Term};
use super::sabotage::Sabotage;
use super::time::Time;
use super::timing::{Lease, TimingError};
use super::wishes::OnLost;
use super::{Core, Phase};

/// How long a win may wait for its verification where the store grants no ttl.
const VERIFY_WITHIN: Duration = Duration::from_secs(10);
/// How often people are told that a killed tree is still there.
pub(super) const UNCONFIRMED_AGAIN: Duration = Duration::from_secs(60);
/// How often the campaigner sweeps the tree that a dead keeper left it.
pub(super) const SWEEP_AGAIN: Duration = Duration::from_millis(5);

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
    Standing(Standing),
    Verifying(Verifying),
    Leading(Leading),
    Stopping(Stopping),
    Holding(Holding),
    Ousting(Ousting),
    Releasing(Releasing),
    SittingOut(SittingOut),
    Parting(Parting),
    Ended,
}

impl State {
    pub(super) fn new() -> State {
        State::Standing(Standing {
            ask_at: Time::BOOT,
            rests_until: Time::BOOT,
            hinted: false,
            failures: 0,
            setback: None,
        })
    }

    pub(super) fn next(self, core: &mut Core, now: Time, input: Input) -> State {
        match self {
            State::Standing(standing) => standing.next(core, now, input),
            State::Verifying(verifying) => verifying.next(core, now, input),
            State::Leading(leading) => leading.next(core, now, input),
            State::Stopping(stopping) => stopping.next(core, now, input),
            State::Holding(holding) => holding.next(core, now, input),
            State::Ousting(ousting) => ousting.next(core, now, input),
            State::Releasing(releasing) => releasing.next(core, now, input),
            State::SittingOut(sitting_out) => sitting_out.next(core, now, input),
            State::Parting(parting) => parting.next(core, input),
            State::Ended => State::Ended,
        }
    }

    /// Starts what is due, now that everything has been heard.
    pub(super) fn settle(self, core: &mut Core, now: Time) -> State {
        match self {
            State::Holding(holding) => holding.restart_if_due(core, now),
            State::Verifying(verifying) => verifying.lead_if_alone(core, now),
            State::Parting(parting) => parting.end_if_alone(core),
            State::Standing(_) => {
                core.start_follower_if_due(now);
                self
            }
            State::Leading(_)
            | State::Stopping(_)
            | State::Ousting(_)
            | State::Releasing(_)
            | State::SittingOut(_)
            | State::Ended => self,
        }
    }

    /// The two states that may hold a live leader command, and the one in which the hook after it runs. A follower is
    /// nobody's but its own ([`Follower`](super::follower::Follower)).
    pub(super) fn may_hold_a_tree(&self) -> bool {
        match self {
            State::Leading(_) | State::Stopping(_) | State::Ousting(_) => true,
            State::Standing(_)
            | State::Verifying(_)
            | State::Holding(_)
            | State::Releasing(_)
            | State::SittingOut(_)
            | State::Parting(_)
            | State::Ended => false,
        }
    }

    /// Whether a hook may be started beside whatever runs: nothing is being stopped, and nothing is about to be given back.
    pub(super) fn room_for_asides(&self, core: &Core) -> Option<Beside> {
        match self {
            State::Standing(_) | State::SittingOut(_) => {
                core.follower.is_undisturbed().then(|| core.follower.running().map_or(Beside::Nothing, Beside::Run))
            }
            State::Leading(leading) => leading.has_begun().then_some(Beside::Run(core.run)),
            State::Verifying(_)
            | State::Stopping(_)
            | State::Holding(_)
            | State::Ousting(_)
            | State::Releasing(_)
            | State::Parting(_)
            | State::Ended => None,
        }
    }

    pub(super) fn has_begun(&self) -> bool {
        match self {
            State::Leading(leading) => leading.has_begun(),
            State::Standing(_)
            | State::Verifying(_)
            | State::Stopping(_)
            | State::Holding(_)
            | State::Ousting(_)
            | State::Releasing(_)
            | State::SittingOut(_)
            | State::Parting(_)
            | State::Ended => false,
        }
    }

    pub(super) fn term(&self) -> Option<Term> {
        match self {
            State::Verifying(verifying) => Some(verifying.term),
            State::Leading(leading) => Some(leading.term),
            State::Stopping(stopping) => Some(stopping.term),
            State::Holding(holding) => Some(holding.term),
            State::Ousting(ousting) => Some(ousting.term),
            State::Standing(_) | State::Releasing(_) | State::SittingOut(_) | State::Parting(_) | State::Ended => None,
        }
    }

    /// The term that is led in, with a lease whose renewals count: whoever asks can be told that we lead.
    pub(super) fn rules(&self) -> Option<Term> {
        match self {
            State::Leading(leading) => Some(leading.term),
            State::Stopping(stopping) => stopping.rules().then_some(stopping.term),
            State::Holding(holding) => Some(holding.term),
            State::Standing(_)
            | State::Verifying(_)
            | State::Ousting(_)
            | State::Releasing(_)
            | State::SittingOut(_)
            | State::Parting(_)
            | State::Ended => None,
        }
    }

    pub(super) fn lease(&self) -> Option<Lease> {
        match self {
            State::Leading(leading) => Some(leading.lease),
            State::Stopping(stopping) => stopping.lease(),
            State::Holding(holding) => Some(holding.lease),
            State::Standing(_)
            | State::Verifying(_)
            | State::Ousting(_)
            | State::Releasing(_)
            | State::SittingOut(_)
            | State::Parting(_)
            | State::Ended => None,
        }
    }

    pub(super) fn phase(&self) -> Phase {
        match self {
            State::Standing(_) => Phase::Standing,
            State::Verifying(_) => Phase::Verifying,
            State::Leading(_) => Phase::Leading,
            State::Stopping(_) => Phase::Stopping,
            State::Holding(_) => Phase::Holding,
            State::Ousting(_) => Phase::Ousting,
            State::Releasing(_) => Phase::Releasing,
            State::SittingOut(_) => Phase::SittingOut,
            State::Parting(_) => Phase::Parting,
            State::Ended => Phase::Ended,
        }
    }

    /// The next time that changes something; the times at which a request is due count only if none is under way.
    pub(super) fn wake_at(&self, core: &Core) -> Time {
        let idle = core.requests.is_idle();
        let request_at = |at: Time| if idle { at } else { Time::NEVER };
        match self {
            State::Standing(standing) => standing.gives_up_at(core).min(request_at(standing.ask_at)),
            State::Verifying(verifying) => verifying.give_up_at.min(request_at(verifying.renew_at)),
            State::Leading(leading) => {
                leading.lease.stop_by.min(leading.gives_up_at()).min(request_at(leading.renew_at))
            }
            State::Stopping(stopping) => stopping.wake_at(idle),
            State::Holding(holding) => holding.wake_at(idle),
            State::Ousting(ousting) => ousting.wake_at(idle),
            State::SittingOut(sitting_out) => sitting_out.wake_at(core),
            State::Releasing(releasing) => releasing.until.min(request_at(releasing.ask_at)),
            State::Parting(_) | State::Ended => Time::NEVER,
        }
    }
}

/// A follower that is still there is waited for.
fn become_ended(core: &mut Core, outcome: Outcome) -> State {
    core.requests.abandon();
    if core.follower.is_gone() { end(core, outcome) } else { State::Parting(Parting { outcome }) }
}

fn end(core: &mut Core, outcome: Outcome) -> State {
    let outcome = match (outcome, core.follower.last_word()) {
        // A follower is a command: its status is ours if that is what was stopped.
        (Outcome::Stopped(_), Some(end)) => Outcome::Command(end),
        (outcome, _) => outcome,
    };
    core.act(Action::End(outcome));
    State::Ended
}

/// What follows a leadership that was lost, once the tree is empty.
fn after_loss(core: &Core) -> Then {
    match core.wishes.on_lost {
        OnLost::Recampaign => Then::Stand(None),
        OnLost::End if core.breaks(Sabotage::StandsAgain) => Then::Stand(None),
        OnLost::End => Then::End(Outcome::LeadershipLost),
    }
}

/// After a renewal that was sent then: at once, if somebody waits for one that is sent from now on.
fn next_renewal(core: &Core, now: Time, sent: Time) -> Time {
    if core.petitions.wait_for_a_renewal() { now } else { (sent + core.timing.renew()).max(now) }
}

/// The lease that a credited renewal stands for, in the timings of the ttl that was granted (T3).
fn credit(core: &mut Core, term: Term, sent: Time, granted: Option<Duration>) -> Result<Lease, TimingError> {
    if let Some(ttl) = granted {
        core.timing = core.timing.for_granted(ttl).inspect_err(|_| {
            // Nobody can be told how long that lasts, and nobody is to be renewed for.
            let answers = core.petitions.leads_no_longer();
            core.actions.extend(answers);
        })?;
    }
    let lease = core.granted(sent);
    let any = core.breaks(Sabotage::OldRenewalAnswers);
    let answers = core.petitions.credited(Some(term), lease, any);
    core.actions.extend(answers);
    Ok(lease)
}
