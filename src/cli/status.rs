//! `elect status`: who leads.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use super::access::access;
use super::{StatusFlags, exit_for, fail, runtime};
use crate::boundary::Boundary;
use crate::clock;
use crate::exit::Exit;
use crate::store::{Access, Hints, Sighting, Store, StoreError, StoreUrl};
use crate::surface::status::Document;

/// How long the store may take to answer somebody who looks at a screen.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many of those who wait are named on the line.
const SHOWN: usize = 5;

pub fn status(flags: &StatusFlags) -> ExitCode {
    let boundary = match flags.boundary.as_deref().map(str::parse::<Boundary>).transpose() {
        Ok(boundary) => boundary,
        Err(error) => return fail(Exit::Usage, &error.to_string()),
    };
    let url = match StoreUrl::parse(&flags.store.url) {
        Ok(url) => url,
        Err(error) => return fail(Exit::Usage, &error.to_string()),
    };
    let access = match access(&flags.store, PATIENCE) {
        Ok(access) => access,
        Err(error) => return fail(error.exit(), &error.to_string()),
    };
    let found = match look(&url, &access, boundary.as_ref()) {
        Ok(found) => found,
        Err(error) => return fail(exit_for(&error), &error.to_string()),
    };
    let mut text = String::new();
    for (boundary, sighting) in &found {
        let document = Document::new(boundary, url.kind().name(), sighting);
        if flags.json {
            text.push_str(&document.to_json());
            text.push('\n');
        } else {
            text.push_str(&line(boundary, sighting));
        }
    }
    if text.is_empty() && !flags.json {
        let _ = writeln!(text, "no boundaries in {url}");
    }
    if io::stdout().write_all(text.as_bytes()).is_err() {
        // A closed pipe: whoever asked has seen enough.
        return Exit::Success.into();
    }
    match &boundary {
        Some(_) if found.iter().all(|(_, sighting)| sighting.leader.is_none()) => Exit::No.into(),
        Some(_) | None => Exit::Success.into(),
    }
}

fn look(
    url: &StoreUrl<'_>,
    access: &Access,
    boundary: Option<&Boundary>,
) -> Result<Vec<(Boundary, Sighting)>, StoreError> {
    let runtime =
        runtime().map_err(|error| StoreError::Unavailable(format!("the runtime could not be started: {error}")))?;
    let mut store = url.open(access, Hints::to_nobody())?;
    let found = runtime.block_on(async {
        tokio::time::timeout(PATIENCE, look_at_each(store.as_mut(), boundary)).await.unwrap_or_else(|_| {
            Err(StoreError::Unavailable(format!("{url} did not answer within {} s", PATIENCE.as_secs())))
        })
    });
    // Not waiting for a name that is still being looked up.
    runtime.shutdown_background();
    found
}

async fn look_at_each(
    store: &mut dyn Store,
    boundary: Option<&Boundary>,
) -> Result<Vec<(Boundary, Sighting)>, StoreError> {
    let boundaries = match boundary {
        Some(boundary) => vec![boundary.clone()],
        None => store.boundaries().await?,
    };
    let mut found = Vec::with_capacity(boundaries.len());
    for each in boundaries {
        match store.look(&each).await {
            Ok(sighting) => found.push((each, sighting)),
            Err(error) if boundary.is_some() => return Err(error),
            // One that cannot be read hides no other.
            Err(error) => {
                let obstacle = Some(error.to_string());
                found.push((each, Sighting { obstacle, ..Sighting::default() }));
            }
        }
    }
    Ok(found)
}

/// A record may be somebody else's: what would steer the terminal is left out.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

fn line(boundary: &Boundary, sighting: &Sighting) -> String {
    let mut line = format!("{boundary}: ");
    match &sighting.leader {
        None => {
            line.push_str("no leader");
            if let Some(obstacle) = &sighting.obstacle {
                let _ = write!(line, "; {obstacle}");
            }
        }
        Some(leader) => {
            let _ = write!(line, "{} leads", printable(&leader.name));
            let host = printable(leader.host.as_deref().unwrap_or_default());
            if let Some(address) = crate::config::joined(&host, leader.port) {
                let _ = write!(line, " at {address}");
            } else if host != leader.name && !host.is_empty() {
                let _ = write!(line, " at {host}");
            }
            if let Some(term) = leader.term {
                let _ = write!(line, ", term {term}");
            }
            if let Some(since) = leader.since {
                let age = Duration::from_millis(clock::wall_millis().saturating_sub(since));
                let _ = write!(line, ", for {}", humantime::format_duration(Duration::from_secs(age.as_secs())));
            }
            if let Some(left) = leader.lease_left {
                let _ = write!(line, ", lease left {}", humantime::format_duration(left));
            }
            let _ = write!(line, ", id {}", printable(&leader.id));
        }
    }
    if let Some(waiting) = sighting.candidates.as_ref().filter(|waiting| !waiting.is_empty()) {
        let names: Vec<String> = waiting.iter().take(SHOWN).map(|(_, name)| printable(name)).collect();
        let _ = write!(line, "; waiting: {}", names.join(", "));
        if waiting.len() > SHOWN {
            let _ = write!(line, " and {} more", waiting.len() - SHOWN);
        }
    }
    line.push('\n');
    line
}
