//! How the command is stopped, and what is said about it: `--stop-to`, leftovers, time-outs, the keeper's last line,
//! reasons for hooks, signals without a terminal, resignations in a row, `--conflict-exit-code`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::candidate::elect;
use crate::harness::wait::{now, since, throughout};
use crate::harness::{CandidateProcess, ElectCmd, Sandbox, Witness, processes, until};

/// A script with a child at work, which ends when the file exists.
fn at_work(file: &Path) -> String {
    let file = file.display();
    format!("trap 'exit 0' TERM; sh -c 'echo work; until [ -e {file} ]; do sleep 0.02; done; echo finished'")
}

fn working(sandbox: &Sandbox, stop_to: &str) -> (CandidateProcess, PathBuf) {
    let file = sandbox.path().join("may-end");
    let leader = ElectCmd::new(sandbox).flag("--stop-to", stop_to).shell(&at_work(&file)).start();
    until("it works", || leader.output() == "work\n");
    leader.signal(Signal::SIGTERM);
    leader.wait_for_log("asked to stop");
    (leader, file)
}

#[test]
fn work_in_flight_is_finished_because_the_main_process_alone_is_asked_to_stop() {
    let sandbox = Sandbox::new();
    let (mut leader, file) = working(&sandbox, "main");
    fs::write(file, "").expect("written");
    leader.ends_with(0);
    assert_eq!(leader.output(), "work\nfinished\n");
    sandbox.is_left_empty();

    // With the whole group the worker gets the signal, and its work is lost.
    let sandbox = Sandbox::new();
    let (mut leader, _) = working(&sandbox, "group");
    leader.ends_with(0);
    assert_eq!(leader.output(), "work\n");
    sandbox.is_left_empty();
}

/// A shell that waits for a child handles no signal before the child ends.
#[test]
fn a_child_that_is_not_told_by_its_main_process_is_told_before_the_time_is_over() {
    let sandbox = Sandbox::new();
    // The child says that it is up: the shell itself would handle a signal that comes before its child is there.
    let script = "trap 'exit 3' TERM; sh -c 'echo up; exec sleep 600'; exit 4";
    let mut leader = ElectCmd::new(&sandbox).flag("--stop-timeout", "8s").shell(script).start();
    until("it runs", || leader.output() == "up\n");
    let asked = now();
    leader.signal(Signal::SIGTERM);
    leader.ends_with(3);
    assert!(since(asked) >= Duration::from_secs(6), "{:?}", since(asked));
    assert!(!leader.log().contains("killed"), "{}", leader.log());
    sandbox.is_left_empty();
}

#[test]
fn processes_that_the_main_process_leaves_behind_are_named_with_advice() {
    let sandbox = Sandbox::new();
    let script = "cd $WITNESS_PLACE; setsid --fork sh -c '>up; exec sleep 600'; until [ -e up ]; do sleep 0.02; done";
    let ended = ElectCmd::new(&sandbox).shell(script).run();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    let line = ended.stderr.lines().find(|line| line.contains("left behind")).unwrap_or_default();
    assert!(line.contains("warning: the leader command has ended and left behind 1 process: "), "{ended:?}");
    assert!(line.contains(" (pid ") && line.contains("in the foreground"), "{ended:?}");
    sandbox.is_left_empty();
    // Nothing is left behind: not a word.
    let ended = ElectCmd::new(&sandbox).shell("sleep 0.1; exit 0").run();
    assert!(!ended.stderr.contains("left behind"), "{ended:?}");
}

#[test]
fn a_stop_that_takes_too_long_is_explained_in_one_line() {
    let sandbox = Sandbox::new();
    let witness = Witness::new().stubborn();
    let mut leader = ElectCmd::new(&sandbox).flag("--stop-timeout", "500ms").witness(&witness).start();
    sandbox.starts(1);
    leader.signal(Signal::SIGTERM);
    leader.ends_with(137);
    let log = leader.log();
    let line = log.lines().find(|line| line.contains("(--stop-timeout)")).unwrap_or_default();
    assert!(line.contains("warning: ") && line.contains(" (pid ") && line.contains("--stop-to"), "{log}");
    assert!(log.contains("leader command ended signal=\"KILL\" by=\"elect\""), "{log}");
    assert_eq!(log.lines().filter(|line| line.contains("warning: ") || line.contains("error: ")).count(), 1, "{log}");
    sandbox.is_left_empty();
}

#[test]
fn a_suspended_campaigner_does_not_report_a_command_that_has_ended_meanwhile() {
    let sandbox = Sandbox::new();
    let script = "trap 'echo told' TERM; echo runs; while :; do sleep 0.1; done";
    let mut leader = ElectCmd::new(&sandbox).flag("--stop-timeout", "1s").shell(script).start();
    until("the command runs", || leader.output().contains("runs"));
    let keeper = leader.keeper();
    leader.signal(Signal::SIGTERM);
    // The log says so before the keeper has the order.
    // On a busy machine it may be killed before it has said so.
    let is_killed = || processes::children(keeper).is_empty();
    until("the command is asked to stop", || leader.output().contains("told") || is_killed());
    leader.signal(Signal::SIGSTOP);
    until("the command is killed", is_killed);
    throughout(Duration::from_millis(1_500), "it stays suspended", || true);
    leader.signal(Signal::SIGCONT);
    leader.ends_with(137);
    assert!(!leader.log().contains("still not gone"), "{}", leader.log());
    sandbox.is_left_empty();
}

