//! Records of others: of a newer elect, of another program, or edited by hand (S1, S6).

use super::leases::was_led;
use super::tools::{PLANTS, Plant};
use super::{StoreUnderTest, TestCandidate};
use crate::store::{CampaignResult, Detail, RenewResult, StoreError};
use elect_core::limits::{NAME_BYTES_MAX, is_believed_term};

/// The obstacle that is shown for such a record.
async fn obstacle(player: &mut TestCandidate, plant: Plant) -> String {
    player.claims();
    match player.store.campaign(&player.candidacy).await {
        Err(StoreError::Obstacle(obstacle)) => obstacle,
        Ok(CampaignResult::Waiting { observation, .. }) if observation.obstacle.is_some() => {
            observation.obstacle.unwrap_or_default()
        }
        other => panic!("{plant:?}: {other:?}"),
    }
}

/// The candidate does not campaign, does not end (never 77), and hides no other boundary; it goes on when the record is gone.
pub async fn a_record_that_is_not_understood_is_an_obstacle_and_hides_no_other_boundary(site: &StoreUnderTest) {
    let mut fine = site.player("fine", "fine");
    fine.win().await;
    fine.renews().await;
    for plant in PLANTS.into_iter().filter(|plant| site.support.can_hold(*plant)) {
        let name = format!("planted-{plant:?}");
        was_led(site, &name).await;
        site.support.plant(site, &name, plant).await;
        let mut one = site.player(&name, "one");
        for _ in 0..2 {
            let said = obstacle(&mut one, plant).await;
            assert!(!said.is_empty() && said.len() <= 2048 && !said.contains(char::is_control), "{plant:?}: {said:?}");
        }
        // The rest of it in the store takes nothing and keeps no candidate out.
        one.release().await;
        let boundary = one.candidacy.boundary.clone();
        match one.store.observe(&boundary).await {
            Err(StoreError::Obstacle(_)) => {}
            Ok(seen) => assert_eq!(seen.leader, None, "{plant:?}"),
            Err(error) => panic!("{plant:?}: {error:?}"),
        }
        fine.renews().await;
        let seen = one.store.observe_all(Detail::Lease).await.expect("surveyed");
        let (_, observation) = seen.iter().find(|(each, _)| *each == fine.candidacy.boundary).expect("it is there");
        let leader = observation.as_ref().expect("an observation").leader.as_ref();
        assert_eq!(leader.map(|leader| &leader.id), Some(&fine.candidacy.identity.id));
        let mut observer = site.observer(&name);
        let seen = observer.next().await.expect("an obstacle is an answer").pop().expect("one boundary");
        match seen.1 {
            Ok(seen) => assert_eq!(seen.leader, None, "{plant:?}"),
            Err(error) => assert!(matches!(error, StoreError::Obstacle(_)), "{plant:?}: {error:?}"),
        }
        site.support.delete(site, &name).await;
        let term = one.win().await;
        assert!(is_believed_term(term), "{plant:?}: {term}");
        one.renews().await;
        one.release().await;
    }
    fine.release().await;
}

/// A leader whose record was overwritten has lost it, or its renewal has failed; nothing is credited, and nothing refused.
pub async fn a_leader_is_not_credited_beside_a_record_that_is_not_its_own(site: &StoreUnderTest) {
    for plant in
        [Plant::LongId, Plant::HugeTerm, Plant::Foreign].into_iter().filter(|plant| site.support.can_hold(*plant))
    {
        let name = format!("overwritten-{plant:?}");
        let mut one = site.player(&name, "one");
        one.win().await;
        one.renews().await;
        site.support.plant(site, &name, plant).await;
        let renewal = one.store.renew(&one.candidacy).await;
        let is_uncredited =
            matches!(renewal, Ok(RenewResult::Lost { .. }) | Err(StoreError::Unavailable(_) | StoreError::Obstacle(_)));
        let is_beside = matches!(&renewal, Ok(RenewResult::Credited { .. })) && !site.support.record_decides();
        assert!(is_uncredited || is_beside, "{plant:?}: {renewal:?}");
    }
}

/// No flag allows such a name, but records of other programs may have it.
pub async fn a_name_that_is_too_long_is_cut_where_it_is_read(site: &StoreUnderTest) {
    let (mut one, mut two) = (site.player("long-name", "one"), site.player("long-name", "two"));
    one.candidacy.identity.name = "é".repeat(NAME_BYTES_MAX);
    one.candidacy.identity.host = "h".repeat(NAME_BYTES_MAX + 1);
    one.win().await;
    one.renews().await;
    let boundary = one.candidacy.boundary.clone();
    let seen = two.store.observe(&boundary).await.expect("looked").leader.expect("a leader");
    let CampaignResult::Waiting { observation, .. } = two.ask().await else { panic!("won beside a leader") };
    let waited_for = observation.leader.expect("a leader");
    let surveyed = two.store.observe_all(Detail::Leader).await.expect("surveyed");
    let surveyed = surveyed.into_iter().find(|(each, _)| *each == boundary).expect("it is there").1;
    let surveyed = surveyed.expect("an observation").leader.expect("a leader");
    for leader in [seen, waited_for, surveyed] {
        assert_eq!(leader.name, "é".repeat(NAME_BYTES_MAX / 2));
        assert_eq!(leader.host, Some("h".repeat(NAME_BYTES_MAX)));
    }
    two.release().await;
    one.renews().await;
    one.release().await;
}
