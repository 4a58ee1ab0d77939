//! How `elect run` ends, and what signals do to it and its command.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;

use nix::sys::signal::Signal;

use crate::harness::candidate::elect;
use crate::harness::wait::eventually;
use crate::harness::{ElectCmd, Sandbox, Witness, processes, until};

#[test]
fn the_commands_own_status_is_passed_on() {
    let sandbox = Sandbox::new();
    for status in [0, 1, 7, 75, 125, 255] {
        let ended = ElectCmd::new(&sandbox).shell(&format!("exit {status}")).run();
        assert_eq!(ended.status.code(), Some(status), "{ended:?}");
    }
    sandbox.is_left_empty();
}

#[test]
fn a_signal_that_ends_the_command_ends_elect_too() {
    let sandbox = Sandbox::new();
    for signal in [Signal::SIGTERM, Signal::SIGKILL, Signal::SIGINT, Signal::SIGUSR1, Signal::SIGPIPE, Signal::SIGSEGV]
    {
        let ended = ElectCmd::new(&sandbox).shell(&format!("kill -{} $$", signal as i32)).run();
        assert_eq!(ended.status.signal(), Some(signal as i32), "{ended:?}");
        assert!(!ended.status.core_dumped(), "elect itself is not what crashed: {ended:?}");
    }
    sandbox.is_left_empty();
}

#[test]
fn a_candidate_without_a_command_ends_by_the_signal_that_stops_it() {
    let sandbox = Sandbox::new();
    let leader = ElectCmd::new(&sandbox).witness(&Witness::new()).start();
    sandbox.starts(1);
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT] {
        let mut waiter = ElectCmd::new(&sandbox).witness(&Witness::new()).start();
        waiter.wait_until_waiting();
        waiter.signal(signal);
        waiter.ends_by(signal);
    }
    leader.terminate();
    sandbox.is_left_empty();
}

#[test]
fn signals_that_were_blocked_at_the_start_are_heard_all_the_same() {
    const BLOCKED: &str = "import os, signal, sys; \
        signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32)); os.execvp(sys.argv[1], sys.argv[1:])";
    let sandbox = Sandbox::new();
    let mut leader = ElectCmd::new(&sandbox).wrapped_by(["python3", "-c", BLOCKED]).witness(&Witness::new()).start();
    sandbox.starts(1);
    processes::signal(leader.keeper(), Signal::SIGKILL);
    leader.ends_with(125);
    sandbox.is_left_empty();
    let mut leader = ElectCmd::new(&sandbox).wrapped_by(["python3", "-c", BLOCKED]).witness(&Witness::new()).start();
    sandbox.starts(2);
    leader.signal(Signal::SIGTERM);
    // The command was started with the same mask, and is killed for not hearing its own.
    leader.wait();
    sandbox.is_left_empty();
}

