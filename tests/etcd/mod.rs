//! etcd as its users meet it: real servers, real cuts.

mod access;
mod cluster;
mod cuts;
mod etcdctl_comparison;
mod floods;
mod foreign_values;
mod handover;
mod keys;
#[cfg(feature = "listen")]
mod listen;
mod load;
mod min_hold;
mod terminal;
mod terms;
#[cfg(feature = "listen")]
mod waiters;

use crate::harness::Sandbox;
use crate::harness::etcd::EtcdServer;
use crate::harness::proxy::Proxy;
use crate::leases::{LEASE, TTL, candidate, candidate_for, handover_runs, real};

fn through(proxy: &Proxy, sandbox: &Sandbox) -> String {
    crate::leases::through::<EtcdServer>(proxy, sandbox)
}
