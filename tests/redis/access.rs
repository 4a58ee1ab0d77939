//! Getting in: users, certificates, servers that will not do; and what is said then.

use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::{elect, led_before};
use crate::harness::certificates::Certificates;
use crate::harness::docs_under_test;
use crate::harness::ports::free_port;
use crate::harness::server::{PASSWORD, StoreServer};
use crate::harness::wait::{now, since, throughout};
use crate::harness::{ElectCmd, Ended, Sandbox, Witness, until};
use crate::leases::{candidate, candidate_for, patient};
use crate::pass_credentials::{EVERY_SOURCE, StoreWithUsers};
use crate::redis::server::{RedisOptions, RedisServer};

/// The rules that the manual lists for a user, and no others.
const RULES: [&str; 21] = [
    "on",
    ">correct horse",
    "resetkeys",
    "resetchannels",
    "-@all",
    "~elect:*",
    "&elect:*",
    "+evalsha",
    "+eval",
    "+info",
    "+time",
    "+hget",
    "+hgetall",
    "+hmget",
    "+hset",
    "+publish",
    "+pubsub",
    "+subscribe",
    "+unsubscribe",
    "+wait",
    "+zadd",
];

/// The further rights that the manual lists: for a database number, and for all boundaries at once.
const MORE_RULES: [&str; 4] = ["+select", "+scan", "+zrange", "+zrem"];

#[track_caller]
fn is_refused(ended: &Ended, said: &[&str]) {
    assert_eq!(ended.status.code(), Some(77), "{ended:?}");
    ended.stderr_contains(said);
    let errors = ended.stderr.lines().filter(|line| line.contains("error")).count();
    assert_eq!(errors, 1, "one line: {ended:?}");
    assert!(!ended.stderr.contains(PASSWORD), "{ended:?}");
}

fn with_user() -> RedisServer {
    let redis = RedisServer::start();
    let words: Vec<&str> = ["acl", "setuser", "elect"].into_iter().chain(RULES).chain(MORE_RULES).collect();
    redis.cli(&words);
    redis.cli(&["acl", "setuser", "default", "nopass", "on"]);
    redis
}

#[test]
fn a_user_with_what_the_manual_names_leads_hands_over_and_is_seen() {
    let redis = with_user();
    let sandbox = Sandbox::new();
    let store = format!("redis://elect@{}/2", redis.address());
    let elect = || ElectCmd::new(&sandbox).store(store.clone()).variable("ELECT_PASSWORD", PASSWORD);
    let first = elect().flag("--ttl", "2200ms").command(["true"]).run();
    assert_eq!(first.status.code(), Some(0), "{first:?}");
    let start = || elect().flag("--ttl", "60s").witness(&Witness::new()).start();
    let mut leader = start();
    sandbox.starts(1);
    let next = start();
    next.wait_until_waiting();
    for words in [vec!["cron"], vec![]] {
        let seen = elect().status(&words).run();
        assert!(seen.stdout.contains("cron") && seen.status.success(), "{seen:?}");
    }
    let killed = now();
    leader.signal(Signal::SIGKILL);
    leader.wait();
    sandbox.starts(2);
    assert!(since(killed) < Duration::from_secs(30), "by its keeper, not by the lease: {:?}", since(killed));
    next.terminate();
    sandbox.history().is_safe();
}

#[test]
fn the_manual_names_the_rules_of_that_user() {
    let page = docs_under_test::page("elect-stores.7");
    let block = page.split_once(".\\\" acl\n").expect("its rules").1.split_once(".\\\" end").expect("their end").0;
    let block = docs_under_test::plain(block);
    let (mut named, mut given): (Vec<&str>, Vec<&str>) = (block.split_whitespace().collect(), RULES[2..].to_vec());
    named.sort_unstable();
    given.sort_unstable();
    assert_eq!(named, given);
}

#[test]
fn who_may_not_is_told_so_and_ends() {
    let redis = with_user();
    let sandbox = Sandbox::new();
    let run = |user: &str, password: &str, options: &str| {
        let store = format!("redis://{}{options}", redis.address());
        let elect = ElectCmd::new(&sandbox).store(store).flag("--username", user).variable("ELECT_PASSWORD", password);
        elect.command(["true"]).run()
    };
    is_refused(&run("elect", "wrong", ""), &["does not take this user with this password"]);
    is_refused(&run("nobody", PASSWORD, ""), &["does not take this user with this password"]);
    is_refused(&run("elect", PASSWORD, "?prefix=other:"), &["permission denied"]);
    redis.cli(&["acl", "setuser", "elect", "-info"]);
    is_refused(&run("elect", PASSWORD, ""), &["permission denied", "info"]);
    redis.cli(&["acl", "setuser", "default", "resetpass", ">other"]);
    let none = ElectCmd::new(&sandbox).store(redis.url()).command(["true"]).run();
    is_refused(&none, &["--password-file"]);
}

