//! A PostgreSQL: started on a free port as a user without privileges, killed, stopped, restarted with its data, and gone at the
//! end of the test.

use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::harness::certificates::{CertificateFiles, Certificates};
use crate::harness::host_tools::attempt;
use crate::harness::ports::free_port;
use crate::harness::server::StoreServer;
use crate::harness::server_process::ServerProcess;
use crate::harness::{eventually, processes, until};

/// The user of the databases, who may do everything in them.
const USER: &str = "elect";

/// How a PostgreSQL is started, where it differs from a plain one.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    host: String,
    wrapper: Vec<String>,
    /// Lines of its configuration.
    settings: Vec<String>,
    /// The connection string of the primary that it is a standby of.
    primary: Option<String>,
    /// Lines of `pg_hba.conf`, before the usual ones.
    rules: String,
    certificates: Option<Arc<Certificates>>,
    /// `None`: a free one.
    port: Option<u16>,
}

impl PostgresOptions {
    pub fn new() -> PostgresOptions {
        PostgresOptions {
            host: "127.0.0.1".to_owned(),
            wrapper: Vec::new(),
            settings: Vec::new(),
            primary: None,
            rules: String::new(),
            certificates: None,
            port: None,
        }
    }

    /// The way in for some users, as `pg_hba.conf` has it.
    pub fn rules(mut self, rules: &str) -> PostgresOptions {
        rules.clone_into(&mut self.rules);
        self
    }

    /// It has TLS, shows this certificate, and takes those of clients from the same authority; the name `elect` in one is that of
    /// the user `certified`.
    pub fn tls(mut self, certificates: &Arc<Certificates>) -> PostgresOptions {
        self.certificates = Some(Arc::clone(certificates));
        self.setting("ssl", "on").setting("ssl_ca_file", "ca.crt")
    }

    /// Any other setting of its configuration. Its standbys begin with the same.
    pub fn setting(mut self, name: &str, value: &str) -> PostgresOptions {
        self.settings.push(format!("{name} = '{value}'\n"));
        self
    }

    /// A standby of the primary at this address, which knows it by this name.
    pub fn standby(mut self, primary: &str, name: &str) -> PostgresOptions {
        self.primary = Some(connection_string(primary, name));
        self
    }

    /// The port of another server, at another address.
    pub fn at_port(mut self, port: u16) -> PostgresOptions {
        self.port = Some(port);
        self
    }

    pub fn seen_at(mut self, host: &str) -> PostgresOptions {
        host.clone_into(&mut self.host);
        self
    }

    /// The wrapper that executes it: `env`.
    pub fn wrapped_by(mut self, words: Vec<String>) -> PostgresOptions {
        self.wrapper = words;
        self
    }
}

/// The newest of Debian's, which are not on PATH; otherwise the one that is.
pub fn program(name: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = versions.map(|version| version.path().join("bin").join(name)).collect();
    found.retain(|path| path.is_file());
    found.sort();
    found.pop().unwrap_or_else(|| name.into())
}

/// For a standby of this name. Its primary is at this address.
fn connection_string(primary: &str, name: &str) -> String {
    let (host, port) = primary.rsplit_once(':').expect("host and port");
    format!("host={host} port={port} user={USER} application_name={name}")
}

/// The server refuses to run as root.
pub fn unprivileged() -> Vec<String> {
    let words: &[&str] = if nix::unistd::geteuid().is_root() {
        &["setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups"]
    } else {
        &[]
    };
    words.iter().map(|word| (*word).to_owned()).collect()
}

pub struct PostgresServer {
    options: PostgresOptions,
    pub port: u16,
    process: ServerProcess,
    /// Counts its transactions, once that is asked for.
    counter: Mutex<Option<StatementSession>>,
    directory: TempDir,
}

impl StoreServer for PostgresServer {
    const NAME: &'static str = "postgres";
    const SCHEME: &'static str = "postgres";

    fn start() -> PostgresServer {
        PostgresServer::with(&PostgresOptions::new())
    }

    fn seen_at(host: &str) -> PostgresServer {
        PostgresServer::with(&PostgresOptions::new().seen_at(host))
    }

