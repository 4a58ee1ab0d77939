//! Not the leader, and not a candidate for a while: the command has failed here too often, or the hook before it, and another
//! host is to try. Or a follower that was killed is still there (2.3). Nothing is started, and the store holds nothing for us.

use super::campaigning::{CampaignFailure, become_campaigning};
use super::{Input, State, become_ended};
use crate::Context;
use crate::event::{Notice, Outcome};
use crate::time::Time;

#[derive(Debug)]
pub(crate) struct CoolingDown {
    pub(super) until: Time,
    /// What came of the last attempt to be elected, if that led to nothing.
    setback: Option<CampaignFailure>,
}

pub(super) fn become_cooling_down(context: &mut Context, until: Time, setback: Option<CampaignFailure>) -> State {
    context.store_requests.abandon();
    State::CoolingDown(CoolingDown { until, setback })
}

impl CoolingDown {
    pub(super) fn next(self, context: &mut Context, now: Time, input: Input) -> State {
        match input {
            Input::Time if now >= self.until && !context.is_held_up(now) => {
                context.notice(Notice::CampaignsAgain);
                return become_campaigning(context, now, self.setback).next(context, now, Input::Time);
            }
            Input::Stop(signal) => return become_ended(context, Outcome::Stopped(signal)),
            Input::KeeperDied => {
                context.notice(Notice::KeeperDied);
                return become_ended(context, Outcome::KeeperDied);
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
        State::CoolingDown(self)
    }

    /// The end of a follower that is in the way comes by itself.
    pub(super) fn wake_at(&self, context: &Context) -> Time {
        if context.follower.is_gone() { self.until } else { Time::NEVER }
    }
}
