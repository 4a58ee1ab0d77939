//! The keeper's death: the main process dies with it (K8), and the campaigner sweeps up what it left (K4).

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::harness::*;
use crate::preexisting_children::PreexistingChild;
use crate::tree::Scanner;
use crate::{Received, ToKeeper, sys};
use elect_core::{FromKeeper, NotStarted, Time};

#[test]
fn the_main_process_dies_with_the_keeper() {
    alone(|directory| {
        let mut fixture = script(directory, SLEEPER).fork();
        fixture.arm(TERM, Time::NEVER);
        fixture.start_until(&["main"]);
        fixture.keeper.kill();
        // No sweep runs here.
        fixture.witness.gone();
    });
}

#[test]
fn what_a_dead_keeper_leaves_is_swept_up_and_a_stranger_is_not() {
    alone(|directory| {
        let mut stranger = Command::new("sleep").arg("100").stdin(Stdio::null()).spawn().expect("started");
        let mut fixture = script(directory, STUBBORN).fork();
        fixture.arm(TERM, Time::NEVER);
        fixture.start_until(&["main", "grandchild"]);
        fixture.keeper.refresh_preexisting_children();
        fixture.keeper.kill();
        until("its end", || fixture.keeper.reap());
        assert!(!fixture.witness.is_gone(), "the grandchild is ours now");
        until("an empty tree", || fixture.keeper.sweep());
        assert!(fixture.witness.is_gone(), "swept, and somebody lives");
        assert!(stranger.try_wait().expect("a child of ours").is_none(), "it was not part of the tree");
        // The process id of a dead keeper must not be killed.
        fixture.keeper.kill();
        fixture.keeper.kill_tree();
        stranger.kill().expect("killed");
        stranger.wait().expect("reaped");
    });
}

#[test]
fn a_tree_that_cannot_be_listed_is_not_called_empty() {
    alone(|directory| {
        let mut fixture = script(directory, STUBBORN).fork();
        fixture.arm(TERM, Time::NEVER);
        fixture.start_until(&["main", "grandchild"]);
        fixture.keeper.kill();
        until("its end", || fixture.keeper.reap());
        let (soft, hard) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).expect("a limit");
        let limit = |most| nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, most, hard);
        limit(0).expect("no more files");
        // A scanner without descriptors opened at the start.
        let scanner = std::mem::replace(&mut fixture.keeper.scanner, Scanner::new(&[]));
        let swept = fixture.keeper.sweep();
        limit(soft).expect("as before");
        assert!(!swept && !fixture.witness.is_gone(), "said to be empty, and somebody lives");
        fixture.keeper.scanner = scanner;
        until("an empty tree", || fixture.keeper.sweep());
        assert!(fixture.witness.is_gone());
    });
}

/// The descriptors that a process needs to call `poll`: the kernel counts the polled ones.
const FEW: i32 = 8;

/// Uses up the first descriptors, here and in the keeper that is forked later.
pub fn use_up_descriptors() {
    use std::os::fd::IntoRawFd;
    while std::fs::File::open("/dev/null").expect("opened").into_raw_fd() < FEW {}
}

/// Prevents that process from opening further descriptors.
pub fn without_descriptors(pid: i32) {
    limit_descriptors(pid, FEW.unsigned_abs().into());
}

fn limit_descriptors(pid: i32, most: u64) {
    let few = libc::rlimit { rlim_cur: most, rlim_max: 1024 };
    // SAFETY: the limit is read, and no place for the old one is given.
    let set = unsafe { libc::prlimit(pid, libc::RLIMIT_NOFILE, &raw const few, std::ptr::null_mut()) };
    assert_eq!(set, 0, "a limit of our own or of a child");
}

/// Three generations, each in its own session.
const DYNASTY: &str = "
    trap '' TERM
    (setsid sh -c '(setsid sh -c \"echo third >&9; sleep 100; :\" &) ; echo second >&9; sleep 100; :' &)
    echo main >&9
    sleep 100; :";

