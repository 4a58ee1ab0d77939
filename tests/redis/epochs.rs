//! Leaders that are forgotten, replicas that move, and records that stand still: nobody leads beside them. And all that is no
//! reason to wait, for which nobody waits.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::server_errors::long_and_short_lease;
use super::{RedisPair, elect, key, led_before};
use crate::harness::journal::{JournalEntry, median, millis};
use crate::harness::server::StoreServer;
use crate::harness::timing_verdict::{assert_in_time, retry_if_machine_slow, throughout_in_time};
use crate::harness::wait::{now, since, throughout, until};
use crate::harness::{CandidateProcess, Sandbox, Witness, few, processes};
use crate::leases::{LEASE, a_few_at_once, candidate_for, written};
use crate::redis::sentinel::Sentinel;
use crate::redis::server::{RedisOptions, RedisServer};

/// S2: a candidate sees no record and is stopped; meanwhile another one waits, takes and leads; all is deleted.
fn forgotten_between_two_looks() -> usize {
    let (redis, sandbox) = (RedisServer::start(), Sandbox::new());
    let next = elect(&sandbox, &redis, "3s").start();
    next.wait_for_log("no record of this boundary");
    processes::signal(next.pid(), Signal::SIGSTOP);
    let leader = elect(&sandbox, &redis, "3s").start();
    let led = sandbox.starts(1).latest();
    let end = sandbox.watch_the_end_of(led.pid);
    // It cannot learn of it before its lease is over.
    processes::signal(leader.pid(), Signal::SIGSTOP);
    redis.cli(&["flushall"]);
    processes::signal(next.pid(), Signal::SIGCONT);
    let started = sandbox.starts(2).latest();
    let ended = end.join().expect("the watch on the old tree");
    processes::signal(leader.pid(), Signal::SIGCONT);
    let history = sandbox.history();
    history.is_safe();
    assert!(started.at >= ended && started.term > led.term, "{history:?}");
    leader.terminate();
    next.terminate();
    history.overlaps.len()
}

#[test]
fn a_leader_that_came_and_was_forgotten_between_two_looks_is_waited_for() {
    let overlaps: usize = a_few_at_once(few(), forgotten_between_two_looks).into_iter().sum();
    println!("figures: redis: none, led, none (S2): {} runs, overlaps {overlaps}", few());
    assert_eq!(overlaps, 0);
}

/// A primary and two replicas, without anything that watches over them.
struct ReplicatedPrimary {
    sandbox: Sandbox,
    primary: RedisServer,
    replicas: [RedisServer; 2],
}

impl ReplicatedPrimary {
    fn start(options: &str) -> ReplicatedPrimary {
        let primary = RedisServer::start();
        let behind =
            || RedisServer::with(&RedisOptions::new().flag("replicaof", &["127.0.0.1", &primary.port.to_string()]));
        let nodes = ReplicatedPrimary { sandbox: Sandbox::new(), replicas: [behind(), behind()], primary };
        until("both replicas have confirmed something", || nodes.primary.confirming() == 2);
        let first = nodes.at(&nodes.primary, options, "2200ms").command(["sleep", "1000"]).start();
        until("the number is in the record", || !nodes.primary.field(&nodes.sandbox, "required").is_empty());
        first.terminate();
        nodes
    }

    fn at(&self, server: &RedisServer, options: &str, ttl: &str) -> crate::harness::ElectCmd {
        candidate_for(&self.sandbox, self.sandbox.below(&format!("{}{options}", server.url())), ttl)
            .witness(&Witness::new())
    }
}

impl ReplicatedPrimary {
    /// A replica moves over to the promoted one: from then on until the next command starts, which is after the old tree's end.
    fn waits_for_the_old_leader(&self, led: &JournalEntry, moves: &RedisServer, promoted: &RedisServer) -> Duration {
        let end = self.sandbox.watch_the_end_of(led.pid);
        moves.cli(&["replicaof", "127.0.0.1", &promoted.port.to_string()]);
        let moved = now();
        let started = self.sandbox.starts(2).latest();
        let ended = end.join().expect("the watch on the old tree");
        self.sandbox.history().is_safe();
        assert!(started.at >= ended && started.term > led.term);
        started.at.saturating_sub(moved)
    }
}

