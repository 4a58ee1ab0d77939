//! The term is over for us, nothing of it runs any more, and `--on-ousted` does: the last thing before the boundary is given
//! back, and also if there is nothing to give back, for another may lead already. It has its time, and no more.

use super::releasing::{AfterRelease, become_releasing};
use super::stopping::{HeldLease, Reaper};
use super::{Input, State, UNCONFIRMED_REPORT_INTERVAL};
use crate::Context;
use crate::event::{
    Action, Answer, CommandEnd, Hook, HookFailure, NotStarted, Notice, Outcome, Program, Renewed, Term,
};
use crate::mutation::Mutation;
use crate::time::Time;
use crate::timing::KILL_ALLOWANCE;

#[derive(Debug)]
pub(crate) struct OustedHook {
    pub(super) term: Term,
    hold: HeldLease,
    renew_at: Time,
    then: AfterRelease,
    /// When it is killed from here, should the keeper not have done it. Never before it runs: the order to start it may have
    /// to wait for room in the keeper's socket, and a hook that has not had its time is not killed for that.
    kill_at: Time,
    killed: bool,
    stop_asked: bool,
    tell_at: Time,
    reaper: Reaper,
}

/// Only with an empty tree. What follows is the same with a hook or without.
pub(super) fn become_ousted_hook(
    context: &mut Context,
    now: Time,
    (term, hold): (Term, HeldLease),
    renew_at: Time,
    (then, stop_asked): (AfterRelease, bool),
) -> State {
    let left_out = context.mutated(Mutation::NotOustedWhenLost) && matches!(hold, HeldLease::Lost);
    if !context.policy.hooks.on_ousted || left_out {
        return leave(context, now, term, hold, then);
    }
    if context.keeper_died {
        context.notice(Notice::HookFailed { hook: Hook::OnOusted, failure: HookFailure::NoKeeper });
        return leave(context, now, term, hold, then);
    }
    context.end_hold(now);
    context.start(Program::OnOusted { term });
    let ousting = OustedHook {
        term,
        hold,
        renew_at,
        then,
        kill_at: Time::NEVER,
        killed: false,
        stop_asked,
        tell_at: Time::NEVER,
        reaper: Reaper::Keeper,
    };
    if context.mutated(Mutation::ReleaseBeforeOusted) {
        return ousting.emptied(context, now);
    }
    ousting.next(context, now, Input::Time)
}

/// Nothing runs any more, and the boundary goes to whoever is next.
fn leave(context: &mut Context, now: Time, term: Term, hold: HeldLease, then: AfterRelease) -> State {
    match hold {
        HeldLease::Valid(_) | HeldLease::Expired(_) => become_releasing(context, now, Some(term), then),
        HeldLease::Lost => {
            context.keeper.reset();
            context.end_hold(now);
            then.follow(context, now)
        }
    }
}

