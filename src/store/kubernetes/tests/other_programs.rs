//! Programs with client-go's leader election, and people with kubectl, beside candidates of elect's.

use serde_json::{Value, json};

use super::super::stored_record::millis;
use super::double::Kind;
use super::{LeaseCandidate, NAMESPACE, TTL, edit, held_by_go, lease, record, with_server};
use crate::store::{CampaignResult, RenewResult, StoreError};
use elect_keeper::clock;

const RENEW_TIME: &str = "2026-11-29T10:00:00.000000Z";

#[test]
fn a_lease_is_what_client_go_reads() {
    with_server(async |server| {
        let mut one = LeaseCandidate::new(server, "one");
        let before = clock::wall_millis();
        let term = one.win().await;
        let taken = lease(server);
        let spec = &taken["spec"];
        assert_eq!(spec["holderIdentity"], format!("one_{}", one.candidacy.identity.id));
        assert_eq!((spec["leaseDurationSeconds"].as_i64(), spec["leaseTransitions"].as_i64()), (Some(2), Some(0)));
        let time = |lease: &Value, name: &str| millis(lease["spec"][name].as_str().expect("a time")).expect("a time");
        assert!(time(&taken, "acquireTime") >= before && time(&taken, "renewTime") >= before);
        assert_eq!(taken["metadata"]["labels"]["app.kubernetes.io/managed-by"], "elect");
        assert_eq!(record(&taken)["boundary"], "cron");
        let mut last = time(&taken, "renewTime");
        for _ in 0..3 {
            one.renews().await;
            let renewed = lease(server);
            let this = time(&renewed, "renewTime");
            assert!(this / 1000 > last / 1000, "client-go compares seconds: {this} after {last}");
            assert_eq!(renewed["spec"]["acquireTime"], taken["spec"]["acquireTime"]);
            last = this;
        }
        assert_eq!(record(&lease(server))["nonce"], record(&taken)["nonce"].as_u64().expect("a number") + 3);
        one.release().await;
        let free = lease(server);
        assert_eq!((&free["spec"]["holderIdentity"], &free["spec"]["leaseDurationSeconds"]), (&json!(""), &json!(1)));
        assert!(one.win().await > term);
        assert_eq!(lease(server)["spec"]["leaseTransitions"], 1);
    });
}

#[test]
fn a_holder_of_client_go_is_waited_for_and_shown_and_its_release_is_taken_at_once() {
    with_server(async |server| {
        let mut one = LeaseCandidate::new(server, "one");
        let first = one.win().await;
        one.renews().await;
        // It takes over with the annotation of the last candidate in place.
        edit(server, |lease| held_by_go(lease, RENEW_TIME));
        let lost = one.renew().await;
        assert!(matches!(&lost, Ok(RenewResult::Lost { why }) if why.contains("go_1")), "{lost:?}");
        let mut two = LeaseCandidate::new(server, "two");
        two.waits().await;
        edit(server, |lease| lease["spec"]["renewTime"] = "2026-11-29T10:00:01.000000Z".into());
        let leader = two.waits().await.leader.expect("it was seen to renew");
        assert_eq!((leader.id.as_str(), leader.term, leader.host), ("go_1", None, None));
        edit(server, |lease| {
            lease["spec"]["holderIdentity"] = "".into();
            lease["spec"]["leaseDurationSeconds"] = 1.into();
        });
        let answer = two.campaign().await;
        let Ok(CampaignResult::Won { term: second }) = answer else { panic!("not at once: {answer:?}") };
        assert!(second > first, "{second} after {first}");
        assert_eq!(record(&lease(server))["former"], Value::Null, "nothing is known of the term before");
        two.renews().await;
        // And once more, and this time it dies.
        edit(server, |lease| held_by_go(lease, "2026-11-29T10:00:02.000000Z"));
        assert!(matches!(two.renew().await, Ok(RenewResult::Lost { .. })));
        let seen = clock::now();
        one.waits().await;
        assert!(one.win().await > second);
        assert!(clock::now().since(seen) >= TTL);
    });
}

/// A client of that kind counts its own transitions, and may come to the number that elect has written.
#[test]
fn a_holder_whose_annotation_is_anothers_has_no_term_and_is_not_elects() {
    with_server(async |server| {
        let mut one = LeaseCandidate::new(server, "one");
        one.win().await;
        one.renews().await;
        edit(server, |lease| lease["spec"]["holderIdentity"] = "go_1".into());
        let mut two = LeaseCandidate::new(server, "two");
        let leader = two.waits().await.leader.expect("it has renewed just now");
        assert_eq!((leader.id.as_str(), leader.term), ("go_1", None));
        assert!(matches!(one.renew().await, Ok(RenewResult::Lost { .. })));
    });
}

