//! Faults of the keeper: it dies, is stopped or is slow between two steps where that is most dangerous.

use std::fs;
use std::path::Path;

use nix::sys::signal::Signal;

use crate::harness::syscall_gate::{GatePoint, SyscallGate};
use crate::harness::{CandidateProcess, ElectCmd, Sandbox, Witness, few, processes, until};

/// Starts elect with an inherited child that is not its own; `stranger` is the child's script.
fn beside_a_stranger(elect: ElectCmd, stranger: &str) -> ElectCmd {
    elect.wrapped_by(["sh", "-c", &format!("{stranger} & exec \"$@\""), "sh"])
}

/// Its number, once it runs.
fn child_named(candidate: &CandidateProcess, name: &str) -> i32 {
    crate::harness::eventually(&format!("{name} runs"), || {
        let mut children = processes::children(candidate.pid()).into_iter();
        children.find(|&pid| processes::name(pid).as_deref() == Some(name))
    })
}

/// It has died, and nobody has reaped it.
fn is_dead_and_unreaped(pid: i32) {
    until("the keeper is dead", || processes::state(pid) == Some('Z'));
}

/// A keeper that dies while the campaigner looks for those that are not its own: its tree is taken for strangers.
fn keeper_dies_at_the_gate(elect: fn(ElectCmd) -> ElectCmd, hits: usize) {
    for _ in 0..few() {
        let sandbox = Sandbox::new();
        let gate = SyscallGate::new(GatePoint::Walk);
        let leader = ElectCmd::new(&sandbox).flag("--containment", "tree").witness(&Witness::new().daemon().closing());
        let mut leader = beside_a_stranger(elect(gate.before(leader)), "sleep 1000").start();
        sandbox.starts(1);
        until("the grandchild is there", || sandbox.history().grandchildren.len() == 1);
        let stranger = child_named(&leader, "sleep");
        let next = ElectCmd::new(&sandbox).witness(&Witness::new()).start();
        next.wait_until_waiting();
        let keeper = leader.keeper();
        for hit in 1..=hits {
            gate.close();
            gate.is_reached();
            if hit == hits {
                processes::signal(keeper, Signal::SIGKILL);
                is_dead_and_unreaped(keeper);
            }
            gate.open();
        }
        leader.ends_with(125);
        sandbox.starts(2);
        sandbox.history().is_safe();
        assert!(processes::is_alive(stranger), "a child that elect was born with is left alone");
        next.terminate();
        sandbox.history().is_safe();
        drop(leader);
        sandbox.is_left_empty();
    }
}

#[test]
fn a_tree_whose_keeper_dies_while_strangers_are_looked_for_is_no_stranger() {
    keeper_dies_at_the_gate(|elect| elect, 1);
}

#[test]
fn a_tree_whose_keeper_dies_at_the_second_look_for_strangers_is_no_stranger() {
    keeper_dies_at_the_gate(|elect| elect, 2);
}

#[test]
fn a_tree_whose_keeper_dies_is_no_stranger_with_hooks_and_a_short_ttl() {
    keeper_dies_at_the_gate(
        |elect| elect.flag("--on-elected", "true").flag("--on-ousted", "true").flag("--ttl", "3s"),
        1,
    );
}

#[test]
fn an_orphan_of_a_stranger_is_a_stranger() {
    let sandbox = Sandbox::new();
    let gate = SyscallGate::new(GatePoint::Walk);
    let leader = gate.before(ElectCmd::new(&sandbox).flag("--containment", "tree").witness(&Witness::new()));
    // The inner one outlives its parent, and is a child of elect from then on.
    let stranger = "sh -c 'sleep 1001 & sleep 1000; :'";
    let mut leader = beside_a_stranger(leader, stranger).start();
    sandbox.starts(1);
    let outer = child_named(&leader, "sh");
    let inner = crate::harness::eventually("the inner one runs", || {
        let sleeps =
            |&pid: &i32| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|words| words == b"sleep\x001001\0");
        processes::children(outer).into_iter().find(sleeps)
    });
    processes::signal(outer, Signal::SIGKILL);
    until("it is a child of elect", || processes::stat(inner, 1) == Some(leader.pid()));
    // Twice: the look that was under way may have begun before.
    for _ in 0..2 {
        gate.close();
        gate.is_reached();
        gate.open();
    }
    // And a third time to know that the second look is over.
    gate.close();
    gate.is_reached();
    gate.open();
    let keeper = leader.keeper();
    processes::signal(keeper, Signal::SIGKILL);
    leader.ends_with(125);
    assert!(processes::is_alive(inner), "what descends from a child that elect was born with is left alone");
}

