//! Not the leader, and not a candidate for a while: the command has failed here too often, or the hook before it, and another
//! host is to try. Or a follower that was killed is still there (2.3). Nothing is started, and the store holds nothing for us.

use super::standing::{Setback, become_standing};
use super::{Input, State, become_ended};
use crate::Core;
use crate::event::{Outcome, Report};
use crate::time::Time;

#[derive(Debug)]
pub(crate) struct SittingOut {
    pub(super) until: Time,
    /// What came of the last attempt to be elected, if that led to nothing.
    setback: Option<Setback>,
}

pub(super) fn become_sitting_out(core: &mut Core, until: Time, setback: Option<Setback>) -> State {
    core.requests.abandon();
    State::SittingOut(SittingOut { until, setback })
}

impl SittingOut {
    pub(super) fn next(self, core: &mut Core, now: Time, input: Input) -> State {
        match input {
            Input::Time if now >= self.until && !core.is_held_up(now) => {
                core.report(Report::StandsAgain);
                return become_standing(core, now, self.setback).next(core, now, Input::Time);
            }
            Input::Stop(signal) => return become_ended(core, Outcome::Stopped(signal)),
            Input::KeeperDied => {
                core.report(Report::KeeperDied);
                return become_ended(core, Outcome::KeeperDied);
            }
            // That the boundary is free is not for us yet.
            Input::Hint
            | Input::Leader(_)
            | Input::Time
            | Input::Answer(_)
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
        State::SittingOut(self)
    }

    /// The end of a follower that is in the way comes by itself.
    pub(super) fn wake_at(&self, core: &Core) -> Time {
        if core.follower.is_gone() { self.until } else { Time::NEVER }
    }
}
