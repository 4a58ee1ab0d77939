//! The control socket, by which commands and users on the same host control a candidate.
//!
//! ```text
//! elect assert ── one line of JSON ──▶ client's task ── IncomingRequest ──▶ driver ── Event ──▶ election
//!              ◀── one line of JSON ──                ◀── ControlOutcome ──        ◀── Action ──
//! ```
//!
//! One socket per candidate in the runtime directory, for its user (and root), and for the group of a directory that
//! `--runtime-dir` names if it may write there. A connection is one request and its answer. This module decides nothing: it passes a request to the election, and the election's outcome to the
//! client. A slow or invalid client occupies one of 32 slots for at most 5 s.

mod protocol;
mod server;
mod socket_file;
mod socket_path;

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tracing::debug;

use crate::setup;
use elect_keeper::clock;

pub use protocol::{
    CandidateStatus, ControlOutcome, ControlRequest, ControlResponse, ObservedLeader, REQUEST_BYTES_MAX,
};
pub use server::{ControlEvent, ControlServer};
pub use socket_file::{NotTrusted, connect, remove_if_dead};
pub use socket_path::{SocketDirectory, Trust, parse_socket_name};

/// The most requests that are read at once; further connections wait in the kernel's queue.
const CONCURRENT_READS_MAX: usize = 32;
/// The most connections at once, including those that wait for their answer, which take no slot from connections whose
/// request is still to be read.
const CONNECTIONS_MAX: usize = 128;
/// The time that a client has to send its request, and to take its answer.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(5);
/// A socket that is not renamed after so long has been left behind before its candidate could do it.
const RENAME_TIMEOUT: Duration = Duration::from_secs(60);
/// The pause after the kernel had no descriptor for a connection.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// A request and the channel for its answer. A client that has left has dropped the other end.
#[derive(Debug)]
pub struct IncomingRequest {
    /// The request.
    pub request: ControlRequest,
    /// The channel of the answer. Dropped without one, it tells the client that elect is ending.
    pub outcome: oneshot::Sender<ControlOutcome>,
}

/// The identity of the candidate: part of each answer, so that a client that looks for a candidate recognizes it.
#[derive(Debug, Clone)]
pub struct CandidateInfo {
    /// The boundary of the candidate.
    pub boundary: String,
    /// The candidate's.
    pub id: String,
    /// For display.
    pub name: String,
}

/// The socket's file, for as long as this lives.
#[derive(Debug)]
pub struct ControlSocket {
    path: PathBuf,
}

impl ControlSocket {
    /// Opens the socket in `directory` and accepts connections from now on. Must be called inside a
    /// [`tokio::task::LocalSet`]. The channel ends when no connection can be accepted any more.
    ///
    /// # Errors
    ///
    /// The socket cannot be made there.
    pub fn open(
        directory: &SocketDirectory,
        info: CandidateInfo,
    ) -> io::Result<(ControlSocket, mpsc::UnboundedReceiver<IncomingRequest>)> {
        let path = directory.path().join(socket_path::socket_name(&info.boundary, &info.id));
        // Under a name that clients ignore: they take a socket that does not listen yet for one that a crash left
        // behind.
        let mut socket = ControlSocket { path: directory.path().join(format!(".{}", info.id)) };
        let (listener, is_shared) = socket_file::bind_for(&socket.path, directory.group())?;
        let listener = UnixListener::from_std(listener)?;
        std::fs::rename(&socket.path, &path)?;
        socket.path = path;
        let (requests, receiver) = mpsc::unbounded_channel();
        // Watched by its end of the channel.
        tokio::task::spawn_local(receive(listener, Admission { info, is_shared }, requests));
        tokio::task::spawn_local(remove_leftovers(directory.clone()));
        Ok((socket, receiver))
    }

