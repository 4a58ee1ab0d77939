//! The boundary is ours and nothing of ours runs: between two runs of a command, or because it was to be kept for longer
//! than the command took. The lease is renewed; there is no tree that could outlive it.

use super::leading::restart;
use super::ousted_hook::become_ousted_hook;
use super::releasing::AfterRelease;
use super::stopping::HeldLease;
use super::{Input, State, after_loss, credit, next_renewal};
use crate::Context;
use crate::event::{Answer, Notice, Outcome, Reason, Renewed, Term};
use crate::time::Time;
use crate::timing::Lease;

#[derive(Debug)]
pub(crate) struct LeadingIdle {
    pub(super) term: Term,
    pub(super) lease: Lease,
    pub(super) renew_at: Time,
    pub(super) next: HoldPurpose,
}

/// What the boundary is held for.
#[derive(Debug)]
pub(super) enum HoldPurpose {
    /// The command is started again at this time.
    RestartAt { at: Time },
    /// It is time, but not more than one renewal is left in the lease: after the next credited one (K5).
    RestartAfterRenewal,
    /// The boundary is given back at this time. The end of the lease is of no account: nothing will run in it any more, and
    /// as long as the store holds the others off, that is what was asked for.
    ReleaseAt { at: Time, then: AfterRelease },
}

/// Only with an empty tree.
pub(super) fn become_leading_idle(
    context: &mut Context,
    now: Time,
    (term, lease): (Term, Lease),
    renew_at: Time,
    next: HoldPurpose,
) -> State {
    match &next {
        HoldPurpose::RestartAt { at } => context.notice(Notice::Restarting { term, delay: at.since(now) }),
        HoldPurpose::RestartAfterRenewal => {}
        HoldPurpose::ReleaseAt { at, .. } => context.notice(Notice::LeadingIdle { term, left: at.since(now) }),
    }
    context.keeper.reset();
    LeadingIdle { term, lease, renew_at, next }.next(context, now, Input::Time)
}

impl LeadingIdle {
    pub(super) fn next(mut self, context: &mut Context, now: Time, input: Input) -> State {
        match input {
            Input::Time => return self.pass_time(context, now),
            Input::Answer(Answer::Renew(answer)) => match answer {
                Renewed::Credited { sent, ttl } => match (credit(context, self.term, sent, ttl), &self.next) {
                    (Ok(new), _) => {
                        // Armed as ever: should the campaigner die now, the keeper knows how long there is a lease (K2).
                        if new.sent > self.lease.sent {
                            self.lease = new;
                            context.arm(self.term, new);
                        }
                        self.renew_at = next_renewal(context, now, sent);
                        if matches!(self.next, HoldPurpose::RestartAfterRenewal) {
                            self.next = HoldPurpose::RestartAt { at: now };
                        }
                    }
                    (Err(_), HoldPurpose::ReleaseAt { .. }) => self.renew_at = next_renewal(context, now, sent),
                    (Err(error), HoldPurpose::RestartAt { .. } | HoldPurpose::RestartAfterRenewal) => {
                        context.notice(Notice::Unusable(error));
                        return self.run_out(context, now);
                    }
                },
                Renewed::Lost => return self.lose(context, now),
                Renewed::Outdated | Renewed::Failed => self.renew_at = now + context.backoff(),
            },
            Input::Ousted => return self.lose(context, now),
            // Nothing runs that would have to be waited for, and a hold is for those who let it run its course.
            Input::Stop(signal) => {
                let then = match self.next {
                    HoldPurpose::ReleaseAt { then: AfterRelease::Exit(outcome), .. } => AfterRelease::Exit(outcome),
                    HoldPurpose::RestartAt { .. }
                    | HoldPurpose::RestartAfterRenewal
                    | HoldPurpose::ReleaseAt { .. } => AfterRelease::Exit(Outcome::Stopped(signal)),
                };
                let held = (self.term, HeldLease::Valid(self.lease));
                return become_ousted_hook(context, now, held, self.renew_at, (then, true));
            }
            Input::Ask => self.renew_at = now,
            Input::Resign => {
                let then = match self.next {
                    HoldPurpose::ReleaseAt { then, .. } => then,
                    HoldPurpose::RestartAt { .. } | HoldPurpose::RestartAfterRenewal => after_loss(context),
                };
                let held = (self.term, HeldLease::Valid(self.lease));
                return become_ousted_hook(context, now, held, self.renew_at, (then, false));
            }
            Input::KeeperDied => {
                context.notice(Notice::KeeperDied);
                let at = context.restart_tracker.held_until();
                self.next = HoldPurpose::ReleaseAt { at, then: AfterRelease::Exit(Outcome::KeeperDied) };
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
        State::LeadingIdle(self)
    }

    fn pass_time(self, context: &mut Context, now: Time) -> State {
        match self.next {
            HoldPurpose::RestartAt { .. } | HoldPurpose::RestartAfterRenewal if now >= self.lease.stop_by => {
                return self.run_out(context, now);
            }
            HoldPurpose::ReleaseAt { at, then } if now >= at => {
                let held = (self.term, HeldLease::Valid(self.lease));
                return become_ousted_hook(context, now, held, self.renew_at, (then, false));
            }
            HoldPurpose::RestartAt { .. } | HoldPurpose::RestartAfterRenewal | HoldPurpose::ReleaseAt { .. } => {}
        }
        if context.store_requests.is_idle() && now >= self.renew_at {
            context.renew(now);
        }
        State::LeadingIdle(self)
    }

    /// The restart, if it is due. The last thing that is looked at: by then it is known that nobody has asked us to stop, and
    /// that nothing says the lease is lost.
    pub(super) fn restart_if_due(mut self, context: &mut Context, now: Time) -> State {
        match self.next {
            HoldPurpose::RestartAt { at } if now >= at => {
                if self.lease.stop_by.since(now) > context.timing.renew() {
                    return restart(context, now, self.term, self.lease, self.renew_at);
                }
                self.next = HoldPurpose::RestartAfterRenewal;
            }
            HoldPurpose::RestartAt { .. } | HoldPurpose::RestartAfterRenewal | HoldPurpose::ReleaseAt { .. } => {}
        }
        State::LeadingIdle(self)
    }

    /// No renewal was credited in time. The store may still hold something for us, so it is given back.
    fn run_out(self, context: &mut Context, now: Time) -> State {
        context.notice(Notice::LostAtRest { term: self.term, reason: Reason::RunningOut });
        let then = after_loss(context);
        become_ousted_hook(context, now, (self.term, HeldLease::Expired(self.lease)), self.renew_at, (then, false))
    }

    /// There is nothing to kill and nothing to give back.
    fn lose(self, context: &mut Context, now: Time) -> State {
        context.notice(Notice::LostAtRest { term: self.term, reason: Reason::Lost });
        let then = match self.next {
            HoldPurpose::RestartAt { .. } | HoldPurpose::RestartAfterRenewal => after_loss(context),
            HoldPurpose::ReleaseAt { then, .. } => then,
        };
        become_ousted_hook(context, now, (self.term, HeldLease::Lost), self.renew_at, (then, false))
    }

    pub(super) fn wake_at(&self, idle: bool) -> Time {
        let next = match self.next {
            HoldPurpose::RestartAt { at } => at.min(self.lease.stop_by),
            HoldPurpose::RestartAfterRenewal => self.lease.stop_by,
            HoldPurpose::ReleaseAt { at, .. } => at,
        };
        if idle { next.min(self.renew_at) } else { next }
    }
}
