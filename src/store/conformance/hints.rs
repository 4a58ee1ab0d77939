//! Learning at once what would be found out later anyway.

use std::time::Duration;

use tokio::time::timeout;

use super::gate::Gate;
use super::leases::{LONG, was_led};
use super::{HINT_WAIT, StoreUnderTest, sees};
use crate::store::worker::StoreEvent;
use crate::store::{CampaignResult, Detail, Store, StoreError};
use elect_core::boundary::Boundary;

/// Questions at the usual pace until hints come in again.
const ROUNDS: usize = 8;

pub async fn hints_are_cancel_safe_and_nothing_is_missed_without_them(site: &StoreUnderTest) {
    let mut observer = site.observer("hinted");
    let mut store = site.store();
    let boundary = "hinted".parse().expect("a boundary");
    for turn in 0..5 {
        let mut player = site.player("hinted", &format!("player {turn}"));
        store.observe(&boundary).await.expect("looked");
        for _ in 0..20 {
            let _ = timeout(Duration::ZERO, store.wait_for_change(Some(&boundary))).await;
        }
        player.win().await;
        player.renews().await;
        sees(&mut observer, Some(&player.candidacy.identity.name)).await;
        let seen = store.observe(&boundary).await.expect("looked").leader.expect("a leader");
        assert_eq!(seen.name, player.candidacy.identity.name);
        player.release().await;
        sees(&mut observer, None).await;
    }
}

/// Whether a boundary is led, asked for as an observer of this scope does, until there is an answer.
async fn leader(store: &mut dyn Store, scope: Option<&Boundary>, name: &str) -> Option<String> {
    let seen = loop {
        let answer = match scope {
            Some(boundary) => {
                store.observe(boundary).await.map(|observation| vec![(boundary.clone(), Ok(observation))])
            }
            None => store.observe_all(Detail::Leader).await,
        };
        match answer {
            Ok(seen) => break seen,
            Err(error) => assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}"),
        }
    };
    let (_, observation) = seen.into_iter().find(|(each, _)| scope == Some(each) || each.as_str() == name)?;
    observation.expect("an observation").leader.map(|leader| leader.name)
}

/// An observer whose only reason to look is a hint.
struct Listener {
    store: Box<dyn Store>,
    scope: Option<Boundary>,
}

impl Listener {
    /// Looks at the usual pace: hints begin after the first look, and end with a connection.
    async fn settles(&mut self) {
        for _ in 0..ROUNDS {
            leader(self.store.as_mut(), self.scope.as_ref(), "").await;
            let _ = timeout(HINT_WAIT, self.store.wait_for_change(self.scope.as_ref())).await;
        }
    }

    async fn is_told(&mut self, boundary: &str, expected: Option<&str>) {
        loop {
            self.store.wait_for_change(self.scope.as_ref()).await;
            if leader(self.store.as_mut(), self.scope.as_ref(), boundary).await.as_deref() == expected {
                return;
            }
        }
    }
}

/// Of boundaries that were there, and of one that is new.
pub async fn an_observer_of_all_boundaries_is_told_of_takes_and_releases(site: &StoreUnderTest) {
    // No other candidate is heard of there.
    let site = site.apart("all");
    was_led(&site, "known").await;
    let mut listener = Listener { store: site.store(), scope: None };
    for name in ["known", "unknown"] {
        listener.settles().await;
        let mut player = site.player(name, "one");
        player.candidacy.ttl = player.candidacy.ttl.max(Duration::from_secs(10));
        let ((), ()) = tokio::join!(listener.is_told(name, Some("one")), async {
            player.win().await;
            player.renews().await;
        });
        player.renews().await;
        tokio::join!(listener.is_told(name, None), player.release());
    }
}

pub async fn an_observer_is_told_of_changes_after_its_connection_was_lost(site: &StoreUnderTest) {
    let name = "told-again";
    was_led(site, name).await;
    let boundary: Boundary = name.parse().expect("a boundary");
    let gate = Gate::to(site.address()).await;
    let mut listener = Listener { store: site.through(&gate).store(), scope: Some(boundary) };
    let mut player = site.player(name, "one");
    player.candidacy.ttl = LONG;
    listener.settles().await;
    for _ in 0..2 {
        gate.cut();
        listener.settles().await;
        let ((), ()) = tokio::join!(listener.is_told(name, Some("one")), async {
            player.win().await;
            player.renews().await;
        });
        tokio::join!(listener.is_told(name, None), player.release());
    }
}

pub async fn a_waiter_is_told_of_a_release_after_its_connection_was_lost(site: &StoreUnderTest) {
    let name = "told-to-take";
    was_led(site, name).await;
    let gate = Gate::to(site.address()).await;
    let (mut one, mut two) = (site.player(name, "one"), site.through(&gate).player(name, "two"));
    (one.candidacy.ttl, two.candidacy.ttl) = (LONG, LONG);
    for _ in 0..2 {
        let term = one.win().await;
        one.renews().await;
        two.waits_for().await;
        gate.cut();
        // It asks at its usual pace.
        for _ in 0..ROUNDS {
            two.claims();
            match two.store.campaign(&two.candidacy).await {
                Ok(CampaignResult::Waiting { .. }) | Err(StoreError::Unavailable(_)) => {}
                other => panic!("{other:?}"),
            }
            tokio::time::sleep(HINT_WAIT).await;
        }
        while two.events.try_recv().is_ok() {}
        one.release().await;
        // And now only when it is told to.
        let next = loop {
            let event = two.events.recv().await.expect("the store lives");
            assert!(matches!(event, StoreEvent::Hint), "{event:?}");
            if let Some(term) = two.wins_at_once().await {
                break term;
            }
        };
        assert!(next > term);
        two.renews().await;
        two.release().await;
    }
}
