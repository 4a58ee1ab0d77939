//! What becomes of a leader, and of who waits for it, when the server forgets, remembers too much, or stands still. With a
//! leader whose ttl is a minute, and one whose ttl is as long as the candidate's.

use std::time::Duration;

use super::{Pair, SHORTLY, elect, key, led_before};
use crate::harness::redis::{Options, Redis};
use crate::harness::server::Server;
use crate::harness::wait::{now, since, throughout, until};
use crate::harness::wallclock::WallClock;
use crate::harness::{Candidate, Elect, Place, processes};

const LONG_AND_SHORT: [&str; 2] = ["60s", "5s"];
const EQUAL: [&str; 2] = ["3s", "3s"];

/// The leader learns it before anybody else starts.
#[track_caller]
fn learns(pair: &Pair, why: &str) {
    until(why, || pair.leader.log().contains(why) || pair.place.history().starts.len() > 1);
    assert!(pair.leader.log().contains(why), "another one was quicker: {}", pair.leader.log());
}

/// The leader learns with its next renewal that nothing is its own any more. The candidate has seen its ttl, and does not
/// start before that has passed: for a minute nobody does.
#[track_caller]
fn is_lost_and_not_followed_shortly(pair: Pair, why: &str) {
    // Twelve seconds between renewals, at the longest.
    learns(&pair, why);
    let lost = now();
    until("the command is dead", || pair.leader.tree().is_empty());
    throughout(SHORTLY, "nobody starts on a wait of its own ttl", || pair.place.history().starts.len() == 1);
    assert!(since(lost) >= SHORTLY);
    pair.ends();
}

/// With equal ttls somebody leads again soon, under a larger term.
#[track_caller]
fn is_lost_and_followed(pair: Pair, why: &str) {
    learns(&pair, why);
    pair.place.starts(2);
    pair.place.history().is_safe();
    pair.ends();
}

#[track_caller]
fn goes_on_leading(pair: Pair) {
    let led = pair.place.history().latest();
    throughout(SHORTLY, "it goes on leading", || {
        pair.place.history().starts.len() == 1 && processes::is_alive(led.pid)
    });
    pair.ends();
}

#[test]
fn a_server_that_comes_back_with_its_data_demotes_nobody() {
    for ttls in [LONG_AND_SHORT, ["5s", "5s"]] {
        let redis = Redis::with(&Options::new().durable());
        let pair = Pair::on(&redis, ttls);
        redis.restart();
        goes_on_leading(pair);
    }
}

#[test]
fn after_a_restart_even_a_free_record_is_waited_for() {
    let redis = Redis::with(&Options::new().durable());
    let place = Place::new();
    led_before(&place, &redis);
    redis.restart();
    let began = now();
    let leader = elect(&place, &redis, "3s").start();
    leader.says("may have forgotten a leader");
    place.starts(1);
    assert!(since(began) >= Duration::from_secs(3), "{:?}", since(began));
    leader.stops();
    place.history().is_safe();
}

#[test]
fn a_server_that_forgot_everything_is_not_trusted() {
    let redis = Redis::start();
    let pair = Pair::on(&redis, LONG_AND_SHORT);
    redis.restart();
    is_lost_and_not_followed_shortly(pair, "the record is gone");
    let pair = Pair::on(&redis, EQUAL);
    redis.restart();
    is_lost_and_followed(pair, "the record is gone");
}

/// What a snapshot says that is older than the leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Snapshot {
    /// Somebody leads who is alive, and a candidate again.
    NamesAnExLeader,
    NamesNobody,
}

#[track_caller]
fn restart_with(snapshot: Snapshot, redis: &Redis, [first, later]: [&str; 2]) -> (Pair, Candidate) {
    let place = Place::new();
    led_before(&place, redis);
    if snapshot == Snapshot::NamesNobody {
        redis.cli(&["save"]);
    }
    let ex_leader = elect(&place, redis, first).start();
    place.starts(1);
    if snapshot == Snapshot::NamesAnExLeader {
        redis.cli(&["save"]);
    }
    let leader = elect(&place, redis, first).start();
    leader.waits();
    let id = redis.cli(&["hget", &key(&place), "id"]);
    let resign = Elect::new(&place).store(None).asks("resign", &["--boundary", "cron", "--id", id.trim()]).run();
    assert!(resign.status.success(), "{resign:?}");
    leader.says("leader command started");
    let next = elect(&place, redis, later).start();
    next.waits();
    // What it would save now is not what it shall find.
    redis.restart();
    (Pair { place, leader, next }, ex_leader)
}

