//! Answers that never come: of writes that were made, and of writes that are made later than anybody waits for.

use std::time::Duration;

use ::mongodb::bson::doc;

use super::elect;
use crate::harness::proxy::{Proxy, ProxyMode};
use crate::harness::server::StoreServer;
use crate::harness::timing_verdict::{assert_in_time, retry_if_machine_slow, throughout_in_time};
use crate::harness::wait::{eventually, now, since, throughout, until};
use crate::harness::{CandidateProcess, ElectCmd, Sandbox, Witness, few, millis, side_by_side};
use crate::leases::{candidate_for, patient, through, written};
use crate::mongodb::server::{COLLECTION, Mongod, MongodOptions, SingleNodeReplicaSet, has};

/// An attempt may take a tenth of it.
const LEASE: Duration = Duration::from_secs(10);

/// Shorter than an attempt: time enough to close the way back.
fn a_moment(lease: Duration) -> Duration {
    lease * 7 / 100
}

/// Longer than an attempt.
fn too_long(lease: Duration) -> Duration {
    lease / 4
}

/// A record is changed, or made, by one of these.
const WRITES: [&str; 1] = ["findAndModify"];

/// A server that can be told to be late, and a way to it that can be cut.
struct LostReplyScenario<S> {
    server: S,
    proxy: Proxy,
    sandbox: Sandbox,
    lease: Duration,
}

impl<S: StoreServer> LostReplyScenario<S> {
    fn set(start: fn(&MongodOptions) -> S, lease: Duration) -> LostReplyScenario<S> {
        let server = start(&MongodOptions::new().with_faults());
        LostReplyScenario { proxy: Proxy::to(&server.address()), server, sandbox: Sandbox::new(), lease }
    }

    fn elect(&self) -> ElectCmd {
        let store = through::<S>(&self.proxy, &self.sandbox);
        candidate_for(&self.sandbox, store, &written(self.lease)).witness(&Witness::new())
    }

    /// A candidate whose way to the server is never cut.
    fn elect_beside(&self) -> ElectCmd {
        candidate_for(&self.sandbox, self.server.url_for(&self.sandbox), &written(self.lease)).witness(&Witness::new())
    }

    /// A candidate has led, and released.
    fn led_before(&self) {
        let first = self.elect_beside().command(["true"]).run();
        assert_eq!(first.status.code(), Some(0), "{first:?}");
    }

    /// The next write is made, and its answer is lost with the connection. Returns when the way was open again.
    fn loses_the_answer<T>(&self, mongod: &Mongod, meanwhile: impl FnOnce() -> T) -> (T, Duration) {
        let seen = mongod.record(&self.sandbox);
        let result = mongod.delays(&WRITES, a_moment(self.lease), meanwhile);
        self.proxy.mode(ProxyMode::AnswersHeld);
        assert_in_time(mongod.record(&self.sandbox) == seen, || "the way back was closed too late".to_owned());
        // A client that has given up by then is gone, and the server may not make the write of one that is.
        let closed = now();
        until("the write is made, or was given up", || {
            mongod.record(&self.sandbox) != seen || since(closed) > self.lease
        });
        assert_in_time(mongod.record(&self.sandbox) != seen, || "the write is not made".to_owned());
        self.proxy.mode(ProxyMode::Closed);
        self.proxy.mode(ProxyMode::Open);
        (result, now())
    }
}

fn tell(name: &str, what: &str, took: Duration) {
    println!("figures: {name}: {what}: leads {} after the way is open", millis(took));
}

/// It has taken the record and does not know: it finds out, and waits neither for itself nor twice.
fn finds_its_own_take<S: StoreServer>(start: fn(&MongodOptions) -> S, asked: fn(&S) -> &Mongod, first: bool) {
    retry_if_machine_slow("answer to a take lost", LEASE, |lease| {
        finds_its_own_take_within(lease, start, asked, first);
    });
}

fn finds_its_own_take_within<S: StoreServer>(
    lease: Duration,
    start: fn(&MongodOptions) -> S,
    asked: fn(&S) -> &Mongod,
    first: bool,
) {
    let scenario = LostReplyScenario::set(start, lease);
    if !first {
        scenario.led_before();
    }
    let (leader, opened) = scenario.loses_the_answer(asked(&scenario.server), || scenario.elect().start());
    let taken = asked(&scenario.server).record(&scenario.sandbox).expect("a record").get_i64("term").expect("a term");
    let led = scenario.sandbox.starts(1).latest();
    tell(S::NAME, if first { "answer to the first take of all lost" } else { "answer to a take lost" }, since(opened));
    assert_in_time(since(opened) < lease / 2, || format!("it waits for its own record: {:?}", since(opened)));
    assert!(led.term >= u64::try_from(taken).expect("a term"));
    leader.terminate();
    assert_eq!(scenario.sandbox.history().starts.len(), 1);
    scenario.sandbox.history().is_safe();
}

