//! Many candidates on one boundary: a few listen for notifications.

use std::time::Duration;

use super::*;
use crate::store::worker::StoreEvent;

/// So many that most of them must stop listening.
const CROWD: usize = 40;
/// As many as listen in any case.
const FEW: i64 = 16;

/// Of which the server knows that they listen.
async fn listeners(client: &Client) -> i64 {
    let question = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'elect cron'";
    client.query_one(question, &[]).await.expect("an answer").get(0)
}

async fn is_told(candidate: &mut PostgresCandidate) {
    let event = candidate.events.recv().await;
    assert!(matches!(event, Some(StoreEvent::Hint)), "{event:?}");
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
        let candidate = |name| {
            let mut candidate = PostgresCandidate::at(&server.url(), name, LONG);
            candidate.candidacy.ttl = Duration::from_secs(3600);
            candidate
        };
        let client = server.try_client().await.expect("it is up");
        // A leader with a ttl of an hour may be unknown to a server that is new.
        let mut first = PostgresCandidate::at(&server.url(), "first", LONG);
        first.win().await;
        first.store.release(&first.candidacy).await.expect("released");
        let mut leader = candidate("leader");
        leader.win().await;
        assert!(matches!(leader.renew().await, Ok(RenewResult::Credited { .. })));
        let mut waiting: Vec<PostgresCandidate> = (0..CROWD).map(|_| candidate("next")).collect();
        for next in &mut waiting {
            waits(next).await;
        }
        let limit = clock::now() + LIMIT;
        // The leader listens as well.
        while listeners(&client).await > FEW {
            assert!(clock::now() < limit, "most of them stop");
            tokio::time::sleep(Duration::from_millis(500)).await;
            for next in &mut waiting {
                waits(next).await;
            }
        }
        let mut looks = Vec::new();
        for next in &mut waiting {
            looks.push(waits(next).await);
            while next.events.try_recv().is_ok() {}
        }
        // The others: not all of them just when the leader has renewed.
        looks.retain(|again| *again <= access().renew_interval);
        looks.sort_unstable();
        assert!(looks.len() >= CROWD - usize::try_from(FEW).expect("few"), "{looks:?}");
        let spread = looks[looks.len() - 1].saturating_sub(looks[0]);
        assert!(spread >= access().renew_interval / 8, "{looks:?}");
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

/// Those that stopped, when there are few again.
#[test]
fn a_candidate_that_has_rested_listens_again_where_there_is_room() {
    with_server(&["max_connections=200"], async |server| {
        let client = server.try_client().await.expect("it is up");
        let mut foreign = Vec::new();
        for _ in 0..CROWD {
            let other = server.try_client().await.expect("it is up");
            other.batch_execute("SET application_name = 'elect cron'").await.expect("named");
            foreign.push(other);
        }
        let mut next = PostgresCandidate::at(&server.url(), "next", LONG);
        next.candidacy.boundary = "cron".parse().expect("a boundary");
        let among = i64::try_from(CROWD).expect("a number");
        // It listens first, goes on by chance, or rests: until it is one of those that rest.
        let mut rests = false;
        for _ in 0..20 {
            next = PostgresCandidate::at(&server.url(), "next", LONG);
            next.campaign().await.expect("an answer");
            let began = clock::now();
            while clock::now().since(began) < Duration::from_secs(3) && !rests {
                tokio::time::sleep(Duration::from_millis(300)).await;
                next.campaign().await.expect("an answer");
                rests = listeners(&client).await == among;
            }
            if rests {
                break;
            }
        }
        assert!(rests, "among {among} it rests at some time");
        drop(foreign);
        let limit = clock::now() + LIMIT;
        while listeners(&client).await != 1 {
            assert!(clock::now() < limit, "it listens again");
            tokio::time::sleep(Duration::from_millis(500)).await;
            next.campaign().await.expect("an answer");
        }
    });
}

/// A name that the server shortens or replaces would count for nothing.
#[test]
fn a_boundary_with_a_long_name_is_counted() {
    with_server(&[], async |server| {
        let client = server.try_client().await.expect("it is up");
        let mut one = PostgresCandidate::at(&server.url(), "one", LONG);
        one.candidacy.boundary = format!("é{}", "x".repeat(70)).parse().expect("a boundary");
        one.campaign().await.expect("an answer");
        let question = "SELECT application_name FROM pg_stat_activity WHERE application_name LIKE 'elect %'";
        let name: String = client.query_one(question, &[]).await.expect("an answer").get(0);
        assert_eq!(name.len(), 63, "{name}");
        assert!(name.starts_with("elect ?x"), "{name}");
    });
}
