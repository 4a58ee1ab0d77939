//! Every kind of store that can be observed, so that one test holds for all of them.
//!
//! Adding a store: a line in [`each`], and what it takes to start it, to take it down, and to shut somebody out.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

#[cfg(feature = "etcd")]
use super::etcd::Etcd;
use super::etcd::PASSWORD;
#[cfg(feature = "mongodb")]
use super::mongod::{Mongod, SetOfOne};
#[cfg(feature = "redis")]
use super::redis::{self, Redis};
#[cfg(any(feature = "mongodb", feature = "redis"))]
use super::server::Server;
use super::{Candidate, Elect, Place, Witness};

/// Short enough to be waited for, long enough for a laden machine.
const TTL: &str = "3s";

/// A store of some kind, and a place to campaign in it.
pub struct Site {
    pub place: Place,
    pub kind: Kind,
}

pub enum Kind {
    File,
    #[cfg(feature = "etcd")]
    Etcd(Box<Etcd>),
    /// As it mostly is: with change streams.
    #[cfg(feature = "mongodb")]
    Mongodb(Box<SetOfOne>),
    /// Without them.
    #[cfg(feature = "mongodb")]
    MongodbAlone(Box<Mongod>),
    #[cfg(feature = "redis")]
    Redis(Box<Redis>),
}

