//! The name that is campaigned for.

use std::fmt;
use std::str::FromStr;

/// A boundary: case-sensitive, conventionally a path (`billing/nightly`), 1 to 80 bytes without control characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Boundary(String);

/// The longest name of elect's own elections, in bytes.
pub const LONGEST: usize = 80;
/// The longest name of an election in another program's layout, in bytes.
pub const LONGEST_SHARED: usize = 255;

/// The boundary that `elect check` takes and gives back.
const OF_CHECK: &str = "elect-check";

/// Why a text is not a boundary's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BoundaryError {
    /// Nothing.
    #[error("a boundary needs a name of at least one character, like --boundary cron")]
    Empty,
    /// More bytes than the limit.
    #[error("a boundary's name has at most {most} bytes, and this one {found}: {name:.20}…")]
    TooLong {
        /// The limit.
        most: usize,
        /// The size of this one.
        found: usize,
        /// The name.
        name: String,
    },
    /// A line break, an escape or the like.
    #[error("a boundary's name has no control characters, and {0:?} has")]
    ControlCharacter(String),
    /// A path that the programs with that layout write in another way.
    #[error(
        "with {option} a boundary is a path without empty parts, dots and outer slashes, as a/b, and {name:?} is none: write it so"
    )]
    NotClean {
        /// The option of the store that asks for it.
        option: &'static str,
        /// The name.
        name: String,
    },
    /// A name under which the store keeps something else.
    #[error("with {option} a boundary must not be {name:?}: elect keeps its last terms there")]
    Reserved {
        /// The option of the store that the name would be read with.
        option: &'static str,
        /// The name.
        name: String,
    },
}

impl FromStr for Boundary {
    type Err = BoundaryError;

    fn from_str(name: &str) -> Result<Boundary, BoundaryError> {
        Boundary::within(name, LONGEST)
    }
}

impl Boundary {
    /// The boundary of this name in an election that other programs take part in.
    ///
    /// # Errors
    ///
    /// [`BoundaryError`]: it is none.
    pub fn shared(name: &str) -> Result<Boundary, BoundaryError> {
        Boundary::within(name, LONGEST_SHARED)
    }

    fn within(name: &str, most: usize) -> Result<Boundary, BoundaryError> {
        if name.is_empty() {
            return Err(BoundaryError::Empty);
        }
        if name.chars().any(char::is_control) {
            return Err(BoundaryError::ControlCharacter(name.to_owned()));
        }
        if name.len() > most {
            return Err(BoundaryError::TooLong { most, found: name.len(), name: name.to_owned() });
        }
        Ok(Boundary(name.to_owned()))
    }

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
        assert!(matches!("x".repeat(81).parse::<Boundary>(), Err(BoundaryError::TooLong { found: 81, .. })));
        assert!(matches!("☂".repeat(27).parse::<Boundary>(), Err(BoundaryError::TooLong { found: 81, .. })));
        assert!(Boundary::shared(&"x".repeat(255)).is_ok());
        assert!(matches!(Boundary::shared(&"x".repeat(256)), Err(BoundaryError::TooLong { most: 255, .. })));
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
