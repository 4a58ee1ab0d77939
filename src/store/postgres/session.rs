//! One candidacy: what was seen of the record, what was written to it, and what that is worth.
//!
//! The rules that make it safe:
//!
//! - What is written is compared first, in one statement that locks the row: a take insists on the very version that was observed,
//!   in the incarnation of the server in which it was; renewal and release on id, term and *held*.
//! - A write beside whose answer the server has sent a notice is not credited: it may be a commit that has not waited for its
//!   standby (S5). It is unknown, like a write whose answer did not come: a take is recognized by its nonce, and starts no
//!   lease; a renewal follows.
//! - A row that another candidate has locked is not waited for, but read again.
//! - Which renewals are credited is decided by [`takeover`](elect_core::takeover) alone.
//! - Notifications are hints. A candidate that misses them asks at the usual pace.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::types::Type;
use tracing::warn;

use super::first_row::FirstRowObserver;
use super::server::{Listening, Parameter, PostgresServer, WriteResult, value};
use super::settings::Settings;
use super::statements::Statements;
use super::stored_record::{RowSnapshot, StoredRecord, view};
use crate::store::crowd::{self, HandoverTracker};
use crate::store::record::{RecordState, VERSION};
use crate::store::record_store::{KEEPER_RELEASE_NONCE, ObservedSession, TakeResult};
use crate::store::{Candidacy, Notifier, Observation, RenewResult, StoreError};
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
    /// The term that was won, until it is lost.
    term: Option<Term>,
    /// Its release has been asked for: whatever becomes of that, it is over.
    let_go: bool,
    is_synchronous_required: bool,
    first_row: Rc<RefCell<FirstRowObserver>>,
    /// A ttl above the accepted limit has been reported.
    has_warned: bool,
    listening: Listening,
    handovers: HandoverTracker,
    /// From one look to the next, at most.
    renew_interval: Duration,
}

impl Session {
    pub fn new(settings: &Settings, candidacy: &Candidacy, first_row: Rc<RefCell<FirstRowObserver>>) -> Session {
        let id = candidacy.identity.id.clone();
        Session {
            boundary: candidacy.boundary.to_string(),
            // A failover may have forgotten the row, and the leader with it.
            rule: Takeover::new(id.clone(), candidacy.ttl, Durability::Volatile),
            id,
            term: None,
            let_go: false,
            is_synchronous_required: settings.is_synchronous_required,
            first_row,
            has_warned: false,
            listening: Listening::default(),
            handovers: HandoverTracker::default(),
            renew_interval: settings.renew_interval,
        }
    }

    /// Whether there is anything that could be given back.
    pub fn may_hold(&self) -> bool {
        self.term.is_some() || self.rule.outstanding().is_some()
    }

    /// The term that was won, until it is lost.
    pub fn term(&self) -> Option<Term> {
        self.term
    }

    /// Where the last credited renewal was executed.
    pub fn settled(&self) -> Option<&Basis<String>> {
        self.rule.settled()
    }

    /// Has changes announced, unless enough others do. Must be called inside a [`tokio::task::LocalSet`].
    pub async fn listen(&mut self, server: &mut PostgresServer, hints: &Notifier) -> Result<(), StoreError> {
        self.listening.begin(server, hints, &self.boundary).await
    }

    /// This candidate does not campaign for now: among many, it leaves the notifications to the others.
    pub async fn leave_crowd(&self, server: &mut PostgresServer) {
        Listening::leave(server, &self.boundary).await;
    }

    /// After a look: whether this candidate listens from now on. Must be called inside a [`tokio::task::LocalSet`].
    pub async fn count_listeners(&mut self, server: &mut PostgresServer, settings: &Settings, hints: &Notifier) {
        self.listening.count(server, settings, hints, &self.boundary).await;
    }

    /// The mark of the first row of the table, if the server has forgotten nothing for the longest wait.
    fn lasting_first_row(&self) -> Option<String> {
        let first_row = self.first_row.borrow();
        first_row.lasting(clock::now(), self.rule.longest_wait()).map(str::to_owned)
    }

    /// A record that says more than a day counts as a day, which is reported once (S6).
    fn doubt_ttl(&mut self, stored: &StoredRecord) {
        let ttl = Duration::from_millis(stored.record.ttl.unwrap_or(u64::MAX));
        if ttl > limits::TTL_MAX && !std::mem::replace(&mut self.has_warned, true) {
            let name = escaped(&stored.record.name);
            warn!("the record of {name} has a ttl of {} ms, which counts as 24h", ttl.as_millis());
        }
    }

