//! `assert`, `extend`, `resign`, `proclaim`: requests to a candidate on this host. Each test holds for every store.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::harness::candidate::elect;
use crate::harness::executables;
use crate::harness::store_fixtures::{StoreFixture, for_each_store};
use crate::harness::{CandidateProcess, ElectCmd, Ended, Sandbox, Witness, eventually, host_tools, is_long, until};
use crate::successors::is_leading;

/// The lease of candidates that must not lose it, however busy the machine is.
const LONG_TTL: &str = "12s";

/// Sockets are found by the boundary's name alone, and all tests are the same user.
fn boundary() -> &'static str {
    static LAST: AtomicUsize = AtomicUsize::new(0);
    let number = LAST.fetch_add(1, Ordering::Relaxed);
    format!("steered/{}-{number}", std::process::id()).leak()
}

fn candidate(fixture: &StoreFixture, boundary: &'static str, name: &str) -> ElectCmd {
    let candidate = ElectCmd::new(&fixture.sandbox).store(fixture.url()).flag("--ttl", LONG_TTL).flag("--name", name);
    candidate.boundary(boundary).witness(&Witness::new())
}

#[track_caller]
fn leader(fixture: &StoreFixture, boundary: &'static str, name: &str) -> CandidateProcess {
    let before = fixture.sandbox.history().starts.len();
    let leader = candidate(fixture, boundary, name).start();
    fixture.sandbox.starts(before + 1);
    leader
}

/// One of the four, about that boundary.
fn control(fixture: &StoreFixture, subcommand: &'static str, boundary: &str, words: &[&str]) -> Ended {
    let words = [&["--boundary", boundary], words].concat();
    ElectCmd::new(&fixture.sandbox).store(None).query(subcommand, &words).run()
}

#[track_caller]
fn says_yes(ended: &Ended) {
    assert_eq!((ended.status.code(), ended.stderr.as_str()), (Some(0), ""), "{ended:?}");
}

fn status(fixture: &StoreFixture, boundary: &str) -> Value {
    let ended = fixture.query("status", &[boundary, "--json"]).run();
    serde_json::from_str(ended.stdout.trim()).unwrap_or_else(|_| panic!("an object: {ended:?}"))
}

#[track_caller]
fn leads(fixture: &StoreFixture, boundary: &str, name: &str) -> Value {
    eventually(&format!("{name} leads"), || {
        let leader = status(fixture, boundary)["leader"].clone();
        (leader["name"] == name).then_some(leader)
    })
}

#[test]
fn a_command_asks_whether_it_leads_and_how_long_for() {
    for_each_store(|fixture| {
        let script = "$PROGRAM assert; echo $?; $PROGRAM extend; echo $?; ELECT_TERM=1 $PROGRAM assert; echo $?";
        let program = elect().display().to_string();
        let ended = fixture.candidate("web-1").boundary(boundary()).variable("PROGRAM", &program).shell(script).run();
        let told: Vec<&str> = ended.stdout.lines().collect();
        let [asserted, extended, status, other_term] = told[..] else { panic!("{ended:?}") };
        assert_eq!((asserted, status, other_term), ("0", "0", "3"), "{ended:?}");
        let is_left = extended.parse::<f64>().is_ok_and(|seconds| seconds > 0.0);
        assert!(if fixture.has_server() { is_left } else { extended == "no end" }, "seconds that are left: {ended:?}");
        ended.stderr_contains(&["elect: not the leader"]);
    });
}

