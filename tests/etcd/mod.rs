//! etcd as its users meet it: real servers, real cuts.

mod access;
mod cluster;
mod cuts;
mod handover;
mod holding;
mod keys;
mod load;
#[cfg(feature = "listen")]
mod pages;
mod peers;
mod terminal;
mod terms;
mod values;
#[cfg(feature = "listen")]
mod waiters;

use crate::harness::Place;
use crate::harness::etcd::Etcd;
use crate::harness::proxy::Proxy;
use crate::leases::{LEASE, TTL, candidate, candidate_for, real, relay};

fn through(proxy: &Proxy, place: &Place) -> String {
    crate::leases::through::<Etcd>(proxy, place)
}
