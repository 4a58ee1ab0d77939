//! A lock directory whose path leads elsewhere all of a sudden: through links, renames, mounts, and deletions.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::candidate::elect;
use crate::harness::tool::{as_root, clean_up};
use crate::harness::wait::throughout;
use crate::harness::{Elect, Place, Witness, is_long, side_by_side};

/// How often the two schedules are tried that led to two leaders at once in elect 0.1.0.
const KNOWN_RUNS: usize = 20;
/// So many runs at once.
const BATCH: usize = 5;
const USER: u32 = 47_301;
const OTHER_USER: u32 = 47_302;

/// How a place is laid out: the directory as given, and what happens to it.
#[derive(Clone, Copy)]
struct Loss {
    /// Makes the directory; returns the path that `--store` gets.
    lay_out: fn(&Place) -> PathBuf,
    strike: fn(&Place),
}

fn behind_a_link(place: &Place) -> PathBuf {
    fs::create_dir(place.locks()).expect("an empty place");
    let link = place.path().join("link");
    symlink("locks", &link).expect("a link");
    link
}

/// As `/var/run` and `/var/lock` are on most hosts: a link in the middle of the path, to another link.
fn behind_two_links(place: &Place) -> PathBuf {
    fs::create_dir_all(place.path().join("run/lock/elect")).expect("an empty place");
    symlink(place.path().join("run/lock"), place.path().join("lock")).expect("a link");
    fs::create_dir(place.path().join("var")).expect("an empty place");
    symlink("../lock", place.path().join("var/lock")).expect("a link");
    place.path().join("var/lock/elect")
}

fn without_links(place: &Place) -> PathBuf {
    fs::create_dir(place.locks()).expect("an empty place");
    place.locks()
}

