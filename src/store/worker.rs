//! The task that talks to the store, so that the driver never waits for it.
//!
//! One request at a time, each bounded by the request time-out, its answer tagged with the attempt's number: an answer
//! to an attempt that the election has given up on is told from a current one by that number alone. A request that
//! arrives while another is under way waits at most until that one's time is up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::{
    ANY_CANDIDATE_ID, CampaignResult, Candidacy, Identity, Notifier, Observation, RenewResult, ReserveResult, Store,
    StoreError,
};
use crate::duration::about;
use elect_core::takeover::Reservation;
use elect_core::{Answer, Attempt, Campaigned, Candidate, Renewed, RequestId, Term, Time};
use elect_keeper::{Claim, clock};

/// How often a store is asked whether a successor is there by now.
const SUCCESSOR_POLL_INTERVAL: Duration = Duration::from_millis(50);

/// A request of the election to the store.
#[derive(Debug, Clone, Copy)]
pub enum StoreRequest {
    /// Ask for the boundary.
    Campaign,
    /// Renew the lease.
    Renew,
    /// Release the boundary.
    Release {
        /// The candidate ends then.
        is_last: bool,
    },
    /// Observe the leader.
    Observe,
}

impl StoreRequest {
    /// The release that a candidate asks for now.
    pub fn release_by(candidate: &Candidate) -> StoreRequest {
        StoreRequest::Release { is_last: candidate.is_ending() }
    }
}

/// An event from the store.
#[derive(Debug)]
pub enum StoreEvent {
    /// An answer.
    Answer {
        /// To this attempt.
        attempt: Attempt,
        /// As the election understands it.
        answer: Answer,
        /// The part that log and status need.
        note: StoreNote,
    },
    /// The keeper must have this before the worker goes on (K2).
    Claim {
        /// The claim.
        claim: Claim,
        /// Whether it has.
        given: oneshot::Sender<bool>,
    },
    /// Worth asking again.
    Hint,
    /// The next release leaves the boundary to a successor, or cannot, for a reason.
    Reserved {
        /// The request of the control socket.
        request_id: RequestId,
        /// Whether the leader is to resign now.
        result: Result<(), String>,
    },
    /// The record that made us leader is gone.
    Ousted {
        /// Of this term.
        term: Term,
    },
}

/// The part of an answer that the election does not need.
#[derive(Debug)]
pub enum StoreNote {
    /// Nothing.
    None,
    /// The store is being connected to.
    Connecting,
    /// The observed leader.
    Observation(Observation),
    /// Why the lease is gone.
    Lost(String),
    /// The error.
    Error(StoreError),
}

/// The sending end: questions in, [`StoreEvent`]s out of the channel that [`channel`] made.
#[derive(Debug)]
pub struct Worker {
    tasks: mpsc::UnboundedSender<Task>,
}

/// A task of the worker; tasks are done in order.
#[derive(Debug)]
enum Task {
    Ask(Attempt, StoreRequest),
    /// The identity from the next request on.
    Rename(Identity),
    Reserve(ReserveTask),
    /// The reservation is not wanted any more.
    Unreserve,
}

/// A reservation whose answer has not come. The release must not act on it once it was cancelled.
#[derive(Debug)]
pub struct OpenReservation {
    /// The request that asked for it.
    pub request_id: RequestId,
    is_cancelled: Arc<AtomicBool>,
}

/// The boundary is to be left to a successor, which has to be there by then, where the store can know that.
#[derive(Debug)]
struct ReserveTask {
    request_id: RequestId,
    reservation: Reservation<String>,
    until: Time,
    is_cancelled: Arc<AtomicBool>,
}

/// The channel that events come through, and the hints that a store sends by it.
#[must_use]
pub fn channel() -> (Notifier, Events) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let has_hint = Arc::default();
    (Notifier { events: sender, has_hint: Arc::clone(&has_hint) }, Events { receiver, has_hint })
}

/// The receiving end. There is at most one hint in it, however many a store sends before it is received.
#[derive(Debug)]
pub struct Events {
    receiver: mpsc::UnboundedReceiver<StoreEvent>,
    has_hint: Arc<AtomicBool>,
}

impl Events {
    /// The next; `None` once the worker has ended. Cancel safe.
    pub async fn recv(&mut self) -> Option<StoreEvent> {
        let event = self.receiver.recv().await;
        self.note(event.as_ref());
        event
    }

    /// The next, if it is there.
    #[cfg(test)]
    pub fn try_recv(&mut self) -> Result<StoreEvent, mpsc::error::TryRecvError> {
        let event = self.receiver.try_recv();
        self.note(event.as_ref().ok());
        event
    }

