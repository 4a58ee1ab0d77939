//! The thread that resolves the path as given again and again: the path may lead over a file system that does not answer.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::session::LockFile;
use crate::store::Notifier;
use elect_core::Term;

/// How long a question waits for the answer of the thread. A later answer that costs the leadership is still reported.
const ANSWER_WAIT_MAX: Duration = Duration::from_millis(500);

/// Where the path of the lock file leads.
#[derive(Debug)]
pub enum Resolved {
    /// To the file that was asked about.
    Same,
    /// To another file, or to nothing.
    Other(&'static str),
    /// It cannot be said.
    Unknown(io::Error),
    /// No answer yet.
    Late,
}

/// The thread.
#[derive(Debug)]
pub struct PathWatch {
    questions: SyncSender<PathQuery>,
    leading: Arc<AtomicU64>,
    ousted: Arc<AtomicBool>,
}

#[derive(Debug)]
struct PathQuery {
    file: LockFile,
    answer: oneshot::Sender<Resolved>,
}

/// Instead of a term: no candidate leads here.
const NO_TERM: Term = 0;

impl PathWatch {
    /// Starts the thread, which ends with this handle.
    pub fn start(path: PathBuf, hints: Notifier) -> io::Result<PathWatch> {
        let (questions, asked) = sync_channel::<PathQuery>(1);
        let leading = Arc::new(AtomicU64::new(NO_TERM));
        let (term, ousted) = (Arc::clone(&leading), Arc::new(AtomicBool::new(false)));
        let told = Arc::clone(&ousted);
        std::thread::Builder::new().name("path".to_owned()).stack_size(64 * 1024).spawn(move || {
            while let Ok(PathQuery { file, answer }) = asked.recv() {
                let late = answer.send(resolve(&path, file)).err();
                let term = term.load(Ordering::Acquire);
                if matches!(late, Some(Resolved::Other(_))) && term != NO_TERM {
                    told.store(true, Ordering::Release);
                    hints.lost(term);
                }
            }
        })?;
        Ok(PathWatch { questions, leading, ousted })
    }

    /// A watch on a file system that has stopped answering.
    #[cfg(test)]
    pub fn without_answers() -> PathWatch {
        let (questions, asked) = sync_channel(1);
        std::mem::forget(asked);
        PathWatch { questions, leading: Arc::new(AtomicU64::new(NO_TERM)), ousted: Arc::new(AtomicBool::new(false)) }
    }

    /// The term under which an answer that comes too late costs the leadership.
    pub fn leads(&self, term: Option<Term>) {
        self.leading.store(term.unwrap_or(NO_TERM), Ordering::Release);
    }

    /// Whether a late answer has cost the leadership since this was asked last.
    pub fn has_ousted(&self) -> bool {
        self.ousted.swap(false, Ordering::AcqRel)
    }

    /// Where the path leads now.
    ///
    /// Cancel safe.
    pub async fn resolve(&self, file: LockFile) -> Resolved {
        let (answer, answered) = oneshot::channel();
        match self.questions.try_send(PathQuery { file, answer }) {
            Ok(()) => {}
            // The thread is still at an earlier question.
            Err(TrySendError::Full(_)) => return Resolved::Late,
            Err(TrySendError::Disconnected(_)) => {
                return Resolved::Unknown(io::Error::other("the thread that resolves it has ended"));
            }
        }
        match timeout(ANSWER_WAIT_MAX, answered).await {
            Ok(Ok(resolved)) => resolved,
            Ok(Err(_)) => Resolved::Unknown(io::Error::other("the thread that resolves it has ended")),
            Err(_) => Resolved::Late,
        }
    }
}

/// Only the last part of the path must not be a link.
fn resolve(path: &std::path::Path, file: LockFile) -> Resolved {
    match fs::symlink_metadata(path) {
        Ok(found) if LockFile::from(&found) == file => Resolved::Same,
        Ok(_) => Resolved::Other("the lock file was deleted or replaced: its path leads to another file"),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => {
            Resolved::Other("the lock file was deleted or replaced: its path leads to nothing")
        }
        Err(error) => Resolved::Unknown(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
    }

    #[test]
    fn only_enoent_and_enotdir_mean_that_the_path_leads_to_nothing() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a/cron.lock");
        fs::create_dir(directory.path().join("a")).expect("made");
        fs::write(&path, "").expect("written");
        let file = LockFile::from(&fs::symlink_metadata(&path).expect("there"));
        assert!(matches!(resolve(&path, file), Resolved::Same));
        fs::rename(&path, directory.path().join("kept")).expect("renamed");
        assert!(matches!(resolve(&path, file), Resolved::Other(_)), "ENOENT");
        fs::write(&path, "").expect("written");
        assert!(matches!(resolve(&path, file), Resolved::Other(_)), "another file");
        fs::remove_file(&path).expect("removed");
        fs::remove_dir(directory.path().join("a")).expect("removed");
        fs::write(directory.path().join("a"), "").expect("written");
        assert!(matches!(resolve(&path, file), Resolved::Other(_)), "ENOTDIR");
        fs::remove_file(directory.path().join("a")).expect("removed");
        std::os::unix::fs::symlink("a", directory.path().join("a")).expect("a loop");
        assert!(matches!(resolve(&path, file), Resolved::Unknown(_)), "ELOOP says nothing about the file");
        let long = directory.path().join("n".repeat(300)).join("cron.lock");
        assert!(matches!(resolve(&long, file), Resolved::Unknown(_)), "ENAMETOOLONG");
    }

    #[test]
    fn an_answer_that_comes_too_late_costs_the_leadership_all_the_same() {
        let (hints, mut events) = crate::store::worker::channel();
        let watch = PathWatch::start("/nonexistent/cron.lock".into(), hints).expect("a thread");
        watch.leads(Some(7));
        block_on(async {
            // The answer is no longer waited for.
            let (answer, _) = oneshot::channel();
            watch.questions.send(PathQuery { file: LockFile { device: 0, inode: 0 }, answer }).expect("asked");
            let event = events.recv().await.expect("an event");
            assert!(matches!(event, crate::store::worker::StoreEvent::Ousted { term: 7 }), "{event:?}");
            assert!(matches!(watch.resolve(LockFile { device: 0, inode: 0 }).await, Resolved::Other(_)));
        });
    }
}
