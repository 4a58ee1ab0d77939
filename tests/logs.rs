//! The lines on stderr: which events are logged, and which are not.

use serde_json::Value;

use crate::harness::{ElectCmd, Sandbox, Witness};

#[test]
fn the_first_line_says_what_is_campaigned_for_and_how_far_that_reaches() {
    let sandbox = Sandbox::new();
    let ended = ElectCmd::new(&sandbox).command(["true"]).run();
    let first = ended.stderr.lines().next().expect("a line");
    for word in ["campaigning", "boundary=cron", &sandbox.store(), "this host only", "containment"] {
        assert!(first.contains(word), "{word:?} is not in {first:?}");
    }
    let told: Vec<bool> = ["elected", "leader command started", "leader command ended", "released"]
        .iter()
        .map(|step| ended.stderr.lines().filter(|line| line.contains(step)).count() == 1)
        .collect();
    assert_eq!(told, [true; 4], "each step once: {ended:?}");
    assert!(!ended.stderr.contains('\u{1b}'), "no colours into a file: {ended:?}");
}

#[test]
fn lines_in_json_can_be_read_by_machines() {
    let sandbox = Sandbox::new();
    let leader = ElectCmd::new(&sandbox).flag("--log-format", "json").witness(&Witness::new()).start();
    let term = sandbox.starts(1).latest().term;
    let waiter = ElectCmd::new(&sandbox).flag("--log-format", "json").switch("-vv").witness(&Witness::new()).start();
    waiter.wait_until_waiting();
    leader.signal(nix::sys::signal::Signal::SIGTERM);
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
    leader.signal(nix::sys::signal::Signal::SIGTERM);
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
    leader.signal(nix::sys::signal::Signal::SIGTERM);
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
