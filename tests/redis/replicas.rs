//! A primary, two replicas and a Sentinel, and all that can become of them: whoever leads is credited by all of them or not
//! at all, so that no failover forgets a leader.

use std::time::Duration;

use super::led_before;
use crate::harness::redis::{Options, Redis};
use crate::harness::sentinel::Sentinel;
use crate::harness::server::Server;
use crate::harness::wait::{now, since, throughout, until};
use crate::harness::{Candidate, Elect, Place, Witness, few, millis};
use crate::leases::{LEASE, a_few_at_once, candidate};

/// Longer than it takes to promote a replica, and for a lease to run out after that.
const LONG_ENOUGH: Duration = Duration::from_secs(12);

/// What tells the two sides apart: who asks the Sentinel follows the failover, who names the primary stays with it.
struct Stage {
    place: Place,
    sentinel: Sentinel,
}

impl Stage {
    fn set() -> Stage {
        let (place, sentinel) = (Place::new(), Sentinel::start());
        led_before(&place, &sentinel.primary);
        Stage { place, sentinel }
    }

    /// With the Sentinel's word for it.
    fn follower(&self, options: &str) -> Elect {
        candidate(&self.place, self.place.below(&format!("{}{options}", self.sentinel.url()))).witness(&Witness::new())
    }

    /// Always at the first primary.
    fn loyal(&self, options: &str) -> Elect {
        let url = format!("{}{options}", self.sentinel.primary.url());
        candidate(&self.place, self.place.below(&url)).witness(&Witness::new())
    }

    #[track_caller]
    fn is_safe(&self) {
        self.place.history().is_safe();
    }
}

/// What else befalls them while the primary is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Besides {
    Nothing,
    AReplicaStandsStill,
    ConnectionsBreak,
}

/// The classic split: the primary is cut off from its replicas and from the Sentinel, but not from its leader, nor from one who
/// comes to that side later.
fn is_split(besides: Besides) {
    let stage = Stage::set();
    let leader = stage.loyal("").start();
    stage.place.starts(1);
    let next = stage.follower("").start();
    next.waits();
    let led = stage.place.history().latest();
    let end = stage.place.watch_the_end_of(led.pid);
    if besides == Besides::AReplicaStandsStill {
        stage.sentinel.replicas[0].stop();
    }
    let cut = now();
    stage.sentinel.cut_off();
    let late = stage.loyal("").start();
    // Whoever goes on leading there is found by the one who leads on the other side.
    until("it is dead, or another one leads", || {
        if besides == Besides::ConnectionsBreak {
            // Both sit in WAIT, again and again: on the connection that follows nothing was written.
            let _ = stage.sentinel.primary.try_cli(&["client", "kill", "type", "normal"]);
        }
        end.is_finished() || stage.place.history().starts.len() > 1
    });
    stage.is_safe();
    let ended = end.join().expect("the watch on the old tree");
    if besides != Besides::ConnectionsBreak {
        leader.says("replicas have confirmed");
    }
    assert!(ended.saturating_sub(cut) < LEASE, "dead within its lease");
    stage.sentinel.promoted();
    // The new primary has two replicas to wait for, and one of them is the old primary: nobody leads until it is back. Nor
    // does anybody on the other side.
    throughout(LONG_ENOUGH, "nobody leads", || stage.place.history().starts.len() == 1);
    late.says("of 2 replicas are attached");
    stage.sentinel.heal();
    if besides == Besides::AReplicaStandsStill {
        stage.sentinel.replicas[0].cont();
    }
    let healed = now();
    let started = stage.place.starts(2).latest();
    println!(
        "figures: redis: primary cut off from its replicas, not from its leader ({besides:?} besides): dead after {}, next one \
         {} after the way is open",
        millis(ended.saturating_sub(cut)),
        millis(since(healed))
    );
    assert!(started.term > led.term);
    stage.is_safe();
    late.ends_killed();
    drop(leader);
    next.stops();
    stage.is_safe();
}

#[test]
fn a_leader_on_a_primary_that_was_cut_off_is_dead_before_the_next_one_starts() {
    a_few_at_once(few(), || is_split(Besides::Nothing));
}

#[test]
fn a_split_with_a_replica_that_stands_still_lets_nobody_lead() {
    a_few_at_once(few(), || is_split(Besides::AReplicaStandsStill));
}

#[test]
fn a_split_with_connections_that_break_lets_nobody_lead() {
    a_few_at_once(few(), || is_split(Besides::ConnectionsBreak));
}