impl RedisServer {
    /// Replicas that have confirmed something.
    fn confirming(&self) -> usize {
        let info = self.cli(&["info", "replication"]);
        info.lines().filter(|line| line.contains("state=online") && !line.contains("offset=0,")).count()
    }

    fn field(&self, sandbox: &Sandbox, name: &str) -> String {
        self.cli(&["hget", &key(sandbox), name]).trim().to_owned()
    }
}

/// Epochs (5.4): one replica is promoted, the other one stays with the old primary, confirms its leader's renewals, and moves over
/// when a candidate has long waited beside the new one.
fn moved_over(options: &str, lease: Duration) -> Duration {
    let (nodes, ttl) = (ReplicatedPrimary::start(options), written(lease));
    let leader = nodes.at(&nodes.primary, options, &ttl).start();
    let led = nodes.sandbox.starts(1).latest();
    let [promoted, moves] = &nodes.replicas;
    promoted.cli(&["replicaof", "no", "one"]);
    let next = nodes.at(promoted, options, &ttl).start();
    next.wait_for_log("of 1 replicas");
    throughout_in_time(lease * 3 / 2, "the first one goes on leading, and nobody else leads", || {
        nodes.sandbox.history().starts.len() == 1 && processes::is_alive(led.pid)
    });
    let took = nodes.waits_for_the_old_leader(&led, moves, promoted);
    drop((leader, next));
    took
}

#[test]
fn a_replica_that_moves_over_brings_its_leaders_lease_along() {
    for options in ["?replicas=1", "?replicas=majority"] {
        retry_if_machine_slow("redis: a replica moves over", Duration::from_secs(4), |lease| {
            let took = a_few_at_once(few().div_ceil(2), || moved_over(options, lease));
            println!(
                "figures: redis: a replica moves to the new primary (5.4), {options}: {} failovers, overlaps 0, ttl {}, next one after {}",
                took.len(),
                written(lease),
                median(&took).map(millis).unwrap_or_default()
            );
        });
    }
}

/// Epochs (5.4): the new primary has a replica of its own, and a candidate waits on it already, when the one that has confirmed
/// the old leader's renewals so far moves over. The wait begins again.
fn moved_over_in_the_middle_of_a_wait() -> Duration {
    let options = "?replicas=1";
    let nodes = ReplicatedPrimary::start(options);
    let leader = nodes.at(&nodes.primary, options, "12s").start();
    let led = nodes.sandbox.starts(1).latest();
    let [promoted, moves] = &nodes.replicas;
    promoted.cli(&["replicaof", "no", "one"]);
    let next = nodes.at(promoted, options, "12s").start();
    next.wait_for_log("of 1 replicas");
    let fresh = RedisServer::with(&RedisOptions::new().flag("replicaof", &["127.0.0.1", &promoted.port.to_string()]));
    until("the wait has begun", || promoted.confirming() == 1);
    // So late that the wait of this lease would end before the old leader does, and so early that it has not ended.
    let began = now();
    until("most of it is over", || since(began) > Duration::from_secs(8));
    let took = nodes.waits_for_the_old_leader(&led, moves, promoted);
    drop((leader, next, fresh));
    took
}

#[test]
fn a_replica_that_joins_others_restarts_the_wait_for_its_leaders_lease() {
    let took = a_few_at_once(few(), moved_over_in_the_middle_of_a_wait);
    println!(
        "figures: redis: a replica joins another one of the new primary (5.4): {} failovers, overlaps 0, ttl 12s, next one after {}",
        took.len(),
        median(&took).map(millis).unwrap_or_default()
    );
}

/// S3: the version stands still, whatever the leader writes.
#[test]
fn a_leader_whose_renewals_change_nothing_is_dead_before_the_next_one_starts() {
    let redis = RedisServer::start();
    let pair = RedisPair::on(&redis, ["3s", "3s"]);
    let led = pair.sandbox.history().latest();
    let end = pair.sandbox.watch_the_end_of(led.pid);
    redis.cli(&["hset", &key(&pair.sandbox), "nonce", "9007199254740991"]);
    let started = pair.sandbox.starts(2).latest();
    let ended = end.join().expect("the watch on the old tree");
    assert!(started.at >= ended, "{:?}", pair.sandbox.history());
    pair.leader.wait_for_log("changes nothing");
    pair.ends();
}

