//! Requests that are sent at once and whose answers are lost: the server has executed all of them, some, or none, and the rest later or never.

use tokio::time::timeout;
use tonic::Code;

use super::interception::{Interception, Outcome, SeenRequest};
use super::looks::with_server;
use super::{EtcdCandidate, EtcdProcess, access, put_at};
use crate::store::{CampaignResult, RenewResult, Store, StoreError};
use elect_keeper::clock;

const LOST: Outcome = Outcome::Failed(Code::Unavailable);
const FATES: [Outcome; 4] = [Outcome::Passed, LOST, Outcome::Unanswered, Outcome::Late];
const NO_LOOKS: &str = "?others=ignore";

/// The time at which what was held back reaches the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Late {
    Never,
    BeforeTheNextRequest,
    AfterTheWin,
    AfterTheCredit,
    AfterTheRelease,
}

const TIMES: [Late; 5] =
    [Late::Never, Late::BeforeTheNextRequest, Late::AfterTheWin, Late::AfterTheCredit, Late::AfterTheRelease];

/// The request for a place, by the put of a key on a lease.
fn is_place(request: &SeenRequest) -> bool {
    request.method == "Txn" && request.has("/elect/cron/") && request.has("\"ttl\"")
}

fn is_keep_alive(request: &SeenRequest) -> bool {
    request.method == "LeaseKeepAlive"
}

fn is_grant(request: &SeenRequest) -> bool {
    request.method == "LeaseGrant"
}

fn is_first_look(request: &SeenRequest) -> bool {
    request.method == "Txn" && !is_place(request)
}

fn leases(server: &EtcdProcess) -> Vec<String> {
    let list = server.etcdctl(&["lease", "list"]);
    list.lines().filter(|line| i64::from_str_radix(line, 16).is_ok()).map(str::to_owned).collect()
}

fn queue(server: &EtcdProcess) -> String {
    server.etcdctl(&["get", "--prefix", "--keys-only", "/elect/cron/"])
}

/// The first request of each of two kinds has this fate; those that follow pass.
fn first_of(
    kinds: [fn(&SeenRequest) -> bool; 2],
    fates: [Outcome; 2],
) -> impl FnMut(&SeenRequest) -> Outcome + Send + 'static {
    let mut left = [true; 2];
    move |request| match (0..2).find(|&at| left[at] && kinds[at](request)) {
        Some(at) => {
            left[at] = false;
            fates[at]
        }
        None => Outcome::Passed,
    }
}

/// One candidate whose first campaign meets these fates asks again, leads from a keep-alive that follows, and keeps all others waiting;
/// whatever comes late changes nothing of that.
async fn survives(server: &EtcdProcess, kinds: [fn(&SeenRequest) -> bool; 2], fates: [Outcome; 2], late: Late) {
    let case = format!("{fates:?}, {late:?}");
    let link = Interception::of(server).await;
    let (mut one, mut two) = (link.candidate(server, NO_LOOKS), EtcdCandidate::at(server, NO_LOOKS, "cron"));
    two.candidacy.identity.id = "two".to_owned();
    link.rule(first_of(kinds, fates));
    let lost = one.campaigns().await;
    assert!(matches!(lost, Err(StoreError::Unavailable(_))), "{case}: {lost:?}");
    let deliver = async |at| {
        if late == at {
            link.deliver().await;
        }
    };
    deliver(Late::BeforeTheNextRequest).await;
    let asked = clock::now();
    let term = one.wins().await;
    deliver(Late::AfterTheWin).await;
    assert!(one.is_credited().await >= asked, "{case}");
    deliver(Late::AfterTheCredit).await;
    assert!(matches!(two.campaigns().await, Ok(CampaignResult::Waiting { .. })), "{case}");
    one.is_credited().await;
    let value = server.etcdctl(&["get", "--prefix", "/elect/cron/", "--sort-by", "CREATE", "--limit", "1"]);
    assert!(value.contains(&format!("\"term\":{term}")), "{case}: {value}");
    one.gives_back().await;
    deliver(Late::AfterTheRelease).await;
    assert!(two.wins().await > term, "{case}");
    two.is_credited().await;
    assert!(matches!(one.renews().await, RenewResult::Lost { .. }), "{case}");
    assert_eq!(queue(server).lines().count(), 1, "{case}");
    two.gives_back().await;
    assert_eq!(queue(server), "", "{case}");
}

