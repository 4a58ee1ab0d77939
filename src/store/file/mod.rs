//! `file:DIR`: one host, no server (DESIGN.md 5.1).
//!
//! Per boundary a lock file that is never unlinked, and beside it a record that is written under the lock. Two locks
//! make a leader:
//!
//! - `flock` on a description that campaigner, keeper **and command** share. The kernel keeps it until the last of them is
//!   gone, so that even a leader whose campaigner and keeper were killed at once keeps the others out. `flock(1)` on the
//!   same file excludes and is excluded.
//! - a byte-range lock on a second description that only campaigner and keeper share. The command inherited the first and
//!   may drop it (`flock -u`); no candidate can start before campaigner and keeper have noticed and emptied the tree.
//!
//! A lock file that was replaced, or to which the path no longer leads, is a different lock. The leader resolves the path
//! as given once a second ([`path_watch`]). A lock file says under which real path it was locked ([`lock_label`]); one that does
//! not was made just now, and before its candidate leads it looks for holders of an earlier one ([`newcomer_wait`]).

mod directory;
mod directory_handle;
mod directory_watch;
mod lock_holders;
mod lock_label;
mod newcomer_wait;
mod observer;
mod open_regular;
mod path_watch;
mod record_file;
mod session;
mod succession;
mod yielding;

use std::time::Duration;

use async_trait::async_trait;

use serde_json::Map;

use crate::runtime_dir;
use crate::store::claim_release::ClaimRelease;
use crate::store::record::{Record, RecordState};
use crate::store::url::{StoreKind, StoreUrl};
use crate::store::{
    Access, CampaignResult, Candidacy, Detail, Finding, Identity, Listing, Notifier, Observation, RenewResult,
    ReserveResult, Store, StoreError,
};
use directory::{Directory, refused_if_permanent};
use directory_handle::DirectoryHandle;
use elect_core::boundary::Boundary;
use elect_core::limits;
use elect_core::takeover::Reservation;
use elect_core::{Term, Time};
use elect_keeper::Claim;
use elect_keeper::clock;
use lock_holders::LockHolders;
use lock_label::LockLabel;
use newcomer_wait::NewcomerWait;
use observer::FileObserver;
use path_watch::{PathWatch, Resolved};
use record_file::{FileRecord, Files};
use session::{LockAttempt, Session};
use succession::Succession;
use yielding::Yielding;

pub const KIND: StoreKind = StoreKind {
    schemes: &["file"],
    form: "file:DIR",
    about: "a lock file on this host, no server (the default, in a directory by uid)",
    port: None,
    mistaken: &[],
    reach: "this host only",
    check,
    show,
    open,
    claim_release: ClaimRelease::InPlace(release_claim),
    shortest_times: (Duration::ZERO, Duration::ZERO),
    is_observed: false,
    label_pod: None,
    boundary: None,
};

/// How often the files are touched: cleaners of temporary directories go by age, in days.
const TOUCH_INTERVAL: Duration = Duration::from_secs(600);

/// How long a path that is still being resolved is waited for before it is asked about again.
const RESOLVE_INTERVAL: Duration = Duration::from_millis(100);
/// How much later than the others the candidate that has resigned asks, once a reservation is over.
const STAND_BACK: Duration = Duration::from_millis(500);

struct FileStore {
    directory: Directory,
    hints: Notifier,
    watch: Option<PathWatch>,
    session: Option<Session>,
    /// Whether the keeper has the claim to this session: we are asked to campaign only then.
    given: bool,
    settling: NewcomerWait,
    stand_back: Option<Yielding>,
    /// No other campaign follows the release, and the kernel's list of waiting processes is not read: it costs a grace period of the
    /// kernel (2 to 12 ms).
    ends: bool,
    succession: Succession,
    /// Of every record of this boundary that was read: no term is taken that is not above it (S1).
    highest_seen: Term,
    /// The term that was won, and whether the path was seen to lead to our lock file since.
    term: Option<Term>,
    confirmed: bool,
    touch_at: Time,
    /// The identity in our record.
    recorded_identity: Option<Identity>,
    obstacle: LockObstacle,
    observing: FileObserver,
}

fn check(url: &StoreUrl<'_>) -> Result<(), String> {
    Directory::parse(url.rest).map(drop)
}

fn show(url: &StoreUrl<'_>) -> String {
    match url.rest {
        "" => format!("file:{}", runtime_dir::path().display()),
        directory => format!("file:{directory}"),
    }
}