#[test]
fn a_child_that_finds_its_keeper_dead_before_exec_does_not_execute() {
    let sandbox = Sandbox::new();
    let gate = SyscallGate::new(GatePoint::Exec);
    gate.close();
    let leader = gate.before(ElectCmd::new(&sandbox).flag("--containment", "tree").witness(&Witness::new())).start();
    gate.is_reached();
    let (keeper, child) = (leader.keeper(), child_before_exec(&leader));
    leader.kill_with_keeper();
    until("both are dead", || !processes::is_alive(keeper) && !processes::is_alive(leader.pid()));
    until("its parent is another", || processes::stat(child, 1) != Some(keeper));
    gate.open();
    until("the child is gone", || !processes::is_alive(child));
    assert_eq!(sandbox.history().starts.len(), 0, "nobody was left to kill it");
}

/// The child of the keeper that stands before the gate.
fn child_before_exec(leader: &CandidateProcess) -> i32 {
    let keeper = leader.keeper();
    crate::harness::eventually("the child is there", || processes::children(keeper).into_iter().next())
}

#[test]
fn a_signal_that_comes_before_exec_is_kept_for_the_command() {
    let sandbox = Sandbox::new();
    let gate = SyscallGate::new(GatePoint::Exec);
    gate.close();
    let elect = ElectCmd::new(&sandbox).flag("--containment", "tree").command(["sleep", "1000"]);
    let mut leader = gate.before(elect).start();
    gate.is_reached();
    for _ in 0..3 {
        leader.signal(Signal::SIGUSR1);
    }
    gate.open();
    leader.ends_by(Signal::SIGUSR1);
    let log = leader.log();
    let (started, ended) = (log.find("leader command started"), log.find("leader command ended"));
    assert!(started.is_some() && started < ended, "{log}");
    sandbox.is_left_empty();
}

#[test]
fn a_child_that_is_killed_before_exec_is_not_said_to_have_started() {
    let sandbox = Sandbox::new();
    let gate = SyscallGate::new(GatePoint::Exec);
    gate.close();
    let elect = ElectCmd::new(&sandbox).flag("--containment", "tree").witness(&Witness::new());
    let mut leader = gate.before(elect).start();
    gate.is_reached();
    processes::signal(child_before_exec(&leader), Signal::SIGKILL);
    leader.ends_with(126);
    let log = leader.log();
    assert!(!log.contains("leader command started") && !log.contains("leader command ended"), "{log}");
    assert_eq!(sandbox.history().starts.len(), 0);
    sandbox.is_left_empty();
}

#[test]
fn a_command_is_started_only_when_the_keeper_has_the_claim() {
    let sandbox = Sandbox::new();
    let gate = SyscallGate::new(GatePoint::Claim);
    gate.close();
    let leader = gate.before(ElectCmd::new(&sandbox).witness(&Witness::new())).start();
    gate.is_reached();
    leader.wait_for_log("the keeper could not be given the claim");
    assert_eq!(sandbox.history().starts.len(), 0, "no claim, no leader");
    gate.open();
    sandbox.starts(1);
    leader.terminate();
    sandbox.is_left_empty();
}

#[test]
fn a_frozen_keepers_tree_is_killed_by_the_campaigner_before_the_keeper_is_given_up() {
    let sandbox = Sandbox::new();
    let leader = ElectCmd::new(&sandbox)
        .flag("--containment", "tree")
        .flag("--stop-timeout", "1h")
        .witness(&Witness::new().daemon().stubborn())
        .start();
    sandbox.starts(1);
    until("the grandchild is there", || sandbox.history().grandchildren.len() == 1);
    let keeper = leader.keeper();
    processes::signal(keeper, Signal::SIGSTOP);
    until("the keeper stands still", || processes::state(keeper) == Some('T'));
    leader.signal(Signal::SIGTERM);
    leader.wait_for_log("asked to stop");
    // The second signal kills at once. The dead wait for the keeper to reap them.
    leader.signal(Signal::SIGTERM);
    until("the tree is dead", || leader.tree().iter().all(|process| !processes::is_alive(process.pid)));
    assert_eq!(processes::state(keeper), Some('T'), "and the keeper had no part in it");
    leader.ends_killed();
}

#[test]
fn the_last_words_of_a_keeper_are_heard_before_its_death() {
    let sandbox = Sandbox::new();
    let go = sandbox.path().join("go");
    let script = format!("until [ -e {} ]; do sleep 0.01; done; exit 7", go.display());
    let mut leader = ElectCmd::new(&sandbox).flag("--containment", "tree").shell(&script).start();
    leader.wait_for_log("leader command started");
    let keeper = leader.keeper();
    leader.signal(Signal::SIGSTOP);
    until("the campaigner stands still", || processes::state(leader.pid()) == Some('T'));
    fs::write(&go, "").expect("the place takes a file");
    // It says so in the same turn in which it has reaped the last of them, before it sleeps again.
    until("nothing is left", || processes::children(keeper).is_empty());
    until("the keeper sleeps", || processes::state(keeper) == Some('S') && is_at_rest(keeper));
    processes::signal(keeper, Signal::SIGKILL);
    is_dead_and_unreaped(keeper);
    leader.signal(Signal::SIGCONT);
    leader.ends_with(125);
    let log = leader.log();
    assert!(log.contains("leader command ended") && log.contains("status=7"), "{log}");
}

