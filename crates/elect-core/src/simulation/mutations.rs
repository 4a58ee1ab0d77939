//! The rules that are broken on purpose (P4), in the core or in the model, and the proof that each is noticed.

use super::super::mutation::Mutation;
use crate::keeper::KeeperMutation;
use crate::takeover;

use super::choices::SimRng;
use super::run::Simulation;

/// A broken rule that shows in none of so many histories is not tested.
const LONGEST_SEARCH: u64 = 20_000;

/// One rule broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InjectedMutation {
    Context(Mutation),
    /// T1: the lease is counted from the reply.
    StampAfterReply,
    /// T1: an observer counts from before sending.
    ObserverCountsFromSending,
    /// T3: the timings have not been proven.
    UnprovenTimings,
    Keeper(KeeperMutation),
    /// K4: the list of inherited children counts even if the keeper was dead when it was read.
    ListOfDeadKeeper,
    /// K5: a child that died before exec is reported as started.
    DeadChildStarted,
    /// 5.2: a win is verified whatever term is kept by then.
    TermNotCompared,
    /// 5.2: the last term is read when a candidate begins to wait, and not again when it is the oldest.
    TermReadEarly,
    /// 5.2: the term is not kept by the transaction that verifies it.
    TermNotKept,
    Takeover(takeover::RuleMutation),
    /// S3: a renewal that comes twice sets the version back.
    VersionMayReturn,
    /// 5.4: a release names the present incarnation instead of that of the last credited renewal.
    ReleaseRefreshes,
    /// 5.3: a release does not check the term.
    ReleaseByIdAlone,
}

