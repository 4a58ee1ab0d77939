//! The behaviour that every store has, checked on the real one.
//!
//! The suite knows nothing but [`Store`]. A store's own tests hand it a [`StoreUnderTest`]: a place that holds elections, as often
//! opened as asked, empty at first, and a [`ConformanceSupport`], which edits its records. Each case has boundaries of its own, so that several run at once.
//!
//! - [`basics`]: winning, waiting, renewing and releasing;
//! - [`leases`]: the end of a lease, and of a record;
//! - [`faults`]: requests given up, answers lost, writes that come late;
//! - [`records`]: records of others;
//! - [`successors`]: which candidate follows;
//! - [`hints`]: what observers and waiters are told.
//!
//! Where a case needs to touch what is between a candidate and the store, it does so by [`gate`] and [`tools`].
//!
//! Not here: `always:`, which excludes no one; its own tests say what it has in common with the others.

mod basics;
mod faults;
mod gate;
mod hints;
mod leases;
mod records;
mod successors;
pub mod tools;

use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, sleep_until, timeout};

use super::claim_release::{ClaimRelease, StoredClaim};
use super::observer::Observer;
use super::url::StoreUrl;
use super::worker::{Events, channel};
use super::{Access, CampaignResult, Candidacy, Identity, Notifier, Observation, RenewResult, Store, StoreError};
use elect_core::Term;
use elect_keeper::Claim;
use gate::Gate;
use tools::ConformanceSupport;

/// Longer than any case takes on a busy machine; only a failing case waits this long.
const LIMIT: Duration = Duration::from_secs(90);
/// How long a waiter waits for a hint before it asks by itself.
const HINT_WAIT: Duration = Duration::from_millis(200);
/// Cases that run at once: most of them wait most of the time.
const AT_ONCE: usize = 8;
/// Of a user whom no server knows.
const WRONG_PASSWORD: &str = "hunter2";

/// A store to be tested.
#[derive(Debug, Clone)]
pub struct StoreUnderTest {
    /// Where it is.
    pub url: String,
    /// The access settings.
    pub access: Access,
    /// The requested ttl, for stores that grant leases.
    pub ttl: Duration,
    /// From the store's own tests.
    pub support: &'static dyn ConformanceSupport,
}

type CaseFuture = Pin<Box<dyn Future<Output = ()>>>;

/// One behaviour of every store, and its name.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    run: fn(Rc<StoreUnderTest>) -> CaseFuture,
}

macro_rules! cases {
    ($($module:ident::$case:ident),* $(,)?) => {
        &[$(Case { name: stringify!($case), run: |site| Box::pin(async move { $module::$case(&site).await }) }),*]
    };
}

const EVERYWHERE: &[Case] = cases![
    basics::a_candidate_alone_wins_and_its_renewal_is_credited,
    basics::terms_are_not_below_the_wall_clock_in_milliseconds,
    basics::a_second_candidate_waits_knows_the_leader_and_follows_with_a_larger_term,
    basics::asking_again_after_winning_gives_the_same_term,
    basics::a_renewal_without_a_win_is_lost_and_a_release_without_one_disturbs_no_leader,
    basics::a_waiter_that_gave_up_takes_nothing_later,
    basics::a_claim_gives_back_what_a_dead_campaigner_held_leading_or_waiting,
    basics::a_claim_without_a_campaign_takes_nothing_and_gives_back_nothing,
    basics::boundaries_with_similar_names_are_different_boundaries,
    basics::of_many_candidates_one_leads_at_a_time_and_terms_rise_through_every_hand_over,
    basics::an_identity_comes_back_as_it_was_whatever_it_is_made_of,
    basics::a_renewal_renames_the_leader_in_its_own_record_alone,
    basics::an_observer_sees_each_change_in_order_with_the_term_before_where_the_store_knows_it,
    basics::a_survey_shows_of_each_boundary_what_a_look_at_it_does,
    basics::a_renewal_counts_from_after_it_was_asked_for_and_from_before_its_answer,
    leases::a_leader_that_is_gone_without_a_word_leads_no_more_once_its_lease_is_over,
    leases::a_renewal_is_lost_once_the_record_is_deleted_and_the_next_term_is_larger,
    faults::a_request_that_is_dropped_at_any_await_is_found_by_the_next_question,
    faults::a_server_that_will_not_have_us_refuses,
    records::a_record_that_is_not_understood_is_an_obstacle_and_hides_no_other_boundary,
    records::a_leader_is_not_credited_beside_a_record_that_is_not_its_own,
    records::a_name_that_is_too_long_is_cut_where_it_is_read,
    successors::a_released_boundary_is_left_to_its_successor_whoever_asks_first,
    successors::a_reservation_that_is_taken_back_leaves_the_boundary_to_all,
    successors::a_spare_takes_a_boundary_only_after_it_had_no_leader_for_the_delay,
    successors::a_spare_that_is_the_named_successor_is_not_delayed,
    hints::hints_are_cancel_safe_and_nothing_is_missed_without_them,
    hints::an_observer_of_all_boundaries_is_told_of_takes_and_releases,
];

