//! Limits of the process: elect works below them, or says in one sentence why it cannot, and a leader never loses its lease for one.

pub mod descriptors;
mod files;
mod filters;
mod mounts;
pub mod processes;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::harness::candidate::elect;
use crate::harness::wait::until;
use crate::harness::{ElectCmd, Ended, Sandbox};

/// A user with no process but those of one test: root has no limit on processes.
pub struct LimitedUser {
    uid: String,
    binary: PathBuf,
    crowd: Vec<Child>,
}

impl LimitedUser {
    pub fn new(sandbox: &Sandbox) -> LimitedUser {
        static NEXT: AtomicU32 = AtomicU32::new(47_300);
        assert!(nix::unistd::geteuid().is_root(), "these tests become other users: run them as root");
        // The command writes its journal here.
        fs::set_permissions(sandbox.path(), Permissions::from_mode(0o777)).expect("a directory of ours");
        for below in ["life", ""] {
            fs::set_permissions(sandbox.path().join(below), Permissions::from_mode(0o777))
                .expect("a directory of ours");
        }
        let binary = sandbox.path().join("elect");
        // By another process: one that is forked meanwhile by another test would keep this file open for writing.
        let copied = Command::new("cp").arg(elect()).arg(&binary).status().expect("cp is there");
        assert!(copied.success(), "the place takes a copy");
        LimitedUser { uid: NEXT.fetch_add(1, Ordering::Relaxed).to_string(), binary, crowd: Vec::new() }
    }

    fn becomes(&self) -> [&str; 7] {
        ["setpriv", "--reuid", &self.uid, "--regid", &self.uid, "--clear-groups", "--"]
    }

    /// elect as this user, with so many processes at most.
    pub fn runs(&self, elect: ElectCmd, processes: usize) -> ElectCmd {
        let limit = format!("--nproc={processes}");
        elect.binary(&self.binary).wrapped_by(self.becomes()).wrapped_by(["prlimit", &limit, "--"])
    }

    /// Uses up what a limit leaves to this user.
    pub fn crowds(&mut self, processes: usize) {
        for _ in 0..processes {
            let [program, words @ ..] = self.becomes();
            let sleeps = Command::new(program).args(words).args(["sleep", "600"]).stdout(Stdio::null()).spawn();
            self.crowd.push(sleeps.expect("there is room for it"));
        }
        let uid: u32 = self.uid.parse().expect("a number");
        until("all of the crowd are there", || {
            let is_there = |child: &Child| crate::harness::processes::user(child.id().cast_signed()) == Some(uid);
            self.crowd.iter().all(is_there)
        });
    }
}

impl Drop for LimitedUser {
    fn drop(&mut self) {
        for child in &mut self.crowd {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = fs::remove_dir_all(format!("/tmp/elect-{}", self.uid));
    }
}

/// It did its work, or ended with one sentence and one of these statuses; and it never panicked. Returns whether it worked.
#[track_caller]
fn is_orderly(ended: &Ended, what: &str, statuses: &[i32]) -> bool {
    assert!(!ended.stderr.contains("panicked"), "{what}: {ended:?}");
    match ended.status.code() {
        Some(0) => true,
        Some(status) if statuses.contains(&status) => {
            // Beside what it waits for, as for a record that may have been lost.
            let is_sentence =
                |line: &&str| line.contains("elect") && line.contains(": ") && !line.contains(": warning: ");
            assert_eq!(ended.stderr.lines().filter(is_sentence).count(), 1, "one sentence, {what}: {ended:?}");
            false
        }
        _ => panic!("{what}: {ended:?}"),
    }
}

/// An example beside the program.
fn example(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_elect")).with_file_name("examples").join(name);
    assert!(path.exists(), "{} is missing: cargo build --examples makes it", path.display());
    path
}

/// Makes tests of those that every kind of server has to stand.
macro_rules! limit_tests {
    ($server:ty) => {
        #[test]
        fn a_limit_at_which_elect_starts_is_enough() {
            crate::resource_limits::descriptors::a_limit_at_which_elect_starts_is_enough::<$server>();
        }
        #[test]
        fn a_leader_reconnects_after_its_descriptors_ran_out() {
            crate::resource_limits::descriptors::a_leader_reconnects_after_its_descriptors_ran_out::<$server>();
        }
        #[test]
        fn a_low_limit_is_one_sentence_or_none_at_all() {
            crate::resource_limits::processes::a_low_limit_is_one_sentence_or_none_at_all::<$server>();
        }
        #[test]
        fn a_leader_reconnects_while_no_thread_can_be_made() {
            crate::resource_limits::processes::a_leader_reconnects_while_no_thread_can_be_made::<$server>();
        }
    };
}
pub(crate) use limit_tests;
