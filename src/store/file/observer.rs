//! Finds the leader without touching a lock: a record counts only while campaigner or keeper guards it.
//!
//! Nothing here writes, locks, or opens a file to write.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

use super::directory::Directory;
use super::directory_watch::DirectoryWatch;
use super::lock_holders::LockHolders;
use super::record_file::{FileRecord, Files};
use super::{lock_holders, session};
use crate::store::record::RecordState;
use crate::store::{Observation, StoreError};
use elect_core::Time;
use elect_core::boundary::Boundary;
use elect_keeper::clock;

/// How long every leader may take, on its way, from its lock to its guard.
const GUARD_LAG: Duration = Duration::from_millis(20);
/// Finding out who holds a lock reads all of `/proc`; the kernel's own list, which says less, costs little.
const SCAN_INTERVAL: Duration = Duration::from_secs(10);

/// The state that an observer keeps from one observation to the next.
#[derive(Debug, Default)]
pub struct FileObserver {
    folder: Option<DirectoryWatch>,
    /// The holder of the lock and the time when it was found, for boundaries without a leader.
    obstacles: BTreeMap<Boundary, (Time, Option<String>)>,
}

impl FileObserver {
    /// One observation for each of them, in their order.
    pub async fn look(&mut self, all: &[(Boundary, Files)]) -> Vec<Result<Observation, StoreError>> {
        let mut seen: Vec<_> = all.iter().map(|(_, files)| see(files)).collect();
        for ((boundary, _), seen) in all.iter().zip(&seen) {
            if !matches!(seen, Ok(GuardedRecord::Unguarded(_))) {
                self.obstacles.remove(boundary);
            }
        }
        // Held and not guarded is every leader for a moment; what is so twice is an obstacle.
        for last in [false, true] {
            let now = clock::now();
            let unknown: Vec<usize> = (0..all.len())
                .filter(|&index| matches!(seen[index], Ok(GuardedRecord::Unguarded(_))))
                .filter(|&index| {
                    let (boundary, files) = &all[index];
                    match self.obstacles.get(boundary) {
                        Some((at, _)) if now.since(*at) >= SCAN_INTERVAL => true,
                        Some((_, found)) => found.is_none() && lock_holders::is_listed_at(&files.lock),
                        None => true,
                    }
                })
                .collect();
            let paths: Vec<&Path> = unknown.iter().map(|&index| all[index].1.lock.as_path()).collect();
            let mut held = Vec::new();
            for (index, holders) in unknown.into_iter().zip(LockHolders::of_each(&paths)) {
                if holders.is_held() && !last {
                    held.push(index);
                } else {
                    let described = holders.is_held().then(|| holders.describe());
                    self.obstacles.insert(all[index].0.clone(), (now, described));
                }
            }
            if held.is_empty() {
                break;
            }
            tokio::time::sleep(GUARD_LAG).await;
            for index in held {
                seen[index] = see(&all[index].1);
            }
        }
        let told = |(seen, (boundary, files)): (Result<GuardedRecord, StoreError>, &(Boundary, Files))| {
            let obstacle = self.obstacles.get(boundary).and_then(|(_, described)| described.clone());
            seen.map(|seen| seen.into_observation(obstacle, files))
        };
        seen.into_iter().zip(all).map(told).collect()
    }

    /// See [`Store::wait_for_change`](crate::store::Store::wait_for_change). A directory that may not be watched gives no hints.
    pub async fn changed(&mut self, directory: &Directory, boundary: Option<&Boundary>) {
        let Some(folder) = &mut self.folder else {
            match DirectoryWatch::open(directory.path()) {
                // Changes before this moment were not seen.
                Ok(folder) => self.folder = Some(folder),
                Err(_) => std::future::pending().await,
            }
            return;
        };
        let files = boundary.map(|boundary| directory.files(boundary));
        let matters = |name: &OsStr| match &files {
            Some(files) => [&files.lock, &files.record].iter().any(|path| path.file_name() == Some(name)),
            None => !name.as_encoded_bytes().starts_with(b"."),
        };
        if folder.changed(matters).await.is_err() {
            self.folder = None;
        }
    }
}

/// The state that the files of one boundary show.
enum GuardedRecord {
    /// Campaigner or keeper lives: the record counts.
    Guarded(Option<FileRecord>),
    /// No candidate leads, whatever the record says.
    Unguarded(Option<FileRecord>),
}

fn see(files: &Files) -> Result<GuardedRecord, StoreError> {
    let read = || files.read().map_err(|error| error.into_store_error(files));
    // In this order: a record that is written after the look for the guard is not that of a dead leader.
    let before = read()?;
    if session::is_guarded(&files.lock) {
        Ok(GuardedRecord::Guarded(read()?))
    } else {
        Ok(GuardedRecord::Unguarded(before))
    }
}

impl GuardedRecord {
    fn into_observation(self, obstacle: Option<String>, files: &Files) -> Observation {
        let last = |found: &FileRecord| found.record.term;
        match self {
            GuardedRecord::Guarded(Some(found)) if found.record.state == RecordState::Held => Observation {
                leader: Some(found.record.leader()),
                previous_term: found.previous_term,
                ..Observation::default()
            },
            GuardedRecord::Guarded(found) => {
                Observation { previous_term: found.as_ref().map(last), ..Observation::default() }
            }
            GuardedRecord::Unguarded(found) => {
                let free_since = found.as_ref().and_then(|_| files.written_at());
                Observation { previous_term: found.as_ref().map(last), obstacle, free_since, ..Observation::default() }
            }
        }
    }
}