/// Waits in `poll`, which it calls after everything has been said.
fn is_at_rest(pid: i32) -> bool {
    let call = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("syscall")).unwrap_or_default();
    call.split(' ').next().is_some_and(|number| [7, 271, 73].iter().any(|poll| number == poll.to_string()))
}

#[cfg(feature = "all-stores")]
mod late {
    use std::time::Duration;

    use super::*;
    use crate::ObservedServer;
    use crate::harness::host_tools::attempt;
    use crate::harness::millis;
    use crate::harness::proxy::{Proxy, ProxyMode};
    use crate::harness::server::StoreServer;
    use crate::harness::timing_verdict::{assert_in_time, retry_if_machine_slow};
    use crate::harness::wait::{now, since};
    use crate::leases::{LEASE, candidate_for, through};

    /// A start that comes too late while a hook runs beside it, and one that is made to wait again.
    #[test]
    fn a_start_that_was_too_late_is_made_again_beside_a_hook_that_goes_on() {
        for point in [GatePoint::Exec, GatePoint::LastStep] {
            // On a machine that is too slow the lease is lost meanwhile.
            retry_if_machine_slow("a start that was too late", LEASE, |lease| is_too_late_at(point, lease));
        }
    }

    fn is_too_late_at(point: GatePoint, lease: Duration) {
        let server = ObservedServer::start();
        let ttl = format!("{}ms", lease.as_millis());
        crate::leases::a_few_at_once(few(), || {
            let sandbox = Sandbox::new();
            let gate = SyscallGate::new(point);
            let leader = candidate_for(&sandbox, server.url_for(&sandbox), &ttl).witness(&Witness::new()).start();
            sandbox.starts(1);
            let next = candidate_for(&sandbox, server.url_for(&sandbox), &ttl)
                .flag("--on-change", "sleep 1000")
                .flag("--hook-timeout", "1h")
                .flag("--stop-timeout", "5s")
                .switch("-v")
                .witness(&Witness::new().daemon());
            let mut next = gate.before(next).start();
            next.wait_until_waiting();
            until("the hook runs", || next.tree().iter().any(|process| process.name == "sleep"));
            gate.close();
            leader.terminate();
            gate.is_reached();
            let reached = now();
            let third = candidate_for(&sandbox, server.url_for(&sandbox), &ttl).witness(&Witness::new()).start();
            third.wait_until_waiting();
            // The deadline that this start has is over; renewals go on meanwhile.
            until("a lease has passed", || since(reached) > lease);
            let starts = sandbox.history().starts.len();
            assert_in_time(starts == 1, || format!("{starts} starts while one was held back"));
            gate.open();
            next.wait_for_log("leader command not started why=TooLate");
            sandbox.starts(2);
            assert!(next.tree().iter().any(|process| process.name == "sleep"), "the hook goes on");
            next.signal(Signal::SIGTERM);
            next.ends_with(0);
            sandbox.starts(3);
            sandbox.history().is_safe();
            third.terminate();
            drop(next);
            sandbox.is_left_empty();
        });
    }

    /// So many that to kill them takes a keeper longer than it may be silent. The short form has fewer: other tests walk
    /// `/proc` beside it, again and again, and each of their walks meets every process.
    fn crowd_size() -> usize {
        if few() > 2 { 12_000 } else { 3_000 }
    }

    /// The lease of a leader with a large tree runs out: the keeper that is busy killing is not taken for a silent one.
    #[test]
    fn a_keeper_that_is_busy_killing_a_crowd_is_not_given_up() {
        let size = crowd_size();
        let server = ObservedServer::start();
        let sandbox = Sandbox::new();
        let proxy = Proxy::to(&server.address());
        let crowd = sandbox.path().join("crowd").display().to_string();
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/harness/crowd.c");
        attempt(["cc", "-O1", "-o", &crowd, source]).expect("cc is there");
        let there = sandbox.path().join("there");
        let command = [crowd, size.to_string(), there.display().to_string()];
        let mut leader = candidate_for(&sandbox, through::<ObservedServer>(&proxy, &sandbox), "4s")
            .flag("--containment", "tree")
            .command(command)
            .start();
        leader.wait_for_log("leader command started");
        until("all of them are there", || fs::exists(&there).expect("the place"));
        let struck = now();
        proxy.mode(ProxyMode::Closed);
        until("the tree is dead", || {
            assert!(!leader.has_ended(), "{}", leader.log());
            leader.log().contains("leader command ended")
        });
        until("it campaigns again", || {
            assert!(!leader.has_ended(), "{}", leader.log());
            processes::children(leader.keeper()).is_empty()
        });
        println!("{size} processes: gone {} after the cut, ttl 4 s", millis(since(struck)));
        proxy.mode(ProxyMode::Open);
        fs::remove_file(&there).expect("it was made");
        until("it leads again", || leader.log().matches("leader command started").count() == 2);
        assert!(!leader.log().contains("keeper"), "{}", leader.log());
        leader.terminate();
        sandbox.is_left_empty();
    }
}
