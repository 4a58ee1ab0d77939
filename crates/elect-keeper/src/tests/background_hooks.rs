//! Background hooks: they run beside the tree and are part of it (K6).

use super::harness::*;
use super::stopping::{line_or_answer, with_time_enough};
use crate::ToKeeper;
use crate::clock;
use elect_core::{BackgroundHook, BackgroundHookEnd, CommandEnd, FromKeeper, NotStarted, Program, StopTo, Time};

const DONE: FromKeeper = FromKeeper::BackgroundHookEnded(BackgroundHookEnd::Ended(CommandEnd::Exited(0)));
const NOT_NOW: FromKeeper = FromKeeper::BackgroundHookEnded(BackgroundHookEnd::NotNow);

fn ended(end: CommandEnd) -> FromKeeper {
    FromKeeper::BackgroundHookEnded(BackgroundHookEnd::Ended(end))
}

fn beside(setting: Setting, hook: &str) -> Setting {
    setting.scripts(|scripts| {
        (scripts.on_change, scripts.on_error) = (Some(hook.into()), Some(hook.into()));
    })
}

#[test]
fn one_at_a_time_beside_a_command_or_beside_nothing() {
    alone(|directory| {
        let waits = "echo hook >&9; until [ -e \"$WITNESS.go\" ]; do sleep 0.01; done";
        let mut fixture = beside(script(directory, SLEEPER), waits).fork();
        fixture.order_background_hook(BackgroundHook::OnChange);
        fixture.witness.hears(&["hook"]);
        fixture.order_background_hook(BackgroundHook::OnError);
        fixture.hears(NOT_NOW);
        fixture.arm(TERM, Time::NEVER);
        fixture.start_until(&["main"]);
        fixture.go();
        fixture.hears(DONE);
        fixture.order_background_hook(BackgroundHook::OnError);
        fixture.witness.hears(&["hook"]);
        fixture.hears(DONE);
        fixture.hears_no_more();
        fixture.send(&ToKeeper::Kill);
        fixture.exited(killed(libc::SIGKILL, true));
        fixture.empty();
    });
}

#[test]
fn what_is_stopped_or_killed_takes_it_along() {
    for kill in [false, true] {
        alone(|directory| {
            let mut fixture = beside(script(directory, SLEEPER), "echo hook >&9; exec sleep 100").fork();
            fixture.arm(TERM, Time::NEVER);
            fixture.start_until(&["main"]);
            fixture.order_background_hook(BackgroundHook::OnChange);
            fixture.witness.hears(&["hook"]);
            fixture.send(&if kill { ToKeeper::Kill } else { ToKeeper::Stop { kill_at: Time::NEVER } });
            let mut heard = [fixture.answer(), fixture.answer()];
            heard.sort_by_key(|word| matches!(word, FromKeeper::BackgroundHookEnded(_)));
            let end = if kill { killed(libc::SIGKILL, true) } else { killed(libc::SIGTERM, false) };
            assert_eq!(heard[0], FromKeeper::Exited { run: 1, end });
            assert!(matches!(
                heard[1],
                FromKeeper::BackgroundHookEnded(BackgroundHookEnd::Ended(CommandEnd::Killed { .. }))
            ));
            fixture.empty();
        });
    }
}

#[test]
fn a_tree_is_not_empty_before_the_hook_beside_it_is_gone() {
    alone(|directory| {
        let mut fixture = beside(script(directory, "echo main >&9; exit 3"), STUBBORN).stop_timeout(SOON).fork();
        fixture.order_background_hook(BackgroundHook::OnChange);
        fixture.witness.hears(&["main", "grandchild"]);
        fixture.arm(TERM, Time::NEVER);
        let before = clock::now();
        fixture.start_until(&["main"]);
        fixture.exited(CommandEnd::Exited(3));
        // K10: no hook is started beside a tree that is being stopped.
        let heard = fixture.answer();
        assert!(
            matches!(heard, FromKeeper::BackgroundHookEnded(BackgroundHookEnd::Ended(CommandEnd::Killed { .. }))),
            "{heard:?}"
        );
        fixture.empty();
        assert!(clock::now() >= before + SOON);
    });
}

#[test]
fn nothing_is_started_beside_what_is_being_stopped() {
    alone(|directory| {
        let mut fixture = beside(script(directory, STUBBORN), "echo hook >&9").fork();
        fixture.arm(TERM, Time::NEVER);
        fixture.start_until(&["main", "grandchild"]);
        fixture.send(&ToKeeper::Stop { kill_at: Time::NEVER });
        fixture.order_background_hook(BackgroundHook::OnChange);
        fixture.hears(NOT_NOW);
        fixture.send(&ToKeeper::Kill);
        fixture.exited(killed(libc::SIGKILL, true));
        fixture.empty();
    });
}

