//! Input from other programs that is too large, or would steer a terminal: it stops nothing, and reaches nobody as it is
//! (DESIGN.md 2.5).

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use nix::sys::signal::Signal;

use crate::harness::{CandidateProcess, ElectCmd, Sandbox, Witness, until};

/// More than the keeper takes in one message.
const HUGE: usize = 70_000;
/// As much as a pipe takes in one piece.
const LINE_BYTES_MAX: usize = 4096;
/// It clears the screen, ends the line and begins another one.
const EVIL: &str = "web-1\u{1b}[2J\u{9b}2J\r\n2026-11-20T17:00:00.123Z elect: elected term=9";

/// Every line begins as elect's lines do, is of limited size, and steers no terminal.
#[track_caller]
fn is_plain(text: &str) {
    // A carriage return is no end of a line here.
    for line in text.split('\n') {
        assert!(line.len() < LINE_BYTES_MAX, "{} bytes: {line:.200}", line.len());
        assert!(!line.chars().any(char::is_control), "{line:?}");
        assert!(!line.starts_with("2026-11-20T17:00:00.123Z"), "forged: {line:?}");
    }
}

/// The same of a log, of which each line begins with a time of its own.
#[track_caller]
fn is_plain_log(text: &str) {
    is_plain(text);
    for line in text.lines() {
        assert!(line.get(20..).is_some_and(|rest| rest.contains("Z elect: ")), "forged, or cut short: {line:?}");
    }
}

/// With a program for everything that a leader's name is told to.
fn curious(elect: ElectCmd) -> ElectCmd {
    elect.flag("--follower", &Witness::new().follower().line()).flag("--on-change", "true").witness(&Witness::new())
}

/// It has seen the record, and is shown to hold on: its command starts as soon as the boundary is free.
#[track_caller]
fn outlives(sandbox: &Sandbox, candidate: CandidateProcess, free: impl FnOnce()) {
    candidate.wait_for_log("waiting: ");
    free();
    until("it leads in the end", || !sandbox.history().starts.is_empty());
    is_plain_log(&candidate.log());
    candidate.terminate();
    sandbox.history().is_safe();
}

#[test]
fn a_huge_host_in_a_record_of_the_file_store_wedges_no_candidate() {
    let sandbox = Sandbox::new();
    let first = ElectCmd::new(&sandbox).flag("--advertise", "10.0.0.5:8080").command(["true"]).run();
    assert_eq!(first.status.code(), Some(0), "{first:?}");
    let record = fs::read_to_string(sandbox.record()).expect("a record");
    let huge = record.replace("10.0.0.5", &"h".repeat(33_000)).replace("\"free\"", "\"held\"");
    assert_ne!(huge.len(), record.len(), "{record}");
    let lock = sandbox.lock_file().display().to_string();
    let holder = ElectCmd::new(&sandbox).program(["flock", &lock]).shell("echo held; exec sleep 600").start();
    until("flock has the lock", || holder.output().contains("held"));
    fs::write(sandbox.record(), huge).expect("a record of ours");
    let seen = ElectCmd::new(&sandbox).status(&["cron"]).run();
    assert!(matches!(seen.status.code(), Some(0 | 3)), "{seen:.300?}");
    let all = ElectCmd::new(&sandbox).status(&[]).run();
    assert_eq!(all.status.code(), Some(0), "{all:.300?}");
    let candidate = curious(ElectCmd::new(&sandbox)).start();
    outlives(&sandbox, candidate, || {
        fs::write(sandbox.record(), &record).expect("a record of ours");
        drop(holder);
    });
}

#[test]
fn an_orphan_of_any_name_forges_no_line_of_the_log() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.locks()).expect("an empty place");
    fs::set_permissions(sandbox.locks(), fs::Permissions::from_mode(0o700)).expect("a directory of ours");
    // The kernel keeps 15 bytes.
    let evil = sandbox.path().join("\u{1b}[2J\r\nx elect:");
    fs::copy("/bin/sleep", &evil).expect("sleep is there");
    let lock = sandbox.lock_file().display().to_string();
    let holder = ElectCmd::new(&sandbox).program(["flock", &lock, "sh", "-c"]);
    let holder = holder.command(["echo held; exec \"$0\" 600".to_owned(), evil.display().to_string()]).start();
    until("flock has the lock", || holder.output().contains("held"));
    let candidate = ElectCmd::new(&sandbox).witness(&Witness::new()).start();
    candidate.wait_for_log("the lock is held");
    let seen = ElectCmd::new(&sandbox).status(&["cron"]).run();
    is_plain(&seen.stdout);
    is_plain_log(&candidate.log());
    candidate.terminate();
}

