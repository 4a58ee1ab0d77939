//! Descriptors that stand for a place in the file system and give no access to its content.

use std::fs::File;
use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

/// Opens a path with `O_PATH`: no permission on the file itself is needed, and nothing is read. The standard library leaves this
/// flag out where the C library is musl, which counts it among the access modes.
///
/// # Errors
///
/// Those of `open`; a signal is none.
pub fn open_path(path: &Path, flags: OFlag) -> io::Result<File> {
    loop {
        match open(path, flags | OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()) {
            Ok(descriptor) => return Ok(File::from(descriptor)),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}
