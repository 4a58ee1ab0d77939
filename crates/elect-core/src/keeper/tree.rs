//! The data of a tree: its main process, and how far its end has come.

use std::time::Duration;

use crate::{Program, Time};

/// The delay before a killed tree is swept again if no child's end wakes the keeper earlier; doubled up to the maximum.
const SWEEP_INTERVAL: Duration = Duration::from_millis(5);
const SWEEP_INTERVAL_MAX: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) enum CommandTree {
    Empty,
    /// The main process leads its own process group, which keeps its number when the process is gone.
    Alive {
        /// `None`: a background hook or its leftovers, without a program beside them.
        program: Option<Program>,
        main: MainProcess,
        group: i32,
        stop: Stop,
        /// The init of the program's PID namespace (tier `pidns`), until it has been reaped.
        init: Option<i32>,
        /// The time of SIGKILL: a hook's time-out.
        until: Time,
    },
}

impl CommandTree {
    pub(super) fn is_empty(&self) -> bool {
        matches!(self, CommandTree::Empty)
    }

    pub(super) fn main_pid(&self) -> Option<i32> {
        match self {
            CommandTree::Alive { main, .. } => main.pid(),
            CommandTree::Empty => None,
        }
    }

    /// Whether the deadline of a term governs it (K1).
    pub(super) fn is_governed(&self) -> bool {
        match self {
            CommandTree::Alive { program, .. } => program.and_then(Program::deadline_term).is_some(),
            CommandTree::Empty => false,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MainProcess {
    /// Forked; the result of exec is still open.
    Starting(i32),
    Running(i32),
    /// Exec failed, and the failure has been reported; the child, until it has been reaped (K5).
    Refused(Option<i32>),
    /// The main process's end has been reported; descendants may live (K10).
    Ended,
    /// A run without a command: the tree exists until it is stopped, even if no process is in it.
    Nothing,
}

impl MainProcess {
    pub(super) fn pid(self) -> Option<i32> {
        match self {
            MainProcess::Starting(pid) | MainProcess::Running(pid) => Some(pid),
            MainProcess::Refused(child) => child,
            MainProcess::Ended | MainProcess::Nothing => None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    NotRequested,
    /// The stop signal was sent; SIGKILL follows.
    Terminating {
        kill_at: Time,
        signalled: Signalled,
    },
    /// SIGKILL was sent, and is sent again until the tree is empty.
    Killing {
        retry_at: Time,
        backoff: Duration,
        cause: KillCause,
    },
}

/// The processes that have got the stop signal. Each gets it once: some programs treat a second one as "at once".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signalled {
    /// The main process and that of a background hook (`--stop-to main`). The others get it at this time, or when the
    /// main process ends.
    MainProcesses { rest_at: Time },
    /// Their groups (`--stop-to group`), of which the hook's keeps its number when its main process has ended. The
    /// others get it when the main process ends.
    Groups { hook: Option<i32> },
    /// Every process.
    All,
}

/// The reason for the SIGKILL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KillCause {
    /// The time after the stop signal is over.
    StopTimeout,
    /// Another one, which the campaigner knows: a deadline, a hook's time-out, an order.
    Other,
}

impl Stop {
    /// The state after another stop request: the kill time only moves to an earlier time, and a kill that has begun is
    /// never turned back into a stop (K1).
    pub(super) fn with_kill_at(self, now: Time, kill_at: Time, signalled: Signalled) -> Stop {
        match self {
            Stop::NotRequested => Stop::Terminating { kill_at, signalled },
            Stop::Terminating { kill_at: before, signalled } if kill_at < before => {
                Stop::Terminating { kill_at, signalled: signalled.within(now, kill_at) }
            }
            Stop::Terminating { .. } | Stop::Killing { .. } => self,
        }
    }

    /// The time at which the rest of the tree gets the stop signal.
    pub(super) fn rest_at(self) -> Time {
        match self {
            Stop::Terminating { signalled: Signalled::MainProcesses { rest_at }, .. } => rest_at,
            Stop::NotRequested
            | Stop::Terminating { signalled: Signalled::Groups { .. } | Signalled::All, .. }
            | Stop::Killing { .. } => Time::NEVER,
        }
    }
}

impl Signalled {
    /// The beginning of a stop of which the main process learns first.
    pub(super) fn main_processes(now: Time, kill_at: Time) -> Signalled {
        let left = (kill_at.since(now) / 4).min(REST_TIME_MAX);
        Signalled::MainProcesses { rest_at: kill_at - left }
    }

    /// The same, once less time is left.
    fn within(self, now: Time, kill_at: Time) -> Signalled {
        match self {
            Signalled::MainProcesses { .. } => Signalled::main_processes(now, kill_at),
            Signalled::Groups { .. } | Signalled::All => self,
        }
    }
}

/// The rest of the tree gets the stop signal when a quarter of the time is left, and at most so much.
const REST_TIME_MAX: Duration = Duration::from_secs(2);

/// After a sweep that left nothing to kill, so many times its duration pass before the next: thousands of processes need
/// the processor to end, and a sweep over all of them, with priority, takes it from them.
const COMPLETE_SWEEP_PAUSE: u32 = 4;
const COMPLETE_SWEEP_PAUSE_MAX: Duration = Duration::from_secs(1);

/// The pause after a sweep of this duration that left nothing to kill.
pub(super) fn complete_sweep_pause(took: Duration) -> Duration {
    took.saturating_mul(COMPLETE_SWEEP_PAUSE).min(COMPLETE_SWEEP_PAUSE_MAX)
}

/// The backoff after another SIGKILL.
pub(super) fn next_backoff(before: Option<Duration>) -> Duration {
    before.map_or(SWEEP_INTERVAL, |backoff| (backoff * 2).min(SWEEP_INTERVAL_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Time = Time::from_nanos(1_000);
    const LATER: Time = Time::from_nanos(2_000);

    #[test]
    fn a_kill_that_has_begun_is_never_turned_back_into_a_stop() {
        let killing = Stop::Killing { retry_at: SOON, backoff: SWEEP_INTERVAL, cause: KillCause::Other };
        for kill_at in [Time::BOOT, SOON, LATER, Time::NEVER] {
            assert_eq!(killing.with_kill_at(Time::BOOT, kill_at, Signalled::All), killing);
        }
    }

    #[test]
    fn a_kill_that_is_due_is_not_put_off_by_another_stop() {
        let signalled = Signalled::Groups { hook: None };
        let asked = Stop::NotRequested.with_kill_at(Time::BOOT, SOON, signalled);
        assert_eq!(asked, Stop::Terminating { kill_at: SOON, signalled });
        assert_eq!(asked.with_kill_at(Time::BOOT, LATER, signalled), Stop::Terminating { kill_at: SOON, signalled });
        let sooner = asked.with_kill_at(Time::BOOT, Time::BOOT, signalled);
        assert_eq!(sooner, Stop::Terminating { kill_at: Time::BOOT, signalled });
    }

    #[test]
    fn the_rest_gets_the_signal_when_a_quarter_of_the_time_is_left_and_at_most_two_seconds() {
        let at = |millis: u64| Time::BOOT + Duration::from_millis(millis);
        for (now, kill_at, rest_at) in [(0, 8_000, 6_000), (0, 4_000, 3_000), (100, 500, 400), (0, 60_000, 58_000)] {
            let asked =
                Stop::NotRequested.with_kill_at(at(now), at(kill_at), Signalled::main_processes(at(now), at(kill_at)));
            assert_eq!(asked.rest_at(), at(rest_at));
        }
        let asked = Stop::NotRequested.with_kill_at(at(0), at(8_000), Signalled::main_processes(at(0), at(8_000)));
        assert_eq!(asked.with_kill_at(at(1_000), at(2_000), Signalled::All).rest_at(), at(1_750), "less time is left");
        assert_eq!(asked.with_kill_at(at(1_000), at(9_000), Signalled::All).rest_at(), at(6_000));
    }
}
