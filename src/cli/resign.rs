//! `elect resign`: the leader on this host steps down, for any candidate or for a named one.

use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use clap::Args;

use super::control_client::{RESPONSE_TIMEOUT, send};
use super::fail;
use super::find_candidate::{CandidateSocket, ControlError, ControlTarget, TimeLimit, find_socket};
use crate::config;
use crate::control::{CandidateStatus, ControlOutcome, ControlRequest, ControlResponse};
use crate::duration::parse_duration;
use crate::exit::Exit;
use elect_core::Term;
use elect_core::takeover::{RESERVATION_MAX, Reservation};
use elect_keeper::clock;

/// How often the candidate is asked who leads.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// How long after the time of the reservation a boundary may have no leader before the hand-over has failed.
const VACANCY_MAX: Duration = Duration::from_secs(15);
/// The time of a reservation if none is given.
const WITHIN: &str = "3s";

/// Flags of `elect resign`.
#[derive(Debug, Args)]
pub struct ResignFlags {
    #[command(flatten)]
    target: ControlTarget,

    /// Leave the boundary to this candidate, named by its name or id
    ///
    /// The command returns with 0 once that candidate leads, and with 3 if another one leads instead. Where the
    /// leader sees which candidates wait, its command is not stopped if that one is not there; on the other stores
    /// a wrong name costs the time of --within without a leader.
    #[arg(long, value_name = "NAME|ID")]
    to: Option<String>,

    /// How long the others leave the boundary to it, at most 1m
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = WITHIN, requires = "to")]
    within: Duration,
}

/// The leader command may take its stop time-out to end, and more.
pub fn resign(ResignFlags { target, to, within }: &ResignFlags) -> ExitCode {
    let Some(successor) = to else { return send(target, &ControlRequest::Resign, None, |_| String::new()) };
    if successor.is_empty() || !config::is_valid_name(successor) {
        return fail(Exit::Usage, "--to takes the name or the id of a candidate");
    }
    if *within > RESERVATION_MAX {
        return fail(Exit::Usage, "--within is longer than 1m, the most that a candidate waits for another: give less");
    }
    match hand_over(target, &Reservation { successor: successor.clone(), within: *within }) {
        Ok(()) => Exit::Success.into(),
        Err((exit, why)) => fail(exit, &why),
    }
}

/// The exit status, and the reason for it.
type Failure = (Exit, String);

fn hand_over(target: &ControlTarget, reservation: &Reservation<String>) -> Result<(), Failure> {
    let Reservation { successor, within } = reservation;
    let limit = target.timeout.map(TimeLimit::new);
    let request = ControlRequest::ResignTo(reservation.clone());
    let socket = find_socket(target, &request, limit).map_err(|error| failure(&error))?;
    let (before, own) = status(&socket, limit)?;
    if before.store == "always" {
        return Err((Exit::Usage, "--to: with always: there is no election, and every candidate leads".to_owned()));
    }
    if !before.is_leader && before.leader.as_ref().is_some_and(|leader| [&leader.id, &leader.name].contains(&successor))
    {
        // It was asked for before.
        return Ok(());
    }
    let old_term = before.leader.as_ref().filter(|leader| leader.id == own.id).and_then(|leader| leader.term);
    // A leader that is stopping already has been asked before, or hands over anyway: what counts is who leads next.
    if !is_stepping_down(&before) {
        let answered =
            socket.exchange(&request, limit).map_err(|error| ended(error.exit(), &error.to_string(), successor));
        match answered?.outcome {
            ControlOutcome::Yes { .. } => {}
            ControlOutcome::Status(_) | ControlOutcome::Drained { .. } => return Err(other_answer()),
            ControlOutcome::No { why } => return Err((Exit::No, why)),
            ControlOutcome::Refused { why } => return Err((Exit::Refused, why)),
        }
    }
    let mut vacant_since = None;
    loop {
        let (now, own_name) = status(&socket, limit).map_err(|(exit, why)| ended(exit, &why, successor))?;
        if is_stepping_down(&now) || now.leader.as_ref().is_some_and(|leader| leader.id != own.id) {
            vacant_since = None;
        } else if clock::now() >= *vacant_since.get_or_insert_with(clock::now) + *within + VACANCY_MAX {
            return Err((Exit::No, format!("{successor} did not take the boundary, and no other candidate has")));
        }
        match succession(&now, &own, old_term, successor) {
            Some(Successor::Named) => return Ok(()),
            Some(Successor::Other(name)) => {
                return Err((Exit::No, format!("{name} leads, and not {successor}, which did not take the boundary")));
            }
            Some(Successor::Own) => {
                let within = humantime::format_duration(*within);
                let name = own_name.name;
                return Err((
                    Exit::No,
                    format!("{successor} did not take the boundary within {within}: {name} leads again"),
                ));
            }
            None => {
                if let Some(limit) = limit.filter(|limit| limit.is_over()) {
                    return Err(failure(&ControlError::TimedOut(limit.whole())));
                }
                thread::sleep(POLL_INTERVAL);
            }
        }
    }
}