#[test]
fn without_a_descriptor_to_be_had_the_keeper_kills_its_tree_all_the_same() {
    alone(|directory| {
        use_up_descriptors();
        let mut fixture = script(directory, DYNASTY).fork();
        fixture.arm(TERM, Time::NEVER);
        fixture.start_until(&["main", "second", "third"]);
        without_descriptors(fixture.keeper.pid());
        fixture.send(&ToKeeper::Kill);
        fixture.exited(killed(libc::SIGKILL, true));
        fixture.empty();
    });
}

#[test]
fn without_a_descriptor_to_be_had_what_remains_of_a_tree_gets_the_stop_signal() {
    alone(|directory| {
        use_up_descriptors();
        let mut fixture = script(
            directory,
            "(setsid sh -c 'trap \"echo asked >&9; exit\" TERM; echo second >&9; while :; do sleep 0.01; done' &)
             echo main >&9; sleep 100; :",
        )
        .fork();
        fixture.arm(TERM, Time::NEVER);
        let main = fixture.start_until(&["main", "second"]);
        without_descriptors(fixture.keeper.pid());
        signal(main, libc::SIGKILL);
        fixture.exited(killed(libc::SIGKILL, false));
        fixture.witness.hears(&["asked"]);
        fixture.send(&ToKeeper::Kill);
        fixture.empty();
    });
}

#[test]
fn without_a_descriptor_to_be_had_a_dead_keepers_tree_is_swept_all_the_same() {
    alone(|directory| {
        use_up_descriptors();
        let mut fixture = script(directory, DYNASTY).fork();
        fixture.arm(TERM, Time::NEVER);
        fixture.start_until(&["main", "second", "third"]);
        without_descriptors(sys_own());
        fixture.keeper.kill();
        until("its end", || fixture.keeper.reap());
        until("an empty tree", || fixture.keeper.sweep());
        assert!(fixture.witness.is_gone(), "swept, and somebody lives");
    });
}

#[test]
fn without_a_descriptor_to_be_had_the_campaigner_kills_below_a_stopped_keeper_all_the_same() {
    alone(|directory| {
        use_up_descriptors();
        let mut fixture = script(directory, DYNASTY).fork();
        fixture.arm(TERM, Time::NEVER);
        fixture.start_until(&["main", "second", "third"]);
        signal(fixture.keeper.pid(), libc::SIGSTOP);
        without_descriptors(sys_own());
        until("the end of the tree", || {
            fixture.keeper.kill_tree();
            fixture.witness.is_gone()
        });
    });
}

fn sys_own() -> i32 {
    std::process::id().cast_signed()
}

#[test]
fn a_list_of_strangers_that_was_read_after_the_keepers_death_is_not_taken() {
    alone(|directory| {
        let mut stranger = Command::new("sleep").arg("100").stdin(Stdio::null()).spawn().expect("started");
        let mut fixture = script(directory, STUBBORN).fork();
        fixture.arm(TERM, Time::NEVER);
        fixture.start_until(&["main", "grandchild"]);
        fixture.keeper.kill();
        until("it is dead, and nobody has reaped it", || !sys::is_living_child(fixture.keeper.pid()));
        fixture.keeper.refresh_preexisting_children();
        until("its end", || fixture.keeper.reap());
        fixture.keeper.refresh_preexisting_children();
        until("an empty tree", || fixture.keeper.sweep());
        assert!(fixture.witness.is_gone(), "swept, and somebody lives");
        assert!(stranger.try_wait().expect("a child of ours").is_none(), "it was not part of the tree");
        stranger.kill().expect("killed");
        stranger.wait().expect("reaped");
    });
}

