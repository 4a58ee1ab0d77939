//! Receives a datagram with the descriptors that came with it.
//!
//! The kernel may install some of a message's descriptors and drop the others, for want of room below `RLIMIT_NOFILE`.
//! `nix` returns none of them then, so those that were installed would never be closed.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;

use super::sys;

/// The maximum number of descriptors of a message.
pub const DESCRIPTORS_MAX: usize = 3;

/// A received datagram. Its bytes are in the buffer.
#[derive(Debug)]
pub struct Datagram {
    pub length: usize,
    /// Whether the buffer was too small.
    pub is_cut: bool,
    pub descriptors: Vec<OwnedFd>,
    /// Whether descriptors were dropped.
    pub lacks_descriptors: bool,
}

/// Room for one control message with all descriptors, aligned as its header.
const CONTROL_WORDS: usize = 8;

/// Receives without waiting. Descriptors are opened close-on-exec.
///
/// # Errors
///
/// Those of `recvmsg`; `EAGAIN` if there is no message.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> nix::Result<Datagram> {
    let mut control = [0u64; CONTROL_WORDS];
    let mut slice = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: all fields of a msghdr may be zero.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut slice;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    // u32 with musl, usize with glibc.
    header.msg_controllen = size_of_val(&control) as _;
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: the header describes `buffer` and `control`, both of which live longer than the call.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, flags) };
    let length = Errno::result(length)?.unsigned_abs();
    Ok(Datagram {
        length,
        is_cut: header.msg_flags & libc::MSG_TRUNC != 0,
        // SAFETY: the kernel has filled the header.
        descriptors: unsafe { descriptors(&header) },
        lacks_descriptors: header.msg_flags & libc::MSG_CTRUNC != 0,
    })
}

/// The descriptors in a header's control messages.
///
/// # Safety
///
/// `recvmsg` has filled the header, and nothing has taken these descriptors yet.
unsafe fn descriptors(header: &libc::msghdr) -> Vec<OwnedFd> {
    let mut found = Vec::new();
    // SAFETY: the kernel wrote whole control messages; each length covers the message's own data.
    unsafe {
        let mut message = libc::CMSG_FIRSTHDR(header);
        while let Some(control) = message.as_ref() {
            if (control.cmsg_level, control.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
                #[allow(clippy::unnecessary_cast, reason = "u32 with musl, usize with glibc")]
                let length = control.cmsg_len as usize - libc::CMSG_LEN(0) as usize;
                let data = std::slice::from_raw_parts(libc::CMSG_DATA(control), length);
                let (numbers, _) = data.as_chunks::<{ size_of::<RawFd>() }>();
                found.extend(numbers.iter().map(|&number| sys::own(RawFd::from_ne_bytes(number))));
            }
            message = libc::CMSG_NXTHDR(header, control);
        }
    }
    found
}
