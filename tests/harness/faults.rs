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
        let handover_runs = if self.stops_soon { handover_runs.flag("--stop-timeout", "300ms") } else { handover_runs };
        let handover_runs = if self.found_late { handover_runs.side_by_side(SIDE_BY_SIDE) } else { handover_runs };
        let measurements = handover_runs.run(self.strike, self.after);
        measurements.print(&format!("{label}{}", self.kind));
        assert_eq!((measurements.overlaps, measurements.survivors), (0, 0), "{label}{}: {measurements}", self.kind);
        measurements
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

fn freeze_the_keeper(leader: &CandidateProcess) {
    processes::signal(leader.keeper(), Signal::SIGSTOP);
}

fn is_killed(leader: &mut CandidateProcess) {
    leader.ends_by(Signal::SIGKILL);
}

fn failed(leader: &mut CandidateProcess) {
    leader.ends_with(125);
}
