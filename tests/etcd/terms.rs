//! Terms: above all before them whatever becomes of the etcd, in the number space of all stores, or as revisions.

use std::process::Stdio;
use std::time::Duration;

use super::keys::{Etcdctl, QueueScenario, status};
use super::{LEASE, asks_once, candidate, candidate_for};
use crate::etcd::server::EtcdServer;
use crate::harness::wait::{now, since, throughout, until};
use crate::harness::wallclock::WallClock;
use crate::harness::{ElectCmd, Sandbox, Witness};

const TERM_KEY: &str = "elect.term//elect/cron/";

fn rise(sandbox: &Sandbox) {
    let terms: Vec<u64> = sandbox.history().starts.iter().map(|start| start.term).collect();
    assert!(terms.is_sorted_by(|one, next| one < next), "{terms:?}");
}

fn stored(etcd: &EtcdServer) -> Option<u64> {
    etcd.etcdctl(&["get", "--print-value-only", TERM_KEY]).trim().parse().ok()
}

/// A number that `etcdctl get` shows of a key.
fn field(etcd: &EtcdServer, key: &str, name: &str) -> u64 {
    let text = etcd.etcdctl(&["get", key, "-w", "fields"]);
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("\"{name}\" : ")));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).trim().parse().expect("a number")
}

#[test]
fn an_etcd_that_is_rebuilt_from_nothing_under_a_running_candidate_is_led_under_a_higher_term() {
    let scenario = QueueScenario::new();
    let leader = scenario.start();
    scenario.sandbox.starts(1);
    for count in 2..=3 {
        scenario.etcd.rebuild();
        scenario.sandbox.starts(count);
        rise(&scenario.sandbox);
    }
    leader.terminate();
}

#[test]
fn an_etcd_that_is_rebuilt_is_led_under_a_higher_term_by_those_who_waited_too() {
    let scenario = QueueScenario::new();
    let ahead = WallClock::new();
    ahead.step_to(3600);
    let first = scenario.candidate().witness(&Witness::new()).wrapped_by(ahead.words()).start();
    let led = scenario.sandbox.starts(1).latest();
    let second = scenario.start();
    second.wait_until_waiting();
    // Nothing but what the second one has seen tells it of that term: it has another clock.
    first.kill_with_keeper();
    scenario.etcd.rebuild();
    let next = scenario.sandbox.starts(2).latest();
    assert!(next.term > led.term, "{next:?} after {led:?}");
    assert_eq!(stored(&scenario.etcd), Some(next.term));
    second.terminate();
}

#[test]
fn an_etcd_that_is_restored_from_an_older_backup_is_led_under_higher_terms() {
    let scenario = QueueScenario::new();
    let ahead = WallClock::new();
    ahead.step_to(3600);
    let first = scenario.start();
    scenario.sandbox.starts(1);
    first.terminate();
    let snapshot = scenario.sandbox.path().join("snapshot");
    scenario.etcd.etcdctl(&["snapshot", "save", &snapshot.display().to_string()]);
    for round in 0..50 {
        scenario.etcd.etcdctl(&["put", "/elsewhere", &round.to_string()]);
    }
    let second = scenario.candidate().witness(&Witness::new()).wrapped_by(ahead.words()).start();
    scenario.sandbox.starts(2);
    let third = scenario.start();
    third.wait_until_waiting();
    second.terminate();
    scenario.sandbox.starts(3);
    scenario.etcd.restore(&snapshot);
    scenario.sandbox.starts(4);
    let fourth = scenario.start();
    fourth.wait_until_waiting();
    third.terminate();
    scenario.sandbox.starts(5);
    fourth.terminate();
    rise(&scenario.sandbox);
}

#[test]
fn terms_rise_when_a_boundary_moves_to_another_store_and_back() {
    let (sandbox, etcd) = (Sandbox::new(), EtcdServer::start());
    for (count, store) in (1..).zip([sandbox.store(), etcd.url(), sandbox.store(), etcd.url()]) {
        let leader = ElectCmd::new(&sandbox).store(store).witness(&Witness::new()).start();
        sandbox.starts(count);
        leader.terminate();
        rise(&sandbox);
    }
}

