//! The campaign limit, once more: when a candidate may end without a command that ran, and with which word. Computed
//! from its questions, from the answers that reached it in time, and from what it was told to wish; the core is never
//! asked.

use std::time::Duration;

use super::super::time::Time;
use super::super::{CampaignLimit, OnLost, Phase, Policy};
use super::coverage::Seen;
use super::invariants::SLACK;
use super::run::Simulation;
use super::store::Ask;
use crate::{Answer, Campaigned, Event, FromKeeper, Notice, Outcome, Renewed};

/// The state of the check of one candidate's campaign limit.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "a ledger: each is a fact of its own")]
pub(super) struct WaitCheck {
    policy: Policy,
    /// The first question since the start, or since the last leadership.
    since: Option<Time>,
    /// How the last attempt to be elected failed.
    said: Option<AnswerKind>,
    last_asked: Ask,
    /// When it was last told that its only question was not settled yet.
    undecided: Option<Time>,
    /// Since when in truth it has been standing without a break.
    standing: Option<Duration>,
    /// In this stand it has been behind somebody, or has won.
    behind: bool,
    won: bool,
    /// When a win that is not verified is given back.
    verified_until: Time,
    /// A win that a follower keeps waiting, or that is not verified yet.
    verifying: bool,
    /// It has led at least once.
    led: bool,
    /// In this term somebody asked it to stop, or the command ended by itself, before anything was lost.
    ended_well: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AnswerKind {
    NotYou,
    Nothing,
}

impl WaitCheck {
    pub(super) fn new(policy: Policy) -> WaitCheck {
        WaitCheck {
            policy,
            since: None,
            said: None,
            last_asked: Ask::Campaign,
            undecided: None,
            standing: None,
            behind: false,
            won: false,
            verified_until: Time::NEVER,
            verifying: false,
            led: false,
            ended_well: false,
        }
    }

    fn until(&self) -> Time {
        match (self.since, self.policy.campaign_limit) {
            (Some(since), CampaignLimit::For(campaign_limit)) => since + campaign_limit,
            (None, _) | (_, CampaignLimit::Unlimited) => Time::NEVER,
        }
    }

    /// Answers after the end of the campaign limit do not count, unless there was none before.
    fn hear(&mut self, now: Time, said: AnswerKind) {
        if self.said.is_none() || now < self.until() {
            self.said = Some(said);
            self.behind |= said == AnswerKind::NotYou;
        }
    }
}

impl Simulation {
    /// Before the candidate hears of an event: a question whose time is up has been answered by nothing.
    pub(super) fn wait_limit_on_event(&mut self, h: usize, now: Time, event: Event, in_time: bool) {
        let host = &mut self.hosts[h];
        let phase = host.candidate.phase();
        let (reference, wait_check) = (&host.reference, &mut host.wait_check);
        let overdue = reference
            .request
            .is_some_and(|open| open.ask == Ask::Campaign && now >= open.decided_at + reference.request_timeout());
        if phase == Phase::Campaigning && overdue {
            wait_check.hear(now, AnswerKind::Nothing);
        }
        match (event, phase) {
            (Event::Answer { answer: Answer::Campaign(answer), .. }, Phase::Campaigning) if in_time => match answer {
                // Not settled: whoever asks only once goes on asking.
                Campaigned::Waiting { decided: false, .. }
                    if wait_check.policy.campaign_limit == CampaignLimit::For(Duration::ZERO) =>
                {
                    wait_check.undecided = Some(now);
                }
                Campaigned::Waiting { .. } => wait_check.hear(now, AnswerKind::NotYou),
                Campaigned::Refused | Campaigned::Failed | Campaigned::Connecting => {
                    wait_check.hear(now, AnswerKind::Nothing);
                }
                Campaigned::Won(_) => {}
            },
            // A verification runs to its end, whatever the wait limit.
            (Event::Answer { answer: Answer::Renew(Renewed::Lost), .. }, Phase::Verifying)
                if in_time && now < wait_check.verified_until =>
            {
                wait_check.said = Some(AnswerKind::NotYou);
            }
            // Neither a word for nor against: the same place is asked for again.
            (Event::Answer { answer: Answer::Renew(Renewed::Outdated), .. }, Phase::Verifying)
                if in_time && now < wait_check.verified_until =>
            {
                (wait_check.said, wait_check.undecided) = (None, Some(now));
            }
            (Event::Ousted { term }, Phase::Verifying)
                if reference.won == Some(term) && now < wait_check.verified_until =>
            {
                wait_check.said = Some(AnswerKind::NotYou);
            }
            (Event::Stop(_), Phase::Leading | Phase::Stopping) => wait_check.ended_well = true,
            (Event::Keeper(FromKeeper::Exited { run, end }), Phase::Leading)
                if host.follower_check.is_command(run) && !host.restart_check.restarts_after(end) =>
            {
                wait_check.ended_well |= reference.lease.is_some_and(|lease| now < lease.stop_by);
            }
            // Verified, and kept waiting by a follower.
            (Event::Answer { answer: Answer::Renew(Renewed::Credited { .. }), .. }, Phase::Verifying)
                if in_time && host.candidate.has_a_follower() =>
            {
                wait_check.verified_until = now + reference.ttl.unwrap_or(Duration::from_secs(10));
            }
            (
                Event::Answer { .. }
                | Event::Ousted { .. }
                | Event::Stop(_)
                | Event::Keeper(_)
                | Event::Tick
                | Event::Hint
                | Event::LeaderObserved(_)
                | Event::TermSeen(_)
                | Event::HookDue(_)
                | Event::KeeperDied
                | Event::Swept { .. }
                | Event::ConfirmLeadership { .. }
                | Event::Resign(_)
                | Event::Drain(_)
                | Event::Undrain(_)
                | Event::Forward(_),
                _,
            ) => {}
        }
    }

