//! Runs the cells side by side, and keeps every outcome.

use std::any::Any;
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::cell::{Cell, all_cells};
use super::course::{Course, Observed};
use super::outcome::{Outcome, ResultsFile};
use super::report::Report;
use super::sites::{SiteKind, Sites, locked};
use crate::harness::timing_verdict::{KEEPER_GIVEN_UP, assert_in_time, is_no_verdict, repeat_if_machine_slow};
use crate::harness::{History, Sandbox};

/// The shortest that the harness considers sound on a laptop under load.
pub const LEASE: Duration = Duration::from_secs(3);
/// Sets of servers of one store that run at once: each is three servers and more.
const FAILOVERS_AT_ONCE: usize = 2;
/// Runs between two reports of progress.
const PROGRESS: usize = 50;

/// The selection of the cells, and how they are run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Runs of each cell; `None`: the planned number.
    pub runs: Option<usize>,
    /// Runs that go on at once. Most of the time they wait for a lease.
    pub jobs: usize,
    pub seed: u64,
    /// Only these cells, by name; `None`: all.
    pub fault: Option<String>,
    pub store: Option<String>,
    pub tier: Option<String>,
    /// Where the outcomes are kept.
    pub results: PathBuf,
    /// Where the report and the evidence of failures go.
    pub directory: PathBuf,
}

impl Settings {
    fn selects(&self, cell: &Cell) -> bool {
        let is = |wanted: &Option<String>, name: &str| {
            wanted.as_ref().is_none_or(|wanted| wanted.split(',').any(|one| one == name))
        };
        is(&self.fault, cell.fault.name) && is(&self.store, cell.store.name) && is(&self.tier, cell.tier)
    }

    /// The cells that are selected. None is a mistake.
    pub fn cells(&self) -> Vec<Cell> {
        let cells: Vec<Cell> = all_cells().into_iter().filter(|cell| self.selects(cell)).collect();
        assert!(!cells.is_empty(), "no cell has this fault, store and tier: {self:?}");
        cells
    }
}

/// One run that is to be done.
#[derive(Clone, Copy)]
struct Task {
    cell: usize,
    run: usize,
}

struct Runner<'a> {
    settings: &'a Settings,
    cells: &'a [Cell],
    results: &'a ResultsFile,
    sites: Sites,
    outcomes: Mutex<Vec<Outcome>>,
    queue: Mutex<Queue>,
    /// Told whenever another set of servers may start.
    has_room: Condvar,
}

/// Tasks, and the sets of servers in use by store.
struct Queue {
    tasks: VecDeque<Task>,
    failovers: HashMap<&'static str, usize>,
    total: usize,
}

/// Runs what the results file lacks, and writes the report.
pub fn run(settings: &Settings, cells: &[Cell]) -> Report {
    fs::create_dir_all(&settings.directory).expect("the directory of the report");
    let results = ResultsFile::open(&settings.results, settings.seed).unwrap_or_else(|fault| panic!("{fault}"));
    let finished = results.finished();
    let mut tasks: Vec<Task> = Vec::new();
    for (index, cell) in cells.iter().enumerate() {
        let runs = cell.planned_runs().min(settings.runs.unwrap_or(usize::MAX));
        let runs = settings.runs.filter(|_| cell.obstacle().is_none()).unwrap_or(runs);
        let due = (0..runs).filter(|&run| !finished.contains(&(cell.to_string(), run)));
        tasks.extend(due.map(|run| Task { cell: index, run }));
    }
    // The default tier first, and of its cells the first runs: whatever is done by an interruption covers all of them.
    tasks.sort_by_key(|task| (!cells[task.cell].is_default_tier, task.run, task.cell));
    let total = tasks.len();
    println!("matrix: seed {}, {} cells, {total} runs, {} at once", results.header.seed, cells.len(), settings.jobs);
    let runner = Runner {
        settings,
        cells,
        results: &results,
        sites: Sites::default(),
        outcomes: Mutex::new(results.outcomes().to_vec()),
        queue: Mutex::new(Queue { tasks: tasks.into(), failovers: HashMap::new(), total }),
        has_room: Condvar::new(),
    };
    std::thread::scope(|scope| {
        for _ in 0..settings.jobs {
            scope.spawn(|| runner.work());
        }
    });
    runner.report()
}

