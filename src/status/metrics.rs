//! Metrics, in Prometheus's text format.

use prometheus::{
    GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use super::hook_runs::HookRun;
use super::{MetricEvent, StatusSnapshot, StoreErrorKind};
use elect_core::boundary::Boundary;
use elect_core::{Renewed, Time};

/// Seconds: from a lease that nearly ran out to a very long one.
const LEASE_LEFT_BUCKETS: [f64; 12] = [0.25, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0, 20.0, 60.0, 300.0];
/// Seconds: from a command that stops at once to one that has hours to.
const STOP_DURATION_BUCKETS: [f64; 12] = [0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 120.0, 600.0];

/// The counters of one candidate. All carry its boundary.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    is_leader: IntGauge,
    is_eligible: IntGauge,
    term: IntGauge,
    /// One while a leader is known, none otherwise.
    leader_info: IntGaugeVec,
    leader_changes: IntCounter,
    renewals: IntCounterVec,
    store_errors: IntCounterVec,
    hook_runs: IntCounterVec,
    /// No value where no lease is known.
    lease_left: GaugeVec,
    lease_left_at_renewal: Histogram,
    stop_duration: Histogram,
    restarts: IntCounter,
}

impl Metrics {
    pub(crate) fn new(boundary: &Boundary, store: &str) -> Metrics {
        // Of constant names that are given once each: nothing here can be refused.
        Metrics::register(boundary, store).expect("names that Prometheus takes")
    }

    fn register(boundary: &Boundary, store: &str) -> prometheus::Result<Metrics> {
        let labels = [("boundary".to_owned(), boundary.to_string())];
        let registry = Registry::new_custom(None, Some(labels.into_iter().collect()))?;
        let info = Opts::new("elect_build_info", "The version of elect, and the kind of its store; always 1.");
        let info = IntGaugeVec::new(info, &["version", "store"])?;
        info.with_label_values(&[env!("CARGO_PKG_VERSION"), store]).set(1);
        let buckets = |name: &str, help: &str, buckets: &[f64]| {
            Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))
        };
        let renewals = Opts::new("elect_renewals_total", "Renewals of the lease, by what came of them.");
        let leader_info =
            Opts::new("elect_leader_info", "The leader that was last seen; always 1, and absent without one.");
        let store_errors = Opts::new("elect_store_errors_total", "Requests to the store that failed, by kind.");
        let hook_runs = Opts::new("elect_hook_runs_total", "Ends of hooks, by what came of them.");
        let lease_left = Opts::new(
            "elect_lease_left_seconds",
            "What is left of the leader's lease, as far as this candidate knows; absent without one.",
        );
        let metrics = Metrics {
            is_leader: IntGauge::new("elect_is_leader", "Whether this candidate leads.")?,
            is_eligible: IntGauge::new("elect_eligible", "Whether this candidate is healthy and not drained.")?,
            term: IntGauge::new("elect_term", "The term of the leader that was last seen; 0 if none was.")?,
            leader_changes: IntCounter::new(
                "elect_leader_changes_total",
                "Leaders that were seen, one after the other.",
            )?,
            leader_info: IntGaugeVec::new(leader_info, &["name", "host"])?,
            renewals: IntCounterVec::new(renewals, &["result"])?,
            store_errors: IntCounterVec::new(store_errors, &["kind"])?,
            hook_runs: IntCounterVec::new(hook_runs, &["hook", "result"])?,
            lease_left: GaugeVec::new(lease_left, &[])?,
            lease_left_at_renewal: buckets(
                "elect_lease_left_at_renewal_seconds",
                "What was left of the lease when a renewal replaced it.",
                &LEASE_LEFT_BUCKETS,
            )?,
            stop_duration: buckets(
                "elect_stop_duration_seconds",
                "How long it took until nothing was left of a command that was to stop.",
                &STOP_DURATION_BUCKETS,
            )?,
            restarts: IntCounter::new(
                "elect_command_restarts_total",
                "Starts of the command but for the first of a term.",
            )?,
            registry,
        };
        for result in ["credited", "lost", "failed"] {
            metrics.renewals.with_label_values(&[result]);
        }
        for kind in StoreErrorKind::ALL {
            metrics.store_errors.with_label_values(&[kind]);
        }
        metrics.register_all(info)?;
        Ok(metrics)
    }

    fn register_all(&self, info: IntGaugeVec) -> prometheus::Result<()> {
        let (metrics, registry) = (self, &self.registry);
        registry.register(Box::new(info))?;
        registry.register(Box::new(metrics.is_leader.clone()))?;
        registry.register(Box::new(metrics.is_eligible.clone()))?;
        registry.register(Box::new(metrics.term.clone()))?;
        registry.register(Box::new(metrics.leader_changes.clone()))?;
        registry.register(Box::new(metrics.renewals.clone()))?;
        registry.register(Box::new(metrics.leader_info.clone()))?;
        registry.register(Box::new(metrics.store_errors.clone()))?;
        registry.register(Box::new(metrics.hook_runs.clone()))?;
        registry.register(Box::new(metrics.lease_left.clone()))?;
        registry.register(Box::new(metrics.lease_left_at_renewal.clone()))?;
        registry.register(Box::new(metrics.stop_duration.clone()))?;
        registry.register(Box::new(metrics.restarts.clone()))
    }

    pub(crate) fn count(&self, event: MetricEvent) {
        match event {
            MetricEvent::Renewal(Renewed::Credited { .. }) => self.renewals.with_label_values(&["credited"]).inc(),
            MetricEvent::Renewal(Renewed::Lost) => self.renewals.with_label_values(&["lost"]).inc(),
            MetricEvent::Renewal(Renewed::Outdated | Renewed::Failed) => {
                self.renewals.with_label_values(&["failed"]).inc();
            }
            MetricEvent::LeaseLeft(left) => self.lease_left_at_renewal.observe(left.as_secs_f64()),
            MetricEvent::LeaderChanged => self.leader_changes.inc(),
            MetricEvent::Restarted => self.restarts.inc(),
            MetricEvent::Stopped(took) => self.stop_duration.observe(took.as_secs_f64()),
            MetricEvent::StoreError(StoreErrorKind(kind)) => self.store_errors.with_label_values(&[kind]).inc(),
            MetricEvent::Hook(HookRun { hook, result }) => {
                // The other results of this hook appear with the first, so that a rate knows where it begins.
                for other in HookRun::RESULTS {
                    self.hook_runs.with_label_values(&[hook, other]);
                }
                self.hook_runs.with_label_values(&[hook, result]).inc();
            }
        }
    }

    /// The page.
    pub(crate) fn text(&self, now: Time, snapshot: &StatusSnapshot) -> String {
        self.is_leader.set(i64::from(snapshot.is_leader(now)));
        self.is_eligible.set(i64::from(snapshot.is_eligible()));
        self.term.set(snapshot.term().and_then(|term| i64::try_from(term).ok()).unwrap_or_default());
        self.leader_info.reset();
        self.lease_left.reset();
        if let Some(leader) = snapshot.observation(now).leader {
            let host = leader.host.as_deref().unwrap_or_default();
            self.leader_info.with_label_values(&[leader.name.as_str(), host]).set(1);
            if let Some(left) = leader.lease_left {
                self.lease_left.with_label_values::<&str>(&[]).set(left.as_secs_f64());
            }
        }
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }
}
