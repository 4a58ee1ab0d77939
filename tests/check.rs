//! `elect check`: a store and a host in order, and one line for each thing that is not.

use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::harness::server::{PASSWORD, TOKEN};
use crate::harness::slow_link::SlowLink;
use crate::harness::store_fixtures::{self, FixtureStore, start_all};
use crate::harness::timing_verdict::{assert_in_time, retry_if_machine_slow};
use crate::harness::wait::{now, since};
use crate::harness::{ElectCmd, Ended, Sandbox, Witness, until};

/// At most, with what a busy machine needs to start and to end a program.
const CHECK_LIMIT: Duration = Duration::from_secs(35);
/// It has a mount namespace of its own, and elect is its PID 1.
const AS_INIT: [&str; 5] = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"];

/// One check, as JSON.
#[derive(Debug)]
pub struct Checked {
    pub ended: Ended,
    checks: Vec<Value>,
}

/// `elect check --json`, without a boundary.
pub fn check(sandbox: &Sandbox, store: String) -> ElectCmd {
    ElectCmd::new(sandbox).subcommand("check").boundary(None).store(store).switch("--json")
}

impl Checked {
    /// Runs it; the object has exactly the keys of the design.
    #[track_caller]
    pub fn by(elect: ElectCmd) -> Checked {
        let began = now();
        let ended = elect.run();
        assert!(since(began) < CHECK_LIMIT, "{:?}", since(began));
        assert_eq!(ended.stdout.lines().count(), 1, "{ended:?}");
        let document: Value = serde_json::from_str(&ended.stdout).expect("an object");
        assert_eq!(keys(&document), ["checks", "ok"]);
        let checks = document["checks"].as_array().expect("an array").clone();
        for check in &checks {
            assert_eq!(keys(check), ["advice", "detail", "name", "result"]);
            let is_ok = check["result"] == "ok";
            assert!(is_ok || check["result"] == "warn" || check["result"] == "fail", "{check}");
            assert!(check["name"].is_string() && check["detail"].is_string(), "{check}");
            assert_eq!(check["advice"].is_null(), is_ok, "it says what to do: {check}");
        }
        let fails = checks.iter().any(|check| check["result"] == "fail");
        assert_eq!(document["ok"], !fails, "{document}");
        assert_eq!(ended.status.code() == Some(0), !fails, "{ended:?}");
        Checked { ended, checks }
    }

    #[track_caller]
    pub fn exits_with(&self, status: i32) -> &Checked {
        assert_eq!(self.ended.status.code(), Some(status), "{:?}", self.ended);
        self
    }

    /// There is one line of this name and result, and its detail and advice hold these words.
    #[track_caller]
    pub fn says(&self, name: &str, result: &str, words: &[&str]) -> &Checked {
        let of_name: Vec<&Value> = self.checks.iter().filter(|check| check["name"] == name).collect();
        let [check] = of_name[..] else { panic!("{} lines of {name}: {:?}", of_name.len(), self.ended) };
        assert_eq!(check["result"], result, "{check}");
        let text = format!("{}; {}", check["detail"], check["advice"]);
        for word in words {
            assert!(text.contains(word), "{word:?} is not in {check}");
        }
        self
    }

    /// The lines that are not ok.
    pub fn faults(&self) -> Vec<&str> {
        let faults = self.checks.iter().filter(|check| check["result"] != "ok");
        faults.filter_map(|check| check["name"].as_str()).collect()
    }
}

fn keys(object: &Value) -> Vec<&str> {
    object.as_object().expect("an object").keys().map(String::as_str).collect()
}

/// The stores that have a server, started.
fn servers() -> impl Iterator<Item = Box<dyn FixtureStore>> {
    start_all().into_iter().filter(|store| store.has_server())
}

#[test]
fn a_store_in_order_takes_twenty_takes_and_is_not_seen_in_any_list() {
    retry_if_machine_slow("a store in order", Duration::from_secs(3), |_| takes_twenty_takes());
}

fn takes_twenty_takes() {
    for store in start_all() {
        let sandbox = Sandbox::new();
        let url = store.url(&sandbox);
        let checked = Checked::by(check(&sandbox, url.clone()));
        let is_slow = checked.faults().iter().any(|fault| ["takes", "latency", "hints"].contains(fault));
        assert_in_time(!is_slow, || format!("{}: {checked:?}", store.name()));
        checked.exits_with(0).says("takes", "ok", &["20 takes: median ", "p99 "]);
        checked.says("renewals", "ok", &["20 renewals: "]).says("releases", "ok", &["20 releases: "]);
        checked.says("store", "ok", &["answers"]).says("open-files", "ok", &[]).says("runtime-dir", "ok", &[]);
        if store.notifies_changes() {
            checked.says("hints", "ok", &["hints of a release"]);
        }
        println!("figures: {}: {}", store.name(), checked.ended.stdout.trim());
        let listed = ElectCmd::new(&sandbox).store(url.clone()).status(&["--json", "--all"]).run();
        assert_eq!((listed.status.code(), listed.stdout.as_str()), (Some(0), ""), "{}: {listed:?}", store.name());
        let waited = ElectCmd::new(&sandbox).store(url.clone()).query("wait", &["--for", "none", "--timeout", "5s"]);
        assert_eq!(waited.run().status.code(), Some(0));
        let named = ElectCmd::new(&sandbox).store(url).status(&["elect-check"]).run();
        assert_eq!(named.status.code(), Some(3), "it is free: {named:?}");
    }
}

