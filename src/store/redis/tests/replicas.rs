//! The effect of a server's replicas on takes and credits, one step at a time.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::Shutdown;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::*;

impl RedisProcess {
    fn replica(&self) -> RedisProcess {
        let port = self.address.rsplit_once(':').expect("host and port").1;
        let number = self.replicas() + 1;
        let replica = RedisProcess::with(&["--replicaof", "127.0.0.1", port]);
        until(|| self.replicas() >= number);
        replica
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a pid");
        kill(Pid::from_raw(pid), signal).expect("a child of ours");
    }

    /// Those that have confirmed something.
    fn replicas(&self) -> usize {
        let info = self.cli(&["info", "replication"]);
        info.lines().filter(|line| line.contains("state=online") && !line.contains("offset=0,")).count()
    }

    /// A copy of its data, as of a backup. To the server it looks like a replica for a moment.
    fn dump(&self) {
        let path = self.data.path().join("copy.rdb");
        self.cli(&["--rdb", &path.display().to_string()]);
    }
}

fn until(condition: impl Fn() -> bool) {
    let limit = clock::now() + Duration::from_secs(60);
    while !condition() {
        assert!(clock::now() < limit, "it does not come to be");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A client that looks like a replica as far as it is told to: it confirms so much once, and then nothing.
fn pretender(server: &RedisProcess, port: Option<u16>, confirms: Option<u64>) -> TcpStream {
    let mut stream = TcpStream::connect(&server.address).expect("it listens");
    let mut reader = BufReader::new(stream.try_clone().expect("one more descriptor"));
    let mut says = |words: &str| stream.write_all(format!("{words}\r\n").as_bytes()).expect("it reads");
    // A synchronization is refused while an answer is on its way.
    let mut is_answered = || reader.read_line(&mut String::new()).expect("it answers");
    if let Some(port) = port {
        says(&format!("REPLCONF listening-port {port}"));
        is_answered();
    }
    says("REPLCONF capa eof capa psync2");
    is_answered();
    says("PSYNC ? -1");
    std::thread::spawn(move || {
        let mut sink = [0; 4096];
        while reader.read(&mut sink).is_ok_and(|count| count > 0) {}
    });
    let line = format!("port={},state=online", port.unwrap_or_default());
    until(|| server.cli(&["info", "replication"]).contains(&line));
    if let Some(offset) = confirms {
        stream.write_all(format!("REPLCONF ACK {offset}\r\n").as_bytes()).expect("it reads");
    }
    stream
}

/// A candidate that leaves replicas the time to confirm a write, on a busy machine too.
fn candidate(server: &RedisProcess, options: &str, name: &str) -> RedisCandidate {
    RedisCandidate::asking_for(Duration::from_secs(4), server, options, name)
}

/// With a lease that does not run out meanwhile.
async fn leads(server: &RedisProcess, options: &str) -> RedisCandidate {
    leads_for(server, options, Duration::from_secs(60)).await
}

async fn leads_for(server: &RedisProcess, options: &str, ttl: Duration) -> RedisCandidate {
    let mut one = candidate(server, options, "one");
    // The first record is waited for by a candidate with a short ttl.
    let mut first = candidate(server, options, "first");
    first.wins().await;
    credited(&mut first).await;
    first.store.release(&first.candidacy).await.expect("released");
    one.candidacy.ttl = ttl;
    one.wins().await;
    credited(&mut one).await;
    one
}

#[track_caller]
fn is_credited(renewal: &Result<RenewResult, StoreError>) {
    assert!(matches!(renewal, Ok(RenewResult::Credited { .. })), "{renewal:?}");
}

async fn credited(player: &mut RedisCandidate) {
    is_credited(&player.renews().await);
}

/// The next one takes it without any wait.
async fn is_free_at_once(server: &RedisProcess, mut one: RedisCandidate) {
    one.store.release(&one.candidacy).await.expect("released");
    let mut next = candidate(server, "", "next");
    next.candidacy.ttl = Duration::from_secs(60);
    assert!(matches!(next.ask().await, Ok(CampaignResult::Won { .. })));
    is_credited(&next.renews().await);
    next.store.release(&next.candidacy).await.expect("released");
}

#[test]
fn nobody_is_elected_where_too_few_replicas_are_attached() {
    with_server(async |server| {
        let mut one = candidate(server, "?replicas=1", "one");
        for _ in 0..5 {
            let answer = one.ask().await.expect("an answer");
            let CampaignResult::Waiting { observation, again, .. } = answer else { panic!("{answer:?}") };
            let why = observation.obstacle.expect("a reason");
            assert!(why.contains("0 of 1 replicas are attached") && why.contains("replicas-was=1"), "{why}");
            tokio::time::sleep(again.expect("a time").min(one.candidacy.ttl / 2)).await;
        }
        assert_eq!(server.field("state"), "vacant");
    });
}

#[test]
fn a_take_that_no_replica_has_is_found_and_counts_with_the_second_write_that_they_have() {
    with_server(async |server| {
        let replica = server.replica();
        let mut one = candidate(server, "?replicas=1", "one");
        // To the candidate this is an answer that never came: it may lead, and does not know.
        replica.signal(Signal::SIGSTOP);
        let unknown = loop {
            match one.ask().await {
                Ok(CampaignResult::Won { .. }) => panic!("won without a replica"),
                Ok(CampaignResult::Waiting { again, .. }) => tokio::time::sleep(again.unwrap_or_default()).await,
                Err(error) => break error.to_string(),
            }
        };
        assert!(unknown.contains("0 of 1 replicas have confirmed"), "{unknown}");
        // It finds its own take by the nonce at the next look, and does not wait for itself.
        assert!(matches!(one.ask().await, Ok(CampaignResult::Won { .. })));
        let unconfirmed = one.renews().await.expect_err("nothing is credited").to_string();
        assert!(unconfirmed.contains("0 of 1 replicas have confirmed"), "{unconfirmed}");
        replica.signal(Signal::SIGCONT);
        let first = loop {
            let error = one.renews().await.expect_err("the first one is not credited").to_string();
            if !error.contains("0 of 1") {
                break error;
            }
        };
        assert!(first.contains("followed by another one"), "{first}");
        credited(&mut one).await;
    });
}

#[test]
fn the_number_of_all_replicas_grows_with_what_all_of_them_have_confirmed() {
    with_server(async |server| {
        let mut one = leads(server, "").await;
        assert_eq!((server.field("replicas"), server.field("required")), ("0".to_owned(), "0".to_owned()));
        let first = server.replica();
        // One sees it, one is confirmed by it, one writes its number.
        for _ in 0..3 {
            credited(&mut one).await;
        }
        assert_eq!((server.field("replicas"), server.field("required")), ("1".to_owned(), "1".to_owned()));
        let second = server.replica();
        for _ in 0..3 {
            credited(&mut one).await;
        }
        assert_eq!((server.field("replicas"), server.field("required")), ("2".to_owned(), "2".to_owned()));
        second.signal(Signal::SIGSTOP);
        let short = one.renews().await.expect_err("not credited").to_string();
        assert!(short.contains("1 of 2 replicas have confirmed") && short.contains("replicas-was=2"), "{short}");
        second.signal(Signal::SIGCONT);
        until(|| server.replicas() == 2);
        loop {
            if let Ok(renewal) = one.renews().await {
                is_credited(&Ok(renewal));
                break;
            }
        }
        drop((first, second));
        assert_eq!(server.field("replicas"), "2", "it never shrinks by itself");
    });
}

/// A replica counts only with an address, a port and an offset of its own (5.4).
#[test]
fn nothing_that_merely_looks_like_a_replica_raises_the_number() {
    with_server(async |server| {
        let mut one = leads(server, "").await;
        let (host, port) = server.address.split_once(':').expect("host and port");
        let mut debug = Command::new("redis-cli")
            .args(["-h", host, "-p", port, "--replica"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-cli is installed");
        until(|| server.cli(&["info", "replication"]).contains("state=online"));
        for _ in 0..3 {
            credited(&mut one).await;
        }
        debug.kill().and_then(|()| debug.wait()).expect("a child of ours");
        server.dump();
        credited(&mut one).await;
        // A link that is half open has confirmed something once; one with the address of another is none of its own.
        for (port, confirms) in
            [(Some(7), None), (Some(7), Some(1)), (None, Some(1)), (None, Some(1 << 50)), (Some(0), Some(1))]
        {
            let link = pretender(server, port, confirms);
            for _ in 0..3 {
                credited(&mut one).await;
            }
            assert_eq!(
                (server.field("replicas"), server.field("required")),
                ("0".to_owned(), "0".to_owned()),
                "{port:?}, {confirms:?}"
            );
            link.shutdown(Shutdown::Both).expect("it is open");
            until(|| !server.cli(&["info", "replication"]).contains("state=online"));
        }
    });
}

/// A client that confirms and is no replica cannot stand in for one.
#[test]
fn a_stranger_that_confirms_everything_credits_nobody() {
    with_server(async |server| {
        let replica = server.replica();
        let mut one = leads(server, "").await;
        credited(&mut one).await;
        assert_eq!(server.field("required"), "1");
        let link = pretender(server, None, Some(1 << 50));
        until(|| server.cli(&["info", "replication"]).contains("port=0,state=online,offset=1125899906842624"));
        replica.signal(Signal::SIGSTOP);
        for _ in 0..3 {
            let renewal = one.renews().await;
            assert!(renewal.is_err(), "{renewal:?}");
        }
        link.shutdown(Shutdown::Both).expect("it is open");
        replica.signal(Signal::SIGCONT);
    });
}

/// A release stores the incarnation of the last credited renewal: the server has forgotten nothing since then (5.4).
#[test]
fn a_hand_over_after_a_dump_a_debug_client_or_a_new_replica_waits_for_nothing() {
    with_server(async |server| {
        let mut one = leads(server, "").await;
        server.dump();
        credited(&mut one).await;
        is_free_at_once(server, one).await;

        let mut one = leads(server, "").await;
        let replica = server.replica();
        // It may confirm nothing yet at the first renewals.
        let limit = clock::now() + Duration::from_secs(30);
        while server.field("required") != "1" {
            assert!(clock::now() < limit, "the replica does not count");
            credited(&mut one).await;
        }
        credited(&mut one).await;
        credited(&mut one).await;
        is_free_at_once(server, one).await;

        let mut one = leads(server, "").await;
        server.dump();
        credited(&mut one).await;
        is_free_at_once(server, one).await;
        drop(replica);
    });
}

#[test]
fn a_release_after_something_has_changed_and_before_a_credit_is_waited_for() {
    with_server(async |server| {
        let replica = server.replica();
        let mut one = leads(server, "").await;
        credited(&mut one).await;
        server.dump();
        one.store.release(&one.candidacy).await.expect("released");
        let mut next = candidate(server, "", "next");
        let answer = next.ask().await.expect("an answer");
        let CampaignResult::Waiting { observation, .. } = answer else { panic!("{answer:?}") };
        let why = observation.obstacle.expect("a reason");
        assert!(why.contains("a replica has attached since the last leader"), "{why}");
        drop(replica);
    });
}

#[test]
fn a_replica_that_attaches_between_take_and_first_renewal_costs_the_take() {
    with_server(async |server| {
        let replica = server.replica();
        let mut one = leads_for(server, "", LONG).await;
        credited(&mut one).await;
        one.store.release(&one.candidacy).await.expect("released");
        let mut next = candidate(server, "", "next");
        assert!(matches!(next.ask().await, Ok(CampaignResult::Won { .. })));
        server.dump();
        let renewal = next.renews().await;
        let Ok(RenewResult::Lost { why }) = renewal else { panic!("{renewal:?}") };
        assert!(why.contains("given back"), "{why}");
        assert_eq!(server.field("state"), "free");
        // Counters that were set back may hide as many replicas.
        next.wins().await;
        server.cli(&["config", "resetstat"]);
        let renewal = next.renews().await;
        assert!(matches!(renewal, Ok(RenewResult::Lost { .. })), "{renewal:?}");
        drop(replica);
    });
}

/// A replica may have confirmed another leader's renewals while it was away, and it need not be copied again to come back.
#[test]
fn a_replica_that_comes_back_with_a_partial_resynchronization_costs_the_take_too() {
    with_server(async |server| {
        let replica = server.replica();
        let mut one = leads_for(server, "", LONG).await;
        credited(&mut one).await;
        one.store.release(&one.candidacy).await.expect("released");
        let mut next = candidate(server, "", "next");
        assert!(matches!(next.ask().await, Ok(CampaignResult::Won { .. })));
        let partial = || {
            server.cli(&["info", "stats"]).lines().find(|line| line.starts_with("sync_partial_ok:")).map(str::to_owned)
        };
        let before = partial();
        server.cli(&["client", "kill", "type", "replica"]);
        until(|| partial() != before && server.replicas() == 1);
        let renewal = next.renews().await;
        assert!(matches!(&renewal, Ok(RenewResult::Lost { why }) if why.contains("given back")), "{renewal:?}");
        drop(replica);
    });
}

/// The keeper's release has to state where the last credited renewal was executed.
#[test]
fn a_credit_on_a_changed_basis_makes_a_new_claim_for_the_keeper() {
    with_server(async |server| {
        let replica = server.replica();
        let mut one = leads(server, "").await;
        assert!(one.store.renewed_claim(&one.candidacy).is_some(), "the first credit of the term");
        credited(&mut one).await;
        assert!(one.store.renewed_claim(&one.candidacy).is_none(), "nothing has changed");
        server.dump();
        credited(&mut one).await;
        assert!(one.store.renewed_claim(&one.candidacy).is_some(), "a replica seemed to attach");
        drop(replica);
    });
}

#[test]
fn candidates_that_require_different_numbers_do_not_meet_unless_one_replaces_the_other() {
    with_server(async |server| {
        let replicas = [server.replica(), server.replica()];
        let mut one = leads_for(server, "", LONG).await;
        credited(&mut one).await;
        assert_eq!(server.field("required"), "2");
        for (options, means) in [
            ("?replicas=1", "1"),
            ("?replicas=majority", "1"),
            ("?replicas=0", "0"),
            ("?replicas=1&replicas-was=3", "1"),
        ] {
            let error = candidate(server, options, "other").ask().await.expect_err("an obstacle");
            let StoreError::Obstacle(why) = error else { panic!("{error:?}") };
            assert!(why.contains("2 replicas confirm each write") && why.contains(&format!("means {means}")), "{why}");
            assert!(why.contains("&replicas-was=2"), "{why}");
        }
        let mut other = candidate(server, "?replicas=majority&replicas-was=2", "other");
        let Ok(CampaignResult::Waiting { .. }) = other.ask().await else { panic!("it did not wait") };
        one.store.release(&one.candidacy).await.expect("released");
        let answer = other.ask().await;
        assert!(matches!(answer, Ok(CampaignResult::Waiting { .. })), "free or not, it is of another kind: {answer:?}");
        other.wins().await;
        credited(&mut other).await;
        credited(&mut other).await;
        assert_eq!((server.field("replicas"), server.field("required")), ("2".to_owned(), "1".to_owned()));
        // The leader by the old number has lost, whatever else the record says.
        server.cli(&["hset", "elect:cron", "required", "2"]);
        let renewal = other.renews().await;
        assert!(matches!(&renewal, Ok(RenewResult::Lost { why }) if why.contains("asks for")), "{renewal:?}");
        drop(replicas);
    });
}

#[test]
fn all_starts_anew_where_a_replica_is_gone_for_good() {
    with_server(async |server| {
        let replicas = [server.replica(), server.replica()];
        let mut one = leads_for(server, "", LONG).await;
        credited(&mut one).await;
        one.store.release(&one.candidacy).await.expect("released");
        let [stays, goes] = replicas;
        drop(goes);
        until(|| server.replicas() == 1);
        let answer = candidate(server, "", "stuck").ask().await.expect("an answer");
        let CampaignResult::Waiting { observation, .. } = answer else { panic!("{answer:?}") };
        assert!(observation.obstacle.expect("a reason").contains("1 of 2 replicas are attached"));
        let mut next = candidate(server, "?replicas=all&replicas-was=2", "next");
        next.candidacy.ttl = LONG;
        next.wins().await;
        credited(&mut next).await;
        credited(&mut next).await;
        assert_eq!((server.field("replicas"), server.field("required")), ("1".to_owned(), "1".to_owned()));
        drop(stays);
    });
}
