//! One candidate's session at one lock file: two descriptions, two locks, and a thread that waits for them.
//!
//! No type here unlocks when it is dropped: a copy of the description may be the keeper's or the command's. The locks are
//! released by a call, [`Session::give_up`], once the tree is known to be empty.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use nix::fcntl::{FcntlArg, fcntl};
use nix::unistd::geteuid;

use super::directory::{advice, refused_if_permanent};
use super::directory_handle::DirectoryHandle;
use super::lock_label::LockLabel;
use super::open_regular::{NotOpened, open_regular};
use super::record_file::Files;
use super::{Notifier, StoreError, lock_holders};

/// Which file it is, by device and number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct LockFile {
    pub(super) device: u64,
    pub(super) inode: u64,
}

impl From<&std::fs::Metadata> for LockFile {
    fn from(found: &std::fs::Metadata) -> LockFile {
        LockFile { device: found.dev(), inode: found.ino() }
    }
}

impl LockFile {
    fn at(path: &Path) -> io::Result<LockFile> {
        std::fs::symlink_metadata(path).map(|found| LockFile::from(&found))
    }

    fn of(file: &File) -> io::Result<LockFile> {
        file.metadata().map(|found| LockFile::from(&found))
    }
}

/// The result of an attempt to take the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockAttempt {
    Taken,
    /// A thread waits for it, and hints when it has it.
    Waits,
}

/// A place at a lock file.
#[derive(Debug)]
pub struct Session {
    /// `flock`; shared with the keeper and the command.
    lock: Arc<File>,
    /// A byte-range lock on a description of its own; shared with the keeper alone.
    guard: Arc<File>,
    /// Where lock and record are; shared with the keeper alone.
    anchor: DirectoryHandle,
    file: LockFile,
    wait: LockState,
}

#[derive(Debug)]
enum LockState {
    /// Nothing asked yet.
    Idle,
    /// A thread waits for the lock in the kernel.
    Requested(Arc<OnceLock<WaitOutcome>>),
    Taken,
    /// Found to be held by another process, or on a file that is gone. The rest is unlocked when the tree is empty.
    Lost,
}

/// The outcome of a wait. The waiting thread stores `Acquired` or `Failed`, the session `Abandoned`; the first of the two
/// decides which of them unlocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WaitOutcome {
    Acquired,
    Failed,
    Abandoned,
}

impl Session {
    /// Opens the lock file of a boundary, which is made if it is missing and is never removed.
    pub fn open(anchor: DirectoryHandle, boundary: &str, mode: u32) -> Result<Session, StoreError> {
        let files = anchor.files(boundary);
        let shown = files.shown_lock();
        let shown = shown.display();
        let failed = |error: io::Error| {
            let message = format!("{shown} cannot be opened: {error}{}", advice(&error));
            // Removed at this moment, it or the directory: the next question makes it again.
            if error.kind() == io::ErrorKind::NotFound {
                return StoreError::Unavailable(message);
            }
            refused_if_permanent(&error, message)
        };
        let trouble = |error: NotOpened| match error {
            NotOpened::Io(error) => failed(error),
            // Removed by a person, as for a mount point that is not mounted yet.
            NotOpened::NotRegular("a directory") => {
                StoreError::Unavailable(format!("{shown} {error}, as a lock file always is: remove it"))
            }
            NotOpened::NotRegular(_) => {
                StoreError::Refused(format!("{shown} {error}, as a lock file always is: remove it"))
            }
        };
        let lock = match open_regular(&files.lock, true) {
            Err(error) if error.is_missing() => {
                make(&files.lock, mode).map_err(failed)?;
                open_regular(&files.lock, true)
            }
            opened => opened,
        };
        let lock = lock.map_err(trouble)?;
        let guard = open_regular(&files.lock, true).map_err(trouble)?;
        let file = LockFile::of(&lock).map_err(failed)?;
        if LockFile::of(&guard).map_err(failed)? != file {
            return Err(StoreError::Unavailable(format!("{shown} was replaced while it was opened")));
        }
        Ok(Session { lock: Arc::new(lock), guard: Arc::new(guard), anchor, file, wait: LockState::Idle })
    }

    /// The session behind descriptors that another process opened: lock, guard and directory.
    pub fn inherit(descriptors: Vec<OwnedFd>) -> Option<Session> {
        let [lock, guard, directory] = <[OwnedFd; 3]>::try_from(descriptors).ok()?;
        let (lock, guard) = (File::from(lock), File::from(guard));
        let file = LockFile::of(&lock).ok()?;
        let anchor = DirectoryHandle::inherit(directory);
        Some(Session { lock: Arc::new(lock), guard: Arc::new(guard), anchor, file, wait: LockState::Taken })
    }

