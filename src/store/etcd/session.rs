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
//! - The decision is a transaction that compares our key's create revision and lease and that no key of the boundary is
//!   older. Both its branches hold a range of our key that is not marked as serializable. If neither branch held one, etcd would
//!   answer the transaction from local state, and a member that is cut off or stalled would say yes forever. One such range in
//!   either branch is enough for etcd 3.5; two do not depend on that.
//! - A keep-alive proves nothing by itself: a leader of the cluster that was replaced and does not know it still answers.
//!   It counts if the transaction, sent after its answer, was served in the same raft term.
//! - The first renewal is a keep-alive that is sent with the request for our place. It says nothing about that place, and need not: the
//!   lease is what it prolongs, and the transaction that follows both answers finds our key on that lease, under the rule above.
//! - The term is fixed when our key is seen to be the oldest, and kept in the same transaction that verifies it
//!   ([`terms`](super::terms)). A key of ours that shows a term has been verified: that answer may have been lost, the win is not.
//! - A key that was seen to be gone is never assumed to exist: a waiter without a key gets a new one, at the back of the
//!   queue, before it can lead (etcd's own election service does not look: etcd #19597).

mod lease;
mod succession;
mod verification;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use etcd_client::{
    Client, Compare, CompareOp, Error, GetOptions, GetResponse, KeyValue, PutOptions, SortOrder, SortTarget, Txn,
    TxnOp, TxnOpResponse, TxnResponse,
};
use tonic::Code;
use tracing::{debug, info};

use super::endpoints::classify;
use super::keys::{self, StoredRecord, Value};
use super::layout::{Keys, ValueForm};
use super::others::Others;
use super::terms::{StoredTerm, Terms};
use super::watch::{KeyEvent, KeyWatch};
use crate::store::{CampaignResult, Candidacy, Leader, Notifier, Observation, RenewResult, StoreError};
use elect_core::Term;
use elect_keeper::clock;

use lease::{KeepAliveReply, KeepAliveStream, keep_alive};
pub use succession::QueueView;
use verification::Failed;

/// How soon a candidate whose lease vanished while it waited comes back with a new one.
const REQUEUE_DELAY: Duration = Duration::from_millis(100);
/// How soon a waiter asks again when the oldest candidate does not show a term yet: doubled each time.
const UNVERIFIED_POLL_INTERVAL: Duration = Duration::from_millis(50);
/// How often it does so before it reports that there is no leader.
const UNVERIFIED_POLLS_MAX: u32 = 4;
/// How often a renewal is tried within an attempt if the cluster changes its leader in the middle, or if the win turns
/// out to have been verified before.
const RAFT_TERM_RETRIES: usize = 2;

/// Where a candidate stands, and on which lease.
#[expect(clippy::struct_excessive_bools, reason = "each is true or false by itself")]
pub struct Session {
    lease: i64,
    election: String,
    key: String,
    value: Value,
    form: ValueForm,
    hints: Notifier,
    /// Whether the server has the lease, as far as we know.
    granted: bool,
    /// Whether our key was ever seen.
    has_stood: bool,
    /// Our key's create revision, while we know the key to be there.
    created: Option<i64>,
    /// The same if our key was the oldest when it was read last.
    oldest: Option<i64>,
    /// Whether our key says that we lead, and who we are.
    value_written: bool,
    win: Option<WonTerm>,
    /// The last leader that was known, and how often since then the oldest candidate was one that does not lead yet.
    leader: Option<Leader>,
    unverified: u32,
    pulse: Option<KeepAliveStream>,
    /// Whether a keep-alive for this lease was ever sent.
    kept_alive: bool,
    own: Option<KeyWatch>,
    predecessor: Option<KeyWatch>,
    /// The successor's key and its create revision, for the release.
    hand_over_to: Option<(Vec<u8>, i64)>,
    /// Whether the server has been asked for the lease: if not, there is nothing to take back.
    touched: bool,
    /// The same of our key: if not, no other candidate can have seen anything of ours.
    key_requested: bool,
    /// Whether the lease is granted only after a look that has found nothing in the way.
    grants_late: bool,
    /// The answer to the keep-alive that was sent with the request which found our key to be the oldest, until it is used.
    first_renewal: Option<KeepAliveReply>,
    /// The longest time of an attempt.
    attempt_limit: Duration,
    /// The watch on our key outlives the change from waiting to leading.
    rule: Rc<Cell<LeadState>>,
}

