//! The other forms of `status`: `--self`, `--all`, `--watch`; and what the stores know of a leader and of candidates.

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::harness::store_fixtures::for_each_store;
use crate::harness::{ElectCmd, Sandbox, Witness, eventually, until};

fn json(text: &str) -> Value {
    serde_json::from_str(text.trim()).unwrap_or_else(|error| panic!("{error}: {text:?}"))
}

/// All tests are the same user, whose candidates are found by the boundary's name.
fn boundary() -> &'static str {
    static LAST: AtomicUsize = AtomicUsize::new(0);
    format!("forms/{}-{}", std::process::id(), LAST.fetch_add(1, Ordering::Relaxed)).leak()
}

#[test]
fn local_candidates_are_shown_with_their_state_and_silent_ones_as_silent() {
    for_each_store(|fixture| {
        let boundary = boundary();
        let candidate = |name: &str| {
            let candidate = fixture.patient(name).boundary(boundary);
            candidate.flag("--advertise", "10.0.0.5:8080").witness(&Witness::new())
        };
        let leader = candidate("web-1").start();
        fixture.sandbox.starts(1);
        let other = candidate("web-2").start();
        other.wait_for_log("web-1 leads");
        let query = |words: &[&str]| {
            ElectCmd::new(&fixture.sandbox).store(None).query("status", &[&["--self", boundary], words].concat()).run()
        };
        let all = json(&query(&["--json"]).stdout);
        let all = all.as_array().expect("an array");
        assert_eq!(all.len(), 2, "{all:?}");
        let keys: Vec<&str> = all[0].as_object().expect("an object").keys().map(String::as_str).collect();
        let mut expected =
            ["boundary", "store", "id", "name", "host", "port", "state", "reasons", "is_leader", "running", "pid"]
                .to_vec();
        expected.sort_unstable();
        let mut sorted = keys;
        sorted.sort_unstable();
        assert_eq!(sorted, expected);
        let of = |index: usize, field: &str| all[index][field].clone();
        assert_eq!(
            [of(0, "name"), of(0, "state"), of(0, "is_leader")],
            [Value::from("web-1"), "leading".into(), true.into()]
        );
        assert_eq!(
            [of(1, "name"), of(1, "state"), of(1, "running")],
            [Value::from("web-2"), "following".into(), false.into()]
        );
        assert_eq!(
            [of(0, "host"), of(0, "port"), of(0, "store")],
            [Value::from("10.0.0.5"), 8080.into(), fixture.name().into()]
        );
        assert_eq!(of(0, "pid"), fixture.sandbox.history().latest().pid);
        let table = query(&[]).stdout;
        assert!(table.starts_with("BOUNDARY") && table.lines().count() == 3, "{table}");
        other.signal(Signal::SIGSTOP);
        let silent = json(&query(&["--json"]).stdout);
        let states: Vec<&str> =
            silent.as_array().expect("an array").iter().filter_map(|one| one["state"].as_str()).collect();
        assert_eq!(states.len(), 2, "{silent}");
        assert!(states.contains(&"silent") && states.contains(&"leading"), "{silent}");
        other.signal(Signal::SIGCONT);
        other.terminate();
        leader.terminate();
        let none = query(&[]);
        assert_eq!(none.status.code(), Some(3), "{none:?}");
        assert!(none.stdout.starts_with("no candidate of this user campaigns for forms/"), "{none:?}");
    });
}

#[test]
fn a_boundary_that_was_left_long_ago_is_counted_and_shown_with_all() {
    let sandbox = Sandbox::new();
    for boundary in ["old", "new"] {
        assert!(ElectCmd::new(&sandbox).boundary(boundary).command(["true"]).run().status.success());
    }
    let record = sandbox.locks().join("old.json");
    let aged = Command::new("touch").args(["-d", "25 hours ago"]).arg(&record).status();
    assert!(aged.expect("touch is there").success());
    let status = |words: &[&str]| ElectCmd::new(&sandbox).status(words).run().stdout;
    let shown = status(&[]);
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!((lines.len(), &lines[1][..3]), (3, "new"), "{shown}");
    assert_eq!(lines[2], "1 boundary has been free for over 24h: --all shows it");
    let all = status(&["--all"]);
    assert!(all.lines().count() == 3 && all.contains("\nold ") && !all.contains("--all"), "{all}");
    assert_eq!(status(&["--json"]).lines().count(), 2, "a program gets all of them");
    assert!(status(&["old"]).starts_with("old: no leader\n  free for 1day 1h\n"), "{}", status(&["old"]));
}

