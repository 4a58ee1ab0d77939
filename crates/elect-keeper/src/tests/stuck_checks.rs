//! Health checks, and what they have left, that SIGKILL does not end (H5): held by a tracer, or in a frozen cgroup.

use std::fs;
use std::path::{Path, PathBuf};

use super::harness::*;
use super::health_checks::{EXITED, HANGS, LONG, checked, in_each, is_gone};
use super::stopping::has_answer;
use crate::ToKeeper;
use crate::clock;
use crate::sys::{self, Reaped};
use elect_core::{CheckEnd, CheckNumber, FromKeeper, KILL_ALLOWANCE, Time};

/// Makes this process the only one that learns of the end of another: its parent cannot reap it, as if it could not be
/// killed.
fn hold(pid: i32) {
    assert!(holds(pid), "{}", std::io::Error::last_os_error());
}

/// The same, unless it has ended.
fn holds(pid: i32) -> bool {
    // SAFETY: a system call that takes integers.
    unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, 0, 0) == 0 }
}

/// Starts checks until one is held before its time-out has ended it. On a busy machine the time-out of some comes before
/// their first word. Returns its number and its process id.
fn start_held(fixture: &mut KeeperFixture, numbers: std::ops::Range<u64>) -> (u64, i32) {
    let others = fixture.children();
    for number in numbers {
        fixture.order_check(number);
        let mut held = None;
        until("its first word, or its end", || {
            let has_ended = has_answer(fixture);
            let check = fixture.witness.line_at_hand().map(|line| line.parse().expect("a number"));
            held = check.filter(|&check| holds(check));
            has_ended || held.is_some()
        });
        fixture.check_ended(number, CheckEnd::TimedOut);
        if let Some(check) = held {
            return (number, check);
        }
        until("its reaping", || fixture.children() == others);
    }
    panic!("none can be held");
}

/// Lets the parent of a process that was held and has ended reap it.
fn release(pid: i32) {
    until("the end of a process that was held", || matches!(sys::reap(pid), Reaped::Child { .. }));
}

