//! Measurements of many candidates on one PostgreSQL. They are figures, and no promises.

use std::time::Duration;

use super::server::{PostgresOptions, PostgresServer};
use crate::harness::server::StoreServer;
use crate::harness::wait::{now, since, until};
use crate::harness::{CandidateProcess, Sandbox, Witness, millis};
use crate::leases::{candidate_for, real};

fn number(server: &PostgresServer, question: &str) -> u64 {
    server.sql(question).trim().parse().unwrap_or_default()
}

/// How late the statistics of a session may be that has nothing to do.
const STATISTICS_DELAY: Duration = Duration::from_secs(11);

/// Answers of the server to a statement, each of which is a transaction.
fn transactions(server: &PostgresServer) -> u64 {
    number(server, "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = 'postgres'")
}

fn backends(server: &PostgresServer) -> u64 {
    number(server, "SELECT count(*) - 1 FROM pg_stat_activity WHERE backend_type = 'client backend'")
}

/// Transactions a second, and the share of a core, over so long.
fn rates(server: &PostgresServer, window: Duration) -> (f64, f64) {
    let settled = now();
    until("the statistics are those of now", || since(settled) >= STATISTICS_DELAY);
    let (began, before, used) = (now(), transactions(server), server.cpu());
    until("they have been watched for a while", || since(began) >= window);
    let seconds = since(began).as_secs_f64();
    let rate = real(transactions(server) - before) / seconds;
    (rate, server.cpu().saturating_sub(used).as_secs_f64() / seconds * 100.0)
}

fn spacious() -> PostgresServer {
    PostgresServer::with(&PostgresOptions::new().setting("max_connections", "400"))
}

fn hands_over_among_many(options: &str) {
    let count = 200;
    let (server, sandbox) = (spacious(), Sandbox::new());
    let url = format!("{}{options}", server.url_for(&sandbox));
    let start = || candidate_for(&sandbox, url.clone(), "10s").witness(&Witness::new()).start();
    let mut leader = start();
    sandbox.starts(1);
    let mut waiters: Vec<CandidateProcess> = (1..count).map(|_| start()).collect();
    waiters.iter().for_each(CandidateProcess::wait_until_waiting);
    let kept = backends(&server);
    let (rate, share) = rates(&server, Duration::from_secs(30));
    let (rounds, mut handovers) = (5, Vec::new());
    for round in 1..=rounds {
        let led = sandbox.history().latest();
        let end = sandbox.watch_the_end_of(led.pid);
        leader.terminate();
        let started = sandbox.starts(round + 1).latest();
        handovers.push(started.at.saturating_sub(end.join().expect("the watch on the old tree")));
        let leads = |waiter: &CandidateProcess| waiter.tree().iter().any(|process| process.pid == started.pid);
        leader = waiters.swap_remove(waiters.iter().position(leads).expect("one of them leads"));
    }
    handovers.sort();
    println!(
        "figures: postgres: {count} candidates on one boundary, ttl 10 s {options}: {kept} backends, {rate:.0} transactions a second, \
         server {share:.1} % of a core; a hand-over takes {} (median of {rounds}, maximum {})",
        millis(handovers[rounds / 2]),
        millis(handovers[rounds - 1]),
    );
    drop((leader, waiters));
    sandbox.history().is_safe();
}

#[test]
#[ignore = "it measures for two minutes"]
fn a_hand_over_among_many() {
    hands_over_among_many("");
    hands_over_among_many("&listen=0");
}

#[test]
#[ignore = "it measures for a minute"]
fn many_boundaries_share_a_server() {
    let count = 300;
    let (server, sandbox) = (spacious(), Sandbox::new());
    let candidates: Vec<CandidateProcess> = (0..count)
        .map(|number| {
            let boundary: &'static str = format!("boundary-{number}").leak();
            candidate_for(&sandbox, server.url(), "10s").boundary(boundary).command(["sleep", "600"]).start()
        })
        .collect();
    for candidate in &candidates {
        candidate.wait_for_log("leader command started");
    }
    let kept = backends(&server);
    let wal = || number(&server, "SELECT pg_current_wal_insert_lsn() - '0/0'");
    let (before, writes, began) = (wal(), server.renewals(), now());
    let (rate, share) = rates(&server, Duration::from_secs(30));
    let (bytes, writes, seconds) = (wal() - before, server.renewals() - writes, since(began).as_secs());
    let troubled = candidates.iter().filter(|candidate| candidate.log().contains("store: ")).count();
    println!(
        "figures: postgres: {count} boundaries with a leader each, ttl 10 s: {kept} backends, {rate:.0} transactions a second, server \
         {share:.1} % of a core, {writes} renewals in {seconds} s with {:.0} bytes of WAL each, {troubled} candidates kept waiting",
        real(bytes) / real(writes.max(1)),
    );
}

/// As many renewals as in an hour at a ttl of 10 s, beside a transaction that may still look at the first version of the row.
#[test]
#[ignore = "it measures for three minutes"]
fn a_row_grows_beside_an_old_snapshot() {
    const HOUR: u64 = 1800;
    for has_snapshot in [false, true] {
        let (server, sandbox) = (PostgresServer::start(), Sandbox::new());
        let leader = candidate_for(&sandbox, server.url(), "3s").flag("--renew", "50ms").witness(&Witness::new());
        let leader = leader.start();
        sandbox.starts(1);
        let sessions = has_snapshot.then(|| {
            server
                .repeat("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT * FROM elect_boundaries; SELECT pg_sleep(300);")
        });
        until("the snapshot is there", || {
            !has_snapshot || number(&server, "SELECT count(*) FROM pg_stat_activity WHERE backend_xmin IS NOT NULL") > 1
        });
        let size = || number(&server, "SELECT pg_total_relation_size('elect_boundaries')");
        let wal = || number(&server, "SELECT pg_current_wal_insert_lsn() - '0/0'");
        let (bytes, writes, began) = (wal(), server.renewals(), now());
        until("an hour's renewals", || {
            std::thread::sleep(Duration::from_secs(1));
            server.renewals() - writes >= HOUR || since(began) > Duration::from_secs(200)
        });
        let writes = server.renewals() - writes;
        println!(
            "figures: postgres: {writes} renewals of a row {} an old snapshot: table {} kB, {:.0} bytes of WAL each, one look {}",
            if has_snapshot { "beside" } else { "without" },
            size() / 1000,
            real(wal() - bytes) / real(writes),
            server
                .sql("EXPLAIN (ANALYZE, TIMING OFF) SELECT * FROM elect_boundaries")
                .lines()
                .last()
                .unwrap_or_default(),
        );
        drop(sessions);
        leader.terminate();
    }
}
