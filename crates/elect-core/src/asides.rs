//! The hooks that run beside the rest: `--on-change` and `--on-error`, one at a time.
//!
//! What happens while one of them runs, or while there is no place for one, is folded: each is run once more for all of it.

use super::event::{Aside, AsideEnd, CommandEnd, HookFailure};

#[derive(Debug, Default)]
pub(super) struct Asides {
    change_due: bool,
    error_due: bool,
    running: Option<Aside>,
    /// Which had its turn before, so that neither keeps the other waiting for ever.
    last: Option<Aside>,
}

impl Asides {
    /// Something has happened that one of them is for.
    pub(super) fn due(&mut self, aside: Aside) {
        match aside {
            Aside::OnChange => self.change_due = true,
            Aside::OnError => self.error_due = true,
        }
    }

    /// The one to start now, if any. It counts as running from here on.
    pub(super) fn next(&mut self) -> Option<Aside> {
        if self.running.is_some() {
            return None;
        }
        let next = match (self.change_due, self.error_due) {
            (true, true) if self.last == Some(Aside::OnChange) => Aside::OnError,
            (true, _) => Aside::OnChange,
            (false, true) => Aside::OnError,
            (false, false) => return None,
        };
        match next {
            Aside::OnChange => self.change_due = false,
            Aside::OnError => self.error_due = false,
        }
        (self.running, self.last) = (Some(next), Some(next));
        Some(next)
    }

    /// The one that ran does so no more. Returns what went wrong with it.
    pub(super) fn ended(&mut self, end: AsideEnd) -> Option<(Aside, HookFailure)> {
        let aside = self.running.take()?;
        let failure = match end {
            AsideEnd::Ended(CommandEnd::Exited(0)) => return None,
            AsideEnd::Ended(CommandEnd::Killed { escalated: true, .. }) => HookFailure::TimedOut,
            AsideEnd::Ended(end) => HookFailure::Ended(end),
            AsideEnd::Failed(errno) => HookFailure::CannotStart(errno),
            AsideEnd::NotNow => {
                self.due(aside);
                return None;
            }
        };
        Some((aside, failure))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WELL: AsideEnd = AsideEnd::Ended(CommandEnd::Exited(0));

    #[test]
    fn what_happens_while_one_runs_is_folded_into_one_more_run_of_each() {
        let mut asides = Asides::default();
        assert_eq!(asides.next(), None);
        asides.due(Aside::OnChange);
        assert_eq!(asides.next(), Some(Aside::OnChange));
        for _ in 0..5 {
            asides.due(Aside::OnChange);
            asides.due(Aside::OnError);
            assert_eq!(asides.next(), None, "one at a time");
        }
        assert_eq!(asides.ended(WELL), None);
        assert_eq!(asides.next(), Some(Aside::OnError), "they take turns");
        assert_eq!(asides.ended(WELL), None);
        assert_eq!(asides.next(), Some(Aside::OnChange));
        assert_eq!(asides.ended(WELL), None);
        assert_eq!(asides.next(), None);
    }

    #[test]
    fn one_that_found_no_place_is_still_due() {
        let mut asides = Asides::default();
        asides.due(Aside::OnError);
        assert_eq!(asides.next(), Some(Aside::OnError));
        assert_eq!(asides.ended(AsideEnd::NotNow), None);
        assert_eq!(asides.next(), Some(Aside::OnError));
    }

    #[test]
    fn what_went_wrong_is_said() {
        let failed = CommandEnd::Exited(3);
        let timed_out = CommandEnd::Killed { signal: crate::Signal(9), escalated: true };
        for (end, failure) in [
            (AsideEnd::Ended(failed), HookFailure::Ended(failed)),
            (AsideEnd::Ended(timed_out), HookFailure::TimedOut),
            (AsideEnd::Failed(11), HookFailure::CannotStart(11)),
        ] {
            let mut asides = Asides::default();
            asides.due(Aside::OnChange);
            assert_eq!(asides.next(), Some(Aside::OnChange));
            assert_eq!(asides.ended(end), Some((Aside::OnChange, failure)));
            assert_eq!(asides.ended(end), None, "said once");
        }
    }
}
