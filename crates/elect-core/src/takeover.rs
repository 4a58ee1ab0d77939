//! When a candidate may take the record of an observed store, and which of its renewals count (DESIGN.md 5.3, 5.4, S2,
//! S3). Pure: observations and their times go in, decisions come out. Every observed store uses it, and the simulation
//! of the election runs this very code.
//!
//! Such a store grants no leases: it compares and swaps one record, and candidates watch each other. A candidate
//! measures only how long *it* has seen nothing change, on its own boot clock. So
//!
//! - a record that says *free* is taken at once, as long as the server can have forgotten nothing since the leader that
//!   freed it had its last credited renewal. If that leader has left it to one candidate ([`Reservation`]), the others
//!   take it only after the time of the reservation. That is a courtesy: safety never depends on it;
//! - a record that says *held* is taken after it has stood unchanged for the ttl that is in it, its holder's;
//! - absence is no version: "none, led, none" looks like "none". A candidate that finds no record writes one that says
//!   *vacant*, and waits on that for the longest ttl that any leader may be counting on. The same wait applies to a
//!   record of another incarnation of the server, which may be older than one that was lost;
//! - on a server with replicas a wait counts only while enough of them are attached, and starts again whenever one has
//!   attached again: until then that replica may have confirmed the renewals of a leader elsewhere.
//!
//! A candidate with a takeover delay takes a record only after it could have taken it for so long.
//!
//! Each take names the version that was observed, and the store takes nothing if it has changed since. A version never
//! comes back: the nonce is fresh with every write.
//!
//! # How a store uses it
//!
//! 1. [`Takeover::new`] once for each candidate and boundary; the store keeps it for as long as it lives. [`Basis::of`]
//!    is the basis of a server without replicas; a store whose server never forgets has one incarnation forever.
//! 2. Campaign: read the record and the present basis as a [`StoreState`], ask [`Takeover::decide`], and do what it
//!    says:
//!    - [`Decision::Vacate`]: write the [`Takeover::vacancy`] (state `vacant`, a random id that is new each time)
//!      unless a record has appeared, with no replica's confirmation, and `decide` on a fresh view. A store may do this
//!      in the same request that reads. A vacant record is no leader, has the index of free records, and needs no
//!      announcement;
//!    - [`Decision::Take`]: compare the whole view, incarnation and epoch included, and write the [`Takeover::take_request`],
//!      with the present basis in it. The new term is [`limits::next_term`](crate::limits::next_term) of the record's
//!      term, the server's clock and the floor in that request. Then [`Takeover::took`]; if the record had changed,
//!      [`Takeover::discard_outstanding`];
//!      A store may send the first renewal, with [`Takeover::renewal_with_take`] as its nonce, behind the take and without
//!      waiting for the take's answer, if it can be executed only after the take, and renews that take alone;
//!    - [`Decision::AlreadyOurs`]: the take whose answer was lost: [`Takeover::took`] with the basis in the record;
//!    - [`Decision::ReleaseStale`]: free the record, leave its basis as it is, [`Takeover::discard_outstanding`];
//!    - [`Decision::Wait`]: ask again.
//! 3. Renew: write a [`Takeover::nonce`] if it is above the record's, and [`Takeover::settled`] as the record's basis
//!    where there is one. Describe the answer as a [`Write`] and ask [`Takeover::credit`]; no other renewal is
//!    credited.
//! 4. Release: free the record with [`Takeover::settled`] as its basis; where there is none, leave the basis that is in
//!    it. The keeper's claim carries the same, and is made again whenever [`Takeover::settled`] changes.
//!
//! Not here: requests, answers, and the actions of a holder.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Term, Time};

use held_term::HeldTerm;
pub use held_term::{Basis, Credit, Epoch, Write, is_effective};

mod held_term;
#[cfg(test)]
mod tests;

/// The longest time for which a free record is left to the candidate that it is reserved for, whatever the record says.
pub const RESERVATION_MAX: Duration = Duration::from_secs(60);

/// A free record that its last leader has left to one candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reservation<N> {
    /// That candidate.
    pub successor: N,
    /// The others leave it alone for so long, from when each of them saw the free record.
    pub within: Duration,
}

/// The state of a boundary as its record gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecordState {
    /// A candidate leads, or died leading.
    Held,
    /// Released.
    Free,
    /// No candidate is known to lead, or to have led: written by a candidate that has found no record (S2).
    Vacant,
}

