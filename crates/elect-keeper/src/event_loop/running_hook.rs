//! Background hooks: they run beside the tree, one at a time, and are part of it: they are stopped and killed with the
//! tree, and the tree is not empty before they are gone (K6). Without a tree, a background hook is a tree of its own.

use std::os::fd::OwnedFd;
use std::time::Duration;

use super::start::IdentityVars;
use super::stopping::{Progress, SWEEP_INTERVAL, SWEEP_INTERVAL_MAX, Stop, signal_group};
use super::{CampaignerState, CommandTree, KeeperLoop, MainProcess};
use crate::clock;
use crate::namespace::Init;
use crate::spawn::spawn;
use crate::{sys, tree};
use elect_core::{BackgroundHook, BackgroundHookEnd, CommandEnd, FromKeeper, Time};

/// A background hook, or its leftovers if there is no tree.
#[derive(Debug)]
pub struct RunningHook {
    main: Result<i32, CommandEnd>,
    /// The init of the program's PID namespace (tier `pidns`), until it has been reaped.
    init: Option<Init>,
    /// The read end of the status pipe, open so that the child can write to it.
    _status: OwnedFd,
    /// The time of the next SIGKILL; repeated with a growing backoff.
    kill_at: Time,
    backoff: Option<Duration>,
}

impl RunningHook {
    /// Whether the main process has ended, so that only leftovers can be alive.
    pub(super) fn has_ended(&self) -> bool {
        self.main.is_err()
    }
}

