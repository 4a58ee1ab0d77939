//! Every exit status, in one place.

use std::process::ExitCode;

use elect_core::{CommandEnd, Outcome, Signal};

/// The statuses that are elect's own; a command's status is passed on as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// The command succeeded, or the answer is yes.
    Success = 0,
    /// The command line makes no sense.
    Usage = 2,
    /// The answer is no.
    No = 3,
    /// The store cannot be reached.
    Unavailable = 69,
    /// Another candidate leads, and --no-wait or --wait ends the wait.
    NotElected = 75,
    /// Leadership was lost, and --on-lost is exit.
    LeadershipLost = 76,
    /// The store refuses at the first contact: permission, authentication. Never because of a record (S6).
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

/// The statuses of `elect run` itself, as its help shows them: every other status is the command's.
pub const RUN_EXIT_STATUSES: [(Exit, &str); 9] = [
    (Exit::Usage, "the command line makes no sense"),
    (Exit::Unavailable, "the store cannot be reached, and --no-wait or --wait sets an end to trying"),
    (Exit::NotElected, "not elected, and --no-wait or --wait sets an end to waiting (--conflict-exit-code)"),
    (Exit::LeadershipLost, "leadership was lost, and --on-lost is exit (as it is with --no-wait or --wait)"),
    (Exit::Refused, "the store refuses at the first contact: permission, authentication"),
    (Exit::Failed, "elect itself failed"),
    (Exit::NotExecutable, "the command cannot be executed"),
    (Exit::NotFound, "the command was not found"),
    (Exit::Escalated, "the command did not stop when asked, and was killed"),
];

/// [`RUN_EXIT_STATUSES`], a line each.
#[must_use]
pub fn table() -> String {
    RUN_EXIT_STATUSES.map(|(exit, meaning)| format!("  {:>3}  {meaning}\n", exit as u8)).concat()
}

/// How a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Status(u8),
    /// By this signal, or as if.
    BySignal(Signal),
}

/// Ends the program as its candidacy ended. A signal that ended the command ends elect too, so that a shell or an init
/// sees what happened; PID 1 cannot die of one and says 128 + n. `conflict` is `--conflict-exit-code`.
#[must_use]
pub fn status(outcome: &Outcome, conflict: Option<u8>) -> ExitCode {
    match ending(outcome, conflict) {
        Ending::Status(status) => ExitCode::from(status),
        Ending::BySignal(signal) => die_by_signal(signal),
    }
}

fn ending(outcome: &Outcome, conflict: Option<u8>) -> Ending {
    let exit = match *outcome {
        Outcome::Command(CommandEnd::Exited(status)) => return Ending::Status(status),
        Outcome::Command(CommandEnd::Killed { signal, escalated: false }) | Outcome::Stopped(signal) => {
            return Ending::BySignal(signal);
        }
        Outcome::Command(CommandEnd::Killed { escalated: true, .. }) => Exit::Escalated,
        Outcome::CannotStart(errno) => cannot_start(errno),
        Outcome::Refused => Exit::Refused,
        Outcome::NotElected => return Ending::Status(conflict.unwrap_or(Exit::NotElected as u8)),
        Outcome::Unavailable => Exit::Unavailable,
        Outcome::LeadershipLost => Exit::LeadershipLost,
        Outcome::Unusable(_) | Outcome::KeeperDied => Exit::Failed,
    };
    Ending::Status(exit as u8)
}

/// exec errors about the file map to 126 and 127; fork and memory errors map to 125.
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
        // Killed before exec, and never run.
        | libc::ECANCELED
        | libc::EINVAL => Exit::NotExecutable,
        _ => Exit::Failed,
    }
}

fn die_by_signal(Signal(signal): Signal) -> ExitCode {
    elect_keeper::die_by(signal);
    ExitCode::from(u8::try_from(128 + signal).unwrap_or(u8::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use elect_core::{Timing, TimingFlags};
    use std::time::Duration;

    /// A ttl that nothing can be done within.
    fn unusable() -> Outcome {
        let asked = TimingFlags { ttl: Some(Duration::from_millis(1)), ..TimingFlags::default() };
        Outcome::Unusable(Timing::validate(asked).expect_err("too short"))
    }

    #[test]
    fn every_outcome_has_its_status() {
        let killed = |escalated| Outcome::Command(CommandEnd::Killed { signal: Signal(9), escalated });
        for (outcome, expected) in [
            (Outcome::Command(CommandEnd::Exited(0)), Ending::Status(0)),
            (Outcome::Command(CommandEnd::Exited(75)), Ending::Status(75)),
            (killed(false), Ending::BySignal(Signal(9))),
            (killed(true), Ending::Status(137)),
            (Outcome::Stopped(Signal(15)), Ending::BySignal(Signal(15))),
            (Outcome::CannotStart(libc::ENOENT), Ending::Status(127)),
            (Outcome::CannotStart(libc::EACCES), Ending::Status(126)),
            (Outcome::CannotStart(libc::ENOEXEC), Ending::Status(126)),
            (Outcome::CannotStart(libc::ETXTBSY), Ending::Status(126)),
            (Outcome::CannotStart(libc::ENOMEM), Ending::Status(125)),
            (Outcome::CannotStart(libc::EAGAIN), Ending::Status(125)),
            (Outcome::Refused, Ending::Status(77)),
            (Outcome::NotElected, Ending::Status(75)),
            (Outcome::Unavailable, Ending::Status(69)),
            (Outcome::LeadershipLost, Ending::Status(76)),
            (unusable(), Ending::Status(125)),
            (Outcome::KeeperDied, Ending::Status(125)),
        ] {
            assert_eq!(ending(&outcome, None), expected, "{outcome:?}");
            let other = if outcome == Outcome::NotElected { Ending::Status(0) } else { expected };
            assert_eq!(ending(&outcome, Some(0)), other, "{outcome:?}");
            if let Ending::Status(status @ (2 | 69..=127 | 137)) = expected
                && !matches!(outcome, Outcome::Command(CommandEnd::Exited(_)))
            {
                assert!(RUN_EXIT_STATUSES.iter().any(|(exit, _)| *exit as u8 == status), "{status} is not in the help");
            }
        }
    }

    #[test]
    fn the_table_of_the_help_is_in_order_and_names_each_status_once() {
        let statuses = RUN_EXIT_STATUSES.map(|(exit, _)| exit as u8);
        assert!(statuses.is_sorted_by(|one, next| one < next), "{statuses:?}");
        assert_eq!(table().lines().count(), RUN_EXIT_STATUSES.len());
        assert!(table().starts_with("    2  the command line"), "{}", table());
    }
}
