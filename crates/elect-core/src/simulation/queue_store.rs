//! A store with leases of its own and a queue, like etcd: the lowest create revision leads, and the last term is kept
//! apart from the candidates (5.2).

use std::hash::Hash;
use std::time::Duration;

use super::super::time::Time;
use super::clock::{lasts_at, ms};
use super::mutations::InjectedMutation;
use super::states::StateHasher;
use super::store::{Ask, Effect, Next, Reply, Request, Stored, Win};
use crate::{Answer, Campaigned, Renewed, Term};

/// Every so many wins the last term is raised by other hands, between the answer and the verification.
const WINS_PER_EDIT: u64 = 7;
/// By how much.
const EDIT: Term = 1_000;

#[derive(Debug)]
struct Key {
    lease: u64,
    holder: usize,
    revision: Term,
    /// Once the win is verified.
    term: Option<Term>,
    ttl: Duration,
    expires_at: Duration,
    /// The server takes its time to remove what has expired.
    vanishes_at: Duration,
}

#[derive(Debug)]
pub(super) struct QueueServer {
    keys: Vec<Key>,
    revision: Term,
    stored: Stored,
    wins: u64,
    injected_mutation: Option<InjectedMutation>,
    /// How much faster than true time its clock is, in millionths.
    rate: i64,
    /// It grants no shorter lease than this.
    shortest: Duration,
}

