//! What a candidate wants besides leading: how long it waits, and what follows a lost leadership.

use std::time::Duration;

use super::time::Time;

/// The wishes of one candidate, the same for as long as it exists. By default it never gives up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wishes {
    /// How long it stands without being elected.
    pub patience: Patience,
    /// What follows a lost leadership.
    pub on_lost: OnLost,
}

/// How long a candidate stands without being elected. It counts from the first question to the store, and anew from the
/// first question after a leadership. A first question is always given the time to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Patience {
    /// Until it is elected or stopped.
    #[default]
    Endless,
    /// For so long on the boot clock. Nothing at all ([`Duration::ZERO`]) is one question and its answer.
    AtMost(Duration),
}

/// What follows a leadership that was lost, once the tree is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnLost {
    /// Stand again.
    #[default]
    Recampaign,
    /// The end of the candidacy.
    End,
}

impl Patience {
    /// When it is exhausted if it begins now.
    pub(super) fn from(self, now: Time) -> Time {
        match self {
            Patience::Endless => Time::NEVER,
            Patience::AtMost(patience) => now + patience,
        }
    }
}
