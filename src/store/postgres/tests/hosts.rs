//! Several hosts in the URL: the promoted one counts, silent ones delay nothing for long.

use std::cell::Cell;
use std::rc::Rc;

use super::*;
use crate::store::worker::StoreEvent;

/// The URL of all of them.
fn url(servers: &[&PostgresProcess]) -> String {
    let hosts: Vec<_> = servers.iter().map(|server| format!("{}:{}", server.host, server.port)).collect();
    format!("postgres://{}/postgres?user=elect", hosts.join(","))
}

async fn until_ousted(candidate: &mut PostgresCandidate) -> Term {
    let told = async {
        loop {
            if let StoreEvent::Ousted { term } = candidate.events.recv().await.expect("the store is open") {
                return term;
            }
        }
    };
    tokio::time::timeout(LIMIT, told).await.expect("a promotion is told")
}

/// Where the row says so.
async fn leader_at(server: &PostgresProcess) -> String {
    let client = server.try_client().await.expect("it is up");
    let question = "SELECT name FROM elect_boundaries WHERE boundary = 'cron' AND state = 'held'";
    client.query_one(question, &[]).await.expect("a leader").get(0)
}

fn signal(server: &PostgresProcess, signal: nix::sys::signal::Signal) {
    let first = nix::unistd::Pid::from_raw(i32::try_from(server.child.id()).expect("a pid"));
    let path = format!("/proc/{first}/task/{first}/children");
    let children = std::fs::read_to_string(path).expect("its children");
    let children = children.split_whitespace().map(|pid| nix::unistd::Pid::from_raw(pid.parse().expect("a pid")));
    for pid in children.chain([first]) {
        // A child may have ended meanwhile.
        let _ = nix::sys::signal::kill(pid, signal);
    }
}

/// A primary, and an asynchronous standby of it.
fn with_standby(test: impl AsyncFnOnce(PostgresProcess, PostgresProcess)) {
    let primary = PostgresProcess::with(&[]);
    let standby = primary.standby("127.0.0.1", free_port());
    LocalSet::new().block_on(&runtime(), test(primary, standby));
}

/// K11: an asynchronous standby is promoted while the old primary still answers.
#[test]
fn a_leader_is_told_at_once_that_another_host_was_promoted_and_moves_there() {
    with_standby(async |old, new| {
        let mut one = PostgresCandidate::at(&url(&[&old, &new]), "one", SHORT);
        let term = one.win().await;
        assert!(matches!(one.renew().await, Ok(RenewResult::Credited { .. })));
        new.run("SELECT pg_promote()").await;
        assert_eq!(until_ousted(&mut one).await, term);
        let lost = one.renew().await.expect("an answer");
        assert!(matches!(&lost, RenewResult::Lost { why } if why.contains("was promoted")), "{lost:?}");
        let next = one.win().await;
        assert!(next > term && leader_at(&new).await == "one", "{next} {term}");
        assert!(matches!(one.renew().await, Ok(RenewResult::Credited { .. })));
        // The old one is all that is left, and does not count again.
        drop(new);
        let limit = clock::now() + LIMIT;
        loop {
            let error = one.renew().await.expect_err("an outage").to_string();
            if error.contains("counts no more") {
                return;
            }
            assert!(clock::now() < limit, "{error}");
        }
    });
}

/// A waiting candidate on the old primary sees a leader whose renewals have stopped, and must not take its place.
#[test]
fn a_candidate_takes_nothing_on_a_primary_that_was_promoted_away_from() {
    with_standby(async |old, new| {
        let both = url(&[&old, &new]);
        let mut two = PostgresCandidate::at(&both, "two", SHORT);
        PostgresCandidate::at(&old.url(), "one", SHORT).win().await;
        assert!(matches!(two.campaign().await, Ok(CampaignResult::Waiting { .. })));
        new.run("SELECT pg_promote()").await;
        two.win().await;
        assert_eq!((leader_at(&new).await, leader_at(&old).await), ("two".to_owned(), "one".to_owned()));
    });
}

/// A host that accepts connections and is silent counts as failed once its own time is up.
#[test]
fn a_silent_host_delays_the_first_take_by_one_attempt_and_renewals_by_nothing() {
    with_server(&[], async |primary| {
        let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = silent.local_addr().expect("an address").port();
        let url = url(&[primary]).replacen("postgres://", &format!("postgres://127.0.0.1:{port},"), 1);
        let limit = Duration::from_secs(12);
        let mut one = PostgresCandidate::at(&url, "one", limit);
        one.candidacy.ttl = Duration::from_millis(100);
        let begun = clock::now();
        one.win().await;
        let taken = clock::now().since(begun);
        assert!(taken >= limit, "it was not waited for: {taken:?}");
        for _ in 0..20 {
            let sent = clock::now();
            let renewed = one.renew().await;
            let credited = matches!(renewed, Ok(RenewResult::Credited { .. }));
            assert!(credited && clock::now().since(sent) < limit / 4, "{renewed:?}");
        }
    });
}

