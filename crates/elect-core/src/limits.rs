//! Limits of everything that comes from outside: from a store, a file, the environment, another process (DESIGN.md 2.5,
//! S1, S6).
//!
//! Each reader applies them where it reads, before anything is stored or passed on. All sizes are bytes.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::Term;
use crate::boundary::Boundary;

/// Longest name or host of a candidate. A longer one in a record is cut, a longer flag is a usage error.
pub const NAME_BYTES_MAX: usize = 256;
/// Longest id of a candidate. A record with a longer one is an obstacle.
pub const ID_BYTES_MAX: usize = 64;
/// Largest record. A larger one is an obstacle.
pub const RECORD_BYTES_MAX: usize = 16 * 1024;
/// Longest text of a store, a server or another process in a message.
pub const MESSAGE_BYTES_MAX: usize = 1024;
/// Longest error or obstacle as a whole: a text from outside, with elect's own words around it.
pub const TEXT_BYTES_MAX: usize = 2 * MESSAGE_BYTES_MAX;
/// Longest id of a candidate of another program, which elect only shows and compares.
pub const FOREIGN_ID_BYTES_MAX: usize = 512;
/// Most candidates of one boundary that are kept and shown.
pub const CANDIDATES_MAX: usize = 1_000;
/// Most boundaries that a survey of a store keeps and shows: the first ones in the order of their names.
pub const BOUNDARIES_MAX: usize = 10_000;
/// Longest line of the log in text form, and of an error on stderr: a pipe takes so much in one piece.
pub const LINE_BYTES_MAX: usize = 4096;
/// Longest value of `--store`, with the user and the password that may be in it.
pub const STORE_URL_BYTES_MAX: usize = 8 * 1024;
/// Longest `--username`, and longest password.
pub const CREDENTIAL_BYTES_MAX: usize = 4 * 1024;
/// Largest file with certificates or a key.
pub const PEM_BYTES_MAX: usize = 1024 * 1024;
/// Longest `ELECT_INSIDE`: about a hundred commands, one inside another.
pub const INSIDE_BYTES_MAX: usize = 8 * 1024;
/// Longest ttl. A flag that asks for more is a usage error; a record that says more counts as this.
pub const TTL_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Largest term that is accepted: every term up to here, and the next 2^40, are exact in a double.
pub const TERM_MAX: Term = (1 << 53) - (1 << 40);

/// The text cut to at most so many bytes, at the boundary of a character.
#[must_use]
pub fn cut(mut text: String, bytes_max: usize) -> String {
    if text.len() > bytes_max {
        text.truncate(char_boundary(&text, bytes_max));
        text.shrink_to_fit();
    }
    text
}

/// The text cut to at most so many bytes, with an ellipsis where something is missing.
#[must_use]
pub fn cut_visibly(text: &str, bytes_max: usize) -> std::borrow::Cow<'_, str> {
    const ELLIPSIS: &str = "…";
    if text.len() <= bytes_max {
        return text.into();
    }
    let kept = char_boundary(text, bytes_max.saturating_sub(ELLIPSIS.len()));
    [&text[..kept], ELLIPSIS].concat().into()
}

/// The last boundary of a character at or before an index (`str::floor_char_boundary` needs Rust 1.91).
fn char_boundary(text: &str, index: usize) -> usize {
    (0..=index.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
}

/// A name or a host from a record, cut to [`NAME_BYTES_MAX`].
#[must_use]
pub fn cut_name(name: String) -> String {
    cut(name, NAME_BYTES_MAX)
}

/// Adds a boundary to those that a survey has found, of which it keeps the first [`BOUNDARIES_MAX`] in the order of
/// their names.
pub fn insert_boundary(found: &mut BTreeSet<Boundary>, boundary: Boundary) {
    found.insert(boundary);
    if found.len() > BOUNDARIES_MAX {
        found.pop_last();
    }
}

/// A ttl from a record, in milliseconds, limited to the largest that is accepted.
#[must_use]
pub fn believed_ttl(millis: u64) -> Duration {
    Duration::from_millis(millis).min(TTL_MAX)
}

/// Whether a term from a store is accepted. A record with any other term is an obstacle.
#[must_use]
pub fn is_believed_term(term: Term) -> bool {
    term <= TERM_MAX
}

/// The term that follows: above the last one of this boundary, above every term seen anywhere, and no less than the
/// wall clock in milliseconds since 1970, so that the terms of all stores are in one number space (S1).
///
/// `None`: no accepted term is large enough.
#[must_use]
pub fn next_term(last: Term, wall_clock_millis: u64, highest_seen: Term) -> Option<Term> {
    let floor = last.max(highest_seen).checked_add(1)?;
    Some(floor.max(wall_clock_millis)).filter(|&term| is_believed_term(term))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_at_the_boundary_of_a_character() {
        assert_eq!(cut("abc".to_owned(), 3), "abc");
        assert_eq!(cut("abcd".to_owned(), 3), "abc");
        assert_eq!(cut("aß".to_owned(), 2), "a");
        assert_eq!(cut_name("é".repeat(70_000)).len(), NAME_BYTES_MAX);
    }

    #[test]
    fn a_line_that_is_cut_says_so_and_is_no_longer_than_it_may_be() {
        assert_eq!(cut_visibly("abcdef", 6), "abcdef");
        assert_eq!(cut_visibly("abcdefg", 6), "abc…");
        assert_eq!(cut_visibly("ßßßß", 6), "ß…");
    }

    #[test]
    fn a_survey_keeps_the_first_boundaries_whatever_the_order_in_which_they_are_found() {
        let name = |number: usize| format!("b{number:06}").parse::<Boundary>().expect("a name");
        for is_reversed in [false, true] {
            let mut found = BTreeSet::new();
            let count = BOUNDARIES_MAX + 10;
            for number in 0..count {
                insert_boundary(&mut found, name(if is_reversed { count - 1 - number } else { number }));
                assert!(found.len() <= BOUNDARIES_MAX);
            }
            assert_eq!((found.first(), found.last()), (Some(&name(0)), Some(&name(BOUNDARIES_MAX - 1))));
        }
    }

    #[test]
    fn a_forged_ttl_counts_as_a_day() {
        assert_eq!(believed_ttl(10_000), Duration::from_secs(10));
        assert_eq!(believed_ttl(1 << 63), TTL_MAX);
    }

    #[test]
    fn the_next_term_is_above_everything_and_never_beyond_belief() {
        assert_eq!(next_term(5, 100, 7), Some(100));
        assert_eq!(next_term(500, 100, 7), Some(501));
        assert_eq!(next_term(5, 100, 700), Some(701));
        assert_eq!(next_term(TERM_MAX, 100, 0), None);
        assert_eq!(next_term(u64::MAX, 100, 0), None);
        assert_eq!(next_term(0, u64::MAX, 0), None);
    }
}
