//! An etcd of one member: started on free ports, killed, stopped, restarted, and gone at the end of the test.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use etcd_client::{Client, LeaseGrantOptions, PutOptions};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::harness::certificates::{CertificateFiles, Certificates};
use crate::harness::host_tools::attempt;
use crate::harness::ports::free_port;
use crate::harness::resource_usage::ResourceUsage;
use crate::harness::server::{PASSWORD, StoreServer};
use crate::harness::server_process::ServerProcess;
use crate::harness::stalled_disk::StalledDisk;
use crate::harness::{eventually, http_client};

/// How an etcd is started, where it differs from a plain one.
#[derive(Debug, Clone)]
pub struct EtcdOptions {
    flags: Vec<String>,
    timing: [u32; 2],
    certificates: Option<Arc<Certificates>>,
    /// Of the server, if it is not the usual one: then clients need none.
    identity: Option<CertificateFiles>,
    host: String,
    stalls: bool,
}

/// The identity of a member among the others.
pub(super) struct Peers {
    pub name: String,
    pub port: u16,
    /// Where the others reach it.
    pub advertised: String,
    /// The whole cluster, as every member is told it.
    pub cluster: String,
    /// Called with the pid of each new process.
    pub tell: Box<dyn Fn(i32) + Send + Sync>,
}

impl EtcdOptions {
    /// Elections, where there are any, within half a second.
    pub fn new() -> EtcdOptions {
        EtcdOptions {
            flags: Vec::new(),
            timing: [100, 500],
            certificates: None,
            identity: None,
            host: "127.0.0.1".to_owned(),
            stalls: false,
        }
    }

    /// Any other flag of etcd's.
    pub fn flag(mut self, name: &str, value: &str) -> EtcdOptions {
        self.flags.extend([name.to_owned(), value.to_owned()]);
        self
    }

    /// Milliseconds; etcd's own are 100 and 1000. The shortest lease that is granted follows from them: 1 s here, 2 s there.
    pub fn timing(mut self, heartbeat: u32, election: u32) -> EtcdOptions {
        self.timing = [heartbeat, election];
        self
    }

    /// TLS, and clients must show a certificate.
    pub fn tls(mut self, certificates: &Arc<Certificates>) -> EtcdOptions {
        self.certificates = Some(Arc::clone(certificates));
        self
    }

    /// TLS with this certificate of the server, and clients need none.
    pub fn tls_as(self, certificates: &Arc<Certificates>, identity: CertificateFiles) -> EtcdOptions {
        EtcdOptions { identity: Some(identity), ..self.tls(certificates) }
    }

    /// Seconds after which who has logged in must do so again, if it has asked nothing meanwhile.
    pub fn token_ttl(self, seconds: u32) -> EtcdOptions {
        self.flag("--auth-token-ttl", &seconds.to_string())
    }

    /// Another address than 127.0.0.1 for its clients: that of a [`Network`](crate::harness::network::Network).
    pub fn seen_at(mut self, host: &str) -> EtcdOptions {
        host.clone_into(&mut self.host);
        self
    }

    /// The log on a disk of its own: see [`EtcdServer::disk`].
    pub fn own_disk(mut self) -> EtcdOptions {
        self.stalls = true;
        self
    }
}

pub struct EtcdServer {
    options: EtcdOptions,
    peers: Peers,
    port: u16,
    page_port: u16,
    asks_for_users: AtomicBool,
    process: ServerProcess,
    directory: TempDir,
    /// After the process that writes to it.
    disk: Option<StalledDisk>,
}

impl StoreServer for EtcdServer {
    const NAME: &'static str = "etcd";
    const SCHEME: &'static str = "etcd";

    fn start() -> EtcdServer {
        EtcdServer::with(&EtcdOptions::new())
    }

    fn seen_at(host: &str) -> EtcdServer {
        EtcdServer::with(&EtcdOptions::new().seen_at(host))
    }

    fn address(&self) -> String {
        EtcdServer::address(self)
    }

    fn renewals(&self) -> u64 {
        self.messages().get("LeaseKeepAlive").copied().unwrap_or_default()
    }
}

impl EtcdServer {
    /// One member, with an empty store; it answers.
    pub fn start() -> EtcdServer {
        EtcdServer::with(&EtcdOptions::new())
    }

    #[track_caller]
    pub fn with(options: &EtcdOptions) -> EtcdServer {
        again(|| {
            let port = free_port();
            let url = format!("http://127.0.0.1:{port}");
            let (name, cluster) = ("m0".to_owned(), format!("m0={url}"));
            let peers = Peers { name, port, advertised: url, cluster, tell: Box::new(|_| ()) };
            let etcd = EtcdServer::launch(options.clone(), peers);
            etcd.comes_up().then_some(etcd)
        })
    }

    /// Starts it, without waiting for it.
    pub(super) fn launch(options: EtcdOptions, peers: Peers) -> EtcdServer {
        let etcd = EtcdServer {
            port: free_port(),
            page_port: free_port(),
            asks_for_users: AtomicBool::new(false),
            process: ServerProcess::new("etcd"),
            directory: tempfile::Builder::new().prefix("elect-etcd-").tempdir().expect("a temporary directory"),
            disk: options.stalls.then(StalledDisk::new),
            options,
            peers,
        };
        etcd.spawn();
        etcd
    }

