//! Records and answers that are too large, or would steer a terminal (DESIGN.md 2.5).

use std::io::{Read, Write};
use std::net::TcpListener;

use super::server::RedisServer;
use crate::harness::server::StoreServer;
use crate::harness::{ElectCmd, Sandbox};
use crate::input_limits::{EVIL, HUGE, curious, is_plain, outlives};

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

#[test]
fn a_huge_name_in_redis_wedges_no_candidate_and_is_shown() {
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
