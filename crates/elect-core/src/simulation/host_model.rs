//! The processes of a host, as the keeper's actions and the campaigner's find them: fork, exec, signals, death.

use super::clock::ms;
use super::command::{ALL, ExecProgress, ProcessBehavior, Reach, SIGHUP, SIGKILL, SIGTERM, SimTier, Tree};
use super::coverage::Seen;
use super::faults::Fault;
use super::host::{Delivery, ProcessState, SimHost};
use super::run::{SimEvent, Simulation};
use super::store::Store;
use crate::{
    Event, IdentitySource, KeeperAction, KeeperEvent, NotStarted, ProcessList, Program, Recipients, RunId, Signal,
    StopTo, TerminalEvent, Time,
};

pub(super) const ENOENT: i32 = 2;
pub(super) const EAGAIN: i32 = 11;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum InitAction {
    Dismiss,
    Kill,
}

impl Simulation {
    /// Performs an action of the keeper. Returns its result if it has one.
    pub(super) fn perform_keeper_action(&mut self, h: usize, action: KeeperAction) -> Option<KeeperEvent> {
        match action {
            KeeperAction::Spawn { program, kill_by, holds_lock, identity } => {
                if holds_lock == matches!(program, Program::Follower) {
                    self.violate("K9: the follower alone runs without the lock", h);
                }
                if identity == IdentitySource::Kept {
                    self.coverage.count(Seen::OustedByKeeper);
                }
                return Some(self.fork_program(h, program, kill_by));
            }
            KeeperAction::SpawnHook(_) => {
                let has_tree = self.hosts[h].keeper.machine.has_tree();
                self.coverage.count(if has_tree { Seen::HookBesideProgram } else { Seen::HookAlone });
                return Some(self.fork_hook(h));
            }
            KeeperAction::SignalGroup { main, signal } => self.signal_group(h, main, signal),
            KeeperAction::SignalProcess { pid, signal } => {
                self.hosts[h].early_signals.retain(|early| *early != signal);
                if !self.is_own_pid(h, pid) {
                    self.violate("K6: a signal was sent to the id of a process that was reaped", h);
                } else if signal == SIGTERM {
                    self.signal_stop(h, pid, Reach::Process(pid));
                }
            }
            KeeperAction::SignalDescendants { recipients, .. } => {
                if self.hosts[h].tree.main_is_alive() && matches!(recipients, Recipients::AllExcept([Some(_), _])) {
                    self.coverage.count(Seen::RestSignalled);
                }
                self.stop_tree(h, recipients);
            }
            KeeperAction::ListDescendants { except } => {
                let processes = self.list_processes(h, except);
                if processes.count > 0 {
                    self.coverage.count(Seen::LeftBehind);
                }
                return Some(KeeperEvent::DescendantsListed(processes));
            }
            KeeperAction::KillTree { main, lists } => {
                if lists {
                    self.check_stop_timeout(h);
                }
                let processes = if lists { self.list_processes(h, [None, None]) } else { ProcessList::default() };
                if main.is_some_and(|main| !self.is_own_pid(h, main)) {
                    self.violate("K6: SIGKILL was sent to the group of a process that was reaped", h);
                }
                let is_first = self.hosts[h].tree.killed.is_none() && self.hosts[h].tree.is_alive();
                let is_complete = self.kill_tree(h);
                if is_first && is_complete && !self.rng.punctual && self.rng.percent(3) {
                    self.kill_crowd(h);
                }
                return Some(KeeperEvent::TreeKilled { is_complete, processes });
            }
            KeeperAction::KillHook { main } => self.kill_hook(h, main),
            KeeperAction::SpawnCheck => return Some(self.fork_check(h)),
            KeeperAction::KillLeftovers { except } => self.kill_leftovers(h, except),
            KeeperAction::KillCheck { main, kills_cgroup } => self.kill_check(h, main, kills_cgroup),
            KeeperAction::Exit { releases } => self.end_keeper(h, releases),
            KeeperAction::KillInit { init } => self.reach_init(h, init, InitAction::Kill),
            KeeperAction::DismissInit { init } => self.reach_init(h, init, InitAction::Dismiss),
            KeeperAction::HandleTerminalStop { signal, .. } => return self.handle_terminal_stop(h, signal),
            KeeperAction::ContinueGroup { main: group } | KeeperAction::ResumeTerminal { group, .. } => {
                self.resume_group(h, group);
            }
            KeeperAction::KeepIdentity
            | KeeperAction::ScheduleFirst
            | KeeperAction::ScheduleAsBefore
            | KeeperAction::PollForeground { .. }
            | KeeperAction::TakeTerminalBack { .. } => {}
        }
        None
    }

