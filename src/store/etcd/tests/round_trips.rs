//! The number of round trips in series that a candidacy takes on an open connection, and the first renewal, which is sent with the
//! request for a place.

use std::time::Duration;

use etcd_client::Client;
use tokio::time::timeout;
use tonic::Code;
use tonic::transport::Endpoint;

use super::super::first_answer;
use super::interception::{Interception, Outcome, SeenRequest};
use super::looks::{Standing, with_server};
use super::{EtcdCandidate, RenewResult};
use crate::store::{CampaignResult, StoreError};
use elect_core::Time;
use elect_keeper::clock;

/// A candidate that does not look for those of other layouts needs no look after its key is the oldest.
const OPTIONS: [(&str, u32); 2] = [("?others=ignore", 0), ("", 1)];

fn is_keep_alive(request: &SeenRequest) -> bool {
    request.method == "LeaseKeepAlive"
}

impl EtcdCandidate {
    /// When the credited renewal was sent.
    pub async fn is_credited(&mut self) -> Time {
        match self.renews().await {
            RenewResult::Credited { sent, .. } => sent,
            other @ (RenewResult::Outdated | RenewResult::Lost { .. }) => panic!("not credited: {other:?}"),
        }
    }

    pub async fn gives_back(&mut self) {
        self.store.release(&self.candidacy).await.expect("released");
    }
}

#[test]
fn a_candidate_leads_after_three_round_trips_on_its_connection_renews_in_two_and_releases_in_one() {
    with_server(async |server| {
        for (options, look) in OPTIONS {
            let link = Interception::of(server).await;
            let mut one = link.candidate(server, options);
            link.trips();
            for start in ["with a new connection", "with one that it has used"] {
                one.wins().await;
                one.is_credited().await;
                assert_eq!(link.trips(), 3 + look, "{start}: look and grant, place and keep-alive, check");
                one.is_credited().await;
                assert_eq!(link.trips(), 2, "keep-alive, check");
                one.gives_back().await;
                assert_eq!(link.trips(), 1, "the lease is revoked");
            }
        }
    });
}

#[test]
fn a_waiter_leads_after_two_round_trips_once_it_has_heard_of_its_turn() {
    with_server(async |server| {
        for (options, look) in OPTIONS {
            let link = Interception::of(server).await;
            let (mut leader, mut waiter) =
                (EtcdCandidate::at(server, options, "cron"), link.candidate(server, options));
            leader.wins().await;
            leader.is_credited().await;
            assert!(matches!(waiter.campaigns().await, Ok(CampaignResult::Waiting { .. })));
            leader.gives_back().await;
            let (_, grants) = (link.trips(), link.count(|request| request.method == "LeaseGrant"));
            waiter.wins().await;
            waiter.is_credited().await;
            assert_eq!(link.trips(), 2 + look, "place and keep-alive, check");
            assert_eq!((grants, link.count(|request| request.method == "LeaseGrant")), (1, 0));
            waiter.gives_back().await;
        }
    });
}

/// T1
#[test]
fn the_first_credit_counts_from_a_keep_alive_that_is_sent_after_the_grant_and_the_next_one_from_its_own() {
    with_server(async |server| {
        const DELAY: Duration = Duration::from_millis(300);
        let link = Interception::of(server).await;
        link.rule(|_| Outcome::Passed);
        link.slow(DELAY);
        let mut one = link.candidate(server, "?others=ignore");
        let began = clock::now();
        one.wins().await;
        assert_eq!(link.count(is_keep_alive), 1);
        let (won, sent) = (clock::now(), one.is_credited().await);
        assert!(sent.since(began) >= DELAY && sent + DELAY <= won, "after the grant, before the answer of the place");
        assert_eq!(link.count(is_keep_alive), 0, "no other one was sent");
        let asked = clock::now();
        assert!(one.is_credited().await >= asked, "it answers one request");
        assert_eq!(link.count(is_keep_alive), 0, "by the stream that is open");
    });
}

/// It is no answer to a request that follows a change of mind, nor to one that comes late.
#[test]
fn the_keep_alive_that_is_sent_with_the_place_answers_no_later_request() {
    with_server(async |server| {
        let link = Interception::of(server).await;
        let mut one = link.candidate(server, "?others=ignore");
        let term = one.wins().await;
        let won = clock::now();
        assert_eq!(one.wins().await, term);
        assert!(one.is_credited().await >= won, "the boundary was asked for again");
        one.gives_back().await;
    });
}

