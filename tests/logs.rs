//! The lines on stderr: which events are logged, and which are not.

use std::collections::{BTreeMap, BTreeSet};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::harness::{ElectCmd, Sandbox, Witness, until};

#[test]
fn the_first_line_says_what_is_campaigned_for_and_how_far_that_reaches() {
    let sandbox = Sandbox::new();
    let ended = ElectCmd::new(&sandbox).command(["true"]).run();
    let first = ended.stderr.lines().next().expect("a line");
    for word in ["elect[cron]: campaigning in ", &sandbox.store(), "(this host only), "] {
        assert!(first.contains(word), "{word:?} is not in {first:?}");
    }
    assert!(["cgroup", "tree"].iter().any(|tier| first.ends_with(tier)), "{first:?}");
    let told: Vec<bool> = ["elected", "leader command started", "leader command ended", "released"]
        .iter()
        .map(|step| ended.stderr.lines().filter(|line| line.contains(step)).count() == 1)
        .collect();
    assert_eq!(told, [true; 4], "each step once: {ended:?}");
    assert!(!ended.stderr.contains('\u{1b}'), "no colours into a file: {ended:?}");
}

/// Three candidates of two boundaries that write into one file, as under `kubectl logs` or in a journal.
fn mixed_log(sandbox: &Sandbox, format: &str) -> String {
    let file = sandbox.path().join("mixed");
    let script = format!("exec \"$@\" 2>>{}", file.display());
    let log = || std::fs::read_to_string(&file).unwrap_or_default();
    let into_file = |boundary, name: &str| {
        let elect = ElectCmd::new(sandbox).wrapped_by(["sh", "-c", &script, "sh"]).boundary(boundary);
        elect.flag("--name", name).flag("--log-format", format)
    };
    let first = into_file("cron", "web-1").witness(&Witness::new()).start();
    sandbox.starts(1);
    let mut second = into_file("cron", "web-2").flag("--on-change", "exit 3").witness(&Witness::new()).start();
    until("the hook of the second has failed", || log().contains("--on-change failed"));
    // Its first run leaves a process behind, and the second one does not end when it is asked to.
    let leaves = "cd $WITNESS_PLACE; if [ ! -e up ]; then mkfifo pipe; setsid --fork sh -c '>up; read line <pipe'; \
                  until [ -e up ]; do sleep 0.02; done; else trap '' TERM; >deaf; while :; do sleep 1; done; fi";
    let third = into_file("billing", "pay-1").flag("--restart", "always").flag("--on-ousted", "exit 4");
    let third = third.flag("--stop-timeout", "4s").shell(leaves).start();
    until("the third has started its command again", || log().matches("leader command started").count() == 3);
    until("it does not hear its stop signal", || sandbox.path().join("deaf").exists());
    // The first loses its lock, the third has to kill its command.
    first.loses_lock_to_next(sandbox);
    sandbox.starts(2);
    third.signal(Signal::SIGTERM);
    until("the third has given its boundary back", || log().matches("released").count() == 1);
    second.signal(Signal::SIGKILL);
    second.wait();
    sandbox.starts(3);
    until("the keeper of the second has logged", || log().contains("the campaigner has died"));
    first.terminate();
    log()
}

/// Reasons that are lines of that log, and how many: two candidates are asked to stop, and the third is killed.
const REASONS: [(&str, usize); 6] = [
    ("leadership lost: killing the command (", 1),
    ("asked to stop (TERM)", 2),
    ("left behind 1 process: sh (pid ", 1),
    ("(--stop-timeout)", 1),
    ("--on-ousted failed", 1),
    ("the campaigner has died (killed, or crashed): the leader command was stopped", 1),
];

/// Those of them that are warnings.
const WARNINGS: usize = 5;

#[test]
fn each_line_of_a_mixed_log_says_which_boundary_it_belongs_to() {
    let sandbox = Sandbox::new();
    let log = mixed_log(&sandbox, "text");
    for line in log.lines() {
        let (stamp, rest) = line.split_once(' ').unwrap_or_default();
        assert!(stamp.len() == 24 && stamp.ends_with('Z'), "{line}");
        assert!(rest.starts_with("elect[cron]: ") || rest.starts_with("elect[billing]: "), "{line}");
    }
    for (reason, times) in REASONS {
        assert_eq!(log.lines().filter(|line| line.contains(reason)).count(), times, "{reason}: {log}");
    }
    // It runs at each change.
    let failed: Vec<&str> = log.lines().filter(|line| line.contains("--on-change failed")).collect();
    assert!(
        failed.iter().all(|line| line.ends_with("elect[cron]: warning: --on-change failed status=3")),
        "{failed:?}"
    );
    let warnings = log.lines().filter(|line| line.contains("]: warning: ") || line.contains("]: error: "));
    assert_eq!(warnings.count(), WARNINGS + failed.len(), "{log}");
}

