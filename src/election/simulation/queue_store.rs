//! A store with leases of its own and a queue, like etcd: the lowest create revision leads (5.2).

use std::time::Duration;

use super::super::event::{Answer, Campaigned, Renewed, Term};
use super::super::time::Time;
use super::clock::{lasts_at, ms};
use super::store::{Ask, Effect, Next, Reply, Request};

#[derive(Debug)]
struct Key {
    lease: u64,
    holder: usize,
    revision: Term,
    ttl: Duration,
    expires_at: Duration,
    /// The server takes its time to remove what has expired.
    vanishes_at: Duration,
}

#[derive(Debug)]
pub(super) struct QueueServer {
    keys: Vec<Key>,
    revision: Term,
    /// How much faster than true time its clock is, in millionths.
    rate: i64,
    /// It grants no shorter lease than this.
    shortest: Duration,
}

impl QueueServer {
    pub(super) fn new(rate: i64, shortest: Duration) -> QueueServer {
        QueueServer { keys: Vec::new(), revision: 1, rate, shortest }
    }

    pub(super) fn apply(&mut self, now: Duration, request: Request, effects: &mut Vec<Effect>) -> Reply {
        match request {
            Request::Enter { lease, holder, ttl, fresh } => {
                if !self.keys.iter().any(|key| key.lease == lease) {
                    if !fresh {
                        return Reply::Gone;
                    }
                    self.revision += 1;
                    let (ttl, revision) = (ttl.max(self.shortest), self.revision);
                    self.keys.push(Key { lease, holder, revision, ttl, expires_at: now, vanishes_at: now });
                    self.extend(now, self.keys.len() - 1, effects);
                } else if self.keep_alive(now, lease, effects).is_none() {
                    return Reply::Gone;
                }
                let mine = self.keys.iter().find(|key| key.lease == lease).expect("entered");
                let first = self.keys.iter().all(|key| key.revision >= mine.revision);
                Reply::Entered { revision: mine.revision, first }
            }
            Request::KeepAlive { lease } => match self.keep_alive(now, lease, effects) {
                Some(ttl) => Reply::Kept { ttl },
                None => Reply::Gone,
            },
            Request::Check { lease, revision } => {
                let first = self.keys.iter().min_by_key(|key| key.revision);
                let leads = first.is_some_and(|key| key.lease == lease && key.revision == revision);
                Reply::Checked { leads }
            }
            Request::Revoke { lease } => {
                if let Some(index) = self.keys.iter().position(|key| key.lease == lease) {
                    effects.push(Effect::Freed(self.keys[index].revision));
                    self.remove(index, effects);
                }
                Reply::Done
            }
            Request::Read
            | Request::Vacate { .. }
            | Request::Take { .. }
            | Request::RenewRecord { .. }
            | Request::Free { .. }
            | Request::Lock { .. }
            | Request::LookAtLock { .. }
            | Request::Unlock { .. } => unreachable!("not asked of this store"),
        }
    }

    fn keep_alive(&mut self, now: Duration, lease: u64, effects: &mut Vec<Effect>) -> Option<Duration> {
        let index = self.keys.iter().position(|key| key.lease == lease && now < key.expires_at)?;
        self.extend(now, index, effects);
        Some(self.keys[index].ttl)
    }

    fn extend(&mut self, now: Duration, index: usize, effects: &mut Vec<Effect>) {
        let key = &mut self.keys[index];
        key.expires_at = now + lasts_at(self.rate, key.ttl);
        effects.push(Effect::Guarded(key.revision, key.expires_at));
        effects.push(Effect::LookAgain(key.expires_at));
    }

    fn remove(&mut self, index: usize, effects: &mut Vec<Effect>) {
        let key = self.keys.remove(index);
        effects.push(Effect::Ousted(key.holder, key.revision));
        let next = self.keys.iter().filter(|other| other.revision > key.revision).min_by_key(|other| other.revision);
        if let Some(next) = next {
            effects.push(Effect::Hint(next.holder));
        }
    }