    fn note(&self, event: Option<&StoreEvent>) {
        if let Some(StoreEvent::Hint) = event {
            self.has_hint.store(false, Ordering::Relaxed);
        }
    }
}

impl Worker {
    /// Starts the task. It ends, and the channel of events with it, when this handle is dropped.
    ///
    /// Must be called inside a [`tokio::task::LocalSet`].
    #[must_use]
    pub fn start(store: Box<dyn Store>, candidacy: Candidacy, limit: Duration, events: Notifier) -> Worker {
        let (tasks, receiver) = mpsc::unbounded_channel();
        // Watched by its end of the channel: the driver takes a closed one for an event.
        let later = tasks.downgrade();
        tokio::task::spawn_local(run_worker(store, candidacy, limit, receiver, later, events));
        Worker { tasks }
    }

    /// Has the next release leave the boundary to a successor. Answered by [`StoreEvent::Reserved`], after the time of the
    /// reservation at the latest and the limit of a request.
    pub fn reserve(&self, request_id: RequestId, reservation: Reservation<String>) -> OpenReservation {
        let (until, is_cancelled) = (clock::now() + reservation.within, Arc::<AtomicBool>::default());
        let task = ReserveTask { request_id, reservation, until, is_cancelled: Arc::clone(&is_cancelled) };
        let _ = self.tasks.send(Task::Reserve(task));
        OpenReservation { request_id, is_cancelled }
    }

    /// Cancels a reservation before the next release. It has no answer any more.
    pub fn cancel(&self, reservation: &OpenReservation) {
        reservation.is_cancelled.store(true, Ordering::Relaxed);
        let _ = self.tasks.send(Task::Unreserve);
    }

    /// Asks; the answer comes as an event. Returns whether the worker still runs.
    pub fn ask(&self, attempt: Attempt, question: StoreRequest) -> bool {
        self.tasks.send(Task::Ask(attempt, question)).is_ok()
    }

    /// From the next question on the candidate has this name and address. The id stays.
    pub fn rename(&self, identity: Identity) {
        // If the worker has ended, the closed channel of events reports that.
        let _ = self.tasks.send(Task::Rename(identity));
    }
}

async fn run_worker(
    mut store: Box<dyn Store>,
    mut candidacy: Candidacy,
    limit: Duration,
    mut tasks: mpsc::UnboundedReceiver<Task>,
    later: mpsc::WeakUnboundedSender<Task>,
    Notifier { events, .. }: Notifier,
) {
    // Whether the store has ever answered. A refusal is a reason to end only before that (S6).
    let mut has_answered = false;
    while let Some(task) = tasks.recv().await {
        let (attempt, question) = match task {
            Task::Ask(attempt, question) => (attempt, question),
            Task::Rename(identity) => {
                candidacy.identity = identity;
                continue;
            }
            Task::Reserve(task) => {
                if let Some(event) = reserve(store.as_mut(), &candidacy, limit, task, &later).await
                    && events.send(event).is_err()
                {
                    return;
                }
                continue;
            }
            Task::Unreserve => {
                let _ = timeout(limit, store.reserve(&candidacy, None)).await;
                continue;
            }
        };
        let outcome = timeout(limit, execute(store.as_mut(), &candidacy, question, &events));
        let (answer, note) = match outcome.await {
            Ok(Ok(answered)) => {
                has_answered = true;
                answered
            }
            Ok(Err(error)) if has_answered => failed_later(question, error),
            Ok(Err(error)) => failed(question, error),
            Err(_) => {
                let limit = about(limit);
                failed(
                    question,
                    StoreError::Unavailable(format!(
                        "it did not answer in time ({limit}): raise --request-timeout or --ttl if it is only slow"
                    )),
                )
            }
        };
        if events.send(StoreEvent::Answer { attempt, answer, note }).is_err() {
            return;
        }
    }
}

