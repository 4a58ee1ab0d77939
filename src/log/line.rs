//! The form of a log line, as text and as JSON: message, fields, and the candidate that the log belongs to.
//!
//! Every text from outside passes through here on its way to the log: each value is escaped, and cut where the line has
//! no room left (DESIGN.md 2.5). A line of at most [`LINE_BYTES_MAX`] bytes goes into a pipe in one piece, so that lines
//! of several candidates do not mix.

use std::fmt::{self, Write as _};
use std::io::IsTerminal;
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, UNIX_EPOCH};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::Format;
use crate::text::escaped;
use elect_core::limits::{LINE_BYTES_MAX, cut_visibly};
use elect_keeper::clock;

/// A field of this prefix is shown in JSON alone, without the prefix: text has 80 columns.
const JSON_ALONE: &str = "json.";
/// Fields that every line in JSON has. No event has one of that name.
const COMMON_FIELDS: [&str; 5] = ["timestamp", "level", "boundary", "name", "id"];

/// The candidate that a log belongs to. A part that is not known is empty.
#[derive(Debug, Clone, Default)]
pub struct Origin {
    /// The boundary that it campaigns for.
    pub boundary: String,
    /// Its name, for display.
    pub name: String,
    /// New at each start.
    pub id: String,
}

/// An origin that may change: `proclaim` gives a candidate another name.
pub(super) type SharedOrigin = RwLock<Origin>;

/// The origin of this process.
pub(super) static PROCESS_ORIGIN: SharedOrigin =
    RwLock::new(Origin { boundary: String::new(), name: String::new(), id: String::new() });

/// Names the candidate on each line from here on.
pub fn set_origin(origin: Origin) {
    *PROCESS_ORIGIN.write().unwrap_or_else(PoisonError::into_inner) = origin;
}

/// Notes the candidate's new name.
pub fn rename_origin(name: &str) {
    name.clone_into(&mut PROCESS_ORIGIN.write().unwrap_or_else(PoisonError::into_inner).name);
}

fn current(origin: &SharedOrigin) -> Origin {
    origin.read().unwrap_or_else(PoisonError::into_inner).clone()
}

/// An error of this process that is not an event of the log, in the same form as one.
pub fn error_line(format: Format, message: &str) -> String {
    let origin = current(&PROCESS_ORIGIN);
    match format {
        Format::Text => {
            let prefix = text_prefix(&origin);
            let room = LINE_BYTES_MAX - prefix.len() - "\n".len();
            format!("{prefix}{}\n", cut_visibly(&escaped(message), room))
        }
        Format::Json => {
            let mut line = JsonFields::begin(&origin, Level::ERROR);
            line.text("message", message);
            line.end()
        }
    }
}

/// `elect[cron]: `
fn text_prefix(origin: &Origin) -> String {
    if origin.boundary.is_empty() { "elect: ".to_owned() } else { format!("elect[{}]: ", escaped(&origin.boundary)) }
}

/// Milliseconds are enough, and universal time needs no explanation.
fn timestamp() -> impl fmt::Display {
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(clock::wall_millis()))
}

/// How much of the time stands before a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stamps {
    /// Nothing: the journal has its own.
    None,
    /// A terminal shows the time without the day.
    Time,
    Full,
}

impl Stamps {
    /// As standard error needs them.
    pub(super) fn of_stderr() -> Stamps {
        match (super::into_the_journal(), std::io::stderr().is_terminal()) {
            (true, _) => Stamps::None,
            (false, true) => Stamps::Time,
            (false, false) => Stamps::Full,
        }
    }
}

/// `2026-11-20T17:00:00.123Z elect[cron]: leader command started pid=2`
pub(super) struct TextLine {
    pub(super) stamps: Stamps,
    pub(super) origin: &'static SharedOrigin,
}

impl<S, N> FormatEvent<S, N> for TextLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let colours = writer.has_ansi_escapes();
        let (dim, plain) = if colours { ("\u{1b}[2m", "\u{1b}[0m") } else { ("", "") };
        if self.stamps != Stamps::None {
            let stamp = timestamp().to_string();
            let shown = match self.stamps {
                Stamps::Time => stamp.split_once('T').map_or(stamp.as_str(), |(_, time)| time),
                Stamps::None | Stamps::Full => &stamp,
            };
            write!(writer, "{dim}{shown}{plain} ")?;
        }
        write!(writer, "{}", text_prefix(&current(self.origin)))?;
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
        let mut fields = TextFields { text: String::new(), colours };
        event.record(&mut fields);
        writeln!(writer, "{}", fields.text)
    }
}

