//! Health checks and drains, on every store: an unhealthy or drained candidate does not lead, and hands over if it does
//! (H1 to H8).

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::harness::store_fixtures::{StoreFixture, for_each_store};
use crate::harness::timing_verdict::{assert_in_time, retry_if_machine_slow};
use crate::harness::wait::now;
use crate::harness::{CandidateProcess, ElectCmd, Ended, Sandbox, Witness, eventually, is_long, until};

/// Of candidates that must not lose their lease, however busy the machine is.
const LONG_TTL: &str = "12s";

/// Sockets are found by the boundary's name alone, and all tests are the same user.
fn boundary() -> &'static str {
    static LAST: AtomicUsize = AtomicUsize::new(0);
    format!("eligible/{}-{}", std::process::id(), LAST.fetch_add(1, Ordering::Relaxed)).leak()
}

fn candidate(fixture: &StoreFixture, boundary: &'static str, name: &str) -> ElectCmd {
    let candidate = ElectCmd::new(&fixture.sandbox).store(fixture.url()).flag("--ttl", LONG_TTL).flag("--name", name);
    candidate.boundary(boundary).witness(&Witness::new())
}

/// The local candidates of a boundary, as `status --self` shows them.
fn local(fixture: &StoreFixture, boundary: &str) -> Vec<Value> {
    let asked = ElectCmd::new(&fixture.sandbox).store(None).query("status", &["--self", boundary, "--json"]).run();
    let shown: Value = serde_json::from_str(asked.stdout.trim()).unwrap_or_else(|_| panic!("an array: {asked:?}"));
    shown.as_array().cloned().unwrap_or_default()
}

fn own(fixture: &StoreFixture, boundary: &str, name: &str) -> Option<Value> {
    local(fixture, boundary).into_iter().find(|one| one["name"] == name)
}

fn is_in_state(fixture: &StoreFixture, boundary: &str, name: &str, state: &str) -> bool {
    own(fixture, boundary, name).is_some_and(|shown| shown["state"] == state)
}

/// This is why it does not stand, and nothing else is.
#[track_caller]
fn has_reason(fixture: &StoreFixture, boundary: &str, name: &str, reason: &str) {
    let shown = eventually(&format!("{name} campaigns"), || own(fixture, boundary, name));
    assert_eq!(shown["reasons"], serde_json::json!([reason]), "{shown}");
}

fn control(fixture: &StoreFixture, subcommand: &'static str, boundary: &str, name: &str) -> Ended {
    // A candidate that has no time to answer is not shown.
    let found = eventually(&format!("{name} campaigns"), || own(fixture, boundary, name));
    let id = found["id"].as_str().expect("an id").to_owned();
    ElectCmd::new(&fixture.sandbox).store(None).query(subcommand, &["-b", boundary, "--id", &id]).run()
}

#[track_caller]
fn drains(fixture: &StoreFixture, boundary: &str, name: &str) {
    let drained = control(fixture, "drain", boundary, name);
    assert_eq!(drained.status.code(), Some(0), "{drained:?}");
    assert_eq!(drained.stdout, "drained: the store confirms that the candidate holds nothing\n");
}

/// A check that fails while a file with the candidate's name exists.
struct Patient {
    sick: std::path::PathBuf,
}

impl Patient {
    fn new(sandbox: &Sandbox, name: &str) -> Patient {
        Patient { sick: sandbox.path().join(format!("{name}.sick")) }
    }

    /// So many checks have to fail in a row, each after this time at the latest.
    fn check(&self, candidate: ElectCmd, interval: Duration, fall: &str) -> ElectCmd {
        let script = format!("test ! -e {}", self.sick.display());
        let interval = format!("{}ms", interval.as_millis());
        let candidate = candidate.flag("--health", &script).flag("--health-interval", &interval);
        candidate.flag("--health-timeout", &interval).flag("--health-rise", "1").flag("--health-fall", fall)
    }

    fn falls_ill(&self) {
        fs::write(&self.sick, "").expect("room");
    }

