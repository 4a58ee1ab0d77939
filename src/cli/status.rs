//! `elect status`: who leads.

mod live;
mod local;
mod table;
mod text;

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use super::stdout::print;
use super::store_query::{QUERY_TIMEOUT, StoreQuery, block_on};
use super::{StatusFlags, complain, exit_for, fail};
use crate::exit::Exit;
use crate::log::supports_styles;
use crate::status::StatusDocument;
use crate::store::observer::survey;
use crate::store::{Detail, Listing, Notifier, Observation, StoreError};
use elect_core::boundary::Boundary;
use elect_core::limits::BOUNDARIES_MAX;
use elect_keeper::clock;
pub(super) use table::TableStyle;
use text::StatusText;

pub fn status(flags: &StatusFlags) -> ExitCode {
    if flags.local {
        return local::status(flags);
    }
    let query = match StoreQuery::new(flags.scope.boundary(), &flags.store) {
        Ok(query) => query,
        Err(status) => return status,
    };
    if flags.watch {
        return live::status(flags, &query);
    }
    block_on(query.url, async {
        let seen = match look(&query).await {
            Ok(seen) => seen,
            Err(error) => return fail(exit_for(&error), &error.to_string()),
        };
        let found = match &query.boundary {
            Some(_) if seen.iter().all(|(_, observation)| observation.leader.is_none()) => Exit::No,
            Some(_) | None => Exit::Success,
        };
        let status = print(render(flags, &query, &seen), found.into());
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
        status
    })
}

async fn look(query: &StoreQuery<'_>) -> Result<Vec<(Boundary, Observation)>, StoreError> {
    let mut store = query.url.open(&query.access, Notifier::disconnected())?;
    let looked = survey(store.as_mut(), query.boundary.as_ref(), Detail::Lease);
    let seen = tokio::time::timeout(QUERY_TIMEOUT, looked).await.unwrap_or_else(|_| {
        let (url, limit) = (&query.url, QUERY_TIMEOUT.as_secs());
        Err(StoreError::Unavailable(format!("{url} did not answer within {limit} s")))
    })?;
    Ok(seen.into_iter().map(readable).collect())
}

/// One that cannot be read hides no other. A record beside which this elect does not campaign is an answer: there is no leader that
/// can be shown.
fn readable((boundary, seen): Listing) -> (Boundary, Observation) {
    let unreadable = |error: StoreError| Observation { obstacle: Some(error.to_string()), ..Observation::default() };
    (boundary, seen.unwrap_or_else(unreadable))
}

/// Observations, as text or JSON for this stdout.
fn render(flags: &StatusFlags, query: &StoreQuery<'_>, seen: &[(Boundary, Observation)]) -> String {
    if flags.json {
        let store = query.url.kind().name();
        let line = |(boundary, observation): &(Boundary, Observation)| {
            StatusDocument::new(boundary, store, observation).to_json() + "\n"
        };
        return seen.iter().map(line).collect();
    }
    let (url, is_named) = (query.url, query.boundary.is_some());
    StatusText { url, is_named, all: flags.all, now: clock::wall_millis(), style: here() }.render(seen)
}

/// How text is to look on this stdout.
pub(super) fn here() -> TableStyle {
    let is_terminal = io::stdout().is_terminal();
    let width = terminal_size::terminal_size().map(|(terminal_size::Width(width), _)| usize::from(width));
    TableStyle { width: width.filter(|width| is_terminal && *width > 0), bold: supports_styles(&io::stdout()) }
}
