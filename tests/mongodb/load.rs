//! Many candidates on one mongod.

use std::time::Duration;

use super::elect;
use crate::harness::resource_usage::ResourceUsage;
use crate::harness::server::StoreServer;
use crate::harness::timing_verdict::{assert_in_time, retry_if_machine_slow};
use crate::harness::wait::{eventually, now, since, until};
use crate::harness::{CandidateProcess, Sandbox, is_long, millis};
use crate::leases::{candidate_for, real, written};
use crate::mongodb::server::{Mongod, SingleNodeReplicaSet};

fn cpu(candidate: &CandidateProcess) -> Duration {
    ResourceUsage::of(candidate.pid()).cpu + ResourceUsage::of(candidate.keeper()).cpu
}

fn is_quick(server: &impl StoreServer, mongod: &Mongod, name: &str) {
    let count = if is_long() { 200 } else { 20 };
    let sandbox = Sandbox::new();
    let start = || elect(&sandbox, server, "10s").start();
    let mut leader = start();
    sandbox.starts(1);
    let mut waiters: Vec<CandidateProcess> = (1..count).map(|_| start()).collect();
    waiters.iter().for_each(CandidateProcess::wait_until_waiting);
    let (rounds, mut handovers, mut asked) = (5, Vec::new(), 0);
    let window = Duration::from_secs(4);
    let (began, before, used) = (now(), mongod.operations(), mongod.usage().cpu);
    until("they have waited for a while", || since(began) >= window);
    let seconds = since(began).as_secs_f64();
    let rate = real(mongod.operations() - before) / seconds;
    let share = mongod.usage().cpu.saturating_sub(used).as_secs_f64() / seconds * 100.0;
    let connections = mongod.connections();
    for round in 1..=rounds {
        let led = sandbox.history().latest();
        let end = sandbox.watch_the_end_of(led.pid);
        let calls = mongod.commands("findAndModify");
        leader.terminate();
        let started = sandbox.starts(round + 1).latest();
        handovers.push(started.at.saturating_sub(end.join().expect("the watch on the old tree")));
        asked += mongod.commands("findAndModify") - calls;
        let leads = |waiter: &CandidateProcess| waiter.tree().iter().any(|process| process.pid == started.pid);
        leader = waiters.swap_remove(eventually("one of them leads", || waiters.iter().position(leads)));
    }
    handovers.sort();
    println!(
        "figures: {name}: {count} candidates on one boundary, ttl 10 s: {rate:.0} operations a second, {share:.1} % of a core, \
         {connections} connections; a hand-over takes {} (median of {rounds}, maximum {}) and {} writes",
        millis(handovers[rounds / 2]),
        millis(handovers[rounds - 1]),
        asked / rounds as u64,
    );
    drop((leader, waiters));
    sandbox.history().is_safe();
}

#[test]
fn a_hand_over_among_many_is_quick() {
    let set = SingleNodeReplicaSet::start();
    is_quick(&set, &set, SingleNodeReplicaSet::NAME);
}

#[test]
fn a_hand_over_among_many_on_a_server_alone_is_quick() {
    let mongod = Mongod::start();
    is_quick(&mongod, &mongod, Mongod::NAME);
}

/// The cost of a renewal to the server, the looks of its waiters included, in microseconds of CPU.
fn cost_of_a_renewal(set: &SingleNodeReplicaSet, count: usize, lease: Duration) -> f64 {
    let sandbox = Sandbox::new();
    let start = |number: usize| {
        let boundary: &'static str = format!("boundary-{number}").leak();
        let elect = candidate_for(&sandbox, set.url_for(&sandbox), &written(lease));
        elect.boundary(boundary).command(["sleep", "600"]).start()
    };
    let leaders: Vec<CandidateProcess> = (0..count).map(start).collect();
    for leader in &leaders {
        leader.wait_for_log("leader command started");
    }
    let waiters: Vec<CandidateProcess> = (0..count).map(start).collect();
    waiters.iter().for_each(CandidateProcess::wait_until_waiting);
    let used = || -> Duration { leaders.iter().chain(&waiters).map(cpu).sum() };
    let (began, before, renewals) = (now(), set.operations(), set.commands("findAndModify"));
    let (cpu_before, server) = (used(), set.usage());
    let window = (lease * 3 / 5).max(Duration::from_secs(if is_long() { 20 } else { 6 }));
    until("they have been watched for a while", || since(began) >= window);
    let seconds = since(began).as_secs_f64();
    let renewed = real(set.commands("findAndModify") - renewals);
    let server_used = set.usage().cpu.saturating_sub(server.cpu).as_secs_f64();
    let cost = server_used / renewed * 1e6;
    println!(
        "figures: mongodb: {count} boundaries with a leader and a waiter each, ttl {}: {:.0} operations and {:.0} renewals a \
         second at the server, its CPU {:.1} % of a core, {cost:.0} us a renewal, and {:.0} MB, {} connections; each candidate \
         {:.2} % of a core",
        written(lease),
        real(set.operations() - before) / seconds,
        renewed / seconds,
        server_used / seconds * 100.0,
        real(set.usage().resident) / 1e6,
        set.connections(),
        used().saturating_sub(cpu_before).as_secs_f64() / seconds * 100.0
            / f64::from(u32::try_from(2 * count).expect("few")),
    );
    // So many that begin at once keep the server from answering some in time: that costs nobody the lease.
    let of_them = |word: &str| leaders.iter().filter(|candidate| candidate.log().contains(word)).count();
    println!("figures: mongodb: of these {} leaders were kept waiting at least once", of_them("store: "));
    assert_in_time(of_them("the lease runs out") == 0, || "nobody is demoted".to_owned());
    cost
}

/// A change stream, for one, would have every waiter look at every renewal.
#[test]
fn a_renewal_costs_a_server_the_same_however_many_lead_and_wait_there() {
    let counts = if is_long() { [75, 300] } else { [10, 40] };
    retry_if_machine_slow("mongodb: the cost of a renewal", Duration::from_secs(10), |lease| {
        let set = SingleNodeReplicaSet::start();
        let [few, many] = counts.map(|count| cost_of_a_renewal(&set, count, lease));
        let told = || format!("{few:.0} us with {} leaders, {many:.0} us with {}", counts[0], counts[1]);
        assert_in_time(many < 2.0 * few, told);
    });
}
