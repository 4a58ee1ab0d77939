//! The conformance suite on a real etcd.

mod conformance;
mod interception;
mod looks;
mod lost_answers;
mod round_trips;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use etcd_client::{Client, LeaseGrantOptions, PutOptions};
use serde_json::Value;
use tokio::task::LocalSet;

use crate::store::conformance::{StoreUnderTest, conforms};
use crate::store::url::StoreUrl;
use crate::store::{Access, CampaignResult, Candidacy, Identity, Notifier, RenewResult, ReserveResult, Store};
use elect_core::Term;
use elect_core::takeover::Reservation;
use elect_keeper::clock;

const TERM_KEY: &str = "elect.term//elect/cron/";

/// One member, gone with the handle.
struct EtcdProcess {
    child: RefCell<Child>,
    address: String,
    _data: tempfile::TempDir,
}

impl EtcdProcess {
    fn start() -> EtcdProcess {
        EtcdProcess::with(&[])
    }

    fn with(flags: &[&str]) -> EtcdProcess {
        // A port that was free may not be any more.
        (0..5).find_map(|_| EtcdProcess::launch(flags)).expect("one of five attempts finds its ports free")
    }

    /// `None`: it has ended.
    fn launch(flags: &[&str]) -> Option<EtcdProcess> {
        let data = tempfile::tempdir().expect("a temporary directory");
        let [client, peer] = [free_port(), free_port()].map(|port| format!("127.0.0.1:{port}"));
        let mut command = Command::new("etcd");
        command
            .arg("--data-dir")
            .arg(data.path())
            .args(["--listen-client-urls", &format!("http://{client}")])
            .args(["--advertise-client-urls", &format!("http://{client}")])
            .args(["--listen-peer-urls", &format!("http://{peer}")])
            .args(["--initial-advertise-peer-urls", &format!("http://{peer}")])
            .args(["--initial-cluster", &format!("default=http://{peer}")])
            .args(flags)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = RefCell::new(command.spawn().expect("etcd is installed: tests/run installs it"));
        let server = EtcdProcess { child, address: client, _data: data };
        server.comes_up().then_some(server)
    }

    /// Whether it answers; otherwise it has ended.
    fn comes_up(&self) -> bool {
        let limit = clock::now() + Duration::from_secs(30);
        while TcpStream::connect(&self.address).is_err() {
            if self.child.borrow_mut().try_wait().expect("our own child").is_some() {
                return false;
            }
            assert!(clock::now() < limit, "etcd does not come up");
            std::thread::sleep(Duration::from_millis(20));
        }
        true
    }

    fn end(&self) {
        let mut child = self.child.borrow_mut();
        let _ = child.kill();
        let _ = child.wait();
    }
}

impl Drop for EtcdProcess {
    fn drop(&mut self) {
        self.end();
    }
}

/// None that another test of this process was told.
fn free_port() -> u16 {
    static TOLD: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let port =
        || TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port();
    let mut told = TOLD.lock().expect("no test has panicked here");
    std::iter::repeat_with(port).find(|port| told.insert(*port)).expect("there is no end of them")
}

impl EtcdProcess {
    fn etcdctl(&self, words: &[&str]) -> String {
        let output =
            Command::new("etcdctl").env("ETCDCTL_API", "3").args(["--endpoints", &self.address]).args(words).output();
        let output = output.expect("etcdctl is installed: tests/run installs it");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    }
}

/// A candidate without a command.
struct EtcdCandidate {
    store: Box<dyn Store>,
    candidacy: Candidacy,
}

impl EtcdCandidate {
    fn new(server: &EtcdProcess) -> EtcdCandidate {
        EtcdCandidate::at(server, "", "cron")
    }

    fn at(server: &EtcdProcess, option: &str, boundary: &str) -> EtcdCandidate {
        let url = format!("etcd://{}{option}", server.address);
        let store = StoreUrl::parse(&url).expect("a URL").open(&access(), Notifier::disconnected()).expect("opened");
        let identity = Identity { id: "id".into(), name: "name".into(), host: "host".into(), port: None };
        let boundary = boundary.parse().expect("a boundary");
        EtcdCandidate { store, candidacy: Candidacy { boundary, identity, ttl: Duration::from_secs(10) } }
    }

    async fn wins(&mut self) -> Term {
        self.store.claim(&self.candidacy).expect("a claim");
        match self.store.campaign(&self.candidacy).await.expect("an answer") {
            CampaignResult::Won { term } => term,
            waiting @ CampaignResult::Waiting { .. } => panic!("{waiting:?}"),
        }
    }

    async fn renews(&mut self) -> RenewResult {
        self.store.renew(&self.candidacy).await.expect("an answer")
    }
}

fn access() -> Access {
    Access { request_timeout: Duration::from_secs(5), ..Access::default() }
}

fn with_player(test: impl AsyncFnOnce(&EtcdProcess, EtcdCandidate)) {
    let server = EtcdProcess::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    LocalSet::new().block_on(&runtime, async { test(&server, EtcdCandidate::new(&server)).await });
}

