//! Answers of a server that cannot serve a request just now: elect waits, demotes no leader that has time left, and
//! elects no candidate. (Forgotten scripts: see [`super::data_loss`].)

use super::{RedisPair, elect, led_before};
use crate::harness::ports::free_port;
use crate::harness::server::StoreServer;
use crate::harness::timing_verdict::{assert_in_time, retry_if_machine_slow};
use crate::harness::wait::{now, throughout, until};
use crate::harness::{Sandbox, processes, run_until_answered};
use crate::leases::{LEASE, written};
use crate::redis::server::{RedisOptions, RedisServer};

/// A leader with a long lease, which renews each second and so meets every fault within one, and a candidate with a short ttl.
pub fn long_and_short_lease(redis: &RedisServer) -> RedisPair {
    let sandbox = Sandbox::new();
    led_before(&sandbox, redis);
    let leader = elect(&sandbox, redis, "60s").flag("--renew", "1s").start();
    sandbox.starts(1);
    let next = elect(&sandbox, redis, "5s").start();
    next.wait_until_waiting();
    RedisPair { sandbox, leader, next }
}

/// A candidate that asks only once reports why there is no answer.
#[track_caller]
fn newcomer_is_told(sandbox: &Sandbox, redis: &RedisServer, said: &str) {
    let ended = run_until_answered(|| elect(sandbox, redis, "10s").switch("-n"));
    assert_eq!(ended.status.code(), Some(69), "{ended:?}");
    ended.stderr_contains(&[said]);
}

/// It is over, and nothing has come of it: the leader goes on renewing, and nobody else has led.
#[track_caller]
fn has_passed(pair: RedisPair, redis: &RedisServer) {
    let led = pair.sandbox.history().latest();
    let renewals = || redis.cli(&["hget", &super::key(&pair.sandbox), "nonce"]).trim().parse::<u64>().expect("a nonce");
    let before = renewals();
    until("it renews again", || renewals() > before);
    assert!(processes::is_alive(led.pid) && pair.sandbox.history().starts.len() == 1);
    assert!(!pair.leader.log().contains("the lease runs out"), "{}", pair.leader.log());
    pair.ends();
}

/// How a server comes to answer so, what is said then to those who lead and to those who come, and how it is ended.
struct ServerError {
    begin: fn(&RedisServer),
    leader: &'static str,
    newcomer: Option<&'static str>,
    end: fn(&RedisServer),
}

fn follow_nobody(redis: &RedisServer) {
    redis.cli(&["replicaof", "127.0.0.1", &free_port().to_string()]);
}

const SERVER_ERRORS: [ServerError; 5] = [
    ServerError {
        begin: follow_nobody,
        leader: "is a replica, and not the primary any more",
        newcomer: Some("is a replica, where nobody can be elected"),
        end: |redis| drop(redis.cli(&["replicaof", "no", "one"])),
    },
    ServerError {
        begin: |redis| {
            redis.cli(&["config", "set", "replica-serve-stale-data", "no"]);
            follow_nobody(redis);
        },
        leader: "is a replica without a primary",
        newcomer: Some("is a replica"),
        end: |redis| drop(redis.cli(&["replicaof", "no", "one"])),
    },
    ServerError {
        begin: |redis| drop(redis.cli(&["config", "set", "maxmemory", "1"])),
        leader: "is out of memory, and takes no writes",
        // It can look, and sees that somebody leads.
        newcomer: None,
        end: |redis| drop(redis.cli(&["config", "set", "maxmemory", "0"])),
    },
    ServerError {
        begin: |redis| drop(redis.cli(&["config", "set", "min-replicas-to-write", "1"])),
        leader: "it has fewer replicas than min-replicas-to-write",
        newcomer: None,
        end: |redis| drop(redis.cli(&["config", "set", "min-replicas-to-write", "0"])),
    },
    ServerError {
        begin: |redis| {
            redis.cli(&["config", "set", "busy-reply-threshold", "100"]);
            redis.begin(&["eval", "while true do end", "0"]);
            until("it is busy", || redis.cli(&["ping"]).contains("BUSY"));
        },
        leader: "is busy with a script",
        newcomer: Some("is busy with a script"),
        end: |redis| drop(redis.cli(&["script", "kill"])),
    },
];

#[test]
fn what_a_server_cannot_do_just_now_is_said_and_waited_out_by_who_has_the_time() {
    for ServerError { begin, leader, newcomer, end } in SERVER_ERRORS {
        let redis = RedisServer::start();
        let pair = long_and_short_lease(&redis);
        begin(&redis);
        pair.leader.wait_for_log(leader);
        if let Some(said) = newcomer {
            newcomer_is_told(&pair.sandbox, &redis, said);
        }
        end(&redis);
        has_passed(pair, &redis);
    }
}

#[test]
fn a_server_that_still_loads_its_data_is_waited_for() {
    // So many keys take it some seconds, in which it answers now and then.
    let slow =
        RedisOptions::new().flag("key-load-delay", &["300"]).flag("loading-process-events-interval-bytes", &["1024"]);
    let redis = RedisServer::with(&slow);
    let pair = long_and_short_lease(&redis);
    redis.cli(&["debug", "populate", "20000"]);
    redis.cli(&["save"]);
    redis.kill();
    redis.begin_again();
    until("it listens", || std::net::TcpStream::connect(redis.address()).is_ok());
    newcomer_is_told(&pair.sandbox, &redis, "is still loading its data");
    redis.is_up_again();
    has_passed(pair, &redis);
    // With connections that are kept.
    let pair = long_and_short_lease(&redis);
    redis.begin(&["debug", "reload"]);
    pair.leader.wait_for_log("is still loading its data");
    newcomer_is_told(&pair.sandbox, &redis, "is still loading its data");
    until("it has loaded them", || redis.info("persistence", "loading") == "0");
    has_passed(pair, &redis);
}

#[test]
fn trouble_that_lasts_ends_who_leads_in_time_and_lets_nobody_follow() {
    for ServerError { begin, leader: said, newcomer: _, end } in SERVER_ERRORS {
        retry_if_machine_slow("redis: trouble that lasts", LEASE, |lease| {
            let (redis, ttl) = (RedisServer::start(), written(lease));
            let pair = RedisPair::on(&redis, [&ttl, &ttl]);
            let led = pair.sandbox.history().latest();
            let dead = pair.sandbox.watch_the_end_of(led.pid);
            begin(&redis);
            let struck = now();
            pair.leader.wait_for_log(said);
            let took = dead.join().expect("the watch on the old tree").saturating_sub(struck);
            assert_in_time(took < lease, || format!("within its lease: {took:?}"));
            throughout(lease * 4 / 3, "nobody leads", || pair.sandbox.history().starts.len() == 1);
            end(&redis);
            pair.sandbox.starts(2);
            pair.ends();
        });
    }
}