    /// Copies for the keeper, lock first. They are the same descriptions: a lock on one is a lock on all.
    pub fn copies(&self) -> io::Result<Vec<OwnedFd>> {
        let (lock, guard) = (self.lock.as_fd().try_clone_to_owned()?, self.guard.as_fd().try_clone_to_owned()?);
        Ok(vec![lock, guard, self.anchor.copy()?])
    }

    /// The files in the directory in which the lock file was opened, whatever has become of its path.
    pub fn files(&self, boundary: &str) -> Files {
        self.anchor.files(boundary)
    }

    /// The contents of the lock file.
    pub fn label(&self) -> io::Result<Option<LockLabel>> {
        LockLabel::read(&self.lock)
    }

    /// Has the lock file say under which path it was locked. Under the lock.
    pub fn write_label(&self, label: &LockLabel) -> io::Result<()> {
        label.write(&self.lock)
    }

    pub fn file(&self) -> LockFile {
        self.file
    }

    /// Whether the path leads to the file that we have open.
    pub fn is_on(&self, path: &Path) -> bool {
        LockFile::at(path).is_ok_and(|file| file == self.file)
    }

    /// Takes both locks, or leaves a thread that waits for them.
    pub fn take(&mut self, hints: &Notifier) -> io::Result<LockAttempt> {
        match &self.wait {
            LockState::Taken => return Ok(LockAttempt::Taken),
            LockState::Requested(outcome) => match outcome.get() {
                Some(WaitOutcome::Acquired) => {
                    self.wait = LockState::Taken;
                    return Ok(LockAttempt::Taken);
                }
                Some(WaitOutcome::Failed) => self.wait = LockState::Idle,
                Some(WaitOutcome::Abandoned) | None => return Ok(LockAttempt::Waits),
            },
            LockState::Idle | LockState::Lost => {}
        }
        if self.try_both()? {
            self.wait = LockState::Taken;
            return Ok(LockAttempt::Taken);
        }
        let outcome = Arc::new(OnceLock::new());
        let (lock, guard, hints) = (Arc::clone(&self.lock), Arc::clone(&self.guard), hints.clone());
        let reported = Arc::clone(&outcome);
        let waiter = std::thread::Builder::new().name("lock".to_owned()).stack_size(64 * 1024).spawn(move || {
            let result = lock.lock().and_then(|()| wait_for_guard(&guard));
            let acquired = result.is_ok();
            let is_abandoned =
                reported.set(if acquired { WaitOutcome::Acquired } else { WaitOutcome::Failed }).is_err();
            if is_abandoned || !acquired {
                unlock(&lock, &guard);
            }
            hints.changed();
        });
        if let Err(error) = waiter {
            // The attempt does not wait, so a half that may have been taken is released.
            unlock(&self.lock, &self.guard);
            self.wait = LockState::Idle;
            return Err(error);
        }
        self.wait = LockState::Requested(outcome);
        Ok(LockAttempt::Waits)
    }

    /// Takes both locks if they are free, and leaves no place in the queue otherwise.
    pub fn take_if_free(&mut self) -> io::Result<bool> {
        if !self.has_lock() {
            if !self.try_both()? {
                unlock(&self.lock, &self.guard);
                return Ok(false);
            }
            self.wait = LockState::Taken;
        }
        Ok(true)
    }

    /// The order is the same for all candidates. A guard that is still held is that of a leader that has lost its flock and
    /// has yet to notice.
    fn try_both(&self) -> io::Result<bool> {
        Ok(try_flock(&self.lock)? && try_guard(&self.guard).inspect_err(|_| unlock(&self.lock, &self.guard))?)
    }

    /// Whether we have taken both locks and not given them up.
    pub fn has_lock(&self) -> bool {
        matches!(self.wait, LockState::Taken)
    }

    /// Whether leadership by this session was lost: it is no place to wait at.
    pub fn is_lost(&self) -> bool {
        matches!(self.wait, LockState::Lost)
    }

    pub fn lose(&mut self) {
        self.wait = LockState::Lost;
    }

    /// Asks the kernel for what we should have already. A command that unlocked its copy is undone by this, unless
    /// another process was faster.
    pub fn still_locked(&self) -> bool {
        self.has_lock() && try_flock(&self.lock).unwrap_or(false) && try_guard(&self.guard).unwrap_or(false)
    }

