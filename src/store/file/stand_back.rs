//! Standing behind the others after a leadership: a lock that is given up is free until a waiter has been scheduled, and the
//! one who gave it up would be the first to find it so.

use std::time::Duration;

use super::holders;
use super::record_file::Files;
use super::seat::{self, LockFile};
use crate::clock;
use crate::election::{Term, Time};
use crate::store::{Sighting, Standing};

/// How long those are waited for who were seen to wait. Only one that is stopped, or dies in this moment, takes so long.
const STAND_BACK_MAX: Duration = Duration::from_secs(5);
/// The same where it cannot be seen whether anybody waits: in a PID namespace, from which others are not visible.
const STAND_BACK_BLIND: Duration = Duration::from_millis(500);
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// A leader that has given up its lock, until another candidate has it.
#[derive(Debug)]
pub struct StandBack {
    until: Time,
    /// Of the leadership that is over.
    term: Option<Term>,
}

impl StandBack {
    /// To be asked while the lock is still held; `None` if nobody waits for it.
    pub fn behind_others(file: LockFile, term: Option<Term>) -> Option<StandBack> {
        let limit = if holders::is_waited_for(file) {
            STAND_BACK_MAX
        } else if holders::is_in_host_pid_namespace() {
            return None;
        } else {
            STAND_BACK_BLIND
        };
        Some(StandBack { until: clock::now() + limit, term })
    }

    /// The answer to a question that comes too early.
    pub fn waiting(&self, files: &Files) -> Option<Standing> {
        // An unreadable record says nothing; the guard does.
        let last = files.read().ok().flatten().map(|found| found.record.term);
        let succeeded = seat::is_guarded(&files.lock) || last > self.term;
        if succeeded || clock::now() >= self.until {
            return None;
        }
        Some(Standing::Waiting { sighting: Sighting::default(), again: Some(LOOK_INTERVAL), decided: false })
    }
}
