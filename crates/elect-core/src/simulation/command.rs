//! The command: a main process, what descends from it, and how willingly they die.
//!
//! The model knows no PDEATHSIG (K8): nothing may depend on it.

use std::time::Duration;

use super::clock::{SimRng, ms};
use crate::KILL_ALLOWANCE;
use crate::{CommandEnd, Program, RunId, Signal, Term};

pub(super) const SIGTERM: Signal = Signal(15);
pub(super) const SIGKILL: Signal = Signal(9);

/// How one start of a command will behave, drawn before it starts.
#[derive(Debug, Clone)]
pub(super) struct ProcessBehavior {
    pub fails: bool,
    /// The main process ends by itself after this long.
    pub lifetime: Option<Duration>,
    /// How long each process takes to end after the stop signal; `None` if it ignores it. The first is the main one.
    pub on_stop: Vec<Option<Duration>>,
    /// A task stuck in the kernel: so long after SIGKILL until it disappears.
    pub stuck: Option<Duration>,
}

impl ProcessBehavior {
    /// A hook: mostly short, now and then for longer than it may.
    pub(super) fn hook(rng: &mut SimRng, timeout: Duration, stop_timeout: Duration) -> ProcessBehavior {
        let behavior = ProcessBehavior::draw(rng, timeout, stop_timeout);
        let lifetime = rng.percent(80).then(|| rng.between(ms(1), timeout * 3 / 4));
        ProcessBehavior { lifetime, ..behavior }
    }

    /// The tree of a candidate without a command: empty.
    pub(super) fn nothing() -> ProcessBehavior {
        ProcessBehavior { on_stop: vec![Some(ms(0))], ..ProcessBehavior::calm() }
    }

    /// Obedient, and running until it is stopped.
    pub(super) fn calm() -> ProcessBehavior {
        ProcessBehavior { fails: false, lifetime: None, on_stop: vec![Some(ms(20))], stuck: None }
    }

    pub(super) fn draw(rng: &mut SimRng, ttl: Duration, stop_timeout: Duration) -> ProcessBehavior {
        let descendants = if rng.percent(30) { rng.rng.usize(1..=2) } else { 0 };
        let on_stop = |rng: &mut SimRng| match rng.rng.u32(0..100) {
            0..50 => Some(rng.between(ms(1), ms(200))),
            50..75 => Some(rng.between(ms(200), stop_timeout * 3 / 2)),
            _ => None,
        };
        ProcessBehavior {
            fails: rng.percent(3),
            lifetime: rng.percent(20).then(|| rng.between(ms(5), ttl * 3 / 2)),
            on_stop: (0..=descendants).map(|_| on_stop(rng)).collect(),
            stuck: rng.percent(3).then(|| rng.between(KILL_ALLOWANCE, ttl * 3 / 2)),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Process {
    alive: bool,
    dies_at: Duration,
    on_stop: Option<Duration>,
    end: CommandEnd,
}

/// The processes of one start.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub program: Option<Program>,
    pub run: RunId,
    pub term: Term,
    processes: Vec<Process>,
    pub stuck: Option<Duration>,
    pub stopped: Option<Duration>,
    pub killed: Option<Duration>,
    pub born_at: Duration,
    /// Whether the main process ended before anybody had asked it to.
    pub ended_first: Option<Duration>,
    /// Whether campaigner or keeper was stopped or killed while it lived: then it may die early.
    pub disturbed: bool,
    /// Started when all faults had ended, or to run for ever.
    pub lasting: bool,
}

impl Tree {
    pub(super) fn born(now: Duration, program: Program, run: RunId, behavior: &ProcessBehavior, status: u8) -> Tree {
        let never = Duration::MAX;
        let end = CommandEnd::Exited(status);
        let mut processes: Vec<_> =
            behavior.on_stop.iter().map(|&on_stop| Process { alive: true, dies_at: never, on_stop, end }).collect();
        processes[0].dies_at = behavior.lifetime.map_or(never, |lifetime| now + lifetime);
        let lasting = behavior.lifetime.is_none() && matches!(program, Program::Command { .. });
        let term = program.deadline_term().unwrap_or_default();
        Tree {
            program: Some(program),
            born_at: now,
            run,
            term,
            processes,
            stuck: behavior.stuck,
            lasting,
            ..Tree::default()
        }
    }

    /// Whether a deadline governs it: the command's, or that of the hook before it.
    pub(super) fn is_governed(&self) -> bool {
        self.program.is_some_and(|program| program.deadline_term().is_some())
    }

    pub(super) fn is_command(&self) -> bool {
        matches!(self.program, Some(Program::Command { .. }))
    }

    pub(super) fn is_alive(&self) -> bool {
        self.processes.iter().any(|process| process.alive)
    }

    /// How the main process ended, if it has.
    pub(super) fn main_end(&self) -> Option<CommandEnd> {
        self.processes.first().filter(|main| !main.alive).map(|main| main.end)
    }

    /// The stop signal to all of them.
    pub(super) fn stop(&mut self, now: Duration) {
        self.stopped.get_or_insert(now);
        for process in self.processes.iter_mut().filter(|process| process.alive) {
            if let Some(after) = process.on_stop
                && now + after < process.dies_at
            {
                process.dies_at = now + after;
                process.end = CommandEnd::Killed { signal: SIGTERM, escalated: false };
            }
        }
    }

    /// SIGKILL to all of them. Each disappears within the kill allowance, unless it is stuck in the kernel.
    pub(super) fn kill(&mut self, now: Duration, rng: &mut SimRng) {
        if self.killed.is_some() {
            return;
        }
        self.killed = Some(now);
        for process in self.processes.iter_mut().filter(|process| process.alive) {
            let slowest = KILL_ALLOWANCE.saturating_sub(Duration::from_nanos(1));
            let after = if rng.percent(20) { rng.between(ms(100), slowest) } else { rng.between(ms(0), ms(5)) };
            let dies_at = now + self.stuck.unwrap_or(after);
            // In the kernel nothing is obeyed.
            if dies_at < process.dies_at || self.stuck.is_some() {
                process.dies_at = dies_at;
                process.end = CommandEnd::Killed { signal: SIGKILL, escalated: true };
            }
        }
    }

    /// When the next of them disappears.
    pub(super) fn next_death(&self) -> Duration {
        let living = self.processes.iter().filter(|process| process.alive);
        living.map(|process| process.dies_at).min().unwrap_or(Duration::MAX)
    }

    /// Takes those away whose time has come. Returns whether any was.
    pub(super) fn bury(&mut self, now: Duration) -> bool {
        let mut any = false;
        for (index, process) in self.processes.iter_mut().enumerate() {
            if process.alive && process.dies_at <= now {
                process.alive = false;
                any = true;
                if index == 0 && self.stopped.is_none() && self.killed.is_none() {
                    self.ended_first = Some(now);
                }
            }
        }
        any
    }

    /// Whether it has outlived the allowance after SIGKILL, for which elect can do nothing (2.2).
    pub(super) fn is_stuck(&self, now: Duration) -> bool {
        self.stuck.is_some() && self.killed.is_some_and(|at| now >= at + KILL_ALLOWANCE)
    }
}
