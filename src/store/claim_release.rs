//! Giving a claim back from the keeper's process, after the campaigner's death (K2).
//!
//! A keeper has no network and no runtime. It re-executes elect (`/proc/self/exe`) with a hidden subcommand, and passes the
//! claim in an anonymous file: neither claim nor credentials are ever in argv or the environment.

use std::pin::Pin;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::StoreError;
use elect_keeper::Claim;

/// The hidden subcommand; its argument is the number of the claim's descriptor.
pub const SUBCOMMAND: &str = "release-claim";
/// A claim is tried to be given back for no longer than this, however long its lease.
pub const RELEASE_TIMEOUT_MAX: Duration = Duration::from_secs(30);

/// How a claim on a kind of store is given back once nobody is left to ask.
#[derive(Clone, Copy)]
pub enum ClaimRelease {
    /// By the keeper itself: there is no network in it.
    InPlace(fn(Claim)),
    /// By re-executing elect.
    Executed(RemoteRelease),
}

/// One attempt, with what [`StoredClaim::claim`] holds. What is not ours any more is given back already.
pub type RemoteRelease = fn(serde_json::Value) -> Pin<Box<dyn Future<Output = Result<(), StoreError>>>>;

/// The message from the keeper to the process that it becomes.
#[derive(Debug, Serialize, Deserialize)]
pub struct StoredClaim {
    /// Which kind of store understands it.
    pub kind: String,
    /// How long there is anything to give back: after that the lease has run out by itself.
    pub within: Duration,
    /// The store's own words to itself.
    pub claim: serde_json::Value,
}

impl StoredClaim {
    /// Packs a store's claim. `kind` is the name of the kind of store.
    pub fn pack(kind: &str, within: Duration, claim: &impl Serialize) -> Claim {
        // Maps with keys that are no strings are all that JSON cannot say.
        let claim = serde_json::to_value(claim).unwrap_or_default();
        let stored_claim = StoredClaim { kind: kind.to_owned(), within, claim };
        Claim { payload: serde_json::to_vec(&stored_claim).unwrap_or_default(), descriptors: Vec::new() }
    }
}

/// Called in the keeper's process: returns only if elect cannot be re-executed, and then the lease has to run out.
pub fn execute(Claim { payload, .. }: Claim) {
    elect_keeper::execute_self(SUBCOMMAND, &payload);
}
