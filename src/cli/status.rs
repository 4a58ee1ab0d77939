//! `elect status`: who leads.

mod table;

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use super::format::{leader_line, leading_for, rounded_duration, supports_bold};
use super::store_query::{QUERY_TIMEOUT, StoreQuery, block_on};
use super::{StatusFlags, complain, exit_for, fail};
use crate::exit::Exit;
use crate::status::StatusDocument;
use crate::store::{Detail, Listing, Notifier, Observation, StoreError};
use crate::text::escaped;
use elect_core::boundary::Boundary;
use elect_core::limits::BOUNDARIES_MAX;
use table::{TableStyle, table};

/// How many of those who wait are named.
const WAITERS_NAMED_MAX: usize = 5;

pub fn status(flags: &StatusFlags) -> ExitCode {
    let query = match StoreQuery::new(flags.scope.boundary(), &flags.store) {
        Ok(query) => query,
        Err(status) => return status,
    };
    block_on(query.url, async {
        let seen = match look(&query).await {
            Ok(seen) => seen,
            Err(error) => return fail(exit_for(&error), &error.to_string()),
        };
        let text = match (flags.json, &query.boundary) {
            (true, _) => json(query.url.kind().name(), &seen),
            (false, Some(_)) => seen.iter().map(|(boundary, observation)| in_full(boundary, observation)).collect(),
            (false, None) if seen.is_empty() => format!("no boundaries in {}\n", query.url),
            (false, None) => table(&seen, here()),
        };
        // Into a closed pipe: its reader has ended.
        let _ = io::stdout().write_all(text.as_bytes());
        if query.boundary.is_none() && !flags.json {
            for (boundary, obstacle) in
                seen.iter().filter_map(|(boundary, seen)| Some((boundary, seen.obstacle.as_ref()?)))
            {
                complain(&format!("{boundary}: {obstacle}"));
            }
        }
        if query.boundary.is_none() && seen.len() >= BOUNDARIES_MAX {
            complain(&format!(
                "only the first {BOUNDARIES_MAX} boundaries of {} are shown, in the order of their names: name one to see another",
                query.url
            ));
        }
        match &query.boundary {
            Some(_) if seen.iter().all(|(_, observation)| observation.leader.is_none()) => Exit::No.into(),
            Some(_) | None => Exit::Success.into(),
        }
    })
}

async fn look(query: &StoreQuery<'_>) -> Result<Vec<(Boundary, Observation)>, StoreError> {
    let mut store = query.url.open(&query.access, Notifier::disconnected())?;
    let looked = async {
        match &query.boundary {
            Some(boundary) => {
                // A record beside which this elect does not campaign is an answer: there is no leader that can be
                // shown.
                let observation = store.observe(boundary).await.or_else(Observation::obstructed)?;
                Ok(vec![(boundary.clone(), observation)])
            }
            None => Ok(store.observe_all(Detail::Lease).await?.into_iter().map(readable).collect()),
        }
    };
    tokio::time::timeout(QUERY_TIMEOUT, looked).await.unwrap_or_else(|_| {
        let (url, limit) = (&query.url, QUERY_TIMEOUT.as_secs());
        Err(StoreError::Unavailable(format!("{url} did not answer within {limit} s")))
    })
}

/// One that cannot be read hides no other.
fn readable((boundary, seen): Listing) -> (Boundary, Observation) {
    let unreadable = |error: StoreError| Observation { obstacle: Some(error.to_string()), ..Observation::default() };
    (boundary, seen.unwrap_or_else(unreadable))
}

fn json(store: &str, seen: &[(Boundary, Observation)]) -> String {
    seen.iter()
        .map(|(boundary, observation)| StatusDocument::new(boundary, store, observation).to_json() + "\n")
        .collect()
}

/// How the table is to look on this stdout.
fn here() -> TableStyle {
    let is_terminal = io::stdout().is_terminal();
    let width = terminal_size::terminal_size().map(|(terminal_size::Width(width), _)| usize::from(width));
    TableStyle { width: width.filter(|_| is_terminal), bold: supports_bold() }
}

/// The most important line first; the others are what a person may want to know next.
fn in_full(boundary: &Boundary, observation: &Observation) -> String {
    let boundary = escaped(boundary.as_str());
    let mut text = match (&observation.leader, &observation.obstacle) {
        (Some(leader), _) => {
            let age = leading_for(leader).map_or_else(String::new, |age| format!(", for {age}"));
            format!("{boundary}: {}{age}\n", leader_line(leader))
        }
        (None, Some(obstacle)) => format!("{boundary}: no leader; {}\n", escaped(obstacle)),
        (None, None) => format!("{boundary}: no leader\n"),
    };
    if let Some(leader) = &observation.leader {
        if let Some(left) = leader.lease_left {
            let of = leader.ttl.map_or_else(String::new, |ttl| format!(" of {}", rounded_duration(ttl)));
            let _ = writeln!(text, "  lease left {}{of}", rounded_duration(left));
        }
        let _ = writeln!(text, "  id {}", escaped(&leader.id));
    }
    if let Some(waiting) = observation.candidates.as_ref().filter(|waiting| !waiting.is_empty()) {
        let names: Vec<_> = waiting.iter().take(WAITERS_NAMED_MAX).map(|(_, name)| escaped(name)).collect();
        let more = match waiting.len() {
            count if count > WAITERS_NAMED_MAX => format!(" and {} more", count - WAITERS_NAMED_MAX),
            _ => String::new(),
        };
        let _ = writeln!(text, "  waiting: {}{more}", names.join(", "));
    }
    text
}
