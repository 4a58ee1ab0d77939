//! The command is being stopped. The only way out is a tree that is confirmed empty (2.3).

use super::leading_idle::HoldPurpose;
use super::transition::{AfterRelease, StopOrder, Transition};
use super::{Facts, SWEEP_INTERVAL, Step};
use crate::Time;
use crate::context::Context;
use crate::end_report::EndReport;
use crate::input::{ControlInput, Input, KeeperInput, StoreInput};
use crate::mutation::Mutation;
use crate::policy::OnLost;
use crate::restart_tracker::AfterExit;
use crate::{Action, Answer, CommandEnd, KillCause, Lease, Notice, Outcome, Phase, Reason, Renewed, Signal, Term};

#[derive(Debug)]
pub(crate) struct Stopping {
    term: Term,
    held: HeldLease,
    reason: Reason,
    end: Option<CommandEnd>,
    renew_at: Time,
    /// The latest time for SIGKILL, by the keeper or by the campaigner.
    kill_at: Time,
    killed: bool,
    stop_asked: bool,
    /// The keeper's deadline has passed, and with it the term: nothing is started in it again.
    expired: bool,
    /// The next notice that the tree is not confirmed empty.
    report: EndReport,
    reaper: Reaper,
}

/// The lease that the store holds for us while we stop.
#[derive(Debug, Clone, Copy)]
pub(super) enum HeldLease {
    /// A lease that is renewed, and whose renewals count.
    Valid(Lease),
    /// The term is over, yet the store may still hold others off: the lease is renewed, but to no effect here.
    Expired(Lease),
    /// No lease: the store says that it is not ours.
    Lost,
}

/// The process that empties the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reaper {
    Keeper,
    /// The keeper is dead; the campaigner inherited its children and sweeps at this time (K4).
    Campaigner {
        sweep_at: Time,
    },
}

impl Reaper {
    pub(super) fn sweep_if_due(&mut self, context: &mut Context, now: Time) {
        match self {
            Reaper::Campaigner { sweep_at } if now >= *sweep_at => {
                *sweep_at = now + SWEEP_INTERVAL;
                context.act(Action::Sweep);
            }
            Reaper::Campaigner { .. } | Reaper::Keeper => {}
        }
    }

    pub(super) fn wake_at(self) -> Time {
        match self {
            Reaper::Campaigner { sweep_at } => sweep_at,
            Reaper::Keeper => Time::NEVER,
        }
    }
}

impl Stopping {
    pub(super) fn new(context: &mut Context, now: Time, order: &StopOrder) -> Stopping {
        let StopOrder { term, reason, held, kill_by, renew_at, end } = *order;
        let kill_at = match reason {
            Reason::Lost if context.mutated(Mutation::GraceWhenLost) => now + context.stop_timeout,
            // K11: an answer that says the lease is not ours leaves no time for grace.
            Reason::Lost | Reason::KeeperDied => now,
            Reason::RunningOut => kill_by,
            // T4: the lease is renewed meanwhile. If it still runs out, its own deadlines apply.
            Reason::CommandEnded
            | Reason::CannotStart(_)
            | Reason::NotAccepted
            | Reason::Asked(_)
            | Reason::Resigned
            | Reason::Drained
            | Reason::Unhealthy => now + context.stop_timeout,
        };
        context.notice(Notice::Stopping { term, reason });
        let mut stopping = Stopping {
            term,
            held,
            reason,
            end,
            renew_at: if context.mutated(Mutation::NoRenewalWhileStopping) { Time::NEVER } else { renew_at },
            kill_at,
            killed: false,
            stop_asked: matches!(reason, Reason::Asked(_)),
            expired: false,
            report: EndReport::after_kill_at(now, kill_at),
            reaper: Reaper::Keeper,
        };
        if now >= kill_at {
            stopping.killed = true;
            context.act(Action::Kill);
        } else {
            context.act(Action::Stop { kill_at });
        }
        stopping
    }

