//! `elect assert`, `extend`, `drain`, `undrain`, `proclaim`, and `resign` without a successor: one request to a candidate on this
//! host, over its control socket.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::fail;
use super::find_candidate::{ControlTarget, TimeLimit, find_socket};
use super::stdout::print;
use crate::config::{self, ConfigError};
use crate::control::{ControlOutcome, ControlRequest};
use crate::exit::Exit;
use crate::host_port::HostPort;
use elect_core::Term;
use elect_keeper::clock;

/// Flags of `elect extend`.
#[derive(Debug, Args)]
pub struct ExtendFlags {
    #[command(flatten)]
    target: ControlTarget,

    /// The answer as a JSON object
    ///
    /// `{"boundary", "term", "left_ms"}`; `left_ms` is null where leadership has no end.
    #[arg(long)]
    json: bool,
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
    send(target, &ControlRequest::Assert { term: target.own_term() }, Some(RESPONSE_TIMEOUT), |_| String::new())
}

pub fn extend(ExtendFlags { target, json }: &ExtendFlags) -> ExitCode {
    send(target, &ControlRequest::Assert { term: target.own_term() }, Some(RESPONSE_TIMEOUT), |extended| {
        (if *json { extended.to_json() } else { extended.seconds() }) + "\n"
    })
}

/// The command may take its stop time-out to end, and more; a lease whose release is not confirmed runs out first.
pub fn drain(target: &ControlTarget) -> ExitCode {
    send(target, &ControlRequest::Drain, None, |_| String::new())
}

pub fn undrain(target: &ControlTarget) -> ExitCode {
    send(target, &ControlRequest::Undrain, Some(RESPONSE_TIMEOUT), |_| String::new())
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
        |_| String::new(),
    )
}

/// A candidate that works answers within a lease; one that does not answer is no leader to rely on.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);

/// The answer of a leader after a renewal.
pub struct ExtendedLease {
    boundary: String,
    term: Option<Term>,
    /// The rest of the lease; `None`: it has no end.
    left: Option<Duration>,
}

impl ExtendedLease {
    fn seconds(&self) -> String {
        self.left.map_or_else(|| "no end".to_owned(), |left| format!("{:.3}", left.as_secs_f64()))
    }

    fn to_json(&self) -> String {
        #[derive(Serialize)]
        struct ExtendDocument<'a> {
            boundary: &'a str,
            term: Option<Term>,
            left_ms: Option<u64>,
        }
        let left_ms = self.left.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
        let document = ExtendDocument { boundary: &self.boundary, term: self.term, left_ms };
        serde_json::to_string(&document).expect("texts and numbers become JSON")
    }
}

/// The result of a drain (H8).
fn drained(released: bool) -> String {
    let how = if released {
        "the store confirms that the candidate holds nothing"
    } else {
        "the release is not confirmed, and the lease has run out"
    };
    format!("drained: {how}\n")
}

pub fn send(
    target: &ControlTarget,
    request: &ControlRequest,
    default_timeout: Option<Duration>,
    answer: impl FnOnce(&ExtendedLease) -> String,
) -> ExitCode {
    let limit = target.timeout.or(default_timeout).map(TimeLimit::new);
    let found = match find_socket(target, request, limit) {
        Ok(socket) => socket,
        Err(error) => return fail(error.exit(), &error.to_string()),
    };
    let asked = clock::now();
    match found.exchange(request, limit) {
        Ok(response) => match response.outcome {
            ControlOutcome::Yes { term, lease_left_ms } => {
                let left =
                    lease_left_ms.map(|left| Duration::from_millis(left).saturating_sub(clock::now().since(asked)));
                // We may have been frozen between the answer and now, and so may the whole host.
                if left == Some(Duration::ZERO) {
                    return fail(Exit::No, "the lease ran out before its answer was read");
                }
                print(answer(&ExtendedLease { boundary: response.boundary, term, left }), Exit::Success.into())
            }
            ControlOutcome::Drained { released } => print(drained(released), Exit::Success.into()),
            ControlOutcome::Status(_) => fail(Exit::Unavailable, "the candidate has answered another question"),
            ControlOutcome::No { why } => fail(Exit::No, &why),
            ControlOutcome::Refused { why } => fail(Exit::Refused, &why),
        },
        Err(error) => fail(error.exit(), &error.to_string()),
    }
}
