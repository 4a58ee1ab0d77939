//! The lines about hooks: starts and ends at debug, failures as warnings.

use tracing::{debug, warn};

use super::{EventLog, name};
use elect_core::{BackgroundHook, BackgroundHookEnd, CommandEnd, FromKeeper, Hook, HookFailure, Program, RunId};

impl EventLog {
    /// Logs the start of a hook.
    pub fn hook_starts(&mut self, run: Option<RunId>, hook: Hook) {
        debug!("{} starts", hook_name(hook));
        match (run, hook) {
            (Some(run), _) => self.hook = Some((run, hook)),
            (None, Hook::BackgroundHook(background_hook)) => self.background_hook = Some(background_hook),
            (None, Hook::OnElected | Hook::OnOusted) => {}
        }
    }

    /// Logs the end of a hook, if the keeper's message is one.
    pub fn keeper_message(&mut self, message: &FromKeeper) {
        let (hook, end) = match *message {
            FromKeeper::Exited { run, end } => match self.hook.take_if(|(of, _)| *of == run) {
                Some((_, hook)) => (hook, end),
                None => return,
            },
            FromKeeper::BackgroundHookEnded(BackgroundHookEnd::Ended(end)) => match self.background_hook.take() {
                Some(background_hook) => (Hook::BackgroundHook(background_hook), end),
                None => return,
            },
            FromKeeper::BackgroundHookEnded(BackgroundHookEnd::Failed(_) | BackgroundHookEnd::NotNow)
            | FromKeeper::Armed { .. }
            | FromKeeper::Pong
            | FromKeeper::Progress
            | FromKeeper::AllKilled
            | FromKeeper::Started { .. }
            | FromKeeper::NoCommand { .. }
            | FromKeeper::NotStarted { .. }
            | FromKeeper::LeftBehind { .. }
            | FromKeeper::StopTimedOut { .. }
            | FromKeeper::Expired { .. }
            | FromKeeper::Empty { .. }
            | FromKeeper::Cleared { .. }
            | FromKeeper::CheckEnded { .. }
            | FromKeeper::Terminal(_) => return,
        };
        match end {
            CommandEnd::Exited(status) => debug!(status, "{} ended", hook_name(hook)),
            CommandEnd::Killed { signal, .. } => debug!(signal = name(signal), "{} ended", hook_name(hook)),
        }
    }
}

/// Logs the failure of a hook. Only --on-elected has an effect on the leadership.
pub(super) fn failed(hook: Hook, failure: HookFailure) {
    let hook = hook_name(hook);
    match failure {
        HookFailure::Ended(CommandEnd::Exited(status)) => warn!(status, "{hook} failed"),
        HookFailure::Ended(CommandEnd::Killed { signal, .. }) => warn!(signal = name(signal), "{hook} failed"),
        HookFailure::CannotStart(errno) => {
            let reason = std::io::Error::from_raw_os_error(errno);
            warn!("{hook} cannot be started: {reason}");
        }
        HookFailure::TimedOut => warn!("{hook} took longer than --hook-timeout, and was killed"),
        HookFailure::NoKeeper => warn!("{hook} is not run, or not to its end: the keeper is dead"),
    }
}

/// The flag of a hook.
fn hook_name(hook: Hook) -> &'static str {
    match hook {
        Hook::OnElected => "--on-elected",
        Hook::OnOusted => "--on-ousted",
        Hook::BackgroundHook(BackgroundHook::OnChange) => "--on-change",
        Hook::BackgroundHook(BackgroundHook::OnError) => "--on-error",
    }
}

/// The hook that a program is.
#[must_use]
pub fn hook_of(program: Program) -> Option<Hook> {
    match program {
        Program::OnElected { .. } => Some(Hook::OnElected),
        Program::OnOusted { .. } => Some(Hook::OnOusted),
        Program::Command { .. } | Program::Follower => None,
    }
}