    pub(super) fn wait_limit_on_request(&mut self, h: usize, now: Time, ask: Ask) {
        let wait_check = &mut self.hosts[h].wait_check;
        wait_check.last_asked = ask;
        if ask != Ask::Campaign {
            return;
        }
        let again = wait_check.led && wait_check.since.is_none();
        wait_check.since.get_or_insert(now);
        let bounded = wait_check.policy.campaign_limit != CampaignLimit::Unlimited;
        let is_late = wait_check.said.is_some() && now >= wait_check.until();
        if wait_check.led && wait_check.policy.on_lost == OnLost::End {
            self.violate("6: a candidate that was to end with its leadership stands again", h);
        } else if is_late {
            self.violate("6: a candidate asks again after its wait limit", h);
        } else if again && bounded {
            self.coverage.count(Seen::WaitLimitAgain);
        }
    }

    pub(super) fn wait_limit_on_notice(&mut self, h: usize, report: &Notice) {
        let now = self.hosts[h].clock.at(self.now);
        let verify_within = self.hosts[h].reference.ttl.unwrap_or(Duration::from_secs(10));
        let wait_check = &mut self.hosts[h].wait_check;
        match report {
            Notice::Won { .. } => {
                // A win that is not verified counts as unanswered.
                (wait_check.said, wait_check.won, wait_check.ended_well) = (Some(AnswerKind::Nothing), true, false);
                (wait_check.verified_until, wait_check.verifying) = (now + verify_within, true);
            }
            Notice::Elected { .. } => {
                let (behind, late) = (wait_check.behind, now >= wait_check.until());
                let bounded = wait_check.policy.campaign_limit != CampaignLimit::Unlimited;
                let undecided = wait_check.undecided.take().is_some();
                (wait_check.since, wait_check.said, wait_check.led) = (None, None, true);
                (wait_check.behind, wait_check.won, wait_check.verifying) = (false, false, false);
                if bounded && behind {
                    self.coverage.count(Seen::ElectedInTime);
                }
                if late {
                    self.coverage.count(Seen::VerifiedLate);
                }
                if undecided {
                    self.coverage.count(Seen::ElectedAfterAll);
                }
            }
            // K11: it was the store's word, and we could not follow it.
            Notice::FollowerUnconfirmed if wait_check.verifying && now < wait_check.verified_until => {
                wait_check.said = Some(AnswerKind::NotYou);
            }
            Notice::NotElected => {
                let at_once = wait_check.policy.campaign_limit == CampaignLimit::For(Duration::ZERO);
                if wait_check.undecided.is_some() {
                    self.coverage.count(Seen::NotElectedAfterAll);
                }
                self.coverage.count(if at_once { Seen::NotElectedAtOnce } else { Seen::NotElectedInTime });
                if wait_check.won {
                    self.coverage.count(Seen::WonInVain);
                }
                self.check_gives_up(h, now, AnswerKind::NotYou);
            }
            Notice::Unavailable => {
                let won = wait_check.won;
                self.coverage.count(if won { Seen::WonInVain } else { Seen::Unavailable });
                self.check_gives_up(h, now, AnswerKind::Nothing);
            }
            Notice::Started { .. }
            | Notice::CommandEnded { .. }
            | Notice::LeftBehind { .. }
            | Notice::StopTimedOut { .. }
            | Notice::StopShortened { .. }
            | Notice::Killing { .. }
            | Notice::FollowerKilling
            | Notice::Stopping { .. }
            | Notice::Restarting { .. }
            | Notice::LeadingIdle { .. }
            | Notice::LostAtRest { .. }
            | Notice::GivenUp { .. }
            | Notice::NotAccepted { .. }
            | Notice::HookFailed { .. }
            | Notice::FollowerStarted { .. }
            | Notice::FollowerEnded { .. }
            | Notice::FollowerCannotStart(_)
            | Notice::FollowerStopping { .. }
            | Notice::FollowerUnconfirmed
            | Notice::CampaignsAgain
            | Notice::Drained
            | Notice::Undrained
            | Notice::Healthy
            | Notice::Unhealthy { .. }
            | Notice::LongUnhealthy { .. }
            | Notice::Unconfirmed { .. }
            | Notice::TermTooLow { .. }
            | Notice::Released { .. }
            | Notice::NotReleased { .. }
            | Notice::Unusable(_)
            | Notice::KeeperSilent
            | Notice::KeeperDied => {}
        }
    }

