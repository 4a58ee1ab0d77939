//! Turns successive observations into changes to report: each once, in order, without repetition. Pure: observations go
//! in, changes come out.
//!
//! Terms are opaque, so a gap between two of them means nothing by itself. A skipped term is reported if the previous term
//! of an observation is newer than the newest term reported.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::store::{Leader, Listing, Observation, StoreError};
use elect_core::boundary::Boundary;
use elect_core::{Term, Time};

/// How long a term that was over has to be seen again to be believed: the record of a leader that died is in the way of
/// the next one for a moment, under whose lock it looks alive.
const STALE_TERM_GRACE: Duration = Duration::from_secs(1);
/// Boundaries without a leader are remembered while there are not more of them than this.
const TRACKED_BOUNDARIES_MAX: usize = 10_000;

/// Something to be said.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// About this boundary; `None`: about the whole store.
    pub boundary: Option<Boundary>,
    pub kind: ChangeKind,
}

#[derive(Debug, Clone, PartialEq)]
pub enum ChangeKind {
    Leader {
        leader: Leader,
        skipped: Skipped,
    },
    /// The boundary has no leader.
    NoLeader {
        /// The obstacle that keeps every candidate out, for people.
        obstacle: Option<String>,
        skipped: Skipped,
    },
    Error(String),
}

/// Whether terms began and ended unseen since the line before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skipped {
    /// The store cannot tell, or there is no line before.
    Unknown,
    No,
    /// At least one, after this term (`None`: after none).
    After(Option<Term>),
}

/// The last reported state.
#[derive(Debug, Default)]
pub struct ChangeTracker {
    tracked: BTreeMap<Boundary, TrackedBoundary>,
    error_reported: bool,
}

#[derive(Debug, Default)]
struct TrackedBoundary {
    reported: LastReported,
    /// Said before a trouble: to be said again after it.
    stale: bool,
    /// The newest term that has been said, or could be known from what was.
    latest_term: Option<Term>,
    /// A leader under a term that was over, and since when it is seen.
    suspect_term: Option<(Term, Time)>,
    error_reported: bool,
}

#[derive(Debug, Default)]
enum LastReported {
    #[default]
    Nothing,
    NoLeader,
    Leader(Leader),
}

impl ChangeTracker {
    /// The changes to report after an observation of `scope`; `None` is the whole store.
    pub fn observe(
        &mut self,
        now: Time,
        scope: Option<&Boundary>,
        seen: Result<Vec<Listing>, StoreError>,
    ) -> Vec<Change> {
        let seen = match seen {
            Ok(seen) => seen,
            Err(error) => {
                if std::mem::replace(&mut self.error_reported, true) {
                    return Vec::new();
                }
                self.tracked.values_mut().for_each(|tracked| tracked.stale = true);
                return vec![Change { boundary: scope.cloned(), kind: ChangeKind::Error(error.to_string()) }];
            }
        };
        self.error_reported = false;
        let mut gone: Vec<Boundary> = self.tracked.keys().cloned().collect();
        let mut changes = Vec::new();
        for (boundary, observation) in seen {
            gone.retain(|tracked| *tracked != boundary);
            // Seen among others, and never led: a record that candidates wait for is no change (S2).
            if scope.is_none()
                && !self.tracked.contains_key(&boundary)
                && observation.as_ref().is_ok_and(Observation::is_unled)
            {
                self.tracked.entry(boundary).or_default().reported = LastReported::NoLeader;
                continue;
            }
            self.observe_boundary(now, &boundary, observation, &mut changes);
        }
        for boundary in gone {
            // No longer observed. Its lack of a leader is not reported again.
            let tracked = self.tracked.entry(boundary.clone()).or_default();
            tracked.stale &= !matches!(tracked.reported, LastReported::NoLeader);
            self.observe_boundary(now, &boundary, Ok(Observation::default()), &mut changes);
        }
        if self.tracked.len() > TRACKED_BOUNDARIES_MAX {
            self.tracked.retain(|_, tracked| matches!(tracked.reported, LastReported::Leader(_)));
        }
        changes
    }

