//! A directory of its own for one test: the store's directory, the journal, the logs, and a mark on all who work in it.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tempfile::TempDir;

use super::journal::{History, LeaderEnv};
use super::processes::{self, ProcessInfo};
use super::{eventually, store_fixtures, until, wait};

#[derive(Debug)]
pub struct Sandbox {
    directory: TempDir,
    started: AtomicUsize,
}

impl Sandbox {
    pub fn new() -> Sandbox {
        let directory = tempfile::Builder::new().prefix("elect-test-").tempdir().expect("a temporary directory");
        fs::create_dir(directory.path().join("life")).expect("an empty directory takes another");
        Sandbox { directory, started: AtomicUsize::new(0) }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The file store's directory; made by elect.
    pub fn locks(&self) -> PathBuf {
        self.path().join("locks")
    }

    pub fn store(&self) -> String {
        format!("file:{}", self.locks().display())
    }

    /// Its name, also for what must be its own on a server that many share.
    pub fn database(&self) -> String {
        self.path().file_name().expect("a directory has a name").to_string_lossy().into_owned()
    }

    /// A store on the network that many share, with keys that are this place's alone.
    pub fn below(&self, url: &str) -> String {
        store_fixtures::part(url, &self.database())
    }

    pub fn lock_file(&self) -> PathBuf {
        self.locks().join("cron.lock")
    }

    pub fn record(&self) -> PathBuf {
        self.locks().join("cron.json")
    }

    /// On everybody who works here.
    pub fn mark(&self) -> String {
        format!("{}/", self.path().display())
    }

    /// For candidates of other users.
    pub fn open_to_all(self) -> Sandbox {
        fs::set_permissions(self.path(), Permissions::from_mode(0o755)).expect("a directory of ours");
        self
    }

    /// A number for the next candidate, and for its log and its mark.
    pub fn next(&self) -> usize {
        self.started.fetch_add(1, Ordering::Relaxed)
    }

    pub fn log_of(&self, number: usize) -> PathBuf {
        self.path().join(format!("log-{number}"))
    }

    /// Everybody who runs here now.
    pub fn running(&self) -> Vec<ProcessInfo> {
        processes::marked(&self.mark())
    }

    /// Nothing may be left once everybody that was started has ended.
    #[track_caller]
    pub fn is_left_empty(&self) {
        // elect itself may still be on its way out, its command may not.
        let left: Vec<ProcessInfo> = self
            .running()
            .into_iter()
            .filter(|process| !matches!(process.name.as_str(), "elect" | "keeper" | "keeper-init"))
            .collect();
        assert_eq!(left, [], "survivors");
        until("elect itself is gone", || self.running().is_empty());
    }

    pub fn history(&self) -> History {
        let text = fs::read_to_string(self.path().join("journal")).unwrap_or_default();
        History::parse(&text)
    }

    /// The variables that followers and leaders' commands got.
    pub fn followers(&self) -> Vec<LeaderEnv> {
        let text = fs::read_to_string(self.path().join("followers")).unwrap_or_default();
        text.lines().map(LeaderEnv::parse).collect()
    }

    /// The journal once `enough` of it has been written.
    #[track_caller]
    pub fn history_when(&self, what: &str, enough: impl Fn(&History) -> bool) -> History {
        eventually(what, || Some(self.history()).filter(&enough))
    }

    /// The journal once the witness has started `count` times.
    #[track_caller]
    pub fn starts(&self, count: usize) -> History {
        self.history_when(&format!("{count} starts of the command"), |history| history.starts.len() >= count)
    }

    /// Learns when the last of a witness's tree is gone, at the moment when it is: every one of them holds a lock for
    /// life, and the kernel wakes who waits for it.
    pub fn watch_the_end_of(&self, pid: i32) -> JoinHandle<Duration> {
        let file = File::open(self.path().join("life").join(pid.to_string())).expect("made before its start is noted");
        std::thread::spawn(move || {
            file.lock_shared().expect("a lock on an open file");
            wait::now()
        })
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.evidence());
        }
        processes::kill_marked(&self.mark());
    }
}

impl Sandbox {
    /// All that is known about a failed test: processes, the ends of all logs, the journal.
    pub fn evidence(&self) -> String {
        let mut parts = vec![format!("---- running: {:?}", self.running())];
        for number in 0..self.started.load(Ordering::Relaxed) {
            let log = fs::read_to_string(self.log_of(number)).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            parts.push(format!("---- log {number}:\n{}", lines[lines.len().saturating_sub(30)..].join("\n")));
        }
        let journal = fs::read_to_string(self.path().join("journal")).unwrap_or_default();
        parts.push(format!("---- journal:\n{journal}"));
        parts.join("\n")
    }
}
