//! One candidacy: what was seen of the record, what was written to it, and what that is worth.
//!
//! The rules that make it safe:
//!
//! - What is written is compared first, in one operation: a take insists on the very version that was observed, or that there
//!   is none; renewal and release on id, term and *held*.
//! - A write counts once a majority has it on its disks. One whose confirmation failed or did not come is unknown: a take is
//!   recognized by its nonce, and starts no lease; a renewal follows.
//! - A take of a free or missing record is not confirmed by itself, but by the first renewal: that one finds the take's record, in the history of the
//!   same primary, and a majority that has the renewal has all that came before. A take that a failover forgets leaves
//!   nothing for the renewal to find.
//! - What is read, a majority has. That may be old: a primary that was cut off does not know it yet. So takes name what was
//!   seen, and a record that is older than our own take, or missing, is no proof that it is not ours any more.
//! - Entries in the collection of changes are hints ([`changes`](super::changes)). A candidate that misses them asks at the usual
//!   pace.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use ::mongodb::bson::{Bson, Document, doc};
use ::mongodb::options::{Acknowledgment, ReturnDocument, WriteConcern};
use tokio::time::timeout;
use tracing::{debug, warn};

use super::changes::WhenMissing;
use super::errors::is_duplicate;
use super::server::MongoServer;
use super::stored_record::{NamedVersion, StoredRecord, number, view};
use super::ttl_index::IndexCreation;
use super::watch::{ChangesWatch, RefusalLog, Watcher};
use crate::store::crowd::{self, HandoverTracker};
use crate::store::record::{RecordState, VERSION};
use crate::store::record_store::{KEEPER_RELEASE_NONCE, ObservedSession, TakeResult};
use crate::store::{Candidacy, Identity, Notifier, Observation, RenewResult, StoreError};
use crate::text::escaped;
use elect_core::limits;
use elect_core::takeover::{Basis, Credit, Durability, Reservation, StoreState, TakeRequest, Takeover, Vacancy, Write};
use elect_core::{Term, Time};
use elect_keeper::clock;

/// How often a record is looked at of which is not known whether anybody is behind it: its next renewal tells.
const UNDECIDED_POLL_INTERVAL: Duration = Duration::from_millis(500);

/// One candidate for one boundary.
pub struct Session {
    boundary: String,
    id: String,
    rule: Takeover<String>,
    /// The version that the outstanding take insists on; `None`: that there is no record.
    named: Option<NamedVersion>,
    /// The term that was won, until it is lost or released.
    term: Option<Term>,
    /// The term and the leader that others were told of last.
    told: Option<(Term, Identity)>,
    refusals: RefusalLog,
    /// Its release has been asked for: whatever becomes of that, it is over.
    let_go: bool,
    ttl: Duration,
    /// After a resign, the record is left to the other candidates until then, because they learn only by reading that it is free.
    yield_until: Option<Time>,
    /// A ttl above the accepted limit has been reported.
    has_warned: bool,
    /// A hint has come since the last look: the record may be free.
    is_told: Rc<Cell<bool>>,
    handovers: HandoverTracker,
    /// From one look to the next, at most.
    renew_interval: Duration,
    /// Another program's election of this name, as it was found beside the last look.
    elector: Option<Result<Option<String>, StoreError>>,
}

impl Session {
    pub fn new(candidacy: &Candidacy, renew_interval: Duration) -> Session {
        let id = candidacy.identity.id.clone();
        Session {
            boundary: candidacy.boundary.to_string(),
            rule: Takeover::new(id.clone(), candidacy.ttl, Durability::Durable),
            id,
            named: None,
            term: None,
            told: None,
            refusals: RefusalLog::default(),
            let_go: false,
            ttl: candidacy.ttl,
            yield_until: None,
            has_warned: false,
            is_told: Rc::default(),
            handovers: HandoverTracker::default(),
            renew_interval,
            elector: None,
        }
    }

    /// The server may have removed records by itself: a missing one is waited for, as on a volatile store.
    pub fn set_volatile(&mut self) {
        self.rule.set_durability(Durability::Volatile);
    }

