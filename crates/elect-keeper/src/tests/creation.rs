//! Commands that are created in their cgroup, and those that move into it (K6).

use std::fs;
use std::os::fd::AsFd;

use super::containment::{cgroup_of, leaf};
use super::harness::*;
use crate::cgroup::{CommandCgroup, Entrance, await_kill};
use crate::clock;
use crate::spawn::{ExecStatus, spawn};
use crate::sys::{self, Forked, Inherited};
use crate::{Containment, ToKeeper};
use elect_core::{BackgroundHook, FromKeeper, NotStarted, Program, Time};

/// Whether this kernel, and a filter for system calls, let a process be created in another cgroup and run there.
fn can_create_inside() -> bool {
    let leaf = CommandCgroup::make(Entrance::Move).expect("a leaf");
    let sibling = leaf.path().with_file_name(format!("elect-{}-sibling", std::process::id()));
    leaf.remove();
    fs::create_dir(&sibling).expect("created");
    let directory = fs::File::open(&sibling).expect("opened");
    // SAFETY: the child ends at once.
    let status = match unsafe { sys::fork_into(directory.as_fd()) } {
        Ok(Forked::Child) => sys::exit_now(7),
        Ok(Forked::Parent(child)) => sys::await_child(child).ok(),
        Err(_) => None,
    };
    until("the cgroup is empty", || fs::remove_dir(&sibling).is_ok());
    status.is_some_and(|status| sys::decode(status) == Ok(7))
}

/// The parent of the child may be delayed for any time before it kills it, and may die.
#[test]
fn the_child_that_proves_a_kill_waits_for_it_and_ends_with_its_parent() {
    alone(|_| {
        nix::sys::prctl::set_child_subreaper(true).expect("a subreaper");
        let (report, reporter) = nix::unistd::pipe().expect("a pipe");
        // SAFETY: this process has one thread.
        let parent = match unsafe { sys::fork() }.expect("forked") {
            Forked::Parent(parent) => parent,
            Forked::Child => {
                let (childs, parents) = nix::unistd::pipe().expect("a pipe");
                // SAFETY: this process has one thread.
                match unsafe { sys::fork() }.expect("forked") {
                    Forked::Child => await_kill(parents, &childs),
                    Forked::Parent(child) => {
                        nix::unistd::write(&reporter, &child.to_ne_bytes()).expect("written");
                        loop {
                            std::thread::park();
                        }
                    }
                }
            }
        };
        let mut child = [0; 4];
        assert_eq!(nix::unistd::read(&report, &mut child), Ok(child.len()));
        let child = i32::from_ne_bytes(child);
        until("it waits", || status_of(child, "State").starts_with('S'));
        let go_on_at = clock::now() + SOON;
        until("a long delay", || clock::now() >= go_on_at);
        assert!(status_of(child, "State").starts_with('S'), "it has ended by itself");
        signal(parent, libc::SIGKILL);
        sys::await_child(parent).expect("reaped");
        assert_eq!(exit_of(child, SOON * 10), Some(Ok(0)));
    });
}

#[test]
fn a_command_is_created_in_its_leaf_where_that_is_possible_and_not_after_a_kill() {
    within(Containment::Cgroup, |_| {
        let (tier, _) = Containment::Cgroup.establish(true).expect("leaves");
        assert_eq!(tier.place(true).is_waited_for(), can_create_inside());
        assert!(!tier.place(false).is_waited_for() && !tier.check_place().is_waited_for());
        tier.note_death_by(libc::SIGTERM);
        assert_eq!(tier.place(true).is_waited_for(), can_create_inside());
        tier.note_death_by(libc::SIGKILL);
        assert!(!tier.place(true).is_waited_for());
        tier.remove();
    });
}

/// Some kernels, Linux 6.18 among them, kill at birth what is created in a leaf that was killed.
#[test]
fn a_command_starts_again_after_its_leaf_was_killed() {
    within(Containment::Cgroup, |directory| {
        let mut fixture = script(directory, SLEEPER).contained(Containment::Cgroup).fork();
        fixture.arm(TERM, Time::NEVER);
        for _ in 0..2 {
            let main = fixture.start_until(&["main"]);
            let leaf = leaf(&fixture);
            assert!(cgroup_of(main).ends_with(&*leaf.file_name().expect("a name").to_string_lossy()));
            fs::write(leaf.join("cgroup.kill"), "1").expect("killed");
            fixture.exited(killed(libc::SIGKILL, false));
            fixture.empty();
        }
    });
}

#[test]
fn a_command_that_is_created_in_its_leaf_executes_when_the_gate_is_opened() {
    within(Containment::Cgroup, |directory| {
        let (tier, _) = Containment::Cgroup.establish(false).expect("a leaf");
        if !tier.place(true).is_waited_for() {
            note("a command cannot be created in its leaf here: there is no gate");
            return tier.remove();
        }
        for is_opened in [true, false] {
            let program = Program::Command { term: TERM };
            let executable = script(directory, "exec sleep 100").program.executable(program).expect("a command");
            let inherited = Inherited::take();
            let spawned = spawn(tier.place(true), &executable, &[], inherited, None, Time::NEVER, None);
            let mut spawned = spawned.expect("forked");
            until("it waits", || status_of(spawned.pid, "State").starts_with('S'));
            assert_eq!(spawned.exec_status(), ExecStatus::Pending);
            if is_opened {
                spawned.open_gate();
                until("it runs", || spawned.exec_status() == ExecStatus::Succeeded);
                signal(spawned.pid, libc::SIGTERM);
            } else {
                spawned.gate = None;
                let given_up = ExecStatus::Failed(NotStarted::Failed(libc::ECANCELED));
                until("it gives up", || spawned.exec_status() == given_up);
            }
            sys::await_child(spawned.pid).expect("ended");
        }
        tier.remove();
    });
}

/// The keeper waits for the kernel while it creates a process in a leaf, and an order to kill may come meanwhile.
#[test]
fn orders_that_have_come_when_a_command_is_created_are_obeyed_before_it_executes() {
    within(Containment::Cgroup, |directory| {
        for term in 1..=8 {
            let place = directory.join(term.to_string());
            fs::create_dir(&place).expect("created");
            let setting = script(&place, SLEEPER).contained(Containment::Cgroup);
            let mut fixture = setting.scripts(|scripts| scripts.on_change = Some("true".into())).fork();
            let keeper = fixture.keeper.pid();
            signal(keeper, libc::SIGSTOP);
            until("the keeper is stopped", || status_of(keeper, "State").starts_with('T'));
            fixture.send(&ToKeeper::Arm { term, kill_by: Time::NEVER });
            let run = fixture.order_start(term, &[]);
            // The fork of the hook is long enough for an exec that waits for nothing.
            fixture.order_background_hook(BackgroundHook::OnChange);
            fixture.send(&ToKeeper::Kill);
            signal(keeper, libc::SIGCONT);
            let mut answers = std::iter::repeat_with(|| fixture.answer());
            let is_of_start = |answer: &FromKeeper| {
                matches!(answer, FromKeeper::Started { .. } | FromKeeper::NotStarted { .. } | FromKeeper::Exited { .. })
            };
            let answer = answers.find(is_of_start);
            let never_ran = FromKeeper::NotStarted { run, why: NotStarted::Failed(libc::ECANCELED) };
            assert_eq!(answer, Some(never_ran));
        }
    });
}