impl QueueServer {
    pub(super) fn new(rate: i64, shortest: Duration, injected_mutation: Option<InjectedMutation>) -> QueueServer {
        QueueServer {
            keys: Vec::new(),
            revision: 1,
            stored: Stored::default(),
            wins: 0,
            injected_mutation,
            rate,
            shortest,
        }
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
                    self.keys.push(Key { lease, holder, revision, term: None, ttl, expires_at: now, vanishes_at: now });
                    self.extend(now, self.keys.len() - 1, effects);
                } else if self.keep_alive(now, lease, effects).is_none() {
                    return Reply::Gone;
                }
                let mine = self.keys.iter().find(|key| key.lease == lease).expect("entered");
                let first = self.keys.iter().all(|key| key.revision >= mine.revision);
                let (revision, led, stored) = (mine.revision, mine.term, self.stored);
                if first && led.is_none() {
                    self.is_edited();
                }
                Reply::Entered { revision, first, stored, led }
            }
            Request::KeepAlive { lease } => match self.keep_alive(now, lease, effects) {
                Some(ttl) => Reply::Kept { ttl },
                None => Reply::Gone,
            },
            Request::Check { lease, revision, win } => self.check(lease, revision, win, effects),
            Request::Revoke { lease } => {
                if let Some(index) = self.keys.iter().position(|key| key.lease == lease) {
                    effects.extend(self.keys[index].term.map(Effect::Freed));
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

    /// By other hands, now and then.
    fn is_edited(&mut self) {
        self.wins += 1;
        if self.wins.is_multiple_of(WINS_PER_EDIT) {
            self.revision += 1;
            self.stored = Stored { term: self.stored.term + EDIT, modified: self.revision };
        }
    }

    /// The transaction that decides.
    fn check(&mut self, lease: u64, revision: Term, win: Option<Win>, effects: &mut Vec<Effect>) -> Reply {
        let Some(first) = (0..self.keys.len()).min_by_key(|&index| self.keys[index].revision) else {
            return Reply::Checked { leads: false };
        };
        let key = &mut self.keys[first];
        if key.lease != lease || key.revision != revision {
            return Reply::Checked { leads: false };
        }
        // A win that shows has been verified: the last term is of no account any more.
        let Some(win) = win.filter(|_| key.term.is_none()) else { return Reply::Checked { leads: true } };
        if win.stored.modified != self.stored.modified
            && self.injected_mutation != Some(InjectedMutation::TermNotCompared)
        {
            return Reply::OtherTerm;
        }
        if win.term <= self.stored.term {
            effects.push(Effect::Wrong("S1: the last term that is kept does not rise"));
        }
        key.term = Some(win.term);
        effects.push(Effect::Guarded(win.term, key.expires_at));
        if self.injected_mutation != Some(InjectedMutation::TermNotKept) {
            self.revision += 1;
            self.stored = Stored { term: win.term, modified: self.revision };
        }
        Reply::Checked { leads: true }
    }

    fn keep_alive(&mut self, now: Duration, lease: u64, effects: &mut Vec<Effect>) -> Option<Duration> {
        let index = self.keys.iter().position(|key| key.lease == lease && now < key.expires_at)?;
        self.extend(now, index, effects);
        Some(self.keys[index].ttl)
    }

    fn extend(&mut self, now: Duration, index: usize, effects: &mut Vec<Effect>) {
        let key = &mut self.keys[index];
        key.expires_at = now + lasts_at(self.rate, key.ttl);
        effects.extend(key.term.map(|term| Effect::Guarded(term, key.expires_at)));
        effects.push(Effect::LookAgain(key.expires_at));
    }

    /// The queue, in its order.
    pub(super) fn hash_state(&self, state: &mut StateHasher) {
        for key in &self.keys {
            (key.holder, key.term.is_some(), key.vanishes_at >= key.expires_at).hash(state);
        }
    }

    fn remove(&mut self, index: usize, effects: &mut Vec<Effect>) {
        let key = self.keys.remove(index);
        effects.push(key.term.map_or(Effect::Hint(key.holder), |term| Effect::Ousted(key.holder, term)));
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

/// By a host's own clock, which stands for its wall clock: clocks of hosts differ by hours.
fn millis(at: Time) -> Term {
    u64::try_from(at.since(Time::BOOT).as_millis()).expect("histories are short")
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
    /// The win that the next check has to verify.
    win: Option<Win>,
    /// The last check found that win outdated.
    outdated: bool,
    /// The largest term that this candidate has won.
    highest_seen: Term,
    /// As it was read first on this lease.
    early: Option<Stored>,
    granted: Duration,
    injected_mutation: Option<InjectedMutation>,
}

impl QueueClient {
    pub(super) fn new(holder: usize, ttl: Duration, injected_mutation: Option<InjectedMutation>) -> QueueClient {
        QueueClient {
            holder,
            ttl,
            lease: u64::try_from(holder).expect("few hosts") * 1_000_000,
            fresh: true,
            let_go: false,
            revision: 0,
            win: None,
            outdated: false,
            highest_seen: 0,
            early: None,
            granted: ttl,
            injected_mutation,
        }
    }

    pub(super) fn begin(&mut self, ask: Ask) -> Request {
        // To stand again takes a new lease, at the back of the queue.
        if ask == Ask::Campaign && self.let_go {
            self.lease += 1;
            (self.fresh, self.let_go) = (true, false);
            (self.win, self.outdated, self.early) = (None, false, None);
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
            (Reply::Entered { revision, first, stored, led }, _) => {
                (self.fresh, self.revision) = (false, revision);
                let early = *self.early.get_or_insert(stored);
                let stored =
                    if self.injected_mutation == Some(InjectedMutation::TermReadEarly) { early } else { stored };
                let answer = if first {
                    Campaigned::Won(self.wins(sent, stored, led))
                } else {
                    Campaigned::Waiting { again: None, decided: true }
                };
                Next::Answer(Answer::Campaign(answer))
            }
            // The same place; the kept term is read again.
            (Reply::OtherTerm, _) => {
                (self.win, self.outdated) = (None, true);
                Next::Answer(Answer::Renew(Renewed::Outdated))
            }
            (Reply::Gone, Ask::Campaign) => {
                self.let_go = true;
                Next::Answer(Answer::Campaign(Campaigned::Waiting { again: Some(ms(1)), decided: true }))
            }
            (Reply::Gone, Ask::Renew | Ask::Release) | (Reply::Checked { leads: false }, _) => {
                self.let_go = true;
                Next::Answer(Answer::Renew(Renewed::Lost))
            }
            // That has been said, and may not have been heard.
            (Reply::Kept { .. }, _) if self.outdated => Next::Answer(Answer::Renew(Renewed::Outdated)),
            (Reply::Kept { ttl }, _) => {
                self.granted = ttl;
                Next::Call(Request::Check { lease: self.lease, revision: self.revision, win: self.win })
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
                | Reply::Doubtful
                | Reply::Unreachable,
                _,
            ) => unreachable!("not answered by this store"),
        }
    }

    /// The term of a place that has become the first one: the same for the same question asked twice.
    fn wins(&mut self, sent: Time, stored: Stored, led: Option<Term>) -> Term {
        let term = match (led, self.win) {
            (Some(term), _) => term,
            (None, Some(win)) if win.stored == stored => win.term,
            (None, _) => (stored.term + 1).max(millis(sent)).max(self.highest_seen + 1),
        };
        (self.win, self.outdated) = (led.is_none().then_some(Win { term, stored }), false);
        self.highest_seen = self.highest_seen.max(term);
        term
    }

    /// The request by which the keeper releases the boundary when the campaigner is dead.
    pub(super) fn keeper_release(&self) -> Request {
        Request::Revoke { lease: self.lease }
    }
}