    /// Whether there is anything that could be given back.
    pub fn may_hold(&self) -> bool {
        self.term.is_some() || self.rule.outstanding().is_some()
    }

    /// Begins to watch for changes, if there is no watch. Must be called inside a [`tokio::task::LocalSet`].
    pub fn listen(&self, server: &mut MongoServer, hints: &Notifier) {
        if server.watch.as_ref().is_some_and(ChangesWatch::is_settled) {
            return;
        }
        let (hints, watcher) = (hints.clone(), Watcher::Candidate(self.refusals.clone()));
        let (boundary, is_told) = (Some(self.boundary.clone()), Rc::clone(&self.is_told));
        let tell = move || {
            is_told.set(true);
            hints.changed();
        };
        server.watch = Some(ChangesWatch::begin(server.changes(), boundary, watcher, tell));
    }

    /// After a credited renewal: tells the others of a new term or a new name, and creates the index of elect's own. Renewals that
    /// say nothing new are no news. Must be called inside a [`tokio::task::LocalSet`].
    pub fn announce(&mut self, server: &MongoServer, candidacy: &Candidacy, index: &IndexCreation) {
        if let Some(watch) = &server.watch {
            watch.end_soon();
        }
        let Some(term) = self.term else { return };
        let is_news = self.told.as_ref().is_none_or(|(told, leader)| *told != term || *leader != candidacy.identity);
        let creation = index.begin(server.boundaries.clone(), server.is_replicated);
        if is_news {
            self.told = Some((term, candidacy.identity.clone()));
        }
        if !is_news && creation.is_none() {
            return;
        }
        let (changes, boundary, refusals) = (server.changes(), self.boundary.clone(), self.refusals.clone());
        let limit = server.time_for_hint_beside();
        // Not watched: the election needs neither. One after the other, so that one connection serves both.
        tokio::task::spawn_local(async move {
            if is_news {
                match timeout(limit, changes.tell(&boundary, WhenMissing::Create)).await {
                    Ok(Ok(_)) => {}
                    Ok(Err(reason)) => refusals.note(&reason),
                    Err(_) => debug!("the others may not have been told: no answer in time"),
                }
            }
            if let Some(creation) = creation {
                creation.await;
            }
        });
    }

    /// A record that says more than a day counts as a day, which is reported once (S6).
    fn doubt_ttl(&mut self, seen: Option<&StoredRecord>) {
        let Some(StoredRecord { record, .. }) = seen else { return };
        let ttl = Duration::from_millis(record.ttl.unwrap_or(u64::MAX));
        if ttl > limits::TTL_MAX && !std::mem::replace(&mut self.has_warned, true) {
            warn!("the record of {} has a ttl of {} ms, which counts as 24h", record.name, ttl.as_millis());
        }
    }

    fn too_large(&self, server: &MongoServer) -> StoreError {
        let (name, address) = (&self.boundary, &server.address);
        StoreError::Obstacle(format!("the term of {name:?} in {address} is too large to be followed"))
    }

    /// Renews, and verifies that the record is ours.
    pub async fn renew(&mut self, server: &MongoServer, candidacy: &Candidacy) -> Result<RenewResult, StoreError> {
        let Some(term) = self.term else { return Ok(lost("nothing was won".to_owned())) };
        let nonce = self.rule.nonce();
        let mut filter = self.ours(term);
        // A late write must not bring back a version that a candidate has seen before.
        filter.insert("seq", doc! { "$lt": long(nonce) });
        let mut change = told(candidacy);
        change.extend(doc! { "seq": long(nonce), "ttlExpire": { "$add": ["$$NOW", "$ttlMs"] } });
        let sent: Time = clock::now(); // T1
        let write = server.change(filter, change);
        let write = write.projection(doc! { "ttlMs": 1 }).return_document(ReturnDocument::After);
        let renewed = write.await.map_err(|error| server.classify(&error))?;
        let received = clock::now();
        let renewal = match renewed.as_ref().map(|record| record.get("ttlMs").and_then(number)) {
            Some(Some(ttl)) => {
                // A record that was edited must not lengthen the deadline beyond the requested ttl (2.5).
                let ttl = limits::believed_ttl(ttl).min(candidacy.ttl);
                // A majority has it, and the filter lets no smaller nonce through.
                let basis = Basis::of(String::new());
                let write = Write { sent, received, ttl, nonce, found: 0, is_confirmed: true, basis };
                match self.rule.credit(&write) {
                    Credit::Counts => RenewResult::Credited { sent, ttl: Some(ttl) },
                    Credit::Stale | Credit::Unconfirmed | Credit::GiveBack => return Err(server.is_stale_primary()),
                }
            }
            Some(None) => lost("the record has been overwritten".to_owned()),
            None => self.confirm_loss(server, term).await?,
        };
        // The take is no longer unanswered: found again as it was, it would be an old state of the record.
        self.rule.discard_outstanding();
        if matches!(renewal, RenewResult::Lost { .. }) {
            self.term = None;
        }
        Ok(renewal)
    }