    fn check_gives_up(&mut self, h: usize, now: Time, said: AnswerKind) {
        let wait_check = &self.hosts[h].wait_check;
        if now < wait_check.until() {
            self.violate("6: a candidate gave up before its wait limit", h);
        } else if wait_check.said != Some(said) {
            self.violate("6: a candidate gave up for another reason than the store's last word", h);
        }
    }

    pub(super) fn wait_limit_on_end(&mut self, h: usize, outcome: &Outcome) {
        let wait_check = &self.hosts[h].wait_check;
        match outcome {
            Outcome::NotElected | Outcome::Unavailable => {
                if wait_check.last_asked != Ask::Release {
                    self.violate("6: a candidate gave up and kept its place", h);
                }
            }
            Outcome::LeadershipLost => {
                self.coverage.count(Seen::LeadershipLost);
                let wait_check = &self.hosts[h].wait_check;
                if wait_check.policy.on_lost != OnLost::End || !wait_check.led || wait_check.ended_well {
                    self.violate("6: a candidate ended for a leadership that was not lost", h);
                }
            }
            Outcome::Command(_)
            | Outcome::Stopped(_)
            | Outcome::CannotStart(_)
            | Outcome::Refused
            | Outcome::Unusable(_)
            | Outcome::KeeperDied => {}
        }
    }

    /// After every step: nobody stands for longer than it policy to, but for one question that is under way.
    pub(super) fn check_wait_limit(&mut self, h: usize) {
        let host = &mut self.hosts[h];
        let wait_check = &mut host.wait_check;
        if host.candidate.phase() != Phase::Campaigning || !host.campaigner.is_running() {
            wait_check.standing = None;
            return;
        }
        wait_check.verifying = false;
        let since = *wait_check.standing.get_or_insert(self.now);
        // An undecided answer is followed by a request at the usual pace.
        let pace = host.reference.ttl.unwrap_or_default();
        let until = wait_check.undecided.map_or(wait_check.until(), |at| wait_check.until().max(at + pace));
        let since = if wait_check.undecided.is_some() { since + 2 * host.reference.request_timeout() } else { since };
        let due = host.clock.when(until + host.reference.request_timeout()).max(since);
        if due != Duration::MAX && self.now > due + SLACK {
            self.violate("6: a candidate stands for longer than it was to wait", h);
        }
    }
}
