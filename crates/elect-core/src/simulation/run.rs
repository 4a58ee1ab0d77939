//! One history: everything that happens, in the order of true time, until it has settled or a rule is broken.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::time::Duration;

use super::super::time::Time;
use super::super::{Candidate, Timing};
use super::choices::SimRng;
use super::clock::{CLOCK_DRIFT_MAX_PPM, Clock, ms};
use super::coverage::{Coverage, Seen};
use super::eligibility_check::EligibilityCheck;
use super::faults::Fault;
use super::follower_check::FollowerCheck;
use super::health_check::CheckOrders;
use super::host::{Delivery, ProcessState, SimHost};
use super::invariants::ReferenceState;
use super::keeper_shell::{KeeperProcess, ModelMessage};
use super::mutations::InjectedMutation;
use super::network::NetworkConditions;
use super::request_check::RequestCheck;
use super::restart_check::RestartCheck;
use super::setup::{Setup, StoreModel};
use super::states::StateSet;
use super::store::{Client, Effect, Request, Store};
use super::wait_check::WaitCheck;
use crate::{Attempt, Event, FromKeeper, KeeperMachine, Term};

/// No process of the model has a smaller id.
const FIRST_PID: i32 = 4710;
/// A history that has not ended by then never will.
const LONGEST: u32 = 400_000;
/// The interval at which a history that may end early is looked at.
const SETTLE_INTERVAL: Duration = ms(1_000);

#[derive(Debug, Clone, Copy)]
pub(super) enum SimEvent {
    Wake(usize, u64),
    Delivery(usize, Delivery),
    ModelMessage(usize, ModelMessage),
    KeeperTimer(usize, u64),
    /// A candidate's next health check.
    CheckDue(usize),
    Death(usize),
    /// A child is about to execute; the number is its process id, then the status that it will end with.
    Exec(usize, i32, u8),
    AtStore {
        host: usize,
        attempt: Option<Attempt>,
        leg: u8,
        request: Request,
    },
    KeeperExitTimeout(usize),
    KeeperProgress(usize),
    CrowdKilled(usize),
    /// The last process has left the cgroup of a host's command.
    LeafEmpty(usize),
    /// A keeper that is gone gives its claim back, as another program.
    KeeperReleases(usize),
    Look,
    Join,
    Fault(Fault),
    Quiet,
    Settle,
}

struct Scheduled {
    at: Duration,
    number: u64,
    what: SimEvent,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Scheduled) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Scheduled) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    /// The earliest is the greatest, and of those the one that was planned first.
    fn cmp(&self, other: &Scheduled) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

/// A rule that was broken, and the choices of the history that broke it.
#[derive(Debug, Clone)]
pub(super) struct Violation {
    pub rule: &'static str,
    pub choices: Vec<u64>,
    /// The number of events until then.
    pub steps: u32,
}

#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(super) struct Simulation {
    pub now: Duration,
    pub setup: Setup,
    pub injected_mutation: Option<InjectedMutation>,
    pub rng: SimRng,
    pub hosts: Vec<SimHost>,
    /// Those of the hosts where anything still runs.
    pub present: Vec<usize>,
    pub store: Store,
    pub store_is_down: bool,
    pub network_conditions: NetworkConditions,
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
    /// A fault was due that 2.1 does not cover: campaigner and keeper of one host out of action at once.
    pub is_uncovered: bool,
    /// The states since the first fault, if they are counted.
    pub states: Option<StateSet>,
    /// The moment from which each strike has counted steps.
    pub strikes: Vec<Option<Duration>>,
    /// Faults that are due, or that are yet to end.
    pub pending_faults: u32,
    queue: BinaryHeap<Scheduled>,
    planned: u64,
    steps: u32,
    /// No history may have more events.
    longest: u32,
    finished: bool,
    transcript: Option<Vec<String>>,
}

