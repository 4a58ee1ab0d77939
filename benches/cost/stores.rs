//! The servers, and the programs that are measured on each: elect, and its peers where they are there.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::etcd_server::EtcdServer;
use crate::harness::candidate::elect;
use crate::harness::resource_usage::ResourceUsage;
use crate::harness::server::StoreServer;
use crate::kubernetes_double::ApiServer;
use crate::mongodb_server::{Mongod, SingleNodeReplicaSet};
use crate::postgres_server::{PostgresOptions, PostgresServer};
use crate::redis_server::RedisServer;

pub const STORE_NAMES: [&str; 7] = ["file", "etcd", "redis", "mongodb", "mongodb-alone", "postgres", "kubernetes"];

/// The usual loop around redis-py's lock: it asks every 0.1 s, as that lock does by default.
const REDIS_LOOP: &str = "\
import subprocess, sys, redis
with redis.Redis(port=int(sys.argv[1])).lock(sys.argv[2], timeout=600):
    subprocess.run(sys.argv[3:])
";
/// The usual loop around an advisory lock.
const POSTGRES_LOOP: &str = "\
import subprocess, sys, zlib, psycopg
with psycopg.connect(host='127.0.0.1', port=int(sys.argv[1]), user=sys.argv[2], dbname='postgres', autocommit=True) as server:
    server.execute('SELECT pg_advisory_lock(%s)', (zlib.crc32(sys.argv[3].encode()),))
    subprocess.run(sys.argv[4:])
";

/// The times of two commits, one after the other, in seconds, a line each.
const POSTGRES_COMMITS: &str = "\
import sys, time, psycopg
with psycopg.connect(host='127.0.0.1', port=int(sys.argv[1]), user=sys.argv[2], dbname='postgres', autocommit=True) as server:
    server.execute('CREATE TABLE IF NOT EXISTS commits (number int)')
    server.execute('INSERT INTO commits VALUES (0)')
    for _ in range(int(sys.argv[3])):
        began = time.monotonic()
        for _ in range(2):
            server.execute('UPDATE commits SET number = number + 1')
        print(time.monotonic() - began)
        time.sleep(0.1)
";

enum Kind {
    File,
    Etcd(EtcdServer),
    Redis(RedisServer),
    Mongodb(SingleNodeReplicaSet),
    MongodbAlone(Mongod),
    Postgres(PostgresServer),
    Kubernetes(ApiServer),
}

/// A server of one kind, or a directory, for all measurements of one run.
pub struct Server {
    pub name: &'static str,
    kind: Kind,
    directory: TempDir,
}

/// A way to run a command under a lock.
#[derive(Debug, Clone)]
pub struct Way {
    pub name: &'static str,
    pub is_elect: bool,
    words: Vec<String>,
}

impl Way {
    fn elect(words: Vec<String>) -> Way {
        Way { name: "elect", is_elect: true, words }
    }

    fn peer(name: &'static str, words: Vec<String>) -> Way {
        Way { name, is_elect: false, words }
    }

    /// The command of this way around another one.
    pub fn around(&self, command: &[String]) -> Command {
        let mut around = Command::new(&self.words[0]);
        around.args(&self.words[1..]).args(command).stdin(Stdio::null()).stdout(Stdio::null()).env("ETCDCTL_API", "3");
        around
    }
}

fn words<const COUNT: usize>(words: [&str; COUNT]) -> Vec<String> {
    words.map(str::to_owned).to_vec()
}

/// Each of 500 candidates has two connections.
fn for_a_crowd() -> PostgresOptions {
    PostgresOptions::new().setting("max_connections", "1200")
}

