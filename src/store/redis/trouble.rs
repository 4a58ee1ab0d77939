//! What the errors of a Redis mean for us.

use redis::{ErrorKind, RedisError};

use crate::store::StoreError;

/// A call that failed.
pub struct Trouble {
    pub error: StoreError,
    /// Whether this connection, or this server, is not the one to ask again.
    pub speaks_for_another: bool,
}

/// What a call's failure means.
pub fn explain(server: &str, error: &RedisError) -> Trouble {
    let unavailable = |what: String, speaks_for_another| Trouble {
        error: StoreError::Unavailable(format!("{server} {what}")),
        speaks_for_another,
    };
    let refused =
        |what: String| Trouble { error: StoreError::Refused(format!("{server} {what}")), speaks_for_another: false };
    let said = error.detail().unwrap_or_default();
    match error.code().map(|code| behind(code, said)) {
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
        let code = error.code().unwrap_or_default();
        return unavailable(format!("says {code} {said}").trim_end().to_owned(), false);
    }
    let reason = reason(error);
    if is_about_certificates(&reason) {
        refused(format!("cannot be trusted, or does not trust us: {reason}"))
    } else if error.is_connection_refusal() || !error.is_connection_dropped() {
        unavailable(format!("cannot be reached: {reason}"), true)
    } else {
        unavailable(format!("has ended the connection: {reason}"), true)
    }
}

/// What an error is about. A Redis 6 wraps what befalls a script: `ERR Error running script (call to f_…): @user_script: 12:
/// -READONLY You can't write …`.
fn behind<'a>(code: &'a str, said: &'a str) -> &'a str {
    let wrapped = said.strip_prefix("Error running script").filter(|_| code == "ERR");
    let cause = wrapped.and_then(|text| text.split_once(": -")).and_then(|(_, cause)| cause.split_whitespace().next());
    cause.unwrap_or(code)
}

/// The innermost cause: the outer ones say only that there was an error.
fn reason(error: &RedisError) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// Whether TLS failed for what either side has to show: asking again changes nothing.
fn is_about_certificates(reason: &str) -> bool {
    reason.contains("invalid peer certificate") || reason.contains("received fatal alert")
}

#[cfg(test)]
mod tests {
    use redis::Value;

    use super::*;

    fn explained(answer: &[u8]) -> Trouble {
        let Ok(Value::ServerError(error)) = redis::parse_redis_value(answer) else { panic!("no error: {answer:?}") };
        explain("redis:6379", &RedisError::from(error))
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
            let trouble = explained(format!("-{answer}\r\n").as_bytes());
            assert_eq!(trouble.speaks_for_another, elsewhere, "{answer}");
            let StoreError::Unavailable(said) = trouble.error else { panic!("{answer}: {:?}", trouble.error) };
            assert!(said.contains(means), "{answer}: {said}");
        }
    }
}