/// Message and fields of an event: `leader command started pid=2`.
struct TextFields {
    text: String,
    colours: bool,
}

impl TextFields {
    /// For time, boundary and level. A boundary of 80 bytes takes more when it is escaped.
    const PREFIX_BYTES_MAX: usize = 400;

    fn field(&mut self, name: &str, value: &str) {
        // "log." is the target of the library that passes on the log of others: not shown.
        if name.starts_with("log.") || name.starts_with(JSON_ALONE) {
            return;
        }
        let label = match (name.strip_prefix("r#").unwrap_or(name), self.colours) {
            ("message", _) => String::new(),
            (name, false) => format!("{name}="),
            (name, true) => format!("\u{1b}[3m{name}\u{1b}[0m\u{1b}[2m=\u{1b}[0m"),
        };
        let space = if self.text.is_empty() { "" } else { " " };
        let taken = TextFields::PREFIX_BYTES_MAX + self.text.len() + space.len() + label.len();
        let room = LINE_BYTES_MAX.saturating_sub(taken);
        if room < "…".len() {
            return;
        }
        self.text.push_str(space);
        self.text.push_str(&label);
        self.text.push_str(&cut_visibly(&escaped(value), room));
    }
}

impl Visit for TextFields {
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

/// `{"timestamp":"2026-11-20T17:00:00.123Z","level":"INFO","boundary":"cron","name":"web-1","id":"…","message":"elected","term":7}`
pub(super) struct JsonLine {
    pub(super) origin: &'static SharedOrigin,
}

impl<S, N> FormatEvent<S, N> for JsonLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = JsonFields::begin(&current(self.origin), *event.metadata().level());
        event.record(&mut line);
        writer.write_str(&line.end())
    }
}

/// The members of one object.
struct JsonFields {
    text: String,
}

impl JsonFields {
    fn begin(origin: &Origin, level: Level) -> JsonFields {
        let mut fields = JsonFields { text: format!("{{\"timestamp\":\"{}\",\"level\":\"{level}\"", timestamp()) };
        for (name, value) in [("boundary", &origin.boundary), ("name", &origin.name), ("id", &origin.id)] {
            if value.is_empty() {
                fields.literal(name, "null");
            } else {
                fields.text(name, value);
            }
        }
        fields
    }

    fn end(mut self) -> String {
        self.text.push_str("}\n");
        self.text
    }

    /// What is left for a value, with everything around it.
    fn room(&self, name: &str) -> usize {
        LINE_BYTES_MAX.saturating_sub(self.text.len() + name.len() + ",\"\":}\n".len())
    }

    fn literal(&mut self, name: &str, value: &str) {
        if value.len() <= self.room(name) {
            // Writing to a string cannot fail.
            let _ = write!(self.text, ",\"{name}\":{value}");
        }
    }

    /// A text, cut so that the line stays below its limit however long its escapes are.
    fn text(&mut self, name: &str, value: &str) {
        let room = self.room(name);
        let mut bytes_max = room;
        while bytes_max >= "…".len() {
            let encoded = serde_json::Value::from(&*cut_visibly(value, bytes_max)).to_string();
            let Some(excess) = encoded.len().checked_sub(room + 1) else { return self.literal(name, &encoded) };
            bytes_max = bytes_max.saturating_sub(excess + 1);
        }
    }

    fn name(field: &Field) -> Option<&str> {
        let name = field.name();
        let name = name.strip_prefix(JSON_ALONE).or(name.strip_prefix("r#")).unwrap_or(name);
        debug_assert!(!COMMON_FIELDS.contains(&name), "each line has a {name} of its own");
        (!name.starts_with("log.")).then_some(name)
    }

    fn number(&mut self, field: &Field, value: &dyn fmt::Display) {
        if let Some(name) = JsonFields::name(field) {
            self.literal(name, &value.to_string());
        }
    }
}

