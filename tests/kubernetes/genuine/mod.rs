//! The generic API server of Kubernetes with an etcd of its own, as `fetch.sh` builds it for `--long`: the server that the double is
//! compared with.
//!
//! Both processes are killed, stopped and started again, together or one of them; what etcd has on its disk is kept, and can be
//! set back to what it was.

#![allow(dead_code, reason = "the tests beside the code and those of the program use different parts of it")]

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use super::free_port;
use elect_keeper::clock;

/// Longer than a start takes on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(60);
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces";

/// Below the target folder: `bin/leaseserver`, and what `fetch.sh` has put beside it.
pub fn folder() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    target.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target")).join("kubernetes")
}

fn program(name: &str) -> PathBuf {
    let path = folder().join("bin").join(name);
    assert!(path.exists(), "{}: tests/run --long makes it", path.display());
    path
}

/// One of the two.
#[derive(Default)]
struct Process(Mutex<Option<Child>>);

impl Process {
    fn start(&self, mut words: Vec<String>, log: &Path) {
        words.splice(..0, ["--pdeathsig", "KILL"].map(str::to_owned));
        let log = File::options().create(true).append(true).open(log).expect("a log");
        let mut command = Command::new("setpriv");
        command.args(words).stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
        let child = command.spawn().expect("setpriv is there");
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
    }

    fn kill(&self) {
        let child = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut child) = child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn signal(&self, signal: Signal) {
        let child = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let pid = i32::try_from(child.as_ref().expect("it runs").id()).expect("process ids are small");
        kill(Pid::from_raw(pid), signal).expect("a child of ours");
    }
}

pub struct GenuineServer {
    host: String,
    port: u16,
    etcd_ports: [u16; 2],
    token: String,
    api: Process,
    etcd: Process,
    directory: TempDir,
}

impl GenuineServer {
    pub fn start() -> GenuineServer {
        GenuineServer::at("127.0.0.1", "")
    }

    /// For clients at another address. `token`: every request needs it, unless it is empty.
    pub fn at(host: &str, token: &str) -> GenuineServer {
        let server = GenuineServer {
            host: host.to_owned(),
            port: free_port(),
            etcd_ports: [free_port(), free_port()],
            token: token.to_owned(),
            api: Process::default(),
            etcd: Process::default(),
            directory: tempfile::tempdir().expect("a folder"),
        };
        server.start_etcd();
        server.start_api();
        server
    }

    pub fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    pub fn start_etcd(&self) {
        let [client, peer] = self.etcd_ports.map(|port| format!("http://127.0.0.1:{port}"));
        let mut words = vec![program("etcd").display().to_string()];
        for (name, value) in [
            ("data-dir", self.data().display().to_string()),
            ("listen-client-urls", client.clone()),
            ("advertise-client-urls", client.clone()),
            ("listen-peer-urls", peer.clone()),
            ("initial-advertise-peer-urls", peer.clone()),
            ("initial-cluster", format!("default={peer}")),
            ("log-level", "error".to_owned()),
        ] {
            words.extend([format!("--{name}"), value]);
        }
        self.etcd.start(words, &self.directory.path().join("etcd.log"));
        let address = format!("127.0.0.1:{}", self.etcd_ports[0]);
        self.answers("etcd", || request(&address, "GET", "/health", "", "", "").is_ok_and(|answer| answer.code == 200));
    }

    pub fn start_api(&self) {
        let mut words = vec![program("leaseserver").display().to_string()];
        let etcd = format!("http://127.0.0.1:{}", self.etcd_ports[0]);
        for (name, value) in [("listen", self.address()), ("etcd", etcd), ("token", self.token.clone())] {
            words.extend([format!("--{name}"), value]);
        }
        self.api.start(words, &self.directory.path().join("api.log"));
        self.answers("the API server", || self.ask("GET", &format!("{LEASES}/default/leases"), "").code == 200);
    }

