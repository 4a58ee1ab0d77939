//! What a service manager is told. Its ear is the test's own here; a real systemd hears in `tests/systemd.rs`.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::ear::Ear;
use crate::harness::wait::throughout;
use crate::harness::{Elect, Place, Witness, processes, until};

/// A leader command that lives until it is asked to stop.
fn told(place: &Place, ear: &Ear) -> Elect {
    Elect::new(place).variable("NOTIFY_SOCKET", ear.name()).witness(&Witness::new())
}

/// With a watchdog that barks after so long without a sign of life.
fn watched(elect: Elect, by: &str, allowed: Duration) -> Elect {
    let script = format!(r#"export WATCHDOG_PID={by} WATCHDOG_USEC={}; exec "$@""#, allowed.as_micros());
    elect.under(["sh", "-c", &script, "sh"])
}

#[test]
fn a_candidate_says_when_it_stands_whom_it_follows_when_it_leads_and_when_it_stops() {
    let place = Place::new();
    let first = Elect::new(&place).flag("--name", "web-1").witness(&Witness::new()).start();
    let term = place.starts(1).starts[0].term;
    let ear = Ear::at_a_path(&place);
    let second = told(&place, &ear).start();
    assert_eq!(ear.hears("READY"), ["READY=1\nSTATUS=campaigning\n"], "first of all, and before it leads");
    assert_eq!(ear.hears("STATUS"), [format!("STATUS=following web-1 (term {term})\n")]);
    first.stops();
    let leader = &place.starts(2).starts[1];
    let heard = ear.hears("pid");
    assert_eq!(heard[heard.len() - 1], format!("STATUS=leading, term {}, pid {}\n", leader.term, leader.pid));
    assert!(!heard.iter().any(|message| message.contains("READY")), "once: {heard:?}");
    second.signal(Signal::SIGTERM);
    let stopping = format!("STOPPING=1\nSTATUS=stopping, term {}\nEXTEND_TIMEOUT_USEC=15000000\n", leader.term);
    assert_eq!(ear.hears("STOPPING"), [stopping]);
    second.stops();
}

#[test]
fn a_manager_at_an_abstract_name_is_told_too() {
    let place = Place::new();
    let ear = Ear::at_an_abstract_name(&place);
    let candidate = told(&place, &ear).start();
    assert!(ear.hears("READY")[0].starts_with("READY=1\n"));
    ear.hears("leading");
    candidate.stops();
    ear.hears("STOPPING");
}

#[test]
fn a_candidate_that_ends_by_itself_says_so() {
    let place = Place::new();
    let ear = Ear::at_a_path(&place);
    let ended = told(&place, &ear).command(["false"]).run();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    let heard = ear.hears("STOPPING");
    assert!(heard[0].starts_with("READY=1\n"), "{heard:?}");
}

#[test]
fn a_stopped_campaigner_gives_no_sign_of_life() {
    let place = Place::new();
    let ear = Ear::at_a_path(&place);
    let allowed = Duration::from_millis(400);
    let candidate = watched(told(&place, &ear), "$$", allowed).start();
    for _ in 0..3 {
        ear.hears("WATCHDOG=1");
    }
    candidate.signal(Signal::SIGSTOP);
    until("the campaigner stands still", || processes::state(candidate.pid()) == Some('T'));
    while ear.next().is_some() {}
    throughout(3 * allowed, "no sign of life", || ear.next().is_none());
    candidate.signal(Signal::SIGCONT);
    ear.hears("WATCHDOG=1");
    candidate.stops();
}

#[test]
fn a_watchdog_for_somebody_else_is_not_petted() {
    let place = Place::new();
    let ear = Ear::at_a_path(&place);
    let candidate = watched(told(&place, &ear), "1", Duration::from_millis(100)).start();
    ear.hears("pid");
    throughout(Duration::from_millis(500), "nothing more to be said", || ear.next().is_none());
    candidate.stops();
}

#[test]
fn a_manager_that_does_not_listen_delays_nothing_and_hears_what_is_true_once_it_does() {
    let place = Place::new();
    let ear = Ear::at_a_path(&place);
    ear.fill();
    let candidate = told(&place, &ear).start();
    let leader = &place.starts(1).starts[0];
    assert!(ear.is_full(), "it has not listened yet");
    let heard = ear.hears("READY");
    let leading = format!("STATUS=leading, term {}, pid {}\n", leader.term, leader.pid);
    let last = &heard[heard.len() - 1];
    assert!(last.contains(&leading), "{last:?}");
    ear.fill();
    candidate.stops();
}

#[test]
fn what_systemd_says_to_elect_is_not_passed_on() {
    let place = Place::new();
    let ear = Ear::at_a_path(&place);
    let for_elect = ["WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "LISTEN_PIDFDID"];
    let elect = for_elect.iter().fold(told(&place, &ear), |elect, name| elect.variable(name, "1000000"));
    let ended = elect.variable("LISTEN_ADDRESS", "mine").variable("NOTIFY", "mine").command(["env"]).run();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    let names: Vec<&str> = ended.stdout.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    let passed_on: Vec<&&str> =
        names.iter().filter(|name| for_elect.contains(name) || **name == "NOTIFY_SOCKET").collect();
    assert!(passed_on.is_empty(), "{passed_on:?}");
    assert!(names.contains(&"LISTEN_ADDRESS") && names.contains(&"NOTIFY"), "the user's own are: {names:?}");
}
