//! Change streams: hints that come sooner than the next request.
//!
//! There is one exception: a leader that sees the removal of its own record has lost it, since a change stream shows only
//! what a majority has confirmed (K11). A stream may repeat events from before that leader's own take, so only later ones
//! count. Renewals are no news, and the server filters them out.
//!
//! A stream that has ended is restarted with the next request.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use ::mongodb::Collection;
use ::mongodb::bson::{Bson, Document, doc};
use ::mongodb::change_stream::event::{ChangeStreamEvent, OperationType};
use ::mongodb::options::ReadConcern;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::debug;

use super::errors::{is_permanent, short_message};
use super::stored_record::number;
use crate::store::observer::WATCH_LIFETIME_MIN;
use elect_core::Term;
use elect_keeper::clock;

/// How long the server holds back an empty answer.
const EMPTY_BATCH_INTERVAL: Duration = Duration::from_secs(10);
/// How much longer it may take to come.
const BATCH_DELAY_MAX: Duration = Duration::from_secs(2);

/// A hint from a change stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeHint {
    /// Worth a question.
    Change,
    /// Our term is over.
    Ousted(Term),
}

/// The record that a candidate watches because it may hold it.
#[derive(Debug, Clone)]
pub struct OwnRecord {
    pub id: String,
    /// The term that was won, until it is lost or released.
    pub term: Rc<Cell<Option<Term>>>,
}

/// Watches until the stream ends, or the handle is gone.
#[derive(Debug)]
pub struct ChangeStreamWatch {
    task: JoinHandle<()>,
    hears: Rc<Cell<bool>>,
}

impl ChangeStreamWatch {
    /// One boundary, or all; but something else first. Must be called inside a [`tokio::task::LocalSet`].
    pub fn begin(
        boundaries: Collection<Document>,
        boundary: Option<String>,
        own: Option<OwnRecord>,
        first: Option<impl Future<Output = ()> + 'static>,
        tell: impl Fn(ChangeHint) + 'static,
    ) -> ChangeStreamWatch {
        // A term that was won before the stream began.
        let term = own.as_ref().and_then(|own| own.term.get());
        let hears = Rc::new(Cell::new(false));
        let listens = Rc::clone(&hears);
        // Watched by `is_alive`, with every question.
        let task = tokio::task::spawn_local(async move {
            if let Some(first) = first {
                first.await;
            }
            let began = clock::now();
            let mut position = own.clone().map(|own| Position { own, term });
            let heard = |event: &ChangeStreamEvent<Document>| {
                let ousted = position.as_mut().and_then(|position| position.hear(event));
                tell(ousted.map_or(ChangeHint::Change, ChangeHint::Ousted));
            };
            // The stream does not report changes from before its beginning.
            let collection = boundaries.clone();
            let begins = async || {
                listens.set(true);
                tell(ChangeHint::Change);
                if let (Some(own), Some(boundary)) = (&own, &boundary)
                    && let Some(term) = own.term.get()
                    && !is_still(&collection, boundary, &own.id, term).await
                {
                    tell(ChangeHint::Ousted(term));
                }
            };
            let Err(reason) = follow(boundaries, news(boundary.clone(), own.is_some()), begins, heard).await;
            debug!("the change stream has ended: {reason}");
            if clock::now().since(began) >= WATCH_LIFETIME_MIN {
                tell(ChangeHint::Change);
            }
        });
        ChangeStreamWatch { task, hears }
    }

    /// Whether it still watches.
    pub fn is_alive(&self) -> bool {
        !self.task.is_finished()
    }

    /// Whether the server has agreed to tell, and goes on telling.
    pub fn hears(&self) -> bool {
        self.is_alive() && self.hears.get()
    }
}

impl Drop for ChangeStreamWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Whether the record is held by this candidate under this term, as far as that can be known now. Asked beyond doubt: a
/// primary that was cut off may know nothing of our take.
async fn is_still(boundaries: &Collection<Document>, boundary: &str, id: &str, term: Term) -> bool {
    let filter = doc! { "_id": boundary };
    // Not the rest of the document, however large another hand has made it.
    let fields = doc! { "leaderUUID": 1, "state": 1, "term": 1 };
    let asking = boundaries
        .find_one(filter)
        .projection(fields)
        .read_concern(ReadConcern::linearizable())
        .max_time(BATCH_DELAY_MAX);
    match timeout(BATCH_DELAY_MAX, asking).await {
        Ok(Ok(found)) => found.is_some_and(|record| {
            record.get_str("leaderUUID").is_ok_and(|found| found == id)
                && record.get_str("state").is_ok_and(|state| state == "held")
                && record.get("term").and_then(number) == Some(term)
        }),
        // The next renewal finds out.
        Ok(Err(_)) | Err(_) => true,
    }
}

