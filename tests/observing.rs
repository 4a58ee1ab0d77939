//! `status`, `watch` and `wait`: what anybody can see of an election, on every kind of store.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::time::{ClockId, clock_gettime};
use serde_json::Value;

use crate::harness::sites::{STRANGER, Site, each};
use crate::harness::usage::Usage;
use crate::harness::wait::{now, since, throughout};
use crate::harness::{Candidate, Elect, Ended, Place, eventually, is_long, millis, until};

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text:?}"))
}

/// What a watch with `--json` has said, but for a line that is not whole yet.
fn said(watch: &Candidate) -> Vec<Value> {
    let output = watch.output();
    let whole = output.rfind('\n').map_or("", |end| &output[..end]);
    whole.lines().map(json).collect()
}

fn names_and_events(watch: &Candidate) -> Vec<String> {
    let one = |value: Value| match value["leader"]["name"].as_str() {
        Some(name) => name.to_owned(),
        None => value["event"].as_str().expect("every line has one").to_owned(),
    };
    said(watch).into_iter().map(one).collect()
}

#[track_caller]
fn says(watch: &Candidate, expected: &[&str]) {
    until(&format!("{expected:?}"), || names_and_events(watch) == expected);
}

#[track_caller]
fn ends_with(ended: &Ended, status: i32, stdout: &str) {
    assert_eq!(ended.status.code(), Some(status), "{ended:?}");
    assert_eq!(ended.stdout, stdout, "{ended:?}");
}

#[test]
fn a_boundary_with_and_without_a_leader_is_shown_as_text_and_as_json() {
    each(|site| {
        ends_with(&site.asks("status", &["cron"]).run(), 3, "cron: no leader\n");
        let ended = site.asks("status", &["cron", "--json"]).run();
        assert_eq!((ended.status.code(), &json(&ended.stdout)["leader"]), (Some(3), &Value::Null));
        let empty = site.asks("status", &[]).run();
        assert!(empty.stdout.starts_with("no boundaries in "), "{empty:?}");
        ends_with(&site.asks("status", &["--json"]).run(), 0, "");

        let leader = site.leader("web-1");
        let term = site.place.history().latest().term;
        let ended = site.asks("status", &["cron"]).run();
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
        let first = format!("cron: web-1 leads at 10.0.0.5:8080, term {term}, for ");
        assert!(ended.stdout.starts_with(&first) && ended.stdout.contains("\n  id "), "{ended:?}");
        assert!(ended.stdout.lines().all(|line| line.chars().count() < 80), "{ended:?}");
        let ended = site.asks("status", &["cron", "--json"]).run();
        let document = json(&ended.stdout);
        assert_eq!((document["boundary"].as_str(), document["store"].as_str()), (Some("cron"), Some(site.name())));
        assert_eq!(document["leader"]["address"], "10.0.0.5:8080");
        assert_eq!(document["leader"]["term"], term);
        assert_eq!(document["leader"]["lease_left_ms"].is_u64(), site.has_server(), "{document}");

        let table = site.asks("status", &[]).run();
        let rows: Vec<Vec<&str>> = table
            .stdout
            .lines()
            .map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect())
            .collect();
        assert_eq!(rows[0], ["BOUNDARY", "LEADER", "ADDRESS", "TERM", "FOR", "LEASE", "WAITING"], "{table:?}");
        assert_eq!(rows[1][..4], ["cron", "web-1", "10.0.0.5:8080", &term.to_string()], "{table:?}");
        assert_eq!((rows.len(), rows[1].len(), table.status.code()), (2, 7, Some(0)), "{table:?}");
        assert!(!table.stdout.contains('\u{1b}'), "plain, since nobody looks: {table:?}");
        assert_eq!(json(&site.asks("status", &["--json"]).run().stdout)["leader"]["id"], document["leader"]["id"]);
        leader.stops();
        ends_with(&site.asks("status", &["cron"]).run(), 3, "cron: no leader\n");
    });
}

