//! The file of a control socket: how it is made in a directory that others may write to, and connected to.
//!
//! A path is never given a mode or an owner by its name, which another user may have moved to another file meanwhile:
//! the file is opened first, and checked. Before it has its mode it is closed to everybody else.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::sys::socket::sockopt::{PeerCredentials, SendTimeout};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect as connect_socket, getsockopt, listen,
    setsockopt, socket,
};
use nix::sys::stat::{Mode, fchmod};
use nix::sys::time::TimeVal;
use nix::unistd::{AccessFlags, Gid, access, geteuid};

use super::socket_path::Trust;
use crate::path_descriptor::open_path;

/// The bytes of a path that fit into the address of a socket.
const ADDRESS_BYTES_MAX: usize = 107;
/// Connections that wait in the kernel.
const BACKLOG: i32 = 128;

/// A path that fits into an address, and the descriptor that it may lead through.
struct SocketAddress {
    address: UnixAddr,
    _directory: Option<File>,
}

impl SocketAddress {
    fn new(path: &Path) -> io::Result<SocketAddress> {
        if path.as_os_str().len() <= ADDRESS_BYTES_MAX {
            return Ok(SocketAddress { address: UnixAddr::new(path)?, _directory: None });
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidFilename.into());
        };
        let directory = open_path(parent, OFlag::O_DIRECTORY)?;
        let short = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name);
        Ok(SocketAddress { address: UnixAddr::new(&short)?, _directory: Some(directory) })
    }
}

fn new_socket(flags: SockFlag) -> io::Result<OwnedFd> {
    Ok(socket(AddressFamily::Unix, SockType::Stream, flags | SockFlag::SOCK_CLOEXEC, None)?)
}

/// Makes a socket that listens, for this user alone or for a group too. A group that this user may not give files to is
/// left out. Returns whether the group may connect.
///
/// # Errors
///
/// It cannot be made there.
pub fn bind_for(path: &Path, group: Option<Gid>) -> io::Result<(UnixListener, bool)> {
    let listener = new_socket(SockFlag::SOCK_NONBLOCK)?;
    // The kernel gives the file these bits, less those of the umask.
    fchmod(&listener, Mode::S_IRUSR | Mode::S_IWUSR)?;
    bind(listener.as_raw_fd(), &SocketAddress::new(path)?.address)?;
    let shared = give_mode(path, group).inspect_err(|_| drop(fs::remove_file(path)))?;
    listen(&listener, Backlog::new(BACKLOG)?)?;
    Ok((UnixListener::from(listener), shared))
}

fn give_mode(path: &Path, group: Option<Gid>) -> io::Result<bool> {
    let file = open_path(path, OFlag::O_NOFOLLOW)?;
    let found = file.metadata()?;
    if !found.file_type().is_socket() || found.uid() != geteuid().as_raw() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "another file was put in its place"));
    }
    let own = format!("/proc/self/fd/{}", file.as_raw_fd());
    let is_given = |group: Gid| std::os::unix::fs::chown(&own, None, Some(group.as_raw())).is_ok();
    let shared = group.is_some_and(is_given);
    fs::set_permissions(&own, Permissions::from_mode(if shared { 0o660 } else { 0o600 }))?;
    Ok(shared)
}

/// Connects to a candidate. No wait is longer than `timeout`.
///
/// # Errors
///
/// As of the kernel; [`io::ErrorKind::TimedOut`] if its queue stays full, and [`NotTrusted`] inside an error if the
/// server's user is not trusted.
pub fn connect(path: &Path, trust: &Trust, timeout: Option<Duration>) -> io::Result<UnixStream> {
    // From here on this file is meant, also if another one is put in its place meanwhile.
    let file = open_path(path, OFlag::O_NOFOLLOW)?;
    let found = file.metadata()?;
    if found.file_type().is_symlink() {
        // It may lead to the socket of another candidate of the same user.
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a link is there, and no socket"));
    }
    let own = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    if !trust.includes(found.uid()) {
        // Its queue may be full, and its process silent: it is not connected to.
        access(&own, AccessFlags::W_OK)?;
        return Err(not_trusted(found.uid()));
    }
    let client = new_socket(SockFlag::empty())?;
    if let Some(timeout) = timeout {
        let micros = i64::try_from(timeout.as_micros().max(1)).unwrap_or(i64::MAX);
        let limit = TimeVal::new(micros / 1_000_000, micros % 1_000_000);
        setsockopt(&client, SendTimeout, &limit)?;
    }
    match connect_socket(client.as_raw_fd(), &UnixAddr::new(&own)?) {
        Err(nix::errno::Errno::EAGAIN) => return Err(io::ErrorKind::TimedOut.into()),
        connected => connected?,
    }
    let server = getsockopt(&client, PeerCredentials)?.uid();
    if !trust.includes(server) {
        return Err(not_trusted(server));
    }
    Ok(UnixStream::from(client))
}

fn not_trusted(uid: u32) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, NotTrusted { uid })
}

/// A socket of a user who may not answer for a candidate.
#[derive(Debug, thiserror::Error)]
#[error("the socket is that of uid {uid}, which is not trusted to answer for a candidate of this user")]
pub struct NotTrusted {
    /// The owner of the file, or the user of the process that listens.
    pub uid: u32,
}

/// Removes a socket of this user to which nobody listens any more. Returns whether nobody does.
pub fn remove_if_dead(path: &Path) -> bool {
    let Ok(found) = fs::symlink_metadata(path) else { return true };
    if !found.file_type().is_socket() || found.uid() != geteuid().as_raw() {
        return false;
    }
    let (Ok(client), Ok(address)) = (new_socket(SockFlag::SOCK_NONBLOCK), SocketAddress::new(path)) else {
        return false;
    };
    let is_dead = connect_socket(client.as_raw_fd(), &address.address) == Err(nix::errno::Errno::ECONNREFUSED);
    // Its name is not used again: it contains the candidate's id.
    is_dead && fs::remove_file(path).is_ok()
}
