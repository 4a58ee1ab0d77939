//! `status`, `watch` and `wait`: the view of an observer, on every kind of store.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::time::{ClockId, clock_gettime};
use serde_json::Value;

use crate::harness::executables;
use crate::harness::resource_usage::ResourceUsage;
use crate::harness::store_fixtures::{STRANGER, StoreFixture, for_each_store};
use crate::harness::timing_verdict::{assert_in_time, retry_if_machine_slow};
use crate::harness::wait::{now, since, throughout};
use crate::harness::{CandidateProcess, ElectCmd, Ended, Sandbox, eventually, is_long, millis, until};

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text:?}"))
}

/// The output of a watch with `--json`, without an incomplete last line.
fn said(watch: &CandidateProcess) -> Vec<Value> {
    let output = watch.output();
    let whole = output.rfind('\n').map_or("", |end| &output[..end]);
    whole.lines().map(json).collect()
}

fn names_and_events(watch: &CandidateProcess) -> Vec<String> {
    let one = |value: Value| match value["leader"]["name"].as_str() {
        Some(name) => name.to_owned(),
        None => value["event"].as_str().expect("every line has one").to_owned(),
    };
    said(watch).into_iter().map(one).collect()
}

#[track_caller]
fn says(watch: &CandidateProcess, expected: &[&str]) {
    until(&format!("{expected:?}"), || names_and_events(watch) == expected);
}

#[track_caller]
fn ends_with(ended: &Ended, status: i32, stdout: &str) {
    assert_eq!(ended.status.code(), Some(status), "{ended:?}");
    assert_eq!(ended.stdout, stdout, "{ended:?}");
}

/// And elect says where it looked.
#[track_caller]
fn no_leader(fixture: &StoreFixture) {
    let ended = fixture.query("status", &["cron"]).run();
    assert_eq!(ended.status.code(), Some(3), "{ended:?}");
    let mut lines = ended.stdout.lines();
    assert_eq!(lines.next(), Some("cron: no leader"), "{ended:?}");
    let place = format!("  in {}", fixture.name());
    assert!(lines.any(|line| line.starts_with(&place)), "{ended:?}");
}

#[test]
fn a_boundary_with_and_without_a_leader_is_shown_as_text_and_as_json() {
    for_each_store(|fixture| {
        no_leader(&fixture);
        let ended = fixture.query("status", &["cron", "--json"]).run();
        assert_eq!((ended.status.code(), &json(&ended.stdout)["leader"]), (Some(3), &Value::Null));
        let empty = fixture.query("status", &[]).run();
        assert!(empty.stdout.starts_with("no boundaries in "), "{empty:?}");
        ends_with(&fixture.query("status", &["--json"]).run(), 0, "");

        let leader = fixture.leader("web-1");
        let term = fixture.sandbox.history().latest().term;
        let ended = fixture.query("status", &["cron"]).run();
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
        let first = format!("cron: web-1 leads at 10.0.0.5:8080, term {term}, for ");
        assert!(ended.stdout.starts_with(&first) && ended.stdout.contains("\n  id "), "{ended:?}");
        let place = format!("  in {}", fixture.name());
        assert!(ended.stdout.lines().any(|line| line.starts_with(&place)), "{ended:?}");
        let is_short = |line: &str| line.chars().count() < 80 || line.starts_with(&place);
        assert!(ended.stdout.lines().all(is_short), "{ended:?}");
        let ended = fixture.query("status", &["cron", "--json"]).run();
        let document = json(&ended.stdout);
        assert_eq!((document["boundary"].as_str(), document["store"].as_str()), (Some("cron"), Some(fixture.name())));
        assert_eq!(document["leader"]["address"], "10.0.0.5:8080");
        assert_eq!(document["leader"]["term"], term);
        assert_eq!(document["leader"]["lease_left_ms"].is_u64(), fixture.has_server(), "{document}");

        let table = fixture.query("status", &[]).run();
        let rows: Vec<Vec<&str>> = table
            .stdout
            .lines()
            .map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect())
            .collect();
        assert_eq!(rows[0], ["BOUNDARY", "LEADER", "ADDRESS", "TERM", "FOR", "LEASE", "WAITING"], "{table:?}");
        assert_eq!(rows[1][..4], ["cron", "web-1", "10.0.0.5:8080", &term.to_string()], "{table:?}");
        assert_eq!((rows.len(), rows[1].len(), table.status.code()), (2, 7, Some(0)), "{table:?}");
        assert!(!table.stdout.contains('\u{1b}'), "plain, since nobody looks: {table:?}");
        assert_eq!(json(&fixture.query("status", &["--json"]).run().stdout)["leader"]["id"], document["leader"]["id"]);
        leader.terminate();
        no_leader(&fixture);
    });
}

