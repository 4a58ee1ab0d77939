//! A replica set of three, each member of which can be cut off from the others, and from a candidate, while everybody else
//! still reaches it.
//!
//! A member is known to the others, and to clients, by the address of a proxy. The proxy finds out who is behind a
//! connection, so that what a member sends can be held as well as what it is sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread;
use std::time::Duration;

use ::mongodb::bson::oid::ObjectId;
use ::mongodb::bson::{Document, doc};

use super::server::{Mongod, MongodOptions, SET, has, initiation};
use crate::harness::ports::free_port;
use crate::harness::processes::owner;
use crate::harness::proxy::{Proxy, ProxyMode};
use crate::harness::store_fixtures::FailoverServers;
use crate::harness::{CandidateProcess, eventually, until};

const COUNT: usize = 3;
/// A client that is not a member and may be cut off as one is.
const GUEST: usize = COUNT;

pub struct ReplicaSet {
    pub members: Vec<Mongod>,
    proxies: Vec<Proxy>,
    pids: Arc<[AtomicI32]>,
}

impl ReplicaSet {
    /// All are up, and one of them is the primary.
    #[track_caller]
    pub fn start() -> ReplicaSet {
        let set = eventually("ports that stay free", || {
            let pids: Arc<[AtomicI32]> = (0..=COUNT).map(|_| AtomicI32::new(0)).collect();
            let ports: Vec<u16> = (0..COUNT).map(|_| free_port()).collect();
            let proxy = |port| {
                let pids = Arc::clone(&pids);
                Proxy::telling_apart(&format!("127.0.0.1:{port}"), Box::new(move |client| owner(client, &pids)))
            };
            let proxies: Vec<Proxy> = ports.iter().map(proxy).collect();
            let launch = |index: usize| {
                let pids = Arc::clone(&pids);
                let tell = Box::new(move |pid| pids[index].store(pid, Ordering::SeqCst));
                // A secondary whose source is cut off or stands still would else ask it for ten seconds more, or a minute if it
                // had just begun to, and confirm nothing.
                let options = MongodOptions::new()
                    .parameter("oplogNetworkTimeoutBufferSeconds", "1")
                    .parameter("oplogInitialFindMaxSeconds", "2");
                Mongod::launch(options.in_a_set(), ports[index], tell)
            };
            let members: Vec<Mongod> = (0..COUNT).map(launch).collect();
            members.iter().all(Mongod::comes_up).then_some(ReplicaSet { members, proxies, pids })
        });
        let addresses: Vec<String> = set.proxies.iter().map(Proxy::address).collect();
        // It asks the others whether they will.
        eventually("they become a set", || set.members[0].try_admin(initiation(&addresses)).ok());
        set.is_whole();
        set
    }

    /// From now on so long lies between the last word of a primary and the election of another, and a primary without a
    /// majority takes so long to notice.
    #[track_caller]
    pub fn elects_after(&self, time_out: Duration) {
        let primary = &self.members[self.primary()];
        let config = primary.admin(doc! { "replSetGetConfig": 1 });
        let mut config = config.get_document("config").expect("a configuration").clone();
        let version = config.get_i32("version").expect("a number") + 1;
        config.insert("version", version);
        let time_out = i64::try_from(time_out.as_millis()).expect("a short time");
        config.get_document_mut("settings").expect("settings").insert("electionTimeoutMillis", time_out);
        primary.admin(doc! { "replSetReconfig": config });
        until("every member knows", || {
            let said = self.members.iter().map(|member| member.try_admin(doc! { "replSetGetConfig": 1 }));
            said.flatten()
                .filter(|told| told.get_document("config").is_ok_and(|one| has(one, "version", version)))
                .count()
                == COUNT
        });
    }

    /// For `--store`: every member.
    pub fn url(&self) -> String {
        let addresses: Vec<String> = self.proxies.iter().map(Proxy::address).collect();
        format!("mongodb://{}/?replicaSet={SET}", addresses.join(","))
    }

    /// One member, and no other whatever becomes of it.
    pub fn url_of(&self, index: usize) -> String {
        format!("mongodb://{}/?directConnection=true", self.proxies[index].address())
    }

