//! The conformance suite on a real server, and what is particular to this one.

mod conformance;
mod crowd;
mod hosts;
mod records;

use std::cell::Cell;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use tokio::task::LocalSet;
use tokio_postgres::{Client, NoTls};

use crate::store::conformance::{StoreUnderTest, conforms};
use crate::store::url::StoreUrl;
use crate::store::worker::{Events, channel};
use crate::store::{Access, CampaignResult, Candidacy, Identity, RenewResult, Store, StoreError};
use elect_core::Term;
use elect_keeper::clock;

/// Longer than anything takes; only a test that fails waits so long.
const LIMIT: Duration = Duration::from_secs(60);

/// A server of its own; gone with the handle.
struct PostgresProcess {
    child: Child,
    host: String,
    port: u16,
    settings: Vec<String>,
    directory: tempfile::TempDir,
}

/// The server's programs: Debian keeps them out of PATH, one directory for each version.
fn program(name: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = versions.map(|version| version.path().join("bin").join(name)).collect();
    found.retain(|path| path.is_file());
    found.sort();
    found.pop().expect("PostgreSQL is installed: tests/run sees to that")
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port()
}

/// For the user of the server.
fn open_directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let everybody = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(directory.path(), everybody).expect("a directory of ours");
    directory
}

/// The server does not run as root.
fn unprivileged(name: &str) -> Command {
    if !nix::unistd::geteuid().is_root() {
        return Command::new(program(name));
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "postgres", "--regid", "postgres", "--clear-groups"]).arg(program(name));
    command
}

impl PostgresProcess {
    /// With these settings beside the usual ones.
    fn with(settings: &[&str]) -> PostgresProcess {
        let directory = open_directory();
        let made = unprivileged("initdb")
            .args(["--auth=trust", "--username=elect", "--encoding=UTF8", "--locale=C", "--no-sync", "-D"])
            .arg(directory.path().join("data"))
            .current_dir("/")
            .output()
            .expect("initdb");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        PostgresProcess::start(directory, "127.0.0.1", free_port(), settings)
    }

    /// A standby of this server, at this address; asynchronous unless the server says otherwise.
    fn standby(&self, host: &str, port: u16) -> PostgresProcess {
        PostgresProcess::start(self.copy(), host, port, &[])
    }

    /// A primary that was made of a copy of this one, as of a snapshot.
    fn twin(&self) -> PostgresProcess {
        let directory = self.copy();
        std::fs::remove_file(directory.path().join("data/standby.signal")).expect("a copy is a standby");
        PostgresProcess::start(directory, "127.0.0.1", free_port(), &[])
    }

    fn copy(&self) -> tempfile::TempDir {
        let directory = open_directory();
        let made = unprivileged("pg_basebackup")
            .args(["--no-sync", "--checkpoint=fast", "-R", "-U", "elect", "-h", "127.0.0.1", "-p"])
            .arg(self.port.to_string())
            .arg("-D")
            .arg(directory.path().join("data"))
            .current_dir("/")
            .output()
            .expect("pg_basebackup");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        directory
    }

    fn start(directory: tempfile::TempDir, host: &str, port: u16, settings: &[&str]) -> PostgresProcess {
        let settings: Vec<String> = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let child = PostgresProcess::spawn(&directory, host, port, &settings);
        let server = PostgresProcess { child, host: host.to_owned(), port, settings, directory };
        server.come_up();
        server
    }

    /// As after a crash.
    fn restart(&mut self) {
        self.end();
        self.child = PostgresProcess::spawn(&self.directory, &self.host, self.port, &self.settings);
        self.come_up();
    }

    fn spawn(directory: &tempfile::TempDir, host: &str, port: u16, settings: &[String]) -> Child {
        unprivileged("postgres")
            .arg("-D")
            .arg(directory.path().join("data"))
            .args(["-p", &port.to_string(), "-c", "unix_socket_directories="])
            .args(["-c", &format!("listen_addresses={host}")])
            .args(settings.iter().flat_map(|setting| ["-c", setting.as_str()]))
            .current_dir("/")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("postgres")
    }

    fn come_up(&self) {
        LocalSet::new().block_on(&runtime(), async { while self.try_client().await.is_none() {} });
    }

    fn url(&self) -> String {
        format!("postgres://127.0.0.1:{}/postgres?user=elect", self.port)
    }

    async fn try_client(&self) -> Option<Client> {
        let config = format!("host={} port={} user=elect dbname=postgres", self.host, self.port);
        let Ok((client, connection)) = tokio_postgres::connect(&config, NoTls).await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            return None;
        };
        tokio::task::spawn_local(connection);
        Some(client)
    }

    async fn run(&self, statements: &str) {
        self.try_client().await.expect("it is up").batch_execute(statements).await.expect(statements);
    }
}

