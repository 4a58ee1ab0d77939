//! A mongod: started on a free port, killed, stopped, restarted with its data, and gone at the end of the test. Alone, or as
//! a replica set of one, which has what a larger set has but for the others: majority reads, elections.

use std::fs::{self, File, Permissions};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ::mongodb::Client;
use ::mongodb::bson::{Bson, Document, doc};
use ::mongodb::options::{ClientOptions, Credential, ServerAddress, TlsOptions};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::harness::certificates::{CertificateFiles, Certificates};
use crate::harness::ports::free_port;
use crate::harness::resource_usage::ResourceUsage;
use crate::harness::server::{PASSWORD, StoreServer};
use crate::harness::server_process::ServerProcess;
use crate::harness::wait::{now, since};
use crate::harness::{Sandbox, eventually, until};

/// Of every replica set here.
pub const SET: &str = "main";
/// Where the records are.
pub const COLLECTION: &str = "boundaries";

/// Whether a field has this value, and this type.
pub fn has(document: &Document, field: &str, value: impl Into<Bson>) -> bool {
    document.get(field) == Some(&value.into())
}

/// A server that does not answer a command within this is not asked any longer. What makes a set writes much to its disk.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);

/// How a mongod is started, where it differs from a plain one.
#[derive(Debug, Clone)]
pub struct MongodOptions {
    flags: Vec<String>,
    certificates: Option<Arc<Certificates>>,
    /// Of the server, if it is not the usual one: then clients need none.
    identity: Option<CertificateFiles>,
    host: String,
    wrapper: Vec<String>,
    in_a_set: bool,
}

impl MongodOptions {
    /// Small: of its files, the log of 300 MB that is laid out in advance is the one that would be felt.
    pub fn new() -> MongodOptions {
        let flags = [
            ["--wiredTigerCacheSizeGB", "0.25"],
            ["--wiredTigerEngineConfigString", "log=(prealloc=false,file_max=8MB)"],
            ["--oplogSize", "16"],
            ["--setParameter", "diagnosticDataCollectionEnabled=false"],
        ];
        MongodOptions {
            flags: flags.concat().into_iter().map(str::to_owned).collect(),
            certificates: None,
            identity: None,
            host: "127.0.0.1".to_owned(),
            wrapper: Vec::new(),
            in_a_set: false,
        }
    }

    /// One of its parameters.
    pub fn parameter(mut self, name: &str, value: &str) -> MongodOptions {
        self.flags.extend(["--setParameter".to_owned(), format!("{name}={value}")]);
        self
    }

    /// TLS alone, and clients must show a certificate.
    pub fn tls(mut self, certificates: &Arc<Certificates>) -> MongodOptions {
        self.certificates = Some(Arc::clone(certificates));
        self
    }

    /// TLS alone, with this certificate of the server, and clients need none.
    pub fn tls_as(self, certificates: &Arc<Certificates>, identity: CertificateFiles) -> MongodOptions {
        MongodOptions { identity: Some(identity), ..self.tls(certificates) }
    }

    pub fn seen_at(mut self, host: &str) -> MongodOptions {
        host.clone_into(&mut self.host);
        self
    }

    /// The wrapper that executes it: `env`.
    pub fn wrapped_by(mut self, words: Vec<String>) -> MongodOptions {
        self.wrapper = words;
        self
    }

    /// It can be told to fail: see [`Mongod::delays`].
    pub fn with_faults(self) -> MongodOptions {
        self.parameter("enableTestCommands", "1")
    }

    /// To become a member.
    pub fn in_a_set(mut self) -> MongodOptions {
        self.in_a_set = true;
        self
    }
}

/// One process, and whoever asks it something.
pub struct Mongod {
    options: MongodOptions,
    pub port: u16,
    process: ServerProcess,
    directory: TempDir,
    /// Kept between questions: some are asked every few milliseconds.
    driver: Mutex<Option<MongoDriver>>,
    users: Mutex<bool>,
    /// Called with the pid of each new process.
    tell: Box<dyn Fn(i32) + Send + Sync>,
}

/// A replica set of one.
pub struct SingleNodeReplicaSet(Mongod);

