//! Tests of the harness: its servers and networks behave as their documentation says.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::harness::certificates::Certificates;
use crate::harness::cluster::EtcdCluster;
use crate::harness::etcd::{EtcdOptions, EtcdServer, PASSWORD};
use crate::harness::host_tools::attempt;
use crate::harness::network::Network;
use crate::harness::proxy::{Proxy, ProxyMode};
use crate::harness::stalled_disk::StalledDisk;
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

/// The same through something else.
fn briefly_at(etcd: &EtcdServer, address: &str, wrapper: &[String], words: &[&str]) -> Result<String, String> {
    let own = etcdctl(etcd, address, wrapper);
    attempt(own.iter().map(String::as_str).chain(words.iter().copied()).chain(BRIEFLY))
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
    let put = |value: &str| briefly_at(&etcd, &proxy.address(), &[], &["put", "key", value]);
    let stored = || etcd.etcdctl(&["get", "key", "--print-value-only"]);
    put("open").expect("it is open");
    assert_eq!(stored(), "open\n");
    let carried = proxy.carried();
    assert!(carried.connections > 0 && carried.requests > 0 && carried.answers > 0, "{carried:?}");

    let fails = |mode: ProxyMode| {
        let before = proxy.carried();
        proxy.mode(mode);
        put(&format!("{mode:?}")).expect_err("it is not open");
        let after = proxy.carried();
        [after.connections > before.connections, after.requests > before.requests, after.answers > before.answers]
    };
    assert_eq!(fails(ProxyMode::Closed), [false, false, false]);
    assert_eq!(fails(ProxyMode::BlackHole), [true, false, false]);
    assert_eq!(fails(ProxyMode::RequestsHeld), [true, false, false]);
    assert_eq!(fails(ProxyMode::AnswersHeld), [true, true, false]);
    proxy.mode(ProxyMode::Open);
    put("open again").expect("it is open again");
    assert_eq!(stored(), "open again\n");
}

/// Sends back what it is sent.
fn echo() -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("a bound socket has an address").to_string();
    // Both threads end with the program.
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
        }
    });
    address
}

fn connect(proxy: &Proxy) -> TcpStream {
    let stream = TcpStream::connect(proxy.address()).expect("the proxy accepts");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("an option of an open socket");
    stream
}

fn send(mut stream: &TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).expect("the proxy takes it");
}

/// What has come, once so much has.
fn receive(mut stream: &TcpStream, length: usize) -> String {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).expect("it comes");
    String::from_utf8(bytes).expect("plain text")
}

#[test]
fn an_existing_connection_keeps_what_is_held_until_the_way_is_open() {
    let proxy = Proxy::to(&echo());
    let stream = connect(&proxy);
    send(&stream, "before");
    assert_eq!(receive(&stream, 6), "before");
    for mode in [ProxyMode::BlackHole, ProxyMode::RequestsHeld, ProxyMode::AnswersHeld] {
        let before = proxy.carried();
        proxy.mode(mode);
        send(&stream, "during");
        let answered = before.answers;
        throughout(Duration::from_millis(100), "nothing comes back", || proxy.carried().answers == answered);
        assert_eq!(proxy.carried().requests > before.requests, mode == ProxyMode::AnswersHeld, "{mode:?}");
        proxy.mode(ProxyMode::Open);
        assert_eq!(receive(&stream, 6), "during");
    }
    proxy.mode(ProxyMode::Closed);
    assert_eq!((&stream).read(&mut [0]).map_err(|error| error.kind()), Err(ErrorKind::ConnectionReset));
    let refused = TcpStream::connect(proxy.address()).map_err(|error| error.kind());
    assert_eq!(refused.map(drop), Err(ErrorKind::ConnectionRefused));
    proxy.mode(ProxyMode::Open);
    let stream = connect(&proxy);
    send(&stream, "after");
    stream.shutdown(std::net::Shutdown::Write).expect("an open connection");
    let mut rest = String::new();
    (&stream).read_to_string(&mut rest).expect("it comes, and the end of it too");
    assert_eq!(rest, "after");
}

