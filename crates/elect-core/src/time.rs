//! A point on the boot clock, as a plain number.
//!
//! The election never reads a clock. The caller passes the time in, so that a test can run a day in a
//! millisecond, and so that one machine's clock may run faster than another's in the simulation.

use std::ops::{Add, Sub};
use std::time::Duration;

/// Nanoseconds since this host booted, suspended time included (`CLOCK_BOOTTIME`).
///
/// Arithmetic saturates: [`Time::NEVER`] plus anything is never, and nothing precedes the boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

impl Time {
    /// The moment this host booted.
    pub const BOOT: Time = Time(0);
    /// Later than every other time: the deadline of a lease that has no end.
    pub const NEVER: Time = Time(u64::MAX);

    /// The time `nanos` nanoseconds after boot.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Time {
        Time(nanos)
    }

    /// Nanoseconds since boot.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// How long it is from `earlier` until this time; zero if `earlier` is not earlier.
    #[must_use]
    pub const fn since(self, earlier: Time) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// A duration in nanoseconds; one too long for 64 bits (584 years) counts as that long.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Add<Duration> for Time {
    type Output = Time;

    fn add(self, duration: Duration) -> Time {
        Time(self.0.saturating_add(nanos(duration)))
    }
}

impl Sub<Duration> for Time {
    type Output = Time;

    /// Never minus something is still never.
    fn sub(self, duration: Duration) -> Time {
        if self == Time::NEVER {
            return Time::NEVER;
        }
        Time(self.0.saturating_sub(nanos(duration)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn never_stays_never() {
        assert_eq!(Time::NEVER + SECOND, Time::NEVER);
        assert_eq!(Time::NEVER - SECOND, Time::NEVER);
        assert!(Time::from_nanos(u64::MAX - 1) < Time::NEVER);
    }

    #[test]
    fn nothing_precedes_the_boot() {
        assert_eq!(Time::from_nanos(5) - SECOND, Time::BOOT);
        assert_eq!(Time::BOOT.since(Time::from_nanos(5)), Duration::ZERO);
    }

    #[test]
    fn a_difference_added_again_gives_the_same_time() {
        let (early, late) = (Time::from_nanos(3), Time::from_nanos(1_000_000_007));
        assert_eq!(early + late.since(early), late);
        assert_eq!(late - late.since(early), early);
        assert_eq!(late.as_nanos(), 1_000_000_007);
    }
}
