//! When a candidate may take the record of an observed store (DESIGN.md 5.3). Pure: what was seen and when goes in, what may
//! be done comes out. Redis and MongoDB share it, and the simulation of the election runs this very code.
//!
//! Such a store grants no leases: it compares and swaps one record, and candidates watch each other. What a candidate knows
//! of time is how long *it* has seen nothing change, on its own boot clock. So
//!
//! - a record that says *free* is taken at once: whoever freed it has nothing running;
//! - a record that says *held* is taken after it has stood unchanged for the ttl that is in it, its holder's;
//! - where there is no record that can be trusted, because it is missing from a store that may have lost it, or because it was written in another life of the
//!   server and may be older than what was lost since, the wait is the longest ttl that anybody may be counting on.
//!
//! Each take names the version that was observed, and the store takes nothing if it has changed since. A version never comes
//! back: the nonce is fresh with every write.
//!
//! What is not here: requests, answers, and what a holder does.

use std::time::Duration;

use crate::election::{Term, Time};

/// A record, as far as the rule is concerned. `N` is how candidates and lives of the server are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace<N> {
    /// Which candidate wrote it.
    pub holder: N,
    /// Under which term.
    pub term: Term,
    /// Fresh with every write of that holder, and larger than the one before.
    pub nonce: u64,
    /// What the holder counts on after each write.
    pub ttl: Duration,
    /// Whether it leads; otherwise it has released.
    pub held: bool,
    /// The life of the server in which it was *taken*: a renewal proves nothing about what a restart may have lost.
    pub incarnation: N,
}

/// What a store looked like at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View<N> {
    /// The present life of the server.
    pub incarnation: N,
    /// What it holds.
    pub record: Option<Trace<N>>,
}

/// What a missing record means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// The store may have forgotten it, and a leader with it.
    Fleeting,
    /// There has been none: the store forgets nothing that it has confirmed. A person who deletes a record is not waited for.
    Lasting,
}

/// What may be done about what was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The take whose answer never came has reached the store.
    Mine(Term),
    /// It is held under our name by a term that is over: to be released, so that nobody waits for it. Nothing of ours runs,
    /// or we would not be asking.
    GiveBack(Term),
    /// Take it, naming the view.
    Take,
    /// Not yet.
    Wait {
        /// So much longer, if nothing changes.
        left: Duration,
        /// Whether that is because somebody leads. A holder that has not been seen to do anything may be dead as well.
        decided: bool,
    },
}

/// What distinguishes a take from all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bid {
    /// By which it is recognized.
    pub nonce: u64,
    /// The term must be at least so large.
    pub floor: Term,
}

/// One candidate's observations of one boundary.
#[derive(Debug)]
pub struct Takeover<N> {
    me: N,
    ttl: Duration,
    memory: Memory,
    /// What is there, and since when nothing else has been.
    seen: Option<(View<N>, Time)>,
    /// Somebody else has written a held record since we began to look.
    led: bool,
    longest_ttl: Duration,
    highest_term: Term,
    /// Of the take whose outcome is not known.
    outstanding: Option<u64>,
    nonces: u64,
    #[cfg(test)]
    sabotage: Option<Sabotage>,
}

/// Rules that tests break on purpose (P4). Outside tests nothing does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// A held record is taken at once.
    HeldTakenAtOnce,
    /// A missing record, or one of another life of the server, is taken at once.
    MissingTakenAtOnce,
    /// The wait is for the candidate's own ttl instead of the record's.
    OwnTtlCounts,
    /// The wait without a record to be trusted forgets the ttls of others.
    OthersTtlsForgotten,
    /// A record with my name is mine, whatever its nonce.
    MineByIdAlone,
    /// A free record is taken at once whatever life of the server it was taken in.
    OldFreeTakenAtOnce,
}

impl<N: Clone + PartialEq> Takeover<N> {
    /// Of a candidate that has seen nothing yet, and asks for this ttl.
    pub fn new(me: N, ttl: Duration, memory: Memory) -> Takeover<N> {
        Takeover {
            me,
            ttl,
            memory,
            seen: None,
            led: false,
            longest_ttl: ttl,
            highest_term: 0,
            outstanding: None,
            nonces: 0,
            #[cfg(test)]
            sabotage: None,
        }
    }

    /// What was taken for granted about the store has turned out to be otherwise.
    #[cfg(feature = "mongodb")]
    pub fn trusts(&mut self, memory: Memory) {
        self.memory = memory;
    }

    /// The same with a rule broken.
    #[cfg(test)]
    pub fn breaking(self, sabotage: Option<Sabotage>) -> Takeover<N> {
        Takeover { sabotage, ..self }
    }

    /// For a write of ours: every one has its own.
    pub fn nonce(&mut self) -> u64 {
        self.nonces += 1;
        self.nonces
    }

    /// For a take: from now on it may be found in the store.
    pub fn bid(&mut self) -> Bid {
        let nonce = self.nonce();
        self.outstanding = Some(nonce);
        Bid { nonce, floor: self.highest_term.saturating_add(1) }
    }