#[test]
fn each_line_of_a_mixed_log_in_json_says_which_candidate_it_belongs_to() {
    let sandbox = Sandbox::new();
    let log = mixed_log(&sandbox, "json");
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let mut ids: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for line in &lines {
        let [boundary, name, id] = ["boundary", "name", "id"].map(|field| line[field].as_str().expect("a text"));
        assert_eq!(boundary, if name == "pay-1" { "billing" } else { "cron" }, "{line}");
        assert!(id.len() == 36, "{line}");
        ids.entry(name).or_default().insert(id);
    }
    assert_eq!(ids.keys().copied().collect::<Vec<_>>(), ["pay-1", "web-1", "web-2"]);
    assert!(ids.values().all(|ids| ids.len() == 1), "a candidate has one id: {ids:?}");
    let leads = lines.iter().find(|line| line["message"] == "waiting: web-1 leads").expect("the second has waited");
    assert_eq!(leads["leader_id"].as_str(), ids["web-1"].first().copied(), "{leads}");
    assert_eq!((&leads["name"], leads["term"].is_u64()), (&"web-2".into(), true), "{leads}");
    let count = |reason: &str| {
        lines.iter().filter(|line| line["message"].as_str().is_some_and(|text| text.contains(reason))).count()
    };
    for (reason, times) in REASONS {
        assert_eq!(count(reason), times, "{reason}: {log}");
    }
    let warnings = lines.iter().filter(|line| line["level"] != "INFO").count();
    assert_eq!(warnings, WARNINGS + count("--on-change failed"), "{log}");
    let dead = lines.iter().find(|line| line["message"].as_str().is_some_and(|text| text.contains("has died")));
    assert_eq!(dead.expect("it is there")["name"], "web-2", "{log}");
}

#[test]
fn an_election_is_ten_lines_of_eighty_columns() {
    let sandbox = Sandbox::new();
    let leader = ElectCmd::new(&sandbox).witness(&Witness::new()).start();
    sandbox.starts(1);
    let waiter = ElectCmd::new(&sandbox).witness(&Witness::new()).start();
    waiter.wait_until_waiting();
    leader.signal(Signal::SIGTERM);
    sandbox.starts(2);
    waiter.signal(Signal::SIGTERM);
    waiter.wait_for_log("released");
    // A terminal shows no date, and the default directory is called file: alone.
    let columns = |line: &str| line.replace(&sandbox.store(), "file:").chars().count() - "2026-11-28T".len();
    for log in [leader.log(), waiter.log()] {
        assert!(log.lines().count() <= 10, "{log}");
        for line in log.lines() {
            assert!(columns(line) <= 80, "{} columns: {line}", columns(line));
        }
    }
    leader.terminate();
    waiter.terminate();
}

#[test]
fn errors_before_the_log_begins_have_its_format() {
    let sandbox = Sandbox::new();
    let json = |elect: ElectCmd| {
        let ended = elect.command(["true"]).run();
        assert_eq!((ended.status.code(), ended.stderr.lines().count()), (Some(2), 1), "{ended:?}");
        let line: Value = serde_json::from_str(&ended.stderr).unwrap_or_else(|error| panic!("{error}: {ended:?}"));
        assert_eq!(line["level"], "ERROR", "{line}");
        assert!(line["timestamp"].is_string(), "{line}");
        line
    };
    let elect = || ElectCmd::new(&sandbox).flag("--log-format", "json");
    let line = json(elect().flag("--frobnicate", "x"));
    assert_eq!(line["boundary"], Value::Null, "the line could not be parsed");
    assert!(line["message"].as_str().is_some_and(|text| text.contains("--frobnicate")), "{line}");
    json(elect().flag("--ttl", "soon"));
    json(ElectCmd::new(&sandbox).variable("ELECT_LOG_FORMAT", "json").flag("--ttl", "soon"));
    json(elect().boundary(None));
    let line = json(elect().variable("ELECT_LOG", "elect=loud"));
    assert_eq!(line["boundary"], "cron", "{line}");
    let ended = elect().command(["/nowhere/job"]).run();
    let line: Value = serde_json::from_str(&ended.stderr).expect("JSON");
    assert_eq!((ended.status.code(), &line["boundary"]), (Some(127), &"cron".into()), "{line}");
    let text =
        ElectCmd::new(&sandbox).variable("ELECT_LOG_FORMAT", "text").flag("--ttl", "soon").command(["true"]).run();
    text.fails_with(2, &["--ttl"]);
}

