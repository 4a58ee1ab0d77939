//! The watch on one key, which reports its deletion early.
//!
//! A hint and nothing more: watches have been known to lose deletions, so a request each renewal interval checks the key as
//! well and restarts a watch that has ended (after a compaction, a cancellation, or the end of a member).

use etcd_client::{Client, EventType, WatchOptions};
use tokio::task::JoinHandle;
use tracing::debug;

use crate::store::connection::errors::excerpt;
use crate::store::observer::WATCH_LIFETIME_MIN;
use elect_keeper::clock;

/// A hint from a watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyEvent {
    /// The key is gone.
    Deleted,
    /// The watch has ended: changes of the key are not seen before the next request.
    Broken,
}

/// Watches one key until that is gone, or the handle is.
#[derive(Debug)]
pub struct KeyWatch(JoinHandle<()>);

impl KeyWatch {
    /// Begins with what happens after `revision`. Must be called inside a [`tokio::task::LocalSet`].
    pub fn after(revision: i64, client: Client, key: String, tell: impl Fn(KeyEvent) + 'static) -> KeyWatch {
        // Watched by `is_alive`, with every question.
        KeyWatch(tokio::task::spawn_local(async move {
            let began = clock::now();
            match until_deleted(client, &key, revision + 1).await {
                Ok(()) => tell(KeyEvent::Deleted),
                Err(reason) => {
                    debug!(key, "the watch has ended: {reason}");
                    if clock::now().since(began) >= WATCH_LIFETIME_MIN {
                        tell(KeyEvent::Broken);
                    }
                }
            }
        }))
    }

    /// Whether it still watches.
    pub fn is_alive(&self) -> bool {
        !self.0.is_finished()
    }
}

impl Drop for KeyWatch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Returns when the key has been deleted.
async fn until_deleted(mut client: Client, key: &str, revision: i64) -> Result<(), String> {
    let options = WatchOptions::new().with_start_revision(revision);
    let mut stream = client.watch(key, Some(options)).await.map_err(|error| excerpt(&error.to_string()))?;
    while let Some(answer) = stream.message().await.map_err(|error| excerpt(&error.to_string()))? {
        if answer.events().iter().any(|event| event.event_type() == EventType::Delete) {
            return Ok(());
        }
        if answer.canceled() {
            return Err(format!(
                "cancelled, compacted at {}: {}",
                answer.compact_revision(),
                excerpt(answer.cancel_reason())
            ));
        }
    }
    Err("the server ended it".to_owned())
}
