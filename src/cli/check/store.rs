//! The store: whether it answers, what it allows, how fast it is, and what it says about itself.

use std::time::Duration;

use tokio::time::timeout;

use super::latency::{self, in_millis};
use super::report::CheckReport;
use super::rounds::{CheckCandidate, RoundResults, Rounds};
use super::{CheckParts, TTL_MAX};
use crate::cli::format::leader_line;
use crate::exit::Exit;
use crate::store::observer::survey;
use crate::store::{Detail, Finding, Listing, Observation, StoreError};
use elect_core::boundary::Boundary;
use elect_keeper::clock;

/// From the beginning of the check to the end of the rounds.
const ROUNDS_TIMEOUT: Duration = Duration::from_secs(24);
/// For the first answer of the store, connecting included.
const CONTACT_TIMEOUT: Duration = Duration::from_secs(10);
const READ_TIMEOUT: Duration = Duration::from_secs(3);
const FACTS_TIMEOUT: Duration = Duration::from_secs(3);
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);

const STORE: &str = "store";
const BOUNDARY: &str = "boundary";
const TAKES: &str = "takes";
const HINTS: &str = "hints";

/// The check of one store.
pub struct StoreCheck<'a> {
    parts: &'a CheckParts<'a>,
    candidates: [CheckCandidate; 2],
}

impl<'a> StoreCheck<'a> {
    /// # Errors
    ///
    /// URL, flags and variables do not fit together.
    pub fn open(parts: &'a CheckParts<'a>) -> Result<StoreCheck<'a>, StoreError> {
        let ttl = parts.config.timing.ttl().unwrap_or_default().min(TTL_MAX);
        let open = |name| CheckCandidate::open(&parts.url, &parts.access, name, ttl);
        Ok(StoreCheck { parts, candidates: [open("elect check")?, open("elect check, 2nd")?] })
    }

    /// Checks the store. Cancellation: may be dropped at any time; [`StoreCheck::release`] has to follow in any case.
    pub async fn run(&mut self, report: &mut CheckReport) {
        if self.parts.access.tls_skip_verify {
            let detail = "the store's certificate is not verified: any server can pretend to be it";
            report.add(Finding::warn("certificate", detail, "name its authority with --tls-ca"));
        }
        let Some(access) = self.contact(report).await else { return };
        if access == CheckAccess::Full {
            self.rounds(report).await;
        }
        let [one, _] = &mut self.candidates;
        let facts = timeout(FACTS_TIMEOUT, one.store.facts()).await.unwrap_or_default();
        for fact in facts {
            report.add(fact);
        }
    }

    /// Gives back what the two candidates may hold, for a limited time: after that their leases run out.
    pub async fn release(&mut self) {
        let [one, other] = &mut self.candidates;
        let both = async { tokio::join!(one.release(), other.release()) };
        let _ = timeout(RELEASE_TIMEOUT, both).await;
    }

    /// The first questions: is the store there, and what does it allow? `None`: nothing more can be asked.
    async fn contact(&mut self, report: &mut CheckReport) -> Option<CheckAccess> {
        let asked = clock::now();
        let seen = self.read(0, &Boundary::of_check(), CONTACT_TIMEOUT).await;
        let url = &self.parts.url;
        let answered = || Finding::ok(STORE, format!("{url} answers ({})", in_millis(clock::now().since(asked))));
        match seen {
            Ok(_) | Err(StoreError::Obstacle(_)) => {
                report.add(answered());
                if self.parts.is_named && !self.read_named(report).await {
                    return None;
                }
                Some(CheckAccess::Full)
            }
            Err(StoreError::Refused(why)) if self.can_fall_back() => {
                let named = self.parts.config.boundary.clone();
                if matches!(self.read(0, &named, READ_TIMEOUT).await, Err(StoreError::Refused(_))) {
                    report.add_final(Exit::Refused, refused(STORE, &why));
                    return None;
                }
                report.add(answered());
                self.read_named(report).await;
                report.add(self.only_read(&why));
                Some(CheckAccess::OnlyRead)
            }
            Err(StoreError::Refused(why) | StoreError::Misused(why)) => {
                report.add_final(Exit::Refused, refused(STORE, &why));
                None
            }
            Err(StoreError::Unavailable(why) | StoreError::Connecting(why)) => {
                let advice = "start the server, or correct host and port of --store";
                report.add_final(Exit::Unavailable, Finding::of_error(STORE, &why, advice));
                None
            }
        }
    }

    /// Whether another boundary may be allowed where that of the check is not: a server knows rights to single keys.
    fn can_fall_back(&self) -> bool {
        self.parts.is_named && self.parts.url.is_remote()
    }

    fn only_read(&self, why: &str) -> Finding {
        let named = &self.parts.config.boundary;
        let detail = format!("nothing was taken: elect-check is not allowed ({why}); {named} was only read");
        Finding::warn(TAKES, detail, "allow this user elect-check as well, to have takes checked")
    }

    /// Reads the named boundary. Returns whether that is allowed.
    async fn read_named(&mut self, report: &mut CheckReport) -> bool {
        let named = self.parts.config.boundary.clone();
        let seen = self.read(0, &named, READ_TIMEOUT).await;
        match seen {
            Ok(Observation { leader: Some(leader), .. }) => {
                report.add(Finding::ok(BOUNDARY, format!("{named}: {}", leader_line(&leader))));
            }
            Ok(Observation { obstacle: Some(obstacle), .. }) => {
                let advice = "a candidate waits until that is over";
                report.add(Finding::warn(BOUNDARY, format!("{named}: no leader; {obstacle}"), advice));
            }
            Ok(_) => report.add(Finding::ok(BOUNDARY, format!("{named}: no leader"))),
            Err(StoreError::Obstacle(why)) => {
                let advice = "no candidate of this elect campaigns until that is gone";
                report.add(Finding::fail(BOUNDARY, format!("{named}: {why}"), advice));
            }
            Err(StoreError::Refused(why)) => {
                let advice = format!("allow this user the boundary {named}");
                report.add_final(Exit::Refused, Finding::fail(BOUNDARY, format!("{named}: {why}"), advice));
                return false;
            }
            Err(error) => {
                report.add(Finding::fail(BOUNDARY, format!("{named}: {error}"), "look at the server's log"));
            }
        }
        true
    }

    async fn read(&mut self, which: usize, boundary: &Boundary, limit: Duration) -> Result<Observation, StoreError> {
        let store = self.candidates[which].store.as_mut();
        let seen = timeout(limit, survey(store, Some(boundary), Detail::Leader)).await;
        let late = |_| {
            Err(StoreError::Unavailable(format!("{} does not answer within {} s", self.parts.url, limit.as_secs())))
        };
        let mut seen: Vec<Listing> = seen.unwrap_or_else(late)?;
        seen.pop().map_or_else(|| Ok(Observation::default()), |(_, observation)| observation)
    }

    async fn rounds(&mut self, report: &mut CheckReport) {
        // The second candidate connects, so that this is no part of its first request.
        let _ = self.read(1, &Boundary::of_check(), CONTACT_TIMEOUT).await;
        let mut results = RoundResults::default();
        let has_election = self.parts.url.has_election();
        let mut rounds = Rounds { candidates: &mut self.candidates, has_election, results: &mut results };
        let left = ROUNDS_TIMEOUT.saturating_sub(clock::now().since(self.parts.began));
        let is_complete = timeout(left, rounds.run()).await.is_ok();
        self.report_rounds(&results, is_complete, report);
    }

    fn report_rounds(&self, results: &RoundResults, is_complete: bool, report: &mut CheckReport) {
        if results.takes.len() == 0 {
            report_no_take(results, report);
            return;
        }
        let failed = results.error.as_ref().map(|error| format!("; {} failed: {error}", results.failures));
        let takes = results.takes.describe(TAKES) + failed.as_deref().unwrap_or_default();
        let advice = "read the error: a leader that cannot renew is stopped";
        report.add(match (failed, is_complete) {
            (None, true) => Finding::ok(TAKES, takes),
            (None, false) => Finding::warn(TAKES, format!("{takes}; the time was too short for more"), "see latency"),
            (Some(_), _) if results.failures > results.takes.len() / 2 => Finding::fail(TAKES, takes, advice),
            (Some(_), _) => Finding::warn(TAKES, takes, advice),
        });
        report.add(Finding::ok("renewals", results.renewals.describe("renewals")));
        report.add(Finding::ok("releases", results.releases.describe("releases")));
        let [one, _] = &self.candidates;
        let timing = self.parts.config.timing;
        let timing = if one.store.grants_leases() { timing } else { timing.without_lease() };
        report.add(latency::finding(&results.takes, &results.renewals, &timing, self.parts.timing_flags));
        if self.parts.url.has_election() {
            let advice = "a waiting candidate asks every renewal interval instead: shorten --renew for less";
            report.add(if results.hints.len() > 0 {
                Finding::ok(HINTS, results.hints.describe("hints of a release"))
            } else {
                Finding::warn(HINTS, "no hint of a release has come", advice)
            });
        }
    }
}

