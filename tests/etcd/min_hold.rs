//! A boundary that is kept with nothing running, on a lease: `--min-hold`, and the time between two runs.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::{LEASE, candidate, candidate_for, through};
use crate::etcd::server::EtcdServer;
use crate::harness::proxy::{Proxy, ProxyMode};
use crate::harness::timing_verdict::{assert_in_time, retry_if_machine_slow};
use crate::harness::wait::{now, since};
use crate::harness::{CandidateProcess, ElectCmd, Sandbox, Witness, until};
use crate::leases::written;

#[test]
fn a_job_that_four_hosts_start_within_two_seconds_runs_once_on_a_lease_shorter_than_its_hold() {
    retry_if_machine_slow("etcd: a job that four hosts start", LEASE, a_job_of_four_hosts);
}

fn a_job_of_four_hosts(lease: Duration) {
    let etcd = EtcdServer::start();
    let (sandbox, hold) = (Sandbox::new(), lease * 5 / 3);
    let job = || {
        let elect = candidate_for(&sandbox, sandbox.below(&etcd.url()), &written(lease));
        elect.flag("--min-hold", &written(hold)).switch("-q").switch("-n")
    };
    let started = now();
    let mut candidates = Vec::new();
    for turn in 0..4 {
        until("its turn", || since(started) >= turn * lease / 5);
        candidates.push(job().shell("echo done; exit 7").start());
    }
    let mut said: Vec<_> = candidates.iter_mut().map(|one| (one.wait().code(), one.output())).collect();
    let took = since(started);
    said.sort();
    // The server may not answer one of them in time, and the last one may look when the hold is over.
    let count = |status: i32| said.iter().filter(|(code, _)| *code == Some(status)).count();
    assert_in_time(count(69) == 0 && count(7) == 1, || format!("{said:?}"));
    // An old server is warned of, however quiet one asks to be: that it is silent is shown with a lock file.
    let loser = (Some(75), String::new());
    assert_eq!(said, [(Some(7), "done\n".to_owned()), loser.clone(), loser.clone(), loser]);
    assert!(took >= hold, "{took:?}");
}

/// A leader in its hold is killed, with somebody waiting. Returns how long after its death, and after it began to hold, the
/// next command started.
fn handed_over(sandbox: &Sandbox, holder: ElectCmd, waiter: ElectCmd) -> (Duration, Duration) {
    let mut leader: CandidateProcess = holder.command(["true"]).start();
    leader.wait_for_log("the boundary is kept for another");
    let held = now();
    let waiter = waiter.witness(&Witness::new()).start();
    waiter.wait_until_waiting();
    let killed = now();
    leader.signal(Signal::SIGKILL);
    leader.ends_by(Signal::SIGKILL);
    let next = sandbox.starts(1).latest().at;
    waiter.terminate();
    (next.saturating_sub(killed), next.saturating_sub(held))
}

#[test]
fn a_hold_without_its_campaigner_ends_with_the_lease_or_with_itself_whichever_is_first() {
    let etcd = EtcdServer::start();
    let sandbox = Sandbox::new();
    let store = sandbox.below(&etcd.url());
    let holder = candidate(&sandbox, store.clone()).flag("--min-hold", "1h");
    let (after, _) = handed_over(&sandbox, holder, candidate(&sandbox, store));
    assert!(after >= LEASE / 2, "not released, the lease had to run out: {after:?}");

    let sandbox = Sandbox::new();
    let store = sandbox.below(&etcd.url());
    let holder = candidate_for(&sandbox, store.clone(), "60s").flag("--min-hold", "4s");
    let (_, after) = handed_over(&sandbox, holder, candidate_for(&sandbox, store, "60s"));
    assert!(after >= Duration::from_secs(3) && after < Duration::from_secs(30), "released by the keeper: {after:?}");
}

#[test]
fn a_lease_that_runs_out_between_two_runs_is_over_and_another_candidate_starts() {
    let etcd = EtcdServer::start();
    let sandbox = Sandbox::new();
    let proxy = Proxy::to(&etcd.address());
    let leader = candidate(&sandbox, through(&proxy, &sandbox))
        .flag("--restart", "always")
        .flag("--restart-delay", "1h")
        .command(["true"])
        .start();
    leader.wait_for_log("the leader command is started again in");
    let next = candidate(&sandbox, sandbox.below(&etcd.url())).witness(&Witness::new()).start();
    next.wait_until_waiting();
    proxy.mode(ProxyMode::BlackHole);
    leader.wait_for_log("the lease runs out; nothing is running");
    sandbox.starts(1);
    proxy.mode(ProxyMode::Open);
    leader.wait_for_log("waiting: ");
    leader.terminate();
    next.terminate();
    sandbox.is_left_empty();
}