    /// Lets cleaners that go by age see that the files are in use.
    pub fn touch(&self, record: &Path) {
        let now = std::fs::FileTimes::new()
            .set_accessed(elect_keeper::clock::wall_clock())
            .set_modified(elect_keeper::clock::wall_clock());
        // A lock file that cannot be touched is still a lock.
        let _ = self.lock.set_times(now);
        // Another user may have put something else in the place of the record: that is left alone.
        if let Ok(record) = open_regular(record, false)
            && record.metadata().is_ok_and(|found| found.uid() == geteuid().as_raw() && found.nlink() == 1)
        {
            let _ = record.set_times(now);
        }
    }

    /// Unlocks, for every copy there is. Only with an empty tree (2.3).
    pub fn give_up(self) {
        if let LockState::Requested(outcome) = &self.wait
            && outcome.set(WaitOutcome::Abandoned).is_ok()
        {
            // The thread unlocks what it gets.
            return;
        }
        unlock(&self.lock, &self.guard);
    }
}

fn unlock(lock: &File, guard: &File) {
    // The flock goes last: the process that gets it goes on to lead.
    let _ = fcntl(guard, FcntlArg::F_OFD_SETLK(&whole_file(libc::F_UNLCK)));
    #[cfg(test)]
    between_unlocks::reached(lock);
    let _ = lock.unlock();
}

#[cfg(test)]
pub fn drop_guard(guard: &File) {
    fcntl(guard, FcntlArg::F_OFD_SETLK(&whole_file(libc::F_UNLCK))).expect("unlocked");
}

/// Makes the lock file. Whatever the umask says: who may take part follows from the directory. It has its mode before it has
/// its name, so that no other candidate meets a file that it may not open.
fn make(path: &Path, mode: u32) -> io::Result<()> {
    let new = |path: &Path| {
        let file = OpenOptions::new().write(true).create_new(true).open(path)?;
        file.set_permissions(fs::Permissions::from_mode(mode))
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut suffix = uuid::Uuid::new_v4().simple().to_string();
    suffix.truncate(8);
    let temporary = path.with_file_name(format!(".{name}.{suffix}"));
    let made = new(&temporary).and_then(|()| fs::hard_link(&temporary, path));
    let _ = fs::remove_file(&temporary);
    match made {
        Err(error) if [libc::EPERM, libc::EOPNOTSUPP, libc::ENOSYS].map(Some).contains(&error.raw_os_error()) => {
            // A file system without hard links.
            new(path).or_else(exists)
        }
        made => made.or_else(exists),
    }
}

/// Another process was faster.
fn exists(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::AlreadyExists { Ok(()) } else { Err(error) }
}

fn try_flock(lock: &File) -> io::Result<bool> {
    match lock.try_lock() {
        Ok(()) => Ok(true),
        Err(std::fs::TryLockError::WouldBlock) => Ok(false),
        Err(std::fs::TryLockError::Error(error)) => Err(error),
    }
}

pub(super) fn try_guard(guard: &File) -> io::Result<bool> {
    match fcntl(guard, FcntlArg::F_OFD_SETLK(&whole_file(libc::F_WRLCK))) {
        Ok(_) => Ok(true),
        Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EACCES) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn wait_for_guard(guard: &File) -> io::Result<()> {
    fcntl(guard, FcntlArg::F_OFD_SETLKW(&whole_file(libc::F_WRLCK))).map(drop).map_err(io::Error::from)
}

/// Whether some campaigner or keeper holds the guard of the lock file: found out by asking, not by taking it. True in
/// every PID namespace, and for as long as one of the two lives. Who may not open the file, which is so for other users
/// unless the directory is shared with them, reads the kernel's list of locks instead.
pub fn is_guarded(path: &Path) -> bool {
    let file = match open_regular(path, false) {
        Ok(file) => file,
        Err(NotOpened::Io(error)) if error.kind() == io::ErrorKind::PermissionDenied => {
            return LockFile::at(path).is_ok_and(|file| lock_holders::is_listed(file, "OFDLCK"));
        }
        Err(_) => return false,
    };
    let mut asked = whole_file(libc::F_WRLCK);
    fcntl(&file, FcntlArg::F_OFD_GETLK(&mut asked)).is_ok() && libc::c_int::from(asked.l_type) != libc::F_UNLCK
}

fn whole_file(kind: libc::c_int) -> libc::flock {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the constants are small, and the fields are what the kernel has"
    )]
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

/// For tests: what is seen when the first of the two locks is gone.
#[cfg(test)]
pub mod between_unlocks {
    use std::cell::Cell;
    use std::fs::File;

    thread_local! {
        static PROBE: Cell<Option<fn(&File)>> = const { Cell::new(None) };
    }

    pub fn probe(probe: fn(&File)) {
        PROBE.set(Some(probe));
    }

    pub fn reached(lock: &File) {
        if let Some(probe) = PROBE.get() {
            probe(lock);
        }
    }
}
