//! Health checks and drains in the model, and the rules of section 6 about them (H1, H2, H6, H8), followed once more.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::time::Time;
use super::clock::ms;
use super::coverage::Seen;
use super::host::Delivery;
use super::run::Simulation;
use crate::{
    Attempt, CheckEnd, CheckNumber, CommandEnd, Event, FromKeeper, Health, KILL_ALLOWANCE, Notice, Phase, Policy,
    Program, Reason, RequestId,
};

/// The reference for one candidate.
#[derive(Debug)]
pub(super) struct EligibilityCheck {
    health: Option<Health>,
    pub drained: bool,
    /// Whether checks succeed at present.
    is_sound: bool,
    is_healthy: bool,
    successes: u32,
    failures: u32,
    /// The outstanding check, the time at which it counts as failed, and whether it has.
    outstanding: Option<(CheckNumber, Time, bool)>,
    /// The drains that have no answer yet.
    draining: BTreeMap<RequestId, Duration>,
    /// The last time at which it became ineligible.
    changed_at: Duration,
    /// The stops for ill health in a row, and the time of the last one.
    unhealthy_stops: (u32, Duration),
}

impl EligibilityCheck {
    pub(super) fn new(policy: Policy) -> EligibilityCheck {
        EligibilityCheck {
            health: policy.health,
            drained: policy.drained,
            is_sound: true,
            is_healthy: policy.health.is_none(),
            successes: 0,
            failures: 0,
            outstanding: None,
            draining: BTreeMap::new(),
            changed_at: Duration::MAX,
            unhealthy_stops: (0, ms(0)),
        }
    }

    fn is_eligible(&self) -> bool {
        self.is_healthy && !self.drained
    }

    /// Takes in a result that counts.
    fn result(&mut self, success: bool) {
        let Some(health) = self.health else { return };
        (self.successes, self.failures) = if success { (self.successes + 1, 0) } else { (0, self.failures + 1) };
        if self.successes >= health.rise {
            self.is_healthy = true;
        } else if self.failures >= health.fall {
            self.is_healthy = false;
        }
    }
}

impl Simulation {
    /// Before the candidate hears of an event.
    pub(super) fn eligibility_on_event(&mut self, h: usize, now: Time, event: Event) {
        let was_eligible = self.hosts[h].eligibility_check.is_eligible();
        self.eligibility_changes(h, now, event);
        let check = &mut self.hosts[h].eligibility_check;
        if was_eligible && !check.is_eligible() {
            check.changed_at = self.now;
        }
    }

    fn eligibility_changes(&mut self, h: usize, now: Time, event: Event) {
        let counts = self.hosts[h].candidate.phase() != Phase::LeadingIdle;
        let check = &mut self.hosts[h].eligibility_check;
        if let (Some((_, until, is_given_up)), Some(health)) = (&mut check.outstanding, check.health)
            && now >= *until
        {
            (*until, *is_given_up) = (now + health.interval, true);
            if counts {
                check.result(false);
            }
            self.coverage.count(Seen::CheckGivenUp);
        }
        let check = &mut self.hosts[h].eligibility_check;
        match event {
            Event::Keeper(FromKeeper::CheckEnded { check: number, end }) => {
                let known = check.outstanding.take_if(|(outstanding, ..)| *outstanding == number);
                if known.is_none_or(|(_, _, is_given_up)| is_given_up) {
                    self.coverage.count(Seen::OldCheck);
                    return;
                }
                let success = end == CheckEnd::Ended(CommandEnd::Exited(0));
                if counts && end != CheckEnd::Interrupted {
                    check.result(success);
                }
            }
            Event::Drain(_) => check.drained = true,
            Event::Undrain(_) => check.drained = false,
            Event::Tick
            | Event::Answer { .. }
            | Event::Hint
            | Event::LeaderObserved(_)
            | Event::TermSeen(_)
            | Event::HookDue(_)
            | Event::Ousted { .. }
            | Event::Keeper(_)
            | Event::KeeperDied
            | Event::Swept { .. }
            | Event::Stop(_)
            | Event::Forward(_)
            | Event::ConfirmLeadership { .. }
            | Event::Resign(_) => {}
        }
    }

    /// The same for a request to the store. One that is due when an event comes is sent before the event is looked at.
    pub(super) fn check_campaigns(&mut self, h: usize) {
        if self.hosts[h].eligibility_check.changed_at != self.now {
            self.check_eligible(h);
        }
    }

    /// H1, H2: no candidate campaigns, or starts anything as a leader, while it is not eligible.
    pub(super) fn check_eligible(&mut self, h: usize) {
        let check = &self.hosts[h].eligibility_check;
        if !check.is_healthy {
            self.violate("H1: an unhealthy candidate campaigns or leads", h);
        } else if check.drained {
            self.violate("H2: a drained candidate campaigns or leads", h);
        }
    }

