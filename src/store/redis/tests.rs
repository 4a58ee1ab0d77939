//! The conformance suite on a real Redis, and what its scripts do with each other's records.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

mod conformance;
mod herd;
mod index;
mod lost_answers;
mod records;
mod replicas;
mod round_trips;

use tokio::task::LocalSet;

use crate::store::conformance::{StoreUnderTest, conforms};
use crate::store::url::StoreUrl;
use crate::store::worker::channel;
use crate::store::{Access, CampaignResult, Candidacy, Detail, Identity, RenewResult, Store, StoreError};
use elect_core::Term;
use elect_keeper::clock;

/// Without persistence, gone with the handle.
struct RedisProcess {
    child: Child,
    address: String,
    data: tempfile::TempDir,
}

impl RedisProcess {
    fn start() -> RedisProcess {
        RedisProcess::with(&[])
    }

    fn with(flags: &[&str]) -> RedisProcess {
        // Another test may have taken the port by the time that the server asks for it.
        (0..10).find_map(|_| RedisProcess::on_free_port(flags)).expect("a port that nobody else takes")
    }

    fn on_free_port(flags: &[&str]) -> Option<RedisProcess> {
        let data = tempfile::tempdir().expect("a temporary directory");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
        let child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--repl-ping-replica-period", "1"])
            .args(["--repl-diskless-sync-delay", "0", "--dir"])
            .arg(data.path())
            .args(flags)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server is installed: tests/run installs it");
        let mut server = RedisProcess { child, address: format!("127.0.0.1:{port}"), data };
        let limit = clock::now() + Duration::from_secs(30);
        while TcpStream::connect(&server.address).is_err() {
            if server.child.try_wait().expect("a child of ours").is_some() {
                return None;
            }
            assert!(clock::now() < limit, "redis-server does not come up");
            std::thread::sleep(Duration::from_millis(20));
        }
        let own = format!("process_id:{}", server.child.id());
        server.cli(&["info", "server"]).lines().any(|line| line.trim() == own).then_some(server)
    }
}

