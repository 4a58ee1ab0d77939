//! It is over but for the follower, whose tree is not empty yet.

use super::{Input, State, end};
use crate::Context;
use crate::event::{Notice, Outcome};

#[derive(Debug)]
pub(crate) struct StoppingFollower {
    pub(super) outcome: Outcome,
}

impl StoppingFollower {
    /// What becomes of the follower is its own business: here nothing but its end is waited for.
    pub(super) fn next(mut self, context: &mut Context, input: Input) -> State {
        match input {
            Input::KeeperDied => {
                context.notice(Notice::KeeperDied);
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
        State::StoppingFollower(self)
    }

    pub(super) fn end_if_alone(self, context: &mut Context) -> State {
        if context.follower.is_gone() { end(context, self.outcome) } else { State::StoppingFollower(self) }
    }
}
