//! Everything that can happen to a keeper.

use crate::{
    BackgroundHook, CheckNumber, HookContext, NotStarted, ProcessList, Program, RunId, Signal, Term, TerminalEvent,
    Time,
};

/// An observation of the keeper's shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeeperEvent {
    /// A round begins: deadlines are compared with the present.
    RoundBegins,
    /// The campaigner has sent an order.
    Order(KeeperOrder),
    /// End of file: the campaigner is gone (K2).
    CampaignerGone,
    /// The answer to [`KeeperAction::Spawn`](crate::KeeperAction::Spawn),
    /// [`KeeperAction::SpawnHook`](crate::KeeperAction::SpawnHook) and
    /// [`KeeperAction::SpawnCheck`](crate::KeeperAction::SpawnCheck): a child exists, and will execute the program.
    Spawned {
        /// Its process id; it leads a process group of this number.
        pid: i32,
        /// The init of its PID namespace (tier `pidns`).
        init: Option<i32>,
    },
    /// The other answer to them: no child exists.
    NotSpawned {
        /// The kernel's reason.
        errno: i32,
    },
    /// The child that was spawned last as a program has executed it.
    Executed,
    /// That child has not executed the program, and ends by itself.
    NotExecuted(NotStarted),
    /// The main process of the health check has ended and has not been reaped: its process id, and the number of its
    /// group, are still its own.
    CheckEnds {
        /// The reason why it has not executed the check, if it has not.
        not_executed: Option<i32>,
    },
    /// A child has ended and was reaped: its process id may be reused from now on.
    ChildEnded {
        /// Its process id.
        pid: i32,
        /// The way it ended.
        end: ChildEnd,
    },
    /// No child is left, and so no descendant (K6).
    NoChildren {
        /// Whether a process is left in the cgroup of the command; `false` without a cgroup.
        is_cgroup_populated: bool,
    },
    /// No descendant lives but the main process of a health check, which SIGKILL does not end
    /// ([`KeeperMachine::stuck_check`](crate::KeeperMachine::stuck_check), H5).
    OnlyCheckLeft {
        /// Whether a process is left in the cgroup of the command; `false` without a cgroup.
        is_cgroup_populated: bool,
    },
    /// The answer to [`KeeperAction::KillTree`](crate::KeeperAction::KillTree).
    TreeKilled {
        /// Whether each process that was found is dying: only reaping is left.
        is_complete: bool,
        /// The processes that were killed, if the action asked for them; otherwise none.
        processes: ProcessList,
    },
    /// The answer to [`KeeperAction::ListDescendants`](crate::KeeperAction::ListDescendants).
    DescendantsListed(ProcessList),
    /// The main process of the command was looked at.
    TerminalChecked {
        /// The signal that has stopped it since the last look.
        stopped_by: Option<Signal>,
    },
    /// The terminal was given to the command or taken from it, and the campaigner has to know.
    TerminalChanged(TerminalEvent),
    /// The socket has taken the first message of the outbox.
    MessageSent,
    /// The campaigner's end of the socket is closed: no message of the outbox can be sent any more.
    ConnectionClosed,
    /// A round ends, after which the shell waits for the next event.
    RoundEnds,
}

/// An order of the campaigner, without the data that only the shell needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeeperOrder {
    /// Opens a term with its deadline, or moves the deadline of the present one forward (K1).
    Arm {
        /// The term of the deadline.
        term: Term,
        /// The time of SIGKILL.
        kill_by: Time,
    },
    /// Starts a program; the tree must be empty.
    Start {
        /// The program.
        program: Program,
        /// The number of this run.
        run: RunId,
    },
    /// Starts a background hook in the given context and in no other.
    StartBackgroundHook {
        /// The hook.
        background_hook: BackgroundHook,
        /// The expected context.
        context: HookContext,
    },
    /// Starts a health check beside whatever runs, or alone.
    StartCheck {
        /// Its number.
        check: CheckNumber,
    },
    /// Sends the stop signal now, SIGKILL at the given time.
    Stop {
        /// The time of SIGKILL.
        kill_at: Time,
    },
    /// SIGKILL now.
    Kill,
    /// A signal for the main process.
    Forward(Signal),
    /// Requests a [`FromKeeper::Pong`](crate::FromKeeper::Pong).
    Ping,
    /// The job that elect belongs to has been continued.
    Resume,
    /// Ends a hold that still runs.
    EndHold,
    /// The campaigner exits in an orderly way: no claim is left to release.
    Dismiss,
}

/// The end of a child, as the kernel reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChildEnd {
    /// It exited with this status.
    Exited(u8),
    /// This signal ended it.
    Killed(Signal),
}
