//! elect as PID 1: orphans become its children, signals without a handler do nothing, and its end kills every process.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::timing_verdict::{assert_in_time, retry_if_machine_slow};
use crate::harness::wait::{now, since};
use crate::harness::{CandidateProcess, ElectCmd, Sandbox, Witness, eventually, millis, processes, until};

/// It has a mount namespace of its own, and elect is its PID 1.
const AS_INIT: [&str; 5] = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"];

const ORPHANS: usize = 1000;

/// Makes orphans, each of whom lives until it sees its new parent, and says in the end how many did.
const ORPHANAGE: &str = r"
import os, sys, time
count, status = int(sys.argv[1]), int(sys.argv[2])
read, write = os.pipe()
for _ in range(count // 100):
    child = os.fork()
    if child == 0:
        parent = os.getpid()
        for _ in range(100):
            if os.fork() == 0:
                while os.getppid() == parent: time.sleep(0.01)
                os.write(write, b'.')
                os._exit(0)
        os._exit(0)
    os.waitpid(child, 0)
os.close(write)
adopted = 0
while adopted < count:
    adopted += len(os.read(read, 65536))
print('adopted', adopted, flush=True)
sys.exit(status)
";

/// The elect that is PID 1 in there, as it is known out here.
#[track_caller]
fn init(candidate: &CandidateProcess) -> i32 {
    eventually("elect is PID 1", || {
        let child = processes::children(candidate.pid()).first().copied()?;
        (processes::name(child).as_deref() == Some("elect")).then_some(child)
    })
}

/// A program in the namespaces of another, its parent outside.
fn inside(init: i32, words: &[&str]) -> Command {
    let mut command = Command::new("nsenter");
    command.args(["--target", &init.to_string(), "--pid", "--mount"]).args(words).stdin(Stdio::null());
    command
}

/// `kill -TERM 1`, from inside. It may not outlive what it does there, and so cannot say whether it did it.
fn ask(init: i32, signal: &str) {
    inside(init, &["kill", &format!("-{signal}"), "1"]).status().expect("nsenter is there");
}

fn count(number: usize) -> String {
    number.to_string()
}

#[test]
fn a_thousand_orphans_of_strangers_are_reaped_and_the_election_goes_on() {
    let sandbox = Sandbox::new();
    let mut leader = ElectCmd::new(&sandbox).wrapped_by(AS_INIT).witness(&Witness::new()).start();
    sandbox.starts(1);
    let init = init(&leader);
    let keeper = processes::children(init);
    assert_eq!(keeper.len(), 1, "the keeper alone");
    // As it is known out here, unlike the number in the journal.
    let command = processes::children(keeper[0]);
    assert_eq!(command.len(), 1, "the command");
    let next = ElectCmd::new(&sandbox).witness(&Witness::new()).start();
    next.wait_until_waiting();
    let words = ["python3", "-c", ORPHANAGE, &count(ORPHANS), "0"];
    let made = inside(init, &words).output().expect("nsenter is there");
    assert_eq!(String::from_utf8_lossy(&made.stdout), format!("adopted {ORPHANS}\n"), "{made:?}");
    let made = now();
    until("all are reaped", || processes::children(init) == keeper);
    println!("of {ORPHANS} orphans of strangers the last one was reaped after {}", millis(since(made)));
    assert!(processes::is_alive(command[0]) && sandbox.history().starts.len() == 1, "it leads on");
    // As `docker stop` does it.
    ask(init, "TERM");
    leader.ends_with(0);
    sandbox.starts(2);
    next.terminate();
    sandbox.history().is_safe();
}

#[test]
fn a_thousand_orphans_of_the_command_are_reaped_and_its_own_end_is_not_missed() {
    let sandbox = Sandbox::new();
    let started = now();
    let words = ["python3", "-c", ORPHANAGE, &count(ORPHANS), "7"];
    let ended = ElectCmd::new(&sandbox).wrapped_by(AS_INIT).command(words).run();
    assert_eq!(
        (ended.status.code(), ended.stdout.as_str()),
        (Some(7), format!("adopted {ORPHANS}\n").as_str()),
        "{ended:?}"
    );
    println!("{ORPHANS} orphans of the command were made and reaped in {}", millis(since(started)));
    sandbox.is_left_empty();
    // The keeper has no more of them while the command lives.
    let script =
        format!("python3 -c '{ORPHANAGE}' {ORPHANS} 0; exec sleep 600", ORPHANAGE = ORPHANAGE.replace('\'', "\""));
    let leader = ElectCmd::new(&sandbox).shell(&script).start();
    until("all are adopted", || leader.output().contains("adopted"));
    until("all are reaped", || processes::children(leader.keeper()).len() == 1);
    leader.terminate();
    sandbox.is_left_empty();
}

#[test]
fn orphans_of_children_that_elect_was_born_with_are_reaped_and_left_alone() {
    let sandbox = Sandbox::new();
    // A stranger of elect's, whose child becomes elect's when it dies; that one lives on. It dies when elect is a parent of orphans.
    let stranger = "sleep 600 & until [ -e $WITNESS_PLACE/go ]; do sleep 0.02; done";
    let born_with = ["sh", "-c", &format!(r#"sh -c '{stranger}' & exec "$@""#), "sh"];
    let mut leader = ElectCmd::new(&sandbox).wrapped_by(born_with).witness(&Witness::new()).start();
    sandbox.starts(1);
    fs::write(sandbox.path().join("go"), "").expect("written");
    let keeper = leader.keeper();
    let orphan = eventually("the orphan is elect's", || {
        let others: Vec<i32> = processes::children(leader.pid()).into_iter().filter(|&pid| pid != keeper).collect();
        (others.len() == 1 && processes::name(others[0]).as_deref() == Some("sleep")).then(|| others[0])
    });
    processes::signal(orphan, Signal::SIGUSR1);
    until("it is reaped", || processes::children(leader.pid()) == [keeper]);
    leader.signal(Signal::SIGTERM);
    leader.ends_with(0);
}

#[test]
fn a_stop_as_pid_1_ends_with_128_and_the_signals_number() {
    let sandbox = Sandbox::new();
    // The command dies of the stop signal, obeys it, or has to be killed.
    for (script, stop_timeout, status) in [
        ("echo ready; exec sleep 600", "1h", 143),
        ("trap 'exit 5' TERM; echo ready; while :; do sleep 0.02; done", "1h", 5),
        ("trap '' TERM; echo ready; sleep 600", "300ms", 137),
    ] {
        let mut leader =
            ElectCmd::new(&sandbox).flag("--stop-timeout", stop_timeout).wrapped_by(AS_INIT).shell(script).start();
        until("it runs", || leader.output().contains("ready"));
        ask(init(&leader), "TERM");
        leader.ends_with(status);
        sandbox.is_left_empty();
    }
    let mut leader = ElectCmd::new(&sandbox)
        .flag("--stop-timeout", "1h")
        .wrapped_by(AS_INIT)
        .shell("trap '' TERM; echo ready; sleep 600")
        .start();
    until("it runs", || leader.output().contains("ready"));
    ask(init(&leader), "TERM");
    leader.wait_for_log("asked to stop");
    ask(init(&leader), "INT");
    leader.ends_with(137);
    sandbox.is_left_empty();
}

#[test]
fn a_waiter_as_pid_1_ends_with_128_and_the_signals_number() {
    retry_if_machine_slow("a waiter as PID 1", Duration::from_secs(8), |limit| {
        let sandbox = Sandbox::new();
        let leader = ElectCmd::new(&sandbox).witness(&Witness::new()).start();
        sandbox.starts(1);
        for (name, status) in [("INT", 130), ("QUIT", 131), ("TERM", 143)] {
            let mut waiter = ElectCmd::new(&sandbox).wrapped_by(AS_INIT).witness(&Witness::new()).start();
            waiter.wait_until_waiting();
            let started = now();
            ask(init(&waiter), name);
            waiter.ends_with(status);
            assert_in_time(since(started) < limit, || "it had nothing to wait for".to_owned());
        }
        leader.terminate();
    });
}
