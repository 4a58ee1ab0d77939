//! Named successors (`resign --to`) and spares (`--takeover-delay`). Each test holds for every store.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::harness::store_fixtures::{StoreFixture, for_each_store};
use crate::harness::wait::{now, since, until};
use crate::harness::{CandidateProcess, ElectCmd, Ended, Witness, eventually, is_long};

/// Short, because a successor that dies may cost it; longer than a busy machine takes for a renewal.
const TTL: &str = "5s";

/// Within which another candidate leads after the successor has died: its ttl, the interval between two looks, and as much again
/// for a busy machine. Seconds.
const LIMIT: u64 = 20;

/// Sockets are found by the boundary's name alone, and all tests are the same user.
fn boundary() -> &'static str {
    static LAST: AtomicUsize = AtomicUsize::new(0);
    let number = LAST.fetch_add(1, Ordering::Relaxed);
    format!("successors/{}-{number}", std::process::id()).leak()
}

fn candidate(fixture: &StoreFixture, boundary: &'static str, name: &str) -> ElectCmd {
    let candidate = ElectCmd::new(&fixture.sandbox).store(fixture.url()).flag("--ttl", TTL).flag("--name", name);
    candidate.boundary(boundary).witness(&Witness::new())
}

fn waiting(fixture: &StoreFixture, boundary: &'static str, name: &str) -> CandidateProcess {
    let waiting = candidate(fixture, boundary, name).start();
    waiting.wait_until_waiting();
    waiting
}

fn leader(fixture: &StoreFixture, boundary: &'static str, name: &str) -> CandidateProcess {
    let leader = candidate(fixture, boundary, name).start();
    leads(fixture, boundary, name);
    leader
}

fn status(fixture: &StoreFixture, boundary: &str) -> Value {
    let ended = fixture.query("status", &[boundary, "--json"]).run();
    serde_json::from_str(ended.stdout.trim()).unwrap_or_else(|_| panic!("an object: {ended:?}"))
}

fn seen_leader(fixture: &StoreFixture, boundary: &str) -> Value {
    status(fixture, boundary)["leader"].clone()
}

/// Returns the id of that candidate once it leads.
#[track_caller]
fn leads(fixture: &StoreFixture, boundary: &str, name: &str) -> String {
    eventually(&format!("{name} leads on {}", fixture.name()), || {
        let leader = seen_leader(fixture, boundary);
        // The store shows a win before the candidate has verified it.
        let id = leader["id"].as_str().filter(|_| leader["name"] == name)?.to_owned();
        is_leading(fixture, boundary, &id).then_some(id)
    })
}

/// Whether the candidate itself says that it leads.
pub fn is_leading(fixture: &StoreFixture, boundary: &str, id: &str) -> bool {
    let words = ["--self", boundary, "--json"];
    let asked = ElectCmd::new(&fixture.sandbox).store(None).query("status", &words).run();
    let shown: Value = serde_json::from_str(asked.stdout.trim()).unwrap_or_default();
    shown.as_array().is_some_and(|all| all.iter().any(|one| one["id"] == id && one["is_leader"] == true))
}

fn resign(fixture: &StoreFixture, boundary: &str, words: &[&str]) -> ElectCmd {
    let words = [&["--boundary", boundary], words].concat();
    ElectCmd::new(&fixture.sandbox).store(None).query("resign", &words)
}

#[track_caller]
fn says_yes(ended: &Ended) {
    assert_eq!((ended.status.code(), ended.stderr.as_str()), (Some(0), ""), "{ended:?}");
}

#[test]
fn the_named_successor_leads_next_among_eight_candidates() {
    let names: Vec<String> = (1..=8).map(|number| format!("web-{number}")).collect();
    for_each_store(|fixture| {
        let boundary = boundary();
        let mut all = vec![leader(&fixture, boundary, &names[0])];
        all.extend(names[1..].iter().map(|name| waiting(&fixture, boundary, name)));
        let rounds = if is_long() { 100 } else { 6 };
        let mut at = 0;
        let mut longest = Duration::ZERO;
        for round in 0..rounds {
            let id = leads(&fixture, boundary, &names[at]);
            at = (at + 1 + (round * 5) % 7) % names.len();
            let started = now();
            says_yes(&resign(&fixture, boundary, &["--id", &id, "--to", &names[at], "--within", "30s"]).run());
            longest = longest.max(since(started));
            leads(&fixture, boundary, &names[at]);
            fixture.sandbox.starts(round + 2);
        }
        println!("{}: {rounds} of {rounds} hand-overs to the successor, {longest:?} at most", fixture.name());
        for each in all {
            each.terminate();
        }
        fixture.sandbox.history().is_safe();
    });
}

