//! The status of a boundary as a JSON document: `status --json`, and the page of the same name, there with `self`.
//!
//! Fields are added, never renamed; what is not known is null.

use std::fmt::Write;
use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;

use super::changes::ChangeEntry;
use crate::host_port::joined;
use crate::store::{Leader, Observation, StoreKey};
use elect_core::boundary::Boundary;

/// One boundary.
#[derive(Debug, Serialize)]
pub struct StatusDocument<'a> {
    /// `None`: any.
    boundary: Option<&'a str>,
    store: &'a str,
    leader: Option<LeaderDocument<'a>>,
    candidates: Option<Vec<CandidateDocument<'a>>>,
    /// The obstacle that keeps every candidate out although the boundary has no leader.
    obstacle: Option<&'a str>,
    #[serde(rename = "self", skip_serializing_if = "Option::is_none")]
    self_status: Option<SelfStatus<'a>>,
    /// The last changes that the candidate has seen, the oldest first.
    #[serde(skip_serializing_if = "Option::is_none")]
    changes: Option<Vec<ChangeEntry<'a>>>,
}

/// The candidate that is asked.
#[derive(Debug, Serialize)]
pub struct SelfStatus<'a> {
    /// New at each start.
    pub id: &'a str,
    /// For display.
    pub name: &'a str,
    /// Where followers are told to connect.
    pub host: &'a str,
    /// And at which port.
    pub port: Option<u16>,
    /// Where it is, in one word.
    pub state: &'a str,
    /// Why it may not campaign, in one word each.
    pub reasons: Vec<&'static str>,
    /// Whether it leads, and has not begun to stop.
    pub is_leader: bool,
    /// Whether a command of its own runs.
    pub running: bool,
    /// Its main process.
    pub pid: Option<i32>,
}

/// The leader, in every document that shows one.
#[derive(Debug, Serialize)]
pub(super) struct LeaderDocument<'a> {
    id: &'a str,
    name: &'a str,
    host: Option<&'a str>,
    port: Option<u16>,
    address: Option<String>,
    term: Option<u64>,
    since: Option<String>,
    ttl_ms: Option<u64>,
    lease_left_ms: Option<u64>,
    /// Its place in an etcd.
    etcd: Option<EtcdDocument<'a>>,
}

#[derive(Debug, Serialize)]
struct EtcdDocument<'a> {
    key: &'a str,
    lease: &'a str,
}

#[derive(Debug, Serialize)]
struct CandidateDocument<'a> {
    id: &'a str,
    name: &'a str,
}

impl<'a> StatusDocument<'a> {
    /// The document of one boundary in a store of the named kind.
    #[must_use]
    pub fn new(boundary: &'a Boundary, store: &'a str, observation: &'a Observation) -> StatusDocument<'a> {
        let candidates = observation.candidates.as_ref();
        StatusDocument {
            boundary: Some(boundary.as_str()),
            store,
            leader: observation.leader.as_ref().map(leader_document),
            candidates: candidates.map(|all| all.iter().map(|(id, name)| CandidateDocument { id, name }).collect()),
            obstacle: observation.obstacle.as_deref(),
            self_status: None,
            changes: None,
        }
    }

    /// The same for a store in which every boundary is led.
    #[must_use]
    pub fn of_any(store: &'a str, observation: &'a Observation) -> StatusDocument<'a> {
        StatusDocument {
            boundary: None,
            store,
            leader: observation.leader.as_ref().map(leader_document),
            candidates: None,
            obstacle: None,
            self_status: None,
            changes: None,
        }
    }

    /// With the candidate that is asked.
    #[must_use]
    #[cfg(feature = "listen")]
    pub fn with_self(self, self_status: SelfStatus<'a>) -> StatusDocument<'a> {
        StatusDocument { self_status: Some(self_status), ..self }
    }

    /// With the changes that it has seen.
    #[must_use]
    #[cfg(feature = "listen")]
    pub fn with_changes(self, changes: Vec<ChangeEntry<'a>>) -> StatusDocument<'a> {
        StatusDocument { changes: Some(changes), ..self }
    }

    /// On one line.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("texts and numbers become JSON")
    }
}

pub(super) fn leader_document(leader: &Leader) -> LeaderDocument<'_> {
    LeaderDocument {
        id: &leader.id,
        name: &leader.name,
        host: leader.host.as_deref(),
        port: leader.port,
        // As text says it: a host without a port is an address, too.
        address: leader
            .host
            .as_deref()
            .and_then(|host| joined(host, leader.port).or_else(|| (!host.is_empty()).then(|| host.to_owned()))),
        term: leader.term,
        since: leader.since.and_then(rfc3339),
        ttl_ms: leader.ttl.map(millis),
        lease_left_ms: leader.lease_left.map(millis),
        etcd: leader.store_key.as_deref().map(|StoreKey { key, lease }| EtcdDocument { key, lease }),
    }
}

/// `None` for a number outside the calendar, from a foreign record.
fn rfc3339(millis: u64) -> Option<String> {
    let mut text = String::new();
    let at = UNIX_EPOCH.checked_add(Duration::from_millis(millis))?;
    write!(text, "{}", humantime::format_rfc3339_seconds(at)).ok()?;
    Some(text)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
