//! The servers, proxies and networks of the harness do to etcdctl what they say.

use std::sync::Arc;
use std::time::Duration;

use super::members::EtcdCluster;
use super::server::{EtcdOptions, EtcdServer};
use crate::harness::certificates::Certificates;
use crate::harness::host_tools::attempt;
use crate::harness::network::Network;
use crate::harness::proxy::{Proxy, ProxyMode};
use crate::harness::server::PASSWORD;
use crate::harness::wait::{now, since, throughout};
use crate::harness::{processes, until};

/// Longer than a call takes, shorter than anybody wants to wait for one that gets no answer.
const BRIEFLY: [&str; 2] = ["--command-timeout=1s", "--dial-timeout=1s"];

/// A put, a read of all members' latest, a read of what this member has.
const PUT: [&str; 3] = ["put", "key", "value"];
const GET: [&str; 2] = ["get", "key"];
const GET_LOCALLY: [&str; 3] = ["get", "key", "--consistency=s"];

fn briefly(etcd: &EtcdServer, words: &[&str]) -> Result<String, String> {
    etcd.try_etcdctl(&[words, &BRIEFLY].concat())
}

/// Through something else, with all the time that etcdctl takes.
fn patiently_at(etcd: &EtcdServer, address: &str, wrapper: &[String], words: &[&str]) -> Result<String, String> {
    let own = etcdctl(etcd, address, wrapper);
    attempt(own.iter().map(String::as_str).chain(words.iter().copied()))
}

/// The same briefly.
fn briefly_at(etcd: &EtcdServer, address: &str, wrapper: &[String], words: &[&str]) -> Result<String, String> {
    patiently_at(etcd, address, wrapper, &[words, &BRIEFLY].concat())
}

fn etcdctl(etcd: &EtcdServer, address: &str, wrapper: &[String]) -> Vec<String> {
    [wrapper, &etcd.etcdctl_at(address)].concat()
}

#[test]
fn an_etcd_counts_what_it_is_asked() {
    let start = now();
    let etcd = EtcdServer::start();
    println!("figures: an etcd of one member is up after {} ms", since(start).as_millis());
    assert_eq!(etcd.requests().get("Put"), None);
    etcd.etcdctl(&PUT);
    etcd.etcdctl(&PUT);
    assert_eq!(etcd.etcdctl(&GET), "key\nvalue\n");
    assert_eq!((etcd.requests()["Put"], etcd.requests()["Range"]), (2, 1));
    let lease = etcd.etcdctl(&["lease", "grant", "1"]);
    assert!(lease.ends_with("granted with TTL(1s)\n"), "{lease}");
    // One that is there for as long as a busy machine takes to keep it alive.
    let lease = etcd.etcdctl(&["lease", "grant", "600"]);
    let lease = lease.split(' ').nth(1).expect("a word for the lease");
    for _ in 0..2 {
        etcd.etcdctl(&["lease", "keep-alive", "--once", lease]);
    }
    assert_eq!(etcd.messages()["LeaseKeepAlive"], 2);
    let usage = etcd.usage();
    assert!(usage.cpu > Duration::ZERO && usage.resident > 1 << 20, "{usage:?}");
}

#[test]
fn an_etcd_that_was_killed_or_stopped_goes_on_with_its_data() {
    let etcd = EtcdServer::with(&EtcdOptions::new().timing(100, 1000));
    etcd.etcdctl(&PUT);
    let lease = etcd.etcdctl(&["lease", "grant", "1"]);
    assert!(lease.ends_with("granted with TTL(2s)\n"), "with etcd's own timing: {lease}");
    etcd.stop();
    briefly(&etcd, &GET).expect_err("it stands still");
    etcd.cont();
    assert_eq!(etcd.etcdctl(&GET), "key\nvalue\n");
    let (pid, address) = (etcd.pid(), etcd.address());
    etcd.kill();
    assert!(!processes::is_alive(pid));
    briefly(&etcd, &GET).expect_err("it is gone");
    etcd.restart();
    assert_ne!(etcd.pid(), pid);
    assert_eq!((etcd.etcdctl(&GET), etcd.address()), ("key\nvalue\n".to_owned(), address));
    etcd.restart();
    assert_eq!(etcd.etcdctl(&GET), "key\nvalue\n");
    assert_eq!(etcd.url(), format!("etcd://{}", etcd.address()));
}

