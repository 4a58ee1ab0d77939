//! The tests of the tests: what elect must never do is done here by something worse, and has to be noticed.

use nix::sys::signal::Signal;

use crate::harness::processes;
use crate::harness::{ElectCmd, HandoverRuns, History, Sandbox, Witness, until};

#[test]
fn a_wrapper_that_drops_its_lock_while_the_command_lives_is_caught() {
    // As etcdctl lock does: killed, it leaves the command behind and the lock free.
    let handover_runs = HandoverRuns::of(1)
        .witness(Witness::new().daemon())
        .wrapper(r#"lock=$1; shift; export ELECT_TERM=$(date +%s%N); exec flock -o "$lock" "$@""#);
    let measurements = handover_runs.run(|leader| leader.signal(Signal::SIGKILL), |_| ());
    measurements.print("positive control, flock -o killed");
    assert_eq!(measurements.overlaps, 1, "the hand-over overlaps: {measurements}");
    assert!(measurements.survivors >= 2, "the old tree lives on: {measurements}");
}

#[test]
fn a_wrapper_without_any_lock_is_caught() {
    let sandbox = Sandbox::new();
    let start = || ElectCmd::new(&sandbox).program(["env", "ELECT_TERM=1"]).witness(&Witness::new()).start();
    let one = start();
    sandbox.starts(1);
    let other = start();
    let history = sandbox.starts(2);
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
    let sandbox = Sandbox::new();
    let mut shell = ElectCmd::new(&sandbox).program(["sh", "-c", "setsid --fork sleep 600 & wait"]).start();
    shell.ends_with(0);
    until("the sleeper is found", || {
        let left: Vec<String> = sandbox.running().into_iter().map(|process| process.name).collect();
        left == ["sleep"]
    });
    drop(shell);
    assert_eq!(sandbox.running(), [], "the handle took it along");
}

#[test]
fn nothing_outlives_its_place() {
    let sandbox = Sandbox::new();
    let mark = sandbox.mark();
    let candidate = ElectCmd::new(&sandbox).witness(&Witness::new().daemon().stubborn()).start();
    sandbox.history_when("the grandchild", |history| !history.grandchildren.is_empty());
    drop(candidate);
    drop(sandbox);
    assert_eq!(processes::marked(&mark), []);
}
