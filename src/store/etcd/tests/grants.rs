//! The lease that is granted beside the first look: what it is credited for, and that it is not left behind.

use std::time::Duration;

use super::interception::{Interception, Outcome, SeenRequest};
use super::looks::{Standing, with_server};
use super::{EtcdCandidate, EtcdProcess, put_at};
use crate::store::{CampaignResult, RenewResult};
use elect_core::Time;
use elect_keeper::clock;

/// More than anything takes on this host.
const ROUND_TRIP: Duration = Duration::from_millis(700);

async fn credited(leader: &mut EtcdCandidate) -> Time {
    match leader.renews().await {
        RenewResult::Credited { sent, .. } => sent,
        other @ (RenewResult::Outdated | RenewResult::Lost { .. }) => panic!("{other:?}"),
    }
}

fn is_keep_alive(request: &SeenRequest) -> bool {
    request.method == "LeaseKeepAlive"
}

/// T1
#[test]
fn the_first_credit_counts_from_before_the_grant_was_sent_and_the_second_renewal_opens_no_stream() {
    with_server(async |server| {
        let link = Interception::of(server).await;
        let mut leader = link.candidate(server, "?others=ignore");
        link.rule(|_| Outcome::Passed);
        link.slow(ROUND_TRIP);
        let began = clock::now();
        leader.wins().await;
        assert_eq!(link.count(is_keep_alive), 0, "the grant stands for the first one");
        let sent = credited(&mut leader).await;
        assert!(sent >= began && sent.since(began) < ROUND_TRIP, "{:?} after the start", sent.since(began));
        assert_eq!(link.count(is_keep_alive), 1, "the stream is opened beside the check");
        let began = clock::now();
        let sent = credited(&mut leader).await;
        assert!(sent >= began, "the next one counts from its own keep-alive");
        assert_eq!(link.count(is_keep_alive), 0, "by the stream that is open");
        assert!(clock::now().since(began) < 2 * ROUND_TRIP, "the check alone takes a round trip of the link");
    });
}

#[test]
fn a_grant_of_an_earlier_raft_term_is_credited_to_nobody() {
    with_server(async |server| {
        let mut leader = Standing::new(0xa1);
        let won = leader.stands(&Interception::of(server).await).await;
        assert!(matches!(won, Some(Ok(Some(CampaignResult::Won { .. })))), "{won:?}");
        server.restart();
        let (link, began) = (Interception::of(server).await, clock::now());
        let renewed = leader.renews(&link).await;
        let RenewResult::Credited { sent, .. } = renewed else { panic!("{renewed:?}") };
        assert!(sent >= began, "granted {:?} before the restart", began.since(sent));
    });
}

fn leases(server: &EtcdProcess) -> Vec<String> {
    let list = server.etcdctl(&["lease", "list"]);
    list.lines().filter(|line| i64::from_str_radix(line, 16).is_ok()).map(str::to_owned).collect()
}

#[test]
fn an_obstacle_that_is_found_beside_the_grant_leaves_no_lease_behind() {
    with_server(async |server| {
        put_at(server, "cron/2f", 0x2f, None).await;
        let before = leases(server);
        assert_eq!(before.len(), 1, "{before:?}");
        let link = Interception::of(server).await;
        let is_grant = |request: &SeenRequest| request.method == "LeaseGrant";
        for outcome in [Outcome::Passed, Outcome::Late(ROUND_TRIP)] {
            let mut candidate = link.candidate(server, "");
            link.rule(move |request| if is_grant(request) { outcome } else { Outcome::Passed });
            for grants in [1, 0] {
                let found = candidate.campaigns().await;
                assert!(found.as_ref().is_err_and(|error| error.to_string().contains("cron/2f")), "{found:?}");
                assert_eq!(link.count(is_grant), grants, "a lease that was granted in vain is not asked for again");
            }
            tokio::time::sleep(2 * ROUND_TRIP).await;
            assert_eq!(leases(server), before, "{outcome:?}");
        }
    });
}
