//! A Redis: started on a free port, killed, stopped, restarted with or without its data, and gone at the end of the test.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::harness::certificates::{CertificateFiles, Certificates};
use crate::harness::eventually;
use crate::harness::host_tools::attempt;
use crate::harness::ports::free_port;
use crate::harness::resource_usage::ResourceUsage;
use crate::harness::server::StoreServer;
use crate::harness::server_process::ServerProcess;

/// How a Redis is started, where it differs from a plain one that forgets everything when it ends.
#[derive(Debug, Clone)]
pub struct RedisOptions {
    flags: Vec<String>,
    certificates: Option<Arc<Certificates>>,
    /// Of the server, if it is not the usual one.
    identity: Option<CertificateFiles>,
    host: String,
    wrapper: Vec<String>,
}

impl RedisOptions {
    pub fn new() -> RedisOptions {
        // A primary that is written nothing has to say more often than in its time-out that it is there.
        let flags =
            ["--save", "", "--repl-timeout", "2", "--repl-ping-replica-period", "1", "--repl-diskless-sync-delay", "0"]
                .map(str::to_owned)
                .to_vec();
        RedisOptions { flags, certificates: None, identity: None, host: "127.0.0.1".to_owned(), wrapper: Vec::new() }
    }

    /// Any other setting of its configuration.
    pub fn flag(mut self, name: &str, values: &[&str]) -> RedisOptions {
        self.flags.push(format!("--{name}"));
        self.flags.extend(values.iter().map(|value| (*value).to_owned()));
        self
    }

    /// Every acknowledged write is on the disk.
    pub fn durable(self) -> RedisOptions {
        self.flag("appendonly", &["yes"]).flag("appendfsync", &["always"])
    }

    /// TLS alone, and clients must show a certificate.
    pub fn tls(mut self, certificates: &Arc<Certificates>) -> RedisOptions {
        self.certificates = Some(Arc::clone(certificates));
        self
    }

    /// TLS alone, with this certificate of the server, and clients need none.
    pub fn tls_as(self, certificates: &Arc<Certificates>, identity: CertificateFiles) -> RedisOptions {
        RedisOptions { identity: Some(identity), ..self.tls(certificates).flag("tls-auth-clients", &["no"]) }
    }

    pub fn seen_at(mut self, host: &str) -> RedisOptions {
        host.clone_into(&mut self.host);
        self
    }

    /// The wrapper that executes it: `env`.
    pub fn wrapped_by(mut self, words: Vec<String>) -> RedisOptions {
        self.wrapper = words;
        self
    }
}

pub struct RedisServer {
    options: RedisOptions,
    pub port: u16,
    process: ServerProcess,
    directory: TempDir,
}

impl StoreServer for RedisServer {
    const NAME: &'static str = "redis";
    const SCHEME: &'static str = "redis";

    fn start() -> RedisServer {
        RedisServer::with(&RedisOptions::new())
    }

    fn seen_at(host: &str) -> RedisServer {
        RedisServer::with(&RedisOptions::new().seen_at(host))
    }

    fn address(&self) -> String {
        format!("{}:{}", self.options.host, self.port)
    }

    fn renewals(&self) -> u64 {
        self.calls("evalsha")
    }

    fn url(&self) -> String {
        let scheme = if self.options.certificates.is_some() { "rediss" } else { "redis" };
        format!("{scheme}://{}", self.address())
    }
}

impl RedisServer {
    #[track_caller]
    pub fn with(options: &RedisOptions) -> RedisServer {
        eventually("a port that stays free", || {
            let redis = RedisServer {
                options: options.clone(),
                port: free_port(),
                process: ServerProcess::new("redis"),
                directory: tempfile::Builder::new().prefix("elect-redis-").tempdir().expect("a temporary directory"),
            };
            redis.spawn();
            redis.comes_up().then_some(redis)
        })
    }

