//! When a candidate may take the record of an observed store (5.3). The program's own `takeover.rs` decides the same.

use std::time::Duration;

use super::super::event::Term;
use super::super::time::Time;
use super::record_store::{Observed, Record};
use super::sabotage::Broken;

/// What may be done about what was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// The write whose answer never came has reached the store.
    Mine(Term),
    Take,
    Wait(Duration),
}

/// What one candidate has seen so far.
#[derive(Debug)]
pub(super) struct TakeRule {
    holder: usize,
    ttl: Duration,
    /// What is there, and since when nothing else has been.
    seen: Option<(Observed, Time)>,
    longest_ttl: Duration,
    pub highest_term: Term,
    /// The nonce of the take whose answer is not known yet.
    pub outstanding: Option<u64>,
    broken: Option<Broken>,
}

impl TakeRule {
    pub(super) fn new(holder: usize, ttl: Duration, broken: Option<Broken>) -> TakeRule {
        TakeRule { holder, ttl, seen: None, longest_ttl: ttl, highest_term: 0, outstanding: None, broken }
    }

    /// `sent` and `received` bound the time at which the store looked like this.
    pub(super) fn decide(&mut self, sent: Time, received: Time, observed: Observed) -> Decision {
        let since = match self.seen {
            Some((before, since)) if before == observed => since,
            // T1: an observer counts from after receiving.
            Some(_) | None if self.breaks(Broken::ObserverCountsFromSending) => sent,
            Some(_) | None => received,
        };
        self.seen = Some((observed, since));
        if let Some(record) = observed.record {
            self.highest_term = self.highest_term.max(record.term);
            self.longest_ttl = self.longest_ttl.max(record.ttl);
        }
        let fresh = observed.record.filter(|record| record.incarnation == observed.incarnation);
        let rest = match fresh {
            Some(record) if self.is_mine(record) => return Decision::Mine(record.term),
            Some(Record { held: false, .. }) => return Decision::Take,
            Some(_) if self.breaks(Broken::HeldTakenAtOnce) => return Decision::Take,
            Some(_) if self.breaks(Broken::OwnTtlCounts) => self.ttl,
            Some(record) => record.ttl,
            None if self.breaks(Broken::MissingTakenAtOnce) => return Decision::Take,
            None => self.longest_ttl,
        };
        match rest.saturating_sub(received.since(since)) {
            Duration::ZERO => Decision::Take,
            left => Decision::Wait(left),
        }
    }

    fn is_mine(&self, record: Record) -> bool {
        let by_nonce = Some(record.nonce) == self.outstanding;
        record.held && record.holder == self.holder && (by_nonce || self.breaks(Broken::MineByIdAlone))
    }

    fn breaks(&self, rule: Broken) -> bool {
        self.broken == Some(rule)
    }
}
