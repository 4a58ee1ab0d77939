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

use std::time::Duration;

use crate::harness::etcd::Etcd;
use crate::harness::network::Network;
use crate::harness::proxy::{Mode, Proxy};
use crate::harness::wait::until;
use crate::harness::{Candidate, Elect, Place, Relay, Witness};

/// Short enough to be waited for, long enough for a laden machine.
const TTL: &str = "3s";
const LEASE: Duration = Duration::from_secs(3);

/// A store behind a proxy.
fn through(proxy: &Proxy, place: &Place) -> String {
    place.below(&format!("etcd://{}", proxy.address()))
}

fn candidate(place: &Place, store: String) -> Elect {
    candidate_for(place, store, TTL)
}

fn candidate_for(place: &Place, store: String, ttl: &str) -> Elect {
    Elect::new(place).store(store).flag("--ttl", ttl)
}

fn relay(runs: usize, etcd: &Etcd) -> Relay<'static> {
    Relay::of(runs).store(&etcd.url()).flag("--ttl", TTL)
}

/// A count or a size, for rates and means.
#[expect(clippy::cast_precision_loss, reason = "figures for people, far below 2^52")]
fn real(count: u64) -> f64 {
    count as f64
}

/// What is between a candidate and its server, and can be cut.
enum Wire {
    Proxied(Proxy),
    /// The candidate is on the host of this name.
    Cabled(Network, &'static str),
}

impl Wire {
    fn mode(&self, mode: Mode) {
        match self {
            Wire::Proxied(proxy) => proxy.mode(mode),
            Wire::Cabled(network, host) => network.mode(host, mode),
        }
    }

    /// A candidate at this end of it.
    fn candidate(&self, place: &Place, etcd: &Etcd) -> Elect {
        match self {
            Wire::Proxied(proxy) => candidate(place, through(proxy, place)),
            Wire::Cabled(network, host) => candidate(place, place.below(&etcd.url())).under(network.host(host)),
        }
    }
}

/// A leader at the end of a wire of its own, and a waiter that sees the server as it is.
struct Rivals {
    place: Place,
    wire: Wire,
    leader: Candidate,
    next: Candidate,
}

impl Rivals {
    fn at(etcd: &Etcd, witness: &Witness) -> Rivals {
        Rivals::over(Wire::Proxied(Proxy::to(&etcd.address())), etcd, witness)
    }

    fn over(wire: Wire, etcd: &Etcd, witness: &Witness) -> Rivals {
        let place = Place::new();
        let leader = wire.candidate(&place, etcd).witness(witness).start();
        place.starts(1);
        let next = candidate(&place, place.below(&etcd.url())).witness(witness).start();
        next.waits();
        Rivals { place, wire, leader, next }
    }

    /// Both end, and nothing is left of either.
    #[track_caller]
    fn end(self) {
        let Rivals { place, leader, next, .. } = self;
        leader.stops();
        next.stops();
        place.history().is_safe();
        until("nothing is left", || place.running().is_empty());
    }
}
