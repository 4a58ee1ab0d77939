//! The leader: the lease is renewed, and the command may live. Before it, `--on-elected` does, if there is one.

use std::time::Duration;

use super::stopping::HeldLease;
use super::{Input, State, VERIFY_TIMEOUT_NO_TTL, credit, next_renewal};
use crate::Context;
use crate::event::{Action, Answer, CommandEnd, Hook, HookFailure, NotStarted, Notice, Program, Reason, Renewed};
use crate::event::{Signal, Term};
use crate::mutation::Mutation;
use crate::restart_tracker::AfterExit;
use crate::time::Time;
use crate::timing::{KILL_ALLOWANCE, Lease};

#[derive(Debug)]
pub(crate) struct Leading {
    pub(super) term: Term,
    pub(super) lease: Lease,
    pub(super) renew_at: Time,
    program: Program,
    stage: LeadingStage,
    /// If the keeper still finds it too late for a start then, we resign (K5).
    resign_at: Time,
    /// If the hook is not over by then, it counts as failed, and so does a keeper that lets it go on.
    accept_by: Time,
    /// Signals for the command, which does not run yet.
    kept: Vec<Signal>,
}

/// Of the present program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LeadingStage {
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
pub(super) fn become_leading(context: &mut Context, now: Time, term: Term, lease: Lease) -> State {
    context.notice(Notice::Elected { term });
    context.highest_term = context.highest_term.max(term);
    context.low_terms = 0;
    context.campaign_deadline = None;
    context.restart_tracker.term_begins();
    context.arm(term, lease);
    let program = if context.policy.hooks.on_elected { Program::OnElected { term } } else { Program::Command { term } };
    let renew_at = next_renewal(context, now, lease.sent);
    Leading::starting(context, now, program, (term, lease), renew_at)
}

/// Once more in the same term: with an empty tree, a lease that is still ours, and more than one renewal left in it (K5).
pub(super) fn restart(context: &mut Context, now: Time, term: Term, lease: Lease, renew_at: Time) -> State {
    context.restart_tracker.restarted(now);
    context.arm(term, lease);
    Leading::starting(context, now, Program::Command { term }, (term, lease), renew_at)
}

impl Leading {
    fn starting(
        context: &mut Context,
        now: Time,
        program: Program,
        (term, lease): (Term, Lease),
        renew_at: Time,
    ) -> State {
        let (stage, never) = (LeadingStage::Starting, Time::NEVER);
        let (resign_at, accept_by, kept) = (never, never, Vec::new());
        let mut leading = Leading { term, lease, renew_at, program, stage, resign_at, accept_by, kept };
        leading.start(context, now, program);
        State::Leading(leading)
    }

    fn start(&mut self, context: &mut Context, now: Time, program: Program) {
        (self.program, self.stage) = (program, LeadingStage::Starting);
        self.accept_by = match program {
            // The time-out is the keeper's to enforce: it counts from the start.
            Program::OnElected { .. } => now + context.policy.hooks.timeout + KILL_ALLOWANCE,
            Program::Command { .. } | Program::OnOusted { .. } | Program::Follower => Time::NEVER,
        };
        context.start(program);
    }

