//! `file:DIR`: one host, no server (DESIGN.md 5.1).
//!
//! Per boundary a lock file that is never unlinked, and beside it a record that is replaced under the lock. Two locks
//! make a leader:
//!
//! - `flock` on a description that campaigner, keeper **and command** share. The kernel keeps it until the last of them is
//!   gone, so that even a leader whose campaigner and keeper were killed at once keeps the others out. `flock(1)` on the
//!   same file excludes and is excluded.
//! - a byte-range lock on a second description that only campaigner and keeper share. The command inherited the first and
//!   may drop it (`flock -u`); nobody can start before campaigner and keeper have noticed and emptied the tree.
//!
//! A lock file that somebody replaced is a different lock. Its number is in the record, so a candidate that finds itself
//! on another file than the leader's knows, and waits until that leader has noticed too.

mod directory;
mod folder;
mod holders;
mod observing;
mod seat;

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;

use super::record::{Record, RecordState};
use super::relinquish::Relinquish;
use super::{
    Access, Candidacy, Depth, Glance, Hints, Identity, Kind, Renewal, Sighting, Standing, Store, StoreError, StoreUrl,
};
use crate::boundary::Boundary;
use crate::clock;
use crate::election::{Term, Time};
use crate::keeper::Claim;
use directory::{Directory, Files};
pub use directory::{default_directory, encode, runtime_directory};
use holders::Holders;
use observing::Observing;
use seat::{LockFile, Seat, Turn};

pub const KIND: Kind = Kind {
    schemes: &["file"],
    form: "file:DIR",
    about: "a lock file on this host, no server (the default, in a directory by uid)",
    reach: "this host only",
    check,
    show,
    open,
    relinquish: Relinquish::InPlace(release_claim),
};

/// A leader looks after its lock once a second; a lock file other than the one that a living leader holds is therefore
/// noticed, and the command killed, well within this time.
const SETTLE: Duration = Duration::from_secs(3);
/// How often the files are touched: cleaners of temporary directories go by age, in days.
const TOUCH_EVERY: Duration = Duration::from_secs(600);

struct FileStore {
    directory: Directory,
    hints: Hints,
    seat: Option<Seat>,
    /// Whether the keeper has the claim to this seat: we are asked to campaign only then.
    given: bool,
    /// What is waited for on a lock file that is not the last leader's.
    settled_at: Option<Time>,
    touch_at: Time,
    /// What our record says of us.
    announced: Option<Identity>,
    obstacle: Obstacle,
    observing: Observing,
}

fn check(url: &StoreUrl<'_>) -> Result<(), String> {
    Directory::parse(url.rest).map(drop)
}

fn show(url: &StoreUrl<'_>) -> String {
    match url.rest {
        "" => format!("file:{}", default_directory().display()),
        directory => format!("file:{directory}"),
    }
}

fn open(url: &StoreUrl<'_>, _: &Access, hints: Hints) -> Result<Box<dyn Store>, StoreError> {
    let directory = Directory::parse(url.rest).map_err(StoreError::Refused)?;
    Ok(Box::new(FileStore {
        directory,
        hints,
        seat: None,
        given: false,
        settled_at: None,
        touch_at: Time::BOOT,
        announced: None,
        obstacle: Obstacle::default(),
        observing: Observing::default(),
    }))
}

/// What the record says beyond what every store's does.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct FileRecord {
    #[serde(flatten)]
    record: Record,
    /// Device and number of the lock file under which this was written.
    lock: LockFile,
    /// The term before, for observers: whether there was one that they have not seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    former: Option<Term>,
}

/// What the keeper is told, to release alone: everything else it finds out under the lock.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct FileClaim {
    directory: PathBuf,
    boundary: String,
    id: String,
}

#[async_trait(?Send)]
impl Store for FileStore {
    fn grants_leases(&self) -> bool {
        false
    }

    async fn look(&mut self, boundary: &Boundary) -> Result<Sighting, StoreError> {
        if !self.directory.check()? {
            return Ok(Sighting::default());
        }
        let files = self.directory.files(boundary);
        let mut seen = self.observing.look(&[(boundary.clone(), files)]).await;
        seen.pop().unwrap_or_else(|| Ok(Sighting::default()))
    }

    async fn boundaries(&mut self) -> Result<Vec<Boundary>, StoreError> {
        self.directory.boundaries()
    }

    async fn survey(&mut self, _: Depth) -> Result<Vec<Glance>, StoreError> {
        let with_files = |boundary: Boundary| {
            let files = self.directory.files(&boundary);
            (boundary, files)
        };
        let all: Vec<_> = self.directory.boundaries()?.into_iter().map(with_files).collect();
        let seen = self.observing.look(&all).await;
        Ok(all.into_iter().map(|(boundary, _)| boundary).zip(seen).collect())
    }

    async fn changed(&mut self, boundary: Option<&Boundary>) {
        self.observing.changed(&self.directory, boundary).await;
    }

