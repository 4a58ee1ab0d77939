//! True time, the clocks of the hosts, and chance.
//!
//! True time is a [`Duration`] since the history began, which nobody in the model can read; a host's boot clock is a
//! [`Time`], so that the two cannot be mixed up.

use std::time::Duration;

use super::super::time::Time;

/// No clock is faster or slower than true time by more than this, in millionths; well within the margin M.
pub(super) const CLOCK_DRIFT_MAX_PPM: i64 = 20_000;
/// No timer fires later than this.
pub(super) const LATEST: Duration = Duration::from_millis(40);

pub(super) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A boot clock: started at some other time, and never quite at the right rate.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    pub offset: Duration,
    /// How much faster than true time, in millionths.
    pub rate: i64,
}

impl Clock {
    pub(super) fn at(self, moment: Duration) -> Time {
        let nanos = i128::try_from(moment.as_nanos()).expect("a history is short");
        let passed = nanos + nanos * i128::from(self.rate) / 1_000_000;
        Time::BOOT + self.offset + Duration::from_nanos(u64::try_from(passed).expect("time passes"))
    }

    /// The earliest moment at which this clock shows `time` or later.
    pub(super) fn when(self, time: Time) -> Duration {
        if time == Time::NEVER {
            return Duration::MAX;
        }
        let mut moment = self.lasts(time.since(Time::BOOT + self.offset)).saturating_sub(Duration::from_nanos(2));
        while self.at(moment) < time {
            moment += Duration::from_nanos(1);
        }
        moment
    }

    /// How long in truth this clock takes to show that `duration` has passed.
    pub(super) fn lasts(self, duration: Duration) -> Duration {
        lasts_at(self.rate, duration)
    }
}

/// How long in truth it takes a clock of this rate to show that `duration` has passed.
pub(super) fn lasts_at(rate: i64, duration: Duration) -> Duration {
    let nanos = duration.as_nanos() * 1_000_000 / u128::try_from(1_000_000 + rate).expect("a clock runs forwards");
    Duration::from_nanos(u64::try_from(nanos).expect("a history is short"))
}

/// All chance of a history comes from its seed.
#[derive(Debug)]
pub(super) struct SimRng {
    pub rng: fastrand::Rng,
    /// Timers are never late.
    pub punctual: bool,
    /// The number of choices made.
    pub drawn: u64,
}

impl SimRng {
    pub(super) fn between(&mut self, low: Duration, high: Duration) -> Duration {
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).expect("a history is short");
        self.drawn += 1;
        Duration::from_nanos(self.rng.u64(nanos(low)..=nanos(high).max(nanos(low))))
    }

    pub(super) fn percent(&mut self, chance: u32) -> bool {
        self.drawn += 1;
        self.rng.u32(0..100) < chance
    }

    pub(super) fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        self.drawn += 1;
        choices[self.rng.usize(0..choices.len())]
    }

    /// How late a timer fires: as a rule hardly at all.
    pub(super) fn lateness(&mut self) -> Duration {
        if self.punctual {
            Duration::ZERO
        } else if self.percent(90) {
            self.between(Duration::ZERO, ms(1))
        } else {
            self.between(ms(1), LATEST)
        }
    }
}
