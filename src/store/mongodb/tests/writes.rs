//! Which writes wait for what.

use std::time::Duration;

use ::mongodb::bson::oid::ObjectId;
use ::mongodb::bson::{Document, doc};

use super::{MongoCandidate, MongodProcess, Topology, with, with_server};
use crate::store::{CampaignResult, RenewResult, StoreError};
use elect_keeper::clock;

impl MongodProcess {
    /// Keeps every command from now on.
    async fn keeps_commands(&self) {
        self.client().await.database("elect").run_command(doc! { "profile": 2 }).await.expect("it takes orders");
    }

    /// The write concerns of the takes and renewals, in their order.
    async fn write_concerns(&self) -> Vec<Document> {
        let commands = self.client().await.database("elect").collection::<Document>("system.profile");
        let mut kept = commands.find(doc! { "command.findAndModify": "boundaries" }).await.expect("found");
        let mut concerns = Vec::new();
        while kept.advance().await.expect("a batch") {
            let entry = kept.deserialize_current().expect("an entry");
            let command = entry.get_document("command").expect("a command");
            concerns.push(command.get_document("writeConcern").expect("a concern").clone());
        }
        concerns
    }

    /// How many commands of this name there have been.
    async fn commands(&self, name: &str) -> i64 {
        let status = self.client().await.database("admin").run_command(doc! { "serverStatus": 1 }).await.expect("told");
        let metrics = status.get_document("metrics").and_then(|metrics| metrics.get_document("commands"));
        let command = metrics.and_then(|commands| commands.get_document(name)).expect("it counts them");
        command.get_i64("total").expect("a number")
    }
}

/// By the write at the first contact. Each look is refused as well: the driver sends the write concern with it.
#[test]
fn a_server_that_confirms_nothing_is_refused_before_anything_is_won() {
    with(&MongodProcess::start_with(Topology::Standalone, &["--nojournal"]), async |server| {
        let mut one = MongoCandidate::at(server, "one");
        for _ in 0..2 {
            let answer = one.ask().await;
            let Err(StoreError::Refused(why)) = &answer else { panic!("{answer:?}") };
            assert!(why.contains("journal"), "{why}");
        }
        assert_eq!(server.boundaries().await.count_documents(doc! {}).await.expect("counted"), 0);
    });
}

/// The take that is in the way is not to be seen, since no majority has it. Without a wait, every candidate would look and take
/// as fast as the server answers, and say nothing of it.
#[test]
fn without_a_majority_a_candidate_waits_for_one_and_says_so() {
    let other = MongodProcess::start(Topology::Member);
    with(&MongodProcess::start(Topology::Member), async |server| {
        server.becomes_primary(Some(&other)).await;
        let (mut old, mut one) = (MongoCandidate::at(server, "old"), MongoCandidate::at(server, "one"));
        let mut two = MongoCandidate::with(server, "two", Duration::from_secs(2));
        old.wins().await;
        old.is_credited().await;
        // Both know the server.
        for waiter in [&mut one, &mut two] {
            assert!(matches!(waiter.ask().await, Ok(CampaignResult::Waiting { .. })));
        }
        old.store.release(&old.candidacy).await.expect("released");
        drop(other);
        let taken = one.ask().await;
        assert!(matches!(taken, Ok(CampaignResult::Won { .. })), "on this member alone: {taken:?}");
        let before = server.commands("aggregate").await + server.commands("findAndModify").await;
        let (began, watched, mut asked) = (clock::now(), Duration::from_secs(5), 0);
        while clock::now().since(began) < watched {
            let answer = two.ask().await;
            let Err(StoreError::Unavailable(why)) = &answer else { panic!("{answer:?}") };
            assert!(why.contains("majority"), "{why}");
            asked += 1;
        }
        // A look, a take, and a wait for three quarters of an attempt.
        assert!(asked <= 5, "{asked} times in {watched:?}");
        let requests = server.commands("aggregate").await + server.commands("findAndModify").await - before;
        // Both count those that listen, a few times if the answers come late.
        assert!(requests <= 2 * asked + 8, "{requests} requests in {asked} attempts");
        let renewal = one.renews().await;
        assert!(matches!(renewal, Err(StoreError::Unavailable(_))), "and nobody leads: {renewal:?}");
    });
}

