//! The rows for which a server is needed: certificates, users, kinds of server, and addresses that do not fit it.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;

use super::server_table::{ADDRESSES, OF_CERTIFICATES, OF_ETCD, OF_MONGODB, OF_REDIS};
use super::{SECRET, are_reported};
use crate::etcd::server::{EtcdOptions, EtcdServer};
use crate::harness::certificates::Certificates;
use crate::harness::server::{PASSWORD, StoreServer};
use crate::harness::until;
use crate::mongodb::server::{Mongod, MongodOptions};
use crate::redis::server::{RedisOptions, RedisServer};

/// A server that is no store: it sends this to each client, after a request or before one.
fn other_server(says: &'static [u8], after_request: bool) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("a bound socket has an address").to_string();
    // The threads end with the program.
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut request = [0; 1024];
                if after_request {
                    let _ = stream.read(&mut request);
                }
                let _ = stream.write_all(says);
                // A web server ends the connection, and one for shells waits for the client.
                while !after_request && stream.read(&mut request).is_ok_and(|length| length > 0) {}
            });
        }
    });
    address
}

fn web_server() -> String {
    other_server(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", true)
}

fn shell_server() -> String {
    other_server(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n", false)
}

/// The rows, with these variables beside the paths of the certificates and of two files of passwords.
#[track_caller]
fn are_reported_with(rows: &[super::Misuse], certificates: &Certificates, variables: &[(&str, String)]) {
    let passwords = tempfile::tempdir().expect("a directory");
    let [wrong, right] = [("wrong", SECRET), ("right", PASSWORD)].map(|(name, password)| {
        let path = passwords.path().join(name);
        fs::write(&path, password).expect("a file");
        path.display().to_string()
    });
    let (client, other) = (certificates.client(), certificates.other_client());
    let (ca, other_ca) = (certificates.ca(), certificates.other_ca());
    let mut all = vec![
        ("CA", ca.as_str()),
        ("OTHER_CA", &other_ca),
        ("CERT", &client.certificate),
        ("KEY", &client.key),
        ("OTHER_CERT", &other.certificate),
        ("OTHER_KEY", &other.key),
        ("WRONG", &wrong),
        ("RIGHT", &right),
    ];
    all.extend(variables.iter().map(|(name, value)| (*name, value.as_str())));
    are_reported(rows, &all);
}

#[test]
fn addresses_of_no_server_are_reported() {
    are_reported(ADDRESSES, &[]);
}

#[test]
fn certificates_that_are_not_accepted_are_reported_by_every_kind_of_store() {
    let certificates = Arc::new(Certificates::new());
    // The handshake comes before the protocol, so that one server does for all.
    let serve = |identity| RedisServer::with(&RedisOptions::new().tls_as(&certificates, identity));
    let [good, expired, elsewhere] =
        [certificates.server(), certificates.expired(), certificates.elsewhere()].map(serve);
    let servers = [("GOOD", good.address()), ("EXPIRED", expired.address()), ("ELSEWHERE", elsewhere.address())];
    are_reported_with(OF_CERTIFICATES, &certificates, &servers);
}

#[test]
fn misuses_of_an_etcd_are_reported() {
    let certificates = Arc::new(Certificates::new());
    let (plain, users) = (EtcdServer::start(), EtcdServer::start());
    users.enable_auth();
    let tls = EtcdServer::with(&EtcdOptions::new().tls(&certificates));
    let redis = RedisServer::start();
    let mongod = Mongod::start();
    let variables = [
        ("PLAIN", plain.address()),
        ("USERS", users.address()),
        ("TLS", tls.address()),
        ("WEB", web_server()),
        ("SHELL_SERVER", shell_server()),
        ("REDIS", redis.address()),
        ("MONGODB", mongod.address()),
    ];
    are_reported_with(OF_ETCD, &certificates, &variables);
}

#[test]
fn misuses_of_a_redis_are_reported() {
    let certificates = Arc::new(Certificates::new());
    let with = |name: &str, values: &[&str]| RedisServer::with(&RedisOptions::new().flag(name, values));
    let plain = RedisServer::start();
    plain.cli(&["acl", "setuser", "stranger", "on", &format!(">{PASSWORD}"), "+hello"]);
    let users = with("requirepass", &[PASSWORD]);
    let tls = RedisServer::with(&RedisOptions::new().tls(&certificates));
    let (bare, cluster) = (with("rename-command", &["INFO", ""]), with("cluster-enabled", &["yes"]));
    let replica = with("replicaof", &["127.0.0.1", &plain.port.to_string()]);
    until("the replica is one", || replica.replicates("master_link_status", "up"));
    let etcd = EtcdServer::start();
    let mongod = Mongod::start();
    let variables = [
        ("PLAIN", plain.address()),
        ("USERS", users.address()),
        ("TLS", tls.address()),
        ("BARE", bare.address()),
        ("CLUSTER", cluster.address()),
        ("REPLICA", replica.address()),
        ("WEB", web_server()),
        ("SHELL_SERVER", shell_server()),
        ("ETCD", etcd.address()),
        ("MONGODB", mongod.address()),
    ];
    are_reported_with(OF_REDIS, &certificates, &variables);
}

#[test]
fn misuses_of_a_mongodb_are_reported() {
    let certificates = Arc::new(Certificates::new());
    let plain = Mongod::start();
    let users = Mongod::start();
    users.enable_auth();
    let tls = Mongod::with(&MongodOptions::new().tls(&certificates));
    let (etcd, redis) = (EtcdServer::start(), RedisServer::start());
    let variables = [
        ("PLAIN", plain.address()),
        ("USERS", users.address()),
        ("TLS", tls.address()),
        ("WEB", web_server()),
        ("SHELL_SERVER", shell_server()),
        ("ETCD", etcd.address()),
        ("REDIS", redis.address()),
    ];
    are_reported_with(OF_MONGODB, &certificates, &variables);
}
