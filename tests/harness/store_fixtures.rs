//! Every kind of store that can be observed, so that one test holds for all of them.
//!
//! Adding a store: an entry in [`STORES`].

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

#[cfg(feature = "etcd")]
use super::etcd::EtcdServer;
use super::etcd::PASSWORD;
#[cfg(feature = "mongodb")]
use super::mongod::{Mongod, SingleNodeReplicaSet};
#[cfg(feature = "redis")]
use super::redis::{self, RedisServer};
#[cfg(any(feature = "etcd", feature = "mongodb", feature = "redis"))]
use super::server::StoreServer;
use super::{CandidateProcess, ElectCmd, Sandbox, Witness};

/// Short enough to be waited for, long enough for a laden machine.
const TTL: &str = "3s";

/// A store of some kind, and a place to campaign in it.
pub struct StoreFixture {
    pub sandbox: Sandbox,
    store: Box<dyn FixtureStore>,
}

/// A directory or a server in which elections are held.
trait FixtureStore: Sync {
    /// As `status` calls it.
    fn name(&self) -> &'static str;
    fn url(&self, sandbox: &Sandbox) -> String;
    /// Whether there is a server that can be down.
    fn has_server(&self) -> bool;
    /// Whether observers hear of changes, or have to ask now and then.
    fn notifies_changes(&self) -> bool;
    fn kill(&self);
    /// Also a server that is up: it is restarted then.
    fn restart(&self);
    /// From now on a user `stranger` with the [`PASSWORD`] exists, who may do nothing.
    fn enable_auth(&self);
}

struct FileStore;

impl FixtureStore for FileStore {
    fn name(&self) -> &'static str {
        "file"
    }

    fn url(&self, sandbox: &Sandbox) -> String {
        sandbox.store()
    }

    fn has_server(&self) -> bool {
        false
    }

    fn notifies_changes(&self) -> bool {
        true
    }

    fn kill(&self) {}

    fn restart(&self) {}

    fn enable_auth(&self) {}
}

/// A server of the harness, and the functions by which the fixture steers it.
#[cfg(any(feature = "etcd", feature = "mongodb", feature = "redis"))]
struct ServerStore<S> {
    server: S,
    name: &'static str,
    notifies_changes: bool,
    kill: fn(&S),
    restart: fn(&S),
    enable_auth: fn(&S),
}

#[cfg(any(feature = "etcd", feature = "mongodb", feature = "redis"))]
impl<S: StoreServer> FixtureStore for ServerStore<S> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn url(&self, _: &Sandbox) -> String {
        self.server.url()
    }

    fn has_server(&self) -> bool {
        true
    }

    fn notifies_changes(&self) -> bool {
        self.notifies_changes
    }

    fn kill(&self) {
        (self.kill)(&self.server);
    }

    fn restart(&self) {
        (self.restart)(&self.server);
    }

    fn enable_auth(&self) {
        (self.enable_auth)(&self.server);
    }
}

/// Every kind of store: the only list that a new one joins.
const STORES: &[fn() -> Box<dyn FixtureStore>] = &[
    || Box::new(FileStore),
    #[cfg(feature = "etcd")]
    || {
        Box::new(ServerStore {
            server: EtcdServer::start(),
            name: "etcd",
            notifies_changes: true,
            kill: EtcdServer::kill,
            restart: EtcdServer::restart,
            enable_auth: EtcdServer::enable_auth,
        })
    },
    #[cfg(feature = "mongodb")]
    || {
        Box::new(ServerStore {
            server: SingleNodeReplicaSet::start(),
            name: "mongodb",
            notifies_changes: true,
            kill: |set| set.kill(),
            restart: SingleNodeReplicaSet::restart,
            enable_auth: SingleNodeReplicaSet::enable_auth,
        })
    },
    // A standalone server has no change streams.
    #[cfg(feature = "mongodb")]
    || {
        Box::new(ServerStore {
            server: Mongod::start(),
            name: "mongodb",
            notifies_changes: false,
            kill: Mongod::kill,
            restart: Mongod::restart,
            enable_auth: Mongod::enable_auth,
        })
    },
    // Its data are on its disk: a server that forgets a leader is waited for (see tests/redis/data_loss.rs).
    #[cfg(feature = "redis")]
    || {
        Box::new(ServerStore {
            server: RedisServer::with(&redis::RedisOptions::new().durable()),
            name: "redis",
            notifies_changes: true,
            kill: RedisServer::kill,
            restart: RedisServer::restart,
            enable_auth: |redis| {
                redis.cli(&["acl", "setuser", "stranger", "on", &format!(">{PASSWORD}"), "-@all"]);
            },
        })
    },
];

/// The test on each of them, at once.
pub fn for_each_store(test: impl Fn(StoreFixture) + Sync) {
    let test = &test;
    std::thread::scope(|scope| {
        let run = |start: &fn() -> Box<dyn FixtureStore>| {
            let start = *start;
            scope.spawn(move || test(StoreFixture { sandbox: Sandbox::new().open_to_all(), store: start() }))
        };
        let all: Vec<_> = STORES.iter().map(run).collect();
        for one in all {
            one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    });
}

impl StoreFixture {
    /// As `status` calls it.
    pub fn name(&self) -> &'static str {
        self.store.name()
    }

    pub fn url(&self) -> String {
        self.store.url(&self.sandbox)
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
        self.store.has_server()
    }

    /// Whether observers hear of changes, or have to ask now and then.
    pub fn notifies_changes(&self) -> bool {
        self.store.notifies_changes()
    }

    pub fn stop_server(&self) {
        self.store.kill();
    }

    /// Also a server that is up: it is restarted then.
    pub fn restart_server(&self) {
        self.store.restart();
    }

    /// From now on there are users, and the queries are those of one who may do nothing.
    pub fn revoke_access(&self) -> impl Fn(ElectCmd) -> ElectCmd {
        let binary = self.sandbox.path().join("elect");
        let has_server = self.has_server();
        if !has_server {
            assert!(nix::unistd::geteuid().is_root(), "this test becomes another user: run it as root");
            fs::copy(super::candidate::elect(), &binary).expect("the place takes a copy");
            fs::create_dir_all(self.sandbox.locks()).expect("an open place");
            fs::set_permissions(self.sandbox.locks(), Permissions::from_mode(0o700)).expect("a directory of ours");
        }
        self.store.enable_auth();
        move |elect| {
            if !has_server {
                return elect.binary(&binary).wrapped_by(STRANGER);
            }
            elect.flag("--username", "stranger").variable("ELECT_PASSWORD", PASSWORD)
        }
    }
}

/// Becomes a user without any permission.
pub const STRANGER: [&str; 6] = ["setpriv", "--reuid", "47201", "--regid", "47201", "--clear-groups"];
