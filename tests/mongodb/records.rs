//! What other hands do to records, and to the collection they are in.

use std::thread;
use std::time::Duration;

use ::mongodb::bson::{DateTime, Document, doc};

use super::{Pair, elect};
use crate::harness::mongod::{COLLECTION, Mongod, SetOfOne};
use crate::harness::server::Server;
use crate::harness::wait::{now, since, throughout, until};
use crate::harness::{Elect, Figures, Place, Witness, few};
use crate::leases::{LEASE, TTL, candidate, candidate_for};

/// Something that ends a leader's term from outside.
struct Deed {
    what: &'static str,
    leaves: Left,
    act: fn(&Mongod, &Place),
}

/// What is there afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    /// A free record: taken at once.
    Free,
    /// Nothing: whoever has seen a record waits for as long as its leader may count on it (S2).
    Nothing,
    /// Somebody who does not exist seems to lead.
    Leader,
    /// Something that is none of our business.
    Stranger,
}

fn cron() -> Document {
    doc! { "_id": "cron" }
}

fn set(mongod: &Mongod, place: &Place, fields: Document) {
    assert_eq!(mongod.update(place, cron(), doc! { "$set": fields }), 1, "there is a record");
}

const DEEDS: [Deed; 8] = [
    Deed { what: "record deleted", leaves: Left::Nothing, act: |mongod, place| mongod.delete(place, cron()) },
    Deed {
        what: "collection dropped",
        leaves: Left::Nothing,
        act: |mongod, place| drop(mongod.command(&place.database(), doc! { "drop": COLLECTION })),
    },
    Deed {
        what: "database dropped",
        leaves: Left::Nothing,
        act: |mongod, place| drop(mongod.command(&place.database(), doc! { "dropDatabase": 1 })),
    },
    Deed {
        what: "record given to another",
        leaves: Left::Leader,
        act: |mongod, place| set(mongod, place, doc! { "leaderUUID": "00000000-0000-4000-8000-000000000000" }),
    },
    Deed {
        what: "term raised",
        leaves: Left::Leader,
        act: |mongod, place| assert_eq!(mongod.update(place, cron(), doc! { "$inc": { "term": 1000_i64 } }), 1),
    },
    Deed {
        what: "record freed",
        leaves: Left::Free,
        act: |mongod, place| set(mongod, place, doc! { "state": "free" }),
    },
    Deed {
        what: "record replaced by another program's",
        leaves: Left::Stranger,
        act: |mongod, place| assert_eq!(mongod.update(place, cron(), doc! { "name": "mine", "value": 5 }), 1),
    },
    Deed {
        what: "a field of the record removed",
        leaves: Left::Stranger,
        act: |mongod, place| assert_eq!(mongod.update(place, cron(), doc! { "$unset": { "state": 1 } }), 1),
    },
];

impl Deed {
    /// A leader and a waiter; then it is done. The leader is killed as soon as it learns. The next one may have been quicker:
    /// whoever lays hands on records has the term.
    fn is_done(&self, server: &impl Server, mongod: &Mongod, ttl: &str) -> Duration {
        let Pair { place, leader, next } = Pair::on(server, ttl);
        let led = place.history().latest();
        let end = place.watch_the_end_of(led.pid);
        let struck = now();
        (self.act)(mongod, &place);
        let ended = end.join().expect("the watch on the old tree").saturating_sub(struck);
        leader.says("leadership lost: killing the leader command");
        match self.leaves {
            Left::Nothing | Left::Free => {}
            Left::Leader => mongod.delete(&place, cron()),
            Left::Stranger => {
                next.says("not elect's");
                let late = candidate(&place, server.url_for(&place)).switch("-n").witness(&Witness::new()).run();
                assert_eq!(late.status.code(), Some(75), "{}: {late:?}", self.what);
                late.says(&["not elect's"]);
                assert_eq!(place.history().starts.len(), 1, "nobody leads");
                mongod.delete(&place, cron());
            }
        }
        // A wait of a minute is not awaited.
        if ttl == TTL || self.leaves == Left::Free {
            place.starts(2);
        }
        next.stops();
        leader.stops();
        let terms: Vec<u64> = place.history().starts.iter().map(|start| start.term).collect();
        assert!(terms.is_sorted_by(|one, next| one < next), "{}: {terms:?}", self.what);
        until("nothing is left", || place.running().is_empty());
        ended
    }
}

fn is_killed_within<S: Server>(limit: Duration, ttl: &str, asked: fn(&S) -> &Mongod) {
    let server = S::start();
    thread::scope(|scope| {
        let server = &server;
        let all = DEEDS.map(|deed| {
            scope.spawn(move || {
                let endings = (0..few().min(10)).map(|_| deed.is_done(server, asked(server), ttl)).collect();
                (deed.what, Figures { endings, ..Figures::default() })
            })
        });
        for one in all {
            let (what, figures) = one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            figures.print(&format!("{}: ttl {ttl}, {what}", S::NAME));
            let latest = figures.endings.iter().max().copied().unwrap_or_default();
            assert!(latest < limit, "{what}: {latest:?}");
        }
    });
}

