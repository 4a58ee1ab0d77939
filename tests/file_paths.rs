//! A lock directory whose path suddenly leads elsewhere: through links, renames, mounts, and deletions.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::candidate::elect;
use crate::harness::executables;
use crate::harness::host_tools::{as_root, clean_up};
use crate::harness::wait::throughout;
use crate::harness::{ElectCmd, Sandbox, Witness, is_long, processes, side_by_side, until};

/// How often the two schedules are tried that led to two leaders at once in elect 0.1.0.
const KNOWN_RUNS: usize = 20;
/// So many runs at once.
const BATCH: usize = 5;
const USER: u32 = 47_301;
const OTHER_USER: u32 = 47_302;

/// How a place is laid out: the directory as given, and what happens to it.
#[derive(Clone, Copy)]
struct PathLoss {
    /// Makes the directory; returns the path that `--store` gets.
    lay_out: fn(&Sandbox) -> PathBuf,
    strike: fn(&Sandbox),
}

fn behind_a_link(sandbox: &Sandbox) -> PathBuf {
    fs::create_dir(sandbox.locks()).expect("an empty place");
    let link = sandbox.path().join("link");
    symlink("locks", &link).expect("a link");
    link
}

/// As `/var/run` and `/var/lock` are on most hosts: a link in the middle of the path, to another link.
fn behind_two_links(sandbox: &Sandbox) -> PathBuf {
    fs::create_dir_all(sandbox.path().join("run/lock/elect")).expect("an empty place");
    symlink(sandbox.path().join("run/lock"), sandbox.path().join("lock")).expect("a link");
    fs::create_dir(sandbox.path().join("var")).expect("an empty place");
    symlink("../lock", sandbox.path().join("var/lock")).expect("a link");
    sandbox.path().join("var/lock/elect")
}

fn without_links(sandbox: &Sandbox) -> PathBuf {
    fs::create_dir(sandbox.locks()).expect("an empty place");
    sandbox.locks()
}

fn below_a_parent(sandbox: &Sandbox) -> PathBuf {
    fs::create_dir_all(sandbox.path().join("parent/locks")).expect("an empty place");
    sandbox.path().join("parent/locks")
}

fn empty(directory: &Path) {
    for entry in fs::read_dir(directory).expect("the directory is there") {
        fs::remove_file(entry.expect("an entry").path()).expect("a file of the store");
    }
}

fn replace(path: &Path) {
    fs::rename(path, path.with_file_name("gone")).expect("it is there");
    fs::create_dir_all(path).expect("the place is free");
}

const EMPTIED: PathLoss = PathLoss { lay_out: behind_a_link, strike: |sandbox| empty(&sandbox.locks()) };
const RENAMED: PathLoss = PathLoss { lay_out: behind_a_link, strike: |sandbox| replace(&sandbox.locks()) };
const RENAMED_WITHOUT_A_LINK: PathLoss =
    PathLoss { lay_out: without_links, strike: |sandbox| replace(&sandbox.locks()) };
const LOCK_DELETED: PathLoss =
    PathLoss { lay_out: behind_a_link, strike: |sandbox| fs::remove_file(sandbox.lock_file()).expect("it is there") };
const PARENT_RENAMED: PathLoss = PathLoss {
    lay_out: below_a_parent,
    strike: |sandbox| {
        fs::rename(sandbox.path().join("parent"), sandbox.path().join("gone")).expect("it is there");
        fs::create_dir_all(sandbox.path().join("parent/locks")).expect("the place is free");
    },
};
const EMPTIED_BEHIND_TWO_LINKS: PathLoss =
    PathLoss { lay_out: behind_two_links, strike: |sandbox| empty(&sandbox.path().join("run/lock/elect")) };
const REMOVED_BEHIND_TWO_LINKS: PathLoss = PathLoss {
    lay_out: behind_two_links,
    strike: |sandbox| fs::remove_dir_all(sandbox.path().join("run/lock/elect")).expect("it is there"),
};

/// A leader that is alive notices; nobody else leads before its tree is gone.
fn is_noticed(runs: usize, loss: PathLoss) {
    let mut overlaps = 0;
    for batch in (0..runs).step_by(BATCH) {
        overlaps += side_by_side(BATCH.min(runs - batch), || {
            let sandbox = Sandbox::new();
            let store = format!("file:{}", (loss.lay_out)(&sandbox).display());
            let witness = Witness::new().daemon().stubborn();
            let candidate = || {
                ElectCmd::new(&sandbox).store(store.clone()).flag("--stop-timeout", "300ms").witness(&witness).start()
            };
            let first = candidate();
            sandbox.history_when("the grandchild", |history| !history.grandchildren.is_empty());
            (loss.strike)(&sandbox);
            let second = candidate();
            sandbox.starts(2);
            first.wait_for_log("leadership lost");
            first.terminate();
            second.terminate();
            sandbox.is_left_empty();
            let terms: Vec<u64> = sandbox.history().starts.iter().map(|start| start.term).collect();
            assert!(terms.is_sorted_by(|earlier, later| earlier < later), "{terms:?}");
            sandbox.history().overlaps.len()
        })
        .into_iter()
        .sum::<usize>();
    }
    println!("figures: {runs} runs, overlaps {overlaps}");
    assert_eq!(overlaps, 0);
}