/// One attempt to reserve the boundary. `None`: the successor is not there yet, and the store is asked again, or the
/// reservation was cancelled.
async fn reserve(
    store: &mut dyn Store,
    candidacy: &Candidacy,
    limit: Duration,
    task: ReserveTask,
    later: &mpsc::WeakUnboundedSender<Task>,
) -> Option<StoreEvent> {
    let request_id = task.request_id;
    if task.is_cancelled.load(Ordering::Relaxed) {
        return None;
    }
    let outcome = timeout(limit, store.reserve(candidacy, Some(task.reservation.clone()))).await;
    let why = match outcome {
        Ok(Ok(ReserveResult::Reserved)) => return Some(StoreEvent::Reserved { request_id, result: Ok(()) }),
        Ok(Ok(ReserveResult::Impossible(why))) => why,
        Ok(Ok(ReserveResult::NotSeen)) if clock::now() < task.until => {
            let later = later.clone();
            tokio::task::spawn_local(async move {
                tokio::time::sleep(SUCCESSOR_POLL_INTERVAL).await;
                if let Some(tasks) = later.upgrade() {
                    let _ = tasks.send(Task::Reserve(task));
                }
            });
            return None;
        }
        Ok(Ok(ReserveResult::NotSeen)) => format!(
            "no candidate {:?} has come within {}: nothing was done",
            task.reservation.successor,
            about(task.reservation.within)
        ),
        Ok(Err(error)) => format!("the store cannot be told of a successor: {error}"),
        Err(_) => "the store cannot be told of a successor: it did not answer in time".to_owned(),
    };
    // An answer that does not come leaves a name in the record that the release does not act on.
    let _ = timeout(limit, store.reserve(candidacy, None)).await;
    Some(StoreEvent::Reserved { request_id, result: Err(why) })
}

async fn execute(
    store: &mut dyn Store,
    candidacy: &Candidacy,
    question: StoreRequest,
    events: &mpsc::UnboundedSender<StoreEvent>,
) -> Result<(Answer, StoreNote), StoreError> {
    Ok(match question {
        StoreRequest::Campaign => {
            if let Some(claim) = store.claim(candidacy)? {
                let (given, outcome) = oneshot::channel();
                let asked = events.send(StoreEvent::Claim { claim, given }).is_ok();
                if !asked || outcome.await != Ok(true) {
                    return Err(StoreError::Unavailable("the keeper could not be given the claim".to_owned()));
                }
            }
            match store.campaign(candidacy).await.or_else(obstructed)? {
                CampaignResult::Won { term } => (Answer::Campaign(Campaigned::Won(term)), StoreNote::None),
                CampaignResult::Waiting { observation, again, decided } => {
                    (Answer::Campaign(Campaigned::Waiting { again, decided }), StoreNote::Observation(observation))
                }
            }
        }
        StoreRequest::Renew => match store.renew(candidacy).await? {
            RenewResult::Credited { sent, ttl } => {
                if let Some(claim) = store.renewed_claim(candidacy) {
                    // Not waited for: nothing depends on it but how soon another candidate may lead after our death.
                    let _ = events.send(StoreEvent::Claim { claim, given: oneshot::channel().0 });
                }
                (Answer::Renew(Renewed::Credited { sent, ttl }), StoreNote::None)
            }
            RenewResult::Outdated => (Answer::Renew(Renewed::Outdated), StoreNote::None),
            RenewResult::Lost { why } => (Answer::Renew(Renewed::Lost), StoreNote::Lost(why)),
        },
        StoreRequest::Release { is_last } => {
            if is_last {
                store.campaigns_no_more();
            }
            store.release(candidacy).await?;
            (Answer::Release(true), StoreNote::None)
        }
        StoreRequest::Observe => {
            let mut observation = store.observe(&candidacy.boundary).await.or_else(Observation::obstructed)?;
            // Without an election no other candidate is in the way of this one.
            observation.leader.take_if(|leader| leader.id == ANY_CANDIDATE_ID);
            (Answer::Observe(true), StoreNote::Observation(observation))
        }
    })
}

/// A record beside which this elect does not campaign keeps it waiting, like a leader.
fn obstructed(error: StoreError) -> Result<CampaignResult, StoreError> {
    let observation = Observation::obstructed(error)?;
    Ok(CampaignResult::Waiting { observation, again: None, decided: true })
}

/// After the first contact a refusal keeps a candidate waiting, as an obstacle that is read again every renewal interval: a
/// permission may come back, and a server may be replaced (S6).
fn failed_later(question: StoreRequest, error: StoreError) -> (Answer, StoreNote) {
    match (question, error) {
        (StoreRequest::Campaign, StoreError::Refused(why) | StoreError::Misused(why)) => {
            let observation = Observation { obstacle: Some(why), ..Observation::default() };
            (Answer::Campaign(Campaigned::Waiting { again: None, decided: true }), StoreNote::Observation(observation))
        }
        (_, error) => failed(question, error),
    }
}

