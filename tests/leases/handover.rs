//! The faults of the file store's tests, and those that only a lease has: whatever happens to the leader, the next one starts
//! when nothing of it is left.

use std::time::Duration;

use super::{CandidatePair, relay_for, written};
use crate::harness::faults::{self, LeaderFault, SIDE_BY_SIDE};
use crate::harness::proxy::ProxyMode;
use crate::harness::server::StoreServer;
use crate::harness::timing_verdict::{assert_in_time, late_if_a_keeper_was_given_up, retry_if_machine_slow};
use crate::harness::wait::now;
use crate::harness::{Measurements, Witness, few, side_by_side};

fn strikes<S: StoreServer>(fault: &LeaderFault) {
    strikes_in_time::<S>(fault, 1, |_, _| {});
}

/// The same where a limit on time is part of the promise: [`retry_if_machine_slow`].
fn strikes_in_time<S: StoreServer>(
    fault: &LeaderFault,
    side_by_side: usize,
    is_in_time: impl Fn(&Measurements, Duration),
) {
    retry_if_machine_slow(&format!("{}: {}", S::NAME, fault.kind), S::LEASE, |lease| {
        let (server, ttl) = (S::start(), written(lease));
        let handover_runs = relay_for(few(), &server, &ttl).side_by_side(side_by_side);
        is_in_time(&fault.run(handover_runs, &format!("{}: ", S::NAME)), lease);
    });
}

pub fn a_leader_that_is_asked_to_stop_hands_over<S: StoreServer>() {
    strikes::<S>(&faults::STOPPED);
}

pub fn a_killed_campaigner_hands_over_at_once<S: StoreServer>() {
    strikes_in_time::<S>(&faults::CAMPAIGNER_KILLED, 1, |measurements, lease| {
        let latest = measurements.handovers.iter().max().copied().unwrap_or_default();
        assert_in_time(latest < lease / 2, || format!("the keeper gives back what the campaigner held: {latest:?}"));
    });
}

pub fn a_killed_keeper_takes_the_command_along_and_hands_over<S: StoreServer>() {
    strikes::<S>(&faults::KEEPER_KILLED);
}

pub fn a_stopped_keeper_is_found_silent_and_its_tree_is_killed_without_it<S: StoreServer>() {
    strikes::<S>(&faults::KEEPER_FROZEN);
}

pub fn a_stopped_campaigners_command_is_killed_by_the_keeper_before_the_lease_is_over<S: StoreServer>() {
    strikes::<S>(&faults::CAMPAIGNER_FROZEN);
}

pub fn a_command_that_ignores_the_stop_signal_is_killed_with_its_daemon<S: StoreServer>() {
    strikes::<S>(&faults::STUBBORN_STOPPED);
}

pub fn a_killed_campaigner_hands_over_although_the_command_ignores_the_stop_signal<S: StoreServer>() {
    strikes::<S>(&faults::STUBBORN_CAMPAIGNER_KILLED);
}

pub fn a_command_with_a_long_grace_is_killed_by_the_deadline_when_its_campaigner_is<S: StoreServer>() {
    strikes_in_time::<S>(&faults::SLOW_CAMPAIGNER_KILLED, 1, |measurements, lease| {
        let latest = measurements.endings.iter().max().copied().unwrap_or_default();
        assert_in_time(latest < lease, || format!("killed within the lease: {latest:?}"));
    });
}

pub fn both_killed_at_once_hand_over_when_the_lease_has_run_out<S: StoreServer>() {
    strikes_in_time::<S>(&faults::BOTH_KILLED, SIDE_BY_SIDE, is_within_a_lease);
}

pub fn a_lost_host_hands_over_when_the_lease_has_run_out<S: StoreServer>() {
    let kind = format!("{}: host lost: network gone, then both processes", S::NAME);
    retry_if_machine_slow(&kind, S::LEASE, |lease| {
        let server = S::start();
        let mut measurements = Measurements::default();
        for host in side_by_side(few(), || lose_the_host(&server, lease)) {
            measurements.add(host);
        }
        measurements.print(&kind);
        assert_eq!((measurements.overlaps, measurements.survivors), (0, 0), "{kind}: {measurements}");
        is_within_a_lease(&measurements, lease);
    });
}