#[test]
fn a_number_that_was_a_strangers_once_spares_nobody() {
    alone(|directory| {
        let mut fixture = script(directory, STUBBORN).fork();
        fixture.arm(TERM, Time::NEVER);
        fixture.start_until(&["main", "grandchild"]);
        fixture.keeper.kill();
        until("its end", || fixture.keeper.reap());
        // Simulates that each process of the tree reuses the process id of a preexisting child.
        let tree = Scanner::new(&[]).descendants(std::process::id().cast_signed(), &[]).to_vec();
        assert!(!tree.is_empty(), "the grandchild is ours now");
        fixture.keeper.preexisting_children = tree.into_iter().map(|pid| PreexistingChild { pid, start: 1 }).collect();
        until("an empty tree", || fixture.keeper.sweep());
        assert!(fixture.witness.is_gone(), "swept, and somebody lives");
    });
}

/// Sweeps more processes than fit into one batch.
#[test]
fn a_thousand_are_swept_in_batches() {
    alone(|directory| {
        let many = "i=0; while [ $i -lt 1000 ]; do sleep 1000 & i=$((i+1)); done; echo main >&9; wait";
        let mut fixture = script(directory, many).fork();
        fixture.arm(TERM, Time::NEVER);
        fixture.start_until(&["main"]);
        fixture.keeper.kill();
        until("its end", || fixture.keeper.reap());
        assert!(!fixture.keeper.sweep(), "not all in one batch");
        assert!(fixture.keeper.is_sweeping() && !fixture.witness.is_gone(), "a batch is not all of them");
        until("an empty tree", || fixture.keeper.sweep());
        assert!(fixture.witness.is_gone());
    });
}

/// The reports of progress until the tree is empty, and whether the last report said that all processes were killed.
fn reports_until_empty(fixture: &mut KeeperFixture) -> (u32, bool) {
    let (mut progress, mut all_killed) = (0, false);
    until("the end of the tree", || match fixture.keeper.receive() {
        Received::Message(Some(FromKeeper::Progress)) => {
            progress += 1;
            all_killed = false;
            false
        }
        Received::Message(Some(FromKeeper::AllKilled)) => {
            all_killed = true;
            false
        }
        Received::Message(Some(FromKeeper::Empty { .. })) => true,
        Received::Message(_) | Received::Incomplete | Received::Nothing => false,
        Received::End => panic!("the keeper has gone"),
    });
    (progress, all_killed)
}

#[test]
fn a_keeper_that_is_killing_many_reports_progress_and_then_that_all_are_killed() {
    alone(|directory| {
        let many = "i=0; while [ $i -lt 3000 ]; do sleep 1000 & i=$((i+1)); done; echo main >&9; wait";
        let mut fixture = script(directory, many).fork();
        fixture.arm(TERM, Time::NEVER);
        fixture.start_until(&["main"]);
        // While the keeper kills it answers no ping; only its unsolicited reports of progress count.
        fixture.send(&ToKeeper::Kill);
        let (progress, all_killed) = reports_until_empty(&mut fixture);
        note(&format!("figures: {progress} reports of progress for 3000 processes"));
        assert!(progress > 0, "it was silent while it killed 3000");
        assert!(all_killed, "the last report before the end");
        assert!(fixture.witness.is_gone());
    });
}

/// On a busy machine, reaping even one process may take longer than the campaigner waits for an answer.
#[test]
fn a_keeper_that_has_killed_a_small_tree_reports_it_before_it_gives_up_its_priority() {
    alone(|directory| {
        let mut fixture = script(directory, "echo main >&9; exec sleep 1000").fork();
        fixture.arm(TERM, Time::NEVER);
        fixture.start_until(&["main"]);
        fixture.send(&ToKeeper::Kill);
        let (_, all_killed) = reports_until_empty(&mut fixture);
        assert!(all_killed, "the tree is empty, and no report said that it would be");
    });
}

