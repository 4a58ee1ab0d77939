//! The warnings that were given: of each thing once, and of a few things only.

use std::collections::BTreeMap;
use std::time::Duration;

use elect_core::Time;

/// The most things that one look warns of.
const AT_ONCE: usize = 3;
/// The most things that are remembered: no others are warned of one by one.
const REMEMBERED_MAX: usize = 10;
/// A thing that has not been found for so long is news again.
const LIFETIME: Duration = Duration::from_secs(600);

/// Of one kind.
#[derive(Debug, Default)]
pub struct Notes {
    /// When each was found last.
    known: BTreeMap<String, Time>,
    /// When something was found last that is not remembered.
    omitted: Option<Time>,
}

impl Notes {
    /// The warnings that are due after a look that has found these things.
    pub fn news(&mut self, found: Vec<(String, String)>, now: Time) -> Vec<String> {
        self.known.retain(|_, last| now.since(*last) < LIFETIME);
        self.omitted = self.omitted.filter(|last| now.since(*last) < LIFETIME);
        let mut omitted = 0;
        let mut news = Vec::new();
        for (what, text) in found {
            if let Some(last) = self.known.get_mut(&what) {
                *last = now;
            } else if self.known.len() < REMEMBERED_MAX && news.len() < AT_ONCE {
                self.known.insert(what, now);
                news.push(text);
            } else {
                omitted += 1;
            }
        }
        if omitted > 0 && self.omitted.replace(now).is_none() {
            news.push(format!("and {omitted} more such keys, of which not all are named later"));
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(names: std::ops::Range<u32>) -> Vec<(String, String)> {
        names.map(|number| (format!("jobs/run-{number}/"), format!("of run {number}"))).collect()
    }

    #[test]
    fn each_thing_is_warned_of_once_and_a_few_of_many() {
        let (mut notes, start) = (Notes::default(), elect_keeper::clock::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(notes.news(found(0..2), at(0)), ["of run 0", "of run 1"]);
        assert!(notes.news(found(0..2), at(5)).is_empty());
        assert_eq!(notes.news(found(0..1), at(600)), [""; 0]);
        assert_eq!(notes.news(found(1..2), at(605)), ["of run 1"], "gone for so long that it is news");
        let all = (0..400).flat_map(|look| notes.news(found(look..look + 40), at(700 + 5 * u64::from(look))));
        let all: Vec<String> = all.collect();
        assert!(all.iter().filter(|text| text.starts_with("and ")).count() == 1, "{all:?}");
        assert!(all.len() < 80, "{}", all.len());
        assert!(notes.known.len() <= REMEMBERED_MAX);
    }
}
