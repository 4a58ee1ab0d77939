//! One history: everything that happens, in the order of true time, until it has settled or a rule is broken.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use super::super::event::{Attempt, Event, Run, Term};
use super::super::time::Time;
use super::super::{Candidate, Timing};
use super::clock::{Clock, Dice, FASTEST, ms};
use super::coverage::{Coverage, Seen};
use super::faults::Fault;
use super::following::Following;
use super::host::{Host, Keeper, Letter, Life, ToKeeper};
use super::ledger::Books;
use super::network::Weather;
use super::patience::Patient;
use super::petitioning::Petitioners;
use super::sabotage::Broken;
use super::setup::{Mode, Setup};
use super::store::{Client, Effect, Request, Store};
use super::supervision::Supervised;

/// A history that has not ended by then never will.
const LONGEST: u32 = 400_000;

#[derive(Debug, Clone, Copy)]
pub(super) enum What {
    Wake(usize, u64),
    Letter(usize, Letter),
    ToKeeper(usize, ToKeeper),
    KeeperTimer(usize, u64),
    Death(usize),
    Cleared(usize, Run),
    AtStore { host: usize, attempt: Option<Attempt>, leg: u8, request: Request },
    Look,
    Join,
    Fault(Fault),
    Quiet,
    Settle,
}

struct Due {
    at: Duration,
    number: u64,
    what: What,
}

impl PartialEq for Due {
    fn eq(&self, other: &Due) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Due) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    /// The earliest is the greatest, and of those the one that was planned first.
    fn cmp(&self, other: &Due) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

/// A rule that was broken.
#[derive(Debug, Clone)]
pub(super) struct Violation {
    pub rule: &'static str,
    pub seed: u64,
    pub transcript: Vec<String>,
}

pub(super) struct World {
    pub now: Duration,
    pub setup: Setup,
    pub broken: Option<Broken>,
    pub dice: Dice,
    pub hosts: Vec<Host>,
    /// Those of the hosts where anything still runs.
    pub present: Vec<usize>,
    pub store: Store,
    pub store_is_down: bool,
    pub weather: Weather,
    /// Until when the store gives the boundary of a term to nobody else.
    pub guards: BTreeMap<Term, Duration>,
    /// When the record of a term was last written, and with which ttl.
    pub written: BTreeMap<Term, (Duration, Duration)>,
    pub last_term: Term,
    pub effects: Vec<Effect>,
    /// All faults have ended.
    pub quiet: bool,
    pub settled: (Option<(usize, u64)>, u32),
    pub coverage: Coverage,
    pub violation: Option<&'static str>,
    queue: BinaryHeap<Due>,
    planned: u64,
    finished: bool,
    transcript: Option<Vec<String>>,
}

impl World {
    pub(super) fn new(setup: Setup, broken: Option<Broken>, transcribed: bool) -> World {
        let mut dice = Dice { rng: fastrand::Rng::with_seed(setup.seed), punctual: setup.nature.is_some() };
        let store = setup.store(&mut dice, broken);
        let mut world = World {
            now: ms(0),
            broken,
            dice,
            hosts: Vec::new(),
            present: Vec::new(),
            store,
            store_is_down: false,
            weather: Weather::default(),
            guards: BTreeMap::new(),
            written: BTreeMap::new(),
            last_term: 0,
            effects: Vec::new(),
            quiet: false,
            settled: (None, 0),
            coverage: Coverage::new(),
            violation: None,
            queue: BinaryHeap::new(),
            planned: 0,
            finished: false,
            transcript: transcribed.then(Vec::new),
            setup,
        };
        for _ in 0..world.setup.candidates {
            world.join();
        }
        for (at, fault) in std::mem::take(&mut world.setup.faults) {
            world.push(at, What::Fault(fault));
        }
        world.push(world.setup.quiet_at, What::Quiet);
        world
    }

    /// Runs one history to its end.
    pub(super) fn run(setup: &Setup, broken: Option<Broken>) -> Result<Coverage, Violation> {
        let (world, rule) = World::new(setup.clone(), broken, false).play();
        let Some(rule) = rule else { return Ok(world.coverage) };
        // The same once more, this time with every step written down.
        let transcript = if broken.is_some() { Vec::new() } else { World::transcript(setup, broken) };
        Err(Violation { rule, seed: setup.seed, transcript })
    }

    pub(super) fn transcript(setup: &Setup, broken: Option<Broken>) -> Vec<String> {
        World::new(setup.clone(), broken, true).play().0.transcript.expect("asked for")
    }

    fn play(mut self) -> (World, Option<&'static str>) {
        let mut steps = 0;
        while let Some(due) = self.queue.pop() {
            assert!(due.at >= self.now, "time runs backwards in seed {}: {:?}", self.setup.seed, due.what);
            self.now = due.at;
            self.step(due.what);
            self.check_all();
            steps += 1;
            if steps == LONGEST {
                self.violate("a history does not end", 0);
            }
            if self.finished || self.violation.is_some() {
                break;
            }
        }
        let violation = self.violation;
        (self, violation)
    }

    fn step(&mut self, what: What) {
        match what {
            What::Wake(h, generation) => self.wake(h, generation),
            What::Letter(h, letter) => self.letter_arrives(h, letter),
            What::ToKeeper(h, message) => self.keeper_hears(h, message),
            What::KeeperTimer(h, generation) => self.keeper_timer(h, generation),
            What::Death(h) => self.death(h),
            What::Cleared(h, run) => self.clears(h, run),
            What::AtStore { host, attempt, leg, request } => self.request_arrives(host, attempt, leg, request),
            What::Look => self.look_at_leases(),
            What::Join => {
                self.coverage.count(Seen::Joined);
                self.join();
            }
            What::Fault(fault) => self.strike(fault),
            What::Quiet => self.calm_down(),
            What::Settle => self.settle(),
        }
    }