    fn recovers(&self) {
        fs::remove_file(&self.sick).expect("it was ill");
    }
}

#[test]
fn a_leader_that_falls_ill_hands_over_to_a_healthy_candidate() {
    for_each_store(|fixture| {
        let boundary = boundary();
        let patients = ["web-1", "web-2"].map(|name| (name, Patient::new(&fixture.sandbox, name)));
        patients[1].1.falls_ill();
        let running = patients.each_ref().map(|(name, patient)| {
            let candidate = candidate(&fixture, boundary, name).flag("--on-ousted", "echo $ELECT_REASON");
            // A busy machine does not make so many checks time out in a row.
            patient.check(candidate, Duration::from_millis(600), "4").start()
        });
        let mut starts = 1;
        fixture.sandbox.starts(starts);
        until("the other one is ineligible", || is_in_state(&fixture, boundary, "web-2", "ineligible"));
        has_reason(&fixture, boundary, "web-2", "unhealthy");
        let rounds = if is_long() { 20 } else { 2 };
        let mut slowest = Duration::ZERO;
        for round in 0..rounds {
            let (falls, recovers) = (round % 2, (round + 1) % 2);
            // First nobody is healthy, so nobody leads (H4); then the other one does.
            let (began, falling) = (now(), patients[falls].0);
            patients[falls].1.falls_ill();
            until("it has left", || is_in_state(&fixture, boundary, falling, "ineligible"));
            slowest = slowest.max(now().saturating_sub(began));
            let held = fixture.query("status", &[boundary]).run();
            assert_eq!(held.status.code(), Some(3), "no candidate is healthy: {held:?}");
            patients[recovers].1.recovers();
            starts += 1;
            fixture.sandbox.starts(starts);
            until("it leads", || is_in_state(&fixture, boundary, patients[recovers].0, "leading"));
        }
        println!("figures: {}: released at most {slowest:?} after the leader fell ill", fixture.name());
        let history = fixture.sandbox.history();
        history.is_safe();
        for (candidate, (name, _)) in running.iter().zip(&patients) {
            assert!(candidate.log().contains("not healthy: the health check has failed"), "{name}");
        }
        assert!(running[0].output().contains("unhealthy\n"), "{}", running[0].output());
        running.into_iter().for_each(CandidateProcess::terminate);
    });
}

/// The check is killed at its time-out, with all that it has started; nothing is late for it.
#[test]
fn a_check_that_hangs_forks_or_floods_costs_no_renewal_and_no_hand_over() {
    for_each_store(|fixture| {
        let boundary = boundary();
        let checks = [
            "trap '' TERM; sleep 1000",
            "sleep 1000 & setsid sleep 1000 & sleep 1000",
            "head -c 1000000000 /dev/zero",
            "exec /nonexistent",
        ];
        for check in checks {
            // It counts for nothing: the leader goes on to lead.
            let leader = candidate(&fixture, boundary, "web-1")
                .flag("--health", &format!("test -z \"$ELECT_TERM\" || {{ {check}; }}"));
            let leader = leader.flag("--health-interval", "400ms").flag("--health-timeout", "300ms");
            let leader = leader.flag("--health-fall", "1000").flag("--stop-timeout", "2s");
            let leader = leader.wrapped_by(["sh", "-c", "exec \"$@\" >/dev/null", "sh"]);
            let before = fixture.sandbox.history().starts.len();
            let leader = leader.start();
            fixture.sandbox.starts(before + 1);
            std::thread::sleep(Duration::from_secs(2));
            let asserted = ElectCmd::new(&fixture.sandbox).store(None).query("assert", &["-b", boundary]).run();
            assert_eq!(asserted.status.code(), Some(0), "{check}: {asserted:?}");
            leader.terminate();
        }
        fixture.sandbox.history().is_safe();
    });
}

