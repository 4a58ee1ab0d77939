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
    pub(super) fn patience_hears(&mut self, h: usize, now: Time, event: Event, in_time: bool) {
        let host = &mut self.hosts[h];
        let phase = host.candidate.phase();
        let (books, patient) = (&host.books, &mut host.patient);
        let overdue =
            books.request.is_some_and(|(_, sent, ask)| ask == Ask::Campaign && now >= sent + books.request_timeout());
        if phase == Phase::Campaigning && overdue {
            patient.hear(now, AnswerKind::Nothing);
        }
        match (event, phase) {
            (Event::Answer { answer: Answer::Campaign(answer), .. }, Phase::Campaigning) if in_time => match answer {
                // Not settled: whoever asks only once goes on asking.
                Campaigned::Waiting { decided: false, .. }
                    if patient.policy.campaign_limit == CampaignLimit::For(Duration::ZERO) =>
                {
                    patient.undecided = Some(now);
                }
                Campaigned::Waiting { .. } => patient.hear(now, AnswerKind::NotYou),
                Campaigned::Refused | Campaigned::Failed => patient.hear(now, AnswerKind::Nothing),
                Campaigned::Won(_) => {}
            },
            // A verification is heard to its end, whatever the campaign_limit.
            (Event::Answer { answer: Answer::Renew(Renewed::Lost), .. }, Phase::Verifying)
                if in_time && now < patient.verified_until =>
            {
                patient.said = Some(AnswerKind::NotYou);
            }
            // Neither a word for nor against: the same place is asked for again.
            (Event::Answer { answer: Answer::Renew(Renewed::Outdated), .. }, Phase::Verifying)
                if in_time && now < patient.verified_until =>
            {
                (patient.said, patient.undecided) = (None, Some(now));
            }
            (Event::Ousted { term }, Phase::Verifying) if books.won == Some(term) && now < patient.verified_until => {
                patient.said = Some(AnswerKind::NotYou);
            }
            (Event::Stop(_), Phase::Leading | Phase::Stopping) => patient.ended_well = true,
            (Event::Keeper(FromKeeper::Exited { run, end }), Phase::Leading)
                if host.following.is_command(run) && !host.supervised.restarts_after(end) =>
            {
                patient.ended_well |= books.lease.is_some_and(|lease| now < lease.stop_by);
            }
            // Verified, and kept waiting by a follower.
            (Event::Answer { answer: Answer::Renew(Renewed::Credited { .. }), .. }, Phase::Verifying)
                if in_time && host.candidate.has_a_follower() =>
            {
                patient.verified_until = now + books.ttl.unwrap_or(Duration::from_secs(10));
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
                | Event::Forward(_),
                _,
            ) => {}
        }
    }

    pub(super) fn patience_asks(&mut self, h: usize, now: Time, ask: Ask) {
        let patient = &mut self.hosts[h].patient;
        patient.last_asked = ask;
        if ask != Ask::Campaign {
            return;
        }
        let again = patient.led && patient.since.is_none();
        patient.since.get_or_insert(now);
        let bounded = patient.policy.campaign_limit != CampaignLimit::Unlimited;
        let impatient = patient.said.is_some() && now >= patient.until();
        if patient.led && patient.policy.on_lost == OnLost::End {
            self.violate("6: a candidate that was to end with its leadership stands again", h);
        } else if impatient {
            self.violate("6: a candidate whose campaign_limit is exhausted asks again", h);
        } else if again && bounded {
            self.coverage.count(Seen::PatientAgain);
        }
    }

    pub(super) fn patience_reports(&mut self, h: usize, report: &Notice) {
        let now = self.hosts[h].clock.at(self.now);
        let verify_within = self.hosts[h].books.ttl.unwrap_or(Duration::from_secs(10));
        let patient = &mut self.hosts[h].patient;
        match report {
            Notice::Won { .. } => {
                // Whatever is not verified was not heard of again.
                (patient.said, patient.won, patient.ended_well) = (Some(AnswerKind::Nothing), true, false);
                (patient.verified_until, patient.verifying) = (now + verify_within, true);
            }
            Notice::Elected { .. } => {
                let (behind, late) = (patient.behind, now >= patient.until());
                let bounded = patient.policy.campaign_limit != CampaignLimit::Unlimited;
                let undecided = patient.undecided.take().is_some();
                (patient.since, patient.said, patient.led) = (None, None, true);
                (patient.behind, patient.won, patient.verifying) = (false, false, false);
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
            Notice::FollowerUnconfirmed if patient.verifying && now < patient.verified_until => {
                patient.said = Some(AnswerKind::NotYou);
            }
            Notice::NotElected => {
                let at_once = patient.policy.campaign_limit == CampaignLimit::For(Duration::ZERO);
                let (won, undecided) = (patient.won, patient.undecided.is_some());
                if undecided {
                    self.coverage.count(Seen::NotElectedAfterAll);
                }
                self.coverage.count(if at_once { Seen::NotElectedAtOnce } else { Seen::NotElectedInTime });
                if won {
                    self.coverage.count(Seen::WonInVain);
                }
                self.check_gives_up(h, now, AnswerKind::NotYou);
            }
            Notice::Unavailable => {
                let won = patient.won;
                self.coverage.count(if won { Seen::WonInVain } else { Seen::Unavailable });
                self.check_gives_up(h, now, AnswerKind::Nothing);
            }
            Notice::Started { .. }
            | Notice::CommandEnded { .. }
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
        let patient = &self.hosts[h].patient;
        if now < patient.until() {
            self.violate("6: a candidate gave up before its campaign_limit was exhausted", h);
        } else if patient.said != Some(said) {
            self.violate("6: a candidate gave up for another reason than the store's last word", h);
        }
    }

    pub(super) fn patience_ends(&mut self, h: usize, outcome: &Outcome) {
        let patient = &self.hosts[h].patient;
        match outcome {
            Outcome::NotElected | Outcome::Unavailable => {
                if patient.last_asked != Ask::Release {
                    self.violate("6: a candidate gave up and kept its place", h);
                }
            }
            Outcome::LeadershipLost => {
                self.coverage.count(Seen::LeadershipLost);
                let patient = &self.hosts[h].patient;
                if patient.policy.on_lost != OnLost::End || !patient.led || patient.ended_well {
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
    pub(super) fn check_patience(&mut self, h: usize) {
        let host = &mut self.hosts[h];
        let patient = &mut host.patient;
        if host.candidate.phase() != Phase::Campaigning || !host.campaigner.is_running() {
            patient.standing = None;
            return;
        }
        patient.verifying = false;
        let since = *patient.standing.get_or_insert(self.now);
        // What is not settled is asked again at the usual pace.
        let pace = host.books.ttl.unwrap_or_default();
        let until = patient.undecided.map_or(patient.until(), |at| patient.until().max(at + pace));
        let since = if patient.undecided.is_some() { since + 2 * host.books.request_timeout() } else { since };
        let due = host.clock.when(until + host.books.request_timeout()).max(since);
        if due != Duration::MAX && self.now > due + SLACK {
            self.violate("6: a candidate stands for longer than it was to wait", h);
        }
    }
}
