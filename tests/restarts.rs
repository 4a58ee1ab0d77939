//! A command that is started again: `--restart`, `--restart-delay`, `--restart-limit`.

use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::usage::Usage;
use crate::harness::wait::{now, since, throughout};
use crate::harness::{Candidate, Elect, Place, Witness, millis, until};

/// Notes its term and its name, and goes on as it is told.
fn noting(then: &str) -> String {
    format!("echo $ELECT_TERM $ELECT_NAME >> $WITNESS_PLACE/runs; {then}")
}

fn runs(place: &Place) -> Vec<String> {
    let text = fs::read_to_string(place.path().join("runs")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// How many runs there were, all in one term.
#[track_caller]
fn in_one_term(place: &Place) -> usize {
    let mut terms = runs(place);
    let runs = terms.len();
    terms.dedup();
    assert_eq!(terms.len(), 1, "{terms:?}");
    runs
}

fn restarting(place: &Place, when: &str) -> Elect {
    Elect::new(place).flag("--restart", when).flag("--restart-delay", "20ms")
}

#[test]
fn restarts_keep_the_term_and_are_counted() {
    for (when, status) in [("always", 0), ("always", 5), ("on-failure", 5)] {
        let place = Place::new();
        let elect = restarting(&place, when).flag("--restart-limit", "3/1h").switch("-n");
        let ended = elect.shell(&noting(&format!("exit {status}"))).run();
        // Who does not wait ends with its command's status, when that has had its restarts.
        assert_eq!(ended.status.code(), Some(status), "{ended:?}");
        assert_eq!(in_one_term(&place), 4, "one start and three restarts: {ended:?}");
        ended.says(&["the leader command is started again in", "--restart-limit"]);
        place.is_left_empty();
    }
}

#[test]
fn after_a_success_on_failure_ends_and_never_ends_after_anything() {
    let place = Place::new();
    let third_time = "[ $(wc -l < $WITNESS_PLACE/runs) -ge 3 ] && exit 0; kill -9 $$";
    let ended = restarting(&place, "on-failure").shell(&noting(third_time)).run();
    assert_eq!((ended.status.code(), in_one_term(&place)), (Some(0), 3), "{ended:?}");
    let place = Place::new();
    for flags in [&[][..], &["--restart=never"]] {
        let elect = flags.iter().fold(Elect::new(&place), |elect, flag| elect.switch(flag));
        assert_eq!(elect.shell(&noting("exit 5")).run().status.code(), Some(5));
    }
    assert_eq!(runs(&place).len(), 2);
    let ended = Elect::new(&place).variable("ELECT_RESTART", "on-failure").shell(&noting("exit 0")).run();
    assert_eq!((ended.status.code(), runs(&place).len()), (Some(0), 3));
}

#[test]
fn a_command_that_cannot_be_executed_any_more_is_not_tried_again() {
    let place = Place::new();
    let script = place.path().join("script");
    for (spoil, status) in [("rm \"$0\"", 127), ("chmod 0 \"$0\"", 126)] {
        fs::write(&script, format!("#!/bin/sh\n{}\n", noting(&format!("{spoil}; exit 1")))).expect("written");
        fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("executable");
        let ended = restarting(&place, "always").command([script.as_os_str()]).run();
        assert_eq!(ended.status.code(), Some(status), "{ended:?}");
    }
    assert_eq!(runs(&place).len(), 2);
    place.is_left_empty();
}

/// Holds a lock for as long as anything of it lives: what is started beside it finds it held.
const LEAVING_A_STUBBORN_ONE: &str = "exec 8>> $WITNESS_PLACE/lock; flock -n 8 || echo overlap >> $WITNESS_PLACE/runs; \
    setsid --fork sh -c \"trap '' TERM; touch $WITNESS_PLACE/up; while :; do sleep 0.05; done\"; \
    until [ -e $WITNESS_PLACE/up ]; do sleep 0.01; done; rm $WITNESS_PLACE/up; exit 1";

#[test]
fn a_stubborn_grandchild_is_gone_before_the_command_is_started_again() {
    let place = Place::new();
    let ended = restarting(&place, "on-failure")
        .flag("--stop-timeout", "200ms")
        .flag("--restart-limit", "4/1h")
        .switch("-n")
        .shell(&noting(LEAVING_A_STUBBORN_ONE))
        .run();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert_eq!(in_one_term(&place), 5, "none beside the old one");
    place.is_left_empty();
    // The control: started one right after the other, they do meet.
    let place = Place::new();
    let twice = "for _ in 1 2; do sh -c \"$0\"; done";
    Elect::new(&place)
        .flag("--stop-timeout", "0")
        .command(["sh", "-c", twice, LEAVING_A_STUBBORN_ONE].map(str::to_owned))
        .run();
    assert_eq!(runs(&place), ["overlap"]);
}

fn broken(place: &Place, name: &str) -> Elect {
    restarting(place, "on-failure").flag("--name", name).flag("--restart-limit", "2/10s").shell(&noting("exit 1"))
}

#[test]
fn after_too_many_restarts_another_candidate_tries_and_two_broken_ones_do_not_ping_pong() {
    let place = Place::new();
    let first = broken(&place, "first").start();
    first.says("leader command started");
    let started = now();
    let second = broken(&place, "second").start();
    // A lock file knows no ttl, which might be longer. The first one has to sit out until the second one has tried, and a while
    // longer: on a laden machine, too.
    second.says("stands again in 10s");
    first.says("stands again in 10s");
    let names = |runs: &[String]| -> Vec<String> {
        runs.iter().map(|run| run.split(' ').next_back().expect("a name").to_owned()).collect()
    };
    let expected = ["first", "first", "first", "second", "second", "second"];
    assert_eq!(names(&runs(&place)), expected);
    throughout(Duration::from_secs(2), "both sit out", || runs(&place).len() == 6);
    // The third, in good order, need not wait for either of them.
    let third = Elect::new(&place).witness(&Witness::new()).start();
    place.starts(1);
    third.stops();
    // Alone again, the next time it takes twice as long.
    until("it has tried again", || first.log().contains("stands again in 20s"));
    println!("figures: two broken candidates: {} runs in {}", runs(&place).len(), millis(since(started)));
    assert!(runs(&place).len() <= 12, "{:?}", runs(&place));
    for candidate in [first, second] {
        let mut candidate = candidate;
        candidate.signal(Signal::SIGTERM);
        candidate.ends_by(Signal::SIGTERM);
    }
    place.is_left_empty();
}

/// Its command has ended, and there is an hour until the next start.
fn between_runs(place: &Place, flags: &[&str]) -> Candidate {
    let elect = flags.iter().fold(Elect::new(place), |elect, flag| elect.switch(flag));
    let leader = elect.flag("--restart", "always").flag("--restart-delay", "1h").shell(&noting("exit 5")).start();
    leader.says("the leader command is started again in");
    leader
}

fn waiting(place: &Place) -> Candidate {
    let waiter = Elect::new(place).witness(&Witness::new()).start();
    waiter.waits();
    waiter
}

#[test]
fn a_stop_between_two_runs_ends_at_once() {
    let place = Place::new();
    let mut leader = between_runs(&place, &[]);
    let waiter = waiting(&place);
    throughout(Duration::from_millis(1500), "the lock is kept", || place.history().starts.is_empty());
    leader.signal(Signal::SIGTERM);
    leader.ends_by(Signal::SIGTERM);
    place.starts(1);
    waiter.stops();
    assert_eq!(runs(&place).len(), 1);
    place.is_left_empty();
}

#[test]
fn a_campaigner_killed_between_two_runs_hands_over_at_once() {
    let place = Place::new();
    let mut leader = between_runs(&place, &[]);
    let waiter = waiting(&place);
    leader.signal(Signal::SIGKILL);
    leader.ends_by(Signal::SIGKILL);
    place.starts(1);
    waiter.stops();
    place.is_left_empty();
}

#[test]
fn a_leadership_that_is_lost_between_two_runs_is_sought_again_or_ends_it() {
    for (flags, status) in [(&["--on-lost=exit"][..], Some(76)), (&["-n"], Some(76)), (&[], None)] {
        let place = Place::new();
        let mut leader = between_runs(&place, flags);
        fs::remove_file(place.lock_file()).expect("the lock file is there");
        leader.says("leadership lost; nothing was running");
        if let Some(status) = status {
            leader.ends_with(status);
            assert_eq!(runs(&place).len(), 1);
        } else {
            until("it leads again", || runs(&place).len() == 2);
            assert_ne!(runs(&place)[0], runs(&place)[1], "in a new term");
            until("that run has ended", || leader.log().matches("is started again in").count() == 2);
            leader.signal(Signal::SIGTERM);
            leader.ends_by(Signal::SIGTERM);
        }
        place.is_left_empty();
    }
}

#[test]
fn a_stop_while_sitting_out_ends_at_once() {
    let place = Place::new();
    let mut leader = restarting(&place, "always").flag("--restart-limit", "1/1h").command(["false"]).start();
    leader.says("stands again in 1h");
    leader.signal(Signal::SIGTERM);
    leader.ends_by(Signal::SIGTERM);
    place.is_left_empty();
}

#[test]
fn a_hold_counts_from_the_first_run_of_the_term() {
    let place = Place::new();
    let started = now();
    let third_time = "[ $(wc -l < $WITNESS_PLACE/runs) -ge 3 ] && exit 0; sleep 0.3; exit 1";
    // Longer than three runs take on a laden machine.
    let hold = Duration::from_secs(6);
    let ended = restarting(&place, "on-failure").flag("--min-hold", "6s").shell(&noting(third_time)).run();
    let took = since(started);
    assert_eq!((ended.status.code(), in_one_term(&place)), (Some(0), 3), "{ended:?}");
    // Two of the runs took 300 ms each before that was said.
    let (_, left) = ended.stderr.split_once("the boundary is kept for another ").expect("what is left is said");
    let left = left.split('s').next().unwrap_or_default();
    let seconds =
        left.parse::<f64>().unwrap_or_else(|_| left.trim_end_matches('m').parse::<f64>().expect("ms") / 1000.0);
    assert!(seconds <= 5.4, "{ended:?}");
    assert!(took >= hold, "{took:?}");
}

#[test]
fn a_command_that_fails_at_once_costs_little() {
    let place = Place::new();
    let started = now();
    let leader = Elect::new(&place).flag("--restart", "always").command(["false"]).start();
    leader.says("stands again in 1m");
    let (took, campaigner, keeper) = (since(started), Usage::of(leader.pid()), Usage::of(leader.keeper()));
    let cpu = campaigner.cpu + keeper.cpu;
    let share = cpu.as_secs_f64() / took.as_secs_f64() * 100.0;
    println!(
        "figures: a command that fails at once, six runs in {}: campaigner {}, keeper {} of CPU: {share:.1} %",
        millis(took),
        millis(campaigner.cpu),
        millis(keeper.cpu)
    );
    assert!(share < 10.0, "{share} %");
    leader.stops();
}

#[test]
fn nonsense_is_refused_in_one_line() {
    let place = Place::new();
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
        Elect::new(&place).switch(&format!("{flag}={value}")).command(["true"]).run().fails_with(2, &[flag, said]);
    }
    let ended = Elect::new(&place).variable("ELECT_RESTART_LIMIT", "5").command(["true"]).run();
    ended.fails_with(2, &["--restart-limit"]);
    assert!(!place.locks().exists(), "nothing was asked of the store");
}
