//! The lock file: shared with flock(1), and in the hands of whoever may delete, replace or unlock it.

use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::journal::{JournalEntry, median, millis};
use crate::harness::timing_verdict::{assert_in_time, retry_if_machine_slow};
use crate::harness::wait::{now, throughout, until};
use crate::harness::{CandidateProcess, ElectCmd, HandoverRuns, Measurements, Sandbox, Witness, processes, runs};

/// Within this time of a lost lock nothing of the command may live.
const DEAD_WITHIN: Duration = Duration::from_secs(2);

#[test]
fn flock_on_the_lock_file_excludes_elect() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.locks()).expect("an empty place");
    let lock = sandbox.lock_file().display().to_string();
    let holder = ElectCmd::new(&sandbox).program(["flock", &lock]).shell("echo held; exec sleep 600").start();
    until("flock has the lock", || holder.output().contains("held"));
    let candidate = ElectCmd::new(&sandbox).witness(&Witness::new()).start();
    candidate.wait_until_waiting();
    throughout(Duration::from_secs(2), "it waits", || sandbox.history().starts.is_empty());
    drop(holder);
    sandbox.starts(1);
    candidate.terminate();
    sandbox.is_left_empty();
}

#[test]
fn elect_excludes_flock_on_the_lock_file() {
    let sandbox = Sandbox::new();
    let try_flock = |sandbox: &Sandbox| {
        let lock = sandbox.lock_file().display().to_string();
        ElectCmd::new(sandbox).program(["flock", "--nonblock", &lock, "true"]).run().status.code()
    };
    let leader = ElectCmd::new(&sandbox).witness(&Witness::new()).start();
    sandbox.starts(1);
    assert_eq!(try_flock(&sandbox), Some(1), "refused while somebody leads");
    leader.terminate();
    assert_eq!(try_flock(&sandbox), Some(0), "granted when nobody does");
}

/// Does something to the lock file under a leader, `runs()` times, in a place of its own each.
fn lose_the_lock_file(kind: &str, loss: impl Fn(&Sandbox) + Sync) {
    lose_the_lock(kind, |sandbox, _| {
        let struck = now();
        loss(sandbox);
        struck
    });
}

/// The same with a loss that returns from when on the leader can notice it.
fn lose_the_lock(kind: &str, loss: impl Fn(&Sandbox, &CandidateProcess) -> Duration + Sync) {
    retry_if_machine_slow(kind, DEAD_WITHIN, |limit| lose_within(limit, kind, &loss));
}

fn lose_within(limit: Duration, kind: &str, loss: &(impl Fn(&Sandbox, &CandidateProcess) -> Duration + Sync)) {
    let mut measurements = Measurements::default();
    let parts: Vec<Measurements> = in_parallel(runs(), || lose_once(loss));
    for part in parts {
        measurements.add(part);
    }
    let slowest = measurements.endings.iter().max().copied().unwrap_or_default();
    println!(
        "figures: {kind}: {} runs, command dead after median {} maximum {}, next start after that median {}, overlaps {}, survivors {}",
        measurements.endings.len(),
        median(&measurements.endings).map(millis).unwrap_or_default(),
        millis(slowest),
        median(&measurements.handovers).map(millis).unwrap_or_default(),
        measurements.overlaps,
        measurements.survivors,
    );
    assert_eq!((measurements.overlaps, measurements.survivors), (0, 0), "{kind}: {measurements}");
    assert_in_time(slowest < limit, || format!("{kind}: {measurements}"));
}