/// Each look before which a candidate waits for a majority is a write to the disks of a majority.
#[test]
fn a_take_that_failed_is_waited_for_until_another_candidate_leads_and_no_longer() {
    with_server(Topology::ReplicaSet, async |server| {
        let (mut old, mut one) = (MongoCandidate::at(server, "old"), MongoCandidate::at(server, "one"));
        let mut two = MongoCandidate::at(server, "two");
        old.wins().await;
        old.is_credited().await;
        for waiter in [&mut one, &mut two] {
            assert!(matches!(waiter.ask().await, Ok(CampaignResult::Waiting { .. })));
        }
        old.store.release(&old.candidacy).await.expect("released");
        server.fails(1, doc! { "failCommands": ["findAndModify"], "appName": "one", "errorCode": 50 }).await;
        let unknown = one.ask().await;
        assert!(matches!(unknown, Err(StoreError::Unavailable(_))), "{unknown:?}");
        two.wins().await;
        two.is_credited().await;
        let before = server.commands("update").await;
        assert!(matches!(one.ask().await, Ok(CampaignResult::Waiting { .. })));
        let first = server.commands("update").await;
        assert_eq!(first, before + 1, "its take may be there");
        for _ in 0..10 {
            assert!(matches!(one.ask().await, Ok(CampaignResult::Waiting { .. })));
        }
        assert_eq!(server.commands("update").await, first, "it cannot be there any more");
        // Nor does it hinder the next take.
        two.store.release(&two.candidacy).await.expect("released");
        one.wins().await;
        one.is_credited().await;
    });
}

/// The renewal confirms both, so that one wait for the disks is enough before the command starts.
#[test]
fn a_take_waits_for_no_confirmation_and_each_renewal_for_that_of_a_majority() {
    for kind in [Topology::Standalone, Topology::ReplicaSet] {
        with_server(kind, async |server| {
            server.keeps_commands().await;
            let mut one = MongoCandidate::at(server, "one");
            one.wins().await;
            one.is_credited().await;
            one.is_credited().await;
            let concerns = server.write_concerns().await;
            let [take, renewals @ ..] = &concerns[..] else { panic!("nothing was written") };
            assert_eq!(take, &doc! { "w": 1 });
            assert_eq!(renewals.len(), 2);
            renewals.iter().for_each(is_confirmed);
        });
    }
}

fn is_confirmed(concern: &Document) {
    assert_eq!(concern.get_str("w").ok(), Some("majority"), "{concern}");
    assert_eq!(concern.get_bool("j").ok(), Some(true), "{concern}");
}

/// A free record is handed over without a wait. Another one was waited for, and a primary that was cut off may show it.
#[test]
fn a_take_of_a_record_that_was_waited_for_waits_for_a_majority() {
    with_server(Topology::ReplicaSet, async |server| {
        let (mut old, mut one) = (MongoCandidate::at(server, "old"), MongoCandidate::at(server, "one"));
        old.candidacy.ttl = Duration::from_secs(1);
        one.candidacy.ttl = Duration::from_secs(1);
        old.wins().await;
        old.is_credited().await;
        server.keeps_commands().await;
        // The other one has died.
        one.wins().await;
        let concerns = server.write_concerns().await;
        assert_eq!(concerns.len(), 1, "{concerns:?}");
        concerns.iter().for_each(is_confirmed);
        one.is_credited().await;
        one.store.release(&one.candidacy).await.expect("released");
        old.wins().await;
        assert_eq!(server.write_concerns().await.last(), Some(&doc! { "w": 1 }));
    });
}