struct MongoDriver {
    runtime: tokio::runtime::Runtime,
    client: Client,
    /// When it was last asked.
    asked: Duration,
}

/// The driver's monitor stands still between two questions, and takes the server for silent after twice this time.
const DRIVER_PAUSE_MAX: Duration = Duration::from_secs(8);

/// Through a proxy a client must not ask the server where it is: it would go there.
fn directly(address: &str) -> String {
    format!("mongodb://{address}/?directConnection=true")
}

impl StoreServer for Mongod {
    const NAME: &'static str = "mongodb alone";
    const SCHEME: &'static str = "mongodb";

    fn start() -> Mongod {
        Mongod::with(&MongodOptions::new())
    }

    fn seen_at(host: &str) -> Mongod {
        Mongod::with(&MongodOptions::new().seen_at(host))
    }

    fn address(&self) -> String {
        format!("{}:{}", self.options.host, self.port)
    }

    /// Every change of a record is one of these.
    fn renewals(&self) -> u64 {
        self.commands("findAndModify")
    }

    fn url(&self) -> String {
        let options = if self.options.certificates.is_some() { "?tls=true" } else { "" };
        format!("mongodb://{}/{options}", self.address())
    }

    fn url_of(address: &str) -> String {
        directly(address)
    }
}

impl StoreServer for SingleNodeReplicaSet {
    const NAME: &'static str = "mongodb";
    const SCHEME: &'static str = "mongodb";

    fn start() -> SingleNodeReplicaSet {
        SingleNodeReplicaSet::with(&MongodOptions::new())
    }

    fn seen_at(host: &str) -> SingleNodeReplicaSet {
        SingleNodeReplicaSet::with(&MongodOptions::new().seen_at(host))
    }

    fn address(&self) -> String {
        self.0.address()
    }

    fn renewals(&self) -> u64 {
        self.0.renewals()
    }

    fn url(&self) -> String {
        let url = self.0.url();
        let sign = if url.contains('?') { '&' } else { '?' };
        format!("{url}{sign}replicaSet={SET}")
    }

    fn url_of(address: &str) -> String {
        directly(address)
    }
}

impl std::ops::Deref for SingleNodeReplicaSet {
    type Target = Mongod;

    fn deref(&self) -> &Mongod {
        &self.0
    }
}

impl SingleNodeReplicaSet {
    /// It is the primary.
    #[track_caller]
    pub fn with(options: &MongodOptions) -> SingleNodeReplicaSet {
        let mongod = Mongod::with(&options.clone().in_a_set());
        mongod.admin(initiation(&[mongod.address()]));
        mongod.is_primary();
        SingleNodeReplicaSet(mongod)
    }

    /// On the same port, with what it has on its disk, after SIGKILL if it still runs; it is the primary.
    #[track_caller]
    pub fn restart(&self) {
        self.0.restart();
        self.0.is_primary();
    }

    #[track_caller]
    pub fn enable_auth(&self) {
        self.0.enable_auth();
        self.0.is_primary();
    }
}

/// The configuration of a set of these: elections begin 2 s after the primary was last heard of.
pub(super) fn initiation(addresses: &[String]) -> Document {
    let members: Vec<Bson> = addresses
        .iter()
        .zip(0_i32..)
        .map(|(address, number)| doc! { "_id": number, "host": address.as_str() }.into())
        .collect();
    let settings = doc! { "electionTimeoutMillis": 2000, "heartbeatIntervalMillis": 500 };
    doc! { "replSetInitiate": { "_id": SET, "members": members, "settings": settings } }
}

impl Mongod {
    #[track_caller]
    pub fn with(options: &MongodOptions) -> Mongod {
        eventually("a port that stays free", || {
            let mongod = Mongod::launch(options.clone(), free_port(), Box::new(|_| ()));
            mongod.comes_up().then_some(mongod)
        })
    }