impl OustedHook {
    pub(super) fn next(mut self, context: &mut Context, now: Time, input: Input) -> State {
        match input {
            Input::Time => self.pass_time(context, now),
            Input::Answer(Answer::Renew(answer)) => match (answer, self.hold) {
                // Nothing of the term runs: what is renewed keeps the others off, and arms nobody.
                (Renewed::Credited { sent, .. }, HeldLease::Valid(_) | HeldLease::Expired(_)) => {
                    self.renew_at = (sent + context.timing.renew()).max(now);
                }
                (Renewed::Outdated | Renewed::Failed, HeldLease::Valid(_) | HeldLease::Expired(_)) => {
                    self.renew_at = now + context.backoff();
                }
                (Renewed::Lost, _) => self.lose(context),
                (Renewed::Credited { .. } | Renewed::Outdated | Renewed::Failed, HeldLease::Lost) => {}
            },
            Input::Ousted => self.lose(context),
            Input::NotStarted(why) => {
                let errno = match why {
                    NotStarted::Failed(errno) => errno,
                    NotStarted::TooLate => 0,
                };
                failed(context, HookFailure::CannotStart(errno));
                // Should the keeper think that something else is there, it is stopped.
                self.expect_its_end(context, now);
                context.act(Action::Stop { kill_at: self.kill_at });
            }
            Input::Exited(CommandEnd::Killed { escalated: true, .. }) => failed(context, HookFailure::TimedOut),
            Input::Exited(end) if end != CommandEnd::Exited(0) => failed(context, HookFailure::Ended(end)),
            Input::Empty => return self.emptied(context, now),
            Input::KeeperDied => {
                context.notice(Notice::KeeperDied);
                failed(context, HookFailure::NoKeeper);
                self.then = AfterRelease::Exit(Outcome::KeeperDied);
                self.killed = true;
                self.reaper = Reaper::Campaigner { sweep_at: now };
                self.tell_at = self.tell_at.min(now + KILL_ALLOWANCE);
                self.pass_time(context, now);
            }
            Input::Swept { empty } => match self.reaper {
                Reaper::Campaigner { .. } if empty => return self.emptied(context, now),
                Reaper::Campaigner { .. } | Reaper::Keeper => {}
            },
            Input::Stop(signal) => {
                // The second time they mean at once.
                if std::mem::replace(&mut self.stop_asked, true) {
                    self.kill_at = self.kill_at.min(now);
                    self.tell_at = self.tell_at.min(now + KILL_ALLOWANCE);
                    self.pass_time(context, now);
                }
                match self.then {
                    AfterRelease::Campaign(_) | AfterRelease::CampaignAfter(_) | AfterRelease::CoolDown(_) => {
                        self.then = AfterRelease::Exit(Outcome::Stopped(signal));
                    }
                    AfterRelease::Exit(_) => {}
                }
            }
            Input::Started(_) => self.expect_its_end(context, now),
            Input::Exited(_)
            | Input::Hint
            | Input::Leader(_)
            | Input::Idle
            | Input::Cleared
            | Input::Expired
            | Input::Answer(Answer::Campaign(_) | Answer::Release(_))
            | Input::Forward(_)
            | Input::Ask
            | Input::Resign => {}
        }
        State::OustedHook(self)
    }

    fn pass_time(&mut self, context: &mut Context, now: Time) {
        if now >= self.kill_at && !std::mem::replace(&mut self.killed, true) {
            context.act(Action::Kill);
        }
        if now >= self.tell_at {
            context.notice(Notice::Unconfirmed { term: self.term });
            self.tell_at = now + UNCONFIRMED_REPORT_INTERVAL;
        }
        self.reaper.sweep_if_due(context, now);
        if context.store_requests.is_idle() && now >= self.renew_at && !matches!(self.hold, HeldLease::Lost) {
            context.renew(now);
        }
    }

    /// The time-out is the keeper's to enforce: it counts from the start.
    fn expect_its_end(&mut self, context: &Context, now: Time) {
        self.kill_at = self.kill_at.min(now + context.policy.hooks.timeout + KILL_ALLOWANCE);
        self.tell_at = self.tell_at.min(self.kill_at + KILL_ALLOWANCE);
    }

    /// There is nothing to kill for it: the hook is for this case, too.
    fn lose(&mut self, context: &mut Context) {
        self.hold = HeldLease::Lost;
        context.store_requests.abandon();
    }

    /// The hook's tree is confirmed empty (K6).
    fn emptied(self, context: &mut Context, now: Time) -> State {
        leave(context, now, self.term, self.hold, self.then)
    }

    pub(super) fn wake_at(&self, idle: bool) -> Time {
        let renew_at = match self.hold {
            HeldLease::Valid(_) | HeldLease::Expired(_) if idle => self.renew_at,
            HeldLease::Valid(_) | HeldLease::Expired(_) | HeldLease::Lost => Time::NEVER,
        };
        let kill_at = if self.killed { Time::NEVER } else { self.kill_at };
        kill_at.min(renew_at).min(self.tell_at).min(self.reaper.wake_at())
    }
}

fn failed(context: &mut Context, failure: HookFailure) {
    context.notice(Notice::HookFailed { hook: Hook::OnOusted, failure });
}