    fn too_large(&self, server: &PostgresServer) -> StoreError {
        let (name, address) = (&self.boundary, server.address());
        StoreError::Obstacle(format!(
            "the term of {name:?} in {address}, or the server's clock, is too large: delete the row once nobody leads"
        ))
    }

    /// Renews, and verifies that the record is ours.
    pub async fn renew(
        &mut self,
        server: &mut PostgresServer,
        candidacy: &Candidacy,
    ) -> Result<RenewResult, StoreError> {
        let Some(term) = self.term else { return Ok(lost("nothing was won")) };
        if self.rule.settled().is_none() {
            server.settle_others().await?;
        } else if let Err(error) = server.check_newest() {
            return Ok(self.lose(&error));
        }
        let statements = Arc::clone(&server.statements);
        let nonce = self.rule.nonce();
        let identity = &candidacy.identity;
        let (sql_term, sql_nonce, port) = (number(term), number(nonce), identity.port.map(i32::from));
        let settled = self.rule.settled().map(|basis| basis.incarnation.clone());
        let parameters: [Parameter<'_>; 8] = [
            (&self.boundary, Type::TEXT),
            (&self.id, Type::TEXT),
            (&sql_term, Type::INT8),
            // A late write must not bring back a version that a candidate has seen before.
            (&sql_nonce, Type::INT8),
            (&identity.name, Type::TEXT),
            (&identity.host, Type::TEXT),
            (&port, Type::INT4),
            (&settled, Type::TEXT),
        ];
        let sent: Time = clock::now(); // T1
        let written = server.write_as_holder(&statements.renew, &parameters).await?;
        let received = clock::now();
        let (row, is_doubtful) = match written {
            WriteResult::Contended => return Err(contended(server)),
            WriteResult::Done { row: None, .. } => return self.explain_loss(server, term).await,
            WriteResult::Done { row: Some(row), is_doubtful } => (row, is_doubtful),
        };
        let ttl: i64 = value(&row, "ttl_ms")?;
        let is_synchronous: bool = value(&row, "is_synchronous")?;
        let is_unsynchronous = self.is_synchronous_required && !is_synchronous;
        let write = Write {
            sent,
            received,
            // A record that was edited must not lengthen the deadline beyond the requested ttl (2.5).
            ttl: limits::believed_ttl(u64::try_from(ttl).unwrap_or(0)).min(candidacy.ttl),
            nonce,
            // The statement lets no smaller nonce through.
            found: 0,
            is_confirmed: !is_doubtful && !is_unsynchronous,
            basis: Basis::of(value(&row, "incarnation")?),
        };
        if let Err(error) = server.check_newest() {
            return Ok(self.lose(&error));
        }
        match self.rule.credit(&write) {
            Credit::Counts => Ok(RenewResult::Credited { sent, ttl: Some(write.ttl) }),
            Credit::Stale | Credit::Unconfirmed if is_doubtful => Err(doubtful(server)),
            Credit::Stale | Credit::Unconfirmed => Err(StoreError::Unavailable(format!(
                "{} has no synchronous standby, and ?synchronous=required asks for one: set synchronous_standby_names",
                server.address()
            ))),
            Credit::GiveBack => {
                let nonce = self.rule.nonce();
                let claim = Claimed { term: Some(term), nonce: None };
                free(server, &self.boundary, &self.id, claim, ReleasedFields::of(nonce)).await?;
                self.rule.discard_outstanding();
                self.term = None;
                Ok(lost("the server has changed since the take, which is given back"))
            }
        }
    }

    /// The server counts no more (K11).
    fn lose(&mut self, why: &StoreError) -> RenewResult {
        self.rule.discard_outstanding();
        self.term = None;
        RenewResult::Lost { why: why.to_string() }
    }

    /// Why a renewal has found nothing.
    async fn explain_loss(&mut self, server: &mut PostgresServer, term: Term) -> Result<RenewResult, StoreError> {
        let is_take_unconfirmed = self.rule.settled().is_none();
        let why = match server.observe(&self.boundary).await?.stored {
            // As after a crash, or on a server that was promoted.
            None if is_take_unconfirmed => "the server does not know the take any more".to_owned(),
            None => "the record is gone".to_owned(),
            Some(Err(_)) => "the record has been overwritten".to_owned(),
            Some(Ok(stored)) => {
                let record = &stored.record;
                match record.state {
                    RecordState::Vacant => "the record is gone".to_owned(),
                    RecordState::Free if is_take_unconfirmed => "the server does not know the take any more".to_owned(),
                    RecordState::Free => "it was released".to_owned(),
                    // A server that has not heard of our take is none of which an answer counts.
                    RecordState::Held if record.term < term => {
                        server.is_sound = false;
                        let what = "has answered for an older state of the record: it is not the primary any more";
                        return Err(StoreError::Unavailable(format!("{} {what}", server.address())));
                    }
                    RecordState::Held if record.id != self.id => format!("{} leads", escaped(&record.name)),
                    RecordState::Held if record.term != term => "it is of another term".to_owned(),
                    RecordState::Held => {
                        let (address, found) = (server.address(), stored.nonce);
                        return Err(StoreError::Unavailable(format!(
                            "{address}: the nonce in {:?} is {found}, and a renewal changes nothing: another program has written \
                             to the record",
                            self.boundary
                        )));
                    }
                }
            }
        };
        self.rule.discard_outstanding();
        self.term = None;
        Ok(RenewResult::Lost { why })
    }

