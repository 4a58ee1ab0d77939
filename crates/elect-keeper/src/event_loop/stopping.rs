//! Stopping and killing the tree: the stop signal, the deadlines and SIGKILL (K1, K6, K10).

use std::time::Duration;

use nix::unistd::Pid;

use super::{CampaignerState, CommandTree, KeeperLoop, KillDeadline};
use crate::clock;
use crate::protocol::Channel;
use crate::sys;
use crate::tree::KillSweep;
use elect_core::{FromKeeper, Program, Time};

/// The delay before a killed tree is swept again if no child's end wakes the loop earlier; doubled up to the maximum.
pub(super) const SWEEP_INTERVAL: Duration = Duration::from_millis(5);
pub(super) const SWEEP_INTERVAL_MAX: Duration = Duration::from_millis(100);

/// After a sweep that left nothing to kill, so many times its duration pass before the next: thousands of processes need
/// the processor to end, and a sweep over all of them, with priority, takes it from them.
const COMPLETE_SWEEP_PAUSE: u32 = 4;
const COMPLETE_SWEEP_PAUSE_MAX: Duration = Duration::from_secs(1);

/// The minimum time between two reports of progress.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(25);

#[derive(Debug, Clone, Copy)]
pub(super) enum Stop {
    NotRequested,
    /// The stop signal was sent; SIGKILL follows.
    Terminating {
        kill_at: Time,
    },
    /// SIGKILL was sent, and is sent again until the tree is empty.
    Killing {
        retry_at: Time,
        backoff: Duration,
    },
}

impl KeeperLoop {
    /// K1: past a deadline the tree is killed unconditionally, except a follower and the hook after a term, which the
    /// deadline does not govern.
    pub(super) fn enforce(&mut self, now: Time) {
        self.enforce_hook_timeout(now);
        let CommandTree::Alive { program, stop, until, .. } = &self.tree else { return };
        let due = match *stop {
            Stop::NotRequested => now >= *until,
            Stop::Terminating { kill_at } => now >= kill_at.min(*until),
            Stop::Killing { retry_at, .. } => now >= retry_at,
        };
        let governed = program.and_then(Program::deadline_term).is_some();
        let expired = self.deadline.filter(|deadline| governed && !deadline.expired && now >= deadline.kill_by);
        if due || expired.is_some() {
            self.kill();
        }
        if let (Some(KillDeadline { term, .. }), Some(deadline)) = (expired, self.deadline.as_mut()) {
            deadline.expired = true;
            self.outbox.push_back(FromKeeper::Expired { term });
        }
    }

    pub(super) fn kill(&mut self) {
        let CommandTree::Alive { main, stop, init, .. } = &mut self.tree else { return };
        sys::schedule_first();
        // Each of these calls kills many processes at once, before the walk finds the others.
        if let Some(init) = init {
            init.kill();
        }
        let progress = &mut Progress::of(&self.channel, self.campaigner);
        let mut pause = Duration::ZERO;
        if let Some(pid) = main.pid() {
            signal_group(pid, libc::SIGKILL);
            progress.report();
        }
        if let KillSweep::Complete(_) = self.tier.kill(&mut self.scanner, self.own_pid, &[], &mut || progress.report())
        {
            // All processes are dying; only reaping is left. Reaping a process that `ps` is reading waits, in a busy
            // loop in the kernel, until `ps` lets go. A reaper with real-time priority would keep `ps` from running:
            // for a second. Without that priority, thousands of dying processes may run before the keeper does, so the
            // campaigner is told first.
            progress.report_all_killed();
            self.inherited.schedule_as_before();
            pause = (progress.elapsed() * COMPLETE_SWEEP_PAUSE).min(COMPLETE_SWEEP_PAUSE_MAX);
        }
        let backoff = match *stop {
            Stop::Killing { backoff, .. } => (backoff * 2).min(SWEEP_INTERVAL_MAX),
            Stop::NotRequested | Stop::Terminating { .. } => SWEEP_INTERVAL,
        };
        *stop = Stop::Killing { retry_at: clock::now() + backoff.max(pause), backoff };
    }

    /// Sends the stop signal now, and SIGKILL at `kill_at` or at an earlier time that was already set.
    pub(super) fn stop(&mut self, kill_at: Time) {
        let Some(spec) = &self.spec else { return };
        let stop_signal = spec.stop_signal;
        let hook_group = self.hook_group();
        let CommandTree::Alive { main, stop, .. } = &mut self.tree else { return };
        let before = std::mem::replace(stop, stop.with_kill_at(kill_at));
        if !matches!(before, Stop::NotRequested) {
            return;
        }
        if let Some(pid) = main.pid() {
            signal_group(pid, stop_signal);
            // A stopped process handles no signal but SIGKILL and SIGCONT.
            signal_group(pid, libc::SIGCONT);
            if let Some(group) = hook_group {
                signal_group(group, stop_signal);
                signal_group(group, libc::SIGCONT);
            }
        } else {
            self.signal_descendants(stop_signal, |_| true);
        }
    }

    pub(super) fn signal_descendants(&mut self, signal: i32, chosen: impl Fn(i32) -> bool) {
        self.scanner.signal_descendants(self.own_pid, &[], signal, &chosen);
        self.scanner.signal_descendants(self.own_pid, &[], libc::SIGCONT, &chosen);
    }