#[test]
fn errors_that_nobody_can_read_change_no_status() {
    let sandbox = Sandbox::new();
    let deaf = ["sh", "-c", r#"exec "$@" 2>/dev/full"#, "sh"];
    assert_eq!(ElectCmd::new(&sandbox).wrapped_by(deaf).command(["no-such-command"]).run().status.code(), Some(127));
    assert_eq!(
        ElectCmd::new(&sandbox).wrapped_by(deaf).flag("--ttl", "1s").command(["true"]).run().status.code(),
        Some(2)
    );
}

/// Each form of answer, on a full disk and into a pipe whose reader has ended.
#[test]
fn an_answer_that_cannot_be_written_is_an_error_and_one_that_is_not_read_is_none() {
    let sandbox = Sandbox::new();
    let runtime = sandbox.path().join("runtime").display().to_string();
    let leader = ElectCmd::new(&sandbox).flag("--runtime-dir", &runtime).witness(&Witness::new()).start();
    sandbox.starts(1);
    let commands: [&[&str]; 12] = [
        &["status"],
        &["status", "cron"],
        &["status", "--json"],
        &["status", "--self"],
        &["status", "--watch", "cron"],
        &["watch", "cron"],
        &["wait", "cron"],
        &["wait", "--json", "cron"],
        &["extend", "cron"],
        &["plan"],
        &["check"],
        &["--help"],
    ];
    for words in commands {
        let elect = |stdout: Stdio| {
            let program = [elect().as_os_str()].into_iter().chain(words.iter().map(OsStr::new));
            let elect = ElectCmd::new(&sandbox).program(program).variable("ELECT_STORE", &sandbox.store());
            let elect = elect.variable("ELECT_RUNTIME_DIR", &runtime);
            elect.process().stdout(stdout).output().expect("elect is there")
        };
        let full = elect(File::options().write(true).open("/dev/full").expect("there is one").into());
        let said = String::from_utf8_lossy(&full.stderr);
        assert_eq!(full.status.code(), Some(125), "{words:?}: {full:?}");
        assert!(said.contains("could not be written to standard output: No space left on device"), "{words:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{words:?}: {said}");
        let (reader, unread) = std::io::pipe().expect("a pipe");
        drop(reader);
        let unread = elect(unread.into());
        assert_eq!((unread.status.code(), unread.stderr.as_slice()), (Some(0), &b""[..]), "{words:?}: {unread:?}");
    }
    leader.terminate();
}

#[test]
fn a_keeper_that_dies_before_it_is_listened_to_is_noticed() {
    let sandbox = Sandbox::new();
    for _ in 0..10 {
        // In this tier the keeper is its first child.
        let mut leader = ElectCmd::new(&sandbox).flag("--containment", "tree").witness(&Witness::new()).start();
        // As early as it can be seen, which is mostly before its campaigner listens to signals.
        let keeper = eventually("the keeper", || processes::children(leader.pid()).first().copied());
        processes::signal(keeper, Signal::SIGKILL);
        leader.ends_with(125);
    }
    sandbox.is_left_empty();
}

#[test]
fn each_stop_signal_stops_the_command() {
    let sandbox = Sandbox::new();
    for (run, signal) in (1..).zip([Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT]) {
        let mut leader = ElectCmd::new(&sandbox).witness(&Witness::new().daemon()).start();
        sandbox.history_when("the grandchild", |history| history.grandchildren.len() == run);
        leader.signal(signal);
        leader.ends_with(0);
        sandbox.is_left_empty();
    }
    assert_eq!(sandbox.history().ends.len(), 6, "all were asked, none was killed");
}

#[test]
fn the_stop_signal_is_the_one_that_was_named() {
    let sandbox = Sandbox::new();
    let mut leader = ElectCmd::new(&sandbox)
        .flag("--stop-signal", "USR2")
        .shell("trap 'echo usr2; exit 3' USR2; trap 'echo term; exit 4' TERM; echo ready; while :; do sleep 0.05; done")
        .start();
    until("the command is ready", || leader.output().contains("ready"));
    leader.signal(Signal::SIGTERM);
    leader.ends_with(3);
    assert_eq!(leader.output(), "ready\nusr2\n");
}

#[test]
fn a_second_stop_signal_kills_at_once() {
    let sandbox = Sandbox::new();
    let mut leader =
        ElectCmd::new(&sandbox).flag("--stop-timeout", "1h").witness(&Witness::new().daemon().stubborn()).start();
    sandbox.history_when("the grandchild", |history| !history.grandchildren.is_empty());
    leader.signal(Signal::SIGTERM);
    leader.wait_for_log("asked to stop");
    assert!(!leader.has_ended(), "it has an hour");
    leader.signal(Signal::SIGTERM);
    leader.ends_with(137);
    sandbox.is_left_empty();
}

#[test]
fn other_signals_are_passed_on_to_the_main_process() {
    let sandbox = Sandbox::new();
    let mut leader = ElectCmd::new(&sandbox)
        .shell("for s in HUP USR1 USR2 WINCH; do trap \"echo $s\" $s; done; echo ready; while :; do sleep 0.05; done")
        .start();
    until("the command is ready", || leader.output().contains("ready"));
    let signals =
        [(Signal::SIGHUP, "HUP"), (Signal::SIGUSR1, "USR1"), (Signal::SIGUSR2, "USR2"), (Signal::SIGWINCH, "WINCH")];
    for (signal, name) in signals {
        leader.signal(signal);
        until(&format!("{name} has arrived"), || leader.output().contains(name));
    }
    assert!(!leader.has_ended());
    leader.terminate();
    sandbox.is_left_empty();
}

#[test]
fn what_the_main_process_leaves_behind_is_stopped_before_elect_ends() {
    let sandbox = Sandbox::new();
    let ended = ElectCmd::new(&sandbox).shell("setsid --fork sleep 600; sleep 600 & exit 4").run();
    assert_eq!(ended.status.code(), Some(4), "{ended:?}");
    sandbox.is_left_empty();
    let ended = ElectCmd::new(&sandbox)
        .flag("--stop-timeout", "300ms")
        .shell("trap '' TERM; setsid --fork sleep 600; exit 4")
        .run();
    assert_eq!(ended.status.code(), Some(4), "the status is the main process's: {ended:?}");
    sandbox.is_left_empty();
}

#[test]
fn children_that_elect_was_born_with_are_left_alone() {
    let sandbox = Sandbox::new();
    let born_with = ["sh", "-c", r#"sleep 600 & exec "$@""#, "sh"];
    let mut leader = ElectCmd::new(&sandbox).wrapped_by(born_with).witness(&Witness::new().daemon()).start();
    sandbox.history_when("the grandchild", |history| !history.grandchildren.is_empty());
    processes::signal(leader.keeper(), Signal::SIGKILL);
    leader.ends_with(125);
    let left: Vec<String> = leader.tree().into_iter().map(|process| process.name).collect();
    assert_eq!(left, ["sleep"]);
}
