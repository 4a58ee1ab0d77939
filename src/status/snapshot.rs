//! The state of a candidate and its boundary, in one piece.
//!
//! The driver writes it with each event; its readers are systemd's status line, the pages. It decides
//! nothing. A reader passes the time, since a campaigner that was stopped for a while wakes up with a view
//! whose lease has run out.

#![cfg_attr(not(feature = "listen"), expect(dead_code, reason = "much of it is read by the pages alone"))]

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use super::changes::{ChangeEntry, Changes};
use super::document::SelfStatus;
use crate::store::{Candidacy, Identity, Leader, Observation};
use crate::text::escaped;
use elect_core::boundary::Boundary;
use elect_core::{IneligibleReasons, Lease, Phase, Term, Time};

/// The part of a foreign text that fits on a line.
const NAME_CHARS_MAX: usize = 100;

/// One candidate, at one moment.
#[derive(Debug, Clone)]
pub struct StatusSnapshot {
    boundary: Boundary,
    store: &'static str,
    identity: Identity,
    has_command: bool,
    phase: Phase,
    term: Option<Term>,
    lease: Option<Lease>,
    /// The main process of the leader command, or of the follower.
    pid: Option<i32>,
    /// The command has been started, or would have been if there were one.
    has_begun: bool,
    ineligible: IneligibleReasons,
    /// Asked to stop, or over: this candidate will not stand again.
    shutting_down: bool,
    observation: Observation,
    observed_at: Time,
    changes: Changes,
    /// The last look at the boundary as an observer: it knows who waits.
    waiting: Option<Observation>,
    liveness: Liveness,
}

/// The programs that run, as the election knows them.
#[derive(Debug, Clone, Copy, Default)]
pub struct RunState {
    /// A follower, or what is left of it.
    pub has_follower: bool,
    /// The command, or nothing because there is none; not yet a hook before it.
    pub has_begun: bool,
}

/// Whether the driver and the store's worker turn.
#[derive(Debug, Clone)]
struct Liveness {
    /// When the driver wakes up at the latest.
    wakes_at: Time,
    /// When the worker has answered at the latest, question by question.
    answers_by: VecDeque<Time>,
    request_timeout: Duration,
    /// How late either may be.
    grace: Duration,
}

impl StatusSnapshot {
    /// Of a candidate that has not done anything yet, in a store of the named kind.
    #[must_use]
    pub fn new(
        candidacy: &Candidacy,
        store: &'static str,
        has_command: bool,
        (renew, request_timeout): (Duration, Duration),
    ) -> StatusSnapshot {
        StatusSnapshot {
            boundary: candidacy.boundary.clone(),
            store,
            identity: candidacy.identity.clone(),
            has_command,
            phase: Phase::Campaigning,
            term: None,
            lease: None,
            pid: None,
            has_begun: false,
            ineligible: IneligibleReasons::default(),
            shutting_down: false,
            observation: Observation::default(),
            observed_at: Time::BOOT,
            changes: Changes::default(),
            waiting: None,
            liveness: Liveness {
                wakes_at: Time::NEVER,
                answers_by: VecDeque::new(),
                request_timeout,
                grace: renew.max(Duration::from_secs(1)),
            },
        }
    }

    // ---- written by the driver

    /// Where the election is after an event.
    pub fn update(&mut self, phase: Phase, term: Option<Term>, lease: Option<Lease>, run_state: RunState) {
        let led = self.phase.holds_term();
        (self.phase, self.term, self.lease) = (phase, term, lease);
        self.shutting_down |= phase == Phase::Ended;
        self.has_begun = run_state.has_begun;
        if !phase.may_have_command() && !run_state.has_follower {
            self.pid = None;
        }
        if led
            && !self.phase.holds_term()
            && self.observation.leader.as_ref().is_some_and(|leader| leader.id == self.identity.id)
        {
            self.observation = Observation::default();
        }
    }

    /// Notes the reasons why the candidate may not campaign.
    pub fn set_ineligible(&mut self, reasons: IneligibleReasons) {
        self.ineligible = reasons;
    }

