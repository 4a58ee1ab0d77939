//! Whether the keeper is alive (K4).
//!
//! A keeper that is stopped cannot kill, so it is asked for an answer once per renewal interval: by the deadline of a
//! credited renewal, which it confirms, or by a ping if none is credited in time. It may be silent
//! for ten seconds, but only for half the kill allowance once the deadline that *it* holds has passed: the one it
//! confirmed, not the one that we sent. The time limit counts from a question that was sent after we woke, so a campaigner
//! that was itself suspended does not blame the keeper for it.

use std::time::Duration;

use super::time::Time;
use super::timing::{KILL_ALLOWANCE, Timing};
use crate::Term;

const ANSWER_TIMEOUT_NO_DEADLINE: Duration = Duration::from_secs(10);

/// A message that the keeper answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Question {
    /// A deadline, which the keeper confirms.
    Deadline,
    /// A ping. A confirmation may be older than the ping, so only a pong is its answer.
    Ping,
}

#[derive(Debug)]
pub(super) struct KeeperLiveness {
    /// The term whose deadline is being watched, and the deadline that the keeper holds.
    armed: Option<(Term, Time)>,
    confirmed: bool,
    /// The unanswered question, and when it was sent.
    asked: Option<(Question, Time)>,
    /// When the last question was sent.
    last_asked: Time,
    /// When the next ping is due, unless a deadline is sent before.
    ask_at: Time,
    /// Whether every process of the tree has got SIGKILL, by the keeper's last report.
    all_killed: bool,
    killed: bool,
}

impl KeeperLiveness {
    pub(super) fn new() -> KeeperLiveness {
        KeeperLiveness {
            armed: None,
            confirmed: false,
            asked: None,
            last_asked: Time::BOOT,
            ask_at: Time::BOOT,
            all_killed: false,
            killed: false,
        }
    }

    /// A deadline was sent, which is a question as well. Until the keeper confirms one, the first counts as held.
    pub(super) fn deadline_sent(&mut self, now: Time, term: Term, kill_by: Time, timing: &Timing) {
        if self.armed.is_none_or(|(of, _)| of != term) {
            self.armed = Some((term, kill_by));
            self.confirmed = false;
        }
        if self.asked.is_none() && !self.killed {
            self.asked = Some((Question::Deadline, now));
            self.last_asked = now;
            // Renewals follow each other by an interval and the time of a request: no ping precedes the next deadline.
            self.ask_at = now + timing.renew() + timing.renew() / 4;
        }
    }

    pub(super) fn confirmed(&mut self, term: Term, kill_by: Time) {
        if let Some((of, held)) = self.armed.as_mut().filter(|(of, _)| *of == term) {
            debug_assert_eq!(*of, term);
            *held = if self.confirmed { (*held).max(kill_by) } else { kill_by };
            self.confirmed = true;
            self.asked.take_if(|(question, _)| *question == Question::Deadline);
        }
    }

    /// A pong, which answers any question.
    pub(super) fn answered(&mut self) {
        self.asked = None;
    }

    /// The keeper reports a long kill: as good as an answer, and the next message is due within half the kill allowance.
    pub(super) fn progressed(&mut self, now: Time) {
        self.all_killed = false;
        if let Some((_, asked)) = &mut self.asked {
            *asked = now.max(*asked);
        }
    }

    /// The keeper reports that every process has got SIGKILL. The deadline is met: to kill the keeper would hasten
    /// nothing. It gives up its priority now, and thousands of dying processes may run before it.
    pub(super) fn all_killed(&mut self, now: Time) {
        self.progressed(now);
        self.all_killed = true;
    }

    /// A tree begins only now: the keeper is asked again, whatever it has not answered yet.
    pub(super) fn forget_question(&mut self) {
        self.asked = None;
    }

    /// A new tree may exist from now on, of which nothing has been killed.
    pub(super) fn run_started(&mut self) {
        self.all_killed = false;
    }

    /// The tree is empty: silence costs nothing until the next term.
    pub(super) fn reset(&mut self) {
        self.armed = None;
        self.asked = None;
        self.all_killed = false;
    }

    fn deadline(&self) -> Time {
        self.armed.map_or(Time::NEVER, |(_, held)| held)
    }

    /// Whether to ping now: if no deadline was sent for an interval, and once more as soon as its deadline has passed.
    pub(super) fn ping_due(&mut self, now: Time, timing: &Timing) -> bool {
        let overdue = now >= self.deadline() && self.last_asked < self.deadline();
        let due = self.asked.is_none() && now >= self.ask_at;
        if self.killed || !(overdue || due) {
            return false;
        }
        self.asked = Some((Question::Ping, now));
        self.last_asked = now;
        self.ask_at = now + timing.renew();
        true
    }

