//! K2: the campaigner's end, at every point between arming and an empty tree. Each time the tree is dead within the
//! remaining deadline, the claim is released once and only after that, and the keeper exits normally.

use std::os::fd::AsRawFd;

use nix::sys::socket::{MsgFlags, recv};

use super::harness::*;
use super::storm::{dies_in_time, time_after};
use crate::clock;
use crate::sys::{self, Forked};
use crate::{Containment, ToKeeper};
use elect_core::{CommandEnd, Time};

const STOP_TIMEOUT: std::time::Duration = ms(300);

fn claimed(setting: Setting) -> KeeperFixture {
    let fixture = setting.fork();
    fixture.claim("one");
    fixture
}

/// Waits for a message in the socket without reading it.
fn await_an_answer(fixture: &KeeperFixture) {
    until("an answer in the socket", || {
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        recv(fixture.keeper.as_raw_fd(), &mut [0; 64], flags).is_ok_and(|length| length > 0)
    });
}

#[test]
fn before_anything_was_claimed_there_is_nothing_to_release() {
    alone(|directory| {
        let fixture = script(directory, STUBBORN).fork();
        assert_eq!(fixture.bereave().releases(), []);
    });
}

#[test]
fn with_a_claim_and_no_deadline_it_is_released() {
    alone(|directory| claimed(script(directory, STUBBORN)).bereave().releases_once("one"));
}

#[test]
fn between_arming_and_starting() {
    alone(|directory| {
        let fixture = claimed(script(directory, STUBBORN));
        fixture.arm(TERM, Time::NEVER);
        fixture.bereave().releases_once("one");
    });
}

#[test]
fn the_last_claim_is_the_one_that_is_released() {
    alone(|directory| {
        let fixture = claimed(script(directory, STUBBORN));
        fixture.claim("two");
        fixture.bereave().releases_once("two");
    });
}

#[test]
fn before_the_keeper_has_read_any_of_it() {
    alone(|directory| {
        let mut fixture = script(directory, STUBBORN).stop_timeout(STOP_TIMEOUT).fork();
        fixture.hears_no_more();
        signal(fixture.keeper.pid(), libc::SIGSTOP);
        fixture.claim("one");
        fixture.send(&ToKeeper::Arm { term: TERM, kill_by: Time::NEVER });
        fixture.order_start(TERM, &[]);
        let orphan = fixture.bereave();
        signal(orphan.pid, libc::SIGCONT);
        orphan.releases_once("one");
    });
}

#[test]
fn right_after_the_order_to_start() {
    alone(|directory| {
        for round in 0..20 {
            let directory = directory.join(round.to_string());
            std::fs::create_dir(&directory).expect("created");
            let mut fixture = claimed(script(&directory, STUBBORN).stop_timeout(STOP_TIMEOUT));
            fixture.arm(TERM, Time::NEVER);
            fixture.order_start(TERM, &[]);
            fixture.bereave().releases_once("one");
        }
    });
}

#[test]
fn while_a_command_runs_that_stops_when_asked() {
    alone(|directory| {
        let mut fixture = claimed(script(
            directory,
            "trap 'echo asked >&9; exit 0' TERM; echo main >&9; while :; do sleep 0.01; done",
        ));
        fixture.arm(TERM, Time::NEVER);
        fixture.start_until(&["main"]);
        let mut orphan = fixture.bereave();
        orphan.witness.hears(&["asked"]);
        orphan.releases_once("one");
    });
}

#[test]
fn while_a_stubborn_command_runs_it_has_the_stop_timeout() {
    alone(|directory| {
        let mut fixture = claimed(script(directory, STUBBORN).stop_timeout(STOP_TIMEOUT));
        fixture.arm(TERM, Time::NEVER);
        fixture.start_until(&["main", "grandchild"]);
        let before = clock::now();
        let orphan = fixture.bereave();
        let after = clock::now();
        let died = orphan.witness.gone();
        assert!(died >= before + STOP_TIMEOUT, "it was not given its time");
        note(&format!("dead {:?} after the stop time-out", died.since(after + STOP_TIMEOUT)));
        orphan.releases_once("one");
    });
}

#[test]
fn while_a_stubborn_command_runs_it_has_no_longer_than_its_deadline() {
    dies_in_time(Containment::Tree, |directory, _| {
        let mut fixture = claimed(script(directory, STUBBORN));
        let (_, kill_by) = fixture.start_under_deadline(&["main", "grandchild"]);
        let orphan = fixture.bereave();
        let late = time_after(kill_by, orphan.witness.gone());
        orphan.releases_once("one");
        late
    });
}

