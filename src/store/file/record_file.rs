//! The files of one boundary, and the format of its record.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value};

use super::StoreError;
use super::directory::{advice, closed, refused_if_permanent};
use super::open_regular::{NotOpened, open_regular};
use super::session::LockFile;
use crate::runtime_dir::encode_file_name;
use crate::store::record::{NewerFormat, Record, VERSION, check_version};
use crate::text::escaped;
use elect_core::Term;
use elect_core::limits::{
    ID_BYTES_MAX, MESSAGE_BYTES_MAX, NAME_BYTES_MAX, RECORD_BYTES_MAX, believed_ttl, cut, cut_name, is_believed_term,
};
use elect_core::takeover::Reservation;

/// The record with the fields that only this store has.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FileRecord {
    #[serde(flatten)]
    pub record: Record,
    /// Device and number of the lock file under which this was written.
    pub lock: LockFile,
    /// The term before, for observers: whether there was one that they have not seen.
    #[serde(rename = "former", default, skip_serializing_if = "Option::is_none")]
    pub previous_term: Option<Term>,
    /// Fields that this elect does not know. They are kept when the record is rewritten (S7).
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

/// The field of a free record that names the candidate that it is left to. An elect that does not know the field keeps it:
/// the term in it says which free record it belongs to.
const SUCCESSOR: &str = "successor";

/// The value of [`SUCCESSOR`].
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct FileReservation {
    /// An id or a name.
    candidate: String,
    /// Milliseconds.
    within: u64,
    /// Of the leader that has freed the record.
    term: Term,
}

impl FileRecord {
    /// The reservation of a free record. It is a courtesy, so that a malformed one counts as none.
    pub fn reservation(&self) -> Option<Reservation<String>> {
        let found = serde_json::from_value(self.unknown.get(SUCCESSOR)?.clone());
        let FileReservation { candidate, within, .. } =
            found.ok().filter(|found: &FileReservation| found.term == self.record.term)?;
        Some(Reservation { successor: cut_name(candidate), within: Duration::from_millis(within) })
    }

    /// Leaves the record to that candidate, or to none.
    pub fn reserve(&mut self, reservation: Option<&Reservation<String>>) {
        self.unknown.remove(SUCCESSOR);
        let Some(Reservation { successor, within }) = reservation else { return };
        let within = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
        let reservation = FileReservation { candidate: successor.clone(), within, term: self.record.term };
        if let Ok(value) = serde_json::to_value(reservation) {
            self.unknown.insert(SUCCESSOR.to_owned(), value);
        }
    }
}

/// The files of one boundary: the paths by which they are reached, and those that are shown.
#[derive(Debug)]
pub struct Files {
    pub lock: PathBuf,
    pub record: PathBuf,
    access: PathBuf,
    temporary: PathBuf,
    shown: PathBuf,
    name: String,
}

/// Why there is no record to be read.
#[derive(Debug)]
pub enum ReadError {
    Io(io::Error),
    /// Something else is in its place, which the next leader replaces.
    NotRegular(&'static str),
    /// Written by something that is not elect, or cut short.
    Corrupt(String),
    /// This elect does not campaign beside it.
    LockObstacle(String),
}

impl Files {
    /// The directory is `shown` by its real path and reached by `access`, which may be the same.
    pub fn new(shown: &Path, access: PathBuf, boundary: &str) -> Files {
        let name = encode_file_name(boundary);
        Files {
            lock: access.join(format!("{name}.lock")),
            record: access.join(format!("{name}.json")),
            temporary: access.join(format!(".{name}.json.new")),
            access,
            shown: shown.to_owned(),
            name,
        }
    }

    pub fn shown_lock(&self) -> PathBuf {
        self.shown.join(format!("{}.lock", self.name))
    }

    pub fn shown_record(&self) -> PathBuf {
        self.shown.join(format!("{}.json", self.name))
    }

    pub fn trouble(&self, what: &str, error: &io::Error) -> StoreError {
        refused_if_permanent(error, format!("{} {what}: {error}{}", self.shown_lock().display(), advice(error)))
    }

