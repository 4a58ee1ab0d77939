//! Crowds: of many candidates that wait for one boundary, a few listen for its changes, and the others read the record at random times.
//!
//! A server that tells hundreds of candidates of a release is busy with them when the next leader asks for the record. The few that
//! listen are enough for a hand-over within milliseconds, and if none of them takes the record, one of the others reads it soon,
//! because there are many of them.
//!
//! Each candidate decides for itself, by the number of those that listen, which it asks the server for:
//! - It counts a random time after it has begun to listen. If there are too many, it stops, or else it counts again. It stops at random, with
//!   the more likelihood the more there are, because all of them may count at once.
//! - It counts before it begins again, when a rest of random length is over, and sometimes when it sees another leader, because that leader may
//!   have listened until then. It listens if there is room.
//! - It counts when it does not campaign for now, and leaves its place to another candidate if there is no room.
//!
//! The looks of candidates that know the leader follow its renewals: after a take they look in short intervals until they see the first renewal,
//! and then once per renewal interval. A candidate that does not listen looks at random times, so that a free record is not
//! left alone until the next time that all of them look.
//!
//! No decision of an election rests on the number. Where the server does not tell it, all listen.

use std::time::Duration;

use elect_core::{Term, Time};

/// All listen if they are no more than this. All of them read a free record at once, which slows the one that takes it.
const LISTENERS_MAX: usize = 16;
/// The average number of those that go on if all of too many count at once.
const LISTENERS_KEPT: usize = 12;
/// The shortest time from the beginning to the count; the longest is twice that. Candidates that start together have begun by then.
const COUNT_DELAY: Duration = Duration::from_secs(1);
/// The shortest time between two counts of a candidate that does not listen; the longest is twice that.
const REST: Duration = Duration::from_secs(20);
/// One in so many of those that do not listen counts when it sees another leader.
const COUNT_SHARE: u32 = 4;
/// But not more often than this: leaders may follow each other for hours.
const COUNT_GAP: Duration = Duration::from_secs(5);
/// The shortest time between two looks before it is known whether anybody leads; the longest is twice that.
const UNDECIDED_LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The next step of a candidate that listens, and has counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// It goes on.
    Listen,
    /// It goes on for now: they are too many, but not all may stop.
    CountAgain,
    /// It stops.
    Rest,
}

/// How long a candidate listens before it counts.
pub fn count_delay() -> Duration {
    up_to_twice(COUNT_DELAY)
}

/// How long a candidate that does not listen waits before it counts again.
pub fn rest() -> Duration {
    up_to_twice(REST)
}

/// Whether a candidate begins to listen, beside so many that do.
pub fn has_room(listeners: usize) -> bool {
    listeners < LISTENERS_MAX
}

/// The next step of one of so many that listen.
pub fn choose(listeners: usize) -> Choice {
    if listeners <= LISTENERS_MAX {
        Choice::Listen
    } else if fastrand::usize(..listeners) < LISTENERS_KEPT {
        Choice::CountAgain
    } else {
        Choice::Rest
    }
}

/// How long a candidate that does not listen waits before it reads the record again.
pub fn look_interval(renew_interval: Duration, is_decided: bool) -> Duration {
    let usual = up_to_twice(renew_interval / 2);
    if is_decided { usual } else { usual.min(up_to_twice(UNDECIDED_LOOK_INTERVAL)) }
}

/// The leaders that a candidate sees.
#[derive(Debug, Default)]
pub struct HandoverTracker {
    term: Option<Term>,
    counted: Option<Time>,
}

impl HandoverTracker {
    /// The record has this term. Returns whether a candidate that does not listen counts before its rest is over.
    pub fn note(&mut self, now: Time, term: Option<Term>) -> bool {
        let is_handover = std::mem::replace(&mut self.term, term).is_some_and(|last| Some(last) != term);
        let is_soon = self.counted.is_some_and(|counted| now.since(counted) < COUNT_GAP);
        let counts = is_handover && !is_soon && fastrand::u32(..COUNT_SHARE) == 0;
        if counts {
            self.counted = Some(now);
        }
        counts
    }
}

fn up_to_twice(shortest: Duration) -> Duration {
    shortest.mul_f64(1.0 + fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_a_few_listen_and_a_few_of_many() {
        assert!(has_room(0) && has_room(LISTENERS_MAX - 1) && !has_room(LISTENERS_MAX));
        for count in [1, 2, LISTENERS_MAX] {
            assert!((0..100).all(|_| choose(count) == Choice::Listen), "{count}");
        }
        for seed in 0..1000 {
            fastrand::seed(seed);
            let left = (0..500).filter(|_| choose(500) != Choice::Rest).count();
            assert!((1..=3 * LISTENERS_KEPT).contains(&left), "all count at once: {left} go on with seed {seed}");
        }
    }

    #[test]
    fn candidates_that_count_in_turn_come_down_to_as_many_as_all_listen() {
        for seed in 0..200 {
            fastrand::seed(seed);
            let (mut listeners, mut undecided) = (500, 500);
            while undecided > 0 {
                for _ in 0..std::mem::take(&mut undecided) {
                    match choose(listeners) {
                        Choice::Listen => {}
                        Choice::CountAgain => undecided += 1,
                        Choice::Rest => listeners -= 1,
                    }
                }
            }
            assert_eq!(listeners, LISTENERS_MAX, "seed {seed}");
        }
    }

    #[test]
    fn counts_are_spread() {
        let looks = || look_interval(2 * COUNT_DELAY, true);
        let undecided = || look_interval(Duration::from_secs(60), false);
        for (shortest, next) in [
            (COUNT_DELAY, count_delay as fn() -> Duration),
            (REST, rest),
            (COUNT_DELAY, looks),
            (UNDECIDED_LOOK_INTERVAL, undecided),
        ] {
            let mut times: Vec<Duration> = (0..100).map(|_| next()).collect();
            times.sort_unstable();
            assert!(times[0] >= shortest && times[99] <= shortest * 2, "{times:?}");
            assert!(times[99].saturating_sub(times[0]) > shortest / 2, "{times:?}");
        }
    }

    #[test]
    fn some_count_after_a_hand_over_and_each_of_them_seldom() {
        fastrand::seed(1);
        let (mut tracker, mut counts, mut last) = (HandoverTracker::default(), 0, None);
        for number in 0..1000 {
            let now = Time::BOOT + Duration::from_secs(number);
            // The first leader is no hand-over, and neither is the same one.
            let term = (number > 0).then_some(number / 2 + 1);
            if tracker.note(now, term) {
                assert!(number >= 2 && number % 2 == 0, "{number}");
                assert!(last.replace(now).is_none_or(|last| now.since(last) >= COUNT_GAP), "{number}");
                counts += 1;
            }
        }
        assert!((50..200).contains(&counts), "{counts} of 500");
    }
}
