//! A cursor on the collection of changes: hints that come sooner than the next request.
//!
//! Observers and waiting candidates hold one. A leader holds none, and learns with its next renewal that its record was changed
//! by another hand.
//!
//! A watch that has ended begins again with a later request, but not at once: otherwise a cursor that dies as soon as it is
//! opened would make a storm of requests, because each one that is opened is a hint.
//!
//! Among many candidates of one boundary a few hold one ([`crowd`]).

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::{debug, info};

use super::changes::{HintCollection, NoHints, WhenMissing};
use crate::store::crowd::{self, Choice};
use crate::store::observer::WATCH_LIFETIME_MIN;
use elect_core::Time;
use elect_keeper::clock;

/// Between two hints, however many entries there are.
const HINT_INTERVAL: Duration = Duration::from_millis(10);
/// For all that precedes the first wait. A server that says nothing must not keep the next watch from being begun.
const OPENING_TIME_MAX: Duration = Duration::from_secs(10);
/// For the number of candidates that hold a cursor. A candidate that does not know it holds one too.
const COUNTING_TIME_MAX: Duration = Duration::from_secs(2);
/// After a refusal. A permission may be granted, and a collection that is in the way be dropped.
const REFUSED_INTERVAL: Duration = Duration::from_secs(60);

/// Whether it was logged why there are no hints. Shared by all watches of a store.
#[derive(Debug, Clone, Default)]
pub struct RefusalLog(Rc<RefCell<Option<String>>>);

impl RefusalLog {
    /// Logs a reason once, and again when it is another one.
    pub fn note(&self, reason: &NoHints) {
        let RefusalLog(last) = self;
        match reason {
            NoHints::Refused(why) if last.borrow().as_ref() != Some(why) => {
                info!("changes are found by asking every renewal interval, without hints: {why}");
                last.replace(Some(why.clone()));
            }
            NoHints::Refused(why) | NoHints::ForNow(why) => debug!("no hints for now: {why}"),
            NoHints::Crowd(listeners) => {
                debug!("no hints for now: {listeners} candidates wait for them, which are enough");
            }
        }
    }
}

/// The part of elect that a watch serves.
#[derive(Debug, Clone)]
pub enum Watcher {
    /// It creates the collection if there is none, and leaves the hints to others if those are many.
    Candidate(RefusalLog),
    /// It writes nothing, and is content with what there is.
    Observer,
}

/// Watches until the cursor ends, or the handle is gone.
#[derive(Debug)]
pub struct ChangesWatch {
    task: JoinHandle<()>,
    state: Rc<WatchState>,
}

#[derive(Debug)]
struct WatchState {
    is_wanted: Cell<bool>,
    /// Set by a watch that has ended by itself: no other one is begun before.
    rests_until: Cell<Option<Time>>,
    /// It has ended because enough other candidates listen.
    is_in_crowd: Cell<bool>,
    /// Rung when the watcher does not campaign for now.
    leaves: Notify,
}

impl ChangesWatch {
    /// One boundary, or all. Must be called inside a [`tokio::task::LocalSet`].
    pub fn begin(
        changes: HintCollection,
        boundary: Option<String>,
        watcher: Watcher,
        tell: impl Fn() + 'static,
    ) -> ChangesWatch {
        let state = Rc::new(WatchState {
            is_wanted: Cell::new(true),
            rests_until: Cell::new(None),
            is_in_crowd: Cell::new(false),
            leaves: Notify::new(),
        });
        let shared = Rc::clone(&state);
        // Watched by `is_settled`, with every question.
        let task = tokio::task::spawn_local(async move {
            let began = clock::now();
            let Err(reason) = follow(&changes, boundary.as_deref(), &watcher, &shared, &tell).await else { return };
            match &watcher {
                Watcher::Candidate(log) => log.note(&reason),
                Watcher::Observer => debug!("no hints for now: {reason:?}"),
            }
            shared.is_in_crowd.set(matches!(reason, NoHints::Crowd(_)));
            let rests_until = match reason {
                NoHints::Refused(_) => began + REFUSED_INTERVAL,
                NoHints::ForNow(_) => began + WATCH_LIFETIME_MIN,
                NoHints::Crowd(_) => clock::now() + crowd::rest(),
            };
            shared.rests_until.set(Some(rests_until));
            if clock::now().since(began) >= WATCH_LIFETIME_MIN {
                // Changes from now on are not told.
                tell();
            }
        });
        ChangesWatch { task, state }
    }

    /// Whether no other watch is to be begun: this one lives, or has ended just now.
    pub fn is_settled(&self) -> bool {
        if !self.task.is_finished() {
            self.state.is_wanted.set(true);
            return true;
        }
        self.state.rests_until.get().is_some_and(|until| clock::now() < until)
    }

