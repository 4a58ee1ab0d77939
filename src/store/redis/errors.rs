//! Classifies the errors of a Redis.

use std::error::Error;
use std::io;
use std::sync::Arc;

use redis::{ErrorKind, RedisError};

use super::reply_filter::Excess;
use crate::store::StoreError;
use crate::store::connection::errors::{excerpt, is_certificate_error, root_cause};

/// A call that failed.
pub struct ClassifiedError {
    pub error: StoreError,
    /// Whether this connection, or this server, is not the one to ask again.
    pub try_other_server: bool,
}

/// The meaning of a failed call. `server` is its name in messages.
pub fn classify(server: &str, error: &RedisError) -> ClassifiedError {
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
    match error.code().map(|code| unwrap_script_error(code, said)) {
        Some("LOADING") => return unavailable("is still loading its data".to_owned(), true),
        Some("READONLY") => return unavailable("is a replica, and not the primary any more".to_owned(), true),
        Some("MASTERDOWN") => return unavailable("is a replica without a primary".to_owned(), true),
        Some("UNBLOCKED") => return unavailable("is not the primary any more".to_owned(), true),
        Some("BUSY") => return unavailable("is busy with a script (SCRIPT KILL ends it)".to_owned(), false),
        Some("OOM") => return unavailable("is out of memory, and takes no writes".to_owned(), false),
        Some("MISCONF") => {
            return unavailable("takes no writes since it cannot save them to its disk".to_owned(), false);
        }
        Some("NOREPLICAS") => {
            return unavailable("takes no writes: it has fewer replicas than min-replicas-to-write".to_owned(), false);
        }
        Some("NOAUTH") => {
            return refused("asks for a password: give --password-file or ELECT_PASSWORD, and --username".to_owned());
        }
        Some("WRONGPASS") => return refused("does not take this user with this password".to_owned()),
        Some("NOPERM") => return refused(format!("says permission denied: {said}")),
        Some("MOVED" | "ASK" | "CLUSTERDOWN" | "CROSSSLOT") => {
            return refused(
                "belongs to a Redis Cluster, which cannot hold elections: use a Redis of its own".to_owned(),
            );
        }
        _ => {}
    }
    let kind = error.kind();
    if kind == ErrorKind::AuthenticationFailed {
        let said = if said.is_empty() { "does not take this user with this password" } else { said };
        return refused(format!("refuses to let us in: {said}"));
    }
    if kind == ErrorKind::RESP3NotSupported {
        return refused("is too old: Redis 6 is the oldest that elect works with".to_owned());
    }
    if matches!(kind, ErrorKind::Server(_) | ErrorKind::Extension) {
        let code = excerpt(error.code().unwrap_or_default());
        return unavailable(format!("says {code} {said}").trim_end().to_owned(), false);
    }
    if let Some(excess) = excess(error) {
        return unavailable(excess.to_string(), true);
    }
    let reason = root_cause(error);
    if is_certificate_error(&reason) {
        refused(format!("cannot be trusted, or does not trust us: {reason}"))
    } else if error.is_connection_refusal() || !error.is_connection_dropped() {
        unavailable(format!("cannot be reached: {reason}"), true)
    } else {
        unavailable(format!("has ended the connection: {reason}"), true)
    }
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

    fn classified(answer: &[u8]) -> ClassifiedError {
        let Ok(Value::ServerError(error)) = redis::parse_redis_value(answer) else { panic!("no error: {answer:?}") };
        classify("redis:6379", &RedisError::from(error))
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
        for excess in [Excess::Size, Excess::Form] {
            let trouble = classify("redis:6379", &RedisError::from(io::Error::from(excess)));
            assert!(trouble.try_other_server);
            assert_eq!(trouble.error.to_string(), format!("redis:6379 {excess}"));
        }
    }
}
