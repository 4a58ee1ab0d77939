//! What every store that grants leases over a network has to stand, on a real server of each kind.

pub mod cuts;
pub mod handover;

use std::time::Duration;

use crate::harness::network::Network;
use crate::harness::proxy::{Mode, Proxy};
use crate::harness::server::Server;
use crate::harness::wait::until;
use crate::harness::{Candidate, Elect, Place, Relay, Witness, side_by_side};

/// Short enough to be waited for, long enough for a laden machine.
pub const TTL: &str = "3s";
pub const LEASE: Duration = Duration::from_secs(3);

/// A store behind a proxy.
pub fn through<S: Server>(proxy: &Proxy, place: &Place) -> String {
    place.below(&S::url_of(&proxy.address()))
}

pub fn candidate(place: &Place, store: String) -> Elect {
    candidate_for(place, store, TTL)
}

pub fn candidate_for(place: &Place, store: String, ttl: &str) -> Elect {
    Elect::new(place).store(store).flag("--ttl", ttl)
}

pub fn relay(runs: usize, server: &impl Server) -> Relay<'static> {
    relay_for(runs, server, TTL)
}

pub fn relay_for<'a>(runs: usize, server: &impl Server, ttl: &'a str) -> Relay<'a> {
    Relay::of(runs).store(&server.url()).flag("--ttl", ttl)
}

/// As elect's flags take it.
pub fn written(lease: Duration) -> String {
    format!("{}ms", lease.as_millis())
}

/// As often, each with servers of its own: not so many at once that they get in each other's way.
pub fn a_few_at_once<T: Send>(count: usize, each: impl Fn() -> T + Sync) -> Vec<T> {
    let at_once = 4;
    (0..count.div_ceil(at_once)).flat_map(|batch| side_by_side(at_once.min(count - batch * at_once), &each)).collect()
}

/// A count or a size, for rates and means.
#[expect(clippy::cast_precision_loss, reason = "figures for people, far below 2^52")]
pub fn real(count: u64) -> f64 {
    count as f64
}

/// What is between a candidate and its server, and can be cut.
pub enum Wire {
    Proxied(Proxy),
    /// The candidate is on the host of this name.
    Cabled(Network, &'static str),
}

impl Wire {
    pub fn mode(&self, mode: Mode) {
        match self {
            Wire::Proxied(proxy) => proxy.mode(mode),
            Wire::Cabled(network, host) => network.mode(host, mode),
        }
    }

    /// A candidate at this end of it.
    pub fn candidate<S: Server>(&self, place: &Place, server: &S, lease: Duration) -> Elect {
        let ttl = written(lease);
        match self {
            Wire::Proxied(proxy) => candidate_for(place, through::<S>(proxy, place), &ttl),
            Wire::Cabled(network, host) => candidate_for(place, server.url_for(place), &ttl).under(network.host(host)),
        }
    }
}

/// A leader at the end of a wire of its own, and a waiter that sees the server as it is.
pub struct Rivals {
    pub place: Place,
    pub wire: Wire,
    pub leader: Candidate,
    pub next: Candidate,
}

impl Rivals {
    pub fn at(server: &impl Server, witness: &Witness, lease: Duration) -> Rivals {
        Rivals::over(Wire::Proxied(Proxy::to(&server.address())), server, witness, lease)
    }

    pub fn over(wire: Wire, server: &impl Server, witness: &Witness, lease: Duration) -> Rivals {
        let place = Place::new();
        let leader = wire.candidate(&place, server, lease).witness(witness).start();
        place.starts(1);
        let next = candidate_for(&place, server.url_for(&place), &written(lease)).witness(witness).start();
        next.waits();
        Rivals { place, wire, leader, next }
    }

    /// Both end, and nothing is left of either.
    #[track_caller]
    pub fn end(self) {
        let Rivals { place, leader, next, .. } = self;
        leader.stops();
        next.stops();
        place.history().is_safe();
        until("nothing is left", || place.running().is_empty());
    }
}
