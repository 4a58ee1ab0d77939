//! The record of a leader in a store, and the observation that an observer makes of it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Identity, StoreError};
use elect_core::Term;
pub use elect_core::takeover::RecordState;

/// The newest record format that this elect writes and reads.
pub const VERSION: u32 = 2;

/// The id of the leader where there is no election: every candidate leads.
pub const ANY_CANDIDATE_ID: &str = "always";

/// The format of a record that this elect does not read. Shown, it is the rest of a sentence about the record.
#[derive(Debug, thiserror::Error)]
#[error("of format {0}, and this elect knows {VERSION}: upgrade it")]
pub struct NewerFormat(pub u64);

/// Checks the format of a record, before anything else of it is read.
///
/// # Errors
///
/// [`NewerFormat`]: the record was written by a newer elect.
pub fn check_version(version: impl Into<u64>) -> Result<(), NewerFormat> {
    let version = version.into();
    if version > u64::from(VERSION) { Err(NewerFormat(version)) } else { Ok(()) }
}

/// A record as the stores keep it. Fields are added, never renamed; unknown ones are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Of the format. A candidate that meets a newer one does not stand.
    pub version: u32,
    /// Whether a candidate leads. A record stays when its leader has released: the term in it must keep rising.
    pub state: RecordState,
    pub id: String,
    pub name: String,
    pub host: String,
    pub port: Option<u16>,
    pub term: Term,
    /// Milliseconds; absent where leadership has no end.
    pub ttl: Option<u64>,
    /// When leadership began, in milliseconds since 1970 on the store's wall clock. For display.
    pub since: u64,
}

impl Record {
    pub fn held(identity: &Identity, term: Term, ttl: Option<Duration>, since: u64) -> Record {
        Record {
            version: VERSION,
            state: RecordState::Held,
            id: identity.id.clone(),
            name: identity.name.clone(),
            host: identity.host.clone(),
            port: identity.port,
            term,
            ttl: ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)),
            since,
        }
    }

    /// The same record under another name or address.
    pub fn rename(&mut self, identity: &Identity) {
        self.name.clone_from(&identity.name);
        self.host.clone_from(&identity.host);
        self.port = identity.port;
    }

    pub fn is_held_by(&self, id: &str) -> bool {
        self.state == RecordState::Held && self.id == id
    }

    pub fn leader(&self) -> Leader {
        Leader {
            id: self.id.clone(),
            name: self.name.clone(),
            host: Some(self.host.clone()),
            port: self.port,
            term: Some(self.term),
            since: Some(self.since),
            ttl: self.ttl.map(Duration::from_millis),
            lease_left: None,
            store_key: None,
        }
    }
}

/// A leader as an observer sees it. What is not known is `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leader {
    /// Of the candidate.
    pub id: String,
    /// For display.
    pub name: String,
    /// Where followers are told to connect.
    pub host: Option<String>,
    /// And at which port.
    pub port: Option<u16>,
    /// The fencing token.
    pub term: Option<Term>,
    /// When it was elected, in milliseconds since 1970.
    pub since: Option<u64>,
    /// The ttl that the store granted.
    pub ttl: Option<Duration>,
    /// The rest of the lease, if the store can tell.
    pub lease_left: Option<Duration>,
    /// Its place, in a store whose places other programs can find.
    pub store_key: Option<Box<StoreKey>>,
}

/// The place of a candidate in its store, by which other programs find it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreKey {
    pub key: String,
    /// In hexadecimal digits, as the tools of the store show it: the number may be larger than JSON's.
    pub lease: String,
}

/// The state of a boundary at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observation {
    /// The leader; `None`: no leader that the store knows of.
    pub leader: Option<Leader>,
    /// Those who wait, in their order, where the store knows them: id and name.
    pub candidates: Option<Vec<(String, String)>>,
    /// The obstacle that keeps every candidate out although none leads, as a text.
    pub obstacle: Option<String>,
    /// The term before the leader's or, without a leader, the last one; where the store knows it. Terms are not consecutive:
    /// this alone tells an observer whether one began and ended that it has not seen.
    pub previous_term: Option<Term>,
    /// Since when the boundary has had no leader, in milliseconds since 1970, where the store knows it. For display.
    pub free_since: Option<u64>,
}

impl Observation {
    /// Whether nothing is known of the boundary but its name: no leader, no term before, no obstacle.
    #[must_use]
    pub fn is_unled(&self) -> bool {
        self.leader.is_none() && self.previous_term.is_none() && self.obstacle.is_none()
    }

    /// A boundary whose record no candidate of this elect may campaign beside: it has no leader that can be shown, and the
    /// obstacle says why.
    ///
    /// # Errors
    ///
    /// Every other error, as it is.
    pub fn obstructed(error: StoreError) -> Result<Observation, StoreError> {
        match error {
            StoreError::Obstacle(obstacle) => Ok(Observation { obstacle: Some(obstacle), ..Observation::default() }),
            StoreError::Unavailable(_)
            | StoreError::Connecting(_)
            | StoreError::Refused(_)
            | StoreError::Misused(_) => Err(error),
        }
    }
}
