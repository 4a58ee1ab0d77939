//! The tests of every store that grants leases over a network, on a real server of each kind.

pub mod cuts;
pub mod handover;

use std::time::Duration;

use crate::harness::network::Network;
use crate::harness::proxy::{Proxy, ProxyMode};
use crate::harness::server::StoreServer;
use crate::harness::wait::until;
use crate::harness::{CandidateProcess, ElectCmd, HandoverRuns, Sandbox, Witness, side_by_side};

/// Of most stores ([`StoreServer::TTL`]): short enough to be waited for, long enough for a busy machine.
pub const TTL: &str = "3s";
pub const LEASE: Duration = Duration::from_secs(3);

/// A store behind a proxy.
pub fn through<S: StoreServer>(proxy: &Proxy, sandbox: &Sandbox) -> String {
    sandbox.below(&S::url_of(&proxy.address()))
}

pub fn candidate(sandbox: &Sandbox, store: String) -> ElectCmd {
    candidate_for(sandbox, store, TTL)
}

pub fn candidate_for(sandbox: &Sandbox, store: String, ttl: &str) -> ElectCmd {
    ElectCmd::new(sandbox).store(store).flag("--ttl", ttl)
}

/// As if somebody had led before, and released: stores that cannot know that no leader was forgotten wait for the first record of a
/// boundary, and where a ttl is long that takes long.
pub fn led_before(sandbox: &Sandbox, store: String) {
    led_before_for(sandbox, store, "2200ms");
}

/// The same where the shortest ttl is longer than that.
pub fn led_before_for(sandbox: &Sandbox, store: String, ttl: &str) {
    let first = candidate_for(sandbox, store, ttl).command(["true"]).run();
    assert_eq!(first.status.code(), Some(0), "{first:?}");
}

/// One that makes a single attempt, which with this ttl may take ten seconds: more than any busy machine needs.
pub fn asks_once(sandbox: &Sandbox, store: String) -> ElectCmd {
    candidate_for(sandbox, store, "100s").switch("-n")
}

/// One whose lease outlasts every delay of a busy machine, and that renews as often as with a short one: for tests in which the lease is
/// not the subject. Where a first record is waited for, [`led_before`] comes first.
pub fn patient(sandbox: &Sandbox, store: String) -> ElectCmd {
    candidate_for(sandbox, store, "60s").flag("--renew", "1s")
}

pub fn relay_for<'a>(runs: usize, server: &impl StoreServer, ttl: &'a str) -> HandoverRuns<'a> {
    HandoverRuns::of(runs).store(&server.url()).flag("--ttl", ttl)
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

/// The link between a candidate and its server, which can be cut.
pub enum NetworkLink {
    Proxied(Proxy),
    /// The candidate is on the host of this name.
    Cabled(Network, &'static str),
}

impl NetworkLink {
    pub fn mode(&self, mode: ProxyMode) {
        match self {
            NetworkLink::Proxied(proxy) => proxy.mode(mode),
            NetworkLink::Cabled(network, host) => network.mode(host, mode),
        }
    }

    /// A candidate at this end of it.
    pub fn candidate<S: StoreServer>(&self, sandbox: &Sandbox, server: &S, lease: Duration) -> ElectCmd {
        let ttl = written(lease);
        match self {
            NetworkLink::Proxied(proxy) => candidate_for(sandbox, through::<S>(proxy, sandbox), &ttl),
            NetworkLink::Cabled(network, host) => {
                candidate_for(sandbox, server.url_for(sandbox), &ttl).wrapped_by(network.host(host))
            }
        }
    }
}

/// A leader at the end of a wire of its own, and a waiter that sees the server as it is.
pub struct CandidatePair {
    pub sandbox: Sandbox,
    pub link: NetworkLink,
    pub leader: CandidateProcess,
    pub next: CandidateProcess,
}

impl CandidatePair {
    pub fn at(server: &impl StoreServer, witness: &Witness, lease: Duration) -> CandidatePair {
        CandidatePair::over(NetworkLink::Proxied(Proxy::to(&server.address())), server, witness, lease)
    }

    pub fn over(link: NetworkLink, server: &impl StoreServer, witness: &Witness, lease: Duration) -> CandidatePair {
        let sandbox = Sandbox::new();
        let leader = link.candidate(&sandbox, server, lease).witness(witness).start();
        sandbox.starts(1);
        let next = candidate_for(&sandbox, server.url_for(&sandbox), &written(lease)).witness(witness).start();
        next.wait_until_waiting();
        CandidatePair { sandbox, link, leader, next }
    }

    /// Both end, and nothing is left of either.
    #[track_caller]
    pub fn end(self) {
        let CandidatePair { sandbox, leader, next, .. } = self;
        leader.terminate();
        next.terminate();
        sandbox.history().is_safe();
        until("nothing is left", || sandbox.running().is_empty());
    }
}