#[test]
fn a_url_with_a_password_is_taken_as_hosting_providers_write_it_and_never_shown() {
    let redis = with_user();
    let sandbox = Sandbox::new();
    let url = format!("redis://elect:correct%20horse@{}", redis.address());
    let ended = ElectCmd::new(&sandbox)
        .store(None)
        .variable("ELECT_STORE", &url)
        .flag("--ttl", "2200ms")
        .command(["true"])
        .run();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    ended.stderr_contains(&[&format!("campaigning in redis://{}", redis.address())]);
    assert!(!ended.stderr.contains("horse") && !ended.stderr.contains("ps shows"), "{ended:?}");
    let run = |elect: ElectCmd| elect.flag("--ttl", "2200ms").command(["true"]).run();
    let ended = run(ElectCmd::new(&sandbox).store(url.clone()));
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    ended.stderr_contains(&["ps shows the password in --store", "--password-file or ELECT_PASSWORD"]);
    assert!(!ended.stderr.contains("horse"), "{ended:?}");
    // A user's name is no secret.
    let named = ElectCmd::new(&sandbox).store(format!("redis://elect@{}", redis.address()));
    let ended = run(named.variable("ELECT_PASSWORD", PASSWORD));
    assert!(ended.status.success() && !ended.stderr.contains("ps shows"), "{ended:?}");
}

#[test]
fn certificates_of_both_sides_are_shown_and_checked() {
    let certificates = Arc::new(Certificates::new());
    let redis = RedisServer::with(&RedisOptions::new().tls(&certificates));
    let sandbox = Sandbox::new();
    let (client, other) = (certificates.client(), certificates.other_client());
    let with = |elect: ElectCmd, ca: &str, identity: Option<&crate::harness::certificates::CertificateFiles>| {
        let elect = elect.flag("--tls-ca", ca);
        match identity {
            Some(identity) => elect.flag("--tls-cert", &identity.certificate).flag("--tls-key", &identity.key),
            None => elect,
        }
    };
    let first = candidate_for(&sandbox, redis.url(), "2200ms").command(["true"]);
    let first = with(first, &certificates.ca(), Some(&client)).run();
    assert_eq!(first.status.code(), Some(0), "{first:?}");
    let elect = |ca: &str, identity| with(patient(&sandbox, redis.url()).witness(&Witness::new()), ca, identity);
    let mut leader = elect(&certificates.ca(), Some(&client)).start();
    sandbox.starts(1);
    let next = elect(&certificates.ca(), Some(&client)).start();
    next.wait_until_waiting();
    let killed = now();
    leader.signal(Signal::SIGKILL);
    leader.wait();
    sandbox.starts(2);
    assert!(since(killed) < Duration::from_secs(30), "{:?}", since(killed));
    next.terminate();
    is_refused(&elect(&certificates.other_ca(), Some(&client)).run(), &["certificate"]);
    is_refused(&elect(&certificates.ca(), None).run(), &["ertificate"]);
    is_refused(&elect(&certificates.ca(), Some(&other)).run(), &["--tls-cert"]);
    is_refused(&elect("/nonexistent/ca.pem", Some(&client)).run(), &["/nonexistent/ca.pem"]);
    sandbox.history().is_safe();
}

#[test]
fn a_server_that_cannot_hold_elections_is_refused() {
    let sandbox = Sandbox::new();
    let run = |redis: &RedisServer| candidate(&sandbox, redis.url_for(&sandbox)).command(["true"]).run();
    let port = free_port().to_string();
    let cluster =
        RedisServer::with(&RedisOptions::new().flag("cluster-enabled", &["yes"]).flag("cluster-port", &[&port]));
    is_refused(&run(&cluster), &["Redis Cluster"]);
    let evicting = RedisServer::with(&RedisOptions::new().flag("maxmemory-policy", &["allkeys-lru"]));
    is_refused(&run(&evicting), &["maxmemory-policy is allkeys-lru", "noeviction"]);
}

