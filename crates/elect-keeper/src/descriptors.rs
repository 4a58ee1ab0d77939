//! Controls which descriptors survive exec, on every kernel and under every limit (DESIGN.md K9).

use std::ffi::c_int;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use nix::sys::resource::{Resource, getrlimit};

use super::sys::{errno, read_directory};

/// Closes each descriptor from `first` on.
///
/// # Safety
///
/// No value in this process owns any of them.
pub unsafe fn close_from(first: RawFd) {
    // SAFETY: the caller's promise.
    let close = |fd: RawFd| unsafe { libc::close(fd) };
    let Ok(from) = u32::try_from(first) else { return };
    // SAFETY: the caller's promise.
    if unsafe { libc::syscall(libc::SYS_close_range, from, u32::MAX, 0) } == 0 {
        return;
    }
    // This frees a descriptor for the directory that lists the others.
    close(first);
    each_from(first, |fd| {
        close(fd);
    });
}

/// Marks each descriptor from `first` on to be closed by exec. For the child of a fork: allocates nothing.
pub fn close_at_exec_from(first: RawFd) {
    let Ok(from) = u32::try_from(first) else { return };
    // SAFETY: close_range with this flag closes nothing.
    if unsafe { libc::syscall(libc::SYS_close_range, from, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) } == 0 {
        return;
    }
    each_from(first, |fd| {
        // SAFETY: F_SETFD takes integers, and closes nothing.
        unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    });
}

/// Calls `act` with each open descriptor from `first` on: as listed by `/proc`, or every number below the limit. Used
/// if `close_range` is missing (before Linux 5.11) or refused by a system call filter.
fn each_from(first: RawFd, mut act: impl FnMut(RawFd)) {
    // SAFETY: the path is a string that ends in a null byte; the descriptor is closed below, and nowhere else.
    let list = unsafe { libc::open(c"/proc/self/fd".as_ptr(), libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC) };
    if list == -1 {
        // No descriptor is free, or `/proc` is missing: numbers above the present limit are not reached.
        (first..limit()).for_each(act);
        return;
    }
    let mut buffer = [0; 2048];
    // SAFETY: it was opened above, and is closed after this last use.
    let directory = unsafe { BorrowedFd::borrow_raw(list) };
    // The kernel lists by number: closing a descriptor during the iteration moves no other.
    while let Ok(length @ 1..) = read_directory(directory, &mut buffer) {
        for_each_number(&buffer[..length], |fd| {
            if fd >= first && fd != list {
                act(fd);
            }
        });
    }
    // SAFETY: the descriptor was opened above and has no other owner.
    unsafe { libc::close(list) };
}

/// Calls `act` with each name in a buffer of `getdents64` that is a number.
fn for_each_number(buffer: &[u8], mut act: impl FnMut(RawFd)) {
    // inode (8), offset (8), length of the entry (2), type (1), name.
    const NAME: usize = 19;
    let mut rest = buffer;
    while let Some(&[low, high]) = rest.get(16..18).and_then(|length| <&[u8; 2]>::try_from(length).ok()) {
        let length = usize::from(u16::from_ne_bytes([low, high]));
        let Some(entry) = rest.get(..length).filter(|entry| entry.len() > NAME) else { return };
        let name = entry[NAME..].split(|&byte| byte == 0).next().unwrap_or_default();
        if let Some(number) = std::str::from_utf8(name).ok().and_then(|name| name.parse().ok()) {
            act(number);
        }
        rest = &rest[length..];
    }
}

/// The upper limit of descriptor numbers.
fn limit() -> RawFd {
    let soft = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
    // Capped at the kernel's default, even without a limit.
    RawFd::try_from(soft.min(1 << 20)).unwrap_or(RawFd::MAX)
}

/// Makes the command inherit a descriptor: at the lowest free number from `lowest` on; at the highest free number
/// below, if the limit does not allow that; and at its own number if none is free.
///
/// # Errors
///
/// The `errno`.
pub fn pass(fd: BorrowedFd<'_>, lowest: RawFd) -> Result<(), c_int> {
    let highest = lowest.min(limit().saturating_sub(1));
    for number in (3..=highest).rev() {
        // SAFETY: F_DUPFD takes integers; the copy is left open for the command on purpose.
        if unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD, number) } != -1 {
            return Ok(());
        }
        if ![libc::EINVAL, libc::EMFILE].contains(&errno()) {
            break;
        }
    }
    // SAFETY: F_SETFD takes integers. The child of a fork does this, and executes.
    if fd.as_raw_fd() > 2 && unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, 0) } != -1 {
        Ok(())
    } else {
        Err(errno())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs::File;

    use super::*;

    fn open_ones() -> BTreeSet<RawFd> {
        let mut all = BTreeSet::new();
        each_from(0, |fd| {
            all.insert(fd);
        });
        all
    }

    #[test]
    fn open_descriptors_are_listed_without_close_range() {
        // So many files that the list does not fit into one buffer.
        let files: Vec<File> = (0..200).map(|_| File::open("/dev/null").expect("opened")).collect();
        let open = open_ones();
        assert!([0, 1, 2].iter().all(|fd| open.contains(fd)), "{open:?}");
        assert!(files.iter().all(|file| open.contains(&file.as_raw_fd())), "{open:?}");
    }

    #[test]
    fn entries_that_are_no_numbers_are_left_out() {
        let entry = |name: &str| {
            let length = (19 + name.len() + 1).next_multiple_of(8);
            let mut bytes = vec![0; length];
            bytes[16..18].copy_from_slice(&u16::try_from(length).expect("short").to_ne_bytes());
            bytes[19..19 + name.len()].copy_from_slice(name.as_bytes());
            bytes
        };
        let buffer = [".", "..", "7", "x8", "1234567", "99999999999999"].map(entry).concat();
        let mut seen = Vec::new();
        for_each_number(&buffer, |fd| seen.push(fd));
        assert_eq!(seen, [7, 1_234_567]);
        for length in 0..buffer.len() {
            for_each_number(&buffer[..length], |_| ());
        }
        for_each_number(&[0; 64], |_| ());
    }
}
