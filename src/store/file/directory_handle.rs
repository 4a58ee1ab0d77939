//! The directory of the lock file, held open: lock and record stay in the same directory, whatever happens to its path.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use super::record_file::Files;
use crate::path_descriptor::open_path;

/// An open directory. Files are reached through it, and shown by its real path.
#[derive(Debug)]
pub struct DirectoryHandle {
    directory: File,
    real: PathBuf,
}

impl DirectoryHandle {
    /// Opens the directory to which the path leads now.
    pub fn open(path: &Path) -> io::Result<DirectoryHandle> {
        let directory = open_path(path, OFlag::O_DIRECTORY)?;
        let real = fs::read_link(access(&directory))?;
        Ok(DirectoryHandle { directory, real })
    }

    /// The directory behind a descriptor that another process opened.
    pub fn inherit(descriptor: OwnedFd) -> DirectoryHandle {
        let directory = File::from(descriptor);
        let real = fs::read_link(access(&directory)).unwrap_or_default();
        DirectoryHandle { directory, real }
    }

    pub fn copy(&self) -> io::Result<OwnedFd> {
        self.directory.as_fd().try_clone_to_owned()
    }

    /// Shown by the path that the directory had when it was opened, without links.
    pub fn files(&self, boundary: &str) -> Files {
        Files::new(&self.real, access(&self.directory), boundary)
    }
}

/// A path that leads to the open directory in this process.
fn access(directory: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()))
}