/// A server that answers whatever it is asked with the same.
fn babbler(answer: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let mut asked = [0; 4096];
                while stream.read(&mut asked).is_ok_and(|read| read > 0) {
                    if stream.write_all(answer).is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}

#[cfg(feature = "redis")]
#[test]
fn what_a_server_answers_steers_no_terminal() {
    let port = babbler(b"-ERR \x1b[2J\x1b]0;owned\x07 \xc2\x9b2J\r\n");
    let sandbox = Sandbox::new();
    let elect = || ElectCmd::new(&sandbox).store(format!("redis://127.0.0.1:{port}"));
    let query = [
        elect().status(&["cron"]),
        elect().status(&[]),
        elect().query("wait", &["cron", "--timeout", "1s"]),
        elect().switch("-n").command(["true"]),
    ];
    for elect in query {
        let ended = elect.run();
        assert!(!ended.status.success(), "{ended:?}");
        assert!(!ended.stderr.is_empty(), "{ended:?}");
        is_plain(&ended.stderr);
    }
}

#[cfg(feature = "redis")]
#[test]
fn a_huge_name_in_redis_wedges_no_candidate_and_is_shown() {
    use crate::harness::redis::RedisServer;
    use crate::harness::server::StoreServer;
    let redis = RedisServer::start();
    for (field, value) in [("name", "x".repeat(HUGE)), ("host", "h".repeat(HUGE)), ("name", EVIL.to_owned())] {
        let sandbox = Sandbox::new();
        let key = format!("{}:cron", sandbox.database());
        let elect = || ElectCmd::new(&sandbox).store(redis.url_for(&sandbox)).flag("--ttl", "3s");
        let first = elect().command(["true"]).run();
        assert_eq!(first.status.code(), Some(0), "{first:?}");
        redis.cli(&["hset", &key, field, &value, "port", "80", "state", "held", "ttl", "600000", "nonce", "77"]);
        for words in [&["cron"][..], &[]] {
            let seen = ElectCmd::new(&sandbox).store(redis.url_for(&sandbox)).status(words).run();
            assert!(matches!(seen.status.code(), Some(0 | 3)), "{seen:.300?}");
            is_plain(&seen.stdout);
        }
        let candidate = curious(elect()).start();
        outlives(&sandbox, candidate, || {
            redis.cli(&["hset", &key, field, "web-1", "state", "free", "nonce", "78"]);
        });
    }
}

#[cfg(feature = "mongodb")]
#[test]
fn a_huge_name_in_mongodb_wedges_no_candidate_and_is_shown() {
    use ::mongodb::bson::doc;

    use crate::harness::mongod::Mongod;
    use crate::harness::server::StoreServer;
    let mongod = Mongod::start();
    let cases = [
        ("leaderName", "x".repeat(HUGE)),
        ("leaderHostname", "h".repeat(HUGE)),
        ("leaderName", "x".repeat(12_000)),
        ("leaderName", EVIL.to_owned()),
        ("remark", "r".repeat(8_000_000)),
    ];
    for (field, value) in cases {
        let sandbox = Sandbox::new();
        let elect = || ElectCmd::new(&sandbox).store(mongod.url_for(&sandbox)).flag("--ttl", "3s");
        let first = elect().command(["true"]).run();
        assert_eq!(first.status.code(), Some(0), "{first:?}");
        let cron = || doc! { "_id": "cron" };
        let far = ::mongodb::bson::DateTime::from_millis(4_000_000_000_000);
        let held = doc! { field: value, "leaderPort": 80, "state": "held", "ttlMs": 600_000_i64, "ttlExpire": far };
        assert_eq!(mongod.update(&sandbox, cron(), doc! { "$set": held }), 1);
        for words in [&["cron"][..], &[]] {
            let seen = ElectCmd::new(&sandbox).store(mongod.url_for(&sandbox)).status(words).run();
            assert!(matches!(seen.status.code(), Some(0 | 3)), "{seen:.300?}");
            is_plain(&seen.stdout);
        }
        let candidate = curious(elect()).start();
        outlives(&sandbox, candidate, || {
            let free = doc! { field: "web-1", "state": "free", "seq": 78_i64 };
            assert_eq!(mongod.update(&sandbox, cron(), doc! { "$set": free }), 1);
        });
    }
}

#[test]
fn flags_beyond_their_limits_are_refused_with_the_limit() {
    let sandbox = Sandbox::new();
    let (name, url) = ("x".repeat(257), format!("etcd://{}", "h".repeat(9_000)));
    let user = "u".repeat(4097);
    for (flag, value, said) in [
        ("--ttl", "25h", "24h"),
        ("--ttl", "86400001ms", "24h"),
        ("--name", &name, "256 bytes"),
        ("--advertise", &name, "256 bytes"),
        ("--store", &url, "8192"),
        ("--username", &user, "4096 bytes"),
    ] {
        let elect = if flag == "--store" { ElectCmd::new(&sandbox).store(None) } else { ElectCmd::new(&sandbox) };
        elect.flag(flag, value).command(["true"]).run().fails_with(2, &[flag, said]);
    }
    let endless = ElectCmd::new(&sandbox).flag("--password-file", "/dev/zero").command(["true"]).run();
    endless.fails_with(2, &["--password-file", "4096 bytes"]);
    let inside = (0..200).map(|number| format!("{number:0>80}")).collect::<Vec<_>>().join("\n");
    let nested = ElectCmd::new(&sandbox).variable("ELECT_ROLE", "leader").variable("ELECT_INSIDE", &inside);
    nested.command(["true"]).run().fails_with(2, &["ELECT_INSIDE", "8192"]);
    assert!(!sandbox.locks().exists(), "nothing was asked of the store");
    for (flag, value) in [("--ttl", "24h"), ("--name", &name[1..]), ("--advertise", &name[1..])] {
        let ended = ElectCmd::new(&sandbox).flag(flag, value).command(["true"]).run();
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    }
    let planned = ElectCmd::new(&sandbox).query("plan", &["--ttl", "25h"]).run();
    planned.fails_with(2, &["--ttl", "24h"]);
}

#[cfg(feature = "redis")]
#[test]
fn a_permission_that_is_taken_away_later_ends_no_candidacy() {
    use crate::harness::redis::RedisServer;
    use crate::harness::server::StoreServer;
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
