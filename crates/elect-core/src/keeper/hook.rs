//! Background hooks: they run beside the tree, one at a time, and are part of it: they are stopped and killed with the
//! tree, and the tree is not empty before they are gone (K6). Without a tree, a background hook is a tree of its own.

use std::time::Duration;

use super::mutation::KeeperMutation;
use super::start::AwaitedSpawn;
use super::tree::{CommandTree, KillCause, MainProcess, Stop, next_backoff};
use super::{CampaignerState, ChildEnd, ENOENT, KeeperAction, KeeperMachine, Recipients, SIGKILL};
use crate::{BackgroundHook, BackgroundHookEnd, CommandEnd, FromKeeper, HookContext, Time};

/// A background hook, or its leftovers if there is no tree.
#[derive(Debug)]
pub(super) struct RunningHook {
    pub(super) main: Result<i32, CommandEnd>,
    /// The init of the program's PID namespace (tier `pidns`), until it has been reaped.
    init: Option<i32>,
    /// The time of the next SIGKILL; repeated with a growing backoff.
    pub(super) kill_at: Time,
    backoff: Option<Duration>,
}

impl KeeperMachine {
    pub(super) fn start_background_hook(&mut self, background_hook: BackgroundHook, context: HookContext) {
        // A tree that is being stopped must not grow. If the run has ended since this order, the hook must not start in
        // another context than the campaigner ordered.
        let as_expected = match (&self.tree, context) {
            (CommandTree::Alive { stop: Stop::NotRequested, .. }, HookContext::WithRun(run)) => run == self.run,
            (CommandTree::Empty, HookContext::Alone) => true,
            (CommandTree::Alive { .. }, _) | (CommandTree::Empty, HookContext::WithRun(_)) => false,
        };
        let is_configured = match background_hook {
            BackgroundHook::OnChange => self.policy.hooks.on_change,
            BackgroundHook::OnError => self.policy.hooks.on_error,
        };
        if !as_expected
            || self.is_empty_awaited
            || self.running_hook.is_some()
            || self.campaigner != CampaignerState::Present
        {
            self.send(FromKeeper::BackgroundHookEnded(BackgroundHookEnd::NotNow));
        } else if is_configured {
            self.awaited_spawn = Some(AwaitedSpawn::Hook);
            self.act(KeeperAction::SpawnHook(background_hook));
        } else {
            self.send(FromKeeper::BackgroundHookEnded(BackgroundHookEnd::Failed(ENOENT)));
        }
    }

    pub(super) fn grow_hook(&mut self, now: Time, pid: i32, init: Option<i32>) {
        let kill_at = now + self.policy.hooks.timeout;
        self.running_hook = Some(RunningHook { main: Ok(pid), init, kill_at, backoff: None });
    }

    /// The hook's process group, while its main process lives.
    pub(super) fn hook_group(&self) -> Option<i32> {
        self.running_hook.as_ref().and_then(|hook| hook.main.ok())
    }

    /// Handles the end of a child. After the end of the hook's main process, its leftovers belong to the tree, or keep
    /// the rest of the hook's time-out if there is no tree.
    pub(super) fn on_hook_child_ended(&mut self, pid: i32, end: ChildEnd) {
        let Some(hook) = self.running_hook.as_mut() else { return };
        // The process id may be reused from now on.
        hook.init.take_if(|init| *init == pid);
        if hook.main != Ok(pid) {
            return;
        }
        hook.main = Err(end.escalated_if(hook.backoff.is_some()));
        let init = hook.init;
        self.dismiss_init(init);
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
        self.signal_descendants(self.check_pid().map_or(Recipients::All, Recipients::Beside));
    }

    /// Makes the leftovers of an ended hook part of the tree.
    pub(super) fn adopt_finished_hook(&mut self) {
        if let Some(RunningHook { main: Err(end), .. }) = self.running_hook.take_if(|hook| hook.main.is_err()) {
            self.send(FromKeeper::BackgroundHookEnded(BackgroundHookEnd::Ended(end)));
        }
    }

    /// Turns a background hook or a health check that has no tree, or its leftovers, into a tree that can be stopped or
    /// killed like any other.
    pub(super) fn take_over_leftovers(&mut self) {
        if self.tree.is_empty() && !self.mutated(KeeperMutation::ForgetsLoneHook) {
            // K1: a kill that has begun goes on.
            let stop = match self.running_hook.as_ref().and_then(|hook| Some((hook.kill_at, hook.backoff?))) {
                Some((retry_at, backoff)) => Stop::Killing { retry_at, backoff, cause: KillCause::Other },
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
            self.check_leftovers = None;
        }
    }

    /// Enforces the hook's time-out: kills the hook's group and its descendants; without a tree, every descendant of
    /// the keeper but a health check.
    pub(super) fn enforce_hook_timeout(&mut self, now: Time) {
        let Some(hook) = self.running_hook.as_mut().filter(|hook| now >= hook.kill_at) else { return };
        let backoff = next_backoff(hook.backoff);
        (hook.backoff, hook.kill_at) = (Some(backoff), now + backoff);
        let (main, init) = (hook.main, hook.init);
        if let Ok(main) = main {
            self.act(KeeperAction::KillHook { main });
        }
        if let Some(init) = init {
            self.act(KeeperAction::KillInit { init });
        }
        if self.tree.is_empty() {
            self.act(KeeperAction::KillLeftovers { except: self.unkilled_check() });
        }
    }

    /// When no child is left, no background hook is left: its main process was reaped before that was known.
    pub(super) fn end_hook(&mut self) {
        self.adopt_finished_hook();
        debug_assert!(self.running_hook.is_none() || self.has_mutation(), "its main process has not been reaped");
    }
}

impl ChildEnd {
    /// The end of a main process, if SIGKILL has or has not been sent to it.
    pub(super) fn escalated_if(self, is_killing: bool) -> CommandEnd {
        match self {
            ChildEnd::Exited(status) => CommandEnd::Exited(status),
            ChildEnd::Killed(signal) => CommandEnd::Killed { signal, escalated: is_killing && signal == SIGKILL },
        }
    }
}