fn debug_client(redis: &RedisServer) -> Child {
    let mut command = Command::new("redis-cli");
    command.args(["-p", &redis.port.to_string(), "--replica"]).stdout(Stdio::null()).stderr(Stdio::null());
    let client = command.spawn().expect("redis-cli is there");
    until("it looks like a replica", || redis.cli(&["info", "replication"]).contains("state=online"));
    client
}

/// A replica counts only with an address, a port and an offset of its own (5.4).
#[test]
fn a_debug_client_or_a_dump_demotes_nobody_and_keeps_nobody_from_being_elected() {
    let redis = RedisServer::start();
    let pair = long_and_short_lease(&redis);
    let led = pair.sandbox.history().latest();
    let mut client = debug_client(&redis);
    throughout(LEASE * 2, "it goes on leading", || processes::is_alive(led.pid));
    client.kill().and_then(|()| client.wait()).expect("a child of ours");
    redis.dump();
    throughout(LEASE, "it goes on leading", || processes::is_alive(led.pid));
    assert_eq!(redis.field(&pair.sandbox, "replicas"), "0");
    let RedisPair { sandbox, leader, next } = pair;
    leader.terminate();
    sandbox.starts(2);
    next.terminate();
    sandbox.history().is_safe();
}

/// The events at a server under a leader that goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ServerEvent {
    NewReplica,
    Dump,
    Restart,
}

/// From the end of the leader's command to the start of the next one's.
fn hand_over(event: ServerEvent, is_killed: bool, lease: Duration) -> Duration {
    let redis = RedisServer::with(&RedisOptions::new().durable());
    let ttl = written(lease);
    let pair = RedisPair::on(&redis, [&ttl, &ttl]);
    let incarnation = || {
        ["run_id", "master_replid"]
            .map(|name| redis.info(if name == "run_id" { "server" } else { "replication" }, name))
    };
    let mut replica = None;
    match event {
        ServerEvent::NewReplica => {
            let behind = RedisOptions::new().flag("replicaof", &["127.0.0.1", &redis.port.to_string()]);
            replica = Some(RedisServer::with(&behind));
            until("it has confirmed something", || redis.confirming() == 1);
        }
        ServerEvent::Dump => redis.dump(),
        ServerEvent::Restart => redis.restart(),
    }
    let [run, history] = incarnation();
    // A renewal writes where the last credited one was executed: the replica may have confirmed none of the first ones.
    until("the leader has been credited since", || {
        let attachments: u64 = ["sync_full", "sync_partial_ok"]
            .iter()
            .filter_map(|name| redis.info("stats", name).parse::<u64>().ok())
            .sum();
        redis.field(&pair.sandbox, "incarnation") == format!("{run}/{history}")
            && (replica.is_none()
                || redis.field(&pair.sandbox, "required") == "1"
                    && redis.field(&pair.sandbox, "epoch").starts_with(&format!("{attachments}/")))
    });
    let nonce = redis.field(&pair.sandbox, "nonce");
    until("and once more", || redis.field(&pair.sandbox, "nonce") != nonce);
    let led = pair.sandbox.history().latest();
    let end = pair.sandbox.watch_the_end_of(led.pid);
    if is_killed {
        processes::signal(pair.leader.pid(), Signal::SIGKILL);
    } else {
        processes::signal(pair.leader.pid(), Signal::SIGTERM);
    }
    let started = pair.sandbox.starts(2).latest();
    let ended = end.join().expect("the watch on the old tree");
    pair.sandbox.history().is_safe();
    let took = started.at.saturating_sub(ended);
    assert_in_time(took < lease / 2, || format!("{event:?}, killed: {is_killed}: {took:?}\n{}", pair.next.log()));
    let RedisPair { sandbox, leader, next } = pair;
    drop(leader);
    next.terminate();
    sandbox.history().is_safe();
    took
}

/// A release stores the incarnation of the last credited renewal (5.4).
#[test]
fn a_hand_over_waits_for_nothing_that_the_leader_has_lived_through() {
    for event in [ServerEvent::Dump, ServerEvent::NewReplica, ServerEvent::Restart] {
        for is_killed in [false, true] {
            retry_if_machine_slow("redis: a hand-over after an event", Duration::from_secs(5), |lease| {
                let took = millis(hand_over(event, is_killed, lease));
                let (how, ttl) = (if is_killed { "campaigner killed" } else { "clean stop" }, written(lease));
                println!("figures: redis: ttl {ttl}, {event:?} under the leader, then {how}: next one after {took}");
            });
        }
    }
}

