//! `elect status --watch`: the same text again at each change. A terminal that can do it is redrawn in place, and then also
//! while nothing changes, since ages and leases go on.

use std::fmt::Write as _;
use std::io::{self, IsTerminal};
use std::process::ExitCode;

use super::{readable, render};
use crate::cli::format::timestamp;
use crate::cli::stdout::{StdoutWriter, not_written};
use crate::cli::store_query::{QUERY_TIMEOUT, StoreQuery, block_on};
use crate::cli::watch::stop_signal;
use crate::cli::{StatusFlags, exit_for, fail};
use crate::exit::Exit;
use crate::signals::Signals;
use crate::store::observer::Observer;
use crate::store::{Leader, Listing, Notifier, Observation, StoreError};
use crate::text::escaped;
use elect_core::boundary::Boundary;
use elect_keeper::clock;

pub fn status(flags: &StatusFlags, query: &StoreQuery<'_>) -> ExitCode {
    block_on(query.url, async {
        let store = match query.url.open(&query.access, Notifier::disconnected()) {
            Ok(store) => store,
            Err(error) => return fail(exit_for(&error), &error.to_string()),
        };
        let mut signals = match Signals::listen(true) {
            Ok(signals) => signals,
            Err(error) => return fail(Exit::Failed, &format!("signals cannot be handled: {error}")),
        };
        let mut observer = Observer::new(store, query.boundary.clone(), QUERY_TIMEOUT);
        let stdout = StdoutWriter::open();
        let mut screen = Screen::new(flags.json);
        let mut last = Shown::default();
        loop {
            let seen = tokio::select! {
                biased;
                () = stop_signal(&mut signals) => break,
                () = stdout.reader_gone() => return Exit::Success.into(),
                seen = observer.next() => seen,
            };
            let text = match last.update(query.boundary.as_ref(), seen) {
                Err(error) => return fail(exit_for(&error), &error.to_string()),
                Ok(is_change) => screen.frame(is_change, &last.text(flags, query)),
            };
            tokio::select! {
                biased;
                () = stop_signal(&mut signals) => break,
                written = stdout.write(&text) => if let Err(error) = written {
                    return not_written(&error, Exit::Success.into());
                },
            }
        }
        if screen.is_drawn {
            let _ = tokio::time::timeout(crate::cli::watch::FINAL_WRITE_TIMEOUT, stdout.write("\n")).await;
        }
        Exit::Success.into()
    })
}

/// The state that is shown.
#[derive(Default)]
struct Shown {
    seen: Vec<(Boundary, Observation)>,
    /// When that was seen, in milliseconds since 1970; `None`: not yet.
    at: Option<u64>,
    error: Option<String>,
}

impl Shown {
    /// Notes an observation. Returns whether it differs in more than ages and leases.
    fn update(&mut self, scope: Option<&Boundary>, seen: Result<Vec<Listing>, StoreError>) -> Result<bool, StoreError> {
        let seen = match (seen, scope) {
            (Ok(seen), _) => seen,
            // The store has answered: it is this record that cannot be followed.
            (Err(error @ StoreError::Obstacle(_)), Some(scope)) => vec![(scope.clone(), Err(error))],
            (Err(error @ (StoreError::Refused(_) | StoreError::Misused(_))), _) if self.at.is_none() => {
                return Err(error);
            }
            (Err(error), _) => {
                let error = Some(error.to_string());
                let is_change = self.error.is_none();
                self.error = error;
                return Ok(is_change);
            }
        };
        let seen: Vec<_> = seen.into_iter().map(readable).collect();
        let is_change =
            self.at.is_none() || self.error.is_some() || !seen.iter().map(lasting).eq(self.seen.iter().map(lasting));
        (self.seen, self.at, self.error) = (seen, Some(clock::wall_millis()), None);
        Ok(is_change)
    }

    fn text(&self, flags: &StatusFlags, query: &StoreQuery<'_>) -> String {
        let Some(at) = self.at else {
            let error = self.error.as_deref().unwrap_or_default();
            return if flags.json { String::new() } else { format!("{}; trying again\n", escaped(error)) };
        };
        let mut text = render(flags, query, &self.seen);
        if let (Some(error), false) = (&self.error, flags.json) {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "not up to date since {}: {}; trying again", timestamp(at, true), escaped(error));
        }
        text
    }
}

