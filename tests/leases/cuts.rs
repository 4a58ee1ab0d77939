//! The network goes away while somebody leads: who is cut off is dead before anybody else starts.

use std::thread;
use std::time::Duration;

use super::{CandidatePair, NetworkLink, a_few_at_once, written};
use crate::harness::network::Network;
use crate::harness::proxy::{Proxy, ProxyMode};
use crate::harness::server::StoreServer;
use crate::harness::timing_verdict::{assert_in_time, late_if_a_keeper_was_given_up, retry_if_machine_slow};
use crate::harness::wait::{eventually, now, since, until};
use crate::harness::{ElectCmd, Measurements, Sandbox, Witness, few, side_by_side};

#[track_caller]
fn is_clean<S: StoreServer>(kind: &str, measurements: &Measurements, lease: Duration) {
    measurements.print(&format!("{}: {kind}", S::NAME));
    assert_eq!((measurements.overlaps, measurements.survivors), (0, 0), "{kind}: {measurements}");
    let latest = measurements.endings.iter().max().copied().unwrap_or_default();
    assert_in_time(latest < lease, || format!("{kind}: dead within the lease: {latest:?}"));
}

/// The leader is cut off, the other takes over; then the way is open again, and the first is one who waits.
fn cut_off<S: StoreServer>(link: NetworkLink, server: &S, mode: ProxyMode, lease: Duration) -> Measurements {
    let pair = CandidatePair::over(link, server, &Witness::new().daemon(), lease);
    let measurements = late_if_a_keeper_was_given_up(&pair.sandbox, || struck_by(&pair, mode));
    pair.end();
    measurements
}

fn struck_by(pair: &CandidatePair, mode: ProxyMode) -> Measurements {
    let before = pair.sandbox.history();
    let led = before.latest();
    pair.leader.assert_leads(&led);
    let end = pair.sandbox.watch_the_end_of(led.pid);
    let struck = now();
    pair.link.mode(mode);
    let started = pair.sandbox.starts(before.starts.len() + 1).latest();
    let mut measurements = Measurements { survivors: pair.leader.tree().len(), ..Measurements::default() };
    let ended = end.join().expect("the watch on the old tree");
    measurements.endings.push(ended.saturating_sub(struck));
    measurements.handovers.push(started.at.saturating_sub(ended));
    assert!(started.term > led.term);
    pair.link.mode(ProxyMode::Open);
    pair.leader.wait_until_waiting();
    measurements.overlaps = pair.sandbox.history().overlaps.len();
    measurements
}

fn all(measurements: Vec<Measurements>) -> Measurements {
    measurements.into_iter().fold(Measurements::default(), |mut all, one| {
        all.add(one);
        all
    })
}

fn cut_off_each<S: StoreServer>(kind: &str, mode: ProxyMode) {
    retry_if_machine_slow(&format!("{}: {kind}", S::NAME), S::LEASE, |lease| {
        let server = S::start();
        let each = || cut_off(NetworkLink::Proxied(Proxy::to(&server.address())), &server, mode, lease);
        is_clean::<S>(kind, &all(side_by_side(few(), each)), lease);
    });
}

