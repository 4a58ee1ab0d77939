//! One boundary that moves from store to store: the terms of all stores are in one number space (S1), so that whatever compares
//! terms, like the fence of the recipes, accepts each new leader and no earlier one.

use std::path::PathBuf;

use crate::harness::executables;
use crate::harness::store_fixtures::{FixtureStore, start_all};
use crate::harness::{ElectCmd, Sandbox, Witness, docs_under_test, host_tools};

/// That every store takes.
const TTL: &str = "5s";
/// That is not lost on a busy machine.
const LONG_TTL: &str = "12s";

/// A database with the fence of the recipes, and a script that writes into it while it leads.
struct Fence {
    sandbox: Sandbox,
}

impl Fence {
    fn new() -> Fence {
        let fence = Fence { sandbox: Sandbox::new() };
        fence.sql(&docs_under_test::read("recipes/fence.sql"));
        let script = fence.script();
        executables::script(&script, &docs_under_test::read("recipes/ledger.sh"));
        fence
    }

    fn script(&self) -> PathBuf {
        self.sandbox.path().join("ledger.sh")
    }

    fn database(&self) -> String {
        self.sandbox.path().join("database").display().to_string()
    }

    #[track_caller]
    fn sql(&self, text: &str) -> String {
        host_tools::attempt(["sqlite3", &self.database(), text]).expect("sqlite3: tests/run installs it")
    }

    /// A leader writes, and ends. Returns its term.
    #[track_caller]
    fn leads(&self, store: &str) -> u64 {
        let elect = ElectCmd::new(&self.sandbox).boundary("billing").store(store.to_owned()).flag("--ttl", TTL);
        let ended = elect.variable("DATABASE", &self.database()).command([self.script()]).run();
        assert_eq!(ended.status.code(), Some(0), "the fence accepts the leader at {store}: {ended:?}");
        let term = self.sql("SELECT term FROM ledger ORDER BY rowid DESC LIMIT 1");
        term.trim().parse().expect("a term")
    }

    /// A leader of an earlier term was frozen, and thaws.
    #[track_caller]
    fn refuses(&self, term: u64) {
        let script = self.script().display().to_string();
        let late = ElectCmd::new(&self.sandbox).program([script]).variable("DATABASE", &self.database());
        let late = late.variable("ELECT_TERM", &term.to_string()).run();
        assert_eq!(late.status.code(), Some(1), "{late:?}");
        assert!(late.stderr.contains(&format!("term {term} is over")), "{late:?}");
    }
}

/// Of every kind, and none of them knows of another.
struct Stores(Vec<Box<dyn FixtureStore>>);

impl Stores {
    fn start() -> Stores {
        Stores(start_all())
    }

    /// From the file store to each of the others in turn, and back to the first two.
    fn route(&self, sandbox: &Sandbox) -> Vec<String> {
        let there = self.0.iter().chain([&self.0[1], &self.0[0]]);
        there.map(|store| store.url(sandbox)).collect()
    }
}

#[test]
fn terms_rise_while_a_boundary_moves_from_store_to_store_and_the_fence_accepts_each_leader() {
    let fence = Fence::new();
    let stores = Stores::start();
    let mut terms: Vec<u64> = Vec::new();
    for store in stores.route(&fence.sandbox) {
        // The second one follows the first in the same store.
        for _ in 0..2 {
            let term = fence.leads(&store);
            if let Some(&last) = terms.last() {
                assert!(term > last, "term {term} at {store} came after {terms:?}");
                fence.refuses(last);
            }
            terms.push(term);
        }
    }
    assert_eq!(fence.sql("SELECT count(*) FROM ledger").trim(), terms.len().to_string());
    println!("figures: {}: {terms:?}", stores.0.iter().map(|store| store.name()).collect::<Vec<_>>().join(", "));
}

/// With a waiter in each store: the move is a stop here and a start there.
#[test]
fn terms_rise_while_candidates_wait_in_each_store_that_the_boundary_moves_to() {
    let sandbox = Sandbox::new();
    let stores = Stores::start();
    let candidate = |store: &str| {
        ElectCmd::new(&sandbox).store(store.to_owned()).flag("--ttl", LONG_TTL).witness(&Witness::new()).start()
    };
    let mut starts = 0;
    for store in stores.route(&sandbox) {
        let leader = candidate(&store);
        starts += 1;
        sandbox.starts(starts);
        let waiter = candidate(&store);
        waiter.wait_until_waiting();
        leader.terminate();
        starts += 1;
        sandbox.starts(starts);
        waiter.terminate();
    }
    let history = sandbox.history();
    history.is_safe();
    assert_eq!(history.starts.len(), starts);
    sandbox.is_left_empty();
}

/// A store that has forgotten the boundary, all of it, is one more store to which it moves.
#[test]
fn terms_rise_through_stores_that_have_forgotten_the_boundary() {
    let fence = Fence::new();
    let stores = Stores::start();
    let mut last = 0;
    for round in 0..2 {
        for store in stores.route(&fence.sandbox) {
            let term = fence.leads(&store);
            assert!(term > last, "term {term} at {store} came after {last}, in round {round}");
            last = term;
        }
        for store in &stores.0 {
            store.forget(&fence.sandbox);
        }
    }
}
