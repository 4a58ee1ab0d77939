//! Hints for observers: the announcements of candidates, received on the connection that observations use.
//!
//! Announcements begin after the first observation, and again with every connection; the first hint reports that they have
//! begun. A renewal is announced as well, but changes nothing that an observer shows at once.

use super::hint_flags::HintKind;
use super::server::RedisServer;
use crate::store::observer::WATCH_LIFETIME_MIN;
use elect_keeper::clock;

/// A received message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HintResult {
    /// It may be worth a look.
    Change,
    /// No announcement will come: the user may not subscribe.
    None,
    /// The connection has ended.
    End {
        /// Sooner than would be a reason to look: that would make a storm.
        soon: bool,
    },
}

/// Waits for what is announced on one channel, or on all that match a pattern. Cancel safe: asking twice is asking once.
pub async fn changed(server: &mut RedisServer, channel: &str, is_pattern: bool) -> HintResult {
    if !server.is_heard {
        // Without the permission there are no hints; after a lost connection there are none until the next observation.
        if server.subscribe(channel, is_pattern).await.is_err() {
            return HintResult::None;
        }
        server.is_heard = true;
        return HintResult::Change;
    }
    loop {
        match server.ear.next().await {
            HintKind::Change | HintKind::ChangeForMany(_) => return HintResult::Change,
            HintKind::Renewal => {}
            HintKind::End => return HintResult::End { soon: clock::now().since(server.since) < WATCH_LIFETIME_MIN },
        }
    }
}
