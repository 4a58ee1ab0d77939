//! The common part of the three model stores: calls, answers, and the candidate's side of a request.

use std::hash::Hash;
use std::time::Duration;

use super::super::time::Time;
use super::choices::SimRng;
use super::lock_store::{LockClient, LockServer};
use super::mutations::InjectedMutation;
use super::queue_store::{QueueClient, QueueServer};
use super::record_store::{AfterRestart, Claim, Observed, RecordClient, RecordServer};
use super::states::StateHasher;
use crate::takeover::{Basis, Vacancy};
use crate::{Answer, Attempt, Campaigned, Renewed, Term};

/// The request of the candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    Campaign,
    Renew,
    Release,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    // Of a store with a queue.
    Enter { lease: u64, holder: usize, ttl: Duration, fresh: bool },
    KeepAlive { lease: u64 },
    Check { lease: u64, revision: Term, win: Option<Win> },
    Revoke { lease: u64 },
    // Of an observed store.
    Read,
    Take { holder: usize, nonce: u64, ttl: Duration, expected: Observed, floor: Term },
    Vacate { holder: usize, vacancy: Vacancy },
    RenewRecord { holder: usize, term: Term, nonce: u64, settled: Option<Basis<u64>> },
    Free { holder: usize, claim: Claim, nonce: u64, settled: Option<Basis<u64>> },
    // Of a lock.
    Lock { holder: usize },
    LookAtLock { holder: usize },
    Unlock { holder: usize },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reply {
    Entered {
        revision: Term,
        first: bool,
        stored: Stored,
        /// The term that the key shows: of a win that has been verified.
        led: Option<Term>,
    },
    Gone,
    Kept {
        ttl: Duration,
    },
    Checked {
        leads: bool,
    },
    /// Ours, but the term that is kept is not the one that was read.
    OtherTerm,
    Observed(Observed),
    Taken(Term, Basis<u64>),
    Conflict,
    Renewed {
        ttl: Duration,
        nonce: u64,
        found: u64,
        basis: Basis<u64>,
    },
    NotYours,
    Locked(Option<Term>),
    LockIs(bool),
    Done,
    /// A write that was executed, and that no standby has confirmed.
    Doubtful,
    /// No process reads the channel.
    Unreachable,
}

/// The last term as a store with a queue keeps it, apart from the candidates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Stored {
    pub term: Term,
    /// When it was written: what is compared.
    pub modified: Term,
}

/// The write that verifies a win: executed if the last term is still the one that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Win {
    pub term: Term,
    pub stored: Stored,
}

/// The effect of a call on other candidates and on the reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// The boundary went to this term of this candidate.
    Given(Term, usize),
    /// A record was written, which nobody who sees it may take before so long.
    Written(Term, Duration),
    /// Until then the store gives the boundary of this term to nobody else.
    Guarded(Term, Duration),
    Freed(Term),
    Expired,
    Ousted(usize, Term),
    /// A rule of the store's own that does not hold.
    Wrong(&'static str),
    Hint(usize),
    HintAll,
    LookAgain(Duration),
}

/// The next step of the candidate's side after a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Call(Request),
    Answer(Answer),
}

#[derive(Debug)]
pub(super) enum Store {
    Queue(QueueServer),
    Record(RecordServer),
    Lock(LockServer),
}

impl Store {
    /// A request of this candidate.
    pub(super) fn apply(
        &mut self,
        now: Duration,
        candidate: usize,
        request: Request,
        effects: &mut Vec<Effect>,
    ) -> Reply {
        match self {
            Store::Queue(server) => server.apply(now, request, effects),
            Store::Record(server) => server.apply(now, candidate, request, effects),
            Store::Lock(server) => server.apply(request, effects),
        }
    }

    pub(super) fn hash_state(&self, state: &mut StateHasher) {
        match self {
            Store::Queue(server) => server.hash_state(state),
            Store::Record(server) => server.hash_state(state),
            Store::Lock(server) => server.holder.hash(state),
        }
    }

    pub(super) fn look(&mut self, now: Duration, slack: Duration, effects: &mut Vec<Effect>) {
        match self {
            Store::Queue(server) => server.look(now, slack, effects),
            Store::Record(_) | Store::Lock(_) => {}
        }
    }

    pub(super) fn restart(&mut self, now: Duration, after: AfterRestart, effects: &mut Vec<Effect>) {
        match self {
            Store::Queue(server) => server.restart(now, effects),
            Store::Record(server) => server.restart(after),
            Store::Lock(_) => {}
        }
    }
}

#[derive(Debug)]
enum ClientKind {
    Queue(QueueClient),
    Record(RecordClient),
    Lock(LockClient),
}

#[derive(Debug)]
struct Open {
    attempt: Attempt,
    ask: Ask,
    sent: Time,
    leg: u8,
}

/// The candidate's side of its requests: what a store's file in the program will be.
#[derive(Debug)]
pub(super) struct Client {
    kind: ClientKind,
    open: Option<Open>,
    /// Requests that were given up, whose answers may still come, doubled ones too.
    past: Vec<(Attempt, Time)>,
    injected_mutation: Option<InjectedMutation>,
}

