//! From one leader to the next: whatever happens to the first, the second starts only when nothing of it is left.
//!
//! Each test is a relay of so many candidates; `cargo test -- --nocapture` shows the figures, `ELECT_LONG=1` runs all.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::faults::{self, Fault, SIDE_BY_SIDE};
use crate::harness::tiers::tiers;
use crate::harness::wait::{throughout, until};
use crate::harness::{Candidate, Elect, Figures, Place, Relay, Witness, is_long, processes, runs};

fn strikes(fault: &Fault) {
    fault.strikes(Relay::of(runs()), "");
}

#[test]
fn a_leader_that_is_asked_to_stop_hands_over() {
    strikes(&faults::STOPPED);
}

#[test]
fn a_killed_campaigner_hands_over_at_once() {
    strikes(&faults::CAMPAIGNER_KILLED);
}

#[test]
fn a_killed_keeper_takes_the_command_along_and_hands_over() {
    strikes(&faults::KEEPER_KILLED);
}

#[test]
fn a_stopped_keeper_is_found_silent_and_its_tree_is_killed_without_it() {
    strikes(&faults::KEEPER_FROZEN_THEN_STOPPED);
}

#[test]
fn a_command_that_ignores_the_stop_signal_is_killed_with_its_daemon() {
    strikes(&faults::STUBBORN_STOPPED);
}

#[test]
fn a_killed_campaigner_hands_over_although_the_command_ignores_the_stop_signal() {
    strikes(&faults::STUBBORN_CAMPAIGNER_KILLED);
}

#[test]
fn both_killed_at_once_hand_over_when_the_command_has_died_of_it() {
    strikes(&faults::BOTH_KILLED);
}

#[test]
fn both_killed_at_once_hand_over_to_nobody_while_a_daemon_of_theirs_lives() {
    // A namespace would have taken it along.
    for tier in tiers().into_iter().filter(|&tier| tier != "pidns") {
        orphan_a_daemon(tier);
    }
}

fn orphan_a_daemon(tier: &str) {
    let place = Place::new();
    let mut figures = Figures::default();
    let witness = Witness::new().daemon();
    let mut leader = Elect::new(&place).flag("--containment", tier).witness(&witness).start();
    for run in 1..=runs() {
        let led = place.starts(run).latest();
        let history = place.history_when("the grandchild", |history| history.grandchildren.len() >= run);
        let orphan = history.grandchildren[run - 1].pid;
        let next = Elect::new(&place).flag("--containment", tier).witness(&witness).start();
        next.waits();
        leader.kill_with_keeper();
        leader.wait();
        until("the main process dies with its keeper", || !processes::is_alive(led.pid));
        // Said by somebody who asked for the lock and did not get it.
        next.says(&format!("process {orphan} ("));
        assert_eq!(place.history().starts.len(), run, "the orphan has the lock");
        assert!(processes::is_alive(orphan), "nobody kills it");
        let end = place.watch_the_end_of(led.pid);
        processes::signal(orphan, Signal::SIGKILL);
        let started = place.starts(run + 1).latest();
        figures.survivors += leader.all().len();
        figures.handovers.push(started.at.saturating_sub(end.join().expect("the watch on the old tree")));
        leader = next;
    }
    leader.stops();
    figures.overlaps = place.history().overlaps.len();
    place.history().is_safe();
    let kind = format!("{tier}: campaigner and keeper SIGKILLed together, orphaned grandchild ended later");
    figures.print(&kind);
    assert_eq!((figures.overlaps, figures.survivors), (0, 0), "{kind}: {figures}");
}

#[test]
fn a_leader_that_is_dead_is_not_said_to_lead() {
    let place = Place::new();
    // A namespace would take the daemon along.
    let leader = Elect::new(&place).flag("--containment", "tree").witness(&Witness::new().daemon()).start();
    place.history_when("the grandchild", |history| !history.grandchildren.is_empty());
    let next = Elect::new(&place).witness(&Witness::new()).start();
    next.waits();
    // Not waited for: a corpse that nobody reaps leads no more than one that is gone.
    leader.kill_with_keeper();
    next.says("no leader is alive");
    assert_eq!(Elect::new(&place).status(&["cron"]).run().status.code(), Some(3), "nobody leads");
    let told = || next.log().lines().filter(|line| line.contains("waiting: ")).count();
    throughout(Duration::from_secs(3), "the last word is the orphan's", || told() == 2);
}

#[test]
fn a_stopped_campaigner_goes_on_leading_and_nobody_else_starts() {
    // Beyond the ten seconds after which a keeper would have been given up.
    let window = if is_long() { Duration::from_secs(12) } else { Duration::from_secs(3) };
    std::thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE.min(runs()) {
            scope.spawn(|| {
                for _ in 0..runs().div_ceil(SIDE_BY_SIDE) {
                    stop_and_continue(window);
                }
            });
        }
    });
    println!("figures: campaigner SIGSTOPped for {window:?}: {} runs, nobody else started, went on after", runs());
}

fn stop_and_continue(window: Duration) {
    let place = Place::new();
    let mut leader = Elect::new(&place).witness(&Witness::new().daemon()).start();
    let led = place.starts(1).latest();
    let next = Elect::new(&place).witness(&Witness::new()).start();
    next.waits();
    leader.signal(Signal::SIGSTOP);
    throughout(window, "it leads, alone", || place.history().starts.len() == 1 && processes::is_alive(led.pid));
    leader.signal(Signal::SIGCONT);
    throughout(Duration::from_millis(1500), "it goes on", || {
        place.history().starts.len() == 1 && processes::is_alive(led.pid)
    });
    leader.signal(Signal::SIGTERM);
    let started = place.starts(2).latest();
    assert!(started.term > led.term);
    leader.ends_with(0);
    next.stops();
    place.history().is_safe();
    place.is_left_empty();
}

#[test]
fn a_waiter_that_is_stopped_or_killed_leaves_the_leader_alone() {
    let place = Place::new();
    let leader = Elect::new(&place).witness(&Witness::new()).start();
    place.starts(1);
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let mut waiter = Elect::new(&place).witness(&Witness::new()).start();
        waiter.waits();
        waiter.signal(signal);
        assert_eq!(waiter.wait().signal(), Some(signal as i32));
        until("its keeper is gone", || waiter.all().is_empty());
    }
    assert_eq!(place.history().starts.len(), 1);
    leader.stops();
    place.is_left_empty();
}

#[test]
fn five_candidates_take_turns() {
    let place = Place::new();
    let mut candidates: Vec<Candidate> =
        (0..5).map(|_| Elect::new(&place).witness(&Witness::new().daemon()).start()).collect();
    for turn in 1..=5 {
        let led = place.starts(turn).latest();
        let leads = |candidate: &Candidate| candidate.tree().iter().any(|process| process.pid == led.pid);
        let position = candidates.iter().position(leads).expect("one of them leads");
        candidates.swap_remove(position).stops();
    }
    place.history().is_safe();
    place.is_left_empty();
}
