//! Named successors beside programs that do not know of reservations.

use std::process::Stdio;
use std::time::Duration;

use super::keys::{Etcdctl, QueueScenario, status};
use super::shared_elections::{SharedElection, leader_id};
use crate::harness::wait::{eventually, throughout, until};
use crate::harness::{CandidateProcess, ElectCmd, Sandbox, Witness};

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
    let resigned = resign();
    assert_eq!(resigned.status.code(), Some(0), "{}", resigned.stderr);
    assert!(status(&scenario).contains("web-2 leads"), "{}", status(&scenario));
    scenario.sandbox.starts(2);
    other.stop();
    leader.terminate();
    successor.terminate();
    scenario.sandbox.history().is_safe();
}

/// With `?layout=exact` the keys of jobs/nightly are below jobs/, and count there, but they belong to another election.
#[test]
fn a_successor_is_not_named_past_or_in_a_nested_election_and_no_leader_of_it_is_stopped() {
    let outer = SharedElection::new("jobs", "jobs/", "?layout=exact");
    let l1 = outer.elect("web-1").start();
    outer.sandbox.starts(1);
    let nightly = |name: &str, sandbox: &Sandbox| {
        let elect = super::candidate(sandbox, outer.store()).boundary("jobs/nightly").flag("--name", name);
        elect.witness(&Witness::new()).start()
    };
    let sandbox = Sandbox::new();
    let n1 = nightly("n1", &sandbox);
    sandbox.starts(1);
    let n2 = nightly("n2", &sandbox);
    n2.wait_until_waiting();
    let l2 = outer.elect("l2").start();
    l2.wait_until_waiting();
    outer.queue_has(4);
    let id = leader_id(&outer);
    let resign = |to: &str| {
        let words = ["--boundary", "jobs", "--id", &id, "--to", to, "--within", "1s"];
        ElectCmd::new(&outer.sandbox).store(None).query("resign", &words).run()
    };
    resign("l2").fails_with(3, &["key jobs/nightly/", "of another election", "nothing was done"]);
    resign("n1").fails_with(3, &["n1"]);
    throughout(Duration::from_millis(500), "both lead on", || {
        outer.sandbox.history().ends.is_empty() && sandbox.history().ends.is_empty()
    });
    [n2, n1].into_iter().for_each(CandidateProcess::terminate);
    outer.queue_has(2);
    assert_eq!(resign("l2").status.code(), Some(0));
    outer.sandbox.starts(2);
    [l1, l2].into_iter().for_each(CandidateProcess::terminate);
    outer.sandbox.history().is_safe();
    sandbox.history().is_safe();
}
