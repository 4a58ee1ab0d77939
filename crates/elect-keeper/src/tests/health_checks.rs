//! The health check: the keeper's third program, beside the tree and a background hook, or alone (H3, H5).

use std::ffi::OsString;
use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::resource::{Resource, setrlimit};

use super::harness::*;
use super::storm::{dies_in_time, time_after};
use crate::clock;
use crate::containment::Tier;
use crate::sys;
use crate::{Containment, HealthScript, ToKeeper};
use elect_core::{BackgroundHook, CheckEnd, CheckNumber, CommandEnd, FromKeeper, KILL_ALLOWANCE, Program, Time};

pub const TIERS: [Containment; 3] = [Containment::Cgroup, Containment::Pidns, Containment::Tree];
/// A test that waits for this time-out has failed.
pub const LONG: Duration = Duration::from_secs(600);
pub const HANGS: &str = "trap '' TERM; echo $$ >&9; sleep 100; :";

pub fn in_each(body: impl Fn(&Path, Containment)) {
    for tier in TIERS {
        println!("in the tier {tier:?}");
        within(tier, |directory| body(directory, tier));
    }
}

pub fn checked(setting: Setting, script: &str, timeout: Duration) -> Setting {
    setting.scripts(|scripts| scripts.health = Some(HealthScript { script: script.into(), timeout }))
}

impl KeeperFixture {
    pub fn order_check(&self, number: u64) {
        let witness = (OsString::from("WITNESS"), self.directory.join("witness").into_os_string());
        let identity = vec![(OsString::from("ELECT_ROLE"), OsString::from("candidate")), witness];
        self.send(&ToKeeper::StartCheck { check: CheckNumber(number), identity });
    }

    pub fn check_ended(&self, number: u64, end: CheckEnd) {
        self.hears(FromKeeper::CheckEnded { check: CheckNumber(number), end });
    }

    /// Starts a check that writes its process id.
    pub fn start_check(&mut self, number: u64) -> i32 {
        self.order_check(number);
        self.number()
    }

    /// A number that a process of the tree writes.
    pub fn number(&mut self) -> i32 {
        self.witness.line().parse().expect("a number")
    }

    fn is_check_populated(&self) -> bool {
        let events = fs::read_to_string(self.check_leaf().join("cgroup.events")).expect("read");
        events.contains("populated 1")
    }

    fn check_leaf(&self) -> PathBuf {
        let Tier::Cgroup { check_leaf: Some(leaf), .. } = &self.keeper.tier else { panic!("{:?}", self.keeper.tier) };
        leaf.path().to_owned()
    }
}

pub const EXITED: CheckEnd = CheckEnd::Ended(CommandEnd::Exited(0));

fn namespace_of(pid: i32) -> PathBuf {
    fs::read_link(format!("/proc/{pid}/ns/pid")).expect("a namespace")
}

pub fn is_gone(pid: i32) -> bool {
    status_of(pid, "State").is_empty() || status_of(pid, "State").starts_with('Z')
}

#[test]
fn its_end_comes_back_with_its_number_in_each_tier() {
    in_each(|directory, tier| {
        for (number, (text, end)) in
            [("exit 0", CommandEnd::Exited(0)), ("exit 3", CommandEnd::Exited(3)), ("kill -KILL $$", killed(9, false))]
                .into_iter()
                .enumerate()
        {
            let place = directory.join(number.to_string());
            fs::create_dir(&place).expect("created");
            let mut fixture = checked(script(&place, SLEEPER), text, LONG).contained(tier).fork();
            fixture.order_check(1);
            fixture.check_ended(1, CheckEnd::Ended(end));
            fixture.arm(TERM, Time::NEVER);
            fixture.start_until(&["main"]);
            for number in 2..5 {
                fixture.order_check(number);
                fixture.check_ended(number, CheckEnd::Ended(end));
            }
            fixture.hears_no_more();
            fixture.send(&ToKeeper::Kill);
            fixture.exited(killed(libc::SIGKILL, true));
            fixture.empty();
        }
    });
}

