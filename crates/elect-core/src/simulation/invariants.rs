//! The invariants, computed from the events of the model and never from the core's own state.

use std::time::Duration;

use super::super::time::Time;
use super::super::timing::TimingFlags;
use super::super::{KILL_ALLOWANCE, Phase};
use super::clock::{LATEST, ms};
use super::command::{Suspension, Tree};
use super::coverage::Seen;
use super::host::ProcessState;
use super::run::Simulation;
use super::store::Ask;
use crate::{Answer, Attempt, Event, Program, Renewed, Term};

/// A timer may be late, and a message to the keeper takes its time.
pub(super) const SLACK: Duration = LATEST.saturating_add(ms(10));

/// The expected state of one candidate.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "a ledger: each is a fact of its own")]
pub(super) struct ReferenceState {
    pub asked: TimingFlags,
    /// In force: as asked, or as granted.
    pub ttl: Option<Duration>,
    pub won: Option<Term>,
    /// The highest term that it was told of, or has led in (S1).
    pub highest_term: Term,
    pub request: Option<OpenRequest>,
    pub lease: Option<LeaseInterval>,
    /// When the last renewal that was credited was sent.
    pub credited: Option<Time>,
    pub ran_out: bool,
    /// The store has said so.
    pub lost: bool,
    /// Renewals asked for since the last one that was credited.
    pub attempts: u32,
    pub stop_at: Option<Time>,
    pub stopped_twice: bool,
    /// When the keeper is to kill the program that was started last, by the last order to stop it.
    pub kill_ordered: Option<Time>,
    /// The keeper's deadline as last seen.
    pub deadline: Option<(Term, Time)>,
    pub lost_before: bool,
    pub too_late_before: bool,
    /// When the campaigner was killed.
    pub died_at: Duration,
    /// The term in which a command was born, since the last win.
    led: Option<Term>,
    /// How many pings there have been since then.
    pings: (Duration, u32),
}

/// The request to the store that is under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct OpenRequest {
    pub attempt: Attempt,
    pub decided_at: Time,
    pub sent: Time,
    pub ask: Ask,
}

/// The lease as it follows from the renewals that the store really answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct LeaseInterval {
    pub term: Term,
    pub stop_by: Time,
    pub kill_by: Time,
}

impl ReferenceState {
    pub(super) fn new(asked: TimingFlags, ttl: Option<Duration>) -> ReferenceState {
        ReferenceState {
            asked,
            ttl,
            won: None,
            highest_term: 0,
            request: None,
            lease: None,
            credited: None,
            ran_out: false,
            lost: false,
            attempts: 0,
            stop_at: None,
            stopped_twice: false,
            kill_ordered: None,
            deadline: None,
            lost_before: false,
            too_late_before: false,
            died_at: Duration::ZERO,
            led: None,
            pings: (Duration::ZERO, 0),
        }
    }

    pub(super) fn new_term(&mut self, term: Term) {
        self.won = Some(term);
        self.led = None;
        (self.lease, self.ran_out, self.lost, self.attempts) = (None, false, false, 0);
        (self.stop_at, self.stopped_twice, self.too_late_before) = (None, false, false);
    }

    pub(super) fn request_timeout(&self) -> Duration {
        self.asked.request_timeout.unwrap_or(self.ttl.or(self.asked.ttl).expect("asked for") / 10)
    }

    /// Section 4 of the design, once more.
    fn lease(&self, term: Term, sent: Time) -> LeaseInterval {
        let Some(ttl) = self.ttl else { return LeaseInterval { term, stop_by: Time::NEVER, kill_by: Time::NEVER } };
        let margin = (ttl / 10).max(ms(250));
        let grace = self.asked.fence_grace.unwrap_or((ttl / 5).min(Duration::from_secs(10)));
        let kill_after = ttl.saturating_sub(margin + KILL_ALLOWANCE);
        LeaseInterval { term, stop_by: sent + kill_after.saturating_sub(grace), kill_by: sent + kill_after }
    }
}

