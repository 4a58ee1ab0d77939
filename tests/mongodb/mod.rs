//! MongoDB as its users meet it: real servers, alone, as a set of one and as sets of three, real cuts, real elections.

mod access;
mod check;
mod clock;
mod connecting;
mod floods;
mod input_limits;
mod leases;
mod load;
mod lost_replies;
mod records;
mod replica_set;
mod replicas;
pub mod server;
mod ttl_index;

use std::time::Duration;

use ::mongodb::bson::doc;

use crate::harness::host_tools::attempt;
use crate::harness::server::StoreServer;
use crate::harness::store_fixtures::{FixtureStore, ServerStore, StoreEntry};
use crate::harness::wait::until;
use crate::harness::{CandidateProcess, ElectCmd, Sandbox, Witness};
use crate::leases::{TTL, candidate_for, patient};
use replica_set::ReplicaSet;
use server::{Mongod, MongodOptions, SingleNodeReplicaSet};

fn elect(sandbox: &Sandbox, server: &impl StoreServer, ttl: &str) -> ElectCmd {
    candidate_for(sandbox, server.url_for(sandbox), ttl).witness(&Witness::new())
}

/// A leader, and a candidate that waits for it.
struct MongodbPair {
    sandbox: Sandbox,
    leader: CandidateProcess,
    next: CandidateProcess,
}

impl MongodbPair {
    fn on(server: &impl StoreServer, ttl: &str) -> MongodbPair {
        let sandbox = Sandbox::new();
        let leader = elect(&sandbox, server, ttl).start();
        sandbox.starts(1);
        let next = elect(&sandbox, server, ttl).start();
        next.wait_until_waiting();
        MongodbPair { sandbox, leader, next }
    }

    /// The leader's lease outlasts every delay of a busy machine; the candidate's is as short as ever.
    fn patient(server: &impl StoreServer) -> MongodbPair {
        let sandbox = Sandbox::new();
        let leader = patient(&sandbox, server.url_for(&sandbox)).witness(&Witness::new()).start();
        sandbox.starts(1);
        let next = elect(&sandbox, server, TTL).start();
        next.wait_until_waiting();
        MongodbPair { sandbox, leader, next }
    }

    /// Every outcome is safe, and in the end both stop.
    #[track_caller]
    fn ends(self) {
        let MongodbPair { sandbox, leader, next } = self;
        sandbox.history().is_safe();
        next.terminate();
        leader.terminate();
        sandbox.history().is_safe();
        until("nothing is left", || sandbox.running().is_empty());
    }
}

/// Longer than a candidate with a ttl of 3 s would wait for a record that nobody touches.
const SHORTLY: Duration = Duration::from_secs(4);

/// This store in the tests for all stores: a set of one, and a server alone.
pub const ENTRY: StoreEntry = StoreEntry {
    name: "mongodb",
    part: |url, name| match url.split_once('?') {
        Some((url, options)) => format!("{}/{name}?{options}", url.trim_end_matches('/')),
        None => format!("{}/{name}", url.trim_end_matches('/')),
    },
    fixtures: &[
        || set(&MongodOptions::new()),
        || {
            Box::new(ServerStore {
                server: Mongod::start(),
                notifies_changes: true,
                kill: Mongod::kill,
                stop: Mongod::stop,
                cont: Mongod::cont,
                restart: Mongod::restart,
                enable_auth: Mongod::enable_auth,
                forget,
            })
        },
    ],
    has_server: true,
    version: || {
        let said = attempt(["mongod", "--version"])?;
        let version = said.lines().find_map(|line| line.strip_prefix("db version v"));
        version.map(str::to_owned).ok_or(said)
    },
    start_with_clock: Some(|words| set(&MongodOptions::new().wrapped_by(words))),
    start_failover: Some(|| Box::new(ReplicaSet::start())),
};

fn set(options: &MongodOptions) -> Box<dyn FixtureStore> {
    Box::new(ServerStore {
        server: SingleNodeReplicaSet::with(options),
        notifies_changes: true,
        kill: |set| set.kill(),
        stop: |set| set.stop(),
        cont: |set| set.cont(),
        restart: SingleNodeReplicaSet::restart,
        enable_auth: SingleNodeReplicaSet::enable_auth,
        forget: |set| forget(set),
    })
}

fn forget(mongod: &Mongod) {
    mongod.command("elect", doc! { "dropDatabase": 1 });
}
