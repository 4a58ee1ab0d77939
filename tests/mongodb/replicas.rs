//! Sets of three, and all that can become of their primary: a leader is credited by a majority or not at all, so that no
//! election forgets one.

use std::time::Duration;

use crate::harness::mongod::Mongod;
use crate::harness::replicas::ReplicaSet;
use crate::harness::wait::{now, since, throughout, until};
use crate::harness::{Candidate, Elect, Place, Witness, is_long, millis};
use crate::leases::{LEASE, candidate, candidate_for};

/// What tells the two sides apart: who names the set follows its elections, who names one member stays with it.
struct Stage {
    place: Place,
    set: ReplicaSet,
}

impl Stage {
    fn set() -> Stage {
        Stage { place: Place::new(), set: ReplicaSet::start() }
    }

    fn follower(&self) -> Elect {
        candidate(&self.place, self.place.below(&self.set.url())).witness(&Witness::new())
    }

    /// Always at this member.
    fn loyal(&self, index: usize) -> Elect {
        candidate(&self.place, self.place.below(&self.set.url_of(index))).witness(&Witness::new())
    }

    #[track_caller]
    fn is_safe(&self) {
        self.place.history().is_safe();
    }
}

/// What happens to a primary, and what brings it back.
struct Blow {
    kind: &'static str,
    strike: fn(&ReplicaSet, usize),
    mend: fn(&ReplicaSet, usize),
}

const BLOWS: [Blow; 4] = [
    Blow {
        kind: "killed",
        strike: |set, primary| set.members[primary].kill(),
        mend: |set, primary| set.members[primary].start_again(),
    },
    Blow {
        kind: "stopped",
        strike: |set, primary| set.members[primary].stop(),
        mend: |set, primary| set.members[primary].cont(),
    },
    Blow { kind: "stepped down", strike: ReplicaSet::step_down, mend: |_, _| () },
    Blow { kind: "cut off from the others", strike: ReplicaSet::cut_off, mend: ReplicaSet::heal },
];

/// A leader with this ttl and one who waits for it, on a set that others use too.
struct Team {
    ttl: u64,
    place: Place,
    candidates: [Candidate; 2],
}

impl Team {
    fn on(set: &ReplicaSet, ttl: u64) -> Team {
        let place = Place::new();
        let start = || {
            let store = place.below(&set.url());
            candidate_for(&place, store, &format!("{ttl}s")).witness(&Witness::new()).start()
        };
        let leader = start();
        place.starts(1);
        let next = start();
        next.waits();
        let candidates = [leader, next];
        Team { ttl, place, candidates }
    }

    fn demotions(&self) -> usize {
        self.candidates.iter().map(|one| one.log().matches("the lease runs out").count()).sum()
    }
}

