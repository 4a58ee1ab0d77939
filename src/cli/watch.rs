//! `elect watch`: one line per change, until it is told to stop.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use super::asked::{Asked, PATIENCE, run};
use super::changes::{Change, Changes, Skipped, What};
use super::lines::Lines;
use super::words::{leads, stamp};
use super::{WatchFlags, exit_for, fail};
use crate::clock;
use crate::exit::Exit;
use crate::signals::{SignalEvent, Signals};
use crate::store::observer::Observer;
use crate::store::{Listing, Notifier, StoreError};
use crate::surface::occurrence::Occurrence;
use crate::text::escaped;

/// How long the last line may take: its reader may be stuck.
const LAST_WORD: Duration = Duration::from_millis(200);

pub fn watch(flags: &WatchFlags) -> ExitCode {
    let asked = match Asked::new(flags.boundary.as_deref(), &flags.store) {
        Ok(asked) => asked,
        Err(status) => return status,
    };
    run(asked.url, async {
        let store = match asked.url.open(&asked.access, Notifier::to_nobody()) {
            Ok(store) => store,
            Err(error) => return fail(exit_for(&error), &error.to_string()),
        };
        let signals = match Signals::listen() {
            Ok(signals) => signals,
            Err(error) => return fail(Exit::Failed, &format!("signals cannot be handled: {error}")),
        };
        let form = match (flags.json, std::io::stdout().is_terminal()) {
            (true, _) => Form::Json,
            (false, is_terminal) => Form::Text { is_terminal },
        };
        let observer = Observer::new(store, asked.boundary.clone(), PATIENCE);
        Watch { observer, signals, lines: Lines::to_stdout(), form, changes: Changes::default() }.run().await
    })
}

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Text { is_terminal: bool },
    Json,
}

struct Watch {
    observer: Observer,
    signals: Signals,
    lines: Lines,
    form: Form,
    changes: Changes,
}

/// Why it ends.
enum End {
    /// A signal says so.
    Stopped,
    /// Nobody reads what it says.
    Unread,
    /// The store will not have us.
    Refused(StoreError),
}

impl Watch {
    async fn run(mut self) -> ExitCode {
        match self.until_the_end().await {
            End::Stopped => {
                let last = match self.form {
                    Form::Json => Occurrence::done(now(self.form), self.observer.scope()).to_json() + "\n",
                    // What was pressed to stop it is on the line.
                    Form::Text { is_terminal: true } => "\n".to_owned(),
                    Form::Text { is_terminal: false } => String::new(),
                };
                // A reader that is stuck, or gone, goes without.
                let _ = tokio::time::timeout(LAST_WORD, self.lines.write(&last)).await;
                Exit::Success.into()
            }
            End::Unread => Exit::Success.into(),
            End::Refused(error) => fail(exit_for(&error), &error.to_string()),
        }
    }

    async fn until_the_end(&mut self) -> End {
        let mut is_first = true;
        loop {
            let seen = tokio::select! {
                biased;
                () = stopped(&mut self.signals) => return End::Stopped,
                () = self.lines.unread() => return End::Unread,
                seen = self.observer.next() => seen,
            };
            match seen {
                Err(error @ (StoreError::Refused(_) | StoreError::Misused(_))) if is_first => {
                    return End::Refused(error);
                }
                Ok(_) | Err(_) => is_first = false,
            }
            let text = self.tell(seen);
            // A reader that is slow holds up what is seen next, not what is heard.
            tokio::select! {
                biased;
                () = stopped(&mut self.signals) => return End::Stopped,
                written = self.lines.write(&text) => if written.is_err() { return End::Unread },
            }
        }
    }

    fn tell(&mut self, seen: Result<Vec<Listing>, StoreError>) -> String {
        let changes = self.changes.note(clock::now(), self.observer.scope(), seen);
        changes.iter().map(|change| line(change, self.form)).collect()
    }
}

/// Returns when a signal asks us to stop. Cancel safe.
async fn stopped(signals: &mut Signals) {
    while !matches!(signals.next().await, SignalEvent::Stop(_) | SignalEvent::Forward(libc::SIGHUP)) {}
}

fn now(form: Form) -> String {
    stamp(clock::wall_millis(), matches!(form, Form::Text { is_terminal: true }))
}

fn line(change: &Change, form: Form) -> String {
    let at = now(form);
    let line = match form {
        Form::Json => json(change, at),
        Form::Text { .. } => {
            let boundary = change.boundary.as_ref().map_or_else(String::new, |boundary| format!("{boundary}: "));
            escaped(&format!("{at} {boundary}{}", text(&change.what))).into_owned()
        }
    };
    line + "\n"
}

fn text(what: &What) -> String {
    match what {
        What::Leads { leader, skipped } => format!("{}{}", leads(leader), gap(*skipped)),
        What::Nobody { obstacle: None, skipped } => format!("no leader{}", gap(*skipped)),
        What::Nobody { obstacle: Some(obstacle), skipped } => format!("no leader; {obstacle}{}", gap(*skipped)),
        What::Trouble(trouble) => format!("error: {trouble}"),
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
    match &change.what {
        What::Leads { leader, skipped } => Occurrence::leader(at, boundary, leader, known(*skipped)).to_json(),
        What::Nobody { obstacle, skipped } => {
            Occurrence::none(at, boundary, obstacle.as_deref(), known(*skipped)).to_json()
        }
        What::Trouble(trouble) => Occurrence::error(at, boundary, trouble).to_json(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_an_obstacle_or_an_error_holds_it_is_one_line() {
        let evil = "\u{1b}[2J\r\nforged: x leads\u{202e}";
        let obstacle = What::Nobody { obstacle: Some(evil.to_owned()), skipped: Skipped::No };
        for what in [obstacle, What::Trouble(evil.to_owned())] {
            let change = Change { boundary: Some("cron".parse().expect("a name")), what };
            let line = line(&change, Form::Text { is_terminal: false });
            assert!(line.ends_with('\n') && !line.trim_end_matches('\n').chars().any(crate::text::is_unsafe), "{line}");
        }
    }
}
