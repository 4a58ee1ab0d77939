//! Classifies the errors of the driver and of the servers.

#![expect(clippy::wildcard_enum_match_arm, reason = "the driver may come to fail in ways that it does not yet")]

use ::mongodb::error::{CommandError, Error, ErrorKind, WriteFailure};

use super::settings::{Login, Settings};
use crate::store::StoreError;
use crate::store::connection::errors::{one_line, with_network_advice};
use crate::store::connection::tls::TlsSettings;
use crate::store::connection::tls_errors::{TlsSide, tls_fault};

/// A document with this `_id` is there already.
const DUPLICATE_KEY: i32 = 11_000;

/// Whether another candidate has written the first record.
pub fn is_duplicate(error: &Error) -> bool {
    match error.kind.as_ref() {
        ErrorKind::Command(error) => error.code == DUPLICATE_KEY,
        ErrorKind::Write(WriteFailure::WriteError(error)) => error.code == DUPLICATE_KEY,
        _ => false,
    }
}

/// Whether the server has answered that a write is not confirmed, or a question not answered, in time.
pub fn is_unconfirmed(error: &Error) -> bool {
    match error.kind.as_ref() {
        ErrorKind::Command(error) => matches!(error.code, 50 | 64),
        ErrorKind::Write(WriteFailure::WriteConcernError(_)) => true,
        _ => false,
    }
}

/// The permission is missing; there is no such collection; there is no such command; a hosted server forbids it.
const DENIALS: [i32; 4] = [13, 26, 59, 8000];

/// The member is not the primary any more, is about to end, or cannot reach another one.
const PASSING: [i32; 12] = [6, 7, 89, 91, 189, 262, 9001, 10_107, 11_600, 11_602, 13_435, 13_436];

/// Whether the server has answered that this user, or this server, has no answer to the question.
pub fn is_denial(error: &Error) -> bool {
    matches!(error.kind.as_ref(), ErrorKind::Command(error) if DENIALS.contains(&error.code))
}

/// Whether the server has refused a command, and would do so again.
pub fn is_final(error: &Error) -> bool {
    matches!(error.kind.as_ref(), ErrorKind::Command(error) if !PASSING.contains(&error.code))
}

/// The server's word behind an error of the driver's.
fn code_behind(error: &Error) -> Option<i32> {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<Error>()
            && let ErrorKind::Command(error) = error.kind.as_ref()
        {
            return Some(error.code);
        }
        cause = error.source();
    }
    None
}

/// The other side, as messages need it.
#[derive(Debug, Clone)]
pub struct MongoPeer {
    address: String,
    login: Login,
    tls: TlsSettings,
}

impl MongoPeer {
    pub fn new(settings: &Settings) -> MongoPeer {
        MongoPeer { address: settings.shown.clone(), login: settings.login.clone(), tls: settings.tls.clone() }
    }

    /// The fault of TLS behind a text. The driver accepts no authority's own certificate from a server.
    fn tls_fault(&self, text: &str, plain_form: &str) -> Option<String> {
        tls_fault(text, TlsSide { accepts_named_ca: false, ..self.tls.side(plain_form) })
    }

    /// The advice after a login that has failed.
    fn login_advice(&self) -> String {
        let Login { user, auth_source, is_source_given, .. } = &self.login;
        let user = user.as_deref().unwrap_or_default();
        let source = format!("user {user:?}, looked for in the database {auth_source:?}");
        if *is_source_given || auth_source == "admin" {
            format!("({source}): check --username and --password-file, ELECT_PASSWORD or the URL, and authSource=")
        } else {
            format!(
                "({source}): if it is defined in another one, add ?authSource=admin to --store; otherwise check user and password"
            )
        }
    }
}

/// Whether no member has answered yet, and none has failed: a slow network, or a member that says nothing.
pub fn is_still_connecting(error: &Error) -> bool {
    matches!(error.kind.as_ref(), ErrorKind::ServerSelection { message, .. }
        if !message.contains("Error: ") && !message.contains("None of the available servers") && message.contains("Address: "))
}

