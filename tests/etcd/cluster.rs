//! Three members, one of which fails. Who leads goes on leading as long as a majority can be heard of in time; whoever cannot
//! hear of it is dead before anybody else starts.

use std::time::Duration;

use super::{LEASE, candidate_for};
use crate::etcd::members::EtcdCluster;
use crate::etcd::server::{EtcdOptions, EtcdServer};
use crate::harness::timing_verdict::{assert_in_time, retry_if_machine_slow, throughout_in_time};
use crate::harness::wait::{now, since, throughout, until};
use crate::harness::{CandidateProcess, Sandbox, Witness, is_long, millis, processes};
use crate::leases::written;

/// With etcd's elections of half a second, a lease of so long outlives one.
const PATIENT: Duration = Duration::from_secs(10);

fn rounds() -> usize {
    if is_long() { 5 } else { 1 }
}

/// A leader that asks these members, in this order, and a waiter that asks all.
struct ClusterScenario {
    sandbox: Sandbox,
    leader: CandidateProcess,
    next: CandidateProcess,
}

impl ClusterScenario {
    fn on(cluster: &EtcdCluster, members: &[usize], lease: Duration) -> ClusterScenario {
        let sandbox = Sandbox::new();
        let addresses: Vec<String> = members.iter().map(|&member| cluster.members[member].address()).collect();
        let start = |store: String| {
            candidate_for(&sandbox, sandbox.below(&store), &written(lease))
                .variable("ELECT_LOG", "elect=debug")
                .witness(&Witness::new().daemon())
                .start()
        };
        let leader = start(format!("etcd://{}", addresses.join(",")));
        sandbox.starts(1);
        // Last the one that is going to fail.
        let mut others: Vec<String> = cluster.members.iter().map(EtcdServer::address).collect();
        others.retain(|address| *address != addresses[0]);
        others.push(addresses[0].clone());
        let next = start(format!("etcd://{}", others.join(",")));
        next.wait_until_waiting();
        ClusterScenario { sandbox, leader, next }
    }

    /// No other command starts, and this one lives, for longer than a lease would have taken to run out.
    #[track_caller]
    fn goes_on_leading(&self, window: Duration, what: &str) {
        let led = self.sandbox.history().latest();
        throughout_in_time(window, what, || self.sandbox.history().starts.len() == 1 && processes::is_alive(led.pid));
    }

    /// The command is dead before the other one starts. Says after how long it was, and how long after that the other.
    #[track_caller]
    fn hands_over(&self, what: &str, strike: impl FnOnce()) {
        let led = self.sandbox.history().latest();
        let end = self.sandbox.watch_the_end_of(led.pid);
        let struck = now();
        strike();
        let started = self.sandbox.starts(2).latest();
        assert_eq!(self.leader.tree(), [], "{what}");
        let ended = end.join().expect("the watch on the old tree");
        self.sandbox.history().is_safe();
        let (gone, then) = (millis(ended.saturating_sub(struck)), millis(started.at.saturating_sub(ended)));
        println!("figures: etcd cluster: {what}: old tree gone after {gone}, hand-over {then}");
    }

    #[track_caller]
    fn end(self) {
        let ClusterScenario { sandbox, leader, next, .. } = self;
        // The waiter first: whoever leads at the end ends as a leader.
        next.terminate();
        leader.terminate();
        sandbox.history().is_safe();
        until("nothing is left", || sandbox.running().is_empty());
    }

    /// The waiter still takes over within milliseconds.
    #[track_caller]
    fn still_hands_over(self) {
        let ClusterScenario { sandbox, leader, next, .. } = self;
        let starts = sandbox.history().starts.len();
        leader.terminate();
        sandbox.starts(starts + 1);
        next.terminate();
        sandbox.history().is_safe();
        until("nothing is left", || sandbox.running().is_empty());
    }
}

/// A member that does not lead the cluster.
fn follower(cluster: &EtcdCluster) -> usize {
    (cluster.leader() + 1) % 3
}

/// The log of the first member takes no more writes, and there is one to make.
fn stall(cluster: &EtcdCluster) {
    cluster.members[0].disk().freeze();
    let written = cluster.members[0].try_etcdctl(&["put", "/elsewhere", "x", "--command-timeout=200ms"]);
    assert!(written.is_err(), "nothing can be written: {written:?}");
}

fn order_from(first: usize) -> [usize; 3] {
    [first, (first + 1) % 3, (first + 2) % 3]
}

