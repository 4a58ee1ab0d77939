//! The command is being stopped. The only way out is a tree that is confirmed empty (2.3).

use super::holding::{Next, become_holding};
use super::leading::Leading;
use super::ousting::become_ousting;
use super::releasing::Then;
use super::{Input, SWEEP_AGAIN, State, UNCONFIRMED_AGAIN, after_loss, credit, next_renewal};
use crate::Core;
use crate::event::{Action, Answer, CommandEnd, Job, Outcome, Reason, Renewed, Report, Term};
use crate::runs::Sequel;
use crate::sabotage::Sabotage;
use crate::time::Time;
use crate::timing::{KILL_ALLOWANCE, Lease};
use crate::wishes::OnLost;

#[derive(Debug)]
pub(crate) struct Stopping {
    pub(super) term: Term,
    pub(super) hold: Hold,
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
pub(super) enum Hold {
    /// A lease that is renewed, and whose renewals count.
    Lease(Lease),
    /// The term is over, yet the store may still hold others off: renewed, but to no effect here.
    Over(Lease),
    /// Nothing: the store says it is not ours.
    Nothing,
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
    pub(super) fn sweep_if_due(&mut self, core: &mut Core, now: Time) {
        match self {
            Reaper::Campaigner { sweep_at } if now >= *sweep_at => {
                *sweep_at = now + SWEEP_AGAIN;
                core.act(Action::Sweep);
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
    pub(super) fn become_stopping(self, core: &mut Core, now: Time, reason: Reason, hold: Hold) -> State {
        let kill_at = match reason {
            Reason::Lost if core.breaks(Sabotage::GraceWhenLost) => now + core.stop_timeout,
            // K11: an answer that says the lease is not ours leaves no time for grace.
            Reason::Lost | Reason::KeeperDied => now,
            Reason::RunningOut => self.lease.kill_by,
            // T4: the lease is renewed meanwhile. Should it run out all the same, that has deadlines of its own.
            Reason::CommandEnded
            | Reason::CannotStart(_)
            | Reason::NotAccepted
            | Reason::Asked(_)
            | Reason::Resigned => now + core.stop_timeout,
        };
        core.report(Report::Stopping { term: self.term, reason });
        let mut stopping = Stopping {
            term: self.term,
            hold,
            reason,
            end: None,
            renew_at: if core.breaks(Sabotage::NoRenewalWhileStopping) { Time::NEVER } else { self.renew_at },
            kill_at,
            killed: false,
            stop_asked: matches!(reason, Reason::Asked(_)),
            expired: false,
            tell_at: kill_at + KILL_ALLOWANCE,
            reaper: Reaper::Keeper,
        };
        if now >= kill_at {
            stopping.kill(core);
        } else {
            core.act(Action::Stop { kill_at });
        }
        State::Stopping(stopping)
    }
}

impl Stopping {
    pub(super) fn next(mut self, core: &mut Core, now: Time, input: Input) -> State {
        match input {
            Input::Time => self.pass_time(core, now),
            Input::Answer(Answer::Renew(answer)) => match (answer, self.hold) {
                (Renewed::Credited { sent, ttl }, Hold::Lease(lease)) => {
                    if let Ok(new) = credit(core, self.term, sent, ttl)
                        && new.sent > lease.sent
                    {
                        self.hold = Hold::Lease(new);
                        core.arm(self.term, new);
                    }
                    self.renew_at = next_renewal(core, now, sent);
                }
                (Renewed::Credited { sent, .. }, Hold::Over(_)) => {
                    self.renew_at = next_renewal(core, now, sent);
                    // T2: a late success changes nothing. The store holds the others off, no more.
                    if core.breaks(Sabotage::LateSuccessCounts) {
                        self.hold = Hold::Lease(core.timing.lease(sent));
                        core.arm(self.term, core.timing.lease(sent));
                    }
                }
                (Renewed::Credited { .. } | Renewed::Outdated | Renewed::Failed, Hold::Nothing) => {}
                (Renewed::Outdated | Renewed::Failed, Hold::Lease(_) | Hold::Over(_)) => {
                    self.renew_at = now + core.backoff();
                }
                (Renewed::Lost, Hold::Lease(_) | Hold::Over(_) | Hold::Nothing) => self.lose(core),
            },
            Input::Ousted => self.lose(core),
            Input::Ask => self.renew_at = now,
            Input::Started(pid) => match core.job {
                Job::Command { .. } => {
                    core.report(Report::Started { term: self.term, pid });
                    core.runs.started(now);
                }
                Job::OnElected { .. } | Job::OnOusted { .. } | Job::Follower => {}
            },
            Input::Exited(end) => match core.job {
                Job::Command { .. } => {
                    core.report(Report::CommandEnded { term: self.term, end });
                    self.end = Some(end);
                }
                // A hook that was stopped in the middle: its status is nobody's.
                Job::OnElected { .. } | Job::OnOusted { .. } | Job::Follower => {}
            },
            Input::Expired => {
                self.expired = true;
                self.kill(core);
            }
            Input::Empty => return self.emptied(core, now),
            Input::KeeperDied => {
                core.report(Report::KeeperDied);
                self.reason = Reason::KeeperDied;
                self.reaper = Reaper::Campaigner { sweep_at: now };
                self.killed = true;
                self.reaper.sweep_if_due(core, now);
            }
            Input::Swept { empty } => match self.reaper {
                Reaper::Campaigner { .. } if empty => return self.emptied(core, now),
                Reaper::Campaigner { .. } | Reaper::Keeper => {}
            },
            Input::Stop(signal) => {
                if self.stop_asked {
                    self.kill(core);
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
            Input::Forward(signal) => match core.job {
                Job::Command { .. } => core.act(Action::Forward(signal)),
                // Signals are for the command, and for nobody before it.
                Job::OnElected { .. } | Job::OnOusted { .. } | Job::Follower => {}
            },
            Input::Hint
            | Input::Leader(_)
            | Input::Idle
            | Input::Cleared
            | Input::Resign
            | Input::NotStarted(_)
            | Input::Answer(Answer::Campaign(_) | Answer::Release(_)) => {}
        }
        if core.breaks(Sabotage::ReleaseBeforeEmpty) && self.reason != Reason::KeeperDied {
            return self.emptied(core, now);
        }
        State::Stopping(self)
    }

    fn pass_time(&mut self, core: &mut Core, now: Time) {
        if let Hold::Lease(lease) = self.hold
            && now >= lease.stop_by
        {
            self.hold = Hold::Over(lease);
            self.kill_at = self.kill_at.min(lease.kill_by);
            self.tell_at = self.tell_at.min(self.kill_at + KILL_ALLOWANCE);
            core.act(Action::Stop { kill_at: self.kill_at });
        }
        match self.hold {
            Hold::Over(lease) if now >= lease.kill_by => self.kill(core),
            Hold::Lease(_) | Hold::Over(_) | Hold::Nothing => {}
        }
        if now >= self.tell_at {
            core.report(Report::Unconfirmed { term: self.term });
            self.tell_at = now + UNCONFIRMED_AGAIN;
        }
        self.reaper.sweep_if_due(core, now);
        // 2.3: as long as the tree is not confirmed empty, the others are held off.
        if core.requests.is_idle() && now >= self.renew_at && !matches!(self.hold, Hold::Nothing) {
            core.renew(now);
        }
    }

    /// K11: final, and at once.
    fn lose(&mut self, core: &mut Core) {
        self.hold = Hold::Nothing;
        core.requests.abandon();
        self.kill(core);
    }

    fn kill(&mut self, core: &mut Core) {
        if !self.killed {
            self.killed = true;
            core.act(Action::Kill);
        }
    }

    /// The tree is confirmed empty: the only way out of this state.
    fn emptied(self, core: &mut Core, now: Time) -> State {
        let then = match (self.reason, self.end) {
            (Reason::KeeperDied, _) => Then::End(Outcome::KeeperDied),
            (Reason::CannotStart(errno), _) => Then::End(Outcome::CannotStart(errno)),
            (Reason::CommandEnded, Some(end)) if !self.stop_asked => return self.ended(core, now, end),
            (Reason::CommandEnded | Reason::Asked(_), Some(end)) => Then::End(Outcome::Command(end)),
            (Reason::Asked(signal), None) => Then::End(Outcome::Stopped(signal)),
            (Reason::NotAccepted, _) => self.not_accepted(core),
            (Reason::RunningOut | Reason::Lost | Reason::CommandEnded | Reason::Resigned, _) => after_loss(core),
        };
        self.leave(core, now, then)
    }

    /// Nothing of the command runs any more.
    fn leave(self, core: &mut Core, now: Time, then: Then) -> State {
        become_ousting(core, now, (self.term, self.hold), self.renew_at, (then, self.stop_asked))
    }

    /// The hook before the command failed: another candidate's turn.
    fn not_accepted(&self, core: &mut Core) -> Then {
        let sits_out = core.runs.not_accepted(core.timing.ttl());
        let then = match core.wishes.on_lost {
            OnLost::Recampaign if core.breaks(Sabotage::NoSittingOutAfterHook) => Then::Stand(None),
            OnLost::Recampaign => Then::SitOut(sits_out),
            OnLost::End => Then::End(Outcome::LeadershipLost),
        };
        let sits_out = matches!(then, Then::SitOut(_)).then_some(sits_out);
        core.report(Report::NotAccepted { term: self.term, sits_out });
        then
    }

    /// The command ended by itself, and nothing is left of its tree: it may be started again, or the boundary kept.
    fn ended(self, core: &mut Core, now: Time, end: CommandEnd) -> State {
        let then = match core.sequel(now, end) {
            Sequel::End => Then::End(Outcome::Command(end)),
            Sequel::Restart(delay) => {
                // T2: once the term is over, nothing starts in it any more.
                return match self.hold {
                    Hold::Lease(lease) if !self.expired => {
                        let next = Next::Start { at: now + delay };
                        become_holding(core, now, (self.term, lease), self.renew_at, next)
                    }
                    Hold::Lease(_) | Hold::Over(_) | Hold::Nothing => {
                        let then = after_loss(core);
                        self.leave(core, now, then)
                    }
                };
            }
            Sequel::Resign(sits_out) => {
                let then = match core.wishes.on_lost {
                    OnLost::Recampaign => Then::SitOut(sits_out),
                    // Nothing was lost: the command's status is why it ends.
                    OnLost::End => Then::End(Outcome::Command(end)),
                };
                let sits_out = matches!(then, Then::SitOut(_)).then_some(sits_out);
                core.report(Report::GivenUp { term: self.term, sits_out });
                then
            }
        };
        let held_until = core.runs.held_until();
        match self.hold {
            Hold::Lease(lease) | Hold::Over(lease) if now < held_until && !core.breaks(Sabotage::NoHold) => {
                let next = Next::Leave { at: held_until, then };
                become_holding(core, now, (self.term, lease), self.renew_at, next)
            }
            Hold::Lease(_) | Hold::Over(_) | Hold::Nothing => self.leave(core, now, then),
        }
    }

    /// Whether the lease is renewed, and renewals count: the term is not over yet.
    pub(super) fn rules(&self) -> bool {
        matches!(self.hold, Hold::Lease(_)) && !self.expired
    }

    pub(super) fn lease(&self) -> Option<Lease> {
        match self.hold {
            Hold::Lease(lease) | Hold::Over(lease) => Some(lease),
            Hold::Nothing => None,
        }
    }

    pub(super) fn wake_at(&self, idle: bool) -> Time {
        let deadline = match self.hold {
            Hold::Lease(lease) => lease.stop_by,
            Hold::Over(lease) if !self.killed => lease.kill_by,
            Hold::Over(_) | Hold::Nothing => Time::NEVER,
        };
        let renew_at = match self.hold {
            Hold::Lease(_) | Hold::Over(_) if idle => self.renew_at,
            Hold::Lease(_) | Hold::Over(_) | Hold::Nothing => Time::NEVER,
        };
        deadline.min(renew_at).min(self.reaper.wake_at()).min(self.tell_at)
    }
}