/// The fields of a record that the rule needs. `N` identifies candidates and incarnations of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObservedRecord<N> {
    /// The id of the candidate that wrote it.
    pub holder: N,
    /// Its term; of a vacant record the highest term that its writer had seen.
    pub term: Term,
    /// Fresh with every write of that holder, and larger than the one before.
    pub nonce: u64,
    /// The lease that the holder counts on after each write; of a vacant record the longest that its writer had seen.
    pub ttl: Duration,
    /// Whether its holder leads.
    pub state: RecordState,
    /// Where it was taken or, later, where its holder's last credited renewal was executed.
    pub basis: Basis<N>,
    /// Of a free record: the candidate that it is left to.
    pub reservation: Option<Reservation<N>>,
}

/// A store at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreState<N> {
    /// The present incarnation of the server, and the epoch of its replicas.
    pub basis: Basis<N>,
    /// Whether as many replicas are attached as have to confirm a write; always true where none has to.
    pub is_attached: bool,
    /// The record that the store holds.
    pub record: Option<ObservedRecord<N>>,
}

/// The meaning of a missing record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// The store may have forgotten it, and a leader with it.
    Volatile,
    /// The store forgets nothing that it has confirmed: there has been none, unless this candidate has seen one.
    Durable,
}

/// The action that an observation allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The store has executed a take of ours whose answer was lost.
    AlreadyOurs(Term),
    /// It is held under our id by a term that is over: to be released, so that no candidate waits for it. None of our
    /// programs runs, since a candidate asks only then.
    ReleaseStale(Term),
    /// There is no record: write a vacant one, on which every candidate can wait (S2).
    Vacate,
    /// Take it, naming the view.
    Take,
    /// Wait.
    Wait {
        /// The rest of the wait, if nothing changes.
        left: Duration,
        /// Whether a leader is known to be alive. A holder that has not renewed since we began to look may be dead.
        decided: bool,
    },
}

/// The mark of a take that tells it from all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TakeRequest {
    /// The nonce by which it is recognized.
    pub nonce: u64,
    /// The term must be at least so large.
    pub floor: Term,
}

/// The nonces of a take whose outcome is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutstandingTake {
    /// Of the take.
    pub take: u64,
    /// Of the renewal that was sent with it, if one was: the store has executed both, the take alone, or neither.
    pub renewal: Option<u64>,
}

/// The contents of a vacant record, but for its random id (S2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vacancy {
    /// Fresh, as that of every write.
    pub nonce: u64,
    /// The longest ttl seen in a record, zero if none was seen.
    pub ttl: Duration,
    /// The highest term seen in a record, 0 if none was seen.
    pub term: Term,
}

/// One candidate's observations of one boundary.
#[derive(Debug)]
pub struct Takeover<N> {
    me: N,
    ttl: Duration,
    /// A record is taken only after it could have been taken for so long.
    delay_by: Duration,
    durability: Durability,
    /// The present view, and since when it has not changed.
    seen: Option<(StoreState<N>, Time)>,
    /// How often a wait on this very record was restarted by a new epoch alone.
    restarts: u32,
    /// Another candidate has written a held record since we began to look.
    leader_seen: bool,
    has_seen_record: bool,
    /// The longest ttl in a record, without our own.
    longest_ttl: Duration,
    highest_term: Term,
    outstanding: Option<OutstandingTake>,
    nonces: u64,
    /// The term that was won last.
    held_term: Option<HeldTerm<N>>,
    #[cfg(test)]
    mutation: Option<RuleMutation>,
}

