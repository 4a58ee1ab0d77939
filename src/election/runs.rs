//! What the runs of the command have come to, and so what follows when one of them ends by itself: `--restart` with its
//! delay and its limit, and `--min-hold`.
//!
//! Nothing is decided here about leases or trees: a restart that has come due still needs both.

use std::collections::VecDeque;
use std::time::Duration;

use super::event::CommandEnd;
use super::time::Time;
use super::wishes::{Restart, RestartWhen};

/// The delay doubles up to this, or stays what it is if it is longer.
const LONGEST_DELAY: Duration = Duration::from_secs(30);
/// The same for sitting out.
const LONGEST_SITTING_OUT: Duration = Duration::from_secs(5 * 60);

#[derive(Debug)]
pub(super) struct Runs {
    restart: Restart,
    min_hold: Duration,
    /// When the first run of the present term started.
    term_began: Option<Time>,
    /// When the last run started.
    began: Option<Time>,
    /// Restarts in a row without a run that went well: how often the delay has been doubled.
    in_a_row: u32,
    /// When the restarts were that still count against the limit.
    recent: VecDeque<Time>,
    /// How often in a row the limit has been reached.
    given_up: u32,
}

/// What follows the end of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sequel {
    /// It was the last one.
    End,
    /// Another one, after this long.
    Restart(Duration),
    /// Somebody else's turn: resign, and sit out for so long.
    Resign(Duration),
}

impl Runs {
    pub(super) fn new(restart: Restart, min_hold: Duration) -> Runs {
        let recent = VecDeque::new();
        Runs { restart, min_hold, term_began: None, began: None, in_a_row: 0, recent, given_up: 0 }
    }

    pub(super) fn term_begins(&mut self) {
        self.term_began = None;
    }

    pub(super) fn started(&mut self, now: Time) {
        self.term_began.get_or_insert(now);
        self.began = Some(now);
    }

    pub(super) fn restarted(&mut self, now: Time) {
        self.recent.push_back(now);
    }

    /// The main process has ended by itself. A run as long as the longest delay has gone well, whatever came then: what
    /// fails next begins with the shortest again. The same with sitting out, for a run as long as that.
    pub(super) fn ended(&mut self, now: Time, ttl: Option<Duration>) {
        let lasted = self.began.map_or(Duration::ZERO, |began| now.since(began));
        if lasted >= self.longest_delay() {
            self.in_a_row = 0;
        }
        if lasted >= self.sitting_out(ttl) {
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

    /// What follows the end of the last run, now that its tree is empty.
    pub(super) fn sequel(
        &mut self,
        now: Time,
        end: CommandEnd,
        ttl: Option<Duration>,
        jitter: &mut fastrand::Rng,
        unlimited: bool,
    ) -> Sequel {
        let again = match self.restart.when {
            RestartWhen::Never => false,
            RestartWhen::OnFailure => end != CommandEnd::Exited(0),
            RestartWhen::Always => true,
        };
        if !again {
            return Sequel::End;
        }
        while self.recent.front().is_some_and(|&at| now >= at + self.restart.within) {
            self.recent.pop_front();
        }
        if self.recent.len() >= self.restart.limit as usize && !unlimited {
            let base = self.sitting_out(ttl);
            let doubled = base.saturating_mul(2u32.pow(self.given_up.min(16))).min(LONGEST_SITTING_OUT.max(base));
            self.given_up += 1;
            self.in_a_row = 0;
            self.recent.clear();
            return Sequel::Resign(doubled);
        }
        let doubled = self.restart.delay.saturating_mul(2u32.pow(self.in_a_row.min(20)));
        self.in_a_row += 1;
        // Never longer than was said; a quarter less at most.
        let delay = doubled.min(self.longest_delay()).mul_f64(1.0 - jitter.f64() / 4.0);
        Sequel::Restart(delay)
    }

    fn longest_delay(&self) -> Duration {
        LONGEST_DELAY.max(self.restart.delay)
    }

    fn sitting_out(&self, ttl: Option<Duration>) -> Duration {
        self.restart.within.max(ttl.unwrap_or_default())
    }
}
