//! PostgreSQL as its users meet it: real servers, real cuts.

mod access;
mod cluster;
mod leases;
mod load;
mod poolers;
mod replication;
pub mod server;
mod tables;

use crate::harness::host_tools::attempt;
use crate::harness::server::PASSWORD;
use crate::harness::store_fixtures::{FixtureStore, ServerStore, StoreEntry};
use cluster::{Cluster, Replication};
use server::{PostgresOptions, PostgresServer, program};

/// This store in the tests for all stores.
pub const ENTRY: StoreEntry = StoreEntry {
    name: "postgres",
    part: |url, name| match url.split_once('?') {
        Some((url, options)) => format!("{url}?{options}&schema={name}"),
        None => format!("{url}?schema={name}"),
    },
    fixtures: &[|| store(&PostgresOptions::new())],
    has_server: true,
    version: || {
        let said = attempt([program("postgres").to_string_lossy().as_ref(), "--version"])?;
        let version = said.split_whitespace().nth(2);
        version.map(str::to_owned).ok_or(said)
    },
    start_with_clock: Some(|words| store(&PostgresOptions::new().wrapped_by(words))),
    start_failover: Some(|| Box::new(Cluster::start(Replication::Strict))),
};

fn store(options: &PostgresOptions) -> Box<dyn FixtureStore> {
    Box::new(ServerStore {
        server: PostgresServer::with(options),
        notifies_changes: true,
        kill: PostgresServer::kill,
        stop: PostgresServer::stop,
        cont: PostgresServer::cont,
        restart: PostgresServer::restart,
        enable_auth: |postgres| {
            postgres.sql(&format!("CREATE ROLE stranger LOGIN PASSWORD '{PASSWORD}'"));
        },
        forget: |postgres| {
            postgres.sql("DROP TABLE elect_boundaries");
        },
    })
}
