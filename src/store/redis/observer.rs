//! Notifier for observers: what candidates announce of the records, heard on the connection that the looks go over.
//!
//! Announcements begin after the first look, and with every connection anew: the first hint is that they have begun. A renewal
//! changes nothing that would have to be shown at once.

use super::hint_flags::HintKind;
use super::server::RedisServer;
use crate::store::observer::WATCH_LIFETIME_MIN;
use elect_keeper::clock;

/// What came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HintResult {
    /// It may be worth a look.
    Change,
    /// And nothing will: nobody may listen here.
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
        // Who may not listen is told nothing; so is who lost the connection over it, until the next look.
        if server.subscribe(channel, is_pattern).await.is_err() {
            return HintResult::None;
        }
        server.is_heard = true;
        return HintResult::Change;
    }
    loop {
        match server.ear.next().await {
            HintKind::Change => return HintResult::Change,
            HintKind::Renewal => {}
            HintKind::End => return HintResult::End { soon: clock::now().since(server.since) < WATCH_LIFETIME_MIN },
        }
    }
}