    /// The record; `None` if there is none yet.
    pub fn read(&self) -> Result<Option<FileRecord>, ReadError> {
        let file = match open_regular(&self.record, false) {
            Ok(file) => file,
            Err(error) if error.is_missing() => return Ok(None),
            Err(NotOpened::NotRegular("a directory")) => {
                return Err(ReadError::LockObstacle("is a directory, not a record: remove it".to_owned()));
            }
            Err(NotOpened::NotRegular(kind)) => return Err(ReadError::NotRegular(kind)),
            Err(NotOpened::Io(error)) => return Err(ReadError::Io(error)),
        };
        let mut bytes = Vec::new();
        file.take(RECORD_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(ReadError::Io)?;
        parse(&bytes).map(Some)
    }

    /// When the record was written, in milliseconds since 1970. For display.
    pub fn written_at(&self) -> Option<u64> {
        let found = fs::symlink_metadata(&self.record).ok()?;
        u64::try_from(found.mtime()).ok()?.checked_mul(1000)
    }

    /// Replaces the record, so that a reader finds the old one or the new one and a crash leaves one of them. Under the lock.
    pub fn write(&self, record: &FileRecord) -> Result<(), StoreError> {
        self.replace(record).map_err(|error| {
            let advice = match error.raw_os_error() {
                Some(libc::EFBIG) => ": raise the limit of file sizes (ulimit -f)",
                Some(_) | None => advice(&error),
            };
            let record = self.shown_record();
            refused_if_permanent(&error, format!("{} cannot be written: {error}{advice}", record.display()))
        })
    }

    fn replace(&self, record: &FileRecord) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(record)?;
        if bytes.len() >= RECORD_BYTES_MAX {
            // Only what others have added can be so long, and what they cannot read is of no use to them.
            bytes = serde_json::to_vec(&FileRecord { unknown: Map::new(), ..record.clone() })?;
        }
        bytes.push(b'\n');
        let (temporary, mut file) = self.make_temporary()?;
        let replaced = file
            .write_all(&bytes)
            .and_then(|()| file.set_permissions(fs::Permissions::from_mode(0o644)))
            .and_then(|()| file.sync_all())
            .and_then(|()| fs::rename(&temporary, &self.record));
        if replaced.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        replaced?;
        File::open(self.access.join("."))?.sync_all()
    }

    /// A new file, under a name at which a crash, or another user, may have left something. That is not followed, and what
    /// cannot be removed is left alone.
    fn make_temporary(&self) -> io::Result<(PathBuf, File)> {
        let make = |path: &Path| OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let _ = fs::remove_file(&self.temporary);
        match make(&self.temporary) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // As long as the longest name of a boundary leaves room for.
                let mut suffix = uuid::Uuid::new_v4().simple().to_string();
                suffix.truncate(8);
                let other = self.access.join(format!(".{}.json.{suffix}", self.name));
                make(&other).map(|file| (other, file))
            }
            made => made.map(|file| (self.temporary.clone(), file)),
        }
    }
}

fn parse(bytes: &[u8]) -> Result<FileRecord, ReadError> {
    if bytes.len() > RECORD_BYTES_MAX {
        let message = format!("is larger than {RECORD_BYTES_MAX} bytes, which no record is: move it away");
        return Err(ReadError::LockObstacle(message));
    }
    let corrupt = |error: serde_json::Error| ReadError::Corrupt(error.to_string());
    let found: Value = serde_json::from_slice(bytes).map_err(corrupt)?;
    if let Some(version) = found.get("version").and_then(Value::as_u64) {
        check_version(version).map_err(|NewerFormat(version)| {
            ReadError::LockObstacle(format!(
                "was written by a newer elect (format {version}, this one knows {VERSION}) for {}: upgrade this one",
                holder(&found)
            ))
        })?;
    }
    if let Some(scheme) = found.get("scheme").filter(|scheme| !scheme.is_null()) {
        let scheme = shown(scheme.as_str().unwrap_or("?"), MESSAGE_BYTES_MAX);
        let message = format!("has terms of another scheme ({scheme}), held by {}", holder(&found));
        return Err(ReadError::LockObstacle(message));
    }
    let mut found: FileRecord = serde_json::from_value(found).map_err(corrupt)?;
    let record = &mut found.record;
    if record.id.len() > ID_BYTES_MAX {
        let name = shown(&record.name, NAME_BYTES_MAX);
        let message = format!("has an id longer than {ID_BYTES_MAX} bytes, held by {name}: move it away");
        return Err(ReadError::LockObstacle(message));
    }
    if !is_believed_term(record.term) {
        let (term, name) = (record.term, shown(&record.name, NAME_BYTES_MAX));
        let message = format!("has term {term}, held by {name}, and no larger one is believed: move it away");
        return Err(ReadError::LockObstacle(message));
    }
    record.name = cut_name(std::mem::take(&mut record.name));
    record.host = cut_name(std::mem::take(&mut record.host));
    record.ttl = record.ttl.map(|ttl| u64::try_from(believed_ttl(ttl).as_millis()).unwrap_or(u64::MAX));
    found.previous_term = found.previous_term.filter(|&term| is_believed_term(term));
    Ok(found)
}

