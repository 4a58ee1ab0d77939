//! Followers and hooks, once more: what may be started beside what, what has to have run before a command starts and
//! before a boundary is given back. Computed from what was ordered and what was born; the core is never asked.

use std::time::Duration;

use super::super::{KILL_ALLOWANCE, Phase, Policy};
use super::clock::{CLOCK_DRIFT_MAX_PPM, Clock, ms};
use super::command::Tree;
use super::coverage::Seen;
use super::host::{Delivery, ProcessState};
use super::invariants::SLACK;
use super::run::Simulation;
use crate::{
    BackgroundHook, CommandEnd, Event, FromKeeper, Hook, HookFailure, LeaderKey, Notice, Program, RunId, Term,
};

/// The expected state of one candidate's follower and hooks.
#[derive(Debug)]
pub(super) struct FollowerCheck {
    policy: Policy,
    /// The last program that the candidate has ordered.
    ordered: Option<(Program, RunId)>,
    ordered_at: Duration,
    /// The term in which the hook before the command said yes.
    accepted: Option<Term>,
    /// The term in which something of ours was ordered by the campaigner, and was born.
    led: Option<Term>,
    born: Option<Term>,
    /// The term after which the hook was ordered, by the campaigner, and was started or found not to start.
    ousted: Option<Term>,
    ousted_born: Option<Term>,
    /// The leader that was seen last, if there was one.
    sighted: Option<Term>,
    /// The boundary was given back since the last win.
    released: bool,
    /// A killed follower was in the way of a win.
    stuck: bool,
    /// When a hook has said no, and for how long the candidate sits out at least.
    refused: Option<(Duration, Duration)>,
    not_standing_since: Option<Duration>,
}

impl FollowerCheck {
    pub(super) fn new(policy: Policy) -> FollowerCheck {
        FollowerCheck {
            policy,
            ordered: None,
            ordered_at: Duration::ZERO,
            accepted: None,
            led: None,
            born: None,
            ousted: None,
            ousted_born: None,
            sighted: None,
            released: false,
            stuck: false,
            refused: None,
            not_standing_since: None,
        }
    }
}

impl FollowerCheck {
    /// Whether a run is one of the command.
    pub(super) fn is_command(&self, run: RunId) -> bool {
        matches!(self.ordered, Some((Program::Command { .. }, ordered)) if ordered == run)
    }
}

impl FollowerCheck {
    /// Whether a follower was the last to run.
    pub(super) fn is_following(&self) -> bool {
        matches!(self.ordered, Some((Program::Follower, _)))
    }
}

impl FollowerCheck {
    /// From when the time counts that a hook has: for the campaigner from its order, for the keeper from its start.
    pub(super) fn ordered_at(&self, tree: &Tree) -> Duration {
        let ordered = self.ordered.is_some_and(|(_, run)| run == tree.run);
        if ordered { self.ordered_at } else { tree.born_at }
    }
}

/// By when a campaigner that has been awake since then knows of a killed follower that it is stuck. It counts by its
/// own clock; one that was asleep may hear only then that the main process has ended, and gives the rest its time
/// (K10).
fn stuck_is_known_at(clock: Clock, killed: Duration, awake: Duration, stop_timeout: Duration) -> Duration {
    let gave_it_its_time = awake.saturating_add(clock.lasts(stop_timeout));
    killed.max(gave_it_its_time).saturating_add(clock.lasts(KILL_ALLOWANCE) + SLACK)
}

impl Simulation {
    /// Reports to a waiting candidate any candidate that believes to lead.
    pub(super) fn leader_observed(&mut self, h: usize) {
        let host = &self.hosts[h];
        if !host.campaigner.is_running() {
            return;
        }
        let others = self.present.iter().filter(|other| **other != h).map(|other| &self.hosts[*other]);
        let leader =
            others.filter(|other| other.candidate.phase() == Phase::Leading).find_map(|other| other.reference.won);
        if let Some(term) = leader {
            let reference = &mut self.hosts[h].reference;
            reference.highest_term = reference.highest_term.max(term);
            self.deliver(h, Event::TermSeen(term));
        }
        let follower_check = &mut self.hosts[h].follower_check;
        if follower_check.sighted != leader {
            follower_check.sighted = leader;
            self.hook_is_due(h, BackgroundHook::OnChange);
        }
        if self.hosts[h].follower_check.policy.follower.is_some() {
            self.deliver(h, Event::LeaderObserved(leader.map(LeaderKey)));
        }
    }

    /// The driver has seen something that a background hook is for.
    pub(super) fn hook_is_due(&mut self, h: usize, background_hook: BackgroundHook) {
        let hooks = self.hosts[h].follower_check.policy.hooks;
        let is_configured = match background_hook {
            BackgroundHook::OnChange => hooks.on_change,
            BackgroundHook::OnError => hooks.on_error,
        };
        if is_configured {
            self.schedule_delivery(h, self.now, Delivery::Signal(Event::HookDue(background_hook)));
        }
    }

