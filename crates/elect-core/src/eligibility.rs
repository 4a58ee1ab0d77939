//! Whether the candidate may campaign: it has to be healthy and not drained. Both are independent of each other, and of
//! everything that the store says (H1 to H8).
//!
//! ```text
//!               rise successes in a row, and the rest after a resignation is over
//! unknown ──────────────────────────────────────────────────────────────────────▶ healthy
//!    │ fall failures in a row                                                     │ fall failures in a row
//!    └──────────────▶ unhealthy ◀─────────────────────────────────────────────────┘
//! ```
//!
//! Unknown counts as unhealthy (H1). The model of interval, rise and fall is that of keepalived's `track_script`.
//!
//! Checks are numbered. A result counts only for the check that is outstanding, so that a late one changes nothing
//! (H3). The next check is due one interval after the start of the last one; a machine that was suspended misses checks
//! and makes up for none (H5).
//!
//! Not here: what a candidate that is not eligible does. Its states decide that.

use std::time::Duration;

use crate::{CheckEnd, CheckNumber, CommandEnd, Health, KILL_ALLOWANCE, Time};

/// The limit up to which the rest after resignations for ill health doubles, and the length of a term that ends the
/// row: shorter terms may be the work of a check that fails again and again.
const REST_MAX: Duration = Duration::from_secs(5 * 60);
/// So many intervals without being healthy are reported.
const INTERVALS_BEFORE_WARNING: u32 = 10;

/// The reasons why a candidate is not eligible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct IneligibleReasons {
    /// By `elect drain` or `--drained`.
    pub drained: bool,
    /// The check fails, or has not yet succeeded often enough.
    pub unhealthy: bool,
}

impl IneligibleReasons {
    /// Whether there is one.
    #[must_use]
    pub fn any(self) -> bool {
        self.drained || self.unhealthy
    }
}

/// A change that a result, or the passing of time, has made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HealthChange {
    Healthy,
    Unhealthy { failures: u32, last: CheckEnd },
}

#[derive(Debug)]
pub(super) struct Eligibility {
    pub(super) drained: bool,
    /// Whether that has been reported.
    pub(super) drain_is_reported: bool,
    monitor: Option<HealthMonitor>,
}

/// The results of the checks so far.
#[derive(Debug)]
struct HealthMonitor {
    health: Health,
    verdict: HealthVerdict,
    successes: u32,
    failures: u32,
    last: CheckNumber,
    outstanding: Option<OutstandingCheck>,
    next_at: Time,
    /// The start of the leader command in the present term: failures are ignored for a while after it.
    command_began: Option<Time>,
    /// The time from which a healthy candidate may campaign again after a resignation for ill health (H6).
    rest_until: Time,
    /// Resignations for ill health in a row.
    resigned: u32,
    elected_at: Option<Time>,
    /// The warning that it has not been healthy for long: due at this time, if it is not healthy by then.
    warn_at: Time,
    /// It has been given, since the candidate was healthy last.
    has_warned: bool,
}

/// A check whose end the keeper has not reported.
#[derive(Debug, Clone, Copy)]
struct OutstandingCheck {
    /// The time at which it counts as failed although nothing is known of it, and once more after each interval.
    fails_at: Time,
    /// It has counted as failed: its result comes too late. Until it comes no other check is ordered, because a keeper
    /// that is silent would have to start them all.
    is_given_up: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HealthVerdict {
    Unknown,
    Healthy,
    Unhealthy,
}

impl Eligibility {
    pub(super) fn new(drained: bool, health: Option<Health>) -> Eligibility {
        let monitor = health.map(|health| HealthMonitor {
            health,
            verdict: HealthVerdict::Unknown,
            successes: 0,
            failures: 0,
            last: CheckNumber(0),
            outstanding: None,
            next_at: Time::BOOT,
            command_began: None,
            rest_until: Time::BOOT,
            resigned: 0,
            elected_at: None,
            warn_at: Time::NEVER,
            has_warned: false,
        });
        Eligibility { drained, drain_is_reported: false, monitor }
    }

    pub(super) fn reasons(&self, now: Time) -> IneligibleReasons {
        let is_healthy =
            |monitor: &HealthMonitor| monitor.verdict == HealthVerdict::Healthy && now >= monitor.rest_until;
        let unhealthy = self.monitor.as_ref().is_some_and(|monitor| !is_healthy(monitor));
        IneligibleReasons { drained: self.drained, unhealthy }
    }

