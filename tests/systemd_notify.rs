//! The messages to a service manager. The test receives them itself; a real systemd does in `tests/systemd.rs`.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::notify_receiver::NotifyReceiver;
use crate::harness::wait::throughout;
use crate::harness::{ElectCmd, Sandbox, Witness, processes, until};

/// A leader command that lives until it is asked to stop.
fn told(sandbox: &Sandbox, receiver: &NotifyReceiver) -> ElectCmd {
    ElectCmd::new(sandbox).variable("NOTIFY_SOCKET", receiver.name()).witness(&Witness::new())
}

/// With a watchdog that barks after so long without a sign of life.
fn watched(elect: ElectCmd, by: &str, allowed: Duration) -> ElectCmd {
    let script = format!(r#"export WATCHDOG_PID={by} WATCHDOG_USEC={}; exec "$@""#, allowed.as_micros());
    elect.wrapped_by(["sh", "-c", &script, "sh"])
}

#[test]
fn a_candidate_says_when_it_stands_whom_it_follows_when_it_leads_and_when_it_stops() {
    let sandbox = Sandbox::new();
    let first = ElectCmd::new(&sandbox).flag("--name", "web-1").witness(&Witness::new()).start();
    let term = sandbox.starts(1).starts[0].term;
    let receiver = NotifyReceiver::at_a_path(&sandbox);
    let second = told(&sandbox, &receiver).start();
    assert_eq!(receiver.hears("READY"), ["READY=1\nSTATUS=campaigning\n"], "first of all, and before it leads");
    assert_eq!(receiver.hears("STATUS"), [format!("STATUS=following web-1 (term {term})\n")]);
    first.terminate();
    let leader = &sandbox.starts(2).starts[1];
    let heard = receiver.hears("pid");
    assert_eq!(heard[heard.len() - 1], format!("STATUS=leading, term {}, pid {}\n", leader.term, leader.pid));
    assert!(!heard.iter().any(|message| message.contains("READY")), "once: {heard:?}");
    second.signal(Signal::SIGTERM);
    let stopping = format!("STOPPING=1\nSTATUS=stopping, term {}\nEXTEND_TIMEOUT_USEC=15000000\n", leader.term);
    assert_eq!(receiver.hears("STOPPING"), [stopping]);
    second.terminate();
}

#[test]
fn a_manager_at_an_abstract_name_is_told_too() {
    let sandbox = Sandbox::new();
    let receiver = NotifyReceiver::at_an_abstract_name(&sandbox);
    let candidate = told(&sandbox, &receiver).start();
    assert!(receiver.hears("READY")[0].starts_with("READY=1\n"));
    receiver.hears("leading");
    candidate.terminate();
    receiver.hears("STOPPING");
}

#[test]
fn a_candidate_that_ends_by_itself_says_so() {
    let sandbox = Sandbox::new();
    let receiver = NotifyReceiver::at_a_path(&sandbox);
    let ended = told(&sandbox, &receiver).command(["false"]).run();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    let heard = receiver.hears("STOPPING");
    assert!(heard[0].starts_with("READY=1\n"), "{heard:?}");
}

#[test]
fn a_stopped_campaigner_gives_no_sign_of_life() {
    let sandbox = Sandbox::new();
    let receiver = NotifyReceiver::at_a_path(&sandbox);
    let allowed = Duration::from_millis(400);
    let candidate = watched(told(&sandbox, &receiver), "$$", allowed).start();
    for _ in 0..3 {
        receiver.hears("WATCHDOG=1");
    }
    candidate.signal(Signal::SIGSTOP);
    until("the campaigner stands still", || processes::state(candidate.pid()) == Some('T'));
    while receiver.next().is_some() {}
    throughout(3 * allowed, "no sign of life", || receiver.next().is_none());
    candidate.signal(Signal::SIGCONT);
    receiver.hears("WATCHDOG=1");
    candidate.terminate();
}

#[test]
fn a_watchdog_for_somebody_else_is_not_petted() {
    let sandbox = Sandbox::new();
    let receiver = NotifyReceiver::at_a_path(&sandbox);
    let candidate = watched(told(&sandbox, &receiver), "1", Duration::from_millis(100)).start();
    receiver.hears("pid");
    throughout(Duration::from_millis(500), "nothing more to be said", || receiver.next().is_none());
    candidate.terminate();
}

#[test]
fn a_manager_that_does_not_listen_delays_nothing_and_hears_what_is_true_once_it_does() {
    let sandbox = Sandbox::new();
    let receiver = NotifyReceiver::at_a_path(&sandbox);
    receiver.fill();
    let candidate = told(&sandbox, &receiver).start();
    let leader = &sandbox.starts(1).starts[0];
    assert!(receiver.is_full(), "it has not listened yet");
    candidate.wait_for_log("leader command started");
    let heard = receiver.hears("READY");
    let leading = format!("STATUS=leading, term {}, pid {}\n", leader.term, leader.pid);
    let last = &heard[heard.len() - 1];
    assert!(last.contains(&leading), "{last:?}");
    receiver.fill();
    candidate.terminate();
}

#[test]
fn what_systemd_says_to_elect_is_not_passed_on() {
    let sandbox = Sandbox::new();
    let receiver = NotifyReceiver::at_a_path(&sandbox);
    let for_elect = ["WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "LISTEN_PIDFDID"];
    let elect = for_elect.iter().fold(told(&sandbox, &receiver), |elect, name| elect.variable(name, "1000000"));
    let ended = elect.variable("LISTEN_ADDRESS", "mine").variable("NOTIFY", "mine").command(["env"]).run();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    let names: Vec<&str> = ended.stdout.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    let passed_on: Vec<&&str> =
        names.iter().filter(|name| for_elect.contains(name) || **name == "NOTIFY_SOCKET").collect();
    assert!(passed_on.is_empty(), "{passed_on:?}");
    assert!(names.contains(&"LISTEN_ADDRESS") && names.contains(&"NOTIFY"), "the user's own are: {names:?}");
}
