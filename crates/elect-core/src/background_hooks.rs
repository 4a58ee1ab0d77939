//! The hooks that run beside other programs: `--on-change` and `--on-error`, one at a time.
//!
//! Events that come while one of them runs, or while there is no slot for one, are folded: each hook is run once more
//! for all of them.

use crate::{BackgroundHook, BackgroundHookEnd, CommandEnd, HookFailure};

#[derive(Debug, Default)]
pub(super) struct BackgroundHooks {
    change_due: bool,
    error_due: bool,
    running: Option<BackgroundHook>,
    /// The hook that ran last, so that neither delays the other forever.
    last: Option<BackgroundHook>,
}

impl BackgroundHooks {
    /// Marks a hook as due: an event of its kind has happened.
    pub(super) fn due(&mut self, background_hook: BackgroundHook) {
        match background_hook {
            BackgroundHook::OnChange => self.change_due = true,
            BackgroundHook::OnError => self.error_due = true,
        }
    }

    /// The one to start now, if any. It counts as running from here on.
    pub(super) fn next(&mut self) -> Option<BackgroundHook> {
        if self.running.is_some() {
            return None;
        }
        let next = match (self.change_due, self.error_due) {
            (true, true) if self.last == Some(BackgroundHook::OnChange) => BackgroundHook::OnError,
            (true, _) => BackgroundHook::OnChange,
            (false, true) => BackgroundHook::OnError,
            (false, false) => return None,
        };
        match next {
            BackgroundHook::OnChange => self.change_due = false,
            BackgroundHook::OnError => self.error_due = false,
        }
        (self.running, self.last) = (Some(next), Some(next));
        Some(next)
    }

    /// The one that ran does so no more. Returns what went wrong with it.
    pub(super) fn ended(&mut self, end: BackgroundHookEnd) -> Option<(BackgroundHook, HookFailure)> {
        let background_hook = self.running.take()?;
        let failure = match end {
            BackgroundHookEnd::Ended(CommandEnd::Exited(0)) => return None,
            BackgroundHookEnd::Ended(CommandEnd::Killed { escalated: true, .. }) => HookFailure::TimedOut,
            BackgroundHookEnd::Ended(end) => HookFailure::Ended(end),
            BackgroundHookEnd::Failed(errno) => HookFailure::CannotStart(errno),
            BackgroundHookEnd::NotNow => {
                self.due(background_hook);
                return None;
            }
        };
        Some((background_hook, failure))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WELL: BackgroundHookEnd = BackgroundHookEnd::Ended(CommandEnd::Exited(0));

    #[test]
    fn what_happens_while_one_runs_is_folded_into_one_more_run_of_each() {
        let mut background_hooks = BackgroundHooks::default();
        assert_eq!(background_hooks.next(), None);
        background_hooks.due(BackgroundHook::OnChange);
        assert_eq!(background_hooks.next(), Some(BackgroundHook::OnChange));
        for _ in 0..5 {
            background_hooks.due(BackgroundHook::OnChange);
            background_hooks.due(BackgroundHook::OnError);
            assert_eq!(background_hooks.next(), None, "one at a time");
        }
        assert_eq!(background_hooks.ended(WELL), None);
        assert_eq!(background_hooks.next(), Some(BackgroundHook::OnError), "they take turns");
        assert_eq!(background_hooks.ended(WELL), None);
        assert_eq!(background_hooks.next(), Some(BackgroundHook::OnChange));
        assert_eq!(background_hooks.ended(WELL), None);
        assert_eq!(background_hooks.next(), None);
    }

    #[test]
    fn one_that_found_no_place_is_still_due() {
        let mut background_hooks = BackgroundHooks::default();
        background_hooks.due(BackgroundHook::OnError);
        assert_eq!(background_hooks.next(), Some(BackgroundHook::OnError));
        assert_eq!(background_hooks.ended(BackgroundHookEnd::NotNow), None);
        assert_eq!(background_hooks.next(), Some(BackgroundHook::OnError));
    }

    #[test]
    fn what_went_wrong_is_said() {
        let failed = CommandEnd::Exited(3);
        let timed_out = CommandEnd::Killed { signal: crate::Signal(9), escalated: true };
        for (end, failure) in [
            (BackgroundHookEnd::Ended(failed), HookFailure::Ended(failed)),
            (BackgroundHookEnd::Ended(timed_out), HookFailure::TimedOut),
            (BackgroundHookEnd::Failed(11), HookFailure::CannotStart(11)),
        ] {
            let mut background_hooks = BackgroundHooks::default();
            background_hooks.due(BackgroundHook::OnChange);
            assert_eq!(background_hooks.next(), Some(BackgroundHook::OnChange));
            assert_eq!(background_hooks.ended(end), Some((BackgroundHook::OnChange, failure)));
            assert_eq!(background_hooks.ended(end), None, "said once");
        }
    }
}