/// Does the first when the stream has begun, and then the second with every event.
async fn follow(
    boundaries: Collection<Document>,
    pipeline: [Document; 2],
    begins: impl AsyncFnOnce(),
    mut heard: impl FnMut(&ChangeStreamEvent<Document>),
) -> Result<std::convert::Infallible, String> {
    let opening = boundaries.watch().pipeline(pipeline).max_await_time(EMPTY_BATCH_INTERVAL);
    let mut stream = match timeout(EMPTY_BATCH_INTERVAL, opening).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) if is_permanent(&error) => {
            debug!("there is no change stream to be had: {}", short_message(&error));
            // Nor is it asked for again, until there are other connections.
            return std::future::pending().await;
        }
        Ok(Err(error)) => return Err(short_message(&error)),
        Err(_) => return Err("it was not begun in time".to_owned()),
    };
    begins().await;
    while stream.is_alive() {
        let next = timeout(EMPTY_BATCH_INTERVAL + BATCH_DELAY_MAX, stream.next_if_any())
            .await
            .map_err(|_| "it says nothing".to_owned())?;
        if let Some(event) = next.map_err(|error| short_message(&error))? {
            heard(&event);
        }
    }
    Err("the server ended it".to_owned())
}

/// Everything but renewals, as far as the boundary is concerned; the values only for a candidate, which may lose its record.
fn news(boundary: Option<String>, with_values: bool) -> [Document; 2] {
    let changed = ["state", "term", "leaderUUID", "leaderName", "leaderHostname", "leaderPort"];
    let mut alternatives = vec![
        doc! { "operationType": { "$ne": "update" } },
        doc! { "updateDescription.removedFields": { "$nin": [[], Bson::Null] } },
    ];
    for field in changed {
        let field = format!("updateDescription.updatedFields.{field}");
        alternatives.push(doc! { field: { "$exists": true } });
    }
    let matters = doc! { "$or": alternatives };
    let of_ours = match boundary {
        // An event of the whole collection has no key.
        Some(boundary) => doc! { "documentKey._id": { "$in": [boundary, Bson::Null] } },
        None => doc! {},
    };
    // Nothing else of a document is looked at, whatever is in it and however large it is.
    let mut told = doc! { "operationType": 1, "documentKey": 1, "ns": 1, "to": 1 };
    let values = doc! {
        "fullDocument.term": 1, "fullDocument.leaderUUID": 1, "fullDocument.state": 1,
        "updateDescription.updatedFields.term": 1, "updateDescription.updatedFields.leaderUUID": 1,
        "updateDescription.updatedFields.state": 1, "updateDescription.removedFields": 1,
    };
    if with_values {
        told.extend(values);
    }
    [doc! { "$match": { "$and": [matters, of_ours] } }, doc! { "$project": told }]
}

/// Where in the course of events the watcher's own take is.
struct Position {
    own: OwnRecord,
    /// The term of the record as of the last event, or when the stream began. No two takes have the same.
    term: Option<Term>,
}

impl Position {
    /// The term that this event has ended, if it is ours.
    fn hear(&mut self, event: &ChangeStreamEvent<Document>) -> Option<Term> {
        use OperationType::{Delete, Drop, DropDatabase, Insert, Rename, Replace, Update};
        let before = self.term;
        let (no_fields, nothing_removed) = (Document::new(), Vec::new());
        let still_names_us = if matches!(event.operation_type, Insert | Replace) {
            let fields = event.full_document.as_ref().unwrap_or(&no_fields);
            self.term = fields.get("term").and_then(number);
            fields.get_str("leaderUUID").is_ok_and(|id| id == self.own.id)
                && fields.get_str("state").is_ok_and(|state| state == "held")
        } else if matches!(event.operation_type, Update) {
            let update = event.update_description.as_ref();
            let fields = update.map_or(&no_fields, |update| &update.updated_fields);
            let removed = update.map_or(&nothing_removed, |update| &update.removed_fields);
            if let Some(term) = fields.get("term") {
                self.term = number(term);
            }
            // A field that is not named has not changed.
            fields.get("leaderUUID").is_none_or(|id| id.as_str() == Some(&self.own.id))
                && fields.get("state").is_none_or(|state| state.as_str() == Some("held"))
                && !removed.iter().any(|field| matches!(field.as_str(), "leaderUUID" | "state" | "term"))
        } else if matches!(event.operation_type, Delete | Drop | Rename | DropDatabase) {
            self.term = None;
            false
        } else {
            return None;
        };
        let ours = self.own.term.get()?;
        (before == Some(ours) && !(still_names_us && self.term == before)).then_some(ours)
    }
}