    /// Frees the record, if it is ours.
    pub async fn release(
        &mut self,
        server: &mut PostgresServer,
        reservation: Option<&Reservation<String>>,
    ) -> Result<(), StoreError> {
        self.let_go = true;
        let claim = match (self.term, self.rule.outstanding()) {
            (Some(term), _) => Claimed { term: Some(term), nonce: None },
            (None, Some(nonce)) => Claimed { term: None, nonce: Some(nonce) },
            (None, None) => return Ok(()),
        };
        let nonce = self.rule.nonce();
        let fields = ReleasedFields { nonce, settled: self.rule.settled(), reservation };
        free(server, &self.boundary, &self.id, claim, fields).await
    }

    /// For display.
    fn describe(&self, snapshot: &RowSnapshot) -> Observation {
        let wait = humantime::format_duration(self.rule.longest_wait());
        let Some(Ok(stored)) = &snapshot.stored else {
            return Observation::default();
        };
        let known = stored.observation();
        if known.leader.is_some() || known.obstacle.is_some() {
            return known;
        }
        let obstacle = if stored.record.state == RecordState::Vacant {
            format!(
                "no record of this boundary: it is taken after {wait}, because a leader whose record was lost may still run"
            )
        } else if stored.incarnation != snapshot.incarnation {
            format!("another server was promoted, and may have forgotten a leader: to be taken after {wait}")
        } else {
            return known;
        };
        Observation { obstacle: Some(obstacle), ..known }
    }
}

impl ObservedSession for Session {
    type Server = PostgresServer;
    type Snapshot = RowSnapshot;

    fn takeover(&mut self) -> &mut Takeover<String> {
        &mut self.rule
    }

    fn take_released(&mut self) -> bool {
        std::mem::take(&mut self.let_go)
    }

    fn clear_term(&mut self) {
        self.term = None;
    }

    async fn observe(&mut self, server: &mut PostgresServer) -> Result<RowSnapshot, StoreError> {
        let mut snapshot = server.observe(&self.boundary).await?;
        self.first_row.borrow_mut().note(clock::now(), &snapshot);
        snapshot.stored = snapshot.stored.transpose()?.map(Ok);
        let stored = snapshot.stored.as_ref().and_then(|stored| stored.as_ref().ok());
        let term = stored.map(|stored| stored.record.term);
        if self.handovers.note(clock::now(), term) {
            self.listening.end_rest();
        }
        Ok(snapshot)
    }

    fn state(&mut self, _: &PostgresServer, snapshot: &RowSnapshot) -> Result<StoreState<String>, StoreError> {
        let stored = snapshot.stored.as_ref().and_then(|stored| stored.as_ref().ok());
        if let Some(stored) = stored {
            self.doubt_ttl(stored);
        }
        let durability = if self.lasting_first_row().is_some() { Durability::Durable } else { Durability::Volatile };
        self.rule.set_durability(durability);
        Ok(view(&snapshot.incarnation, stored))
    }

    fn recognize(&mut self, state: StoreState<String>, term: Term) {
        let taken = state.record.map_or(state.basis, |record| record.basis);
        self.rule.took(taken, true);
        self.term = Some(term);
    }

    async fn free_stale(&mut self, server: &mut PostgresServer, term: Term) -> Result<(), StoreError> {
        let nonce = self.rule.nonce();
        let claim = Claimed { term: Some(term), nonce: None };
        free(server, &self.boundary, &self.id, claim, ReleasedFields::of(nonce)).await
    }

