//! The notices of a candidate: its transitions, for the log and the status.

use std::time::Duration;

use crate::{BackgroundHook, CheckEnd, CommandEnd, NotStarted, ProcessList, Program, Signal, Term, TimingError};

/// A transition of an election, for the log and the status; each is reported once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The store has answered with a win, which is to be verified.
    Won {
        /// The new term.
        term: Term,
    },
    /// The store has answered with a win whose term is not above every term seen: the boundary is released (S1).
    TermTooLow {
        /// The term that the store gave.
        term: Term,
        /// The highest one seen before.
        seen: Term,
    },
    /// Verified: we lead.
    Elected {
        /// The new term.
        term: Term,
    },
    /// The leader command runs.
    Started {
        /// In this term.
        term: Term,
        /// Its process id.
        pid: i32,
    },
    /// Its main process has ended.
    CommandEnded {
        /// In this term.
        term: Term,
        /// How.
        end: CommandEnd,
    },
    /// A main process has ended by itself and has left processes behind, which are being stopped (K10).
    LeftBehind {
        /// The program.
        program: Program,
        /// Which processes.
        processes: ProcessList,
    },
    /// Processes were killed that had not ended in time after the stop signal.
    StopTimedOut {
        /// The program.
        program: Program,
        /// The stop time-out.
        after: Duration,
        /// Which processes.
        processes: ProcessList,
    },
    /// The lease runs out while the command is being stopped: it has less time than it was given.
    StopShortened {
        /// In this term.
        term: Term,
        /// How long it has now.
        left: Duration,
    },
    /// The command, which is being stopped, is killed before its time is over.
    Killing {
        /// In this term.
        term: Term,
        /// Why.
        cause: KillCause,
    },
    /// The follower is killed at a second stop signal.
    FollowerKilling,
    /// The command is being stopped.
    Stopping {
        /// In this term.
        term: Term,
        /// Why.
        reason: Reason,
    },
    /// The command has ended, and is started again.
    Restarting {
        /// In this term.
        term: Term,
        /// After this long.
        delay: Duration,
    },
    /// The command has ended for good, and the boundary is still kept.
    LeadingIdle {
        /// In this term.
        term: Term,
        /// For so long.
        left: Duration,
    },
    /// The term is over, and nothing was running in it.
    LostAtRest {
        /// The term.
        term: Term,
        /// Why: the lease ran out, or the store says that it is not ours.
        reason: Reason,
    },
    /// The command has ended too often: the boundary is given up.
    GivenUp {
        /// The term.
        term: Term,
        /// How long the candidate sits out; `None`: it ends.
        sits_out: Option<Duration>,
    },
    /// The on-elected hook has failed: the boundary is given up.
    NotAccepted {
        /// The term.
        term: Term,
        /// How long the candidate sits out; `None`: it ends.
        sits_out: Option<Duration>,
    },
    /// A hook failed.
    HookFailed {
        /// Which.
        hook: Hook,
        /// How.
        failure: HookFailure,
    },
    /// The cool-down is over.
    CampaignsAgain,
    /// The candidate was drained.
    Drained,
    /// A drain is over.
    Undrained,
    /// The health check has succeeded often enough in a row.
    Healthy,
    /// The health check has failed too often in a row.
    Unhealthy {
        /// So often.
        failures: u32,
        /// The last time like this.
        last: CheckEnd,
    },
    /// The candidate has not been healthy for long.
    LongUnhealthy {
        /// For so long.
        time: Duration,
    },
    /// The follower runs.
    FollowerStarted {
        /// Its process id.
        pid: i32,
    },
    /// Its main process has ended.
    FollowerEnded {
        /// How.
        end: CommandEnd,
    },
    /// The follower could not be started.
    FollowerCannotStart(NotStarted),
    /// The follower is being stopped.
    FollowerStopping {
        /// Whether another leader is the reason; otherwise the candidate follows no longer.
        for_another: bool,
    },
    /// The follower was killed and is not confirmed dead: nothing else starts here.
    FollowerUnconfirmed,
    /// Killed, and still not confirmed dead: nothing is released, nothing else starts (2.3).
    Unconfirmed {
        /// In this term.
        term: Term,
    },
    /// The boundary was released.
    Released {
        /// After this term.
        term: Term,
    },
    /// The release was not confirmed: the lease has to run out by itself.
    NotReleased {
        /// After this term.
        term: Term,
    },
    /// The store has granted a lease that is too short to be used.
    Unusable(TimingError),
    /// The campaign limit is reached: another candidate leads, or none may lead yet.
    NotElected,
    /// The campaign limit is reached, and the store did not answer the last time.
    Unavailable,
    /// The keeper did not answer and is being killed.
    KeeperSilent,
    /// The keeper is dead.
    KeeperDied,
}

/// Why a command is being stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Its main process ended; what remains of the tree follows.
    CommandEnded,
    /// It could not be started.
    CannotStart(i32),
    /// A stop was asked for.
    Asked(Signal),
    /// A resignation was asked for: the candidate campaigns again behind the others.
    Resigned,
    /// The candidate was drained.
    Drained,
    /// The health check has failed too often in a row.
    Unhealthy,
    /// The hook before it failed.
    NotAccepted,
    /// The lease could not be renewed in time.
    RunningOut,
    /// The store says that the lease is not ours.
    Lost,
    /// The keeper died.
    KeeperDied,
}

/// Why a command that is being stopped is killed at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KillCause {
    /// A second stop signal.
    SecondSignal,
    /// The lease has run out.
    LeaseRanOut,
    /// The store says that the lease is not ours.
    Lost,
}

/// A hook, by the name of its flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// `--on-elected`
    OnElected,
    /// `--on-ousted`
    OnOusted,
    /// `--on-change` or `--on-error`
    BackgroundHook(BackgroundHook),
}

/// The reason why a hook failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookFailure {
    /// Its main process ended like this.
    Ended(CommandEnd),
    /// It could not be started.
    CannotStart(i32),
    /// It was killed for taking too long.
    TimedOut,
    /// The keeper, which would have run it, is dead.
    NoKeeper,
}