    pub(super) fn next(&mut self, context: &mut Context, now: Time, input: Input) -> Step {
        let step = match input {
            Input::Time => {
                self.pass_time(context, now);
                Step::Stay
            }
            Input::Store(reply) => {
                self.on_store(context, now, reply);
                Step::Stay
            }
            Input::Keeper(word) => self.on_keeper(context, now, word),
            Input::Control(control) => {
                self.on_control(context, now, control);
                Step::Stay
            }
        };
        match step {
            Step::Stay if context.mutated(Mutation::ReleaseBeforeEmpty) && self.reason != Reason::KeeperDied => {
                self.emptied(context, now)
            }
            Step::Stay | Step::Go(_) => step,
        }
    }

    fn on_store(&mut self, context: &mut Context, now: Time, reply: StoreInput) {
        match reply {
            StoreInput::Answer(Answer::Renew(answer)) => match (answer, self.held) {
                (Renewed::Credited { sent, ttl }, HeldLease::Valid(lease)) => {
                    match context.credit(self.term, sent, ttl) {
                        Ok(new) if new.sent > lease.sent => {
                            self.held = HeldLease::Valid(new);
                            context.arm(self.term, new);
                        }
                        Ok(_) => {}
                        Err(_) => self.held = HeldLease::Valid(lease.cut_to(sent, ttl)),
                    }
                    self.renew_at = context.next_renewal(now, sent);
                }
                (Renewed::Credited { sent, .. }, HeldLease::Expired(_)) => {
                    self.renew_at = context.next_renewal(now, sent);
                    // Section 4: a late success changes nothing. The store holds the others off, no more.
                    if context.mutated(Mutation::LateSuccessCounts) {
                        self.held = HeldLease::Valid(context.timing.lease(sent));
                        context.arm(self.term, context.timing.lease(sent));
                    }
                }
                (Renewed::Credited { .. } | Renewed::Outdated | Renewed::Failed, HeldLease::Lost) => {}
                (Renewed::Outdated | Renewed::Failed, HeldLease::Valid(_) | HeldLease::Expired(_)) => {
                    self.renew_at = now + context.backoff();
                }
                (Renewed::Lost, HeldLease::Valid(_) | HeldLease::Expired(_) | HeldLease::Lost) => self.lose(context),
            },
            StoreInput::Ousted => self.lose(context),
            StoreInput::Answer(_) | StoreInput::Hint | StoreInput::LeaderObserved(_) => {}
        }
    }

    fn on_keeper(&mut self, context: &mut Context, now: Time, word: KeeperInput) -> Step {
        match word {
            KeeperInput::Started(pid) if context.last_start_is_command() => {
                context.notice(Notice::Started { term: self.term, pid });
                context.restart_tracker.started(now);
            }
            KeeperInput::Exited(end) if context.last_start_is_command() => {
                context.notice(Notice::CommandEnded { term: self.term, end });
                self.end = Some(end);
            }
            KeeperInput::Expired => {
                self.expired = true;
                self.kill(context, KillCause::LeaseRanOut);
            }
            KeeperInput::Empty => return self.emptied(context, now),
            KeeperInput::Died => {
                context.notice(Notice::KeeperDied);
                self.reason = Reason::KeeperDied;
                self.reaper = Reaper::Campaigner { sweep_at: now };
                self.killed = true;
                self.reaper.sweep_if_due(context, now);
            }
            KeeperInput::Swept { empty } => match self.reaper {
                Reaper::Campaigner { .. } if empty => return self.emptied(context, now),
                Reaper::Campaigner { .. } | Reaper::Keeper => {}
            },
            // The exit status of a hook that was stopped in the middle does not matter.
            KeeperInput::Started(_)
            | KeeperInput::Exited(_)
            | KeeperInput::NoCommand
            | KeeperInput::NotStarted(_)
            | KeeperInput::Cleared => {}
        }
        Step::Stay
    }

    fn on_control(&mut self, context: &mut Context, now: Time, control: ControlInput) {
        match control {
            ControlInput::Stop(signal) => self.stop(context, signal),
            // Signals are for the command, not for the hook before it.
            ControlInput::Forward(signal) if context.last_start_is_command() => context.act(Action::Forward(signal)),
            ControlInput::ConfirmLeadership => self.renew_at = now,
            ControlInput::Forward(_) | ControlInput::Resign => {}
        }
    }