    pub(super) fn next(mut self, context: &mut Context, now: Time, input: Input) -> State {
        match input {
            Input::Time => return self.pass_time(context, now),
            Input::Answer(Answer::Renew(answer)) => match answer {
                Renewed::Credited { sent, ttl } => return self.credited(context, now, sent, ttl),
                Renewed::Lost => return self.become_stopping(context, now, Reason::Lost, HeldLease::Lost),
                Renewed::Outdated | Renewed::Failed => self.renew_at = now + context.backoff(),
            },
            Input::Ousted => return self.become_stopping(context, now, Reason::Lost, HeldLease::Lost),
            Input::Started(pid) => {
                if self.is_command() {
                    context.notice(Notice::Started { term: self.term, pid });
                    context.restart_tracker.started(now);
                    for signal in std::mem::take(&mut self.kept) {
                        context.act(Action::Forward(signal));
                    }
                }
                self.stage = LeadingStage::Running;
            }
            Input::Idle => self.stage = LeadingStage::Idle,
            Input::NotStarted(NotStarted::TooLate) => {
                self.stage = LeadingStage::Deferred { cleared: false, credited: false };
                self.accept_by = Time::NEVER;
                // The first time only: a keeper that refuses again is not asked as fast as the store can answer.
                if self.resign_at == Time::NEVER {
                    self.resign_at = now + context.timing.ttl().unwrap_or(VERIFY_TIMEOUT_NO_TTL);
                    self.renew_at = now;
                }
            }
            Input::NotStarted(NotStarted::Failed(errno)) => {
                if !self.is_command() {
                    return self.not_accepted(context, now, HookFailure::CannotStart(errno));
                }
                let hold = HeldLease::Valid(self.lease);
                return self.become_stopping(context, now, Reason::CannotStart(errno), hold);
            }
            Input::Exited(end) if self.is_command() => return self.command_ended(context, now, end),
            Input::Exited(end) => return self.hook_ended(context, now, end),
            // K10: only now is there nothing left of the hook.
            Input::Empty if self.stage == LeadingStage::Accepted => self.go_on(context, now),
            Input::Empty | Input::Cleared => self.cleared(context, now),
            // The keeper's clock is ours; if it was first by a hair, the term is over all the same.
            Input::Expired => {
                let hold = HeldLease::Expired(self.lease);
                return self.become_stopping(context, now, Reason::RunningOut, hold);
            }
            Input::Stop(signal) => {
                let hold = HeldLease::Valid(self.lease);
                return self.become_stopping(context, now, Reason::Asked(signal), hold);
            }
            Input::KeeperDied => {
                let hold = HeldLease::Valid(self.lease);
                let state = self.become_stopping(context, now, Reason::KeeperDied, hold);
                return state.next(context, now, Input::KeeperDied);
            }
            Input::Forward(signal) => self.forward(context, signal),
            Input::Ask => self.renew_at = now,
            Input::Resign => {
                let hold = HeldLease::Valid(self.lease);
                return self.become_stopping(context, now, Reason::Resigned, hold);
            }
            // A hint is another candidate's business, or looked into by the next renewal.
            Input::Hint
            | Input::Leader(_)
            | Input::Swept { .. }
            | Input::Answer(Answer::Campaign(_) | Answer::Release(_)) => {}
        }
        State::Leading(self)
    }

    fn pass_time(self, context: &mut Context, now: Time) -> State {
        if now >= self.lease.stop_by {
            let hold = HeldLease::Expired(self.lease);
            return self.become_stopping(context, now, Reason::RunningOut, hold);
        }
        if matches!(self.stage, LeadingStage::Deferred { .. }) && now >= self.resign_at {
            let hold = HeldLease::Valid(self.lease);
            return self.become_stopping(context, now, Reason::RunningOut, hold);
        }
        if now >= self.accept_by {
            return self.not_accepted(context, now, HookFailure::TimedOut);
        }
        if context.store_requests.is_idle() && now >= self.renew_at {
            context.renew(now);
        }
        State::Leading(self)
    }

    fn is_command(&self) -> bool {
        match self.program {
            Program::Command { .. } => true,
            Program::OnElected { .. } | Program::OnOusted { .. } | Program::Follower => false,
        }
    }

    /// Whether the command runs, or would if there were one.
    pub(super) fn has_begun(&self) -> bool {
        self.is_command() && matches!(self.stage, LeadingStage::Running | LeadingStage::Idle)
    }

    /// Signals are for the command, and for nobody before it: until it has executed they are kept, each once, as a process keeps
    /// what it blocks.
    fn forward(&mut self, context: &mut Context, signal: Signal) {
        match self.stage {
            LeadingStage::Running if self.is_command() => context.act(Action::Forward(signal)),
            LeadingStage::Idle => {}
            LeadingStage::Starting | LeadingStage::Deferred { .. } | LeadingStage::Accepted | LeadingStage::Running => {
                if !self.kept.contains(&signal) {
                    self.kept.push(signal);
                }
            }
        }
    }

    /// When a start that was too late, or a hook, has had its time.
    pub(super) fn gives_up_at(&self) -> Time {
        match self.stage {
            LeadingStage::Deferred { .. } => self.resign_at,
            LeadingStage::Starting | LeadingStage::Running | LeadingStage::Accepted | LeadingStage::Idle => {
                self.accept_by
            }
        }
    }

