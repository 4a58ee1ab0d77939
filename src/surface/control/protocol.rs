//! What is said over the control socket: a line of JSON each way.

use serde::{Deserialize, Serialize};

use crate::election::Term;

/// A longer request is none.
pub const LONGEST: usize = 4096;

/// What a visitor wants of a candidate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "wish", rename_all = "lowercase")]
pub enum Wish {
    /// Who are you?
    Hello,
    /// Do you lead now, in this term if one is named? Answered by a renewal that was sent after the question.
    Assert {
        /// The term of the command that asks.
        term: Option<Term>,
    },
    /// Give the boundary back, and stand behind the others.
    Resign,
    /// From now on we are called this, and are to be found there. What is left out stays as it is.
    Proclaim {
        /// For people.
        name: Option<String>,
        /// What followers are told, as `HOST[:PORT]`.
        advertise: Option<String>,
    },
}

impl Wish {
    /// `None`: not one.
    pub fn from_line(line: &[u8]) -> Option<Wish> {
        let end = line.iter().position(|&byte| byte == b'\n').filter(|&end| end <= LONGEST)?;
        serde_json::from_slice(&line[..end]).ok()
    }

    /// With its line break.
    pub fn to_line(&self) -> String {
        let mut line = serde_json::to_string(self).expect("texts and numbers become JSON");
        line.push('\n');
        line
    }
}

/// Who answers, and what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// What is campaigned for.
    pub boundary: String,
    /// The candidate's.
    pub id: String,
    /// For people.
    pub name: String,
    /// The answer proper.
    #[serde(flatten)]
    pub verdict: Verdict,
}

impl Answer {
    /// `None`: not one.
    pub fn from_line(line: &[u8]) -> Option<Answer> {
        serde_json::from_slice(line).ok()
    }

    /// With its line break.
    pub fn to_line(&self) -> String {
        let mut line = serde_json::to_string(self).expect("texts and numbers become JSON");
        line.push('\n');
        line
    }
}

/// Whether a wish came true.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "lowercase")]
pub enum Verdict {
    /// It did.
    Yes {
        /// The term that is led in, while there is one.
        term: Option<Term>,
        /// What is left of the lease, in milliseconds; absent where leadership has no end, or there is none.
        lease_left_ms: Option<u64>,
    },
    /// The answer is no, and this is why.
    No {
        /// For people.
        why: String,
    },
    /// Not for you, or not understood.
    Refused {
        /// For people.
        why: String,
    },
}

impl Verdict {
    pub fn no(why: impl Into<String>) -> Verdict {
        Verdict::No { why: why.into() }
    }

    pub fn foreign() -> Verdict {
        Verdict::Refused { why: "this candidate belongs to another user".to_owned() }
    }

    pub fn misunderstood() -> Verdict {
        Verdict::Refused { why: "this candidate does not understand: is it another version of elect?".to_owned() }
    }

    pub fn ending() -> Verdict {
        Verdict::no("this candidate is ending")
    }
}