impl Simulation {
    /// A history of this setup, whose remaining choices are taken from `rng`.
    pub(super) fn new(
        setup: Setup,
        mut rng: SimRng,
        injected_mutation: Option<InjectedMutation>,
        transcribed: bool,
    ) -> Simulation {
        rng.punctual = setup.behavior.is_some();
        let store = setup.store(&mut rng, injected_mutation);
        let mut world = Simulation {
            now: ms(0),
            injected_mutation,
            rng,
            hosts: Vec::new(),
            present: Vec::new(),
            store,
            store_is_down: false,
            network_conditions: NetworkConditions::default(),
            guards: BTreeMap::new(),
            written: BTreeMap::new(),
            last_term: 0,
            effects: Vec::new(),
            quiet: false,
            settled: (None, 0),
            coverage: Coverage::new(),
            violation: None,
            is_uncovered: false,
            states: None,
            strikes: Vec::new(),
            pending_faults: 0,
            queue: BinaryHeap::new(),
            planned: 0,
            steps: 0,
            longest: LONGEST,
            finished: false,
            transcript: transcribed.then(Vec::new),
            setup,
        };
        for _ in 0..world.setup.candidates {
            world.join();
        }
        for (at, fault) in std::mem::take(&mut world.setup.faults) {
            world.push(at, SimEvent::Fault(fault));
        }
        if let Some(at) = world.setup.settles_from {
            world.push(at, SimEvent::Settle);
        }
        world.push(world.setup.quiet_at, SimEvent::Quiet);
        world
    }

    /// A history whose choices are all taken from `rng`, its setup included.
    pub(super) fn draw(mut rng: SimRng, injected_mutation: Option<InjectedMutation>) -> Simulation {
        let setup = Setup::draw(&mut rng);
        Simulation::new(setup, rng, injected_mutation, false)
    }

    /// Draws such a history, and runs it to its end.
    pub(super) fn run(rng: SimRng, injected_mutation: Option<InjectedMutation>) -> Result<Simulation, Violation> {
        Simulation::run_within(LONGEST, rng, injected_mutation)
    }

    /// The same for a history that may have so many events.
    pub(super) fn run_within(
        longest: u32,
        rng: SimRng,
        injected_mutation: Option<InjectedMutation>,
    ) -> Result<Simulation, Violation> {
        let world = Simulation { longest, ..Simulation::draw(rng, injected_mutation) };
        let (world, rule) = world.play();
        match rule {
            Some(rule) => Err(Violation { rule, choices: world.rng.taken().to_vec(), steps: world.steps }),
            None => Ok(world),
        }
    }

    /// The same with every step written down.
    pub(super) fn told(mut rng: SimRng, injected_mutation: Option<InjectedMutation>) -> Vec<String> {
        let setup = Setup::draw(&mut rng);
        Simulation::new(setup, rng, injected_mutation, true).play().0.transcript.expect("asked for")
    }

    /// A history without chance, with every step written down.
    pub(super) fn transcript(setup: &Setup) -> Vec<String> {
        Simulation::new(setup.clone(), SimRng::from_seed(0), None, true).play().0.transcript.expect("asked for")
    }

    pub(super) fn play(mut self) -> (Simulation, Option<&'static str>) {
        while let Some(due) = self.queue.pop() {
            if due.at < self.now {
                self.violate("the model: time runs backwards", 0);
                break;
            }
            self.now = due.at;
            self.step(due.what);
            self.check_all();
            self.count_state();
            self.steps += 1;
            if self.steps == self.longest {
                self.violate("a history does not end", 0);
            }
            if self.finished || self.is_uncovered || self.violation.is_some() {
                break;
            }
        }
        let violation = self.violation;
        (self, violation)
    }

