//! The resources that elect obtains from the kernel at start: threads, descriptors, signal handlers (DESIGN.md K13).
//!
//! Libraries panic where the kernel refuses a descriptor. At start the cause is a limit that is too low, and one sentence
//! reports it; later elect needs no resource whose refusal could be a panic.

use std::any::Any;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::panic::PanicHookInfo;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit};

use crate::exit::Exit;
use elect_core::Time;
use elect_keeper::{clock, release_startup_pages};

/// Why elect cannot be set up. Exit status 125.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// Too few descriptors are free.
    #[error("{needed} more open files are needed and only {free} can be had: {error}; raise the limit (ulimit -n)")]
    Descriptors {
        /// As many as elect opens at most.
        needed: usize,
        /// As many as the kernel gave.
        free: usize,
        /// Its error then.
        error: io::Error,
    },
    /// No thread.
    #[error("{error}; {}", advice(error))]
    Thread {
        /// For what, and why not.
        error: io::Error,
    },
    /// No poll, or no timer.
    #[error("the runtime cannot be started: {0}; see ulimit -a for a limit that is too low")]
    Runtime(io::Error),
}

fn advice(error: &io::Error) -> &'static str {
    #[expect(clippy::wildcard_enum_match_arm, reason = "every other error is the limit on processes or memory")]
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "allow clone3 in the filter for system calls (seccomp), or have it answer ENOSYS"
        }
        _ => "raise the limit on processes (ulimit -u, or TasksMax= of a systemd unit)",
    }
}

/// Makes sure that so many more descriptors can be opened.
///
/// # Errors
///
/// [`SetupError::Descriptors`].
pub fn demand_descriptors(needed: usize) -> Result<(), SetupError> {
    let mut opened: Vec<File> = Vec::with_capacity(needed);
    while opened.len() < needed {
        match File::open("/proc/self/stat") {
            Ok(file) => opened.push(file),
            Err(error) => return Err(SetupError::Descriptors { needed, free: opened.len(), error }),
        }
    }
    Ok(())
}

/// Descriptors that connections from outside leave free: for a reconnect to the store, and for the files that it needs.
const DESCRIPTORS_RESERVED: u64 = 8;

/// Whether a connection from outside has taken one of the last descriptors, which are not for it: the kernel gives the
/// lowest number that is free.
pub fn is_reserved(connection: &impl AsRawFd) -> bool {
    let number = u64::try_from(connection.as_raw_fd()).unwrap_or_default();
    getrlimit(Resource::RLIMIT_NOFILE).is_ok_and(|(soft, _)| number.saturating_add(DESCRIPTORS_RESERVED) >= soft)
}

/// The start is over after this time, if something happens at all.
const STARTUP_TIME: Duration = Duration::from_secs(2);
/// Connections and a first term may take longer. By then all of it is over, and pages that it has used go once more.
const FIRST_TERM_TIME: Duration = Duration::from_secs(10);

/// The pages of memory that only the start needs.
#[derive(Debug)]
pub struct StartupPages {
    /// The times at which they are given back, the last one first.
    needed_until: Vec<Time>,
}

impl StartupPages {
    /// From the start on.
    pub fn new() -> StartupPages {
        let now = clock::now();
        StartupPages { needed_until: vec![now + FIRST_TERM_TIME, now + STARTUP_TIME] }
    }

    /// Gives them back, twice, and not in the middle of a kill.
    pub fn release_if_over(&mut self, is_killing: bool) {
        if !is_killing && self.needed_until.pop_if(|until| clock::now() >= *until).is_some() {
            release_startup_pages();
        }
    }
}

/// While it lives, a panic ends elect with one sentence and exit status 125. For what other processes may use up after
/// [`demand_descriptors`]: open files of the whole system, memory of the kernel.
#[derive(Debug)]
#[must_use]
pub struct Setup(());

impl Setup {
    /// Until it is dropped. The sentence is passed to `report`.
    pub fn begin(report: fn(&str)) -> Setup {
        std::panic::set_hook(Box::new(move |panic| end(panic, report)));
        Setup(())
    }
}

impl Drop for Setup {
    fn drop(&mut self) {
        // Not while panicking, and then the process has ended before.
        drop(std::panic::take_hook());
    }
}

fn end(panic: &PanicHookInfo<'_>, report: fn(&str)) {
    let why = said(panic.payload()).lines().next().unwrap_or_default();
    report(&format!("the setup failed, perhaps for a limit that is too low (see ulimit -a): {why}"));
    std::process::exit(Exit::Failed as i32);
}

fn said(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("a library has panicked")
}
