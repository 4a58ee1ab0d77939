//! From a terminal, with a shell's job control: whatever a person presses, nothing is left and nothing overlaps.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::terminal::Terminal;
use crate::harness::wait::{throughout, until};
use crate::harness::{Candidate, Elect, Place, Witness, processes};

/// A shell with two children: one who knows nothing, and one who bears witness.
fn a_shell_with_children(place: &Place) -> Elect {
    let witness = Witness::new().command().remove(0).into_string().expect("plain text");
    Elect::new(place).command(["sh", "-c", &format!("sleep 600 & '{witness}' & wait")])
}

/// A terminal whose elect leads, and a candidate elsewhere that waits.
fn a_leader_in_a_terminal(place: &Place, after: &str) -> (Terminal, Candidate) {
    let mut terminal = Terminal::open(place);
    terminal.runs(&a_shell_with_children(place), after);
    place.starts(1);
    let next = Elect::new(place).witness(&Witness::new()).start();
    next.waits();
    (terminal, next)
}

#[track_caller]
fn is_handed_over(place: &Place, terminal: &Terminal, next: Candidate) {
    place.starts(2);
    let left: Vec<_> =
        terminal.jobs().into_iter().filter(|process| !matches!(process.name.as_str(), "elect" | "keeper")).collect();
    assert_eq!(left, [], "left running in the terminal");
    until("elect is gone", || terminal.jobs().is_empty());
    next.stops();
    place.history().is_safe();
}

#[test]
fn kill_9_of_the_job_takes_the_command_along() {
    let place = Place::new();
    let (mut terminal, next) = a_leader_in_a_terminal(&place, " &");
    terminal.types("kill -9 %1\n");
    is_handed_over(&place, &terminal, next);
}

#[test]
fn control_c_stops_the_command_and_hands_over() {
    let place = Place::new();
    let (mut terminal, next) = a_leader_in_a_terminal(&place, "; echo status=$?.");
    terminal.presses_control('c');
    is_handed_over(&place, &terminal, next);
}

#[test]
fn control_backslash_stops_the_command_and_hands_over() {
    let place = Place::new();
    let (mut terminal, next) = a_leader_in_a_terminal(&place, "; echo status=$?.");
    terminal.presses_control('\\');
    is_handed_over(&place, &terminal, next);
}

#[test]
fn control_z_leaves_the_leader_leading_and_fg_goes_on() {
    let place = Place::new();
    let (mut terminal, next) = a_leader_in_a_terminal(&place, "");
    let elect = terminal.elect();
    let led = place.history().latest();
    terminal.presses_control('z');
    until("the campaigner stands still", || processes::state(elect) == Some('T'));
    throughout(Duration::from_secs(2), "it leads, alone", || {
        place.history().starts.len() == 1 && processes::is_alive(led.pid)
    });
    terminal.types("fg\n");
    until("the campaigner goes on", || processes::state(elect) != Some('T'));
    throughout(Duration::from_secs(1), "it leads, alone", || {
        place.history().starts.len() == 1 && processes::is_alive(led.pid)
    });
    terminal.presses_control('c');
    is_handed_over(&place, &terminal, next);
}

#[test]
fn kill_9_after_control_z_takes_the_command_along() {
    let place = Place::new();
    let (mut terminal, next) = a_leader_in_a_terminal(&place, "");
    let elect = terminal.elect();
    terminal.presses_control('z');
    until("the campaigner stands still", || processes::state(elect) == Some('T'));
    terminal.types("kill -9 %1\n");
    is_handed_over(&place, &terminal, next);
}

#[test]
fn usr1_to_the_group_ends_the_shell_and_with_it_its_children() {
    let place = Place::new();
    let (mut terminal, next) = a_leader_in_a_terminal(&place, " &");
    terminal.types("kill -USR1 %1\n");
    is_handed_over(&place, &terminal, next);
}

#[test]
fn a_closed_terminal_takes_the_command_along() {
    let place = Place::new();
    let (mut terminal, next) = a_leader_in_a_terminal(&place, "");
    terminal.close();
    is_handed_over(&place, &terminal, next);
}

#[test]
fn a_signal_to_every_process_of_the_terminals_session_is_survived_by_the_keeper_alone() {
    let place = Place::new();
    let (terminal, next) = a_leader_in_a_terminal(&place, " &");
    // As a session's end or `pkill` does it: to everybody at once, the keeper too.
    for process in terminal.jobs() {
        processes::signal(process.pid, Signal::SIGTERM);
    }
    is_handed_over(&place, &terminal, next);
}