impl Client {
    pub(super) fn new(
        store: &Store,
        holder: usize,
        ttl: Duration,
        injected_mutation: Option<InjectedMutation>,
    ) -> Client {
        let kind = match store {
            Store::Queue(_) => ClientKind::Queue(QueueClient::new(holder, ttl, injected_mutation)),
            Store::Record(server) => {
                ClientKind::Record(RecordClient::new(holder, ttl, server.memory, injected_mutation))
            }
            Store::Lock(_) => ClientKind::Lock(LockClient { holder }),
        };
        Client { kind, open: None, past: Vec::new(), injected_mutation }
    }

    /// The first call of a new request. Whatever was under way is given up.
    pub(super) fn begin(&mut self, now: Time, ask: Ask, attempt: Attempt) -> Request {
        self.open = Some(Open { attempt, ask, sent: now, leg: 0 });
        if self.past.len() == 8 {
            self.past.remove(0);
        }
        self.past.push((attempt, now));
        match &mut self.kind {
            ClientKind::Queue(client) => client.begin(ask),
            ClientKind::Record(client) => client.begin(ask),
            ClientKind::Lock(client) => client.begin(ask),
        }
    }

    /// The meaning of a reply: a further call with its leg, or an answer. A reply to anything but the call that is under
    /// way decides nothing here, but the candidate must stand being told.
    pub(super) fn reply(
        &mut self,
        now: Time,
        attempt: Attempt,
        leg: u8,
        reply: Reply,
        rng: &mut SimRng,
    ) -> Option<(u8, Next)> {
        let Some(open) = self.open.as_mut().filter(|open| open.attempt == attempt && open.leg == leg) else {
            // A worker gives one answer to an attempt: a doubled reply to an earlier call of it decides nothing.
            if self.open.as_ref().is_some_and(|open| open.attempt == attempt) {
                return None;
            }
            let &(_, sent) = self.past.iter().find(|(past, _)| *past == attempt)?;
            return stale(reply, sent).map(|answer| (leg, Next::Answer(answer)));
        };
        // T1: the lease counts from before the first call was sent.
        let sent = if self.injected_mutation == Some(InjectedMutation::StampAfterReply) { now } else { open.sent };
        let next = match &mut self.kind {
            _ if matches!(reply, Reply::Unreachable | Reply::Doubtful) => Next::Answer(match open.ask {
                Ask::Campaign => Answer::Campaign(Campaigned::Failed),
                Ask::Renew => Answer::Renew(Renewed::Failed),
                Ask::Release => Answer::Release(false),
            }),
            ClientKind::Queue(client) => client.reply(open.ask, sent, reply),
            ClientKind::Record(client) => client.reply(open.ask, now, sent, reply, rng),
            ClientKind::Lock(_) => LockClient::reply(sent, reply),
        };
        match next {
            Next::Call(_) => open.leg += 1,
            Next::Answer(_) => self.open = None,
        }
        Some((leg + 1, next))
    }

    pub(super) fn is_open(&self, attempt: Attempt) -> bool {
        self.open.as_ref().is_some_and(|open| open.attempt == attempt)
    }

    /// The request that is under way, with the number of its call.
    pub(super) fn open_request(&self) -> Option<(u8, u8)> {
        self.open.as_ref().map(|open| (open.ask as u8, open.leg))
    }

    pub(super) fn keeper_release(&self) -> Request {
        match &self.kind {
            ClientKind::Queue(client) => client.keeper_release(),
            ClientKind::Record(client) => client.keeper_release(),
            ClientKind::Lock(client) => Request::Unlock { holder: client.holder },
        }
    }
}

/// The answer that a careless worker would derive from a reply that no request waits for any more.
fn stale(reply: Reply, sent: Time) -> Option<Answer> {
    match reply {
        Reply::Entered { led: Some(term), first: true, .. } | Reply::Taken(term, _) => {
            Some(Answer::Campaign(Campaigned::Won(term)))
        }
        Reply::Entered { revision, stored, first: true, .. } => {
            Some(Answer::Campaign(Campaigned::Won(stored.term.max(revision) + 1)))
        }
        Reply::OtherTerm => Some(Answer::Renew(Renewed::Outdated)),
        Reply::Entered { first: false, .. } | Reply::Conflict => {
            Some(Answer::Campaign(Campaigned::Waiting { again: None, decided: true }))
        }
        Reply::Renewed { ttl, .. } => Some(Answer::Renew(Renewed::Credited { sent, ttl: Some(ttl) })),
        Reply::Checked { leads: true } => Some(Answer::Renew(Renewed::Credited { sent, ttl: None })),
        Reply::Gone | Reply::NotYours | Reply::Checked { leads: false } => Some(Answer::Renew(Renewed::Lost)),
        Reply::Done => Some(Answer::Release(true)),
        Reply::Kept { .. }
        | Reply::Observed(_)
        | Reply::Locked(_)
        | Reply::LockIs(_)
        | Reply::Doubtful
        | Reply::Unreachable => None,
    }
}
