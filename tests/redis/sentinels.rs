//! Several Sentinels that do not agree: cut off, hostile, silent, or of one mind about a server that is no primary.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::Duration;

use super::led_before;
use crate::harness::certificates::Certificates;
use crate::harness::ports::free_port;
use crate::harness::server::StoreServer;
use crate::harness::wait::{throughout, until};
use crate::harness::{CandidateProcess, ElectCmd, Sandbox, Witness};
use crate::leases::candidate;
use crate::redis::fake_redis::{FakeRedis, FakeReply, as_redis, names};
use crate::redis::server::{RedisOptions, RedisServer};

const PASSWORD: &str = "correct horse";

fn url(sandbox: &Sandbox, sentinels: &[&FakeRedis]) -> String {
    let addresses: Vec<String> = sentinels.iter().map(|sentinel| sentinel.address()).collect();
    sandbox.below(&format!("redis+sentinel://{}/main", addresses.join(",")))
}

fn replica_of(primary: &RedisServer) -> RedisServer {
    let replica = RedisServer::with(&RedisOptions::new().flag("replicaof", &["127.0.0.1", &primary.port.to_string()]));
    until("it follows", || replica.replicates("master_link_status", "up"));
    replica
}

/// A campaign that goes by these Sentinels is won, and the store is read by an observer too.
#[track_caller]
fn is_led(sandbox: &Sandbox, what: &str, sentinels: &[&FakeRedis]) {
    let leader = candidate(sandbox, url(sandbox, sentinels)).witness(&Witness::new()).start();
    until(&format!("somebody leads: {what}"), || !sandbox.history().starts.is_empty());
    // On a busy machine it may be between two terms.
    until(&format!("it is seen to lead: {what}"), || {
        let status = ElectCmd::new(sandbox).store(url(sandbox, sentinels)).status(&["cron"]).run();
        status.status.success() && status.stdout.contains("leads")
    });
    leader.terminate();
    sandbox.history().is_safe();
}

#[test]
fn a_sentinel_that_was_cut_off_is_listed_first_and_names_the_old_primary() {
    let primary = RedisServer::start();
    let replica = replica_of(&primary);
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, free_port())).expect("a free port");
    let silent = FakeRedis::start(|_| FakeReply::Silence);
    let loading = FakeRedis::start(|words| match words[0].as_str() {
        "info" => FakeReply::text("-LOADING Redis is loading the dataset in memory\r\n"),
        _ => as_redis(words),
    });
    let endless = FakeRedis::start(|words| match words[0].as_str() {
        "info" => FakeReply::flood("$2000000000\r\n", "x"),
        _ => as_redis(words),
    });
    let web = FakeRedis::start(|_| FakeReply::text("HTTP/1.1 400 Bad Request\r\n\r\n"));
    let locked = FakeRedis::start(|_| FakeReply::text("-NOAUTH Authentication required.\r\n"));
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
            let sandbox = Sandbox::new();
            led_before(&sandbox, &primary);
            let minority = FakeRedis::sentinel(old, epoch);
            let majority = [(); 2].map(|()| FakeRedis::sentinel(primary.port, 2));
            is_led(&sandbox, &format!("{what}, epoch {epoch}"), &[&minority, &majority[0], &majority[1]]);
        }
    }
}

#[test]
fn sentinels_that_do_not_answer_delay_nobody() {
    let primary = RedisServer::start();
    let good = FakeRedis::sentinel(primary.port, 1);
    let silent = FakeRedis::start(|_| FakeReply::Silence);
    let endless = FakeRedis::start(|_| FakeReply::flood("+", "x"));
    let nonsense = FakeRedis::start(|_| FakeReply::text(":7\r\n"));
    let ignorant = FakeRedis::start(|_| FakeReply::text("*-1\r\n"));
    let odd = FakeRedis::start(|words| names(words, "\u{1b}[2J\r", 1, u64::MAX));
    let others = [&silent, &endless, &nonsense, &ignorant, &odd];
    let sandbox = Sandbox::new();
    led_before(&sandbox, &primary);
    is_led(&sandbox, "all kinds", &[&others[..], &[&good]].concat());
    for (number, other) in others.into_iter().enumerate() {
        let sandbox = Sandbox::new();
        led_before(&sandbox, &primary);
        is_led(&sandbox, &format!("kind {number}"), &[other, other, &good]);
    }
}

#[test]
fn a_sentinel_that_may_not_tell_the_epoch_is_believed_all_the_same() {
    let primary = RedisServer::start();
    let sandbox = Sandbox::new();
    led_before(&sandbox, &primary);
    let port = primary.port;
    let terse = FakeRedis::start(move |words| match words[1].as_str() {
        "master" => FakeReply::text("-NOPERM this user has no permissions to run the 'sentinel|master' command\r\n"),
        _ => names(words, "127.0.0.1", port, 0),
    });
    is_led(&sandbox, "no epoch", &[&terse]);
}

