//! Stopping and killing the tree: the stop signal, the deadlines and SIGKILL (K1, K6, K10).

use std::time::Duration;

use super::mutation::KeeperMutation;
use super::tree::{CommandTree, KillCause, Signalled, Stop, complete_sweep_pause, next_backoff};
use super::{CampaignerState, KeeperAction, KeeperMachine, KillDeadline, Recipients, StopTo};
use crate::{CheckEnd, FromKeeper, ProcessList, Program, Time};

impl KeeperMachine {
    /// K1: past a deadline the tree is killed unconditionally, except a follower and the hook after a term, which the
    /// deadline does not govern.
    pub(super) fn enforce(&mut self, now: Time) {
        self.enforce_hook_timeout(now);
        // The kill of a tree takes the check along, and is not delayed by it.
        if !self.enforce_on_tree(now) {
            self.enforce_check_timeout(now);
        }
    }

    /// Returns whether the tree was killed.
    fn enforce_on_tree(&mut self, now: Time) -> bool {
        let CommandTree::Alive { stop, until, .. } = &self.tree else { return false };
        let due = match *stop {
            Stop::NotRequested => now >= *until,
            Stop::Terminating { kill_at, .. } => now >= kill_at.min(*until),
            Stop::Killing { retry_at, .. } => now >= retry_at,
        };
        let is_governed = self.is_governed();
        let expired = self.deadline.filter(|deadline| is_governed && !deadline.expired && now >= deadline.kill_by);
        if expired.is_some() {
            self.kill_because(now, KillCause::Other);
        } else if due {
            self.kill(now);
        } else if now >= stop.rest_at() && !self.mutated(KeeperMutation::RestNeverSignalled) {
            self.signal_rest();
        }
        if let (Some(KillDeadline { term, .. }), Some(deadline)) = (expired, self.deadline.as_mut()) {
            deadline.expired = true;
            self.send(FromKeeper::Expired { term });
        }
        expired.is_some() || due
    }

    /// Whether the deadline governs the present tree.
    pub(super) fn is_governed(&self) -> bool {
        let of_any_program = self.mutated(KeeperMutation::DeadlineForAll);
        (self.tree.is_governed() || of_any_program) && !self.mutated(KeeperMutation::NoDeadline)
    }

    pub(super) fn kill(&mut self, now: Time) {
        let CommandTree::Alive { stop, .. } = &self.tree else { return };
        let cause = match *stop {
            Stop::Terminating { kill_at, .. } if now >= kill_at => KillCause::StopTimeout,
            Stop::NotRequested | Stop::Terminating { .. } | Stop::Killing { .. } => KillCause::Other,
        };
        self.kill_because(now, cause);
    }

    fn kill_because(&mut self, now: Time, cause: KillCause) {
        let CommandTree::Alive { main, stop, init, .. } = &mut self.tree else { return };
        let (main, init) = (main.pid(), *init);
        let (before, cause) = match *stop {
            Stop::Killing { backoff, cause, .. } => (Some(backoff), cause),
            Stop::NotRequested | Stop::Terminating { .. } => (None, cause),
        };
        let backoff = next_backoff(before);
        *stop = Stop::Killing { retry_at: now + backoff, backoff, cause };
        // The processes are named once.
        let lists = before.is_none() && cause == KillCause::StopTimeout;
        // It is killed with the tree.
        let _ = self.end_check(now, CheckEnd::Interrupted);
        self.act(KeeperAction::ScheduleFirst);
        // One call kills many processes at once, before the walk finds the others.
        if let Some(init) = init {
            self.act(KeeperAction::KillInit { init });
        }
        self.act(KeeperAction::KillTree { main, lists });
    }

    pub(super) fn on_tree_killed(&mut self, now: Time, is_complete: bool, processes: ProcessList) {
        let CommandTree::Alive { program, stop: Stop::Killing { retry_at, backoff, .. }, .. } = &mut self.tree else {
            return;
        };
        let has_program = program.is_some();
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
        if has_program && processes.count > 0 {
            self.send(FromKeeper::StopTimedOut { run: self.run, processes });
        }
    }