#[test]
fn a_successor_that_is_not_there_costs_the_time_of_the_reservation_or_nothing() {
    for_each_store(|fixture| {
        let boundary = boundary();
        let one = leader(&fixture, boundary, "web-1");
        let id = leads(&fixture, boundary, "web-1");
        let other = waiting(&fixture, boundary, "web-2");
        let (starts, started) = (fixture.sandbox.starts(1).starts.len(), now());
        let words = ["--id", &id, "--to", "web-9", "--within", "1s"];
        let ended = resign(&fixture, boundary, &words).run();
        assert!(since(started) >= Duration::from_secs(1), "{ended:?}");
        if status(&fixture, boundary)["candidates"].is_array() {
            // The leader sees who waits.
            ended.fails_with(3, &["no candidate \"web-9\"", "nothing was done"]);
            assert_eq!(leads(&fixture, boundary, "web-1"), id);
            assert_eq!(fixture.sandbox.history().starts.len(), starts, "the command was stopped");
        } else {
            ended.fails_with(3, &["web-2 leads", "web-9"]);
        }
        one.terminate();
        other.terminate();
        fixture.sandbox.history().is_safe();
    });
}

#[test]
fn a_request_that_makes_no_sense_stops_nothing_and_one_that_was_fulfilled_is_fulfilled_again() {
    for_each_store(|fixture| {
        let boundary = boundary();
        let one = leader(&fixture, boundary, "web-1");
        let id = leads(&fixture, boundary, "web-1");
        for own in ["web-1", &id] {
            resign(&fixture, boundary, &["--to", own]).run().fails_with(3, &["own name"]);
        }
        resign(&fixture, boundary, &["--within", "3s"]).run().fails_with(2, &["--to"]);
        resign(&fixture, boundary, &["--to", "web-2", "--within", "2m"]).run().fails_with(2, &["1m"]);
        resign(&fixture, boundary, &["--to", ""]).run().fails_with(2, &["--to"]);
        let other = waiting(&fixture, boundary, "web-2");
        assert_eq!(leads(&fixture, boundary, "web-1"), id);
        assert_eq!(fixture.sandbox.history().starts.len(), 1);
        // Of several candidates on this host it is for the one that leads.
        says_yes(&resign(&fixture, boundary, &["--to", "web-2", "--within", "30s"]).run());
        says_yes(&resign(&fixture, boundary, &["--id", &id, "--to", "web-2", "--within", "30s"]).run());
        assert_eq!(fixture.sandbox.starts(2).starts.len(), 2);
        one.terminate();
        other.terminate();
    });
}

#[test]
fn a_successor_that_dies_during_the_hand_over_keeps_the_others_out_for_a_while() {
    for_each_store(|fixture| {
        let boundary = boundary();
        let gate = "until [ -e $WITNESS_PLACE/go ]; do sleep 0.02; done";
        let one = candidate(&fixture, boundary, "web-1").flag("--on-ousted", gate).flag("--hook-timeout", "1h").start();
        let id = leads(&fixture, boundary, "web-1");
        let mut successor = waiting(&fixture, boundary, "web-2");
        let third = waiting(&fixture, boundary, "web-3");
        let words = ["--id", &id, "--to", "web-2", "--within", "3s", "--timeout", "60s"];
        let mut asked = resign(&fixture, boundary, &words).start();
        one.wait_for_log("asked to resign");
        // Not before, since its lease would run out meanwhile: then it is no successor.
        successor.signal(Signal::SIGSTOP);
        std::fs::write(fixture.sandbox.path().join("go"), "").expect("written");
        one.wait_for_log("released");
        let released = now();
        successor.kill_with_keeper();
        successor.wait();
        asked.ends_with(3);
        let cost = since(released);
        println!("{}: {cost:?} without a leader", fixture.name());
        assert!(cost < Duration::from_secs(LIMIT), "{}: {cost:?} without a leader", fixture.name());
        let name = seen_leader(&fixture, boundary)["name"].as_str().unwrap_or_default().to_owned();
        assert!(["web-1", "web-3"].contains(&name.as_str()), "{name} leads");
        assert!(asked.log().contains(&format!("{name} leads")), "{}", asked.log());
        one.terminate();
        third.terminate();
        fixture.sandbox.history().is_safe();
    });
}