    /// Elected: from here we are the leader that is seen. `since` in milliseconds since 1970.
    pub fn elected(&mut self, now: Time, term: Term, since: u64) {
        let me = &self.identity;
        let leader = Leader {
            id: me.id.clone(),
            name: me.name.clone(),
            host: Some(me.host.clone()),
            port: me.port,
            term: Some(term),
            since: Some(since),
            ttl: None,
            lease_left: None,
            store_key: None,
        };
        self.observation = Observation { leader: Some(leader), ..Observation::default() };
        self.observed_at = now;
    }

    /// Notes the leader that the store reports.
    pub fn set_observation(&mut self, now: Time, observation: &Observation) {
        self.observation = observation.clone();
        self.observed_at = now;
    }

    /// Notes what an observer has seen, of which candidates and keys are shown.
    pub fn set_waiting(&mut self, observation: Option<Observation>) {
        self.waiting = observation;
    }

    /// Notes the candidate's new name and address.
    pub fn rename(&mut self, identity: &Identity) {
        self.identity = identity.clone();
        if let Some(leader) = self.observation.leader.as_mut().filter(|leader| leader.id == identity.id) {
            leader.name.clone_from(&identity.name);
            (leader.host, leader.port) = (Some(identity.host.clone()), identity.port);
        }
    }

    /// Notes who leads by now, if that is new. `wall` in milliseconds since 1970.
    pub fn note_change(&mut self, now: Time, wall: u64) {
        self.changes.note(now, wall, self.observation.leader.as_ref());
    }

    /// The main process runs, or has ended.
    pub fn set_pid(&mut self, pid: Option<i32>) {
        self.pid = pid;
    }

    /// Notes that elect was asked to stop.
    pub fn begin_shutdown(&mut self) {
        self.shutting_down = true;
    }

    /// The driver goes to sleep until then.
    pub fn set_wakeup(&mut self, at: Time) {
        self.liveness.wakes_at = at;
    }

    /// The worker has one more question to answer.
    pub fn request_sent(&mut self, now: Time) {
        let liveness = &mut self.liveness;
        // One after the other: it begins when the one before has been answered.
        let begins = liveness.answers_by.back().copied().unwrap_or(now).max(now);
        liveness.answers_by.push_back(begins + liveness.request_timeout);
    }

    /// It has answered the first of them.
    pub fn request_answered(&mut self) {
        self.liveness.answers_by.pop_front();
    }

    // ---- read by others

    /// Whether driver and worker do what they should, give or take a renewal.
    #[must_use]
    pub fn is_alive(&self, now: Time) -> bool {
        let first = self.liveness.answers_by.front().copied().unwrap_or(Time::NEVER);
        now <= self.liveness.wakes_at.min(first) + self.liveness.grace
    }

    /// Whether it takes part in the election.
    #[must_use]
    pub fn is_campaigning(&self) -> bool {
        !self.shutting_down && !matches!(self.phase, Phase::CoolingDown | Phase::Ineligible)
    }

    /// Whether it may campaign: it is healthy and not drained.
    #[must_use]
    pub fn is_eligible(&self) -> bool {
        !self.ineligible.any()
    }

