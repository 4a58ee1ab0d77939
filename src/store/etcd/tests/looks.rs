//! The looks at elections of the same name, where requests of a candidate fail, last long, or are refused.

use std::ops::RangeInclusive;
use std::time::Duration;

use etcd_client::{Client, LeaseGrantOptions, PutOptions};
use tokio::time::{sleep, timeout};
use tonic::Code;

use super::super::layout::{DEFAULT_PREFIX, Keys};
use super::super::others::Others;
use super::super::peers::places;
use super::super::session::Session;
use super::super::settings::Settings;
use super::super::terms::Terms;
use super::super::{Etcd, etcd};
use super::interception::{Interception, Outcome, SeenRequest};
use super::{EtcdCandidate, EtcdProcess, access, put_at, put_candidate};
use crate::store::url::StoreUrl;
use crate::store::{CampaignResult, Candidacy, Identity, Notifier, RenewResult, Store, StoreError};
use elect_core::boundary::Boundary;
use elect_keeper::clock;

/// Requests of etcd on this host are answered within milliseconds: one that is held is not.
const ATTEMPT: Duration = Duration::from_secs(2);
/// Longer than any answer takes on a busy machine.
const PATIENT: Duration = Duration::from_secs(60);
const TTL: Duration = Duration::from_secs(10);

pub fn with_server(test: impl AsyncFnOnce(&EtcdProcess)) {
    with_server_of(&[], test);
}

fn with_server_of(flags: &[&str], test: impl AsyncFnOnce(&EtcdProcess)) {
    let server = EtcdProcess::with(flags);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, test(&server));
}

fn is_look(request: &SeenRequest) -> bool {
    request.is_look("cron")
}

fn looks_are(outcome: Outcome) -> impl FnMut(&SeenRequest) -> Outcome {
    move |request| if is_look(request) { outcome } else { Outcome::Passed }
}

fn keys_of(option: &str) -> Keys {
    let mut keys = Keys::below(DEFAULT_PREFIX.to_owned());
    assert!(option.is_empty() || keys.take(option), "{option}");
    keys
}

/// A candidate of cron, whose connection a test chooses for each attempt.
pub struct Standing {
    session: Session,
    candidacy: Candidacy,
    terms: Terms,
    others: Others,
}

impl Standing {
    pub fn raft_term_rises(&mut self) {
        self.session.raft_term_rises();
    }

    fn new(lease: i64) -> Standing {
        Standing::within(lease, PATIENT)
    }

    /// With attempts of this length.
    pub fn within(lease: i64, limit: Duration) -> Standing {
        let (keys, boundary) = (keys_of(""), Boundary::shared("cron").expect("a name"));
        let identity = Identity { id: "id".into(), name: "name".into(), host: "host".into(), port: None };
        let candidacy = Candidacy { boundary: boundary.clone(), identity, ttl: TTL };
        Standing {
            session: Session::new(lease, &keys, &candidacy, limit, Notifier::disconnected()),
            terms: Terms::new(&keys, &boundary),
            others: Others::new(&keys, &boundary),
            candidacy,
        }
    }

    pub async fn asks(&mut self, link: &Interception) -> Result<RenewResult, StoreError> {
        self.session.renew(&mut link.client.clone(), &self.candidacy, &mut self.terms).await
    }

    pub async fn renews(&mut self, link: &Interception) -> RenewResult {
        self.asks(link).await.expect("an answer")
    }

    /// `None`: its time was up.
    pub async fn stands(&mut self, link: &Interception) -> Option<Result<Option<CampaignResult>, StoreError>> {
        self.stands_for(PATIENT, link).await
    }

    async fn stands_for(
        &mut self,
        limit: Duration,
        link: &Interception,
    ) -> Option<Result<Option<CampaignResult>, StoreError>> {
        let mut client = link.client.clone();
        let stand = Box::pin(self.session.stand(&mut client, TTL, &mut self.terms, &mut self.others));
        timeout(limit, stand).await.ok()
    }
}

