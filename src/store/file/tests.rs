//! What the file store promises beyond the conformance suite.

use std::fs;
use std::path::Path;

use super::*;
use crate::store::conformance::{Site, conforms};
use crate::store::{Access, Identity, StoreUrl};

fn site(directory: &Path) -> Site {
    Site { url: format!("file:{}", directory.display()), access: Access::default(), ttl: Duration::from_secs(10) }
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn candidacy(id: &str) -> Candidacy {
    let identity = Identity { id: id.to_owned(), name: id.to_owned(), host: "host".to_owned(), port: None };
    Candidacy { boundary: "cron".parse().expect("a name"), identity, ttl: Duration::from_secs(10) }
}

fn store(directory: &Path) -> Box<dyn Store> {
    let url = format!("file:{}", directory.display());
    StoreUrl::parse(&url).expect("a URL").open(&Access::default(), Hints::to_nobody()).expect("opened")
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

/// Asks until the answer is a win; every question is bounded, and the whole by the caller's patience.
async fn win(store: &mut dyn Store, candidacy: &Candidacy) -> u64 {
    let mut claims = Vec::new();
    tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            claims.extend(store.claim(candidacy).expect("a claim"));
            match store.campaign(candidacy).await.expect("an answer") {
                Standing::Won { term } => return term,
                Standing::Waiting { .. } => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    })
    .await
    .expect("won in time")
}

#[test]
fn it_conforms() {
    let directory = directory();
    conforms(&site(directory.path()));
}

#[test]
fn a_waiter_does_not_lead_while_a_leader_has_yet_to_notice_that_its_lock_was_dropped() {
    let directory = directory();
    block_on(async {
        let (first, second) = (candidacy("first"), candidacy("second"));
        let (mut one, mut two) = (store(directory.path()), store(directory.path()));
        let claim = one.claim(&first).expect("a claim").expect("the first one");
        assert!(matches!(one.campaign(&first).await, Ok(Standing::Won { .. })));
        let _ = two.claim(&second).expect("a claim");
        assert!(matches!(two.campaign(&second).await, Ok(Standing::Waiting { .. })));
        // What `flock -u` does in a command: it unlocks the description that it shares with its leader.
        let shared = claim.descriptors[0].try_clone().map(fs::File::from).expect("a copy");
        shared.unlock().expect("unlocked");
        let probe = fs::File::open(directory.path().join("cron.lock")).expect("opened");
        // The waiter's thread gets the flock, and stays in the kernel for the guard.
        tokio::time::timeout(Duration::from_secs(20), async {
            while probe.try_lock().is_ok() {
                probe.unlock().expect("unlocked");
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("the waiter has the flock");
        assert!(matches!(two.campaign(&second).await, Ok(Standing::Waiting { .. })), "the leader may still run");
        assert!(matches!(one.renew(&first).await, Ok(Renewal::Lost { .. })), "the leader notices");
        assert!(matches!(two.campaign(&second).await, Ok(Standing::Waiting { .. })), "its tree may still live");
        // It campaigns again, which it does with an empty tree only: behind the other, under a new claim.
        assert!(one.claim(&first).expect("a claim").is_some());
        assert!(matches!(one.campaign(&first).await, Ok(Standing::Waiting { .. })));
        let term = win(two.as_mut(), &second).await;
        two.release(&second).await.expect("released");
        assert!(win(one.as_mut(), &first).await > term);
        drop(claim);
    });
}

#[test]
fn an_unlock_that_nobody_used_is_undone_by_the_next_renewal() {
    let directory = directory();
    block_on(async {
        let first = candidacy("first");
        let mut one = store(directory.path());
        let claim = one.claim(&first).expect("a claim").expect("the first one");
        assert!(matches!(one.campaign(&first).await, Ok(Standing::Won { .. })));
        claim.descriptors[0].try_clone().map(fs::File::from).expect("a copy").unlock().expect("unlocked");
        assert!(matches!(one.renew(&first).await, Ok(Renewal::Credited { .. })));
        let probe = fs::File::open(directory.path().join("cron.lock")).expect("opened");
        assert!(probe.try_lock().is_err(), "locked again");
    });
}

#[test]
fn on_a_lock_file_other_than_the_leaders_a_candidate_waits_until_that_leader_has_noticed() {
    let directory = directory();
    block_on(async {
        let (first, second) = (candidacy("first"), candidacy("second"));
        let (mut one, mut two) = (store(directory.path()), store(directory.path()));
        let term = win(one.as_mut(), &first).await;
        fs::rename(directory.path().join("cron.lock"), directory.path().join("elsewhere")).expect("renamed");
        let before = clock::now();
        let _claim = two.claim(&second).expect("a claim");
        let obstacle = tokio::time::timeout(Duration::from_secs(20), async {
            loop {
                let Ok(Standing::Waiting { sighting, .. }) = two.campaign(&second).await else {
                    panic!("leads while the other has its lock")
                };
                match sighting.obstacle {
                    Some(obstacle) if obstacle.contains("still") || obstacle.contains("on the old one") => {
                        return obstacle;
                    }
                    Some(_) | None => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        });
        // Time alone is not enough: somebody holds the lock on the other file, and is named.
        let obstacle = obstacle.await.expect("said in time");
        assert!(obstacle.contains(&std::process::id().to_string()), "{obstacle}");
        assert!(clock::now().since(before) >= SETTLE, "not before the old leader has noticed");
        assert!(matches!(one.renew(&first).await, Ok(Renewal::Lost { .. })));
        // It campaigns again, with an empty tree, and gives up what it had.
        assert!(one.claim(&first).expect("a claim").is_some());
        let next = win(two.as_mut(), &second).await;
        assert!(next > term);
        // The old leader's release is none of the new one's business.
        one.release(&first).await.expect("released");
        assert!(matches!(two.renew(&second).await, Ok(Renewal::Credited { .. })));
        assert_eq!(two.look(&second.boundary).await.expect("looked").leader.expect("a leader").id, "second");
    });
}

#[test]
fn a_claim_that_did_not_reach_the_keeper_is_offered_again() {
    let directory = directory();
    block_on(async {
        let first = candidacy("first");
        let mut one = store(directory.path());
        assert!(one.claim(&first).expect("a claim").is_some());
        assert!(one.claim(&first).expect("a claim").is_some(), "not asked to campaign: it was not given");
        assert!(matches!(one.campaign(&first).await, Ok(Standing::Won { .. })));
        assert!(one.claim(&first).expect("a claim").is_none(), "given");
    });
}

#[test]
fn a_record_whose_term_cannot_rise_is_refused() {
    let directory = directory();
    block_on(async {
        let first = candidacy("first");
        let mut one = store(directory.path());
        win(one.as_mut(), &first).await;
        one.release(&first).await.expect("released");
        let files = Files::new(directory.path(), "cron");
        let mut record = files.read().expect("read").expect("a record");
        (record.record.term, record.record.since) = (u64::MAX, u64::MAX);
        files.write(&record).expect("written");
        let _claim = one.claim(&first).expect("a claim");
        assert!(matches!(one.campaign(&first).await, Err(StoreError::Refused(_))));
        let sighting = Sighting { leader: Some(record.record.leader()), ..Sighting::default() };
        let document = crate::surface::status::Document::new(&first.boundary, "file", &sighting).to_json();
        assert!(document.contains("\"since\":null"), "no calendar has such a date: {document}");
    });
}

#[test]
fn a_record_of_a_newer_format_keeps_a_candidate_from_standing() {
    let directory = directory();
    fs::write(directory.path().join("cron.json"), "{\"version\":2,\"state\":\"sealed\"}").expect("written");
    block_on(async {
        let first = candidacy("first");
        let mut one = store(directory.path());
        let _claim = one.claim(&first).expect("a claim");
        let error = one.campaign(&first).await.expect_err("refused");
        assert!(matches!(&error, StoreError::Refused(message) if message.contains("newer")), "{error}");
        let probe = fs::File::open(directory.path().join("cron.lock")).expect("opened");
        probe.try_lock().expect("the lock is left to those who can read the record");
    });
}

#[test]
fn a_record_that_is_none_is_replaced_and_the_term_still_rises() {
    let directory = directory();
    block_on(async {
        let first = candidacy("first");
        let mut one = store(directory.path());
        let term = win(one.as_mut(), &first).await;
        one.release(&first).await.expect("released");
        fs::write(directory.path().join("cron.json"), "not a record").expect("written");
        assert!(one.look(&first.boundary).await.is_err());
        assert!(win(one.as_mut(), &first).await > term);
    });
}

#[test]
fn a_term_is_larger_than_the_last_one_even_when_the_wall_clock_is_behind() {
    let directory = directory();
    block_on(async {
        let first = candidacy("first");
        let mut one = store(directory.path());
        win(one.as_mut(), &first).await;
        one.release(&first).await.expect("released");
        let files = Files::new(directory.path(), "cron");
        let mut record = files.read().expect("read").expect("a record");
        record.record.term += 1_000_000_000;
        files.write(&record).expect("written");
        assert_eq!(win(one.as_mut(), &first).await, record.record.term + 1);
    });
}

#[test]
fn locks_of_other_programs_are_seen_without_being_touched() {
    let directory = directory();
    block_on(async {
        let first = candidacy("first");
        let mut one = store(directory.path());
        assert_eq!(one.look(&first.boundary).await.expect("looked"), Sighting::default());
        let other = fs::File::create(directory.path().join("cron.lock")).expect("created");
        other.lock().expect("locked");
        let sighting = one.look(&first.boundary).await.expect("looked");
        assert_eq!(sighting.leader, None);
        let obstacle = sighting.obstacle.expect("somebody holds it");
        assert!(obstacle.contains(&std::process::id().to_string()), "{obstacle}");
    });
}

#[test]
fn a_hint_has_an_echo_since_a_holders_end_is_told_before_its_lock_is_gone() {
    let directory = directory();
    let boundary = candidacy("first").boundary;
    block_on(async {
        let mut one = store(directory.path());
        let lock = fs::File::create(directory.path().join("cron.lock")).expect("created");
        // The first one says that it has begun.
        one.changed(Some(&boundary)).await;
        drop(lock);
        for hint in ["the hint", "its echo"] {
            let heard = tokio::time::timeout(Duration::from_secs(20), one.changed(Some(&boundary))).await;
            assert!(heard.is_ok(), "{hint}");
        }
        let more = tokio::time::timeout(Duration::from_millis(100), one.changed(Some(&boundary))).await;
        assert!(more.is_err(), "nothing else has happened");
    });
}

#[test]
fn a_directory_that_is_not_there_yet_is_heard_of_when_it_is_made() {
    let directory = directory();
    let boundary = candidacy("first").boundary;
    let deeper = directory.path().join("a/b");
    block_on(async {
        let mut one = store(&deeper);
        one.changed(Some(&boundary)).await;
        for made in [directory.path().join("a"), deeper.clone()] {
            fs::create_dir(made).expect("an empty place");
            // That it is there, and that what happens in it will be heard.
            for _ in 0..2 {
                let heard = tokio::time::timeout(Duration::from_secs(20), one.changed(Some(&boundary))).await;
                assert!(heard.is_ok());
            }
        }
        fs::write(deeper.join("other.json"), "").expect("written");
        let other = tokio::time::timeout(Duration::from_millis(100), one.changed(Some(&boundary))).await;
        assert!(other.is_err(), "another boundary's");
        fs::write(deeper.join("cron.json"), "").expect("written");
        let heard = tokio::time::timeout(Duration::from_secs(20), one.changed(Some(&boundary))).await;
        assert!(heard.is_ok());
    });
}
