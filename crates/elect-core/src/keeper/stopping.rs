//! Stopping and killing the tree: the stop signal, the deadlines and SIGKILL (K1, K6, K10).

use std::time::Duration;

use super::mutation::KeeperMutation;
use super::tree::{CommandTree, Stop, complete_sweep_pause, next_backoff};
use super::{CampaignerState, KeeperAction, KeeperMachine, KillDeadline};
use crate::{FromKeeper, Program, Time};

impl KeeperMachine {
    /// K1: past a deadline the tree is killed unconditionally, except a follower and the hook after a term, which the
    /// deadline does not govern.
    pub(super) fn enforce(&mut self, now: Time) {
        self.enforce_hook_timeout(now);
        let CommandTree::Alive { stop, until, .. } = &self.tree else { return };
        let due = match *stop {
            Stop::NotRequested => now >= *until,
            Stop::Terminating { kill_at } => now >= kill_at.min(*until),
            Stop::Killing { retry_at, .. } => now >= retry_at,
        };
        let is_governed = self.is_governed();
        let expired = self.deadline.filter(|deadline| is_governed && !deadline.expired && now >= deadline.kill_by);
        if due || expired.is_some() {
            self.kill(now);
        }
        if let (Some(KillDeadline { term, .. }), Some(deadline)) = (expired, self.deadline.as_mut()) {
            deadline.expired = true;
            self.send(FromKeeper::Expired { term });
        }
    }

    /// Whether the deadline governs the present tree.
    pub(super) fn is_governed(&self) -> bool {
        let of_any_program = self.mutated(KeeperMutation::DeadlineForAll);
        (self.tree.is_governed() || of_any_program) && !self.mutated(KeeperMutation::NoDeadline)
    }

    pub(super) fn kill(&mut self, now: Time) {
        let CommandTree::Alive { main, stop, init, .. } = &mut self.tree else { return };
        let (main, init) = (main.pid(), *init);
        let backoff = next_backoff(match *stop {
            Stop::Killing { backoff, .. } => Some(backoff),
            Stop::NotRequested | Stop::Terminating { .. } => None,
        });
        *stop = Stop::Killing { retry_at: now + backoff, backoff };
        self.act(KeeperAction::ScheduleFirst);
        // One call kills many processes at once, before the walk finds the others.
        if let Some(init) = init {
            self.act(KeeperAction::KillInit { init });
        }
        self.act(KeeperAction::KillTree { main, reports_end: true });
    }

    pub(super) fn on_tree_killed(&mut self, now: Time, is_complete: bool) {
        let CommandTree::Alive { stop: Stop::Killing { retry_at, backoff }, .. } = &mut self.tree else { return };
        let took = now.since(*retry_at - *backoff);
        let pause = if is_complete { complete_sweep_pause(took) } else { Duration::ZERO };
        *retry_at = now + (*backoff).max(pause);
        if is_complete {
            // All processes are dying; only reaping is left. Reaping a process that `ps` is reading waits, in a busy
            // loop in the kernel, until `ps` lets go. A reaper with real-time priority would keep `ps` from running:
            // for a second. Without that priority, thousands of dying processes may run before the keeper does, so the
            // shell has told the campaigner first.
            self.act(KeeperAction::ScheduleAsBefore);
        }
    }

    /// Sends the stop signal now, and SIGKILL at `kill_at` or at an earlier time that was already set.
    pub(super) fn stop(&mut self, kill_at: Time) {
        let signal = self.policy.stop_signal;
        let hook_group = self.hook_group();
        let CommandTree::Alive { main, stop, .. } = &mut self.tree else { return };
        let main = main.pid();
        let before = std::mem::replace(stop, stop.with_kill_at(kill_at));
        if !matches!(before, Stop::NotRequested) {
            return;
        }
        let Some(main) = main else { return self.signal_descendants([None, None]) };
        for main in [Some(main), hook_group].into_iter().flatten() {
            self.act(KeeperAction::SignalGroup { main, signal });
            self.act(KeeperAction::ContinueGroup { main });
        }
    }

    pub(super) fn signal_descendants(&mut self, except_groups: [Option<i32>; 2]) {
        self.act(KeeperAction::SignalDescendants { signal: self.policy.stop_signal, except_groups });
    }

    /// K10: the remaining descendants get the stop signal and, within the time-out that already runs or starts now,
    /// SIGKILL.
    pub(super) fn stop_descendants(&mut self, now: Time) {
        let hook_group = self.hook_group();
        let CommandTree::Alive { group, stop, .. } = &mut self.tree else { return };
        let groups = [Some(*group), hook_group];
        match *stop {
            Stop::NotRequested => {
                *stop = stop.with_kill_at(now + self.policy.stop_timeout);
                self.signal_descendants([None, None]);
            }
            // The groups of the main process and of a background hook have had the signal already; some programs treat
            // a second one as "at once".
            Stop::Terminating { .. } => self.signal_descendants(groups),
            Stop::Killing { .. } => {}
        }
    }

    pub(super) fn begin_final_stop(&mut self, now: Time) {
        self.outbox.clear();
        if self.campaigner == CampaignerState::Dismissed {
            // The tree should be empty already, and no campaigner is left to wait for it.
            self.take_over_hook_leftovers();
            return self.kill(now);
        }
        let program = match &self.tree {
            // Without a campaigner and a program, a background hook has no purpose.
            CommandTree::Empty if self.running_hook.is_some() => {
                self.take_over_hook_leftovers();
                return self.kill(now);
            }
            CommandTree::Empty => return,
            CommandTree::Alive { program, .. } => *program,
        };
        match program {
            Some(Program::Command { .. } | Program::OnElected { .. } | Program::Follower) | None => {
                let deadline = self.deadline.filter(|_| self.is_governed());
                let kill_by = deadline.map_or(Time::NEVER, |deadline| deadline.kill_by);
                self.stop((now + self.policy.stop_timeout).min(kill_by));
            }
            // The hook keeps its time-out, and is not run again.
            Some(Program::OnOusted { .. }) => {}
        }
    }
}
