//! The index by which the server removes boundaries that have not been used for a week.
//!
//! The election does not depend on it: the index covers free records only, and a user without the permission to create it
//! holds elections as well, with one line in the log. A foreign index that covers held records is another matter: where the
//! server may remove the record of a leader, a missing record proves nothing.

use std::time::Duration;

use ::mongodb::bson::{Document, doc};
use ::mongodb::options::{CommitQuorum, IndexOptions};
use ::mongodb::{Collection, IndexModel};
use tokio::time::timeout;
use tracing::{debug, info};

use super::errors::short_message;

const INDEX_NAME: &str = "elect_unused";
const UNUSED_LIFETIME: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// An attempt that takes longer is given up.
const INDEX_TIMEOUT: Duration = Duration::from_secs(10);

/// Creates the index if it is not there. Whatever becomes of that, it has been said.
pub async fn ensure_ttl_index(boundaries: Collection<Document>, is_replicated: bool) {
    if timeout(INDEX_TIMEOUT, see_to(boundaries, is_replicated)).await.is_err() {
        info!("boundaries that nobody uses are kept: no index {INDEX_NAME} on ttlExpire: it takes too long");
    }
}

async fn see_to(boundaries: Collection<Document>, is_replicated: bool) {
    let options = IndexOptions::builder()
        .name(INDEX_NAME.to_owned())
        .expire_after(UNUSED_LIFETIME)
        .partial_filter_expression(doc! { "state": "free" })
        .build();
    let index = IndexModel::builder().keys(doc! { "ttlExpire": 1 }).options(options).build();
    let mut creation = boundaries.create_index(index);
    if is_replicated {
        // The default would be all members, unreachable ones included.
        creation = creation.commit_quorum(CommitQuorum::Majority);
    }
    if let Err(error) = creation.await {
        info!("boundaries that nobody uses are kept: no index {INDEX_NAME} on ttlExpire: {}", short_message(&error));
    }
}

/// The index, if there is one, by which the server may remove the record of a leader.
pub async fn find_unsafe_index(boundaries: &Collection<Document>) -> Option<String> {
    let mut indexes = match boundaries.list_indexes().await {
        Ok(indexes) => indexes,
        Err(error) => {
            // No permission, or no collection.
            debug!("the indexes of the collection boundaries are not known: {}", short_message(&error));
            return None;
        }
    };
    while let Ok(true) = indexes.advance().await {
        let Ok(IndexModel { options: Some(found), .. }) = indexes.deserialize_current() else { continue };
        let spares_leaders = found
            .partial_filter_expression
            .is_some_and(|filter| filter.get_str("state").is_ok_and(|state| state == "free"));
        if found.expire_after.is_some() && !spares_leaders {
            return Some(found.name.unwrap_or_default());
        }
    }
    None
}
