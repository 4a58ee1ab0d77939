//! A resource that accepts a write only with a term that is at least the highest it has seen: the fence of
//! `docs/fencing.md`, in memory, so that each attempt can be looked at.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::wait::now;

/// A write that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteAttempt {
    pub term: u64,
    pub at: Duration,
    pub is_accepted: bool,
}

#[derive(Debug, Default)]
struct Fence {
    highest: u64,
    /// In the order in which they were decided.
    attempts: Vec<WriteAttempt>,
}

/// Serves any number of writers, each a line with its term and an answer at a time.
#[derive(Debug)]
pub struct FencedResource {
    socket: PathBuf,
    fence: Arc<Mutex<Fence>>,
}

impl FencedResource {
    /// Listens at this path, until the test process ends.
    pub fn at(socket: &Path) -> FencedResource {
        let listener = UnixListener::bind(socket).expect("a free path");
        let fence = Arc::new(Mutex::new(Fence::default()));
        let shared = Arc::clone(&fence);
        thread::spawn(move || {
            for writer in listener.incoming().map_while(Result::ok) {
                let fence = Arc::clone(&shared);
                thread::spawn(move || serve(&writer, &fence));
            }
        });
        FencedResource { socket: socket.to_owned(), fence }
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    pub fn attempts(&self) -> Vec<WriteAttempt> {
        locked(&self.fence).attempts.clone()
    }

    /// Whether a write of this term was accepted.
    pub fn has_accepted(&self, term: u64) -> bool {
        locked(&self.fence).attempts.iter().any(|attempt| attempt.is_accepted && attempt.term == term)
    }
}

/// Until the writer is gone.
fn serve(writer: &UnixStream, fence: &Mutex<Fence>) {
    for line in BufReader::new(writer).lines().map_while(Result::ok) {
        let term = line.parse().expect("a term");
        let is_accepted = {
            let mut fence = locked(fence);
            let is_accepted = term >= fence.highest;
            fence.highest = fence.highest.max(term);
            fence.attempts.push(WriteAttempt { term, at: now(), is_accepted });
            is_accepted
        };
        let answer: &[u8] = if is_accepted { b"accepted\n" } else { b"refused\n" };
        // A writer that was killed does not read it.
        let _ = (&*writer).write_all(answer);
    }
}

fn locked(fence: &Mutex<Fence>) -> MutexGuard<'_, Fence> {
    fence.lock().unwrap_or_else(PoisonError::into_inner)
}
