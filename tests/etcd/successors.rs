//! Named successors beside programs that do not know of reservations.

use std::process::Stdio;

use super::keys::{Etcdctl, QueueScenario, status};
use crate::harness::wait::{eventually, until};
use crate::harness::{CandidateProcess, ElectCmd, Witness};

fn candidate(scenario: &QueueScenario, name: &str) -> CandidateProcess {
    scenario.candidate().flag("--name", name).witness(&Witness::new()).start()
}

/// `etcdctl elect` is a Go program on the package `clientv3/concurrency`: it keeps its place in the queue, whatever the leader's value
/// says, and would lead next. The leader sees it, and goes on to lead.
#[test]
fn a_go_program_that_waits_before_the_successor_is_named_and_nothing_is_stopped() {
    let scenario = QueueScenario::new();
    let leader = candidate(&scenario, "web-1");
    leader.wait_for_log("leader command started");
    let mut other = Etcdctl::elect(&scenario.etcd, &["/elect/cron", "go-1"], Stdio::null());
    until("the Go program stands in the queue", || scenario.queue().len() == 2);
    let other_key = scenario.key(1);
    let successor = candidate(&scenario, "web-2");
    successor.wait_until_waiting();
    until("the successor stands behind it", || scenario.queue().len() == 3);
    let words = ["--self", "cron", "--json"];
    let id = eventually("web-1 leads", || {
        let shown = ElectCmd::new(&scenario.sandbox).store(None).query("status", &words).run();
        let shown: serde_json::Value = serde_json::from_str(shown.stdout.trim()).ok()?;
        let leads = |one: &&serde_json::Value| one["name"] == "web-1" && one["is_leader"] == true;
        Some(shown.as_array()?.iter().find(leads)?["id"].as_str()?.to_owned())
    });
    let words = ["--boundary", "cron", "--id", &id, "--to", "web-2", "--within", "30s"];
    let resign = || ElectCmd::new(&scenario.sandbox).store(None).query("resign", &words).run();
    resign().fails_with(3, &["go-1", "waits before web-2", "nothing was done"]);
    assert_eq!(scenario.sandbox.history().ends.len(), 0, "the command was stopped");
    assert!(status(&scenario).contains("web-1 leads"), "{}", status(&scenario));
    // A successor before it is not in its way.
    other.stop();
    let has_left = |queue: &[String]| queue.len() == 2 && !queue.contains(&other_key);
    until("the Go program has left, and the successor has not", || has_left(&scenario.queue()));
    let mut other = Etcdctl::elect(&scenario.etcd, &["/elect/cron", "go-1"], Stdio::null());
    until("it stands behind the successor", || scenario.queue().len() == 3);
    assert_eq!(resign().status.code(), Some(0));
    assert!(status(&scenario).contains("web-2 leads"), "{}", status(&scenario));
    scenario.sandbox.starts(2);
    other.stop();
    leader.terminate();
    successor.terminate();
    scenario.sandbox.history().is_safe();
}
