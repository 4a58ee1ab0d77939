//! A primary and its standbys, and all that can become of them: whoever leads is credited by a synchronous standby or not at
//! all, so that no failover forgets a leader. Without one a failover may.

use std::time::Duration;

use super::cluster::{Cluster, Replication};
use super::server::{PostgresServer, RepeatedStatement};
use crate::harness::server::StoreServer;
use crate::harness::timing_verdict::{assert_in_time, retry_if_machine_slow};
use crate::harness::wait::{now, throughout, until};
use crate::harness::{CandidateProcess, ElectCmd, Sandbox, Witness, few, millis};
use crate::leases::{LEASE, a_few_at_once, candidate_for, written};

/// Longer than it takes until a lease has run out and the next one begins.
const LONG_ENOUGH: Duration = Duration::from_secs(5);
/// The operator's remedy for a commit that waits for its standby: it ends that wait, and PostgreSQL says that all is well.
const CANCEL: &str = "pg_cancel_backend";
const TERMINATE: &str = "pg_terminate_backend";
/// As a candidate logs it.
const NOT_CONFIRMED: &str = "was not confirmed by the synchronous standby";

fn at(sandbox: &Sandbox, url: &str) -> ElectCmd {
    within(LEASE, sandbox, url)
}

fn within(lease: Duration, sandbox: &Sandbox, url: &str) -> ElectCmd {
    candidate_for(sandbox, sandbox.below(url), &written(lease)).witness(&Witness::new())
}

/// No wait for a standby lasts.
fn ends_waits(server: &PostgresServer, remedy: &str) -> RepeatedStatement {
    server.repeat(&format!("SELECT {remedy}(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"))
}

// ---- S5: a commit whose wait for the standby was ended

/// Every commit waits for a standby that never comes.
fn waits_in_vain(server: &PostgresServer) {
    server.set("synchronous_standby_names", "ghost");
}

fn waits_for_nothing(server: &PostgresServer) {
    server.set("synchronous_standby_names", "");
}

fn no_take_without_its_standby_counts(remedy: &str) {
    let (server, sandbox) = (PostgresServer::start(), Sandbox::new());
    waits_in_vain(&server);
    let remedies = ends_waits(&server, remedy);
    let candidates = [at(&sandbox, &server.url()).start(), at(&sandbox, &server.url()).start()];
    until("a take is visible", || {
        let schema = sandbox.database();
        let held = format!("SELECT count(*) FROM \"{schema}\".elect_boundaries WHERE state = 'held'");
        server.try_sql(&held).is_ok_and(|said| said.trim() == "1")
    });
    throughout(LONG_ENOUGH, "nobody leads", || sandbox.history().starts.is_empty());
    if remedy == CANCEL {
        until("it is said", || candidates.iter().any(|one| one.log().contains(NOT_CONFIRMED)));
    }
    drop(remedies);
    waits_for_nothing(&server);
    sandbox.starts(1);
    candidates.into_iter().for_each(CandidateProcess::terminate);
    sandbox.history().is_safe();
}

fn no_renewal_without_its_standby_counts(remedy: &str) {
    retry_if_machine_slow(&format!("postgres: renewals and {remedy}"), LEASE, |lease| {
        let (server, sandbox) = (PostgresServer::start(), Sandbox::new());
        let leader = within(lease, &sandbox, &server.url()).start();
        let led = sandbox.starts(1).latest();
        let next = within(lease, &sandbox, &server.url()).start();
        next.wait_until_waiting();
        let end = sandbox.watch_the_end_of(led.pid);
        let remedies = ends_waits(&server, remedy);
        waits_in_vain(&server);
        let struck = now();
        let late = end.join().expect("the watch on the old tree").saturating_sub(struck);
        if remedy == CANCEL {
            leader.wait_for_log(NOT_CONFIRMED);
        }
        throughout(LONG_ENOUGH, "nobody leads", || sandbox.history().starts.len() == 1);
        drop(remedies);
        waits_for_nothing(&server);
        assert!(sandbox.starts(2).latest().term > led.term);
        next.terminate();
        leader.terminate();
        sandbox.history().is_safe();
        println!("figures: postgres: waits of a leader's commits ended by {remedy}: dead after {}", millis(late));
        assert_in_time(late < lease, || format!("dead within its lease: {late:?}"));
    });
}

