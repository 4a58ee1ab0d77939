//! A primary, two replicas and a Sentinel, and all that can become of them: whoever leads is credited by all of them or not
//! at all, so that no failover forgets a leader.

use std::time::Duration;

use super::led_before;
use crate::harness::server::StoreServer;
use crate::harness::timing_verdict::{assert_in_time, retry_if_machine_slow};
use crate::harness::wait::{now, since, throughout, until};
use crate::harness::{CandidateProcess, ElectCmd, Sandbox, Witness, few, millis};
use crate::leases::{LEASE, a_few_at_once, asks_once, candidate_for, written};
use crate::redis::sentinel::Sentinel;
use crate::redis::server::{RedisOptions, RedisServer};

/// Of a primary, after which a replica is promoted.
const SILENCE: Duration = Duration::from_secs(1);
/// Longer than it takes to promote a replica, and for a lease to run out after that.
const LONG_ENOUGH: Duration = Duration::from_secs(12);

/// The two sides: a candidate that asks the Sentinel follows the failover, one that names the primary stays with it.
struct ReplicaScenario {
    sandbox: Sandbox,
    sentinel: Sentinel,
    ttl: String,
}

impl ReplicaScenario {
    fn set() -> ReplicaScenario {
        ReplicaScenario::of(LEASE)
    }

    fn of(lease: Duration) -> ReplicaScenario {
        let scenario = ReplicaScenario::patient(lease);
        scenario.sentinel.promotes_after(SILENCE);
        scenario
    }

    /// No replica is promoted as long as the primary is there.
    fn patient(lease: Duration) -> ReplicaScenario {
        let (sandbox, sentinel) = (Sandbox::new(), Sentinel::start_patient());
        led_before(&sandbox, &sentinel.primary);
        ReplicaScenario { sandbox, sentinel, ttl: written(lease) }
    }

    /// With the Sentinel's word for it.
    fn follower(&self, options: &str) -> ElectCmd {
        let store = self.sandbox.below(&format!("{}{options}", self.sentinel.url()));
        candidate_for(&self.sandbox, store, &self.ttl).witness(&Witness::new())
    }

    /// Always at the first primary.
    fn loyal(&self, options: &str) -> ElectCmd {
        let url = format!("{}{options}", self.sentinel.primary.url());
        candidate_for(&self.sandbox, self.sandbox.below(&url), &self.ttl).witness(&Witness::new())
    }

    #[track_caller]
    fn is_safe(&self) {
        self.sandbox.history().is_safe();
    }
}

/// A second fault while the primary is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ExtraFault {
    Nothing,
    AReplicaStandsStill,
    ConnectionsBreak,
}

/// The classic split: the primary is cut off from its replicas and from the Sentinel, but not from its leader, nor from one who
/// comes to that side later.
fn is_split(besides: ExtraFault, lease: Duration) {
    let scenario = ReplicaScenario::of(lease);
    let leader = scenario.loyal("").start();
    scenario.sandbox.starts(1);
    let next = scenario.follower("").start();
    next.wait_until_waiting();
    let led = scenario.sandbox.history().latest();
    let end = scenario.sandbox.watch_the_end_of(led.pid);
    if besides == ExtraFault::AReplicaStandsStill {
        scenario.sentinel.replicas[0].stop();
    }
    let cut = now();
    scenario.sentinel.cut_off();
    let late = scenario.loyal("").start();
    // A leader that goes on there is found by the leader on the other side.
    until("it is dead, or another one leads", || {
        if besides == ExtraFault::ConnectionsBreak {
            // Both sit in WAIT, again and again: on the connection that follows nothing was written.
            let _ = scenario.sentinel.primary.try_cli(&["client", "kill", "type", "normal"]);
        }
        end.is_finished() || scenario.sandbox.history().starts.len() > 1
    });
    scenario.is_safe();
    let ended = end.join().expect("the watch on the old tree");
    if besides != ExtraFault::ConnectionsBreak {
        leader.wait_for_log("replicas have confirmed");
    }
    assert_in_time(ended.saturating_sub(cut) < lease, || "dead within its lease".to_owned());
    scenario.sentinel.promoted();
    // The new primary has two replicas to wait for, and one of them is the old primary: nobody leads until it is back. Nor
    // does anybody on the other side.
    throughout(LONG_ENOUGH.max(lease * 4), "nobody leads", || scenario.sandbox.history().starts.len() == 1);
    late.wait_for_log("of 2 replicas are attached");
    scenario.sentinel.heal();
    if besides == ExtraFault::AReplicaStandsStill {
        scenario.sentinel.replicas[0].cont();
    }
    let healed = now();
    let started = scenario.sandbox.starts(2).latest();
    println!(
        "figures: redis: primary cut off from its replicas, not from its leader ({besides:?} besides): dead after {}, next one \
         {} after the way is open",
        millis(ended.saturating_sub(cut)),
        millis(since(healed))
    );
    assert!(started.term > led.term);
    scenario.is_safe();
    late.ends_killed();
    drop(leader);
    next.terminate();
    scenario.is_safe();
}

fn splits(besides: ExtraFault) {
    retry_if_machine_slow(&format!("redis: a split, {besides:?} besides"), LEASE, |lease| {
        a_few_at_once(few(), || is_split(besides, lease));
    });
}

#[test]
fn a_leader_on_a_primary_that_was_cut_off_is_dead_before_the_next_one_starts() {
    splits(ExtraFault::Nothing);
}

#[test]
fn a_split_with_a_replica_that_stands_still_lets_nobody_lead() {
    splits(ExtraFault::AReplicaStandsStill);
}

#[test]
fn a_split_with_connections_that_break_lets_nobody_lead() {
    splits(ExtraFault::ConnectionsBreak);
}

