//! Classifies the errors of a Redis.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;

use redis::{ErrorKind, RedisError};

use super::reply_filter::Excess;
use super::settings::Settings;
use crate::store::StoreError;
use crate::store::connection::errors::{excerpt, root_cause};
use crate::store::connection::tls::TlsSettings;
use crate::store::connection::tls_errors::tls_fault;

/// The other side of a connection, and how it is spoken to: what messages need.
#[derive(Debug, Clone)]
pub struct RedisPeer {
    name: String,
    user: Option<String>,
    has_password: bool,
    tls: Option<TlsSettings>,
}

impl RedisPeer {
    pub fn new(name: String, settings: &Settings) -> RedisPeer {
        let has_password = settings.password.is_some();
        RedisPeer { name, user: settings.username.clone(), has_password, tls: settings.tls.clone() }
    }

    /// The error of a first command: a server with TLS ends a connection without it, and so does another program.
    pub fn at_login(&self, error: StoreError) -> StoreError {
        match error {
            StoreError::Unavailable(message) if self.tls.is_none() && message.contains(ENDED) => {
                StoreError::Unavailable(format!(
                    "{message}: if it serves with TLS, write rediss://; otherwise check host and port of --store"
                ))
            }
            same @ (StoreError::Unavailable(_)
            | StoreError::Connecting(_)
            | StoreError::Refused(_)
            | StoreError::Obstacle(_)
            | StoreError::Misused(_)) => same,
        }
    }

    /// The user, as Redis names the one that nobody has named.
    fn user(&self) -> &str {
        self.user.as_deref().unwrap_or("default")
    }
}

impl fmt::Display for RedisPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// A call that failed.
pub struct ClassifiedError {
    pub error: StoreError,
    /// Whether this connection, or this server, is not the one to ask again.
    pub try_other_server: bool,
}

/// The meaning of a failed call.
pub fn classify(server: &RedisPeer, error: &RedisError) -> ClassifiedError {
    let unavailable = |what: String, try_other_server| ClassifiedError {
        error: StoreError::Unavailable(format!("{server} {what}")),
        try_other_server,
    };
    let refused = |what: String| ClassifiedError {
        error: StoreError::Refused(format!("{server} {what}")),
        try_other_server: false,
    };
    let said = excerpt(error.detail().unwrap_or_default());
    let said = said.as_str();
    let code = error.code().map(|code| unwrap_script_error(code, said));
    if let Some((what, try_other_server)) = code.and_then(trouble) {
        return unavailable(what.to_owned(), try_other_server);
    }
    if let Some(what) = refusal(server, code.unwrap_or_default(), said)
        .or_else(|| missing_feature(error.code().unwrap_or_default(), said))
    {
        return refused(what);
    }
    let kind = error.kind();
    if kind == ErrorKind::AuthenticationFailed {
        return refused(match said {
            said if said.is_empty() || said.contains("invalid") => wrong_password(server),
            said if said.contains("without any password configured") => format!(
                "has no password for the user {:?}, and one was given: leave the password out, or name the user that has it",
                server.user()
            ),
            said => format!("does not let the user {:?} in: {said}", server.user()),
        });
    }
    if kind == ErrorKind::RESP3NotSupported {
        return refused(
            "lacks the command HELLO 3 (RESP3), which Redis has since version 6: use a newer one".to_owned(),
        );
    }
    if matches!(kind, ErrorKind::Server(_) | ErrorKind::Extension) {
        let code = excerpt(error.code().unwrap_or_default());
        return unavailable(format!("says {code} {said}").trim_end().to_owned(), false);
    }
    if let Some(excess) = excess(error) {
        return unavailable(excess.to_string(), true);
    }
    let reason = root_cause(error);
    let fault = server.tls.as_ref().and_then(|tls| tls_fault(&reason, tls.side("redis://")));
    if let Some(fault) = fault {
        refused(fault)
    } else if reason.starts_with(NOT_IN_TIME) {
        unavailable(reason, true)
    } else if server.tls.is_some() && is_handshake_end(&reason) {
        unavailable(
            format!(
                "has ended the TLS handshake ({reason}): for a server without TLS write redis://; a server that wants a certificate \
                 of elect's own gets it with --tls-cert and --tls-key"
            ),
            true,
        )
    } else if error.is_connection_refusal() || !error.is_connection_dropped() {
        unavailable(format!("cannot be reached: {}", with_advice(&reason)), true)
    } else {
        unavailable(format!("{ENDED}: {reason}"), true)
    }
}