const LOOKS_NO_LONGER: &str = "the user may no longer read the keys of candidates of the same name in other layouts, and the record of \
                               this candidate says that it looks for them: it begins anew";

/// Whether this session leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LeadState {
    NotYet,
    /// It won, and another term was stored before that was verified: it asks again.
    Outdated,
    /// For as long as our key is there.
    Leads(Term),
    /// It has, and a term that is over must not come back: only another session may lead.
    Over,
}

/// Our key was the oldest.
#[derive(Debug, Clone, Copy)]
struct WonTerm {
    term: Term,
    /// In milliseconds since 1970.
    since: u64,
    /// The term key, as it was read with the range that showed our key as the oldest.
    stored: StoredTerm,
    /// Whether our key shows the term: verified, and the term key is of no account any more.
    verified: bool,
}

/// The state of our place in the queue.
struct QueuePosition {
    created: i64,
    oldest: KeyValue,
    /// The term key, read in the same transaction.
    last_term: Option<KeyValue>,
    /// Of the answer: watches begin behind it.
    revision: i64,
}

impl Session {
    /// Nothing is asked of the server yet. The lease's id is ours to choose, so that a keeper can know it before it
    /// exists.
    pub fn new(lease: i64, keys: &Keys, candidacy: &Candidacy, attempt_limit: Duration, hints: Notifier) -> Session {
        let (boundary, keys) = (&candidacy.boundary, keys.of(&candidacy.boundary));
        Session {
            lease,
            election: keys.election(boundary),
            key: keys.candidate(boundary, lease),
            value: Value::of(candidacy, keys.terms),
            form: keys.value,
            hints,
            granted: false,
            has_stood: false,
            created: None,
            oldest: None,
            value_written: false,
            win: None,
            leader: None,
            unverified: 0,
            pulse: None,
            kept_alive: false,
            own: None,
            predecessor: None,
            hand_over_to: None,
            touched: false,
            key_requested: false,
            grants_late: false,
            first_renewal: None,
            attempt_limit,
            rule: Rc::new(Cell::new(LeadState::NotYet)),
        }
    }

    pub fn lease(&self) -> i64 {
        self.lease
    }

    /// Whether it has led and does not any more.
    pub fn is_over(&self) -> bool {
        self.rule.get() == LeadState::Over
    }

    /// Whether the server may know of it.
    pub fn lease_requested(&self) -> bool {
        self.touched
    }

    /// Whether others may know of it.
    pub fn key_requested(&self) -> bool {
        self.key_requested
    }

    /// After an obstacle, beside which another lease would be as vain.
    pub fn grant_late(&mut self) {
        self.grants_late = true;
    }

