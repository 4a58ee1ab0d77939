//! The simulation: whole elections with faults of every kind, from a list of choices, in true time.
//!
//! Every candidate is the real [`Candidate`](super::Candidate), and every keeper decides with the real
//! [`KeeperMachine`](super::KeeperMachine). Everything around them is a model: a boot clock with an offset and a rate of
//! its own, timers that fire late, both shells, a host with processes that may be stubborn, a network that loses,
//! delays, doubles and reorders, and a store of one of three kinds. All chance is a list of `choices`, drawn from a seed
//! or replayed, so a history that fails can be repeated step by step, and shortened (`shrink`).
//!
//! ```text
//! setup ──▶ simulation ──▶ event, event … ──▶ quiet: all faults end ──▶ settled: one candidate leads, and stays leader
//!             │         └ after each: invariants, wait_check (--wait and --no-wait), restart_check (restarts and holds),
//!             │           follower_check (followers and hooks), request_check (the control socket)
//!             ├ host: campaigner (driver_model) · keeper (keeper_shell) · processes (host_model, command) · clock
//!             ├ network ─▶ store: queue (like etcd) · record (5.3), lasting or not · lock (no ttl)
//!             └ faults
//! ```
//!
//! The candidate of an observed store uses the program's own `takeover` rule.
//!
//! The invariants are computed from the events of the model, in true time, and never from the core's own state. The
//! situations that must occur at least once in a run are counted in `coverage`, and `mutations` breaks each rule once on
//! purpose.
//!
//! `exploration` and `pairs` choose no fault by chance: they try every single fault of one hand-over, and every pair of
//! faults, on a grid (P6).
//!
//! `ELECT_HISTORIES=100000 cargo test no_history` runs that many; `ELECT_SEED=7 cargo test no_history -- --nocapture`
//! prints one, and `ELECT_CHOICES='…'` replays one.
//!
//! Not simulated, by DESIGN.md 2.2: campaigner and keeper of one host out of action at once (except with the
//! lock, which outlives both), whole hosts frozen, clocks further apart than the margin, records deleted by hand.

mod choices;
mod clock;
mod clock_rates;
mod command;
mod coverage;
mod driver_model;
mod eligibility_check;
mod exploration;
mod faults;
mod follower_check;
mod health_check;
mod host;
mod host_model;
mod invariants;
mod keeper_shell;
mod lock_store;
mod mutations;
mod network;
mod pairs;
mod pairs_progress;
mod preexisting_children;
mod queue_store;
mod record_store;
mod regressions;
mod report;
mod request_check;
mod restart_check;
mod run;
mod setup;
mod shrink;
mod states;
mod store;
mod transcript;
mod wait_check;

use std::path::Path;

use choices::SimRng;
use clock::ms;
use coverage::Coverage;
use faults::Fault;
use run::{Simulation, Violation};
use setup::{Setup, StoreModel};

/// How many histories an ordinary test run goes through.
const HISTORIES: u64 = 10_000;

/// How many runs may be spent on shortening a history that fails.
const SHRINKING_RUNS: u32 = 20_000;

#[test]
fn no_history_breaks_a_rule_and_everything_that_can_go_wrong_has() {
    let one = std::env::var("ELECT_CHOICES").map(|list| SimRng::replay(&choices::read(&list)));
    if let Some(rng) = one.ok().or_else(|| number("ELECT_SEED").map(SimRng::from_seed)) {
        let choices = Simulation::draw(rng, None).play().0.rng.taken().to_vec();
        println!("{}", Simulation::told(SimRng::replay(&choices), None).join("\n"));
        println!("choices: {}", choices::written(&choices));
        Simulation::run(SimRng::replay(&choices), None).unwrap_or_else(|found| fail(None, found));
        return;
    }
    let mut coverage = Coverage::new();
    let histories = number("ELECT_HISTORIES").unwrap_or(HISTORIES);
    report::reported(report::PartKind::Random, || {
        let mut part = report::Part::default();
        for seed in 0..histories {
            let history = Simulation::run(SimRng::from_seed(seed), None);
            let history = history.unwrap_or_else(|found| fail(Some(seed), found));
            coverage.add(&history.coverage);
            part.counts.histories += 1;
            part.counts.choices += history.rng.count() as u64;
        }
        part
    });
    println!("{histories} histories\n{coverage}");
    assert!(histories < HISTORIES || coverage.missing().is_empty(), "never happened: {:?}", coverage.missing());
}

#[test]
fn a_recorded_list_of_choices_replays_the_same_history() {
    for seed in [3, 4, 1_717] {
        let drawn = Simulation::draw(SimRng::from_seed(seed), None).play().0;
        let choices = drawn.rng.taken();
        let told = Simulation::told(SimRng::from_seed(seed), None);
        assert_eq!(Simulation::told(SimRng::replay(choices), None), told);
        let replayed = Simulation::draw(SimRng::replay(choices), None).play().0;
        assert_eq!((replayed.rng.taken(), replayed.rng.count()), (choices, drawn.rng.count()));
    }
}

#[test]
fn the_leader_stops_and_hands_over_a_queue() {
    let mut setup = Setup::plain(StoreModel::Queue, 2, ms(7_500));
    setup.faults = vec![(ms(5_000), Fault::Ask(0))];
    compare("handover_queue.txt", &setup);
}

#[test]
fn the_leader_stops_and_hands_over_a_record() {
    let mut setup = Setup::plain(StoreModel::Record, 2, ms(17_500));
    setup.faults = vec![(ms(15_000), Fault::Ask(0))];
    compare("handover_record.txt", &setup);
}

#[test]
fn a_killed_campaigner_hands_over_at_once() {
    let mut setup = Setup::plain(StoreModel::Queue, 2, ms(3_500));
    setup.faults = vec![(ms(3_000), Fault::KillCampaigner(0))];
    compare("killed_campaigner.txt", &setup);
}

#[test]
fn a_leader_that_is_cut_off_has_stopped_before_the_next_one_starts() {
    let mut setup = Setup::plain(StoreModel::Queue, 2, ms(16_000));
    setup.faults = vec![(ms(3_000), Fault::Cut(0, faults::Direction::Both))];
    compare("cut_off.txt", &setup);
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

/// Shortens the history that has failed, and tells it.
fn fail(seed: Option<u64>, found: Violation) -> Simulation {
    let Violation { rule, choices, .. } = shrink::shrink(found, None, SHRINKING_RUNS);
    let told = Simulation::told(SimRng::replay(&choices), None);
    let last = told[told.len().saturating_sub(200)..].join("\n");
    let seed = seed.map(|seed| format!("seed {seed}: ")).unwrap_or_default();
    panic!("{seed}{rule}\n{last}\nELECT_CHOICES='{}'", choices::written(&choices));
}

/// A readable history that is checked in; `UPDATE=1` rewrites it.
fn compare(name: &str, setup: &Setup) {
    let told = Simulation::transcript(setup).join("\n") + "\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/simulation/golden").join(name);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &told).expect("can be written");
    }
    let expected = std::fs::read_to_string(&path).expect("is checked in; UPDATE=1 writes it");
    assert!(told == expected, "{name} has changed; UPDATE=1 writes it anew. Told now:\n{told}");
    assert!(!told.contains("VIOLATION"));
}
