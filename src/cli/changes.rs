//! From what is seen of a store, look by look, to what is said about it: each change once, in order, and no change that is
//! none. Pure: what has been seen goes in, what is to be said comes out.
//!
//! Terms are opaque, so that a gap between two of them means nothing by itself. That a term was skipped is said if the store
//! knows of one, before the present or last, that is newer than the newest that was shown.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::boundary::Boundary;
use crate::election::{Term, Time};
use crate::store::{Leader, Listing, Observation, StoreError};

/// How long a term that was over has to be seen again to be believed: the record of a leader that died is in the way of the
/// next one for a moment, under whose lock it looks alive.
const BELIEVED: Duration = Duration::from_secs(1);
/// Boundaries that nobody leads are remembered while there are not more of them than this.
const MOST_REMEMBERED: usize = 10_000;

/// Something to be said.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// About this boundary; `None`: about the whole store.
    pub boundary: Option<Boundary>,
    pub what: What,
}

#[derive(Debug, Clone, PartialEq)]
pub enum What {
    Leads {
        leader: Leader,
        skipped: Skipped,
    },
    /// Nobody leads.
    Nobody {
        /// What keeps everybody out, for people.
        obstacle: Option<String>,
        skipped: Skipped,
    },
    Trouble(String),
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

/// What has been said.
#[derive(Debug, Default)]
pub struct Changes {
    known: BTreeMap<Boundary, Known>,
    troubled: bool,
}

#[derive(Debug, Default)]
struct Known {
    said: Said,
    /// Said before a trouble: to be said again after it.
    stale: bool,
    /// The newest term that has been said, or could be known from what was.
    latest: Option<Term>,
    /// A leader under a term that was over, and since when it is seen.
    doubted: Option<(Term, Time)>,
    troubled: bool,
}

#[derive(Debug, Default)]
enum Said {
    #[default]
    Nothing,
    Nobody,
    Leads(Leader),
}

impl Changes {
    /// What is to be said of this look at `scope`, `None` for all of the store.
    pub fn note(&mut self, now: Time, scope: Option<&Boundary>, seen: Result<Vec<Listing>, StoreError>) -> Vec<Change> {
        let seen = match seen {
            Ok(seen) => seen,
            Err(error) => {
                if std::mem::replace(&mut self.troubled, true) {
                    return Vec::new();
                }
                self.known.values_mut().for_each(|known| known.stale = true);
                return vec![Change { boundary: scope.cloned(), what: What::Trouble(error.to_string()) }];
            }
        };
        self.troubled = false;
        let mut gone: Vec<Boundary> = self.known.keys().cloned().collect();
        let mut changes = Vec::new();
        for (boundary, sighting) in seen {
            gone.retain(|known| *known != boundary);
            // Seen among others, and never led: a record that candidates wait for is no change (S2).
            if scope.is_none()
                && !self.known.contains_key(&boundary)
                && sighting.as_ref().is_ok_and(Observation::is_unled)
            {
                self.known.entry(boundary).or_default().said = Said::Nobody;
                continue;
            }
            self.note_one(now, &boundary, sighting, &mut changes);
        }
        for boundary in gone {
            // Not heard of any more. That nobody leads it need not be said again.
            let known = self.known.entry(boundary.clone()).or_default();
            known.stale &= !matches!(known.said, Said::Nobody);
            self.note_one(now, &boundary, Ok(Observation::default()), &mut changes);
        }
        if self.known.len() > MOST_REMEMBERED {
            self.known.retain(|_, known| matches!(known.said, Said::Leads(_)));
        }
        changes
    }

    fn note_one(
        &mut self,
        now: Time,
        boundary: &Boundary,
        sighting: Result<Observation, StoreError>,
        changes: &mut Vec<Change>,
    ) {
        let known = self.known.entry(boundary.clone()).or_default();
        let whats = match sighting {
            Ok(sighting) => known.note(now, sighting),
            Err(error) => {
                known.stale = true;
                let is_new = !std::mem::replace(&mut known.troubled, true);
                if is_new { vec![What::Trouble(error.to_string())] } else { Vec::new() }
            }
        };
        changes.extend(whats.into_iter().map(|what| Change { boundary: Some(boundary.clone()), what }));
    }
}

impl Known {
    fn note(&mut self, now: Time, sighting: Observation) -> Vec<What> {
        self.troubled = false;
        let former = sighting.former;
        if let Some(leader) = sighting.leader {
            return self.note_leader(now, leader, former);
        }
        self.doubted = None;
        let skipped = self.skipped(former);
        let is_new = !matches!(self.said, Said::Nobody) || matches!(skipped, Skipped::After(_));
        if !is_new && !self.stale {
            return Vec::new();
        }
        (self.said, self.stale) = (Said::Nobody, false);
        self.latest = self.latest.max(former);
        vec![What::Nobody { obstacle: sighting.obstacle, skipped }]
    }

