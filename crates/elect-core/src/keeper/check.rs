//! The health check: the keeper's third program, beside the tree and a background hook, or alone (H3, H5).
//!
//! It is part of the tree: a tree that has to become empty takes it along, with SIGKILL and without a stop signal,
//! because a check has no state. Its end is reported once, at its own end or at the SIGKILL, whichever comes first.
//! Its leftovers belong to the tree; without a tree it is killed at once, and an order to stop is answered when
//! it is gone.
//!
//! A check whose main process SIGKILL does not end (D state) is *stuck*: it alone does not keep the tree from being
//! empty, and no other check is started beside it.

use std::time::Duration;

use super::mutation::KeeperMutation;
use super::start::AwaitedSpawn;
use super::tree::{CommandTree, MainProcess, Stop, next_backoff};
use super::{CampaignerState, ChildEnd, EBUSY, ENOENT, KeeperAction, KeeperMachine};
use crate::{CheckEnd, CheckNumber, FromKeeper, KILL_ALLOWANCE, Time};

/// A check whose main process has not been reaped.
#[derive(Debug)]
pub(super) struct RunningCheck {
    number: CheckNumber,
    main: i32,
    /// The time of the next SIGKILL: the time-out, later repeated with a growing backoff.
    kill_at: Time,
    /// The first SIGKILL, with which the end was reported, and the present backoff.
    killed: Option<(Time, Duration)>,
    /// The reason why it has not executed, known once it has ended.
    not_executed: Option<i32>,
    /// A tree has been confirmed empty although this process is left (H5).
    is_excluded: bool,
}

/// Processes that a check may have left without a tree; they have got SIGKILL.
#[derive(Debug)]
pub(super) struct CheckLeftovers {
    retry_at: Time,
    backoff: Option<Duration>,
}

impl KeeperMachine {
    pub(super) fn start_check(&mut self, check: CheckNumber) {
        let is_stopping = match &self.tree {
            CommandTree::Alive { stop, .. } => !matches!(stop, Stop::NotRequested),
            CommandTree::Empty => self.is_empty_awaited,
        };
        let is_left = self.running_check.is_some() || self.has_lone_check_leftovers();
        let refused = if is_stopping || self.campaigner != CampaignerState::Present {
            CheckEnd::Interrupted
        } else if self.policy.health_timeout.is_none() {
            CheckEnd::Failed(ENOENT)
        } else if is_left && !self.mutated(KeeperMutation::SecondCheck) {
            CheckEnd::Failed(EBUSY)
        } else {
            self.awaited_spawn = Some(AwaitedSpawn::Check(check));
            return self.act(KeeperAction::SpawnCheck);
        };
        self.send(FromKeeper::CheckEnded { check, end: refused });
    }

    pub(super) fn grow_check(&mut self, now: Time, number: CheckNumber, main: i32) {
        let is_unlimited = self.mutated(KeeperMutation::NoCheckTimeout);
        let timeout = self.policy.health_timeout.filter(|_| !is_unlimited).unwrap_or(Duration::MAX);
        let kill_at = now + timeout;
        self.running_check =
            Some(RunningCheck { number, main, kill_at, killed: None, not_executed: None, is_excluded: false });
    }

    /// The main process of the check, until it has been reaped.
    #[must_use]
    pub fn check_pid(&self) -> Option<i32> {
        self.running_check.as_ref().map(|check| check.main)
    }

    /// H5: the main process of a check that is still there long after its SIGKILL, while a tree or leftovers wait for
    /// the end of all others. If no other process lives, [`KeeperEvent::OnlyCheckLeft`](crate::KeeperEvent) follows.
    #[must_use]
    pub fn stuck_check(&self, now: Time) -> Option<i32> {
        let check = self.running_check.as_ref()?;
        let is_stuck = check.killed.is_some_and(|(at, _)| now >= at + KILL_ALLOWANCE);
        let is_awaited = match &self.tree {
            CommandTree::Alive { stop, .. } => !matches!(stop, Stop::NotRequested),
            CommandTree::Empty => {
                self.is_empty_awaited
                    || self.check_leftovers.is_some()
                    || self.running_hook.as_ref().is_some_and(|hook| hook.main.is_err())
            }
        };
        (is_stuck && is_awaited).then_some(check.main)
    }

    /// Whether a process of a check may be left that has to end before all is empty.
    pub(super) fn has_check_processes(&self) -> bool {
        self.running_check.as_ref().is_some_and(|check| !check.is_excluded) || self.check_leftovers.is_some()
    }

    /// Whether the leftovers of a check are all that is left. Those beside a hook are left to the end of the hook.
    fn has_lone_check_leftovers(&self) -> bool {
        self.tree.is_empty() && self.running_hook.is_none() && self.check_leftovers.is_some()
    }

