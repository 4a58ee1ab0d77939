//! A store that is observed, like Redis, which may forget, MongoDB, which does not, or PostgreSQL, whose standby may be promoted
//! beside it: one record, compared and swapped (5.3).

use std::hash::Hash;
use std::mem::discriminant;
use std::time::Duration;

use super::super::time::Time;
use crate::takeover::{
    Basis, Credit, Decision, Durability, ObservedRecord, RecordState, Reservation, StoreState, TakeRequest, Takeover,
    Vacancy, Write, is_effective,
};
use crate::{Answer, Campaigned, Renewed, Term};

use super::choices::SimRng;
use super::clock::ms;
use super::mutations::InjectedMutation;
use super::states::StateHasher;
use super::store::{Ask, Effect, Next, Reply, Request};

type Record = ObservedRecord<u64>;

/// The view of a candidate, which its take compares.
pub(super) type Observed = StoreState<u64>;

/// By what a release knows that the record is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    Term(Term),
    Nonce(Option<u64>),
    /// The keeper's, whose campaigner is dead: whatever this candidate holds.
    Holder,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AfterRestart {
    Kept,
    RolledBack,
    Lost,
    /// Not by a restart: somebody has deleted everything (FLUSHALL).
    Flushed,
}

#[derive(Debug)]
pub(super) struct RecordServer {
    now: Observed,
    /// The record on the disk, which is written now and then.
    saved: Option<Record>,
    saved_at: Duration,
    saves_every: Duration,
    /// The last nonce of the present term, for the reference state.
    newest: u64,
    pub(super) memory: Durability,
    /// Whether some leaders leave the boundary to the next candidate (`resign --to`).
    pub(super) reserves: bool,
    freed_at: Duration,
    /// The server that was the primary before this one was promoted, as long as it goes on.
    old_primary: Option<Box<OldPrimary>>,
    injected_mutation: Option<InjectedMutation>,
}

/// A primary that is cut off from its synchronous standby, which was promoted (5.6). The waits of its commits are ended, so that
/// each is answered as a success, with a notice.
#[derive(Debug)]
struct OldPrimary {
    now: Observed,
    /// A bit for each candidate that still asks it.
    loyal: u64,
}

impl RecordServer {
    pub(super) fn new(
        saves_every: Duration,
        memory: Durability,
        injected_mutation: Option<InjectedMutation>,
    ) -> RecordServer {
        let now = Observed { basis: Basis::of(1), is_attached: true, record: None };
        let (saved, saved_at, freed_at) = (None, ms(0), ms(0));
        RecordServer {
            now,
            saved,
            saved_at,
            saves_every,
            newest: 0,
            memory,
            reserves: false,
            freed_at,
            old_primary: None,
            injected_mutation,
        }
    }

    fn next_term(&self, now: Duration, floor: Term) -> Term {
        let clock = u64::try_from(now.as_millis()).expect("a history is short");
        let old = self.now.record.map_or(0, |record| record.term);
        (old + 1).max(clock).max(floor)
    }

    /// 5.3: the others leave a reserved boundary to its successor, each for the time of the reservation on its own clock.
    fn check_reservation(&self, now: Duration, taker: u64, effects: &mut Vec<Effect>) {
        let Some(record) = self.now.record.filter(|record| record.state == RecordState::Free) else { return };
        if let Some(reservation) = record.reservation.filter(|reservation| reservation.successor != taker)
            && now < self.freed_at + reservation.within * 9 / 10
        {
            effects.push(Effect::Wrong("5.3: a reserved boundary went to another candidate before its time"));
        }
    }

    /// A request of this candidate.
    pub(super) fn apply(
        &mut self,
        now: Duration,
        candidate: usize,
        request: Request,
        effects: &mut Vec<Effect>,
    ) -> Reply {
        let Some(old) = self.old_primary.take_if(|old| old.loyal >> candidate & 1 == 1) else {
            return self.execute(now, request, effects);
        };
        // Its records say nothing of the boundary, to which nobody but the new primary gives leaders.
        let present = (std::mem::replace(&mut self.now, old.now), self.newest, self.freed_at);
        let reply = self.execute(now, request, &mut Vec::new());
        self.old_primary = Some(Box::new(OldPrimary { now: self.now, ..*old }));
        (self.now, self.newest, self.freed_at) = present;
        // S5: it is visible, and worth nothing.
        let has_notice = matches!(reply, Reply::Taken(..) | Reply::Renewed { .. });
        if has_notice && self.injected_mutation != Some(InjectedMutation::NoticesIgnored) {
            return Reply::Doubtful;
        }
        reply
    }

    /// The synchronous standby is promoted, and knows whatever was confirmed. The old primary goes on, for the candidates whose
    /// bits are set.
    pub(super) fn promote(&mut self, loyal: u64) {
        self.old_primary = Some(Box::new(OldPrimary { now: self.now, loyal }));
        self.start_another_life();
    }

    /// The old primary is gone.
    pub(super) fn fence_old_primary(&mut self) {
        self.old_primary = None;
    }

