//! One candidacy: a lease, a key that hangs on it, and the place in the queue that the key's create revision is.
//!
//! ```text
//! no lease ── grant ──▶ lease ── create ──▶ standing ── oldest ──▶ leading
//!     ▲                                        │ key or lease gone     │
//!     └────────────────────────────────────────┴───────────────────────┘
//! ```
//!
//! The rules that make it safe:
//!
//! - What decides is a transaction that compares our key's create revision and lease and that no key of the boundary is
//!   older. **Both** its branches hold a range of our key: with an empty branch etcd takes the transaction for one that it may
//!   answer from local state, and a member that is cut off or stalled would say yes for ever.
//! - A keep-alive proves nothing by itself: a leader of the cluster that was replaced without knowing still answers them. It
//!   counts if the transaction, sent after its answer, was served in the same raft term.
//! - A key, once seen to be gone, is never taken for granted again: a waiter without a key gets a new one, at the back, before
//!   it can lead (etcd's own election service does not look: etcd #19597).

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use etcd_client::{
    Client, Compare, CompareOp, Error, GetOptions, GetResponse, KeyValue, LeaseGrantOptions, LeaseKeepAliveStream,
    LeaseKeeper, PutOptions, SortOrder, SortTarget, Txn, TxnOp, TxnOpResponse, TxnResponse,
};
use tonic::Code;
use tracing::debug;

use super::keys::{self, Entry, Value};
use super::members::explain;
use super::watch::{Seen, Watch};
use crate::clock;
use crate::election::Term;
use crate::store::{Candidacy, Hints, Renewal, Sighting, Standing, StoreError};

/// How soon a candidate whose lease vanished while it waited comes back with a new one.
const REJOIN: Duration = Duration::from_millis(100);
/// How often a renewal is tried within an attempt if the cluster changes its leader in the middle.
const TERMS_TRIED: usize = 2;

/// Where a candidate stands, and on which lease.
pub struct Seat {
    lease: i64,
    election: String,
    key: String,
    value: Value,
    hints: Hints,
    /// Whether the server has the lease, as far as we know.
    granted: bool,
    /// Our key's create revision, while we know the key to be there.
    created: Option<i64>,
    /// Whether our key says that we lead, and who we are.
    announced: bool,
    /// Since when we lead, in milliseconds since 1970.
    since: Option<u64>,
    pulse: Option<Pulse>,
    own: Option<Watch>,
    predecessor: Option<Watch>,
    /// Whether the server has been asked for the lease: if not, there is nothing to take back.
    touched: bool,
    /// The watch on our key outlives the change from waiting to leading.
    rule: Rc<Cell<Rule>>,
}

/// Whether this seat leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    NotYet,
    /// For as long as our key is there.
    Leads(Term),
    /// It has, and a term that is over must not come back: only another seat may lead.
    Over,
}

/// The stream of keep-alives. Dropped at the first trouble: a late answer must not be taken for the next one's.
struct Pulse {
    keeper: LeaseKeeper,
    answers: LeaseKeepAliveStream,
}

/// The answer to a keep-alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Beat {
    ttl: Duration,
    raft_term: u64,
}

/// What our place in the queue looks like.
struct Place {
    created: i64,
    oldest: KeyValue,
    /// Of the answer: watches begin behind it.
    revision: i64,
}

impl Seat {
    /// Nothing is asked of the server yet. The lease's id is ours to choose, so that a keeper can know it before it exists.
    pub fn new(lease: i64, prefix: &str, candidacy: &Candidacy, hints: Hints) -> Seat {
        Seat {
            lease,
            election: keys::election(prefix, &candidacy.boundary),
            key: keys::candidate(prefix, &candidacy.boundary, lease),
            value: Value::of(candidacy),
            hints,
            granted: false,
            created: None,
            announced: false,
            since: None,
            pulse: None,
            own: None,
            predecessor: None,
            touched: false,
            rule: Rc::new(Cell::new(Rule::NotYet)),
        }
    }

    pub fn lease(&self) -> i64 {
        self.lease
    }

    /// Whether it has led and does not any more.
    pub fn is_over(&self) -> bool {
        self.rule.get() == Rule::Over
    }

    /// Whether the server may know of it.
    pub fn is_touched(&self) -> bool {
        self.touched
    }