    /// Takes our place, or looks whether it is the first one. `None`: the lease is gone, and with it this session; who
    /// leads is still known ([`Session::requeue`]).
    pub async fn stand(
        &mut self,
        client: &mut Client,
        ttl: Duration,
        terms: &mut Terms,
        others: &mut Others,
    ) -> Result<Option<CampaignResult>, StoreError> {
        self.rule.set(LeadState::NotYet);
        self.value_written &= self.value.successor.take().is_none();
        self.hand_over_to = None;
        // The answer to an earlier question may have been lost: the same place, the same term.
        let before = self.win.take();
        if self.created.is_none() {
            self.look_and_grant(client, ttl, terms, others).await?;
        }
        // For the look that an earlier attempt had no time for, our key is old enough.
        let looked_at = self.created.and(self.oldest);
        let (mut keeping, mut looking, lease) = (client.clone(), client.clone(), self.lease);
        // The stream of keep-alives goes with the connection if what follows fails.
        let mut pulse = self.pulse.take();
        let is_first = self.sends_first_keep_alive();
        let look = async { if looked_at.is_some() { others.check(&mut looking, looked_at).await } else { Ok(()) } };
        // At once: over a long way each request takes a good part of an attempt.
        let (place, kept, looked) =
            tokio::join!(self.place(client, terms), keep_alive(&mut keeping, &mut pulse, lease, is_first), look);
        looked?;
        let Some(place) = place? else { return Ok(None) };
        let kept = kept?;
        self.watch_own(client, place.revision);
        let is_oldest = place.oldest.create_revision() == place.created;
        self.oldest = is_oldest.then_some(place.created);
        if is_oldest {
            if looked_at != Some(place.created) {
                others.check(client, Some(place.created)).await?;
            }
            if self.value.looks() && others.looks().is_none() {
                // Candidates that have read it count on it.
                return Err(StoreError::Obstacle(LOOKS_NO_LONGER.to_owned()));
            }
            let win = self.win(&place, before, terms)?;
            (self.win, self.value_written) = (Some(win), place.oldest.value() == self.leading_value(win));
            self.predecessor = None;
            self.rule.set(LeadState::Leads(win.term));
            (self.pulse, self.first_renewal) = (pulse, kept);
            return Ok(Some(CampaignResult::Won { term: win.term }));
        }
        others.look_aside(client);
        self.sees(&place.oldest, terms)?;
        self.watch_predecessor(client, place.created).await?;
        self.pulse = pulse;
        Ok(Some(self.waits()))
    }

    async fn keeps_alive(
        &mut self,
        client: &mut Client,
        pulse: &mut Option<KeepAliveStream>,
    ) -> Result<Option<KeepAliveReply>, StoreError> {
        let is_first = self.sends_first_keep_alive();
        keep_alive(client, pulse, self.lease, is_first).await
    }

    /// Whether none was sent before.
    fn sends_first_keep_alive(&mut self) -> bool {
        !std::mem::replace(&mut self.kept_alive, true)
    }

    /// The first look of a session: at the oldest candidate and the term key. The first one of all also finds out
    /// whether we may write the term key.
    async fn look_first(
        &mut self,
        client: &mut Client,
        terms: &mut Terms,
    ) -> Result<[Option<KeyValue>; 2], StoreError> {
        let reads = [self.get_oldest(), terms.get()];
        let txn = match terms.put(0).filter(|_| !terms.may_write) {
            Some(put) => Txn::new().when([terms.never()]).and_then([put]).or_else(reads),
            None => Txn::new().and_then(reads),
        };
        let answer = match client.txn(txn).await {
            Ok(answer) => answer,
            Err(Error::GRpcStatus(status)) if status.code() == Code::PermissionDenied => {
                // Of the two, is it the term key that we have no right to?
                client.get(self.election.as_str(), Some(the_oldest())).await.map_err(classify)?;
                return Err(terms.refused());
            }
            Err(error) => return Err(classify(error)),
        };
        terms.may_write = true;
        let revision = answer.header().map_or(0, etcd_client::ResponseHeader::revision);
        let [oldest, last_term] = found(&answer);
        if let Some(oldest) = &oldest {
            self.sees(oldest, terms)?;
        } else {
            (self.leader, self.unverified) = (None, 0);
        }
        terms.read(last_term.as_ref())?;
        terms.check_next(revision)?;
        Ok([oldest, last_term])
    }

    /// Our key is the oldest: the term under which it leads.
    fn win(&self, place: &QueuePosition, before: Option<WonTerm>, terms: &mut Terms) -> Result<WonTerm, StoreError> {
        let stored = terms.read(place.last_term.as_ref())?;
        if let Some((term, since)) = self.value.led(&self.election, &place.oldest) {
            return Ok(WonTerm { term, since, stored, verified: true });
        }
        if let Some(before) = before.filter(|before| before.stored == stored && !before.verified) {
            return Ok(before);
        }
        let term = terms.following(stored, place.created)?;
        Ok(WonTerm { term, since: clock::wall_millis(), stored, verified: false })
    }

