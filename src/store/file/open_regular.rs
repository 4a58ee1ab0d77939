//! Opening files that another user may have replaced: no link is followed, nothing blocks, and only regular files are opened.

use std::fmt;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// Why a file was not opened.
#[derive(Debug)]
pub enum NotOpened {
    Io(io::Error),
    /// It is something else: a link, a FIFO, a socket, a directory, a device.
    NotRegular(&'static str),
}

impl NotOpened {
    pub fn is_missing(&self) -> bool {
        matches!(self, NotOpened::Io(error) if error.kind() == io::ErrorKind::NotFound)
    }
}

impl From<io::Error> for NotOpened {
    fn from(error: io::Error) -> NotOpened {
        NotOpened::Io(error)
    }
}

impl fmt::Display for NotOpened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotOpened::Io(error) => write!(f, "cannot be opened: {error}"),
            NotOpened::NotRegular(kind) => write!(f, "is {kind}, not a regular file"),
        }
    }
}

/// Opens a regular file that is there.
///
/// It is looked at before and after it is opened: opening a device may act on it, and the file may be replaced in between.
pub fn open_regular(path: &Path, writable: bool) -> Result<File, NotOpened> {
    regular(&fs::symlink_metadata(path)?)?;
    let mut options = OpenOptions::new();
    options.read(true).write(writable).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY);
    let file = match options.open(path) {
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
            return Err(NotOpened::NotRegular("a symbolic link"));
        }
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => {
            return Err(NotOpened::NotRegular("a FIFO or socket"));
        }
        opened => opened?,
    };
    regular(&file.metadata()?)?;
    Ok(file)
}

fn regular(found: &Metadata) -> Result<(), NotOpened> {
    let kind = found.file_type();
    if kind.is_file() {
        return Ok(());
    }
    Err(NotOpened::NotRegular(if kind.is_symlink() {
        "a symbolic link"
    } else if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    }))
}