    fn note_leader(&mut self, now: Time, leader: Leader, former: Option<Term>) -> Vec<What> {
        if let Said::Leads(said) = &self.said
            && said.term == leader.term
            && said.id == leader.id
        {
            self.doubted = None;
            let is_new = (&said.name, &said.host, said.port) != (&leader.name, &leader.host, leader.port);
            if !is_new && !self.stale {
                return Vec::new();
            }
            (self.said, self.stale) = (Said::Leads(leader.clone()), false);
            return vec![What::Leads { leader, skipped: Skipped::No }];
        }
        let mut whats = Vec::new();
        let mut skipped = self.skipped(former);
        if let (Some(term), Some(latest)) = (leader.term, self.latest)
            && term <= latest
        {
            let since = self.doubted.filter(|(doubted, _)| *doubted == term).map_or(now, |(_, since)| since);
            self.doubted = Some((term, since));
            if now.since(since) < BELIEVED {
                return Vec::new();
            }
            if term < latest {
                whats.push(What::Trouble(format!(
                    "terms went back from {latest} to {term}: the store has lost, or been given back, what it knew"
                )));
            }
            skipped = Skipped::Unknown;
        }
        self.doubted = None;
        self.latest = leader.term.or(self.latest);
        (self.said, self.stale) = (Said::Leads(leader.clone()), false);
        whats.push(What::Leads { leader, skipped });
        whats
    }

    fn skipped(&self, former: Option<Term>) -> Skipped {
        match (&self.said, former) {
            (Said::Nothing, _) | (_, None) => Skipped::Unknown,
            (Said::Nobody | Said::Leads(_), former) if former > self.latest => Skipped::After(self.latest),
            (Said::Nobody | Said::Leads(_), _) => Skipped::No,
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
        }
    }

    fn led(term: Term, former: impl Into<Option<Term>>) -> Observation {
        Observation { leader: Some(leader(term)), former: former.into(), ..Observation::default() }
    }

    fn unled(former: impl Into<Option<Term>>) -> Observation {
        Observation { former: former.into(), ..Observation::default() }
    }

    fn down() -> StoreError {
        StoreError::Unavailable("down".to_owned())
    }

    /// What is said, as short as can be.
    fn told(changes: Vec<Change>) -> Vec<String> {
        let gap = |skipped| match skipped {
            Skipped::Unknown => "?".to_owned(),
            Skipped::No => String::new(),
            Skipped::After(term) => format!(" gap after {}", term.unwrap_or_default()),
        };
        let one = |change: Change| match change.what {
            What::Leads { leader, skipped } => format!("{}{}", leader.term.unwrap_or_default(), gap(skipped)),
            What::Nobody { skipped, .. } => format!("nobody{}", gap(skipped)),
            What::Trouble(trouble) => trouble,
        };
        changes.into_iter().map(one).collect()
    }

    impl Changes {
        fn sees_at(&mut self, now: Time, sighting: Observation) -> Vec<String> {
            told(self.note(now, Some(&boundary()), Ok(vec![(boundary(), Ok(sighting))])))
        }

        fn sees(&mut self, sighting: Observation) -> Vec<String> {
            self.sees_at(NOW, sighting)
        }
    }

    const NOTHING: [&str; 0] = [];

    #[test]
    fn the_present_state_is_said_first_and_then_each_change_once() {
        let mut changes = Changes::default();
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
        let mut changes = Changes::default();
        changes.sees(led(5, None));
        let renamed = Leader { name: "other".to_owned(), ..leader(5) };
        let mut renewed = Leader { lease_left: Some(Duration::from_secs(1)), ..renamed.clone() };
        renewed.since = Some(1);
        assert_eq!(changes.sees(Observation { leader: Some(renamed), ..Observation::default() }), ["5"]);
        assert_eq!(changes.sees(Observation { leader: Some(renewed), ..Observation::default() }), NOTHING);
    }

    #[test]
    fn terms_that_nobody_saw_show_as_gaps() {
        let mut changes = Changes::default();
        changes.sees(led(5, None));
        assert_eq!(changes.sees(led(9, 7)), ["9 gap after 5"]);
        assert_eq!(changes.sees(unled(9)), ["nobody"]);
        assert_eq!(changes.sees(unled(11)), ["nobody gap after 9"], "one came and went between two looks");
        assert_eq!(changes.sees(unled(11)), NOTHING);
        assert_eq!(changes.sees(led(13, 11)), ["13"]);
        assert_eq!(changes.sees(unled(17)), ["nobody gap after 13"]);
        let mut changes = Changes::default();
        changes.sees(unled(None));
        assert_eq!(changes.sees(unled(3)), ["nobody gap after 0"]);
        assert_eq!(changes.sees(led(5, None)), ["5?"], "the store cannot tell");
    }

