//! The inotify watch on the directory of a store, which gives hints.
//!
//! The kernel reports that a record was replaced, and that a process closed a record or a lock file that it had open for
//! writing, but not that a lock was released. It reports the end of a holder a moment before the lock is free, so each hint is repeated after
//! [`LOCK_RELEASE_LAG`].

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep_until};

/// From the report of a holder's end to the end of its lock: more than the kernel takes.
const LOCK_RELEASE_LAG: Duration = Duration::from_millis(20);

/// A directory that is watched, or one that is to come.
#[derive(Debug)]
pub struct DirectoryWatch {
    inotify: AsyncFd<InotifyFd>,
    /// Of the directory, or on the way to it, while it is not there: what has to be made before anything else.
    missing: Option<OsString>,
    echo: Option<Instant>,
}

#[derive(Debug)]
struct InotifyFd(Inotify);

impl AsRawFd for InotifyFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl DirectoryWatch {
    /// Begins; what happened before goes unseen. If the directory is not there, its making is waited for.
    pub fn open(path: &Path) -> io::Result<DirectoryWatch> {
        let mut missing = match DirectoryWatch::watch(path, None) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => error,
            opened => return opened,
        };
        for (parent, child) in path.ancestors().skip(1).zip(path.ancestors()) {
            match DirectoryWatch::watch(parent, child.file_name().map(OsStr::to_owned)) {
                // Made in this moment: there is nothing to be waited for.
                Ok(_) if child.exists() => return DirectoryWatch::watch(path, None),
                Err(error) if error.kind() == io::ErrorKind::NotFound => missing = error,
                opened => return opened,
            }
        }
        Err(missing)
    }

    #[expect(
        deprecated,
        reason = "its successor is unsafe to call, and what it guards against is a descriptor closed early"
    )]
    fn watch(path: &Path, missing: Option<OsString>) -> io::Result<DirectoryWatch> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let made = AddWatchFlags::IN_MOVE | AddWatchFlags::IN_CREATE;
        let gone = AddWatchFlags::IN_DELETE | AddWatchFlags::IN_CLOSE_WRITE;
        let itself = AddWatchFlags::IN_MOVE_SELF | AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_ONLYDIR;
        // Others make and remove much beside a directory that is not there yet.
        let heard = if missing.is_some() { made | itself } else { made | gone | itself };
        inotify.add_watch(path, heard)?;
        Ok(DirectoryWatch { inotify: AsyncFd::new(InotifyFd(inotify))?, missing, echo: None })
    }

    /// Returns when something has happened to a file that `matters`; an error if nothing more will be heard from here.
    ///
    /// Cancel safe.
    pub async fn changed(&mut self, matters: impl Fn(&OsStr) -> bool) -> io::Result<()> {
        loop {
            let echo = self.echo;
            tokio::select! {
                () = sleep_until(echo.unwrap_or_else(Instant::now)), if echo.is_some() => {
                    self.echo = None;
                    return Ok(());
                }
                ready = self.inotify.readable() => {
                    let mut ready = ready?;
                    let events = match ready.get_inner().0.read_events() {
                        Ok(events) => events,
                        Err(Errno::EAGAIN) => {
                            ready.clear_ready();
                            continue;
                        }
                        Err(error) => return Err(error.into()),
                    };
                    let itself = AddWatchFlags::IN_MOVE_SELF | AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_IGNORED;
                    if events.iter().any(|event| event.mask.intersects(itself)) {
                        return Err(io::ErrorKind::NotFound.into());
                    }
                    if let Some(missing) = &self.missing {
                        if events.iter().any(|event| event.name.as_ref().is_none_or(|name| name == missing)) {
                            return Err(io::ErrorKind::Interrupted.into());
                        }
                        continue;
                    }
                    // Too many to be kept have no name: each of them may have mattered.
                    if events.iter().any(|event| event.name.as_deref().is_none_or(&matters)) {
                        self.echo = Some(Instant::now() + LOCK_RELEASE_LAG);
                        return Ok(());
                    }
                }
            }
        }
    }
}