/// The rules that tests break on purpose (P4); the program itself breaks none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleMutation {
    /// A held record is taken at once.
    HeldTakenAtOnce,
    /// A missing record, a vacant one, or one of another incarnation of the server, is taken at once.
    MissingTakenAtOnce,
    /// A missing record is waited for as it is: without a version, "none, led, none" is not told from "none".
    AbsenceHasNoVersion,
    /// A vacant record is taken like a free one.
    VacantIsFree,
    /// On a store that forgets nothing, a record that has vanished is taken like one that never was.
    VanishedIsMissing,
    /// The wait is for the candidate's own ttl instead of the record's.
    OwnTtlCounts,
    /// The wait without a record to be trusted forgets the ttls of others.
    OthersTtlsForgotten,
    /// A vacant record does not tell the next candidate which ttls and terms its writer has seen.
    VacancyTellsNothing,
    /// A record with my name is mine, whatever its nonce.
    MineByIdAlone,
    /// A free record is taken at once whatever incarnation of the server it was freed in.
    OldFreeTakenAtOnce,
    /// A replica that attaches restarts no wait, and keeps no record from being free.
    EpochIgnored,
    /// A wait goes on while too few replicas are attached.
    WaitsWithoutReplicas,
    /// A renewal that changed nothing is credited.
    StaleCredited,
    /// The first renewal of a term is credited whatever happened to the server since its take.
    FirstCreditedAnywhere,
    /// The first write that is confirmed at all is credited.
    FirstConfirmationCredited,
    /// A credit after the end of the lease still moves the basis of the record.
    LateCreditSettles,
    /// A free record is taken at once although it is left to another candidate.
    ReservationIgnored,
    /// A record is left to its successor for as long as the record says.
    ReservationEndless,
    /// The successor waits out its own takeover delay.
    SuccessorDelayed,
    /// A free record is taken without the takeover delay.
    DelayIgnored,
    /// The takeover delay runs together with the lease of a leader that has died.
    DelayOverlapsLease,
}

impl<N: Clone + PartialEq> Takeover<N> {
    /// The takeover of a candidate that has seen nothing yet and asks for this ttl.
    pub fn new(me: N, ttl: Duration, durability: Durability) -> Takeover<N> {
        Takeover {
            me,
            ttl,
            delay_by: Duration::ZERO,
            durability,
            seen: None,
            restarts: 0,
            leader_seen: false,
            has_seen_record: false,
            longest_ttl: Duration::ZERO,
            highest_term: 0,
            outstanding: None,
            nonces: 0,
            held_term: None,
            #[cfg(test)]
            mutation: None,
        }
    }

    /// Corrects the assumption of [`Takeover::new`] about the store.
    pub fn set_durability(&mut self, durability: Durability) {
        self.durability = durability;
    }

    /// From now on a record is taken only after it could have been taken for so long, as by a spare.
    pub fn set_takeover_delay(&mut self, takeover_delay: Duration) {
        self.delay_by = takeover_delay;
    }

    /// For how long a record could have been taken before it is.
    pub fn takeover_delay(&self) -> Duration {
        self.delay_by
    }

    /// The same takeover of a spare.
    #[cfg(test)]
    #[must_use]
    pub fn delayed_by(self, takeover_delay: Duration) -> Takeover<N> {
        Takeover { delay_by: takeover_delay, ..self }
    }

    /// The same takeover with a rule broken.
    #[cfg(test)]
    #[must_use]
    pub fn breaking(self, mutation: Option<RuleMutation>) -> Takeover<N> {
        Takeover { mutation, ..self }
    }

    /// A fresh nonce for a write.
    pub fn nonce(&mut self) -> u64 {
        self.nonces += 1;
        self.nonces
    }

    /// Opens a take, which from now on may be found in the store.
    pub fn take_request(&mut self) -> TakeRequest {
        let nonce = self.nonce();
        self.outstanding = Some(OutstandingTake { take: nonce, renewal: None });
        self.held_term = None;
        TakeRequest { nonce, floor: self.highest_term.saturating_add(1) }
    }

    /// The nonce of a renewal that is sent together with the take, behind it: the take is recognized by that as well, because the
    /// store may have executed the renewal by now, later, or never.
    pub fn renewal_with_take(&mut self) -> u64 {
        let nonce = self.nonce();
        if let Some(outstanding) = &mut self.outstanding {
            outstanding.renewal = Some(nonce);
        }
        nonce
    }

    /// The contents of a vacant record. It passes on the longest ttl and the highest term, so that a later candidate waits as
    /// long as this one.
    pub fn vacancy(&mut self) -> Vacancy {
        let nonce = self.nonce();
        if self.mutated(RuleMutation::VacancyTellsNothing) {
            return Vacancy { nonce, ttl: Duration::ZERO, term: 0 };
        }
        Vacancy { nonce, ttl: self.longest_ttl, term: self.highest_term }
    }

    /// The longest time until a record that does not change is taken.
    pub fn longest_wait(&self) -> Duration {
        if self.mutated(RuleMutation::OthersTtlsForgotten) { self.ttl } else { self.longest_ttl.max(self.ttl) }
    }