/// The network is the first to go, so that the server hears nothing of the end.
fn lose_the_host(server: &impl StoreServer, lease: Duration) -> Measurements {
    let pair = CandidatePair::at(server, &Witness::new(), lease);
    let mut measurements = late_if_a_keeper_was_given_up(&pair.sandbox, || struck(&pair));
    pair.next.terminate();
    measurements.overlaps = pair.sandbox.history().overlaps.len();
    pair.sandbox.history().is_safe();
    measurements
}

fn struck(pair: &CandidatePair) -> Measurements {
    let before = pair.sandbox.history();
    let led = before.latest();
    pair.leader.assert_leads(&led);
    let end = pair.sandbox.watch_the_end_of(led.pid);
    let struck = now();
    pair.link.mode(ProxyMode::BlackHole);
    pair.leader.kill_with_keeper();
    let started = pair.sandbox.starts(before.starts.len() + 1).latest();
    let ended = end.join().expect("the watch on the old tree");
    let mut measurements = Measurements::default();
    measurements.endings.push(ended.saturating_sub(struck));
    measurements.handovers.push(started.at.saturating_sub(ended));
    measurements.survivors = pair.leader.all().len();
    measurements
}

/// A `ttl`, a renewal interval and a second: a record that is observed is looked at once in a renewal interval, and a
/// server that grants leases looks for those that are over twice a second.
#[track_caller]
fn is_within_a_lease(measurements: &Measurements, lease: Duration) {
    let latest = measurements.handovers.iter().max().copied().unwrap_or_default();
    let limit = lease + lease / 5 + Duration::from_secs(1);
    assert_in_time(latest <= limit, || format!("at most {limit:?}, and it took {latest:?}"));
}

/// Makes tests of these, on one kind of server.
macro_rules! lease_tests {
    ($server:ty) => {
        #[test]
        fn a_leader_that_is_asked_to_stop_hands_over() {
            crate::leases::handover::a_leader_that_is_asked_to_stop_hands_over::<$server>();
        }
        #[test]
        fn a_killed_campaigner_hands_over_at_once() {
            crate::leases::handover::a_killed_campaigner_hands_over_at_once::<$server>();
        }
        #[test]
        fn a_killed_keeper_takes_the_command_along_and_hands_over() {
            crate::leases::handover::a_killed_keeper_takes_the_command_along_and_hands_over::<$server>();
        }
        #[test]
        fn a_stopped_keeper_is_found_silent_and_its_tree_is_killed_without_it() {
            crate::leases::handover::a_stopped_keeper_is_found_silent_and_its_tree_is_killed_without_it::<$server>();
        }
        #[test]
        fn a_stopped_campaigners_command_is_killed_by_the_keeper_before_the_lease_is_over() {
            crate::leases::handover::a_stopped_campaigners_command_is_killed_by_the_keeper_before_the_lease_is_over::<
                $server,
            >();
        }
        #[test]
        fn a_command_that_ignores_the_stop_signal_is_killed_with_its_daemon() {
            crate::leases::handover::a_command_that_ignores_the_stop_signal_is_killed_with_its_daemon::<$server>();
        }
        #[test]
        fn a_killed_campaigner_hands_over_although_the_command_ignores_the_stop_signal() {
            crate::leases::handover::a_killed_campaigner_hands_over_although_the_command_ignores_the_stop_signal::<
                $server,
            >();
        }
        #[test]
        fn a_command_with_a_long_grace_is_killed_by_the_deadline_when_its_campaigner_is() {
            crate::leases::handover::a_command_with_a_long_grace_is_killed_by_the_deadline_when_its_campaigner_is::<
                $server,
            >();
        }
        #[test]
        fn both_killed_at_once_hand_over_when_the_lease_has_run_out() {
            crate::leases::handover::both_killed_at_once_hand_over_when_the_lease_has_run_out::<$server>();
        }
        #[test]
        fn a_lost_host_hands_over_when_the_lease_has_run_out() {
            crate::leases::handover::a_lost_host_hands_over_when_the_lease_has_run_out::<$server>();
        }
    };
}
pub(crate) use lease_tests;