/// A failed host has answered.
#[test]
fn a_host_that_is_down_or_unknown_delays_nothing() {
    with_server(&[], async |primary| {
        let hosts = format!("postgres://127.0.0.1:1,nowhere.invalid,127.0.0.1:{}", primary.port);
        let url = format!("{hosts}/postgres?user=elect");
        let mut one = PostgresCandidate::at(&url, "one", LONG);
        let begun = clock::now();
        one.win().await;
        assert!(matches!(one.renew().await, Ok(RenewResult::Credited { .. })));
        assert!(clock::now().since(begun) < LONG / 4, "it has waited for a host that is not there");
    });
}

#[test]
fn a_frozen_standby_costs_a_leader_nothing() {
    with_standby(async |primary, standby| {
        let limit = Duration::from_secs(12);
        let mut one = PostgresCandidate::at(&url(&[&standby, &primary]), "one", limit);
        one.win().await;
        assert!(matches!(one.renew().await, Ok(RenewResult::Credited { .. })));
        signal(&standby, nix::sys::signal::Signal::SIGSTOP);
        let begun = clock::now();
        while clock::now().since(begun) < limit * 3 / 2 {
            let sent = clock::now();
            let renewed = one.renew().await;
            let credited = matches!(renewed, Ok(RenewResult::Credited { .. }));
            assert!(credited && clock::now().since(sent) < limit / 4, "{renewed:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        signal(&standby, nix::sys::signal::Signal::SIGCONT);
    });
}

/// Candidates that reach one of the two alone would not see each other.
#[test]
fn primaries_of_two_clusters_are_refused() {
    let (one, other) = (PostgresProcess::with(&[]), PostgresProcess::with(&[]));
    LocalSet::new().block_on(&runtime(), async {
        let error = PostgresCandidate::at(&url(&[&one, &other]), "one", SHORT).campaign().await.expect_err("two");
        assert!(matches!(error, StoreError::Refused(_)) && error.to_string().contains("two clusters"), "{error}");
    });
}

#[test]
fn of_several_hosts_the_primary_is_used() {
    with_standby(async |primary, standby| {
        let mut one = PostgresCandidate::at(&url(&[&standby, &primary]), "one", SHORT);
        one.win().await;
        assert_eq!(leader_at(&primary).await, "one");
    });
}

/// A cut-off attempt takes its connection along, and not what was learned beside it.
#[test]
fn a_promotion_that_was_seen_is_remembered_when_an_attempt_is_cut_off() {
    with_standby(async |old, new| {
        let mut one = PostgresCandidate::at(&url(&[&old, &new]), "one", Duration::from_secs(2));
        one.win().await;
        assert!(matches!(one.renew().await, Ok(RenewResult::Credited { .. })));
        new.run("SELECT pg_promote()").await;
        until_ousted(&mut one).await;
        signal(&old, nix::sys::signal::Signal::SIGSTOP);
        assert!(one.store.release(&one.candidacy).await.is_err(), "it stands still");
        drop(new);
        signal(&old, nix::sys::signal::Signal::SIGCONT);
        let limit = clock::now() + LIMIT;
        loop {
            let error = one.campaign().await.expect_err("the old one does not count again").to_string();
            if error.contains("counts no more") {
                return;
            }
            assert!(clock::now() < limit, "{error}");
        }
    });
}

/// An address that leads each new connection to its present server, as that of a load balancer does.
struct MovingAddress {
    port: u16,
    server: Rc<Cell<Option<u16>>>,
    connections: Rc<Cell<usize>>,
}

impl MovingAddress {
    async fn bind() -> MovingAddress {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (server, connections): (Rc<Cell<Option<u16>>>, Rc<Cell<usize>>) = Default::default();
        let moving = MovingAddress { port, server: Rc::clone(&server), connections: Rc::clone(&connections) };
        tokio::task::spawn_local(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let Some(port) = server.get() else { continue };
                connections.set(connections.get() + 1);
                tokio::task::spawn_local(async move {
                    let mut server = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.expect("it is up");
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        moving
    }
}

/// K11: another host of the URL that has led to our server may lead to the promoted one later.
#[test]
fn an_address_that_moves_from_our_server_to_a_promoted_one_is_noticed() {
    with_standby(async |old, new| {
        let moving = MovingAddress::bind().await;
        let both = url(&[&old]).replacen(&old.port.to_string(), &format!("{},127.0.0.1:{}", old.port, moving.port), 1);
        let mut one = PostgresCandidate::at(&both, "one", SHORT);
        let term = one.win().await;
        moving.server.set(Some(old.port));
        let limit = clock::now() + Duration::from_secs(2);
        while moving.connections.get() == 0 || clock::now() < limit {
            assert!(matches!(one.renew().await, Ok(RenewResult::Credited { .. }) | Err(StoreError::Connecting(_))));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        moving.server.set(Some(new.port));
        new.run("SELECT pg_promote()").await;
        assert_eq!(until_ousted(&mut one).await, term);
    });
}

/// As after two standbys were promoted at once, or of a snapshot: candidates that reach one of the two alone would not see each other.
#[test]
fn of_two_primaries_on_one_timeline_none_is_led_on() {
    let one = PostgresProcess::with(&[]);
    let other = one.twin();
    LocalSet::new().block_on(&runtime(), async {
        let error = PostgresCandidate::at(&url(&[&one, &other]), "one", SHORT).campaign().await.expect_err("two");
        let said = error.to_string();
        assert!(matches!(error, StoreError::Unavailable(_)) && said.contains("on one timeline"), "{said}");
    });
}
