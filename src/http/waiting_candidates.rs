//! The candidates that wait, asked of the store when a page that shows them is: a candidate itself needs to know no more than who leads.
//!
//! The connection for it is made at the first such request. A store that does not know its candidates is asked once.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::status::SharedStatus;
use crate::store::Store;
use elect_core::Time;
use elect_keeper::clock;

/// How long a page waits for the store. Without an answer it shows that they are not known.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);
/// An answer is good for so long, however many clients ask.
const ANSWER_LIFETIME: Duration = Duration::from_secs(1);

/// The question to the store, and its last answer's age.
pub struct WaitingCandidates(Mutex<Lookup>);

struct Lookup {
    /// `None` once the store has shown that it does not know them.
    store: Option<Box<dyn Store>>,
    asked_at: Option<Time>,
}

impl WaitingCandidates {
    /// Nothing is asked yet.
    pub fn new(store: Box<dyn Store>) -> WaitingCandidates {
        WaitingCandidates(Mutex::new(Lookup { store: Some(store), asked_at: None }))
    }

    /// Asks, unless that was done just now, and notes the answer.
    pub async fn refresh(&self, status: &SharedStatus) {
        // Without an answer in time the lock, and a request under way, are given up.
        let _ = timeout(ANSWER_TIMEOUT, async { self.0.lock().await.refresh(status).await }).await;
    }
}

impl Lookup {
    async fn refresh(&mut self, status: &SharedStatus) {
        let Some(store) = &mut self.store else { return };
        if self.asked_at.is_some_and(|at| clock::now().since(at) < ANSWER_LIFETIME) {
            return;
        }
        self.asked_at = Some(clock::now());
        status.snapshot.borrow_mut().set_waiting(None);
        let boundary = status.snapshot.borrow().boundary().clone();
        let Ok(observation) = store.observe(&boundary).await else { return };
        if observation.candidates.is_none() {
            self.store = None;
        }
        status.snapshot.borrow_mut().set_waiting(Some(observation));
    }
}
