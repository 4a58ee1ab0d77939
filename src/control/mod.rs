//! The control socket: how a command, or a person on the same host, speaks to a candidate.
//!
//! ```text
//! elect assert ── one line of JSON ──▶ visitor's task ── IncomingRequest ──▶ driver ── Event ──▶ election
//!              ◀── one line of JSON ──                ◀── ControlOutcome ──        ◀── Action ──
//! ```
//!
//! One socket per candidate in the runtime directory, for its user (and root) alone. A connection is one request and its
//! answer. Nothing here decides anything: a wish is handed to the election, and what it says is handed back. A visitor that
//! dawdles, or sends nonsense, costs one of a few places and no more.

mod protocol;
mod server;
mod socket_path;

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tracing::debug;

use crate::setup;

pub use protocol::{ControlOutcome, ControlRequest, ControlResponse, REQUEST_BYTES_MAX};
pub use server::ControlServer;
pub use socket_path::{directory, find_sockets};

/// How many visitors are heard at once; the others wait in the kernel's queue.
const CONCURRENT_READS_MAX: usize = 32;
/// How many connections there are at once, with those that wait for their answer: they take no place from those that are
/// still to be heard.
const CONNECTIONS_MAX: usize = 128;
/// How long a visitor may take to say what it wants, or to take its answer.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait when the kernel has no descriptor for a visitor.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// A wish and where its answer goes. A visitor that has left has dropped the other end.
#[derive(Debug)]
pub struct IncomingRequest {
    /// What is wanted.
    pub request: ControlRequest,
    /// For the answer; dropped without one, it says that elect is ending.
    pub outcome: oneshot::Sender<ControlOutcome>,
}

/// Who listens: said with each answer, so that whoever looks for a candidate knows whether it has found it.
#[derive(Debug, Clone)]
pub struct CandidateInfo {
    /// What is campaigned for.
    pub boundary: String,
    /// The candidate's.
    pub id: String,
    /// For people.
    pub name: String,
}

/// The socket's file, for as long as this lives.
#[derive(Debug)]
pub struct ControlSocket {
    path: PathBuf,
}

impl ControlSocket {
    /// Opens the socket in `directory`, and hears visitors from now on. Must be called inside a
    /// [`tokio::task::LocalSet`]. The channel ends when nobody can be heard any more.
    ///
    /// # Errors
    ///
    /// The socket cannot be made there.
    pub fn open(
        directory: &Path,
        info: CandidateInfo,
    ) -> io::Result<(ControlSocket, mpsc::UnboundedReceiver<IncomingRequest>)> {
        let path = directory.join(socket_path::socket_name(&info.boundary, &info.id));
        // Under a name that nobody looks for: a socket that does not listen yet is taken for one that a crash left behind.
        let mut socket = ControlSocket { path: directory.join(format!(".{}", info.id)) };
        let listener = UnixListener::bind(&socket.path)?;
        std::fs::set_permissions(&socket.path, std::fs::Permissions::from_mode(0o600))?;
        std::fs::rename(&socket.path, &path)?;
        socket.path = path;
        let (requests, heard) = mpsc::unbounded_channel();
        // Watched by its end of the channel.
        tokio::task::spawn_local(receive(listener, info, requests));
        Ok((socket, heard))
    }

    /// Where it is: what a command finds in `ELECT_SOCKET`.
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

async fn receive(listener: UnixListener, info: CandidateInfo, requests: mpsc::UnboundedSender<IncomingRequest>) {
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
                // Closed: the store goes first.
                Ok((stream, _)) if setup::is_reserved(&stream) => drop(stream),
                Ok((stream, permit)) => {
                    clients.spawn_local(serve_client(stream, info.clone(), requests.clone(), permit));
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
    info: CandidateInfo,
    requests: mpsc::UnboundedSender<IncomingRequest>,
    permit: Option<OwnedSemaphorePermit>,
) {
    // Heard out in any case: a connection that is closed on unread words loses the answer with them.
    let heard = tokio::time::timeout(CLIENT_TIMEOUT, read_request(&mut stream)).await;
    drop(permit);
    let outcome = match heard {
        Ok(Ok(_)) if !is_authorized(&stream) => Some(ControlOutcome::other_user()),
        Ok(Ok(Some(ControlRequest::Hello))) => Some(ControlOutcome::Yes { term: None, lease_left_ms: None }),
        Ok(Ok(Some(request))) => forward(request, &mut stream, &requests).await,
        Ok(Ok(None)) => Some(ControlOutcome::not_understood()),
        // It has left, or says nothing.
        Ok(Err(_)) | Err(_) => None,
    };
    let Some(outcome) = outcome else { return };
    let answer = ControlResponse { boundary: info.boundary, id: info.id, name: info.name, outcome };
    let _ = tokio::time::timeout(CLIENT_TIMEOUT, stream.write_all(answer.to_line().as_bytes())).await;
}

/// Its own user's, and root's.
fn is_authorized(stream: &UnixStream) -> bool {
    let own = nix::unistd::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|client| client.uid() == own || client.uid() == 0)
}

/// `None`: not a wish.
async fn read_request(stream: &mut UnixStream) -> io::Result<Option<ControlRequest>> {
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

/// Waits for the election's word, for as long as the visitor does. `None`: it has left.
async fn forward(
    request: ControlRequest,
    stream: &mut UnixStream,
    requests: &mpsc::UnboundedSender<IncomingRequest>,
) -> Option<ControlOutcome> {
    let (outcome, said) = oneshot::channel();
    if requests.send(IncomingRequest { request, outcome }).is_err() {
        return Some(ControlOutcome::shutting_down());
    }
    let mut byte = [0];
    tokio::select! {
        outcome = said => Some(outcome.unwrap_or_else(|_| ControlOutcome::shutting_down())),
        // A visitor says nothing more: what comes now is its end.
        _ = stream.read(&mut byte) => None,
    }
}

#[cfg(test)]
mod tests;
