//! The leader: the lease is renewed, and the command may live. Before it, `--on-elected` does, if there is one.

use std::time::Duration;

use super::stopping::Hold;
use super::{Input, State, VERIFY_WITHIN, credit, next_renewal};
use crate::Core;
use crate::event::{Action, Answer, CommandEnd, Hook, HookFailure, Job, NotStarted, Reason, Renewed, Report};
use crate::event::{Signal, Term};
use crate::runs::Sequel;
use crate::sabotage::Sabotage;
use crate::time::Time;
use crate::timing::{KILL_ALLOWANCE, Lease};

#[derive(Debug)]
pub(crate) struct Leading {
    pub(super) term: Term,
    pub(super) lease: Lease,
    pub(super) renew_at: Time,
    job: Job,
    stage: Stage,
    /// If the keeper still finds it too late for a start then, we resign (K5).
    resign_at: Time,
    /// If the hook is not over by then, it counts as failed, and so does a keeper that lets it go on.
    accept_by: Time,
    /// Signals for the command, which does not run yet.
    kept: Vec<Signal>,
}

/// Of the present job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The keeper has been told to start it.
    Starting,
    /// It was too late for the lease that was armed: again after the next credited renewal, and once the keeper has said that
    /// nothing is left of the start that it refused (K5).
    Deferred {
        /// The keeper has said so, or there was none.
        cleared: bool,
        /// A renewal has been credited since.
        credited: bool,
    },
    Running,
    /// The hook said yes; what it left behind is being stopped (K10).
    Accepted,
    /// There is no command: we lead, and that is all.
    Idle,
}

/// Only with a lease that was credited, with more than one renewal left in it (K5), and without a follower.
pub(super) fn become_leading(core: &mut Core, now: Time, term: Term, lease: Lease) -> State {
    core.report(Report::Elected { term });
    core.highest_term = core.highest_term.max(term);
    core.low_terms = 0;
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
        let (resign_at, accept_by, kept) = (never, never, Vec::new());
        let mut leading = Leading { term, lease, renew_at, job, stage, resign_at, accept_by, kept };
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
                    for signal in std::mem::take(&mut self.kept) {
                        core.act(Action::Forward(signal));
                    }
                }
                self.stage = Stage::Running;
            }
            Input::Idle => self.stage = Stage::Idle,
            Input::NotStarted(NotStarted::TooLate) => {
                self.stage = Stage::Deferred { cleared: false, credited: false };
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
            Input::Empty | Input::Cleared => self.cleared(core, now),
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
            // A hint is another candidate's business, or looked into by the next renewal.
            Input::Hint
            | Input::Leader(_)
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
        if matches!(self.stage, Stage::Deferred { .. }) && now >= self.resign_at {
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

    /// Signals are for the command, and for nobody before it: until it has executed they are kept, each once, as a process keeps
    /// what it blocks.
    fn forward(&mut self, core: &mut Core, signal: Signal) {
        match self.stage {
            Stage::Running if self.is_command() => core.act(Action::Forward(signal)),
            Stage::Idle => {}
            Stage::Starting | Stage::Deferred { .. } | Stage::Accepted | Stage::Running => {
                if !self.kept.contains(&signal) {
                    self.kept.push(signal);
                }
            }
        }
    }

    /// When a start that was too late, or a hook, has had its time.
    pub(super) fn gives_up_at(&self) -> Time {
        match self.stage {
            Stage::Deferred { .. } => self.resign_at,
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
                self.renew_at = next_renewal(core, now, self.lease.sent);
                if let Stage::Deferred { credited, .. } = &mut self.stage {
                    *credited = true;
                    self.start_again(core, now);
                }
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
        (self.job, self.accept_by) = (job, Time::NEVER);
        self.stage = Stage::Deferred { cleared: true, credited: false };
        self.resign_at = now + core.timing.ttl().unwrap_or(VERIFY_WITHIN);
        self.renew_at = now;
    }

    /// Nothing is left of a start that was refused. Of any other stage this word says nothing.
    fn cleared(&mut self, core: &mut Core, now: Time) {
        if let Stage::Deferred { cleared, .. } = &mut self.stage {
            *cleared = true;
            self.start_again(core, now);
        }
    }

    /// K5: a refused start is retried with a credited renewal of which more than one interval is left, and only once the keeper
    /// has confirmed that nothing of the refused one is left.
    fn start_again(&mut self, core: &mut Core, now: Time) {
        let Stage::Deferred { cleared, credited } = self.stage else { return };
        if !credited || !(cleared || core.breaks(Sabotage::StartsBesideRefused)) {
            return;
        }
        if self.lease.stop_by.since(now) > core.timing.renew() {
            let job = self.job;
            return self.start(core, now, job);
        }
        self.stage = Stage::Deferred { cleared, credited: false };
        self.renew_at = self.renew_at.min(now);
    }

    /// We are not to lead after all.
    fn not_accepted(self, core: &mut Core, now: Time, failure: HookFailure) -> State {
        core.report(Report::HookFailed { hook: Hook::OnElected, failure });
        let hold = Hold::Lease(self.lease);
        self.become_stopping(core, now, Reason::NotAccepted, hold)
    }
}