    /// Another candidate is the oldest.
    fn sees(&mut self, oldest: &KeyValue, terms: &mut Terms) -> Result<(), StoreError> {
        let stored = StoredRecord::read(&self.election, oldest)?;
        if let Some(term) = keys::term(&self.election, oldest, terms.scheme) {
            terms.saw(term);
        }
        stored.check(terms.scheme, oldest)?;
        if let Some(leader) = stored.leader(oldest, terms.scheme) {
            (self.leader, self.unverified) = (Some(leader), 0);
            return Ok(());
        }
        // Verified within a moment, as a rule: until then, those who wait keep to the leader they know.
        self.unverified = self.unverified.saturating_add(1);
        if self.unverified > UNVERIFIED_POLLS_MAX {
            self.leader = None;
        }
        Ok(())
    }

    fn waits(&self) -> CampaignResult {
        let observation = Observation { leader: self.leader.clone(), ..Observation::default() };
        let again = self.unverified.checked_sub(1).map(|times| UNVERIFIED_POLL_INTERVAL * 2u32.pow(times.min(16)));
        CampaignResult::Waiting { observation, again, decided: true }
    }

    /// The answer of a candidate whose lease is gone: it comes back with a new one, at the back of the queue. It knows
    /// who leads as well as before.
    pub fn requeue(self) -> CampaignResult {
        if self.has_stood {
            info!("the lease of this candidate was gone while it waited: it queues again");
        } else {
            info!("the lease of this candidate was gone before it had a place in the queue: it asks for another one");
        }
        let observation = Observation { leader: self.leader, ..Observation::default() };
        CampaignResult::Waiting { observation, again: Some(REQUEUE_DELAY), decided: true }
    }

    /// Our key, made if it is not there; `None` if there is no lease to hang it on.
    async fn place(&mut self, client: &mut Client, terms: &mut Terms) -> Result<Option<QueuePosition>, StoreError> {
        let place = self.find_place(client, terms).await?;
        // At once: what is asked for beside it may fail.
        self.created = place.as_ref().map(|place| place.created).or(self.created);
        self.has_stood |= self.created.is_some();
        Ok(place)
    }

    async fn find_place(
        &mut self,
        client: &mut Client,
        terms: &mut Terms,
    ) -> Result<Option<QueuePosition>, StoreError> {
        let reads = [self.get_oldest(), terms.get()];
        if let Some(created) = self.created {
            let same = Compare::create_revision(self.key.as_str(), CompareOp::Equal, created);
            let answer = client.txn(Txn::new().when([same]).and_then(reads.clone()).or_else(reads.clone())).await;
            let answer = answer.map_err(classify)?;
            if answer.succeeded() {
                return place(created, &answer).map(Some);
            }
            // Later events about that key do not concern the next one.
            (self.created, self.value_written) = (None, false);
            self.own = None;
            match found(&answer) {
                [Some(oldest), _] => self.sees(&oldest, terms)?,
                [None, _] => self.leader = None,
            }
        }
        let absent = Compare::create_revision(self.key.as_str(), CompareOp::Equal, 0);
        let hung = PutOptions::new().with_lease(self.lease);
        let [oldest, last_term] = reads;
        let put = TxnOp::put(self.key.as_str(), self.value.stored(self.form), Some(hung));
        let txn = Txn::new().when([absent]).and_then([put, oldest.clone(), last_term.clone()]).or_else([
            TxnOp::get(self.key.as_str(), None),
            oldest,
            last_term,
        ]);
        self.key_requested = true;
        let answer = match client.txn(txn).await {
            Ok(answer) => answer,
            Err(Error::GRpcStatus(status)) if status.code() == Code::NotFound => return Ok(None),
            Err(error) => return Err(classify(error)),
        };
        let revision = answer.header().map_or(0, etcd_client::ResponseHeader::revision);
        if answer.succeeded() {
            return place(revision, &answer).map(Some);
        }
        // An earlier request was heard although its answer was not.
        let [own, oldest, last_term] = found(&answer);
        match own {
            Some(own) if own.lease() == self.lease => {
                let oldest = oldest.ok_or_else(incomplete_answer)?;
                Ok(Some(QueuePosition { created: own.create_revision(), oldest, last_term, revision }))
            }
            // Another program wrote to it: it counts for no candidate any more.
            Some(_) => Ok(None),
            None => Err(incomplete_answer()),
        }
    }