fn below_a_parent(place: &Place) -> PathBuf {
    fs::create_dir_all(place.path().join("parent/locks")).expect("an empty place");
    place.path().join("parent/locks")
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

const EMPTIED: Loss = Loss { lay_out: behind_a_link, strike: |place| empty(&place.locks()) };
const RENAMED: Loss = Loss { lay_out: behind_a_link, strike: |place| replace(&place.locks()) };
const RENAMED_WITHOUT_A_LINK: Loss = Loss { lay_out: without_links, strike: |place| replace(&place.locks()) };
const LOCK_DELETED: Loss =
    Loss { lay_out: behind_a_link, strike: |place| fs::remove_file(place.lock_file()).expect("it is there") };
const PARENT_RENAMED: Loss = Loss {
    lay_out: below_a_parent,
    strike: |place| {
        fs::rename(place.path().join("parent"), place.path().join("gone")).expect("it is there");
        fs::create_dir_all(place.path().join("parent/locks")).expect("the place is free");
    },
};
const EMPTIED_BEHIND_TWO_LINKS: Loss =
    Loss { lay_out: behind_two_links, strike: |place| empty(&place.path().join("run/lock/elect")) };
const REMOVED_BEHIND_TWO_LINKS: Loss = Loss {
    lay_out: behind_two_links,
    strike: |place| fs::remove_dir_all(place.path().join("run/lock/elect")).expect("it is there"),
};

/// A leader that is alive notices; nobody else leads before its tree is gone.
fn is_noticed(runs: usize, loss: Loss) {
    let mut overlaps = 0;
    for batch in (0..runs).step_by(BATCH) {
        overlaps += side_by_side(BATCH.min(runs - batch), || {
            let place = Place::new();
            let store = format!("file:{}", (loss.lay_out)(&place).display());
            let witness = Witness::new().daemon().stubborn();
            let candidate =
                || Elect::new(&place).store(store.clone()).flag("--stop-timeout", "300ms").witness(&witness).start();
            let first = candidate();
            place.history_when("the grandchild", |history| !history.grandchildren.is_empty());
            (loss.strike)(&place);
            let second = candidate();
            place.starts(2);
            first.says("leadership lost");
            first.stops();
            second.stops();
            place.is_left_empty();
            let terms: Vec<u64> = place.history().starts.iter().map(|start| start.term).collect();
            assert!(terms.is_sorted_by(|earlier, later| earlier < later), "{terms:?}");
            place.history().overlaps.len()
        })
        .into_iter()
        .sum::<usize>();
    }
    println!("figures: {runs} runs, overlaps {overlaps}");
    assert_eq!(overlaps, 0);
}

/// A leader whose campaigner stands still cannot notice: its command keeps the others out.
fn is_found(loss: Loss) {
    let place = Place::new();
    let store = format!("file:{}", (loss.lay_out)(&place).display());
    let candidate = || Elect::new(&place).store(store.clone()).witness(&Witness::new().daemon().stubborn()).start();
    let leader = candidate();
    place.history_when("the grandchild", |history| !history.grandchildren.is_empty());
    leader.signal(Signal::SIGSTOP);
    (loss.strike)(&place);
    let newcomer = candidate();
    newcomer.says("the lock file is a new one; on the old one the lock is held");
    // Longer than any candidate waits that finds nobody.
    throughout(Duration::from_secs(4), "it does not lead", || place.history().starts.len() == 1);
    leader.signal(Signal::SIGCONT);
    place.starts(2);
    leader.stops();
    newcomer.stops();
    place.history().is_safe();
    place.is_left_empty();
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
struct Over(String);

impl Over {
    fn mount(below: &Path, over: &Path) -> Over {
        let (below, over) = (below.display().to_string(), over.display().to_string());
        as_root(["mount", "--bind", &below, &over]);
        Over(over)
    }
}

impl Drop for Over {
    fn drop(&mut self) {
        clean_up(["umount", "--lazy", &self.0]);
    }
}

#[test]
fn a_directory_that_is_mounted_over_has_one_leader() {
    for is_stopped in [false, true] {
        let place = Place::new();
        fs::create_dir(place.locks()).expect("an empty place");
        let other = place.path().join("other");
        fs::create_dir(&other).expect("an empty place");
        let witness = Witness::new().daemon().stubborn();
        let candidate = || Elect::new(&place).flag("--stop-timeout", "300ms").witness(&witness).start();
        let first = candidate();
        place.history_when("the grandchild", |history| !history.grandchildren.is_empty());
        if is_stopped {
            first.signal(Signal::SIGSTOP);
        }
        let over = Over::mount(&other, &place.locks());
        let second = candidate();
        if is_stopped {
            second.says("the lock file is a new one; on the old one the lock is held");
            first.signal(Signal::SIGCONT);
        }
        place.starts(2);
        first.says("leadership lost");
        first.stops();
        second.stops();
        place.history().is_safe();
        place.is_left_empty();
        drop(over);
    }
}

fn copy_of_elect(place: &Place) -> PathBuf {
    let binary = place.path().join("elect");
    fs::copy(elect(), &binary).expect("the place takes a copy");
    binary
}

fn as_user(uid: u32) -> Vec<String> {
    let uid = uid.to_string();
    ["setpriv", "--reuid", &uid, "--regid", &uid, "--clear-groups"].map(str::to_owned).to_vec()
}

/// The journal and the locks of the witness are for everybody then.
fn shared_place() -> Place {
    let place = Place::new().open_to_all();
    for path in [place.path().to_owned(), place.path().join("life")] {
        fs::set_permissions(path, Permissions::from_mode(0o777)).expect("ours");
    }
    for name in ["journal", "followers", "witness.lock"] {
        fs::write(place.path().join(name), "").expect("written");
        fs::set_permissions(place.path().join(name), Permissions::from_mode(0o666)).expect("ours");
    }
    fs::create_dir(place.locks()).expect("an empty place");
    fs::set_permissions(place.locks(), Permissions::from_mode(0o777)).expect("ours");
    place
}

/// A leader of one user, and a newcomer that may not look at its processes.
fn is_waited_for(loses: &str, newcomer: Vec<String>) {
    let place = shared_place();
    let binary = copy_of_elect(&place);
    let leader = Elect::new(&place).binary(&binary).under(as_user(USER)).flag("--stop-timeout", "300ms");
    let leader = leader.witness(&Witness::new().daemon().stubborn()).start();
    place.history_when("the grandchild", |history| !history.grandchildren.is_empty());
    if loses == "emptied" {
        empty(&place.locks());
    } else {
        replace(&place.locks());
        fs::set_permissions(place.locks(), Permissions::from_mode(0o777)).expect("ours");
    }
    let next = Elect::new(&place).binary(&binary).under(newcomer).witness(&Witness::new()).start();
    next.says("a leader has 3 s to notice, because");
    leader.says("leadership lost");
    place.starts(2);
    leader.stops();
    // The first process of a namespace does not pass a signal on.
    drop(next);
    assert_eq!(place.history().overlaps, [], "{loses}");
    place.is_left_empty();
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
    let place = shared_place();
    chown(place.locks(), Some(USER), Some(USER)).expect("root may");
    fs::set_permissions(place.locks(), Permissions::from_mode(0o700)).expect("ours");
    let binary = copy_of_elect(&place);
    let candidate = || {
        let candidate = Elect::new(&place).binary(&binary).under(as_user(USER)).flag("--stop-timeout", "300ms");
        candidate.witness(&Witness::new().daemon().stubborn()).start()
    };
    let leader = candidate();
    place.history_when("the grandchild", |history| !history.grandchildren.is_empty());
    leader.signal(Signal::SIGSTOP);
    empty(&place.locks());
    let next = candidate();
    next.says("the lock file is a new one; on the old one the lock is held");
    throughout(Duration::from_secs(4), "it does not lead", || place.history().starts.len() == 1);
    leader.signal(Signal::SIGCONT);
    place.starts(2);
    leader.stops();
    next.stops();
    place.history().is_safe();
    place.is_left_empty();
}

#[test]
fn a_lock_file_that_is_there_is_taken_without_a_look_at_other_processes() {
    let place = Place::new();
    let script = r#"strace -f -qq -e trace=openat -o "$TRACE" "$@""#;
    let trace = place.path().join("trace");
    let mut looks = Vec::new();
    for _ in 0..2 {
        let elect =
            Elect::new(&place).under(["sh", "-c", script, "sh"]).variable("TRACE", &trace.display().to_string());
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