impl Interception {
    /// A store whose first connection this is.
    pub fn store(&self, server: &EtcdProcess, option: &str) -> Etcd {
        let url = format!("etcd://{}{option}", server.address);
        let settings = Settings::new(&StoreUrl::parse(&url).expect("a URL"), &access(), |_| None).expect("settings");
        let mut store = etcd(settings, Notifier::disconnected());
        store.members.connected(self.client.clone());
        store
    }

    /// A candidate of cron.
    pub fn candidate(&self, server: &EtcdProcess, option: &str) -> EtcdCandidate {
        EtcdCandidate { store: Box::new(self.store(server, option)), ..EtcdCandidate::at(server, option, "cron") }
    }
}

impl EtcdCandidate {
    pub async fn campaigns(&mut self) -> Result<CampaignResult, StoreError> {
        self.store.claim(&self.candidacy).expect("a claim");
        self.store.campaign(&self.candidacy).await
    }

    /// The obstacle in its way, and the time until it comes back.
    async fn gives_up(&mut self) -> (String, Duration) {
        match self.campaigns().await.expect("an answer") {
            CampaignResult::Waiting { observation, again: Some(again), .. } => {
                (observation.obstacle.expect("an obstacle"), again)
            }
            other @ (CampaignResult::Won { .. } | CampaignResult::Waiting { .. }) => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_look_that_fails_keeps_no_candidate_from_its_place_behind_another_one() {
    with_server(async |server| {
        let link = Interception::of(server).await;
        link.rule(looks_are(Outcome::Failed(Code::Unavailable)));
        let mut first = Standing::new(0xa1);
        let alone = first.stands(&link).await;
        assert!(matches!(alone, Some(Err(StoreError::Unavailable(_)))), "it would lead: {alone:?}");
        put_candidate(server, 0x1f, None).await;
        let mut waiter = Standing::new(0xa2);
        let waits = waiter.stands(&link).await;
        assert!(matches!(waits, Some(Ok(Some(CampaignResult::Waiting { .. })))), "{waits:?}");
        let value = server.etcdctl(&["get", "--print-value-only", "/elect/cron/a2"]);
        assert!(!value.is_empty() && !value.contains("looks"), "it has a place, and has not looked: {value}");
        link.rule(looks_are(Outcome::Passed));
        let mut waiter = Standing::new(0xa3);
        waiter.stands(&link).await.expect("in time").expect("an answer");
        let value = server.etcdctl(&["get", "--print-value-only", "/elect/cron/a3"]);
        assert!(value.contains(r#""looks":"elect""#), "{value}");
    });
}

#[test]
fn a_look_that_fails_keeps_no_observer_from_its_answer() {
    with_server(async |server| {
        let link = Interception::of(server).await;
        link.rule(looks_are(Outcome::Failed(Code::Unavailable)));
        let observed = link.store(server, "").observe(&"cron".parse().expect("a name")).await;
        assert!(observed.as_ref().is_ok_and(|seen| seen.leader.is_none() && seen.obstacle.is_none()), "{observed:?}");
        assert!(link.count(is_look) > 0, "it has looked");
    });
}

#[test]
fn a_refusal_ends_an_attempt_whose_look_lasts_long() {
    with_server(async |server| {
        let link = Interception::of(server).await;
        link.rule(|request| match request {
            look if is_look(look) => Outcome::Held,
            own if own.has("/elect/cron/") => Outcome::Failed(Code::PermissionDenied),
            _ => Outcome::Passed,
        });
        let refused = Standing::new(0xa1).stands(&link).await;
        assert!(matches!(refused, Some(Err(StoreError::Refused(_)))), "{refused:?}");
    });
}

/// Its lease goes on, so that its key stays the oldest until a look is answered.
#[test]
fn a_candidate_keeps_its_lease_while_a_look_lasts_long_and_its_stream_goes_with_the_connection() {
    with_server(async |server| {
        let (first, second) = (Interception::of(server).await, Interception::of(server).await);
        let keeps = |link: &Interception| link.count(|request| request.method == "LeaseKeepAlive");
        // The look before its key is made, and not the one after that.
        let mut looks = 0;
        first.rule(move |request| {
            looks += usize::from(is_look(request));
            if is_look(request) && looks > 1 { Outcome::Held } else { Outcome::Passed }
        });
        let mut standing = Standing::new(0xa1);
        assert!(standing.stands_for(ATTEMPT, &first).await.is_none(), "the look lasts longer than the attempt");
        assert_eq!(
            (keeps(&first), server.etcdctl(&["get", "--keys-only", "/elect/cron/a1"]).as_str()),
            (1, "/elect/cron/a1")
        );
        assert!(standing.stands_for(ATTEMPT, &first).await.is_none(), "it does so again");
        assert_eq!(keeps(&first), 1, "the lease was prolonged beside it");
        let won = standing.stands(&second).await;
        assert!(matches!(won, Some(Ok(Some(CampaignResult::Won { .. })))), "{won:?}");
        assert_eq!((keeps(&first), keeps(&second)), (0, 1), "by the connection that has decided");
    });
}

#[test]
fn a_leader_renews_while_looks_last_long() {
    with_server(async |server| {
        let link = Interception::of(server).await;
        let mut leader = link.candidate(server, "");
        leader.wins().await;
        assert!(matches!(leader.renews().await, RenewResult::Credited { .. }));
        link.rule(looks_are(Outcome::Held));
        let started = clock::now();
        while link.count(is_look) == 0 {
            let renewed = timeout(PATIENT, leader.renews()).await;
            assert!(matches!(renewed, Ok(RenewResult::Credited { .. })), "{renewed:?}");
            assert!(clock::now().since(started) < TTL, "it does not look any more");
            sleep(Duration::from_millis(100)).await;
        }
        for _ in 0..3 {
            let renewed = timeout(PATIENT, leader.renews()).await;
            assert!(matches!(renewed, Ok(RenewResult::Credited { .. })), "{renewed:?}");
        }
    });
}

#[test]
fn a_candidate_that_may_no_longer_look_begins_anew_with_a_record_that_does_not_say_so() {
    with_server(async |server| {
        put_candidate(server, 0x1f, None).await;
        let link = Interception::of(server).await;
        let mut waiter = link.candidate(server, "");
        assert!(matches!(waiter.campaigns().await, Ok(CampaignResult::Waiting { .. })));
        let queue = || server.etcdctl(&["get", "--prefix", "/elect/cron/"]);
        assert!(queue().contains(r#""looks":"elect""#), "{}", queue());
        link.rule(looks_are(Outcome::Failed(Code::PermissionDenied)));
        server.etcdctl(&["del", "/elect/cron/1f"]);
        let (obstacle, again) = waiter.gives_up().await;
        assert!(obstacle.contains("may no longer read") && queue().is_empty(), "{obstacle} {}", queue());
        sleep(again).await;
        waiter.wins().await;
        assert!(matches!(waiter.renews().await, RenewResult::Credited { .. }));
        assert!(!queue().is_empty() && !queue().contains("looks"), "{}", queue());
    });
}

// ---- two candidates in each other's way

/// Each finds the other's key, and neither says in its record that it looks.
#[test]
fn two_candidates_in_each_others_way_rest_for_random_times_until_one_of_them_leads() {
    /// As a candidate with a renewal interval that is short beside its ttl.
    const INTERVAL: Duration = Duration::from_millis(200);
    async fn leads(one: &mut EtcdCandidate) {
        while let CampaignResult::Waiting { again, .. } = one.campaigns().await.expect("an answer") {
            sleep(again.unwrap_or(INTERVAL).min(INTERVAL)).await;
        }
    }
    with_server(async |server| {
        let keys = ["/elect/cron/1f", "cron/2f"];
        let mut candidates = Vec::new();
        for (option, key, lease) in [("?value=name", keys[0], 0x1f), ("?value=name&layout=exact", keys[1], 0x2f)] {
            put_at(server, key, lease, None).await;
            let link = Interception::of(server).await;
            let mut candidate = link.candidate(server, option);
            assert!(matches!(candidate.campaigns().await, Ok(CampaignResult::Waiting { .. })));
            // So that both are within the same step whenever they begin at the same time.
            link.slow(Duration::from_millis(150));
            candidates.push(candidate);
        }
        for key in keys {
            server.etcdctl(&["del", key]);
        }
        let [one, other] = candidates.as_mut_slice() else { unreachable!("there are two") };
        let ((_, rest), (_, other_rest)) = tokio::join!(one.gives_up(), other.gives_up());
        let first = timeout(3 * TTL, async {
            tokio::select! { () = leads(one) => {} () = leads(other) => {} }
        })
        .await;
        assert!(first.is_ok(), "they put each other off for ever, after {rest:?} and {other_rest:?}");
    });
}

#[test]
fn a_candidate_that_has_given_up_its_key_asks_for_nothing_until_it_has_rested() {
    with_server(async |server| {
        // Longer than what follows takes on a slow machine.
        let (mut rests, ttl) = (Vec::new(), 10 * TTL);
        for lease in 0x21..0x27 {
            let link = Interception::of(server).await;
            let mut one = link.candidate(server, "");
            one.candidacy.ttl = ttl;
            put_candidate(server, lease, None).await;
            assert!(matches!(one.campaigns().await, Ok(CampaignResult::Waiting { .. })));
            // Another one has come as soon as the key is the oldest.
            let key = format!("cron/{lease:x}0");
            put_at(server, &key, lease << 4, None).await;
            server.etcdctl(&["del", &format!("/elect/cron/{lease:x}")]);
            let before = clock::now();
            let (obstacle, rest) = one.gives_up().await;
            assert!(obstacle.contains(&key), "{obstacle}");
            rests.push(rest);
            server.etcdctl(&["del", &key]);
            link.rule(|_| Outcome::Passed);
            let (same, left) = one.gives_up().await;
            let passed = clock::now().since(before);
            assert!(
                same == obstacle && left <= rest && rest.saturating_sub(left) <= passed,
                "{same}, {left:?} of {rest:?}"
            );
            assert_eq!(link.count(|_| true), 0, "it asks for nothing");
            assert_eq!(server.etcdctl(&["get", "--prefix", "/elect/"]), "");
        }
        assert!(rests.iter().all(|rest| (ttl / 20..ttl / 2).contains(rest)), "{rests:?}");
        rests.sort();
        let spread = rests[5].saturating_sub(rests[0]);
        assert!(spread > ttl / 50, "they differ: {rests:?}");
    });
}

// ---- places that the user may not read

/// As etcd answers a user who may read nothing but this election.
fn others_are_denied(link: &Interception) {
    link.rule(looks_are(Outcome::Failed(Code::PermissionDenied)));
}

#[test]
fn places_that_the_user_may_not_read_are_asked_for_once_in_a_minute() {
    with_server(async |server| {
        let (link, boundary) = (Interception::of(server).await, Boundary::shared("cron").expect("a name"));
        let all = places(&keys_of(""), &boundary).len();
        others_are_denied(&link);
        let mut candidate = Standing::new(0xa1);
        let won = candidate.stands(&link).await;
        assert!(matches!(won, Some(Ok(Some(CampaignResult::Won { .. })))), "{won:?}");
        let (looks, requests) = {
            let before = link.seen();
            (before.iter().filter(|request| is_look(request)).count(), before.len())
        };
        // Before its key is made, all at once and one by one; and not again before it leads.
        assert_eq!(looks, 1 + all);
        println!("figures: etcd: a user who may read no other place: {looks} of {requests} requests before it leads");
        let (others, mut client) = (&candidate.others, link.client.clone());
        let start = clock::now();
        for (seconds, asked) in [(30, 0), (61, 1 + all), (0, 0)] {
            others.forget_old_denials(start + Duration::from_secs(seconds));
            assert_eq!(others.obstacle(&mut client, None).await.expect("an answer"), None);
            assert_eq!(link.count(is_look), asked, "after {seconds} s");
        }
    });
}

#[test]
fn an_observer_asks_again_after_a_minute() {
    with_server(async |server| {
        let (link, cron) = (Interception::of(server).await, "cron".parse().expect("a name"));
        others_are_denied(&link);
        let mut store = link.store(server, "");
        for asks in [true, false] {
            store.observe(&cron).await.expect("an answer");
            assert_eq!(link.count(is_look) > 0, asks);
        }
        put_at(server, "cron/2f", 0x2f, None).await;
        link.rule(|_| Outcome::Passed);
        assert_eq!(store.observe(&cron).await.expect("an answer").obstacle, None);
        let (_, others) = store.observed_others.as_ref().expect("it has looked");
        others.age_denials(Duration::from_secs(60));
        let obstacle = store.observe(&cron).await.expect("an answer").obstacle;
        assert!(obstacle.as_ref().is_some_and(|text| text.contains("cron/2f")), "{obstacle:?}");
    });
}

// ---- many values, and a server that takes few operations at once

/// Candidates of cron in another layout, which look for those of elect's own.
async fn put_looking(client: &mut Client, leases: RangeInclusive<i64>) {
    let record = r#"{"version":2,"id":"x","name":"n","host":"h","port":null,"ttl":3000,"looks":"exact"}"#;
    for lease in leases {
        client.lease_grant(3600, Some(LeaseGrantOptions::new().with_id(lease))).await.expect("granted");
        let hung = PutOptions::new().with_lease(lease);
        client.put(format!("cron/{lease:x}"), record, Some(hung)).await.expect("put");
    }
}

#[test]
fn the_values_of_many_candidates_are_read_in_few_requests_and_those_of_large_ones_in_more() {
    with_server(async |server| {
        let link = Interception::of(server).await;
        let mut client = link.client.clone();
        put_looking(&mut client, 1..=150).await;
        // They look for ours, which is older.
        let looks = Others::new(&keys_of(""), &Boundary::shared("cron").expect("a name"));
        link.rule(|_| Outcome::Passed);
        assert_eq!(looks.obstacle(&mut client, Some(1)).await.expect("an answer"), None);
        let requests = link.count(|_| true);
        assert!(requests <= 4, "{requests} requests for the values of 150 candidates");
        let large = vec![b'x'; 1_400_000];
        for lease in 100..105 {
            let hung = PutOptions::new().with_lease(lease);
            client.put(format!("cron/{lease:x}"), large.as_slice(), Some(hung)).await.expect("put");
        }
        let obstacle = looks.obstacle(&mut client, Some(1)).await.expect("an answer").expect("it does not look");
        assert!(obstacle.contains("the key cron/64 "), "{obstacle}");
        println!("figures: etcd: the values of 150 candidates of another layout are read in {requests} requests");
    });
}

#[test]
fn a_server_that_takes_few_operations_at_once_is_asked_for_one_place_at_a_time() {
    with_server_of(&["--max-txn-ops", "4"], async |server| {
        let link = Interception::of(server).await;
        let mut candidate = Standing::new(0xa1);
        link.rule(|_| Outcome::Passed);
        let won = candidate.stands(&link).await;
        assert!(matches!(won, Some(Ok(Some(CampaignResult::Won { .. })))), "{won:?}");
        let all = places(&keys_of(""), &Boundary::shared("cron").expect("a name")).len();
        assert_eq!(link.count(is_look), 1 + 2 * all, "it is told once that they are too many");
        let mut client = link.client.clone();
        put_looking(&mut client, 0xb0..=0xb8).await;
        put_at(server, "cron/b9", 0xb9, None).await;
        let obstacle = candidate.others.obstacle(&mut client, Some(1)).await.expect("an answer");
        assert!(obstacle.as_ref().is_some_and(|text| text.contains("the key cron/b9 ")), "{obstacle:?}");
    });
}
