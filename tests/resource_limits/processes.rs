//! `RLIMIT_NPROC`, and a process table that is full.

use super::{LimitedUser, is_orderly};
use crate::ObservedServer;
use crate::harness::proxy::{Proxy, ProxyMode};
use crate::harness::server::StoreServer;
use crate::harness::{ElectCmd, Sandbox, Witness, until};
use crate::leases::{candidate_for, led_before_for};

/// Enough for elect, its threads, the keeper and one command.
const ENOUGH: usize = 8;

#[test]
fn on_a_file_a_low_limit_is_one_sentence_or_none_at_all() {
    for processes in 1..=20 {
        let sandbox = Sandbox::new();
        let user = LimitedUser::new(&sandbox);
        let ended = user.runs(ElectCmd::new(&sandbox).switch("-q").command(["true"]), processes).run();
        let works = is_orderly(&ended, &format!("nproc {processes}"), &[125, 126]);
        assert!(works || processes < ENOUGH, "nproc {processes}: {ended:?}");
        println!("file, nproc {processes}: {:?} {}", ended.status.code(), ended.stderr.trim_end());
        sandbox.is_left_empty();
    }
}

pub fn a_low_limit_is_one_sentence_or_none_at_all<S: StoreServer>() {
    let server = S::start();
    for processes in (1..=ENOUGH).chain([20]) {
        let sandbox = Sandbox::new();
        let user = LimitedUser::new(&sandbox);
        let elect =
            candidate_for(&sandbox, at_localhost(&server.url_for(&sandbox)), S::TTL).switch("-q").command(["true"]);
        let ended = user.runs(elect, processes).run();
        let works = is_orderly(&ended, &format!("{}, nproc {processes}", S::NAME), &[125, 126]);
        assert!(works || processes < ENOUGH, "nproc {processes}: {ended:?}");
        println!("{}, nproc {processes}: {:?} {}", S::NAME, ended.status.code(), ended.stderr.trim_end());
        sandbox.is_left_empty();
    }
}

/// Renewals in longer than the ten seconds for which a runtime keeps an idle thread, unless it is told otherwise.
pub const RENEWALS_IN_TEN_SECONDS: u64 = 10;

/// A name that has to be looked up each time.
pub fn at_localhost(url: &str) -> String {
    assert!(url.contains("127.0.0.1"), "{url}");
    url.replace("127.0.0.1", "localhost")
}

/// The schedule of A7: the connection breaks while no process and no thread can be made.
pub fn a_leader_reconnects_while_no_thread_can_be_made<S: StoreServer>() {
    let server = S::start();
    let sandbox = Sandbox::new();
    let mut user = LimitedUser::new(&sandbox);
    let proxy = Proxy::to(&server.address());
    let url = at_localhost(&sandbox.below(&S::url_of(&proxy.address())));
    led_before_for(&sandbox, server.url_for(&sandbox), S::TTL);
    let elect = candidate_for(&sandbox, url, "60s").flag("--renew", "1200ms").witness(&Witness::new());
    let mut leader = user.runs(elect, 20).start();
    sandbox.starts(1);
    let renewals = server.renewals();
    until("threads that are not kept are gone", || server.renewals() >= renewals + RENEWALS_IN_TEN_SECONDS);
    user.crowds(20);
    for _ in 0..3 {
        let (renewals, connections) = (server.renewals(), proxy.carried().connections);
        proxy.mode(ProxyMode::Closed);
        proxy.mode(ProxyMode::Open);
        until("the leader has connected again, and renews", || {
            assert!(!leader.has_ended(), "{}", leader.log());
            proxy.carried().connections > connections && server.renewals() >= renewals + 3
        });
    }
    let history = sandbox.history();
    assert_eq!((history.starts.len(), history.ends.len()), (1, 0), "{}", leader.log());
    leader.terminate();
    sandbox.history().is_safe();
    sandbox.is_left_empty();
}

/// Fork is refused for a hook: the boundary is still taken and given back.
#[test]
fn a_waiter_whose_hooks_cannot_be_started_waits_on() {
    let server = ObservedServer::start();
    let sandbox = Sandbox::new();
    let mut user = LimitedUser::new(&sandbox);
    let leader = candidate_for(&sandbox, server.url_for(&sandbox), "6s").witness(&Witness::new()).start();
    sandbox.starts(1);
    let waiter = candidate_for(&sandbox, at_localhost(&server.url_for(&sandbox)), "6s").flag("--on-change", "true");
    let mut waiter = user.runs(waiter.witness(&Witness::new()), 20).start();
    waiter.wait_until_waiting();
    user.crowds(20);
    leader.terminate();
    // It wins, cannot start the command, and says so; or waits for room.
    until("the waiter is heard of", || waiter.has_ended() || waiter.log().contains("elected"));
    assert!(!waiter.log().contains("panicked"), "{}", waiter.log());
    drop(user);
    sandbox.history().is_safe();
}
