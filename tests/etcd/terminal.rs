//! Ctrl-Z where leadership is a lease.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::candidate_for;
use crate::etcd::server::EtcdServer;
use crate::harness::terminal::PseudoTerminal;
use crate::harness::wait::{throughout, until};
use crate::harness::{Sandbox, Witness, processes};

#[test]
fn control_z_hands_over_when_the_lease_runs_out_and_fg_makes_a_candidate_of_it_again() {
    let (etcd, sandbox) = (EtcdServer::start(), Sandbox::new());
    let store = sandbox.below(&etcd.url());
    let mut terminal = PseudoTerminal::open(&sandbox);
    let candidate = || candidate_for(&sandbox, store.clone(), "6s").witness(&Witness::new().daemon());
    terminal.runs(&candidate(), "");
    let led = sandbox.starts(1).latest();
    let elect = terminal.elect();
    terminal.is_given_to(led.pid);
    let next = candidate().start();
    next.wait_until_waiting();
    // Before that the command may be between vfork and exec, where nobody can be suspended alone.
    until("the daemon is there", || sandbox.history().grandchildren.len() == 1);
    terminal.presses_control('z');
    until("elect stands still", || processes::state(elect) == Some('T'));
    assert!(
        matches!(processes::state(led.pid), None | Some('T' | 'Z' | 'X')),
        "the command stands still, or its time is over"
    );
    terminal.is_back_with_the_shell();
    terminal.shows("the lease runs out unless fg or bg comes first");
    // The keeper does not stand still: it kills in time, and somebody else leads.
    let second = sandbox.starts(2).latest();
    assert!(!processes::is_alive(led.pid) && second.pid != led.pid);
    assert_eq!(processes::state(elect), Some('T'));
    terminal.types("fg\n");
    terminal.shows("waiting: ");
    throughout(Duration::from_secs(1), "the second one leads, alone", || sandbox.history().starts.len() == 2);
    next.signal(Signal::SIGTERM);
    let third = sandbox.starts(3).latest();
    terminal.is_given_to(third.pid);
    terminal.presses_control('c');
    until("elect is gone", || terminal.jobs().is_empty());
    next.terminate();
    sandbox.history().is_safe();
}

#[test]
fn control_z_and_fg_within_the_lease_cost_nothing() {
    let (etcd, sandbox) = (EtcdServer::start(), Sandbox::new());
    let mut terminal = PseudoTerminal::open(&sandbox);
    let store = sandbox.below(&etcd.url());
    terminal.runs(&candidate_for(&sandbox, store, "60s").witness(&Witness::new()), "");
    let led = sandbox.starts(1).latest();
    for _ in 0..3 {
        terminal.is_given_to(led.pid);
        terminal.presses_control('z');
        until("it stands still", || processes::state(led.pid) == Some('T'));
        terminal.is_back_with_the_shell();
        terminal.types("fg\n");
        until("it goes on", || processes::state(led.pid) != Some('T'));
    }
    terminal.is_given_to(led.pid);
    terminal.presses_control('c');
    until("elect is gone", || terminal.jobs().is_empty());
    let history = sandbox.history();
    assert_eq!(history.starts.len(), 1);
    history.is_safe();
}