impl Simulation {
    /// Notes what the candidate is about to be told. Returns whether that means that its lease is lost (K11).
    pub(super) fn note_event(&mut self, h: usize, now: Time, event: Event) -> bool {
        let (reference, phase) = (&self.hosts[h].reference, self.hosts[h].candidate.phase());
        let in_time = |attempt| {
            let open = reference.request.filter(|open| open.attempt == attempt);
            open.is_some_and(|open| now < open.decided_at + reference.request_timeout())
        };
        let in_time = matches!(event, Event::Answer { attempt, .. } if in_time(attempt));
        self.wait_limit_on_event(h, now, event, in_time);
        let reference = &mut self.hosts[h].reference;
        match event {
            Event::Answer { answer, .. } => {
                let Some(OpenRequest { sent, .. }) = reference.request.filter(|_| in_time) else {
                    self.coverage.count(Seen::LateReply);
                    return false;
                };
                return self.note_answer(h, now, answer, sent, phase);
            }
            Event::Ousted { term } if reference.won == Some(term) && !phase.may_follow() => {
                (reference.lost, reference.lost_before) = (true, true);
                return true;
            }
            Event::Stop(_) => {
                self.coverage.count(Seen::StopAsked);
                if phase == Phase::Leading && reference.stop_at.is_none() {
                    reference.stop_at = Some(now);
                } else if phase != Phase::Leading {
                    self.coverage.count(Seen::StopTwice);
                    reference.stopped_twice = true;
                }
            }
            Event::Ousted { .. }
            | Event::Tick
            | Event::Hint
            | Event::LeaderObserved(_)
            | Event::TermSeen(_)
            | Event::HookDue(_)
            | Event::Keeper(_)
            | Event::KeeperDied
            | Event::Swept { .. }
            | Event::Forward(_)
            | Event::ConfirmLeadership { .. }
            | Event::Resign(_)
            | Event::Drain(_)
            | Event::Undrain(_) => {}
        }
        false
    }

    /// Notes a reply that came in time. Returns whether it says that the lease is lost.
    fn note_answer(&mut self, h: usize, now: Time, answer: Answer, sent: Time, phase: Phase) -> bool {
        let reference = &mut self.hosts[h].reference;
        // The reply's request is done with, whatever it was good for.
        reference.request = None;
        match (answer, reference.won, phase) {
            (Answer::Renew(Renewed::Credited { ttl, .. }), Some(term), Phase::Verifying) => {
                self.coverage.count(Seen::Credited);
                if ttl > reference.ttl {
                    self.coverage.count(Seen::GrantedLonger);
                }
                reference.ttl = ttl;
                reference.attempts = 0;
                reference.credited = Some(sent);
                reference.lease = Some(reference.lease(term, sent));
            }
            (
                Answer::Renew(Renewed::Credited { .. }),
                Some(term),
                Phase::Leading | Phase::Stopping | Phase::LeadingIdle,
            ) => {
                if reference.lease.is_some_and(|lease| now < lease.stop_by) {
                    self.coverage.count(Seen::Credited);
                    if reference.attempts > 1 {
                        self.coverage.count(Seen::FailedButKept);
                    }
                    reference.attempts = 0;
                    reference.credited = Some(sent);
                    reference.lease = Some(reference.lease(term, sent));
                } else {
                    self.coverage.count(Seen::LateSuccess);
                }
            }
            (Answer::Renew(Renewed::Outdated), Some(_), Phase::Verifying) => {
                self.coverage.count(Seen::Outdated);
            }
            (
                Answer::Renew(Renewed::Lost),
                Some(_),
                Phase::Verifying | Phase::Leading | Phase::Stopping | Phase::LeadingIdle,
            ) => {
                self.coverage.count(Seen::Lost);
                (reference.lost, reference.lost_before) = (true, true);
                return true;
            }
            (Answer::Campaign(_) | Answer::Renew(_) | Answer::Release(_) | Answer::Observe(_), _, _) => {}
        }
        false
    }

