//! Stores: the places where elections are held.
//!
//! A store executes four requests about a boundary: observe the leader, campaign, renew, release. The election decides
//! when a request is sent, what its answer means for the command, and how long to wait. Requests are short, ordinary async
//! code; the [`worker`] limits the time of each and numbers its answer. An operation that may take long, such as waiting
//! for a lock, runs beside the requests and ends in a hint ([`Notifier`]).
//!
//! Observers take no part in an election: they use [`Store::observe`], [`Store::observe_all`] and
//! [`Store::wait_for_change`], none of which writes into a record, takes a lock, or is visible to a candidate.
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
#[cfg(feature = "crowd")]
mod crowd;
mod finding;
pub mod observer;
pub mod pod_label;
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
use elect_core::takeover::Reservation;
use elect_core::{Term, Time};
use elect_keeper::Claim;

pub use access::{Access, Password};
pub use finding::{Finding, FindingResult};
pub use record::{ANY_CANDIDATE_ID, Leader, Observation, StoreKey};

/// The identity of a candidate, as a record shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// New at each start.
    pub id: String,
    /// For display; by default the hostname.
    pub name: String,
    /// The host that followers are given.
    pub host: String,
    /// The port that followers are given, if any.
    pub port: Option<u16>,
}

/// The request of one candidate to lead one boundary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidacy {
    /// The boundary of the campaign.
    pub boundary: Boundary,
    /// The candidate.
    pub identity: Identity,
    /// The lease that is asked for, where the store grants leases.
    pub ttl: Duration,
}

/// The result of [`Store::campaign`].
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
        observation: Observation,
        /// Ask again after this long even without a hint; `None`: at the usual pace.
        again: Option<Duration>,
        /// Whether another candidate is known to lead or to be earlier in the queue. On an observed store that is unknown
        /// as long as the record may be that of a dead leader; `--no-wait` goes on asking until it is decided.
        decided: bool,
    },
}

/// The result of [`Store::renew`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RenewResult {
    /// The lease is ours, counted from when the request was sent.
    Credited {
        /// On the boot clock, before the first byte left.
        sent: Time,
        /// The granted ttl; `None` if leadership has no end.
        ttl: Option<Duration>,
    },
    /// The boundary is ours, but not under the term of the win, which was not verified: the store keeps a newer one. The
    /// next campaign finds the same place and another term. Neither a credit nor a loss.
    #[cfg_attr(
        not(feature = "all-stores"),
        allow(dead_code, reason = "not every store keeps terms apart from candidates")
    )]
    Outdated,
    /// The boundary is not ours any more. Final.
    Lost {
        /// The store's reason, in a few words for the log.
        why: String,
    },
}

/// The result of [`Store::reserve`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReserveResult {
    /// The release will leave the boundary to that candidate.
    Reserved,
    /// That candidate is not there, or not yet.
    #[cfg_attr(
        not(feature = "all-stores"),
        allow(dead_code, reason = "not every store knows the candidates that wait")
    )]
    NotSeen,
    /// The boundary cannot be left to it, for this reason.
    Impossible(String),
}

/// An error of a store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store cannot be reached or gives no valid answer; a later request may succeed.
    #[error("{0}")]
    Unavailable(String),
    /// A connection is being set up, and the next attempt goes on with it (T6). Not an outage, and not an answer either.
    #[error("{0}")]
    Connecting(String),
    /// The store refuses this candidate, and asking again does not change that.
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
/// Cancellation: a request that runs out of time is dropped at its next await point and repeated later. The next request
/// must find what an interrupted write has left.
#[async_trait(?Send)]
pub trait Store {
    /// Whether leadership ends by itself when it is not renewed.
    fn grants_leases(&self) -> bool;

    /// Observes the leader as of a moment after the question: two observations never show events in the wrong order. A
    /// record whose lease has run out by the store's own time, or whose lock is not held, shows no leader. Changes nothing.
    async fn observe(&mut self, boundary: &Boundary) -> Result<Observation, StoreError>;

