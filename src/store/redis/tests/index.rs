//! The index of boundaries: what observers find with it and without it, and that no election depends on it.

use std::io::{BufRead as _, BufReader, Write as _};

use super::*;

const INDEX: &str = "elect:\tindex";
const MARK: &str = "\tscanned";

impl RedisProcess {
    /// How often a part of its keys was scanned.
    fn scans(&self) -> usize {
        let stats = self.cli(&["info", "commandstats"]);
        let calls = stats.lines().find_map(|line| line.strip_prefix("cmdstat_scan:calls="));
        calls.map_or(0, |calls| calls.split(',').next().and_then(|calls| calls.parse().ok()).expect("a number"))
    }

    /// The boundaries that an observer finds, and whether it has scanned.
    async fn listed(&self) -> (Vec<String>, bool) {
        let (before, mut observer) = (self.scans(), observer(self));
        let seen = observer.store.observe_all(Detail::Leader).await.expect("surveyed");
        let names = seen.iter().map(|(boundary, _)| boundary.to_string()).collect();
        (names, self.scans() > before)
    }

    /// As an elect before the index does it.
    fn has_record_without_entry(&self, name: &str) {
        self.cli(&["copy", "elect:cron", &format!("elect:{name}")]);
    }

    /// Nothing but records and the index names a boundary.
    async fn waits_until_no_candidate_listens(&self) {
        let limit = clock::now() + Duration::from_secs(60);
        while !self.cli(&["pubsub", "channels"]).is_empty() {
            assert!(clock::now() < limit, "somebody listens");
            // A connection of ours ends only while its task can run.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A client that listens as candidates do.
    fn listener(&self, channels: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).expect("it listens");
        stream.write_all(format!("SUBSCRIBE {channels}\r\n").as_bytes()).expect("it reads");
        BufReader::new(&stream).read_line(&mut String::new()).expect("it answers");
        stream
    }
}

fn until(condition: impl Fn() -> bool) {
    let limit = clock::now() + Duration::from_secs(60);
    while !condition() {
        assert!(clock::now() < limit, "it does not come to be");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn observer(server: &RedisProcess) -> RedisCandidate {
    RedisCandidate::asking_for(Duration::from_secs(10), server, "", "observer")
}

fn on(server: &RedisProcess, boundary: &str) -> RedisCandidate {
    let mut one = RedisCandidate::at(server, "", "one");
    one.candidacy.boundary = boundary.parse().expect("a name");
    one
}

/// As this user, whose password is "secret".
fn by(user: &str, server: &RedisProcess, boundary: &str) -> RedisCandidate {
    let url = format!("redis://{user}:secret@{}", server.address);
    let access = Access { request_timeout: Duration::from_secs(10), ..Access::default() };
    let store = StoreUrl::parse(&url).map(|url| url.open(&access, channel().0)).expect("a URL").expect("opened");
    RedisCandidate { store, ..on(server, boundary) }
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// One free record, `cron`, and an index that knows it.
async fn with_index(test: impl AsyncFnOnce(&RedisProcess)) {
    let server = RedisProcess::start();
    led_before(&server).await;
    assert_eq!(server.listed().await, (names(&["cron"]), true), "no scan has been made before");
    server.waits_until_no_candidate_listens().await;
    test(&server).await;
}

#[test]
fn a_new_boundary_is_found_without_a_scan() {
    within(async || {
        with_index(async |server| {
            assert_eq!(server.listed().await, (names(&["cron"]), false));
            // It has written a vacant record, and nothing more.
            on(server, "later").ask().await.expect("an answer");
            server.waits_until_no_candidate_listens().await;
            assert_eq!(server.listed().await, (names(&["cron", "later"]), false));
        })
        .await;
    });
}

#[test]
fn a_take_enters_a_record_that_another_elect_has_written() {
    within(async || {
        with_index(async |server| {
            server.has_record_without_entry("old");
            on(server, "old").wins().await;
            server.waits_until_no_candidate_listens().await;
            assert_eq!(server.listed().await, (names(&["cron", "old"]), false));
        })
        .await;
    });
}

/// At once while one of its candidates listens, otherwise by the next scan.
#[test]
fn a_boundary_of_an_elect_without_the_index_is_found() {
    within(async || {
        with_index(async |server| {
            server.has_record_without_entry("old");
            let listener = server.listener("elect:old elect:no-record of-another-program");
            assert_eq!(server.listed().await, (names(&["cron", "old"]), false));
            drop(listener);
            server.waits_until_no_candidate_listens().await;
            assert_eq!(server.listed().await, (names(&["cron"]), false), "this is why a scan is made now and then");
            server.cli(&["zincrby", INDEX, "3601", MARK]);
            assert_eq!(server.listed().await, (names(&["cron", "old"]), true));
            assert_eq!(server.listed().await, (names(&["cron", "old"]), false));
        })
        .await;
    });
}

#[test]
fn an_index_that_cannot_be_believed_is_not() {
    let damages: [&[&str]; 7] = [
        &["del", INDEX],
        &["zrem", INDEX, MARK],
        &["zincrby", INDEX, "3601", MARK],
        // In the future: the clock was set back.
        &["zincrby", INDEX, "-7200", MARK],
        &["eval", "redis.call('DEL', KEYS[1]) redis.call('SET', KEYS[1], 'x')", "1", INDEX],
        &["eval", "redis.call('DEL', KEYS[1]) redis.call('HSET', KEYS[1], 'x', 'y')", "1", INDEX],
        &["eval", "redis.call('DEL', KEYS[1]) redis.call('SADD', KEYS[1], 'cron')", "1", INDEX],
    ];
    within(async || {
        with_index(async |server| {
            for (number, damage) in damages.iter().enumerate() {
                let old = format!("old-{number}");
                server.has_record_without_entry(&old);
                server.cli(damage);
                let (found, scanned) = server.listed().await;
                assert!(found.contains(&old) && scanned, "{damage:?}: {found:?}");
                // No election depends on it.
                on(server, &format!("new-{number}")).wins().await;
                server.waits_until_no_candidate_listens().await;
                let (found, _) = server.listed().await;
                assert!(found.contains(&format!("new-{number}")), "{damage:?}: {found:?}");
                server.cli(&["del", INDEX]);
                server.listed().await;
            }
            server.cli(&["flushall"]);
            on(server, "first").ask().await.expect("an answer");
            server.waits_until_no_candidate_listens().await;
            assert_eq!(server.listed().await, (names(&["first"]), true));
            assert_eq!(server.listed().await, (names(&["first"]), false));
        })
        .await;
    });
}

/// The rules that the manual listed before the index.
#[test]
fn a_user_without_the_rights_to_the_index_leads_and_is_seen() {
    const RULES: &str = "on >secret resetkeys ~elect:* resetchannels &elect:* -@all +evalsha +eval +info +time +hget +hgetall +hmget \
                         +hset +publish +subscribe +wait +scan";
    within(async || {
        with_index(async |server| {
            let words: Vec<&str> = ["acl", "setuser", "former"].into_iter().chain(RULES.split_whitespace()).collect();
            server.cli(&words);
            let mut former = by("former", server, "former");
            former.wins().await;
            assert!(matches!(former.renews().await, Ok(RenewResult::Credited { .. })));
            assert_eq!(server.listed().await, (names(&["cron", "former"]), false), "it listens");
            let mut observer = by("former", server, "nothing");
            for _ in 0..2 {
                let before = server.scans();
                let seen = observer.store.observe_all(Detail::Leader).await.expect("surveyed");
                assert_eq!((seen.len(), server.scans() > before), (2, true));
            }
            // Nor may it read the key.
            server.cli(&["acl", "setuser", "former", "resetkeys", "~elect:former", "~elect:cron"]);
            assert!(matches!(former.renews().await, Ok(RenewResult::Credited { .. })));
            former.store.release(&former.candidacy).await.expect("released");
            former.wins().await;
            let seen = by("former", server, "nothing").store.observe_all(Detail::Leader).await.expect("surveyed");
            assert_eq!(seen.len(), 2);
        })
        .await;
    });
}

#[test]
fn an_entry_without_a_record_is_dropped_and_one_with_a_record_never() {
    within(async || {
        with_index(async |server| {
            on(server, "later").ask().await.expect("an answer");
            server.cli(&["set", "elect:foreign", "of another program"]);
            server.cli(&["zadd", INDEX, "0", "foreign", "0", "gone"]);
            server.waits_until_no_candidate_listens().await;
            assert_eq!(server.listed().await, (names(&["cron", "foreign", "later"]), false));
            assert_eq!(server.cli(&["zscore", INDEX, "gone"]), "");
            // One that was created after the look.
            let discard = concat!(include_str!("../server.lua"), "\n", include_str!("../index_discard.lua"));
            server.cli(&["eval", discard, "1", INDEX, "elect:", "cron", "foreign", "later"]);
            assert_eq!(server.listed().await, (names(&["cron", "foreign", "later"]), false));
        })
        .await;
    });
}

/// A replica has every entry of the records that it has.
#[test]
fn a_promoted_replica_is_not_scanned() {
    within(async || {
        with_index(async |server| {
            let port = server.address.rsplit_once(':').expect("host and port").1;
            let replica = RedisProcess::with(&["--replicaof", "127.0.0.1", port]);
            on(server, "later").ask().await.expect("an answer");
            until(|| !replica.cli(&["hget", "elect:later", "state"]).is_empty());
            replica.cli(&["replicaof", "no", "one"]);
            assert_eq!(replica.listed().await, (names(&["cron", "later"]), false));
        })
        .await;
    });
}

#[test]
fn a_flood_of_names_hides_no_boundary() {
    within(async || {
        with_index(async |server| {
            server.has_record_without_entry("old");
            let channels: Vec<String> = (0..1001).map(|number| format!("elect:z{number}")).collect();
            let listener = server.listener(&channels.join(" "));
            assert_eq!(server.listed().await, (names(&["cron", "old"]), true));
            assert_eq!(server.listed().await, (names(&["cron", "old"]), true), "as long as they are there");
            drop(listener);
            server.waits_until_no_candidate_listens().await;
            // Groups of candidates name no boundary.
            let groups: Vec<String> = (0..1001).map(|number| format!("\"elect:old\\t{number}\"")).collect();
            let listener = server.listener(&groups.join(" "));
            assert_eq!(server.listed().await, (names(&["cron", "old"]), false));
            drop(listener);
            server.waits_until_no_candidate_listens().await;
            let forge = "for i = 1, 9000 do redis.call('ZADD', KEYS[1], 0, 'z' .. i) end \
                         for i = 1, 20 do redis.call('ZADD', KEYS[1], 0, 'x' .. i .. string.rep('x', 100000)) end \
                         redis.call('ZADD', KEYS[1], 0, '\\255\\254') redis.call('ZADD', KEYS[1], 0, 'a\\nb')";
            server.cli(&["eval", forge, "1", INDEX]);
            assert_eq!(server.listed().await, (names(&["cron", "old"]), false));
        })
        .await;
    });
}
