//! The outputs of a candidate.

use crate::{Attempt, CheckNumber, Notice, Outcome, RequestId, RunId, Signal, Term, Time};

/// An action for the driver to perform. The candidate waits for none: the result comes back as an [`Event`](crate::Event).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Ask the store for the boundary.
    Campaign(Attempt),
    /// Renew the lease, which is also the check that it is ours.
    Renew(Attempt),
    /// Release the boundary, or the place in the queue. Requested only with an empty tree.
    Release(Attempt),
    /// Observe the leader, without taking part in the election.
    Observe(Attempt),
    /// Move the keeper's kill deadline.
    Arm {
        /// For the command of this term.
        term: Term,
        /// [`Time::NEVER`] where leadership has no end.
        kill_by: Time,
    },
    /// Start one of the programs. Requested only when the tree of the previous program is empty.
    Start {
        /// Which.
        program: Program,
        /// A number of its own.
        run: RunId,
    },
    /// Start a background hook. The next one is started after its end.
    StartBackgroundHook {
        /// Which.
        background_hook: BackgroundHook,
        /// The run that the hook belongs to. If that run has ended meanwhile, the keeper starts no hook in its place.
        hook_context: HookContext,
    },
    /// Start a health check (H3). Its end comes as [`FromKeeper::CheckEnded`](crate::FromKeeper::CheckEnded), once.
    StartCheck {
        /// A number of its own.
        check: CheckNumber,
    },
    /// The stop signal to the tree now, SIGKILL at the given time.
    Stop {
        /// Absolute; an earlier one already in force stays.
        kill_at: Time,
    },
    /// SIGKILL to the whole tree, by the keeper and by the campaigner as well.
    Kill,
    /// Pass a signal on to the main process.
    Forward(Signal),
    /// Ask the keeper for an answer, which proves that it is alive (K4): after an interval without a deadline to confirm.
    Ping,
    /// Kill the keeper, which has stopped answering (K4).
    KillKeeper,
    /// Kill and reap the processes that the dead keeper has left, and report whether any remains.
    Sweep,
    /// A control request has succeeded.
    Grant {
        /// The request.
        request_id: RequestId,
        /// The term of the leadership; `None` for a resignation.
        term: Option<Term>,
        /// The end of the term unless another renewal is credited; [`Time::NEVER`] where leadership has no end.
        until: Time,
    },
    /// A drain is complete: nothing of the candidate runs, and it holds nothing at the store.
    Drained {
        /// The request.
        request_id: RequestId,
        /// Whether the store confirmed that; otherwise the lease has run out.
        released: bool,
    },
    /// A control request has failed.
    Deny {
        /// The request.
        request_id: RequestId,
        /// The reason.
        why: RequestError,
    },
    /// Report a transition.
    Notice(Notice),
    /// `--min-hold` is over: tells the keeper, which would keep the boundary after our death (K2).
    EndHold,
    /// The candidacy has ended.
    End(Outcome),
}

/// A program that the keeper starts, one at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// The leader command, or nothing, if there is none.
    Command {
        /// In this term, which has been armed.
        term: Term,
    },
    /// `--on-elected`: before the command, and under the same deadline.
    OnElected {
        /// In this term, which has been armed.
        term: Term,
    },
    /// `--on-ousted`: after everything else in a term. It has no kill deadline, because the term may be over.
    OnOusted {
        /// After this term.
        term: Term,
    },
    /// The program that runs while another candidate leads. It has no kill deadline.
    Follower,
}

impl Program {
    /// The term whose kill deadline governs it, if one does (K1, K5).
    #[must_use]
    pub fn deadline_term(self) -> Option<Term> {
        match self {
            Program::Command { term } | Program::OnElected { term } => Some(term),
            Program::OnOusted { .. } | Program::Follower => None,
        }
    }
}

/// The context that a background hook is started in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookContext {
    /// Beside this run, to which it belongs.
    WithRun(RunId),
    /// Beside no other program.
    Alone,
}

/// The hooks that run beside the command or the follower.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackgroundHook {
    /// `--on-change`: another candidate leads, or none.
    OnChange,
    /// `--on-error`: requests to the store fail.
    OnError,
}

/// The reason why a control request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestError {
    /// We do not lead, or not in that term.
    NotLeading,
    /// We are about to stop leading anyway.
    Stopping,
    /// We have stopped, and the store did not confirm that the boundary is free.
    NotReleased,
    /// A later request has ended the drain.
    Undrained,
}
