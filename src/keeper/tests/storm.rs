//! Trees that grow while they are being killed. Bounded by tokens, so that the machine survives a keeper that fails.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use super::harness::*;
use crate::clock;
use crate::election::{FromKeeper, KILL_ALLOWANCE, Time};
use crate::keeper::{ToKeeper, sys};

/// More processes than this there are never.
const TOKENS: usize = 1_000;
/// It is in full swing when so many have been seen.
const SEEN: usize = 150;

/// Every process takes a token and starts another, for as long as there are any. None of them ever ends by itself.
fn storm(birth: &str) -> String {
    format!(
        "exec 8<>\"$WITNESS.tokens\"
        trap '' TERM
        export STORM='while read -r token <&8; do echo >&9; {birth} sh -c \"$STORM\" & done; sleep 100; :'
        eval \"$STORM\""
    )
}

fn weather(directory: &std::path::Path, text: &str) -> Scene {
    let tokens = directory.join("witness.tokens");
    nix::unistd::mkfifo(&tokens, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let mut pipe =
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(&tokens).expect("opened");
    pipe.write_all(&vec![b'\n'; TOKENS]).expect("room for the tokens");
    // It lives as long as this process, which would otherwise take the tokens with it.
    std::mem::forget(pipe);
    let mut scene = script(directory, text).fork();
    scene.arm(TERM, Time::NEVER);
    // What is measured is the keeper, not how long the storm keeps us from looking.
    sys::schedule_first();
    scene.start();
    for _ in 0..SEEN {
        scene.witness.line();
    }
    scene
}

fn is_over_in_time(birth: &str) {
    alone(|directory| {
        let scene = weather(directory, &storm(birth));
        let first = goes_first(scene.keeper.pid());
        let killed_at = clock::now();
        scene.send(&ToKeeper::Kill);
        let died = scene.witness.gone();
        scene.exited(killed(libc::SIGKILL, true));
        scene.empty();
        let emptied = clock::now();
        note(&format!(
            "a storm of `{birth}`{}: dead after {:?}, confirmed after {:?}",
            if first { "" } else { " (at an ordinary priority)" },
            died.since(killed_at),
            emptied.since(killed_at)
        ));
        // Without the right to go first, a storm may be faster than the keeper (2.2): it dies all the same.
        assert!(!first || died <= killed_at + KILL_ALLOWANCE, "dead after {:?}", died.since(killed_at));
    });
}

#[test]
fn a_fork_storm_is_dead_within_the_allowance() {
    is_over_in_time("");
}

#[test]
fn a_fork_storm_of_sessions_is_dead_within_the_allowance() {
    is_over_in_time("setsid");
}

#[test]
fn a_storm_that_starts_again_from_every_orphan_is_dead_within_the_allowance() {
    is_over_in_time("setsid -f");
}

#[test]
fn a_hail_of_orphans_does_not_put_the_deadline_off() {
    alone(|directory| {
        let text = "
            for i in 1 2 3 4; do (setsid sh -c 'echo up >&9; while :; do (: &); done' &); done
            echo main >&9
            while :; do (: &); done";
        let mut scene = script(directory, text).fork();
        let kill_by = scene.arm_for(SOON);
        scene.start_until(&["main", "up", "up", "up", "up"]);
        let first = goes_first(scene.keeper.pid());
        sys::schedule_first();
        let died = scene.witness.gone();
        note(&format!("a hail of orphans: dead {:?} after the deadline", died.since(kill_by)));
        assert!(died >= kill_by);
        assert!(!first || died <= kill_by + KILL_ALLOWANCE, "{:?} late", died.since(kill_by));
        scene.hears(FromKeeper::Expired { term: TERM });
    });
}

#[test]
fn many_that_die_at_once_are_all_seen_to_have_ended() {
    alone(|directory| {
        let mut scene =
            script(directory, "for i in $(seq 300); do (sh -c 'echo >&9; exec sleep 100' &); done; wait; sleep 100; :")
                .fork();
        scene.arm(TERM, Time::NEVER);
        let group = scene.start();
        for _ in 0..300 {
            scene.witness.line();
        }
        // One SIGCHLD for all of them.
        signal(scene.keeper.pid(), libc::SIGSTOP);
        signal(-group, libc::SIGKILL);
        scene.witness.gone();
        until("the last of them is dead", || status_of(group, "State").starts_with('Z'));
        signal(scene.keeper.pid(), libc::SIGCONT);
        scene.exited(killed(libc::SIGKILL, false));
        scene.empty();
    });
}