    async fn vacate(&mut self, server: &mut PostgresServer) -> Result<(), StoreError> {
        let statements = Arc::clone(&server.statements);
        let Vacancy { nonce, ttl, term } = self.rule.vacancy();
        let (id, version) = (uuid::Uuid::new_v4().to_string(), version());
        let (term, nonce, ttl) = (number(term), number(nonce), millis(ttl));
        let parameters: [Parameter<'_>; 6] = [
            (&self.boundary, Type::TEXT),
            (&version, Type::INT4),
            (&id, Type::TEXT),
            (&term, Type::INT8),
            (&nonce, Type::INT8),
            (&ttl, Type::INT8),
        ];
        // The result does not matter: the next look shows a record.
        server.write(&statements.vacate, &parameters).await.map(drop)
    }

    async fn take(
        &mut self,
        server: &mut PostgresServer,
        candidacy: &Candidacy,
        snapshot: &RowSnapshot,
        _: Time,
    ) -> Result<TakeResult, StoreError> {
        let statements = Arc::clone(&server.statements);
        server.settle_others().await?;
        let seen = snapshot.stored.as_ref().and_then(|stored| stored.as_ref().ok());
        let first = self.lasting_first_row();
        let request = self.rule.take_request();
        self.term = None;
        // The wall clock is the server's, and joins in there (S1).
        let last = seen.map_or(0, |seen| seen.record.term);
        if limits::next_term(last, snapshot.now, request.floor.saturating_sub(1)).is_none() {
            self.rule.discard_outstanding();
            return Err(self.too_large(server));
        }
        let take = TakeParameters { boundary: &self.boundary, candidacy, incarnation: &snapshot.incarnation, request };
        let written = match (seen, first) {
            (Some(seen), _) => take_seen(server, &statements, &take, seen).await?,
            (None, Some(first)) => take_missing(server, &statements, &take, &first).await?,
            // It has changed since the decision.
            (None, None) => WriteResult::Contended,
        };
        let (row, is_doubtful) = match written {
            WriteResult::Contended | WriteResult::Done { row: None, .. } => {
                self.rule.discard_outstanding();
                return Ok(TakeResult::Changed);
            }
            WriteResult::Done { row: Some(row), is_doubtful } => (row, is_doubtful),
        };
        if is_doubtful {
            // Unknown: it is recognized by its nonce.
            return Err(doubtful(server));
        }
        let term: i64 = value(&row, "term")?;
        let term = u64::try_from(term).unwrap_or(u64::MAX);
        if !limits::is_believed_term(term) {
            // By a wall clock from beyond belief. Nothing runs under it, and nothing is to follow it (S1).
            let fields = ReleasedFields::of(self.rule.nonce());
            let claim = Claimed { term: None, nonce: Some(request.nonce) };
            free(server, &self.boundary, &self.id, claim, fields).await?;
            self.rule.discard_outstanding();
            return Err(self.too_large(server));
        }
        self.rule.took(Basis::of(value(&row, "incarnation")?), true);
        self.term = Some(term);
        Ok(TakeResult::Taken(term))
    }

    fn wait(&mut self, _: &PostgresServer, left: Duration, decided: bool) -> Duration {
        match self.listening {
            Listening::RestsUntil(_) => left.min(crowd::look_interval(self.renew_interval, decided)),
            // Renewals are not announced.
            Listening::Always | Listening::UntilCounted(_) if !decided => left.min(UNDECIDED_POLL_INTERVAL),
            Listening::UntilCounted(at) => left.min(at.since(clock::now())),
            Listening::Always => left,
        }
    }

    fn observation(&self, snapshot: &RowSnapshot) -> Observation {
        self.describe(snapshot)
    }
}

/// The part of a take that does not depend on what is taken.
struct TakeParameters<'a> {
    boundary: &'a str,
    candidacy: &'a Candidacy,
    /// Of the server, when the record was looked at.
    incarnation: &'a str,
    request: TakeRequest,
}

/// Takes the record that was seen.
async fn take_seen(
    server: &mut PostgresServer,
    statements: &Statements,
    take: &TakeParameters<'_>,
    seen: &StoredRecord,
) -> Result<WriteResult, StoreError> {
    let state = match seen.record.state {
        RecordState::Held => "held",
        RecordState::Free => "free",
        RecordState::Vacant => "vacant",
    };
    let identity = &take.candidacy.identity;
    let (seen_term, seen_nonce) = (number(seen.record.term), number(seen.nonce));
    let (version, port, ttl) = (version(), identity.port.map(i32::from), millis(take.candidacy.ttl));
    let (floor, nonce) = (number(take.request.floor), number(take.request.nonce));
    let parameters: [Parameter<'_>; 15] = [
        (&take.boundary, Type::TEXT),
        (&seen.record.id, Type::TEXT),
        (&seen_term, Type::INT8),
        (&seen_nonce, Type::INT8),
        (&state, Type::TEXT),
        (&seen.incarnation, Type::TEXT),
        (&take.incarnation, Type::TEXT),
        (&version, Type::INT4),
        (&identity.id, Type::TEXT),
        (&identity.name, Type::TEXT),
        (&identity.host, Type::TEXT),
        (&port, Type::INT4),
        (&floor, Type::INT8),
        (&nonce, Type::INT8),
        (&ttl, Type::INT8),
    ];
    server.write(&statements.take, &parameters).await
}

