//! Not the leader, and not a candidate for a while. Either the command, or the hook before it, has failed here too
//! often, and another host is to try; or a killed follower still exists (2.3). Nothing is started, and the store holds
//! nothing for us.

use super::campaigning::CampaignFailure;
use super::transition::Transition;
use super::{Facts, Step};
use crate::context::Context;
use crate::input::{ControlInput, Input, KeeperInput};
use crate::{Notice, Outcome, Phase, Time};

#[derive(Debug)]
pub(crate) struct CoolingDown {
    pub(super) until: Time,
    /// The failure of the last campaign, if it failed.
    pub(super) failure: Option<CampaignFailure>,
}

impl CoolingDown {
    pub(super) fn next(&self, context: &mut Context, now: Time, input: Input) -> Step {
        match input {
            Input::Time if now >= self.until && !context.is_held_up(now) => {
                context.notice(Notice::CampaignsAgain);
                Step::Go(Transition::Campaign { ask_at: now, hints_from: Time::BOOT, failure: self.failure })
            }
            Input::Keeper(KeeperInput::Died) => {
                context.notice(Notice::KeeperDied);
                Step::Go(Transition::Exit(Outcome::KeeperDied))
            }
            Input::Control(ControlInput::Stop(signal)) => Step::Go(Transition::Exit(Outcome::Stopped(signal))),
            // A hint that the boundary is free does not shorten the cooldown.
            Input::Time | Input::Store(_) | Input::Keeper(_) | Input::Control(_) => Step::Stay,
        }
    }

    pub(super) fn facts(&self, context: &Context) -> Facts {
        Facts {
            phase: Phase::CoolingDown,
            term: None,
            leading_term: None,
            lease: None,
            may_hold_tree: false,
            has_begun: false,
            background_hook_slot: context.follower.background_hook_slot(),
            // The end of a follower that is in the way is an event of its own.
            wake_at: if context.follower.is_gone() { self.until } else { Time::NEVER },
        }
    }
}
