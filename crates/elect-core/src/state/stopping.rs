//! The command is being stopped. The only way out is a tree that is confirmed empty (2.3).

use super::leading::Leading;
use super::leading_idle::{HoldPurpose, become_leading_idle};
use super::ousted_hook::become_ousted_hook;
use super::releasing::AfterRelease;
use super::{Input, SWEEP_INTERVAL, State, UNCONFIRMED_REPORT_INTERVAL, after_loss, credit, next_renewal};
use crate::Context;
use crate::event::{Action, Answer, CommandEnd, Notice, Outcome, Program, Reason, Renewed, Term};
use crate::mutation::Mutation;
use crate::policy::OnLost;
use crate::restart_tracker::AfterExit;
use crate::time::Time;
use crate::timing::{KILL_ALLOWANCE, Lease};

#[derive(Debug)]
pub(crate) struct Stopping {
    pub(super) term: Term,
    pub(super) hold: HeldLease,
    pub(super) reason: Reason,
    pub(super) end: Option<CommandEnd>,
    pub(super) renew_at: Time,
    /// When SIGKILL is due at the latest, whoever sends it.
    pub(super) kill_at: Time,
    pub(super) killed: bool,
    pub(super) stop_asked: bool,
    /// The keeper's deadline has passed, and with it the term: nothing is started in it again.
    expired: bool,
    pub(super) tell_at: Time,
    reaper: Reaper,
}

/// What the store holds for us while we stop.
#[derive(Debug, Clone, Copy)]
pub(super) enum HeldLease {
    /// A lease that is renewed, and whose renewals count.
    Valid(Lease),
    /// The term is over, yet the store may still hold others off: renewed, but to no effect here.
    Expired(Lease),
    /// Nothing: the store says it is not ours.
    Lost,
}

/// Who empties the tree.
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

impl Leading {
    pub(super) fn become_stopping(self, context: &mut Context, now: Time, reason: Reason, hold: HeldLease) -> State {
        let kill_at = match reason {
            Reason::Lost if context.mutated(Mutation::GraceWhenLost) => now + context.stop_timeout,
            // K11: an answer that says the lease is not ours leaves no time for grace.
            Reason::Lost | Reason::KeeperDied => now,
            Reason::RunningOut => self.lease.kill_by,
            // T4: the lease is renewed meanwhile. Should it run out all the same, that has deadlines of its own.
            Reason::CommandEnded
            | Reason::CannotStart(_)
            | Reason::NotAccepted
            | Reason::Asked(_)
            | Reason::Resigned => now + context.stop_timeout,
        };
        context.notice(Notice::Stopping { term: self.term, reason });
        let mut stopping = Stopping {
            term: self.term,
            hold,
            reason,
            end: None,
            renew_at: if context.mutated(Mutation::NoRenewalWhileStopping) { Time::NEVER } else { self.renew_at },
            kill_at,
            killed: false,
            stop_asked: matches!(reason, Reason::Asked(_)),
            expired: false,
            tell_at: kill_at + KILL_ALLOWANCE,
            reaper: Reaper::Keeper,
        };
        if now >= kill_at {
            stopping.kill(context);
        } else {
            context.act(Action::Stop { kill_at });
        }
        State::Stopping(stopping)
    }
}

