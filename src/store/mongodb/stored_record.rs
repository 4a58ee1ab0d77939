//! The document of a boundary: its fields and their meaning.
//!
//! ```text
//! _id              the boundary, as it is
//! leaderUUID       id, name, host and port of the candidate
//! leaderName
//! leaderHostname
//! leaderPort       or null
//! ttlExpire        last write + ttl, by the server's time; or when it was freed, and not before the time that its term names:
//!                  the server removes it seven days later, and terms may not fall (S1). For people, observers and housekeeping
//! term             64 bits, as the next two
//! seq              the nonce: another one with every write
//! ttlMs
//! state            "held" or "free"
//! vacant           true in a free record that no leader has freed: a candidate has found none (S2). Otherwise absent
//! since            when leadership began, by the server's time. For people
//! former           the term before, or null
//! version          of this format
//! successor        the id or name of the candidate that a free record is left to, only with
//! withinMs         for how long, and
//! reservedTerm     the term of the leader that has freed it: an elect that does not know these fields keeps them
//! ```
//!
//! Fields are added, never renamed; unknown ones are ignored. An edit by hand may change the type of a number, not
//! its value.

use std::time::Duration;

use ::mongodb::bson::{Bson, Document};

use super::elector;
use crate::store::record::{Record, RecordState, check_version};
use crate::store::{Leader, Observation, StoreError};
use crate::text::escaped;
use elect_core::Term;
use elect_core::boundary::Boundary;
use elect_core::limits::{self, ID_BYTES_MAX, NAME_BYTES_MAX, RECORD_BYTES_MAX};
use elect_core::takeover::{Basis, ObservedRecord, Reservation, StoreState};

/// The field in which a look returns the server's time.
pub const NOW: &str = "serverTime";
/// The field that a look returns instead of a document that is larger than [`RECORD_BYTES_MAX`].
pub const TOO_LARGE: &str = "tooLarge";

/// A record, and what only this store keeps with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRecord {
    pub record: Record,
    pub nonce: u64,
    /// In milliseconds since 1970, on the server's wall clock. For display.
    pub expires: u64,
    /// When it was looked at, on the same clock.
    pub now: u64,
    pub previous_term: Option<Term>,
    /// The candidate that a free record is left to: an id or a name.
    pub reservation: Option<Reservation<String>>,
}

/// The part of a record that a take insists on. No other write has the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedVersion {
    pub id: String,
    pub term: Term,
    pub nonce: u64,
    pub is_held: bool,
}

impl StoredRecord {
    /// Reads what a look has found.
    ///
    /// # Errors
    ///
    /// [`StoreError::Obstacle`]: it was written by a newer elect, or by another program, or is beyond the limits of a record.
    pub fn read(document: &Document) -> Result<StoredRecord, StoreError> {
        let name_of = |field: &str| {
            let text = document.get_str(field).unwrap_or_default();
            escaped(&limits::cut_visibly(text, NAME_BYTES_MAX)).into_owned()
        };
        let foreign = || {
            let id = name_of("_id");
            if elector::is_record(document) {
                let place = format!("the document with the _id {id:?} in the collection boundaries");
                return StoreError::Obstacle(elector::describe(document, &place));
            }
            StoreError::Obstacle(format!(
                "the document with the _id {id:?} in the collection boundaries is not elect's: delete it, or name another database"
            ))
        };
        if document.contains_key(TOO_LARGE) {
            let id = name_of("_id");
            return Err(StoreError::Obstacle(format!(
                "the document with the _id {id:?} in the collection boundaries is larger than {RECORD_BYTES_MAX} bytes, and no \
                 record: delete it, or name another database"
            )));
        }
        let text = |name: &str| document.get_str(name).map_err(|_| foreign());
        let number = |name: &str| document.get(name).and_then(number).ok_or_else(foreign);
        let time = |name: &str| {
            let millis = document.get_datetime(name).map_err(|_| foreign())?.timestamp_millis();
            Ok::<u64, StoreError>(u64::try_from(millis).unwrap_or(0))
        };
        let nullable = |name: &str| match document.get(name) {
            None | Some(Bson::Null) => Ok(None),
            Some(_) => number(name).map(Some),
        };
        let version = u32::try_from(number("version")?).map_err(|_| foreign())?;
        check_version(version).map_err(|newer| {
            StoreError::Obstacle(format!("{:?} has written a record {newer}", name_of("leaderName")))
        })?;
        let state = match text("state")? {
            "held" => RecordState::Held,
            "free" if document.get_bool("vacant").is_ok_and(|vacant| vacant) => RecordState::Vacant,
            "free" => RecordState::Free,
            _ => return Err(foreign()),
        };
        let id = text("leaderUUID")?;
        if id.len() > ID_BYTES_MAX {
            return Err(foreign());
        }
        let term = number("term")?;
        if !limits::is_believed_term(term) {
            let (boundary, holder) = (name_of("_id"), name_of("leaderName"));
            return Err(StoreError::Obstacle(format!(
                "the record of {boundary:?}, last written by {holder:?}, has the term {term}, which is too large to be followed: \
                 delete it once nothing runs under it"
            )));
        }
        let port = nullable("leaderPort")?.map(u16::try_from).transpose().map_err(|_| foreign())?;
        let record = Record {
            version,
            state,
            id: id.to_owned(),
            name: limits::cut(text("leaderName")?.to_owned(), NAME_BYTES_MAX),
            host: limits::cut(text("leaderHostname")?.to_owned(), NAME_BYTES_MAX),
            port,
            term,
            ttl: Some(number("ttlMs")?),
            since: time("since")?,
        };
        Ok(StoredRecord {
            record,
            nonce: number("seq")?,
            expires: time("ttlExpire")?,
            now: time(NOW)?,
            previous_term: nullable("former")?,
            reservation: reservation(document, term),
        })
    }

