//! A password is nowhere but where it was given, in each of the ways in which an etcd takes one.

use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::patient;
use super::server::EtcdServer;
use crate::harness::ports::free_port;
use crate::harness::processes::CONFESS;
use crate::harness::server::PASSWORD;
use crate::harness::wait::throughout;
use crate::harness::{CandidateProcess, ElectCmd, Ended, Sandbox, Witness, until};
use crate::pass_credentials::{PasswordSource, StoreWithUsers};
use crate::secrets::{is_nowhere_in, under_watch, ways_to_name};

/// The ways in which people give a password.
const WAYS: [&str; 4] = ["file", "variable", "etcd's", "both in one"];

fn login(elect: ElectCmd, sandbox: &Sandbox, way: &str, password: &str) -> ElectCmd {
    match way {
        "file" => {
            let path = sandbox.path().join("password");
            fs::write(&path, format!("{password}\n")).expect("written");
            elect.flag("--username", "elect").flag("--password-file", &path.display().to_string())
        }
        "variable" => elect.flag("--username", "elect").variable("ELECT_PASSWORD", password),
        "etcd's" => elect.variable("ETCD3_USER", "elect").variable("ETCD3_PASSWORD", password),
        "both in one" => elect.variable("ETCD3_USER", &format!("elect:{password}")),
        other => panic!("no such way: {other}"),
    }
}

#[test]
fn a_password_is_in_no_log_no_answer_no_page_and_no_command_line() {
    let etcd = EtcdServer::start();
    etcd.enable_auth();
    let store = format!("etcd://{}", etcd.address());
    for way in WAYS {
        let sandbox = Sandbox::new();
        under_watch(&sandbox, || everything(&sandbox, &store, way));
        is_nowhere_in(&sandbox);
    }
}

fn everything(sandbox: &Sandbox, store: &str, way: &str) {
    let elect = |format: &str| {
        let elect = login(patient(sandbox, store.to_owned()), sandbox, way, PASSWORD);
        elect.switch("-vv").flag("--log-format", format)
    };
    let hooked = |elect: ElectCmd, name: &str| {
        ["--on-elected", "--on-change", "--on-error", "--on-ousted"]
            .into_iter()
            .fold(elect, |elect, hook| elect.flag(hook, &format!("({CONFESS}) >\"$WITNESS_PLACE/{name}{hook}\"")))
    };
    let confessing = |format: &str, name: &str| {
        let elect = hooked(elect(format), name);
        #[cfg(feature = "listen")]
        let elect = elect.flag("--listen", "127.0.0.1:0");
        elect
            .flag("--name", name)
            .flag("--follower", &format!("{CONFESS}; exec sleep 600"))
            .shell(&format!("{CONFESS}; touch \"$WITNESS_PLACE/{name}-leads\"; exec sleep 600"))
            .start()
    };
    let leads = |name: &str| until(&format!("{name} leads"), || sandbox.path().join(format!("{name}-leads")).exists());
    let mut leader = confessing("text", "web-1");
    leads("web-1");
    let next = confessing("json", "web-2");
    until("its follower has confessed", || next.output().contains("--follower"));

    let asked = |subcommand, words: &[&str]| {
        let elect = ElectCmd::new(sandbox).store(store.to_owned()).query(subcommand, words);
        login(elect, sandbox, way, PASSWORD)
    };
    let watch = asked("watch", &["cron", "--json"]).start();
    until("it sees the leader", || watch.output().contains("web-1"));
    for words in [&["cron"][..], &["cron", "--json"], &[]] {
        let ended = asked("status", words).run();
        assert!(ended.stdout.contains("web-1"), "{ended:?}");
    }
    pages(&next);
    if way == "file" {
        let environments = leader
            .tree()
            .iter()
            .filter_map(|one| fs::read(format!("/proc/{}/environ", one.pid)).ok())
            .collect::<Vec<_>>();
        assert!(!environments.is_empty());
        for environment in environments {
            assert!(!String::from_utf8_lossy(&environment).contains(PASSWORD), "a file is not passed on");
        }
    }

    // Its keeper executes elect again, with all that it needs to log in.
    leader.signal(Signal::SIGKILL);
    leader.wait();
    leads("web-2");
    until("it sees the other", || watch.output().contains("web-2"));
    watch.terminate();
    next.terminate();
}

