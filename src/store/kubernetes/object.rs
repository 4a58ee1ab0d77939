//! Leases as elect writes them: what was read, with the fields changed that a take, a renewal or a release changes.
//!
//! All else in the object stays as it is, so that labels and annotations of other programs survive.

use std::time::{Duration, SystemTime};

use serde_json::{Map, Value, json};

use super::name::lease_name;
use super::server::LABEL;
use super::stored_record::{ANNOTATION, StoredRecord, members, millis};
use crate::store::Candidacy;
use crate::store::record::VERSION;
use elect_core::Term;
use elect_core::boundary::Boundary;
use elect_core::limits;
use elect_core::takeover::{Reservation, Vacancy};
use elect_keeper::clock;

/// Of a Lease that nobody holds, as client-go writes it.
const FREE_SECONDS: u64 = 1;
/// Between two values of renewTime: client-go's observers compare whole seconds, and see nothing otherwise.
const RENEW_TIME_STEP: u64 = 1000;

/// A Lease that is about to be written.
pub struct LeaseObject {
    object: Value,
    record: Map<String, Value>,
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A time of Kubernetes, with microseconds.
fn time(millis: u64) -> String {
    let time = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(millis)).unwrap_or(SystemTime::UNIX_EPOCH);
    humantime::format_rfc3339_micros(time).to_string()
}

/// When a holder writes next, so that every client sees that it has: now, but at least a second after the last time, even if the
/// clock was set back. Another holder's time does not matter, nor one that no clock can have come to.
pub fn renew_time(now: u64, last: Option<u64>, found: Option<u64>) -> u64 {
    let time = last.map_or(now, |last| now.max(last.saturating_add(RENEW_TIME_STEP)));
    if found.is_some_and(|found| found / 1000 == time / 1000) { time.saturating_add(RENEW_TIME_STEP) } else { time }
}