    fn get_oldest(&self) -> TxnOp {
        TxnOp::get(self.election.as_str(), Some(the_oldest()))
    }

    /// Renews the lease, and verifies that the boundary is ours: see the rules above.
    pub async fn renew(
        &mut self,
        client: &mut Client,
        candidacy: &Candidacy,
        terms: &mut Terms,
    ) -> Result<RenewResult, StoreError> {
        let Some(created) = self.created else { return Ok(lost("nothing was won")) };
        let Some(mut win) = self.win else {
            // That the win was outdated has been said, and may not have been heard.
            return Ok(if self.rule.get() == LeadState::Outdated {
                RenewResult::Outdated
            } else {
                lost("nothing was won")
            });
        };
        let value = Value::of(candidacy, terms.scheme).continuing(&self.value);
        if value != self.value {
            (self.value, self.value_written) = (value, false);
        }
        for _ in 0..RAFT_TERM_RETRIES {
            // Nothing of the renewal is credited if what follows fails: the stream goes with the connection.
            let mut pulse = self.pulse.take();
            // Older than A: no answer to this request.
            let first = self.first_renewal.take().filter(|first| clock::now().since(first.sent) < self.attempt_limit);
            let beat = match first {
                Some(first) => Some(first),
                None => self.keeps_alive(client, &mut pulse).await?,
            };
            // Sent beside the check: it costs no time.
            let mut unproven = pulse.take_if(|stream| !stream.is_prompt());
            if let Some(stream) = &mut unproven {
                stream.ask().await?;
            }
            let answer = client.txn(self.check(created, win, terms)).await.map_err(classify)?;
            if !answer.succeeded() {
                match self.fails(created, &answer) {
                    // The answer was lost, the win was not: the term key has been written.
                    Failed::Verified(term) if term == win.term && !win.verified => {
                        win.verified = true;
                        self.win = Some(win);
                        self.pulse = pulse;
                        continue;
                    }
                    Failed::Verified(_) | Failed::TermKey => {
                        info!(term = win.term, "another term was stored before this win was verified: asking again");
                        self.rule.set(LeadState::Outdated);
                        (self.win, self.pulse) = (None, pulse);
                        return Ok(RenewResult::Outdated);
                    }
                    Failed::Lost(why) => {
                        self.rule.set(LeadState::Over);
                        return Ok(lost(why));
                    }
                }
            }
            let header = answer.header().ok_or_else(incomplete_answer)?;
            // A request of an earlier attempt may be executed late, and bring an older value back.
            let [own] = found(&answer);
            self.value_written = own.is_some_and(|own| own.value() == self.leading_value(win));
            win.verified = true;
            self.win = Some(win);
            terms.saw(win.term);
            self.watch_own(client, header.revision());
            let Some(beat) = beat else {
                return Err(StoreError::Unavailable("the lease is not found although our key hangs on it".to_owned()));
            };
            if let Some(stream) = &mut unproven {
                stream.prove().await?;
            }
            self.pulse = pulse.or(unproven);
            if beat.raft_term == header.raft_term() {
                return Ok(RenewResult::Credited { sent: beat.sent, ttl: Some(beat.ttl) });
            }
            let (answered, checked) = (beat.raft_term, header.raft_term());
            debug!("the keep-alive of raft term {answered} counts for nothing: the check was served in {checked}");
        }
        Err(StoreError::Unavailable("the cluster keeps changing its leader".to_owned()))
    }

