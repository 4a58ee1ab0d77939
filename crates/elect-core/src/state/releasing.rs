//! Nothing of ours runs: the boundary, or the place in the queue, is given back, within a bounded time.

use super::transition::{AfterRelease, Transition};
use super::{Facts, Step};
use crate::context::Context;
use crate::input::{ControlInput, Input, KeeperInput, StoreInput};
use crate::{Answer, Notice, Outcome, Phase, Signal, Term, Time};

#[derive(Debug)]
pub(crate) struct Releasing {
    pub(super) term: Option<Term>,
    pub(super) ask_at: Time,
    /// The end of the attempts: after that the lease runs out by itself.
    pub(super) until: Time,
    pub(super) then: AfterRelease,
    /// A stop was asked for during the release.
    pub(super) stop_asked: bool,
}

impl Releasing {
    pub(super) fn next(&mut self, context: &mut Context, now: Time, input: Input) -> Step {
        match input {
            Input::Time if now >= self.until => return self.finish(context, now, false),
            Input::Time => {
                if context.store_requests.is_idle() && now >= self.ask_at {
                    context.release(now);
                }
            }
            Input::Store(StoreInput::Answer(Answer::Release(true))) => return self.finish(context, now, true),
            Input::Store(StoreInput::Answer(Answer::Release(false))) => self.ask_at = now + context.backoff(),
            Input::Keeper(KeeperInput::Died) => {
                context.notice(Notice::KeeperDied);
                self.then = AfterRelease::Exit(Outcome::KeeperDied);
            }
            Input::Control(ControlInput::Stop(signal)) => return self.stop(context, now, signal),
            Input::Store(_) | Input::Keeper(_) | Input::Control(_) => {}
        }
        Step::Stay
    }

    /// Whether the candidate campaigns no more afterwards. Once it is so, it stays so.
    pub(super) fn ends(&self) -> bool {
        matches!(self.then, AfterRelease::Exit(_))
    }

    fn stop(&mut self, context: &mut Context, now: Time, signal: Signal) -> Step {
        match self.then {
            AfterRelease::Campaign(_)
            | AfterRelease::CampaignAfter(_)
            | AfterRelease::CampaignBehind(_)
            | AfterRelease::CoolDown(_) => {
                self.then = AfterRelease::Exit(Outcome::Stopped(signal));
                Step::Stay
            }
            // The command ended just before the stop that was meant for it: the release goes on, so that the other
            // candidates need not wait for the end of the lease.
            AfterRelease::Exit(Outcome::Command(_)) if !self.stop_asked => {
                self.stop_asked = true;
                Step::Stay
            }
            // A second stop means at once.
            AfterRelease::Exit(_) => self.finish(context, now, false),
        }
    }

    fn finish(&self, context: &mut Context, now: Time, released: bool) -> Step {
        let began = self.until - 3 * context.timing.request_timeout();
        context.release_ended(began.min(now), released);
        if let Some(term) = self.term {
            context.notice(if released { Notice::Released { term } } else { Notice::NotReleased { term } });
        }
        Step::Go(Transition::Proceed(self.then.clone()))
    }

    pub(super) fn facts(&self, context: &Context) -> Facts {
        Facts {
            phase: Phase::Releasing,
            term: None,
            leading_term: None,
            lease: None,
            may_hold_tree: false,
            has_begun: false,
            background_hook_slot: None,
            wake_at: self.until.min(context.when_idle(self.ask_at)),
        }
    }
}
