//! Verdicts on times, and whether the machine was fast enough to allow them (P5).
//!
//! A limit that follows from the lease holds on a machine that lets elect, its server and the test run when they want to. Where
//! the limit was exceeded in a run in which the machine did not, the run proves nothing: it is repeated, at most twice, each time
//! with a lease twice as long, and counted in the report. What must never happen on any machine (an overlap, a survivor) is
//! asserted as ever, and never repeated.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any, resume_unwind};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use super::wait::{now, since};
use super::{Sandbox, run_queue};

/// Runs of one test beyond the first.
const REPETITIONS: u32 = 2;
const NO_VERDICT: &str = "no verdict in";
/// Between two measurements.
const PAUSE: Duration = Duration::from_millis(20);
/// Computed in each.
const WORK: Duration = Duration::from_millis(1);
/// Measurements for one that writes to the disk as well, and the time that a write may take.
const WRITE_EVERY: u32 = 16;
const WRITE_TIME: Duration = Duration::from_millis(20);
/// Measurements that are kept.
const MEASUREMENTS_MAX: usize = 60_000;

/// A limit on time that was exceeded: the payload of a panic.
#[derive(Debug)]
struct TooLate(String);

/// Fails unless the limit was kept. Below [`retry_if_machine_slow`] only.
#[track_caller]
pub fn assert_in_time(holds: bool, what: impl FnOnce() -> String) {
    if !holds {
        let location = std::panic::Location::caller();
        let said = format!("{location}: {}", what());
        eprintln!("too late: {said}");
        panic_any(TooLate(said));
    }
}

/// Part of the log of a candidate that has ended since its keeper was late (K4).
pub const KEEPER_GIVEN_UP: &str = "the keeper does not answer and is killed";

/// A failure of this run counts as a limit on time that was exceeded if a candidate of this place has given up its keeper: on a machine
/// that is too slow nothing else can happen then. Two that lead at once are a failure on any machine.
#[track_caller]
pub fn late_if_a_keeper_was_given_up<T>(sandbox: &Sandbox, run: impl FnOnce() -> T) -> T {
    let panic = match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => return result,
        Err(panic) => panic,
    };
    let is_late = sandbox.evidence().contains(KEEPER_GIVEN_UP) && sandbox.history().verdict().is_ok();
    assert_in_time(!is_late || panic.is::<TooLate>(), || KEEPER_GIVEN_UP.to_owned());
    resume_unwind(panic)
}

/// Watches that `holds` goes on doing so, which a machine that is too slow for the lease may prevent.
#[track_caller]
pub fn throughout_in_time(window: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let start = now();
    while since(start) < window {
        assert_in_time(holds(), || format!("not any more after {} ms: {what}", since(start).as_millis()));
        thread::sleep(PAUSE);
    }
}

/// Runs a test whose limits follow from the lease that it is given.
#[track_caller]
pub fn retry_if_machine_slow(what: &str, lease: Duration, run: impl Fn(Duration)) {
    repeat_if_machine_slow(what, lease, run);
}

/// The same; returns the result of the run that allowed a verdict, and how many did not.
///
/// Tests compete with each other for the processors, which a thread that sleeps most of the time hardly feels: the machine was too
/// slow also if anything that this process has started waited too long for a processor.
#[track_caller]
pub fn repeat_if_machine_slow<T>(what: &str, lease: Duration, run: impl Fn(Duration) -> T) -> (T, u32) {
    let (pace, waits) = (DelayMonitor::watched(), run_queue::watched());
    let pace = |began| {
        let pace = pace(began);
        MachineDelay { longest: pace.longest.max(waits(began)), ..pace }
    };
    retry_by(&pace, what, lease, run)
}

/// Whether a panic says that there was no verdict, since the machine was too slow each time.
pub fn is_no_verdict(panic: &str) -> bool {
    panic.contains(NO_VERDICT)
}

#[track_caller]
fn retry_by<T>(
    pace: &dyn Fn(Duration) -> MachineDelay,
    what: &str,
    lease: Duration,
    run: impl Fn(Duration) -> T,
) -> (T, u32) {
    for repetition in 0..=REPETITIONS {
        let (began, lease) = (now(), lease * 2_u32.pow(repetition));
        let panic = match catch_unwind(AssertUnwindSafe(|| run(lease))) {
            Ok(result) => {
                if repetition > 0 {
                    println!("figures: {what}: {repetition} runs repeated since the machine was too slow");
                }
                return (result, repetition);
            }
            Err(panic) => panic,
        };
        let Some(TooLate(said)) = panic.downcast_ref() else { resume_unwind(panic) };
        let pace = pace(began);
        assert!(pace.is_too_slow(lease), "{what}: {said}; the machine was fast enough: {pace}");
        assert!(repetition < REPETITIONS, "{what}: {NO_VERDICT} {} runs: {said}; {pace}", REPETITIONS + 1);
        println!("figures: {what}: repeated since the machine was too slow: {pace}");
    }
    unreachable!("the last run returns or panics")
}

/// How late everything was for a while.
#[derive(Debug, Default, Clone, Copy)]
struct MachineDelay {
    window: Duration,
    delays: Duration,
    longest: Duration,
}

impl MachineDelay {
    /// Whether a limit that follows from this lease says nothing about elect.
    fn is_too_slow(&self, lease: Duration) -> bool {
        self.longest > lease / 30 || self.delays > self.window / 20
    }
}

