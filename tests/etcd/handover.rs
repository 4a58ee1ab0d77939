//! The faults of the file store's tests, and those that only a lease has: whatever happens to the leader, the next one starts
//! when nothing of it is left.

use std::time::Duration;

use super::{LEASE, Rivals, candidate, relay};
use crate::harness::etcd::{Etcd, Options};
use crate::harness::faults::{self, Fault, SIDE_BY_SIDE};
use crate::harness::proxy::Mode;
use crate::harness::tiers::tiers;
use crate::harness::wait::{now, since, throughout};
use crate::harness::{Elect, Figures, Place, Witness, few, until};

fn strikes(fault: &Fault) -> Figures {
    fault.strikes(relay(few(), &Etcd::start()), "etcd: ")
}

#[test]
fn a_leader_that_is_asked_to_stop_hands_over() {
    strikes(&faults::STOPPED);
}

#[test]
fn a_killed_campaigner_hands_over_at_once() {
    let figures = strikes(&faults::CAMPAIGNER_KILLED);
    let latest = figures.handovers.iter().max().copied().unwrap_or_default();
    assert!(latest < LEASE / 2, "the keeper gives back what the campaigner held: {latest:?}");
}

#[test]
fn a_killed_keeper_takes_the_command_along_and_hands_over() {
    strikes(&faults::KEEPER_KILLED);
}

#[test]
fn a_stopped_keeper_is_found_silent_and_its_tree_is_killed_without_it() {
    strikes(&faults::KEEPER_FROZEN);
}

#[test]
fn a_stopped_campaigners_command_is_killed_by_the_keeper_before_the_lease_is_over() {
    strikes(&faults::CAMPAIGNER_FROZEN);
}

#[test]
fn a_command_that_ignores_the_stop_signal_is_killed_with_its_daemon() {
    strikes(&faults::STUBBORN_STOPPED);
}

#[test]
fn a_killed_campaigner_hands_over_although_the_command_ignores_the_stop_signal() {
    strikes(&faults::STUBBORN_CAMPAIGNER_KILLED);
}

#[test]
fn a_command_with_a_long_grace_is_killed_by_the_deadline_when_its_campaigner_is() {
    let figures = strikes(&faults::SLOW_CAMPAIGNER_KILLED);
    let latest = figures.endings.iter().max().copied().unwrap_or_default();
    assert!(latest < LEASE, "killed within the lease: {latest:?}");
}

#[test]
fn both_killed_at_once_hand_over_when_the_lease_has_run_out() {
    let etcd = Etcd::start();
    let relay = relay(few(), &etcd).side_by_side(SIDE_BY_SIDE);
    is_within_a_lease(&faults::BOTH_KILLED.strikes(relay, "etcd: "));
}

/// Each fault in each tier, all those of one tier at once: what takes long is the leases.
#[test]
fn every_fault_hands_over_in_each_tier() {
    let etcd = Etcd::start();
    let all = [
        faults::STOPPED,
        faults::CAMPAIGNER_KILLED,
        faults::KEEPER_KILLED,
        faults::KEEPER_FROZEN,
        faults::CAMPAIGNER_FROZEN,
        faults::STUBBORN_STOPPED,
        faults::STUBBORN_CAMPAIGNER_KILLED,
        faults::SLOW_CAMPAIGNER_KILLED,
    ];
    for tier in tiers() {
        // What both leave behind together is the business of the lease, but for the tier that leaves nothing.
        let both = if tier == "pidns" { faults::BOTH_KILLED_WITH_A_DAEMON } else { faults::BOTH_KILLED };
        std::thread::scope(|scope| {
            for fault in all.into_iter().chain([both]) {
                let relay = relay(few(), &etcd).flag("--containment", tier);
                scope.spawn(move || fault.strikes(relay, &format!("etcd: {tier}: ")));
            }
        });
    }
}

#[test]
fn a_lost_host_hands_over_when_the_lease_has_run_out() {
    let etcd = Etcd::start();
    let mut figures = Figures::default();
    std::thread::scope(|scope| {
        let hosts: Vec<_> = (0..few()).map(|_| scope.spawn(|| lose_the_host(&etcd))).collect();
        for host in hosts {
            figures.add(host.join().expect("one host"));
        }
    });
    let kind = "etcd: host lost: network gone, then both processes";
    figures.print(kind);
    assert_eq!((figures.overlaps, figures.survivors), (0, 0), "{kind}: {figures}");
    is_within_a_lease(&figures);
}

/// The network is the first to go, so that the server hears nothing of the end.
fn lose_the_host(etcd: &Etcd) -> Figures {
    let rivals = Rivals::at(etcd, &Witness::new());
    let led = rivals.place.history().latest();
    let end = rivals.place.watch_the_end_of(led.pid);
    let struck = now();
    rivals.wire.mode(Mode::BlackHole);
    rivals.leader.kill_with_keeper();
    let started = rivals.place.starts(2).latest();
    let ended = end.join().expect("the watch on the old tree");
    let mut figures = Figures::default();
    figures.endings.push(ended.saturating_sub(struck));
    figures.handovers.push(started.at.saturating_sub(ended));
    figures.survivors = rivals.leader.all().len();
    assert!(since(struck) < LEASE * 20);
    rivals.next.stops();
    figures.overlaps = rivals.place.history().overlaps.len();
    rivals.place.history().is_safe();
    figures
}

/// A `ttl` and a second: etcd looks for leases that are over twice a second.
#[track_caller]
fn is_within_a_lease(figures: &Figures) {
    let latest = figures.handovers.iter().max().copied().unwrap_or_default();
    assert!(latest <= LEASE + Duration::from_secs(1), "ttl + 1 s, and it took {latest:?}");
}

#[test]
fn a_lease_that_is_longer_than_asked_for_is_what_everything_is_counted_by() {
    // The shortest that this server grants is nine seconds; then a renewal is due every 1.8 s, not every 600 ms.
    let etcd = Etcd::with(&Options::new().timing(500, 6000));
    let place = Place::new();
    let leader = candidate(&place, place.below(&etcd.url())).witness(&Witness::new()).start();
    place.starts(1);
    let status = Elect::new(&place).store(place.below(&etcd.url())).status(&["cron", "--json"]).run();
    assert!(status.stdout.contains("\"ttl_ms\":9000"), "{status:?}");
    let beats = || etcd.messages().get("LeaseKeepAlive").copied().unwrap_or_default();
    let before = beats();
    let began = now();
    until("some renewals", || since(began) >= Duration::from_secs(6));
    let renewals = beats() - before;
    assert!((2..=4).contains(&renewals), "{renewals} renewals in 6 s");
    // And the deadlines are later: a stop at 4.8 s, not at 1.6 s, after the last renewal.
    etcd.stop();
    throughout(Duration::from_millis(2500), "it leads on", || !leader.log().contains("the lease runs out"));
    leader.says("the lease runs out");
    etcd.cont();
    leader.stops();
    place.history().is_safe();
}
