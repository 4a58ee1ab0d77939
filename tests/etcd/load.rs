//! Many candidates on one etcd.

use std::time::Duration;

use super::{candidate_for, real};
use crate::etcd::server::EtcdServer;
use crate::harness::resource_usage::ResourceUsage;
use crate::harness::timing_verdict::{assert_in_time, retry_if_machine_slow};
use crate::harness::wait::{eventually, now, since, until};
use crate::harness::{CandidateProcess, Sandbox, Witness, is_long, millis};
use crate::leases::written;

/// The private memory of the two processes of a candidate, and their share of the common pages.
fn proportional_set_size(candidate: &CandidateProcess) -> u64 {
    let of = |pid: i32| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("a process that is there");
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).expect("a line for it");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    };
    of(candidate.pid()) + of(candidate.keeper())
}

fn cpu(candidate: &CandidateProcess) -> Duration {
    ResourceUsage::of(candidate.pid()).cpu + ResourceUsage::of(candidate.keeper()).cpu
}

#[test]
fn a_hand_over_among_many_wakes_one_waiter() {
    let count = if is_long() { 200 } else { 20 };
    let (etcd, sandbox) = (EtcdServer::start(), Sandbox::new());
    // Renewals so rare that what is counted is the hand-over's.
    let start = || candidate_for(&sandbox, etcd.url(), "1000s").witness(&Witness::new()).start();
    let leader = start();
    sandbox.starts(1);
    let waiters: Vec<CandidateProcess> = (1..count).map(|_| start()).collect();
    waiters.iter().for_each(CandidateProcess::wait_until_waiting);
    let asked = || -> u64 {
        let messages = etcd.messages();
        ["Txn", "Range", "LeaseGrant"].iter().filter_map(|method| messages.get(*method)).sum()
    };
    let quiet = asked();
    let (rounds, mut handovers, mut leader) = (5, Vec::new(), leader);
    let mut waiters = waiters;
    for round in 1..=rounds {
        let led = sandbox.history().latest();
        let end = sandbox.watch_the_end_of(led.pid);
        leader.terminate();
        let started = sandbox.starts(round + 1).latest();
        handovers.push(started.at.saturating_sub(end.join().expect("the watch on the old tree")));
        let leads = |waiter: &CandidateProcess| waiter.tree().iter().any(|process| process.pid == started.pid);
        leader = waiters.swap_remove(eventually("one of them leads", || waiters.iter().position(leads)));
    }
    let asked = asked() - quiet;
    handovers.sort();
    println!(
        "figures: etcd: {count} candidates on one boundary: {} requests a hand-over, which takes {} (median of {rounds})",
        asked / rounds as u64,
        millis(handovers[rounds / 2])
    );
    // Five by the one who takes over; another waiter that woke up would ask at least three more.
    assert!(asked <= 7 * rounds as u64, "{asked} requests in {rounds} hand-overs among {count}");
    drop((leader, waiters));
    sandbox.history().is_safe();
}

#[test]
fn many_boundaries_share_a_server() {
    retry_if_machine_slow("etcd: many boundaries", Duration::from_secs(10), share_a_server);
}

fn share_a_server(lease: Duration) {
    let count = if is_long() { 300 } else { 30 };
    let etcd = EtcdServer::start();
    let sandbox = Sandbox::new();
    let candidates: Vec<CandidateProcess> = (0..count)
        .map(|number| {
            let boundary: &'static str = format!("boundary-{number}").leak();
            candidate_for(&sandbox, etcd.url(), &written(lease)).boundary(boundary).command(["sleep", "600"]).start()
        })
        .collect();
    for candidate in &candidates {
        candidate.wait_for_log("leader command started");
    }
    let messages = || etcd.messages().values().sum::<u64>();
    let used = || -> Duration { candidates.iter().map(cpu).sum() };
    let (began, before, cpu_before, server) = (now(), messages(), used(), etcd.usage());
    let window = Duration::from_secs(if is_long() { 20 } else { 5 });
    until("they have been watched for a while", || since(began) >= window);
    let seconds = since(began).as_secs_f64();
    let each = |total: f64| total / f64::from(u32::try_from(count).expect("a small number"));
    let memory: u64 = candidates.iter().map(proportional_set_size).sum();
    println!(
        "figures: etcd: {count} boundaries with a leader each, ttl {}: {:.0} messages a second at the server, its CPU {:.0} % of a \
         core and {:.0} MB; each candidate {:.2} % of a core, {:.1} MB PSS",
        written(lease),
        real(messages() - before) / seconds,
        etcd.usage().cpu.saturating_sub(server.cpu).as_secs_f64() / seconds * 100.0,
        real(etcd.usage().resident) / 1e6,
        each(used().saturating_sub(cpu_before).as_secs_f64() / seconds * 100.0),
        each(real(memory)) / 1e6,
    );
    // On a busy machine the server may not answer some in time: that costs nobody the lease.
    let of_them = |word: &str| candidates.iter().filter(|candidate| candidate.log().contains(word)).count();
    println!("figures: etcd: of these {} were kept waiting at least once", of_them("store: "));
    assert_in_time(of_them("the lease runs out") == 0, || "nobody is demoted".to_owned());
}
