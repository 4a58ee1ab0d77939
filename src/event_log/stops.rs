//! The lines about the end of a leadership and of its programs: each has its reason, and says what to do.

use std::time::Duration;

use tracing::{error, info, warn};

use super::{EventLog, name};
use elect_core::{CommandEnd, HumanDuration, KillCause, ProcessList, Program, Reason};

impl EventLog {
    pub(super) fn lost_at_rest(&mut self, term: u64, reason: Reason) {
        match reason {
            Reason::RunningOut => warn!(term, "the lease runs out; nothing is running ({})", self.why_not_renewed()),
            Reason::Lost
            | Reason::CommandEnded
            | Reason::CannotStart(_)
            | Reason::NotAccepted
            | Reason::Asked(_)
            | Reason::Resigned
            | Reason::Drained
            | Reason::Unhealthy
            | Reason::KeeperDied => warn!(term, "leadership lost; nothing was running ({})", self.take_loss()),
        }
    }

    pub(super) fn stopping(&mut self, term: u64, reason: Reason) {
        match reason {
            // Said already: the command ended, the keeper died.
            Reason::CommandEnded | Reason::NotAccepted | Reason::KeeperDied => {}
            Reason::CannotStart(errno) => {
                let reason = std::io::Error::from_raw_os_error(errno);
                // It is there: that was found out before campaigning.
                let advice = match errno {
                    libc::ENOENT => "; is the interpreter that it names there?",
                    libc::ENOEXEC => "; it is a program for another kind of machine",
                    libc::ECANCELED => {
                        "; its process was killed before exec: look for the sender (the OOM killer?) in the system's log"
                    }
                    _ => "",
                };
                error!(term, "the leader command cannot be executed: {reason}{advice}");
            }
            Reason::Asked(signal) => {
                let signal = name(signal);
                info!(json.term = term, json.signal = signal, "asked to stop ({signal}): stopping the command");
            }
            Reason::Resigned => info!(json.term = term, "asked to resign: stopping the command"),
            Reason::Drained => info!(json.term = term, "drained: stopping the command"),
            Reason::Unhealthy => info!(json.term = term, "not healthy: stopping the command"),
            Reason::RunningOut => {
                warn!(json.term = term, "the lease runs out: stopping the command ({})", self.why_not_renewed());
            }
            Reason::Lost => warn!(json.term = term, "leadership lost: killing the command ({})", self.take_loss()),
        }
    }

    /// Logs that a stop has less time than it was given.
    pub(super) fn stop_shortened(&self, term: u64, left: Duration) {
        let left = HumanDuration(left);
        warn!(json.term = term, "the lease runs out during the stop: SIGKILL in {left} ({})", self.why_not_renewed());
    }

    /// Logs that a stop becomes a kill before its time is over.
    pub(super) fn killing(&mut self, term: u64, cause: KillCause) {
        match cause {
            KillCause::SecondSignal => info!(json.term = term, "second stop signal: killing the command"),
            KillCause::LeaseRanOut => {
                warn!(json.term = term, "the lease has run out: killing the command ({})", self.why_not_renewed());
            }
            KillCause::Lost => warn!(json.term = term, "leadership lost: killing the command ({})", self.take_loss()),
        }
    }
}

/// Logs the end of the leader command's main process.
pub(super) fn command_ended(term: u64, end: CommandEnd) {
    match end {
        CommandEnd::Exited(status) => info!(json.term = term, status, "leader command ended"),
        CommandEnd::Killed { signal, escalated: false } => {
            info!(json.term = term, signal = name(signal), "leader command ended");
        }
        // No other process has sent it, such as the kernel for want of memory.
        CommandEnd::Killed { signal, escalated: true } => {
            info!(json.term = term, signal = name(signal), by = "elect", "leader command ended");
        }
    }
}

/// The same for the follower.
pub(super) fn follower_ended(end: CommandEnd) {
    match end {
        CommandEnd::Exited(status) => info!(status, "follower ended"),
        CommandEnd::Killed { signal, escalated: false } => info!(signal = name(signal), "follower ended"),
        CommandEnd::Killed { signal, escalated: true } => info!(signal = name(signal), by = "elect", "follower ended"),
    }
}

/// Logs the processes that an ended main process has left behind (K10).
pub(super) fn left_behind(program: Program, processes: &ProcessList) {
    warn!(
        "{} has ended and left behind {}: {processes}; they get the stop signal now. A program that goes into the \
         background by itself must be run in the foreground (nginx: daemon off; pg_ctl: postgres instead)",
        program_name(program),
        counted(processes)
    );
}

/// Logs the processes that had to be killed at the end of a stop.
pub(super) fn stop_timed_out(program: Program, after: Duration, processes: &ProcessList) {
    warn!(
        "{} had not ended {} after the stop signal (--stop-timeout): killed {}: {processes}; give it more time, or the \
         signal to all of its processes at once (--stop-to group)",
        program_name(program),
        HumanDuration(after),
        counted(processes)
    );
}

fn counted(processes: &ProcessList) -> String {
    match processes.count {
        1 => "1 process".to_owned(),
        count => format!("{count} processes"),
    }
}

fn program_name(program: Program) -> &'static str {
    match program {
        Program::Command { .. } => "the leader command",
        Program::OnElected { .. } => "--on-elected",
        Program::OnOusted { .. } => "--on-ousted",
        Program::Follower => "the follower",
    }
}
