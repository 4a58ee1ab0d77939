//! The control socket: how a command, or a person on the same host, speaks to a candidate.
//!
//! ```text
//! elect assert ── one line of JSON ──▶ visitor's task ── Visit ──▶ driver ── Event ──▶ election
//!              ◀── one line of JSON ──                ◀── Verdict ──        ◀── Action ──
//! ```
//!
//! One socket per candidate in the runtime directory, for its user (and root) alone. A connection is one request and its
//! answer. Nothing here decides anything: a wish is handed to the election, and what it says is handed back. A visitor that
//! dawdles, or sends nonsense, costs one of a few places and no more.

mod protocol;
mod rooms;
mod visits;

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

pub use protocol::{Answer, LONGEST, Verdict, Wish};
pub use rooms::{candidates_of, directory};
pub use visits::Visits;

/// How many visitors are heard at once; the others wait in the kernel's queue.
const PLACES: usize = 32;
/// How many connections there are at once, with those that wait for their answer: they take no place from those that are
/// still to be heard.
const CONNECTIONS_MAX: usize = 128;
/// How long a visitor may take to say what it wants, or to take its answer.
const DAWDLING: Duration = Duration::from_secs(5);
/// How long to wait when the kernel has no descriptor for a visitor.
const BREATH: Duration = Duration::from_millis(100);

/// A wish and where its answer goes. A visitor that has left has dropped the other end.
#[derive(Debug)]
pub struct Visit {
    /// What is wanted.
    pub wish: Wish,
    /// For the answer; dropped without one, it says that elect is ending.
    pub verdict: oneshot::Sender<Verdict>,
}

/// Who listens: said with each answer, so that whoever looks for a candidate knows whether it has found it.
#[derive(Debug, Clone)]
pub struct Host {
    /// What is campaigned for.
    pub boundary: String,
    /// The candidate's.
    pub id: String,
    /// For people.
    pub name: String,
}

/// The socket's file, for as long as this lives.
#[derive(Debug)]
pub struct Door {
    path: PathBuf,
}

impl Door {
    /// Opens the socket in `directory`, and hears visitors from now on. Must be called inside a
    /// [`tokio::task::LocalSet`]. The channel ends when nobody can be heard any more.
    ///
    /// # Errors
    ///
    /// The socket cannot be made there.
    pub fn open(directory: &Path, host: Host) -> io::Result<(Door, mpsc::UnboundedReceiver<Visit>)> {
        let path = directory.join(rooms::name_of(&host.boundary, &host.id));
        // Under a name that nobody looks for: a socket that does not listen yet is taken for one that a crash left behind.
        let mut door = Door { path: directory.join(format!(".{}", host.id)) };
        let listener = UnixListener::bind(&door.path)?;
        std::fs::set_permissions(&door.path, std::fs::Permissions::from_mode(0o600))?;
        std::fs::rename(&door.path, &path)?;
        door.path = path;
        let (petitions, heard) = mpsc::unbounded_channel();
        // Watched by its end of the channel.
        tokio::task::spawn_local(receive(listener, host, petitions));
        Ok((door, heard))
    }

    /// Where it is: what a command finds in `ELECT_SOCKET`.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn receive(listener: UnixListener, host: Host, petitions: mpsc::UnboundedSender<Visit>) {
    let mut visitors = JoinSet::new();
    let places = Arc::new(Semaphore::new(PLACES));
    loop {
        let has_room = visitors.len() < CONNECTIONS_MAX;
        let next = async {
            // The semaphore is never closed.
            let place = Arc::clone(&places).acquire_owned().await.ok();
            listener.accept().await.map(|(stream, _)| (stream, place))
        };
        tokio::select! {
            accepted = next, if has_room => match accepted {
                // Closed: the store goes first.
                Ok((stream, _)) if setup::is_reserved(&stream) => drop(stream),
                Ok((stream, place)) => {
                    visitors.spawn_local(attend(stream, host.clone(), petitions.clone(), place));
                }
                Err(error) => {
                    debug!("control socket: {error}");
                    tokio::time::sleep(BREATH).await;
                }
            },
            Some(_) = visitors.join_next() => {}
            () = petitions.closed() => return,
        }
    }
}

async fn attend(
    mut stream: UnixStream,
    host: Host,
    petitions: mpsc::UnboundedSender<Visit>,
    place: Option<OwnedSemaphorePermit>,
) {
    // Heard out in any case: a connection that is closed on unread words loses the answer with them.
    let heard = tokio::time::timeout(DAWDLING, read_wish(&mut stream)).await;
    drop(place);
    let verdict = match heard {
        Ok(Ok(_)) if !admitted(&stream) => Some(Verdict::foreign()),
        Ok(Ok(Some(Wish::Hello))) => Some(Verdict::Yes { term: None, lease_left_ms: None }),
        Ok(Ok(Some(wish))) => consider(wish, &mut stream, &petitions).await,
        Ok(Ok(None)) => Some(Verdict::misunderstood()),
        // It has left, or says nothing.
        Ok(Err(_)) | Err(_) => None,
    };
    let Some(verdict) = verdict else { return };
    let answer = Answer { boundary: host.boundary, id: host.id, name: host.name, verdict };
    let _ = tokio::time::timeout(DAWDLING, stream.write_all(answer.to_line().as_bytes())).await;
}

/// Its own user's, and root's.
fn admitted(stream: &UnixStream) -> bool {
    let own = nix::unistd::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|visitor| visitor.uid() == own || visitor.uid() == 0)
}

/// `None`: not a wish.
async fn read_wish(stream: &mut UnixStream) -> io::Result<Option<Wish>> {
    let mut line = Vec::new();
    let mut chunk = [0; 1024];
    while !line.contains(&b'\n') {
        if line.len() > LONGEST {
            return Ok(None);
        }
        match stream.read(&mut chunk).await? {
            0 => break,
            read => line.extend_from_slice(&chunk[..read]),
        }
    }
    Ok(Wish::from_line(&line))
}

/// Waits for the election's word, for as long as the visitor does. `None`: it has left.
async fn consider(wish: Wish, stream: &mut UnixStream, petitions: &mpsc::UnboundedSender<Visit>) -> Option<Verdict> {
    let (verdict, said) = oneshot::channel();
    if petitions.send(Visit { wish, verdict }).is_err() {
        return Some(Verdict::ending());
    }
    let mut byte = [0];
    tokio::select! {
        verdict = said => Some(verdict.unwrap_or_else(|_| Verdict::ending())),
        // A visitor says nothing more: what comes now is its end.
        _ = stream.read(&mut byte) => None,
    }
}

#[cfg(test)]
mod tests;
