//! The number of round trips that a candidacy takes, and the first renewal, which is sent together with its take.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use elect_core::Time;

use super::*;

/// A proxy that notes round trips: whenever a client writes after a server, or first of all.
struct RoundTripCounter {
    address: String,
    begun: Arc<Mutex<Vec<Time>>>,
}

impl RoundTripCounter {
    fn to(server: &RedisProcess) -> RoundTripCounter {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        let (begun, server) = (Arc::new(Mutex::new(Vec::new())), server.address.clone());
        let noted = Arc::clone(&begun);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(&server)) else { return };
                let is_asking = Arc::new(AtomicBool::new(false));
                let (asks, answers, noted) = (Arc::clone(&is_asking), is_asking, Arc::clone(&noted));
                copy(&client, &server, move || {
                    if !asks.swap(true, Ordering::SeqCst) {
                        noted.lock().expect("no panic").push(clock::now());
                    }
                });
                copy(&server, &client, move || answers.store(false, Ordering::SeqCst));
            }
        });
        RoundTripCounter { address, begun }
    }

    /// Those since the last call: when the first byte of each has reached the proxy.
    fn take(&self) -> Vec<Time> {
        std::mem::take(&mut self.begun.lock().expect("no panic"))
    }
}

fn copy(from: &TcpStream, to: &TcpStream, before: impl Fn() + Send + 'static) {
    let (mut from, mut to) = (from.try_clone().expect("a descriptor"), to.try_clone().expect("a descriptor"));
    std::thread::spawn(move || {
        let mut bytes = vec![0; 1 << 16];
        while let Ok(size @ 1..) = from.read(&mut bytes) {
            before();
            if to.write_all(&bytes[..size]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    });
}

/// Through a proxy.
pub fn through(address: &str, options: &str, name: &str) -> RedisCandidate {
    let mut one = RedisCandidate::to(PATIENT, address, options, name);
    one.candidacy.ttl = PATIENT * 2;
    one
}

pub fn patient(server: &RedisProcess, options: &str, name: &str) -> RedisCandidate {
    through(&server.address, options, name)
}

/// The first record has been waited for and is free, and names the number of replicas.
pub async fn settled_before(server: &RedisProcess, options: &str) {
    let mut first = RedisCandidate::asking_for(PATIENT, server, options, "first");
    first.wins().await;
    first.is_credited().await;
    first.store.release(&first.candidacy).await.expect("released");
}

impl RedisCandidate {
    /// When the credited renewal was sent.
    pub async fn is_credited(&mut self) -> Time {
        match self.renews().await {
            Ok(RenewResult::Credited { sent, .. }) => sent,
            other => panic!("not credited: {other:?}"),
        }
    }
}

#[test]
fn a_candidate_leads_after_three_round_trips_on_its_connection_and_releases_in_one() {
    with_server(async |server| {
        let counter = RoundTripCounter::to(server);
        // The first record is waited for, and the server learns the scripts.
        settled_before(server, "/3").await;
        let mut one = through(&counter.address, "/3", "one");
        assert!(matches!(one.ask().await, Ok(CampaignResult::Won { .. })));
        one.is_credited().await;
        assert_eq!(counter.take().len(), 3, "connection, look, take with renewal");
        one.is_credited().await;
        assert_eq!(counter.take().len(), 1);
        one.store.release(&one.candidacy).await.expect("released");
        assert_eq!(counter.take().len(), 1);
        // On the connection that it has.
        assert!(matches!(one.ask().await, Ok(CampaignResult::Won { .. })));
        one.is_credited().await;
        assert_eq!(counter.take().len(), 2, "look, take with renewal");
    });
}

/// T1: the lease counts from before the first byte of take and renewal has left.
#[test]
fn a_renewal_that_is_sent_with_a_take_counts_from_before_both() {
    with_server(async |server| {
        settled_before(server, "/3").await;
        let counter = RoundTripCounter::to(server);
        let mut one = through(&counter.address, "/3", "one");
        for _ in 0..3 {
            one.wins().await;
            let left = counter.take();
            let [.., looked, taken] = left[..] else { panic!("too few: {left:?}") };
            let sent = one.is_credited().await;
            assert_eq!(counter.take().len(), 0, "nothing more was sent");
            assert!(looked <= sent && sent <= taken, "counted from {sent:?}, left at {left:?}");
            one.store.release(&one.candidacy).await.expect("released");
            counter.take();
        }
    });
}

#[test]
fn a_server_that_does_not_know_the_scripts_any_more_is_told() {
    with_server(async |server| {
        settled_before(server, "").await;
        for with_take in [false, true] {
            let mut one = patient(server, "", "one");
            server.cli(&["script", "flush"]);
            if with_take {
                // The first take of a boundary goes without a renewal, so the server learns the script of takes alone.
                let mut other = RedisCandidate::asking_for(PATIENT, server, "", "other");
                other.candidacy.boundary = "another".parse().expect("a name");
                other.wins().await;
            }
            assert!(matches!(one.ask().await, Ok(CampaignResult::Won { .. })));
            let nonce = server.field("nonce");
            one.is_credited().await;
            assert_eq!(server.field("nonce"), nonce, "it was renewed with its take");
            one.store.release(&one.candidacy).await.expect("released");
        }
    });
}

#[test]
fn a_take_stands_though_the_renewal_that_was_sent_with_it_has_failed() {
    with_server(async |server| {
        settled_before(server, "").await;
        server.cli(&["script", "flush"]);
        let mut other = RedisCandidate::asking_for(PATIENT, server, "", "other");
        other.candidacy.boundary = "another".parse().expect("a name");
        other.wins().await;
        // It does not know the script of renewals, and is not to be told.
        server.cli(&["acl", "setuser", "default", "-eval"]);
        let mut one = patient(server, "", "one");
        let Ok(CampaignResult::Won { term }) = one.ask().await else { panic!("not won") };
        server.cli(&["acl", "setuser", "default", "+eval"]);
        let won = clock::now();
        assert!(one.is_credited().await >= won, "by a renewal of its own");
        assert_eq!(server.field("term"), term.to_string());
        one.store.release(&one.candidacy).await.expect("released");
        assert_eq!(server.field("state"), "free");
    });
}

/// It is no answer to a later request, nor to one after which the boundary was asked for or given back.
#[test]
fn the_renewal_that_is_sent_with_the_take_answers_the_first_request_alone() {
    with_server(async |server| {
        settled_before(server, "").await;
        let mut one = patient(server, "", "one");
        let term = one.wins().await;
        let (won, nonce) = (clock::now(), server.field("nonce"));
        assert!(one.is_credited().await <= won);
        assert_eq!(server.field("nonce"), nonce, "nothing was sent");
        assert!(one.is_credited().await >= won, "it answers one request");
        one.store.release(&one.candidacy).await.expect("released");
        assert!(one.wins().await > term);
        one.store.release(&one.candidacy).await.expect("released");
        assert!(matches!(one.renews().await, Ok(RenewResult::Lost { .. })), "the boundary was given back");
        // As after a change of mind of its caller: the win is found in the record, and verified by a renewal that follows.
        let term = one.wins().await;
        let won = clock::now();
        assert_eq!(one.wins().await, term);
        assert!(one.is_credited().await >= won, "the boundary was asked for again");
        one.store.release(&one.candidacy).await.expect("released");
        one.wins().await;
        let won = clock::now();
        "proclaimed.example".clone_into(&mut one.candidacy.identity.host);
        assert!(one.is_credited().await >= won, "under another address");
        assert_eq!(server.field("host"), "proclaimed.example");
    });
}

/// Of two takes at once, the renewal of the one that is too late renews nothing.
#[test]
fn a_renewal_that_is_sent_with_a_take_renews_that_take_alone() {
    with_server(async |server| {
        settled_before(server, "").await;
        let mut one = patient(server, "", "one");
        one.wins().await;
        one.is_credited().await;
        let script = concat!(
            "local replication = redis.call('INFO', 'replication')\n",
            include_str!("../server.lua"),
            include_str!("../renew.lua")
        );
        let renew = |take: &str| {
            let (id, required) = (server.field("id"), server.field("required"));
            let words =
                ["eval", script, "1", "elect:cron", &id, "", "1000", "channel", "forged", "", "", "", "", &required];
            server.cli(&[&words[..], &["", "", take]].concat())
        };
        for take in ["", "0", "1"] {
            assert!(renew(take).starts_with("lost"), "{take:?}");
            assert_eq!(server.field("name"), "one");
        }
        assert!(renew(&server.field("nonce")).starts_with("renewed"));
    });
}
