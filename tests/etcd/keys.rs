//! Keys that other programs change, read and write.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::{LEASE, candidate, candidate_for, patient};
use crate::etcd::server::EtcdServer;
use crate::harness::timing_verdict::{assert_in_time, retry_if_machine_slow};
use crate::harness::wait::{eventually, now, since, throughout, until};
use crate::harness::{CandidateProcess, ElectCmd, Measurements, Sandbox, Witness, few, processes};
use crate::leases::{relay_for, written};

/// A server of its own, with the usual prefix: what `etcdctl` is told can be read here.
pub struct QueueScenario {
    pub etcd: EtcdServer,
    pub sandbox: Sandbox,
}

impl QueueScenario {
    pub fn new() -> QueueScenario {
        QueueScenario { etcd: EtcdServer::start(), sandbox: Sandbox::new() }
    }

    pub fn candidate(&self) -> ElectCmd {
        candidate(&self.sandbox, self.etcd.url())
    }

    pub fn start(&self) -> CandidateProcess {
        self.candidate().witness(&Witness::new().daemon()).start()
    }

    /// For tests in which the lease is not the subject.
    pub fn start_patient(&self) -> CandidateProcess {
        patient(&self.sandbox, self.etcd.url()).witness(&Witness::new().daemon()).start()
    }

    /// The keys of `cron`, in the order of the queue.
    pub fn queue(&self) -> Vec<String> {
        let words = ["get", "--prefix", "--keys-only", "--sort-by=CREATE", "--order=ASCEND", "/elect/cron/"];
        self.etcd.etcdctl(&words).lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
    }

    pub fn key(&self, number: usize) -> String {
        self.queue().into_iter().nth(number).expect("so many candidates")
    }

    pub fn lease(&self, number: usize) -> String {
        self.key(number).rsplit('/').next().expect("the last part").to_owned()
    }

    /// A leader and a waiter; then something is done to the leader's claim, and the waiter takes over at once.
    fn strikes(&self, what: &str, strike: impl Fn()) {
        // Its next renewal is so far away that only the watch can tell it soon.
        let start = || candidate_for(&self.sandbox, self.etcd.url(), "60s").witness(&Witness::new().daemon()).start();
        let mut measurements = Measurements::default();
        let mut leader = start();
        let mut told_by_watch = 0;
        for run in 1..=few() {
            let led = self.sandbox.starts(run).latest();
            let next = start();
            next.wait_until_waiting();
            let end = self.sandbox.watch_the_end_of(led.pid);
            strike();
            let struck = now();
            let started = self.sandbox.starts(run + 1).latest();
            let ended = end.join().expect("the watch on the old tree");
            // Not before: the next one did not wait for it.
            measurements.survivors += leader.tree().len();
            measurements.endings.push(ended.saturating_sub(struck));
            measurements.handovers.push(started.at.max(ended).saturating_sub(ended));
            leader.wait_for_log("leadership lost: killing the command");
            // A renewal that was due in that moment may have found out first; it would have given its own reason.
            told_by_watch += usize::from(leader.log().contains("(what this candidate held has vanished"));
            // Its next candidacy is not held up by the key or lease that is gone.
            leader.wait_until_waiting();
            leader.terminate();
            leader = next;
        }
        leader.terminate();
        measurements.overlaps = self.sandbox.history().overlaps.len();
        measurements.print(&format!("etcd: {what}"));
        assert_eq!(measurements.survivors, 0, "{what}");
        assert!(told_by_watch > 0, "{what}: no watch, but a renewal has told the leader each time");
        // The next one did not wait for it: whoever deletes keys has the term, and it has risen.
        let terms: Vec<u64> = self.sandbox.history().starts.iter().map(|start| start.term).collect();
        assert!(terms.is_sorted_by(|one, next| one < next), "{terms:?}");
        let latest = measurements.endings.iter().max().copied().unwrap_or_default();
        assert!(latest < Duration::from_secs(6), "killed at once, by the watch and not by a renewal: {latest:?}");
    }
}

#[test]
fn a_leader_whose_key_is_deleted_is_killed_at_once() {
    let scenario = QueueScenario::new();
    scenario.strikes("the leader's key deleted", || drop(scenario.etcd.etcdctl(&["del", &scenario.key(0)])));
}

#[test]
fn a_leader_whose_lease_is_revoked_is_killed_at_once() {
    let scenario = QueueScenario::new();
    scenario.strikes("the leader's lease revoked", || {
        drop(scenario.etcd.etcdctl(&["lease", "revoke", &scenario.lease(0)]));
    });
}

