//! The release of a claim by the keeper after the campaigner's death (K2).
//!
//! A keeper has no network and no runtime. It re-executes elect (`/proc/self/exe`) with a hidden subcommand, and passes the
//! claim in an anonymous file: neither claim nor credentials are ever in argv or the environment.

use std::pin::Pin;
use std::sync::OnceLock;
use std::time::Duration;

use serde::{Deserialize, Serialize};
#[cfg(feature = "network-store")]
use tracing::debug;

use super::StoreError;
use crate::log::{KeeperLine, write_keeper_line};
use elect_core::{CommandEnd, FinalReport, Program};
use elect_keeper::{Claim, Departure};

/// The hidden subcommand; its argument is the number of the claim's descriptor.
pub const SUBCOMMAND: &str = "release-claim";
/// A claim is tried to be given back for no longer than this, however long its lease.
pub const RELEASE_TIMEOUT_MAX: Duration = Duration::from_secs(30);
/// The least of the limits on a release: a few attempts.
const RELEASE_TIMEOUT_MIN: Duration = Duration::from_secs(5);

/// Between two attempts, for a server that is just coming back.
#[cfg(feature = "network-store")]
const RELEASE_RETRY_DELAY: Duration = Duration::from_millis(200);

/// Tries again as long as the store cannot be asked. The caller limits the time.
///
/// # Errors
///
/// The store refuses.
#[cfg(feature = "network-store")]
pub async fn until_settled(mut attempt: impl AsyncFnMut() -> Result<(), StoreError>) -> Result<(), StoreError> {
    loop {
        match attempt().await {
            // The next attempt goes on with the same connection.
            Err(StoreError::Connecting(_)) => {}
            Err(StoreError::Unavailable(trouble)) => {
                debug!("store: {trouble}");
                tokio::time::sleep(RELEASE_RETRY_DELAY).await;
            }
            settled => return settled,
        }
    }
}

/// How the claim on a kind of store is released without its campaigner.
#[derive(Clone, Copy)]
pub enum ClaimRelease {
    /// By the keeper itself, since it needs no network.
    InPlace(fn(Claim)),
    /// By re-executing elect.
    Executed(RemoteRelease),
}

/// Releases [`StoredClaim::claim`], with as many attempts as that takes. A record that is not ours any more counts as released.
pub type RemoteRelease = fn(serde_json::Value) -> Pin<Box<dyn Future<Output = Result<(), StoreError>>>>;

/// The claim as the keeper passes it to the re-executed elect.
#[derive(Debug, Serialize, Deserialize)]
pub struct StoredClaim {
    /// Which kind of store understands it.
    pub kind: String,
    /// How long there is anything to give back: after that the lease has run out by itself.
    pub within: Duration,
    /// The data of the store.
    pub claim: serde_json::Value,
    /// The line that is logged after the release, added by the keeper.
    #[serde(default)]
    pub line: Option<KeeperLine>,
}

impl StoredClaim {
    /// Packs a store's claim. `kind` is the name of the kind of store.
    pub fn pack(kind: &str, within: Duration, claim: &impl Serialize) -> Claim {
        // Only a map whose keys are no strings cannot be serialized, and no claim has one.
        let claim = serde_json::to_value(claim).unwrap_or_default();
        let stored_claim = StoredClaim { kind: kind.to_owned(), within, claim, line: None };
        Claim { payload: serde_json::to_vec(&stored_claim).unwrap_or_default(), descriptors: Vec::new() }
    }
}

/// The part of a keeper's last step that is known before it is forked.
pub struct LastStep {
    /// How the store's claims are released.
    pub release: ClaimRelease,
    /// How long one attempt at the store may take.
    pub request_timeout: Duration,
    /// The line of the log, without what the keeper has done.
    pub line: KeeperLine,
}

/// Set before the fork, because a keeper gets a function without data.
static LAST_STEP: OnceLock<LastStep> = OnceLock::new();

/// Sets the last step of the keeper that is forked next. A process forks one keeper.
pub fn prepare(last_step: LastStep) {
    let _ = LAST_STEP.set(last_step);
}