    /// Either the whole job is suspended, or the command gets the terminal and goes on.
    fn handle_terminal_stop(&mut self, h: usize, signal: Signal) -> Option<KeeperEvent> {
        if self.rng.percent(30) {
            let now = self.now;
            self.hosts[h].tree.resume(now);
            return None;
        }
        self.coverage.count(Seen::Suspended);
        let at = self.now + self.rng.between(ms(1), self.setup.ttl);
        self.push(at, SimEvent::Fault(Fault::Foreground(h)));
        Some(KeeperEvent::TerminalChanged(TerminalEvent::Suspended(signal)))
    }

    fn resume_group(&mut self, h: usize, group: i32) {
        let now = self.now;
        if let Some(tree) = self.hosts[h].trees().find(|tree| tree.main_pid() == Some(group)) {
            tree.resume(now);
        }
        self.expect_death(h);
    }

    fn is_own_pid(&self, h: usize, pid: i32) -> bool {
        let host = &self.hosts[h];
        std::iter::once(&host.tree).chain(&host.hooks).chain(&host.checks).any(|tree| tree.is_led_by(pid))
    }

    /// Signals or dismisses the init of a PID namespace.
    fn reach_init(&mut self, h: usize, init: i32, action: InitAction) {
        if action == InitAction::Kill && self.hosts[h].tree.has_init(init) {
            self.note_kill(h);
        }
        let Simulation { hosts, rng, now, .. } = self;
        let Some(tree) = hosts[h].trees().find(|tree| tree.has_init(init)) else {
            self.violate("K6: the init of a namespace was named after it had been reaped", h);
            return;
        };
        match action {
            InitAction::Dismiss => tree.dismiss_init(*now),
            // The kernel kills every process in the namespace, whatever its user.
            InitAction::Kill => drop(tree.kill(*now, ALL, SimTier::Cgroup, rng)),
        }
        self.expect_death(h);
    }

    // ---- fork and exec

    /// The behavior of a program that is about to start, and the status that it ends with.
    fn behavior(&mut self, h: usize, program: Program) -> (ProcessBehavior, u8) {
        let host = &self.hosts[h];
        let (timeout, stop_timeout) = (host.restart_check.policy.hooks.timeout, host.stop_timeout);
        let ttl = host.reference.ttl.or(host.reference.asked.ttl).expect("asked for");
        // In a history of restarts many commands end soon, and many of those fail.
        let restless = self.setup.supervised && !self.quiet;
        match (program, &self.setup.behavior) {
            (Program::OnElected { .. } | Program::OnOusted { .. }, _) if self.quiet => {
                (ProcessBehavior { lifetime: Some(ms(20)), ..ProcessBehavior::calm() }, 0)
            }
            (Program::OnElected { .. } | Program::OnOusted { .. }, _) => {
                let status = u8::from(self.rng.percent(15));
                (ProcessBehavior::hook(&mut self.rng, timeout, stop_timeout), status)
            }
            (Program::Follower, _) if self.quiet => (ProcessBehavior::calm(), 0),
            (Program::Follower, _) => {
                let status = u8::from(self.rng.percent(50));
                (ProcessBehavior::draw(&mut self.rng, ttl, stop_timeout), status)
            }
            (Program::Command { .. }, Some(behavior)) => (behavior.clone(), 0),
            (Program::Command { .. }, None) => {
                let behavior = match () {
                    () if self.quiet => ProcessBehavior::calm(),
                    () if restless && self.rng.percent(60) => {
                        let lifetime = self.rng.between(ms(1), ttl / 4);
                        ProcessBehavior {
                            lifetime: Some(lifetime),
                            ..ProcessBehavior::draw(&mut self.rng, ttl, stop_timeout)
                        }
                    }
                    () => ProcessBehavior::draw(&mut self.rng, ttl, stop_timeout),
                };
                let status = if restless && self.rng.percent(70) { 1 + self.rng.of(&[0, 1, 2]) } else { 0 };
                (behavior, status)
            }
        }
    }

