//! The two clocks, and the only place that reads them.
//!
//! [`now`] reads the boot clock, which counts suspended time and cannot be stepped: every decision of an election uses
//! it (T1). [`wall_clock`] serves display and seeds terms.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::{Duration, SystemTime};

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{self, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::time::{ClockId, clock_gettime};

use elect_core::Time;

/// The time on the boot clock (`CLOCK_BOOTTIME`).
///
/// # Panics
///
/// The kernel has no boot clock; every supported one has it.
#[must_use]
pub fn now() -> Time {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("the boot clock exists on every supported kernel");
    Time::BOOT + Duration::from(now)
}

/// The wall clock: for display, and as the floor of a term.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn wall_clock() -> SystemTime {
    SystemTime::now()
}

/// Milliseconds since 1970 on the wall clock; zero before.
#[must_use]
pub fn wall_millis() -> u64 {
    let since_epoch = wall_clock().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}

/// A descriptor that becomes readable at an absolute time on the boot clock, even if the machine was suspended
/// meanwhile.
#[derive(Debug)]
pub struct Alarm(TimerFd);

impl Alarm {
    /// An alarm that is not set.
    ///
    /// # Errors
    ///
    /// No descriptor is left.
    pub fn new() -> nix::Result<Alarm> {
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        TimerFd::new(timerfd::ClockId::CLOCK_BOOTTIME, flags).map(Alarm)
    }

    /// Sets the alarm; a time in the past goes off at once, and [`Time::NEVER`] turns it off.
    pub fn set(&self, at: Time) {
        let set = if at == Time::NEVER {
            self.0.unset()
        } else {
            // The kernel reads zero as "off".
            let at = TimeSpec::from_duration(at.since(Time::BOOT).max(Duration::from_nanos(1)));
            self.0.set(Expiration::OneShot(at), TimerSetTimeFlags::TFD_TIMER_ABSTIME)
        };
        debug_assert!(set.is_ok(), "{set:?}");
    }

    /// Makes the descriptor unreadable again after the alarm went off. Does not wait.
    pub fn acknowledge(&self) {
        let _ = self.0.wait();
    }
}

impl AsFd for Alarm {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Alarm {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;

    /// Set in the process whose boot clock is a day ahead of all other clocks.
    const A_DAY_AHEAD: &str = "TEST_BOOT_CLOCK_A_DAY_AHEAD";
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    /// The tests cannot suspend the machine. Instead, in a time namespace whose boot clock is a day ahead, the time
    /// must be that of the boot clock, and so must that of an alarm.
    #[test]
    fn the_time_and_the_alarm_are_those_of_the_boot_clock() {
        if std::env::var_os(A_DAY_AHEAD).is_none() {
            let own = std::env::current_exe().expect("a path");
            let words = ["--time", "--boottime", "86400", "--fork"];
            let name = "clock::tests::the_time_and_the_alarm_are_those_of_the_boot_clock";
            let status = std::process::Command::new("unshare")
                .args(words)
                .arg(own)
                .args(["--exact", name, "--nocapture"])
                .env(A_DAY_AHEAD, "1")
                .status()
                .expect("unshare of util-linux");
            assert!(status.success(), "{status}; this test needs root, in a container --privileged");
            return;
        }
        let monotonic = Time::BOOT + Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).expect("a clock"));
        assert!(now() >= monotonic + DAY, "the time is not that of the boot clock");
        let alarm = Alarm::new().expect("a descriptor");
        let goes_off = |at| {
            alarm.set(at);
            let mut ready = [PollFd::new(alarm.as_fd(), PollFlags::POLLIN)];
            poll(&mut ready, PollTimeout::from(60_000u16)).expect("polled") == 1
        };
        let at = now() + Duration::from_millis(10);
        assert!(goes_off(at), "an alarm of another clock");
        assert!(now() >= at, "it went off early");
    }
}
