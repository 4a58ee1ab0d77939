//! The one place where text from outside elect is made safe to show (DESIGN.md 2.5).
//!
//! Names and hosts from records, answers of servers, names of processes and paths may hold anything. Shown as they are,
//! they could end a line, forge the next one or steer the terminal.

use std::borrow::Cow;
use std::fmt::Write as _;

/// The text with each character escaped that could end a line, steer a terminal or change the order in which text is
/// shown: controls (C0, DEL, C1), line and paragraph separators, and the marks that change the direction of text. All
/// other text stays.
#[must_use]
pub fn escaped(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_unsafe(c) {
            // Writing to a string cannot fail.
            let _ = write!(safe, "{}", c.escape_default());
        } else {
            safe.push(c);
        }
    }
    Cow::Owned(safe)
}

/// The text without the passwords of URLs in it, which may have been written where no URL belongs.
#[must_use]
pub fn without_passwords(text: &str) -> Cow<'_, str> {
    let mut safe = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        let end = after.find(|c: char| c.is_whitespace() || "'\"`".contains(c)).unwrap_or(after.len());
        let url = &after[..end];
        let password = url.rfind('@').and_then(|host| url[..host].find(':').map(|colon| (colon + 1, host)));
        let (from, to) = password.unwrap_or((0, 0));
        safe.push_str(before);
        safe.push_str("://");
        safe.push_str(&url[..from]);
        safe.push_str(if from < to { "…" } else { "" });
        rest = &after[to..];
    }
    if safe.is_empty() {
        return Cow::Borrowed(text);
    }
    safe.push_str(rest);
    Cow::Owned(safe)
}

/// Whether a character does more than show itself.
#[must_use]
pub fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{feff}')
        || ('\u{202a}'..='\u{202e}').contains(&c)
        || ('\u{2066}'..='\u{2069}').contains(&c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_in_urls_are_left_out() {
        for (text, safe) in [
            ("no URL: a@b:c", "no URL: a@b:c"),
            ("unrecognized 'two://:hidden@db/1'", "unrecognized 'two://:…@db/1'"),
            ("a one://u:hid@den@db b three://u:hidden@h", "a one://u:…@db b three://u:…@h"),
            ("two://db:6379 and a@b", "two://db:6379 and a@b"),
            ("two://u@db:6379", "two://u@db:6379"),
            ("two://", "two://"),
        ] {
            assert_eq!(without_passwords(text), safe);
        }
    }

    #[test]
    fn controls_are_escaped_and_everything_else_stays() {
        assert_eq!(escaped("web-1 Zürich 東京"), "web-1 Zürich 東京");
        assert_eq!(escaped("a\r\nb"), "a\\r\\nb");
        assert_eq!(escaped("\u{1b}[2J\u{9b}\u{7f}"), "\\u{1b}[2J\\u{9b}\\u{7f}");
        assert_eq!(escaped("x\u{202e}y\u{2028}z"), "x\\u{202e}y\\u{2028}z");
        let directions =
            ('\u{202a}'..='\u{202e}').chain('\u{2066}'..='\u{2069}').chain(['\u{200e}', '\u{200f}', '\u{61c}']);
        for mark in directions {
            assert_eq!(
                escaped(&format!("a{mark}b")),
                format!("a{}b", mark.escape_default()),
                "the order of text is kept"
            );
        }
    }
}
