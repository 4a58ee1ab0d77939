//! Every exit status, in one place.

use std::process::ExitCode;

use crate::election::{CommandEnd, Outcome, Signal};
use crate::keeper;

/// The statuses that are elect's own; a command's status is passed on as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It went well, or the answer is yes.
    Success = 0,
    /// The command line makes no sense.
    Usage = 2,
    /// The answer is no.
    No = 3,
    /// The store cannot be reached.
    Unavailable = 69,
    /// Somebody else leads, and it was not to be waited for, or not any longer.
    NotElected = 75,
    /// Leadership was lost, and was not to be sought again.
    LeadershipLost = 76,
    /// The store will not have us: permission, authentication, a newer format.
    Refused = 77,
    /// elect itself failed.
    Failed = 125,
    /// The command was found and cannot be executed.
    NotExecutable = 126,
    /// The command was not found.
    NotFound = 127,
    /// The command had to be killed: 128 + SIGKILL.
    Escalated = 137,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// Ends the program as its candidacy ended. A signal that ended the command ends elect too, so that a shell or an init
/// sees what happened; PID 1 cannot die of one and says 128 + n.
#[must_use]
pub fn status(outcome: &Outcome) -> ExitCode {
    match *outcome {
        Outcome::Command(CommandEnd::Exited(status)) => ExitCode::from(status),
        Outcome::Command(CommandEnd::Killed { escalated: true, .. }) => Exit::Escalated.into(),
        Outcome::Command(CommandEnd::Killed { signal, escalated: false }) | Outcome::Stopped(signal) => by(signal),
        Outcome::CannotStart(errno) => cannot_start(errno).into(),
        Outcome::Refused => Exit::Refused.into(),
        Outcome::NotElected => Exit::NotElected.into(),
        Outcome::Unavailable => Exit::Unavailable.into(),
        Outcome::LeadershipLost => Exit::LeadershipLost.into(),
        Outcome::Unusable(_) | Outcome::KeeperDied => Exit::Failed.into(),
    }
}

/// What exec says of the file is the file's fault; that there is no process or memory to be had is not.
fn cannot_start(errno: i32) -> Exit {
    match errno {
        libc::ENOENT => Exit::NotFound,
        libc::EACCES
        | libc::EPERM
        | libc::ENOEXEC
        | libc::EISDIR
        | libc::ENOTDIR
        | libc::ELOOP
        | libc::E2BIG
        | libc::ETXTBSY
        | libc::ELIBBAD
        | libc::ENAMETOOLONG
        | libc::EINVAL => Exit::NotExecutable,
        _ => Exit::Failed,
    }
}

fn by(Signal(signal): Signal) -> ExitCode {
    keeper::die_by(signal);
    ExitCode::from(u8::try_from(128 + signal).unwrap_or(u8::MAX))
}
