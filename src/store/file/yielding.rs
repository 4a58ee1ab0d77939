//! The pause after a leadership in which other candidates go first: a released lock is free until a waiter has been
//! scheduled, and the candidate that has released it would be the first to find it free.

use std::time::Duration;

use super::lock_holders;
use super::record_file::Files;
use super::session::{self, LockFile};
use crate::store::{CampaignResult, Observation};
use elect_core::{Term, Time};
use elect_keeper::clock;

/// How long those are waited for who were seen to wait. Only one that is stopped, or dies in this moment, takes so long.
const YIELD_MAX: Duration = Duration::from_secs(5);
/// The same where waiting processes cannot be seen: in a PID namespace, from which others are not visible.
const YIELD_UNSEEN_WAITERS: Duration = Duration::from_millis(500);
const YIELD_POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A leader that has given up its lock, until another candidate has it.
#[derive(Debug)]
pub struct Yielding {
    until: Time,
    /// Of the leadership that is over.
    term: Option<Term>,
    /// Whether a held guard shows a successor. Candidates that a boundary is not left to take it for a moment.
    by_guard: bool,
}

impl Yielding {
    /// To be asked while the lock is still held; `None` if no process waits for it.
    pub fn behind_others(file: LockFile, term: Option<Term>) -> Option<Yielding> {
        let limit = if lock_holders::is_waited_for(file) {
            YIELD_MAX
        } else if lock_holders::is_in_host_pid_namespace() {
            return None;
        } else {
            YIELD_UNSEEN_WAITERS
        };
        Some(Yielding { until: clock::now() + limit, term, by_guard: true })
    }

    /// Of a boundary that is left to another candidate until then.
    pub const fn to_successor(until: Time, term: Option<Term>) -> Yielding {
        Yielding { until, term, by_guard: false }
    }

    /// The answer to a question that comes too early.
    pub fn waiting(&self, files: &Files) -> Option<CampaignResult> {
        // An unreadable record says nothing; the guard does.
        let last = files.read().ok().flatten().map(|found| found.record.term);
        let succeeded = (self.by_guard && session::is_guarded(&files.lock)) || last > self.term;
        if succeeded || clock::now() >= self.until {
            return None;
        }
        Some(CampaignResult::Waiting {
            observation: Observation::default(),
            again: Some(YIELD_POLL_INTERVAL),
            decided: false,
        })
    }
}
