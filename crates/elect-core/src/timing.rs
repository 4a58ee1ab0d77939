//! The lease arithmetic: from the four flags to every deadline (DESIGN.md section 4).
//!
//! ```text
//! sent ──────── stop_by ──── kill_by ──────── sent + ttl
//!               │ fence grace │ kill allowance + margin │
//!               SIGTERM       SIGKILL                   another may lead
//! ```
//!
//! Everything here is a pure function of durations. The states decide what a lease means for a candidate.

use std::fmt;
use std::time::Duration;

use super::time::Time;

/// K: how long a kernel may take to make a killed tree disappear.
pub const KILL_ALLOWANCE: Duration = Duration::from_millis(500);
/// The default of `--ttl`.
pub const DEFAULT_TTL: Duration = Duration::from_secs(10);
/// No duration may be longer: beyond it arithmetic on nanoseconds would have to be watched.
pub const DURATION_MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);

const MARGIN_MIN: Duration = Duration::from_millis(250);
const DEFAULT_GRACE_MAX: Duration = Duration::from_secs(10);
const DEFAULT_RENEW_MAX: Duration = Duration::from_secs(60);
const DEFAULT_REQUEST_TIMEOUT_MAX: Duration = Duration::from_secs(30);
/// How often a lease without an end is checked (5.1), and how often its keeper is pinged.
const LOCK_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The timing flags as given; those left open follow from the ttl (T2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TimingFlags {
    /// `--ttl`
    pub ttl: Option<Duration>,
    /// `--renew`
    pub renew: Option<Duration>,
    /// `--request-timeout`
    pub request_timeout: Option<Duration>,
    /// `--fence-grace`
    pub fence_grace: Option<Duration>,
}

/// Timings that have been proven to hold together (T3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    asked: TimingFlags,
    ttl: Option<Duration>,
    renew: Duration,
    request_timeout: Duration,
    fence_grace: Duration,
}

/// Why timings cannot hold, and which flag to change to what.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimingError {
    /// A duration of zero.
    #[error("{flag} must be longer than 0s")]
    Zero {
        /// The flag at fault.
        flag: &'static str,
    },
    /// A duration above the limit.
    #[error("{flag} {} is too long: at most {}", HumanDuration(*value), HumanDuration(DURATION_MAX))]
    TooLong {
        /// The flag at fault.
        flag: &'static str,
        /// The value that it was set to.
        value: Duration,
    },
    /// T3 fails, and a longer ttl would satisfy it.
    #[error(
        "--ttl {} is too short: stopping takes {} and a renewal with two attempts {}, so it must be at least {}",
        HumanDuration(*ttl), HumanDuration(*stopping), HumanDuration(*renewing), HumanDuration(*at_least)
    )]
    TtlTooShort {
        /// The ttl asked for, or granted.
        ttl: Duration,
        /// Margin, kill allowance and fence grace.
        stopping: Duration,
        /// R + 2A + max B.
        renewing: Duration,
        /// The shortest ttl that would do, to the millisecond.
        at_least: Duration,
    },
    /// T3 fails because of one flag that was set by hand.
    #[error("{flag} {} is too long for --ttl {}: it must be at most {}", HumanDuration(*value), HumanDuration(*ttl), HumanDuration(*at_most))]
    FlagTooLong {
        /// The flag at fault.
        flag: &'static str,
        /// The value that it was set to.
        value: Duration,
        /// The ttl it has to fit into.
        ttl: Duration,
        /// The longest that would do, to the millisecond.
        at_most: Duration,
    },
}

impl Timing {
    /// Derives what is left open and proves the result.
    ///
    /// # Errors
    ///
    /// [`TimingError`] names the flag to change and the value that would do.
    pub fn validate(asked: TimingFlags) -> Result<Timing, TimingError> {
        for (flag, value) in [
            ("--ttl", asked.ttl),
            ("--renew", asked.renew),
            ("--request-timeout", asked.request_timeout),
            ("--fence-grace", asked.fence_grace),
        ] {
            let Some(value) = value else { continue };
            // A fence grace of nothing is a wish one can have: SIGKILL at once.
            if value.is_zero() && flag != "--fence-grace" {
                return Err(TimingError::Zero { flag });
            }
            if value > DURATION_MAX {
                return Err(TimingError::TooLong { flag, value });
            }
        }
        let timing = Timing::derive(asked);
        if timing.holds() { Ok(timing) } else { Err(timing.diagnose()) }
    }

