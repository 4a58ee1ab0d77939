//! Every kind of store that can be observed, so that one test holds for all of them.
//!
//! Adding a store: a [`StoreEntry`] in its own folder, which [`STORES`](crate::STORES) lists.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use super::executables;
use super::host_tools::attempt;
use super::server::{PASSWORD, StoreServer, TOKEN};
use super::{CandidateProcess, ElectCmd, Sandbox, Witness};
use crate::STORES;

/// Of candidates that must not lose their lease, however busy the machine is.
const LONG_TTL: &str = "12s";

/// A store of some kind, and a place to campaign in it.
pub struct StoreFixture {
    pub sandbox: Sandbox,
    store: Box<dyn FixtureStore>,
}

/// One kind of store, as tests for all kinds use it.
pub struct StoreEntry {
    /// As `status` calls it. Its URLs begin with it.
    pub name: &'static str,
    /// The URL of a part of a store that many share: of this store, and with this name.
    pub part: fn(&str, &str) -> String,
    /// Each starts a store of this kind, alone and empty.
    pub fixtures: &'static [StartStore],
    /// Whether it has a server, and so a network and a lease.
    pub has_server: bool,
    /// The version of the program behind it, as it says itself.
    pub version: fn() -> Result<String, String>,
    /// The same with a server that is started by these words, which give it a wall clock of its own
    /// ([`WallClock`](super::wallclock::WallClock)). `None` where the program does not ask libc for the time.
    pub start_with_clock: Option<StartWithWords>,
    /// Several servers, of which another serves when one has failed.
    pub start_failover: Option<StartFailover>,
}

pub type StartWithWords = fn(Vec<String>) -> Box<dyn FixtureStore>;
pub type StartFailover = fn() -> Box<dyn FailoverServers>;
pub type StartStore = fn() -> Box<dyn FixtureStore>;

/// The file store, which every build has.
const FILE: StoreEntry = StoreEntry {
    name: "file",
    part: |url, name| format!("{url}/{name}"),
    fixtures: &[|| Box::new(FileStore)],
    has_server: false,
    version: || attempt(["uname", "-sr"]).map(|said| said.trim().to_owned()),
    start_with_clock: None,
    start_failover: None,
};

/// Every kind of store in this build.
pub fn entries() -> impl Iterator<Item = &'static StoreEntry> {
    std::iter::once(&FILE).chain(STORES.iter().copied())
}

/// Each kind of store in each of its forms, started.
pub fn start_all() -> Vec<Box<dyn FixtureStore>> {
    entries().flat_map(|entry| entry.fixtures).map(|start| start()).collect()
}

/// A part of a store that many share, of which no other test has the name.
pub fn part(url: &str, name: &str) -> String {
    let entry = entries().find(|entry| url.starts_with(entry.name));
    (entry.unwrap_or_else(|| panic!("{url} is of no kind of store that main.rs lists")).part)(url, name)
}

/// A directory or a server in which elections are held.
pub trait FixtureStore: Send + Sync {
    /// As `status` calls it.
    fn name(&self) -> &'static str;
    fn url(&self, sandbox: &Sandbox) -> String;
    /// Whether there is a server that can be down.
    fn has_server(&self) -> bool;
    /// The ttl of the tests.
    fn lease(&self) -> Duration {
        Duration::from_secs(3)
    }
    /// Whether the server knows users by names.
    fn has_user_names(&self) -> bool {
        true
    }
    /// Host and port of the server, for a proxy. Only where there is a server.
    fn address(&self) -> String;
    /// The URL of the same store through something else, with keys that are this place's alone.
    fn url_through(&self, address: &str, sandbox: &Sandbox) -> String;
    /// Whether observers hear of changes, or have to ask now and then.
    fn notifies_changes(&self) -> bool;
    fn kill(&self);
    /// It stands still (SIGSTOP), and its connections stay.
    fn stop(&self);
    fn cont(&self);
    /// Also a server that is up: it is restarted then.
    fn restart(&self);
    /// From now on a user `stranger` with the [`PASSWORD`] exists, who may do nothing.
    fn enable_auth(&self);
    /// All records are gone, as if there had never been one.
    fn forget(&self, sandbox: &Sandbox);
}

struct FileStore;

impl FixtureStore for FileStore {
    fn name(&self) -> &'static str {
        "file"
    }

    fn url(&self, sandbox: &Sandbox) -> String {
        sandbox.store()
    }

    fn has_server(&self) -> bool {
        false
    }

    fn notifies_changes(&self) -> bool {
        true
    }

    fn address(&self) -> String {
        panic!("the file store has no server")
    }

    fn url_through(&self, _: &str, _: &Sandbox) -> String {
        panic!("the file store has no server")
    }

    fn kill(&self) {}

    fn stop(&self) {}

    fn cont(&self) {}

    fn restart(&self) {}

    fn enable_auth(&self) {}

    fn forget(&self, sandbox: &Sandbox) {
        fs::remove_dir_all(sandbox.locks()).expect("it was led there");
    }
}

/// A server of the harness, and the functions by which the fixture steers it.
pub struct ServerStore<S> {
    pub server: S,
    pub notifies_changes: bool,
    pub kill: fn(&S),
    pub stop: fn(&S),
    pub cont: fn(&S),
    pub restart: fn(&S),
    pub enable_auth: fn(&S),
    pub forget: fn(&S),
}

