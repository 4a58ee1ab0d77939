//! Rules that tests break on purpose, to prove that the simulation would notice (P4). Outside tests nothing does.
//!
//! A rule that lives outside the context (the keeper's deadline, the stamp of a renewal) is broken in the simulation's
//! model instead.

use crate::context::Context;
use crate::{Attempt, Lease, Time, timing};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mutation {
    /// Start the command on a win alone, with a lease counted from the answer.
    NoVerification,
    /// Let a renewal that comes after `stop_by` revive the term.
    LateSuccessCounts,
    /// Release as soon as the stop has been asked for.
    ReleaseBeforeEmpty,
    /// Leave nothing for clocks of different rate.
    NoMargin,
    /// Leave the end of the lease to the keeper.
    NoStopBy,
    /// End the renewals when the stop begins.
    NoRenewalWhileStopping,
    /// Give a command its time although the lease is known to be lost.
    GraceWhenLost,
    /// Wait for a silent keeper forever.
    SilentKeeperSpared,
    /// Answer a control request with a renewal that was sent before it.
    OldRenewalAnswers,
    /// Give up without releasing what the store may hold for this candidate.
    PlaceKept,
    /// Campaign on after the wait limit has passed.
    StandsOn,
    /// Give up at the first answer although it is undecided.
    UndecidedCounts,
    /// Campaign again after a leadership that was to be the last.
    CampaignsAgain,
    /// Start the command again as soon as its main process has ended.
    RestartBesideTheOld,
    /// Go on restarting however often it fails.
    NoRestartLimit,
    /// Stand again right after the limit was reached.
    NoSittingOut,
    /// Start again before the keeper has confirmed that nothing is left of the refused start.
    StartsBesideRefused,
    /// Take a keeper that reports progress for a silent one.
    ProgressIgnored,
    /// Give the boundary back as soon as the command has ended.
    NoHold,
    /// Start the command while the follower is still being stopped.
    FollowerBesideLeader,
    /// Stand again although a follower that was killed is still there.
    StandsBesideStuckFollower,
    /// Start the command although the hook before it failed.
    CommandAfterFailedHook,
    /// Stand again right after that hook failed.
    NoSittingOutAfterHook,
    /// Give the boundary back while the hook after the command still runs.
    ReleaseBeforeOusted,
    /// Leave that hook out where the lease was lost.
    NotOustedWhenLost,
    /// Take any reply for the one that is waited for.
    AnyReplyCounts,
    /// Campaign although the candidate is unhealthy.
    CampaignsUnhealthy,
    /// Count the result of a check that is over.
    OldCheckCounts,
    /// Forget that the candidate is drained when a lease is lost.
    DrainForgotten,
}

impl Context {
    #[cfg(test)]
    pub(super) fn mutated(&self, rule: Mutation) -> bool {
        self.mutation == Some(rule)
    }

    /// Whether any rule is broken: preconditions that follow from the rules are not asserted then.
    #[cfg(test)]
    pub(super) fn has_mutation(&self) -> bool {
        self.mutation.is_some()
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "the same question as in the tests")]
    pub(super) const fn has_mutation(&self) -> bool {
        false
    }

    /// The lease that a credited renewal stands for.
    pub(super) fn granted(&self, sent: Time) -> Lease {
        let lease = self.timing.lease(sent);
        if self.mutated(Mutation::NoStopBy) {
            return Lease { stop_by: Time::NEVER, ..lease };
        }
        if self.mutated(Mutation::NoMargin)
            && let Some(ttl) = self.timing.ttl()
        {
            let margin = timing::margin(ttl);
            return Lease { stop_by: lease.stop_by + margin, kill_by: lease.kill_by + margin, ..lease };
        }
        lease
    }

    /// The attempt that a reply is taken to answer.
    pub(super) fn answered(&self, attempt: Attempt) -> Attempt {
        if self.mutated(Mutation::AnyReplyCounts) { self.store_requests.latest() } else { attempt }
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "the same question as in the tests")]
    pub(super) const fn mutated(&self, _: Mutation) -> bool {
        false
    }
}