    /// Why a renewal has found nothing. Only what cannot be older than our take says that the record is not ours (K11).
    async fn confirm_loss(&self, server: &MongoServer, term: Term) -> Result<RenewResult, StoreError> {
        let stored = match server.observe(&self.boundary).await {
            Ok(Some(stored)) if stored.record.term >= term => stored,
            _ => match server.read_linearizable(&self.boundary).await? {
                None => return Ok(lost("the record is gone".to_owned())),
                Some(Err(_)) => return Ok(lost("the record has been overwritten".to_owned())),
                Some(Ok(stored)) => stored,
            },
        };
        let record = &stored.record;
        Ok(match record.state {
            RecordState::Held if record.id != self.id => lost(format!("{} leads", escaped(&record.name))),
            RecordState::Held if record.term != term => lost("it is of another term".to_owned()),
            RecordState::Free | RecordState::Vacant => lost("it was released".to_owned()),
            RecordState::Held => {
                return Err(server.is_stale_primary());
            }
        })
    }

    /// Another program's election of this name, unless the last look has been for it as well.
    async fn find_elector(&mut self, server: &MongoServer) -> Result<Option<String>, StoreError> {
        match self.elector.take() {
            Some(found_beside_the_look) => found_beside_the_look,
            None => server.find_elector(&self.boundary).await,
        }
    }

    /// Before a look that has to show what this server has done, a take included: a look shows what a majority has, and a take
    /// waits for none. Without that a candidate would not see its own take; and those that a take has come before would look and
    /// take without a pause for as long as there is no majority.
    async fn shows_at_next_look(&self, server: &MongoServer) -> Result<(), StoreError> {
        if server.is_replicated { server.confirm_all(&self.boundary).await } else { Ok(()) }
    }

    /// Another take was quicker.
    async fn came_too_late(&mut self, server: &MongoServer) -> Result<TakeResult, StoreError> {
        self.rule.discard_outstanding();
        self.shows_at_next_look(server).await?;
        Ok(TakeResult::Changed)
    }

    /// After a look that shows what the server has done: a take that insists on another version than the one that is there will
    /// find it no more. Waiting for a majority before each later look would be for nothing. If such a take were made nevertheless,
    /// its record would be found as one of ours that is over, and be freed.
    fn forget_take_that_is_over(&mut self, seen: Option<&StoredRecord>) {
        let Some(nonce) = self.rule.outstanding() else { return };
        let is_made = seen.is_some_and(|seen| seen.is_held() && seen.record.id == self.id && seen.nonce == nonce);
        if !is_made && seen.map(StoredRecord::named_version) != self.named {
            self.rule.discard_outstanding();
        }
    }

    /// How much longer what we have freed is left to the others.
    fn stands_back(&self, now: Time) -> Option<Duration> {
        let left = self.yield_until?.since(now);
        (!left.is_zero()).then_some(left)
    }