    fn address(&self) -> String {
        format!("{}:{}", self.options.host, self.port)
    }

    /// Every renewal is a transaction that writes. The statistics of the table are up to a second late, and a psql of its own for
    /// each look would be later than a test may be that strikes between two renewals.
    fn renewals(&self) -> u64 {
        let mut counter = self.counter.lock().expect("no test panics with it");
        for _ in 0..2 {
            let session = counter.get_or_insert_with(|| StatementSession::start(&self.client()));
            let answer = session.ask("SELECT txid_snapshot_xmax(txid_current_snapshot())");
            if let Some(number) = answer.and_then(|line| line.trim().parse().ok()) {
                return number;
            }
            // The server was restarted meanwhile.
            *counter = None;
        }
        panic!("the server on port {} does not say how many transactions it has had", self.port);
    }

    fn url_of(address: &str) -> String {
        format!("postgres://{address}/postgres?user={USER}")
    }
}

impl PostgresServer {
    #[track_caller]
    pub fn with(options: &PostgresOptions) -> PostgresServer {
        eventually("a port that stays free", || {
            let directory = tempfile::Builder::new().prefix("elect-postgres-").tempdir();
            let postgres = PostgresServer {
                options: options.clone(),
                port: options.port.unwrap_or_else(free_port),
                process: ServerProcess::new("postgres"),
                counter: Mutex::new(None),
                directory: directory.expect("a temporary directory"),
            };
            fs::set_permissions(postgres.directory.path(), Permissions::from_mode(0o777)).expect("a directory of ours");
            match &options.primary {
                Some(primary) => postgres.copy_data(primary),
                None => postgres.make_data(),
            }
            postgres.spawn();
            postgres.comes_up().then_some(postgres)
        })
    }

    /// Ends it, and starts it as a standby of the primary at this address, with a copy of that one's data.
    #[track_caller]
    pub fn rejoin(&self, primary: &str, name: &str) {
        self.kill();
        fs::remove_dir_all(self.data()).expect("a directory of the server");
        self.copy_data(&connection_string(primary, name));
        self.spawn();
        assert!(self.comes_up(), "somebody else has its port:\n{}", self.log());
    }

    fn data(&self) -> String {
        self.directory.path().join("data").display().to_string()
    }

    #[track_caller]
    fn make_data(&self) {
        let flags = ["--auth=trust", "--username", USER, "--encoding=UTF8", "--locale=C", "--no-sync"];
        self.fill_data("initdb", &flags);
        // The user of the tests needs no password, and every other one does.
        let rules =
            format!("host all {USER} all trust\nhost replication {USER} all trust\nhost all all all scram-sha-256\n");
        let rules = format!("{}{rules}", self.options.rules);
        fs::write(self.directory.path().join("data/pg_hba.conf"), rules).expect("a file of the server");
        if let Some(certificates) = &self.options.certificates {
            self.copy_certificate(&certificates.server());
            self.copy_own(&certificates.ca(), "ca.crt");
            let names = "names elect certified\n";
            fs::write(self.directory.path().join("data/pg_ident.conf"), names).expect("a file of the server");
        }
        self.options.settings.iter().for_each(|line| self.configure(line));
    }

    fn copy_certificate(&self, files: &CertificateFiles) {
        self.copy_own(&files.certificate, "server.crt");
        self.copy_own(&files.key, "server.key");
    }

    /// New connections see this certificate.
    pub fn show_certificate(&self, files: &CertificateFiles) {
        self.copy_certificate(files);
        self.sql("SELECT pg_reload_conf()");
    }

    /// A file that the server alone may read.
    fn copy_own(&self, from: &str, name: &str) {
        let to = self.directory.path().join("data").join(name);
        fs::copy(from, &to).expect("a file for the server");
        fs::set_permissions(&to, Permissions::from_mode(0o600)).expect("a file of ours");
        self.give(&to);
    }

    /// The server's user owns it.
    fn give(&self, path: &Path) {
        let owner = fs::metadata(self.data()).expect("its data");
        chown(path, Some(owner.uid()), Some(owner.gid())).expect("a file of ours");
    }