    fn start_another_life(&mut self) {
        if self.injected_mutation != Some(InjectedMutation::IncarnationIgnored) {
            self.now.basis.incarnation += 1;
        }
    }

    fn execute(&mut self, now: Duration, request: Request, effects: &mut Vec<Effect>) -> Reply {
        if now >= self.saved_at + self.saves_every {
            (self.saved, self.saved_at) = (self.now.record, now);
        }
        match request {
            Request::Read => Reply::Observed(self.now),
            Request::Take { holder, nonce, ttl, expected, floor } => {
                if expected != self.now {
                    return Reply::Conflict;
                }
                let name = name(holder);
                self.check_reservation(now, name, effects);
                let term = self.next_term(now, floor);
                let basis = self.now.basis;
                self.newest = nonce;
                self.now.record =
                    Some(Record { holder: name, term, nonce, ttl, state: RecordState::Held, basis, reservation: None });
                effects.push(Effect::Given(term, holder));
                effects.push(Effect::Written(term, ttl));
                effects.push(Effect::HintAll);
                Reply::Taken(term, basis)
            }
            Request::Vacate { holder, vacancy } => {
                if self.now.record.is_none() {
                    let Vacancy { nonce, ttl, term } = vacancy;
                    // As good as random: no other candidate has this one, and with the nonce it is new each time.
                    let (holder, basis) = (u64::MAX - name(holder), self.now.basis);
                    self.now.record =
                        Some(Record { holder, term, nonce, ttl, state: RecordState::Vacant, basis, reservation: None });
                }
                Reply::Observed(self.now)
            }
            Request::RenewRecord { holder, term, nonce, settled } => match &mut self.now.record {
                Some(record) if record.is_held_by(holder) && record.term == term => {
                    let found = record.nonce;
                    // One that comes twice must not set the version back to what somebody has seen before.
                    if is_effective(nonce, found) || self.injected_mutation == Some(InjectedMutation::VersionMayReturn)
                    {
                        if nonce > self.newest {
                            self.newest = nonce;
                            effects.push(Effect::Written(term, record.ttl));
                        }
                        record.nonce = nonce;
                        record.basis = settled.unwrap_or(record.basis);
                    }
                    Reply::Renewed { ttl: record.ttl, nonce, found, basis: self.now.basis }
                }
                Some(_) | None => Reply::NotYours,
            },
            Request::Free { holder, claim, nonce, settled } => {
                match &mut self.now.record {
                    Some(record) if record.is_held_by(holder) && claim.covers(record) => {
                        record.state = RecordState::Free;
                        record.nonce = nonce;
                        self.freed_at = now;
                        // The successor may be there or not.
                        let reservation = Reservation { successor: name(holder + 1), within: ms(700) };
                        record.reservation = (self.reserves && record.term % 3 == 0).then_some(reservation);
                        record.basis = settled.unwrap_or(record.basis);
                        if self.injected_mutation == Some(InjectedMutation::ReleaseRefreshes) {
                            record.basis = self.now.basis;
                        }
                        effects.push(Effect::Freed(record.term));
                        effects.push(Effect::HintAll);
                    }
                    Some(_) | None => {}
                }
                Reply::Done
            }
            Request::Enter { .. }
            | Request::KeepAlive { .. }
            | Request::Check { .. }
            | Request::Revoke { .. }
            | Request::Lock { .. }
            | Request::LookAtLock { .. }
            | Request::Unlock { .. } => unreachable!("not asked of this store"),
        }
    }

    pub(super) fn hash_state(&self, state: &mut StateHasher) {
        let shape = |record: Record| (record.holder, discriminant(&record.state), record.basis == self.now.basis);
        let old = self.old_primary.as_ref().map(|old| (old.now.record.map(shape), old.loyal));
        (self.now.record.map(shape), self.saved.map(shape), old).hash(state);
    }

    pub(super) fn restart(&mut self, after: AfterRestart) {
        if self.memory == Durability::Durable {
            return;
        }
        if after != AfterRestart::Flushed {
            self.start_another_life();
        }
        match after {
            AfterRestart::Kept => {}
            AfterRestart::RolledBack => self.now.record = self.saved,
            AfterRestart::Lost | AfterRestart::Flushed => self.now.record = None,
        }
        self.saved = self.now.record;
    }
}

impl Record {
    fn is_held_by(&self, holder: usize) -> bool {
        self.state == RecordState::Held && self.holder == name(holder)
    }
}

impl Claim {
    fn covers(self, record: &Record) -> bool {
        match self {
            Claim::Term(term) => record.term == term,
            Claim::Nonce(nonce) => Some(record.nonce) == nonce,
            Claim::Holder => true,
        }
    }
}

/// The candidate's side.
#[derive(Debug)]
pub(super) struct RecordClient {
    holder: usize,
    ttl: Duration,
    rule: Takeover<u64>,
    term: Option<Term>,
    /// Its release has been asked for.
    let_go: bool,
    injected_mutation: Option<InjectedMutation>,
}

