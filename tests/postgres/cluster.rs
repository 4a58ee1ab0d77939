//! A primary and two standbys. What passes between the primary and its standbys can be cut, whatever its clients do.
//!
//! ```text
//! clients ──▶ server 0 (primary)
//!                ▲
//!              proxy ◀── server 1, server 2 (standbys)
//! ```
//!
//! PostgreSQL promotes nothing by itself: a test does what an operator or Patroni would do.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::server::{PostgresOptions, PostgresServer};
use crate::harness::proxy::{Proxy, ProxyMode};
use crate::harness::server::StoreServer;
use crate::harness::store_fixtures::FailoverServers;
use crate::harness::until;

/// The standbys that a commit waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replication {
    /// The first standby; the other one confirms nothing.
    Synchronous,
    /// None.
    Asynchronous,
    /// Any other server, now and after a promotion. There are two servers.
    Strict,
}

impl Replication {
    fn names(self) -> &'static str {
        match self {
            Replication::Synchronous => "server1",
            Replication::Asynchronous => "",
            Replication::Strict => "*",
        }
    }

    fn servers(self) -> usize {
        if self == Replication::Strict { 2 } else { 3 }
    }
}

pub struct Cluster {
    pub servers: Vec<PostgresServer>,
    /// The way of the others to each of them.
    ways: Vec<Proxy>,
    serving: AtomicUsize,
}

fn name(index: usize) -> String {
    format!("server{index}")
}

impl Cluster {
    /// All are up, and the standbys follow.
    #[track_caller]
    pub fn start(replication: Replication) -> Cluster {
        let options = PostgresOptions::new()
            .setting("wal_retrieve_retry_interval", "100ms")
            // A server that is cut off or stands still is given up soon.
            .setting("wal_sender_timeout", "2s")
            .setting("wal_receiver_timeout", "2s")
            .setting("synchronous_standby_names", replication.names());
        let mut servers = vec![PostgresServer::with(&options)];
        let mut ways = vec![Proxy::to(&servers[0].address())];
        for index in 1..replication.servers() {
            let standby = PostgresServer::with(&PostgresOptions::new().standby(&ways[0].address(), &name(index)));
            ways.push(Proxy::to(&standby.address()));
            servers.push(standby);
        }
        let cluster = Cluster { servers, ways, serving: AtomicUsize::new(0) };
        cluster.is_followed(replication.servers() - 1);
        cluster
    }

    pub fn primary(&self) -> &PostgresServer {
        &self.servers[self.serving.load(Ordering::SeqCst)]
    }

    /// For `--store`: the primary and the first standby.
    pub fn url(&self) -> String {
        let addresses: Vec<String> = self.servers.iter().take(2).map(StoreServer::address).collect();
        PostgresServer::url_of(&addresses.join(","))
    }

    /// No standby reaches the primary; its clients do.
    pub fn cut_off(&self) {
        self.ways[0].mode(ProxyMode::BlackHole);
    }

    /// Makes a standby the primary, as an operator does who believes that the old one is gone. It waits for no standby of its own
    /// from then on.
    #[track_caller]
    pub fn promote_alone(&self, index: usize) {
        self.servers[index].set("synchronous_standby_names", "");
        self.promote(index);
    }

    #[track_caller]
    fn promote(&self, index: usize) {
        self.servers[index].sql("SELECT pg_promote()");
        until("it is a primary", || self.servers[index].sql("SELECT pg_is_in_recovery()").trim() == "f");
        self.serving.store(index, Ordering::SeqCst);
    }

    #[track_caller]
    fn is_followed(&self, count: usize) {
        let question = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
        until("the standbys follow", || {
            self.primary().try_sql(question).is_ok_and(|said| said.trim() == count.to_string())
        });
    }
}

/// Two servers, of which the standby is promoted when the primary has failed; and that one becomes its standby.
impl FailoverServers for Cluster {
    fn url(&self) -> String {
        Cluster::url(self)
    }

    fn serving(&self) -> usize {
        self.serving.load(Ordering::SeqCst)
    }

    fn another_serves(&self, old: usize) {
        self.promote(1 - old);
    }

    fn kill_server(&self, index: usize) {
        self.servers[index].kill();
    }

    /// As a standby: what it has on its disk is of an abandoned timeline.
    fn start_server(&self, index: usize) {
        self.servers[index].rejoin(&self.ways[1 - index].address(), &name(index));
    }

    fn stop_server(&self, index: usize) {
        self.servers[index].stop();
    }

    /// It takes itself for the primary until all are whole.
    fn cont_server(&self, index: usize) {
        self.servers[index].cont();
    }

    fn are_whole(&self) {
        let other = 1 - FailoverServers::serving(self);
        if self.servers[other].sql("SELECT pg_is_in_recovery()").trim() == "f" {
            self.start_server(other);
        }
        self.is_followed(1);
    }
}
