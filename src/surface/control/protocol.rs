//! What is said over the control socket: a line of JSON each way.

use serde::{Deserialize, Serialize};

use crate::election::Term;

/// A longer request is none.
pub const LONGEST: usize = 4096;

/// What a visitor wants of a candidate.
#[derive(Debug, Clone, PartialEq, Eq)]
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

/// Who answers, and what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What is campaigned for.
    pub boundary: String,
    /// The candidate's.
    pub id: String,
    /// For people.
    pub name: String,
    /// The answer proper.
    pub verdict: Verdict,
}

/// Whether a wish came true.
#[derive(Debug, Clone, PartialEq, Eq)]
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

/// A request as it is written. Flat: what serde makes of enums with tags is more than the rest of the program's JSON.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Request {
    wish: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    term: Option<Term>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    advertise: Option<String>,
}

/// An answer as it is written.
#[derive(Debug, Serialize, Deserialize)]
struct Reply {
    boundary: String,
    id: String,
    name: String,
    answer: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    term: Option<Term>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lease_left_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

impl Wish {
    /// `None`: not one.
    pub fn from_line(line: &[u8]) -> Option<Wish> {
        let end = line.iter().position(|&byte| byte == b'\n').filter(|&end| end <= LONGEST)?;
        let Request { wish, term, name, advertise } = serde_json::from_slice(&line[..end]).ok()?;
        match wish.as_str() {
            "hello" => Some(Wish::Hello),
            "assert" => Some(Wish::Assert { term }),
            "resign" => Some(Wish::Resign),
            "proclaim" => Some(Wish::Proclaim { name, advertise }),
            _ => None,
        }
    }

    /// With its line break.
    pub fn to_line(&self) -> String {
        let wish = |wish: &str| Request { wish: wish.to_owned(), ..Request::default() };
        line(&match self {
            Wish::Hello => wish("hello"),
            Wish::Assert { term } => Request { term: *term, ..wish("assert") },
            Wish::Resign => wish("resign"),
            Wish::Proclaim { name, advertise } => {
                Request { name: name.clone(), advertise: advertise.clone(), ..wish("proclaim") }
            }
        })
    }
}

impl Answer {
    /// `None`: not one.
    pub fn from_line(line: &[u8]) -> Option<Answer> {
        let Reply { boundary, id, name, answer, term, lease_left_ms, why } = serde_json::from_slice(line).ok()?;
        let verdict = match (answer.as_str(), why) {
            ("yes", _) => Verdict::Yes { term, lease_left_ms },
            ("no", Some(why)) => Verdict::No { why },
            ("refused", Some(why)) => Verdict::Refused { why },
            _ => return None,
        };
        Some(Answer { boundary, id, name, verdict })
    }

    /// With its line break.
    pub fn to_line(&self) -> String {
        let (answer, term, lease_left_ms, why) = match &self.verdict {
            Verdict::Yes { term, lease_left_ms } => ("yes", *term, *lease_left_ms, None),
            Verdict::No { why } => ("no", None, None, Some(why.clone())),
            Verdict::Refused { why } => ("refused", None, None, Some(why.clone())),
        };
        let (boundary, id, name) = (self.boundary.clone(), self.id.clone(), self.name.clone());
        line(&Reply { boundary, id, name, answer: answer.to_owned(), term, lease_left_ms, why })
    }
}

fn line(value: &impl Serialize) -> String {
    let mut line = serde_json::to_string(value).expect("texts and numbers become JSON");
    line.push('\n');
    line
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

#[cfg(test)]
pub mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fuzz;

    pub fn wishes() -> impl Strategy<Value = Wish> {
        let text = || proptest::option::of(fuzz::text());
        prop_oneof![
            Just(Wish::Hello),
            any::<Option<Term>>().prop_map(|term| Wish::Assert { term }),
            Just(Wish::Resign),
            (text(), text()).prop_map(|(name, advertise)| Wish::Proclaim { name, advertise }),
        ]
    }

    /// What a visitor may say that has something else in mind, or nothing.
    pub fn babble() -> impl Strategy<Value = Vec<u8>> {
        let line = || wishes().prop_map(|wish| wish.to_line().into_bytes());
        prop_oneof![fuzz::noise(), fuzz::mangled(line()), fuzz::miswritten(line())].prop_map(|mut line| {
            line.push(b'\n');
            line
        })
    }

    fn answers() -> impl Strategy<Value = Answer> {
        let verdict = prop_oneof![
            any::<(Option<Term>, Option<u64>)>().prop_map(|(term, lease_left_ms)| Verdict::Yes { term, lease_left_ms }),
            fuzz::text().prop_map(|why| Verdict::No { why }),
            fuzz::text().prop_map(|why| Verdict::Refused { why }),
        ];
        (fuzz::text(), fuzz::text(), fuzz::text(), verdict).prop_map(|(boundary, id, name, verdict)| Answer {
            boundary,
            id,
            name,
            verdict,
        })
    }

    #[test]
    fn what_is_said_is_what_is_heard() {
        fuzz::holds(fuzz::CHEAP, &wishes(), |wish| assert_eq!(Wish::from_line(wish.to_line().as_bytes()), Some(wish)));
        fuzz::holds(fuzz::CHEAP, &answers(), |answer| {
            assert_eq!(Answer::from_line(answer.to_line().as_bytes()), Some(answer));
        });
    }

    #[test]
    fn whatever_is_said_is_a_wish_or_none_and_the_same_goes_for_answers() {
        fuzz::holds(fuzz::CHEAP, &babble(), |line| {
            if let Some(wish) = Wish::from_line(&line) {
                assert_eq!(Wish::from_line(wish.to_line().as_bytes()), Some(wish));
            }
        });
        let line = || answers().prop_map(|answer| answer.to_line().into_bytes());
        let said = prop_oneof![fuzz::noise(), fuzz::mangled(line()), fuzz::miswritten(line())];
        fuzz::holds(fuzz::CHEAP, &said, |line| {
            if let Some(answer) = Answer::from_line(&line) {
                assert_eq!(Answer::from_line(answer.to_line().as_bytes()), Some(answer));
            }
        });
    }
}
