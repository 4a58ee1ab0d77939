//! The boundary is ours and nothing of ours runs: between two runs of a command, or because the boundary was to be kept
//! for longer than the command took. The lease is renewed; there is no tree that could outlive it.

use std::time::Duration;

use super::stopping::HeldLease;
use super::transition::{AfterRelease, Transition};
use super::{Facts, Step};
use crate::context::Context;
use crate::input::{ControlInput, Input, KeeperInput, StoreInput};
use crate::{Answer, Lease, Notice, Outcome, Phase, Reason, Renewed, Term, Time};

#[derive(Debug)]
pub(crate) struct LeadingIdle {
    pub(super) term: Term,
    pub(super) lease: Lease,
    pub(super) renew_at: Time,
    pub(super) purpose: HoldPurpose,
}

/// The purpose for which the boundary is held.
#[derive(Debug)]
pub(super) enum HoldPurpose {
    /// The command is started again at this time.
    RestartAt { at: Time },
    /// The restart is due, but only one renewal or less is left in the lease: after the next credited one (K5).
    RestartAfterRenewal,
    /// The boundary is given back at this time. Lease expiry does not matter here: nothing will run in this term, and
    /// the store keeping others out is all that `--min-hold` promises.
    ReleaseAt { at: Time, then: AfterRelease },
}

impl LeadingIdle {
    pub(super) fn next(&mut self, context: &mut Context, now: Time, input: Input) -> Step {
        match input {
            Input::Time => return self.pass_time(context, now),
            Input::Store(StoreInput::Answer(Answer::Renew(answer))) => match answer {
                Renewed::Credited { sent, ttl } => return self.credited(context, now, sent, ttl),
                Renewed::Lost => return self.lose(context),
                Renewed::Outdated | Renewed::Failed => self.renew_at = now + context.backoff(),
            },
            Input::Store(StoreInput::Ousted) => return self.lose(context),
            Input::Keeper(KeeperInput::Died) => {
                context.notice(Notice::KeeperDied);
                let at = context.restart_tracker.held_until();
                self.purpose = HoldPurpose::ReleaseAt { at, then: AfterRelease::Exit(Outcome::KeeperDied) };
            }
            Input::Control(control) => return self.on_control(context, now, control),
            Input::Store(StoreInput::Answer(_) | StoreInput::Hint | StoreInput::LeaderObserved(_))
            | Input::Keeper(_) => {}
        }
        Step::Stay
    }

    fn on_control(&mut self, context: &mut Context, now: Time, control: ControlInput) -> Step {
        let held = HeldLease::Valid(self.lease);
        match control {
            // There is no program to wait for, and a hold serves a command that is let run its course.
            ControlInput::Stop(signal) => {
                let mut then = AfterRelease::Exit(Outcome::Stopped(signal));
                if let HoldPurpose::ReleaseAt { then: AfterRelease::Exit(outcome), .. } = &self.purpose {
                    then = AfterRelease::Exit(outcome.clone());
                }
                self.leave(held, then, true)
            }
            ControlInput::Resign => match &self.purpose {
                HoldPurpose::RestartAt { .. } | HoldPurpose::RestartAfterRenewal => {
                    let then = context.after_resign(now);
                    self.hold_or_leave(context, now, then)
                }
                // H7: the command has ended, and the hold goes on.
                HoldPurpose::ReleaseAt { .. } => Step::Stay,
            },
            ControlInput::ConfirmLeadership => {
                self.renew_at = now;
                Step::Stay
            }
            ControlInput::Forward(_) => Step::Stay,
        }
    }

    fn pass_time(&mut self, context: &mut Context, now: Time) -> Step {
        match &self.purpose {
            HoldPurpose::RestartAt { .. } | HoldPurpose::RestartAfterRenewal if now >= self.lease.stop_by => {
                return self.run_out(context);
            }
            HoldPurpose::ReleaseAt { at, then } if now >= *at => {
                return self.leave(HeldLease::Valid(self.lease), then.clone(), false);
            }
            HoldPurpose::RestartAt { .. } | HoldPurpose::RestartAfterRenewal if context.eligibility.drained => {
                let then = context.after_ineligible(now, Reason::Drained);
                return self.hold_or_leave(context, now, then);
            }
            HoldPurpose::RestartAt { .. } | HoldPurpose::RestartAfterRenewal | HoldPurpose::ReleaseAt { .. } => {}
        }
        if context.store_requests.is_idle() && now >= self.renew_at {
            context.renew(now);
        }
        Step::Stay
    }