    /// The time of the next SIGKILL to a check or to its leftovers.
    pub(super) fn check_wake_at(&self) -> Time {
        let check = self.running_check.as_ref().map_or(Time::NEVER, |check| check.kill_at);
        let leftovers = self.check_leftovers.as_ref().filter(|_| self.has_lone_check_leftovers());
        check.min(leftovers.map_or(Time::NEVER, |leftovers| leftovers.retry_at))
    }

    /// Enforces the time-out, and repeats a SIGKILL that has not been enough.
    pub(super) fn enforce_check_timeout(&mut self, now: Time) {
        if let Some(check) = self.running_check.as_mut().filter(|check| now >= check.kill_at) {
            let main = check.main;
            if let Some((_, backoff)) = &mut check.killed {
                *backoff = next_backoff(Some(*backoff));
                check.kill_at = now + *backoff;
                // Processes that it has left are no descendants of it any more; without others, all are its own.
                self.act(if self.tree.is_empty() && self.running_hook.is_none() {
                    KeeperAction::KillLeftovers { except: None }
                } else {
                    KeeperAction::KillCheck { main, kills_cgroup: false }
                });
            } else if self.end_check(now, CheckEnd::TimedOut) {
                self.act(KeeperAction::KillCheck { main, kills_cgroup: false });
            }
        }
        let is_lone = self.has_lone_check_leftovers();
        if let Some(leftovers) = self.check_leftovers.as_mut().filter(|leftovers| is_lone && now >= leftovers.retry_at)
        {
            let backoff = next_backoff(leftovers.backoff);
            (leftovers.backoff, leftovers.retry_at) = (Some(backoff), now + backoff);
            self.act(KeeperAction::KillLeftovers { except: self.unkilled_check() });
        }
    }

    /// The main process of a check that has time left.
    pub(super) fn unkilled_check(&self) -> Option<i32> {
        self.running_check.as_ref().filter(|check| check.killed.is_none()).map(|check| check.main)
    }

    /// Kills a check beside which nothing runs, and all that it has left.
    pub(super) fn kill_lone_check(&mut self, now: Time) {
        self.interrupt_check(now);
        self.act(KeeperAction::KillLeftovers { except: None });
    }

    /// Reports the end of a check that is being killed. Returns whether it was not killed before.
    pub(super) fn end_check(&mut self, now: Time, end: CheckEnd) -> bool {
        let Some(check) = self.running_check.as_mut().filter(|check| check.killed.is_none()) else { return false };
        let backoff = next_backoff(None);
        (check.killed, check.kill_at) = (Some((now, backoff)), now + backoff);
        let check = check.number;
        self.send(FromKeeper::CheckEnded { check, end });
        true
    }

    /// Kills a check beside a tree that has to become empty.
    pub(super) fn interrupt_check(&mut self, now: Time) {
        if self.end_check(now, CheckEnd::Interrupted)
            && let Some(main) = self.check_pid()
        {
            self.act(KeeperAction::KillCheck { main, kills_cgroup: false });
        }
    }

    /// The last moment at which the group of the check can be named.
    pub(super) fn on_check_ends(&mut self, not_executed: Option<i32>) {
        let Some(check) = &mut self.running_check else { return };
        check.not_executed = not_executed;
        let main = check.main;
        self.act(KeeperAction::KillCheck { main, kills_cgroup: true });
    }

    /// The main process was reaped. What the check has left belongs to the tree.
    pub(super) fn on_check_ended(&mut self, now: Time, end: ChildEnd) {
        let Some(RunningCheck { number: check, killed, not_executed, .. }) = self.running_check.take() else { return };
        if killed.is_none() {
            let end = not_executed.map_or_else(|| CheckEnd::Ended(end.escalated_if(false)), CheckEnd::Failed);
            self.send(FromKeeper::CheckEnded { check, end });
        }
        let has_tree = match &self.tree {
            // A start that is refused leaves no tree.
            CommandTree::Alive { main: MainProcess::Starting(_) | MainProcess::Refused(_), stop, .. } => {
                !matches!(stop, Stop::NotRequested)
            }
            CommandTree::Alive { .. } => true,
            CommandTree::Empty => false,
        };
        if !has_tree && !self.mutated(KeeperMutation::ForgetsCheckLeftovers) {
            self.check_leftovers = Some(CheckLeftovers { retry_at: now, backoff: None });
        }
    }

    /// H5: nothing lives but a check that cannot be killed.
    pub(super) fn on_only_check_left(&mut self, is_cgroup_populated: bool) {
        if is_cgroup_populated || self.mutated(KeeperMutation::StuckCheckCounts) {
            return;
        }
        if let Some(check) = &mut self.running_check {
            check.is_excluded = true;
        }
        self.end_hook();
        self.confirm_empty();
    }
}
