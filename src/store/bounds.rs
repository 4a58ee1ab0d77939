//! Limits on everything that a store says, in one place (DESIGN.md 2.5, S6).
//!
//! Every store is opened through [`Bounded`]. Each store limits what it reads before it keeps it; this layer makes sure that no
//! store, present or future, passes on more: names and hosts, ids, lists, obstacles and errors.

use std::time::Duration;

use async_trait::async_trait;

use super::{
    CampaignResult, Candidacy, Detail, Finding, Leader, Listing, Observation, RenewResult, ReserveResult, Store,
    StoreError, StoreKey,
};
use elect_core::boundary::Boundary;
use elect_core::limits::{self, BOUNDARIES_MAX, CANDIDATES_MAX, FOREIGN_ID_BYTES_MAX, TEXT_BYTES_MAX};
use elect_core::takeover::Reservation;
use elect_keeper::Claim;

/// More than any store has to say about itself.
const FACTS_MAX: usize = 100;

/// A store whose answers are limited in size.
pub struct Bounded(pub Box<dyn Store>);

#[async_trait(?Send)]
impl Store for Bounded {
    fn grants_leases(&self) -> bool {
        self.0.grants_leases()
    }

    async fn observe(&mut self, boundary: &Boundary) -> Result<Observation, StoreError> {
        self.0.observe(boundary).await.map(Observation::bounded).map_err(StoreError::bounded)
    }

    async fn boundaries(&mut self) -> Result<Vec<Boundary>, StoreError> {
        let mut found = self.0.boundaries().await.map_err(StoreError::bounded)?;
        found.truncate(BOUNDARIES_MAX);
        Ok(found)
    }

    async fn observe_all(&mut self, depth: Detail) -> Result<Vec<Listing>, StoreError> {
        let seen = self.0.observe_all(depth).await.map_err(StoreError::bounded)?;
        let bounded =
            |(boundary, seen): Listing| (boundary, seen.map(Observation::bounded).map_err(StoreError::bounded));
        Ok(seen.into_iter().take(BOUNDARIES_MAX).map(bounded).collect())
    }

    async fn wait_for_change(&mut self, boundary: Option<&Boundary>) {
        self.0.wait_for_change(boundary).await;
    }

    async fn facts(&mut self) -> Vec<Finding> {
        self.0.facts().await.into_iter().take(FACTS_MAX).map(Finding::bounded).collect()
    }

    fn claim(&mut self, candidacy: &Candidacy) -> Result<Option<Claim>, StoreError> {
        self.0.claim(candidacy).map_err(StoreError::bounded)
    }

    fn renewed_claim(&mut self, candidacy: &Candidacy) -> Option<Claim> {
        self.0.renewed_claim(candidacy)
    }

    async fn campaign(&mut self, candidacy: &Candidacy) -> Result<CampaignResult, StoreError> {
        Ok(match self.0.campaign(candidacy).await.map_err(StoreError::bounded)? {
            CampaignResult::Waiting { observation, again, decided } => {
                CampaignResult::Waiting { observation: observation.bounded(), again, decided }
            }
            won @ CampaignResult::Won { .. } => won,
        })
    }

    async fn renew(&mut self, candidacy: &Candidacy) -> Result<RenewResult, StoreError> {
        Ok(match self.0.renew(candidacy).await.map_err(StoreError::bounded)? {
            RenewResult::Lost { why } => RenewResult::Lost { why: limits::cut(why, TEXT_BYTES_MAX) },
            same @ (RenewResult::Credited { .. } | RenewResult::Outdated) => same,
        })
    }

    fn set_takeover_delay(&mut self, delay: Duration) {
        self.0.set_takeover_delay(delay);
    }

    async fn reserve(
        &mut self,
        candidacy: &Candidacy,
        reservation: Option<Reservation<String>>,
    ) -> Result<ReserveResult, StoreError> {
        Ok(match self.0.reserve(candidacy, reservation).await.map_err(StoreError::bounded)? {
            ReserveResult::Impossible(why) => ReserveResult::Impossible(limits::cut(why, TEXT_BYTES_MAX)),
            same @ (ReserveResult::Reserved | ReserveResult::NotSeen) => same,
        })
    }

    fn campaigns_no_more(&mut self) {
        self.0.campaigns_no_more();
    }

    async fn release(&mut self, candidacy: &Candidacy) -> Result<(), StoreError> {
        self.0.release(candidacy).await.map_err(StoreError::bounded)
    }
}