    /// Frees the record, if it is ours.
    pub async fn release(
        &mut self,
        server: &MongoServer,
        reservation: Option<&Reservation<String>>,
    ) -> Result<(), StoreError> {
        self.let_go = true;
        // They ask once in a renewal interval, a fifth of the ttl if nothing else was said, and have an attempt's time for it.
        self.yield_until = Some(clock::now() + self.ttl * 3 / 10);
        let filter = match (self.term, self.rule.outstanding()) {
            (Some(term), _) => self.ours(term),
            (None, Some(nonce)) => {
                let mut filter = held(&self.boundary, &self.id);
                filter.insert("seq", long(nonce));
                filter
            }
            (None, None) => return Ok(()),
        };
        let nonce = self.rule.nonce();
        let is_freed = free(server, &self.boundary, filter, nonce, reservation).await?;
        if is_freed && tell_released(server, &self.boundary).await {
            self.yield_until = None;
        }
        Ok(())
    }

    fn ours(&self, term: Term) -> Document {
        let mut filter = held(&self.boundary, &self.id);
        filter.insert("term", long(term));
        filter
    }
}

impl ObservedSession for Session {
    type Server = MongoServer;
    type Snapshot = Option<StoredRecord>;

    fn takeover(&mut self) -> &mut Takeover<String> {
        &mut self.rule
    }

    fn take_released(&mut self) -> bool {
        std::mem::take(&mut self.let_go)
    }

    fn clear_term(&mut self) {
        self.term = None;
    }

    async fn observe(&mut self, server: &mut MongoServer) -> Result<Option<StoredRecord>, StoreError> {
        self.elector = None;
        let has_outstanding = self.rule.outstanding().is_some();
        if has_outstanding {
            // If our own take is there, this look has to see it: otherwise we would take again, and free what we have.
            self.shows_at_next_look(server).await?;
        }
        let seen = if self.is_told.take() {
            // A take is likely, and needs both. At the same time: there is a connection for each.
            let (seen, elector) = tokio::join!(server.observe(&self.boundary), server.find_elector(&self.boundary));
            self.elector = Some(elector);
            seen?
        } else {
            server.observe(&self.boundary).await?
        };
        if has_outstanding {
            self.forget_take_that_is_over(seen.as_ref());
        }
        let term = seen.as_ref().map(|seen| seen.record.term);
        if self.handovers.note(clock::now(), term)
            && let Some(watch) = &server.watch
        {
            watch.end_rest();
        }
        Ok(seen)
    }

    fn state(&mut self, _: &MongoServer, seen: &Option<StoredRecord>) -> Result<StoreState<String>, StoreError> {
        self.doubt_ttl(seen.as_ref());
        Ok(view(seen.as_ref()))
    }

    fn recognize(&mut self, _: StoreState<String>, term: Term) {
        self.rule.took(Basis::of(String::new()), true);
        self.term = Some(term);
    }

    async fn free_stale(&mut self, server: &mut MongoServer, term: Term) -> Result<(), StoreError> {
        let nonce = self.rule.nonce();
        free(server, &self.boundary, self.ours(term), nonce, None).await.map(drop)
    }

    async fn vacate(&mut self, server: &mut MongoServer) -> Result<(), StoreError> {
        let Vacancy { nonce, ttl, term } = self.rule.vacancy();
        // A record has to outlive the wait where a foreign index removes expired ones.
        let stays = long(millis(self.rule.longest_wait().saturating_mul(2)));
        let record = doc! {
            "leaderUUID": literal(&uuid::Uuid::new_v4().to_string()), "leaderName": "", "leaderHostname": "",
            "leaderPort": Bson::Null, "ttlExpire": unused_from(doc! { "$add": ["$$NOW", stays] }, long(term)),
            "term": long(term), "seq": long(nonce), "ttlMs": long(millis(ttl)), "state": "free", "vacant": true,
            "since": "$$NOW", "former": Bson::Null, "version": i64::from(VERSION),
        };
        // Matches nothing: this can only insert, and does not if there is anything with that name.
        let absent = doc! { "_id": &self.boundary, "state": { "$in": [] } };
        match server.change(absent, record).upsert(true).projection(doc! { "_id": 1 }).await {
            Err(error) if is_duplicate(&error) => self.shows_at_next_look(server).await,
            Err(error) => Err(server.classify(&error)),
            Ok(_) => Ok(()),
        }
    }

