//! Which candidate on this host a control command is for, and one request to it.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use clap::Args;
use nix::unistd::geteuid;

use crate::config::RuntimeDirFlag;
use crate::control::{self, ControlOutcome, ControlRequest, ControlResponse, NotTrusted, SocketDirectory, Trust};
use crate::duration::parse_duration;
use crate::exit::Exit;
use crate::text::escaped;
use elect_core::Time;
use elect_core::boundary::Boundary;
use elect_keeper::clock;

/// The time that the candidates that may be meant have to answer with their identity, all together.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// An answer is shorter.
const RESPONSE_BYTES_MAX: usize = 16 * 1024;
/// The candidates that are asked at once.
const THREADS_MAX: usize = 128;

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
    id: Option<String>,

    /// How long to wait for the answer
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub timeout: Option<Duration>,

    #[command(flatten)]
    runtime: RuntimeDirFlag,
}

/// A variable that is set, and not empty.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

impl ControlTarget {
    fn named_boundary(&self) -> Option<&str> {
        self.argument.as_deref().or(self.flag.as_deref())
    }

    /// Whether the candidate of the command that we are part of is meant: it is, unless another one is named.
    fn is_own(&self) -> bool {
        let same = |named: Option<&str>, own: &str| named.is_none_or(|named| variable(own).as_deref() == Some(named));
        variable("ELECT_ROLE").is_some()
            && same(self.named_boundary(), "ELECT_BOUNDARY")
            && same(self.id.as_deref(), "ELECT_ID")
    }

    /// The term of that command: an answer about another term would be about another leader.
    pub fn own_term(&self) -> Option<u64> {
        self.own_socket()?;
        variable("ELECT_TERM")?.parse().ok()
    }

    /// Its candidate's socket. Where only that variable is left, it counts as well.
    fn own_socket(&self) -> Option<PathBuf> {
        let path = std::env::var_os("ELECT_SOCKET").filter(|path| !path.is_empty())?;
        (self.is_own() || (self.named_boundary().is_none() && self.id.is_none())).then(|| path.into())
    }
}

/// The time that a request may take.
#[derive(Debug, Clone, Copy)]
pub struct TimeLimit {
    whole: Duration,
    deadline: Time,
}

impl TimeLimit {
    /// Counts from now on.
    pub fn new(whole: Duration) -> TimeLimit {
        TimeLimit { whole, deadline: clock::now() + whole }
    }

    /// All of it.
    pub fn whole(self) -> Duration {
        self.whole
    }

    /// Whether nothing is left of it.
    pub fn is_over(self) -> bool {
        clock::now() >= self.deadline
    }
}

/// A candidate's socket, and the users that may answer there.
#[derive(Debug)]
pub struct CandidateSocket {
    path: PathBuf,
    trust: Trust,
    /// The candidate whose socket it is, if that is known: a file can be moved.
    id: Option<String>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("which boundary? name it with --boundary (inside a command of elect's it is known)")]
    NotNamed,
    #[error(transparent)]
    Boundary(#[from] elect_core::boundary::BoundaryError),
    #[error("{0}")]
    RuntimeDir(String),
    #[error(
        "no candidate of this user campaigns for {boundary} on this host{} (looked in {})",
        of(.id.as_deref()), directory.display()
    )]
    NoCandidate { boundary: String, id: Option<String>, directory: PathBuf },
    #[error(
        "the candidate of {boundary} has no control socket, and its log says why: start it with --runtime-dir DIR, a \
         directory that it may write to (looked in {})",
        directory.display()
    )]
    NoSocket { boundary: String, directory: PathBuf },
    #[error("several candidates of this host campaign for {boundary}: choose one with --id: {}", .candidates.join(", "))]
    Ambiguous { boundary: String, candidates: Vec<String> },
    #[error(
        "{}: Permission denied: uid {} may not control this candidate, which another user started; start elect with \
         --runtime-dir DIR, where DIR may be written to by a group of both users, or ask the store instead: elect status \
         --json, and compare the term with ELECT_TERM",
        path.display(), geteuid()
    )]
    Denied { path: PathBuf },
    #[error("{}: {server}; a --runtime-dir has to belong to the user of elect, or to root", path.display())]
    NotTrusted { path: PathBuf, server: String },
    #[error("{}: {error}", path.display())]
    Unreachable { path: PathBuf, error: io::Error },
    #[error("the candidate did not answer within {}", humantime::format_duration(*.0))]
    TimedOut(Duration),
    #[error("{}: another candidate answers there, and not {id}: nothing was done", path.display())]
    OtherCandidate { path: PathBuf, id: String },
    #[error("the candidate ended without an answer")]
    Disconnected,
    #[error("the candidate's answer is not understood: is it another version of elect?")]
    InvalidResponse,
}