#[test]
fn a_leader_that_died_without_a_word_is_none_once_its_lease_is_over() {
    for_each_store(|fixture| {
        let watch = fixture.query("watch", &["cron", "--json"]).start();
        says(&watch, &["none"]);
        let mut leader = fixture.leads(fixture.candidate("web-1"));
        says(&watch, &["none", "web-1"]);
        leader.kill_with_keeper();
        leader.wait();
        says(&watch, &["none", "web-1", "none"]);
        no_leader(&fixture);
        let table = fixture.query("status", &[]).run().stdout;
        assert!(!table.contains("web-1"), "{table}");
        ends_with(&fixture.query("wait", &["cron", "--for", "none"]).run(), 0, "cron: no leader\n");
        // Its record is under the next one's lock for a moment: nobody is told that it is back.
        for name in ["web-2", "web-3"] {
            fixture.lead_once(name);
        }
        until("the last one is over", || names_and_events(&watch).last().is_some_and(|last| last == "none"));
        let names = names_and_events(&watch);
        assert_eq!(names.iter().filter(|name| *name == "web-1").count(), 1, "{names:?}");
    });
}

#[test]
fn a_watch_begins_with_what_is_there_and_ends_when_it_is_told_to() {
    for_each_store(|fixture| {
        let leader = fixture.leader("web-1");
        let watch = |words: &[&str]| fixture.query("watch", words).start();
        for (mut watch, signal) in [(watch(&["cron", "--json"]), Signal::SIGTERM), (watch(&["--json"]), Signal::SIGINT)]
        {
            says(&watch, &["web-1"]);
            let first = said(&watch).remove(0);
            assert_eq!((first["event"].as_str(), first["boundary"].as_str()), (Some("leader"), Some("cron")));
            assert_eq!((&first["error"], &first["skipped"]), (&Value::Null, &Value::Null), "{first}");
            assert!(first["at"].as_str().is_some_and(|at| at.ends_with('Z') && at.len() == 24), "{first}");
            watch.signal(signal);
            watch.ends_with(0);
            says(&watch, &["web-1", "done"]);
            assert_eq!(watch.log(), "");
        }
        let mut text = watch(&["cron"]);
        until("a line", || text.output().ends_with('\n'));
        let term = fixture.sandbox.history().latest().term;
        let output = text.output();
        let (at, line) = output.split_once(' ').expect("a time, and what happened then");
        assert_eq!((at.len(), line), (24, format!("cron: web-1 leads at 10.0.0.5:8080, term {term}\n").as_str()));
        leader.terminate();
        until("the end of it", || text.output().ends_with(" cron: no leader\n"));
        text.signal(Signal::SIGTERM);
        text.ends_with(0);
    });
}

fn on_each_store_in_time(what: &str, test: impl Fn(StoreFixture) + Sync) {
    retry_if_machine_slow(what, Duration::from_secs(3), |_| for_each_store(&test));
}

/// Every leader there was, in order, against what was said of them. On a machine that is too slow for the requests, a store
/// may have given a candidate a term in which it never led: what is said of that term is true.
#[track_caller]
fn is_true_to(told: &[Value], terms: &[u64]) {
    let (mut last, mut owned_up) = (None, false);
    for line in told {
        let index = line["leader"]["term"].as_u64().map(|term| {
            let index = terms.iter().position(|known| *known == term);
            assert_in_time(index.is_some(), || format!("nobody led under {line}"));
            index.unwrap_or_default()
        });
        match (line["event"].as_str(), index) {
            (Some("leader"), Some(index)) => {
                let step = last
                    .replace(index)
                    .map(|before: usize| index.checked_sub(before).unwrap_or_else(|| panic!("terms go back: {line}")));
                match (step, line["skipped"].as_bool()) {
                    (Some(step), Some(false)) if !owned_up => assert!(step <= 1, "skipped unsaid: {line}"),
                    (Some(step), Some(_)) if owned_up => {
                        assert_in_time(step > 1, || format!("nothing was skipped before: {line}"));
                    }
                    (Some(step), Some(true)) => {
                        assert_in_time(step > 1, || format!("nothing was skipped: {line}"));
                    }
                    (Some(_), Some(false) | None) | (None, _) => {}
                }
                owned_up = false;
            }
            (Some("none"), None) => owned_up |= line["skipped"] == true,
            (Some("error" | "done"), None) => {}
            _ => panic!("{line}"),
        }
    }
}

