//! Limits of the process, as every store on a network has to stand them.

use super::led_before;
use super::server::RedisServer;
use crate::harness::server::StoreServer;
use crate::harness::{Sandbox, Witness, until};
use crate::leases::candidate_for;
use crate::resource_limits::LimitedUser;
use crate::resource_limits::processes::{RENEWALS_IN_TEN_SECONDS, at_localhost};

crate::resource_limits::limit_tests!(RedisServer);

#[test]
fn a_killed_client_is_followed_by_another_while_no_thread_can_be_made() {
    let redis = RedisServer::start();
    let sandbox = Sandbox::new();
    let mut user = LimitedUser::new(&sandbox);
    led_before(&sandbox, &redis);
    let elect = candidate_for(&sandbox, at_localhost(&redis.url_for(&sandbox)), "60s").flag("--renew", "1200ms");
    let elect = elect.witness(&Witness::new());
    let mut leader = user.runs(elect, 20).start();
    sandbox.starts(1);
    let renewals = redis.renewals();
    until("threads that are not kept are gone", || redis.renewals() >= renewals + RENEWALS_IN_TEN_SECONDS);
    user.crowds(20);
    for _ in 0..3 {
        let renewals = redis.renewals();
        redis.cli(&["client", "kill", "type", "normal", "skipme", "yes"]);
        redis.cli(&["client", "kill", "type", "pubsub", "skipme", "yes"]);
        until("the leader renews", || {
            assert!(!leader.has_ended(), "{}", leader.log());
            redis.renewals() >= renewals + 3
        });
    }
    assert_eq!(sandbox.history().ends.len(), 0, "{}", leader.log());
    leader.terminate();
    sandbox.is_left_empty();
}
