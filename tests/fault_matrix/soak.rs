//! Eight candidates on one boundary, and a random fault every half second that DESIGN.md 2.1 promises to survive.
//!
//! Each fault is repaired after a time that is drawn with it. Campaigner and keeper of one candidate are never struck at once
//! (2.2): a candidate has at most one trouble, and one that is going to end is replaced when nothing of it is left.

use std::collections::BTreeMap;
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde::Serialize;

use crate::harness::journal::JournalEntry;
use crate::harness::proxy::{Proxy, ProxyMode};
use crate::harness::store_fixtures::{FixtureStore, StoreEntry};
use crate::harness::wait::{now, since};
use crate::harness::{CandidateProcess, ElectCmd, Sandbox, Witness, processes, until};

const CANDIDATES: usize = 8;
/// Between two faults.
const STEP: Duration = Duration::from_millis(500);
/// Draws for one fault: many strike nothing, because their candidate has a trouble already.
const DRAWS_MAX: usize = 20;
/// Repairs are drawn from this many steps.
const REPAIR_STEPS: std::ops::Range<u32> = 1..12;
/// A keeper that goes on may have been given up already. After this long it has answered, or is dead.
const KEEPER_RECOVERY: Duration = Duration::from_secs(2);

pub struct SoakSettings {
    pub store: &'static StoreEntry,
    pub length: Duration,
    pub seed: u64,
    /// `None`: as elect chooses.
    pub tier: Option<String>,
}

/// The outcome of a soak: flat, as `target/matrix/soak-STORE.json`.
#[derive(Debug, Serialize)]
pub struct SoakReport {
    store: &'static str,
    seed: u64,
    seconds: f64,
    candidates: usize,
    /// Candidates that ended and were replaced.
    replaced: usize,
    /// Commands that led.
    leaders: usize,
    overlaps: usize,
    survivors: usize,
    term_violations: usize,
    /// Of the time between the first start and the end of the faults, in percent.
    leaderless_percent: f64,
    /// Kind of fault → number.
    faults: BTreeMap<&'static str, usize>,
}

impl SoakReport {
    pub fn violations(&self) -> usize {
        self.overlaps + self.survivors + self.term_violations
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    None,
    CampaignerStopped,
    KeeperStopped(i32),
    /// The keeper was continued; it is not struck again before it is known to be well.
    KeeperContinued(i32),
    /// Something was killed: the candidate is going to end.
    Ending,
}

struct Slot {
    process: CandidateProcess,
    proxy: Option<Proxy>,
    trouble: Trouble,
    is_cut: bool,
    /// Counts the candidates of this slot: a repair is for one of them.
    generation: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    KillCampaigner,
    KillKeeper,
    StopCampaigner,
    StopKeeper,
    Cut(ProxyMode),
    StopServer,
    KillServer,
    RestartServer,
}

const PROCESS_FAULTS: [Fault; 4] = [Fault::KillCampaigner, Fault::KillKeeper, Fault::StopCampaigner, Fault::StopKeeper];
/// Drawn from all of these with the same probability: the server is struck about once in five times.
const ALL_FAULTS: [Fault; 15] = [
    Fault::KillCampaigner,
    Fault::KillCampaigner,
    Fault::KillKeeper,
    Fault::KillKeeper,
    Fault::StopCampaigner,
    Fault::StopCampaigner,
    Fault::StopKeeper,
    Fault::StopKeeper,
    Fault::Cut(ProxyMode::BlackHole),
    Fault::Cut(ProxyMode::RequestsHeld),
    Fault::Cut(ProxyMode::AnswersHeld),
    Fault::Cut(ProxyMode::Closed),
    Fault::StopServer,
    Fault::KillServer,
    Fault::RestartServer,
];

impl Fault {
    fn name(self) -> &'static str {
        match self {
            Fault::KillCampaigner => "campaigner killed",
            Fault::KillKeeper => "keeper killed",
            Fault::StopCampaigner => "campaigner stopped",
            Fault::StopKeeper => "keeper stopped",
            Fault::Cut(ProxyMode::BlackHole | ProxyMode::Open) => "cut both ways",
            Fault::Cut(ProxyMode::RequestsHeld) => "requests held",
            Fault::Cut(ProxyMode::AnswersHeld) => "answers held",
            Fault::Cut(ProxyMode::Closed) => "connections refused",
            Fault::StopServer => "server stopped",
            Fault::KillServer => "server killed",
            Fault::RestartServer => "server restarted",
        }
    }
}