#[test]
fn nothing_is_started_beside_what_has_ended() {
    alone(|directory| {
        let mut fixture = beside(script(directory, "exit 3"), "echo hook >&9").fork();
        fixture.arm(TERM, Time::NEVER);
        fixture.start();
        fixture.exited(CommandEnd::Exited(3));
        fixture.empty();
        // The order was sent before the campaigner received the run's end.
        fixture.order_background_hook(BackgroundHook::OnChange);
        fixture.hears(NOT_NOW);
        fixture.hears_no_more();
    });
}

#[test]
fn it_has_its_time_and_what_it_left_behind_no_more() {
    for (hook, end) in [(STUBBORN, killed(libc::SIGKILL, true)), (LEAVES_ONE_BEHIND, CommandEnd::Exited(7))] {
        alone(|directory| {
            let setting = beside(script(directory, SLEEPER), hook).scripts(|scripts| scripts.hook_timeout = SOON);
            let fixture = setting.fork();
            let before = clock::now();
            fixture.order_background_hook(BackgroundHook::OnError);
            fixture.hears(ended(end));
            fixture.witness.gone();
            assert!(clock::now() >= before + SOON);
            fixture.hears_no_more();
        });
    }
}

#[test]
fn beside_a_tree_its_time_out_leaves_the_tree_alone() {
    alone(|directory| {
        let setting =
            beside(script(directory, SLEEPER), "exec sleep 100").scripts(|scripts| scripts.hook_timeout = SOON);
        let mut fixture = setting.fork();
        fixture.arm(TERM, Time::NEVER);
        fixture.start_until(&["main"]);
        fixture.order_background_hook(BackgroundHook::OnError);
        fixture.hears(ended(killed(libc::SIGKILL, true)));
        fixture.hears_no_more();
        assert!(!fixture.witness.is_gone());
        fixture.send(&ToKeeper::Kill);
        fixture.exited(killed(libc::SIGKILL, true));
        fixture.empty();
    });
}

#[test]
fn beside_nothing_it_is_killed_before_the_release() {
    alone(|directory| {
        let mut fixture = beside(script(directory, SLEEPER), STUBBORN).fork();
        fixture.claim("one");
        fixture.order_background_hook(BackgroundHook::OnChange);
        fixture.witness.hears(&["main", "grandchild"]);
        fixture.bereave().releases_once("one");
    });
}

#[test]
fn beside_nothing_a_stop_is_for_it() {
    alone(|directory| {
        let mut fixture = beside(script(directory, SLEEPER), "echo hook >&9; exec sleep 100").fork();
        fixture.order_background_hook(BackgroundHook::OnChange);
        fixture.witness.hears(&["hook"]);
        // No deadline is armed, so the start is too late, and only the hook runs.
        let run = fixture.order(Program::Command { term: TERM }, &[]);
        assert!(matches!(fixture.answer(), FromKeeper::NotStarted { .. }), "run {run}");
        // The start is cleared; with a background hook the tree is not empty.
        fixture.hears(FromKeeper::Cleared { run });
        fixture.hears_no_more();
        fixture.send(&ToKeeper::Stop { kill_at: Time::NEVER });
        fixture.hears(ended(killed(libc::SIGTERM, false)));
        fixture.empty();
    });
}

#[test]
fn a_start_that_is_refused_at_exec_leaves_the_hook_beside_it_alone_and_is_made_again() {
    alone(|directory| {
        let setting = program(directory, directory.join("not-there"), &["job"]);
        let mut fixture = beside(setting, "echo hook >&9; exec sleep 100").fork();
        fixture.order_background_hook(BackgroundHook::OnChange);
        fixture.witness.hears(&["hook"]);
        fixture.arm(TERM, Time::NEVER);
        for _ in 0..3 {
            let run = fixture.order_start(TERM, &[]);
            fixture.hears(FromKeeper::NotStarted { run, why: NotStarted::Failed(libc::ENOENT) });
            fixture.hears(FromKeeper::Cleared { run });
            fixture.hears_no_more();
            assert!(!fixture.witness.is_gone(), "the hook goes on");
        }
        fixture.send(&ToKeeper::Stop { kill_at: Time::NEVER });
        fixture.hears(ended(killed(libc::SIGTERM, false)));
        fixture.empty();
    });
}

