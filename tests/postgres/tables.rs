//! Tables, rights and servers that elections cannot be held with, or only later.

use std::fs;

use super::access::is_refused;
use super::server::{PostgresOptions, PostgresServer};
use crate::check::{Checked, check};
use crate::harness::server::StoreServer;
use crate::harness::timing_verdict::{retry_if_machine_slow, throughout_in_time};
use crate::harness::wait::{now, since, throughout};
use crate::harness::{ElectCmd, Sandbox, Witness, side_by_side, until};
use crate::leases::{LEASE, candidate, candidate_for, led_before, patient, written};

#[test]
fn twelve_candidates_at_once_on_an_empty_database_elect_one() {
    let postgres = PostgresServer::start();
    retry_if_machine_slow("postgres: twelve at once", LEASE, |lease| {
        let sandbox = Sandbox::new();
        let start = || candidate_for(&sandbox, postgres.url_for(&sandbox), &written(lease));
        let candidates = side_by_side(12, || start().witness(&Witness::new()).start());
        sandbox.starts(1);
        throughout_in_time(lease, "it goes on leading", || sandbox.history().starts.len() == 1);
        for candidate in candidates {
            candidate.terminate();
        }
        sandbox.history().is_safe();
    });
}

#[test]
fn without_the_right_to_make_the_table_elect_prints_the_statements_that_are_enough() {
    let postgres = PostgresServer::start();
    postgres.sql("CREATE ROLE poor LOGIN PASSWORD 'p'");
    let sandbox = Sandbox::new();
    let elect = || {
        let store = format!("postgres://poor:p@{}/postgres?schema=jobs", postgres.address());
        ElectCmd::new(&sandbox).store(store).flag("--ttl", "2200ms")
    };
    let ended = elect().command(["true"]).run();
    is_refused(&ended, &["permission denied", "CREATE SCHEMA", "CREATE TABLE"]);
    let line = ended.stderr.lines().find(|line| line.contains("to run: ")).expect("the statements");
    let (_, statements) = line.split_once("to run: ").expect("the statements");
    postgres.sql(statements);
    let ended = elect().command(["true"]).run();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    let rows =
        postgres.sql("SELECT string_agg(boundary || ':' || state, ' ' ORDER BY boundary) FROM jobs.elect_boundaries");
    assert_eq!(rows.trim(), ":vacant cron:free");
}

#[test]
fn a_table_that_keeps_no_record_ends_a_candidate_with_the_reason() {
    let postgres = PostgresServer::start();
    let sandbox = Sandbox::new();
    let table = "CREATE TABLE odd.elect_boundaries (boundary text PRIMARY KEY, state text)";
    for (statement, reason) in [
        (table.replace("TABLE", "UNLOGGED TABLE"), "unlogged"),
        (format!("{table} PARTITION BY LIST (boundary)"), "partitioned"),
        (format!("{table}; ALTER TABLE odd.elect_boundaries ENABLE ROW LEVEL SECURITY"), "row-level security"),
        ("CREATE VIEW odd.elect_boundaries AS SELECT 1 AS boundary".to_owned(), "view"),
    ] {
        postgres.sql(&format!("DROP SCHEMA IF EXISTS odd CASCADE; CREATE SCHEMA odd; {statement}"));
        let store = format!("{}&schema=odd", postgres.url());
        is_refused(&ElectCmd::new(&sandbox).store(store).command(["true"]).run(), &[reason]);
    }
}

/// The server has as many connections as there are candidates.
#[test]
fn a_candidate_without_a_connection_waits_and_takes_nothing_from_a_leader() {
    let options = PostgresOptions::new().setting("max_connections", "3").setting("max_wal_senders", "0");
    let postgres = PostgresServer::with(&options.setting("superuser_reserved_connections", "0"));
    let sandbox = Sandbox::new();
    led_before(&sandbox, postgres.url());
    let start = || patient(&sandbox, postgres.url()).witness(&Witness::new()).start();
    let leader = start();
    sandbox.starts(1);
    let others: Vec<_> = (0..2).map(|_| start()).collect();
    others.iter().for_each(crate::harness::CandidateProcess::wait_until_waiting);
    let late = start();
    late.wait_for_log("has no connection left");
    throughout(LEASE, "it goes on leading", || sandbox.history().starts.len() == 1);
    leader.terminate();
    sandbox.starts(2);
    for other in others.into_iter().chain([late]) {
        other.terminate();
    }
    sandbox.history().is_safe();
}