    /// Whether the watcher leaves the hints to other candidates.
    pub fn is_in_crowd(&self) -> bool {
        self.task.is_finished() && self.state.is_in_crowd.get()
    }

    /// A watcher that leaves the hints to others counts them now.
    pub fn end_rest(&self) {
        if self.is_in_crowd() {
            self.state.rests_until.set(None);
        }
    }

    /// The watcher does not campaign for now: it leaves the hints to other candidates if those are many.
    pub fn leave_crowd(&self) {
        self.state.leaves.notify_one();
    }

    /// The watcher leads. The cursor ends with the next entry of its boundary, which is the leader's own, or with the next empty
    /// answer: a connection that waits for an answer could not be used any more if it were not awaited.
    pub fn end_soon(&self) {
        self.state.is_wanted.set(false);
    }
}

impl Drop for ChangesWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Tells of each entry. Returns when the watch is not wanted any more.
async fn follow(
    changes: &HintCollection,
    boundary: Option<&str>,
    watcher: &Watcher,
    state: &WatchState,
    tell: &impl Fn(),
) -> Result<(), NoHints> {
    let when_missing = match watcher {
        Watcher::Candidate(_) => WhenMissing::Create,
        Watcher::Observer => WhenMissing::Leave,
    };
    let crowd = match (watcher, boundary) {
        (Watcher::Candidate(_), Some(boundary)) => Some(Crowd { changes, boundary }),
        (Watcher::Candidate(_), None) | (Watcher::Observer, _) => None,
    };
    let opening = timeout(OPENING_TIME_MAX, async {
        if let Some(crowd) = &crowd {
            crowd.has_room().await?;
        }
        changes.open(boundary, when_missing).await
    });
    let opened = opening.await.unwrap_or_else(|_| Err(NoHints::ForNow("the cursor was not opened in time".to_owned())));
    let Some(mut entries) = opened? else {
        return Err(NoHints::ForNow("there is nothing to read yet".to_owned()));
    };
    // The cursor does not tell of changes from before it was opened.
    tell();
    let (mut is_undecided, mut delay) = (crowd.is_some(), crowd::count_delay());
    let mut count_is_due = pin!(sleep(delay));
    loop {
        tokio::select! {
            has_entry = entries.next() => {
                let has_entry = has_entry?;
                if !state.is_wanted.get() {
                    return Ok(());
                }
                if has_entry {
                    tell();
                    // A flood of entries must not become a flood of questions.
                    sleep(HINT_INTERVAL).await;
                }
            }
            () = &mut count_is_due, if is_undecided => {
                // A leader does not count, and ends with its next answer.
                is_undecided = state.is_wanted.get();
                if let Some(crowd) = crowd.as_ref().filter(|_| is_undecided) {
                    (is_undecided, delay) = match crowd.count().await {
                        Counted::Untold => (false, delay),
                        // The server is busy.
                        Counted::NotYet => (true, delay * 2),
                        Counted::Listeners(listeners) => match crowd::choose(listeners) {
                            Choice::Listen => (false, delay),
                            Choice::CountAgain => (true, crowd::count_delay()),
                            Choice::Rest => return Err(NoHints::Crowd(listeners)),
                        },
                    };
                    count_is_due.set(sleep(delay));
                }
            }
            () = state.leaves.notified() => {
                if let Some(crowd) = &crowd {
                    crowd.has_room().await?;
                }
            }
        }
    }
}

/// The candidates that hold a cursor on the entries of one boundary.
struct Crowd<'a> {
    changes: &'a HintCollection,
    boundary: &'a str,
}

impl Crowd<'_> {
    /// # Errors
    ///
    /// They are enough.
    async fn has_room(&self) -> Result<(), NoHints> {
        match self.count().await {
            Counted::Listeners(listeners) if !crowd::has_room(listeners) => Err(NoHints::Crowd(listeners)),
            Counted::Listeners(_) | Counted::Untold | Counted::NotYet => Ok(()),
        }
    }

    async fn count(&self) -> Counted {
        match timeout(COUNTING_TIME_MAX, self.changes.count_listeners(self.boundary)).await {
            Ok(Ok(Some(listeners))) => Counted::Listeners(listeners),
            Ok(Ok(None)) => Counted::Untold,
            Ok(Err(_)) | Err(_) => Counted::NotYet,
        }
    }
}

/// The answer to a question for the number of those that listen.
enum Counted {
    Listeners(usize),
    /// The server does not tell.
    Untold,
    /// It has not answered.
    NotYet,
}
