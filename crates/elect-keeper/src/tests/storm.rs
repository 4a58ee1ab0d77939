//! Trees that grow while they are being killed. Each tree is bounded, so that the machine survives a keeper that fails.
//! Only one storm runs at a time: a dying process needs the processor, and would wait for it among the other storm's
//! processes.

use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::harness::*;
use crate::clock;
use crate::sys::{self, Inherited};
use crate::{Containment, ToKeeper};
use elect_core::{FromKeeper, KILL_ALLOWANCE, Time};

/// The maximum number of processes of a storm. A process that finds the limit reached exits and makes room; the storm
/// ends only when it is killed.
const DESCENDANTS_MAX: i32 = 150;
/// The number of forks after which the storm counts as established.
const SEEN: i32 = 500;

/// The number of storms in each tier.
fn storms() -> usize {
    if std::env::var_os("ELECT_LONG").is_some() { 100 } else { 5 }
}

/// Storms beyond the first, after one on a machine that was too slow for a verdict (P5).
const REPETITIONS: usize = 2;
/// A machine on which as many processes as a storm has take longer to die, all killed at once by this process, is too slow.
const DEATHS_IN_TIME: Duration = Duration::from_millis(125);

/// Held while a storm runs.
fn one_at_a_time() -> MutexGuard<'static, ()> {
    static SKY: Mutex<()> = Mutex::new(());
    SKY.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_over_in_time(tier: Containment) {
    let _sky = one_at_a_time();
    let mut passed = Vec::new();
    for _ in 0..storms() {
        passed.extend(passes_over_in_time(tier, passes_over));
    }
    if passed.is_empty() {
        return;
    }
    let (died, emptied): (Vec<u64>, Vec<u64>) = passed.into_iter().unzip();
    println!(
        "figures: {} storms in the tier {tier:?}: dead after {}, confirmed after {}",
        died.len(),
        of(died),
        of(emptied)
    );
}

/// The times of a storm.
struct Storm {
    /// From the order or the deadline to the death of the last process.
    died: Duration,
    /// To the keeper's report.
    emptied: Duration,
    /// Without real-time priority, a storm may fork faster than the keeper kills in the tier `tree` (2.2); it dies eventually.
    may_be_late: bool,
}

/// Runs one storm, and again if the machine was too slow for a verdict. Returns its times in microseconds; `None` without the tier.
fn passes_over_in_time(tier: Containment, storm: impl Fn(&Path, Containment) -> Storm) -> Option<(u64, u64)> {
    for repetition in 0..=REPETITIONS {
        let figures = tempfile::NamedTempFile::new().expect("a temporary file");
        within(tier, |directory| {
            let before = Inherited::take();
            let Storm { died, emptied, may_be_late } = storm(directory, tier);
            let is_late = !may_be_late && died > KILL_ALLOWANCE;
            let control = if is_late { time_of_as_many_deaths(before) } else { Duration::ZERO };
            let [died, emptied, control] = [died, emptied, control].map(|time| time.as_micros());
            writeln!(figures.as_file(), "{died} {emptied}\n{} {control}", u64::from(is_late)).expect("written");
        });
        let text = std::fs::read_to_string(figures.path()).expect("read");
        let mut pairs = text.lines().filter_map(|line| line.split_once(' ')).map(both);
        let (passed, (is_late, control)) = (pairs.next()?, pairs.next().expect("two lines"));
        if is_late == 0 {
            return Some(passed);
        }
        let said = format!("dead after {} us; as many other processes took {control} us to die", passed.0);
        assert!(Duration::from_micros(control) > DEATHS_IN_TIME, "{said}");
        assert!(repetition < REPETITIONS, "no verdict in {} runs: {said}", REPETITIONS + 1);
        println!("figures: a death is repeated since the machine was too slow: {said}");
    }
    unreachable!("the last run returns or panics")
}

/// Runs a test of a tree that has to be dead within the allowance after a time, with the same verdict on a slow machine. The
/// test returns how late it was.
pub fn dies_in_time(tier: Containment, test: impl Fn(&Path, Containment) -> Duration) {
    passes_over_in_time(tier, |directory, tier| {
        let died = test(directory, tier);
        Storm { died, emptied: died, may_be_late: false }
    });
}

/// The time from a deadline to a death, which does not come before it.
pub fn time_after(kill_by: Time, died: Time) -> Duration {
    assert!(died >= kill_by, "killed {:?} too early", kill_by.since(died));
    died.since(kill_by)
}

fn both((one, other): (&str, &str)) -> (u64, u64) {
    (one.parse().expect("a number"), other.parse().expect("a number"))
}

fn of(mut micros: Vec<u64>) -> String {
    micros.sort_unstable();
    let (median, most) = (micros[micros.len() / 2], micros[micros.len() - 1]);
    format!("{}.{} ms (median), {}.{} ms (most)", median / 1000, median / 100 % 10, most / 1000, most / 100 % 10)
}

/// The time that as many busy processes need to die as a storm has at most.
fn time_of_as_many_deaths(without_priority: Inherited) -> Duration {
    let busy_child = |_| {
        // SAFETY: the child computes until it is killed.
        match unsafe { sys::fork() }.expect("forked") {
            sys::Forked::Parent(child) => child,
            sys::Forked::Child => {
                without_priority.schedule_as_before();
                loop {
                    std::hint::spin_loop();
                }
            }
        }
    };
    let children: Vec<i32> = (0..DESCENDANTS_MAX).map(busy_child).collect();
    let killed_at = clock::now();
    for child in &children {
        signal(*child, libc::SIGKILL);
    }
    for child in children {
        let _ = sys::await_child(child);
    }
    clock::now().since(killed_at)
}

