//! The phase of a candidate, and the meanings of "leads" that follow from it.

/// The phase of a candidate, as the log and the status show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Campaigning: not the leader.
    Campaigning,
    /// The store has answered with a win, which is being verified.
    Verifying,
    /// Leading.
    Leading,
    /// The command is being stopped.
    Stopping,
    /// Leading, and nothing runs: between two runs of the command, or because the boundary is to be kept.
    LeadingIdle,
    /// Leading no longer, while `--on-ousted` runs.
    OustedHook,
    /// The boundary is being given back.
    Releasing,
    /// Not campaigning, because the candidate is unhealthy or drained.
    Ineligible,
    /// Not standing for a while: the command has failed here too often, or the hook before it.
    CoolingDown,
    /// Over but for the follower, which is being stopped.
    StoppingFollower,
    /// Over.
    Ended,
}

impl Phase {
    /// Whether control requests that need a leader (`assert`, `resign`, `proclaim`) are accepted: we lead, and nothing
    /// is being stopped.
    #[must_use]
    pub fn accepts_requests(self) -> bool {
        match self {
            Phase::Leading | Phase::LeadingIdle => true,
            Phase::Campaigning
            | Phase::Verifying
            | Phase::Stopping
            | Phase::OustedHook
            | Phase::Releasing
            | Phase::Ineligible
            | Phase::CoolingDown
            | Phase::StoppingFollower
            | Phase::Ended => false,
        }
    }

    /// Whether the leader command, or the hook before it, may be alive.
    #[must_use]
    pub fn may_have_command(self) -> bool {
        match self {
            Phase::Leading | Phase::Stopping => true,
            Phase::Campaigning
            | Phase::Verifying
            | Phase::LeadingIdle
            | Phase::OustedHook
            | Phase::Releasing
            | Phase::Ineligible
            | Phase::CoolingDown
            | Phase::StoppingFollower
            | Phase::Ended => false,
        }
    }

    /// Whether a verified term is held, from its election until its last program is over.
    #[must_use]
    pub fn holds_term(self) -> bool {
        match self {
            Phase::Leading | Phase::Stopping | Phase::LeadingIdle | Phase::OustedHook => true,
            Phase::Campaigning
            | Phase::Verifying
            | Phase::Releasing
            | Phase::Ineligible
            | Phase::CoolingDown
            | Phase::StoppingFollower
            | Phase::Ended => false,
        }
    }

    /// Whether a follower may run: another candidate may lead, and nothing of our own is about to.
    #[must_use]
    pub fn may_follow(self) -> bool {
        match self {
            Phase::Campaigning | Phase::Ineligible => true,
            Phase::Verifying
            | Phase::Leading
            | Phase::Stopping
            | Phase::LeadingIdle
            | Phase::OustedHook
            | Phase::Releasing
            | Phase::CoolingDown
            | Phase::StoppingFollower
            | Phase::Ended => false,
        }
    }
}