    /// How long it takes at most until a record that nobody touches is taken. For people.
    #[cfg(feature = "redis")]
    pub fn longest_wait(&self) -> Duration {
        self.longest_ttl
    }

    /// The nonce of a take whose outcome is not known.
    pub fn outstanding(&self) -> Option<u64> {
        self.outstanding
    }

    /// There is nothing of ours to be found any more: a take was refused, or what it won was given back.
    pub fn forget(&mut self) {
        self.outstanding = None;
    }

    /// Looks at an answer that had arrived by `received` (T1: an observer counts from after receiving).
    pub fn decide(&mut self, received: Time, view: &View<N>) -> Decision {
        let since = self.note(received, view);
        let fresh = view.record.as_ref().filter(|record| record.incarnation == view.incarnation);
        let rest = match fresh {
            Some(record) if self.is_mine(record) => return Decision::Mine(record.term),
            Some(record) if record.held && record.holder == self.me => return Decision::GiveBack(record.term),
            Some(record) if !record.held => return Decision::Take,
            Some(_) if self.breaks(Sabotage::HeldTakenAtOnce) => return Decision::Take,
            Some(_) if self.breaks(Sabotage::OwnTtlCounts) => self.ttl,
            Some(record) => record.ttl,
            None if view.record.is_none() && self.memory == Memory::Lasting => return Decision::Take,
            None if self.breaks(Sabotage::MissingTakenAtOnce) => return Decision::Take,
            None if self.breaks(Sabotage::OldFreeTakenAtOnce) && view.record.as_ref().is_some_and(|old| !old.held) => {
                return Decision::Take;
            }
            None if self.breaks(Sabotage::OthersTtlsForgotten) => self.ttl,
            None => self.longest_ttl,
        };
        match rest.saturating_sub(received.since(since)) {
            Duration::ZERO => Decision::Take,
            left => Decision::Wait { left, decided: self.led },
        }
    }

    /// Takes the view in. Returns since when it has been like this, as far as we have seen.
    fn note(&mut self, received: Time, view: &View<N>) -> Time {
        if let Some(record) = &view.record {
            self.highest_term = self.highest_term.max(record.term);
            self.longest_ttl = self.longest_ttl.max(record.ttl);
        }
        match &self.seen {
            Some((before, since)) if before == view => *since,
            before => {
                // A server that was started again has written nothing by that.
                let written = before.as_ref().is_some_and(|(before, _)| before.record != view.record);
                self.led |= written && view.record.as_ref().is_some_and(|now| now.held && now.holder != self.me);
                self.seen = Some((view.clone(), received));
                received
            }
        }
    }

    fn is_mine(&self, record: &Trace<N>) -> bool {
        let by_nonce = Some(record.nonce) == self.outstanding;
        record.held && record.holder == self.me && (by_nonce || self.breaks(Sabotage::MineByIdAlone))
    }

