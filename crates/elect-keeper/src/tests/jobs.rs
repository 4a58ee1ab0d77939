//! Programs other than the leader command: which ones a deadline governs, their environment, and their fate without a
//! campaigner (K1, K2, K9).

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;

use super::harness::*;
use super::stopping::{line_or_answer, with_time_enough};
use crate::clock;
use crate::{HookScripts, ToKeeper};
use elect_core::{CommandEnd, FromKeeper, NotStarted, Program, Time};

const ELECTED: Program = Program::OnElected { term: TERM };
const OUSTED: Program = Program::OnOusted { term: TERM };
const DONE: CommandEnd = CommandEnd::Exited(0);

/// Reports that it ran, and takes long enough for a keeper that does not wait to overtake it.
const OUSTS: &str = "sleep 0.3; echo ousted >> \"${WITNESS%/*}/ousted\"";

fn times_ousted(directory: &Path) -> usize {
    fs::read_to_string(directory.join("ousted")).unwrap_or_default().lines().count()
}

fn ousting(directory: &Path, command: &str) -> Setting {
    script(directory, command).scripts(|scripts| scripts.on_ousted = Some(OUSTS.into()))
}

fn set(scripts: &mut HookScripts, program: Program, hook: &str) {
    if program == ELECTED { scripts.on_elected = Some(hook.into()) } else { scripts.on_ousted = Some(hook.into()) }
}

/// Elect's standard input, which only the leader command may read.
fn something_to_read(directory: &Path) {
    let path = directory.join("input");
    fs::write(&path, "input").expect("written");
    nix::unistd::dup2_stdin(fs::File::open(&path).expect("opened")).expect("copied");
}

fn past(kill_by: Time) {
    until("the deadline has passed", || clock::now() > kill_by + ms(200));
}

#[test]
fn a_follower_outlives_the_deadline_of_a_term() {
    alone(|directory| {
        let mut fixture = script(directory, SLEEPER).scripts(|scripts| scripts.follower = Some(SLEEPER.into())).fork();
        let kill_by = fixture.arm_for(ms(300));
        fixture.start_program(Program::Follower);
        fixture.witness.hears(&["main"]);
        past(kill_by);
        fixture.hears_no_more();
        assert!(!fixture.witness.is_gone());
        fixture.send(&ToKeeper::Stop { kill_at: Time::NEVER });
        fixture.exited(killed(libc::SIGTERM, false));
        fixture.empty();
    });
}

#[test]
fn a_follower_reads_nothing_and_does_not_hold_the_lock() {
    alone(|directory| {
        something_to_read(directory);
        let lock = fs::File::create(directory.join("lock")).expect("created");
        // One redirection and no pipe, because `ls` would list the descriptors that the shell opens for others.
        let follower = "exec >&9; readlink /proc/self/fd/0; ls -m /proc/$$/fd; :";
        let mut fixture = script(directory, SLEEPER).scripts(|scripts| scripts.follower = Some(follower.into())).fork();
        fixture.claim_with("lock", vec![OwnedFd::from(lock)]);
        fixture.start_program(Program::Follower);
        assert_eq!(fixture.witness.line(), "/dev/null");
        assert_eq!(fixture.witness.line(), "0, 1, 2, 9", "K9");
        fixture.exited(DONE);
        fixture.empty();
    });
}

#[test]
fn the_hooks_of_a_leader_read_nothing_and_hold_the_lock() {
    for program in [ELECTED, OUSTED] {
        alone(|directory| {
            something_to_read(directory);
            let lock = fs::File::create(directory.join("lock")).expect("created");
            let hook = "readlink /proc/$$/fd/0 >&9; readlink /proc/$$/fd/100 >&9";
            let mut fixture = script(directory, SLEEPER).scripts(|scripts| set(scripts, program, hook)).fork();
            fixture.claim_with("lock", vec![OwnedFd::from(lock)]);
            fixture.arm(TERM, Time::NEVER);
            fixture.start_program(program);
            assert_eq!(fixture.witness.line(), "/dev/null");
            assert_eq!(fixture.witness.line(), directory.join("lock").display().to_string());
            fixture.exited(DONE);
            fixture.empty();
        });
    }
}

#[test]
fn a_hook_has_its_time_and_all_that_it_started_dies_with_it() {
    for program in [ELECTED, OUSTED] {
        with_time_enough(SOON, |directory, time| {
            let mut fixture = script(directory, SLEEPER)
                .scripts(|scripts| {
                    set(scripts, program, STUBBORN);
                    scripts.hook_timeout = time;
                })
                .fork();
            fixture.arm(TERM, Time::NEVER);
            let before = clock::now();
            fixture.start_program(program);
            let mut lines = [line_or_answer(&mut fixture)?, line_or_answer(&mut fixture)?];
            lines.sort();
            assert_eq!(lines, ["grandchild", "main"]);
            fixture.exited(killed(libc::SIGKILL, true));
            fixture.empty();
            assert!(clock::now() >= before + time);
            Some(())
        });
    }
}

#[test]
fn what_an_ended_hook_left_behind_has_the_rest_of_its_time() {
    with_time_enough(SOON, |directory, time| {
        let mut fixture = script(directory, SLEEPER)
            .scripts(|scripts| {
                scripts.on_elected = Some(LEAVES_ONE_BEHIND.into());
                scripts.hook_timeout = time;
            })
            .fork();
        fixture.arm(TERM, Time::NEVER);
        fixture.start_program(ELECTED);
        assert_eq!(line_or_answer(&mut fixture)?, "grandchild");
        fixture.exited(CommandEnd::Exited(7));
        fixture.empty();
        Some(())
    });
}