    async fn take(
        &mut self,
        server: &mut MongoServer,
        candidacy: &Candidacy,
        seen: &Option<StoredRecord>,
        received: Time,
    ) -> Result<TakeResult, StoreError> {
        let seen = seen.as_ref();
        let freed_by_us = seen.is_some_and(|seen| !seen.is_held() && seen.record.id == self.id);
        if let Some(left) = self.stands_back(received).filter(|_| freed_by_us) {
            return Ok(TakeResult::Yielded(left));
        }
        // Beside a leader of elect's own this is no matter: waiters go on observing the leader.
        if let Some(obstacle) = self.find_elector(server).await? {
            return Err(StoreError::Obstacle(obstacle));
        }
        let TakeRequest { nonce, floor } = self.rule.take_request();
        // The wall clock is the server's, and joins in there (S1).
        let last = seen.map_or(0, |seen| seen.record.term);
        if limits::next_term(last, 0, floor.saturating_sub(1)).is_none() {
            self.rule.discard_outstanding();
            return Err(self.too_large(server));
        }
        self.term = None;
        self.named = seen.map(StoredRecord::named_version);
        let (filter, follows, previous_term) = match seen {
            Some(seen) => {
                // A vacant record says nothing of the leader before.
                let previous_term = if seen.record.state == RecordState::Vacant { Bson::Null } else { "$term".into() };
                (expected(&self.boundary, &seen.named_version()), doc! { "$add": ["$term", 1] }, previous_term)
            }
            // Matches nothing: this can only insert, and does not if there is anything with that name.
            None => (doc! { "_id": &self.boundary, "state": { "$in": [] } }, doc! { "$literal": 1 }, Bson::Null),
        };
        let mut record = told(candidacy);
        let ttl = long(millis(candidacy.ttl));
        record.extend(doc! {
            "leaderUUID": literal(&self.id),
            "ttlExpire": { "$add": ["$$NOW", ttl.clone()] },
            "term": { "$max": [{ "$toLong": follows }, { "$toLong": "$$NOW" }, long(floor)] },
            "seq": long(nonce),
            "ttlMs": ttl,
            "state": "held",
            "vacant": "$$REMOVE",
            "since": "$$NOW",
            "former": previous_term,
            "version": i64::from(VERSION),
        });
        let write = server.change(filter, record).upsert(seen.is_none());
        let write = write.projection(doc! { "term": 1 }).return_document(ReturnDocument::After);
        let concern = if starts_without_wait(seen) { executed() } else { server.confirmed() };
        let taken = match write.write_concern(concern).await {
            Ok(Some(taken)) => taken,
            Ok(None) => return self.came_too_late(server).await,
            Err(error) if is_duplicate(&error) => return self.came_too_late(server).await,
            Err(error) => return Err(server.classify(&error)),
        };
        let Some(term) = taken.get("term").and_then(number).filter(|term| limits::is_believed_term(*term)) else {
            // By a wall clock from beyond belief. Nothing runs under it, and nothing is to follow it (S1).
            let nonce = self.rule.nonce();
            free(server, &self.boundary, held(&self.boundary, &self.id), nonce, None).await?;
            self.rule.discard_outstanding();
            return Err(self.too_large(server));
        };
        self.rule.took(Basis::of(String::new()), true);
        self.term = Some(term);
        Ok(TakeResult::Taken(term))
    }

    fn wait(&mut self, server: &MongoServer, left: Duration, decided: bool) -> Duration {
        if server.watch.as_ref().is_some_and(ChangesWatch::is_in_crowd) {
            return left.min(crowd::look_interval(self.renew_interval, decided));
        }
        if decided { left } else { left.min(UNDECIDED_POLL_INTERVAL) }
    }

    fn observation(&self, seen: &Option<StoredRecord>) -> Observation {
        seen.as_ref().map(StoredRecord::observation).unwrap_or_default()
    }
}

/// The keeper's release: whatever this candidate holds, which is dead.
pub async fn release_for_dead(server: &MongoServer, boundary: &str, id: &str) -> Result<(), StoreError> {
    if free(server, boundary, held(boundary, id), KEEPER_RELEASE_NONCE, None).await? {
        tell_released(server, boundary).await;
    }
    Ok(())
}

