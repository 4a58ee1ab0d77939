//! Leaders and times as text.

use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use crate::host_port::joined;
use crate::store::Leader;
use crate::text::escaped;
use elect_keeper::clock;

/// `web-1 leads at 10.0.0.5:8080, term 42`
pub fn leader_line(leader: &Leader) -> String {
    let mut words = format!("{} leads", escaped(&leader.name));
    if let Some(address) = address(leader) {
        let _ = write!(words, " at {address}");
    }
    if let Some(term) = leader.term {
        let _ = write!(words, ", term {term}");
    }
    words
}

/// Where followers are told to connect, as far as that says more than the name.
pub fn address(leader: &Leader) -> Option<String> {
    let host = leader.host.as_deref().unwrap_or_default();
    let shown = escaped(host);
    joined(&shown, leader.port).or_else(|| (host != leader.name && !host.is_empty()).then(|| shown.into_owned()))
}

/// How long it has led.
pub fn leading_for(leader: &Leader) -> Option<String> {
    let since = leader.since?;
    Some(rounded_duration(Duration::from_millis(clock::wall_millis().saturating_sub(since))))
}

/// In whole seconds, and of its units the two that matter most: `2days 3h`.
pub fn rounded_duration(duration: Duration) -> String {
    let whole = humantime::format_duration(Duration::from_secs(duration.as_secs())).to_string();
    whole.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// The line broken between words where it is longer, further lines indented more. A word that is longer stays whole.
pub fn wrapped(line: &str, width: usize) -> String {
    let text = line.trim_start_matches(' ');
    let indent = line.len() - text.len();
    let (mut lines, mut length) = (" ".repeat(indent), indent);
    for (index, word) in text.split(' ').enumerate() {
        let word_length = word.chars().count();
        if index > 0 && length + 1 + word_length > width {
            lines.push('\n');
            lines.push_str(&" ".repeat(indent + 4));
            length = indent + 4;
        } else if index > 0 {
            lines.push(' ');
            length += 1;
        }
        lines.push_str(word);
        length += word_length;
    }
    lines + "\n"
}

/// A time on the wall clock, in universal time: the time of day on a terminal, full RFC 3339 otherwise.
pub fn timestamp(millis: u64, is_terminal: bool) -> String {
    let at = UNIX_EPOCH + Duration::from_millis(millis);
    if is_terminal {
        let full = humantime::format_rfc3339_seconds(at).to_string();
        full.split_once('T').map_or(full.clone(), |(_, time)| time.to_owned())
    } else {
        humantime::format_rfc3339_millis(at).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_told_in_two_units() {
        for (seconds, told) in [(0, "0s"), (59, "59s"), (61, "1m 1s"), (90_061, "1day 1h"), (3600, "1h")] {
            assert_eq!(rounded_duration(Duration::from_secs(seconds) + Duration::from_millis(999)), told);
        }
    }

    #[test]
    fn a_line_is_broken_between_words() {
        assert_eq!(wrapped("  one two three", 9), "  one two\n      three\n");
        assert_eq!(wrapped("one two", 7), "one two\n");
        assert_eq!(wrapped("a-word-that-is-too-long x", 5), "a-word-that-is-too-long\n    x\n");
    }

    #[test]
    fn a_time_is_told_in_full_but_to_who_sits_before_it() {
        assert_eq!(timestamp(1_795_194_000_123, true), "17:00:00Z");
        assert_eq!(timestamp(1_795_194_000_123, false), "2026-11-20T17:00:00.123Z");
    }
}