fn failed(question: StoreRequest, error: StoreError) -> (Answer, StoreNote) {
    let answer = match (question, &error) {
        (StoreRequest::Campaign, StoreError::Refused(_) | StoreError::Misused(_)) => {
            Answer::Campaign(Campaigned::Refused)
        }
        (StoreRequest::Campaign, StoreError::Unavailable(_) | StoreError::Obstacle(_)) => {
            Answer::Campaign(Campaigned::Failed)
        }
        (StoreRequest::Campaign, StoreError::Connecting(_)) => {
            return (Answer::Campaign(Campaigned::Connecting), StoreNote::Connecting);
        }
        (StoreRequest::Renew, _) => Answer::Renew(Renewed::Failed),
        (StoreRequest::Release { .. }, _) => Answer::Release(false),
        (StoreRequest::Observe, StoreError::Connecting(_)) => return (Answer::Observe(false), StoreNote::Connecting),
        (StoreRequest::Observe, _) => Answer::Observe(false),
    };
    (answer, StoreNote::Error(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Identity;
    use async_trait::async_trait;
    use elect_core::boundary::Boundary;
    use tokio::task::LocalSet;

    /// A store that hangs where it is told to.
    #[derive(Default)]
    struct Stuck {
        hangs_in_campaign: bool,
        /// The answers to campaigns, the last one first; after that they are won.
        errors: Vec<Option<StoreError>>,
        /// Whether renewals are credited, with this ttl; otherwise they are lost.
        credits: bool,
        ttl: Option<Duration>,
    }

    #[async_trait(?Send)]
    impl Store for Stuck {
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
            Ok(Some(Claim { payload: b"mine".to_vec(), descriptors: Vec::new() }))
        }
        async fn campaign(&mut self, _: &Candidacy) -> Result<CampaignResult, StoreError> {
            if self.hangs_in_campaign {
                std::future::pending::<()>().await;
            }
            self.errors.pop().flatten().map_or(Ok(CampaignResult::Won { term: 7 }), Err)
        }
        fn renewed_claim(&mut self, _: &Candidacy) -> Option<Claim> {
            Some(Claim { payload: b"changed".to_vec(), descriptors: Vec::new() })
        }
        async fn renew(&mut self, _: &Candidacy) -> Result<RenewResult, StoreError> {
            if self.credits {
                return Ok(RenewResult::Credited { sent: elect_core::Time::BOOT, ttl: self.ttl });
            }
            Ok(RenewResult::Lost { why: "it is somebody else's".to_owned() })
        }
        async fn release(&mut self, _: &Candidacy) -> Result<(), StoreError> {
            Err(StoreError::Unavailable("down".to_owned()))
        }
    }

    fn candidacy() -> Candidacy {
        let identity = Identity { id: "id".into(), name: "name".into(), host: "host".into(), port: None };
        let boundary = "cron".parse().expect("a name");
        Candidacy { boundary, identity, ttl: Duration::from_secs(10) }
    }

    fn with_worker<T>(hangs_in_campaign: bool, test: impl AsyncFnOnce(Worker, Events) -> T) -> T {
        with_store(Stuck { hangs_in_campaign, ..Stuck::default() }, test)
    }

    fn with_store<T>(store: Stuck, test: impl AsyncFnOnce(Worker, Events) -> T) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        LocalSet::new().block_on(&runtime.expect("a runtime"), async {
            let (hints, events) = channel();
            let worker = Worker::start(Box::new(store), candidacy(), Duration::from_secs(1), hints);
            test(worker, events).await
        })
    }

    #[test]
    fn the_keeper_has_the_claim_before_the_store_is_asked() {
        with_worker(false, async |worker, mut events| {
            worker.ask(Attempt(1), StoreRequest::Campaign);
            let Some(StoreEvent::Claim { claim, given }) = events.recv().await else { panic!("no claim first") };
            assert_eq!(claim.payload, b"mine");
            assert!(events.try_recv().is_err(), "nothing was asked before the keeper had it");
            given.send(true).expect("the worker waits");
            let Some(StoreEvent::Answer { attempt, answer, .. }) = events.recv().await else { panic!("no answer") };
            assert_eq!((attempt, answer), (Attempt(1), Answer::Campaign(Campaigned::Won(7))));
        });
    }

    /// 5.4: the keeper's release has to state what the last credited renewal has seen.
    #[test]
    fn a_claim_that_has_changed_with_a_renewal_goes_to_the_keeper() {
        for ttl in [None, Some(Duration::from_secs(10))] {
            let store = Stuck { credits: true, ttl, ..Stuck::default() };
            with_store(store, async |worker, mut events| {
                worker.ask(Attempt(1), StoreRequest::Renew);
                let Some(StoreEvent::Claim { claim, .. }) = events.recv().await else { panic!("no claim") };
                assert_eq!(claim.payload, b"changed");
                let Some(StoreEvent::Answer { answer, .. }) = events.recv().await else { panic!("no answer") };
                assert!(matches!(answer, Answer::Renew(Renewed::Credited { .. })), "{answer:?}");
            });
        }
    }

    #[test]
    fn a_claim_that_the_keeper_does_not_have_stops_the_campaign() {
        with_worker(false, async |worker, mut events| {
            worker.ask(Attempt(1), StoreRequest::Campaign);
            let Some(StoreEvent::Claim { given, .. }) = events.recv().await else { panic!("no claim first") };
            given.send(false).expect("the worker waits");
            let Some(StoreEvent::Answer { answer, .. }) = events.recv().await else { panic!("no answer") };
            assert_eq!(answer, Answer::Campaign(Campaigned::Failed));
        });
    }

    #[test]
    fn a_store_that_hangs_is_given_up_on_and_the_next_question_is_heard() {
        with_worker(true, async |worker, mut events| {
            worker.ask(Attempt(1), StoreRequest::Campaign);
            worker.ask(Attempt(2), StoreRequest::Renew);
            worker.ask(Attempt(3), StoreRequest::Release { is_last: false });
            let mut answers = Vec::new();
            while answers.len() < 3 {
                match events.recv().await.expect("the worker lives") {
                    StoreEvent::Claim { given, .. } => given.send(true).expect("the worker waits"),
                    StoreEvent::Answer { attempt, answer, .. } => answers.push((attempt, answer)),
                    StoreEvent::Hint | StoreEvent::Reserved { .. } | StoreEvent::Ousted { .. } => {}
                }
            }
            let expected = [
                (Attempt(1), Answer::Campaign(Campaigned::Failed)),
                (Attempt(2), Answer::Renew(Renewed::Lost)),
                (Attempt(3), Answer::Release(false)),
            ];
            assert_eq!(answers, expected);
        });
    }

    #[test]
    fn a_refusal_ends_a_candidacy_at_the_first_contact_alone_and_an_obstacle_never() {
        let refused = || StoreError::Refused("no permission".to_owned());
        let obstacle = || StoreError::Obstacle("a newer format".to_owned());
        let down = || StoreError::Unavailable("down".to_owned());
        // In the order of the questions: what is answered, and what it counts as.
        let ends = || Answer::Campaign(Campaigned::Refused);
        let waits = || Answer::Campaign(Campaigned::Waiting { again: None, decided: true });
        let fails = || Answer::Campaign(Campaigned::Failed);
        for answered in [
            vec![(Some(refused()), ends())],
            vec![(Some(down()), fails()), (Some(refused()), ends())],
            vec![(Some(obstacle()), waits()), (Some(refused()), waits()), (Some(down()), fails())],
            vec![(None, Answer::Campaign(Campaigned::Won(7))), (Some(refused()), waits()), (Some(obstacle()), waits())],
        ] {
            let (mut said, expected): (Vec<_>, Vec<_>) = answered.into_iter().unzip();
            said.reverse();
            let count = expected.len();
            let store = Stuck { errors: said, ..Stuck::default() };
            let answers = with_store(store, async |worker, mut events| {
                assert!((1..=count as u64).all(|attempt| worker.ask(Attempt(attempt), StoreRequest::Campaign)));
                let mut answers = Vec::new();
                while answers.len() < count {
                    match events.recv().await.expect("the worker lives") {
                        StoreEvent::Claim { given, .. } => given.send(true).expect("the worker waits"),
                        StoreEvent::Answer { answer, .. } => answers.push(answer),
                        StoreEvent::Hint | StoreEvent::Reserved { .. } | StoreEvent::Ousted { .. } => {}
                    }
                }
                answers
            });
            assert_eq!(answers, expected);
        }
    }

    #[test]
    fn hints_that_nobody_has_received_are_one() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let (hints, mut events) = channel();
            for _ in 0..3 {
                (0..100_000).for_each(|_| hints.clone().changed());
                hints.lost(1);
                assert!(matches!(events.recv().await, Some(StoreEvent::Hint)));
                assert!(matches!(events.recv().await, Some(StoreEvent::Ousted { .. })));
                assert!(events.try_recv().is_err());
            }
        });
    }

    #[test]
    fn the_end_of_the_handle_is_the_end_of_the_task() {
        with_worker(false, async |worker, mut events| {
            drop(worker);
            assert!(events.recv().await.is_none());
        });
    }
}
