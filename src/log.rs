//! Where log lines go: to stderr, through a thread, so that a full pipe never delays a renewal or a kill.

mod keeper_line;
mod line;
mod writer;

use std::io::IsTerminal;
use std::os::unix::fs::MetadataExt;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::setup::SetupError;
pub use keeper_line::{KeeperLine, write_keeper_line};
use line::{JsonLine, PROCESS_ORIGIN, Stamps, TextLine};
pub use line::{Origin, error_line, rename_origin, set_origin};
pub use writer::Guard;

/// The target of warnings about the version of a store. `-q` hides them: they change nothing in this run, and cron would
/// mail them each night.
pub const VERSION_TARGET: &str = "elect::version";

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize, serde::Deserialize)]
pub enum Format {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// How much is said.
#[derive(Debug, Clone, Copy)]
pub struct Verbosity {
    /// Warnings alone.
    pub quiet: bool,
    /// How many times more was asked for.
    pub verbose: u8,
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// `ELECT_LOG` is not understood.
    #[error("{0}")]
    Filter(String),
    /// The kernel gives no thread.
    #[error(transparent)]
    Setup(#[from] SetupError),
}

/// Starts logging. The guard, when it is dropped, writes the lines that wait, and gives up after a second.
///
/// Starts a thread: not to be called before the keeper has been forked.
///
/// # Errors
///
/// `ELECT_LOG` is not a filter, or no thread can be made.
pub fn start(format: Format, verbosity: Verbosity, filter: Option<&str>) -> Result<Guard, StartError> {
    let level = match (verbosity.quiet, verbosity.verbose) {
        (true, _) => LevelFilter::WARN,
        (false, 0) => LevelFilter::INFO,
        (false, 1) => LevelFilter::DEBUG,
        (false, _) => LevelFilter::TRACE,
    };
    let targets = if let Some(filter) = filter {
        parse_filter(filter).map_err(|why| {
            StartError::Filter(format!("ELECT_LOG {filter:?} is not a filter like debug or elect=debug: {why}"))
        })?
    } else {
        Targets::new().with_default(LevelFilter::WARN).with_target("elect", level)
    };
    let targets = if verbosity.quiet { targets.with_target(VERSION_TARGET, LevelFilter::OFF) } else { targets };
    let (writer, guard) = writer::start(std::io::stderr()).map_err(|error| {
        let error = std::io::Error::new(error.kind(), format!("no thread can be made to write the log ({error})"));
        StartError::Setup(SetupError::Thread { error })
    })?;
    let colours = supports_styles(&std::io::stderr());
    let subscriber = tracing_subscriber::registry().with(targets);
    let layer = tracing_subscriber::fmt::layer().with_writer(writer);
    match format {
        Format::Text => {
            let line = TextLine { stamps: Stamps::of_stderr(), origin: &PROCESS_ORIGIN };
            subscriber.with(layer.with_ansi(colours).event_format(line)).init();
        }
        Format::Json => {
            subscriber.with(layer.event_format(JsonLine { origin: &PROCESS_ORIGIN })).init();
        }
    }
    Ok(guard)
}

fn parse_filter(filter: &str) -> Result<Targets, String> {
    // The parser would take it for a part of a module's name, and no line would match.
    if let Some(sign) = filter.chars().find(|c| !(c.is_alphanumeric() || "_:=,- ".contains(*c))) {
        return Err(format!("{sign:?} has no meaning in it"));
    }
    filter.parse().map_err(|error: tracing_subscriber::filter::ParseError| error.to_string())
}

/// Whether a stream is a terminal that shows colours and bold text, and the environment does not forbid it.
pub fn supports_styles(stream: &impl IsTerminal) -> bool {
    stream.is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|terminal| terminal != "dumb")
}

/// Whether stderr is the journal's own socket, which stamps every line itself.
fn into_the_journal() -> bool {
    let Some(stream) = std::env::var("JOURNAL_STREAM").ok() else { return false };
    std::fs::metadata("/proc/self/fd/2").is_ok_and(|stderr| format!("{}:{}", stderr.dev(), stderr.ino()) == stream)
}