    /// How often the present wait has started again only because a replica had attached (5.4).
    pub fn epoch_restarts(&self) -> u32 {
        self.restarts
    }

    /// The nonce of a take whose outcome is not known.
    pub fn outstanding(&self) -> Option<u64> {
        self.outstanding.map(|outstanding| outstanding.take)
    }

    /// The same with that of a renewal which was sent with it.
    pub fn outstanding_take(&self) -> Option<OutstandingTake> {
        self.outstanding
    }

    /// Forgets the outstanding take: it was refused, or the record that it won was released.
    pub fn discard_outstanding(&mut self) {
        self.outstanding = None;
    }

    /// A take has reached the store; it was executed on this basis. `is_confirmed`: as many replicas have confirmed it
    /// as have to; true where none has to.
    pub fn took(&mut self, basis: Basis<N>, is_confirmed: bool) {
        self.held_term = Some(HeldTerm::new(basis, is_confirmed));
    }

    /// Whether a renewal that has reached the record is credited. Nothing else may credit one (S3).
    pub fn credit(&mut self, write: &Write<N>) -> Credit {
        #[cfg(test)]
        let mutation = self.mutation;
        #[cfg(not(test))]
        let mutation = None;
        let Some(held_term) = &mut self.held_term else { return Credit::GiveBack };
        let credit = held_term.credit(write, mutation);
        if credit == Credit::Counts {
            // The take is no longer unanswered: found again as it was, it would be an old state of the record.
            self.outstanding = None;
        }
        credit
    }

    /// The basis of the last credited renewal: what renewals, the release and the keeper's claim write into the record.
    /// `None`: none was credited yet, and the take's, which is in the record, stays.
    pub fn settled(&self) -> Option<&Basis<N>> {
        self.held_term.as_ref()?.settled()
    }

    /// Decides about an answer that had arrived by `received` (T1: an observer counts from after receiving).
    pub fn decide(&mut self, received: Time, view: &StoreState<N>) -> Decision {
        let had_seen_record = self.has_seen_record;
        let since = self.note(received, view);
        let Some(record) = &view.record else {
            let never_was = self.durability == Durability::Durable && !had_seen_record;
            return match () {
                () if never_was => self.wait(received, since, Duration::ZERO, self.delay()),
                () if self.mutated(RuleMutation::MissingTakenAtOnce) => Decision::Take,
                () if self.durability == Durability::Durable && self.mutated(RuleMutation::VanishedIsMissing) => {
                    Decision::Take
                }
                () if self.mutated(RuleMutation::AbsenceHasNoVersion) => {
                    self.wait(received, since, self.longest_wait(), Duration::ZERO)
                }
                () => Decision::Vacate,
            };
        };
        let is_fresh = record.basis.incarnation == view.basis.incarnation;
        let is_continuous = self.continues(&view.basis, &record.basis);
        let rest = match record.state {
            RecordState::Held if is_fresh && self.is_mine(record) => return Decision::AlreadyOurs(record.term),
            RecordState::Held if is_fresh && record.holder == self.me => return Decision::ReleaseStale(record.term),
            RecordState::Free if is_continuous && view.is_attached => return self.decide_free(received, since, record),
            RecordState::Free if self.mutated(RuleMutation::OldFreeTakenAtOnce) => return Decision::Take,
            RecordState::Vacant if self.mutated(RuleMutation::VacantIsFree) => return Decision::Take,
            RecordState::Held if is_fresh && self.mutated(RuleMutation::HeldTakenAtOnce) => return Decision::Take,
            RecordState::Held if is_fresh && self.mutated(RuleMutation::OwnTtlCounts) => self.ttl,
            RecordState::Held if is_fresh => record.ttl,
            RecordState::Held | RecordState::Free | RecordState::Vacant
                if self.mutated(RuleMutation::MissingTakenAtOnce) =>
            {
                return Decision::Take;
            }
            RecordState::Held | RecordState::Free | RecordState::Vacant => self.longest_wait(),
        };
        let delay = if record.state == RecordState::Held && !self.mutated(RuleMutation::DelayOverlapsLease) {
            self.delay()
        } else {
            // No leader is observed during this wait.
            self.delay().max(self.reserved(record)).saturating_sub(rest)
        };
        if !view.is_attached && !self.mutated(RuleMutation::WaitsWithoutReplicas) {
            return Decision::Wait { left: rest + delay, decided: self.leader_seen };
        }
        self.wait(received, since, rest, delay)
    }