fn open(url: &StoreUrl<'_>, _: &Access, hints: Notifier) -> Result<Box<dyn Store>, StoreError> {
    let directory = Directory::parse(url.rest).map_err(StoreError::Refused)?;
    Ok(Box::new(FileStore::new(directory, hints)))
}

/// The keeper's data for a release of its own: it finds out everything else under the lock, in the directory that it is given.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct FileClaim {
    boundary: String,
    id: String,
}

#[async_trait(?Send)]
impl Store for FileStore {
    fn grants_leases(&self) -> bool {
        false
    }

    async fn observe(&mut self, boundary: &Boundary) -> Result<Observation, StoreError> {
        if !self.directory.check()? {
            return Ok(Observation::default());
        }
        let files = self.directory.files(boundary);
        let mut seen = self.observing.look(&[(boundary.clone(), files)]).await;
        seen.pop().unwrap_or_else(|| Ok(Observation::default()))
    }

    async fn boundaries(&mut self) -> Result<Vec<Boundary>, StoreError> {
        self.directory.boundaries()
    }

    async fn observe_all(&mut self, _: Detail) -> Result<Vec<Listing>, StoreError> {
        let with_files = |boundary: Boundary| {
            let files = self.directory.files(&boundary);
            (boundary, files)
        };
        let all: Vec<_> = self.directory.boundaries()?.into_iter().map(with_files).collect();
        let seen = self.observing.look(&all).await;
        Ok(all.into_iter().map(|(boundary, _)| boundary).zip(seen).collect())
    }

    async fn wait_for_change(&mut self, boundary: Option<&Boundary>) {
        self.observing.changed(&self.directory, boundary).await;
    }

    async fn facts(&mut self) -> Vec<Finding> {
        self.directory.facts()
    }

    fn claim(&mut self, candidacy: &Candidacy) -> Result<Option<Claim>, StoreError> {
        if self.watch.as_ref().is_some_and(PathWatch::has_ousted) {
            self.lose();
        }
        if let Some(stand_back) = &self.stand_back {
            if stand_back.waiting(&self.directory.files(&candidacy.boundary)).is_some() {
                // Nothing is asked for yet.
                return Ok(None);
            }
            self.stand_back = None;
        }
        if let Some(session) = &self.session
            && self.given
            && !session.is_lost()
        {
            return Ok(None);
        }
        (self.settling, self.given) = (NewcomerWait::default(), false);
        self.give_up_session();
        self.directory.prepare()?;
        let shown = self.directory.path().display();
        let opened = DirectoryHandle::open(self.directory.path());
        let anchor = opened.map_err(|error| StoreError::Unavailable(format!("{shown} cannot be opened: {error}")))?;
        let session = Session::open(anchor, candidacy.boundary.as_str(), self.directory.sharing())?;
        let files = self.directory.files(&candidacy.boundary);
        if self.watch.is_none() {
            let started = PathWatch::start(files.lock.clone(), self.hints.clone());
            self.watch = Some(started.map_err(|error| files.trouble("cannot be watched", &error))?);
        }
        let payload = FileClaim { boundary: candidacy.boundary.to_string(), id: candidacy.identity.id.clone() };
        let claim = Claim {
            payload: serde_json::to_vec(&payload).map_err(|error| StoreError::Unavailable(error.to_string()))?,
            descriptors: session.copies().map_err(|error| files.trouble("cannot be shared with the keeper", &error))?,
        };
        self.session = Some(session);
        Ok(Some(claim))
    }

