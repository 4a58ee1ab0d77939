//! `elect assert`, `extend`, `resign`, `proclaim`: a word with a candidate on this host, over its control socket.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::fail;
use crate::boundary::Boundary;
use crate::clock;
use crate::config::{self, Address, ConfigError, duration};
use crate::exit::Exit;
use crate::surface::control::{self, Answer, Verdict, Wish};

/// How long a candidate that may be the one may take to say who it is.
const HELLO: Duration = Duration::from_secs(2);
/// An answer is shorter.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

/// Which candidate is meant.
#[derive(Debug, Args)]
pub struct Whom {
    /// The boundary [default: inside a command of elect's, that command's own candidate]
    #[arg(short, long, value_name = "NAME")]
    pub boundary: Option<String>,

    /// The candidate, where several on this host campaign for it
    #[arg(long, value_name = "ID")]
    pub id: Option<String>,

    /// How long to wait for the answer
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub timeout: Option<Duration>,
}

/// Flags of `elect proclaim`.
#[derive(Debug, Args)]
pub struct ProclaimFlags {
    /// What people are shown
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,

    /// What followers are told
    #[arg(long, value_name = "HOST[:PORT]")]
    pub advertise: Option<Address>,

    #[command(flatten)]
    pub whom: Whom,
}

pub fn assert(whom: &Whom) -> ExitCode {
    speak(whom, &Wish::Assert { term: own_term(whom) }, Some(PATIENCE), |_| {})
}

pub fn extend(whom: &Whom) -> ExitCode {
    speak(whom, &Wish::Assert { term: own_term(whom) }, Some(PATIENCE), |left| {
        let text = match left {
            Some(left) => humantime::format_duration(left).to_string(),
            None => "no end".to_owned(),
        };
        // Into a closed pipe: nobody wanted it.
        let _ = writeln!(io::stdout(), "{text}");
    })
}

/// The command may take its stop time-out to end, and more.
pub fn resign(whom: &Whom) -> ExitCode {
    speak(whom, &Wish::Resign, None, |_| {})
}

pub fn proclaim(flags: &ProclaimFlags) -> ExitCode {
    if flags.name.is_none() && flags.advertise.is_none() {
        return fail(Exit::Usage, "proclaim what? give --name, --advertise or both");
    }
    let host = flags.advertise.as_ref().map(|address| address.host.as_str());
    for (flag, text) in [("--name", flags.name.as_deref()), ("--advertise", host)] {
        if text.is_some_and(|text| !config::is_nameable(text)) {
            return fail(Exit::Usage, &ConfigError::Name { flag }.to_string());
        }
    }
    let advertise = flags.advertise.as_ref().map(ToString::to_string);
    speak(&flags.whom, &Wish::Proclaim { name: flags.name.clone(), advertise }, Some(PATIENCE), |_| {})
}

/// A candidate that works answers within a lease; one that does not answer is no leader to rely on.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum SpeakError {
    #[error("which boundary? name it with --boundary (inside a command of elect's it is known)")]
    NotNamed,
    #[error(transparent)]
    Boundary(#[from] crate::boundary::BoundaryError),
    #[error("no candidate of this user campaigns for {boundary} on this host{}", of(.id.as_deref()))]
    Nobody { boundary: String, id: Option<String> },
    #[error("several candidates of this host campaign for {boundary}: choose one with --id: {}", .ids.join(", "))]
    Several { boundary: String, ids: Vec<String> },
    #[error("{}: {error}", path.display())]
    Unreachable { path: PathBuf, error: io::Error },
    #[error("the candidate did not answer within {}", humantime::format_duration(*.0))]
    TimedOut(Duration),
    #[error("the candidate ended without an answer")]
    HungUp,
    #[error("the candidate's answer is not understood: is it another version of elect?")]
    Nonsense,
}

fn of(id: Option<&str>) -> String {
    id.map(|id| format!(" as {id}")).unwrap_or_default()
}

impl SpeakError {
    fn exit(&self) -> Exit {
        match self {
            SpeakError::NotNamed | SpeakError::Boundary(_) | SpeakError::Several { .. } => Exit::Usage,
            SpeakError::Unreachable { error, .. } if error.kind() == ErrorKind::PermissionDenied => Exit::Refused,
            SpeakError::TimedOut(_) => Exit::NotElected,
            SpeakError::Nobody { .. } | SpeakError::Unreachable { .. } | SpeakError::HungUp | SpeakError::Nonsense => {
                Exit::Unavailable
            }
        }
    }
}

fn speak(whom: &Whom, wish: &Wish, by_default: Option<Duration>, yes: impl FnOnce(Option<Duration>)) -> ExitCode {
    let patience = whom.timeout.or(by_default);
    let found = match find(whom, wish) {
        Ok(path) => path,
        Err(error) => return fail(error.exit(), &error.to_string()),
    };
    let asked = clock::now();
    match ask(&found, wish, patience) {
        Ok(answer) => match answer.verdict {
            Verdict::Yes { lease_left_ms, .. } => {
                let left =
                    lease_left_ms.map(|left| Duration::from_millis(left).saturating_sub(clock::now().since(asked)));
                // We may have been frozen between the answer and now, and so may the whole host.
                if left == Some(Duration::ZERO) {
                    return fail(Exit::No, "the lease ran out before its answer was read");
                }
                yes(left);
                Exit::Success.into()
            }
            Verdict::No { why } => fail(Exit::No, &why),
            Verdict::Refused { why } => fail(Exit::Refused, &why),
        },
        Err(error) => fail(error.exit(), &error.to_string()),
    }
}

