//! The network between the candidates and the store, and the store's end of it.

use std::time::Duration;

use super::choices::SimRng;
use super::clock::{CLOCK_DRIFT_MAX_PPM, lasts_at, ms};
use super::coverage::Seen;
use super::host::Delivery;
use super::run::{SimEvent, Simulation};
use super::store::{Effect, Reply, Request, Store};
use super::transcript;
use crate::Attempt;

/// How bad the network is, in percent.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct NetworkConditions {
    pub lost: u32,
    pub doubled: u32,
    pub slow: u32,
}

impl NetworkConditions {
    pub(super) fn draw(rng: &mut SimRng) -> NetworkConditions {
        NetworkConditions {
            lost: rng.of(&[0, 1, 5, 20]),
            doubled: rng.of(&[0, 2, 10, 30]),
            slow: rng.of(&[0, 2, 10, 30]),
        }
    }
}

impl Simulation {
    fn delay(&mut self) -> Duration {
        if self.setup.calm && self.setup.behavior.is_some() {
            return ms(3);
        }
        let ttl = self.setup.ttl;
        if self.rng.percent(self.network_conditions.slow) {
            let longest = if self.rng.percent(20) { 2 * ttl } else { ttl / 4 };
            self.rng.between(ms(20), longest)
        } else {
            self.rng.between(ms(1), ms(20))
        }
    }

    pub(super) fn send(&mut self, h: usize, attempt: Option<Attempt>, leg: u8, request: Request) {
        if matches!(self.store, Store::Lock(_)) {
            // No network: a call into the kernel.
            let reply = self.at_store(h, request);
            if let Some(attempt) = attempt {
                let at = self.now + self.rng.between(ms(0), ms(1));
                self.schedule_delivery(h, at, Delivery::Reply { attempt, leg, reply });
            }
            return;
        }
        if self.hosts[h].cuts.0 > 0 || self.rng.percent(self.network_conditions.lost) {
            self.request_lost(h, request);
            return;
        }
        let copies = if self.rng.percent(self.network_conditions.doubled) { 2 } else { 1 };
        if copies == 2 {
            self.coverage.count(Seen::DoubledRequest);
        }
        for copy in 0..copies {
            // The second is as a rule somebody's retry.
            let retry = if copy == 1 { self.rng.between(ms(0), self.setup.ttl / 2) } else { ms(0) };
            let at = self.now + self.delay() + retry;
            self.push(at, SimEvent::AtStore { host: h, attempt, leg, request });
        }
    }

    fn request_lost(&mut self, h: usize, request: Request) {
        self.note(h, || "    request lost".into());
        self.coverage.count(Seen::LostRequest);
        if matches!(request, Request::Revoke { .. } | Request::Free { .. }) {
            self.coverage.count(Seen::ReleaseLost);
        }
    }

    pub(super) fn request_arrives(&mut self, h: usize, attempt: Option<Attempt>, leg: u8, request: Request) {
        if self.store_is_down {
            self.request_lost(h, request);
            if let Some(attempt) = attempt
                && self.rng.percent(50)
            {
                self.coverage.count(Seen::Unreachable);
                let at = self.now + self.delay();
                self.schedule_delivery(h, at, Delivery::Reply { attempt, leg, reply: Reply::Unreachable });
            }
            return;
        }
        if let Some(attempt) = attempt {
            let last = &mut self.hosts[h].last_arrived;
            if attempt < *last {
                self.coverage.count(Seen::RequestOvertaken);
            }
            *last = attempt.max(*last);
        }
        let reply = self.at_store(h, request);
        self.note(h, || transcript::call(&request, &reply));
        if reply == Reply::Conflict {
            self.coverage.count(Seen::Conflict);
        }
        if reply == Reply::Doubtful {
            self.coverage.count(Seen::Doubtful);
        }
        let Some(attempt) = attempt else {
            self.coverage.count(Seen::KeeperReleased);
            return;
        };
        if self.hosts[h].cuts.1 > 0 || self.rng.percent(self.network_conditions.lost) {
            self.note(h, || "    reply lost".into());
            self.coverage.count(Seen::LostReply);
            return;
        }
        let copies = if self.rng.percent(self.network_conditions.doubled) { 2 } else { 1 };
        if copies == 2 {
            self.coverage.count(Seen::DoubledReply);
        }
        for _ in 0..copies {
            let at = self.now + self.delay();
            self.schedule_delivery(h, at, Delivery::Reply { attempt, leg, reply });
        }
    }

    fn at_store(&mut self, h: usize, request: Request) -> Reply {
        let mut effects = std::mem::take(&mut self.effects);
        let reply = self.store.apply(self.now, h, request, &mut effects);
        self.follow(&mut effects);
        self.effects = effects;
        reply
    }

    pub(super) fn look_at_leases(&mut self) {
        if self.store_is_down {
            return;
        }
        let mut effects = std::mem::take(&mut self.effects);
        let slack = self.rng.between(ms(0), ms(500));
        self.store.look(self.now, slack, &mut effects);
        self.follow(&mut effects);
        self.effects = effects;
    }

    pub(super) fn follow(&mut self, effects: &mut Vec<Effect>) {
        for effect in effects.drain(..) {
            match effect {
                Effect::Given(term, h) => self.check_given(h, term),
                Effect::Written(term, ttl) => {
                    let fastest = self.setup.clock_rates.map_or(CLOCK_DRIFT_MAX_PPM, |rates| rates.others);
                    self.guards.insert(term, self.now + lasts_at(fastest, ttl));
                    self.written.insert(term, (self.now, ttl));
                }
                Effect::Guarded(term, until) => {
                    self.guards.insert(term, until);
                }
                Effect::Freed(term) => {
                    self.guards.insert(term, self.now);
                    self.written.remove(&term);
                }
                Effect::Expired => self.coverage.count(Seen::LeaseExpired),
                Effect::Wrong(rule) => self.violate(rule, 0),
                Effect::Ousted(h, term) => self.tell(h, Delivery::Ousted(term)),
                Effect::Hint(h) => self.tell(h, Delivery::Hint),
                Effect::HintAll => {
                    for index in 0..self.present.len() {
                        self.tell(self.present[index], Delivery::Hint);
                    }
                }
                Effect::LookAgain(at) => self.push(at, SimEvent::Look),
            }
        }
    }

    /// A word of the store that nobody asked for: a watch, a channel. It may be lost.
    fn tell(&mut self, h: usize, delivery: Delivery) {
        let lossy = !self.setup.calm && !matches!(self.store, Store::Lock(_));
        if lossy && (self.hosts[h].cuts.1 > 0 || self.rng.percent(20)) {
            self.coverage.count(Seen::HintLost);
            return;
        }
        let at = self.now + self.delay();
        self.schedule_delivery(h, at, delivery);
    }
}