    /// Before the candidate hears of an event.
    pub(super) fn follower_on_event(&mut self, h: usize, event: Event) {
        let follower_check = &mut self.hosts[h].follower_check;
        if let (Event::Keeper(FromKeeper::Exited { run, end: CommandEnd::Exited(0) }), Some((program, ordered))) =
            (event, follower_check.ordered)
            && let Program::OnElected { term } = program
            && ordered == run
        {
            follower_check.accepted = Some(term);
        }
    }

    pub(super) fn follower_on_start(&mut self, h: usize, program: Program, run: RunId) {
        let host = &self.hosts[h];
        if host.tree.is_alive() {
            let rule = match (host.tree.program, program) {
                (Some(Program::Follower), Program::Command { .. } | Program::OnElected { .. }) => {
                    "K11: a leader's command was started beside the follower"
                }
                (Some(Program::Command { .. } | Program::OnElected { .. }), Program::OnOusted { .. }) => {
                    "6: on-ousted was started before the tree was empty"
                }
                (_, Program::Follower) => "6: a follower was started beside something else",
                (_, Program::Command { .. } | Program::OnElected { .. } | Program::OnOusted { .. }) => {
                    "2.3: a command was started before the old one's tree was empty"
                }
            };
            self.violate(rule, h);
        }
        let follower_check = &mut self.hosts[h].follower_check;
        (follower_check.ordered, follower_check.ordered_at) = (Some((program, run)), self.now);
        let unaccepted = follower_check.policy.hooks.on_elected && follower_check.accepted != program.deadline_term();
        let released = follower_check.released;
        match program {
            Program::Command { term } => {
                follower_check.led = Some(term);
                if unaccepted {
                    self.violate("6: a command was started without the hook's yes", h);
                }
            }
            Program::OnElected { term } => follower_check.led = Some(term),
            Program::OnOusted { term } => {
                follower_check.ousted = Some(term);
                if self.hosts[h].reference.lost || self.hosts[h].reference.ran_out {
                    self.coverage.count(Seen::OustedAfterLoss);
                }
                if released {
                    self.violate("6: on-ousted was started after the release", h);
                }
            }
            Program::Follower => {}
        }
    }

    /// The keeper starts something, or finds that it cannot.
    pub(super) fn follower_on_spawn(&mut self, h: usize, program: Program) {
        let follower_check = &mut self.hosts[h].follower_check;
        match program {
            Program::Command { term } | Program::OnElected { term } => follower_check.born = Some(term),
            Program::OnOusted { term } => {
                if follower_check.ousted_born.replace(term) == Some(term) {
                    self.violate("6: on-ousted ran twice", h);
                }
            }
            Program::Follower => self.coverage.count(Seen::Followed),
        }
    }

    /// The candidate is about to stand again, to give the boundary back, or to end.
    pub(super) fn follower_on_end(&mut self, h: usize) {
        let host = &self.hosts[h];
        let follower_check = &host.follower_check;
        let due = follower_check.policy.hooks.on_ousted
            && follower_check.led.is_some()
            && follower_check.ousted != follower_check.led;
        if due && host.keeper.state != ProcessState::Dead {
            self.violate("6: a leadership was left without on-ousted", h);
        }
    }

    pub(super) fn follower_on_release(&mut self, h: usize) {
        self.follower_on_end(h);
        self.hosts[h].follower_check.released = true;
    }

    pub(super) fn follower_on_campaign(&mut self, h: usize) {
        self.follower_on_end(h);
        let now = self.now;
        let follower_check = &mut self.hosts[h].follower_check;
        let too_soon = follower_check.refused.take().is_some_and(|(at, sits_out)| now < at + sits_out);
        if std::mem::take(&mut follower_check.stuck) {
            self.coverage.count(Seen::StoodAgainWithoutFollower);
        }
        if too_soon {
            self.violate("6: a candidate that was not accepted stands again at once", h);
        }
        let host = &self.hosts[h];
        let killed = host.tree.killed.filter(|_| host.tree.is_alive() && host.tree.program == Some(Program::Follower));
        // A keeper that was stopped reports late.
        let told = if host.keeper.state.is_running() { host.keeper.state.since() } else { Duration::ZERO };
        let knows_at =
            |killed| stuck_is_known_at(host.clock, killed, host.campaigner.since().max(told), host.stop_timeout);
        if killed.is_some_and(|killed| self.now >= knows_at(killed)) {
            self.violate("2.3: a candidate asks for the boundary beside a killed follower", h);
        }
    }

