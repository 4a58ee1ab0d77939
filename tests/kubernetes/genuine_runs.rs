//! The genuine API server with an etcd of its own: the suites of every store with leases, and what happens to its etcd.
//!
//! With `--long`, or with `ELECT_GENUINE=1` once `fetch.sh` has made it.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::genuine::GenuineServer;
use super::{NAMESPACE, end_safely};
use crate::harness::server::StoreServer;
use crate::harness::wait::until;
use crate::harness::{CandidateProcess, ElectCmd, Sandbox, Witness, is_long};

pub fn is_wanted() -> bool {
    is_long() || std::env::var_os("ELECT_GENUINE").is_some()
}

impl StoreServer for GenuineServer {
    const NAME: &'static str = "kubernetes, the genuine server";
    const SCHEME: &'static str = "kubernetes";
    const TTL: &'static str = "5s";
    const LEASE: Duration = Duration::from_secs(5);
    const HAS_USER_NAMES: bool = false;

    fn start() -> GenuineServer {
        GenuineServer::start()
    }

    fn seen_at(host: &str) -> GenuineServer {
        GenuineServer::at(host, "")
    }

    fn address(&self) -> String {
        GenuineServer::address(self)
    }

    fn renewals(&self) -> u64 {
        self.revision()
    }

    fn url_of(address: &str) -> String {
        format!("kubernetes+http://{address}/{NAMESPACE}")
    }
}

macro_rules! lease_tests {
    ($($suite:ident::$test:ident),* $(,)?) => {
        $(#[test]
        fn $test() {
            if is_wanted() {
                crate::leases::$suite::$test::<GenuineServer>();
            }
        })*
    };
}

lease_tests!(
    handover::a_leader_that_is_asked_to_stop_hands_over,
    handover::a_killed_campaigner_hands_over_at_once,
    handover::a_killed_keeper_takes_the_command_along_and_hands_over,
    handover::a_stopped_keeper_is_found_silent_and_its_tree_is_killed_without_it,
    handover::a_stopped_campaigners_command_is_killed_by_the_keeper_before_the_lease_is_over,
    handover::both_killed_at_once_hand_over_when_the_lease_has_run_out,
    handover::a_lost_host_hands_over_when_the_lease_has_run_out,
    cuts::a_leader_behind_a_black_hole_is_dead_before_the_next_one_starts,
    cuts::a_leader_whose_requests_are_lost_is_dead_before_the_next_one_starts,
    cuts::a_leader_whose_answers_are_lost_is_dead_although_its_lease_is_renewed,
    cuts::a_leader_whose_connections_are_refused_is_dead_before_the_next_one_starts,
    cuts::a_leader_whose_cable_is_cut_is_dead_before_the_next_one_starts,
    cuts::an_outage_as_long_as_planned_demotes_nobody_even_at_the_worst_moment,
    cuts::an_outage_longer_by_a_renewal_always_demotes,
);

/// A leader, and a candidate that waits for it.
struct Scene {
    server: GenuineServer,
    sandbox: Sandbox,
    leader: CandidateProcess,
    next: CandidateProcess,
}

impl Scene {
    fn new(ttl: &str) -> Scene {
        let (server, sandbox) = (GenuineServer::start(), Sandbox::new());
        let start = |name: &str| {
            let elect = ElectCmd::new(&sandbox).store(server.url_for(&sandbox)).flag("--ttl", ttl).flag("--name", name);
            elect.switch("-v").witness(&Witness::new()).start()
        };
        let leader = start("one");
        sandbox.starts(1);
        let next = start("two");
        next.wait_until_waiting();
        Scene { server, sandbox, leader, next }
    }

    fn goes_on(&self) {
        let before = self.server.revision();
        until("the leader renews", || self.server.revision() >= before + 3);
        let log = self.leader.log();
        assert!(!log.contains("leader command ended"), "{log}");
    }

    fn ends(self, kind: &str) {
        end_safely(&format!("genuine: {kind}"), &self.sandbox, self.leader, self.next);
    }
}

#[test]
fn a_leader_outlasts_an_etcd_that_is_killed_and_started_again() {
    if is_wanted() {
        let scene = Scene::new("30s");
        scene.server.kill_etcd();
        scene.server.start_etcd();
        scene.goes_on();
        scene.server.restart();
        scene.goes_on();
        scene.ends("etcd killed, and the API server");
    }
}

#[test]
fn an_etcd_or_an_api_server_that_stands_still_costs_the_term_and_nothing_else() {
    if is_wanted() {
        let scene = Scene::new("5s");
        scene.server.stop_etcd();
        scene.leader.wait_for_log("leader command ended");
        scene.server.cont_etcd();
        scene.sandbox.starts(2);
        scene.server.stop();
        until("both have ended", || {
            scene.leader.log().matches("command ended").count() + scene.next.log().matches("command ended").count() >= 2
        });
        scene.server.cont();
        scene.sandbox.starts(3);
        scene.ends("etcd stopped, and the API server");
    }
}

#[test]
fn an_etcd_that_is_set_back_to_a_backup_has_one_leader_at_a_time() {
    if is_wanted() {
        let scene = Scene::new("15s");
        let backup = scene.server.backup();
        scene.goes_on();
        scene.leader.signal(Signal::SIGTERM);
        scene.sandbox.starts(2);
        // There the first one leads, which is gone.
        scene.server.restore(&backup);
        scene.next.wait_for_log("leader command ended");
        scene.sandbox.starts(3);
        let Scene { sandbox, next, .. } = scene;
        next.terminate();
        let history = sandbox.history();
        history.is_safe();
        println!(
            "figures: genuine: etcd restored: {} starts, {} overlaps",
            history.starts.len(),
            history.overlaps.len()
        );
    }
}
