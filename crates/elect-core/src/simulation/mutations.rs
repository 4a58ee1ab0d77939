//! The rules that are broken on purpose (P4), in the core or in the model, and the proof that each is caught.

use std::collections::BTreeSet;

use serde_json::{Value, json};

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
    /// S5: a write is credited whatever notice came with its answer.
    NoticesIgnored,
    /// 5.6: a server that was promoted, or restarted from an older state, counts as the one before.
    IncarnationIgnored,
}

/// Every broken rule: the rule with what it says, in the order of the design, and the fault that an earlier version had there.
pub(super) const RULES: &[(InjectedMutation, &str, &str)] = &[
    (InjectedMutation::Context(Mutation::NoVerification), "5: a win is verified before anything starts", ""),
    (InjectedMutation::Context(Mutation::AnyReplyCounts), "7: a reply to another attempt changes nothing", ""),
    (InjectedMutation::Context(Mutation::ReleaseBeforeEmpty), "2.3: nothing is released before the tree is empty", ""),
    (InjectedMutation::StampAfterReply, "T1: the holder counts from before sending", ""),
    (InjectedMutation::ObserverCountsFromSending, "T1: an observer counts from after receiving", ""),
    (InjectedMutation::Context(Mutation::NoMargin), "4: a margin for clocks of different rate", ""),
    (InjectedMutation::Context(Mutation::NoStopBy), "4: SIGTERM by stop_by", ""),
    (InjectedMutation::Context(Mutation::LateSuccessCounts), "4: a late success changes nothing", ""),
    (InjectedMutation::UnprovenTimings, "T3: the numbers are proven at start", ""),
    (InjectedMutation::Context(Mutation::NoRenewalWhileStopping), "T4: renewals go on while stopping", ""),
    (InjectedMutation::Keeper(KeeperMutation::NoDeadline), "K1: the keeper kills at its deadline", ""),
    (InjectedMutation::Keeper(KeeperMutation::DeadlineMovesBack), "K1: a deadline only moves forward", ""),
    (InjectedMutation::Keeper(KeeperMutation::DeadlineOfAnyTerm), "K1: a deadline is of one term", ""),
    (InjectedMutation::Keeper(KeeperMutation::IgnoresDismissal), "6: a dismissed keeper ends", ""),
    (
        InjectedMutation::Keeper(KeeperMutation::IgnoresEndOfFile),
        "K2: without its campaigner the keeper stops the tree",
        "",
    ),
    (InjectedMutation::Context(Mutation::SilentKeeperSpared), "K4: a silent keeper is killed", ""),
    (InjectedMutation::Context(Mutation::ProgressIgnored), "K4: progress is as good as an answer", "A6"),
    (InjectedMutation::ListOfDeadKeeper, "K4: a list read after the keeper's death is discarded", "A1"),
    (InjectedMutation::Keeper(KeeperMutation::StartsTooLate), "K5: the deadline is checked before exec", "A"),
    (
        InjectedMutation::Context(Mutation::StartsBesideRefused),
        "K5: a refused start is retried after the keeper's confirmation",
        "A2",
    ),
    (
        InjectedMutation::Keeper(KeeperMutation::ClearsTooEarly),
        "K5: a refused start is cleared when its child is reaped",
        "",
    ),
    (InjectedMutation::DeadChildStarted, "K5: a child that died before exec was not started", "A10"),
    (InjectedMutation::Keeper(KeeperMutation::DropsEarlySignals), "6: a signal forwarded before exec is kept", "A10"),
    (InjectedMutation::Keeper(KeeperMutation::LeavesStopped), "K10: a command that has to end is continued", ""),
    (
        InjectedMutation::Keeper(KeeperMutation::RestNeverSignalled),
        "6: the rest of the tree gets the stop signal before SIGKILL",
        "C1",
    ),
    (
        InjectedMutation::Keeper(KeeperMutation::RestNotSignalled),
        "K10: processes that are left behind get the stop signal",
        "C2",
    ),
    (InjectedMutation::Keeper(KeeperMutation::IgnoresCgroup), "K6: a populated cgroup is no empty tree", ""),
    (
        InjectedMutation::Keeper(KeeperMutation::ForgetsLoneHook),
        "K6: a hook without a program is stopped as a tree",
        "",
    ),
    (InjectedMutation::Keeper(KeeperMutation::MainAloneCounts), "K6: the end of the main process proves nothing", ""),
    (InjectedMutation::Keeper(KeeperMutation::NoCheckTimeout), "H3: a health check is killed at its time-out", ""),
    (
        InjectedMutation::Keeper(KeeperMutation::ForgetsCheckLeftovers),
        "K6: what a health check leaves behind has to end before all is empty",
        "",
    ),
    (
        InjectedMutation::Keeper(KeeperMutation::SecondCheck),
        "H5: no second health check starts beside one that is left",
        "",
    ),
    (
        InjectedMutation::Keeper(KeeperMutation::StuckCheckCounts),
        "H5: a health check that cannot be killed does not keep the tree from being empty",
        "",
    ),
    (InjectedMutation::Context(Mutation::GraceWhenLost), "K11: a lease that is lost leaves no grace", ""),
    (InjectedMutation::Context(Mutation::PlaceKept), "6: a candidate that gives up releases its place", ""),
    (InjectedMutation::Context(Mutation::StandsOn), "6: no campaign goes on after the wait limit", ""),
    (InjectedMutation::Context(Mutation::UndecidedCounts), "6: --no-wait asks until the answer is decided", ""),
    (InjectedMutation::Context(Mutation::CampaignsAgain), "6: with --on-lost exit no candidate campaigns again", ""),
    (InjectedMutation::Context(Mutation::RestartBesideTheOld), "2.3: a restart waits for the whole old tree", ""),
    (InjectedMutation::Context(Mutation::NoRestartLimit), "6: --restart-limit", ""),
    (InjectedMutation::Context(Mutation::NoSittingOut), "6: a candidate that restarted too often cools down", ""),
    (InjectedMutation::Context(Mutation::NoHold), "6: --min-hold", ""),
    (InjectedMutation::Keeper(KeeperMutation::ForgetsHold), "K2: the keeper respects a --min-hold", ""),
    (InjectedMutation::Context(Mutation::FollowerBesideLeader), "K11: a win waits for the end of the follower", ""),
    (InjectedMutation::Context(Mutation::StandsBesideStuckFollower), "2.3: no candidacy beside a killed follower", ""),
    (InjectedMutation::Context(Mutation::CommandAfterFailedHook), "6: on-elected has to succeed", ""),
    (InjectedMutation::Context(Mutation::NoSittingOutAfterHook), "6: a candidate that is not accepted cools down", ""),
    (InjectedMutation::Context(Mutation::ReleaseBeforeOusted), "K6: a release waits for the end of on-ousted", ""),
    (InjectedMutation::Context(Mutation::NotOustedWhenLost), "6: on-ousted runs after a loss, too", ""),
    (
        InjectedMutation::Keeper(KeeperMutation::ForgetsOustedHook),
        "K2: without its campaigner the keeper runs on-ousted",
        "",
    ),
    (InjectedMutation::Keeper(KeeperMutation::RunsOustedHookAgain), "K2: the keeper runs on-ousted once", ""),
    (InjectedMutation::Keeper(KeeperMutation::DeadlineForAll), "K1: a deadline governs its own term alone", ""),
    (
        InjectedMutation::Context(Mutation::OldRenewalAnswers),
        "6: assert is answered by a renewal that was sent after it",
        "",
    ),
    (InjectedMutation::Context(Mutation::CampaignsUnhealthy), "H1: an unhealthy candidate does not campaign", ""),
    (InjectedMutation::Context(Mutation::DrainForgotten), "H2: a lost lease does not end a drain", ""),
    (InjectedMutation::Context(Mutation::OldCheckCounts), "H3: a result counts for the outstanding check alone", ""),
    (InjectedMutation::TermNotCompared, "5.2: the last term is compared when a win is verified", ""),
    (InjectedMutation::TermReadEarly, "5.2: the last term is read by the oldest candidate", ""),
    (InjectedMutation::TermNotKept, "5.2: the transaction that verifies a win stores its term", ""),
    (InjectedMutation::Takeover(takeover::RuleMutation::HeldTakenAtOnce), "5.3: a held record is waited for", ""),
    (InjectedMutation::Takeover(takeover::RuleMutation::MissingTakenAtOnce), "S2: a missing record is waited for", ""),
    (
        InjectedMutation::Takeover(takeover::RuleMutation::OldFreeTakenAtOnce),
        "5.4: a free record of another incarnation as well",
        "B4",
    ),
    (
        InjectedMutation::Takeover(takeover::RuleMutation::OwnTtlCounts),
        "5.3: a held record is waited for by its own ttl",
        "",
    ),
    (
        InjectedMutation::Takeover(takeover::RuleMutation::OthersTtlsForgotten),
        "S2: a missing record is waited for by the longest ttl",
        "",
    ),
    (
        InjectedMutation::Takeover(takeover::RuleMutation::MineByIdAlone),
        "5: only the nonce of my outstanding write is mine",
        "",
    ),
    (
        InjectedMutation::Takeover(takeover::RuleMutation::ReservationIgnored),
        "5.3: a reserved boundary is left to its successor",
        "",
    ),
    (InjectedMutation::VersionMayReturn, "S3: a version never comes back", "B5"),
    (InjectedMutation::Takeover(takeover::RuleMutation::AbsenceHasNoVersion), "S2: absence becomes a version", "B1"),
    (InjectedMutation::Takeover(takeover::RuleMutation::VacantIsFree), "S2: a vacant record is waited for", "B1"),
    (InjectedMutation::ReleaseRefreshes, "5.4: a release names the basis of the last credit", "B6"),
    (InjectedMutation::ReleaseByIdAlone, "5.3: a release checks the term", ""),
    (InjectedMutation::NoticesIgnored, "S5: a write that no standby has confirmed is not credited", ""),
    (InjectedMutation::IncarnationIgnored, "5.6: another timeline is another incarnation", ""),
];

