//! The situations that the histories contain: a fault that never occurred has proved nothing.

use std::fmt;

macro_rules! seen {
    ($($name:ident $text:literal)*) => {
        /// Something worth counting.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Seen { $($name),* }

        impl Seen {
            pub(super) const ALL: &[(Seen, &str)] = &[$((Seen::$name, $text)),*];
        }
    };
}

seen! {
    Elected "elected"
    Started "command started"
    Credited "renewal credited"
    LateSuccess "renewal credited after stop_by"
    LateReply "reply to a request given up"
    LostRequest "request lost"
    LostReply "reply lost"
    Unreachable "store unreachable"
    DoubledRequest "request doubled"
    DoubledReply "reply doubled"
    RequestOvertaken "request overtaken by a later one"
    HintLost "hint lost"
    Hinted "hint delivered"
    Ousted "own key seen to vanish"
    FailedButKept "renewal failed, lease kept"
    RanOut "lease ran out"
    Lost "told that the lease is lost"
    Regained "lease regained by the same candidate"
    TakenWhileStopping "elected while another was stopping"
    ElectedBesideSleeper "elected while a stopped campaigner thinks it leads"
    LeaseExpired "lease expired at the store"
    Outdated "won, and another term was kept before it was verified"
    Conflict "take refused: the record had changed"
    GaveBack "found own record of a term that is over"
    FoundOwnTake "unanswered take found by its nonce"
    RecordLost "record lost by a restart"
    RecordRolledBack "record rolled back by a restart"
    RecordFlushed "record deleted from a store that went on"
    RecordKept "store restarted, record kept"
    Promoted "standby promoted while the old primary went on"
    Doubtful "write executed that no standby confirmed"
    GrantedLonger "longer lease granted than asked for"
    CampaignerKilled "campaigner killed"
    CampaignerStopped "campaigner stopped"
    SleptPastDeadline "campaigner stopped past its deadline"
    KeeperKilled "keeper killed"
    KeeperStopped "keeper stopped"
    CampaignerKilledBetweenSteps "campaigner killed between two of its actions"
    CampaignerStoppedBetweenSteps "campaigner stopped between two of its actions"
    KeeperKilledBetweenSteps "keeper killed between two of its steps"
    KeeperStoppedBetweenSteps "keeper stopped between two of its steps"
    SocketFullToKeeper "message to the keeper that found no room"
    SocketFullToCampaigner "message of the keeper that found no room"
    ForkedDuringSweep "process forked during a sweep, and not found by it"
    KillRefused "SIGKILL refused, because the process had changed its user"
    KilledByCgroup "process of another user killed by its cgroup"
    LeafPopulated "cgroup populated after the last descendant's end"
    KeeperReleaseKilled "release by the keeper killed before it was sent"
    PreexistingChild "candidate with a child that it inherited"
    PreexistingChildSpared "child that was inherited spared by a sweep"
    KeeperDiedBeforeList "keeper dead when the list of inherited children was read"
    Suspended "command suspended by the terminal"
    RestSignalled "stop signal to the rest of a tree whose main process lives"
    LeftBehind "process left behind by a main process"
    StopTimedOut "tree killed at the end of the stop time-out"
    CrowdKilled "keeper busy with killing a crowd"
    ProgressDropped "progress of the keeper dropped for want of room"
    ForwardedEarly "signal forwarded before exec"
    KeeperNotDismissed "keeper did not end when dismissed, and was killed"
    KeeperContinued "keeper stopped and continued in time"
    KeeperSilent "keeper silent and killed"
    BothKilled "campaigner and keeper killed, lock kept by the tree"
    Swept "swept until empty"
    SweptInVain "sweep found survivors"
    KeeperExpired "killed by the keeper's own deadline"
    KeeperReleased "released by the keeper"
    TooLate "start too late"
    TooLateAtExec "start found to be too late by the child, immediately before exec"
    Cleared "nothing left of a start that was refused beside a hook"
    StartedAfterAll "started after having been too late"
    CannotStart "command cannot be started"
    EndedItself "command ended by itself"
    LeftDescendants "main process ended before its descendants"
    Escalated "stubborn command killed"
    Unconfirmed "killed tree not confirmed dead"
    StopAsked "stop asked"
    StopTwice "stop asked twice"
    Released "released"
    NotReleased "release given up"
    ReleaseLost "release lost on the way"
    StrayArm "stray deadline ignored by the keeper"
    Joined "a candidate joined later"
    NotElectedAtOnce "not elected, and not waited for"
    NotElectedAfterAll "not elected, and at first not settled"
    ElectedAfterAll "elected by the only question, at first not settled"
    NotElectedInTime "not elected in time"
    ElectedInTime "elected after a wait that has an end"
    VerifiedLate "wait limit passed while a win was verified"
    WonInVain "gave up after a win that came to nothing"
    Unavailable "gave up on a store that does not answer"
    LeadershipLost "ended with its leadership"
    Restarted "command started again"
    LostBetweenRuns "lease lost between two runs"
    LostBeforeRestart "lease lost before a restart, the old tree still alive"
    LimitReached "restarted too often"
    LimitEnds "restarted too often, and the end of it"
    SatOut "stood again after sitting out"
    SatOutLonger "sat out for longer than the last time"
    ElectedBesideSitter "elected while another was sitting out"
    StoppedBetweenRuns "stopped between two runs"
    StoppedUnhealthy "command stopped because the check failed"
    StoppedDrained "command stopped by a drain"
    Drained "drained, and the release confirmed"
    DrainedByExpiry "drained, and the lease run out"
    DrainDenied "drain ended by a later request, or by the end of the candidacy"
    CheckGivenUp "check without a result given up"
    OldCheck "result of a check that had been given up"
    Held "boundary kept after the command"
    HeldToTheEnd "boundary kept for as long as was wished"
    HoldStopped "hold ended by a stop"
    HoldLost "lease lost during a hold"
    KeeperHeld "boundary kept by the keeper"
    KeeperLeftTheHoldToTheLease "hold left to the lease by the keeper"
    Followed "follower started"
    FollowerRestarted "follower stopped for another leader"
    FollowerEscalated "stubborn follower killed"
    FollowerStuck "killed follower not confirmed dead"
    WonWithFollower "won while the follower was alive"
    StoodAgainWithoutFollower "stood again once a stuck follower was gone"
    ElectedFailed "on-elected failed"
    ElectedTimedOut "on-elected timed out"
    OustedFailed "on-ousted failed"
    OustedTimedOut "on-ousted timed out"
    OustedAfterLoss "on-ousted started after a loss"
    OustedWithoutKeeper "on-ousted not run for want of a keeper"
    OustedByKeeper "on-ousted started by the keeper"
    OustedOnlyOnce "campaigner killed while on-ousted ran"
    HookBesideProgram "background hook started beside a program"
    HookAlone "background hook started alone"
    HookTimedOut "background hook killed after its time-out"
    CheckBesideProgram "health check beside a program"
    CheckAlone "health check beside no program"
    CheckEnded "health check ended by itself"
    CheckTimedOut "health check timed out"
    CheckFailed "health check not started, or one was left"
    CheckInterrupted "health check interrupted"
    CheckExcluded "health check that SIGKILL does not end excluded from empty"
    HookNotNow "background hook not started for want of a place"
    HookCannotStart "background hook cannot be started"
    HookLeftovers "background hook ended before its descendants, beside a program"
    HookLeftoversAlone "background hook ended before its descendants, alone"
    LedWithoutCommand "led without a command"
    Granted "told that it leads, and for how long"
    Resigned "resigned when asked to"
    Denied "told that it does not lead"
    WaitLimitAgain "wait limit started again after a leadership"
}

/// How often each of them happened.
#[derive(Debug, Clone)]
pub(super) struct Coverage([u64; Seen::ALL.len()]);

impl Coverage {
    pub(super) fn new() -> Coverage {
        Coverage([0; Seen::ALL.len()])
    }

    pub(super) fn count(&mut self, seen: Seen) {
        self.0[seen as usize] += 1;
    }

    pub(super) fn of(&self, seen: Seen) -> u64 {
        self.0[seen as usize]
    }

    pub(super) fn add(&mut self, other: &Coverage) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }

    pub(super) fn missing(&self) -> Vec<&'static str> {
        Seen::ALL.iter().filter(|(seen, _)| self.of(*seen) == 0).map(|(_, text)| *text).collect()
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (seen, text) in Seen::ALL {
            writeln!(f, "{:>10}  {text}", self.of(*seen))?;
        }
        Ok(())
    }
}