impl Observation {
    /// The same with every text and list cut to its limit.
    #[must_use]
    pub fn bounded(self) -> Observation {
        let Observation { leader, candidates, obstacle, previous_term, free_since } = self;
        let candidate = |(id, name)| (limits::cut(id, FOREIGN_ID_BYTES_MAX), limits::cut_name(name));
        Observation {
            leader: leader.map(Leader::bounded),
            candidates: candidates.map(|all| all.into_iter().take(CANDIDATES_MAX).map(candidate).collect()),
            obstacle: obstacle.map(|text| limits::cut(text, TEXT_BYTES_MAX)),
            previous_term,
            free_since,
        }
    }
}

impl Leader {
    fn bounded(self) -> Leader {
        let Leader { id, name, host, port, term, since, ttl, lease_left, store_key } = self;
        Leader {
            id: limits::cut(id, FOREIGN_ID_BYTES_MAX),
            name: limits::cut_name(name),
            host: host.map(limits::cut_name),
            port,
            term,
            since,
            ttl: ttl.map(|ttl| ttl.min(limits::TTL_MAX)),
            lease_left: lease_left.map(|left| left.min(limits::TTL_MAX)),
            store_key: store_key.map(|store_key| {
                let StoreKey { key, lease } = *store_key;
                Box::new(StoreKey { key: limits::cut(key, TEXT_BYTES_MAX), lease })
            }),
        }
    }
}

