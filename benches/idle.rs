//! What elect costs: memory and wake-ups of a candidate that waits or leads, and the time from its start to the
//! command's, beside flock(1)'s. `cargo bench` prints a table; figures, not verdicts.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "a table for people")]

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use tempfile::TempDir;

const ELECT: &str = env!("CARGO_BIN_EXE_elect");
const RUNS: usize = 50;
const WATCHED: Duration = Duration::from_secs(10);
const LIMIT: Duration = Duration::from_secs(30);

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("stamp") => println!("{}", now().as_nanos()),
        Some("--bench") => bench(),
        // cargo test builds and starts this too, and has no use for figures.
        _ => {}
    }
}

fn bench() {
    println!("\nidle, over {} s          memory (PSS)  of it private      wake-ups        CPU", WATCHED.as_secs());
    waiting();
    leading();
    println!("\nfrom start to exec, {RUNS} runs        median       maximum");
    for (where_, parent) in [("on disk", std::env::temp_dir()), ("in memory", "/dev/shm".into())] {
        let place = TempDir::new_in(parent).expect("a temporary directory");
        starting(where_, place.path());
    }
}

fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).expect("the boot clock exists").into()
}

/// A process that ends with this handle.
struct Running(Child);

impl Running {
    fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).expect("process ids are small")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.pid()), Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

fn elect(place: &Path, log: &Path) -> Running {
    let child = Command::new(ELECT)
        .args(["run", "-b", "cron", "-s"])
        .arg(format!("file:{}", place.display()))
        .args(["--", "sleep", "600"])
        .stderr(File::create(log).expect("the place takes a log"))
        .spawn();
    Running(child.expect("elect starts"))
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = now();
    while !holds() {
        assert!(now().saturating_sub(start) < LIMIT, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn says(log: &Path, words: &str) {
    until(words, || fs::read_to_string(log).is_ok_and(|log| log.contains(words)));
}

/// Alone on this host with its keeper: somebody else has the lock.
fn waiting() {
    let place = TempDir::new().expect("a temporary directory");
    let lock = place.path().join("cron.lock");
    let mut holder = Command::new("flock");
    let holder = holder.arg("--no-fork").arg(&lock).args(["sleep", "600"]).process_group(0).spawn();
    let _holder = Running(holder.expect("flock is there"));
    let is_held =
        || Command::new("flock").arg("-n").arg(&lock).arg("true").status().is_ok_and(|status| !status.success());
    until("flock has the lock", is_held);
    let log = place.path().join("log");
    let candidate = elect(place.path(), &log);
    says(&log, "waiting: ");
    report("waiting", &candidate);
}

fn leading() {
    let place = TempDir::new().expect("a temporary directory");
    let log = place.path().join("log");
    let candidate = elect(place.path(), &log);
    says(&log, "leader command started");
    report("leading", &candidate);
}

fn report(role: &str, candidate: &Running) {
    let pids = [candidate.pid(), keeper_of(candidate.pid())];
    let before = pids.map(IdleUsage::of);
    std::thread::sleep(WATCHED);
    let after = pids.map(IdleUsage::of);
    let mut sum = IdleUsage::default();
    for (name, (before, after)) in ["campaigner", "keeper"].iter().zip(before.into_iter().zip(after)) {
        let used =
            IdleUsage { wakeups: after.wakeups - before.wakeups, cpu: after.cpu.saturating_sub(before.cpu), ..after };
        used.print(&format!("{role}: {name}"));
        sum = IdleUsage {
            pss: sum.pss + used.pss,
            private: sum.private + used.private,
            wakeups: sum.wakeups + used.wakeups,
            cpu: sum.cpu + used.cpu,
        };
    }
    sum.print(&format!("{role}: both"));
}

fn keeper_of(pid: i32) -> i32 {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("it runs");
    let is_keeper =
        |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "keeper");
    children.split_whitespace().filter_map(|pid| pid.parse().ok()).find(is_keeper).expect("it has a keeper")
}

/// Of one process.
#[derive(Debug, Default, Clone, Copy)]
struct IdleUsage {
    pss: u64,
    private: u64,
    wakeups: u64,
    cpu: Duration,
}

impl IdleUsage {
    fn of(pid: i32) -> IdleUsage {
        let maps = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("it runs, and is ours");
        let kilobytes = |name: &str| number_after(&maps, name);
        let mut usage = IdleUsage {
            pss: kilobytes("Pss:"),
            private: kilobytes("Private_Clean:") + kilobytes("Private_Dirty:"),
            ..IdleUsage::default()
        };
        for task in fs::read_dir(format!("/proc/{pid}/task")).expect("it runs").flatten() {
            let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
            usage.wakeups += number_after(&status, "voluntary_ctxt_switches:")
                + number_after(&status, "nonvoluntary_ctxt_switches:");
            let schedule = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            let nanos = schedule.split_whitespace().next().and_then(|nanos| nanos.parse().ok()).unwrap_or_default();
            usage.cpu += Duration::from_nanos(nanos);
        }
        usage
    }

    fn print(&self, who: &str) {
        let IdleUsage { pss, private, wakeups, cpu } = self;
        println!("{who:<22} {pss:>11} kB {private:>11} kB {wakeups:>13} {:>10}", millis(*cpu));
    }
}

fn number_after(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or_default()
}

fn millis(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1000.0)
}

/// Each in turn, so that whatever else goes on meets them all.
fn starting(where_: &str, place: &Path) {
    let own = std::env::current_exe().expect("this program has a path");
    let own = own.to_str().expect("a plain path");
    let store = format!("file:{}", place.display());
    let lock = place.join("flock").display().to_string();
    let ways: [(&str, &[&str]); 4] = [
        ("nothing between", &[own, "stamp"]),
        ("flock", &["flock", &lock, own, "stamp"]),
        ("elect run", &[ELECT, "run", "-q", "-b", "cron", "-s", &store, "--", own, "stamp"]),
        ("elect run, always:", &[ELECT, "run", "-q", "-b", "cron", "-s", "always:", "--", own, "stamp"]),
    ];
    let mut times = ways.map(|_| Vec::with_capacity(RUNS));
    for _ in 0..RUNS {
        for ((_, words), times) in ways.iter().zip(&mut times) {
            times.push(start(words));
        }
    }
    for ((way, _), mut times) in ways.into_iter().zip(times) {
        times.sort();
        println!("{:<28} {:>13} {:>13}", format!("{way} ({where_})"), millis(times[RUNS / 2]), millis(times[RUNS - 1]));
    }
}

fn start(words: &[&str]) -> Duration {
    let started = now();
    let output = Command::new(words[0]).args(&words[1..]).stderr(Stdio::inherit()).output().expect("it starts");
    let stamp: u64 = String::from_utf8_lossy(&output.stdout).trim().parse().expect("a stamp");
    Duration::from_nanos(stamp).saturating_sub(started)
}
