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

/// Whether TLS failed because of a certificate, so that another attempt changes nothing. The words are those of rustls, since
/// libraries pass on the words alone.
pub fn is_certificate_error(text: &str) -> bool {
    text.contains("invalid peer certificate") || text.contains("received fatal alert")
}
