//! The loop behind `status`, `watch` and `wait`: observes a store again and again.
//!
//! A hint ([`Store::wait_for_change`]) starts the next observation at once, and nothing more; without hints there is one each
//! [`POLL_INTERVAL`], and only observations count. They follow each other, so their results are in order; a change that came
//! and went between two of them is not shown (but see [`Observation::previous_term`]).
//!
//! Not here: which difference is a change. The commands decide that.
//!
//! [`Observation::previous_term`]: super::Observation::previous_term

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::{Detail, Listing, Store, StoreError};
use elect_core::boundary::Boundary;

/// How long a change without a hint goes unseen: as long as a renewal takes with the defaults (T2).
pub const POLL_INTERVAL: Duration = Duration::from_secs(2);
/// The same while the store is in trouble.
const ERROR_POLL_INTERVAL: Duration = Duration::from_millis(500);
/// Between two looks, however many hints there are.
const POLL_GAP_MIN: Duration = Duration::from_millis(10);

/// A watch that ended sooner than this is no reason to observe again, since that would make a storm.
pub const WATCH_LIFETIME_MIN: Duration = Duration::from_secs(1);

/// Observes one boundary, or all of them.
pub struct Observer {
    store: Box<dyn Store>,
    scope: Option<Boundary>,
    limit: Duration,
    /// When the next look is due without a hint; `None`: at once.
    due: Option<Duration>,
}

impl Observer {
    /// Nothing is asked yet. The store has `limit` to answer.
    pub fn new(store: Box<dyn Store>, scope: Option<Boundary>, limit: Duration) -> Observer {
        Observer { store, scope, limit, due: None }
    }

    /// The observed boundary; `None`: all of the store.
    pub fn scope(&self) -> Option<&Boundary> {
        self.scope.as_ref()
    }

    /// The present state; from the second call on when it may be another one.
    ///
    /// Cancel safe: an interrupted observation is repeated.
    ///
    /// # Errors
    ///
    /// The store cannot be asked. A boundary that cannot be read, among others, is an error of its own.
    pub async fn next(&mut self) -> Result<Vec<Listing>, StoreError> {
        if let Some(due) = self.due {
            sleep(POLL_GAP_MIN).await;
            // Without a hint the next observation begins at that time.
            let _ = timeout(due, self.store.wait_for_change(self.scope.as_ref())).await;
        }
        self.due = None;
        let limit = self.limit;
        let look = survey(self.store.as_mut(), self.scope.as_ref(), Detail::Leader);
        let answer = timeout(limit, look).await.unwrap_or_else(|_| {
            let limit = humantime::format_duration(limit);
            Err(StoreError::Unavailable(format!("the store did not answer within {limit}")))
        });
        self.due = Some(if answer.is_ok() { POLL_INTERVAL } else { ERROR_POLL_INTERVAL });
        answer
    }
}

/// Observes one boundary, or all of them. A connection may take several attempts to set up (T6), of which a query knows nothing:
/// it asks again until the connection is there. The caller limits the time.
///
/// Cancel safe: an interrupted observation is repeated.
///
/// # Errors
///
/// The store cannot be asked. A boundary that cannot be read, among others, is an error of its own.
pub async fn survey(
    store: &mut dyn Store,
    scope: Option<&Boundary>,
    depth: Detail,
) -> Result<Vec<Listing>, StoreError> {
    loop {
        let seen = match scope {
            None => store.observe_all(depth).await.map(|mut seen| {
                seen.retain(|(boundary, _)| !boundary.is_of_check());
                seen
            }),
            Some(boundary) => match store.observe(boundary).await {
                // The store has answered: it is this record that cannot be followed.
                seen @ (Ok(_) | Err(StoreError::Obstacle(_))) => Ok(vec![(boundary.clone(), seen)]),
                Err(error) => Err(error),
            },
        };
        match seen {
            Err(StoreError::Connecting(_)) => tokio::task::yield_now().await,
            seen => return seen,
        }
    }
}
