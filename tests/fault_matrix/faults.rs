//! The faults of the matrix. A new one is one entry of [`FAULTS`].

use super::sites::SiteKind;
use crate::harness::faults::{self, LeaderFault};
use crate::harness::proxy::ProxyMode;

const HOUR: i64 = 3600;

pub struct MatrixFault {
    /// Selects it, and names it in the report.
    pub name: &'static str,
    /// For the report.
    pub text: &'static str,
    pub act: Act,
    pub site: SiteKind,
    /// SIGSTOP, one-way cuts and failovers: what a suite seldom meets by chance runs more often in the default tier.
    pub needs_many_runs: bool,
}

/// A fault, and the process or the server that it strikes.
pub enum Act {
    /// To processes of the leader, of which one survives to hand over.
    Leader(&'static LeaderFault),
    CampaignerStopped,
    KeeperStopped,
    BothKilled,
    /// To the connection between the leader and the server.
    Link(ProxyMode),
    ServerAway(ServerFailure),
    /// SIGKILL, and a start at once.
    ServerRestarted,
    /// The server that serves fails; another takes over, then the first one comes back.
    Failover,
    /// The wall clock of the candidates, and of the server if its program reads it through libc, is stepped by so many seconds.
    Clock(i64),
    /// A process of the command waits in the kernel for a disk that is frozen (D state), and the leader is asked to stop.
    Stuck,
    /// The whole candidate is frozen by the cgroup freezer for longer than the ttl, then thawed.
    Frozen,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerFailure {
    Killed,
    Stopped,
}

const fn leader(name: &'static str, text: &'static str, fault: &'static LeaderFault) -> MatrixFault {
    shared(name, text, Act::Leader(fault))
}

const fn shared(name: &'static str, text: &'static str, act: Act) -> MatrixFault {
    MatrixFault { name, text, act, site: SiteKind::Shared, needs_many_runs: false }
}

const fn cut(name: &'static str, text: &'static str, mode: ProxyMode, is_one_way: bool) -> MatrixFault {
    MatrixFault { needs_many_runs: is_one_way, ..shared(name, text, Act::Link(mode)) }
}

const fn server(name: &'static str, text: &'static str, act: Act) -> MatrixFault {
    MatrixFault { site: SiteKind::Own, ..shared(name, text, act) }
}

const fn clock(name: &'static str, text: &'static str, seconds: i64) -> MatrixFault {
    MatrixFault { site: SiteKind::Clocked, ..shared(name, text, Act::Clock(seconds)) }
}

pub const FAULTS: &[MatrixFault] = &[
    leader("sigterm", "SIGTERM to the campaigner", &faults::STOPPED),
    leader("campaigner-killed", "SIGKILL to the campaigner", &faults::CAMPAIGNER_KILLED),
    leader("keeper-killed", "SIGKILL to the keeper", &faults::KEEPER_KILLED),
    leader("main-killed", "SIGKILL to the main process of the command", &faults::MAIN_PROCESS_KILLED),
    leader(
        "stubborn",
        "SIGTERM to the campaigner; the command and a daemon of it ignore SIGTERM",
        &faults::STUBBORN_STOPPED,
    ),
    leader(
        "stubborn-campaigner-killed",
        "SIGKILL to the campaigner; the command and a daemon of it ignore SIGTERM",
        &faults::STUBBORN_CAMPAIGNER_KILLED,
    ),
    MatrixFault {
        needs_many_runs: true,
        ..shared("campaigner-stopped", "SIGSTOP to the campaigner for longer than the ttl", Act::CampaignerStopped)
    },
    MatrixFault {
        needs_many_runs: true,
        ..shared(
            "keeper-stopped",
            "SIGSTOP to the keeper for longer than the ttl (file store: and SIGTERM to the campaigner)",
            Act::KeeperStopped,
        )
    },
    shared(
        "both-killed",
        "SIGKILL to campaigner and keeper at once (2.2); a daemon of the command is left where the tier pidns or the lock \
         covers it, elsewhere the command has none",
        Act::BothKilled,
    ),
    cut("cut-both", "nothing passes between leader and server", ProxyMode::BlackHole, false),
    cut("cut-requests", "requests of the leader are held, answers pass", ProxyMode::RequestsHeld, true),
    cut("cut-answers", "answers to the leader are held, requests pass", ProxyMode::AnswersHeld, true),
    cut("refused", "connections of the leader are reset and refused", ProxyMode::Closed, false),
    server(
        "server-killed",
        "SIGKILL to the server; started when the tree is gone",
        Act::ServerAway(ServerFailure::Killed),
    ),
    server("server-restarted", "SIGKILL to the server; started at once", Act::ServerRestarted),
    server(
        "server-stopped",
        "SIGSTOP to the server; continued when the tree is gone",
        Act::ServerAway(ServerFailure::Stopped),
    ),
    MatrixFault {
        site: SiteKind::Failover,
        needs_many_runs: true,
        ..shared("failover", "SIGKILL or SIGSTOP to the server that serves; another takes over", Act::Failover)
    },
    clock("clock-forward", "the wall clock is stepped an hour forwards", HOUR),
    clock("clock-back", "the wall clock is stepped an hour backwards", -HOUR),
    shared("stuck", "a process of the command is in D state while the leader is asked to stop", Act::Stuck),
    shared("frozen", "the whole candidate is frozen for longer than the ttl, then thawed", Act::Frozen),
];