#[cfg(feature = "listen")]
fn pages(candidate: &CandidateProcess) {
    let port = crate::harness::eventually("it listens", || {
        let line = candidate.log().lines().find(|line| line.contains("\"listening\""))?.to_owned();
        let line: serde_json::Value = serde_json::from_str(&line).ok()?;
        line["address"].as_str()?.rsplit(':').next()?.parse().ok()
    });
    for path in ["/", "/livez", "/readyz", "/leader", "/follower", "/status", "/metrics"] {
        let page = crate::harness::http_client::get(port, path).expect("a page");
        assert!(page.starts_with("HTTP/") && !page.contains(PASSWORD), "{page}");
    }
}

#[cfg(not(feature = "listen"))]
fn pages(_: &CandidateProcess) {}

#[test]
fn a_password_that_does_not_fit_or_has_nobody_to_be_told_to_is_not_repeated() {
    let etcd = EtcdServer::start();
    etcd.enable_auth();
    let (up, down) = (format!("etcd://{}", etcd.address()), format!("etcd://127.0.0.1:{}", free_port()));
    let sandbox = Sandbox::new();
    let elect = |store: &str| ElectCmd::new(&sandbox).store(store.to_owned()).switch("-vv").command(["true"]);
    let ends = |ended: Ended, status: i32| assert_eq!(ended.status.code(), Some(status), "{ended:?}");
    // Almost right, so that it holds what must not be shown.
    let wrong = format!("{PASSWORD}r");
    under_watch(&sandbox, || {
        for way in WAYS {
            ends(login(elect(&up), &sandbox, way, &wrong).run(), 77);
            ends(login(elect(&down).switch("-n"), &sandbox, way, PASSWORD).run(), 69);
            let asked = ElectCmd::new(&sandbox).store(up.clone()).status(&["cron"]);
            ends(login(asked, &sandbox, way, &wrong).run(), 77);
        }
        let waiting = login(elect(&down), &sandbox, "variable", PASSWORD).witness(&Witness::new()).start();
        waiting.wait_for_log("cannot be reached");
        throughout(Duration::from_millis(300), "it is under watch", || waiting.log().lines().count() > 0);
        waiting.terminate();
    });
    is_nowhere_in(&sandbox);
}

#[test]
fn a_password_in_the_url_or_the_user_is_refused_without_repeating_it() {
    let sandbox = Sandbox::new();
    let address = "127.0.0.1:1";
    for store in [
        format!("etcd://elect:{PASSWORD}@{address}"),
        format!("etcd://:{PASSWORD}@{address}"),
        format!("etcd://elect:1/{PASSWORD}@{address}"),
        format!("etcd:elect:{PASSWORD}@{address}"),
    ] {
        for (source, elect) in ways_to_name(&sandbox, &store) {
            elect.run().fails_with(2, &[&format!("{source} etcd:… is not understood")]);
        }
    }
    let ended = ElectCmd::new(&sandbox)
        .store("etcd:".to_owned())
        .variable("ETCD3_ENDPOINT", &format!("http://elect:{PASSWORD}@{address}"))
        .command(["true"])
        .run();
    assert_eq!(ended.status.code(), Some(2), "{ended:?}");
    let user = format!("elect:{PASSWORD}");
    let ended = ElectCmd::new(&sandbox).store("etcd:".to_owned()).flag("--username", &user).command(["true"]).run();
    assert_eq!(ended.status.code(), Some(2), "{ended:?}");
    is_nowhere_in(&sandbox);
}

#[test]
fn a_command_gets_the_password_only_if_that_is_asked_for() {
    let etcd = EtcdServer::start();
    etcd.enable_auth();
    let sources = &[PasswordSource::Variable, PasswordSource::File];
    let store = StoreWithUsers { scheme: "etcd", place: etcd.address(), user: "elect", flags: Vec::new(), sources };
    store.passes_credentials_only_if_asked();
}
