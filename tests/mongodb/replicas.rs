//! Sets of three, and all that can become of their primary: a leader is credited by a majority or not at all, so that no
//! election forgets one.

use std::time::Duration;

use ::mongodb::bson::doc;

use crate::harness::timing_verdict::{assert_in_time, retry_if_machine_slow};
use crate::harness::wait::{now, since, throughout, until};
use crate::harness::{CandidateProcess, ElectCmd, Sandbox, Witness, is_long, millis};
use crate::leases::{LEASE, candidate_for, real, written};
use crate::mongodb::replica_set::ReplicaSet;
use crate::mongodb::server::{COLLECTION, Mongod};

/// The two sides: a candidate that names the set follows its elections, one that names a member stays with it.
struct ReplicaSetScenario {
    sandbox: Sandbox,
    set: ReplicaSet,
    ttl: String,
}

impl ReplicaSetScenario {
    fn set() -> ReplicaSetScenario {
        ReplicaSetScenario::of(LEASE)
    }

    fn of(lease: Duration) -> ReplicaSetScenario {
        ReplicaSetScenario { sandbox: Sandbox::new(), set: ReplicaSet::start(), ttl: written(lease) }
    }

    fn follower(&self) -> ElectCmd {
        candidate_for(&self.sandbox, self.sandbox.below(&self.set.url()), &self.ttl).witness(&Witness::new())
    }

    /// Always at this member.
    fn loyal(&self, index: usize) -> ElectCmd {
        candidate_for(&self.sandbox, self.sandbox.below(&self.set.url_of(index)), &self.ttl).witness(&Witness::new())
    }

    #[track_caller]
    fn is_safe(&self) {
        self.sandbox.history().is_safe();
    }
}

/// A fault of a primary, and its repair.
struct PrimaryFailure {
    kind: &'static str,
    strike: fn(&ReplicaSet, usize),
    mend: fn(&ReplicaSet, usize),
}

const PRIMARY_FAILURES: [PrimaryFailure; 4] = [
    PrimaryFailure {
        kind: "killed",
        strike: |set, primary| set.members[primary].kill(),
        mend: |set, primary| set.members[primary].start_again(),
    },
    PrimaryFailure {
        kind: "stopped",
        strike: |set, primary| set.members[primary].stop(),
        mend: |set, primary| set.members[primary].cont(),
    },
    PrimaryFailure { kind: "stepped down", strike: ReplicaSet::step_down, mend: |_, _| () },
    PrimaryFailure { kind: "cut off from the others", strike: ReplicaSet::cut_off, mend: ReplicaSet::heal },
];

/// A leader with this ttl and one who waits for it, on a set that others use too.
struct ReplicaSetPair {
    ttl: u64,
    sandbox: Sandbox,
    candidates: [CandidateProcess; 2],
}

impl ReplicaSetPair {
    fn on(set: &ReplicaSet, ttl: u64) -> ReplicaSetPair {
        let sandbox = Sandbox::new();
        let start = || {
            let store = sandbox.below(&set.url());
            candidate_for(&sandbox, store, &format!("{ttl}s")).witness(&Witness::new()).start()
        };
        let leader = start();
        sandbox.starts(1);
        let next = start();
        next.wait_until_waiting();
        let candidates = [leader, next];
        ReplicaSetPair { ttl, sandbox, candidates }
    }

    fn demotions(&self) -> usize {
        self.candidates.iter().map(|one| one.log().matches("the lease runs out").count()).sum()
    }
}