#[test]
fn a_take_whose_answer_was_lost_is_found_and_not_waited_for() {
    for _ in 0..few().div_ceil(4) {
        side_by_side(few().min(4), || finds_its_own_take(SingleNodeReplicaSet::with, |set| set, false));
        side_by_side(few().min(4), || finds_its_own_take(Mongod::with, |mongod| mongod, false));
    }
}

#[test]
fn the_first_take_of_all_whose_answer_was_lost_is_found_and_not_waited_for() {
    finds_its_own_take(SingleNodeReplicaSet::with, |set| set, true);
    finds_its_own_take(Mongod::with, |mongod| mongod, true);
}

#[test]
fn a_renewal_whose_answer_was_lost_costs_nobody_the_lead() {
    retry_if_machine_slow("answers to renewals lost", LEASE, |lease| {
        let scenario = LostReplyScenario::set(SingleNodeReplicaSet::with, lease);
        let leader = scenario.elect().start();
        scenario.sandbox.starts(1);
        let next = scenario.elect_beside().start();
        next.wait_until_waiting();
        for _ in 0..few().min(5) {
            scenario.loses_the_answer(&scenario.server, || ());
        }
        throughout_in_time(lease / 2, "it goes on leading", || scenario.sandbox.history().starts.len() == 1);
        assert_in_time(!leader.log().contains("lost"), || leader.log());
        leader.terminate();
        next.terminate();
        scenario.sandbox.history().is_safe();
    });
}

#[test]
fn a_release_whose_answer_was_lost_has_released() {
    retry_if_machine_slow("answer to a release lost", LEASE, |lease| {
        let scenario = LostReplyScenario::set(SingleNodeReplicaSet::with, lease);
        let leader = scenario.elect().start();
        scenario.sandbox.starts(1);
        let next = scenario.elect_beside().start();
        next.wait_until_waiting();
        // Beside the election it creates an index, on the connection that it has. The release would make one of its own.
        until("it does nothing else", || {
            let listed = scenario.server.try_command(&scenario.sandbox.database(), doc! { "listIndexes": COLLECTION });
            listed.is_ok_and(|listed| listed.to_string().contains("elect_unused"))
        });
        leader.signal(nix::sys::signal::Signal::SIGTERM);
        let stopped = now();
        until("its command is gone", || leader.tree().is_empty());
        scenario.proxy.mode(ProxyMode::AnswersHeld);
        scenario.sandbox.starts(2);
        assert_in_time(since(stopped) < lease, || format!("{:?}", since(stopped)));
        scenario.proxy.mode(ProxyMode::Closed);
        drop(leader);
        next.terminate();
        scenario.sandbox.history().is_safe();
    });
}

/// A write that nobody waits for any more: nobody leads by it, and nobody is ousted by it. The server may have seen its client
/// go, and not make it at all.
fn a_late_write<S: StoreServer>(start: fn(&MongodOptions) -> S, asked: fn(&S) -> &Mongod, first: bool) {
    retry_if_machine_slow("a write that is made late", LEASE, |lease| a_late_write_within(lease, start, asked, first));
}

fn a_late_write_within<S: StoreServer>(
    lease: Duration,
    start: fn(&MongodOptions) -> S,
    asked: fn(&S) -> &Mongod,
    first: bool,
) {
    let scenario = LostReplyScenario::set(start, lease);
    if !first {
        scenario.led_before();
    }
    let mongod = asked(&scenario.server);
    let began = now();
    let leader: CandidateProcess = mongod.delays(&WRITES, too_long(lease), || scenario.elect().start());
    let led = scenario.sandbox.starts(1).latest();
    println!(
        "figures: {}: {} that would be made {} after it was asked for: leads after {}",
        S::NAME,
        if first { "a first take" } else { "a take" },
        millis(too_long(lease)),
        millis(led.at.saturating_sub(began))
    );
    until("the late write is over", || since(began) > too_long(lease) * 2);
    throughout_in_time(lease / 2, "it goes on leading", || scenario.sandbox.history().starts.len() == 1);
    assert_in_time(since(began) < lease * 3, || format!("{:?}", since(began)));
    assert!(!leader.log().contains("leadership lost"), "{}", leader.log());
    leader.terminate();
    scenario.sandbox.history().is_safe();
}

