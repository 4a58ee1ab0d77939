//! The index by which the server removes boundaries that have not been used for a week.
//!
//! The election does not depend on it: the index covers free records only, and a user without the permission to create it
//! holds elections as well, with one line in the log. A foreign index that covers held records is another matter: where the
//! server may remove the record of a leader, a missing record proves nothing.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use ::mongodb::bson::{Document, doc};
use ::mongodb::options::{CommitQuorum, IndexOptions};
use ::mongodb::{Collection, IndexModel};
use tokio::time::timeout;
use tracing::{debug, info};

use super::errors::{is_denial, is_final, short_message};

const INDEX_NAME: &str = "elect_unused";
const UNUSED_LIFETIME: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// An attempt that takes longer is given up.
const INDEX_TIMEOUT: Duration = Duration::from_secs(10);

/// Whether the index has been created, or refused. Shared by the store and by the attempt in progress.
#[derive(Debug, Clone, Default)]
pub struct IndexCreation(Rc<Cell<CreationState>>);

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum CreationState {
    #[default]
    Open,
    Running,
    Settled,
}

/// An attempt to create the index. If it is dropped before the server has decided, the next attempt may begin.
#[derive(Debug)]
struct IndexAttempt(IndexCreation);

impl Drop for IndexAttempt {
    fn drop(&mut self) {
        let IndexCreation(state) = &self.0;
        if state.get() == CreationState::Running {
            state.set(CreationState::Open);
        }
    }
}

impl IndexCreation {
    /// A future that creates the index if it is not there; `None` if an attempt is in progress or was decided.
    ///
    /// A connection that breaks ends the attempt, and the next one begins with the next connection. A refusal is logged and
    /// final, and so is an attempt that takes longer than [`INDEX_TIMEOUT`].
    pub fn begin(
        &self,
        boundaries: Collection<Document>,
        is_replicated: bool,
    ) -> Option<impl Future<Output = ()> + use<>> {
        let IndexCreation(state) = self;
        if state.get() != CreationState::Open {
            return None;
        }
        state.set(CreationState::Running);
        let attempt = IndexAttempt(self.clone());
        Some(async move {
            let reason = match timeout(INDEX_TIMEOUT, create(boundaries, is_replicated)).await {
                Ok(Ok(())) => None,
                // No answer, or a member that has just lost the election: the next connection tries again.
                Ok(Err(error)) if !is_final(&error) => {
                    debug!("the index {INDEX_NAME} is not created yet: {}", short_message(&error));
                    return;
                }
                Ok(Err(error)) => Some(short_message(&error)),
                Err(_) => Some("it takes too long".to_owned()),
            };
            if let Some(reason) = reason {
                info!("boundaries that nobody uses are kept: no index {INDEX_NAME} on ttlExpire: {reason}");
            }
            let IndexCreation(state) = &attempt.0;
            state.set(CreationState::Settled);
        })
    }
}

async fn create(boundaries: Collection<Document>, is_replicated: bool) -> Result<(), ::mongodb::error::Error> {
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
    creation.await.map(drop)
}

/// The index, if there is one, by which the server may remove the record of a leader.
///
/// # Errors
///
/// The server gave no answer. A refusal is none: without the permission the indexes are not known.
pub async fn find_unsafe_index(boundaries: &Collection<Document>) -> Result<Option<String>, ::mongodb::error::Error> {
    let mut indexes = match boundaries.list_indexes().await {
        Ok(indexes) => indexes,
        Err(error) if !is_denial(&error) => return Err(error),
        Err(error) => {
            debug!("the indexes of the collection boundaries are not known: {}", short_message(&error));
            return Ok(None);
        }
    };
    while indexes.advance().await? {
        let Ok(IndexModel { options: Some(found), .. }) = indexes.deserialize_current() else { continue };
        let spares_leaders = found
            .partial_filter_expression
            .is_some_and(|filter| filter.get_str("state").is_ok_and(|state| state == "free"));
        if found.expire_after.is_some() && !spares_leaders {
            return Ok(Some(found.name.unwrap_or_default()));
        }
    }
    Ok(None)
}