#[test]
fn a_drain_returns_once_the_boundary_is_released_and_undrain_ends_it() {
    for_each_store(|fixture| {
        let boundary = boundary();
        let first = candidate(&fixture, boundary, "web-1").start();
        fixture.sandbox.starts(1);
        let second = candidate(&fixture, boundary, "web-2").start();
        second.wait_for_log("web-1 leads");
        // While it waits: the leader does not change, and the candidate takes no free boundary.
        drains(&fixture, boundary, "web-2");
        has_reason(&fixture, boundary, "web-2", "drained");
        // While it leads.
        drains(&fixture, boundary, "web-1");
        assert_eq!(fixture.query("status", &[boundary]).run().status.code(), Some(3), "both are drained");
        drains(&fixture, boundary, "web-1");
        assert_eq!(control(&fixture, "undrain", boundary, "web-2").status.code(), Some(0));
        fixture.sandbox.starts(2);
        until("it leads", || is_in_state(&fixture, boundary, "web-2", "leading"));
        assert_eq!(control(&fixture, "undrain", boundary, "web-2").status.code(), Some(0), "it can be repeated");
        first.terminate();
        second.terminate();
        // From the beginning.
        let drained = candidate(&fixture, boundary, "web-3").switch("--drained").start();
        until("it is drained", || is_in_state(&fixture, boundary, "web-3", "ineligible"));
        assert_eq!(control(&fixture, "undrain", boundary, "web-3").status.code(), Some(0));
        fixture.sandbox.starts(3);
        drained.terminate();
        fixture.sandbox.history().is_safe();
    });
}

/// While it is stopping, between two runs, and while it sits out.
#[test]
fn a_drain_is_accepted_at_any_moment() {
    for_each_store(|fixture| {
        let boundary = boundary();
        // Stopping: a command that takes its time, asked to resign; the drain waits for it too.
        let plain = |name: &str| {
            let elect =
                ElectCmd::new(&fixture.sandbox).store(fixture.url()).flag("--ttl", LONG_TTL).flag("--name", name);
            elect.boundary(boundary)
        };
        let slow = plain("slow").flag("--stop-timeout", "1h").shell(
            "trap 'until [ -e $WITNESS_PLACE/go ]; do sleep 0.05; done; exit' TERM; echo up; while :; do sleep 0.1; done",
        );
        let slow = slow.start();
        until("it hears a stop signal", || slow.output() == "up\n");
        std::thread::scope(|scope| {
            let resigns = scope.spawn(|| control(&fixture, "resign", boundary, "slow"));
            until("it stops", || is_in_state(&fixture, boundary, "slow", "stopping"));
            let drained = scope.spawn(|| drains(&fixture, boundary, "slow"));
            until("the drain has begun", || {
                own(&fixture, boundary, "slow").is_some_and(|shown| shown["reasons"] == serde_json::json!(["drained"]))
            });
            fs::write(fixture.sandbox.path().join("go"), "").expect("written");
            drained.join().expect("it is drained");
            assert_eq!(resigns.join().expect("it ends").status.code(), Some(0));
        });
        slow.terminate();
        // Between two runs, and while it sits out.
        let restarts = plain("fails").flag("--restart", "always").flag("--restart-delay", "30s");
        let restarts = restarts.command(["true"]).start();
        restarts.wait_for_log("is started again in");
        drains(&fixture, boundary, "fails");
        restarts.terminate();
        let sits = plain("fails").flag("--restart", "always").flag("--restart-delay", "0s");
        let sits = sits.flag("--restart-limit", "1/1m").command(["true"]).start();
        sits.wait_for_log("another candidate's turn");
        until("it sits out", || is_in_state(&fixture, boundary, "fails", "sitting_out"));
        drains(&fixture, boundary, "fails");
        sits.terminate();
    });
}