    /// Every boundary that has a record in this store, in order.
    async fn boundaries(&mut self) -> Result<Vec<Boundary>, StoreError>;

    /// Every boundary with its observation; a record that cannot be read hides no other. Stores that can do it in one
    /// request override this.
    async fn observe_all(&mut self, _: Detail) -> Result<Vec<Listing>, StoreError> {
        let mut seen = Vec::new();
        for boundary in self.boundaries().await? {
            let observation = self.observe(&boundary).await;
            seen.push((boundary, observation));
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

    /// The facts about this store that a person should know before an election is held in it, for `elect check`. A fact that
    /// cannot be found out is missing, or says so. Changes nothing.
    async fn facts(&mut self) -> Vec<Finding> {
        Vec::new()
    }

    /// The claim with which the keeper can release what the next [`Store::campaign`] may take; `None` if the keeper has it.
    fn claim(&mut self, candidacy: &Candidacy) -> Result<Option<Claim>, StoreError>;

    /// The claim that the keeper needs after a credited renewal, if that is not the one it has: a claim may have to say where the last
    /// credited renewal was executed (5.4). A keeper that does not get it gives back what it has, which costs a ttl at most.
    fn renewed_claim(&mut self, _: &Candidacy) -> Option<Claim> {
        None
    }

    /// Asks for the boundary, and keeps our place among the waiting candidates.
    async fn campaign(&mut self, candidacy: &Candidacy) -> Result<CampaignResult, StoreError>;

    /// Renews what [`Store::campaign`] won, and verifies that it is ours. The first answer of a term may be that to a renewal which was
    /// sent behind the request that won, and counts from then. The record says from then on what the candidacy does:
    /// name and address may have changed since the last time.
    async fn renew(&mut self, candidacy: &Candidacy) -> Result<RenewResult, StoreError>;

    /// From now on the boundary is taken only after it has had no leader for so long, as by a spare.
    fn set_takeover_delay(&mut self, _: Duration) {}

    /// Leaves the boundary to one candidate with the next release of this term, for the time of the reservation; `None`
    /// takes that back. Asked of a leader, before its command is stopped. The successor is an id or a name. Where
    /// the store knows the other candidates, it says whether this one is among them. The next campaign ends it.
    async fn reserve(&mut self, _: &Candidacy, _: Option<Reservation<String>>) -> Result<ReserveResult, StoreError> {
        Ok(ReserveResult::Impossible("this store holds no election".to_owned()))
    }

    /// The candidate ends after the next release: it need not find out who waits in order to let others go first.
    fn campaigns_no_more(&mut self) {}

    /// Releases the boundary, or the place in the queue; success if there is nothing left to release. Called with an empty
    /// tree only.
    async fn release(&mut self, candidacy: &Candidacy) -> Result<(), StoreError>;
}

/// One boundary in the result of [`Store::observe_all`].
pub type Listing = (Boundary, Result<Observation, StoreError>);

/// The detail of [`Store::observe_all`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// The leader, and all data that need no further request.
    Leader,
    /// The rest of each lease as well.
    Lease,
}

/// The sender of hints: a store reports changes through it. A hint may be missing or needless: the next request decides.
#[derive(Debug, Clone)]
pub struct Notifier {
    events: mpsc::UnboundedSender<worker::StoreEvent>,
    /// Whether a hint is in the channel.
    has_hint: Arc<AtomicBool>,
}

impl Notifier {
    /// Sends a hint: something may have changed.
    pub fn changed(&self) {
        // The receiver is gone: the program is about to end.
        if !self.has_hint.swap(true, Ordering::Relaxed) {
            let _ = self.events.send(worker::StoreEvent::Hint);
        }
    }

    /// Reports that our own record is gone, which is as final as [`RenewResult::Lost`] (K11).
    pub fn lost(&self, term: Term) {
        let _ = self.events.send(worker::StoreEvent::Ousted { term });
    }

    /// A notifier without a receiver, for observers.
    #[must_use]
    pub fn disconnected() -> Notifier {
        worker::channel().0
    }
}