#[test]
fn whatever_happens_to_a_primary_nobody_leads_twice_and_long_leases_ride_through_the_election() {
    let set = ReplicaSet::start();
    let ttls: &[u64] = if is_long() { &[3, 5, 8, 10, 12, 15, 20, 60] } else { &[3, 10, 15, 60] };
    let teams: Vec<Team> = ttls.iter().map(|&ttl| Team::on(&set, ttl)).collect();
    let rounds = if is_long() { 5 } else { 1 };
    for Blow { kind, strike, mend } in BLOWS {
        let (mut demoted, mut outages) = (vec![0; teams.len()], Vec::new());
        for _ in 0..rounds {
            let before: Vec<usize> = teams.iter().map(Team::demotions).collect();
            let starts: Vec<usize> = teams.iter().map(|team| team.place.history().starts.len()).collect();
            let primary = set.primary();
            let struck = now();
            strike(&set, primary);
            set.primary_after(primary);
            outages.push(since(struck));
            // Whoever was demoted leads again, or another does; the others have renewed.
            for (index, team) in teams.iter().enumerate() {
                let is_led = || {
                    let again = team.demotions() > before[index];
                    !again || team.place.history().starts.len() > starts[index]
                };
                let window = Duration::from_secs(team.ttl.min(6));
                throughout(window.saturating_sub(since(struck)), "never two", || {
                    team.place.history().verdict().is_ok()
                });
                until("somebody leads", is_led);
                demoted[index] += team.demotions() - before[index];
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
    for Team { place, candidates, .. } in teams {
        place.history().is_safe();
        candidates.into_iter().for_each(Candidate::stops);
        place.history().is_safe();
    }
}

#[test]
fn a_leader_on_a_primary_that_was_cut_off_is_dead_before_the_next_one_starts() {
    let stage = Stage::set();
    let leader = stage.follower().start();
    stage.place.starts(1);
    let next = stage.follower().start();
    next.waits();
    let led = stage.place.history().latest();
    let end = stage.place.watch_the_end_of(led.pid);
    let primary = stage.set.primary();
    let cut = now();
    stage.set.cut_off_with(primary, &leader);
    // And one who comes to the isolated side.
    let late = stage.loyal(primary).start();
    stage.set.primary_after(primary);
    let elected = since(cut);
    let started = stage.place.starts(2).latest();
    let ended = end.join().expect("the watch on the old tree");
    assert!(ended.saturating_sub(cut) < LEASE, "dead within its lease: {:?}", ended.saturating_sub(cut));
    println!(
        "figures: mongodb: primary and leader cut off from the others: dead after {}, another primary after {}, next one {} after the cut",
        millis(ended.saturating_sub(cut)),
        millis(elected),
        millis(started.at.saturating_sub(cut))
    );
    assert!(started.term > led.term);
    stage.set.heal(primary);
    stage.set.is_whole();
    leader.waits();
    late.waits();
    stage.is_safe();
    next.stops();
    // The minority's primary may have written what nobody confirmed: it is undone, and terms rise.
    stage.place.starts(3);
    late.stops();
    leader.stops();
    stage.is_safe();
}

#[test]
fn a_primary_without_a_majority_confirms_nothing_as_long_as_it_takes_itself_for_one() {
    // So long that it does, for all of this.
    let stage = Stage::set();
    stage.set.elects_after(Duration::from_secs(20));
    let primary = stage.set.primary();
    let leader = stage.loyal(primary).start();
    let led = stage.place.starts(1).latest();
    let end = stage.place.watch_the_end_of(led.pid);
    let seq = |member: &Mongod| member.record(&stage.place).map(|record| record.to_string());
    let cut = now();
    stage.set.cut_off(primary);
    let before = seq(&stage.set.members[primary]);
    let ended = end.join().expect("the watch on the old tree");
    assert!(ended.saturating_sub(cut) < LEASE, "dead within its lease: {:?}", ended.saturating_sub(cut));
    let late = stage.loyal(primary).start();
    throughout(LEASE * 4 / 3, "nobody leads", || stage.place.history().starts.len() == 1);
    assert!(stage.set.is_primary(primary), "it still takes itself for one");
    assert_ne!(seq(&stage.set.members[primary]), before, "it has written what nobody has confirmed");
    stage.set.heal(primary);
    stage.place.starts(2);
    stage.is_safe();
    late.stops();
    leader.stops();
    stage.is_safe();
}

#[test]
fn a_primary_whose_secondaries_stand_still_credits_nobody() {
    let stage = Stage::set();
    let leader = stage.follower().start();
    stage.place.starts(1);
    let primary = stage.set.primary();
    let others = || stage.set.members.iter().enumerate().filter(|(index, _)| *index != primary);
    others().for_each(|(_, member)| member.stop());
    leader.says("the lease runs out");
    let late = stage.loyal(primary).start();
    throughout(LEASE * 4 / 3, "nobody leads", || stage.place.history().starts.len() == 1);
    others().for_each(|(_, member)| member.cont());
    stage.place.starts(2);
    stage.is_safe();
    drop((leader, late));
}

#[test]
fn a_set_that_is_started_again_all_at_once_has_forgotten_nothing() {
    let stage = Stage::set();
    let store = stage.place.below(&stage.set.url());
    let leader = candidate_for(&stage.place, store, "60s").witness(&Witness::new()).start();
    let led = stage.place.starts(1).latest();
    let next = stage.follower().start();
    next.waits();
    stage.set.members.iter().for_each(Mongod::kill);
    stage.set.members.iter().for_each(Mongod::start_again);
    stage.set.is_whole();
    throughout(LEASE * 4 / 3, "it goes on leading", || stage.place.history().starts.len() == 1);
    leader.stops();
    assert!(stage.place.starts(2).latest().term > led.term);
    next.stops();
    stage.is_safe();
}

#[test]
fn whoever_names_a_secondary_alone_is_told_so() {
    let stage = Stage::set();
    let secondary = (stage.set.primary() + 1) % stage.set.members.len();
    let ended = stage.loyal(secondary).switch("-n").run();
    assert_eq!(ended.status.code(), Some(69), "{ended:?}");
    ended.says(&["primary"]);
}
