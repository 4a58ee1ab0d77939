//! The command of all that is measured, which notes when it was executed and when it ended: a small program in C, so that its own
//! start costs as little as can be.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use tempfile::TempDir;

use crate::harness::eventually;

/// Compiled once for each run.
pub fn program() -> &'static Path {
    static PROGRAM: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = PROGRAM.get_or_init(|| {
        let directory = TempDir::new().expect("a temporary directory");
        let path = directory.path().join("stamp");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/cost/stamp.c");
        let compiles = |flags: &[&str]| {
            let mut compiler = Command::new("cc");
            compiler.args(flags).arg("-O2").arg("-o").arg(&path).arg(&source).stderr(Stdio::null());
            compiler.status().is_ok_and(|status| status.success())
        };
        assert!(compiles(&["-static"]) || compiles(&[]), "a C compiler makes benches/cost/stamp.c");
        (directory, path)
    });
    path
}

/// An event of a command: its process id, and the time on the boot clock.
#[derive(Debug, Clone, Copy)]
pub struct Stamp {
    pub pid: i32,
    pub at: Duration,
}

/// The file that the commands of one contest write to.
#[derive(Debug)]
pub struct Journal(PathBuf);

impl Journal {
    pub fn in_directory(directory: &Path) -> Journal {
        Journal(directory.join("journal"))
    }

    /// The words of a command that ends at once, or only with SIGTERM.
    pub fn command(&self, holds: bool) -> Vec<String> {
        let words = [program().display().to_string(), self.0.display().to_string()];
        words.into_iter().chain(holds.then(|| "hold".to_owned())).collect()
    }

    pub fn count(&self, event: &str) -> usize {
        self.stamps(event).len()
    }

    /// The one of this number, counted from 0, once it is there.
    pub fn stamp(&self, event: &str, number: usize) -> Stamp {
        eventually(&format!("{event} {number} of a command"), || self.stamps(event).get(number).copied())
    }

    fn stamps(&self, event: &str) -> Vec<Stamp> {
        let text = fs::read_to_string(&self.0).unwrap_or_default();
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        let stamps = complete.lines().filter_map(|line| {
            let mut words = line.split(' ');
            let (kind, pid, at) = (words.next()?, words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            (kind == event).then_some(Stamp { pid, at: Duration::from_nanos(at) })
        });
        stamps.collect()
    }
}