/// One of three servers is gone and does not come back.
fn survives_the_loss_of(node: usize, lease: Duration) -> Duration {
    // Without its primary the others elect one; with it they have no reason to.
    let (sandbox, sentinel) = (Sandbox::new(), if node == 0 { Sentinel::start() } else { Sentinel::start_patient() });
    let store = || sandbox.below(&format!("{}?replicas=majority", sentinel.url()));
    let candidates: [CandidateProcess; 2] =
        [(); 2].map(|()| candidate_for(&sandbox, store(), &written(lease)).witness(&Witness::new()).start());
    sandbox.starts(1);
    until("the number of replicas is known", || sentinel.primary.field(&sandbox, "replicas") == "2");
    let lost = now();
    if node == 0 {
        sentinel.primary.kill();
        sentinel.promoted();
        let leads = || !sandbox.running().is_empty() && candidates.iter().any(|one| !one.tree().is_empty());
        until("somebody leads without it", leads);
    } else {
        sentinel.replicas[node - 1].kill();
        let led = sandbox.history().latest();
        throughout_in_time(lease * 2, "it goes on leading", || processes::is_alive(led.pid));
    }
    let took = since(lost);
    // For longer than a lease that nobody renews.
    let starts = sandbox.history().starts.len();
    until("a renewal is credited", || sandbox.history().starts.len() > starts || since(lost) > took + lease * 2);
    until("and somebody leads", || candidates.iter().any(|one| !one.tree().is_empty()));
    sandbox.history().is_safe();
    candidates.into_iter().for_each(CandidateProcess::terminate);
    sandbox.history().is_safe();
    took
}

#[test]
fn a_majority_of_three_survives_the_loss_of_any_one_of_them() {
    for node in 0..3 {
        retry_if_machine_slow("redis: one of three servers lost", LEASE, |lease| {
            let took = survives_the_loss_of(node, lease);
            if node == 0 {
                println!(
                    "figures: redis: replicas=majority, primary of three lost for good: led again after {}",
                    millis(took)
                );
            }
        });
    }
}

#[test]
fn candidates_with_another_number_are_told_the_way_out_and_go_on_once_it_is_taken() {
    let nodes = ReplicatedPrimary::start("");
    assert_eq!(nodes.primary.field(&nodes.sandbox, "required"), "2");
    let ended = nodes.at(&nodes.primary, "?replicas=1", "100s").switch("-n").run();
    assert_eq!(ended.status.code(), Some(75), "a record is never a reason for 77: {ended:?}");
    ended.stderr_contains(&["?replicas=1&replicas-was=2"]);
    let next = nodes.at(&nodes.primary, "?replicas=1&replicas-was=2", "3s").start();
    nodes.sandbox.starts(1);
    assert_eq!(nodes.primary.field(&nodes.sandbox, "required"), "1");
    next.terminate();
    nodes.sandbox.history().is_safe();
}

/// Not one wait is worth anything while replicas come and go.
#[test]
fn a_wait_that_is_restarted_again_and_again_is_reported() {
    let redis = RedisServer::start();
    let behind = || RedisServer::with(&RedisOptions::new().flag("replicaof", &["127.0.0.1", &redis.port.to_string()]));
    let replica = behind();
    let sandbox = Sandbox::new();
    until("it has confirmed something", || redis.confirming() == 1);
    led_before(&sandbox, &redis);
    let leader = elect(&sandbox, &redis, "60s").start();
    sandbox.starts(1);
    let next = elect(&sandbox, &redis, "60s").start();
    next.wait_until_waiting();
    leader.kill_with_keeper();
    // Each of them is seen by a look of its own; a candidate with this ttl looks every twelve seconds, or when it is told to.
    until("it is reported", || {
        redis.dump();
        redis.cli(&["publish", &key(&sandbox), "taken"]);
        next.log().contains("sync_full + sync_partial_ok")
    });
    next.terminate();
    drop((leader, replica));
}