impl Drop for PostgresProcess {
    fn drop(&mut self) {
        self.end();
    }
}

impl PostgresProcess {
    fn end(&mut self) {
        // At once, with all its processes: they end when the first one has.
        let _ = nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).expect("a pid")),
            nix::sys::signal::Signal::SIGQUIT,
        );
        let _ = self.child.wait();
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn access() -> Access {
    Access { request_timeout: Duration::from_secs(5), renew_interval: Duration::from_millis(200), ..Access::default() }
}

#[test]
fn it_conforms() {
    let server = PostgresProcess::with(&["max_connections=300"]);
    let (url, ttl) = (server.url(), Duration::from_secs(6));
    conforms(&StoreUnderTest { url, access: access(), ttl, support: &conformance::PostgresSupport });
}

/// A candidate's end of the store, without anything around it.
struct PostgresCandidate {
    store: Box<dyn Store>,
    candidacy: Candidacy,
    events: Events,
}

impl PostgresCandidate {
    fn at(url: &str, name: &str, request_timeout: Duration) -> PostgresCandidate {
        let (hints, events) = channel();
        let access = Access { request_timeout, ..access() };
        let store = StoreUrl::parse(url).expect("a URL").open(&access, hints).expect("opened");
        let id = uuid::Uuid::new_v4().to_string();
        let identity = Identity { id, name: name.to_owned(), host: "h".to_owned(), port: None };
        let boundary = "cron".parse().expect("a boundary");
        let candidacy = Candidacy { boundary, identity, ttl: Duration::from_secs(1) };
        PostgresCandidate { store, candidacy, events }
    }

    async fn campaign(&mut self) -> Result<CampaignResult, StoreError> {
        self.store.claim(&self.candidacy)?;
        self.store.campaign(&self.candidacy).await
    }

    async fn renew(&mut self) -> Result<RenewResult, StoreError> {
        self.store.renew(&self.candidacy).await
    }

