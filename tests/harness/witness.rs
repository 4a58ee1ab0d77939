//! The command that proves what runs when.
//!
//! For as long as it or its grandchild lives, `flock(LOCK_EX)` on one file of the place is held. A refused lock is proof of
//! an overlap; it is noted, and the witness lives on as if nothing were wrong. A second lock, on a file named after its
//! process, tells the harness when the last of this tree is gone.
//!
//! As a follower it takes another lock than as a leader, one for each candidate, which its leader command takes as well: a
//! candidate's follower has to be gone by then. What each was told of its leader is noted in a journal of its own.
//! As a hook it leaves a note, and is gone.

#![forbid(unsafe_code)]

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;
use nix::time::{ClockId, clock_gettime};

/// Between two writes.
const PAUSE: Duration = Duration::from_millis(1);

struct Journal {
    sandbox: PathBuf,
    term: String,
}

impl Journal {
    /// One line, in one write, so that no two mix.
    fn note(&self, what: &str, at: Duration) {
        let line = format!("{what} {} {} {}\n", self.term, own_number(), at.as_nanos());
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.sandbox.join("journal"))
            .expect("the place takes a journal");
        file.write_all(line.as_bytes()).expect("the journal takes a line");
    }

    /// Notes the variables about the leader that this process got.
    fn note_leader(&self, what: &str, at: Duration) {
        let told = ["ID", "LEADER_ID", "LEADER_HOST", "LEADER_PORT", "LEADER_ADDR", "TERM", "ROLE"];
        let told = told.map(|name| std::env::var(format!("ELECT_{name}")).unwrap_or_else(|_| "-".to_owned()));
        let line = format!("{what} {} {} {}\n", told.join(" "), std::process::id(), at.as_nanos());
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.sandbox.join("followers"))
            .expect("the place takes a journal");
        file.write_all(line.as_bytes()).expect("the journal takes a line");
    }

    /// Taken by a candidate's follower, and by its leader command.
    fn lock_of_this_candidate(&self) -> File {
        // Where there is no elect, as in the positive controls, everybody is one of their own.
        let id = std::env::var("ELECT_ID").unwrap_or_else(|_| std::process::id().to_string());
        let lock = inheritable(&self.sandbox.join(format!("candidate-{id}.lock")));
        if lock.try_lock().is_err() {
            self.note("overlap", now());
        }
        lock
    }
}

fn main() -> ExitCode {
    let born = now();
    let words: Vec<String> = std::env::args().skip(1).collect();
    let has = |word: &str| words.iter().any(|one| one == word);
    let sandbox = PathBuf::from(std::env::var_os("WITNESS_PLACE").expect("the harness names a place"));
    let journal = Journal { sandbox, term: std::env::var("ELECT_TERM").unwrap_or_else(|_| "0".to_owned()) };

    if let Some(note) = words.iter().find_map(|word| word.strip_prefix("--note=")) {
        journal.note(&format!("note:{note}"), born);
        return ExitCode::SUCCESS;
    }

    // Blocked and read from a descriptor; a stubborn one does not care for what it reads.
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGUSR1]);
    signals.thread_block().expect("signals can be blocked");
    if has("--close") {
        close_everything();
    }
    let kept = if has("--grandchild") {
        // Born with the locks of the witness.
        journal.note("grandchild", born);
        None
    } else if has("--follower") {
        Some(follow(&journal, born))
    } else {
        Some(hold_locks(&journal, born))
    };
    if has("--daemon") {
        daemonize(has("--stubborn"));
    }
    if let Some(path) = words.iter().find_map(|word| word.strip_prefix("--write=")) {
        write_on_and_on(PathBuf::from(path));
    }
    if let Some(socket) = words.iter().find_map(|word| word.strip_prefix("--fenced=")) {
        write_through_the_fence(PathBuf::from(socket), journal.term.clone());
    }
    let descriptor = SignalFd::new(&signals).expect("a descriptor for signals");
    loop {
        let Ok(Some(received)) = descriptor.read_signal() else { continue };
        if received.ssi_signo == Signal::SIGUSR1 as u32 && has("--follower") {
            journal.note_leader("signal", now());
        } else if received.ssi_signo == Signal::SIGUSR1 as u32 {
            unlock(&journal);
        } else if !has("--stubborn") {
            break;
        }
    }
    if has("--follower") {
        journal.note_leader("unfollow", now());
    } else {
        journal.note("end", now());
    }
    drop(kept);
    let status = words.iter().find_map(|word| word.strip_prefix("--exit="));
    status.and_then(|status| status.parse::<u8>().ok()).map_or(ExitCode::SUCCESS, ExitCode::from)
}

