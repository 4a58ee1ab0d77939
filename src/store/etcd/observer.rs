//! The observer of queues: one range for the present state, and one watch beside it for hints and for the changes in between.
//!
//! The range decides. The watch begins after it, hints when an oldest key is put or deleted, and replays the queues
//! meanwhile: a key that was the oldest between two ranges is a term that no range has shown
//! ([`Observation::previous_term`]). Where the two do not agree, because a watch is late or was compacted away, the range
//! is right and the previous term is not known.

use std::collections::BTreeMap;
use std::time::Duration;

use etcd_client::{
    Client, Event, EventType, GetOptions, GetResponse, KeyValue, LeaseTimeToLiveOptions, SortOrder, SortTarget,
    WatchOptions, WatchStream,
};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::debug;

use super::endpoints::{Endpoints, classify};
use super::keys::{self, StoredRecord};
use super::layout::Keys;
use super::terms::Scheme;
use crate::store::connection::errors::excerpt;
use crate::store::observer::WATCH_LIFETIME_MIN;
use crate::store::{Detail, Leader, Listing, Observation, StoreError};
use elect_core::boundary::Boundary;
use elect_core::limits::BOUNDARIES_MAX;
use elect_core::{Term, Time};
use elect_keeper::clock;

/// How long it may take to learn what is left of leases, of one or of all.
const LEASES_TIMEOUT: Duration = Duration::from_millis(250);
/// How long a watch may lag behind a range: it was about to hint at the same thing.
const WATCH_LAG_MAX: Duration = Duration::from_millis(250);

/// Boundaries that once had a leader are remembered while there are not more of them than this.
const REMEMBERED_BOUNDARIES_MAX: usize = 1000;

/// The range that is observed: keys with a prefix, of one boundary or of all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    prefix: String,
    boundary: Option<Boundary>,
    keys: Keys,
    terms: Scheme,
}

impl Scope {
    /// Of one boundary.
    pub fn of_one(keys: &Keys, boundary: &Boundary) -> Scope {
        let keys = keys.of(boundary).into_owned();
        let (prefix, terms) = (keys.election(boundary), keys.terms);
        Scope { prefix, boundary: Some(boundary.clone()), keys, terms }
    }

    /// Of all boundaries.
    ///
    /// # Errors
    ///
    /// A usage error: with this layout any key of the store may be one of an election.
    pub fn of_all(keys: &Keys) -> Result<Scope, StoreError> {
        let prefix = keys.all().ok_or_else(|| {
            let options = keys.options();
            StoreError::Misused(format!("with {options} elections cannot be listed: name one, as in elect status cron"))
        })?;
        Ok(Scope { prefix: prefix.to_owned(), boundary: None, keys: keys.clone(), terms: keys.terms })
    }

    /// The observed scope.
    ///
    /// # Errors
    ///
    /// As [`Scope::of_all`].
    pub fn new(keys: &Keys, boundary: Option<&Boundary>) -> Result<Scope, StoreError> {
        boundary.map_or_else(|| Scope::of_all(keys), |boundary| Ok(Scope::of_one(keys, boundary)))
    }

    /// The common beginning of the keys in it.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The common beginning of the keys of a boundary in it.
    fn election(&self, boundary: &Boundary) -> String {
        self.keys.of(boundary).election(boundary)
    }

    /// The boundary that a key is about.
    pub fn of(&self, key: &[u8]) -> Option<Boundary> {
        match &self.boundary {
            Some(boundary) => Some(boundary.clone()),
            None => self.keys.boundary(key),
        }
    }
}

/// The state that an observer keeps from one range to the next.
#[derive(Default)]
pub struct QueueObserver {
    past: Option<QueueHistory>,
    stream: Option<(Time, WatchStream)>,
}

/// The queues as of a revision.
struct QueueHistory {
    scope: Scope,
    /// Nothing up to it is news.
    revision: i64,
    /// The watch has told of everything up to it.
    heard: i64,
    queues: BTreeMap<Boundary, Queue>,
}

/// The candidates of a boundary by their keys' create revisions; the first one leads, or is about to.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Queue {
    candidates: BTreeMap<i64, QueuedCandidate>,
    /// The term of the last leader before the one that leads now.
    previous_term: Option<Term>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct QueuedCandidate {
    key: Vec<u8>,
    /// Once it leads.
    term: Option<Term>,
}

impl QueuedCandidate {
    fn new(election: &str, pair: &KeyValue, scheme: Scheme) -> QueuedCandidate {
        QueuedCandidate { key: pair.key().to_vec(), term: keys::term(election, pair, scheme) }
    }
}

impl Queue {
    fn oldest(&self) -> Option<(i64, Option<Term>)> {
        self.candidates.first_key_value().map(|(&created, candidate)| (created, candidate.term))
    }

