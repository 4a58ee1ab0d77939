//! Giving a claim back from the keeper's process, after the campaigner's death (K2).
//!
//! A keeper has no network and no runtime. It becomes elect anew, by `/proc/self/exe` and a hidden subcommand, with the
//! claim in an anonymous file: neither claim nor credentials are ever in argv or the environment.

use std::pin::Pin;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tracing::debug;

use super::{REGISTRY, StoreError, StoreKind};
use elect_keeper::Claim;

/// The hidden subcommand; its argument is the number of the claim's descriptor.
pub const SUBCOMMAND: &str = "relinquish";
/// Between two attempts, for a server that is just coming back.
const RELEASE_RETRY_DELAY: Duration = Duration::from_millis(200);

/// How a claim on a kind of store is given back once nobody is left to ask.
#[derive(Clone, Copy)]
pub enum ClaimRelease {
    /// By the keeper itself: there is no network in it.
    InPlace(fn(Claim)),
    /// By elect executed anew.
    Executed(RemoteRelease),
}

/// One attempt, with what [`StoredClaim::claim`] holds. What is not ours any more is given back already.
pub type RemoteRelease = fn(serde_json::Value) -> Pin<Box<dyn Future<Output = Result<(), StoreError>>>>;

/// What travels from the keeper to the process that it becomes.
#[derive(Debug, Serialize, Deserialize)]
pub struct StoredClaim {
    /// Which kind of store understands it.
    kind: String,
    /// How long there is anything to give back: after that the lease has run out by itself.
    within: Duration,
    /// The store's own words to itself.
    claim: serde_json::Value,
}

impl StoredClaim {
    /// Packs a store's claim.
    pub fn pack(kind: &StoreKind, within: Duration, claim: &impl Serialize) -> Claim {
        // Maps with keys that are no strings are all that JSON cannot say.
        let claim = serde_json::to_value(claim).unwrap_or_default();
        let parcel = StoredClaim { kind: kind.name().to_owned(), within, claim };
        Claim { payload: serde_json::to_vec(&parcel).unwrap_or_default(), descriptors: Vec::new() }
    }

    /// Gives it back: tries until that is confirmed or the lease is over anyway.
    ///
    /// # Errors
    ///
    /// The last attempt's.
    pub async fn relinquish(self) -> Result<(), StoreError> {
        let kind = REGISTRY.iter().find(|kind| kind.name() == self.kind);
        let Some(StoreKind { relinquish: ClaimRelease::Executed(attempt), .. }) = kind else {
            return Err(StoreError::Refused(format!("this elect knows no store {:?} with claims", self.kind)));
        };
        let attempts = async {
            loop {
                match attempt(self.claim.clone()).await {
                    Err(StoreError::Unavailable(trouble)) => debug!("store: {trouble}"),
                    settled => return settled,
                }
                tokio::time::sleep(RELEASE_RETRY_DELAY).await;
            }
        };
        tokio::time::timeout(self.within, attempts)
            .await
            .unwrap_or_else(|_| Err(StoreError::Unavailable("it did not answer in time".to_owned())))
    }
}

/// Called in the keeper's process: returns only if elect cannot be executed anew, and then the lease has to run out.
pub fn execute(Claim { payload, .. }: Claim) {
    elect_keeper::execute_self(SUBCOMMAND, &payload);
}