    fn step(&mut self, what: SimEvent) {
        match what {
            SimEvent::Wake(h, generation) => self.wake(h, generation),
            SimEvent::Delivery(h, delivery) => self.on_delivery(h, delivery),
            SimEvent::ModelMessage(h, message) => self.keeper_hears(h, message),
            SimEvent::CheckDue(h) => self.check_is_due(h),
            SimEvent::KeeperTimer(h, generation) => self.keeper_timer(h, generation),
            SimEvent::Death(h) => self.death(h),
            SimEvent::Exec(h, pid, status) => self.on_exec(h, pid, status),
            SimEvent::AtStore { host, attempt, leg, request } => self.request_arrives(host, attempt, leg, request),
            SimEvent::KeeperExitTimeout(h) => self.keeper_exit_times_out(h),
            SimEvent::KeeperProgress(h) if self.hosts[h].keeper.is_busy => {
                self.report_progress(h, FromKeeper::Progress);
            }
            SimEvent::KeeperProgress(_) => {}
            SimEvent::CrowdKilled(h) => self.crowd_is_killed(h),
            SimEvent::LeafEmpty(h) => self.leaf_empties(h),
            SimEvent::KeeperReleases(h) => self.send_keeper_release(h),
            SimEvent::Look => self.look_at_leases(),
            SimEvent::Join => {
                self.coverage.count(Seen::Joined);
                self.join();
            }
            SimEvent::Fault(fault) => {
                self.pending_faults -= 1;
                self.strike(fault);
            }
            SimEvent::Quiet => self.calm_down(),
            SimEvent::Settle => self.settle(),
        }
    }

    pub(super) fn push(&mut self, at: Duration, what: SimEvent) {
        self.planned += 1;
        self.pending_faults += u32::from(matches!(what, SimEvent::Fault(_)));
        self.queue.push(Scheduled { at, number: self.planned, what });
    }

