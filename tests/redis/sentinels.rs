//! Several Sentinels that do not agree: cut off, hostile, silent, or of one mind about a server that is no primary.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::Duration;

use super::led_before;
use crate::harness::certificates::Certificates;
use crate::harness::fake_redis::{Answer, FakeRedis, as_redis, names};
use crate::harness::ports::free_port;
use crate::harness::redis::{Options, Redis};
use crate::harness::server::Server;
use crate::harness::wait::{throughout, until};
use crate::harness::{Candidate, Elect, Place, Witness};
use crate::leases::candidate;

const PASSWORD: &str = "correct horse";

fn url(place: &Place, sentinels: &[&FakeRedis]) -> String {
    let addresses: Vec<String> = sentinels.iter().map(|sentinel| sentinel.address()).collect();
    place.below(&format!("redis+sentinel://{}/main", addresses.join(",")))
}

fn replica_of(primary: &Redis) -> Redis {
    let replica = Redis::with(&Options::new().flag("replicaof", &["127.0.0.1", &primary.port.to_string()]));
    until("it follows", || replica.info("replication", "master_link_status") == "up");
    replica
}

/// A campaign that goes by these Sentinels is won, and the store is read by an observer too.
#[track_caller]
fn is_led(place: &Place, what: &str, sentinels: &[&FakeRedis]) {
    let leader = candidate(place, url(place, sentinels)).witness(&Witness::new()).start();
    until(&format!("somebody leads: {what}"), || !place.history().starts.is_empty());
    let status = Elect::new(place).store(url(place, sentinels)).status(&["cron"]).run();
    assert!(status.status.success() && status.stdout.contains("leads"), "{what}: {status:?}");
    leader.stops();
    place.history().is_safe();
}

#[test]
fn a_sentinel_that_was_cut_off_is_listed_first_and_names_the_old_primary() {
    let primary = Redis::start();
    let replica = replica_of(&primary);
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, free_port())).expect("a free port");
    let silent = FakeRedis::start(|_| Answer::Silence);
    let loading = FakeRedis::start(|words| match words[0].as_str() {
        "info" => Answer::text("-LOADING Redis is loading the dataset in memory\r\n"),
        _ => as_redis(words),
    });
    let endless = FakeRedis::start(|words| match words[0].as_str() {
        "info" => Answer::flood("$2000000000\r\n", "x"),
        _ => as_redis(words),
    });
    let web = FakeRedis::start(|_| Answer::text("HTTP/1.1 400 Bad Request\r\n\r\n"));
    let locked = FakeRedis::start(|_| Answer::text("-NOAUTH Authentication required.\r\n"));
    let port = closed.local_addr().expect("it is bound").port();
    drop(closed);
    for (what, old) in [
        ("a replica", replica.port),
        ("a closed port", port),
        ("a server that hangs", silent.port()),
        ("a server that loads its data", loading.port()),
        ("a server without an end", endless.port()),
        ("a server of another protocol", web.port()),
        ("a server that does not let us in", locked.port()),
    ] {
        for epoch in [1, u64::MAX] {
            let place = Place::new();
            led_before(&place, &primary);
            let minority = FakeRedis::sentinel(old, epoch);
            let majority = [(); 2].map(|()| FakeRedis::sentinel(primary.port, 2));
            is_led(&place, &format!("{what}, epoch {epoch}"), &[&minority, &majority[0], &majority[1]]);
        }
    }
}

#[test]
fn sentinels_that_do_not_answer_delay_nobody() {
    let primary = Redis::start();
    let good = FakeRedis::sentinel(primary.port, 1);
    let silent = FakeRedis::start(|_| Answer::Silence);
    let endless = FakeRedis::start(|_| Answer::flood("+", "x"));
    let nonsense = FakeRedis::start(|_| Answer::text(":7\r\n"));
    let ignorant = FakeRedis::start(|_| Answer::text("*-1\r\n"));
    let odd = FakeRedis::start(|words| names(words, "\u{1b}[2J\r", 1, u64::MAX));
    let others = [&silent, &endless, &nonsense, &ignorant, &odd];
    let place = Place::new();
    led_before(&place, &primary);
    is_led(&place, "all kinds", &[&others[..], &[&good]].concat());
    for (number, other) in others.into_iter().enumerate() {
        let place = Place::new();
        led_before(&place, &primary);
        is_led(&place, &format!("kind {number}"), &[other, other, &good]);
    }
}

#[test]
fn a_sentinel_that_may_not_tell_the_epoch_is_believed_all_the_same() {
    let primary = Redis::start();
    let place = Place::new();
    led_before(&place, &primary);
    let port = primary.port;
    let terse = FakeRedis::start(move |words| match words[1].as_str() {
        "master" => Answer::text("-NOPERM this user has no permissions to run the 'sentinel|master' command\r\n"),
        _ => names(words, "127.0.0.1", port, 0),
    });
    is_led(&place, "no epoch", &[&terse]);
}

