//! How a command, and how a candidacy, ends.

use crate::{Signal, TimingError};

/// How the candidacy ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The command ran and ended like this; after a stop as well.
    Command(CommandEnd),
    /// Stopped while no command ran.
    Stopped(Signal),
    /// Exec failed with this `errno`.
    CannotStart(i32),
    /// The store will not have us.
    Refused,
    /// The campaign limit is reached: another candidate leads, or none may lead yet.
    NotElected,
    /// The campaign limit is reached, and the store did not answer the last time.
    Unavailable,
    /// Leadership was lost, and was not to be sought again.
    LeadershipLost,
    /// The ttl that the store grants cannot be worked with.
    Unusable(TimingError),
    /// The keeper died; the tree was killed and the boundary released.
    KeeperDied,
}

/// How the main process of a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandEnd {
    /// It exited with this status.
    Exited(u8),
    /// A signal ended it.
    Killed {
        /// Which one.
        signal: Signal,
        /// Whether elect sent it because a time limit had passed (exit status 137).
        escalated: bool,
    },
}