/// Where the leader sees who waits.
const WITH_KNOWN_WAITERS: &[Case] = cases![successors::a_boundary_is_not_left_to_a_candidate_that_does_not_wait];

/// Where it does not.
const WITH_UNKNOWN_WAITERS: &[Case] =
    cases![successors::a_boundary_that_its_successor_does_not_take_is_taken_by_another];

/// Where leases end by themselves, and a network is between a candidate and the store.
const WITH_LEASES: &[Case] = cases![
    leases::a_dead_leader_is_followed_after_its_ttl_and_not_before,
    leases::a_long_lease_is_waited_for_by_a_candidate_that_asks_for_a_short_one,
    leases::a_short_lease_is_not_waited_for_longer_by_a_candidate_that_asks_for_a_long_one,
    leases::a_renewal_is_lost_once_another_has_taken_the_boundary,
    faults::a_write_whose_answer_is_lost_is_found_by_the_next_question,
    faults::a_take_that_comes_late_takes_nothing,
    faults::a_renewal_that_comes_late_changes_nothing_of_the_next_leader,
    faults::a_renewal_that_comes_late_to_its_own_leader_does_no_harm,
    faults::a_release_that_comes_late_frees_nothing_of_the_next_term,
    faults::a_renewal_is_counted_from_before_its_request_leaves,
    faults::a_server_that_is_away_is_unavailable_and_is_found_again,
    hints::an_observer_is_told_of_changes_after_its_connection_was_lost,
    hints::a_waiter_is_told_of_a_release_after_its_connection_was_lost,
];

/// Where a lock ends with its holders.
const WITHOUT_LEASES: &[Case] = cases![leases::a_dead_campaigners_keeper_keeps_the_boundary_until_it_is_gone_too];

/// Every case of the suite, on one site. `ELECT_CASE` names one, or a part of its name.
pub fn conforms(site: &StoreUnderTest) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let wanted = std::env::var("ELECT_CASE").unwrap_or_default();
    let failed = LocalSet::new().block_on(&runtime, async {
        let more = if site.store().grants_leases() { WITH_LEASES } else { WITHOUT_LEASES };
        let waiters = if site.support.knows_waiters() { WITH_KNOWN_WAITERS } else { WITH_UNKNOWN_WAITERS };
        let (permits, site) = (Rc::new(Semaphore::new(AT_ONCE)), Rc::new(site.clone()));
        let mut running = JoinSet::new();
        for &Case { name, run } in
            EVERYWHERE.iter().chain(more).chain(waiters).filter(|case| case.name.contains(&wanted))
        {
            let (permits, site) = (Rc::clone(&permits), Rc::clone(&site));
            running.spawn_local(async move {
                let _permit = permits.acquire().await.expect("never closed");
                // A task of its own: its panic is a result.
                let case = timeout(LIMIT, tokio::task::spawn_local(run(site))).await;
                match case {
                    Ok(Ok(())) => None,
                    Ok(Err(_)) => Some(name.to_owned()),
                    Err(_) => Some(format!("{name} (not over after {} s)", LIMIT.as_secs())),
                }
            });
        }
        running.join_all().await.into_iter().flatten().collect::<Vec<_>>()
    });
    assert!(failed.is_empty(), "{}: {} cases fail:\n{}", site.url, failed.len(), failed.join("\n"));
}

