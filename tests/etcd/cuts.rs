//! Cuts, and what they do to a queue.

use std::time::Duration;

use super::{candidate, patient, through};
use crate::etcd::server::EtcdServer;
use crate::harness::proxy::{Proxy, ProxyMode};
use crate::harness::wait::{throughout, until};
use crate::harness::{Sandbox, Witness};

crate::leases::cuts::lease_tests!(EtcdServer);

#[test]
fn a_waiter_that_is_cut_off_leaves_the_leader_alone_and_takes_its_place_again() {
    let etcd = EtcdServer::start();
    let (sandbox, proxy) = (Sandbox::new(), Proxy::to(&etcd.address()));
    let leader = patient(&sandbox, sandbox.below(&etcd.url())).witness(&Witness::new()).start();
    sandbox.starts(1);
    let next = candidate(&sandbox, through(&proxy, &sandbox)).witness(&Witness::new()).start();
    next.wait_until_waiting();
    proxy.mode(ProxyMode::BlackHole);
    next.wait_for_log("store: ");
    let election = format!("{}/cron/", sandbox.path().file_name().expect("a name").to_string_lossy());
    let queue = || {
        etcd.etcdctl(&["get", "--prefix", "--keys-only", &format!("/{election}")])
            .lines()
            .filter(|line| !line.is_empty())
            .count()
    };
    until("its lease is over, and its place taken from it", || queue() == 1);
    proxy.mode(ProxyMode::Open);
    until("it stands in the queue again", || queue() == 2);
    throughout(Duration::from_millis(500), "one leads", || sandbox.history().starts.len() == 1);
    leader.terminate();
    sandbox.starts(2);
    next.terminate();
    sandbox.history().is_safe();
}