#[test]
fn whatever_happens_to_a_primary_nobody_leads_twice_and_long_leases_ride_through_the_election() {
    let set = ReplicaSet::start();
    let ttls: &[u64] = if is_long() { &[3, 5, 8, 10, 12, 15, 20, 60] } else { &[3, 10, 15, 60] };
    let pairs: Vec<ReplicaSetPair> = ttls.iter().map(|&ttl| ReplicaSetPair::on(&set, ttl)).collect();
    let rounds = if is_long() { 5 } else { 1 };
    for PrimaryFailure { kind, strike, mend } in PRIMARY_FAILURES {
        let (mut demoted, mut outages) = (vec![0; pairs.len()], Vec::new());
        for _ in 0..rounds {
            let before: Vec<usize> = pairs.iter().map(ReplicaSetPair::demotions).collect();
            let starts: Vec<usize> = pairs.iter().map(|pair| pair.sandbox.history().starts.len()).collect();
            let primary = set.primary();
            let struck = now();
            strike(&set, primary);
            set.primary_after(primary);
            outages.push(since(struck));
            // Each demoted leader leads again, or another does; the others have renewed.
            for (index, pair) in pairs.iter().enumerate() {
                let is_led = || {
                    let again = pair.demotions() > before[index];
                    !again || pair.sandbox.history().starts.len() > starts[index]
                };
                let window = Duration::from_secs(pair.ttl.min(6));
                throughout(window.saturating_sub(since(struck)), "never two", || {
                    pair.sandbox.history().verdict().is_ok()
                });
                until("somebody leads", is_led);
                demoted[index] += pair.demotions() - before[index];
            }
            mend(&set, primary);
            set.is_whole();
        }
        outages.sort();
        let told: Vec<String> =
            ttls.iter().zip(&demoted).map(|(ttl, demoted)| format!("{ttl} s: {demoted} of {rounds}")).collect();
        println!(
            "figures: mongodb: primary {kind}: another after {} (maximum {}), demoted with ttl {}",
            millis(outages[outages.len() / 2]),
            millis(outages[outages.len() - 1]),
            told.join(", ")
        );
        assert_eq!(demoted.last(), Some(&0), "a minute is longer than any election");
    }
    for ReplicaSetPair { sandbox, candidates, .. } in pairs {
        sandbox.history().is_safe();
        candidates.into_iter().for_each(CandidateProcess::terminate);
        sandbox.history().is_safe();
    }
}

#[test]
fn a_leader_on_a_primary_that_was_cut_off_is_dead_before_the_next_one_starts() {
    retry_if_machine_slow("mongodb: primary and leader cut off", LEASE, primary_and_leader_cut_off);
}

fn primary_and_leader_cut_off(lease: Duration) {
    let scenario = ReplicaSetScenario::of(lease);
    let leader = scenario.follower().start();
    scenario.sandbox.starts(1);
    let next = scenario.follower().start();
    next.wait_until_waiting();
    let led = scenario.sandbox.history().latest();
    let end = scenario.sandbox.watch_the_end_of(led.pid);
    let primary = scenario.set.primary();
    let cut = now();
    scenario.set.cut_off_with(primary, &leader);
    // And one who comes to the isolated side.
    let late = scenario.loyal(primary).start();
    scenario.set.primary_after(primary);
    let elected = since(cut);
    let started = scenario.sandbox.starts(2).latest();
    let ended = end.join().expect("the watch on the old tree");
    let took = ended.saturating_sub(cut);
    assert_in_time(took < lease, || format!("dead within its lease: {took:?}"));
    println!(
        "figures: mongodb: primary and leader cut off from the others: dead after {}, another primary after {}, next one {} after the cut",
        millis(ended.saturating_sub(cut)),
        millis(elected),
        millis(started.at.saturating_sub(cut))
    );
    assert!(started.term > led.term);
    scenario.set.heal(primary);
    scenario.set.is_whole();
    leader.wait_until_waiting();
    // The member may have stepped down before it was asked.
    until("the late one is refused", || {
        let log = late.log();
        log.contains("waiting: ") || log.contains("is a member that is not the primary")
    });
    scenario.is_safe();
    next.terminate();
    // The minority's primary may have written what nobody confirmed: it is undone, and terms rise.
    scenario.sandbox.starts(3);
    late.terminate();
    leader.terminate();
    scenario.is_safe();
}

#[test]
fn a_primary_without_a_majority_confirms_nothing_as_long_as_it_takes_itself_for_one() {
    retry_if_machine_slow("mongodb: a primary without a majority", LEASE, a_primary_without_a_majority);
}

fn a_primary_without_a_majority(lease: Duration) {
    // So long that it does, for all of this.
    let scenario = ReplicaSetScenario::of(lease);
    scenario.set.elects_after(Duration::from_secs(17) + lease);
    let primary = scenario.set.primary();
    let leader = scenario.loyal(primary).start();
    let led = scenario.sandbox.starts(1).latest();
    let end = scenario.sandbox.watch_the_end_of(led.pid);
    // As this member has it, and as it knows a majority to have it.
    let record = |level: &str| {
        let find = doc! { "find": COLLECTION, "readConcern": { "level": level } };
        let found = scenario.set.members[primary].command(&scenario.sandbox.database(), find);
        found.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch")).expect("a batch").clone()
    };
    let cut = now();
    scenario.set.cut_off(primary);
    let ended = end.join().expect("the watch on the old tree");
    let took = ended.saturating_sub(cut);
    assert_in_time(took < lease, || format!("dead within its lease: {took:?}"));
    let late = scenario.loyal(primary).start();
    throughout(lease * 4 / 3, "nobody leads", || scenario.sandbox.history().starts.len() == 1);
    assert!(scenario.set.is_primary(primary), "it still takes itself for one");
    assert_ne!(record("local"), record("majority"), "it has written what nobody has confirmed");
    scenario.set.heal(primary);
    scenario.sandbox.starts(2);
    scenario.is_safe();
    late.terminate();
    leader.terminate();
    scenario.is_safe();
}