    /// The events that are to come, in no order.
    pub(super) fn events(&self) -> impl Iterator<Item = &SimEvent> {
        self.queue.iter().map(|scheduled| &scheduled.what)
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
            offset: self.rng.between(ms(0), Duration::from_secs(36_000)),
            rate: if self.setup.drift { self.rng.around_zero(CLOCK_DRIFT_MAX_PPM) } else { 0 },
        };
        let clock = match self.setup.clock_rates {
            Some(rates) => Clock { offset: ms(0), rate: if h == 0 { rates.leader } else { rates.others } },
            None if self.rng.punctual => Clock { offset: ms(0), rate: 0 },
            None => clock,
        };
        let asked = self.setup.asked(&mut self.rng);
        let mut timing = if self.injected_mutation == Some(InjectedMutation::UnprovenTimings) {
            let ttl = asked.ttl.expect("asked for");
            Timing::derive(super::super::TimingFlags { renew: Some(ttl * 3 / 5), ..asked })
        } else {
            Timing::validate(asked).expect("drawn so that it holds")
        };
        if self.setup.mode == StoreModel::Lock {
            timing = timing.without_lease();
        }
        let stop_timeout = self.setup.stop_timeout;
        let policy = self.setup.policy(&mut self.rng);
        let mut candidate = Candidate::new(timing, stop_timeout, policy, self.rng.below(u64::MAX));
        candidate.context.mutation = self.injected_mutation.and_then(InjectedMutation::of_candidate);
        let machine = KeeperMachine::new(self.setup.keeper_policy(h, policy));
        let mutation = match self.injected_mutation {
            Some(InjectedMutation::Keeper(rule)) => Some(rule),
            Some(_) | None => None,
        };
        let machine = machine.breaking(mutation);
        let client = Client::new(&self.store, h, asked.ttl.expect("asked for"), self.injected_mutation);
        self.hosts.push(SimHost {
            name: char::from(b'A' + u8::try_from(h % 26).expect("a letter")),
            clock,
            candidate,
            campaigner: ProcessState::Running { since: self.now },
            inbox: Vec::new(),
            unperformed: VecDeque::new(),
            strike: None,
            outbox: VecDeque::new(),
            socket_room: self.setup.socket_room,
            keeper: KeeperProcess::new(self.now, machine),
            tree: super::command::Tree::none(),
            hooks: Vec::new(),
            checks: Vec::new(),
            check_orders: CheckOrders::default(),
            next_pid: FIRST_PID,
            tier: self.setup.tier(&mut self.rng),
            preexisting: super::command::Tree::none(),
            excluded: Vec::new(),
            has_reaped_keeper: false,
            suspended_at: self.now,
            early_signals: Vec::new(),
            leaf_until: None,
            alone_since: self.now,
            death_at: None,
            campaigner_was_killed: false,
            client,
            stop_timeout,
            wake: (0, Time::NEVER),
            immediate_wakeups: 0,
            to_keeper_at: self.now,
            from_keeper_at: self.now,
            cuts: (0, 0),
            last_arrived: Attempt(0),
            reference: ReferenceState::new(asked, timing.ttl()),
            wait_check: WaitCheck::new(policy),
            restart_check: RestartCheck::new(policy),
            follower_check: FollowerCheck::new(policy),
            request_check: RequestCheck::default(),
            eligibility_check: EligibilityCheck::new(policy),
        });
        self.inherit_children(h);
        self.begin_checks(h);
        self.present.push(h);
        self.note(h, || format!("joins, ttl {:?}", asked.ttl.expect("asked for")));
        self.deliver(h, Event::Tick);
    }

    /// Something of this host has ended.
    pub(super) fn host_changed(&mut self, h: usize) {
        let host = &mut self.hosts[h];
        if host.campaigner == ProcessState::Dead
            && host.keeper.state == ProcessState::Stopped
            && !host.has_descendants()
        {
            host.keeper.state = ProcessState::Dead;
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
            // The latest is the simplest: candidates that do not wait come and go without end otherwise.
            let earlier = self.rng.between(ms(0), self.setup.ttl.saturating_sub(ms(1)));
            self.push(self.now + self.setup.ttl.saturating_sub(earlier), SimEvent::Join);
        }
    }

    // ---- the end

    /// All faults end: from here on somebody has to lead before long.
    fn calm_down(&mut self) {
        self.quiet = true;
        self.network_conditions = NetworkConditions::default();
        if self.setup.behavior.is_some() {
            self.finished = true;
            return;
        }
        self.restore_store(super::record_store::AfterRestart::Kept);
        self.fence_old_primary();
        for h in self.present.clone() {
            self.hosts[h].cuts = (0, 0);
            self.continue_campaigner(h);
            if !self.hosts[h].keeper.stopped_for_good {
                self.continue_keeper(h);
            }
        }
        self.push(self.now + self.setup.ttl / 4, SimEvent::Settle);
    }

    /// An exploration needs no end of all faults by order: it has settled once no fault is left and the same command has
    /// led for longer than a lease, or nothing runs any more.
    fn settle_early(&mut self) {
        let leader = self.present.iter().map(|h| (*h, &self.hosts[*h]));
        let leader = leader.filter(|(_, host)| host.leads()).map(|(h, host)| (h, host.tree.run)).next_back();
        let is_calm = self.pending_faults == 0 && leader.is_some();
        self.settled = if is_calm && self.settled.0 == leader { (leader, self.settled.1 + 1) } else { (leader, 0) };
        if self.pending_faults == 0 && self.present.is_empty()
            || SETTLE_INTERVAL * self.settled.1 > self.setup.longest_ttl() + 2 * SETTLE_INTERVAL
        {
            self.finished = true;
        } else {
            self.push(self.now + SETTLE_INTERVAL, SimEvent::Settle);
        }
    }

    /// Settled is a history in which the same command has been leading for more than a ttl.
    fn settle(&mut self) {
        if !self.quiet {
            return self.settle_early();
        }
        let leader = self.present.iter().map(|h| (*h, &self.hosts[*h]));
        let mut leader =
            leader.filter(|(_, host)| host.leads() && host.tree.lasting).map(|(h, host)| (h, host.tree.run));
        let leader = leader.next_back();
        self.settled = match self.settled {
            (before, times) if before == leader && leader.is_some() => (leader, times + 1),
            (_, _) => (leader, 0),
        };
        let hook_and_restart_time =
            if self.setup.supervised || self.setup.following { 16 * self.setup.longest_ttl() } else { ms(0) };
        let bound = 9 * self.setup.longest_ttl()
            + 2 * self.setup.stop_timeout
            + Duration::from_secs(20)
            + hook_and_restart_time;
        if self.settled.1 >= 5 {
            self.finished = true;
        } else if self.now > self.setup.quiet_at + bound {
            self.violate("liveness: all is well, and nobody leads", 0);
        } else {
            self.push(self.now + self.setup.ttl / 4, SimEvent::Settle);
        }
    }
}