    fn fork_program(&mut self, h: usize, program: Program, kill_by: Time) -> KeeperEvent {
        if self.hosts[h].tree.has_processes() {
            self.violate("2.3: a program was started beside the tree of the last one", h);
        }
        self.follower_on_spawn(h, program);
        let (behavior, status) = self.behavior(h, program);
        if behavior.fails && self.rng.percent(30) {
            return KeeperEvent::NotSpawned { errno: EAGAIN };
        }
        let host = &mut self.hosts[h];
        host.next_pid += 1;
        let (pid, run) = (host.next_pid, host.keeper.machine.run());
        host.tree = Tree::forked(self.now, Some(program), run, pid, behavior);
        host.tree.kill_by = kill_by;
        host.tree.armed = host.keeper.machine.deadline();
        host.tree.disturbed = !host.campaigner.is_running();
        let init = self.hosts[h].new_init();
        if let Some(init) = init {
            self.hosts[h].tree.add_init(init);
        }
        let delay = self.exec_delay(h);
        if delay > ms(2) && self.rng.percent(30) {
            self.schedule_delivery(h, self.now + delay / 2, Delivery::Signal(Event::Forward(SIGHUP)));
        }
        self.push(self.now + delay, SimEvent::Exec(h, pid, status));
        KeeperEvent::Spawned { pid, init }
    }

    /// The time between fork and exec: hardly any, but the child may be held.
    pub(super) fn exec_delay(&mut self, h: usize) -> std::time::Duration {
        let ttl = self.hosts[h].reference.ttl.or(self.hosts[h].reference.asked.ttl).expect("asked for");
        if self.rng.punctual {
            return ms(0);
        }
        match self.rng.below_small(100) {
            0..90 => self.rng.between(ms(0), ms(2)),
            90..97 => self.rng.between(ms(2), ms(100)),
            _ if self.quiet => ms(1),
            _ => self.rng.between(ms(100), ttl),
        }
    }

    /// A child is about to execute its program.
    pub(super) fn on_exec(&mut self, h: usize, pid: i32, status: u8) {
        if self.hosts[h].tree.main_pid() == Some(pid) {
            self.exec_program(h, status);
        } else if let Some(index) = self.hosts[h].hooks.iter().position(|hook| hook.main_pid() == Some(pid)) {
            self.exec_hook(h, index, status);
        } else {
            self.exec_check(h, pid, status);
        }
        self.expect_death(h);
        self.run_keeper(h);
    }

    fn exec_program(&mut self, h: usize, status: u8) {
        let host = &mut self.hosts[h];
        let ExecProgress::Forked { is_signalled } = host.tree.exec else { return };
        if host.tree.is_killed_before_exec() || !host.tree.main_is_alive() {
            return;
        }
        // Signals that arrived while they were blocked take effect before exec.
        if is_signalled {
            host.tree.die_before_exec(self.now);
            return;
        }
        // K5: checked by the child itself, immediately before exec.
        if host.clock.at(self.now) >= host.tree.kill_by {
            self.coverage.count(Seen::TooLateAtExec);
            return self.refuse_exec(h, NotStarted::TooLate);
        }
        if host.tree.fails() {
            return self.refuse_exec(h, NotStarted::Failed(ENOENT));
        }
        let (program, term) = (host.tree.program.expect("a program"), host.tree.term);
        if program.deadline_term().is_some() {
            self.check_birth(h, term);
            self.check_armed(h);
        }
        let host = &mut self.hosts[h];
        host.tree.execute(self.now, status, &mut self.rng, &mut host.next_pid);
        self.note_birth(h, program);
        if let Program::Command { term } = program {
            self.restarts_on_spawn(h, term);
            self.coverage.count(Seen::Started);
        }
        if std::mem::take(&mut self.hosts[h].reference.too_late_before) {
            self.coverage.count(Seen::StartedAfterAll);
        }
    }

    /// The child reports that it does not execute, and exits; that may take long.
    fn refuse_exec(&mut self, h: usize, why: NotStarted) {
        let ttl = self.hosts[h].reference.ttl.or(self.hosts[h].reference.asked.ttl).expect("asked for");
        let longest = if self.rng.percent(20) && !self.quiet { ttl } else { ms(5) };
        let ends_at = self.now + self.rng.between(ms(0), longest);
        self.hosts[h].tree.refuse(why, ends_at);
    }