    /// Decides about a record that could be taken at once, but for its reservation and our takeover delay.
    fn decide_free(&self, received: Time, since: Time, record: &ObservedRecord<N>) -> Decision {
        let is_successor = record.reservation.as_ref().is_some_and(|reservation| reservation.successor == self.me);
        if is_successor && !self.mutated(RuleMutation::SuccessorDelayed) {
            return Decision::Take;
        }
        let mut delay = self.delay();
        if record.holder == self.me && !delay.is_zero() {
            // We have resigned. Another candidate with a delay may be meant to lead.
            delay = delay.max(self.ttl);
        }
        self.wait(received, since, Duration::ZERO, self.reserved(record).max(delay))
    }

    /// How long the others have to leave a free record alone, from when they saw it.
    fn reserved(&self, record: &ObservedRecord<N>) -> Duration {
        match &record.reservation {
            Some(reservation) if record.state != RecordState::Free || reservation.successor == self.me => {
                Duration::ZERO
            }
            Some(_) if self.mutated(RuleMutation::ReservationIgnored) => Duration::ZERO,
            Some(reservation) if self.mutated(RuleMutation::ReservationEndless) => reservation.within,
            Some(reservation) => {
                // The one that has resigned stands behind the others, also if the successor is not there.
                let behind = if record.holder == self.me { self.ttl / 10 } else { Duration::ZERO };
                reservation.within.min(RESERVATION_MAX) + behind
            }
            None => Duration::ZERO,
        }
    }

    fn delay(&self) -> Duration {
        if self.mutated(RuleMutation::DelayIgnored) { Duration::ZERO } else { self.delay_by }
    }

    /// Waits until the record could be taken, and then for a delay in which it is certain that no leader is alive.
    fn wait(&self, received: Time, since: Time, rest: Duration, delay: Duration) -> Decision {
        match rest.saturating_add(delay).saturating_sub(received.since(since)) {
            Duration::ZERO => Decision::Take,
            left => Decision::Wait { left, decided: self.leader_seen && left > delay },
        }
    }

    /// Records the view. Returns since when it has been observed unchanged.
    fn note(&mut self, received: Time, view: &StoreState<N>) -> Time {
        if let Some(record) = &view.record {
            self.has_seen_record = true;
            self.highest_term = self.highest_term.max(record.term);
            self.longest_ttl = self.longest_ttl.max(record.ttl);
        }
        let Some((before, since)) = &self.seen else {
            self.seen = Some((view.clone(), received));
            return received;
        };
        let is_same_record = before.record == view.record && before.basis.incarnation == view.basis.incarnation;
        let is_same_epoch = self.continues(&view.basis, &before.basis);
        let was_attached = (before.is_attached && view.is_attached) || self.mutated(RuleMutation::WaitsWithoutReplicas);
        let since = if is_same_record && is_same_epoch && was_attached { *since } else { received };
        // A server that was started again has written nothing by that.
        let is_written = before.record != view.record;
        self.restarts = if is_same_record { self.restarts + u32::from(!is_same_epoch) } else { 0 };
        self.leader_seen |= is_written
            && view.record.as_ref().is_some_and(|now| now.state == RecordState::Held && now.holder != self.me);
        self.seen = Some((view.clone(), since));
        since
    }

    fn continues(&self, later: &Basis<N>, earlier: &Basis<N>) -> bool {
        if self.mutated(RuleMutation::EpochIgnored) {
            return later.incarnation == earlier.incarnation;
        }
        later.continues(earlier)
    }

    fn is_mine(&self, record: &ObservedRecord<N>) -> bool {
        let by_nonce = self
            .outstanding
            .is_some_and(|OutstandingTake { take, renewal }| record.nonce == take || Some(record.nonce) == renewal);
        record.holder == self.me && (by_nonce || self.mutated(RuleMutation::MineByIdAlone))
    }

    #[cfg(test)]
    fn mutated(&self, rule: RuleMutation) -> bool {
        self.mutation == Some(rule)
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "the same question as in the tests")]
    const fn mutated(&self, _: RuleMutation) -> bool {
        false
    }
}
