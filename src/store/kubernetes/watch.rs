//! Watches: hints that come sooner than the next request.
//!
//! There is one exception: a leader that sees its own Lease deleted has lost it, since a watch shows only what etcd has (K11).
//! Renewals are no news. A watch that has ended, or that the server has forgotten (410), begins again with the next request.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use http_body_util::BodyExt;
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::debug;

use super::server::{KubernetesServer, LeaseEvents, WATCH_SECONDS};
use super::settings::Settings;
use super::stored_record::StoredRecord;
use crate::store::StoreError;
use crate::store::connection::errors::one_line;
use crate::store::connection::setup::Accepted;
use crate::store::observer::WATCH_LIFETIME_MIN;
use elect_core::Term;
use elect_core::limits::{self, BOUNDARIES_MAX};
use elect_keeper::clock;

/// Largest event: etcd keeps no larger object.
const EVENT_BYTES_MAX: usize = 2 * 1024 * 1024;

/// For how many renewal intervals a watch is not asked for again that was refused.
const REFUSED_INTERVALS: u32 = 5;

/// A hint from a watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseHint {
    /// Worth a question.
    Change,
    /// Our term is over.
    Ousted(Term),
}

/// The term that a candidate holds, for the watch beside it.
#[derive(Debug, Clone)]
pub struct OwnTerm {
    id: Arc<str>,
    /// 0: none.
    term: Arc<AtomicU64>,
}

impl OwnTerm {
    pub fn new(id: String) -> OwnTerm {
        OwnTerm { id: id.into(), term: Arc::default() }
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn term(&self) -> Option<Term> {
        Some(self.term.load(Ordering::Relaxed)).filter(|term| *term > 0)
    }

    pub fn set(&self, term: Option<Term>) {
        self.term.store(term.unwrap_or(0), Ordering::Relaxed);
    }
}

/// The Leases that are watched.
#[derive(Debug, Clone)]
pub struct WatchScope {
    /// One Lease, or all of elect's.
    pub name: Option<String>,
    /// The version after which it begins, if one was read.
    pub since: Option<String>,
    pub own: Option<OwnTerm>,
}

/// Watches until the stream ends, or the handle is gone.
pub struct LeaseWatch {
    task: JoinSet<()>,
    hears: Arc<AtomicBool>,
}

/// Whether the server has begun to tell.
pub type Opening = oneshot::Receiver<Result<(), StoreError>>;

impl LeaseWatch {
    /// Begins, on a connection of its own.
    pub fn begin(
        settings: &Settings,
        scope: WatchScope,
        tell: impl Fn(LeaseHint) + Send + Sync + 'static,
    ) -> (LeaseWatch, Opening) {
        let hears = Arc::new(AtomicBool::new(false));
        let (opened, opening) = oneshot::channel();
        let (settings, listens) = (settings.clone(), Arc::clone(&hears));
        let mut task = JoinSet::new();
        task.spawn(async move {
            let began = clock::now();
            let events = match open(&settings, &scope).await {
                Ok(events) => events,
                Err(error) => {
                    debug!("there is no watch to be had: {error}");
                    let is_refused = matches!(error, StoreError::Refused(_));
                    let _ = opened.send(Err(error));
                    if is_refused {
                        // Perhaps for a moment: a server that has just started does not know every token and every Role yet.
                        tokio::time::sleep(settings.renew_interval * REFUSED_INTERVALS).await;
                    }
                    return;
                }
            };
            listens.store(true, Ordering::Relaxed);
            let _ = opened.send(Ok(()));
            let Err(why) = follow(events, scope, &tell).await;
            debug!("the watch has ended: {why}");
            listens.store(false, Ordering::Relaxed);
            if clock::now().since(began) >= WATCH_LIFETIME_MIN {
                tell(LeaseHint::Change);
            }
        });
        (LeaseWatch { task, hears }, opening)
    }

    /// Whether it still watches.
    pub fn is_alive(&mut self) -> bool {
        while self.task.try_join_next().is_some() {}
        !self.task.is_empty()
    }

    /// Whether the server has agreed to tell, and goes on telling.
    pub fn hears(&self) -> bool {
        self.hears.load(Ordering::Relaxed)
    }
}

async fn open(settings: &Settings, scope: &WatchScope) -> Result<LeaseEvents, StoreError> {
    let opening = async {
        let server = KubernetesServer::connect(settings, &Accepted::default()).await?;
        server.watch(scope.name.as_deref(), scope.since.as_deref()).await
    };
    let late = || StoreError::Unavailable("a watch was not begun in time".to_owned());
    timeout(settings.limits.setup, opening).await.unwrap_or_else(|_| Err(late()))
}

async fn follow(
    mut events: LeaseEvents,
    scope: WatchScope,
    tell: &(impl Fn(LeaseHint) + Send + Sync),
) -> Result<Infallible, String> {
    let silence = Duration::from_secs(WATCH_SECONDS * 11 / 10);
    let mut known = Faces { own: scope.own, of: HashMap::new() };
    let mut line = Vec::new();
    loop {
        let frame = timeout(silence, events.body.frame()).await.map_err(|_| "it says nothing".to_owned())?;
        let frame = frame.ok_or("the server ended it")?.map_err(|error| error.to_string())?;
        let Ok(data) = frame.into_data() else { continue };
        for part in data.split_inclusive(|byte| *byte == b'\n') {
            line.extend_from_slice(part);
            if line.len() > EVENT_BYTES_MAX {
                return Err("an event is too large".to_owned());
            }
            if part.ends_with(b"\n") {
                let event: Value = serde_json::from_slice(&line).map_err(|error| error.to_string())?;
                line.clear();
                known.hear(&event, tell)?;
            }
        }
    }
}

/// The state of each Lease as an observer sees it, without what changes with a renewal.
struct Faces {
    own: Option<OwnTerm>,
    of: HashMap<String, Value>,
}

impl Faces {
    fn hear(&mut self, event: &Value, tell: &impl Fn(LeaseHint)) -> Result<(), String> {
        let object = &event["object"];
        match event["type"].as_str() {
            Some("ADDED" | "MODIFIED") => {
                let name = name(object);
                if self.of.len() >= BOUNDARIES_MAX {
                    self.of.clear();
                }
                let face = face(object);
                if self.of.insert(name, face.clone()).is_none_or(|before| before != face) {
                    tell(LeaseHint::Change);
                }
                Ok(())
            }
            Some("DELETED") => {
                if let Some(term) = self.ousted(object) {
                    tell(LeaseHint::Ousted(term));
                }
                self.of.remove(&name(object));
                // A candidate that had lost it already is waiting.
                tell(LeaseHint::Change);
                Ok(())
            }
            Some("BOOKMARK") => Ok(()),
            // 410: versions that old are forgotten. What has happened since is found by a look.
            Some("ERROR") => {
                tell(LeaseHint::Change);
                Err(format!("the server says {}", object["code"]))
            }
            Some(_) | None => Err("an event is not understood".to_owned()),
        }
    }

