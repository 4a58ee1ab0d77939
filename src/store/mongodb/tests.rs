//! The conformance suite on real servers, and what is worth knowing about each other's writes.

mod changes;
mod conformance;
mod writes;

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ::mongodb::bson::{DateTime, Document, doc};
use ::mongodb::{Client, Collection, IndexModel};
use tokio::task::LocalSet;
use tokio::time::timeout;

use crate::store::conformance::{StoreUnderTest, conforms};
use crate::store::url::StoreUrl;
use crate::store::worker::{Events, StoreEvent, channel};
use crate::store::{Access, CampaignResult, Candidacy, Identity, RenewResult, Store, StoreError};
use elect_core::Term;
use elect_keeper::clock;

/// Longer than anything takes; only a test that fails waits so long.
const LIMIT: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Topology {
    Standalone,
    /// A replica set of one: it has majorities.
    ReplicaSet,
    /// To become a member of a set.
    Member,
}

/// Gone with the handle.
struct MongodProcess {
    child: Child,
    address: String,
    _data: tempfile::TempDir,
}

impl MongodProcess {
    fn start(kind: Topology) -> MongodProcess {
        MongodProcess::start_with(kind, &[])
    }

    fn start_with(kind: Topology, flags: &[&str]) -> MongodProcess {
        let data = tempfile::tempdir().expect("a temporary directory");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
        let mut command = Command::new("mongod");
        // With test commands a server can be made to fail at what it is told to.
        command
            .args(["--port", &port.to_string(), "--bind_ip", "127.0.0.1", "--nounixsocket", "--oplogSize", "16"])
            .args(["--wiredTigerCacheSizeGB", "0.25", "--setParameter", "enableTestCommands=1", "--dbpath"])
            .arg(data.path())
            .args(flags);
        if kind != Topology::Standalone {
            command.args(["--replSet", "rs"]);
        }
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = child.expect("mongod is installed, and in PATH: tests/run sees to that");
        let server = MongodProcess { child, address: format!("127.0.0.1:{port}"), _data: data };
        let limit = clock::now() + LIMIT;
        while TcpStream::connect(&server.address).is_err() {
            assert!(clock::now() < limit, "mongod does not come up");
            std::thread::sleep(Duration::from_millis(20));
        }
        if kind == Topology::ReplicaSet {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(server.becomes_primary(None));
        }
        server
    }

    async fn client(&self) -> Client {
        let url = format!("mongodb://{}/?directConnection=true", self.address);
        Client::with_uri_str(url).await.expect("a client")
    }

