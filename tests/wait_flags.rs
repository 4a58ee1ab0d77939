//! The wait limit and its exit statuses: `--no-wait`, `--wait`, `--on-lost`.

use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::wait::{now, since};
use crate::harness::{CandidateProcess, ElectCmd, Ended, Sandbox, Witness, until};

/// Waiting for a leader that does not end takes longer, however slow the machine is.
const AT_ONCE: Duration = Duration::from_secs(20);

fn leader(sandbox: &Sandbox) -> CandidateProcess {
    let leader = ElectCmd::new(sandbox).flag("--name", "the-leader").witness(&Witness::new()).start();
    sandbox.starts(1);
    leader
}

/// Nothing of the loser ran, and the leader has not noticed it.
#[track_caller]
fn has_lost(ended: &Ended, sandbox: &Sandbox) {
    assert_eq!(ended.status.code(), Some(75), "{ended:?}");
    assert_eq!(ended.stdout, "", "{ended:?}");
    assert_eq!(sandbox.history().starts.len(), 1);
}

#[test]
fn who_does_not_wait_exits_with_75_if_somebody_else_leads() {
    let sandbox = Sandbox::new();
    let leader = leader(&sandbox);
    for flags in [&["-n"][..], &["--no-wait"], &["--no-wait=1"], &["--wait", "0"], &["--wait=0s"]] {
        let elect = flags.iter().fold(ElectCmd::new(&sandbox), |elect, flag| elect.switch(flag));
        let started = now();
        let ended = elect.command(["echo", "not me"]).run();
        assert!(since(started) < AT_ONCE, "{flags:?} took {:?}", since(started));
        has_lost(&ended, &sandbox);
        ended.stderr_contains(&["not elected: the-leader leads"]);
        let named = ended.stderr.lines().filter(|line| line.contains("the-leader")).count();
        assert_eq!(named, 1, "{flags:?}: {ended:?}");
        assert!(!ended.stderr.contains("warning: ") && !ended.stderr.contains("error: "), "{ended:?}");
    }
    leader.terminate();
    sandbox.is_left_empty();
}

#[test]
fn a_quiet_loser_is_silent() {
    let sandbox = Sandbox::new();
    let leader = leader(&sandbox);
    for flags in [&["-q", "-n"][..], &["-qn"], &["-nq"], &["-q", "--wait", "200ms"]] {
        let elect = flags.iter().fold(ElectCmd::new(&sandbox), |elect, flag| elect.switch(flag));
        let ended = elect.command(["echo", "not me"]).run();
        has_lost(&ended, &sandbox);
        assert_eq!(ended.stderr, "", "{flags:?}");
    }
    leader.terminate();
    sandbox.is_left_empty();
}

#[test]
fn a_quiet_loser_is_silent_about_what_another_would_wait_for() {
    let sandbox = Sandbox::new();
    let leader = leader(&sandbox);
    // Its lock file is gone, so that a newcomer has to wait until it has noticed.
    leader.signal(Signal::SIGSTOP);
    fs::remove_file(sandbox.lock_file()).expect("the lock file is there");
    let ended = ElectCmd::new(&sandbox).switch("-q").switch("-n").command(["true"]).run();
    has_lost(&ended, &sandbox);
    assert_eq!(ended.stderr, "");
    let ended = ElectCmd::new(&sandbox).switch("-n").command(["true"]).run();
    has_lost(&ended, &sandbox);
    ended.stderr_contains(&["not elected: the lock file is a new one"]);
    leader.signal(Signal::SIGCONT);
    leader.terminate();
}

#[test]
fn who_does_not_wait_and_need_not_runs_and_passes_the_status_on() {
    let sandbox = Sandbox::new();
    for flags in [&["-n"][..], &["--wait", "5s"], &["--wait", "0"]] {
        let elect = flags.iter().fold(ElectCmd::new(&sandbox), |elect, flag| elect.switch(flag));
        let ended = elect.shell("echo $ELECT_ROLE; exit 7").run();
        assert_eq!((ended.status.code(), ended.stdout.as_str()), (Some(7), "leader\n"), "{flags:?}: {ended:?}");
    }
    sandbox.is_left_empty();
}

#[test]
fn a_boundary_that_a_loser_has_asked_for_is_free_when_its_leader_is_gone() {
    let sandbox = Sandbox::new();
    let leader = leader(&sandbox);
    ElectCmd::new(&sandbox).switch("-n").command(["true"]).run();
    leader.terminate();
    let ended = ElectCmd::new(&sandbox).switch("-n").shell("exit 7").run();
    assert_eq!(ended.status.code(), Some(7), "{ended:?}");
}