    /// The reasons why it may not, in one word each.
    #[must_use]
    pub fn ineligible_reasons(&self) -> Vec<&'static str> {
        let IneligibleReasons { drained, unhealthy } = self.ineligible;
        [(drained, "drained"), (unhealthy, "unhealthy")]
            .into_iter()
            .filter_map(|(holds, reason)| holds.then_some(reason))
            .collect()
    }

    /// On its way out.
    #[must_use]
    pub fn is_shutting_down(&self) -> bool {
        self.shutting_down
    }

    /// Whether it is the leader: from the verification to the first moment of stopping, and never beyond the time at which
    /// it has to stop, whether it was awake then or not.
    #[must_use]
    pub fn is_leader(&self, now: Time) -> bool {
        self.phase.accepts_requests() && !self.shutting_down && self.lease.is_some_and(|lease| now < lease.stop_by)
    }

    /// Whether the leader command can be talked to: from its exec to the first moment of stopping.
    #[must_use]
    pub fn is_serving(&self, now: Time) -> bool {
        self.is_leader(now) && self.has_begun && (self.pid.is_some() || !self.has_command)
    }

    /// Whether it stands, and waits for a leader or for its turn.
    #[must_use]
    pub fn is_following(&self) -> bool {
        self.is_campaigning() && self.phase == Phase::Campaigning
    }

    /// The term of its own, or the leader's; as far as it is known.
    #[must_use]
    pub fn term(&self) -> Option<Term> {
        self.term.or_else(|| self.observation.leader.as_ref().and_then(|leader| leader.term))
    }

    /// Whether this is the candidate's id or name.
    #[must_use]
    pub fn is_called(&self, id_or_name: &str) -> bool {
        self.identity.id == id_or_name || self.identity.name == id_or_name
    }

    /// The leader's id and term, as last seen.
    #[must_use]
    pub fn leader(&self) -> Option<(&str, Option<Term>)> {
        self.observation.leader.as_ref().map(|leader| (leader.id.as_str(), leader.term))
    }

    /// The rest of the lease that leadership depends on, if it has an end.
    #[must_use]
    pub fn lease_left(&self, now: Time) -> Option<Duration> {
        self.lease.filter(|lease| lease.ends != Time::NEVER).map(|lease| lease.ends.since(now))
    }

    /// The candidate's boundary.
    #[must_use]
    pub fn boundary(&self) -> &Boundary {
        &self.boundary
    }

    /// The kind of its store.
    #[must_use]
    pub fn store(&self) -> &'static str {
        self.store
    }

    /// The boundary as it looks from here, with what is left of the leader's lease by now.
    #[must_use]
    pub fn observation(&self, now: Time) -> Observation {
        let mut observation = self.observation.clone();
        if let Some(waiting) = &self.waiting {
            observation.candidates = observation.candidates.or_else(|| waiting.candidates.clone());
            if let (Some(leader), Some(seen)) = (&mut observation.leader, &waiting.leader)
                && leader.id == seen.id
            {
                leader.store_key = leader.store_key.take().or_else(|| seen.store_key.clone());
            }
        }
        if let Some(leader) = &mut observation.leader {
            if leader.id == self.identity.id {
                leader.ttl =
                    self.lease.filter(|lease| lease.ends != Time::NEVER).map(|lease| lease.ends.since(lease.sent));
                leader.lease_left = self.lease_left(now);
            } else if let Some(left) = &mut leader.lease_left {
                *left = left.saturating_sub(now.since(self.observed_at));
            }
        }
        observation
    }

    /// The last changes of leadership, the oldest first.
    #[must_use]
    pub fn changes(&self, now: Time) -> Vec<ChangeEntry<'_>> {
        self.changes.entries(now)
    }

    /// This candidate, for the document.
    #[must_use]
    pub fn self_status(&self, now: Time) -> SelfStatus<'_> {
        SelfStatus {
            id: &self.identity.id,
            name: &self.identity.name,
            host: &self.identity.host,
            port: self.identity.port,
            state: self.state(),
            reasons: self.ineligible_reasons(),
            is_leader: self.is_leader(now),
            running: self.pid.is_some(),
            pid: self.pid,
        }
    }

    /// Where it is, in one word.
    #[must_use]
    pub fn state(&self) -> &'static str {
        match self.phase {
            Phase::Ended => "ended",
            Phase::Stopping | Phase::OustedHook | Phase::StoppingFollower => "stopping",
            Phase::Releasing => "releasing",
            Phase::Campaigning if self.observation.leader.is_some() => "following",
            Phase::Campaigning => "campaigning",
            Phase::Verifying => "verifying",
            Phase::Leading => "leading",
            Phase::LeadingIdle => "holding",
            Phase::CoolingDown => "sitting_out",
            Phase::Ineligible => "ineligible",
        }
    }
}

