//! Two candidates that lead in turn: one takes, renews and releases the boundary of the check, then the other.
//!
//! Two, because a store lets the others go first after a release, and because the second one shows whether the hints come. A wait
//! for another check, or for a server that has forgotten its records, is neither a take nor a failure.

use std::time::Duration;

use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::latency::RequestTimes;
use crate::store::url::StoreUrl;
use crate::store::worker::{self, Events, StoreEvent};
use crate::store::{Access, CampaignResult, Candidacy, Identity, RenewResult, Store, StoreError};
use elect_core::boundary::Boundary;
use elect_keeper::clock;

/// Takes that are measured.
const TAKES: usize = 20;
/// Rounds before that: the server learns scripts, a connection is new, replicas have to be counted.
const WARM_UP_ROUNDS: usize = 2;
/// The rounds in which the other candidate waits for a hint.
const HINT_ROUNDS: usize = 4;
/// For a hint.
const HINT_TIMEOUT: Duration = Duration::from_millis(500);
/// So many hints in a row may be missing before none are waited for any more.
const MISSING_HINTS_MAX: usize = 3;
/// So many failures end the rounds.
const FAILURES_MAX: usize = 5;
/// Between a failure and the next round.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);
/// Between two questions of a candidate that waits without a hint.
const QUESTION_INTERVAL: Duration = Duration::from_millis(200);

/// One of the two.
pub struct CheckCandidate {
    pub store: Box<dyn Store>,
    events: Events,
    candidacy: Candidacy,
}

impl CheckCandidate {
    /// # Errors
    ///
    /// The store cannot be opened; nothing is asked of it yet.
    pub fn open(url: &StoreUrl<'_>, access: &Access, name: &str, ttl: Duration) -> Result<CheckCandidate, StoreError> {
        let (hints, events) = worker::channel();
        let store = url.open(access, hints)?;
        let identity =
            Identity { id: Uuid::new_v4().to_string(), name: name.to_owned(), host: name.to_owned(), port: None };
        Ok(CheckCandidate { store, events, candidacy: Candidacy { boundary: Boundary::of_check(), identity, ttl } })
    }

    /// Asks for the boundary once. There is no keeper that could be given the claim: if the check is killed, its lease runs out.
    async fn campaign(&mut self) -> Result<CampaignResult, StoreError> {
        loop {
            drop(self.store.claim(&self.candidacy)?);
            match self.store.campaign(&self.candidacy).await {
                Err(StoreError::Connecting(_)) => tokio::task::yield_now().await,
                answer => return answer,
            }
        }
    }

    /// Waits for a hint. Cancel safe.
    async fn hint(&mut self) {
        loop {
            match self.events.recv().await {
                Some(StoreEvent::Hint | StoreEvent::Ousted { .. }) => return,
                Some(StoreEvent::Answer { .. } | StoreEvent::Claim { .. } | StoreEvent::Reserved { .. }) => {}
                None => std::future::pending().await,
            }
        }
    }

    /// Gives back what it may hold.
    ///
    /// # Errors
    ///
    /// The last attempt's.
    pub async fn release(&mut self) -> Result<(), StoreError> {
        loop {
            match self.store.release(&self.candidacy).await {
                Err(StoreError::Connecting(_)) => tokio::task::yield_now().await,
                answer => return answer,
            }
        }
    }
}

/// The results so far. They stay when the rounds are cut short.
#[derive(Debug, Default)]
pub struct RoundResults {
    pub takes: RequestTimes,
    pub renewals: RequestTimes,
    pub releases: RequestTimes,
    pub hints: RequestTimes,
    /// Hints that were waited for in vain.
    pub hints_missed: usize,
    /// Requests that failed, and the last error.
    pub failures: usize,
    pub error: Option<StoreError>,
    /// Rounds that were completed.
    pub rounds: usize,
    /// The name of a leader that is not of this check.
    pub other_leader: Option<String>,
    /// Why the boundary could not be acquired yet.
    pub obstacle: Option<String>,
}

/// The rounds of two candidates.
pub struct Rounds<'a> {
    pub candidates: &'a mut [CheckCandidate; 2],
    /// Whether only one candidate leads at a time, which the other can wait for.
    pub has_election: bool,
    pub results: &'a mut RoundResults,
}

