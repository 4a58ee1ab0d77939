//! Kubernetes as its users meet it: Leases on an API server, which here is a double of the real one.

mod comparison;
pub mod double;
mod faults;
pub mod genuine;
mod genuine_runs;
mod leases;
#[cfg(feature = "all-stores")]
mod limits;
mod participants;
mod pods;
mod usage;

use std::time::Duration;

use crate::harness::ports::free_port;
use crate::harness::server::{StoreServer, TOKEN};
use crate::harness::store_fixtures::{FixtureStore, ServerStore, StoreEntry};
use crate::harness::{CandidateProcess, Sandbox};
use double::{ApiServer, USER};

/// Where the tests campaign.
pub const NAMESPACE: &str = "default";

/// This store in the tests for all stores.
pub const ENTRY: StoreEntry = StoreEntry {
    name: "kubernetes",
    part: |url, name| {
        let (server, _) = url.rsplit_once('/').expect("a namespace");
        format!("{server}/{}", namespace(name))
    },
    fixtures: &[|| store(ApiServer::start())],
    has_server: true,
    version: || Ok("the double of the API server".to_owned()),
    start_with_clock: None,
    start_failover: None,
};

/// A namespace has small letters, digits and dashes.
pub fn namespace(name: &str) -> String {
    let name: String =
        name.to_lowercase().chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' }).collect();
    name.trim_matches('-').to_owned()
}

fn store(server: ApiServer) -> Box<dyn FixtureStore> {
    Box::new(ServerStore {
        server,
        notifies_changes: true,
        kill: ApiServer::kill,
        stop: ApiServer::stop,
        cont: ApiServer::cont,
        restart: ApiServer::restart,
        // Whoever shows no token is known as before.
        enable_auth: |server| server.accept_tokens(&[("", USER), (TOKEN, "system:serviceaccount:default:stranger")]),
        forget: ApiServer::forget_leases,
    })
}

impl StoreServer for ApiServer {
    const NAME: &'static str = "kubernetes";
    const SCHEME: &'static str = "kubernetes";
    const TTL: &'static str = "5s";
    const LEASE: Duration = Duration::from_secs(5);
    const HAS_USER_NAMES: bool = false;

    fn start() -> ApiServer {
        ApiServer::start()
    }

    fn seen_at(host: &str) -> ApiServer {
        ApiServer::at(host, None)
    }

    fn address(&self) -> String {
        ApiServer::address(self)
    }

    fn renewals(&self) -> u64 {
        self.writes()
    }

    fn url_of(address: &str) -> String {
        format!("kubernetes+http://{address}/{NAMESPACE}")
    }
}

/// Ends both candidates: every outcome is safe, and nothing is left.
fn end_safely(kind: &str, sandbox: &Sandbox, leader: CandidateProcess, next: CandidateProcess) {
    sandbox.history().is_safe();
    leader.terminate();
    next.terminate();
    let history = sandbox.history();
    history.is_safe();
    println!("figures: {kind}: {} starts, {} overlaps", history.starts.len(), history.overlaps.len());
    sandbox.is_left_empty();
}