    #[cfg(test)]
    fn breaks(&self, rule: Sabotage) -> bool {
        self.sabotage == Some(rule)
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "the same question as in the tests")]
    const fn breaks(&self, _: Sabotage) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn at(seconds: u64) -> Time {
        Time::BOOT + s(seconds)
    }

    /// A candidate called 1 with a ttl of 10 s.
    fn me() -> Takeover<u8> {
        Takeover::new(1, s(10), Memory::Fleeting)
    }

    fn held(holder: u8, nonce: u64) -> Trace<u8> {
        Trace { holder, term: 7, nonce, ttl: s(10), held: true, incarnation: 100 }
    }

    fn free(holder: u8, nonce: u64) -> Trace<u8> {
        Trace { held: false, ..held(holder, nonce) }
    }

    fn view(record: impl Into<Option<Trace<u8>>>) -> View<u8> {
        View { incarnation: 100, record: record.into() }
    }

    const fn wait(seconds: u64, decided: bool) -> Decision {
        Decision::Wait { left: s(seconds), decided }
    }

    #[test]
    fn a_free_record_is_taken_at_once() {
        assert_eq!(me().decide(at(5), &view(free(2, 1))), Decision::Take);
    }

    #[test]
    fn a_held_record_is_taken_when_it_has_stood_unchanged_for_its_own_ttl() {
        let mut me = me();
        let short = view(Trace { ttl: s(4), ..held(2, 1) });
        assert_eq!(me.decide(at(5), &short), wait(4, false));
        assert_eq!(me.decide(at(8), &short), wait(1, false));
        assert_eq!(me.decide(at(9), &short), Decision::Take);
        let long = view(Trace { ttl: s(60), ..held(2, 2) });
        assert_eq!(me.decide(at(9), &long), wait(60, true), "a renewal: all over again");
        assert_eq!(me.decide(at(68), &long), wait(1, true));
        assert_eq!(me.decide(at(69), &long), Decision::Take);
    }

    #[test]
    fn a_missing_record_is_waited_for_as_long_as_anybody_may_count_on() {
        let mut one = me();
        assert_eq!(one.decide(at(0), &view(None)), wait(10, false));
        assert_eq!(one.decide(at(10), &view(None)), Decision::Take);
        let mut one = me();
        one.decide(at(0), &view(Trace { ttl: s(60), ..held(2, 1) }));
        assert_eq!(one.decide(at(1), &view(None)), wait(60, false), "a ttl that was seen once");
        assert_eq!(one.decide(at(61), &view(None)), Decision::Take);
    }

    #[test]
    fn a_missing_record_is_taken_at_once_where_none_is_ever_lost() {
        let mut one = Takeover::new(1, s(10), Memory::Lasting);
        assert_eq!(one.decide(at(0), &view(None)), Decision::Take);
        assert_eq!(one.decide(at(1), &view(held(2, 1))), wait(10, true), "somebody was quicker");
        assert_eq!(one.decide(at(2), &view(None)), Decision::Take, "it was deleted");
        assert_eq!(one.bid().floor, 8, "terms rise all the same");
        let old = View { incarnation: 101, ..view(held(2, 1)) };
        assert_eq!(one.decide(at(3), &old), wait(10, true), "one that is there is not missing");
    }

    #[test]
    fn a_record_of_another_life_of_the_server_is_waited_for_whatever_it_says() {
        for record in [held(2, 1), free(2, 1), free(1, 1), held(1, 1)] {
            let mut me = me();
            let old = View { incarnation: 101, record: Some(Trace { ttl: s(20), ..record }) };
            assert_eq!(me.decide(at(0), &old), wait(20, false), "{record:?}");
            assert_eq!(me.decide(at(20), &old), Decision::Take, "{record:?}");
        }
    }

    #[test]
    fn a_server_that_is_started_again_starts_the_wait_again_and_leads_nothing() {
        let mut me = me();
        me.decide(at(0), &view(held(2, 1)));
        let restarted = View { incarnation: 101, ..view(held(2, 1)) };
        assert_eq!(me.decide(at(9), &restarted), wait(10, false));
        let again = View { incarnation: 102, ..restarted };
        assert_eq!(me.decide(at(18), &again), wait(10, false));
        assert_eq!(me.decide(at(28), &again), Decision::Take);
    }

    #[test]
    fn a_take_whose_answer_was_lost_is_found_by_its_nonce_alone() {
        let mut me = me();
        me.decide(at(0), &view(free(2, 1)));
        let Bid { nonce, floor } = me.bid();
        assert_eq!(floor, 8);
        let mine = Trace { term: floor, nonce, ..held(1, nonce) };
        assert_eq!(me.decide(at(1), &view(mine)), Decision::Mine(floor));
        let somebody_elses = view(Trace { holder: 2, ..mine });
        assert!(matches!(me.decide(at(1), &somebody_elses), Decision::Wait { .. }), "the same number is not enough");
        me.forget();
        assert_eq!(me.decide(at(2), &view(mine)), Decision::GiveBack(floor), "what is over must not come back");
    }

    #[test]
    fn nobody_waits_for_himself() {
        let mut me = me();
        assert_eq!(me.decide(at(0), &view(held(1, 40))), Decision::GiveBack(7));
        assert_eq!(me.decide(at(0), &view(free(1, 41))), Decision::Take);
    }

    #[test]
    fn terms_rise_above_everything_that_was_ever_seen() {
        let mut me = me();
        me.decide(at(0), &view(Trace { term: 500, ..held(2, 1) }));
        me.decide(at(1), &view(None));
        assert_eq!(me.bid().floor, 501);
        me.decide(at(2), &view(Trace { term: 3, ..held(2, 2) }));
        assert_eq!(me.bid().floor, 501);
    }

    #[test]
    fn no_two_writes_have_the_same_nonce() {
        let mut me = me();
        let nonces = [me.nonce(), me.bid().nonce, me.nonce(), me.bid().nonce];
        assert!(nonces.windows(2).all(|pair| pair[0] < pair[1]), "{nonces:?}");
        assert_eq!(me.outstanding(), Some(nonces[3]));
    }

    #[test]
    fn somebody_leads_once_a_held_record_was_seen_to_change() {
        let decided = |views: &[View<u8>]| {
            let mut me = me();
            let last = views.iter().zip(0..).map(|(view, time)| me.decide(at(time), view)).last();
            let Some(Decision::Wait { decided, .. }) = last else { panic!("{last:?}") };
            decided
        };
        assert!(!decided(&[view(held(2, 1))]));
        assert!(!decided(&[view(held(2, 1)), view(held(2, 1))]));
        assert!(decided(&[view(held(2, 1)), view(held(2, 2))]), "renewed");
        assert!(decided(&[view(None), view(held(2, 1))]), "taken before our eyes");
        assert!(decided(&[view(free(2, 1)), view(held(3, 1))]), "somebody was quicker");
        assert!(!decided(&[view(held(2, 1)), view(None)]), "lost is not led");
        // After a restart a renewal is one all the same.
        let restarted = |nonce| View { incarnation: 101, ..view(held(2, nonce)) };
        assert!(!decided(&[view(held(2, 1)), restarted(1)]));
        assert!(decided(&[restarted(1), restarted(2)]));
    }
}
