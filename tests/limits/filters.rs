//! System calls that a filter refuses, as in a container, or that an old kernel does not have.

use std::ffi::OsString;

use super::{example, is_orderly};
use crate::harness::redis::Redis;
use crate::harness::server::Server;
use crate::harness::{Elect, Place};
use crate::leases::candidate_for;

fn refusing(calls: &[&str]) -> Vec<OsString> {
    let words = calls.iter().map(OsString::from).chain([OsString::from("--")]);
    std::iter::once(example("refusing").into_os_string()).chain(words).collect()
}

/// The C library goes back to `clone` where `clone3` is unknown, and takes any other refusal for one.
#[test]
fn without_clone3_elect_works_or_says_why_not() {
    let redis = Redis::start();
    for (call, works) in [("clone3=ENOSYS", true), ("clone3=EPERM", false), ("clone3=EAGAIN", false)] {
        let place = Place::new();
        for store in [place.store(), redis.url_for(&place).replace("127.0.0.1", "localhost")] {
            let elect = candidate_for(&place, store, "2s").switch("-q").command(["true"]).under(refusing(&[call]));
            let ended = elect.run();
            assert_eq!(is_orderly(&ended, call, &[125]), works, "{call}: {ended:?}");
            if !works {
                ended.fails_with(125, &["no thread can be made", "ulimit -u"]);
            }
        }
        place.is_left_empty();
    }
}

#[test]
fn without_clone3_a_question_is_answered_or_refused() {
    let redis = Redis::start();
    for (call, status) in [("clone3=ENOSYS", 3), ("clone3=EPERM", 125)] {
        let place = Place::new();
        let store = redis.url_for(&place).replace("127.0.0.1", "localhost");
        let ended = Elect::new(&place).store(store).status(&["cron"]).under(refusing(&[call])).run();
        assert_eq!(ended.status.code(), Some(status), "{call}: {ended:?}");
        assert!(!ended.stderr.contains("panicked"), "{ended:?}");
    }
}

/// The command gets 0, 1, 2 and the lock, whatever elect was started with and whatever it opened since (K9).
#[test]
fn without_close_range_nothing_is_passed_on() {
    for call in ["close_range=ENOSYS", "close_range=EPERM"] {
        for tier in ["tree", "pidns"] {
            let place = Place::new();
            let script = "for fd in /proc/$$/fd/*; do case $(readlink $fd) in pipe*) ;; *) echo ${fd##*/};; esac; done";
            let elect = Elect::new(&place).switch("-q").flag("--containment", tier).shell(script);
            let inherited = ["sh", "-c", r#"exec 7</dev/null 9</dev/zero; exec "$@""#, "sh"];
            let ended = elect.under(inherited).under(refusing(&[call])).run();
            assert_eq!(ended.status.code(), Some(0), "{call}, {tier}: {ended:?}");
            let mut numbers: Vec<u32> = ended.stdout.lines().map(|line| line.parse().expect("a number")).collect();
            // The shell's own, for its pipes and scripts.
            numbers.retain(|&number| number != 10);
            numbers.sort_unstable();
            assert_eq!(numbers, [0, 1, 2, 100], "{call}, {tier}: {ended:?}");
            place.is_left_empty();
        }
    }
}

/// As above where no descriptor is free for the list of those that are open.
#[test]
fn without_close_range_and_free_descriptors_nothing_is_passed_on() {
    let place = Place::new();
    let script = "for fd in 3 4 5 6 7 8 9; do test -e /proc/$$/fd/$fd && echo $fd; done; true";
    let elect = Elect::new(&place).switch("-q").shell(script);
    let crowded = r#"i=3; while [ $i -lt 10 ]; do eval "exec $i</dev/null"; i=$((i+1)); done; exec "$@""#;
    let ended = elect.under(["sh", "-c", crowded, "sh"]).under(refusing(&["close_range=EPERM"])).run();
    assert_eq!((ended.status.code(), ended.stdout.as_str()), (Some(0), ""), "{ended:?}");
    place.is_left_empty();
}