#[test]
fn the_member_we_talk_to_may_fail_in_any_way_and_we_go_on_leading() {
    retry_if_machine_slow("etcd cluster: the member we talk to fails", LEASE, the_member_we_talk_to_fails);
}

fn the_member_we_talk_to_fails(lease: Duration) {
    let cluster = EtcdCluster::of(3);
    for _ in 0..rounds() {
        let ours = follower(&cluster);
        for (what, fail, mend) in [
            ("killed", EtcdServer::kill as fn(&EtcdServer), EtcdServer::restart as fn(&EtcdServer)),
            ("stopped", EtcdServer::stop, EtcdServer::cont),
        ] {
            let scenario = ClusterScenario::on(&cluster, &order_from(ours), lease);
            fail(&cluster.members[ours]);
            scenario.goes_on_leading(lease * 3 / 2, &format!("our member {what}"));
            println!("figures: etcd cluster: the member we talk to {what}, ttl {}: goes on leading", written(lease));
            scenario.still_hands_over();
            mend(&cluster.members[ours]);
        }
        let scenario = ClusterScenario::on(&cluster, &order_from(ours), lease);
        cluster.cut_off(ours);
        scenario.goes_on_leading(lease * 3 / 2, "our member cut off");
        println!(
            "figures: etcd cluster: the member we talk to cut off from the others, ttl {}: goes on leading",
            written(lease)
        );
        scenario.still_hands_over();
        cluster.heal(ours);
    }
}

#[test]
fn who_talks_to_a_member_that_is_cut_off_and_to_nobody_else_is_dead_before_the_next_one_starts() {
    let cluster = EtcdCluster::of(3);
    for round in 0..rounds() * 2 {
        // A follower, and the leader of the cluster, which goes on answering keep-alives for a while.
        let leads = round % 2 == 1;
        let ours = if leads { cluster.leader() } else { follower(&cluster) };
        let scenario = ClusterScenario::on(&cluster, &[ours], LEASE);
        let kind = if leads { "the cluster's leader" } else { "a follower" };
        scenario.hands_over(&format!("our only member, {kind}, cut off from the others"), || cluster.cut_off(ours));
        cluster.heal(ours);
        scenario.end();
    }
}

#[test]
fn a_new_leader_of_the_cluster_is_waited_for_by_a_lease_that_is_long_enough() {
    retry_if_machine_slow("etcd cluster: a new leader, long lease", PATIENT, a_new_leader_of_the_cluster);
}

fn a_new_leader_of_the_cluster(lease: Duration) {
    let cluster = EtcdCluster::of(3);
    for round in 0..rounds() {
        let leader = cluster.leader();
        // Asked first, or not at all at first.
        let first = if round % 2 == 0 { leader } else { follower(&cluster) };
        let scenario = ClusterScenario::on(&cluster, &order_from(first), lease);
        cluster.members[leader].kill();
        scenario.goes_on_leading(lease * 6 / 5, "the cluster's leader killed");
        println!("figures: etcd cluster: the cluster's leader killed, ttl {}: goes on leading", written(lease));
        scenario.still_hands_over();
        cluster.members[leader].restart();
    }
}

#[test]
fn a_new_leader_of_the_cluster_with_a_short_lease_leaves_one_or_none() {
    let cluster = EtcdCluster::of(3);
    for _ in 0..rounds() {
        let leader = cluster.leader();
        let scenario = ClusterScenario::on(&cluster, &order_from(leader), LEASE);
        cluster.members[leader].kill();
        throughout(LEASE * 3, "never two", || scenario.sandbox.history().verdict().is_ok());
        let starts = scenario.sandbox.history().starts.len();
        println!("figures: etcd cluster: the cluster's leader killed, ttl 3 s: {} demoted", starts - 1);
        cluster.members[leader].restart();
        scenario.end();
    }
}

#[test]
fn a_stalled_member_that_was_the_clusters_leader_does_not_keep_us_leading() {
    let cluster =
        EtcdCluster::with(3, |index| if index == 0 { EtcdOptions::new().own_disk() } else { EtcdOptions::new() });
    for _ in 0..rounds() {
        cluster.move_leader_to(0);
        let scenario = ClusterScenario::on(&cluster, &[0], LEASE);
        scenario.hands_over("our only member's log stalled while the others elect a new leader", || {
            stall(&cluster);
        });
        assert_ne!(cluster.leader(), 0, "the others have elected one of theirs");
        cluster.members[0].disk().thaw();
        scenario.end();
    }
}

