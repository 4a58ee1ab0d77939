//! Hints for observers: what candidates announce of the records, heard on the connection that the looks go over.
//!
//! Announcements begin after the first look, and with every connection anew: the first hint is that they have begun. A renewal
//! changes nothing that would have to be shown at once.

use std::time::Duration;

use redis::PushKind;

use super::server::{Server, announced};
use crate::clock;

/// What came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// It may be worth a look.
    Change,
    /// And nothing will: nobody may listen here.
    Nothing,
    /// The connection has ended.
    End {
        /// Sooner than would be a reason to look: that would make a storm.
        soon: bool,
    },
}

/// A connection that ended sooner than this is no reason to look.
const SETTLED: Duration = Duration::from_secs(1);

/// Waits for what is announced on one channel, or on all that match a pattern. Cancel safe: asking twice is asking once.
pub async fn changed(server: &mut Server, channel: &str, is_pattern: bool) -> Heard {
    if !server.is_heard {
        // Who may not listen is told nothing; so is who lost the connection over it, until the next look.
        if server.subscribe(channel, is_pattern).await.is_err() {
            return Heard::Nothing;
        }
        server.is_heard = true;
        return Heard::Change;
    }
    let Some(announcements) = server.announcements.as_mut() else { return Heard::Nothing };
    while let Some(push) = announcements.recv().await {
        if push.kind == PushKind::Disconnection {
            break;
        }
        if announced(&push).is_some_and(|word| word != "renewed") {
            return Heard::Change;
        }
    }
    Heard::End { soon: clock::now().since(server.since) < SETTLED }
}
