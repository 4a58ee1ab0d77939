//! Terms: above all before them whatever becomes of the etcd, in the number space of all stores, or as revisions.

use std::process::Stdio;
use std::time::Duration;

use super::keys::{Etcdctl, Hall, status};
use super::{LEASE, candidate};
use crate::harness::etcd::Etcd;
use crate::harness::wait::{now, since, throughout, until};
use crate::harness::wallclock::WallClock;
use crate::harness::{Elect, Place, Witness};

const TERM_KEY: &str = "elect.term//elect/cron/";

fn rise(place: &Place) {
    let terms: Vec<u64> = place.history().starts.iter().map(|start| start.term).collect();
    assert!(terms.is_sorted_by(|one, next| one < next), "{terms:?}");
}

fn stored(etcd: &Etcd) -> Option<u64> {
    etcd.etcdctl(&["get", "--print-value-only", TERM_KEY]).trim().parse().ok()
}

/// A number that `etcdctl get` shows of a key.
fn field(etcd: &Etcd, key: &str, name: &str) -> u64 {
    let text = etcd.etcdctl(&["get", key, "-w", "fields"]);
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("\"{name}\" : ")));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).trim().parse().expect("a number")
}

#[test]
fn an_etcd_that_is_rebuilt_from_nothing_under_a_running_candidate_is_led_under_a_higher_term() {
    let hall = Hall::new();
    let leader = hall.start();
    hall.place.starts(1);
    for count in 2..=3 {
        hall.etcd.rebuild();
        hall.place.starts(count);
        rise(&hall.place);
    }
    leader.stops();
}

#[test]
fn an_etcd_that_is_rebuilt_is_led_under_a_higher_term_by_those_who_waited_too() {
    let hall = Hall::new();
    let ahead = WallClock::new();
    ahead.step_to(3600);
    let first = hall.candidate().witness(&Witness::new()).under(ahead.words()).start();
    let led = hall.place.starts(1).latest();
    let second = hall.start();
    second.waits();
    // Nothing but what the second one has seen tells it of that term: it has another clock.
    first.kill_with_keeper();
    hall.etcd.rebuild();
    let next = hall.place.starts(2).latest();
    assert!(next.term > led.term, "{next:?} after {led:?}");
    assert_eq!(stored(&hall.etcd), Some(next.term));
    second.stops();
}

#[test]
fn an_etcd_that_is_restored_from_an_older_backup_is_led_under_higher_terms() {
    let hall = Hall::new();
    let ahead = WallClock::new();
    ahead.step_to(3600);
    let first = hall.start();
    hall.place.starts(1);
    first.stops();
    let snapshot = hall.place.path().join("snapshot");
    hall.etcd.etcdctl(&["snapshot", "save", &snapshot.display().to_string()]);
    let second = hall.candidate().witness(&Witness::new()).under(ahead.words()).start();
    hall.place.starts(2);
    let third = hall.start();
    third.waits();
    second.stops();
    hall.place.starts(3);
    hall.etcd.restore(&snapshot);
    hall.place.starts(4);
    let fourth = hall.start();
    fourth.waits();
    third.stops();
    hall.place.starts(5);
    fourth.stops();
    rise(&hall.place);
}

#[test]
fn terms_rise_when_a_boundary_moves_to_another_store_and_back() {
    let (place, etcd) = (Place::new(), Etcd::start());
    for (count, store) in (1..).zip([place.store(), etcd.url(), place.store(), etcd.url()]) {
        let leader = Elect::new(&place).store(store).witness(&Witness::new()).start();
        place.starts(count);
        leader.stops();
        rise(&place);
    }
}

