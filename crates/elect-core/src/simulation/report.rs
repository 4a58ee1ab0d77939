//! One summary of all that a run has tried: random histories, single faults, pairs of faults.
//!
//! Three tests add their part, and the last of them prints the summary. `ELECT_SIMULATION_REPORT` names a file that gets it
//! as a line of JSON as well.

use std::fmt::Write as _;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::pairs::Counts;
use super::states::StateSet;

/// The histories that one test has tried.
#[derive(Debug, Clone, Default)]
pub(super) struct Part {
    pub counts: Counts,
    /// The distinct states that it has reached; random histories do not count theirs.
    pub states: StateSet,
    /// By the clock on the wall, on a machine that may be busy.
    pub took: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PartKind {
    Random,
    Singles,
    Pairs,
}

static PARTS: Mutex<Vec<(PartKind, Part)>> = Mutex::new(Vec::new());

/// Runs one part and adds it; the last one prints the summary.
pub(super) fn reported(kind: PartKind, run: impl FnOnce() -> Part) {
    let begun = now();
    let part = run();
    let took = now().duration_since(begun);
    let mut parts = PARTS.lock().expect("no test panics while it adds its part");
    parts.push((kind, Part { took, ..part }));
    let of = |kind| parts.iter().find(|(other, _)| *other == kind).map(|(_, part)| part);
    if let (Some(random), Some(singles), Some(pairs)) =
        (of(PartKind::Random), of(PartKind::Singles), of(PartKind::Pairs))
    {
        let summary = summary(random, singles, pairs);
        println!("{}", summary.told());
        if let Some(path) = std::env::var_os("ELECT_SIMULATION_REPORT") {
            std::fs::write(path, summary.json() + "\n").expect("ELECT_SIMULATION_REPORT can be written");
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "measures the tests, and no lease")]
fn now() -> Instant {
    Instant::now()
}

/// The names and values of the summary, in order.
struct Summary(Vec<(&'static str, u64)>);

fn summary(random: &Part, singles: &Part, pairs: &Part) -> Summary {
    let mut states = singles.states.hashes.clone();
    states.extend(&pairs.states.hashes);
    let parts = [random, singles, pairs];
    let run = |part: &Part| part.counts.histories - part.counts.repeated;
    let seconds: f64 = parts.iter().map(|part| part.took.as_secs_f64()).sum();
    let histories: u64 = parts.iter().map(|part| run(part)).sum();
    Summary(vec![
        ("random_histories", random.counts.histories),
        ("single_faults", singles.counts.histories),
        ("pairs", pairs.counts.histories),
        ("pairs_left_out", pairs.counts.left_out),
        ("pairs_same_as_another", pairs.counts.repeated),
        ("distinct_states", states.len() as u64),
        ("choices", parts.iter().map(|part| part.counts.choices).sum()),
        ("random_histories_per_second", per_second(random.counts.histories, random.took.as_secs_f64())),
        ("histories_per_second", per_second(histories, seconds)),
    ])
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rough number above zero")]
#[expect(clippy::cast_precision_loss, reason = "there are not that many histories")]
fn per_second(histories: u64, seconds: f64) -> u64 {
    (histories as f64 / seconds.max(0.001)).round() as u64
}

impl Summary {
    fn told(&self) -> String {
        let mut told = "simulation:".to_string();
        for (name, value) in &self.0 {
            let _ = write!(told, "\n{value:>12}  {}", name.replace('_', " "));
        }
        told
    }

    fn json(&self) -> String {
        let fields: Vec<String> = self.0.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        format!("{{{}}}", fields.join(","))
    }
}

#[test]
fn the_summary_adds_the_parts_and_is_one_line_of_json() {
    let part = |histories, repeated, states: &[u64]| {
        let counts = Counts { histories, left_out: 1, repeated, choices: 10 };
        let hashes = states.iter().copied().collect();
        Part { counts, states: StateSet { hashes, ..StateSet::default() }, took: Duration::from_secs(2) }
    };
    let json = summary(&part(100, 0, &[]), &part(20, 0, &[1, 2]), &part(30, 10, &[2, 3])).json();
    let value: serde_json::Value = serde_json::from_str(&json).expect("is JSON");
    assert_eq!((&value["random_histories"], &value["pairs_same_as_another"]), (&100.into(), &10.into()));
    assert_eq!((&value["distinct_states"], &value["choices"]), (&3.into(), &30.into()));
    assert_eq!((&value["random_histories_per_second"], &value["histories_per_second"]), (&50.into(), &23.into()));
    assert!(!json.contains('\n'));
}
