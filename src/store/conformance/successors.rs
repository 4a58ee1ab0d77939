//! Which candidate follows: a named successor first, and a spare last.

use std::time::Duration;

use tokio::time::sleep;

use super::{StoreUnderTest, TestCandidate};
use crate::store::{CampaignResult, ReserveResult};
use elect_core::takeover::Reservation;
use elect_keeper::clock;

const WITHIN: Duration = Duration::from_secs(30);
/// Between two questions of candidates of which one is to win.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// The leader leaves the boundary to that candidate with its next release.
async fn reserves(leader: &mut TestCandidate, successor: &str, within: Duration) -> ReserveResult {
    let reservation = Reservation { successor: successor.to_owned(), within };
    leader.store.reserve(&leader.candidacy, Some(reservation)).await.expect("an answer")
}

async fn waits(candidate: &mut TestCandidate) {
    assert!(matches!(candidate.ask().await, CampaignResult::Waiting { .. }), "it takes what is left to another");
}

pub async fn a_released_boundary_is_left_to_its_successor_whoever_asks_first(site: &StoreUnderTest) {
    for by_name in [true, false] {
        let boundary = if by_name { "left-by-name" } else { "left-by-id" };
        let [mut one, mut two, mut three] = ["one", "two", "three"].map(|name| site.player(boundary, name));
        let first = one.win().await;
        one.renews().await;
        two.waits_for().await;
        three.waits_for().await;
        let identity = &three.candidacy.identity;
        let successor = if by_name { identity.name.clone() } else { identity.id.clone() };
        assert_eq!(reserves(&mut one, &successor, WITHIN).await, ReserveResult::Reserved);
        one.renews().await;
        one.release().await;
        let second = loop {
            waits(&mut two).await;
            waits(&mut one).await;
            if let Some(term) = three.wins_at_once().await {
                break term;
            }
            sleep(POLL_INTERVAL).await;
        };
        three.renews().await;
        assert!(second > first);
        assert_eq!(two.leader().await.as_deref(), Some("three"));
        // The next release leaves it to no one.
        three.release().await;
        two.win().await;
        two.renews().await;
        for mut each in [one, two, three] {
            each.release().await;
        }
    }
}

/// A boundary is left to a successor that does not come for the time of the reservation, and no longer.
pub async fn a_boundary_that_its_successor_does_not_take_is_taken_by_another(site: &StoreUnderTest) {
    let within = Duration::from_secs(1);
    let [mut one, mut two] = ["one", "two"].map(|name| site.player("not-taken", name));
    one.win().await;
    one.renews().await;
    two.waits_for().await;
    assert_eq!(reserves(&mut one, "nobody", within).await, ReserveResult::Reserved);
    let released = clock::now();
    one.release().await;
    two.win().await;
    let waited = clock::now().since(released);
    assert!(waited >= within, "taken after {waited:?}");
    two.renews().await;
    one.release().await;
    two.release().await;
}

pub async fn a_boundary_is_not_left_to_a_candidate_that_does_not_wait(site: &StoreUnderTest) {
    let [mut one, mut two, mut other] = ["one", "two", "two"].map(|name| site.player("not-there", name));
    one.win().await;
    one.renews().await;
    assert_eq!(reserves(&mut one, "two", WITHIN).await, ReserveResult::NotSeen);
    two.waits_for().await;
    assert_eq!(reserves(&mut one, "two", WITHIN).await, ReserveResult::Reserved);
    other.waits_for().await;
    let several = reserves(&mut one, "two", WITHIN).await;
    let ids = [&two, &other].map(|each| each.candidacy.identity.id.clone());
    let ReserveResult::Impossible(why) = several else { panic!("{several:?}") };
    assert!(ids.iter().all(|id| why.contains(id)), "{why}");
    let id = other.candidacy.identity.id.clone();
    assert_eq!(reserves(&mut one, &id, WITHIN).await, ReserveResult::Reserved);
    one.renews().await;
    for mut each in [two, other, one] {
        each.release().await;
    }
}

pub async fn a_reservation_that_is_taken_back_leaves_the_boundary_to_all(site: &StoreUnderTest) {
    let [mut one, mut two] = ["one", "two"].map(|name| site.player("taken-back", name));
    one.win().await;
    one.renews().await;
    two.waits_for().await;
    reserves(&mut one, "nobody", WITHIN).await;
    one.store.reserve(&one.candidacy, None).await.expect("an answer");
    one.renews().await;
    one.release().await;
    two.win().await;
    two.renews().await;
    one.release().await;
    two.release().await;
}

pub async fn a_spare_takes_a_boundary_only_after_it_had_no_leader_for_the_delay(site: &StoreUnderTest) {
    let delay = Duration::from_secs(2);
    let [mut one, mut two, mut spare] = ["one", "two", "spare"].map(|name| site.player("spare", name));
    spare.store.set_takeover_delay(delay);
    one.win().await;
    one.renews().await;
    spare.waits_for().await;
    one.release().await;
    waits(&mut spare).await;
    two.win().await;
    two.renews().await;
    // No one else is there any more.
    one.release().await;
    waits(&mut spare).await;
    let released = clock::now();
    two.release().await;
    let term = spare.win().await;
    let waited = clock::now().since(released);
    assert!(waited >= delay, "taken after {waited:?}");
    assert_eq!(spare.win().await, term, "a leader is not delayed");
    spare.renews().await;
    spare.release().await;
}

/// Fail-back to a spare, or from one.
pub async fn a_spare_that_is_the_named_successor_is_not_delayed(site: &StoreUnderTest) {
    let [mut one, mut spare] = ["one", "spare"].map(|name| site.player("named-spare", name));
    spare.store.set_takeover_delay(Duration::from_secs(60));
    one.win().await;
    one.renews().await;
    spare.waits_for().await;
    while reserves(&mut one, "spare", WITHIN).await == ReserveResult::NotSeen {
        one.renews().await;
        waits(&mut spare).await;
    }
    one.renews().await;
    one.release().await;
    spare.win().await;
    spare.renews().await;
    spare.release().await;
}
