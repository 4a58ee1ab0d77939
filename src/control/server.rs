//! The control requests that wait for the election's answer.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tracing::info;

use super::{
    CandidateInfo, CandidateStatus, ControlOutcome, ControlRequest, ControlSocket, IncomingRequest, SocketDirectory,
};
use crate::host_port::HostPort;
use elect_core::takeover::Reservation;
use elect_core::{Event, RequestError, RequestId, Term, Time};
use elect_keeper::clock;

/// The most requests that wait for the election's answer at once. Requests of clients that have left count: the
/// election remembers them until it answers, and a command may take hours to stop.
const PENDING_REQUESTS_MAX: usize = 256;

/// The consequence of a request for the candidate.
#[derive(Debug, PartialEq, Eq)]
pub enum ControlEvent {
    /// The election decides, and answers.
    Election(Event),
    /// The candidate's state is asked for.
    Status(RequestId),
    /// The store learns the successor first; then the leader resigns.
    ResignTo {
        /// The request.
        request_id: RequestId,
        /// The successor, and for how long the boundary is left to it.
        reservation: Reservation<String>,
    },
    /// The leader gets another name or address; `None` leaves it as it is. The renewal that takes it to the store
    /// answers.
    Rename {
        /// The request.
        request_id: RequestId,
        /// The new name.
        name: Option<String>,
        /// The new address.
        advertise: Option<HostPort>,
    },
}

/// The candidate's side of the control socket.
#[derive(Debug)]
pub struct ControlServer {
    /// The socket's file is removed when this is dropped.
    socket: ControlSocket,
    receiver: mpsc::UnboundedReceiver<IncomingRequest>,
    pending: HashMap<RequestId, oneshot::Sender<ControlOutcome>>,
    last_id: u64,
}

impl ControlServer {
    /// Opens the socket in the directory, which is made if it is missing. Must be called inside a [`tokio::task::LocalSet`].
    ///
    /// # Errors
    ///
    /// A short text for the log: the directory is not ours, or cannot be written.
    pub fn open(directory: &SocketDirectory, info: CandidateInfo) -> Result<ControlServer, String> {
        if directory.prepare()? {
            info!(directory = %directory.path().display(), "the directory for control sockets did not exist: created");
        }
        let opened = ControlSocket::open(directory, info);
        let (socket, receiver) = opened.map_err(|error| format!("{}: {error}", directory.path().display()))?;
        Ok(ControlServer { socket, receiver, pending: HashMap::new(), last_id: 0 })
    }

    /// The path of the socket, for `ELECT_SOCKET`.
    #[must_use]
    pub fn path(&self) -> &std::path::Path {
        self.socket.path()
    }

    /// The next request; `None`: there will be none. Cancel safe.
    pub async fn next(&mut self) -> Option<IncomingRequest> {
        self.receiver.recv().await
    }

    /// Accepts a request: answers it at once, or returns the event that it is for the candidate. `leads`: the candidate
    /// may be renamed in its record.
    pub fn handle(&mut self, request: IncomingRequest, leads: bool) -> Option<ControlEvent> {
        let (request_id, request) = self.register(request)?;
        match request {
            ControlRequest::Hello => {
                self.grant(request_id, None, Time::NEVER);
                None
            }
            ControlRequest::Status => Some(ControlEvent::Status(request_id)),
            ControlRequest::Assert { term } => {
                Some(ControlEvent::Election(Event::ConfirmLeadership { request_id, term }))
            }
            ControlRequest::Resign => Some(ControlEvent::Election(Event::Resign(request_id))),
            ControlRequest::Drain => Some(ControlEvent::Election(Event::Drain(request_id))),
            ControlRequest::Undrain => Some(ControlEvent::Election(Event::Undrain(request_id))),
            ControlRequest::ResignTo(reservation) if !crate::config::is_valid_name(&reservation.successor) => {
                self.reject(request_id);
                None
            }
            ControlRequest::ResignTo(reservation) if leads => Some(ControlEvent::ResignTo { request_id, reservation }),
            ControlRequest::ResignTo(_) => {
                self.deny(request_id, RequestError::NotLeading);
                None
            }
            ControlRequest::Proclaim { name, advertise } => match new_identity(name, advertise.as_deref()) {
                None => {
                    self.reject(request_id);
                    None
                }
                Some((name, advertise)) if leads => Some(ControlEvent::Rename { request_id, name, advertise }),
                Some(_) => {
                    self.deny(request_id, RequestError::NotLeading);
                    None
                }
            },
        }
    }

    /// Gives a request the number that its answer will carry. `None`: too many wait already, which the client is told.
    fn register(
        &mut self,
        IncomingRequest { request, outcome }: IncomingRequest,
    ) -> Option<(RequestId, ControlRequest)> {
        if self.pending.len() >= PENDING_REQUESTS_MAX {
            // The client may have left.
            let _ = outcome
                .send(ControlOutcome::no("too many requests wait for an answer of this candidate: try again later"));
            return None;
        }
        self.last_id += 1;
        let request_id = RequestId(self.last_id);
        self.pending.insert(request_id, outcome);
        Some((request_id, request))
    }

    /// Answers yes. `until`: the end of the lease, if there is one.
    pub fn grant(&mut self, request_id: RequestId, term: Option<Term>, until: Time) {
        let left = until.since(clock::now());
        let outcome = match until {
            Time::NEVER => ControlOutcome::Yes { term, lease_left_ms: None },
            _ if left == Duration::ZERO => ControlOutcome::no(NOT_LEADING),
            _ => ControlOutcome::Yes { term, lease_left_ms: Some(u64::try_from(left.as_millis()).unwrap_or(u64::MAX)) },
        };
        self.answer(request_id, outcome);
    }