/// The boundary of the check could not be taken even once.
fn report_no_take(results: &RoundResults, report: &mut CheckReport) {
    match &results.error {
        // It may be read, so that a right is missing that the named boundary needs as well.
        Some(StoreError::Refused(why) | StoreError::Misused(why)) => {
            report.add_final(Exit::Refused, refused(TAKES, why));
        }
        Some(StoreError::Obstacle(why)) => {
            let advice = "delete the record of elect-check: no command runs under it";
            report.add(Finding::of_error(TAKES, why, advice));
        }
        Some(StoreError::Unavailable(why) | StoreError::Connecting(why)) => {
            let advice = "repair the store: until then nobody can be elected";
            report.add_final(Exit::Unavailable, Finding::of_error(TAKES, why, advice));
        }
        None => {
            let reason = match (&results.other_leader, &results.obstacle) {
                (Some(name), _) => format!("{name} held elect-check all the time"),
                (None, Some(obstacle)) => obstacle.clone(),
                (None, None) => "the time was too short".to_owned(),
            };
            report.add(Finding::warn(TAKES, format!("none: {reason}"), "run it again, when no other check runs"));
        }
    }
}

/// The part of the check that the store allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CheckAccess {
    Full,
    OnlyRead,
}

fn refused(name: &'static str, why: &str) -> Finding {
    Finding::of_error(name, why, "give this user the right that it names (see elect-stores(7))")
}