#[test]
fn from_outside_a_candidate_is_found_by_its_boundary_or_by_its_id() {
    for_each_store(|fixture| {
        let boundary = boundary();
        let first = leader(&fixture, boundary, "web-1");
        says_yes(&control(&fixture, "assert", boundary, &[]));
        let extended = control(&fixture, "extend", boundary, &[]);
        says_yes(&extended);
        assert_eq!(extended.stdout.lines().count(), 1);
        let second = candidate(&fixture, boundary, "web-2").start();
        second.wait_for_log("web-1 leads");
        let several = control(&fixture, "assert", boundary, &[]);
        several.fails_with(2, &["several candidates", "--id", "(web-1)", "(web-2)"]);
        let leads = leads(&fixture, boundary, "web-1")["id"].as_str().expect("an id").to_owned();
        let listed = several.stderr.trim().rsplit(": ").next().expect("a list").split(", ");
        let listed = listed.map(|candidate| candidate.split(" (").next().unwrap_or_default().to_owned());
        let waits = listed.into_iter().find(|id| *id != leads).expect("two are listed");
        says_yes(&control(&fixture, "assert", boundary, &["--id", &leads]));
        for subcommand in ["assert", "extend", "resign"] {
            control(&fixture, subcommand, boundary, &["--id", &waits]).fails_with(3, &["not the leader"]);
        }
        control(&fixture, "proclaim", boundary, &["--id", &waits, "--name", "x"]).fails_with(3, &["not the leader"]);
        control(&fixture, "assert", boundary, &["--id", "nobody"]).fails_with(69, &[boundary, "nobody"]);
        second.terminate();
        first.terminate();
        control(&fixture, "assert", boundary, &[]).fails_with(69, &["no candidate", boundary]);
    });
}

#[test]
fn a_leader_that_resigns_makes_room_and_stands_behind_the_others() {
    for_each_store(|fixture| {
        let boundary = boundary();
        let one = leader(&fixture, boundary, "web-1");
        let other = candidate(&fixture, boundary, "web-2").start();
        other.wait_for_log("web-1 leads");
        let rounds = if is_long() { 100 } else { 6 };
        for round in 0..rounds {
            let (from, to, resigns) =
                if round % 2 == 0 { ("web-1", "web-2", &one) } else { ("web-2", "web-1", &other) };
            let id = leads(&fixture, boundary, from)["id"].as_str().expect("an id").to_owned();
            // Of the two the one that leads is meant, if it is not said.
            let words: &[&str] = if round % 3 == 0 { &[] } else { &["--id", &id] };
            says_yes(&control(&fixture, "resign", boundary, words));
            // As a deployment script does.
            let waited = fixture.query("wait", &[boundary, "--for", &format!("name={to}"), "--timeout", "20s"]).run();
            assert_eq!(waited.status.code(), Some(0), "{waited:?}");
            fixture.sandbox.starts(round + 2);
            let stands = format!("waiting: {to} leads");
            until("it stands again", || resigns.log().matches(&stands).count() > round / 2 + round % 2);
        }
        one.terminate();
        other.terminate();
        fixture.sandbox.history().is_safe();
    });
}

#[test]
fn a_leader_proclaims_another_name_and_address_in_the_same_term() {
    for_each_store(|fixture| {
        let boundary = boundary();
        let leader = leader(&fixture, boundary, "web-1");
        let before = leads(&fixture, boundary, "web-1");
        let watch = fixture.query("watch", &[boundary, "--json"]).start();
        until("the watch has begun", || watch.output().contains("web-1"));
        says_yes(&control(&fixture, "proclaim", boundary, &["--name", "blue", "--advertise", "[::1]:8080"]));
        let after = leads(&fixture, boundary, "blue");
        assert_eq!((&after["host"], &after["port"]), (&"::1".into(), &8080.into()));
        for same in ["id", "term", "since"] {
            assert_eq!(after[same], before[same], "{same}");
        }
        until("the watch tells", || watch.output().contains("blue"));
        // An omitted field stays as it is, and an invalid name is refused.
        says_yes(&control(&fixture, "proclaim", boundary, &["--name", "green"]));
        assert_eq!(leads(&fixture, boundary, "green")["host"], "::1");
        control(&fixture, "proclaim", boundary, &[]).fails_with(2, &["--name", "--advertise"]);
        control(&fixture, "proclaim", boundary, &["--name", "a\nb"]).fails_with(2, &["--name"]);
        control(&fixture, "proclaim", boundary, &["--advertise", "a b"]).fails_with(2, &["--advertise"]);
        watch.terminate();
        leader.terminate();
    });
}