/// The same for all fates of two requests but the one in which both pass.
async fn survives_each(kinds: [fn(&SeenRequest) -> bool; 2], server: &EtcdProcess) {
    for fates in FATES.into_iter().flat_map(|one| FATES.map(|other| [one, other])) {
        if fates == [Outcome::Passed; 2] {
            continue;
        }
        for late in TIMES.into_iter().filter(|&late| late == Late::Never || fates.contains(&Outcome::Late)) {
            survives(server, kinds, fates, late).await;
        }
    }
}

#[test]
fn a_place_and_its_keep_alive_whose_answers_are_lost_are_found_whatever_was_executed_of_them() {
    with_server(async |server| survives_each([is_place, is_keep_alive], server).await);
}

#[test]
fn a_look_and_a_grant_whose_answers_are_lost_are_asked_for_again() {
    with_server(async |server| survives_each([is_first_look, is_grant], server).await);
}

/// Nor one of which the answer was lost, and none is asked for again beside the same obstacle.
#[test]
fn an_obstacle_that_is_found_beside_the_grant_leaves_no_lease_behind() {
    with_server(async |server| {
        put_at(server, "cron/2f", 0x2f, None).await;
        let before = leases(server);
        for fate in [Outcome::Passed, LOST, Outcome::Unanswered] {
            let link = Interception::of(server).await;
            let mut one = link.candidate(server, "");
            link.rule(first_of([is_grant, is_grant], [fate, Outcome::Passed]));
            for grants in [1, 0, 0] {
                let found = one.campaigns().await;
                assert!(found.as_ref().is_err_and(|error| error.to_string().contains("cron/2f")), "{found:?}");
                assert_eq!((link.count(is_grant), leases(server)), (grants, before.clone()), "{fate:?}");
            }
        }
    });
}

/// Once the obstacle is gone it leads, and the next one has its lease granted beside the look again.
#[test]
fn a_candidate_whose_lease_was_granted_in_vain_leads_when_nothing_is_in_its_way() {
    with_server(async |server| {
        put_at(server, "cron/2f", 0x2f, None).await;
        let link = Interception::of(server).await;
        let mut one = link.candidate(server, "");
        assert!(one.campaigns().await.is_err());
        server.etcdctl(&["lease", "revoke", "2f"]);
        for trips in [5, 4] {
            link.trips();
            one.wins().await;
            one.is_credited().await;
            assert_eq!(link.trips(), trips);
            one.gives_back().await;
        }
    });
}

/// It names the lease of a session that is over, and the next one has another.
#[test]
fn a_revocation_that_is_executed_late_ends_no_later_win() {
    with_server(async |server| {
        put_at(server, "cron/2f", 0x2f, None).await;
        let (first, second) = (Interception::of(server).await, Interception::of(server).await);
        let mut store = first.store(server, "");
        let candidacy = EtcdCandidate::at(server, "", "cron").candidacy;
        first.rule(|request| if request.method == "LeaseRevoke" { Outcome::Late } else { Outcome::Passed });
        store.claim(&candidacy).expect("a claim");
        assert!(matches!(store.campaign(&candidacy).await, Err(StoreError::Obstacle(_))));
        assert_eq!(store.unrevoked.len(), 1, "it is not known to be gone");
        server.etcdctl(&["lease", "revoke", "2f"]);
        store.members.connected(second.client.clone());
        let mut one = EtcdCandidate { store: Box::new(store), candidacy };
        one.wins().await;
        one.is_credited().await;
        assert_eq!(first.deliver().await, 1, "the revocation");
        one.is_credited().await;
        assert_eq!((queue(server).lines().count(), leases(server).len()), (1, 1));
    });
}

/// The lease stays until the next request, which begins with it.
#[test]
fn a_revocation_that_is_not_answered_replaces_neither_an_obstacle_nor_a_refusal() {
    with_server(async |server| {
        put_at(server, "cron/2f", 0x2f, None).await;
        for is_refused in [false, true] {
            let link = Interception::of(server).await;
            let (mut store, candidacy) = (link.store(server, ""), EtcdCandidate::at(server, "", "cron").candidacy);
            link.rule(move |request| match request.method.as_str() {
                "LeaseRevoke" => Outcome::Held,
                "Txn" if is_refused => Outcome::Failed(Code::PermissionDenied),
                _ => Outcome::Passed,
            });
            store.claim(&candidacy).expect("a claim");
            let asked = clock::now();
            let found = timeout(access().request_timeout, store.campaign(&candidacy)).await.expect("in time");
            println!("found after {:?}: {found:?}", clock::now().since(asked));
            match found {
                Err(StoreError::Obstacle(_)) => assert!(!is_refused),
                Err(StoreError::Refused(_)) => assert!(is_refused),
                other => panic!("{other:?}"),
            }
            assert_eq!((store.unrevoked.len(), store.granted_in_vain), (1, true));
        }
    });
}