#[test]
fn after_a_stop_the_sooner_of_the_two_ends_counts() {
    alone(|directory| {
        let mut fixture = claimed(script(directory, STUBBORN).stop_timeout(STOP_TIMEOUT));
        fixture.arm(TERM, Time::NEVER);
        fixture.start_until(&["main", "grandchild"]);
        fixture.send(&ToKeeper::Stop { kill_at: Time::NEVER });
        fixture.hears_no_more();
        fixture.bereave().releases_once("one");
    });
}

#[test]
fn after_the_end_of_the_main_process_its_rest_is_waited_for() {
    alone(|directory| {
        let mut fixture = claimed(script(directory, LEAVES_ONE_BEHIND).stop_timeout(SOON));
        fixture.arm(TERM, Time::NEVER);
        let before = clock::now();
        fixture.start_until(&["grandchild"]);
        fixture.exited(CommandEnd::Exited(7));
        let orphan = fixture.bereave();
        assert!(orphan.witness.gone() >= before + SOON, "the rest has its stop time-out");
        orphan.releases_once("one");
    });
}

#[test]
fn while_it_is_being_killed() {
    alone(|directory| {
        let mut fixture = claimed(script(directory, STUBBORN));
        fixture.arm(TERM, Time::NEVER);
        fixture.start_until(&["main", "grandchild"]);
        fixture.send(&ToKeeper::Kill);
        fixture.bereave().releases_once("one");
    });
}

#[test]
fn after_the_tree_has_ended() {
    alone(|directory| {
        let mut fixture = claimed(script(directory, "exit 0"));
        fixture.arm(TERM, Time::NEVER);
        fixture.start();
        fixture.exited(CommandEnd::Exited(0));
        fixture.empty();
        fixture.bereave().releases_once("one");
    });
}

#[test]
fn what_the_campaigner_said_last_counts_although_it_left_answers_unread() {
    alone(|directory| {
        for dismissed in [false, true] {
            let directory = directory.join(dismissed.to_string());
            std::fs::create_dir(&directory).expect("created");
            let fixture = claimed(script(&directory, STUBBORN));
            // An unread answer: the socket then reports "connection reset" before it delivers messages.
            fixture.send(&ToKeeper::Ping);
            await_an_answer(&fixture);
            signal(fixture.keeper.pid(), libc::SIGSTOP);
            fixture.claim("two");
            if dismissed {
                fixture.send(&ToKeeper::Dismiss);
            }
            let orphan = fixture.bereave();
            signal(orphan.pid, libc::SIGCONT);
            if dismissed {
                assert_eq!(orphan.releases(), []);
            } else {
                orphan.releases_once("two");
            }
        }
    });
}

#[test]
fn a_campaigner_that_dismisses_its_keeper_leaves_nothing_to_release() {
    alone(|directory| {
        let mut fixture = claimed(script(directory, STUBBORN).stop_timeout(STOP_TIMEOUT));
        fixture.arm(TERM, Time::NEVER);
        fixture.start_until(&["main", "grandchild"]);
        fixture.send(&ToKeeper::Dismiss);
        fixture.exited(killed(libc::SIGKILL, true));
        fixture.empty();
        assert_eq!(fixture.bereave().releases(), []);
    });
}

#[test]
fn a_campaigner_killed_in_earnest_is_seen_as_such() {
    alone(|directory| {
        // The keeper's parent dies here, so this process inherits the keeper.
        nix::sys::prctl::set_child_subreaper(true).expect("a subreaper");
        let witness = Witness::new(directory);
        // SAFETY: this process has one thread.
        match unsafe { sys::fork() }.expect("forked") {
            Forked::Child => {
                let mut fixture = script(directory, STUBBORN).stop_timeout(STOP_TIMEOUT).fork_watched_by(witness);
                fixture.claim("one");
                fixture.arm(TERM, Time::NEVER);
                std::fs::write(directory.join("keeper"), fixture.keeper.pid().to_string()).expect("written");
                fixture.start();
                loop {
                    std::thread::park();
                }
            }
            Forked::Parent(campaigner) => {
                let mut orphan = Orphan { pid: 0, witness, directory: directory.to_owned() };
                orphan.witness.hears(&["main", "grandchild"]);
                let keeper = std::fs::read_to_string(directory.join("keeper")).expect("read");
                orphan.pid = keeper.parse().expect("a number");
                signal(campaigner, libc::SIGKILL);
                assert_eq!(exit_of(campaigner, SOON * 10), Some(Err(libc::SIGKILL)));
                orphan.releases_once("one");
            }
        }
    });
}
