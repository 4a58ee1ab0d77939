//! The name that is campaigned for.

use std::fmt;
use std::str::FromStr;

/// A boundary: case-sensitive, conventionally a path (`billing/nightly`), 1 to 80 bytes without control characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Boundary(String);

/// The longest name, in bytes.
pub const LONGEST: usize = 80;

/// The boundary that `elect check` takes and gives back.
const OF_CHECK: &str = "elect-check";

/// Why a text is not a boundary's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BoundaryError {
    /// Nothing.
    #[error("a boundary needs a name of at least one character, like --boundary cron")]
    Empty,
    /// More than [`LONGEST`] bytes.
    #[error("a boundary's name has at most {LONGEST} bytes, and this one {0}: {1:.20}…")]
    TooLong(usize, String),
    /// A line break, an escape or the like.
    #[error("a boundary's name has no control characters, and {0:?} has")]
    ControlCharacter(String),
}

impl FromStr for Boundary {
    type Err = BoundaryError;

    fn from_str(name: &str) -> Result<Boundary, BoundaryError> {
        if name.is_empty() {
            return Err(BoundaryError::Empty);
        }
        if name.chars().any(char::is_control) {
            return Err(BoundaryError::ControlCharacter(name.to_owned()));
        }
        if name.len() > LONGEST {
            return Err(BoundaryError::TooLong(name.len(), name.to_owned()));
        }
        Ok(Boundary(name.to_owned()))
    }
}

impl Boundary {
    /// The boundary that `elect check` takes and gives back. No command runs on it, and no list shows it.
    #[must_use]
    pub fn of_check() -> Boundary {
        Boundary(OF_CHECK.to_owned())
    }

    /// Whether it is [`Boundary::of_check`].
    #[must_use]
    pub fn is_of_check(&self) -> bool {
        self.0 == OF_CHECK
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Boundary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proptest_support;

    #[test]
    fn a_name_is_one_to_eighty_bytes_of_anything_printable() {
        for name in ["a", "billing/nightly", "Zürich ☂", &"x".repeat(80)] {
            assert_eq!(name.parse::<Boundary>().expect(name).as_str(), name);
        }
        assert_eq!("".parse::<Boundary>(), Err(BoundaryError::Empty));
        assert!(matches!("x".repeat(81).parse::<Boundary>(), Err(BoundaryError::TooLong(81, _))));
        assert!(matches!("☂".repeat(27).parse::<Boundary>(), Err(BoundaryError::TooLong(81, _))));
        assert!(matches!("a\nb".parse::<Boundary>(), Err(BoundaryError::ControlCharacter(_))));
        assert!(matches!("a\u{7f}".parse::<Boundary>(), Err(BoundaryError::ControlCharacter(_))));
    }

    #[test]
    fn what_is_wrong_is_said_on_one_line() {
        for name in ["", "a\nb", &"y".repeat(500)] {
            let message = name.parse::<Boundary>().expect_err("not a name").to_string();
            assert_eq!(message.lines().count(), 1, "{message}");
            assert!(message.len() < 120, "{message}");
        }
    }

    #[test]
    fn any_text_is_a_name_or_is_told_why_not() {
        proptest_support::check(proptest_support::FAST, &(proptest_support::text(), 0..4_usize), |(text, times)| {
            let name = text.repeat(times);
            match name.parse::<Boundary>() {
                Ok(boundary) => assert_eq!(boundary.as_str(), name),
                Err(error) => assert_eq!(error.to_string().lines().count(), 1, "{error}"),
            }
        });
    }
}