    fn note_birth(&mut self, h: usize, program: Program) {
        let behavior = self.hosts[h].tree.behavior().clone();
        match program {
            Program::Command { term } => self.note(h, || format!("    command of term {term} starts: {behavior:?}")),
            Program::OnElected { .. } | Program::OnOusted { .. } | Program::Follower => {
                self.note(h, || format!("    {program:?} starts: {behavior:?}"));
            }
        }
    }

    /// A run without a command: a stand-in without a process id, which ends when the tree is stopped.
    pub(super) fn begin_idle_run(&mut self, h: usize, program: Program, run: RunId) {
        let Some(term) = program.deadline_term() else { return };
        self.follower_on_spawn(h, program);
        self.check_birth(h, term);
        let host = &mut self.hosts[h];
        host.tree = Tree::forked(self.now, Some(program), run, 0, ProcessBehavior::nothing());
        host.tree.disturbed = !host.campaigner.is_running();
        host.tree.exec_is_read = true;
        host.tree.execute(self.now, 0, &mut self.rng, &mut host.next_pid);
        // A --min-hold counts from the start of a command, so there is none here.
        self.coverage.count(Seen::LedWithoutCommand);
    }

    fn fork_hook(&mut self, h: usize) -> KeeperEvent {
        let host = &self.hosts[h];
        let (timeout, stop_timeout) = (host.restart_check.policy.hooks.timeout, host.stop_timeout);
        let behavior = if self.quiet {
            ProcessBehavior { lifetime: Some(ms(20)), ..ProcessBehavior::calm() }
        } else {
            ProcessBehavior::hook(&mut self.rng, timeout, stop_timeout)
        };
        if behavior.fails && self.rng.percent(30) {
            return KeeperEvent::NotSpawned { errno: EAGAIN };
        }
        let status = u8::from(self.rng.percent(15));
        let host = &mut self.hosts[h];
        host.next_pid += 1;
        let pid = host.next_pid;
        host.hooks.retain(Tree::has_children);
        let mut hook = Tree::forked(self.now, None, 0, pid, behavior);
        let init = host.new_init();
        if let Some(init) = init {
            hook.add_init(init);
        }
        host.hooks.push(hook);
        let at = self.now + self.exec_delay(h);
        self.push(at, SimEvent::Exec(h, pid, status));
        KeeperEvent::Spawned { pid, init }
    }

    fn exec_hook(&mut self, h: usize, index: usize, status: u8) {
        let now = self.now;
        let host = &mut self.hosts[h];
        let hook = &mut host.hooks[index];
        match hook.exec {
            ExecProgress::Executed | ExecProgress::Refused(_) => {}
            ExecProgress::Forked { .. } if hook.is_killed_before_exec() || !hook.main_is_alive() => {}
            ExecProgress::Forked { is_signalled: true } => hook.die_before_exec(now),
            ExecProgress::Forked { is_signalled: false } if hook.fails() => {
                hook.refuse(NotStarted::Failed(ENOENT), now + ms(1));
            }
            ExecProgress::Forked { is_signalled: false } => {
                hook.execute(now, status, &mut self.rng, &mut host.next_pid);
            }
        }
    }

    fn kill_hook(&mut self, h: usize, main: i32) {
        let now = self.now;
        self.coverage.count(Seen::HookTimedOut);
        if let Some(hook) = self.hosts[h].hooks.iter_mut().find(|hook| hook.is_led_by(main)) {
            let _ = hook.kill(now, ALL, SimTier::Tree, &mut self.rng);
            self.expect_death(h);
        } else {
            self.violate("K6: SIGKILL was sent to the id of a hook that was reaped", h);
        }
    }

    // ---- signals and death

    fn signal_group(&mut self, h: usize, main: i32, signal: Signal) {
        if !self.is_own_pid(h, main) {
            self.violate("K6: a signal was sent to the group of a process that was reaped", h);
            return;
        }
        if signal != SIGKILL {
            return self.signal_stop(h, main, Reach::Group);
        }
        let now = self.now;
        if self.hosts[h].tree.is_led_by(main) {
            self.note_kill(h);
        }
        let host = &mut self.hosts[h];
        let tier = host.tier;
        if let Some(tree) = host.trees().find(|tree| tree.is_led_by(main)) {
            let _ = tree.kill(now, Reach::Group, tier, &mut self.rng);
        }
        self.expect_death(h);
    }

