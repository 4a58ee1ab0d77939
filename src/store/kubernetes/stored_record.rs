//! The Lease of a boundary: its fields and their meaning.
//!
//! ```text
//! metadata.name                            of the boundary (name.rs)
//! metadata.uid, resourceVersion            of the object, and of this version of it: what a write replaces
//! metadata.labels                          app.kubernetes.io/managed-by: elect
//! spec.holderIdentity                      NAME_ID; "" if no candidate leads
//! spec.leaseDurationSeconds                the ttl, rounded up; 1 if no candidate leads
//! spec.acquireTime, renewTime              by the leader's clock. For people and other programs
//! spec.leaseTransitions                    rises with each leader
//! metadata.annotations["elect/record"]     JSON:
//!   version                                of this format
//!   holder, transitions                    copies: the rest counts only if they are those of the spec
//!   state                                  "held", "free" or "vacant" (S2)
//!   boundary                               as it is
//!   id, name, host, port                   of the candidate
//!   term, former                           and the term before, if it is known
//!   nonce                                  another one with every write of one holder
//!   ttl_ms
//!   since, renewed                         in milliseconds since 1970, by the leader's clock. For people
//!   successor, within_ms, reserved_term    the candidate that a free record is left to, for how long, and by which term
//! ```
//!
//! The fields of the spec are those of client-go's leader election. A client of that kind writes the whole object back, so that
//! the annotation of the last candidate of elect's stays under a foreign holder: then the copies differ, and of the annotation
//! only the term counts, below which no later one may be. Members of the annotation are added, never renamed; unknown ones are
//! kept.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use serde_json::{Map, Value};

use super::name::boundary_of;
use crate::store::record::{Record, RecordState, VERSION, check_version};
use crate::store::{Leader, Observation, StoreError};
use crate::text::escaped;
use elect_core::Term;
use elect_core::boundary::Boundary;
use elect_core::limits::{self, FOREIGN_ID_BYTES_MAX, ID_BYTES_MAX, NAME_BYTES_MAX, RECORD_BYTES_MAX};
use elect_core::takeover::Reservation;

/// The annotation.
pub const ANNOTATION: &str = "elect/record";
/// The ttl of a foreign holder that names none: client-go's default.
const FOREIGN_TTL: Duration = Duration::from_secs(15);

/// One look at a Lease.
#[derive(Debug)]
pub struct LeaseSnapshot {
    /// As it was sent.
    pub object: Option<Value>,
    /// The server's wall clock, in milliseconds since 1970.
    pub now: u64,
}

/// A record, and what only this store keeps with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRecord {
    pub record: Record,
    /// Of a record of elect's; 0 under a foreign holder.
    pub nonce: u64,
    /// Whether the annotation speaks of the present holder.
    pub is_elects: bool,
    /// Of the object: another one after it was deleted and created.
    pub uid: String,
    pub resource_version: String,
    /// Stands for all that a holder writes: it differs from one write to the next.
    pub fingerprint: u64,
    pub transitions: i64,
    /// When the holder wrote last, in milliseconds since 1970, by its own clock.
    pub renewed: u64,
    pub previous_term: Option<Term>,
    pub reservation: Option<Reservation<String>>,
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// A time of Kubernetes in milliseconds since 1970.
pub fn millis(text: &str) -> Option<u64> {
    let time = humantime::parse_rfc3339(text).ok()?;
    u64::try_from(time.duration_since(std::time::SystemTime::UNIX_EPOCH).ok()?.as_millis()).ok()
}

/// The boundary of a Lease of elect's: as it is written there, if the Lease has the right name for it.
pub fn boundary(object: &Value) -> Option<Boundary> {
    let name = object["metadata"]["name"].as_str()?;
    let written = annotation(object).and_then(|text| serde_json::from_str::<Value>(text).ok());
    let written = written.as_ref().and_then(|record| record["boundary"].as_str()?.parse::<Boundary>().ok());
    written.filter(|boundary| super::name::lease_name(boundary) == name).or_else(|| boundary_of(name))
}

fn annotation(object: &Value) -> Option<&str> {
    object["metadata"]["annotations"].get(ANNOTATION)?.as_str()
}

/// The members of the annotation, which may be a former holder's.
pub fn members(object: &Value) -> Map<String, Value> {
    let parsed = annotation(object).and_then(|text| serde_json::from_str(text).ok());
    match parsed {
        Some(Value::Object(members)) => members,
        Some(_) | None => Map::new(),
    }
}

/// The annotation, read.
struct Written {
    members: Value,
    term: Term,
}

