//! What a process costs.

use std::fs;
use std::time::Duration;

use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Of all its threads, since its start.
    pub cpu: Duration,
    /// Bytes of memory, the program's own pages included.
    pub resident: u64,
}

impl Usage {
    #[track_caller]
    pub fn of(pid: i32) -> Usage {
        let clock = clock_getcpuclockid(Pid::from_raw(pid)).expect("a process that is there");
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process that is there");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process that has not ended");
        let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
        Usage { cpu: clock_gettime(clock).expect("a process that is there").into(), resident: kilobytes << 10 }
    }
}