    fn claim(&mut self, candidacy: &Candidacy) -> Result<Option<Claim>, StoreError> {
        self.directory.prepare()?;
        let files = self.directory.files(&candidacy.boundary);
        if let Some(seat) = &self.seat
            && self.given
            && seat.is_on(&files.lock)
            && !seat.is_lost()
        {
            return Ok(None);
        }
        (self.settled_at, self.given) = (None, false);
        self.give_up_seat();
        let seat = Seat::open(&files.lock, self.directory.sharing())?;
        let payload = FileClaim {
            directory: self.directory.path().to_owned(),
            boundary: candidacy.boundary.to_string(),
            id: candidacy.identity.id.clone(),
        };
        let claim = Claim {
            payload: serde_json::to_vec(&payload).map_err(|error| StoreError::Unavailable(error.to_string()))?,
            descriptors: seat.copies().map_err(|error| files.trouble("cannot be shared with the keeper", &error))?,
        };
        self.seat = Some(seat);
        Ok(Some(claim))
    }

    async fn campaign(&mut self, candidacy: &Candidacy) -> Result<Standing, StoreError> {
        self.given = true;
        let files = self.directory.files(&candidacy.boundary);
        let Some(seat) = &mut self.seat else {
            return Err(StoreError::Unavailable("the lock file is not open".to_owned()));
        };
        let turn = seat.take(&self.hints).map_err(|error| files.trouble("cannot be locked", &error))?;
        match turn {
            Turn::Taken if seat.is_on(&files.lock) => self.locked(candidacy, &files),
            // Replaced while we waited for it: the next question opens the one that is there now.
            Turn::Taken => {
                self.give_up_seat();
                Ok(Standing::Waiting { sighting: Sighting::default(), again: Some(Duration::ZERO), decided: true })
            }
            Turn::Waits => {
                let mut sighting = look_at_record(&files)?;
                self.obstacle.look(&files, &mut sighting);
                Ok(Standing::Waiting { sighting, again: None, decided: true })
            }
        }
    }

    async fn renew(&mut self, candidacy: &Candidacy) -> Result<Renewal, StoreError> {
        let now = clock::now();
        let files = self.directory.files(&candidacy.boundary);
        let Some(seat) = &mut self.seat else { return Ok(Renewal::Lost { why: "the lock is not held".to_owned() }) };
        let lost = if !seat.is_on(&files.lock) {
            Some("the lock file was deleted or replaced")
        } else if !seat.still_locked() {
            Some("the lock was dropped, and somebody else took it")
        } else {
            None
        };
        if let Some(why) = lost {
            // The guard stays until the tree is empty and we campaign again, or end.
            seat.lose();
            return Ok(Renewal::Lost { why: why.to_owned() });
        }
        if now >= self.touch_at {
            self.touch_at = now + TOUCH_EVERY;
            seat.touch(&files.record);
        }
        // Won by finding our own record, or proclaimed since.
        if self.announced.as_ref() != Some(&candidacy.identity) {
            announce(&files, &candidacy.identity)?;
            self.announced = Some(candidacy.identity.clone());
        }
        Ok(Renewal::Credited { sent: now, ttl: None })
    }

    async fn release(&mut self, candidacy: &Candidacy) -> Result<(), StoreError> {
        let files = self.directory.files(&candidacy.boundary);
        let Some(seat) = self.seat.take() else { return Ok(()) };
        let ours = seat.is_on(&files.lock) && seat.has_lock();
        let freed = if ours { free_record(&files, &candidacy.identity.id) } else { Ok(()) };
        // Whatever became of the record: nothing of ours runs, so the lock goes.
        seat.give_up();
        freed
    }
}

impl FileStore {
    /// Both locks are ours, on the file that is there: the record decides the rest.
    fn locked(&mut self, candidacy: &Candidacy, files: &Files) -> Result<Standing, StoreError> {
        match self.succeed(candidacy, files) {
            Ok(standing) => Ok(standing),
            Err(error) => {
                self.give_up_seat();
                Err(error)
            }
        }
    }

    fn succeed(&mut self, candidacy: &Candidacy, files: &Files) -> Result<Standing, StoreError> {
        let Some(lock) = self.seat.as_ref().map(Seat::file) else {
            return Err(StoreError::Unavailable("the lock file is not open".to_owned()));
        };
        let former = match files.read() {
            Ok(former) => former,
            // The lock excludes whoever wrote it; all that is lost is the last term, as in a directory that was emptied.
            Err(directory::ReadError::Corrupt(reason)) => {
                tracing::warn!(record = %files.record.display(), reason, "the record is not readable and will be replaced");
                None
            }
            Err(error) => return Err(error.into_store_error(files)),
        };
        if let Some(former) = &former
            && former.record.is_held_by(&candidacy.identity.id)
            && former.lock == lock
        {
            return Ok(Standing::Won { term: former.record.term });
        }
        if let Some(waiting) = self.unsettled(former.as_ref(), files) {
            return Ok(waiting);
        }
        let millis = clock::wall_millis();
        let former = former.map(|former| former.record.term);
        let last = former.unwrap_or(0);
        let Some(next) = last.checked_add(1) else {
            let record = files.record.display();
            return Err(StoreError::Refused(format!("{record}: no term is larger than {last}: remove the record")));
        };
        let term = next.max(millis);
        let record = FileRecord { record: Record::held(&candidacy.identity, term, None, millis), lock, former };
        files.write(&record)?;
        self.announced = Some(candidacy.identity.clone());
        self.touch_at = clock::now() + TOUCH_EVERY;
        Ok(Standing::Won { term })
    }