impl InjectedMutation {
    /// The rule of the candidate itself, if it is one.
    pub(super) fn of_candidate(self) -> Option<Mutation> {
        if let InjectedMutation::Context(rule) = self { Some(rule) } else { None }
    }

    /// The part of the report that it belongs to: whatever the model does on behalf of a store is a rule of the core.
    const fn part(self) -> &'static str {
        match self {
            InjectedMutation::Context(_)
            | InjectedMutation::StampAfterReply
            | InjectedMutation::ObserverCountsFromSending
            | InjectedMutation::UnprovenTimings
            | InjectedMutation::TermNotCompared
            | InjectedMutation::TermReadEarly
            | InjectedMutation::TermNotKept => "core",
            InjectedMutation::Keeper(_) | InjectedMutation::ListOfDeadKeeper | InjectedMutation::DeadChildStarted => {
                "keeper"
            }
            InjectedMutation::Takeover(_)
            | InjectedMutation::VersionMayReturn
            | InjectedMutation::ReleaseRefreshes
            | InjectedMutation::ReleaseByIdAlone
            | InjectedMutation::NoticesIgnored
            | InjectedMutation::IncarnationIgnored => "takeover",
        }
    }
}

/// The entries that `tests/mutations` asks for: those whose text contains `ELECT_MUTATIONS`, or whose rule or fault it is.
fn selected() -> impl Iterator<Item = (InjectedMutation, Value)> {
    let words = std::env::var("ELECT_MUTATIONS").unwrap_or_default();
    RULES.iter().filter_map(move |&(injected_mutation, text, fault)| {
        let (rule, name) = text.split_once(": ")?;
        let is_selected = name.to_lowercase().contains(&words.to_lowercase()) || words == rule || words == fault;
        let fault = (!fault.is_empty()).then_some(fault);
        let entry = json!({ "part": injected_mutation.part(), "rule": rule, "fault": fault, "name": name });
        is_selected.then_some((injected_mutation, entry))
    })
}

