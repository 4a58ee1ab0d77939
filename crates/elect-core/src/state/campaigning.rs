//! Not the leader: the store is asked for the boundary, again and again, for as long as there is patience.

use std::time::Duration;

use super::releasing::{AfterRelease, become_releasing};
use super::verifying::become_verifying;
use super::{Input, State, become_ended};
use crate::event::{Answer, Campaigned, Notice, Outcome, Term};
use crate::mutation::Mutation;
use crate::time::Time;
use crate::{CampaignLimit, Context};

#[derive(Debug)]
pub(crate) struct Campaigning {
    pub(super) ask_at: Time,
    /// After a release: until then hints are left to the other candidates, for the first of them tells of that release.
    pub(super) rests_until: Time,
    /// A hint came while a request was under way: its answer may be older than the hint.
    pub(super) hinted: bool,
    /// Attempts that failed in a row.
    pub(super) failures: u32,
    /// What came of the last attempt to be elected; `None` while the first has not been answered.
    pub(super) setback: Option<CampaignFailure>,
}

/// Why a candidate was not elected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CampaignFailure {
    /// The store says so: somebody else leads, or nobody may yet.
    NotElected,
    /// The store did not answer.
    StoreUnavailable,
}

pub(super) fn become_campaigning(context: &mut Context, ask_at: Time, setback: Option<CampaignFailure>) -> State {
    context.store_requests.abandon();
    State::Campaigning(Campaigning { ask_at, rests_until: Time::BOOT, hinted: false, failures: 0, setback })
}

/// After a release the other candidates are first: no hint brings the next question forward.
pub(super) fn become_resting(context: &mut Context, ask_at: Time, setback: Option<CampaignFailure>) -> State {
    context.store_requests.abandon();
    State::Campaigning(Campaigning { ask_at, rests_until: ask_at, hinted: false, failures: 0, setback })
}

/// The end for want of patience. Whatever the store holds for us, a place in the queue too, is given back first.
pub(super) fn give_up(context: &mut Context, now: Time, term: Option<Term>, setback: CampaignFailure) -> State {
    let (report, outcome) = match setback {
        CampaignFailure::NotElected => (Notice::NotElected, Outcome::NotElected),
        CampaignFailure::StoreUnavailable => (Notice::Unavailable, Outcome::Unavailable),
    };
    context.notice(report);
    if context.mutated(Mutation::PlaceKept) {
        return become_ended(context, outcome);
    }
    become_releasing(context, now, term, AfterRelease::Exit(outcome))
}

impl Campaigning {
    pub(super) fn next(mut self, context: &mut Context, now: Time, input: Input) -> State {
        match input {
            Input::Time => {
                if let Some(setback) = self.setback
                    && context.campaign_timed_out(now)
                {
                    return give_up(context, now, None, setback);
                }
                // 2.3: no candidacy beside a killed tree that is still there; our place in the queue goes to others.
                if context.is_held_up(now) {
                    return become_releasing(context, now, None, AfterRelease::Campaign(self.setback));
                }
                if context.store_requests.is_idle() && now >= self.ask_at {
                    self.hinted = false;
                    context.ask_for_the_boundary(now);
                }
            }
            Input::Answer(Answer::Campaign(answer)) => match answer {
                Campaigned::Won(term) => {
                    context.store_answered = true;
                    return become_verifying(context, now, term);
                }
                Campaigned::Waiting { again, decided } => {
                    context.store_answered = true;
                    self.failures = 0;
                    // Whoever asks only once asks until that is answered.
                    let asks_once = context.policy.campaign_limit == CampaignLimit::For(Duration::ZERO);
                    if decided || !asks_once || context.mutated(Mutation::UndecidedCounts) {
                        self.setback = Some(CampaignFailure::NotElected);
                    }
                    let rest = again.unwrap_or(context.timing.renew()).min(context.timing.renew());
                    self.ask_at = if self.hinted { now } else { now + rest };
                }
                Campaigned::Refused if !context.store_answered => return become_ended(context, Outcome::Refused),
                Campaigned::Refused | Campaigned::Failed => {
                    // Doubling, but never rarer than a waiter asks anyway.
                    let backoff = context.backoff() * 2u32.pow(self.failures.min(16));
                    self.failures += 1;
                    self.setback = Some(CampaignFailure::StoreUnavailable);
                    self.ask_at = now + backoff.min(context.timing.renew());
                }
            },
            Input::Hint => {
                self.hinted = true;
                if self.failures == 0 && now >= self.rests_until {
                    self.ask_at = now;
                }
            }
            Input::Leader(leader) => context.leader_is(now, leader),
            Input::Stop(signal) => {
                return become_releasing(context, now, None, AfterRelease::Exit(Outcome::Stopped(signal)));
            }
            Input::KeeperDied => {
                context.notice(Notice::KeeperDied);
                return become_releasing(context, now, None, AfterRelease::Exit(Outcome::KeeperDied));
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
        State::Campaigning(self)
    }

    /// Not before the first question has been answered, or has run out of time.
    pub(super) fn gives_up_at(&self, context: &Context) -> Time {
        match (self.setback, context.campaign_deadline) {
            (Some(_), Some(until)) => until,
            (None, _) | (_, None) => Time::NEVER,
        }
    }
}
