//! A candidate that is frozen as a whole for longer than its ttl, and thaws while another one leads (DESIGN.md 2.2): the term
//! protects what the command writes to, and the command is killed as soon as anything of it runs again.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::fenced_resource::{FencedResource, WriteAttempt};
use crate::harness::freezer::Freezer;
use crate::harness::journal::median;
use crate::harness::store_fixtures::{FixtureStore, start_all};
use crate::harness::timing_verdict::{assert_in_time, retry_if_machine_slow};
use crate::harness::wait::{now, until};
use crate::harness::{ElectCmd, Sandbox, Witness, is_long, millis};

/// The measurements of one thaw.
struct Thaw {
    /// From the thaw to the end of the old tree.
    overlap: Duration,
    /// Writes that the old command asked for after the first one of the new leader.
    stale: Vec<WriteAttempt>,
}

/// The leader, its keeper and its command stand still; another candidate leads and writes; then the first one thaws.
fn thaw_while_another_leads(store: &str, sandbox: &Sandbox, lease: Duration) -> Thaw {
    let freezer = Freezer::new().expect("this test needs a cgroup (v2) in which it may create others");
    let resource = FencedResource::at(&sandbox.path().join("fence"));
    let witness = Witness::new().fenced_by(resource.socket());
    let candidate = || {
        let ttl = format!("{}ms", lease.as_millis());
        ElectCmd::new(sandbox).store(store.to_owned()).flag("--ttl", &ttl).witness(&witness)
    };
    let mut leader = candidate().wrapped_by(freezer.words()).start();
    let led = sandbox.starts(1).latest();
    until("the first leader writes", || resource.has_accepted(led.term));
    let next = candidate().start();
    next.wait_until_waiting();
    let end = sandbox.watch_the_end_of(led.pid);
    freezer.freeze();
    let second = sandbox.starts(2).starts[1];
    until("the second leader writes", || resource.has_accepted(second.term));
    assert!(!end.is_finished(), "a frozen command cannot be killed by its keeper, which is frozen too");
    let thawed = now();
    freezer.thaw();
    until("the old tree is gone", || end.is_finished());
    let overlap = end.join().expect("the watch on the old tree").saturating_sub(thawed);
    let goes_on = leader.waits_or_has_ended();
    if goes_on {
        leader.signal(Signal::SIGTERM);
    } else {
        leader.ends_with(125);
    }
    leader.wait();
    next.terminate();
    assert!(second.term > led.term, "terms rise");
    let attempts = resource.attempts();
    let first = attempts.iter().position(|attempt| attempt.term == second.term).expect("the second leader has written");
    let stale: Vec<WriteAttempt> = attempts[first..].iter().filter(|one| one.term < second.term).copied().collect();
    sandbox.is_left_empty();
    // Its campaigner may not have heard of its keeper within half the kill allowance (K4).
    assert_in_time(goes_on, || "the candidate waits after the thaw".to_owned());
    Thaw { overlap, stale }
}

#[test]
fn a_frozen_leader_that_thaws_late_is_killed_at_once_and_its_writes_are_refused() {
    let runs = if is_long() { 20 } else { 2 };
    let thaw_each = |store: &dyn FixtureStore| {
        retry_if_machine_slow(&format!("{}: frozen and thawed", store.name()), store.lease(), |lease| {
            let thaws: Vec<Thaw> = (0..runs)
                .map(|_| {
                    let sandbox = Sandbox::new();
                    let url = sandbox.below(&store.url(&sandbox));
                    thaw_while_another_leads(&url, &sandbox, lease)
                })
                .collect();
            let stale: Vec<&WriteAttempt> = thaws.iter().flat_map(|thaw| &thaw.stale).collect();
            assert!(stale.iter().all(|attempt| !attempt.is_accepted), "a stale write was accepted: {stale:?}");
            let overlaps: Vec<Duration> = thaws.iter().map(|thaw| thaw.overlap).collect();
            let longest = overlaps.iter().max().copied().unwrap_or_default();
            println!(
                "figures: {}: candidate frozen for longer than the ttl, {runs} runs: old tree dead {} (median), {} (maximum) \
                 after the thaw; {} stale writes, all refused",
                store.name(),
                millis(median(&overlaps).unwrap_or_default()),
                millis(longest),
                stale.len(),
            );
            // K of DESIGN.md section 4.
            assert_in_time(longest < Duration::from_millis(500), || format!("killed {longest:?} after the thaw"));
        });
    };
    let stores: Vec<_> = start_all().into_iter().filter(|store| store.has_server()).collect();
    std::thread::scope(|scope| {
        let all: Vec<_> = stores.iter().map(|store| scope.spawn(|| thaw_each(store.as_ref()))).collect();
        for one in all {
            one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    });
}

/// The control: the resource does find writes that are stale.
#[test]
fn the_resource_refuses_a_term_below_the_highest() {
    let sandbox = Sandbox::new();
    let resource = FencedResource::at(&sandbox.path().join("fence"));
    let writer = |term: &str| {
        let witness = Witness::new().fenced_by(resource.socket());
        let program = witness.command();
        ElectCmd::new(&sandbox).program(program).variable("ELECT_TERM", term).start()
    };
    let old = writer("7");
    until("the old one writes", || resource.has_accepted(7));
    let new = writer("8");
    until("the new one writes", || resource.has_accepted(8));
    until("the old one is refused", || {
        resource.attempts().iter().any(|attempt| attempt.term == 7 && !attempt.is_accepted)
    });
    let attempts = resource.attempts();
    let first = attempts.iter().position(|attempt| attempt.term == 8).expect("the new one has written");
    assert!(attempts[first..].iter().all(|attempt| attempt.is_accepted == (attempt.term == 8)), "{attempts:?}");
    drop((old, new));
}