    /// K11: told that the lease is lost, the campaigner has killed the tree before it did anything else.
    pub(super) fn check_killed_at_once(&mut self, h: usize) {
        let tree = &self.hosts[h].tree;
        if tree.has_processes() && tree.killed.is_none() {
            self.violate("K11: told that the lease is lost, and the command was not killed at once", h);
        }
    }

    /// 2.3: nothing is asked of the store for another term, and nothing given back, while the tree lives.
    pub(super) fn check_empty(&mut self, h: usize, rule: &'static str) {
        // A background hook of a candidate that does not lead may go on. The keeper's own checks include the hooks.
        if self.hosts[h].tree.has_processes() {
            self.violate(rule, h);
        }
    }

    /// 5.3: whoever takes a held record has seen it unchanged for its ttl, on a clock of its own.
    pub(super) fn check_given(&mut self, h: usize, term: Term) {
        let clock = self.hosts[h].clock;
        // Clocks count in whole nanoseconds.
        let sees = |at: Duration, ttl| (at + clock.lasts(ttl)).saturating_sub(ms(1) / 1_000);
        let guarded = self.written.iter().any(|(other, (at, ttl))| *other != term && self.now < sees(*at, *ttl));
        if guarded {
            self.violate("5.3: the boundary was given away before a lease had run out", h);
        }
        // That has been judged, by this taker's clock. The next one looks at what is written from here on: its own
        // clock may be the slower one.
        self.written.clear();
    }

    /// K4: the keeper is asked once in a renewal interval, and once more when its deadline has passed.
    pub(super) fn check_pings(&mut self, h: usize) {
        let reference = &mut self.hosts[h].reference;
        let (since, pings) = &mut reference.pings;
        if self.now >= *since + ms(500) {
            (*since, *pings) = (self.now, 0);
        }
        *pings += 1;
        if *pings > 5 {
            self.violate("K4: the keeper is pinged without pause", h);
        }
    }

    /// K4: no keeper that works is killed for its silence.
    pub(super) fn check_silence(&mut self, h: usize) {
        let host = &self.hosts[h];
        let awake = host.keeper.state.since().max(host.campaigner.since());
        if awake != Duration::MAX && self.now > awake + KILL_ALLOWANCE / 2 + SLACK {
            self.violate("K4: a keeper that works was killed for its silence", h);
        }
    }

    /// S1: at the beginning of a leadership.
    pub(super) fn check_term(&mut self, h: usize, term: Term) {
        let reference = &mut self.hosts[h].reference;
        let seen = reference.highest_term;
        reference.highest_term = seen.max(term);
        if term <= seen {
            self.violate("S1: a leader whose term is not above every term that it has seen", h);
        }
    }

    /// At the birth of a command: a lease that was credited, and a term above all before.
    pub(super) fn check_birth(&mut self, h: usize, term: Term) {
        let host = &self.hosts[h];
        let now = host.clock.at(self.now);
        let credited = host.reference.lease.filter(|lease| lease.term == term);
        let (elsewhere, last_term) = (host.tree.is_alive(), self.last_term);
        self.last_term = term;
        // Restarts keep the term; no candidate has had a later one in between, and the term was not won a second time.
        let before = self.hosts[h].reference.led.replace(term);
        let again = before == Some(term) && term == last_term;
        if credited.is_none() {
            self.violate("T1: a command was started without a lease that was credited", h);
        } else if credited.is_some_and(|lease| now >= lease.kill_by) {
            self.violate("K5: a command was started after its deadline", h);
        } else if term <= last_term && !again {
            self.violate("S1: terms do not rise", h);
        } else if elsewhere {
            self.violate("2.3: a command was started beside the old one", h);
        }
    }

