//! Every kind of store that can be observed, so that one test holds for all of them.
//!
//! Adding a store: a line in [`for_each_store`], and what it takes to start it, to take it down, and to shut somebody out.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

#[cfg(feature = "etcd")]
use super::etcd::EtcdServer;
use super::etcd::PASSWORD;
#[cfg(feature = "mongodb")]
use super::mongod::{Mongod, SingleNodeReplicaSet};
#[cfg(feature = "redis")]
use super::redis::{self, RedisServer};
#[cfg(any(feature = "mongodb", feature = "redis"))]
use super::server::StoreServer;
use super::{CandidateProcess, ElectCmd, Sandbox, Witness};

/// Short enough to be waited for, long enough for a laden machine.
const TTL: &str = "3s";

/// A store of some kind, and a place to campaign in it.
pub struct StoreFixture {
    pub sandbox: Sandbox,
    pub kind: FixtureKind,
}

pub enum FixtureKind {
    File,
    #[cfg(feature = "etcd")]
    Etcd(Box<EtcdServer>),
    /// As it mostly is: with change streams.
    #[cfg(feature = "mongodb")]
    Mongodb(Box<SingleNodeReplicaSet>),
    /// Without them.
    #[cfg(feature = "mongodb")]
    MongodbAlone(Box<Mongod>),
    #[cfg(feature = "redis")]
    Redis(Box<RedisServer>),
}

