//! The leader: the lease is renewed, and the command may live. Before it, `--on-elected` does, if there is one.

use std::time::Duration;

use super::stopping::Hold;
use super::{Input, State, VERIFY_WITHIN, credit, next_renewal};
use crate::election::Core;
use crate::election::event::{Action, Answer, CommandEnd, Hook, HookFailure, Job, NotStarted, Reason, Renewed, Report};
use crate::election::event::{Signal, Term};
use crate::election::runs::Sequel;
use crate::election::sabotage::Sabotage;
use crate::election::time::Time;
use crate::election::timing::{KILL_ALLOWANCE, Lease};

#[derive(Debug)]
pub(in crate::election) struct Leading {
    pub(super) term: Term,
    pub(super) lease: Lease,
    pub(super) renew_at: Time,
    job: Job,
    stage: Stage,
    /// If the keeper still finds it too late for a start then, we resign (K5).
    resign_at: Time,
    /// If the hook is not over by then, it counts as failed, and so does a keeper that lets it go on.
    accept_by: Time,
}

/// Of the present job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The keeper has been told to start it.
    Starting,
    /// It was too late for the lease that was armed: again after the next credited renewal (K5).
    Deferred,
    Running,
    /// The hook said yes; what it left behind is being stopped (K10).
    Accepted,
    /// There is no command: we lead, and that is all.
    Idle,
}

/// Only with a lease that was credited, with more than one renewal left in it (K5), and without a follower.
pub(super) fn become_leading(core: &mut Core, now: Time, term: Term, lease: Lease) -> State {
    core.report(Report::Elected { term });
    core.stands_until = None;
    core.runs.term_begins();
    core.arm(term, lease);
    let job = if core.wishes.hooks.on_elected { Job::OnElected { term } } else { Job::Command { term } };
    let renew_at = next_renewal(core, now, lease.sent);
    Leading::starting(core, now, job, (term, lease), renew_at)
}

/// Once more in the same term: with an empty tree, a lease that is still ours, and more than one renewal left in it (K5).
pub(super) fn restart(core: &mut Core, now: Time, term: Term, lease: Lease, renew_at: Time) -> State {
    core.runs.restarted(now);
    core.arm(term, lease);
    Leading::starting(core, now, Job::Command { term }, (term, lease), renew_at)
}

impl Leading {
    fn starting(core: &mut Core, now: Time, job: Job, (term, lease): (Term, Lease), renew_at: Time) -> State {
        let (stage, never) = (Stage::Starting, Time::NEVER);
        let mut leading = Leading { term, lease, renew_at, job, stage, resign_at: never, accept_by: never };
        leading.start(core, now, job);
        State::Leading(leading)
    }

    fn start(&mut self, core: &mut Core, now: Time, job: Job) {
        (self.job, self.stage) = (job, Stage::Starting);
        self.accept_by = match job {
            // The time-out is the keeper's to enforce: it counts from the start.
            Job::OnElected { .. } => now + core.wishes.hooks.timeout + KILL_ALLOWANCE,
            Job::Command { .. } | Job::OnOusted { .. } | Job::Follower => Time::NEVER,
        };
        core.start(job);
    }

    pub(super) fn next(mut self, core: &mut Core, now: Time, input: Input) -> State {
        match input {
            Input::Time => return self.pass_time(core, now),
            Input::Answer(Answer::Renew(answer)) => match answer {
                Renewed::Credited { sent, ttl } => return self.credited(core, now, sent, ttl),
                Renewed::Lost => return self.become_stopping(core, now, Reason::Lost, Hold::Nothing),
                Renewed::Outdated | Renewed::Failed => self.renew_at = now + core.backoff(),
            },
            Input::Ousted => return self.become_stopping(core, now, Reason::Lost, Hold::Nothing),
            Input::Started(pid) => {
                if self.is_command() {
                    core.report(Report::Started { term: self.term, pid });
                    core.runs.started(now);
                }
                self.stage = Stage::Running;
            }
            Input::Idle => self.stage = Stage::Idle,
            Input::NotStarted(NotStarted::TooLate) => {
                self.stage = Stage::Deferred;
                self.accept_by = Time::NEVER;
                // The first time only: a keeper that refuses again is not asked as fast as the store can answer.
                if self.resign_at == Time::NEVER {
                    self.resign_at = now + core.timing.ttl().unwrap_or(VERIFY_WITHIN);
                    self.renew_at = now;
                }
            }
            Input::NotStarted(NotStarted::Failed(errno)) => {
                if !self.is_command() {
                    return self.not_accepted(core, now, HookFailure::CannotStart(errno));
                }
                let hold = Hold::Lease(self.lease);
                return self.become_stopping(core, now, Reason::CannotStart(errno), hold);
            }
            Input::Exited(end) if self.is_command() => return self.command_ended(core, now, end),
            Input::Exited(end) => return self.hook_ended(core, now, end),
            // K10: only now is there nothing left of the hook.
            Input::Empty if self.stage == Stage::Accepted => self.go_on(core, now),
            // The keeper's clock is ours; if it was first by a hair, the term is over all the same.
            Input::Expired => {
                let hold = Hold::Over(self.lease);
                return self.become_stopping(core, now, Reason::RunningOut, hold);
            }
            Input::Stop(signal) => {
                let hold = Hold::Lease(self.lease);
                return self.become_stopping(core, now, Reason::Asked(signal), hold);
            }
            Input::KeeperDied => {
                let hold = Hold::Lease(self.lease);
                let state = self.become_stopping(core, now, Reason::KeeperDied, hold);
                return state.next(core, now, Input::KeeperDied);
            }
            Input::Forward(signal) => self.forward(core, signal),
            Input::Ask => self.renew_at = now,
            Input::Resign => {
                let hold = Hold::Lease(self.lease);
                return self.become_stopping(core, now, Reason::Resigned, hold);
            }
            // A hint is another candidate's business, or looked into by the next renewal. "Empty" without the end of a
            // main process is of a start that never ran.
            Input::Hint
            | Input::Leader(_)
            | Input::Empty
            | Input::Swept { .. }
            | Input::Answer(Answer::Campaign(_) | Answer::Release(_)) => {}
        }
        State::Leading(self)
    }