#[test]
fn a_proxy_has_room_for_two_hundred_connections_and_for_much_on_one() {
    let proxy = Proxy::to(&echo());
    let streams: Vec<TcpStream> = (0..200).map(|_| connect(&proxy)).collect();
    proxy.mode(ProxyMode::BlackHole);
    for stream in &streams {
        send(stream, "through");
    }
    proxy.mode(ProxyMode::Open);
    for stream in &streams {
        assert_eq!(receive(stream, 7), "through");
    }
    let much = "much".repeat(1 << 20);
    thread::scope(|scope| {
        scope.spawn(|| send(&streams[0], &much));
        assert_eq!(receive(&streams[0], much.len()), much);
    });
    assert_eq!(proxy.carried().connections, 200);
    let address = proxy.address();
    drop(proxy);
    until("all of them hear of its end", || (&streams[199]).read(&mut [0]).is_ok_and(|length| length == 0));
    TcpStream::connect(address).expect_err("nobody listens any more");
}

#[test]
fn a_server_that_is_not_there_resets_the_connection() {
    let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.local_addr()).expect("a port");
    let proxy = Proxy::to(&address.to_string());
    let stream = connect(&proxy);
    assert_eq!((&stream).read(&mut [0]).map_err(|error| error.kind()), Err(ErrorKind::ConnectionReset));
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
    assert_eq!(cluster.leader(), lost);
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
    assert_eq!(cluster.leader(), 1);
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
fn a_disk_stalls_nobody_else() {
    let disk = StalledDisk::new();
    let other = StalledDisk::new();
    std::fs::write(disk.path().join("file"), "before").expect("it takes a file");
    disk.freeze();
    std::fs::write(other.path().join("file"), "meanwhile").expect("it takes a file");
    assert_eq!(std::fs::read_to_string(disk.path().join("file")).expect("it can be read"), "before");
    let path = disk.path().join("file");
    let writer = thread::spawn(move || std::fs::write(path, "after"));
    throughout(Duration::from_millis(100), "the writer waits", || !writer.is_finished());
    disk.thaw();
    writer.join().expect("a thread that only writes").expect("it takes a file");
}

#[test]
fn a_host_is_cut_off_in_either_direction() {
    let network = Network::of(&["web-1", "web-2"]);
    let etcd = EtcdServer::with(&EtcdOptions::new().seen_at(&network.address()));
    let put = |host: &str, value: &str| {
        briefly_at(&etcd, &etcd.address(), &network.host(host), &["put", "key", value]).map(drop)
    };
    let stored = || etcd.etcdctl(&["get", "key", "--print-value-only"]);
    put("web-1", "open").expect("the cable is whole");
    let fails = |mode: ProxyMode| {
        network.mode("web-1", mode);
        let asked = etcd.requests()["Put"];
        put("web-1", &format!("{mode:?}")).expect_err("the cable is cut");
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

#[test]
fn a_cut_cable_holds_what_is_on_its_way_and_tells_nobody() {
    let network = Network::of(&["web-1"]);
    let listener = TcpListener::bind((network.address(), 0)).expect("an address of ours");
    let port = listener.local_addr().expect("a bound socket has an address").port().to_string();
    // Sends what it is sent on both ways.
    let script = r#"exec 3<>"/dev/tcp/$0/$1"; while read -r line <&3; do echo "$line" >&3; done"#;
    let words =
        [&network.host("web-1")[..], &["bash", "-c", script, &network.address(), &port].map(str::to_owned)].concat();
    let mut host = std::process::Command::new(&words[0]).args(&words[1..]).spawn().expect("bash is there");
    let (stream, _) = listener.accept().expect("it comes");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("an option of an open socket");
    send(&stream, "before\n");
    assert_eq!(receive(&stream, 7), "before\n");
    for mode in [ProxyMode::BlackHole, ProxyMode::RequestsHeld, ProxyMode::AnswersHeld] {
        network.mode("web-1", mode);
        send(&stream, "during\n");
        stream.set_nonblocking(true).expect("a flag of an open socket");
        throughout(Duration::from_millis(100), "nothing comes", || {
            (&stream).read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
        });
        stream.set_nonblocking(false).expect("a flag of an open socket");
        network.mode("web-1", ProxyMode::Open);
        assert_eq!(receive(&stream, 7), "during\n");
    }
    drop(stream);
    until("it has heard of the end", || host.try_wait().expect("a child of ours").is_some());
}
