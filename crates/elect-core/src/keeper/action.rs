//! Everything that a keeper wants done.

use crate::{BackgroundHook, Program, Signal, Time};

/// A system call, or a few of them, that the keeper's shell performs at once, in the order of the actions. The actions
/// that have a result say which event brings it; that event is handled before any other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeeperAction {
    /// Fork and execute a program. The child compares `kill_by` with the clock immediately before exec (K5). The result
    /// is [`KeeperEvent::Spawned`](crate::KeeperEvent::Spawned) or
    /// [`KeeperEvent::NotSpawned`](crate::KeeperEvent::NotSpawned), later
    /// [`KeeperEvent::Executed`](crate::KeeperEvent::Executed) or
    /// [`KeeperEvent::NotExecuted`](crate::KeeperEvent::NotExecuted).
    Spawn {
        /// The program.
        program: Program,
        /// The deadline that governs it.
        kill_by: Time,
        /// Whether it inherits the lock of the file store (K9).
        holds_lock: bool,
        /// The environment variables that it gets.
        identity: IdentitySource,
    },
    /// Fork and execute a background hook; the result is [`KeeperEvent::Spawned`](crate::KeeperEvent::Spawned) or
    /// [`KeeperEvent::NotSpawned`](crate::KeeperEvent::NotSpawned).
    SpawnHook(BackgroundHook),
    /// Fork and execute the health check, outside the command's PID namespace and without the lock (H5); the result is
    /// [`KeeperEvent::Spawned`](crate::KeeperEvent::Spawned) or
    /// [`KeeperEvent::NotSpawned`](crate::KeeperEvent::NotSpawned), later
    /// [`KeeperEvent::CheckEnds`](crate::KeeperEvent::CheckEnds).
    SpawnCheck,
    /// Keep the environment variables of the order for the hook after the term.
    KeepIdentity,
    /// Signal the process group that a main process leads, and the process itself if it has moved to another group.
    SignalGroup {
        /// The main process.
        main: i32,
        /// The signal.
        signal: Signal,
    },
    /// SIGCONT in the same way: a stopped process handles no other signal but SIGKILL.
    ContinueGroup {
        /// The main process.
        main: i32,
    },
    /// Signal a single process.
    SignalProcess {
        /// The process.
        pid: i32,
        /// The signal.
        signal: Signal,
    },
    /// Signal every descendant, then continue it (SIGCONT), except the members of these groups.
    SignalDescendants {
        /// The signal.
        signal: Signal,
        /// Which of them.
        recipients: Recipients,
    },
    /// Name the descendants that live, without these and their descendants; the result is
    /// [`KeeperEvent::DescendantsListed`](crate::KeeperEvent::DescendantsListed).
    ListDescendants {
        /// The main processes of a background hook and of a health check.
        except: [Option<i32>; 2],
    },
    /// SIGKILL to every descendant and to every process of the cgroups; the result is
    /// [`KeeperEvent::TreeKilled`](crate::KeeperEvent::TreeKilled). The shell reports its progress to the campaigner
    /// meanwhile, without waiting, and the end of a complete sweep
    /// ([`FromKeeper::AllKilled`](crate::FromKeeper::AllKilled)) (K4).
    KillTree {
        /// The main process, whose group is killed first.
        main: Option<i32>,
        /// Whether the result names the processes that were killed.
        lists: bool,
    },
    /// SIGKILL to the main process of a background hook, its group and its descendants.
    KillHook {
        /// The main process.
        main: i32,
    },
    /// SIGKILL to every descendant and to every process of the command's cgroup, while no program runs. Only progress
    /// is reported: a program may be started at any time, and the keeper's silence counts as ever.
    KillLeftovers {
        /// The main process of a health check that goes on, with its descendants.
        except: Option<i32>,
    },
    /// SIGKILL to the main process of the health check, its group and its descendants.
    KillCheck {
        /// The main process, which has not been reaped.
        main: i32,
        /// Whether every other process in the check's cgroup is killed too, if there is one: when the main process has
        /// ended. `cgroup.kill` may have to wait.
        kills_cgroup: bool,
    },
    /// SIGKILL to the init of a PID namespace, and so to every process inside.
    KillInit {
        /// The init.
        init: i32,
    },
    /// Tell the init of a PID namespace to exit once no process is left inside.
    DismissInit {
        /// The init.
        init: i32,
    },
    /// Take real-time priority.
    ScheduleFirst,
    /// Return to the priority that elect was started with.
    ScheduleAsBefore,
    /// The main process was stopped: take the terminal from its group or give it to it, whichever the terminal's state
    /// demands; a result is [`KeeperEvent::TerminalChanged`](crate::KeeperEvent::TerminalChanged).
    HandleTerminalStop {
        /// The command's group.
        group: i32,
        /// The signal that has stopped it.
        signal: Signal,
    },
    /// Give the terminal to a command that waits for it, if elect's job is in the foreground by now.
    PollForeground {
        /// The command's group.
        group: i32,
    },
    /// Continue the program with elect's job.
    ResumeTerminal {
        /// Its group.
        group: i32,
        /// Whether it may use the terminal.
        may_read: bool,
    },
    /// Take the terminal back from the command, whose main process has ended.
    TakeTerminalBack {
        /// The command's group.
        group: i32,
        /// Whether a signal ended it, so that the terminal's modes have to be restored.
        with_modes: bool,
        /// The event to return if the command's tree had the terminal:
        /// [`TerminalEvent::Interrupted`](crate::TerminalEvent::Interrupted) by this signal.
        interrupted_by: Option<Signal>,
    },
    /// Leave the loop; no further action follows.
    Exit {
        /// Whether the claim has to be released (K2).
        releases: bool,
    },
}

/// The descendants that a signal is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recipients {
    /// Every one.
    All,
    /// Every one but these processes.
    AllExcept([Option<i32>; 2]),
    /// Every one but this process and its descendants.
    Beside(i32),
    /// Every one but the members of these groups.
    OutsideGroups([Option<i32>; 2]),
}

/// The order whose environment variables a program gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdentitySource {
    /// The present order's.
    Order,
    /// Those that were kept ([`KeeperAction::KeepIdentity`]).
    Kept,
}