    async fn campaign(&mut self, candidacy: &Candidacy) -> Result<CampaignResult, StoreError> {
        if let Some(stand_back) = &self.stand_back {
            // Over by now, perhaps: the next question brings the claim.
            return Ok(stand_back.waiting(&self.directory.files(&candidacy.boundary)).unwrap_or_else(at_once));
        }
        self.given = true;
        let (Some(session), Some(watch)) = (&mut self.session, &self.watch) else {
            return Err(StoreError::Unavailable("the lock file is not open".to_owned()));
        };
        self.succession.reservation = None;
        let files = session.files(candidacy.boundary.as_str());
        if let Some(waiting) = self.succession.delays(session, &files, candidacy)? {
            return Ok(waiting);
        }
        let turn = session.take(&self.hints).map_err(|error| files.trouble("cannot be locked", &error))?;
        match (turn, watch.resolve(session.file()).await) {
            // Replaced while we waited for it: the next question opens the one that is there now.
            (_, Resolved::Other(_)) => {
                self.give_up_session();
                Ok(at_once())
            }
            (LockAttempt::Taken, Resolved::Same) => self.locked(candidacy, &files).await,
            (LockAttempt::Taken, Resolved::Late) => Ok(unresolved(&files)),
            (LockAttempt::Taken, Resolved::Unknown(error)) => {
                self.give_up_session();
                Err(self.directory.files(&candidacy.boundary).trouble("cannot be found", &error))
            }
            (LockAttempt::Waits, _) => {
                let mut observation = look_at_record(&files)?;
                let seen = observation.leader.as_ref().and_then(|leader| leader.term);
                self.highest_seen = self.highest_seen.max(seen.unwrap_or_default());
                self.obstacle.look(&files, &mut observation);
                Ok(CampaignResult::Waiting { observation, again: None, decided: true })
            }
        }
    }

    async fn renew(&mut self, candidacy: &Candidacy) -> Result<RenewResult, StoreError> {
        let now = clock::now();
        let (Some(session), Some(watch)) = (&self.session, &self.watch) else {
            return Ok(RenewResult::Lost { why: "the lock is not held".to_owned() });
        };
        let resolved = watch.resolve(session.file()).await;
        let lost = match resolved {
            Resolved::Other(why) => Some(why),
            _ if !session.still_locked() => Some("the lock was dropped, and somebody else took it"),
            Resolved::Same | Resolved::Late | Resolved::Unknown(_) => None,
        };
        if let Some(why) = lost {
            // The guard stays until the tree is empty and we campaign again, or end.
            self.lose();
            return Ok(RenewResult::Lost { why: why.to_owned() });
        }
        let files = session.files(candidacy.boundary.as_str());
        match resolved {
            Resolved::Same => self.confirmed = true,
            // A file system that does not answer takes nothing away, but nothing is begun on it.
            Resolved::Unknown(error) if !self.confirmed => {
                return Err(self.directory.files(&candidacy.boundary).trouble("cannot be found", &error));
            }
            Resolved::Late if !self.confirmed => {
                let shown = self.directory.files(&candidacy.boundary).shown_lock();
                return Err(StoreError::Unavailable(format!("{} is still being resolved", shown.display())));
            }
            Resolved::Other(_) | Resolved::Late | Resolved::Unknown(_) => {}
        }
        // A shell that opens the lock file to write empties it. Where the disk is full, the other signs remain.
        let _ = LockLabel::of(&files.shown_lock()).and_then(|label| session.write_label(&label));
        if now >= self.touch_at {
            self.touch_at = now + TOUCH_INTERVAL;
            session.touch(&files.record);
        }
        // Won by finding our own record, or proclaimed since.
        if self.recorded_identity.as_ref() != Some(&candidacy.identity) {
            announce(&files, &candidacy.identity)?;
            self.recorded_identity = Some(candidacy.identity.clone());
        }
        Ok(RenewResult::Credited { sent: now, ttl: None })
    }

    fn set_takeover_delay(&mut self, delay: Duration) {
        self.succession.takeover_delay = delay;
    }

    /// The record does not know who waits.
    async fn reserve(
        &mut self,
        _: &Candidacy,
        reservation: Option<Reservation<String>>,
    ) -> Result<ReserveResult, StoreError> {
        self.succession.reservation = reservation;
        Ok(ReserveResult::Reserved)
    }

    fn campaigns_no_more(&mut self) {
        self.ends = true;
    }

    async fn release(&mut self, candidacy: &Candidacy) -> Result<(), StoreError> {
        let Some(session) = self.session.take() else { return Ok(()) };
        let term = self.term.take();
        if let Some(watch) = &self.watch {
            watch.leads(None);
        }
        let files = session.files(candidacy.boundary.as_str());
        let ours = session.has_lock() && session.is_on(&files.lock);
        let reservation = self.succession.reservation.take();
        let freed = if ours { free_record(&files, &candidacy.identity.id, reservation.as_ref()) } else { Ok(()) };
        if ours && term.is_some() && !self.ends {
            self.stand_back = match reservation {
                Some(Reservation { within, .. }) => {
                    Some(Yielding::to_successor(clock::now() + within + STAND_BACK, term))
                }
                None => Yielding::behind_others(session.file(), term),
            };
        }
        // No process of ours runs, so the lock is released even if the record could not be written.
        session.give_up();
        freed
    }
}

