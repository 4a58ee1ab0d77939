//! Answers that never come: of writes that were made, and of writes that are made later than anybody waits for.

use std::time::Duration;

use super::elect;
use crate::harness::mongod::{Mongod, Options, SetOfOne, has};
use crate::harness::proxy::{Mode, Proxy};
use crate::harness::server::Server;
use crate::harness::wait::{eventually, now, since, throughout, until};
use crate::harness::{Candidate, Elect, Place, Witness, few, millis, side_by_side};
use crate::leases::{candidate_for, through};

/// An attempt may take a tenth of it.
const TTL: &str = "10s";
const LEASE: Duration = Duration::from_secs(10);
/// Shorter than an attempt: time enough to close the way back.
const A_MOMENT: Duration = Duration::from_millis(700);
/// Longer than an attempt.
const TOO_LONG: Duration = Duration::from_millis(2500);
/// A record is changed, or made, by one of these.
const WRITES: [&str; 3] = ["findAndModify", "insert", "update"];

/// A server that can be told to be late, and a way to it that can be cut.
struct Scene<S> {
    server: S,
    proxy: Proxy,
    place: Place,
}

impl<S: Server> Scene<S> {
    fn set(start: fn(&Options) -> S) -> Scene<S> {
        let server = start(&Options::new().with_faults());
        Scene { proxy: Proxy::to(&server.address()), server, place: Place::new() }
    }

    fn elect(&self) -> Elect {
        candidate_for(&self.place, through::<S>(&self.proxy, &self.place), TTL).witness(&Witness::new())
    }

    /// Somebody has led, and released.
    fn led_before(&self) {
        let first = candidate_for(&self.place, self.server.url_for(&self.place), TTL).command(["true"]).run();
        assert_eq!(first.status.code(), Some(0), "{first:?}");
    }

    /// The next write is made, and its answer is lost with the connection. Returns when the way was open again.
    fn loses_the_answer<T>(&self, mongod: &Mongod, meanwhile: impl FnOnce() -> T) -> (T, Duration) {
        let seen = mongod.record(&self.place);
        let result = mongod.delays(&WRITES, A_MOMENT, meanwhile);
        self.proxy.mode(Mode::AnswersHeld);
        assert_eq!(mongod.record(&self.place), seen, "the way back was closed in time");
        until("the write is made", || mongod.record(&self.place) != seen);
        self.proxy.mode(Mode::Closed);
        self.proxy.mode(Mode::Open);
        (result, now())
    }
}

fn tell(name: &str, what: &str, took: Duration) {
    println!("figures: {name}: {what}: leads {} after the way is open", millis(took));
}

/// It has taken the record and does not know: it finds out, and waits neither for itself nor twice.
fn finds_its_own_take<S: Server>(start: fn(&Options) -> S, asked: fn(&S) -> &Mongod, first: bool) {
    let scene = Scene::set(start);
    if !first {
        scene.led_before();
    }
    let (leader, opened) = scene.loses_the_answer(asked(&scene.server), || scene.elect().start());
    let taken = asked(&scene.server).record(&scene.place).expect("a record").get_i64("term").expect("a term");
    let led = scene.place.starts(1).latest();
    tell(S::NAME, if first { "answer to the first take of all lost" } else { "answer to a take lost" }, since(opened));
    assert!(since(opened) < LEASE / 2, "it does not wait for its own record: {:?}", since(opened));
    assert!(led.term >= u64::try_from(taken).expect("a term"));
    leader.stops();
    assert_eq!(scene.place.history().starts.len(), 1);
    scene.place.history().is_safe();
}

#[test]
fn a_take_whose_answer_was_lost_is_found_and_not_waited_for() {
    for _ in 0..few().div_ceil(4) {
        side_by_side(few().min(4), || finds_its_own_take(SetOfOne::with, |set| set, false));
        side_by_side(few().min(4), || finds_its_own_take(Mongod::with, |mongod| mongod, false));
    }
}

#[test]
fn the_first_take_of_all_whose_answer_was_lost_is_found_and_not_waited_for() {
    finds_its_own_take(SetOfOne::with, |set| set, true);
    finds_its_own_take(Mongod::with, |mongod| mongod, true);
}

#[test]
fn a_renewal_whose_answer_was_lost_costs_nobody_the_lead() {
    let scene = Scene::set(SetOfOne::with);
    let leader = scene.elect().start();
    scene.place.starts(1);
    let next = elect(&scene.place, &scene.server, TTL).start();
    next.waits();
    for _ in 0..few().min(5) {
        scene.loses_the_answer(&scene.server, || ());
    }
    throughout(LEASE / 2, "it goes on leading", || scene.place.history().starts.len() == 1);
    assert!(!leader.log().contains("lost"), "{}", leader.log());
    leader.stops();
    next.stops();
    scene.place.history().is_safe();
}

#[test]
fn a_release_whose_answer_was_lost_has_released() {
    let scene = Scene::set(SetOfOne::with);
    let leader = scene.elect().start();
    scene.place.starts(1);
    let next = elect(&scene.place, &scene.server, TTL).start();
    next.waits();
    leader.signal(nix::sys::signal::Signal::SIGTERM);
    let stopped = now();
    until("its command is gone", || leader.tree().is_empty());
    scene.proxy.mode(Mode::AnswersHeld);
    scene.place.starts(2);
    assert!(since(stopped) < LEASE, "{:?}", since(stopped));
    scene.proxy.mode(Mode::Closed);
    drop(leader);
    next.stops();
    scene.place.history().is_safe();
}