    fn observe_boundary(
        &mut self,
        now: Time,
        boundary: &Boundary,
        observation: Result<Observation, StoreError>,
        changes: &mut Vec<Change>,
    ) {
        let tracked = self.tracked.entry(boundary.clone()).or_default();
        let kinds = match observation {
            Ok(observation) => tracked.observe(now, observation),
            Err(error) => {
                tracked.stale = true;
                let is_new = !std::mem::replace(&mut tracked.error_reported, true);
                if is_new { vec![ChangeKind::Error(error.to_string())] } else { Vec::new() }
            }
        };
        changes.extend(kinds.into_iter().map(|kind| Change { boundary: Some(boundary.clone()), kind }));
    }
}

impl TrackedBoundary {
    fn observe(&mut self, now: Time, observation: Observation) -> Vec<ChangeKind> {
        self.error_reported = false;
        let previous_term = observation.previous_term;
        if let Some(leader) = observation.leader {
            return self.observe_leader(now, leader, previous_term);
        }
        self.suspect_term = None;
        let skipped = self.skipped(previous_term);
        let is_new = !matches!(self.reported, LastReported::NoLeader) || matches!(skipped, Skipped::After(_));
        if !is_new && !self.stale {
            return Vec::new();
        }
        (self.reported, self.stale) = (LastReported::NoLeader, false);
        self.latest_term = self.latest_term.max(previous_term);
        vec![ChangeKind::NoLeader { obstacle: observation.obstacle, skipped }]
    }

    fn observe_leader(&mut self, now: Time, leader: Leader, previous_term: Option<Term>) -> Vec<ChangeKind> {
        if let LastReported::Leader(reported) = &self.reported
            && reported.term == leader.term
            && reported.id == leader.id
        {
            self.suspect_term = None;
            let is_new = (&reported.name, &reported.host, reported.port) != (&leader.name, &leader.host, leader.port);
            if !is_new && !self.stale {
                return Vec::new();
            }
            (self.reported, self.stale) = (LastReported::Leader(leader.clone()), false);
            return vec![ChangeKind::Leader { leader, skipped: Skipped::No }];
        }
        let mut kinds = Vec::new();
        let mut skipped = self.skipped(previous_term);
        if let (Some(term), Some(latest_term)) = (leader.term, self.latest_term)
            && term <= latest_term
        {
            let since =
                self.suspect_term.filter(|(suspect_term, _)| *suspect_term == term).map_or(now, |(_, since)| since);
            self.suspect_term = Some((term, since));
            if now.since(since) < STALE_TERM_GRACE {
                return Vec::new();
            }
            if term < latest_term {
                kinds.push(ChangeKind::Error(format!(
                    "terms went back from {latest_term} to {term}: the store has lost, or been given back, what it knew"
                )));
            }
            skipped = Skipped::Unknown;
        }
        self.suspect_term = None;
        self.latest_term = leader.term.or(self.latest_term);
        (self.reported, self.stale) = (LastReported::Leader(leader.clone()), false);
        kinds.push(ChangeKind::Leader { leader, skipped });
        kinds
    }