/// At the same time.
fn for_each<T: Send, const N: usize>(all: [T; N], each: impl Fn(T) + Sync) {
    let each = &each;
    thread::scope(|scope| {
        for one in all.map(|one| scope.spawn(move || each(one))) {
            one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    });
}

/// A network with one host, and a server that it sees: each of its own.
fn cabled<S: StoreServer>() -> (NetworkLink, S) {
    let network = Network::of(&["leader"]);
    let server = S::seen_at(&network.address());
    (NetworkLink::Cabled(network, "leader"), server)
}

fn in_networks<S: StoreServer, T: Send>(each: impl Fn(NetworkLink, &S) -> T + Sync) -> Vec<T> {
    a_few_at_once(few(), || {
        let (link, server) = cabled();
        each(link, &server)
    })
}

pub fn a_leader_behind_a_black_hole_is_dead_before_the_next_one_starts<S: StoreServer>() {
    cut_off_each::<S>("cut off both ways", ProxyMode::BlackHole);
}

pub fn a_leader_whose_requests_are_lost_is_dead_before_the_next_one_starts<S: StoreServer>() {
    cut_off_each::<S>("requests lost", ProxyMode::RequestsHeld);
}

pub fn a_leader_whose_answers_are_lost_is_dead_although_its_lease_is_renewed<S: StoreServer>() {
    // Its keep-alives are heard: the next one waits until the leader, out of time, gives up asking.
    cut_off_each::<S>("answers lost", ProxyMode::AnswersHeld);
}

pub fn a_leader_whose_connections_are_refused_is_dead_before_the_next_one_starts<S: StoreServer>() {
    cut_off_each::<S>("connections reset and refused", ProxyMode::Closed);
}

pub fn a_leader_whose_cable_is_cut_is_dead_before_the_next_one_starts<S: StoreServer>() {
    for_each(
        [
            ("cable cut", ProxyMode::BlackHole),
            ("cable cut for requests", ProxyMode::RequestsHeld),
            ("cable cut for answers", ProxyMode::AnswersHeld),
        ],
        |(kind, mode)| {
            retry_if_machine_slow(&format!("{}: {kind}", S::NAME), S::LEASE, |lease| {
                let measurements = all(in_networks(|link, server: &S| cut_off(link, server, mode, lease)));
                is_clean::<S>(&format!("network namespace, {kind}"), &measurements, lease);
            });
        },
    );
}

// ---- outages that are survived, and those that are not

/// A row of `elect plan`, as a duration.
fn planned(row: &str, lease: Duration) -> Duration {
    let sandbox = Sandbox::new();
    let plan = ElectCmd::new(&sandbox).subcommand("plan").flag("--ttl", &written(lease)).run().stdout;
    let line = plan.lines().find(|line| line.starts_with(row)).expect("a row of the plan");
    let column = line[row.len()..].trim_start();
    // `1s 500ms`, up to the next column.
    let words: Vec<&str> = column.split("  ").next().unwrap_or_default().split(' ').collect();
    let mut length = Duration::ZERO;
    for word in words.iter().take_while(|word| word.starts_with(|c: char| c.is_ascii_digit())) {
        let (number, unit) = word.split_at(word.find(|c: char| c.is_alphabetic()).expect("a unit"));
        let number: f64 = number.parse().expect("a number");
        length += match unit {
            "ms" => Duration::from_secs_f64(number / 1000.0),
            "s" => Duration::from_secs_f64(number),
            other => panic!("{other:?} is no unit of the plan"),
        };
    }
    assert!(length > Duration::ZERO, "{line:?}");
    length
}

/// Renewals before which a cut is tried. The machine is too slow if it misses them all.
const MISSES_MAX: usize = 12;

/// Cuts right before a renewal leaves. If the machine was too slow for that, the way is open again at once, and the next
/// renewal is waited for.
fn cut_at_the_worst_moment(
    link: &NetworkLink,
    server: &impl StoreServer,
    mode: ProxyMode,
    lease: Duration,
) -> Duration {
    let beats = || server.renewals();
    let renewal = planned("renewal", lease);
    for misses in 0..MISSES_MAX {
        // Earlier after some misses: the outage is as long, and a little of it is wasted.
        let nearly = renewal.saturating_sub(renewal / 24 * (1 + u32::try_from(misses / 4).unwrap_or(u32::MAX)));
        let before = beats();
        let sent = eventually("a renewal", || (beats() > before).then(now));
        let heard = beats();
        until("the next one is near", || now() >= sent + nearly);
        link.mode(mode);
        let cut = now();
        if beats() == heard {
            return cut;
        }
        link.mode(ProxyMode::Open);
    }
    assert_in_time(false, || format!("{MISSES_MAX} renewals left before the cut"));
    unreachable!("it was too late");
}

/// An outage that begins right before a renewal. Returns whether it demoted the leader.
fn outage(link: &NetworkLink, server: &impl StoreServer, mode: ProxyMode, length: Duration, lease: Duration) -> bool {
    let sandbox = Sandbox::new();
    let leader = link.candidate(&sandbox, server, lease).witness(&Witness::new()).start();
    sandbox.starts(1);
    let cut = cut_at_the_worst_moment(link, server, mode, lease);
    until("the outage has lasted", || now() >= cut + length);
    link.mode(ProxyMode::Open);
    let over = now();
    let demoted = eventually("a verdict", || {
        let stopped = leader.log().contains("the lease runs out");
        (stopped || since(over) > lease).then_some(stopped)
    });
    leader.terminate();
    sandbox.history().is_safe();
    demoted
}

/// How many leaders outages of that length demote: each with a server of its own, so that its renewals can be counted.
fn demoted_by<S: StoreServer>(mode: ProxyMode, length: Duration, lease: Duration) -> usize {
    let through_proxies = a_few_at_once(few(), || {
        let server = S::start();
        outage(&NetworkLink::Proxied(Proxy::to(&server.address())), &server, mode, length, lease)
    });
    let demoted = through_proxies.into_iter().filter(|demoted| *demoted).count();
    let name = S::NAME;
    println!("figures: {name}: {mode:?} for {length:?} at the worst moment: {} runs, {demoted} demoted", few());
    demoted
}

fn demoted_by_a_cut_cable<S: StoreServer>(mode: ProxyMode, length: Duration, lease: Duration) -> usize {
    let in_networks = in_networks(|link, server: &S| outage(&link, server, mode, length, lease));
    let demoted = in_networks.into_iter().filter(|demoted| *demoted).count();
    let name = S::NAME;
    println!(
        "figures: {name}: network namespace, {mode:?} for {length:?} at the worst moment: {} runs, {demoted} demoted",
        few()
    );
    demoted
}

/// Through proxies, and by cut cables, at the same time; a cable cannot refuse.
fn demoted_by_either<S: StoreServer>(mode: ProxyMode, length: Duration, lease: Duration) -> Vec<usize> {
    let ways: [fn(ProxyMode, Duration, Duration) -> usize; 2] = [demoted_by::<S>, demoted_by_a_cut_cable::<S>];
    let ways = if mode == ProxyMode::Closed { &ways[..1] } else { &ways[..] };
    thread::scope(|scope| {
        let ways: Vec<_> = ways.iter().map(|way| scope.spawn(move || way(mode, length, lease))).collect();
        ways.into_iter().map(|way| way.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    })
}

const OUTAGES: [ProxyMode; 4] =
    [ProxyMode::BlackHole, ProxyMode::RequestsHeld, ProxyMode::AnswersHeld, ProxyMode::Closed];

/// Each outage on its own: one that has to be repeated takes no other along.
fn each_demotes<S: StoreServer>(expected: usize, length: impl Fn(Duration) -> Duration) {
    for mode in OUTAGES {
        retry_if_machine_slow(&format!("{}: {mode:?} at the worst moment", S::NAME), S::LEASE, |lease| {
            let length = length(lease);
            for demoted in demoted_by_either::<S>(mode, length, lease) {
                assert_in_time(demoted == expected, || {
                    format!("{demoted}, not {expected} demoted: {mode:?} for {length:?}")
                });
            }
        });
    }
}

pub fn an_outage_as_long_as_planned_demotes_nobody_even_at_the_worst_moment<S: StoreServer>() {
    each_demotes::<S>(0, |lease| planned("outage", lease));
}

pub fn an_outage_longer_by_a_renewal_always_demotes<S: StoreServer>() {
    each_demotes::<S>(few(), |lease| planned("outage", lease) + planned("renewal", lease));
}

/// Makes tests of these, on one kind of server.
macro_rules! lease_tests {
    ($server:ty) => {
        #[test]
        fn a_leader_behind_a_black_hole_is_dead_before_the_next_one_starts() {
            crate::leases::cuts::a_leader_behind_a_black_hole_is_dead_before_the_next_one_starts::<$server>();
        }
        #[test]
        fn a_leader_whose_requests_are_lost_is_dead_before_the_next_one_starts() {
            crate::leases::cuts::a_leader_whose_requests_are_lost_is_dead_before_the_next_one_starts::<$server>();
        }
        #[test]
        fn a_leader_whose_answers_are_lost_is_dead_although_its_lease_is_renewed() {
            crate::leases::cuts::a_leader_whose_answers_are_lost_is_dead_although_its_lease_is_renewed::<$server>();
        }
        #[test]
        fn a_leader_whose_connections_are_refused_is_dead_before_the_next_one_starts() {
            crate::leases::cuts::a_leader_whose_connections_are_refused_is_dead_before_the_next_one_starts::<$server>();
        }
        #[test]
        fn a_leader_whose_cable_is_cut_is_dead_before_the_next_one_starts() {
            crate::leases::cuts::a_leader_whose_cable_is_cut_is_dead_before_the_next_one_starts::<$server>();
        }
        #[test]
        fn an_outage_as_long_as_planned_demotes_nobody_even_at_the_worst_moment() {
            crate::leases::cuts::an_outage_as_long_as_planned_demotes_nobody_even_at_the_worst_moment::<$server>();
        }
        #[test]
        fn an_outage_longer_by_a_renewal_always_demotes() {
            crate::leases::cuts::an_outage_longer_by_a_renewal_always_demotes::<$server>();
        }
    };
}
pub(crate) use lease_tests;