/// H8: the store is lost, so that the release cannot be confirmed: the drain ends with the lease.
#[test]
fn a_drain_without_the_store_ends_with_the_lease() {
    for_each_store(|fixture| {
        if !fixture.has_server() {
            return;
        }
        let boundary = boundary();
        let leader = fixture.candidate("web-1").boundary(boundary).witness(&Witness::new()).start();
        fixture.sandbox.starts(1);
        fixture.stop_server();
        let drained = control(&fixture, "drain", boundary, "web-1");
        assert_eq!(drained.status.code(), Some(0), "{drained:?}");
        assert_eq!(drained.stdout, "drained: the release is not confirmed, and the lease has run out\n");
        fixture.restart_server();
        assert_eq!(control(&fixture, "undrain", boundary, "web-1").status.code(), Some(0));
        fixture.sandbox.starts(2);
        leader.terminate();
        fixture.sandbox.history().is_safe();
    });
}

/// A rolling maintenance: one host after the other is drained, is away, and comes back.
#[test]
fn three_hosts_are_maintained_one_after_the_other() {
    for_each_store(|fixture| {
        let boundary = boundary();
        let names = ["web-1", "web-2", "web-3"];
        let running: Vec<_> = names.iter().map(|name| candidate(&fixture, boundary, name).start()).collect();
        fixture.sandbox.starts(1);
        let mut gaps = Vec::new();
        for name in names {
            until("it campaigns", || {
                own(&fixture, boundary, name).is_some_and(|shown| shown["state"] != "campaigning")
            });
            let leads = is_in_state(&fixture, boundary, name, "leading");
            let starts = fixture.sandbox.history().starts.len();
            drains(&fixture, boundary, name);
            if leads {
                let history = fixture.sandbox.starts(starts + 1);
                let (ended, next) = (history.ends.last().expect("it has ended").at, history.latest().at);
                gaps.push(next.saturating_sub(ended));
            }
            until("it is ineligible", || is_in_state(&fixture, boundary, name, "ineligible"));
            assert_eq!(control(&fixture, "undrain", boundary, name).status.code(), Some(0));
        }
        println!("figures: {}: without a leader for {gaps:?} at each drain of a leader", fixture.name());
        running.into_iter().for_each(CandidateProcess::terminate);
        fixture.sandbox.history().is_safe();
    });
}

/// H7: a candidacy with a limit does not wait to become eligible.
#[test]
fn with_a_limit_an_ineligible_candidate_exits() {
    for_each_store(|fixture| {
        // Every time is far beyond what a busy machine needs for a check or a request.
        let job = || {
            let job =
                ElectCmd::new(&fixture.sandbox).store(fixture.url()).flag("--ttl", LONG_TTL).flag("--name", "job");
            job.boundary("limited").switch("-n")
        };
        let run = |health: &'static str, interval: &str, script: &str| {
            let run = job().flag("--health", health).flag("--health-interval", interval);
            let run = run.flag("--health-timeout", interval).flag("--health-rise", "1").flag("--health-fall", "1");
            run.shell(script).run()
        };
        assert_eq!(run("true", "30s", "echo ran").stdout, "ran\n");
        assert_eq!(run("false", "30s", "echo ran").status.code(), Some(75));
        let ended = job().switch("--drained").shell("echo ran").run();
        assert_eq!((ended.status.code(), ended.stdout.as_str()), (Some(75), ""), "{ended:?}");
        // A leader whose check fails ends with 76.
        let ended = run("test -z \"$ELECT_TERM\"", "4s", "sleep 1000");
        assert_eq!(ended.status.code(), Some(76), "{ended:?}");
    });
}

/// H5: to a suspended elect a check is missed, and no failure.
#[test]
fn a_candidate_that_stood_still_has_missed_checks_and_failed_none() {
    retry_if_machine_slow("a candidate that stood still", Duration::from_secs(3), |lease| {
        let interval = lease / 10;
        let sandbox = Sandbox::new();
        let patient = Patient::new(&sandbox, "web-1");
        let leader = patient.check(ElectCmd::new(&sandbox).witness(&Witness::new()), interval, "2").start();
        sandbox.starts(1);
        leader.signal(Signal::SIGSTOP);
        std::thread::sleep(interval * 7);
        leader.signal(Signal::SIGCONT);
        std::thread::sleep(interval * 4);
        assert_in_time(!leader.log().contains("not healthy"), || leader.log());
        leader.terminate();
    });
}