impl Rounds<'_> {
    /// Until there are enough takes, or too many failures, or the store refuses.
    ///
    /// Cancellation: may be dropped at any time; both candidates have to be released then.
    pub async fn run(&mut self) {
        while self.results.takes.len() < TAKES && self.results.failures < FAILURES_MAX {
            match self.round().await {
                Ok(()) => {
                    self.results.rounds += 1;
                    if self.results.rounds == WARM_UP_ROUNDS {
                        // A write that replicas have not confirmed yet, or a connection that was late, is no failure then.
                        (self.results.failures, self.results.error) = (0, None);
                    }
                    if self.has_election {
                        self.candidates.swap(0, 1);
                    }
                }
                Err(error) => {
                    let is_final = matches!(error, StoreError::Refused(_) | StoreError::Misused(_));
                    self.results.failures += 1;
                    self.results.error = Some(error);
                    if is_final {
                        return;
                    }
                    // The rest of this round is given back; the reason for a failure is known.
                    let [one, _] = &mut *self.candidates;
                    let _ = one.release().await;
                    sleep(RETRY_INTERVAL).await;
                }
            }
        }
    }

    async fn round(&mut self) -> Result<(), StoreError> {
        let take = self.take().await?;
        let renewal = self.renew().await?;
        let waits =
            self.has_election && self.results.rounds < HINT_ROUNDS && self.results.hints_missed < MISSING_HINTS_MAX;
        if waits {
            self.queue_other().await?;
        }
        let [one, other] = &mut *self.candidates;
        let asked = clock::now();
        one.release().await?;
        let release = clock::now().since(asked);
        if waits {
            match timeout(HINT_TIMEOUT, other.hint()).await {
                Ok(()) => {
                    self.results.hints.add(clock::now().since(asked));
                    self.results.hints_missed = 0;
                }
                Err(_) => self.results.hints_missed += 1,
            }
        }
        if self.results.rounds >= WARM_UP_ROUNDS {
            self.results.takes.add(take);
            self.results.renewals.add(renewal);
            self.results.releases.add(release);
        }
        Ok(())
    }

    /// The time of the request that has won.
    async fn take(&mut self) -> Result<Duration, StoreError> {
        let [one, other] = &mut *self.candidates;
        loop {
            let asked = clock::now();
            match one.campaign().await? {
                CampaignResult::Won { .. } => return Ok(clock::now().since(asked)),
                CampaignResult::Waiting { observation, again, .. } => {
                    let leader = observation.leader.filter(|leader| leader.id != other.candidacy.identity.id);
                    self.results.other_leader = leader.map(|leader| leader.name);
                    self.results.obstacle = observation.obstacle;
                    let pause = again.unwrap_or(QUESTION_INTERVAL).min(QUESTION_INTERVAL);
                    // A question after the pause does without a hint.
                    let _ = timeout(pause, one.hint()).await;
                }
            }
        }
    }

    /// The time of a renewal of its own.
    async fn renew(&mut self) -> Result<Duration, StoreError> {
        let [one, _] = &mut *self.candidates;
        loop {
            let asked = clock::now();
            match one.store.renew(&one.candidacy).await {
                // It was sent with the take.
                Ok(RenewResult::Credited { sent, .. }) if sent < asked => {}
                Ok(RenewResult::Credited { .. }) => return Ok(clock::now().since(asked)),
                Ok(RenewResult::Outdated) => drop(one.campaign().await?),
                Ok(RenewResult::Lost { why }) => {
                    return Err(StoreError::Unavailable(format!("leadership was lost right after the take: {why}")));
                }
                Err(StoreError::Connecting(_)) => tokio::task::yield_now().await,
                Err(error) => return Err(error),
            }
        }
    }

    /// Lets the other candidate wait behind the leader, and forgets the hints that it has had.
    async fn queue_other(&mut self) -> Result<(), StoreError> {
        let [_, other] = &mut *self.candidates;
        if let CampaignResult::Won { .. } = other.campaign().await? {
            // Both hold a term that no command runs under: the store does not exclude one by the other.
            other.release().await?;
            return Err(StoreError::Unavailable("two candidates have led at once".to_owned()));
        }
        while timeout(Duration::ZERO, other.hint()).await.is_ok() {}
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;

    use super::*;
    use crate::store::Observation;
    use elect_core::Time;
    use elect_keeper::Claim;

    const PAUSE: Duration = Duration::from_millis(5);

    /// A store that sends the first renewal with the take, and takes a while for each further one.
    #[derive(Default)]
    struct RenewingStore {
        first: Option<Time>,
    }

    #[async_trait(?Send)]
    impl Store for RenewingStore {
        fn grants_leases(&self) -> bool {
            true
        }

        async fn observe(&mut self, _: &Boundary) -> Result<Observation, StoreError> {
            Ok(Observation::default())
        }

        async fn boundaries(&mut self) -> Result<Vec<Boundary>, StoreError> {
            Ok(Vec::new())
        }

        fn claim(&mut self, _: &Candidacy) -> Result<Option<Claim>, StoreError> {
            Ok(None)
        }

        async fn campaign(&mut self, _: &Candidacy) -> Result<CampaignResult, StoreError> {
            self.first = Some(clock::now());
            Ok(CampaignResult::Won { term: 1 })
        }

        async fn renew(&mut self, candidacy: &Candidacy) -> Result<RenewResult, StoreError> {
            let ttl = Some(candidacy.ttl);
            if let Some(sent) = self.first.take() {
                return Ok(RenewResult::Credited { sent, ttl });
            }
            let sent = clock::now();
            sleep(PAUSE).await;
            Ok(RenewResult::Credited { sent, ttl })
        }

        async fn release(&mut self, _: &Candidacy) -> Result<(), StoreError> {
            Ok(())
        }
    }

    #[test]
    fn a_renewal_that_was_sent_with_its_take_is_not_measured() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let mut candidates = ["one", "two"].map(|name| {
            let identity = Identity { id: name.to_owned(), name: name.to_owned(), host: name.to_owned(), port: None };
            let candidacy = Candidacy { boundary: Boundary::of_check(), identity, ttl: Duration::from_secs(1) };
            CheckCandidate { store: Box::<RenewingStore>::default(), events: worker::channel().1, candidacy }
        });
        let mut results = RoundResults::default();
        let mut rounds = Rounds { candidates: &mut candidates, has_election: false, results: &mut results };
        runtime.block_on(async {
            rounds.take().await.expect("won");
            assert!(rounds.renew().await.expect("renewed") >= PAUSE);
        });
    }
}