    /// The same policy under a store that grants no ttl: leadership has no deadline and is looked at every second.
    #[must_use]
    pub fn without_lease(self) -> Timing {
        Timing { ttl: None, renew: LOCK_CHECK_INTERVAL, ..self }
    }

    /// The same policy for the ttl that the store granted in place of the one asked for.
    ///
    /// # Errors
    ///
    /// As [`Timing::validate`].
    pub fn for_granted(self, ttl: Duration) -> Result<Timing, TimingError> {
        if self.ttl == Some(ttl) {
            return Ok(self);
        }
        Timing::validate(TimingFlags { ttl: Some(ttl), ..self.asked })
    }

    pub(super) fn derive(asked: TimingFlags) -> Timing {
        let ttl = asked.ttl.unwrap_or(DEFAULT_TTL);
        Timing {
            asked,
            ttl: Some(ttl),
            renew: asked.renew.unwrap_or((ttl / 5).min(DEFAULT_RENEW_MAX)),
            request_timeout: asked.request_timeout.unwrap_or((ttl / 10).min(DEFAULT_REQUEST_TIMEOUT_MAX)),
            fence_grace: asked.fence_grace.unwrap_or((ttl / 5).min(DEFAULT_GRACE_MAX)),
        }
    }

    /// T3: `stop_by − sent ≥ R + 2A + max B`, that is, a renewal may fail once and still come in time.
    fn holds(&self) -> bool {
        let ttl = self.ttl.unwrap_or(DEFAULT_TTL);
        ttl >= self.stopping(ttl) + self.renewing()
    }

    fn stopping(&self, ttl: Duration) -> Duration {
        margin(ttl) + KILL_ALLOWANCE + self.fence_grace
    }

    fn renewing(&self) -> Duration {
        self.renew + 2 * self.request_timeout + self.longest_backoff()
    }

    /// Finds the one flag whose change makes these timings valid: first those set by hand, then the ttl.
    fn diagnose(&self) -> TimingError {
        let ttl = self.ttl.unwrap_or(DEFAULT_TTL);
        for (flag, value, set) in [
            (
                "--renew",
                self.asked.renew,
                (|asked, value| asked.renew = value) as fn(&mut TimingFlags, Option<Duration>),
            ),
            ("--request-timeout", self.asked.request_timeout, |asked, value| asked.request_timeout = value),
            ("--fence-grace", self.asked.fence_grace, |asked, value| asked.fence_grace = value),
        ] {
            let Some(value) = value else { continue };
            let holds_with = |millis: u64| {
                let mut asked = self.asked;
                set(&mut asked, Some(Duration::from_millis(millis)));
                Timing::derive(asked).holds()
            };
            let shortest = u64::from(flag != "--fence-grace");
            if holds_with(shortest) {
                let at_most = last_millis(shortest, millis(value), holds_with);
                return TimingError::FlagTooLong { flag, value, ttl, at_most };
            }
        }
        let fails_with = |millis: u64| {
            !Timing::derive(TimingFlags { ttl: Some(Duration::from_millis(millis)), ..self.asked }).holds()
        };
        let at_least = last_millis(0, millis(8 * DURATION_MAX), fails_with) + Duration::from_millis(1);
        TimingError::TtlTooShort { ttl, stopping: self.stopping(ttl), renewing: self.renewing(), at_least }
    }

    /// L, or `None` where leadership has no deadline.
    #[must_use]
    pub fn ttl(&self) -> Option<Duration> {
        self.ttl
    }

    /// R: from one credited renewal's sending to the next one's.
    #[must_use]
    pub fn renew(&self) -> Duration {
        self.renew
    }

    /// A: how long one attempt may take, all its calls together.
    #[must_use]
    pub fn request_timeout(&self) -> Duration {
        self.request_timeout
    }

