//! The capped collection by which candidates tell each other that a boundary has changed: hints, and nothing else.
//!
//! An entry names a boundary. Takes, releases and proclaims write one after they were confirmed; renewals never do, because
//! each entry wakes every cursor on the collection. Nothing depends on an entry: whoever misses it reads at the usual pace.
//!
//! - An insert into a missing collection would create it without a limit. So nothing is inserted unless the server has just
//!   said that the collection is the one that elect creates, by its kind and its size; a collection of another program is left alone.
//!   These are two requests: if the collection is dropped between them, or the primary changes to one without it, the insert
//!   creates one without a limit. That is foreign to every candidate from then on, gets no further entry, and there are no hints
//!   until it is dropped by hand.
//! - A cursor on an empty collection is dead at once: the candidate that creates it writes a first entry.

use std::pin::Pin;
use std::time::Duration;

use ::mongodb::bson::{Bson, Document, doc};
use ::mongodb::error::{Error, ErrorKind};
use ::mongodb::options::{
    Acknowledgment, CollectionOptions, CreateCollectionOptions, CursorType, ReadConcern, WriteConcern,
};
use ::mongodb::raw_batch_cursor::RawBatchCursor;
use ::mongodb::{Collection, Database, Namespace};
use futures_core::Stream;
use tokio::time::{Instant, timeout_at};

use super::errors::{is_present_already, is_refusal, short_message};
use super::stored_record::number;

pub const COLLECTION: &str = "changes";
/// Room for more hand-overs than happen while a cursor is served, and little to read for one that is opened.
const SIZE_BYTES: u64 = 256 * 1024;

/// The comment of the cursors that candidates hold.
const CANDIDATES_COMMENT: &str = "elect: a candidate waits";
/// How long the server holds back an empty answer.
const EMPTY_BATCH_INTERVAL: Duration = Duration::from_secs(10);
/// How much longer it may take to come.
const BATCH_DELAY_MAX: Duration = Duration::from_secs(2);

/// The collection of a database, whether or not it is there.
#[derive(Debug, Clone)]
pub struct HintCollection {
    database: Database,
    entries: Collection<Document>,
}

/// The collection as the server describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It is elect's.
    Usable,
    Missing,
    /// It is not capped, or of another size, or a view.
    Foreign,
}

/// Why there is no hint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoHints {
    /// The server may answer another time.
    ForNow(String),
    /// Asking again does not help until a permission is granted or a collection is dropped.
    Refused(String),
    /// So many candidates hold a cursor that this one does without.
    Crowd(usize),
}

impl From<Error> for NoHints {
    fn from(error: Error) -> NoHints {
        let why = short_message(&error);
        if is_refusal(&error) { NoHints::Refused(why) } else { NoHints::ForNow(why) }
    }
}

/// The action where the collection is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenMissing {
    /// It is created: by a candidate.
    Create,
    /// It stays missing: observers write nothing, and at a release there is no cursor to be told anything.
    Leave,
}

impl HintCollection {
    /// The collection in the database of the records.
    pub fn beside(boundaries: &Collection<Document>) -> HintCollection {
        let database = boundaries.client().database(&boundaries.namespace().db);
        // A hint that is lost with its primary costs nothing, and the records that it is about were confirmed before.
        let concerns = CollectionOptions::builder()
            .read_concern(ReadConcern::local())
            .write_concern(WriteConcern::builder().w(Acknowledgment::Nodes(1)).build())
            .build();
        let entries = database.collection_with_options(COLLECTION, concerns);
        HintCollection { database, entries }
    }

    async fn standing(&self) -> Result<Standing, Error> {
        let list = doc! { "listCollections": 1, "filter": { "name": COLLECTION }, "cursor": {} };
        let listed = self.database.run_command(list).await?;
        Ok(standing(&listed))
    }

    /// Why no hints will come, as far as that can be known without a write.
    pub async fn find_obstacle(&self) -> Option<String> {
        match self.prepare(WhenMissing::Leave).await {
            Err(NoHints::Refused(why)) => Some(why),
            Ok(_) | Err(NoHints::ForNow(_) | NoHints::Crowd(_)) => None,
        }
    }

