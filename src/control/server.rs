//! The policy that the election has been told of and has not answered yet.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::{CandidateInfo, ControlOutcome, ControlRequest, ControlSocket, IncomingRequest, socket_path};
use elect_core::{RequestError, RequestId, Term, Time};
use elect_keeper::clock;

/// How many policy wait for the election's answer at once, with those of visitors that have left: the election remembers them
/// until it answers, and a command may take hours to stop.
const PENDING_REQUESTS_MAX: usize = 256;

/// The candidate's side of the control socket.
#[derive(Debug)]
pub struct ControlServer {
    /// Its file lives as long as this.
    socket: ControlSocket,
    receiver: mpsc::UnboundedReceiver<IncomingRequest>,
    pending: HashMap<RequestId, oneshot::Sender<ControlOutcome>>,
    last_id: u64,
}

impl ControlServer {
    /// Opens the socket in the runtime directory. Must be called inside a [`tokio::task::LocalSet`].
    ///
    /// # Errors
    ///
    /// In a few words for the log: the directory is not ours, or cannot be written.
    pub fn open(info: CandidateInfo) -> Result<ControlServer, String> {
        let directory = socket_path::directory()?;
        let opened = ControlSocket::open(&directory, info);
        let (socket, receiver) = opened.map_err(|error| format!("{}: {error}", directory.display()))?;
        Ok(ControlServer { socket, receiver, pending: HashMap::new(), last_id: 0 })
    }

    /// What commands are told.
    #[must_use]
    pub fn path(&self) -> &std::path::Path {
        self.socket.path()
    }

    /// The next visitor; `None`: there will be none. Cancel safe.
    pub async fn next(&mut self) -> Option<IncomingRequest> {
        self.receiver.recv().await
    }

    /// A number for a wish, which its answer will carry. `None`: too many wait already, which the visitor has been told.
    pub fn register(
        &mut self,
        IncomingRequest { request, outcome }: IncomingRequest,
    ) -> Option<(RequestId, ControlRequest)> {
        if self.pending.len() >= PENDING_REQUESTS_MAX {
            // It may have left.
            let _ = outcome
                .send(ControlOutcome::no("too many requests wait for an answer of this candidate: try again later"));
            return None;
        }
        self.last_id += 1;
        let request_id = RequestId(self.last_id);
        self.pending.insert(request_id, outcome);
        Some((request_id, request))
    }

    /// It has come true.
    pub fn grant(&mut self, request_id: RequestId, term: Option<Term>, until: Time) {
        let left = until.since(clock::now());
        let outcome = match until {
            Time::NEVER => ControlOutcome::Yes { term, lease_left_ms: None },
            _ if left == Duration::ZERO => ControlOutcome::no(NOT_LEADING),
            _ => ControlOutcome::Yes { term, lease_left_ms: Some(u64::try_from(left.as_millis()).unwrap_or(u64::MAX)) },
        };
        self.answer(request_id, outcome);
    }

    /// It has not.
    pub fn deny(&mut self, request_id: RequestId, why: RequestError) {
        let why = match why {
            RequestError::NotLeading => NOT_LEADING,
            RequestError::Stopping => "it is stopping already",
            RequestError::NotReleased => {
                "it has stopped, but the store did not confirm the release: the lease runs out by itself"
            }
        };
        self.answer(request_id, ControlOutcome::no(why));
    }

    /// It makes no sense.
    pub fn reject(&mut self, request_id: RequestId) {
        self.answer(request_id, ControlOutcome::not_understood());
    }

    fn answer(&mut self, request_id: RequestId, outcome: ControlOutcome) {
        if let Some(client) = self.pending.remove(&request_id) {
            // It may have left.
            let _ = client.send(outcome);
        }
    }
}

const NOT_LEADING: &str = "not the leader";

#[cfg(test)]
mod tests {
    use tokio::task::LocalSet;

    use super::*;

    #[test]
    fn no_more_than_so_many_wishes_wait_and_those_whose_visitors_have_left_count() {
        let directory = tempfile::tempdir().expect("a directory");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        LocalSet::new().block_on(&runtime, async {
            let info = CandidateInfo { boundary: "cron".to_owned(), id: "0b5e".to_owned(), name: "web-1".to_owned() };
            let (socket, receiver) = ControlSocket::open(directory.path(), info).expect("a socket");
            let mut server = ControlServer { socket, receiver, pending: HashMap::new(), last_id: 0 };
            let visit = || {
                let (outcome, said) = oneshot::channel();
                (IncomingRequest { request: ControlRequest::Resign, outcome }, said)
            };
            let admitted: Vec<RequestId> = (0..10_000).filter_map(|_| Some(server.register(visit().0)?.0)).collect();
            assert_eq!((admitted.len(), server.pending.len()), (PENDING_REQUESTS_MAX, PENDING_REQUESTS_MAX));
            let (one_more, said) = visit();
            assert!(server.register(one_more).is_none());
            assert!(matches!(said.await, Ok(ControlOutcome::No { why }) if why.contains("try again")));
            server.grant(admitted[0], None, Time::NEVER);
            assert!(server.register(visit().0).is_some(), "an answer makes room");
        });
    }
}
