//! One candidacy: what was seen of the Lease, what was written to it, and what that is worth.
//!
//! The rules that make it safe:
//!
//! - A write names the uid and the resourceVersion of the object that was read, so that it replaces that version or nothing. A
//!   Lease that is not there is created, which fails if there is one.
//! - An answered write is on the disks of a majority. One whose answer did not come is unknown: a take is recognized by its
//!   nonce, and starts no lease; a renewal follows.
//! - The version of a record is all that its holder writes, and not the resourceVersion, which a label changes as well.
//! - An API server whose etcd was restored from a backup shows an older resourceVersion, and a Lease that was deleted and
//!   created has another uid: what such a Lease says may be older than the lease that a leader counts on ([`Lives`]).
//! - Watches are hints ([`watch`](super::watch)). A candidate that misses them asks at the usual pace.

use std::time::Duration;

use serde_json::Value;
use tracing::warn;

use super::lease_ages::LeaseAges;
use super::name::lease_name;
use super::object::LeaseObject;
use super::server::{KubernetesServer, LeaseWriteResult};
use super::stored_record::{LeaseSnapshot, StoredRecord, millis};
use super::watch::{LeaseWatch, OwnTerm};
use crate::store::record::RecordState;
use crate::store::record_store::{KEEPER_RELEASE_NONCE, ObservedSession, TakeResult};
use crate::store::{Candidacy, Observation, RenewResult, StoreError};
use crate::text::escaped;
use elect_core::boundary::Boundary;
use elect_core::limits;
use elect_core::takeover::{
    Basis, Credit, Durability, ObservedRecord, Reservation, StoreState, TakeRequest, Takeover, Write,
};
use elect_core::{Term, Time};
use elect_keeper::clock;

/// How often a record is looked at of which is not known whether anybody is behind it: its next renewal tells.
const UNDECIDED_POLL_INTERVAL: Duration = Duration::from_millis(500);
/// How often a write is tried again beside other programs that write to the same Lease, within an attempt.
const WRITES_MAX: usize = 4;

/// The past of a Lease, as a candidate has seen it: whether it goes on, or something was forgotten.
#[derive(Debug, Default)]
pub struct Lives {
    /// Of the last Lease that was seen.
    uid: Option<String>,
    /// The highest version that was seen of it.
    revision: u64,
    /// Counts the times at which something may have been forgotten.
    count: u64,
    /// The record that was found then; it may be older than what was forgotten.
    relic: Option<u64>,
}

impl Lives {
    /// Takes in an observation. `is_ours`: it is known to be the newest write, since this candidate has just made it.
    fn note(&mut self, stored: &StoredRecord, is_ours: bool) {
        let revision = stored.revision().unwrap_or(self.revision);
        let is_another = self.uid.as_ref().is_some_and(|uid| *uid != stored.uid) && !is_ours;
        if is_another || revision < self.revision {
            self.count += 1;
            self.relic = Some(stored.fingerprint);
            self.revision = 0;
        }
        self.uid = Some(stored.uid.clone());
        self.revision = self.revision.max(revision);
    }

    fn present(&self) -> Basis<String> {
        Basis::of(self.count.to_string())
    }

    /// Where this record was written.
    fn basis_of(&self, stored: &StoredRecord) -> Basis<String> {
        if self.relic == Some(stored.fingerprint) { Basis::of("before".to_owned()) } else { self.present() }
    }
}

/// One candidate for one boundary.
pub struct Session {
    boundary: Boundary,
    name: String,
    rule: Takeover<String>,
    lives: Lives,
    own: OwnTerm,
    /// The Lease as it was when this candidate last wrote to it, or read it.
    object: Option<Value>,
    /// The renewTime of the last write, in milliseconds.
    renew_time: Option<u64>,
    /// When the last credited renewal was sent.
    credited: Option<Time>,
    pub watch: Option<LeaseWatch>,
    /// Its release has been asked for: whatever becomes of that, it is over.
    let_go: bool,
    ttl: Duration,
    /// After a resign, the record is left to the other candidates until then, if they learn only by reading that it is free.
    yield_until: Option<Time>,
    ages: LeaseAges,
    /// How much is left of the lease that was seen last. For display.
    left: Duration,
    /// A ttl above the accepted limit has been reported.
    has_warned: bool,
}

