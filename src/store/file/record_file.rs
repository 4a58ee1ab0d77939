//! The files of one boundary, and the format of its record.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::geteuid;
use serde_json::{Map, Value};

use super::StoreError;
use super::directory::{advice, closed, refused_if_permanent};
use super::open_regular::{NotOpened, open_regular};
use super::session::LockFile;
use crate::runtime_dir::encode_file_name;
use crate::store::record::{NewerFormat, Record, RecordState, VERSION, check_version};
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

/// A disk writes at least so many bytes at once: a change within them is on it as a whole or not at all.
const SECTOR_BYTES: usize = 512;

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
        read_again_if_damaged(|| self.read_once())
    }

    fn read_once(&self) -> Result<Option<FileRecord>, ReadError> {
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

    /// Marks the record `held` as free. Under the lock.
    ///
    /// Where no byte but those of the state differs, they are written in their place, and not synced: after a crash of the
    /// host the record says one or the other, with the same term, and nobody holds the lock. A hand-over waits for two syncs
    /// less than if the record were replaced.
    pub fn free(&self, held: &FileRecord, reservation: Option<&Reservation<String>>) -> Result<(), StoreError> {
        let mut free = held.clone();
        free.record.state = RecordState::Free;
        free.reserve(reservation);
        match self.overwrite(&free) {
            Ok(true) => Ok(()),
            // A change that cannot be made in its place has not been made in part.
            Ok(false) | Err(_) => self.write(&free),
        }
    }

    /// Whether the record could be changed in its place: if it is ours alone, and the change lies within a sector.
    fn overwrite(&self, record: &FileRecord) -> io::Result<bool> {
        let Ok(file) = open_regular(&self.record, true) else { return Ok(false) };
        let found = file.metadata()?;
        if found.uid() != geteuid().as_raw() || found.nlink() != 1 {
            return Ok(false);
        }
        let (mut old, new) = (Vec::new(), serialized(record)?);
        (&file).take(RECORD_BYTES_MAX as u64 + 1).read_to_end(&mut old)?;
        let differs = |&index: &usize| old[index] != new[index];
        if old.len() != new.len() {
            return Ok(false);
        }
        let Some(first) = (0..new.len()).find(differs) else { return Ok(true) };
        let last = (first..new.len()).rfind(differs).unwrap_or(first);
        if first / SECTOR_BYTES != last / SECTOR_BYTES {
            return Ok(false);
        }
        file.write_all_at(&new[first..=last], first as u64)?;
        Ok(true)
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
        let bytes = serialized(record)?;
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

/// Reads a record once more that looks damaged: its leader may be marking it as free at this moment.
fn read_again_if_damaged<T>(mut read: impl FnMut() -> Result<T, ReadError>) -> Result<T, ReadError> {
    match read() {
        Err(ReadError::Corrupt(_)) => read(),
        found => found,
    }
}

fn serialized(record: &FileRecord) -> io::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(record)?;
    if bytes.len() >= RECORD_BYTES_MAX {
        // Only what others have added can be so long, and what they cannot read is of no use to them.
        bytes = serde_json::to_vec(&FileRecord { unknown: Map::new(), ..record.clone() })?;
    }
    bytes.push(b'\n');
    Ok(bytes)
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
mod tests;