    /// The path of the socket: the value of `ELECT_SOCKET`.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Removes what killed candidates of this user have left in the directory, between other things.
async fn remove_leftovers(directory: SocketDirectory) {
    for path in directory.leftovers() {
        let is_temporary = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !is_temporary || is_older(&path, RENAME_TIMEOUT) {
            remove_if_dead(&path);
        }
        tokio::task::yield_now().await;
    }
}

fn is_older(path: &Path, age: Duration) -> bool {
    let Ok(found) = std::fs::symlink_metadata(path) else { return false };
    let made = Duration::from_secs(u64::try_from(found.mtime()).unwrap_or(0));
    Duration::from_millis(clock::wall_millis()).saturating_sub(made) > age
}

/// The identity that a client gets, and the rule by which it gets it.
#[derive(Debug, Clone)]
struct Admission {
    info: CandidateInfo,
    /// Whether the permission to write to the socket's file is enough.
    is_shared: bool,
}

async fn receive(listener: UnixListener, admission: Admission, requests: mpsc::UnboundedSender<IncomingRequest>) {
    let mut clients = JoinSet::new();
    let permits = Arc::new(Semaphore::new(CONCURRENT_READS_MAX));
    loop {
        let has_room = clients.len() < CONNECTIONS_MAX;
        let next = async {
            // The semaphore is never closed.
            let permit = Arc::clone(&permits).acquire_owned().await.ok();
            listener.accept().await.map(|(stream, _)| (stream, permit))
        };
        tokio::select! {
            accepted = next, if has_room => match accepted {
                // The last descriptors are reserved for the store.
                Ok((stream, _)) if setup::is_reserved(&stream) => drop(stream),
                Ok((stream, permit)) => {
                    clients.spawn_local(serve_client(stream, admission.clone(), requests.clone(), permit));
                }
                Err(error) => {
                    debug!("control socket: {error}");
                    tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                }
            },
            Some(_) = clients.join_next() => {}
            () = requests.closed() => return,
        }
    }
}

async fn serve_client(
    mut stream: UnixStream,
    Admission { info, is_shared }: Admission,
    requests: mpsc::UnboundedSender<IncomingRequest>,
    permit: Option<OwnedSemaphorePermit>,
) {
    // Read the whole request even if it will be rejected: closing a socket with unread data discards the reply.
    let request = tokio::time::timeout(CLIENT_TIMEOUT, read_request(&mut stream)).await;
    drop(permit);
    let outcome = match request {
        Ok(Ok(_)) if !is_shared && !is_authorized(&stream) => Some(ControlOutcome::other_user()),
        // The file of this candidate's socket was moved to where the client expects another one's.
        Ok(Ok(Some((_, Some(id))))) if id != info.id => {
            Some(ControlOutcome::no("another candidate's socket is there: nothing was done"))
        }
        Ok(Ok(Some((ControlRequest::Hello, _)))) => Some(ControlOutcome::Yes { term: None, lease_left_ms: None }),
        Ok(Ok(Some((request, _)))) => forward(request, &mut stream, &requests).await,
        Ok(Ok(None)) => Some(ControlOutcome::not_understood()),
        // The client has left, or has not sent a request in time.
        Ok(Err(_)) | Err(_) => None,
    };
    let Some(outcome) = outcome else { return };
    let answer = ControlResponse { boundary: info.boundary, id: info.id, name: info.name, outcome };
    let _ = tokio::time::timeout(CLIENT_TIMEOUT, stream.write_all(answer.to_line().as_bytes())).await;
}

/// Whether the client belongs to the candidate's user or to root. A socket that a group may write to needs no such check:
/// the kernel has made it.
fn is_authorized(stream: &UnixStream) -> bool {
    let own = nix::unistd::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|client| client.uid() == own || client.uid() == 0)
}

/// Reads a request and the id of its recipient; `None` if it is malformed.
async fn read_request(stream: &mut UnixStream) -> io::Result<Option<(ControlRequest, Option<String>)>> {
    let mut line = Vec::new();
    let mut chunk = [0; 1024];
    while !line.contains(&b'\n') {
        if line.len() > REQUEST_BYTES_MAX {
            return Ok(None);
        }
        match stream.read(&mut chunk).await? {
            0 => break,
            read => line.extend_from_slice(&chunk[..read]),
        }
    }
    Ok(ControlRequest::from_line(&line))
}

/// Waits for the election's outcome, for as long as the client does. `None`: the client has left.
async fn forward(
    request: ControlRequest,
    stream: &mut UnixStream,
    requests: &mpsc::UnboundedSender<IncomingRequest>,
) -> Option<ControlOutcome> {
    let (outcome, answer) = oneshot::channel();
    if requests.send(IncomingRequest { request, outcome }).is_err() {
        return Some(ControlOutcome::shutting_down());
    }
    let mut byte = [0];
    tokio::select! {
        outcome = answer => Some(outcome.unwrap_or_else(|_| ControlOutcome::shutting_down())),
        // A client sends nothing after its request: this is the end of the connection.
        _ = stream.read(&mut byte) => None,
    }
}

#[cfg(test)]
mod tests;