/// Makes the record, and takes it with that, as long as the first row is there that says that there was none.
async fn take_missing(
    server: &mut PostgresServer,
    statements: &Statements,
    take: &TakeParameters<'_>,
    first: &str,
) -> Result<WriteResult, StoreError> {
    let identity = &take.candidacy.identity;
    let (version, port, ttl) = (version(), identity.port.map(i32::from), millis(take.candidacy.ttl));
    let (floor, nonce) = (number(take.request.floor), number(take.request.nonce));
    let parameters: [Parameter<'_>; 11] = [
        (&take.boundary, Type::TEXT),
        (&version, Type::INT4),
        (&identity.id, Type::TEXT),
        (&identity.name, Type::TEXT),
        (&identity.host, Type::TEXT),
        (&port, Type::INT4),
        (&floor, Type::INT8),
        (&nonce, Type::INT8),
        (&ttl, Type::INT8),
        (&take.incarnation, Type::TEXT),
        (&first, Type::TEXT),
    ];
    server.write(&statements.take_missing, &parameters).await
}

fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn version() -> i32 {
    i32::try_from(VERSION).unwrap_or(i32::MAX)
}

fn lost(why: &str) -> RenewResult {
    RenewResult::Lost { why: why.to_owned() }
}

fn contended(server: &PostgresServer) -> StoreError {
    StoreError::Unavailable(format!(
        "{}: the row is locked by another program, or by a write of elect's",
        server.address()
    ))
}

fn doubtful(server: &PostgresServer) -> StoreError {
    StoreError::Unavailable(format!(
        "{}: a write was not confirmed by the synchronous standby, because its wait was cancelled or the backend ended, and does \
         not count",
        server.address()
    ))
}

/// Which of a holder's records is meant. `None`: any.
#[derive(Debug, Clone, Copy)]
struct Claimed {
    term: Option<Term>,
    nonce: Option<u64>,
}

/// The fields that a release writes into the free record.
#[derive(Debug, Clone, Copy)]
struct ReleasedFields<'a> {
    nonce: u64,
    /// Where the last credited renewal was executed; `None` leaves the basis in the record.
    settled: Option<&'a Basis<String>>,
    reservation: Option<&'a Reservation<String>>,
}

impl ReleasedFields<'_> {
    const fn of(nonce: u64) -> Self {
        ReleasedFields { nonce, settled: None, reservation: None }
    }
}

/// The keeper's release: whatever this candidate holds, which is dead.
pub async fn release_for_dead(
    server: &mut PostgresServer,
    boundary: &str,
    id: &str,
    settled: Option<&Basis<String>>,
) -> Result<(), StoreError> {
    let fields = ReleasedFields { settled, ..ReleasedFields::of(KEEPER_RELEASE_NONCE) };
    free(server, boundary, id, Claimed { term: None, nonce: None }, fields).await
}

/// Not ours, or not there any more: there is nothing to be given back.
async fn free(
    server: &mut PostgresServer,
    boundary: &str,
    id: &str,
    claim: Claimed,
    ReleasedFields { nonce, settled, reservation }: ReleasedFields<'_>,
) -> Result<(), StoreError> {
    let statements = Arc::clone(&server.statements);
    let (term, old_nonce, nonce) = (claim.term.map(number), claim.nonce.map(number), number(nonce));
    let settled = settled.map(|basis| &basis.incarnation);
    let successor = reservation.map(|reservation| &reservation.successor);
    let within = reservation.map(|reservation| millis(reservation.within));
    let parameters: [Parameter<'_>; 8] = [
        (&boundary, Type::TEXT),
        (&id, Type::TEXT),
        (&term, Type::INT8),
        (&old_nonce, Type::INT8),
        (&nonce, Type::INT8),
        (&settled, Type::TEXT),
        (&successor, Type::TEXT),
        (&within, Type::INT8),
    ];
    match server.write_as_holder(&statements.release, &parameters).await? {
        WriteResult::Contended => Err(contended(server)),
        // Asked again, it finds nothing more to free: then a failover costs the others a ttl.
        WriteResult::Done { is_doubtful: true, .. } => Err(doubtful(server)),
        WriteResult::Done { .. } => Ok(()),
    }
}
