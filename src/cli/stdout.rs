//! Answers on stdout. Those of a loop do not block it: a slow reader does not delay the handling of signals, and the end of the
//! reader is noticed without writing.

use std::io::{self, ErrorKind, Stdout, Write as _};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::process::ExitCode;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::fail;
use crate::async_fd;
use crate::exit::Exit;

/// The bytes that a pipe or a terminal takes without waiting once it is writable.
const WRITE_BYTES_MAX: usize = 4096;

/// Writes an answer, and returns the status if that has worked.
pub fn print(answer: impl AsRef<[u8]>, status: ExitCode) -> ExitCode {
    let mut stdout = io::stdout();
    match stdout.write_all(answer.as_ref()).and_then(|()| stdout.flush()) {
        Ok(()) => status,
        Err(error) => not_written(&error, status),
    }
}

/// The status of a command whose answer could not be written: a reader that has ended has seen what it needs.
pub fn not_written(error: &io::Error, status: ExitCode) -> ExitCode {
    if error.kind() == ErrorKind::BrokenPipe {
        return status;
    }
    fail(Exit::Failed, &format!("the answer could not be written to standard output: {error}"))
}

/// Stdout, which is shared with others and therefore left as it is: it may block.
pub struct StdoutWriter {
    stdout: Stdout,
    /// `None` for files, which are always writable.
    readiness: Option<AsyncFd<StdoutFd>>,
}

struct StdoutFd(RawFd);

impl AsRawFd for StdoutFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0
    }
}

impl StdoutWriter {
    pub fn open() -> StdoutWriter {
        let stdout = io::stdout();
        let descriptor = StdoutFd(stdout.as_fd().as_raw_fd());
        let readiness = async_fd::watch(descriptor, Interest::WRITABLE | Interest::ERROR).ok();
        StdoutWriter { stdout, readiness }
    }

    /// Writes all of it. Cancelled, it has written some.
    ///
    /// # Errors
    ///
    /// The reader has gone, or there is no room.
    pub async fn write(&self, text: &str) -> io::Result<()> {
        let mut left = text.as_bytes();
        while !left.is_empty() {
            self.writable().await?;
            let written = nix::unistd::write(self.stdout.as_fd(), &left[..left.len().min(WRITE_BYTES_MAX)]);
            match written {
                Ok(count) => left = &left[count..],
                Err(nix::errno::Errno::EINTR | nix::errno::Errno::EAGAIN) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    async fn writable(&self) -> io::Result<()> {
        let Some(readiness) = &self.readiness else { return Ok(()) };
        loop {
            let mut ready = readiness.writable().await?;
            // The readiness that the runtime has noted may be out of date.
            let mut asked = [PollFd::new(self.stdout.as_fd(), PollFlags::POLLOUT)];
            if poll(&mut asked, PollTimeout::ZERO)? > 0 {
                return Ok(());
            }
            ready.clear_ready();
        }
    }

    /// Returns when the reader has ended. Cancel safe.
    pub async fn reader_gone(&self) {
        match &self.readiness {
            Some(readiness) => drop(readiness.ready(Interest::ERROR).await),
            None => std::future::pending().await,
        }
    }
}