    fn skipped(&self, previous_term: Option<Term>) -> Skipped {
        match (&self.reported, previous_term) {
            (LastReported::Nothing, _) | (_, None) => Skipped::Unknown,
            (LastReported::NoLeader | LastReported::Leader(_), previous_term) if previous_term > self.latest_term => {
                Skipped::After(self.latest_term)
            }
            (LastReported::NoLeader | LastReported::Leader(_), _) => Skipped::No,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::BOOT;

    fn boundary() -> Boundary {
        "cron".parse().expect("a name")
    }

    fn leader(term: Term) -> Leader {
        Leader {
            id: format!("id {term}"),
            name: "web".to_owned(),
            host: None,
            port: None,
            term: Some(term),
            since: None,
            ttl: None,
            lease_left: None,
            store_key: None,
        }
    }

    fn led(term: Term, previous_term: impl Into<Option<Term>>) -> Observation {
        Observation { leader: Some(leader(term)), previous_term: previous_term.into(), ..Observation::default() }
    }

    fn unled(previous_term: impl Into<Option<Term>>) -> Observation {
        Observation { previous_term: previous_term.into(), ..Observation::default() }
    }

    fn down() -> StoreError {
        StoreError::Unavailable("down".to_owned())
    }

    /// The report as a short text.
    fn rendered(changes: Vec<Change>) -> Vec<String> {
        let gap = |skipped| match skipped {
            Skipped::Unknown => "?".to_owned(),
            Skipped::No => String::new(),
            Skipped::After(term) => format!(" gap after {}", term.unwrap_or_default()),
        };
        let one = |change: Change| match change.kind {
            ChangeKind::Leader { leader, skipped } => format!("{}{}", leader.term.unwrap_or_default(), gap(skipped)),
            ChangeKind::NoLeader { skipped, .. } => format!("nobody{}", gap(skipped)),
            ChangeKind::Error(error) => error,
        };
        changes.into_iter().map(one).collect()
    }

    impl ChangeTracker {
        fn sees_at(&mut self, now: Time, observation: Observation) -> Vec<String> {
            rendered(self.observe(now, Some(&boundary()), Ok(vec![(boundary(), Ok(observation))])))
        }

        fn sees(&mut self, observation: Observation) -> Vec<String> {
            self.sees_at(NOW, observation)
        }
    }

    const NOTHING: [&str; 0] = [];

    #[test]
    fn the_present_state_is_said_first_and_then_each_change_once() {
        let mut changes = ChangeTracker::default();
        assert_eq!(changes.sees(unled(None)), ["nobody?"]);
        assert_eq!(changes.sees(unled(None)), NOTHING);
        assert_eq!(changes.sees(led(5, None)), ["5?"]);
        assert_eq!(changes.sees(led(5, None)), NOTHING);
        assert_eq!(changes.sees(unled(5)), ["nobody"]);
        assert_eq!(changes.sees(led(9, 5)), ["9"]);
        assert_eq!(changes.sees(led(12, 9)), ["12"]);
    }

    #[test]
    fn a_new_name_or_address_under_the_same_term_is_a_change() {
        let mut changes = ChangeTracker::default();
        changes.sees(led(5, None));
        let renamed = Leader { name: "other".to_owned(), ..leader(5) };
        let mut renewed = Leader { lease_left: Some(Duration::from_secs(1)), ..renamed.clone() };
        renewed.since = Some(1);
        assert_eq!(changes.sees(Observation { leader: Some(renamed), ..Observation::default() }), ["5"]);
        assert_eq!(changes.sees(Observation { leader: Some(renewed), ..Observation::default() }), NOTHING);
    }

    #[test]
    fn terms_that_nobody_saw_show_as_gaps() {
        let mut changes = ChangeTracker::default();
        changes.sees(led(5, None));
        assert_eq!(changes.sees(led(9, 7)), ["9 gap after 5"]);
        assert_eq!(changes.sees(unled(9)), ["nobody"]);
        assert_eq!(changes.sees(unled(11)), ["nobody gap after 9"], "one came and went between two looks");
        assert_eq!(changes.sees(unled(11)), NOTHING);
        assert_eq!(changes.sees(led(13, 11)), ["13"]);
        assert_eq!(changes.sees(unled(17)), ["nobody gap after 13"]);
        let mut changes = ChangeTracker::default();
        changes.sees(unled(None));
        assert_eq!(changes.sees(unled(3)), ["nobody gap after 0"]);
        assert_eq!(changes.sees(led(5, None)), ["5?"], "the store cannot tell");
    }

    #[test]
    fn a_term_that_is_over_does_not_come_back_for_a_moment() {
        let mut changes = ChangeTracker::default();
        changes.sees(led(5, None));
        changes.sees(unled(5));
        assert_eq!(changes.sees(led(5, None)), NOTHING, "the next one has the lock, and this is still the record");
        assert_eq!(changes.sees(led(9, 5)), ["9"]);
        assert_eq!(changes.sees(led(5, None)), NOTHING, "an old answer");
        assert_eq!(changes.sees(led(9, 5)), NOTHING);
    }

    #[test]
    fn what_stays_is_believed_in_the_end_however_odd() {
        let later = NOW + STALE_TERM_GRACE;
        let mut changes = ChangeTracker::default();
        changes.sees(led(5, None));
        changes.sees(unled(5));
        assert_eq!(changes.sees(led(5, None)), NOTHING);
        assert_eq!(changes.sees_at(later, led(5, None)), ["5?"]);
        assert_eq!(changes.sees_at(later, led(3, None)), NOTHING);
        let reported = changes.sees_at(later + STALE_TERM_GRACE, led(3, None));
        assert!(reported[0].contains("went back from 5 to 3"), "{reported:?}");
        assert_eq!(reported[1..], ["3?"]);
        assert_eq!(changes.sees_at(later + STALE_TERM_GRACE, led(4, 3)), ["4"]);
    }

    #[test]
    fn a_trouble_is_said_once_and_what_is_after_it() {
        let mut changes = ChangeTracker::default();
        let scope = boundary();
        changes.sees(led(5, None));
        assert_eq!(rendered(changes.observe(NOW, Some(&scope), Err(down()))), ["down"]);
        assert_eq!(rendered(changes.observe(NOW, Some(&scope), Err(down()))), NOTHING);
        assert_eq!(changes.sees(led(5, None)), ["5"], "still");
        assert_eq!(changes.sees(led(5, None)), NOTHING);
        assert_eq!(rendered(changes.observe(NOW, Some(&scope), Err(down()))), ["down"]);
        assert_eq!(changes.sees(led(9, 7)), ["9 gap after 5"]);
    }

    #[test]
    fn one_boundary_that_cannot_be_read_hides_no_other_and_one_that_is_gone_has_no_leader() {
        let other: Boundary = "other".parse().expect("a name");
        let mut changes = ChangeTracker::default();
        let both = |first| Ok(vec![(boundary(), first), (other.clone(), Ok(led(7, None)))]);
        assert_eq!(rendered(changes.observe(NOW, None, both(Err(down())))), ["down", "7?"]);
        assert_eq!(rendered(changes.observe(NOW, None, both(Err(down())))), NOTHING);
        assert_eq!(rendered(changes.observe(NOW, None, both(Ok(led(5, None))))), ["5?"]);
        assert_eq!(rendered(changes.observe(NOW, None, Ok(Vec::new()))), ["nobody?", "nobody?"]);
        assert_eq!(rendered(changes.observe(NOW, None, Err(down()))), ["down"]);
        assert_eq!(rendered(changes.observe(NOW, None, Ok(Vec::new()))), NOTHING, "heard of no more");
    }

    #[test]
    fn whatever_is_seen_terms_rise_and_the_last_word_is_right() {
        let mut dice = fastrand::Rng::with_seed(5);
        for _ in 0..2_000 {
            let mut changes = ChangeTracker::default();
            let (mut term, mut previous_term, mut leads) = (1, None, false);
            let (mut last_said, mut highest) = (String::new(), 0);
            for _ in 0..40 {
                match dice.u8(..4) {
                    0 if leads => (leads, previous_term) = (false, Some(term)),
                    0 | 1 => {
                        previous_term = if leads { Some(term) } else { previous_term };
                        (term, leads) = (term + dice.u64(1..5), true);
                    }
                    2 => {
                        for kind in rendered(changes.observe(NOW, Some(&boundary()), Err(down()))) {
                            assert_eq!(kind, "down");
                        }
                        continue;
                    }
                    _ => {}
                }
                for reported in changes.sees(if leads { led(term, previous_term) } else { unled(previous_term) }) {
                    let number: Option<u64> = reported.split([' ', '?']).next().and_then(|word| word.parse().ok());
                    if let Some(number) = number {
                        assert!(number >= highest, "{number} after {highest}");
                        highest = number;
                    }
                    last_said = reported;
                }
                let right =
                    if leads { last_said.starts_with(&term.to_string()) } else { last_said.starts_with("nobody") };
                assert!(right, "{last_said} although {leads} {term}");
            }
        }
    }
}
