//! One [`Store`] for backends that grant no leases: candidates observe a record, and [`takeover`](elect_core::takeover) says
//! when it may be taken.
//!
//! The order of events is the same on every backend, and is here: a claim before the first campaign, and in a campaign observe,
//! decide, and then free, vacate, take or wait. A backend knows how its server does each of these.

use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;

use super::claim_release::{RELEASE_TIMEOUT_MAX, StoredClaim};
use super::{
    CampaignResult, Candidacy, Detail, Finding, Listing, Notifier, Observation, RenewResult, ReserveResult, Store,
    StoreError,
};
use elect_core::boundary::Boundary;
use elect_core::takeover::{Decision, Reservation, StoreState, Takeover};
use elect_core::{Term, Time};
use elect_keeper::{Claim, clock};

/// How often a record that changes meanwhile is observed again within an attempt.
const TAKE_ATTEMPTS_MAX: usize = 4;
/// The nonce of a release that a keeper makes: larger than any that its campaigner came to.
pub const KEEPER_RELEASE_NONCE: u64 = 1 << 53;

/// A kind of server that holds records.
pub trait Backend {
    /// One candidacy on this server.
    type Session: ObservedSession;
    /// All that a keeper needs to free the record of a candidate.
    type Claim: Serialize;

    /// The name of the kind of store.
    fn kind(&self) -> &'static str;

    /// Observes one boundary.
    async fn observe(&mut self, boundary: &Boundary) -> Result<Observation, StoreError>;

    /// Lists every boundary, in order.
    async fn boundaries(&mut self) -> Result<Vec<Boundary>, StoreError>;

    /// Observes every boundary.
    async fn observe_all(&mut self) -> Result<Vec<Listing>, StoreError>;

    /// Waits for a change; see [`Store`]. Cancel safe.
    async fn wait_for_change(&mut self, boundary: Option<&Boundary>);

    /// The facts about this server; see [`Store`].
    async fn facts(&mut self) -> Vec<Finding>;

    /// The claim to the record that a candidate may take or hold.
    fn claim(&self, candidacy: &Candidacy) -> Self::Claim;

    /// Takes in what the last credited renewal says of the claim. Returns whether the keeper needs another one.
    fn update_claim(&mut self, _: &Self::Session) -> bool {
        false
    }

    /// Begins a candidacy. Nothing is asked of the server yet.
    fn session(&self, candidacy: &Candidacy) -> Self::Session;

    /// Runs [`campaign`] in one attempt, and subscribes to changes.
    async fn campaign(
        &mut self,
        session: &mut Self::Session,
        hints: &Notifier,
        candidacy: &Candidacy,
    ) -> Result<CampaignResult, StoreError>;

    /// Renews the record, and verifies that it is this candidate's.
    async fn renew(
        &mut self,
        session: &mut Self::Session,
        hints: &Notifier,
        candidacy: &Candidacy,
    ) -> Result<RenewResult, StoreError>;

    /// Whether there is anything that could be given back.
    fn may_hold(session: &Self::Session) -> bool;

    /// The candidate does not campaign for now: among many, hints are left to those that do.
    async fn leave_crowd(&mut self, _: &Self::Session) {}

    /// Frees the record, if it is this candidate's, and leaves it to a successor if one is named.
    async fn release(
        &mut self,
        session: &mut Self::Session,
        reservation: Option<&Reservation<String>>,
    ) -> Result<(), StoreError>;
}

/// One candidacy on a server whose records are observed: the steps of [`campaign`].
pub trait ObservedSession {
    /// A connection.
    type Server;
    /// One observation of the record.
    type Snapshot;

    /// The rules of takes.
    fn takeover(&mut self) -> &mut Takeover<String>;

    /// Whether a release was asked for since the last call. The release may have failed, and may yet arrive.
    fn take_released(&mut self) -> bool;

    /// Forgets the term that was won.
    fn clear_term(&mut self);

    /// Reads the record.
    async fn observe(&mut self, server: &mut Self::Server) -> Result<Self::Snapshot, StoreError>;

    /// The observation as the rules of takes see it.
    fn state(&mut self, server: &Self::Server, snapshot: &Self::Snapshot) -> Result<StoreState<String>, StoreError>;

    /// The record is this candidate's, by a take whose answer did not come.
    fn recognize(&mut self, state: StoreState<String>, term: Term);

    /// Frees the record that an earlier take of this candidate has written.
    async fn free_stale(&mut self, server: &mut Self::Server, term: Term) -> Result<(), StoreError>;

    /// Writes a record on which every candidate can wait, unless there is one (S2).
    async fn vacate(&mut self, server: &mut Self::Server) -> Result<(), StoreError>;

    /// Takes the record, if it still is what was observed.
    async fn take(
        &mut self,
        server: &mut Self::Server,
        candidacy: &Candidacy,
        snapshot: &Self::Snapshot,
        received: Time,
    ) -> Result<TakeResult, StoreError>;

    /// The rules say to wait. Returns after how long to ask again.
    fn wait(&mut self, server: &Self::Server, left: Duration, decided: bool) -> Duration;

    /// The observation as it is shown.
    fn observation(&self, snapshot: &Self::Snapshot) -> Observation;
}

/// The end of a take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakeResult {
    /// The record names this candidate under this term.
    Taken(Term),
    /// The record is no longer what was observed.
    Changed,
    /// This candidate has just released the record, and leaves it to others for so long.
    #[cfg_attr(not(feature = "all-stores"), allow(dead_code, reason = "not every store yields"))]
    Yielded(Duration),
}

