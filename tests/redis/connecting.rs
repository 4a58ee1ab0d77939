//! Connecting: over a long way, with certificates of every kind, at a socket file, to servers that are none; and what is said then.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use super::fake_redis::{FakeRedis, FakeReply};
use super::server::{RedisOptions, RedisServer};
use super::{elect, led_before};
use crate::harness::certificates::Certificates;
use crate::harness::server::{PASSWORD, StoreServer};
use crate::harness::slow_link::SlowLink;
use crate::harness::{ElectCmd, Sandbox, Witness, run_until_answered};
use crate::leases::{asks_once, candidate};

/// Of a way around half the earth.
const ROUND_TRIP: Duration = Duration::from_millis(250);

/// T6
#[test]
fn a_round_trip_of_250_ms_is_no_reason_to_fail_with_the_default_timings() {
    let redis = RedisServer::start();
    let sandbox = Sandbox::new();
    led_before(&sandbox, &redis);
    let link = SlowLink::to(&redis.address(), ROUND_TRIP);
    let store = sandbox.below(&RedisServer::url_of(&link.address()));
    // It asks once, and connecting does not count as that.
    let once = run_until_answered(|| ElectCmd::new(&sandbox).store(store.clone()).switch("-n").shell("echo led"));
    assert_eq!((once.status.code(), once.stdout.as_str()), (Some(0), "led\n"), "{once:?}");
    let leader = ElectCmd::new(&sandbox).store(store).witness(&Witness::new()).start();
    sandbox.starts(1);
    leader.terminate();
    println!("figures: redis: {} connections for two candidates over 250 ms", link.connections());
    sandbox.history().is_safe();
}

#[test]
fn a_server_that_is_too_slow_for_an_attempt_is_told_with_the_limit_and_the_flag() {
    let redis = RedisServer::start();
    let sandbox = Sandbox::new();
    let link = SlowLink::to(&redis.address(), 4 * ROUND_TRIP);
    let store = RedisServer::url_of(&link.address());
    let elect = ElectCmd::new(&sandbox).store(store).flag("--ttl", "3s").flag("--wait", "8s");
    let ended = elect.command(["true"]).run();
    assert_eq!(ended.status.code(), Some(69), "{ended:?}");
    ended.stderr_contains(&["did not answer in time (300ms)", "--request-timeout"]);
}

/// B14
#[test]
fn a_self_signed_certificate_is_accepted_if_it_is_the_named_one() {
    let certificates = Arc::new(Certificates::new());
    let own = certificates.self_signed();
    let redis = RedisServer::with(&RedisOptions::new().tls_as(&certificates, own.clone()));
    let sandbox = Sandbox::new();
    let ended = candidate(&sandbox, redis.url()).flag("--tls-ca", &own.certificate).command(["true"]).run();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    for other in [certificates.other_self_signed().certificate, certificates.ca()] {
        let ended = asks_once(&sandbox, redis.url()).flag("--tls-ca", &other).command(["true"]).run();
        assert_eq!(ended.status.code(), Some(77), "{ended:?}");
        ended.stderr_contains(&["--tls-ca does not name"]);
    }
}

/// B14b
#[test]
fn a_named_authority_is_enough_where_the_system_has_none() {
    let certificates = Arc::new(Certificates::new());
    let redis = RedisServer::with(&RedisOptions::new().tls_as(&certificates, certificates.server()));
    let sandbox = Sandbox::new();
    let nowhere = |elect: ElectCmd| {
        let elect = elect.variable("SSL_CERT_FILE", "/nonexistent/certificates");
        elect.variable("SSL_CERT_DIR", "/nonexistent").command(["true"])
    };
    let ended = nowhere(candidate(&sandbox, redis.url())).flag("--tls-ca", &certificates.ca()).run();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    let ended = nowhere(asks_once(&sandbox, redis.url())).run();
    assert_eq!(ended.status.code(), Some(77), "{ended:?}");
    ended.stderr_contains(&["no certificate authorities", "--tls-ca"]);
}

#[test]
fn verification_is_skipped_with_a_warning_and_never_beside_an_authority() {
    let certificates = Arc::new(Certificates::new());
    let redis = RedisServer::with(&RedisOptions::new().tls_as(&certificates, certificates.self_signed()));
    let sandbox = Sandbox::new();
    let by_url = format!("{}?ssl_cert_reqs=none", redis.url());
    let skipping = [
        candidate(&sandbox, redis.url()).switch("--tls-skip-verify"),
        candidate(&sandbox, redis.url()).variable("ELECT_TLS_SKIP_VERIFY", "1"),
        candidate(&sandbox, by_url.clone()),
    ];
    for elect in skipping {
        let ended = elect.switch("-q").command(["true"]).run();
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
        ended.stderr_contains(&["is not verified", "--tls-ca"]);
        assert_eq!(ended.stderr.matches("is not verified").count(), 1, "{ended:?}");
    }
    let ca = certificates.ca();
    let both =
        candidate(&sandbox, redis.url()).switch("--tls-skip-verify").flag("--tls-ca", &ca).command(["true"]).run();
    both.stderr_contains(&["--tls-skip-verify", "--tls-ca"]);
    assert_eq!(both.status.code(), Some(2), "{both:?}");
    let both = candidate(&sandbox, by_url).flag("--tls-ca", &ca).command(["true"]).run();
    both.stderr_contains(&["ssl_cert_reqs=none", "--tls-ca"]);
    assert_eq!(both.status.code(), Some(2), "{both:?}");
}

#[test]
fn a_certificate_on_p_521_is_explained_in_words() {
    let certificates = Arc::new(Certificates::new());
    let redis = RedisServer::with(&RedisOptions::new().tls_as(&certificates, certificates.p521()));
    let sandbox = Sandbox::new();
    let ended = candidate(&sandbox, redis.url()).flag("--tls-ca", &certificates.ca()).command(["true"]).run();
    assert_eq!(ended.status.code(), Some(77), "{ended:?}");
    ended.stderr_contains(&["P-521", "P-256"]);
}

