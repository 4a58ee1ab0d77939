//! It is over but for the follower, whose tree is not empty yet.

use super::{Input, State, end};
use crate::Core;
use crate::event::{Outcome, Report};

#[derive(Debug)]
pub(crate) struct Parting {
    pub(super) outcome: Outcome,
}

impl Parting {
    /// What becomes of the follower is its own business: here nothing but its end is waited for.
    pub(super) fn next(mut self, core: &mut Core, input: Input) -> State {
        match input {
            Input::KeeperDied => {
                core.report(Report::KeeperDied);
                self.outcome = Outcome::KeeperDied;
            }
            Input::Time
            | Input::Answer(_)
            | Input::Hint
            | Input::Leader(_)
            | Input::Ousted
            | Input::Started(_)
            | Input::Idle
            | Input::Cleared
            | Input::NotStarted(_)
            | Input::Exited(_)
            | Input::Expired
            | Input::Empty
            | Input::Swept { .. }
            | Input::Stop(_)
            | Input::Forward(_)
            | Input::Ask
            | Input::Resign => {}
        }
        State::Parting(self)
    }

    pub(super) fn end_if_alone(self, core: &mut Core) -> State {
        if core.follower.is_gone() { end(core, self.outcome) } else { State::Parting(self) }
    }
}