#[test]
fn nothing_of_a_server_outlives_its_handle() {
    let etcd = EtcdServer::with(&EtcdOptions::new().own_disk());
    let (pid, disk) = (etcd.pid(), etcd.disk().path());
    etcd.disk().freeze();
    // In vain, and it sits there: even SIGKILL would not reach it now.
    briefly(&etcd, &PUT).expect_err("the disk stalls");
    drop(etcd);
    assert!(!processes::is_alive(pid));
    assert!(!disk.exists(), "unmounted and removed");
    let mounts = std::fs::read_to_string("/proc/mounts").expect("/proc is there");
    assert!(!mounts.contains(&disk.display().to_string()), "{mounts}");
}

#[test]
fn users_are_let_in_by_name_and_password() {
    let etcd = EtcdServer::with(&EtcdOptions::new().token_ttl(2));
    etcd.enable_auth();
    let put = |user: &str, password: &str, key: &str| {
        etcd.try_etcdctl(&["put", key, "value", "--user", &format!("{user}:{password}")])
    };
    etcd.etcdctl(&["put", "elsewhere", "by root"]);
    put("elect", PASSWORD, "/elect/cron").expect("it may");
    for (fault, said) in [
        (put("elect", PASSWORD, "elsewhere"), "permission denied"),
        (put("stranger", PASSWORD, "/elect/cron"), "permission denied"),
        (put("elect", "wrong", "/elect/cron"), "invalid user ID or password"),
    ] {
        let fault = fault.expect_err(said);
        assert!(fault.contains(said), "{fault}");
    }
}

#[test]
fn certificates_are_asked_for_and_looked_at() {
    let certificates = Arc::new(Certificates::new());
    let etcd = EtcdServer::with(&EtcdOptions::new().tls(&certificates));
    etcd.etcdctl(&PUT);
    assert_eq!(etcd.url(), format!("etcds://{}", etcd.address()));
    let get = |authority: &str, words: &[&str]| {
        let all = ["env", "ETCDCTL_API=3", "etcdctl", "--endpoints", &etcd.address(), "--cacert", authority];
        attempt(all.into_iter().chain(words.iter().copied()).chain(GET).chain(BRIEFLY))
    };
    let (client, other) = (certificates.client(), certificates.other_client());
    let (client, other) =
        (["--cert", &client.certificate, "--key", &client.key], ["--cert", &other.certificate, "--key", &other.key]);
    get(&certificates.ca(), &client).expect("all is right");
    get(&certificates.other_ca(), &client).expect_err("not the server's authority");
    get(&certificates.ca(), &[]).expect_err("no certificate");
    get(&certificates.ca(), &other).expect_err("not the client's authority");
}

#[test]
fn a_call_through_a_proxy_fares_as_the_proxy_is_told() {
    let etcd = EtcdServer::start();
    let proxy = Proxy::to(&etcd.address());
    let put = |value: &str| patiently_at(&etcd, &proxy.address(), &[], &["put", "key", value]);
    let stored = || etcd.etcdctl(&["get", "key", "--print-value-only"]);
    put("open").expect("it is open");
    assert_eq!(stored(), "open\n");
    let carried = proxy.carried();
    assert!(carried.connections > 0 && carried.requests > 0 && carried.answers > 0, "{carried:?}");

    let fails = |mode: ProxyMode, carries: [bool; 3]| {
        let before = proxy.carried();
        proxy.mode(mode);
        let words = ["put", "key", &format!("{mode:?}")];
        briefly_at(&etcd, &proxy.address(), &[], &words).expect_err("it is not open");
        // A client that gives up may be quicker than the proxy.
        until(&format!("{mode:?} carries what it may"), || {
            let after = proxy.carried();
            let connections = after.connections > before.connections;
            [connections, after.requests > before.requests, after.answers > before.answers] == carries
        });
    };
    fails(ProxyMode::Closed, [false, false, false]);
    fails(ProxyMode::BlackHole, [true, false, false]);
    fails(ProxyMode::RequestsHeld, [true, false, false]);
    fails(ProxyMode::AnswersHeld, [true, true, false]);
    proxy.mode(ProxyMode::Open);
    put("open again").expect("it is open again");
    assert_eq!(stored(), "open again\n");
}

