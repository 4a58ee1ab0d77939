//! `elect assert`, `extend`, `resign`, `proclaim`: one request to a candidate on this host, over its control socket.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::fail;
use crate::config::{self, ConfigError};
use crate::control::{self, ControlOutcome, ControlRequest, ControlResponse};
use crate::duration::parse_duration;
use crate::exit::Exit;
use crate::host_port::HostPort;
use elect_core::boundary::Boundary;
use elect_keeper::clock;

/// How long a candidate that may be the one may take to say who it is.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// An answer is shorter.
const RESPONSE_BYTES_MAX: usize = 16 * 1024;

/// Which candidate is meant.
#[derive(Debug, Args)]
pub struct ControlTarget {
    /// The boundary [default: inside a command of elect's, that command's own candidate]
    #[arg(value_name = "BOUNDARY", id = "boundary_argument")]
    argument: Option<String>,

    /// The boundary, as a flag
    #[arg(short = 'b', long = "boundary", value_name = "NAME", id = "boundary", conflicts_with = "boundary_argument")]
    flag: Option<String>,

    /// The candidate, where several on this host campaign for it
    #[arg(long, value_name = "ID")]
    pub id: Option<String>,

    /// How long to wait for the answer
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub timeout: Option<Duration>,
}

impl ControlTarget {
    fn boundary(&self) -> Option<&str> {
        self.argument.as_deref().or(self.flag.as_deref())
    }
}

/// Flags of `elect proclaim`.
#[derive(Debug, Args)]
pub struct ProclaimFlags {
    /// The name shown to people
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,

    /// The address that followers are given
    #[arg(long, value_name = "HOST[:PORT]")]
    pub advertise: Option<HostPort>,

    #[command(flatten)]
    pub target: ControlTarget,
}

pub fn assert(target: &ControlTarget) -> ExitCode {
    send(target, &ControlRequest::Assert { term: own_term(target) }, Some(RESPONSE_TIMEOUT), |_| {})
}

pub fn extend(target: &ControlTarget) -> ExitCode {
    send(target, &ControlRequest::Assert { term: own_term(target) }, Some(RESPONSE_TIMEOUT), |left| {
        let text = left.map_or_else(|| "no end".to_owned(), |left| format!("{:.3}", left.as_secs_f64()));
        // Into a closed pipe: its reader has ended.
        let _ = writeln!(io::stdout(), "{text}");
    })
}

/// The command may take its stop time-out to end, and more.
pub fn resign(target: &ControlTarget) -> ExitCode {
    send(target, &ControlRequest::Resign, None, |_| {})
}

pub fn proclaim(flags: &ProclaimFlags) -> ExitCode {
    if flags.name.is_none() && flags.advertise.is_none() {
        return fail(Exit::Usage, "proclaim what? give --name, --advertise or both");
    }
    let host = flags.advertise.as_ref().map(|address| address.host.as_str());
    for (flag, text) in [("--name", flags.name.as_deref()), ("--advertise", host)] {
        if text.is_some_and(str::is_empty) {
            return fail(Exit::Usage, &ConfigError::EmptyName { flag }.to_string());
        }
        if text.is_some_and(|text| !config::is_valid_name(text)) {
            return fail(Exit::Usage, &ConfigError::Name { flag }.to_string());
        }
    }
    let advertise = flags.advertise.as_ref().map(ToString::to_string);
    send(
        &flags.target,
        &ControlRequest::Proclaim { name: flags.name.clone(), advertise },
        Some(RESPONSE_TIMEOUT),
        |_| {},
    )
}

/// A candidate that works answers within a lease; one that does not answer is no leader to rely on.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum ControlError {
    #[error("which boundary? name it with --boundary (inside a command of elect's it is known)")]
    NotNamed,
    #[error(transparent)]
    Boundary(#[from] elect_core::boundary::BoundaryError),
    #[error("no candidate of this user campaigns for {boundary} on this host{}", of(.id.as_deref()))]
    NoCandidate { boundary: String, id: Option<String> },
    #[error("several candidates of this host campaign for {boundary}: choose one with --id: {}", .ids.join(", "))]
    Ambiguous { boundary: String, ids: Vec<String> },
    #[error("{}: {error}", path.display())]
    Unreachable { path: PathBuf, error: io::Error },
    #[error("the candidate did not answer within {}", humantime::format_duration(*.0))]
    TimedOut(Duration),
    #[error("the candidate ended without an answer")]
    Disconnected,
    #[error("the candidate's answer is not understood: is it another version of elect?")]
    InvalidResponse,
}

fn of(id: Option<&str>) -> String {
    id.map(|id| format!(" as {id}")).unwrap_or_default()
}

impl ControlError {
    fn exit(&self) -> Exit {
        match self {
            ControlError::NotNamed | ControlError::Boundary(_) | ControlError::Ambiguous { .. } => Exit::Usage,
            ControlError::Unreachable { error, .. } if error.kind() == ErrorKind::PermissionDenied => Exit::Refused,
            ControlError::TimedOut(_) => Exit::NotElected,
            ControlError::NoCandidate { .. }
            | ControlError::Unreachable { .. }
            | ControlError::Disconnected
            | ControlError::InvalidResponse => Exit::Unavailable,
        }
    }
}