/// A write that nobody waits for any more: nobody leads by it, and nobody is ousted by it. The server may have seen its client
/// go, and not make it at all.
fn a_late_write<S: Server>(start: fn(&Options) -> S, asked: fn(&S) -> &Mongod, first: bool) {
    let scene = Scene::set(start);
    if !first {
        scene.led_before();
    }
    let mongod = asked(&scene.server);
    let began = now();
    let leader: Candidate = mongod.delays(&WRITES, TOO_LONG, || scene.elect().start());
    let led = scene.place.starts(1).latest();
    println!(
        "figures: {}: {} that would be made {} after it was asked for: leads after {}",
        S::NAME,
        if first { "a first take" } else { "a take" },
        millis(TOO_LONG),
        millis(led.at.saturating_sub(began))
    );
    until("the late write is over", || since(began) > TOO_LONG * 2);
    throughout(LEASE / 2, "it goes on leading", || scene.place.history().starts.len() == 1);
    assert!(since(began) < LEASE * 3);
    assert!(!leader.log().contains("leadership lost"), "{}", leader.log());
    leader.stops();
    scene.place.history().is_safe();
}

#[test]
fn a_take_that_takes_longer_than_anybody_waits_for_it_neither_leads_nor_ousts() {
    std::thread::scope(|scope| {
        for first in [false, true] {
            scope.spawn(move || a_late_write(SetOfOne::with, |set| set, first));
            scope.spawn(move || a_late_write(Mongod::with, |mongod| mongod, first));
        }
    });
}

#[test]
fn a_renewal_that_is_made_late_does_not_bring_back_who_has_released() {
    let scene = Scene::set(SetOfOne::with);
    let leader = scene.elect().start();
    scene.place.starts(1);
    // The renewal is under way, and its sender dies with all that belongs to it.
    scene.server.delays(&["findAndModify"], TOO_LONG, || ());
    let next = elect(&scene.place, &scene.server, TTL).start();
    leader.stops();
    scene.place.starts(2);
    throughout(TOO_LONG * 2, "the next one goes on leading", || scene.place.history().starts.len() == 2);
    eventually("the record is its own", || {
        let record = scene.server.record(&scene.place)?;
        let led = i64::try_from(scene.place.history().latest().term).expect("a term");
        has(&record, "term", led).then_some(())
    });
    next.stops();
    scene.place.history().is_safe();
}

#[test]
fn whoever_asks_only_once_goes_as_soon_as_somebody_is_seen_to_lead() {
    let (set, place) = (SetOfOne::start(), Place::new());
    let leader = elect(&place, &set, "3s").start();
    place.starts(1);
    for ttl in ["3s", "30s"] {
        let began = now();
        let ended = elect(&place, &set, ttl).switch("-n").run();
        println!("figures: mongodb: -n with ttl {ttl} beside a leader with ttl 3 s: 75 after {}", millis(since(began)));
        assert_eq!(ended.status.code(), Some(75), "{ended:?}");
        assert!(since(began) < Duration::from_secs(3), "with the leader's next renewal: {:?}", since(began));
        let quiet = elect(&place, &set, ttl).switch("-q").switch("-n").run();
        assert_eq!((quiet.status.code(), quiet.stderr.as_str()), (Some(75), ""), "silent");
    }
    leader.stops();
    place.history().is_safe();
}

#[test]
fn a_leader_that_was_cut_off_alone_does_not_wait_for_itself() {
    let (set, place) = (SetOfOne::start(), Place::new());
    let proxy = Proxy::to(&set.address());
    let leader = candidate_for(&place, through::<SetOfOne>(&proxy, &place), "3s").witness(&Witness::new()).start();
    place.starts(1);
    proxy.mode(Mode::Closed);
    leader.says("the lease runs out");
    until("its command is gone", || leader.tree().is_empty());
    proxy.mode(Mode::Open);
    let opened = now();
    place.starts(2);
    println!("figures: mongodb: alone after an outage: leads again after {}", millis(since(opened)));
    assert!(since(opened) < Duration::from_secs(3), "{:?}", since(opened));
    leader.stops();
    place.history().is_safe();
}

#[test]
fn thirty_who_begin_at_once_have_one_leader_at_a_time() {
    let place = Place::new();
    let set = SetOfOne::start();
    let count = if few() > 2 { 30 } else { 10 };
    let all: Vec<Candidate> = (0..count).map(|_| elect(&place, &set, "10s").start()).collect();
    place.starts(1);
    let others = || all.iter().filter(|one| one.log().contains("waiting: ")).count();
    until("the others wait", || others() == count - 1);
    assert_eq!(place.history().starts.len(), 1);
    let mut all = all;
    for round in 2..=4 {
        let led = place.history().latest();
        let leads = |one: &Candidate| one.tree().iter().any(|process| process.pid == led.pid);
        all.swap_remove(all.iter().position(leads).expect("one of them leads")).stops();
        place.starts(round);
        // Each sees it, and looks again.
        throughout(Duration::from_millis(500), "one leads", || place.history().starts.len() == round);
    }
    place.history().is_safe();
}