/// The state of a server by the code of its error: it may pass. True: another server may do better.
fn trouble(code: &str) -> Option<(&'static str, bool)> {
    Some(match code {
        "LOADING" => ("is still loading its data", true),
        "READONLY" => ("is a replica, and not the primary any more", true),
        "MASTERDOWN" => ("is a replica without a primary", true),
        "UNBLOCKED" => ("is not the primary any more", true),
        "BUSY" => ("is busy with a script (SCRIPT KILL ends it)", false),
        "OOM" => ("is out of memory, and takes no writes", false),
        "MISCONF" => ("takes no writes since it cannot save them to its disk", false),
        "NOREPLICAS" => ("takes no writes: it has fewer replicas than min-replicas-to-write", false),
        _ => return None,
    })
}

const CLUSTER: &str = "belongs to a Redis Cluster, which cannot hold elections: use a Redis of its own";

/// The reason for which a server refuses this client, or elect this server.
fn refusal(server: &RedisPeer, code: &str, said: &str) -> Option<String> {
    Some(match code {
        "NOAUTH" => "asks for a password: give --password-file or ELECT_PASSWORD, and --username".to_owned(),
        "WRONGPASS" => wrong_password(server),
        "NOPERM" => {
            let user = server.user();
            format!("says permission denied: {said} (user {user:?}; elect-stores(7) lists the rules that a user needs)")
        }
        "DENIED" => {
            "is in protected mode, which lets no other host in without a password: set requirepass or a user there"
                .to_owned()
        }
        "MOVED" | "ASK" | "CLUSTERDOWN" | "CROSSSLOT" => CLUSTER.to_owned(),
        _ if said.contains("not allowed in cluster mode") => CLUSTER.to_owned(),
        _ if said.contains("DB index is out of range") => {
            "has no database with the number in --store: give a smaller one, or leave it out".to_owned()
        }
        _ => return None,
    })
}

const ENDED: &str = "has ended the connection";
/// The beginning of the words about a limit of time.
const NOT_IN_TIME: &str = "did not answer in time";

fn is_handshake_end(reason: &str) -> bool {
    reason.contains("handshake eof") || reason.contains("close_notify")
}

fn wrong_password(server: &RedisPeer) -> String {
    let user = server.user();
    if server.has_password {
        format!(
            "does not take this user with this password: check --username ({user:?}) and --password-file, ELECT_PASSWORD or the URL"
        )
    } else {
        format!("does not take this user without a password ({user:?}): give --password-file or ELECT_PASSWORD")
    }
}

const NO_ELECTION: &str = ", without which no election can be held: use a Redis of version 6 or newer";

/// The command that a server does not have, or that a proxy or a hosted server forbids; it will not have it later either.
fn missing_feature(code: &str, said: &str) -> Option<String> {
    let lower = said.to_ascii_lowercase();
    let is_unknown = code == "ERR"
        && ["unknown command", "unknown subcommand", "unknown redis command"].iter().any(|words| lower.contains(words));
    let is_forbidden = lower.contains("command not allowed") && !lower.contains("when used memory")
        || lower.contains("not supported")
        || lower.contains("unsupported command")
        || lower.contains("this redis command is not allowed from script");
    let is_missing = is_unknown || code == "NOTSUPPORTED" || matches!(code, "ERR" | "") && is_forbidden;
    // The name is in quotes, as in: unknown command 'INFO', with args beginning with: …
    let quoted = |quote: char| said.split(quote).nth(1).map(str::to_owned);
    let name = quoted('\'').or_else(|| quoted('`')).or_else(|| quoted('"'));
    let is_name = |name: &String| {
        !name.is_empty() && name.len() <= 32 && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-|".contains(c))
    };
    is_missing.then(|| match name.filter(is_name) {
        Some(name) => format!("lacks the command {}{NO_ELECTION}", name.to_ascii_uppercase()),
        None => format!("lacks a command ({said}){NO_ELECTION}"),
    })
}

/// What to do about an error of the network.
fn with_advice(reason: &str) -> String {
    crate::store::connection::errors::with_network_advice(reason)
}

/// The cause of an error. A Redis 6 wraps the error of a script: `ERR Error running script (call to f_…): @user_script: 12:
/// -READONLY You can't write …`.
fn unwrap_script_error<'a>(code: &'a str, said: &'a str) -> &'a str {
    let wrapped = said.strip_prefix("Error running script").filter(|_| code == "ERR");
    let cause = wrapped.and_then(|text| text.split_once(": -")).and_then(|(_, cause)| cause.split_whitespace().next());
    cause.unwrap_or(code)
}

