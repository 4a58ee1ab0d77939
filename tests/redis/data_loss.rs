//! A leader and its waiters when the server forgets, restores an old state, or hangs. With a
//! leader whose ttl is a minute, and one whose ttl is as long as the candidate's.

use std::time::Duration;

use super::{RedisPair, SHORTLY, elect, key, led_before};
use crate::harness::server::StoreServer;
use crate::harness::timing_verdict::{assert_in_time, retry_if_machine_slow, throughout_in_time};
use crate::harness::wait::{now, since, throughout, until};
use crate::harness::wallclock::WallClock;
use crate::harness::{CandidateProcess, ElectCmd, Sandbox, processes};
use crate::leases::{LEASE, asks_once, written};
use crate::redis::server::{RedisOptions, RedisServer};

const LONG_AND_SHORT: [&str; 2] = ["60s", "5s"];
const EQUAL: [&str; 2] = ["3s", "3s"];

/// Whether the leader learns it before anybody else starts.
#[track_caller]
fn learns(pair: &RedisPair, why: &str) -> bool {
    until(why, || pair.leader.log().contains(why) || pair.sandbox.history().starts.len() > 1);
    pair.leader.log().contains(why)
}

/// The leader learns with its next renewal that nothing is its own any more. The candidate has seen its ttl, and does not
/// start before that has passed: for a minute nobody does.
#[track_caller]
fn is_lost_and_not_followed_shortly(pair: RedisPair, why: &str) {
    // Twelve seconds between renewals, at the longest.
    assert!(learns(&pair, why), "another one was quicker: {}", pair.leader.log());
    let lost = now();
    until("the command is dead", || pair.leader.tree().is_empty());
    throughout(SHORTLY, "nobody starts on a wait of its own ttl", || pair.sandbox.history().starts.len() == 1);
    assert!(since(lost) >= SHORTLY);
    pair.ends();
}

/// With equal ttls somebody leads again soon, under a larger term.
fn is_lost_and_followed(redis: &RedisServer, why: &str, strike: impl Fn(&RedisServer, &Sandbox)) {
    retry_if_machine_slow(&format!("redis: {why}, equal ttls"), LEASE, |lease| {
        let ttl = written(lease);
        let pair = RedisPair::on(redis, [&ttl, &ttl]);
        strike(redis, &pair.sandbox);
        assert_in_time(learns(&pair, why), || format!("another one was quicker: {}", pair.leader.log()));
        pair.sandbox.starts(2);
        pair.sandbox.history().is_safe();
        pair.ends();
    });
}

/// The leader goes on, with a lease of a minute, and with one as long as the candidate's.
fn demotes_nobody(what: &str, options: &RedisOptions, strike: impl Fn(&RedisServer)) {
    for leader in [Some("60s"), None] {
        retry_if_machine_slow(what, Duration::from_secs(5), |lease| {
            let (redis, ttl) = (RedisServer::with(options), written(lease));
            let pair = RedisPair::on(&redis, [leader.unwrap_or(&ttl), &ttl]);
            let led = pair.sandbox.history().latest();
            strike(&redis);
            // Longer than the candidate would wait for a record that nobody renews.
            throughout_in_time(lease * 7 / 5, "it goes on leading", || {
                pair.sandbox.history().starts.len() == 1 && processes::is_alive(led.pid)
            });
            pair.ends();
        });
    }
}

#[test]
fn a_server_that_comes_back_with_its_data_demotes_nobody() {
    demotes_nobody("redis: a restart with the data", &RedisOptions::new().durable(), RedisServer::restart);
}

#[test]
fn after_a_restart_even_a_free_record_is_waited_for() {
    let redis = RedisServer::with(&RedisOptions::new().durable());
    let sandbox = Sandbox::new();
    led_before(&sandbox, &redis);
    redis.restart();
    let began = now();
    let leader = elect(&sandbox, &redis, "3s").start();
    leader.wait_for_log("may have forgotten a leader");
    sandbox.starts(1);
    assert!(since(began) >= Duration::from_secs(3), "{:?}", since(began));
    leader.terminate();
    sandbox.history().is_safe();
}

#[test]
fn a_server_that_forgot_everything_is_not_trusted() {
    let redis = RedisServer::start();
    let pair = RedisPair::on(&redis, LONG_AND_SHORT);
    redis.restart();
    is_lost_and_not_followed_shortly(pair, "the record is gone");
    is_lost_and_followed(&redis, "the record is gone", |redis, _| redis.restart());
}

/// The record in a snapshot that is older than the leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RdbSnapshot {
    /// The leader is alive, and a candidate again.
    NamesAnExLeader,
    NamesNobody,
}

