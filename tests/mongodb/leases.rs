//! The tests of every store with leases: on a set of one, which has elections; and those for a server alone.

use crate::mongodb::server::{Mongod, SingleNodeReplicaSet};

mod handover {
    use super::SingleNodeReplicaSet;

    crate::leases::handover::lease_tests!(SingleNodeReplicaSet);
}

mod cuts {
    use super::SingleNodeReplicaSet;

    crate::leases::cuts::lease_tests!(SingleNodeReplicaSet);
}

#[cfg(feature = "all-stores")]
mod limits {
    use super::Mongod;

    crate::resource_limits::limit_tests!(Mongod);
}

/// All at once: each waits most of the time, and has a server of its own.
#[test]
fn on_a_server_alone_every_fault_of_a_leader_is_stood_as_well() {
    use crate::leases::handover as all;

    let faults: [fn(); 10] = [
        all::a_leader_that_is_asked_to_stop_hands_over::<Mongod>,
        all::a_killed_campaigner_hands_over_at_once::<Mongod>,
        all::a_killed_keeper_takes_the_command_along_and_hands_over::<Mongod>,
        all::a_stopped_keeper_is_found_silent_and_its_tree_is_killed_without_it::<Mongod>,
        all::a_stopped_campaigners_command_is_killed_by_the_keeper_before_the_lease_is_over::<Mongod>,
        all::a_command_that_ignores_the_stop_signal_is_killed_with_its_daemon::<Mongod>,
        all::a_killed_campaigner_hands_over_although_the_command_ignores_the_stop_signal::<Mongod>,
        all::a_command_with_a_long_grace_is_killed_by_the_deadline_when_its_campaigner_is::<Mongod>,
        all::both_killed_at_once_hand_over_when_the_lease_has_run_out::<Mongod>,
        all::a_lost_host_hands_over_when_the_lease_has_run_out::<Mongod>,
    ];
    std::thread::scope(|scope| {
        for one in faults.map(|fault| scope.spawn(fault)) {
            one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    });
}