impl RecordClient {
    pub(super) fn new(
        holder: usize,
        ttl: Duration,
        memory: Durability,
        injected_mutation: Option<InjectedMutation>,
    ) -> RecordClient {
        let mutation = if let Some(InjectedMutation::Takeover(rule)) = injected_mutation { Some(rule) } else { None };
        let rule = Takeover::new(name(holder), ttl, memory).breaking(mutation);
        RecordClient { holder, ttl, rule, term: None, let_go: false, injected_mutation }
    }

    pub(super) fn begin(&mut self, ask: Ask) -> Request {
        match ask {
            Ask::Campaign => {
                if std::mem::take(&mut self.let_go) {
                    // A released record is not mine any more, even if the release has not arrived: it may yet.
                    self.rule.discard_outstanding();
                    self.term = None;
                }
                Request::Read
            }
            Ask::Renew => {
                let (holder, term, nonce) = (self.holder, self.term.unwrap_or(0), self.rule.nonce());
                Request::RenewRecord { holder, term, nonce, settled: self.rule.settled().copied() }
            }
            Ask::Release => {
                let claim = match self.term {
                    Some(_) | None if self.injected_mutation == Some(InjectedMutation::ReleaseByIdAlone) => {
                        Claim::Holder
                    }
                    Some(term) => Claim::Term(term),
                    None => Claim::Nonce(self.rule.outstanding()),
                };
                self.let_go = true;
                let settled = self.rule.settled().copied();
                Request::Free { holder: self.holder, claim, nonce: self.rule.nonce(), settled }
            }
        }
    }

    pub(super) fn reply(&mut self, ask: Ask, now: Time, sent: Time, reply: Reply, rng: &mut SimRng) -> Next {
        // T1: an observer counts from after receiving.
        let seen_at =
            if self.injected_mutation == Some(InjectedMutation::ObserverCountsFromSending) { sent } else { now };
        let waiting = |again, decided| Next::Answer(Answer::Campaign(Campaigned::Waiting { again, decided }));
        match reply {
            Reply::Observed(observed) => match self.rule.decide(seen_at, &observed) {
                Decision::Vacate => Next::Call(Request::Vacate { holder: self.holder, vacancy: self.rule.vacancy() }),
                Decision::AlreadyOurs(term) => {
                    let taken = observed.record.map_or(observed.basis, |record| record.basis);
                    self.rule.took(taken, true);
                    self.term = Some(term);
                    Next::Answer(Answer::Campaign(Campaigned::Won(term)))
                }
                Decision::Take => {
                    let TakeRequest { nonce, floor } = self.rule.take_request();
                    self.term = None;
                    Next::Call(Request::Take { holder: self.holder, nonce, ttl: self.ttl, expected: observed, floor })
                }
                Decision::ReleaseStale(term) => {
                    let (claim, nonce) = (Claim::Term(term), self.rule.nonce());
                    Next::Call(Request::Free { holder: self.holder, claim, nonce, settled: None })
                }
                Decision::Wait { left, decided } => waiting(Some(left.max(ms(1))), decided),
            },
            Reply::Taken(term, basis) => {
                self.rule.took(basis, true);
                self.term = Some(term);
                Next::Answer(Answer::Campaign(Campaigned::Won(term)))
            }
            Reply::Conflict => {
                self.rule.discard_outstanding();
                // Another candidate was quicker; the next observation shows it.
                waiting(Some(rng.between(ms(1), ms(100))), false)
            }
            Reply::Renewed { ttl, nonce, found, basis } => {
                let write = Write { sent, received: now, ttl, nonce, found, is_confirmed: true, basis };
                match self.rule.credit(&write) {
                    Credit::Counts => Next::Answer(Answer::Renew(Renewed::Credited { sent, ttl: Some(ttl) })),
                    Credit::Stale | Credit::Unconfirmed => Next::Answer(Answer::Renew(Renewed::Failed)),
                    Credit::GiveBack => {
                        let (claim, nonce) = (Claim::Term(self.term.unwrap_or(0)), self.rule.nonce());
                        Next::Call(Request::Free { holder: self.holder, claim, nonce, settled: None })
                    }
                }
            }
            Reply::NotYours => Next::Answer(Answer::Renew(Renewed::Lost)),
            Reply::Done if ask == Ask::Renew => Next::Answer(Answer::Renew(Renewed::Lost)),
            Reply::Done if ask == Ask::Campaign => waiting(Some(ms(1)), false),
            Reply::Done => Next::Answer(Answer::Release(true)),
            Reply::Entered { .. }
            | Reply::Gone
            | Reply::Kept { .. }
            | Reply::Checked { .. }
            | Reply::OtherTerm
            | Reply::Locked(_)
            | Reply::LockIs(_)
            | Reply::Doubtful
            | Reply::Unreachable => unreachable!("not answered by this store"),
        }
    }

    /// The request by which the keeper releases the boundary when the campaigner is dead.
    pub(super) fn keeper_release(&self) -> Request {
        let settled = self.rule.settled().copied();
        Request::Free { holder: self.holder, claim: Claim::Holder, nonce: u64::MAX, settled }
    }
}

/// Of a candidate in its records.
fn name(holder: usize) -> u64 {
    u64::try_from(holder).expect("few hosts")
}
