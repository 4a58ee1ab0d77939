//! Restarts and holds, once more: when a command may be started again, when a boundary may be given back, and who sits
//! out. Computed from what the candidate heard and was told to wish; the core is never asked.

use std::time::Duration;

use super::super::time::Time;
use super::super::{OnLost, Phase, Policy, RestartWhen};
use super::clock::ms;
use super::coverage::Seen;
use super::host::SimHost;
use super::run::Simulation;
use super::setup::{Setup, StoreModel};
use crate::{CommandEnd, Event, FromKeeper, Notice, Outcome, Reason, Term};

/// What the ledger knows of one candidate's command and how it fares.
#[derive(Debug)]
pub(super) struct RestartCheck {
    pub policy: Policy,
    /// When the campaigner heard of the first start in the present term, and when there was one.
    began: Option<Time>,
    born: Option<(Term, Time)>,
    /// How and when the last run ended, if it did so by itself and in time.
    end: Option<(CommandEnd, Time)>,
    /// Somebody asked it to stop in this term.
    asked: bool,
    /// The keeper has died, or was faster than the campaigner, in this term.
    excused: bool,
    restarts: Vec<Time>,
    /// It has given up in this term, or before the present stand.
    gave_up: Option<Time>,
    sat_out: Duration,
}

impl RestartCheck {
    pub(super) fn new(policy: Policy) -> RestartCheck {
        RestartCheck {
            policy,
            began: None,
            born: None,
            end: None,
            asked: false,
            excused: false,
            restarts: Vec::new(),
            gave_up: None,
            sat_out: Duration::ZERO,
        }
    }

    /// Whether this end is to be followed by another start.
    pub(super) fn restarts_after(&self, end: CommandEnd) -> bool {
        match self.policy.restart.when {
            RestartWhen::Never => false,
            RestartWhen::OnFailure => end != CommandEnd::Exited(0),
            RestartWhen::Always => true,
        }
    }

    fn is_to_restart(&self) -> bool {
        self.end.is_some_and(|(end, _)| self.restarts_after(end)) && self.gave_up.is_none()
    }

    fn held_until(&self) -> Time {
        self.began.map_or(Time::BOOT, |began| began + self.policy.min_hold)
    }

    /// How many restarts there have been in the time that counts against the limit.
    fn recent(&self, now: Time) -> usize {
        self.restarts.iter().filter(|at| now < **at + self.policy.restart.within).count()
    }
}

impl Simulation {
    fn base_of(&self, h: usize) -> Duration {
        let host = &self.hosts[h];
        host.supervised.policy.restart.within.max(host.books.ttl.unwrap_or_default())
    }

    fn over_at(&self, h: usize) -> Time {
        self.hosts[h].books.lease.map_or(Time::NEVER, |lease| lease.stop_by)
    }

    /// Before the candidate hears of an event.
    pub(super) fn supervision_hears(&mut self, h: usize, now: Time, event: Event) {
        let over_at = self.over_at(h);
        let phase = self.hosts[h].candidate.phase();
        let SimHost { supervised, following, .. } = &mut self.hosts[h];
        let is_command = |run| following.is_command(run);
        match (event, phase) {
            (Event::Keeper(FromKeeper::Started { .. }), Phase::Leading | Phase::Stopping) => {
                supervised.began.get_or_insert(now);
            }
            (Event::Keeper(FromKeeper::Exited { run, end }), Phase::Leading) if now < over_at && is_command(run) => {
                supervised.end = Some((end, now));
            }
            (Event::Stop(_), Phase::Leading | Phase::Stopping | Phase::LeadingIdle) => {
                match phase {
                    Phase::LeadingIdle if supervised.is_to_restart() => self.coverage.count(Seen::StoppedBetweenRuns),
                    Phase::LeadingIdle => self.coverage.count(Seen::HoldStopped),
                    Phase::Campaigning
                    | Phase::Verifying
                    | Phase::Leading
                    | Phase::Stopping
                    | Phase::OustedHook
                    | Phase::Releasing
                    | Phase::CoolingDown
                    | Phase::StoppingFollower
                    | Phase::Ended => {}
                }
                self.hosts[h].supervised.asked = true;
            }
            (Event::Keeper(FromKeeper::Expired { .. }) | Event::KeeperDied, _) => supervised.excused = true,
            (
                Event::Tick
                | Event::Answer { .. }
                | Event::Hint
                | Event::LeaderObserved(_)
                | Event::TermSeen(_)
                | Event::HookDue(_)
                | Event::Ousted { .. }
                | Event::Keeper(_)
                | Event::Swept { .. }
                | Event::ConfirmLeadership { .. }
                | Event::Resign(_)
                | Event::Stop(_)
                | Event::Forward(_),
                _,
            ) => {}
        }
    }