#[test]
fn terms_rise_through_every_failover() {
    let stage = Stage::set();
    let candidates: [Candidate; 2] = [stage.follower("").start(), stage.follower("").start()];
    stage.place.starts(1);
    let mut primary = stage.sentinel.primary_port();
    let rounds = if few() > 2 { 4 } else { 2 };
    for round in 1..=rounds {
        let before = stage.place.history().starts.len();
        let all = || stage.sentinel.replicas.iter().chain([&stage.sentinel.primary]);
        // The first one is known by the address of its proxy.
        let failing = all().find(|one| one.port.to_string() == primary).unwrap_or(&stage.sentinel.primary);
        if round % 2 == 1 {
            failing.kill();
        } else {
            failing.stop();
        }
        until("another is the primary", || stage.sentinel.primary_port() != primary);
        primary = stage.sentinel.primary_port();
        throughout(Duration::from_secs(2), "never two", || stage.place.history().verdict().is_ok());
        if round % 2 == 1 {
            failing.start_again();
        } else {
            failing.cont();
        }
        stage.place.starts(before + 1);
        stage.is_safe();
    }
    println!("figures: redis: {rounds} failovers, primary killed and stopped in turn: terms rise, overlaps 0");
    candidates.into_iter().for_each(Candidate::stops);
    stage.is_safe();
}

#[test]
fn a_replica_that_stands_still_leaves_nobody_credited() {
    let stage = Stage::set();
    let leader = stage.follower("").start();
    stage.place.starts(1);
    stage.sentinel.replicas[0].stop();
    leader.says("of 2 replicas have confirmed");
    leader.says("the lease runs out");
    let late = stage.loyal("").start();
    throughout(LEASE * 2, "nobody leads", || stage.place.history().starts.len() == 1);
    stage.sentinel.replicas[0].cont();
    stage.place.starts(2);
    stage.is_safe();
    drop((leader, late));
}

#[test]
fn a_replica_that_is_gone_for_good_is_done_without_if_that_is_said() {
    let stage = Stage::set();
    stage.sentinel.replicas[0].kill();
    let all = stage.loyal("").start();
    all.says("of 2 replicas are attached");
    let one = stage.loyal("?replicas=1&replicas-was=2").start();
    all.stops();
    stage.place.starts(1);
    one.stops();
    stage.is_safe();
}

#[test]
fn a_connection_that_breaks_between_write_and_confirmation_confirms_nothing() {
    let stage = Stage::set();
    let leader = stage.loyal("").start();
    stage.place.starts(1);
    // Its connections are killed as well, and it would take the primary for dead.
    stage.sentinel.stop();
    stage.sentinel.replicas.iter().for_each(Redis::stop);
    // It sits in WAIT, again and again: on the connection that follows nothing was written, and two replicas would have it.
    let struck = now();
    until("the lease has run out", || {
        let _ = stage.sentinel.primary.try_cli(&["client", "kill", "type", "normal"]);
        leader.log().contains("the lease runs out")
    });
    assert!(since(struck) < LEASE, "{:?}", since(struck));
    stage.sentinel.replicas.iter().for_each(Redis::cont);
    stage.place.starts(2);
    leader.stops();
    stage.is_safe();
}

#[test]
fn without_replicas_that_confirm_two_may_lead_as_the_manual_warns() {
    // The control: this harness finds two at once where there are two.
    let stage = Stage::set();
    let leader = stage.loyal("?replicas=0&replicas-was=2").start();
    stage.place.starts(1);
    let next = stage.follower("?replicas=0&replicas-was=2").start();
    next.waits();
    stage.sentinel.cut_off();
    stage.sentinel.promoted();
    let history = stage.place.starts(2);
    assert!(!history.overlaps.is_empty(), "{history:?}");
    println!("figures: redis: replicas=0, primary cut off from its replicas: overlaps {}", history.overlaps.len());
    drop((leader, next));
}

#[test]
fn whoever_names_a_replica_is_told_so() {
    let primary = Redis::start();
    let replica = Redis::with(&Options::new().flag("replicaof", &["127.0.0.1", &primary.port.to_string()]));
    let place = Place::new();
    let ended = candidate(&place, replica.url_for(&place)).switch("-n").command(["true"]).run();
    assert_eq!(ended.status.code(), Some(69), "{ended:?}");
    ended.says(&["is a replica"]);
}

#[test]
fn a_sentinel_that_knows_no_such_primary_says_so() {
    let stage = Stage::set();
    let nobody = stage.sentinel.url().replace("/main", "/other");
    let ended = candidate(&stage.place, nobody).switch("-n").command(["true"]).run();
    assert_eq!(ended.status.code(), Some(77), "{ended:?}");
    ended.says(&["knows no primary named \"other\""]);
    let direct = stage.sentinel.url().replace("redis+sentinel", "redis").replace("/main", "");
    let ended = candidate(&stage.place, direct).switch("-n").command(["true"]).run();
    assert_eq!(ended.status.code(), Some(77), "{ended:?}");
    ended.says(&["redis+sentinel://"]);
}