#[test]
fn a_hangup_between_two_runs_does_not_end_elect() {
    let sandbox = Sandbox::new();
    let elect = ElectCmd::new(&sandbox).flag("--restart", "always").flag("--restart-delay", "1h");
    let mut leader = elect.wrapped_by(["setsid"]).shell("exit 0").start();
    leader.wait_for_log("is started again in");
    leader.signal(Signal::SIGHUP);
    throughout(Duration::from_millis(300), "it goes on", || !leader.has_ended());
    leader.signal(Signal::SIGTERM);
    leader.ends_by(Signal::SIGTERM);
    sandbox.is_left_empty();
}

#[test]
fn after_the_campaigners_death_the_keeper_logs_one_line() {
    for format in ["text", "json"] {
        let sandbox = Sandbox::new();
        let elect = ElectCmd::new(&sandbox).flag("--log-format", format).flag("--on-ousted", "echo $ELECT_REASON");
        let mut leader = elect.witness(&Witness::new().exits_with(3)).start();
        sandbox.starts(1);
        let before = leader.log();
        leader.signal(Signal::SIGKILL);
        leader.wait();
        until("the keeper has logged", || leader.log().contains("the campaigner has died"));
        let log = leader.log();
        let last = log.strip_prefix(&before).expect("a log only grows");
        assert_eq!(last.lines().count(), 1, "{last}");
        let expected = "the leader command was stopped (status 3), --on-ousted has run (status 0); what it held in the \
                        store is released";
        assert!(last.contains(expected) && last.contains("term"), "{last}");
        assert_eq!(last.starts_with('{'), format == "json", "{last}");
        assert_eq!(leader.output(), "campaigner-died\n");
        sandbox.is_left_empty();
    }
    // A candidate that has ended in an orderly way has said everything itself.
    let sandbox = Sandbox::new();
    let ended = ElectCmd::new(&sandbox).shell("exit 0").run();
    assert!(!ended.stderr.contains("the campaigner has died"), "{ended:?}");
}

#[test]
fn hooks_are_told_the_reason_and_their_starts_and_ends_are_in_the_debug_log() {
    let sandbox = Sandbox::new();
    let tells = "echo $ELECT_REASON";
    let elect = |sandbox| ElectCmd::new(sandbox).switch("-v").flag("--on-elected", tells).flag("--on-ousted", tells);
    let ended = elect(&sandbox).shell("echo \"[$ELECT_REASON]\"; exit 4").run();
    assert_eq!(ended.stdout, "elected\n[]\ncommand-ended\n", "{ended:?}");
    for hook in ["--on-elected", "--on-ousted"] {
        ended.stderr_contains(&[&format!("debug: {hook} starts"), &format!("debug: {hook} ended status=0")]);
    }
    let mut leader = elect(&sandbox).shell("echo up; sleep 600").start();
    until("it runs", || leader.output().ends_with("up\n"));
    leader.signal(Signal::SIGTERM);
    leader.wait();
    assert_eq!(leader.output(), "elected\nup\nstopped\n");
    sandbox.is_left_empty();
}

#[test]
fn a_sole_candidate_whose_command_resigns_is_started_more_and_more_rarely() {
    let sandbox = Sandbox::new();
    let starts = sandbox.path().join("resigns");
    let script =
        format!("cut -d' ' -f1 /proc/uptime >> {}; '{}' resign; sleep 600", starts.display(), elect().display());
    let leader = ElectCmd::new(&sandbox).shell(&script).start();
    let times = || -> Vec<f64> {
        let text = fs::read_to_string(&starts).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    };
    until("it has been started five times", || times().len() >= 5);
    let times = times();
    assert!(times[3] - times[2] >= 0.9 && times[4] - times[3] >= 1.9, "1 s, then 2 s: {times:?}");
    leader.terminate();
    sandbox.is_left_empty();
}

#[test]
fn another_exit_status_for_a_candidate_that_is_not_elected() {
    let sandbox = Sandbox::new();
    let leader = ElectCmd::new(&sandbox).witness(&Witness::new()).start();
    sandbox.starts(1);
    for (flag, status) in [("-E0", 0), ("--conflict-exit-code=9", 9), ("--quiet", 75)] {
        let ended = ElectCmd::new(&sandbox).switch("-n").switch(flag).command(["true"]).run();
        assert_eq!(ended.status.code(), Some(status), "{ended:?}");
    }
    let ended = ElectCmd::new(&sandbox).switch("-n").variable("ELECT_CONFLICT_EXIT_CODE", "0").command(["true"]).run();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    leader.terminate();
    // Every other status is the same.
    let ended = ElectCmd::new(&sandbox).switch("-n").switch("-E0").shell("exit 75").run();
    assert_eq!(ended.status.code(), Some(75), "{ended:?}");
    ElectCmd::new(&sandbox).switch("-E256").command(["true"]).run().fails_with(2, &["256", "0..=255"]);
    sandbox.is_left_empty();
}
