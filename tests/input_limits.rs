//! Input from other programs that is too large, or would steer a terminal: it stops nothing, and reaches nobody as it is
//! (DESIGN.md 2.5).

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::harness::executables;
use crate::harness::{CandidateProcess, ElectCmd, Sandbox, Witness, until};

/// More than the keeper takes in one message.
#[cfg_attr(not(feature = "all-stores"), allow(dead_code, reason = "for the tests of stores"))]
pub const HUGE: usize = 70_000;
/// As much as a pipe takes in one piece.
const LINE_BYTES_MAX: usize = 4096;
/// It clears the screen, ends the line and begins another one.
#[cfg_attr(not(feature = "all-stores"), allow(dead_code, reason = "for the tests of stores"))]
pub const EVIL: &str = "web-1\u{1b}[2J\u{9b}2J\r\n2026-11-20T17:00:00.123Z elect: elected term=9";

/// Every line begins as elect's lines do, is of limited size, and steers no terminal.
#[track_caller]
pub fn is_plain(text: &str) {
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
        assert!(line.get(20..).is_some_and(|rest| rest.contains("Z elect[cron]: ")), "forged, or cut short: {line:?}");
    }
}

/// With a program for everything that a leader's name is told to.
pub fn curious(elect: ElectCmd) -> ElectCmd {
    elect.flag("--follower", &Witness::new().follower().line()).flag("--on-change", "true").witness(&Witness::new())
}

/// It has seen the record, and is shown to hold on: its command starts as soon as the boundary is free.
#[track_caller]
pub fn outlives(sandbox: &Sandbox, candidate: CandidateProcess, free: impl FnOnce()) {
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
    executables::copy("/bin/sleep", &evil);
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
        let store = match flag {
            "--store" => None,
            "--username" => Some("etcd://127.0.0.1:1".to_owned()),
            _ => Some(sandbox.store()),
        };
        let elect = ElectCmd::new(&sandbox).store(store);
        elect.flag(flag, value).command(["true"]).run().fails_with(2, &[flag, said]);
    }
    let endless = ElectCmd::new(&sandbox).store("etcd://127.0.0.1:1".to_owned()).flag("--password-file", "/dev/zero");
    let endless = endless.command(["true"]).run();
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
