//! Control requests that wait for an answer: whether the candidate leads, or that it let another one lead.
//!
//! "Do you lead?" is answered by a renewal that was sent after the question was heard: an older one says nothing about
//! now. A candidate that resigns has done so when the boundary is given back.

use super::time::Time;
use super::timing::Lease;
use crate::{Action, RequestError, RequestId, Term};

#[derive(Debug)]
pub(super) struct PendingRequests {
    /// The time at which each request came in.
    asked: Vec<(RequestId, Time)>,
    resigning: Vec<RequestId>,
    draining: Vec<RequestId>,
    /// The end of the lease that a release did not end, as far as is known; the past, if there is none.
    lease_ends: Time,
    /// Whether the store confirmed the last release.
    released: bool,
}

impl Default for PendingRequests {
    fn default() -> PendingRequests {
        PendingRequests {
            asked: Vec::new(),
            resigning: Vec::new(),
            draining: Vec::new(),
            lease_ends: Time::BOOT,
            released: true,
        }
    }
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

    pub(super) fn drains(&mut self, request_id: RequestId) {
        self.draining.push(request_id);
    }

    /// A release is over. One that was not confirmed leaves a lease that ends at `lease_ends` at the latest.
    pub(super) fn release_ended(&mut self, released: bool, lease_ends: Time) {
        self.released = released;
        self.lease_ends = if released { Time::BOOT } else { lease_ends };
    }

    /// Answers the drains of a candidate that holds nothing (H8): at once, if the store confirmed the release, or else at
    /// the end of the lease. `ends`: the candidacy ends, and does not wait for that.
    pub(super) fn answer_drains(&mut self, now: Time, ends: bool) -> Vec<Action> {
        let released = self.lease_ends == Time::BOOT;
        if !released && now < self.lease_ends && !ends {
            return Vec::new();
        }
        let ran_out = now >= self.lease_ends;
        let answer = |request_id| {
            if released || ran_out {
                Action::Drained { request_id, released }
            } else {
                Action::Deny { request_id, why: RequestError::NotReleased }
            }
        };
        self.draining.drain(..).map(answer).collect()
    }

    /// Denies the drains that a later request has ended.
    pub(super) fn undrained(&mut self) -> Vec<Action> {
        let deny = |request_id| Action::Deny { request_id, why: RequestError::Undrained };
        self.draining.drain(..).map(deny).collect()
    }

    /// The next time at which a drain can be answered.
    pub(super) fn wake_at(&self, now: Time) -> Time {
        if self.draining.is_empty() || self.lease_ends <= now { Time::NEVER } else { self.lease_ends }
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