impl Session {
    pub fn new(candidacy: &Candidacy) -> Session {
        let id = candidacy.identity.id.clone();
        Session {
            boundary: candidacy.boundary.clone(),
            name: lease_name(&candidacy.boundary),
            rule: Takeover::new(id.clone(), candidacy.ttl, Durability::Durable),
            lives: Lives::default(),
            own: OwnTerm::new(id),
            object: None,
            renew_time: None,
            credited: None,
            watch: None,
            let_go: false,
            ttl: candidacy.ttl,
            yield_until: None,
            ages: LeaseAges::default(),
            left: Duration::ZERO,
            has_warned: false,
        }
    }

    pub fn lease_name(&self) -> &str {
        &self.name
    }

    pub fn own(&self) -> &OwnTerm {
        &self.own
    }

    /// The version after which a watch begins.
    pub fn resource_version(&self) -> Option<String> {
        let version = self.object.as_ref()?["metadata"]["resourceVersion"].as_str()?;
        Some(version.to_owned())
    }

    /// Until when a leader leaves a server alone that asks for it: half of its lease, so that the rest is for attempts.
    pub fn pause_limit(&self) -> Option<Time> {
        self.credited.filter(|_| self.own.term().is_some()).map(|sent| sent + self.ttl / 2)
    }

    /// Whether there is anything that could be given back.
    pub fn may_hold(&self) -> bool {
        self.own.term().is_some() || self.rule.outstanding().is_some()
    }

    /// A record that says more than a day counts as a day, which is reported once (S6).
    fn doubt_ttl(&mut self, stored: &StoredRecord) {
        let ttl = Duration::from_millis(stored.record.ttl.unwrap_or(u64::MAX));
        if ttl > limits::TTL_MAX && !std::mem::replace(&mut self.has_warned, true) {
            let name = escaped(&stored.record.name).into_owned();
            warn!("the record of {name} has a ttl of {} ms, which counts as 24h", ttl.as_millis());
        }
    }

    fn too_large(&self, server: &KubernetesServer) -> StoreError {
        let (name, shown) = (&self.name, &server.settings.shown);
        StoreError::Obstacle(format!("the term of the Lease {name:?} in {shown} is too large to be followed"))
    }

    /// A write of ours was answered.
    fn wrote(&mut self, object: Value) {
        if let Ok(stored) = StoredRecord::read(&object) {
            self.lives.note(&stored, true);
        }
        self.object = Some(object);
    }