#[test]
fn all_agree_on_a_server_that_is_a_replica_until_it_is_promoted() {
    let primary = Redis::start();
    let place = Place::new();
    led_before(&place, &primary);
    let replica = replica_of(&primary);
    let sentinels = [(); 3].map(|()| FakeRedis::sentinel(replica.port, 5));
    let [one, two, three] = &sentinels;
    let leader = candidate(&place, url(&place, &[one, two, three])).witness(&Witness::new()).start();
    leader.says("is a replica");
    throughout(Duration::from_secs(4), "nobody leads", || place.history().starts.is_empty());
    // Asked again and again, without a storm.
    assert!(three.seen().len() < 200, "{}", three.seen().len());
    replica.cli(&["replicaof", "no", "one"]);
    place.starts(1);
    leader.stops();
    place.history().is_safe();
}

#[test]
fn candidates_follow_when_the_sentinels_change_their_minds() {
    let first = Redis::start();
    let second = replica_of(&first);
    let place = Place::new();
    led_before(&place, &first);
    let (port, epoch) = (Arc::new(AtomicU16::new(first.port)), Arc::new(AtomicU64::new(1)));
    let minority = FakeRedis::sentinel(first.port, 1);
    let script = {
        let (port, epoch) = (Arc::clone(&port), Arc::clone(&epoch));
        move |words: &[String]| names(words, "127.0.0.1", port.load(Ordering::Relaxed), epoch.load(Ordering::Relaxed))
    };
    let majority = [script.clone(), script].map(FakeRedis::start);
    let store = url(&place, &[&minority, &majority[0], &majority[1]]);
    let start = || candidate(&place, store.clone()).witness(&Witness::new()).start();
    let candidates = [start(), start()];
    let before = place.starts(1).latest();
    second.cli(&["replicaof", "no", "one"]);
    first.cli(&["replicaof", "127.0.0.1", &second.port.to_string()]);
    port.store(second.port, Ordering::Relaxed);
    epoch.store(2, Ordering::Relaxed);
    let key = super::key(&place);
    let renewed = || second.cli(&["hmget", &key, "id", "nonce", "state", "term"]);
    let seen = renewed();
    until("somebody writes to the new primary", || renewed() != seen);
    until("somebody leads", || second.cli(&["hget", &key, "state"]).contains("held"));
    assert!(place.history().latest().term >= before.term);
    candidates.into_iter().for_each(Candidate::stops);
    place.history().is_safe();
}

#[test]
fn a_waiter_leaves_a_primary_that_was_demoted() {
    let first = Redis::start();
    let second = replica_of(&first);
    let place = Place::new();
    led_before(&place, &first);
    let port = Arc::new(AtomicU16::new(first.port));
    let named = Arc::clone(&port);
    let sentinel = FakeRedis::start(move |words| names(words, "127.0.0.1", named.load(Ordering::Relaxed), 1));
    // Its lease is far longer than this test.
    let leader = super::elect(&place, &first, "600s").flag("--renew", "1s").start();
    place.starts(1);
    let next = candidate(&place, url(&place, &[&sentinel])).witness(&Witness::new()).start();
    next.waits();
    second.cli(&["replicaof", "no", "one"]);
    first.cli(&["replicaof", "127.0.0.1", &second.port.to_string()]);
    port.store(second.port, Ordering::Relaxed);
    // It has nothing to write: that the server is a replica it can learn from a read alone.
    let subscribers = || second.cli(&["pubsub", "numsub", &super::key(&place)]);
    until("it listens at the new primary", || subscribers().split_whitespace().last() == Some("1"));
    let watch = Elect::new(&place).store(url(&place, &[&sentinel])).asks("watch", &["cron"]).start();
    until("it is seen there", || watch.output().contains("leads"));
    drop((leader, next));
}

#[test]
fn a_password_goes_where_it_was_meant_to_go() {
    let certificates = Arc::new(Certificates::new());
    let primary = Redis::with(&Options::new().tls(&certificates).flag("requirepass", &[PASSWORD]));
    let place = Place::new();
    // Named by a hostile Sentinel, with the highest epoch: a TCP server that cannot prove anything.
    let impostor = FakeRedis::start(as_redis);
    let hostile = FakeRedis::sentinel(impostor.port(), u64::MAX);
    let plain = Elect::new(&place)
        .store(place.below(&format!("rediss+sentinel://{}/main", hostile.address())))
        .flag("--tls-ca", &certificates.ca())
        .variable("ELECT_PASSWORD", PASSWORD)
        .switch("-n")
        .command(["true"])
        .run();
    assert!(!plain.status.success(), "{plain:?}");
    // Its own address is of a server without a certificate.
    assert!(hostile.seen().is_empty() && impostor.seen().is_empty(), "not a command before the certificate");
    drop(primary);
}

#[test]
fn a_sentinel_gets_the_password_only_if_that_is_said() {
    let primary = Redis::with(&Options::new().flag("requirepass", &[PASSWORD]));
    for (option, is_told) in [("", false), ("?sentinel-auth=1", true)] {
        let sentinel = FakeRedis::sentinel(primary.port, 1);
        let place = Place::new();
        let store = format!("redis+sentinel://{}/main{option}", sentinel.address());
        let status = Elect::new(&place).store(store).variable("ELECT_PASSWORD", PASSWORD).status(&["cron"]).run();
        assert!(status.stderr.is_empty() || !status.stderr.contains("error"), "{status:?}");
        assert_eq!(sentinel.has_seen(PASSWORD), is_told, "{option:?}: {:?}", sentinel.seen());
        assert!(sentinel.has_seen("get-master-addr-by-name"));
    }
}
