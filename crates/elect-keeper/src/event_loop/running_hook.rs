//! The hooks that run beside the tree, one at a time, and are part of it: stopped and killed with it, and it is not empty
//! before they are gone (K6). Where there is no tree, they are one of their own.

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

/// A hook that runs beside, or what it has left behind where there is no tree.
#[derive(Debug)]
pub struct RunningHook {
    main: Result<i32, CommandEnd>,
    /// Of its namespace, in that tier, until it has been reaped.
    init: Option<Init>,
    /// Open for as long as it may have something to say.
    _status: OwnedFd,
    /// SIGKILL at this time, and again after ever longer rests.
    kill_at: Time,
    backoff: Option<Duration>,
}

impl RunningHook {
    /// Whether no more than what it has left behind may be there.
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
        // What is being stopped becomes no larger; and what has ended since this was ordered is not to be followed by a hook
        // that nobody expects to find there.
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
        // K9: it is no leader's, and the lock is not for it.
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

    /// Its process group, while its main process lives.
    pub(super) fn hook_group(&self) -> Option<i32> {
        self.running_hook.as_ref().and_then(|hook| hook.main.ok())
    }

    pub(super) fn hook_wake_at(&self) -> Time {
        self.running_hook.as_ref().map_or(Time::NEVER, |hook| hook.kill_at)
    }

    /// A child has ended: if it was the hook's main process, what remains of it is the tree's, or has the rest of its time.
    pub(super) fn on_hook_child_ended(&mut self, pid: i32, status: i32) {
        let Some(hook) = self.running_hook.as_mut() else { return };
        // Its number may be somebody else's from now on.
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
            // It is the tree's if that comes to be one.
            CommandTree::Alive {
                main: MainProcess::Starting(_) | MainProcess::Refused(_),
                stop: Stop::NotRequested,
                ..
            } => {}
            CommandTree::Alive { .. } => self.adopt_finished_hook(),
            CommandTree::Empty => self.stop_hook_leftovers(),
        }
    }

    /// Where there is no tree.
    pub(super) fn stop_hook_leftovers(&mut self) {
        if let Some(signal) = self.spec.as_ref().map(|spec| spec.stop_signal) {
            self.signal_descendants(signal, |_| true);
        }
    }

    /// What an ended hook left behind is the tree's from here on.
    pub(super) fn adopt_finished_hook(&mut self) {
        if let Some(RunningHook { main: Err(end), init, .. }) = self.running_hook.take_if(|hook| hook.main.is_err()) {
            self.leftover_inits.extend(init);
            self.outbox.push_back(FromKeeper::BackgroundHookEnded(BackgroundHookEnd::Ended(end)));
        }
    }

    /// What runs beside no tree is one from here on, to be stopped or killed like any other.
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

    /// Its time-out: the group, and what descends from it; and where there is no tree, everything.
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
            // With it everything in its namespace.
            let _ = sys::kill(init.pid, libc::SIGKILL);
        }
        if let CommandTree::Empty = self.tree {
            let progress = &mut Progress::of(&self.channel, self.campaigner);
            let _ = self.tier.kill(&mut self.scanner, self.own_pid, &[], &mut || progress.report());
        }
    }

    /// No child is left.
    pub(super) fn debug_assert_no_hook(&mut self) {
        self.adopt_finished_hook();
        debug_assert!(self.running_hook.is_none(), "its main process is reaped before that is known");
    }
}