#[test]
fn a_leader_that_died_without_a_word_is_none_once_its_lease_is_over() {
    each(|site| {
        let watch = site.asks("watch", &["cron", "--json"]).start();
        says(&watch, &["none"]);
        let mut leader = site.leader("web-1");
        says(&watch, &["none", "web-1"]);
        leader.kill_with_keeper();
        leader.wait();
        says(&watch, &["none", "web-1", "none"]);
        ends_with(&site.asks("status", &["cron"]).run(), 3, "cron: no leader\n");
        let table = site.asks("status", &[]).run().stdout;
        assert!(!table.contains("web-1"), "{table}");
        ends_with(&site.asks("wait", &["cron", "--for", "none"]).run(), 0, "cron: no leader\n");
        // Its record is under the next one's lock for a moment: nobody is told that it is back.
        for name in ["web-2", "web-3"] {
            site.leads_briefly(name);
        }
        until("the last one is over", || names_and_events(&watch).last().is_some_and(|last| last == "none"));
        let names = names_and_events(&watch);
        assert_eq!(names.iter().filter(|name| *name == "web-1").count(), 1, "{names:?}");
    });
}

#[test]
fn a_watch_begins_with_what_is_there_and_ends_when_it_is_told_to() {
    each(|site| {
        let leader = site.leader("web-1");
        let watch = |words: &[&str]| site.asks("watch", words).start();
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
        let term = site.place.history().latest().term;
        let output = text.output();
        let (at, line) = output.split_once(' ').expect("a time, and what happened then");
        assert_eq!((at.len(), line), (24, format!("cron: web-1 leads at 10.0.0.5:8080, term {term}\n").as_str()));
        leader.stops();
        until("the end of it", || text.output().ends_with(" cron: no leader\n"));
        text.signal(Signal::SIGTERM);
        text.ends_with(0);
    });
}