    /// Waits until everybody is a primary or a secondary, and there is one primary.
    #[track_caller]
    pub fn is_whole(&self) {
        until("all are members, and one is the primary", || {
            let said = self.hellos(None);
            let count = |field: &str| said.iter().flatten().filter(|hello| has(hello, field, true)).count();
            (count("isWritablePrimary"), count("secondary")) == (1, COUNT - 1)
        });
    }

    /// Of those that call themselves so, the one that was elected last.
    #[track_caller]
    pub fn primary(&self) -> usize {
        eventually("the set has a primary", || self.elected_last(None))
    }

    /// The one who takes over. The old one is not asked, and may stand still.
    #[track_caller]
    pub fn primary_after(&self, old: usize) -> usize {
        eventually("the others elect one of theirs", || self.elected_last(Some(old)))
    }

    pub fn is_primary(&self, index: usize) -> bool {
        let hello = self.members[index].try_admin(doc! { "hello": 1 });
        hello.is_ok_and(|hello| has(&hello, "isWritablePrimary", true))
    }

    fn elected_last(&self, but_for: Option<usize>) -> Option<usize> {
        let said = self.hellos(but_for);
        let elected = |hello: &Document| -> Option<ObjectId> {
            let is_primary = has(hello, "isWritablePrimary", true);
            is_primary.then(|| hello.get_object_id("electionId").ok()).flatten()
        };
        let all = said.iter().enumerate().filter_map(|(index, hello)| Some((elected(hello.as_ref()?)?.bytes(), index)));
        all.max().map(|(_, index)| index)
    }

    /// It gives its place to another, as an operator would have it.
    #[track_caller]
    pub fn step_down(&self, index: usize) {
        eventually("a secondary has caught up", || {
            self.members[index].try_admin(doc! { "replSetStepDown": 60, "secondaryCatchUpPeriodSecs": 5 }).ok()
        });
    }

    /// Nothing passes between it and the others. Clients still reach it.
    pub fn cut_off(&self, index: usize) {
        self.between_it_and_the_others(index, ProxyMode::BlackHole);
    }

    /// The same, and this candidate is on its side: it reaches none of the others. Nobody else does what it does.
    pub fn cut_off_with(&self, index: usize, candidate: &CandidateProcess) {
        self.pids[GUEST].store(candidate.pid(), Ordering::SeqCst);
        self.cut_off(index);
        for (other, proxy) in self.proxies.iter().enumerate() {
            if other != index {
                proxy.mode_for(GUEST, ProxyMode::BlackHole);
            }
        }
    }

    /// Held bytes are delivered.
    pub fn heal(&self, index: usize) {
        self.between_it_and_the_others(index, ProxyMode::Open);
        self.proxies.iter().for_each(|proxy| proxy.mode_for(GUEST, ProxyMode::Open));
    }

    fn between_it_and_the_others(&self, index: usize, mode: ProxyMode) {
        for (other, proxy) in self.proxies.iter().enumerate() {
            if other == index {
                (0..COUNT).filter(|&from| from != index).for_each(|from| proxy.mode_for(from, mode));
            } else {
                proxy.mode_for(index, mode);
            }
        }
    }

    /// Of each member; of those that answer.
    fn hellos(&self, but_for: Option<usize>) -> Vec<Option<Document>> {
        thread::scope(|scope| {
            let asked: Vec<_> = (0..COUNT)
                .map(|index| {
                    let asked = (Some(index) != but_for).then_some(&self.members[index]);
                    scope.spawn(move || asked?.try_hello(Duration::from_secs(1)))
                })
                .collect();
            asked.into_iter().map(|answer| answer.join().expect("a question does no harm")).collect()
        })
    }
}

impl FailoverServers for ReplicaSet {
    fn url(&self) -> String {
        ReplicaSet::url(self)
    }

    fn serving(&self) -> usize {
        self.primary()
    }

    fn another_serves(&self, old: usize) {
        self.primary_after(old);
    }

    fn kill_server(&self, index: usize) {
        self.members[index].kill();
    }

    fn start_server(&self, index: usize) {
        self.members[index].start_again();
    }

    fn stop_server(&self, index: usize) {
        self.members[index].stop();
    }

    fn cont_server(&self, index: usize) {
        self.members[index].cont();
    }

    fn are_whole(&self) {
        self.is_whole();
    }
}