    /// The version that a take names which follows this look.
    pub fn named_version(&self) -> NamedVersion {
        NamedVersion { id: self.record.id.clone(), term: self.record.term, nonce: self.nonce, is_held: self.is_held() }
    }

    pub fn is_held(&self) -> bool {
        self.record.state == RecordState::Held
    }

    fn ttl(&self) -> Duration {
        limits::believed_ttl(self.record.ttl.unwrap_or(u64::MAX))
    }

    /// As an observer sees it: who leads, or who seems to have died leading.
    pub fn observation(&self) -> Observation {
        if !self.is_held() {
            // A vacant record says nothing of the leader before.
            let previous_term = Some(self.record.term).filter(|_| self.record.state == RecordState::Free);
            return Observation { previous_term, free_since: Some(self.expires), ..Observation::default() };
        }
        if let Some(left) = self.expires.checked_sub(self.now).filter(|left| *left > 0) {
            // A clock that was set back would promise too much.
            let lease_left = Some(Duration::from_millis(left).min(self.ttl()));
            let leader = Leader { lease_left, ..self.record.leader() };
            return Observation { leader: Some(leader), previous_term: self.previous_term, ..Observation::default() };
        }
        let Record { name, term, .. } = &self.record;
        let obstacle = format!("{name} led in term {term} and has not renewed its lease");
        Observation { obstacle: Some(obstacle), previous_term: Some(*term), ..Observation::default() }
    }
}

/// The reservation of a free record. It is a courtesy, so that malformed fields count as none.
fn reservation(document: &Document, term: Term) -> Option<Reservation<String>> {
    let number_in = |name: &str| document.get(name).and_then(number);
    let successor = document.get_str("successor").ok().filter(|_| number_in("reservedTerm") == Some(term))?;
    let within = Duration::from_millis(number_in("withinMs")?);
    Some(Reservation { successor: limits::cut(successor.to_owned(), NAME_BYTES_MAX), within })
}

/// The record as the takeover rule needs it. The server has one incarnation, since it forgets nothing that a majority has.
pub fn view(stored: Option<&StoredRecord>) -> StoreState<String> {
    let trace = |stored: &StoredRecord| ObservedRecord {
        holder: stored.record.id.clone(),
        term: stored.record.term,
        nonce: stored.nonce,
        ttl: stored.ttl(),
        state: stored.record.state,
        basis: Basis::of(String::new()),
        reservation: stored.reservation.clone(),
    };
    StoreState { basis: Basis::of(String::new()), is_attached: true, record: stored.map(trace) }
}

/// The boundary that a document is about. Others may be in the collection, and are none of our business.
pub fn boundary(document: &Document) -> Option<Boundary> {
    document.get_str("_id").ok()?.parse().ok()
}

