//! Waiters whose own lease, and nothing else, is lost are told of no change.

use super::keys::QueueScenario;
use crate::harness::processes::ProcessInfo;
use crate::harness::wait::{eventually, throughout, until};
use crate::harness::{CandidateProcess, ElectCmd, Sandbox, Witness};
use crate::listen::{document, port_of};

/// A waiter with a follower, a hook and its page.
struct Waiter {
    candidate: CandidateProcess,
    port: u16,
}

impl Waiter {
    fn start(scenario: &QueueScenario) -> Waiter {
        let notes = scenario.sandbox.path().join("notes").display().to_string();
        let elect: ElectCmd = scenario
            .candidate()
            .flag("--on-change", &format!("echo change >>{notes}"))
            .flag("--follower", &format!("echo follow >>{notes}; exec sleep 1000"))
            .flag("--listen", "127.0.0.1:0");
        let candidate = elect.witness(&Witness::new()).start();
        let port = port_of(&candidate);
        until("it follows", || notes_of(&scenario.sandbox).contains("follow"));
        until("and has noted the change", || notes_of(&scenario.sandbox).contains("change"));
        Waiter { candidate, port }
    }

    #[track_caller]
    fn leader(&self) -> String {
        eventually("its page", || self.try_leader())
    }

    /// None while the page does not answer, as on a busy machine.
    fn try_leader(&self) -> Option<String> {
        document(self.port).map(|page| page["leader"]["id"].to_string())
    }

    fn knows(&self, leader: &str) -> bool {
        self.try_leader().is_none_or(|known| known == leader)
    }
}

fn notes_of(sandbox: &Sandbox) -> String {
    std::fs::read_to_string(sandbox.path().join("notes")).unwrap_or_default()
}

/// A leader, and a waiter behind it.
fn queued(scenario: &QueueScenario) -> (CandidateProcess, Waiter) {
    let leader = scenario.start_patient();
    scenario.sandbox.starts(1);
    let waiter = Waiter::start(scenario);
    until("it stands in the queue", || scenario.queue().len() == 2);
    (leader, waiter)
}

/// The waiter loses its place and comes back; it is told of no change.
fn is_told_of_no_change(strike: impl Fn(&QueueScenario)) {
    let scenario = QueueScenario::new();
    let (leader, waiter) = queued(&scenario);
    let (led, notes) = (waiter.leader(), notes_of(&scenario.sandbox));
    assert!(led.len() > 10, "an id: {led}");
    for _ in 0..3 {
        let lost = scenario.key(1);
        let tree = waiter.candidate.tree();
        strike(&scenario);
        let mut same = true;
        until("it stands at the back of the queue", || {
            same &= waiter.knows(&led);
            scenario.queue().len() == 2 && scenario.key(1) != lost
        });
        throughout(super::LEASE / 3, "it knows who leads", || waiter.knows(&led));
        assert!(same, "it has known all the time");
        assert_eq!(notes_of(&scenario.sandbox), notes, "no change, and the same follower");
        let pids = |tree: &[ProcessInfo]| tree.iter().map(|process| process.pid).collect::<Vec<_>>();
        assert_eq!(pids(&waiter.candidate.tree()), pids(&tree));
    }
    leader.terminate();
    scenario.sandbox.starts(2);
    waiter.candidate.terminate();
}

#[test]
fn a_waiter_whose_lease_is_revoked_still_knows_who_leads() {
    is_told_of_no_change(|scenario| drop(scenario.etcd.etcdctl(&["lease", "revoke", &scenario.lease(1)])));
}

#[test]
fn a_waiter_that_slept_through_its_lease_still_knows_who_leads() {
    use nix::sys::signal::Signal;
    let scenario = QueueScenario::new();
    let (leader, waiter) = queued(&scenario);
    let (led, notes) = (waiter.leader(), notes_of(&scenario.sandbox));
    waiter.candidate.signal(Signal::SIGSTOP);
    until("its key is gone", || scenario.queue().len() == 1);
    waiter.candidate.signal(Signal::SIGCONT);
    let mut same = true;
    until("it queues again", || {
        same &= waiter.knows(&led);
        scenario.queue().len() == 2
    });
    assert!(same && waiter.leader() == led);
    assert_eq!(notes_of(&scenario.sandbox), notes);
    leader.terminate();
    scenario.sandbox.starts(2);
    waiter.candidate.terminate();
}