    /// Takes our place, or looks whether it is the first one. `None`: the lease is gone, and with it this seat.
    pub async fn stand(&mut self, client: &mut Client, ttl: Duration) -> Result<Option<Standing>, StoreError> {
        self.rule.set(Rule::NotYet);
        if self.created.is_none() {
            // A newer format is found out about before there is anything of ours.
            if let Some(oldest) = self.oldest(client).await? {
                Entry::read(&oldest)?;
            }
        }
        self.keep(client, ttl).await?;
        // The stream goes with the connection if what follows fails.
        let pulse = self.pulse.take();
        let Some(place) = self.place(client).await? else { return Ok(None) };
        self.created = Some(place.created);
        self.watch_own(client, place.revision);
        if place.oldest.create_revision() == place.created {
            let term = keys::term(&place.oldest);
            self.predecessor = None;
            self.rule.set(Rule::Leads(term));
            self.pulse = pulse;
            return Ok(Some(Standing::Won { term }));
        }
        self.watch_predecessor(client, place.created).await?;
        self.pulse = pulse;
        let leader = Entry::read(&place.oldest)?.leader(&place.oldest);
        let sighting = Sighting { leader: Some(leader), ..Sighting::default() };
        Ok(Some(Standing::Waiting { sighting, again: None, decided: true }))
    }

    /// Grants the lease, or prolongs it. Whether it is gone is found out by what hangs on it.
    async fn keep(&mut self, client: &mut Client, ttl: Duration) -> Result<(), StoreError> {
        if self.granted {
            self.beat(client).await?;
            return Ok(());
        }
        self.touched = true;
        let options = LeaseGrantOptions::new().with_id(self.lease);
        match client.lease_grant(whole_seconds(ttl), Some(options)).await {
            Ok(_) => {}
            // The id is ours alone: an earlier request was heard although its answer was not.
            Err(Error::GRpcStatus(status)) if status.message().contains("lease already exists") => {
                self.beat(client).await?;
            }
            Err(error) => return Err(explain(error)),
        }
        self.granted = true;
        Ok(())
    }

    /// Our key, made if it is not there; `None` if there is no lease to hang it on.
    async fn place(&mut self, client: &mut Client) -> Result<Option<Place>, StoreError> {
        if let Some(created) = self.created {
            let same = Compare::create_revision(self.key.as_str(), CompareOp::Equal, created);
            let reads = [self.get_oldest()];
            let answer = client.txn(Txn::new().when([same]).and_then(reads.clone()).or_else(reads)).await;
            let answer = answer.map_err(explain)?;
            if answer.succeeded() {
                return place(created, &answer).map(Some);
            }
            // What is said of that key from now on is not said of the next.
            self.created = None;
            (self.announced, self.since) = (false, None);
            self.own = None;
        }
        let absent = Compare::create_revision(self.key.as_str(), CompareOp::Equal, 0);
        let hung = PutOptions::new().with_lease(self.lease);
        let put = TxnOp::put(self.key.as_str(), self.value.to_json(), Some(hung));
        let txn = Txn::new()
            .when([absent])
            .and_then([put, self.get_oldest()])
            .or_else([TxnOp::get(self.key.as_str(), None), self.get_oldest()]);
        let answer = match client.txn(txn).await {
            Ok(answer) => answer,
            Err(Error::GRpcStatus(status)) if status.code() == Code::NotFound => return Ok(None),
            Err(error) => return Err(explain(error)),
        };
        let revision = answer.header().map_or(0, etcd_client::ResponseHeader::revision);
        if answer.succeeded() {
            return place(revision, &answer).map(Some);
        }
        // An earlier request was heard although its answer was not.
        let own = first_pair(&answer).filter(|pair| pair.key() == self.key.as_bytes());
        match own {
            Some(own) if own.lease() == self.lease => place(own.create_revision(), &answer).map(Some),
            // Somebody wrote to it: it is nobody's any more.
            Some(_) => Ok(None),
            None => Err(nonsense()),
        }
    }

    async fn oldest(&self, client: &mut Client) -> Result<Option<KeyValue>, StoreError> {
        let mut answer = client.get(self.election.as_str(), Some(the_oldest())).await.map_err(explain)?;
        Ok(answer.take_kvs().into_iter().next())
    }