#[test]
fn the_keep_alive_that_is_sent_with_the_place_is_too_old_once_no_attempt_would_have_waited_for_it() {
    with_server(async |server| {
        let link = Interception::of(server).await;
        for (lease, limit, is_used) in [(0xa1, Duration::from_secs(60), true), (0xa2, Duration::ZERO, false)] {
            let mut one = Standing::within(lease, limit);
            let won = one.stands(&link).await;
            assert!(matches!(won, Some(Ok(Some(CampaignResult::Won { .. })))), "{won:?}");
            let asked = clock::now();
            let RenewResult::Credited { sent, .. } = one.renews(&link).await else { panic!("not credited") };
            assert_eq!(sent < asked, is_used, "{limit:?}");
            server.etcdctl(&["lease", "revoke", &format!("{lease:x}")]);
        }
    });
}

/// As any other keep-alive does.
#[test]
fn the_keep_alive_that_is_sent_with_the_place_counts_in_no_other_raft_term() {
    with_server(async |server| {
        let mut one = Standing::within(0xa1, Duration::from_secs(60));
        let link = Interception::of(server).await;
        let won = one.stands(&link).await;
        assert!(matches!(won, Some(Ok(Some(CampaignResult::Won { .. })))), "{won:?}");
        one.raft_term_rises();
        let asked = clock::now();
        let RenewResult::Credited { sent, .. } = one.renews(&link).await else { panic!("not credited") };
        assert!(sent >= asked, "sent {:?} before it was asked for", asked.since(sent));
    });
}

#[test]
fn the_stream_of_keep_alives_goes_with_the_connection_whose_check_has_failed() {
    with_server(async |server| {
        let (first, second) = (Interception::of(server).await, Interception::of(server).await);
        let mut one = Standing::within(0xa1, Duration::from_secs(60));
        one.stands(&first).await.expect("in time").expect("an answer");
        assert!(matches!(one.renews(&first).await, RenewResult::Credited { .. }));
        first.rule(|request| match request.method.as_str() {
            "Txn" => Outcome::Failed(Code::Unavailable),
            _ => Outcome::Passed,
        });
        assert!(one.asks(&first).await.is_err());
        second.rule(|_| Outcome::Passed);
        assert!(matches!(one.renews(&second).await, RenewResult::Credited { .. }));
        assert_eq!(second.count(is_keep_alive), 1, "it was opened there");
    });
}

/// As from a client library that takes no first answer for itself.
#[test]
fn an_answer_that_was_not_asked_for_is_not_taken_for_the_next_one() {
    with_server(async |server| {
        let mut link = Interception::of(server).await;
        let channel = Endpoint::from_shared(format!("http://{}", server.address)).expect("an address");
        let channel = first_answer::channel(channel.connect().await.expect("a server that is up"));
        link.client = Client::from_channel(first_answer::channel(channel), None).await.expect("a client");
        let mut one = Standing::within(0xa1, Duration::from_secs(60));
        one.stands(&link).await.expect("in time").expect("an answer");
        let renewed = one.asks(&link).await;
        assert!(matches!(renewed, Err(StoreError::Unavailable(_))), "{renewed:?}");
    });
}

/// Behind etcd's grpc-proxy it may be that of a keep-alive on the stream before, which was given up.
#[test]
fn the_first_answer_on_a_stream_that_is_opened_again_is_not_credited() {
    with_server(async |server| {
        const DELAY: Duration = Duration::from_millis(300);
        let mut one = Standing::within(0xa1, Duration::from_secs(60));
        let (first, second) = (Interception::of(server).await, Interception::of(server).await);
        one.stands(&first).await.expect("in time").expect("an answer");
        first.rule(|request| match request.method.as_str() {
            "Txn" => Outcome::Failed(Code::Unavailable),
            _ => Outcome::Passed,
        });
        assert!(one.asks(&first).await.is_err());
        second.rule(|_| Outcome::Passed);
        second.slow(DELAY);
        let opened = clock::now();
        let RenewResult::Credited { sent, .. } = one.renews(&second).await else { panic!("not credited") };
        assert_eq!(second.count(is_keep_alive), 1, "it was opened there");
        assert!(sent.since(opened) >= DELAY, "sent {:?} after the stream was opened", sent.since(opened));
    });
}

/// As etcd's grpc-proxy, which answers the first keep-alive on a stream, and the next one much later.
#[test]
fn no_renewal_is_credited_where_the_second_keep_alive_is_not_answered() {
    with_server(async |server| {
        let link = Interception::of(server).await;
        link.one_keep_alive_passes();
        let mut one = Standing::within(0xa1, Duration::from_secs(60));
        let won = one.stands(&link).await;
        assert!(matches!(won, Some(Ok(Some(CampaignResult::Won { .. })))), "{won:?}");
        for _ in 0..2 {
            let renewed = timeout(Duration::from_secs(1), one.asks(&link)).await;
            assert!(renewed.is_err(), "{renewed:?}");
        }
    });
}
