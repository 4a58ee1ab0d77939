//! The wall clock of the server, and those of candidates, are stepped by an hour: nothing changes.

use std::time::Duration;

use super::{SHORTLY, elect};
use crate::harness::Sandbox;
use crate::harness::server::StoreServer;
use crate::harness::timing_verdict::{assert_in_time, retry_if_machine_slow, throughout_in_time};
use crate::harness::wait::{now, since, throughout, until};
use crate::harness::wallclock::WallClock;
use crate::leases::candidate_for;
use crate::mongodb::server::{Mongod, MongodOptions, SingleNodeReplicaSet};

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

/// Milliseconds by the server's wall clock.
fn shown(mongod: &Mongod) -> i64 {
    let hello = mongod.admin(::mongodb::bson::doc! { "hello": 1 });
    hello.get_datetime("localTime").expect("a time").timestamp_millis()
}

fn changes_nothing<S: StoreServer>(start: impl Fn(&MongodOptions) -> S, asked: impl Fn(&S) -> &Mongod) {
    retry_if_machine_slow("a wall clock is stepped", Duration::from_secs(3), |lease| {
        steps_change_nothing(&start, &asked, lease);
    });
}

fn steps_change_nothing<S: StoreServer>(
    start: &impl Fn(&MongodOptions) -> S,
    asked: &impl Fn(&S) -> &Mongod,
    lease: Duration,
) {
    let ttl = format!("{}ms", lease.as_millis());
    let (clock, ahead, behind) = (WallClock::new(), WallClock::new(), WallClock::new());
    ahead.step_to(HOUR);
    behind.step_to(-HOUR);
    let server = start(&MongodOptions::new().wrapped_by(clock.words()));
    let sandbox = Sandbox::new();
    let leader = elect(&sandbox, &server, &ttl).wrapped_by(behind.words()).start();
    let led = sandbox.starts(1).latest();
    let next = elect(&sandbox, &server, &ttl).wrapped_by(ahead.words()).start();
    next.wait_until_waiting();
    let mongod = asked(&server);
    let before = shown(mongod);
    for step in [HOUR, -HOUR, 0] {
        clock.step_to(step);
        until("the server's clock is stepped", || ((shown(mongod) - before) / 1000 - step).abs() < HOUR / 6);
        ahead.step_to(-step);
        behind.step_to(step);
        // Longer than a candidate would wait for a record that nobody touches.
        let window = lease + Duration::from_secs(1);
        throughout_in_time(window, "it goes on leading", || sandbox.history().starts.len() == 1);
    }
    assert_in_time(!leader.log().contains("the lease runs out"), || leader.log());
    // Terms rise with a clock that was set back, too.
    clock.step_to(-HOUR);
    leader.terminate();
    assert!(sandbox.starts(2).latest().term > led.term);
    next.terminate();
    sandbox.history().is_safe();
}

#[test]
fn a_set_whose_wall_clock_is_stepped_by_an_hour_changes_nothing() {
    changes_nothing(SingleNodeReplicaSet::with, |set| set);
}

#[test]
fn a_server_alone_whose_wall_clock_is_stepped_by_an_hour_changes_nothing() {
    changes_nothing(Mongod::with, |mongod| mongod);
}

/// Terms follow the server's clock, and the server removes unused records by the same clock (S1).
#[test]
fn terms_rise_although_one_was_taken_by_a_clock_that_was_a_month_ahead_and_the_record_is_cleared_away() {
    // By its own clock the server lives in the past, so that what it waits for until a time of that clock comes at once.
    let clock = WallClock::new();
    clock.step_to(-45 * DAY);
    let server = Mongod::with(&MongodOptions::new().wrapped_by(clock.words()).parameter("ttlMonitorSleepSecs", "1"));
    let goes_on_at = |seconds: i64| {
        clock.step_to(seconds);
        server.restart();
        // Not over a connection from before.
        until("it answers", || server.try_admin(::mongodb::bson::doc! { "ping": 1 }).is_ok());
    };
    let sandbox = Sandbox::new();
    let term = || {
        let elect = candidate_for(&sandbox, server.url_for(&sandbox), "3s").shell("echo $ELECT_TERM");
        let ended = elect.run();
        ended.stdout.trim().parse::<u64>().unwrap_or_else(|error| panic!("{error}: {ended:?}"))
    };
    // The index is created beside the election, and a command that ends at once may not leave it the time.
    let has_expiry = || server.indexes(&sandbox).iter().any(|index| index.contains_key("expireAfterSeconds"));
    until("the server has the index that removes unused records", || {
        // A candidate tries once, for ten seconds at most, which a busy server may need.
        let before = sandbox.history().starts.len();
        let leader = elect(&sandbox, &server, "3s").start();
        sandbox.starts(before + 1);
        let started = now();
        until("it was tried", || has_expiry() || since(started) > Duration::from_secs(12));
        leader.terminate();
        has_expiry()
    });
    let first = term();
    goes_on_at(-15 * DAY);
    let ahead = term();
    assert!(ahead > first + 29 * 24 * 3_600_000, "{ahead} after {first}: by the server's clock");
    // Released by a clock that is right again.
    goes_on_at(-45 * DAY);
    let latest = term();
    assert!(latest > ahead, "{latest} after {ahead}");
    goes_on_at(-37 * DAY);
    throughout(SHORTLY, "the server keeps the record", || server.record(&sandbox).is_some());
    let later = term();
    assert!(later > latest, "{later} after {latest}");
    goes_on_at(0);
    until("the server removes the record", || server.record(&sandbox).is_none());
    let last = term();
    assert!(last > later, "{last} after {later}");
}