/// Whether the candidate stops what it runs as the leader, or releases the boundary.
fn is_stepping_down(now: &CandidateStatus) -> bool {
    !now.is_leader && ["stopping", "releasing"].contains(&now.state.as_str())
}

/// The candidate does not answer any more: with --on-lost exit, -n or --wait it ends when it resigns.
fn ended(exit: Exit, why: &str, successor: &str) -> Failure {
    if exit != Exit::Unavailable {
        return (exit, why.to_owned());
    }
    let advice = format!("elect wait BOUNDARY --for name={successor} tells whether that one leads");
    (
        exit,
        format!("the candidate has resigned or was stopped, and has ended, so that it cannot say who leads: {advice}"),
    )
}

/// The id and name of the candidate that has answered.
struct Own {
    id: String,
    name: String,
}

/// The candidate that leads after the resignation.
#[derive(Debug, PartialEq, Eq)]
enum Successor {
    Named,
    Other(String),
    /// The one that has resigned.
    Own,
}

/// The present leader, as the candidate that has resigned sees it; `None`: that is not known yet.
fn succession(now: &CandidateStatus, own: &Own, old_term: Option<Term>, successor: &str) -> Option<Successor> {
    let leader = now.leader.as_ref()?;
    if leader.id == own.id {
        return now.is_leader.then_some(Successor::Own).filter(|_| leader.term > old_term);
    }
    if leader.term.is_some() && leader.term <= old_term {
        return None;
    }
    Some(if leader.id == successor || leader.name == successor {
        Successor::Named
    } else {
        Successor::Other(leader.name.clone())
    })
}

fn status(socket: &CandidateSocket, limit: Option<TimeLimit>) -> Result<(CandidateStatus, Own), Failure> {
    let limit = limit.unwrap_or_else(|| TimeLimit::new(RESPONSE_TIMEOUT));
    let response = socket.exchange(&ControlRequest::Status, Some(limit)).map_err(|error| failure(&error))?;
    let ControlResponse { id, name, outcome, .. } = response;
    match outcome {
        ControlOutcome::Status(status) => Ok((status, Own { id, name })),
        ControlOutcome::No { why } => Err((Exit::No, why)),
        ControlOutcome::Refused { why } => Err((Exit::Refused, why)),
        ControlOutcome::Yes { .. } | ControlOutcome::Drained { .. } => Err(other_answer()),
    }
}

fn failure(error: &ControlError) -> Failure {
    (error.exit(), error.to_string())
}

fn other_answer() -> Failure {
    (Exit::Unavailable, "the candidate has answered another question".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::ObservedLeader;

    fn seen(leader: Option<(&str, &str, Option<Term>)>, is_leader: bool) -> CandidateStatus {
        let leader = leader.map(|(id, name, term)| ObservedLeader { id: id.to_owned(), name: name.to_owned(), term });
        let (store, host, state) = ("store".to_owned(), "h".to_owned(), "following".to_owned());
        let reasons = Vec::new();
        CandidateStatus { store, host, port: None, state, reasons, is_leader, running: false, pid: None, leader }
    }

    #[test]
    fn the_answer_depends_on_the_first_leader_after_the_resignation() {
        let own = Own { id: "i1".to_owned(), name: "web-1".to_owned() };
        let told = |now: &CandidateStatus| succession(now, &own, Some(7), "web-2");
        assert_eq!(told(&seen(None, false)), None);
        assert_eq!(told(&seen(Some(("i1", "web-1", Some(7))), false)), None, "it is stale");
        assert_eq!(told(&seen(Some(("i0", "web-0", Some(6))), false)), None, "so is its predecessor");
        assert_eq!(told(&seen(Some(("i2", "web-2", Some(8))), false)), Some(Successor::Named));
        assert_eq!(told(&seen(Some(("web-2", "x", Some(8))), false)), Some(Successor::Named), "by its id");
        let other = Some(Successor::Other("web-3".to_owned()));
        assert_eq!(told(&seen(Some(("i3", "web-3", Some(9))), false)), other);
        assert_eq!(told(&seen(Some(("i3", "web-3", None)), false)), other, "another program's term is not known");
        assert_eq!(told(&seen(Some(("i1", "web-1", Some(8))), true)), Some(Successor::Own));
    }
}
