//! Records that are too large, or would steer a terminal (DESIGN.md 2.5).

use ::mongodb::bson::doc;

use super::server::Mongod;
use crate::harness::server::StoreServer;
use crate::harness::{ElectCmd, Sandbox};
use crate::input_limits::{EVIL, HUGE, curious, is_plain, outlives};

#[test]
fn a_huge_name_in_mongodb_wedges_no_candidate_and_is_shown() {
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
