//! Cuts, and what they do to a queue.

use std::time::Duration;

use super::{candidate, through};
use crate::harness::etcd::Etcd;
use crate::harness::proxy::{Mode, Proxy};
use crate::harness::wait::{throughout, until};
use crate::harness::{Place, Witness};

crate::leases::cuts::on!(Etcd);

#[test]
fn a_waiter_that_is_cut_off_leaves_the_leader_alone_and_takes_its_place_again() {
    let etcd = Etcd::start();
    let (place, proxy) = (Place::new(), Proxy::to(&etcd.address()));
    let leader = candidate(&place, place.below(&etcd.url())).witness(&Witness::new()).start();
    place.starts(1);
    let next = candidate(&place, through(&proxy, &place)).witness(&Witness::new()).start();
    next.waits();
    proxy.mode(Mode::BlackHole);
    next.says("store: ");
    let election = format!("{}/cron/", place.path().file_name().expect("a name").to_string_lossy());
    let queue = || {
        etcd.etcdctl(&["get", "--prefix", "--keys-only", &format!("/{election}")])
            .lines()
            .filter(|line| !line.is_empty())
            .count()
    };
    until("its lease is over, and its place taken from it", || queue() == 1);
    proxy.mode(Mode::Open);
    until("it stands in the queue again", || queue() == 2);
    throughout(Duration::from_millis(500), "one leads", || place.history().starts.len() == 1);
    leader.stops();
    place.starts(2);
    next.stops();
    place.history().is_safe();
}