#[track_caller]
fn restart_with(
    snapshot: RdbSnapshot,
    redis: &RedisServer,
    [first, later]: [&str; 2],
) -> (RedisPair, CandidateProcess) {
    let sandbox = Sandbox::new();
    led_before(&sandbox, redis);
    if snapshot == RdbSnapshot::NamesNobody {
        redis.cli(&["save"]);
    }
    let ex_leader = elect(&sandbox, redis, first).start();
    sandbox.starts(1);
    if snapshot == RdbSnapshot::NamesAnExLeader {
        redis.cli(&["save"]);
    }
    let leader = elect(&sandbox, redis, first).start();
    leader.wait_until_waiting();
    let id = redis.cli(&["hget", &key(&sandbox), "id"]);
    let resign = ElectCmd::new(&sandbox).store(None).query("resign", &["--boundary", "cron", "--id", id.trim()]).run();
    assert!(resign.status.success(), "{resign:?}");
    leader.wait_for_log("leader command started");
    let next = elect(&sandbox, redis, later).start();
    next.wait_until_waiting();
    // The server must find the old snapshot, not one that it saves now.
    redis.restart();
    (RedisPair { sandbox, leader, next }, ex_leader)
}

#[test]
fn a_server_that_comes_back_with_an_old_snapshot_is_not_trusted() {
    for snapshot in [RdbSnapshot::NamesAnExLeader, RdbSnapshot::NamesNobody] {
        for are_equal in [false, true] {
            retry_if_machine_slow(&format!("redis: {snapshot:?}, equal ttls {are_equal}"), LEASE, |lease| {
                let ttl = written(lease);
                comes_back_with(snapshot, if are_equal { [&ttl, &ttl] } else { LONG_AND_SHORT }, are_equal);
            });
        }
    }
}

fn comes_back_with(snapshot: RdbSnapshot, ttls: [&str; 2], are_equal: bool) {
    let redis = RedisServer::start();
    let (pair, ex_leader) = restart_with(snapshot, &redis, ttls);
    let starts = || pair.sandbox.history().starts.len();
    until("the leader knows", || pair.leader.log().contains("leadership lost") || starts() > 2);
    let knows = pair.leader.log().contains("leadership lost");
    assert_in_time(knows, || format!("another one was quicker: {snapshot:?}, {ttls:?}"));
    if are_equal {
        pair.sandbox.starts(3);
    } else {
        throughout(SHORTLY, "nobody starts on a wait of its own ttl", || starts() == 2);
    }
    assert!(pair.sandbox.history().overlaps.is_empty(), "{snapshot:?}, {ttls:?}");
    ex_leader.terminate();
    let RedisPair { sandbox, leader, next } = pair;
    next.terminate();
    leader.terminate();
    assert!(sandbox.history().overlaps.is_empty(), "{snapshot:?}, {ttls:?}");
}

type Deletion = fn(&RedisServer, &Sandbox);

#[test]
fn a_record_that_is_deleted_is_not_replaced_before_its_leader_knows() {
    let redis = RedisServer::start();
    let deletions: [(&str, Deletion); 2] = [
        ("flushall", |redis, _| drop(redis.cli(&["flushall"]))),
        ("del", |redis, sandbox| drop(redis.cli(&["del", &key(sandbox)]))),
    ];
    for (name, delete) in deletions {
        let pair = RedisPair::on(&redis, LONG_AND_SHORT);
        delete(&redis, &pair.sandbox);
        println!("figures: redis: {name} under a leader with ttl 60s and a candidate with ttl 5s");
        is_lost_and_not_followed_shortly(pair, "the record is gone");
        is_lost_and_followed(&redis, "the record is gone", delete);
    }
}

#[test]
fn a_key_that_holds_something_else_is_nobodys_and_said_so() {
    let redis = RedisServer::start();
    for ttls in [LONG_AND_SHORT, EQUAL] {
        let pair = RedisPair::on(&redis, ttls);
        redis.cli(&["set", &key(&pair.sandbox), "mine"]);
        pair.leader.wait_for_log("overwritten with something else");
        until("the command is dead", || pair.leader.tree().is_empty());
        pair.next.wait_for_log("holds something that is not elect's");
        throughout(SHORTLY, "nobody starts", || pair.sandbox.history().starts.len() == 1);
        let late = asks_once(&pair.sandbox, redis.url_for(&pair.sandbox)).command(["true"]).run();
        assert_eq!(late.status.code(), Some(75), "{late:?}");
        if ttls == EQUAL {
            redis.cli(&["del", &key(&pair.sandbox)]);
            pair.sandbox.starts(2);
        }
        pair.ends();
    }
}