#[test]
fn a_stalled_member_among_others_is_passed_by() {
    retry_if_machine_slow("etcd cluster: a stalled member among others", PATIENT, a_stalled_member_among_others);
}

fn a_stalled_member_among_others(lease: Duration) {
    let cluster =
        EtcdCluster::with(3, |index| if index == 0 { EtcdOptions::new().own_disk() } else { EtcdOptions::new() });
    for _ in 0..rounds() {
        cluster.move_leader_to(0);
        let scenario = ClusterScenario::on(&cluster, &order_from(0), lease);
        stall(&cluster);
        scenario.goes_on_leading(lease * 6 / 5, "our member's log stalled");
        println!(
            "figures: etcd cluster: the log of the cluster's leader stalled, all members known, ttl {}: goes on leading",
            written(lease)
        );
        cluster.members[0].disk().thaw();
        scenario.still_hands_over();
    }
}

#[test]
fn a_keep_alive_begun_under_another_leader_of_the_cluster_counts_for_nothing() {
    let cluster = EtcdCluster::of(3);
    for _ in 0..rounds() {
        let ours = follower(&cluster);
        // Renewals every six seconds, of at most three: the cluster's election falls into one.
        let scenario = ClusterScenario::on(&cluster, &[ours], Duration::from_secs(30));
        let beats = || cluster.members[ours].messages().get("LeaseKeepAlive").copied().unwrap_or_default();
        let told = || scenario.leader.log().contains("counts for nothing");
        // Whether the election falls between a keep-alive and its check is the cluster's whim.
        for _ in 0..10 {
            let leader = cluster.leader();
            let before = beats();
            until("a renewal", || beats() > before);
            let next = now() + Duration::from_secs(6);
            until("the next one is near", || now() + Duration::from_millis(150) > next);
            cluster.members[leader].kill();
            until("the next one is over", || told() || now() > next + Duration::from_secs(3));
            cluster.members[leader].restart();
            if told() {
                break;
            }
            cluster.move_leader_to((ours + 1) % 3);
        }
        assert!(told(), "ten elections in the middle of a renewal");
        let led = || scenario.sandbox.history().starts.len() == 1;
        throughout(Duration::from_secs(1), "the renewal was tried again", led);
        scenario.still_hands_over();
    }
}

#[test]
fn a_rolling_restart_demotes_nobody() {
    retry_if_machine_slow("etcd cluster: a rolling restart", PATIENT, a_rolling_restart);
}

fn a_rolling_restart(lease: Duration) {
    let cluster = EtcdCluster::of(3);
    let scenario = ClusterScenario::on(&cluster, &order_from(cluster.leader()), lease);
    for _ in 0..rounds() {
        for member in &cluster.members {
            member.restart();
            cluster.leader();
        }
    }
    scenario.goes_on_leading(Duration::from_secs(1), "through a rolling restart");
    println!("figures: etcd cluster: rolling restart, {} rounds, ttl {}: goes on leading", rounds(), written(lease));
    scenario.still_hands_over();
}

#[test]
fn a_restart_of_the_whole_cluster_leaves_one_or_none_and_then_one() {
    retry_if_machine_slow("etcd cluster: a restart of all", PATIENT, a_restart_of_the_whole_cluster);
}

fn a_restart_of_the_whole_cluster(long: Duration) {
    let cluster = EtcdCluster::of(3);
    for (round, lease) in (0..rounds() * 2).map(|round| (round, if round % 2 == 0 { long } else { LEASE })) {
        let scenario = ClusterScenario::on(&cluster, &order_from(round % 3), lease);
        let began = now();
        cluster.restart();
        let down = since(began);
        let led = scenario.sandbox.history().starts.len();
        throughout(LEASE, "never two", || scenario.sandbox.history().verdict().is_ok());
        until("somebody leads", || processes::is_alive(scenario.sandbox.history().latest().pid));
        let starts = scenario.sandbox.history().starts.len();
        println!(
            "figures: etcd cluster: all members killed and started, down for {}, ttl {}: {} demoted",
            millis(down),
            written(lease),
            starts - led.min(1)
        );
        if lease == long && down < Duration::from_secs(2) {
            assert_in_time(starts == 1, || format!("an outage of {down:?} demotes nobody with a ttl of {lease:?}"));
        }
        scenario.end();
    }
}
