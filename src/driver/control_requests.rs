//! Requests of the control socket: each becomes an event of the candidate, or is answered at once.

use tracing::info;

use super::Driver;
use crate::control::{CandidateStatus, ControlEvent, IncomingRequest};
use crate::status::StatusSnapshot;
use elect_core::{Event, Phase, Time};
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
            Some(ControlEvent::Rename { request_id, name, advertise }) => {
                let identity = self.command_env.rename(name, advertise);
                self.status.rename(&identity);
                info!(host = identity.host, port = identity.port, "proclaimed: {}", identity.name);
                self.worker.rename(identity);
                self.handle(Event::ConfirmLeadership { request_id, term: None });
            }
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
        is_leader: own.is_leader,
        running: own.running,
        pid: own.pid,
    }
}