/// The release is visible, and may be forgotten: the next one takes it as any other record, and is not credited before the standby
/// has all of it.
fn a_release_without_its_standby_hands_over_when_a_take_counts(remedy: &str) {
    let (server, sandbox) = (PostgresServer::start(), Sandbox::new());
    let mut leader = at(&sandbox, &server.url()).start();
    let led = sandbox.starts(1).latest();
    let remedies = ends_waits(&server, remedy);
    waits_in_vain(&server);
    leader.signal(nix::sys::signal::Signal::SIGTERM);
    leader.wait();
    let next = at(&sandbox, &server.url()).start();
    throughout(LONG_ENOUGH, "nobody leads", || sandbox.history().starts.len() == 1);
    drop(remedies);
    waits_for_nothing(&server);
    assert!(sandbox.starts(2).latest().term > led.term);
    next.terminate();
    sandbox.history().is_safe();
}

#[test]
fn a_commit_whose_wait_for_the_standby_was_ended_is_never_credited() {
    let cases: [fn(&str); 3] = [
        no_take_without_its_standby_counts,
        no_renewal_without_its_standby_counts,
        a_release_without_its_standby_hands_over_when_a_take_counts,
    ];
    std::thread::scope(|scope| {
        let all = cases.iter().flat_map(|case| [CANCEL, TERMINATE].map(|remedy| scope.spawn(move || case(remedy))));
        for one in all.collect::<Vec<_>>() {
            one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    });
}

// ---- failovers

/// A fault of the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PrimaryFault {
    /// From its standbys, not from its clients.
    CutOff,
    /// The same, and an operator ends the waits of its commits.
    CutOffWithWaitsEnded,
    Stopped,
    Killed,
}

impl PrimaryFault {
    fn strike(self, cluster: &Cluster) -> Option<RepeatedStatement> {
        match self {
            PrimaryFault::CutOff => cluster.cut_off(),
            PrimaryFault::CutOffWithWaitsEnded => {
                let remedies = ends_waits(cluster.primary(), CANCEL);
                cluster.cut_off();
                return Some(remedies);
            }
            PrimaryFault::Stopped => cluster.primary().stop(),
            PrimaryFault::Killed => cluster.primary().kill(),
        }
        None
    }
}

/// A leader that knows only the server which was the primary at first, whatever becomes of it.
struct FailoverScenario {
    cluster: Cluster,
    sandbox: Sandbox,
    lease: Duration,
}

impl FailoverScenario {
    fn of(replication: Replication, lease: Duration) -> FailoverScenario {
        FailoverScenario { cluster: Cluster::start(replication), sandbox: Sandbox::new(), lease }
    }

    fn candidate(&self, url: &str) -> CandidateProcess {
        within(self.lease, &self.sandbox, url).start()
    }

    /// Always at that server.
    fn loyal(&self, index: usize) -> CandidateProcess {
        self.candidate(&self.cluster.servers[index].url())
    }

    /// Knows the primary and the standby that is promoted.
    fn of_both(&self) -> CandidateProcess {
        self.candidate(&self.cluster.url())
    }
}

fn first(cluster: &Cluster) -> String {
    cluster.servers[0].url()
}