fn in_parallel<T: Send>(count: usize, work: impl Fn() -> T + Sync) -> Vec<T> {
    let mut done = Vec::with_capacity(count);
    while done.len() < count {
        std::thread::scope(|scope| {
            let batch: Vec<_> = (done.len()..count.min(done.len() + 10)).map(|_| scope.spawn(&work)).collect();
            for one in batch {
                match one.join() {
                    Ok(result) => done.push(result),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
        });
    }
    done
}

fn lose_once(loss: impl Fn(&Sandbox, &CandidateProcess) -> Duration) -> Measurements {
    let sandbox = Sandbox::new();
    let witness = Witness::new().daemon().stubborn();
    let quick = |sandbox: &Sandbox| ElectCmd::new(sandbox).flag("--stop-timeout", "300ms").witness(&witness).start();
    let mut first = quick(&sandbox);
    let led = sandbox.history_when("the grandchild", |history| !history.grandchildren.is_empty()).latest();
    let second = quick(&sandbox);
    second.wait_until_waiting();
    let end = sandbox.watch_the_end_of(led.pid);
    let struck = loss(&sandbox, &first);
    let ended = end.join().expect("the watch on the tree");
    first.wait_for_log("leadership lost");
    let started = sandbox.starts(2).latest();
    assert!(!first.has_ended(), "it campaigns again");
    let measurements = Measurements {
        handovers: vec![started.at.saturating_sub(ended)],
        endings: vec![ended.saturating_sub(struck)],
        overlaps: sandbox.history().overlaps.len(),
        survivors: 0,
    };
    // When the present leader has ended, the other candidate leads.
    let (leader, other) = if leads(&first, started) { (first, second) } else { (second, first) };
    leader.terminate();
    let last = sandbox.starts(3).latest();
    assert!(leads(&other, last));
    other.terminate();
    sandbox.history().is_safe();
    sandbox.is_left_empty();
    measurements
}

fn leads(candidate: &CandidateProcess, entry: JournalEntry) -> bool {
    candidate.tree().iter().any(|process| process.pid == entry.pid)
}

#[test]
fn a_deleted_lock_file_costs_the_leadership_and_nothing_overlaps() {
    lose_the_lock_file("lock file deleted under a leader", |sandbox| {
        fs::remove_file(sandbox.lock_file()).expect("the lock file is there");
    });
}

#[test]
fn a_renamed_lock_file_costs_the_leadership_and_nothing_overlaps() {
    lose_the_lock_file("lock file renamed under a leader", |sandbox| {
        fs::rename(sandbox.lock_file(), sandbox.path().join("elsewhere")).expect("the lock file is there");
    });
}

#[test]
fn a_replaced_lock_file_costs_the_leadership_and_nothing_overlaps() {
    lose_the_lock_file("lock file replaced under a leader", |sandbox| {
        let replacement = sandbox.path().join("replacement");
        fs::write(&replacement, "").expect("the place takes a file");
        fs::rename(replacement, sandbox.lock_file()).expect("the lock file is there");
    });
}

#[test]
fn a_candidate_that_arrives_at_a_new_lock_file_waits_for_the_leader_to_notice() {
    let sandbox = Sandbox::new();
    let leader = ElectCmd::new(&sandbox).witness(&Witness::new().daemon().stubborn()).start();
    sandbox.history_when("the grandchild", |history| !history.grandchildren.is_empty());
    fs::remove_file(sandbox.lock_file()).expect("the lock file is there");
    let newcomer = ElectCmd::new(&sandbox).witness(&Witness::new()).start();
    sandbox.starts(2);
    sandbox.history().is_safe();
    leader.terminate();
    newcomer.terminate();
    sandbox.history().is_safe();
    sandbox.is_left_empty();
}

#[test]
fn a_stopped_or_killed_campaigner_whose_lock_file_was_replaced_is_waited_for_too() {
    let sandbox = Sandbox::new();
    // No process watches the lock any more, and the command's own grace is longer than any settling.
    let leader =
        ElectCmd::new(&sandbox).flag("--stop-timeout", "6s").witness(&Witness::new().daemon().stubborn()).start();
    sandbox.history_when("the grandchild", |history| !history.grandchildren.is_empty());
    leader.signal(Signal::SIGSTOP);
    fs::remove_file(sandbox.lock_file()).expect("the lock file is there");
    let newcomer = ElectCmd::new(&sandbox).witness(&Witness::new()).start();
    newcomer.wait_for_log("the lock file is a new one; on the old one the lock is held");
    assert_eq!(sandbox.history().starts.len(), 1);
    leader.signal(Signal::SIGKILL);
    sandbox.starts(2);
    sandbox.history().is_safe();
    newcomer.terminate();
    sandbox.is_left_empty();
}

#[test]
fn a_directory_that_is_emptied_under_a_leader_is_not_taken_for_a_new_one() {
    let sandbox = Sandbox::new();
    let leader = ElectCmd::new(&sandbox).witness(&Witness::new().daemon().stubborn()).start();
    sandbox.history_when("the grandchild", |history| !history.grandchildren.is_empty());
    leader.signal(Signal::SIGSTOP);
    fs::remove_dir_all(sandbox.locks()).expect("the directory is there");
    let newcomer = ElectCmd::new(&sandbox).witness(&Witness::new()).start();
    newcomer.wait_for_log("the lock file is a new one; on the old one the lock is held");
    assert_eq!(sandbox.history().starts.len(), 1);
    leader.signal(Signal::SIGCONT);
    sandbox.starts(2);
    sandbox.history().is_safe();
    leader.terminate();
    newcomer.terminate();
    sandbox.history().is_safe();
    sandbox.is_left_empty();
}

#[test]
fn a_command_that_unlocks_its_copy_costs_the_leadership_if_somebody_waits() {
    lose_the_lock("flock -u by the command", |sandbox, leader| leader.loses_lock_to_next(sandbox));
}

#[test]
fn a_command_that_unlocks_its_copy_costs_nothing_if_nobody_waits() {
    let sandbox = Sandbox::new();
    let leader = ElectCmd::new(&sandbox).witness(&Witness::new()).start();
    let led = sandbox.starts(1).latest();
    processes::signal(led.pid, Signal::SIGUSR1);
    sandbox.history_when("it has unlocked", |history| !history.unlocks.is_empty());
    throughout(Duration::from_secs(3), "it leads on", || processes::is_alive(led.pid));
    let lock = sandbox.lock_file().display().to_string();
    let ended = ElectCmd::new(&sandbox).program(["flock", "--nonblock", &lock, "true"]).run();
    assert_eq!(ended.status.code(), Some(1), "the lock is taken again");
    leader.terminate();
    assert_eq!(sandbox.history().starts.len(), 1);
    sandbox.is_left_empty();
}

#[test]
fn a_command_that_closes_every_descriptor_is_gone_before_the_next_one_starts() {
    for witness in [Witness::new().closing(), Witness::new().closing().daemon()] {
        let measurements = HandoverRuns::of(runs())
            .witness(witness)
            .run(|leader| leader.signal(Signal::SIGKILL), |leader| leader.ends_by(Signal::SIGKILL));
        measurements.print("command closes every descriptor, campaigner SIGKILLed");
        assert_eq!((measurements.overlaps, measurements.survivors), (0, 0), "{measurements}");
    }
    let measurements = HandoverRuns::of(runs())
        .witness(Witness::new().closing().daemon())
        .run(|leader| processes::signal(leader.keeper(), Signal::SIGKILL), |leader| leader.ends_with(125));
    measurements.print("command closes every descriptor, keeper SIGKILLed");
    assert_eq!((measurements.overlaps, measurements.survivors), (0, 0), "{measurements}");
}

fn empty_the_directory(sandbox: &Sandbox) {
    for entry in fs::read_dir(sandbox.locks()).expect("the directory is there") {
        let path = entry.expect("an entry").path();
        fs::remove_file(path).expect("a file of the store");
    }
}

#[test]
fn terms_rise_across_a_directory_that_was_emptied_or_removed_while_nobody_led() {
    let sandbox = Sandbox::new();
    for run in 1..=runs() {
        let leader = ElectCmd::new(&sandbox).witness(&Witness::new()).start();
        sandbox.starts(run);
        leader.terminate();
        if run % 2 == 0 {
            empty_the_directory(&sandbox);
        } else {
            fs::remove_dir_all(sandbox.locks()).expect("the directory is there");
        }
    }
    sandbox.history().is_safe();
    sandbox.is_left_empty();
}

/// Without the record a newcomer finds the leader by the lock that it still holds. The older command is dead soon.
#[test]
fn terms_rise_across_a_directory_that_was_emptied_under_a_leader() {
    retry_if_machine_slow("directory emptied under a leader", DEAD_WITHIN, empty_within);
}

fn empty_within(limit: Duration) {
    let ended_after = in_parallel(runs(), || {
        let sandbox = Sandbox::new();
        let first = ElectCmd::new(&sandbox).witness(&Witness::new()).start();
        let led = sandbox.starts(1).latest();
        let second = ElectCmd::new(&sandbox).witness(&Witness::new()).start();
        second.wait_until_waiting();
        let end = sandbox.watch_the_end_of(led.pid);
        let emptied = now();
        empty_the_directory(&sandbox);
        let ended = end.join().expect("the watch on the tree");
        let history = sandbox.starts(2);
        let terms: Vec<u64> = history.starts.iter().map(|start| start.term).collect();
        assert!(terms.is_sorted_by(|earlier, later| earlier < later), "{terms:?}");
        first.terminate();
        second.terminate();
        sandbox.is_left_empty();
        (ended.saturating_sub(emptied), sandbox.history().overlaps.len())
    });
    let slowest = ended_after.iter().map(|(time, _)| *time).max().unwrap_or_default();
    let overlaps: usize = ended_after.iter().map(|(_, overlaps)| overlaps).sum();
    println!(
        "figures: directory emptied under a leader: {} runs, old command dead after maximum {}, overlaps {overlaps}",
        ended_after.len(),
        millis(slowest)
    );
    assert_eq!(overlaps, 0);
    assert_in_time(slowest < limit, || format!("{slowest:?}"));
}
