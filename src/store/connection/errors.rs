//! Errors of connections, and the texts of servers in them.

use std::error::Error;

use crate::text::escaped;
use elect_core::limits::{MESSAGE_BYTES_MAX, cut, cut_visibly};

/// A text of a server, or of a library about one: cut, and safe to show.
pub fn excerpt(text: &str) -> String {
    let text = cut(text.to_owned(), MESSAGE_BYTES_MAX);
    cut(escaped(&text).into_owned(), MESSAGE_BYTES_MAX)
}

/// The same in one line, with a mark where it is cut.
pub fn one_line(text: &str) -> String {
    // Cut first, so that no more is read than is shown.
    let text = cut_visibly(text, MESSAGE_BYTES_MAX);
    escaped(&text.split_whitespace().collect::<Vec<_>>().join(" ")).into_owned()
}

/// The text of the innermost cause: the outer ones say only that there was an error.
pub fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    excerpt(&innermost.to_string())
}

/// The words of an error of the network, with the next step where one is known.
pub fn with_network_advice(reason: &str) -> String {
    let advice = if reason.contains("Connection refused") {
        "no server listens there: check host and port of --store, and that the server runs"
    } else if reason.contains("failed to lookup address") || reason.contains("no address") {
        "this host name is not known: check its spelling in --store, and the DNS of this host"
    } else if reason.contains("No route to host") || reason.contains("Network is unreachable") {
        "check host of --store, and the network of this host"
    } else if reason.contains("Permission denied") {
        "check the permissions of this user, and the firewall of this host"
    } else {
        return reason.to_owned();
    };
    format!("{reason}: {advice}")
}