impl Visit for JsonFields {
    fn record_str(&mut self, field: &Field, value: &str) {
        if let Some(name) = JsonFields::name(field) {
            self.text(name, value);
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.number(field, &value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.number(field, &value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.number(field, &value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use proptest::prelude::*;
    use serde_json::Value;
    use tracing::{info, warn};
    use tracing_subscriber::layer::SubscriberExt;

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

    impl Written {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().expect("one thread").clone()).expect("text")
        }
    }

    fn origin(boundary: &str) -> &'static SharedOrigin {
        let origin = Origin { boundary: boundary.to_owned(), name: "web-1".to_owned(), id: "u-1".to_owned() };
        Box::leak(Box::new(RwLock::new(origin)))
    }

    /// The lines that are written for these events of a candidate of `cron`.
    fn written(colours: bool, stamps: Stamps, log: impl FnOnce()) -> String {
        written_for("cron", colours, stamps, log)
    }

    fn written_for(boundary: &str, colours: bool, stamps: Stamps, log: impl FnOnce()) -> String {
        let written = Written::default();
        let writer = written.clone();
        let layer = tracing_subscriber::fmt::layer().with_writer(move || writer.clone()).with_ansi(colours);
        let line = TextLine { stamps, origin: origin(boundary) };
        let subscriber = tracing_subscriber::registry().with(layer.event_format(line));
        tracing::subscriber::with_default(subscriber, log);
        written.text()
    }

    fn written_in_json(origin: &'static SharedOrigin, log: impl FnOnce()) -> String {
        let written = Written::default();
        let writer = written.clone();
        let layer = tracing_subscriber::fmt::layer().with_writer(move || writer.clone());
        let subscriber = tracing_subscriber::registry().with(layer.event_format(JsonLine { origin }));
        tracing::subscriber::with_default(subscriber, log);
        written.text()
    }

    #[test]
    fn a_line_is_boundary_message_and_fields() {
        let line = written(false, Stamps::None, || {
            info!(host = "h", port = Some(80), term = 7, seen = %"x", json.id_of_leader = "u", "{}: {} leads", "waiting", "web-1");
        });
        assert_eq!(line, "elect[cron]: waiting: web-1 leads host=\"h\" port=80 term=7 seen=x\n");
        let line = written(true, Stamps::None, || warn!(term = 7, "lost"));
        assert_eq!(line, "elect[cron]: \u{1b}[33mwarning: \u{1b}[0mlost \u{1b}[3mterm\u{1b}[0m\u{1b}[2m=\u{1b}[0m7\n");
        let line = written_for("", false, Stamps::None, || info!("no boundary yet"));
        assert_eq!(line, "elect: no boundary yet\n");
    }

    #[test]
    fn a_line_in_json_says_whose_it_is_and_has_the_types_of_its_fields() {
        let origin = origin("cron");
        let lines = written_in_json(origin, || {
            info!(term = 7, port = Some(80_u16), none = None::<u16>, json.leader_id = "u-2", seen = %"x\ny", is_on = true, "a \"b\"");
            origin.write().expect("one thread").name = "web-2".to_owned();
            warn!(term = -1, "renamed");
        });
        let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let mut first = lines[0].clone();
        assert!(first["timestamp"].take().as_str().is_some_and(|at| at.ends_with('Z')), "{first}");
        let expected = serde_json::json!({
            "timestamp": null, "level": "INFO", "boundary": "cron", "name": "web-1", "id": "u-1", "message": "a \"b\"",
            "term": 7, "port": 80, "leader_id": "u-2", "seen": "x\ny", "is_on": true,
        });
        assert_eq!(first, expected);
        assert_eq!(
            (&lines[1]["name"], &lines[1]["term"], &lines[1]["level"]),
            (&"web-2".into(), &(-1).into(), &"WARN".into())
        );
    }

    #[test]
    fn whatever_a_text_holds_it_is_one_line_of_limited_size() {
        let text = || (proptest_support::text(), prop_oneof![Just(1_usize), 1..3_000_usize]);
        proptest_support::check(proptest_support::SLOW, &(text(), text()), |((message, times), (value, again))| {
            let (message, value) = (message.repeat(times), value.repeat(again));
            let boundary: String = value.chars().take(20).collect();
            let log = || warn!(seen = value, shown = %value, last = 1, "x {message}");
            let line = written_for(&boundary, false, Stamps::Full, log);
            let line = line.strip_suffix('\n').expect("a whole line");
            assert!(!line.chars().any(is_unsafe), "{line}");
            assert!(line.len() < LINE_BYTES_MAX, "{} bytes", line.len());
            let line = written_in_json(origin(&boundary), log);
            assert!(line.len() <= LINE_BYTES_MAX && line.lines().count() == 1, "{} bytes", line.len());
            let read: Value = serde_json::from_str(&line).expect("JSON");
            assert_eq!(read["boundary"].as_str().unwrap_or_default(), boundary);
        });
    }
}