#[test]
fn lines_in_json_can_be_read_by_machines() {
    let sandbox = Sandbox::new();
    let leader = ElectCmd::new(&sandbox).flag("--log-format", "json").witness(&Witness::new()).start();
    let term = sandbox.starts(1).latest().term;
    let waiter = ElectCmd::new(&sandbox).flag("--log-format", "json").switch("-vv").witness(&Witness::new()).start();
    waiter.wait_until_waiting();
    leader.signal(Signal::SIGTERM);
    sandbox.starts(2);
    for candidate in [&leader, &waiter] {
        let log = candidate.log();
        let lines: Vec<Value> = log
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
            .collect();
        assert!(lines.iter().all(|line| line["level"].is_string() && line["timestamp"].is_string()), "{log}");
    }
    let elected: Value = leader
        .log()
        .lines()
        .find(|line| line.contains("\"elected\""))
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .expect("said");
    assert_eq!(elected["term"], term);
    waiter.terminate();
}

#[test]
fn a_quiet_run_that_goes_well_is_silent() {
    let sandbox = Sandbox::new();
    let ended = ElectCmd::new(&sandbox).switch("-q").command(["true"]).run();
    assert_eq!((ended.status.code(), ended.stderr.as_str(), ended.stdout.as_str()), (Some(0), "", ""));
    let leader = ElectCmd::new(&sandbox).switch("--quiet").witness(&Witness::new()).start();
    sandbox.starts(1);
    leader.signal(Signal::SIGTERM);
    let mut leader = leader;
    leader.ends_with(0);
    assert_eq!(leader.log(), "");
}

#[test]
fn a_filter_decides_what_is_said() {
    let sandbox = Sandbox::new();
    let ended = ElectCmd::new(&sandbox).variable("ELECT_LOG", "off").command(["true"]).run();
    assert_eq!(ended.stderr, "");
    let ended = ElectCmd::new(&sandbox).variable("ELECT_LOG", "elect=debug").command(["true"]).run();
    assert!(ended.stderr.contains("debug: "), "{ended:?}");
    let ended = ElectCmd::new(&sandbox).variable("ELECT_LOG", "elect=loud").command(["true"]).run();
    ended.fails_with(2, &["ELECT_LOG", "elect=loud"]);
    sandbox.is_left_empty();
}

#[test]
fn a_full_pipe_delays_nothing() {
    let sandbox = Sandbox::new();
    // The log has no reader, and the hand-over happens nevertheless.
    let unread = ["bash", "-c", r#"exec 2> >(exec sleep 600); exec "$@""#, "bash"];
    let mut leader = ElectCmd::new(&sandbox).wrapped_by(unread).switch("-vv").witness(&Witness::new()).start();
    sandbox.starts(1);
    leader.signal(Signal::SIGTERM);
    leader.ends_with(0);
}

#[test]
fn without_an_election_one_leads_at_once() {
    let sandbox = Sandbox::new();
    let always = |sandbox: &Sandbox| ElectCmd::new(sandbox).store("always:".to_owned());
    let ended = always(&sandbox).command(["sh", "-c", "echo $ELECT_TERM $ELECT_ROLE; exit 4"]).run();
    assert_eq!(ended.status.code(), Some(4), "{ended:?}");
    // In the number space of all stores: milliseconds since 1970 (S1).
    let (term, role) = ended.stdout.trim().split_once(' ').expect("two words");
    assert!(term.parse::<u64>().is_ok_and(|term| term > 1_700_000_000_000) && role == "leader", "{ended:?}");
    let (one, other) =
        (always(&sandbox).shell("exec sleep 600").start(), always(&sandbox).shell("exec sleep 600").start());
    one.wait_for_log("leader command started");
    other.wait_for_log("leader command started");
    one.terminate();
    other.terminate();
    sandbox.is_left_empty();
}