    /// Whether the collection is there, created if a candidate finds none. It has an entry if this call has created it.
    ///
    /// # Errors
    ///
    /// It is not elect's, or cannot be created, or the server does not say.
    async fn prepare(&self, when_missing: WhenMissing) -> Result<Standing, NoHints> {
        let standing = self.standing().await?;
        if standing != Standing::Missing || when_missing == WhenMissing::Leave {
            return settled(standing);
        }
        let options = CreateCollectionOptions::builder().capped(true).size(SIZE_BYTES).build();
        match self.database.create_collection(COLLECTION).with_options(options).await {
            // Another candidate was quicker, or another program.
            Err(error) if !is_present_already(&error) => return Err(error.into()),
            Ok(()) | Err(_) => {}
        }
        let standing = settled(self.standing().await?)?;
        if standing == Standing::Usable {
            self.insert("").await?;
        }
        Ok(standing)
    }

    /// Writes an entry. Returns whether there was a collection for it.
    ///
    /// # Errors
    ///
    /// None was written, as far as can be known.
    pub async fn tell(&self, boundary: &str, when_missing: WhenMissing) -> Result<bool, NoHints> {
        match self.prepare(when_missing).await? {
            Standing::Usable => self.insert(boundary).await.map(|()| true),
            Standing::Missing | Standing::Foreign => Ok(false),
        }
    }

    async fn insert(&self, boundary: &str) -> Result<(), NoHints> {
        self.entries.insert_one(doc! { "boundary": boundary }).await.map(drop).map_err(NoHints::from)
    }

    /// Opens a cursor on the entries of one boundary, or on all. `None`: there is nothing to read, because the collection is missing.
    ///
    /// # Errors
    ///
    /// There are no hints.
    pub async fn open(&self, boundary: Option<&str>, when_missing: WhenMissing) -> Result<Option<Entries>, NoHints> {
        if self.prepare(when_missing).await? != Standing::Usable {
            return Ok(None);
        }
        match self.find(boundary, when_missing).await? {
            // It was created, and its creator has written no entry.
            None if when_missing == WhenMissing::Create => {
                self.insert("").await?;
                self.find(boundary, when_missing).await
            }
            found => Ok(found),
        }
    }

    /// The candidates' cursors on the entries of one boundary that wait at present, of the same user. `None`: the server does not tell.
    ///
    /// # Errors
    ///
    /// The server does not answer.
    pub async fn count_listeners(&self, boundary: &str) -> Result<Option<usize>, Error> {
        let Namespace { db, coll } = self.entries.namespace();
        let pipeline = [
            // A user needs no right for its own operations.
            doc! { "$currentOp": { "allUsers": false, "localOps": true } },
            doc! { "$match": {
                "op": "getmore",
                "ns": format!("{db}.{coll}"),
                "cursor.originatingCommand.filter.boundary": { "$eq": boundary },
                "cursor.originatingCommand.comment": CANDIDATES_COMMENT,
            } },
            doc! { "$count": "listeners" },
        ];
        let count = doc! { "aggregate": 1, "pipeline": pipeline.to_vec(), "cursor": {} };
        let counted = match self.database.client().database("admin").run_command(count).await {
            Err(error) if matches!(*error.kind, ErrorKind::Command(_)) => return Ok(None),
            counted => counted?,
        };
        Ok(listeners(&counted))
    }

    /// `None`: the cursor is dead, since the collection is empty.
    async fn find(&self, boundary: Option<&str>, when_missing: WhenMissing) -> Result<Option<Entries>, NoHints> {
        let filter = boundary.map_or_else(Document::new, |boundary| doc! { "boundary": boundary });
        let finding = self
            .entries
            .find(filter)
            // An entry is told by its being there, whatever another program has written into it.
            .projection(doc! { "_id": 0, "none": 1 })
            .cursor_type(CursorType::TailableAwait)
            .max_await_time(EMPTY_BATCH_INTERVAL);
        // Observers are not counted.
        let finding = match when_missing {
            WhenMissing::Create => finding.comment(CANDIDATES_COMMENT),
            WhenMissing::Leave => finding,
        };
        let mut entries = Entries { cursor: finding.batch().await?, is_alive: true, answers_by: None };
        // The entries from before, which say nothing that the next question would not.
        entries.next().await?;
        Ok(entries.is_alive.then_some(entries))
    }
}

