//! The unit of the recipes under a real systemd.

use std::fs;

use nix::sys::signal::Signal;

use crate::harness::systemd::{Systemd, local, unit};
use crate::harness::{Sandbox, Witness, docs_under_test, host_tools, processes, until};

/// Soon enough for a test.
const SOON: &str = "RestartSec=50ms";

#[test]
fn the_unit_is_what_the_page_of_recipes_shows() {
    let recipes = docs_under_test::read("docs/recipes.md");
    let block = recipes.split("```ini\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a unit in it");
    assert_eq!(block, fs::read_to_string(unit()).expect("the unit"));
}

/// Complaints of systemd-analyze about these units, in a directory where `/usr/local/bin` has their programs.
fn complaints(sandbox: &Sandbox, names: &[&str]) -> Vec<String> {
    let programs = sandbox.path().join("bin");
    fs::create_dir_all(&programs).expect("created");
    for name in ["elect", "cron", "nightly"] {
        let _ = std::os::unix::fs::symlink("/bin/true", programs.join(name));
    }
    let place = sandbox.path().to_str().expect("plain");
    let script =
        r#"mount --bind "$1/bin" /usr/local/bin && cd "$1" && shift && exec systemd-analyze verify --man=no "$@" 2>&1"#;
    let enter = ["unshare", "--mount", "sh", "-c", script, "sh", place];
    let said = match host_tools::attempt(enter.into_iter().chain(names.iter().copied())) {
        Ok(said) | Err(said) => said,
    };
    said.lines().filter(|line| line.contains("elect")).map(str::to_owned).collect()
}

#[test]
fn the_units_are_in_order_and_a_broken_one_is_not() {
    let sandbox = Sandbox::new();
    let put = |name: &str, text: &str| fs::write(sandbox.path().join(name), text).expect("written");
    put("elect@cron.service", &local(&fs::read_to_string(unit()).expect("the unit")));
    put("elect-job@nightly.service", &local(&docs_under_test::read("recipes/elect-job@.service")));
    put("elect-job@nightly.timer", &docs_under_test::read("recipes/elect-job@.timer"));
    let units = ["./elect@cron.service", "./elect-job@nightly.service", "./elect-job@nightly.timer"];
    assert_eq!(complaints(&sandbox, &units), [""; 0]);
    let drop_ins = sandbox.path().join("elect@cron.service.d");
    fs::create_dir(&drop_ins).expect("created");
    let hardened = docs_under_test::read("recipes/hardened.conf");
    fs::write(drop_ins.join("hardened.conf"), &hardened).expect("written");
    assert_eq!(complaints(&sandbox, &units), [""; 0]);
    fs::write(drop_ins.join("hardened.conf"), hardened.replace("PrivateTmp=", "PrivateTemp=")).expect("written");
    assert_ne!(complaints(&sandbox, &units), [""; 0], "there is no such setting");
}

#[test]
fn a_host_that_is_not_elected_does_not_fail_its_nightly_unit() {
    let sandbox = Sandbox::new();
    let systemd = Systemd::boot(&sandbox, &[], &Witness::new());
    systemd.does(&["start", "elect@cron"]);
    sandbox.starts(1);
    let job = local(&docs_under_test::read("recipes/elect-job@.service"));
    let settings = format!("Environment=ELECT_STORE={}\n", sandbox.store());
    // The boundary of the unit that leads, without and with the setting.
    for is_success in [false, true] {
        let job = if is_success { job.clone() } else { job.replace("SuccessExitStatus=75\n", "") };
        fs::write(sandbox.path().join("units/elect-job@.service"), format!("{job}{settings}")).expect("written");
        systemd.does(&["daemon-reload"]);
        let started = systemd.control(&["start", "elect-job@cron"]);
        assert_eq!(started.is_ok(), is_success, "{started:?}");
    }
    systemd.does(&["stop", "elect@cron"]);
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
    let systemd = Systemd::boot(&sandbox, &["WatchdogSec=5s", SOON], &Witness::new().daemon());
    systemd.does(&["start", "elect@cron"]);
    sandbox.starts(1);
    let campaigner = systemd.campaigner();
    processes::signal(campaigner, Signal::SIGSTOP);
    let history = sandbox.starts(2);
    history.is_safe();
    assert!(!processes::is_alive(campaigner));
    let restarts = systemd.property("NRestarts");
    assert!(restarts.parse::<u32>().is_ok_and(|restarts| restarts >= 1), "{restarts}");
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
    let settings = ["TimeoutStopSec=4s", "Environment=ELECT_STOP_TIMEOUT=6s", "Restart=no"];
    let systemd = Systemd::boot(&sandbox, &settings, &Witness::new().stubborn());
    systemd.does(&["start", "elect@cron"]);
    sandbox.starts(1);
    systemd.does(&["stop", "elect@cron"]);
    // Not "timeout": it was elect that killed the command, and had the time to release.
    let ended = (systemd.property("Result"), systemd.property("ExecMainStatus"));
    assert_eq!(ended, ("exit-code".to_owned(), "137".to_owned()));
    assert!(systemd.log().contains("released"), "{}", systemd.log());
}