/// Returns from the fault to the end of the old tree, and to the next start.
fn promotes_a_synchronous_standby(fault: PrimaryFault, lease: Duration) -> [Duration; 2] {
    let scenario = FailoverScenario::of(Replication::Synchronous, lease);
    let (sandbox, cluster) = (&scenario.sandbox, &scenario.cluster);
    let leader = scenario.loyal(0);
    let led = sandbox.starts(1).latest();
    let next = scenario.of_both();
    next.wait_until_waiting();
    let end = sandbox.watch_the_end_of(led.pid);
    let struck = now();
    let remedies = fault.strike(cluster);
    cluster.promote_alone(1);
    // One who comes to the side of the old primary, and one who comes to the other.
    let others = [scenario.loyal(0), scenario.loyal(1)];
    let started = sandbox.starts(2).latest();
    sandbox.history().is_safe();
    let ended = end.join().expect("the watch on the old tree");
    assert!(started.term > led.term, "terms rise: {started:?} after {led:?}");
    drop(remedies);
    cluster.servers[0].kill();
    for one in others.into_iter().chain([next, leader]) {
        one.kill_with_keeper();
    }
    sandbox.history().is_safe();
    [ended.saturating_sub(struck), started.at.saturating_sub(struck)]
}

fn survives_each(fault: PrimaryFault) {
    retry_if_machine_slow(&format!("postgres: primary {fault:?}"), LEASE, |lease| {
        let times = a_few_at_once(few(), || promotes_a_synchronous_standby(fault, lease));
        let latest = |index: usize| times.iter().map(|times| times[index]).max().unwrap_or_default();
        println!(
            "figures: postgres: synchronous standby promoted, primary {fault:?}: {} runs, 0 overlaps, dead after {} at the most, \
             next one after {}",
            times.len(),
            millis(latest(0)),
            millis(latest(1))
        );
        assert_in_time(latest(0) < lease, || format!("dead within its lease: {:?}", latest(0)));
    });
}

#[test]
fn a_leader_on_a_primary_that_was_cut_off_is_dead_before_the_next_one_starts() {
    survives_each(PrimaryFault::CutOff);
}

#[test]
fn a_leader_whose_waits_were_ended_on_a_primary_that_was_cut_off_is_dead_before_the_next_one_starts() {
    survives_each(PrimaryFault::CutOffWithWaitsEnded);
}

#[test]
fn a_leader_on_a_primary_that_stands_still_is_dead_before_the_next_one_starts() {
    survives_each(PrimaryFault::Stopped);
}

#[test]
fn a_leader_on_a_primary_that_was_killed_is_dead_before_the_next_one_starts() {
    survives_each(PrimaryFault::Killed);
}

/// The standby is promoted while the primary, which waits for no standby, goes on. Returns whether two led, the time until the
/// leader was dead, and that until the next one started.
fn promotes_beside_a_primary(
    leader: fn(&FailoverScenario) -> CandidateProcess,
    lease: Duration,
) -> (bool, [Duration; 2]) {
    let scenario = FailoverScenario::of(Replication::Asynchronous, lease);
    let (sandbox, cluster) = (&scenario.sandbox, &scenario.cluster);
    let leader = leader(&scenario);
    let led = sandbox.starts(1).latest();
    let end = sandbox.watch_the_end_of(led.pid);
    cluster.promote_alone(1);
    let struck = now();
    let next = scenario.loyal(1);
    let started = sandbox.starts(2).latest();
    let is_double = !sandbox.history().overlaps.is_empty();
    assert!(is_double || end.is_finished());
    assert!(started.term > led.term, "terms rise: {started:?} after {led:?}");
    leader.kill_with_keeper();
    next.kill_with_keeper();
    let ended = end.join().expect("the watch on the old tree");
    (is_double, [ended.saturating_sub(struck), started.at.saturating_sub(struck)])
}

/// The positive control of the next test: this is the reason for synchronous standbys, and for naming all hosts.
#[test]
fn a_primary_beside_an_asynchronous_standby_that_was_promoted_keeps_a_leader_that_knows_no_other() {
    retry_if_machine_slow("postgres: asynchronous, one host", LEASE, |lease| {
        let all = a_few_at_once(few(), || promotes_beside_a_primary(|scenario| scenario.loyal(0), lease).0);
        let double = all.iter().filter(|is_double| **is_double).count();
        println!(
            "figures: postgres: asynchronous standby promoted, one host in the URL: {} runs, {double} with two leaders",
            all.len()
        );
        assert_in_time(double == all.len(), || format!("{double} of {} with two leaders", all.len()));
    });
}

