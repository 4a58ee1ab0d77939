//! `elect status --self`: the candidates on this host, asked over their control sockets.

use std::io::ErrorKind;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;

use super::here;
use super::table::{Columns, UNKNOWN, render};
use crate::cli::find_candidate::{CandidateSocket, ControlError, TimeLimit, ask_each};
use crate::cli::stdout::print;
use crate::cli::{StatusFlags, complain, fail};
use crate::control::{self, ControlOutcome, ControlRequest, SocketDirectory, Trust, parse_socket_name};
use crate::exit::Exit;
use crate::host_port::joined;
use crate::text::escaped;
use elect_core::boundary::Boundary;

/// A candidate that does not answer within this time is silent.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

const COLUMNS: Columns = Columns {
    header: &["BOUNDARY", "NAME", "ADDRESS", "STATE", "PID", "STORE", "ID"],
    always: 2,
    texts: &[0, 1, 2],
    address: 2,
    optional: Some(6),
};

/// One candidate. What is not known is null.
#[derive(Debug, Default, Serialize)]
struct LocalCandidate {
    boundary: Option<String>,
    store: Option<String>,
    id: Option<String>,
    name: Option<String>,
    host: Option<String>,
    port: Option<u16>,
    state: Option<String>,
    reasons: Option<Vec<String>>,
    is_leader: Option<bool>,
    running: Option<bool>,
    pid: Option<i32>,
}

/// The result of the question to one socket.
enum Asked {
    Known(LocalCandidate),
    /// Another user's, who has not shared it.
    Closed,
    /// No process listens there any more.
    Gone,
}

pub fn status(flags: &StatusFlags) -> ExitCode {
    let boundary = match flags.scope.boundary().map(Boundary::shared).transpose() {
        Ok(boundary) => boundary,
        Err(error) => return fail(Exit::Usage, &error.to_string()),
    };
    let directory = match SocketDirectory::new(flags.runtime.runtime_dir.as_deref()) {
        Ok(directory) => directory,
        Err(error) => return fail(Exit::Usage, &error),
    };
    let boundary = boundary.as_ref().map(Boundary::as_str);
    let sockets = match directory.sockets(boundary) {
        Ok(sockets) => sockets,
        Err(error) => {
            let exit = if error.kind() == ErrorKind::PermissionDenied { Exit::Refused } else { Exit::Unavailable };
            return fail(exit, &format!("{}: {error}", directory.path().display()));
        }
    };
    let mut found = Vec::new();
    let mut closed = 0;
    let trust = directory.trust();
    for asked in ask_each(&sockets, |path| ask(path, &trust)) {
        match asked {
            Asked::Known(candidate) if boundary.is_none() || candidate.boundary.as_deref() == boundary => {
                found.push(candidate);
            }
            Asked::Known(_) | Asked::Gone => {}
            Asked::Closed => closed += 1,
        }
    }
    found.sort_by(|a, b| (&a.boundary, &a.name, &a.id).cmp(&(&b.boundary, &b.name, &b.id)));
    let text = match (flags.json, found.is_empty()) {
        (true, _) => serde_json::to_string(&found).expect("texts and numbers become JSON") + "\n",
        (false, true) => none(boundary, directory.path()),
        (false, false) => render(COLUMNS, &found.iter().map(LocalCandidate::row).collect::<Vec<_>>(), here()),
    };
    let status = if boundary.is_some() && found.is_empty() { Exit::No } else { Exit::Success };
    let status = print(text, status.into());
    if closed > 0 {
        complain(&format!("{closed} more in {} may be asked by other users alone", directory.path().display()));
    }
    status
}

fn none(boundary: Option<&str>, directory: &Path) -> String {
    let of = boundary.map_or_else(String::new, |boundary| format!(" for {}", escaped(boundary)));
    let directory = directory.display().to_string();
    format!("no candidate of this user campaigns{of} on this host (looked in {})\n", escaped(&directory))
}

fn ask(path: &Path, trust: &Trust) -> Asked {
    let socket = CandidateSocket::new(path.to_owned(), trust.clone());
    let (boundary, id) = parse_socket_name(path);
    let unknown = LocalCandidate { boundary, id, ..LocalCandidate::default() };
    match socket.exchange(&ControlRequest::Status, Some(TimeLimit::new(ANSWER_TIMEOUT))) {
        Ok(response) => {
            let named = LocalCandidate {
                boundary: Some(response.boundary),
                id: Some(response.id),
                name: Some(response.name),
                ..unknown
            };
            Asked::Known(match response.outcome {
                ControlOutcome::Status(status) => LocalCandidate {
                    store: Some(status.store),
                    host: Some(status.host),
                    port: status.port,
                    state: Some(status.state),
                    reasons: Some(status.reasons),
                    is_leader: Some(status.is_leader),
                    running: Some(status.running),
                    pid: status.pid,
                    ..named
                },
                // An older elect, which does not know the question.
                ControlOutcome::Yes { .. }
                | ControlOutcome::Drained { .. }
                | ControlOutcome::No { .. }
                | ControlOutcome::Refused { .. } => named,
            })
        }
        Err(ControlError::TimedOut(_)) => Asked::Known(LocalCandidate { state: Some("silent".to_owned()), ..unknown }),
        Err(ControlError::Unreachable { error, .. }) if error.kind() == ErrorKind::ConnectionRefused => {
            control::remove_if_dead(path);
            Asked::Gone
        }
        Err(ControlError::Denied { .. } | ControlError::NotTrusted { .. }) => Asked::Closed,
        Err(_) => Asked::Gone,
    }
}

impl LocalCandidate {
    /// The state, with the reasons why the candidate may not campaign.
    fn state_shown(&self) -> String {
        let Some(state) = &self.state else { return UNKNOWN.to_owned() };
        let reasons = self.reasons.as_deref().unwrap_or_default().join(", ");
        escaped(&if reasons.is_empty() { state.clone() } else { format!("{state}: {reasons}") }).into_owned()
    }

    fn row(&self) -> Vec<String> {
        let text = |text: Option<&str>| {
            let shown = text.map(escaped).filter(|text| !text.trim().is_empty());
            shown.map_or_else(|| UNKNOWN.to_owned(), std::borrow::Cow::into_owned)
        };
        let host = self.host.as_deref();
        let address = host
            .and_then(|host| joined(host, self.port))
            .or_else(|| host.filter(|host| Some(*host) != self.name.as_deref()).map(str::to_owned));
        vec![
            text(self.boundary.as_deref()),
            text(self.name.as_deref()),
            text(address.as_deref()),
            self.state_shown(),
            self.pid.map_or_else(|| UNKNOWN.to_owned(), |pid| pid.to_string()),
            text(self.store.as_deref()),
            text(self.id.as_deref()),
        ]
    }
}