/// A leader whose campaigner stands still cannot notice: its command keeps the others out.
fn is_found(loss: PathLoss) {
    let sandbox = Sandbox::new();
    let store = format!("file:{}", (loss.lay_out)(&sandbox).display());
    let candidate =
        || ElectCmd::new(&sandbox).store(store.clone()).witness(&Witness::new().daemon().stubborn()).start();
    let leader = candidate();
    sandbox.history_when("the grandchild", |history| !history.grandchildren.is_empty());
    leader.signal(Signal::SIGSTOP);
    (loss.strike)(&sandbox);
    let newcomer = candidate();
    newcomer.wait_for_log("the lock file is a new one; on the old one the lock is held");
    // Longer than any candidate waits that finds nobody.
    throughout(Duration::from_secs(4), "it does not lead", || sandbox.history().starts.len() == 1);
    leader.signal(Signal::SIGCONT);
    sandbox.starts(2);
    leader.terminate();
    newcomer.terminate();
    sandbox.history().is_safe();
    sandbox.is_left_empty();
}

#[test]
fn a_directory_behind_a_link_that_is_emptied_has_one_leader() {
    is_noticed(KNOWN_RUNS, EMPTIED);
}

#[test]
fn a_directory_that_is_renamed_and_made_anew_has_one_leader() {
    is_noticed(KNOWN_RUNS, RENAMED_WITHOUT_A_LINK);
}

#[test]
fn a_directory_that_is_lost_in_other_ways_has_one_leader() {
    for loss in [RENAMED, LOCK_DELETED, PARENT_RENAMED, EMPTIED_BEHIND_TWO_LINKS, REMOVED_BEHIND_TWO_LINKS] {
        is_noticed(if is_long() { KNOWN_RUNS } else { 2 }, loss);
    }
}