#[test]
fn the_hook_before_a_command_is_under_the_deadline_of_its_term() {
    alone(|directory| {
        let mut fixture =
            script(directory, SLEEPER).scripts(|scripts| scripts.on_elected = Some(STUBBORN.into())).fork();
        let run = fixture.order(ELECTED, &[]);
        fixture.hears(FromKeeper::NotStarted { run, why: NotStarted::TooLate });
        fixture.empty();
        fixture.start_program_under_deadline(ELECTED, &["main", "grandchild"]);
        fixture.hears(FromKeeper::Expired { term: TERM });
        fixture.exited(killed(libc::SIGKILL, true));
        fixture.empty();
    });
}

#[test]
fn the_hook_after_a_term_is_under_none() {
    alone(|directory| {
        let mut fixture = ousting(directory, SLEEPER).fork();
        fixture.start_under_deadline(&["main"]);
        fixture.hears(FromKeeper::Expired { term: TERM });
        fixture.exited(killed(libc::SIGKILL, true));
        fixture.empty();
        fixture.start_program(OUSTED);
        fixture.exited(DONE);
        fixture.empty();
        assert_eq!(times_ousted(directory), 1);
    });
}

#[test]
fn without_a_campaigner_the_keeper_runs_the_last_hook_before_it_releases() {
    alone(|directory| {
        let mut fixture = ousting(directory, STUBBORN).stop_timeout(ms(200)).fork();
        fixture.claim("one");
        fixture.arm(TERM, Time::NEVER);
        fixture.start_until(&["main", "grandchild"]);
        fixture.bereave().releases_once("one");
        assert_eq!(times_ousted(directory), 1);
    });
}

#[test]
fn without_a_campaigner_a_hook_that_hangs_is_killed_before_the_release() {
    alone(|directory| {
        let mut fixture = script(directory, SLEEPER)
            .scripts(|scripts| {
                scripts.on_ousted = Some(STUBBORN.into());
                scripts.hook_timeout = SOON;
            })
            .fork();
        fixture.claim("one");
        fixture.arm(TERM, Time::NEVER);
        fixture.start_until(&["main"]);
        fixture.bereave().releases_once("one");
    });
}

#[test]
fn a_campaigner_that_ends_while_the_hook_runs_has_it_run_once() {
    alone(|directory| {
        let mut fixture = ousting(directory, "exit 3").fork();
        fixture.claim("one");
        fixture.arm(TERM, Time::NEVER);
        fixture.start();
        fixture.exited(CommandEnd::Exited(3));
        fixture.empty();
        fixture.start_program(OUSTED);
        fixture.bereave().releases_once("one");
        assert_eq!(times_ousted(directory), 1);
    });
}

#[test]
fn a_campaigner_that_ends_before_or_after_the_hook_has_it_run_once() {
    for after in [false, true] {
        alone(|directory| {
            let mut fixture = ousting(directory, "exit 3").fork();
            fixture.claim("one");
            fixture.arm(TERM, Time::NEVER);
            fixture.start();
            fixture.exited(CommandEnd::Exited(3));
            fixture.empty();
            if after {
                fixture.start_program(OUSTED);
                fixture.exited(DONE);
                fixture.empty();
            }
            fixture.bereave().releases_once("one");
            assert_eq!(times_ousted(directory), 1);
        });
    }
}

#[test]
fn without_a_campaigner_a_follower_is_stopped_and_nobody_was_ousted() {
    alone(|directory| {
        let mut fixture = ousting(directory, SLEEPER)
            .scripts(|scripts| scripts.follower = Some(STUBBORN.into()))
            .stop_timeout(ms(200))
            .fork();
        fixture.claim("one");
        fixture.start_program(Program::Follower);
        fixture.witness.hears(&["main", "grandchild"]);
        fixture.bereave().releases_once("one");
        assert_eq!(times_ousted(directory), 0);
    });
}

#[test]
fn a_hold_ends_with_the_hook() {
    alone(|directory| {
        let mut fixture = ousting(directory, "exit 3").min_hold(ms(700)).fork();
        fixture.claim("one");
        fixture.arm(TERM, Time::NEVER);
        let before = clock::now();
        fixture.start();
        fixture.exited(CommandEnd::Exited(3));
        fixture.empty();
        let orphan = fixture.bereave();
        until("the hook has run", || times_ousted(directory) == 1);
        assert!(clock::now() >= before + ms(700), "not before the end of the hold");
        orphan.releases_once("one");
    });
}

#[test]
fn a_term_without_a_command_lasts_until_it_is_stopped() {
    for kill in [false, true] {
        alone(|directory| {
            let mut fixture = script(directory, SLEEPER).without_a_command().fork();
            fixture.arm(TERM, Time::NEVER);
            let run = fixture.order_start(TERM, &[]);
            fixture.hears(FromKeeper::NoCommand { run });
            fixture.hears_no_more();
            fixture.send(&if kill { ToKeeper::Kill } else { ToKeeper::Stop { kill_at: Time::NEVER } });
            fixture.empty();
        });
    }
    alone(|directory| {
        let mut fixture = script(directory, SLEEPER).without_a_command().fork();
        fixture.claim("one");
        fixture.arm_for(SOON);
        let run = fixture.order_start(TERM, &[]);
        fixture.hears(FromKeeper::NoCommand { run });
        fixture.hears(FromKeeper::Expired { term: TERM });
        fixture.empty();
        fixture.bereave().releases_once("one");
    });
}