/// Classifies a failure.
pub fn classify(peer: &MongoPeer, error: &Error) -> StoreError {
    let address = &peer.address;
    let unavailable = |what: String| StoreError::Unavailable(one_line(&format!("{address} {what}")));
    let refused = |what: String| StoreError::Refused(one_line(&format!("{address} {what}")));
    match error.kind.as_ref() {
        // Of a server that is about to end, or has just begun, a login fails as well.
        ErrorKind::Authentication { message, .. } => match code_behind(error) {
            None | Some(13 | 18 | 334 | 8000) => {
                let message = message.trim_end_matches(['.', ' ']);
                refused(format!("does not let us in: authentication failed {}: {message}", peer.login_advice()))
            }
            Some(code) => unavailable(format!("could not let us in: error {code}: {message}")),
        },
        ErrorKind::Command(error) => classify_command(peer, error),
        ErrorKind::Write(WriteFailure::WriteConcernError(error)) => {
            unavailable(format!("has not had the write confirmed by a majority: {}", error.message))
        }
        ErrorKind::ServerSelection { message, .. } => classify_selection(peer, message),
        ErrorKind::InvalidTlsConfig { message, .. } => {
            refused(format!("cannot be spoken to with these certificates: {message}"))
        }
        ErrorKind::InvalidArgument { message, .. } => refused(format!("cannot be asked: {message}")),
        ErrorKind::IncompatibleServer { message, .. } => {
            refused(format!("lacks a feature without which no election can be held: {message}: use MongoDB 4.4 or newer"))
        }
        ErrorKind::DnsResolve { .. } if address.starts_with("mongodb+srv") => unavailable(
            "is not known to the DNS: mongodb+srv://NAME needs an SRV record _mongodb._tcp.NAME, so check the name, or write \
             mongodb://HOST:PORT"
                .to_owned(),
        ),
        ErrorKind::DnsResolve { .. } => {
            unavailable("has a host name that is not known: check its spelling, and the DNS of this host".to_owned())
        }
        ErrorKind::Io(error) => match peer.tls_fault(&error.to_string(), "mongodb://") {
            Some(fault) => refused(fault),
            None => unavailable(format!("has ended the connection: {error}")),
        },
        ErrorKind::ConnectionPoolCleared { .. } => unavailable("has ended the connection".to_owned()),
        other => unavailable(format!("failed: {other}")),
    }
}

/// No primary was found: by the causes that the driver's description of its members names.
fn classify_selection(peer: &MongoPeer, message: &str) -> StoreError {
    let address = &peer.address;
    let causes = root_causes(message);
    let unavailable = |what: String| StoreError::Unavailable(one_line(&format!("{address} {what}")));
    if let Some(fault) = peer.tls_fault(&causes, "mongodb:// without tls=true") {
        return StoreError::Refused(one_line(&format!("{address} {fault}")));
    }
    // A server that wants a certificate says nothing else to a client without one, nor does one without TLS.
    if message.contains("close_notify") || message.contains("handshake eof") {
        return unavailable(format!(
            "has broken off the TLS handshake: it may want a certificate of elect's own (--tls-cert and --tls-key), or not trust it, \
             or serve without TLS: {causes}"
        ));
    }
    if message.contains("invalid reply") {
        return unavailable(format!(
            "does not speak the protocol of MongoDB: another program listens there, so check host and port of --store: {causes}"
        ));
    }
    if message.contains("unexpected end of file") || message.contains("early eof") {
        return unavailable(format!(
            "has ended the connection without an answer: if it serves with TLS, add ?tls=true to --store; otherwise check host and \
             port: {causes}"
        ));
    }
    if let Some(set) = peer.login.replica_set.as_ref().filter(|_| !message.contains("Error: ")) {
        return unavailable(format!(
            "has no primary: {causes}; no member answers as one of the replica set {set:?}: check replicaSet= in --store"
        ));
    }
    unavailable(format!("has no primary: {}", with_network_advice(&causes)))
}

/// Codes by which a server says that it does not know a command, an option or a stage, and will not know it later either.
const MISSING_FEATURES: [i32; 10] = [9, 14, 20, 59, 72, 115, 168, 238, 322, 40_324];