    /// Our term, if it was ours that is gone.
    fn ousted(&self, object: &Value) -> Option<Term> {
        let own = self.own.as_ref()?;
        let term = own.term()?;
        let stored = StoredRecord::read(object).ok()?;
        (stored.is_held() && stored.holder() == own.id() && stored.record.term == term).then_some(term)
    }
}

/// Of a Lease, whatever a server says: no name is longer.
fn name(object: &Value) -> String {
    limits::cut_name(object["metadata"]["name"].as_str().unwrap_or_default().to_owned())
}

/// The parts of a Lease whose change is news.
fn face(object: &Value) -> Value {
    match StoredRecord::read(object) {
        Ok(StoredRecord { record, uid, transitions, reservation, .. }) => serde_json::json!([
            uid,
            record.id,
            record.name,
            record.host,
            record.port,
            record.term,
            format!("{:?}", record.state),
            transitions,
            reservation.map(|reservation| reservation.successor),
        ]),
        Err(error) => one_line(&error.to_string()).into(),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use serde_json::json;

    use super::*;

    fn event(kind: &str, holder: &str, renewed: &str) -> Value {
        let record = json!({
            "version": 2, "state": "held", "holder": holder, "transitions": 1, "id": holder, "term": 7, "nonce": 1,
            "ttl_ms": 5000,
        });
        json!({ "type": kind, "object": {
            "metadata": { "name": "cron", "uid": "u", "annotations": { "elect/record": record.to_string() } },
            "spec": { "holderIdentity": holder, "leaseTransitions": 1, "renewTime": renewed },
        } })
    }

    #[test]
    fn a_renewal_is_no_news_and_only_the_deletion_of_ones_own_lease_ousts() {
        let own = OwnTerm::new("me".to_owned());
        let mut known = Faces { own: Some(own.clone()), of: HashMap::new() };
        let heard = RefCell::new(Vec::new());
        let tell = |hint| heard.borrow_mut().push(hint);
        let mut hears = |event: &Value| {
            let result = known.hear(event, &tell);
            (result.is_ok(), std::mem::take(&mut *heard.borrow_mut()))
        };
        let change = || vec![LeaseHint::Change];
        assert_eq!(hears(&event("ADDED", "me", "1")), (true, change()));
        assert_eq!(hears(&event("MODIFIED", "me", "2")), (true, Vec::new()));
        assert_eq!(hears(&json!({ "type": "BOOKMARK", "object": {} })), (true, Vec::new()));
        assert_eq!(hears(&event("MODIFIED", "you", "3")), (true, change()));
        assert_eq!(hears(&event("DELETED", "you", "3")), (true, change()));
        assert_eq!(hears(&event("DELETED", "me", "3")), (true, change()), "it leads no more");
        own.set(Some(7));
        assert_eq!(hears(&event("DELETED", "me", "3")), (true, vec![LeaseHint::Ousted(7), LeaseHint::Change]));
        assert_eq!(hears(&json!({ "type": "ERROR", "object": { "code": 410 } })), (false, change()));
        assert_eq!(hears(&json!({ "type": 5 })), (false, Vec::new()));
    }

    /// A server that tells of ever more Leases with the longest names that an event may have.
    #[test]
    fn all_that_is_kept_of_an_event_is_small() {
        let mut known = Faces { own: None, of: HashMap::new() };
        let long = "n".repeat(EVENT_BYTES_MAX / 4);
        let mut event = event("ADDED", "me", "1");
        event["object"]["metadata"]["uid"] = long.as_str().into();
        for name in ["a", "b"] {
            event["object"]["metadata"]["name"] = format!("{name}{long}").into();
            known.hear(&event, &|_| {}).expect("heard");
        }
        assert_eq!(known.of.len(), 2);
        let kept = |(name, face): (&String, &Value)| name.len() + face.to_string().len();
        assert!(known.of.iter().map(kept).max() < Some(2048), "{:?}", known.of.iter().map(kept).max());
        event["type"] = "DELETED".into();
        known.hear(&event, &|_| {}).expect("heard");
        assert_eq!(known.of.len(), 1);
    }
}
