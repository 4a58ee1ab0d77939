//! The leader: the lease is renewed, and the command may live. Before it `--on-elected` runs, if there is one.

use std::time::Duration;

use super::stopping::HeldLease;
use super::transition::{StopOrder, Transition};
use super::{Facts, Step, VERIFY_TIMEOUT_NO_TTL};
use crate::context::Context;
use crate::input::{ControlInput, Input, KeeperInput, StoreInput};
use crate::mutation::Mutation;
use crate::restart_tracker::AfterExit;
use crate::{Action, Answer, CommandEnd, Hook, HookContext, HookFailure, KILL_ALLOWANCE, Lease, NotStarted, Notice};
use crate::{Phase, Program, Reason, Renewed, Signal, Term, Time};

#[derive(Debug)]
pub(crate) struct Leading {
    term: Term,
    lease: Lease,
    renew_at: Time,
    program: Program,
    stage: ProgramStage,
    /// If the keeper still refuses a start as too late by then, we resign (K5).
    resign_at: Time,
    /// If the hook is not over by then, it counts as failed, even if the keeper has not killed it.
    accept_by: Time,
    /// Signals for the command, which does not run yet.
    kept: Vec<Signal>,
}

/// The stage of the present program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ProgramStage {
    /// The keeper has been told to start it.
    Starting,
    /// It was too late for the lease that was armed. The start is repeated after the next credited renewal, and once
    /// the keeper has confirmed that nothing is left of the refused start (K5).
    Deferred {
        /// The keeper has confirmed that, or there was no refused start.
        cleared: bool,
        /// A renewal has been credited since.
        credited: bool,
    },
    Running,
    /// The hook succeeded; the processes that it left behind are being stopped (K10).
    Accepted,
    /// There is no command: the lease is held, and nothing else happens.
    Idle,
}

impl Leading {
    /// The leader at the start of a program, under a lease that has been armed.
    pub(super) fn start_program(
        context: &mut Context,
        now: Time,
        program: Program,
        (term, lease): (Term, Lease),
        renew_at: Time,
    ) -> Leading {
        let (stage, never) = (ProgramStage::Starting, Time::NEVER);
        let (resign_at, accept_by, kept) = (never, never, Vec::new());
        let mut leading = Leading { term, lease, renew_at, program, stage, resign_at, accept_by, kept };
        leading.start(context, now, program);
        leading
    }

    fn start(&mut self, context: &mut Context, now: Time, program: Program) {
        (self.program, self.stage) = (program, ProgramStage::Starting);
        self.accept_by = match program {
            // The keeper enforces the time-out, which counts from the start.
            Program::OnElected { .. } => now + context.policy.hooks.timeout + KILL_ALLOWANCE,
            Program::Command { .. } | Program::OnOusted { .. } | Program::Follower => Time::NEVER,
        };
        context.start(program);
    }

    pub(super) fn next(&mut self, context: &mut Context, now: Time, input: Input) -> Step {
        match input {
            Input::Time => self.pass_time(context, now),
            Input::Store(StoreInput::Answer(Answer::Renew(answer))) => match answer {
                Renewed::Credited { sent, ttl } => self.credited(context, now, sent, ttl),
                Renewed::Lost => self.stop(Reason::Lost, HeldLease::Lost),
                Renewed::Outdated | Renewed::Failed => {
                    self.renew_at = now + context.backoff();
                    Step::Stay
                }
            },
            Input::Store(StoreInput::Ousted) => self.stop(Reason::Lost, HeldLease::Lost),
            // A hint concerns another candidate, or something that the next renewal finds.
            Input::Store(StoreInput::Answer(_) | StoreInput::Hint | StoreInput::LeaderObserved(_)) => Step::Stay,
            Input::Keeper(word) => self.on_keeper(context, now, word),
            Input::Control(control) => self.on_control(context, now, control),
        }
    }

