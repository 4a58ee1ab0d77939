//! Hand-overs, and what only an etcd has to do with them.

use std::time::Duration;

use super::{LEASE, candidate};
use crate::etcd::server::{EtcdOptions, EtcdServer};
use crate::harness::containment_support::tiers;
use crate::harness::faults;
use crate::harness::timing_verdict::retry_if_machine_slow;
use crate::harness::wait::{now, since, throughout};
use crate::harness::{ElectCmd, Sandbox, Witness, few, until};
use crate::leases::{real, relay_for, written};

crate::leases::handover::lease_tests!(EtcdServer);

/// Each fault in each tier, all those of one tier at once: what takes long is the leases.
#[test]
fn every_fault_hands_over_in_each_tier() {
    let etcd = EtcdServer::start();
    let all = [
        faults::STOPPED,
        faults::CAMPAIGNER_KILLED,
        faults::KEEPER_KILLED,
        faults::KEEPER_FROZEN,
        faults::CAMPAIGNER_FROZEN,
        faults::STUBBORN_STOPPED,
        faults::STUBBORN_CAMPAIGNER_KILLED,
        faults::SLOW_CAMPAIGNER_KILLED,
    ];
    for tier in tiers() {
        // Processes that outlive both are covered by the lease, except in the tier in which no process outlives both.
        let both = if tier == "pidns" { faults::BOTH_KILLED_WITH_A_DAEMON } else { faults::BOTH_KILLED };
        std::thread::scope(|scope| {
            for fault in all.into_iter().chain([both]) {
                let etcd = &etcd;
                scope.spawn(move || {
                    retry_if_machine_slow(&format!("etcd: {tier}: {}", fault.kind), LEASE, |lease| {
                        let ttl = written(lease);
                        fault.run(relay_for(few(), etcd, &ttl).flag("--containment", tier), &format!("etcd: {tier}: "));
                    });
                });
            }
        });
    }
}

#[test]
fn a_lease_that_is_longer_than_asked_for_is_what_everything_is_counted_by() {
    // The shortest that this server grants is nine seconds; then a renewal is due every 1.8 s, not every 600 ms.
    let etcd = EtcdServer::with(&EtcdOptions::new().timing(500, 6000));
    let sandbox = Sandbox::new();
    let leader = candidate(&sandbox, sandbox.below(&etcd.url())).witness(&Witness::new()).start();
    sandbox.starts(1);
    let status = ElectCmd::new(&sandbox).store(sandbox.below(&etcd.url())).status(&["cron", "--json"]).run();
    assert!(status.stdout.contains("\"ttl_ms\":9000"), "{status:?}");
    let beats = || etcd.messages().get("LeaseKeepAlive").copied().unwrap_or_default();
    let before = beats();
    let began = now();
    until("some renewals", || since(began) >= Duration::from_secs(6));
    let renewals = beats() - before;
    let took = since(began).as_secs_f64();
    assert!((real(renewals) - took / 1.8).abs() <= 1.5, "{renewals} renewals in {took} s");
    // And the deadlines are later: a stop at 4.8 s, not at 1.6 s, after the last renewal.
    let before = beats();
    until("a renewal", || beats() > before);
    etcd.stop();
    throughout(Duration::from_millis(2500), "it leads on", || !leader.log().contains("the lease runs out"));
    leader.wait_for_log("the lease runs out");
    etcd.cont();
    leader.terminate();
    sandbox.history().is_safe();
}
