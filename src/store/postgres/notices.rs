//! The messages that a server sends beside its answers: notices that tell of a commit without its standby (S5), and the
//! notifications of other candidates, as flags and counters.
//!
//! The task of a connection sets them before it passes on the answer that follows. Nothing is queued, so that no flood of
//! messages can fill the memory.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;
use tokio_postgres::error::SqlState;

/// The channel of every election in a database. The payload is the boundary.
pub const CHANNEL: &str = "elect";

/// Notifications that prove that others arrive: a single one may come through a pooler, when it meets a statement.
pub const PROOFS: usize = 2;

/// A message, or the end of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// The record may be another one.
    Change,
    /// The connection has ended; nothing more will come.
    End,
}

/// The ear of one connection.
#[derive(Debug, Default)]
pub struct Ear {
    /// Notices that speak against the write which is under way.
    doubts: AtomicU64,
    has_change: AtomicBool,
    has_end: AtomicBool,
    /// How many notifications have arrived that another connection has sent to prove it.
    proofs: AtomicUsize,
    bell: Notify,
    scope: Mutex<ListenScope>,
}

#[derive(Debug, Default)]
struct ListenScope {
    /// `None`: all boundaries.
    boundary: Option<String>,
    /// The notification that another connection sends.
    proof: Option<String>,
}

impl Ear {
    /// Begins to tell of this boundary, or of all.
    pub fn attend(&self, boundary: Option<&str>) {
        *self.scope() = ListenScope { boundary: boundary.map(str::to_owned), proof: None };
    }

    /// Begins to count the notifications with this payload, which another connection sends.
    pub fn expect_proof(&self, proof: &str) {
        self.scope().proof = Some(proof.to_owned());
    }

    /// The connection listens no longer. A notification that is under way may still be told.
    pub fn stop_attending(&self) {
        self.scope().proof = None;
    }

    /// A notice has come.
    pub fn notice(&self, code: &SqlState) {
        if *code == SqlState::WARNING || *code == SqlState::ADMIN_SHUTDOWN {
            self.doubts.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many notices have come that speak against a write. A write is credited only if the number is the same before and
    /// after it (S5).
    pub fn doubts(&self) -> u64 {
        self.doubts.load(Ordering::Relaxed)
    }

    /// A notification has come.
    pub fn notification(&self, payload: &str) {
        let scope = self.scope();
        if scope.proof.as_deref() == Some(payload) {
            self.proofs.fetch_add(1, Ordering::Relaxed);
        } else if scope.boundary.as_deref().is_none_or(|boundary| boundary == payload)
            && !self.has_change.swap(true, Ordering::Relaxed)
        {
            self.bell.notify_one();
        }
    }

    /// The connection has ended.
    pub fn end(&self) {
        self.has_end.store(true, Ordering::Relaxed);
        self.bell.notify_one();
    }

    /// Whether notifications arrive: a pooler that shares connections accepts LISTEN, and delivers nothing.
    pub fn is_proven(&self) -> bool {
        self.proofs.load(Ordering::Relaxed) >= PROOFS
    }

    /// Whether this proof was to arrive, on a connection that still listens, and has not.
    pub fn lacks_proof(&self, proof: &str) -> bool {
        !self.is_proven() && self.scope().proof.as_deref() == Some(proof)
    }

    /// Waits for the next change. Cancel safe.
    pub async fn next(&self) -> Heard {
        loop {
            if self.has_change.swap(false, Ordering::Relaxed) {
                return Heard::Change;
            }
            if self.has_end.load(Ordering::Relaxed) {
                return Heard::End;
            }
            self.bell.notified().await;
        }
    }

    fn scope(&self) -> std::sync::MutexGuard<'_, ListenScope> {
        self.scope.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_notices_of_a_commit_without_its_standby_count_against_a_write() {
        let ear = Ear::default();
        for code in [SqlState::DUPLICATE_TABLE, SqlState::SUCCESSFUL_COMPLETION, SqlState::WARNING_DEPRECATED_FEATURE] {
            ear.notice(&code);
        }
        assert_eq!(ear.doubts(), 0);
        ear.notice(&SqlState::WARNING);
        ear.notice(&SqlState::ADMIN_SHUTDOWN);
        assert_eq!(ear.doubts(), 2);
    }

    #[test]
    fn the_notification_of_the_proof_is_no_change() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let ear = Ear::default();
            ear.attend(Some("cron"));
            ear.expect_proof("proof 1");
            ear.notification("other");
            ear.notification("proof 2");
            assert!(!ear.is_proven() && ear.lacks_proof("proof 1") && !ear.lacks_proof("proof 2"));
            ear.notification("proof 1");
            assert!(ear.lacks_proof("proof 1"), "it may have met a statement");
            ear.stop_attending();
            assert!(!ear.lacks_proof("proof 1"), "it is not to arrive");
            ear.expect_proof("proof 1");
            ear.notification("proof 1");
            assert!(ear.is_proven() && !ear.lacks_proof("proof 1"));
            ear.notification("cron");
            assert_eq!(ear.next().await, Heard::Change);
            ear.end();
            assert_eq!(ear.next().await, Heard::End, "of another boundary nothing is told");
        });
    }
}