/// A whole number that is not negative, whatever way it is written.
pub fn number(value: &Bson) -> Option<u64> {
    /// Above, a double is no exact number any more.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    #[expect(clippy::wildcard_enum_match_arm, reason = "no other type is a number here, whatever is added to BSON")]
    match value {
        Bson::Int32(number) => u64::try_from(*number).ok(),
        Bson::Int64(number) => u64::try_from(*number).ok(),
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked: it is whole, and fits")]
        Bson::Double(number) if number.fract() == 0.0 && (0.0..EXACT).contains(number) => Some(*number as u64),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use ::mongodb::bson::{DateTime, doc};
    use proptest::prelude::*;

    use super::*;
    use elect_core::proptest_support;

    fn document() -> Document {
        doc! {
            "_id": "cron", "leaderUUID": "i", "leaderName": "web-1", "leaderHostname": "h", "leaderPort": 8080,
            "ttlExpire": DateTime::from_millis(60_000), "term": 7_i64, "seq": 3_i64, "ttlMs": 10_000_i64,
            "state": "held", "since": DateTime::from_millis(1_000), "former": 5_i64, "version": 1,
            "ofTheFuture": "x", NOW: DateTime::from_millis(52_000),
        }
    }

    fn with(name: &str, value: impl Into<Bson>) -> Document {
        let mut document = document();
        document.insert(name, value);
        document
    }

    fn seen_at(now: i64) -> Observation {
        StoredRecord::read(&with(NOW, DateTime::from_millis(now))).expect("a record").observation()
    }

    #[test]
    fn a_record_is_read_whatever_its_numbers_were_turned_into() {
        for (term, port) in [(Bson::Int64(7), Bson::Int32(8080)), (Bson::Int32(7), Bson::Double(8080.0))] {
            let mut document = with("term", term);
            document.insert("leaderPort", port);
            let stored = StoredRecord::read(&document).expect("a record");
            assert_eq!((stored.record.term, stored.nonce, stored.record.port), (7, 3, Some(8080)));
        }
        assert_eq!(StoredRecord::read(&with("leaderPort", Bson::Null)).expect("a record").record.port, None);
        let mut document = document();
        document.remove("leaderPort");
        document.remove("former");
        assert_eq!(StoredRecord::read(&document).expect("a record").previous_term, None);
    }

    /// Fields that elect reads, with unexpected values.
    fn miswritten() -> impl Strategy<Value = Document> {
        let fields = document().keys().cloned().collect::<Vec<_>>();
        let text = (proptest_support::text(), 0..3_000_usize).prop_map(|(text, times)| text.repeat(times));
        let value = prop_oneof![
            text.prop_map(Bson::from),
            any::<i64>().prop_map(Bson::from),
            any::<i32>().prop_map(Bson::from),
            any::<f64>().prop_map(Bson::from),
            any::<bool>().prop_map(Bson::from),
            any::<i64>().prop_map(|millis| DateTime::from_millis(millis).into()),
            Just(Bson::Null),
            Just(Bson::Array(vec![Bson::Null; 9_000])),
        ];
        let change = (proptest::sample::select(fields), value);
        proptest::collection::vec(change, 1..4).prop_map(|changes| {
            let mut document = document();
            document.extend(changes.into_iter().map(|(name, value)| (name.clone(), value)));
            document
        })
    }

    #[test]
    fn whatever_a_document_holds_it_is_a_record_within_the_limits_or_an_obstacle() {
        proptest_support::check(proptest_support::SLOW, &miswritten(), |document| {
            match StoredRecord::read(&document) {
                Ok(stored) => {
                    let Record { id, name, host, term, .. } = &stored.record;
                    assert!(id.len() <= ID_BYTES_MAX && name.len() <= NAME_BYTES_MAX && host.len() <= NAME_BYTES_MAX);
                    assert!(limits::is_believed_term(*term) && stored.ttl() <= limits::TTL_MAX);
                    assert!(view(Some(&stored)).record.is_some_and(|trace| trace.ttl <= limits::TTL_MAX));
                }
                Err(StoreError::Obstacle(text)) => {
                    assert!(text.len() < 4096 && !text.chars().any(crate::text::is_unsafe), "{text}");
                }
                Err(error) => panic!("not by its content: {error}"),
            }
        });
    }

    #[test]
    fn texts_are_cut_and_numbers_believed_up_to_their_limits() {
        let long = "ü".repeat(40_000);
        let mut document = with("leaderName", long.as_str());
        document.extend(doc! { "leaderHostname": long, "ttlMs": i64::MAX });
        let stored = StoredRecord::read(&document).expect("a record");
        assert_eq!((stored.record.name.len(), stored.record.host.len()), (NAME_BYTES_MAX, NAME_BYTES_MAX));
        assert_eq!(stored.ttl(), limits::TTL_MAX);
        let obstacle = |document: &Document| {
            let error = StoredRecord::read(document).expect_err("an obstacle");
            assert!(matches!(error, StoreError::Obstacle(_)), "{error}");
            error.to_string()
        };
        obstacle(&with("leaderUUID", "i".repeat(ID_BYTES_MAX + 1)));
        let term = |term: Term| with("term", i64::try_from(term).expect("a term"));
        assert!(StoredRecord::read(&term(limits::TERM_MAX)).is_ok());
        assert!(obstacle(&term(limits::TERM_MAX + 1)).contains("web-1"));
        assert!(obstacle(&with("version", 3)).contains("\"web-1\""), "the holder is named");
        assert!(obstacle(&with(TOO_LARGE, true)).contains("larger"));
        assert_eq!(StoredRecord::read(&with("version", 1)).expect("of elect 0.1.0").record.version, 1);
    }

    #[test]
    fn a_reservation_counts_for_the_term_that_it_was_made_in_alone() {
        let read = |name: &str, value: Bson| {
            let mut document = with("state", "free");
            document.extend(doc! { "successor": "web-2", "withinMs": 3_000_i64, "reservedTerm": 7_i64 });
            document.insert(name, value);
            StoredRecord::read(&document).expect("a record").reservation
        };
        let (successor, within) = ("web-2".to_owned(), Duration::from_secs(3));
        assert_eq!(read("withinMs", 3_000_i32.into()), Some(Reservation { successor, within }));
        for (name, value) in [("reservedTerm", 6_i64.into()), ("withinMs", "x".into()), ("successor", Bson::Null)] {
            assert_eq!(read(name, value), None, "{name}");
        }
    }

    #[test]
    fn a_vacant_record_is_a_free_one_with_a_mark() {
        let state = |document: &Document| StoredRecord::read(document).expect("a record").record.state;
        let mut vacant = with("state", "free");
        assert_eq!(state(&vacant), RecordState::Free);
        vacant.insert("vacant", true);
        assert_eq!(state(&vacant), RecordState::Vacant);
        assert_eq!(state(&with("vacant", true)), RecordState::Held);
    }

    #[test]
    fn a_newer_format_and_what_is_not_ours_are_refused() {
        let refusal = |document: &Document| StoredRecord::read(document).expect_err("refused").to_string();
        assert!(refusal(&with("version", 3)).contains("upgrade"));
        let predecessors = doc! {
            "_id": "cron", "leaderUUID": "i", "leaderHostname": "h", "leaderPort": 1, "ttlExpire": DateTime::from_millis(1),
        };
        for document in [
            predecessors,
            with("state", "perhaps"),
            with("term", -1),
            with("term", 1.5),
            with("term", "7"),
            with("leaderPort", 99_999),
            with("version", ""),
            with("former", "?"),
            with("since", 5),
        ] {
            assert!(refusal(&document).contains("\"cron\""), "{document}");
        }
    }

    #[test]
    fn a_lease_that_has_run_out_by_the_servers_time_names_nobody() {
        let left = |now| seen_at(now).leader.and_then(|leader| leader.lease_left);
        assert_eq!([52_000, 60_000].map(|now| seen_at(now).previous_term), [Some(5), Some(7)]);
        assert_eq!(left(52_000), Some(Duration::from_secs(8)));
        assert_eq!(left(59_999), Some(Duration::from_millis(1)));
        assert_eq!(left(60_000), None);
        assert!(seen_at(60_000).obstacle.is_some_and(|why| why.contains("web-1 led in term 7")));
        assert_eq!(left(1), Some(Duration::from_secs(10)), "its clock was set back");
    }

    #[test]
    fn a_free_record_names_nobody_and_the_last_term() {
        let seen = StoredRecord::read(&with("state", "free")).expect("a record").observation();
        assert_eq!((seen.leader, seen.obstacle, seen.previous_term), (None, None, Some(7)));
    }
}
