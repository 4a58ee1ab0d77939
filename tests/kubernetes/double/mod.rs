//! An API server of Kubernetes, as far as a client of Leases and pods can tell: the answers of the generic API server library to
//! reads, writes, lists and watches, and the faults of a real one on demand.
//!
//! It runs in the process of the test. It can be stopped and killed like a server of its own: then its connections stand still, or
//! end, and what it has stored stays.
//!
//! - `http`: requests and answers on a connection;
//! - `objects`: what is stored, and the rules of writes;
//! - `resources`: paths, verbs, rights, lists and discovery;
//! - `watches`: the events of watches.

#![allow(dead_code, reason = "the tests beside the code and those of the program use different parts of it")]

mod http;
mod objects;
mod resources;
mod watches;

use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use rustls::ServerConfig;
use serde_json::Value;

pub use objects::{Kind, Objects};

/// Of a pod that runs elect.
pub const USER: &str = "system:serviceaccount:default:elect";

/// A fault of the requests of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// 429, with so many seconds in Retry-After.
    TooMany(u64),
    /// This status, and nothing is done.
    Status(u16),
    /// No answer, and nothing is done; the connection stays.
    Stall,
    /// It is done, and the connection ends before the answer.
    ResetAfterCommit,
    /// It is done, and the answer does not come; the connection stays.
    StallAfterCommit,
}

/// Which requests meet a fault, and how many of them.
#[derive(Debug, Clone)]
struct FaultPlan {
    verb: &'static str,
    left: u64,
    fault: Fault,
}

/// How it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Serves,
    /// As after SIGSTOP.
    StandsStill,
    /// Nobody listens.
    Dead,
}

/// The state that the connections share.
struct State {
    mode: Mode,
    /// Of the present listener: another one after each restart.
    run: u64,
    objects: Objects,
    /// Each with its user. Empty: no proof is asked for.
    tokens: Vec<(String, String)>,
    /// Verb and resource that no user has.
    denied: Vec<(String, String)>,
    /// `None`: every namespace is there.
    namespaces: Option<Vec<String>>,
    faults: Vec<FaultPlan>,
    connections: Vec<TcpStream>,
    /// Added to the clock in its answers, in seconds.
    clock_offset: i64,
    tls: Option<Arc<ServerConfig>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    requests: AtomicU64,
    writes: AtomicU64,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits as long as it stands still. False: this run of it is over.
    fn serves(&self, run: u64) -> bool {
        let state = self.lock();
        let state = self
            .changed
            .wait_while(state, |state| state.mode == Mode::StandsStill && state.run == run)
            .unwrap_or_else(PoisonError::into_inner);
        state.mode == Mode::Serves && state.run == run
    }
}

/// The server; gone with the handle.
pub struct ApiServer {
    shared: Arc<Shared>,
    host: String,
    port: u16,
}

impl ApiServer {
    pub fn start() -> ApiServer {
        ApiServer::at("127.0.0.1", None)
    }