    /// Answers that a drain is complete.
    pub fn drained(&mut self, request_id: RequestId, released: bool) {
        self.answer(request_id, ControlOutcome::Drained { released });
    }

    /// Answers with the candidate's state.
    pub fn tell(&mut self, request_id: RequestId, status: CandidateStatus) {
        self.answer(request_id, ControlOutcome::Status(status));
    }

    /// Answers no.
    pub fn deny(&mut self, request_id: RequestId, why: RequestError) {
        let why = match why {
            RequestError::NotLeading => NOT_LEADING,
            RequestError::Stopping => "it is stopping already",
            RequestError::NotReleased => {
                "it has stopped, but the store did not confirm the release: the lease runs out by itself"
            }
            RequestError::Undrained => "a later elect undrain has ended this drain",
        };
        self.answer(request_id, ControlOutcome::no(why));
    }

    /// Answers no, for a reason that the store or the driver has found.
    pub fn decline(&mut self, request_id: RequestId, why: impl Into<String>) {
        self.answer(request_id, ControlOutcome::no(why));
    }

    /// Refuses a request that makes no sense.
    fn reject(&mut self, request_id: RequestId) {
        self.answer(request_id, ControlOutcome::not_understood());
    }

    fn answer(&mut self, request_id: RequestId, outcome: ControlOutcome) {
        if let Some(client) = self.pending.remove(&request_id) {
            // The client may have left.
            let _ = client.send(outcome);
        }
    }
}

const NOT_LEADING: &str = "not the leader";

/// Parses a name and an address as the flags do; `None` if one of them is invalid.
fn new_identity(name: Option<String>, advertise: Option<&str>) -> Option<(Option<String>, Option<HostPort>)> {
    let advertise: Option<HostPort> = advertise.map(str::parse).transpose().ok()?;
    let mut texts = name.iter().chain(advertise.iter().map(|address| &address.host));
    texts.all(|text| crate::config::is_valid_name(text)).then_some((name, advertise))
}

#[cfg(test)]
mod tests {
    use tokio::task::LocalSet;

    use super::*;

    fn here(directory: &tempfile::TempDir) -> SocketDirectory {
        SocketDirectory::new(Some(directory.path())).expect("absolute")
    }

    #[test]
    fn no_more_than_so_many_requests_wait_and_those_of_clients_that_have_left_count() {
        let directory = tempfile::tempdir().expect("a directory");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        LocalSet::new().block_on(&runtime, async {
            let info = CandidateInfo { boundary: "cron".to_owned(), id: "0b5e".to_owned(), name: "web-1".to_owned() };
            let (socket, receiver) = ControlSocket::open(&here(&directory), info).expect("a socket");
            let mut server = ControlServer { socket, receiver, pending: HashMap::new(), last_id: 0 };
            let incoming = || {
                let (outcome, answer) = oneshot::channel();
                (IncomingRequest { request: ControlRequest::Resign, outcome }, answer)
            };
            let admitted: Vec<RequestId> = (0..10_000).filter_map(|_| Some(server.register(incoming().0)?.0)).collect();
            assert_eq!((admitted.len(), server.pending.len()), (PENDING_REQUESTS_MAX, PENDING_REQUESTS_MAX));
            let (one_more, answer) = incoming();
            assert!(server.register(one_more).is_none());
            assert!(matches!(answer.await, Ok(ControlOutcome::No { why }) if why.contains("try again")));
            server.grant(admitted[0], None, Time::NEVER);
            assert!(server.register(incoming().0).is_some(), "an answer makes room");
        });
    }
    #[test]
    fn a_request_is_answered_at_once_or_becomes_an_event() {
        let directory = tempfile::tempdir().expect("a directory");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        LocalSet::new().block_on(&runtime, async {
            let info = CandidateInfo { boundary: "cron".to_owned(), id: "0b5e".to_owned(), name: "web-1".to_owned() };
            let (socket, receiver) = ControlSocket::open(&here(&directory), info).expect("a socket");
            let mut server = ControlServer { socket, receiver, pending: HashMap::new(), last_id: 0 };
            let mut handle = |request, leads| {
                let (outcome, mut answer) = oneshot::channel();
                let event = server.handle(IncomingRequest { request, outcome }, leads);
                (event, answer.try_recv().ok())
            };
            let rename = |name: &str, advertise: &str| ControlRequest::Proclaim {
                name: Some(name.to_owned()),
                advertise: Some(advertise.to_owned()),
            };
            assert!(matches!(handle(ControlRequest::Hello, false), (None, Some(ControlOutcome::Yes { .. }))));
            let (event, answer) = handle(ControlRequest::Assert { term: Some(7) }, false);
            let confirm = Event::ConfirmLeadership { request_id: RequestId(2), term: Some(7) };
            assert_eq!((event, answer), (Some(ControlEvent::Election(confirm)), None));
            let (event, answer) = handle(ControlRequest::Resign, true);
            assert_eq!((event, answer), (Some(ControlEvent::Election(Event::Resign(RequestId(3)))), None));
            assert!(matches!(handle(rename("web-2", "db:80"), false), (None, Some(ControlOutcome::No { .. }))));
            for (name, advertise) in [("web\n2", "db:80"), ("web-2", "db:http")] {
                assert!(matches!(handle(rename(name, advertise), true), (None, Some(ControlOutcome::Refused { .. }))));
            }
            let (event, answer) = handle(rename("web-2", "db:80"), true);
            let (request_id, name, advertise) = (RequestId(7), Some("web-2".to_owned()), "db:80".parse().ok());
            assert_eq!((event, answer), (Some(ControlEvent::Rename { request_id, name, advertise }), None));
        });
    }
}
