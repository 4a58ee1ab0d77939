//! The number of round trips that a candidacy takes, and the first renewal, which is sent together with its take.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;

/// A proxy that counts round trips: how often a client writes after a server.
struct RoundTripCounter {
    address: String,
    count: Arc<AtomicUsize>,
}

impl RoundTripCounter {
    fn to(server: &RedisProcess) -> RoundTripCounter {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        let (count, server) = (Arc::new(AtomicUsize::new(0)), server.address.clone());
        let counter = Arc::clone(&count);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(&server)) else { return };
                let is_asking = Arc::new(AtomicBool::new(false));
                let (asks, answers, counter) = (Arc::clone(&is_asking), is_asking, Arc::clone(&counter));
                copy(&client, &server, move || {
                    if !asks.swap(true, Ordering::SeqCst) {
                        counter.fetch_add(1, Ordering::SeqCst);
                    }
                });
                copy(&server, &client, move || answers.store(false, Ordering::SeqCst));
            }
        });
        RoundTripCounter { address, count }
    }

    /// How many there were since the last call.
    fn take(&self) -> usize {
        self.count.swap(0, Ordering::SeqCst)
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

fn through(counter: &RoundTripCounter, name: &str) -> RedisCandidate {
    RedisCandidate::to(Duration::from_secs(10), &counter.address, "/3", name)
}

/// The first record has been waited for and is free, and names the number of replicas.
async fn settled_before(server: &RedisProcess) {
    let mut first = RedisCandidate::at(server, "", "first");
    first.wins().await;
    assert!(matches!(first.renews().await, Ok(RenewResult::Credited { .. })));
    first.store.release(&first.candidacy).await.expect("released");
}

#[test]
fn a_candidate_leads_after_three_round_trips_on_its_connection_and_releases_in_one() {
    with_server(async |server| {
        let counter = RoundTripCounter::to(server);
        // The first record is waited for, and the server learns the scripts.
        let mut first = through(&counter, "first");
        first.wins().await;
        assert!(matches!(first.renews().await, Ok(RenewResult::Credited { .. })));
        first.store.release(&first.candidacy).await.expect("released");
        counter.take();
        let mut one = through(&counter, "one");
        one.candidacy.ttl = LONG;
        assert!(matches!(one.ask().await, Ok(CampaignResult::Won { .. })));
        assert!(matches!(one.renews().await, Ok(RenewResult::Credited { .. })));
        assert_eq!(counter.take(), 3, "connection, look, take with renewal");
        assert!(matches!(one.renews().await, Ok(RenewResult::Credited { .. })));
        assert_eq!(counter.take(), 1);
        one.store.release(&one.candidacy).await.expect("released");
        assert_eq!(counter.take(), 1);
    });
}

#[test]
fn a_server_that_does_not_know_the_scripts_any_more_is_told() {
    with_server(async |server| {
        settled_before(server).await;
        for _ in 0..2 {
            let mut one = RedisCandidate::at(server, "", "one");
            one.candidacy.ttl = LONG;
            server.cli(&["script", "flush"]);
            assert!(matches!(one.ask().await, Ok(CampaignResult::Won { .. })));
            assert!(matches!(one.renews().await, Ok(RenewResult::Credited { .. })));
            one.store.release(&one.candidacy).await.expect("released");
        }
    });
}

/// T1: the lease counts from before the take, and a result that has lain about is no answer to a later question.
#[test]
fn the_renewal_that_is_sent_with_the_take_answers_a_prompt_question_alone() {
    with_server(async |server| {
        settled_before(server).await;
        let mut one = RedisCandidate::at(server, "", "one");
        one.candidacy.ttl = LONG;
        let before = clock::now();
        one.wins().await;
        let won = clock::now();
        let nonce = server.cli(&["hget", "elect:cron", "nonce"]);
        let Ok(RenewResult::Credited { sent, .. }) = one.renews().await else { panic!("not credited") };
        assert!(before <= sent && sent <= won);
        assert_eq!(server.cli(&["hget", "elect:cron", "nonce"]), nonce, "nothing was sent");
        let Ok(RenewResult::Credited { sent, .. }) = one.renews().await else { panic!("not credited") };
        assert!(sent >= won, "it answers one question");
        one.store.release(&one.candidacy).await.expect("released");
        one.wins().await;
        // Longer than an attempt.
        let until = clock::now() + Duration::from_millis(700);
        tokio::time::sleep(Duration::from_millis(710)).await;
        let Ok(RenewResult::Credited { sent, .. }) = one.renews().await else { panic!("not credited") };
        assert!(sent >= until, "it has lain about");
    });
}

/// Of two takes at once, the renewal of the one that is too late renews nothing.
#[test]
fn a_renewal_that_is_sent_with_a_take_renews_that_take_alone() {
    with_server(async |server| {
        settled_before(server).await;
        let mut one = RedisCandidate::at(server, "", "one");
        one.candidacy.ttl = LONG;
        one.wins().await;
        assert!(matches!(one.renews().await, Ok(RenewResult::Credited { .. })));
        let field = |name: &str| server.cli(&["hget", "elect:cron", name]);
        let script = concat!(include_str!("../server.lua"), "\n", include_str!("../renew.lua"));
        let renew = |take: &str| {
            let (id, required) = (field("id"), field("required"));
            let words =
                ["eval", script, "1", "elect:cron", &id, "", "1000", "channel", "forged", "", "", "", "", &required];
            server.cli(&[&words[..], &["", "", take]].concat())
        };
        for take in ["", "0", "1"] {
            assert!(renew(take).starts_with("lost"), "{take:?}");
            assert_eq!(field("name"), "one");
        }
        assert!(renew(&field("nonce")).starts_with("renewed"));
    });
}
