//! The end of a leader that does not say good-bye, and of one whose record goes away.

use std::time::Duration;

use tokio::time::sleep;

use super::{HINT_WAIT, StoreUnderTest, TestCandidate, sees};
use crate::store::{CampaignResult, Detail, RenewResult};
use elect_core::Time;
use elect_core::limits::is_believed_term;
use elect_keeper::clock;

/// As short as a lease can be on every store.
pub const SHORT: Duration = Duration::from_secs(2);
/// Longer than any case may take.
pub const LONG: Duration = Duration::from_secs(120);

pub async fn a_leader_that_is_gone_without_a_word_leads_no_more_once_its_lease_is_over(site: &StoreUnderTest) {
    let mut observer = site.observer("dead");
    let mut one = site.player("dead", "one");
    one.candidacy.ttl = one.candidacy.ttl.min(SHORT);
    let term = one.win().await;
    one.renews().await;
    sees(&mut observer, Some("one")).await;
    drop(one);
    let seen = sees(&mut observer, None).await;
    assert!(seen.previous_term.is_none_or(|previous_term| previous_term == term), "{seen:?}");
    let (boundary, mut store) = ("dead".parse().expect("a boundary"), site.store());
    assert_eq!(store.observe(&boundary).await.expect("looked").leader, None);
    let all = store.observe_all(Detail::Lease).await.expect("surveyed");
    let shown = all.iter().find(|(each, _)| *each == boundary);
    assert!(shown.is_none_or(|(_, seen)| seen.as_ref().is_ok_and(|seen| seen.leader.is_none())), "{all:?}");
}

/// A leader that renews, and is gone: since when its last lease counts, and for how long.
async fn dies_leading(mut leader: TestCandidate) -> (Time, Duration) {
    let Ok(RenewResult::Credited { sent, ttl: Some(ttl) }) = leader.store.renew(&leader.candidacy).await else {
        panic!("not credited")
    };
    (sent, ttl)
}

/// A fresh record is waited for on some stores: somebody has led here before.
pub async fn was_led(site: &StoreUnderTest, boundary: &str) {
    let mut before = site.player(boundary, "before");
    before.win().await;
    before.renews().await;
    before.release().await;
}

/// From the leader's last credited renewal on: nothing of a lease may be left when the next one is elected (T1).
pub async fn a_dead_leader_is_followed_after_its_ttl_and_not_before(site: &StoreUnderTest) {
    let name = "dead-followed";
    was_led(site, name).await;
    let mut leader = site.player(name, "leader");
    leader.candidacy.ttl = SHORT;
    let mut waiters = ["one", "two"].map(|waiter| site.player(name, waiter));
    let first = leader.win().await;
    leader.renews().await;
    for waiter in &mut waiters {
        assert_eq!(waiter.waits_for().await.as_deref(), Some("leader"));
    }
    let (sent, ttl) = dies_leading(leader).await;
    let [one, two] = &mut waiters;
    // The one that is not elected sees the other lead.
    let (won, term) = loop {
        let (first, second) = tokio::join!(one.ask(), two.ask());
        match (first, second) {
            (CampaignResult::Won { .. }, CampaignResult::Won { .. }) => panic!("both won"),
            (CampaignResult::Won { term }, _) => break (one, term),
            (_, CampaignResult::Won { term }) => break (two, term),
            _ => sleep(HINT_WAIT / 4).await,
        }
    };
    let after = clock::now().since(sent);
    assert!(after >= ttl, "elected {after:?} after a renewal that is good for {ttl:?}");
    assert!(term > first);
    won.renews().await;
    won.release().await;
}