    fn on_keeper(&mut self, context: &mut Context, now: Time, word: KeeperInput) -> Step {
        match word {
            KeeperInput::Started(pid) => self.started(context, now, pid),
            KeeperInput::NoCommand => self.stage = ProgramStage::Idle,
            KeeperInput::NotStarted(NotStarted::TooLate) => {
                self.stage = ProgramStage::Deferred { cleared: false, credited: false };
                self.accept_by = Time::NEVER;
                // Only the first refusal hurries the renewal: a keeper that refuses again is not asked as fast as the
                // store can answer.
                if self.resign_at == Time::NEVER {
                    self.resign_at = now + context.timing.ttl().unwrap_or(VERIFY_TIMEOUT_NO_TTL);
                    self.renew_at = now;
                }
            }
            KeeperInput::NotStarted(NotStarted::Failed(errno)) => {
                if !self.is_command() {
                    return self.not_accepted(context, HookFailure::CannotStart(errno));
                }
                return self.stop(Reason::CannotStart(errno), HeldLease::Valid(self.lease));
            }
            KeeperInput::Exited(end) if self.is_command() => return self.command_ended(context, now, end),
            KeeperInput::Exited(end) => return self.hook_ended(context, end),
            // K10: only now is nothing left of the hook.
            KeeperInput::Empty if self.stage == ProgramStage::Accepted => self.start_command(context, now),
            KeeperInput::Empty | KeeperInput::Cleared => self.cleared(context, now),
            // Keeper and campaigner read the same clock; if the keeper was first by a little, the term is over as well.
            KeeperInput::Expired => return self.stop(Reason::RunningOut, HeldLease::Expired(self.lease)),
            KeeperInput::Died => return self.stop(Reason::KeeperDied, HeldLease::Valid(self.lease)),
            KeeperInput::Swept { .. } => {}
        }
        Step::Stay
    }

    fn on_control(&mut self, context: &mut Context, now: Time, control: ControlInput) -> Step {
        match control {
            ControlInput::Stop(signal) => return self.stop(Reason::Asked(signal), HeldLease::Valid(self.lease)),
            ControlInput::Resign => return self.stop(Reason::Resigned, HeldLease::Valid(self.lease)),
            ControlInput::Forward(signal) => self.forward(context, signal),
            ControlInput::ConfirmLeadership => self.renew_at = now,
        }
        Step::Stay
    }

    fn pass_time(&mut self, context: &mut Context, now: Time) -> Step {
        if now >= self.lease.stop_by {
            return self.stop(Reason::RunningOut, HeldLease::Expired(self.lease));
        }
        if let Some(reason) = context.ineligible_reason(now) {
            return self.stop(reason, HeldLease::Valid(self.lease));
        }
        if matches!(self.stage, ProgramStage::Deferred { .. }) && now >= self.resign_at {
            return self.stop(Reason::RunningOut, HeldLease::Valid(self.lease));
        }
        if now >= self.accept_by {
            return self.not_accepted(context, HookFailure::TimedOut);
        }
        if context.store_requests.is_idle() && now >= self.renew_at {
            context.renew(now);
        }
        Step::Stay
    }

    fn stop(&self, reason: Reason, held: HeldLease) -> Step {
        Step::Go(Transition::Stop(self.stop_order(reason, held)))
    }

    fn stop_order(&self, reason: Reason, held: HeldLease) -> StopOrder {
        let Leading { term, lease: Lease { kill_by, .. }, renew_at, .. } = *self;
        StopOrder { term, reason, held, kill_by, renew_at, end: None }
    }

    fn started(&mut self, context: &mut Context, now: Time, pid: i32) {
        if self.is_command() {
            context.notice(Notice::Started { term: self.term, pid });
            context.restart_tracker.started(now);
            context.eligibility.command_started(now);
            for signal in std::mem::take(&mut self.kept) {
                context.act(Action::Forward(signal));
            }
        }
        self.stage = ProgramStage::Running;
    }

    fn is_command(&self) -> bool {
        match self.program {
            Program::Command { .. } => true,
            Program::OnElected { .. } | Program::OnOusted { .. } | Program::Follower => false,
        }
    }

    fn has_begun(&self) -> bool {
        self.is_command() && matches!(self.stage, ProgramStage::Running | ProgramStage::Idle)
    }

    /// Signals are for the command, not for the hook before it. Until the command has executed they are kept, each
    /// once, as a process keeps blocked signals.
    fn forward(&mut self, context: &mut Context, signal: Signal) {
        match self.stage {
            ProgramStage::Running if self.is_command() => context.act(Action::Forward(signal)),
            ProgramStage::Idle => {}
            ProgramStage::Starting | ProgramStage::Deferred { .. } | ProgramStage::Accepted | ProgramStage::Running => {
                if !self.kept.contains(&signal) {
                    self.kept.push(signal);
                }
            }
        }
    }

    /// The end of the time that a deferred start, or a hook, has.
    fn give_up_at(&self) -> Time {
        match self.stage {
            ProgramStage::Deferred { .. } => self.resign_at,
            ProgramStage::Starting | ProgramStage::Running | ProgramStage::Accepted | ProgramStage::Idle => {
                self.accept_by
            }
        }
    }

