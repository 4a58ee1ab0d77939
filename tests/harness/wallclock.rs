//! A wall clock that can be stepped under a running process, and under nobody else.

use std::fs;

use tempfile::TempDir;

use super::host_tools::attempt;

#[derive(Debug)]
pub struct WallClock {
    directory: TempDir,
}

impl WallClock {
    /// As everybody else's.
    pub fn new() -> WallClock {
        let directory = tempfile::Builder::new().prefix("elect-clock-").tempdir().expect("a temporary directory");
        let clock = WallClock { directory };
        clock.step_to(0);
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/harness/wallclock.c");
        attempt(["cc", "-shared", "-fPIC", "-O1", "-o", &clock.path("clock.so"), source]).expect("cc is there");
        clock
    }

    /// So many seconds ahead.
    pub fn step_to(&self, seconds: i64) {
        // Renamed, so that nobody reads half of it.
        fs::write(self.path("new"), seconds.to_string()).expect("a directory of ours");
        fs::rename(self.path("new"), self.path("offset")).expect("a directory of ours");
    }

    /// The words before a command that shall live by it.
    pub fn words(&self) -> Vec<String> {
        let library = format!("LD_PRELOAD={}", self.path("clock.so"));
        vec!["env".to_owned(), library, format!("WALL_CLOCK_OFFSET={}", self.path("offset"))]
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }
}
