//! The term that this candidate holds: which of its renewals are credited (S3, 5.4), and which basis its record may state.
//!
//! A renewal is credited if
//!
//! - it has changed the record ([`is_effective`]): a record that stands still is taken by the others after a ttl;
//! - as many replicas have confirmed it as have to, and an earlier write of the same term as well. Between the script
//!   of the one and its confirmation a replica may have attached that has just confirmed the renewals of a leader
//!   elsewhere; the next script sees that;
//! - for the first one of a term: nothing has happened to the server and its replicas since the take. Otherwise the
//!   wait before the take may have been none, and the take is given back at once.
//!
//! The basis of the last credited renewal is settled, and a release states it: this candidate led there, and as long as
//! that basis continues, the server has forgotten nothing since.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::RuleMutation;
use crate::Time;

/// How often replicas have attached to a server, by its own counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Epoch {
    /// It grows whenever a replica attaches.
    pub attachments: u64,
    /// It grows with every command. A fall shows that the counters have been reset.
    pub commands: u64,
}

/// The memory of a server: everything that was written on the same basis is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Basis<N> {
    /// A name that is new whenever the server may have forgotten something.
    pub incarnation: N,
    /// Zero where there are no replicas, or none that matter.
    pub epoch: Epoch,
}

impl Epoch {
    /// Whether no replica has attached since the earlier one.
    #[must_use]
    pub const fn continues(self, earlier: Epoch) -> bool {
        self.attachments == earlier.attachments && self.commands >= earlier.commands
    }
}

impl<N: PartialEq> Basis<N> {
    /// Of a server whose replicas do not matter.
    #[must_use]
    pub const fn of(incarnation: N) -> Basis<N> {
        Basis { incarnation, epoch: Epoch { attachments: 0, commands: 0 } }
    }

    /// Whether nothing was forgotten, and no replica has attached, since the earlier one.
    #[must_use]
    pub fn continues(&self, earlier: &Basis<N>) -> bool {
        self.incarnation == earlier.incarnation && self.epoch.continues(earlier.epoch)
    }
}

/// A renewal that has reached the record, where it was found held by us in our term.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write<N> {
    /// When it was sent (T1).
    pub sent: Time,
    /// When its answer had arrived.
    pub received: Time,
    /// The lease that the record grants.
    pub ttl: Duration,
    /// Its nonce.
    pub nonce: u64,
    /// The nonce that it found in the record; 0 where the store itself writes nothing unless it is smaller.
    pub found: u64,
    /// Whether as many replicas have confirmed it as have to; true where none has to.
    pub is_confirmed: bool,
    /// Where it was executed.
    pub basis: Basis<N>,
}

/// The worth of a renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credit {
    /// The lease counts from its sending.
    Counts,
    /// It has changed nothing: another program has written a larger nonce.
    Stale,
    /// Too few replicas have it, or it is the first one of this term that enough of them have.
    Unconfirmed,
    /// The server or its replicas are not those of the take any more: the record is to be freed at once, and nothing is
    /// led.
    GiveBack,
}

/// Whether the write of a nonce has changed a record in which another one was found (S3).
#[must_use]
pub const fn is_effective(nonce: u64, found: u64) -> bool {
    nonce > found
}

/// The term that a candidate has won: the basis of its take, and its last credited renewal.
#[derive(Debug)]
pub(super) struct HeldTerm<N> {
    taken: Basis<N>,
    /// Whether an earlier write of this term was confirmed.
    is_confirmed: bool,
    credited: Option<Credited<N>>,
}

#[derive(Debug)]
struct Credited<N> {
    basis: Basis<N>,
    /// The end of the time in which no other candidate can have led, by our clock.
    until: Time,
}

impl<N: Clone + PartialEq> HeldTerm<N> {
    pub(super) const fn new(taken: Basis<N>, is_confirmed: bool) -> HeldTerm<N> {
        HeldTerm { taken, is_confirmed, credited: None }
    }

    pub(super) fn settled(&self) -> Option<&Basis<N>> {
        self.credited.as_ref().map(|credited| &credited.basis)
    }

    pub(super) fn credit(&mut self, write: &Write<N>, mutation: Option<RuleMutation>) -> Credit {
        let mutated = |rule| mutation == Some(rule);
        if !is_effective(write.nonce, write.found) && !mutated(RuleMutation::StaleCredited) {
            return Credit::Stale;
        }
        let is_as_taken = write.basis.continues(&self.taken) || mutated(RuleMutation::FirstCreditedAnywhere);
        if self.credited.is_none() && !is_as_taken {
            return Credit::GiveBack;
        }
        let was_confirmed = self.is_confirmed;
        self.is_confirmed |= write.is_confirmed;
        if !write.is_confirmed || !(was_confirmed || mutated(RuleMutation::FirstConfirmationCredited)) {
            return Credit::Unconfirmed;
        }
        // A credit that comes after the end of the lease may have found an old state of the record, which a restart has
        // brought back: another candidate may lead, and the record must not be called fresh.
        let is_fact = self.credited.as_ref().is_none_or(|last| {
            write.basis.continues(&last.basis)
                || write.received <= last.until
                || mutated(RuleMutation::LateCreditSettles)
        });
        if is_fact {
            // Clocks may differ by as much as the margin allows (section 4).
            let until = write.sent + write.ttl.saturating_sub(write.ttl / 10);
            self.credited = Some(Credited { basis: write.basis.clone(), until });
        }
        Credit::Counts
    }
}