#[test]
fn what_a_server_is_short_of_is_said_and_waited_out() {
    let redis = RedisServer::start();
    let sandbox = Sandbox::new();
    led_before(&sandbox, &redis);
    redis.cli(&["config", "set", "maxmemory", "1"]);
    let candidate = elect(&sandbox, &redis, "3s").start();
    candidate.wait_for_log("out of memory");
    redis.cli(&["config", "set", "maxmemory", "0"]);
    sandbox.starts(1);
    candidate.terminate();
}

#[test]
fn a_server_that_is_not_there_is_waited_for_without_a_storm() {
    let sandbox = Sandbox::new();
    let candidate = candidate(&sandbox, format!("redis://127.0.0.1:{}", free_port())).witness(&Witness::new()).start();
    candidate.wait_for_log("cannot be reached");
    throughout(Duration::from_secs(3), "it keeps trying", || candidate.log().lines().count() <= 3);
    candidate.terminate();
    assert!(sandbox.history().starts.is_empty());
}

#[test]
fn a_server_that_stands_still_is_not_stormed() {
    let redis = RedisServer::start();
    let sandbox = Sandbox::new();
    led_before(&sandbox, &redis);
    let leader = elect(&sandbox, &redis, "3s").start();
    sandbox.starts(1);
    let connections = || redis.info("stats", "total_connections_received").parse::<u64>().expect("a number");
    let before = connections();
    redis.stop();
    let stopped = now();
    leader.wait_for_log("the lease runs out");
    throughout(Duration::from_secs(4), "it does not lead", || sandbox.history().starts.len() == 1);
    let stood = since(stopped).as_secs();
    redis.cont();
    sandbox.starts(2);
    let made = connections() - before;
    println!("figures: redis: server stopped for {stood} s, ttl 3 s: {made} connections by one candidate");
    assert!(made < 5 * (stood + 5), "a storm: {made}");
    leader.terminate();
    sandbox.history().is_safe();
}

#[test]
fn a_permission_that_is_taken_away_later_ends_no_candidacy() {
    let redis = RedisServer::start();
    let sandbox = Sandbox::new();
    redis.cli(&["acl", "setuser", "waiter", "on", ">secret", "~*", "&*", "+@all"]);
    let elect = || ElectCmd::new(&sandbox).store(redis.url_for(&sandbox)).flag("--ttl", "3s").witness(&Witness::new());
    let waiting = || elect().flag("--username", "waiter").variable("ELECT_PASSWORD", "secret");
    let leader = elect().start();
    sandbox.starts(1);
    let waiter = waiting().start();
    waiter.wait_until_waiting();
    redis.cli(&["acl", "setuser", "waiter", "-evalsha", "-eval"]);
    until("it has met the refusal", || waiter.log().contains("ermission"));
    // To those who come now it is final.
    let late = waiting().run();
    assert_eq!(late.status.code(), Some(77), "{late:?}");
    redis.cli(&["acl", "setuser", "waiter", "+@all"]);
    leader.terminate();
    sandbox.starts(2);
    waiter.signal(Signal::SIGTERM);
    waiter.terminate();
    sandbox.history().is_safe();
}

#[test]
fn a_password_in_a_url_that_is_refused_is_not_repeated() {
    let sandbox = Sandbox::new();
    let store = format!("redis://elect:{PASSWORD}@127.0.0.1:1/elect");
    for (source, elect) in crate::secrets::ways_to_name(&sandbox, &store) {
        let ended = elect.run();
        assert!(!format!("{ended:?}").contains(PASSWORD), "{ended:?}");
        ended.fails_with(2, &[source]);
    }
}

#[test]
fn a_command_gets_the_password_only_if_that_is_asked_for() {
    let redis = RedisServer::with(&RedisOptions::new().flag("requirepass", &[PASSWORD]));
    let (place, sources) = (redis.address(), EVERY_SOURCE);
    let store = StoreWithUsers { scheme: "redis", place, user: "default", flags: Vec::new(), sources };
    store.passes_credentials_only_if_asked();
}

#[test]
fn a_command_inherits_the_certificates_of_its_store_with_the_password() {
    let certificates = Arc::new(Certificates::new());
    let redis = RedisServer::with(&RedisOptions::new().tls(&certificates).flag("requirepass", &[PASSWORD]));
    let client = certificates.client();
    let flags = [
        ["--tls-ca".to_owned(), certificates.ca()],
        ["--tls-cert".to_owned(), client.certificate],
        ["--tls-key".to_owned(), client.key],
    ];
    let (place, flags) = (redis.address(), flags.to_vec());
    let store = StoreWithUsers { scheme: "rediss", place, user: "default", flags, sources: EVERY_SOURCE };
    store.passes_credentials_only_if_asked();
}