#[test]
fn a_bounded_wait_ends_with_75_when_it_is_over() {
    let sandbox = Sandbox::new();
    let leader = leader(&sandbox);
    let started = now();
    let ended = ElectCmd::new(&sandbox).flag("--wait", "5s").command(["true"]).run();
    let took = since(started);
    has_lost(&ended, &sandbox);
    assert!(took >= Duration::from_secs(5) && took < AT_ONCE, "{took:?}");
    ended.stderr_contains(&["waiting: the-leader leads", "not elected"]);
    leader.terminate();
    sandbox.is_left_empty();
}

#[test]
fn a_bounded_wait_is_over_when_the_leader_is_gone() {
    let sandbox = Sandbox::new();
    let leader = leader(&sandbox);
    let mut waiter = ElectCmd::new(&sandbox).flag("--wait", "5m").shell("echo at last; exit 7").start();
    waiter.wait_until_waiting();
    leader.terminate();
    waiter.ends_with(7);
    assert_eq!(waiter.output(), "at last\n");
    sandbox.is_left_empty();
}

#[test]
fn a_signal_ends_a_bounded_wait_as_it_ends_any_other() {
    let sandbox = Sandbox::new();
    let leader = leader(&sandbox);
    let mut waiter = ElectCmd::new(&sandbox).flag("--wait", "5m").command(["true"]).start();
    waiter.wait_until_waiting();
    waiter.signal(Signal::SIGTERM);
    waiter.ends_by(Signal::SIGTERM);
    leader.terminate();
}

#[test]
fn the_end_of_waiting_can_be_set_by_variables() {
    let sandbox = Sandbox::new();
    let leader = leader(&sandbox);
    for (name, value) in
        [("ELECT_NO_WAIT", "1"), ("ELECT_NO_WAIT", "true"), ("ELECT_WAIT", "0"), ("ELECT_WAIT", "300ms")]
    {
        let ended = ElectCmd::new(&sandbox).variable(name, value).switch("-q").command(["true"]).run();
        has_lost(&ended, &sandbox);
        assert_eq!(ended.stderr, "", "{name}={value}");
    }
    // Off is off, beside --wait too, and a flag overrides the variable.
    let started = now();
    let ended = ElectCmd::new(&sandbox).variable("ELECT_NO_WAIT", "0").flag("--wait", "400ms").command(["true"]).run();
    has_lost(&ended, &sandbox);
    assert!(since(started) >= Duration::from_millis(400));
    let mut waiter =
        ElectCmd::new(&sandbox).variable("ELECT_NO_WAIT", "1").switch("--no-wait=0").shell("exit 7").start();
    waiter.wait_until_waiting();
    leader.terminate();
    waiter.ends_with(7);
    sandbox.is_left_empty();
}

#[test]
fn two_answers_to_how_long_to_wait_are_refused() {
    let sandbox = Sandbox::new();
    let refused = |elect: ElectCmd| {
        elect.command(["true"]).run().fails_with(2, &["ELECT_NO_WAIT", "ELECT_WAIT", "exclude each other"]);
    };
    refused(ElectCmd::new(&sandbox).switch("-n").flag("--wait", "5s"));
    refused(ElectCmd::new(&sandbox).switch("-n").flag("--wait", "0"));
    refused(ElectCmd::new(&sandbox).switch("-n").variable("ELECT_WAIT", "5s"));
    refused(ElectCmd::new(&sandbox).variable("ELECT_NO_WAIT", "1").flag("--wait", "5s"));
    ElectCmd::new(&sandbox).flag("--wait", "soon").command(["true"]).run().fails_with(2, &["--wait", "soon"]);
    ElectCmd::new(&sandbox).flag("--on-lost", "cry").command(["true"]).run().fails_with(2, &["--on-lost", "cry"]);
    let ended = ElectCmd::new(&sandbox).variable("ELECT_ON_LOST", "cry").command(["true"]).run();
    ended.fails_with(2, &["ELECT_ON_LOST", "cry"]);
    assert!(!sandbox.locks().exists(), "nothing was asked of the store");
    sandbox.is_left_empty();
}

/// That status, and one line of the log, which says all of this.
#[track_caller]
fn says_one_thing(ended: &Ended, status: i32, said: &[&str]) {
    assert_eq!((ended.status.code(), ended.stderr.lines().count()), (Some(status), 1), "{ended:?}");
    ended.stderr_contains(said);
}

/// A store that does not work and may work again: where the lock file should be, there is a directory.
fn unavailable() -> Sandbox {
    let sandbox = Sandbox::new();
    fs::create_dir_all(sandbox.lock_file()).expect("an empty place");
    sandbox
}