/// The repair of a fault.
#[derive(Debug, Clone, Copy)]
enum Repair {
    /// Of the candidate with this generation in this slot.
    Process(usize, usize),
    Link(usize),
    ContinueServer,
    StartServer,
}

struct Soak<'a> {
    settings: &'a SoakSettings,
    sandbox: &'a Sandbox,
    server: Box<dyn FixtureStore>,
    random: fastrand::Rng,
    slots: Vec<Slot>,
    is_server_well: bool,
    repairs: Vec<(Duration, Repair)>,
    faults: BTreeMap<&'static str, usize>,
    replaced: usize,
    survivors: usize,
    /// Each command that has led, and the watch on its tree.
    terms: Vec<(JournalEntry, JoinHandle<Duration>)>,
}

/// Runs it to the end, or to the first violation.
pub fn run(settings: &SoakSettings, sandbox: &Sandbox) -> SoakReport {
    let mut soak = Soak {
        settings,
        sandbox,
        server: (settings.store.fixtures[0])(),
        random: fastrand::Rng::with_seed(settings.seed),
        slots: Vec::new(),
        is_server_well: true,
        repairs: Vec::new(),
        faults: BTreeMap::new(),
        replaced: 0,
        survivors: 0,
        terms: Vec::new(),
    };
    println!("soak: {}, seed {}, {:?}", settings.store.name, settings.seed, settings.length);
    for index in 0..CANDIDATES {
        let slot = soak.candidate(index, 0);
        soak.slots.push(slot);
    }
    sandbox.starts(1);
    let began = now();
    while since(began) < settings.length && sandbox.history().verdict().is_ok() {
        soak.step();
    }
    let ended = now();
    soak.finish(began, ended)
}