#[test]
fn a_last_term_that_is_raised_before_the_win_is_verified_is_no_loss_and_the_term_is_higher() {
    with_player(async |server, mut player| {
        for raise in [1_000_000_000, 1] {
            let term = player.wins().await;
            assert_eq!(player.wins().await, term, "the same place, the same term");
            server.etcdctl(&["put", TERM_KEY, &(term + raise).to_string()]);
            assert_eq!(player.renews().await, RenewResult::Outdated);
            let next = player.wins().await;
            assert!(next > term + raise, "{next}");
            assert!(matches!(player.renews().await, RenewResult::Credited { .. }));
            assert_eq!(server.etcdctl(&["get", "--print-value-only", TERM_KEY]), next.to_string());
            // Verified: it is of no account any more.
            server.etcdctl(&["del", TERM_KEY]);
            assert!(matches!(player.renews().await, RenewResult::Credited { .. }));
            server.etcdctl(&["put", TERM_KEY, &next.to_string()]);
            player.store.release(&player.candidacy).await.expect("released");
        }
    });
}

#[test]
fn a_win_that_was_verified_by_a_request_whose_answer_was_lost_stays_the_same_win() {
    with_player(async |server, mut player| {
        let term = player.wins().await;
        // As that request leaves it: both keys are written.
        let keys = server.etcdctl(&["get", "--prefix", "/elect/cron/"]);
        let (key, value) = keys.split_once('\n').expect("a key and its value");
        let lease = key.rsplit('/').next().expect("the last part");
        let mut value: Value = serde_json::from_str(value).expect("ours");
        (value["term"], value["since"]) = (term.into(), 1.into());
        server.etcdctl(&["put", "--lease", lease, key, &value.to_string()]);
        server.etcdctl(&["put", TERM_KEY, &term.to_string()]);
        assert!(matches!(player.renews().await, RenewResult::Credited { .. }), "the same win");
        // And if the boundary was asked for again, too.
        assert_eq!(player.wins().await, term);
        assert!(matches!(player.renews().await, RenewResult::Credited { .. }));
        assert_eq!(server.etcdctl(&["get", "--print-value-only", TERM_KEY]), term.to_string());
    });
}

/// As by a request of an earlier attempt that the server executes late.
#[test]
fn a_value_of_its_own_that_is_not_the_last_one_is_written_again() {
    with_player(async |server, mut player| {
        player.wins().await;
        assert!(matches!(player.renews().await, RenewResult::Credited { .. }));
        let get = || server.etcdctl(&["get", "--prefix", "/elect/cron/"]);
        let before = get();
        let (key, value) = before.split_once('\n').expect("a key and its value");
        let lease = key.rsplit('/').next().expect("the last part");
        server.etcdctl(&["put", "--lease", lease, key, &value.replace("\"host\":\"host\"", "\"host\":\"older\"")]);
        assert_ne!(get(), before);
        // The first one finds it, and the second one writes it again.
        for _ in 0..2 {
            assert!(matches!(player.renews().await, RenewResult::Credited { .. }));
        }
        assert_eq!(get(), before);
    });
}

/// A candidate's key as elect or another program writes it.
async fn put_candidate(server: &EtcdProcess, lease: i64, name: Option<&str>) {
    put_at(server, &format!("/elect/cron/{lease:x}"), lease, name).await;
}

