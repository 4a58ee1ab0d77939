//! The kill before there is anything to kill, so that no page of its code or memory is missing when it counts (K3).

use std::time::Duration;

use super::KeeperLoop;
use crate::containment::NONE_SPARED;
use crate::spawn::CommandSpec;
use crate::{clock, memory, sys};
use elect_core::{
    ChildEnd, KeeperAction, KeeperEvent, KeeperMachine, KeeperOrder, ProcessList, Program, Signal, Term, Time,
};

/// Of no process.
const NO_PID: i32 = i32::MAX;
const TERM: Term = 1;

impl KeeperLoop {
    /// Decides a kill in a machine of its own, and walks the tree, which is empty.
    pub fn rehearse(&mut self) {
        memory::touch_stack();
        self.scanner.touch();
        let mut machine = KeeperMachine::new(CommandSpec::policy(self.spec.as_ref()));
        let now = clock::now();
        let kill_by = now + Duration::from_secs(1);
        let start = KeeperOrder::Start { program: Program::Command { term: TERM }, run: 1 };
        let events = [
            (now, KeeperEvent::Order(KeeperOrder::Arm { term: TERM, kill_by })),
            (now, KeeperEvent::Order(start)),
            (now, KeeperEvent::Executed),
            (kill_by, KeeperEvent::RoundBegins),
            (kill_by, KeeperEvent::ChildEnded { pid: NO_PID, end: ChildEnd::Killed(Signal(libc::SIGKILL)) }),
            (kill_by, KeeperEvent::NoChildren { is_cgroup_populated: false }),
            (kill_by, KeeperEvent::RoundEnds),
        ];
        for (at, event) in events {
            pass(&mut machine, at, event);
        }
        let _ = self.tier.kill(&mut self.scanner, self.own_pid, NONE_SPARED, &mut || ());
        // Signal 0 reaches no process.
        let _ = sys::kill(self.own_pid, 0);
    }
}

/// The answers are those of a kernel that does at once as it is told.
fn pass(machine: &mut KeeperMachine, at: Time, event: KeeperEvent) {
    machine.handle(at, event);
    while let Some(action) = machine.next_action() {
        if matches!(action, KeeperAction::Spawn { .. }) {
            machine.handle(at, KeeperEvent::Spawned { pid: NO_PID, init: None });
        } else if matches!(action, KeeperAction::ListDescendants { .. }) {
            machine.handle(at, KeeperEvent::DescendantsListed(ProcessList::default()));
        } else if matches!(action, KeeperAction::KillTree { .. }) {
            machine.handle(at, KeeperEvent::TreeKilled { is_complete: true, processes: ProcessList::default() });
        }
    }
}
