//! What goes into the election and what comes out of it.

use std::time::Duration;

use super::time::Time;
use super::timing::TimingError;

/// The fencing token: strictly increasing from leader to leader of a boundary. Opaque, not consecutive.
pub type Term = u64;

/// The number of one start of the command, counted over the whole life of the candidate. What the keeper says of an
/// earlier run must not be taken for the present one: "empty" above all.
pub type RunId = u64;

/// The number of one request to the store; a reply that carries another one changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attempt(pub u64);

/// A signal by its number, as the kernel counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signal(pub i32);

/// One leader and what is known of it, as a number: another whenever any of it changes. Whoever calls knows what it
/// stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaderKey(pub u64);

/// What the keeper is to start: one at a time.
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
    /// What runs while another leads. No deadline governs it.
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

/// The hooks that run beside whatever else does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackgroundHook {
    /// Another leader, or none.
    OnChange,
    /// The store is in trouble.
    OnError,
}

/// A hook, by the name of its flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// `--on-elected`
    OnElected,
    /// `--on-ousted`
    OnOusted,
    /// `--on-change` or `--on-error`
    BackgroundHook(BackgroundHook),
}

/// What went wrong with a hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookFailure {
    /// Its main process ended like this.
    Ended(CommandEnd),
    /// It could not be started.
    CannotStart(i32),
    /// It was killed for taking too long.
    TimedOut,
    /// The keeper, which would have run it, is dead.
    NoKeeper,
}

/// What became of a hook that runs beside the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackgroundHookEnd {
    /// Its main process ended like this.
    Ended(CommandEnd),
    /// Fork failed with this `errno`.
    Failed(i32),
    /// It was not started, because something is being stopped just now.
    NotNow,
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
        /// Whether it was elect that had run out of patience (exit status 137).
        escalated: bool,
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

/// The store's answer to [`Action::Campaign`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Campaigned {
    /// We hold the boundary. Nothing may run before a renewal has been credited: that is the verification.
    Won(Term),
    /// Somebody else does, or nobody may yet.
    Waiting {
        /// Ask again after this long even if nothing seems to change; `None`: after a renewal interval.
        again: Option<Duration>,
        /// Whether that is settled for now. If not, there may be nobody: a store that has to be observed tells the living
        /// from the dead by the next renewal only, and takes from the dead what has stood for long enough.
        decided: bool,
    },
    /// The store will not have us (permission, authentication, a newer record format).
    Refused,
    /// No answer, or none that tells anything.
    Failed,
}

/// The store's answer to [`Action::Renew`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewed {
    /// The lease is ours, counted from when the credited request was sent (T1).
    Credited {
        /// When it was sent, on our boot clock.
        sent: Time,
        /// What the store granted; `None` where leadership has no end.
        ttl: Option<Duration>,
    },
    /// The boundary is ours to lead, but not under the term of the win: the store keeps a newer one. The boundary is asked for
    /// again. Only a win that has not been verified is answered in this way, and it is no loss.
    Outdated,
    /// The store says that it is not ours (K11).
    Lost,
    /// No answer, or none that tells anything.
    Failed,
}

/// A reply of the store, by the request it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// To [`Action::Campaign`].
    Campaign(Campaigned),
    /// To [`Action::Renew`].
    Renew(Renewed),
    /// To [`Action::Release`]: whether the store confirmed that our claim is gone.
    Release(bool),
}

/// What the keeper says of what it was told to start.
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
    /// Many are being killed, and so many have been since the last word: as good as an answer to a ping, and the next one is
    /// due soon (K4).
    Progress,
    /// The main process runs.
    Started {
        /// Of this start.
        run: RunId,
        /// Its process id.
        pid: i32,
    },
    /// There is no command to run: the term counts as begun, and lasts until somebody asks for its end.
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
    /// Nothing is left of a start that was refused; a hook that runs beside it may go on (K5). Less than [`FromKeeper::Empty`].
    Cleared {
        /// Of this start.
        run: RunId,
    },
    /// What a person at the terminal has done to the command: nothing that an election is about.
    Terminal(TerminalEvent),
    /// The hook that ran beside the rest does so no more.
    BackgroundHookEnded(BackgroundHookEnd),
}

/// What has happened to the command at the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TerminalEvent {
    /// This signal has stopped it while it had the terminal, which is back: the shell's job is to stop with it.
    Suspended(Signal),
    /// This signal has stopped it and nobody else.
    Stopped(Signal),
    /// This signal has ended it while it had the terminal; follows its [`FromKeeper::Exited`].
    Interrupted(Signal),
}

/// What can happen to a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Time has passed; also the first event of all.
    Tick,
    /// The store has answered.
    Answer {
        /// Which request.
        attempt: Attempt,
        /// What.
        answer: Answer,
    },
    /// Something changed at the store: worth asking again, and nothing more.
    Hint,
    /// The store saw our claim vanish: as final as an answer that says so (K11).
    Ousted {
        /// The term that was ours.
        term: Term,
    },
    /// The store has shown a leader of this term, or of one that was before: ours has to be above it (S1).
    TermSeen(Term),
    /// Who leads, as far as a waiter is told; `None`: nobody.
    LeaderObserved(Option<LeaderKey>),
    /// Something has happened that this hook is for.
    HookDue(BackgroundHook),
    /// The keeper has spoken.
    Keeper(FromKeeper),
    /// The keeper has died: said once.
    KeeperDied,
    /// A sweep over the tree that a dead keeper left us has been made.
    Swept {
        /// Whether no descendant is left.
        empty: bool,
    },
    /// Somebody asks us to stop; the second time they mean at once.
    Stop(Signal),
    /// A signal for the main process.
    Forward(Signal),
    /// Somebody wants to know whether we lead now.
    ConfirmLeadership {
        /// A number of its own.
        request_id: RequestId,
        /// If they care for one term alone.
        term: Option<Term>,
    },
    /// Somebody wants another one to lead.
    Resign(RequestId),
}

