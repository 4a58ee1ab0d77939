//! Records that are missing, old, or of a server that tells little of its life.

use super::*;
use crate::store::FindingResult;

/// The table is there, and no record of the boundary.
async fn make_table(server: &PostgresProcess) {
    PostgresCandidate::at(&server.url(), "other", SHORT).win().await;
    server.run("DELETE FROM elect_boundaries WHERE boundary = 'cron'").await;
}

/// Looks at the boundary for this long, as a candidate that is not eligible yet.
async fn look_on(candidate: &mut PostgresCandidate, duration: Duration) {
    let mut first = None;
    loop {
        candidate.store.observe(&candidate.candidacy.boundary).await.expect("an answer");
        // It counts from after the first answer (T1).
        if clock::now().since(*first.get_or_insert_with(clock::now)) > duration {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// S2: and only by one that has looked on for its ttl in the life of the server in which the table was made.
#[test]
fn a_missing_record_is_taken_at_once_by_a_candidate_that_has_seen_the_first_row_for_its_ttl() {
    with_server(&[], async |server| {
        make_table(server).await;
        let at_once = |one: CampaignResult| matches!(one, CampaignResult::Won { .. });
        let mut fresh = PostgresCandidate::at(&server.url(), "fresh", SHORT);
        assert!(!at_once(fresh.campaign().await.expect("an answer")), "it has just come");
        for (change, wins) in [
            ("SELECT 1", true),
            ("UPDATE elect_boundaries SET incarnation = '1/00000001' WHERE boundary = ''", false),
            ("DELETE FROM elect_boundaries WHERE boundary = ''", false),
        ] {
            server.run("DELETE FROM elect_boundaries WHERE boundary = 'cron'").await;
            let mut one = PostgresCandidate::at(&server.url(), "one", SHORT);
            server.run(change).await;
            let ttl = one.candidacy.ttl;
            look_on(&mut one, ttl).await;
            let result = one.campaign().await.expect("an answer");
            assert_eq!(at_once(result), wins, "{change}");
            if wins {
                assert!(matches!(one.renew().await, Ok(RenewResult::Credited { .. })));
            }
        }
    });
}

/// It starts no lease, as the take of a free record.
#[test]
fn a_take_of_a_missing_record_waits_for_no_confirmation() {
    with_server(&[], async |server| {
        make_table(server).await;
        let mut one = PostgresCandidate::at(&server.url(), "one", SHORT);
        let ttl = one.candidacy.ttl;
        look_on(&mut one, ttl).await;
        without_standby(server, "ghost").await;
        let taken = one.campaign().await;
        assert!(matches!(taken, Ok(CampaignResult::Won { .. })), "{taken:?}");
        without_standby(server, "").await;
        assert!(matches!(one.renew().await, Ok(RenewResult::Credited { .. })));
    });
}

#[test]
fn of_twelve_that_may_take_a_missing_record_one_does() {
    with_server(&[], async |server| {
        make_table(server).await;
        let campaigns: Vec<_> = (0..12)
            .map(|number| PostgresCandidate::at(&server.url(), &number.to_string(), SHORT))
            .map(|mut one| {
                tokio::task::spawn_local(async move {
                    look_on(&mut one, Duration::from_secs(1)).await;
                    one.campaign().await
                })
            })
            .collect();
        let mut results = Vec::new();
        for campaign in campaigns {
            results.push(campaign.await.expect("no panic"));
        }
        let wins = results.iter().filter(|result| matches!(result, Ok(CampaignResult::Won { .. }))).count();
        assert_eq!(wins, 1, "{results:?}");
    });
}

/// But not the first row, the record of this election, a leader's, or one whose term is yet to come.
#[test]
fn a_candidate_that_starts_removes_records_that_were_not_used_for_seven_days() {
    with_server(&[], async |server| {
        make_table(server).await;
        let ms = "floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint";
        for (boundary, state, days, term) in [
            ("cron", "free", 8, "1".to_owned()),
            ("free", "free", 8, "1".to_owned()),
            ("vacant", "vacant", 8, "0".to_owned()),
            ("held", "held", 8, "1".to_owned()),
            ("young", "free", 6, "1".to_owned()),
            ("future", "free", 8, format!("{ms} + 3600000")),
        ] {
            let row = format!(
                "INSERT INTO elect_boundaries (boundary, version, state, holder, name, host, term, nonce, ttl_ms, incarnation, \
                 since, renewed) VALUES ('{boundary}', 2, '{state}', 'h', '', '', {term}, 1, 1000, '', now(), \
                 now() - interval '{days} days')"
            );
            server.run(&row).await;
        }
        server.run("CREATE ROLE poor LOGIN; GRANT SELECT, INSERT, UPDATE ON elect_boundaries TO poor").await;
        let left = async || {
            let client = server.try_client().await.expect("it is up");
            let question = "SELECT string_agg(boundary, ' ' ORDER BY boundary) FROM elect_boundaries";
            client.query_one(question, &[]).await.expect("an answer").get::<_, String>(0)
        };
        let mut poor = PostgresCandidate::at(&server.url().replace("user=elect", "user=poor"), "poor", SHORT);
        poor.campaign().await.expect("the right to delete is not needed");
        assert_eq!(left().await, " cron free future held vacant young");
        PostgresCandidate::at(&server.url(), "one", SHORT).campaign().await.expect("an answer");
        assert_eq!(left().await, " cron future held young");
    });
}

/// As on an Aurora, whose functions of the WAL are refused.
#[test]
fn a_server_that_does_not_tell_its_timeline_counts_as_new_after_each_start() {
    let mut server = PostgresProcess::with(&[]);
    let setup = "CREATE ROLE poor LOGIN; GRANT CREATE ON SCHEMA public TO poor; \
                 REVOKE EXECUTE ON FUNCTION pg_current_wal_insert_lsn() FROM PUBLIC";
    let url = server.url().replace("user=elect", "user=poor");
    let free = async |name: &str| {
        let mut one = PostgresCandidate::at(&url, name, SHORT);
        let facts = one.store.facts().await;
        let timeline = facts.iter().find(|fact| fact.name == "timeline").expect("the fact");
        assert_eq!(timeline.result, FindingResult::Warn);
        one.win().await;
        assert!(matches!(one.renew().await, Ok(RenewResult::Credited { .. })));
        one.store.release(&one.candidacy).await.expect("released");
    };
    LocalSet::new().block_on(&runtime(), async {
        server.run(setup).await;
        free("one").await;
        let next = PostgresCandidate::at(&url, "two", SHORT).campaign().await;
        assert!(matches!(next, Ok(CampaignResult::Won { .. })), "nothing was forgotten: {next:?}");
    });
    server.restart();
    LocalSet::new().block_on(&runtime(), async {
        free("one").await;
    });
    server.restart();
    LocalSet::new().block_on(&runtime(), async {
        let next = PostgresCandidate::at(&url, "two", SHORT).campaign().await;
        assert!(matches!(next, Ok(CampaignResult::Waiting { .. })), "it may have forgotten a leader: {next:?}");
    });
}

/// A crash may lose what was confirmed.
#[test]
fn a_server_that_does_not_wait_for_its_disk_counts_as_new_after_each_start() {
    for (setting, waits) in [("fsync=on", false), ("fsync=off", true), ("full_page_writes=off", true)] {
        let mut server = PostgresProcess::with(&[setting]);
        let url = server.url();
        LocalSet::new().block_on(&runtime(), async {
            let mut one = PostgresCandidate::at(&url, "one", SHORT);
            let facts = one.store.facts().await;
            let durability = facts.iter().find(|fact| fact.name == "durability").expect("the fact");
            assert_eq!(durability.result == FindingResult::Warn, waits, "{setting}");
            one.win().await;
            assert!(matches!(one.renew().await, Ok(RenewResult::Credited { .. })));
            one.store.release(&one.candidacy).await.expect("released");
        });
        server.restart();
        LocalSet::new().block_on(&runtime(), async {
            let next = PostgresCandidate::at(&url, "two", SHORT).campaign().await.expect("an answer");
            assert_eq!(matches!(next, CampaignResult::Waiting { .. }), waits, "{setting}");
        });
    }
}

/// Dropped, or not there yet on a standby that was promoted.
/// S3: a candidate that looks would see no change if a renewal wrote a nonce that was there before.
#[test]
fn a_renewal_over_a_nonce_that_is_not_smaller_is_not_credited() {
    with_server(&[], async |server| {
        let mut leader = PostgresCandidate::at(&server.url(), "leader", SHORT);
        leader.win().await;
        server.run(&format!("UPDATE elect_boundaries SET nonce = {} WHERE boundary = 'cron'", i64::MAX)).await;
        let refused = leader.renew().await.expect_err("another program has written to the record").to_string();
        assert!(refused.contains("another program has written to the record"), "{refused}");
    });
}

#[test]
fn a_table_that_has_vanished_is_made_again() {
    with_server(&[], async |server| {
        let mut one = PostgresCandidate::at(&server.url(), "one", SHORT);
        let first = one.win().await;
        one.store.release(&one.candidacy).await.expect("released");
        server.run("DROP TABLE elect_boundaries").await;
        let term = one.win().await;
        assert!(term > first);
        assert!(matches!(one.renew().await, Ok(RenewResult::Credited { .. })));
    });
}

/// Such a time is none that the server can count in milliseconds.
#[test]
fn a_record_with_an_infinite_time_is_read_and_hides_no_other() {
    with_server(&[], async |server| {
        let mut one = PostgresCandidate::at(&server.url(), "one", SHORT);
        one.win().await;
        server.run("INSERT INTO elect_boundaries SELECT 'odd', version, 'free', 'x', 'x', 'x', 1, 1, NULL, 1, 1000, incarnation, \
                    'infinity', '-infinity' FROM elect_boundaries WHERE boundary = 'cron'").await;
        let seen = one.store.observe_all(crate::store::Detail::Leader).await.expect("an answer");
        assert_eq!(seen.len(), 2, "{seen:?}");
        let mut two = PostgresCandidate::at(&server.url(), "two", SHORT);
        two.candidacy.boundary = "odd".parse().expect("a boundary");
        two.win().await;
    });
}

/// A record that elect cannot have written could never be taken: what is compared is what is kept of it.
#[test]
fn a_record_whose_incarnation_is_too_long_is_an_obstacle() {
    with_server(&[], async |server| {
        let mut one = PostgresCandidate::at(&server.url(), "one", SHORT);
        one.win().await;
        one.store.release(&one.candidacy).await.expect("released");
        server.run("UPDATE elect_boundaries SET incarnation = repeat('x', 300) WHERE boundary = 'cron'").await;
        let error = one.campaign().await.map(drop).expect_err("an obstacle");
        assert!(matches!(error, StoreError::Obstacle(_)), "{error}");
    });
}