impl KeeperLoop {
    pub(super) fn start_background_hook(
        &mut self,
        background_hook: BackgroundHook,
        context: elect_core::HookContext,
        identity: &IdentityVars,
    ) {
        // A tree that is being stopped must not grow. If the run has ended since this order, the hook must not start in
        // another context than the campaigner ordered.
        let as_expected = match (&self.tree, context) {
            (CommandTree::Alive { stop: Stop::NotRequested, .. }, elect_core::HookContext::WithRun(run)) => {
                run == self.run
            }
            (CommandTree::Empty, elect_core::HookContext::Alone) => true,
            (CommandTree::Alive { .. }, _) | (CommandTree::Empty, elect_core::HookContext::WithRun(_)) => false,
        };
        if !as_expected || self.running_hook.is_some() || self.campaigner != CampaignerState::Present {
            self.outbox.push_back(FromKeeper::BackgroundHookEnded(BackgroundHookEnd::NotNow));
            return;
        }
        let Some((executable, timeout)) = self.spec.as_ref().and_then(|spec| spec.background_hook(background_hook))
        else {
            self.outbox.push_back(FromKeeper::BackgroundHookEnded(BackgroundHookEnd::Failed(libc::ENOENT)));
            return;
        };
        // K9: a background hook does not get the leader's lock.
        match spawn(&self.tier, &executable, identity, self.inherited, None, Time::NEVER, None) {
            Ok(mut spawned) => {
                let kill_at = clock::now() + timeout;
                let init = spawned.init.take();
                let (main, status) = (Ok(spawned.pid), spawned.status);
                self.running_hook = Some(RunningHook { main, init, _status: status, kill_at, backoff: None });
            }
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or(libc::EIO);
                self.outbox.push_back(FromKeeper::BackgroundHookEnded(BackgroundHookEnd::Failed(errno)));
            }
        }
    }

    pub(super) fn has_no_hook(&self) -> bool {
        self.running_hook.is_none()
    }

    /// The hook's process group, while its main process lives.
    pub(super) fn hook_group(&self) -> Option<i32> {
        self.running_hook.as_ref().and_then(|hook| hook.main.ok())
    }

    pub(super) fn hook_wake_at(&self) -> Time {
        self.running_hook.as_ref().map_or(Time::NEVER, |hook| hook.kill_at)
    }

    /// Handles the end of a child. After the end of the hook's main process, its leftovers belong to the tree, or keep
    /// the rest of the hook's time-out if there is no tree.
    pub(super) fn on_hook_child_ended(&mut self, pid: i32, status: i32) {
        let Some(hook) = self.running_hook.as_mut() else { return };
        // The process id may be reused from now on.
        hook.init.take_if(|init| init.pid == pid);
        if hook.main != Ok(pid) {
            return;
        }
        hook.init.iter().for_each(Init::dismiss);
        hook.main = Err(match sys::decode(status) {
            Ok(status) => CommandEnd::Exited(status),
            Err(signal) => CommandEnd::Killed {
                signal: elect_core::Signal(signal),
                escalated: hook.backoff.is_some() && signal == libc::SIGKILL,
            },
        });
        match &self.tree {
            // The leftovers join the tree if the start succeeds.
            CommandTree::Alive {
                main: MainProcess::Starting(_) | MainProcess::Refused(_),
                stop: Stop::NotRequested,
                ..
            } => {}
            CommandTree::Alive { .. } => self.adopt_finished_hook(),
            CommandTree::Empty => self.stop_hook_leftovers(),
        }
    }

    /// Sends the stop signal to the leftovers of a hook that has no tree.
    pub(super) fn stop_hook_leftovers(&mut self) {
        if let Some(signal) = self.spec.as_ref().map(|spec| spec.stop_signal) {
            self.signal_descendants(signal, |_| true);
        }
    }

    /// Makes the leftovers of an ended hook part of the tree.
    pub(super) fn adopt_finished_hook(&mut self) {
        if let Some(RunningHook { main: Err(end), init, .. }) = self.running_hook.take_if(|hook| hook.main.is_err()) {
            self.leftover_inits.extend(init);
            self.outbox.push_back(FromKeeper::BackgroundHookEnded(BackgroundHookEnd::Ended(end)));
        }
    }

    /// Turns a background hook, or its leftovers, that has no tree into a tree that can be stopped or killed like any
    /// other.
    pub(super) fn take_over_hook_leftovers(&mut self) {
        if let CommandTree::Empty = self.tree {
            // K1: a kill that has begun goes on.
            let stop = match self.running_hook.as_ref().and_then(|hook| Some((hook.kill_at, hook.backoff?))) {
                Some((retry_at, backoff)) => Stop::Killing { retry_at, backoff },
                None => Stop::NotRequested,
            };
            self.tree = CommandTree::Alive {
                program: None,
                main: MainProcess::Ended,
                group: 0,
                stop,
                init: None,
                until: Time::NEVER,
            };
            self.adopt_finished_hook();
        }
    }

    /// Enforces the hook's time-out: kills the hook's group and its descendants; without a tree, every descendant of
    /// the keeper.
    pub(super) fn enforce_hook_timeout(&mut self, now: Time) {
        let Some(hook) = self.running_hook.as_mut().filter(|hook| now >= hook.kill_at) else { return };
        let backoff = hook.backoff.map_or(SWEEP_INTERVAL, |backoff| (backoff * 2).min(SWEEP_INTERVAL_MAX));
        (hook.backoff, hook.kill_at) = (Some(backoff), now + backoff);
        if let Ok(pid) = hook.main {
            let progress = &mut Progress::of(&self.channel, self.campaigner);
            let _ = self.scanner.kill(pid, &[], tree::DESCENDANTS_MAX, &mut || progress.report());
            signal_group(pid, libc::SIGKILL);
        }
        if let Some(init) = &hook.init {
            // The kernel kills every process in the init's namespace with it.
            let _ = sys::kill(init.pid, libc::SIGKILL);
        }
        if let CommandTree::Empty = self.tree {
            let progress = &mut Progress::of(&self.channel, self.campaigner);
            let _ = self.tier.kill(&mut self.scanner, self.own_pid, &[], &mut || progress.report());
        }
    }

    /// Asserts, when no child is left, that no background hook is left.
    pub(super) fn debug_assert_no_hook(&mut self) {
        self.adopt_finished_hook();
        debug_assert!(self.running_hook.is_none(), "its main process is reaped before that is known");
    }
}