/// Where the store has a queue, those who wait queue again behind the successor: no lease, follower or process of theirs ends.
#[test]
fn waiters_that_are_passed_over_lose_nothing_but_their_place() {
    for_each_store(|fixture| {
        let boundary = boundary();
        let names = ["web-1", "web-2", "web-3", "web-4"];
        let one = leader(&fixture, boundary, names[0]);
        let id = leads(&fixture, boundary, names[0]);
        let waiters = names[1..].iter().map(|name| {
            let waiter =
                candidate(&fixture, boundary, name).flag("--follower", "echo follows; exec sleep 1000").start();
            waiter.wait_until_waiting();
            until("it follows", || waiter.output().contains("follows"));
            waiter
        });
        let mut running = vec![one];
        running.extend(waiters);
        says_yes(&resign(&fixture, boundary, &["--id", &id, "--to", names[3], "--within", "30s"]).run());
        leads(&fixture, boundary, names[3]);
        for (waiter, name) in running[1..3].iter().zip(&names[1..3]) {
            let log = waiter.log();
            assert!(!log.contains("WARN") && !log.contains("ERROR"), "{name}: {log}");
            // The follower is told of the new leader by its successor.
            until("it follows the new leader", || waiter.output().matches("follows").count() == 2);
        }
        // Each of them leads once the others are gone.
        let mut led = BTreeSet::from([names[3].to_owned()]);
        let mut leader = names[3].to_owned();
        for count in 3..=5 {
            let at = names.iter().position(|name| *name == leader).expect("one of them");
            running[at].signal(Signal::SIGTERM);
            if count < 5 {
                let next = eventually("another one leads", || {
                    let name = seen_leader(&fixture, boundary)["name"].as_str()?.to_owned();
                    (name != leader).then_some(name)
                });
                leads(&fixture, boundary, &next);
                assert!(led.insert(next.clone()), "{next} has led before");
                leader = next;
            }
        }
        for mut candidate in running {
            candidate.signal(Signal::SIGTERM);
            candidate.wait();
        }
        fixture.sandbox.history().is_safe();
    });
}

#[test]
fn a_spare_leads_only_if_no_other_candidate_takes_over_in_time_and_hands_back_by_name() {
    for_each_store(|fixture| {
        let boundary = boundary();
        let delay = Duration::from_secs(2);
        let one = leader(&fixture, boundary, "web-1");
        let spare = candidate(&fixture, boundary, "spare").flag("--takeover-delay", "2s").start();
        spare.wait_until_waiting();
        let rounds = if is_long() { 20 } else { 2 };
        let mut leader = one;
        for round in 0..rounds {
            let name = format!("web-{}", round + 2);
            let next = waiting(&fixture, boundary, &name);
            leader.terminate();
            leads(&fixture, boundary, &name);
            leader = next;
        }
        assert!(!spare.log().contains("elected"), "{}", spare.log());
        let stopped = now();
        leader.terminate();
        let id = leads(&fixture, boundary, "spare");
        assert!(since(stopped) >= delay, "after {:?}", since(stopped));
        let back = waiting(&fixture, boundary, "web-1");
        says_yes(&resign(&fixture, boundary, &["--id", &id, "--to", "web-1", "--within", "30s"]).run());
        let id = leads(&fixture, boundary, "web-1");
        // The other way the delay does not count either.
        says_yes(&resign(&fixture, boundary, &["--id", &id, "--to", "spare", "--within", "30s"]).run());
        leads(&fixture, boundary, "spare");
        back.terminate();
        spare.terminate();
        fixture.sandbox.history().is_safe();
    });
}

