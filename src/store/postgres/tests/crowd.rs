//! Many candidates on one boundary: a few listen for notifications.

use std::time::Duration;

use super::*;
use crate::store::worker::StoreEvent;
use elect_core::boundary::Boundary;

/// So many that most of them must stop listening.
const CROWD: usize = 40;
/// As many as listen in any case.
const FEW: usize = 16;

/// The names of the connections that listen as candidates.
async fn listeners(client: &Client) -> Vec<String> {
    let question = "SELECT application_name FROM pg_stat_activity WHERE application_name LIKE 'elect %'";
    let rows = client.query(question, &[]).await.expect("an answer");
    rows.iter().map(|row| row.get(0)).collect()
}

async fn is_told(candidate: &mut PostgresCandidate) {
    let event = candidate.events.recv().await;
    assert!(matches!(event, Some(StoreEvent::Hint)), "{event:?}");
}

fn candidate(server: &PostgresProcess, name: &str, boundary: &Boundary) -> PostgresCandidate {
    let mut candidate = PostgresCandidate::at(&server.url(), name, LONG);
    candidate.candidacy.ttl = Duration::from_secs(3600);
    candidate.candidacy.boundary = boundary.clone();
    candidate
}

/// A leader that needs no further renewal.
async fn leader(server: &PostgresProcess, boundary: &Boundary) -> PostgresCandidate {
    // One with a ttl of an hour may be unknown to a server that is new.
    let mut first = candidate(server, "first", boundary);
    first.candidacy.ttl = Duration::from_secs(1);
    first.win().await;
    first.store.release(&first.candidacy).await.expect("released");
    let mut leader = candidate(server, "leader", boundary);
    leader.win().await;
    assert!(matches!(leader.renew().await, Ok(RenewResult::Credited { .. })));
    leader
}

/// Returns when it is to look again, if nothing is announced.
async fn waits(candidate: &mut PostgresCandidate) -> Duration {
    match candidate.campaign().await {
        Ok(CampaignResult::Waiting { again: Some(again), .. }) => again,
        other => panic!("{other:?}"),
    }
}

/// Without a notification this test would never end.
#[test]
fn of_a_crowd_a_few_listen_and_one_of_them_takes_what_is_released() {
    with_server(&["max_connections=200"], async |server| {
        let boundary = "cron".parse().expect("a boundary");
        let client = server.try_client().await.expect("it is up");
        let mut leader = leader(server, &boundary).await;
        let mut waiting: Vec<PostgresCandidate> = (0..CROWD).map(|_| candidate(server, "next", &boundary)).collect();
        let limit = clock::now() + LIMIT;
        let looks = loop {
            let mut looks = Vec::new();
            for next in &mut waiting {
                looks.push(waits(next).await);
            }
            looks.retain(|again| *again <= access().renew_interval);
            looks.sort_unstable();
            // The leader listens as well.
            if listeners(&client).await.len() <= FEW && looks.len() > CROWD - FEW {
                break looks;
            }
            assert!(clock::now() < limit, "most of them stop");
            tokio::time::sleep(Duration::from_millis(500)).await;
        };
        // Those that do not listen, and not all of them just when the leader has renewed.
        let spread = looks[looks.len() - 1].saturating_sub(looks[0]);
        assert!(spread >= access().renew_interval / 8, "{looks:?}");
        for next in &mut waiting {
            while next.events.try_recv().is_ok() {}
        }
        leader.store.release(&leader.candidacy).await.expect("released");
        let mut tasks = tokio::task::JoinSet::new();
        for mut next in waiting {
            tasks.spawn_local(async move {
                loop {
                    is_told(&mut next).await;
                    if let CampaignResult::Won { .. } = next.campaign().await.expect("an answer") {
                        return next;
                    }
                }
            });
        }
        let won = tokio::time::timeout(LIMIT, tasks.join_next()).await.expect("one of them was told");
        won.expect("some wait").expect("it ends");
    });
}