fn classify_command(peer: &MongoPeer, error: &CommandError) -> StoreError {
    let address = &peer.address;
    let CommandError { code, code_name, message, .. } = error;
    let unavailable = |what: String| StoreError::Unavailable(one_line(&format!("{address} {what}")));
    let refused = |what: String| StoreError::Refused(one_line(&format!("{address} {what}")));
    match code {
        13 if message.contains("requires authentication") => {
            refused("asks for a user: give --username, and --password-file or ELECT_PASSWORD".to_owned())
        }
        13 => refused(format!(
            "says permission denied: {} (a user needs find, insert and update on the collection boundaries)",
            without_command(message)
        )),
        2 => refused(format!("cannot do what elections need: {}", without_command(message))),
        code if MISSING_FEATURES.contains(code) => refused(format!(
            "lacks a feature without which no election can be held: {} (error {code} {code_name}): use MongoDB 4.4 or newer, or a \
             service that is compatible with it",
            without_command(message)
        )),
        18 | 8000 => refused(format!("does not let us in: {message} {}", peer.login_advice())),
        50 | 64 => unavailable("has not done it, or not had it confirmed by a majority, in time".to_owned()),
        // All the codes of a member that is not the primary, or not any more, or is about to end.
        91 | 189 | 10_058 | 10_107 | 11_600 | 11_602 | 13_435 | 13_436 => {
            unavailable(format!("is not the primary, or not for long: {code_name}"))
        }
        _ if code_name.is_empty() => unavailable(format!("says error {code}: {message}")),
        _ => unavailable(format!("says {code_name}: {message}")),
    }
}

/// Whether the server has no hints for this user, or none at all, and asking again soon does not help. Not so a cursor that has
/// lost its place or was killed.
pub fn is_refusal(error: &Error) -> bool {
    match error.kind.as_ref() {
        ErrorKind::Command(error) => {
            DENIALS.contains(&error.code)
                || MISSING_FEATURES.contains(&error.code)
                || matches!(error.code, 2 | 73 | 166)
        }
        _ => false,
    }
}

/// Whether there is a collection of that name, of whatever kind.
pub fn is_present_already(error: &Error) -> bool {
    matches!(error.kind.as_ref(), ErrorKind::Command(error) if error.code == 48)
}

/// The error in short form, for the log.
pub fn short_message(error: &Error) -> String {
    match error.kind.as_ref() {
        ErrorKind::Command(error) => one_line(&without_command(&error.message)),
        other => one_line(&other.to_string()),
    }
}

/// Servers repeat the whole command that they do not execute: its name is enough.
fn without_command(message: &str) -> String {
    match message.split_once(" { ") {
        Some((what, command)) => format!("{what} {}", command.split(':').next().unwrap_or_default()),
        None => message.to_owned(),
    }
}

/// The causes in the driver's description of a whole topology, each once.
fn root_causes(message: &str) -> String {
    let mut causes: Vec<&str> = Vec::new();
    for part in message.split("Error: ").skip(1) {
        let end = part.find(" }").unwrap_or(part.len());
        let cause = part.get(..end).unwrap_or(part);
        // Its own words around the kind of the error.
        let cause = cause.strip_prefix("Kind: ").unwrap_or(cause);
        let cause = cause.split(", labels: ").next().unwrap_or(cause);
        // The address of a manual of rustls.
        let cause = cause.split(": https://").next().unwrap_or(cause).trim();
        if !causes.contains(&cause) {
            causes.push(cause);
        }
    }
    match causes[..] {
        [] if message.contains("None of the available servers") => "no member that answers is one".to_owned(),
        [] => "nobody answers".to_owned(),
        _ => causes.join("; "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_topology_is_reported_by_its_causes() {
        let message = "Server selection timeout: No available servers. Topology: { Type: ReplicaSetNoPrimary, Servers: [ \
            { Address: h1:1, Type: Unknown, Error: Kind: I/O error: Connection refused (os error 111), labels: {} }, \
            { Address: h2:1, Type: Unknown, Error: Kind: I/O error: Connection refused (os error 111), labels: {} }, \
            { Address: h3:1, Type: Unknown, Error: Kind: I/O error: timed out, labels: {} } ] }";
        assert_eq!(root_causes(message), "I/O error: Connection refused (os error 111); I/O error: timed out");
        assert_eq!(root_causes("Server selection timeout: No available servers. Topology: { }"), "nobody answers");
    }

    #[test]
    fn of_a_command_that_is_refused_the_name_is_repeated() {
        let message = "not authorized on elect to execute command { aggregate: \"boundaries\", x: { y: 1 } }";
        assert_eq!(without_command(message), "not authorized on elect to execute command aggregate");
        assert_eq!(without_command("requires authentication"), "requires authentication");
    }
}
