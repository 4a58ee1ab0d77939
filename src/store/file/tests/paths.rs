//! Paths to lock files, and links and directories that change.

use super::*;

#[test]
fn a_lock_file_says_under_which_path_it_was_locked_also_when_it_was_emptied() {
    let place = directory();
    let (real, link) = (place.path().join("real"), place.path().join("link"));
    fs::create_dir(&real).expect("made");
    std::os::unix::fs::symlink("real", &link).expect("a link");
    let said = || LockLabel::read(&fs::File::open(real.join("cron.lock")).expect("opened")).expect("read");
    block_on(async {
        let first = candidacy("first");
        let mut one = store(&link);
        win(one.as_mut(), &first).await;
        let label = LockLabel::of(&real.join("cron.lock")).expect("a namespace");
        assert_eq!(said(), Some(label.clone()));
        fs::write(real.join("cron.lock"), "").expect("emptied");
        assert!(matches!(renew(one.as_mut(), &first).await, Ok(RenewResult::Credited { .. })));
        assert_eq!(said(), Some(label));
    });
}

#[test]
fn a_leader_behind_a_link_is_found_however_its_directory_went_away() {
    let losses: [fn(&Path); 4] = [
        |place| {
            for name in ["cron.lock", "cron.json"] {
                fs::remove_file(place.join("real").join(name)).expect("there");
            }
        },
        |place| {
            fs::rename(place.join("real"), place.join("gone")).expect("renamed");
            fs::create_dir(place.join("real")).expect("made");
        },
        |place| fs::remove_dir_all(place.join("real")).and_then(|()| fs::create_dir(place.join("real"))).expect("ours"),
        // Of another elect, or of flock(1), with nothing in it.
        |place| {
            fs::rename(place.join("real"), place.join("gone")).expect("renamed");
            fs::create_dir(place.join("real")).expect("made");
            fs::write(place.join("real/cron.lock"), "").expect("written");
        },
    ];
    for lose in losses {
        let place = directory();
        fs::create_dir(place.path().join("real")).expect("made");
        std::os::unix::fs::symlink("real", place.path().join("link")).expect("a link");
        block_on(async {
            let (first, second) = (candidacy("first"), candidacy("second"));
            let (mut one, mut two) = (store(&place.path().join("link")), store(&place.path().join("link")));
            let term = win(one.as_mut(), &first).await;
            lose(place.path());
            let _claim = two.claim(&second).expect("a claim");
            let began = clock::now();
            // The first one is stopped: nobody notices for it, and no time is enough.
            while clock::now().since(began) < NEWCOMER_WAIT + Duration::from_secs(1) {
                let answer = campaign(two.as_mut(), &second).await;
                let Ok(CampaignResult::Waiting { observation, .. }) = answer else {
                    panic!("leads beside the first: {answer:?}")
                };
                let obstacle = observation.obstacle.unwrap_or_default();
                assert!(obstacle.is_empty() || obstacle.starts_with("the lock file is a new one"), "{obstacle}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            assert!(
                matches!(renew(one.as_mut(), &first).await, Ok(RenewResult::Lost { .. })),
                "it notices when it goes on"
            );
            one.release(&first).await.expect("released");
            assert!(win(two.as_mut(), &second).await >= term);
        });
    }
}

#[test]
fn a_link_that_is_turned_to_another_directory_costs_the_leadership() {
    let place = directory();
    for name in ["blue", "green"] {
        fs::create_dir(place.path().join(name)).expect("made");
    }
    let link = place.path().join("link");
    std::os::unix::fs::symlink("blue", &link).expect("a link");
    block_on(async {
        let (first, second) = (candidacy("first"), candidacy("second"));
        let (mut one, mut two) = (store(&link), store(&link));
        win(one.as_mut(), &first).await;
        let _claim = two.claim(&second).expect("a claim");
        assert!(matches!(campaign(two.as_mut(), &second).await, Ok(CampaignResult::Waiting { .. })));
        fs::remove_file(&link).expect("there");
        std::os::unix::fs::symlink("green", &link).expect("a link");
        assert!(matches!(renew(one.as_mut(), &first).await, Ok(RenewResult::Lost { .. })));
        one.release(&first).await.expect("released");
        win(two.as_mut(), &second).await;
        assert!(place.path().join("green/cron.json").exists(), "the waiter has followed");
    });
}

#[test]
fn a_path_that_cannot_be_resolved_takes_nothing_away_and_begins_nothing() {
    let place = directory();
    let (real, link) = (place.path().join("real"), place.path().join("link"));
    fs::create_dir(&real).expect("made");
    std::os::unix::fs::symlink("real", &link).expect("a link");
    let circle = || {
        fs::remove_file(&link).expect("there");
        std::os::unix::fs::symlink("link", &link).expect("a link to itself");
    };
    block_on(async {
        let first = candidacy("first");
        let mut one = store(&link);
        win(one.as_mut(), &first).await;
        circle();
        assert!(matches!(renew(one.as_mut(), &first).await, Err(StoreError::Unavailable(_))), "not verified yet");
        fs::remove_file(&link).expect("there");
        std::os::unix::fs::symlink("real", &link).expect("a link");
        assert!(matches!(renew(one.as_mut(), &first).await, Ok(RenewResult::Credited { .. })));
        circle();
        assert!(matches!(renew(one.as_mut(), &first).await, Ok(RenewResult::Credited { .. })), "it leads on");
    });
}
