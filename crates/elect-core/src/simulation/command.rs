//! The processes of one start: a main process, its descendants, and how willingly they die.
//!
//! The model knows no PDEATHSIG (K8): nothing may depend on it.

use std::hash::Hash;
use std::mem::discriminant;
use std::time::Duration;

use super::choices::SimRng;
use super::clock::ms;
use super::states::StateHasher;
use crate::KILL_ALLOWANCE;
use crate::{ChildEnd, NotStarted, Program, Recipients, RunId, Signal, Term, Time};

pub(super) const SIGHUP: Signal = Signal(1);
pub(super) const SIGTERM: Signal = Signal(15);
pub(super) const SIGKILL: Signal = Signal(9);
const SIGTSTP: Signal = Signal(20);

/// The behavior of one start of a program, drawn before it starts.
#[derive(Debug, Clone)]
pub(super) struct ProcessBehavior {
    pub fails: bool,
    /// The main process ends by itself after this long.
    pub lifetime: Option<Duration>,
    /// The time that each process takes to end after the stop signal; `None` if it ignores it. The first is the main
    /// process.
    pub on_stop: Vec<Option<Duration>>,
    /// A task stuck in the kernel: the time from SIGKILL until it disappears.
    pub stuck: Option<Duration>,
    /// The number of sweeps that find one process more than the last, because it was forked meanwhile.
    pub forks: u32,
    /// A process that changes its user, by its place: no signal of elect's reaches it, but that of its cgroup.
    pub foreign: Option<usize>,
}

impl ProcessBehavior {
    /// A hook: mostly short, now and then for longer than it may.
    pub(super) fn hook(rng: &mut SimRng, timeout: Duration, stop_timeout: Duration) -> ProcessBehavior {
        let behavior = ProcessBehavior::draw(rng, timeout, stop_timeout);
        let ends = rng.percent(80) || behavior.foreign == Some(0);
        let lifetime = ends.then(|| rng.between(ms(1), timeout * 3 / 4));
        ProcessBehavior { lifetime, ..behavior }
    }

    /// The stand-in for a run without a command: it ends as soon as it is stopped.
    pub(super) fn nothing() -> ProcessBehavior {
        ProcessBehavior { on_stop: vec![Some(ms(0))], ..ProcessBehavior::calm() }
    }

    /// Obedient, and running until it is stopped.
    pub(super) fn calm() -> ProcessBehavior {
        ProcessBehavior {
            fails: false,
            lifetime: None,
            on_stop: vec![Some(ms(20))],
            stuck: None,
            forks: 0,
            foreign: None,
        }
    }

    pub(super) fn draw(rng: &mut SimRng, ttl: Duration, stop_timeout: Duration) -> ProcessBehavior {
        let descendants = if rng.percent(30) { 1 + rng.index(2) } else { 0 };
        let on_stop = |rng: &mut SimRng| match rng.below_small(100) {
            0..50 => Some(rng.between(ms(1), ms(200))),
            50..75 => Some(rng.between(ms(200), stop_timeout * 3 / 2)),
            _ => None,
        };
        let foreign = rng.percent(2).then(|| rng.index(descendants + 1));
        let ends = rng.percent(20) || foreign == Some(0);
        ProcessBehavior {
            fails: rng.percent(3),
            lifetime: ends.then(|| rng.between(ms(5), ttl * 3 / 2)),
            on_stop: (0..=descendants).map(|_| on_stop(rng)).collect(),
            stuck: rng.percent(3).then(|| rng.between(KILL_ALLOWANCE, ttl * 3 / 2)),
            forks: if rng.percent(5) { 1 + rng.below_small(3) } else { 0 },
            foreign,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Alive,
    /// Ended, and not reaped.
    Zombie,
    Reaped,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ProcessKind {
    Ordinary,
    /// It runs as a user whom elect may not signal.
    Foreign,
    /// The init of the PID namespace.
    Init,
}

#[derive(Debug, Clone, Copy)]
struct Process {
    pid: i32,
    life: Life,
    dies_at: Duration,
    on_stop: Option<Duration>,
    end: ChildEnd,
    is_killed: bool,
    /// It has got the stop signal.
    is_asked: bool,
    /// It has left the group of the main process (setsid).
    has_left_group: bool,
    kind: ProcessKind,
}

impl Process {
    fn new(pid: i32, on_stop: Option<Duration>) -> Process {
        let end = ChildEnd::Exited(0);
        Process {
            pid,
            life: Life::Alive,
            dies_at: Duration::MAX,
            on_stop,
            end,
            is_killed: false,
            is_asked: false,
            has_left_group: false,
            kind: ProcessKind::Ordinary,
        }
    }
}

/// The progress of a child from fork to exec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ExecProgress {
    /// A signal has reached it, or will end it, before exec.
    Forked {
        is_signalled: bool,
    },
    Executed,
    Refused(NotStarted),
}

/// Whether the terminal has stopped a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Suspension {
    None,
    /// It has, and the keeper does not know.
    Unseen,
    Seen,
}

/// The order that the init of a namespace has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum InitOrder {
    Stay,
    ExitWhenAlone,
}