/// The test on each of them, at once.
pub fn each(test: impl Fn(Site) + Sync) {
    let kinds: &[fn() -> Kind] = &[
        || Kind::File,
        #[cfg(feature = "etcd")]
        || Kind::Etcd(Box::new(Etcd::start())),
        #[cfg(feature = "mongodb")]
        || Kind::Mongodb(Box::new(SetOfOne::start())),
        #[cfg(feature = "mongodb")]
        || Kind::MongodbAlone(Box::new(Mongod::start())),
        // What it knows is on its disk: whoever forgets a leader is waited for (see tests/redis/memory.rs).
        #[cfg(feature = "redis")]
        || Kind::Redis(Box::new(Redis::with(&redis::Options::new().durable()))),
    ];
    let start = |kind: &fn() -> Kind| Site { place: Place::new().open_to_all(), kind: kind() };
    let (test, start) = (&test, &start);
    std::thread::scope(|scope| {
        let all: Vec<_> = kinds.iter().map(|kind| scope.spawn(move || test(start(kind)))).collect();
        for one in all {
            one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    });
}

impl Site {
    /// As `status` calls it.
    pub fn name(&self) -> &'static str {
        match &self.kind {
            Kind::File => "file",
            #[cfg(feature = "etcd")]
            Kind::Etcd(_) => "etcd",
            #[cfg(feature = "mongodb")]
            Kind::Mongodb(_) | Kind::MongodbAlone(_) => "mongodb",
            #[cfg(feature = "redis")]
            Kind::Redis(_) => "redis",
        }
    }

    pub fn url(&self) -> String {
        match &self.kind {
            Kind::File => self.place.store(),
            #[cfg(feature = "etcd")]
            Kind::Etcd(etcd) => etcd.url(),
            #[cfg(feature = "mongodb")]
            Kind::Mongodb(mongod) => mongod.url(),
            #[cfg(feature = "mongodb")]
            Kind::MongodbAlone(mongod) => mongod.url(),
            #[cfg(feature = "redis")]
            Kind::Redis(redis) => redis.url(),
        }
    }

    /// A candidate for `cron`.
    pub fn candidate(&self, name: &str) -> Elect {
        Elect::new(&self.place).store(self.url()).flag("--ttl", TTL).flag("--name", name)
    }

    /// One that leads until it is stopped.
    pub fn leader(&self, name: &str) -> Candidate {
        let before = self.place.history().starts.len();
        let leader = self.candidate(name).flag("--advertise", "10.0.0.5:8080").witness(&Witness::new()).start();
        self.place.starts(before + 1);
        leader
    }

    /// One that leads for a moment. Returns its term.
    #[track_caller]
    pub fn leads_briefly(&self, name: &str) -> u64 {
        let ended = self.candidate(name).switch("-q").shell("echo $ELECT_TERM").run();
        ended.stdout.trim().parse().unwrap_or_else(|_| panic!("it has led: {ended:?}"))
    }

    pub fn asks(&self, verb: &'static str, words: &[&str]) -> Elect {
        Elect::new(&self.place).store(self.url()).asks(verb, words)
    }

    /// Whether there is a server that can be down.
    pub fn has_server(&self) -> bool {
        !matches!(self.kind, Kind::File)
    }

    /// Whether those who look on hear of changes, or have to ask now and then.
    pub fn tells_changes(&self) -> bool {
        match &self.kind {
            #[cfg(feature = "mongodb")]
            Kind::MongodbAlone(_) => false,
            Kind::File => true,
            #[cfg(feature = "etcd")]
            Kind::Etcd(_) => true,
            #[cfg(feature = "mongodb")]
            Kind::Mongodb(_) => true,
            #[cfg(feature = "redis")]
            Kind::Redis(_) => true,
        }
    }

    pub fn goes_down(&self) {
        match &self.kind {
            Kind::File => {}
            #[cfg(feature = "etcd")]
            Kind::Etcd(etcd) => etcd.kill(),
            #[cfg(feature = "mongodb")]
            Kind::Mongodb(mongod) => mongod.kill(),
            #[cfg(feature = "mongodb")]
            Kind::MongodbAlone(mongod) => mongod.kill(),
            #[cfg(feature = "redis")]
            Kind::Redis(redis) => redis.kill(),
        }
    }

    /// Also from where it has not gone down: it is started anew then.
    pub fn comes_back(&self) {
        match &self.kind {
            Kind::File => {}
            #[cfg(feature = "etcd")]
            Kind::Etcd(etcd) => etcd.restart(),
            #[cfg(feature = "mongodb")]
            Kind::Mongodb(mongod) => mongod.restart(),
            #[cfg(feature = "mongodb")]
            Kind::MongodbAlone(mongod) => mongod.restart(),
            #[cfg(feature = "redis")]
            Kind::Redis(redis) => redis.restart(),
        }
    }

    /// From now on there are users; these questions are asked by one who may nothing.
    pub fn shuts_out(&self) -> impl Fn(Elect) -> Elect {
        let binary = self.place.path().join("elect");
        if matches!(self.kind, Kind::File) {
            assert!(nix::unistd::geteuid().is_root(), "this test becomes another user: run it as root");
            fs::copy(super::candidate::elect(), &binary).expect("the place takes a copy");
            fs::create_dir_all(self.place.locks()).expect("an open place");
            fs::set_permissions(self.place.locks(), Permissions::from_mode(0o700)).expect("a directory of ours");
        }
        #[cfg(feature = "etcd")]
        if let Kind::Etcd(etcd) = &self.kind {
            etcd.enable_auth();
        }
        #[cfg(feature = "mongodb")]
        if let Kind::Mongodb(mongod) = &self.kind {
            mongod.enable_auth();
        }
        #[cfg(feature = "mongodb")]
        if let Kind::MongodbAlone(mongod) = &self.kind {
            mongod.enable_auth();
        }
        #[cfg(feature = "redis")]
        if let Kind::Redis(redis) = &self.kind {
            redis.cli(&["acl", "setuser", "stranger", "on", &format!(">{PASSWORD}"), "-@all"]);
        }
        let is_file = matches!(self.kind, Kind::File);
        move |elect| {
            if is_file {
                return elect.binary(&binary).under(STRANGER);
            }
            elect.flag("--username", "stranger").variable("ELECT_PASSWORD", PASSWORD)
        }
    }
}

/// Becomes a user whom nobody knows.
pub const STRANGER: [&str; 6] = ["setpriv", "--reuid", "47201", "--regid", "47201", "--clear-groups"];