/// Every rule with what it says, in the order of the design.
pub(super) const RULES: &[(InjectedMutation, &str)] = &[
    (InjectedMutation::Context(Mutation::NoVerification), "5: a win is verified before anything starts"),
    (InjectedMutation::Context(Mutation::AnyReplyCounts), "7: a reply to another attempt changes nothing"),
    (InjectedMutation::Context(Mutation::ReleaseBeforeEmpty), "2.3: nothing is released before the tree is empty"),
    (InjectedMutation::StampAfterReply, "T1: the holder counts from before sending"),
    (InjectedMutation::ObserverCountsFromSending, "T1: an observer counts from after receiving"),
    (InjectedMutation::Context(Mutation::NoMargin), "4: a margin for clocks of different rate"),
    (InjectedMutation::Context(Mutation::NoStopBy), "4: SIGTERM by stop_by"),
    (InjectedMutation::Context(Mutation::LateSuccessCounts), "4: a late success changes nothing"),
    (InjectedMutation::UnprovenTimings, "T3: the numbers are proven at start"),
    (InjectedMutation::Context(Mutation::NoRenewalWhileStopping), "T4: renewals go on while stopping"),
    (InjectedMutation::Keeper(KeeperMutation::NoDeadline), "K1: the keeper kills at its deadline"),
    (InjectedMutation::Keeper(KeeperMutation::DeadlineMovesBack), "K1: a deadline only moves forward"),
    (InjectedMutation::Keeper(KeeperMutation::DeadlineOfAnyTerm), "K1: a deadline is of one term"),
    (InjectedMutation::Keeper(KeeperMutation::IgnoresDismissal), "6: a dismissed keeper ends"),
    (
        InjectedMutation::Keeper(KeeperMutation::IgnoresEndOfFile),
        "K2: without its campaigner the keeper stops the tree",
    ),
    (InjectedMutation::Context(Mutation::SilentKeeperSpared), "K4: a silent keeper is killed"),
    (InjectedMutation::Context(Mutation::ProgressIgnored), "K4: progress is as good as an answer"),
    (InjectedMutation::ListOfDeadKeeper, "K4: a list read after the keeper's death is discarded"),
    (InjectedMutation::Keeper(KeeperMutation::StartsTooLate), "K5: the deadline is checked before exec"),
    (
        InjectedMutation::Context(Mutation::StartsBesideRefused),
        "K5: a refused start is retried after the keeper's confirmation",
    ),
    (
        InjectedMutation::Keeper(KeeperMutation::ClearsTooEarly),
        "K5: a refused start is cleared when its child is reaped",
    ),
    (InjectedMutation::DeadChildStarted, "K5: a child that died before exec was not started"),
    (InjectedMutation::Keeper(KeeperMutation::DropsEarlySignals), "6: a signal forwarded before exec is kept"),
    (InjectedMutation::Keeper(KeeperMutation::LeavesStopped), "K10: a command that has to end is continued"),
    (InjectedMutation::Keeper(KeeperMutation::IgnoresCgroup), "K6: a populated cgroup is no empty tree"),
    (InjectedMutation::Keeper(KeeperMutation::ForgetsLoneHook), "K6: a hook without a program is stopped as a tree"),
    (InjectedMutation::Keeper(KeeperMutation::MainAloneCounts), "K6: the end of the main process proves nothing"),
    (InjectedMutation::Context(Mutation::GraceWhenLost), "K11: a lease that is lost leaves no grace"),
    (InjectedMutation::Context(Mutation::PlaceKept), "6: a candidate that gives up releases its place"),
    (InjectedMutation::Context(Mutation::StandsOn), "6: no campaign goes on after the wait limit"),
    (InjectedMutation::Context(Mutation::UndecidedCounts), "6: --no-wait asks until the answer is decided"),
    (InjectedMutation::Context(Mutation::CampaignsAgain), "6: with --on-lost exit no candidate campaigns again"),
    (InjectedMutation::Context(Mutation::RestartBesideTheOld), "2.3: a restart waits for the whole old tree"),
    (InjectedMutation::Context(Mutation::NoRestartLimit), "6: --restart-limit"),
    (InjectedMutation::Context(Mutation::NoSittingOut), "6: a candidate that restarted too often cools down"),
    (InjectedMutation::Context(Mutation::NoHold), "6: --min-hold"),
    (InjectedMutation::Keeper(KeeperMutation::ForgetsHold), "K2: the keeper respects a --min-hold"),
    (InjectedMutation::Context(Mutation::FollowerBesideLeader), "K11: a win waits for the end of the follower"),
    (InjectedMutation::Context(Mutation::StandsBesideStuckFollower), "2.3: no candidacy beside a killed follower"),
    (InjectedMutation::Context(Mutation::CommandAfterFailedHook), "6: on-elected has to succeed"),
    (InjectedMutation::Context(Mutation::NoSittingOutAfterHook), "6: a candidate that is not accepted cools down"),
    (InjectedMutation::Context(Mutation::ReleaseBeforeOusted), "K6: a release waits for the end of on-ousted"),
    (InjectedMutation::Context(Mutation::NotOustedWhenLost), "6: on-ousted runs after a loss, too"),
    (
        InjectedMutation::Keeper(KeeperMutation::ForgetsOustedHook),
        "K2: without its campaigner the keeper runs on-ousted",
    ),
    (InjectedMutation::Keeper(KeeperMutation::RunsOustedHookAgain), "K2: the keeper runs on-ousted once"),
    (InjectedMutation::Keeper(KeeperMutation::DeadlineForAll), "K1: a deadline governs its own term alone"),
    (
        InjectedMutation::Context(Mutation::OldRenewalAnswers),
        "6: assert is answered by a renewal that was sent after it",
    ),
    (InjectedMutation::TermNotCompared, "5.2: the last term is compared when a win is verified"),
    (InjectedMutation::TermReadEarly, "5.2: the last term is read by the oldest candidate"),
    (InjectedMutation::TermNotKept, "5.2: the transaction that verifies a win stores its term"),
    (InjectedMutation::Takeover(takeover::RuleMutation::HeldTakenAtOnce), "5.3: a held record is waited for"),
    (InjectedMutation::Takeover(takeover::RuleMutation::MissingTakenAtOnce), "S2: a missing record is waited for"),
    (
        InjectedMutation::Takeover(takeover::RuleMutation::OldFreeTakenAtOnce),
        "5.4: a free record of another incarnation as well",
    ),
    (
        InjectedMutation::Takeover(takeover::RuleMutation::OwnTtlCounts),
        "5.3: a held record is waited for by its own ttl",
    ),
    (
        InjectedMutation::Takeover(takeover::RuleMutation::OthersTtlsForgotten),
        "S2: a missing record is waited for by the longest ttl",
    ),
    (
        InjectedMutation::Takeover(takeover::RuleMutation::MineByIdAlone),
        "5: only the nonce of my outstanding write is mine",
    ),
    (InjectedMutation::VersionMayReturn, "S3: a version never comes back"),
    (InjectedMutation::Takeover(takeover::RuleMutation::AbsenceHasNoVersion), "S2: absence becomes a version"),
    (InjectedMutation::Takeover(takeover::RuleMutation::VacantIsFree), "S2: a vacant record is waited for"),
    (InjectedMutation::ReleaseRefreshes, "5.4: a release names the basis of the last credit"),
    (InjectedMutation::ReleaseByIdAlone, "5.3: a release checks the term"),
];

#[test]
fn every_rule_that_is_broken_on_purpose_is_noticed() {
    let mut unnoticed = Vec::new();
    println!("{:<55} | {:>9} | noticed as", "rule", "histories");
    for &(injected_mutation, rule) in RULES {
        let noticed = (0..LONGEST_SEARCH).find_map(|seed| {
            Simulation::run(SimRng::from_seed(seed), Some(injected_mutation)).err().map(|broken| (seed, broken))
        });
        match noticed {
            Some((seed, broken)) => println!("{rule:<55} | {:>9} | {}", seed + 1, broken.rule),
            None => unnoticed.push(rule),
        }
    }
    assert!(unnoticed.is_empty(), "broken, and not noticed: {unnoticed:?}");
}