    /// The stop signal to a main process, or to its group.
    fn signal_stop(&mut self, h: usize, main: i32, reach: Reach) {
        if self.hosts[h].tree.is_led_by(main) {
            self.note_stop(h);
        }
        let now = self.now;
        if let Some(tree) = self.hosts[h].trees().find(|tree| tree.is_led_by(main)) {
            tree.stop(now, reach);
        }
        self.expect_death(h);
    }

    /// The processes that live, without those of a hook and of a check.
    fn list_processes(&self, h: usize, except: [Option<i32>; 2]) -> ProcessList {
        let host = &self.hosts[h];
        let is_listed = |hook: &&Tree| !except.into_iter().flatten().any(|main| hook.is_led_by(main));
        let beside = host.hooks.iter().chain(&host.checks).filter(is_listed);
        let mut processes = ProcessList::default();
        for pid in std::iter::once(&host.tree).chain(beside).flat_map(Tree::living).filter(|pid| *pid > 0) {
            processes.add(pid, || *b"process\0\0\0\0\0\0\0\0\0");
        }
        processes
    }

    /// 6: each process has had the stop signal, and some time, before the time after it is over.
    fn check_stop_timeout(&mut self, h: usize) {
        let host = &self.hosts[h];
        let (tree, reference) = (&host.tree, &host.reference);
        let now = host.clock.at(self.now);
        let running_out = tree.is_governed() && reference.lease.is_none_or(|lease| now >= lease.stop_by);
        let asked = tree.stopped.or(tree.ended_first);
        let is_late = asked.is_none_or(|at| self.now < at + host.stop_timeout * 9 / 10);
        // What is forked during the campaigner's sweep lives only until the keeper's.
        let is_swept = std::iter::once(tree).chain(&host.hooks).any(|tree| tree.killed.is_some());
        if is_swept || tree.disturbed || reference.lost || reference.stopped_twice || running_out || is_late {
            return;
        }
        self.coverage.count(Seen::StopTimedOut);
        // With --stop-to group those that have left the group wait until the keeper has learned of the end of the main process.
        let host = &self.hosts[h];
        let tree = &host.tree;
        let is_for_all = host.keeper.machine.stop_to() == StopTo::Main || tree.main_is_reaped();
        // A check gets no stop signal.
        let mut asked = std::iter::once(tree).chain(&host.hooks);
        if is_for_all && asked.any(Tree::has_unsignalled) {
            self.violate("6: a process was killed that had not got the stop signal before", h);
        }
    }

    fn stop_tree(&mut self, h: usize, recipients: Recipients) {
        self.note_stop(h);
        let (now, reach) = (self.now, Reach::of(recipients));
        let spares = |tree: &Tree| matches!(recipients, Recipients::Beside(main) if tree.is_led_by(main));
        for tree in self.hosts[h].trees().filter(|tree| !spares(tree)) {
            tree.stop(now, reach);
            // SIGCONT follows.
            tree.resume(now);
        }
        self.expect_death(h);
    }

    fn note_stop(&mut self, h: usize) {
        let tree = &self.hosts[h].tree;
        if tree.stopped.is_none() && tree.killed.is_none() && tree.has_processes() {
            self.note(h, || "    command gets the stop signal".into());
            if !self.quiet && !self.rng.punctual && self.rng.percent(3) {
                let at = self.now + self.rng.between(ms(0), ms(100));
                self.push(at, SimEvent::Fault(Fault::Suspend(h)));
            }
        }
    }

    /// SIGKILL to every process, whichever process sends it. Returns whether all of them are dying.
    pub(super) fn kill_tree(&mut self, h: usize) -> bool {
        self.note_kill(h);
        let mut is_complete = true;
        let Simulation { hosts, rng, now, coverage, .. } = self;
        let host = &mut hosts[h];
        let SimHost { tree, hooks, checks, next_pid, tier, .. } = host;
        for tree in std::iter::once(tree).chain(hooks).chain(checks) {
            let obstacles = tree.kill(*now, ALL, *tier, rng);
            if obstacles.forked {
                *next_pid += 1;
                tree.fork(*next_pid);
                coverage.count(Seen::ForkedDuringSweep);
            }
            if obstacles.refused {
                coverage.count(if *tier == SimTier::Cgroup { Seen::KilledByCgroup } else { Seen::KillRefused });
            }
            is_complete &= !obstacles.forked && (!obstacles.refused || *tier == SimTier::Cgroup);
        }
        if host.leaf_until.is_some() {
            host.leaf_until = Some(*now);
            self.push(self.now, SimEvent::LeafEmpty(h));
        }
        self.expect_death(h);
        is_complete
    }

