//! Records that were deleted, forged or written by another program, one step at a time.

use super::*;

/// The obstacle that keeps a candidate waiting.
async fn obstacle(player: &mut RedisCandidate) -> String {
    match player.ask().await {
        Err(StoreError::Obstacle(why)) => why,
        Ok(CampaignResult::Waiting { observation, .. }) => observation.obstacle.unwrap_or_default(),
        answer => panic!("{answer:?}"),
    }
}

/// S2: this candidate is suspended between two looks, and meanwhile another one leads and is forgotten.
#[test]
fn none_then_led_then_none_is_not_none() {
    with_server(async |server| {
        let (mut one, mut two) = (RedisCandidate::at(server, "", "one"), RedisCandidate::at(server, "", "two"));
        for forget in [&["flushall"][..], &["del", "elect:cron"], &["flushdb"]] {
            server.cli(forget);
            one.candidacy.ttl = Duration::from_secs(60);
            assert!(matches!(two.ask().await, Ok(CampaignResult::Waiting { .. })));
            assert_eq!(server.cli(&["hget", "elect:cron", "state"]), "vacant");
            let first = server.cli(&["hget", "elect:cron", "id"]);
            one.candidacy.ttl = Duration::from_millis(300);
            one.wins().await;
            assert!(matches!(one.renews().await, Ok(RenewResult::Credited { .. })));
            server.cli(forget);
            let Ok(CampaignResult::Waiting { again: Some(again), decided, .. }) = two.ask().await else {
                panic!("it took")
            };
            assert!(again > two.candidacy.ttl / 2 && !decided, "all over again: {again:?}");
            assert_ne!(server.cli(&["hget", "elect:cron", "id"]), first);
            assert!(matches!(one.renews().await, Ok(RenewResult::Lost { .. })));
        }
    });
}

#[test]
fn a_vacant_record_hands_on_what_its_writer_has_seen() {
    with_server(async |server| {
        let (mut one, mut two) = (RedisCandidate::at(server, "", "one"), RedisCandidate::at(server, "", "two"));
        let term = one.wins().await;
        server.cli(&["hset", "elect:cron", "ttl", "60000"]);
        assert!(matches!(two.ask().await, Ok(CampaignResult::Waiting { .. })));
        server.cli(&["flushall"]);
        two.ask().await.expect("an answer");
        let mut late = RedisCandidate::at(server, "", "late");
        let Ok(CampaignResult::Waiting { again: Some(again), .. }) = late.ask().await else { panic!("it took") };
        assert!(again > Duration::from_secs(50), "{again:?}");
        assert_eq!(server.cli(&["hget", "elect:cron", "term"]), term.to_string());
        // To all others there is nothing.
        let seen = late.store.observe(&late.candidacy.boundary).await.expect("looked");
        assert_eq!((seen.leader, seen.previous_term, seen.obstacle), (None, None, None));
    });
}

/// S3, for every field that a renewal compares or keeps.
#[test]
fn a_renewal_that_writes_nothing_is_not_credited() {
    with_server(async |server| {
        for (field, value) in [
            ("nonce", "9007199254740991"),
            ("nonce", "1e300"),
            ("nonce", "inf"),
            ("nonce", "0x7fffffffffffffff"),
            ("ttl", "soon"),
            ("ttl", ""),
        ] {
            server.cli(&["flushall"]);
            let mut one = RedisCandidate::at(server, "", "one");
            one.wins().await;
            assert!(matches!(one.renews().await, Ok(RenewResult::Credited { .. })));
            server.cli(&["hset", "elect:cron", field, value]);
            for _ in 0..3 {
                let renewal = one.renews().await;
                assert!(renewal.is_err(), "{field}={value}: {renewal:?}");
            }
        }
        for (field, value) in [("id", "x"), ("term", "1"), ("state", "free"), ("state", "vacant"), ("required", "7")] {
            server.cli(&["flushall"]);
            let mut one = RedisCandidate::at(server, "", "one");
            one.wins().await;
            one.renews().await.expect("an answer");
            server.cli(&["hset", "elect:cron", field, value]);
            let renewal = one.renews().await;
            assert!(matches!(renewal, Ok(RenewResult::Lost { .. })), "{field}={value}: {renewal:?}");
        }
    });
}

#[test]
fn a_lease_is_never_longer_than_was_asked_for_whatever_the_record_says() {
    with_server(async |server| {
        let mut one = RedisCandidate::at(server, "", "one");
        one.wins().await;
        for (written, granted) in [("9223372036854775808", 300), ("100", 100), ("86400000", 300)] {
            server.cli(&["hset", "elect:cron", "ttl", written]);
            let renewal = one.renews().await;
            let Ok(RenewResult::Credited { ttl: Some(ttl), .. }) = renewal else { panic!("{written}: {renewal:?}") };
            assert_eq!(ttl, Duration::from_millis(granted), "{written}");
        }
    });
}

#[test]
fn a_forged_ttl_delays_a_take_by_a_day_at_most() {
    with_server(async |server| {
        let (mut one, mut two) = (RedisCandidate::at(server, "", "one"), RedisCandidate::at(server, "", "two"));
        one.wins().await;
        server.cli(&["hset", "elect:cron", "ttl", "9223372036854775808"]);
        let Ok(CampaignResult::Waiting { again: Some(again), .. }) = two.ask().await else { panic!("it took") };
        assert!(again <= Duration::from_secs(86_400), "{again:?}");
    });
}