#[test]
fn a_primary_whose_secondaries_stand_still_credits_nobody() {
    let scenario = ReplicaSetScenario::set();
    let leader = scenario.follower().start();
    scenario.sandbox.starts(1);
    let primary = scenario.set.primary();
    let others = || scenario.set.members.iter().enumerate().filter(|(index, _)| *index != primary);
    others().for_each(|(_, member)| member.stop());
    leader.wait_for_log("the lease runs out");
    let late = scenario.loyal(primary).start();
    throughout(LEASE * 4 / 3, "nobody leads", || scenario.sandbox.history().starts.len() == 1);
    others().for_each(|(_, member)| member.cont());
    scenario.sandbox.starts(2);
    scenario.is_safe();
    drop((leader, late));
}

#[test]
fn a_set_that_is_started_again_all_at_once_has_forgotten_nothing() {
    let scenario = ReplicaSetScenario::set();
    let store = scenario.sandbox.below(&scenario.set.url());
    let leader = candidate_for(&scenario.sandbox, store, "60s").witness(&Witness::new()).start();
    let led = scenario.sandbox.starts(1).latest();
    let next = scenario.follower().start();
    next.wait_until_waiting();
    scenario.set.members.iter().for_each(Mongod::kill);
    scenario.set.members.iter().for_each(Mongod::start_again);
    scenario.set.is_whole();
    throughout(LEASE * 4 / 3, "it goes on leading", || scenario.sandbox.history().starts.len() == 1);
    leader.terminate();
    assert!(scenario.sandbox.starts(2).latest().term > led.term);
    next.terminate();
    scenario.is_safe();
}

#[test]
fn whoever_names_a_secondary_alone_is_told_so() {
    let scenario = ReplicaSetScenario::set();
    let secondary = (scenario.set.primary() + 1) % scenario.set.members.len();
    let direct = scenario.sandbox.below(&scenario.set.url_of(secondary));
    let ended = candidate_for(&scenario.sandbox, direct, "20s").switch("-n").command(["true"]).run();
    assert_eq!(ended.status.code(), Some(69), "{ended:?}");
    ended.stderr_contains(&["primary"]);
}

/// A take may be done by a primary that is alone, and shows to no one then. The others must not ask for it again as fast as that
/// primary answers, and the log says what is missing.
#[test]
fn without_a_majority_nobody_leads_and_the_candidates_ask_at_their_pace_and_say_why() {
    let ReplicaSetScenario { sandbox, set, .. } = ReplicaSetScenario::set();
    set.elects_after(Duration::from_secs(3600));
    let primary = set.primary();
    // Of its attempts a wait for the majority takes three quarters.
    let start = || candidate_for(&sandbox, sandbox.below(&set.url_of(primary)), "10s").witness(&Witness::new()).start();
    let leader = start();
    sandbox.starts(1);
    let waiters = [start(), start()];
    waiters.iter().for_each(CandidateProcess::wait_until_waiting);
    let others = (0..set.members.len()).filter(|&member| member != primary);
    others.clone().for_each(|member| set.members[member].kill());
    for waiter in &waiters {
        waiter.wait_for_log("majority");
    }
    let member = &set.members[primary];
    let asked = || ["findAndModify", "aggregate", "update"].iter().map(|name| member.commands(name)).sum::<u64>();
    let (before, began, window) = (asked(), now(), LEASE * 2);
    until("they have asked for a while", || since(began) >= window);
    let rate = real(asked() - before) / since(began).as_secs_f64() / 3.0;
    println!("figures: mongodb: a candidate without a majority makes {rate:.1} requests a second");
    assert!(rate < 10.0, "{rate:.1} requests a second from each candidate");
    assert_eq!(sandbox.history().starts.len(), 1, "nobody leads");
    others.for_each(|member| set.members[member].start_again());
    sandbox.starts(2);
    drop((leader, waiters));
    sandbox.history().is_safe();
}
