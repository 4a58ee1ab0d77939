//! Histories that have failed once, as lists of choices: the first that each run replays.
//!
//! Each line of `regressions.txt` names a mutation, a rule that the history breaks with it, and the list, shortened. With
//! the mutation the history must break the same rule, without it none. The line of a failure of elect itself names `none`:
//! its history must not fail again.
//!
//! A change of the model or of the candidate may turn a list into another history. `UPDATE=1` then looks for new ones.

use std::fmt::Write as _;
use std::path::Path;

use super::choices::{self, SimRng};
use super::mutations::{InjectedMutation, RULES};
use super::run::Simulation;
use super::shrink::shrink;

const RECORDED: &str = include_str!("regressions.txt");
const FILE: &str = "src/simulation/regressions.txt";
/// The runs that may be spent on shortening one history.
const SHRINKING_RUNS: u32 = 3_000;

struct Recorded<'a> {
    /// `None` for a failure of elect itself.
    mutation: Option<InjectedMutation>,
    rule: &'a str,
    choices: Vec<u64>,
}

impl Recorded<'_> {
    fn read(line: &str) -> Recorded<'_> {
        let mut parts = line.split(" | ");
        let (Some(name), Some(rule), Some(list)) = (parts.next(), parts.next(), parts.next()) else {
            panic!("a mutation, a rule and a list in every line: {line}");
        };
        let named = |mutation: &InjectedMutation| format!("{mutation:?}") == name;
        let mutation = RULES.iter().map(|(mutation, ..)| *mutation).find(named);
        assert!(mutation.is_some() || name == "none", "no mutation is named {name}");
        Recorded { mutation, rule, choices: choices::read(list) }
    }

    fn written(mutation: InjectedMutation, rule: &str, choices: &[u64]) -> String {
        format!("{mutation:?} | {rule} | {}", choices::written(choices))
    }

    /// Replays it. Returns the rule that it breaks with the mutation.
    fn breaks(&self) -> Option<&'static str> {
        Simulation::run(SimRng::replay(&self.choices), self.mutation).err().map(|found| found.rule)
    }

    /// Looks for a history that the same mutation breaks, and shortens it.
    fn renewed(mutation: InjectedMutation) -> String {
        let found = (0..).find_map(|seed| Simulation::run(SimRng::from_seed(seed), Some(mutation)).err());
        let short = shrink(found.expect("a rule is broken"), Some(mutation), SHRINKING_RUNS);
        Recorded::written(mutation, short.rule, &short.choices)
    }
}

#[test]
fn a_history_that_has_failed_once_fails_with_its_mutation_alone() {
    let mut renewed = String::new();
    let is_renewed = std::env::var_os("UPDATE").is_some();
    for line in RECORDED.lines() {
        if line.starts_with('#') {
            let _ = writeln!(renewed, "{line}");
            continue;
        }
        let recorded = Recorded::read(line);
        let sound = Simulation::run(SimRng::replay(&recorded.choices), None).map_err(|found| found.rule);
        let broken = recorded.mutation.is_none() || recorded.breaks() == Some(recorded.rule);
        let (true, Some(mutation)) = (is_renewed && !(broken && sound.is_ok()), recorded.mutation) else {
            assert_eq!(sound.err(), None, "without a mutation: {line}");
            assert!(broken, "not noticed any more; UPDATE=1 looks for another history: {line}");
            let _ = writeln!(renewed, "{line}");
            continue;
        };
        let _ = writeln!(renewed, "{}", Recorded::renewed(mutation));
    }
    if is_renewed {
        std::fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE), renewed).expect("can be written");
    }
}
