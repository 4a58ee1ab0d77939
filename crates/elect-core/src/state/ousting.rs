//! The term is over for us, nothing of it runs any more, and `--on-ousted` does: the last thing before the boundary is given
//! back, and also if there is nothing to give back, for another may lead already. It has its time, and no more.

use super::releasing::{Then, become_releasing};
use super::stopping::{Hold, Reaper};
use super::{Input, State, UNCONFIRMED_AGAIN};
use crate::Core;
use crate::event::{Action, Answer, CommandEnd, Hook, HookFailure, Job, NotStarted, Outcome, Renewed, Report, Term};
use crate::sabotage::Sabotage;
use crate::time::Time;
use crate::timing::KILL_ALLOWANCE;

#[derive(Debug)]
pub(crate) struct Ousting {
    pub(super) term: Term,
    hold: Hold,
    renew_at: Time,
    then: Then,
    /// When it is killed from here, should the keeper not have done it. Never before it runs: the order to start it may have
    /// to wait for room in the keeper's socket, and a hook that has not had its time is not killed for that.
    kill_at: Time,
    killed: bool,
    stop_asked: bool,
    tell_at: Time,
    reaper: Reaper,
}

/// Only with an empty tree. What follows is the same with a hook or without.
pub(super) fn become_ousting(
    core: &mut Core,
    now: Time,
    (term, hold): (Term, Hold),
    renew_at: Time,
    (then, stop_asked): (Then, bool),
) -> State {
    let left_out = core.breaks(Sabotage::NotOustedWhenLost) && matches!(hold, Hold::Nothing);
    if !core.wishes.hooks.on_ousted || left_out {
        return leave(core, now, term, hold, then);
    }
    if core.keeper_died {
        core.report(Report::HookFailed { hook: Hook::OnOusted, failure: HookFailure::NoKeeper });
        return leave(core, now, term, hold, then);
    }
    core.end_hold(now);
    core.start(Job::OnOusted { term });
    let ousting = Ousting {
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
    if core.breaks(Sabotage::ReleaseBeforeOusted) {
        return ousting.emptied(core, now);
    }
    ousting.next(core, now, Input::Time)
}

/// Nothing runs any more, and the boundary goes to whoever is next.
fn leave(core: &mut Core, now: Time, term: Term, hold: Hold, then: Then) -> State {
    match hold {
        Hold::Lease(_) | Hold::Over(_) => become_releasing(core, now, Some(term), then),
        Hold::Nothing => {
            core.keeper.rest();
            core.end_hold(now);
            then.follow(core, now)
        }
    }
}

impl Ousting {
    pub(super) fn next(mut self, core: &mut Core, now: Time, input: Input) -> State {
        match input {
            Input::Time => self.pass_time(core, now),
            Input::Answer(Answer::Renew(answer)) => match (answer, self.hold) {
                // Nothing of the term runs: what is renewed keeps the others off, and arms nobody.
                (Renewed::Credited { sent, .. }, Hold::Lease(_) | Hold::Over(_)) => {
                    self.renew_at = (sent + core.timing.renew()).max(now);
                }
                (Renewed::Outdated | Renewed::Failed, Hold::Lease(_) | Hold::Over(_)) => {
                    self.renew_at = now + core.backoff();
                }
                (Renewed::Lost, _) => self.lose(core),
                (Renewed::Credited { .. } | Renewed::Outdated | Renewed::Failed, Hold::Nothing) => {}
            },
            Input::Ousted => self.lose(core),
            Input::NotStarted(why) => {
                let errno = match why {
                    NotStarted::Failed(errno) => errno,
                    NotStarted::TooLate => 0,
                };
                failed(core, HookFailure::CannotStart(errno));
                // Should the keeper think that something else is there, it is stopped.
                self.expect_its_end(core, now);
                core.act(Action::Stop { kill_at: self.kill_at });
            }
            Input::Exited(CommandEnd::Killed { escalated: true, .. }) => failed(core, HookFailure::TimedOut),
            Input::Exited(end) if end != CommandEnd::Exited(0) => failed(core, HookFailure::Ended(end)),
            Input::Empty => return self.emptied(core, now),
            Input::KeeperDied => {
                core.report(Report::KeeperDied);
                failed(core, HookFailure::NoKeeper);
                self.then = Then::End(Outcome::KeeperDied);
                self.killed = true;
                self.reaper = Reaper::Campaigner { sweep_at: now };
                self.tell_at = self.tell_at.min(now + KILL_ALLOWANCE);
                self.pass_time(core, now);
            }
            Input::Swept { empty } => match self.reaper {
                Reaper::Campaigner { .. } if empty => return self.emptied(core, now),
                Reaper::Campaigner { .. } | Reaper::Keeper => {}
            },
            Input::Stop(signal) => {
                // The second time they mean at once.
                if std::mem::replace(&mut self.stop_asked, true) {
                    self.kill_at = self.kill_at.min(now);
                    self.tell_at = self.tell_at.min(now + KILL_ALLOWANCE);
                    self.pass_time(core, now);
                }
                match self.then {
                    Then::Stand(_) | Then::StandAfter(_) | Then::SitOut(_) => {
                        self.then = Then::End(Outcome::Stopped(signal));
                    }
                    Then::End(_) => {}
                }
            }
            Input::Started(_) => self.expect_its_end(core, now),
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
        State::Ousting(self)
    }

    fn pass_time(&mut self, core: &mut Core, now: Time) {
        if now >= self.kill_at && !std::mem::replace(&mut self.killed, true) {
            core.act(Action::Kill);
        }
        if now >= self.tell_at {
            core.report(Report::Unconfirmed { term: self.term });
            self.tell_at = now + UNCONFIRMED_AGAIN;
        }
        self.reaper.sweep_if_due(core, now);
        if core.requests.is_idle() && now >= self.renew_at && !matches!(self.hold, Hold::Nothing) {
            core.renew(now);
        }
    }

    /// The time-out is the keeper's to enforce: it counts from the start.
    fn expect_its_end(&mut self, core: &Core, now: Time) {
        self.kill_at = self.kill_at.min(now + core.wishes.hooks.timeout + KILL_ALLOWANCE);
        self.tell_at = self.tell_at.min(self.kill_at + KILL_ALLOWANCE);
    }

    /// There is nothing to kill for it: the hook is for this case, too.
    fn lose(&mut self, core: &mut Core) {
        self.hold = Hold::Nothing;
        core.requests.abandon();
    }

    /// The hook's tree is confirmed empty (K6).
    fn emptied(self, core: &mut Core, now: Time) -> State {
        leave(core, now, self.term, self.hold, self.then)
    }

    pub(super) fn wake_at(&self, idle: bool) -> Time {
        let renew_at = match self.hold {
            Hold::Lease(_) | Hold::Over(_) if idle => self.renew_at,
            Hold::Lease(_) | Hold::Over(_) | Hold::Nothing => Time::NEVER,
        };
        let kill_at = if self.killed { Time::NEVER } else { self.kill_at };
        kill_at.min(renew_at).min(self.tell_at).min(self.reaper.wake_at())
    }
}

fn failed(core: &mut Core, failure: HookFailure) {
    core.report(Report::HookFailed { hook: Hook::OnOusted, failure });
}
