//! The harness of every end-to-end test: a sandbox, candidates in it, and a journal that tells which process ran when.
//!
//! ```text
//! Sandbox ── ElectCmd (builder) ── CandidateProcess ── … ── witness (the command) ── journal ── History (the verdict)
//! ```
//!
//! Nothing here sleeps for a fixed time: waits are on conditions, with a limit that no healthy machine reaches.

pub mod browser;
pub mod candidate;
pub mod certificates;
pub mod containment_support;
pub mod docs_under_test;
pub mod empty_root;
pub mod executables;
pub mod faults;
pub mod fenced_resource;
pub mod freezer;
pub mod handover_runs;
pub mod haproxy;
pub mod host_tools;
pub mod http_client;
pub mod journal;
pub mod network;
pub mod notify_receiver;
pub mod ports;
pub mod processes;
pub mod proxy;
pub mod resource_usage;
pub mod run_queue;
pub mod sandbox;
pub mod server;
pub mod server_process;
pub mod slow_link;
pub mod stalled_disk;
pub mod store_fixtures;
pub mod syscall_gate;
pub mod systemd;
pub mod terminal;
pub mod timing_verdict;
pub mod wait;
pub mod wallclock;

pub use candidate::{CandidateProcess, ElectCmd, Ended, Witness, run_until_answered};
pub use handover_runs::HandoverRuns;
pub use journal::{History, LeaderEnv, Measurements, millis};
pub use sandbox::Sandbox;
pub use wait::{eventually, until};

/// How often each fault is tried: a few times in every run, as often as the promise asks with `ELECT_LONG=1`.
pub fn runs() -> usize {
    if is_long() { 50 } else { 4 }
}

/// How often where a whole lease has to run out each time, or several servers have to be started.
pub fn few() -> usize {
    if is_long() { 20 } else { 2 }
}

/// As many at once: each in a place of its own, for what takes long to happen.
pub fn side_by_side<T: Send>(count: usize, each: impl Fn() -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..count).map(|_| scope.spawn(&each)).collect();
        all.into_iter().map(|one| one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    })
}

pub fn is_long() -> bool {
    std::env::var_os("ELECT_LONG").is_some_and(|value| value == "1")
}