/// Runs one storm, which an order to kill ends.
fn passes_over(directory: &Path, tier: Containment) -> Storm {
    let mut fixture = script(directory, &itself("storm::storm_of_forks")).contained(tier).fork();
    fixture.arm(TERM, Time::NEVER);
    // Measures the keeper, not the delay that the storm or the load causes in this process.
    sys::schedule_first();
    fixture.start_until(&["in full swing"]);
    let first = goes_first(fixture.keeper.pid());
    let killed_at = clock::now();
    fixture.send(&ToKeeper::Kill);
    let died = fixture.witness.gone().since(killed_at);
    fixture.exited(killed(libc::SIGKILL, true));
    fixture.empty();
    let emptied = clock::now().since(killed_at);
    Storm { died, emptied, may_be_late: !first && tier == Containment::Tree }
}

#[test]
fn a_fork_storm_in_a_cgroup_is_dead_within_the_allowance() {
    is_over_in_time(Containment::Cgroup);
}

#[test]
fn a_fork_storm_in_a_namespace_is_dead_within_the_allowance() {
    is_over_in_time(Containment::Pidns);
}

#[test]
fn a_fork_storm_in_a_tree_is_dead_within_the_allowance() {
    is_over_in_time(Containment::Tree);
}

/// Forks as fast as the kernel allows: children, sessions, and orphans of orphans, all of which ignore the stop signal.
#[test]
#[ignore = "the command of the tests above"]
fn storm_of_forks() {
    if std::env::var_os("WITNESS").is_none() {
        return;
    }
    let (alive, born) = (shared_number(), shared_number());
    alive.store(1, Ordering::Relaxed);
    // SAFETY: SIG_IGN is no handler, and these have no other use in this process.
    unsafe {
        libc::signal(libc::SIGTERM, libc::SIG_IGN);
        libc::signal(libc::SIGCHLD, libc::SIG_IGN);
    }
    let mut is_main = true;
    loop {
        if alive.fetch_add(1, Ordering::Relaxed) >= DESCENDANTS_MAX {
            alive.fetch_sub(if is_main { 1 } else { 2 }, Ordering::Relaxed);
            if is_main {
                std::thread::yield_now();
                continue;
            }
            sys::exit_now(0);
        }
        let number = born.fetch_add(1, Ordering::Relaxed);
        if number == SEEN {
            let _ = std::fs::write("/proc/self/fd/9", "in full swing\n");
        }
        // SAFETY: the child calls the kernel, and goes on with this loop, which takes no lock.
        let Ok(sys::Forked::Child) = (unsafe { sys::fork() }) else { continue };
        is_main = false;
        if number % 3 > 0 {
            let _ = nix::unistd::setsid();
        }
        // SAFETY: as above.
        if number % 3 > 1 && matches!(unsafe { sys::fork() }, Ok(sys::Forked::Parent(_))) {
            sys::exit_now(0);
        }
    }
}

/// A counter shared with all descendants of this process.
fn shared_number() -> &'static AtomicI32 {
    // SAFETY: a new page of zeros, which is what an atomic may begin with, never unmapped.
    unsafe {
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        let page = libc::mmap(std::ptr::null_mut(), size_of::<AtomicI32>(), access, kind, -1, 0);
        assert_ne!(page, libc::MAP_FAILED);
        &*page.cast::<AtomicI32>()
    }
}

#[test]
fn a_hail_of_orphans_does_not_put_the_deadline_off() {
    let _sky = one_at_a_time();
    let passed = passes_over_in_time(Containment::Tree, |directory, _| {
        let text = "
            for i in 1 2 3 4; do (setsid sh -c 'echo up >&9; while :; do (: &); done' &); done
            echo main >&9
            while :; do (: &); done";
        let mut fixture = script(directory, text).fork();
        let (_, kill_by) = fixture.start_under_deadline(&["main", "up", "up", "up", "up"]);
        let first = goes_first(fixture.keeper.pid());
        sys::schedule_first();
        let died = time_after(kill_by, fixture.witness.gone());
        fixture.hears(FromKeeper::Expired { term: TERM });
        Storm { died, emptied: died, may_be_late: !first }
    });
    println!("a hail of orphans: dead after the deadline by {passed:?} us");
}

#[test]
fn many_that_die_at_once_are_all_seen_to_have_ended() {
    alone(|directory| {
        let mut fixture =
            script(directory, "for i in $(seq 300); do (sh -c 'echo >&9; exec sleep 100' &); done; wait; sleep 100; :")
                .fork();
        fixture.arm(TERM, Time::NEVER);
        let group = fixture.start();
        for _ in 0..300 {
            fixture.witness.line();
        }
        // The kernel merges their SIGCHLDs into one.
        signal(fixture.keeper.pid(), libc::SIGSTOP);
        signal(-group, libc::SIGKILL);
        fixture.witness.gone();
        until("the last of them is dead", || status_of(group, "State").starts_with('Z'));
        signal(fixture.keeper.pid(), libc::SIGCONT);
        fixture.exited(killed(libc::SIGKILL, false));
        fixture.empty();
    });
}
