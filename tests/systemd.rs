//! The unit of the recipes under a real systemd.

use std::fs;

use nix::sys::signal::Signal;

use crate::harness::systemd::{Systemd, unit};
use crate::harness::{Sandbox, Witness, docs_under_test, host_tools, processes, until};

/// Soon enough for a test.
const SOON: &str = "RestartSec=50ms";

#[test]
fn the_unit_is_what_the_page_of_recipes_shows() {
    let recipes = docs_under_test::read("docs/recipes.md");
    let block = recipes.split("```ini\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a unit in it");
    assert_eq!(block, fs::read_to_string(unit()).expect("the unit"));
}

#[test]
fn the_unit_is_in_order() {
    let sandbox = Sandbox::new();
    let programs = sandbox.path().join("bin");
    fs::create_dir(&programs).expect("created");
    for name in ["elect", "cron"] {
        std::os::unix::fs::symlink("/bin/true", programs.join(name)).expect("linked");
    }
    let copy = sandbox.path().join("elect@cron.service");
    fs::copy(unit(), &copy).expect("copied");
    let script = r#"mount --bind "$1" /usr/local/bin && exec systemd-analyze verify --man=no "$2" 2>&1"#;
    let (programs, copy) = (programs.to_str().expect("plain"), copy.to_str().expect("plain"));
    let said = host_tools::as_root(["unshare", "--mount", "sh", "-c", script, "sh", programs, copy]);
    let ours: Vec<&str> = said.lines().filter(|line| line.contains("elect")).collect();
    assert!(ours.is_empty(), "{ours:?}");
}

#[test]
fn the_unit_starts_tells_what_it_does_and_stops() {
    let sandbox = Sandbox::new();
    let systemd = Systemd::boot(&sandbox, &[], &Witness::new().daemon());
    systemd.does(&["start", "elect@cron"]);
    let leader = &sandbox.starts(1).starts[0];
    systemd.comes_to("StatusText", &format!("leading, term {}, pid {}", leader.term, leader.pid));
    assert_eq!((systemd.property("ActiveState"), systemd.property("Delegate")), ("active".into(), "yes".into()));
    systemd.does(&["stop", "elect@cron"]);
    assert_eq!((systemd.property("ActiveState"), systemd.property("Result")), ("inactive".into(), "success".into()));
    sandbox.history().is_safe();
    assert!(systemd.log().contains("released"), "{}", systemd.log());
    drop(systemd);
    sandbox.is_left_empty();
}

#[test]
fn the_command_is_held_together_by_a_cgroup_below_the_units_own() {
    let sandbox = Sandbox::new();
    let tier = "Environment=ELECT_CONTAINMENT=cgroup";
    let systemd = Systemd::boot(&sandbox, &[tier, SOON], &Witness::new().daemon());
    systemd.does(&["start", "elect@cron"]);
    sandbox.starts(1);
    let witness = sandbox.running().into_iter().find(|process| process.name == "witness").expect("it runs");
    assert!(systemd.log().contains(", cgroup\n"), "{}", systemd.log());
    let cgroup = |pid: i32| {
        let all = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("it runs");
        let unified = all.lines().find_map(|line| line.strip_prefix("0::")).expect("cgroup v2 is there");
        unified.to_owned()
    };
    let (own, commands) = (cgroup(systemd.campaigner()), cgroup(witness.pid));
    assert!(own.ends_with("/elect@cron.service"), "elect itself is outside: {own}");
    assert!(commands.starts_with(&format!("{own}/elect-")), "{commands} is not below {own}");
    // Processes that a killed elect leaves are systemd's to kill, and so is the leaf.
    let keeper = processes::children(systemd.campaigner())[0];
    processes::signal(keeper, Signal::SIGKILL);
    sandbox.starts(2).is_safe();
    systemd.does(&["stop", "elect@cron"]);
    sandbox.history().is_safe();
    drop(systemd);
    sandbox.is_left_empty();
}