/// The number of one wish that somebody on this host has; its answer carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Why a wish did not come true.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestError {
    /// We do not lead, or not in that term.
    NotLeading,
    /// We are about to stop leading anyway.
    Stopping,
    /// We have stopped, and the store did not confirm that the boundary is free.
    NotReleased,
}

/// What a hook is started beside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookContext {
    /// A run that is alive, and that it belongs to.
    WithRun(RunId),
    /// Nothing.
    Alone,
}

/// What a candidate wants done. None of it is waited for: what comes of it is an [`Event`].
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
    /// Start a hook beside whatever runs. Its end is waited for before the next one.
    StartBackgroundHook {
        /// Which.
        background_hook: BackgroundHook,
        /// The run that the hook belongs to. The keeper knows better: what has ended meanwhile must not find a hook started in its place.
        beside: HookContext,
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
    /// A wish has come true.
    Grant {
        /// Whose.
        request_id: RequestId,
        /// The term that is led in; `None`: it was about leading no longer.
        term: Option<Term>,
        /// When the term is over unless another renewal is credited; [`Time::NEVER`] where leadership has no end.
        until: Time,
    },
    /// A wish has not come true.
    Deny {
        /// Whose.
        request_id: RequestId,
        /// Why not.
        why: RequestError,
    },
    /// Tell people.
    Notice(Notice),
    /// The boundary is not kept any longer for the sake of a hold: tell the keeper, which keeps it if we die (K2).
    EndHold,
    /// It is over.
    End(Outcome),
}

/// What people want to read about an election: each transition once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The store says we won; to be verified.
    Won {
        /// The new term.
        term: Term,
    },
    /// The store says we won, under a term that is not above every term seen: the boundary is given back (S1).
    TermTooLow {
        /// The term that the store gave.
        term: Term,
        /// The highest one seen before.
        seen: Term,
    },
    /// Verified: we lead.
    Elected {
        /// The new term.
        term: Term,
    },
    /// The leader command runs.
    Started {
        /// In this term.
        term: Term,
        /// Its process id.
        pid: i32,
    },
    /// Its main process has ended.
    CommandEnded {
        /// In this term.
        term: Term,
        /// How.
        end: CommandEnd,
    },
    /// The command is being stopped.
    Stopping {
        /// In this term.
        term: Term,
        /// Why.
        reason: Reason,
    },
    /// The command has ended, and is started again.
    Restarting {
        /// In this term.
        term: Term,
        /// After this long.
        delay: Duration,
    },
    /// The command has ended for good, and the boundary is kept all the same.
    LeadingIdle {
        /// In this term.
        term: Term,
        /// For so long.
        left: Duration,
    },
    /// The term is over, and nothing was running in it.
    LostAtRest {
        /// The term.
        term: Term,
        /// Why: the lease ran out, or the store says that it is not ours.
        reason: Reason,
    },
    /// The command has ended too often: the boundary is given up.
    GivenUp {
        /// The term.
        term: Term,
        /// How long the candidate sits out; `None`: it ends.
        sits_out: Option<Duration>,
    },
    /// The hook that decides whether we lead has said no: the boundary is given up.
    NotAccepted {
        /// The term.
        term: Term,
        /// How long the candidate sits out; `None`: it ends.
        sits_out: Option<Duration>,
    },
    /// A hook failed.
    HookFailed {
        /// Which.
        hook: Hook,
        /// How.
        failure: HookFailure,
    },
    /// It has sat out.
    CampaignsAgain,
    /// The follower runs.
    FollowerStarted {
        /// Its process id.
        pid: i32,
    },
    /// Its main process has ended.
    FollowerEnded {
        /// How.
        end: CommandEnd,
    },
    /// It could not be started.
    FollowerCannotStart(NotStarted),
    /// It is being stopped.
    FollowerStopping {
        /// For another leader; otherwise because we do not follow any longer.
        for_another: bool,
    },
    /// It is killed, and still not confirmed dead: nothing else starts here.
    FollowerUnconfirmed,
    /// Killed, and still not confirmed dead: nothing is released, nothing else starts (2.3).
    Unconfirmed {
        /// In this term.
        term: Term,
    },
    /// The boundary was released.
    Released {
        /// After this term.
        term: Term,
    },
    /// It could not be: the lease has to run out by itself.
    NotReleased {
        /// After this term.
        term: Term,
    },
    /// A lease too short to be used was granted.
    Unusable(TimingError),
    /// The campaign limit is reached: somebody else leads, or nobody may yet.
    NotElected,
    /// The campaign limit is reached, and the store did not answer the last time.
    Unavailable,
    /// The keeper did not answer and is being killed.
    KeeperSilent,
    /// The keeper is dead.
    KeeperDied,
}

/// Why a command is being stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Its main process ended; what remains of the tree follows.
    CommandEnded,
    /// It could not be started.
    CannotStart(i32),
    /// Somebody asked.
    Asked(Signal),
    /// Somebody asked, and we are to stand again behind the others.
    Resigned,
    /// The hook before it failed.
    NotAccepted,
    /// The lease could not be renewed in time.
    RunningOut,
    /// The store says that the lease is not ours.
    Lost,
    /// The keeper died.
    KeeperDied,
}

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
    /// The campaign limit is reached: somebody else leads, or nobody may yet.
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