#[test]
fn a_lock_key_of_another_program_is_shown_with_its_holder_and_never_written_to() {
    let redis = RedisServer::start();
    let sandbox = Sandbox::new();
    let held = ["set", &key(&sandbox), "web-7", "nx", "px", "600000"];
    // As DoNewsCode's driver and redis-py take it.
    redis.cli(&held);
    let waiter = elect(&sandbox, &redis, "3s").start();
    waiter.wait_for_log("not elect's, but a lock key");
    let said = "web-7 holds it for another ";
    assert!(waiter.log().contains(said), "{}", waiter.log());
    let once = asks_once(&sandbox, redis.url_for(&sandbox)).command(["true"]).run();
    assert_eq!(once.status.code(), Some(75), "{once:?}");
    let seen = ElectCmd::new(&sandbox).store(redis.url_for(&sandbox)).status(&["cron"]).run();
    assert!(seen.stdout.contains("web-7 holds it"), "{seen:?}");
    assert_eq!(redis.calls("get"), 0, "a large value would be copied");
    assert_eq!(redis.cli(&["get", &key(&sandbox)]).trim(), "web-7", "left as it was");
    assert!(sandbox.history().starts.is_empty());
    redis.cli(&["del", &key(&sandbox)]);
    sandbox.starts(1);
    waiter.terminate();
    sandbox.history().is_safe();
}

#[test]
fn a_text_of_another_program_that_may_be_secret_is_not_shown() {
    let redis = RedisServer::start();
    let sandbox = Sandbox::new();
    let seen = |words: &[&str]| {
        redis.cli(words);
        let status = ElectCmd::new(&sandbox).store(redis.url_for(&sandbox)).status(&["cron"]).run();
        assert!(status.stdout.contains("not elect's"), "{status:?}");
        status.stdout
    };
    let key = key(&sandbox);
    // A token of redis-py releases its lock; a setting has no time to live.
    let token = "0123456789abcdef0123456789abcdef";
    let long = "web-7".repeat(20);
    for (text, is_lock) in [(token, true), ("{\"password\":\"hunter2\"}", true), (&long, true), ("hunter2", false)] {
        let shown = seen(&if is_lock { vec!["set", &key, text, "px", "600000"] } else { vec!["set", &key, text] });
        assert!(!shown.contains(text) && !shown.contains("hunter2") && !shown.contains("web-7web-7"), "{shown}");
        assert_eq!(shown.contains("a lock key"), is_lock, "{shown}");
    }
}

#[test]
fn scripts_that_are_forgotten_and_connections_that_are_killed_are_replaced() {
    demotes_nobody("redis: scripts and connections gone", &RedisOptions::new(), |redis| {
        redis.cli(&["script", "flush"]);
        for kind in ["normal", "pubsub"] {
            redis.cli(&["client", "kill", "type", kind]);
        }
    });
}

#[test]
fn a_server_that_stands_still_demotes_whoever_cannot_wait_and_nobody_else() {
    let redis = RedisServer::start();
    let pauses: [(&str, &[&str]); 2] =
        [("CLIENT PAUSE", &["client", "pause", "4000"]), ("DEBUG SLEEP", &["debug", "sleep", "4"])];
    for (name, pause) in pauses {
        let long_lease = RedisPair::on(&redis, LONG_AND_SHORT);
        let pair = RedisPair::on(&redis, EQUAL);
        redis.cli(pause);
        pair.leader.wait_for_log("the lease runs out");
        pair.sandbox.starts(2);
        println!("figures: redis: {name} for 4 s: a leader with ttl 3s is demoted, one with ttl 60s is not");
        pair.ends();
        assert_eq!(long_lease.sandbox.history().starts.len(), 1);
        long_lease.ends();
    }
}

#[test]
fn wall_clocks_that_are_an_hour_off_or_are_stepped_change_nothing() {
    retry_if_machine_slow("wall clocks are stepped", Duration::from_secs(3), steps_change_nothing);
}

fn steps_change_nothing(lease: Duration) {
    let ttl = format!("{}ms", lease.as_millis());
    let (clock, ahead, behind) = (WallClock::new(), WallClock::new(), WallClock::new());
    ahead.step_to(3600);
    behind.step_to(-3600);
    let redis = RedisServer::with(&RedisOptions::new().wrapped_by(clock.words()));
    let sandbox = Sandbox::new();
    led_before(&sandbox, &redis);
    let leader = elect(&sandbox, &redis, &ttl).wrapped_by(behind.words()).start();
    sandbox.starts(1);
    let next = elect(&sandbox, &redis, &ttl).wrapped_by(ahead.words()).start();
    next.wait_until_waiting();
    let seconds = || redis.cli(&["time"]).lines().next().and_then(|line| line.parse::<u64>().ok()).expect("seconds");
    let before = seconds();
    for step in [3600, -3600] {
        clock.step_to(step);
        until("the server's clock is stepped", || seconds().abs_diff(before) > 3000);
        ahead.step_to(-step);
        behind.step_to(step);
        throughout_in_time(lease * 2 + Duration::from_secs(1), "it goes on leading", || {
            sandbox.history().starts.len() == 1
        });
    }
    // Terms rise with a clock that was set back, too.
    leader.terminate();
    sandbox.starts(2);
    next.terminate();
    sandbox.history().is_safe();
}