/// The last step of a keeper whose campaigner has died: releases the claim, and logs what has happened. A candidate that
/// never got as far as a claim has reported its own error.
pub fn depart(Departure { claim, had_claim, report }: Departure) {
    let Some(LastStep { release, request_timeout, line }) = LAST_STEP.get() else { return };
    if !had_claim && report.program.is_none() {
        return;
    }
    let line = KeeperLine { term: term(&report), done: done(&report), ..line.clone() };
    match (claim, release) {
        (None, _) if !had_claim => write_keeper_line(&line, "there was nothing to release"),
        (None, _) => write_keeper_line(&line, "the boundary is kept for --min-hold, until the lease runs out"),
        (Some(claim), ClaimRelease::InPlace(release)) => {
            release(claim);
            write_keeper_line(&line, RELEASED);
        }
        (Some(claim), ClaimRelease::Executed(_)) => {
            execute(claim, &line, RELEASE_TIMEOUT_MIN.max(*request_timeout * 4));
            write_keeper_line(
                &line,
                "elect could not be executed to release the boundary: the lease runs out by itself",
            );
        }
    }
}

/// The text for a release that has succeeded.
pub const RELEASED: &str = "what it held in the store is released";

fn term(report: &FinalReport) -> Option<u64> {
    match report.program? {
        Program::Command { term } | Program::OnElected { term } | Program::OnOusted { term } => Some(term),
        Program::Follower => None,
    }
}

/// What a keeper has done, in words.
fn done(report: &FinalReport) -> String {
    let program = match report.program {
        None => return "nothing was running".to_owned(),
        Some(Program::Command { .. }) => "the leader command",
        Some(Program::OnElected { .. }) => "--on-elected",
        Some(Program::OnOusted { .. }) => "--on-ousted",
        Some(Program::Follower) => "the follower",
    };
    let ended = match report.end {
        None => format!("{program} had ended"),
        Some(CommandEnd::Killed { escalated: true, .. }) => format!("{program} did not end in time and was killed"),
        Some(end) => format!("{program} was stopped ({})", in_words(end)),
    };
    match report.ousted_hook_end {
        None => ended,
        Some(end) => format!("{ended}, --on-ousted has run ({})", in_words(end)),
    }
}

fn in_words(end: CommandEnd) -> String {
    match end {
        CommandEnd::Exited(status) => format!("status {status}"),
        CommandEnd::Killed { signal, .. } => format!("signal {}", signal.0),
    }
}

/// Executes elect in the keeper's process. Returns only if that fails; then the lease has to run out.
fn execute(Claim { payload, .. }: Claim, line: &KeeperLine, limit: Duration) {
    let Ok(mut stored_claim) = serde_json::from_slice::<StoredClaim>(&payload) else { return };
    stored_claim.within = stored_claim.within.min(limit);
    stored_claim.line = Some(line.clone());
    let Ok(payload) = serde_json::to_vec(&stored_claim) else { return };
    elect_keeper::execute_self(SUBCOMMAND, &payload);
}

#[cfg(test)]
mod tests {
    use super::*;
    use elect_core::Signal;

    #[test]
    fn what_a_keeper_has_done_is_said_in_words() {
        let program = Some(Program::Command { term: 7 });
        let stopped = FinalReport { program, end: Some(CommandEnd::Exited(3)), ousted_hook_end: None };
        assert_eq!((done(&stopped).as_str(), term(&stopped)), ("the leader command was stopped (status 3)", Some(7)));
        let end = Some(CommandEnd::Killed { signal: Signal(9), escalated: true });
        let killed = FinalReport { end, ousted_hook_end: Some(CommandEnd::Exited(0)), ..stopped };
        let expected = "the leader command did not end in time and was killed, --on-ousted has run (status 0)";
        assert_eq!(done(&killed), expected);
        assert_eq!(done(&FinalReport::default()), "nothing was running");
        let follower = FinalReport { program: Some(Program::Follower), ..stopped };
        assert_eq!(term(&follower), None);
    }
}
