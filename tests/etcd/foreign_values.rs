//! Values that nobody expects: too large, too new, from before, from other programs, or made up.

use std::process::Stdio;

use super::asks_once;
use super::keys::{Etcdctl, QueueScenario, status};
use crate::harness::wait::{eventually, throughout, until};
use crate::harness::{ElectCmd, Witness};

const KEY: &str = "/elect/cron/1f";

/// With all that a candidate does about a leader that it sees.
fn curious(scenario: &QueueScenario) -> ElectCmd {
    let told = scenario.sandbox.path().join("told").display().to_string();
    let note = |what: &str| format!("echo {what} ${{#ELECT_LEADER_NAME}} ${{#ELECT_LEADER_HOST}} >>{told}");
    let follow = format!("{}; exec sleep 1000", note("follow"));
    scenario.candidate().flag("--follower", &follow).flag("--on-change", &note("change")).witness(&Witness::new())
}

fn told(scenario: &QueueScenario) -> String {
    std::fs::read_to_string(scenario.sandbox.path().join("told")).unwrap_or_default()
}

/// A candidate waits while this value is there, says so, is well, and leads once it is gone.
#[track_caller]
fn waits_for(value: &str, said: &str) -> String {
    let scenario = QueueScenario::new();
    scenario.etcd.put_candidate(KEY, value);
    let waiter = curious(&scenario).start();
    waiter.wait_for_log("waiting: ");
    assert!(waiter.log().contains(said), "{said:?}: {}", waiter.log());
    assert!(waiter.log().lines().all(|line| line.len() < 2_000), "{}", waiter.log());
    assert!(!waiter.log().contains('\u{1b}'), "{}", waiter.log());
    let shown = status(&scenario);
    assert!(shown.len() < 4_000 && !shown.contains('\u{1b}'), "{shown}");
    let ended = asks_once(&scenario.sandbox, scenario.etcd.url()).command(["true"]).run();
    assert_eq!(ended.status.code(), Some(75), "{ended:?}");
    throughout(super::LEASE, "it waits", || scenario.sandbox.history().starts.is_empty());
    scenario.etcd.etcdctl(&["del", KEY]);
    scenario.sandbox.starts(1);
    waiter.terminate();
    told(&scenario)
}

#[test]
fn a_value_of_a_hundred_thousand_bytes_ends_no_candidate() {
    let told = waits_for(&"x".repeat(100_000), "100000 bytes");
    assert!(!told.contains("follow"), "it is no leader: {told}");
}

#[test]
fn a_name_and_a_host_that_nearly_fill_a_value_are_cut() {
    let long = "n".repeat(7_000);
    let value = format!(
        r#"{{"version":2,"id":"x","name":"{long}","host":"{long}","port":80,"ttl":18446744073709551615,"term":5,"since":1}}"#
    );
    let told = waits_for(&value, "nnnn");
    assert!(told.contains("follow 256 256"), "{told}");
}

#[test]
fn the_proposal_of_another_program_counts_as_a_leader_and_is_cut() {
    let told = waits_for(&"p".repeat(16_000), "pppp");
    assert!(told.contains("follow 256 0"), "{told}");
}

#[test]
fn a_newer_format_is_waited_for_and_its_holder_is_named() {
    waits_for(
        r#"{"version":99,"id":"x","name":"fut\u001b[2Jure"}"#,
        "ure\" (key /elect/cron/1f) writes records of format 99",
    );
}

#[test]
fn an_id_that_is_too_long_is_waited_for() {
    let id = "i".repeat(65);
    let value =
        format!(r#"{{"version":2,"id":"{id}","name":"web-1","host":"h","port":null,"ttl":3000,"term":5,"since":1}}"#);
    waits_for(&value, "\"web-1\" (key /elect/cron/1f) has an id of 65 bytes");
}

#[test]
fn a_term_that_is_not_believed_is_waited_for() {
    let value =
        r#"{"version":2,"id":"x","name":"web-1","host":"h","port":null,"ttl":3000,"term":9007199254740991,"since":1}"#;
    waits_for(value, "\"web-1\" (key /elect/cron/1f) leads under term 9007199254740991");
}

#[test]
fn a_candidate_of_elect_0_1_0_is_waited_for_as_a_leader() {
    let value = r#"{"version":1,"id":"x","name":"old","host":"h","port":null,"ttl":3000,"term":5,"since":1}"#;
    let told = waits_for(value, "waiting: old leads");
    assert!(told.contains("follow 3 1"), "{told}");
}

#[test]
fn a_scheme_that_nobody_knows_is_waited_for() {
    let value =
        r#"{"version":2,"id":"x","name":"web-1","host":"h","port":null,"ttl":3000,"scheme":"moon","term":5,"since":1}"#;
    waits_for(value, "?term=moon");
}

#[test]
fn the_oldest_candidate_is_no_leader_before_its_key_shows_a_term() {
    let value = r#"{"version":2,"id":"x","name":"web-1","host":"h","port":null,"ttl":3000}"#;
    let scenario = QueueScenario::new();
    scenario.etcd.put_candidate(KEY, value);
    let waiter = curious(&scenario).start();
    waiter.wait_for_log("waiting: nobody leads yet");
    assert!(status(&scenario).contains("no leader"), "{}", status(&scenario));
    let verified = value.replace("3000", r#"3000,"term":5,"since":1"#);
    scenario.etcd.put_candidate(KEY, &verified);
    waiter.wait_for_log("waiting: web-1 leads");
    eventually("it follows", || told(&scenario).contains("follow 5 1").then_some(()));
    scenario.etcd.etcdctl(&["del", KEY]);
    scenario.sandbox.starts(1);
    waiter.terminate();
}

#[test]
fn an_obstacle_that_comes_while_a_candidate_waits_makes_it_leave_the_queue() {
    let scenario = QueueScenario::new();
    scenario.etcd.put_candidate(KEY, "somebody");
    let waiter = curious(&scenario).start();
    waiter.wait_for_log("waiting: somebody leads");
    until("it stands in the queue", || scenario.queue().len() == 2);
    scenario.etcd.put_candidate(KEY, r#"{"version":3,"id":"x","name":"newer"}"#);
    waiter.wait_for_log("format 3");
    until("it has left the queue", || scenario.queue().len() == 1);
    scenario.etcd.put_candidate(KEY, "somebody");
    until("it queues again", || scenario.queue().len() == 2);
    scenario.etcd.etcdctl(&["del", KEY]);
    scenario.sandbox.starts(1);
    waiter.terminate();
}

#[test]
fn a_waiter_that_cannot_be_read_hides_no_leader() {
    let scenario = QueueScenario::new();
    let leader = scenario.candidate().flag("--name", "web-1").witness(&Witness::new()).start();
    scenario.sandbox.starts(1);
    scenario.etcd.put_candidate(KEY, r#"{"version":99,"id":"x","name":"future"}"#);
    let shown = status(&scenario);
    assert!(shown.contains("web-1 leads"), "{shown}");
    leader.terminate();
}

#[test]
fn a_record_of_another_program_that_looks_like_ours_is_shown_as_a_name() {
    let scenario = QueueScenario::new();
    let _other = Etcdctl::elect(&scenario.etcd, &["/elect/cron", r#"{"version":7}"#], Stdio::null());
    until("it leads", || scenario.queue().len() == 1);
    assert!(status(&scenario).contains(r#"{"version":7} leads"#), "{}", status(&scenario));
}
