//! Records that other programs change, and their collection.

use std::thread;
use std::time::Duration;

use ::mongodb::bson::oid::ObjectId;
use ::mongodb::bson::{DateTime, Document, doc};

use super::{MongodbPair, SHORTLY, elect};
use crate::harness::server::StoreServer;
use crate::harness::timing_verdict::{assert_in_time, retry_if_machine_slow};
use crate::harness::wait::{now, since, throughout, until};
use crate::harness::{ElectCmd, Measurements, Sandbox, Witness, few};
use crate::leases::{LEASE, TTL, asks_once, candidate, patient, written};
use crate::mongodb::server::{COLLECTION, Mongod, MongodOptions, SingleNodeReplicaSet};

/// Something that ends a leader's term from outside.
struct Tampering {
    what: &'static str,
    leaves: AfterTampering,
    act: fn(&Mongod, &Sandbox),
}

/// The state of the record afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AfterTampering {
    /// A free record: taken at once.
    Free,
    /// Nothing: whoever has seen a record waits for as long as its leader may count on it (S2).
    Nothing,
    /// The record names a leader that does not exist.
    Leader,
    /// A record of another program.
    Stranger,
}

fn cron() -> Document {
    doc! { "_id": "cron" }
}

fn set(mongod: &Mongod, sandbox: &Sandbox, fields: Document) {
    assert_eq!(mongod.update(sandbox, cron(), doc! { "$set": fields }), 1, "there is a record");
}

const TAMPERINGS: [Tampering; 8] = [
    Tampering {
        what: "record deleted",
        leaves: AfterTampering::Nothing,
        act: |mongod, sandbox| mongod.delete(sandbox, cron()),
    },
    Tampering {
        what: "collection dropped",
        leaves: AfterTampering::Nothing,
        act: |mongod, sandbox| drop(mongod.command(&sandbox.database(), doc! { "drop": COLLECTION })),
    },
    Tampering {
        what: "database dropped",
        leaves: AfterTampering::Nothing,
        act: |mongod, sandbox| drop(mongod.command(&sandbox.database(), doc! { "dropDatabase": 1 })),
    },
    Tampering {
        what: "record given to another",
        leaves: AfterTampering::Leader,
        act: |mongod, sandbox| set(mongod, sandbox, doc! { "leaderUUID": "00000000-0000-4000-8000-000000000000" }),
    },
    Tampering {
        what: "term raised",
        leaves: AfterTampering::Leader,
        act: |mongod, sandbox| assert_eq!(mongod.update(sandbox, cron(), doc! { "$inc": { "term": 1000_i64 } }), 1),
    },
    Tampering {
        what: "record freed",
        leaves: AfterTampering::Free,
        act: |mongod, sandbox| set(mongod, sandbox, doc! { "state": "free" }),
    },
    Tampering {
        what: "record replaced by another program's",
        leaves: AfterTampering::Stranger,
        act: |mongod, sandbox| assert_eq!(mongod.update(sandbox, cron(), doc! { "name": "mine", "value": 5 }), 1),
    },
    Tampering {
        what: "a field of the record removed",
        leaves: AfterTampering::Stranger,
        act: |mongod, sandbox| assert_eq!(mongod.update(sandbox, cron(), doc! { "$unset": { "state": 1 } }), 1),
    },
];