    fn answers(&self, name: &str, mut answers: impl FnMut() -> bool) {
        let limit = clock::now() + START_LIMIT;
        while !answers() {
            assert!(clock::now() < limit, "{name} does not come up: {}", self.logs());
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn logs(&self) -> String {
        let read = |name: &str| std::fs::read_to_string(self.directory.path().join(name)).unwrap_or_default();
        format!("{}{}", read("etcd.log"), read("api.log"))
    }

    /// The API server alone.
    pub fn kill(&self) {
        self.api.kill();
    }

    pub fn restart(&self) {
        self.api.kill();
        self.start_api();
    }

    pub fn stop(&self) {
        self.api.signal(Signal::SIGSTOP);
    }

    pub fn cont(&self) {
        self.api.signal(Signal::SIGCONT);
    }

    pub fn kill_etcd(&self) {
        self.etcd.kill();
    }

    pub fn stop_etcd(&self) {
        self.etcd.signal(Signal::SIGSTOP);
    }

    pub fn cont_etcd(&self) {
        self.etcd.signal(Signal::SIGCONT);
    }

    /// A copy of etcd's data. It is down for a moment.
    pub fn backup(&self) -> TempDir {
        self.kill_etcd();
        let backup = tempfile::tempdir().expect("a folder");
        copy(&self.data(), backup.path());
        self.start_etcd();
        backup
    }

    /// As an administrator does it: the API server is down meanwhile.
    pub fn restore(&self, backup: &TempDir) {
        self.kill();
        self.kill_etcd();
        std::fs::remove_dir_all(self.data()).expect("removed");
        copy(backup.path(), &self.data());
        self.start_etcd();
        self.start_api();
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> HttpAnswer {
        request(&self.address(), method, path, "application/json", &self.token, body).unwrap_or_default()
    }

    fn lease_path(namespace: &str, name: &str) -> String {
        format!("{LEASES}/{namespace}/leases/{name}")
    }

    pub fn lease(&self, namespace: &str, name: &str) -> Option<Value> {
        let answer = self.ask("GET", &GenuineServer::lease_path(namespace, name), "");
        (answer.code == 200).then(|| serde_json::from_str(&answer.body).expect("JSON"))
    }

    pub fn edit_lease(&self, namespace: &str, name: &str, change: impl Fn(&mut Value)) {
        self.answers("an edit", || {
            let mut lease = self.lease(namespace, name).expect("it is there");
            change(&mut lease);
            self.ask("PUT", &GenuineServer::lease_path(namespace, name), &lease.to_string()).code == 200
        });
    }

    pub fn delete_lease(&self, namespace: &str, name: &str) {
        self.ask("DELETE", &GenuineServer::lease_path(namespace, name), "");
    }

    /// etcd's: rises with each write.
    pub fn revision(&self) -> u64 {
        let answer = self.ask("GET", &format!("{LEASES}/none/leases"), "");
        let list: Value = serde_json::from_str(&answer.body).unwrap_or_default();
        list["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok()).unwrap_or_default()
    }
}

impl Drop for GenuineServer {
    fn drop(&mut self) {
        self.api.kill();
        self.etcd.kill();
    }
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status();
    assert!(copied.is_ok_and(|status| status.success()), "{} is not copied", from.display());
}

/// An answer, read to its end.
#[derive(Debug, Default)]
pub struct HttpAnswer {
    pub code: u16,
    pub body: String,
}

/// One request on a connection of its own.
pub fn request(
    address: &str,
    method: &str,
    path: &str,
    content_type: &str,
    token: &str,
    body: &str,
) -> io::Result<HttpAnswer> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(START_LIMIT))?;
    let kind = if content_type.is_empty() { String::new() } else { format!("Content-Type: {content_type}\r\n") };
    let proof = if token.is_empty() { String::new() } else { format!("Authorization: Bearer {token}\r\n") };
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nAccept: application/json\r\nConnection: close\r\n{kind}{proof}Content-Length: {length}\r\n\r\n"
    );
    stream.write_all(format!("{head}{body}").as_bytes())?;
    let mut all = Vec::new();
    read_answer(&mut stream, &mut all)?;
    let text = String::from_utf8_lossy(&all).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| io::Error::other("no head"))?;
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let is_chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let body = if is_chunked { joined(body) } else { body.to_owned() };
    Ok(HttpAnswer { code: code.ok_or_else(|| io::Error::other("no code"))?, body })
}

/// To the end of the connection, or of the body if its length was said.
fn read_answer(stream: &mut TcpStream, all: &mut Vec<u8>) -> io::Result<()> {
    let mut part = [0; 8_192];
    loop {
        let read = stream.read(&mut part)?;
        all.extend_from_slice(&part[..read]);
        let text = String::from_utf8_lossy(all).to_ascii_lowercase();
        let is_whole = text.split_once("\r\n\r\n").is_some_and(|(head, body)| {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
            let length = length.and_then(|length| length.trim().parse::<usize>().ok());
            length.is_some_and(|length| body.len() >= length) || body.ends_with("\r\n0\r\n\r\n") || body == "0\r\n\r\n"
        });
        if read == 0 || is_whole {
            return Ok(());
        }
    }
}

/// The chunks of a body.
fn joined(mut body: &str) -> String {
    let mut all = String::new();
    while let Some((length, rest)) = body.split_once("\r\n") {
        let length = usize::from_str_radix(length.trim(), 16).unwrap_or_default();
        if length == 0 {
            break;
        }
        all.push_str(rest.get(..length).unwrap_or(rest));
        body = rest.get(length + 2..).unwrap_or_default();
    }
    all
}