/// Tells the others of a release that is confirmed, within half of the time that the attempt has left: a hint that fails must not
/// make the release fail. Returns whether they were told.
async fn tell_released(server: &MongoServer, boundary: &str) -> bool {
    match timeout(server.time_for_hint(), server.changes().tell(boundary, WhenMissing::Leave)).await {
        Ok(Ok(is_told)) => is_told,
        Ok(Err(reason)) => {
            debug!("the others may not have been told of the release: {reason:?}");
            false
        }
        Err(_) => false,
    }
}

fn held(boundary: &str, id: &str) -> Document {
    doc! { "_id": boundary, "leaderUUID": id, "state": "held" }
}

/// The version that was seen.
fn expected(boundary: &str, seen: &NamedVersion) -> Document {
    let NamedVersion { id, term, nonce, is_held } = seen;
    let state = if *is_held { "held" } else { "free" };
    doc! { "_id": boundary, "leaderUUID": id, "term": long(*term), "seq": long(*nonce), "state": state }
}

/// Returns whether the record was freed. If it is not ours, or not there any more, there is nothing to be given back.
async fn free(
    server: &MongoServer,
    boundary: &str,
    ours: Document,
    nonce: u64,
    reservation: Option<&Reservation<String>>,
) -> Result<bool, StoreError> {
    let id = ours.get("leaderUUID").cloned();
    let mut change = doc! { "state": "free", "seq": long(nonce), "ttlExpire": unused_from("$$NOW", "$term") };
    if let Some(Reservation { successor, within }) = reservation {
        change.extend(doc! {
            "successor": literal(successor), "withinMs": long(millis(*within)), "reservedTerm": "$term",
        });
    }
    let write = server.change(ours, change).projection(doc! { "_id": 1 });
    let is_freed = write.await.map_err(|error| server.classify(&error))?.is_some();
    if is_freed || !server.is_replicated {
        return Ok(is_freed);
    }
    // A primary that was cut off may not have heard of our take.
    match server.read_linearizable(boundary).await? {
        Some(Ok(stored)) if stored.is_held() && id.as_ref().and_then(Bson::as_str) == Some(&stored.record.id) => {
            Err(server.is_stale_primary())
        }
        Some(_) | None => Ok(false),
    }
}

/// The fields of the record that describe the leader and may be proclaimed again.
fn told(candidacy: &Candidacy) -> Document {
    let identity = &candidacy.identity;
    let port = identity.port.map_or(Bson::Null, |port| Bson::Int32(port.into()));
    doc! { "leaderName": literal(&identity.name), "leaderHostname": literal(&identity.host), "leaderPort": port }
}

/// A text, whatever it looks like: with a dollar in front it would be a field.
fn literal(text: &str) -> Bson {
    Bson::Document(doc! { "$literal": text })
}

/// Whether a take follows upon a clean hand-over, or upon nothing. It need not be confirmed by itself: the renewal that follows
/// is, together with all that it was written upon. Any other take comes after a whole ttl, and is confirmed: a primary that was
/// cut off shows a leader that it does not hear of any more, and would let each candidate win, and stop what it runs meanwhile.
fn starts_without_wait(seen: Option<&StoredRecord>) -> bool {
    seen.is_none_or(|seen| seen.record.state == RecordState::Free)
}

/// The primary has it, and perhaps no other member, and no disk.
fn executed() -> WriteConcern {
    WriteConcern::builder().w(Acknowledgment::Nodes(1)).build()
}

/// From when a record that is not held counts as unused: not before the time that its term names. The server removes it
/// seven days later, and the next term follows its wall clock alone; that clock may have been ahead when the term was taken (S1).
fn unused_from(now: impl Into<Bson>, term: impl Into<Bson>) -> Bson {
    Bson::Document(doc! { "$max": [now.into(), { "$toDate": { "$toLong": term.into() } }] })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn long(number: u64) -> Bson {
    Bson::Int64(i64::try_from(number).unwrap_or(i64::MAX))
}

fn lost(why: String) -> RenewResult {
    RenewResult::Lost { why }
}
