//! Programs that write large documents into the collection of the records: it costs bounded memory and no lease (DESIGN.md 2.5).

use ::mongodb::bson::{Document, doc};

use super::elect;
use crate::harness::resource_usage::is_small;
use crate::harness::server::StoreServer;
use crate::harness::wait::until;
use crate::harness::{ElectCmd, Sandbox};
use crate::mongodb::server::{Mongod, SingleNodeReplicaSet};

/// A little less than MongoDB accepts in one document.
const TEXT_BYTES: usize = 15 << 20;

fn cron() -> Document {
    doc! { "_id": "cron" }
}

fn renewals(mongod: &Mongod, sandbox: &Sandbox) -> i64 {
    mongod.record(sandbox).and_then(|record| record.get_i64("seq").ok()).expect("a record with a number")
}

#[track_caller]
fn renews(mongod: &Mongod, sandbox: &Sandbox) {
    let before = renewals(mongod, sandbox);
    until("the leader renews", || renewals(mongod, sandbox) > before + 2);
}

#[test]
fn large_documents_cost_candidates_and_observers_no_memory_and_no_lease() {
    let set = SingleNodeReplicaSet::start();
    let sandbox = Sandbox::new();
    let leader = elect(&sandbox, &set, "60s").flag("--renew", "1s").start();
    let led = sandbox.starts(1).latest();
    let waiter = elect(&sandbox, &set, "60s").start();
    waiter.wait_until_waiting();
    let watch = ElectCmd::new(&sandbox).store(set.url_for(&sandbox)).query("watch", &["cron"]).start();
    let watch_all = ElectCmd::new(&sandbox).store(set.url_for(&sandbox)).query("watch", &[]).start();
    until("both watch", || [&watch, &watch_all].iter().all(|watch| watch.output().contains("leads")));
    let all = [("leader", &leader), ("waiter", &waiter), ("watch", &watch), ("watch of all", &watch_all)];
    let text = "x".repeat(TEXT_BYTES);
    for number in 0..4 {
        let other = || doc! { "_id": format!("other-{number}") };
        set.insert(&sandbox, doc! { "_id": format!("other-{number}"), "text": &text });
        for field in ["state", "more"] {
            assert_eq!(set.update(&sandbox, other(), doc! { field: &text }), 1);
        }
        set.delete(&sandbox, other());
    }
    renews(&set, &sandbox);
    for (what, one) in all {
        is_small(&format!("mongodb: {what} beside documents of 15 MB"), one.pid());
    }
    // The record itself, with a field that is not elect's.
    assert_eq!(set.update(&sandbox, cron(), doc! { "$set": { "text": &text } }), 1);
    renews(&set, &sandbox);
    for (what, one) in all {
        is_small(&format!("mongodb: {what} of a record of 15 MB"), one.pid());
    }
    assert_eq!(sandbox.history().ends.len(), 0, "the leader stays");
    assert_eq!(set.update(&sandbox, cron(), doc! { "$unset": { "text": 1 } }), 1);
    leader.terminate();
    assert!(sandbox.starts(2).latest().term > led.term);
    waiter.terminate();
    sandbox.history().is_safe();
}