    /// For clients at another address, perhaps with TLS.
    pub fn at(host: &str, tls: Option<Arc<ServerConfig>>) -> ApiServer {
        let door = TcpListener::bind((host, 0)).expect("a free port");
        let port = door.local_addr().expect("a bound socket has an address").port();
        let state = State {
            mode: Mode::Serves,
            run: 0,
            objects: Objects::new(),
            tokens: Vec::new(),
            denied: Vec::new(),
            namespaces: None,
            faults: Vec::new(),
            connections: Vec::new(),
            clock_offset: 0,
            tls,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            changed: Condvar::new(),
            requests: AtomicU64::new(0),
            writes: AtomicU64::new(0),
        });
        let server = ApiServer { shared, host: host.to_owned(), port };
        server.listen(door);
        server
    }

    fn listen(&self, door: TcpListener) {
        let shared = Arc::clone(&self.shared);
        let run = shared.lock().run;
        thread::spawn(move || {
            while let Ok((stream, _)) = door.accept() {
                let mut state = shared.lock();
                if state.run != run || state.mode == Mode::Dead {
                    return;
                }
                if let Ok(copy) = stream.try_clone() {
                    state.connections.push(copy);
                }
                drop(state);
                let shared = Arc::clone(&shared);
                thread::spawn(move || http::serve(stream, &shared, run));
            }
        });
    }

    pub fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Nobody listens any more, and every connection ends.
    pub fn kill(&self) {
        let mut state = self.shared.lock();
        if state.mode == Mode::Dead {
            return;
        }
        state.mode = Mode::Dead;
        state.run += 1;
        for connection in state.connections.drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
        drop(state);
        self.shared.changed.notify_all();
        // The listener ends with the next connection.
        let _ = TcpStream::connect((self.host.as_str(), self.port));
    }

    /// It answers nothing until [`ApiServer::cont`]; its connections stay.
    pub fn stop(&self) {
        let mut state = self.shared.lock();
        if state.mode == Mode::Serves {
            state.mode = Mode::StandsStill;
        }
    }

    pub fn cont(&self) {
        let mut state = self.shared.lock();
        if state.mode == Mode::StandsStill {
            state.mode = Mode::Serves;
        }
        drop(state);
        self.shared.changed.notify_all();
    }

    /// On the same port, with what it has stored; also one that is up.
    pub fn restart(&self) {
        self.kill();
        let door = loop {
            // The old listener may not have ended yet.
            match TcpListener::bind((self.host.as_str(), self.port)) {
                Ok(door) => break door,
                Err(_) => thread::yield_now(),
            }
        };
        self.shared.lock().mode = Mode::Serves;
        self.listen(door);
    }

    /// Edits the stored objects, as the server itself may.
    pub fn with_objects<T>(&self, edit: impl FnOnce(&mut Objects) -> T) -> T {
        let result = edit(&mut self.shared.lock().objects);
        self.shared.changed.notify_all();
        result
    }

    pub fn lease(&self, namespace: &str, name: &str) -> Option<Value> {
        self.with_objects(|objects| objects.get(Kind::Lease, namespace, name).cloned())
    }

    /// Changes a Lease as another program would, in a new version.
    pub fn edit_lease(&self, namespace: &str, name: &str, change: impl FnOnce(&mut Value)) {
        self.with_objects(|objects| objects.edit(Kind::Lease, namespace, name, change));
    }

    pub fn delete_lease(&self, namespace: &str, name: &str) {
        self.with_objects(|objects| objects.delete(Kind::Lease, namespace, name));
    }

    pub fn forget_leases(&self) {
        self.with_objects(Objects::delete_leases);
    }

    /// Its state, to which it is set back by [`ApiServer::restore`].
    pub fn backup(&self) -> Objects {
        self.with_objects(|objects| objects.clone())
    }

    /// As after a restore of etcd from a backup: an older state, and watches that tell nothing until it is overtaken.
    pub fn restore(&self, backup: Objects) {
        self.with_objects(|objects| *objects = backup);
    }

    /// From now on requests need one of these tokens; users come with them.
    pub fn accept_tokens(&self, tokens: &[(&str, &str)]) {
        self.shared.lock().tokens =
            tokens.iter().map(|(token, user)| ((*token).to_owned(), (*user).to_owned())).collect();
    }

    /// Nobody has this right.
    pub fn deny(&self, verb: &str, resource: &str) {
        self.shared.lock().denied.push((verb.to_owned(), resource.to_owned()));
    }

    pub fn permit_all(&self) {
        self.shared.lock().denied.clear();
    }

    /// There are these namespaces and no others.
    pub fn set_namespaces(&self, names: &[&str]) {
        self.shared.lock().namespaces = Some(names.iter().map(|name| (*name).to_owned()).collect());
    }

    pub fn set_tls(&self, tls: Arc<ServerConfig>) {
        self.shared.lock().tls = Some(tls);
    }

    pub fn set_clock_offset(&self, seconds: i64) {
        self.shared.lock().clock_offset = seconds;
    }

    /// The next requests with this verb (`get`, `list`, `watch`, `create`, `update`, `patch`; empty: any) meet it.
    pub fn fault(&self, verb: &'static str, count: u64, fault: Fault) {
        self.shared.lock().faults.push(FaultPlan { verb, left: count, fault });
    }

    pub fn heal(&self) {
        self.shared.lock().faults.clear();
        self.shared.changed.notify_all();
    }

    /// How many requests have met a fault that was planned for them.
    pub fn faults_left(&self) -> u64 {
        self.shared.lock().faults.iter().map(|plan| plan.left).sum()
    }

    /// How many requests it has heard.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// How many updates of objects it has executed.
    pub fn writes(&self) -> u64 {
        self.shared.writes.load(Ordering::Relaxed)
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.kill();
    }
}
