//! The tests of the tests: what elect must never do is done here by something worse, and has to be noticed.

use nix::sys::signal::Signal;

use crate::harness::processes;
use crate::harness::{Elect, History, Place, Relay, Witness, until};

#[test]
fn a_wrapper_that_drops_its_lock_while_the_command_lives_is_caught() {
    // As etcdctl lock does: killed, it leaves the command behind and the lock free.
    let relay = Relay::of(1)
        .witness(Witness::new().daemon())
        .wrapper(r#"lock=$1; shift; export ELECT_TERM=$(date +%s%N); exec flock -o "$lock" "$@""#);
    let figures = relay.run(|leader| leader.signal(Signal::SIGKILL), |_| ());
    figures.print("positive control, flock -o killed");
    assert_eq!(figures.overlaps, 1, "the hand-over overlaps: {figures}");
    assert!(figures.survivors >= 2, "the old tree lives on: {figures}");
}

#[test]
fn a_wrapper_without_any_lock_is_caught() {
    let place = Place::new();
    let start = || Elect::new(&place).instead(["env", "ELECT_TERM=1"]).witness(&Witness::new()).start();
    let one = start();
    place.starts(1);
    let other = start();
    let history = place.starts(2);
    let verdict = history.verdict().expect_err("two at once");
    assert!(verdict.contains("overlap"), "{verdict}");
    drop((one, other));
}

#[test]
fn terms_that_do_not_rise_are_caught() {
    let line = |term: u64, at: u64| format!("start {term} {} {at}\n", 1000 + at);
    let history = |terms: &[u64]| {
        let lines: String = terms.iter().zip(1..).map(|(&term, at)| line(term, at)).collect();
        History::parse(&lines)
    };
    assert_eq!(history(&[1, 2, 5]).verdict(), Ok(()));
    assert!(history(&[1, 2, 2]).verdict().is_err(), "the same term twice");
    assert!(history(&[1, 5, 3]).verdict().is_err(), "a smaller one");
}

#[test]
fn a_survivor_is_found_wherever_it_went() {
    let place = Place::new();
    let mut shell = Elect::new(&place).instead(["sh", "-c", "setsid --fork sleep 600 & wait"]).start();
    shell.ends_with(0);
    until("the sleeper is found", || {
        let left: Vec<String> = place.running().into_iter().map(|process| process.name).collect();
        left == ["sleep"]
    });
    drop(shell);
    assert_eq!(place.running(), [], "the handle took it along");
}

#[test]
fn nothing_outlives_its_place() {
    let place = Place::new();
    let mark = place.mark();
    let candidate = Elect::new(&place).witness(&Witness::new().daemon().stubborn()).start();
    place.history_when("the grandchild", |history| !history.grandchildren.is_empty());
    drop(candidate);
    drop(place);
    assert_eq!(processes::marked(&mark), []);
}