#[test]
fn without_an_election_there_is_no_successor_and_no_spare() {
    let fixture_free = |words: &[&str]| {
        let sandbox = crate::harness::Sandbox::new();
        let elect = ElectCmd::new(&sandbox).store("always:".to_owned());
        words.chunks(2).fold(elect, |elect, flag| elect.flag(flag[0], flag[1])).command(["true"]).run()
    };
    fixture_free(&["--takeover-delay", "3s"]).fails_with(2, &["--takeover-delay", "always:"]);
    assert_eq!(fixture_free(&["--takeover-delay", "0s"]).status.code(), Some(0));
    let sandbox = crate::harness::Sandbox::new();
    let boundary = boundary();
    let elect = ElectCmd::new(&sandbox).store("always:".to_owned()).boundary(boundary);
    let leader = elect.witness(&Witness::new()).start();
    sandbox.starts(1);
    let words = ["--boundary", boundary, "--to", "web-2"];
    ElectCmd::new(&sandbox).store(None).query("resign", &words).run().fails_with(2, &["--to", "always:"]);
    leader.terminate();
}

/// A command that takes a second to end.
const SLOW: &str = "trap 'sleep 1; exit' TERM; echo up; while :; do sleep 0.05; done";

/// A leader with that command, and its id.
fn slow_leader(fixture: &StoreFixture, boundary: &'static str) -> (CandidateProcess, String) {
    let slow = ElectCmd::new(&fixture.sandbox).store(fixture.url()).flag("--ttl", TTL).flag("--name", "web-1");
    let one = slow.boundary(boundary).shell(SLOW).start();
    let id = leads(fixture, boundary, "web-1");
    until("its command hears a stop signal", || one.output() == "up\n");
    (one, id)
}

#[test]
fn a_hand_over_that_is_asked_for_twice_is_answered_twice() {
    for_each_store(|fixture| {
        let boundary = boundary();
        let (one, id) = slow_leader(&fixture, boundary);
        let other = waiting(&fixture, boundary, "web-2");
        let words = ["--id", &id, "--to", "web-2", "--within", "30s"];
        std::thread::scope(|scope| {
            let first = scope.spawn(|| resign(&fixture, boundary, &words).run());
            one.wait_for_log("asked to resign");
            says_yes(&resign(&fixture, boundary, &words).run());
            says_yes(&first.join().expect("it ends"));
        });
        one.terminate();
        other.terminate();
    });
}

/// A leader that is drained meanwhile leaves the boundary to any candidate, or to none, and every request is answered.
#[test]
fn a_drain_ends_a_hand_over() {
    for_each_store(|fixture| {
        let boundary = boundary();
        let (one, id) = slow_leader(&fixture, boundary);
        let words = ["--id", &id, "--to", "web-9", "--within", "2s"];
        std::thread::scope(|scope| {
            let resigns = scope.spawn(|| resign(&fixture, boundary, &words).run());
            let drain = ElectCmd::new(&fixture.sandbox).store(None);
            let drained = drain.query("drain", &["--boundary", boundary, "--id", &id]).run();
            assert_eq!(drained.status.code(), Some(0), "{drained:?}");
            let resigned = resigns.join().expect("it ends");
            assert_eq!(resigned.status.code(), Some(3), "{resigned:?}");
        });
        one.terminate();
    });
}

/// It cannot be asked any more who leads: the answer says so.
#[test]
fn a_candidate_that_ends_with_its_resignation_is_no_silent_success() {
    for_each_store(|fixture| {
        let boundary = boundary();
        let ends = candidate(&fixture, boundary, "web-1").flag("--on-lost", "exit").start();
        let id = leads(&fixture, boundary, "web-1");
        let other = waiting(&fixture, boundary, "web-2");
        let ended = resign(&fixture, boundary, &["--id", &id, "--to", "web-2", "--within", "30s"]).run();
        assert!([Some(0), Some(69)].contains(&ended.status.code()), "{ended:?}");
        if ended.status.code() == Some(69) {
            ended.stderr_contains(&["has ended", "--for name=web-2"]);
        }
        leads(&fixture, boundary, "web-2");
        other.terminate();
        drop(ends);
    });
}
