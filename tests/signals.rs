//! The effect of each signal in each state. A new state is one more column: see [`CandidateState`].

use std::fs;

use nix::sys::signal::Signal;

use crate::harness::{CandidateProcess, ElectCmd, Sandbox, Witness, processes, runs, until};

/// Where the candidate is when the signal arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CandidateState {
    /// Another leads, and nothing runs.
    Campaigning,
    Leading,
    /// Asked once to stop, and its command takes its time.
    Stopping,
}

/// The effect of a signal on the candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SignalEffect {
    /// Its command hears this signal, and nothing ends.
    Passes(&'static str),
    /// Its command hears the stop signal, and ends elect with its own status.
    Stops,
    /// All is killed at once: 137.
    Kills,
    /// It ends by the same signal.
    Ends,
    /// Nothing.
    Ignores,
}

use SignalEffect::{Ends, Ignores, Kills, Passes, Stops};

/// The whole table, in the order of [`CandidateState`], without a controlling terminal.
const TABLE: [(Signal, [SignalEffect; 3]); 11] = [
    // signal          campaigning leading          stopping
    (Signal::SIGTERM, [Ends, Stops, Kills]),
    (Signal::SIGINT, [Ends, Stops, Kills]),
    (Signal::SIGQUIT, [Ends, Stops, Kills]),
    (Signal::SIGHUP, [Ignores, Passes("HUP"), Passes("HUP")]),
    (Signal::SIGUSR1, [Ignores, Passes("USR1"), Passes("USR1")]),
    (Signal::SIGUSR2, [Ignores, Passes("USR2"), Passes("USR2")]),
    (Signal::SIGWINCH, [Ignores, Passes("WINCH"), Passes("WINCH")]),
    (Signal::SIGTSTP, [Ignores, Passes("TSTP"), Passes("TSTP")]),
    (Signal::SIGTTIN, [Ignores, Passes("TTIN"), Passes("TTIN")]),
    (Signal::SIGTTOU, [Ignores, Passes("TTOU"), Passes("TTOU")]),
    (Signal::SIGCONT, [Ignores, Ignores, Ignores]),
];

const STATES: [CandidateState; 3] = [CandidateState::Campaigning, CandidateState::Leading, CandidateState::Stopping];

/// Says which signals it hears, and ends by those that stop it as soon as it may.
const LISTENS: &str = "heard() { echo $1; [ $1 != TERM ] || [ ! -e $MAY_END ] || exit 5; }
    for s in TERM INT QUIT HUP USR1 USR2 WINCH TSTP TTIN TTOU CONT; do trap \"heard $s\" $s; done
    echo ready; while :; do sleep 0.02; done";

/// A candidate in that state; who holds the boundary meanwhile, if it is not itself.
fn candidate_in(state: CandidateState, sandbox: &Sandbox) -> (CandidateProcess, Option<CandidateProcess>) {
    let may_end = sandbox.path().join("may-end");
    let _ = fs::remove_file(&may_end);
    let elect = |sandbox: &Sandbox| {
        let path = may_end.to_str().expect("plain text");
        ElectCmd::new(sandbox)
            .flag("--stop-timeout", "1h")
            .variable("MAY_END", path)
            .wrapped_by(["setsid"])
            .shell(LISTENS)
    };
    if state == CandidateState::Campaigning {
        let leader = elect(sandbox).start();
        until("it leads", || leader.output().contains("ready"));
        let waiter = elect(sandbox).start();
        waiter.wait_until_waiting();
        return (waiter, Some(leader));
    }
    let leader = elect(sandbox).start();
    until("it leads", || leader.output().contains("ready"));
    if state == CandidateState::Stopping {
        leader.signal(Signal::SIGTERM);
        // The stop signal, and the one that wakes who stands still.
        until("it was asked", || leader.output() == "ready\nTERM\nCONT\n" || leader.output() == "ready\nCONT\nTERM\n");
    }
    fs::write(&may_end, "").expect("written");
    (leader, None)
}