    fn credited(&mut self, context: &mut Context, now: Time, sent: Time, ttl: Option<Duration>) -> Step {
        match context.credit(self.term, sent, ttl) {
            Ok(lease) => {
                // Deadlines only move forward (K1).
                if lease.sent > self.lease.sent {
                    self.lease = lease;
                    context.arm(self.term, lease);
                }
                self.renew_at = context.next_renewal(now, self.lease.sent);
                if let ProgramStage::Deferred { credited, .. } = &mut self.stage {
                    *credited = true;
                    self.start_again(context, now);
                }
                Step::Stay
            }
            Err(error) => {
                context.notice(Notice::Unusable(error));
                let lease = self.lease.cut_to(sent, ttl);
                let order = self.stop_order(Reason::RunningOut, HeldLease::Valid(lease));
                Step::Go(Transition::Stop(StopOrder { kill_by: lease.kill_by, ..order }))
            }
        }
    }

    fn command_ended(&self, context: &mut Context, now: Time, end: CommandEnd) -> Step {
        context.notice(Notice::CommandEnded { term: self.term, end });
        context.restart_tracker.ended(now, context.timing.ttl());
        if context.mutated(Mutation::RestartBesideTheOld)
            && matches!(context.after_exit(now, end), AfterExit::Restart(_))
        {
            let Leading { term, lease, renew_at, .. } = *self;
            return Step::Go(Transition::Restart { term, lease, renew_at });
        }
        let order = self.stop_order(Reason::CommandEnded, HeldLease::Valid(self.lease));
        Step::Go(Transition::Stop(StopOrder { end: Some(end), ..order }))
    }

    fn hook_ended(&mut self, context: &mut Context, end: CommandEnd) -> Step {
        match end {
            CommandEnd::Exited(0) => {
                context.restart_tracker.accepted();
                self.stage = ProgramStage::Accepted;
                Step::Stay
            }
            CommandEnd::Exited(_) | CommandEnd::Killed { .. } if context.mutated(Mutation::CommandAfterFailedHook) => {
                self.stage = ProgramStage::Accepted;
                Step::Stay
            }
            CommandEnd::Killed { escalated: true, .. } => self.not_accepted(context, HookFailure::TimedOut),
            CommandEnd::Exited(_) | CommandEnd::Killed { .. } => self.not_accepted(context, HookFailure::Ended(end)),
        }
    }

    /// The hook is over and nothing of it is left. K5: with one renewal or less in the lease, the next credit decides.
    fn start_command(&mut self, context: &mut Context, now: Time) {
        let program = Program::Command { term: self.term };
        if self.lease.stop_by.since(now) > context.timing.renew() {
            self.start(context, now, program);
            return;
        }
        (self.program, self.accept_by) = (program, Time::NEVER);
        self.stage = ProgramStage::Deferred { cleared: true, credited: false };
        self.resign_at = now + context.timing.ttl().unwrap_or(VERIFY_TIMEOUT_NO_TTL);
        self.renew_at = now;
    }

    /// Nothing is left of a refused start. In any other stage this message changes nothing.
    fn cleared(&mut self, context: &mut Context, now: Time) {
        if let ProgramStage::Deferred { cleared, .. } = &mut self.stage {
            *cleared = true;
            self.start_again(context, now);
        }
    }

    /// K5: a refused start is retried with a credited renewal of which more than one interval is left, and only once
    /// the keeper has confirmed that nothing of the refused one is left.
    fn start_again(&mut self, context: &mut Context, now: Time) {
        let ProgramStage::Deferred { cleared, credited } = self.stage else { return };
        if !credited || !(cleared || context.mutated(Mutation::StartsBesideRefused)) {
            return;
        }
        if self.lease.stop_by.since(now) > context.timing.renew() {
            let program = self.program;
            return self.start(context, now, program);
        }
        self.stage = ProgramStage::Deferred { cleared, credited: false };
        self.renew_at = self.renew_at.min(now);
    }

    /// `--on-elected` failed: we are not to lead.
    fn not_accepted(&self, context: &mut Context, failure: HookFailure) -> Step {
        context.notice(Notice::HookFailed { hook: Hook::OnElected, failure });
        self.stop(Reason::NotAccepted, HeldLease::Valid(self.lease))
    }

    pub(super) fn facts(&self, context: &Context) -> Facts {
        let has_begun = self.has_begun();
        Facts {
            phase: Phase::Leading,
            term: Some(self.term),
            leading_term: Some(self.term),
            lease: Some(self.lease),
            may_hold_tree: true,
            has_begun,
            background_hook_slot: has_begun.then_some(HookContext::WithRun(context.run)),
            wake_at: self.lease.stop_by.min(self.give_up_at()).min(context.when_idle(self.renew_at)),
        }
    }
}