    /// A second stop kills at once.
    fn stop(&mut self, context: &mut Context, signal: Signal) {
        if self.stop_asked {
            self.kill(context, KillCause::SecondSignal);
        }
        self.stop_asked = true;
        match self.reason {
            // The command may go on to end by itself, but the candidate does not campaign again.
            Reason::RunningOut
            | Reason::Lost
            | Reason::NotAccepted
            | Reason::Resigned
            | Reason::Drained
            | Reason::Unhealthy => {
                self.reason = Reason::Asked(signal);
            }
            Reason::CommandEnded | Reason::CannotStart(_) | Reason::Asked(_) | Reason::KeeperDied => {}
        }
    }

    fn pass_time(&mut self, context: &mut Context, now: Time) {
        if let HeldLease::Valid(lease) = self.held
            && now >= lease.stop_by
        {
            self.held = HeldLease::Expired(lease);
            if lease.kill_by < self.kill_at && !self.killed {
                self.kill_at = lease.kill_by;
                context.notice(Notice::StopShortened { term: self.term, left: lease.kill_by.since(now) });
            }
            self.report.bring_forward(now, self.kill_at);
            context.act(Action::Stop { kill_at: self.kill_at });
        }
        match self.held {
            HeldLease::Expired(lease) if now >= lease.kill_by => self.kill(context, KillCause::LeaseRanOut),
            HeldLease::Valid(_) | HeldLease::Expired(_) | HeldLease::Lost => {}
        }
        if self.report.is_due(now) {
            context.notice(Notice::Unconfirmed { term: self.term });
        }
        self.reaper.sweep_if_due(context, now);
        // 2.3: as long as the tree is not confirmed empty, the others are held off.
        if context.store_requests.is_idle() && now >= self.renew_at && !matches!(self.held, HeldLease::Lost) {
            context.renew(now);
        }
    }

    /// K11: final, and at once.
    fn lose(&mut self, context: &mut Context) {
        self.held = HeldLease::Lost;
        if context.mutated(Mutation::DrainForgotten) {
            context.eligibility.drained = false;
        }
        context.store_requests.abandon();
        self.kill(context, KillCause::Lost);
    }

    fn kill(&mut self, context: &mut Context, cause: KillCause) {
        if !self.killed {
            self.killed = true;
            context.notice(Notice::Killing { term: self.term, cause });
            context.act(Action::Kill);
        }
    }

    /// The tree is confirmed empty: the only way out of this state.
    fn emptied(&self, context: &mut Context, now: Time) -> Step {
        let then = match (self.reason, self.end) {
            (Reason::KeeperDied, _) => AfterRelease::Exit(Outcome::KeeperDied),
            (Reason::CannotStart(errno), _) => AfterRelease::Exit(Outcome::CannotStart(errno)),
            (Reason::CommandEnded, Some(end)) if !self.stop_asked => return self.ended(context, now, end),
            (Reason::CommandEnded | Reason::Asked(_), Some(end)) => AfterRelease::Exit(Outcome::Command(end)),
            (Reason::Asked(signal), None) => AfterRelease::Exit(Outcome::Stopped(signal)),
            (Reason::NotAccepted, _) => self.not_accepted(context),
            (Reason::Resigned, _) => {
                let then = context.after_resign(now);
                return self.hold_or_leave(context, now, then);
            }
            (Reason::Drained | Reason::Unhealthy, _) => {
                let then = context.after_ineligible(now, self.reason);
                return self.hold_or_leave(context, now, then);
            }
            (Reason::RunningOut | Reason::Lost | Reason::CommandEnded, _) => context.after_loss(),
        };
        self.leave(then)
    }

    /// Nothing of the command runs any more.
    fn leave(&self, then: AfterRelease) -> Step {
        let Stopping { term, held, renew_at, stop_asked, .. } = *self;
        Step::Go(Transition::Leave { term, held, renew_at, then, stop_asked })
    }

