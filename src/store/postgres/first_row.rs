//! The first row of the table, which tells since when the server has forgotten nothing (DESIGN.md 5.6, S2).
//!
//! It is written with the table, and its key is no boundary's name. A server that was promoted, or has forgotten the table, is in
//! another life than the one in that row, or has another row. The table itself may be younger than a lease, so that the row counts
//! only once this candidate has seen it for as long as any lease that it knows of.

use std::time::Duration;

use super::stored_record::RowSnapshot;
use elect_core::Time;

/// The observations of the first row.
#[derive(Debug, Default)]
pub struct FirstRowObserver {
    seen: Option<FirstRow>,
}

#[derive(Debug)]
struct FirstRow {
    mark: String,
    incarnation: String,
    since: Time,
}

impl FirstRowObserver {
    /// Takes in a look whose answer had arrived by then (T1).
    pub fn note(&mut self, received: Time, snapshot: &RowSnapshot) {
        let Some((mark, incarnation)) = &snapshot.first else {
            self.seen = None;
            return;
        };
        if incarnation.is_empty() || *incarnation != snapshot.incarnation {
            self.seen = None;
        } else if snapshot.stored.is_some()
            || self.seen.as_ref().is_none_or(|seen| seen.mark != *mark || seen.incarnation != *incarnation)
        {
            // A record that vanishes later may be a leader's (S2).
            self.seen = Some(FirstRow { mark: mark.clone(), incarnation: incarnation.clone(), since: received });
        }
    }

    /// The mark of the row, if it has stood unchanged in the present life of the server for so long.
    pub fn lasting(&self, now: Time, wait: Duration) -> Option<&str> {
        let seen = self.seen.as_ref()?;
        (now.since(seen.since) >= wait).then_some(seen.mark.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(10);

    fn snapshot(first: Option<(&str, &str)>) -> RowSnapshot {
        let first = first.map(|(mark, incarnation)| (mark.to_owned(), incarnation.to_owned()));
        RowSnapshot { incarnation: "7/1".to_owned(), now: 0, first, stored: None }
    }

    #[test]
    fn a_record_of_the_boundary_begins_the_wait_again() {
        let at = |seconds| Time::BOOT + Duration::from_secs(seconds);
        let same = || snapshot(Some(("a", "7/1")));
        let obstacle = crate::store::StoreError::Obstacle("not elect's".to_owned());
        let mut observer = FirstRowObserver::default();
        observer.note(at(0), &same());
        observer.note(at(5), &RowSnapshot { stored: Some(Err(obstacle)), ..same() });
        observer.note(at(14), &same());
        assert_eq!(observer.lasting(at(14), TTL), None);
        assert_eq!(observer.lasting(at(15), TTL), Some("a"));
    }

    #[test]
    fn the_row_counts_once_it_has_stood_unchanged_in_the_present_life_for_the_ttl() {
        let at = |seconds| Time::BOOT + Duration::from_secs(seconds);
        let same = Some(("a", "7/1"));
        for (looks, lasts) in [
            (vec![(0, same)], false),
            (vec![(0, same), (9, same)], false),
            (vec![(0, same), (10, same)], true),
            (vec![(0, same), (5, None), (10, same)], false),
            (vec![(0, same), (5, Some(("b", "7/1"))), (10, Some(("b", "7/1")))], false),
            (vec![(0, Some(("a", "7/0"))), (10, Some(("a", "7/0")))], false),
            (vec![(0, same), (5, Some(("a", "7/0"))), (10, same)], false),
            (vec![(0, None), (10, None)], false),
        ] {
            let mut observer = FirstRowObserver::default();
            let mut last = at(0);
            for (seconds, first) in &looks {
                last = at(*seconds);
                observer.note(last, &snapshot(*first));
            }
            assert_eq!(observer.lasting(last, TTL).is_some(), lasts, "{looks:?}");
        }
    }
}