    pub(super) fn push(&mut self, at: Duration, what: What) {
        self.planned += 1;
        self.queue.push(Due { at, number: self.planned, what });
    }

    pub(super) fn note(&mut self, h: usize, what: impl FnOnce() -> String) {
        let name = self.hosts.get(h).map_or(' ', |host| host.name);
        if let Some(lines) = &mut self.transcript {
            let at = self.now.as_secs_f64();
            lines.push(format!("{at:>8.3}  {name}  {}", what()).trim_end().into());
        }
    }

    pub(super) fn violate(&mut self, rule: &'static str, h: usize) {
        if self.violation.is_none() {
            self.violation = Some(rule);
            self.note(h, || format!("VIOLATION: {rule}"));
        }
    }

    // ---- candidates come and go

    fn join(&mut self) {
        let h = self.hosts.len();
        let clock = Clock {
            offset: self.dice.between(ms(0), Duration::from_secs(36_000)),
            rate: if self.setup.drift { self.dice.rng.i64(-FASTEST..=FASTEST) } else { 0 },
        };
        let clock = if self.dice.punctual { Clock { offset: ms(0), rate: 0 } } else { clock };
        let asked = self.setup.asked(&mut self.dice);
        let mut timing = if self.broken == Some(Broken::UnprovenTimings) {
            let ttl = asked.ttl.expect("asked for");
            Timing::derive(super::super::Asked { renew: Some(ttl * 3 / 5), ..asked })
        } else {
            Timing::prove(asked).expect("drawn so that it holds")
        };
        if self.setup.mode == Mode::Lock {
            timing = timing.without_lease();
        }
        let stop_timeout = self.setup.stop_timeout;
        let wishes = self.setup.wishes(h);
        let mut candidate = Candidate::new(timing, stop_timeout, wishes, self.dice.rng.u64(..));
        if let Some(Broken::Core(rule)) = self.broken {
            candidate.core.sabotage = Some(rule);
        }
        let client = Client::new(&self.store, h, asked.ttl.expect("asked for"), self.broken);
        self.hosts.push(Host {
            name: char::from(b'A' + u8::try_from(h % 26).expect("a letter")),
            clock,
            candidate,
            campaigner: Life::Running { since: self.now },
            inbox: Vec::new(),
            keeper: Keeper::new(self.now),
            tree: super::command::Tree::default(),
            client,
            stop_timeout,
            wake: (0, Time::NEVER),
            restless: 0,
            to_keeper_at: self.now,
            from_keeper_at: self.now,
            cuts: (0, 0),
            last_arrived: Attempt(0),
            books: Books::new(asked, timing.ttl()),
            patient: Patient::new(wishes),
            supervised: Supervised::new(wishes),
            following: Following::new(wishes),
            petitioners: Petitioners::default(),
        });
        self.present.push(h);
        self.note(h, || format!("joins, ttl {:?}", asked.ttl.expect("asked for")));
        self.deliver(h, Event::Tick);
    }

    /// Something of this host has ended.
    pub(super) fn host_changed(&mut self, h: usize) {
        let host = &mut self.hosts[h];
        if host.campaigner == Life::Dead && host.keeper.life == Life::Stopped && !host.tree.is_alive() {
            host.keeper.life = Life::Dead;
        }
        if !host.is_over() || !self.present.contains(&h) {
            return;
        }
        self.present.retain(|other| *other != h);
        if let Store::Lock(server) = &mut self.store {
            // The last process that had the descriptor is gone.
            let mut effects = std::mem::take(&mut self.effects);
            server.unlock(h, &mut effects);
            self.follow(&mut effects);
            self.effects = effects;
        }
        if self.setup.rejoin {
            let at = self.now + self.dice.between(ms(1), self.setup.ttl);
            self.push(at, What::Join);
        }
    }

    // ---- the end

    /// All faults end: from here on somebody has to lead before long.
    fn calm_down(&mut self) {
        self.quiet = true;
        self.weather = Weather::default();
        if self.setup.nature.is_some() {
            self.finished = true;
            return;
        }
        self.restore_store(super::record_store::AfterRestart::Kept);
        for h in self.present.clone() {
            self.hosts[h].cuts = (0, 0);
            self.continue_campaigner(h);
            if !self.hosts[h].keeper.stopped_for_good {
                self.continue_keeper(h);
            }
        }
        self.push(self.now + self.setup.ttl / 4, What::Settle);
    }

    /// Settled is a history in which the same command has been leading for more than a ttl.
    fn settle(&mut self) {
        let leader = self.present.iter().map(|h| (*h, &self.hosts[*h]));
        let mut leader =
            leader.filter(|(_, host)| host.leads() && host.tree.lasting).map(|(h, host)| (h, host.tree.run));
        let leader = leader.next_back();
        self.settled = match self.settled {
            (before, times) if before == leader && leader.is_some() => (leader, times + 1),
            (_, _) => (leader, 0),
        };
        let patience =
            if self.setup.supervised || self.setup.following { 16 * self.setup.longest_ttl() } else { ms(0) };
        let bound = 9 * self.setup.longest_ttl() + 2 * self.setup.stop_timeout + Duration::from_secs(20) + patience;
        if self.settled.1 >= 5 {
            self.finished = true;
        } else if self.now > self.setup.quiet_at + bound {
            self.violate("liveness: all is well, and nobody leads", 0);
        } else {
            self.push(self.now + self.setup.ttl / 4, What::Settle);
        }
    }
}