/// The processes of one start.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(super) struct Tree {
    pub program: Option<Program>,
    pub run: RunId,
    pub term: Term,
    processes: Vec<Process>,
    behavior: ProcessBehavior,
    pub exec: ExecProgress,
    init: InitOrder,
    forks_left: u32,
    /// Whether the keeper has read the result of exec.
    pub exec_is_read: bool,
    /// The deadline that the child compares with the clock before exec (K5).
    pub kill_by: Time,
    /// The keeper's deadline at the fork.
    pub armed: Option<(Term, Time)>,
    pub suspension: Suspension,
    pub stuck: Option<Duration>,
    pub stopped: Option<Duration>,
    pub killed: Option<Duration>,
    pub born_at: Duration,
    /// When the main process ended before it was asked to.
    pub ended_first: Option<Duration>,
    /// Whether campaigner or keeper was stopped or killed while it lived: then it may die early.
    pub disturbed: bool,
    /// Started when all faults had ended, or to run forever.
    pub lasting: bool,
    /// H5: its main process is a check that SIGKILL does not end, and nothing waits for it any more.
    pub is_excluded: bool,
}

impl Tree {
    /// No process at all.
    pub(super) fn none() -> Tree {
        Tree {
            program: None,
            run: 0,
            term: 0,
            processes: Vec::new(),
            behavior: ProcessBehavior::calm(),
            exec: ExecProgress::Executed,
            init: InitOrder::Stay,
            forks_left: 0,
            exec_is_read: true,
            kill_by: Time::NEVER,
            armed: None,
            suspension: Suspension::None,
            stuck: None,
            stopped: None,
            killed: None,
            born_at: Duration::ZERO,
            ended_first: None,
            disturbed: false,
            lasting: false,
            is_excluded: false,
        }
    }

    /// A child that will execute a program.
    pub(super) fn forked(
        now: Duration,
        program: Option<Program>,
        run: RunId,
        pid: i32,
        behavior: ProcessBehavior,
    ) -> Tree {
        let governed = program.and_then(Program::deadline_term);
        Tree {
            program,
            run,
            term: governed.unwrap_or_default(),
            processes: vec![Process::new(pid, behavior.on_stop[0])],
            exec: ExecProgress::Forked { is_signalled: false },
            exec_is_read: false,
            stuck: behavior.stuck,
            forks_left: behavior.forks,
            born_at: now,
            lasting: behavior.lifetime.is_none() && matches!(program, Some(Program::Command { .. })),
            behavior,
            ..Tree::none()
        }
    }

    /// Adds the init of a PID namespace, a child of the keeper like the main process.
    pub(super) fn add_init(&mut self, pid: i32) {
        let kind = ProcessKind::Init;
        self.processes.push(Process { has_left_group: true, kind, ..Process::new(pid, None) });
    }

    /// Whether it has an init of this id that has not been reaped.
    pub(super) fn has_init(&self, pid: i32) -> bool {
        let is_it = |process: &Process| process.kind == ProcessKind::Init && process.pid == pid;
        self.processes.iter().any(|process| is_it(process) && process.life != Life::Reaped)
    }

    /// The init exits as soon as no other process is left in its namespace.
    pub(super) fn dismiss_init(&mut self, now: Duration) {
        self.init = InitOrder::ExitWhenAlone;
        self.end_lonely_init(now);
    }