    /// K5: at exec, the deadline that the keeper held at the fork has not passed.
    pub(super) fn check_armed(&mut self, h: usize) {
        let host = &self.hosts[h];
        let now = host.clock.at(self.now);
        if !host.tree.armed.is_some_and(|(term, kill_by)| term == host.tree.term && now < kill_by) {
            self.violate("K5: a command was executed after the deadline that was armed at its fork", h);
        }
    }

    /// At SIGKILL: if the stop was ours, the command has had its time (T4).
    pub(super) fn check_kill(&mut self, h: usize) {
        let host = &self.hosts[h];
        let (tree, reference) = (&host.tree, &host.reference);
        if !tree.is_command() {
            return self.check_ungoverned_kill(h);
        }
        let now = host.clock.at(self.now);
        let ours = match (reference.stop_at, tree.ended_first.map(|at| host.clock.at(at))) {
            (Some(asked), Some(ended)) => asked.min(ended),
            (Some(at), None) | (None, Some(at)) => at,
            (None, None) => return,
        };
        let running_out = reference.lease.is_none_or(|lease| now >= lease.kill_by);
        let excused = tree.disturbed || reference.lost || reference.stopped_twice || running_out;
        if tree.killed.is_none() && tree.is_alive() && !excused && now < ours + host.stop_timeout {
            self.violate("T4: a stop of ours was cut short although the lease was renewed", h);
        }
    }

    /// A program that no deadline governs is killed for a stop or for its own time-out, and for nothing else.
    fn check_ungoverned_kill(&mut self, h: usize) {
        let host = &self.hosts[h];
        let (tree, reference) = (&host.tree, &host.reference);
        // A keeper that was stopped may read the order to start it together with an order to stop it whose time is over.
        let born = host.clock.at(tree.born_at + SLACK);
        let ordered = reference.kill_ordered.is_some_and(|kill_at| born >= kill_at);
        let excused =
            tree.stopped.is_some() || tree.disturbed || reference.stopped_twice || tree.killed.is_some() || ordered;
        if tree.is_governed() || excused || !tree.is_alive() {
            return;
        }
        let timed = matches!(tree.program, Some(Program::OnOusted { .. }));
        let timeout = host.clock.lasts(host.restart_check.policy.hooks.timeout);
        if !timed || self.now + ms(1) < host.follower_check.ordered_at(tree) + timeout {
            self.violate("K1: something was killed for the deadline of a term that is not its own", h);
        }
    }

    /// K1: while a tree lives, the keeper's deadline is its term's and only moves forward.
    pub(super) fn check_deadline(&mut self, h: usize) {
        let host = &mut self.hosts[h];
        let Some((term, kill_by)) = host.keeper.machine.deadline() else { return };
        let before = host.reference.deadline.replace((term, kill_by));
        let back = before.is_some_and(|before| term == before.0 && kill_by < before.1);
        let foreign = host.tree.is_alive() && host.tree.is_governed() && host.tree.term != term;
        if back {
            self.violate("K1: the keeper's deadline moved back", h);
        } else if foreign {
            self.violate("K1: the keeper holds the deadline of another term", h);
        }
    }

    /// After every step.
    pub(super) fn check_all(&mut self) {
        let mut living = 0;
        for index in 0..self.present.len() {
            let h = self.present[index];
            self.check_running_out(h);
            self.check_wait_limit(h);
            self.check_follower(h);
            self.check_hooks(h);
            self.check_checks(h);
            self.check_suspended(h);
            let host = &self.hosts[h];
            if !host.tree.is_alive() || !host.tree.is_governed() {
                continue;
            }
            let excused = host.tree.is_stuck(self.now) && (!self.setup.calm || host.tree.disturbed);
            if excused {
                continue;
            }
            living += 1;
            let judges_lease = self.setup.clock_rates.is_none_or(|rates| !rates.only_overlap_counts);
            if judges_lease && self.guards.get(&host.tree.term).is_none_or(|until| self.now >= *until) {
                self.violate("T1: a command outlived its lease at the store", h);
            }
            self.check_signals(h);
        }
        if living > 1 {
            self.violate("2.1: two leader commands at once", self.present[0]);
        }
    }

