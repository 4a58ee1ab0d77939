//! One finding of `elect check`: a name, a result, and the way out where there is one.

use elect_core::limits::{TEXT_BYTES_MAX, cut};

/// The result for one thing that was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FindingResult {
    /// Nothing has to be done.
    Ok,
    /// It works, and less well than it could.
    Warn,
    /// It does not work.
    Fail,
}

/// One thing that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The same in each run, for programs that look for it.
    pub name: &'static str,
    pub result: FindingResult,
    pub detail: String,
    /// `None`: there is nothing to do, or the detail says it.
    pub advice: Option<String>,
}

impl Finding {
    /// Nothing has to be done.
    pub fn ok(name: &'static str, detail: impl Into<String>) -> Finding {
        Finding { name, result: FindingResult::Ok, detail: detail.into(), advice: None }
    }

    /// It works, and less well than it could.
    pub fn warn(name: &'static str, detail: impl Into<String>, advice: impl Into<String>) -> Finding {
        Finding { name, result: FindingResult::Warn, detail: detail.into(), advice: Some(advice.into()) }
    }

    /// It does not work.
    pub fn fail(name: &'static str, detail: impl Into<String>, advice: impl Into<String>) -> Finding {
        Finding { name, result: FindingResult::Fail, detail: detail.into(), advice: Some(advice.into()) }
    }

    /// It does not work, by an error whose words may end with the way out; otherwise the advice is `otherwise`.
    pub fn of_error(name: &'static str, error: &str, otherwise: &str) -> Finding {
        let (detail, advice) = split_advice(error).unwrap_or((error, otherwise));
        Finding::fail(name, detail, advice)
    }

    /// The same with its texts cut to their limit.
    #[must_use]
    pub fn bounded(self) -> Finding {
        let short = |text| cut(text, TEXT_BYTES_MAX);
        Finding { detail: short(self.detail), advice: self.advice.map(short), ..self }
    }
}

/// The first words of a way out, in the messages of this program.
const ADVICE_WORDS: [&str; 18] = [
    "add", "allow", "ask", "attach", "check", "choose", "delete", "give", "grant", "if", "leave", "make", "name",
    "raise", "set", "start", "use", "write",
];

/// A message as the error and the way out, if a part of it begins like one.
fn split_advice(message: &str) -> Option<(&str, &str)> {
    let parts = message.match_indices([':', ';']).filter_map(|(at, mark)| {
        let advice = message[at + mark.len()..].strip_prefix(' ')?;
        let first = advice.split(' ').next()?;
        ADVICE_WORDS.contains(&first).then_some((&message[..at], advice))
    });
    parts.into_iter().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_out_of_an_error_becomes_the_advice() {
        for (error, detail, advice) in [
            (
                "h:1 cannot be reached: Connection refused: no server listens there: check host and port of --store, and that it runs",
                "h:1 cannot be reached: Connection refused: no server listens there",
                "check host and port of --store, and that it runs",
            ),
            (
                "it ended: if it serves with TLS, write rediss://; otherwise check it",
                "it ended",
                "if it serves with TLS, write rediss://; otherwise check it",
            ),
            (
                "permission denied: this user has no rights: checked",
                "permission denied: this user has no rights: checked",
                "ask",
            ),
        ] {
            let finding = Finding::of_error("store", error, "ask");
            assert_eq!((finding.detail.as_str(), finding.advice.as_deref()), (detail, Some(advice)));
        }
    }
}
