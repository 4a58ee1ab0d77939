//! The states, a file for each: what it knows, the way into it, and the one function that says what happens next.

mod holding;
mod leading;
mod releasing;
mod sitting_out;
mod standing;
mod stopping;
mod verifying;

use std::time::Duration;

use holding::Holding;
use leading::Leading;
use releasing::{Releasing, Then};
use sitting_out::SittingOut;
use standing::Standing;
use stopping::Stopping;
use verifying::Verifying;

use super::event::{Action, Answer, CommandEnd, NotStarted, Outcome, Signal, Term};
use super::sabotage::Sabotage;
use super::time::Time;
use super::timing::{Lease, TimingError};
use super::wishes::OnLost;
use super::{Core, Phase};

/// How long a win may wait for its verification where the store grants no ttl.
const VERIFY_WITHIN: Duration = Duration::from_secs(10);

/// An event that has been found to concern us now.
#[derive(Debug, Clone, Copy)]
pub(super) enum Input {
    Time,
    Answer(Answer),
    Hint,
    Ousted,
    Started(i32),
    NotStarted(NotStarted),
    Exited(CommandEnd),
    Expired,
    Empty,
    KeeperDied,
    Swept { empty: bool },
    Stop(Signal),
    Forward(Signal),
}

#[derive(Debug)]
pub(super) enum State {
    Standing(Standing),
    Verifying(Verifying),
    Leading(Leading),
    Stopping(Stopping),
    Holding(Holding),
    Releasing(Releasing),
    SittingOut(SittingOut),
    Ended,
}

impl State {
    pub(super) fn new() -> State {
        State::Standing(Standing { ask_at: Time::BOOT, hinted: false, failures: 0, setback: None })
    }

    pub(super) fn next(self, core: &mut Core, now: Time, input: Input) -> State {
        match self {
            State::Standing(standing) => standing.next(core, now, input),
            State::Verifying(verifying) => verifying.next(core, now, input),
            State::Leading(leading) => leading.next(core, now, input),
            State::Stopping(stopping) => stopping.next(core, now, input),
            State::Holding(holding) => holding.next(core, now, input),
            State::Releasing(releasing) => releasing.next(core, now, input),
            State::SittingOut(sitting_out) => sitting_out.next(core, now, input),
            State::Ended => State::Ended,
        }
    }

    /// Starts what is due, now that everything has been heard.
    pub(super) fn settle(self, core: &mut Core, now: Time) -> State {
        match self {
            State::Holding(holding) => holding.restart_if_due(core, now),
            State::Standing(_)
            | State::Verifying(_)
            | State::Leading(_)
            | State::Stopping(_)
            | State::Releasing(_)
            | State::SittingOut(_)
            | State::Ended => self,
        }
    }

    /// The two states that may hold a live leader command.
    pub(super) fn may_hold_a_tree(&self) -> bool {
        match self {
            State::Leading(_) | State::Stopping(_) => true,
            State::Standing(_)
            | State::Verifying(_)
            | State::Holding(_)
            | State::Releasing(_)
            | State::SittingOut(_)
            | State::Ended => false,
        }
    }

    pub(super) fn term(&self) -> Option<Term> {
        match self {
            State::Verifying(verifying) => Some(verifying.term),
            State::Leading(leading) => Some(leading.term),
            State::Stopping(stopping) => Some(stopping.term),
            State::Holding(holding) => Some(holding.term),
            State::Standing(_) | State::Releasing(_) | State::SittingOut(_) | State::Ended => None,
        }
    }

    pub(super) fn phase(&self) -> Phase {
        match self {
            State::Standing(_) => Phase::Standing,
            State::Verifying(_) => Phase::Verifying,
            State::Leading(_) => Phase::Leading,
            State::Stopping(_) => Phase::Stopping,
            State::Holding(_) => Phase::Holding,
            State::Releasing(_) => Phase::Releasing,
            State::SittingOut(_) => Phase::SittingOut,
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
                leading.lease.stop_by.min(leading.resigns_at()).min(request_at(leading.renew_at))
            }
            State::Stopping(stopping) => stopping.wake_at(idle),
            State::Holding(holding) => holding.wake_at(idle),
            State::SittingOut(sitting_out) => sitting_out.until,
            State::Releasing(releasing) => releasing.until.min(request_at(releasing.ask_at)),
            State::Ended => Time::NEVER,
        }
    }
}

fn become_ended(core: &mut Core, outcome: Outcome) -> State {
    core.requests.abandon();
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

fn next_renewal(core: &Core, now: Time, lease: Lease) -> Time {
    (lease.sent + core.timing.renew()).max(now)
}

/// The lease that a credited renewal stands for, in the timings of the ttl that was granted (T3).
fn credit(core: &mut Core, sent: Time, granted: Option<Duration>) -> Result<Lease, TimingError> {
    if let Some(ttl) = granted {
        core.timing = core.timing.for_granted(ttl)?;
    }
    Ok(core.granted(sent))
}