#[test]
fn the_last_term_is_read_when_a_waiter_is_the_oldest_and_kept_with_its_win() {
    let hall = Hall::new();
    let first = hall.start();
    let led = hall.place.starts(1).latest();
    let second = hall.start();
    second.waits();
    until("it stands in the queue", || hall.queue().len() == 2);
    // By other hands, while it waits.
    let raised = led.term + 1_000_000_000;
    hall.etcd.etcdctl(&["put", TERM_KEY, &raised.to_string()]);
    first.stops();
    let next = hall.place.starts(2).latest();
    assert_eq!(next.term, raised + 1);
    assert_eq!(stored(&hall.etcd), Some(next.term));
    // One transaction has one revision.
    assert_eq!(field(&hall.etcd, TERM_KEY, "ModRevision"), field(&hall.etcd, &hall.key(0), "ModRevision"));
    // From here on the leader does not compare it any more.
    hall.etcd.etcdctl(&["del", TERM_KEY]);
    throughout(LEASE, "it goes on leading", || hall.place.history().starts.len() == 2);
    let third = hall.start();
    third.waits();
    second.stops();
    hall.place.starts(3);
    third.stops();
    rise(&hall.place);
    hall.place.history().is_safe();
}

#[test]
fn a_last_term_that_is_not_believed_keeps_candidates_waiting() {
    let hall = Hall::new();
    for value in ["9007199254740991", "18446744073709551616", "-1", "twelve", "", "1\n2"] {
        hall.etcd.etcdctl(&["put", TERM_KEY, "--", value]);
        let waiter = hall.start();
        waiter.says("no term that is believed");
        assert!(hall.queue().is_empty(), "it does not stand");
        waiter.stops();
    }
    let waiter = hall.start();
    waiter.says(TERM_KEY);
    hall.etcd.etcdctl(&["del", TERM_KEY]);
    hall.place.starts(1);
    waiter.stops();
}

#[test]
fn observers_are_shown_the_term_and_its_beginning_once_the_win_is_verified() {
    let hall = Hall::new();
    let watch = Elect::new(&hall.place).store(hall.etcd.url()).asks("watch", &["cron", "--json"]).start();
    let first = hall.start();
    hall.place.starts(1);
    let second = hall.start();
    second.waits();
    first.stops();
    let led = hall.place.starts(2).latest();
    let shown = Elect::new(&hall.place).store(hall.etcd.url()).status(&["cron", "--json"]).run().stdout;
    assert!(shown.contains(&format!("\"term\":{}", led.term)), "{shown}");
    until("the watcher is shown both", || watch.output().contains(&format!("\"term\":{}", led.term)));
    for line in watch.output().lines().filter(|line| line.contains("\"term\"") && !line.contains("\"leader\":null")) {
        assert!(!line.contains("\"since\":null") && !line.contains("\"term\":null"), "{line}");
    }
    second.stops();
    drop(watch);
}

// ---- ?term=revision

fn by_revision(hall: &Hall) -> Elect {
    candidate(&hall.place, format!("{}?term=revision", hall.etcd.url())).witness(&Witness::new())
}

#[test]
fn terms_are_revisions_among_programs_that_count_so() {
    let hall = Hall::new();
    let mut other = Etcdctl::elect(&hall.etcd, &["/elect/cron", "somebody else"], Stdio::null());
    until("it leads", || status(&hall).contains("somebody else leads"));
    let asked = |url: &str| Elect::new(&hall.place).store(url.to_owned()).status(&["cron", "--json"]).run().stdout;
    let created = field(&hall.etcd, &hall.key(0), "CreateRevision");
    let shown = asked(&format!("{}?term=revision", hall.etcd.url()));
    assert!(shown.contains(&format!("\"term\":{created}")), "{shown}");
    // In the number space of all stores its term is not known.
    assert!(asked(&hall.etcd.url()).contains("\"term\":null"));
    let ours = by_revision(&hall).start();
    ours.says("waiting: somebody else leads");
    other.stop();
    let led = hall.place.starts(1).latest();
    assert_eq!(led.term, field(&hall.etcd, &hall.key(0), "CreateRevision"));
    let next = by_revision(&hall).start();
    next.waits();
    ours.stops();
    let led = hall.place.starts(2).latest();
    assert_eq!(led.term, field(&hall.etcd, &hall.key(0), "CreateRevision"));
    assert_eq!(stored(&hall.etcd), None, "nothing but candidates");
    next.stops();
    rise(&hall.place);
}