impl Stopping {
    pub(super) fn next(mut self, context: &mut Context, now: Time, input: Input) -> State {
        match input {
            Input::Time => self.pass_time(context, now),
            Input::Answer(Answer::Renew(answer)) => match (answer, self.hold) {
                (Renewed::Credited { sent, ttl }, HeldLease::Valid(lease)) => {
                    if let Ok(new) = credit(context, self.term, sent, ttl)
                        && new.sent > lease.sent
                    {
                        self.hold = HeldLease::Valid(new);
                        context.arm(self.term, new);
                    }
                    self.renew_at = next_renewal(context, now, sent);
                }
                (Renewed::Credited { sent, .. }, HeldLease::Expired(_)) => {
                    self.renew_at = next_renewal(context, now, sent);
                    // Section 4: a late success changes nothing. The store holds the others off, no more.
                    if context.mutated(Mutation::LateSuccessCounts) {
                        self.hold = HeldLease::Valid(context.timing.lease(sent));
                        context.arm(self.term, context.timing.lease(sent));
                    }
                }
                (Renewed::Credited { .. } | Renewed::Outdated | Renewed::Failed, HeldLease::Lost) => {}
                (Renewed::Outdated | Renewed::Failed, HeldLease::Valid(_) | HeldLease::Expired(_)) => {
                    self.renew_at = now + context.backoff();
                }
                (Renewed::Lost, HeldLease::Valid(_) | HeldLease::Expired(_) | HeldLease::Lost) => self.lose(context),
            },
            Input::Ousted => self.lose(context),
            Input::Ask => self.renew_at = now,
            Input::Started(pid) => match context.program {
                Program::Command { .. } => {
                    context.notice(Notice::Started { term: self.term, pid });
                    context.restart_tracker.started(now);
                }
                Program::OnElected { .. } | Program::OnOusted { .. } | Program::Follower => {}
            },
            Input::Exited(end) => match context.program {
                Program::Command { .. } => {
                    context.notice(Notice::CommandEnded { term: self.term, end });
                    self.end = Some(end);
                }
                // A hook that was stopped in the middle: its status is nobody's.
                Program::OnElected { .. } | Program::OnOusted { .. } | Program::Follower => {}
            },
            Input::Expired => {
                self.expired = true;
                self.kill(context);
            }
            Input::Empty => return self.emptied(context, now),
            Input::KeeperDied => {
                context.notice(Notice::KeeperDied);
                self.reason = Reason::KeeperDied;
                self.reaper = Reaper::Campaigner { sweep_at: now };
                self.killed = true;
                self.reaper.sweep_if_due(context, now);
            }
            Input::Swept { empty } => match self.reaper {
                Reaper::Campaigner { .. } if empty => return self.emptied(context, now),
                Reaper::Campaigner { .. } | Reaper::Keeper => {}
            },
            Input::Stop(signal) => {
                if self.stop_asked {
                    self.kill(context);
                }
                self.stop_asked = true;
                match self.reason {
                    // The command may go on to end by itself, but the candidate does not stand again.
                    Reason::RunningOut | Reason::Lost | Reason::NotAccepted | Reason::Resigned => {
                        self.reason = Reason::Asked(signal);
                    }
                    Reason::CommandEnded | Reason::CannotStart(_) | Reason::Asked(_) | Reason::KeeperDied => {}
                }
            }
            Input::Forward(signal) => match context.program {
                Program::Command { .. } => context.act(Action::Forward(signal)),
                // Signals are for the command, and for nobody before it.
                Program::OnElected { .. } | Program::OnOusted { .. } | Program::Follower => {}
            },
            Input::Hint
            | Input::Leader(_)
            | Input::Idle
            | Input::Cleared
            | Input::Resign
            | Input::NotStarted(_)
            | Input::Answer(Answer::Campaign(_) | Answer::Release(_)) => {}
        }
        if context.mutated(Mutation::ReleaseBeforeEmpty) && self.reason != Reason::KeeperDied {
            return self.emptied(context, now);
        }
        State::Stopping(self)
    }

    fn pass_time(&mut self, context: &mut Context, now: Time) {
        if let HeldLease::Valid(lease) = self.hold
            && now >= lease.stop_by
        {
            self.hold = HeldLease::Expired(lease);
            self.kill_at = self.kill_at.min(lease.kill_by);
            self.tell_at = self.tell_at.min(self.kill_at + KILL_ALLOWANCE);
            context.act(Action::Stop { kill_at: self.kill_at });
        }
        match self.hold {
            HeldLease::Expired(lease) if now >= lease.kill_by => self.kill(context),
            HeldLease::Valid(_) | HeldLease::Expired(_) | HeldLease::Lost => {}
        }
        if now >= self.tell_at {
            context.notice(Notice::Unconfirmed { term: self.term });
            self.tell_at = now + UNCONFIRMED_REPORT_INTERVAL;
        }
        self.reaper.sweep_if_due(context, now);
        // 2.3: as long as the tree is not confirmed empty, the others are held off.
        if context.store_requests.is_idle() && now >= self.renew_at && !matches!(self.hold, HeldLease::Lost) {
            context.renew(now);
        }
    }

