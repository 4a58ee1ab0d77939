//! The rules of the file store beyond the conformance suite.

mod conformance;
mod locks;
mod paths;

use std::fs;
use std::path::Path;

use super::newcomer_wait::NEWCOMER_WAIT;
use super::*;
use crate::store::conformance::{StoreUnderTest, conforms};
use crate::store::url::StoreUrl;
use crate::store::{Access, Identity};

fn site(directory: &Path) -> StoreUnderTest {
    StoreUnderTest {
        url: format!("file:{}", directory.display()),
        access: Access::default(),
        ttl: Duration::from_secs(10),
        support: &conformance::FileSupport,
    }
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn candidacy(id: &str) -> Candidacy {
    let identity = Identity { id: id.to_owned(), name: id.to_owned(), host: "host".to_owned(), port: None };
    Candidacy { boundary: "cron".parse().expect("a name"), identity, ttl: Duration::from_secs(10) }
}

fn files(directory: &Path) -> Files {
    Files::new(directory, directory.to_owned(), "cron")
}

/// The store itself, for what cannot be seen from outside.
fn inner(directory: &Path) -> FileStore {
    let directory = Directory::parse(&directory.display().to_string()).expect("a path");
    FileStore::new(directory, Notifier::disconnected())
}

fn store(directory: &Path) -> Box<dyn Store> {
    let url = format!("file:{}", directory.display());
    StoreUrl::parse(&url).expect("a URL").open(&Access::default(), Notifier::disconnected()).expect("opened")
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

/// Neither of the two locks is held.
#[track_caller]
fn free_to_all(directory: &Path) {
    let path = directory.join("cron.lock");
    let probe = fs::File::open(&path).expect("opened");
    probe.try_lock().expect("the lock is left to those who can read the record");
    probe.unlock().expect("ours");
    assert!(!session::is_guarded(&path));
}

/// Asks until the path to the lock file is resolved, which a thread does beside the store. On a busy machine it takes longer
/// than the store waits.
async fn campaign(store: &mut dyn Store, candidacy: &Candidacy) -> Result<CampaignResult, StoreError> {
    loop {
        match store.campaign(candidacy).await {
            Ok(CampaignResult::Waiting { observation, .. }) if observation.obstacle.as_deref().is_some_and(is_late) => {
            }
            answer => return answer,
        }
    }
}

async fn renew(store: &mut dyn Store, candidacy: &Candidacy) -> Result<RenewResult, StoreError> {
    loop {
        match store.renew(candidacy).await {
            Err(StoreError::Unavailable(message)) if is_late(&message) => {}
            answer => return answer,
        }
    }
}

fn is_late(message: &str) -> bool {
    message.ends_with("is still being resolved")
}

/// Asks until the answer is a win, with a new claim each time.
async fn win(store: &mut dyn Store, candidacy: &Candidacy) -> u64 {
    until_won(store, candidacy, true).await
}

/// The same under the claim that was taken before. A lock elsewhere on the machine that cannot be attributed makes the store wait.
async fn campaign_until_won(store: &mut dyn Store, candidacy: &Candidacy) -> u64 {
    until_won(store, candidacy, false).await
}

async fn until_won(store: &mut dyn Store, candidacy: &Candidacy, claims: bool) -> u64 {
    let mut claimed = Vec::new();
    tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            if claims {
                claimed.extend(store.claim(candidacy).expect("a claim"));
            }
            match store.campaign(candidacy).await.expect("an answer") {
                CampaignResult::Won { term } => return term,
                CampaignResult::Waiting { .. } => tokio::time::sleep(Duration::from_millis(10)).await,
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
        campaign_until_won(one.as_mut(), &first).await;
        let _ = two.claim(&second).expect("a claim");
        assert!(matches!(campaign(two.as_mut(), &second).await, Ok(CampaignResult::Waiting { .. })));
        // The effect of `flock -u` in a command: it unlocks the description that it shares with its leader.
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
        assert!(
            matches!(campaign(two.as_mut(), &second).await, Ok(CampaignResult::Waiting { .. })),
            "the leader may still run"
        );
        assert!(matches!(renew(one.as_mut(), &first).await, Ok(RenewResult::Lost { .. })), "the leader notices");
        assert!(
            matches!(campaign(two.as_mut(), &second).await, Ok(CampaignResult::Waiting { .. })),
            "its tree may still live"
        );
        // It campaigns again, which it does with an empty tree only: behind the other, under a new claim.
        assert!(one.claim(&first).expect("a claim").is_some());
        assert!(matches!(campaign(one.as_mut(), &first).await, Ok(CampaignResult::Waiting { .. })));
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
        campaign_until_won(one.as_mut(), &first).await;
        claim.descriptors[0].try_clone().map(fs::File::from).expect("a copy").unlock().expect("unlocked");
        assert!(matches!(renew(one.as_mut(), &first).await, Ok(RenewResult::Credited { .. })));
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
                let Ok(CampaignResult::Waiting { observation, .. }) = campaign(two.as_mut(), &second).await else {
                    panic!("leads while the other has its lock")
                };
                match observation.obstacle {
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
        assert!(clock::now().since(before) >= NEWCOMER_WAIT, "not before the old leader has noticed");
        assert!(matches!(renew(one.as_mut(), &first).await, Ok(RenewResult::Lost { .. })));
        // It campaigns again, with an empty tree, and gives up what it had.
        assert!(one.claim(&first).expect("a claim").is_some());
        let next = win(two.as_mut(), &second).await;
        assert!(next > term);
        // The old leader's release is none of the new one's business.
        one.release(&first).await.expect("released");
        assert!(matches!(renew(two.as_mut(), &second).await, Ok(RenewResult::Credited { .. })));
        assert_eq!(two.observe(&second.boundary).await.expect("looked").leader.expect("a leader").id, "second");
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
        campaign_until_won(one.as_mut(), &first).await;
        assert!(one.claim(&first).expect("a claim").is_none(), "given");
    });
}

#[test]
fn a_record_whose_term_cannot_rise_is_an_obstacle() {
    let directory = directory();
    block_on(async {
        let first = candidacy("first");
        let mut one = store(directory.path());
        win(one.as_mut(), &first).await;
        one.release(&first).await.expect("released");
        let files = files(directory.path());
        let mut record = files.read().expect("read").expect("a record");
        for term in [limits::TERM_MAX, limits::TERM_MAX + 1, u64::MAX] {
            (record.record.term, record.record.since) = (term, u64::MAX);
            files.write(&record).expect("written");
            let _claim = one.claim(&first).expect("a claim");
            let error = campaign(one.as_mut(), &first).await.expect_err("an obstacle");
            assert!(matches!(&error, StoreError::Obstacle(message) if message.contains("believed")), "{error:?}");
            free_to_all(directory.path());
        }
        let observation = Observation { leader: Some(record.record.leader()), ..Observation::default() };
        let document = crate::status::StatusDocument::new(&first.boundary, "file", &observation).to_json();
        assert!(document.contains("\"since\":null"), "no calendar has such a date: {document}");
    });
}

#[test]
fn a_record_of_a_newer_format_keeps_a_candidate_from_standing() {
    let directory = directory();
    let newer = r#"{"version":3,"state":"sealed","name":"web-9","host":"10.0.0.9"}"#;
    fs::write(directory.path().join("cron.json"), newer).expect("written");
    block_on(async {
        let first = candidacy("first");
        let mut one = store(directory.path());
        let _claim = one.claim(&first).expect("a claim");
        let error = campaign(one.as_mut(), &first).await.expect_err("an obstacle");
        let said = |message: &String| message.contains("newer") && message.contains("web-9 at 10.0.0.9");
        assert!(matches!(&error, StoreError::Obstacle(message) if said(message)), "{error:?}");
        free_to_all(directory.path());
        assert!(matches!(one.observe(&first.boundary).await, Err(StoreError::Obstacle(_))));
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
        assert!(one.observe(&first.boundary).await.is_err());
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
        let files = files(directory.path());
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
        assert_eq!(one.observe(&first.boundary).await.expect("looked"), Observation::default());
        let other = fs::File::create(directory.path().join("cron.lock")).expect("created");
        other.lock().expect("locked");
        let observation = one.observe(&first.boundary).await.expect("looked");
        assert_eq!(observation.leader, None);
        let obstacle = observation.obstacle.expect("somebody holds it");
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
        one.wait_for_change(Some(&boundary)).await;
        drop(lock);
        for hint in ["the hint", "its echo"] {
            let heard = tokio::time::timeout(Duration::from_secs(20), one.wait_for_change(Some(&boundary))).await;
            assert!(heard.is_ok(), "{hint}");
        }
        let more = tokio::time::timeout(Duration::from_millis(100), one.wait_for_change(Some(&boundary))).await;
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
        one.wait_for_change(Some(&boundary)).await;
        for made in [directory.path().join("a"), deeper.clone()] {
            fs::create_dir(made).expect("an empty place");
            // That it is there, and that what happens in it will be heard.
            for _ in 0..2 {
                let heard = tokio::time::timeout(Duration::from_secs(20), one.wait_for_change(Some(&boundary))).await;
                assert!(heard.is_ok());
            }
        }
        fs::write(deeper.join("other.json"), "").expect("written");
        let other = tokio::time::timeout(Duration::from_millis(100), one.wait_for_change(Some(&boundary))).await;
        assert!(other.is_err(), "another boundary's");
        fs::write(deeper.join("cron.json"), "").expect("written");
        let heard = tokio::time::timeout(Duration::from_secs(20), one.wait_for_change(Some(&boundary))).await;
        assert!(heard.is_ok());
    });
}

/// A lock of a process of its own on the whole file, as the guard is one.
fn guard(path: &Path) -> Option<fs::File> {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).expect("opened");
    session::try_guard(&file).expect("asked").then_some(file)
}

#[test]
fn a_guard_that_another_candidate_has_taken_costs_the_leadership() {
    let directory = directory();
    let lock = directory.path().join("cron.lock");
    block_on(async {
        let first = candidacy("first");
        let mut one = store(directory.path());
        let claim = one.claim(&first).expect("a claim").expect("the first one");
        campaign_until_won(one.as_mut(), &first).await;
        assert!(guard(&lock).is_none(), "guarded");
        let shared = fs::File::from(claim.descriptors[1].try_clone().expect("a copy"));
        session::drop_guard(&shared);
        assert!(matches!(renew(one.as_mut(), &first).await, Ok(RenewResult::Credited { .. })));
        assert!(guard(&lock).is_none(), "taken again");
        session::drop_guard(&shared);
        let other = guard(&lock).expect("it is free");
        assert!(matches!(renew(one.as_mut(), &first).await, Ok(RenewResult::Lost { .. })));
        drop(other);
    });
}

#[test]
fn a_lock_that_was_waited_for_on_a_file_that_is_gone_is_no_win() {
    let directory = directory();
    block_on(async {
        let (first, second) = (candidacy("first"), candidacy("second"));
        let (mut one, mut two) = (store(directory.path()), store(directory.path()));
        win(one.as_mut(), &first).await;
        let _claim = two.claim(&second).expect("a claim");
        assert!(matches!(campaign(two.as_mut(), &second).await, Ok(CampaignResult::Waiting { .. })));
        fs::rename(directory.path().join("cron.lock"), directory.path().join("gone")).expect("renamed");
        one.release(&first).await.expect("released");
        // The thread of the second one has the lock in a moment; it is on a file that nobody will meet.
        tokio::time::timeout(Duration::from_secs(20), async {
            while !session::is_guarded(&directory.path().join("gone")) {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("the waiter has both locks");
        for _ in 0..3 {
            let answer = campaign(two.as_mut(), &second).await;
            assert!(!matches!(answer, Ok(CampaignResult::Won { .. })), "{answer:?}");
        }
        assert!(!session::is_guarded(&directory.path().join("gone")), "given up");
    });
}

#[test]
fn the_keeper_leaves_the_record_alone_under_a_lock_file_that_was_replaced() {
    let directory = directory();
    let state = || files(directory.path()).read().expect("read").expect("a record").record.state;
    block_on(async {
        let first = candidacy("first");
        for is_replaced in [true, false] {
            let mut one = store(directory.path());
            let claim = one.claim(&first).expect("a claim").expect("the first one");
            while !matches!(campaign(one.as_mut(), &first).await, Ok(CampaignResult::Won { .. })) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            if is_replaced {
                fs::rename(directory.path().join("cron.lock"), directory.path().join("gone")).expect("renamed");
                fs::write(directory.path().join("cron.lock"), "").expect("written");
            }
            drop(one);
            release_claim(claim);
            assert_eq!(state() == RecordState::Held, is_replaced);
            let _ = fs::remove_file(directory.path().join("gone"));
        }
    });
}

#[test]
fn the_keeper_writes_beside_the_lock_file_that_it_holds_and_nowhere_else() {
    let place = directory();
    let (before, after) = (place.path().join("locks"), place.path().join("moved"));
    block_on(async {
        let first = candidacy("first");
        let mut one = store(&before);
        let claim = one.claim(&first).expect("a claim").expect("the first one");
        campaign_until_won(one.as_mut(), &first).await;
        fs::rename(&before, &after).expect("renamed");
        fs::create_dir(&before).expect("made");
        let copied = fs::read(after.join("cron.json")).expect("read");
        fs::write(before.join("cron.json"), &copied).expect("written");
        drop(one);
        release_claim(claim);
        assert_eq!(fs::read(before.join("cron.json")).expect("read"), copied, "none of its business");
        assert_eq!(files(&after).read().expect("read").expect("a record").record.state, RecordState::Free);
    });
}

#[test]
fn the_files_in_use_are_touched_now_and_then() {
    let directory = directory();
    let paths = ["cron.lock", "cron.json"].map(|name| directory.path().join(name));
    let old = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let age = |path: &Path| {
        let file = fs::File::open(path).expect("opened");
        file.set_times(fs::FileTimes::new().set_modified(old).set_accessed(old)).expect("ours");
    };
    let is_old = |path: &std::path::PathBuf| fs::metadata(path).expect("there").modified().expect("a time") == old;
    block_on(async {
        let first = candidacy("first");
        let mut one = inner(directory.path());
        win(&mut one, &first).await;
        for path in &paths {
            age(path);
        }
        assert!(matches!(renew(&mut one, &first).await, Ok(RenewResult::Credited { .. })));
        assert!(paths.iter().all(is_old), "not each time");
        assert!(one.touch_at <= clock::now() + TOUCH_INTERVAL, "but before a cleaner of temporary directories comes");
        one.touch_at = Time::BOOT;
        assert!(matches!(renew(&mut one, &first).await, Ok(RenewResult::Credited { .. })));
        assert!(!paths.iter().any(is_old), "touched");
        // A file that another user has put in the place of the record is neither followed, nor waited for, nor touched.
        let private = directory.path().join("private");
        fs::write(&private, "private").expect("written");
        let makers: [fn(&Path, &Path); 4] = [
            |private, path| std::os::unix::fs::symlink(private, path).expect("a link"),
            |private, path| fs::hard_link(private, path).expect("a second name"),
            |_, path| nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).expect("a FIFO"),
            |_, path| fs::create_dir(path).expect("a directory"),
        ];
        for make in makers {
            fs::remove_file(&paths[1]).expect("there");
            make(&private, &paths[1]);
            age(&private);
            one.touch_at = Time::BOOT;
            assert!(matches!(renew(&mut one, &first).await, Ok(RenewResult::Credited { .. })), "it leads on");
            assert!(is_old(&private));
        }
    });
}

#[test]
fn a_term_rises_above_every_term_that_this_candidate_has_seen() {
    let directory = directory();
    block_on(async {
        let first = candidacy("first");
        let mut one = store(directory.path());
        win(one.as_mut(), &first).await;
        one.release(&first).await.expect("released");
        let files = files(directory.path());
        let mut record = files.read().expect("read").expect("a record");
        record.record.term += 1_000_000_000;
        files.write(&record).expect("written");
        let high = win(one.as_mut(), &first).await;
        one.release(&first).await.expect("released");
        for name in ["cron.json", "cron.lock"] {
            fs::remove_file(directory.path().join(name)).expect("there");
        }
        assert!(win(one.as_mut(), &first).await > high, "although the record is gone and the clock is behind");
    });
}

#[test]
fn what_a_newer_elect_has_added_to_the_record_stays_in_it() {
    let directory = directory();
    let record = || fs::read_to_string(directory.path().join("cron.json")).expect("read");
    block_on(async {
        let mut first = candidacy("first");
        let mut one = store(directory.path());
        win(one.as_mut(), &first).await;
        let added = record().replacen('{', "{\"weight\":{\"of\":[1,null,\"x\"]},", 1);
        fs::write(directory.path().join("cron.json"), added).expect("written");
        first.identity.name = "another".to_owned();
        assert!(matches!(renew(one.as_mut(), &first).await, Ok(RenewResult::Credited { .. })));
        assert!(record().contains("another") && record().contains(r#""weight":{"of":[1,null,"x"]}"#), "{}", record());
        one.release(&first).await.expect("released");
        assert!(record().contains("free") && record().contains(r#""weight":{"of":[1,null,"x"]}"#), "{}", record());
        win(one.as_mut(), &first).await;
        assert!(record().contains("held") && record().contains(r#""weight":{"of":[1,null,"x"]}"#), "{}", record());
    });
}
