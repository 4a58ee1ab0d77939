//! Restart bookkeeping: decides whether a command that ended by itself is restarted, after which delay, and when to
//! resign instead; keeps `--min-hold`, and counts the failures of `--on-elected` in a row.
//!
//! Nothing is decided here about leases or trees: a restart that has come due still needs both.

use std::collections::VecDeque;
use std::time::Duration;

use super::policy::{Restart, RestartWhen};
use super::time::Time;
use crate::CommandEnd;

/// The delay doubles up to this, or stays what it is if it is longer.
const RESTART_DELAY_MAX: Duration = Duration::from_secs(30);
/// The limit up to which the cooldown doubles.
const COOLDOWN_MAX: Duration = Duration::from_secs(5 * 60);

/// The cooldown after a failed `--on-elected` where the store grants no ttl.
const COOLDOWN_MIN: Duration = Duration::from_secs(10);

/// Which ends are followed by another run, and after how long.
#[derive(Debug)]
pub(super) struct RestartBackoff {
    restart: Restart,
    /// The start of the last run.
    began: Option<Time>,
    /// Restarts in a row without a run that went well: how often the delay has been doubled.
    in_a_row: u32,
}

impl RestartBackoff {
    pub(super) fn new(restart: Restart) -> RestartBackoff {
        RestartBackoff { restart, began: None, in_a_row: 0 }
    }

    pub(super) fn started(&mut self, now: Time) {
        self.began = Some(now);
    }

    fn lasted(&self, now: Time) -> Duration {
        self.began.map_or(Duration::ZERO, |began| now.since(began))
    }

    /// A run as long as the longest delay has gone well, whatever came then: what fails next begins with the shortest
    /// again.
    pub(super) fn ended(&mut self, now: Time) {
        if self.lasted(now) >= self.longest_delay() {
            self.in_a_row = 0;
        }
    }

    /// Whether a run that ended like this (`None`: it could not even begin) is followed by another.
    pub(super) fn goes_on_after(&self, end: Option<CommandEnd>) -> bool {
        match self.restart.when {
            RestartWhen::Never => false,
            RestartWhen::OnFailure => end != Some(CommandEnd::Exited(0)),
            RestartWhen::Always => true,
        }
    }

    pub(super) fn delay(&mut self, jitter: &mut fastrand::Rng) -> Duration {
        let doubled = self.restart.delay.saturating_mul(2u32.pow(self.in_a_row.min(20)));
        self.in_a_row += 1;
        // Never longer than the configured delay; a quarter less at most.
        doubled.min(self.longest_delay()).mul_f64(1.0 - jitter.f64() / 4.0)
    }

    fn longest_delay(&self) -> Duration {
        RESTART_DELAY_MAX.max(self.restart.delay)
    }
}

#[derive(Debug)]
pub(super) struct RestartTracker {
    restart: Restart,
    min_hold: Duration,
    pace: RestartBackoff,
    /// The start of the first run of the present term.
    term_began: Option<Time>,
    /// The times of the restarts that still count against the limit.
    recent: VecDeque<Time>,
    /// Times in a row that the limit has been reached.
    given_up: u32,
    /// Failures of `--on-elected` in a row.
    not_accepted: u32,
}

/// The continuation after the end of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AfterExit {
    /// It was the last one.
    End,
    /// Another one, after this long.
    Restart(Duration),
    /// No further run: resign, and cool down for so long.
    Resign(Duration),
}

impl RestartTracker {
    pub(super) fn new(restart: Restart, min_hold: Duration) -> RestartTracker {
        let (pace, recent) = (RestartBackoff::new(restart), VecDeque::new());
        RestartTracker { restart, min_hold, pace, term_began: None, recent, given_up: 0, not_accepted: 0 }
    }

    pub(super) fn term_begins(&mut self) {
        self.term_began = None;
    }

    pub(super) fn started(&mut self, now: Time) {
        self.term_began.get_or_insert(now);
        self.pace.started(now);
    }

    pub(super) fn restarted(&mut self, now: Time) {
        self.recent.push_back(now);
    }

    /// The main process has ended by itself. A run as long as a candidate would sit out has gone well, as with the
    /// delay.
    pub(super) fn ended(&mut self, now: Time, ttl: Option<Duration>) {
        self.pace.ended(now);
        if self.pace.lasted(now) >= self.cooldown(ttl) {
            self.given_up = 0;
        }
    }

    /// Until when the boundary is to be kept, from the first start of the term on; the past, if it need not be.
    pub(super) fn held_until(&self) -> Time {
        self.term_began.map_or(Time::BOOT, |began| began + self.min_hold)
    }

    pub(super) fn hold_ends(&mut self, now: Time) -> bool {
        let held = now < self.held_until();
        self.term_began = None;
        held
    }

    /// Decides what follows the end of the last run, whose tree is empty now.
    pub(super) fn after_exit(
        &mut self,
        now: Time,
        end: CommandEnd,
        ttl: Option<Duration>,
        jitter: &mut fastrand::Rng,
        unlimited: bool,
    ) -> AfterExit {
        if !self.pace.goes_on_after(Some(end)) {
            return AfterExit::End;
        }
        while self.recent.front().is_some_and(|&at| now >= at + self.restart.within) {
            self.recent.pop_front();
        }
        if self.recent.len() >= self.restart.limit as usize && !unlimited {
            let sits_out = doubled(self.cooldown(ttl), self.given_up);
            self.given_up += 1;
            self.pace.in_a_row = 0;
            self.recent.clear();
            return AfterExit::Resign(sits_out);
        }
        AfterExit::Restart(self.pace.delay(jitter))
    }

    /// `--on-elected` succeeded.
    pub(super) fn accepted(&mut self) {
        self.not_accepted = 0;
    }

    /// `--on-elected` failed: returns the length of the cooldown.
    pub(super) fn not_accepted(&mut self, ttl: Option<Duration>) -> Duration {
        self.not_accepted += 1;
        doubled(ttl.unwrap_or(COOLDOWN_MIN), self.not_accepted - 1)
    }

    fn cooldown(&self, ttl: Option<Duration>) -> Duration {
        self.restart.within.max(ttl.unwrap_or_default())
    }
}

/// Twice as long each time, up to the longest, or what it is if it is longer.
fn doubled(base: Duration, times: u32) -> Duration {
    base.saturating_mul(2u32.pow(times.min(16))).min(COOLDOWN_MAX.max(base))
}