impl Tampering {
    /// A leader and a waiter; then it is done. The leader is killed as soon as it learns. The next one may have been quicker:
    /// whoever lays hands on records has the term.
    fn is_done(&self, server: &impl StoreServer, mongod: &Mongod, lease: Duration) -> Duration {
        let MongodbPair { sandbox, leader, next } = MongodbPair::on(server, &written(lease));
        let led = sandbox.history().latest();
        let end = sandbox.watch_the_end_of(led.pid);
        let struck = now();
        (self.act)(mongod, &sandbox);
        let ended = end.join().expect("the watch on the old tree").saturating_sub(struck);
        // A server that is slow at that moment says nothing until the lease has run out.
        until("the leader has learned", || {
            ["leadership lost: killing the command", "the lease runs out"]
                .iter()
                .any(|said| leader.log().contains(said))
        });
        match self.leaves {
            AfterTampering::Nothing | AfterTampering::Free => {}
            AfterTampering::Leader => mongod.delete(&sandbox, cron()),
            AfterTampering::Stranger => {
                next.wait_for_log("not elect's");
                let late = asks_once(&sandbox, server.url_for(&sandbox)).witness(&Witness::new()).run();
                assert_eq!(late.status.code(), Some(75), "{}: {late:?}", self.what);
                late.stderr_contains(&["not elect's"]);
                assert_in_time(sandbox.history().starts.len() == 1, || "it has led again meanwhile".to_owned());
                mongod.delete(&sandbox, cron());
            }
        }
        sandbox.starts(2);
        next.terminate();
        leader.terminate();
        let terms: Vec<u64> = sandbox.history().starts.iter().map(|start| start.term).collect();
        assert!(terms.is_sorted_by(|one, next| one < next), "{}: {terms:?}", self.what);
        until("nothing is left", || sandbox.running().is_empty());
        ended
    }
}