impl StoredRecord {
    /// Reads a Lease.
    ///
    /// # Errors
    ///
    /// An obstacle: no candidate of this elect may campaign beside it.
    pub fn read(object: &Value) -> Result<StoredRecord, StoreError> {
        let (metadata, spec) = (&object["metadata"], &object["spec"]);
        let name = shown(text(metadata, "name"));
        let foreign = |what: &str| {
            StoreError::Obstacle(format!("the Lease {name:?} {what}: delete it once nothing runs under it"))
        };
        if !text(spec, "strategy").is_empty() {
            return Err(StoreError::Obstacle(format!(
                "the Lease {name:?} has spec.strategy, so that the API server chooses its holder: use another boundary, or remove it"
            )));
        }
        let holder = text(spec, "holderIdentity");
        if holder.len() > FOREIGN_ID_BYTES_MAX {
            return Err(foreign("has a holderIdentity that is longer than 512 bytes"));
        }
        let written = annotation(object).map(|text| Written::read(text, &foreign)).transpose()?;
        let transitions = spec["leaseTransitions"].as_i64().unwrap_or(0);
        // Both are short, whatever a server says.
        let short = |member: &str| limits::cut_name(text(metadata, member).to_owned());
        let (uid, resource_version) = (short("uid"), short("resourceVersion"));
        let present = written.as_ref().filter(|written| written.is_of(holder, transitions));
        let nonce = present.and_then(|written| written.members["nonce"].as_u64()).unwrap_or(0);
        let mut hasher = DefaultHasher::new();
        let times = (text(spec, "acquireTime"), text(spec, "renewTime"));
        (&uid, holder, spec["leaseDurationSeconds"].as_i64(), times, transitions, nonce).hash(&mut hasher);
        let stored = StoredRecord {
            record: Record {
                version: VERSION,
                state: if holder.is_empty() { RecordState::Free } else { RecordState::Held },
                id: holder.to_owned(),
                name: limits::cut_name(holder.to_owned()),
                host: String::new(),
                port: None,
                // Below this none may follow, whoever holds it now.
                term: written.as_ref().map_or(0, |written| written.term),
                ttl: Some(foreign_ttl(spec)),
                since: millis(times.0).unwrap_or(0),
            },
            nonce,
            is_elects: false,
            uid,
            resource_version,
            fingerprint: hasher.finish(),
            transitions,
            renewed: millis(times.1).unwrap_or(0),
            previous_term: None,
            reservation: None,
        };
        match present {
            Some(written) => written.complete(stored, spec, &foreign),
            None => Ok(stored),
        }
    }

    pub fn is_held(&self) -> bool {
        self.record.state == RecordState::Held
    }

    /// The ttl of its holder, within the limit (S6).
    pub fn ttl(&self) -> Duration {
        limits::believed_ttl(self.record.ttl.unwrap_or(u64::MAX))
    }

    /// The version as a number, if it is one: etcd's, which rises with every write.
    pub fn revision(&self) -> Option<u64> {
        self.resource_version.parse().ok()
    }

    /// The id by which the rules of takes know its holder. No candidate of elect's has the one of another program.
    pub fn holder(&self) -> String {
        if self.is_elects { self.record.id.clone() } else { format!("{}/", self.record.id) }
    }

    fn leader(&self, lease_left: Duration) -> Leader {
        let leader = Leader { lease_left: Some(lease_left), ..self.record.leader() };
        if self.is_elects {
            return leader;
        }
        let since = Some(self.record.since).filter(|since| *since > 0);
        Leader { host: None, term: None, since, ..leader }
    }

    /// As an observer sees it who knows how much of the lease is left.
    pub fn observation(&self, left: Duration) -> Observation {
        let Record { name, term, .. } = &self.record;
        if !self.is_held() {
            // A vacant record says nothing of the leader before.
            let previous_term = Some(*term).filter(|_| self.record.state == RecordState::Free && self.is_elects);
            return Observation { previous_term, free_since: Some(self.renewed), ..Observation::default() };
        }
        if !left.is_zero() {
            let leader = Some(self.leader(left.min(self.ttl())));
            return Observation { leader, previous_term: self.previous_term, ..Observation::default() };
        }
        let in_term = if self.is_elects { format!(" in term {term}") } else { String::new() };
        let obstacle = format!("{name} led{in_term} and has not renewed its lease");
        let previous_term = Some(*term).filter(|_| self.is_elects);
        Observation { obstacle: Some(obstacle), previous_term, ..Observation::default() }
    }

