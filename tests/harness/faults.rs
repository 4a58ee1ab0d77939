//! The faults of a leader, for every store and tier of containment: which process is struck, how it ends, what is asserted.

use nix::sys::signal::Signal;

use super::journal::Measurements;
use super::{CandidateProcess, HandoverRuns, Witness, processes, until};

/// How many relays go on at once where a fault is found late.
pub const SIDE_BY_SIDE: usize = 10;

/// One kind of fault.
#[derive(Debug, Clone, Copy)]
pub struct LeaderFault {
    pub kind: &'static str,
    witness: Option<fn() -> Witness>,
    /// Shorter than what any lease leaves.
    stops_soon: bool,
    found_late: bool,
    strike: fn(&CandidateProcess),
    after: fn(&mut CandidateProcess),
}

const PLAIN: LeaderFault = LeaderFault {
    kind: "leader stopped with SIGTERM, half with a daemonized grandchild",
    witness: None,
    stops_soon: false,
    found_late: false,
    strike: stop,
    after: |leader| leader.ends_with(0),
};

pub const STOPPED: LeaderFault = PLAIN;

pub const CAMPAIGNER_KILLED: LeaderFault =
    LeaderFault { kind: "campaigner SIGKILLed", strike: kill, after: is_killed, ..PLAIN };

pub const KEEPER_KILLED: LeaderFault = LeaderFault {
    kind: "keeper SIGKILLed",
    strike: |leader| processes::signal(leader.keeper(), Signal::SIGKILL),
    after: failed,
    ..PLAIN
};

/// Without a lease it is missed when it is needed.
pub const KEEPER_FROZEN_THEN_STOPPED: LeaderFault = LeaderFault {
    kind: "keeper SIGSTOPped, then a stop",
    found_late: true,
    strike: |leader| {
        freeze_the_keeper(leader);
        stop(leader);
    },
    after: failed,
    ..PLAIN
};

/// With one it is missed by the deadline: it never goes on.
pub const KEEPER_FROZEN: LeaderFault =
    LeaderFault { kind: "keeper SIGSTOPped", found_late: true, strike: freeze_the_keeper, after: failed, ..PLAIN };

pub const CAMPAIGNER_FROZEN: LeaderFault = LeaderFault {
    kind: "campaigner SIGSTOPped for longer than the ttl",
    found_late: true,
    strike: |leader| leader.signal(Signal::SIGSTOP),
    after: |leader| {
        leader.signal(Signal::SIGCONT);
        // It finds that it leads no more, and stands again.
        leader.wait_for_log("the lease runs out");
        until("it waits again", || leader.log().matches("waiting: ").count() > 0);
        leader.signal(Signal::SIGTERM);
        leader.wait();
    },
    ..PLAIN
};

/// The command's own end, by a signal that is not elect's: elect ends by the same one.
pub const MAIN_PROCESS_KILLED: LeaderFault = LeaderFault {
    kind: "the command's main process SIGKILLed",
    strike: |leader| processes::signal(main_process(leader), Signal::SIGKILL),
    after: is_killed,
    ..PLAIN
};

pub const STUBBORN_STOPPED: LeaderFault = LeaderFault {
    kind: "command and daemonized grandchild ignoring SIGTERM",
    witness: Some(stubborn),
    stops_soon: true,
    after: |leader| leader.ends_with(137),
    ..PLAIN
};

pub const STUBBORN_CAMPAIGNER_KILLED: LeaderFault = LeaderFault {
    kind: "campaigner SIGKILLed, command and grandchild ignoring SIGTERM",
    witness: Some(stubborn),
    stops_soon: true,
    strike: kill,
    after: is_killed,
    ..PLAIN
};

/// No process renews any more: the stop time-out of eight seconds is cut to the deadline in force.
pub const SLOW_CAMPAIGNER_KILLED: LeaderFault = LeaderFault {
    kind: "campaigner SIGKILLed, stubborn command, stop time-out longer than the lease",
    witness: Some(stubborn),
    found_late: true,
    strike: kill,
    after: is_killed,
    ..PLAIN
};

pub const BOTH_KILLED: LeaderFault = LeaderFault {
    kind: "campaigner and keeper SIGKILLed together",
    witness: Some(Witness::new),
    strike: CandidateProcess::kill_with_keeper,
    after: is_killed,
    ..PLAIN
};

/// For the tier that takes the descendants along.
pub const BOTH_KILLED_WITH_A_DAEMON: LeaderFault = LeaderFault {
    kind: "campaigner and keeper SIGKILLed together, with a stubborn daemonized grandchild",
    witness: Some(stubborn),
    ..BOTH_KILLED
};

impl LeaderFault {
    /// Strikes the leaders of a relay, one after the other. None overlaps with the next, and nobody survives.
    #[track_caller]
    pub fn run(&self, handover_runs: HandoverRuns, label: &str) -> Measurements {
        let handover_runs =
            self.witness.iter().fold(handover_runs, |handover_runs, witness| handover_runs.witness(witness()));
        let handover_runs =
            self.stop_timeout().into_iter().fold(handover_runs, |runs, time| runs.flag("--stop-timeout", time));
        let handover_runs = if self.found_late { handover_runs.side_by_side(SIDE_BY_SIDE) } else { handover_runs };
        let measurements = handover_runs.run(self.strike, self.after);
        measurements.print(&format!("{label}{}", self.kind));
        assert_eq!((measurements.overlaps, measurements.survivors), (0, 0), "{label}{}: {measurements}", self.kind);
        measurements
    }

    /// For a single leader, outside of a relay.
    pub fn strike(&self, leader: &CandidateProcess) {
        (self.strike)(leader);
    }

    /// How a leader ends that was struck, once the next one leads.
    #[track_caller]
    pub fn check_end(&self, leader: &mut CandidateProcess) {
        (self.after)(leader);
    }

    /// The command of a leader that is going to be struck, if the fault needs a particular one.
    pub fn witness(&self) -> Option<Witness> {
        self.witness.map(|witness| witness())
    }

    pub fn stop_timeout(&self) -> Option<&'static str> {
        self.stops_soon.then_some("300ms")
    }
}

fn stubborn() -> Witness {
    Witness::new().daemon().stubborn()
}

fn stop(leader: &CandidateProcess) {
    leader.signal(Signal::SIGTERM);
}

fn kill(leader: &CandidateProcess) {
    leader.signal(Signal::SIGKILL);
}

/// The oldest process of the command: its descendants have left its group, or have higher numbers.
#[track_caller]
fn main_process(leader: &CandidateProcess) -> i32 {
    let tree = leader.tree();
    tree.iter().map(|process| process.pid).min_by_key(|&pid| processes::started(pid)).expect("the command runs")
}

fn freeze_the_keeper(leader: &CandidateProcess) {
    processes::signal(leader.keeper(), Signal::SIGSTOP);
}

fn is_killed(leader: &mut CandidateProcess) {
    leader.ends_by(Signal::SIGKILL);
}

fn failed(leader: &mut CandidateProcess) {
    leader.ends_with(125);
}