    /// On a lock file other than the one that the last leader locked, the lock proves nothing about that leader. It has to
    /// have noticed, which takes a moment, and its tree has to be gone: its campaigner may be dead, or stopped, while its
    /// command still lives through a grace. For as long as it does, somebody holds the lock on the file that is gone.
    fn unsettled(&mut self, former: Option<&FileRecord>, files: &Files) -> Option<Standing> {
        let seat = self.seat.as_ref()?;
        let lost = match former {
            Some(former) if former.lock == seat.file() || former.record.state != RecordState::Held => return None,
            Some(former) => Some(former.lock),
            None => None,
        };
        let now = clock::now();
        // Without a record there is nobody to wait for, unless the whole directory was emptied under a leader.
        let settled_at = match lost {
            Some(_) => *self.settled_at.get_or_insert(now + SETTLE),
            None => now,
        };
        let obstacle = if now < settled_at {
            Some("the lock file is a new one: waiting for the last leader to notice".to_owned())
        } else {
            let holders = lost.map_or_else(|| Holders::of_deleted(&files.lock), Holders::on);
            holders.any().then(|| format!("the lock file is a new one; on the old one {}", holders.describe()))
        };
        let sighting = Sighting { obstacle: Some(obstacle?), ..Sighting::default() };
        let again = settled_at.since(now).max(Duration::from_millis(100));
        Some(Standing::Waiting { sighting, again: Some(again), decided: true })
    }

    fn give_up_seat(&mut self) {
        if let Some(seat) = self.seat.take() {
            seat.give_up();
        }
    }
}

/// What keeps a waiter out although no leader lives: orphans of one, or another program.
#[derive(Debug, Default)]
struct Obstacle {
    /// Since when nobody has been seen to guard the lock that is held.
    unguarded: Option<Time>,
    described: Option<(Time, String)>,
}

impl Obstacle {
    /// Longer than any leader takes from its lock to its guard.
    const SUSPICIOUS: Duration = Duration::from_millis(500);
    /// Finding out who holds a lock reads all of `/proc`.
    const LOOK_AGAIN: Duration = Duration::from_secs(10);

    fn look(&mut self, files: &Files, sighting: &mut Sighting) {
        if seat::is_guarded(&files.lock) {
            *self = Obstacle::default();
            return;
        }
        let now = clock::now();
        if now.since(*self.unguarded.get_or_insert(now)) < Obstacle::SUSPICIOUS {
            return;
        }
        sighting.leader = None;
        let current = self.described.take_if(|(at, _)| now.since(*at) < Obstacle::LOOK_AGAIN);
        let (at, described) = current.unwrap_or_else(|| (now, Holders::of(&files.lock).describe()));
        sighting.obstacle = Some(described.clone());
        self.described = Some((at, described));
    }
}

/// What the record says, for those who wait for the lock that somebody holds.
fn look_at_record(files: &Files) -> Result<Sighting, StoreError> {
    let former = files.read().map_err(|error| error.into_store_error(files))?;
    let leader = former.filter(|former| former.record.state == RecordState::Held).map(|former| former.record.leader());
    Ok(Sighting { leader, ..Sighting::default() })
}

/// Writes what we are called, and where we are to be found, into our own record; the term stays.
fn announce(files: &Files, identity: &Identity) -> Result<(), StoreError> {
    match files.read() {
        Ok(Some(mut record)) if record.record.is_held_by(&identity.id) => {
            record.record.rename(identity);
            files.write(&record)
        }
        // The lock decides who leads. A record that somebody took away comes back with the next leader.
        Ok(_) => Ok(()),
        Err(error) => Err(error.into_store_error(files)),
    }
}

/// Marks the record as free if it is still that of the candidate `id`; the term in it stays.
fn free_record(files: &Files, id: &str) -> Result<(), StoreError> {
    match files.read() {
        Ok(Some(mut record)) if record.record.is_held_by(id) => {
            record.record.state = RecordState::Free;
            files.write(&record)
        }
        Ok(_) => Ok(()),
        Err(error) => Err(error.into_store_error(files)),
    }
}

/// K2: the same as [`Store::release`], in the keeper's process, after the campaigner's death. The tree is empty.
fn release_claim(claim: Claim) {
    let Ok(FileClaim { directory, boundary, id }) = serde_json::from_slice(&claim.payload) else { return };
    let Some(seat) = Seat::inherit(claim.descriptors) else { return };
    let files = Files::new(Path::new(&directory), &boundary);
    // The lock is on a description that we share; if it is not on it, somebody else's record is none of our business.
    if seat.still_locked() {
        if seat.is_on(&files.lock) {
            // A record that cannot be written is that of a leader whose lock is free: nobody takes it for one.
            let _ = free_record(&files, &id);
        }
        seat.give_up();
    }
}

#[cfg(test)]
mod tests;
