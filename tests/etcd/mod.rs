//! etcd as its users meet it: real servers, real cuts.

mod access;
mod check;
mod cluster;
mod connecting;
mod cuts;
mod etcdctl_comparison;
mod floods;
mod foreign_values;
mod go_program;
mod handover;
mod holster;
mod keys;
#[cfg(feature = "all-stores")]
mod limits;
#[cfg(feature = "listen")]
mod listen;
mod load;
mod members;
mod min_hold;
mod observers;
mod secrets;
pub mod server;
mod servers;
mod shared_elections;
mod sharing_warnings;
#[cfg(feature = "all-stores")]
mod static_program;
mod successors;
mod terminal;
mod terms;
#[cfg(feature = "listen")]
mod waiters;

use crate::harness::Sandbox;
use crate::harness::host_tools::attempt;
use crate::harness::proxy::Proxy;
use crate::harness::store_fixtures::{ServerStore, StoreEntry};
use crate::leases::{LEASE, TTL, asks_once, candidate, candidate_for, patient, real};
use members::EtcdCluster;
use server::EtcdServer;

fn through(proxy: &Proxy, sandbox: &Sandbox) -> String {
    crate::leases::through::<EtcdServer>(proxy, sandbox)
}

/// This store in the tests for all stores.
pub const ENTRY: StoreEntry = StoreEntry {
    name: "etcd",
    part: |url, name| format!("{url}/{name}"),
    fixtures: &[|| {
        Box::new(ServerStore {
            server: EtcdServer::start(),
            notifies_changes: true,
            kill: EtcdServer::kill,
            stop: EtcdServer::stop,
            cont: EtcdServer::cont,
            restart: EtcdServer::restart,
            enable_auth: EtcdServer::enable_auth,
            forget: |etcd| drop(etcd.etcdctl(&["del", "", "--prefix"])),
        })
    }],
    has_server: true,
    version: || {
        let said = attempt(["etcd", "--version"])?;
        let version = said.lines().find_map(|line| line.strip_prefix("etcd Version: "));
        version.map(str::to_owned).ok_or(said)
    },
    // Go asks the kernel.
    start_with_clock: None,
    start_failover: Some(|| Box::new(EtcdCluster::of(3))),
};
