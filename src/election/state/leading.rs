//! The leader: the lease is renewed, and the command may live.

use std::time::Duration;

use super::stopping::Hold;
use super::{Input, State, VERIFY_WITHIN, credit, next_renewal};
use crate::election::Core;
use crate::election::event::{Action, Answer, NotStarted, Reason, Renewed, Report, Term};
use crate::election::runs::Sequel;
use crate::election::sabotage::Sabotage;
use crate::election::time::Time;
use crate::election::timing::Lease;

#[derive(Debug)]
pub(in crate::election) struct Leading {
    pub(super) term: Term,
    pub(super) lease: Lease,
    pub(super) renew_at: Time,
    command: Command,
    /// If the keeper still finds it too late for the command then, we resign (K5).
    pub(super) resign_at: Time,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Command {
    /// The keeper has been told to start it.
    Starting,
    /// It was too late for the lease that was armed: again after the next credited renewal (K5).
    Deferred,
    Running,
}

/// Only with a lease that was credited, and with more than one renewal left in it (K5).
pub(super) fn become_leading(core: &mut Core, now: Time, term: Term, lease: Lease) -> State {
    core.report(Report::Elected { term });
    core.stands_until = None;
    core.runs.term_begins();
    core.arm(term, lease);
    core.start(term);
    let renew_at = next_renewal(core, now, lease);
    State::Leading(Leading { term, lease, renew_at, command: Command::Starting, resign_at: Time::NEVER })
}

/// Once more in the same term: with an empty tree, a lease that is still ours, and more than one renewal left in it (K5).
pub(super) fn restart(core: &mut Core, now: Time, term: Term, lease: Lease, renew_at: Time) -> State {
    core.runs.restarted(now);
    core.arm(term, lease);
    core.start(term);
    State::Leading(Leading { term, lease, renew_at, command: Command::Starting, resign_at: Time::NEVER })
}

impl Leading {
    pub(super) fn next(mut self, core: &mut Core, now: Time, input: Input) -> State {
        match input {
            Input::Time => {
                if now >= self.lease.stop_by {
                    let hold = Hold::Over(self.lease);
                    return self.become_stopping(core, now, Reason::RunningOut, hold);
                }
                if now >= self.resigns_at() {
                    let hold = Hold::Lease(self.lease);
                    return self.become_stopping(core, now, Reason::RunningOut, hold);
                }
                if core.requests.is_idle() && now >= self.renew_at {
                    core.renew(now);
                }
            }
            Input::Answer(Answer::Renew(answer)) => match answer {
                Renewed::Credited { sent, ttl } => return self.credited(core, now, sent, ttl),
                Renewed::Lost => return self.become_stopping(core, now, Reason::Lost, Hold::Nothing),
                Renewed::Failed => self.renew_at = now + core.backoff(),
            },
            Input::Ousted => return self.become_stopping(core, now, Reason::Lost, Hold::Nothing),
            Input::Started(pid) => {
                core.report(Report::Started { term: self.term, pid });
                core.runs.started(now);
                self.command = Command::Running;
            }
            Input::NotStarted(NotStarted::TooLate) => {
                self.command = Command::Deferred;
                // The first time only: a keeper that refuses again is not asked as fast as the store can answer.
                if self.resign_at == Time::NEVER {
                    self.resign_at = now + core.timing.ttl().unwrap_or(VERIFY_WITHIN);
                    self.renew_at = now;
                }
            }
            Input::NotStarted(NotStarted::Failed(errno)) => {
                let hold = Hold::Lease(self.lease);
                return self.become_stopping(core, now, Reason::CannotStart(errno), hold);
            }
            Input::Exited(end) => {
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
                return State::Stopping(stopping);
            }
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
            Input::Forward(signal) => {
                if self.command == Command::Running {
                    core.act(Action::Forward(signal));
                }
            }
            // A hint is another candidate's business, or looked into by the next renewal. "Empty" without the end of a
            // main process is of a start that never ran.
            Input::Hint
            | Input::Empty
            | Input::Swept { .. }
            | Input::Answer(Answer::Campaign(_) | Answer::Release(_)) => {}
        }
        State::Leading(self)
    }

    pub(super) fn resigns_at(&self) -> Time {
        match self.command {
            Command::Deferred => self.resign_at,
            Command::Starting | Command::Running => Time::NEVER,
        }
    }

    fn credited(mut self, core: &mut Core, now: Time, sent: Time, ttl: Option<Duration>) -> State {
        match credit(core, sent, ttl) {
            Ok(lease) => {
                // Deadlines only move forward (K1).
                if lease.sent > self.lease.sent {
                    self.lease = lease;
                    core.arm(self.term, lease);
                }
                if self.command == Command::Deferred {
                    self.command = Command::Starting;
                    core.start(self.term);
                }
                self.renew_at = next_renewal(core, now, self.lease);
                State::Leading(self)
            }
            Err(error) => {
                core.report(Report::Unusable(error));
                let hold = Hold::Lease(self.lease);
                self.become_stopping(core, now, Reason::RunningOut, hold)
            }
        }
    }
}