fn send(
    target: &ControlTarget,
    request: &ControlRequest,
    default_timeout: Option<Duration>,
    yes: impl FnOnce(Option<Duration>),
) -> ExitCode {
    let timeout = target.timeout.or(default_timeout);
    let found = match find_socket(target, request) {
        Ok(path) => path,
        Err(error) => return fail(error.exit(), &error.to_string()),
    };
    let asked = clock::now();
    match exchange(&found, request, timeout) {
        Ok(response) => match response.outcome {
            ControlOutcome::Yes { lease_left_ms, .. } => {
                let left =
                    lease_left_ms.map(|left| Duration::from_millis(left).saturating_sub(clock::now().since(asked)));
                // We may have been frozen between the answer and now, and so may the whole host.
                if left == Some(Duration::ZERO) {
                    return fail(Exit::No, "the lease ran out before its answer was read");
                }
                yes(left);
                Exit::Success.into()
            }
            ControlOutcome::No { why } => fail(Exit::No, &why),
            ControlOutcome::Refused { why } => fail(Exit::Refused, &why),
        },
        Err(error) => fail(error.exit(), &error.to_string()),
    }
}

/// The term of the command that we are part of: an answer about another term would be about another leader.
fn own_term(target: &ControlTarget) -> Option<u64> {
    own_socket(target)?;
    std::env::var("ELECT_TERM").ok()?.parse().ok()
}

/// Inside a command its own candidate is meant, unless another one is named.
fn own_socket(target: &ControlTarget) -> Option<PathBuf> {
    let inside = std::env::var("ELECT_BOUNDARY").ok();
    let same_boundary = target.boundary().is_none() || target.boundary() == inside.as_deref();
    let same_id = target.id.is_none() || target.id == std::env::var("ELECT_ID").ok();
    let path = std::env::var_os("ELECT_SOCKET").filter(|path| !path.is_empty())?;
    (same_boundary && same_id).then(|| path.into())
}

fn find_socket(target: &ControlTarget, request: &ControlRequest) -> Result<PathBuf, ControlError> {
    if let Some(path) = own_socket(target) {
        return Ok(path);
    }
    let boundary: Boundary = target.boundary().ok_or(ControlError::NotNamed)?.parse()?;
    let no_candidate = || ControlError::NoCandidate { boundary: boundary.to_string(), id: target.id.clone() };
    let Ok(directory) = control::directory() else { return Err(no_candidate()) };
    let possible = control::find_sockets(&directory, boundary.as_str())
        .map_err(|error| ControlError::Unreachable { path: directory.clone(), error })?;
    let mut found = Vec::new();
    let mut probe_error = None;
    for path in possible {
        match exchange(&path, &ControlRequest::Hello, Some(PROBE_TIMEOUT)) {
            Ok(response)
                if response.boundary == boundary.as_str() && target.id.as_ref().is_none_or(|id| *id == response.id) =>
            {
                found.push((path, response.id));
            }
            Ok(_) => {}
            // Its candidate was killed and could not take it away.
            Err(ControlError::Unreachable { error, .. }) if error.kind() == ErrorKind::ConnectionRefused => {
                let _ = std::fs::remove_file(&path);
            }
            // It may be the one.
            Err(error) => probe_error = Some(error),
        }
    }
    match (found.as_slice(), probe_error) {
        ([(path, _)], _) => Ok(path.clone()),
        ([], Some(probe_error)) => Err(probe_error),
        ([], None) => Err(no_candidate()),
        // Whether *this* one leads is no question about several; what only a leader can do is for the one that leads.
        ([_, _, ..], _) => {
            if !matches!(request, ControlRequest::Assert { .. }) {
                let leads = |path: &PathBuf| {
                    let response = exchange(path, &ControlRequest::Assert { term: None }, Some(PROBE_TIMEOUT));
                    response.is_ok_and(|response| matches!(response.outcome, ControlOutcome::Yes { .. }))
                };
                let mut leaders = found.iter().filter(|(path, _)| leads(path));
                if let (Some((path, _)), None) = (leaders.next(), leaders.next()) {
                    return Ok(path.clone());
                }
            }
            let ids = found.into_iter().map(|(_, id)| id).collect();
            Err(ControlError::Ambiguous { boundary: boundary.to_string(), ids })
        }
    }
}

fn exchange(path: &Path, request: &ControlRequest, timeout: Option<Duration>) -> Result<ControlResponse, ControlError> {
    let unreachable = |error| ControlError::Unreachable { path: path.to_owned(), error };
    let classify = |error: io::Error| match (error.kind(), timeout) {
        (ErrorKind::WouldBlock | ErrorKind::TimedOut, Some(timeout)) => ControlError::TimedOut(timeout),
        (ErrorKind::ConnectionReset | ErrorKind::BrokenPipe, _) => ControlError::Disconnected,
        _ => unreachable(error),
    };
    let mut stream = UnixStream::connect(path).map_err(unreachable)?;
    let deadline = timeout.map(|timeout| clock::now() + timeout);
    // A time-out of zero would be none.
    let left = || deadline.map(|deadline| deadline.since(clock::now()).max(Duration::from_millis(1)));
    stream.set_write_timeout(left()).map_err(unreachable)?;
    stream.write_all(request.to_line().as_bytes()).map_err(classify)?;
    let mut line = Vec::new();
    let mut chunk = [0; 1024];
    loop {
        // For all of it: an answer that comes byte by byte has no more time than any other.
        stream.set_read_timeout(left()).map_err(unreachable)?;
        match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(read) => line.extend_from_slice(&chunk[..read]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(classify(error)),
        }
        if line.len() > RESPONSE_BYTES_MAX {
            return Err(ControlError::InvalidResponse);
        }
        if let (Some(timeout), Some(deadline)) = (timeout, deadline)
            && clock::now() >= deadline
        {
            return Err(ControlError::TimedOut(timeout));
        }
    }
    if line.is_empty() {
        return Err(ControlError::Disconnected);
    }
    ControlResponse::from_line(&line).ok_or(ControlError::InvalidResponse)
}
