//! Hand-overs: whatever happens to the first leader, the second starts only when no process of the first is left.
//!
//! Each test is a series of hand-overs; `cargo test -- --nocapture` shows the figures, `ELECT_LONG=1` runs all.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::containment_support::tiers;
use crate::harness::faults::{self, LeaderFault, SIDE_BY_SIDE};
use crate::harness::wait::{throughout, until};
use crate::harness::{
    CandidateProcess, ElectCmd, HandoverRuns, Measurements, Sandbox, Witness, is_long, processes, runs,
};

fn strikes(fault: &LeaderFault) {
    fault.run(HandoverRuns::of(runs()), "");
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
    let sandbox = Sandbox::new();
    let mut measurements = Measurements::default();
    let witness = Witness::new().daemon();
    let mut leader = ElectCmd::new(&sandbox).flag("--containment", tier).witness(&witness).start();
    for run in 1..=runs() {
        let led = sandbox.starts(run).latest();
        let history = sandbox.history_when("the grandchild", |history| history.grandchildren.len() >= run);
        let orphan = history.grandchildren[run - 1].pid;
        let next = ElectCmd::new(&sandbox).flag("--containment", tier).witness(&witness).start();
        next.wait_until_waiting();
        leader.kill_with_keeper();
        leader.wait();
        until("the main process dies with its keeper", || !processes::is_alive(led.pid));
        // Said by somebody who asked for the lock and did not get it.
        next.wait_for_log(&format!("process {orphan} ("));
        assert_eq!(sandbox.history().starts.len(), run, "the orphan has the lock");
        assert!(processes::is_alive(orphan), "nobody kills it");
        let end = sandbox.watch_the_end_of(led.pid);
        processes::signal(orphan, Signal::SIGKILL);
        let started = sandbox.starts(run + 1).latest();
        measurements.survivors += leader.all().len();
        measurements.handovers.push(started.at.saturating_sub(end.join().expect("the watch on the old tree")));
        leader = next;
    }
    leader.terminate();
    measurements.overlaps = sandbox.history().overlaps.len();
    sandbox.history().is_safe();
    let kind = format!("{tier}: campaigner and keeper SIGKILLed together, orphaned grandchild ended later");
    measurements.print(&kind);
    assert_eq!((measurements.overlaps, measurements.survivors), (0, 0), "{kind}: {measurements}");
}

#[test]
fn a_leader_that_is_dead_is_not_said_to_lead() {
    let sandbox = Sandbox::new();
    // A namespace would take the daemon along.
    let leader = ElectCmd::new(&sandbox).flag("--containment", "tree").witness(&Witness::new().daemon()).start();
    sandbox.history_when("the grandchild", |history| !history.grandchildren.is_empty());
    let next = ElectCmd::new(&sandbox).witness(&Witness::new()).start();
    next.wait_until_waiting();
    // Not waited for: a corpse that nobody reaps leads no more than one that is gone.
    leader.kill_with_keeper();
    next.wait_for_log("no leader is alive");
    assert_eq!(ElectCmd::new(&sandbox).status(&["cron"]).run().status.code(), Some(3), "nobody leads");
    throughout(Duration::from_secs(3), "the last word is the orphan's", || {
        next.log()
            .lines()
            .rfind(|line| line.contains("waiting: "))
            .is_some_and(|line| line.contains("no leader is alive"))
    });
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
    let sandbox = Sandbox::new();
    let mut leader = ElectCmd::new(&sandbox).witness(&Witness::new().daemon()).start();
    let led = sandbox.starts(1).latest();
    let next = ElectCmd::new(&sandbox).witness(&Witness::new()).start();
    next.wait_until_waiting();
    leader.signal(Signal::SIGSTOP);
    throughout(window, "it leads, alone", || sandbox.history().starts.len() == 1 && processes::is_alive(led.pid));
    leader.signal(Signal::SIGCONT);
    throughout(Duration::from_millis(1500), "it goes on", || {
        sandbox.history().starts.len() == 1 && processes::is_alive(led.pid)
    });
    leader.signal(Signal::SIGTERM);
    let started = sandbox.starts(2).latest();
    assert!(started.term > led.term);
    leader.ends_with(0);
    next.terminate();
    sandbox.history().is_safe();
    sandbox.is_left_empty();
}

#[test]
fn a_waiter_that_is_stopped_or_killed_leaves_the_leader_alone() {
    let sandbox = Sandbox::new();
    let leader = ElectCmd::new(&sandbox).witness(&Witness::new()).start();
    sandbox.starts(1);
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let mut waiter = ElectCmd::new(&sandbox).witness(&Witness::new()).start();
        waiter.wait_until_waiting();
        waiter.signal(signal);
        assert_eq!(waiter.wait().signal(), Some(signal as i32));
        until("its keeper is gone", || waiter.all().is_empty());
    }
    assert_eq!(sandbox.history().starts.len(), 1);
    leader.terminate();
    sandbox.is_left_empty();
}

#[test]
fn five_candidates_take_turns() {
    let sandbox = Sandbox::new();
    let mut candidates: Vec<CandidateProcess> =
        (0..5).map(|_| ElectCmd::new(&sandbox).witness(&Witness::new().daemon()).start()).collect();
    for turn in 1..=5 {
        let led = sandbox.starts(turn).latest();
        let leads = |candidate: &CandidateProcess| candidate.tree().iter().any(|process| process.pid == led.pid);
        let position = candidates.iter().position(leads).expect("one of them leads");
        candidates.swap_remove(position).terminate();
    }
    sandbox.history().is_safe();
    sandbox.is_left_empty();
}
