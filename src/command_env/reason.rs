//! The words of `ELECT_REASON`, which tells a hook why it runs.

use crate::leader_tracker::KnownLeader;
use elect_core::{KillCause, Notice, Reason};

/// `--on-elected`, and `--on-change` when this candidate begins to lead.
pub(super) const ELECTED: &str = "elected";
/// `--on-error`.
pub(super) const STORE_ERROR: &str = "store-error";
/// `--on-ousted`: elect was asked to stop.
pub const STOPPED: &str = "stopped";
/// `--on-ousted`: `elect resign`.
pub const RESIGNED: &str = "resigned";

/// `--on-ousted`: `elect drain`.
pub const DRAINED: &str = "drained";
const LEASE_EXPIRED: &str = "lease-expired";
const LOST: &str = "lost";

/// The reason for `--on-change`.
pub(super) fn of_change(known: &KnownLeader) -> &'static str {
    match known {
        KnownLeader::Ourselves(_) => ELECTED,
        KnownLeader::Another(_) => "another-leads",
        KnownLeader::Nobody => "no-leader",
    }
}

/// The reason why a term ends, if the notice is about that.
#[must_use]
pub fn of_notice(notice: &Notice) -> Option<&'static str> {
    match notice {
        Notice::Stopping { reason, .. } | Notice::LostAtRest { reason, .. } => Some(of_reason(*reason)),
        Notice::Killing { cause: KillCause::LeaseRanOut, .. } => Some(LEASE_EXPIRED),
        Notice::Killing { cause: KillCause::Lost, .. } => Some(LOST),
        Notice::GivenUp { .. } => Some("restart-limit"),
        Notice::Killing { cause: KillCause::SecondSignal, .. }
        | Notice::Won { .. }
        | Notice::TermTooLow { .. }
        | Notice::Elected { .. }
        | Notice::Started { .. }
        | Notice::CommandEnded { .. }
        | Notice::LeftBehind { .. }
        | Notice::StopTimedOut { .. }
        | Notice::StopShortened { .. }
        | Notice::FollowerKilling
        | Notice::Restarting { .. }
        | Notice::LeadingIdle { .. }
        | Notice::NotAccepted { .. }
        | Notice::HookFailed { .. }
        | Notice::CampaignsAgain
        | Notice::Drained
        | Notice::Undrained
        | Notice::Healthy
        | Notice::Unhealthy { .. }
        | Notice::LongUnhealthy { .. }
        | Notice::FollowerStarted { .. }
        | Notice::FollowerEnded { .. }
        | Notice::FollowerCannotStart(_)
        | Notice::FollowerStopping { .. }
        | Notice::FollowerUnconfirmed
        | Notice::Unconfirmed { .. }
        | Notice::Released { .. }
        | Notice::NotReleased { .. }
        | Notice::Unusable(_)
        | Notice::NotElected
        | Notice::Unavailable
        | Notice::KeeperSilent
        | Notice::KeeperDied => None,
    }
}

fn of_reason(reason: Reason) -> &'static str {
    match reason {
        Reason::CommandEnded => "command-ended",
        Reason::CannotStart(_) => "cannot-start",
        Reason::Asked(_) => STOPPED,
        Reason::Resigned => RESIGNED,
        Reason::Drained => DRAINED,
        Reason::Unhealthy => "unhealthy",
        Reason::NotAccepted => "on-elected-failed",
        Reason::RunningOut => LEASE_EXPIRED,
        Reason::Lost => LOST,
        Reason::KeeperDied => "keeper-died",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hook_after_a_term_is_told_the_last_reason() {
        let stopping = |reason| of_notice(&Notice::Stopping { term: 7, reason });
        assert_eq!(stopping(Reason::Resigned), Some("resigned"));
        assert_eq!((stopping(Reason::Drained), stopping(Reason::Unhealthy)), (Some("drained"), Some("unhealthy")));
        assert_eq!(stopping(Reason::RunningOut), Some("lease-expired"));
        assert_eq!(of_notice(&Notice::Killing { term: 7, cause: KillCause::Lost }), Some("lost"));
        assert_eq!(of_notice(&Notice::GivenUp { term: 7, sits_out: None }), Some("restart-limit"));
        assert_eq!(of_notice(&Notice::Killing { term: 7, cause: KillCause::SecondSignal }), None);
    }
}
