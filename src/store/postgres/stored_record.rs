//! The row of a boundary: its columns and their meaning.
//!
//! ```text
//! boundary       as it is; the primary key
//! version        of this format
//! state          "held", "free" or "vacant" (S2)
//! holder         id, name, host and port of the candidate
//! name, host, port
//! term           64 bits, as the next three
//! former         the term before, or null
//! nonce          another one with every write of one holder
//! ttl_ms
//! incarnation    of the server, where it was taken or, later, where the last credited renewal was executed
//! since          when leadership began, by the server's time. For people
//! renewed        the last write, by the server's time. For people and observers
//! successor      the id or name of the candidate that a free record is left to, only with
//! within_ms      for how long, and
//! reserved_term  the term of the leader that has freed it
//! ```
//!
//! Columns are added, never renamed; unknown ones are ignored.

use std::time::Duration;

use tokio_postgres::Row;
use tokio_postgres::types::FromSqlOwned;

use crate::store::record::{Record, RecordState, check_version};
use crate::store::{Leader, Observation, StoreError};
use crate::text::escaped;
use elect_core::Term;
use elect_core::limits::{self, ID_BYTES_MAX, NAME_BYTES_MAX};
use elect_core::takeover::{Basis, ObservedRecord, Reservation, StoreState};

/// A record, and what only this store keeps with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRecord {
    pub record: Record,
    pub nonce: u64,
    pub incarnation: String,
    /// In milliseconds since 1970, on the server's wall clock. For display.
    pub renewed: u64,
    /// When it was looked at, on the same clock.
    pub now: u64,
    pub previous_term: Option<Term>,
    pub reservation: Option<Reservation<String>>,
}

/// One look at a boundary.
#[derive(Debug)]
pub struct RowSnapshot {
    /// The present incarnation of the server.
    pub incarnation: String,
    /// The server's wall clock, in milliseconds since 1970.
    pub now: u64,
    /// The first row of the table: its mark, and the incarnation in it.
    pub first: Option<(String, String)>,
    /// `Err`: an obstacle.
    pub stored: Option<Result<StoredRecord, StoreError>>,
}

/// The error for a table whose columns are not those of elect.
fn not_elects(table: &str, error: &tokio_postgres::Error) -> StoreError {
    StoreError::Refused(format!(
        "the table {table} is not elect's ({error}): name another schema with ?schema=, or rename that table"
    ))
}

/// A column of a row.
fn column<T: FromSqlOwned>(row: &Row, name: &str, table: &str) -> Result<T, StoreError> {
    row.try_get(name).map_err(|error| not_elects(table, &error))
}

/// A number that is not negative.
fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

impl RowSnapshot {
    /// Reads what a look has found.
    ///
    /// # Errors
    ///
    /// The table is not elect's. A record that is not understood is an answer.
    pub fn read(row: &Row, table: &str) -> Result<RowSnapshot, StoreError> {
        let now = unsigned(column(row, "now_ms", table)?);
        let boundary: Option<String> = column(row, "boundary", table)?;
        let stored = match boundary {
            None => None,
            Some(boundary) => match StoredRecord::read(row, &boundary, now, table) {
                Err(StoreError::Obstacle(why)) => Some(Err(StoreError::Obstacle(why))),
                read => Some(Ok(read?)),
            },
        };
        Ok(RowSnapshot { incarnation: column(row, "present", table)?, now, first: None, stored })
    }

    /// The same with the first row of the table, which the look at one boundary shows as well.
    pub fn read_with_first(row: &Row, table: &str) -> Result<RowSnapshot, StoreError> {
        let (mark, incarnation): (Option<String>, Option<String>) =
            (column(row, "first_holder", table)?, column(row, "first_incarnation", table)?);
        Ok(RowSnapshot { first: mark.zip(incarnation), ..RowSnapshot::read(row, table)? })
    }
}

