//! Stopping: the stop signal first, a time-out, then SIGKILL for the remaining processes (K6, K10).

use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::{MsgFlags, recv};

use super::harness::*;
use crate::clock;
use crate::{Received, ToKeeper};
use elect_core::{CommandEnd, FromKeeper, Signal, StopTo, TerminalEvent, Time};

/// A descendant in its own session that reports the stop signal and continues; the main process waits for a file.
const REST_THAT_IS_ASKED: &str = "
    (setsid sh -c 'trap \"echo asked >&9\" TERM; echo grandchild >&9; while :; do sleep 0.01; done' &)
    until [ -e \"$WITNESS.go\" ]; do sleep 0.01; done
    exit 7";

fn started(setting: Setting, lines: &[&str]) -> KeeperFixture {
    let mut fixture = setting.fork();
    fixture.arm(TERM, Time::NEVER);
    fixture.start_until(lines);
    fixture
}

/// Runs a test with a time for its command, and again with twice as much if the command was killed before it had said
/// enough: then the machine was busy.
pub fn with_time_enough(time: Duration, body: impl Fn(&Path, Duration) -> Option<()>) {
    alone(|directory| {
        let attempt = |number: u32| {
            let place = directory.join(number.to_string());
            std::fs::create_dir(&place).expect("created");
            body(&place, time * 2u32.pow(number))
        };
        (0..5).find_map(attempt).expect("asked in one of the attempts");
    });
}

/// Whether a message of the keeper has not been read.
pub fn has_answer(fixture: &KeeperFixture) -> bool {
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    recv(fixture.keeper.as_raw_fd(), &mut [0; 64], flags).is_ok_and(|length| length > 0)
}

/// The next line of a hook; `None` if the keeper has reported something before it has written one, as its end.
pub fn line_or_answer(fixture: &mut KeeperFixture) -> Option<String> {
    let mut line = None;
    until("a word from the hook, or its end", || {
        let has_answer = has_answer(fixture);
        line = fixture.witness.line_at_hand();
        line.is_some() || has_answer
    });
    line
}

/// The next report about processes, and their names.
fn report(fixture: &KeeperFixture) -> (FromKeeper, Vec<String>) {
    loop {
        let Received::Message(Some(message)) = fixture.keeper.receive() else {
            await_readable(fixture.keeper.as_raw_fd());
            continue;
        };
        if let FromKeeper::LeftBehind { processes, .. } | FromKeeper::StopTimedOut { processes, .. } = message {
            return (message, processes.named().map(ToString::to_string).collect());
        }
    }
}

#[test]
fn the_whole_group_is_asked_and_the_status_is_the_commands_own() {
    alone(|directory| {
        let text = "
            trap 'echo main asked >&9; wait; exit 3' TERM
            sh -c 'trap \"echo child asked >&9; exit 0\" TERM; echo child >&9; while :; do sleep 0.01; done' &
            echo main >&9
            wait";
        let mut fixture = started(script(directory, text).stop_to(StopTo::Group), &["main", "child"]);
        fixture.send(&ToKeeper::Stop { kill_at: Time::NEVER });
        fixture.exited(CommandEnd::Exited(3));
        fixture.witness.hears(&["main asked", "child asked"]);
        fixture.empty();
        assert!(fixture.witness.rest().is_empty(), "nobody is asked twice");
    });
}

/// C1: a worker that gets the stop signal beside its main process loses the task that it is working on.
#[test]
fn the_main_process_alone_is_asked_and_its_child_finishes_its_work() {
    alone(|directory| {
        let text = "
            trap 'echo asked >&9; exit 0' TERM
            sh -c 'echo work >&9; until [ -e \"$WITNESS.go\" ]; do sleep 0.01; done; echo finished >&9'";
        let mut fixture = started(script(directory, text), &["work"]);
        fixture.send(&ToKeeper::Stop { kill_at: Time::NEVER });
        fixture.go();
        fixture.witness.hears(&["finished", "asked"]);
        fixture.exited(CommandEnd::Exited(0));
        fixture.empty();
    });
}

#[test]
fn the_rest_of_the_tree_is_asked_when_a_quarter_of_the_time_is_left() {
    with_time_enough(ms(1_200), |directory, time| {
        let text = "
            trap 'echo main asked >&9' TERM
            sh -c 'trap \"echo child asked >&9\" TERM; echo child >&9; while :; do sleep 0.01; done' &
            echo main >&9
            while :; do wait; sleep 0.01; done";
        let mut fixture = started(script(directory, text), &["main", "child"]);
        let kill_at = clock::now() + time;
        fixture.send(&ToKeeper::Stop { kill_at });
        assert_eq!(fixture.witness.line_or_end()?, "main asked");
        assert_eq!(fixture.witness.line_or_end()?, "child asked");
        assert!(clock::now() >= kill_at - time / 4, "asked too early");
        let (said, names) = report(&fixture);
        assert!(matches!(said, FromKeeper::StopTimedOut { run: 1, .. }), "{said:?}");
        assert!(names.len() >= 2 && names.iter().any(|name| name.starts_with("sh (pid ")), "{names:?}");
        fixture.exited(killed(libc::SIGKILL, true));
        fixture.empty();
        assert!(fixture.witness.rest().is_empty(), "asked once");
        Some(())
    });
}

/// C2: a server that goes into the background by itself.
#[test]
fn a_process_that_is_left_behind_is_named() {
    alone(|directory| {
        let mut fixture = script(directory, "(setsid sleep 100 &); exit 0").fork();
        fixture.arm(TERM, Time::NEVER);
        fixture.start();
        let (said, names) = report(&fixture);
        assert!(matches!(said, FromKeeper::LeftBehind { run: 1, .. }), "{said:?}");
        assert!(names.len() == 1, "{names:?}");
        fixture.empty();
    });
}

#[test]
fn a_stopped_command_is_woken_to_obey() {
    alone(|directory| {
        let text = "trap 'echo asked >&9; exit 0' TERM; echo main >&9; kill -STOP $$; while :; do sleep 0.01; done";
        let mut fixture = script(directory, text).fork();
        fixture.arm(TERM, Time::NEVER);
        fixture.start_until(&["main"]);
        fixture.hears(FromKeeper::Terminal(TerminalEvent::Stopped(Signal(libc::SIGSTOP))));
        fixture.send(&ToKeeper::Stop { kill_at: Time::NEVER });
        fixture.witness.hears(&["asked"]);
        fixture.exited(CommandEnd::Exited(0));
        fixture.empty();
    });
}

#[test]
fn a_stopped_command_is_killed_like_any_other() {
    alone(|directory| {
        let mut fixture = script(directory, "echo main >&9; kill -STOP $$; sleep 100; :").fork();
        fixture.arm(TERM, Time::NEVER);
        fixture.start_until(&["main"]);
        fixture.hears(FromKeeper::Terminal(TerminalEvent::Stopped(Signal(libc::SIGSTOP))));
        fixture.send(&ToKeeper::Kill);
        fixture.exited(killed(libc::SIGKILL, true));
        fixture.empty();
    });
}

#[test]
fn who_does_not_obey_is_killed_when_told_and_not_before() {
    alone(|directory| {
        let fixture = started(script(directory, STUBBORN), &["main", "grandchild"]);
        let kill_at = clock::now() + ms(300);
        fixture.send(&ToKeeper::Stop { kill_at });
        let died = fixture.witness.gone();
        assert!(died >= kill_at, "killed {:?} too early", kill_at.since(died));
        fixture.exited(killed(libc::SIGKILL, true));
        fixture.empty();
        fixture.hears_no_more();
    });
}

#[test]
fn a_later_stop_does_not_put_the_end_off_and_an_earlier_one_brings_it_on() {
    alone(|directory| {
        let fixture = started(script(directory, STUBBORN), &["main", "grandchild"]);
        let now = clock::now();
        fixture.send(&ToKeeper::Stop { kill_at: Time::NEVER });
        fixture.send(&ToKeeper::Stop { kill_at: now + ms(300) });
        fixture.send(&ToKeeper::Stop { kill_at: Time::NEVER });
        assert!(fixture.witness.gone() >= now + ms(300));
        fixture.exited(killed(libc::SIGKILL, true));
        fixture.empty();
    });
}

#[test]
fn a_stop_whose_time_is_over_kills_at_once() {
    alone(|directory| {
        let fixture = started(script(directory, STUBBORN), &["main", "grandchild"]);
        fixture.send(&ToKeeper::Stop { kill_at: Time::BOOT });
        fixture.exited(killed(libc::SIGKILL, true));
        fixture.empty();
    });
}

/// A process that ended before and was not reaped is not killed, and not counted as killed.
#[test]
fn a_process_that_has_ended_is_not_counted_as_killed() {
    alone(|directory| {
        // The shell becomes a program that reaps nothing.
        let text = "
            trap '' TERM
            (until [ -e \"$WITNESS.go\" ]; do sleep 0.01; done) &
            echo $! >&9
            exec sleep 1000";
        let mut fixture = script(directory, text).fork();
        fixture.arm(TERM, Time::NEVER);
        let main = fixture.start();
        let ended = fixture.witness.line().parse().expect("a process id");
        until("the shell has become another program", || status_of(main, "Name") == "sleep");
        fixture.go();
        until("it has ended", || status_of(ended, "State").starts_with('Z'));
        fixture.send(&ToKeeper::Stop { kill_at: Time::BOOT });
        let (message, names) = report(&fixture);
        let FromKeeper::StopTimedOut { processes, .. } = message else { panic!("{message:?}") };
        assert_eq!((processes.count, names.len()), (1, 1), "{names:?}");
        fixture.exited(killed(libc::SIGKILL, true));
        fixture.empty();
    });
}

#[test]
fn what_a_command_leaves_behind_is_asked_and_given_time_and_then_killed() {
    with_time_enough(ms(400), |directory, timeout| {
        let mut fixture = started(script(directory, REST_THAT_IS_ASKED).stop_timeout(timeout), &["grandchild"]);
        let before = clock::now();
        fixture.go();
        // The status is that of the main process; a descendant that holds its standard output does not delay it.
        fixture.exited(CommandEnd::Exited(7));
        assert_eq!(fixture.witness.line_or_end()?, "asked");
        let died = fixture.witness.gone();
        assert!(died >= before + timeout, "it was not given its time");
        fixture.empty();
        assert!(fixture.witness.rest().is_empty(), "asked once");
        Some(())
    });
}

/// K10: a descendant in another group that stands still has to be continued, or it cannot handle the stop signal.
#[test]
fn what_a_command_leaves_behind_is_continued_to_obey() {
    alone(|directory| {
        let text = "
            (setsid sh -c 'trap \"echo asked >&9; exit\" TERM; echo $$ >&9; kill -STOP $$; while :; do sleep 0.01; done' &)
            until [ -e \"$WITNESS.go\" ]; do sleep 0.01; done
            exit 7";
        let mut fixture = script(directory, text).fork();
        fixture.arm(TERM, Time::NEVER);
        fixture.start();
        let rest = fixture.witness.line().parse().expect("a process id");
        until("it stands still", || status_of(rest, "State").starts_with('T'));
        fixture.go();
        fixture.exited(CommandEnd::Exited(7));
        fixture.witness.hears(&["asked"]);
        fixture.empty();
    });
}

#[test]
fn what_a_command_leaves_behind_has_no_more_than_the_time_that_runs_already() {
    with_time_enough(ms(500), |directory, time| {
        // The main process exits on the stop signal; only then does its descendant in another session receive the
        // signal.
        let mut fixture = started(script(directory, REST_THAT_IS_ASKED), &["grandchild"]);
        let kill_at = clock::now() + time;
        fixture.send(&ToKeeper::Stop { kill_at });
        fixture.exited(killed(libc::SIGTERM, false));
        assert_eq!(fixture.witness.line_or_end()?, "asked");
        assert!(fixture.witness.gone() >= kill_at);
        fixture.empty();
        Some(())
    });
}

#[test]
fn a_main_process_that_has_left_its_group_is_asked_all_the_same() {
    alone(|directory| {
        let fixture = started(script(directory, &itself("stopping::command_in_the_keepers_group")), &["joined"]);
        fixture.send(&ToKeeper::Stop { kill_at: Time::NEVER });
        fixture.exited(killed(libc::SIGTERM, false));
        fixture.empty();
    });
}

/// No shell can do this, so this test is run as a program.
#[test]
#[ignore = "the command of the test above"]
fn command_in_the_keepers_group() {
    if std::env::var_os("WITNESS").is_none() {
        return;
    }
    let keeper = nix::unistd::getpgid(Some(nix::unistd::getppid())).expect("a group");
    nix::unistd::setpgid(nix::unistd::Pid::from_raw(0), keeper).expect("joined");
    std::fs::write("/proc/self/fd/9", "joined\n").expect("written");
    loop {
        std::thread::park();
    }
}

#[test]
fn a_forwarded_signal_reaches_the_main_process_only() {
    alone(|directory| {
        let text = "
            trap 'echo main got it >&9' USR1
            sh -c 'trap \"echo child got it >&9\" USR1; echo $$ >&9; while :; do sleep 0.01; done' &
            while :; do sleep 0.01; done";
        let mut fixture = script(directory, text).fork();
        fixture.arm(TERM, Time::NEVER);
        fixture.start();
        let child = fixture.witness.line().parse().expect("a process id");
        fixture.send(&ToKeeper::Forward { signal: libc::SIGUSR1 });
        assert_eq!(fixture.witness.line(), "main got it");
        // If the signal had been sent to the child, the child would have it by now, and receive it twice.
        signal(child, libc::SIGUSR1);
        assert_eq!(fixture.witness.line(), "child got it");
        fixture.send(&ToKeeper::Kill);
        fixture.exited(killed(libc::SIGKILL, true));
        fixture.empty();
        assert!(fixture.witness.rest().is_empty());
    });
}

#[test]
fn a_death_by_any_signal_is_reported_as_such() {
    alone(|directory| {
        let mut fixture = script(directory, "echo main >&9; exec sleep 100").fork();
        fixture.arm(TERM, Time::NEVER);
        for deadly in [libc::SIGHUP, libc::SIGKILL, libc::SIGTERM, 34, 37, 64] {
            let pid = fixture.start_until(&["main"]);
            signal(pid, deadly);
            fixture.exited(killed(deadly, false));
            fixture.empty();
        }
        fixture.start_until(&["main"]);
        fixture.send(&ToKeeper::Forward { signal: 36 });
        fixture.exited(killed(36, false));
        fixture.empty();
    });
}
