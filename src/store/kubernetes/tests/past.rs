//! Leases that have vanished, that were made again, and API servers that were restored from a backup.

use std::time::Duration;

use serde_json::json;

use super::double::{ApiServer, Kind};
use super::{LIMIT, LeaseCandidate, NAMESPACE, TTL, edit, lease, with_server};
use crate::store::worker::StoreEvent;
use crate::store::{CampaignResult, RenewResult};
use elect_keeper::clock;

/// Wins, and not before this one has waited for a whole ttl.
async fn wins_after_a_ttl(candidate: &mut LeaseCandidate) {
    let start = clock::now();
    candidate.waits().await;
    candidate.win().await;
    let waited = clock::now().since(start);
    assert!(waited >= TTL, "it has waited for {waited:?} only");
    candidate.renews().await;
}

async fn was_led(server: &ApiServer) {
    let mut before = LeaseCandidate::new(server, "before");
    before.win().await;
    before.renews().await;
    before.release().await;
}

#[test]
fn a_lease_that_was_never_there_is_created_at_once() {
    with_server(async |server| {
        let mut one = LeaseCandidate::new(server, "one");
        assert!(matches!(one.campaign().await, Ok(CampaignResult::Won { .. })));
        one.renews().await;
    });
}

#[test]
fn a_lease_that_has_vanished_is_waited_for_and_its_leader_is_told_at_once() {
    with_server(async |server| {
        let (mut one, mut two) = (LeaseCandidate::new(server, "one"), LeaseCandidate::new(server, "two"));
        let term = one.win().await;
        one.renews().await;
        two.waits().await;
        server.delete_lease(NAMESPACE, "cron");
        let told = async {
            loop {
                match one.events.recv().await {
                    Some(StoreEvent::Ousted { term: ousted }) => return ousted,
                    Some(_) => {}
                    None => panic!("the store is gone"),
                }
            }
        };
        assert_eq!(tokio::time::timeout(LIMIT, told).await.expect("the watch tells"), term);
        wins_after_a_ttl(&mut two).await;
        assert!(matches!(one.renew().await, Ok(RenewResult::Lost { .. })));
    });
}

/// `kubectl delete` and a client that creates it again, between two looks.
#[test]
fn a_lease_that_was_made_again_is_waited_for_even_if_it_is_free() {
    with_server(async |server| {
        let (mut one, mut two) = (LeaseCandidate::new(server, "one"), LeaseCandidate::new(server, "two"));
        one.win().await;
        one.renews().await;
        two.waits().await;
        let as_it_was = lease(server);
        server.delete_lease(NAMESPACE, "cron");
        server.with_objects(|objects| objects.add(Kind::Lease, NAMESPACE, "cron", json!({ "spec": {} })));
        wins_after_a_ttl(&mut two).await;
        assert!(matches!(one.renew().await, Ok(RenewResult::Lost { .. })));
        two.release().await;
        // From a file, with the record of the leader.
        let mut three = LeaseCandidate::new(server, "three");
        three.win().await;
        three.renews().await;
        let held = lease(server);
        server.delete_lease(NAMESPACE, "cron");
        server.with_objects(|objects| objects.add(Kind::Lease, NAMESPACE, "cron", held));
        let lost = three.renew().await;
        assert!(matches!(&lost, Ok(RenewResult::Lost { why }) if why.contains("created again")), "{lost:?}");
        assert_ne!(lease(server)["metadata"]["uid"], as_it_was["metadata"]["uid"]);
    });
}

/// The Lease in the backup is free, or held by the former leader; the present one may lead on its last lease.
#[test]
fn an_older_lease_than_one_that_was_seen_is_waited_for() {
    for is_free in [true, false] {
        with_server(async |server| {
            was_led(server).await;
            let (mut one, mut two) = (LeaseCandidate::new(server, "one"), LeaseCandidate::new(server, "two"));
            if !is_free {
                two.win().await;
                two.renews().await;
            }
            let backup = server.backup();
            if !is_free {
                two.release().await;
            }
            one.win().await;
            one.renews().await;
            let shown = two.waits().await;
            assert_eq!(shown.leader.expect("a leader").name, "one");
            server.restore(backup);
            // The leader finds out, and has to stop.
            assert!(matches!(one.renew().await, Ok(RenewResult::Lost { .. })));
            wins_after_a_ttl(&mut two).await;
        });
    }
}

/// In the backup the leader leads already: it goes on.
#[test]
fn a_leader_goes_on_where_a_backup_has_its_term() {
    with_server(async |server| {
        let (mut one, mut two) = (LeaseCandidate::new(server, "one"), LeaseCandidate::new(server, "two"));
        let term = one.win().await;
        one.renews().await;
        let backup = server.backup();
        one.renews().await;
        one.renews().await;
        two.waits().await;
        server.restore(backup);
        one.renews().await;
        two.waits().await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        one.renews().await;
        assert_eq!(two.waits().await.leader.expect("a leader").term, Some(term));
    });
}

/// The server has executed it, and nothing else may follow from it than its own recognition.
#[test]
fn a_vacant_lease_is_left_alone_by_all_who_have_seen_the_one_before() {
    with_server(async |server| {
        let mut candidates = ["one", "two"].map(|name| LeaseCandidate::new(server, name));
        was_led(server).await;
        let [one, two] = &mut candidates;
        one.win().await;
        one.renews().await;
        two.waits().await;
        one.release().await;
        server.delete_lease(NAMESPACE, "cron");
        let start = clock::now();
        two.waits().await;
        one.waits().await;
        assert_eq!(super::record(&lease(server))["state"], "vacant");
        // A newcomer has to wait as well: the Lease tells it of the longest ttl.
        let mut three = LeaseCandidate::new(server, "three");
        three.candidacy.ttl = TTL / 2;
        three.waits().await;
        three.win().await;
        assert!(clock::now().since(start) >= TTL, "the vacant Lease was not waited out");
        three.renews().await;
        edit(server, |lease| lease["metadata"]["labels"] = json!({}));
        three.renews().await;
    });
}