    /// G: from SIGTERM to SIGKILL when the lease runs out.
    #[must_use]
    pub fn fence_grace(&self) -> Duration {
        self.fence_grace
    }

    /// B at its shortest.
    #[must_use]
    pub fn shortest_backoff(&self) -> Duration {
        self.request_timeout / 4
    }

    /// B at its longest.
    #[must_use]
    pub fn longest_backoff(&self) -> Duration {
        self.request_timeout / 2
    }

    /// The longest outage of the store that demotes no leader, even if it begins at the worst moment: just before a
    /// renewal is due, and ends while one that will fail is under way (T2). `None` where leadership has no deadline.
    #[must_use]
    pub fn longest_outage(&self) -> Option<Duration> {
        self.ttl?;
        let lease = self.lease(Time::BOOT);
        let spent = self.renew + self.request_timeout + self.longest_backoff();
        Some(lease.stop_by.since(lease.sent).saturating_sub(spent))
    }

    /// The lease that a request sent at `sent` was granted (T1: counted from the sending).
    #[must_use]
    pub fn lease(&self, sent: Time) -> Lease {
        let Some(ttl) = self.ttl else {
            return Lease { sent, stop_by: Time::NEVER, kill_by: Time::NEVER, ends: Time::NEVER };
        };
        let ends = sent + ttl;
        let kill_by = ends - margin(ttl) - KILL_ALLOWANCE;
        Lease { sent, stop_by: kill_by - self.fence_grace, kill_by, ends }
    }
}

/// M: what clocks of different rate and a slow kernel may cost.
#[must_use]
pub fn margin(ttl: Duration) -> Duration {
    (ttl / 10).max(MARGIN_MIN)
}

/// A lease of the store, and the deadlines that follow for the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// When the request that was granted had been sent.
    pub sent: Time,
    /// SIGTERM; from here the term is over.
    pub stop_by: Time,
    /// SIGKILL, by campaigner and keeper independently.
    pub kill_by: Time,
    /// From here another may lead.
    pub ends: Time,
}

impl Lease {
    /// This lease, cut to one that the store granted for too short a time to renew it (T3): without such a lease the
    /// command would live longer than the store holds the other candidates off.
    #[must_use]
    pub(super) fn cut_to(self, sent: Time, granted: Option<Duration>) -> Lease {
        let Some(granted) = granted else { return self };
        let ends = self.ends.min(sent + granted);
        let kill_by = self.kill_by.min(sent + granted - margin(granted) - KILL_ALLOWANCE);
        Lease { ends, kill_by, stop_by: self.stop_by.min(kill_by), ..self }
    }
}