#[test]
fn terms_rise_through_every_failover() {
    let scenario = ReplicaScenario::set();
    let candidates: [CandidateProcess; 2] = [scenario.follower("").start(), scenario.follower("").start()];
    scenario.sandbox.starts(1);
    let mut primary = scenario.sentinel.primary_port();
    let rounds = if few() > 2 { 4 } else { 2 };
    for round in 1..=rounds {
        let before = scenario.sandbox.history().starts.len();
        let all = || scenario.sentinel.replicas.iter().chain([&scenario.sentinel.primary]);
        // The first one is known by the address of its proxy.
        let failing = all().find(|one| one.port.to_string() == primary).unwrap_or(&scenario.sentinel.primary);
        if round % 2 == 1 {
            failing.kill();
        } else {
            failing.stop();
        }
        until("another is the primary", || scenario.sentinel.primary_port() != primary);
        primary = scenario.sentinel.primary_port();
        throughout(Duration::from_secs(2), "never two", || scenario.sandbox.history().verdict().is_ok());
        if round % 2 == 1 {
            failing.start_again();
        } else {
            failing.cont();
        }
        scenario.sandbox.starts(before + 1);
        scenario.is_safe();
    }
    println!("figures: redis: {rounds} failovers, primary killed and stopped in turn: terms rise, overlaps 0");
    candidates.into_iter().for_each(CandidateProcess::terminate);
    scenario.is_safe();
}

#[test]
fn a_replica_that_stands_still_leaves_nobody_credited() {
    let scenario = ReplicaScenario::patient(LEASE);
    let leader = scenario.follower("").start();
    scenario.sandbox.starts(1);
    scenario.sentinel.replicas[0].stop();
    leader.wait_for_log("of 2 replicas have confirmed");
    leader.wait_for_log("the lease runs out");
    let late = scenario.loyal("").start();
    throughout(LEASE * 2, "nobody leads", || scenario.sandbox.history().starts.len() == 1);
    scenario.sentinel.replicas[0].cont();
    scenario.sandbox.starts(2);
    scenario.is_safe();
    drop((leader, late));
}

#[test]
fn a_replica_that_is_gone_for_good_is_done_without_if_that_is_said() {
    let scenario = ReplicaScenario::patient(LEASE);
    scenario.sentinel.replicas[0].kill();
    let all = scenario.loyal("").start();
    all.wait_for_log("of 2 replicas are attached");
    let one = scenario.loyal("?replicas=1&replicas-was=2").start();
    all.terminate();
    scenario.sandbox.starts(1);
    one.terminate();
    scenario.is_safe();
}

#[test]
fn a_connection_that_breaks_between_write_and_confirmation_confirms_nothing() {
    retry_if_machine_slow("redis: connections break between write and confirmation", LEASE, connections_that_break);
}

fn connections_that_break(lease: Duration) {
    let scenario = ReplicaScenario::patient(lease);
    let leader = scenario.loyal("").start();
    scenario.sandbox.starts(1);
    // Its connections are killed as well, and it would take the primary for dead.
    scenario.sentinel.stop();
    scenario.sentinel.replicas.iter().for_each(RedisServer::stop);
    // It sits in WAIT, again and again: on the connection that follows nothing was written, and two replicas would have it.
    let struck = now();
    until("the lease has run out", || {
        let _ = scenario.sentinel.primary.try_cli(&["client", "kill", "type", "normal"]);
        leader.log().contains("the lease runs out")
    });
    assert_in_time(since(struck) < lease, || format!("{:?}", since(struck)));
    scenario.sentinel.replicas.iter().for_each(RedisServer::cont);
    scenario.sandbox.starts(2);
    leader.terminate();
    scenario.is_safe();
}

#[test]
fn without_replicas_that_confirm_two_may_lead_as_the_manual_warns() {
    // The control: this harness finds two at once where there are two.
    let scenario = ReplicaScenario::patient(LEASE);
    let leader = scenario.loyal("?replicas=0&replicas-was=2").start();
    scenario.sandbox.starts(1);
    let next = scenario.follower("?replicas=0&replicas-was=2").start();
    next.wait_until_waiting();
    scenario.sentinel.promotes_after(SILENCE);
    scenario.sentinel.cut_off();
    scenario.sentinel.promoted();
    let history = scenario.sandbox.starts(2);
    assert!(!history.overlaps.is_empty(), "{history:?}");
    println!("figures: redis: replicas=0, primary cut off from its replicas: overlaps {}", history.overlaps.len());
    drop((leader, next));
}

#[test]
fn whoever_names_a_replica_is_told_so() {
    let primary = RedisServer::start();
    let replica = RedisServer::with(&RedisOptions::new().flag("replicaof", &["127.0.0.1", &primary.port.to_string()]));
    let sandbox = Sandbox::new();
    let ended = asks_once(&sandbox, replica.url_for(&sandbox)).command(["true"]).run();
    assert_eq!(ended.status.code(), Some(69), "{ended:?}");
    ended.stderr_contains(&["is a replica"]);
}

#[test]
fn a_sentinel_that_knows_no_such_primary_says_so() {
    let scenario = ReplicaScenario::patient(LEASE);
    let nobody = scenario.sentinel.url().replace("/main", "/other");
    let ended = asks_once(&scenario.sandbox, nobody).command(["true"]).run();
    assert_eq!(ended.status.code(), Some(77), "{ended:?}");
    ended.stderr_contains(&["knows no primary named \"other\""]);
    let direct = scenario.sentinel.url().replace("redis+sentinel", "redis").replace("/main", "");
    let ended = asks_once(&scenario.sandbox, direct).command(["true"]).run();
    assert_eq!(ended.status.code(), Some(77), "{ended:?}");
    ended.stderr_contains(&["redis+sentinel://"]);
}
