//! True time, and the clocks of the hosts.
//!
//! True time is a [`Duration`] since the history began, which nobody in the model can read; a host's boot clock is a
//! [`Time`], so that the two cannot be mixed up.

use std::time::Duration;

use super::super::time::Time;

/// No clock is faster or slower than true time by more than this, in millionths: as much as the margin M covers if two
/// clocks are off in opposite directions (`clock_rates`).
pub(super) const CLOCK_DRIFT_MAX_PPM: i64 = 50_000;
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
