//! A change as a JSON document: `watch --json` prints one per line.
//!
//! Fields are added, never renamed; what is not known is null.

use serde::Serialize;

use super::document::{LeaderDocument, leader_document};
use crate::store::Leader;
use elect_core::boundary::Boundary;

/// One change.
#[derive(Debug, Default, Serialize)]
pub struct ChangeDocument<'a> {
    at: String,
    event: &'static str,
    boundary: Option<&'a str>,
    leader: Option<LeaderDocument<'a>>,
    error: Option<&'a str>,
    /// Whether terms began and ended unseen since the line before.
    skipped: Option<bool>,
    /// The obstacle that keeps every candidate out although the boundary has no leader.
    obstacle: Option<&'a str>,
}

impl<'a> ChangeDocument<'a> {
    /// A candidate leads, or has another name or address.
    #[must_use]
    pub fn leader(
        at: String,
        boundary: Option<&'a Boundary>,
        found: &'a Leader,
        skipped: Option<bool>,
    ) -> ChangeDocument<'a> {
        let leader = Some(leader_document(found));
        ChangeDocument {
            at,
            event: "leader",
            boundary: boundary.map(Boundary::as_str),
            leader,
            skipped,
            ..ChangeDocument::default()
        }
    }

    /// The boundary has no leader.
    #[must_use]
    pub fn none(
        at: String,
        boundary: Option<&'a Boundary>,
        obstacle: Option<&'a str>,
        skipped: Option<bool>,
    ) -> ChangeDocument<'a> {
        ChangeDocument {
            at,
            event: "none",
            boundary: boundary.map(Boundary::as_str),
            skipped,
            obstacle,
            ..ChangeDocument::default()
        }
    }

    /// It is not known who leads the boundary, or any boundary.
    #[must_use]
    pub fn error(at: String, boundary: Option<&'a Boundary>, error: &'a str) -> ChangeDocument<'a> {
        ChangeDocument {
            at,
            event: "error",
            boundary: boundary.map(Boundary::as_str),
            error: Some(error),
            ..ChangeDocument::default()
        }
    }

    /// The last line.
    #[must_use]
    pub fn done(at: String, boundary: Option<&'a Boundary>) -> ChangeDocument<'a> {
        ChangeDocument { at, event: "done", boundary: boundary.map(Boundary::as_str), ..ChangeDocument::default() }
    }

    /// On one line.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("texts and numbers become JSON")
    }
}