    fn credited(mut self, context: &mut Context, now: Time, sent: Time, ttl: Option<Duration>) -> State {
        match credit(context, self.term, sent, ttl) {
            Ok(lease) => {
                // Deadlines only move forward (K1).
                if lease.sent > self.lease.sent {
                    self.lease = lease;
                    context.arm(self.term, lease);
                }
                self.renew_at = next_renewal(context, now, self.lease.sent);
                if let LeadingStage::Deferred { credited, .. } = &mut self.stage {
                    *credited = true;
                    self.start_again(context, now);
                }
                State::Leading(self)
            }
            Err(error) => {
                context.notice(Notice::Unusable(error));
                let hold = HeldLease::Valid(self.lease);
                self.become_stopping(context, now, Reason::RunningOut, hold)
            }
        }
    }

    fn command_ended(self, context: &mut Context, now: Time, end: CommandEnd) -> State {
        context.notice(Notice::CommandEnded { term: self.term, end });
        context.restart_tracker.ended(now, context.timing.ttl());
        if context.mutated(Mutation::RestartBesideTheOld)
            && matches!(context.after_exit(now, end), AfterExit::Restart(_))
        {
            return restart(context, now, self.term, self.lease, self.renew_at);
        }
        let hold = HeldLease::Valid(self.lease);
        let State::Stopping(mut stopping) = self.become_stopping(context, now, Reason::CommandEnded, hold) else {
            unreachable!("become_stopping makes a stopping state")
        };
        stopping.end = Some(end);
        State::Stopping(stopping)
    }

    fn hook_ended(mut self, context: &mut Context, now: Time, end: CommandEnd) -> State {
        match end {
            CommandEnd::Exited(0) => {
                context.restart_tracker.accepted();
                self.stage = LeadingStage::Accepted;
                State::Leading(self)
            }
            CommandEnd::Exited(_) | CommandEnd::Killed { .. } if context.mutated(Mutation::CommandAfterFailedHook) => {
                self.stage = LeadingStage::Accepted;
                State::Leading(self)
            }
            CommandEnd::Killed { escalated: true, .. } => self.not_accepted(context, now, HookFailure::TimedOut),
            CommandEnd::Exited(_) | CommandEnd::Killed { .. } => {
                self.not_accepted(context, now, HookFailure::Ended(end))
            }
        }
    }

    /// The hook is over and nothing of it is left. K5: with one renewal or less in the lease, the next credit decides.
    fn go_on(&mut self, context: &mut Context, now: Time) {
        let program = Program::Command { term: self.term };
        if self.lease.stop_by.since(now) > context.timing.renew() {
            self.start(context, now, program);
            return;
        }
        (self.program, self.accept_by) = (program, Time::NEVER);
        self.stage = LeadingStage::Deferred { cleared: true, credited: false };
        self.resign_at = now + context.timing.ttl().unwrap_or(VERIFY_TIMEOUT_NO_TTL);
        self.renew_at = now;
    }

    /// Nothing is left of a start that was refused. Of any other stage this word says nothing.
    fn cleared(&mut self, context: &mut Context, now: Time) {
        if let LeadingStage::Deferred { cleared, .. } = &mut self.stage {
            *cleared = true;
            self.start_again(context, now);
        }
    }

    /// K5: a refused start is retried with a credited renewal of which more than one interval is left, and only once the keeper
    /// has confirmed that nothing of the refused one is left.
    fn start_again(&mut self, context: &mut Context, now: Time) {
        let LeadingStage::Deferred { cleared, credited } = self.stage else { return };
        if !credited || !(cleared || context.mutated(Mutation::StartsBesideRefused)) {
            return;
        }
        if self.lease.stop_by.since(now) > context.timing.renew() {
            let program = self.program;
            return self.start(context, now, program);
        }
        self.stage = LeadingStage::Deferred { cleared, credited: false };
        self.renew_at = self.renew_at.min(now);
    }

    /// We are not to lead after all.
    fn not_accepted(self, context: &mut Context, now: Time, failure: HookFailure) -> State {
        context.notice(Notice::HookFailed { hook: Hook::OnElected, failure });
        let hold = HeldLease::Valid(self.lease);
        self.become_stopping(context, now, Reason::NotAccepted, hold)
    }
}