    /// It shows its pages, though it may not have found the others yet; or it has ended.
    pub(super) fn has_begun(&self) -> bool {
        self.has_ended().is_some() || self.answers("/health", "health")
    }

    /// Not asked more often than need be: each time leaves a connection behind, which the kernel remembers for a minute.
    fn answers(&self, path: &str, text: &str) -> bool {
        let answers =
            http_client::get_within(self.page_port, path, Duration::from_secs(2)).is_ok_and(|page| page.contains(text));
        if !answers {
            std::thread::sleep(Duration::from_millis(20));
        }
        answers
    }

    /// False when another program has taken one of its ports.
    #[track_caller]
    pub(super) fn comes_up(&self) -> bool {
        eventually("etcd answers", || match self.has_ended() {
            Some(_) if self.log().contains("address already in use") => Some(false),
            Some(status) => panic!("etcd has ended, {status}:\n{}", self.last_words()),
            None => self.answers("/health", "\"true\"").then_some(true),
        })
    }

    /// Host and port, for clients.
    pub fn address(&self) -> String {
        format!("{}:{}", self.options.host, self.port)
    }

    /// For `--store`.
    pub fn url(&self) -> String {
        let scheme = if self.options.certificates.is_some() { "etcds" } else { "etcd" };
        format!("{scheme}://{}", self.address())
    }

    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// SIGKILL; it is gone when this returns. Nothing happens if it has gone before.
    #[track_caller]
    pub fn kill(&self) {
        self.process.end(Signal::SIGKILL);
    }

    /// SIGSTOP: it stands still, and its connections stay.
    #[track_caller]
    pub fn stop(&self) {
        self.process.stop();
    }

    pub fn cont(&self) {
        self.process.cont();
    }

    /// With the same data and ports, after a clean stop if it still runs. It answers, unless it lacks the others.
    #[track_caller]
    pub fn restart(&self) {
        self.start_again();
        assert!(self.comes_up(), "somebody else has its ports:\n{}", self.last_words());
    }

    /// The same, without waiting until it answers.
    #[track_caller]
    pub fn start_again(&self) {
        self.process.end(Signal::SIGTERM);
        self.spawn();
    }

    /// With the same ports, and nothing in its store.
    #[track_caller]
    pub fn rebuild(&self) {
        self.kill();
        fs::remove_dir_all(self.data()).expect("its data");
        self.restart();
    }