    /// Returns whether it may make a difference to who leads.
    fn replay(&mut self, election: &str, event: &Event, pair: &KeyValue, scheme: Scheme) -> bool {
        let before = self.oldest();
        let created = match event.event_type() {
            EventType::Put => {
                self.candidates.insert(pair.create_revision(), QueuedCandidate::new(election, pair, scheme));
                Some(pair.create_revision())
            }
            EventType::Delete => {
                self.candidates.retain(|_, candidate| candidate.key != pair.key());
                None
            }
        };
        let after = self.oldest();
        if let Some((before, Some(term))) = before
            && after.is_none_or(|(after, _)| after != before)
        {
            self.previous_term = Some(term);
        }
        before != after || created.is_some() && created == after.map(|(after, _)| after)
    }
}

impl QueueObserver {
    /// All candidates of each boundary in scope that has one, or has had one since the first observation.
    pub async fn look(
        &mut self,
        members: &mut Endpoints,
        scope: &Scope,
        depth: Detail,
    ) -> Result<Vec<Listing>, StoreError> {
        let prefix = scope.prefix.as_str();
        let (client, mut answer) = members
            .try_each(async |mut client: Client| {
                let options = GetOptions::new().with_prefix().with_sort(SortTarget::Create, SortOrder::Ascend);
                let answer: GetResponse = client.get(prefix, Some(options)).await.map_err(classify)?;
                Ok((client, answer))
            })
            .await?;
        let revision = answer.header().map_or(0, etcd_client::ResponseHeader::revision);
        let mut found: BTreeMap<Boundary, Vec<KeyValue>> = BTreeMap::new();
        for pair in answer.take_kvs() {
            if let Some(boundary) = scope.of(pair.key()) {
                found.entry(boundary).or_default().push(pair);
            }
            if found.len() > BOUNDARIES_MAX {
                found.pop_last();
            }
        }
        let previous_terms = self.catch_up(scope, revision, &found).await;
        for boundary in scope.boundary.iter().chain(previous_terms.keys()) {
            found.entry(boundary.clone()).or_default();
        }
        let leases = match depth {
            Detail::Lease => leases(&client, found.values().filter_map(|queue| Some(queue.first()?.lease()))).await,
            Detail::Leader => BTreeMap::new(),
        };
        let observe = |(boundary, queue): (Boundary, Vec<KeyValue>)| {
            let previous_term = previous_terms.get(&boundary).copied().flatten();
            let observation = observe_queue(&scope.election(&boundary), &queue, &leases, scope.terms)
                .map(|observation| Observation { previous_term, ..observation });
            (boundary, observation)
        };
        Ok(found.into_iter().map(observe).collect())
    }

    /// See [`Store::wait_for_change`](crate::store::Store::wait_for_change).
    pub async fn changed(&mut self, members: &mut Endpoints, scope: &Scope) {
        let Some(past) = self.past.as_mut().filter(|past| past.scope == *scope) else {
            return std::future::pending().await;
        };
        let (prefix, from) = (scope.prefix.as_str(), past.heard + 1);
        if self.stream.is_none() {
            let watch = async |mut client: Client| {
                let options = WatchOptions::new().with_prefix().with_start_revision(from);
                client.watch(prefix, Some(options)).await.map_err(classify)
            };
            self.stream = members.try_each(watch).await.ok().map(|stream| (clock::now(), stream));
        }
        // If no stream can be opened, the next observation reports the reason.
        let Some((since, stream)) = &mut self.stream else { return std::future::pending().await };
        let since = *since;
        let reason = loop {
            let answer = match stream.message().await {
                Ok(Some(answer)) => answer,
                Ok(None) => break "the server ended it".to_owned(),
                Err(error) => break excerpt(&error.to_string()),
            };
            let mut matters = false;
            for event in answer.events() {
                matters |= past.hear(event);
            }
            if answer.canceled() {
                if answer.compact_revision() > 0 {
                    self.past = None;
                }
                break excerpt(answer.cancel_reason());
            }
            if matters {
                return;
            }
        };
        debug!(prefix, "the watch has ended: {reason}");
        self.stream = None;
        if clock::now().since(since) < WATCH_LIFETIME_MIN {
            std::future::pending::<()>().await;
        }
    }