#[test]
fn a_name_that_is_proclaimed_while_another_takes_over_is_never_the_others() {
    for_each_store(|fixture| {
        let boundary = boundary();
        let one = leader(&fixture, boundary, "web-1");
        let other = candidate(&fixture, boundary, "web-2").start();
        other.wait_for_log("web-1 leads");
        for round in 0..if is_long() { 20 } else { 4 } {
            // The store shows a win before the candidate has verified it, and only then can it resign.
            let id = eventually("a candidate leads", || {
                let id = status(&fixture, boundary)["leader"]["id"].as_str()?.to_owned();
                is_leading(&fixture, boundary, &id).then_some(id)
            });
            let mine = format!("name-{round}");
            std::thread::scope(|scope| {
                let proclaims =
                    scope.spawn(|| control(&fixture, "proclaim", boundary, &["--id", &id, "--name", &mine]));
                let resigns = scope.spawn(|| control(&fixture, "resign", boundary, &["--id", &id]));
                says_yes(&resigns.join().expect("it ends"));
                let proclaimed = proclaims.join().expect("it ends");
                assert!([Some(0), Some(3)].contains(&proclaimed.status.code()), "{proclaimed:?}");
            });
            let next = eventually("somebody leads", || {
                let leader = status(&fixture, boundary)["leader"].clone();
                (!leader.is_null()).then_some(leader)
            });
            // Either candidate may lead: a name belongs to its own candidate.
            if next["id"] != id.as_str() {
                assert_ne!(next["name"], mine.as_str(), "{next}");
            }
        }
        one.terminate();
        other.terminate();
        fixture.sandbox.history().is_safe();
    });
}

/// The variables of the leader's command.
fn variables(fixture: &StoreFixture) -> Vec<(String, String)> {
    let witness = fixture.sandbox.running().into_iter().find(|process| process.name == "witness").expect("it runs");
    let environment = fs::read(format!("/proc/{}/environ", witness.pid)).expect("ours");
    let text = String::from_utf8_lossy(&environment).into_owned();
    let all = text.split('\0').filter_map(|pair| pair.split_once('='));
    all.filter(|(name, _)| name.starts_with("ELECT_")).map(|(name, value)| (name.into(), value.into())).collect()
}

/// `elect assert` as a process of that command, which may have outlived it.
fn assert_as(fixture: &StoreFixture, variables: &[(String, String)], words: &[&str]) -> ElectCmd {
    let query = ElectCmd::new(&fixture.sandbox).store(None).query("assert", words);
    variables.iter().fold(query, |query, (name, value)| query.variable(name, value))
}

#[test]
fn a_term_that_is_over_is_over_also_for_whoever_outlived_it() {
    for_each_store(|fixture| {
        let boundary = boundary();
        let leader = leader(&fixture, boundary, "web-1");
        let first = variables(&fixture);
        says_yes(&assert_as(&fixture, &first, &[]).run());
        // No other candidate is there: the same one leads again, in another term.
        let before = fixture.sandbox.history().starts.len();
        says_yes(&control(&fixture, "resign", boundary, &[]));
        fixture.sandbox.starts(before + 1);
        let second = variables(&fixture);
        says_yes(&assert_as(&fixture, &second, &[]).run());
        assert_as(&fixture, &first, &[]).run().fails_with(3, &["not the leader"]);
        // As sudo leaves it: the term counts as long as the socket does.
        let kept = |name: &str| ["ELECT_SOCKET", "ELECT_TERM"].contains(&name);
        let few: Vec<_> = first.iter().filter(|(name, _)| kept(name)).cloned().collect();
        assert_eq!(few.len(), 2, "{first:?}");
        assert_as(&fixture, &few, &[]).run().fails_with(3, &["not the leader"]);
        // A candidate that stands still says nothing, and nothing is no yes.
        leader.signal(Signal::SIGSTOP);
        assert_as(&fixture, &second, &["--timeout", "300ms"]).run().fails_with(75, &["did not answer"]);
        leader.signal(Signal::SIGCONT);
        leader.terminate();
        assert_as(&fixture, &second, &[]).run().fails_with(69, &[]);
    });
}

#[test]
fn a_host_that_was_frozen_for_longer_than_the_ttl_gets_no_yes() {
    for_each_store(|fixture| {
        if !fixture.has_server() {
            // A lock has no end that could be slept through.
            return;
        }
        let leader = leader(&fixture, boundary(), "web-1");
        let variables = variables(&fixture);
        let everybody: Vec<i32> = fixture.sandbox.running().into_iter().map(|process| process.pid).collect();
        for &pid in &everybody {
            crate::harness::processes::signal(pid, Signal::SIGSTOP);
        }
        let mut asking = assert_as(&fixture, &variables, &["--timeout", "1m"]).start();
        until("the lease has run out", || has_expired(&fixture));
        for &pid in everybody.iter().rev() {
            crate::harness::processes::signal(pid, Signal::SIGCONT);
        }
        assert_ne!(asking.wait().code(), Some(0), "{}", asking.log());
        leader.terminate();
    });
}

