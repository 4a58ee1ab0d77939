//! The report: a table for people, and flat JSON for programs.
//!
//! `report.json` is one object:
//!
//! | field | meaning |
//! |---|---|
//! | `seed` | of the matrix; with the cell's name and the number of the run it draws everything |
//! | `elect` | version of the program |
//! | `stores` | store → version of its server; of the file store: the kernel |
//! | `cells` | one object per cell, in the order of the table |
//!
//! Of a cell: `store`, `fault`, `tier`; `text` says what is done, `promise` what is promised; `not_applicable` is the reason why
//! there is no such cell, or null. `planned` and `runs` are numbers of runs, `overlaps`, `survivors`, `term_violations` and
//! `failures` sums over them; `overlap_allowed` is true where DESIGN.md 2.2 says that two may live for a moment, `kept` counts
//! runs in which the leader went on leading, `repeated` attempts for which the machine was too slow, and `no_verdict` runs in
//! which it was so three times; these are not among `runs`, and a resumed matrix runs them again. `gone_median_ms`,
//! `gone_p99_ms`, `gone_max_ms`: from the fault to the end of the old tree; `next_…`: to the start of the next command. Both
//! count from the repair where nothing can happen before it, and from the stop where the leader went on. Runs that were repeated
//! had a longer lease and are left out of the times. Null: not measured.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde::Serialize;

use super::cell::{Cell, Promise};
use super::outcome::Outcome;
use crate::harness::candidate;
use crate::harness::host_tools::attempt;
use crate::harness::store_fixtures::StoreEntry;

#[derive(Debug, Serialize)]
pub struct Report {
    seed: u64,
    elect: String,
    stores: BTreeMap<&'static str, String>,
    pub cells: Vec<CellReport>,
}

#[derive(Debug, Serialize)]
pub struct CellReport {
    store: &'static str,
    fault: &'static str,
    tier: &'static str,
    text: &'static str,
    promise: &'static str,
    not_applicable: Option<&'static str>,
    planned: usize,
    runs: usize,
    overlaps: usize,
    overlap_allowed: bool,
    survivors: usize,
    term_violations: usize,
    failures: usize,
    kept: usize,
    repeated: u32,
    no_verdict: usize,
    gone_median_ms: Option<f64>,
    gone_p99_ms: Option<f64>,
    gone_max_ms: Option<f64>,
    next_median_ms: Option<f64>,
    next_p99_ms: Option<f64>,
    next_max_ms: Option<f64>,
    #[serde(skip)]
    first_failure: Option<String>,
}

impl Outcome {
    /// A violation that no slowness of the machine explains.
    pub fn is_unsafe(&self, promise: Promise) -> bool {
        (self.overlaps > 0 && !promise.allows_overlap()) || self.survivors > 0 || self.term_violations > 0
    }

    pub fn is_a_violation(&self, promise: Promise) -> bool {
        self.is_unsafe(promise) || self.failure.is_some()
    }
}

impl Report {
    /// `runs` instead of the planned number, if it is given.
    pub fn of(cells: &[Cell], outcomes: &[Outcome], seed: u64, runs: Option<usize>) -> Report {
        let elect = candidate::elect().display().to_string();
        let mut stores = BTreeMap::new();
        for cell in cells {
            stores.entry(cell.store.name).or_insert_with(|| version_of(cell.store));
        }
        Report {
            seed,
            elect: attempt([elect.as_str(), "--version"]).map_or_else(|fault| fault, |said| said.trim().to_owned()),
            stores,
            cells: cells.iter().map(|cell| CellReport::of(cell, outcomes, runs)).collect(),
        }
    }

    /// The names of the cells in which a promise was broken, each with the reason that its first failure gives.
    pub fn violations(&self) -> Vec<String> {
        let broken = self.cells.iter().filter(|cell| cell.is_violated());
        let described = broken.map(|cell| {
            let failure = cell.first_failure.as_deref().filter(|_| !cell.is_unsafe());
            let reason = failure.unwrap_or("see the table");
            format!("{}/{}/{}: {reason}", cell.store, cell.fault, cell.tier)
        });
        described.collect()
    }

