//! How much of a lease is left, to those who look on.
//!
//! A Lease has the leader's own time in it, and no time of the server's. An observer that has seen it change counts from when it
//! did, on its own clock; one that has seen it once has only the wall clocks, which may differ.

use std::collections::HashMap;
use std::time::Duration;

use super::stored_record::StoredRecord;
use elect_core::Time;
use elect_core::limits::BOUNDARIES_MAX;
use elect_keeper::clock;

/// The memory of an observer: of each Lease, since when it is as it is.
#[derive(Debug, Default)]
pub struct LeaseAges(HashMap<String, VersionAge>);

#[derive(Debug, Clone, Copy)]
struct VersionAge {
    fingerprint: u64,
    since: Time,
    /// Whether this is not the first version that was seen.
    has_changed: bool,
}

impl LeaseAges {
    /// Takes in what was just read. `now`: the server's wall clock.
    pub fn left(&mut self, name: &str, stored: &StoredRecord, now: u64) -> Duration {
        self.left_at(clock::now(), name, stored, now)
    }

    fn left_at(&mut self, received: Time, name: &str, stored: &StoredRecord, now: u64) -> Duration {
        let fingerprint = stored.fingerprint;
        let age = match self.0.get(name) {
            Some(known) if known.fingerprint == fingerprint => *known,
            known => VersionAge { fingerprint, since: received, has_changed: known.is_some() },
        };
        if self.0.len() >= BOUNDARIES_MAX {
            // They are seen again by the next survey.
            self.0.clear();
        }
        self.0.insert(name.to_owned(), age);
        let by_sight = stored.ttl().saturating_sub(received.since(age.since));
        if age.has_changed { by_sight } else { by_sight.min(stored.left_by_clock(now)) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn stored(renewed: u64, transitions: u64) -> StoredRecord {
        let time = humantime::format_rfc3339_micros(std::time::SystemTime::UNIX_EPOCH + Duration::from_millis(renewed));
        StoredRecord::read(&json!({
            "metadata": { "name": "cron", "uid": "u", "resourceVersion": "1" },
            "spec": {
                "holderIdentity": "go", "leaseDurationSeconds": 10, "leaseTransitions": transitions,
                "renewTime": time.to_string(),
            },
        }))
        .expect("a record")
    }

    #[test]
    fn a_lease_counts_by_the_clocks_until_it_was_seen_to_change() {
        let mut ages = LeaseAges::default();
        let start = clock::now();
        let seconds = Duration::from_secs;
        assert_eq!(ages.left_at(start, "cron", &stored(50_000, 1), 54_000), seconds(6));
        // Of a host whose clock is an hour behind.
        let mut others = LeaseAges::default();
        assert_eq!(others.left_at(start, "cron", &stored(50_000, 1), 3_650_000), Duration::ZERO);
        assert_eq!(others.left_at(start + seconds(1), "cron", &stored(52_000, 1), 3_651_000), seconds(10));
        assert_eq!(others.left_at(start + seconds(4), "cron", &stored(52_000, 1), 3_654_000), seconds(7));
        // And an hour ahead: it stands still, and runs out.
        assert_eq!(ages.left_at(start + seconds(10), "cron", &stored(50_000, 1), 54_000), Duration::ZERO);
    }
}
