//! Memory, processor time and other costs of a process.

use std::fs;
use std::time::Duration;

use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResourceUsage {
    /// Of all its threads, since its start.
    pub cpu: Duration,
    /// Bytes of memory, the program's own pages included.
    pub resident: u64,
}

/// The most memory that a process of elect may ever have had, whatever it was sent.
const MEMORY_BYTES_MAX: u64 = 32 << 20;

/// Fails for a process that ever had more memory than elect may have.
#[track_caller]
pub fn is_small(what: &str, pid: i32) {
    let most = ResourceUsage::peak_memory(pid);
    println!("figures: {what}: {} MB at most", most >> 20);
    assert!(most < MEMORY_BYTES_MAX, "{what}: {} MB", most >> 20);
}

impl ResourceUsage {
    /// Bytes of memory, the program's own pages included, at the moment when it had most.
    #[track_caller]
    pub fn peak_memory(pid: i32) -> u64 {
        kilobytes(pid, "VmHWM:") << 10
    }

    #[track_caller]
    pub fn of(pid: i32) -> ResourceUsage {
        let clock = clock_getcpuclockid(Pid::from_raw(pid)).expect("a process that is there");
        let resident = kilobytes(pid, "VmRSS:") << 10;
        ResourceUsage { cpu: clock_gettime(clock).expect("a process that is there").into(), resident }
    }
}

#[track_caller]
fn kilobytes(pid: i32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process that is there");
    let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("a process that has not ended");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}