    /// Renews, and verifies that the record is ours.
    pub async fn renew(
        &mut self,
        server: &mut KubernetesServer,
        candidacy: &Candidacy,
    ) -> Result<RenewResult, StoreError> {
        let Some(term) = self.own.term() else { return Ok(lost("nothing was won")) };
        for _ in 0..WRITES_MAX {
            // Not kept while it is asked for: after an attempt that was given up it is read again.
            let known = self.object.take().and_then(|object| Some((StoredRecord::read(&object).ok()?, object)));
            let is_ours =
                |stored: &StoredRecord| LeaseClaim { term: Some(term), nonce: None }.is(stored, self.own.id());
            let Some((stored, object)) = known.filter(|(stored, _)| is_ours(stored)) else {
                if let Some(why) = self.look_again(server, term).await? {
                    return Ok(self.lose(why));
                }
                continue;
            };
            let (found, nonce) = (stored.nonce, self.rule.nonce());
            let (next, renew_time) = LeaseObject::after(&object).renewed_by(candidacy, nonce, self.renew_time);
            let sent: Time = clock::now(); // T1
            let written = server.replace(&self.name, &next.finish()).await?;
            let received = clock::now();
            let LeaseWriteResult::Done(object) = written else { continue };
            self.renew_time = Some(renew_time);
            self.wrote(object);
            // The version that was named has been replaced, so that nothing is left to be confirmed.
            let basis = Basis::of(String::new());
            let write = Write { sent, received, ttl: candidacy.ttl, nonce, found, is_confirmed: true, basis };
            return match self.rule.credit(&write) {
                Credit::Counts => {
                    self.credited = Some(sent);
                    Ok(RenewResult::Credited { sent, ttl: Some(candidacy.ttl) })
                }
                Credit::Stale | Credit::Unconfirmed | Credit::GiveBack => Err(server.peer.unavailable(&format!(
                    "has the nonce {found} in the Lease {:?}, above that of the renewal: another program has written to it",
                    self.name
                ))),
            };
        }
        Err(server
            .peer
            .unavailable(&format!("has other programs that write to the Lease {:?} all the time", self.name)))
    }

    fn lose(&mut self, why: String) -> RenewResult {
        self.rule.discard_outstanding();
        self.own.set(None);
        self.object = None;
        RenewResult::Lost { why }
    }

    /// Reads the Lease before a write. Returns why it is not ours any more, if it is not: nothing is older than this answer (K11).
    async fn look_again(&mut self, server: &mut KubernetesServer, term: Term) -> Result<Option<String>, StoreError> {
        let uid = self.lives.uid.clone();
        let Some(object) = server.observe(&self.name).await?.object else {
            return Ok(Some("the Lease is gone".to_owned()));
        };
        let stored = StoredRecord::read(&object)?;
        let record = &stored.record;
        let why = match record.state {
            RecordState::Vacant => "the Lease is gone".to_owned(),
            RecordState::Free => "it was released".to_owned(),
            RecordState::Held if stored.holder() != self.own.id() => format!("{} leads", escaped(&record.name)),
            RecordState::Held if record.term != term => "it is of another term".to_owned(),
            // Between the two, another candidate may have been elected.
            RecordState::Held if uid.is_some_and(|uid| uid != stored.uid) => {
                "the Lease was deleted and created again".to_owned()
            }
            RecordState::Held => {
                self.lives.note(&stored, false);
                self.object = Some(object);
                return Ok(None);
            }
        };
        self.lives.note(&stored, false);
        Ok(Some(why))
    }

    /// How much longer what we have freed is left to the others.
    fn stands_back(&self, now: Time) -> Option<Duration> {
        let left = self.yield_until?.since(now);
        (!left.is_zero()).then_some(left)
    }

    /// Frees the record, if it is ours.
    pub async fn release(
        &mut self,
        server: &mut KubernetesServer,
        reservation: Option<&Reservation<String>>,
    ) -> Result<(), StoreError> {
        self.let_go = true;
        // They ask once in a renewal interval, a fifth of the ttl if nothing else was said, and have an attempt's time for it.
        let is_told = self.watch.as_ref().is_some_and(LeaseWatch::hears);
        self.yield_until = (!is_told).then(|| clock::now() + self.ttl * 3 / 10);
        let claim = match (self.own.term(), self.rule.outstanding()) {
            (Some(term), _) => LeaseClaim { term: Some(term), nonce: None },
            (None, Some(nonce)) => LeaseClaim { term: None, nonce: Some(nonce) },
            (None, None) => return Ok(()),
        };
        let nonce = self.rule.nonce();
        self.free(server, claim, nonce, reservation).await
    }

    async fn free(
        &mut self,
        server: &mut KubernetesServer,
        claim: LeaseClaim,
        nonce: u64,
        reservation: Option<&Reservation<String>>,
    ) -> Result<(), StoreError> {
        let known = self.object.take();
        let id = self.own.id().to_owned();
        if let Some(object) = free(server, &self.name, &id, claim, nonce, reservation, known).await? {
            self.wrote(object);
        }
        Ok(())
    }