#[test]
fn all_agree_on_a_server_that_is_a_replica_until_it_is_promoted() {
    let primary = RedisServer::start();
    let sandbox = Sandbox::new();
    led_before(&sandbox, &primary);
    let replica = replica_of(&primary);
    let sentinels = [(); 3].map(|()| FakeRedis::sentinel(replica.port, 5));
    let [one, two, three] = &sentinels;
    let leader = candidate(&sandbox, url(&sandbox, &[one, two, three])).witness(&Witness::new()).start();
    leader.wait_for_log("is a replica");
    throughout(Duration::from_secs(4), "nobody leads", || sandbox.history().starts.is_empty());
    // Asked again and again, without a storm.
    assert!(three.seen().len() < 200, "{}", three.seen().len());
    replica.cli(&["replicaof", "no", "one"]);
    sandbox.starts(1);
    leader.terminate();
    sandbox.history().is_safe();
}

#[test]
fn candidates_follow_when_the_sentinels_change_their_minds() {
    let first = RedisServer::start();
    let second = replica_of(&first);
    let sandbox = Sandbox::new();
    led_before(&sandbox, &first);
    let (port, epoch) = (Arc::new(AtomicU16::new(first.port)), Arc::new(AtomicU64::new(1)));
    let minority = FakeRedis::sentinel(first.port, 1);
    let script = {
        let (port, epoch) = (Arc::clone(&port), Arc::clone(&epoch));
        move |words: &[String]| names(words, "127.0.0.1", port.load(Ordering::Relaxed), epoch.load(Ordering::Relaxed))
    };
    let majority = [script.clone(), script].map(FakeRedis::start);
    let store = url(&sandbox, &[&minority, &majority[0], &majority[1]]);
    let start = || candidate(&sandbox, store.clone()).witness(&Witness::new()).start();
    let candidates = [start(), start()];
    let before = sandbox.starts(1).latest();
    second.cli(&["replicaof", "no", "one"]);
    first.cli(&["replicaof", "127.0.0.1", &second.port.to_string()]);
    port.store(second.port, Ordering::Relaxed);
    epoch.store(2, Ordering::Relaxed);
    let key = super::key(&sandbox);
    let renewed = || second.cli(&["hmget", &key, "id", "nonce", "state", "term"]);
    let seen = renewed();
    until("somebody writes to the new primary", || renewed() != seen);
    until("somebody leads", || second.cli(&["hget", &key, "state"]).contains("held"));
    assert!(sandbox.history().latest().term >= before.term);
    candidates.into_iter().for_each(CandidateProcess::terminate);
    sandbox.history().is_safe();
}

#[test]
fn a_waiter_leaves_a_primary_that_was_demoted() {
    let first = RedisServer::start();
    let second = replica_of(&first);
    let sandbox = Sandbox::new();
    led_before(&sandbox, &first);
    let port = Arc::new(AtomicU16::new(first.port));
    let named = Arc::clone(&port);
    let sentinel = FakeRedis::start(move |words| names(words, "127.0.0.1", named.load(Ordering::Relaxed), 1));
    // Its lease is far longer than this test.
    let leader = super::elect(&sandbox, &first, "600s").flag("--renew", "1s").start();
    sandbox.starts(1);
    let next = candidate(&sandbox, url(&sandbox, &[&sentinel])).witness(&Witness::new()).start();
    next.wait_until_waiting();
    second.cli(&["replicaof", "no", "one"]);
    first.cli(&["replicaof", "127.0.0.1", &second.port.to_string()]);
    port.store(second.port, Ordering::Relaxed);
    // It has nothing to write: that the server is a replica it can learn from a read alone.
    let subscribers = || second.cli(&["pubsub", "numsub", &super::key(&sandbox)]);
    until("it listens at the new primary", || subscribers().split_whitespace().last() == Some("1"));
    let watch = ElectCmd::new(&sandbox).store(url(&sandbox, &[&sentinel])).query("watch", &["cron"]).start();
    until("it is seen there", || watch.output().contains("leads"));
    drop((leader, next));
}

#[test]
fn a_password_goes_where_it_was_meant_to_go() {
    let certificates = Arc::new(Certificates::new());
    let primary = RedisServer::with(&RedisOptions::new().tls(&certificates).flag("requirepass", &[PASSWORD]));
    let sandbox = Sandbox::new();
    // Named by a hostile Sentinel, with the highest epoch: a TCP server that cannot prove anything.
    let impostor = FakeRedis::start(as_redis);
    let hostile = FakeRedis::sentinel(impostor.port(), u64::MAX);
    let plain = ElectCmd::new(&sandbox)
        .store(sandbox.below(&format!("rediss+sentinel://{}/main", hostile.address())))
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
    let primary = RedisServer::with(&RedisOptions::new().flag("requirepass", &[PASSWORD]));
    for (option, is_told) in [("", false), ("?sentinel-auth=1", true)] {
        let sentinel = FakeRedis::sentinel(primary.port, 1);
        let sandbox = Sandbox::new();
        let store = format!("redis+sentinel://{}/main{option}", sentinel.address());
        let status = ElectCmd::new(&sandbox).store(store).variable("ELECT_PASSWORD", PASSWORD).status(&["cron"]).run();
        assert!(status.stderr.is_empty() || !status.stderr.contains("error"), "{status:?}");
        assert_eq!(sentinel.has_seen(PASSWORD), is_told, "{option:?}: {:?}", sentinel.seen());
        assert!(sentinel.has_seen("get-master-addr-by-name"));
    }
}