    /// Sends the stop signal now, and SIGKILL at `kill_at` or at an earlier time that was already set. Without any time
    /// in between there is SIGKILL alone.
    pub(super) fn stop(&mut self, now: Time, kill_at: Time) {
        let signal = self.policy.stop_signal;
        let hook_group = self.hook_group();
        let stop_to = self.policy.stop_to;
        let CommandTree::Alive { main, stop, .. } = &mut self.tree else { return };
        let main = main.pid();
        let signalled = match (main, stop_to) {
            (None, StopTo::Main | StopTo::Group) => Signalled::All,
            (Some(_), StopTo::Main) => Signalled::main_processes(now, kill_at),
            (Some(_), StopTo::Group) => Signalled::Groups { hook: hook_group },
        };
        let before = std::mem::replace(stop, stop.with_kill_at(now, kill_at, signalled));
        if !matches!(before, Stop::NotRequested) {
            return;
        }
        if now >= kill_at {
            return self.kill(now);
        }
        let Some(main) = main else {
            self.signal_descendants(Recipients::All);
            return self.interrupt_check(now);
        };
        for main in [Some(main), hook_group].into_iter().flatten() {
            self.act(match stop_to {
                StopTo::Main => KeeperAction::SignalProcess { pid: main, signal },
                StopTo::Group => KeeperAction::SignalGroup { main, signal },
            });
            // The others of a group that is stopped must be able to follow the main process.
            self.act(KeeperAction::ContinueGroup { main });
        }
        self.interrupt_check(now);
    }

    pub(super) fn signal_descendants(&mut self, recipients: Recipients) {
        self.act(KeeperAction::SignalDescendants { signal: self.policy.stop_signal, recipients });
    }

    /// Sends the stop signal to the processes that have not had it: with `--stop-to main` most of the time is over, and
    /// not every main process passes the signal on. A shell that waits for a child does not even handle it.
    fn signal_rest(&mut self) {
        let hook_group = self.hook_group();
        let CommandTree::Alive { main, stop: Stop::Terminating { signalled, .. }, .. } = &mut self.tree else { return };
        *signalled = Signalled::All;
        let main = main.pid();
        self.signal_descendants(Recipients::AllExcept([main, hook_group]));
    }

    /// K10: the remaining descendants get the stop signal and, within the time-out that already runs or starts now,
    /// SIGKILL.
    pub(super) fn stop_descendants(&mut self, now: Time) {
        let hook_group = self.hook_group();
        let stop_timeout = self.policy.stop_timeout;
        let CommandTree::Alive { group, stop, .. } = &mut self.tree else { return };
        let group = Some(*group);
        let recipients = match stop {
            Stop::NotRequested => {
                *stop = stop.with_kill_at(now, now + stop_timeout, Signalled::All);
                if stop_timeout.is_zero() {
                    return self.kill(now);
                }
                Recipients::All
            }
            Stop::Terminating { signalled, .. } => match std::mem::replace(signalled, Signalled::All) {
                Signalled::MainProcesses { .. } => Recipients::AllExcept([None, hook_group]),
                Signalled::Groups { hook } => Recipients::OutsideGroups([group, hook]),
                Signalled::All => return,
            },
            Stop::Killing { .. } => return,
        };
        if !self.mutated(KeeperMutation::RestNotSignalled) {
            self.signal_descendants(recipients);
        }
        self.interrupt_check(now);
    }

    pub(super) fn begin_final_stop(&mut self, now: Time) {
        self.outbox.clear();
        if self.campaigner == CampaignerState::Dismissed {
            // The tree should be empty already, and no campaigner is left to wait for it.
            self.take_over_leftovers();
            return self.kill(now);
        }
        let program = match &self.tree {
            // Without a campaigner and a program, a background hook or a health check has no purpose.
            CommandTree::Empty if self.has_processes() => {
                self.take_over_leftovers();
                return self.kill(now);
            }
            CommandTree::Empty => return,
            CommandTree::Alive { program, .. } => *program,
        };
        match program {
            Some(Program::Command { .. } | Program::OnElected { .. } | Program::Follower) | None => {
                let deadline = self.deadline.filter(|_| self.is_governed());
                let kill_by = deadline.map_or(Time::NEVER, |deadline| deadline.kill_by);
                self.stop(now, (now + self.policy.stop_timeout).min(kill_by));
            }
            // The hook keeps its time-out, and is not run again.
            Some(Program::OnOusted { .. }) => self.interrupt_check(now),
        }
    }
}
