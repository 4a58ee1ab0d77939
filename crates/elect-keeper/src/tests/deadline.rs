//! K1: the deadline is kept without the campaigner's help and whatever the command does.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::harness::*;
use super::storm::{dies_in_time, time_after};
use crate::clock;
use crate::{Containment, ToKeeper, sys};
use elect_core::{FromKeeper, Time};

/// Runs a test in the tier that is always there.
fn in_time(test: impl Fn(&Path) -> Duration) {
    dies_in_time(Containment::Tree, |directory, _| test(directory));
}

#[test]
fn armed_and_left_alone_it_kills_on_time_on_a_loaded_machine() {
    let runs = if std::env::var_os("ELECT_LONG").is_some() { 100 } else { 20 };
    let _load = Load::on_every_processor();
    in_time(|directory| {
        let mut fixture = program(directory, "/bin/sleep", &["sleep", "100"]).fork();
        // Measures the keeper, not the delay that the storm or the load causes in this process.
        sys::schedule_first();
        let mut late = Vec::new();
        for term in 1u64.. {
            if late.len() == runs {
                break;
            }
            let kill_by = clock::now() + ms(150);
            fixture.arm(term, kill_by);
            let run = fixture.order_start(term, &[]);
            let mut answer = fixture.answer();
            let FromKeeper::Started { pid, .. } = answer else {
                // A slow machine may miss the deadline before the start; then the test tries again.
                while answer != (FromKeeper::Empty { run }) {
                    answer = fixture.answer();
                }
                continue;
            };
            if let Some(process) = watch(pid) {
                late.push(time_after(kill_by, ended(&process)));
            }
            fixture.hears(FromKeeper::Expired { term });
            fixture.exited(killed(libc::SIGKILL, true));
            fixture.empty();
        }
        late.sort();
        note(&format!(
            "SIGKILL after its deadline, {runs} runs: median {:?}, at most {:?}",
            late[runs / 2],
            late[runs - 1]
        ));
        late[runs - 1]
    });
}

#[test]
fn a_stubborn_tree_is_gone_within_the_allowance() {
    in_time(|directory| {
        let mut fixture = script(directory, STUBBORN).fork();
        sys::schedule_first(); // the keeper is measured, not this process
        let (_, kill_by) = fixture.start_under_deadline(&["main", "grandchild"]);
        let late = time_after(kill_by, fixture.witness.gone());
        fixture.hears(FromKeeper::Expired { term: TERM });
        fixture.exited(killed(libc::SIGKILL, true));
        fixture.empty();
        late
    });
}

#[test]
fn a_deadline_that_moves_forward_keeps_the_command_alive() {
    in_time(|directory| {
        let mut fixture = script(directory, STUBBORN).fork();
        sys::schedule_first(); // the keeper is measured, not this process
        let (_, first) = fixture.start_under_deadline(&["main", "grandchild"]);
        let second = first + ms(400);
        fixture.arm(TERM, second);
        time_after(second, fixture.witness.gone())
    });
}

#[test]
fn a_stop_that_is_asked_for_does_not_put_the_deadline_off() {
    in_time(|directory| {
        let mut fixture = script(directory, STUBBORN).fork();
        sys::schedule_first(); // the keeper is measured, not this process
        let (_, kill_by) = fixture.start_under_deadline(&["main", "grandchild"]);
        fixture.send(&ToKeeper::Stop { kill_at: Time::NEVER });
        time_after(kill_by, fixture.witness.gone())
    });
}

#[test]
fn a_keeper_that_was_stopped_kills_as_soon_as_it_goes_on() {
    in_time(|directory| {
        let mut fixture = script(directory, STUBBORN).fork();
        let (_, kill_by) = fixture.start_under_deadline(&["main", "grandchild"]);
        signal(fixture.keeper.pid(), libc::SIGSTOP);
        until("the deadline", || clock::now() > kill_by + ms(100));
        assert!(!fixture.witness.is_gone(), "nobody could kill it");
        // A renewal that was waiting in the socket is too late: the term is over.
        fixture.send(&ToKeeper::Arm { term: TERM, kill_by: kill_by + ms(60_000) });
        let resumed = clock::now();
        signal(fixture.keeper.pid(), libc::SIGCONT);
        let late = time_after(resumed, fixture.witness.gone());
        fixture.hears(FromKeeper::Expired { term: TERM });
        fixture.hears(FromKeeper::Armed { term: TERM, kill_by });
        late
    });
}

/// K1: the deadline comes before whatever else has happened meanwhile. A command that had ended by then ended too late:
/// the term is over, and no renewal may open it again.
#[test]
fn a_deadline_that_has_passed_is_reported_before_the_end_of_the_command() {
    alone(|directory| {
        let mut fixture = script(directory, SLEEPER).fork();
        let (main, kill_by) = fixture.start_under_deadline(&["main"]);
        signal(fixture.keeper.pid(), libc::SIGSTOP);
        signal(main, libc::SIGTERM);
        until("the deadline", || clock::now() > kill_by);
        signal(fixture.keeper.pid(), libc::SIGCONT);
        fixture.hears(FromKeeper::Expired { term: TERM });
        fixture.exited(killed(libc::SIGTERM, false));
        fixture.empty();
    });
}

#[test]
fn a_campaigner_that_never_stops_talking_does_not_put_it_off() {
    in_time(|directory| {
        let mut fixture = script(directory, STUBBORN).fork();
        let (_, kill_by) = fixture.start_under_deadline(&["main", "grandchild"]);
        let (keeper, over) = (&fixture.keeper, AtomicBool::new(false));
        let died = std::thread::scope(|threads| {
            for _ in 0..4 {
                threads.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        let _ = keeper.send(&ToKeeper::Arm { term: TERM + 1, kill_by: Time::NEVER });
                    }
                });
            }
            let died = fixture.witness.gone();
            over.store(true, Ordering::Relaxed);
            died
        });
        time_after(kill_by, died)
    });
}

#[test]
fn a_campaigner_that_does_not_listen_puts_nothing_off_and_misses_nothing() {
    in_time(|directory| {
        let mut fixture = script(directory, STUBBORN).fork();
        let (_, kill_by) = fixture.start_under_deadline(&["main", "grandchild"]);
        for _ in 0..10_000 {
            let _ = fixture.keeper.send(&ToKeeper::Ping);
        }
        let late = time_after(kill_by, fixture.witness.gone());
        let mut said = Vec::new();
        while said.last() != Some(&FromKeeper::Empty { run: 1 }) {
            said.push(fixture.answer());
        }
        said.retain(|answer| *answer != FromKeeper::Pong);
        let exited = FromKeeper::Exited { run: 1, end: killed(libc::SIGKILL, true) };
        assert_eq!(said, [FromKeeper::Expired { term: TERM }, exited, FromKeeper::Empty { run: 1 }]);
        late
    });
}