    fn get_oldest(&self) -> TxnOp {
        TxnOp::get(self.election.as_str(), Some(the_oldest()))
    }

    /// Renews the lease, and verifies that the boundary is ours: see the rules above.
    pub async fn renew(&mut self, client: &mut Client, candidacy: &Candidacy) -> Result<Renewal, StoreError> {
        let Some(created) = self.created else { return Ok(lost("nothing was won")) };
        let value = Value::of(candidacy);
        if value != self.value {
            (self.value, self.announced) = (value, false);
        }
        for _ in 0..TERMS_TRIED {
            let sent = clock::now(); // T1
            let beat = self.beat(client).await?;
            // Nothing of the renewal is credited if what follows fails: the stream goes with the connection.
            let pulse = self.pulse.take();
            let announced = if self.announced { None } else { Some(self.announcement(created)) };
            let put = announced.map(|value| {
                let hung = PutOptions::new().with_lease(self.lease);
                TxnOp::put(self.key.as_str(), value.to_json(), Some(hung))
            });
            let get_own = TxnOp::get(self.key.as_str(), None);
            let branch: Vec<TxnOp> = put.into_iter().chain([get_own.clone()]).collect();
            let txn = Txn::new().when(self.is_ours(created)).and_then(branch).or_else([get_own, self.get_oldest()]);
            let answer = client.txn(txn).await.map_err(explain)?;
            if !answer.succeeded() {
                self.rule.set(Rule::Over);
                return Ok(lost(if first_pair(&answer).is_some() { "another leads" } else { "our key is gone" }));
            }
            self.announced = true;
            let header = answer.header().ok_or_else(nonsense)?;
            self.watch_own(client, header.revision());
            let Some(beat) = beat else {
                return Err(StoreError::Unavailable("the lease is not found although our key hangs on it".to_owned()));
            };
            self.pulse = pulse;
            if beat.raft_term == header.raft_term() {
                return Ok(Renewal::Credited { sent, ttl: Some(beat.ttl) });
            }
            let (answered, checked) = (beat.raft_term, header.raft_term());
            debug!("the keep-alive of raft term {answered} counts for nothing: the check was served in {checked}");
        }
        Err(StoreError::Unavailable("the cluster keeps changing its leader".to_owned()))
    }

    fn is_ours(&self, created: i64) -> Vec<Compare> {
        vec![
            Compare::create_revision(self.key.as_str(), CompareOp::Equal, created),
            Compare::lease(self.key.as_str(), CompareOp::Equal, self.lease),
            // Of every key of the boundary.
            Compare::create_revision(self.election.as_str(), CompareOp::Greater, created - 1).with_prefix(),
        ]
    }

    fn announcement(&mut self, created: i64) -> Value {
        let since = *self.since.get_or_insert_with(clock::wall_millis);
        self.value.clone().leading(created.unsigned_abs(), since)
    }

    /// One keep-alive. `None`: that member knows no such lease, which a transaction has to confirm.
    async fn beat(&mut self, client: &mut Client) -> Result<Option<Beat>, StoreError> {
        let mut pulse = match self.pulse.take() {
            Some(pulse) => pulse,
            None => match client.lease_keep_alive(self.lease).await {
                Ok((keeper, answers)) => Pulse { keeper, answers },
                Err(Error::LeaseKeepAliveError(_)) => return Ok(None),
                Err(error) => return Err(explain(error)),
            },
        };
        pulse.keeper.keep_alive().await.map_err(explain)?;
        let Some(answer) = pulse.answers.message().await.map_err(explain)? else {
            return Err(StoreError::Unavailable("the server ended the stream of keep-alives".to_owned()));
        };
        let ttl = u64::try_from(answer.ttl()).unwrap_or(0);
        if ttl == 0 {
            return Ok(None);
        }
        let raft_term = answer.header().ok_or_else(nonsense)?.raft_term();
        self.pulse = Some(pulse);
        Ok(Some(Beat { ttl: Duration::from_secs(ttl), raft_term }))
    }