    /// The store has said that the lease is lost, and the candidate is about to hear it.
    pub(super) fn supervision_loses(&mut self, h: usize) {
        let host = &self.hosts[h];
        if host.candidate.phase() == Phase::Stopping && host.supervised.is_to_restart() && host.tree.is_alive() {
            self.coverage.count(Seen::LostBeforeRestart);
        }
    }

    pub(super) fn supervision_starts(&mut self, h: usize, now: Time, term: Term) {
        let over_at = self.over_at(h);
        let lost = self.hosts[h].books.lost;
        let supervised = &mut self.hosts[h].supervised;
        let Some((end, ended_at)) = supervised.end.take() else { return };
        let restart = supervised.policy.restart;
        let too_often = supervised.recent(now) >= restart.limit as usize;
        supervised.restarts.push(now);
        let too_soon = now < ended_at + restart.delay * 3 / 4;
        let (asked, wished) = (supervised.asked, supervised.restarts_after(end));
        self.coverage.count(Seen::Restarted);
        if self.hosts[h].tree.term != term {
            self.violate("6: a restart is in the term of the run before", h);
        } else if !wished {
            self.violate("6: a command was started again that was not to be", h);
        } else if asked {
            self.violate("6: a command was started again after a stop", h);
        } else if lost || now >= over_at {
            self.violate("4: a command was started again after the term was over", h);
        } else if too_soon {
            self.violate("6: a command was started again before its delay was over", h);
        } else if too_often {
            self.violate("6: a command was started again too often", h);
        }
    }

    pub(super) fn supervision_releases(&mut self, h: usize, now: Time) {
        let over_at = self.over_at(h);
        let SimHost { supervised, books, .. } = &self.hosts[h];
        let Some((_, ended_at)) = supervised.end else { return };
        // K11: the lease is not ours any more. What is given back then is a place among those who wait.
        if books.lost {
            return;
        }
        let held_until = supervised.held_until();
        let lost = supervised.is_to_restart() && now >= over_at;
        if now < held_until && !supervised.asked && !supervised.excused && !lost {
            self.violate("6: a boundary that was to be kept was given back", h);
        } else if now >= held_until && ended_at < held_until {
            self.coverage.count(Seen::HeldToTheEnd);
        }
    }

    pub(super) fn supervision_stands(&mut self, h: usize, now: Time) {
        let base = self.base_of(h);
        if let Some(since) = self.hosts[h].supervised.gave_up.take() {
            self.coverage.count(Seen::SatOut);
            if now < since + base {
                self.violate("6: a candidate that was to sit out stands again", h);
            }
        }
    }