    /// 6: a background hook is killed after its time-out, with its leftovers if it runs alone.
    fn check_hooks(&mut self, h: usize) {
        let host = &self.hosts[h];
        let awake = host.keeper.state.since();
        if awake == Duration::MAX || host.hooks.is_empty() {
            return;
        }
        let (alone, timeout) = (!host.keeper.machine.has_tree(), host.restart_check.policy.hooks.timeout);
        let overdue = |hook: &Tree| {
            let due = (hook.born_at + host.clock.lasts(timeout)).max(awake).max(host.alone_since);
            let lives = if alone { hook.has_processes() } else { hook.main_is_alive() };
            lives && hook.killed.is_none() && self.now > due + SLACK
        };
        if host.hooks.iter().any(overdue) {
            self.violate("6: a background hook outlived its time-out", h);
        }
    }

    /// A program that was asked to end must not stay stopped by the terminal.
    fn check_suspended(&mut self, h: usize) {
        let host = &self.hosts[h];
        let awake = host.keeper.state.since();
        let stays = host.tree.suspension != Suspension::None && host.tree.killed.is_none() && host.tree.main_is_alive();
        let since = host.tree.stopped.map(|at| at.max(awake).max(host.suspended_at));
        if since.is_some_and(|since| stays && awake != Duration::MAX && self.now > since + SLACK) {
            self.violate("K10: a program that was asked to end stays stopped", h);
        }
    }

    /// T2, T3, T4: one failed renewal is not a lost lease, and renewals go on until the end.
    fn check_running_out(&mut self, h: usize) {
        let host = &mut self.hosts[h];
        let phase = host.candidate.phase();
        let Some(lease) = host.reference.lease else { return };
        let holds = matches!(phase, Phase::Leading | Phase::Stopping) && host.campaigner.is_running();
        if host.reference.ran_out || !holds || host.clock.at(self.now) < lease.stop_by {
            return;
        }
        host.reference.ran_out = true;
        host.reference.lost_before = true;
        self.coverage.count(Seen::RanOut);
        let early = host.reference.attempts < 2 && !host.reference.lost;
        // A campaigner that slept in this lease may have missed its renewals.
        let slept = host.reference.credited.is_some_and(|sent| host.campaigner.since() > host.clock.when(sent));
        if early && !slept && host.tree.is_alive() && host.tree.term == lease.term && !host.tree.disturbed {
            self.violate("T3, T4: a lease ran out after less than two attempts to renew it", h);
        }
    }

    /// SIGTERM by `stop_by`, SIGKILL by `kill_by`, as far as anybody was awake to send them.
    fn check_signals(&mut self, h: usize) {
        let host = &self.hosts[h];
        let Some(lease) = host.reference.lease.filter(|lease| lease.term == host.tree.term) else { return };
        let (campaigner, keeper) = (host.campaigner.since(), host.keeper.state.since());
        let overdue = |at: Time, awake: Duration| {
            let due = host.clock.when(at).max(awake);
            due != Duration::MAX && self.now > due + SLACK
        };
        let unkilled = host.tree.killed.is_none();
        let late_kill = unkilled && overdue(lease.kill_by, campaigner.min(keeper));
        // A dead keeper's tree is killed by sweeping, as soon as the campaigner hears of it.
        let late_stop = unkilled && host.tree.stopped.is_none() && overdue(lease.stop_by, campaigner.max(keeper));
        if late_kill {
            self.violate("K1: no SIGKILL by kill_by", h);
        } else if late_stop {
            self.violate("4: no SIGTERM by stop_by", h);
        } else if host.campaigner == ProcessState::Dead
            && host.tree.stopped.is_none()
            && unkilled
            && keeper != Duration::MAX
            && self.now > keeper.max(host.reference.died_at) + SLACK
        {
            self.violate("K2: the campaigner is gone and the keeper does not stop the command", h);
        }
    }
}