/// Whether the store has forgotten everybody.
fn has_expired(fixture: &StoreFixture) -> bool {
    let all = fixture.query("status", &["--json"]).run().stdout;
    all.lines().all(|line| serde_json::from_str::<Value>(line).is_ok_and(|object| object["leader"].is_null()))
}

#[test]
fn another_user_is_refused() {
    let sandbox = Sandbox::new().open_to_all();
    let site_boundary = boundary();
    let leader = ElectCmd::new(&sandbox).boundary(site_boundary).witness(&Witness::new()).start();
    sandbox.starts(1);
    let binary = sandbox.path().join("elect");
    executables::copy(elect(), &binary);
    let socket = socket_of(&leader, site_boundary);
    let query = |words: &[&str]| {
        let query = ElectCmd::new(&sandbox).store(None).binary(&binary).query("assert", words);
        query.wrapped_by(["setpriv", "--reuid", "65534", "--clear-groups", "--"])
    };
    query(&[]).variable("ELECT_SOCKET", &socket.display().to_string()).run().fails_with(77, &["ermission denied"]);
    query(&["--boundary", site_boundary]).run().fails_with(69, &["no candidate of this user"]);
    // Past the directory: it is the peer's uid that counts.
    let open = sandbox.path().join("open.sock");
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).expect("ours");
    fs::write(&open, "").expect("an open directory");
    host_tools::as_root(["mount", "--bind", &socket.display().to_string(), &open.display().to_string()]);
    let _mount = BindMount(&open);
    let asked = query(&[]).variable("ELECT_SOCKET", &open.display().to_string()).run();
    asked.fails_with(77, &["belongs to another user"]);
    leader.terminate();
}

/// Another name of a file, also on another file system. The drop removes it.
struct BindMount<'a>(&'a Path);

impl Drop for BindMount<'_> {
    fn drop(&mut self) {
        host_tools::clean_up(["umount", &self.0.display().to_string()]);
    }
}

/// Of the one candidate of that boundary.
fn socket_of(leader: &CandidateProcess, boundary: &str) -> PathBuf {
    let stem: String = boundary.replace('/', "%2F").chars().take(24).collect();
    let found = fs::read_dir("/run/elect/control").expect("tests run as root").flatten().map(|entry| entry.path());
    let ours = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&stem));
    found.into_iter().find(ours).unwrap_or_else(|| panic!("no socket of {boundary}: {}", leader.log()))
}

#[test]
fn a_socket_that_a_crash_left_behind_is_nobodys_and_is_taken_away() {
    let sandbox = Sandbox::new();
    let boundary = boundary();
    let mut leader = ElectCmd::new(&sandbox).boundary(boundary).witness(&Witness::new()).start();
    sandbox.starts(1);
    let socket = socket_of(&leader, boundary);
    leader.signal(Signal::SIGKILL);
    leader.wait();
    assert!(socket.exists());
    let asked = ElectCmd::new(&sandbox).store(None).query("assert", &["--boundary", boundary]).run();
    asked.fails_with(69, &["no candidate"]);
    assert!(!socket.exists());
}

#[test]
fn a_runtime_directory_that_is_not_to_be_had_is_a_warning() {
    let sandbox = Sandbox::new().open_to_all();
    let binary = sandbox.path().join("elect");
    executables::copy(elect(), &binary);
    // By uid alone, and this one is nobody else's.
    let uid = "64123";
    let directory = Path::new("/tmp").join(format!("elect-{uid}"));
    fs::write(&directory, "not a directory").expect("root may");
    let elect = ElectCmd::new(&sandbox).store("always:".to_owned()).binary(&binary).shell("env");
    let ended = elect.wrapped_by(["setpriv", "--reuid", uid, "--clear-groups", "--"]).run();
    fs::remove_file(&directory).expect("ours");
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    ended.stderr_contains(&["warning: no control socket", "is not a directory\n"]);
    assert!(!ended.stdout.contains("ELECT_SOCKET"), "{ended:?}");
}