    /// K2: the keeper gives back, or leaves to its lease, what its dead campaigner had.
    pub(super) fn follower_on_keeper_death(&mut self, h: usize) {
        let follower_check = &self.hosts[h].follower_check;
        let due = follower_check.policy.hooks.on_ousted && follower_check.born.is_some();
        // Terms rise; in a later one everything may have been too late but the hook.
        if due && follower_check.ousted_born < follower_check.born {
            self.violate("K2: the keeper ends a leadership without on-ousted", h);
        }
    }

    pub(super) fn follower_on_notice(&mut self, h: usize, report: &Notice) {
        let now = self.now;
        let follows = self.hosts[h].tree.program == Some(Program::Follower) && self.hosts[h].tree.is_alive();
        let base = self.hosts[h].clock.lasts(self.hosts[h].reference.ttl.unwrap_or(Duration::from_secs(10)));
        let follower_check = &mut self.hosts[h].follower_check;
        match report {
            Notice::Won { .. } => {
                (follower_check.led, follower_check.released) = (None, false);
                if follows {
                    self.coverage.count(Seen::WonWithFollower);
                }
            }
            Notice::FollowerStopping { for_another: true } => self.coverage.count(Seen::FollowerRestarted),
            Notice::FollowerUnconfirmed => {
                follower_check.stuck = true;
                self.coverage.count(Seen::FollowerStuck);
            }
            Notice::NotAccepted { sits_out, .. } => {
                if sits_out.is_some() || follower_check.policy.on_lost == super::super::OnLost::Recampaign {
                    follower_check.refused = Some((now, base));
                }
            }
            Notice::HookFailed { hook: Hook::OnElected, failure } => self.coverage.count(match failure {
                HookFailure::TimedOut => Seen::ElectedTimedOut,
                HookFailure::Ended(_) | HookFailure::CannotStart(_) | HookFailure::NoKeeper => Seen::ElectedFailed,
            }),
            Notice::HookFailed { hook: Hook::OnOusted, failure } => self.coverage.count(match failure {
                HookFailure::TimedOut => Seen::OustedTimedOut,
                HookFailure::Ended(_) | HookFailure::CannotStart(_) => Seen::OustedFailed,
                HookFailure::NoKeeper => Seen::OustedWithoutKeeper,
            }),
            Notice::HookFailed { hook: Hook::BackgroundHook(_), .. }
            | Notice::FollowerStopping { for_another: false }
            | Notice::FollowerStarted { .. }
            | Notice::FollowerEnded { .. }
            | Notice::FollowerCannotStart(_)
            | Notice::Elected { .. }
            | Notice::Started { .. }
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

    /// After every step: a follower whose candidate does not stand is being stopped.
    pub(super) fn check_follower(&mut self, h: usize) {
        let host = &mut self.hosts[h];
        if host.candidate.phase().may_follow() && host.campaigner != ProcessState::Dead {
            host.follower_check.not_standing_since = None;
            return;
        }
        let not_standing = *host.follower_check.not_standing_since.get_or_insert(self.now);
        if host.tree.program != Some(Program::Follower) || !host.tree.is_alive() {
            return;
        }
        let awake = match host.campaigner {
            ProcessState::Dead => host.keeper.state.since(),
            ProcessState::Running { since } => since.max(host.keeper.state.since()),
            ProcessState::Stopped => Duration::MAX,
        };
        let since = not_standing.max(awake);
        let untouched = host.tree.stopped.is_none() && host.tree.killed.is_none();
        if untouched && since != Duration::MAX && self.now > since + SLACK {
            self.violate("6: a follower goes on although its candidate does not stand", h);
        }
    }
}

#[test]
fn a_campaigner_knows_of_a_stuck_follower_as_soon_as_its_own_clock_allows_and_no_sooner() {
    let (asleep_until, stop_timeout) = (ms(14_110), ms(8_000));
    for rate in [-CLOCK_DRIFT_MAX_PPM, 0, CLOCK_DRIFT_MAX_PPM] {
        let clock = Clock { offset: ms(3_000), rate };
        let kills_at = clock.at(asleep_until) + stop_timeout;
        // As the core counts, the keeper having killed it long before.
        let knows_at = clock.when(kills_at + KILL_ALLOWANCE);
        let asked = stuck_is_known_at(clock, ms(16_002), asleep_until, stop_timeout);
        assert!(asked >= knows_at && asked <= knows_at + SLACK, "{asked:?}, {knows_at:?} at {rate}");
        // Awake all the time: killed at the same moment by both.
        let knows_at = clock.when(clock.at(ms(16_002)) + KILL_ALLOWANCE);
        let asked = stuck_is_known_at(clock, ms(16_002), ms(0), stop_timeout);
        assert!(asked >= knows_at && asked <= knows_at + SLACK, "{asked:?}, {knows_at:?} at {rate}");
    }
}