    /// Replays what the watch says happened up to this range, then goes on from what it found. Returns the term before the
    /// present or last one, for each boundary where that is known.
    async fn catch_up(
        &mut self,
        scope: &Scope,
        revision: i64,
        found: &BTreeMap<Boundary, Vec<KeyValue>>,
    ) -> BTreeMap<Boundary, Option<Term>> {
        // A store whose revisions go back is another one.
        if self.past.as_ref().is_some_and(|past| past.scope != *scope || past.revision > revision) {
            (self.past, self.stream) = (None, None);
        }
        let oldest = |boundary: &Boundary| {
            let election = scope.election(boundary);
            found.get(boundary)?.first().map(|pair| (pair.create_revision(), keys::term(&election, pair, scope.terms)))
        };
        let agrees = |past: &QueueHistory| {
            past.queues.iter().all(|(boundary, queue)| queue.oldest() == oldest(boundary))
                && found.keys().all(|boundary| past.queues.contains_key(boundary))
        };
        let mut early = Vec::new();
        if let (Some(past), Some((_, stream))) = (&mut self.past, &mut self.stream) {
            let deadline = Instant::now() + WATCH_LAG_MAX;
            while !agrees(past) {
                // The caller that waits for a change finds out why the stream ended.
                let Ok(Ok(Some(answer))) = timeout_at(deadline, stream.message()).await else { break };
                if answer.canceled() {
                    self.stream = None;
                    break;
                }
                for event in answer.events() {
                    if event.kv().is_some_and(|pair| pair.mod_revision() > revision) {
                        early.push(event.clone());
                    } else {
                        past.hear(event);
                    }
                }
            }
        }
        let replayed = self.past.take();
        let mut queues: BTreeMap<Boundary, Queue> = BTreeMap::new();
        for (boundary, pairs) in found {
            let election = scope.election(boundary);
            let candidate = |pair| QueuedCandidate::new(&election, pair, scope.terms);
            let candidates = pairs.iter().map(|pair| (pair.create_revision(), candidate(pair)));
            queues.insert(boundary.clone(), Queue { candidates: candidates.collect(), previous_term: None });
        }
        for (boundary, replayed) in replayed.iter().flat_map(|past| &past.queues) {
            // A past leader is remembered even when no key is left.
            let queue = queues.entry(boundary.clone()).or_default();
            if queue.oldest() == replayed.oldest() {
                queue.previous_term = replayed.previous_term;
            }
        }
        if queues.len() > REMEMBERED_BOUNDARIES_MAX {
            queues.retain(|_, queue| !queue.candidates.is_empty());
        }
        let previous_terms = queues.iter().map(|(boundary, queue)| (boundary.clone(), queue.previous_term)).collect();
        let heard = replayed.map_or(revision, |past| past.heard.max(revision));
        let mut past = QueueHistory { scope: scope.clone(), revision, heard, queues };
        for event in early {
            past.hear(&event);
        }
        self.past = Some(past);
        previous_terms
    }
}

impl QueueHistory {
    /// Returns whether it may make a difference to who leads.
    fn hear(&mut self, event: &Event) -> bool {
        let Some(pair) = event.kv() else { return false };
        self.heard = self.heard.max(pair.mod_revision());
        if pair.mod_revision() <= self.revision {
            return false;
        }
        let Some(boundary) = self.scope.of(pair.key()) else { return false };
        let election = self.scope.election(&boundary);
        self.queues.entry(boundary).or_default().replay(&election, event, pair, self.scope.terms)
    }
}

/// The first one of the queue leads, once its key shows a term; the others wait.
fn observe_queue(
    election: &str,
    queue: &[KeyValue],
    leases: &BTreeMap<i64, LeaseState>,
    scheme: Scheme,
) -> Result<Observation, StoreError> {
    let Some((first, others)) = queue.split_first() else {
        return Ok(Observation { candidates: Some(Vec::new()), ..Observation::default() });
    };
    let leader = StoredRecord::read(election, first)?.leader(first, scheme);
    let waiting = if leader.is_some() { others } else { queue };
    let leader = leader.map(|leader| match leases.get(&first.lease()) {
        Some(lease) => Leader { ttl: lease.granted.or(leader.ttl), lease_left: lease.left, ..leader },
        None => leader,
    });
    let candidates = Some(waiting.iter().map(|pair| keys::waiting(election, pair)).collect());
    Ok(Observation { leader, candidates, ..Observation::default() })
}

#[derive(Debug, Clone, Copy)]
struct LeaseState {
    granted: Option<Duration>,
    left: Option<Duration>,
}

/// For display only: without the permission, or if the answer is slow, everything else is shown.
async fn leases(client: &Client, ids: impl Iterator<Item = i64>) -> BTreeMap<i64, LeaseState> {
    let mut asked = JoinSet::new();
    for id in ids {
        let mut client = client.clone();
        asked.spawn_local(async move { (id, client.lease_time_to_live(id, None::<LeaseTimeToLiveOptions>).await) });
    }
    let mut known = BTreeMap::new();
    let seconds = |seconds: i64| u64::try_from(seconds).ok().map(Duration::from_secs);
    let all = async {
        while let Some(answered) = asked.join_next().await {
            if let Ok((id, Ok(lease))) = answered {
                known.insert(id, LeaseState { granted: seconds(lease.granted_ttl()), left: seconds(lease.ttl()) });
            }
        }
    };
    let _ = timeout(LEASES_TIMEOUT, all).await;
    known
}
