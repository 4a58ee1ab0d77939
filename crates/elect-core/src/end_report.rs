//! When it is reported that a killed tree still exists (2.3).

use std::time::Duration;

use crate::{KILL_ALLOWANCE, Time};

/// The interval between two reports.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);
/// A campaigner that looks so late was suspended, or had no processor: the keeper's message that the tree is empty may
/// be waiting to be read.
const OVERSLEPT: Duration = Duration::from_millis(250);

/// The next report that a tree is not confirmed empty.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EndReport {
    at: Time,
    /// The report was put off because the campaigner looked late. That is done once for each report.
    was_put_off: bool,
}

impl EndReport {
    /// No report is due.
    pub(crate) const NEVER: EndReport = EndReport { at: Time::NEVER, was_put_off: false };

    /// The report on a tree that is to be killed at this time. A campaigner that comes late counts from the present.
    pub(crate) fn after_kill_at(now: Time, kill_at: Time) -> EndReport {
        EndReport { at: kill_at.max(now) + KILL_ALLOWANCE, was_put_off: false }
    }

    /// The tree is killed earlier than was known.
    pub(crate) fn bring_forward(&mut self, now: Time, kill_at: Time) {
        self.at = self.at.min(kill_at.max(now) + KILL_ALLOWANCE);
    }

    /// Whether to report now.
    pub(crate) fn is_due(&mut self, now: Time) -> bool {
        if now < self.at {
            return false;
        }
        if now >= self.at + OVERSLEPT && !self.was_put_off {
            *self = EndReport { at: now + KILL_ALLOWANCE, was_put_off: true };
            return false;
        }
        *self = EndReport { at: now + REPORT_INTERVAL, was_put_off: false };
        true
    }

    pub(crate) fn wake_at(self) -> Time {
        self.at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(millis: u64) -> Time {
        Time::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn a_campaigner_that_looks_in_time_reports_at_once_and_every_minute() {
        let mut report = EndReport::after_kill_at(at(0), at(8_000));
        assert!(!report.is_due(at(8_499)));
        assert!(report.is_due(at(8_500)));
        assert!(!report.is_due(at(68_499)));
        assert!(report.is_due(at(68_500)));
    }

    #[test]
    fn a_campaigner_that_was_suspended_gives_the_keeper_time_to_tell_the_end() {
        let mut report = EndReport::after_kill_at(at(0), at(8_000));
        assert!(!report.is_due(at(100_000)), "it has just been continued");
        assert_eq!(report.wake_at(), at(100_500));
        assert!(report.is_due(at(101_000)), "put off once");
        // A lease that ran out during the suspension.
        let mut report = EndReport::after_kill_at(at(100_000), at(8_000));
        assert!(!report.is_due(at(100_499)));
        assert!(report.is_due(at(100_500)));
    }
}