/// Observes the record, and takes it if that is allowed.
pub async fn campaign<S: ObservedSession>(
    session: &mut S,
    server: &mut S::Server,
    candidacy: &Candidacy,
) -> Result<CampaignResult, StoreError> {
    if session.take_released() {
        // A released record is not ours any more, even if the release has not arrived: it may yet.
        session.takeover().discard_outstanding();
        session.clear_term();
    }
    let mut last = Observation::default();
    for _ in 0..TAKE_ATTEMPTS_MAX {
        let snapshot = session.observe(server).await?;
        let received = clock::now(); // T1
        let mut state = session.state(server, &snapshot)?;
        if let Some(reservation) = state.record.as_mut().and_then(|record| record.reservation.as_mut())
            && reservation.successor == candidacy.identity.name
        {
            reservation.successor.clone_from(&candidacy.identity.id);
        }
        match session.takeover().decide(received, &state) {
            Decision::AlreadyOurs(term) => {
                session.recognize(state, term);
                return Ok(CampaignResult::Won { term });
            }
            Decision::ReleaseStale(term) => {
                session.free_stale(server, term).await?;
                session.takeover().discard_outstanding();
            }
            Decision::Vacate => session.vacate(server).await?, // S2
            Decision::Take => match session.take(server, candidacy, &snapshot, received).await? {
                TakeResult::Taken(term) => return Ok(CampaignResult::Won { term }),
                TakeResult::Changed => {}
                TakeResult::Yielded(left) => {
                    let observation = session.observation(&snapshot);
                    return Ok(CampaignResult::Waiting { observation, again: Some(left), decided: false });
                }
            },
            Decision::Wait { left, decided } => {
                let again = Some(session.wait(server, left, decided));
                let observation = session.observation(&snapshot);
                return Ok(CampaignResult::Waiting { observation, again, decided });
            }
        }
        last = session.observation(&snapshot);
    }
    // The record goes from hand to hand.
    let again = Some(Duration::from_millis(fastrand::u64(1..100)));
    Ok(CampaignResult::Waiting { observation: last, again, decided: false })
}

/// A store whose records are observed.
pub struct RecordStore<B: Backend> {
    backend: B,
    hints: Notifier,
    session: Option<B::Session>,
    /// Whether the keeper has the claim: a campaign is asked for only then.
    is_claimed: bool,
    takeover_delay: Duration,
    /// For the next release of this term.
    reservation: Option<Reservation<String>>,
}

impl<B: Backend> RecordStore<B> {
    /// Nothing is asked of the backend yet.
    pub fn new(backend: B, hints: Notifier) -> RecordStore<B> {
        RecordStore {
            backend,
            hints,
            session: None,
            is_claimed: false,
            takeover_delay: Duration::ZERO,
            reservation: None,
        }
    }

    fn pack(&self, candidacy: &Candidacy) -> Claim {
        let within = candidacy.ttl.min(RELEASE_TIMEOUT_MAX);
        StoredClaim::pack(self.backend.kind(), within, &self.backend.claim(candidacy))
    }
}

#[async_trait(?Send)]
impl<B: Backend> Store for RecordStore<B> {
    fn grants_leases(&self) -> bool {
        true
    }

    async fn observe(&mut self, boundary: &Boundary) -> Result<Observation, StoreError> {
        self.backend.observe(boundary).await
    }

    async fn boundaries(&mut self) -> Result<Vec<Boundary>, StoreError> {
        self.backend.boundaries().await
    }

    async fn observe_all(&mut self, _: Detail) -> Result<Vec<Listing>, StoreError> {
        self.backend.observe_all().await
    }

    async fn wait_for_change(&mut self, boundary: Option<&Boundary>) {
        self.backend.wait_for_change(boundary).await;
    }

    async fn facts(&mut self) -> Vec<Finding> {
        self.backend.facts().await
    }

    fn claim(&mut self, candidacy: &Candidacy) -> Result<Option<Claim>, StoreError> {
        Ok((!self.is_claimed).then(|| self.pack(candidacy)))
    }

    fn renewed_claim(&mut self, candidacy: &Candidacy) -> Option<Claim> {
        let is_outdated = self.backend.update_claim(self.session.as_ref()?);
        is_outdated.then(|| self.pack(candidacy))
    }

    async fn campaign(&mut self, candidacy: &Candidacy) -> Result<CampaignResult, StoreError> {
        self.is_claimed = true;
        self.reservation = None;
        let takeover_delay = self.takeover_delay;
        let session = self.session.get_or_insert_with(|| {
            let mut session = self.backend.session(candidacy);
            session.takeover().set_takeover_delay(takeover_delay);
            session
        });
        self.backend.campaign(session, &self.hints, candidacy).await
    }

    async fn renew(&mut self, candidacy: &Candidacy) -> Result<RenewResult, StoreError> {
        let Some(session) = self.session.as_mut() else {
            return Ok(RenewResult::Lost { why: "nothing was won".to_owned() });
        };
        self.backend.renew(session, &self.hints, candidacy).await
    }

    fn set_takeover_delay(&mut self, delay: Duration) {
        self.takeover_delay = delay;
    }

    /// The record does not know who waits.
    async fn reserve(
        &mut self,
        _: &Candidacy,
        reservation: Option<Reservation<String>>,
    ) -> Result<ReserveResult, StoreError> {
        self.reservation = reservation;
        Ok(ReserveResult::Reserved)
    }

    async fn release(&mut self, _: &Candidacy) -> Result<(), StoreError> {
        match &mut self.session {
            Some(session) if B::may_hold(session) => self.backend.release(session, self.reservation.as_ref()).await,
            Some(session) => {
                self.backend.leave_crowd(session).await;
                Ok(())
            }
            None => Ok(()),
        }
    }
}