    /// K11: final, and at once.
    fn lose(&mut self, context: &mut Context) {
        self.hold = HeldLease::Lost;
        context.store_requests.abandon();
        self.kill(context);
    }

    fn kill(&mut self, context: &mut Context) {
        if !self.killed {
            self.killed = true;
            context.act(Action::Kill);
        }
    }

    /// The tree is confirmed empty: the only way out of this state.
    fn emptied(self, context: &mut Context, now: Time) -> State {
        let then = match (self.reason, self.end) {
            (Reason::KeeperDied, _) => AfterRelease::Exit(Outcome::KeeperDied),
            (Reason::CannotStart(errno), _) => AfterRelease::Exit(Outcome::CannotStart(errno)),
            (Reason::CommandEnded, Some(end)) if !self.stop_asked => return self.ended(context, now, end),
            (Reason::CommandEnded | Reason::Asked(_), Some(end)) => AfterRelease::Exit(Outcome::Command(end)),
            (Reason::Asked(signal), None) => AfterRelease::Exit(Outcome::Stopped(signal)),
            (Reason::NotAccepted, _) => self.not_accepted(context),
            (Reason::RunningOut | Reason::Lost | Reason::CommandEnded | Reason::Resigned, _) => after_loss(context),
        };
        self.leave(context, now, then)
    }

    /// Nothing of the command runs any more.
    fn leave(self, context: &mut Context, now: Time, then: AfterRelease) -> State {
        become_ousted_hook(context, now, (self.term, self.hold), self.renew_at, (then, self.stop_asked))
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
    fn ended(self, context: &mut Context, now: Time, end: CommandEnd) -> State {
        let then = match context.after_exit(now, end) {
            AfterExit::End => AfterRelease::Exit(Outcome::Command(end)),
            AfterExit::Restart(delay) => {
                // Section 4: once the term is over, nothing starts in it any more.
                return match self.hold {
                    HeldLease::Valid(lease) if !self.expired => {
                        let next = HoldPurpose::RestartAt { at: now + delay };
                        become_leading_idle(context, now, (self.term, lease), self.renew_at, next)
                    }
                    HeldLease::Valid(_) | HeldLease::Expired(_) | HeldLease::Lost => {
                        let then = after_loss(context);
                        self.leave(context, now, then)
                    }
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
        let held_until = context.restart_tracker.held_until();
        match self.hold {
            HeldLease::Valid(lease) | HeldLease::Expired(lease)
                if now < held_until && !context.mutated(Mutation::NoHold) =>
            {
                let next = HoldPurpose::ReleaseAt { at: held_until, then };
                become_leading_idle(context, now, (self.term, lease), self.renew_at, next)
            }
            HeldLease::Valid(_) | HeldLease::Expired(_) | HeldLease::Lost => self.leave(context, now, then),
        }
    }

    /// Whether the lease is renewed, and renewals count: the term is not over yet.
    pub(super) fn leading_term(&self) -> bool {
        matches!(self.hold, HeldLease::Valid(_)) && !self.expired
    }

    pub(super) fn lease(&self) -> Option<Lease> {
        match self.hold {
            HeldLease::Valid(lease) | HeldLease::Expired(lease) => Some(lease),
            HeldLease::Lost => None,
        }
    }

    pub(super) fn wake_at(&self, idle: bool) -> Time {
        let deadline = match self.hold {
            HeldLease::Valid(lease) => lease.stop_by,
            HeldLease::Expired(lease) if !self.killed => lease.kill_by,
            HeldLease::Expired(_) | HeldLease::Lost => Time::NEVER,
        };
        let renew_at = match self.hold {
            HeldLease::Valid(_) | HeldLease::Expired(_) if idle => self.renew_at,
            HeldLease::Valid(_) | HeldLease::Expired(_) | HeldLease::Lost => Time::NEVER,
        };
        deadline.min(renew_at).min(self.reaper.wake_at()).min(self.tell_at)
    }
}
