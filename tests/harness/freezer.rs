//! A cgroup that freezes a candidate as a whole: campaigner, keeper and command, as `docker pause` or a suspended machine does.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::containment_support::own_cgroup;
use super::until;

/// A cgroup (v2) of its own. Processes in it stand still between [`Freezer::freeze`] and [`Freezer::thaw`]; a signal, also
/// SIGKILL to the whole group, ends them nevertheless.
#[derive(Debug)]
pub struct Freezer {
    group: PathBuf,
}

impl Freezer {
    /// `None` where the tests may not create a cgroup below their own.
    pub fn new() -> Option<Freezer> {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let group = own_cgroup()?.join(format!("freezer-{}-{number}", std::process::id()));
        fs::create_dir(&group).ok()?;
        let freezer = Freezer { group };
        freezer.group.join("cgroup.freeze").exists().then_some(freezer)
    }

    /// The words before a command that shall live in it.
    pub fn words(&self) -> Vec<String> {
        let members = self.group.join("cgroup.procs").display().to_string();
        ["sh", "-c", "echo $$ >\"$0\" && exec \"$@\"", &members].map(str::to_owned).to_vec()
    }

    /// Nothing in it runs any more when this returns.
    #[track_caller]
    pub fn freeze(&self) {
        self.write("1");
        until("every process in the cgroup is frozen", || {
            fs::read_to_string(self.group.join("cgroup.events")).is_ok_and(|events| events.contains("frozen 1"))
        });
    }

    /// All go on at once.
    #[track_caller]
    pub fn thaw(&self) {
        self.write("0");
    }

    #[track_caller]
    fn write(&self, value: &str) {
        fs::write(self.group.join("cgroup.freeze"), value).expect("a cgroup of ours");
    }
}

impl Drop for Freezer {
    /// Its processes have got SIGKILL before, and may still be on their way out.
    fn drop(&mut self) {
        let _ = fs::write(self.group.join("cgroup.freeze"), "0");
        for _ in 0..1000 {
            let below = fs::read_dir(&self.group).into_iter().flatten().flatten().map(|entry| entry.path());
            for leaf in below.filter(|path| path.is_dir()) {
                let _ = fs::remove_dir(leaf);
            }
            if fs::remove_dir(&self.group).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        eprintln!("left behind: {}", self.group.display());
    }
}