#[test]
fn a_leader_that_cannot_notice_is_found_by_its_lock() {
    let losses = [EMPTIED, RENAMED, RENAMED_WITHOUT_A_LINK, LOCK_DELETED, PARENT_RENAMED, EMPTIED_BEHIND_TWO_LINKS];
    std::thread::scope(|scope| {
        let all: Vec<_> = losses.iter().map(|&loss| scope.spawn(move || is_found(loss))).collect();
        for one in all {
            one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    });
}

/// A directory that is mounted over another for as long as this lives.
struct MountOver(String);

impl MountOver {
    fn mount(below: &Path, over: &Path) -> MountOver {
        let (below, over) = (below.display().to_string(), over.display().to_string());
        as_root(["mount", "--bind", &below, &over]);
        MountOver(over)
    }
}

impl Drop for MountOver {
    fn drop(&mut self) {
        clean_up(["umount", "--lazy", &self.0]);
    }
}

#[test]
fn a_directory_that_is_mounted_over_has_one_leader() {
    for is_stopped in [false, true] {
        let sandbox = Sandbox::new();
        fs::create_dir(sandbox.locks()).expect("an empty place");
        let other = sandbox.path().join("other");
        fs::create_dir(&other).expect("an empty place");
        let witness = Witness::new().daemon().stubborn();
        let candidate = || ElectCmd::new(&sandbox).flag("--stop-timeout", "300ms").witness(&witness).start();
        let first = candidate();
        sandbox.history_when("the grandchild", |history| !history.grandchildren.is_empty());
        if is_stopped {
            first.signal(Signal::SIGSTOP);
        }
        let over = MountOver::mount(&other, &sandbox.locks());
        let second = candidate();
        if is_stopped {
            second.wait_for_log("the lock file is a new one; on the old one the lock is held");
            first.signal(Signal::SIGCONT);
        }
        sandbox.starts(2);
        first.wait_for_log("leadership lost");
        first.terminate();
        second.terminate();
        sandbox.history().is_safe();
        sandbox.is_left_empty();
        drop(over);
    }
}

fn copy_of_elect(sandbox: &Sandbox) -> PathBuf {
    let binary = sandbox.path().join("elect");
    executables::copy(elect(), &binary);
    binary
}

fn as_user(uid: u32) -> Vec<String> {
    let uid = uid.to_string();
    ["setpriv", "--reuid", &uid, "--regid", &uid, "--clear-groups"].map(str::to_owned).to_vec()
}

/// The journal and the locks of the witness are for everybody then.
fn shared_place() -> Sandbox {
    let sandbox = Sandbox::new().open_to_all();
    for path in [sandbox.path().to_owned(), sandbox.path().join("life")] {
        fs::set_permissions(path, Permissions::from_mode(0o777)).expect("ours");
    }
    for name in ["journal", "followers", "witness.lock"] {
        fs::write(sandbox.path().join(name), "").expect("written");
        fs::set_permissions(sandbox.path().join(name), Permissions::from_mode(0o666)).expect("ours");
    }
    fs::create_dir(sandbox.locks()).expect("an empty place");
    fs::set_permissions(sandbox.locks(), Permissions::from_mode(0o777)).expect("ours");
    sandbox
}

/// A leader of one user, and a newcomer that may not look at its processes.
fn is_waited_for(loses: &str, newcomer: Vec<String>) {
    let sandbox = shared_place();
    let binary = copy_of_elect(&sandbox);
    let leader = ElectCmd::new(&sandbox).binary(&binary).wrapped_by(as_user(USER)).flag("--stop-timeout", "300ms");
    let leader = leader.witness(&Witness::new().daemon().stubborn()).start();
    sandbox.history_when("the grandchild", |history| !history.grandchildren.is_empty());
    // It notices when the newcomer has found it.
    leader.signal(Signal::SIGSTOP);
    until("the campaigner stands still", || processes::state(leader.pid()) == Some('T'));
    if loses == "emptied" {
        empty(&sandbox.locks());
    } else {
        replace(&sandbox.locks());
        fs::set_permissions(sandbox.locks(), Permissions::from_mode(0o777)).expect("ours");
    }
    let next = ElectCmd::new(&sandbox).binary(&binary).wrapped_by(newcomer).witness(&Witness::new()).start();
    next.wait_for_log("a leader has 3 s to notice, because");
    leader.signal(Signal::SIGCONT);
    leader.wait_for_log("leadership lost");
    sandbox.starts(2);
    leader.terminate();
    // The first process of a namespace does not pass a signal on.
    drop(next);
    assert_eq!(sandbox.history().overlaps, [], "{loses}");
    sandbox.is_left_empty();
}

#[test]
fn a_candidate_that_may_not_look_at_all_holders_gives_a_leader_the_time_to_notice() {
    // `unshare` first, since it takes root; the keeper of the namespace dies with its first process.
    let hidden = |option: &str| {
        let script = format!("mount -t proc -o {option} proc /proc && exec \"$@\"");
        let words = ["unshare", "--mount", "sh", "-c", &script, "sh"].map(str::to_owned).to_vec();
        [words, as_user(OTHER_USER)].concat()
    };
    let in_pid_namespace = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"].map(str::to_owned).to_vec();
    std::thread::scope(|scope| {
        scope.spawn(|| is_waited_for("emptied", as_user(OTHER_USER)));
        scope.spawn(|| is_waited_for("renamed", as_user(OTHER_USER)));
        scope.spawn(|| is_waited_for("emptied", hidden("hidepid=2")));
        scope.spawn(|| is_waited_for("emptied", hidden("hidepid=1")));
        scope.spawn(|| is_waited_for("renamed", in_pid_namespace));
    });
}

#[test]
fn a_user_whose_directory_is_lost_has_one_leader_too() {
    let sandbox = shared_place();
    chown(sandbox.locks(), Some(USER), Some(USER)).expect("root may");
    fs::set_permissions(sandbox.locks(), Permissions::from_mode(0o700)).expect("ours");
    let binary = copy_of_elect(&sandbox);
    let candidate = || {
        let candidate =
            ElectCmd::new(&sandbox).binary(&binary).wrapped_by(as_user(USER)).flag("--stop-timeout", "300ms");
        candidate.witness(&Witness::new().daemon().stubborn()).start()
    };
    let leader = candidate();
    sandbox.history_when("the grandchild", |history| !history.grandchildren.is_empty());
    leader.signal(Signal::SIGSTOP);
    empty(&sandbox.locks());
    let next = candidate();
    next.wait_for_log("the lock file is a new one; on the old one the lock is held");
    throughout(Duration::from_secs(4), "it does not lead", || sandbox.history().starts.len() == 1);
    leader.signal(Signal::SIGCONT);
    sandbox.starts(2);
    leader.terminate();
    next.terminate();
    sandbox.history().is_safe();
    sandbox.is_left_empty();
}

#[test]
fn a_lock_file_that_is_there_is_taken_without_a_look_at_other_processes() {
    let sandbox = Sandbox::new();
    let script = r#"strace -f -qq -e trace=openat -o "$TRACE" "$@""#;
    let trace = sandbox.path().join("trace");
    let mut looks = Vec::new();
    for _ in 0..2 {
        let elect = ElectCmd::new(&sandbox)
            .wrapped_by(["sh", "-c", script, "sh"])
            .variable("TRACE", &trace.display().to_string());
        let ended = elect.switch("-q").flag("--containment", "tree").command(["true"]).run();
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
        let opened = fs::read_to_string(&trace).expect("a trace");
        looks.push(opened.lines().filter(|line| line.contains("/proc/1/fd")).count());
    }
    assert!(
        looks[0] > 0 && looks[1] == 0,
        "{looks:?}: for a lock file that had to be made, and for one that was there"
    );
}