/// Something is done to the second of three; it comes back behind the third, and leads last.
fn a_waiter_rejoins(strike: impl Fn(&QueueScenario)) {
    let scenario = QueueScenario::new();
    let [first, second, third] = [1, 2, 3].map(|number| {
        let candidate = scenario.start_patient();
        until("it stands in the queue", || scenario.queue().len() == number);
        candidate
    });
    scenario.sandbox.starts(1);
    second.wait_until_waiting();
    third.wait_until_waiting();
    let (lost, last) = (scenario.key(1), scenario.key(2));
    strike(&scenario);
    until("it stands at the back of the queue", || {
        let queue = scenario.queue();
        queue.len() == 3 && queue[1] == last
    });
    if scenario.queue()[2] == lost {
        println!("figures: etcd: the waiter's key was made again on its old lease");
    }
    throughout(Duration::from_millis(300), "one leads", || scenario.sandbox.history().starts.len() == 1);
    first.terminate();
    let led = scenario.sandbox.starts(2).latest();
    assert!(third.tree().iter().any(|process| process.pid == led.pid), "the third was before it");
    third.terminate();
    let led = scenario.sandbox.starts(3).latest();
    assert!(second.tree().iter().any(|process| process.pid == led.pid), "it leads at last, with a key");
    assert_eq!(scenario.queue().len(), 1);
    second.terminate();
    scenario.sandbox.history().is_safe();
}

#[test]
fn a_waiter_whose_key_is_deleted_queues_again_and_never_leads_without_one() {
    a_waiter_rejoins(|scenario| drop(scenario.etcd.etcdctl(&["del", &scenario.key(1)])));
}

#[test]
fn a_waiter_whose_lease_is_revoked_queues_again_and_never_leads_without_one() {
    a_waiter_rejoins(|scenario| drop(scenario.etcd.etcdctl(&["lease", "revoke", &scenario.lease(1)])));
}

#[test]
fn a_waiter_that_slept_through_its_lease_does_not_wake_up_as_a_phantom_leader() {
    // etcd #19597: its own election service returns leadership to a waiter whose key is gone.
    let scenario = QueueScenario::new();
    let first = scenario.start_patient();
    scenario.sandbox.starts(1);
    let second = scenario.start();
    until("it stands in the queue", || scenario.queue().len() == 2);
    second.signal(Signal::SIGSTOP);
    until("its key is gone", || scenario.queue().len() == 1);
    first.terminate();
    let third = scenario.start_patient();
    scenario.sandbox.starts(2);
    second.signal(Signal::SIGCONT);
    until("it queues again", || scenario.queue().len() == 2);
    throughout(Duration::from_millis(500), "one leads", || scenario.sandbox.history().starts.len() == 2);
    third.terminate();
    scenario.sandbox.starts(3);
    second.terminate();
    scenario.sandbox.history().is_safe();
}

#[test]
fn a_killed_waiter_frees_its_place() {
    let scenario = QueueScenario::new();
    let leader = scenario.start_patient();
    scenario.sandbox.starts(1);
    let mut waiter = scenario.start_patient();
    until("it stands in the queue", || scenario.queue().len() == 2);
    waiter.signal(Signal::SIGKILL);
    waiter.wait();
    let killed = now();
    until("its keeper gives its place back", || scenario.queue().len() == 1);
    assert!(since(killed) < Duration::from_secs(30), "before the lease would have run out: {:?}", since(killed));
    until("and is gone", || waiter.all().is_empty());
    leader.terminate();
}

#[test]
fn a_compaction_does_not_disturb_a_hand_over() {
    retry_if_machine_slow("hand-over after a compaction", Duration::from_millis(500), hand_over_after_compaction);
}

fn hand_over_after_compaction(limit: Duration) {
    let scenario = QueueScenario::new();
    let first = scenario.start();
    scenario.sandbox.starts(1);
    let second = scenario.start();
    second.wait_until_waiting();
    for round in 0..50 {
        scenario.etcd.etcdctl(&["put", "/elsewhere", &round.to_string()]);
    }
    let revision = scenario.etcd.etcdctl(&["get", "/elsewhere", "-w", "fields"]);
    let revision =
        revision.lines().find_map(|line| line.strip_prefix("\"Revision\" : ")).expect("a revision").trim().to_owned();
    scenario.etcd.etcdctl(&["compact", &revision]);
    let third = scenario.start();
    third.wait_until_waiting();
    let led = scenario.sandbox.history().latest();
    let end = scenario.sandbox.watch_the_end_of(led.pid);
    first.terminate();
    let started = scenario.sandbox.starts(2).latest();
    let handover = started.at.saturating_sub(end.join().expect("the watch on the old tree"));
    assert_in_time(handover < limit, || format!("by its watch: {handover:?}"));
    second.terminate();
    scenario.sandbox.starts(3);
    third.terminate();
    scenario.sandbox.history().is_safe();
}

