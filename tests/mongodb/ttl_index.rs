//! The documents that stay in the collection, for people and for other programs, and those that expire.

use std::time::Duration;

use ::mongodb::bson::{Bson, DateTime, doc};

use super::elect;
use crate::harness::server::StoreServer;
use crate::harness::wait::{eventually, now, since, throughout, until};
use crate::harness::{ElectCmd, Sandbox, Witness};
use crate::leases::{candidate_for, patient};
use crate::mongodb::server::{MongodOptions, SingleNodeReplicaSet, has};

const DAY: i64 = 24 * 60 * 60 * 1000;

#[test]
fn a_record_reads_like_that_of_mongoelector() {
    let (set, sandbox) = (SingleNodeReplicaSet::start(), Sandbox::new());
    let leader = elect(&sandbox, &set, "3s").flag("--name", "web-1").flag("--advertise", "10.0.0.5:8080").start();
    let led = sandbox.starts(1).latest();
    let shown = || set.record(&sandbox).expect("a record of cron");
    let record = shown();
    println!("figures: mongodb: a record: {record}");
    assert!(has(&record, "_id", "cron"), "{record}");
    let id = record.get_str("leaderUUID").expect("a text");
    assert_eq!(id.len(), 36, "{record}");
    assert!(has(&record, "leaderHostname", "10.0.0.5"), "{record}");
    let port = record.get("leaderPort").and_then(|port| port.as_i64().or(port.as_i32().map(i64::from)));
    assert_eq!(port, Some(8080), "{record}");
    assert!(has(&record, "leaderName", "web-1"), "{record}");
    assert!(has(&record, "term", i64::try_from(led.term).expect("a term")), "{record}");
    // When the lease ends if it is not renewed, by the server's clock: both are this machine's.
    let left =
        record.get_datetime("ttlExpire").expect("a time").timestamp_millis() - DateTime::now().timestamp_millis();
    assert!((-3000..=3000).contains(&left), "{left} ms: {record}");
    let seen = ElectCmd::new(&sandbox).store(set.url_for(&sandbox)).status(&["cron", "--json"]).run();
    assert!(seen.stdout.contains(id), "{seen:?}");
    until("a renewal moves its end", || shown().get("ttlExpire") != record.get("ttlExpire"));
    leader.terminate();
    let free = shown();
    assert!(has(&free, "state", "free"), "{free}");
}

#[test]
fn a_boundary_that_was_abandoned_for_seven_days_is_cleared_away_and_no_other() {
    let set = SingleNodeReplicaSet::with(&MongodOptions::new().parameter("ttlMonitorSleepSecs", "1"));
    let sandbox = Sandbox::new();
    let ages = [("long-free", 8, "free"), ("free", 6, "free"), ("long-held", 8, "held"), ("just-free", 0, "free")];
    for (boundary, _, _) in ages {
        let ended = candidate_for(&sandbox, set.url_for(&sandbox), "2200ms").boundary(boundary).command(["true"]).run();
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    }
    let leader = patient(&sandbox, set.url_for(&sandbox)).witness(&Witness::new()).start();
    sandbox.starts(1);
    let highest = set.records(&sandbox).iter().filter_map(|record| record.get_i64("term").ok()).max();
    for (boundary, days, state) in ages {
        let then = DateTime::from_millis(DateTime::now().timestamp_millis() - days * DAY - 60_000);
        let found =
            set.update(&sandbox, doc! { "_id": boundary }, doc! { "$set": { "ttlExpire": then, "state": state } });
        assert_eq!(found, 1);
    }
    let known = || {
        let records = set.records(&sandbox);
        let names = records.iter().filter_map(|record| record.get_str("_id").ok().map(str::to_owned));
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    };
    until("the abandoned one is gone", || !known().contains(&"long-free".to_owned()));
    let kept = ["cron", "free", "just-free", "long-held"];
    throughout(Duration::from_secs(4), "the others stay", || known() == kept);
    assert_eq!(sandbox.history().starts.len(), 1);
    // The candidate that comes back leads at once.
    let began = now();
    let ended =
        candidate_for(&sandbox, set.url_for(&sandbox), "30s").boundary("long-free").shell("echo $ELECT_TERM").run();
    assert!(since(began) < Duration::from_secs(10), "{:?}", since(began));
    let term: i64 = ended.stdout.trim().parse().expect("a term");
    assert!(Some(term) > highest, "terms rise although it was forgotten: {term} after {highest:?}");
    leader.terminate();
}

#[test]
fn a_boundary_that_is_waited_for_is_cleared_away_like_a_free_one_and_only_then() {
    let set = SingleNodeReplicaSet::with(&MongodOptions::new().parameter("ttlMonitorSleepSecs", "1"));
    let sandbox = Sandbox::new();
    let leader = elect(&sandbox, &set, "30s").start();
    let led = sandbox.starts(1).latest();
    let next = elect(&sandbox, &set, "30s").start();
    next.wait_until_waiting();
    set.delete(&sandbox, doc! { "_id": "cron" });
    until("absence has become a version", || {
        set.record(&sandbox).is_some_and(|record| has(&record, "vacant", true) && has(&record, "state", "free"))
    });
    let vacant = set.record(&sandbox).expect("a record");
    assert!(has(&vacant, "term", i64::try_from(led.term).expect("a term")) && has(&vacant, "ttlMs", 30_000_i64));
    // To people nobody leads, and nobody has led.
    let seen = ElectCmd::new(&sandbox).store(set.url_for(&sandbox)).status(&["cron"]).run();
    assert!(seen.status.code() == Some(3) && seen.stdout.starts_with("cron: no leader\n"), "{seen:?}");
    throughout(Duration::from_secs(3), "the server keeps it", || set.record(&sandbox).is_some());
    leader.terminate();
    next.terminate();
    let then = DateTime::from_millis(DateTime::now().timestamp_millis() - 8 * DAY);
    assert_eq!(set.update(&sandbox, doc! { "_id": "cron" }, doc! { "$set": { "ttlExpire": then } }), 1);
    until("it is cleared away", || set.record(&sandbox).is_none());
}

#[test]
fn the_index_that_clears_away_looks_at_free_boundaries_alone() {
    let (set, sandbox) = (SingleNodeReplicaSet::start(), Sandbox::new());
    let leader = candidate_for(&sandbox, set.url_for(&sandbox), "3s").witness(&Witness::new()).start();
    sandbox.starts(1);
    let ours: Vec<_> = eventually("an index that expires records", || {
        let expiring = set.indexes(&sandbox).into_iter().filter(|index| index.contains_key("expireAfterSeconds"));
        Some(expiring.collect()).filter(|found: &Vec<_>| !found.is_empty())
    });
    assert_eq!(ours.len(), 1, "{ours:?}");
    let seconds = ours[0].get("expireAfterSeconds").and_then(|age| age.as_i64().or(age.as_i32().map(i64::from)));
    assert_eq!(seconds, Some(7 * DAY / 1000), "{ours:?}");
    let only = ours[0].get_document("partialFilterExpression").expect("a part of the records");
    assert_eq!(only.get("state"), Some(&Bson::from("free")), "{ours:?}");
    leader.terminate();
}
