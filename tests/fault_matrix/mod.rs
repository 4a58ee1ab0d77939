//! The matrix of faults: every fault of DESIGN.md 2.1 and 2.2 on every store in every tier of containment, on real processes
//! and servers (P2, P3, P5).
//!
//! `tests/matrix` runs it with the numbers that it is given; a plain test run does a fixed part of the cells once.
//!
//! ```text
//! Settings ── cells ── runner: tasks, side by side ── Course (one run) ── Outcome (a line of JSON) ── Report
//!                              └─ Sites: shared servers, servers of their own
//! ```

mod cell;
mod course;
mod faults;
mod outcome;
mod report;
mod runner;
mod sites;
mod soak;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cell::Cell;
use runner::Settings;
use soak::SoakSettings;

use crate::harness::{Sandbox, store_fixtures};

/// Where `tests/matrix` leaves its report, if it is not told otherwise.
fn default_directory() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("matrix")
}

/// A setting of `tests/matrix`.
fn setting(name: &str) -> Option<String> {
    std::env::var(format!("MATRIX_{name}")).ok().filter(|value| !value.is_empty())
}

fn number<T: std::str::FromStr>(name: &str) -> Option<T> {
    setting(name).map(|text| text.parse().unwrap_or_else(|_| panic!("MATRIX_{name} is not a number: {text:?}")))
}

#[test]
#[ignore = "tests/matrix runs it: hours"]
fn the_matrix_that_the_environment_describes() {
    let directory = setting("DIRECTORY").map_or_else(default_directory, PathBuf::from);
    let settings = Settings {
        runs: number("RUNS"),
        jobs: number("JOBS").unwrap_or(8),
        seed: number("SEED").unwrap_or_else(|| fastrand::u64(0..1_000_000_000)),
        fault: setting("FAULT"),
        store: setting("STORE"),
        tier: setting("TIER"),
        results: setting("RESUME").map_or_else(|| directory.join("results.jsonl"), PathBuf::from),
        directory,
    };
    let report = runner::run(&settings, &settings.cells());
    println!("{}", report.table());
    assert_eq!(report.violations(), [""; 0], "broken: see {}", settings.directory.join("failures").display());
}

#[test]
#[ignore = "tests/matrix --list runs it"]
fn the_cells_of_the_matrix_are_listed() {
    for cell in cell::all_cells() {
        let promise = cell.obstacle().map_or_else(|| cell.promise().text().to_owned(), |why| format!("none: {why}"));
        println!("{cell}: {}: {promise}", cell.fault.text);
    }
}

fn soak(settings: &SoakSettings, directory: &Path) {
    let sandbox = Sandbox::new();
    let report = soak::run(settings, &sandbox);
    println!("figures: soak: {report:?}");
    let json = serde_json::to_string_pretty(&report).expect("plain data") + "\n";
    let name = format!("soak-{}.json", settings.store.name);
    let written = fs::create_dir_all(directory).and_then(|()| fs::write(directory.join(name), json));
    written.expect("the directory of the report");
    assert_eq!(report.violations(), 0, "{report:?}\n{}", sandbox.evidence());
}

#[test]
#[ignore = "tests/matrix soak runs it"]
fn the_soak_that_the_environment_describes() {
    let name = setting("STORE").unwrap_or_else(|| "file".to_owned());
    let store = store_fixtures::entries().find(|entry| entry.name == name);
    let settings = SoakSettings {
        store: store.unwrap_or_else(|| panic!("there is no store {name}")),
        length: Duration::from_secs(number("SECONDS").unwrap_or(600)),
        seed: number("SEED").unwrap_or_else(|| fastrand::u64(0..1_000_000_000)),
        tier: setting("TIER"),
    };
    soak(&settings, &setting("DIRECTORY").map_or_else(default_directory, PathBuf::from));
}

#[test]
fn candidates_that_are_struck_at_random_never_overlap() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let settings =
        SoakSettings { store: crate::STORES[0], length: Duration::from_secs(10), seed: fastrand::u64(..), tier: None };
    soak(&settings, directory.path());
}

/// The faults that other suites do not cover on every store, each once.
const SHORT: [&str; 9] = [
    "main-killed",
    "campaigner-stopped",
    "cut-requests",
    "server-restarted",
    "server-stopped",
    "clock-forward",
    "clock-back",
    "stuck",
    "frozen",
];

#[test]
fn a_fixed_part_of_the_matrix_holds() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let settings = Settings {
        runs: Some(1),
        jobs: 6,
        seed: 1,
        fault: Some(SHORT.join(",")),
        store: None,
        tier: None,
        results: directory.path().join("results.jsonl"),
        directory: directory.path().to_owned(),
    };
    let cells: Vec<Cell> = settings.cells().into_iter().filter(|cell| cell.is_default_tier).collect();
    let report = runner::run(&settings, &cells);
    println!("figures: {}", report.table());
    assert_eq!(report.without_verdict(), 0, "{}", report.table());
    assert_eq!(report.violations(), [""; 0], "{}", report.table());
}