    /// Sweeps until nothing more is found that can be killed.
    pub(super) fn kill_all(&mut self, h: usize) {
        while !self.kill_tree(h) && self.hosts[h].trees().any(|tree| tree.may_fork()) {}
    }

    fn note_kill(&mut self, h: usize) {
        let tree = &self.hosts[h].tree;
        if !tree.has_processes() || tree.killed.is_some() {
            return;
        }
        self.check_kill(h);
        self.note(h, || "    command killed".into());
        let tree = &self.hosts[h].tree;
        if tree.stopped.is_some() {
            let follows = tree.program == Some(Program::Follower);
            self.coverage.count(if follows { Seen::FollowerEscalated } else { Seen::Escalated });
        }
    }

    pub(super) fn expect_death(&mut self, h: usize) {
        let host = &mut self.hosts[h];
        let at = host.trees().map(|tree| tree.next_death()).min().unwrap_or(std::time::Duration::MAX);
        if at != std::time::Duration::MAX && host.death_at.is_none_or(|planned| at < planned || planned < self.now) {
            host.death_at = Some(at);
            self.push(at.max(self.now), SimEvent::Death(h));
        }
    }

    pub(super) fn death(&mut self, h: usize) {
        let now = self.now;
        let host = &mut self.hosts[h];
        host.death_at = None;
        let mut any = false;
        for tree in host.trees() {
            any |= tree.bury(now);
        }
        self.populate_leaf(h);
        self.expect_death(h);
        if any {
            self.run_keeper(h);
            self.host_changed(h);
        }
    }

    /// Now and then a process that is no descendant is in the command's cgroup when the last descendant ends.
    fn populate_leaf(&mut self, h: usize) {
        let host = &self.hosts[h];
        let last = host.tier == SimTier::Cgroup && host.tree.exec == ExecProgress::Executed;
        if last && host.tree.has_children() && !host.tree.has_processes() && !self.quiet && self.rng.percent(10) {
            let until = self.now + self.rng.between(ms(1), self.setup.ttl);
            self.hosts[h].leaf_until = Some(until);
            self.coverage.count(Seen::LeafPopulated);
            self.push(until, SimEvent::LeafEmpty(h));
        }
    }

    pub(super) fn leaf_empties(&mut self, h: usize) {
        let host = &mut self.hosts[h];
        if host.leaf_until.take_if(|until| *until <= self.now).is_some() {
            self.run_keeper(h);
            self.host_changed(h);
        }
    }

    // ---- the end of the keeper

    fn end_keeper(&mut self, h: usize, releases: bool) {
        let is_left_to_lease = !releases && self.hosts[h].campaigner_was_killed;
        self.hosts[h].keeper.state = ProcessState::Dead;
        if releases {
            self.restarts_on_keeper_death(h);
            self.follower_on_keeper_death(h);
            self.note(h, || "    keeper releases".into());
            if self.hosts[h].has_descendants() {
                self.violate("2.3: a keeper released while the tree was alive", h);
            }
            let lock = matches!(self.store, Store::Lock(_)) || self.rng.punctual;
            let at = if lock { self.now } else { self.now + self.rng.between(ms(0), ms(30)) };
            self.push(at, SimEvent::KeeperReleases(h));
        } else if is_left_to_lease {
            self.coverage.count(Seen::KeeperLeftTheHoldToTheLease);
        }
        self.host_changed(h);
    }

    /// The program that the keeper has become sends the release, unless it is killed before; then the lease runs out.
    pub(super) fn send_keeper_release(&mut self, h: usize) {
        if !matches!(self.store, Store::Lock(_)) && !self.quiet && self.rng.percent(3) {
            self.coverage.count(Seen::KeeperReleaseKilled);
            return;
        }
        let request = self.hosts[h].client.keeper_release();
        self.send(h, None, 0, request);
    }
}
