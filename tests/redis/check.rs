//! `elect check` on a Redis: what is left, rules of users, eviction.

use crate::check::{Checked, check};
use crate::harness::server::{PASSWORD, StoreServer};
use crate::harness::{ElectCmd, Sandbox};
use crate::redis::sentinel::Sentinel;
use crate::redis::server::RedisServer;

fn set_user(redis: &RedisServer, name: &str, rules: &[&str]) {
    let password = format!(">{PASSWORD}");
    let words = ["acl", "setuser", name, "on", &password, "&*"];
    let words: Vec<&str> = words.into_iter().chain(rules.iter().copied()).collect();
    redis.cli(&words);
}

#[test]
fn nothing_but_the_free_record_is_left() {
    let redis = RedisServer::start();
    Checked::by(check(&Sandbox::new(), redis.url())).exits_with(0).says("eviction", "ok", &["noeviction"]);
    let keys = redis.cli(&["keys", "*"]);
    let mut keys: Vec<&str> = keys.lines().collect();
    keys.sort_unstable();
    assert_eq!(keys, ["elect:\tindex", "elect:elect-check"], "the record, and the index of boundaries");
    assert_eq!(redis.cli(&["hget", "elect:elect-check", "state"]).trim(), "free");
}

#[test]
fn a_server_that_evicts_is_refused_with_the_setting_to_change() {
    let redis = RedisServer::start();
    redis.cli(&["config", "set", "maxmemory-policy", "allkeys-lru"]);
    let checked = Checked::by(check(&Sandbox::new(), redis.url()));
    checked.exits_with(77).says("store", "fail", &["allkeys-lru", "set noeviction"]);
}

#[test]
fn a_server_whose_memory_is_nearly_used_up_is_named() {
    let redis = RedisServer::start();
    let used = redis.cli(&["info", "memory"]);
    let used = used.lines().find_map(|line| line.trim().strip_prefix("used_memory:")).expect("a field").to_owned();
    let used: u64 = used.parse().expect("bytes");
    redis.cli(&["config", "set", "maxmemory", &(used + used / 20).to_string()]);
    let checked = Checked::by(check(&Sandbox::new(), redis.url()));
    checked.says("eviction", "warn", &["% of maxmemory is used", "raise maxmemory"]);
}

#[test]
fn a_user_of_one_boundary_has_it_read_and_nothing_is_taken() {
    let redis = RedisServer::start();
    set_user(&redis, "cron", &["~elect:cron", "+@all"]);
    let sandbox = Sandbox::new();
    let as_user = || check(&sandbox, redis.url()).flag("--username", "cron").variable("ELECT_PASSWORD", PASSWORD);
    let named = Checked::by(as_user().boundary("cron"));
    named.exits_with(0).says("boundary", "ok", &["cron: no leader"]);
    named.says("takes", "warn", &["nothing was taken", "elect-check", "cron was only read"]);
    assert_eq!(redis.cli(&["keys", "*"]).trim(), "", "nothing was written");
    let unnamed = Checked::by(as_user());
    unnamed.exits_with(77).says("store", "fail", &["permission denied"]);
}

#[test]
fn a_user_that_may_not_write_is_told_what_is_missing() {
    let redis = RedisServer::start();
    set_user(&redis, "reader", &["~elect:*", "+@all", "-wait", "-info"]);
    let sandbox = Sandbox::new();
    let as_user = check(&sandbox, redis.url()).flag("--username", "reader").variable("ELECT_PASSWORD", PASSWORD);
    Checked::by(as_user.boundary("cron")).exits_with(77).says("store", "fail", &["info"]);
}

#[test]
fn replicas_that_confirm_are_in_order_and_too_few_of_them_are_named() {
    let sentinel = Sentinel::start_patient();
    let sandbox = Sandbox::new();
    let checked = Checked::by(check(&sandbox, sandbox.below(&sentinel.url())));
    checked.exits_with(0).says("takes", "ok", &["20 takes"]).says("replicas", "ok", &["2 attached, 2 confirm"]);
    let risky = Checked::by(check(&sandbox, format!("{}?replicas=0&prefix=risky:", sentinel.primary.url())));
    risky.exits_with(0).says("replicas", "warn", &["2 attached, 0 confirm", "?replicas=1"]);
    let short = Checked::by(check(&sandbox, format!("{}?replicas=3&prefix=short:", sentinel.primary.url())));
    short.says("replicas", "fail", &["2 attached, 3 confirm"]);
}

#[test]
fn a_plan_counts_a_look_at_the_record_after_the_loss_of_a_host() {
    let sandbox = Sandbox::new();
    // No server is asked.
    let plan = ElectCmd::new(&sandbox).store("redis://127.0.0.1:1".to_owned());
    let planned = plan.query("plan", &["--ttl", "10s", "--renew", "2s", "--json"]).run();
    assert!(planned.stdout.contains(r#""host_lost":13000}"#), "{planned:?}");
}