#[test]
fn after_two_hundred_changes_and_a_restart_of_the_store_the_last_word_is_right_and_the_order_never_wrong() {
    on_each_store_in_time("two hundred changes", |fixture| {
        let rounds = if is_long() { 500 } else { 100 };
        let one = fixture.query("watch", &["cron", "--json"]).start();
        let all = fixture.query("watch", &["--json"]).start();
        says(&one, &["none"]);
        let mut terms = Vec::new();
        for round in 0..rounds {
            if round == rounds / 2 {
                fixture.restart_server();
            }
            terms.push(fixture.lead_once(&format!("web-{round}")));
        }
        let leader = fixture.leader("the-last");
        terms.push(fixture.sandbox.history().latest().term);
        assert!(terms.is_sorted(), "{terms:?}");
        for watch in [one, all] {
            until("the last one is shown", || names_and_events(&watch).last().is_some_and(|name| name == "the-last"));
            let told = said(&watch);
            let leaders = told.iter().filter(|line| line["event"] == "leader").count();
            let errors = told.iter().filter(|line| line["event"] == "error").count();
            println!(
                "figures: {}: of {} leaders in a row a watch showed {leaders}, and {errors} troubles",
                fixture.name(),
                terms.len()
            );
            is_true_to(&told, &terms);
            let sure = told.iter().filter(|line| line["skipped"].is_boolean()).count();
            assert_in_time(sure > told.len() / 2, || {
                format!("the store knows what came before: {sure} of {} lines", told.len())
            });
            assert_eq!(told.last().and_then(|line| line["leader"]["term"].as_u64()), terms.last().copied());
            assert_in_time(leaders > terms.len() / 4 || !fixture.notifies_changes(), || {
                format!("most of it is to be seen: {leaders} of {}", terms.len())
            });
            watch.terminate();
        }
        leader.terminate();
    });
}

#[test]
fn what_came_and_went_unseen_shows_as_a_gap() {
    on_each_store_in_time("a gap", |fixture| {
        let watches = [fixture.query("watch", &["cron"]).start(), fixture.query("watch", &["cron", "--json"]).start()];
        let leader = fixture.leader("shown");
        for watch in &watches {
            until("it is shown", || watch.output().contains("shown"));
        }
        leader.terminate();
        for watch in &watches {
            let is_over = |output: String| output.lines().last().is_some_and(|line| !line.contains("shown"));
            until("it is over", || is_over(watch.output()));
            watch.signal(Signal::SIGSTOP);
        }
        // On a slow machine it may have lost its lease and led again, or not even come to start its command.
        let mut terms: Vec<u64> = said(&watches[1]).iter().filter_map(|line| line["leader"]["term"].as_u64()).collect();
        terms.dedup();
        let shown = *terms.last().expect("it was shown");
        assert!(fixture.sandbox.history().starts.iter().any(|start| terms.contains(&start.term)), "{terms:?}");
        for name in ["unseen-1", "unseen-2"] {
            terms.push(fixture.lead_once(name));
        }
        let leader = fixture.leader("last");
        terms.push(fixture.sandbox.history().latest().term);
        for watch in &watches {
            watch.signal(Signal::SIGCONT);
            until("the last one is shown", || watch.output().contains("last"));
        }
        let text = watches[0].output();
        assert!(!text.contains("unseen"), "{text}");
        assert!(text.contains(&format!("(after term {shown} others were skipped)\n")), "{text}");
        let told = said(&watches[1]);
        is_true_to(&told, &terms);
        assert_eq!(told.last().map(|line| &line["skipped"]), Some(&Value::Bool(true)), "{told:?}");
        leader.terminate();
    });
}

