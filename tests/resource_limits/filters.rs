//! System calls that a filter refuses, as in a container, or that an old kernel does not have.

use std::ffi::OsString;

use super::{example, is_orderly};
use crate::ObservedServer;
use crate::harness::server::StoreServer;
use crate::harness::{ElectCmd, Sandbox};
use crate::leases::candidate_for;

fn refusing(calls: &[&str]) -> Vec<OsString> {
    let words = calls.iter().map(OsString::from).chain([OsString::from("--")]);
    std::iter::once(example("refusing").into_os_string()).chain(words).collect()
}

/// The C library goes back to `clone` where `clone3` is unknown, and takes any other refusal for one.
#[test]
fn without_clone3_elect_works_or_says_why_not() {
    let server = ObservedServer::start();
    for (call, works) in [("clone3=ENOSYS", true), ("clone3=EPERM", false), ("clone3=EAGAIN", false)] {
        let sandbox = Sandbox::new();
        for store in [sandbox.store(), server.url_for(&sandbox).replace("127.0.0.1", "localhost")] {
            let elect =
                candidate_for(&sandbox, store, "3s").switch("-q").command(["true"]).wrapped_by(refusing(&[call]));
            let ended = elect.run();
            assert_eq!(is_orderly(&ended, call, &[125]), works, "{call}: {ended:?}");
            if !works {
                let advice = if call.ends_with("EPERM") { "seccomp" } else { "ulimit -u" };
                ended.fails_with(125, &["no thread can be made", advice]);
            }
        }
        sandbox.is_left_empty();
    }
}

#[test]
fn without_clone3_a_question_is_answered_or_refused() {
    let server = ObservedServer::start();
    for (call, status) in [("clone3=ENOSYS", 3), ("clone3=EPERM", 125)] {
        let sandbox = Sandbox::new();
        let store = server.url_for(&sandbox).replace("127.0.0.1", "localhost");
        let ended = ElectCmd::new(&sandbox).store(store).status(&["cron"]).wrapped_by(refusing(&[call])).run();
        assert_eq!(ended.status.code(), Some(status), "{call}: {ended:?}");
        assert!(!ended.stderr.contains("panicked"), "{ended:?}");
    }
}

/// The command gets 0, 1, 2 and the lock, whatever elect was started with and whatever it opened since (K9).
#[test]
fn without_close_range_nothing_is_passed_on() {
    for call in ["close_range=ENOSYS", "close_range=EPERM"] {
        for tier in ["tree", "pidns"] {
            let sandbox = Sandbox::new();
            // The descriptor by which the shell reads the directory is gone when it is looked at.
            let script = "for fd in /proc/self/fd/*; do test -e $fd && echo ${fd##*/}; done; true";
            let elect = ElectCmd::new(&sandbox).switch("-q").flag("--containment", tier).shell(script);
            let inherited = ["sh", "-c", r#"exec 7</dev/null 9</dev/zero; exec "$@""#, "sh"];
            let ended = elect.wrapped_by(inherited).wrapped_by(refusing(&[call])).run();
            assert_eq!(ended.status.code(), Some(0), "{call}, {tier}: {ended:?}");
            let mut numbers: Vec<u32> = ended.stdout.lines().map(|line| line.parse().expect("a number")).collect();
            numbers.sort_unstable();
            assert_eq!(numbers, [0, 1, 2, 100], "{call}, {tier}: {ended:?}");
            sandbox.is_left_empty();
        }
    }
}

/// As above, started with nearly as many descriptors as the limit allows.
#[test]
fn without_close_range_a_full_table_is_not_passed_on() {
    let sandbox = Sandbox::new();
    let script = "for fd in /proc/self/fd/*; do test -e $fd && echo ${fd##*/}; done; true";
    let elect = ElectCmd::new(&sandbox).switch("-q").shell(script);
    let crowded = r#"for i in {3..62}; do eval "exec $i</dev/null"; done; exec "$@""#;
    let limited = ["prlimit", "--nofile=64", "--", "bash", "-c", crowded, "bash"];
    let ended = elect.wrapped_by(limited).wrapped_by(refusing(&["close_range=EPERM"])).run();
    assert_eq!((ended.status.code(), ended.stdout.as_str()), (Some(0), "0\n1\n2\n63\n"), "{ended:?}");
    sandbox.is_left_empty();
}
