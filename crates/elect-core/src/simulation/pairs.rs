//! Every pair of faults of one hand-over, at most 3 s apart (P6).
//!
//! The histories are those of `exploration` with two faults, at times of a coarser grid. Left out are the pairs that
//! 2.1 does not cover: the second fault would put a host's campaigner and its keeper out of action at once. Which pairs
//! these are follows from the history itself: it ends at the moment of such a fault, and counts as left out. Before
//! that moment it is a history with a single fault.
//!
//! A strike waits for the next step of its process. If there is none between two times of the grid, both give the same
//! history, which is run once and counts as often as it occurs.
//!
//! `ELECT_LONG=1` runs all of them, on every core, and keeps its progress in the file that `ELECT_PAIRS_FILE` names.
//! An ordinary run takes one pair of times for each pair of faults.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::clock::ms;
use super::exploration::{self, Explored, LAST_FAULT_AT, MODES};
use super::faults::Fault;
use super::mutations::InjectedMutation;
use super::pairs_progress::Progress;
use super::report::{Part, PartKind, reported};
use super::setup::{Setup, StoreModel};
use super::states::StateSet;
use crate::keeper::KeeperMutation;
use crate::takeover;

const GRID: Duration = ms(100);
/// The number of times on the grid.
const TIMES: u32 = 100;
/// The second fault strikes at most so many times of the grid after the first: 3 s.
const APART_MAX: u32 = 30;
/// No more findings than this are printed.
const PRINTED_MAX: usize = 50;

/// All pairs of times of two faults.
#[derive(Debug, Clone)]
struct Block {
    mode: StoreModel,
    first: Fault,
    second: Fault,
    mutation: Option<InjectedMutation>,
}

/// The counts of some blocks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// All histories, with those that were not run.
    pub histories: u64,
    pub left_out: u64,
    /// Histories that were not run because they are the same as another.
    pub repeated: u64,
    pub choices: u64,
}

impl Counts {
    pub(super) fn add(&mut self, other: Counts) {
        self.histories += other.histories;
        self.left_out += other.left_out;
        self.repeated += other.repeated;
        self.choices += other.choices;
    }
}

/// The result of one block. Findings are counted by rule, each with its first pair of times.
#[derive(Debug, Default)]
pub(super) struct Tried {
    pub counts: Counts,
    findings: BTreeMap<&'static str, (u64, Duration, Duration)>,
}

impl Tried {
    fn count(&mut self, at: [u32; 2], explored: Explored) {
        self.counts.histories += 1;
        match explored {
            Explored::Sound => {}
            Explored::LeftOut => self.counts.left_out += 1,
            Explored::Found(rule) => {
                let [first, second] = at.map(|time| GRID * time);
                self.findings.entry(rule).or_insert((0, first, second)).0 += 1;
            }
        }
    }

    pub(super) fn told(&self, block: &str) -> Vec<String> {
        let tell = |(rule, (times, first, second)): (&&str, &(u64, Duration, Duration))| {
            format!("{rule}: {block}, first at {first:?} and {second:?}, {times} in all")
        };
        self.findings.iter().map(tell).collect()
    }
}

impl Block {
    fn all(mutation: Option<InjectedMutation>) -> Vec<Block> {
        let mut blocks = Vec::new();
        for mode in MODES {
            let faults = exploration::faults(mode);
            for first in &faults {
                blocks.extend(faults.iter().map(|second| Block { mode, first: *first, second: *second, mutation }));
            }
        }
        blocks
    }

    fn name(&self) -> String {
        format!("{:?}, {:?} and {:?}", self.mode, self.first, self.second)
    }

    /// Runs the history with the faults at these times of the grid. Returns what came of it, and until which time of
    /// the grid the first and the second fault may be moved without changing it.
    fn run(&self, plain: &Setup, at: [u32; 2], tried: &mut Tried, states: &mut StateSet) -> (Explored, [u32; 2]) {
        let faults = [(GRID * at[0], self.first), (GRID * at[1], self.second)];
        let history = exploration::explore(plain, &faults, self.mutation, Some(states));
        tried.counts.choices += history.choices;
        let mut strikes = history.strikes.into_iter();
        let mut until = at;
        for (until, (_, fault)) in until.iter_mut().zip(&faults) {
            if matches!(fault, Fault::StrikeKeeper(..) | Fault::StrikeCampaigner(..)) {
                let counts_from = strikes.next().flatten();
                *until = counts_from.map_or(TIMES, |at| whole_steps(at).max(*until));
            }
        }
        (history.explored, until)
    }

    /// Runs the histories of all pairs of times.
    fn try_all(&self, states: &mut StateSet) -> Tried {
        let plain = exploration::plain(self.mode);
        let mut tried = Tried::default();
        // For each time of the second fault: the result of the last history, and until when the first may be moved.
        let mut same: Vec<Option<(Explored, u32)>> = vec![None; TIMES as usize + 1];
        for first in 1..=TIMES {
            let last = (first + APART_MAX).min(TIMES);
            let mut second = first;
            while second <= last {
                let known = same[second as usize].filter(|(_, until)| first <= *until);
                let (explored, [first_until, second_until]) = match known {
                    Some((explored, until)) => {
                        tried.counts.repeated += 1;
                        (explored, [until, second])
                    }
                    None => self.run(&plain, [first, second], &mut tried, states),
                };
                let until = second_until.min(last);
                tried.counts.repeated += u64::from(until - second);
                for time in second..=until {
                    same[time as usize] = Some((explored, first_until));
                    tried.count([first, time], explored);
                }
                second = until + 1;
            }
        }
        tried
    }

