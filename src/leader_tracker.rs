//! The leader of the boundary, as far as this candidate knows: itself, another candidate, or none.
//!
//! Each change is reported once, as the events that the election handles.

use crate::store::{Leader, Observation};
use elect_core::limits::{self, FOREIGN_ID_BYTES_MAX, is_believed_term};
use elect_core::{BackgroundHook, Event, LeaderKey, Phase, Term};

/// The leader, as programs see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KnownLeader {
    /// No leader is known.
    Nobody,
    /// Another candidate leads.
    Another(RemoteLeader),
    /// This candidate leads, in this term.
    Ourselves(Term),
}

/// The details of another leader that a follower sees. A leader that differs in any of them is a new one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteLeader {
    /// The candidate's id.
    pub id: String,
    /// Its name, for display.
    pub name: String,
    /// Its host.
    pub host: Option<String>,
    /// Its port.
    pub port: Option<u16>,
    term: Option<Term>,
}

/// Tracks the leader.
#[derive(Debug)]
pub struct LeaderTracker {
    own_id: String,
    known: KnownLeader,
    /// The number of changes so far, which identifies a leader to the election.
    changes: u64,
}

impl LeaderTracker {
    /// The tracker of the candidate with this id. No leader is known yet.
    #[must_use]
    pub fn new(own_id: String) -> LeaderTracker {
        LeaderTracker { own_id, known: KnownLeader::Nobody, changes: 0 }
    }

    /// The leader now.
    #[must_use]
    pub fn known(&self) -> &KnownLeader {
        &self.known
    }

    /// Notes an observation of the store, while campaigning. In any other phase the observation is stale.
    pub fn observe(&mut self, observation: &Observation) -> Vec<Event> {
        // The candidate's own record is from before its election or from after its release.
        let other = observation.leader.as_ref().filter(|leader| leader.id != self.own_id).map(|leader| RemoteLeader {
            id: limits::cut(leader.id.clone(), FOREIGN_ID_BYTES_MAX),
            name: limits::cut_name(leader.name.clone()),
            host: leader.host.clone().map(limits::cut_name),
            port: leader.port,
            term: leader.term,
        });
        let changed = self.set(other.map_or(KnownLeader::Nobody, KnownLeader::Another));
        [Some(Event::LeaderObserved(self.other())), changed].into_iter().flatten().collect()
    }

    /// The term of another leader, if it is accepted (S1).
    #[must_use]
    pub fn observed_term(&self, observation: &Observation) -> Option<Event> {
        let term_of_another =
            |leader: &Leader| leader.term.filter(|&term| leader.id != self.own_id && is_believed_term(term));
        observation.leader.as_ref().and_then(term_of_another).map(Event::TermSeen)
    }

    /// Notes that this candidate was elected. Returns the change, if it is one.
    pub fn elected(&mut self, term: Term) -> Option<Event> {
        self.set(KnownLeader::Ourselves(term))
    }

    /// Notes the phase after an event: the candidate's own leadership ends with the phases that hold its term. Returns
    /// the change, if it is one.
    pub fn set_phase(&mut self, phase: Phase) -> Option<Event> {
        match (phase, &self.known) {
            (Phase::Leading | Phase::Stopping | Phase::LeadingIdle | Phase::OustedHook, _)
            | (_, KnownLeader::Another(_) | KnownLeader::Nobody) => None,
            (
                Phase::Campaigning
                | Phase::Verifying
                | Phase::Releasing
                | Phase::Ineligible
                | Phase::CoolingDown
                | Phase::StoppingFollower
                | Phase::Ended,
                KnownLeader::Ourselves(_),
            ) => self.set(KnownLeader::Nobody),
        }
    }

    fn set(&mut self, known: KnownLeader) -> Option<Event> {
        let changed = self.known != known;
        if changed {
            self.changes += 1;
            self.known = known;
        }
        changed.then_some(Event::HookDue(BackgroundHook::OnChange))
    }

    /// The other candidate that leads.
    fn other(&self) -> Option<LeaderKey> {
        match self.known {
            KnownLeader::Another(_) => Some(LeaderKey(self.changes)),
            KnownLeader::Nobody | KnownLeader::Ourselves(_) => None,
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn other(id: &str, port: Option<u16>, term: Term) -> Observation {
        let leader = Leader {
            id: id.into(),
            name: "other".into(),
            host: Some("::1".into()),
            port,
            term: Some(term),
            since: None,
            ttl: None,
            lease_left: None,
            store_key: None,
        };
        Observation { leader: Some(leader), ..Observation::default() }
    }

    fn tracker() -> LeaderTracker {
        LeaderTracker::new("me".to_owned())
    }

    const CHANGED: Event = Event::HookDue(BackgroundHook::OnChange);

    #[test]
    fn another_leader_is_one_that_differs_in_anything_and_the_own_record_is_none() {
        let mut tracker = tracker();
        let none = [Event::LeaderObserved(None)];
        assert_eq!(tracker.observe(&Observation::default()), none, "no change at first");
        assert_eq!(tracker.observe(&other("me", None, 3)), none, "an old record of our own");
        let mut keys = Vec::new();
        for leader in [other("a", None, 4), other("a", Some(1), 4), other("a", Some(1), 5), other("b", Some(1), 5)] {
            let key = tracker.other();
            let events = tracker.observe(&leader);
            assert_eq!(events, [Event::LeaderObserved(tracker.other()), CHANGED]);
            assert_ne!(tracker.other(), key);
            assert_eq!(tracker.observe(&leader), events[..1], "no change");
            keys.push(tracker.other().expect("another leads"));
        }
        keys.dedup();
        assert_eq!(keys.len(), 4);
        assert_eq!(tracker.observe(&Observation::default()), [Event::LeaderObserved(None), CHANGED]);
    }

    #[test]
    fn the_own_leadership_is_a_change_and_so_is_its_end() {
        let mut tracker = tracker();
        assert_eq!(tracker.set_phase(Phase::Campaigning), None);
        assert_eq!(tracker.observe(&other("a", None, 4)).len(), 2);
        assert_eq!(tracker.set_phase(Phase::Campaigning), None, "another's leadership does not end by it");
        assert_eq!(tracker.elected(5), Some(CHANGED));
        assert_eq!(tracker.other(), None, "no candidate follows itself");
        assert_eq!(tracker.elected(5), None);
        for phase in [Phase::Leading, Phase::Stopping, Phase::LeadingIdle, Phase::OustedHook] {
            assert_eq!(tracker.set_phase(phase), None);
        }
        assert_eq!(tracker.set_phase(Phase::Releasing), Some(CHANGED));
        assert_eq!(tracker.set_phase(Phase::Ended), None);
    }

    #[test]
    fn a_term_is_seen_of_others_alone() {
        let tracker = tracker();
        assert_eq!(tracker.observed_term(&other("a", None, 4)), Some(Event::TermSeen(4)));
        assert_eq!(tracker.observed_term(&other("a", None, u64::MAX)), None, "not believed");
        assert_eq!(tracker.observed_term(&other("me", None, 4)), None);
        assert_eq!(tracker.observed_term(&Observation::default()), None);
    }
}
