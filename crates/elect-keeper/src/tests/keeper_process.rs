//! The keeper as a process (K3).

use super::harness::*;
use crate::{ToKeeper, sys};
use elect_core::Time;

#[test]
fn it_is_named_keeper_and_leads_a_group_of_its_own() {
    alone(|directory| {
        let fixture = script(directory, SLEEPER).fork();
        fixture.hears_no_more();
        let pid = fixture.keeper.pid();
        assert_eq!(status_of(pid, "Name"), "keeper");
        assert_eq!(status_of(pid, "Threads"), "1");
        let group = nix::unistd::getpgid(Some(nix::unistd::Pid::from_raw(pid))).expect("a group");
        assert_eq!(group.as_raw(), pid);
    });
}

#[test]
fn it_goes_first_where_we_may_let_it() {
    alone(|directory| {
        let fixture = script(directory, SLEEPER).fork();
        fixture.hears_no_more();
        sys::schedule_first();
        let own = std::process::id().cast_signed();
        assert_eq!(goes_first(fixture.keeper.pid()), goes_first(own));
    });
}

#[test]
fn it_goes_first_again_for_the_next_run() {
    alone(|directory| {
        let mut fixture = script(directory, SLEEPER).fork();
        fixture.arm(TERM, Time::NEVER);
        fixture.start_until(&["main"]);
        let first = goes_first(fixture.keeper.pid());
        fixture.send(&ToKeeper::Kill);
        fixture.exited(killed(libc::SIGKILL, true));
        fixture.empty();
        let main = fixture.start_until(&["main"]);
        assert_eq!(goes_first(fixture.keeper.pid()), first);
        assert!(!goes_first(main), "the right is the keeper's");
    });
}

#[test]
fn it_blocks_every_signal_that_can_be_blocked() {
    alone(|directory| {
        let fixture = script(directory, SLEEPER).fork();
        let blocked = u64::from_str_radix(&status_of(fixture.keeper.pid(), "SigBlk"), 16).expect("a number");
        let kill_and_stop = 1 << (libc::SIGKILL - 1) | 1 << (libc::SIGSTOP - 1);
        assert_eq!(blocked | kill_and_stop, u64::MAX);
    });
}

#[test]
fn no_signal_changes_anything() {
    alone(|directory| {
        let mut fixture = script(directory, SLEEPER).fork();
        // Holds from the fork on: the keeper may not have run an instruction yet.
        for number in (1..=64).filter(|number| ![libc::SIGKILL, libc::SIGSTOP].contains(number)) {
            signal(fixture.keeper.pid(), number);
        }
        fixture.arm(TERM, Time::NEVER);
        fixture.start_until(&["main"]);
        for number in (1..=64).filter(|number| ![libc::SIGKILL, libc::SIGSTOP].contains(number)) {
            signal(fixture.keeper.pid(), number);
            fixture.hears_no_more();
        }
        assert!(!fixture.witness.is_gone());
        fixture.send(&ToKeeper::Kill);
        fixture.exited(killed(libc::SIGKILL, true));
        fixture.empty();
    });
}

#[test]
fn our_own_signals_are_not_blocked_by_having_a_keeper() {
    alone(|directory| {
        let own = std::process::id().cast_signed();
        let before = status_of(own, "SigBlk");
        let _scene = script(directory, SLEEPER).fork();
        assert_eq!(status_of(own, "SigBlk"), before);
    });
}

#[test]
fn it_sleeps_while_there_is_nothing_to_do() {
    alone(|directory| {
        let mut fixture = script(directory, LEAVES_ONE_BEHIND).fork();
        fixture.arm(TERM, Time::NEVER);
        fixture.start_until(&["grandchild"]);
        fixture.exited(elect_core::CommandEnd::Exited(7));
        // The state with the most events to wait for: the main process has ended, its descendants have the stop signal,
        // the campaigner is present.
        fixture.hears_no_more();
        let switches = |pid| -> u64 { status_of(pid, "voluntary_ctxt_switches").parse().expect("a number") };
        let involuntary = |pid| -> u64 { status_of(pid, "nonvoluntary_ctxt_switches").parse().expect("a number") };
        let pid = fixture.keeper.pid();
        until("it sleeps", || status_of(pid, "State").starts_with('S'));
        let before = (switches(pid), involuntary(pid));
        let go_on_at = crate::clock::now() + ms(300);
        until("a while", || crate::clock::now() >= go_on_at);
        assert_eq!((switches(pid), involuntary(pid)), before, "it woke for nothing");
    });
}

#[test]
fn it_sleeps_without_a_campaigner_too() {
    alone(|directory| {
        let text = "
            (setsid sh -c 'echo grandchild >&9; sleep 100; :' &)
            trap 'echo asked >&9' TERM
            echo main >&9
            while :; do sleep 0.01; done";
        let mut fixture = script(directory, text).fork();
        fixture.arm(TERM, Time::NEVER);
        let main = fixture.start_until(&["main", "grandchild"]);
        let mut orphan = fixture.bereave();
        // The keeper slept before its campaigner's end too.
        orphan.witness.hears(&["asked"]);
        until("it sleeps", || status_of(orphan.pid, "State").starts_with('S'));
        let switches = || status_of(orphan.pid, "voluntary_ctxt_switches");
        let before = switches();
        let go_on_at = crate::clock::now() + ms(300);
        until("a while", || crate::clock::now() >= go_on_at);
        assert_eq!(switches(), before, "it woke for nothing");
        signal(main, libc::SIGKILL);
        orphan.releases();
    });
}