/// The largest number of milliseconds from `low`, where `holds` is true, up to `high` for which it still is.
fn last_millis(low: u64, high: u64, holds: impl Fn(u64) -> bool) -> Duration {
    let (mut holds_at, mut fails_at) = (low, high.saturating_add(1));
    while fails_at - holds_at > 1 {
        let middle = holds_at + (fails_at - holds_at) / 2;
        if holds(middle) {
            holds_at = middle;
        } else {
            fails_at = middle;
        }
    }
    Duration::from_millis(holds_at)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A duration in the notation of flags: `900ms`, `4.1s`, `1h 30m`.
pub struct HumanDuration(pub Duration);

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let HumanDuration(duration) = *self;
        if duration < Duration::from_secs(1) {
            write!(f, "{}ms", duration.as_millis())
        } else if duration < Duration::from_secs(60) {
            write!(f, "{}s", f64::from(u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)) / 1000.0)
        } else {
            write!(f, "{}", humantime::format_duration(Duration::from_millis(millis(duration))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn ttl(millis: u64) -> TimingFlags {
        TimingFlags { ttl: Some(ms(millis)), ..TimingFlags::default() }
    }

    #[test]
    fn the_defaults_are_those_of_the_design() {
        let timing = Timing::validate(TimingFlags::default()).expect("defaults hold");
        assert_eq!(timing.ttl(), Some(ms(10_000)));
        assert_eq!(timing.renew(), ms(2_000));
        assert_eq!(timing.request_timeout(), ms(1_000));
        assert_eq!(timing.fence_grace(), ms(2_000));
        assert_eq!((timing.shortest_backoff(), timing.longest_backoff()), (ms(250), ms(500)));
        let lease = timing.lease(Time::BOOT);
        assert_eq!(lease.stop_by.since(lease.sent), ms(6_500));
        assert_eq!(lease.kill_by.since(lease.sent), ms(8_500));
        assert_eq!(lease.ends.since(lease.sent), ms(10_000));
        assert_eq!(timing.longest_outage(), Some(ms(3_000)));
    }

    #[test]
    fn a_long_ttl_does_not_make_the_grace_longer_than_ten_seconds() {
        let timing = Timing::validate(ttl(60_000)).expect("holds");
        assert_eq!(timing.fence_grace(), ms(10_000));
        assert_eq!(timing.lease(Time::BOOT).kill_by, Time::BOOT + ms(60_000 - 6_000 - 500));
    }

    #[test]
    fn a_long_ttl_does_not_make_renewals_rare_or_attempts_long() {
        let timing = Timing::validate(ttl(3_600_000)).expect("holds");
        assert_eq!((timing.renew(), timing.request_timeout()), (ms(60_000), ms(30_000)));
        let timing = Timing::validate(ttl(250_000)).expect("holds");
        assert_eq!((timing.renew(), timing.request_timeout()), (ms(50_000), ms(25_000)));
    }

    #[test]
    fn the_margin_is_a_tenth_but_never_below_a_quarter_second() {
        assert_eq!(margin(ms(2_499)), ms(250));
        assert_eq!(margin(ms(2_500)), ms(250));
        assert_eq!(margin(ms(10_000)), ms(1_000));
        let timing = Timing::validate(ttl(2_400)).expect("holds");
        assert_eq!(timing.lease(Time::BOOT).kill_by, Time::BOOT + ms(2_400 - 250 - 500));
    }

    #[test]
    fn a_ttl_that_is_too_short_is_told_the_shortest_that_does() {
        let error = Timing::validate(ttl(1_000)).expect_err("too short");
        let TimingError::TtlTooShort { at_least, .. } = error else { panic!("{error:?}") };
        assert_eq!(at_least, ms(2_143));
        assert!(Timing::validate(ttl(2_143)).is_ok());
        assert!(Timing::validate(ttl(2_142)).is_err());
        assert_eq!(
            error.to_string(),
            "--ttl 1s is too short: stopping takes 950ms and a renewal with two attempts 450ms, so it must be at least 2.143s"
        );
    }

    #[test]
    fn a_flag_set_by_hand_is_blamed_before_the_ttl() {
        let error =
            Timing::validate(TimingFlags { renew: Some(ms(9_000)), ..TimingFlags::default() }).expect_err("too long");
        assert_eq!(error.to_string(), "--renew 9s is too long for --ttl 10s: it must be at most 4s");
        assert!(Timing::validate(TimingFlags { renew: Some(ms(4_000)), ..TimingFlags::default() }).is_ok());
        assert!(Timing::validate(TimingFlags { renew: Some(ms(4_001)), ..TimingFlags::default() }).is_err());

        let error = Timing::validate(TimingFlags { request_timeout: Some(ms(5_000)), ..TimingFlags::default() })
            .expect_err("long");
        assert_eq!(error.to_string(), "--request-timeout 5s is too long for --ttl 10s: it must be at most 1.8s");

        let error = Timing::validate(TimingFlags { fence_grace: Some(ms(70_000)), ..TimingFlags::default() })
            .expect_err("long");
        assert_eq!(error.to_string(), "--fence-grace 1m 10s is too long for --ttl 10s: it must be at most 4s");
    }

    #[test]
    fn what_is_proposed_is_the_last_whole_millisecond_and_never_nothing_but_for_the_grace() {
        let at_most = |asked| match Timing::validate(asked) {
            Err(TimingError::FlagTooLong { at_most, .. }) => Some(at_most),
            Err(TimingError::TtlTooShort { .. }) => None,
            other => panic!("{other:?}"),
        };
        let micros = Duration::from_micros(4_000_500);
        assert_eq!(at_most(TimingFlags { renew: Some(micros), ..TimingFlags::default() }), Some(ms(4_000)));
        // At this ttl a fifth of a millisecond is left: for no grace at all, but not for a renewal interval.
        let second = Some(ms(1_000));
        assert_eq!(at_most(TimingFlags { fence_grace: second, ..ttl(1_364) }), Some(Duration::ZERO));
        assert_eq!(at_most(TimingFlags { renew: second, ..ttl(1_364) }), None);
    }

    #[test]
    fn two_flags_that_are_both_too_long_ask_for_a_longer_ttl() {
        let asked = TimingFlags { renew: Some(ms(20_000)), fence_grace: Some(ms(20_000)), ..TimingFlags::default() };
        let error = Timing::validate(asked).expect_err("too long");
        let TimingError::TtlTooShort { at_least, .. } = error else { panic!("{error:?}") };
        assert!(Timing::validate(TimingFlags { ttl: Some(at_least), ..asked }).is_ok());
        assert!(Timing::validate(TimingFlags { ttl: Some(at_least.saturating_sub(ms(1))), ..asked }).is_err());
    }

    #[test]
    fn zero_and_absurd_durations_are_refused_but_no_grace_is_a_wish_one_can_have() {
        assert_eq!(Timing::validate(ttl(0)), Err(TimingError::Zero { flag: "--ttl" }));
        let zero = TimingFlags { renew: Some(Duration::ZERO), ..TimingFlags::default() };
        assert_eq!(Timing::validate(zero).expect_err("zero").to_string(), "--renew must be longer than 0s");
        assert!(Timing::validate(TimingFlags { fence_grace: Some(Duration::ZERO), ..TimingFlags::default() }).is_ok());
        assert_eq!(DURATION_MAX.as_secs(), 31_622_400, "a leap year");
        assert!(Timing::validate(TimingFlags { ttl: Some(DURATION_MAX), ..TimingFlags::default() }).is_ok());
        let error = Timing::validate(TimingFlags { ttl: Some(DURATION_MAX + ms(1)), ..TimingFlags::default() })
            .expect_err("too long");
        assert_eq!(error, TimingError::TooLong { flag: "--ttl", value: DURATION_MAX + ms(1) });
    }

    #[test]
    fn a_granted_ttl_is_proven_again_and_the_rest_follows_it() {
        let timing = Timing::validate(ttl(3_000)).expect("holds");
        assert_eq!(timing.for_granted(ms(3_000)), Ok(timing));
        let longer = timing.for_granted(ms(6_000)).expect("holds");
        assert_eq!((longer.renew(), longer.request_timeout()), (ms(1_200), ms(600)));
        assert!(timing.for_granted(ms(1_000)).is_err());
    }

    #[test]
    fn without_a_lease_there_is_no_deadline_and_a_look_every_second() {
        let timing = Timing::validate(TimingFlags::default()).expect("holds").without_lease();
        let lease = timing.lease(Time::from_nanos(7));
        assert_eq!((lease.stop_by, lease.kill_by, lease.ends), (Time::NEVER, Time::NEVER, Time::NEVER));
        assert_eq!((timing.ttl(), timing.renew()), (None, Duration::from_secs(1)));
        assert_eq!(timing.longest_outage(), None);
    }

    #[test]
    fn every_proven_timing_leaves_room_for_two_attempts() {
        for millis in (2_143..400_000).step_by(97) {
            let timing = Timing::validate(ttl(millis)).expect("holds");
            let lease = timing.lease(Time::BOOT);
            let room = lease.stop_by.since(lease.sent);
            assert!(room >= timing.renew() + 2 * timing.request_timeout() + timing.longest_backoff());
            assert!(lease.kill_by + KILL_ALLOWANCE + margin(ms(millis)) <= lease.ends);
        }
    }

    #[test]
    fn durations_are_shown_as_people_write_them() {
        assert_eq!(HumanDuration(ms(900)).to_string(), "900ms");
        assert_eq!(HumanDuration(ms(4_100)).to_string(), "4.1s");
        assert_eq!(HumanDuration(ms(60_000)).to_string(), "1m");
        assert_eq!(HumanDuration(ms(5_400_000)).to_string(), "1h 30m");
    }
}
