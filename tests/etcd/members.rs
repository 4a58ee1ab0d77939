//! An etcd of several members, each of which can be cut off from the others while its clients still reach it.
//!
//! A member is known to the others by the address of a proxy. The proxy finds out which member is behind a connection, so
//! that what a member sends can be held as well as what it is sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread;

use serde_json::Value;

use super::server::{EtcdOptions, EtcdServer, Peers, again};
use crate::harness::ports::free_port;
use crate::harness::proxy::{Proxy, ProxyMode};
use crate::harness::store_fixtures::FailoverServers;
use crate::harness::{eventually, processes, until};

pub struct EtcdCluster {
    pub members: Vec<EtcdServer>,
    proxies: Vec<Proxy>,
}

/// The status that a member reports.
struct MemberStatus {
    id: u64,
    leader: u64,
    term: u64,
}

impl EtcdCluster {
    /// So many members; they have a leader.
    #[track_caller]
    pub fn of(count: usize) -> EtcdCluster {
        EtcdCluster::with(count, |_| EtcdOptions::new())
    }

    #[track_caller]
    pub fn with(count: usize, options: impl Fn(usize) -> EtcdOptions) -> EtcdCluster {
        again(|| {
            let pids: Arc<[AtomicI32]> = (0..count).map(|_| AtomicI32::new(0)).collect();
            let ports: Vec<u16> = (0..count).map(|_| free_port()).collect();
            let proxy = |port| {
                let pids = Arc::clone(&pids);
                Proxy::telling_apart(
                    &format!("127.0.0.1:{port}"),
                    Box::new(move |client| processes::owner(client, &pids)),
                )
            };
            let proxies: Vec<Proxy> = ports.iter().map(proxy).collect();
            let all = |mode| proxies.iter().for_each(|proxy: &Proxy| proxy.mode(mode));
            all(ProxyMode::Closed);
            let urls: Vec<String> = proxies.iter().map(|proxy| format!("http://{}", proxy.address())).collect();
            let cluster = urls.iter().enumerate().map(|(index, url)| format!("m{index}={url}"));
            let cluster = cluster.collect::<Vec<_>>().join(",");
            let launch = |index: usize| {
                let pids = Arc::clone(&pids);
                let peers = Peers {
                    name: format!("m{index}"),
                    port: ports[index],
                    advertised: urls[index].clone(),
                    cluster: cluster.clone(),
                    tell: Box::new(move |pid| pids[index].store(pid, Ordering::SeqCst)),
                };
                EtcdServer::launch(options(index), peers)
            };
            // A new member first asks the others for the cluster; none answers before it has got no answer itself, which
            // takes 2 s, unless they refuse.
            let members: Vec<EtcdServer> = (0..count).map(launch).collect();
            until("the members run", || members.iter().all(EtcdServer::has_begun));
            all(ProxyMode::Open);
            members.iter().all(EtcdServer::comes_up).then_some(EtcdCluster { members, proxies })
        })
    }

    /// For `--store`: every member.
    pub fn url(&self) -> String {
        let others = self.members[1..].iter().map(|member| format!(",{}", member.address()));
        self.members[0].url() + &others.collect::<String>()
    }

    /// Whom most members, itself among them, take for the leader.
    #[track_caller]
    pub fn leader(&self) -> usize {
        eventually("the members have a leader", || {
            let said = self.statuses();
            let leads = |status: &MemberStatus| {
                let agree = |other: &&MemberStatus| (other.leader, other.term) == (status.id, status.term);
                status.leader == status.id && said.iter().flatten().filter(agree).count() > self.members.len() / 2
            };
            said.iter().position(|status| status.as_ref().is_some_and(leads))
        })
    }

    /// The one who takes over.
    #[track_caller]
    pub fn leader_after(&self, old: usize) -> usize {
        eventually("the others elect one of theirs", || Some(self.leader()).filter(|&leader| leader != old))
    }

    #[track_caller]
    pub fn move_leader_to(&self, index: usize) {
        eventually("the leader is the one who shall be", || {
            let leader = self.leader();
            if leader == index {
                return Some(());
            }
            let id = self.statuses()[index].as_ref()?.id;
            // It may refuse while the other lags behind.
            let _ = self.members[leader].try_etcdctl(&["move-leader", &format!("{id:x}")]);
            None
        });
    }

    /// All end, then all start again with their data.
    #[track_caller]
    pub fn restart(&self) {
        self.members.iter().for_each(EtcdServer::kill);
        self.members.iter().for_each(EtcdServer::start_again);
        assert!(self.members.iter().all(EtcdServer::comes_up), "somebody else has their ports");
    }

    /// Nothing passes between it and the others. Clients still reach it.
    pub fn cut_off(&self, index: usize) {
        self.between_it_and_the_others(index, ProxyMode::BlackHole);
    }

    /// Held bytes are delivered. Other members that are cut off stay cut off.
    pub fn heal(&self, index: usize) {
        self.between_it_and_the_others(index, ProxyMode::Open);
    }

    fn between_it_and_the_others(&self, index: usize, mode: ProxyMode) {
        for (other, proxy) in self.proxies.iter().enumerate() {
            if other == index { proxy.mode(mode) } else { proxy.mode_for(index, mode) }
        }
    }

    /// Of each member; of those that answer.
    fn statuses(&self) -> Vec<Option<MemberStatus>> {
        let words = ["endpoint", "status", "--write-out=json", "--command-timeout=1s", "--dial-timeout=1s"];
        thread::scope(|scope| {
            let ask = |member| scope.spawn(move || MemberStatus::parse(&EtcdServer::try_etcdctl(member, &words).ok()?));
            let asked: Vec<_> = self.members.iter().map(ask).collect();
            asked.into_iter().map(|answer| answer.join().expect("a question does no harm")).collect()
        })
    }
}

impl FailoverServers for EtcdCluster {
    fn url(&self) -> String {
        EtcdCluster::url(self)
    }

    fn serving(&self) -> usize {
        self.leader()
    }

    fn another_serves(&self, old: usize) {
        self.leader_after(old);
    }

    fn kill_server(&self, index: usize) {
        self.members[index].kill();
    }

    fn start_server(&self, index: usize) {
        self.members[index].restart();
    }

    fn stop_server(&self, index: usize) {
        self.members[index].stop();
    }

    fn cont_server(&self, index: usize) {
        self.members[index].cont();
    }

    fn are_whole(&self) {
        assert!(self.members.iter().all(EtcdServer::comes_up), "each has its ports");
    }
}

impl MemberStatus {
    fn parse(answer: &str) -> Option<MemberStatus> {
        let answer: Value = serde_json::from_str(answer).ok()?;
        let status = answer.get(0)?.get("Status")?;
        Some(MemberStatus {
            id: status["header"]["member_id"].as_u64()?,
            // Left out while there is none.
            leader: status["leader"].as_u64().unwrap_or(0),
            term: status["raftTerm"].as_u64()?,
        })
    }
}