/// Waits until so many listen.
async fn come_to(client: &Client, count: usize) {
    let limit = clock::now() + LIMIT;
    while listeners(client).await.len() != count {
        assert!(clock::now() < limit, "{:?} listen", listeners(client).await);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Also under a name that is too long for the server, and not ASCII.
#[test]
fn a_candidate_that_has_rested_listens_again_where_there_is_room() {
    let names = ["cron".to_owned(), format!("é{}", "x".repeat(70))];
    for boundary in names.map(|name| name.parse().expect("a boundary")) {
        with_server(&["max_connections=200"], async |server| {
            let client = server.try_client().await.expect("it is up");
            let _leader = leader(server, &boundary).await;
            come_to(&client, 1).await;
            let name = listeners(&client).await.pop().expect("the leader listens");
            let mut foreign = Vec::new();
            for _ in 0..CROWD {
                let other = server.try_client().await.expect("it is up");
                other.batch_execute(&format!("SET application_name = '{name}'")).await.expect("named");
                foreign.push(other);
            }
            // At once or later: it may count again.
            let mut next = candidate(server, "next", &boundary);
            let limit = clock::now() + LIMIT;
            while waits(&mut next).await > access().renew_interval {
                assert!(clock::now() < limit, "it rests");
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
            assert_eq!(listeners(&client).await.len(), CROWD + 1);
            drop(foreign);
            let limit = clock::now() + LIMIT;
            while waits(&mut next).await <= access().renew_interval || listeners(&client).await.len() != 2 {
                assert!(clock::now() < limit, "it listens again");
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        });
    }
}

#[test]
fn observers_and_candidates_of_other_boundaries_and_schemas_are_no_part_of_a_crowd() {
    with_server(&["max_connections=200"], async |server| {
        server.run("CREATE SCHEMA other").await;
        let client = server.try_client().await.expect("it is up");
        let boundary: Boundary = format!("{}a", "x".repeat(70)).parse().expect("a boundary");
        let beside: Boundary = format!("{}b", "x".repeat(70)).parse().expect("a boundary");
        let _leader = leader(server, &boundary).await;
        let mut others = Vec::new();
        for _ in 0..FEW {
            let mut observer = candidate(server, "observer", &boundary);
            observer.store.observe(&boundary).await.expect("looked");
            // That it listens from now on.
            observer.store.wait_for_change(Some(&boundary)).await;
            let mut in_schema = PostgresCandidate::at(&format!("{}&schema=other", server.url()), "other", LONG);
            in_schema.candidacy.boundary = boundary.clone();
            in_schema.campaign().await.expect("an answer");
            let mut of_boundary = candidate(server, "other", &beside);
            of_boundary.campaign().await.expect("an answer");
            others.extend([observer, in_schema, of_boundary]);
        }
        let mut next = candidate(server, "next", &boundary);
        // It has counted, more than once if they were too many.
        for _ in 0..10 {
            waits(&mut next).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        assert!(waits(&mut next).await > access().renew_interval, "it listens");
        let names = listeners(&client).await;
        assert!(names.iter().all(|name| name.len() == 63), "{names:?}");
        assert_eq!(names.len(), 2 + 2 * FEW);
    });
}

/// Otherwise a crowd of drained candidates would keep the others from listening.
#[test]
fn a_candidate_that_does_not_campaign_for_now_leaves_the_notifications_to_others_if_they_are_many() {
    with_server(&[], async |server| {
        let boundary = "cron".parse().expect("a boundary");
        let client = server.try_client().await.expect("it is up");
        let mut leader = leader(server, &boundary).await;
        let mut next = candidate(server, "next", &boundary);
        waits(&mut next).await;
        come_to(&client, 2).await;
        next.store.release(&next.candidacy).await.expect("nothing is held");
        assert_eq!(listeners(&client).await.len(), 2, "there is room");
        let mut others: Vec<PostgresCandidate> = (2..FEW).map(|_| candidate(server, "other", &boundary)).collect();
        for other in &mut others {
            waits(other).await;
        }
        come_to(&client, FEW).await;
        next.store.release(&next.candidacy).await.expect("nothing is held");
        come_to(&client, FEW - 1).await;
        let mut last = candidate(server, "last", &boundary);
        waits(&mut last).await;
        come_to(&client, FEW).await;
        leader.store.release(&leader.candidacy).await.expect("released");
        come_to(&client, FEW - 1).await;
    });
}