/// Every leader there was, in order, against what was said of them.
#[track_caller]
fn is_true_to(told: &[Value], terms: &[u64]) {
    let (mut last, mut owned_up) = (None, false);
    for line in told {
        let index = line["leader"]["term"].as_u64().map(|term| {
            terms.iter().position(|known| *known == term).unwrap_or_else(|| panic!("nobody led under {line}"))
        });
        match (line["event"].as_str(), index) {
            (Some("leader"), Some(index)) => {
                let step = last
                    .replace(index)
                    .map(|before: usize| index.checked_sub(before).unwrap_or_else(|| panic!("terms go back: {line}")));
                match (step, line["skipped"].as_bool()) {
                    (Some(step), Some(false)) if !owned_up => assert!(step <= 1, "skipped unsaid: {line}"),
                    (Some(step), Some(_)) if owned_up => assert!(step > 1, "nothing was skipped before: {line}"),
                    (Some(step), Some(true)) => assert!(step > 1, "nothing was skipped: {line}"),
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
    each(|site| {
        let rounds = if is_long() { 500 } else { 100 };
        let one = site.asks("watch", &["cron", "--json"]).start();
        let all = site.asks("watch", &["--json"]).start();
        says(&one, &["none"]);
        let mut terms = Vec::new();
        for round in 0..rounds {
            if round == rounds / 2 {
                site.comes_back();
            }
            terms.push(site.leads_briefly(&format!("web-{round}")));
        }
        let leader = site.leader("the-last");
        terms.push(site.place.history().latest().term);
        assert!(terms.is_sorted(), "{terms:?}");
        for watch in [one, all] {
            until("the last one is shown", || names_and_events(&watch).last().is_some_and(|name| name == "the-last"));
            let told = said(&watch);
            let leaders = told.iter().filter(|line| line["event"] == "leader").count();
            let errors = told.iter().filter(|line| line["event"] == "error").count();
            println!(
                "figures: {}: of {} leaders in a row a watch showed {leaders}, and {errors} troubles",
                site.name(),
                terms.len()
            );
            is_true_to(&told, &terms);
            let sure = told.iter().filter(|line| line["skipped"].is_boolean()).count();
            assert!(sure > told.len() / 2, "the store knows what came before: {sure} of {} lines", told.len());
            assert_eq!(told.last().and_then(|line| line["leader"]["term"].as_u64()), terms.last().copied());
            assert!(
                leaders > terms.len() / 4 || !site.tells_changes(),
                "most of it is to be seen: {leaders} of {}",
                terms.len()
            );
            watch.stops();
        }
        leader.stops();
    });
}

#[test]
fn what_came_and_went_unseen_shows_as_a_gap() {
    each(|site| {
        let watches = [site.asks("watch", &["cron"]).start(), site.asks("watch", &["cron", "--json"]).start()];
        let leader = site.leader("shown");
        let shown = site.place.history().latest().term;
        for watch in &watches {
            until("it is shown", || watch.output().contains("shown"));
        }
        leader.stops();
        for watch in &watches {
            let is_over = |output: String| output.lines().last().is_some_and(|line| !line.contains("shown"));
            until("it is over", || is_over(watch.output()));
            watch.signal(Signal::SIGSTOP);
        }
        let mut terms = vec![shown];
        for name in ["unseen-1", "unseen-2"] {
            terms.push(site.leads_briefly(name));
        }
        let leader = site.leader("last");
        terms.push(site.place.history().latest().term);
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
        leader.stops();
    });
}

#[test]
fn a_trouble_of_the_store_is_said_once_and_the_watch_goes_on() {
    each(|site| {
        if !site.has_server() {
            return;
        }
        let leader = site.leader("web-1");
        let watch = site.asks("watch", &["cron", "--json"]).start();
        says(&watch, &["web-1"]);
        site.goes_down();
        says(&watch, &["web-1", "error"]);
        assert!(
            said(&watch)[1]["error"].as_str().is_some_and(|error| error.contains("127.0.0.1:")),
            "{:?}",
            said(&watch)
        );
        for words in [&["cron"][..], &["cron", "--json"], &[]] {
            site.asks("status", words).run().fails_with(69, &["127.0.0.1:"]);
        }
        let ended = site.asks("wait", &["cron", "--timeout", "1s"]).run();
        ended.fails_with(69, &["127.0.0.1:", "waited for 1s"]);
        site.asks("wait", &["cron", "--timeout", "0"]).run().fails_with(69, &["127.0.0.1:"]);
        let mut patient = site.asks("wait", &["cron", "--for", "name=web-9"]).start();
        patient.says("still waiting");
        throughout(Duration::from_secs(2), "one line per trouble", || {
            said(&watch).len() == 2 && patient.log().lines().count() == 1
        });
        site.comes_back();
        until("it is shown who leads", || said(&watch).len() > 2);
        let after = names_and_events(&watch);
        assert!(after[2..].iter().all(|name| name == "web-1" || name == "none"), "{after:?}");
        leader.stops();
        let next = site.leader("web-9");
        patient.ends_with(0);
        until("the next one is shown", || names_and_events(&watch).last().is_some_and(|last| last == "web-9"));
        next.stops();
    });
}

#[test]
fn a_store_that_is_down_at_first_is_waited_for() {
    each(|site| {
        if !site.has_server() {
            return;
        }
        site.goes_down();
        let watch = site.asks("watch", &["--json"]).start();
        says(&watch, &["error"]);
        let mut wait = site.asks("wait", &[]).start();
        wait.says("still waiting");
        site.comes_back();
        let leader = site.leader("web-1");
        says(&watch, &["error", "web-1"]);
        wait.ends_with(0);
        leader.stops();
    });
}

#[test]
fn a_wait_ends_when_that_is_so_and_not_before() {
    each(|site| {
        let wait = |words: &[&str]| site.asks("wait", words).run();
        wait(&["cron", "--timeout", "0"]).fails_with(75, &["nobody came to lead boundary cron within 0s"]);
        wait(&["--timeout", "300ms", "--for", "id=x"]).fails_with(75, &["id \"x\" came to lead any boundary"]);
        ends_with(&wait(&["cron", "--for", "none"]), 0, "cron: no leader\n");
        assert_eq!(json(&wait(&["cron", "--for", "none", "--json"]).stdout)["leader"], Value::Null);
        ends_with(&wait(&["--for", "none"]), 0, "");

        let mut waiting =
            ["leader", "name=web-1", "name=web-2"].map(|what| site.asks("wait", &["cron", "--for", what]).start());
        throughout(Duration::from_millis(300), "nobody leads", || !waiting.iter_mut().any(Candidate::has_ended));
        let leader = site.leader("web-1");
        let term = site.place.history().latest().term;
        for wait in &mut waiting[..2] {
            wait.ends_with(0);
            assert_eq!(wait.output(), format!("cron: web-1 leads at 10.0.0.5:8080, term {term}\n"));
        }
        assert!(!waiting[2].has_ended());
        let found = json(&wait(&["cron", "--json"]).stdout);
        assert_eq!(found["leader"]["name"], "web-1");
        let id = found["leader"]["id"].as_str().expect("an id").to_owned();
        assert_eq!(wait(&["--for", &format!("id={id}")]).status.code(), Some(0));
        wait(&["cron", "--for", "none", "--timeout", "300ms"]).fails_with(75, &["did not lose its leader"]);
        let mut over = site.asks("wait", &["cron", "--for", "none"]).start();
        let next = site.candidate("web-2").command(["sleep", "600"]).start();
        next.waits();
        leader.stops();
        waiting[2].ends_with(0);
        next.stops();
        over.ends_with(0);
    });
}

#[test]
fn who_may_not_look_is_told_so_on_one_line() {
    each(|site| {
        site.leads_briefly("web-1");
        let stranger = site.shuts_out();
        for verb in ["status", "watch", "wait"] {
            for words in [&[][..], &["cron"], &["cron", "--json"]] {
                let ended = stranger(site.asks(verb, words)).run();
                assert_eq!(ended.stdout, "", "{verb} {words:?}: {ended:?}");
                ended.fails_with(77, &[if site.has_server() { "permission denied" } else { "uid 47201" }]);
            }
        }
    });
}

#[test]
fn what_makes_no_sense_is_a_usage_error() {
    each(|site| {
        for (verb, words, said) in [
            ("watch", &[""][..], "boundary"),
            ("watch", &["a\nb"], "control characters"),
            ("wait", &["cron", "--for", "somebody"], "name=NAME"),
            ("wait", &["cron", "--timeout", "soon"], "10s"),
            ("watch", &["cron", "more"], "more"),
        ] {
            site.asks(verb, words).run().fails_with(2, &[said]);
        }
    });
}

#[test]
fn another_user_sees_who_leads_in_a_directory_that_is_open_to_be_read() {
    let place = Place::new().open_to_all();
    let binary = place.path().join("elect");
    fs::copy(env!("CARGO_BIN_EXE_elect"), &binary).expect("the place takes a copy");
    fs::create_dir(place.locks()).expect("an empty place");
    fs::set_permissions(place.locks(), fs::Permissions::from_mode(0o755)).expect("a directory of ours");
    let leader = Elect::new(&place).flag("--name", "web-1").command(["sleep", "600"]).start();
    leader.says("leader command started");
    let asks = |verb, words: &[&str]| Elect::new(&place).asks(verb, words).binary(&binary).under(STRANGER);
    let ended = asks("status", &["cron"]).run();
    assert!(ended.stdout.starts_with("cron: web-1 leads"), "{ended:?}");
    assert!(asks("status", &[]).run().stdout.contains("web-1"));
    let watch = asks("watch", &["--json"]).start();
    says(&watch, &["web-1"]);
    leader.stops();
    says(&watch, &["web-1", "none"]);
    watch.stops();
}

/// A watch at the end of a pipe.
fn piped(site: &Site, words: &[&str]) -> Child {
    site.asks("watch", words).process().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts")
}

fn end(child: &mut Child) -> (ExitStatus, String) {
    let status = eventually("it ends", || child.try_wait().expect("a child of ours"));
    let mut said = String::new();
    child.stderr.take().expect("a pipe").read_to_string(&mut said).expect("text");
    (status, said)
}

#[test]
fn a_watch_that_nobody_reads_any_more_ends_without_a_word_and_with_nothing_to_say() {
    each(|site| {
        let mut watch = piped(&site, &["cron"]);
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
    each(|site| {
        // More than a pipe holds, all at once: what no reader takes.
        let name = "x".repeat(250);
        let mut watch = piped(&site, &["cron", "--json"]);
        let stdout = watch.stdout.take().expect("a pipe");
        nix::fcntl::fcntl(&stdout, nix::fcntl::FcntlArg::F_SETPIPE_SZ(4096)).expect("a smaller pipe");
        for _ in 0..30 {
            site.leads_briefly(&name);
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
    each(|site| {
        let window = Duration::from_secs(if is_long() { 20 } else { 5 });
        let leader = site.leader("web-1");
        let watches = [&["cron"][..], &[]].map(|words| site.asks("watch", words).start());
        for watch in &watches {
            until("a line", || !watch.output().is_empty());
        }
        let started = now();
        let before = watches.each_ref().map(|watch| (Usage::of(watch.pid()).cpu, wakeups(watch.pid())));
        until("they have been watched for a while", || since(started) >= window);
        for (watch, (cpu, woken)) in watches.iter().zip(before) {
            let usage = Usage::of(watch.pid());
            let (cpu, woken) = (usage.cpu.saturating_sub(cpu), wakeups(watch.pid()) - woken);
            println!(
                "figures: {}: a watch over {} s with nothing to say: {} of CPU, {woken} wake-ups, {} kB",
                site.name(),
                window.as_secs(),
                millis(cpu),
                usage.resident >> 10
            );
            assert!(cpu < window / 10, "{cpu:?}");
            assert!(woken < window.as_secs() * 50, "{woken} wake-ups");
            assert_eq!(watch.output().lines().count(), 1);
        }
        leader.stops();
    });
}

#[test]
fn a_change_is_shown_when_it_happens() {
    each(|site| {
        let watch = site.asks("watch", &["cron", "--json"]).start();
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
        for round in 0..if is_long() { 50 } else { 10 } {
            let leader = site.leader("web-1");
            let started = site.place.history().latest();
            let gone = site.place.watch_the_end_of(started.pid);
            until("it is shown", || said(&watch).len() == 2 * round + 2);
            begins.push(at(&said(&watch)[2 * round + 1]) - started.at.as_secs_f64());
            leader.stops();
            let gone = gone.join().expect("the watch on the tree");
            until("its end is shown", || said(&watch).len() == 2 * round + 3);
            ends.push(at(&said(&watch)[2 * round + 2]) - gone.as_secs_f64());
        }
        for (what, mut delays) in [("after the command began", begins), ("after the command's end", ends)] {
            delays.sort_by(f64::total_cmp);
            let (median, longest) = (delays[delays.len() / 2], delays[delays.len() - 1]);
            println!(
                "figures: {}: a line comes {:.1} ms {what}, at most {:.1} ms",
                site.name(),
                median * 1e3,
                longest * 1e3
            );
            assert!(median < 1.0 || !site.tells_changes(), "not found by asking every two seconds: {delays:?}");
            assert!(longest < 5.0, "but by asking it is: {delays:?}");
        }
    });
}
