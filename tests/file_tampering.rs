//! Files of a shared lock directory in the hands of another user, and disks and limits that let nothing be written.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::processes;
use crate::harness::wait::throughout;
use crate::harness::{ElectCmd, Sandbox, Witness, until};

/// Puts something at the second path; the first one leads to a file that must stay as it is.
type Intrusion = fn(&Path, &Path);

/// The kinds of files that another user may put in the place of one.
const INTRUDERS: [(&str, Intrusion); 5] = [
    ("a FIFO", |_, path| nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).expect("a FIFO")),
    ("a link", |private, path| symlink(private, path).expect("a link")),
    ("a second name", |private, path| fs::hard_link(private, path).expect("a second name")),
    ("a directory", |_, path| fs::create_dir(path).expect("a directory")),
    ("a socket", |_, path| drop(UnixListener::bind(path).expect("a socket"))),
];

fn remove(path: &Path) {
    if fs::symlink_metadata(path).is_ok() {
        fs::remove_file(path).or_else(|_| fs::remove_dir(path)).expect("it is there");
    }
}

/// A file with nothing to do with elections, and whether it is as it was.
struct PrivateFile {
    path: PathBuf,
    modified: i64,
}

impl PrivateFile {
    fn new(sandbox: &Sandbox) -> PrivateFile {
        let path = sandbox.path().join("private");
        fs::write(&path, "private").expect("written");
        fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("ours");
        let modified = fs::metadata(&path).expect("there").mtime_nsec();
        PrivateFile { path, modified }
    }

    #[track_caller]
    fn is_untouched(&self, kind: &str) {
        let found = fs::metadata(&self.path).expect("there");
        assert_eq!(fs::read(&self.path).expect("there"), b"private", "{kind}");
        assert_eq!((found.mode() & 0o7777, found.mtime_nsec()), (0o600, self.modified), "{kind}");
    }
}

fn shared() -> Sandbox {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.locks()).expect("an empty place");
    fs::set_permissions(sandbox.locks(), Permissions::from_mode(0o777)).expect("ours");
    sandbox
}

/// Each kind in the place of that file, while a candidate leads and another waits: none of the two hangs, and both end at once
/// when they are told to.
fn intrude(file: fn(&Sandbox) -> PathBuf, is_lost: bool) {
    std::thread::scope(|scope| {
        for (kind, put) in INTRUDERS {
            scope.spawn(move || {
                let sandbox = shared();
                let private = PrivateFile::new(&sandbox);
                let leader = ElectCmd::new(&sandbox).witness(&Witness::new()).start();
                sandbox.starts(1);
                let waiter = ElectCmd::new(&sandbox).witness(&Witness::new()).start();
                waiter.wait_until_waiting();
                remove(&file(&sandbox));
                put(&private.path, &file(&sandbox));
                if is_lost {
                    leader.wait_for_log("leadership lost");
                } else {
                    let led = sandbox.history().latest();
                    throughout(Duration::from_secs(3), kind, || processes::is_alive(led.pid));
                    let newcomer = ElectCmd::new(&sandbox).witness(&Witness::new()).start();
                    let said = ["waiting: ", "the next leader replaces it", "remove it"];
                    until("it has looked", || said.iter().any(|words| newcomer.log().contains(words)));
                    newcomer.terminate();
                }
                leader.terminate();
                // A second SIGTERM is not needed, and does no harm.
                waiter.signal(Signal::SIGTERM);
                waiter.terminate();
                private.is_untouched(kind);
                sandbox.history().is_safe();
                sandbox.is_left_empty();
            });
        }
    });
}

#[test]
fn a_record_that_another_user_has_replaced_is_neither_followed_nor_waited_for() {
    intrude(Sandbox::record, false);
}

#[test]
fn a_lock_file_that_another_user_has_replaced_is_neither_followed_nor_waited_for() {
    intrude(Sandbox::lock_file, true);
}

#[test]
fn a_temporary_file_that_another_user_has_put_there_is_neither_followed_nor_waited_for() {
    intrude(|sandbox| sandbox.locks().join(".cron.json.new"), false);
}

#[test]
fn whatever_is_in_the_place_of_the_record_the_next_candidate_says_so_or_leads() {
    for (kind, put) in INTRUDERS {
        let sandbox = shared();
        let private = PrivateFile::new(&sandbox);
        put(&private.path, &sandbox.record());
        let candidate = ElectCmd::new(&sandbox).witness(&Witness::new()).start();
        if kind == "a directory" {
            candidate.wait_for_log("is a directory, not a record: remove it");
            assert!(sandbox.history().starts.is_empty());
            remove(&sandbox.record());
        }
        sandbox.starts(1);
        candidate.terminate();
        private.is_untouched(kind);
        sandbox.is_left_empty();
    }
}

#[test]
fn a_lock_file_that_was_replaced_is_waited_out_once_the_store_has_answered() {
    let sandbox = shared();
    let candidate = ElectCmd::new(&sandbox).witness(&Witness::new()).start();
    sandbox.starts(1);
    remove(&sandbox.lock_file());
    nix::unistd::mkfifo(&sandbox.lock_file(), nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
    candidate.wait_for_log("is a FIFO, not a regular file");
    remove(&sandbox.lock_file());
    sandbox.starts(2);
    candidate.terminate();
    sandbox.history().is_safe();
    sandbox.is_left_empty();
}

/// Under a limit of no byte at all for every file, but for what elect says.
const WITHOUT_FILES: [&str; 4] =
    ["bash", "-c", r#"trap "" XFSZ; exec 2> >(exec cat >&2); ulimit -f 0; exec "$@""#, "bash"];

#[test]
fn a_limit_of_file_sizes_is_a_full_disk_that_is_waited_out_without_leading() {
    let sandbox = Sandbox::new();
    let candidate = ElectCmd::new(&sandbox).wrapped_by(WITHOUT_FILES).witness(&Witness::new()).start();
    candidate.wait_for_log("File too large");
    candidate.wait_for_log("raise the limit of file sizes (ulimit -f)");
    let other = ElectCmd::new(&sandbox).witness(&Witness::new()).start();
    sandbox.starts(1);
    other.terminate();
    throughout(Duration::from_secs(2), "it does not lead", || sandbox.history().starts.len() == 1);
    candidate.terminate();
    sandbox.is_left_empty();
}

#[test]
fn a_leader_that_may_write_no_more_leads_on_and_hands_over() {
    let sandbox = Sandbox::new();
    let ignoring = ["bash", "-c", r#"trap "" XFSZ; exec 2> >(exec cat >&2); exec "$@""#, "bash"];
    let leader = ElectCmd::new(&sandbox).wrapped_by(ignoring).witness(&Witness::new()).start();
    let led = sandbox.starts(1).latest();
    for pid in [leader.pid(), leader.keeper()] {
        let set = std::process::Command::new("prlimit").args(["--fsize=0", "--pid", &pid.to_string()]).status();
        assert!(set.expect("prlimit is there").success());
    }
    // The file that says under which path it was locked cannot be repaired either.
    fs::write(sandbox.lock_file(), "").expect("it is there");
    throughout(Duration::from_secs(3), "it leads on", || processes::is_alive(led.pid));
    let next = ElectCmd::new(&sandbox).witness(&Witness::new()).start();
    next.wait_until_waiting();
    leader.signal(Signal::SIGKILL);
    sandbox.starts(2);
    next.terminate();
    until("the killed one is gone", || leader.all().is_empty());
    sandbox.history().is_safe();
    sandbox.is_left_empty();
}
