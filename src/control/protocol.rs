//! The protocol of the control socket: a line of JSON in each direction.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use elect_core::Term;
use elect_core::takeover::Reservation;

/// The limit of a request; a longer one is rejected.
pub const REQUEST_BYTES_MAX: usize = 4096;

/// A request of a client to a candidate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlRequest {
    /// Asks for the candidate's identity.
    Hello,
    /// Asks for the candidate's state.
    Status,
    /// Do you lead now, in this term if one is named? Answered by a renewal that was sent after the question.
    Assert {
        /// The term of the command that asks.
        term: Option<Term>,
    },
    /// Give the boundary back, and stand behind the others.
    Resign,
    /// Leave the election until [`ControlRequest::Undrain`].
    Drain,
    /// End a drain.
    Undrain,
    /// The same, and leave the boundary to that candidate. An earlier elect does not understand it, and does nothing.
    ResignTo(Reservation<String>),
    /// Changes the candidate's name and address. `None` leaves one as it is.
    Proclaim {
        /// For display.
        name: Option<String>,
        /// The address for followers, as `HOST[:PORT]`.
        advertise: Option<String>,
    },
}

/// The answer, with the identity of the candidate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlResponse {
    /// The boundary of the candidate.
    pub boundary: String,
    /// The candidate's.
    pub id: String,
    /// For display.
    pub name: String,
    /// The answer proper.
    pub outcome: ControlOutcome,
}

/// The outcome of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlOutcome {
    /// The request was fulfilled.
    Yes {
        /// The term that is led in, while there is one.
        term: Option<Term>,
        /// The rest of the lease, in milliseconds; absent where leadership has no end, or there is none.
        lease_left_ms: Option<u64>,
    },
    /// The drain is complete.
    Drained {
        /// Whether the store confirmed the release; otherwise the lease has run out.
        released: bool,
    },
    /// The state of the candidate.
    Status(CandidateStatus),
    /// The answer is no.
    No {
        /// For display.
        why: String,
    },
    /// The client is another user's, or the request is not understood.
    Refused {
        /// For display.
        why: String,
    },
}

/// The state of a candidate, as `status --self` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CandidateStatus {
    /// The kind of its store.
    pub store: String,
    /// Where followers are told to connect.
    pub host: String,
    /// And at which port.
    #[serde(default)]
    pub port: Option<u16>,
    /// Where it is, in one word.
    pub state: String,
    /// Why it may not campaign, in one word each.
    #[serde(default)]
    pub reasons: Vec<String>,
    /// Whether it leads, and has not begun to stop.
    pub is_leader: bool,
    /// Whether a command of its own runs.
    pub running: bool,
    /// The main process of that.
    #[serde(default)]
    pub pid: Option<i32>,
    /// The leader, as far as this candidate knows; earlier releases do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<ObservedLeader>,
}

/// The leader as a candidate sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedLeader {
    /// Its id.
    pub id: String,
    /// For display.
    pub name: String,
    /// Its term, where it is known.
    #[serde(default)]
    pub term: Option<Term>,
}

/// A request as it is written. Flat: what serde makes of enums with tags is more than the rest of the program's JSON.
#[derive(Debug, Default, Serialize, Deserialize)]
struct RequestJson {
    #[serde(default)]
    request: String,
    /// The key of `request` in earlier releases: sent, and accepted, for this release only.
    #[serde(default)]
    wish: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    term: Option<Term>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    advertise: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    successor: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    within_ms: Option<u64>,
    /// The id of the candidate that is meant; any one if it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    to: Option<String>,
}

/// An answer as it is written.
#[derive(Debug, Serialize, Deserialize)]
struct ResponseJson {
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    status: Option<CandidateStatus>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    released: Option<bool>,
}

impl ControlRequest {
    /// Parses a request, and the id of the candidate that is meant; `None` if it is malformed.
    pub fn from_line(line: &[u8]) -> Option<(ControlRequest, Option<String>)> {
        let end = line.iter().position(|&byte| byte == b'\n').filter(|&end| end <= REQUEST_BYTES_MAX)?;
        let RequestJson { request, wish, term, name, advertise, successor, within_ms, to } =
            serde_json::from_slice(&line[..end]).ok()?;
        let request = if request.is_empty() { wish } else { request };
        let request = match request.as_str() {
            "hello" => ControlRequest::Hello,
            "status" => ControlRequest::Status,
            "assert" => ControlRequest::Assert { term },
            "resign" => ControlRequest::Resign,
            "drain" => ControlRequest::Drain,
            "undrain" => ControlRequest::Undrain,
            "resign-to" => {
                let within = Duration::from_millis(within_ms?);
                ControlRequest::ResignTo(Reservation { successor: successor?, within })
            }
            "proclaim" => ControlRequest::Proclaim { name, advertise },
            _ => return None,
        };
        Some((request, to))
    }