#[test]
fn a_trouble_of_the_store_is_said_once_and_the_watch_goes_on() {
    for_each_store(|fixture| {
        if !fixture.has_server() {
            return;
        }
        let leader = fixture.leader("web-1");
        let watch = fixture.query("watch", &["cron", "--json"]).start();
        says(&watch, &["web-1"]);
        fixture.stop_server();
        says(&watch, &["web-1", "error"]);
        assert!(
            said(&watch)[1]["error"].as_str().is_some_and(|error| error.contains("127.0.0.1:")),
            "{:?}",
            said(&watch)
        );
        for words in [&["cron"][..], &["cron", "--json"], &[]] {
            fixture.query("status", words).run().fails_with(69, &["127.0.0.1:"]);
        }
        let ended = fixture.query("wait", &["cron", "--timeout", "1s"]).run();
        ended.fails_with(69, &["127.0.0.1:", "waited for 1s"]);
        fixture.query("wait", &["cron", "--timeout", "0"]).run().fails_with(69, &["127.0.0.1:"]);
        let mut waiter = fixture.query("wait", &["cron", "--for", "name=web-9"]).start();
        waiter.wait_for_log("still waiting");
        throughout(Duration::from_secs(2), "one line per trouble", || {
            said(&watch).len() == 2 && waiter.log().lines().count() == 1
        });
        fixture.restart_server();
        until("it is shown who leads", || said(&watch).len() > 2);
        let after = names_and_events(&watch);
        assert!(after[2..].iter().all(|name| name == "web-1" || name == "none"), "{after:?}");
        leader.terminate();
        let next = fixture.leader("web-9");
        waiter.ends_with(0);
        until("the next one is shown", || names_and_events(&watch).last().is_some_and(|last| last == "web-9"));
        next.terminate();
    });
}

#[test]
fn a_store_that_is_down_at_first_is_waited_for() {
    for_each_store(|fixture| {
        if !fixture.has_server() {
            return;
        }
        fixture.stop_server();
        let watch = fixture.query("watch", &["--json"]).start();
        says(&watch, &["error"]);
        let mut wait = fixture.query("wait", &[]).start();
        wait.wait_for_log("still waiting");
        fixture.restart_server();
        let leader = fixture.leader("web-1");
        says(&watch, &["error", "web-1"]);
        wait.ends_with(0);
        leader.terminate();
    });
}

#[test]
fn a_wait_ends_when_that_is_so_and_not_before() {
    for_each_store(|fixture| {
        let wait = |words: &[&str]| fixture.query("wait", words).run();
        wait(&["cron", "--timeout", "0"]).fails_with(75, &["nobody came to lead boundary cron within 0s"]);
        wait(&["--timeout", "2s", "--for", "id=x"]).fails_with(75, &["id \"x\" came to lead any boundary"]);
        ends_with(&wait(&["cron", "--for", "none"]), 0, "cron: no leader\n");
        assert_eq!(json(&wait(&["cron", "--for", "none", "--json"]).stdout)["leader"], Value::Null);
        ends_with(&wait(&["--for", "none"]), 0, "");

        let mut waiting =
            ["leader", "name=web-1", "name=web-2"].map(|what| fixture.query("wait", &["cron", "--for", what]).start());
        throughout(Duration::from_millis(300), "nobody leads", || !waiting.iter_mut().any(CandidateProcess::has_ended));
        let leader = fixture.leader("web-1");
        for wait in &mut waiting[..2] {
            wait.ends_with(0);
            let found = wait.output();
            let term = found.strip_prefix("cron: web-1 leads at 10.0.0.5:8080, term ").map(str::trim_end);
            // A win that could not be verified in time is given back, although its term was shown.
            let log = leader.log();
            assert!(term.is_some_and(|term| log.contains(&format!("elected term={term}\n"))), "{found:?}: {log}");
        }
        assert!(!waiting[2].has_ended());
        let found = json(&wait(&["cron", "--json"]).stdout);
        assert_eq!(found["leader"]["name"], "web-1");
        let id = found["leader"]["id"].as_str().expect("an id").to_owned();
        assert_eq!(wait(&["--for", &format!("id={id}")]).status.code(), Some(0));
        wait(&["cron", "--for", "none", "--timeout", "2s"]).fails_with(75, &["did not lose its leader"]);
        let mut over = fixture.query("wait", &["cron", "--for", "none"]).start();
        let next = fixture.candidate("web-2").command(["sleep", "600"]).start();
        next.wait_until_waiting();
        leader.terminate();
        waiting[2].ends_with(0);
        next.terminate();
        over.ends_with(0);
    });
}

