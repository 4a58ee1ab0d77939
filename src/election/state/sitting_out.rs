//! Not the leader, and not a candidate for a while: the command has failed here too often, and another host is to try.
//! Nothing runs, and the store holds nothing for us.

use super::standing::become_standing;
use super::{Input, State, become_ended};
use crate::election::Core;
use crate::election::event::{Outcome, Report};
use crate::election::time::Time;

#[derive(Debug)]
pub(in crate::election) struct SittingOut {
    pub(super) until: Time,
}

pub(super) fn become_sitting_out(core: &mut Core, until: Time) -> State {
    core.requests.abandon();
    State::SittingOut(SittingOut { until })
}

impl SittingOut {
    pub(super) fn next(self, core: &mut Core, now: Time, input: Input) -> State {
        match input {
            Input::Time if now >= self.until => {
                core.report(Report::StandsAgain);
                return become_standing(core, now, None).next(core, now, Input::Time);
            }
            Input::Stop(signal) => return become_ended(core, Outcome::Stopped(signal)),
            Input::KeeperDied => {
                core.report(Report::KeeperDied);
                return become_ended(core, Outcome::KeeperDied);
            }
            // That the boundary is free is not for us yet.
            Input::Hint
            | Input::Time
            | Input::Answer(_)
            | Input::Ousted
            | Input::Started(_)
            | Input::NotStarted(_)
            | Input::Exited(_)
            | Input::Expired
            | Input::Empty
            | Input::Swept { .. }
            | Input::Forward(_) => {}
        }
        State::SittingOut(self)
    }
}