    /// A backup, which [`PostgresServer::recover`] goes back to.
    #[track_caller]
    pub fn back_up(&self) {
        let (mut words, address) = (unprivileged(), connection_string(&self.address(), "backup"));
        words.push(program("pg_basebackup").display().to_string());
        let backup = self.directory.path().join("backup").display().to_string();
        words.extend(
            ["-d", &address, "-X", "fetch", "--checkpoint=fast", "--no-sync", "-D", &backup].map(str::to_owned),
        );
        let made = Command::new(&words[0]).args(&words[1..]).current_dir("/").output().expect("it is there");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }

    /// Recovers to the time of the backup, as an administrator does: it begins a new timeline.
    #[track_caller]
    pub fn recover(&self) {
        self.kill();
        fs::remove_dir_all(self.data()).expect("a directory of the server");
        fs::rename(self.directory.path().join("backup"), self.data()).expect("a backup");
        let signal = self.directory.path().join("data/recovery.signal");
        fs::write(&signal, "").expect("a directory of the server");
        self.give(&signal);
        self.configure(
            "restore_command = 'false'\nrecovery_target = 'immediate'\nrecovery_target_action = 'promote'\n",
        );
        self.spawn();
        assert!(self.comes_up(), "somebody else has its port:\n{}", self.log());
        until("the recovery ends", || self.sql("SELECT pg_is_in_recovery()").trim() == "f");
    }

    #[track_caller]
    fn copy_data(&self, primary: &str) {
        self.fill_data("pg_basebackup", &["-d", primary, "--checkpoint=fast", "--no-sync", "--write-recovery-conf"]);
    }

    #[track_caller]
    fn fill_data(&self, tool: &str, flags: &[&str]) {
        let mut words = unprivileged();
        words.push(program(tool).display().to_string());
        words.extend(flags.iter().map(|flag| (*flag).to_owned()));
        words.extend(["-D".to_owned(), self.data()]);
        let made = Command::new(&words[0]).args(&words[1..]).current_dir("/").output().expect("it is there");
        assert!(made.status.success(), "{tool}: {}", String::from_utf8_lossy(&made.stderr));
    }

    /// Adds a line to its configuration; the last one of a setting counts.
    fn configure(&self, line: &str) {
        let path = self.directory.path().join("data/postgresql.auto.conf");
        let file = File::options().append(true).open(path).and_then(|mut file| file.write_all(line.as_bytes()));
        file.expect("a file of the server");
    }

    /// Changes a setting of a server that runs.
    #[track_caller]
    pub fn set(&self, name: &str, value: &str) {
        self.configure(&format!("{name} = '{value}'\n"));
        self.sql("SELECT pg_reload_conf()");
        until("the setting counts", || self.sql(&format!("SHOW {name}")).trim() == value);
    }

    /// False when another program has taken its port.
    #[track_caller]
    fn comes_up(&self) -> bool {
        eventually("postgres answers", || match self.process.has_ended() {
            Some(_) if self.log().contains("Address already in use") => Some(false),
            // The processes of the one that was killed are still ending.
            Some(_) if self.log().lines().rev().take(4).any(|line| line.contains("is still in use")) => {
                self.spawn();
                None
            }
            Some(status) => panic!("postgres has ended, {status}:\n{}", self.log()),
            None => self.try_sql("SELECT 1").is_ok().then_some(true),
        })
    }

    /// SIGKILL; it is gone when this returns, with the processes of its connections.
    #[track_caller]
    pub fn kill(&self) {
        if self.process.is_started() {
            let children = processes::children(self.process.pid());
            self.process.end(Signal::SIGKILL);
            for child in children {
                processes::signal(child, Signal::SIGKILL);
                until("a process of postgres ends", || !processes::is_alive(child));
            }
        }
    }

    /// With the processes of its connections: the first one has nothing to do with requests.
    #[track_caller]
    pub fn stop(&self) {
        self.process.stop();
        for child in processes::children(self.process.pid()) {
            processes::signal(child, Signal::SIGSTOP);
            until("a process of postgres stands still", || {
                processes::state(child) == Some('T') || !processes::is_alive(child)
            });
        }
    }