impl Soak<'_> {
    fn candidate(&self, index: usize, generation: usize) -> Slot {
        let proxy = self.settings.store.has_server.then(|| Proxy::to(&self.server.address()));
        let store = match &proxy {
            Some(proxy) => self.server.url_through(&proxy.address(), self.sandbox),
            None => self.sandbox.below(&self.server.url(self.sandbox)),
        };
        let witness = if (index + generation).is_multiple_of(2) { Witness::new() } else { Witness::new().daemon() };
        let ttl = format!("{}ms", self.server.lease().as_millis());
        let elect = ElectCmd::new(self.sandbox).store(store).flag("--ttl", &ttl).witness(&witness);
        let elect = self.settings.tier.iter().fold(elect, |elect, tier| elect.flag("--containment", tier));
        Slot { process: elect.start(), proxy, trouble: Trouble::None, is_cut: false, generation }
    }

    fn step(&mut self) {
        let start = now();
        until("half a second", || {
            self.watch_new_terms();
            since(start) >= STEP
        });
        self.repair(|due| due <= now());
        self.replace_the_dead();
        for _ in 0..DRAWS_MAX {
            let faults: &[Fault] = if self.settings.store.has_server { &ALL_FAULTS } else { &PROCESS_FAULTS };
            let fault = faults[self.random.usize(0..faults.len())];
            if self.strike(fault) {
                *self.faults.entry(fault.name()).or_default() += 1;
                return;
            }
        }
    }

    /// Each start is watched from the moment that it is read: its tree may be gone before the next step.
    fn watch_new_terms(&mut self) {
        for start in self.sandbox.history().starts.into_iter().skip(self.terms.len()) {
            self.terms.push((start, self.sandbox.watch_the_end_of(start.pid)));
        }
    }

    // ---- faults

    /// False where the fault strikes nothing now.
    fn strike(&mut self, fault: Fault) -> bool {
        match fault {
            Fault::KillCampaigner | Fault::KillKeeper | Fault::StopCampaigner | Fault::StopKeeper => {
                self.strike_processes(fault)
            }
            Fault::Cut(mode) => self.cut(mode),
            Fault::StopServer | Fault::KillServer | Fault::RestartServer if !self.is_server_well => false,
            Fault::StopServer => {
                self.server.stop();
                self.is_server_well = false;
                self.repair_later(Repair::ContinueServer);
                true
            }
            Fault::KillServer => {
                self.server.kill();
                self.is_server_well = false;
                self.repair_later(Repair::StartServer);
                true
            }
            Fault::RestartServer => {
                self.server.restart();
                true
            }
        }
    }

    /// Every second time the one whose command runs, if there is one.
    fn drawn_candidate(&mut self) -> usize {
        let leader = self.slots.iter().position(|slot| !slot.process.tree().is_empty());
        leader.filter(|_| self.random.bool()).unwrap_or_else(|| self.random.usize(0..CANDIDATES))
    }

    fn strike_processes(&mut self, fault: Fault) -> bool {
        let index = self.drawn_candidate();
        let slot = &mut self.slots[index];
        if slot.trouble != Trouble::None || slot.process.has_ended() {
            return false;
        }
        let campaigner = slot.process.pid();
        let Some(keeper) = slot.process.try_keeper().filter(|&keeper| processes::is_alive(keeper)) else {
            return false;
        };
        let (pid, signal, trouble) = match fault {
            Fault::KillCampaigner => (campaigner, Signal::SIGKILL, Trouble::Ending),
            Fault::KillKeeper => (keeper, Signal::SIGKILL, Trouble::Ending),
            Fault::StopCampaigner => (campaigner, Signal::SIGSTOP, Trouble::CampaignerStopped),
            Fault::StopKeeper => (keeper, Signal::SIGSTOP, Trouble::KeeperStopped(keeper)),
            Fault::Cut(_) | Fault::StopServer | Fault::KillServer | Fault::RestartServer => return false,
        };
        processes::signal(pid, signal);
        slot.trouble = trouble;
        let generation = slot.generation;
        self.repair_later(Repair::Process(index, generation));
        true
    }

    fn cut(&mut self, mode: ProxyMode) -> bool {
        let index = self.drawn_candidate();
        let slot = &mut self.slots[index];
        let Some(proxy) = slot.proxy.as_ref().filter(|_| !slot.is_cut) else { return false };
        proxy.mode(mode);
        slot.is_cut = true;
        self.repair_later(Repair::Link(index));
        true
    }

    // ---- repairs

    fn repair_later(&mut self, repair: Repair) {
        let due = now() + STEP * self.random.u32(REPAIR_STEPS);
        self.repairs.push((due, repair));
    }

    /// Those that are due, or all.
    fn repair(&mut self, is_due: impl Fn(Duration) -> bool) {
        let all: Vec<(Duration, Repair)> = std::mem::take(&mut self.repairs);
        let (due, later): (Vec<_>, Vec<_>) = all.into_iter().partition(|&(at, _)| is_due(at));
        self.repairs = later;
        for (_, repair) in due {
            match repair {
                Repair::Process(index, generation) => self.repair_process(index, generation),
                Repair::Link(index) => {
                    let slot = &mut self.slots[index];
                    slot.is_cut = false;
                    slot.proxy.iter().for_each(|proxy| proxy.mode(ProxyMode::Open));
                }
                Repair::ContinueServer => {
                    self.server.cont();
                    self.is_server_well = true;
                }
                Repair::StartServer => {
                    self.server.restart();
                    self.is_server_well = true;
                }
            }
        }
    }

    fn repair_process(&mut self, index: usize, generation: usize) {
        let slot = &mut self.slots[index];
        if slot.generation != generation {
            return;
        }
        match slot.trouble {
            Trouble::None | Trouble::Ending => (),
            Trouble::CampaignerStopped => {
                slot.process.signal(Signal::SIGCONT);
                slot.trouble = Trouble::None;
            }
            Trouble::KeeperStopped(keeper) => {
                // Its number is nobody else's as long as its campaigner has not reaped it.
                if slot.process.try_keeper() == Some(keeper) {
                    processes::signal(keeper, Signal::SIGCONT);
                }
                slot.trouble = Trouble::KeeperContinued(keeper);
                self.repairs.push((now() + KEEPER_RECOVERY, Repair::Process(index, generation)));
            }
            Trouble::KeeperContinued(keeper) => {
                let is_well = slot.process.try_keeper() == Some(keeper) && processes::is_alive(keeper);
                slot.trouble = if is_well { Trouble::None } else { Trouble::Ending };
            }
        }
    }

    /// A candidate is replaced when its campaigner has ended and its keeper has done what was left to do.
    fn replace_the_dead(&mut self) {
        for index in 0..self.slots.len() {
            let slot = &mut self.slots[index];
            let is_own = |name: &str| matches!(name, "elect" | "keeper" | "keeper-init");
            if !slot.process.has_ended() || slot.process.all().iter().any(|process| is_own(&process.name)) {
                continue;
            }
            self.survivors += slot.process.tree().len();
            let generation = slot.generation + 1;
            self.repairs.retain(|(_, repair)| !matches!(repair, Repair::Link(of) if *of == index));
            self.slots[index] = self.candidate(index, generation);
            self.replaced += 1;
        }
    }

    // ---- the end

    fn finish(mut self, began: Duration, ended: Duration) -> SoakReport {
        self.repair(|_| true);
        // Keepers that were continued just now.
        until("nothing is left to be repaired", || {
            self.repair(|due| due <= now());
            self.repairs.is_empty()
        });
        for slot in &mut self.slots {
            if !slot.process.has_ended() {
                slot.process.signal(Signal::SIGTERM);
            }
        }
        for slot in &mut self.slots {
            slot.process.wait();
        }
        until("elect itself is gone", || {
            let own = ["elect", "keeper", "keeper-init"];
            !self.sandbox.running().iter().any(|process| own.contains(&process.name.as_str()))
        });
        self.survivors += self.sandbox.running().len();
        self.watch_new_terms();
        let history = self.sandbox.history();
        let led: Vec<[Duration; 2]> = std::mem::take(&mut self.terms)
            .into_iter()
            .map(|(start, end)| [start.at, end.join().expect("the watch on a tree")])
            .collect();
        let length = ended.saturating_sub(began).as_secs_f64();
        SoakReport {
            store: self.settings.store.name,
            seed: self.settings.seed,
            seconds: length,
            candidates: CANDIDATES,
            replaced: self.replaced,
            leaders: history.starts.len(),
            overlaps: history.overlaps.len(),
            survivors: self.survivors,
            term_violations: super::runner::term_violations(&history),
            leaderless_percent: 100.0 * leaderless(&led, began, ended).as_secs_f64() / length,
            faults: self.faults,
        }
    }
}

/// The time within the window in which nobody led.
fn leaderless(led: &[[Duration; 2]], began: Duration, ended: Duration) -> Duration {
    let mut sorted = led.to_vec();
    sorted.sort();
    let (mut covered, mut until) = (Duration::ZERO, began);
    for [start, end] in sorted {
        let (start, end) = (start.max(until), end.min(ended));
        covered += end.saturating_sub(start);
        until = until.max(end);
    }
    ended.saturating_sub(began).saturating_sub(covered)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_without_a_leader_is_what_no_tree_covers() {
        let second = Duration::from_secs;
        let led = [[second(1), second(3)], [second(5), second(6)], [second(2), second(4)], [second(9), second(20)]];
        assert_eq!(leaderless(&led, second(2), second(10)), second(4));
        assert_eq!(leaderless(&[], second(2), second(10)), second(8));
    }
}
