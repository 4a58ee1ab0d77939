//! Crowds: of many candidates that wait for one boundary, a few listen for its changes, and the others read the record at their usual
//! pace.
//!
//! A server that tells hundreds of candidates of a release is busy with them when the next leader asks for the record. The few that
//! listen are enough for a hand-over within milliseconds, and if none of them takes the record, one of the others reads it soon,
//! because there are many of them.
//!
//! Each candidate decides for itself, by the number of those that listen, which it asks the server for:
//! - a random time after it has begun to listen: if there are too many, it stops, or else counts again. It stops at random, with the
//!   more likelihood the more there are, because all of them may count at once.
//! - before it begins again, when a rest of random length is over, or perhaps when another leader is seen, since that one has
//!   listened until now: it listens if there is room.
//!
//! A candidate that does not listen reads the record at random times. Otherwise all of them would read it together, each time
//! that the leader has renewed, because that is what they wait for.
//!
//! No decision of an election rests on the number. Where the server does not tell it, all listen.

use std::time::Duration;

/// All listen if they are no more than this. Each of them asks for a free record, in the way of the one that takes it.
const LISTENERS_MAX: usize = 16;
/// The average number of those that go on if all of too many count at once.
const LISTENERS_KEPT: usize = 12;
/// From the beginning to the count, at least, and at most twice as long: candidates that start together have begun by then.
const COUNT_DELAY: Duration = Duration::from_secs(1);
/// Between two counts of a candidate that does not listen, at least, and at most twice as long.
const REST: Duration = Duration::from_secs(20);
/// One in so many of those that do not listen counts when it sees another leader.
const COUNT_SHARE: u32 = 4;

/// What a candidate does that listens, and has counted.
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

/// What one of so many that listen does.
pub fn choose(listeners: usize) -> Choice {
    if listeners <= LISTENERS_MAX {
        Choice::Listen
    } else if fastrand::usize(..listeners) < LISTENERS_KEPT {
        Choice::CountAgain
    } else {
        Choice::Rest
    }
}

/// Whether a candidate that does not listen counts before its rest is over, because another candidate leads now.
pub fn counts_after_handover() -> bool {
    fastrand::u32(..COUNT_SHARE) == 0
}

/// How long a candidate that does not listen waits before it reads the record again.
pub fn look_interval(renew_interval: Duration) -> Duration {
    up_to_twice(renew_interval / 2)
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
                for _ in 0..undecided {
                    match choose(listeners) {
                        Choice::Listen => undecided -= 1,
                        Choice::CountAgain => {}
                        Choice::Rest => (listeners, undecided) = (listeners - 1, undecided - 1),
                    }
                }
            }
            assert_eq!(listeners, LISTENERS_MAX, "seed {seed}");
        }
    }

    #[test]
    fn counts_are_spread() {
        let looks = || look_interval(2 * COUNT_DELAY);
        for (shortest, next) in [(COUNT_DELAY, count_delay as fn() -> Duration), (REST, rest), (COUNT_DELAY, looks)] {
            let mut times: Vec<Duration> = (0..100).map(|_| next()).collect();
            times.sort_unstable();
            assert!(times[0] >= shortest && times[99] <= shortest * 2, "{times:?}");
            assert!(times[99].saturating_sub(times[0]) > shortest / 2, "{times:?}");
        }
    }
}
