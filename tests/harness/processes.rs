//! Processes as `/proc` shows them.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicI32, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// In the environment of everything that a test starts, so that whoever survives is found, wherever it went.
pub const MARK: &str = "WITNESS_MARK";

/// Prints the command line of everybody who works in this place, once: other tests are other people's business.
pub const CONFESS: &str = "for each in /proc/[0-9]*; do grep -qsz \"^WITNESS_MARK=$WITNESS_PLACE/\" $each/environ && \
    tr '\\0' ' ' <$each/cmdline && echo; done 2>/dev/null; :";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessInfo {
    pub pid: i32,
    pub name: String,
}

/// Everybody whose mark begins with `mark`. The dead that nobody has reaped have no environment and do not count.
pub fn marked(mark: &str) -> Vec<ProcessInfo> {
    let wanted = format!("{MARK}={mark}");
    let is_marked = |pid: i32| {
        fs::read(format!("/proc/{pid}/environ"))
            .is_ok_and(|environment| environment.split(|&byte| byte == 0).any(|one| one.starts_with(wanted.as_bytes())))
    };
    fs::read_dir("/proc")
        .expect("/proc is there")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|&pid| is_marked(pid))
        .map(|pid| ProcessInfo { pid, name: name(pid).unwrap_or_default() })
        .collect()
}

/// SIGKILL to everybody with the mark, until nobody is left.
pub fn kill_marked(mark: &str) {
    for _ in 0..1000 {
        let left = marked(mark);
        if left.is_empty() {
            return;
        }
        for process in left {
            signal(process.pid, Signal::SIGKILL);
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

pub fn name(pid: i32) -> Option<String> {
    fs::read_to_string(format!("/proc/{pid}/comm")).ok().map(|name| name.trim().to_owned())
}

/// `R`, `S`, `T`, `Z` and so on; `None` when it is gone.
pub fn state(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(") ").next()?.chars().next()
}

/// A number from `/proc/<pid>/stat`, counted from the state: 1 is the parent, 2 the group, 5 the
/// foreground group of its terminal.
pub fn stat(pid: i32, field: usize) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(") ").next()?.split(' ').nth(field)?.parse().ok()
}

/// When it was started, in clock ticks since boot.
pub fn started(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(") ").next()?.split(' ').nth(19)?.parse().ok()
}

/// Whether a thread of it waits in the kernel and cannot be killed there (D state).
pub fn is_stuck(pid: i32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    threads
        .filter_map(|thread| fs::read_to_string(thread.path().join("stat")).ok())
        .any(|stat| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('D')))
}

/// Whether it exists and is not waiting to be reaped.
pub fn is_alive(pid: i32) -> bool {
    state(pid).is_some_and(|state| state != 'Z' && state != 'X')
}

pub fn children(pid: i32) -> Vec<i32> {
    fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("children")).ok())
        .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect()
}

/// The user of the process.
pub fn user(pid: i32) -> Option<u32> {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(format!("/proc/{pid}")).ok().map(|process| process.uid())
}

/// To one process that may be gone by now.
pub fn signal(pid: i32, signal: Signal) {
    assert!(pid > 1, "a signal to {pid} would reach others");
    // Gone already: nothing to tell.
    let _ = kill(Pid::from_raw(pid), signal);
}

/// The process that holds an end of a connection, among those on this machine.
pub fn owner(client: &TcpStream, pids: &[AtomicI32]) -> Option<usize> {
    let (here, there) = (client.local_addr().ok()?.port(), client.peer_addr().ok()?.port());
    // Port numbers are the last four digits.
    let (from, to) = (format!(":{there:04X}"), format!(":{here:04X}"));
    let connections = BufReader::new(File::open("/proc/net/tcp").expect("/proc is there"));
    let inode = connections.lines().map_while(Result::ok).find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let is_it = words.get(1)?.ends_with(&from) && words.get(2)?.ends_with(&to);
        is_it.then(|| format!("socket:[{}]", words.get(9).copied().unwrap_or_default()))
    })?;
    let has_it = |pid: &AtomicI32| {
        let descriptors = fs::read_dir(format!("/proc/{}/fd", pid.load(Ordering::SeqCst)));
        descriptors
            .into_iter()
            .flatten()
            .flatten()
            .any(|one| fs::read_link(one.path()).is_ok_and(|to| to == Path::new(&inode)))
    };
    pids.iter().position(has_it)
}
