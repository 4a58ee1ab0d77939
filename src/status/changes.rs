//! The last changes of leadership that this candidate has seen, for the pages.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;

use crate::host_port::joined;
use crate::store::Leader;
use elect_core::{Term, Time};

/// Changes that are kept.
const CHANGES_MAX: usize = 50;

/// The changes, the oldest first.
#[derive(Debug, Clone, Default)]
pub(super) struct Changes(VecDeque<PastChange>);

/// From here this one leads, or no candidate does.
#[derive(Debug, Clone)]
struct PastChange {
    at: Time,
    /// Milliseconds since 1970, for display.
    wall: u64,
    leader: Option<Leader>,
}

/// A change, as a part of the status document.
#[derive(Debug, Serialize)]
pub struct ChangeEntry<'a> {
    at: String,
    /// By the clock that no one sets: a reader needs no clock of its own.
    age_ms: u64,
    event: &'static str,
    leader: Option<ChangedLeader<'a>>,
}

#[derive(Debug, Serialize)]
struct ChangedLeader<'a> {
    id: &'a str,
    name: &'a str,
    host: Option<&'a str>,
    port: Option<u16>,
    address: Option<String>,
    term: Option<Term>,
}

impl Changes {
    /// Notes who leads now, if that is new. `wall` in milliseconds since 1970.
    pub(super) fn note(&mut self, now: Time, wall: u64, leader: Option<&Leader>) {
        match (self.0.back_mut(), leader) {
            (Some(PastChange { leader: None, .. }), None) => return,
            (Some(PastChange { leader: Some(known), .. }), Some(leader)) if is_same(known, leader) => {
                known.term = leader.term.or(known.term);
                return;
            }
            (Some(_) | None, _) => {}
        }
        if self.0.len() == CHANGES_MAX {
            self.0.pop_front();
        }
        self.0.push_back(PastChange { at: now, wall, leader: leader.cloned() });
    }

    /// For the document.
    pub(super) fn entries(&self, now: Time) -> Vec<ChangeEntry<'_>> {
        self.0.iter().map(|change| change.entry(now)).collect()
    }
}

/// Whether this is the same leadership under the same name, perhaps with a term that was not known before.
fn is_same(known: &Leader, leader: &Leader) -> bool {
    let is_same_term = known.term == leader.term || known.term.is_none() || leader.term.is_none();
    let address = |leader: &Leader| (leader.host.clone(), leader.port);
    is_same_term && (&known.id, &known.name) == (&leader.id, &leader.name) && address(known) == address(leader)
}

impl PastChange {
    fn entry(&self, now: Time) -> ChangeEntry<'_> {
        let mut at = String::new();
        // Writing to a string fails for a time outside the calendar alone, which no clock shows.
        let _ = write!(at, "{}", humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(self.wall)));
        let leader = self.leader.as_ref().map(|leader| ChangedLeader {
            id: &leader.id,
            name: &leader.name,
            host: leader.host.as_deref(),
            port: leader.port,
            address: leader.host.as_deref().and_then(|host| joined(host, leader.port)),
            term: leader.term,
        });
        let age_ms = u64::try_from(now.since(self.at).as_millis()).unwrap_or(u64::MAX);
        ChangeEntry { at, age_ms, event: if leader.is_some() { "leader" } else { "none" }, leader }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::snapshot::tests::{NOW, SECOND, observed};

    fn leader(id: &str, term: Option<Term>) -> Leader {
        Leader { id: id.to_owned(), term, ..observed("web-1").leader.expect("one") }
    }

    fn shown(changes: &Changes) -> Vec<(String, Option<Term>)> {
        let of = |entry: &ChangeEntry<'_>| {
            let term = entry.leader.as_ref().and_then(|leader| leader.term);
            (entry.leader.as_ref().map_or("none", |leader| leader.id).to_owned(), term)
        };
        changes.entries(NOW).iter().map(of).collect()
    }

    #[test]
    fn a_change_is_kept_once_with_its_age() {
        let mut changes = Changes::default();
        changes.note(NOW, 1_795_885_205_123, None);
        changes.note(NOW, 1_795_885_205_123, None);
        for term in [None, Some(4), None, Some(4)] {
            changes.note(NOW + SECOND, 0, Some(&leader("a", term)));
        }
        changes.note(NOW + SECOND, 0, Some(&leader("a", Some(5))));
        assert_eq!(shown(&changes), [("none".to_owned(), None), ("a".to_owned(), Some(4)), ("a".to_owned(), Some(5))]);
        let first = serde_json::to_value(&changes.entries(NOW + 3 * SECOND)[0]).expect("JSON");
        let expected =
            serde_json::json!({"at": "2026-11-28T17:00:05.123Z", "age_ms": 3000, "event": "none", "leader": null});
        assert_eq!(first, expected);
        // Another name or address of the same leadership is a change as well.
        changes.note(NOW, 0, Some(&Leader { name: "web-2".into(), ..leader("a", Some(5)) }));
        assert_eq!(shown(&changes).len(), 4);
    }

    #[test]
    fn the_oldest_change_makes_room() {
        let mut changes = Changes::default();
        for term in 0..60 {
            changes.note(NOW, 0, Some(&leader("a", Some(term))));
        }
        let shown = shown(&changes);
        assert_eq!((shown.len(), shown[0].1), (CHANGES_MAX, Some(10)));
    }
}
