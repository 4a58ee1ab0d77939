//! All chance of a history, as a list of choices: each is a number below a bound.
//!
//! A history draws its choices from a seed, or replays a list that was recorded. In both cases the list is recorded as it
//! is taken, so that a history that fails can be told by its list, and shortened (`shrink`). Smaller numbers stand for
//! simpler histories: 0 is no fault, no delay, no drift. After the end of a replayed list every choice is 0.

use std::collections::VecDeque;
use std::time::Duration;

use super::clock::{LATEST, ms};

/// The source of all chance of a history, and the list of what was chosen.
#[derive(Debug)]
pub(super) struct SimRng {
    source: Source,
    taken: Vec<u64>,
    /// Timers are never late.
    pub punctual: bool,
}

#[derive(Debug)]
enum Source {
    Seed(fastrand::Rng),
    Replay(VecDeque<u64>),
}

impl SimRng {
    pub(super) fn from_seed(seed: u64) -> SimRng {
        SimRng { source: Source::Seed(fastrand::Rng::with_seed(seed)), taken: Vec::new(), punctual: false }
    }

    pub(super) fn replay(choices: &[u64]) -> SimRng {
        SimRng { source: Source::Replay(VecDeque::from(choices.to_vec())), taken: Vec::new(), punctual: false }
    }

    /// The choices so far, without the zeros at the end: a replay needs no more.
    pub(super) fn taken(&self) -> &[u64] {
        let length = self.taken.iter().rposition(|choice| *choice != 0).map_or(0, |last| last + 1);
        &self.taken[..length]
    }

    /// The number of choices so far.
    pub(super) fn count(&self) -> usize {
        self.taken.len()
    }

    /// A choice below `bound`. Without an alternative there is none.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        if bound <= 1 {
            return 0;
        }
        let choice = match &mut self.source {
            Source::Seed(rng) => rng.u64(..bound),
            Source::Replay(rest) => rest.pop_front().map_or(0, |choice| choice.min(bound - 1)),
        };
        self.taken.push(choice);
        choice
    }

    /// The same for a small bound.
    pub(super) fn below_small(&mut self, bound: u32) -> u32 {
        u32::try_from(self.below(u64::from(bound))).expect("below a small bound")
    }

    /// An index into so many elements.
    pub(super) fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).expect("below a length")
    }

    /// `low` is the simplest.
    pub(super) fn between(&mut self, low: Duration, high: Duration) -> Duration {
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).expect("a history is short");
        low + Duration::from_nanos(self.below(nanos(high.saturating_sub(low)) + 1))
    }

    /// So often in a hundred. No is simpler than yes.
    pub(super) fn percent(&mut self, chance: u32) -> bool {
        self.below_small(100) >= 100_u32.saturating_sub(chance)
    }

    /// The first is the simplest.
    pub(super) fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.index(choices.len())]
    }

    /// A number between −`most` and `most`; 0 is the simplest.
    pub(super) fn around_zero(&mut self, most: i64) -> i64 {
        let choice = i64::try_from(self.below(2 * most.unsigned_abs() + 1)).expect("a small number");
        if choice % 2 == 0 { choice / 2 } else { -(choice / 2) - 1 }
    }

    /// How late a timer fires: as a rule hardly at all.
    pub(super) fn lateness(&mut self) -> Duration {
        if self.punctual {
            Duration::ZERO
        } else if self.percent(10) {
            self.between(ms(1), LATEST)
        } else {
            self.between(Duration::ZERO, ms(1))
        }
    }
}

/// A list as it is written: numbers, and `0*12` for twelve zeros.
pub(super) fn written(choices: &[u64]) -> String {
    let mut words = Vec::new();
    for run in choices.chunk_by(|one, other| *one == 0 && *other == 0) {
        words.push(if run.len() > 1 { format!("0*{}", run.len()) } else { run[0].to_string() });
    }
    words.join(" ")
}

/// Reads a list that was written.
pub(super) fn read(text: &str) -> Vec<u64> {
    let mut choices = Vec::new();
    for word in text.split_whitespace() {
        match word.strip_prefix("0*") {
            Some(times) => choices.resize(choices.len() + times.parse::<usize>().expect("a number of zeros"), 0),
            None => choices.push(word.parse().expect("a number in every word")),
        }
    }
    choices
}

#[test]
fn a_list_is_read_as_it_was_written() {
    for choices in [vec![], vec![0], vec![0, 0, 0, 7], vec![3, 0, 0, 1, 0, u64::MAX]] {
        assert_eq!(read(&written(&choices)), choices);
    }
    assert_eq!(written(&[3, 0, 0, 1, 0]), "3 0*2 1 0");
}

#[test]
fn a_replay_takes_the_choices_of_its_list_and_then_the_simplest() {
    let mut seeded = SimRng::from_seed(7);
    let drawn: Vec<u64> = (1..50).map(|bound| seeded.below(bound)).collect();
    let mut replayed = SimRng::replay(seeded.taken());
    assert_eq!((1..50).map(|bound| replayed.below(bound)).collect::<Vec<u64>>(), drawn);
    assert_eq!((replayed.below(1_000), replayed.percent(99), replayed.around_zero(5)), (0, false, 0));
    assert_eq!(replayed.taken(), seeded.taken());
}