    /// K10: the remaining descendants get the stop signal and, within the time-out that already runs or starts now,
    /// SIGKILL.
    pub(super) fn stop_descendants(&mut self) {
        let Some(spec) = &self.spec else { return };
        let (signal, timeout) = (spec.stop_signal, spec.stop_timeout);
        let hook_group = self.hook_group();
        let CommandTree::Alive { group, stop, .. } = &mut self.tree else { return };
        let groups = [Some(*group), hook_group];
        match *stop {
            Stop::NotRequested => {
                *stop = stop.with_kill_at(clock::now() + timeout);
                self.signal_descendants(signal, |_| true);
            }
            // The groups of the main process and of a background hook have had the signal already; some programs treat
            // a second one as "at once".
            Stop::Terminating { .. } => self.signal_descendants(signal, |pid| {
                nix::unistd::getpgid(Some(Pid::from_raw(pid))).is_ok_and(|of| !groups.contains(&Some(of.as_raw())))
            }),
            Stop::Killing { .. } => {}
        }
    }

    pub(super) fn begin_final_stop(&mut self) {
        self.outbox.clear();
        if self.campaigner == CampaignerState::Dismissed {
            // The tree should be empty already, and no campaigner is left to wait for it.
            self.take_over_hook_leftovers();
            return self.kill();
        }
        let timeout = self.spec.as_ref().map_or(Duration::ZERO, |spec| spec.stop_timeout);
        let program = match &self.tree {
            // Without a campaigner and a program, a background hook has no purpose.
            CommandTree::Empty if !self.has_no_hook() => {
                self.take_over_hook_leftovers();
                return self.kill();
            }
            CommandTree::Empty => return,
            CommandTree::Alive { program, .. } => *program,
        };
        let kill_at = clock::now() + timeout;
        let deadline = self.deadline.filter(|_| program.and_then(Program::deadline_term).is_some());
        match program {
            Some(Program::Command { .. } | Program::OnElected { .. } | Program::Follower) | None => {
                self.stop(kill_at.min(deadline.map_or(Time::NEVER, |deadline| deadline.kill_by)));
            }
            // The hook keeps its time-out, and is not run again.
            Some(Program::OnOusted { .. }) => {}
        }
    }
}

impl Stop {
    /// The state after another stop request: the kill time only moves to an earlier time, and a kill that has begun is
    /// never turned back into a stop (K1).
    pub(super) fn with_kill_at(self, kill_at: Time) -> Stop {
        match self {
            Stop::NotRequested => Stop::Terminating { kill_at },
            Stop::Terminating { kill_at: before } => Stop::Terminating { kill_at: before.min(kill_at) },
            Stop::Killing { .. } => self,
        }
    }
}

/// Reports to the campaigner, during a long kill, that the keeper lives (K4). A report that finds no room is dropped.
pub(super) struct Progress<'a> {
    channel: Option<&'a Channel>,
    began: Time,
    last: Time,
}

impl Progress<'_> {
    pub(super) fn of(channel: &Channel, campaigner: CampaignerState) -> Progress<'_> {
        let began = clock::now();
        Progress { channel: Some(channel).filter(|_| campaigner == CampaignerState::Present), began, last: began }
    }

    pub(super) fn report(&mut self) {
        let now = clock::now();
        if let Some(channel) = self.channel
            && now.since(self.last) >= PROGRESS_INTERVAL
        {
            self.last = now;
            channel.report_progress();
        }
    }

    /// The duration of the sweep so far.
    fn elapsed(&self) -> Duration {
        clock::now().since(self.began)
    }

    /// Reports the end of a sweep that was long enough to need reports.
    fn report_all_killed(&self) {
        if let Some(channel) = self.channel
            && self.elapsed() >= PROGRESS_INTERVAL
        {
            channel.report_all_killed();
        }
    }
}

/// Signals the group of the main process, and the main process itself if it has moved to another group.
pub(super) fn signal_group(main: i32, signal: i32) {
    let _ = sys::kill(-main, signal);
    if nix::unistd::getpgid(Some(Pid::from_raw(main))).is_ok_and(|group| group.as_raw() != main) {
        let _ = sys::kill(main, signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Time = Time::from_nanos(1_000);
    const LATER: Time = Time::from_nanos(2_000);

    #[test]
    fn a_kill_that_has_begun_is_never_turned_back_into_a_stop() {
        let killing = Stop::Killing { retry_at: SOON, backoff: SWEEP_INTERVAL };
        for kill_at in [Time::BOOT, SOON, LATER, Time::NEVER] {
            assert!(matches!(killing.with_kill_at(kill_at), Stop::Killing { retry_at: SOON, backoff: SWEEP_INTERVAL }));
        }
    }

    #[test]
    fn a_kill_that_is_due_is_not_put_off_by_another_stop() {
        let asked = Stop::NotRequested.with_kill_at(SOON);
        assert!(matches!(asked, Stop::Terminating { kill_at: SOON }));
        assert!(matches!(asked.with_kill_at(LATER), Stop::Terminating { kill_at: SOON }));
        assert!(matches!(asked.with_kill_at(Time::BOOT), Stop::Terminating { kill_at: Time::BOOT }));
    }
}
