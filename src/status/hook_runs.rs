//! Which hooks run, so that the end of each is counted once, with its result.

use elect_core::{BackgroundHook, BackgroundHookEnd, CommandEnd, FromKeeper, Hook, HookFailure, Program, RunId};

/// The hooks that run now: at most one of each kind.
#[derive(Debug, Default)]
pub(super) struct HookRuns {
    /// In place of the command.
    foreground: Option<(RunId, Hook)>,
    /// Beside it.
    background: Option<BackgroundHook>,
}

/// The end of a hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HookRun {
    /// Its flag, as a label.
    pub(crate) hook: &'static str,
    /// One of [`HookRun::RESULTS`].
    pub(crate) result: &'static str,
}

impl HookRun {
    const OK: &'static str = "ok";
    const FAILED: &'static str = "failed";
    const TIMED_OUT: &'static str = "timed_out";
    const NOT_STARTED: &'static str = "not_started";
    /// Every result.
    #[cfg(feature = "listen")]
    pub(crate) const RESULTS: [&'static str; 4] =
        [HookRun::OK, HookRun::FAILED, HookRun::TIMED_OUT, HookRun::NOT_STARTED];

    fn of(hook: Hook, result: &'static str) -> HookRun {
        let hook = match hook {
            Hook::OnElected => "on_elected",
            Hook::OnOusted => "on_ousted",
            Hook::BackgroundHook(BackgroundHook::OnChange) => "on_change",
            Hook::BackgroundHook(BackgroundHook::OnError) => "on_error",
        };
        HookRun { hook, result }
    }
}

impl HookRuns {
    /// The keeper is asked to start this.
    pub(super) fn starting(&mut self, program: Program, run: RunId) {
        self.foreground = match program {
            Program::OnElected { .. } => Some((run, Hook::OnElected)),
            Program::OnOusted { .. } => Some((run, Hook::OnOusted)),
            Program::Command { .. } | Program::Follower => None,
        };
    }

    /// The keeper is asked to start this beside the command.
    pub(super) fn starting_beside(&mut self, hook: BackgroundHook) {
        self.background = Some(hook);
    }

    /// A hook that ended well. Every other end is a notice of the election, which knows the reason.
    pub(super) fn ended_well(&mut self, message: &FromKeeper) -> Option<HookRun> {
        let hook = if let FromKeeper::Exited { run, end: CommandEnd::Exited(0) } = message {
            self.foreground.take_if(|(started, _)| started == run).map(|(_, hook)| hook)
        } else if let FromKeeper::BackgroundHookEnded(BackgroundHookEnd::Ended(CommandEnd::Exited(0))) = message {
            self.background.take().map(Hook::BackgroundHook)
        } else {
            None
        };
        hook.map(|hook| HookRun::of(hook, HookRun::OK))
    }

    /// A hook that failed.
    pub(super) fn failed(&mut self, hook: Hook, failure: HookFailure) -> HookRun {
        match hook {
            Hook::OnElected | Hook::OnOusted => self.foreground = None,
            Hook::BackgroundHook(_) => self.background = None,
        }
        let result = match failure {
            HookFailure::Ended(_) => HookRun::FAILED,
            HookFailure::TimedOut => HookRun::TIMED_OUT,
            HookFailure::CannotStart(_) | HookFailure::NoKeeper => HookRun::NOT_STARTED,
        };
        HookRun::of(hook, result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WELL: CommandEnd = CommandEnd::Exited(0);

    #[test]
    fn the_end_of_a_hook_is_counted_once_and_that_of_the_command_never() {
        let mut hooks = HookRuns::default();
        let exited = |run| FromKeeper::Exited { run, end: WELL };
        let ok = |hook| Some(HookRun { hook, result: "ok" });
        hooks.starting(Program::OnElected { term: 1 }, 1);
        assert_eq!(hooks.ended_well(&exited(0)), None, "of a run before");
        assert_eq!(hooks.ended_well(&exited(1)), ok("on_elected"));
        assert_eq!(hooks.ended_well(&exited(1)), None);
        hooks.starting(Program::Command { term: 1 }, 2);
        assert_eq!(hooks.ended_well(&exited(2)), None, "the command is no hook");
        hooks.starting(Program::OnOusted { term: 1 }, 3);
        hooks.starting_beside(BackgroundHook::OnError);
        let failed = hooks.failed(Hook::OnOusted, HookFailure::TimedOut);
        assert_eq!(failed, HookRun { hook: "on_ousted", result: "timed_out" });
        assert_eq!(hooks.ended_well(&exited(3)), None, "it has failed already");
        let beside = FromKeeper::BackgroundHookEnded(BackgroundHookEnd::Ended(WELL));
        assert_eq!((hooks.ended_well(&beside), hooks.ended_well(&beside)), (ok("on_error"), None));
    }
}