async fn put_at(server: &EtcdProcess, key: &str, lease: i64, name: Option<&str>) {
    let value = name.map_or_else(
        || "go".to_owned(),
        |name| format!(r#"{{"version":2,"id":"id-{name}","name":"{name}","host":"h","port":null,"ttl":10000}}"#),
    );
    let mut client = Client::connect([&server.address], None).await.expect("an etcd");
    client.lease_grant(3600, Some(LeaseGrantOptions::new().with_id(lease))).await.expect("granted");
    client.put(key, value, Some(PutOptions::new().with_lease(lease))).await.expect("put");
}

impl EtcdCandidate {
    async fn reserves(&mut self, successor: Option<&str>) -> ReserveResult {
        let within = Duration::from_secs(3);
        let reservation = successor.map(|successor| Reservation { successor: successor.to_owned(), within });
        self.store.reserve(&self.candidacy, reservation).await.expect("an answer")
    }
}

#[test]
fn a_hand_over_deletes_the_keys_of_elect_before_the_successor_and_the_value_names_it_no_longer_than_needed() {
    with_player(async |server, mut player| {
        let keys = || server.etcdctl(&["get", "--prefix", "--keys-only", "/elect/cron/"]).replace('\n', " ");
        let value = || server.etcdctl(&["get", "--prefix", "--limit", "1", "/elect/cron/", "--sort-by", "CREATE"]);
        player.wins().await;
        let early = player.reserves(Some("second")).await;
        assert!(matches!(early, ReserveResult::Impossible(_)), "the win is not verified yet: {early:?}");
        assert!(matches!(player.renews().await, RenewResult::Credited { .. }));
        assert_eq!(player.reserves(Some("second")).await, ReserveResult::NotSeen);
        assert!(value().contains(r#""successor":"second""#), "a spare would join: {}", value());
        put_candidate(server, 0xa1, Some("first")).await;
        put_candidate(server, 0xa2, Some("second")).await;
        assert_eq!(player.reserves(None).await, ReserveResult::Reserved);
        assert!(!value().contains("successor"), "{}", value());
        assert_eq!(player.reserves(Some("second")).await, ReserveResult::Reserved);
        assert!(matches!(player.renews().await, RenewResult::Credited { .. }), "it leads on");
        player.store.release(&player.candidacy).await.expect("released");
        assert_eq!(keys(), "/elect/cron/a2");
    });
}

#[test]
fn a_successor_behind_another_program_or_a_hundred_candidates_is_refused_before_anything_is_stopped() {
    with_player(async |server, mut player| {
        player.wins().await;
        assert!(matches!(player.renews().await, RenewResult::Credited { .. }));
        let refused = |result| match result {
            ReserveResult::Impossible(why) => why,
            other @ (ReserveResult::Reserved | ReserveResult::NotSeen) => panic!("{other:?}"),
        };
        put_candidate(server, 0xb1, None).await;
        put_candidate(server, 0xb2, Some("second")).await;
        let why = refused(player.reserves(Some("second")).await);
        assert!(why.contains("another program") && why.contains("nothing was done"), "{why}");
        server.etcdctl(&["del", "/elect/cron/b1"]);
        for number in 0..100 {
            put_candidate(server, 0xc00 + number, Some("many")).await;
        }
        put_candidate(server, 0xd, Some("last")).await;
        let why = refused(player.reserves(Some("last")).await);
        assert!(why.contains("101 candidates") && why.contains("at most 100"), "{why}");
        server.etcdctl(&["del", "/elect/cron/b2"]);
        assert_eq!(player.reserves(Some("last")).await, ReserveResult::Reserved);
        player.store.release(&player.candidacy).await.expect("released");
        assert_eq!(server.etcdctl(&["get", "--prefix", "--keys-only", "/elect/cron/"]), "/elect/cron/d");
    });
}

/// Below `jobs/` there are the keys of the election `jobs/nightly`, whose leader must not be stopped.
#[test]
fn a_hand_over_leaves_the_candidates_of_a_nested_election_alone() {
    let server = EtcdProcess::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    LocalSet::new().block_on(&runtime, async {
        let mut player = EtcdCandidate::at(&server, "?layout=exact", "jobs");
        player.wins().await;
        assert!(matches!(player.renews().await, RenewResult::Credited { .. }));
        put_at(&server, "jobs/nightly/a1", 0xa1, Some("n1")).await;
        assert_eq!(player.reserves(Some("n1")).await, ReserveResult::NotSeen, "no candidate of this election");
        // A candidate that is not of elect has its lease for an id.
        assert_eq!(player.reserves(Some("a1")).await, ReserveResult::NotSeen, "no candidate of this election");
        put_at(&server, "jobs/a2", 0xa2, Some("l2")).await;
        let ReserveResult::Impossible(why) = player.reserves(Some("l2")).await else { panic!("it would not lead") };
        let said = "key jobs/nightly/a1 of another election waits before l2, and would lead: nothing was done";
        assert!(why.contains(said), "{why}");
        server.etcdctl(&["del", "jobs/nightly/a1"]);
        assert_eq!(player.reserves(Some("l2")).await, ReserveResult::Reserved);
        put_at(&server, "jobs/nightly/a3", 0xa3, Some("n3")).await;
        put_at(&server, "jobs/a4", 0xa4, Some("l4")).await;
        player.store.release(&player.candidacy).await.expect("released");
        let keys = server.etcdctl(&["get", "--prefix", "--keys-only", "jobs/"]).replace("\n\n", " ");
        assert_eq!(keys, "jobs/a2 jobs/a4 jobs/nightly/a3");
        let (mut spare, key) = (EtcdCandidate::at(&server, "?layout=exact", "jobs"), "jobs/nightly/a5");
        server.etcdctl(&["del", "--prefix", "jobs/"]);
        put_at(&server, key, 0xa5, Some("n5")).await;
        let value =
            server.etcdctl(&["get", "--print-value-only", key]).replace('}', r#","term":3,"successor":"name"}"#);
        server.etcdctl(&["put", "--lease", "a5", key, &value]);
        spare.store.set_takeover_delay(Duration::from_secs(60));
        spare.store.claim(&spare.candidacy).expect("a claim");
        spare.store.campaign(&spare.candidacy).await.expect("an answer");
        assert_eq!(server.etcdctl(&["get", "--prefix", "--keys-only", "jobs/"]), key, "it was not named");
    });
}

#[test]
fn it_conforms() {
    let server = EtcdProcess::start();
    let access = access();
    let (url, ttl) = (format!("etcd://{}", server.address), Duration::from_secs(10));
    conforms(&StoreUnderTest { url, access, ttl, support: &conformance::EtcdSupport });
}
