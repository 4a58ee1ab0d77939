//! Readiness of descriptors that live as long as their owner.

use std::io;
use std::os::fd::AsRawFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers `owner` with the runtime. The caller guarantees that the descriptor stays open for as long as `owner`
/// lives.
///
/// # Errors
///
/// The kernel cannot watch such a descriptor (a regular file, for example), or is out of memory.
#[expect(
    deprecated,
    reason = "its successor is unsafe to call, and guards against a descriptor that is closed before its owner is dropped"
)]
pub fn watch<T: AsRawFd>(owner: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    AsyncFd::with_interest(owner, interest)
}