#[test]
fn a_read_only_server_is_an_outage_and_says_which_setting_it_is() {
    let postgres = PostgresServer::with(&PostgresOptions::new().setting("default_transaction_read_only", "on"));
    let sandbox = Sandbox::new();
    let elect = candidate(&sandbox, postgres.url()).witness(&Witness::new()).start();
    elect.wait_for_log("default_transaction_read_only");
    postgres.set("default_transaction_read_only", "off");
    sandbox.starts(1);
    elect.terminate();
}

#[test]
fn a_standby_as_the_only_host_is_waited_for_until_it_is_promoted() {
    let primary = PostgresServer::start();
    let standby = PostgresServer::with(&PostgresOptions::new().standby(&primary.address(), "one"));
    let sandbox = Sandbox::new();
    let elect = candidate(&sandbox, standby.url()).witness(&Witness::new()).start();
    elect.wait_for_log("is a standby");
    standby.sql("SELECT pg_promote()");
    sandbox.starts(1);
    elect.terminate();
}

/// Both servers have the port, and the name has both addresses.
#[test]
fn of_the_addresses_of_a_name_the_primary_is_used_and_the_promoted_one_moved_to() {
    const HOSTS: &str = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
    let primary = PostgresServer::start();
    let options = PostgresOptions::new().standby(&primary.address(), "one").seen_at("127.0.0.2");
    let standby = PostgresServer::with(&options.at_port(primary.port));
    let sandbox = Sandbox::new();
    let hosts = sandbox.path().join("hosts");
    fs::write(&hosts, "127.0.0.2 both.test\n127.0.0.1 both.test\n").expect("a file");
    let url = PostgresServer::url_of(&format!("both.test:{}", primary.port));
    let elect = candidate(&sandbox, url).witness(&Witness::new());
    let leader = elect.wrapped_by(["unshare", "--mount", "sh", "-c", HOSTS, &hosts.display().to_string()]).start();
    sandbox.starts(1);
    standby.sql("SELECT pg_promote()");
    sandbox.starts(2);
    let leads = standby.sql("SELECT state FROM elect_boundaries WHERE boundary = 'cron'");
    assert_eq!(leads.trim(), "held");
    leader.terminate();
    sandbox.history().is_safe();
}

/// The leader's last term is not in the backup; its own ttl is what the others wait for.
#[test]
fn a_server_that_was_restored_to_an_earlier_time_elects_after_a_lease_and_under_a_higher_term() {
    let postgres = PostgresServer::start();
    let sandbox = Sandbox::new();
    let start = || candidate(&sandbox, postgres.url()).witness(&Witness::new()).start();
    let first = start();
    sandbox.starts(1);
    postgres.back_up();
    first.terminate();
    let second = start();
    sandbox.starts(2);
    postgres.recover();
    let recovered = now();
    let third = start();
    let history = sandbox.starts(3);
    assert!(since(recovered) > LEASE / 2, "it waits for a leader that may have been forgotten");
    let terms: Vec<_> = history.starts.iter().map(|start| start.term).collect();
    assert!(terms.is_sorted_by(|one, next| one < next), "{terms:?}");
    second.terminate();
    third.terminate();
    sandbox.history().is_safe();
}

#[test]
fn a_server_that_does_not_wait_for_its_disk_is_warned_of_at_start_and_by_check() {
    let postgres = PostgresServer::with(&PostgresOptions::new().setting("fsync", "off"));
    let sandbox = Sandbox::new();
    let elect = candidate(&sandbox, postgres.url()).witness(&Witness::new()).start();
    elect.wait_for_log("fsync or full_page_writes is off");
    sandbox.starts(1);
    let checked = Checked::by(check(&sandbox, postgres.url()));
    assert!(checked.ended.stdout.contains("every restart costs a ttl"), "{:?}", checked.ended);
    elect.terminate();
    until("nothing is left", || sandbox.running().is_empty());
}