#[test]
fn a_store_that_does_not_work_is_named_in_one_line_however_quiet() {
    // A fault that ends elect at once is an error; one that it waited for was a warning by then.
    for (flags, level) in [(&["-n"][..], "error: "), (&["--wait", "0"], "error: "), (&["--wait", "700ms"], "warning: ")]
    {
        let sandbox = unavailable();
        let elect = flags.iter().fold(ElectCmd::new(&sandbox), |elect, flag| elect.switch(flag));
        let ended = elect.switch("-q").command(["true"]).run();
        says_one_thing(&ended, 69, &[level, "store: ", "cron.lock", "directory"]);
        let elect = flags.iter().fold(ElectCmd::new(&sandbox), |elect, flag| elect.switch(flag));
        let ended = elect.command(["true"]).run();
        assert_eq!(ended.status.code(), Some(69), "{flags:?}: {ended:?}");
        let named = ended.stderr.lines().filter(|line| line.contains("cron.lock")).count();
        assert_eq!(named, 1, "{flags:?}: {ended:?}");
        assert!(!ended.stderr.contains("answers again"), "{ended:?}");
        sandbox.is_left_empty();
    }
}

#[test]
fn a_store_that_never_answered_is_not_said_to_at_the_end() {
    let sandbox = unavailable();
    let mut candidate = ElectCmd::new(&sandbox).command(["true"]).start();
    candidate.wait_for_log("; trying again");
    candidate.signal(Signal::SIGTERM);
    candidate.ends_by(Signal::SIGTERM);
    assert!(!candidate.log().contains("answers again"), "{}", candidate.log());
}

#[test]
fn a_bounded_wait_outlasts_a_trouble_of_the_store() {
    let sandbox = unavailable();
    let mut waiter = ElectCmd::new(&sandbox).flag("--wait", "5m").shell("exit 7").start();
    waiter.wait_for_log("warning: store: ");
    fs::remove_dir(sandbox.lock_file()).expect("a directory of ours");
    waiter.ends_with(7);
    sandbox.is_left_empty();
}

#[test]
fn a_refusal_is_one_for_those_who_do_not_wait_too() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.locks(), "").expect("an empty place");
    for flag in ["-n", "--wait=5m"] {
        let ended = ElectCmd::new(&sandbox).switch("-q").switch(flag).command(["true"]).run();
        says_one_thing(&ended, 77, &["error: store: ", "not a directory"]);
    }
}

/// Starts a leader with these flags and takes its lock away: its command drops its copy, and somebody waits for that.
fn loses_the_lock(sandbox: &Sandbox, elect: ElectCmd) -> (CandidateProcess, CandidateProcess) {
    let first = elect.witness(&Witness::new()).start();
    sandbox.starts(1);
    let second = ElectCmd::new(sandbox).witness(&Witness::new()).start();
    second.wait_until_waiting();
    first.loses_lock_to_next(sandbox);
    first.wait_for_log("leadership lost");
    sandbox.starts(2);
    sandbox.history().is_safe();
    (first, second)
}

#[test]
fn a_lost_leadership_ends_with_76_where_that_is_asked_for() {
    for flags in [&["--on-lost=exit"][..], &["-n"], &["--wait", "5m"], &["--no-wait", "--on-lost=exit"]] {
        let sandbox = Sandbox::new();
        let elect = flags.iter().fold(ElectCmd::new(&sandbox), |elect, flag| elect.switch(flag));
        let (mut first, second) = loses_the_lock(&sandbox, elect);
        first.ends_with(76);
        second.terminate();
        sandbox.is_left_empty();
    }
    let sandbox = Sandbox::new();
    let (mut first, second) = loses_the_lock(&sandbox, ElectCmd::new(&sandbox).variable("ELECT_ON_LOST", "exit"));
    first.ends_with(76);
    second.terminate();
}

#[test]
fn a_lost_leadership_is_sought_again_where_nothing_else_is_asked_for() {
    for flags in [&[][..], &["--on-lost=recampaign"], &["--wait=5m", "--on-lost=recampaign"]] {
        let sandbox = Sandbox::new();
        let elect = flags.iter().fold(ElectCmd::new(&sandbox), |elect, flag| elect.switch(flag));
        let (mut first, second) = loses_the_lock(&sandbox, elect);
        until("the loser waits", || first.log().contains("waiting: "));
        assert!(!first.has_ended());
        second.terminate();
        sandbox.starts(3);
        first.signal(Signal::SIGTERM);
        first.ends_with(0);
        sandbox.history().is_safe();
        sandbox.is_left_empty();
    }
}

#[test]
fn a_candidate_that_lost_its_leadership_campaigns_again_with_the_same_limit() {
    for flags in [["-n", "--on-lost=recampaign"], ["--wait=300ms", "--on-lost=recampaign"]] {
        let sandbox = Sandbox::new();
        let elect = flags.iter().fold(ElectCmd::new(&sandbox), |elect, flag| elect.switch(flag));
        let (mut first, second) = loses_the_lock(&sandbox, elect);
        first.ends_with(75);
        second.terminate();
        sandbox.is_left_empty();
    }
}
