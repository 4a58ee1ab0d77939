//! The candidacy is over, but the follower's tree is not empty yet.

use super::transition::Transition;
use super::{Facts, Step};
use crate::context::Context;
use crate::input::{Input, KeeperInput};
use crate::{Notice, Outcome, Phase, Time};

#[derive(Debug)]
pub(crate) struct StoppingFollower {
    pub(super) outcome: Outcome,
}

impl StoppingFollower {
    /// The follower handles its own inputs; this state only waits for its end.
    pub(super) fn next(&mut self, context: &mut Context, input: Input) -> Step {
        match input {
            Input::Keeper(KeeperInput::Died) => {
                context.notice(Notice::KeeperDied);
                self.outcome = Outcome::KeeperDied;
            }
            Input::Time | Input::Store(_) | Input::Keeper(_) | Input::Control(_) => {}
        }
        Step::Stay
    }

    pub(super) fn end_if_alone(&self, context: &Context) -> Step {
        if context.follower.is_gone() { Step::Go(Transition::End(self.outcome.clone())) } else { Step::Stay }
    }

    pub(super) fn facts() -> Facts {
        Facts {
            phase: Phase::StoppingFollower,
            term: None,
            leading_term: None,
            lease: None,
            may_hold_tree: false,
            has_begun: false,
            background_hook_slot: None,
            wake_at: Time::NEVER,
        }
    }
}
