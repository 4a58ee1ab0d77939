//! A command that is started again: `--restart`, `--restart-delay`, `--restart-limit`.

use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::executables;
use crate::harness::resource_usage::ResourceUsage;
use crate::harness::timing_verdict::{assert_in_time, retry_if_machine_slow, throughout_in_time};
use crate::harness::wait::{now, since, throughout};
use crate::harness::{CandidateProcess, ElectCmd, Sandbox, Witness, millis, until};

/// Notes its term and its name, and goes on as it is told.
fn noting(then: &str) -> String {
    format!("echo $ELECT_TERM $ELECT_NAME >> $WITNESS_PLACE/runs; {then}")
}

fn runs(sandbox: &Sandbox) -> Vec<String> {
    let text = fs::read_to_string(sandbox.path().join("runs")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// How many runs there were, all in one term.
#[track_caller]
fn in_one_term(sandbox: &Sandbox) -> usize {
    let mut terms = runs(sandbox);
    let runs = terms.len();
    terms.dedup();
    assert_eq!(terms.len(), 1, "{terms:?}");
    runs
}

fn restarting(sandbox: &Sandbox, when: &str) -> ElectCmd {
    ElectCmd::new(sandbox).flag("--restart", when).flag("--restart-delay", "20ms")
}

#[test]
fn restarts_keep_the_term_and_are_counted() {
    for (when, status) in [("always", 0), ("always", 5), ("on-failure", 5)] {
        let sandbox = Sandbox::new();
        let elect = restarting(&sandbox, when).flag("--restart-limit", "3/1h").switch("-n");
        let ended = elect.shell(&noting(&format!("exit {status}"))).run();
        // With --no-wait a candidate ends with its command's status after the last restart.
        assert_eq!(ended.status.code(), Some(status), "{ended:?}");
        assert_eq!(in_one_term(&sandbox), 4, "one start and three restarts: {ended:?}");
        ended.stderr_contains(&["the leader command is started again in", "--restart-limit"]);
        sandbox.is_left_empty();
    }
}

#[test]
fn after_a_success_on_failure_ends_and_never_ends_after_anything() {
    let sandbox = Sandbox::new();
    let third_time = "[ $(wc -l < $WITNESS_PLACE/runs) -ge 3 ] && exit 0; kill -9 $$";
    let ended = restarting(&sandbox, "on-failure").shell(&noting(third_time)).run();
    assert_eq!((ended.status.code(), in_one_term(&sandbox)), (Some(0), 3), "{ended:?}");
    let sandbox = Sandbox::new();
    for flags in [&[][..], &["--restart=never"]] {
        let elect = flags.iter().fold(ElectCmd::new(&sandbox), |elect, flag| elect.switch(flag));
        assert_eq!(elect.shell(&noting("exit 5")).run().status.code(), Some(5));
    }
    assert_eq!(runs(&sandbox).len(), 2);
    let ended = ElectCmd::new(&sandbox).variable("ELECT_RESTART", "on-failure").shell(&noting("exit 0")).run();
    assert_eq!((ended.status.code(), runs(&sandbox).len()), (Some(0), 3));
}

#[test]
fn a_command_that_cannot_be_executed_any_more_is_not_tried_again() {
    let sandbox = Sandbox::new();
    let script = sandbox.path().join("script");
    for (spoil, status) in [("rm \"$0\"", 127), ("chmod 0 \"$0\"", 126)] {
        executables::script(&script, &format!("#!/bin/sh\n{}\n", noting(&format!("{spoil}; exit 1"))));
        let ended = restarting(&sandbox, "always").command([script.as_os_str()]).run();
        assert_eq!(ended.status.code(), Some(status), "{ended:?}");
    }
    assert_eq!(runs(&sandbox).len(), 2);
    sandbox.is_left_empty();
}

/// Holds a lock for as long as anything of it lives: what is started beside it finds it held.
const LEAVING_A_STUBBORN_ONE: &str = "exec 8>> $WITNESS_PLACE/lock; flock -n 8 || echo overlap >> $WITNESS_PLACE/runs; \
    setsid --fork sh -c \"trap '' TERM; touch $WITNESS_PLACE/up; while :; do sleep 0.05; done\"; \
    until [ -e $WITNESS_PLACE/up ]; do sleep 0.01; done; rm $WITNESS_PLACE/up; exit 1";

#[test]
fn a_stubborn_grandchild_is_gone_before_the_command_is_started_again() {
    let sandbox = Sandbox::new();
    let ended = restarting(&sandbox, "on-failure")
        .flag("--stop-timeout", "200ms")
        .flag("--restart-limit", "4/1h")
        .switch("-n")
        .shell(&noting(LEAVING_A_STUBBORN_ONE))
        .run();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert_eq!(in_one_term(&sandbox), 5, "none beside the old one");
    sandbox.is_left_empty();
    // The control: started one right after the other, they do meet.
    let sandbox = Sandbox::new();
    let twice = "for _ in 1 2; do sh -c \"$0\"; done";
    ElectCmd::new(&sandbox)
        .flag("--stop-timeout", "0")
        .command(["sh", "-c", twice, LEAVING_A_STUBBORN_ONE].map(str::to_owned))
        .run();
    assert_eq!(runs(&sandbox), ["overlap"]);
}

/// It may be restarted twice within this time.
fn broken(sandbox: &Sandbox, name: &str, window: Duration) -> ElectCmd {
    let limit = format!("2/{}s", window.as_secs());
    restarting(sandbox, "on-failure").flag("--name", name).flag("--restart-limit", &limit).shell(&noting("exit 1"))
}

#[test]
fn after_too_many_restarts_another_candidate_tries_and_two_broken_ones_do_not_ping_pong() {
    retry_if_machine_slow("two broken candidates", Duration::from_secs(10), two_that_are_broken);
}

fn two_that_are_broken(window: Duration) {
    let sandbox = Sandbox::new();
    let first = broken(&sandbox, "first", window).start();
    first.wait_for_log("leader command started");
    let started = now();
    let second = broken(&sandbox, "second", window).start();
    // A lock file has no ttl, which might be longer. The first one has to cool down until the second one has tried, and a while
    // longer: on a busy machine, too.
    let rests = format!("stands again in {}", humantime::format_duration(window));
    second.wait_for_log(&rests);
    first.wait_for_log(&rests);
    let names = |runs: &[String]| -> Vec<String> {
        runs.iter().map(|run| run.split(' ').next_back().expect("a name").to_owned()).collect()
    };
    let expected = ["first", "first", "first", "second", "second", "second"];
    let order = names(&runs(&sandbox));
    assert_in_time(order == expected, || format!("{order:?}"));
    throughout_in_time(Duration::from_secs(2), "both sit out", || runs(&sandbox).len() == 6);
    // The third, in good order, need not wait for either of them.
    let third = ElectCmd::new(&sandbox).witness(&Witness::new()).start();
    sandbox.starts(1);
    third.terminate();
    // Alone again, the next time it takes twice as long.
    let rests_longer = format!("stands again in {}", humantime::format_duration(2 * window));
    until("it has tried again", || first.log().contains(&rests_longer));
    println!("figures: two broken candidates: {} runs in {}", runs(&sandbox).len(), millis(since(started)));
    assert_in_time(runs(&sandbox).len() <= 12, || format!("{:?}", runs(&sandbox)));
    for candidate in [first, second] {
        let mut candidate = candidate;
        candidate.signal(Signal::SIGTERM);
        candidate.ends_by(Signal::SIGTERM);
    }
    sandbox.is_left_empty();
}

/// Its command has ended, and there is an hour until the next start.
fn between_runs(sandbox: &Sandbox, flags: &[&str]) -> CandidateProcess {
    let elect = flags.iter().fold(ElectCmd::new(sandbox), |elect, flag| elect.switch(flag));
    let leader = elect.flag("--restart", "always").flag("--restart-delay", "1h").shell(&noting("exit 5")).start();
    leader.wait_for_log("the leader command is started again in");
    leader
}

fn waiting(sandbox: &Sandbox) -> CandidateProcess {
    let waiter = ElectCmd::new(sandbox).witness(&Witness::new()).start();
    waiter.wait_until_waiting();
    waiter
}

#[test]
fn a_stop_between_two_runs_ends_at_once() {
    let sandbox = Sandbox::new();
    let mut leader = between_runs(&sandbox, &[]);
    let waiter = waiting(&sandbox);
    throughout(Duration::from_millis(1500), "the lock is kept", || sandbox.history().starts.is_empty());
    leader.signal(Signal::SIGTERM);
    leader.ends_by(Signal::SIGTERM);
    sandbox.starts(1);
    waiter.terminate();
    assert_eq!(runs(&sandbox).len(), 1);
    sandbox.is_left_empty();
}

#[test]
fn a_campaigner_killed_between_two_runs_hands_over_at_once() {
    let sandbox = Sandbox::new();
    let mut leader = between_runs(&sandbox, &[]);
    let waiter = waiting(&sandbox);
    leader.signal(Signal::SIGKILL);
    leader.ends_by(Signal::SIGKILL);
    sandbox.starts(1);
    waiter.terminate();
    sandbox.is_left_empty();
}

#[test]
fn a_leadership_that_is_lost_between_two_runs_is_sought_again_or_ends_it() {
    for (flags, status) in [(&["--on-lost=exit"][..], Some(76)), (&["-n"], Some(76)), (&[], None)] {
        let sandbox = Sandbox::new();
        let mut leader = between_runs(&sandbox, flags);
        fs::remove_file(sandbox.lock_file()).expect("the lock file is there");
        leader.wait_for_log("leadership lost; nothing was running");
        if let Some(status) = status {
            leader.ends_with(status);
            assert_eq!(runs(&sandbox).len(), 1);
        } else {
            until("it leads again", || runs(&sandbox).len() == 2);
            assert_ne!(runs(&sandbox)[0], runs(&sandbox)[1], "in a new term");
            until("that run has ended", || leader.log().matches("is started again in").count() == 2);
            leader.signal(Signal::SIGTERM);
            leader.ends_by(Signal::SIGTERM);
        }
        sandbox.is_left_empty();
    }
}

#[test]
fn a_stop_while_sitting_out_ends_at_once() {
    let sandbox = Sandbox::new();
    let mut leader = restarting(&sandbox, "always").flag("--restart-limit", "1/1h").command(["false"]).start();
    leader.wait_for_log("stands again in 1h");
    leader.signal(Signal::SIGTERM);
    leader.ends_by(Signal::SIGTERM);
    sandbox.is_left_empty();
}

#[test]
fn a_hold_counts_from_the_first_run_of_the_term() {
    // Longer than three runs take on a busy machine.
    retry_if_machine_slow("a hold of three runs", Duration::from_secs(6), |hold| {
        let sandbox = Sandbox::new();
        let started = now();
        let third_time = "[ $(wc -l < $WITNESS_PLACE/runs) -ge 3 ] && exit 0; sleep 0.3; exit 1";
        let held = format!("{}s", hold.as_secs());
        let ended = restarting(&sandbox, "on-failure").flag("--min-hold", &held).shell(&noting(third_time)).run();
        let took = since(started);
        assert_eq!((ended.status.code(), in_one_term(&sandbox)), (Some(0), 3), "{ended:?}");
        // Two of the runs took 300 ms each before that was said.
        let left = ended.stderr.split_once("the boundary is kept for another ");
        assert_in_time(left.is_some(), || "the hold was over before the third run".to_owned());
        let (_, left) = left.expect("what is left is said");
        let left = left.split('s').next().unwrap_or_default();
        let seconds =
            left.parse::<f64>().unwrap_or_else(|_| left.trim_end_matches('m').parse::<f64>().expect("ms") / 1000.0);
        assert!(seconds <= hold.as_secs_f64() - 0.6, "{ended:?}");
        assert!(took >= hold, "{took:?}");
    });
}

#[test]
fn a_command_that_fails_at_once_costs_little() {
    let sandbox = Sandbox::new();
    let started = now();
    let leader = ElectCmd::new(&sandbox).flag("--restart", "always").command(["false"]).start();
    leader.wait_for_log("stands again in 1m");
    let (took, campaigner, keeper) =
        (since(started), ResourceUsage::of(leader.pid()), ResourceUsage::of(leader.keeper()));
    let cpu = campaigner.cpu + keeper.cpu;
    let share = cpu.as_secs_f64() / took.as_secs_f64() * 100.0;
    println!(
        "figures: a command that fails at once, six runs in {}: campaigner {}, keeper {} of CPU: {share:.1} %",
        millis(took),
        millis(campaigner.cpu),
        millis(keeper.cpu)
    );
    assert!(share < 10.0, "{share} %");
    leader.terminate();
}

#[test]
fn nonsense_is_refused_in_one_line() {
    let sandbox = Sandbox::new();
    for (flag, value, said) in [
        ("--restart", "sometimes", "sometimes"),
        ("--restart-delay", "later", "later"),
        ("--restart-limit", "5", "within how long"),
        ("--restart-limit", "0/1m", "--restart never"),
        ("--restart-limit", "5/0", "longer than 0s"),
        ("--restart-limit", "-1/1m", "a number of restarts"),
        ("--restart-limit", "5/soon", "5/soon"),
        ("--restart-limit", "9999/1s", "at most 1000"),
    ] {
        ElectCmd::new(&sandbox).switch(&format!("{flag}={value}")).command(["true"]).run().fails_with(2, &[flag, said]);
    }
    let ended = ElectCmd::new(&sandbox).variable("ELECT_RESTART_LIMIT", "5").command(["true"]).run();
    ended.fails_with(2, &["ELECT_RESTART_LIMIT"]);
    assert!(!sandbox.locks().exists(), "nothing was asked of the store");
}