    /// Runs one history of the block, whose times follow from its number.
    fn try_one(&self, number: usize, states: &mut StateSet) -> Tried {
        let number = u32::try_from(number).expect("few blocks");
        let mut tried = Tried::default();
        let first = number * 37 % TIMES + 1;
        let at = [first, (first + number * 11 % (APART_MAX + 1)).min(TIMES)];
        let (explored, _) = self.run(&exploration::plain(self.mode), at, &mut tried, states);
        tried.count(at, explored);
        tried
    }
}

/// The last time of the grid that is not after this moment.
fn whole_steps(at: Duration) -> u32 {
    u32::try_from(at.as_nanos() / GRID.as_nanos()).expect("a history is short")
}

/// The result of an exploration.
#[derive(Debug, Default)]
struct Report {
    counts: Counts,
    states: StateSet,
    findings: Vec<String>,
}

impl Report {
    fn told(&self) -> String {
        let Counts { histories, left_out, repeated, choices } = self.counts;
        let mut told = format!(
            "{histories} pairs of faults: {left_out} left out, {repeated} the same as another; {} states, {choices} choices",
            self.states.hashes.len()
        );
        for finding in self.findings.iter().take(PRINTED_MAX) {
            let _ = write!(told, "\n{finding}");
        }
        if self.findings.len() > PRINTED_MAX {
            let _ = write!(told, "\n… and {} more", self.findings.len() - PRINTED_MAX);
        }
        told
    }
}

/// Tries every block on all cores. Blocks that are spread over all kinds of faults come first.
fn explore(
    blocks: &[Block],
    progress: Option<Progress>,
    try_block: impl Fn(&Block, usize, &mut StateSet) -> Tried + Sync,
) -> Report {
    let done = progress.as_ref().map(|progress| progress.done.clone()).unwrap_or_default();
    let mut report = Report::default();
    if let Some(progress) = &progress {
        report.states.hashes.clone_from(&progress.states);
        report.findings.clone_from(&progress.findings);
        for counts in done.values() {
            report.counts.add(*counts);
        }
    }
    let known = report.states.clone();
    let shared = Mutex::new((report, progress, done.len()));
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                let mut states = known.clone();
                loop {
                    let turn = next.fetch_add(1, Ordering::Relaxed);
                    if turn >= blocks.len() {
                        break;
                    }
                    let number = turn * STRIDE % blocks.len();
                    if done.contains_key(&number) {
                        continue;
                    }
                    let tried = try_block(&blocks[number], number, &mut states);
                    let findings = tried.told(&blocks[number].name());
                    let mut shared = shared.lock().expect("no thread has panicked");
                    let (report, progress, finished) = &mut *shared;
                    let mut new = std::mem::take(&mut states.new);
                    new.retain(|hash| report.states.hashes.insert(*hash));
                    if let Some(progress) = progress {
                        progress.add(number, tried.counts, &findings, &new);
                    }
                    report.counts.add(tried.counts);
                    report.findings.extend(findings);
                    *finished += 1;
                    if progress.is_some() && finished.is_multiple_of(200) {
                        println!("{finished} of {} blocks: {}", blocks.len(), report.told());
                    }
                }
            });
        }
    });
    shared.into_inner().expect("no thread has panicked").0
}

/// A prime, so that each block has its turn.
const STRIDE: usize = 7_919;

#[test]
fn no_pair_of_faults_of_a_hand_over_breaks_a_rule_or_leaves_the_boundary_free() {
    let blocks = Block::all(None);
    reported(PartKind::Pairs, || {
        let report = if std::env::var_os("ELECT_LONG").is_some() {
            let progress = Progress::open(&format!("{GRID:?} {TIMES} {APART_MAX} {LAST_FAULT_AT:?} {}", blocks.len()));
            explore(&blocks, Some(progress), |block, _, states| block.try_all(states))
        } else {
            explore(&blocks, None, Block::try_one)
        };
        println!("{}", report.told());
        assert!(report.findings.is_empty(), "{} findings", report.findings.len());
        Part { counts: report.counts, states: report.states, ..Part::default() }
    });
}

#[test]
fn a_strike_that_waits_gives_the_same_history_at_each_time() {
    // Each of the two ways of counting, for blocks with one strike and with two.
    let blocks = Block::all(None);
    for number in [1_234, 9_876] {
        let block = &blocks[number % blocks.len()];
        let tried = block.try_all(&mut StateSet::default());
        let plain = exploration::plain(block.mode);
        let mut each = Tried::default();
        for first in 1..=TIMES {
            for second in first..=(first + APART_MAX).min(TIMES) {
                let at = [first, second];
                let (explored, _) = block.run(&plain, at, &mut each, &mut StateSet::default());
                each.count(at, explored);
            }
        }
        println!("{}: {:?}", block.name(), tried.counts);
        assert_eq!((tried.counts.histories, tried.counts.left_out), (each.counts.histories, each.counts.left_out));
        assert_eq!(tried.findings, each.findings);
    }
}

#[test]
fn rules_that_are_broken_on_purpose_show_after_a_pair_of_faults() {
    for rule in [
        InjectedMutation::Keeper(KeeperMutation::IgnoresEndOfFile),
        InjectedMutation::Keeper(KeeperMutation::StartsTooLate),
        InjectedMutation::Takeover(takeover::RuleMutation::VacantIsFree),
    ] {
        let report = explore(&Block::all(Some(rule)), None, Block::try_one);
        println!("{rule:?}: {} findings", report.findings.len());
        assert!(!report.findings.is_empty(), "{rule:?} is not noticed");
    }
}
