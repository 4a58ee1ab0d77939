//! The facts about a Kubernetes cluster that a person should know.

use std::time::Duration;

use hyper::StatusCode;
use serde_json::Value;

use super::server::KubernetesServer;
use crate::duration::about;
use crate::store::connection::errors::excerpt;
use crate::store::{Finding, StoreError};
use elect_keeper::clock;

/// Clocks that differ by more make `status` wrong about leaders that it sees once.
const SKEW_MAX: Duration = Duration::from_secs(2);

pub async fn facts(server: &mut KubernetesServer) -> Result<Vec<Finding>, StoreError> {
    // Whole seconds, as an answer has them.
    let before = clock::wall_millis();
    let answer = server.get("/version").await?;
    let mut facts = Vec::new();
    if answer.status == StatusCode::OK {
        let version: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        if let Some(version) = version["gitVersion"].as_str() {
            facts.push(Finding::ok("version", excerpt(version)));
        }
    }
    facts.push(skew(before, answer.now, clock::wall_millis()));
    Ok(facts)
}

fn skew(before: u64, server: u64, after: u64) -> Finding {
    const NAME: &str = "clock";
    let skew = Duration::from_millis(before.saturating_sub(server).max(server.saturating_sub(after)));
    if skew <= SKEW_MAX {
        return Finding::ok(NAME, "this host's clock and the API server's agree");
    }
    let detail = format!(
        "this host's clock and the API server's differ by {}: elections do not depend on it, but what status shows does",
        about(skew)
    );
    Finding::warn(NAME, detail, "set the clocks, as by NTP")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::FindingResult;

    #[test]
    fn clocks_that_differ_are_a_warning() {
        for (before, server, after, result) in [
            (10_000, 10_000, 10_100, FindingResult::Ok),
            (10_000, 11_500, 10_100, FindingResult::Ok),
            (10_000, 70_000, 10_100, FindingResult::Warn),
            (70_000, 10_000, 70_100, FindingResult::Warn),
        ] {
            assert_eq!(skew(before, server, after).result, result, "{before} {server}");
        }
    }
}
