//! Boundaries as text: one in full, or all of a store in a table, and where elect looked.

use std::time::Duration;

use super::table::{TableStyle, table};
use crate::cli::format::{leader_line, leading_for, rounded_duration, wrapped};
use crate::store::Observation;
use crate::store::url::StoreUrl;
use crate::text::escaped;
use elect_core::boundary::Boundary;

/// How many of those who wait are named.
const WAITERS_NAMED_MAX: usize = 5;
/// A boundary that has been free for longer is shown with `--all` alone.
const FREE_SHOWN_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Observations, as text for this stdout.
pub struct StatusText<'a> {
    pub url: StoreUrl<'a>,
    /// Whether one boundary was asked about.
    pub is_named: bool,
    /// Whether old boundaries are shown.
    pub all: bool,
    /// The wall clock, in milliseconds since 1970.
    pub now: u64,
    pub style: TableStyle,
}

impl StatusText<'_> {
    pub fn render(&self, seen: &[(Boundary, Observation)]) -> String {
        if self.is_named {
            return seen.iter().map(|(boundary, observation)| self.in_full(boundary, observation)).collect();
        }
        if seen.is_empty() {
            return self.lines(&format!("no boundaries in {}", self.place()));
        }
        let is_shown = |seen: &&(Boundary, Observation)| self.all || !self.is_old(&seen.1);
        let shown: Vec<_> = seen.iter().filter(is_shown).cloned().collect();
        let rows = if shown.is_empty() { String::new() } else { table(&shown, self.style) };
        let hidden = match seen.len() - shown.len() {
            0 => None,
            1 => Some("1 boundary has been free for over 24h: --all shows it".to_owned()),
            count => Some(format!("{count} boundaries have been free for over 24h: --all shows them")),
        };
        // A script that reads the rows looks where it says.
        let place = self.style.width.map(|_| format!("in {}", self.place()));
        let last: Vec<String> = place.into_iter().chain(hidden).collect();
        rows + &last.iter().map(|line| self.lines(line)).collect::<String>()
    }

    /// Whether nobody has led for so long that it is probably not used any more.
    fn is_old(&self, seen: &Observation) -> bool {
        let is_idle =
            seen.leader.is_none() && seen.obstacle.is_none() && seen.candidates.as_ref().is_none_or(Vec::is_empty);
        let free_for = seen.free_since.map(|since| Duration::from_millis(self.now.saturating_sub(since)));
        is_idle && free_for.is_some_and(|age| age > FREE_SHOWN_MAX)
    }

    /// The store, and who shares it.
    fn place(&self) -> String {
        let shown = self.url.to_string();
        let missing = if self.url.is_missing_directory() { ", which does not exist" } else { "" };
        format!("{} ({}){missing}", escaped(&shown), self.url.reach())
    }

    /// The most important line first; the others are what a person may want to know next.
    fn in_full(&self, boundary: &Boundary, observation: &Observation) -> String {
        let boundary = escaped(boundary.as_str());
        let mut text = match (&observation.leader, &observation.obstacle) {
            (Some(leader), _) => {
                let age = leading_for(leader).map_or_else(String::new, |age| format!(", for {age}"));
                self.lines(&format!("{boundary}: {}{age}", leader_line(leader)))
            }
            (None, Some(obstacle)) => self.lines(&format!("{boundary}: no leader; {}", escaped(obstacle))),
            (None, None) => self.lines(&format!("{boundary}: no leader")),
        };
        if let Some(leader) = &observation.leader {
            if let Some(left) = leader.lease_left {
                let of = leader.ttl.map_or_else(String::new, |ttl| format!(" of {}", rounded_duration(ttl)));
                text += &self.lines(&format!("  lease left {}{of}", rounded_duration(left)));
            }
            text += &self.lines(&format!("  id {}", escaped(&leader.id)));
        }
        if let Some(waiting) = observation.candidates.as_ref().filter(|waiting| !waiting.is_empty()) {
            let names: Vec<_> = waiting.iter().take(WAITERS_NAMED_MAX).map(|(_, name)| escaped(name)).collect();
            let more = match waiting.len() {
                count if count > WAITERS_NAMED_MAX => format!(" and {} more", count - WAITERS_NAMED_MAX),
                _ => String::new(),
            };
            text += &self.lines(&format!("  waiting: {}{more}", names.join(", ")));
        }
        let free = observation.free_since.filter(|_| observation.leader.is_none() && observation.obstacle.is_none());
        if let Some(since) = free {
            let age = rounded_duration(Duration::from_millis(self.now.saturating_sub(since)));
            text += &self.lines(&format!("  free for {age}"));
        }
        if observation.is_unled() {
            text += "  no earlier leader is known\n";
        }
        text + &self.lines(&format!("  in {}", self.place()))
    }

    /// One line, or more on a terminal that is not wide enough.
    fn lines(&self, line: &str) -> String {
        match self.style.width {
            Some(width) => wrapped(line, width),
            None => format!("{line}\n"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 60 * 60 * 1000;

    fn text(is_named: bool, all: bool, width: Option<usize>) -> StatusText<'static> {
        let url = StoreUrl::parse("file:/no/such/directory").expect("a store");
        StatusText { url, is_named, all, now: 10 * DAY, style: TableStyle { width, bold: false } }
    }

    fn free(name: &str, since: Option<u64>) -> (Boundary, Observation) {
        let observation = Observation { previous_term: Some(7), free_since: since, ..Observation::default() };
        (name.parse().expect("a name"), observation)
    }

    #[test]
    fn a_boundary_without_a_leader_says_where_elect_looked() {
        let unknown = ("cron".parse().expect("a name"), Observation::default());
        let said = text(true, false, None).render(&[unknown]);
        assert_eq!(
            said,
            "cron: no leader\n  no earlier leader is known\n  in file:/no/such/directory (this host only), which does not \
             exist\n"
        );
        let said = text(true, false, None).render(&[free("cron", Some(10 * DAY - 61_000))]);
        assert!(said.contains("\n  free for 1m 1s\n") && !said.contains("earlier"), "{said}");
    }

    #[test]
    fn boundaries_that_were_left_long_ago_are_counted_alone() {
        let seen = [free("a", Some(9 * DAY)), free("b", Some(9 * DAY - 1)), free("c", None), free("d", Some(0))];
        let said = text(false, false, None).render(&seen);
        let expected = "BOUNDARY  LEADER  ADDRESS  TERM  FOR  LEASE  WAITING\n\
            a         -       -        -     -    -      -\n\
            c         -       -        -     -    -      -\n\
            2 boundaries have been free for over 24h: --all shows them\n";
        assert_eq!(said, expected);
        assert_eq!(text(false, true, None).render(&seen).lines().count(), 5);
        let said = text(false, false, None).render(&seen[3..]);
        assert_eq!(said, "1 boundary has been free for over 24h: --all shows it\n");
        let waited_for = Observation { candidates: Some(vec![("i".into(), "n".into())]), ..seen[3].1.clone() };
        let said = text(false, false, None).render(&[(seen[3].0.clone(), waited_for)]);
        assert!(said.contains("\nd  ") && !said.contains("--all"), "candidates wait: {said}");
        assert!(text(true, false, None).render(&seen[3..]).starts_with("d: no leader\n"), "it was named");
    }

    #[test]
    fn on_a_terminal_no_line_is_wider_and_no_word_is_broken() {
        let unknown = ("cron".parse().expect("a name"), Observation::default());
        for width in [40, 60, 80] {
            let said = text(true, false, Some(width)).render(std::slice::from_ref(&unknown));
            assert!(said.lines().all(|line| line.chars().count() <= width), "{said}");
            assert!(said.contains("file:/no/such/directory"), "{said}");
        }
        let said = text(false, false, Some(80)).render(&[free("a", Some(9 * DAY))]);
        assert_eq!(said.lines().last(), Some("in file:/no/such/directory (this host only), which does not exist"));
    }
}