    /// Whether it is not known yet whether the candidate will be healthy. A check that succeeds and fails in turn is not
    /// waited for beyond the time of the warning.
    pub(super) fn is_undecided(&self) -> bool {
        let is_awaited = |monitor: &HealthMonitor| monitor.verdict == HealthVerdict::Unknown && !monitor.has_warned;
        !self.drained && self.monitor.as_ref().is_some_and(is_awaited)
    }

    /// The number of the check to start now, if one is due.
    pub(super) fn check_due(&mut self, now: Time) -> Option<CheckNumber> {
        let monitor = self.monitor.as_mut().filter(|monitor| monitor.outstanding.is_none())?;
        if now < monitor.next_at {
            return None;
        }
        if monitor.last == CheckNumber(0) {
            monitor.warn_at = now + monitor.health.interval * INTERVALS_BEFORE_WARNING;
        }
        monitor.last = CheckNumber(monitor.last.0 + 1);
        // The keeper kills it at its time-out, and reports that at once.
        let fails_at = now + monitor.health.timeout + 2 * KILL_ALLOWANCE;
        monitor.outstanding = Some(OutstandingCheck { fails_at, is_given_up: false });
        monitor.next_at = now + monitor.health.interval;
        Some(monitor.last)
    }

    /// Counts a check that the keeper does not report as failed, once in each interval.
    pub(super) fn give_up_overdue(&mut self, now: Time, counts: bool) -> Option<HealthChange> {
        let monitor = self.monitor.as_mut()?;
        let check = monitor.outstanding.as_mut().filter(|check| now >= check.fails_at)?;
        (check.fails_at, check.is_given_up) = (now + monitor.health.interval, true);
        counts.then(|| monitor.failed(now, CheckEnd::TimedOut)).flatten()
    }

    /// Whether a check has been ordered whose end is not known.
    pub(super) fn has_outstanding_check(&self) -> bool {
        self.monitor.as_ref().is_some_and(|monitor| monitor.outstanding.is_some())
    }

    /// Takes in the end of a check. `counts`: results count at present; the check is over in any case. `any`: a result
    /// that comes too late counts as well (a mutation).
    pub(super) fn ended(
        &mut self,
        now: Time,
        check: CheckNumber,
        end: CheckEnd,
        counts: bool,
        any: bool,
    ) -> Option<HealthChange> {
        let monitor = self.monitor.as_mut()?;
        let outstanding = monitor.outstanding.take_if(|_| check == monitor.last)?;
        if !counts || (outstanding.is_given_up && !any) {
            return None;
        }
        match end {
            CheckEnd::Ended(CommandEnd::Exited(0)) => monitor.succeeded(),
            CheckEnd::Ended(_) | CheckEnd::TimedOut | CheckEnd::Failed(_) => monitor.failed(now, end),
            CheckEnd::Interrupted => None,
        }
    }

    /// Whether the warning that it has not been healthy for long is due. It is given once in a row.
    pub(super) fn warning_due(&mut self, now: Time) -> Option<Duration> {
        let monitor = self.monitor.as_mut().filter(|monitor| now >= monitor.warn_at)?;
        (monitor.warn_at, monitor.has_warned) = (Time::NEVER, true);
        Some(monitor.health.interval * INTERVALS_BEFORE_WARNING)
    }

    pub(super) fn term_begins(&mut self, now: Time) {
        if let Some(monitor) = &mut self.monitor {
            (monitor.elected_at, monitor.command_began) = (Some(now), None);
        }
    }

    pub(super) fn command_started(&mut self, now: Time) {
        if let Some(monitor) = &mut self.monitor {
            monitor.command_began = Some(now);
        }
    }

    /// A leadership is over. One that has lasted for long ends the row.
    pub(super) fn term_ends(&mut self, now: Time) {
        if let Some(monitor) = &mut self.monitor
            && monitor.elected_at.take().is_some_and(|elected| now >= elected + REST_MAX)
        {
            monitor.resigned = 0;
        }
    }

    /// H6: a leader has resigned for ill health. The first time it campaigns as soon as it is healthy again; after
    /// that it rests for the interval, and for twice as long each further time in a row.
    pub(super) fn resigned(&mut self, now: Time) {
        let Some(monitor) = &mut self.monitor else { return };
        if monitor.elected_at.is_some_and(|elected| now >= elected + REST_MAX) {
            monitor.resigned = 0;
        }
        if let Some(times) = monitor.resigned.checked_sub(1) {
            let rest = monitor.health.interval.saturating_mul(2u32.pow(times.min(16))).min(REST_MAX);
            monitor.rest_until = now + rest;
        }
        monitor.resigned += 1;
    }