/// Ask again, nothing is known yet.
fn at_once() -> CampaignResult {
    CampaignResult::Waiting { observation: Observation::default(), again: Some(Duration::ZERO), decided: false }
}

fn unresolved(files: &Files) -> CampaignResult {
    let obstacle = format!("the path to {} is still being resolved", files.shown_lock().display());
    let observation = Observation { obstacle: Some(obstacle), ..Observation::default() };
    CampaignResult::Waiting { observation, again: Some(RESOLVE_INTERVAL), decided: true }
}

impl FileStore {
    fn new(directory: Directory, hints: Notifier) -> FileStore {
        FileStore {
            directory,
            hints,
            watch: None,
            session: None,
            given: false,
            settling: NewcomerWait::default(),
            stand_back: None,
            ends: false,
            succession: Succession::default(),
            highest_seen: 0,
            term: None,
            confirmed: false,
            touch_at: Time::BOOT,
            recorded_identity: None,
            obstacle: LockObstacle::default(),
            observing: FileObserver::default(),
        }
    }

    /// Both locks are ours, on the file that is there: the record decides the rest.
    async fn locked(&mut self, candidacy: &Candidacy, files: &Files) -> Result<CampaignResult, StoreError> {
        match self.succeed(candidacy, files).await {
            Ok(standing) => {
                if self.stand_back.is_some() {
                    // It is left to another candidate.
                    self.give_up_session();
                }
                if let CampaignResult::Won { term } = standing {
                    (self.term, self.confirmed) = (Some(term), false);
                    self.highest_seen = self.highest_seen.max(term);
                    if let Some(watch) = &self.watch {
                        watch.leads(Some(term));
                    }
                }
                Ok(standing)
            }
            Err(error) => {
                self.give_up_session();
                Err(error)
            }
        }
    }

    async fn succeed(&mut self, candidacy: &Candidacy, files: &Files) -> Result<CampaignResult, StoreError> {
        let Some(session) = &self.session else {
            return Err(StoreError::Unavailable("the lock file is not open".to_owned()));
        };
        let lock = session.file();
        // The lock excludes the writer of an unreadable record; all that is lost is the last term, as in a directory that was
        // emptied.
        let (recorded, replaced) = match files.read() {
            Ok(recorded) => (recorded, None),
            Err(error) if error.is_replaced() => (None, Some(error)),
            Err(error) => return Err(error.into_store_error(files)),
        };
        let last = recorded.as_ref().map(|found| found.record.term);
        self.highest_seen = self.highest_seen.max(last.unwrap_or_default());
        if let Some(recorded) = &recorded
            && recorded.record.is_held_by(&candidacy.identity.id)
            && recorded.lock == lock
        {
            return Ok(CampaignResult::Won { term: recorded.record.term });
        }
        if let Some(until) = recorded.as_ref().and_then(|found| self.succession.is_left_to_another(found, candidacy)) {
            let stand_back = Yielding::to_successor(until, last);
            let again = Some(until.since(clock::now()));
            let waiting = stand_back.waiting(files);
            self.stand_back = Some(stand_back);
            let observation = Observation::default();
            return Ok(waiting.unwrap_or(CampaignResult::Waiting { observation, again, decided: false }));
        }
        let trouble = |error: std::io::Error| files.trouble("cannot be used", &error);
        let label = LockLabel::of(&files.shown_lock()).map_err(trouble)?;
        let settled = self.settling.settled(session, &label, recorded.as_ref(), &self.hints).await.map_err(trouble)?;
        if let Err(unsettled) = settled {
            let observation = Observation { obstacle: unsettled.obstacle, ..Observation::default() };
            let decided = observation.obstacle.is_some();
            return Ok(CampaignResult::Waiting { observation, again: Some(unsettled.again), decided });
        }
        if let Some(error) = replaced {
            tracing::warn!("{}", error.into_store_error(files));
        }
        let millis = clock::wall_millis();
        let Some(term) = limits::next_term(last.unwrap_or_default(), millis, self.highest_seen) else {
            let (record, highest) = (files.shown_record(), self.highest_seen.max(millis));
            let record = record.display();
            return Err(StoreError::Obstacle(format!("{record}: no term above {highest} is believed: move it away")));
        };
        session.write_label(&label).map_err(|error| full(files, &error))?;
        let unknown = recorded.map_or_else(Map::new, |found| found.unknown);
        let record = Record::held(&candidacy.identity, term, None, millis);
        let mut record = FileRecord { record, lock, previous_term: last, unknown };
        record.reserve(None);
        files.write(&record)?;
        self.recorded_identity = Some(candidacy.identity.clone());
        self.touch_at = clock::now() + TOUCH_INTERVAL;
        Ok(CampaignResult::Won { term })
    }