#[test]
fn two_ways_of_counting_on_one_boundary_keep_out_of_each_others_way() {
    let hall = Hall::new();
    let revision = by_revision(&hall).flag("--name", "counts-revisions").start();
    hall.place.starts(1);
    let usual = hall.candidate().flag("--name", "counts-as-usual").witness(&Witness::new()).start();
    usual.says("counts-revisions");
    assert!(usual.log().contains("?term=revision"), "{}", usual.log());
    let ended = hall.candidate().switch("-n").command(["true"]).run();
    assert_eq!(ended.status.code(), Some(75), "{ended:?}");
    assert_eq!(hall.queue().len(), 1, "the leader alone");
    revision.stops();
    hall.place.starts(2);
    let revision = by_revision(&hall).start();
    revision.says("counts-as-usual");
    let ended = by_revision(&hall).switch("-n").run();
    assert_eq!(ended.status.code(), Some(75), "{ended:?}");
    usual.stops();
    // The last term stays, and is far above any revision.
    revision.says(TERM_KEY);
    let began = now();
    throughout(LEASE, "it does not lead", || hall.place.history().starts.len() == 2 && hall.queue().is_empty());
    assert!(since(began) >= LEASE);
    hall.etcd.etcdctl(&["del", TERM_KEY]);
    // It has seen larger ones; another one has not.
    revision.says("restart this candidate");
    let fresh = by_revision(&hall).start();
    hall.place.starts(3);
    fresh.stops();
    revision.stops();
}

#[test]
fn a_revision_below_a_term_that_was_seen_leads_nothing() {
    let hall = Hall::new();
    for round in 0..50 {
        hall.etcd.etcdctl(&["put", "/elsewhere", &round.to_string()]);
    }
    let leader = by_revision(&hall).start();
    let led = hall.place.starts(1).latest();
    hall.etcd.rebuild();
    leader.says("before this etcd was rebuilt");
    throughout(LEASE, "it does not lead", || hall.place.history().starts.len() == 1);
    while field(&hall.etcd, "/elsewhere", "Revision") <= led.term {
        hall.etcd.etcdctl(&["put", "/elsewhere", ""]);
    }
    hall.place.starts(2);
    leader.stops();
    rise(&hall.place);
}

// ---- what it costs

#[test]
fn a_run_costs_no_more_messages_than_before_terms_were_kept() {
    let hall = Hall::new();
    let runs = || {
        let messages = || hall.etcd.messages();
        let before = messages();
        let ended = hall.candidate().switch("-n").command(["true"]).run();
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
        let mut spent = messages();
        spent.retain(|_, count| *count > 0);
        for (method, count) in before {
            *spent.entry(method).or_default() -= count;
        }
        spent.retain(|method, count| *count > 0 && method != "Watch" && method != "Status");
        spent
    };
    for _ in 0..2 {
        let spent = runs();
        println!("figures: etcd: messages of run -n -- true: {spent:?}");
        // Range or Txn, LeaseGrant, Txn, two of LeaseKeepAlive, Txn, LeaseRevoke.
        assert!(spent.values().sum::<u64>() <= 7, "{spent:?}");
    }
    let leader = hall.start();
    hall.place.starts(1);
    let began = now();
    let before = hall.etcd.messages();
    until("some renewals", || since(began) >= Duration::from_secs(6));
    let after = hall.etcd.messages();
    let spent =
        |method: &str| after.get(method).copied().unwrap_or_default() - before.get(method).copied().unwrap_or_default();
    let (beats, checks) = (spent("LeaseKeepAlive"), spent("Txn"));
    println!("figures: etcd: messages of a leader in 6 s, ttl 3 s: {beats} keep-alives, {checks} transactions");
    assert!(checks <= beats + 1, "one check for each keep-alive");
    leader.stops();
}