/// Whether the limits on what a server may send were the cause.
fn excess(error: &RedisError) -> Option<Excess> {
    let cause = error.source()?.downcast_ref::<Arc<dyn Error + Send + Sync>>()?;
    cause.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref().copied()
}

#[cfg(test)]
mod tests {
    use elect_core::limits::MESSAGE_BYTES_MAX;
    use redis::Value;

    use super::*;

    fn peer() -> RedisPeer {
        RedisPeer { name: "redis:6379".to_owned(), user: None, has_password: false, tls: None }
    }

    #[test]
    fn a_missing_command_is_final_and_named() {
        for (answer, name) in [
            ("ERR unknown command 'INFO', with args beginning with: ", "the command INFO"),
            ("ERR unknown command `evalsha`, with args beginning with: `ab`, ", "the command EVALSHA"),
            ("ERR unknown command 'WAIT'", "the command WAIT"),
            ("ERR Error running script (call to f_7c): @user_script:1: ERR unknown command 'TIME'", "the command TIME"),
            ("ERR This Redis command is not allowed from script", "a command"),
            ("ERR command not supported", "a command"),
            ("ERR unknown command '\u{1b}[2J'", "a command"),
        ] {
            let StoreError::Refused(said) = classified(format!("-{answer}\r\n").as_bytes()).error else {
                panic!("{answer}")
            };
            assert!(said.contains(&format!("lacks {name}")) && !said.chars().any(crate::text::is_unsafe), "{said}");
        }
    }

    fn classified(answer: &[u8]) -> ClassifiedError {
        let Ok(Value::ServerError(error)) = redis::parse_redis_value(answer) else { panic!("no error: {answer:?}") };
        classify(&peer(), &RedisError::from(error))
    }

    #[test]
    fn what_befalls_a_script_is_the_same_however_it_is_wrapped() {
        for (answer, means, elsewhere) in [
            (
                "READONLY You can't write against a read only replica. script: 7c, on @user_script:31.",
                "is a replica",
                true,
            ),
            (
                "ERR Error running script (call to f_7c): @user_script:31: @user_script: 31: -READONLY You can't write \
                 against a read only replica. ",
                "is a replica",
                true,
            ),
            (
                "ERR Error running script (call to f_7c): @user_script:31: @user_script: 31: -OOM command not allowed when \
                 used memory > 'maxmemory'. ",
                "is out of memory",
                false,
            ),
            (
                "ERR Error running script (call to f_7c): @user_script:3: attempt to index a nil value",
                "says ERR Error running script",
                false,
            ),
        ] {
            let trouble = classified(format!("-{answer}\r\n").as_bytes());
            assert_eq!(trouble.try_other_server, elsewhere, "{answer}");
            let StoreError::Unavailable(said) = trouble.error else { panic!("{answer}: {:?}", trouble.error) };
            assert!(said.contains(means), "{answer}: {said}");
        }
    }

    #[test]
    fn what_a_server_says_is_cut_and_steers_no_terminal() {
        let long = "x".repeat(100_000);
        for answer in [
            "ERR \u{1b}[2J\u{9b}2J".to_owned(),
            "\u{1b}[2J gone".to_owned(),
            "NOPERM \u{1b}]0;title\u{7}".to_owned(),
            "ERR one\rforged line".to_owned(),
            format!("ERR {long}"),
            format!("{long} a"),
            format!("NOPERM {}", "\u{1b}".repeat(10_000)),
            "WEIRD \u{202e}desrever".to_owned(),
        ] {
            let said = classified(format!("-{answer}\r\n").as_bytes()).error.to_string();
            assert!(said.len() < 3 * MESSAGE_BYTES_MAX, "{}", said.len());
            assert!(!said.chars().any(crate::text::is_unsafe), "{said:?}");
        }
    }

    #[test]
    fn a_limit_is_named_and_not_taken_for_an_outage() {
        for excess in [Excess::Size, Excess::Form, Excess::Tls, Excess::Http] {
            let trouble = classify(&peer(), &RedisError::from(io::Error::from(excess)));
            assert!(trouble.try_other_server);
            assert_eq!(trouble.error.to_string(), format!("redis:6379 {excess}"));
        }
    }
}