/// The holder of a record that cannot be read as one, as far as it is named.
fn holder(found: &Value) -> String {
    let text = |field: &str| found.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
    let name = shown(text("name").or_else(|| text("id")).unwrap_or("an unnamed candidate"), NAME_BYTES_MAX);
    match text("host") {
        Some(host) => format!("{name} at {}", shown(host, NAME_BYTES_MAX)),
        None => name,
    }
}

fn shown(text: &str, bytes_max: usize) -> String {
    cut(escaped(&cut(text.to_owned(), bytes_max)).into_owned(), bytes_max)
}

impl ReadError {
    /// Whether the next leader writes a record over it.
    pub fn is_replaced(&self) -> bool {
        matches!(self, ReadError::Corrupt(_) | ReadError::NotRegular(_))
    }

    pub fn into_store_error(self, files: &Files) -> StoreError {
        let record = files.shown_record();
        let record = record.display();
        match self {
            ReadError::Io(error) if error.kind() == io::ErrorKind::PermissionDenied => closed(&files.shown, &record),
            ReadError::Io(error) => refused_if_permanent(&error, format!("{record} cannot be read: {error}")),
            ReadError::NotRegular(kind) => {
                StoreError::Unavailable(format!("{record} is {kind}, not a record; the next leader replaces it"))
            }
            ReadError::Corrupt(reason) => {
                // It repeats what it does not know, line breaks and all.
                let reason = shown(&reason, MESSAGE_BYTES_MAX);
                StoreError::Unavailable(format!("{record} is not a record: {reason}; the next leader replaces it"))
            }
            ReadError::LockObstacle(message) => StoreError::Obstacle(format!("{record} {message}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::record::RecordState;
    use elect_core::limits::{TERM_MAX, TTL_MAX};
    use elect_core::proptest_support;

    fn files(directory: &Path) -> Files {
        Files::new(directory, directory.to_owned(), "cron")
    }

    fn valid() -> Value {
        let text = r#"{"version":2,"state":"held","id":"i","name":"n","host":"h","port":null,"term":7,"ttl":null,"since":1,
            "lock":{"device":1,"inode":2}}"#;
        serde_json::from_str(text).expect("JSON")
    }

    fn with(field: &str, value: Value) -> Result<FileRecord, ReadError> {
        let mut record = valid();
        record[field] = value;
        parse(record.to_string().as_bytes())
    }

    #[track_caller]
    fn obstacle(read: Result<FileRecord, ReadError>) -> String {
        let Err(error) = read else { panic!("read: {read:?}") };
        let directory = tempfile::tempdir().expect("a directory");
        let error = error.into_store_error(&files(directory.path()));
        let StoreError::Obstacle(message) = error else { panic!("no obstacle: {error:?}") };
        assert_eq!(message.lines().count(), 1, "{message}");
        assert!(message.len() < 4 * MESSAGE_BYTES_MAX, "{}", message.len());
        message
    }

    #[test]
    fn a_record_that_is_none_is_told_from_one_that_is_newer() {
        assert!(matches!(parse(b""), Err(ReadError::Corrupt(_))));
        assert!(matches!(parse(b"\0\0\0\0"), Err(ReadError::Corrupt(_))));
        assert!(matches!(parse(b"{\"version\":1}"), Err(ReadError::Corrupt(_))));
        assert!(matches!(parse(b"[3]"), Err(ReadError::Corrupt(_))));
        assert!(matches!(parse(b"{\"version\":-3}"), Err(ReadError::Corrupt(_))));
        for version in [3, u64::from(u32::MAX) + 7, u64::MAX] {
            let message = obstacle(with("version", version.into()));
            assert!(message.contains("newer elect") && message.contains("for n at h"), "{message}");
        }
        let message = obstacle(parse(br#"{"version":3,"whatever":[]}"#));
        assert!(message.contains("format 3") && message.contains("an unnamed candidate"), "{message}");
    }

    #[test]
    fn a_record_of_the_first_version_is_read() {
        let record = with("version", 1.into()).expect("a record");
        assert_eq!((record.record.version, record.record.term), (1, 7));
    }

    #[test]
    fn what_is_beyond_a_limit_is_cut_or_an_obstacle() {
        let long = "ä".repeat(3_000);
        for field in ["name", "host"] {
            let record = with(field, long.clone().into()).expect("a record").record;
            assert!(record.name.len() <= NAME_BYTES_MAX && record.host.len() <= NAME_BYTES_MAX);
        }
        assert_eq!(with("ttl", u64::MAX.into()).expect("a record").record.ttl, Some(24 * 60 * 60 * 1_000));
        assert_eq!(with("former", 5.into()).expect("a record").previous_term, Some(5));
        assert_eq!(with("former", u64::MAX.into()).expect("a record").previous_term, None);
        assert!(with("term", TERM_MAX.into()).is_ok());
        assert!(with("id", "i".repeat(64).into()).is_ok());
        assert!(obstacle(with("term", (TERM_MAX + 1).into())).contains("no larger one is believed"));
        assert!(obstacle(with("id", "i".repeat(65).into())).contains("id longer"));
        assert!(obstacle(with("scheme", "revision".into())).contains("another scheme (revision), held by n at h"));
        assert!(obstacle(with("scheme", 7.into())).contains("another scheme"));
        assert!(obstacle(with("unknown", "x".repeat(RECORD_BYTES_MAX).into())).contains("larger than"));
        let forged = obstacle(with("version", 9.into()).or_else(|_| {
            let mut record = valid();
            (record["version"], record["name"]) = (9.into(), "a\nelect: warning: \u{1b}[2J".into());
            parse(record.to_string().as_bytes())
        }));
        assert!(!forged.chars().any(crate::text::is_unsafe), "{forged}");
    }

    #[test]
    fn fields_that_are_not_known_are_kept_as_long_as_there_is_room() {
        let directory = tempfile::tempdir().expect("a directory");
        let files = files(directory.path());
        let mut record = with("successor", serde_json::json!({"id": "x", "within": [1]})).expect("a record");
        record.record.state = RecordState::Free;
        files.write(&record).expect("written");
        let kept = files.read().expect("read").expect("a record");
        assert_eq!(kept.unknown["successor"]["id"], "x");
        assert_eq!(kept, record);
        record.unknown.insert("long".to_owned(), "x".repeat(RECORD_BYTES_MAX).into());
        files.write(&record).expect("written");
        assert_eq!(files.read().expect("still readable").expect("a record").unknown, Map::new());
    }

    #[test]
    fn a_reservation_counts_for_the_term_that_it_was_made_in_alone() {
        let mut record = with("state", "free".into()).expect("a record");
        let reservation = Reservation { successor: "web-2".to_owned(), within: Duration::from_secs(3) };
        record.reserve(Some(&reservation));
        assert_eq!(record.reservation(), Some(reservation));
        let left_over = FileRecord { record: Record { term: 8, ..record.record.clone() }, ..record.clone() };
        assert_eq!(left_over.reservation(), None);
        record.reserve(None);
        assert_eq!(record.reservation(), None);
        let malformed = with("successor", serde_json::json!({"candidate": 7, "within": -1})).expect("a record");
        assert_eq!(malformed.reservation(), None);
    }

    fn records() -> impl Strategy<Value = FileRecord> {
        let state = prop_oneof![Just(RecordState::Held), Just(RecordState::Free)];
        let id = proptest::collection::vec(any::<char>(), 0..16).prop_map(String::from_iter);
        let who = (id, proptest_support::text(), proptest_support::text(), any::<Option<u16>>());
        let ttl = proptest::option::of(0..=86_400_000_u64);
        let previous_term = proptest::option::of(0..=TERM_MAX);
        let numbers = (0..=VERSION, 0..=TERM_MAX, ttl, any::<u64>());
        (state, who, numbers, any::<[u64; 2]>(), previous_term).prop_map(
            |(state, (id, name, host, port), (version, term, ttl, since), [device, inode], previous_term)| FileRecord {
                record: Record { version, state, id, name, host, port, term, ttl, since },
                lock: LockFile { device, inode },
                previous_term,
                unknown: Map::new(),
            },
        )
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        let directory = tempfile::tempdir().expect("a directory");
        let files = files(directory.path());
        proptest_support::check(proptest_support::SLOW, &records(), |record| {
            files.write(&record).expect("written");
            assert_eq!(files.read().expect("a record"), Some(record));
        });
    }

    #[test]
    fn whatever_is_found_in_a_record_is_read_without_harm_and_stays() {
        let json = || records().prop_map(|record| serde_json::to_vec(&record).expect("JSON"));
        let long = (proptest_support::text(), 0..40_000_usize).prop_map(|(text, count)| {
            let mut record = valid();
            record["name"] = (text + &"é".repeat(count)).into();
            record.to_string().into_bytes()
        });
        let deep = (0..16_000_usize).prop_map(|depth| {
            valid().to_string().replacen('{', &format!(r#"{{"deep":{},"#, "[".repeat(depth)), 1).into_bytes()
        });
        let numbers = (prop::sample::select(vec!["term", "ttl", "former", "since"]), any::<u64>());
        let numbers = numbers.prop_map(|(field, number)| {
            let mut record = valid();
            record[field] = number.into();
            record.to_string().into_bytes()
        });
        let found = prop_oneof![
            proptest_support::random_bytes(),
            proptest_support::corrupted(json()),
            proptest_support::wrong_types(json()),
            long,
            deep,
            numbers
        ];
        proptest_support::check(proptest_support::FAST, &found, |bytes| {
            if let Ok(record) = parse(&bytes) {
                let Record { id, name, host, term, ttl, .. } = &record.record;
                assert!(name.len() <= NAME_BYTES_MAX && host.len() <= NAME_BYTES_MAX && id.len() <= ID_BYTES_MAX);
                assert!(is_believed_term(*term) && record.previous_term.is_none_or(is_believed_term));
                assert!(ttl.is_none_or(|ttl| Duration::from_millis(ttl) <= TTL_MAX));
                let again = serde_json::to_vec(&record).expect("JSON");
                assert_eq!(parse(&again).expect("a record"), record);
            }
        });
        let directory = tempfile::tempdir().expect("a directory");
        let files = files(directory.path());
        proptest_support::check(proptest_support::SLOW, &found, |bytes| {
            fs::write(&files.record, &bytes).expect("written");
            if let Err(error) = files.read() {
                let message = error.into_store_error(&files).to_string();
                assert_eq!(message.lines().count(), 1);
                assert!(message.len() < 4 * MESSAGE_BYTES_MAX);
            }
            assert_eq!(fs::read(&files.record).expect("still there"), bytes);
        });
    }

    #[test]
    fn noise_is_no_record() {
        proptest_support::check(proptest_support::FAST, &proptest_support::random_bytes(), |bytes| {
            assert!(parse(&bytes).is_err());
        });
    }

    #[test]
    fn whatever_is_in_the_place_of_a_record_is_neither_followed_nor_waited_for() {
        let directory = tempfile::tempdir().expect("a directory");
        let files = files(directory.path());
        let private = directory.path().join("private");
        fs::write(&private, "private").expect("written");
        let clear = |path: &Path| {
            let _ = fs::remove_file(path).or_else(|_| fs::remove_dir(path));
        };
        let makers: [fn(&Path, &Path); 5] = [
            |_, path| nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).expect("a FIFO"),
            |private, path| std::os::unix::fs::symlink(private, path).expect("a link"),
            |_, path| drop(std::os::unix::net::UnixListener::bind(path).expect("a socket")),
            |_, path| std::os::unix::fs::symlink("/dev/zero", path).expect("a link to a device"),
            |_, path| fs::create_dir(path).expect("a directory"),
        ];
        let record = parse(valid().to_string().as_bytes()).expect("a record");
        for make in makers {
            clear(&files.record);
            make(&private, &files.record);
            assert!(files.read().is_err());
            let is_directory = files.record.is_dir();
            assert_eq!(files.write(&record).is_err(), is_directory, "all but a directory is replaced");
            clear(&files.record);
            make(&private, &files.temporary);
            files.write(&record).expect("written under another name, if need be");
            assert_eq!(files.read().expect("a record"), Some(record.clone()));
            clear(&files.temporary);
            assert_eq!(fs::read(&private).expect("there"), b"private", "left alone");
        }
        // One record, the private file, and nothing temporary.
        assert_eq!(fs::read_dir(directory.path()).expect("listed").count(), 2);
    }
}
