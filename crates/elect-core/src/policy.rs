//! The configuration of a candidate: how long it campaigns, and what follows a lost leadership or the end of its
//! command.

use std::time::Duration;

use super::time::Time;
use crate::Signal;

/// The policy of one candidate, the same for as long as it exists. By default it never gives up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Policy {
    /// How long it campaigns without being elected.
    pub campaign_limit: CampaignLimit,
    /// The continuation after a lost leadership.
    pub on_lost: OnLost,
    /// How long the boundary is kept from the command's first start in a term, even if the command ends sooner.
    pub min_hold: Duration,
    /// Whether a command that ended by itself is started again.
    pub restart: Restart,
    /// Whether there is a follower, and what a change of the leader means for it.
    pub follower: Option<OnChange>,
    /// Which hooks there are.
    pub hooks: Hooks,
    /// The health check, if there is one.
    pub health: Option<Health>,
    /// Whether it begins drained.
    pub drained: bool,
}

/// The pace of the health check, and the meaning of its results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Health {
    /// The time from the start of a check to that of the next.
    pub interval: Duration,
    /// How long a check may take: at most the interval.
    pub timeout: Duration,
    /// So many successes in a row make the candidate healthy; at least 1.
    pub rise: u32,
    /// So many failures in a row make it unhealthy; at least 1.
    pub fall: u32,
    /// Failures are ignored for this long after the start of the leader command.
    pub start: Duration,
}

/// The effect of a change of the leader on a running follower.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnChange {
    /// It is stopped, and started again.
    Restart,
    /// Its main process gets this signal.
    Signal(Signal),
    /// Nothing.
    Ignore,
}

/// The processes that get the stop signal first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StopTo {
    /// The main process, which knows its workers. The rest of the tree gets the signal when a quarter of the time is
    /// left, and when the main process has ended.
    #[default]
    Main,
    /// Its whole process group.
    Group,
}

/// Which hooks there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "one for each flag")]
pub struct Hooks {
    /// Whether one has to succeed before the command starts.
    pub on_elected: bool,
    /// Whether one runs before the boundary is given back.
    pub on_ousted: bool,
    /// Whether a hook runs at each change of the leader.
    pub on_change: bool,
    /// Whether a hook runs when requests to the store fail.
    pub on_error: bool,
    /// How long each of them may take, all that it starts included.
    pub timeout: Duration,
}

impl Default for Hooks {
    fn default() -> Hooks {
        let timeout = Duration::from_secs(5);
        Hooks { on_elected: false, on_ousted: false, on_change: false, on_error: false, timeout }
    }
}

/// How long a candidate campaigns without being elected. It counts from the first question to the store, and again from
/// the first question after a leadership. A first question is always given the time to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CampaignLimit {
    /// Until it is elected or stopped.
    #[default]
    Unlimited,
    /// For so long on the boot clock. Nothing at all ([`Duration::ZERO`]) is one question and its answer.
    For(Duration),
}

/// The continuation after a leadership that was lost, once the tree is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnLost {
    /// Campaign again.
    #[default]
    Recampaign,
    /// The end of the candidacy.
    End,
}

/// Whether a command that ended by itself is started again, in the same term.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restart {
    /// After which ends.
    pub when: RestartWhen,
    /// Before the first restart; doubled before each further one up to 30 s, until a run has lasted for so long. The
    /// jitter shortens it by up to a quarter.
    pub delay: Duration,
    /// So many restarts at most...
    pub limit: u32,
    /// ... within so long: instead of one more the boundary is given up, and the candidate sits out for as long, at
    /// least a ttl, and twice as long each further time up to 5 min.
    pub within: Duration,
}

/// Which ends a restart follows. A stop of ours and a command that cannot be executed are none of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RestartWhen {
    /// None: with the command ends the candidacy.
    #[default]
    Never,
    /// A status other than 0, or a signal.
    OnFailure,
    /// Each.
    Always,
}

impl Default for Restart {
    fn default() -> Restart {
        Restart {
            when: RestartWhen::Never,
            delay: Duration::from_millis(100),
            limit: 5,
            within: Duration::from_secs(60),
        }
    }
}

impl CampaignLimit {
    /// When it is exhausted if it begins now.
    pub(super) fn from(self, now: Time) -> Time {
        match self {
            CampaignLimit::Unlimited => Time::NEVER,
            CampaignLimit::For(campaign_limit) => now + campaign_limit,
        }
    }
}