fn of(id: Option<&str>) -> String {
    id.map(|id| format!(" as {id}")).unwrap_or_default()
}

impl ControlError {
    pub fn exit(&self) -> Exit {
        match self {
            ControlError::NotNamed
            | ControlError::Boundary(_)
            | ControlError::RuntimeDir(_)
            | ControlError::Ambiguous { .. } => Exit::Usage,
            ControlError::Denied { .. } | ControlError::NotTrusted { .. } => Exit::Refused,
            ControlError::TimedOut(_) => Exit::NotElected,
            ControlError::NoCandidate { .. }
            | ControlError::NoSocket { .. }
            | ControlError::Unreachable { .. }
            | ControlError::Disconnected
            | ControlError::OtherCandidate { .. }
            | ControlError::InvalidResponse => Exit::Unavailable,
        }
    }

    fn of_connection(path: &Path, error: io::Error) -> ControlError {
        let path = path.to_owned();
        match error.get_ref().and_then(|inner| inner.downcast_ref::<NotTrusted>()) {
            Some(server) => ControlError::NotTrusted { path, server: server.to_string() },
            None if error.kind() == ErrorKind::PermissionDenied => ControlError::Denied { path },
            None => ControlError::Unreachable { path, error },
        }
    }
}

/// The socket of the candidate that is meant, within `limit` and [`PROBE_TIMEOUT`].
pub fn find_socket(
    target: &ControlTarget,
    request: &ControlRequest,
    limit: Option<TimeLimit>,
) -> Result<CandidateSocket, ControlError> {
    let longest = TimeLimit::new(PROBE_TIMEOUT);
    let limit = limit.filter(|limit| limit.deadline < longest.deadline).unwrap_or(longest);
    let directory = SocketDirectory::new(target.runtime.runtime_dir.as_deref()).map_err(ControlError::RuntimeDir)?;
    if let Some(path) = target.own_socket() {
        let trust = if path.parent() == Some(directory.path()) { directory.trust() } else { Trust::default() };
        // The path names the candidate, too: where ELECT_ID is not left, another one must not answer for it.
        let id = target.id.clone().or_else(|| variable("ELECT_ID")).or_else(|| control::parse_socket_name(&path).1);
        return Ok(CandidateSocket { path, trust, id });
    }
    let named = target.named_boundary().map(str::to_owned).or_else(|| variable("ELECT_BOUNDARY"));
    // Which store it is in, the candidate knows.
    let boundary = Boundary::shared(&named.ok_or(ControlError::NotNamed)?)?;
    let id = target.id.clone().or_else(|| variable("ELECT_ID").filter(|_| target.is_own()));
    let looked_in = directory.path().to_owned();
    let none = || {
        if target.is_own() {
            ControlError::NoSocket { boundary: boundary.to_string(), directory: looked_in.clone() }
        } else {
            ControlError::NoCandidate { boundary: boundary.to_string(), id: id.clone(), directory: looked_in.clone() }
        }
    };
    let trust = directory.trust();
    let possible = match directory.sockets(Some(boundary.as_str())) {
        Ok(possible) => possible,
        // The default directory of a file's place, or another user's: no candidate of this user is there.
        Err(_) if !directory.is_named() => return Err(none()),
        Err(error) => return Err(ControlError::of_connection(directory.path(), error)),
    };
    let (mut found, mut probe_error) = (Vec::new(), None);
    let asked = ask_each(&possible, |path| {
        let socket = CandidateSocket::new(path.to_owned(), trust.clone());
        let response = socket.exchange(&ControlRequest::Hello, Some(limit));
        (socket, response)
    });
    for (mut socket, response) in asked {
        match response {
            Ok(response)
                if response.boundary == boundary.as_str() && id.as_ref().is_none_or(|id| *id == response.id) =>
            {
                socket.id = Some(response.id.clone());
                found.push((socket, format!("{} ({})", response.id, escaped(&response.name))));
            }
            // The former was put there by another user, who may be anybody in a shared directory.
            Err(ControlError::NotTrusted { .. }) | Ok(_) => {}
            // Its candidate was killed and could not take it away.
            Err(ControlError::Unreachable { error, .. }) if error.kind() == ErrorKind::ConnectionRefused => {
                control::remove_if_dead(&socket.path);
            }
            // It may be the one.
            Err(error) => probe_error = Some(error),
        }
    }
    match (found.len(), probe_error) {
        (0, Some(probe_error)) => Err(probe_error),
        (0, None) => Err(none()),
        // Whether *this* one leads is no question about several.
        (1, _) => found.pop().map(|(socket, _)| socket).ok_or_else(none),
        (_, _) if is_for_one(request) => Err(ambiguous(&boundary, found)),
        // A request that only a leader can fulfil is for the one that leads.
        (_, _) => {
            let leads = |(socket, _): &(CandidateSocket, String)| {
                let response = socket.exchange(&ControlRequest::Assert { term: None }, Some(limit));
                response.is_ok_and(|response| matches!(response.outcome, ControlOutcome::Yes { .. }))
            };
            match ask_each(&found, leads).iter().enumerate().filter(|(_, leads)| **leads).collect::<Vec<_>>()[..] {
                [(index, _)] => Ok(found.swap_remove(index).0),
                _ => Err(ambiguous(&boundary, found)),
            }
        }
    }
}

