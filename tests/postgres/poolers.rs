//! pgbouncer between the candidates and the server.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::server::{PostgresServer, unprivileged};
use crate::harness::ports::free_port;
use crate::harness::server::StoreServer;
use crate::harness::server_process::ServerProcess;
use crate::harness::wait::{now, since, throughout};
use crate::harness::{Sandbox, Witness, until};
use crate::leases::{LEASE, candidate_for, led_before, patient};

/// A pooler in front of one server.
struct Pooler {
    process: ServerProcess,
    port: u16,
    directory: TempDir,
}

impl Pooler {
    /// With this `pool_mode`, and two connections to the server.
    fn start(mode: &str, server: &PostgresServer, connections: u16) -> Pooler {
        let directory = tempfile::Builder::new().prefix("elect-pgbouncer-").tempdir().expect("a temporary directory");
        fs::set_permissions(directory.path(), Permissions::from_mode(0o777)).expect("a directory of ours");
        let port = free_port();
        let users = directory.path().join("users");
        fs::write(&users, "\"elect\" \"\"\n").expect("a file");
        let settings = format!(
            "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = trust\nauth_file = {}\npool_mode = {mode}\ndefault_pool_size = {connections}\n",
            server.port,
            users.display()
        );
        fs::write(directory.path().join("pgbouncer.ini"), settings).expect("a file");
        let pooler = Pooler { process: ServerProcess::new("pgbouncer"), port, directory };
        pooler.spawn();
        pooler
    }

    fn spawn(&self) {
        let mut words = unprivileged();
        words.extend(["pgbouncer".to_owned(), "-q".to_owned()]);
        words.push(self.directory.path().join("pgbouncer.ini").display().to_string());
        let child = Command::new(&words[0])
            .args(&words[1..])
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.process.set(child.expect("pgbouncer is there"));
        until("pgbouncer listens", || std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok());
    }

    fn url(&self) -> String {
        PostgresServer::url_of(&format!("127.0.0.1:{}", self.port))
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        self.process.kill();
    }
}

const SILENT: &str = "delivers no notifications";
/// Its fifth is the renewal interval, after which a candidate asks without a hint.
const LONG_LEASE: &str = "100s";
const LONG_INTERVAL: Duration = Duration::from_secs(20);

/// Four candidates share two connections.
#[test]
fn a_pooler_that_shares_connections_holds_elections_and_is_reported() {
    let postgres = PostgresServer::start();
    let pooler = Pooler::start("transaction", &postgres, 2);
    let sandbox = Sandbox::new();
    led_before(&sandbox, pooler.url());
    let start = || patient(&sandbox, pooler.url()).witness(&Witness::new()).start();
    let mut leader = start();
    sandbox.starts(1);
    let others: Vec<_> = (0..3).map(|_| start()).collect();
    for other in &others {
        other.wait_until_waiting();
        other.wait_for_log(SILENT);
    }
    throughout(LEASE, "it goes on leading", || sandbox.history().starts.len() == 1);
    leader.signal(Signal::SIGKILL);
    leader.wait();
    sandbox.starts(2);
    let reports = others.iter().map(|other| other.log().matches(SILENT).count());
    assert!(reports.into_iter().all(|reports| reports == 1), "once in each log");
    for other in others {
        other.terminate();
    }
    sandbox.history().is_safe();
}

#[test]
fn a_pooler_that_lends_connections_delivers_hints() {
    let postgres = PostgresServer::start();
    let pooler = Pooler::start("session", &postgres, 4);
    let sandbox = Sandbox::new();
    led_before(&sandbox, pooler.url());
    let start = || candidate_for(&sandbox, pooler.url(), LONG_LEASE).witness(&Witness::new()).start();
    let leader = start();
    sandbox.starts(1);
    let next = start();
    next.wait_until_waiting();
    let stopped = now();
    leader.terminate();
    sandbox.starts(2);
    assert!(since(stopped) < LONG_INTERVAL / 2, "by a hint, not by asking: {:?}", since(stopped));
    assert!(!next.log().contains(SILENT), "{}", next.log());
    next.terminate();
    sandbox.history().is_safe();
}

#[test]
fn a_pooler_that_is_restarted_costs_no_leader_its_lease() {
    let postgres = PostgresServer::start();
    let pooler = Pooler::start("transaction", &postgres, 2);
    let sandbox = Sandbox::new();
    led_before(&sandbox, pooler.url());
    let elect = candidate_for(&sandbox, pooler.url(), "60s").flag("--renew", "1200ms");
    let leader = elect.witness(&Witness::new()).start();
    sandbox.starts(1);
    pooler.process.end(Signal::SIGKILL);
    pooler.spawn();
    let renewals = postgres.renewals();
    until("it renews", || postgres.renewals() > renewals + 2);
    assert_eq!(sandbox.history().starts.len(), 1);
    leader.terminate();
    sandbox.history().is_safe();
}
