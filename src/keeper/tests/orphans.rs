//! The keeper's death: the main process dies with it (K8), and the campaigner sweeps up what it left (K4).

use std::process::{Command, Stdio};

use super::harness::*;
use crate::election::Time;
use crate::keeper::sys;

#[test]
fn the_main_process_dies_with_the_keeper() {
    alone(|directory| {
        let mut scene = script(directory, SLEEPER).fork();
        scene.arm(TERM, Time::NEVER);
        scene.start_until(&["main"]);
        scene.keeper.kill();
        // Nobody sweeps here.
        scene.witness.gone();
    });
}

#[test]
fn what_a_dead_keeper_leaves_is_swept_up_and_a_stranger_is_not() {
    alone(|directory| {
        let mut stranger = Command::new("sleep").arg("100").stdin(Stdio::null()).spawn().expect("started");
        let mut scene = script(directory, STUBBORN).fork();
        scene.arm(TERM, Time::NEVER);
        scene.start_until(&["main", "grandchild"]);
        scene.keeper.note_strangers();
        scene.keeper.kill();
        until("its end", || scene.keeper.reap());
        assert!(!scene.witness.is_gone(), "the grandchild is ours now");
        until("an empty tree", || scene.keeper.sweep());
        assert!(scene.witness.is_gone(), "swept, and somebody lives");
        assert!(stranger.try_wait().expect("a child of ours").is_none(), "it was not part of the tree");
        // The number of a dead keeper is nobody's to kill.
        scene.keeper.kill();
        scene.keeper.kill_tree();
        stranger.kill().expect("killed");
        stranger.wait().expect("reaped");
    });
}

#[test]
fn a_tree_that_cannot_be_listed_is_not_called_empty() {
    alone(|directory| {
        let mut scene = script(directory, STUBBORN).fork();
        scene.arm(TERM, Time::NEVER);
        scene.start_until(&["main", "grandchild"]);
        scene.keeper.kill();
        until("its end", || scene.keeper.reap());
        let (soft, hard) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).expect("a limit");
        let limit = |most| nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, most, hard);
        limit(0).expect("no more files");
        let swept = scene.keeper.sweep();
        limit(soft).expect("as before");
        assert!(!swept && !scene.witness.is_gone(), "said to be empty, and somebody lives");
        until("an empty tree", || scene.keeper.sweep());
        assert!(scene.witness.is_gone());
    });
}

#[test]
fn the_campaigner_can_kill_below_a_keeper_that_is_stopped() {
    alone(|directory| {
        let mut scene = script(directory, STUBBORN).fork();
        scene.arm(TERM, Time::NEVER);
        scene.start_until(&["main", "grandchild"]);
        signal(scene.keeper.pid(), libc::SIGSTOP);
        until("the end of the tree", || {
            scene.keeper.kill_tree();
            scene.witness.is_gone()
        });
        sys::kill(scene.keeper.pid(), libc::SIGCONT).expect("continued");
        scene.exited(killed(libc::SIGKILL, false));
        scene.empty();
    });
}
