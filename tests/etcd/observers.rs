//! What observers say about the keys of other programs, and during an outage.

use super::keys::{QueueScenario, status};
use crate::harness::{ElectCmd, Witness, until};

#[test]
fn a_lock_of_etcdctl_is_shown_by_its_lease() {
    let scenario = QueueScenario::new();
    scenario.etcd.put_candidate("/elect/cron/1f", "");
    let text = status(&scenario);
    assert!(text.starts_with("cron: lease 1f leads"), "{text}");
    let document = ElectCmd::new(&scenario.sandbox).store(scenario.etcd.url()).status(&["cron", "--json"]).run().stdout;
    assert!(document.contains(r#""etcd":{"key":"/elect/cron/1f","lease":"1f"}"#), "{document}");
}

#[test]
fn a_watch_reports_an_outage_and_afterwards_nobody_who_never_led() {
    let scenario = QueueScenario::new();
    let leader = scenario.candidate().flag("--name", "web-1").witness(&Witness::new()).start();
    scenario.sandbox.starts(1);
    let waiter = scenario.candidate().flag("--name", "web-2").witness(&Witness::new()).start();
    waiter.wait_for_log("web-1 leads");
    let watch = ElectCmd::new(&scenario.sandbox).store(scenario.etcd.url()).query("watch", &["cron"]).start();
    until("the leader", || watch.output().contains("web-1 leads"));
    let live =
        ElectCmd::new(&scenario.sandbox).store(scenario.etcd.url()).query("status", &["cron", "--watch"]).start();
    until("the leader", || live.output().contains("web-1 leads"));
    scenario.etcd.kill();
    until("the outage is told", || watch.output().contains("error: "));
    until("the outage is told", || live.output().contains("not up to date since "));
    // The waiter's key is the oldest for a while, and it never leads.
    waiter.kill_with_keeper();
    leader.wait_for_log("leader command ended");
    scenario.etcd.restart();
    until("somebody leads again", || watch.output().matches("web-1 leads").count() >= 2);
    assert!(!watch.output().contains("web-2 leads"), "{}", watch.output());
    watch.terminate();
    live.terminate();
    leader.terminate();
}
