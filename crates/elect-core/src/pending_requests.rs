//! Control requests that wait for an answer: whether the candidate leads, or that it let another one lead.
//!
//! "Do you lead?" is answered by a renewal that was sent after the question was heard: an older one says nothing about
//! now. A candidate that resigns has done so when the boundary is given back.

use super::time::Time;
use super::timing::Lease;
use crate::{Action, RequestError, RequestId, Term};

#[derive(Debug, Default)]
pub(super) struct PendingRequests {
    /// The time at which each request came in.
    asked: Vec<(RequestId, Time)>,
    resigning: Vec<RequestId>,
    /// Whether the store confirmed the last release.
    released: bool,
}

impl PendingRequests {
    pub(super) fn asks(&mut self, request_id: RequestId, now: Time) {
        self.asked.push((request_id, now));
    }

    pub(super) fn resigns(&mut self, request_id: RequestId) {
        self.resigning.push(request_id);
        self.released = true;
    }

    /// Whether there is a request that no outstanding renewal can answer.
    pub(super) fn wait_for_a_renewal(&self) -> bool {
        !self.asked.is_empty()
    }

    pub(super) fn release_ended(&mut self, released: bool) {
        self.released = released;
    }

    /// T1: the lease counts from its sending, and so does the answer.
    pub(super) fn credited(&mut self, term: Option<Term>, lease: Lease, any: bool) -> Vec<Action> {
        let (answered, left) = self.asked.drain(..).partition(|&(_, heard)| heard <= lease.sent || any);
        self.asked = left;
        let granted: Vec<(RequestId, Time)> = answered;
        let grant = |(request_id, _)| Action::Grant { request_id, term, until: lease.stop_by };
        granted.into_iter().map(grant).collect()
    }

    /// Denies the requests of a candidate that leads no longer.
    pub(super) fn leads_no_longer(&mut self) -> Vec<Action> {
        let deny = |(request_id, _)| Action::Deny { request_id, why: RequestError::NotLeading };
        self.asked.drain(..).map(deny).collect()
    }

    /// Answers the resignations of a term that is over.
    pub(super) fn answer_resignations(&mut self) -> Vec<Action> {
        let released = self.released;
        let answer = |request_id| {
            if released {
                Action::Grant { request_id, term: None, until: Time::NEVER }
            } else {
                Action::Deny { request_id, why: RequestError::NotReleased }
            }
        };
        self.resigning.drain(..).map(answer).collect()
    }
}
