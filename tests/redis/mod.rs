//! Redis as its users meet it: real servers, real cuts, real failovers.

mod access;
mod check;
mod connecting;
mod data_loss;
mod epochs;
mod fake_redis;
mod floods;
mod input_limits;
mod leases;
#[cfg(feature = "all-stores")]
mod limits;
mod load;
mod no_wait;
mod replicas;
mod sentinel;
mod sentinels;
pub mod server;
mod server_errors;

use std::time::Duration;

use crate::harness::host_tools::attempt;
use crate::harness::server::{PASSWORD, StoreServer};
use crate::harness::store_fixtures::{FixtureStore, ServerStore, StoreEntry};
use crate::harness::wait::until;
use crate::harness::{CandidateProcess, ElectCmd, Sandbox, Witness};
use crate::leases::candidate_for;
use sentinel::Sentinel;
use server::{RedisOptions, RedisServer};

fn elect(sandbox: &Sandbox, redis: &RedisServer, ttl: &str) -> ElectCmd {
    candidate_for(sandbox, redis.url_for(sandbox), ttl).witness(&Witness::new())
}

/// The key of this place's boundary.
fn key(sandbox: &Sandbox) -> String {
    format!("{}:cron", sandbox.path().file_name().expect("a directory has a name").to_string_lossy())
}

/// The first record of a boundary is waited for; not here, where that would take a minute. As if somebody had led before, and
/// released: in this incarnation of the server, unless it is started again.
fn led_before(sandbox: &Sandbox, redis: &RedisServer) {
    crate::leases::led_before(sandbox, redis.url_for(sandbox));
}

/// A leader, and a candidate that waits for it.
struct RedisPair {
    sandbox: Sandbox,
    leader: CandidateProcess,
    next: CandidateProcess,
}

impl RedisPair {
    fn on(redis: &RedisServer, [leader, next]: [&str; 2]) -> RedisPair {
        let sandbox = Sandbox::new();
        led_before(&sandbox, redis);
        let leader = elect(&sandbox, redis, leader).start();
        sandbox.starts(1);
        let next = elect(&sandbox, redis, next).start();
        next.wait_until_waiting();
        RedisPair { sandbox, leader, next }
    }

    /// Every outcome is safe, and in the end both stop.
    #[track_caller]
    fn ends(self) {
        let RedisPair { sandbox, leader, next } = self;
        sandbox.history().is_safe();
        next.terminate();
        leader.terminate();
        sandbox.history().is_safe();
        until("nothing is left", || sandbox.running().is_empty());
    }
}

/// Longer than a candidate with the short ttl would wait by its own.
const SHORTLY: Duration = Duration::from_secs(7);

/// This store in the tests for all stores. Its data are on its disk: a server that forgets a leader is waited for ([`data_loss`]).
pub const ENTRY: StoreEntry = StoreEntry {
    name: "redis",
    part: |url, name| match url.split_once('?') {
        Some((url, options)) => format!("{url}?{options}&prefix={name}:"),
        None => format!("{url}?prefix={name}:"),
    },
    fixtures: &[|| store(&RedisOptions::new())],
    has_server: true,
    version: || {
        let said = attempt(["redis-server", "--version"])?;
        // "Redis server v=7.0.15 …" or "Valkey server v=8.0.1 …"
        let server = said.split_whitespace().next().unwrap_or_default().to_lowercase();
        let version = said.split_whitespace().find_map(|word| word.strip_prefix("v="));
        version
            .map(|version| if server == "redis" { version.to_owned() } else { format!("{server} {version}") })
            .ok_or(said)
    },
    start_with_clock: Some(|words| store(&RedisOptions::new().wrapped_by(words))),
    start_failover: Some(|| Box::new(Sentinel::start())),
};

fn store(options: &RedisOptions) -> Box<dyn FixtureStore> {
    Box::new(ServerStore {
        server: RedisServer::with(&options.clone().durable()),
        notifies_changes: true,
        kill: RedisServer::kill,
        stop: RedisServer::stop,
        cont: RedisServer::cont,
        restart: RedisServer::restart,
        enable_auth: |redis| {
            redis.cli(&["acl", "setuser", "stranger", "on", &format!(">{PASSWORD}"), "-@all"]);
        },
        forget: |redis| drop(redis.cli(&["flushall"])),
    })
}
