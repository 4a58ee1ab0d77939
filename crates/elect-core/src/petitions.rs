//! What somebody asks of the candidate: whether it leads, or that it let another one lead.
//!
//! "Do you lead?" is answered by a renewal that was sent after the question was heard: an older one says nothing about now. A
//! candidate that resigns has done so when the boundary is given back.

use super::event::{Action, Denial, Petition, Term};
use super::time::Time;
use super::timing::Lease;

#[derive(Debug, Default)]
pub(super) struct Petitions {
    /// When each was heard.
    asked: Vec<(Petition, Time)>,
    resigning: Vec<Petition>,
    /// Whether the store confirmed the last release.
    released: bool,
}

impl Petitions {
    pub(super) fn asks(&mut self, petition: Petition, now: Time) {
        self.asked.push((petition, now));
    }

    pub(super) fn resigns(&mut self, petition: Petition) {
        self.resigning.push(petition);
        self.released = true;
    }

    /// Whether there is a question that no renewal under way can answer.
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
        let granted: Vec<(Petition, Time)> = answered;
        let grant = |(petition, _)| Action::Grant { petition, term, until: lease.stop_by };
        granted.into_iter().map(grant).collect()
    }

    /// We lead no longer: that is the answer.
    pub(super) fn leads_no_longer(&mut self) -> Vec<Action> {
        let deny = |(petition, _)| Action::Deny { petition, why: Denial::NotLeading };
        self.asked.drain(..).map(deny).collect()
    }

    /// Nothing of the term is left here.
    pub(super) fn has_given_up(&mut self) -> Vec<Action> {
        let released = self.released;
        let answer = |petition| {
            if released {
                Action::Grant { petition, term: None, until: Time::NEVER }
            } else {
                Action::Deny { petition, why: Denial::NotReleased }
            }
        };
        self.resigning.drain(..).map(answer).collect()
    }
}
