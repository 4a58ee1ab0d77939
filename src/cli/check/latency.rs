//! The times that requests take, and what they mean for the timings of section 4.

use std::time::Duration;

use crate::store::Finding;
use elect_core::{HumanDuration, Timing, TimingFlags};

const NAME: &str = "latency";
/// Of so many requests one may take longer than its time-out: a renewal is tried again.
const LATE_ONE_OF: usize = 10;
/// A request time-out should be so many times as long as the slowest request.
const HEADROOM: u32 = 2;
/// A ttl is so many request time-outs, if it is not given (T2).
const TTL_REQUEST_TIMEOUTS: u32 = 10;

/// The times of one kind of request.
#[derive(Debug, Default, Clone)]
pub struct RequestTimes(Vec<Duration>);

impl RequestTimes {
    pub fn add(&mut self, time: Duration) {
        self.0.push(time);
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    fn sorted(&self) -> Vec<Duration> {
        let mut times = self.0.clone();
        times.sort();
        times
    }

    /// At this percentage, by the nearest rank.
    fn percentile(&self, percent: usize) -> Option<Duration> {
        let rank = (self.len() * percent).div_ceil(100).max(1);
        self.sorted().get(rank - 1).copied()
    }

    /// The number of requests that took longer.
    fn longer_than(&self, limit: Duration) -> usize {
        self.0.iter().filter(|time| **time > limit).count()
    }

    /// `20 takes: median 1.2 ms, p99 3 ms`.
    pub fn describe(&self, what: &str) -> String {
        let (median, slowest) = (self.percentile(50).unwrap_or_default(), self.percentile(99).unwrap_or_default());
        format!("{} {what}: median {}, p99 {}", self.len(), in_millis(median), in_millis(slowest))
    }

    fn joined(&self, other: &RequestTimes) -> RequestTimes {
        RequestTimes(self.0.iter().chain(&other.0).copied().collect())
    }
}

/// To the tenth of a millisecond below 10 ms.
pub fn in_millis(time: Duration) -> String {
    let millis = time.as_secs_f64() * 1000.0;
    if millis < 10.0 { format!("{millis:.1} ms") } else { format!("{millis:.0} ms") }
}

/// The time of takes and renewals, against the request time-out A and the timings that T3 allows.
pub fn finding(takes: &RequestTimes, renewals: &RequestTimes, timing: &Timing, asked: TimingFlags) -> Finding {
    let (all, limit) = (takes.joined(renewals), timing.request_timeout());
    let slowest = all.percentile(99).unwrap_or_default();
    let late = all.longer_than(limit);
    let detail = format!("p99 {} of {} (--request-timeout)", in_millis(slowest), HumanDuration(limit));
    if late == 0 && slowest * HEADROOM <= limit {
        let tolerated = timing
            .longest_outage()
            .map_or_else(String::new, |outage| format!("; an outage of {} costs no leader", HumanDuration(outage)));
        return Finding::ok(NAME, detail + &tolerated);
    }
    let advice = advice(slowest, asked);
    if late * LATE_ONE_OF > all.len() {
        let all = all.len();
        return Finding::fail(
            NAME,
            format!("{late} of {all} requests took longer than --request-timeout ({})", HumanDuration(limit)),
            advice,
        );
    }
    Finding::warn(NAME, detail, advice)
}

/// The flags with which requests of this length are no trouble.
fn advice(slowest: Duration, asked: TimingFlags) -> String {
    // In steps that a person would choose.
    let step = if slowest < Duration::from_millis(50) { 10 } else { 100 };
    let needed =
        u64::try_from((slowest * HEADROOM).as_millis()).unwrap_or(u64::MAX).div_ceil(step).saturating_mul(step);
    let needed = Duration::from_millis(needed);
    let timeout = TimingFlags { request_timeout: Some(needed), ..asked };
    if asked.request_timeout.is_some() && Timing::validate(timeout).is_ok() {
        return format!("raise --request-timeout to {}", HumanDuration(needed));
    }
    let ttl = HumanDuration(needed * TTL_REQUEST_TIMEOUTS);
    if asked.request_timeout.is_some() {
        format!("raise --ttl to {ttl} and leave --request-timeout out")
    } else {
        format!("raise --ttl to {ttl}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::FindingResult;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn times(millis: &[u64]) -> RequestTimes {
        RequestTimes(millis.iter().map(|&millis| ms(millis)).collect())
    }

    #[test]
    fn median_and_p99_are_of_the_nearest_rank() {
        let all: Vec<u64> = (1..=20).rev().collect();
        assert_eq!(times(&all).describe("takes"), "20 takes: median 10 ms, p99 20 ms");
        assert_eq!(times(&[3]).describe("takes"), "1 takes: median 3.0 ms, p99 3.0 ms");
        assert_eq!(times(&[]).percentile(99), None);
    }

    #[test]
    fn the_advice_is_a_ttl_whose_request_timeout_has_room_for_what_was_measured() {
        assert_eq!(advice(ms(155), TimingFlags::default()), "raise --ttl to 4s");
        let explicit = |millis| TimingFlags { request_timeout: Some(ms(millis)), ..TimingFlags::default() };
        assert_eq!(advice(ms(155), explicit(100)), "raise --request-timeout to 400ms");
        let short = TimingFlags { ttl: Some(ms(2000)), ..explicit(100) };
        assert_eq!(advice(ms(155), short), "raise --ttl to 4s and leave --request-timeout out");
    }

    #[test]
    fn requests_that_are_longer_than_their_time_out_fail_and_those_without_room_warn() {
        let timing = Timing::validate(TimingFlags::default()).expect("defaults hold");
        let result = |takes: &[u64]| {
            let renewals = [1; 10];
            finding(&times(takes), &times(&renewals), &timing, TimingFlags::default()).result
        };
        assert_eq!(result(&[500; 10]), FindingResult::Ok);
        assert_eq!(result(&[500, 501]), FindingResult::Warn, "there is not twice the time");
        assert_eq!(result(&[1, 1001]), FindingResult::Warn, "one renewal may fail");
        assert_eq!(result(&[1001; 10]), FindingResult::Fail);
        let unlimited = finding(&times(&[1]), &times(&[1]), &timing.without_lease(), TimingFlags::default());
        assert!(!unlimited.detail.contains("outage"), "{unlimited:?}");
    }
}