#[test]
fn its_surroundings_are_its_own_in_each_tier() {
    in_each(|directory, tier| {
        let text = "
            echo \"$ELECT_ROLE\" >&9
            ls -l /proc/self/fd | grep -c lock-of-the-leader >&9
            if read -r line; then echo input >&9; else echo none >&9; fi
            echo $$ >&9
            until [ -e \"$WITNESS.go\" ]; do sleep 0.01; done";
        let lock = fs::File::create(directory.join("lock-of-the-leader")).expect("created");
        let mut fixture = checked(script(directory, SLEEPER), text, LONG).contained(tier).fork();
        fixture.claim_with("one", vec![lock.into()]);
        fixture.arm(TERM, Time::NEVER);
        let main = fixture.start_until(&["main"]);
        fixture.order_check(1);
        fixture.witness.hears(&["candidate", "0", "none"]);
        let check = fixture.number();
        assert_eq!(namespace_of(check), namespace_of(fixture.keeper.pid()));
        assert_eq!(namespace_of(main) == namespace_of(check), tier != Containment::Pidns);
        let group = nix::unistd::getpgid(Some(nix::unistd::Pid::from_raw(check))).expect("a group");
        assert_eq!(group.as_raw(), check);
        if tier == Containment::Cgroup {
            let inside = fs::read_to_string(fixture.check_leaf().join("cgroup.procs")).expect("read");
            assert!(inside.lines().any(|pid| pid == check.to_string()), "{inside}");
            assert!(inside.lines().all(|pid| pid != main.to_string()), "{inside}");
        }
        fixture.go();
        fixture.check_ended(1, EXITED);
    });
}

#[test]
fn it_runs_beside_a_command_and_a_hook_one_at_a_time_in_each_tier() {
    in_each(|directory, tier| {
        let waits = "echo check >&9; until [ -e \"$WITNESS.go\" ]; do sleep 0.01; done";
        let hook = "echo hook >&9; exec sleep 100";
        let setting = checked(script(directory, SLEEPER), waits, LONG).contained(tier);
        let mut fixture = setting.scripts(|scripts| scripts.on_change = Some(hook.into())).fork();
        fixture.order_background_hook(BackgroundHook::OnChange);
        fixture.witness.hears(&["hook"]);
        fixture.order_check(1);
        fixture.witness.hears(&["check"]);
        fixture.arm(TERM, Time::NEVER);
        fixture.start_until(&["main"]);
        fixture.order_check(2);
        fixture.check_ended(2, CheckEnd::Failed(libc::EBUSY));
        fixture.go();
        fixture.check_ended(1, EXITED);
        fixture.order_check(3);
        fixture.witness.hears(&["check"]);
        fixture.check_ended(3, EXITED);
        fixture.hears_no_more();
        assert!(!fixture.witness.is_gone());
    });
}

#[test]
fn one_that_hangs_is_killed_at_its_time_out_and_the_command_goes_on_in_each_tier() {
    in_each(|directory, tier| {
        let mut fixture = checked(script(directory, SLEEPER), HANGS, ms(300)).contained(tier).fork();
        fixture.arm(TERM, Time::NEVER);
        let main = fixture.start_until(&["main"]);
        let others = fixture.children();
        let mut heard = 0;
        for number in 1.. {
            let before = clock::now();
            fixture.order_check(number);
            fixture.check_ended(number, CheckEnd::TimedOut);
            let after = clock::now().since(before);
            assert!(after >= ms(300), "{after:?}");
            until("the keeper has reaped it", || fixture.children() == others);
            // On a busy machine the time-out of some comes before their first word.
            let Some(check) = fixture.witness.line_at_hand() else { continue };
            let check = check.parse().expect("a number");
            until("the end of the check", || is_gone(check));
            // Its child may end later than the check itself, and is left as long.
            until("the end of all of it", || {
                let is_left = tier == Containment::Cgroup && fixture.is_check_populated();
                !is_left && !Path::new(&format!("/proc/{check}")).exists()
            });
            heard += 1;
            if heard == 3 {
                break;
            }
        }
        assert!(!is_gone(main));
        fixture.hears_no_more();
        fixture.send(&ToKeeper::Kill);
        fixture.exited(killed(libc::SIGKILL, true));
        fixture.empty();
    });
}

#[test]
fn one_that_writes_without_end_into_a_full_pipe_only_times_out() {
    dies_in_time(Containment::Tree, |directory, _| {
        let (reader, writer) = nix::unistd::pipe().expect("a pipe");
        nix::unistd::dup2_stdout(writer.as_fd()).expect("redirected");
        nix::unistd::dup2_stderr(writer.as_fd()).expect("redirected");
        drop(writer);
        let mut fixture = checked(script(directory, SLEEPER), "yes; yes >&2", ms(300)).fork();
        let (_, kill_by) = fixture.start_under_deadline(&["main"]);
        fixture.order_check(1);
        fixture.check_ended(1, CheckEnd::TimedOut);
        let late = time_after(kill_by, fixture.witness.gone());
        fixture.hears(FromKeeper::Expired { term: TERM });
        drop(reader);
        late
    });
}

#[test]
fn one_that_cannot_be_started_has_failed_and_the_keeper_goes_on() {
    alone(|directory| {
        let mut fixture = checked(script(directory, SLEEPER), "exit 0", LONG).fork();
        let identity = vec![(OsString::from("ELECT_ROLE"), OsString::from("no\0variable"))];
        fixture.send(&ToKeeper::StartCheck { check: CheckNumber(1), identity });
        fixture.check_ended(1, CheckEnd::Failed(libc::EINVAL));
        fixture.order_check(2);
        fixture.check_ended(2, EXITED);
        fixture.arm(TERM, Time::NEVER);
        fixture.start_until(&["main"]);
    });
    alone(|directory| {
        let fixture = script(directory, SLEEPER).fork();
        fixture.order_check(1);
        fixture.check_ended(1, CheckEnd::Failed(libc::ENOENT));
    });
}

#[test]
fn one_that_cannot_be_executed_has_failed_and_the_keeper_goes_on() {
    // The kernel grants a program's words and variables a quarter of the stack.
    alone(|directory| {
        for name in ["HUGE_ONE", "HUGE_TWO"] {
            crate::change_environment(&[(name.into(), Some("x".repeat(100_000).into()))]);
        }
        setrlimit(Resource::RLIMIT_STACK, 512 * 1024, 512 * 1024).expect("set");
        let fixture = checked(script(directory, SLEEPER), "exit 0", LONG).fork();
        for number in 1..4 {
            fixture.order_check(number);
            fixture.check_ended(number, CheckEnd::Failed(libc::E2BIG));
        }
        fixture.hears_no_more();
    });
    within(Containment::Cgroup, |directory| {
        let fixture = checked(script(directory, SLEEPER), "exit 0", LONG).contained(Containment::Cgroup).fork();
        fs::remove_dir(fixture.check_leaf()).expect("empty");
        fixture.order_check(1);
        fixture.check_ended(1, CheckEnd::Failed(libc::ENODEV));
        fixture.hears_no_more();
    });
}

#[test]
fn the_members_of_its_group_end_with_it_in_each_tier() {
    in_each(|directory, tier| {
        let text = "(trap '' TERM; sleep 100; :) & echo $! >&9; exit 0";
        let mut fixture = checked(script(directory, SLEEPER), text, LONG).contained(tier).fork();
        fixture.arm(TERM, Time::NEVER);
        let main = fixture.start_until(&["main"]);
        let left = fixture.start_check(1);
        fixture.check_ended(1, EXITED);
        until("the end of what it left", || is_gone(left));
        assert!(!is_gone(main));
    });
}

/// In another session nothing tells what a check leaves from what the command does, but its cgroup.
#[test]
fn what_it_leaves_in_another_session_is_part_of_the_tree_in_each_tier() {
    in_each(|directory, tier| {
        let text = "
            (setsid sh -c 'trap \"\" TERM; echo $$ >&9; touch \"$WITNESS.up\"; sleep 100; :' &)
            until [ -e \"$WITNESS.up\" ]; do sleep 0.01; done";
        let mut fixture = checked(script(directory, SLEEPER), text, LONG).contained(tier).fork();
        fixture.arm(TERM, Time::NEVER);
        let main = fixture.start_until(&["main"]);
        let left = fixture.start_check(1);
        fixture.check_ended(1, EXITED);
        if tier == Containment::Cgroup {
            until("the end of what it left", || is_gone(left));
            assert!(!is_gone(main));
        }
        fixture.send(&ToKeeper::Stop { kill_at: Time::NEVER });
        fixture.exited(killed(libc::SIGTERM, false));
        if tier != Containment::Cgroup {
            fixture.hears_no_more();
            assert!(!is_gone(left), "it ignores the stop signal");
            fixture.send(&ToKeeper::Kill);
        }
        fixture.empty();
    });
}

#[test]
fn what_it_leaves_beside_nothing_is_killed_at_once_in_each_tier() {
    in_each(|directory, tier| {
        let mut fixture = checked(script(directory, SLEEPER), LEAVES_ONE_BEHIND, LONG).contained(tier).fork();
        for number in 1..4 {
            fixture.order_check(number);
            fixture.witness.hears(&["grandchild"]);
            fixture.check_ended(number, CheckEnd::Ended(CommandEnd::Exited(7)));
            fixture.witness.gone();
            until("its reaping", || fixture.children() == 0);
            fs::remove_file(directory.join("witness.up")).expect("it ran");
        }
        fixture.send(&ToKeeper::Stop { kill_at: Time::NEVER });
        fixture.empty();
        fixture.hears_no_more();
    });
}

#[test]
fn a_stop_and_a_kill_take_it_along_at_once_in_each_tier() {
    in_each(|directory, tier| {
        let command = "
            trap 'until [ -e \"$WITNESS.killed\" ]; do sleep 0.01; done; exit 3' TERM
            echo main >&9; while :; do sleep 0.01; done";
        for kills in [false, true] {
            let place = directory.join(kills.to_string());
            fs::create_dir(&place).expect("created");
            let mut fixture = checked(script(&place, command), HANGS, LONG).contained(tier).fork();
            fixture.arm(TERM, Time::NEVER);
            fixture.start_until(&["main"]);
            let check = fixture.start_check(1);
            fixture.send(&if kills { ToKeeper::Kill } else { ToKeeper::Stop { kill_at: Time::NEVER } });
            fixture.check_ended(1, CheckEnd::Interrupted);
            if kills {
                fixture.exited(killed(libc::SIGKILL, true));
            } else {
                // The command has not ended yet.
                until("the end of the check", || is_gone(check));
                fixture.order_check(2);
                fixture.check_ended(2, CheckEnd::Interrupted);
                fs::write(place.join("witness.killed"), "").expect("written");
                fixture.exited(CommandEnd::Exited(3));
            }
            fixture.empty();
            fixture.hears_no_more();
        }
    });
}

#[test]
fn the_end_of_the_command_is_its_end_in_each_tier() {
    in_each(|directory, tier| {
        let mut fixture = checked(script(directory, SLEEPER), HANGS, LONG).contained(tier).fork();
        fixture.arm(TERM, Time::NEVER);
        for number in 1..4 {
            let main = fixture.start_until(&["main"]);
            let _ = fixture.start_check(number);
            signal(main, libc::SIGTERM);
            fixture.exited(killed(libc::SIGTERM, false));
            fixture.check_ended(number, CheckEnd::Interrupted);
            fixture.empty();
        }
    });
}

#[test]
fn without_the_campaigner_it_ends_before_the_release_in_each_tier() {
    in_each(|directory, tier| {
        for (number, is_beside) in [true, false].into_iter().enumerate() {
            let place = directory.join(number.to_string());
            fs::create_dir(&place).expect("created");
            // Beside a command the grandchild ignores the stop signal, and has the stop time-out.
            let setting = checked(script(&place, SLEEPER), STUBBORN, LONG).stop_timeout(ms(300));
            let mut fixture = setting.contained(tier).fork();
            fixture.claim("one");
            if is_beside {
                fixture.arm(TERM, Time::NEVER);
                fixture.start_until(&["main"]);
            }
            fixture.order_check(1);
            fixture.witness.hears(&["main", "grandchild"]);
            fixture.bereave().releases_once("one");
        }
    });
}

/// Beside a hanging check, neither a deadline nor a stop is later than without one. The runs with and without a check
/// alternate, and medians are compared, because a busy machine delays both.
#[test]
fn a_deadline_and_a_stop_are_not_later_beside_one_that_hangs() {
    const RUNS: usize = 5;
    let mut figures = [const { Vec::new() }; 4];
    for run in 0..2 * RUNS {
        let has_check = run % 2 == 0;
        let directory = tempfile::tempdir().expect("a temporary directory");
        let report = directory.path().join("figures");
        alone(|place| {
            let mut fixture = checked(script(place, SLEEPER), HANGS, LONG).fork();
            sys::schedule_first(); // the keeper is measured, not this process
            let (_, kill_by) = fixture.start_under_deadline(&["main"]);
            if has_check {
                let _ = fixture.start_check(1);
            }
            let late = fixture.witness.gone().since(kill_by);
            let interrupted = FromKeeper::CheckEnded { check: CheckNumber(1), end: CheckEnd::Interrupted };
            let mut answer = fixture.answer();
            if has_check {
                assert_eq!(std::mem::replace(&mut answer, fixture.answer()), interrupted);
            }
            assert_eq!(answer, FromKeeper::Expired { term: TERM });
            fixture.exited(killed(libc::SIGKILL, true));
            fixture.empty();

            fixture.arm(TERM + 1, Time::NEVER);
            fixture.start_program(Program::Command { term: TERM + 1 });
            fixture.witness.hears(&["main"]);
            if has_check {
                let _ = fixture.start_check(1);
            }
            let before = clock::now();
            fixture.send(&ToKeeper::Stop { kill_at: Time::NEVER });
            let mut answer = fixture.answer();
            if has_check {
                assert_eq!(std::mem::replace(&mut answer, fixture.answer()), interrupted);
            }
            assert!(matches!(answer, FromKeeper::Exited { .. }), "{answer:?}");
            fixture.empty();
            let stopped = clock::now().since(before);
            fs::write(&report, format!("{} {}", late.as_micros(), stopped.as_micros())).expect("written");
        });
        let said = fs::read_to_string(&report).expect("read");
        let numbers: Vec<u64> = said.split(' ').map(|number| number.parse().expect("a number")).collect();
        for (place, number) in numbers.into_iter().enumerate() {
            figures[2 * place + usize::from(has_check)].push(number);
        }
    }
    for figures in &mut figures {
        figures.sort_unstable();
    }
    let told = |figures: &[u64]| format!("median {} µs, at most {} µs", figures[RUNS / 2], figures[RUNS - 1]);
    for (what, at) in [("deadline", 0), ("stop", 2)] {
        println!("figures: {what} without a check: {}", told(&figures[at]));
        println!("figures: {what} beside a check that hangs: {}", told(&figures[at + 1]));
        let allowed = figures[at][RUNS - 1] + u64::try_from(KILL_ALLOWANCE.as_micros() / 2).expect("short");
        assert!(figures[at + 1][RUNS / 2] <= allowed, "{what}: {figures:?}");
    }
    // K1: the deadline itself, without and with a check.
    let allowance = u64::try_from(KILL_ALLOWANCE.as_micros()).expect("short");
    assert!(figures[..2].iter().all(|late| late[RUNS / 2] <= allowance), "{figures:?}");
}

#[test]
fn the_keeper_sleeps_while_a_check_runs() {
    alone(|directory| {
        let mut fixture = checked(script(directory, SLEEPER), HANGS, LONG).fork();
        let _ = fixture.start_check(1);
        fixture.hears_no_more();
        until("it sleeps", || status_of(fixture.keeper.pid(), "State").starts_with('S'));
        let switches = || status_of(fixture.keeper.pid(), "voluntary_ctxt_switches");
        let before = switches();
        let go_on_at = clock::now() + ms(300);
        until("a while", || clock::now() >= go_on_at);
        assert_eq!(switches(), before, "it woke for nothing");
    });
}
