//! Everything that a candidate wants done.

use crate::{Attempt, Notice, Outcome, RequestId, RunId, Signal, Term, Time};

/// An action that a candidate wants done. No action is waited for: its result is an [`Event`](crate::Event).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Ask the store for the boundary.
    Campaign(Attempt),
    /// Renew the lease, which is also the check that it is ours.
    Renew(Attempt),
    /// Give the boundary, or our place in the queue, back. Only ever asked for when the tree is empty.
    Release(Attempt),
    /// Move the keeper's kill deadline.
    Arm {
        /// For the command of this term.
        term: Term,
        /// [`Time::NEVER`] where leadership has no end.
        kill_by: Time,
    },
    /// Start one of the programs. Only ever asked for when the tree of the one before is empty.
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
        /// The run that the hook belongs to. The keeper knows better: what has ended meanwhile must not find a hook
        /// started in its place.
        hook_context: HookContext,
    },
    /// The stop signal to the tree now, SIGKILL at the given time.
    Stop {
        /// Absolute; an earlier one already in force stays.
        kill_at: Time,
    },
    /// SIGKILL to the whole tree: ask the keeper to, and do it ourselves as well.
    Kill,
    /// Pass a signal on to the main process.
    Forward(Signal),
    /// Ask the keeper for a sign of life.
    Ping,
    /// Kill the keeper, which has stopped answering (K4).
    KillKeeper,
    /// Kill and reap what the dead keeper left us, and say whether anything remains.
    Sweep,
    /// A control request has succeeded.
    Grant {
        /// The request.
        request_id: RequestId,
        /// The term that is led in; `None`: it was about leading no longer.
        term: Option<Term>,
        /// The end of the term unless another renewal is credited; [`Time::NEVER`] where leadership has no end.
        until: Time,
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
    /// The boundary is not kept any longer for the sake of a hold: tell the keeper, which keeps it if we die (K2).
    EndHold,
    /// It is over.
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
    /// The hook of that name: before the command, and under the same deadline.
    OnElected {
        /// In this term, which has been armed.
        term: Term,
    },
    /// The hook of that name: after everything else in a term. No deadline governs it, for the term may be over.
    OnOusted {
        /// After this term.
        term: Term,
    },
    /// The program that runs while another candidate leads. No deadline governs it.
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
    /// A run that is alive, and that it belongs to.
    WithRun(RunId),
    /// Nothing.
    Alone,
}

/// The hooks that run beside whatever else does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackgroundHook {
    /// Another leader, or none.
    OnChange,
    /// The store is in trouble.
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
}