pub async fn a_long_lease_is_waited_for_by_a_candidate_that_asks_for_a_short_one(site: &StoreUnderTest) {
    let name = "long-lease";
    was_led(site, name).await;
    let mut leader = site.player(name, "leader");
    leader.candidacy.ttl = SHORT * 2;
    let mut waiter = site.player(name, "waiter");
    waiter.candidacy.ttl = SHORT;
    leader.win().await;
    let (sent, ttl) = dies_leading(leader).await;
    assert!(ttl >= SHORT * 2);
    waiter.win().await;
    let after = clock::now().since(sent);
    assert!(after >= ttl, "elected {after:?} after a renewal that is good for {ttl:?}");
    waiter.renews().await;
    waiter.release().await;
}

pub async fn a_short_lease_is_not_waited_for_longer_by_a_candidate_that_asks_for_a_long_one(site: &StoreUnderTest) {
    let name = "short-lease";
    was_led(site, name).await;
    let mut leader = site.player(name, "leader");
    leader.candidacy.ttl = SHORT;
    let mut waiter = site.player(name, "waiter");
    waiter.candidacy.ttl = LONG;
    leader.win().await;
    let (sent, ttl) = dies_leading(leader).await;
    // The case is given up long before the waiter's own ttl is over.
    waiter.win().await;
    let after = clock::now().since(sent);
    assert!(after >= ttl && after < LONG, "elected {after:?} after a renewal that is good for {ttl:?}");
    waiter.renews().await;
    waiter.release().await;
}

/// A leader that was stopped for longer than its lease, and goes on.
pub async fn a_renewal_is_lost_once_another_has_taken_the_boundary(site: &StoreUnderTest) {
    let name = "lost-on-take";
    was_led(site, name).await;
    let (mut one, mut two) = (site.player(name, "one"), site.player(name, "two"));
    (one.candidacy.ttl, two.candidacy.ttl) = (SHORT, LONG);
    let first = one.win().await;
    one.renews().await;
    let second = two.win().await;
    assert!(second > first);
    two.renews().await;
    // However often it asks, and whatever it calls itself.
    for name in ["one", "one", "renamed"] {
        name.clone_into(&mut one.candidacy.identity.name);
        one.has_lost().await;
    }
    let seen = two.store.observe(&two.candidacy.boundary).await.expect("looked").leader.expect("a leader");
    assert_eq!((seen.name.as_str(), seen.term), ("two", Some(second)));
    // Nor does its release free what is another's.
    one.release().await;
    two.renews().await;
    assert_eq!(one.waits_for().await.as_deref(), Some("two"));
    one.release().await;
    two.release().await;
}

/// Records are deleted by hand. The leader notices, and the next term is above all that a candidate has seen (S1).
pub async fn a_renewal_is_lost_once_the_record_is_deleted_and_the_next_term_is_larger(site: &StoreUnderTest) {
    let name = "lost-on-deletion";
    was_led(site, name).await;
    let (mut one, mut two) = (site.player(name, "one"), site.player(name, "two"));
    let first = one.win().await;
    one.renews().await;
    assert_eq!(two.waits_for().await.as_deref(), Some("one"));
    two.release().await;
    site.support.delete(site, name).await;
    one.has_lost().await;
    // As after an emptied tree.
    one.release().await;
    let second = two.win().await;
    two.renews().await;
    assert!(second > first, "{second} after {first}");
    assert!(is_believed_term(second));
    one.has_lost().await;
    assert_eq!(one.waits_for().await.as_deref(), Some("two"));
    one.release().await;
    two.release().await;
}

/// Without a lease a leader is not followed while its keeper lives.
pub async fn a_dead_campaigners_keeper_keeps_the_boundary_until_it_is_gone_too(site: &StoreUnderTest) {
    let name = "keeper-holds";
    let (mut one, mut two) = (site.player(name, "one"), site.player(name, "two"));
    let first = one.win().await;
    one.renews().await;
    let TestCandidate { store, claim, .. } = one;
    drop(store);
    for _ in 0..3 {
        assert_eq!(two.waits_for().await.as_deref(), Some("one"));
        sleep(HINT_WAIT).await;
    }
    drop(claim);
    assert!(two.win().await > first);
    two.renews().await;
    two.release().await;
}
