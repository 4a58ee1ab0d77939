//! Many candidates on one Redis.

use std::time::Duration;

use super::led_before;
use crate::harness::resource_usage::ResourceUsage;
use crate::harness::server::StoreServer;
use crate::harness::timing_verdict::{assert_in_time, retry_if_machine_slow};
use crate::harness::wait::{eventually, now, since, until};
use crate::harness::{CandidateProcess, Sandbox, Witness, is_long, millis};
use crate::leases::{candidate_for, real, written};
use crate::redis::server::RedisServer;

fn cpu(candidate: &CandidateProcess) -> Duration {
    ResourceUsage::of(candidate.pid()).cpu + ResourceUsage::of(candidate.keeper()).cpu
}

#[test]
fn a_hand_over_among_many_is_quick() {
    let count = if is_long() { 200 } else { 20 };
    let (redis, sandbox) = (RedisServer::start(), Sandbox::new());
    led_before(&sandbox, &redis);
    let start = || candidate_for(&sandbox, redis.url_for(&sandbox), "10s").witness(&Witness::new()).start();
    let mut leader = start();
    sandbox.starts(1);
    let mut waiters: Vec<CandidateProcess> = (1..count).map(|_| start()).collect();
    waiters.iter().for_each(CandidateProcess::wait_until_waiting);
    let (rounds, mut handovers, mut asked) = (5, Vec::new(), 0);
    let window = Duration::from_secs(4);
    let (began, before, used) = (now(), redis.commands(), redis.usage().cpu);
    until("they have waited for a while", || since(began) >= window);
    let seconds = since(began).as_secs_f64();
    let rate = real(redis.commands() - before) / seconds;
    let share = redis.usage().cpu.saturating_sub(used).as_secs_f64() / seconds * 100.0;
    for round in 1..=rounds {
        let led = sandbox.history().latest();
        let end = sandbox.watch_the_end_of(led.pid);
        let calls = redis.calls("evalsha");
        leader.terminate();
        let started = sandbox.starts(round + 1).latest();
        handovers.push(started.at.saturating_sub(end.join().expect("the watch on the old tree")));
        asked += redis.calls("evalsha") - calls;
        let leads = |waiter: &CandidateProcess| waiter.tree().iter().any(|process| process.pid == started.pid);
        leader = waiters.swap_remove(eventually("one of them leads", || waiters.iter().position(leads)));
    }
    handovers.sort();
    println!(
        "figures: redis: {count} candidates on one boundary, ttl 10 s: {rate:.0} commands a second, {share:.1} % of a core; a \
         hand-over takes {} (median of {rounds}) and {} scripts",
        millis(handovers[rounds / 2]),
        asked / rounds as u64,
    );
    drop((leader, waiters));
    sandbox.history().is_safe();
}

#[test]
fn many_boundaries_share_a_server() {
    retry_if_machine_slow("redis: many boundaries", Duration::from_secs(10), share_a_server);
}

fn share_a_server(lease: Duration) {
    let count = if is_long() { 300 } else { 30 };
    let (redis, sandbox) = (RedisServer::start(), Sandbox::new());
    let candidates: Vec<CandidateProcess> = (0..count)
        .map(|number| {
            let boundary: &'static str = format!("boundary-{number}").leak();
            candidate_for(&sandbox, redis.url(), &written(lease)).boundary(boundary).command(["sleep", "600"]).start()
        })
        .collect();
    for candidate in &candidates {
        candidate.wait_for_log("leader command started");
    }
    let used = || -> Duration { candidates.iter().map(cpu).sum() };
    let (began, before, cpu_before, server) = (now(), redis.commands(), used(), redis.usage());
    let window = Duration::from_secs(if is_long() { 20 } else { 5 });
    until("they have been watched for a while", || since(began) >= window);
    let seconds = since(began).as_secs_f64();
    println!(
        "figures: redis: {count} boundaries with a leader each, ttl {}: {:.0} commands a second at the server, its CPU {:.1} % of a \
         core and {:.0} MB; each candidate {:.2} % of a core",
        written(lease),
        real(redis.commands() - before) / seconds,
        redis.usage().cpu.saturating_sub(server.cpu).as_secs_f64() / seconds * 100.0,
        real(redis.usage().resident) / 1e6,
        used().saturating_sub(cpu_before).as_secs_f64() / seconds * 100.0
            / f64::from(u32::try_from(count).expect("few")),
    );
    // On a busy machine the server may not answer some in time: that costs nobody the lease.
    let of_them = |word: &str| candidates.iter().filter(|candidate| candidate.log().contains(word)).count();
    println!("figures: redis: of these {} were kept waiting at least once", of_them("store: "));
    assert_in_time(of_them("the lease runs out") == 0, || "nobody is demoted".to_owned());
}
