//! The faults of the file store's tests, and those that only a lease has: whatever happens to the leader, the next one starts
//! when nothing of it is left.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::{LEASE, Rivals, candidate, relay};
use crate::harness::etcd::{Etcd, Options};
use crate::harness::proxy::Mode;
use crate::harness::wait::{now, since, throughout};
use crate::harness::{Candidate, Elect, Figures, Place, Witness, few, processes, until};

/// How many relays go on at once where each run takes a lease's time.
const SIDE_BY_SIDE: usize = 10;

#[track_caller]
fn is_clean(kind: &str, figures: &Figures) {
    figures.print(&format!("etcd: {kind}"));
    assert_eq!((figures.overlaps, figures.survivors), (0, 0), "{kind}: {figures}");
}

#[test]
fn a_leader_that_is_asked_to_stop_hands_over() {
    let etcd = Etcd::start();
    let figures = relay(few(), &etcd).run(|leader| leader.signal(Signal::SIGTERM), |leader| leader.ends_with(0));
    is_clean("leader stopped with SIGTERM, half with a daemonized grandchild", &figures);
}

#[test]
fn a_killed_campaigner_hands_over_at_once() {
    let etcd = Etcd::start();
    let figures =
        relay(few(), &etcd).run(|leader| leader.signal(Signal::SIGKILL), |leader| leader.ends_by(Signal::SIGKILL));
    is_clean("campaigner SIGKILLed", &figures);
    let latest = figures.handovers.iter().max().copied().unwrap_or_default();
    assert!(latest < LEASE / 2, "the keeper gives back what the campaigner held: {latest:?}");
}

#[test]
fn a_killed_keeper_takes_the_command_along_and_hands_over() {
    let etcd = Etcd::start();
    let figures = relay(few(), &etcd)
        .run(|leader| processes::signal(leader.keeper(), Signal::SIGKILL), |leader| leader.ends_with(125));
    is_clean("keeper SIGKILLed", &figures);
}

#[test]
fn a_stopped_keeper_is_found_silent_and_its_tree_is_killed_without_it() {
    let etcd = Etcd::start();
    // For longer than the ttl: it never goes on.
    let freeze = |leader: &Candidate| processes::signal(leader.keeper(), Signal::SIGSTOP);
    let figures = relay(few(), &etcd).side_by_side(SIDE_BY_SIDE).run(freeze, |leader| leader.ends_with(125));
    is_clean("keeper SIGSTOPped", &figures);
}

#[test]
fn a_stopped_campaigners_command_is_killed_by_the_keeper_before_the_lease_is_over() {
    let etcd = Etcd::start();
    let go_on = |leader: &mut Candidate| {
        leader.signal(Signal::SIGCONT);
        // It finds that it leads no more, and stands again.
        leader.says("the lease runs out");
        until("it waits again", || leader.log().matches("waiting: ").count() > 0);
        leader.signal(Signal::SIGTERM);
        leader.wait();
    };
    let figures = relay(few(), &etcd).side_by_side(SIDE_BY_SIDE).run(|leader| leader.signal(Signal::SIGSTOP), go_on);
    is_clean("campaigner SIGSTOPped for longer than the ttl", &figures);
}

#[test]
fn a_command_that_ignores_the_stop_signal_is_killed_with_its_daemon() {
    let etcd = Etcd::start();
    let figures = relay(few(), &etcd)
        .witness(Witness::new().daemon().stubborn())
        .flag("--stop-timeout", "300ms")
        .run(|leader| leader.signal(Signal::SIGTERM), |leader| leader.ends_with(137));
    is_clean("command and daemonized grandchild ignoring SIGTERM", &figures);
}

#[test]
fn a_killed_campaigner_hands_over_although_the_command_ignores_the_stop_signal() {
    let etcd = Etcd::start();
    let figures = relay(few(), &etcd)
        .witness(Witness::new().daemon().stubborn())
        .flag("--stop-timeout", "300ms")
        .run(|leader| leader.signal(Signal::SIGKILL), |leader| leader.ends_by(Signal::SIGKILL));
    is_clean("campaigner SIGKILLed, command and grandchild ignoring SIGTERM", &figures);
}

#[test]
fn a_command_with_a_long_grace_is_killed_by_the_deadline_when_its_campaigner_is() {
    let etcd = Etcd::start();
    // Nobody renews any more: the stop time-out of eight seconds is cut to the deadline in force.
    let figures = relay(few(), &etcd)
        .side_by_side(SIDE_BY_SIDE)
        .witness(Witness::new().daemon().stubborn())
        .run(|leader| leader.signal(Signal::SIGKILL), |leader| leader.ends_by(Signal::SIGKILL));
    is_clean("campaigner SIGKILLed, stubborn command, stop time-out longer than the lease", &figures);
    let latest = figures.endings.iter().max().copied().unwrap_or_default();
    assert!(latest < LEASE, "killed within the lease: {latest:?}");
}

#[test]
fn both_killed_at_once_hand_over_when_the_lease_has_run_out() {
    let etcd = Etcd::start();
    let figures = relay(few(), &etcd)
        .side_by_side(SIDE_BY_SIDE)
        .witness(Witness::new())
        .run(Candidate::kill_with_keeper, |leader| leader.ends_by(Signal::SIGKILL));
    is_clean("campaigner and keeper SIGKILLed together", &figures);
    is_within_a_lease(&figures);
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
    is_clean("host lost: network gone, then both processes", &figures);
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