/// The part of a listing that is a change if it differs.
fn lasting((boundary, seen): &(Boundary, Observation)) -> (Boundary, Observation) {
    let leader = seen.leader.clone().map(|leader| Leader { lease_left: None, ..leader });
    (boundary.clone(), Observation { leader, free_since: None, ..seen.clone() })
}

/// The place where it is shown.
struct Screen {
    /// Whether it can be drawn again in place.
    is_drawn: bool,
    is_first: bool,
    json: bool,
}

impl Screen {
    fn new(json: bool) -> Screen {
        let is_dumb = std::env::var_os("TERM").is_none_or(|terminal| terminal == "dumb" || terminal.is_empty());
        Screen { is_drawn: !json && !is_dumb && io::stdout().is_terminal(), is_first: true, json }
    }

    /// The bytes that show a text, if it is to be shown.
    fn frame(&mut self, is_change: bool, text: &str) -> String {
        let is_first = std::mem::replace(&mut self.is_first, false);
        if !self.is_drawn {
            let gap = if is_first || self.json { "" } else { "\n" };
            return if is_change { format!("{gap}{text}") } else { String::new() };
        }
        let height =
            terminal_size::terminal_size().map_or(24, |(_, terminal_size::Height(height))| usize::from(height));
        drawn(text, height.max(3), is_first)
    }
}

/// The text from the top of the screen, as far as there is room; all else on the screen is cleared.
fn drawn(text: &str, height: usize, is_first: bool) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let shown = if lines.len() < height { lines.len() } else { height - 2 };
    let mut frame = if is_first { "\u{1b}[2J\u{1b}[H" } else { "\u{1b}[H" }.to_owned();
    for line in &lines[..shown] {
        frame += line;
        frame += "\u{1b}[K\n";
    }
    if shown < lines.len() {
        let _ = writeln!(frame, "… and {} more lines\u{1b}[K", lines.len() - shown);
    }
    frame + "\u{1b}[J"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_overwrites_the_one_before_and_fits_on_the_screen() {
        assert_eq!(drawn("a\nb\n", 5, true), "\u{1b}[2J\u{1b}[Ha\u{1b}[K\nb\u{1b}[K\n\u{1b}[J");
        let frame = drawn("1\n2\n3\n4\n5\n6\n", 5, false);
        assert_eq!(frame.matches('\n').count(), 4, "the last line of the screen stays free: {frame:?}");
        assert!(frame.starts_with("\u{1b}[H1") && frame.contains("… and 3 more lines"), "{frame:?}");
    }

    #[test]
    fn a_lease_that_goes_on_is_no_change_and_an_error_is_one_once() {
        let boundary: Boundary = "cron".parse().expect("a name");
        let led = |left| {
            let leader = Leader { lease_left: Some(std::time::Duration::from_secs(left)), ..leader() };
            Ok(vec![(boundary.clone(), Ok(Observation { leader: Some(leader), ..Observation::default() }))])
        };
        let down = || Err(StoreError::Unavailable("down".to_owned()));
        let mut shown = Shown::default();
        let mut update = |seen| shown.update(Some(&boundary), seen).expect("shown");
        assert!(update(led(9)));
        assert!(!update(led(8)));
        assert!(update(down()));
        assert!(!update(down()));
        assert!(update(led(7)), "it is up to date again");
        assert!(update(Ok(vec![(boundary.clone(), Ok(Observation::default()))])));
        let refused = || Err(StoreError::Refused("no".to_owned()));
        assert!(update(refused()), "later a refusal may be over as it came");
        assert!(Shown::default().update(Some(&boundary), refused()).is_err());
    }

    fn leader() -> Leader {
        Leader {
            id: "i".to_owned(),
            name: "n".to_owned(),
            host: None,
            port: None,
            term: Some(1),
            since: None,
            ttl: None,
            lease_left: None,
            store_key: None,
        }
    }
}