/// The signals that the command got since `before`, without the CONT that goes with a stop.
fn heard(candidate: &CandidateProcess, before: &str) -> Vec<String> {
    let output = candidate.output();
    let since = output.strip_prefix(before).expect("output only grows");
    since.lines().filter(|line| *line != "CONT").map(str::to_owned).collect()
}

#[test]
fn each_signal_does_in_each_state_what_the_table_says() {
    for (signal, row) in TABLE {
        for (state, does) in STATES.into_iter().zip(row) {
            let sandbox = Sandbox::new();
            let (mut candidate, leader) = candidate_in(state, &sandbox);
            println!("{signal} {state:?}: {does:?}");
            let before = candidate.output();
            candidate.signal(signal);
            match does {
                Stops => {
                    candidate.ends_with(5);
                    assert_eq!(heard(&candidate, &before), ["TERM"], "{signal} {state:?}");
                }
                Kills => {
                    candidate.ends_with(137);
                    assert_eq!(heard(&candidate, &before), [""; 0], "{signal} {state:?}");
                }
                Ends => {
                    candidate.ends_by(signal);
                    assert_eq!(candidate.output(), "", "nothing was started");
                }
                Passes(name) => {
                    until("it was passed on", || heard(&candidate, &before) == [name]);
                    survives(candidate, state, &before, &[name]);
                }
                Ignores => survives(candidate, state, &before, &[]),
            }
            drop(leader);
            sandbox.is_left_empty();
        }
    }
}

/// It is where it was, and stops from there as ever.
#[track_caller]
fn survives(mut candidate: CandidateProcess, state: CandidateState, before: &str, known: &[&str]) {
    candidate.signal(Signal::SIGTERM);
    let known = known.iter().copied();
    match state {
        CandidateState::Campaigning => {
            candidate.ends_by(Signal::SIGTERM);
            assert_eq!(candidate.output(), "", "nothing was started");
        }
        CandidateState::Leading => {
            candidate.ends_with(5);
            assert_eq!(heard(&candidate, before), known.chain(["TERM"]).collect::<Vec<_>>());
        }
        CandidateState::Stopping => {
            candidate.ends_with(137);
            assert_eq!(heard(&candidate, before), known.collect::<Vec<_>>());
        }
    }
}

#[test]
fn a_stop_that_comes_while_the_command_is_being_started_leaves_nothing_behind() {
    let sandbox = Sandbox::new();
    for run in 0..4 * runs() {
        let mut candidate = ElectCmd::new(&sandbox).witness(&Witness::new().daemon()).start();
        // At another moment each time, from before the election to after the start.
        let moment = ["campaigning", "elected", "elected", "started"][run % 4];
        candidate.wait_for_log(moment);
        candidate.signal(Signal::SIGTERM);
        candidate.wait();
        sandbox.is_left_empty();
    }
    sandbox.history().is_safe();
}

#[test]
fn a_command_that_signals_its_own_group_does_not_reach_elect() {
    let sandbox = Sandbox::new();
    let ended = ElectCmd::new(&sandbox).shell("trap '' TERM; kill -TERM 0; exit 3").run();
    assert_eq!(ended.status.code(), Some(3), "{ended:?}");
    assert!(!ended.stderr.contains("asked to stop"), "{ended:?}");
    sandbox.is_left_empty();
}

#[test]
fn a_stopped_command_without_a_terminal_is_reported_and_elect_leads_on() {
    let sandbox = Sandbox::new();
    let leader = ElectCmd::new(&sandbox).witness(&Witness::new()).start();
    let led = sandbox.starts(1).latest();
    processes::signal(led.pid, Signal::SIGSTOP);
    leader.wait_for_log("the leader command was stopped");
    assert_ne!(processes::state(leader.pid()), Some('T'));
    // Asked to end, it ends.
    leader.terminate();
    assert_eq!(sandbox.history().ends.len(), 1, "it was woken and asked, not killed");
}