#[test]
fn a_server_that_comes_back_with_an_old_snapshot_is_not_trusted() {
    for snapshot in [Snapshot::NamesAnExLeader, Snapshot::NamesNobody] {
        for ttls in [LONG_AND_SHORT, EQUAL] {
            let redis = Redis::start();
            let (pair, ex_leader) = restart_with(snapshot, &redis, ttls);
            let starts = || pair.place.history().starts.len();
            until("the leader knows", || pair.leader.log().contains("leadership lost") || starts() > 2);
            assert!(pair.leader.log().contains("leadership lost"), "another one was quicker: {snapshot:?}, {ttls:?}");
            if ttls == EQUAL {
                pair.place.starts(3);
            } else {
                throughout(SHORTLY, "nobody starts on a wait of its own ttl", || starts() == 2);
            }
            assert!(pair.place.history().overlaps.is_empty(), "{snapshot:?}, {ttls:?}");
            ex_leader.stops();
            let Pair { place, leader, next } = pair;
            next.stops();
            leader.stops();
            assert!(place.history().overlaps.is_empty(), "{snapshot:?}, {ttls:?}");
        }
    }
}

type Deletion = fn(&Redis, &Place);

#[test]
fn a_record_that_is_deleted_is_not_replaced_before_its_leader_knows() {
    let redis = Redis::start();
    let deletions: [(&str, Deletion); 2] = [
        ("flushall", |redis, _| drop(redis.cli(&["flushall"]))),
        ("del", |redis, place| drop(redis.cli(&["del", &key(place)]))),
    ];
    for (name, delete) in deletions {
        let pair = Pair::on(&redis, LONG_AND_SHORT);
        delete(&redis, &pair.place);
        println!("figures: redis: {name} under a leader with ttl 60s and a candidate with ttl 5s");
        is_lost_and_not_followed_shortly(pair, "the record is gone");
        let pair = Pair::on(&redis, EQUAL);
        delete(&redis, &pair.place);
        is_lost_and_followed(pair, "the record is gone");
    }
}

#[test]
fn a_key_that_holds_something_else_is_nobodys_and_said_so() {
    let redis = Redis::start();
    for ttls in [LONG_AND_SHORT, EQUAL] {
        let pair = Pair::on(&redis, ttls);
        redis.cli(&["set", &key(&pair.place), "mine"]);
        pair.leader.says("overwritten with something else");
        until("the command is dead", || pair.leader.tree().is_empty());
        pair.next.says("holds something that is not elect's");
        throughout(SHORTLY, "nobody starts", || pair.place.history().starts.len() == 1);
        let late = elect(&pair.place, &redis, "3s").switch("-n").run();
        assert_eq!(late.status.code(), Some(75), "{late:?}");
        if ttls == EQUAL {
            redis.cli(&["del", &key(&pair.place)]);
            pair.place.starts(2);
        }
        pair.ends();
    }
}

#[test]
fn scripts_that_are_forgotten_and_connections_that_are_killed_are_replaced() {
    let redis = Redis::start();
    for ttls in [LONG_AND_SHORT, ["5s", "5s"]] {
        let pair = Pair::on(&redis, ttls);
        redis.cli(&["script", "flush"]);
        for kind in ["normal", "pubsub"] {
            redis.cli(&["client", "kill", "type", kind]);
        }
        goes_on_leading(pair);
    }
}

#[test]
fn a_server_that_stands_still_demotes_whoever_cannot_wait_and_nobody_else() {
    let redis = Redis::start();
    let pauses: [(&str, &[&str]); 2] =
        [("CLIENT PAUSE", &["client", "pause", "4000"]), ("DEBUG SLEEP", &["debug", "sleep", "4"])];
    for (name, pause) in pauses {
        let patient = Pair::on(&redis, LONG_AND_SHORT);
        let pair = Pair::on(&redis, EQUAL);
        redis.cli(pause);
        pair.leader.says("the lease runs out");
        pair.place.starts(2);
        println!("figures: redis: {name} for 4 s: a leader with ttl 3s is demoted, one with ttl 60s is not");
        pair.ends();
        assert_eq!(patient.place.history().starts.len(), 1);
        patient.ends();
    }
}

#[test]
fn wall_clocks_that_are_an_hour_off_or_are_stepped_change_nothing() {
    let (clock, ahead, behind) = (WallClock::new(), WallClock::new(), WallClock::new());
    ahead.step_to(3600);
    behind.step_to(-3600);
    let redis = Redis::with(&Options::new().under(clock.words()));
    let place = Place::new();
    led_before(&place, &redis);
    let leader = elect(&place, &redis, "3s").under(behind.words()).start();
    place.starts(1);
    let next = elect(&place, &redis, "3s").under(ahead.words()).start();
    next.waits();
    let seconds = || redis.cli(&["time"]).lines().next().and_then(|line| line.parse::<u64>().ok()).expect("seconds");
    let before = seconds();
    for step in [3600, -3600] {
        clock.step_to(step);
        until("the server's clock is stepped", || seconds().abs_diff(before) > 3000);
        ahead.step_to(-step);
        behind.step_to(step);
        throughout(SHORTLY, "it goes on leading", || place.history().starts.len() == 1);
    }
    // Terms rise all the same, with a clock that was set back as well.
    leader.stops();
    place.starts(2);
    next.stops();
    place.history().is_safe();
}