    /// For the candidate with this id, or for whichever one reads it; with its line break.
    pub fn to_line(&self, id: Option<&str>) -> String {
        let named = |name: &str| {
            let (request, wish, to) = (name.to_owned(), name.to_owned(), id.map(str::to_owned));
            RequestJson { request, wish, to, ..RequestJson::default() }
        };
        line(&match self {
            ControlRequest::Hello => named("hello"),
            ControlRequest::Status => named("status"),
            ControlRequest::Assert { term } => RequestJson { term: *term, ..named("assert") },
            ControlRequest::Resign => named("resign"),
            ControlRequest::Drain => named("drain"),
            ControlRequest::Undrain => named("undrain"),
            ControlRequest::ResignTo(Reservation { successor, within }) => RequestJson {
                successor: Some(successor.clone()),
                within_ms: Some(u64::try_from(within.as_millis()).unwrap_or(u64::MAX)),
                ..named("resign-to")
            },
            ControlRequest::Proclaim { name, advertise } => {
                RequestJson { name: name.clone(), advertise: advertise.clone(), ..named("proclaim") }
            }
        })
    }
}

impl ControlResponse {
    /// Parses a response; `None` if it is malformed.
    pub fn from_line(line: &[u8]) -> Option<ControlResponse> {
        let ResponseJson { boundary, id, name, answer, term, lease_left_ms, why, status, released } =
            serde_json::from_slice(line).ok()?;
        let outcome = match (answer.as_str(), why) {
            ("status", _) => ControlOutcome::Status(status?),
            ("drained", _) => ControlOutcome::Drained { released: released? },
            ("yes", _) => ControlOutcome::Yes { term, lease_left_ms },
            ("no", Some(why)) => ControlOutcome::No { why },
            ("refused", Some(why)) => ControlOutcome::Refused { why },
            _ => return None,
        };
        Some(ControlResponse { boundary, id, name, outcome })
    }

    /// With its line break.
    pub fn to_line(&self) -> String {
        let (answer, term, lease_left_ms, why) = match &self.outcome {
            ControlOutcome::Yes { term, lease_left_ms } => ("yes", *term, *lease_left_ms, None),
            ControlOutcome::Status(_) => ("status", None, None, None),
            ControlOutcome::Drained { .. } => ("drained", None, None, None),
            ControlOutcome::No { why } => ("no", None, None, Some(why.clone())),
            ControlOutcome::Refused { why } => ("refused", None, None, Some(why.clone())),
        };
        let (status, released) = match &self.outcome {
            ControlOutcome::Status(status) => (Some(status.clone()), None),
            ControlOutcome::Drained { released } => (None, Some(*released)),
            ControlOutcome::Yes { .. } | ControlOutcome::No { .. } | ControlOutcome::Refused { .. } => (None, None),
        };
        let (boundary, id, name) = (self.boundary.clone(), self.id.clone(), self.name.clone());
        line(&ResponseJson {
            boundary,
            id,
            name,
            answer: answer.to_owned(),
            term,
            lease_left_ms,
            why,
            status,
            released,
        })
    }
}

fn line(value: &impl Serialize) -> String {
    let mut line = serde_json::to_string(value).expect("texts and numbers become JSON");
    line.push('\n');
    line
}

impl ControlOutcome {
    pub fn no(why: impl Into<String>) -> ControlOutcome {
        ControlOutcome::No { why: why.into() }
    }

    pub fn other_user() -> ControlOutcome {
        ControlOutcome::Refused { why: "this candidate belongs to another user".to_owned() }
    }

    pub fn not_understood() -> ControlOutcome {
        ControlOutcome::Refused {
            why: "this candidate does not understand: is it another version of elect?".to_owned(),
        }
    }

    pub fn shutting_down() -> ControlOutcome {
        ControlOutcome::no("this candidate is ending")
    }
}

#[cfg(test)]
pub mod tests {
    use proptest::prelude::*;

    use super::*;
    use elect_core::proptest_support;