#[test]
fn a_take_that_takes_longer_than_anybody_waits_for_it_neither_leads_nor_ousts() {
    std::thread::scope(|scope| {
        for first in [false, true] {
            scope.spawn(move || a_late_write(SingleNodeReplicaSet::with, |set| set, first));
            scope.spawn(move || a_late_write(Mongod::with, |mongod| mongod, first));
        }
    });
}

#[test]
fn a_renewal_that_is_made_late_does_not_bring_back_who_has_released() {
    retry_if_machine_slow("a renewal that is made late", LEASE, |lease| {
        let scenario = LostReplyScenario::set(SingleNodeReplicaSet::with, lease);
        let leader = scenario.elect().start();
        scenario.sandbox.starts(1);
        // The renewal is under way, and its sender dies with all that belongs to it.
        scenario.server.delays(&["findAndModify"], too_long(lease), || ());
        let next = scenario.elect_beside().start();
        leader.terminate();
        scenario.sandbox.starts(2);
        let leads_on = || scenario.sandbox.history().starts.len() == 2;
        throughout_in_time(too_long(lease) * 2, "the next one goes on leading", leads_on);
        eventually("the record is its own", || {
            let record = scenario.server.record(&scenario.sandbox)?;
            let led = i64::try_from(scenario.sandbox.history().latest().term).expect("a term");
            has(&record, "term", led).then_some(())
        });
        next.terminate();
        scenario.sandbox.history().is_safe();
    });
}

#[test]
fn whoever_asks_only_once_goes_as_soon_as_somebody_is_seen_to_lead() {
    let (set, sandbox) = (SingleNodeReplicaSet::start(), Sandbox::new());
    let leader = elect(&sandbox, &set, "60s").flag("--renew", "1s").start();
    sandbox.starts(1);
    for ttl in ["30s", "60s"] {
        let began = now();
        let ended = elect(&sandbox, &set, ttl).switch("-n").run();
        println!(
            "figures: mongodb: -n with ttl {ttl} beside a leader that renews each second: 75 after {}",
            millis(since(began))
        );
        assert_eq!(ended.status.code(), Some(75), "{ended:?}");
        assert!(since(began) < Duration::from_secs(30), "with the leader's next renewal: {:?}", since(began));
        let quiet = elect(&sandbox, &set, ttl).switch("-q").switch("-n").run();
        assert_eq!((quiet.status.code(), quiet.stderr.as_str()), (Some(75), ""), "silent");
    }
    leader.terminate();
    sandbox.history().is_safe();
}

#[test]
fn a_leader_that_was_cut_off_alone_does_not_wait_for_itself() {
    retry_if_machine_slow("mongodb: alone after an outage", Duration::from_secs(3), |lease| {
        let (set, sandbox) = (SingleNodeReplicaSet::start(), Sandbox::new());
        let proxy = Proxy::to(&set.address());
        let leader = candidate_for(&sandbox, through::<SingleNodeReplicaSet>(&proxy, &sandbox), &written(lease))
            .witness(&Witness::new())
            .start();
        sandbox.starts(1);
        proxy.mode(ProxyMode::Closed);
        leader.wait_for_log("the lease runs out");
        until("its command is gone", || leader.tree().is_empty());
        let before = sandbox.history().starts.len();
        proxy.mode(ProxyMode::Open);
        let opened = now();
        sandbox.starts(before + 1);
        println!("figures: mongodb: alone after an outage: leads again after {}", millis(since(opened)));
        assert_in_time(since(opened) < lease, || format!("{:?}", since(opened)));
        leader.terminate();
        sandbox.history().is_safe();
    });
}

#[test]
fn thirty_who_begin_at_once_have_one_leader_at_a_time() {
    let sandbox = Sandbox::new();
    let set = SingleNodeReplicaSet::start();
    let count = if few() > 2 { 30 } else { 10 };
    let mut all: Vec<CandidateProcess> =
        (0..count).map(|_| patient(&sandbox, set.url_for(&sandbox)).witness(&Witness::new()).start()).collect();
    sandbox.starts(1);
    // The leader may have waited too, for an answer of the server that so many ask at once.
    let waits = |one: &CandidateProcess| !one.tree().is_empty() || one.log().contains("waiting: ");
    until("the others wait", || all.iter().all(waits));
    assert_eq!(sandbox.history().starts.len(), 1);
    for round in 2..=4 {
        let led = sandbox.history().latest();
        let leads = |one: &CandidateProcess| one.tree().iter().any(|process| process.pid == led.pid);
        let index = eventually("one of them leads", || all.iter().position(leads));
        all.swap_remove(index).terminate();
        sandbox.starts(round);
        // Each sees it, and looks again.
        throughout(Duration::from_millis(500), "one leads", || sandbox.history().starts.len() == round);
    }
    sandbox.history().is_safe();
}
