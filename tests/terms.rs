//! One boundary that moves from store to store: the terms of all stores are in one number space (S1), so that whatever compares
//! terms, like README's fence, accepts each new leader and no earlier one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use ::mongodb::bson::doc;

use crate::harness::etcd::EtcdServer;
use crate::harness::mongod::SingleNodeReplicaSet;
use crate::harness::redis::RedisServer;
use crate::harness::server::StoreServer;
use crate::harness::{ElectCmd, Sandbox, Witness, docs_under_test, host_tools};

const TTL: &str = "3s";

/// A database with README's fence, and a script that writes into it while it leads.
struct Fence {
    sandbox: Sandbox,
}

impl Fence {
    fn new() -> Fence {
        let fence = Fence { sandbox: Sandbox::new() };
        fence.sql(&docs_under_test::read("recipes/fence.sql"));
        let script = fence.script();
        fs::write(&script, docs_under_test::read("recipes/ledger.sh")).expect("written");
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("executable");
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
struct Stores {
    file: String,
    etcd: EtcdServer,
    redis: RedisServer,
    mongodb: SingleNodeReplicaSet,
}

impl Stores {
    fn start(sandbox: &Sandbox) -> Stores {
        Stores {
            file: sandbox.store(),
            etcd: EtcdServer::start(),
            redis: RedisServer::start(),
            mongodb: SingleNodeReplicaSet::start(),
        }
    }

    /// File → etcd → Redis → MongoDB → etcd → file.
    fn route(&self) -> [String; 6] {
        let (etcd, file) = (self.etcd.url(), &self.file);
        [file.clone(), etcd.clone(), self.redis.url(), self.mongodb.url(), etcd, file.clone()]
    }
}

#[test]
fn terms_rise_while_a_boundary_moves_from_store_to_store_and_the_fence_accepts_each_leader() {
    let fence = Fence::new();
    let stores = Stores::start(&fence.sandbox);
    let mut terms: Vec<u64> = Vec::new();
    for store in stores.route() {
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
    println!("figures: file, etcd, redis, mongodb, etcd, file: {terms:?}");
}

/// With a waiter in each store: the move is a stop here and a start there.
#[test]
fn terms_rise_while_candidates_wait_in_each_store_that_the_boundary_moves_to() {
    let sandbox = Sandbox::new();
    let stores = Stores::start(&sandbox);
    let candidate = |store: &str| {
        ElectCmd::new(&sandbox).store(store.to_owned()).flag("--ttl", TTL).witness(&Witness::new()).start()
    };
    let mut starts = 0;
    for store in stores.route() {
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
    assert_eq!(history.starts.len(), 12);
    sandbox.is_left_empty();
}

/// A store that has forgotten the boundary, all of it, is one more store to which it moves.
#[test]
fn terms_rise_through_stores_that_have_forgotten_the_boundary() {
    let fence = Fence::new();
    let stores = Stores::start(&fence.sandbox);
    let mut last = 0;
    for round in 0..2 {
        for store in stores.route() {
            let term = fence.leads(&store);
            assert!(term > last, "term {term} at {store} came after {last}, in round {round}");
            last = term;
        }
        fs::remove_dir_all(fence.sandbox.locks()).expect("it was led there");
        stores.etcd.etcdctl(&["del", "", "--prefix"]);
        stores.redis.cli(&["flushall"]);
        stores.mongodb.command("elect", doc! { "dropDatabase": 1 });
    }
}