    fn end_lonely_init(&mut self, now: Duration) {
        let is_init = |process: &Process| process.kind == ProcessKind::Init;
        let others = self.processes.iter().any(|process| process.life == Life::Alive && !is_init(process));
        if self.init == InitOrder::ExitWhenAlone && !others {
            for init in self.processes.iter_mut().filter(|process| is_init(process)) {
                init.dies_at = init.dies_at.min(now + ms(1));
            }
        }
    }

    /// Exec succeeds: the program begins, and so do its descendants.
    pub(super) fn execute(&mut self, now: Duration, status: u8, rng: &mut SimRng, next_pid: &mut i32) {
        self.exec = ExecProgress::Executed;
        let lifetime = self.behavior.lifetime;
        let main = &mut self.processes[0];
        main.end = ChildEnd::Exited(status);
        main.dies_at = lifetime.map_or(Duration::MAX, |lifetime| now + lifetime);
        let foreign = self.behavior.foreign;
        let kind_of = |place| if foreign == Some(place) { ProcessKind::Foreign } else { ProcessKind::Ordinary };
        main.kind = kind_of(0);
        for (place, on_stop) in self.behavior.on_stop.iter().enumerate().skip(1) {
            *next_pid += 1;
            let (has_left_group, kind) = (rng.percent(50), kind_of(place));
            let process = Process { has_left_group, kind, ..Process::new(*next_pid, *on_stop) };
            // It has to end some day, since no signal ends it.
            let dies_at =
                if kind == ProcessKind::Foreign { now + rng.between(ms(5), ms(8_000)) } else { Duration::MAX };
            self.processes.push(Process { dies_at, ..process });
        }
    }

    /// Exec fails: the child ends by itself, at that time.
    pub(super) fn refuse(&mut self, why: NotStarted, ends_at: Duration) {
        self.exec = ExecProgress::Refused(why);
        let main = &mut self.processes[0];
        (main.end, main.dies_at) = (ChildEnd::Exited(127), main.dies_at.min(ends_at));
    }

    pub(super) fn behavior(&self) -> &ProcessBehavior {
        &self.behavior
    }

    /// Whether exec will fail.
    pub(super) fn fails(&self) -> bool {
        self.behavior.fails
    }

    /// Whether a deadline governs it: the command's, or that of the hook before it.
    pub(super) fn is_governed(&self) -> bool {
        self.program.is_some_and(|program| program.deadline_term().is_some())
    }

    pub(super) fn is_command(&self) -> bool {
        matches!(self.program, Some(Program::Command { .. }))
    }

    /// Whether a process of the program lives. A child before exec is none.
    pub(super) fn is_alive(&self) -> bool {
        self.exec == ExecProgress::Executed && self.has_processes()
    }

    /// Whether a process lives, be it one that has executed nothing.
    pub(super) fn has_processes(&self) -> bool {
        let awaited = self.processes.iter().skip(usize::from(self.is_excluded));
        awaited.into_iter().any(|process| process.life == Life::Alive)
    }

    /// The ids of the processes that live.
    pub(super) fn living(&self) -> impl Iterator<Item = i32> {
        self.processes.iter().filter(|process| process.life == Life::Alive).map(|process| process.pid)
    }

    /// Whether a child is left for its keeper, dead or alive. The stand-in for no command is none.
    pub(super) fn has_children(&self) -> bool {
        self.processes.iter().any(|process| process.life != Life::Reaped && process.pid > 0)
    }

    pub(super) fn main_pid(&self) -> Option<i32> {
        self.processes.first().map(|main| main.pid)
    }

    pub(super) fn main_is_reaped(&self) -> bool {
        self.processes.first().is_none_or(|main| main.life == Life::Reaped)
    }

    /// Whether the main process has ended and has not been reaped.
    pub(super) fn main_is_zombie(&self) -> bool {
        self.processes.first().is_some_and(|main| main.life == Life::Zombie)
    }

    pub(super) fn main_is_alive(&self) -> bool {
        self.processes.first().is_some_and(|main| main.life == Life::Alive)
    }

    /// Whether the process of this id is the main process, and has not been reaped: only then is the id its own.
    pub(super) fn is_led_by(&self, pid: i32) -> bool {
        self.processes.first().is_some_and(|main| main.pid == pid && main.life != Life::Reaped)
    }