impl RedisProcess {
    /// As somebody else who has access to it.
    fn cli(&self, words: &[&str]) -> String {
        let (host, port) = self.address.split_once(':').expect("host and port");
        let output = Command::new("redis-cli").args(["-h", host, "-p", port]).args(words).output();
        let output = output.expect("redis-cli is installed");
        assert!(output.status.success(), "redis-cli {words:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// A field of the record.
    fn field(&self, name: &str) -> String {
        self.cli(&["hget", "elect:cron", name])
    }
}

impl Drop for RedisProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn it_conforms() {
    let server = RedisProcess::start();
    let access = Access { request_timeout: Duration::from_secs(5), ..Access::default() };
    // Every boundary's first record is waited for, for a ttl.
    let (url, ttl) = (format!("redis://{}/3", server.address), Duration::from_secs(2));
    conforms(&StoreUnderTest { url, access, ttl, support: &conformance::RedisSupport });
}

/// Longer than any attempt on a busy machine.
const PATIENT: Duration = Duration::from_secs(30);

/// A candidate's end of the store, without anything around it.
struct RedisCandidate {
    store: Box<dyn Store>,
    candidacy: Candidacy,
}

impl RedisCandidate {
    fn at(server: &RedisProcess, options: &str, name: &str) -> RedisCandidate {
        RedisCandidate::asking_for(PATIENT, server, options, name)
    }

    fn asking_for(request_timeout: Duration, server: &RedisProcess, options: &str, name: &str) -> RedisCandidate {
        RedisCandidate::to(request_timeout, &server.address, options, name)
    }

    fn to(request_timeout: Duration, address: &str, options: &str, name: &str) -> RedisCandidate {
        let url = format!("redis://{address}{options}");
        let access = Access { request_timeout, ..Access::default() };
        let store = StoreUrl::parse(&url).map(|url| url.open(&access, channel().0)).expect("a URL");
        let identity = Identity {
            id: uuid::Uuid::new_v4().to_string(),
            name: name.to_owned(),
            host: "host.example".to_owned(),
            port: None,
        };
        let boundary = "cron".parse().expect("a name");
        let ttl = Duration::from_millis(300);
        RedisCandidate { store: store.expect("opened"), candidacy: Candidacy { boundary, identity, ttl } }
    }

    async fn ask(&mut self) -> Result<CampaignResult, StoreError> {
        self.store.campaign(&self.candidacy).await
    }

    /// Asks until it has won.
    async fn wins(&mut self) -> Term {
        loop {
            match self.ask().await.expect("an answer") {
                CampaignResult::Won { term } => return term,
                CampaignResult::Waiting { again, .. } => tokio::time::sleep(again.unwrap_or_default()).await,
            }
        }
    }

    async fn renews(&mut self) -> Result<RenewResult, StoreError> {
        self.store.renew(&self.candidacy).await
    }
}

fn with_server(test: impl AsyncFnOnce(&RedisProcess)) {
    let server = RedisProcess::start();
    within(async || test(&server).await);
}

fn within(test: impl AsyncFnOnce()) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    LocalSet::new().block_on(&runtime, test());
}

#[test]
fn what_is_held_under_ones_name_by_a_term_that_is_over_is_given_back_first() {
    with_server(async |server| {
        let mut one = RedisCandidate::at(server, "", "one");
        let first = one.wins().await;
        assert!(matches!(one.renews().await, Ok(RenewResult::Credited { .. })));
        // As after a lease that ran out and a release that was lost. It is not waited for.
        let answer = one.ask().await;
        let Ok(CampaignResult::Won { term: second }) = answer else { panic!("{answer:?}") };
        assert!(second > first, "a term that is over does not come back: {second} after {first}");
    });
}

#[test]
fn a_take_that_is_late_takes_nothing() {
    with_server(async |server| {
        let (mut one, mut two) = (RedisCandidate::at(server, "", "one"), RedisCandidate::at(server, "", "two"));
        // Both wait for the same record that is not there; what the second one has seen is not so any more.
        let seen = two.ask().await;
        assert!(matches!(seen, Ok(CampaignResult::Waiting { .. })), "{seen:?}");
        one.candidacy.ttl = LONG;
        assert!(one.wins().await > 0);
        tokio::time::sleep(two.candidacy.ttl * 2).await;
        let second = two.ask().await;
        assert!(matches!(second, Ok(CampaignResult::Waiting { .. })), "{second:?}");
        assert!(matches!(two.renews().await, Ok(RenewResult::Lost { .. })));
        assert!(matches!(one.renews().await, Ok(RenewResult::Credited { .. })));
    });
}

/// For a leader that is looked at before it has to renew, on a busy machine too.
const LONG: Duration = Duration::from_secs(4);

/// The first record has been waited for, and is free.
async fn led_before(server: &RedisProcess) {
    let mut first = RedisCandidate::at(server, "", "first");
    first.wins().await;
    first.store.release(&first.candidacy).await.expect("released");
}

/// Of two takes of the same free record, the second one finds another version than it has seen.
#[test]
fn of_two_takes_at_once_one_takes() {
    with_server(async |server| {
        led_before(server).await;
        for _ in 0..20 {
            let (mut one, mut two) = (RedisCandidate::at(server, "", "one"), RedisCandidate::at(server, "", "two"));
            let results = tokio::join!(one.ask(), two.ask());
            let won = |result: &Result<CampaignResult, StoreError>| matches!(result, Ok(CampaignResult::Won { .. }));
            let winner = match (won(&results.0), won(&results.1)) {
                (true, false) => one,
                (false, true) => two,
                _ => panic!("not one of them: {results:?}"),
            };
            let RedisCandidate { mut store, candidacy, .. } = winner;
            store.release(&candidacy).await.expect("released");
        }
    });
}

#[test]
fn a_renewal_writes_what_is_proclaimed_into_its_own_record_alone() {
    with_server(async |server| {
        let (mut one, mut two) = (RedisCandidate::at(server, "", "one"), RedisCandidate::at(server, "", "two"));
        let mut observer = RedisCandidate::at(server, "", "observer");
        led_before(server).await;
        (one.candidacy.ttl, two.candidacy.ttl) = (LONG, LONG);
        one.wins().await;
        one.candidacy.identity.name = "renamed".to_owned();
        one.candidacy.identity.port = Some(9000);
        assert!(matches!(one.renews().await, Ok(RenewResult::Credited { .. })));
        let observation = observer.store.observe(&one.candidacy.boundary).await.expect("looked");
        let leader = observation.leader.expect("a leader");
        assert_eq!((leader.name.as_str(), leader.port), ("renamed", Some(9000)));
        let term = two.wins().await;
        one.candidacy.identity.name = "too late".to_owned();
        assert!(matches!(one.renews().await, Ok(RenewResult::Lost { .. })));
        assert!(matches!(two.renews().await, Ok(RenewResult::Credited { .. })));
        let leader = observer.store.observe(&one.candidacy.boundary).await.expect("looked").leader.expect("a leader");
        assert_eq!((leader.name.as_str(), leader.term), ("two", Some(term)));
    });
}

/// Without a hint this test would never end.
#[test]
fn an_observer_hears_of_a_take_a_new_name_and_a_release_but_of_no_renewal() {
    with_server(async |server| {
        led_before(server).await;
        let boundary = RedisCandidate::at(server, "", "nobody").candidacy.boundary;
        for scope in [Some(&boundary), None] {
            let (mut one, mut observer) =
                (RedisCandidate::at(server, "", "one"), RedisCandidate::at(server, "", "observer"));
            one.candidacy.ttl = LONG;
            observer.store.observe(&boundary).await.expect("looked");
            // That it listens from now on.
            observer.store.wait_for_change(scope).await;
            one.wins().await;
            observer.store.wait_for_change(scope).await;
            assert!(matches!(one.renews().await, Ok(RenewResult::Credited { .. })));
            one.candidacy.identity.host = format!("new for {scope:?}");
            assert!(matches!(one.renews().await, Ok(RenewResult::Credited { .. })));
            observer.store.wait_for_change(scope).await;
            let leader = observer.store.observe(&boundary).await.expect("looked").leader.expect("a leader");
            assert_eq!(leader.host, Some(one.candidacy.identity.host.clone()), "the renewal before was no news");
            one.store.release(&one.candidacy).await.expect("released");
            observer.store.wait_for_change(scope).await;
            assert_eq!(observer.store.observe(&boundary).await.expect("looked").leader, None);
        }
    });
}

#[test]
fn a_survey_of_many_boundaries_asks_at_once_and_one_that_is_not_elects_hides_no_other() {
    with_server(async |server| {
        led_before(server).await;
        let mut one = RedisCandidate::at(server, "", "one");
        one.candidacy.ttl = Duration::from_secs(60);
        one.wins().await;
        // More than are asked about at once.
        let copy = "for i = 1, 600 do redis.call('COPY', KEYS[1], KEYS[1] .. i); redis.call('HSET', KEYS[1] .. i, 'name', i) end";
        server.cli(&["eval", copy, "1", "elect:cron"]);
        server.cli(&["hset", "elect:cron300", "name", "\u{e4}", "of the future", "x"]);
        for foreign in ["elect:foreign", "elect:cron301"] {
            server.cli(&["eval", "redis.call('HSET', KEYS[1], 'name', '\\255\\254')", "1", foreign]);
        }
        server.cli(&["script", "flush"]);
        let mut observer = RedisCandidate::at(server, "", "observer");
        let seen = observer.store.observe_all(Detail::Lease).await.expect("surveyed");
        assert_eq!(seen.len(), 602);
        for (boundary, observation) in seen {
            match (boundary.as_str(), observation) {
                ("cron", observation) => assert_eq!(observation.expect("one").leader.expect("a leader").name, "one"),
                ("cron300", observation) => {
                    assert_eq!(observation.expect("one").leader.expect("a leader").name, "\u{e4}");
                }
                ("foreign" | "cron301", observation) => {
                    let error = observation.expect_err("not a record");
                    assert!(matches!(&error, StoreError::Obstacle(why) if why.contains("not elect's")), "{error}");
                }
                (name, observation) => {
                    let leader = observation.expect("one").leader.expect("a leader");
                    assert_eq!(format!("cron{}", leader.name), name);
                }
            }
        }
    });
}
