//! Restarts and holds, once more: when a command may be started again, when a boundary may be given back, and who sits
//! out. Computed from what the candidate heard and was told to wish; the core is never asked.

use std::time::Duration;

use super::super::time::Time;
use super::super::{OnLost, Phase, Policy, RestartWhen};
use super::choices::SimRng;
use super::clock::ms;
use super::coverage::Seen;
use super::host::SimHost;
use super::run::Simulation;
use super::setup::{Setup, StoreModel};
use crate::{CommandEnd, Event, FromKeeper, Notice, Outcome, Reason, Term};

/// The expected state of one candidate's command and its restarts.
#[derive(Debug)]
pub(super) struct RestartCheck {
    pub policy: Policy,
    /// When the campaigner heard of the first start in the present term, and when there was one.
    began: Option<Time>,
    born: Option<(Term, Time)>,
    /// How and when the last run ended, if it did so by itself and in time.
    end: Option<(CommandEnd, Time)>,
    /// A stop was asked for in this term.
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
        host.restart_check.policy.restart.within.max(host.reference.ttl.unwrap_or_default())
    }

    fn over_at(&self, h: usize) -> Time {
        self.hosts[h].reference.lease.map_or(Time::NEVER, |lease| lease.stop_by)
    }

    /// Before the candidate hears of an event.
    pub(super) fn restarts_on_event(&mut self, h: usize, now: Time, event: Event) {
        let over_at = self.over_at(h);
        let phase = self.hosts[h].candidate.phase();
        let SimHost { restart_check, follower_check, .. } = &mut self.hosts[h];
        let is_command = |run| follower_check.is_command(run);
        match (event, phase) {
            (Event::Keeper(FromKeeper::Started { .. }), Phase::Leading | Phase::Stopping) => {
                restart_check.began.get_or_insert(now);
            }
            (Event::Keeper(FromKeeper::Exited { run, end }), Phase::Leading) if now < over_at && is_command(run) => {
                restart_check.end = Some((end, now));
            }
            (Event::Stop(_), Phase::Leading | Phase::Stopping | Phase::LeadingIdle) => {
                match phase {
                    Phase::LeadingIdle if restart_check.is_to_restart() => {
                        self.coverage.count(Seen::StoppedBetweenRuns);
                    }
                    Phase::LeadingIdle => self.coverage.count(Seen::HoldStopped),
                    Phase::Campaigning
                    | Phase::Verifying
                    | Phase::Leading
                    | Phase::Stopping
                    | Phase::OustedHook
                    | Phase::Releasing
                    | Phase::Ineligible
                    | Phase::CoolingDown
                    | Phase::StoppingFollower
                    | Phase::Ended => {}
                }
                self.hosts[h].restart_check.asked = true;
            }
            (Event::Keeper(FromKeeper::Expired { .. }) | Event::KeeperDied, _) => restart_check.excused = true,
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
                | Event::Drain(_)
                | Event::Undrain(_)
                | Event::Stop(_)
                | Event::Forward(_),
                _,
            ) => {}
        }
    }

    /// The store has said that the lease is lost, and the candidate is about to hear it.
    pub(super) fn restarts_on_loss(&mut self, h: usize) {
        let host = &self.hosts[h];
        if host.candidate.phase() == Phase::Stopping && host.restart_check.is_to_restart() && host.tree.is_alive() {
            self.coverage.count(Seen::LostBeforeRestart);
        }
    }

    pub(super) fn restarts_on_start(&mut self, h: usize, now: Time, term: Term) {
        let over_at = self.over_at(h);
        let lost = self.hosts[h].reference.lost;
        let restart_check = &mut self.hosts[h].restart_check;
        let Some((end, ended_at)) = restart_check.end.take() else { return };
        let restart = restart_check.policy.restart;
        let too_often = restart_check.recent(now) >= restart.limit as usize;
        restart_check.restarts.push(now);
        let too_soon = now < ended_at + restart.delay * 3 / 4;
        let (asked, wished) = (restart_check.asked, restart_check.restarts_after(end));
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

    pub(super) fn restarts_on_release(&mut self, h: usize, now: Time) {
        let over_at = self.over_at(h);
        let SimHost { restart_check, reference, .. } = &self.hosts[h];
        let Some((_, ended_at)) = restart_check.end else { return };
        // K11: the lease is not ours any more. What is given back then is a place among those who wait.
        if reference.lost {
            return;
        }
        let held_until = restart_check.held_until();
        let lost = restart_check.is_to_restart() && now >= over_at;
        if now < held_until && !restart_check.asked && !restart_check.excused && !lost {
            self.violate("6: a boundary that was to be kept was given back", h);
        } else if now >= held_until && ended_at < held_until {
            self.coverage.count(Seen::HeldToTheEnd);
        }
    }

    pub(super) fn restarts_on_campaign(&mut self, h: usize, now: Time) {
        let base = self.base_of(h);
        if let Some(since) = self.hosts[h].restart_check.gave_up.take() {
            self.coverage.count(Seen::SatOut);
            if now < since + base {
                self.violate("6: a candidate that was to sit out stands again", h);
            }
        }
    }

    pub(super) fn restarts_on_notice(&mut self, h: usize, report: &Notice) {
        let now = self.hosts[h].clock.at(self.now);
        let (base, over_at) = (self.base_of(h), self.over_at(h));
        let restart_check = &mut self.hosts[h].restart_check;
        match *report {
            Notice::Won { .. } => {
                (restart_check.began, restart_check.end, restart_check.gave_up) = (None, None, None);
                (restart_check.asked, restart_check.excused) = (false, false);
            }
            Notice::LeadingIdle { .. } => self.coverage.count(Seen::Held),
            Notice::LostAtRest { reason, .. } => {
                let seen = if restart_check.is_to_restart() { Seen::LostBetweenRuns } else { Seen::HoldLost };
                self.coverage.count(seen);
                if reason == Reason::RunningOut && now < over_at {
                    self.violate("T2: a lease was given up before it had run out", h);
                }
            }
            Notice::GivenUp { sits_out, .. } => {
                let allowed = restart_check.recent(now) < restart_check.policy.restart.limit as usize;
                restart_check.gave_up = Some(now);
                // The count starts again.
                restart_check.restarts.clear();
                let ends = restart_check.policy.on_lost == OnLost::End;
                let before = std::mem::replace(&mut restart_check.sat_out, sits_out.unwrap_or_default());
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
            | Notice::LeftBehind { .. }
            | Notice::StopTimedOut { .. }
            | Notice::StopShortened { .. }
            | Notice::Killing { .. }
            | Notice::FollowerKilling
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
            | Notice::NotElected
            | Notice::Unavailable
            | Notice::KeeperSilent
            | Notice::KeeperDied => {}
        }
    }

    pub(super) fn restarts_on_end(&mut self, h: usize, outcome: &Outcome) {
        let SimHost { restart_check, follower_check, .. } = &self.hosts[h];
        let commands = matches!(outcome, Outcome::Command(_)) && !follower_check.is_following();
        if commands && restart_check.is_to_restart() && !restart_check.asked {
            self.violate("6: a candidate ended whose command was to be started again", h);
        }
    }

    /// At the birth of a command.
    pub(super) fn restarts_on_spawn(&mut self, h: usize, term: Term) {
        let host = &mut self.hosts[h];
        let now = host.clock.at(self.now);
        if host.restart_check.born.is_none_or(|(of, _)| of != term) {
            host.restart_check.born = Some((term, now));
        }
    }

    /// K2: the keeper gives the claim back.
    pub(super) fn restarts_on_keeper_death(&mut self, h: usize) {
        let host = &self.hosts[h];
        let (now, died_at) = (host.clock.at(self.now), host.clock.at(host.reference.died_at));
        let led = matches!(host.candidate.phase(), Phase::Leading | Phase::Stopping | Phase::LeadingIdle);
        let (Some((term, born)), true) = (host.restart_check.born, led) else { return };
        let held_until = born + host.restart_check.policy.min_hold;
        if host.reference.won != Some(term) {
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
        let mut world =
            Simulation::new(Setup::plain(StoreModel::Record, 1, ms(1_000)), SimRng::from_seed(0), None, false);
        let SimHost { restart_check, reference, .. } = &mut world.hosts[0];
        restart_check.policy.min_hold = ms(10_000);
        (restart_check.began, restart_check.end) = (Some(Time::BOOT), Some((CommandEnd::Exited(0), Time::BOOT)));
        reference.lost = lost;
        world.restarts_on_release(0, Time::BOOT + ms(5_000));
        assert_eq!(world.violation.is_none(), lost, "{:?}", world.violation);
    }
}