/// Otherwise the attempt would only be too slow, and cost the candidate its connections.
#[test]
fn a_wait_for_a_majority_that_begins_late_ends_in_time_to_say_so() {
    let other = MongodProcess::start(Topology::Member);
    with(&MongodProcess::start(Topology::Member), async |server| {
        server.becomes_primary(Some(&other)).await;
        let (mut old, mut one) = (MongoCandidate::at(server, "old"), MongoCandidate::at(server, "one"));
        let limit = Duration::from_secs(6);
        let mut two = MongoCandidate::with(server, "two", limit);
        old.wins().await;
        old.is_credited().await;
        for waiter in [&mut one, &mut two] {
            assert!(matches!(waiter.ask().await, Ok(CampaignResult::Waiting { .. })));
        }
        old.store.release(&old.candidacy).await.expect("released");
        drop(other);
        one.wins().await;
        // Its take comes too late, and it learns so when two fifths of the attempt are over.
        server.delays("two", limit * 2 / 5).await;
        let answer = two.ask().await;
        let Err(StoreError::Unavailable(why)) = &answer else { panic!("{answer:?}") };
        assert!(why.contains("majority"), "{why}");
    });
}

/// A take would be, and its renewal would fail when it is too late to say so at start.
#[test]
fn where_writes_are_not_confirmed_nothing_is_won_at_the_first_contact() {
    with_server(Topology::ReplicaSet, async |server| {
        let timeout = doc! { "code": 64, "errmsg": "waiting for replication timed out" };
        server.fails(2, doc! { "failCommands": ["update"], "appName": "one", "writeConcernError": timeout }).await;
        let mut one = MongoCandidate::at(server, "one");
        for _ in 0..2 {
            let answer = one.ask().await;
            let Err(StoreError::Unavailable(why)) = &answer else { panic!("{answer:?}") };
            assert!(why.contains("majority"), "{why}");
            assert_eq!(server.boundaries().await.count_documents(doc! {}).await.expect("counted"), 0);
        }
        one.wins().await;
    });
}

/// As when the primary that has made it is lost before a majority has it.
#[test]
fn a_take_that_was_forgotten_is_never_credited() {
    for kind in [Topology::Standalone, Topology::ReplicaSet] {
        with_server(kind, async |server| {
            let (mut old, mut one) = (MongoCandidate::at(server, "old"), MongoCandidate::at(server, "one"));
            old.wins().await;
            old.is_credited().await;
            old.store.release(&old.candidacy).await.expect("released");
            let boundaries = server.boundaries().await;
            let before = boundaries.find_one(doc! {}).await.expect("read").expect("a record");
            one.wins().await;
            boundaries.replace_one(doc! {}, &before).await.expect("put back");
            let renewal = one.renews().await;
            assert!(!matches!(renewal, Ok(RenewResult::Credited { .. })), "{renewal:?}");
            let after = boundaries.find_one(doc! {}).await.expect("read").expect("a record");
            assert_eq!(after, before, "nothing is written under a take that is not there");
        });
    }
}

#[test]
fn no_answer_is_kept_for_a_repetition_by_the_driver() {
    with_server(Topology::ReplicaSet, async |server| {
        let mut one = MongoCandidate::at(server, "one");
        one.wins().await;
        one.is_credited().await;
        one.store.release(&one.candidacy).await.expect("released");
        let config = server.client().await.database("config");
        for kept in ["transactions", "image_collection"] {
            let count = config.collection::<Document>(kept).count_documents(doc! {}).await.expect("counted");
            assert_eq!(count, 0, "{kept}");
        }
    });
}

/// The look that follows a hint asks for both at once.
#[test]
fn an_election_of_mongoelector_is_found_beside_a_record_that_was_released() {
    with_server(Topology::Standalone, async |server| {
        let (mut leader, mut next) = (MongoCandidate::at(server, "leader"), MongoCandidate::at(server, "next"));
        leader.wins().await;
        leader.is_credited().await;
        next.listens().await;
        let elector = server.client().await.database("elect").collection::<Document>("Elector");
        let theirs =
            doc! { "_id": "cron", "leaderUUID": ObjectId::new(), "leaderHostname": "web-7", "leaderPort": 8080 };
        elector.insert_one(theirs).await.expect("inserted");
        leader.store.release(&leader.candidacy).await.expect("released");
        for _ in 0..2 {
            let answer = next.ask().await;
            let Err(StoreError::Obstacle(obstacle)) = &answer else { panic!("{answer:?}") };
            assert!(obstacle.contains("web-7:8080 leads"), "{obstacle}");
        }
        elector.delete_one(doc! {}).await.expect("deleted");
        assert!(matches!(next.ask().await, Ok(CampaignResult::Won { .. })));
    });
}