    fn lose(&mut self) {
        if let Some(session) = &mut self.session {
            session.lose();
        }
        if let Some(watch) = &self.watch {
            watch.leads(None);
        }
        self.term = None;
    }

    fn give_up_session(&mut self) {
        if let Some(session) = self.session.take() {
            session.give_up();
        }
    }
}

/// The lock file could not be written, on a disk that is full as a rule.
fn full(files: &Files, error: &std::io::Error) -> StoreError {
    let advice = match error.raw_os_error() {
        Some(libc::EFBIG) => ": raise the limit of file sizes (ulimit -f)",
        Some(_) | None => directory::advice(error),
    };
    refused_if_permanent(error, format!("{} cannot be written: {error}{advice}", files.shown_lock().display()))
}

/// The obstacle that keeps a waiter out although no leader lives: orphans of a leader, or another program.
#[derive(Debug, Default)]
struct LockObstacle {
    /// Since when the held lock has been seen without a guard.
    unguarded: Option<Time>,
    described: Option<(Time, String)>,
}

impl LockObstacle {
    /// Longer than any leader takes from its lock to its guard.
    const UNGUARDED_GRACE: Duration = Duration::from_millis(500);
    /// Finding out who holds a lock reads all of `/proc`.
    const DESCRIBE_INTERVAL: Duration = Duration::from_secs(10);

    fn look(&mut self, files: &Files, observation: &mut Observation) {
        if session::is_guarded(&files.lock) {
            *self = LockObstacle::default();
            return;
        }
        let now = clock::now();
        if now.since(*self.unguarded.get_or_insert(now)) < LockObstacle::UNGUARDED_GRACE {
            return;
        }
        observation.leader = None;
        let current = self.described.take_if(|(at, _)| now.since(*at) < LockObstacle::DESCRIBE_INTERVAL);
        let (at, described) = current.unwrap_or_else(|| (now, LockHolders::of(&files.lock).describe()));
        observation.obstacle = Some(described.clone());
        self.described = Some((at, described));
    }
}

/// The observation of the record, for a candidate that waits for a held lock.
fn look_at_record(files: &Files) -> Result<Observation, StoreError> {
    let recorded = files.read().map_err(|error| error.into_store_error(files))?;
    let leader = recorded.filter(|found| found.record.state == RecordState::Held).map(|found| found.record.leader());
    Ok(Observation { leader, ..Observation::default() })
}

/// Writes what we are called, and where we are to be found, into our own record; the term stays.
fn announce(files: &Files, identity: &Identity) -> Result<(), StoreError> {
    match files.read() {
        Ok(Some(mut record)) if record.record.is_held_by(&identity.id) => {
            record.record.rename(identity);
            files.write(&record)
        }
        // The lock decides who leads. A record that was removed comes back with the next leader.
        Ok(_) => Ok(()),
        Err(error) => Err(error.into_store_error(files)),
    }
}

/// Marks the record as free, and left to a successor if one is named, if it is still that of the candidate `id`; the term in it
/// stays.
fn free_record(files: &Files, id: &str, reservation: Option<&Reservation<String>>) -> Result<(), StoreError> {
    match files.read() {
        Ok(Some(record)) if record.record.is_held_by(id) => files.free(&record, reservation),
        Ok(_) => Ok(()),
        Err(error) => Err(error.into_store_error(files)),
    }
}

/// K2: the same as [`Store::release`], in the keeper's process, after the campaigner's death. The tree is empty.
fn release_claim(claim: Claim) {
    let Ok(FileClaim { boundary, id }) = serde_json::from_slice(&claim.payload) else { return };
    let Some(session) = Session::inherit(claim.descriptors) else { return };
    // The lock is on a description that we share; if it is not on it, the record is another leader's.
    if session.still_locked() {
        let files = session.files(&boundary);
        if session.is_on(&files.lock) {
            // A record that cannot be written stays that of a leader whose lock is free, and no observer shows that as one.
            let _ = free_record(&files, &id, None);
        }
        session.give_up();
    }
}

#[cfg(test)]
mod tests;
