//! `elect status`: who leads.

mod table;

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use super::asked::{Asked, PATIENCE, run};
use super::words::{age, has_colours, leads, rough};
use super::{StatusFlags, complain, exit_for, fail};
use crate::boundary::Boundary;
use crate::exit::Exit;
use crate::store::{Detail, Listing, Notifier, Observation, StoreError};
use crate::surface::status::Document;
use crate::text::escaped;
use table::{Look, table};

/// How many of those who wait are named.
const SHOWN: usize = 5;

pub fn status(flags: &StatusFlags) -> ExitCode {
    let asked = match Asked::new(flags.boundary.as_deref(), &flags.store) {
        Ok(asked) => asked,
        Err(status) => return status,
    };
    run(asked.url, async {
        let seen = match look(&asked).await {
            Ok(seen) => seen,
            Err(error) => return fail(exit_for(&error), &error.to_string()),
        };
        let text = match (flags.json, &asked.boundary) {
            (true, _) => json(asked.url.kind().name(), &seen),
            (false, Some(_)) => seen.iter().map(|(boundary, sighting)| in_full(boundary, sighting)).collect(),
            (false, None) if seen.is_empty() => format!("no boundaries in {}\n", asked.url),
            (false, None) => table(&seen, here()),
        };
        // Into a closed pipe: whoever asked has seen enough.
        let _ = io::stdout().write_all(text.as_bytes());
        if asked.boundary.is_none() && !flags.json {
            for (boundary, obstacle) in
                seen.iter().filter_map(|(boundary, seen)| Some((boundary, seen.obstacle.as_ref()?)))
            {
                complain(&format!("{boundary}: {obstacle}"));
            }
        }
        match &asked.boundary {
            Some(_) if seen.iter().all(|(_, sighting)| sighting.leader.is_none()) => Exit::No.into(),
            Some(_) | None => Exit::Success.into(),
        }
    })
}

async fn look(asked: &Asked<'_>) -> Result<Vec<(Boundary, Observation)>, StoreError> {
    let mut store = asked.url.open(&asked.access, Notifier::to_nobody())?;
    let looked = async {
        match &asked.boundary {
            Some(boundary) => {
                // A record beside which this elect does not campaign is an answer: there is no leader that can be shown.
                let sighting = store.look(boundary).await.or_else(Observation::obstructed)?;
                Ok(vec![(boundary.clone(), sighting)])
            }
            None => Ok(store.survey(Detail::Lease).await?.into_iter().map(readable).collect()),
        }
    };
    tokio::time::timeout(PATIENCE, looked).await.unwrap_or_else(|_| {
        let (url, limit) = (&asked.url, PATIENCE.as_secs());
        Err(StoreError::Unavailable(format!("{url} did not answer within {limit} s")))
    })
}

/// One that cannot be read hides no other.
fn readable((boundary, seen): Listing) -> (Boundary, Observation) {
    let unreadable = |error: StoreError| Observation { obstacle: Some(error.to_string()), ..Observation::default() };
    (boundary, seen.unwrap_or_else(unreadable))
}

fn json(store: &str, seen: &[(Boundary, Observation)]) -> String {
    seen.iter().map(|(boundary, sighting)| Document::new(boundary, store, sighting).to_json() + "\n").collect()
}

/// How the table is to look on this stdout.
fn here() -> Look {
    let is_terminal = io::stdout().is_terminal();
    let width = terminal_size::terminal_size().map(|(terminal_size::Width(width), _)| usize::from(width));
    Look { width: width.filter(|_| is_terminal), bold: has_colours() }
}

/// The most important line first; the others are what a person may want to know next.
fn in_full(boundary: &Boundary, sighting: &Observation) -> String {
    let boundary = escaped(boundary.as_str());
    let mut text = match (&sighting.leader, &sighting.obstacle) {
        (Some(leader), _) => {
            let age = age(leader).map_or_else(String::new, |age| format!(", for {age}"));
            format!("{boundary}: {}{age}\n", leads(leader))
        }
        (None, Some(obstacle)) => format!("{boundary}: no leader; {}\n", escaped(obstacle)),
        (None, None) => format!("{boundary}: no leader\n"),
    };
    if let Some(leader) = &sighting.leader {
        if let Some(left) = leader.lease_left {
            let of = leader.ttl.map_or_else(String::new, |ttl| format!(" of {}", rough(ttl)));
            let _ = writeln!(text, "  lease left {}{of}", rough(left));
        }
        let _ = writeln!(text, "  id {}", escaped(&leader.id));
    }
    if let Some(waiting) = sighting.candidates.as_ref().filter(|waiting| !waiting.is_empty()) {
        let names: Vec<_> = waiting.iter().take(SHOWN).map(|(_, name)| escaped(name)).collect();
        let more = match waiting.len() {
            count if count > SHOWN => format!(" and {} more", count - SHOWN),
            _ => String::new(),
        };
        let _ = writeln!(text, "  waiting: {}{more}", names.join(", "));
    }
    text
}