#[test]
fn a_status_that_watches_says_each_change_once() {
    for_each_store(|fixture| {
        let mut text = fixture.query("status", &["cron", "--watch"]).start();
        until("the present state", || text.output().starts_with("cron: no leader\n"));
        let mut documents = fixture.query("status", &["cron", "--watch", "--json"]).start();
        until("the present state", || documents.output().ends_with('\n'));
        let leader = fixture.leader("web-1");
        until("the leader", || text.output().contains("\n\ncron: web-1 leads at 10.0.0.5:8080, "));
        until("the leader", || documents.output().contains(r#""name":"web-1""#));
        leader.terminate();
        until("its end", || text.output().rfind("cron: no leader").is_some_and(|at| at > 20));
        until("its end", || documents.output().lines().last().is_some_and(|last| json(last)["leader"].is_null()));
        assert_eq!(text.output().matches(" leads").count(), 1, "{}", text.output());
        assert!(!text.output().contains('\u{1b}'), "not a terminal");
        for watch in [&mut text, &mut documents] {
            watch.signal(Signal::SIGTERM);
            watch.ends_with(0);
        }
    });
}

#[test]
fn json_says_what_text_says_of_an_address_and_which_key_an_etcd_has() {
    for_each_store(|fixture| {
        let leader = fixture.patient("web-1").flag("--advertise", "vm").witness(&Witness::new()).start();
        fixture.sandbox.starts(1);
        let text = fixture.query("status", &["cron"]).run().stdout;
        assert!(text.starts_with("cron: web-1 leads at vm, term "), "{text}");
        let watch = fixture.query("watch", &["cron", "--json"]).start();
        let documents = [
            fixture.query("status", &["cron", "--json"]).run().stdout,
            fixture.query("wait", &["cron", "--json"]).run().stdout,
            eventually("a line", || watch.output().lines().next().map(str::to_owned)),
        ];
        for document in documents.map(|document| json(&document)["leader"].clone()) {
            assert_eq!(document["address"], "vm", "{document}");
            assert!(document["since"].is_string(), "{document}");
            let etcd = &document["etcd"];
            if fixture.name() == "etcd" {
                let (key, lease) = (etcd["key"].as_str(), etcd["lease"].as_str());
                let (key, lease) = (key.expect("a key"), lease.expect("a lease"));
                assert!(key.ends_with(&format!("cron/{lease}")), "{etcd}");
            } else {
                assert!(etcd.is_null(), "{document}");
            }
        }
        watch.terminate();
        // The next leader, which had waited, has its own beginning.
        let next = fixture.patient("web-2").witness(&Witness::new()).start();
        next.wait_for_log("web-1 leads");
        let waited = json(&fixture.query("wait", &["cron", "--json"]).run().stdout);
        let asked = json(&fixture.query("status", &["cron", "--json"]).run().stdout);
        assert_eq!(waited["candidates"], asked["candidates"], "wait knows what status knows");
        if fixture.name() == "etcd" {
            assert_eq!(waited["candidates"][0]["name"], "web-2", "{waited}");
        }
        leader.terminate();
        fixture.sandbox.starts(2);
        let taken = eventually("it leads", || {
            let leader = json(&fixture.query("status", &["cron", "--json"]).run().stdout)["leader"].clone();
            (leader["name"] == "web-2").then_some(leader)
        });
        assert!(taken["since"].is_string(), "{taken}");
        next.terminate();
    });
}

#[test]
fn without_an_election_every_boundary_is_led() {
    let sandbox = Sandbox::new();
    let query = |subcommand: &'static str, words: &[&str]| {
        ElectCmd::new(&sandbox).store("always:".to_owned()).query(subcommand, words)
    };
    let ended = query("wait", &["--timeout", "5s"]).run();
    assert_eq!((ended.status.code(), ended.stdout.as_str()), (Some(0), "always: every candidate leads\n"), "{ended:?}");
    let ended = query("wait", &["--timeout", "5s", "--json"]).run();
    let document = json(&ended.stdout);
    assert!(document["boundary"].is_null() && document["leader"]["name"].is_string(), "{document}");
    for subcommand in ["wait", "status"] {
        let ended = query(subcommand, &["cron"]).run();
        assert_eq!(ended.status.code(), Some(0), "{subcommand}: {ended:?}");
        assert!(ended.stdout.starts_with("cron: ") && ended.stdout.contains(" leads"), "{subcommand}: {ended:?}");
    }
    assert!(query("status", &["cron"]).run().stdout.contains("every candidate leads"));
    query("wait", &["cron", "--for", "none", "--timeout", "100ms"]).run().fails_with(75, &["did not lose its leader"]);
    let mut watch = query("watch", &["cron"]).start();
    until("a line", || watch.output().contains(" leads\n"));
    watch.signal(Signal::SIGTERM);
    watch.ends_with(0);
}

#[test]
fn a_boundary_is_named_once_as_an_argument_or_as_a_flag() {
    let sandbox = Sandbox::new();
    for subcommand in ["status", "watch", "wait", "assert", "extend", "resign", "proclaim"] {
        let ended = ElectCmd::new(&sandbox).store(None).query(subcommand, &["cron", "-b", "cron"]).run();
        ended.fails_with(2, &["cannot be used with"]);
    }
}

#[test]
fn a_directory_that_a_candidate_makes_is_told() {
    let sandbox = Sandbox::new();
    let elect = || ElectCmd::new(&sandbox).command(["true"]).run();
    let ended = elect();
    ended.stderr_contains(&["did not exist: created", &sandbox.locks().display().to_string()]);
    let ended = elect();
    assert!(!ended.stderr.contains("created"), "{ended:?}");
}