    /// How much of the lease is left by the wall clocks, which may differ from host to host.
    pub fn left_by_clock(&self, now: u64) -> Duration {
        let ttl = u64::try_from(self.ttl().as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(self.renewed.saturating_add(ttl).saturating_sub(now))
    }
}

fn shown(text: &str) -> String {
    escaped(&limits::cut_visibly(text, NAME_BYTES_MAX)).into_owned()
}

/// As client-go reads it.
fn foreign_ttl(spec: &Value) -> u64 {
    let seconds = spec["leaseDurationSeconds"].as_u64().filter(|seconds| *seconds > 0);
    seconds.unwrap_or(FOREIGN_TTL.as_secs()).saturating_mul(1000)
}

impl Written {
    /// Its format and its term have to be understood, whichever holder it names (S1).
    fn read(text: &str, foreign: &impl Fn(&str) -> StoreError) -> Result<Written, StoreError> {
        if text.len() > RECORD_BYTES_MAX {
            return Err(foreign("has an annotation elect/record that is larger than any of elect's"));
        }
        let members: Value =
            serde_json::from_str(text).map_err(|_| foreign("has an annotation elect/record that is not elect's"))?;
        let version = members["version"].as_u64();
        let version = version.ok_or_else(|| foreign("has an annotation elect/record that is not elect's"))?;
        check_version(version).map_err(|newer| {
            let name = shown(members["name"].as_str().unwrap_or_default());
            StoreError::Obstacle(format!("{name:?} has written a record {newer}"))
        })?;
        let term = members["term"].as_u64().ok_or_else(|| foreign("has no term"))?;
        if !limits::is_believed_term(term) {
            let name = shown(members["name"].as_str().unwrap_or_default());
            return Err(foreign(&format!(
                "last written by {name:?}, has the term {term}, which is too large to be followed"
            )));
        }
        if text_of(&members, "id").len() > ID_BYTES_MAX {
            return Err(foreign("has an id that is longer than any of elect's"));
        }
        Ok(Written { members, term })
    }

    /// Whether it was written together with this holder.
    fn is_of(&self, holder: &str, transitions: i64) -> bool {
        let is_held = text_of(&self.members, "state") == "held";
        text_of(&self.members, "holder") == holder
            && self.members["transitions"].as_i64() == Some(transitions)
            && is_held != holder.is_empty()
    }

    /// The record of a candidate of elect's.
    fn complete(
        &self,
        stored: StoredRecord,
        spec: &Value,
        foreign: &impl Fn(&str) -> StoreError,
    ) -> Result<StoredRecord, StoreError> {
        let members = &self.members;
        let state = match text_of(members, "state") {
            "held" => RecordState::Held,
            "free" => RecordState::Free,
            "vacant" => RecordState::Vacant,
            _ => return Err(foreign("has a state that elect does not write")),
        };
        let number = |name: &str| members[name].as_u64();
        let ttl = number("ttl_ms").ok_or_else(|| foreign("has no ttl_ms"))?;
        // An edit of the spec that lengthens the lease counts.
        let in_spec = spec["leaseDurationSeconds"].as_u64().unwrap_or(0);
        let ttl = if in_spec > ttl.div_ceil(1000) { in_spec.saturating_mul(1000) } else { ttl };
        let port = members["port"].as_u64().map(u16::try_from).transpose();
        let port = port.map_err(|_| foreign("has a port that is none"))?;
        let name = |name: &str| limits::cut_name(text_of(members, name).to_owned());
        let reservation = reservation(members, self.term).filter(|_| state == RecordState::Free);
        Ok(StoredRecord {
            record: Record {
                version: VERSION,
                state,
                id: text_of(members, "id").to_owned(),
                name: name("name"),
                host: name("host"),
                port,
                term: self.term,
                ttl: Some(ttl),
                since: number("since").unwrap_or(0),
            },
            nonce: number("nonce").ok_or_else(|| foreign("has no nonce"))?,
            is_elects: true,
            renewed: number("renewed").unwrap_or(stored.renewed),
            previous_term: number("former"),
            reservation,
            ..stored
        })
    }
}

fn text_of<'a>(members: &'a Value, name: &str) -> &'a str {
    members[name].as_str().unwrap_or_default()
}

/// The reservation of a free record. It is a courtesy, so that one of another term counts as none.
fn reservation(members: &Value, term: Term) -> Option<Reservation<String>> {
    let successor = limits::cut_name(members["successor"].as_str()?.to_owned());
    let within = Duration::from_millis(members["within_ms"].as_u64()?);
    (members["reserved_term"].as_u64() == Some(term)).then_some(Reservation { successor, within })
}