/// A process of the check that is left when nothing else is: no stop is confirmed before it has ended.
#[test]
fn what_it_leaves_and_cannot_be_killed_is_not_called_empty() {
    alone(|directory| {
        let text = "
            (setsid sh -c 'echo $$ >&9; touch \"$WITNESS.up\"; sleep 100; :' &)
            until [ -e \"$WITNESS.up\" ]; do sleep 0.01; done
            until [ -e \"$WITNESS.go\" ]; do sleep 0.01; done";
        let mut fixture = checked(script(directory, SLEEPER), text, LONG).fork();
        let left = fixture.start_check(1);
        hold(left);
        fixture.go();
        fixture.check_ended(1, EXITED);
        fixture.send(&ToKeeper::Stop { kill_at: Time::NEVER });
        until("its end", || is_gone(left));
        fixture.hears_no_more();
        fixture.order_check(2);
        fixture.check_ended(2, CheckEnd::Interrupted);
        release(left);
        fixture.empty();
        fs::remove_file(directory.join("witness.up")).expect("it ran");
        fixture.order_check(3);
        assert!(fixture.number() != left, "the next one starts");
    });
}

/// H5: D state, in which SIGKILL is not obeyed.
#[test]
fn one_that_cannot_be_killed_keeps_nothing_waiting_and_no_other_starts_in_each_tier() {
    in_each(|directory, tier| {
        let mut fixture = checked(script(directory, SLEEPER), HANGS, ms(300)).contained(tier).fork();
        fixture.claim("one");
        fixture.arm(TERM, Time::NEVER);
        fixture.start_until(&["main"]);
        let (number, check) = start_held(&mut fixture, 1..100);
        fixture.order_check(number + 1);
        fixture.check_ended(number + 1, CheckEnd::Failed(libc::EBUSY));
        for _ in 0..2 {
            fixture.send(&ToKeeper::Stop { kill_at: Time::NEVER });
            fixture.exited(killed(libc::SIGTERM, false));
            fixture.empty();
            fixture.send(&ToKeeper::Stop { kill_at: Time::NEVER });
            fixture.empty();
            fixture.start_until(&["main"]);
            fixture.order_check(number + 2);
            fixture.check_ended(number + 2, CheckEnd::Failed(libc::EBUSY));
        }
        release(check);
        until("its reaping", || !Path::new(&format!("/proc/{check}")).exists());
        let (_, next) = start_held(&mut fixture, number + 3..200);
        until("its end", || is_gone(next));
        fixture.bereave().releases_once("one");
    });
}

#[test]
fn what_a_check_that_cannot_be_killed_leaves_behind_is_waited_for() {
    alone(|directory| {
        let text = "
            (setsid sh -c 'echo $$ >&9; sleep 100; :' &)
            until [ -e \"$WITNESS.go\" ]; do sleep 0.01; done
            echo $$ >&9; sleep 100; :";
        let mut fixture = checked(script(directory, SLEEPER), text, LONG).fork();
        let left = fixture.start_check(1);
        fixture.go();
        let check = fixture.number();
        hold(left);
        hold(check);
        fixture.send(&ToKeeper::Stop { kill_at: Time::NEVER });
        fixture.check_ended(1, CheckEnd::Interrupted);
        until("the end of what it has left", || is_gone(left));
        let go_on_at = clock::now() + 2 * KILL_ALLOWANCE;
        until("a while", || clock::now() >= go_on_at);
        fixture.hears_no_more();
        release(left);
        fixture.empty();
        release(check);
    });
}

/// A cgroup of the first version whose processes are frozen: they do not obey SIGKILL before they are thawed.
struct Freezer(PathBuf);

impl Freezer {
    fn new() -> Option<Freezer> {
        let path = Path::new("/sys/fs/cgroup/freezer").join(format!("elect-test-{}", std::process::id()));
        fs::create_dir(&path).ok().map(|()| Freezer(path))
    }

    fn freeze(&self, pid: i32) {
        fs::write(self.0.join("cgroup.procs"), pid.to_string()).expect("moved");
        fs::write(self.0.join("freezer.state"), "FROZEN").expect("frozen");
        until("it is frozen", || status_of(pid, "State").starts_with('D'));
    }

    fn thaw(&self) {
        fs::write(self.0.join("freezer.state"), "THAWED").expect("thawed");
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        self.thaw();
        until("it is empty", || fs::remove_dir(&self.0).is_ok());
    }
}

/// The descendants of a check in D state that can be killed are dead, and their parent does not reap them.
#[test]
fn a_frozen_check_is_left_out_of_empty_and_its_frozen_child_is_not() {
    in_each(|directory, tier| {
        let Some(freezer) = Freezer::new() else { return note("figures: no freezer is to be had") };
        let text = "echo $$ >&9; sleep 100 & echo $! >&9; wait";
        let mut fixture = checked(script(directory, SLEEPER), text, LONG).contained(tier).fork();
        for freezes_child in [false, true] {
            fixture.arm(TERM, Time::NEVER);
            fixture.start_until(&["main"]);
            let check = fixture.start_check(1);
            let child = fixture.number();
            freezer.freeze(if freezes_child { child } else { check });
            let before = clock::now();
            fixture.send(&ToKeeper::Stop { kill_at: Time::NEVER });
            let answers = [fixture.answer(), fixture.answer()];
            let interrupted = FromKeeper::CheckEnded { check: CheckNumber(1), end: CheckEnd::Interrupted };
            assert!(answers.contains(&interrupted), "{answers:?}");
            if freezes_child {
                until("the end of its parent", || is_gone(check));
                fixture.hears_no_more();
                let go_on_at = before + 2 * KILL_ALLOWANCE;
                until("a while", || clock::now() >= go_on_at);
                fixture.hears_no_more();
                freezer.thaw();
                fixture.empty();
            } else {
                fixture.hears(FromKeeper::Empty { run: 1 });
                note(&format!("figures: empty beside a check in D state after {:?}", clock::now().since(before)));
                assert!(status_of(check, "State").starts_with('D'), "{}", status_of(check, "State"));
                assert!(is_gone(child), "it can be killed");
                freezer.thaw();
                until("its reaping", || !Path::new(&format!("/proc/{check}")).exists());
            }
        }
    });
}
