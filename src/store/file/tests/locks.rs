//! Locks that are given up: by a leader, and by a candidate that only waits.

use std::io;
use std::path::PathBuf;

use super::*;

/// The keeper holds copies of the descriptors: a lock that a thread of an abandoned wait kept would be held by nobody who leads.
#[test]
fn a_wait_that_was_given_up_keeps_no_lock() {
    let directory = directory();
    block_on(async {
        let (first, second, third) = (candidacy("first"), candidacy("second"), candidacy("third"));
        let (mut one, mut two, mut three) = (store(directory.path()), store(directory.path()), store(directory.path()));
        win(one.as_mut(), &first).await;
        let _claim = two.claim(&second).expect("a claim").expect("the second one");
        assert!(matches!(campaign(two.as_mut(), &second).await, Ok(CampaignResult::Waiting { .. })));
        two.release(&second).await.expect("its place is given back");
        one.release(&first).await.expect("released");
        let next = tokio::time::timeout(Duration::from_secs(20), win(three.as_mut(), &third)).await;
        assert!(next.is_ok(), "nobody leads, and the lock is held");
    });
}

/// The path of an open lock file.
fn path_of(lock: &impl std::os::fd::AsRawFd) -> PathBuf {
    fs::read_link(format!("/proc/self/fd/{}", lock.as_raw_fd())).expect("a path")
}

#[test]
fn the_guard_is_given_up_before_the_flock() {
    let directory = directory();
    block_on(async {
        let first = candidacy("first");
        let mut one = store(directory.path());
        win(one.as_mut(), &first).await;
        session::between_unlocks::probe(|lock| {
            let path = path_of(lock);
            assert!(!session::is_guarded(&path), "the guard goes first");
            let other = fs::File::open(&path).expect("opened");
            assert!(other.try_lock().is_err(), "the flock goes last");
            fs::write(path.with_file_name("seen"), "").expect("written");
        });
        one.release(&first).await.expect("released");
        assert!(directory.path().join("seen").exists());
    });
}

/// The process that gets the flock goes on to lead, and to write its own record.
#[test]
fn the_record_is_free_before_the_lock_is() {
    let directory = directory();
    block_on(async {
        let first = candidacy("first");
        let mut one = store(directory.path());
        win(one.as_mut(), &first).await;
        session::between_unlocks::probe(|lock| {
            let path = path_of(lock);
            let directory = path.parent().expect("a directory");
            let record = files(directory).read().expect("read").expect("a record");
            assert_eq!(record.record.state, RecordState::Free);
            fs::write(directory.join("seen"), "").expect("written");
        });
        one.release(&first).await.expect("released");
        assert!(directory.path().join("seen").exists());
    });
}

/// A file system that does not answer takes nothing away, but nothing is begun on it.
#[test]
fn nothing_is_begun_before_the_path_has_been_resolved_since_the_win() {
    let directory = directory();
    block_on(async {
        let first = candidacy("first");
        let mut one = inner(directory.path());
        win(&mut one, &first).await;
        let watch = one.watch.replace(PathWatch::without_answers());
        for _ in 0..2 {
            let answer = one.renew(&first).await;
            assert!(matches!(&answer, Err(StoreError::Unavailable(message)) if is_late(message)), "{answer:?}");
        }
        one.watch = watch;
        assert!(matches!(renew(&mut one, &first).await, Ok(RenewResult::Credited { .. })));
        one.watch = Some(PathWatch::without_answers());
        assert!(matches!(one.renew(&first).await, Ok(RenewResult::Credited { .. })), "it leads on");
    });
}

/// A thread that waits for the lock, and ends when it has it.
async fn waits_for_lock(directory: &Path) -> std::thread::JoinHandle<io::Result<fs::File>> {
    let path = directory.join("cron.lock");
    let lock = fs::File::open(&path).expect("opened");
    let file = session::LockFile::from(&fs::metadata(path).expect("there"));
    let waiter = std::thread::spawn(move || lock.lock().map(|()| lock));
    tokio::time::timeout(Duration::from_secs(20), async {
        while !lock_holders::is_waited_for(file) {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("it waits");
    waiter
}

#[test]
fn a_leader_that_gave_up_its_lock_stands_behind_those_who_wait() {
    let directory = directory();
    block_on(async {
        let (first, second) = (candidacy("first"), candidacy("second"));
        let (mut one, mut two) = (store(directory.path()), store(directory.path()));
        win(one.as_mut(), &first).await;
        one.release(&first).await.expect("released");
        // No candidate waits: at once.
        let _claim = one.claim(&first).expect("a claim").expect("a new session");
        campaign_until_won(one.as_mut(), &first).await;
        let waiter = waits_for_lock(directory.path()).await;
        one.release(&first).await.expect("released");
        // A process has the lock and not the guard: it may be on its way.
        for _ in 0..3 {
            assert!(one.claim(&first).expect("an answer").is_none(), "nothing is asked for");
            assert!(matches!(campaign(one.as_mut(), &first).await, Ok(CampaignResult::Waiting { decided: false, .. })));
        }
        drop(waiter.join().expect("it ends").expect("locked"));
        let term = win(two.as_mut(), &second).await;
        // As soon as another one leads, there is nothing to wait for but the lock.
        assert!(matches!(campaign(one.as_mut(), &first).await, Ok(CampaignResult::Waiting { .. })));
        assert!(one.claim(&first).expect("a claim").is_some(), "it stands again");
        assert!(
            matches!(campaign(one.as_mut(), &first).await, Ok(CampaignResult::Waiting { observation, .. }) if observation.leader.is_some())
        );
        two.release(&second).await.expect("released");
        assert!(win(one.as_mut(), &first).await > term);
    });
}

#[test]
fn a_leader_that_ends_does_not_ask_who_waits() {
    let directory = directory();
    block_on(async {
        let first = candidacy("first");
        let mut one = store(directory.path());
        win(one.as_mut(), &first).await;
        let waiter = waits_for_lock(directory.path()).await;
        one.campaigns_no_more();
        one.release(&first).await.expect("released");
        // It would stand behind the process that waits, if it had asked.
        assert!(one.claim(&first).expect("an answer").is_some());
        drop(waiter.join().expect("it ends").expect("locked"));
    });
}
