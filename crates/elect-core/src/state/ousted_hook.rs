//! The term is over for us, nothing of it runs any more, and `--on-ousted` runs, with a time limit. It is the last step
//! before the boundary is given back, and also runs if there is nothing to give back, for another may lead already.

use super::stopping::{HeldLease, Reaper};
use super::transition::{AfterRelease, Transition};
use super::{Facts, Step};
use crate::context::Context;
use crate::end_report::EndReport;
use crate::input::{ControlInput, Input, KeeperInput, StoreInput};
use crate::{Action, Answer, CommandEnd, Hook, HookFailure, KILL_ALLOWANCE, NotStarted, Notice, Outcome, Phase};
use crate::{Renewed, Signal, Term, Time};

#[derive(Debug)]
pub(crate) struct OustedHook {
    term: Term,
    held: HeldLease,
    renew_at: Time,
    then: AfterRelease,
    /// The time at which the campaigner has the hook killed if the keeper has not. There is none before the hook runs:
    /// the order to start it may have to wait for room in the keeper's socket, and its time limit does not count until
    /// then.
    kill_at: Time,
    killed: bool,
    stop_asked: bool,
    /// The time of the next notice that the tree is not confirmed empty.
    report: EndReport,
    reaper: Reaper,
}

impl OustedHook {
    pub(super) fn new(term: Term, held: HeldLease, renew_at: Time, then: AfterRelease, stop_asked: bool) -> OustedHook {
        let (kill_at, report, reaper) = (Time::NEVER, EndReport::NEVER, Reaper::Keeper);
        OustedHook { term, held, renew_at, then, kill_at, killed: false, stop_asked, report, reaper }
    }

    pub(super) fn next(&mut self, context: &mut Context, now: Time, input: Input) -> Step {
        match input {
            Input::Time => self.pass_time(context, now),
            Input::Store(reply) => self.on_store(context, now, reply),
            Input::Keeper(word) => return self.on_keeper(context, now, word),
            Input::Control(ControlInput::Stop(signal)) => self.stop(context, now, signal),
            Input::Control(_) => {}
        }
        Step::Stay
    }

    fn on_store(&mut self, context: &mut Context, now: Time, reply: StoreInput) {
        match reply {
            StoreInput::Answer(Answer::Renew(answer)) => match (answer, self.held) {
                // The term is over. Renewing only keeps the boundary reserved; the keeper's deadline is not extended.
                (Renewed::Credited { sent, .. }, HeldLease::Valid(_) | HeldLease::Expired(_)) => {
                    self.renew_at = (sent + context.timing.renew()).max(now);
                }
                (Renewed::Outdated | Renewed::Failed, HeldLease::Valid(_) | HeldLease::Expired(_)) => {
                    self.renew_at = now + context.backoff();
                }
                (Renewed::Lost, _) => self.lose(context),
                (Renewed::Credited { .. } | Renewed::Outdated | Renewed::Failed, HeldLease::Lost) => {}
            },
            StoreInput::Ousted => self.lose(context),
            StoreInput::Answer(_) | StoreInput::Hint | StoreInput::LeaderObserved(_) => {}
        }
    }

    fn on_keeper(&mut self, context: &mut Context, now: Time, word: KeeperInput) -> Step {
        match word {
            KeeperInput::Started(_) => self.expect_its_end(context, now),
            KeeperInput::NotStarted(why) => {
                let errno = match why {
                    NotStarted::Failed(errno) => errno,
                    NotStarted::TooLate => 0,
                };
                failed(context, HookFailure::CannotStart(errno));
                // If the keeper still has another program running, it is stopped.
                self.expect_its_end(context, now);
                context.act(Action::Stop { kill_at: self.kill_at });
            }
            KeeperInput::Exited(CommandEnd::Killed { escalated: true, .. }) => failed(context, HookFailure::TimedOut),
            KeeperInput::Exited(end) if end != CommandEnd::Exited(0) => failed(context, HookFailure::Ended(end)),
            KeeperInput::Empty => return self.emptied(),
            KeeperInput::Died => {
                context.notice(Notice::KeeperDied);
                failed(context, HookFailure::NoKeeper);
                self.then = AfterRelease::Exit(Outcome::KeeperDied);
                self.killed = true;
                self.reaper = Reaper::Campaigner { sweep_at: now };
                self.report.bring_forward(now, now);
                self.pass_time(context, now);
            }
            KeeperInput::Swept { empty } => match self.reaper {
                Reaper::Campaigner { .. } if empty => return self.emptied(),
                Reaper::Campaigner { .. } | Reaper::Keeper => {}
            },
            KeeperInput::Exited(_) | KeeperInput::NoCommand | KeeperInput::Cleared | KeeperInput::Expired => {}
        }
        Step::Stay
    }

    /// A second stop kills at once.
    fn stop(&mut self, context: &mut Context, now: Time, signal: Signal) {
        if std::mem::replace(&mut self.stop_asked, true) {
            self.kill_at = self.kill_at.min(now);
            self.report.bring_forward(now, now);
            self.pass_time(context, now);
        }
        self.then.replace_campaign(Outcome::Stopped(signal));
    }

    fn pass_time(&mut self, context: &mut Context, now: Time) {
        if now >= self.kill_at && !std::mem::replace(&mut self.killed, true) {
            context.act(Action::Kill);
        }
        if self.report.is_due(now) {
            context.notice(Notice::Unconfirmed { term: self.term });
        }
        self.reaper.sweep_if_due(context, now);
        if context.store_requests.is_idle() && now >= self.renew_at && !matches!(self.held, HeldLease::Lost) {
            context.renew(now);
        }
    }

    /// The keeper enforces the time-out, which counts from the start.
    fn expect_its_end(&mut self, context: &Context, now: Time) {
        self.kill_at = self.kill_at.min(now + context.policy.hooks.timeout + KILL_ALLOWANCE);
        self.report.bring_forward(now, self.kill_at);
    }

    /// A loss does not kill the hook, which is made for this case too.
    fn lose(&mut self, context: &mut Context) {
        self.held = HeldLease::Lost;
        context.store_requests.abandon();
    }

    /// The hook's tree is confirmed empty (K6).
    fn emptied(&self) -> Step {
        Step::Go(Transition::LeaveAfterHook { term: self.term, held: self.held, then: self.then.clone() })
    }

    pub(super) fn facts(&self, context: &Context) -> Facts {
        let renew_at = match self.held {
            HeldLease::Valid(_) | HeldLease::Expired(_) => context.when_idle(self.renew_at),
            HeldLease::Lost => Time::NEVER,
        };
        let kill_at = if self.killed { Time::NEVER } else { self.kill_at };
        Facts {
            phase: Phase::OustedHook,
            term: Some(self.term),
            leading_term: None,
            lease: None,
            may_hold_tree: true,
            has_begun: false,
            background_hook_slot: None,
            wake_at: kill_at.min(renew_at).min(self.report.wake_at()).min(self.reaper.wake_at()),
        }
    }
}

fn failed(context: &mut Context, failure: HookFailure) {
    context.notice(Notice::HookFailed { hook: Hook::OnOusted, failure });
}
