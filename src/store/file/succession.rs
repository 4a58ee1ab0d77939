//! The candidates that may take a lock that is free: its named successor first, and a spare last.

use std::time::Duration;

use super::record_file::{FileRecord, Files};
use super::session::{self, Session};
use crate::store::record::RecordState;
use crate::store::{CampaignResult, Candidacy, Observation, StoreError};
use elect_core::takeover::{RESERVATION_MAX, Reservation};
use elect_core::{Term, Time};
use elect_keeper::clock;

/// How often a spare looks whether another candidate holds the lock. A leader between two looks shows by its term.
const SPARE_POLL_INTERVAL: Duration = Duration::from_millis(100);

/// The order of succession, as this candidate knows it.
#[derive(Debug, Default)]
pub struct Succession {
    /// The lock is taken only after no candidate has held it for so long.
    pub takeover_delay: Duration,
    /// Since when no candidate has held it, and the last term.
    unled: Option<(Option<Term>, Time)>,
    /// Of the present term, for its release.
    pub reservation: Option<Reservation<String>>,
    /// The free record that is left to another candidate, by its term, and when this candidate saw that first.
    left: Option<(Term, Time)>,
}

impl Succession {
    /// The answer to a spare whose time has not come. A spare does not queue: it takes a lock that is free, or none.
    pub fn delays(
        &mut self,
        session: &mut Session,
        files: &Files,
        candidacy: &Candidacy,
    ) -> Result<Option<CampaignResult>, StoreError> {
        if self.takeover_delay.is_zero() || session.has_lock() {
            return Ok(None);
        }
        let recorded = files.read().ok().flatten();
        let term = recorded.as_ref().map(|found| found.record.term);
        if session::is_guarded(&files.lock) {
            self.unled = None;
            let leader = recorded.filter(|found| found.record.state == RecordState::Held);
            let observation =
                Observation { leader: leader.map(|found| found.record.leader()), ..Observation::default() };
            return Ok(Some(CampaignResult::Waiting { observation, again: Some(SPARE_POLL_INTERVAL), decided: true }));
        }
        let now = clock::now();
        let (_, since) = *self.unled.take_if(|(last, _)| *last == term).get_or_insert((term, now));
        self.unled = Some((term, since));
        // The named successor is not delayed by its own delay.
        let is_successor = recorded.is_some_and(|found| is_left_to(&found, candidacy) == Some(true));
        let left = (since + self.takeover_delay).since(now);
        if left.is_zero() || is_successor {
            if session.take_if_free().map_err(|error| files.trouble("cannot be locked", &error))? {
                return Ok(None);
            }
            // A program other than elect has it, or another candidate was faster.
            self.unled = None;
        }
        let (observation, again) =
            (Observation::default(), Some(left.clamp(Duration::from_millis(1), SPARE_POLL_INTERVAL)));
        Ok(Some(CampaignResult::Waiting { observation, again, decided: false }))
    }

    /// Until when the free record is left to another candidate, from when this one saw it first. Under the lock.
    pub fn is_left_to_another(&mut self, recorded: &FileRecord, candidacy: &Candidacy) -> Option<Time> {
        if is_left_to(recorded, candidacy)? {
            return None;
        }
        let within = recorded.reservation()?.within.min(RESERVATION_MAX);
        let (term, now) = (recorded.record.term, clock::now());
        let (_, since) = self.left.filter(|(of, _)| *of == term).unwrap_or((term, now));
        self.left = Some((term, since));
        Some(since + within).filter(|until| *until > now)
    }
}

/// Whether the record is left to this candidate, or to another; `None`: to none.
fn is_left_to(recorded: &FileRecord, candidacy: &Candidacy) -> Option<bool> {
    let reservation = recorded.reservation().filter(|_| recorded.record.state == RecordState::Free)?;
    let identity = &candidacy.identity;
    Some(reservation.successor == identity.id || reservation.successor == identity.name)
}