    #[test]
    fn a_term_that_is_over_does_not_come_back_for_a_moment() {
        let mut changes = Changes::default();
        changes.sees(led(5, None));
        changes.sees(unled(5));
        assert_eq!(changes.sees(led(5, None)), NOTHING, "the next one has the lock, and this is still the record");
        assert_eq!(changes.sees(led(9, 5)), ["9"]);
        assert_eq!(changes.sees(led(5, None)), NOTHING, "an old answer");
        assert_eq!(changes.sees(led(9, 5)), NOTHING);
    }

    #[test]
    fn what_stays_is_believed_in_the_end_however_odd() {
        let later = NOW + BELIEVED;
        let mut changes = Changes::default();
        changes.sees(led(5, None));
        changes.sees(unled(5));
        assert_eq!(changes.sees(led(5, None)), NOTHING);
        assert_eq!(changes.sees_at(later, led(5, None)), ["5?"]);
        assert_eq!(changes.sees_at(later, led(3, None)), NOTHING);
        let said = changes.sees_at(later + BELIEVED, led(3, None));
        assert!(said[0].contains("went back from 5 to 3"), "{said:?}");
        assert_eq!(said[1..], ["3?"]);
        assert_eq!(changes.sees_at(later + BELIEVED, led(4, 3)), ["4"]);
    }

    #[test]
    fn a_trouble_is_said_once_and_what_is_after_it() {
        let mut changes = Changes::default();
        let scope = boundary();
        changes.sees(led(5, None));
        assert_eq!(told(changes.note(NOW, Some(&scope), Err(down()))), ["down"]);
        assert_eq!(told(changes.note(NOW, Some(&scope), Err(down()))), NOTHING);
        assert_eq!(changes.sees(led(5, None)), ["5"], "still");
        assert_eq!(changes.sees(led(5, None)), NOTHING);
        assert_eq!(told(changes.note(NOW, Some(&scope), Err(down()))), ["down"]);
        assert_eq!(changes.sees(led(9, 7)), ["9 gap after 5"]);
    }

    #[test]
    fn one_boundary_that_cannot_be_read_hides_no_other_and_one_that_is_gone_has_no_leader() {
        let other: Boundary = "other".parse().expect("a name");
        let mut changes = Changes::default();
        let both = |first| Ok(vec![(boundary(), first), (other.clone(), Ok(led(7, None)))]);
        assert_eq!(told(changes.note(NOW, None, both(Err(down())))), ["down", "7?"]);
        assert_eq!(told(changes.note(NOW, None, both(Err(down())))), NOTHING);
        assert_eq!(told(changes.note(NOW, None, both(Ok(led(5, None))))), ["5?"]);
        assert_eq!(told(changes.note(NOW, None, Ok(Vec::new()))), ["nobody?", "nobody?"]);
        assert_eq!(told(changes.note(NOW, None, Err(down()))), ["down"]);
        assert_eq!(told(changes.note(NOW, None, Ok(Vec::new()))), NOTHING, "heard of no more");
    }

    #[test]
    fn whatever_is_seen_terms_rise_and_the_last_word_is_right() {
        let mut dice = fastrand::Rng::with_seed(5);
        for _ in 0..2_000 {
            let mut changes = Changes::default();
            let (mut term, mut former, mut leads) = (1, None, false);
            let (mut last_said, mut highest) = (String::new(), 0);
            for _ in 0..40 {
                match dice.u8(..4) {
                    0 if leads => (leads, former) = (false, Some(term)),
                    0 | 1 => {
                        former = if leads { Some(term) } else { former };
                        (term, leads) = (term + dice.u64(1..5), true);
                    }
                    2 => {
                        for what in told(changes.note(NOW, Some(&boundary()), Err(down()))) {
                            assert_eq!(what, "down");
                        }
                        continue;
                    }
                    _ => {}
                }
                for said in changes.sees(if leads { led(term, former) } else { unled(former) }) {
                    let number: Option<u64> = said.split([' ', '?']).next().and_then(|word| word.parse().ok());
                    if let Some(number) = number {
                        assert!(number >= highest, "{number} after {highest}");
                        highest = number;
                    }
                    last_said = said;
                }
                let right =
                    if leads { last_said.starts_with(&term.to_string()) } else { last_said.starts_with("nobody") };
                assert!(right, "{last_said} although {leads} {term}");
            }
        }
    }
}