/// A tailable cursor on a capped collection.
pub struct Entries {
    cursor: RawBatchCursor,
    is_alive: bool,
    /// By then the next answer has come, or none comes any more; `None`: it was not asked for yet.
    answers_by: Option<Instant>,
}

impl Entries {
    /// Waits for the next batch, for as long as the server holds back an empty one. Returns whether there is an entry in it. Cancel safe.
    ///
    /// # Errors
    ///
    /// The cursor has ended, or the server says nothing.
    pub async fn next(&mut self) -> Result<bool, NoHints> {
        let answers_by =
            *self.answers_by.get_or_insert_with(|| Instant::now() + EMPTY_BATCH_INTERVAL + BATCH_DELAY_MAX);
        let cursor = &mut self.cursor;
        let next = std::future::poll_fn(|context| Pin::new(&mut *cursor).poll_next(context));
        let answer = timeout_at(answers_by, next).await;
        self.answers_by = None;
        let batch = match answer {
            Ok(Some(batch)) => batch?,
            Ok(None) => return Err(NoHints::ForNow("the server has ended the cursor".to_owned())),
            Err(_) => return Err(NoHints::ForNow("the server says nothing".to_owned())),
        };
        let reply = batch.as_raw_document().get_document("cursor").ok();
        self.is_alive = reply.and_then(|reply| reply.get_i64("id").ok()).is_some_and(|id| id != 0);
        Ok(batch.doc_slices()?.into_iter().next().is_some())
    }
}

/// Reads the answer to `$currentOp`: without an operation it has no document.
fn listeners(counted: &Document) -> Option<usize> {
    let batch = counted.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch")).ok()?;
    let count = batch.first().map_or(Some(0), |count| count.as_document()?.get("listeners").and_then(number))?;
    usize::try_from(count).ok()
}

fn settled(standing: Standing) -> Result<Standing, NoHints> {
    match standing {
        Standing::Usable | Standing::Missing => Ok(standing),
        Standing::Foreign => Err(NoHints::Refused(format!(
            "the collection {COLLECTION} is not elect's: it is not capped, or not of {SIZE_BYTES} bytes"
        ))),
    }
}

/// Reads the answer to `listCollections`.
fn standing(listed: &Document) -> Standing {
    let described = listed.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch"));
    let Some(found) = described.ok().and_then(|batch| batch.first()).and_then(Bson::as_document) else {
        return Standing::Missing;
    };
    let options = found.get_document("options").ok();
    let is_capped = options.is_some_and(|options| options.get_bool("capped").is_ok_and(|is_capped| is_capped));
    let size = options.and_then(|options| options.get("size")).and_then(number);
    if is_capped && size == Some(SIZE_BYTES) { Standing::Usable } else { Standing::Foreign }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_capped_collection_of_the_size_that_elect_gives_it_is_used() {
        let listed = |batch: Vec<Document>| standing(&doc! { "cursor": { "firstBatch": batch } });
        let with = |options: Document| listed(vec![doc! { "name": "changes", "options": options }]);
        assert_eq!(listed(Vec::new()), Standing::Missing);
        for size in [Bson::Int64(262_144), Bson::Int32(262_144), Bson::Double(262_144.0)] {
            assert_eq!(with(doc! { "capped": true, "size": size }), Standing::Usable);
        }
        for options in [
            doc! {},
            doc! { "viewOn": "boundaries" },
            doc! { "capped": false, "size": 262_144 },
            doc! { "capped": true },
            doc! { "capped": true, "size": 1_048_576 },
        ] {
            assert_eq!(with(options.clone()), Standing::Foreign, "{options}");
        }
    }
}