    fn credited(&mut self, context: &mut Context, now: Time, sent: Time, ttl: Option<Duration>) -> Step {
        match (context.credit(self.term, sent, ttl), &self.purpose) {
            (Ok(new), _) => {
                // The keeper is armed as ever: should the campaigner die now, it knows how long there is a lease (K2).
                if new.sent > self.lease.sent {
                    self.lease = new;
                    context.arm(self.term, new);
                }
                self.renew_at = context.next_renewal(now, sent);
                if matches!(self.purpose, HoldPurpose::RestartAfterRenewal) {
                    self.purpose = HoldPurpose::RestartAt { at: now };
                }
                Step::Stay
            }
            (Err(_), HoldPurpose::ReleaseAt { .. }) => {
                self.renew_at = context.next_renewal(now, sent);
                Step::Stay
            }
            (Err(error), HoldPurpose::RestartAt { .. } | HoldPurpose::RestartAfterRenewal) => {
                context.notice(Notice::Unusable(error));
                self.run_out(context)
            }
        }
    }

    /// The restart, if it is due. This comes after all inputs: by then no stop has been asked for, and the lease is not
    /// known to be lost.
    pub(super) fn restart_if_due(&mut self, context: &Context, now: Time) -> Step {
        match self.purpose {
            HoldPurpose::RestartAt { at } if now >= at => {
                if self.lease.stop_by.since(now) > context.timing.renew() {
                    let LeadingIdle { term, lease, renew_at, .. } = *self;
                    return Step::Go(Transition::Restart { term, lease, renew_at });
                }
                self.purpose = HoldPurpose::RestartAfterRenewal;
            }
            HoldPurpose::RestartAt { .. } | HoldPurpose::RestartAfterRenewal | HoldPurpose::ReleaseAt { .. } => {}
        }
        Step::Stay
    }

    /// No renewal was credited in time. The store may still hold something for us, so it is given back.
    fn run_out(&self, context: &mut Context) -> Step {
        context.notice(Notice::LostAtRest { term: self.term, reason: Reason::RunningOut });
        self.leave(HeldLease::Expired(self.lease), context.after_loss(), false)
    }

    /// There is nothing to kill and nothing to give back.
    fn lose(&self, context: &mut Context) -> Step {
        context.notice(Notice::LostAtRest { term: self.term, reason: Reason::Lost });
        self.leave(HeldLease::Lost, self.after_hold(context), false)
    }

    /// Whether the command is to be started again.
    pub(super) fn is_between_runs(&self) -> bool {
        match self.purpose {
            HoldPurpose::RestartAt { .. } | HoldPurpose::RestartAfterRenewal => true,
            HoldPurpose::ReleaseAt { .. } => false,
        }
    }

    fn after_hold(&self, context: &Context) -> AfterRelease {
        match &self.purpose {
            HoldPurpose::RestartAt { .. } | HoldPurpose::RestartAfterRenewal => context.after_loss(),
            HoldPurpose::ReleaseAt { then, .. } => then.clone(),
        }
    }

    /// No further run: the boundary is given back, once `--min-hold` is over (H7).
    fn hold_or_leave(&mut self, context: &mut Context, now: Time, then: AfterRelease) -> Step {
        let at = context.restart_tracker.held_until();
        if now >= at {
            return self.leave(HeldLease::Valid(self.lease), then, false);
        }
        context.notice(Notice::LeadingIdle { term: self.term, left: at.since(now) });
        self.purpose = HoldPurpose::ReleaseAt { at, then };
        Step::Stay
    }

    fn leave(&self, held: HeldLease, then: AfterRelease, stop_asked: bool) -> Step {
        let LeadingIdle { term, renew_at, .. } = *self;
        Step::Go(Transition::Leave { term, held, renew_at, then, stop_asked })
    }

    pub(super) fn facts(&self, context: &Context) -> Facts {
        let purpose_at = match self.purpose {
            HoldPurpose::RestartAt { at } => at.min(self.lease.stop_by),
            HoldPurpose::RestartAfterRenewal => self.lease.stop_by,
            HoldPurpose::ReleaseAt { at, .. } => at,
        };
        Facts {
            phase: Phase::LeadingIdle,
            term: Some(self.term),
            leading_term: Some(self.term),
            lease: Some(self.lease),
            may_hold_tree: false,
            has_begun: false,
            background_hook_slot: None,
            wake_at: purpose_at.min(context.when_idle(self.renew_at)),
        }
    }
}
