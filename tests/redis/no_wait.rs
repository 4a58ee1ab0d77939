//! How long it takes to lead, what is said meanwhile, and what those get who ask only once.

use std::time::Duration;

use super::{elect, key, led_before};
use crate::harness::proxy::{Proxy, ProxyMode};
use crate::harness::server::StoreServer;
use crate::harness::timing_verdict::{assert_in_time, retry_if_machine_slow};
use crate::harness::wait::{now, since, until};
use crate::harness::{CandidateProcess, ElectCmd, Sandbox, Witness, millis};
use crate::leases::{LEASE, candidate_for, through, written};
use crate::redis::server::{RedisOptions, RedisServer};

/// From its start to the command's.
fn leads_after(sandbox: &Sandbox, candidate: ElectCmd) -> (CandidateProcess, Duration) {
    // On a busy machine the one before may have lost its lease, and led again.
    let before = sandbox.history().starts.len();
    let began = now();
    let candidate = candidate.start();
    let started = sandbox.starts(before + 1).starts[before];
    (candidate, started.at.saturating_sub(began))
}

#[test]
fn the_time_until_leading_depends_on_what_is_found_and_the_log_says_why() {
    let redis = RedisServer::with(&RedisOptions::new().durable());
    let sandbox = Sandbox::new();
    let tell = |what: &str, took: Duration| println!("figures: redis: ttl 3 s, {what}: leads after {}", millis(took));

    let (one, took) = leads_after(&sandbox, elect(&sandbox, &redis, "3s"));
    tell("no record", took);
    assert!(took >= LEASE, "{took:?}");
    one.wait_for_log("no record of this boundary");
    one.terminate();

    let (two, took) = leads_after(&sandbox, elect(&sandbox, &redis, "3s"));
    tell("free record", took);
    assert!(!two.log().contains("waiting"), "{}", two.log());
    two.kill_with_keeper();
    drop(two);
    let died = now();
    until("its lease is over", || since(died) > LEASE + LEASE / 10);

    let (three, took) = leads_after(&sandbox, elect(&sandbox, &redis, "3s"));
    tell("abandoned record", took);
    assert!(took >= LEASE, "{took:?}");
    three.wait_for_log("has not renewed its lease");
    three.terminate();

    redis.restart();
    let (four, took) = leads_after(&sandbox, elect(&sandbox, &redis, "3s"));
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
    let leader = elect(&sandbox, &redis, "60s").flag("--renew", "1s").start();
    sandbox.starts(1);
    for ttl in ["30s", "60s"] {
        let began = now();
        let ended = elect(&sandbox, &redis, ttl).switch("-n").run();
        println!(
            "figures: redis: -n with ttl {ttl} beside a leader that renews each second: 75 after {}",
            millis(since(began))
        );
        assert_eq!(ended.status.code(), Some(75), "{ended:?}");
        assert!(since(began) < Duration::from_secs(30), "with the leader's next renewal: {:?}", since(began));
        let quiet = elect(&sandbox, &redis, ttl).switch("-q").switch("-n").run();
        assert_eq!((quiet.status.code(), quiet.stderr.as_str()), (Some(75), ""), "silent");
    }
    leader.terminate();
    sandbox.history().is_safe();
}

#[test]
fn of_those_who_ask_only_once_one_leads_where_somebody_died_leading() {
    retry_if_machine_slow("redis: three that ask only once", LEASE, of_three_one_leads);
}

fn of_three_one_leads(lease: Duration) {
    let (redis, sandbox) = (RedisServer::start(), Sandbox::new());
    let once = || elect(&sandbox, &redis, &written(lease)).switch("-n").start();
    // Nor is there a record at first.
    for round in 1..=2 {
        let mut all = [once(), once(), once()];
        until("the others have gone, or all have", || {
            let running = all.iter_mut().map(|one| usize::from(!one.has_ended())).sum::<usize>();
            running <= usize::from(sandbox.history().starts.len() >= round)
        });
        let mut leaders = 0;
        for one in &mut all {
            if !one.has_ended() {
                leaders += 1;
                one.kill_with_keeper();
                continue;
            }
            // On a busy machine one has no answer in time, or leads and loses its lease.
            let status = one.wait().code();
            assert_in_time(status == Some(75), || format!("{status:?}: {}", one.log()));
        }
        assert_in_time(leaders == 1, || format!("{leaders} lead"));
    }
    sandbox.history().is_safe();
}

#[test]
fn whoever_waits_for_so_long_waits_no_longer() {
    let (redis, sandbox) = (RedisServer::start(), Sandbox::new());
    let began = now();
    let ended = elect(&sandbox, &redis, "60s").flag("--wait", "1s").run();
    assert_eq!(ended.status.code(), Some(75), "{ended:?}");
    assert!(since(began) < Duration::from_secs(30), "{:?}", since(began));
    assert!(sandbox.history().starts.is_empty());
}

#[test]
fn a_take_whose_answer_was_lost_is_found_and_not_waited_for() {
    // A replica that stands still has everybody wait for its word after each write: in that time the answer can be lost.
    // For as long as that takes on a busy machine the primary has to count it as one.
    let options = RedisOptions::new().flag("repl-timeout", &["60"]);
    let (primary, sandbox) = (RedisServer::with(&options), Sandbox::new());
    let replica = RedisServer::with(&options.flag("replicaof", &["127.0.0.1", &primary.port.to_string()]));
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
    retry_if_machine_slow("redis: alone after an outage", LEASE, |lease| {
        let (redis, sandbox) = (RedisServer::start(), Sandbox::new());
        let proxy = Proxy::to(&redis.address());
        led_before(&sandbox, &redis);
        let candidate = candidate_for(&sandbox, through::<RedisServer>(&proxy, &sandbox), &written(lease));
        let leader = candidate.witness(&Witness::new()).start();
        sandbox.starts(1);
        proxy.mode(ProxyMode::Closed);
        leader.wait_for_log("the lease runs out");
        leader.wait_for_log("the release was not confirmed");
        let before = sandbox.history().starts.len();
        proxy.mode(ProxyMode::Open);
        let opened = now();
        sandbox.starts(before + 1);
        println!("figures: redis: alone after an outage: leads again after {}", millis(since(opened)));
        assert_in_time(since(opened) < lease, || format!("{:?}", since(opened)));
        leader.terminate();
        sandbox.history().is_safe();
    });
}