#[test]
fn nothing_but_the_free_record_is_left_in_the_directory() {
    let sandbox = Sandbox::new();
    Checked::by(check(&sandbox, sandbox.store())).exits_with(0).says("file-system", "ok", &["this host alone"]);
    let left = fs::read_dir(sandbox.locks()).expect("made").map(|entry| entry.expect("read").file_name());
    let mut left: Vec<_> = left.collect();
    left.sort();
    assert_eq!(left, ["elect-check.json", "elect-check.lock"]);
    let record = fs::read_to_string(sandbox.locks().join("elect-check.json")).expect("read");
    let record: Value = serde_json::from_str(&record).expect("a record");
    assert_eq!(record["state"], "free", "{record}");
}

#[test]
fn two_checks_at_once_do_not_hurt_each_other() {
    retry_if_machine_slow("two checks at once", Duration::from_secs(3), |_| two_at_once());
}

fn two_at_once() {
    for store in start_all() {
        let sandbox = Sandbox::new();
        let url = store.url(&sandbox);
        let both = [(); 2].map(|()| check(&sandbox, url.clone()).start());
        for mut one in both {
            let status = one.wait();
            assert_in_time(status.code() == Some(0), || format!("{}: {} {}", store.name(), one.output(), one.log()));
            assert!(!one.output().contains("failed"), "{}: {}", store.name(), one.output());
        }
    }
}

#[test]
fn the_boundary_of_the_check_is_nobodys_else() {
    let sandbox = Sandbox::new();
    let run = ElectCmd::new(&sandbox).boundary("elect-check").command(["true"]).run();
    run.fails_with(2, &["elect-check", "choose another name"]);
    check(&sandbox, sandbox.store()).boundary("elect-check").run().fails_with(2, &["choose another name"]);
}

#[test]
fn the_named_boundary_is_read_and_its_leader_is_shown() {
    let sandbox = Sandbox::new();
    let leader = ElectCmd::new(&sandbox).flag("--name", "web-1").witness(&Witness::new()).start();
    sandbox.starts(1);
    let checked = Checked::by(check(&sandbox, sandbox.store()).boundary("cron").command(["true"]));
    checked.exits_with(0).says("boundary", "ok", &["cron: web-1 leads"]).says("command", "ok", &["true"]);
    let missing = Checked::by(check(&sandbox, sandbox.store()).command(["no-such-program"]));
    missing.exits_with(3).says("command", "fail", &["no-such-program: command not found"]);
    leader.terminate();
    sandbox.history().is_safe();
}

#[test]
fn a_text_line_has_eighty_columns_where_names_allow_it() {
    let sandbox = Sandbox::new();
    let ended = ElectCmd::new(&sandbox).subcommand("check").boundary(None).store("always:".to_owned()).run();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert!(ended.stdout.contains("\nok    takes         20 takes: median "), "{ended:?}");
    for line in ended.stdout.lines().filter(|line| line.starts_with("ok ") && !line.contains('/')) {
        assert!(line.chars().count() <= 80, "{line}");
    }
}

#[test]
fn a_server_that_is_down_is_69_and_one_line_says_what_to_do() {
    for store in servers() {
        let sandbox = Sandbox::new();
        let url = store.url(&sandbox);
        store.kill();
        let checked = Checked::by(check(&sandbox, url));
        checked.exits_with(69).says("store", "fail", &["check host and port"]);
    }
}

#[test]
fn a_wrong_password_and_a_user_without_rights_are_77() {
    for store in servers() {
        let sandbox = Sandbox::new();
        let url = store.url(&sandbox);
        store.enable_auth();
        let as_stranger = |password: &str| {
            store_fixtures::as_user(
                check(&sandbox, url.clone()).boundary("cron"),
                store.has_user_names(),
                "stranger",
                password,
            )
        };
        let wrong = Checked::by(as_stranger("wrong"));
        wrong.exits_with(77).says("store", "fail", &["password"]);
        let right = Checked::by(as_stranger(PASSWORD));
        right.exits_with(77);
        assert!([PASSWORD, TOKEN].iter().all(|secret| !right.ended.stdout.contains(secret)), "{right:?}");
        println!("figures: {}: {} {}", store.name(), wrong.ended.stdout, right.ended.stdout);
    }
}

