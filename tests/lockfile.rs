//! The lock file: shared with flock(1), and in the hands of whoever may delete, replace or unlock it.

use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::history::{Entry, median, millis};
use crate::harness::wait::{now, throughout, until};
use crate::harness::{Candidate, Elect, Figures, Place, Relay, Witness, processes, runs};

/// Within this time of a lost lock nothing of the command may live.
const DEAD_WITHIN: Duration = Duration::from_secs(2);

#[test]
fn flock_on_the_lock_file_excludes_elect() {
    let place = Place::new();
    fs::create_dir(place.locks()).expect("an empty place");
    let lock = place.lock_file().display().to_string();
    let holder = Elect::new(&place).instead(["flock", &lock]).shell("echo held; exec sleep 600").start();
    until("flock has the lock", || holder.output().contains("held"));
    let candidate = Elect::new(&place).witness(&Witness::new()).start();
    candidate.waits();
    throughout(Duration::from_secs(2), "it waits", || place.history().starts.is_empty());
    drop(holder);
    place.starts(1);
    candidate.stops();
    place.is_left_empty();
}

#[test]
fn elect_excludes_flock_on_the_lock_file() {
    let place = Place::new();
    let try_flock = |place: &Place| {
        let lock = place.lock_file().display().to_string();
        Elect::new(place).instead(["flock", "--nonblock", &lock, "true"]).run().status.code()
    };
    let leader = Elect::new(&place).witness(&Witness::new()).start();
    place.starts(1);
    assert_eq!(try_flock(&place), Some(1), "refused while somebody leads");
    leader.stops();
    assert_eq!(try_flock(&place), Some(0), "granted when nobody does");
}