/// Role and leader, in one line: `following web-1 (term 42)`.
impl fmt::Display for StatusSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stopping = if self.shutting_down { "stopping" } else { self.state() };
        match (self.phase, self.term) {
            (Phase::Stopping | Phase::OustedHook | Phase::Releasing | Phase::StoppingFollower | Phase::Ended, term) => {
                f.write_str(stopping)?;
                term.map_or(Ok(()), |term| write!(f, ", term {term}"))
            }
            _ if self.shutting_down => f.write_str("stopping"),
            (Phase::Campaigning, _) => match (&self.observation.leader, &self.observation.obstacle) {
                (Some(leader), _) => {
                    write!(f, "following {}", short(&leader.name))?;
                    leader.term.map_or(Ok(()), |term| write!(f, " (term {term})"))
                }
                (None, Some(obstacle)) => write!(f, "waiting: {}", short(obstacle)),
                (None, None) => f.write_str("campaigning"),
            },
            (Phase::Ineligible, _) => write!(f, "ineligible: {}", self.ineligible_reasons().join(", ")),
            (Phase::CoolingDown, _) => f.write_str("sitting out: the command ended too often here"),
            (Phase::Verifying | Phase::Leading | Phase::LeadingIdle, _) => {
                f.write_str(self.state())?;
                self.term.map_or(Ok(()), |term| write!(f, ", term {term}"))?;
                self.pid.map_or(Ok(()), |pid| write!(f, ", pid {pid}"))
            }
        }
    }
}