    /// Starts it, without waiting for it.
    #[track_caller]
    pub(super) fn launch(options: MongodOptions, port: u16, tell: Box<dyn Fn(i32) + Send + Sync>) -> Mongod {
        let mongod = Mongod {
            options,
            port,
            process: ServerProcess::new("mongod"),
            directory: tempfile::Builder::new().prefix("elect-mongod-").tempdir().expect("a temporary directory"),
            driver: Mutex::new(None),
            users: Mutex::new(false),
            tell,
        };
        // The key file by which the members of a set authenticate each other.
        let key = mongod.path("key");
        fs::write(&key, "elects0tests0elects0tests0elects").expect("an open directory");
        fs::set_permissions(&key, Permissions::from_mode(0o600)).expect("a file of ours");
        mongod.spawn();
        mongod
    }

    /// It accepts connections. False when another program has taken its port.
    #[track_caller]
    pub(super) fn comes_up(&self) -> bool {
        eventually("mongod answers", || match self.has_ended() {
            Some(_) if self.log().contains("Address already in use") => Some(false),
            Some(status) => panic!("mongod has ended, {status}:\n{}", self.last_words()),
            None => TcpStream::connect(self.address()).is_ok().then_some(true),
        })
    }

    #[track_caller]
    fn is_primary(&self) {
        until("it is the primary", || {
            self.try_admin(doc! { "hello": 1 }).is_ok_and(|hello| has(&hello, "isWritablePrimary", true))
        });
    }

    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// SIGKILL; it is gone when this returns.
    #[track_caller]
    pub fn kill(&self) {
        self.process.end(Signal::SIGKILL);
    }

    #[track_caller]
    pub fn stop(&self) {
        self.process.stop();
    }

    pub fn cont(&self) {
        self.process.cont();
    }

    /// On the same port, with what it has on its disk, after SIGKILL if it still runs.
    #[track_caller]
    pub fn restart(&self) {
        self.kill();
        self.start_again();
    }

    #[track_caller]
    pub fn start_again(&self) {
        self.spawn();
        assert!(self.comes_up(), "somebody else has its port:\n{}", self.last_words());
    }

    pub fn usage(&self) -> ResourceUsage {
        ResourceUsage::of(self.pid())
    }

    /// How often a command has been called since its start.
    #[track_caller]
    pub fn commands(&self, name: &str) -> u64 {
        let path = ["metrics", "commands", name, "total"];
        self.counter(&path)
    }

    /// The operations of all clients so far.
    #[track_caller]
    pub fn operations(&self) -> u64 {
        ["query", "insert", "update", "delete", "getmore", "command"]
            .map(|kind| self.counter(&["opcounters", kind]))
            .iter()
            .sum()
    }

    /// Connections that are open now.
    #[track_caller]
    pub fn connections(&self) -> u64 {
        self.counter(&["connections", "current"])
    }

    /// Connections that were ever accepted.
    #[track_caller]
    pub fn connections_made(&self) -> u64 {
        self.counter(&["connections", "totalCreated"])
    }

    #[track_caller]
    fn counter(&self, path: &[&str]) -> u64 {
        let question = doc! { "serverStatus": 1, "repl": 0, "wiredTiger": 0, "tcmalloc": 0 };
        // Many clients at once may keep it from answering this one in time.
        let status = Bson::from(eventually("its counters", || self.try_admin(question.clone()).ok()));
        let found = path.iter().try_fold(&status, |value, name| value.as_document()?.get(name));
        let count = found.and_then(|value| value.as_i64().or(value.as_i32().map(i64::from)));
        // A command that was never called may have no counter.
        u64::try_from(count.unwrap_or_default()).expect("a count")
    }

    /// As root, once there are users; with the client's certificate, where there are certificates.
    pub fn try_command(&self, database: &str, command: Document) -> Result<Document, String> {
        self.ask(database, command, COMMAND_TIMEOUT)
    }

    /// The answer to `hello`, if it arrives within this time.
    pub(super) fn try_hello(&self, limit: Duration) -> Option<Document> {
        self.ask("admin", doc! { "hello": 1 }, limit).ok()
    }