#[test]
fn a_ttl_that_is_too_small_for_the_way_to_the_server_is_named_with_one_that_is_not() {
    for store in servers() {
        let sandbox = Sandbox::new();
        // The shortest that the store takes.
        let ttl = (store.lease() * 3 / 4).max(if store.lease() > Duration::from_secs(3) {
            store.lease()
        } else {
            Duration::ZERO
        });
        let link = SlowLink::to(&store.address(), ttl / 15);
        let url = store.url_through(&link.address(), &sandbox);
        let checked = Checked::by(check(&sandbox, url.clone()).flag("--ttl", &format!("{}ms", ttl.as_millis())));
        println!("figures: {}: {}", store.name(), checked.ended.stdout.trim());
        checked.exits_with(3).says(
            "latency",
            "fail",
            &[&format!("--request-timeout ({}ms)", ttl.as_millis() / 10), "raise --ttl to "],
        );
    }
}

#[test]
fn a_check_that_is_stopped_gives_back_what_it_holds() {
    for store in servers() {
        let sandbox = Sandbox::new();
        let link = SlowLink::to(&store.address(), Duration::from_millis(100));
        let url = store.url_through(&store.address(), &sandbox);
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
            let mut stopped = check(&sandbox, store.url_through(&link.address(), &sandbox)).start();
            let leads =
                || ElectCmd::new(&sandbox).store(url.clone()).status(&["elect-check"]).run().status.code() == Some(0);
            until("it leads", leads);
            stopped.signal(signal);
            stopped.ends_by(signal);
            assert!(!leads(), "{}: it is released, and does not run out", store.name());
        }
    }
}

#[test]
fn a_host_without_cgroups_has_the_tree_and_learns_why() {
    let sandbox = Sandbox::new();
    let hidden = ["unshare", "--mount", "sh", "-c", r#"umount -a -l -t cgroup2; exec "$@""#, "sh"];
    let checked = Checked::by(check(&sandbox, sandbox.store()).wrapped_by(hidden));
    checked.exits_with(0).says("containment", "warn", &["tree, no cgroup: ", "give elect a cgroup"]);
    let named = check(&sandbox, sandbox.store()).wrapped_by(hidden).flag("--containment", "cgroup");
    Checked::by(named).exits_with(3).says("containment", "fail", &["--containment auto"]);
}

#[test]
fn as_pid_1_the_file_store_has_to_be_a_volume() {
    let sandbox = Sandbox::new();
    let checked = Checked::by(check(&sandbox, sandbox.store()).wrapped_by(AS_INIT));
    checked.exits_with(0).says("pid-1", "warn", &["every replica leads", "one volume"]);
    let unnamed = check(&sandbox, "file:".to_owned()).wrapped_by(AS_INIT).run();
    unnamed.fails_with(2, &["as PID 1 the file store has to be named"]);
}

#[test]
fn limits_and_directories_that_are_too_small_are_named() {
    let sandbox = Sandbox::new();
    let limited = ["sh", "-c", r#"ulimit -n 20; exec "$@""#, "sh"];
    let checked = Checked::by(check(&sandbox, sandbox.store()).wrapped_by(limited));
    checked.exits_with(3).says("open-files", "fail", &["ulimit -n"]);
    let closed = Checked::by(check(&sandbox, sandbox.store()).flag("--runtime-dir", "/proc/none"));
    closed.exits_with(77).says("runtime-dir", "fail", &["/proc/none", "--runtime-dir"]);
    let nowhere = Checked::by(check(&sandbox, "file:/proc/none".to_owned()));
    nowhere.exits_with(77).says("takes", "fail", &["/proc/none"]);
}

/// A process without the capability, and with a limit of nothing, on a host that has something to swap to.
#[test]
fn memory_that_cannot_be_locked_is_a_warning_where_there_is_swap() {
    let sandbox = Sandbox::new();
    let swaps = sandbox.path().join("swaps");
    fs::write(&swaps, "Filename Type Size Used Priority\n/swap file 1024 0 -2\n").expect("room");
    let script = format!("mount --bind {} /proc/swaps; ulimit -l 0; exec \"$@\"", swaps.display());
    let unable = ["setpriv", "--bounding-set", "-ipc_lock", "--inh-caps", "-ipc_lock"];
    let checked = |script: &str| {
        let wrapper = [&["unshare", "--mount", "sh", "-c", script, "sh"][..], &unable].concat();
        Checked::by(check(&sandbox, sandbox.store()).wrapped_by(wrapper))
    };
    checked(&script).exits_with(0).says("locked-memory", "warn", &["swapped out", "ulimit -l", "LimitMEMLOCK="]);
    fs::write(&swaps, "Filename Type Size Used Priority\n").expect("room");
    checked(&script).says("locked-memory", "ok", &["no swap"]);
    Checked::by(check(&sandbox, sandbox.store())).says("locked-memory", "ok", &["can lock"]);
}