    /// For display.
    fn describe(&self, snapshot: &LeaseSnapshot) -> Observation {
        let wait = humantime::format_duration(self.rule.longest_wait());
        let Some(Ok(stored)) = snapshot.object.as_ref().map(StoredRecord::read) else { return Observation::default() };
        let is_relic = self.lives.relic == Some(stored.fingerprint);
        let known = stored.observation(self.left);
        if known.leader.is_some() {
            return known;
        }
        let obstacle = if stored.record.state == RecordState::Vacant {
            format!("the Lease of this boundary has vanished: to be taken when there is no leader for {wait}")
        } else if is_relic {
            format!(
                "the Lease is older than one that was seen before, and a leader may be forgotten: to be taken after {wait}"
            )
        } else {
            return known;
        };
        Observation { obstacle: Some(obstacle), ..known }
    }
}

impl ObservedSession for Session {
    type Server = KubernetesServer;
    type Snapshot = LeaseSnapshot;

    fn takeover(&mut self) -> &mut Takeover<String> {
        &mut self.rule
    }

    fn take_released(&mut self) -> bool {
        std::mem::take(&mut self.let_go)
    }

    fn clear_term(&mut self) {
        self.own.set(None);
    }

    async fn observe(&mut self, server: &mut KubernetesServer) -> Result<LeaseSnapshot, StoreError> {
        let snapshot = server.observe(&self.name).await?;
        self.object.clone_from(&snapshot.object);
        Ok(snapshot)
    }

    fn state(&mut self, _: &KubernetesServer, snapshot: &LeaseSnapshot) -> Result<StoreState<String>, StoreError> {
        let stored = snapshot.object.as_ref().map(StoredRecord::read).transpose()?;
        if let Some(stored) = &stored {
            self.doubt_ttl(stored);
            self.left = self.ages.left(&self.name, stored, snapshot.now);
            let is_ours = stored.holder() == self.own.id() && Some(stored.nonce) == self.rule.outstanding();
            self.lives.note(stored, is_ours);
        }
        let record = stored.map(|stored| {
            let holder = stored.holder();
            ObservedRecord {
                // Of others only a change matters, and all that changes with it.
                nonce: if holder == self.own.id() { stored.nonce } else { stored.fingerprint },
                holder,
                term: stored.record.term,
                ttl: stored.ttl(),
                state: stored.record.state,
                basis: self.lives.basis_of(&stored),
                reservation: stored.reservation,
            }
        });
        Ok(StoreState { basis: self.lives.present(), is_attached: true, record })
    }

    fn recognize(&mut self, _: StoreState<String>, term: Term) {
        self.rule.took(Basis::of(String::new()), true);
        self.own.set(Some(term));
        self.renew_time = self.object.as_ref().and_then(|object| object["spec"]["renewTime"].as_str()).and_then(millis);
    }

    async fn free_stale(&mut self, server: &mut KubernetesServer, term: Term) -> Result<(), StoreError> {
        let nonce = self.rule.nonce();
        self.free(server, LeaseClaim { term: Some(term), nonce: None }, nonce, None).await
    }

    async fn vacate(&mut self, server: &mut KubernetesServer) -> Result<(), StoreError> {
        let vacancy = self.rule.vacancy();
        let object = LeaseObject::new(&self.boundary, &server.settings.namespace).vacant(&self.boundary, vacancy);
        // The result does not matter: the next look shows a Lease.
        server.create(&object.finish()).await.map(drop)
    }

