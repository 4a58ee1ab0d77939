//! A build without `--listen`: nothing is counted.

use super::MetricEvent;
use elect_core::boundary::Boundary;

/// No counters.
#[derive(Debug)]
pub(crate) struct Metrics;

impl Metrics {
    pub(crate) fn new(_: &Boundary, _: &str) -> Metrics {
        Metrics
    }

    #[expect(clippy::unused_self, reason = "as in a build with it")]
    pub(crate) fn count(&self, _: MetricEvent) {}
}
