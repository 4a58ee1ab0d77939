//! A store without a ttl, like the file lock: held until it is unlocked or the last process that holds it is gone
//! (5.1).

use std::time::Duration;

use super::super::time::Time;
use super::store::{Ask, Effect, Next, Reply, Request};
use crate::{Answer, Campaigned, Renewed, Term};

#[derive(Debug, Default)]
pub(super) struct LockServer {
    pub(super) holder: Option<usize>,
    term: Term,
}

impl LockServer {
    pub(super) fn apply(&mut self, request: Request, effects: &mut Vec<Effect>) -> Reply {
        match request {
            Request::Lock { holder } => {
                if self.holder.is_none() {
                    self.holder = Some(holder);
                    self.term += 1;
                    effects.push(Effect::Given(self.term, holder));
                    effects.push(Effect::Guarded(self.term, Duration::MAX));
                }
                Reply::Locked((self.holder == Some(holder)).then_some(self.term))
            }
            Request::LookAtLock { holder } => Reply::LockIs(self.holder == Some(holder)),
            Request::Unlock { holder } => {
                self.unlock(holder, effects);
                Reply::Done
            }
            Request::Enter { .. }
            | Request::KeepAlive { .. }
            | Request::Check { .. }
            | Request::Revoke { .. }
            | Request::Read
            | Request::Vacate { .. }
            | Request::Take { .. }
            | Request::RenewRecord { .. }
            | Request::Free { .. } => unreachable!("not asked of this store"),
        }
    }

    /// Also when the last process that had the descriptor is gone.
    pub(super) fn unlock(&mut self, holder: usize, effects: &mut Vec<Effect>) {
        if self.holder == Some(holder) {
            self.holder = None;
            effects.push(Effect::Freed(self.term));
            effects.push(Effect::HintAll);
        }
    }
}

/// The candidate's side.
#[derive(Debug)]
pub(super) struct LockClient {
    pub holder: usize,
}

impl LockClient {
    pub(super) fn begin(&self, ask: Ask) -> Request {
        let holder = self.holder;
        match ask {
            Ask::Campaign => Request::Lock { holder },
            Ask::Renew => Request::LookAtLock { holder },
            Ask::Release => Request::Unlock { holder },
        }
    }

    pub(super) fn reply(sent: Time, reply: Reply) -> Next {
        Next::Answer(match reply {
            Reply::Locked(Some(term)) => Answer::Campaign(Campaigned::Won(term)),
            Reply::Locked(None) => Answer::Campaign(Campaigned::Waiting { again: None, decided: true }),
            Reply::LockIs(true) => Answer::Renew(Renewed::Credited { sent, ttl: None }),
            Reply::LockIs(false) => Answer::Renew(Renewed::Lost),
            Reply::Done => Answer::Release(true),
            Reply::Entered { .. }
            | Reply::Gone
            | Reply::Kept { .. }
            | Reply::Checked { .. }
            | Reply::OtherTerm
            | Reply::Observed(_)
            | Reply::Taken(..)
            | Reply::Conflict
            | Reply::Renewed { .. }
            | Reply::NotYours
            | Reply::Doubtful
            | Reply::Unreachable => unreachable!("not answered by this store"),
        })
    }
}
