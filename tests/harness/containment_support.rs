//! The tiers of containment (K7), and which of them are available where the tests run.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::{ElectCmd, Sandbox};

/// The tiers that are available here. The others are refused by name, or this fails.
#[track_caller]
pub fn tiers() -> Vec<&'static str> {
    ["cgroup", "pidns", "tree"].into_iter().filter(|tier| is_to_be_had(tier)).collect()
}

/// Whether it is, told without elect; and if it is not, that elect says so in one line and runs nothing.
#[track_caller]
pub fn is_to_be_had(tier: &str) -> bool {
    let is_to_be_had = match tier {
        "cgroup" => can_have_a_cgroup(),
        "pidns" => can_have_a_namespace(),
        _ => true,
    };
    if !is_to_be_had {
        let sandbox = Sandbox::new();
        let ended = ElectCmd::new(&sandbox).flag("--containment", tier).command(["touch", "started"]).run();
        assert!(matches!(ended.status.code(), Some(77 | 125)), "{ended:?}");
        assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
        ended.stderr_contains(&[&format!("--containment {tier}")]);
        println!("figures: the tier {tier} is not to be had here: {}", ended.stderr.trim());
    }
    is_to_be_had
}

/// A child is moved into a new one and back.
fn can_have_a_cgroup() -> bool {
    let Some(own) = own_cgroup() else { return false };
    let trial = own.join(format!("trial-{}-{:?}", std::process::id(), std::thread::current().id()));
    if fs::create_dir(&trial).is_err() {
        return false;
    }
    let mut child = Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().expect("sleep is there");
    let moved = fs::write(trial.join("cgroup.procs"), child.id().to_string()).is_ok();
    let killable = trial.join("cgroup.kill").exists();
    child.kill().expect("a child of ours");
    child.wait().expect("a child of ours");
    fs::remove_dir(&trial).expect("nobody is in it");
    moved && killable
}

fn can_have_a_namespace() -> bool {
    let unshared = Command::new("unshare").args(["--pid", "--fork", "true"]).stderr(Stdio::null()).status();
    unshared.expect("unshare is there").success()
}

/// Where the tests are in the unified hierarchy, and so whoever they start.
pub fn own_cgroup() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("read");
    let mount = mounts.lines().find(|line| line.contains(" - cgroup2 "))?;
    let cgroups = fs::read_to_string("/proc/self/cgroup").expect("read");
    let own = cgroups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let [root, point] = [3, 4].map(|word| mount.split(' ').nth(word).expect("a word"));
    let below = PathBuf::from("/").join(own);
    Some(PathBuf::from(point).join(below.strip_prefix(root).ok()?))
}

/// Removes the leaves that the next candidate in this cgroup would remove: there may be none.
pub fn clear_away(candidate: i32) {
    // Their processes may not have ended yet.
    for _ in 0..1000 {
        if leaves(candidate).iter().all(|leaf| fs::remove_dir(leaf).is_ok()) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

/// The leaves that a candidate made.
pub fn leaves(candidate: i32) -> Vec<PathBuf> {
    let prefix = format!("elect-{candidate}-");
    let listed = own_cgroup().and_then(|own| fs::read_dir(own).ok());
    listed
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix)))
        .collect()
}