/// Its leader may live.
#[test]
fn a_wait_for_no_leader_goes_on_beside_a_record_that_cannot_be_read() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.locks()).expect("an empty place");
    let newer = r#"{"version":3,"state":"sealed","name":"web-9","host":"10.0.0.9"}"#;
    fs::write(sandbox.locks().join("cron.json"), newer).expect("written");
    let wait = ElectCmd::new(&sandbox).query("wait", &["cron", "--for", "none", "--timeout", "1s"]).run();
    assert_eq!(wait.status.code(), Some(75), "{wait:?}");
    wait.stderr_contains(&["newer", "still waiting", "did not lose its leader"]);
}

#[test]
fn who_may_not_look_is_told_so_on_one_line() {
    for_each_store(|fixture| {
        fixture.lead_once("web-1");
        let stranger = fixture.revoke_access();
        for subcommand in ["status", "watch", "wait"] {
            for words in [&[][..], &["cron"], &["cron", "--json"]] {
                let ended = stranger(fixture.query(subcommand, words)).run();
                assert_eq!(ended.stdout, "", "{subcommand} {words:?}: {ended:?}");
                ended.fails_with(77, &[if fixture.has_server() { "permission denied" } else { "uid 47201" }]);
            }
        }
    });
}

#[test]
fn what_makes_no_sense_is_a_usage_error() {
    for_each_store(|fixture| {
        for (subcommand, words, said) in [
            ("watch", &[""][..], "boundary"),
            ("watch", &["a\nb"], "control characters"),
            ("wait", &["cron", "--for", "somebody"], "name=NAME"),
            ("wait", &["cron", "--timeout", "soon"], "10s"),
            ("watch", &["cron", "more"], "more"),
        ] {
            fixture.query(subcommand, words).run().fails_with(2, &[said]);
        }
    });
}

#[test]
fn another_user_sees_who_leads_in_a_directory_that_is_open_to_be_read() {
    let sandbox = Sandbox::new().open_to_all();
    let binary = sandbox.path().join("elect");
    executables::copy(crate::harness::candidate::elect(), &binary);
    fs::create_dir(sandbox.locks()).expect("an empty place");
    fs::set_permissions(sandbox.locks(), fs::Permissions::from_mode(0o755)).expect("a directory of ours");
    let leader = ElectCmd::new(&sandbox).flag("--name", "web-1").command(["sleep", "600"]).start();
    leader.wait_for_log("leader command started");
    let query = |subcommand, words: &[&str]| {
        ElectCmd::new(&sandbox).query(subcommand, words).binary(&binary).wrapped_by(STRANGER)
    };
    let ended = query("status", &["cron"]).run();
    assert!(ended.stdout.starts_with("cron: web-1 leads"), "{ended:?}");
    assert!(query("status", &[]).run().stdout.contains("web-1"));
    let watch = query("watch", &["--json"]).start();
    says(&watch, &["web-1"]);
    leader.terminate();
    says(&watch, &["web-1", "none"]);
    watch.terminate();
}

/// A watch at the end of a pipe.
fn piped(fixture: &StoreFixture, words: &[&str]) -> Child {
    fixture.query("watch", words).process().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts")
}

fn end(child: &mut Child) -> (ExitStatus, String) {
    let status = eventually("it ends", || child.try_wait().expect("a child of ours"));
    let mut said = String::new();
    child.stderr.take().expect("a pipe").read_to_string(&mut said).expect("text");
    (status, said)
}

#[test]
fn a_watch_that_nobody_reads_any_more_ends_without_a_word_and_with_nothing_to_say() {
    for_each_store(|fixture| {
        let mut watch = piped(&fixture, &["cron"]);
        let mut reader = BufReader::new(watch.stdout.take().expect("a pipe"));
        let mut line = String::new();
        reader.read_line(&mut line).expect("text");
        assert!(line.ends_with("cron: no leader\n"), "{line}");
        drop(reader);
        let (status, said) = end(&mut watch);
        assert_eq!((status.code(), said.as_str()), (Some(0), ""));
    });
}

