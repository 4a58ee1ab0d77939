//! The command that proves what runs when.
//!
//! For as long as it or its grandchild lives, `flock(LOCK_EX)` on one file of the place is held. A refused lock is proof of
//! an overlap; it is noted, and the witness lives on as if nothing were wrong. A second lock, on a file named after its
//! process, tells the harness when the last of this tree is gone.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;
use nix::time::{ClockId, clock_gettime};

struct Journal {
    place: PathBuf,
    term: String,
}

impl Journal {
    /// One line, in one write, so that no two mix.
    fn note(&self, what: &str, at: Duration) {
        let line = format!("{what} {} {} {}\n", self.term, own_number(), at.as_nanos());
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.place.join("journal"))
            .expect("the place takes a journal");
        file.write_all(line.as_bytes()).expect("the journal takes a line");
    }
}

fn main() -> ExitCode {
    let born = now();
    let words: Vec<String> = std::env::args().skip(1).collect();
    let has = |word: &str| words.iter().any(|one| one == word);
    let place = PathBuf::from(std::env::var_os("WITNESS_PLACE").expect("the harness names a place"));
    let journal = Journal { place, term: std::env::var("ELECT_TERM").unwrap_or_else(|_| "0".to_owned()) };

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
    } else {
        Some(bear_witness(&journal, born))
    };
    if has("--daemon") {
        daemonize(has("--stubborn"));
    }
    let descriptor = SignalFd::new(&signals).expect("a descriptor for signals");
    loop {
        let Ok(Some(received)) = descriptor.read_signal() else { continue };
        if received.ssi_signo == Signal::SIGUSR1 as u32 {
            unlock(&journal);
        } else if !has("--stubborn") {
            break;
        }
    }
    journal.note("end", now());
    drop(kept);
    ExitCode::SUCCESS
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
fn bear_witness(journal: &Journal, born: Duration) -> [File; 2] {
    let life = inheritable(&journal.place.join("life").join(own_number()));
    life.try_lock().expect("nobody else has this number");
    let lock = inheritable(&journal.place.join("witness.lock"));
    if lock.try_lock().is_err() {
        journal.note("overlap", now());
    }
    journal.note("start", born);
    [life, lock]
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

/// What a careless command does to the lock that it was born with.
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