/// Whether several candidates are one too many for it, also if only one of them leads.
fn is_for_one(request: &ControlRequest) -> bool {
    match request {
        ControlRequest::Assert { .. } | ControlRequest::Drain | ControlRequest::Undrain => true,
        ControlRequest::Hello
        | ControlRequest::Status
        | ControlRequest::Resign
        | ControlRequest::ResignTo(_)
        | ControlRequest::Proclaim { .. } => false,
    }
}

fn ambiguous(boundary: &Boundary, found: Vec<(CandidateSocket, String)>) -> ControlError {
    let candidates = found.into_iter().map(|(_, candidate)| candidate).collect();
    ControlError::Ambiguous { boundary: boundary.to_string(), candidates }
}

/// Asks a question of each, of many at once, so that silent candidates do not add up. The results are in the same order.
pub fn ask_each<Q: Sync, R: Send>(all: &[Q], ask: impl Fn(&Q) -> R + Sync) -> Vec<R> {
    let mut results = Vec::new();
    for some in all.chunks(THREADS_MAX) {
        thread::scope(|scope| {
            let ask = &ask;
            let start = |one| thread::Builder::new().spawn_scoped(scope, move || ask(one));
            let started: Vec<_> = some.iter().map(|one| (one, start(one))).collect();
            for (one, thread) in started {
                // Without a thread it is asked here.
                results.push(match thread {
                    Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
                    Err(_) => ask(one),
                });
            }
        });
    }
    results
}

impl CandidateSocket {
    /// At that path, where these users may answer.
    pub fn new(path: PathBuf, trust: Trust) -> CandidateSocket {
        CandidateSocket { path, trust, id: None }
    }

    /// Sends a request and reads the answer, within `limit` altogether.
    pub fn exchange(
        &self,
        request: &ControlRequest,
        limit: Option<TimeLimit>,
    ) -> Result<ControlResponse, ControlError> {
        let path = self.path.as_path();
        let unreachable = |error| ControlError::Unreachable { path: path.to_owned(), error };
        let classify = |error: io::Error| match (error.kind(), limit) {
            (ErrorKind::WouldBlock | ErrorKind::TimedOut, Some(limit)) => ControlError::TimedOut(limit.whole),
            (ErrorKind::ConnectionReset | ErrorKind::BrokenPipe, _) => ControlError::Disconnected,
            _ => ControlError::of_connection(path, error),
        };
        // A time-out of zero would be none.
        let left = || limit.map(|limit| limit.deadline.since(clock::now()).max(Duration::from_millis(1)));
        let mut stream: UnixStream = control::connect(path, &self.trust, left()).map_err(classify)?;
        stream.set_write_timeout(left()).map_err(unreachable)?;
        stream.write_all(request.to_line(self.id.as_deref()).as_bytes()).map_err(classify)?;
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
            if let Some(limit) = limit
                && clock::now() >= limit.deadline
            {
                return Err(ControlError::TimedOut(limit.whole));
            }
        }
        if line.is_empty() {
            return Err(ControlError::Disconnected);
        }
        let response = ControlResponse::from_line(&line).ok_or(ControlError::InvalidResponse)?;
        match &self.id {
            Some(id) if *id != response.id => {
                Err(ControlError::OtherCandidate { path: path.to_owned(), id: id.clone() })
            }
            Some(_) | None => Ok(response),
        }
    }
}