#[test]
fn the_last_term_is_read_when_a_waiter_is_the_oldest_and_kept_with_its_win() {
    let scenario = QueueScenario::new();
    let first = scenario.start_patient();
    let led = scenario.sandbox.starts(1).latest();
    let second = scenario.start_patient();
    second.wait_until_waiting();
    until("it stands in the queue", || scenario.queue().len() == 2);
    // By other hands, while it waits.
    let raised = led.term + 1_000_000_000;
    scenario.etcd.etcdctl(&["put", TERM_KEY, &raised.to_string()]);
    first.terminate();
    let next = scenario.sandbox.starts(2).latest();
    assert_eq!(next.term, raised + 1);
    assert_eq!(stored(&scenario.etcd), Some(next.term));
    // One transaction has one revision.
    assert_eq!(field(&scenario.etcd, TERM_KEY, "ModRevision"), field(&scenario.etcd, &scenario.key(0), "ModRevision"));
    // From here on the leader does not compare it any more.
    scenario.etcd.etcdctl(&["del", TERM_KEY]);
    throughout(LEASE, "it goes on leading", || scenario.sandbox.history().starts.len() == 2);
    let third = scenario.start_patient();
    third.wait_until_waiting();
    second.terminate();
    scenario.sandbox.starts(3);
    third.terminate();
    rise(&scenario.sandbox);
    scenario.sandbox.history().is_safe();
}

#[test]
fn a_last_term_that_is_not_believed_keeps_candidates_waiting() {
    let scenario = QueueScenario::new();
    for value in ["9007199254740991", "18446744073709551616", "-1", "twelve", "", "1\n2"] {
        scenario.etcd.etcdctl(&["put", TERM_KEY, "--", value]);
        let waiter = scenario.start();
        waiter.wait_for_log("no term that is believed");
        assert!(scenario.queue().is_empty(), "it does not stand");
        waiter.terminate();
    }
    let waiter = scenario.start();
    waiter.wait_for_log(TERM_KEY);
    scenario.etcd.etcdctl(&["del", TERM_KEY]);
    scenario.sandbox.starts(1);
    waiter.terminate();
}

#[test]
fn observers_are_shown_the_term_and_its_beginning_once_the_win_is_verified() {
    let scenario = QueueScenario::new();
    let watch = ElectCmd::new(&scenario.sandbox).store(scenario.etcd.url()).query("watch", &["cron", "--json"]).start();
    let first = scenario.start();
    scenario.sandbox.starts(1);
    let second = scenario.start();
    second.wait_until_waiting();
    first.terminate();
    let led = scenario.sandbox.starts(2).latest();
    let shown = ElectCmd::new(&scenario.sandbox).store(scenario.etcd.url()).status(&["cron", "--json"]).run().stdout;
    assert!(shown.contains(&format!("\"term\":{}", led.term)), "{shown}");
    until("the watcher is shown both", || watch.output().contains(&format!("\"term\":{}", led.term)));
    for line in watch.output().lines().filter(|line| line.contains("\"term\"") && !line.contains("\"leader\":null")) {
        assert!(!line.contains("\"since\":null") && !line.contains("\"term\":null"), "{line}");
    }
    second.terminate();
    drop(watch);
}

// ---- ?term=revision

fn by_revision(scenario: &QueueScenario) -> ElectCmd {
    candidate(&scenario.sandbox, format!("{}?term=revision", scenario.etcd.url())).witness(&Witness::new())
}

#[test]
fn terms_are_revisions_among_programs_that_count_so() {
    let scenario = QueueScenario::new();
    let mut other = Etcdctl::elect(&scenario.etcd, &["/elect/cron", "somebody else"], Stdio::null());
    until("it leads", || status(&scenario).contains("somebody else leads"));
    let asked =
        |url: &str| ElectCmd::new(&scenario.sandbox).store(url.to_owned()).status(&["cron", "--json"]).run().stdout;
    let created = field(&scenario.etcd, &scenario.key(0), "CreateRevision");
    let shown = asked(&format!("{}?term=revision", scenario.etcd.url()));
    assert!(shown.contains(&format!("\"term\":{created}")), "{shown}");
    // In the number space of all stores its term is not known.
    assert!(asked(&scenario.etcd.url()).contains("\"term\":null"));
    let ours = by_revision(&scenario).start();
    ours.wait_for_log("waiting: somebody else leads");
    other.stop();
    let led = scenario.sandbox.starts(1).latest();
    assert_eq!(led.term, field(&scenario.etcd, &scenario.key(0), "CreateRevision"));
    let next = by_revision(&scenario).start();
    next.wait_until_waiting();
    ours.terminate();
    let led = scenario.sandbox.starts(2).latest();
    assert_eq!(led.term, field(&scenario.etcd, &scenario.key(0), "CreateRevision"));
    assert_eq!(stored(&scenario.etcd), None, "nothing but candidates");
    next.terminate();
    rise(&scenario.sandbox);
}