#[test]
fn labels_and_annotations_of_others_are_no_change_and_stay() {
    with_server(async |server| {
        let (mut one, mut two) = (LeaseCandidate::new(server, "one"), LeaseCandidate::new(server, "two"));
        one.win().await;
        one.renews().await;
        two.waits().await;
        let seen = clock::now();
        let version = lease(server)["metadata"]["resourceVersion"].clone();
        edit(server, |lease| lease["metadata"]["annotations"]["team"] = "a".into());
        edit(server, |lease| lease["metadata"]["finalizers"] = json!(["example.com/kept"]));
        assert_ne!(lease(server)["metadata"]["resourceVersion"], version);
        // Another label before each look: a wait that starts again with it never ends.
        for number in 0.. {
            edit(server, |lease| lease["metadata"]["labels"]["number"] = number.to_string().into());
            if matches!(two.campaign().await, Ok(CampaignResult::Won { .. })) {
                break;
            }
            assert!(clock::now().since(seen) < super::LIMIT, "a label restarts the wait");
            tokio::time::sleep(TTL / 20).await;
        }
        two.renews().await;
        edit(server, |lease| lease["metadata"]["labels"]["team"] = "a".into());
        two.renews().await;
        let kept = lease(server);
        assert_eq!(
            (&kept["metadata"]["annotations"]["team"], &kept["metadata"]["labels"]["team"]),
            (&json!("a"), &json!("a"))
        );
        assert_eq!(kept["metadata"]["finalizers"], json!(["example.com/kept"]));
    });
}

#[test]
fn a_lease_whose_holder_the_server_chooses_is_an_obstacle() {
    with_server(async |server| {
        let spec = json!({ "strategy": "OldestEmulationVersion", "holderIdentity": "x" });
        server.with_objects(|objects| objects.add(Kind::Lease, NAMESPACE, "cron", json!({ "spec": spec })));
        let mut one = LeaseCandidate::new(server, "one");
        for (change, word) in [("", "spec.strategy"), ("h", "512 bytes")] {
            if !change.is_empty() {
                edit(server, |lease| lease["spec"] = json!({ "holderIdentity": change.repeat(513) }));
            }
            let error = one.campaign().await.expect_err("an obstacle");
            assert!(matches!(&error, StoreError::Obstacle(why) if why.contains(word)), "{error:?}");
        }
    });
}

/// As `kubectl create` leaves it, and as a hand may.
#[test]
fn a_lease_without_a_holder_is_free_whatever_else_is_in_it() {
    for spec in [Value::Null, json!({}), json!({ "renewTime": RENEW_TIME }), json!({ "holderIdentity": "" })] {
        with_server(async |server| {
            let object = json!({ "metadata": { "labels": null }, "spec": spec });
            server.with_objects(|objects| objects.add(Kind::Lease, NAMESPACE, "cron", object));
            let mut one = LeaseCandidate::new(server, "one");
            assert!(one.win().await > 0);
            one.renews().await;
        });
    }
}

/// The time of a holder is for people: its hand-made steps neither shorten a wait nor end a term.
#[test]
fn an_edited_renew_time_is_waited_out_and_ends_no_term() {
    with_server(async |server| {
        let (mut one, mut two) = (LeaseCandidate::new(server, "one"), LeaseCandidate::new(server, "two"));
        one.win().await;
        one.renews().await;
        two.waits().await;
        for time in ["1970-01-01T00:00:00.000000Z", "2099-01-01T00:00:00.000000Z", "2001-01-01T00:00:00.000000Z"] {
            edit(server, |lease| lease["spec"]["renewTime"] = time.into());
            two.waits().await;
            one.renews().await;
            assert_ne!(lease(server)["spec"]["renewTime"], time);
            two.waits().await;
        }
        // Nor does a duration that a hand has lengthened count for less.
        edit(server, |lease| lease["spec"]["leaseDurationSeconds"] = 5.into());
        let sent = clock::now();
        two.waits().await;
        two.win().await;
        assert!(clock::now().since(sent) >= TTL * 2, "a longer duration in the spec was not waited out");
    });
}