    fn ask(&self, database: &str, command: Document, limit: Duration) -> Result<Document, String> {
        let mut slot = self.driver.lock().expect("nobody panics with it");
        let driver = match slot.take() {
            Some(driver) if since(driver.asked) < DRIVER_PAUSE_MAX => driver,
            Some(_) | None => self.driver()?,
        };
        let asked = command.clone();
        let answer = driver.runtime.block_on(async {
            tokio::time::timeout(limit, driver.client.database(database).run_command(command)).await
        });
        match answer {
            Ok(Ok(answer)) => {
                *slot = Some(MongoDriver { asked: now(), ..driver });
                match answer.get_array("writeErrors") {
                    Ok(errors) => Err(format!("{asked}: {errors:?}")),
                    Err(_) => Ok(answer),
                }
            }
            // The next question gets a new connection: the driver's state may be of another incarnation of the server.
            Ok(Err(error)) => Err(format!("{asked}: {error}")),
            Err(_) => Err(format!("{asked}: no answer from mongod on {}", self.port)),
        }
    }

    #[track_caller]
    pub fn command(&self, database: &str, command: Document) -> Document {
        self.try_command(database, command).unwrap_or_else(|fault| panic!("{fault}"))
    }

    pub fn try_admin(&self, command: Document) -> Result<Document, String> {
        self.try_command("admin", command)
    }

    #[track_caller]
    pub fn admin(&self, command: Document) -> Document {
        self.command("admin", command)
    }

    /// The record of `cron` in this place's database.
    #[track_caller]
    pub fn record(&self, sandbox: &Sandbox) -> Option<Document> {
        self.records(sandbox).into_iter().find(|record| has(record, "_id", "cron"))
    }

    /// All records in this place's database.
    #[track_caller]
    pub fn records(&self, sandbox: &Sandbox) -> Vec<Document> {
        let found = self.command(&sandbox.database(), doc! { "find": COLLECTION, "batchSize": 1000 });
        let batch = found.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch"));
        batch.expect("a batch").iter().filter_map(|record| record.as_document().cloned()).collect()
    }

    /// Changes records, with operators or a pipeline. Returns how many it found.
    #[track_caller]
    pub fn update(&self, sandbox: &Sandbox, filter: Document, change: impl Into<Bson>) -> i32 {
        let updates = vec![doc! { "q": filter, "u": change.into(), "multi": false }];
        let answer = self.command(&sandbox.database(), doc! { "update": COLLECTION, "updates": updates });
        answer.get_i32("n").expect("a count")
    }

    #[track_caller]
    pub fn insert(&self, sandbox: &Sandbox, record: Document) {
        self.command(&sandbox.database(), doc! { "insert": COLLECTION, "documents": [record] });
    }

    #[track_caller]
    pub fn delete(&self, sandbox: &Sandbox, filter: Document) {
        let deletes = vec![doc! { "q": filter, "limit": 0 }];
        self.command(&sandbox.database(), doc! { "delete": COLLECTION, "deletes": deletes });
    }

    #[track_caller]
    pub fn indexes(&self, sandbox: &Sandbox) -> Vec<Document> {
        let found = self.command(&sandbox.database(), doc! { "listIndexes": COLLECTION });
        let batch = found.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch"));
        batch.expect("a batch").iter().filter_map(|index| index.as_document().cloned()).collect()
    }

    /// The next one of these commands is carried out so much later. Returns when it has arrived, if `meanwhile` brings it
    /// about.
    #[track_caller]
    pub fn delays<T>(&self, commands: &[&str], by: Duration, meanwhile: impl FnOnce() -> T) -> T {
        let milliseconds = i64::try_from(by.as_millis()).expect("a short time");
        let data = doc! { "failCommands": commands, "blockConnection": true, "blockTimeMS": milliseconds };
        let set = self.admin(doc! { "configureFailPoint": "failCommand", "mode": { "times": 1 }, "data": data });
        let before = set.get_i64("count").or_else(|_| set.get_i32("count").map(i64::from)).expect("a count");
        let result = meanwhile();
        let wait = doc! { "waitForFailPoint": "failCommand", "timesEntered": before + 1, "maxTimeMS": 30_000_i64 };
        self.ask("admin", wait, COMMAND_TIMEOUT * 2).unwrap_or_else(|fault| panic!("{fault}"));
        result
    }

