//! Resignations in a row: a candidate that is alone and resigns again and again campaigns later each time.

use std::time::Duration;

use crate::Time;

/// The rest after the second resignation in a row; doubled up to the maximum.
const REST_MIN: Duration = Duration::from_millis(500);
const REST_MAX: Duration = Duration::from_secs(30);
/// A term that has lasted so long has gone well, whatever came then.
const GOOD_TERM: Duration = Duration::from_secs(30);

/// Counts resignations between which no other candidate has led.
#[derive(Debug, Default)]
pub(super) struct ResignTracker {
    in_a_row: u32,
    elected_at: Option<Time>,
}

impl ResignTracker {
    pub(super) fn term_begins(&mut self, now: Time) {
        self.elected_at = Some(now);
    }

    /// Another candidate has had its turn.
    pub(super) fn another_leads(&mut self) {
        self.in_a_row = 0;
    }

    /// The length of the rest after a resignation. The first is followed by the usual backoff alone.
    pub(super) fn resigned(&mut self, now: Time) -> Duration {
        if self.elected_at.is_some_and(|elected| now >= elected + GOOD_TERM) {
            self.in_a_row = 0;
        }
        let before = self.in_a_row;
        self.in_a_row += 1;
        match before.checked_sub(1) {
            None => Duration::ZERO,
            Some(times) => REST_MIN.saturating_mul(2u32.pow(times.min(16))).min(REST_MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(millis: u64) -> Time {
        Time::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn each_resignation_in_a_row_doubles_the_rest_up_to_half_a_minute() {
        let mut resignations = ResignTracker::default();
        resignations.term_begins(at(0));
        let rests: Vec<u128> = (0..10).map(|_| resignations.resigned(at(100)).as_millis()).collect();
        assert_eq!(rests, [0, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000]);
    }

    #[test]
    fn another_leader_or_a_long_term_ends_the_row() {
        let mut resignations = ResignTracker::default();
        resignations.term_begins(at(0));
        for _ in 0..3 {
            resignations.resigned(at(100));
        }
        resignations.another_leads();
        assert_eq!(resignations.resigned(at(200)), Duration::ZERO);
        assert_eq!(resignations.resigned(at(300)), REST_MIN);
        assert_eq!(resignations.resigned(at(30_000)), Duration::ZERO, "the term has lasted");
    }
}