impl LeaseObject {
    /// A Lease that is not there yet.
    pub fn new(boundary: &Boundary, namespace: &str) -> LeaseObject {
        let object = json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": { "name": lease_name(boundary), "namespace": namespace },
            "spec": {},
        });
        LeaseObject { object, record: Map::new() }.with_all_parts()
    }

    /// The next version of one that was read.
    pub fn after(seen: &Value) -> LeaseObject {
        LeaseObject { object: seen.clone(), record: members(seen) }.with_all_parts()
    }

    /// Every part of it that is written to is an object, whatever was read.
    fn with_all_parts(mut self) -> LeaseObject {
        fn part<'a>(of: &'a mut Value, name: &str) -> &'a mut Value {
            let member = &mut of[name];
            if !member.is_object() {
                *member = Value::Object(Map::new());
            }
            member
        }
        if !self.object.is_object() {
            self.object = Value::Object(Map::new());
        }
        part(&mut self.object, "spec");
        let metadata = part(&mut self.object, "metadata");
        part(metadata, "labels");
        part(metadata, "annotations");
        self
    }

    fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.record.insert(name.to_owned(), value.into());
    }

    /// Writes the fields that may be proclaimed again.
    fn tell(&mut self, candidacy: &Candidacy) {
        let identity = &candidacy.identity;
        self.set("name", identity.name.as_str());
        self.set("host", identity.host.as_str());
        self.set("port", identity.port.map_or(Value::Null, Value::from));
        self.set("ttl_ms", milliseconds(candidacy.ttl));
        let holder = format!("{}_{}", limits::cut_name(identity.name.clone()), identity.id);
        self.set("holder", holder.as_str());
        self.object["spec"]["holderIdentity"] = holder.into();
        self.object["spec"]["leaseDurationSeconds"] = milliseconds(candidacy.ttl).div_ceil(1000).max(1).into();
    }

    fn renewed(&mut self, at: u64) {
        self.set("renewed", clock::wall_millis());
        self.object["spec"]["renewTime"] = time(at).into();
    }

    /// Takes it.
    #[must_use]
    pub fn taken(mut self, candidacy: &Candidacy, seen: Option<&StoredRecord>, term: Term, nonce: u64) -> LeaseObject {
        let now = clock::wall_millis();
        self.record.retain(|name, _| !["successor", "within_ms", "reserved_term"].contains(&name.as_str()));
        self.tell(candidacy);
        // The counter of Kubernetes has 32 bits.
        let transitions = seen.map_or(0, |seen| seen.transitions.saturating_add(1).min(i64::from(i32::MAX)));
        self.object["spec"]["leaseTransitions"] = transitions.into();
        self.object["spec"]["acquireTime"] = time(now).into();
        self.renewed(now);
        let former =
            seen.filter(|seen| seen.is_elects && seen.record.state != crate::store::record::RecordState::Vacant);
        self.set("version", VERSION);
        self.set("state", "held");
        self.set("boundary", candidacy.boundary.as_str());
        self.set("transitions", transitions);
        self.set("id", candidacy.identity.id.as_str());
        self.set("term", term);
        self.set("former", former.map_or(Value::Null, |former| former.record.term.into()));
        self.set("nonce", nonce);
        self.set("since", now);
        self
    }

    /// Renews it, with what the candidate says of itself now. Returns the renewTime as well.
    #[must_use]
    pub fn renewed_by(mut self, candidacy: &Candidacy, nonce: u64, last: Option<u64>) -> (LeaseObject, u64) {
        let found = self.object["spec"]["renewTime"].as_str().and_then(millis);
        let at = renew_time(clock::wall_millis(), last, found);
        self.tell(candidacy);
        self.set("nonce", nonce);
        self.renewed(at);
        (self, at)
    }

    /// Frees it.
    #[must_use]
    pub fn freed(mut self, nonce: u64, reservation: Option<&Reservation<String>>) -> LeaseObject {
        let found = self.object["spec"]["renewTime"].as_str().and_then(millis);
        let at = renew_time(clock::wall_millis(), None, found);
        self.object["spec"]["holderIdentity"] = "".into();
        self.object["spec"]["leaseDurationSeconds"] = FREE_SECONDS.into();
        self.object["spec"]["acquireTime"] = time(at).into();
        self.renewed(at);
        self.set("holder", "");
        self.set("state", "free");
        self.set("nonce", nonce);
        if let Some(Reservation { successor, within }) = reservation {
            let term = self.record.get("term").cloned().unwrap_or_default();
            self.set("successor", successor.as_str());
            self.set("within_ms", milliseconds(*within));
            self.set("reserved_term", term);
        }
        self
    }

    /// A record on which every candidate can wait (S2).
    #[must_use]
    pub fn vacant(mut self, boundary: &Boundary, vacancy: Vacancy) -> LeaseObject {
        let now = clock::wall_millis();
        self.object["spec"] =
            json!({ "holderIdentity": "", "leaseDurationSeconds": FREE_SECONDS, "leaseTransitions": 0 });
        self.renewed(now);
        self.set("version", VERSION);
        self.set("state", "vacant");
        self.set("boundary", boundary.as_str());
        self.set("holder", "");
        self.set("transitions", 0);
        self.set("id", uuid::Uuid::new_v4().to_string());
        self.set("name", "");
        self.set("host", "");
        self.set("term", vacancy.term);
        self.set("nonce", vacancy.nonce);
        self.set("ttl_ms", milliseconds(vacancy.ttl));
        self
    }

    /// The object as it is sent.
    pub fn finish(mut self) -> Value {
        let (label, value) = LABEL;
        let metadata = &mut self.object["metadata"];
        metadata["labels"][label] = value.into();
        metadata["annotations"][ANNOTATION] = Value::Object(self.record).to_string().into();
        self.object
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_renew_time_differs_by_a_second_even_if_the_clock_was_set_back() {
        for (now, last, found, expected) in [
            (10_000, None, None, 10_000),
            (10_000, Some(5_000), Some(5_000), 10_000),
            (10_400, Some(10_000), Some(10_000), 11_000),
            // Set back, and set forward.
            (2_000, Some(10_300), Some(10_300), 11_300),
            (90_000, Some(10_300), Some(10_300), 90_000),
            // Edited by hand, into the very second that would be written.
            (10_400, Some(5_000), Some(10_900), 11_400),
            (10_400, Some(5_000), Some(4_102_444_800_000), 10_400),
        ] {
            assert_eq!(renew_time(now, last, found), expected, "{now} {last:?} {found:?}");
        }
    }

    #[test]
    fn times_have_microseconds_and_are_read_again() {
        assert_eq!(time(1_700_000_000_123), "2023-11-14T22:13:20.123000Z");
        assert_eq!(millis("2023-11-14T22:13:20.123000Z"), Some(1_700_000_000_123));
        assert_eq!(millis("2023-11-14T22:13:20Z"), Some(1_700_000_000_000));
        assert_eq!(millis("yesterday"), None);
    }
}