    async fn take(
        &mut self,
        server: &mut KubernetesServer,
        candidacy: &Candidacy,
        snapshot: &LeaseSnapshot,
        received: Time,
    ) -> Result<TakeResult, StoreError> {
        let seen = snapshot.object.as_ref().map(StoredRecord::read).transpose()?;
        let freed_by_us = seen.as_ref().is_some_and(|seen| !seen.is_held() && seen.record.id == self.own.id());
        if let Some(left) = self.stands_back(received).filter(|_| freed_by_us) {
            return Ok(TakeResult::Yielded(left));
        }
        let TakeRequest { nonce, floor } = self.rule.take_request();
        self.own.set(None);
        let last = seen.as_ref().map_or(0, |seen| seen.record.term);
        let Some(term) = limits::next_term(last, snapshot.now, floor.saturating_sub(1)) else {
            self.rule.discard_outstanding();
            return Err(self.too_large(server));
        };
        let written = if let Some(object) = &snapshot.object {
            let next = LeaseObject::after(object).taken(candidacy, seen.as_ref(), term, nonce);
            server.replace(&self.name, &next.finish()).await?
        } else {
            let next = LeaseObject::new(&self.boundary, &server.settings.namespace);
            server.create(&next.taken(candidacy, None, term, nonce).finish()).await?
        };
        let LeaseWriteResult::Done(object) = written else {
            self.rule.discard_outstanding();
            return Ok(TakeResult::Changed);
        };
        self.renew_time = object["spec"]["renewTime"].as_str().and_then(millis);
        self.wrote(object);
        self.rule.took(Basis::of(String::new()), true);
        self.own.set(Some(term));
        Ok(TakeResult::Taken(term))
    }

    fn wait(&mut self, _: &KubernetesServer, left: Duration, decided: bool) -> Duration {
        // Renewals are no hints.
        if decided { left } else { left.min(UNDECIDED_POLL_INTERVAL) }
    }

    fn observation(&self, snapshot: &LeaseSnapshot) -> Observation {
        self.describe(snapshot)
    }
}

fn lost(why: &str) -> RenewResult {
    RenewResult::Lost { why: why.to_owned() }
}

/// Which of a holder's records is meant. `None`: any.
#[derive(Debug, Clone, Copy)]
struct LeaseClaim {
    term: Option<Term>,
    nonce: Option<u64>,
}

impl LeaseClaim {
    fn is(self, stored: &StoredRecord, id: &str) -> bool {
        stored.is_held()
            && stored.holder() == id
            && self.term.is_none_or(|term| term == stored.record.term)
            && self.nonce.is_none_or(|nonce| nonce == stored.nonce)
    }
}

/// The keeper's release: whatever this candidate holds, which is dead. Its id is its own, and of no term after its death.
pub async fn release_for_dead(server: &mut KubernetesServer, boundary: &Boundary, id: &str) -> Result<(), StoreError> {
    let claim = LeaseClaim { term: None, nonce: None };
    free(server, &lease_name(boundary), id, claim, KEEPER_RELEASE_NONCE, None, None).await.map(drop)
}

/// Frees a record. Returns the Lease as it is then. Not ours, or not there any more: there is nothing to be given back.
async fn free(
    server: &mut KubernetesServer,
    name: &str,
    id: &str,
    claim: LeaseClaim,
    nonce: u64,
    reservation: Option<&Reservation<String>>,
    mut known: Option<Value>,
) -> Result<Option<Value>, StoreError> {
    for _ in 0..WRITES_MAX {
        // A record that is not understood is not ours.
        let is_ours = |object: &Value| StoredRecord::read(object).is_ok_and(|stored| claim.is(&stored, id));
        let object = match known.take().filter(is_ours) {
            Some(object) => object,
            None => match server.observe(name).await?.object.filter(is_ours) {
                Some(object) => object,
                None => return Ok(None),
            },
        };
        let next = LeaseObject::after(&object).freed(nonce, reservation).finish();
        if let LeaseWriteResult::Done(object) = server.replace(name, &next).await? {
            return Ok(Some(object));
        }
    }
    Err(server.peer.unavailable(&format!("has other programs that write to the Lease {name:?} all the time")))
}
