//! Where elections are held.
//!
//! A store answers four questions about a boundary (who leads, may I lead, is it still mine, take it back) and nothing
//! else: when to ask, what an answer means for the command and how long to wait is the election's business. Requests are
//! short, ordinary async code; the [`worker`] bounds each in time and numbers its answer. Whatever may last, like waiting
//! for a lock, goes on beside them and ends in a hint ([`Notifier`]).
//!
//! Observers ask without taking part: [`Store::observe`], [`Store::observe_all`], and [`Store::wait_for_change`] to learn when to ask again.
//! None of these writes, or takes a lock, or can be noticed by a candidate.
//!
//! Adding a store: a folder with an implementation of [`Store`], and its lines in [`registry`], the one file here that names
//! stores. Help texts, schemes and completions derive from it. `CONTRIBUTING.md` lists the places outside of `src`.

#![cfg_attr(
    not(feature = "network-store"),
    expect(dead_code, reason = "what stores on the network need, in a build without one")
)]

mod access;
mod bounds;
pub mod claim_release;
#[cfg(test)]
mod conformance;
#[cfg(feature = "network-store")]
mod connection;
pub mod observer;
mod record;
#[cfg(feature = "record-store")]
mod record_store;
pub mod registry;
#[cfg(feature = "network-store")]
pub mod resolver;
pub mod url;
pub mod worker;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;

use elect_core::boundary::Boundary;
use elect_core::{Term, Time};
use elect_keeper::Claim;

pub use access::{Access, Password};
pub use record::{Leader, Observation};

/// The identity of a candidate, as a record shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// New at each start.
    pub id: String,
    /// For people; by default the hostname.
    pub name: String,
    /// The host that followers are given.
    pub host: String,
    /// And at which port, if any.
    pub port: Option<u16>,
}

/// One candidate's wish to lead one boundary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidacy {
    /// The boundary of the campaign.
    pub boundary: Boundary,
    /// By whom.
    pub identity: Identity,
    /// The lease that is asked for, where the store grants leases.
    pub ttl: Duration,
}

/// The answer to a campaign's question.
#[derive(Debug, Clone, PartialEq)]
pub enum CampaignResult {
    /// The boundary is ours under this term; a renewal has to confirm it before anything runs.
    Won {
        /// Larger than every earlier leader's.
        term: Term,
    },
    /// Not yet.
    Waiting {
        /// The leader, if the store knows one.
        sighting: Observation,
        /// Ask again after this long even without a hint; `None`: at the usual pace.
        again: Option<Duration>,
        /// Whether somebody is known to lead, or to be before us. Not so on a store that has to be observed, as long as
        /// what is there may have been left by the dead: whoever asks only once goes on asking then.
        decided: bool,
    },
}

/// The answer to a renewal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RenewResult {
    /// Ours, from when the request was sent.
    Credited {
        /// On the boot clock, before the first byte left.
        sent: Time,
        /// The granted ttl; `None` if leadership has no end.
        ttl: Option<Duration>,
    },
    /// Ours, but not under the term of the win, which was not verified: the store keeps a newer one. The next question finds
    /// the same place and names another term. Neither a credit nor a loss.
    #[cfg_attr(
        not(feature = "all-stores"),
        allow(dead_code, reason = "not every store keeps terms apart from candidates")
    )]
    Outdated,
    /// Not ours. Final.
    Lost {
        /// The store's reason, in a few words for the log.
        why: String,
    },
}

/// An error of a store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached, or answers nonsense; later it may be well again.
    #[error("{0}")]
    Unavailable(String),
    /// It will not have us, and asking again will not change that by itself.
    #[error("{0}")]
    Refused(String),
    /// The record is such that no candidate of this elect may campaign beside it: of a newer format, another scheme of terms,
    /// too large, or not elect's at all. It is read again every renewal interval, because another program may change it. Never
    /// a reason for exit status 77 (S6).
    #[error("{0}")]
    Obstacle(String),
    /// The settings contradict each other: a usage error, found when the store is opened.
    #[error("{0}")]
    Misused(String),
}

