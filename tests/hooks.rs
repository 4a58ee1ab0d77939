//! Hooks: those before and after a leadership, and those beside it.

use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::{CandidateProcess, ElectCmd, Sandbox, Witness, processes, runs, until};

/// Notes the beginning and the end of each hook, with time enough in between for whoever does not wait.
fn hooked(sandbox: &Sandbox) -> ElectCmd {
    ElectCmd::new(sandbox).flag("--on-elected", &slowly("elected")).flag("--on-ousted", &slowly("ousted"))
}

fn slowly(name: &str) -> String {
    let note = |name: &str| Witness::notes(name).replacen("exec ", "", 1);
    format!("{}; sleep 0.2; {}", note(name), note(&format!("{name}.")))
}

/// The next in line, whose own hooks leave notes of other names.
fn next(sandbox: &Sandbox) -> CandidateProcess {
    let next = ElectCmd::new(sandbox).witness(&Witness::new()).start();
    next.wait_until_waiting();
    next
}

/// All that happened, in the order in which it did, as it was written down and as it was stamped.
#[track_caller]
fn happened(sandbox: &Sandbox, expected: &[&str]) {
    let history = sandbox.history();
    assert_eq!(history.order, expected, "{history:?}");
    history.is_safe();
    let text = fs::read_to_string(sandbox.path().join("journal")).expect("a journal");
    let stamps = text.lines().filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    assert!(stamps.is_sorted(), "{text}");
}

#[test]
fn hooks_run_before_the_command_and_between_its_end_and_the_next_leader() {
    let sandbox = Sandbox::new();
    let mut leader = hooked(&sandbox).witness(&Witness::new()).start();
    sandbox.starts(1);
    let next = next(&sandbox);
    leader.signal(Signal::SIGTERM);
    leader.ends_with(0);
    sandbox.starts(2);
    happened(&sandbox, &["elected", "elected.", "start", "end", "ousted", "ousted.", "start"]);
    next.terminate();
    sandbox.is_left_empty();
}

#[test]
fn the_hook_after_the_command_also_runs_if_that_ends_by_itself_and_its_status_stays() {
    let sandbox = Sandbox::new();
    let ended =
        hooked(&sandbox).shell(&format!("{}; exit 7", Witness::notes("command").replacen("exec ", "", 1))).run();
    assert_eq!(ended.status.code(), Some(7), "{ended:?}");
    happened(&sandbox, &["elected", "elected.", "command", "ousted", "ousted."]);
    // And if it fails, too.
    let sandbox = Sandbox::new();
    let ended = ElectCmd::new(&sandbox).flag("--on-ousted", "exit 3").shell("exit 7").run();
    assert_eq!(ended.status.code(), Some(7), "{ended:?}");
    ended.stderr_contains(&["--on-ousted failed status=3"]);
    sandbox.is_left_empty();
}

#[test]
fn a_killed_campaigners_keeper_runs_the_hook_before_the_next_leader() {
    let sandbox = Sandbox::new();
    let mut leader =
        hooked(&sandbox).witness(&Witness::new().daemon().stubborn()).flag("--stop-timeout", "300ms").start();
    sandbox.history_when("the grandchild", |history| !history.grandchildren.is_empty());
    let next = next(&sandbox);
    leader.signal(Signal::SIGKILL);
    leader.ends_by(Signal::SIGKILL);
    sandbox.starts(2);
    happened(&sandbox, &["elected", "elected.", "start", "grandchild", "ousted", "ousted.", "start"]);
    next.terminate();
    sandbox.is_left_empty();
}

#[test]
fn a_campaigner_killed_while_the_hook_runs_has_it_run_once() {
    let sandbox = Sandbox::new();
    // The hook runs until the campaigner is dead.
    let hook = slowly("ousted").replace("sleep 0.2", "until [ -e $WITNESS_PLACE/go ]; do sleep 0.02; done");
    let elect = ElectCmd::new(&sandbox).flag("--on-elected", &slowly("elected")).flag("--on-ousted", &hook);
    let mut leader = elect.flag("--hook-timeout", "1h").witness(&Witness::new()).start();
    sandbox.starts(1);
    let next = next(&sandbox);
    leader.signal(Signal::SIGTERM);
    sandbox.history_when("the hook", |history| history.notes.iter().any(|(name, _)| name == "ousted"));
    leader.signal(Signal::SIGKILL);
    leader.ends_by(Signal::SIGKILL);
    fs::write(sandbox.path().join("go"), "").expect("written");
    sandbox.starts(2);
    happened(&sandbox, &["elected", "elected.", "start", "end", "ousted", "ousted.", "start"]);
    next.terminate();
    sandbox.is_left_empty();
}

