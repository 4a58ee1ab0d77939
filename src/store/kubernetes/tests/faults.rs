//! An API server that is overloaded, slow, gone, or refuses.

use std::time::Duration;

use super::double::{ApiServer, Fault, USER};
use super::{LeaseCandidate, TTL, access, lease, url_of, with_server};
use crate::store::{Access, CampaignResult, RenewResult, StoreError};
use elect_keeper::clock;

fn is_unavailable<T: std::fmt::Debug>(answer: Result<T, StoreError>, word: &str) {
    let error = answer.expect_err("an outage");
    assert!(matches!(&error, StoreError::Unavailable(why) if why.contains(word)), "{error:?}");
}

/// A pause of ten seconds is longer than a leader can obey: half of its ttl, and its renewal interval, are four.
#[test]
fn a_server_with_too_many_requests_is_left_alone_for_as_long_as_the_lease_allows() {
    with_server(async |server| {
        let renew_interval = Duration::from_secs(4);
        let access = Access { request_timeout: renew_interval / 2, renew_interval, ..access() };
        let mut one = LeaseCandidate::at(&url_of(server), "one", &access);
        one.candidacy.ttl = 2 * renew_interval;
        one.win().await;
        let credited = one.renews().await;
        server.fault("update", 1, Fault::TooMany(10));
        is_unavailable(one.renew().await, "429");
        let asked = server.requests();
        let mut refused = 0;
        while server.requests() == asked {
            match one.renew().await {
                Ok(RenewResult::Credited { .. }) => break,
                answer => is_unavailable(answer, "left alone"),
            }
            refused += 1;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let paused = clock::now().since(credited);
        assert!(refused > 0 && paused >= renew_interval, "{refused} {paused:?}");
        one.renews().await;
    });
}

/// A candidate that waits for an answer as long as a busy machine may need, and no longer if none will come.
fn that_meets(fault: Fault, server: &ApiServer) -> LeaseCandidate {
    let is_silent = matches!(fault, Fault::Stall | Fault::StallAfterCommit);
    let request_timeout = Duration::from_millis(if is_silent { 1_500 } else { 30_000 });
    LeaseCandidate::at(&url_of(server), "one", &Access { request_timeout, ..access() })
}

#[test]
fn an_outage_of_the_server_or_of_its_etcd_is_no_answer() {
    for fault in [Fault::Status(500), Fault::Status(503), Fault::Status(504), Fault::TooMany(0), Fault::Stall] {
        with_server(async |server| {
            let mut one = that_meets(fault, server);
            one.win().await;
            one.renews().await;
            server.fault("update", 1, fault);
            is_unavailable(one.renew().await, "");
            one.renews().await;
        });
    }
}

/// The take is there, and is recognized by its nonce; nothing is credited before a renewal.
#[test]
fn a_write_that_was_done_and_not_answered_is_found_and_starts_no_lease() {
    for fault in [Fault::ResetAfterCommit, Fault::StallAfterCommit] {
        with_server(async |server| {
            let mut one = that_meets(fault, server);
            // The first create is the trial of the right.
            server.fault("create", 1, Fault::Status(503));
            is_unavailable(one.campaign().await, "503");
            assert!(one.campaign().await.is_ok());
            one.renews().await;
            one.release().await;
            server.fault("update", 1, fault);
            is_unavailable(one.campaign().await, "");
            let Ok(CampaignResult::Won { term }) = one.campaign().await else { panic!("not recognized") };
            assert_eq!(super::record(&lease(server))["term"], term);
            // A renewal: the next one finds its own write, and renews again.
            server.fault("update", 1, fault);
            is_unavailable(one.renew().await, "");
            let before = clock::now();
            assert!(one.renews().await >= before, "a write whose answer did not come was credited");
            server.fault("update", 1, fault);
            is_unavailable(one.store.release(&one.candidacy).await, "");
            one.release().await;
            let mut two = LeaseCandidate::new(server, "two");
            assert!(matches!(two.campaign().await, Ok(CampaignResult::Won { .. })));
        });
    }
}

#[test]
fn a_token_that_was_replaced_is_read_again() {
    with_server(async |server| {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "t1\n").expect("written");
        let access = Access { password_file: Some(file.path().to_owned()), ..access() };
        server.accept_tokens(&[("t1", USER)]);
        let mut one = LeaseCandidate::at(&url_of(server), "one", &access);
        one.win().await;
        one.renews().await;
        // In the order of a cluster: the file first, and the old one is good for a while.
        std::fs::write(file.path(), "t2\n").expect("written");
        one.renews().await;
        server.accept_tokens(&[("t2", USER)]);
        one.renews().await;
        // And one that nobody has replaced.
        server.accept_tokens(&[("t3", USER)]);
        let error = one.renew().await.expect_err("no token");
        assert!(matches!(&error, StoreError::Refused(why) if why.contains("401")), "{error:?}");
        assert!(!error.to_string().contains("t2"), "{error}");
        std::fs::write(file.path(), "t3\n").expect("written");
        one.renews().await;
    });
}