/// A place that holds elections, as one candidate or one observer sees it.
///
/// Cancellation: a request that runs out of time is dropped at its next await point, and asked again later; what a
/// half-done write has left behind must be found by the next question.
#[async_trait(?Send)]
pub trait Store {
    /// Whether leadership ends by itself when it is not renewed.
    fn grants_leases(&self) -> bool;

    /// Observes the leader as of a moment after the question: two observations never show events in the wrong order. A
    /// record whose lease has run out by the store's own time, or whose lock nobody holds, is no leader. Never changes
    /// anything.
    async fn observe(&mut self, boundary: &Boundary) -> Result<Observation, StoreError>;

    /// Every boundary that this store has heard of, in order.
    async fn boundaries(&mut self) -> Result<Vec<Boundary>, StoreError>;

    /// The same and what can be seen of each: one that cannot be read hides no other. Stores that can answer at once do.
    async fn observe_all(&mut self, _: Detail) -> Result<Vec<Listing>, StoreError> {
        let mut seen = Vec::new();
        for boundary in self.boundaries().await? {
            let sighting = self.observe(&boundary).await;
            seen.push((boundary, sighting));
        }
        Ok(seen)
    }

    /// Returns when something may have changed since the last look at this boundary, or the last survey for `None`. A hint,
    /// which may be idle, late or missing: the caller still asks now and then, because for stores without
    /// hints it never returns. Another boundary requires a newly opened store.
    ///
    /// Cancel safe. Its resources are freed with the store.
    async fn wait_for_change(&mut self, _: Option<&Boundary>) {
        std::future::pending::<()>().await;
    }

    /// The claim with which the keeper can release what the next [`Store::campaign`] may take; `None` if the keeper has it.
    fn claim(&mut self, candidacy: &Candidacy) -> Result<Option<Claim>, StoreError>;

    /// The claim that the keeper needs after a credited renewal, if that is not the one it has: a claim may have to say where the last
    /// credited renewal was executed (5.4). A keeper that does not get it gives back what it has, which costs a ttl at most.
    fn renewed_claim(&mut self, _: &Candidacy) -> Option<Claim> {
        None
    }

    /// Asks for the boundary, and keeps our place among those who wait.
    async fn campaign(&mut self, candidacy: &Candidacy) -> Result<CampaignResult, StoreError>;

    /// Renews what [`Store::campaign`] won, and verifies that it is ours. The record says from then on what the candidacy does:
    /// name and address may have changed since the last time.
    async fn renew(&mut self, candidacy: &Candidacy) -> Result<RenewResult, StoreError>;

    /// Gives the boundary, or our place in the queue, back. Called with an empty tree only. Ours or not: it is gone then.
    async fn release(&mut self, candidacy: &Candidacy) -> Result<(), StoreError>;
}

/// One boundary of a survey.
pub type Listing = (Boundary, Result<Observation, StoreError>);

/// How closely a survey looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// At who leads, and whatever else costs nothing more.
    Leader,
    /// At what is left of each lease, too.
    Lease,
}

/// How a store tells of changes nobody asked about. Notifier may be lost and may be idle: the next question decides.
#[derive(Debug, Clone)]
pub struct Notifier {
    events: mpsc::UnboundedSender<worker::StoreEvent>,
    /// Whether one is on its way that has not been received.
    has_hint: Arc<AtomicBool>,
}

impl Notifier {
    /// Something changed: worth asking again.
    pub fn changed(&self) {
        // The receiver is gone: the program is about to end.
        if !self.has_hint.swap(true, Ordering::Relaxed) {
            let _ = self.events.send(worker::StoreEvent::Hint);
        }
    }

    /// Our own record is gone: as final as an answer that says so (K11).
    pub fn lost(&self, term: Term) {
        let _ = self.events.send(worker::StoreEvent::Ousted { term });
    }

    /// For observers that campaign for nothing.
    #[must_use]
    pub fn disconnected() -> Notifier {
        worker::channel().0
    }
}