    /// The next time that changes something.
    pub(super) fn wake_at(&self, now: Time) -> Time {
        let Some(monitor) = &self.monitor else { return Time::NEVER };
        let check_at = monitor.outstanding.map_or(monitor.next_at, |check| check.fails_at);
        let rest = if monitor.rest_until > now { monitor.rest_until } else { Time::NEVER };
        check_at.min(rest).min(monitor.warn_at)
    }
}

impl HealthMonitor {
    fn succeeded(&mut self) -> Option<HealthChange> {
        (self.failures, self.successes) = (0, self.successes.saturating_add(1));
        if self.verdict == HealthVerdict::Healthy || self.successes < self.health.rise {
            return None;
        }
        (self.verdict, self.warn_at, self.has_warned) = (HealthVerdict::Healthy, Time::NEVER, false);
        Some(HealthChange::Healthy)
    }

    fn failed(&mut self, now: Time, end: CheckEnd) -> Option<HealthChange> {
        if self.command_began.is_some_and(|began| now < began + self.health.start) {
            return None;
        }
        (self.successes, self.failures) = (0, self.failures.saturating_add(1));
        if self.verdict == HealthVerdict::Unhealthy || self.failures < self.health.fall {
            return None;
        }
        self.verdict = HealthVerdict::Unhealthy;
        if self.warn_at == Time::NEVER {
            self.warn_at = now + self.health.interval * INTERVALS_BEFORE_WARNING;
        }
        Some(HealthChange::Unhealthy { failures: self.failures, last: end })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEALTH: Health = Health {
        interval: Duration::from_secs(5),
        timeout: Duration::from_secs(3),
        rise: 2,
        fall: 3,
        start: Duration::from_secs(20),
    };
    const SUCCESS: CheckEnd = CheckEnd::Ended(CommandEnd::Exited(0));
    const FAILURE: CheckEnd = CheckEnd::Ended(CommandEnd::Exited(1));

    const fn at(millis: u64) -> Time {
        Time::from_nanos(millis * 1_000_000)
    }

    fn monitored() -> Eligibility {
        Eligibility::new(false, Some(HEALTH))
    }

    /// Runs one check at the time that it is due.
    fn check(eligibility: &mut Eligibility, end: CheckEnd) -> (Time, Option<HealthChange>) {
        let now = eligibility.wake_at(Time::NEVER);
        let number = eligibility.check_due(now).expect("due");
        (now, eligibility.ended(now, number, end, true, false))
    }

    fn is_healthy(eligibility: &Eligibility) -> bool {
        !eligibility.reasons(Time::NEVER).unhealthy
    }

    #[test]
    fn without_a_check_a_candidate_is_healthy_and_drained_is_independent() {
        let mut eligibility = Eligibility::new(true, None);
        assert_eq!(eligibility.reasons(at(0)), IneligibleReasons { drained: true, unhealthy: false });
        assert_eq!((eligibility.check_due(at(0)), eligibility.wake_at(at(0))), (None, Time::NEVER));
        eligibility.drained = false;
        assert!(!eligibility.reasons(at(0)).any());
        let monitored = Eligibility::new(true, Some(HEALTH));
        assert_eq!(monitored.reasons(at(0)), IneligibleReasons { drained: true, unhealthy: true });
    }

    #[test]
    fn a_candidate_is_healthy_after_so_many_successes_in_a_row_and_unhealthy_after_so_many_failures() {
        let mut eligibility = monitored();
        assert!(!is_healthy(&eligibility) && eligibility.is_undecided(), "H1");
        for (end, change) in [
            (SUCCESS, None),
            (FAILURE, None),
            (SUCCESS, None),
            (SUCCESS, Some(HealthChange::Healthy)),
            (FAILURE, None),
            (FAILURE, None),
            (SUCCESS, None),
            (FAILURE, None),
            (CheckEnd::TimedOut, None),
            (CheckEnd::Interrupted, None),
            (CheckEnd::Failed(11), Some(HealthChange::Unhealthy { failures: 3, last: CheckEnd::Failed(11) })),
            (FAILURE, None),
            (SUCCESS, None),
            (SUCCESS, Some(HealthChange::Healthy)),
        ] {
            assert_eq!(check(&mut eligibility, end).1, change);
        }
        assert!(is_healthy(&eligibility) && !eligibility.is_undecided());
    }

    #[test]
    fn a_check_without_a_report_fails_in_each_interval_and_its_late_result_counts_for_nothing() {
        let mut eligibility = monitored();
        check(&mut eligibility, SUCCESS);
        check(&mut eligibility, SUCCESS);
        let silent = eligibility.check_due(at(60_000)).expect("due");
        assert_eq!(eligibility.give_up_overdue(at(63_999), true), None);
        let mut fails_at = Vec::new();
        while is_healthy(&eligibility) {
            let now = eligibility.wake_at(Time::NEVER);
            assert_eq!(eligibility.check_due(now), None, "one at a time");
            eligibility.give_up_overdue(now, true);
            fails_at.push(now);
        }
        let first = at(63_000) + 2 * KILL_ALLOWANCE;
        assert_eq!(fails_at, [first, first + HEALTH.interval, first + HEALTH.interval * 2]);
        for _ in 0..5 {
            assert_eq!(eligibility.ended(at(90_000), silent, SUCCESS, true, false), None, "late");
        }
        assert!(eligibility.check_due(at(90_000)).is_some());
        assert_eq!(eligibility.ended(at(90_001), silent, SUCCESS, true, false), None, "of an earlier check");
        assert!(eligibility.has_outstanding_check() && !is_healthy(&eligibility));
    }

    #[test]
    fn a_suspended_machine_misses_checks_and_makes_up_for_none() {
        let mut eligibility = monitored();
        check(&mut eligibility, SUCCESS);
        let number = eligibility.check_due(at(3_600_000)).expect("due");
        eligibility.ended(at(3_600_000), number, FAILURE, true, false);
        assert_eq!(eligibility.check_due(at(3_604_999)), None);
        assert!(eligibility.check_due(at(3_605_000)).is_some());
    }

    #[test]
    fn failures_after_the_start_of_the_command_are_ignored_and_successes_are_not() {
        let mut eligibility = monitored();
        check(&mut eligibility, SUCCESS);
        let (now, _) = check(&mut eligibility, SUCCESS);
        eligibility.term_begins(now);
        eligibility.command_started(now);
        let mut ends = Vec::new();
        while is_healthy(&eligibility) {
            ends.push(check(&mut eligibility, FAILURE).0);
        }
        assert_eq!(ends.len(), 6, "three within 20 s, and three after");
    }

    #[test]
    fn repeated_resignations_rest_for_longer_each_time_until_a_term_has_gone_well() {
        let mut eligibility = monitored();
        check(&mut eligibility, SUCCESS);
        check(&mut eligibility, SUCCESS);
        let now = at(100_000);
        eligibility.term_begins(now);
        let mut rests = Vec::new();
        for _ in 0..9 {
            eligibility.resigned(now);
            let rested = eligibility.monitor.as_ref().expect("monitored").rest_until.since(now).as_secs();
            rests.push(rested);
            assert_eq!(eligibility.reasons(now).unhealthy, rested > 0);
        }
        assert_eq!(rests, [0, 5, 10, 20, 40, 80, 160, 300, 300]);
        eligibility.resigned(now + REST_MAX);
        let rest = eligibility.monitor.as_ref().expect("monitored").rest_until;
        assert!(rest <= now + REST_MAX, "no rest after a long term");
    }

    #[test]
    fn a_term_that_has_gone_well_ends_the_row_whatever_ended_it() {
        let mut eligibility = monitored();
        check(&mut eligibility, SUCCESS);
        check(&mut eligibility, SUCCESS);
        let now = at(100_000);
        eligibility.term_begins(now);
        eligibility.resigned(now);
        eligibility.term_ends(now);
        eligibility.term_begins(now);
        eligibility.term_ends(now + REST_MAX);
        eligibility.term_begins(now + REST_MAX);
        eligibility.resigned(now + REST_MAX);
        assert!(!eligibility.reasons(now + REST_MAX).unhealthy, "no rest");
    }

    #[test]
    fn a_check_that_succeeds_and_fails_in_turn_is_not_waited_for_without_end() {
        let mut eligibility = monitored();
        let mut checks = 0;
        while eligibility.is_undecided() {
            let (now, _) = check(&mut eligibility, if checks % 2 == 0 { SUCCESS } else { FAILURE });
            eligibility.warning_due(now);
            checks += 1;
        }
        assert_eq!(checks, 11, "ten intervals");
    }

    #[test]
    fn a_candidate_that_is_not_healthy_for_ten_intervals_is_reported_once() {
        let mut eligibility = monitored();
        let mut warnings = Vec::new();
        for _ in 0..40 {
            let (now, _) = check(&mut eligibility, FAILURE);
            warnings.extend(eligibility.warning_due(now).map(|_| now));
        }
        assert_eq!(warnings, [at(50_000)]);
        check(&mut eligibility, SUCCESS);
        check(&mut eligibility, SUCCESS);
        let (began, _) = (0..3).map(|_| check(&mut eligibility, FAILURE)).last().expect("three");
        assert_eq!(eligibility.warning_due(began), None);
        assert!(eligibility.warning_due(began + HEALTH.interval * 10).is_some());
    }
}