#[test]
fn each_right_that_is_missing_refuses_at_the_start_and_names_the_role() {
    for verb in ["get", "create", "update", "watch"] {
        with_server(async |server| {
            server.deny(verb, "leases");
            let mut one = LeaseCandidate::new(server, "one");
            let error = one.campaign().await.expect_err("forbidden");
            let StoreError::Refused(why) = &error else { panic!("{verb}: {error:?}") };
            for part in
                ["create role elect --verb=get,create,update,watch,list", "--serviceaccount=default:elect", verb]
            {
                assert!(why.contains(part), "{verb}: {why}");
            }
            assert!(server.lease("default", "cron").is_none(), "{verb}: it has taken it all the same");
            server.permit_all();
            one.win().await;
            one.renews().await;
        });
    }
    with_server(async |server| {
        server.deny("list", "leases");
        let mut one = LeaseCandidate::new(server, "one");
        one.win().await;
        assert!(matches!(one.store.boundaries().await, Err(StoreError::Refused(_))));
    });
}

#[test]
fn a_namespace_that_is_not_there_is_refused() {
    with_server(async |server| {
        server.set_namespaces(&["team"]);
        let error = LeaseCandidate::new(server, "one").campaign().await.expect_err("no namespace");
        assert!(matches!(&error, StoreError::Refused(why) if why.contains("\"default\"")), "{error:?}");
    });
}

/// It is only a hint, and this one never says whether it begins.
#[test]
fn a_watch_that_hangs_keeps_no_candidate_out() {
    with_server(async |server| {
        server.fault("watch", 100, Fault::Stall);
        let access = Access { request_timeout: Duration::from_secs(1), ..access() };
        let mut one = LeaseCandidate::at(&url_of(server), "one", &access);
        one.win().await;
        one.renews().await;
        assert!(server.faults_left() < 100);
    });
}

/// As by a server that has just started and does not know every Role yet.
#[test]
fn a_watch_that_was_refused_once_is_asked_for_again() {
    with_server(async |server| {
        let mut one = LeaseCandidate::new(server, "one");
        one.win().await;
        one.renews().await;
        server.fault("watch", 1, Fault::Status(403));
        server.restart();
        let limit = clock::now() + super::LIMIT;
        while server.faults_left() > 0 {
            assert!(clock::now() < limit, "the watch is not asked for");
            let _ = one.renew().await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // The next one stalls: that it was asked for shows.
        server.fault("watch", 1, Fault::Stall);
        while server.faults_left() > 0 {
            assert!(clock::now() < limit, "the watch is not asked for again");
            one.renews().await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
}

/// A write that named neither would replace whatever is there.
#[test]
fn a_lease_without_a_uid_is_not_written_to() {
    with_server(async |server| {
        super::edit_new(server, |lease| lease["metadata"]["uid"] = serde_json::Value::Null);
        let mut one = LeaseCandidate::new(server, "one");
        let error = one.campaign().await.expect_err("an obstacle");
        assert!(matches!(&error, StoreError::Obstacle(why) if why.contains("metadata.uid")), "{error:?}");
    });
}

/// A watch that the server has forgotten begins again after a look.
#[test]
fn a_watch_that_is_too_old_is_only_late() {
    with_server(async |server| {
        let (mut one, mut two) = (LeaseCandidate::new(server, "one"), LeaseCandidate::new(server, "two"));
        one.win().await;
        two.waits().await;
        server.fault("watch", 3, Fault::Status(410));
        server.restart();
        server.with_objects(super::double::Objects::compact);
        let limit = clock::now() + super::LIMIT;
        while server.faults_left() > 0 {
            assert!(clock::now() < limit, "the watch is not asked for again");
            let _ = (one.renew().await, two.campaign().await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        one.renews().await;
        assert_eq!(two.waits().await.leader.expect("a leader").name, "one");
        one.release().await;
        two.win().await;
    });
}

/// Terms are at least the server's time, and shown times are the leader's.
#[test]
fn a_server_whose_clock_is_ahead_raises_terms_and_hides_no_leader_that_renews() {
    with_server(async |server| {
        server.set_clock_offset(3600);
        let (mut one, mut two) = (LeaseCandidate::new(server, "one"), LeaseCandidate::new(server, "two"));
        let term = one.win().await;
        assert!(term >= clock::wall_millis() + 3_500_000, "{term}");
        one.renews().await;
        two.waits().await;
        one.renews().await;
        assert_eq!(two.waits().await.leader.expect("it was seen to renew").name, "one");
        assert!(lease(server)["spec"]["renewTime"].as_str().is_some());
        tokio::time::sleep(TTL).await;
    });
}
