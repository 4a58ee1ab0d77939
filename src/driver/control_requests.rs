//! Requests of the control socket: each becomes an event of the candidate, or is answered at once.

use tracing::info;

use super::Driver;
use crate::control::{CandidateStatus, ControlEvent, IncomingRequest, ObservedLeader};
use crate::status::StatusSnapshot;
use elect_core::takeover::{RESERVATION_MAX, Reservation};
use elect_core::{Event, Phase, RequestError, RequestId, Time};
use elect_keeper::clock;

impl Driver {
    pub(super) fn on_control_request(&mut self, request: IncomingRequest) {
        let leads = matches!(self.candidate.phase(), Phase::Leading | Phase::LeadingIdle);
        let Some(control) = &mut self.control else { return };
        match control.handle(request, leads) {
            None => {}
            Some(ControlEvent::Election(event)) => self.handle(event),
            Some(ControlEvent::Status(request_id)) => {
                control.tell(request_id, candidate_status(&self.status.shared.snapshot.borrow(), clock::now()));
            }
            Some(ControlEvent::ResignTo { request_id, reservation }) => self.reserve(request_id, reservation),
            Some(ControlEvent::Rename { request_id, name, advertise }) => {
                let identity = self.command_env.rename(name, advertise);
                self.status.rename(&identity);
                info!(host = identity.host, port = identity.port, "proclaimed: {}", identity.name);
                self.worker.rename(identity);
                self.handle(Event::ConfirmLeadership { request_id, term: None });
            }
        }
    }

    /// The store learns the successor before the command is stopped.
    fn reserve(&mut self, request_id: RequestId, mut reservation: Reservation<String>) {
        reservation.within = reservation.within.min(RESERVATION_MAX);
        let is_own = self.status.shared.snapshot.borrow().is_called(&reservation.successor);
        let declined = match &self.reserving {
            _ if is_own => Some("it is the leader's own name: nothing was done"),
            Some(_) => Some("another resign --to is under way: nothing was done"),
            None => None,
        };
        match (declined, &mut self.control) {
            (Some(why), Some(control)) => control.decline(request_id, why),
            (Some(_), None) => {}
            (None, _) => self.reserving = Some(self.worker.reserve(request_id, reservation)),
        }
    }

    /// A leader that stops for another reason leaves the boundary to any candidate.
    pub(super) fn cancel_reservation_if_over(&mut self) {
        if self.candidate.phase().accepts_requests() {
            return;
        }
        if let Some(reservation) = self.reserving.take() {
            self.worker.cancel(&reservation);
            if let Some(control) = &mut self.control {
                control.deny(reservation.request_id, RequestError::Stopping);
            }
        }
    }

    pub(super) fn on_reserved(&mut self, request_id: RequestId, result: Result<(), String>) {
        // One that was cancelled has been answered.
        if self.reserving.take_if(|open| open.request_id == request_id).is_none() {
            return;
        }
        match (result, &mut self.control) {
            (Ok(()), _) => self.handle(Event::Resign(request_id)),
            (Err(why), Some(control)) => control.decline(request_id, why),
            (Err(_), None) => {}
        }
    }
}

fn candidate_status(snapshot: &StatusSnapshot, now: Time) -> CandidateStatus {
    let own = snapshot.self_status(now);
    CandidateStatus {
        store: snapshot.store().to_owned(),
        host: own.host.to_owned(),
        port: own.port,
        state: own.state.to_owned(),
        reasons: own.reasons.iter().map(|&reason| reason.to_owned()).collect(),
        is_leader: own.is_leader,
        running: own.running,
        pid: own.pid,
        leader: snapshot.observation(now).leader.map(|leader| ObservedLeader {
            id: leader.id,
            name: leader.name,
            term: leader.term,
        }),
    }
}