#[test]
fn a_check_in_a_unit_says_whether_its_cgroup_is_delegated() {
    let check = "Type=oneshot\nRestart=no\nWatchdogSec=0\nExecStart=\nExecStart=elect check --boundary %I";
    for (delegate, line) in [
        ("Delegate=no", "warn  systemd       elect@cron.service has no Delegate=yes"),
        ("Delegate=yes", "ok    systemd       elect@cron.service has Delegate=yes"),
    ] {
        let sandbox = Sandbox::new();
        let systemd = Systemd::boot(&sandbox, &[check, delegate], &Witness::new());
        systemd.does(&["start", "elect@cron"]);
        assert!(systemd.log().contains(line), "{}", systemd.log());
        let advises = systemd.log().contains("add Delegate=yes");
        assert_eq!(advises, delegate == "Delegate=no", "{}", systemd.log());
    }
}

#[test]
fn a_campaigner_that_hangs_is_replaced_and_never_do_two_commands_run() {
    let sandbox = Sandbox::new();
    let systemd = Systemd::boot(&sandbox, &["WatchdogSec=1s", SOON], &Witness::new().daemon());
    systemd.does(&["start", "elect@cron"]);
    sandbox.starts(1);
    let campaigner = systemd.campaigner();
    processes::signal(campaigner, Signal::SIGSTOP);
    let history = sandbox.starts(2);
    history.is_safe();
    assert!(!processes::is_alive(campaigner));
    assert_eq!(systemd.property("NRestarts"), "1");
    systemd.does(&["stop", "elect@cron"]);
    sandbox.history().is_safe();
}

#[test]
fn a_campaigner_that_is_killed_is_replaced_and_never_do_two_commands_run() {
    let sandbox = Sandbox::new();
    let systemd = Systemd::boot(&sandbox, &[SOON], &Witness::new().daemon().stubborn());
    systemd.does(&["start", "elect@cron"]);
    sandbox.history_when("a grandchild", |history| !history.grandchildren.is_empty());
    processes::signal(systemd.campaigner(), Signal::SIGKILL);
    sandbox.starts(2).is_safe();
    systemd.does(&["kill", "--signal=KILL", "elect@cron"]);
}

#[test]
fn when_both_processes_are_killed_systemd_kills_what_is_left_and_starts_again() {
    let sandbox = Sandbox::new();
    let systemd = Systemd::boot(&sandbox, &[SOON], &Witness::new().daemon().stubborn());
    systemd.does(&["start", "elect@cron"]);
    let history = sandbox.history_when("a grandchild", |history| !history.grandchildren.is_empty());
    let campaigner = systemd.campaigner();
    let keeper = processes::children(campaigner)[0];
    processes::signal(campaigner, Signal::SIGSTOP);
    until("the campaigner stands still", || processes::state(campaigner) == Some('T'));
    processes::signal(keeper, Signal::SIGKILL);
    processes::signal(campaigner, Signal::SIGKILL);
    let after = sandbox.starts(history.starts.len() + 1);
    after.is_safe();
    systemd.does(&["kill", "--signal=KILL", "elect@cron"]);
}

#[test]
fn a_command_that_fails_is_started_again_and_one_that_is_not_there_is_not() {
    let sandbox = Sandbox::new();
    let systemd = Systemd::boot(&sandbox, &[SOON], &Witness::new());
    systemd.job("exit 3");
    systemd.does(&["start", "elect@cron"]);
    until("it was started again, and again", || systemd.property("NRestarts").parse::<u32>().is_ok_and(|n| n >= 2));
    systemd.does(&["stop", "elect@cron"]);
    fs::remove_file(sandbox.path().join("bin/cron")).expect("removed");
    assert!(systemd.control(&["start", "elect@cron"]).is_err(), "it cannot start");
    systemd.comes_to("ActiveState", "failed");
    let ended = (systemd.property("ExecMainStatus"), systemd.property("NRestarts"));
    assert_eq!(ended, ("127".to_owned(), "0".to_owned()));
}

#[test]
fn a_stop_may_take_longer_than_systemd_would_wait() {
    let sandbox = Sandbox::new();
    let settings = ["TimeoutStopSec=1s", "Environment=ELECT_STOP_TIMEOUT=3s", "Restart=no"];
    let systemd = Systemd::boot(&sandbox, &settings, &Witness::new().stubborn());
    systemd.does(&["start", "elect@cron"]);
    sandbox.starts(1);
    systemd.does(&["stop", "elect@cron"]);
    // Not "timeout": it was elect that killed the command, and had the time to release.
    let ended = (systemd.property("Result"), systemd.property("ExecMainStatus"));
    assert_eq!(ended, ("exit-code".to_owned(), "137".to_owned()));
    assert!(systemd.log().contains("released"), "{}", systemd.log());
}
