//! The one line that a keeper logs, at its end, after its campaigner has died (K2).
//!
//! Standard error is shared with programs that may have set or need any flag on it: it is polled, and gets a single
//! write that is no longer than a pipe takes at once. A reader that takes nothing costs the line and a second.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};
use tracing::warn;
use tracing_subscriber::layer::SubscriberExt;

use super::Format;
use super::line::{JsonLine, Origin, PROCESS_ORIGIN, SharedOrigin, Stamps, TextLine, set_origin};

/// How long standard error may take to have room, in milliseconds.
const ROOM_TIMEOUT_MILLIS: u16 = 1_000;
/// A write of this size to a pipe is never split (`PIPE_BUF`).
const LINE_BYTES_MAX: usize = 4_096;

/// The line, in parts: it may be written by a re-executed elect.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KeeperLine {
    /// The format of the campaigner's log.
    pub format: Format,
    /// The election.
    pub boundary: String,
    /// The candidate's name.
    pub name: String,
    /// The candidate's id.
    pub id: String,
    /// The term, if the candidate led.
    pub term: Option<u64>,
    /// What was done, without the release.
    pub done: String,
}

/// Writes the line, with what became of the boundary.
pub fn write_keeper_line(line: &KeeperLine, release: &str) {
    let KeeperLine { boundary, name, id, .. } = line.clone();
    set_origin(Origin { boundary, name, id });
    let bytes = formatted(line, Stamps::of_stderr(), &PROCESS_ORIGIN, release);
    let stderr = io::stderr();
    let mut polled = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
    let has_room = poll(&mut polled, PollTimeout::from(ROOM_TIMEOUT_MILLIS)).is_ok_and(|ready| ready > 0);
    if has_room && polled[0].revents().is_some_and(|events| events.contains(PollFlags::POLLOUT)) {
        // A line that cannot be written is lost: there is nowhere else to report it.
        let _ = nix::unistd::write(&stderr, &bytes[..bytes.len().min(LINE_BYTES_MAX)]);
    }
}

/// The line in the format of the log.
fn formatted(line: &KeeperLine, stamps: Stamps, origin: &'static SharedOrigin, release: &str) -> Vec<u8> {
    let written = Buffer::default();
    let writer = written.clone();
    let layer = tracing_subscriber::fmt::layer().with_writer(move || writer.clone()).with_ansi(false);
    let KeeperLine { format, term, done, .. } = line;
    let log = || warn!(term, "the campaigner has died (killed, or crashed): {done}; {release}");
    let registry = tracing_subscriber::registry();
    match format {
        Format::Text => {
            let layer = layer.event_format(TextLine { stamps, origin });
            tracing::subscriber::with_default(registry.with(layer), log);
        }
        Format::Json => {
            tracing::subscriber::with_default(registry.with(layer.event_format(JsonLine { origin })), log);
        }
    }
    std::mem::take(&mut *written.0.lock().unwrap_or_else(PoisonError::into_inner))
}

#[derive(Debug, Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(format: Format) -> String {
        let line = KeeperLine {
            format,
            boundary: "cron".to_owned(),
            name: "web-1".to_owned(),
            id: "me".to_owned(),
            term: Some(7),
            done: "the leader command was stopped (status 0)".to_owned(),
        };
        let origin = Origin { boundary: line.boundary.clone(), name: line.name.clone(), id: line.id.clone() };
        let origin = Box::leak(Box::new(SharedOrigin::new(origin)));
        String::from_utf8(formatted(&line, Stamps::None, origin, "the boundary is released")).expect("text")
    }

    #[test]
    fn the_line_has_the_format_of_the_log() {
        let text = line(Format::Text);
        let expected = "warning: the campaigner has died (killed, or crashed): the leader command was stopped (status 0); \
                        the boundary is released";
        assert!(text.starts_with("elect[cron]: ") && text.contains(expected), "{text}");
        assert!(text.ends_with(" term=7\n") && !text.contains("boundary=") && text.lines().count() == 1, "{text}");
        let json: serde_json::Value = serde_json::from_str(&line(Format::Json)).expect("an object");
        assert_eq!((&json["level"], &json["boundary"], &json["term"]), (&"WARN".into(), &"cron".into(), &7.into()));
        assert_eq!((&json["name"], &json["id"]), (&"web-1".into(), &"me".into()));
    }
}