/// The observation in which this one leads, or no one.
async fn sees(observer: &mut Observer, name: Option<&str>) -> Observation {
    loop {
        let (_, observation) = observer.next().await.expect("an answer").pop().expect("one boundary");
        let observation = observation.expect("an observation");
        if observation.leader.as_ref().map(|leader| leader.name.as_str()) == name {
            return observation;
        }
    }
}

impl StoreUnderTest {
    /// Host and port of its server.
    pub fn address(&self) -> &str {
        let (_, rest) = self.url.split_once("//").expect("a server");
        &rest[..rest.find(['/', '?']).unwrap_or(rest.len())]
    }

    /// The same server behind a gate.
    fn through(&self, gate: &Gate) -> StoreUnderTest {
        let url = self.support.behind_gate(self.url.replacen(self.address(), gate.address(), 1));
        StoreUnderTest { url, ..self.clone() }
    }

    /// A part of the same store in which no other case has boundaries.
    pub fn apart(&self, name: &str) -> StoreUnderTest {
        StoreUnderTest { url: self.support.part(&self.url, name), ..self.clone() }
    }

    /// A candidate that the store refuses.
    fn shut_out(&self) -> TestCandidate {
        self.support.refused(self).player("shut-out", "one")
    }

    fn store(&self) -> Box<dyn Store> {
        StoreUrl::parse(&self.url).expect("a URL").open(&self.access, Notifier::disconnected()).expect("opened")
    }

    fn observer(&self, boundary: &str) -> Observer {
        Observer::new(self.store(), Some(boundary.parse().expect("a boundary")), LIMIT)
    }

    fn player(&self, boundary: &str, name: &str) -> TestCandidate {
        let url = StoreUrl::parse(&self.url).expect("a URL");
        let (hints, events) = channel();
        let identity = Identity {
            id: uuid::Uuid::new_v4().to_string(),
            name: name.to_owned(),
            host: "host.example".to_owned(),
            port: Some(8080),
        };
        let boundary = boundary.parse().expect("a boundary");
        let candidacy = Candidacy { boundary, identity, ttl: self.ttl };
        TestCandidate { store: url.open(&self.access, hints).expect("opened"), candidacy, events, claim: None }
    }
}

/// A candidate without a command.
struct TestCandidate {
    store: Box<dyn Store>,
    candidacy: Candidacy,
    events: Events,
    claim: Option<Claim>,
}

impl TestCandidate {
    /// The keeper gets the claim, if there is a new one.
    fn claims(&mut self) {
        if let Some(claim) = self.store.claim(&self.candidacy).expect("a claim") {
            self.claim = Some(claim);
        }
    }

    /// On a busy machine connecting takes the time of an attempt, and the next one goes on with that connection.
    async fn ask(&mut self) -> CampaignResult {
        self.claims();
        loop {
            match self.store.campaign(&self.candidacy).await {
                Err(StoreError::Connecting(_)) => {}
                answer => return answer.expect("an answer"),
            }
        }
    }

    /// Asks once.
    async fn wins_at_once(&mut self) -> Option<Term> {
        match self.ask().await {
            CampaignResult::Won { term } => Some(term),
            CampaignResult::Waiting { .. } => None,
        }
    }

    async fn win(&mut self) -> Term {
        loop {
            match self.ask().await {
                CampaignResult::Won { term } => return term,
                CampaignResult::Waiting { again, .. } => {
                    let until = Instant::now() + again.unwrap_or(HINT_WAIT).min(HINT_WAIT);
                    tokio::select! {
                        _ = self.events.recv() => {}
                        () = sleep_until(until) => {}
                    }
                }
            }
        }
    }

    /// Asks once, does not win, and says who leads as far as the store knows.
    async fn waits_for(&mut self) -> Option<String> {
        match self.ask().await {
            CampaignResult::Won { term } => panic!("won term {term} beside a leader"),
            CampaignResult::Waiting { observation, .. } => observation.leader.map(|leader| leader.name),
        }
    }

    /// A thread that resolves a path may be late. Without a lease nothing ends by that, and the question is repeated.
    async fn renewal(&mut self) -> Result<RenewResult, StoreError> {
        loop {
            let renewal = self.store.renew(&self.candidacy).await;
            if self.store.grants_leases() || !matches!(renewal, Err(StoreError::Unavailable(_))) {
                return renewal;
            }
            tokio::time::sleep(HINT_WAIT).await;
        }
    }

