//! The inputs of a candidate: events from the driver, and the same sorted by origin for the states.

use std::time::Duration;

use crate::{
    Attempt, BackgroundHook, CheckNumber, CommandEnd, LeaderKey, ProcessList, RequestId, RunId, Signal, Term, Time,
};

/// An event that a candidate handles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Time has passed; also the first event of all.
    Tick,
    /// The store has answered a request.
    Answer {
        /// The request that it answers.
        attempt: Attempt,
        /// The reply.
        answer: Answer,
    },
    /// Something may have changed at the store: a reason to ask earlier, and nothing more.
    Hint,
    /// The store has seen our claim vanish, which is as final as [`Renewed::Lost`] (K11).
    Ousted {
        /// The term that was ours.
        term: Term,
    },
    /// The store has shown a present or past leader of this term: our term has to be larger (S1).
    TermSeen(Term),
    /// The leader that a waiting candidate observed; `None`: there is none.
    LeaderObserved(Option<LeaderKey>),
    /// This background hook is due.
    HookDue(BackgroundHook),
    /// The keeper has sent a message.
    Keeper(FromKeeper),
    /// The keeper has died; reported once.
    KeeperDied,
    /// A sweep over the tree that a dead keeper has left is done.
    Swept {
        /// Whether no descendant is left.
        empty: bool,
    },
    /// A stop was asked for; a second one kills at once.
    Stop(Signal),
    /// A signal for the main process.
    Forward(Signal),
    /// A control request asks whether the candidate leads now.
    ConfirmLeadership {
        /// A number of its own.
        request_id: RequestId,
        /// The only term that counts, if the request names one.
        term: Option<Term>,
    },
    /// A control request asks the candidate to let another one lead.
    Resign(RequestId),
    /// A control request asks the candidate to leave the election until [`Event::Undrain`].
    Drain(RequestId),
    /// A control request ends a drain.
    Undrain(RequestId),
}

/// A reply of the store, by the request it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// To [`Action::Campaign`](crate::Action::Campaign).
    Campaign(Campaigned),
    /// To [`Action::Renew`](crate::Action::Renew).
    Renew(Renewed),
    /// To [`Action::Release`](crate::Action::Release): whether the store confirmed that our claim is gone.
    Release(bool),
    /// To [`Action::Observe`](crate::Action::Observe): whether the store answered.
    Observe(bool),
}

/// The store's answer to [`Action::Campaign`](crate::Action::Campaign).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Campaigned {
    /// The boundary is ours. Nothing may run before a renewal has been credited, which is the verification.
    Won(Term),
    /// Another candidate holds it, or none may hold it yet.
    Waiting {
        /// Ask again after this long even if nothing seems to change; `None`: after a renewal interval.
        again: Option<Duration>,
        /// Whether another candidate is known to lead. An observed store cannot know it at first: only the next renewal
        /// shows that the holder of the record is alive, and a record that stands still for long enough is taken.
        decided: bool,
    },
    /// The store refuses this candidate (permission, authentication, a newer record format).
    Refused,
    /// No answer, or none that tells anything.
    Failed,
    /// No answer yet: the store is there, and connecting to it takes more than one attempt (T6).
    Connecting,
}

/// The store's answer to [`Action::Renew`](crate::Action::Renew).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewed {
    /// The lease is ours, counted from when the credited request was sent (T1).
    Credited {
        /// When it was sent, on our boot clock.
        sent: Time,
        /// The ttl that the store granted; `None` where leadership has no end.
        ttl: Option<Duration>,
    },
    /// The boundary is ours to lead, but not under the term of the win: the store keeps a newer one. The boundary is
    /// asked for again. Only a win that has not been verified is answered in this way, and it is no loss.
    Outdated,
    /// The store says that it is not ours (K11).
    Lost,
    /// No answer, or none that tells anything.
    Failed,
}