#[test]
fn a_leader_whose_record_is_laid_hands_on_is_killed_at_once() {
    // By the change stream: renewals are twelve seconds apart.
    is_killed_within::<SetOfOne>(Duration::from_secs(4), "60s", |set| set);
}

#[test]
fn on_a_server_alone_a_leader_whose_record_is_laid_hands_on_is_killed_with_its_next_renewal() {
    is_killed_within::<Mongod>(LEASE, TTL, |mongod| mongod);
}

#[test]
fn what_others_write_beside_the_election_changes_nothing() {
    let server = SetOfOne::start();
    let pair = Pair::on(&server, TTL);
    let edits = [
        doc! { "ttlExpire": DateTime::from_millis(0) },
        doc! { "ttlExpire": DateTime::from_millis(4_000_000_000_000) },
        doc! { "leaderName": "somebody", "leaderHostname": "elsewhere", "leaderPort": 1 },
        doc! { "remark": "hands off" },
    ];
    for fields in edits {
        set(&server, &pair.place, fields);
        let seq = || server.record(&pair.place).map(|record| record.get("seq").cloned());
        let before = seq();
        until("a renewal", || seq() != before);
    }
    throughout(LEASE, "it goes on leading", || pair.place.history().starts.len() == 1);
    server.insert(&pair.place, doc! { "_id": 5, "of": "another program" });
    server.insert(&pair.place, doc! { "_id": "", "of": "another program" });
    let all = Elect::new(&pair.place).store(server.url_for(&pair.place)).status(&[]).run();
    assert!(all.status.success() && all.stdout.contains("cron"), "{all:?}");
    pair.ends();
}

#[test]
fn numbers_that_were_turned_into_others_of_the_same_value_are_read() {
    let server = SetOfOne::start();
    let pair = Pair::on(&server, TTL);
    let doubles = doc! { "$set": { "term": { "$toDouble": "$term" }, "ttlMs": { "$toDouble": "$ttlMs" } } };
    assert_eq!(server.update(&pair.place, cron(), vec![doubles.clone()]), 1);
    throughout(LEASE, "it goes on leading", || pair.place.history().starts.len() == 1);
    assert_eq!(server.update(&pair.place, cron(), vec![doubles]), 1);
    let Pair { place, leader, next } = pair;
    leader.stops();
    place.starts(2);
    next.stops();
    place.history().is_safe();
}

#[test]
fn records_of_newer_formats_and_of_other_programs_are_left_alone_and_said_so() {
    let server = Mongod::start();
    let predecessors = doc! {
        "_id": "cron", "leaderUUID": "5f0c1c7e-5d0d-4c57-9f5b-3a53f1c3d3a1", "leaderHostname": "h", "leaderPort": 1_i64,
        "ttlExpire": DateTime::from_millis(1),
    };
    let place = Place::new();
    candidate(&place, server.url_for(&place)).command(["true"]).run();
    let mut newer = server.record(&place).expect("a record");
    newer.insert("version", 99);
    for (record, said) in [(predecessors, &["not elect's"][..]), (newer, &["format 99", "upgrade"])] {
        let place = Place::new();
        server.insert(&place, record.clone());
        let ended = elect(&place, &server, TTL).switch("-n").run();
        assert_eq!(ended.status.code(), Some(75), "{ended:?}");
        ended.says(said);
        let seen = Elect::new(&place).store(server.url_for(&place)).status(&["cron"]).run();
        assert_eq!(seen.status.code(), Some(3), "{seen:?}");
        assert!(said.iter().all(|said| seen.stdout.contains(said)), "{seen:?}");
        assert_eq!(server.record(&place), Some(record), "left as it was");
        assert!(place.history().starts.is_empty());
    }
}

#[test]
fn an_index_of_another_kind_is_mentioned_and_keeps_nobody_from_leading() {
    let server = SetOfOne::start();
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
        let place = Place::new();
        server.command(&place.database(), doc! { "createIndexes": COLLECTION, "indexes": [index] });
        let start = || candidate_for(&place, server.url_for(&place), TTL).witness(&Witness::new()).start();
        let leader = start();
        place.starts(1);
        if let Some(said) = said {
            leader.says(said);
        }
        let next = start();
        next.waits();
        let stopped = now();
        leader.stops();
        place.starts(2);
        assert!(since(stopped) < LEASE, "{:?}", since(stopped));
        next.stops();
        place.history().is_safe();
    }
}

#[test]
fn boundaries_with_similar_names_are_different_boundaries() {
    let server = SetOfOne::start();
    let all = Place::new();
    let names = ["a", "a.b", "a/b", "A", "$a", "ä"];
    let candidates = names.map(|boundary| {
        let place = Place::new();
        let elect = candidate(&place, server.url_for(&all)).boundary(boundary).witness(&Witness::new());
        let candidate = elect.start();
        place.starts(1);
        (place, candidate)
    });
    let seen = Elect::new(&all).store(server.url_for(&all)).status(&[]).run();
    let mut led: Vec<&str> = seen.stdout.lines().skip(1).filter_map(|line| line.split(' ').next()).collect();
    led.sort_unstable();
    assert_eq!(led, ["$a", "A", "a", "a.b", "a/b", "ä"], "{seen:?}");
    for (place, candidate) in candidates {
        candidate.stops();
        place.history().is_safe();
    }
}
