//! A history that breaks a rule is shortened: its list of choices is changed as long as the same rule is still broken.
//!
//! A history is the simpler the fewer events it has and the fewer of its choices are not 0; of equal ones, that with the
//! shorter list, and then that with the smaller numbers in front. A change is replayed, and the list that the replay has
//! really taken is kept if it is simpler. The passes are the usual ones: cut the end, delete blocks, set blocks to 0,
//! lower single choices.

use std::cmp::Ordering;

use super::choices::SimRng;
use super::mutations::InjectedMutation;
use super::run::{Simulation, Violation};

/// The largest block that is deleted or set to 0 at once.
const LARGEST_BLOCK: usize = 256;

/// A choice that is not 0 costs a reader as much as so many events.
const EVENTS_PER_CHOICE: u32 = 8;

struct Shrinker {
    best: Violation,
    mutation: Option<InjectedMutation>,
    /// The number of runs that may still be made.
    runs: u32,
}

/// Shortens the history within a number of runs.
pub(super) fn shrink(found: Violation, mutation: Option<InjectedMutation>, runs: u32) -> Violation {
    let mut shrinker = Shrinker { best: found, mutation, runs };
    loop {
        let before = shrinker.best.choices.clone();
        shrinker.cut();
        let mut size = LARGEST_BLOCK;
        while size > 0 {
            shrinker.delete(size);
            shrinker.set_to_zero(size);
            size /= 2;
        }
        shrinker.lower();
        if shrinker.runs == 0 || shrinker.best.choices == before {
            return shrinker.best;
        }
    }
}

fn cost(found: &Violation) -> u32 {
    let decisions = found.choices.iter().filter(|choice| **choice != 0).count();
    found.steps + EVENTS_PER_CHOICE * u32::try_from(decisions).expect("a history is short")
}

fn is_simpler(one: &Violation, other: &Violation) -> bool {
    let lengths = || one.choices.len().cmp(&other.choices.len());
    cost(one).cmp(&cost(other)).then_with(lengths).then_with(|| one.choices.cmp(&other.choices)) == Ordering::Less
}

impl Shrinker {
    /// Keeps the list if it is simpler and breaks the same rule. Returns whether it does.
    fn keeps(&mut self, choices: &[u64]) -> bool {
        if self.runs == 0 {
            return false;
        }
        self.runs -= 1;
        // One with more events costs more, and is not run to its end.
        let longest = cost(&self.best) + 1;
        match Simulation::run_within(longest, SimRng::replay(choices), self.mutation) {
            Err(found) if found.rule == self.best.rule && is_simpler(&found, &self.best) => {
                self.best = found;
                true
            }
            Ok(_) | Err(_) => false,
        }
    }

    /// Everything after some choice becomes 0.
    fn cut(&mut self) {
        let (mut needed, mut enough) = (0, self.best.choices.len());
        while needed < enough {
            let middle = usize::midpoint(needed, enough);
            let choices = self.best.choices[..middle.min(self.best.choices.len())].to_vec();
            if self.keeps(&choices) {
                enough = middle.min(self.best.choices.len());
            } else {
                needed = middle + 1;
            }
        }
    }

    fn delete(&mut self, size: usize) {
        let mut end = self.best.choices.len();
        while end >= size {
            let mut choices = self.best.choices.clone();
            choices.drain(end - size..end);
            self.keeps(&choices);
            end = (end - size).min(self.best.choices.len());
        }
    }

    fn set_to_zero(&mut self, size: usize) {
        let mut end = self.best.choices.len();
        while end >= size {
            let mut choices = self.best.choices.clone();
            let block = &mut choices[end - size..end];
            if block.iter().any(|choice| *choice != 0) {
                block.fill(0);
                self.keeps(&choices);
            }
            end = (end - size).min(self.best.choices.len());
        }
    }

    /// Each choice becomes as small as it can be by halving.
    fn lower(&mut self) {
        let mut index = 0;
        while let Some(&choice) = self.best.choices.get(index) {
            let (mut needed, mut enough) = (0, choice);
            while needed < enough {
                let middle = u64::midpoint(needed, enough);
                let mut choices = self.best.choices.clone();
                let Some(place) = choices.get_mut(index) else { return };
                *place = middle;
                if self.keeps(&choices) {
                    enough = middle;
                } else {
                    needed = middle + 1;
                }
            }
            index += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keeper::KeeperMutation;
    use crate::mutation::Mutation;

    #[test]
    fn a_history_that_breaks_a_rule_becomes_a_fifth_as_long_and_breaks_the_same_rule() {
        for mutation in [
            InjectedMutation::Context(Mutation::NoVerification),
            InjectedMutation::Keeper(KeeperMutation::MainAloneCounts),
        ] {
            // One that is long enough to be worth it.
            let mut found = (0..).filter_map(|seed| Simulation::run(SimRng::from_seed(seed), Some(mutation)).err());
            let found = found.find(|found| found.steps >= 2_000).expect("a rule is broken");
            let told = |choices: &[u64]| Simulation::told(SimRng::replay(choices), Some(mutation));
            let (rule, long, long_told) = (found.rule, found.choices.len(), told(&found.choices).len());
            let short = shrink(found, Some(mutation), 3_000);
            let short_told = told(&short.choices);
            println!(
                "{mutation:?}: {long} choices and {long_told} lines, shortened to {} and {}",
                short.choices.len(),
                short_told.len()
            );
            assert!(short.choices.len() * 5 <= long, "{} of {long} choices", short.choices.len());
            assert!(short_told.len() * 5 <= long_told, "{} of {long_told} lines", short_told.len());
            assert!(short_told.iter().any(|line| line.ends_with(&format!("VIOLATION: {rule}"))));
        }
    }
}
