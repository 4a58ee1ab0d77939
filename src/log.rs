//! Where log lines go: to stderr, through a thread, so that a full pipe never delays a renewal or a kill.

mod keeper_line;
mod writer;

use std::fmt;
use std::io::IsTerminal;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, UNIX_EPOCH};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::setup::SetupError;
use crate::text::escaped;
use elect_core::limits::{LINE_BYTES_MAX, cut_visibly};
use elect_keeper::clock;

pub use keeper_line::{KeeperLine, write_keeper_line};
pub use writer::Guard;

/// The target of warnings about a store's version, which --quiet silences: cron would mail them each night.
pub const VERSION_WARNINGS: &str = "elect::version";

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
        let targets = Targets::new().with_default(LevelFilter::WARN).with_target("elect", level);
        if verbosity.quiet { targets.with_target(VERSION_WARNINGS, LevelFilter::OFF) } else { targets }
    };
    let (writer, guard) = writer::start(std::io::stderr()).map_err(|error| {
        let error = std::io::Error::new(error.kind(), format!("no thread can be made to write the log ({error})"));
        StartError::Setup(SetupError::Thread { error })
    })?;
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let subscriber = tracing_subscriber::registry().with(targets);
    let layer = tracing_subscriber::fmt::layer().with_writer(writer);
    match format {
        Format::Text => {
            let line = Line { stamps: Stamps::of_stderr() };
            subscriber.with(layer.with_ansi(colours).event_format(line)).init();
        }
        Format::Json => {
            subscriber.with(layer.json().flatten_event(true).with_target(false).with_timer(Timestamp)).init();
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

/// Whether stderr is the journal's own socket, which stamps every line itself.
fn into_the_journal() -> bool {
    let Some(stream) = std::env::var("JOURNAL_STREAM").ok() else { return false };
    std::fs::metadata("/proc/self/fd/2").is_ok_and(|stderr| format!("{}:{}", stderr.dev(), stderr.ino()) == stream)
}

/// Milliseconds are enough, and universal time needs no explanation.
struct Timestamp;

impl FormatTime for Timestamp {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let now = UNIX_EPOCH + Duration::from_millis(clock::wall_millis());
        write!(writer, "{}", humantime::format_rfc3339_millis(now))
    }
}

/// `2026-11-20T17:00:00.123Z elect: leader command started term=1 pid=2`
struct Line {
    stamps: Stamps,
}

/// How much of the time stands before a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stamps {
    /// Nothing: the journal has its own.
    None,
    /// A terminal shows the time without the day.
    Time,
    Full,
}

impl Stamps {
    fn of_stderr() -> Stamps {
        match (into_the_journal(), std::io::stderr().is_terminal()) {
            (true, _) => Stamps::None,
            (false, true) => Stamps::Time,
            (false, false) => Stamps::Full,
        }
    }
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let colours = writer.has_ansi_escapes();
        let (dim, plain) = if colours { ("\u{1b}[2m", "\u{1b}[0m") } else { ("", "") };
        if self.stamps != Stamps::None {
            let mut stamp = String::new();
            Timestamp.format_time(&mut Writer::new(&mut stamp))?;
            let shown = match self.stamps {
                Stamps::Time => stamp.split_once('T').map_or(stamp.as_str(), |(_, time)| time),
                Stamps::None | Stamps::Full => &stamp,
            };
            write!(writer, "{dim}{shown}{plain} ")?;
        }
        write!(writer, "elect: ")?;
        let (name, colour) = match *event.metadata().level() {
            Level::ERROR => ("error: ", "\u{1b}[31m"),
            Level::WARN => ("warning: ", "\u{1b}[33m"),
            Level::INFO => ("", ""),
            Level::DEBUG => ("debug: ", "\u{1b}[36m"),
            Level::TRACE => ("trace: ", "\u{1b}[36m"),
        };
        if colours && !name.is_empty() {
            write!(writer, "{colour}{name}{plain}")?;
        } else {
            write!(writer, "{name}")?;
        }
        let mut fields = Fields { text: String::new(), colours };
        event.record(&mut fields);
        writeln!(writer, "{}", fields.text)
    }
}

/// Message and fields of an event: `leader command started term=1 pid=2`.
///
/// This is where every text from outside becomes part of a line: each value is escaped, and cut where the line has no
/// room left, whatever the caller has put into it (DESIGN.md 2.5).
struct Fields {
    text: String,
    colours: bool,
}

impl Fields {
    /// For what is in front of the fields.
    const PREFIX_BYTES_MAX: usize = 96;

    fn field(&mut self, name: &str, value: &str) {
        // The target of the library that passes on the log of others: not shown.
        if name.starts_with("log.") {
            return;
        }
        let label = match (name.strip_prefix("r#").unwrap_or(name), self.colours) {
            ("message", _) => String::new(),
            (name, false) => format!("{name}="),
            (name, true) => format!("\u{1b}[3m{name}\u{1b}[0m\u{1b}[2m=\u{1b}[0m"),
        };
        let space = if self.text.is_empty() { "" } else { " " };
        let taken = Fields::PREFIX_BYTES_MAX + self.text.len() + space.len() + label.len();
        let room = LINE_BYTES_MAX.saturating_sub(taken);
        if room < "…".len() {
            return;
        }
        self.text.push_str(space);
        self.text.push_str(&label);
        self.text.push_str(&cut_visibly(&escaped(value), room));
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.field("message", value);
        } else {
            self.field(field.name(), &format!("{value:?}"));
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.field(field.name(), &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use proptest::prelude::*;
    use tracing::{info, warn};

    use super::*;
    use crate::text::is_unsafe;
    use elect_core::proptest_support;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("one thread").extend(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The lines that are written for these events.
    fn written(colours: bool, stamps: Stamps, log: impl FnOnce()) -> String {
        let written = Written::default();
        let writer = written.clone();
        let layer = tracing_subscriber::fmt::layer().with_writer(move || writer.clone()).with_ansi(colours);
        let subscriber = tracing_subscriber::registry().with(layer.event_format(Line { stamps }));
        tracing::subscriber::with_default(subscriber, log);
        let bytes = written.0.lock().expect("one thread").clone();
        String::from_utf8(bytes).expect("text")
    }

    #[test]
    fn a_line_is_message_and_fields() {
        let line = written(false, Stamps::None, || {
            info!(host = "h", port = Some(80), term = 7, id = %"x", "{}: {} leads", "waiting", "web-1");
        });
        assert_eq!(line, "elect: waiting: web-1 leads host=\"h\" port=80 term=7 id=x\n");
        let line = written(true, Stamps::None, || warn!(term = 7, "lost"));
        assert_eq!(line, "elect: \u{1b}[33mwarning: \u{1b}[0mlost \u{1b}[3mterm\u{1b}[0m\u{1b}[2m=\u{1b}[0m7\n");
    }

    #[test]
    fn whatever_a_text_holds_it_is_one_line_of_limited_size() {
        let text = || (proptest_support::text(), prop_oneof![Just(1_usize), 1..3_000_usize]);
        proptest_support::check(proptest_support::SLOW, &(text(), text()), |((message, times), (value, again))| {
            let (message, value) = (message.repeat(times), value.repeat(again));
            let line = written(false, Stamps::Full, || warn!(name = value, shown = %value, last = 1, "x {message}"));
            let line = line.strip_suffix('\n').expect("a whole line");
            assert!(!line.chars().any(is_unsafe), "{line}");
            assert!(line.len() < LINE_BYTES_MAX, "{} bytes", line.len());
        });
    }
}