#[test]
fn a_record_that_cannot_be_campaigned_beside_is_an_obstacle_that_names_its_holder() {
    with_server(async |server| {
        let long = "x".repeat(70_000);
        for (field, value, said) in [
            ("version", "3", "upgrade"),
            ("scheme", "revision", "another scheme"),
            ("id", &"i".repeat(65), "longer than 64"),
            ("term", "9007199254740991", "too large to be followed"),
            ("term", "18446744073709551615", "too large to be followed"),
            ("of the future", &long, "more than 16384 bytes"),
            ("name", &long, "more than 16384 bytes"),
        ] {
            server.cli(&["flushall"]);
            let mut one = RedisCandidate::at(server, "", "one");
            one.wins().await;
            server.cli(&["hset", "elect:cron", field, value]);
            let mut two = RedisCandidate::at(server, "", "two");
            let why = obstacle(&mut two).await;
            let holder = if field == "name" { "xxx" } else { "one" };
            assert!(why.contains(said) && why.contains(holder) && why.len() < 1024, "{field}: {why}");
            assert_eq!(server.cli(&["hget", "elect:cron", field]), value, "{field}: nothing was written");
        }
        server.cli(&["flushall"]);
        server.cli(&["eval", "for i = 1, 300 do redis.call('HSET', KEYS[1], i, i) end", "1", "elect:cron"]);
        assert!(obstacle(&mut RedisCandidate::at(server, "", "two")).await.contains("256 fields"));
        server.cli(&["flushall"]);
        server.cli(&["set", "elect:cron", "mine"]);
        assert!(obstacle(&mut RedisCandidate::at(server, "", "two")).await.contains("not elect's"));
    });
}

#[test]
fn fields_of_the_future_are_kept_and_long_names_are_cut() {
    with_server(async |server| {
        let mut one = RedisCandidate::at(server, "", "one");
        one.wins().await;
        server.cli(&["hset", "elect:cron", "future", "x", "name", &"n".repeat(5_000), "host", &"h".repeat(5_000)]);
        let seen = one.store.observe(&one.candidacy.boundary).await.expect("looked").leader.expect("a leader");
        assert_eq!((seen.name.len(), seen.host.map(|host| host.len())), (256, Some(256)));
        assert!(matches!(one.renews().await, Ok(RenewResult::Credited { .. })));
        one.store.release(&one.candidacy).await.expect("released");
        RedisCandidate::at(server, "", "two").wins().await;
        assert_eq!(server.cli(&["hget", "elect:cron", "future"]), "x");
    });
}

#[test]
fn a_name_that_is_no_text_hides_no_loss() {
    with_server(async |server| {
        let mut one = RedisCandidate::at(server, "", "one");
        one.wins().await;
        let forge = "redis.call('HSET', KEYS[1], 'name', '\\255\\254\\r\\n', 'id', 'other')";
        server.cli(&["eval", forge, "1", "elect:cron"]);
        let renewal = one.renews().await;
        let Ok(RenewResult::Lost { why }) = renewal else { panic!("{renewal:?}") };
        assert!(why.contains("leads") && !why.contains('\n'), "{why:?}");
    });
}

/// Every term is above all that were seen, wherever they came from.
#[test]
fn terms_rise_above_those_of_records_that_are_gone() {
    with_server(async |server| {
        let mut one = RedisCandidate::at(server, "", "one");
        one.wins().await;
        server.cli(&["hset", "elect:cron", "term", "8000000000000000", "state", "free"]);
        one.ask().await.expect("an answer");
        server.cli(&["flushall"]);
        let mut two = RedisCandidate::at(server, "", "two");
        two.ask().await.expect("an answer");
        assert!(one.wins().await > 8_000_000_000_000_000);
    });
}

/// A renewal that arrives after the end of its lease may find an old state of the record, which a restart has brought back: it
/// must not make that record a fresh one, in which no leader can have been forgotten.
#[test]
fn a_late_renewal_and_the_release_after_it_do_not_vouch_for_a_server_that_was_replaced() {
    let server = RedisProcess::with(&["--enable-debug-command", "yes"]);
    within(async || {
        let server = &server;
        for is_in_time in [true, false] {
            server.cli(&["flushall"]);
            let mut one = RedisCandidate::at(server, "", "one");
            one.candidacy.ttl = if is_in_time { Duration::from_secs(60) } else { Duration::from_millis(300) };
            one.wins().await;
            assert!(matches!(one.renews().await, Ok(RenewResult::Credited { .. })));
            let before = server.cli(&["hget", "elect:cron", "incarnation"]);
            server.cli(&["debug", "change-repl-id"]);
            if !is_in_time {
                tokio::time::sleep(one.candidacy.ttl).await;
            }
            for _ in 0..2 {
                assert!(
                    matches!(one.renews().await, Ok(RenewResult::Credited { .. })),
                    "the election knows that it is late"
                );
            }
            let after = server.cli(&["hget", "elect:cron", "incarnation"]);
            assert_eq!(after != before, is_in_time);
            one.store.release(&one.candidacy).await.expect("released");
            assert_eq!(server.cli(&["hget", "elect:cron", "incarnation"]), after);
            let answer = RedisCandidate::at(server, "", "next").ask().await;
            assert_eq!(matches!(answer, Ok(CampaignResult::Won { .. })), is_in_time, "{answer:?}");
        }
    });
}
