//! The network goes away while somebody leads: who is cut off is dead before anybody else starts.

use std::time::Duration;

use super::{LEASE, Rivals, TTL, candidate, through};
use crate::harness::etcd::Etcd;
use crate::harness::proxy::{Mode, Proxy};
use crate::harness::wait::{eventually, now, since, throughout, until};
use crate::harness::{Elect, Figures, Place, Witness, few, side_by_side};

#[track_caller]
fn is_clean(kind: &str, figures: &Figures) {
    figures.print(&format!("etcd: {kind}"));
    assert_eq!((figures.overlaps, figures.survivors), (0, 0), "{kind}: {figures}");
    let latest = figures.endings.iter().max().copied().unwrap_or_default();
    assert!(latest < LEASE, "dead within the lease: {latest:?}");
}

/// The leader is cut off, the other takes over; then the way is open again, and the first is one who waits.
fn cut_off(etcd: &Etcd, mode: Mode) -> Figures {
    let rivals = Rivals::at(etcd, &Witness::new().daemon());
    let led = rivals.place.history().latest();
    let end = rivals.place.watch_the_end_of(led.pid);
    let struck = now();
    rivals.proxy.mode(mode);
    let started = rivals.place.starts(2).latest();
    let mut figures = Figures { survivors: rivals.leader.tree().len(), ..Figures::default() };
    let ended = end.join().expect("the watch on the old tree");
    figures.endings.push(ended.saturating_sub(struck));
    figures.handovers.push(started.at.saturating_sub(ended));
    assert!(started.term > led.term);
    rivals.proxy.mode(Mode::Open);
    rivals.leader.waits();
    figures.overlaps = rivals.place.history().overlaps.len();
    rivals.end();
    figures
}

fn cut_off_each(mode: Mode) -> Figures {
    let etcd = Etcd::start();
    side_by_side(few(), || cut_off(&etcd, mode)).into_iter().fold(Figures::default(), |mut all, one| {
        all.add(one);
        all
    })
}

#[test]
fn a_leader_behind_a_black_hole_is_dead_before_the_next_one_starts() {
    is_clean("cut off both ways", &cut_off_each(Mode::BlackHole));
}

#[test]
fn a_leader_whose_requests_are_lost_is_dead_before_the_next_one_starts() {
    is_clean("requests lost", &cut_off_each(Mode::RequestsHeld));
}

#[test]
fn a_leader_whose_answers_are_lost_is_dead_although_its_lease_is_renewed() {
    // Its keep-alives are heard: the next one waits until the leader, out of time, gives up asking.
    is_clean("answers lost", &cut_off_each(Mode::AnswersHeld));
}

#[test]
fn a_leader_whose_connections_are_refused_is_dead_before_the_next_one_starts() {
    is_clean("connections reset and refused", &cut_off_each(Mode::Closed));
}

// ---- outages that are survived, and those that are not

/// A row of `elect plan`, as a duration.
fn planned(row: &str) -> Duration {
    let place = Place::new();
    let plan = Elect::new(&place).verb("plan").flag("--ttl", TTL).run().stdout;
    let line = plan.lines().find(|line| line.starts_with(row)).expect("a row of the plan");
    let column: String = line[row.len()..].trim_start().chars().take_while(|c| !c.is_whitespace()).collect();
    let (number, unit) = column.split_at(column.find(|c: char| c.is_alphabetic()).expect("a unit"));
    let number: f64 = number.parse().expect("a number");
    match unit {
        "ms" => Duration::from_secs_f64(number / 1000.0),
        "s" => Duration::from_secs_f64(number),
        other => panic!("{other:?} is no unit of the plan"),
    }
}

/// When a renewal left: a burst of requests after a rest that is none within a renewal.
fn next_renewal(proxy: &Proxy) -> Duration {
    let (mut last, mut since_last) = (proxy.carried().requests, now());
    eventually("a renewal", || {
        let carried = proxy.carried().requests;
        if carried == last {
            return None;
        }
        let rest = since(since_last);
        (last, since_last) = (carried, now());
        (rest > Duration::from_millis(200)).then_some(since_last)
    })
}

/// An outage that begins right before a renewal.
fn outage(etcd: &Etcd, mode: Mode, length: Duration) -> (Place, bool) {
    let (place, proxy) = (Place::new(), Proxy::to(&etcd.address()));
    let leader = candidate(&place, through(&proxy, &place)).witness(&Witness::new()).start();
    place.starts(1);
    let worst = next_renewal(&proxy) + planned("renewal").saturating_sub(Duration::from_millis(15));
    until("the worst moment", || now() >= worst);
    proxy.mode(mode);
    until("the outage has lasted", || now() >= worst + length);
    proxy.mode(Mode::Open);
    let over = now();
    let demoted = eventually("a verdict", || {
        let stopped = leader.log().contains("the lease runs out");
        (stopped || since(over) > LEASE).then_some(stopped)
    });
    leader.stops();
    place.history().is_safe();
    (place, demoted)
}

#[test]
fn an_outage_as_long_as_planned_demotes_nobody_even_at_the_worst_moment() {
    let (etcd, length) = (Etcd::start(), planned("outage"));
    for mode in [Mode::BlackHole, Mode::RequestsHeld, Mode::AnswersHeld, Mode::Closed] {
        let demoted =
            side_by_side(few(), || outage(&etcd, mode, length)).iter().filter(|(_, demoted)| *demoted).count();
        println!("figures: etcd: {mode:?} for {length:?} at the worst moment: {} runs, {demoted} demoted", few());
        assert_eq!(demoted, 0, "{mode:?} for {length:?}");
    }
}

#[test]
fn an_outage_longer_by_a_renewal_always_demotes() {
    let etcd = Etcd::start();
    let length = planned("outage") + planned("renewal");
    for mode in [Mode::BlackHole, Mode::RequestsHeld, Mode::AnswersHeld, Mode::Closed] {
        let demoted =
            side_by_side(few(), || outage(&etcd, mode, length)).iter().filter(|(_, demoted)| *demoted).count();
        println!("figures: etcd: {mode:?} for {length:?} at the worst moment: {} runs, {demoted} demoted", few());
        assert_eq!(demoted, few(), "{mode:?} for {length:?}");
    }
}

#[test]
fn a_waiter_that_is_cut_off_leaves_the_leader_alone_and_takes_its_place_again() {
    let etcd = Etcd::start();
    let (place, proxy) = (Place::new(), Proxy::to(&etcd.address()));
    let leader = candidate(&place, place.below(&etcd.url())).witness(&Witness::new()).start();
    place.starts(1);
    let next = candidate(&place, through(&proxy, &place)).witness(&Witness::new()).start();
    next.waits();
    proxy.mode(Mode::BlackHole);
    next.says("store: ");
    let election = format!("{}/cron/", place.path().file_name().expect("a name").to_string_lossy());
    let queue = || {
        etcd.etcdctl(&["get", "--prefix", "--keys-only", &format!("/{election}")])
            .lines()
            .filter(|line| !line.is_empty())
            .count()
    };
    until("its lease is over, and its place taken from it", || queue() == 1);
    proxy.mode(Mode::Open);
    until("it stands in the queue again", || queue() == 2);
    throughout(Duration::from_millis(500), "one leads", || place.history().starts.len() == 1);
    leader.stops();
    place.starts(2);
    next.stops();
    place.history().is_safe();
}
