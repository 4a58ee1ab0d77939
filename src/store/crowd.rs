//! Crowds: of many candidates that wait for one boundary, a few listen for its changes, and the others read the record at their usual
//! pace.
//!
//! A server that tells hundreds of candidates of a release is busy with them when the next leader asks for the record. The few that
//! listen are enough for a hand-over within milliseconds, and if none of them takes the record, one of the others reads it soon,
//! because there are many of them.
//!
//! Each candidate decides for itself, by the number of those that listen, which it asks the server for:
//! - once when it has begun to listen and a random time has passed: if there are too many, all but a few of them stop, chosen at random,
//!   because all of them may count at once;
//! - before it begins again, after a rest of random length: it listens if there is room.
//!
//! No decision of an election rests on the number. Where the server does not tell it, all listen.

use std::time::Duration;

/// All listen if they are no more than this.
const LISTENERS_MAX: usize = 24;
/// The average number of those that go on if all of too many count at once.
const LISTENERS_KEPT: usize = 8;
/// From the beginning to the count, at least, and at most twice as long: candidates that start together have begun by then.
const COUNT_DELAY: Duration = Duration::from_secs(1);
/// Between two counts of a candidate that does not listen, at least, and at most twice as long.
const REST: Duration = Duration::from_secs(20);

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

/// Whether one of so many that listen goes on.
pub fn goes_on(listeners: usize) -> bool {
    listeners <= LISTENERS_MAX || fastrand::usize(..listeners) < LISTENERS_KEPT
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
            assert!((0..100).all(|_| goes_on(count)), "{count}");
        }
        for seed in 0..200 {
            fastrand::seed(seed);
            let left = (0..500).filter(|_| goes_on(500)).count();
            assert!((1..=LISTENERS_MAX).contains(&left), "all count at once: {left} go on with seed {seed}");
            let left = (0..500).fold(500, |listeners, _| if goes_on(listeners) { listeners } else { listeners - 1 });
            assert!((1..=2 * LISTENERS_MAX).contains(&left), "they count in turn: {left} go on with seed {seed}");
        }
    }

    #[test]
    fn counts_are_spread() {
        for (shortest, next) in [(COUNT_DELAY, count_delay as fn() -> Duration), (REST, rest)] {
            let mut times: Vec<Duration> = (0..100).map(|_| next()).collect();
            times.sort_unstable();
            assert!(times[0] >= shortest && times[99] <= shortest * 2, "{times:?}");
            assert!(times[99].saturating_sub(times[0]) > shortest / 2, "{times:?}");
        }
    }
}