    pub fn cont(&self) {
        for child in processes::children(self.process.pid()) {
            processes::signal(child, Signal::SIGCONT);
        }
        self.process.cont();
    }

    /// On the same port, with what it has on its disk, after SIGKILL if it still runs.
    #[track_caller]
    pub fn restart(&self) {
        self.kill();
        self.spawn();
        assert!(self.comes_up(), "somebody else has its port:\n{}", self.log());
    }

    /// Runs a statement. Returns the values without decoration.
    #[track_caller]
    pub fn sql(&self, statement: &str) -> String {
        self.try_sql(statement).unwrap_or_else(|fault| panic!("{fault}"))
    }

    pub fn try_sql(&self, statement: &str) -> Result<String, String> {
        let words = self.client();
        attempt(words.iter().map(String::as_str).chain(["-c", statement]))
    }

    /// Runs a statement again and again, on one connection, until what is returned is dropped.
    pub fn repeat(&self, statement: &str) -> RepeatedStatement {
        let words = self.client();
        let child = Command::new(&words[0]).args(&words[1..]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn();
        let mut child = child.expect("psql is there");
        let written = child.stdin.as_mut().map(|input| writeln!(input, "{statement} \\watch 0.02"));
        written.expect("a pipe").expect("psql reads");
        RepeatedStatement { child }
    }

    fn client(&self) -> Vec<String> {
        let (psql, port) = (program("psql").display().to_string(), self.port.to_string());
        let flags = ["-X", "-q", "-A", "-t", "-h", &self.options.host, "-p", &port, "-U", USER, "-d", "postgres"];
        std::iter::once(psql).chain(flags.map(str::to_owned)).collect()
    }

    /// Of all its processes, those that have ended included.
    pub fn cpu(&self) -> Duration {
        const FIRST: usize = 11; // utime, stime, and those of children
        let ticks = |pid: i32, count: usize| -> i32 {
            (FIRST..FIRST + count).filter_map(|field| processes::stat(pid, field)).sum()
        };
        let first = self.process.pid();
        let children: i32 = processes::children(first).into_iter().map(|child| ticks(child, 2)).sum();
        Duration::from_millis(10) * u32::try_from(ticks(first, 4) + children).unwrap_or_default()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    fn spawn(&self) {
        let path = self.directory.path().join("log");
        let log = File::options().create(true).append(true).open(path).expect("an open directory");
        let mut words = unprivileged();
        words.extend(self.options.wrapper.iter().cloned());
        words.push(program("postgres").display().to_string());
        let (port, listen) = (self.port.to_string(), format!("listen_addresses={}", self.options.host));
        let data = self.data();
        let flags =
            ["-D", &data, "-p", &port, "-c", &listen, "-c", "unix_socket_directories=", "-c", "shared_buffers=16MB"];
        words.extend(flags.map(str::to_owned));
        let child = Command::new(&words[0])
            .args(&words[1..])
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("one more descriptor"))
            .stderr(log)
            .spawn();
        self.process.set(child.expect("postgres is there"));
    }
}

/// One connection for statements that return one line each.
struct StatementSession {
    child: Child,
    answers: BufReader<ChildStdout>,
}

impl StatementSession {
    fn start(client: &[String]) -> StatementSession {
        let child = Command::new(&client[0]).args(&client[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.expect("psql is there");
        let answers = BufReader::new(child.stdout.take().expect("a pipe"));
        StatementSession { child, answers }
    }

    /// `None`: the connection has ended.
    fn ask(&mut self, statement: &str) -> Option<String> {
        let mut line = String::new();
        writeln!(self.child.stdin.as_mut()?, "{statement};").ok()?;
        self.answers.read_line(&mut line).ok().filter(|&length| length > 0)?;
        Some(line)
    }
}

impl Drop for StatementSession {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A statement that is run again and again.
pub struct RepeatedStatement {
    child: Child,
}

impl Drop for RepeatedStatement {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("---- postgres on {}:\n{}", self.port, lines[lines.len().saturating_sub(15)..].join("\n"));
        }
        // Its processes end when the first one is gone.
        self.process.kill();
    }
}