    /// The stop signal.
    pub(super) fn stop(&mut self, now: Duration, reach: Reach) {
        let group = self.main_pid();
        let is_reached = |process: &Process| match reach {
            Reach::Process(pid) => process.pid == pid,
            Reach::Group => !process.has_left_group,
            Reach::ExceptProcesses(pids) => !pids.contains(&Some(process.pid)),
            Reach::Except(groups) => process.has_left_group || group.is_none() || !groups.contains(&group),
        };
        for process in self.processes.iter_mut().filter(|process| process.life == Life::Alive && is_reached(process)) {
            if process.kind == ProcessKind::Init {
                continue;
            }
            self.stopped.get_or_insert(now);
            if process.kind == ProcessKind::Foreign {
                continue;
            }
            process.is_asked = true;
            if !process.has_left_group && self.suspension != Suspension::None {
                continue;
            }
            if process.pid == 0 {
                process.life = Life::Reaped;
            } else if let ExecProgress::Forked { is_signalled } = &mut self.exec {
                *is_signalled = true;
            } else if let Some(after) = process.on_stop
                && now + after < process.dies_at
            {
                process.dies_at = now + after;
                process.end = ChildEnd::Killed(SIGTERM);
            }
        }
    }

    /// A signal of the terminal stops the group; one that was about to end because it was asked to does so no more.
    pub(super) fn suspend(&mut self) {
        let is_command = self.is_command() && self.main_pid() != Some(0);
        if !is_command || !self.is_alive() || !self.main_is_alive() || self.suspension != Suspension::None {
            return;
        }
        self.suspension = Suspension::Unseen;
        let was_asked = self.stopped.is_some();
        for process in self.processes.iter_mut().filter(|process| was_asked && !process.is_killed) {
            if !process.has_left_group && process.kind == ProcessKind::Ordinary {
                process.dies_at = Duration::MAX;
            }
        }
    }

    /// The signal that has stopped it, told once.
    pub(super) fn take_stop_signal(&mut self) -> Option<Signal> {
        let is_unseen = self.suspension == Suspension::Unseen && self.main_is_alive();
        is_unseen.then(|| {
            self.suspension = Suspension::Seen;
            SIGTSTP
        })
    }

    /// SIGCONT: what was asked of it meanwhile takes effect.
    pub(super) fn resume(&mut self, now: Duration) {
        let was_suspended = std::mem::replace(&mut self.suspension, Suspension::None) != Suspension::None;
        if was_suspended && self.stopped.is_some() {
            let is_asked = |process: &&Process| process.is_asked && !process.has_left_group;
            let asked: Vec<i32> = self.processes.iter().filter(is_asked).map(|process| process.pid).collect();
            for pid in asked {
                self.stop(now, Reach::Process(pid));
            }
        }
    }

    /// Whether a process lives that the stop signal could have reached and has not.
    pub(super) fn has_unsignalled(&self) -> bool {
        let is_it = |process: &Process| process.kind == ProcessKind::Ordinary && !process.is_asked && process.pid > 0;
        self.exec == ExecProgress::Executed
            && self.processes.iter().any(|process| process.life == Life::Alive && !process.is_killed && is_it(process))
    }

    /// SIGKILL. Each process disappears within the kill allowance, unless it is stuck in the kernel. Returns what was
    /// in the way of killing all of them.
    pub(super) fn kill(&mut self, now: Duration, reach: Reach, tier: SimTier, rng: &mut SimRng) -> Obstacles {
        let stuck = self.stuck;
        let mut obstacles = Obstacles::default();
        for process in &mut self.processes {
            let is_reached = !process.has_left_group || reach != Reach::Group;
            if process.life != Life::Alive || process.is_killed || !is_reached {
                continue;
            }
            self.killed.get_or_insert(now);
            if process.kind == ProcessKind::Foreign {
                obstacles.refused = true;
                if tier != SimTier::Cgroup || reach == Reach::Group {
                    continue;
                }
            }
            process.is_killed = true;
            if process.pid == 0 {
                process.life = Life::Reaped;
            }
            let slowest = KILL_ALLOWANCE.saturating_sub(Duration::from_nanos(1));
            let after = if rng.percent(20) { rng.between(ms(100), slowest) } else { rng.between(ms(0), ms(5)) };
            let dies_at = now + stuck.unwrap_or(after);
            // In the kernel nothing is obeyed.
            if dies_at < process.dies_at || stuck.is_some() {
                process.dies_at = dies_at;
                process.end = ChildEnd::Killed(SIGKILL);
            }
        }
        if self.forks_left > 0 && self.is_alive() && reach != Reach::Group {
            self.forks_left -= 1;
            obstacles.forked = true;
        }
        obstacles
    }