/// Eight pairs on one server: each tampering is repeated on its own if the machine was too slow for them all.
fn is_killed_within_a_lease<S: StoreServer>(asked: fn(&S) -> &Mongod) {
    let server = S::start();
    thread::scope(|scope| {
        let server = &server;
        let all = TAMPERINGS.map(|tampering| {
            scope.spawn(move || {
                retry_if_machine_slow(&format!("{}: {}", S::NAME, tampering.what), LEASE, |lease| {
                    let once = || tampering.is_done(server, asked(server), lease);
                    let endings = (0..few().min(10)).map(|_| once()).collect();
                    let measurements = Measurements { endings, ..Measurements::default() };
                    measurements.print(&format!("{}: ttl {}, {}", S::NAME, written(lease), tampering.what));
                    let latest = measurements.endings.iter().max().copied().unwrap_or_default();
                    assert_in_time(latest < lease, || format!("{}: {latest:?}", tampering.what));
                });
            })
        });
        for one in all {
            one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    });
}

#[test]
fn a_leader_whose_record_is_laid_hands_on_is_killed_with_its_next_renewal() {
    is_killed_within_a_lease::<SingleNodeReplicaSet>(|set| set);
}

#[test]
fn on_a_server_alone_a_leader_whose_record_is_laid_hands_on_is_killed_with_its_next_renewal() {
    is_killed_within_a_lease::<Mongod>(|mongod| mongod);
}

#[test]
fn what_others_write_beside_the_election_changes_nothing() {
    let server = SingleNodeReplicaSet::start();
    let pair = MongodbPair::patient(&server);
    let edits = [
        doc! { "ttlExpire": DateTime::from_millis(0) },
        doc! { "ttlExpire": DateTime::from_millis(4_000_000_000_000) },
        doc! { "leaderName": "somebody", "leaderHostname": "elsewhere", "leaderPort": 1 },
        doc! { "remark": "hands off" },
    ];
    for fields in edits {
        set(&server, &pair.sandbox, fields);
        let seq = || server.record(&pair.sandbox).map(|record| record.get("seq").cloned());
        let before = seq();
        until("a renewal", || seq() != before);
    }
    throughout(LEASE, "it goes on leading", || pair.sandbox.history().starts.len() == 1);
    server.insert(&pair.sandbox, doc! { "_id": 5, "of": "another program" });
    server.insert(&pair.sandbox, doc! { "_id": "", "of": "another program" });
    let all = ElectCmd::new(&pair.sandbox).store(server.url_for(&pair.sandbox)).status(&[]).run();
    assert!(all.status.success() && all.stdout.contains("cron"), "{all:?}");
    pair.ends();
}

#[test]
fn numbers_that_were_turned_into_others_of_the_same_value_are_read() {
    let server = SingleNodeReplicaSet::start();
    let pair = MongodbPair::patient(&server);
    let doubles = doc! { "$set": { "term": { "$toDouble": "$term" }, "ttlMs": { "$toDouble": "$ttlMs" } } };
    assert_eq!(server.update(&pair.sandbox, cron(), vec![doubles.clone()]), 1);
    throughout(LEASE, "it goes on leading", || pair.sandbox.history().starts.len() == 1);
    assert_eq!(server.update(&pair.sandbox, cron(), vec![doubles]), 1);
    let MongodbPair { sandbox, leader, next } = pair;
    leader.terminate();
    sandbox.starts(2);
    next.terminate();
    sandbox.history().is_safe();
}

#[test]
fn records_of_newer_formats_and_of_other_programs_are_left_alone_and_said_so() {
    let server = Mongod::start();
    let predecessors = doc! {
        "_id": "cron", "leaderUUID": "5f0c1c7e-5d0d-4c57-9f5b-3a53f1c3d3a1", "leaderHostname": "h", "leaderPort": 1_i64,
        "ttlExpire": DateTime::from_millis(1),
    };
    let sandbox = Sandbox::new();
    candidate(&sandbox, server.url_for(&sandbox)).command(["true"]).run();
    let mut newer = server.record(&sandbox).expect("a record");
    newer.insert("version", 99);
    for (record, said) in [(predecessors, &["not elect's"][..]), (newer, &["format 99", "upgrade"])] {
        let sandbox = Sandbox::new();
        server.insert(&sandbox, record.clone());
        let ended = asks_once(&sandbox, server.url_for(&sandbox)).witness(&Witness::new()).run();
        assert_eq!(ended.status.code(), Some(75), "{ended:?}");
        ended.stderr_contains(said);
        let seen = ElectCmd::new(&sandbox).store(server.url_for(&sandbox)).status(&["cron"]).run();
        assert_eq!(seen.status.code(), Some(3), "{seen:?}");
        assert!(said.iter().all(|said| seen.stdout.contains(said)), "{seen:?}");
        assert_eq!(server.record(&sandbox), Some(record), "left as it was");
        assert!(sandbox.history().starts.is_empty());
    }
}

/// As mongoelector writes it.
fn record_of_mongoelector() -> Document {
    doc! {
        "_id": "cron", "leaderUUID": ObjectId::new(), "leaderHostname": "web-7", "leaderPort": 8080_i64,
        "ttlExpire": DateTime::from_millis(1),
    }
}

#[test]
fn an_election_of_mongoelector_is_named_and_neither_written_to_nor_led_beside() {
    let server = Mongod::start();
    for collection in [COLLECTION, "Elector"] {
        let sandbox = Sandbox::new();
        let record = record_of_mongoelector();
        let documents = [record.clone()];
        server.command(&sandbox.database(), doc! { "insert": collection, "documents": documents.to_vec() });
        let find = doc! { "find": collection, "filter": { "_id": "cron" } };
        let stored = || server.command(&sandbox.database(), find.clone()).to_string();
        let waiter = elect(&sandbox, &server, TTL).start();
        waiter.wait_for_log("mongoelector's, in which web-7:8080 leads");
        let once = asks_once(&sandbox, server.url_for(&sandbox)).witness(&Witness::new()).run();
        assert_eq!(once.status.code(), Some(75), "{once:?}");
        let seen = ElectCmd::new(&sandbox).store(server.url_for(&sandbox)).status(&["cron"]).run();
        assert!(seen.stdout.contains("mongoelector's, in which web-7:8080 leads"), "{seen:?}");
        assert!(sandbox.history().starts.is_empty(), "{collection}");
        let id = record.get_object_id("leaderUUID").expect("its id").to_hex();
        assert!(stored().contains(&id), "left as it was: {}", stored());
        let deletion = doc! { "delete": collection, "deletes": [{ "q": { "_id": "cron" }, "limit": 1 }] };
        server.command(&sandbox.database(), deletion);
        sandbox.starts(1);
        waiter.terminate();
        sandbox.history().is_safe();
    }
}

#[test]
fn an_election_of_mongoelector_that_comes_later_keeps_no_waiter_from_its_leader() {
    let server = Mongod::start();
    let sandbox = Sandbox::new();
    let leader = elect(&sandbox, &server, TTL).start();
    sandbox.starts(1);
    let waiter = elect(&sandbox, &server, TTL).start();
    waiter.wait_until_waiting();
    let documents = [record_of_mongoelector()];
    server.command(&sandbox.database(), doc! { "insert": "Elector", "documents": documents.to_vec() });
    throughout(SHORTLY, "it knows its leader", || !waiter.log().contains("mongoelector"));
    leader.terminate();
    waiter.wait_for_log("mongoelector's, in which web-7:8080 leads");
    assert_eq!(sandbox.history().starts.len(), 1);
    let deletion = doc! { "delete": "Elector", "deletes": [{ "q": { "_id": "cron" }, "limit": 1 }] };
    server.command(&sandbox.database(), deletion);
    sandbox.starts(2);
    waiter.terminate();
    sandbox.history().is_safe();
}

#[test]
fn an_index_of_another_kind_is_mentioned_and_keeps_nobody_from_leading() {
    let server = SingleNodeReplicaSet::start();
    let by_time = doc! { "ttlExpire": 1 };
    let indexes = [
        (doc! { "key": by_time.clone(), "name": "ttlExpire_1" }, None),
        (doc! { "key": { "term": 1 }, "name": "elect_unused" }, Some("elect_unused")),
        // As mongoelector makes it: it would clear away the record of a leader.
        (
            doc! { "key": by_time, "name": "ttlExpire_1", "expireAfterSeconds": 0 },
            Some("may remove the record of a leader"),
        ),
    ];
    for (index, said) in indexes {
        let sandbox = Sandbox::new();
        server.command(&sandbox.database(), doc! { "createIndexes": COLLECTION, "indexes": [index] });
        let start = || patient(&sandbox, server.url_for(&sandbox)).witness(&Witness::new()).start();
        let leader = start();
        sandbox.starts(1);
        if let Some(said) = said {
            leader.wait_for_log(said);
        }
        let next = start();
        next.wait_until_waiting();
        let stopped = now();
        leader.terminate();
        sandbox.starts(2);
        assert!(since(stopped) < Duration::from_secs(30), "{:?}", since(stopped));
        next.terminate();
        sandbox.history().is_safe();
    }
}

#[test]
fn an_index_that_endangers_records_is_mentioned_once_however_often_the_first_contact_fails() {
    let server = SingleNodeReplicaSet::with(&MongodOptions::new().with_faults());
    let sandbox = Sandbox::new();
    let index = doc! { "key": { "ttlExpire": 1 }, "name": "ttlExpire_1", "expireAfterSeconds": 0 };
    server.command(&sandbox.database(), doc! { "createIndexes": COLLECTION, "indexes": [index] });
    let unconfirmed = doc! { "code": 64, "errmsg": "waiting for replication timed out" };
    let data = doc! { "failCommands": ["update"], "appName": "elect", "writeConcernError": unconfirmed };
    server.admin(doc! { "configureFailPoint": "failCommand", "mode": { "times": 3 }, "data": data });
    let leader = elect(&sandbox, &server, TTL).start();
    sandbox.starts(1);
    let log = leader.log();
    assert!(log.contains("majority"), "{log}");
    assert_eq!(log.matches("may remove the record of a leader").count(), 1, "{log}");
    leader.terminate();
    sandbox.history().is_safe();
}

#[test]
fn boundaries_with_similar_names_are_different_boundaries() {
    let server = SingleNodeReplicaSet::start();
    let all = Sandbox::new();
    let names = ["a", "a.b", "a/b", "A", "$a", "ä"];
    let candidates = names.map(|boundary| {
        let sandbox = Sandbox::new();
        let elect = candidate(&sandbox, server.url_for(&all)).boundary(boundary).witness(&Witness::new());
        let candidate = elect.start();
        sandbox.starts(1);
        (sandbox, candidate)
    });
    let seen = ElectCmd::new(&all).store(server.url_for(&all)).status(&[]).run();
    let mut led: Vec<&str> = seen.stdout.lines().skip(1).filter_map(|line| line.split(' ').next()).collect();
    led.sort_unstable();
    assert_eq!(led, ["$a", "A", "a", "a.b", "a/b", "ä"], "{seen:?}");
    for (sandbox, candidate) in candidates {
        candidate.terminate();
        sandbox.history().is_safe();
    }
}