impl fmt::Display for MachineDelay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MachineDelay { window, delays, longest } = self;
        write!(f, "in {window:.1?} it was late by {delays:.1?} in all and by {longest:.1?} at most")
    }
}

/// A thread that notes how late the machine lets it compute and write.
struct DelayMonitor {
    delays: Mutex<VecDeque<(Duration, Duration)>>,
}

impl DelayMonitor {
    /// Measures from the first call on.
    fn watched() -> impl Fn(Duration) -> MachineDelay {
        static MACHINE: OnceLock<&'static DelayMonitor> = OnceLock::new();
        let machine = MACHINE.get_or_init(|| {
            let machine: &'static DelayMonitor = Box::leak(Box::new(DelayMonitor { delays: Mutex::default() }));
            // Not watched: without measurements no run is repeated.
            thread::spawn(|| machine.measure());
            machine
        });
        |began| machine.pace_since(began)
    }

    fn measure(&self) {
        let mut disk = tempfile::tempfile().ok();
        for turn in 0_u32.. {
            let start = now();
            thread::sleep(PAUSE);
            compute(WORK);
            let mut late = since(start).saturating_sub(PAUSE + WORK);
            if turn % WRITE_EVERY == 0 {
                late += disk.as_mut().map_or(Duration::ZERO, write).saturating_sub(WRITE_TIME);
            }
            let mut delays = self.delays.lock().unwrap_or_else(PoisonError::into_inner);
            if delays.len() == MEASUREMENTS_MAX {
                delays.pop_front();
            }
            delays.push_back((start, late));
        }
    }

    fn pace_since(&self, began: Duration) -> MachineDelay {
        let delays = self.delays.lock().unwrap_or_else(PoisonError::into_inner);
        let mut pace = MachineDelay { window: since(began), ..MachineDelay::default() };
        for (_, late) in delays.iter().rev().take_while(|(at, _)| *at >= began) {
            pace.delays += *late;
            pace.longest = pace.longest.max(*late);
        }
        pace
    }
}

/// Until this thread has had so much of a processor.
fn compute(work: Duration) {
    let used = || Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("every thread has this clock"));
    let start = used();
    while used() < start + work {
        std::hint::spin_loop();
    }
}

/// Returns the time that it takes to get something onto the disk.
fn write(file: &mut File) -> Duration {
    let start = now();
    // A full disk is no measurement.
    let _ = file.write_all(&[0; 512]).and_then(|()| file.sync_data());
    since(start)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    const LEASE: Duration = Duration::from_secs(3);

    fn pace(longest: Duration) -> impl Fn(Duration) -> MachineDelay {
        move |_| MachineDelay { window: LEASE * 10, delays: longest, longest }
    }

    /// The leases of the runs, and whether the last one passed.
    fn runs(pace: &dyn Fn(Duration) -> MachineDelay, run: impl Fn(usize)) -> (Vec<Duration>, bool) {
        let leases = RefCell::new(Vec::new());
        let passed = catch_unwind(AssertUnwindSafe(|| {
            retry_by(pace, "a control", LEASE, |lease| {
                leases.borrow_mut().push(lease);
                run(leases.borrow().len());
            });
        }));
        (leases.into_inner(), passed.is_ok())
    }

    #[test]
    fn only_a_run_that_is_late_on_a_slow_machine_is_repeated_and_at_most_twice() {
        let (slow, fast) = (pace(LEASE), pace(Duration::from_millis(1)));
        let late = |_| assert_in_time(false, || "on purpose".to_owned());
        assert_eq!(runs(&slow, late), (vec![LEASE, LEASE * 2, LEASE * 4], false));
        assert_eq!(runs(&fast, late), (vec![LEASE], false));
        assert_eq!(
            runs(&slow, |run| assert_in_time(run == 2, || "on purpose".to_owned())),
            (vec![LEASE, LEASE * 2], true)
        );
        assert_eq!(runs(&slow, |_| panic!("on purpose: two lead")), (vec![LEASE], false));
        assert_eq!(runs(&slow, |_| {}), (vec![LEASE], true));
    }

    #[test]
    fn a_failure_where_a_keeper_was_given_up_is_late_unless_two_have_led_at_once() {
        let (slow, fails_first) = (pace(LEASE), |run: usize| assert!(run > 1, "on purpose: another status"));
        let sandbox = Sandbox::new();
        let number = sandbox.next();
        let all = || runs(&slow, |run| late_if_a_keeper_was_given_up(&sandbox, || fails_first(run)));
        let note = |path: std::path::PathBuf, text: &str| std::fs::write(path, text).expect("an open directory");
        note(sandbox.log_of(number), "the command is killed");
        assert_eq!(all(), (vec![LEASE], false));
        note(sandbox.log_of(number), KEEPER_GIVEN_UP);
        assert_eq!(all(), (vec![LEASE, LEASE * 2], true));
        note(sandbox.path().join("journal"), "overlap 1 2 3\n");
        assert_eq!(all(), (vec![LEASE], false));
    }

    #[test]
    fn the_machine_is_measured() {
        let pace = DelayMonitor::watched();
        let began = now();
        super::super::until("it is measured", || pace(began).delays > Duration::ZERO);
    }
}