    /// False when another program has taken its port.
    #[track_caller]
    fn comes_up(&self) -> bool {
        eventually("redis answers", || match self.has_ended() {
            Some(_) if self.log().contains("Address already in use") => Some(false),
            Some(status) => panic!("redis has ended, {status}:\n{}", self.log()),
            // Without a password it says so, which is an answer too.
            None => match self.try_cli(&["ping"]) {
                Ok(answer) if answer.contains("PONG") || answer.contains("NOAUTH") => Some(true),
                Ok(_) | Err(_) => None,
            },
        })
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

    pub fn stands_still(&self) -> bool {
        self.process.stands_still()
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
        self.begin_again();
        self.is_up_again();
    }

    /// Starts to load what it has on its disk.
    pub fn begin_again(&self) {
        self.spawn();
    }

    #[track_caller]
    pub fn is_up_again(&self) {
        assert!(self.comes_up(), "somebody else has its port:\n{}", self.log());
    }

    pub fn usage(&self) -> ResourceUsage {
        ResourceUsage::of(self.pid())
    }

    /// How often a command has been called by clients.
    pub fn calls(&self, command: &str) -> u64 {
        let stats = self.command_statistics();
        let prefix = format!("cmdstat_{command}:calls=");
        let count = stats.lines().find_map(|line| line.strip_prefix(&prefix)?.split(',').next()?.parse().ok());
        count.unwrap_or_default()
    }

    /// Asked on a connection of this process where that is possible: a redis-cli for each look, every few milliseconds, in several
    /// tests at once, leaves elect no processor.
    fn command_statistics(&self) -> String {
        if self.options.certificates.is_some() {
            return self.cli(&["info", "commandstats"]);
        }
        bulk_answer(&self.address(), "INFO commandstats").unwrap_or_else(|error| panic!("{}: {error}", self.address()))
    }

    /// All commands processed so far, those that scripts call included.
    pub fn commands(&self) -> u64 {
        self.info("stats", "total_commands_processed").parse().expect("a number")
    }

    /// A copy of its data, as of a backup. To the server it looks like a replica for a moment.
    #[track_caller]
    pub fn dump(&self) {
        let path = self.directory.path().join("copy.rdb");
        self.cli(&["--rdb", &path.display().to_string()]);
    }

    pub fn info(&self, section: &str, field: &str) -> String {
        info_field(&self.cli(&["info", section]), field).to_owned()
    }

    /// For conditions that are waited for: a server that is told to follow another one ends the connections of its clients, so
    /// that a call may fail on the way there.
    pub fn replicates(&self, field: &str, value: &str) -> bool {
        self.try_cli(&["info", "replication"]).is_ok_and(|info| info_field(&info, field) == value)
    }

    pub fn try_cli(&self, words: &[&str]) -> Result<String, String> {
        attempt(self.client(words).iter().map(String::as_str))
    }

    fn client(&self, words: &[&str]) -> Vec<String> {
        let mut all = vec!["redis-cli".to_owned(), "-h".to_owned(), self.options.host.clone()];
        all.extend(["-p".to_owned(), self.port.to_string()]);
        if let Some(certificates) = &self.options.certificates {
            let CertificateFiles { certificate, key } = certificates.client();
            // The tests verify certificates by elect.
            let words = ["--tls", "--insecure", "--cert", &certificate, "--key", &key];
            all.extend(words.map(str::to_owned));
        }
        all.extend(words.iter().map(|word| (*word).to_owned()));
        all
    }

    #[track_caller]
    pub fn cli(&self, words: &[&str]) -> String {
        self.try_cli(words).unwrap_or_else(|fault| panic!("{fault}"))
    }

    /// For what takes long, and shall: nobody waits for the answer.
    pub fn begin(&self, words: &[&str]) {
        let words = self.client(words);
        std::thread::spawn(move || attempt(words.iter().map(String::as_str)));
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    fn spawn(&self) {
        let path = self.directory.path().join("log");
        let log = File::options().create(true).append(true).open(path).expect("an open directory");
        let mut words = self.options.wrapper.clone();
        words.push("redis-server".to_owned());
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .args(self.flags())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("one more descriptor"))
            .stderr(log);
        self.process.set(command.spawn().expect("redis-server is there"));
    }

    fn flags(&self) -> Vec<String> {
        let directory = self.directory.path();
        let text = |path: &Path| path.display().to_string();
        let (plain, encrypted) =
            if self.options.certificates.is_some() { ("0".to_owned(), self.port) } else { (self.port.to_string(), 0) };
        let mut flags: Vec<String> =
            ["--port", &plain, "--bind", &self.options.host, "--dir", &text(directory)].map(str::to_owned).to_vec();
        // Without a password it would else listen to nobody from another address.
        flags.extend(["--protected-mode", "no", "--enable-debug-command", "yes"].map(str::to_owned));
        if let Some(certificates) = &self.options.certificates {
            let CertificateFiles { certificate, key } =
                self.options.identity.clone().unwrap_or_else(|| certificates.server());
            let port = encrypted.to_string();
            let words = ["--tls-port", &port, "--tls-cert-file", &certificate, "--tls-key-file", &key];
            flags.extend(words.map(str::to_owned));
            flags.extend(["--tls-ca-cert-file".to_owned(), certificates.ca()]);
        }
        flags.extend(self.options.flags.iter().cloned());
        flags
    }

    fn has_ended(&self) -> Option<ExitStatus> {
        self.process.has_ended()
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("---- redis on {}:\n{}", self.port, lines[lines.len().saturating_sub(15)..].join("\n"));
        }
        self.process.kill();
    }
}

/// Empty if it is not there.
fn info_field<'a>(info: &'a str, field: &str) -> &'a str {
    let of_field = |line: &'a str| line.strip_prefix(field)?.strip_prefix(':');
    info.lines().find_map(of_field).unwrap_or_default().trim()
}

/// The answer to one command, which is a bulk string of the protocol: its length on the first line.
fn bulk_answer(address: &str, command: &str) -> io::Result<String> {
    let mut connection = TcpStream::connect(address)?;
    connection.write_all(format!("{command}\r\n").as_bytes())?;
    let mut reader = BufReader::new(connection);
    let mut head = String::new();
    reader.read_line(&mut head)?;
    let length = head.strip_prefix('$').and_then(|length| length.trim().parse().ok());
    let Some(length) = length else { return Err(io::Error::other(format!("{command:?} is answered by {head:?}"))) };
    let mut answer = vec![0; length];
    reader.read_exact(&mut answer)?;
    String::from_utf8(answer).map_err(io::Error::other)
}