/// The term of the command that we are part of: an answer about another one would be about somebody else.
fn own_term(whom: &Whom) -> Option<u64> {
    own_socket(whom)?;
    std::env::var("ELECT_TERM").ok()?.parse().ok()
}

/// Inside a command its own candidate is meant, unless another one is named.
fn own_socket(whom: &Whom) -> Option<PathBuf> {
    let inside = std::env::var("ELECT_BOUNDARY").ok();
    let same_boundary = whom.boundary.is_none() || whom.boundary == inside;
    let same_id = whom.id.is_none() || whom.id == std::env::var("ELECT_ID").ok();
    let path = std::env::var_os("ELECT_SOCKET").filter(|path| !path.is_empty())?;
    (same_boundary && same_id).then(|| path.into())
}

fn find(whom: &Whom, wish: &Wish) -> Result<PathBuf, SpeakError> {
    if let Some(path) = own_socket(whom) {
        return Ok(path);
    }
    let boundary: Boundary = whom.boundary.as_deref().ok_or(SpeakError::NotNamed)?.parse()?;
    let nobody = || SpeakError::Nobody { boundary: boundary.to_string(), id: whom.id.clone() };
    let Ok(directory) = control::directory() else { return Err(nobody()) };
    let possible = control::candidates_of(&directory, boundary.as_str())
        .map_err(|error| SpeakError::Unreachable { path: directory.clone(), error })?;
    let mut found = Vec::new();
    let mut silent = None;
    for path in possible {
        match ask(&path, &Wish::Hello, Some(HELLO)) {
            Ok(answer)
                if answer.boundary == boundary.as_str() && whom.id.as_ref().is_none_or(|id| *id == answer.id) =>
            {
                found.push((path, answer.id));
            }
            Ok(_) => {}
            // Its candidate was killed and could not take it away.
            Err(SpeakError::Unreachable { error, .. }) if error.kind() == ErrorKind::ConnectionRefused => {
                let _ = std::fs::remove_file(&path);
            }
            // It may be the one.
            Err(error) => silent = Some(error),
        }
    }
    match (found.as_slice(), silent) {
        ([(path, _)], _) => Ok(path.clone()),
        ([], Some(silent)) => Err(silent),
        ([], None) => Err(nobody()),
        // Whether *this* one leads is no question about several; what only a leader can do is for the one that leads.
        ([_, _, ..], _) => {
            if !matches!(wish, Wish::Assert { .. }) {
                let leads = |path: &PathBuf| {
                    let answer = ask(path, &Wish::Assert { term: None }, Some(HELLO));
                    answer.is_ok_and(|answer| matches!(answer.verdict, Verdict::Yes { .. }))
                };
                let mut leaders = found.iter().filter(|(path, _)| leads(path));
                if let (Some((path, _)), None) = (leaders.next(), leaders.next()) {
                    return Ok(path.clone());
                }
            }
            let ids = found.into_iter().map(|(_, id)| id).collect();
            Err(SpeakError::Several { boundary: boundary.to_string(), ids })
        }
    }
}

fn ask(path: &Path, wish: &Wish, patience: Option<Duration>) -> Result<Answer, SpeakError> {
    let unreachable = |error| SpeakError::Unreachable { path: path.to_owned(), error };
    let trouble = |error: io::Error| match (error.kind(), patience) {
        (ErrorKind::WouldBlock | ErrorKind::TimedOut, Some(patience)) => SpeakError::TimedOut(patience),
        (ErrorKind::ConnectionReset | ErrorKind::BrokenPipe, _) => SpeakError::HungUp,
        _ => unreachable(error),
    };
    let mut stream = UnixStream::connect(path).map_err(unreachable)?;
    let by = patience.map(|patience| clock::now() + patience);
    // A time-out of zero would be none.
    let left = || by.map(|by| by.since(clock::now()).max(Duration::from_millis(1)));
    stream.set_write_timeout(left()).map_err(unreachable)?;
    stream.write_all(wish.to_line().as_bytes()).map_err(trouble)?;
    let mut line = Vec::new();
    let mut chunk = [0; 1024];
    loop {
        // For all of it: an answer that comes byte by byte has no more time than any other.
        stream.set_read_timeout(left()).map_err(unreachable)?;
        match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(read) => line.extend_from_slice(&chunk[..read]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(trouble(error)),
        }
        if line.len() > ANSWER_BYTES_MAX {
            return Err(SpeakError::Nonsense);
        }
        if let (Some(patience), Some(by)) = (patience, by)
            && clock::now() >= by
        {
            return Err(SpeakError::TimedOut(patience));
        }
    }
    if line.is_empty() {
        return Err(SpeakError::HungUp);
    }
    Answer::from_line(&line).ok_or(SpeakError::Nonsense)
}