    /// Runs for which the machine was too slow each time.
    pub fn without_verdict(&self) -> usize {
        self.cells.iter().map(|cell| cell.no_verdict).sum()
    }

    /// `report.txt` and `report.json`.
    pub fn write(&self, directory: &Path) {
        let json = serde_json::to_string_pretty(self).expect("plain data") + "\n";
        let written = fs::write(directory.join("report.json"), json);
        let written = written.and_then(|()| fs::write(directory.join("report.txt"), self.table()));
        written.expect("the directory of the report");
    }

    pub fn table(&self) -> String {
        let mut text = format!("{}, seed {}", self.elect, self.seed);
        for (store, version) in &self.stores {
            write!(text, ", {store} {version}").expect("a string takes all");
        }
        text.push_str("\nTimes in ms: median / p99 / maximum\n\n");
        writeln!(
            text,
            "{:<8} {:<27} {:<7} {:>9} {:>8} {:>5} {:>5} {:>5} {:>5} {:>4} {:>4}  {:<24} {:<24}",
            "store",
            "fault",
            "tier",
            "runs",
            "overlaps",
            "surv.",
            "terms",
            "fail.",
            "kept",
            "rep.",
            "n.v.",
            "gone",
            "next"
        )
        .expect("a string takes all");
        for cell in &self.cells {
            writeln!(text, "{}", cell.line()).expect("a string takes all");
        }
        text
    }
}

impl CellReport {
    fn of(cell: &Cell, outcomes: &[Outcome], runs: Option<usize>) -> CellReport {
        let name = cell.to_string();
        let (own, open): (Vec<&Outcome>, Vec<&Outcome>) =
            outcomes.iter().filter(|outcome| outcome.cell == name).partition(|outcome| outcome.no_verdict.is_none());
        let finished: HashSet<usize> = own.iter().map(|outcome| outcome.run).collect();
        let open: HashSet<usize> = open.iter().map(|outcome| outcome.run).collect();
        let sum = |count: fn(&Outcome) -> usize| own.iter().map(|outcome| count(outcome)).sum();
        // A repeated run had a longer lease.
        let timed = own.iter().filter(|outcome| outcome.repeated == 0);
        let gone = Times::of(timed.clone().filter_map(|outcome| outcome.gone_ms));
        let next = Times::of(timed.filter_map(|outcome| outcome.next_ms));
        let planned = runs.filter(|_| cell.obstacle().is_none()).unwrap_or_else(|| cell.planned_runs());
        CellReport {
            store: cell.store.name,
            fault: cell.fault.name,
            tier: cell.tier,
            text: cell.fault.text,
            promise: cell.promise().text(),
            not_applicable: cell.obstacle(),
            planned,
            runs: own.len(),
            overlaps: sum(|outcome| outcome.overlaps),
            overlap_allowed: cell.promise().allows_overlap(),
            survivors: sum(|outcome| outcome.survivors),
            term_violations: sum(|outcome| outcome.term_violations),
            failures: sum(|outcome| usize::from(outcome.failure.is_some())),
            kept: sum(|outcome| usize::from(outcome.kept)),
            repeated: own.iter().map(|outcome| outcome.repeated).sum(),
            no_verdict: open.difference(&finished).count(),
            gone_median_ms: gone.quantile(50),
            gone_p99_ms: gone.quantile(99),
            gone_max_ms: gone.quantile(100),
            next_median_ms: next.quantile(50),
            next_p99_ms: next.quantile(99),
            next_max_ms: next.quantile(100),
            first_failure: own.iter().find_map(|outcome| outcome.failure.clone()),
        }
    }

    fn is_unsafe(&self) -> bool {
        let overlaps = if self.overlap_allowed { 0 } else { self.overlaps };
        overlaps + self.survivors + self.term_violations > 0
    }

    fn is_violated(&self) -> bool {
        self.is_unsafe() || self.failures > 0
    }

