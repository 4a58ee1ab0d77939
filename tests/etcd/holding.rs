//! A boundary that is kept with nothing running, on a lease: `--min-hold`, and the time between two runs.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::{LEASE, candidate, candidate_for, through};
use crate::harness::etcd::Etcd;
use crate::harness::proxy::{Mode, Proxy};
use crate::harness::wait::{now, since};
use crate::harness::{Candidate, Elect, Place, Witness, until};

#[test]
fn a_job_that_four_hosts_start_within_two_seconds_runs_once_on_a_lease_shorter_than_its_hold() {
    let etcd = Etcd::start();
    let place = Place::new();
    let job = || candidate(&place, place.below(&etcd.url())).flag("--min-hold", "5s").switch("-q").switch("-n");
    let started = now();
    let mut candidates = Vec::new();
    for turn in 0..4 {
        until("its turn", || since(started) >= turn * Duration::from_millis(600));
        candidates.push(job().shell("echo done; exit 7").start());
    }
    let mut said: Vec<_> = candidates.iter_mut().map(|one| (one.wait().code(), one.output())).collect();
    let took = since(started);
    said.sort();
    // An old server is warned of, however quiet one asks to be: that it is silent is shown with a lock file.
    let loser = (Some(75), String::new());
    assert_eq!(said, [(Some(7), "done\n".to_owned()), loser.clone(), loser.clone(), loser]);
    assert!(took >= Duration::from_secs(5), "{took:?}");
}

/// A leader in its hold is killed, with somebody waiting. Returns how long after its death, and after it began to hold, the
/// next command started.
fn handed_over(place: &Place, holder: Elect, waiter: Elect) -> (Duration, Duration) {
    let mut leader: Candidate = holder.command(["true"]).start();
    leader.says("the boundary is kept for another");
    let held = now();
    let waiter = waiter.witness(&Witness::new()).start();
    waiter.waits();
    let killed = now();
    leader.signal(Signal::SIGKILL);
    leader.ends_by(Signal::SIGKILL);
    let next = place.starts(1).latest().at;
    waiter.stops();
    (next.saturating_sub(killed), next.saturating_sub(held))
}

#[test]
fn a_hold_without_its_campaigner_ends_with_the_lease_or_with_itself_whichever_is_first() {
    let etcd = Etcd::start();
    let place = Place::new();
    let store = place.below(&etcd.url());
    let holder = candidate(&place, store.clone()).flag("--min-hold", "1h");
    let (after, _) = handed_over(&place, holder, candidate(&place, store));
    assert!(after >= LEASE / 2, "not released, the lease had to run out: {after:?}");

    let place = Place::new();
    let store = place.below(&etcd.url());
    let holder = candidate_for(&place, store.clone(), "60s").flag("--min-hold", "4s");
    let (_, after) = handed_over(&place, holder, candidate_for(&place, store, "60s"));
    assert!(after >= Duration::from_secs(3) && after < Duration::from_secs(30), "released by the keeper: {after:?}");
}

#[test]
fn a_lease_that_runs_out_between_two_runs_is_over_and_another_candidate_starts() {
    let etcd = Etcd::start();
    let place = Place::new();
    let proxy = Proxy::to(&etcd.address());
    let leader = candidate(&place, through(&proxy, &place))
        .flag("--restart", "always")
        .flag("--restart-delay", "1h")
        .command(["true"])
        .start();
    leader.says("the leader command is started again in");
    let next = candidate(&place, place.below(&etcd.url())).witness(&Witness::new()).start();
    next.waits();
    proxy.mode(Mode::BlackHole);
    leader.says("the lease runs out; nothing is running");
    place.starts(1);
    proxy.mode(Mode::Open);
    leader.says("waiting: ");
    leader.stops();
    next.stops();
    place.is_left_empty();
}