    fn watch_own(&mut self, client: &Client, revision: i64) {
        if self.own.as_ref().is_some_and(KeyWatch::is_alive) {
            return;
        }
        let (hints, rule) = (self.hints.clone(), Rc::clone(&self.rule));
        let tell = move |seen| match (seen, rule.get()) {
            (KeyEvent::Deleted, LeadState::Leads(term)) => {
                rule.set(LeadState::Over);
                hints.lost(term);
            }
            (KeyEvent::Deleted, LeadState::NotYet | LeadState::Outdated | LeadState::Over) | (KeyEvent::Broken, _) => {
                hints.changed();
            }
        };
        self.own = Some(KeyWatch::after(revision, client.clone(), self.key.clone(), tell));
    }

    /// Only the candidate right before us is watched, so that a leader's end wakes one waiter.
    async fn watch_predecessor(&mut self, client: &mut Client, created: i64) -> Result<(), StoreError> {
        if self.predecessor.as_ref().is_some_and(KeyWatch::is_alive) {
            return Ok(());
        }
        let options = GetOptions::new()
            .with_prefix()
            .with_max_create_revision(created - 1)
            .with_sort(SortTarget::Create, SortOrder::Descend)
            .with_limit(1)
            .with_keys_only();
        let answer: GetResponse = client.get(self.election.as_str(), Some(options)).await.map_err(classify)?;
        let Some(predecessor) = answer.kvs().first() else {
            // Gone meanwhile, and no other candidate is before us.
            self.hints.changed();
            return Ok(());
        };
        let key = String::from_utf8_lossy(predecessor.key()).into_owned();
        let revision = answer.header().map_or(0, etcd_client::ResponseHeader::revision);
        let hints = self.hints.clone();
        self.predecessor = Some(KeyWatch::after(revision, client.clone(), key, move |_| hints.changed()));
        Ok(())
    }
}

/// Takes a lease back, with all that hangs on it. That there is no such lease (any more) is what was wanted.
pub async fn revoke(client: &mut Client, lease: i64) -> Result<(), StoreError> {
    match client.lease_revoke(lease).await {
        Ok(_) => Ok(()),
        Err(Error::GRpcStatus(status)) if status.code() == Code::NotFound => Ok(()),
        Err(error) => Err(classify(error)),
    }
}

/// Of all keys of an election, the one that leads.
fn the_oldest() -> GetOptions {
    GetOptions::new().with_prefix().with_limit(1).with_sort(SortTarget::Create, SortOrder::Ascend)
}

/// From an answer that ends with the ranges of the oldest key and of the term key.
fn place(created: i64, answer: &TxnResponse) -> Result<QueuePosition, StoreError> {
    let revision = answer.header().map_or(0, etcd_client::ResponseHeader::revision);
    let [oldest, last_term] = found(answer);
    Ok(QueuePosition { created, oldest: oldest.ok_or_else(incomplete_answer)?, last_term, revision })
}

/// The first pair of each range of a transaction, in their order.
fn found<const RANGES: usize>(answer: &TxnResponse) -> [Option<KeyValue>; RANGES] {
    let mut ranges = answer.op_responses().into_iter().filter_map(|answer| match answer {
        TxnOpResponse::Get(mut range) => Some(range.take_kvs().into_iter().next()),
        TxnOpResponse::Put(_) | TxnOpResponse::Delete(_) | TxnOpResponse::Txn(_) => None,
    });
    std::array::from_fn(|_| ranges.next().flatten())
}

fn lost(why: &str) -> RenewResult {
    RenewResult::Lost { why: why.to_owned() }
}

fn incomplete_answer() -> StoreError {
    StoreError::Unavailable("the answer lacks what every answer has".to_owned())
}

#[cfg(test)]
impl Session {
    /// As if the raft term had risen since the answer to the keep-alive that was sent with the request for the place.
    pub fn raft_term_rises(&mut self) {
        self.first_renewal.as_mut().expect("it was sent").raft_term -= 1;
    }
}