    /// Alone, or with another member, which may be lost: no election begins by itself.
    async fn becomes_primary(&self, other: Option<&MongodProcess>) {
        let admin = self.client().await.database("admin");
        let mut members = vec![doc! { "_id": 0, "host": &self.address }];
        members.extend(other.map(|other| doc! { "_id": 1, "host": &other.address, "priority": 0 }));
        let time: i32 = if other.is_some() { 3_600_000 } else { 10_000 };
        let config = doc! { "_id": "rs", "members": members, "settings": { "electionTimeoutMillis": time } };
        admin.run_command(doc! { "replSetInitiate": config }).await.expect("initiated");
        loop {
            let hello = admin.run_command(doc! { "hello": 1 }).await.expect("an answer");
            if hello.get_bool("isWritablePrimary").expect("it knows") {
                return;
            }
            if other.is_some() {
                // Not before both are there.
                let _ = admin.run_command(doc! { "replSetStepUp": 1 }).await;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn boundaries(&self) -> Collection<Document> {
        self.client().await.database("elect").collection("boundaries")
    }

    /// Makes so many of the next commands fail as the data say.
    async fn fails(&self, times: u32, data: Document) {
        let order = doc! { "configureFailPoint": "failCommand", "mode": { "times": times }, "data": data };
        self.client().await.database("admin").run_command(order).await.expect("it takes orders");
    }

    /// So many writes from now on are done, and their confirmation is not.
    async fn confirms_not(&self, writes: u32) {
        let timeout = doc! { "code": 64, "errmsg": "waiting for replication timed out" };
        self.fails(writes, doc! { "failCommands": ["findAndModify"], "writeConcernError": timeout }).await;
    }

    /// The next write of whoever calls itself so is under way for so long before it is made.
    async fn delays(&self, name: &str, time: Duration) {
        let time = i64::try_from(time.as_millis()).expect("a short time");
        let writes = ["findAndModify"];
        let delay = doc! { "failCommands": writes, "appName": name, "blockConnection": true, "blockTimeMS": time };
        self.fails(1, delay).await;
    }

    /// So many commands of this name find a server that is shutting down.
    async fn shuts_down_at(&self, command: &str, times: u32) {
        self.fails(times, doc! { "failCommands": [command], "errorCode": 11600 }).await;
    }
}

impl Drop for MongodProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn conforming(kind: Topology) {
    let server = MongodProcess::start(kind);
    let access = Access { request_timeout: Duration::from_secs(5), ..Access::default() };
    conforms(&StoreUnderTest {
        url: format!("mongodb://{}/team", server.address),
        access,
        ttl: Duration::from_secs(6),
        support: &conformance::MongodbSupport,
    });
}

#[test]
fn it_conforms_on_a_standalone_server() {
    conforming(Topology::Standalone);
}

#[test]
fn it_conforms_on_a_replica_set() {
    conforming(Topology::ReplicaSet);
}

/// A candidate's end of the store, without anything around it.
struct MongoCandidate {
    store: Box<dyn Store>,
    candidacy: Candidacy,
    events: Events,
}

impl MongoCandidate {
    /// Shorter than a candidate waits between two looks before it knows whether anybody leads.
    const RENEW_INTERVAL: Duration = Duration::from_millis(200);

    /// It waits for an answer for as long as a busy machine may need.
    fn at(server: &MongodProcess, name: &str) -> MongoCandidate {
        MongoCandidate::with(server, name, Duration::from_secs(20))
    }

    fn with(server: &MongodProcess, name: &str, request_timeout: Duration) -> MongoCandidate {
        let url = format!("mongodb://{}/?appName={name}", server.address);
        let access = Access { request_timeout, renew_interval: MongoCandidate::RENEW_INTERVAL, ..Access::default() };
        let (hints, events) = channel();
        let store = StoreUrl::parse(&url).map(|url| url.open(&access, hints)).expect("a URL");
        let identity = Identity {
            id: uuid::Uuid::new_v4().to_string(),
            name: name.to_owned(),
            host: "host.example".to_owned(),
            port: None,
        };
        let boundary = "cron".parse().expect("a name");
        let candidacy = Candidacy { boundary, identity, ttl: Duration::from_secs(30) };
        MongoCandidate { store: store.expect("opened"), candidacy, events }
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

    async fn is_credited(&mut self) {
        let renewal = self.renews().await;
        assert!(matches!(renewal, Ok(RenewResult::Credited { .. })), "{renewal:?}");
    }

    async fn lost(&mut self) -> String {
        match self.renews().await {
            Ok(RenewResult::Lost { why }) => why,
            other => panic!("{other:?}"),
        }
    }

    /// Waits for a hint.
    async fn is_told(&mut self) {
        let event = self.events.recv().await;
        assert!(matches!(event, Some(StoreEvent::Hint)), "{event:?}");
    }

    /// Waits until its cursor is open, which is a hint.
    async fn listens(&mut self) {
        while self.events.try_recv().is_ok() {}
        assert!(matches!(self.ask().await, Ok(CampaignResult::Waiting { .. })));
        self.is_told().await;
    }
}

fn with_server(kind: Topology, test: impl AsyncFnOnce(&MongodProcess)) {
    with(&MongodProcess::start(kind), test);
}

fn with(server: &MongodProcess, test: impl AsyncFnOnce(&MongodProcess)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    LocalSet::new().block_on(&runtime, async { timeout(LIMIT, test(server)).await.expect("in time") });
}

#[test]
fn a_write_that_no_majority_has_confirmed_is_not_credited_and_the_take_is_found_all_the_same() {
    with_server(Topology::ReplicaSet, async |server| {
        let mut one = MongoCandidate::at(server, "one");
        server.confirms_not(1).await;
        // To the candidate this is an answer that never came: it may lead, and does not know.
        let unknown = one.ask().await.expect_err("not confirmed").to_string();
        assert!(unknown.contains("majority"), "{unknown}");
        // It finds its own take by the nonce at the next look, and does not wait for itself.
        assert!(matches!(one.ask().await, Ok(CampaignResult::Won { .. })));
        server.confirms_not(1).await;
        let unconfirmed = one.renews().await.expect_err("nothing is credited").to_string();
        assert!(unconfirmed.contains("majority"), "{unconfirmed}");
        one.is_credited().await;
    });
}

/// A look shows what a majority has, which its take need not be yet: then it would take again, and free what it has.
#[test]
fn a_candidate_that_asks_again_after_its_take_finds_it() {
    with_server(Topology::ReplicaSet, async |server| {
        let mut one = MongoCandidate::at(server, "one");
        one.candidacy.ttl = Duration::from_secs(1);
        for _ in 0..20 {
            let term = one.wins().await;
            assert_eq!(one.wins().await, term);
            one.is_credited().await;
            one.store.release(&one.candidacy).await.expect("released");
        }
    });
}

/// A candidate that is stopped after such a take would leave the record held for a whole ttl.
#[test]
fn a_take_that_was_not_confirmed_is_given_back_by_a_release() {
    with_server(Topology::ReplicaSet, async |server| {
        let (mut one, mut two) = (MongoCandidate::at(server, "one"), MongoCandidate::at(server, "two"));
        server.confirms_not(1).await;
        one.ask().await.expect_err("not confirmed");
        one.store.release(&one.candidacy).await.expect("released");
        let answer = two.ask().await;
        assert!(matches!(answer, Ok(CampaignResult::Won { .. })), "{answer:?}");
    });
}

/// T1: the others count from when they see the write, which may be long before its answer.
#[test]
fn a_lease_counts_from_the_sending_of_the_renewal_however_late_the_answer() {
    with_server(Topology::Standalone, async |server| {
        let mut one = MongoCandidate::at(server, "one");
        one.wins().await;
        let delay = Duration::from_secs(1);
        server.delays("one", delay).await;
        let before = clock::now();
        match one.renews().await {
            Ok(RenewResult::Credited { sent, .. }) => {
                assert!(sent >= before && clock::now().since(sent) >= delay, "the answer came so much later");
            }
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn a_take_of_a_version_that_is_over_when_it_arrives_takes_nothing() {
    with_server(Topology::Standalone, async |server| {
        let (mut leader, mut other) = (MongoCandidate::at(server, "leader"), MongoCandidate::at(server, "other"));
        let ttl = Duration::from_secs(1);
        leader.candidacy.ttl = ttl;
        leader.wins().await;
        leader.is_credited().await;
        // It has stood unchanged for its ttl, and is renewed while the take is under way.
        assert!(matches!(other.ask().await, Ok(CampaignResult::Waiting { .. })));
        tokio::time::sleep(ttl).await;
        // Longer than a renewal takes on a busy machine.
        server.delays("other", 5 * ttl).await;
        let renewed = async {
            tokio::time::sleep(ttl / 3).await;
            leader.is_credited().await;
        };
        let (taken, ()) = tokio::join!(other.ask(), renewed);
        assert!(matches!(taken, Ok(CampaignResult::Waiting { .. })), "{taken:?}");
        leader.is_credited().await;
    });
}

#[test]
fn a_missing_record_is_taken_at_once_by_one_alone() {
    with_server(Topology::Standalone, async |server| {
        let began = clock::now();
        let mut players: Vec<MongoCandidate> =
            (0..8).map(|number| MongoCandidate::at(server, &format!("{number}"))).collect();
        let mut tasks = tokio::task::JoinSet::new();
        for mut player in players.drain(..) {
            tasks.spawn_local(
                async move { matches!(player.ask().await.expect("an answer"), CampaignResult::Won { .. }) },
            );
        }
        let won = tasks.join_all().await.into_iter().filter(|won| *won).count();
        assert_eq!(won, 1);
        assert!(clock::now().since(began) < Duration::from_secs(30), "nor is it waited for");
    });
}

#[test]
fn what_is_held_under_ones_name_by_a_term_that_is_over_is_given_back_first() {
    with_server(Topology::Standalone, async |server| {
        let mut one = MongoCandidate::at(server, "one");
        let first = one.wins().await;
        one.is_credited().await;
        // As after a lease that ran out and a release that was lost.
        let began = clock::now();
        let second = one.wins().await;
        assert!(second > first, "a term that is over does not come back: {second} after {first}");
        assert!(clock::now().since(began) < one.candidacy.ttl, "nor is it waited for");
    });
}

#[test]
fn a_ttl_that_was_edited_into_the_record_lengthens_no_lease() {
    with_server(Topology::Standalone, async |server| {
        let mut leader = MongoCandidate::at(server, "leader");
        leader.wins().await;
        leader.is_credited().await;
        let longer = doc! { "$set": { "ttlMs": 24 * 60 * 60 * 1000_i64 } };
        server.boundaries().await.update_one(doc! { "_id": "cron" }, longer).await.expect("edited");
        let requested = leader.candidacy.ttl;
        match leader.renews().await {
            Ok(RenewResult::Credited { ttl, .. }) => assert_eq!(ttl, Some(requested)),
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn a_renewal_writes_what_is_proclaimed_into_its_own_record_alone() {
    with_server(Topology::Standalone, async |server| {
        let (mut one, mut two) = (MongoCandidate::at(server, "one"), MongoCandidate::at(server, "two"));
        let mut observer = MongoCandidate::at(server, "observer");
        one.wins().await;
        one.candidacy.identity.name = "$term".to_owned();
        one.candidacy.identity.port = Some(9000);
        one.is_credited().await;
        let observation = observer.store.observe(&one.candidacy.boundary).await.expect("looked");
        let leader = observation.leader.expect("a leader");
        assert_eq!((leader.name.as_str(), leader.port), ("$term", Some(9000)));
        // As if it had been away for a ttl.
        let boundaries = server.boundaries().await;
        boundaries.update_one(doc! {}, doc! { "$set": { "state": "free" } }).await.expect("edited");
        let term = two.wins().await;
        one.candidacy.identity.name = "too late".to_owned();
        assert!(one.lost().await.contains("two leads"));
        two.is_credited().await;
        let leader = observer.store.observe(&one.candidacy.boundary).await.expect("looked").leader.expect("a leader");
        assert_eq!((leader.name.as_str(), leader.term), ("two", Some(term)));
    });
}

#[test]
fn whatever_is_done_to_the_record_by_hand_is_told_from_an_older_state_of_it() {
    for kind in [Topology::Standalone, Topology::ReplicaSet] {
        with_server(kind, async |server| {
            let boundaries = server.boundaries().await;
            for (edit, said) in [
                (doc! { "$set": { "state": "free" } }, "released"),
                (doc! { "$set": { "leaderUUID": "x", "leaderName": "somebody" } }, "somebody leads"),
                (doc! { "$set": { "term": 5 } }, "another term"),
            ] {
                let mut one = MongoCandidate::at(server, "one");
                one.wins().await;
                one.is_credited().await;
                boundaries.update_one(doc! {}, edit).await.expect("edited");
                let why = one.lost().await;
                assert!(why.contains(said), "{why}");
                boundaries.delete_many(doc! {}).await.expect("deleted");
            }
            let mut one = MongoCandidate::at(server, "one");
            one.wins().await;
            boundaries.delete_many(doc! {}).await.expect("deleted");
            assert!(one.lost().await.contains("gone"));
        });
    }
}

#[test]
fn what_is_not_elects_is_refused_and_hides_no_other_boundary() {
    with_server(Topology::Standalone, async |server| {
        let boundaries = server.boundaries().await;
        let predecessors = doc! {
            "_id": "cron", "leaderUUID": "i", "leaderHostname": "h", "leaderPort": 1, "ttlExpire": DateTime::from_millis(1),
        };
        boundaries.insert_one(predecessors.clone()).await.expect("inserted");
        boundaries.insert_one(doc! { "_id": 5 }).await.expect("inserted");
        let mut one = MongoCandidate::at(server, "one");
        let refusal = one.ask().await.expect_err("refused");
        assert!(matches!(&refusal, StoreError::Obstacle(why) if why.contains("delete it")), "{refusal}");
        assert_eq!(boundaries.find_one(doc! { "_id": "cron" }).await.expect("found"), Some(predecessors));
        let mut other = MongoCandidate::at(server, "other");
        other.candidacy.boundary = "another".parse().expect("a name");
        other.wins().await;
        let seen = other.store.observe_all(crate::store::Detail::Lease).await.expect("surveyed");
        let seen: Vec<_> = seen.iter().map(|(boundary, seen)| (boundary.as_str(), seen.is_ok())).collect();
        assert_eq!(seen, [("another", true), ("cron", false)]);
    });
}

#[test]
fn where_records_may_be_removed_a_missing_one_becomes_a_version_that_a_removal_changes() {
    with_server(Topology::Standalone, async |server| {
        let boundaries = server.boundaries().await;
        // It removes the records of leaders.
        let options = ::mongodb::options::IndexOptions::builder().expire_after(Duration::from_secs(60)).build();
        let index = IndexModel::builder().keys(doc! { "ttlExpire": 1 }).options(options).build();
        boundaries.create_index(index).await.expect("created");
        let mut one = MongoCandidate::at(server, "one");
        let mut versions = Vec::new();
        for _ in 0..3 {
            let standing = one.ask().await.expect("an answer");
            assert!(matches!(standing, CampaignResult::Waiting { decided: false, .. }), "{standing:?}");
            let vacant = boundaries.find_one(doc! { "_id": "cron" }).await.expect("found").expect("a record");
            assert!(vacant.get_bool("vacant").is_ok_and(|vacant| vacant), "{vacant}");
            assert_eq!(vacant.get_str("state").ok(), Some("free"), "it is cleared away like a free one");
            versions.push(vacant.get_str("leaderUUID").expect("an id").to_owned());
            boundaries.delete_one(doc! { "_id": "cron" }).await.expect("deleted");
        }
        versions.dedup();
        assert_eq!(versions.len(), 3, "each absence is one of its own");
    });
}

/// Waits for the index on `ttlExpire`.
async fn own_index(boundaries: &Collection<Document>) -> ::mongodb::options::IndexOptions {
    loop {
        let mut indexes = boundaries.list_indexes().await.expect("listed");
        while indexes.advance().await.expect("listed") {
            let index = indexes.deserialize_current().expect("an index");
            if index.keys == doc! { "ttlExpire": 1 } {
                return index.options.expect("it has options");
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn the_index_spares_leaders_and_is_never_required() {
    for kind in [Topology::Standalone, Topology::ReplicaSet] {
        with_server(kind, async |server| {
            let boundaries = server.boundaries().await;
            let mut one = MongoCandidate::at(server, "one");
            one.wins().await;
            one.is_credited().await;
            let ours = own_index(&boundaries).await;
            assert_eq!(ours.partial_filter_expression, Some(doc! { "state": "free" }));
            assert_eq!(ours.expire_after, Some(Duration::from_secs(7 * 24 * 60 * 60)));
            boundaries.drop().await.expect("dropped");
            // Of the same name, and something else.
            let name = ours.name.expect("it has a name");
            let options = ::mongodb::options::IndexOptions::builder().name(name).build();
            let other = IndexModel::builder().keys(doc! { "since": 1 }).options(options).build();
            boundaries.create_index(other).await.expect("created");
            let mut one = MongoCandidate::at(server, "one");
            one.wins().await;
            one.is_credited().await;
        });
    }
}

#[test]
fn an_index_whose_creation_was_interrupted_is_created_later() {
    with_server(Topology::Standalone, async |server| {
        let mut one = MongoCandidate::at(server, "one");
        server.shuts_down_at("createIndexes", 1).await;
        one.wins().await;
        // Each renewal may begin another attempt.
        let renewals = async {
            loop {
                tokio::time::sleep(Duration::from_millis(100)).await;
                one.is_credited().await;
            }
        };
        tokio::select! {
            () = renewals => {}
            _ = async { own_index(&server.boundaries().await).await } => {}
        }
    });
}

/// One of them might remove the record of a leader.
#[test]
fn a_candidate_that_cannot_list_the_indexes_does_not_lead() {
    with_server(Topology::Standalone, async |server| {
        let mut one = MongoCandidate::at(server, "one");
        // The driver repeats a read once.
        server.shuts_down_at("listIndexes", 2).await;
        let unknown = one.ask().await.expect_err("the indexes are not known");
        assert!(matches!(unknown, StoreError::Unavailable(_)), "{unknown:?}");
        one.wins().await;
    });
}