    async fn renews(&mut self) {
        let renewal = self.renewal().await.expect("an answer");
        let RenewResult::Credited { ttl, .. } = renewal else { panic!("not credited: {renewal:?}") };
        assert_eq!(ttl.is_some(), self.store.grants_leases());
    }

    async fn has_lost(&mut self) {
        let renewal = self.renewal().await;
        assert!(matches!(renewal, Ok(RenewResult::Lost { .. })), "{renewal:?}");
    }

    async fn release(&mut self) {
        self.store.release(&self.candidacy).await.expect("released");
    }

    async fn leader(&mut self) -> Option<String> {
        let observation = self.store.observe(&self.candidacy.boundary).await.expect("looked");
        observation.leader.map(|leader| leader.name)
    }

    /// As if the campaigner were killed: its store is gone without a word, and the keeper has the claim.
    async fn dies(self, site: &StoreUnderTest) {
        let TestCandidate { store, claim, .. } = self;
        drop(store);
        let claim = claim.expect("the keeper had a claim");
        match StoreUrl::parse(&site.url).expect("a URL").kind.claim_release {
            ClaimRelease::InPlace(release) => release(claim),
            ClaimRelease::Executed(_) => {
                let stored_claim: StoredClaim = serde_json::from_slice(&claim.payload).expect("a stored_claim");
                stored_claim.release().await.expect("released");
            }
        }
    }
}

#[cfg(test)]
mod always {
    //! The cases that `always:` has in common with the other stores.

    use std::time::Duration;

    use tokio::time::timeout;

    use super::tools::{ConformanceSupport, Plant};
    use super::{Access, StoreUnderTest};
    use crate::store::{CampaignResult, RenewResult};
    use elect_keeper::clock;

    #[derive(Debug)]
    struct NoRecords;

    #[async_trait::async_trait(?Send)]
    impl ConformanceSupport for NoRecords {
        fn can_hold(&self, _: Plant) -> bool {
            false
        }

        async fn plant(&self, _: &StoreUnderTest, boundary: &str, plant: Plant) {
            panic!("{plant:?} in {boundary}: there is no record");
        }

        async fn delete(&self, _: &StoreUnderTest, boundary: &str) {
            panic!("{boundary}: there is no record");
        }
    }

    /// The items of the suite that make sense without an election.
    #[test]
    fn it_behaves_like_a_store_on_which_everyone_leads() {
        let (url, access) = ("always:".to_owned(), Access::default());
        let site = StoreUnderTest { url, access, ttl: Duration::from_secs(10), support: &NoRecords };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let before = clock::wall_millis();
            let (mut one, mut two) = (site.player("cron", "one"), site.player("cron", "two"));
            assert!(one.store.claim(&one.candidacy).expect("none").is_none(), "there is nothing to give back");
            let term = one.win().await;
            // DESIGN.md 5.8 and S1.
            assert!(term >= before && term <= clock::wall_millis(), "{term} is not a time since {before}");
            assert_eq!(one.win().await, term, "its term is that of its start");
            assert!(two.wins_at_once().await.is_some(), "everyone leads");
            for name in ["one", "renamed"] {
                name.clone_into(&mut one.candidacy.identity.name);
                let before = clock::now();
                let Ok(RenewResult::Credited { sent, ttl: None }) = one.store.renew(&one.candidacy).await else {
                    panic!("not credited")
                };
                assert!(before <= sent && sent <= clock::now());
            }
            // No election, so every boundary is led, none is listed, and there is no hint.
            let boundary = one.candidacy.boundary.clone();
            let seen = two.store.observe(&boundary).await.expect("looked");
            assert!(seen.leader.is_some() && seen.obstacle.is_none(), "{seen:?}");
            assert!(two.store.boundaries().await.expect("none").is_empty());
            assert!(timeout(Duration::ZERO, two.store.wait_for_change(None)).await.is_err());
            assert!(timeout(Duration::ZERO, two.store.wait_for_change(Some(&boundary))).await.is_err());
            one.release().await;
            two.renews().await;
            assert!(matches!(one.ask().await, CampaignResult::Won { .. }));
        });
    }
}