    /// Nothing of the command runs any more, but the boundary is kept.
    fn hold(&self, lease: Lease, purpose: HoldPurpose) -> Step {
        Step::Go(Transition::Idle { term: self.term, lease, renew_at: self.renew_at, purpose })
    }

    /// The hook before the command failed: another candidate's turn.
    fn not_accepted(&self, context: &mut Context) -> AfterRelease {
        let sits_out = context.restart_tracker.not_accepted(context.timing.ttl());
        let then = match context.policy.on_lost {
            OnLost::Recampaign if context.mutated(Mutation::NoSittingOutAfterHook) => AfterRelease::Campaign(None),
            OnLost::Recampaign => AfterRelease::CoolDown(sits_out),
            OnLost::End => AfterRelease::Exit(Outcome::LeadershipLost),
        };
        let sits_out = matches!(then, AfterRelease::CoolDown(_)).then_some(sits_out);
        context.notice(Notice::NotAccepted { term: self.term, sits_out });
        then
    }

    /// The command ended by itself, and nothing is left of its tree: it may be started again, or the boundary kept.
    fn ended(&self, context: &mut Context, now: Time, end: CommandEnd) -> Step {
        let then = match context.after_exit(now, end) {
            AfterExit::End => AfterRelease::Exit(Outcome::Command(end)),
            AfterExit::Restart(delay) => {
                // Section 4: once the term is over, nothing starts in it any more.
                return match self.held {
                    HeldLease::Valid(lease) if !self.expired => {
                        self.hold(lease, HoldPurpose::RestartAt { at: now + delay })
                    }
                    HeldLease::Valid(_) | HeldLease::Expired(_) | HeldLease::Lost => self.leave(context.after_loss()),
                };
            }
            AfterExit::Resign(sits_out) => {
                let then = match context.policy.on_lost {
                    OnLost::Recampaign => AfterRelease::CoolDown(sits_out),
                    // Nothing was lost: the command's status is why it ends.
                    OnLost::End => AfterRelease::Exit(Outcome::Command(end)),
                };
                let sits_out = matches!(then, AfterRelease::CoolDown(_)).then_some(sits_out);
                context.notice(Notice::GivenUp { term: self.term, sits_out });
                then
            }
        };
        self.hold_or_leave(context, now, then)
    }

    /// `--min-hold` is about the boundary: whatever ends the command, the boundary is kept until it is over (H7).
    fn hold_or_leave(&self, context: &Context, now: Time, then: AfterRelease) -> Step {
        let held_until = context.restart_tracker.held_until();
        match self.held {
            HeldLease::Valid(lease) | HeldLease::Expired(lease)
                if now < held_until && !context.mutated(Mutation::NoHold) =>
            {
                self.hold(lease, HoldPurpose::ReleaseAt { at: held_until, then })
            }
            HeldLease::Valid(_) | HeldLease::Expired(_) | HeldLease::Lost => self.leave(then),
        }
    }

    /// Whether the lease is renewed, and renewals count: the term is not over yet.
    fn leads(&self) -> bool {
        matches!(self.held, HeldLease::Valid(_)) && !self.expired
    }

    pub(super) fn facts(&self, context: &Context) -> Facts {
        let (lease, renew_at) = match self.held {
            HeldLease::Valid(lease) | HeldLease::Expired(lease) => (Some(lease), context.when_idle(self.renew_at)),
            HeldLease::Lost => (None, Time::NEVER),
        };
        let deadline = match self.held {
            HeldLease::Valid(lease) => lease.stop_by,
            HeldLease::Expired(lease) if !self.killed => lease.kill_by,
            HeldLease::Expired(_) | HeldLease::Lost => Time::NEVER,
        };
        Facts {
            phase: Phase::Stopping,
            term: Some(self.term),
            leading_term: self.leads().then_some(self.term),
            lease,
            may_hold_tree: true,
            has_begun: false,
            background_hook_slot: None,
            wake_at: deadline.min(renew_at).min(self.reaper.wake_at()).min(self.report.wake_at()),
        }
    }
}