impl Runner<'_> {
    fn work(&self) {
        loop {
            let Some(task) = self.next_task() else { return };
            let cell = &self.cells[task.cell];
            let outcome = self.judge(cell, task.run);
            self.results.append(&outcome);
            if outcome.is_a_violation(cell.promise()) {
                println!("matrix: {}", serde_json::to_string(&outcome).expect("plain data"));
            }
            locked(&self.outcomes).push(outcome);
            self.done(cell);
        }
    }

    /// Waits for a task that may run. There is none if no task is left.
    fn next_task(&self) -> Option<Task> {
        let mut queue = locked(&self.queue);
        loop {
            let task = queue.take(self.cells);
            if task.is_some() || queue.tasks.is_empty() {
                return task;
            }
            queue = self.has_room.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Makes room for the next one, and says how far the matrix is.
    fn done(&self, cell: &Cell) {
        let (left, total) = {
            let mut queue = locked(&self.queue);
            if cell.fault.site == SiteKind::Failover {
                *queue.failovers.entry(cell.store.name).or_default() -= 1;
                self.has_room.notify_all();
            }
            (queue.tasks.len(), queue.total)
        };
        if left > 0 && left.is_multiple_of(PROGRESS) {
            println!("matrix: {left} of {total} runs are left");
            self.report();
        }
    }

    fn report(&self) -> Report {
        let report = Report::of(self.cells, &locked(&self.outcomes), self.results.header.seed, self.settings.runs);
        report.write(&self.settings.directory);
        report
    }

    /// Repeats a run for which the machine was too slow, at most twice (P5). Overlaps, survivors and terms that fall are never
    /// repeated away.
    fn judge(&self, cell: &Cell, run: usize) -> Outcome {
        let verdict = catch_unwind(AssertUnwindSafe(|| {
            repeat_if_machine_slow(&cell.to_string(), LEASE, |lease| {
                let (outcome, late) = self.attempt(cell, run, lease);
                let is_in_time = late.is_none() || outcome.failure.is_some() || outcome.is_unsafe(cell.promise());
                assert_in_time(is_in_time, || format!("{cell}, run {run}: {}", late.unwrap_or_default()));
                outcome
            })
        }));
        match verdict {
            Ok((outcome, repeated)) => Outcome { repeated, ..outcome },
            Err(panic) => {
                let said = Some(text_of(panic.as_ref()));
                let (no_verdict, failure) =
                    if said.as_deref().is_some_and(is_no_verdict) { (said, None) } else { (None, said) };
                Outcome { failure, no_verdict, ..Outcome::of(cell, run) }
            }
        }
    }

    /// One attempt, and the limit that it has exceeded, if any.
    fn attempt(&self, cell: &Cell, run: usize, lease: Duration) -> (Outcome, Option<String>) {
        let kind = cell.fault.site;
        let site = self.sites.take(cell.store, kind);
        let (sandbox, lease) = (Sandbox::new(), lease.max(site.lease()));
        let random = RefCell::new(fastrand::Rng::with_seed(seed_of(self.results.header.seed, cell, run)));
        let course = Course { cell, site: &site, sandbox: &sandbox, lease, random };
        let observed = catch_unwind(AssertUnwindSafe(|| course.run()));
        let history = sandbox.history();
        let mut outcome = Outcome {
            overlaps: history.overlaps.len(),
            term_violations: term_violations(&history),
            ..Outcome::of(cell, run)
        };
        let is_broken_off = observed.is_err();
        let late = match observed {
            Ok(observed) => outcome.measured(&observed),
            // On a machine that is too slow, a candidate gives up its keeper and ends (K4): nothing else can happen then.
            Err(_) if sandbox.evidence().contains(KEEPER_GIVEN_UP) => Some(KEEPER_GIVEN_UP.to_owned()),
            Err(panic) => {
                outcome.failure = Some(text_of(panic.as_ref()));
                None
            }
        };
        if outcome.is_a_violation(cell.promise()) || late.is_some() {
            self.keep_evidence(&outcome, late.as_deref(), &sandbox);
        }
        drop(sandbox);
        if outcome.failure.is_none() && !is_broken_off {
            self.sites.give_back(cell.store, kind, site);
        }
        (outcome, late)
    }

    fn keep_evidence(&self, outcome: &Outcome, late: Option<&str>, sandbox: &Sandbox) {
        let name = format!("{}-{}.log", outcome.cell.replace('/', "-"), outcome.run);
        let said = serde_json::to_string(outcome).expect("plain data");
        let text = format!("{said}\n{}\n{}\n", late.unwrap_or_default(), sandbox.evidence());
        let directory = self.settings.directory.join("failures");
        let written = fs::create_dir_all(&directory).and_then(|()| fs::write(directory.join(name), text));
        written.expect("the directory of the report");
    }
}

impl Queue {
    /// The next task whose servers may be started.
    fn take(&mut self, cells: &[Cell]) -> Option<Task> {
        let is_free = |task: &Task| {
            let cell = &cells[task.cell];
            let in_use = self.failovers.get(cell.store.name).copied().unwrap_or_default();
            cell.fault.site != SiteKind::Failover || in_use < FAILOVERS_AT_ONCE
        };
        let index = self.tasks.iter().position(is_free)?;
        let task = self.tasks.remove(index)?;
        let cell = &cells[task.cell];
        if cell.fault.site == SiteKind::Failover {
            *self.failovers.entry(cell.store.name).or_default() += 1;
        }
        Some(task)
    }
}

impl Outcome {
    fn of(cell: &Cell, run: usize) -> Outcome {
        Outcome { cell: cell.to_string(), run, ..Outcome::default() }
    }

    fn measured(&mut self, observed: &Observed) -> Option<String> {
        let millis = |time: Duration| (time.as_secs_f64() * 10_000.0).round() / 10.0;
        self.gone_ms = observed.gone.map(millis);
        self.next_ms = observed.next.map(millis);
        self.kept = observed.kept;
        self.survivors = observed.survivors;
        observed.late.clone()
    }
}

/// Terms that are not above the one before.
pub fn term_violations(history: &History) -> usize {
    history.starts.windows(2).filter(|pair| pair[1].term <= pair[0].term).count()
}

/// The same for each run of each cell, whatever else is run.
fn seed_of(seed: u64, cell: &Cell, run: usize) -> u64 {
    // FNV-1a.
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let text = format!("{seed}/{cell}/{run}");
    text.bytes().fold(0xcbf2_9ce4_8422_2325, step)
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned())).unwrap_or_else(|| "a panic".to_owned())
}
