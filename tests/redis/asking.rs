//! How long it takes to lead, what is said meanwhile, and what those get who ask only once.

use std::time::Duration;

use super::{elect, key, led_before};
use crate::harness::proxy::{Mode, Proxy};
use crate::harness::redis::{Options, Redis};
use crate::harness::server::Server;
use crate::harness::wait::{now, since, until};
use crate::harness::{Candidate, Elect, Place, Witness, millis};
use crate::leases::{LEASE, candidate, candidate_for, through};

/// From its start to the command's.
fn leads_after(place: &Place, candidate: Elect, starts: usize) -> (Candidate, Duration) {
    let began = now();
    let candidate = candidate.start();
    let started = place.starts(starts).latest();
    (candidate, started.at.saturating_sub(began))
}

#[test]
fn the_time_until_leading_depends_on_what_is_found_and_the_log_says_why() {
    let redis = Redis::with(&Options::new().durable());
    let place = Place::new();
    let tell = |what: &str, took: Duration| println!("figures: redis: ttl 3 s, {what}: leads after {}", millis(took));

    let (one, took) = leads_after(&place, elect(&place, &redis, "3s"), 1);
    tell("no record", took);
    assert!(took >= LEASE, "{took:?}");
    one.says("there is no record of this boundary yet");
    one.stops();

    let (two, took) = leads_after(&place, elect(&place, &redis, "3s"), 2);
    tell("free record", took);
    assert!(took < LEASE / 2, "{took:?}");
    assert!(!two.log().contains("waiting"), "{}", two.log());
    two.kill_with_keeper();
    drop(two);
    let died = now();
    until("its lease is over", || since(died) > LEASE + LEASE / 10);

    let (three, took) = leads_after(&place, elect(&place, &redis, "3s"), 3);
    tell("abandoned record", took);
    assert!(took >= LEASE, "{took:?}");
    three.says("has not renewed its lease");
    three.stops();

    redis.restart();
    let (four, took) = leads_after(&place, elect(&place, &redis, "3s"), 4);
    tell("record of another life of the server", took);
    assert!(took >= LEASE, "{took:?}");
    four.says("may have forgotten a leader");
    four.stops();
    place.history().is_safe();
}

#[test]
fn whoever_asks_only_once_goes_as_soon_as_somebody_is_seen_to_lead() {
    let (redis, place) = (Redis::start(), Place::new());
    led_before(&place, &redis);
    let leader = elect(&place, &redis, "3s").start();
    place.starts(1);
    for ttl in ["3s", "30s"] {
        let began = now();
        let ended = elect(&place, &redis, ttl).switch("-n").run();
        println!("figures: redis: -n with ttl {ttl} beside a leader with ttl 3 s: 75 after {}", millis(since(began)));
        assert_eq!(ended.status.code(), Some(75), "{ended:?}");
        assert!(since(began) < LEASE, "with the leader's next renewal: {:?}", since(began));
        let quiet = elect(&place, &redis, ttl).switch("-q").switch("-n").run();
        assert_eq!((quiet.status.code(), quiet.stderr.as_str()), (Some(75), ""), "silent");
    }
    leader.stops();
    place.history().is_safe();
}

#[test]
fn of_those_who_ask_only_once_one_leads_where_somebody_died_leading() {
    let (redis, place) = (Redis::start(), Place::new());
    let once = || elect(&place, &redis, "3s").switch("-n").start();
    // Nor is there a record at first.
    for round in 1..=2 {
        let mut all = [once(), once(), once()];
        let leader = place.starts(round).latest();
        let mut index = None;
        until("the others have gone", || {
            let leads = |one: &Candidate| one.tree().iter().any(|process| process.pid == leader.pid);
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
    place.history().is_safe();
}

#[test]
fn whoever_waits_for_so_long_waits_no_longer() {
    let (redis, place) = (Redis::start(), Place::new());
    let began = now();
    let ended = elect(&place, &redis, "3s").flag("--wait", "1s").run();
    assert_eq!(ended.status.code(), Some(75), "{ended:?}");
    assert!(since(began) < LEASE, "{:?}", since(began));
    assert!(place.history().starts.is_empty());
}

#[test]
fn a_take_whose_answer_was_lost_is_found_and_not_waited_for() {
    // A replica that stands still has everybody wait for its word after each write: in that time the answer can be lost.
    let (primary, place) = (Redis::start(), Place::new());
    let replica = Redis::with(&Options::new().flag("replicaof", &["127.0.0.1", &primary.port.to_string()]));
    until("the replica follows", || replica.info("replication", "master_link_status") == "up");
    let proxy = Proxy::to(&primary.address());
    led_before(&place, &primary);
    let field = |name: &str| primary.cli(&["hget", &key(&place), name]).trim().to_owned();
    let holder = elect(&place, &primary, "10s").start();
    place.starts(1);
    let held_by = field("id");
    let next = candidate_for(&place, through::<Redis>(&proxy, &place), "10s").witness(&Witness::new()).start();
    next.waits();
    replica.stop();
    holder.stops();
    until("it has taken the record and does not know", || field("state") == "held" && field("id") != held_by);
    proxy.mode(Mode::Closed);
    let taken = field("term");
    assert_eq!(place.history().starts.len(), 1);
    replica.cont();
    proxy.mode(Mode::Open);
    let opened = now();
    place.starts(2);
    println!(
        "figures: redis: the answer to a take was lost, ttl 10 s: leads {} after the way is open",
        millis(since(opened))
    );
    assert!(since(opened) < Duration::from_secs(10), "it does not wait on its own record");
    assert_eq!(field("term"), taken, "it finds its own take");
    next.stops();
    place.history().is_safe();
}

#[test]
fn a_leader_that_was_cut_off_alone_does_not_wait_for_itself() {
    let (redis, place) = (Redis::start(), Place::new());
    let proxy = Proxy::to(&redis.address());
    led_before(&place, &redis);
    let leader = candidate(&place, through::<Redis>(&proxy, &place)).witness(&Witness::new()).start();
    place.starts(1);
    proxy.mode(Mode::Closed);
    leader.says("the lease runs out");
    leader.says("the release was not confirmed");
    proxy.mode(Mode::Open);
    let opened = now();
    place.starts(2);
    println!("figures: redis: alone after an outage: leads again after {}", millis(since(opened)));
    assert!(since(opened) < LEASE, "{:?}", since(opened));
    leader.stops();
    place.history().is_safe();
}