/// Does something to the lock file under a leader, `runs()` times, in a place of its own each.
fn lose_the_lock_file(kind: &str, loss: impl Fn(&Place) + Sync) {
    let mut figures = Figures::default();
    let parts: Vec<Figures> = in_parallel(runs(), || lose_once(&loss));
    for part in parts {
        figures.add(part);
    }
    let slowest = figures.endings.iter().max().copied().unwrap_or_default();
    println!(
        "figures: {kind}: {} runs, command dead after median {} maximum {}, next start after that median {}, overlaps {}, survivors {}",
        figures.endings.len(),
        median(&figures.endings).map(millis).unwrap_or_default(),
        millis(slowest),
        median(&figures.handovers).map(millis).unwrap_or_default(),
        figures.overlaps,
        figures.survivors,
    );
    assert_eq!((figures.overlaps, figures.survivors), (0, 0), "{kind}: {figures}");
    assert!(slowest < DEAD_WITHIN, "{kind}: {figures}");
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

fn lose_once(loss: impl Fn(&Place)) -> Figures {
    let place = Place::new();
    let witness = Witness::new().daemon().stubborn();
    let quick = |place: &Place| Elect::new(place).flag("--stop-timeout", "300ms").witness(&witness).start();
    let mut first = quick(&place);
    let led = place.history_when("the grandchild", |history| !history.grandchildren.is_empty()).latest();
    let second = quick(&place);
    second.waits();
    let end = place.watch_the_end_of(led.pid);
    let struck = now();
    loss(&place);
    let ended = end.join().expect("the watch on the tree");
    first.says("leadership lost");
    let started = place.starts(2).latest();
    assert!(!first.has_ended(), "it campaigns again");
    let figures = Figures {
        handovers: vec![started.at.saturating_sub(ended)],
        endings: vec![ended.saturating_sub(struck)],
        overlaps: place.history().overlaps.len(),
        survivors: 0,
    };
    // Whoever leads now: when it has gone, the other one does.
    let (leader, other) = if leads(&first, started) { (first, second) } else { (second, first) };
    leader.stops();
    let last = place.starts(3).latest();
    assert!(leads(&other, last));
    other.stops();
    place.history().is_safe();
    place.is_left_empty();
    figures
}

fn leads(candidate: &Candidate, entry: Entry) -> bool {
    candidate.tree().iter().any(|process| process.pid == entry.pid)
}

#[test]
fn a_deleted_lock_file_costs_the_leadership_and_nothing_overlaps() {
    lose_the_lock_file("lock file deleted under a leader", |place| {
        fs::remove_file(place.lock_file()).expect("the lock file is there");
    });
}

#[test]
fn a_renamed_lock_file_costs_the_leadership_and_nothing_overlaps() {
    lose_the_lock_file("lock file renamed under a leader", |place| {
        fs::rename(place.lock_file(), place.path().join("elsewhere")).expect("the lock file is there");
    });
}

#[test]
fn a_replaced_lock_file_costs_the_leadership_and_nothing_overlaps() {
    lose_the_lock_file("lock file replaced under a leader", |place| {
        let replacement = place.path().join("replacement");
        fs::write(&replacement, "").expect("the place takes a file");
        fs::rename(replacement, place.lock_file()).expect("the lock file is there");
    });
}

#[test]
fn a_candidate_that_arrives_at_a_new_lock_file_waits_for_the_leader_to_notice() {
    let place = Place::new();
    let leader = Elect::new(&place).witness(&Witness::new().daemon().stubborn()).start();
    place.history_when("the grandchild", |history| !history.grandchildren.is_empty());
    fs::remove_file(place.lock_file()).expect("the lock file is there");
    let newcomer = Elect::new(&place).witness(&Witness::new()).start();
    place.starts(2);
    place.history().is_safe();
    leader.stops();
    newcomer.stops();
    place.history().is_safe();
    place.is_left_empty();
}

#[test]
fn a_stopped_or_killed_campaigner_whose_lock_file_was_replaced_is_waited_for_too() {
    let place = Place::new();
    // Nobody looks after the lock any more, and the command has a grace of its own that is longer than any settling.
    let leader = Elect::new(&place).flag("--stop-timeout", "6s").witness(&Witness::new().daemon().stubborn()).start();
    place.history_when("the grandchild", |history| !history.grandchildren.is_empty());
    leader.signal(Signal::SIGSTOP);
    fs::remove_file(place.lock_file()).expect("the lock file is there");
    let newcomer = Elect::new(&place).witness(&Witness::new()).start();
    newcomer.says("the lock file is a new one; on the old one the lock is held");
    assert_eq!(place.history().starts.len(), 1);
    leader.signal(Signal::SIGKILL);
    place.starts(2);
    place.history().is_safe();
    newcomer.stops();
    place.is_left_empty();
}

#[test]
fn a_directory_that_is_emptied_under_a_leader_is_not_taken_for_a_new_one() {
    let place = Place::new();
    let leader = Elect::new(&place).witness(&Witness::new().daemon().stubborn()).start();
    place.history_when("the grandchild", |history| !history.grandchildren.is_empty());
    leader.signal(Signal::SIGSTOP);
    fs::remove_dir_all(place.locks()).expect("the directory is there");
    let newcomer = Elect::new(&place).witness(&Witness::new()).start();
    newcomer.says("the lock file is a new one; on the old one the lock is held");
    assert_eq!(place.history().starts.len(), 1);
    leader.signal(Signal::SIGCONT);
    place.starts(2);
    place.history().is_safe();
    leader.stops();
    newcomer.stops();
    place.history().is_safe();
    place.is_left_empty();
}

#[test]
fn a_command_that_unlocks_its_copy_costs_the_leadership_if_somebody_waits() {
    lose_the_lock_file("flock -u by the command", |place| {
        processes::signal(place.history().latest().pid, Signal::SIGUSR1);
    });
}

#[test]
fn a_command_that_unlocks_its_copy_costs_nothing_if_nobody_waits() {
    let place = Place::new();
    let leader = Elect::new(&place).witness(&Witness::new()).start();
    let led = place.starts(1).latest();
    processes::signal(led.pid, Signal::SIGUSR1);
    place.history_when("it has unlocked", |history| !history.unlocks.is_empty());
    throughout(Duration::from_secs(3), "it leads on", || processes::is_alive(led.pid));
    let lock = place.lock_file().display().to_string();
    let ended = Elect::new(&place).instead(["flock", "--nonblock", &lock, "true"]).run();
    assert_eq!(ended.status.code(), Some(1), "the lock is taken again");
    leader.stops();
    assert_eq!(place.history().starts.len(), 1);
    place.is_left_empty();
}

#[test]
fn a_command_that_closes_every_descriptor_is_gone_before_the_next_one_starts() {
    for witness in [Witness::new().closing(), Witness::new().closing().daemon()] {
        let figures = Relay::of(runs())
            .witness(witness)
            .run(|leader| leader.signal(Signal::SIGKILL), |leader| leader.ends_by(Signal::SIGKILL));
        figures.print("command closes every descriptor, campaigner SIGKILLed");
        assert_eq!((figures.overlaps, figures.survivors), (0, 0), "{figures}");
    }
    let figures = Relay::of(runs())
        .witness(Witness::new().closing().daemon())
        .run(|leader| processes::signal(leader.keeper(), Signal::SIGKILL), |leader| leader.ends_with(125));
    figures.print("command closes every descriptor, keeper SIGKILLed");
    assert_eq!((figures.overlaps, figures.survivors), (0, 0), "{figures}");
}

fn empty_the_directory(place: &Place) {
    for entry in fs::read_dir(place.locks()).expect("the directory is there") {
        let path = entry.expect("an entry").path();
        fs::remove_file(path).expect("a file of the store");
    }
}

#[test]
fn terms_rise_across_a_directory_that_was_emptied_or_removed_while_nobody_led() {
    let place = Place::new();
    for run in 1..=runs() {
        let leader = Elect::new(&place).witness(&Witness::new()).start();
        place.starts(run);
        leader.stops();
        if run % 2 == 0 {
            empty_the_directory(&place);
        } else {
            fs::remove_dir_all(place.locks()).expect("the directory is there");
        }
    }
    place.history().is_safe();
    place.is_left_empty();
}

/// Without the record a newcomer finds the leader by the lock that it still holds. The older command is dead soon.
#[test]
fn terms_rise_across_a_directory_that_was_emptied_under_a_leader() {
    let ended_after = in_parallel(runs(), || {
        let place = Place::new();
        let first = Elect::new(&place).witness(&Witness::new()).start();
        let led = place.starts(1).latest();
        let second = Elect::new(&place).witness(&Witness::new()).start();
        second.waits();
        let end = place.watch_the_end_of(led.pid);
        let emptied = now();
        empty_the_directory(&place);
        let ended = end.join().expect("the watch on the tree");
        let history = place.starts(2);
        let terms: Vec<u64> = history.starts.iter().map(|start| start.term).collect();
        assert!(terms.is_sorted_by(|earlier, later| earlier < later), "{terms:?}");
        first.stops();
        second.stops();
        place.is_left_empty();
        (ended.saturating_sub(emptied), place.history().overlaps.len())
    });
    let slowest = ended_after.iter().map(|(time, _)| *time).max().unwrap_or_default();
    let overlaps: usize = ended_after.iter().map(|(_, overlaps)| overlaps).sum();
    println!(
        "figures: directory emptied under a leader: {} runs, old command dead after maximum {}, overlaps {overlaps}",
        ended_after.len(),
        millis(slowest)
    );
    assert_eq!(overlaps, 0);
    assert!(slowest < DEAD_WITHIN, "{slowest:?}");
}