impl<S: StoreServer + Send> FixtureStore for ServerStore<S> {
    fn name(&self) -> &'static str {
        S::SCHEME
    }

    fn url(&self, _: &Sandbox) -> String {
        self.server.url()
    }

    fn has_server(&self) -> bool {
        true
    }

    fn lease(&self) -> Duration {
        S::LEASE
    }

    fn has_user_names(&self) -> bool {
        S::HAS_USER_NAMES
    }

    fn notifies_changes(&self) -> bool {
        self.notifies_changes
    }

    fn address(&self) -> String {
        self.server.address()
    }

    fn url_through(&self, address: &str, sandbox: &Sandbox) -> String {
        sandbox.below(&S::url_of(address))
    }

    fn kill(&self) {
        (self.kill)(&self.server);
    }

    fn stop(&self) {
        (self.stop)(&self.server);
    }

    fn cont(&self) {
        (self.cont)(&self.server);
    }

    fn restart(&self) {
        (self.restart)(&self.server);
    }

    fn enable_auth(&self) {
        (self.enable_auth)(&self.server);
    }

    fn forget(&self, _: &Sandbox) {
        (self.forget)(&self.server);
    }
}

/// Several servers that hold one store, and of which another serves when one has failed.
///
/// Servers are numbered from 0.
pub trait FailoverServers: Send + Sync {
    /// For `--store`: candidates find the server that serves by it.
    fn url(&self) -> String;
    /// The one that serves.
    fn serving(&self) -> usize;
    /// Returns once another than this serves, which may have ended or stand still.
    fn another_serves(&self, old: usize);
    fn kill_server(&self, index: usize);
    /// On the same port, with what it has on its disk.
    fn start_server(&self, index: usize);
    /// It stands still (SIGSTOP), and its connections stay.
    fn stop_server(&self, index: usize);
    fn cont_server(&self, index: usize);
    /// Returns once all of them are there, and each can take over.
    fn are_whole(&self);
}

/// The test on each of them, at once.
pub fn for_each_store(test: impl Fn(StoreFixture) + Sync) {
    let test = &test;
    std::thread::scope(|scope| {
        let run = |&start: &StartStore| {
            scope.spawn(move || test(StoreFixture { sandbox: Sandbox::new().open_to_all(), store: start() }))
        };
        let all: Vec<_> = entries().flat_map(|entry| entry.fixtures).map(run).collect();
        for one in all {
            one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    });
}

impl StoreFixture {
    /// As `status` calls it.
    pub fn name(&self) -> &'static str {
        self.store.name()
    }

    pub fn url(&self) -> String {
        self.store.url(&self.sandbox)
    }

    /// A candidate for `cron`.
    pub fn candidate(&self, name: &str) -> ElectCmd {
        let ttl = format!("{}ms", self.store.lease().as_millis());
        ElectCmd::new(&self.sandbox).store(self.url()).flag("--ttl", &ttl).flag("--name", name)
    }

    /// A candidate for `cron` that keeps its lease on a busy machine, too: for tests that do not wait for its lease to run out.
    pub fn patient(&self, name: &str) -> ElectCmd {
        ElectCmd::new(&self.sandbox).store(self.url()).flag("--ttl", LONG_TTL).flag("--name", name)
    }

    /// One that leads until it is stopped.
    pub fn leader(&self, name: &str) -> CandidateProcess {
        self.leads(self.patient(name))
    }

    /// The same, of any candidate.
    pub fn leads(&self, candidate: ElectCmd) -> CandidateProcess {
        let before = self.sandbox.history().starts.len();
        let leader = candidate.flag("--advertise", "10.0.0.5:8080").witness(&Witness::new()).start();
        self.sandbox.starts(before + 1);
        leader
    }

    /// One that leads for a moment. Returns its term.
    #[track_caller]
    pub fn lead_once(&self, name: &str) -> u64 {
        let ended = self.candidate(name).switch("-q").shell("echo $ELECT_TERM").run();
        ended.stdout.trim().parse().unwrap_or_else(|_| panic!("it has led: {ended:?}"))
    }

    pub fn query(&self, subcommand: &'static str, words: &[&str]) -> ElectCmd {
        ElectCmd::new(&self.sandbox).store(self.url()).query(subcommand, words)
    }

    /// Whether there is a server that can be down.
    pub fn has_server(&self) -> bool {
        self.store.has_server()
    }

    /// Whether observers hear of changes, or have to ask now and then.
    pub fn notifies_changes(&self) -> bool {
        self.store.notifies_changes()
    }

    pub fn stop_server(&self) {
        self.store.kill();
    }

    /// Also a server that is up: it is restarted then.
    pub fn restart_server(&self) {
        self.store.restart();
    }

    /// From now on there are users, and the queries are those of one who may do nothing.
    pub fn revoke_access(&self) -> impl Fn(ElectCmd) -> ElectCmd {
        let binary = self.sandbox.path().join("elect");
        let (has_server, has_user_names) = (self.has_server(), self.store.has_user_names());
        if !has_server {
            assert!(nix::unistd::geteuid().is_root(), "this test becomes another user: run it as root");
            executables::copy(super::candidate::elect(), &binary);
            fs::create_dir_all(self.sandbox.locks()).expect("an open place");
            fs::set_permissions(self.sandbox.locks(), Permissions::from_mode(0o700)).expect("a directory of ours");
        }
        self.store.enable_auth();
        move |elect| {
            if !has_server {
                return elect.binary(&binary).wrapped_by(STRANGER);
            }
            as_user(elect, has_user_names, "stranger", PASSWORD)
        }
    }
}

/// Logs in as this user, by the token alone where the server knows users by that.
pub fn as_user(elect: ElectCmd, has_user_names: bool, name: &str, password: &str) -> ElectCmd {
    if has_user_names {
        return elect.flag("--username", name).variable("ELECT_PASSWORD", password);
    }
    elect.variable("ELECT_PASSWORD", if password == PASSWORD { TOKEN } else { password })
}

/// Becomes a user without any permission.
pub const STRANGER: [&str; 6] = ["setpriv", "--reuid", "47201", "--regid", "47201", "--clear-groups"];
