//! Programs that write more below a watched prefix than an election needs: it costs bounded memory and no lease (DESIGN.md 2.5).

use etcd_client::{Client, LeaseGrantOptions, PutOptions};

use super::keys::QueueScenario;
use crate::harness::resource_usage::is_small;
use crate::harness::timing_verdict::{assert_in_time, retry_if_machine_slow};
use crate::harness::wait::until;
use crate::harness::{ElectCmd, Witness};
use crate::leases::{LEASE, candidate_for, written};

/// The oldest candidate, which the next one watches.
const OLDEST: &str = "/elect/cron/1f";
/// A little less than etcd accepts in one request (`--max-request-bytes`).
const VALUE_BYTES: usize = 1_400_000;
const WRITES: usize = 60;

/// Writes large values to these keys in turn.
fn flood(scenario: &QueueScenario, keys: &[String]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let address = format!("http://{}", scenario.etcd.address());
        let mut client = Client::connect([address], None).await.expect("a server that is up");
        // As candidates have them, where a lease is the last part.
        let lease = |key: &str| i64::from_str_radix(key.rsplit('/').next().unwrap_or_default(), 16).unwrap_or(0);
        for key in keys {
            let _ = client.lease_grant(3600, Some(LeaseGrantOptions::new().with_id(lease(key)))).await;
        }
        for key in keys.iter().cycle().take(WRITES) {
            let hung = PutOptions::new().with_lease(lease(key));
            client.put(key.as_str(), vec![b'x'; VALUE_BYTES], Some(hung)).await.expect("within its limit");
        }
    });
}

#[test]
fn values_of_the_largest_size_cost_a_waiter_and_observers_no_memory() {
    let scenario = QueueScenario::new();
    scenario.etcd.put_candidate(OLDEST, "somebody");
    let waiter = scenario.candidate().witness(&Witness::new()).start();
    waiter.wait_for_log("waiting: somebody leads");
    let watch = ElectCmd::new(&scenario.sandbox).store(scenario.etcd.url()).query("watch", &["cron"]).start();
    let watch_all = ElectCmd::new(&scenario.sandbox).store(scenario.etcd.url()).query("watch", &[]).start();
    until("both watch", || [&watch, &watch_all].iter().all(|watch| watch.output().contains("somebody leads")));
    // The waiter's predecessor, others in the queue, other boundaries, and what is no candidacy.
    let others = ["/elect/cron/2f", "/elect/cron/3f", "/elect/other/1f", "/elect/other", "/elect/cron/mine"];
    flood(&scenario, &[OLDEST.to_owned()]);
    waiter.wait_for_log("1400000 bytes");
    flood(&scenario, &others.map(str::to_owned));
    for (what, one) in [("waiter", &waiter), ("watch", &watch), ("watch of all", &watch_all)] {
        is_small(&format!("etcd: {what} beside values of 1.4 MB"), one.pid());
    }
    assert_eq!(scenario.sandbox.history().starts.len(), 0);
    scenario.etcd.etcdctl(&["del", "--prefix", "/elect/"]);
    scenario.sandbox.starts(1);
    is_small("etcd: leader after values of 1.4 MB", waiter.pid());
    waiter.terminate();
    scenario.sandbox.history().is_safe();
}

#[test]
fn values_of_the_largest_size_behind_a_leader_cost_it_no_memory_and_no_lease() {
    retry_if_machine_slow("values of 1.4 MB", LEASE, |lease| {
        let scenario = QueueScenario::new();
        let candidate = || candidate_for(&scenario.sandbox, scenario.etcd.url(), &written(lease));
        let leader = candidate().witness(&Witness::new().daemon()).start();
        let led = scenario.sandbox.starts(1).latest();
        let waiter = candidate().witness(&Witness::new().daemon()).start();
        waiter.wait_until_waiting();
        let keys: Vec<String> = (1..10).map(|number| format!("/elect/cron/{number}f")).collect();
        flood(&scenario, &keys);
        for (what, one) in [("leader", &leader), ("waiter", &waiter)] {
            is_small(&format!("etcd: {what} before nine values of 1.4 MB"), one.pid());
        }
        assert_in_time(scenario.sandbox.history().ends.is_empty(), || "the leader has lost its lease".to_owned());
        leader.terminate();
        assert!(scenario.sandbox.starts(2).latest().term > led.term);
        waiter.terminate();
        scenario.sandbox.history().is_safe();
    });
}