/// A message of the keeper about the programs that it was told to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FromKeeper {
    /// The kill deadline is in force.
    Armed {
        /// For this term.
        term: Term,
        /// SIGKILL at this time.
        kill_by: Time,
    },
    /// The answer to a ping.
    Pong,
    /// A long kill goes on and has killed another batch: counts as the answer to a ping, and the next message is due
    /// soon (K4).
    Progress,
    /// Every process of the tree has got SIGKILL. What is left is to reap them, which no second process can hasten:
    /// the keeper may be silent for as long as without a deadline (K4).
    AllKilled,
    /// The main process runs.
    Started {
        /// Of this start.
        run: RunId,
        /// Its process id.
        pid: i32,
    },
    /// There is no command to run: the term counts as begun, and lasts until a stop is asked for.
    NoCommand {
        /// Of this start.
        run: RunId,
    },
    /// The main process does not run, and will not.
    NotStarted {
        /// Of this start.
        run: RunId,
        /// Why not.
        why: NotStarted,
    },
    /// The main process has ended; others of its tree may live.
    Exited {
        /// Of this start.
        run: RunId,
        /// How.
        end: CommandEnd,
    },
    /// The main process has ended by itself and has left these processes behind; they get the stop signal (K10).
    LeftBehind {
        /// Of this start.
        run: RunId,
        /// Which.
        processes: ProcessList,
    },
    /// These processes have got SIGKILL, because they had not ended when the time after the stop signal was over.
    StopTimedOut {
        /// Of this start.
        run: RunId,
        /// Which.
        processes: ProcessList,
    },
    /// The kill deadline has passed and the tree is being killed.
    Expired {
        /// Of this term.
        term: Term,
    },
    /// No descendant is left (K6).
    Empty {
        /// The last start that the keeper had heard of.
        run: RunId,
    },
    /// Nothing is left of a start that was refused; a hook that runs beside it may go on (K5). Less than
    /// [`FromKeeper::Empty`].
    Cleared {
        /// Of this start.
        run: RunId,
    },
    /// A terminal event of the command; the election ignores it.
    Terminal(TerminalEvent),
    /// The background hook has ended.
    BackgroundHookEnded(BackgroundHookEnd),
    /// A health check is over; reported once for each order (H3).
    CheckEnded {
        /// Its number.
        check: CheckNumber,
        /// How.
        end: CheckEnd,
    },
}

/// Why the keeper did not start the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotStarted {
    /// Fork or exec failed with this `errno`.
    Failed(i32),
    /// The deadline was too near, or past, just before exec (K5).
    TooLate,
}

/// The end of a background hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackgroundHookEnd {
    /// Its main process ended like this.
    Ended(CommandEnd),
    /// Fork failed with this `errno`.
    Failed(i32),
    /// It was not started, because something is being stopped just now.
    NotNow,
}

/// The end of a health check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckEnd {
    /// Its main process ended like this, by itself.
    Ended(CommandEnd),
    /// Its time-out is over, and SIGKILL was sent. Its processes may still exist.
    TimedOut,
    /// Fork or exec failed with this `errno`; `EBUSY`: an earlier check is left, and no second one is started beside it
    /// (H5).
    Failed(i32),
    /// There is no result: it was killed, or not started, because something is being stopped.
    Interrupted,
}

/// An event of the command at the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TerminalEvent {
    /// This signal has stopped it while it had the terminal, which is back: the shell's job is to stop with it.
    Suspended(Signal),
    /// This signal has stopped it, and no other process.
    Stopped(Signal),
    /// This signal has ended it while it had the terminal; follows its [`FromKeeper::Exited`].
    Interrupted(Signal),
}

/// One event that concerns the present state, in the group of its origin.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Input {
    /// Time has passed: deadlines and due times are compared with the present.
    Time,
    Store(StoreInput),
    Keeper(KeeperInput),
    Control(ControlInput),
}

/// An input from the store.
#[derive(Debug, Clone, Copy)]
pub(crate) enum StoreInput {
    /// The reply to the outstanding request, or a failure in its place.
    Answer(Answer),
    Hint,
    LeaderObserved(Option<LeaderKey>),
    Ousted,
}

/// An input from the keeper about the last start, or about the keeper itself.
#[derive(Debug, Clone, Copy)]
pub(crate) enum KeeperInput {
    Started(i32),
    NoCommand,
    NotStarted(NotStarted),
    Exited(CommandEnd),
    Expired,
    Empty,
    Cleared,
    Died,
    Swept { empty: bool },
}

/// An input from outside the program: a signal or a control request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ControlInput {
    Stop(Signal),
    Forward(Signal),
    ConfirmLeadership,
    Resign,
}