    /// With what was in its store when this snapshot was saved.
    #[track_caller]
    pub fn restore(&self, snapshot: &Path) {
        self.kill();
        fs::remove_dir_all(self.data()).expect("its data");
        let (snapshot, data) = (snapshot.display().to_string(), self.data().display().to_string());
        let words = ["env", "ETCDCTL_API=3", "etcdctl", "snapshot", "restore", &snapshot, "--data-dir", &data];
        let peers = ["--name", &self.peers.name, "--initial-cluster", &self.peers.cluster];
        let advertised = ["--initial-advertise-peer-urls", &self.peers.advertised];
        attempt(words.into_iter().chain(peers).chain(advertised)).expect("restored");
        self.restart();
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// The disk under its log.
    #[track_caller]
    pub fn disk(&self) -> &StalledDisk {
        self.disk.as_ref().expect("started with Options::own_disk")
    }

    /// Calls begun since its start, by method. A stream counts once.
    #[track_caller]
    pub fn requests(&self) -> BTreeMap<String, u64> {
        self.counter("grpc_server_started_total")
    }

    /// Messages received since its start, by method: on a stream of keep-alives, each of them.
    #[track_caller]
    pub fn messages(&self) -> BTreeMap<String, u64> {
        self.counter("grpc_server_msg_received_total")
    }

    #[track_caller]
    fn counter(&self, name: &str) -> BTreeMap<String, u64> {
        let page = http_client::get(self.page_port, "/metrics").expect("etcd shows its counters");
        http_client::sums(&page, name, "grpc_method").into_iter().filter(|(_, count)| *count > 0).collect()
    }

    pub fn usage(&self) -> ResourceUsage {
        ResourceUsage::of(self.pid())
    }

    /// As root, once there are users; with the client's certificate, where there are certificates. What the words say
    /// about either counts instead.
    pub fn try_etcdctl(&self, words: &[&str]) -> Result<String, String> {
        let own = self.etcdctl_at(&self.address());
        attempt(own.iter().map(String::as_str).chain(words.iter().copied()))
    }

    #[track_caller]
    pub fn etcdctl(&self, words: &[&str]) -> String {
        self.try_etcdctl(words).unwrap_or_else(|fault| panic!("{fault}"))
    }

    /// The key of a candidate, as any program makes one: on the lease that its last part names, which lasts for this test.
    #[track_caller]
    pub fn put_candidate(&self, key: &str, value: &str) {
        let lease = key.rsplit('/').next().and_then(|lease| i64::from_str_radix(lease, 16).ok()).expect("a lease");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut client = Client::connect([self.address()], None).await.expect("a server that is up");
            // It may be there.
            let _ = client.lease_grant(3600, Some(LeaseGrantOptions::new().with_id(lease))).await;
            client.put(key, value, Some(PutOptions::new().with_lease(lease))).await.expect("put");
        });
    }

    /// The words that such a call begins with, for one by other ways or means.
    pub fn etcdctl_at(&self, address: &str) -> Vec<String> {
        let mut words = ["env", "ETCDCTL_API=3", "etcdctl", "--endpoints", address].map(str::to_owned).to_vec();
        if let Some(certificates) = &self.options.certificates {
            let CertificateFiles { certificate, key } = certificates.client();
            match self.options.identity {
                Some(_) => words.push("--insecure-skip-tls-verify".to_owned()),
                None => words.extend(["--cacert".to_owned(), certificates.ca()]),
            }
            words.extend(["--cert", &certificate, "--key", &key].map(str::to_owned));
        }
        if self.asks_for_users.load(Ordering::SeqCst) {
            words.extend(["--user".to_owned(), format!("root:{PASSWORD}")]);
        }
        words
    }

    /// From now on it asks for users, all with the [`PASSWORD`]: `root`; `elect`, who may read and write below `/elect/` and the
    /// terms kept for it; `narrow`, who may not use the terms; `stranger`, who may nothing.
    pub fn enable_auth(&self) {
        for user in ["root", "elect", "narrow", "stranger"] {
            self.etcdctl(&["user", "add", &format!("{user}:{PASSWORD}")]);
        }
        for role in ["elect", "narrow"] {
            self.etcdctl(&["role", "add", role]);
            self.etcdctl(&["role", "grant-permission", role, "--prefix", "readwrite", "/elect/"]);
            self.etcdctl(&["user", "grant-role", role, role]);
        }
        self.etcdctl(&["role", "grant-permission", "elect", "--prefix", "readwrite", "elect.term//elect/"]);
        self.etcdctl(&["user", "grant-role", "root", "root"]);
        self.etcdctl(&["auth", "enable"]);
        self.asks_for_users.store(true, Ordering::SeqCst);
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    fn last_words(&self) -> String {
        let log = self.log();
        // Of those who wait for it, who have their own words for that.
        let lines: Vec<&str> = log.lines().filter(|line| !line.contains("/health error")).collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    fn spawn(&self) {
        let path = self.directory.path().join("log");
        let log = File::options().create(true).append(true).open(path).expect("an open directory");
        let mut command = Command::new("etcd");
        command
            .args(self.flags())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("one more descriptor"))
            .stderr(log);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ETCD")) {
            command.env_remove(name);
        }
        let child = command.spawn().expect("etcd is there");
        (self.peers.tell)(i32::try_from(child.id()).expect("process ids are small"));
        self.process.set(child);
    }

    fn flags(&self) -> Vec<String> {
        let (options, peers) = (&self.options, &self.peers);
        let text = |path: &Path| path.display().to_string();
        let scheme = if options.certificates.is_some() { "https" } else { "http" };
        let clients = format!("{scheme}://{}", self.address());
        let [heartbeat, election] = options.timing.map(|time| time.to_string());
        let mut flags: Vec<String> = [
            ["--name", &peers.name],
            ["--data-dir", &text(&self.data())],
            ["--listen-client-urls", &clients],
            ["--advertise-client-urls", &clients],
            ["--listen-metrics-urls", &format!("http://127.0.0.1:{}", self.page_port)],
            ["--listen-peer-urls", &format!("http://127.0.0.1:{}", peers.port)],
            ["--initial-advertise-peer-urls", &peers.advertised],
            ["--initial-cluster", &peers.cluster],
            ["--heartbeat-interval", &heartbeat],
            ["--election-timeout", &election],
            ["--bcrypt-cost", "4"],
        ]
        .concat()
        .into_iter()
        .map(str::to_owned)
        .collect();
        if let Some(disk) = &self.disk {
            // Made beside its final place and renamed: not the mount point itself.
            flags.extend(["--wal-dir".to_owned(), text(&disk.path().join("wal"))]);
        }
        if let Some(certificates) = &options.certificates {
            let own = options.identity.clone().unwrap_or_else(|| certificates.server());
            flags.extend(["--cert-file".to_owned(), own.certificate, "--key-file".to_owned(), own.key]);
            if options.identity.is_none() {
                flags.extend(["--client-cert-auth", "--trusted-ca-file", &certificates.ca()].map(str::to_owned));
            }
        }
        flags.extend(options.flags.iter().cloned());
        flags
    }

    fn has_ended(&self) -> Option<ExitStatus> {
        self.process.has_ended()
    }
}

impl Drop for EtcdServer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- etcd {} at {}:\n{}", self.peers.name, self.address(), self.last_words());
        }
        if let Some(disk) = &self.disk {
            disk.thaw();
        }
        self.process.kill();
    }
}

/// A port that was free may not be any more: tries a few times.
#[track_caller]
pub(super) fn again<T>(mut start: impl FnMut() -> Option<T>) -> T {
    (0..5).find_map(|_| start()).expect("one of five attempts finds its ports free")
}