    fn line(&self) -> String {
        let mut line = format!("{:<8} {:<27} {:<7} ", self.store, self.fault, self.tier);
        if let Some(reason) = self.not_applicable {
            return line + "not applicable: " + reason;
        }
        let times = |times: [Option<f64>; 3]| match times {
            [Some(median), Some(p99), Some(max)] => format!("{median:.0} / {p99:.0} / {max:.0}"),
            [None, _, _] | [_, None, _] | [_, _, None] => "-".to_owned(),
        };
        let overlaps = format!("{}{}", self.overlaps, if self.overlap_allowed { "*" } else { "" });
        write!(
            line,
            "{:>9} {:>8} {:>5} {:>5} {:>5} {:>5} {:>4} {:>4}  {:<24} {:<24}",
            format!("{}/{}", self.runs, self.planned),
            overlaps,
            self.survivors,
            self.term_violations,
            self.failures,
            self.kept,
            self.repeated,
            self.no_verdict,
            times([self.gone_median_ms, self.gone_p99_ms, self.gone_max_ms]),
            times([self.next_median_ms, self.next_p99_ms, self.next_max_ms]),
        )
        .expect("a string takes all");
        line.trim_end().to_owned()
    }
}

fn version_of(store: &StoreEntry) -> String {
    (store.version)().unwrap_or_else(|fault| format!("unknown: {}", fault.trim()))
}

/// Milliseconds, sorted.
struct Times(Vec<f64>);

impl Times {
    fn of(times: impl Iterator<Item = f64>) -> Times {
        let mut times: Vec<f64> = times.collect();
        times.sort_by(f64::total_cmp);
        Times(times)
    }

    /// The smallest time that so many of a hundred do not exceed.
    fn quantile(&self, percent: usize) -> Option<f64> {
        let rank = (self.0.len() * percent).div_ceil(100);
        self.0.get(rank.max(1) - 1).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault_matrix::cell::all_cells;

    #[test]
    fn a_report_sums_the_runs_of_each_cell_and_finds_what_is_broken() {
        let cells = all_cells();
        let good = cells.iter().find(|cell| cell.promise() == Promise::AtOnce).expect("there is one");
        let brief = cells.iter().find(|cell| cell.promise() == Promise::BriefOverlap).expect("there is one");
        let run = |cell: &Cell, run: usize, overlaps| {
            let time = f64::from(u32::try_from(run).expect("small"));
            Outcome { cell: cell.to_string(), run, overlaps, gone_ms: Some(time), ..Outcome::default() }
        };
        let mut outcomes: Vec<Outcome> = (0..200).map(|number| run(good, number, 0)).collect();
        outcomes.push(Outcome { repeated: 1, gone_ms: Some(9999.0), ..run(good, 200, 0) });
        outcomes.push(run(brief, 0, 1));
        let report = Report::of(&cells, &outcomes, 7, None);
        assert_eq!(report.violations(), [""; 0], "an overlap that is allowed is none");
        let cell = report.cells.iter().find(|cell| cell.runs == 201).expect("the runs are counted");
        assert_eq!(cell.gone_median_ms.zip(cell.gone_p99_ms).zip(cell.gone_max_ms), Some(((99.0, 197.0), 199.0)));
        outcomes.push(run(good, 201, 1));
        assert_eq!(Report::of(&cells, &outcomes, 7, None).violations(), [format!("{good}: see the table")]);
        let failed = Outcome { failure: Some("a wait in vain".to_owned()), ..run(brief, 1, 0) };
        outcomes.push(failed);
        let broken = Report::of(&cells, &outcomes, 7, None).violations();
        assert_eq!(broken, [format!("{good}: see the table"), format!("{brief}: a wait in vain")]);
    }

    #[test]
    fn a_cell_that_does_not_exist_says_why() {
        let report = Report::of(&all_cells(), &[], 7, None);
        assert!(
            report.table().contains("not applicable: the store has no network and no server"),
            "{}",
            report.table()
        );
    }
}
