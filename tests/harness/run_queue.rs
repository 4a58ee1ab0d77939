//! How long processes wait for a processor, by the kernel's own account (`/proc/PID/task/TID/schedstat`).

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use super::processes;
use super::wait::now;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(500);
/// Looks that are kept: an hour and more.
const LOOKS_MAX: usize = 10_000;

/// When a look was taken, and the longest wait of any thread since the one before.
type Looks = Mutex<VecDeque<(Duration, Duration)>>;

/// Watches everything below this process from the first call on. What it returns is asked for the longest wait since a time.
pub fn watched() -> impl Fn(Duration) -> Duration {
    static LOOKS: OnceLock<&'static Looks> = OnceLock::new();
    let looks = LOOKS.get_or_init(|| {
        let looks: &'static Looks = Box::leak(Box::default());
        thread::spawn(|| watch(looks));
        looks
    });
    |began| {
        let looks = looks.lock().unwrap_or_else(PoisonError::into_inner);
        looks.iter().rev().take_while(|(at, _)| *at >= began).map(|(_, longest)| *longest).max().unwrap_or_default()
    }
}

fn watch(looks: &Looks) {
    let own = i32::try_from(std::process::id()).expect("process ids are small");
    let mut before = HashMap::new();
    loop {
        thread::sleep(PAUSE);
        let waits: HashMap<String, Duration> = descendants(own).into_iter().flat_map(waits_of).collect();
        let grown =
            waits.iter().map(|(thread, wait)| wait.saturating_sub(before.get(thread).copied().unwrap_or_default()));
        let longest = grown.max().unwrap_or_default();
        before = waits;
        let mut looks = looks.lock().unwrap_or_else(PoisonError::into_inner);
        if looks.len() == LOOKS_MAX {
            looks.pop_front();
        }
        looks.push_back((now(), longest));
    }
}

fn descendants(of: i32) -> Vec<i32> {
    let mut all = processes::children(of);
    let mut next = 0;
    while next < all.len() {
        all.extend(processes::children(all[next]));
        next += 1;
    }
    all
}

/// Of each thread, since its start.
fn waits_of(pid: i32) -> Vec<(String, Duration)> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    threads
        .filter_map(|thread| {
            let said = fs::read_to_string(thread.path().join("schedstat")).ok()?;
            let nanos = said.split(' ').nth(1)?.parse().ok()?;
            Some((thread.path().display().to_string(), Duration::from_nanos(nanos)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::until;

    #[test]
    fn waits_of_children_are_seen() {
        let waits = watched();
        let began = now();
        // More than any machine here has processors.
        let mut children: Vec<_> = (0..thread::available_parallelism().map_or(8, usize::from) * 3)
            .map(|_| {
                let mut command = std::process::Command::new("sh");
                command.args(["-c", "while :; do :; done"]).spawn().expect("sh is there")
            })
            .collect();
        until("one of them has waited", || waits(began) > Duration::from_millis(20));
        for child in &mut children {
            child.kill().expect("a child of ours");
            child.wait().expect("a child of ours");
        }
    }
}