#[test]
fn everybody_is_stopped_before_anybody_is_killed() {
    alone(|directory| {
        let many = "i=0; while [ $i -lt 400 ]; do sleep 1000 & i=$((i+1)); done; echo main >&9; wait";
        let mut fixture = script(directory, many).fork();
        fixture.arm(TERM, Time::NEVER);
        let main = fixture.start_until(&["main"]);
        let mut states = None;
        let root = fixture.keeper.pid();
        let _ = fixture.keeper.scanner.kill(root, &[], super::super::tree::DESCENDANTS_MAX, &mut || {
            // The first batch has been visited and no process has been killed: the states are readable now.
            states.get_or_insert_with(|| {
                until("the main process stands still", || status_of(main, "State").starts_with('T'));
                status_of(main, "State")
            });
        });
        assert!(states.is_some_and(|state| state.starts_with('T')), "it could have had children meanwhile");
        until("the end of the tree", || {
            fixture.keeper.kill_tree();
            fixture.witness.is_gone()
        });
    });
}

#[test]
fn the_campaigner_can_kill_below_a_keeper_that_is_stopped() {
    alone(|directory| {
        let mut fixture = script(directory, STUBBORN).fork();
        fixture.arm(TERM, Time::NEVER);
        fixture.start_until(&["main", "grandchild"]);
        signal(fixture.keeper.pid(), libc::SIGSTOP);
        until("the end of the tree", || {
            fixture.keeper.kill_tree();
            fixture.witness.is_gone()
        });
        sys::kill(fixture.keeper.pid(), libc::SIGCONT).expect("continued");
        fixture.exited(killed(libc::SIGKILL, false));
        fixture.empty();
    });
}

/// A ping while the descriptor table is full finds no list, and must keep the previous one.
#[test]
fn a_list_of_inherited_children_that_cannot_be_read_leaves_the_former_one() {
    alone(|directory| {
        let mut inherited = Command::new("sleep").arg("100").stdin(Stdio::null()).spawn().expect("started");
        let mut fixture = script(directory, STUBBORN).fork();
        fixture.arm(TERM, Time::NEVER);
        fixture.start_until(&["main", "grandchild"]);
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
        setrlimit(Resource::RLIMIT_NOFILE, 0, hard).expect("no more files");
        fixture.keeper.refresh_preexisting_children();
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).expect("as before");
        fixture.keeper.kill();
        until("its end", || fixture.keeper.reap());
        until("an empty tree", || fixture.keeper.sweep());
        assert!(inherited.try_wait().expect("a child of this process").is_none(), "it is not part of the tree");
        inherited.kill().expect("ended");
        inherited.wait().expect("reaped");
    });
}

/// The numbers of the descriptors that this process has open.
fn open_descriptors(pid: i32) -> BTreeSet<u64> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("a process of ours");
    entries.map(|entry| entry.expect("listed").file_name().to_string_lossy().parse().expect("a number")).collect()
}

#[test]
fn a_claim_without_all_of_its_descriptors_starts_no_command_and_leaks_none() {
    alone(|directory| {
        let mut fixture = script(directory, SLEEPER).fork();
        let pid = fixture.keeper.pid();
        fixture.arm(TERM, Time::NEVER);
        let before = open_descriptors(pid);
        // Room for one of two.
        let free = (0..1024).find(|number| !before.contains(number)).expect("there are more numbers");
        limit_descriptors(pid, free + 1);
        let lock = || std::fs::File::open("/dev/null").expect("opened").into();
        fixture.claim_with("lock", vec![lock(), lock()]);
        fixture.hears_no_more();
        // Descriptors for the start itself are there: only the claim is a reason to refuse it.
        limit_descriptors(pid, 1024);
        let run = fixture.order_start(TERM, &[]);
        fixture.hears(FromKeeper::NotStarted { run, why: NotStarted::Failed(libc::EMFILE) });
        fixture.hears(FromKeeper::Empty { run });
        assert_eq!(open_descriptors(pid), before);
        // The next claim that arrives whole counts.
        fixture.claim_with("lock", vec![lock(), lock()]);
        fixture.start();
    });
}
