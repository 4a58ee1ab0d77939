//! The release of a claim by the keeper after the campaigner's death (K2).
//!
//! A keeper has no network and no runtime. It re-executes elect (`/proc/self/exe`) with a hidden subcommand, and passes the
//! claim in an anonymous file: neither claim nor credentials are ever in argv or the environment.

use std::pin::Pin;
use std::time::Duration;

use serde::{Deserialize, Serialize};
#[cfg(feature = "network-store")]
use tracing::debug;

use super::StoreError;
use elect_keeper::Claim;

/// The hidden subcommand; its argument is the number of the claim's descriptor.
pub const SUBCOMMAND: &str = "release-claim";
/// A claim is tried to be given back for no longer than this, however long its lease.
pub const RELEASE_TIMEOUT_MAX: Duration = Duration::from_secs(30);

/// Between two attempts, for a server that is just coming back.
#[cfg(feature = "network-store")]
const RELEASE_RETRY_DELAY: Duration = Duration::from_millis(200);

/// Tries again as long as the store cannot be asked. The caller limits the time.
///
/// # Errors
///
/// The store refuses.
#[cfg(feature = "network-store")]
pub async fn until_settled(mut attempt: impl AsyncFnMut() -> Result<(), StoreError>) -> Result<(), StoreError> {
    loop {
        match attempt().await {
            // The next attempt goes on with the same connection.
            Err(StoreError::Connecting(_)) => {}
            Err(StoreError::Unavailable(trouble)) => {
                debug!("store: {trouble}");
                tokio::time::sleep(RELEASE_RETRY_DELAY).await;
            }
            settled => return settled,
        }
    }
}

/// How the claim on a kind of store is released without its campaigner.
#[derive(Clone, Copy)]
pub enum ClaimRelease {
    /// By the keeper itself, since it needs no network.
    InPlace(fn(Claim)),
    /// By re-executing elect.
    Executed(RemoteRelease),
}

/// Releases [`StoredClaim::claim`], with as many attempts as that takes. A record that is not ours any more counts as released.
pub type RemoteRelease = fn(serde_json::Value) -> Pin<Box<dyn Future<Output = Result<(), StoreError>>>>;

/// The claim as the keeper passes it to the re-executed elect.
#[derive(Debug, Serialize, Deserialize)]
pub struct StoredClaim {
    /// Which kind of store understands it.
    pub kind: String,
    /// How long there is anything to give back: after that the lease has run out by itself.
    pub within: Duration,
    /// The data of the store.
    pub claim: serde_json::Value,
}

impl StoredClaim {
    /// Packs a store's claim. `kind` is the name of the kind of store.
    pub fn pack(kind: &str, within: Duration, claim: &impl Serialize) -> Claim {
        // Only a map whose keys are no strings cannot be serialized, and no claim has one.
        let claim = serde_json::to_value(claim).unwrap_or_default();
        let stored_claim = StoredClaim { kind: kind.to_owned(), within, claim };
        Claim { payload: serde_json::to_vec(&stored_claim).unwrap_or_default(), descriptors: Vec::new() }
    }
}

/// Executes elect in the keeper's process. Returns only if that fails; then the lease has to run out.
pub fn execute(Claim { payload, .. }: Claim) {
    elect_keeper::execute_self(SUBCOMMAND, &payload);
}