impl Server {
    pub fn start(name: &str) -> Server {
        let (name, kind) = match name {
            "file" => ("file", Kind::File),
            "etcd" => ("etcd", Kind::Etcd(EtcdServer::start())),
            "redis" => ("redis", Kind::Redis(RedisServer::start())),
            "mongodb" => ("mongodb", Kind::Mongodb(SingleNodeReplicaSet::start())),
            "mongodb-alone" => ("mongodb-alone", Kind::MongodbAlone(Mongod::start())),
            "postgres" => ("postgres", Kind::Postgres(PostgresServer::with(&for_a_crowd()))),
            _ => ("kubernetes", Kind::Kubernetes(ApiServer::start())),
        };
        Server { name, kind, directory: TempDir::new().expect("a temporary directory") }
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    fn url(&self) -> String {
        match &self.kind {
            Kind::File => format!("file:{}", self.directory().join("locks").display()),
            Kind::Etcd(server) => StoreServer::url(server),
            Kind::Redis(server) => StoreServer::url(server),
            Kind::Mongodb(server) => StoreServer::url(server),
            Kind::MongodbAlone(server) => StoreServer::url(server),
            Kind::Postgres(server) => StoreServer::url(server),
            Kind::Kubernetes(server) => format!("kubernetes+http://{}/default", server.address()),
        }
    }

    /// elect on this server, for a boundary, with further flags.
    pub fn elect(&self, boundary: &str, flags: &[&str]) -> Way {
        let program = elect().display().to_string();
        let own = [program.as_str(), "run", "-b", boundary, "-s", &self.url()].map(str::to_owned);
        Way::elect(own.into_iter().chain(flags.iter().map(|&flag| flag.to_owned())).chain(["--".to_owned()]).collect())
    }

    /// The peers for a lock of this name that are there.
    pub fn peers(&self, lock: &str) -> Vec<Way> {
        match &self.kind {
            Kind::File => {
                let file = self.directory().join(lock).display().to_string();
                vec![Way::peer("flock(1)", words(["flock", &file]))]
            }
            Kind::Etcd(server) => {
                let address = server.address();
                let etcdctl = words(["etcdctl", "--endpoints", &address, "lock", "--ttl=10", lock, "--"]);
                vec![Way::peer("etcdctl lock", etcdctl)]
            }
            Kind::Redis(server) => {
                let port = port_of(&StoreServer::address(server));
                python("redis")
                    .map(|python| Way::peer("redis-py", words([&python, "-c", REDIS_LOOP, &port, lock])))
                    .into_iter()
                    .collect()
            }
            Kind::Postgres(server) => {
                let (port, user) = login(server);
                let own = |python: String| words([&python, "-c", POSTGRES_LOOP, &port, &user, lock]);
                python("psycopg").map(|python| Way::peer("psycopg", own(python))).into_iter().collect()
            }
            Kind::Mongodb(_) | Kind::MongodbAlone(_) | Kind::Kubernetes(_) => Vec::new(),
        }
    }

    /// Two commits, one after the other, by a plain client: the least that a hand-over costs on a server that is asked to keep it.
    pub fn two_commits(&self, runs: usize) -> Option<Vec<Duration>> {
        let Kind::Postgres(server) = &self.kind else { return None };
        let (port, user) = login(server);
        let client = words([&python("psycopg")?, "-c", POSTGRES_COMMITS, &port, &user, &runs.to_string()]);
        let output = Command::new(&client[0]).args(&client[1..]).stderr(Stdio::inherit()).output().ok()?;
        let times = String::from_utf8_lossy(&output.stdout);
        Some(times.lines().map(|time| Duration::from_secs_f64(time.parse().expect("a number"))).collect())
    }

    /// Requests so far, as the server counts them.
    pub fn requests(&self) -> Option<u64> {
        match &self.kind {
            Kind::Etcd(server) => Some(server.messages().values().sum()),
            Kind::Redis(server) => Some(server.commands()),
            Kind::Mongodb(server) => Some(server.operations()),
            Kind::MongodbAlone(server) => Some(server.operations()),
            Kind::Postgres(server) => {
                let transactions =
                    "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = 'postgres'";
                server.sql(transactions).trim().parse().ok()
            }
            Kind::File | Kind::Kubernetes(_) => None,
        }
    }

    /// Processor time of the server so far.
    pub fn cpu(&self) -> Option<Duration> {
        let of = |usage: ResourceUsage| Some(usage.cpu);
        match &self.kind {
            Kind::Etcd(server) => of(server.usage()),
            Kind::Redis(server) => of(server.usage()),
            Kind::Mongodb(server) => of(server.usage()),
            Kind::MongodbAlone(server) => of(server.usage()),
            Kind::Postgres(server) => Some(server.cpu()),
            Kind::File | Kind::Kubernetes(_) => None,
        }
    }
}

/// Port and user.
fn login(server: &PostgresServer) -> (String, String) {
    let url = StoreServer::url(server);
    let user = url.rsplit("user=").next().unwrap_or_default();
    (port_of(&StoreServer::address(server)), user.to_owned())
}

fn port_of(address: &str) -> String {
    address.rsplit(':').next().unwrap_or_default().to_owned()
}

/// A Python with this module: the system's, or the one in `target/bench/venv`, where the module is installed if pip can do that.
fn python(module: &str) -> Option<String> {
    let has = |python: &Path| {
        let mut import = Command::new(python);
        import.args(["-c", &format!("import {module}")]).stderr(Stdio::null());
        import.status().is_ok_and(|status| status.success())
    };
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench/venv");
    let own = place.join("bin/python3");
    if let Some(python) = [PathBuf::from("python3"), own.clone()].iter().find(|python| has(python)) {
        return Some(python.display().to_string());
    }
    let runs = |program: &Path, words: &[&str]| {
        let mut program = Command::new(program);
        program.args(words).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    };
    let package = if module == "psycopg" { "psycopg[binary]" } else { module };
    let is_made = own.exists() || runs(Path::new("python3"), &["-m", "venv", &place.display().to_string()]);
    (is_made && runs(&own, &["-m", "pip", "install", "-q", package]) && has(&own)).then(|| own.display().to_string())
}