    /// H5: one check at a time.
    pub(super) fn note_check_start(&mut self, h: usize, now: Time, number: CheckNumber) {
        let check = &mut self.hosts[h].eligibility_check;
        let Some(health) = check.health else {
            return self.violate("H3: a check starts, and there is none", h);
        };
        if check.outstanding.is_some() {
            return self.violate("H5: a check starts beside another one", h);
        }
        check.outstanding = Some((number, now + health.timeout + 2 * KILL_ALLOWANCE, false));
    }

    /// The exit status of a check that begins. Whatever it checks fails and recovers now and then, and is well in the end.
    pub(super) fn status_of_check(&mut self, h: usize) -> u8 {
        if self.hosts[h].eligibility_check.health.is_none() {
            return u8::from(self.rng.percent(30));
        }
        let flips = self.rng.percent(12);
        let check = &mut self.hosts[h].eligibility_check;
        check.is_sound = self.quiet || check.is_sound != flips;
        u8::from(!check.is_sound)
    }

    /// An observer reads, and changes nothing.
    pub(super) fn observes(&mut self, h: usize, attempt: Attempt) {
        let fails = !self.quiet && (self.store_is_down || self.rng.percent(10));
        let at = self.now + self.rng.between(ms(0), ms(50));
        self.schedule_delivery(h, at, Delivery::Observed { attempt, answered: !fails });
    }

    /// Now and then an operator drains a candidate, or ends a drain. In the end no candidate stays drained.
    pub(super) fn drain_or_undrain(&mut self, h: usize, after: Event) {
        let asked = matches!(after, Event::Drain(_) | Event::Undrain(_));
        if !self.setup.eligibility || asked || !self.hosts[h].campaigner.is_running() {
            return;
        }
        let drained = self.hosts[h].eligibility_check.drained;
        if self.quiet && !drained || !self.quiet && !self.rng.percent(3) {
            return;
        }
        // A second drain is answered like the first.
        if self.quiet || drained && self.rng.percent(70) {
            let request_id = self.hosts[h].request_check.undrains();
            return self.deliver(h, Event::Undrain(request_id));
        }
        let request_id = self.hosts[h].request_check.next_id();
        self.hosts[h].eligibility_check.draining.insert(request_id, self.now);
        self.deliver(h, Event::Drain(request_id));
    }

    /// H8: nothing of a candidate that is told to be drained runs, and the store holds nothing for it.
    pub(super) fn drained(&mut self, h: usize, request_id: RequestId, released: bool) {
        if self.hosts[h].eligibility_check.draining.remove(&request_id).is_none() {
            self.violate("H8: an answer to another drain, or a second one", h);
        }
        self.coverage.count(if released { Seen::Drained } else { Seen::DrainedByExpiry });
        // A follower may go on.
        if self.hosts[h].tree.program != Some(Program::Follower) {
            self.check_empty(h, "H8: told that it is drained while its tree was alive");
        }
        if self.hosts[h].candidate.phase().holds_term() {
            self.violate("H8: told that it is drained, and it leads", h);
        }
        // A store that was started again may have prolonged it, which a candidate cannot know.
        let reference = &self.hosts[h].reference;
        let ends = reference.credited.zip(reference.ttl).map(|(sent, ttl)| sent + ttl);
        if !released && ends.is_some_and(|ends| self.hosts[h].clock.at(self.now) < ends) {
            self.violate("H8: told that its lease has run out, and it has not", h);
        }
    }

    /// Whether a denial is that of a drain.
    pub(super) fn drain_denied(&mut self, h: usize, request_id: RequestId) -> bool {
        let denied = self.hosts[h].eligibility_check.draining.remove(&request_id).is_some();
        if denied {
            self.coverage.count(Seen::DrainDenied);
        }
        denied
    }

    pub(super) fn eligibility_on_notice(&mut self, h: usize, report: &Notice) {
        let now = self.now;
        let check = &mut self.hosts[h].eligibility_check;
        if let Notice::Stopping { reason, .. } = report {
            match reason {
                Reason::Unhealthy => {
                    check.unhealthy_stops = (check.unhealthy_stops.0 + 1, now);
                    self.coverage.count(Seen::StoppedUnhealthy);
                }
                Reason::Drained => self.coverage.count(Seen::StoppedDrained),
                Reason::CommandEnded
                | Reason::CannotStart(_)
                | Reason::Asked(_)
                | Reason::Resigned
                | Reason::NotAccepted
                | Reason::RunningOut
                | Reason::Lost
                | Reason::KeeperDied => {}
            }
        } else if matches!(report, Notice::Elected { .. }) {
            // H6: each further resignation in a row is followed by twice the rest.
            let (stops, at) = check.unhealthy_stops;
            let interval = check.health.map_or(ms(0), |health| health.interval);
            let rest = stops.checked_sub(2).map_or(ms(0), |times| interval * 2u32.pow(times.min(10)));
            let eligible = check.is_eligible();
            let rested = self.hosts[h].clock.lasts(rest);
            if now + ms(1) < at + rested {
                self.violate("H6: a candidate that is unhealthy again and again did not rest", h);
            }
            if !eligible {
                self.check_eligible(h);
            }
        }
    }
}