    /// Whether the keeper's time to answer is over; reported once.
    pub(super) fn timed_out(&mut self, now: Time) -> bool {
        if self.killed || now < self.give_up_at() {
            return false;
        }
        self.killed = true;
        true
    }

    fn give_up_at(&self) -> Time {
        let Some((_, asked)) = self.asked else { return Time::NEVER };
        if self.all_killed {
            return asked + ANSWER_TIMEOUT_NO_DEADLINE;
        }
        let after_deadline = asked.max(self.deadline()) + KILL_ALLOWANCE / 2;
        after_deadline.min(asked + ANSWER_TIMEOUT_NO_DEADLINE)
    }

    pub(super) fn wake_at(&self) -> Time {
        if self.killed {
            return Time::NEVER;
        }
        let ask_at = if self.asked.is_none() { self.ask_at } else { Time::NEVER };
        let overdue_at = if self.last_asked >= self.deadline() { Time::NEVER } else { self.deadline() };
        ask_at.min(overdue_at).min(self.give_up_at())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timing::TimingFlags;

    const fn at(millis: u64) -> Time {
        Time::from_nanos(millis * 1_000_000)
    }

    fn timing() -> Timing {
        Timing::validate(TimingFlags::default()).expect("defaults hold")
    }

    #[test]
    fn a_silent_keeper_has_half_the_kill_allowance_after_the_deadline_it_confirmed() {
        let mut liveness = KeeperLiveness::new();
        liveness.deadline_sent(at(0), 7, at(8_500), &timing());
        liveness.confirmed(7, at(8_500));
        // It stops here: later deadlines are sent, none is confirmed.
        liveness.deadline_sent(at(2_000), 7, at(10_500), &timing());
        liveness.deadline_sent(at(4_000), 7, at(12_500), &timing());
        assert!(!liveness.timed_out(at(8_499)));
        assert_eq!(liveness.wake_at(), at(8_500));
        assert!(liveness.ping_due(at(8_500), &timing()), "asked again once the deadline has passed");
        assert_eq!(liveness.wake_at(), at(8_750));
        assert!(!liveness.timed_out(at(8_749)));
        assert!(liveness.timed_out(at(8_750)));
        assert!(!liveness.timed_out(at(9_000)), "said once");
    }

    #[test]
    fn a_deadline_that_is_confirmed_saves_a_ping() {
        let mut liveness = KeeperLiveness::new();
        for sent in [1_000, 3_050, 5_400] {
            assert!(!liveness.ping_due(at(sent), &timing()) || sent == 1_000, "{sent}");
            liveness.answered();
            liveness.deadline_sent(at(sent), 7, at(sent + 8_500), &timing());
            assert!(!liveness.ping_due(at(sent + 1), &timing()));
            liveness.confirmed(7, at(sent + 8_500));
            assert_eq!(liveness.wake_at(), at(sent + 2_500));
        }
        assert!(liveness.ping_due(at(7_900), &timing()), "no renewal is credited any more");
    }

    #[test]
    fn a_deadline_that_is_not_confirmed_shows_a_silent_keeper() {
        let mut liveness = KeeperLiveness::new();
        for sent in [1_000, 2_000, 3_000] {
            liveness.deadline_sent(at(sent), 7, Time::NEVER, &timing());
        }
        assert!(!liveness.timed_out(at(10_999)));
        assert_eq!(liveness.wake_at(), at(11_000), "counted from the first of them");
        assert!(liveness.timed_out(at(11_000)));
    }

    #[test]
    fn a_confirmation_answers_no_ping() {
        let mut liveness = KeeperLiveness::new();
        liveness.deadline_sent(at(1_000), 7, at(8_500), &timing());
        assert!(liveness.ping_due(at(8_500), &timing()));
        // It was sent before the keeper stopped.
        liveness.confirmed(7, at(8_500));
        assert!(liveness.timed_out(at(8_750)));
    }

    #[test]
    fn without_a_deadline_it_has_ten_seconds() {
        let mut liveness = KeeperLiveness::new();
        assert!(liveness.ping_due(at(1_000), &timing()));
        assert!(!liveness.timed_out(at(10_999)));
        assert_eq!(liveness.wake_at(), at(11_000));
        assert!(liveness.timed_out(at(11_000)));
    }

    #[test]
    fn a_keeper_that_reports_progress_has_half_the_kill_allowance_until_its_next_word() {
        let mut liveness = KeeperLiveness::new();
        liveness.deadline_sent(at(0), 7, at(3_000), &timing());
        assert!(liveness.ping_due(at(3_000), &timing()));
        for word in [3_200, 3_400, 3_600, 3_800] {
            liveness.progressed(at(word));
            assert!(!liveness.timed_out(at(word + 249)), "{word}");
            assert_eq!(liveness.wake_at(), at(word + 250));
        }
        assert!(liveness.timed_out(at(4_050)), "progress is no answer that lasts");
    }

    #[test]
    fn a_keeper_that_has_killed_every_process_has_ten_seconds_to_reap_them() {
        let mut liveness = KeeperLiveness::new();
        liveness.deadline_sent(at(0), 7, at(3_000), &timing());
        assert!(liveness.ping_due(at(3_000), &timing()));
        liveness.progressed(at(3_200));
        liveness.all_killed(at(3_300));
        assert!(!liveness.timed_out(at(13_299)));
        assert_eq!(liveness.wake_at(), at(13_300));
        assert!(liveness.timed_out(at(13_300)));
    }

    #[test]
    fn a_sweep_that_finds_more_processes_and_an_empty_tree_end_the_ten_seconds() {
        let mut liveness = KeeperLiveness::new();
        liveness.deadline_sent(at(0), 7, at(3_000), &timing());
        assert!(liveness.ping_due(at(3_000), &timing()));
        liveness.all_killed(at(3_200));
        liveness.progressed(at(3_300));
        assert_eq!(liveness.wake_at(), at(3_550), "more were found");
        liveness.all_killed(at(3_400));
        liveness.reset();
        liveness.deadline_sent(at(0), 8, at(20_000), &timing());
        assert!(liveness.ping_due(at(20_000), &timing()));
        assert_eq!(liveness.wake_at(), at(20_250), "the next term's tree has not been killed");
    }

    #[test]
    fn progress_before_a_question_answers_none() {
        let mut liveness = KeeperLiveness::new();
        liveness.deadline_sent(at(0), 7, at(3_000), &timing());
        liveness.progressed(at(2_999));
        assert!(liveness.ping_due(at(3_000), &timing()));
        assert!(liveness.timed_out(at(3_250)));
    }

    #[test]
    fn an_answer_or_an_empty_tree_ends_the_wait() {
        let mut liveness = KeeperLiveness::new();
        assert!(liveness.ping_due(at(0), &timing()));
        liveness.deadline_sent(at(0), 7, at(3_000), &timing());
        liveness.answered();
        assert!(!liveness.timed_out(at(60_000)));
        assert!(liveness.ping_due(at(60_000), &timing()));
        liveness.reset();
        assert!(!liveness.timed_out(at(120_000)));
    }

    #[test]
    fn a_campaigner_that_was_suspended_asks_before_it_blames() {
        let mut liveness = KeeperLiveness::new();
        assert!(liveness.ping_due(at(0), &timing()));
        liveness.deadline_sent(at(0), 7, at(3_000), &timing());
        liveness.answered();
        // An hour asleep, the keeper with us.
        assert!(liveness.ping_due(at(3_600_000), &timing()));
        assert!(!liveness.timed_out(at(3_600_000)));
        assert_eq!(liveness.wake_at(), at(3_600_250));
    }

    #[test]
    fn after_its_deadline_a_keeper_that_answers_is_asked_no_more_often_than_before() {
        let mut liveness = KeeperLiveness::new();
        liveness.deadline_sent(at(0), 7, at(3_000), &timing());
        assert!(liveness.ping_due(at(3_000), &timing()));
        liveness.answered();
        assert!(!liveness.ping_due(at(3_001), &timing()));
        assert_eq!(liveness.wake_at(), at(5_000));
        assert!(liveness.ping_due(at(5_000), &timing()));
    }

    #[test]
    fn a_confirmation_of_another_term_is_not_one_of_ours() {
        let mut liveness = KeeperLiveness::new();
        liveness.deadline_sent(at(0), 7, at(3_000), &timing());
        liveness.confirmed(6, at(90_000));
        assert_eq!(liveness.deadline(), at(3_000));
        liveness.confirmed(7, at(4_000));
        liveness.confirmed(7, at(3_500));
        assert_eq!(liveness.deadline(), at(4_000), "deadlines only move forward");
    }
}