#[test]
fn a_member_that_is_cut_off_does_not_know_the_latest_and_the_others_do() {
    let start = now();
    let cluster = EtcdCluster::of(3);
    println!("figures: an etcd of three members is up after {} ms", since(start).as_millis());
    let all: Vec<String> = cluster.members.iter().map(EtcdServer::address).collect();
    assert_eq!(cluster.url(), format!("etcd://{}", all.join(",")));
    let lost = cluster.leader();
    let member = &cluster.members[lost];
    member.etcdctl(&PUT);
    cluster.cut_off(lost);
    let next = cluster.leader_after(lost);
    cluster.members[next].etcdctl(&["put", "key", "new"]);
    briefly(member, &GET).expect_err("it cannot know");
    briefly(member, &PUT).expect_err("nor agree on anything");
    assert_eq!(member.etcdctl(&GET_LOCALLY), "key\nvalue\n", "its clients still reach it");
    cluster.heal(lost);
    until("it has caught up", || briefly(member, &GET).is_ok_and(|found| found == "key\nnew\n"));
    cluster.move_leader_to(lost);
    // Killed, the others go on without it; and it finds its place again, although it has another process now.
    member.kill();
    until("the others go on", || briefly(&cluster.members[next], &PUT).is_ok());
    member.restart();
    cluster.cut_off(lost);
    let next = cluster.leader_after(lost);
    cluster.members[next].etcdctl(&["put", "key", "newest"]);
    throughout(Duration::from_millis(500), "nothing reaches it", || member.etcdctl(&GET_LOCALLY) == "key\nvalue\n");
    briefly(member, &GET).expect_err("it cannot know");
}

#[test]
fn two_members_can_be_cut_off_and_healed_one_by_one() {
    let cluster = EtcdCluster::of(3);
    cluster.cut_off(0);
    cluster.cut_off(1);
    for member in &cluster.members {
        until("nobody has a majority", || briefly(member, &PUT).is_err());
    }
    cluster.heal(0);
    until("two are enough", || briefly(&cluster.members[0], &PUT).is_ok());
    briefly(&cluster.members[1], &GET).expect_err("it is still cut off");
}

#[test]
fn members_restart_one_by_one_and_all_together() {
    let cluster = EtcdCluster::of(3);
    cluster.members[0].etcdctl(&PUT);
    for member in &cluster.members {
        member.restart();
        assert_eq!(member.etcdctl(&GET), "key\nvalue\n");
    }
    cluster.restart();
    assert_eq!(cluster.members[0].etcdctl(&GET), "key\nvalue\n");
    cluster.move_leader_to(1);
}

#[test]
fn a_leader_whose_disk_stalls_is_replaced_and_does_not_write() {
    let start = now();
    let cluster =
        EtcdCluster::with(3, |index| if index == 0 { EtcdOptions::new().own_disk() } else { EtcdOptions::new() });
    println!("figures: three members, one on a disk of its own, are up after {} ms", since(start).as_millis());
    let member = &cluster.members[0];
    cluster.move_leader_to(0);
    member.etcdctl(&PUT);
    member.disk().freeze();
    briefly(member, &PUT).expect_err("it cannot write");
    let next = cluster.leader_after(0);
    cluster.members[next].etcdctl(&["put", "key", "new"]);
    assert_eq!(member.etcdctl(&GET_LOCALLY), "key\nvalue\n", "it stands still, and answers");
    member.disk().thaw();
    until("it has caught up", || briefly(member, &GET).is_ok_and(|found| found == "key\nnew\n"));
}

#[test]
fn a_host_is_cut_off_in_either_direction() {
    let network = Network::of(&["web-1", "web-2"]);
    let etcd = EtcdServer::with(&EtcdOptions::new().seen_at(&network.address()));
    let put = |host: &str, value: &str| {
        patiently_at(&etcd, &etcd.address(), &network.host(host), &["put", "key", value]).map(drop)
    };
    let stored = || etcd.etcdctl(&["get", "key", "--print-value-only"]);
    put("web-1", "open").expect("the cable is whole");
    let fails = |mode: ProxyMode| {
        network.mode("web-1", mode);
        let asked = etcd.requests()["Put"];
        let words = ["put", "key", &format!("{mode:?}")];
        briefly_at(&etcd, &etcd.address(), &network.host("web-1"), &words).expect_err("the cable is cut");
        assert_eq!(etcd.requests()["Put"], asked, "not even a connection comes about");
        put("web-2", "meanwhile").expect("its cable is whole");
    };
    fails(ProxyMode::BlackHole);
    fails(ProxyMode::RequestsHeld);
    fails(ProxyMode::AnswersHeld);
    assert_eq!(stored(), "meanwhile\n");
    network.mode("web-1", ProxyMode::Open);
    put("web-1", "whole again").expect("the cable is whole again");
    assert_eq!(stored(), "whole again\n");
}
