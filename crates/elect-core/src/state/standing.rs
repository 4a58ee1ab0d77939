//! Not the leader: the store is asked for the boundary, again and again, for as long as there is patience.

use std::time::Duration;

use super::releasing::{Then, become_releasing};
use super::verifying::become_verifying;
use super::{Input, State, become_ended};
use crate::event::{Answer, Campaigned, Outcome, Report, Term};
use crate::sabotage::Sabotage;
use crate::time::Time;
use crate::{Core, Patience};

#[derive(Debug)]
pub(crate) struct Standing {
    pub(super) ask_at: Time,
    /// After a release: until then hints are left to the other candidates, for the first of them tells of that release.
    pub(super) rests_until: Time,
    /// A hint came while a request was under way: its answer may be older than the hint.
    pub(super) hinted: bool,
    /// Attempts that failed in a row.
    pub(super) failures: u32,
    /// What came of the last attempt to be elected; `None` while the first has not been answered.
    pub(super) setback: Option<Setback>,
}

/// Why a candidate was not elected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Setback {
    /// The store says so: somebody else leads, or nobody may yet.
    Behind,
    /// The store did not answer.
    Silence,
}

pub(super) fn become_standing(core: &mut Core, ask_at: Time, setback: Option<Setback>) -> State {
    core.requests.abandon();
    State::Standing(Standing { ask_at, rests_until: Time::BOOT, hinted: false, failures: 0, setback })
}

/// After a release the other candidates are first: no hint brings the next question forward.
pub(super) fn become_resting(core: &mut Core, ask_at: Time, setback: Option<Setback>) -> State {
    core.requests.abandon();
    State::Standing(Standing { ask_at, rests_until: ask_at, hinted: false, failures: 0, setback })
}

/// The end for want of patience. Whatever the store holds for us, a place in the queue too, is given back first.
pub(super) fn give_up(core: &mut Core, now: Time, term: Option<Term>, setback: Setback) -> State {
    let (report, outcome) = match setback {
        Setback::Behind => (Report::NotElected, Outcome::NotElected),
        Setback::Silence => (Report::Unavailable, Outcome::Unavailable),
    };
    core.report(report);
    if core.breaks(Sabotage::PlaceKept) {
        return become_ended(core, outcome);
    }
    become_releasing(core, now, term, Then::End(outcome))
}

impl Standing {
    pub(super) fn next(mut self, core: &mut Core, now: Time, input: Input) -> State {
        match input {
            Input::Time => {
                if let Some(setback) = self.setback
                    && core.is_out_of_patience(now)
                {
                    return give_up(core, now, None, setback);
                }
                // 2.3: no candidacy beside a killed tree that is still there; our place in the queue goes to others.
                if core.is_held_up(now) {
                    return become_releasing(core, now, None, Then::Stand(self.setback));
                }
                if core.requests.is_idle() && now >= self.ask_at {
                    self.hinted = false;
                    core.ask_for_the_boundary(now);
                }
            }
            Input::Answer(Answer::Campaign(answer)) => match answer {
                Campaigned::Won(term) => {
                    core.store_answered = true;
                    return become_verifying(core, now, term);
                }
                Campaigned::Waiting { again, decided } => {
                    core.store_answered = true;
                    self.failures = 0;
                    // Whoever asks only once asks until that is answered.
                    let asks_once = core.wishes.patience == Patience::AtMost(Duration::ZERO);
                    if decided || !asks_once || core.breaks(Sabotage::UndecidedCounts) {
                        self.setback = Some(Setback::Behind);
                    }
                    let rest = again.unwrap_or(core.timing.renew()).min(core.timing.renew());
                    self.ask_at = if self.hinted { now } else { now + rest };
                }
                Campaigned::Refused if !core.store_answered => return become_ended(core, Outcome::Refused),
                Campaigned::Refused | Campaigned::Failed => {
                    // Doubling, but never rarer than a waiter asks anyway.
                    let backoff = core.backoff() * 2u32.pow(self.failures.min(16));
                    self.failures += 1;
                    self.setback = Some(Setback::Silence);
                    self.ask_at = now + backoff.min(core.timing.renew());
                }
            },
            Input::Hint => {
                self.hinted = true;
                if self.failures == 0 && now >= self.rests_until {
                    self.ask_at = now;
                }
            }
            Input::Leader(leader) => core.leader_is(now, leader),
            Input::Stop(signal) => {
                return become_releasing(core, now, None, Then::End(Outcome::Stopped(signal)));
            }
            Input::KeeperDied => {
                core.report(Report::KeeperDied);
                return become_releasing(core, now, None, Then::End(Outcome::KeeperDied));
            }
            Input::Answer(Answer::Renew(_) | Answer::Release(_))
            | Input::Ousted
            | Input::Started(_)
            | Input::Idle
            | Input::Cleared
            | Input::NotStarted(_)
            | Input::Exited(_)
            | Input::Expired
            | Input::Empty
            | Input::Swept { .. }
            | Input::Forward(_)
            | Input::Ask
            | Input::Resign => {}
        }
        State::Standing(self)
    }

    /// Not before the first question has been answered, or has run out of time.
    pub(super) fn gives_up_at(&self, core: &Core) -> Time {
        match (self.setback, core.stands_until) {
            (Some(_), Some(until)) => until,
            (None, _) | (_, None) => Time::NEVER,
        }
    }
}
