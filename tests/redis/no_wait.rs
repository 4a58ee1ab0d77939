//! How long it takes to lead, what is said meanwhile, and what those get who ask only once.

use std::time::Duration;

use super::{elect, key, led_before};
use crate::harness::proxy::{Proxy, ProxyMode};
use crate::harness::server::StoreServer;
use crate::harness::wait::{now, since, until};
use crate::harness::{CandidateProcess, ElectCmd, Sandbox, Witness, millis};
use crate::leases::{LEASE, candidate, candidate_for, through};
use crate::redis::server::{RedisOptions, RedisServer};

/// From its start to the command's.
fn leads_after(sandbox: &Sandbox, candidate: ElectCmd, starts: usize) -> (CandidateProcess, Duration) {
    let began = now();
    let candidate = candidate.start();
    let started = sandbox.starts(starts).latest();
    (candidate, started.at.saturating_sub(began))
}

#[test]
fn the_time_until_leading_depends_on_what_is_found_and_the_log_says_why() {
    let redis = RedisServer::with(&RedisOptions::new().durable());
    let sandbox = Sandbox::new();
    let tell = |what: &str, took: Duration| println!("figures: redis: ttl 3 s, {what}: leads after {}", millis(took));

    let (one, took) = leads_after(&sandbox, elect(&sandbox, &redis, "3s"), 1);
    tell("no record", took);
    assert!(took >= LEASE, "{took:?}");
    one.wait_for_log("no record of this boundary");
    one.terminate();

    let (two, took) = leads_after(&sandbox, elect(&sandbox, &redis, "3s"), 2);
    tell("free record", took);
    assert!(took < LEASE / 2, "{took:?}");
    assert!(!two.log().contains("waiting"), "{}", two.log());
    two.kill_with_keeper();
    drop(two);
    let died = now();
    until("its lease is over", || since(died) > LEASE + LEASE / 10);

    let (three, took) = leads_after(&sandbox, elect(&sandbox, &redis, "3s"), 3);
    tell("abandoned record", took);
    assert!(took >= LEASE, "{took:?}");
    three.wait_for_log("has not renewed its lease");
    three.terminate();

    redis.restart();
    let (four, took) = leads_after(&sandbox, elect(&sandbox, &redis, "3s"), 4);
    tell("record of another incarnation of the server", took);
    assert!(took >= LEASE, "{took:?}");
    four.wait_for_log("may have forgotten a leader");
    four.terminate();
    sandbox.history().is_safe();
}

#[test]
fn whoever_asks_only_once_goes_as_soon_as_somebody_is_seen_to_lead() {
    let (redis, sandbox) = (RedisServer::start(), Sandbox::new());
    led_before(&sandbox, &redis);
    let leader = elect(&sandbox, &redis, "3s").start();
    sandbox.starts(1);
    for ttl in ["3s", "30s"] {
        let began = now();
        let ended = elect(&sandbox, &redis, ttl).switch("-n").run();
        println!("figures: redis: -n with ttl {ttl} beside a leader with ttl 3 s: 75 after {}", millis(since(began)));
        assert_eq!(ended.status.code(), Some(75), "{ended:?}");
        assert!(since(began) < LEASE, "with the leader's next renewal: {:?}", since(began));
        let quiet = elect(&sandbox, &redis, ttl).switch("-q").switch("-n").run();
        assert_eq!((quiet.status.code(), quiet.stderr.as_str()), (Some(75), ""), "silent");
    }
    leader.terminate();
    sandbox.history().is_safe();
}

#[test]
fn of_those_who_ask_only_once_one_leads_where_somebody_died_leading() {
    let (redis, sandbox) = (RedisServer::start(), Sandbox::new());
    let once = || elect(&sandbox, &redis, "3s").switch("-n").start();
    // Nor is there a record at first.
    for round in 1..=2 {
        let mut all = [once(), once(), once()];
        let leader = sandbox.starts(round).latest();
        let mut index = None;
        until("the others have gone", || {
            let leads = |one: &CandidateProcess| one.tree().iter().any(|process| process.pid == leader.pid);
            index = all.iter().position(leads);
            index.is_some_and(|leads| (0..3).all(|other| other == leads || all[other].has_ended()))
        });
        let leads = index.expect("one of them leads");
        for (number, one) in all.iter_mut().enumerate() {
            if number == leads {
                one.kill_with_keeper();
            } else {
                one.ends_with(75);
            }
        }
    }
    sandbox.history().is_safe();
}

#[test]
fn whoever_waits_for_so_long_waits_no_longer() {
    let (redis, sandbox) = (RedisServer::start(), Sandbox::new());
    let began = now();
    let ended = elect(&sandbox, &redis, "3s").flag("--wait", "1s").run();
    assert_eq!(ended.status.code(), Some(75), "{ended:?}");
    assert!(since(began) < LEASE, "{:?}", since(began));
    assert!(sandbox.history().starts.is_empty());
}

#[test]
fn a_take_whose_answer_was_lost_is_found_and_not_waited_for() {
    // A replica that stands still has everybody wait for its word after each write: in that time the answer can be lost.
    let (primary, sandbox) = (RedisServer::start(), Sandbox::new());
    let replica = RedisServer::with(&RedisOptions::new().flag("replicaof", &["127.0.0.1", &primary.port.to_string()]));
    until("the replica follows", || replica.replicates("master_link_status", "up"));
    let proxy = Proxy::to(&primary.address());
    led_before(&sandbox, &primary);
    let field = |name: &str| primary.cli(&["hget", &key(&sandbox), name]).trim().to_owned();
    let holder = elect(&sandbox, &primary, "10s").start();
    sandbox.starts(1);
    let held_by = field("id");
    let next =
        candidate_for(&sandbox, through::<RedisServer>(&proxy, &sandbox), "10s").witness(&Witness::new()).start();
    next.wait_until_waiting();
    replica.stop();
    holder.terminate();
    until("it has taken the record and does not know", || field("state") == "held" && field("id") != held_by);
    proxy.mode(ProxyMode::Closed);
    let taken = field("term");
    assert_eq!(sandbox.history().starts.len(), 1);
    replica.cont();
    proxy.mode(ProxyMode::Open);
    let opened = now();
    sandbox.starts(2);
    println!(
        "figures: redis: the answer to a take was lost, ttl 10 s: leads {} after the way is open",
        millis(since(opened))
    );
    assert!(since(opened) < Duration::from_secs(10), "it does not wait on its own record");
    assert_eq!(field("term"), taken, "it finds its own take");
    next.terminate();
    sandbox.history().is_safe();
}

#[test]
fn a_leader_that_was_cut_off_alone_does_not_wait_for_itself() {
    let (redis, sandbox) = (RedisServer::start(), Sandbox::new());
    let proxy = Proxy::to(&redis.address());
    led_before(&sandbox, &redis);
    let leader = candidate(&sandbox, through::<RedisServer>(&proxy, &sandbox)).witness(&Witness::new()).start();
    sandbox.starts(1);
    proxy.mode(ProxyMode::Closed);
    leader.wait_for_log("the lease runs out");
    leader.wait_for_log("the release was not confirmed");
    proxy.mode(ProxyMode::Open);
    let opened = now();
    sandbox.starts(2);
    println!("figures: redis: alone after an outage: leads again after {}", millis(since(opened)));
    assert!(since(opened) < LEASE, "{:?}", since(opened));
    leader.terminate();
    sandbox.history().is_safe();
}