/// The test on each of them, at once.
pub fn for_each_store(test: impl Fn(StoreFixture) + Sync) {
    let kinds: &[fn() -> FixtureKind] = &[
        || FixtureKind::File,
        #[cfg(feature = "etcd")]
        || FixtureKind::Etcd(Box::new(EtcdServer::start())),
        #[cfg(feature = "mongodb")]
        || FixtureKind::Mongodb(Box::new(SingleNodeReplicaSet::start())),
        #[cfg(feature = "mongodb")]
        || FixtureKind::MongodbAlone(Box::new(Mongod::start())),
        // What it knows is on its disk: whoever forgets a leader is waited for (see tests/redis/data_loss.rs).
        #[cfg(feature = "redis")]
        || FixtureKind::Redis(Box::new(RedisServer::with(&redis::RedisOptions::new().durable()))),
    ];
    let start = |kind: &fn() -> FixtureKind| StoreFixture { sandbox: Sandbox::new().open_to_all(), kind: kind() };
    let (test, start) = (&test, &start);
    std::thread::scope(|scope| {
        let all: Vec<_> = kinds.iter().map(|kind| scope.spawn(move || test(start(kind)))).collect();
        for one in all {
            one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    });
}

impl StoreFixture {
    /// As `status` calls it.
    pub fn name(&self) -> &'static str {
        match &self.kind {
            FixtureKind::File => "file",
            #[cfg(feature = "etcd")]
            FixtureKind::Etcd(_) => "etcd",
            #[cfg(feature = "mongodb")]
            FixtureKind::Mongodb(_) | FixtureKind::MongodbAlone(_) => "mongodb",
            #[cfg(feature = "redis")]
            FixtureKind::Redis(_) => "redis",
        }
    }

    pub fn url(&self) -> String {
        match &self.kind {
            FixtureKind::File => self.sandbox.store(),
            #[cfg(feature = "etcd")]
            FixtureKind::Etcd(etcd) => etcd.url(),
            #[cfg(feature = "mongodb")]
            FixtureKind::Mongodb(mongod) => mongod.url(),
            #[cfg(feature = "mongodb")]
            FixtureKind::MongodbAlone(mongod) => mongod.url(),
            #[cfg(feature = "redis")]
            FixtureKind::Redis(redis) => redis.url(),
        }
    }

    /// A candidate for `cron`.
    pub fn candidate(&self, name: &str) -> ElectCmd {
        ElectCmd::new(&self.sandbox).store(self.url()).flag("--ttl", TTL).flag("--name", name)
    }

    /// One that leads until it is stopped.
    pub fn leader(&self, name: &str) -> CandidateProcess {
        let before = self.sandbox.history().starts.len();
        let leader = self.candidate(name).flag("--advertise", "10.0.0.5:8080").witness(&Witness::new()).start();
        self.sandbox.starts(before + 1);
        leader
    }

    /// One that leads for a moment. Returns its term.
    #[track_caller]
    pub fn lead_once(&self, name: &str) -> u64 {
        let ended = self.candidate(name).switch("-q").shell("echo $ELECT_TERM").run();
        ended.stdout.trim().parse().unwrap_or_else(|_| panic!("it has led: {ended:?}"))
    }

    pub fn query(&self, subcommand: &'static str, words: &[&str]) -> ElectCmd {
        ElectCmd::new(&self.sandbox).store(self.url()).query(subcommand, words)
    }

    /// Whether there is a server that can be down.
    pub fn has_server(&self) -> bool {
        !matches!(self.kind, FixtureKind::File)
    }

    /// Whether those who look on hear of changes, or have to ask now and then.
    pub fn notifies_changes(&self) -> bool {
        match &self.kind {
            #[cfg(feature = "mongodb")]
            FixtureKind::MongodbAlone(_) => false,
            FixtureKind::File => true,
            #[cfg(feature = "etcd")]
            FixtureKind::Etcd(_) => true,
            #[cfg(feature = "mongodb")]
            FixtureKind::Mongodb(_) => true,
            #[cfg(feature = "redis")]
            FixtureKind::Redis(_) => true,
        }
    }

    pub fn stop_server(&self) {
        match &self.kind {
            FixtureKind::File => {}
            #[cfg(feature = "etcd")]
            FixtureKind::Etcd(etcd) => etcd.kill(),
            #[cfg(feature = "mongodb")]
            FixtureKind::Mongodb(mongod) => mongod.kill(),
            #[cfg(feature = "mongodb")]
            FixtureKind::MongodbAlone(mongod) => mongod.kill(),
            #[cfg(feature = "redis")]
            FixtureKind::Redis(redis) => redis.kill(),
        }
    }

    /// Also from where it has not gone down: it is started anew then.
    pub fn restart_server(&self) {
        match &self.kind {
            FixtureKind::File => {}
            #[cfg(feature = "etcd")]
            FixtureKind::Etcd(etcd) => etcd.restart(),
            #[cfg(feature = "mongodb")]
            FixtureKind::Mongodb(mongod) => mongod.restart(),
            #[cfg(feature = "mongodb")]
            FixtureKind::MongodbAlone(mongod) => mongod.restart(),
            #[cfg(feature = "redis")]
            FixtureKind::Redis(redis) => redis.restart(),
        }
    }

    /// From now on there are users; these questions are asked by one who may nothing.
    pub fn revoke_access(&self) -> impl Fn(ElectCmd) -> ElectCmd {
        let binary = self.sandbox.path().join("elect");
        if matches!(self.kind, FixtureKind::File) {
            assert!(nix::unistd::geteuid().is_root(), "this test becomes another user: run it as root");
            fs::copy(super::candidate::elect(), &binary).expect("the place takes a copy");
            fs::create_dir_all(self.sandbox.locks()).expect("an open place");
            fs::set_permissions(self.sandbox.locks(), Permissions::from_mode(0o700)).expect("a directory of ours");
        }
        #[cfg(feature = "etcd")]
        if let FixtureKind::Etcd(etcd) = &self.kind {
            etcd.enable_auth();
        }
        #[cfg(feature = "mongodb")]
        if let FixtureKind::Mongodb(mongod) = &self.kind {
            mongod.enable_auth();
        }
        #[cfg(feature = "mongodb")]
        if let FixtureKind::MongodbAlone(mongod) = &self.kind {
            mongod.enable_auth();
        }
        #[cfg(feature = "redis")]
        if let FixtureKind::Redis(redis) = &self.kind {
            redis.cli(&["acl", "setuser", "stranger", "on", &format!(">{PASSWORD}"), "-@all"]);
        }
        let is_file = matches!(self.kind, FixtureKind::File);
        move |elect| {
            if is_file {
                return elect.binary(&binary).wrapped_by(STRANGER);
            }
            elect.flag("--username", "stranger").variable("ELECT_PASSWORD", PASSWORD)
        }
    }
}

/// Becomes a user whom nobody knows.
pub const STRANGER: [&str; 6] = ["setpriv", "--reuid", "47201", "--regid", "47201", "--clear-groups"];
