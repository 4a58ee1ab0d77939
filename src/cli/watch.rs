//! `elect watch`: one line per change, until a signal ends it.

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::Duration;

use super::change_tracker::{Change, ChangeKind, ChangeTracker, Skipped};
use super::format::{leader_line, timestamp};
use super::stdout::{StdoutWriter, not_written};
use super::store_query::{QUERY_TIMEOUT, StoreQuery, block_on};
use super::{WatchFlags, exit_for, fail};
use crate::exit::Exit;
use crate::signals::{SignalEvent, Signals};
use crate::status::ChangeDocument;
use crate::store::observer::Observer;
use crate::store::{Listing, Notifier, StoreError};
use crate::text::escaped;
use elect_keeper::clock;

/// How long the last line may take: its reader may be stuck.
pub const FINAL_WRITE_TIMEOUT: Duration = Duration::from_millis(200);

pub fn watch(flags: &WatchFlags) -> ExitCode {
    let query = match StoreQuery::new(flags.scope.boundary(), &flags.store) {
        Ok(query) => query,
        Err(status) => return status,
    };
    block_on(query.url, async {
        let store = match query.url.open(&query.access, Notifier::disconnected()) {
            Ok(store) => store,
            Err(error) => return fail(exit_for(&error), &error.to_string()),
        };
        let signals = match Signals::listen(true) {
            Ok(signals) => signals,
            Err(error) => return fail(Exit::Failed, &format!("signals cannot be handled: {error}")),
        };
        let format = match (flags.json, std::io::stdout().is_terminal()) {
            (true, _) => OutputFormat::Json,
            (false, is_terminal) => OutputFormat::Text { is_terminal },
        };
        let observer = Observer::new(store, query.boundary.clone(), QUERY_TIMEOUT);
        WatchCommand { observer, signals, stdout: StdoutWriter::open(), format, tracker: ChangeTracker::default() }
            .run()
            .await
    })
}

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OutputFormat {
    Text { is_terminal: bool },
    Json,
}

struct WatchCommand {
    observer: Observer,
    signals: Signals,
    stdout: StdoutWriter,
    format: OutputFormat,
    tracker: ChangeTracker,
}

/// Why it ends.
enum WatchEnd {
    /// A signal says so.
    Stopped,
    /// The reader of its output has gone.
    ReaderGone,
    /// A line could not be written.
    NotWritten(io::Error),
    /// The store will not have us.
    Refused(StoreError),
}

impl WatchCommand {
    async fn run(mut self) -> ExitCode {
        match self.run_until_end().await {
            WatchEnd::Stopped => {
                let last = match self.format {
                    OutputFormat::Json => {
                        ChangeDocument::done(now(self.format), self.observer.scope()).to_json() + "\n"
                    }
                    // The terminal has echoed the key that stopped it on this line.
                    OutputFormat::Text { is_terminal: true } => "\n".to_owned(),
                    OutputFormat::Text { is_terminal: false } => String::new(),
                };
                // A reader that is stuck, or gone, goes without.
                let _ = tokio::time::timeout(FINAL_WRITE_TIMEOUT, self.stdout.write(&last)).await;
                Exit::Success.into()
            }
            WatchEnd::ReaderGone => Exit::Success.into(),
            WatchEnd::NotWritten(error) => not_written(&error, Exit::Success.into()),
            WatchEnd::Refused(error) => fail(exit_for(&error), &error.to_string()),
        }
    }

    async fn run_until_end(&mut self) -> WatchEnd {
        let mut is_first = true;
        loop {
            let seen = tokio::select! {
                biased;
                () = stop_signal(&mut self.signals) => return WatchEnd::Stopped,
                () = self.stdout.reader_gone() => return WatchEnd::ReaderGone,
                seen = self.observer.next() => seen,
            };
            match seen {
                Err(error @ (StoreError::Refused(_) | StoreError::Misused(_))) if is_first => {
                    return WatchEnd::Refused(error);
                }
                Ok(_) | Err(_) => is_first = false,
            }
            let text = self.render(seen);
            // A reader that is slow holds up what is seen next, not what is heard.
            tokio::select! {
                biased;
                () = stop_signal(&mut self.signals) => return WatchEnd::Stopped,
                written = self.stdout.write(&text) => if let Err(error) = written { return WatchEnd::NotWritten(error) },
            }
        }
    }

    fn render(&mut self, seen: Result<Vec<Listing>, StoreError>) -> String {
        let changes = self.tracker.observe(clock::now(), self.observer.scope(), seen);
        changes.iter().map(|change| line(change, self.format)).collect()
    }
}

/// Returns when a signal asks us to stop. Cancel safe.
pub async fn stop_signal(signals: &mut Signals) {
    while !matches!(signals.next().await, SignalEvent::Stop(_) | SignalEvent::Forward(libc::SIGHUP)) {}
}

fn now(format: OutputFormat) -> String {
    timestamp(clock::wall_millis(), matches!(format, OutputFormat::Text { is_terminal: true }))
}

fn line(change: &Change, format: OutputFormat) -> String {
    let at = now(format);
    let line = match format {
        OutputFormat::Json => json(change, at),
        OutputFormat::Text { .. } => {
            let boundary = change.boundary.as_ref().map_or_else(String::new, |boundary| format!("{boundary}: "));
            escaped(&format!("{at} {boundary}{}", text(&change.kind))).into_owned()
        }
    };
    line + "\n"
}

fn text(kind: &ChangeKind) -> String {
    match kind {
        ChangeKind::Leader { leader, skipped } => format!("{}{}", leader_line(leader), gap(*skipped)),
        ChangeKind::NoLeader { obstacle: None, skipped } => format!("no leader{}", gap(*skipped)),
        ChangeKind::NoLeader { obstacle: Some(obstacle), skipped } => format!("no leader; {obstacle}{}", gap(*skipped)),
        ChangeKind::Error(error) => format!("error: {error}"),
    }
}

fn gap(skipped: Skipped) -> String {
    match skipped {
        Skipped::Unknown | Skipped::No => String::new(),
        Skipped::After(Some(term)) => format!(" (after term {term} others were skipped)"),
        Skipped::After(None) => " (others before it were skipped)".to_owned(),
    }
}

fn json(change: &Change, at: String) -> String {
    let known = |skipped: Skipped| match skipped {
        Skipped::Unknown => None,
        Skipped::No => Some(false),
        Skipped::After(_) => Some(true),
    };
    let boundary = change.boundary.as_ref();
    match &change.kind {
        ChangeKind::Leader { leader, skipped } => {
            ChangeDocument::leader(at, boundary, leader, known(*skipped)).to_json()
        }
        ChangeKind::NoLeader { obstacle, skipped } => {
            ChangeDocument::none(at, boundary, obstacle.as_deref(), known(*skipped)).to_json()
        }
        ChangeKind::Error(error) => ChangeDocument::error(at, boundary, error).to_json(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_an_obstacle_or_an_error_holds_it_is_one_line() {
        let evil = "\u{1b}[2J\r\nforged: x leads\u{202e}";
        let obstacle = ChangeKind::NoLeader { obstacle: Some(evil.to_owned()), skipped: Skipped::No };
        for kind in [obstacle, ChangeKind::Error(evil.to_owned())] {
            let change = Change { boundary: Some("cron".parse().expect("a name")), kind };
            let line = line(&change, OutputFormat::Text { is_terminal: false });
            assert!(line.ends_with('\n') && !line.trim_end_matches('\n').chars().any(crate::text::is_unsafe), "{line}");
        }
    }
}