/// Our process id as the harness sees it, from outside of a PID namespace that we may be in.
fn own_number() -> String {
    let own = fs::read_link("/proc/self").expect("/proc is there");
    own.to_string_lossy().into_owned()
}

fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).expect("the boot clock exists").into()
}

/// Takes the locks, and says so.
fn hold_locks(journal: &Journal, born: Duration) -> Vec<File> {
    let candidate = journal.lock_of_this_candidate();
    let life = inheritable(&journal.sandbox.join("life").join(own_number()));
    life.try_lock().expect("nobody else has this number");
    let lock = inheritable(&journal.sandbox.join("witness.lock"));
    if lock.try_lock().is_err() {
        journal.note("overlap", now());
    }
    journal.note_leader("lead", born);
    journal.note("start", born);
    vec![life, lock, candidate]
}

/// The same for a follower, of which there may be many.
fn follow(journal: &Journal, born: Duration) -> Vec<File> {
    let life = inheritable(&journal.sandbox.join("life").join(std::process::id().to_string()));
    life.try_lock().expect("nobody else has this number");
    let candidate = journal.lock_of_this_candidate();
    journal.note_leader("follow", born);
    vec![life, candidate]
}

/// Open for the grandchild too, through every exec.
fn inheritable(path: &Path) -> File {
    let file = OpenOptions::new().create(true).append(true).open(path).expect("the place takes a lock");
    fcntl(file.as_fd(), FcntlArg::F_SETFD(FdFlag::empty())).expect("a flag of an open file");
    file
}

/// Forks twice, with a session of its own.
fn daemonize(stubborn: bool) {
    let own = std::env::current_exe().expect("this program has a path");
    let mut command = Command::new("setsid");
    command.arg("--fork").arg(own).arg("--grandchild").args(stubborn.then_some("--stubborn"));
    let status = command.status().expect("setsid is there");
    assert!(status.success(), "setsid: {status}");
}

/// A thread that writes to a disk: when the disk is frozen, the process cannot be killed.
fn write_on_and_on(path: PathBuf) {
    std::thread::spawn(move || {
        loop {
            fs::write(&path, "the witness was here").expect("the disk takes a file");
            std::thread::sleep(PAUSE);
        }
    });
}

/// A thread that writes to a resource that compares terms, under the term of this command, until it is refused.
fn write_through_the_fence(socket: PathBuf, term: String) {
    std::thread::spawn(move || {
        let resource = UnixStream::connect(socket).expect("the resource listens");
        let mut answers = BufReader::new(resource.try_clone().expect("one more descriptor"));
        let mut answer = String::new();
        while answer != "refused\n" {
            answer.clear();
            (&resource).write_all(format!("{term}\n").as_bytes()).expect("the resource takes a line");
            answers.read_line(&mut answer).expect("the resource answers");
            std::thread::sleep(PAUSE);
        }
    });
}

/// Unlocks the inherited lock, as a careless command would.
fn unlock(journal: &Journal) {
    let status = Command::new("flock").args(["-u", "100"]).status().expect("flock is there");
    assert!(status.success(), "flock: {status}");
    journal.note("unlock", now());
}

fn close_everything() {
    let open: Vec<i32> = fs::read_dir("/proc/self/fd")
        .expect("/proc is there")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|&descriptor| descriptor > 2)
        .collect();
    for descriptor in open {
        // The one that listed the others is closed by now.
        let _ = nix::unistd::close(descriptor);
    }
}