#[test]
fn two_ways_of_counting_on_one_boundary_keep_out_of_each_others_way() {
    let scenario = QueueScenario::new();
    let revision = by_revision(&scenario).flag("--name", "counts-revisions").start();
    scenario.sandbox.starts(1);
    let usual = scenario.candidate().flag("--name", "counts-as-usual").witness(&Witness::new()).start();
    usual.wait_for_log("counts-revisions");
    assert!(usual.log().contains("?term=revision"), "{}", usual.log());
    let ended = asks_once(&scenario.sandbox, scenario.etcd.url()).command(["true"]).run();
    assert_eq!(ended.status.code(), Some(75), "{ended:?}");
    assert_eq!(scenario.queue().len(), 1, "the leader alone");
    revision.terminate();
    scenario.sandbox.starts(2);
    let revision = by_revision(&scenario).start();
    revision.wait_for_log("counts-as-usual");
    let ended = asks_once(&scenario.sandbox, format!("{}?term=revision", scenario.etcd.url())).command(["true"]).run();
    assert_eq!(ended.status.code(), Some(75), "{ended:?}");
    usual.terminate();
    // The last term stays, and is far above any revision.
    revision.wait_for_log(TERM_KEY);
    let began = now();
    throughout(LEASE, "it does not lead", || {
        scenario.sandbox.history().starts.len() == 2 && scenario.queue().is_empty()
    });
    assert!(since(began) >= LEASE);
    scenario.etcd.etcdctl(&["del", TERM_KEY]);
    // It has seen larger ones; another one has not.
    revision.wait_for_log("restart this candidate");
    let fresh = by_revision(&scenario).start();
    scenario.sandbox.starts(3);
    fresh.terminate();
    revision.terminate();
}

#[test]
fn a_revision_below_a_term_that_was_seen_leads_nothing() {
    let scenario = QueueScenario::new();
    for round in 0..50 {
        scenario.etcd.etcdctl(&["put", "/elsewhere", &round.to_string()]);
    }
    let leader = by_revision(&scenario).start();
    let led = scenario.sandbox.starts(1).latest();
    scenario.etcd.rebuild();
    leader.wait_for_log("before this etcd was rebuilt");
    throughout(LEASE, "it does not lead", || scenario.sandbox.history().starts.len() == 1);
    while field(&scenario.etcd, "/elsewhere", "Revision") <= led.term {
        scenario.etcd.etcdctl(&["put", "/elsewhere", ""]);
    }
    scenario.sandbox.starts(2);
    leader.terminate();
    rise(&scenario.sandbox);
}

// ---- what it costs

#[test]
fn a_run_costs_no_more_messages_than_before_terms_were_kept() {
    let scenario = QueueScenario::new();
    let runs = |options: &str| {
        let messages = || scenario.etcd.messages();
        let before = messages();
        let store = format!("{}{options}", scenario.etcd.url());
        let ended = asks_once(&scenario.sandbox, store).command(["true"]).run();
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
        let mut spent = messages();
        spent.retain(|_, count| *count > 0);
        for (method, count) in before {
            *spent.entry(method).or_default() -= count;
        }
        spent.retain(|method, count| *count > 0 && method != "Watch" && method != "Status");
        spent
    };
    // Two of them look for candidates in other layouts: before there is a key of ours, and before it leads.
    for (options, limit) in [("?others=ignore", 7), ("?others=ignore", 7), ("", 9)] {
        let spent = runs(options);
        println!("figures: etcd: messages of run -n -- true: {spent:?}");
        // Txn and LeaseGrant, Txn and LeaseKeepAlive, Txn and LeaseKeepAlive, LeaseRevoke.
        assert!(spent.values().sum::<u64>() <= limit, "{spent:?}");
    }
    // A minute outlasts every delay, and a renewal is due as often as with a ttl of 3 s.
    let leader = candidate_for(&scenario.sandbox, scenario.etcd.url(), "60s").flag("--renew", "600ms");
    let leader = leader.witness(&Witness::new()).start();
    scenario.sandbox.starts(1);
    let began = now();
    let before = scenario.etcd.messages();
    until("some renewals", || since(began) >= Duration::from_secs(6));
    let after = scenario.etcd.messages();
    let spent =
        |method: &str| after.get(method).copied().unwrap_or_default() - before.get(method).copied().unwrap_or_default();
    let (beats, checks) = (spent("LeaseKeepAlive"), spent("Txn"));
    println!(
        "figures: etcd: messages of a leader in 6 s, a renewal each 600 ms: {beats} keep-alives, {checks} transactions"
    );
    assert!(checks <= beats + 1, "one check for each keep-alive");
    leader.terminate();
}