impl StoreError {
    /// The same with its text cut to the limit.
    #[must_use]
    pub fn bounded(self) -> StoreError {
        let cut = |text| limits::cut(text, TEXT_BYTES_MAX);
        match self {
            StoreError::Unavailable(text) => StoreError::Unavailable(cut(text)),
            StoreError::Connecting(text) => StoreError::Connecting(cut(text)),
            StoreError::Refused(text) => StoreError::Refused(cut(text)),
            StoreError::Obstacle(text) => StoreError::Obstacle(cut(text)),
            StoreError::Misused(text) => StoreError::Misused(cut(text)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::collection::vec;
    use proptest::prelude::*;
    use tokio::runtime;

    use super::*;
    use crate::store::Identity;
    use elect_core::limits::NAME_BYTES_MAX;
    use elect_core::proptest_support;

    /// A store that has heard of more boundaries than a survey may show.
    struct Crowd;

    fn nobody<T>() -> Result<T, StoreError> {
        Err(StoreError::Unavailable("no elections are held here".to_owned()))
    }

    #[async_trait(?Send)]
    impl Store for Crowd {
        fn grants_leases(&self) -> bool {
            true
        }
        async fn observe(&mut self, _: &Boundary) -> Result<Observation, StoreError> {
            Ok(Observation::default())
        }
        async fn boundaries(&mut self) -> Result<Vec<Boundary>, StoreError> {
            Ok((0..BOUNDARIES_MAX + 5).map(|number| format!("b{number:06}").parse().expect("a name")).collect())
        }
        fn claim(&mut self, _: &Candidacy) -> Result<Option<Claim>, StoreError> {
            nobody()
        }
        async fn campaign(&mut self, _: &Candidacy) -> Result<CampaignResult, StoreError> {
            nobody()
        }
        async fn renew(&mut self, _: &Candidacy) -> Result<RenewResult, StoreError> {
            nobody()
        }
        async fn release(&mut self, _: &Candidacy) -> Result<(), StoreError> {
            nobody()
        }
    }

    #[test]
    fn a_survey_passes_on_no_more_boundaries_than_its_limit() {
        let runtime = runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let mut store = Bounded(Box::new(Crowd));
            assert_eq!(store.boundaries().await.expect("known").len(), BOUNDARIES_MAX);
            let seen = store.observe_all(Detail::Leader).await.expect("seen");
            assert_eq!(seen.len(), BOUNDARIES_MAX);
            assert_eq!(seen[0].0.as_str(), "b000000");
        });
    }

    /// A store that says too much, whatever it is asked.
    struct Flood {
        text: String,
        count: usize,
        fails: fn(String) -> StoreError,
    }

    impl Flood {
        fn observation(&self) -> Observation {
            let text = || self.text.clone();
            let leader = Leader {
                id: text(),
                name: text(),
                host: Some(text()),
                port: None,
                term: Some(1),
                since: Some(u64::MAX),
                ttl: Some(Duration::MAX),
                lease_left: Some(Duration::MAX),
                store_key: Some(Box::new(StoreKey { key: text(), lease: "1f".to_owned() })),
            };
            let short = || self.text.chars().take(300).collect::<String>();
            Observation {
                leader: Some(leader),
                candidates: Some((0..self.count).map(|_| (short(), short())).collect()),
                obstacle: Some(text()),
                previous_term: None,
                free_since: None,
            }
        }

        fn error<T>(&self) -> Result<T, StoreError> {
            Err((self.fails)(self.text.clone()))
        }
    }

    #[async_trait(?Send)]
    impl Store for Flood {
        fn grants_leases(&self) -> bool {
            true
        }
        async fn observe(&mut self, boundary: &Boundary) -> Result<Observation, StoreError> {
            if boundary.as_str() == "error" { self.error() } else { Ok(self.observation()) }
        }
        async fn boundaries(&mut self) -> Result<Vec<Boundary>, StoreError> {
            Ok(["error", "cron"].iter().map(|name| name.parse().expect("a name")).collect())
        }
        fn claim(&mut self, _: &Candidacy) -> Result<Option<Claim>, StoreError> {
            self.error()
        }
        async fn campaign(&mut self, _: &Candidacy) -> Result<CampaignResult, StoreError> {
            Ok(CampaignResult::Waiting { observation: self.observation(), again: None, decided: true })
        }
        async fn renew(&mut self, _: &Candidacy) -> Result<RenewResult, StoreError> {
            Ok(RenewResult::Lost { why: self.text.clone() })
        }
        async fn release(&mut self, _: &Candidacy) -> Result<(), StoreError> {
            self.error()
        }
    }

    fn is_small(observation: &Observation) {
        let leader = observation.leader.as_ref().expect("there is one");
        assert!(leader.id.len() <= FOREIGN_ID_BYTES_MAX && leader.name.len() <= NAME_BYTES_MAX);
        assert!(leader.host.as_ref().is_some_and(|host| host.len() <= NAME_BYTES_MAX));
        assert!(leader.ttl <= Some(limits::TTL_MAX) && leader.lease_left <= Some(limits::TTL_MAX));
        let candidates = observation.candidates.as_ref().expect("they are known");
        assert!(candidates.len() <= CANDIDATES_MAX);
        for (id, name) in candidates {
            assert!(id.len() <= FOREIGN_ID_BYTES_MAX && name.len() <= NAME_BYTES_MAX);
        }
        assert!(observation.obstacle.as_ref().is_some_and(|text| text.len() <= TEXT_BYTES_MAX));
    }

    fn is_brief<T>(answer: Result<T, StoreError>) {
        let error = answer.err().expect("an error");
        assert!(error.to_string().len() <= TEXT_BYTES_MAX);
    }

    #[test]
    fn whatever_a_store_says_is_passed_on_within_the_limits() {
        let identity = Identity { id: "id".into(), name: "name".into(), host: "host".into(), port: None };
        let boundary: Boundary = "cron".parse().expect("a name");
        let candidacy = Candidacy { boundary: boundary.clone(), identity, ttl: Duration::from_secs(10) };
        let text = (vec(any::<char>(), 1..8), 1..40_000_usize)
            .prop_map(|(chars, times)| String::from_iter(chars).repeat(times));
        let error = prop_oneof![
            Just(StoreError::Unavailable as fn(String) -> StoreError),
            Just(StoreError::Refused as fn(String) -> StoreError),
            Just(StoreError::Obstacle as fn(String) -> StoreError),
            Just(StoreError::Misused as fn(String) -> StoreError),
        ];
        let runtime = runtime::Builder::new_current_thread().build().expect("a runtime");
        proptest_support::check(
            proptest_support::SLOW,
            &(text, 0..3 * CANDIDATES_MAX, error),
            |(text, count, fails)| {
                runtime.block_on(async {
                    let mut store = Bounded(Box::new(Flood { text, count, fails }));
                    is_small(&store.observe(&boundary).await.expect("seen"));
                    is_brief(store.observe(&"error".parse().expect("a name")).await);
                    for (_, seen) in store.observe_all(Detail::Lease).await.expect("seen") {
                        match seen {
                            Ok(observation) => is_small(&observation),
                            error @ Err(_) => is_brief(error),
                        }
                    }
                    is_brief(store.claim(&candidacy));
                    is_brief(store.release(&candidacy).await);
                    let Ok(CampaignResult::Waiting { observation, .. }) = store.campaign(&candidacy).await else {
                        panic!("won")
                    };
                    is_small(&observation);
                    let Ok(RenewResult::Lost { why }) = store.renew(&candidacy).await else { panic!("credited") };
                    assert!(why.len() <= TEXT_BYTES_MAX);
                });
            },
        );
    }
}
