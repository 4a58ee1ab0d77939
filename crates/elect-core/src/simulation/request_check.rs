//! People who ask candidates whether they lead, or to resign, and answers that must be true: while "I lead" holds, the
//! store gives the boundary to nobody else, and who has resigned runs nothing.

use std::collections::BTreeMap;

use super::super::Phase;
use super::super::time::Time;
use super::coverage::Seen;
use super::run::Simulation;
use crate::{Event, RequestId, Term};

/// The requests to one candidate that have no answer yet.
#[derive(Debug, Default)]
pub(super) struct RequestCheck {
    last: u64,
    open: BTreeMap<RequestId, Wanted>,
}

#[derive(Debug, Clone, Copy)]
enum Wanted {
    Leader { heard: Time, about: Option<Term> },
    Resignation,
    EndOfDrain,
}

impl RequestCheck {
    pub(super) fn next_id(&mut self) -> RequestId {
        self.last += 1;
        RequestId(self.last)
    }

    /// The number of a request to end a drain.
    pub(super) fn undrains(&mut self) -> RequestId {
        let request_id = self.next_id();
        self.open.insert(request_id, Wanted::EndOfDrain);
        request_id
    }
}

impl Simulation {
    /// Now and then somebody asks, after whatever has just happened.
    pub(super) fn request_id(&mut self, h: usize, after: Event) {
        let asked = matches!(after, Event::ConfirmLeadership { .. } | Event::Resign(_));
        if !self.setup.pending_requests || asked || !self.hosts[h].campaigner.is_running() || !self.rng.percent(4) {
            return;
        }
        let (heard, won) = (self.hosts[h].clock.at(self.now), self.hosts[h].reference.won);
        let resigns = !self.quiet && self.rng.percent(20);
        let about = if self.rng.percent(30) { won } else { None };
        let request_check = &mut self.hosts[h].request_check;
        let request_id = request_check.next_id();
        let (wanted, event) = if resigns {
            (Wanted::Resignation, Event::Resign(request_id))
        } else {
            (Wanted::Leader { heard, about }, Event::ConfirmLeadership { request_id, term: about })
        };
        request_check.open.insert(request_id, wanted);
        self.deliver(h, event);
    }

    pub(super) fn granted(&mut self, h: usize, request_id: RequestId, term: Option<Term>, until: Time) {
        match (self.hosts[h].request_check.open.remove(&request_id), term) {
            (Some(Wanted::Leader { heard, about }), Some(term)) => {
                if about.is_some_and(|about| about != term) {
                    self.violate("6: asked about one term, and told of another", h);
                }
                if self.hosts[h].reference.credited.is_none_or(|sent| sent < heard) {
                    self.violate("6: told that it leads on the word of a renewal older than the question", h);
                }
                self.check_leads_until(h, term, until);
            }
            (Some(Wanted::Resignation), None) => {
                self.coverage.count(Seen::Resigned);
                self.check_empty(h, "2.3: told that it has resigned while its tree was alive");
                if matches!(self.hosts[h].candidate.phase(), Phase::Leading | Phase::Stopping | Phase::LeadingIdle) {
                    self.violate("6: told that it has resigned, and it leads", h);
                }
            }
            (Some(Wanted::EndOfDrain), None) => {
                if self.hosts[h].candidate.ineligible_reasons().drained {
                    self.violate("6: told that it is not drained any more, and it is", h);
                }
            }
            (Some(Wanted::Leader { .. }), None)
            | (Some(Wanted::Resignation | Wanted::EndOfDrain), Some(_))
            | (None, _) => {
                self.violate("6: an answer to another question, or a second one", h);
            }
        }
    }

    fn check_leads_until(&mut self, h: usize, term: Term, until: Time) {
        let until = self.hosts[h].clock.when(until);
        if until <= self.now {
            // The client gets that time, and takes it for a no.
            return;
        }
        self.coverage.count(Seen::Granted);
        // The lock store's term has no end, and no guard but the lock.
        let guarded = self.guards.get(&term).is_none_or(|&guarded| guarded >= until);
        if self.last_term > term || !guarded {
            self.violate("6: told that it leads until then, while the store may give the boundary to another", h);
        }
    }

    pub(super) fn denied(&mut self, h: usize, request_id: RequestId) {
        if self.hosts[h].request_check.open.remove(&request_id).is_none() {
            self.violate("6: an answer that nobody asked for, or a second one", h);
        }
        self.coverage.count(Seen::Denied);
    }
}