#[test]
fn a_killed_keeper_runs_nothing_and_that_is_said() {
    let sandbox = Sandbox::new();
    let mut leader = hooked(&sandbox).witness(&Witness::new()).start();
    sandbox.starts(1);
    let next = next(&sandbox);
    processes::signal(leader.keeper(), Signal::SIGKILL);
    leader.ends_with(125);
    leader.wait_for_log("--on-ousted is not run");
    sandbox.starts(2);
    happened(&sandbox, &["elected", "elected.", "start", "start"]);
    next.terminate();
    sandbox.is_left_empty();
}

#[test]
fn a_hold_and_a_restart_limit_end_with_the_hook() {
    let sandbox = Sandbox::new();
    let ended = hooked(&sandbox).flag("--min-hold", "1s").command(["true"]).run();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    happened(&sandbox, &["elected", "elected.", "ousted", "ousted."]);
    let notes = sandbox.history().notes;
    assert!(
        notes[2].1.at.saturating_sub(notes[1].1.at) >= Duration::from_millis(900),
        "at the end of the hold: {notes:?}"
    );

    let sandbox = Sandbox::new();
    let leader = hooked(&sandbox)
        .flag("--restart", "always")
        .flag("--restart-delay", "1ms")
        .flag("--restart-limit", "2/2s")
        .command(["true"])
        .start();
    leader.wait_for_log("ends too often");
    // The next term may have begun by now.
    let history = sandbox.history_when("the hook", |history| history.notes.len() >= 4);
    assert_eq!(history.order[..4], ["elected", "elected.", "ousted", "ousted."], "{history:?}");
    leader.wait_for_log("standing again");
    sandbox.history_when("the next term", |history| history.notes.len() >= 8);
    leader.terminate();
    sandbox.is_left_empty();
}

#[test]
fn without_a_yes_another_candidate_leads() {
    let sandbox = Sandbox::new();
    let refuses = format!("{}; exit 1", Witness::notes("elected").replacen("exec ", "", 1));
    let gate = ElectCmd::new(&sandbox).witness(&Witness::new()).start();
    sandbox.starts(1);
    let mut first =
        ElectCmd::new(&sandbox).flag("--on-elected", &refuses).flag("--on-ousted", &Witness::notes("ousted"));
    first = first.witness(&Witness::new());
    let mut first = first.start();
    first.wait_until_waiting();
    let second = next(&sandbox);
    gate.terminate();
    sandbox.starts(2);
    let history = sandbox.history();
    assert!(!history.order.ends_with(&["elected".to_owned()]), "{history:?}");
    // If it was the first to be asked, it has said no, and sits out.
    if history.order.contains(&"elected".to_owned()) {
        assert_eq!(history.order, ["start", "end", "elected", "ousted", "start"]);
        first.wait_for_log("stands again in 10s");
    }
    second.terminate();
    first.signal(Signal::SIGTERM);
    first.wait();
    sandbox.is_left_empty();

    let sandbox = Sandbox::new();
    let ended = ElectCmd::new(&sandbox).switch("-n").flag("--on-elected", "exit 1").witness(&Witness::new()).run();
    assert_eq!(ended.status.code(), Some(76), "{ended:?}");
    ended.stderr_contains(&["--on-elected failed status=1", "giving up"]);
    assert!(sandbox.history().starts.is_empty());
    sandbox.is_left_empty();
}

#[test]
fn a_hook_that_takes_too_long_is_killed_with_all_that_it_started() {
    let sandbox = Sandbox::new();
    let stubborn = Witness::new().daemon().stubborn().line();
    let ended = ElectCmd::new(&sandbox)
        .switch("-n")
        .flag("--hook-timeout", "1s")
        .flag("--on-elected", &stubborn)
        .flag("--on-ousted", "trap '' TERM; sleep 600")
        .command(["true"])
        .run();
    assert_eq!(ended.status.code(), Some(76), "{ended:?}");
    ended.stderr_contains(&[
        "--on-elected took longer than --hook-timeout",
        "--on-ousted took longer than --hook-timeout",
    ]);
    sandbox.is_left_empty();
}