#[test]
fn a_reader_that_is_stuck_keeps_no_watch_from_ending() {
    for_each_store(|fixture| {
        // More than a pipe holds, all at once: what no reader takes.
        let name = "x".repeat(250);
        let mut watch = piped(&fixture, &["cron", "--json"]);
        let stdout = watch.stdout.take().expect("a pipe");
        nix::fcntl::fcntl(&stdout, nix::fcntl::FcntlArg::F_SETPIPE_SZ(4096)).expect("a smaller pipe");
        for _ in 0..30 {
            fixture.lead_once(&name);
        }
        let pid = i32::try_from(watch.id()).expect("process ids are small");
        crate::harness::processes::signal(pid, Signal::SIGTERM);
        let (status, said) = end(&mut watch);
        assert_eq!((status.code(), said.as_str()), (Some(0), ""));
        drop(stdout);
    });
}

/// Of all its threads.
fn wakeups(pid: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process that is there");
    let line = text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).expect("a line for it");
    line.trim().parse().expect("a number")
}

#[test]
fn a_watch_costs_next_to_nothing_while_nothing_changes() {
    for_each_store(|fixture| {
        let window = Duration::from_secs(if is_long() { 20 } else { 5 });
        let leader = fixture.leader("web-1");
        let watches = [&["cron"][..], &[]].map(|words| fixture.query("watch", words).start());
        for watch in &watches {
            until("a line", || !watch.output().is_empty());
        }
        let started = now();
        let before = watches.each_ref().map(|watch| (ResourceUsage::of(watch.pid()).cpu, wakeups(watch.pid())));
        until("they have been watched for a while", || since(started) >= window);
        for (watch, (cpu, woken)) in watches.iter().zip(before) {
            let usage = ResourceUsage::of(watch.pid());
            let (cpu, woken) = (usage.cpu.saturating_sub(cpu), wakeups(watch.pid()) - woken);
            println!(
                "figures: {}: a watch over {} s with nothing to say: {} of CPU, {woken} wake-ups, {} kB",
                fixture.name(),
                window.as_secs(),
                millis(cpu),
                usage.resident >> 10
            );
            assert!(cpu < window / 10, "{cpu:?}");
            assert!(woken < window.as_secs() * 50, "{woken} wake-ups");
            assert_eq!(watch.output().lines().count(), 1);
        }
        leader.terminate();
    });
}

#[test]
fn a_change_is_shown_when_it_happens() {
    on_each_store_in_time("a change is shown", |fixture| {
        let watch = fixture.query("watch", &["cron", "--json"]).start();
        says(&watch, &["none"]);
        let offset = || {
            let wall = Duration::from(clock_gettime(ClockId::CLOCK_REALTIME).expect("the wall clock exists"));
            wall.as_secs_f64() - now().as_secs_f64()
        };
        let at = |line: &Value| {
            let at = humantime::parse_rfc3339(line["at"].as_str().expect("a time")).expect("a time");
            at.duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs_f64() - offset()
        };
        let (mut begins, mut ends) = (Vec::new(), Vec::new());
        let next_line = |before: usize| eventually("it is shown", || said(&watch).into_iter().nth(before));
        for _ in 0..if is_long() { 50 } else { 10 } {
            let before = said(&watch).len();
            let leader = fixture.leader("web-1");
            let started = fixture.sandbox.history().latest();
            let gone = fixture.sandbox.watch_the_end_of(started.pid);
            begins.push(at(&next_line(before)) - started.at.as_secs_f64());
            let before = said(&watch).len();
            leader.terminate();
            let gone = gone.join().expect("the watch on the tree");
            ends.push(at(&next_line(before)) - gone.as_secs_f64());
        }
        for (what, mut delays) in [("after the command began", begins), ("after the command's end", ends)] {
            delays.sort_by(f64::total_cmp);
            let (median, longest) = (delays[delays.len() / 2], delays[delays.len() - 1]);
            println!(
                "figures: {}: a line comes {:.1} ms {what}, at most {:.1} ms",
                fixture.name(),
                median * 1e3,
                longest * 1e3
            );
            let hears = median < 1.0 || !fixture.notifies_changes();
            assert_in_time(hears, || format!("not found by asking every two seconds: {delays:?}"));
            assert_in_time(longest < 5.0, || format!("but by asking it is: {delays:?}"));
        }
    });
}