#[test]
fn a_certificate_and_a_key_that_do_not_belong_together_are_told_apart() {
    let certificates = Arc::new(Certificates::new());
    let redis = RedisServer::with(&RedisOptions::new().tls(&certificates));
    let sandbox = Sandbox::new();
    let (client, other) = (certificates.client(), certificates.other_client());
    let run = |cert: &str, key: &str| {
        let elect = candidate(&sandbox, redis.url()).flag("--tls-ca", &certificates.ca());
        let ended = elect.flag("--tls-cert", cert).flag("--tls-key", key).command(["true"]).run();
        assert_eq!(ended.status.code(), Some(77), "{ended:?}");
        ended
    };
    run(&client.key, &client.certificate).stderr_contains(&["swapped"]);
    run(&client.certificate, &other.key).stderr_contains(&["of one pair"]);
    let ended = candidate(&sandbox, redis.url()).flag("--tls-ca", &certificates.ca()).command(["true"]).run();
    assert_eq!(ended.status.code(), Some(77), "{ended:?}");
    ended.stderr_contains(&["--tls-cert and --tls-key"]);
}

#[test]
fn a_port_with_tls_and_one_without_are_told_apart() {
    let certificates = Arc::new(Certificates::new());
    let encrypted = RedisServer::with(&RedisOptions::new().tls(&certificates));
    let plain = RedisServer::start();
    let sandbox = Sandbox::new();
    let run = |store: String| candidate(&sandbox, store).switch("-n").command(["true"]).run();
    let ended = asks_once(&sandbox, format!("redis://{}", encrypted.address())).command(["true"]).run();
    ended.stderr_contains(&["rediss://"]);
    let ended = run(format!("rediss://{}", plain.address()));
    ended.stderr_contains(&["redis://"]);
    assert!(!ended.stderr.contains("InvalidContentType"), "{ended:?}");
}

#[test]
fn a_socket_file_holds_elections() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("redis.sock").display().to_string();
    let redis = RedisServer::with(&RedisOptions::new().flag("unixsocket", &[&path]));
    redis.cli(&["acl", "setuser", "elect", "on", &format!(">{PASSWORD}"), "~*", "&*", "+@all"]);
    let sandbox = Sandbox::new();
    let store = format!("redis+unix://elect:correct%20horse@{path}?db=3");
    let start = || candidate(&sandbox, store.clone()).witness(&Witness::new()).start();
    let leader = start();
    sandbox.starts(1);
    let next = start();
    next.wait_until_waiting();
    leader.terminate();
    sandbox.starts(2);
    assert!(!next.log().contains("horse"), "{}", next.log());
    next.terminate();
    sandbox.history().is_safe();
    let gone =
        candidate(&sandbox, "redis+unix:///nonexistent/redis.sock".to_owned()).switch("-n").command(["true"]).run();
    assert_eq!(gone.status.code(), Some(69), "{gone:?}");
    gone.stderr_contains(&["/nonexistent/redis.sock", "no server listens"]);
}

/// B9
#[test]
fn a_server_without_a_command_that_elections_need_is_refused_by_its_name() {
    let sandbox = Sandbox::new();
    for command in ["INFO", "EVAL", "EVALSHA", "SUBSCRIBE"] {
        let redis = RedisServer::with(&RedisOptions::new().flag("rename-command", &[command, ""]));
        let ended = elect(&sandbox, &redis, "3s").run();
        assert_eq!(ended.status.code(), Some(77), "{command}: {ended:?}");
        ended.stderr_contains(&["lacks the command", command]);
    }
    let old = FakeRedis::start(|words| match words[0].as_str() {
        "hello" => FakeReply::text("-ERR unknown command `HELLO`, with args beginning with: `3`, \r\n"),
        _ => FakeReply::text("+OK\r\n"),
    });
    let ended = candidate(&sandbox, format!("redis://{}", old.address())).command(["true"]).run();
    assert_eq!(ended.status.code(), Some(77), "{ended:?}");
    ended.stderr_contains(&["HELLO", "version 6"]);
}

/// 2.5
#[test]
fn a_hostile_server_forges_no_line_and_steers_no_terminal() {
    let sandbox = Sandbox::new();
    for answer in [
        "-ERR unknown command '\u{1b}[2J'\n",
        "-NOAUTH \u{1b}]0;x\u{7}",
        "-WRONGPASS \u{202e}x",
        "-DENIED a\relect: forged",
        "-NOPERM User elect:hunter2 \u{9b}2J",
    ] {
        let reply = format!("{}\r\n", answer.replace('\n', ""));
        let server = FakeRedis::start(move |_| FakeReply::text(&reply));
        let ended = candidate(&sandbox, format!("redis://{}", server.address())).switch("-n").command(["true"]).run();
        assert!(!ended.stderr.chars().any(|c| c != '\n' && (c.is_control() || c == '\u{202e}')), "{ended:?}");
        assert!(!ended.stderr.lines().any(|line| line.starts_with("elect: forged")), "{ended:?}");
    }
}

#[test]
fn a_password_that_is_no_text_is_an_error_that_says_so() {
    let sandbox = Sandbox::new();
    let file = sandbox.path().join("latin-1");
    fs::write(&file, b"p\xe4ss\n").expect("a file");
    let file = file.display().to_string();
    let elect = candidate(&sandbox, "redis://127.0.0.1:1".to_owned()).flag("--password-file", &file);
    elect.command(["true"]).run().fails_with(2, &[&file, "not text: write it in UTF-8"]);
}