#[test]
fn a_hook_that_leaves_a_daemon_behind_has_it_stopped_before_the_command_starts() {
    let sandbox = Sandbox::new();
    let daemon = "setsid --fork sleep 600; exit 0";
    let leader = ElectCmd::new(&sandbox).flag("--on-elected", daemon).witness(&Witness::new()).start();
    sandbox.starts(1);
    let names: Vec<String> = leader.tree().into_iter().map(|process| process.name).collect();
    assert!(!names.contains(&"sleep".to_owned()), "{names:?}");
    leader.terminate();
    sandbox.is_left_empty();
}

#[test]
fn hooks_are_told_what_the_command_is_told() {
    let sandbox = Sandbox::new();
    // Only hooks have a reason.
    let env = "env | grep ^ELECT_ | grep -v ^ELECT_REASON= | sort | tr '\\n' ' '; echo";
    let ended = ElectCmd::new(&sandbox).flag("--on-elected", env).flag("--on-ousted", env).shell(env).run();
    let lines: Vec<&str> = ended.stdout.lines().collect();
    assert_eq!(lines.len(), 3, "{ended:?}");
    assert!(lines[0].contains("ELECT_ROLE=leader") && lines[0].contains("ELECT_TERM="), "{ended:?}");
    assert_eq!((lines[0], lines[1]), (lines[1], lines[2]));
}

#[test]
fn each_change_of_the_leader_is_told_to_ourselves_and_to_none_too() {
    let sandbox = Sandbox::new();
    let tells = "echo ${ELECT_LEADER_NAME:-nobody} $ELECT_ROLE";
    let first = ElectCmd::new(&sandbox).flag("--name", "first").witness(&Witness::new()).start();
    sandbox.starts(1);
    let second =
        ElectCmd::new(&sandbox).flag("--name", "second").flag("--on-change", tells).witness(&Witness::new()).start();
    until("it knows the first", || second.output().contains("first follower\n"));
    first.terminate();
    until("it knows itself", || second.output().ends_with("second leader\n"));
    second.terminate();
    sandbox.is_left_empty();
}

#[test]
fn a_hook_beside_a_candidate_that_ends_is_gone_with_it() {
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let sandbox = Sandbox::new();
        let leader = ElectCmd::new(&sandbox).witness(&Witness::new()).start();
        sandbox.starts(1);
        let stubborn = "trap '' TERM; setsid --fork sleep 600; echo up; sleep 600; :";
        let mut waiter = ElectCmd::new(&sandbox)
            .flag("--on-change", stubborn)
            .flag("--hook-timeout", "1h")
            .witness(&Witness::new())
            .start();
        until("the hook runs", || waiter.output() == "up\n");
        waiter.signal(signal);
        waiter.wait();
        until("nothing is left of it", || waiter.all().is_empty());
        leader.terminate();
        sandbox.is_left_empty();
    }
}

#[cfg(feature = "all-stores")]
mod on_a_server {
    use super::*;
    use crate::QueueServer;
    use crate::harness::proxy::{Proxy, ProxyMode};
    use crate::harness::server::StoreServer;
    use crate::harness::wait::throughout;

    /// Of candidates that keep their lease, however busy the machine is.
    const LONG_TTL: &str = "12s";

    fn on(sandbox: &Sandbox, server: &QueueServer, ttl: &str) -> ElectCmd {
        hooked(sandbox).store(server.url_for(sandbox)).flag("--ttl", ttl)
    }

    fn waits(sandbox: &Sandbox, server: &QueueServer) -> CandidateProcess {
        let next = ElectCmd::new(sandbox).store(server.url_for(sandbox)).flag("--ttl", LONG_TTL);
        let next = next.witness(&Witness::new()).start();
        next.wait_until_waiting();
        next
    }