    fn pass_time(self, core: &mut Core, now: Time) -> State {
        if now >= self.lease.stop_by {
            let hold = Hold::Over(self.lease);
            return self.become_stopping(core, now, Reason::RunningOut, hold);
        }
        if self.stage == Stage::Deferred && now >= self.resign_at {
            let hold = Hold::Lease(self.lease);
            return self.become_stopping(core, now, Reason::RunningOut, hold);
        }
        if now >= self.accept_by {
            return self.not_accepted(core, now, HookFailure::TimedOut);
        }
        if core.requests.is_idle() && now >= self.renew_at {
            core.renew(now);
        }
        State::Leading(self)
    }

    fn is_command(&self) -> bool {
        match self.job {
            Job::Command { .. } => true,
            Job::OnElected { .. } | Job::OnOusted { .. } | Job::Follower => false,
        }
    }

    /// Whether the command runs, or would if there were one.
    pub(super) fn has_begun(&self) -> bool {
        self.is_command() && matches!(self.stage, Stage::Running | Stage::Idle)
    }

    /// Signals are for the command, and for nobody before it.
    fn forward(&self, core: &mut Core, signal: Signal) {
        if self.is_command() && self.stage == Stage::Running {
            core.act(Action::Forward(signal));
        }
    }

    /// When a start that was too late, or a hook, has had its time.
    pub(super) fn gives_up_at(&self) -> Time {
        match self.stage {
            Stage::Deferred => self.resign_at,
            Stage::Starting | Stage::Running | Stage::Accepted | Stage::Idle => self.accept_by,
        }
    }

    fn credited(mut self, core: &mut Core, now: Time, sent: Time, ttl: Option<Duration>) -> State {
        match credit(core, self.term, sent, ttl) {
            Ok(lease) => {
                // Deadlines only move forward (K1).
                if lease.sent > self.lease.sent {
                    self.lease = lease;
                    core.arm(self.term, lease);
                }
                if self.stage == Stage::Deferred {
                    let job = self.job;
                    self.start(core, now, job);
                }
                self.renew_at = next_renewal(core, now, self.lease.sent);
                State::Leading(self)
            }
            Err(error) => {
                core.report(Report::Unusable(error));
                let hold = Hold::Lease(self.lease);
                self.become_stopping(core, now, Reason::RunningOut, hold)
            }
        }
    }

    fn command_ended(self, core: &mut Core, now: Time, end: CommandEnd) -> State {
        core.report(Report::CommandEnded { term: self.term, end });
        core.runs.ended(now, core.timing.ttl());
        if core.breaks(Sabotage::RestartBesideTheOld) && matches!(core.sequel(now, end), Sequel::Restart(_)) {
            return restart(core, now, self.term, self.lease, self.renew_at);
        }
        let hold = Hold::Lease(self.lease);
        let State::Stopping(mut stopping) = self.become_stopping(core, now, Reason::CommandEnded, hold) else {
            unreachable!("become_stopping makes a stopping state")
        };
        stopping.end = Some(end);
        State::Stopping(stopping)
    }

    fn hook_ended(mut self, core: &mut Core, now: Time, end: CommandEnd) -> State {
        match end {
            CommandEnd::Exited(0) => {
                core.runs.accepted();
                self.stage = Stage::Accepted;
                State::Leading(self)
            }
            CommandEnd::Exited(_) | CommandEnd::Killed { .. } if core.breaks(Sabotage::CommandAfterFailedHook) => {
                self.stage = Stage::Accepted;
                State::Leading(self)
            }
            CommandEnd::Killed { escalated: true, .. } => self.not_accepted(core, now, HookFailure::TimedOut),
            CommandEnd::Exited(_) | CommandEnd::Killed { .. } => self.not_accepted(core, now, HookFailure::Ended(end)),
        }
    }

    /// The hook is over and nothing of it is left. K5: with one renewal or less in the lease, the next credit decides.
    fn go_on(&mut self, core: &mut Core, now: Time) {
        let job = Job::Command { term: self.term };
        if self.lease.stop_by.since(now) > core.timing.renew() {
            self.start(core, now, job);
            return;
        }
        (self.job, self.stage, self.accept_by) = (job, Stage::Deferred, Time::NEVER);
        self.resign_at = now + core.timing.ttl().unwrap_or(VERIFY_WITHIN);
        self.renew_at = now;
    }

    /// We are not to lead after all.
    fn not_accepted(self, core: &mut Core, now: Time, failure: HookFailure) -> State {
        core.report(Report::HookFailed { hook: Hook::OnElected, failure });
        let hold = Hold::Lease(self.lease);
        self.become_stopping(core, now, Reason::NotAccepted, hold)
    }
}