#[test]
fn boundaries_with_similar_names_are_different_boundaries() {
    let scenario = QueueScenario::new();
    let candidates = ["a", "a/b", "a2"].map(|boundary| {
        let sandbox = Sandbox::new();
        let candidate = candidate(&sandbox, scenario.etcd.url()).boundary(boundary).witness(&Witness::new()).start();
        sandbox.starts(1);
        (sandbox, candidate)
    });
    let all = ElectCmd::new(&scenario.sandbox).store(scenario.etcd.url()).status(&[]).run();
    let led: Vec<&str> = all.stdout.lines().skip(1).filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(led, ["a", "a/b", "a2"], "{all:?}");
    for (sandbox, candidate) in candidates {
        candidate.terminate();
        sandbox.history().is_safe();
    }
}

// ---- etcdctl in the same election

/// `etcdctl elect`, until it is dropped.
pub struct Etcdctl(Child);

impl Etcdctl {
    pub fn elect(etcd: &EtcdServer, words: &[&str], output: Stdio) -> Etcdctl {
        let all = etcd.etcdctl_at(&etcd.address());
        let mut command = Command::new(&all[0]);
        command.args(&all[1..]).arg("elect").args(words).env("ETCDCTL_API", "3");
        Etcdctl(command.stdin(Stdio::null()).stdout(output).spawn().expect("etcdctl is installed"))
    }

    pub fn stop(&mut self) {
        processes::signal(i32::try_from(self.0.id()).expect("small"), Signal::SIGTERM);
        self.0.wait().expect("a child of ours");
    }
}

impl Drop for Etcdctl {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn status(scenario: &QueueScenario) -> String {
    ElectCmd::new(&scenario.sandbox).store(scenario.etcd.url()).status(&["cron"]).run().stdout
}

#[test]
fn elect_waits_for_etcdctl_elect_and_status_shows_it() {
    let scenario = QueueScenario::new();
    let mut other = Etcdctl::elect(&scenario.etcd, &["/elect/cron", "somebody else"], Stdio::null());
    until("it leads", || status(&scenario).contains("somebody else leads"));
    let ours = scenario.start();
    ours.wait_for_log("waiting: somebody else leads");
    throughout(Duration::from_secs(1), "it waits", || scenario.sandbox.history().starts.is_empty());
    other.stop();
    scenario.sandbox.starts(1);
    assert!(status(&scenario).contains("term "), "{}", status(&scenario));
    ours.terminate();
}

#[test]
fn etcdctl_elect_waits_for_elect_and_listens_to_it() {
    let scenario = QueueScenario::new();
    let ours = scenario.candidate().flag("--name", "web-1").witness(&Witness::new()).start();
    scenario.sandbox.starts(1);
    let heard = scenario.sandbox.path().join("heard");
    let file = || std::fs::File::options().append(true).create(true).open(&heard).expect("a file");
    let _listener = Etcdctl::elect(&scenario.etcd, &["--listen", "/elect/cron"], file().into());
    until("it hears of our leader", || {
        std::fs::read_to_string(&heard).is_ok_and(|text| text.contains("\"name\":\"web-1\""))
    });
    let won = scenario.sandbox.path().join("won");
    let output = std::fs::File::create(&won).expect("a file");
    let _other = Etcdctl::elect(&scenario.etcd, &["/elect/cron", "somebody else"], output.into());
    until("it stands in the queue", || scenario.queue().len() == 2);
    let waiting = status(&scenario);
    assert!(waiting.contains("web-1 leads") && waiting.contains("waiting: somebody else"), "{waiting}");
    assert_eq!(std::fs::read_to_string(&won).expect("its output"), "", "it waits");
    ours.terminate();
    until("it leads", || std::fs::read_to_string(&won).is_ok_and(|text| text.contains("somebody else")));
    eventually("the listener hears of it", || {
        std::fs::read_to_string(&heard).ok().filter(|text| text.contains("somebody else"))
    });
}

#[test]
fn a_relay_through_etcd_raises_the_term_each_time() {
    let etcd = EtcdServer::start();
    retry_if_machine_slow("etcd: a relay", LEASE, |lease| {
        let ttl = written(lease);
        let relay = relay_for(4, &etcd, &ttl);
        let measurements = relay.run(|leader| leader.signal(Signal::SIGTERM), |leader| leader.ends_with(0));
        assert_eq!(measurements.handovers.len(), 4);
    });
}