    #[test]
    fn what_happens_while_a_hook_runs_is_folded_into_one_more() {
        let server = QueueServer::start();
        let sandbox = Sandbox::new();
        let on_server =
            |name| ElectCmd::new(&sandbox).store(server.url_for(&sandbox)).flag("--ttl", LONG_TTL).flag("--name", name);
        let mut leaders = Vec::new();
        for name in ["first", "second", "third"] {
            leaders.push(on_server(name).witness(&Witness::new()).start());
            // One after the other, so that the queue is in this order.
            leaders.last().expect("one").wait_for_log(if name == "first" { "elected" } else { "waiting: " });
        }
        let go = sandbox.path().join("go");
        let waits = format!("echo $ELECT_LEADER_NAME; until [ -e {} ]; do sleep 0.01; done", go.display());
        let watcher = on_server("watcher").flag("--hook-timeout", "1h").flag("--on-change", &waits);
        let watcher = watcher.witness(&Witness::new()).start();
        until("the hook runs", || watcher.output() == "first\n");
        for next in ["second", "third"] {
            leaders.remove(0).terminate();
            watcher.wait_for_log(&format!("waiting: {next} leads"));
        }
        assert_eq!(watcher.output(), "first\n", "one at a time");
        fs::write(&go, "").expect("written");
        until("one more has run", || watcher.output() == "first\nthird\n");
        throughout(Duration::from_secs(1), "and no other", || watcher.output() == "first\nthird\n");
        watcher.terminate();
        leaders.remove(0).terminate();
        sandbox.is_left_empty();
    }

    #[test]
    fn the_hook_runs_before_a_clean_release_and_a_keepers() {
        let server = QueueServer::start();
        // The lease of one that is killed has to run out.
        for (signal, ttl) in [(Signal::SIGTERM, LONG_TTL), (Signal::SIGKILL, "6s")] {
            let sandbox = Sandbox::new();
            let mut leader = on(&sandbox, &server, ttl).witness(&Witness::new()).start();
            sandbox.starts(1);
            let next = waits(&sandbox, &server);
            leader.signal(signal);
            leader.wait();
            sandbox.starts(2);
            happened(&sandbox, &["elected", "elected.", "start", "end", "ousted", "ousted.", "start"]);
            next.terminate();
            sandbox.is_left_empty();
        }
    }

    #[test]
    fn the_hook_runs_after_a_lease_that_was_lost_or_ran_out() {
        let server = QueueServer::start();
        let sandbox = Sandbox::new();
        let proxy = Proxy::to(&server.address());
        let store = sandbox.below(&QueueServer::url_of(&proxy.address()));
        let tells = "echo \"$ELECT_ROLE $ELECT_ERROR\"";
        let leader =
            on(&sandbox, &server, "3s").store(store).flag("--on-error", tells).witness(&Witness::new()).start();
        sandbox.starts(1);
        let next = waits(&sandbox, &server);
        proxy.mode(ProxyMode::BlackHole);
        let ousted = || sandbox.history().notes.iter().filter(|(name, _)| name == "ousted.").count();
        until("it has run", || ousted() >= 1);
        sandbox.starts(2);
        let order = sandbox.history().order;
        assert_eq!(order[..4], ["elected", "elected.", "start", "end"], "{order:?}");
        until("the trouble was told", || leader.output().lines().any(|line| line.len() > "leader ".len()));
        proxy.mode(ProxyMode::Open);
        leader.terminate();
        next.terminate();
        sandbox.history().is_safe();
        sandbox.is_left_empty();
    }
}

#[test]
fn a_hook_that_is_due_when_the_command_ends_holds_nothing_up() {
    // The order to start it crosses the word that the command has ended: it is dropped, with whatever it would have left.
    for _ in 0..runs() * 3 {
        let sandbox = Sandbox::new();
        let elect = ElectCmd::new(&sandbox)
            .flag("--on-change", "sleep 30")
            .flag("--on-ousted", "echo ousted")
            .flag("--stop-timeout", "500ms")
            .flag("--hook-timeout", "30s");
        let ended = elect.command(["true"]).run();
        assert_eq!((ended.status.code(), ended.stdout.as_str()), (Some(0), "ousted\n"), "{ended:?}");
        assert!(!ended.stderr.contains("cannot be started"), "{ended:?}");
        sandbox.is_left_empty();
    }
}