#[test]
fn a_leader_that_knows_the_promoted_standby_is_dead_before_the_next_one_starts() {
    retry_if_machine_slow("postgres: asynchronous, both hosts", LEASE, |lease| {
        let all = a_few_at_once(few(), || promotes_beside_a_primary(FailoverScenario::of_both, lease));
        let latest = |index: usize| all.iter().map(|(_, times)| times[index]).max().unwrap_or_default();
        let double = all.iter().filter(|(is_double, _)| *is_double).count();
        println!(
            "figures: postgres: asynchronous standby promoted, both hosts in the URL: {} runs, {double} with two leaders, dead \
             after {} at the most, next one after {}",
            all.len(),
            millis(latest(0)),
            millis(latest(1))
        );
        assert_eq!(double, 0);
        assert_in_time(latest(0) < lease / 2, || format!("told within a renewal interval: {:?}", latest(0)));
    });
}

/// The record on the standby when its primary has a leader of which it has not heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RecordBehind {
    Missing,
    Free,
}

/// It may have forgotten a leader, whatever it knows.
fn a_promoted_standby_makes_the_next_one_wait(record: RecordBehind) {
    let scenario = FailoverScenario::of(Replication::Asynchronous, LEASE);
    let (sandbox, cluster) = (&scenario.sandbox, &scenario.cluster);
    if record == RecordBehind::Free {
        let ended = at(sandbox, &first(cluster)).command(["true"]).run();
        assert!(ended.status.success(), "{ended:?}");
        let question = format!("SELECT state FROM \"{}\".elect_boundaries WHERE boundary = 'cron'", sandbox.database());
        until("the standby knows", || cluster.servers[1].try_sql(&question).is_ok_and(|said| said.trim() == "free"));
    }
    cluster.cut_off();
    let leader = scenario.of_both();
    let led = sandbox.starts(1).latest();
    let struck = now();
    cluster.promote_alone(1);
    let next = scenario.loyal(1);
    let started = sandbox.starts(2).latest();
    let waited = started.at.saturating_sub(struck);
    assert!(waited >= LEASE, "{record:?}: it has started after {waited:?}");
    assert!(started.term > led.term, "terms rise: {started:?} after {led:?}");
    sandbox.history().is_safe();
    next.terminate();
    leader.terminate();
    sandbox.history().is_safe();
}

#[test]
fn a_promoted_standby_that_has_no_record_makes_the_next_one_wait_for_a_lease() {
    a_promoted_standby_makes_the_next_one_wait(RecordBehind::Missing);
}

#[test]
fn a_promoted_standby_whose_record_is_free_makes_the_next_one_wait_for_a_lease() {
    a_promoted_standby_makes_the_next_one_wait(RecordBehind::Free);
}

#[test]
fn with_synchronous_required_nobody_leads_until_a_standby_is_configured() {
    let (cluster, sandbox) = (Cluster::start(Replication::Asynchronous), Sandbox::new());
    let url = format!("{}&synchronous=required", cluster.servers[0].url());
    let candidate = at(&sandbox, &url).start();
    candidate.wait_for_log("no synchronous standby");
    throughout(LONG_ENOUGH, "nobody leads", || sandbox.history().starts.is_empty());
    cluster.primary().set("synchronous_standby_names", "server1");
    let led = sandbox.starts(1).latest();
    // The last standby goes, and with it the promise.
    let end = sandbox.watch_the_end_of(led.pid);
    cluster.primary().set("synchronous_standby_names", "");
    until("the leader is gone", || end.is_finished());
    throughout(LONG_ENOUGH, "nobody leads", || sandbox.history().starts.len() == 1);
    candidate.terminate();
    sandbox.history().is_safe();
}
