//! Rules of the keeper that tests break on purpose, to prove that the simulation would notice (P4). Outside tests
//! nothing does.

use super::KeeperMachine;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeeperMutation {
    /// K1: no tree is killed for a deadline.
    NoDeadline,
    /// K1: the deadline of a term is set to whatever is ordered.
    DeadlineMovesBack,
    /// K1: a deadline of any term replaces the present one, whatever lives.
    DeadlineOfAnyTerm,
    /// K1: the deadline of a term kills trees that it does not govern.
    DeadlineForAll,
    /// K2: the end of file is not handled.
    IgnoresEndOfFile,
    /// 6: a keeper that is dismissed stays.
    IgnoresDismissal,
    /// K2: the claim is released although a hold still runs.
    ForgetsHold,
    /// K2: the claim is released without the hook that has to run before.
    ForgetsOustedHook,
    /// K2: that hook is run again after the campaigner has ordered it.
    RunsOustedHookAgain,
    /// K5: the deadline is not compared before a start, neither by the keeper nor by the child.
    StartsTooLate,
    /// 6: a signal that is forwarded before exec is dropped.
    DropsEarlySignals,
    /// K5: a refused start is taken for cleared although its child has not been reaped.
    ClearsTooEarly,
    /// K6: a hook without a tree is not made a tree when it has to stop.
    ForgetsLoneHook,
    /// K6: a cgroup with a process in it counts as empty.
    IgnoresCgroup,
    /// A command that has to end stays stopped by the terminal.
    LeavesStopped,
    /// 6: with `--stop-to main` the other processes get no stop signal before the end of the time.
    RestNeverSignalled,
    /// K10: the processes that the main process leaves behind get no stop signal.
    RestNotSignalled,
    /// K6: the end of the main process counts as an empty tree.
    MainAloneCounts,
    /// H3: a check is not killed at its time-out.
    NoCheckTimeout,
    /// K6: the processes that a check leaves behind without a tree are no part of any.
    ForgetsCheckLeftovers,
    /// H5: a second check is started beside one that is left.
    SecondCheck,
    /// H5: a check that cannot be killed keeps the tree from being empty.
    StuckCheckCounts,
}

impl KeeperMachine {
    #[cfg(test)]
    pub(super) fn mutated(&self, rule: KeeperMutation) -> bool {
        self.mutation == Some(rule)
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "the same question as in the tests")]
    pub(super) const fn mutated(&self, _: KeeperMutation) -> bool {
        false
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
}