    /// Whether a sweep may miss a process.
    pub(super) fn may_fork(&self) -> bool {
        self.processes
            .iter()
            .any(|process| process.life == Life::Alive && !process.is_killed && process.kind != ProcessKind::Foreign)
    }

    /// A process that was forked during a sweep, which has not found it.
    pub(super) fn fork(&mut self, pid: i32) {
        self.processes.push(Process { has_left_group: true, ..Process::new(pid, None) });
    }

    /// The child dies of a signal before exec.
    pub(super) fn die_before_exec(&mut self, now: Duration) {
        if let Some(main) = self.processes.first_mut() {
            (main.dies_at, main.end) = (now, ChildEnd::Killed(SIGTERM));
        }
    }

    pub(super) fn is_killed_before_exec(&self) -> bool {
        self.processes.first().is_some_and(|main| main.is_killed) && self.exec != ExecProgress::Executed
    }

    /// When the next of them disappears.
    pub(super) fn next_death(&self) -> Duration {
        let living = self.processes.iter().filter(|process| process.life == Life::Alive);
        living.map(|process| process.dies_at).min().unwrap_or(Duration::MAX)
    }

    /// Ends those whose time has come. Returns whether there was one. A descendant is reaped by the main process while
    /// that lives.
    pub(super) fn bury(&mut self, now: Duration) -> bool {
        let mut any = false;
        for index in 0..self.processes.len() {
            let main_is_alive = self.main_is_alive();
            let process = &mut self.processes[index];
            if process.life == Life::Alive && process.dies_at <= now {
                let parent_reaps = index > 0 && main_is_alive && process.kind != ProcessKind::Init;
                process.life = if parent_reaps { Life::Reaped } else { Life::Zombie };
                any = true;
                if index == 0 && self.stopped.is_none() && self.killed.is_none() {
                    self.ended_first = Some(now);
                }
            }
        }
        self.end_lonely_init(now);
        any
    }

    /// Reaps one of those that have ended.
    pub(super) fn reap(&mut self) -> Option<(i32, ChildEnd)> {
        let zombie = self.processes.iter_mut().find(|process| process.life == Life::Zombie)?;
        zombie.life = Life::Reaped;
        Some((zombie.pid, zombie.end))
    }

    pub(super) fn hash_processes(&self, state: &mut StateHasher) {
        for Process { life, is_killed, has_left_group, kind, .. } in &self.processes {
            (discriminant(life), *is_killed, *has_left_group, discriminant(kind)).hash(state);
        }
    }

    /// Whether it has outlived the allowance after SIGKILL, for which elect can do nothing (2.2).
    pub(super) fn is_stuck(&self, now: Duration) -> bool {
        let is_foreign = |process: &Process| process.kind == ProcessKind::Foreign && process.life == Life::Alive;
        let resists = self.stuck.is_some() || self.processes.iter().any(is_foreign);
        resists && self.killed.is_some_and(|at| now >= at + KILL_ALLOWANCE)
    }
}

/// The containment of a host's commands (K7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SimTier {
    Tree,
    Cgroup,
    Pidns,
}

/// The obstacles that keep a sweep from being complete.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Obstacles {
    /// A signal was refused, because the process had changed its user.
    pub refused: bool,
    /// A process was forked meanwhile.
    pub forked: bool,
}

/// The processes that a signal reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// One process.
    Process(i32),
    /// The group of the main process.
    Group,
    /// Every process but these.
    ExceptProcesses([Option<i32>; 2]),
    /// Every process but the members of these groups.
    Except([Option<i32>; 2]),
}

impl Reach {
    pub(super) fn of(recipients: Recipients) -> Reach {
        match recipients {
            Recipients::All | Recipients::Beside(_) => ALL,
            Recipients::AllExcept(pids) => Reach::ExceptProcesses(pids),
            Recipients::OutsideGroups(groups) => Reach::Except(groups),
        }
    }
}

/// Every process.
pub(super) const ALL: Reach = Reach::Except([None, None]);
