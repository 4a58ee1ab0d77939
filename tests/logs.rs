//! What is said on stderr, and what is not.

use serde_json::Value;

use crate::harness::{Elect, Place, Witness};

#[test]
fn the_first_line_says_what_is_campaigned_for_and_how_far_that_reaches() {
    let place = Place::new();
    let ended = Elect::new(&place).command(["true"]).run();
    let first = ended.stderr.lines().next().expect("a line");
    for word in ["campaigning", "boundary=cron", &place.store(), "this host only", "containment"] {
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
    let place = Place::new();
    let leader = Elect::new(&place).flag("--log-format", "json").witness(&Witness::new()).start();
    let term = place.starts(1).latest().term;
    let waiter = Elect::new(&place).flag("--log-format", "json").switch("-vv").witness(&Witness::new()).start();
    waiter.waits();
    leader.signal(nix::sys::signal::Signal::SIGTERM);
    place.starts(2);
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
    waiter.stops();
}

#[test]
fn a_quiet_run_that_goes_well_is_silent() {
    let place = Place::new();
    let ended = Elect::new(&place).switch("-q").command(["true"]).run();
    assert_eq!((ended.status.code(), ended.stderr.as_str(), ended.stdout.as_str()), (Some(0), "", ""));
    let leader = Elect::new(&place).switch("--quiet").witness(&Witness::new()).start();
    place.starts(1);
    leader.signal(nix::sys::signal::Signal::SIGTERM);
    let mut leader = leader;
    leader.ends_with(0);
    assert_eq!(leader.log(), "");
}

#[test]
fn a_filter_decides_what_is_said() {
    let place = Place::new();
    let ended = Elect::new(&place).variable("ELECT_LOG", "off").command(["true"]).run();
    assert_eq!(ended.stderr, "");
    let ended = Elect::new(&place).variable("ELECT_LOG", "elect=debug").command(["true"]).run();
    assert!(ended.stderr.contains("debug: "), "{ended:?}");
    let ended = Elect::new(&place).variable("ELECT_LOG", "elect=loud").command(["true"]).run();
    ended.fails_with(2, &["ELECT_LOG", "elect=loud"]);
    place.is_left_empty();
}

#[test]
fn a_full_pipe_delays_nothing() {
    let place = Place::new();
    // Nobody reads what elect says: it hands over all the same.
    let unread = ["bash", "-c", r#"exec 2> >(exec sleep 600); exec "$@""#, "bash"];
    let mut leader = Elect::new(&place).under(unread).switch("-vv").witness(&Witness::new()).start();
    place.starts(1);
    leader.signal(nix::sys::signal::Signal::SIGTERM);
    leader.ends_with(0);
}

#[test]
fn without_an_election_one_leads_at_once() {
    let place = Place::new();
    let always = |place: &Place| Elect::new(place).store("always:".to_owned());
    let ended = always(&place).command(["sh", "-c", "echo $ELECT_TERM $ELECT_ROLE; exit 4"]).run();
    assert_eq!(ended.status.code(), Some(4), "{ended:?}");
    // In the number space of all stores: milliseconds since 1970 (S1).
    let (term, role) = ended.stdout.trim().split_once(' ').expect("two words");
    assert!(term.parse::<u64>().is_ok_and(|term| term > 1_700_000_000_000) && role == "leader", "{ended:?}");
    let (one, other) = (always(&place).shell("exec sleep 600").start(), always(&place).shell("exec sleep 600").start());
    one.says("leader command started");
    other.says("leader command started");
    one.stops();
    other.stops();
    place.is_left_empty();
}