#[test]
fn a_refused_start_beside_a_hook_that_was_stopped_meanwhile_is_empty_only_without_the_hook() {
    alone(|directory| {
        let setting = program(directory, directory.join("not-there"), &["job"]);
        let mut fixture = beside(setting, "trap '' TERM; echo hook >&9; sleep 100; :").fork();
        fixture.order_background_hook(BackgroundHook::OnChange);
        fixture.witness.hears(&["hook"]);
        fixture.arm(TERM, Time::NEVER);
        let run = fixture.order_start(TERM, &[]);
        fixture.send(&ToKeeper::Stop { kill_at: Time::NEVER });
        // The program was not found, or the start was stopped before exec.
        let answer = fixture.answer();
        assert!(matches!(answer, FromKeeper::NotStarted { run: refused, .. } if refused == run), "{answer:?}");
        fixture.send(&ToKeeper::Ping);
        loop {
            #[expect(clippy::wildcard_enum_match_arm, reason = "every other answer fails the test")]
            match fixture.answer() {
                FromKeeper::Pong => break,
                // The start was cleared before the stop was read.
                FromKeeper::Cleared { run: cleared } => assert_eq!(cleared, run),
                other => panic!("{other:?} although the hook lives"),
            }
        }
        fixture.send(&ToKeeper::Kill);
        fixture.hears(ended(killed(libc::SIGKILL, false)));
        fixture.empty();
    });
}

/// K10: such a start has no main process, so the processes outside the signalled groups do not wait for its end.
#[test]
fn a_start_that_is_refused_after_the_stop_began_passes_the_stop_signal_on() {
    alone(|directory| {
        let hook = "
            (setsid sh -c 'trap \"echo asked >&9; exit 0\" TERM; echo grandchild >&9; while :; do sleep 0.01; done' &)
            echo hook >&9
            exec sleep 100";
        let setting = program(directory, directory.join("not-there"), &["job"]).stop_to(StopTo::Group);
        let mut fixture = beside(setting, hook).fork();
        fixture.order_background_hook(BackgroundHook::OnChange);
        fixture.witness.hears(&["hook", "grandchild"]);
        fixture.arm(TERM, Time::NEVER);
        // Both orders are read before the child of the start is reaped.
        signal(fixture.keeper.pid(), libc::SIGSTOP);
        let run = fixture.order_start(TERM, &[]);
        fixture.send(&ToKeeper::Stop { kill_at: Time::NEVER });
        signal(fixture.keeper.pid(), libc::SIGCONT);
        let answers = [fixture.answer(), fixture.answer()];
        let is_refusal = |answer: &FromKeeper| matches!(answer, FromKeeper::NotStarted { run: of, .. } if *of == run);
        assert!(answers.iter().any(is_refusal), "{answers:?}");
        assert!(answers.contains(&ended(killed(libc::SIGTERM, false))), "{answers:?}");
        assert_eq!(fixture.witness.line(), "asked");
        fixture.empty();
        assert!(fixture.witness.rest().is_empty(), "asked once");
    });
}

#[test]
fn what_an_ended_hook_left_beside_nothing_is_a_stops_at_once() {
    alone(|directory| {
        let fixture = beside(script(directory, SLEEPER), LEAVES_ONE_BEHIND).fork();
        fixture.order_background_hook(BackgroundHook::OnChange);
        let mut fixture = fixture;
        fixture.witness.hears(&["grandchild"]);
        // The hook's main process has ended before this is answered, or ends soon: then its leftovers get the stop
        // signal.
        until("the end of its main process", || fixture.children() == 1 && fixture.grandchildren() == 1);
        fixture.send(&ToKeeper::Stop { kill_at: Time::NEVER });
        fixture.hears(ended(CommandEnd::Exited(7)));
        assert!(!fixture.witness.is_gone(), "said of the hook, while what it left is waited for");
        fixture.send(&ToKeeper::Kill);
        fixture.empty();
    });
}

#[test]
fn a_hook_that_is_being_killed_is_not_merely_stopped_by_a_stop() {
    with_time_enough(SOON, |directory, time| {
        // The hook's descendant ignores the stop signal, and is not a child of the hook any more.
        let setting = beside(script(directory, SLEEPER), STUBBORN).scripts(|scripts| scripts.hook_timeout = time);
        let mut fixture = setting.fork();
        fixture.order_background_hook(BackgroundHook::OnError);
        let mut lines = [line_or_answer(&mut fixture)?, line_or_answer(&mut fixture)?];
        lines.sort();
        assert_eq!(lines, ["grandchild", "main"]);
        // The stop may arrive before or after the first SIGKILL; it must not delay the kill.
        signal(fixture.keeper.pid(), libc::SIGSTOP);
        let over = clock::now() + time;
        until("its time is over", || clock::now() >= over);
        fixture.send(&ToKeeper::Stop { kill_at: Time::NEVER });
        signal(fixture.keeper.pid(), libc::SIGCONT);
        fixture.hears(ended(killed(libc::SIGKILL, true)));
        fixture.empty();
        Some(())
    });
}

#[test]
fn one_that_does_not_exist_is_said_not_to() {
    alone(|directory| {
        let fixture = script(directory, SLEEPER).fork();
        fixture.order_background_hook(BackgroundHook::OnChange);
        fixture.hears(FromKeeper::BackgroundHookEnded(BackgroundHookEnd::Failed(libc::ENOENT)));
        fixture.hears_no_more();
    });
}