    pub(super) fn supervision_reports(&mut self, h: usize, report: &Notice) {
        let now = self.hosts[h].clock.at(self.now);
        let (base, over_at) = (self.base_of(h), self.over_at(h));
        let supervised = &mut self.hosts[h].supervised;
        match *report {
            Notice::Won { .. } => {
                (supervised.began, supervised.end, supervised.gave_up) = (None, None, None);
                (supervised.asked, supervised.excused) = (false, false);
            }
            Notice::LeadingIdle { .. } => self.coverage.count(Seen::Held),
            Notice::LostAtRest { reason, .. } => {
                let seen = if supervised.is_to_restart() { Seen::LostBetweenRuns } else { Seen::HoldLost };
                self.coverage.count(seen);
                if reason == Reason::RunningOut && now < over_at {
                    self.violate("T2: a lease was given up before it had run out", h);
                }
            }
            Notice::GivenUp { sits_out, .. } => {
                let allowed = supervised.recent(now) < supervised.policy.restart.limit as usize;
                supervised.gave_up = Some(now);
                // What is counted begins anew.
                supervised.restarts.clear();
                let ends = supervised.policy.on_lost == OnLost::End;
                let before = std::mem::replace(&mut supervised.sat_out, sits_out.unwrap_or_default());
                self.coverage.count(if ends { Seen::LimitEnds } else { Seen::LimitReached });
                if sits_out.is_some_and(|now| before > Duration::ZERO && now > before) {
                    self.coverage.count(Seen::SatOutLonger);
                }
                if allowed {
                    self.violate("6: a candidate gave up before it had restarted too often", h);
                } else if ends != sits_out.is_none() || sits_out.is_some_and(|time| time < base) {
                    self.violate("6: a candidate that gave up does not sit out for as long as it should", h);
                }
            }
            Notice::Elected { .. }
            | Notice::Started { .. }
            | Notice::CommandEnded { .. }
            | Notice::Stopping { .. }
            | Notice::Restarting { .. }
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
            | Notice::NotElected
            | Notice::Unavailable
            | Notice::KeeperSilent
            | Notice::KeeperDied => {}
        }
    }

    pub(super) fn supervision_ends(&mut self, h: usize, outcome: &Outcome) {
        let SimHost { supervised, following, .. } = &self.hosts[h];
        let commands = matches!(outcome, Outcome::Command(_)) && !following.is_following();
        if commands && supervised.is_to_restart() && !supervised.asked {
            self.violate("6: a candidate ended whose command was to be started again", h);
        }
    }

    /// At the birth of a command.
    pub(super) fn supervision_bears(&mut self, h: usize, term: Term) {
        let host = &mut self.hosts[h];
        let now = host.clock.at(self.now);
        if host.supervised.born.is_none_or(|(of, _)| of != term) {
            host.supervised.born = Some((term, now));
        }
    }

    /// K2: the keeper gives the claim back.
    pub(super) fn supervision_bequeathes(&mut self, h: usize) {
        let host = &self.hosts[h];
        let (now, died_at) = (host.clock.at(self.now), host.clock.at(host.books.died_at));
        let led = matches!(host.candidate.phase(), Phase::Leading | Phase::Stopping | Phase::LeadingIdle);
        let (Some((term, born)), true) = (host.supervised.born, led) else { return };
        let held_until = born + host.supervised.policy.min_hold;
        if host.books.won != Some(term) {
            return;
        }
        if now < held_until {
            self.violate("K2: the keeper gave back what was to be kept", h);
        } else if died_at < held_until {
            self.coverage.count(Seen::KeeperHeld);
        }
    }
}

#[test]
fn a_boundary_is_to_be_kept_until_the_store_says_that_it_is_lost() {
    for lost in [false, true] {
        let mut world = Simulation::new(Setup::plain(StoreModel::Record, 1, ms(1_000)), None, false);
        let SimHost { supervised, books, .. } = &mut world.hosts[0];
        supervised.policy.min_hold = ms(10_000);
        (supervised.began, supervised.end) = (Some(Time::BOOT), Some((CommandEnd::Exited(0), Time::BOOT)));
        books.lost = lost;
        world.supervision_releases(0, Time::BOOT + ms(5_000));
        assert_eq!(world.violation.is_none(), lost, "{:?}", world.violation);
    }
}