    /// From now on it asks for users, all with the [`PASSWORD`]: `root`, and `stranger`, who may nothing. It is started
    /// again for that.
    #[track_caller]
    pub fn enable_auth(&self) {
        self.admin(doc! { "createUser": "root", "pwd": PASSWORD, "roles": ["root"] });
        self.admin(doc! { "createUser": "stranger", "pwd": PASSWORD, "roles": [] });
        // It may not have written them to its disk yet.
        self.process.end(Signal::SIGTERM);
        *self.users.lock().expect("nobody panics with it") = true;
        *self.driver.lock().expect("nobody panics with it") = None;
        self.start_again();
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    fn last_words(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    fn driver(&self) -> Result<MongoDriver, String> {
        let has_users = *self.users.lock().expect("nobody panics with it");
        let host = ServerAddress::Tcp { host: self.options.host.clone(), port: Some(self.port) };
        let credential = Credential::builder().username("root".to_owned()).password(PASSWORD.to_owned()).build();
        let mut options = ClientOptions::builder()
            .hosts(vec![host])
            .direct_connection(true)
            .server_selection_timeout(COMMAND_TIMEOUT / 3)
            .connect_timeout(COMMAND_TIMEOUT / 3)
            .build();
        options.credential = has_users.then_some(credential);
        options.tls = self.options.certificates.as_ref().map(|certificates| {
            let ca = certificates.ca();
            let pem = PathBuf::from(self.client_pem(certificates));
            let mut tls = TlsOptions::builder().ca_file_path(PathBuf::from(ca)).cert_key_file_path(pem).build();
            tls.allow_invalid_certificates = self.options.identity.as_ref().map(|_| true);
            tls.into()
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let client = runtime.block_on(async { Client::with_options(options) }).map_err(|error| error.to_string())?;
        Ok(MongoDriver { runtime, client, asked: now() })
    }

    fn client_pem(&self, certificates: &Certificates) -> String {
        self.pem("client.pem", &certificates.client())
    }

    /// Both in one file, as mongod and its driver want them.
    fn pem(&self, name: &str, identity: &CertificateFiles) -> String {
        let read = |path: &str| fs::read_to_string(path).expect("a certificate or a key");
        fs::write(self.path(name), read(&identity.certificate) + &read(&identity.key)).expect("an open directory");
        self.path(name)
    }

    #[track_caller]
    fn spawn(&self) {
        let log = File::options().create(true).append(true).open(self.path("log")).expect("an open directory");
        let mut words = self.options.wrapper.clone();
        words.push("mongod".to_owned());
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .args(self.flags())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("one more descriptor"))
            .stderr(log);
        let child = command.spawn().unwrap_or_else(|error| panic!("mongod: {error}: tests/run installs one"));
        (self.tell)(i32::try_from(child.id()).expect("process ids are small"));
        self.process.set(child);
    }

    fn flags(&self) -> Vec<String> {
        let data = self.directory.path().join("data");
        fs::create_dir_all(&data).expect("an open directory");
        let text = |path: &Path| path.display().to_string();
        let mut flags: Vec<String> = [
            "--port",
            &self.port.to_string(),
            "--bind_ip",
            &self.options.host,
            "--dbpath",
            &text(&data),
            "--nounixsocket",
        ]
        .map(str::to_owned)
        .to_vec();
        let mut flag = |words: &[&str]| flags.extend(words.iter().map(|word| (*word).to_owned()));
        if self.options.in_a_set {
            flag(&["--replSet", SET]);
        }
        if *self.users.lock().expect("nobody panics with it") {
            if self.options.in_a_set { flag(&["--keyFile", &self.path("key")]) } else { flag(&["--auth"]) }
        }
        if let Some(certificates) = &self.options.certificates {
            let own = self.options.identity.clone().unwrap_or_else(|| certificates.server());
            let server = self.pem("server.pem", &own);
            if self.options.identity.is_some() {
                flag(&["--tlsAllowConnectionsWithoutCertificates"]);
            }
            flag(&["--tlsMode", "requireTLS", "--tlsCertificateKeyFile", &server, "--tlsCAFile", &certificates.ca()]);
        }
        flags.extend(self.options.flags.iter().cloned());
        flags
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    fn has_ended(&self) -> Option<ExitStatus> {
        self.process.has_ended()
    }
}

impl Drop for Mongod {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- mongod on {}:\n{}", self.port, self.last_words());
        }
        self.process.kill();
    }
}