    fn watch_own(&mut self, client: &Client, revision: i64) {
        if self.own.as_ref().is_some_and(Watch::is_alive) {
            return;
        }
        let (hints, rule) = (self.hints.clone(), Rc::clone(&self.rule));
        let tell = move |seen| match (seen, rule.get()) {
            (Seen::Deleted, Rule::Leads(term)) => {
                rule.set(Rule::Over);
                hints.ousted(term);
            }
            (Seen::Deleted, Rule::NotYet | Rule::Over) | (Seen::Broken, _) => hints.changed(),
        };
        self.own = Some(Watch::after(revision, client.clone(), self.key.clone(), tell));
    }

    /// Only the candidate right before us is watched, so that a leader's end wakes one waiter.
    async fn watch_predecessor(&mut self, client: &mut Client, created: i64) -> Result<(), StoreError> {
        if self.predecessor.as_ref().is_some_and(Watch::is_alive) {
            return Ok(());
        }
        let options = GetOptions::new()
            .with_prefix()
            .with_max_create_revision(created - 1)
            .with_sort(SortTarget::Create, SortOrder::Descend)
            .with_limit(1)
            .with_keys_only();
        let answer: GetResponse = client.get(self.election.as_str(), Some(options)).await.map_err(explain)?;
        let Some(predecessor) = answer.kvs().first() else {
            // Gone meanwhile, and nobody else is before us.
            self.hints.changed();
            return Ok(());
        };
        let key = String::from_utf8_lossy(predecessor.key()).into_owned();
        let revision = answer.header().map_or(0, etcd_client::ResponseHeader::revision);
        let hints = self.hints.clone();
        self.predecessor = Some(Watch::after(revision, client.clone(), key, move |_| hints.changed()));
        Ok(())
    }
}

/// What a candidate answers whose lease is gone: it comes back with a new one, at the back of the queue.
pub fn rejoins() -> Standing {
    Standing::Waiting {
        sighting: Sighting { obstacle: Some("our lease was gone: queueing again".to_owned()), ..Sighting::default() },
        again: Some(REJOIN),
        decided: true,
    }
}

/// Takes a lease back, with all that hangs on it. That there is no such lease (any more) is what was wanted.
pub async fn revoke(client: &mut Client, lease: i64) -> Result<(), StoreError> {
    match client.lease_revoke(lease).await {
        Ok(_) => Ok(()),
        Err(Error::GRpcStatus(status)) if status.code() == Code::NotFound => Ok(()),
        Err(error) => Err(explain(error)),
    }
}

/// Of all keys of an election, the one that leads.
fn the_oldest() -> GetOptions {
    GetOptions::new().with_prefix().with_limit(1).with_sort(SortTarget::Create, SortOrder::Ascend)
}

/// etcd counts in seconds; what it grants is never less than what was asked for.
fn whole_seconds(ttl: Duration) -> i64 {
    let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

fn place(created: i64, answer: &TxnResponse) -> Result<Place, StoreError> {
    let oldest = answer.op_responses().into_iter().rev().find_map(|answer| match answer {
        TxnOpResponse::Get(mut range) => range.take_kvs().into_iter().next(),
        TxnOpResponse::Put(_) | TxnOpResponse::Delete(_) | TxnOpResponse::Txn(_) => None,
    });
    let revision = answer.header().map_or(0, etcd_client::ResponseHeader::revision);
    Ok(Place { created, oldest: oldest.ok_or_else(nonsense)?, revision })
}

/// What the first range of a transaction found.
fn first_pair(answer: &TxnResponse) -> Option<KeyValue> {
    match answer.op_responses().into_iter().next()? {
        TxnOpResponse::Get(mut range) => range.take_kvs().into_iter().next(),
        TxnOpResponse::Put(_) | TxnOpResponse::Delete(_) | TxnOpResponse::Txn(_) => None,
    }
}

fn lost(why: &str) -> Renewal {
    Renewal::Lost { why: why.to_owned() }
}

fn nonsense() -> StoreError {
    StoreError::Unavailable("the answer lacks what every answer has".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ttl_is_asked_for_in_whole_seconds_and_never_shortened() {
        assert_eq!(whole_seconds(Duration::from_secs(10)), 10);
        assert_eq!(whole_seconds(Duration::from_millis(2500)), 3);
        assert_eq!(whole_seconds(Duration::from_nanos(1)), 1);
    }
}
