//! What a server answers when it cannot do what it is asked just now: each is waited out, demotes nobody who has time left, and
//! elects nobody. (That scripts are forgotten: see [`super::memory`].)

use std::time::Duration;

use super::{Pair, elect, led_before};
use crate::harness::ports::free_port;
use crate::harness::redis::{Options, Redis};
use crate::harness::server::Server;
use crate::harness::wait::{now, since, throughout, until};
use crate::harness::{Place, processes};

/// A leader that has half a minute to spare, meets whatever comes within a second, and a candidate with less patience.
fn patient(redis: &Redis) -> Pair {
    let place = Place::new();
    led_before(&place, redis);
    let leader = elect(&place, redis, "60s").flag("--renew", "1s").start();
    place.starts(1);
    let next = elect(&place, redis, "5s").start();
    next.waits();
    Pair { place, leader, next }
}

/// Whoever asks only once learns why there is no answer.
#[track_caller]
fn newcomer_is_told(place: &Place, redis: &Redis, said: &str) {
    let ended = elect(place, redis, "10s").switch("-n").run();
    assert_eq!(ended.status.code(), Some(69), "{ended:?}");
    ended.says(&[said]);
}

/// It is over, and nothing has come of it: the leader goes on renewing, and nobody else has led.
#[track_caller]
fn has_passed(pair: Pair, redis: &Redis) {
    let led = pair.place.history().latest();
    let renewals = || redis.cli(&["hget", &super::key(&pair.place), "nonce"]).trim().parse::<u64>().expect("a nonce");
    let before = renewals();
    until("it renews again", || renewals() > before);
    assert!(processes::is_alive(led.pid) && pair.place.history().starts.len() == 1);
    assert!(!pair.leader.log().contains("the lease runs out"), "{}", pair.leader.log());
    pair.ends();
}

/// How a server comes to answer so, what is said then to those who lead and to those who come, and how it is ended.
struct Trouble {
    begin: fn(&Redis),
    leader: &'static str,
    newcomer: Option<&'static str>,
    end: fn(&Redis),
}

fn follow_nobody(redis: &Redis) {
    redis.cli(&["replicaof", "127.0.0.1", &free_port().to_string()]);
}

const TROUBLES: [Trouble; 5] = [
    Trouble {
        begin: follow_nobody,
        leader: "is a replica, and not the primary any more",
        newcomer: Some("is a replica, where nobody can be elected"),
        end: |redis| drop(redis.cli(&["replicaof", "no", "one"])),
    },
    Trouble {
        begin: |redis| {
            redis.cli(&["config", "set", "replica-serve-stale-data", "no"]);
            follow_nobody(redis);
        },
        leader: "is a replica without a primary",
        newcomer: Some("is a replica"),
        end: |redis| drop(redis.cli(&["replicaof", "no", "one"])),
    },
    Trouble {
        begin: |redis| drop(redis.cli(&["config", "set", "maxmemory", "1"])),
        leader: "is out of memory, and takes no writes",
        // It can look, and sees that somebody leads.
        newcomer: None,
        end: |redis| drop(redis.cli(&["config", "set", "maxmemory", "0"])),
    },
    Trouble {
        begin: |redis| drop(redis.cli(&["config", "set", "min-replicas-to-write", "1"])),
        leader: "it has fewer replicas than min-replicas-to-write",
        newcomer: None,
        end: |redis| drop(redis.cli(&["config", "set", "min-replicas-to-write", "0"])),
    },
    Trouble {
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
    for Trouble { begin, leader, newcomer, end } in TROUBLES {
        let redis = Redis::start();
        let pair = patient(&redis);
        begin(&redis);
        pair.leader.says(leader);
        if let Some(said) = newcomer {
            newcomer_is_told(&pair.place, &redis, said);
        }
        end(&redis);
        has_passed(pair, &redis);
    }
}

#[test]
fn a_server_that_still_loads_its_data_is_waited_for() {
    // So many keys take it some seconds, in which it answers now and then.
    let slow = Options::new().flag("key-load-delay", &["300"]).flag("loading-process-events-interval-bytes", &["1024"]);
    let redis = Redis::with(&slow);
    let pair = patient(&redis);
    redis.cli(&["debug", "populate", "20000"]);
    redis.cli(&["save"]);
    redis.kill();
    redis.begin_again();
    until("it listens", || std::net::TcpStream::connect(redis.address()).is_ok());
    newcomer_is_told(&pair.place, &redis, "is still loading its data");
    redis.is_up_again();
    has_passed(pair, &redis);
    // With connections that are kept.
    let pair = patient(&redis);
    redis.begin(&["debug", "reload"]);
    pair.leader.says("is still loading its data");
    newcomer_is_told(&pair.place, &redis, "is still loading its data");
    until("it has loaded them", || redis.info("persistence", "loading") == "0");
    has_passed(pair, &redis);
}

#[test]
fn trouble_that_lasts_ends_who_leads_in_time_and_lets_nobody_follow() {
    for Trouble { begin, leader: said, newcomer: _, end } in TROUBLES {
        let redis = Redis::start();
        let pair = Pair::on(&redis, ["3s", "3s"]);
        begin(&redis);
        let struck = now();
        pair.leader.says(said);
        until("the command is dead", || pair.leader.tree().is_empty());
        assert!(since(struck) < Duration::from_secs(3), "within its lease: {:?}", since(struck));
        throughout(Duration::from_secs(4), "nobody leads", || pair.place.history().starts.len() == 1);
        end(&redis);
        pair.place.starts(2);
        pair.ends();
    }
}
