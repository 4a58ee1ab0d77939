//! The boundary is ours and nothing of ours runs: between two runs of a command, or because it was to be kept for longer
//! than the command took. The lease is renewed; there is no tree that could outlive it.

use super::leading::restart;
use super::ousting::become_ousting;
use super::releasing::Then;
use super::stopping::Hold;
use super::{Input, State, after_loss, credit, next_renewal};
use crate::Core;
use crate::event::{Answer, Outcome, Reason, Renewed, Report, Term};
use crate::time::Time;
use crate::timing::Lease;

#[derive(Debug)]
pub(crate) struct Holding {
    pub(super) term: Term,
    pub(super) lease: Lease,
    pub(super) renew_at: Time,
    pub(super) next: Next,
}

/// What the boundary is held for.
#[derive(Debug)]
pub(super) enum Next {
    /// The command is started again at this time.
    Start { at: Time },
    /// It is time, but not more than one renewal is left in the lease: after the next credited one (K5).
    StartWhenCredited,
    /// The boundary is given back at this time. The end of the lease is of no account: nothing will run in it any more, and
    /// as long as the store holds the others off, that is what was asked for.
    Leave { at: Time, then: Then },
}

/// Only with an empty tree.
pub(super) fn become_holding(
    core: &mut Core,
    now: Time,
    (term, lease): (Term, Lease),
    renew_at: Time,
    next: Next,
) -> State {
    match &next {
        Next::Start { at } => core.report(Report::Restarting { term, delay: at.since(now) }),
        Next::StartWhenCredited => {}
        Next::Leave { at, .. } => core.report(Report::Holding { term, left: at.since(now) }),
    }
    core.keeper.rest();
    Holding { term, lease, renew_at, next }.next(core, now, Input::Time)
}

impl Holding {
    pub(super) fn next(mut self, core: &mut Core, now: Time, input: Input) -> State {
        match input {
            Input::Time => return self.pass_time(core, now),
            Input::Answer(Answer::Renew(answer)) => match answer {
                Renewed::Credited { sent, ttl } => match (credit(core, self.term, sent, ttl), &self.next) {
                    (Ok(new), _) => {
                        // Armed as ever: should the campaigner die now, the keeper knows how long there is a lease (K2).
                        if new.sent > self.lease.sent {
                            self.lease = new;
                            core.arm(self.term, new);
                        }
                        self.renew_at = next_renewal(core, now, sent);
                        if matches!(self.next, Next::StartWhenCredited) {
                            self.next = Next::Start { at: now };
                        }
                    }
                    (Err(_), Next::Leave { .. }) => self.renew_at = next_renewal(core, now, sent),
                    (Err(error), Next::Start { .. } | Next::StartWhenCredited) => {
                        core.report(Report::Unusable(error));
                        return self.run_out(core, now);
                    }
                },
                Renewed::Lost => return self.lose(core, now),
                Renewed::Outdated | Renewed::Failed => self.renew_at = now + core.backoff(),
            },
            Input::Ousted => return self.lose(core, now),
            // Nothing runs that would have to be waited for, and a hold is for those who let it run its course.
            Input::Stop(signal) => {
                let then = match self.next {
                    Next::Leave { then: Then::End(outcome), .. } => Then::End(outcome),
                    Next::Start { .. } | Next::StartWhenCredited | Next::Leave { .. } => {
                        Then::End(Outcome::Stopped(signal))
                    }
                };
                let held = (self.term, Hold::Lease(self.lease));
                return become_ousting(core, now, held, self.renew_at, (then, true));
            }
            Input::Ask => self.renew_at = now,
            Input::Resign => {
                let then = match self.next {
                    Next::Leave { then, .. } => then,
                    Next::Start { .. } | Next::StartWhenCredited => after_loss(core),
                };
                let held = (self.term, Hold::Lease(self.lease));
                return become_ousting(core, now, held, self.renew_at, (then, false));
            }
            Input::KeeperDied => {
                core.report(Report::KeeperDied);
                let at = core.runs.held_until();
                self.next = Next::Leave { at, then: Then::End(Outcome::KeeperDied) };
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
            | Input::Forward(_) => {}
        }
        State::Holding(self)
    }

    fn pass_time(self, core: &mut Core, now: Time) -> State {
        match self.next {
            Next::Start { .. } | Next::StartWhenCredited if now >= self.lease.stop_by => {
                return self.run_out(core, now);
            }
            Next::Leave { at, then } if now >= at => {
                let held = (self.term, Hold::Lease(self.lease));
                return become_ousting(core, now, held, self.renew_at, (then, false));
            }
            Next::Start { .. } | Next::StartWhenCredited | Next::Leave { .. } => {}
        }
        if core.requests.is_idle() && now >= self.renew_at {
            core.renew(now);
        }
        State::Holding(self)
    }

    /// The restart, if it is due. The last thing that is looked at: by then it is known that nobody has asked us to stop, and
    /// that nothing says the lease is lost.
    pub(super) fn restart_if_due(mut self, core: &mut Core, now: Time) -> State {
        match self.next {
            Next::Start { at } if now >= at => {
                if self.lease.stop_by.since(now) > core.timing.renew() {
                    return restart(core, now, self.term, self.lease, self.renew_at);
                }
                self.next = Next::StartWhenCredited;
            }
            Next::Start { .. } | Next::StartWhenCredited | Next::Leave { .. } => {}
        }
        State::Holding(self)
    }

    /// No renewal was credited in time. The store may still hold something for us, so it is given back.
    fn run_out(self, core: &mut Core, now: Time) -> State {
        core.report(Report::LostAtRest { term: self.term, reason: Reason::RunningOut });
        let then = after_loss(core);
        become_ousting(core, now, (self.term, Hold::Over(self.lease)), self.renew_at, (then, false))
    }

    /// There is nothing to kill and nothing to give back.
    fn lose(self, core: &mut Core, now: Time) -> State {
        core.report(Report::LostAtRest { term: self.term, reason: Reason::Lost });
        let then = match self.next {
            Next::Start { .. } | Next::StartWhenCredited => after_loss(core),
            Next::Leave { then, .. } => then,
        };
        become_ousting(core, now, (self.term, Hold::Nothing), self.renew_at, (then, false))
    }

    pub(super) fn wake_at(&self, idle: bool) -> Time {
        let next = match self.next {
            Next::Start { at } => at.min(self.lease.stop_by),
            Next::StartWhenCredited => self.lease.stop_by,
            Next::Leave { at, .. } => at,
        };
        if idle { next.min(self.renew_at) } else { next }
    }
}