impl StoredRecord {
    fn read(row: &Row, boundary: &str, now: u64, table: &str) -> Result<StoredRecord, StoreError> {
        let shown = |text: &str| escaped(&limits::cut_visibly(text, NAME_BYTES_MAX)).into_owned();
        let foreign = |what: &str| {
            let boundary = shown(boundary);
            StoreError::Obstacle(format!(
                "the row {boundary:?} of {table} {what}: delete it once nothing runs under it"
            ))
        };
        if column(row, "is_too_large", table)? {
            return Err(foreign("is larger than any record of elect"));
        }
        let name: String = column(row, "name", table)?;
        let version: i32 = column(row, "version", table)?;
        let version = u32::try_from(version).map_err(|_| foreign("has a negative version"))?;
        check_version(version)
            .map_err(|newer| StoreError::Obstacle(format!("{:?} has written a record {newer}", shown(&name))))?;
        let state: String = column(row, "state", table)?;
        let state = match state.as_str() {
            "held" => RecordState::Held,
            "free" => RecordState::Free,
            "vacant" => RecordState::Vacant,
            _ => return Err(foreign("has a state that elect does not write")),
        };
        let id: String = column(row, "holder", table)?;
        if id.len() > ID_BYTES_MAX {
            return Err(foreign("has a holder that is longer than any id of elect"));
        }
        let incarnation: String = column(row, "incarnation", table)?;
        if incarnation.len() > NAME_BYTES_MAX {
            // Cut, it would never be found by the take that compares it.
            return Err(foreign("has an incarnation that is longer than any of elect"));
        }
        let number = |name: &str| {
            let number: i64 = column(row, name, table)?;
            u64::try_from(number).map_err(|_| foreign(&format!("has a negative {name}")))
        };
        let term = number("term")?;
        if !limits::is_believed_term(term) {
            let holder = shown(&name);
            return Err(foreign(&format!(
                "last written by {holder:?}, has the term {term}, which is too large to be followed"
            )));
        }
        let port: Option<i32> = column(row, "port", table)?;
        let port = port.map(u16::try_from).transpose().map_err(|_| foreign("has a port that is none"))?;
        let former: Option<i64> = column(row, "former", table)?;
        let reservation = reservation(row, term, table)?;
        let record = Record {
            version,
            state,
            id,
            name: limits::cut_name(name),
            host: limits::cut_name(column(row, "host", table)?),
            port,
            term,
            ttl: Some(number("ttl_ms")?),
            since: unsigned(column(row, "since_ms", table)?),
        };
        Ok(StoredRecord {
            record,
            nonce: number("nonce")?,
            incarnation,
            renewed: unsigned(column(row, "renewed_ms", table)?),
            now,
            previous_term: former.map(unsigned),
            reservation: reservation.filter(|_| state == RecordState::Free),
        })
    }

    pub fn is_held(&self) -> bool {
        self.record.state == RecordState::Held
    }

    /// The ttl of its holder, within the limit (S6).
    pub fn ttl(&self) -> Duration {
        limits::believed_ttl(self.record.ttl.unwrap_or(u64::MAX))
    }

    /// As an observer sees it: who leads, or who seems to have died leading.
    pub fn observation(&self) -> Observation {
        if !self.is_held() {
            // A vacant record says nothing of the leader before.
            let is_free = self.record.state == RecordState::Free;
            let previous_term = Some(self.record.term).filter(|_| is_free);
            return Observation { previous_term, free_since: Some(self.renewed), ..Observation::default() };
        }
        let ttl = u64::try_from(self.ttl().as_millis()).unwrap_or(u64::MAX);
        let left = self.renewed.saturating_add(ttl).saturating_sub(self.now);
        if left > 0 {
            // A clock that was set back would promise too much.
            let lease_left = Some(Duration::from_millis(left).min(self.ttl()));
            let leader = Leader { lease_left, ..self.record.leader() };
            return Observation { leader: Some(leader), previous_term: self.previous_term, ..Observation::default() };
        }
        let Record { name, term, .. } = &self.record;
        let obstacle = format!("{name} led in term {term} and has not renewed its lease");
        Observation { obstacle: Some(obstacle), previous_term: Some(*term), ..Observation::default() }
    }

    /// To those who look on, an abandoned record is no leader, and nothing more.
    pub fn shown(&self) -> Observation {
        Observation { obstacle: None, ..self.observation() }
    }
}

/// The reservation of a free record. It is a courtesy, so that one of another term counts as none.
fn reservation(row: &Row, term: Term, table: &str) -> Result<Option<Reservation<String>>, StoreError> {
    let successor: Option<String> = column(row, "successor", table)?;
    let within: Option<i64> = column(row, "within_ms", table)?;
    let reserved: Option<i64> = column(row, "reserved_term", table)?;
    Ok(match (successor, within) {
        (Some(successor), Some(within)) if reserved.map(unsigned) == Some(term) => {
            let within = Duration::from_millis(unsigned(within));
            Some(Reservation { successor: limits::cut_name(successor), within })
        }
        _ => None,
    })
}

/// The record as the takeover rule needs it.
pub fn view(incarnation: &str, stored: Option<&StoredRecord>) -> StoreState<String> {
    let trace = |stored: &StoredRecord| ObservedRecord {
        holder: stored.record.id.clone(),
        term: stored.record.term,
        nonce: stored.nonce,
        ttl: stored.ttl(),
        state: stored.record.state,
        basis: Basis::of(stored.incarnation.clone()),
        reservation: stored.reservation.clone(),
    };
    StoreState { basis: Basis::of(incarnation.to_owned()), is_attached: true, record: stored.map(trace) }
}
