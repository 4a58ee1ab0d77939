//! A primary, two replicas and a Sentinel. What passes between the primary and the others can be cut, whatever its clients do.
//!
//! ```text
//!              ┌───────── proxy ◀── replica 1, replica 2
//! primary ◀────┤
//!              └───────── proxy ◀── Sentinel, and whoever asks it
//! ```

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::server::{RedisOptions, RedisServer};
use crate::harness::host_tools::attempt;
use crate::harness::ports::free_port;
use crate::harness::proxy::{Proxy, ProxyMode};
use crate::harness::server::StoreServer;
use crate::harness::store_fixtures::FailoverServers;
use crate::harness::{eventually, processes, until};

pub struct Sentinel {
    pub primary: RedisServer,
    pub replicas: Vec<RedisServer>,
    to_replicas: Proxy,
    to_others: Proxy,
    port: u16,
    child: Child,
    _directory: TempDir,
}

impl Sentinel {
    /// All of it is up, and the Sentinel knows of all. It promotes a replica when the primary has been silent for a second.
    #[track_caller]
    pub fn start() -> Sentinel {
        let sentinel = Sentinel::start_patient();
        sentinel.promotes_after(Duration::from_secs(1));
        sentinel
    }

    /// It promotes none as long as a primary is only slow, as on a busy machine.
    #[track_caller]
    pub fn start_patient() -> Sentinel {
        let primary = RedisServer::with(&RedisOptions::new());
        let to_replicas = Proxy::to(&primary.address());
        let to_others = Proxy::to(&primary.address());
        let port_of = |address: String| address.rsplit_once(':').expect("host and port").1.to_owned();
        let behind = port_of(to_replicas.address());
        let replicas: Vec<RedisServer> = (0..2)
            .map(|_| RedisServer::with(&RedisOptions::new().flag("replicaof", &["127.0.0.1", &behind])))
            .collect();
        until("the replicas follow", || primary.replicates("connected_slaves", "2"));
        for replica in &replicas {
            until("it has everything", || replica.replicates("master_link_status", "up"));
        }
        let directory = tempfile::Builder::new().prefix("elect-sentinel-").tempdir().expect("a temporary directory");
        let port = free_port();
        let configuration = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor main 127.0.0.1 {} 1\n\
             sentinel down-after-milliseconds main 30000\nsentinel failover-timeout main 3000\n",
            directory.path().display(),
            port_of(to_others.address())
        );
        let path = directory.path().join("sentinel.conf");
        fs::write(&path, configuration).expect("an empty directory takes a file");
        let log = fs::File::create(directory.path().join("log")).expect("an open directory");
        let child = Command::new("redis-sentinel").arg(&path).stdin(Stdio::null()).stdout(log).spawn();
        let child = child.expect("redis-sentinel is there");
        let sentinel = Sentinel { primary, replicas, to_replicas, to_others, port, child, _directory: directory };
        until("the Sentinel knows the replicas", || {
            sentinel.cli(&["sentinel", "replicas", "main"]).matches("runid").count() == 2
        });
        sentinel
    }

    /// For `--store`.
    pub fn url(&self) -> String {
        format!("redis+sentinel://127.0.0.1:{}/main", self.port)
    }

    /// A primary that is silent for so long is taken for dead.
    #[track_caller]
    pub fn promotes_after(&self, silence: Duration) {
        let silence = silence.as_millis().to_string();
        let said = self.cli(&["sentinel", "set", "main", "down-after-milliseconds", &silence]);
        assert_eq!(said.trim(), "OK");
    }

    /// It promotes nobody any more.
    pub fn stop(&self) {
        let pid = i32::try_from(self.child.id()).expect("a pid");
        processes::signal(pid, Signal::SIGSTOP);
    }

    /// Neither replicas nor Sentinel reach the primary; its clients do.
    pub fn cut_off(&self) {
        self.to_replicas.mode(ProxyMode::BlackHole);
        self.to_others.mode(ProxyMode::BlackHole);
    }

    pub fn heal(&self) {
        self.to_replicas.mode(ProxyMode::Open);
        self.to_others.mode(ProxyMode::Open);
    }

    /// The port of whoever is the primary by its word.
    pub fn primary_port(&self) -> String {
        self.cli(&["sentinel", "get-master-addr-by-name", "main"]).lines().nth(1).unwrap_or_default().to_owned()
    }

    /// Which replica has been made the primary. One that stands still is not asked: it would not answer.
    #[track_caller]
    pub fn promoted(&self) -> &RedisServer {
        let leads = |one: &&RedisServer| one.try_cli(&["role"]).is_ok_and(|role| role.starts_with("master"));
        eventually("a replica is made the primary", || {
            self.replicas.iter().filter(|one| !one.stands_still()).find(leads)
        })
    }

    fn cli(&self, words: &[&str]) -> String {
        let port = self.port.to_string();
        attempt(["redis-cli", "-p", &port].into_iter().chain(words.iter().copied())).unwrap_or_default()
    }
}

impl Sentinel {
    /// The primary that it began with, then the replicas.
    fn server(&self, index: usize) -> &RedisServer {
        index.checked_sub(1).map_or(&self.primary, |replica| &self.replicas[replica])
    }
}

impl FailoverServers for Sentinel {
    fn url(&self) -> String {
        Sentinel::url(self)
    }

    /// The first one is known by the address of its proxy.
    fn serving(&self) -> usize {
        let port = self.primary_port();
        self.replicas.iter().position(|replica| replica.port.to_string() == port).map_or(0, |replica| replica + 1)
    }

    fn another_serves(&self, old: usize) {
        until("another is the primary", || self.serving() != old);
    }

    fn kill_server(&self, index: usize) {
        self.server(index).kill();
    }

    fn start_server(&self, index: usize) {
        self.server(index).start_again();
    }

    fn stop_server(&self, index: usize) {
        self.server(index).stop();
    }

    fn cont_server(&self, index: usize) {
        self.server(index).cont();
    }

    fn are_whole(&self) {
        until("the primary has two replicas that follow", || {
            let serving = self.serving();
            let others = (0..=self.replicas.len()).filter(|&index| index != serving);
            let follow = |index| self.server(index).replicates("master_link_status", "up");
            self.server(serving).replicates("connected_slaves", "2") && others.into_iter().all(follow)
        });
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