fn short(text: &str) -> String {
    escaped(text).chars().take(NAME_CHARS_MAX).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    const BEGUN: RunState = RunState { has_follower: false, has_begun: true };

    pub const SECOND: Duration = Duration::from_secs(1);
    /// Late enough for a lease to be in the past.
    pub const NOW: Time = Time::from_nanos(100_000_000_000);

    /// Of `me`, which renews every two seconds and waits one for an answer.
    pub fn snapshot() -> StatusSnapshot {
        let identity = Identity { id: "me".into(), name: "web-2".into(), host: "host".into(), port: None };
        let candidacy = Candidacy { boundary: "cron".parse().expect("a name"), identity, ttl: 10 * SECOND };
        StatusSnapshot::new(&candidacy, "store", true, (2 * SECOND, SECOND))
    }

    fn lease(sent: Time) -> Lease {
        Lease { sent, stop_by: sent + 6 * SECOND, kill_by: sent + 8 * SECOND, ends: sent + 10 * SECOND }
    }

    fn leading() -> StatusSnapshot {
        let mut snapshot = snapshot();
        snapshot.elected(NOW, 43, 0);
        snapshot.update(Phase::Leading, Some(43), Some(lease(NOW)), BEGUN);
        snapshot.set_pid(Some(4711));
        snapshot
    }

    pub fn observed(name: &str) -> Observation {
        let leader = Leader {
            id: "other".into(),
            name: name.into(),
            host: None,
            port: None,
            term: Some(42),
            since: None,
            ttl: Some(10 * SECOND),
            lease_left: Some(8 * SECOND),
            store_key: None,
        };
        Observation { leader: Some(leader), ..Observation::default() }
    }

    #[test]
    fn a_leader_serves_from_exec_to_the_first_moment_of_stopping() {
        let mut snapshot = snapshot();
        snapshot.update(Phase::Verifying, Some(43), None, RunState::default());
        assert!(!snapshot.is_serving(NOW) && !snapshot.is_leader(NOW));
        snapshot.elected(NOW, 43, 0);
        snapshot.update(Phase::Leading, Some(43), Some(lease(NOW)), BEGUN);
        assert!(!snapshot.is_serving(NOW) && snapshot.is_leader(NOW), "nothing runs yet");
        snapshot.set_pid(Some(4711));
        assert!(snapshot.is_serving(NOW) && snapshot.is_leader(NOW));
        snapshot.update(Phase::Stopping, Some(43), Some(lease(NOW)), BEGUN);
        assert!(!snapshot.is_serving(NOW) && !snapshot.is_leader(NOW));
        let mut snapshot = leading();
        snapshot.begin_shutdown();
        assert!(!snapshot.is_serving(NOW) && !snapshot.is_campaigning(), "asked to stop, whatever follows");
    }

    #[test]
    fn a_campaigner_that_slept_through_its_lease_does_not_say_that_it_leads() {
        let snapshot = leading();
        assert!(snapshot.is_serving(NOW + 5 * SECOND));
        assert!(!snapshot.is_serving(NOW + 6 * SECOND) && !snapshot.is_leader(NOW + 6 * SECOND), "stop_by has passed");
        let own = snapshot.self_status(NOW + 6 * SECOND);
        assert!(!own.is_leader && own.running, "what runs is not denied");
    }

    #[test]
    fn a_loop_that_is_overdue_by_more_than_a_renewal_is_not_alive() {
        let mut snapshot = snapshot();
        snapshot.set_wakeup(NOW + SECOND);
        assert!(snapshot.is_alive(NOW + 3 * SECOND));
        assert!(!snapshot.is_alive(NOW + 4 * SECOND));
        snapshot.set_wakeup(Time::NEVER);
        assert!(snapshot.is_alive(NOW + 4 * SECOND), "a follower that waits for a hint has nothing to do");
    }

    #[test]
    fn a_worker_that_is_overdue_is_not_alive_and_one_question_after_the_other_takes_its_time() {
        let mut snapshot = snapshot();
        snapshot.request_sent(NOW);
        snapshot.request_sent(NOW);
        assert!(snapshot.is_alive(NOW + 3 * SECOND));
        assert!(!snapshot.is_alive(NOW + 4 * SECOND), "no answer to the first");
        snapshot.request_answered();
        assert!(snapshot.is_alive(NOW + 4 * SECOND));
        assert!(!snapshot.is_alive(NOW + 5 * SECOND), "none to the second");
        snapshot.request_answered();
        assert!(snapshot.is_alive(NOW + 100 * SECOND));
    }

    #[test]
    fn what_is_left_of_a_lease_runs_down_in_view_too() {
        let left = |snapshot: &StatusSnapshot, now| snapshot.observation(now).leader.expect("a leader").lease_left;
        let mut snapshot = snapshot();
        snapshot.set_observation(NOW, &observed("web-1"));
        assert_eq!(left(&snapshot, NOW + 3 * SECOND), Some(5 * SECOND));
        assert_eq!(left(&snapshot, NOW + 9 * SECOND), Some(Duration::ZERO));
        assert_eq!(left(&leading(), NOW + 3 * SECOND), Some(7 * SECOND));
    }

    #[test]
    fn role_and_leader_are_one_line() {
        let mut snapshot = snapshot();
        assert_eq!(snapshot.to_string(), "campaigning");
        snapshot.set_observation(NOW, &observed("web-1"));
        assert_eq!((snapshot.to_string().as_str(), snapshot.state()), ("following web-1 (term 42)", "following"));
        snapshot
            .set_observation(NOW, &Observation { obstacle: Some("held by orphans".into()), ..Observation::default() });
        assert_eq!((snapshot.to_string().as_str(), snapshot.state()), ("waiting: held by orphans", "campaigning"));
        let mut snapshot = leading();
        assert_eq!(snapshot.to_string(), "leading, term 43, pid 4711");
        snapshot.update(Phase::Stopping, Some(43), Some(lease(NOW)), BEGUN);
        assert_eq!(snapshot.to_string(), "stopping, term 43");
        snapshot.update(Phase::Releasing, None, None, RunState::default());
        assert_eq!(snapshot.to_string(), "releasing");
        snapshot.update(Phase::Campaigning, None, None, RunState::default());
        assert_eq!(snapshot.to_string(), "campaigning", "it is not its own follower");
        snapshot.begin_shutdown();
        assert_eq!(snapshot.to_string(), "stopping");
    }

    #[test]
    fn a_leaders_name_stays_on_the_line() {
        let mut snapshot = snapshot();
        snapshot.set_observation(NOW, &observed(&format!("x\nSTOPPING=1\u{1b}[2J{}", "y".repeat(10_000))));
        let line = snapshot.to_string();
        assert!(line.starts_with("following x\\nSTOPPING=1\\u{1b}[2Jyyy") && line.len() < 200, "{line}");
    }
}