    /// Looks for leases that have run out: removed up to half a second later.
    pub(super) fn look(&mut self, now: Duration, slack: Duration, effects: &mut Vec<Effect>) {
        for index in (0..self.keys.len()).rev() {
            let key = &mut self.keys[index];
            if now < key.expires_at {
                continue;
            }
            if key.vanishes_at < key.expires_at {
                // From now on: the server may have been down when it ran out.
                key.vanishes_at = now + slack;
                effects.push(Effect::LookAgain(key.vanishes_at));
            } else if now >= key.vanishes_at {
                effects.push(Effect::Expired);
                self.remove(index, effects);
            }
        }
    }

    /// A new raft leader gives every lease its whole ttl again.
    pub(super) fn restart(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        for index in 0..self.keys.len() {
            if now < self.keys[index].expires_at {
                self.extend(now, index, effects);
            }
        }
    }
}

/// The candidate's side.
#[derive(Debug)]
pub(super) struct QueueClient {
    holder: usize,
    ttl: Duration,
    lease: u64,
    /// Whether the lease may be asked for, rather than only kept.
    fresh: bool,
    /// Released or lost: of no further use.
    let_go: bool,
    revision: Term,
    granted: Duration,
}

impl QueueClient {
    pub(super) fn new(holder: usize, ttl: Duration) -> QueueClient {
        let lease = u64::try_from(holder).expect("few hosts") * 1_000_000;
        QueueClient { holder, ttl, lease, fresh: true, let_go: false, revision: 0, granted: ttl }
    }

    pub(super) fn begin(&mut self, ask: Ask) -> Request {
        // To stand again takes a new lease, at the back of the queue.
        if ask == Ask::Campaign && self.let_go {
            self.lease += 1;
            (self.fresh, self.let_go) = (true, false);
        }
        self.let_go |= ask == Ask::Release;
        let lease = self.lease;
        match ask {
            Ask::Campaign => Request::Enter { lease, holder: self.holder, ttl: self.ttl, fresh: self.fresh },
            Ask::Renew => Request::KeepAlive { lease },
            Ask::Release => Request::Revoke { lease },
        }
    }

    pub(super) fn reply(&mut self, ask: Ask, sent: Time, reply: Reply) -> Next {
        match (reply, ask) {
            (Reply::Entered { revision, first }, _) => {
                (self.fresh, self.revision) = (false, revision);
                let answer =
                    if first { Campaigned::Won(revision) } else { Campaigned::Waiting { again: None, decided: true } };
                Next::Answer(Answer::Campaign(answer))
            }
            (Reply::Gone, Ask::Campaign) => {
                self.let_go = true;
                Next::Answer(Answer::Campaign(Campaigned::Waiting { again: Some(ms(1)), decided: true }))
            }
            (Reply::Gone, Ask::Renew | Ask::Release) | (Reply::Checked { leads: false }, _) => {
                self.let_go = true;
                Next::Answer(Answer::Renew(Renewed::Lost))
            }
            (Reply::Kept { ttl }, _) => {
                self.granted = ttl;
                Next::Call(Request::Check { lease: self.lease, revision: self.revision })
            }
            (Reply::Checked { leads: true }, _) => {
                Next::Answer(Answer::Renew(Renewed::Credited { sent, ttl: Some(self.granted) }))
            }
            (Reply::Done, _) => Next::Answer(Answer::Release(true)),
            (
                Reply::Observed(_)
                | Reply::Taken(..)
                | Reply::Conflict
                | Reply::Renewed { .. }
                | Reply::NotYours
                | Reply::Locked(_)
                | Reply::LockIs(_)
                | Reply::Unreachable,
                _,
            ) => unreachable!("not answered by this store"),
        }
    }

    /// What the keeper releases when the campaigner is dead.
    pub(super) fn bequest(&self) -> Request {
        Request::Revoke { lease: self.lease }
    }
}