    pub fn requests() -> impl Strategy<Value = ControlRequest> {
        let text = || proptest::option::of(proptest_support::text());
        prop_oneof![
            Just(ControlRequest::Hello),
            Just(ControlRequest::Status),
            any::<Option<Term>>().prop_map(|term| ControlRequest::Assert { term }),
            Just(ControlRequest::Resign),
            Just(ControlRequest::Drain),
            Just(ControlRequest::Undrain),
            (proptest_support::text(), any::<u64>()).prop_map(|(successor, millis)| {
                ControlRequest::ResignTo(Reservation { successor, within: Duration::from_millis(millis) })
            }),
            (text(), text()).prop_map(|(name, advertise)| ControlRequest::Proclaim { name, advertise }),
        ]
    }

    /// Lines that are no requests, or damaged ones.
    pub fn malformed_requests() -> impl Strategy<Value = Vec<u8>> {
        let line = || requests().prop_map(|request| request.to_line(None).into_bytes());
        prop_oneof![
            proptest_support::random_bytes(),
            proptest_support::corrupted(line()),
            proptest_support::wrong_types(line())
        ]
        .prop_map(|mut line| {
            line.push(b'\n');
            line
        })
    }

    fn responses() -> impl Strategy<Value = ControlResponse> {
        let outcome = prop_oneof![
            any::<(Option<Term>, Option<u64>)>()
                .prop_map(|(term, lease_left_ms)| ControlOutcome::Yes { term, lease_left_ms }),
            (proptest_support::text(), any::<(Option<u16>, bool, bool, Option<i32>)>()).prop_map(
                |(text, (port, is_leader, running, pid))| {
                    let (store, host, state, reasons) = (text.clone(), text.clone(), text.clone(), vec![text]);
                    let leader = pid.map(|_| ObservedLeader { id: store.clone(), name: host.clone(), term: None });
                    ControlOutcome::Status(CandidateStatus {
                        store,
                        host,
                        port,
                        state,
                        reasons,
                        is_leader,
                        running,
                        pid,
                        leader,
                    })
                }
            ),
            any::<bool>().prop_map(|released| ControlOutcome::Drained { released }),
            proptest_support::text().prop_map(|why| ControlOutcome::No { why }),
            proptest_support::text().prop_map(|why| ControlOutcome::Refused { why }),
        ];
        (proptest_support::text(), proptest_support::text(), proptest_support::text(), outcome)
            .prop_map(|(boundary, id, name, outcome)| ControlResponse { boundary, id, name, outcome })
    }

    #[test]
    fn a_request_has_the_old_key_and_the_new_one_and_either_is_enough() {
        for key in ["request", "wish"] {
            let line = format!("{{\"{key}\":\"assert\",\"term\":7}}\n");
            assert_eq!(
                ControlRequest::from_line(line.as_bytes()),
                Some((ControlRequest::Assert { term: Some(7) }, None))
            );
        }
        assert_eq!(ControlRequest::from_line(b"{\"term\":7}\n"), None);
        let line = ControlRequest::Resign.to_line(None);
        assert!(line.contains("\"request\":\"resign\"") && line.contains("\"wish\":\"resign\""), "{line}");
    }

    #[test]
    fn a_line_is_read_as_it_was_written() {
        proptest_support::check(proptest_support::FAST, &requests(), |request| {
            assert_eq!(
                ControlRequest::from_line(request.to_line(Some("id")).as_bytes()),
                Some((request, Some("id".to_owned())))
            );
        });
        proptest_support::check(proptest_support::FAST, &responses(), |answer| {
            assert_eq!(ControlResponse::from_line(answer.to_line().as_bytes()), Some(answer));
        });
    }

    #[test]
    fn any_line_is_a_request_or_none_and_a_response_or_none() {
        proptest_support::check(proptest_support::FAST, &malformed_requests(), |line| {
            if let Some((request, to)) = ControlRequest::from_line(&line) {
                assert_eq!(ControlRequest::from_line(request.to_line(to.as_deref()).as_bytes()), Some((request, to)));
            }
        });
        let line = || responses().prop_map(|answer| answer.to_line().into_bytes());
        let said = prop_oneof![
            proptest_support::random_bytes(),
            proptest_support::corrupted(line()),
            proptest_support::wrong_types(line())
        ];
        proptest_support::check(proptest_support::FAST, &said, |line| {
            if let Some(answer) = ControlResponse::from_line(&line) {
                assert_eq!(ControlResponse::from_line(answer.to_line().as_bytes()), Some(answer));
            }
        });
    }
}