    async fn win(&mut self) -> Term {
        let limit = clock::now() + LIMIT;
        loop {
            if let Ok(CampaignResult::Won { term }) = self.campaign().await {
                return term;
            }
            assert!(clock::now() < limit, "it does not win");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn with_server(settings: &[&str], test: impl AsyncFnOnce(&PostgresProcess)) {
    let server = PostgresProcess::with(settings);
    LocalSet::new().block_on(&runtime(), test(&server));
}

const SHORT: Duration = Duration::from_secs(5);
const LONG: Duration = Duration::from_secs(60);

/// The pids of backends that wait for a standby, one at least.
async fn wait_for_sync_wait(server: &PostgresProcess) -> Client {
    let client = server.try_client().await.expect("it is up");
    for _ in 0..6000 {
        let question = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        let waiting: i64 = client.query_one(question, &[]).await.expect("an answer").get(0);
        if waiting > 0 {
            return client;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("no commit has waited for the standby within a minute");
}

async fn without_standby(server: &PostgresProcess, names: &str) {
    server.run(&format!("ALTER SYSTEM SET synchronous_standby_names = '{names}'")).await;
    server.run("SELECT pg_reload_conf()").await;
    let client = server.try_client().await.expect("it is up");
    loop {
        let row = client.query_one("SHOW synchronous_standby_names", &[]).await.expect("an answer");
        if row.get::<_, String>(0) == names {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// S5: PostgreSQL answers a cancelled wait for the standby as success. The role would not be told of it, and would not even wait.
#[test]
fn a_renewal_whose_wait_for_the_standby_is_cancelled_is_not_credited() {
    for end in ["pg_cancel_backend", "pg_terminate_backend"] {
        with_server(&[], async |server| {
            server.run("ALTER ROLE elect SET client_min_messages = 'error'").await;
            server.run("ALTER ROLE elect SET synchronous_commit = 'off'").await;
            let mut one = PostgresCandidate::at(&server.url(), "one", LONG);
            one.win().await;
            assert!(matches!(one.renew().await, Ok(RenewResult::Credited { .. })));
            without_standby(server, "ghost").await;
            let cancel = async {
                let client = wait_for_sync_wait(server).await;
                let order = format!("SELECT {end}(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'");
                client.batch_execute(&order).await.expect("cancelled");
            };
            let (renewal, ()) = tokio::join!(one.renew(), cancel);
            assert!(matches!(renewal, Err(StoreError::Unavailable(_))), "{end}: {renewal:?}");
            without_standby(server, "").await;
            assert!(matches!(one.renew().await, Ok(RenewResult::Credited { .. })), "{end}");
        });
    }
}

/// Of a leader that was not heard of any more, or that may have been forgotten. The take is visible, and is recognized by its nonce.
#[test]
fn a_take_whose_wait_for_the_standby_is_cancelled_is_found_by_the_next_look() {
    for state in ["held", "vacant"] {
        take_that_waits_in_vain(state);
    }
}

fn take_that_waits_in_vain(state: &str) {
    with_server(&[], async |server| {
        let mut one = PostgresCandidate::at(&server.url(), "one", LONG);
        let first = one.win().await;
        server.run(&format!("UPDATE elect_boundaries SET state = '{state}' WHERE boundary = 'cron'")).await;
        without_standby(server, "ghost").await;
        let mut two = PostgresCandidate::at(&server.url(), "two", LONG);
        let cancel = async {
            let client = wait_for_sync_wait(server).await;
            let order = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
            client.batch_execute(order).await.expect("cancelled");
        };
        let takes = async {
            loop {
                match two.campaign().await {
                    Ok(CampaignResult::Waiting { .. }) => tokio::time::sleep(Duration::from_millis(50)).await,
                    Ok(won) => panic!("{state}: taken without a confirmation: {won:?}"),
                    Err(error) => return error,
                }
            }
        };
        let (taken, ()) = tokio::join!(takes, cancel);
        assert!(matches!(taken, StoreError::Unavailable(_)), "{state}: {taken}");
        let Ok(CampaignResult::Won { term }) = two.campaign().await else { panic!("not recognized") };
        assert!(term > first);
        without_standby(server, "").await;
        assert!(matches!(two.renew().await, Ok(RenewResult::Credited { .. })));
    });
}

/// The renewal that starts the lease waits, and is not credited if the take was forgotten.
#[test]
fn a_take_of_a_free_record_waits_for_no_confirmation_and_starts_no_lease() {
    with_server(&[], async |server| {
        let mut one = PostgresCandidate::at(&server.url(), "one", LONG);
        one.win().await;
        assert!(matches!(one.renew().await, Ok(RenewResult::Credited { .. })));
        one.store.release(&one.candidacy).await.expect("released");
        server.run("CREATE TABLE remembered AS SELECT * FROM elect_boundaries WHERE boundary = 'cron'").await;
        without_standby(server, "ghost").await;
        let mut two = PostgresCandidate::at(&server.url(), "two", LONG);
        let taken = two.campaign().await;
        assert!(matches!(taken, Ok(CampaignResult::Won { .. })), "{taken:?}");
        let cancel = async {
            let client = wait_for_sync_wait(server).await;
            let order = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
            client.batch_execute(order).await.expect("ended");
        };
        let renews = async {
            let renewal = two.renew().await;
            assert!(matches!(renewal, Err(StoreError::Unavailable(_))), "it waits: {renewal:?}");
        };
        tokio::join!(renews, cancel);
        without_standby(server, "").await;
        // As a server has it that has not heard of the take.
        server
            .run("DELETE FROM elect_boundaries WHERE boundary = 'cron'; INSERT INTO elect_boundaries SELECT * FROM remembered")
            .await;
        let renewal = two.renew().await;
        let is_forgotten = |why: &str| why.contains("does not know the take");
        assert!(matches!(&renewal, Ok(RenewResult::Lost { why }) if is_forgotten(why)), "{renewal:?}");
        assert!(matches!(two.campaign().await, Ok(CampaignResult::Won { .. })), "it is free");
        assert!(matches!(two.renew().await, Ok(RenewResult::Credited { .. })));
    });
}

#[test]
fn a_row_that_is_locked_is_not_waited_for() {
    with_server(&[], async |server| {
        let mut one = PostgresCandidate::at(&server.url(), "one", SHORT);
        one.win().await;
        let client = server.try_client().await.expect("it is up");
        client.batch_execute("BEGIN; SELECT FROM elect_boundaries FOR UPDATE").await.expect("locked");
        let before = clock::now();
        let error = one.renew().await.expect_err("locked").to_string();
        assert!(error.contains("is locked") && clock::now().since(before) < SHORT, "{error}");
        client.batch_execute("ROLLBACK").await.expect("unlocked");
        assert!(matches!(one.renew().await, Ok(RenewResult::Credited { .. })));
    });
}

/// As a take that comes too late locks it.
#[test]
fn a_row_that_is_locked_for_a_moment_costs_neither_a_renewal_nor_a_release() {
    with_server(&[], async |server| {
        let mut one = PostgresCandidate::at(&server.url(), "one", SHORT);
        one.win().await;
        let client = server.try_client().await.expect("it is up");
        let lock = async || {
            client.batch_execute("BEGIN; SELECT FROM elect_boundaries FOR UPDATE").await.expect("locked");
        };
        let unlock = async || {
            tokio::time::sleep(Duration::from_millis(5)).await;
            client.batch_execute("ROLLBACK").await.expect("unlocked");
        };
        lock().await;
        let (renewed, ()) = tokio::join!(one.renew(), unlock());
        assert!(matches!(renewed, Ok(RenewResult::Credited { .. })), "{renewed:?}");
        lock().await;
        let (released, ()) = tokio::join!(one.store.release(&one.candidacy), unlock());
        released.expect("released");
    });
}

#[test]
fn a_required_standby_that_is_not_configured_keeps_a_lease_from_being_credited() {
    with_server(&[], async |server| {
        let mut one = PostgresCandidate::at(&format!("{}&synchronous=required", server.url()), "one", SHORT);
        one.win().await;
        let error = one.renew().await.expect_err("no standby").to_string();
        assert!(error.contains("synchronous_standby_names"), "{error}");
    });
}

/// Stricter defaults than READ COMMITTED make a statement fail that finds a change: then nothing was done.
#[test]
fn twelve_candidates_at_once_make_one_table_and_elect_one_at_every_isolation() {
    for isolation in ["read committed", "repeatable read", "serializable"] {
        with_server(&[&format!("default_transaction_isolation={isolation}")], async |server| {
            let (wins, asking) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(12)));
            let candidates: Vec<_> = (0..12)
                .map(|number| {
                    let mut candidate = PostgresCandidate::at(&server.url(), &number.to_string(), LONG);
                    // The first row is waited for, for as long as this, and the leader renews in less on a busy machine too.
                    candidate.candidacy.ttl = Duration::from_secs(4);
                    tokio::task::spawn_local(asks_until_one_is_found(candidate, Rc::clone(&wins), Rc::clone(&asking)))
                })
                .collect();
            for candidate in candidates {
                tokio::time::timeout(LIMIT, candidate).await.expect("all have asked").expect("no panic");
            }
            assert_eq!(wins.get(), 1, "{isolation}");
        });
    }
}

/// Asks until it wins, or is told to wait five times by answers to questions that it has asked after another's win.
async fn asks_until_one_is_found(mut candidate: PostgresCandidate, wins: Rc<Cell<u32>>, asking: Rc<Cell<u32>>) {
    let (mut refusals, mut leads) = (0, false);
    while !leads && refusals < 5 {
        let is_led = wins.get() > 0;
        match candidate.campaign().await {
            Ok(CampaignResult::Won { .. }) => leads = true,
            Ok(CampaignResult::Waiting { .. }) => refusals += u32::from(is_led),
            Err(StoreError::Unavailable(_) | StoreError::Connecting(_)) => {}
            Err(error) => panic!("{error}"),
        }
        wins.set(wins.get() + u32::from(leads));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    asking.set(asking.get() - 1);
    // Renewed as long as the others ask.
    while leads && asking.get() > 0 {
        assert!(!matches!(candidate.renew().await, Ok(RenewResult::Lost { .. })));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn a_table_that_keeps_no_record_is_refused_with_the_reason() {
    const TABLE: &str = "CREATE TABLE kind.elect_boundaries (boundary text PRIMARY KEY, state text)";
    with_server(&[], async |server| {
        for (statement, reason) in [
            (TABLE.replace("TABLE", "UNLOGGED TABLE"), "unlogged"),
            (format!("{TABLE} PARTITION BY LIST (boundary)"), "partitioned"),
            (format!("{TABLE}; ALTER TABLE kind.elect_boundaries ENABLE ROW LEVEL SECURITY"), "row-level security"),
            (
                format!(
                    "{TABLE}; CREATE TRIGGER t BEFORE UPDATE ON kind.elect_boundaries FOR EACH ROW EXECUTE FUNCTION \
                     suppress_redundant_updates_trigger()"
                ),
                "triggers",
            ),
            (format!("{TABLE}; CREATE TABLE kind.child () INHERITS (kind.elect_boundaries)"), "child tables"),
            (TABLE.replace(" PRIMARY KEY", ""), "no unique index"),
            (
                format!(
                    "{}; CREATE UNIQUE INDEX ON kind.elect_boundaries (boundary, state)",
                    TABLE.replace(" PRIMARY KEY", "")
                ),
                "no unique index",
            ),
            ("CREATE VIEW kind.elect_boundaries AS SELECT 1 AS boundary".to_owned(), "view"),
            (TABLE.to_owned(), "not elect's"),
        ] {
            server.run(&format!("DROP SCHEMA IF EXISTS kind CASCADE; CREATE SCHEMA kind; {statement}")).await;
            let mut one = PostgresCandidate::at(&format!("{}&schema=kind", server.url()), "one", SHORT);
            let error = one.campaign().await.expect_err(reason);
            assert!(matches!(error, StoreError::Refused(_)) && error.to_string().contains(reason), "{error}");
        }
    });
}

/// It would have to be stored until it is complete, and grows as long as the connection is there.
#[test]
fn a_message_without_end_is_refused_by_its_length() {
    use std::io::{Read, Write};
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.expect("a client");
            let _ = client.read(&mut [0; 1024]);
            let _ = client.write_all(&[b"N\x7f\xff\xff\xff", &[b'x'; 1000][..]].concat());
            // Open until the client has had enough.
            let _ = client.read(&mut [0; 1024]);
        }
    });
    LocalSet::new().block_on(&runtime(), async {
        let url = format!("postgres://127.0.0.1:{port}/postgres?user=elect&sslmode=disable");
        let error = PostgresCandidate::at(&url, "one", SHORT).campaign().await.expect_err("too large");
        assert!(error.to_string().contains("more than elect reads"), "{error}");
    });
}

/// Of a server that answers otherwise than PostgreSQL does.
#[test]
fn a_catalog_with_nulls_in_it_is_an_outage() {
    with_server(&[], async |server| {
        PostgresCandidate::at(&server.url(), "one", SHORT).win().await;
        server
            .run(
                "CREATE SCHEMA odd; CREATE VIEW odd.pg_class AS SELECT oid, relname, relnamespace, NULL::text AS relkind, \
                 relpersistence, relrowsecurity FROM pg_catalog.pg_class; \
                 CREATE ROLE odd LOGIN SUPERUSER; ALTER ROLE odd SET search_path = odd, pg_catalog",
            )
            .await;
        let url = server.url().replace("user=elect", "user=odd");
        let error = PostgresCandidate::at(&url, "two", SHORT).campaign().await.expect_err("nulls");
        assert!(error.to_string().contains("kind"), "{error}");
    });
}

#[test]
fn without_the_right_to_make_the_table_its_definition_is_printed() {
    with_server(&[], async |server| {
        server.run("CREATE ROLE poor LOGIN; REVOKE CREATE ON SCHEMA public FROM public").await;
        let url = server.url().replace("user=elect", "user=poor");
        let error = PostgresCandidate::at(&url, "one", SHORT).campaign().await.expect_err("no right");
        let StoreError::Refused(said) = error else { panic!("{error}") };
        assert!(said.contains("CREATE TABLE") && said.contains("GRANT SELECT, INSERT, UPDATE"), "{said}");
        assert_eq!(said.lines().count(), 1);
        // The printed statements are enough.
        let (_, ddl) = said.split_once("to run: ").expect("statements");
        server.run(ddl).await;
        PostgresCandidate::at(&url, "one", SHORT).win().await;
    });
}

#[test]
fn without_hints_a_waiting_candidate_keeps_no_connection() {
    with_server(&[], async |server| {
        let url = format!("{}&listen=0", server.url());
        let (mut one, mut two) = (PostgresCandidate::at(&url, "one", SHORT), PostgresCandidate::at(&url, "two", SHORT));
        one.win().await;
        assert!(matches!(two.campaign().await, Ok(CampaignResult::Waiting { .. })));
        let client = server.try_client().await.expect("it is up");
        loop {
            let question = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'elect'";
            let open: i64 = client.query_one(question, &[]).await.expect("an answer").get(0);
            if open == 1 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
}

#[test]
fn what_cannot_be_right_is_refused_and_what_passes_is_not() {
    with_server(&[], async |server| {
        let url = server.url();
        for (url, refused, said) in [
            (url.replace("/postgres?", "/nowhere?"), true, "has no database"),
            (url.replace("user=elect", "user=nobody"), true, "let \"nobody\" in"),
            (format!("{url}&sslmode=require"), true, "without TLS"),
            (url.replace(&server.port.to_string(), "1"), false, "Connection refused"),
        ] {
            let error = PostgresCandidate::at(&url, "one", SHORT).campaign().await.expect_err(&url);
            assert_eq!(matches!(error, StoreError::Refused(_)), refused, "{url}: {error}");
            assert!(error.to_string().contains(said), "{url}: {error}");
        }
    });
}