#[test]
fn each_mutation_has_a_rule_and_a_name_of_its_own() {
    let names: BTreeSet<&str> =
        RULES.iter().filter_map(|(_, text, _)| text.split_once(": ")).map(|(_, name)| name).collect();
    assert_eq!(names.len(), RULES.len(), "a rule without a number, or two with the same name");
    for (_, entry) in selected() {
        println!("mutation {entry}");
    }
}

/// Prints a line for each entry, which `tests/mutations` reads: the violated rule that caught it, and after how many histories.
#[test]
fn every_rule_that_is_broken_on_purpose_is_caught() {
    let mut not_caught = Vec::new();
    for (injected_mutation, mut entry) in selected() {
        let found = (0..LONGEST_SEARCH).find_map(|seed| {
            Simulation::run(SimRng::from_seed(seed), Some(injected_mutation)).err().map(|broken| (seed, broken))
        });
        entry["histories"] = json!(found.as_ref().map(|(seed, _)| seed + 1));
        entry["caught_by"] = json!(found.as_ref().map(|(_, broken)| broken.rule));
        println!("mutation {entry}");
        if found.is_none() {
            not_caught.push(entry["name"].clone());
        }
    }
    assert!(not_caught.is_empty(), "broken, and not caught: {not_caught:?}");
}
