//! Starts a program as a tree: the command, the hook before it, the hook after it, or the follower. One at a time.

use std::time::Duration;

use super::mutation::KeeperMutation;
use super::tree::{CommandTree, MainProcess, Stop};
use super::{CampaignerState, ClaimHold, EBUSY, ENOENT, IdentitySource, KeeperAction, KeeperMachine};
use crate::{BackgroundHookEnd, CheckEnd, CheckNumber, CommandEnd, FromKeeper, NotStarted, Program, RunId, Time};

/// The spawn whose result is the next event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AwaitedSpawn {
    Program(Program),
    Hook,
    Check(CheckNumber),
}

impl KeeperMachine {
    pub(super) fn start(&mut self, now: Time, program: Program, run: RunId) {
        self.is_empty_awaited = false;
        if !self.tree.is_empty() {
            // Two trees never exist at once. The campaigner learns of its mistake; a later `Empty` confirms this order.
            self.last_ordered_run = run;
            self.send(FromKeeper::NotStarted { run, why: NotStarted::Failed(EBUSY) });
            return;
        }
        match program {
            Program::Command { term } | Program::OnElected { term } => {
                self.pending_ousted_hook = Some(term);
                self.act(KeeperAction::KeepIdentity);
            }
            // The hook runs once, even if the campaigner ordered it.
            Program::OnOusted { .. } if !self.mutated(KeeperMutation::RunsOustedHookAgain) => {
                self.pending_ousted_hook = None;
            }
            Program::OnOusted { .. } | Program::Follower => {}
        }
        self.start_run(now, program, run, IdentitySource::Order);
    }

    /// Starts a program over an empty tree.
    fn start_run(&mut self, now: Time, program: Program, run: RunId, identity: IdentitySource) {
        (self.run, self.last_ordered_run) = (run, run);
        self.pending_signals.clear();
        let Some(kill_by) = self.deadline_for(now, program) else { return self.refuse(NotStarted::TooLate) };
        match program {
            Program::Command { .. } if !self.policy.has_command => {
                self.send(FromKeeper::NoCommand { run });
                self.grow_tree(now, program, MainProcess::Nothing, None);
                self.adopt_finished_hook();
                self.check_leftovers = None;
            }
            Program::OnElected { .. } if !self.policy.hooks.on_elected => self.refuse(NotStarted::Failed(ENOENT)),
            Program::OnOusted { .. } if !self.policy.hooks.on_ousted => self.refuse(NotStarted::Failed(ENOENT)),
            Program::Follower if !self.policy.has_follower => self.refuse(NotStarted::Failed(ENOENT)),
            Program::Command { .. } | Program::OnElected { .. } | Program::OnOusted { .. } | Program::Follower => {
                // K9: a follower that held the lock would keep it from the leader.
                let holds_lock = !matches!(program, Program::Follower);
                self.awaited_spawn = Some(AwaitedSpawn::Program(program));
                self.act(KeeperAction::Spawn { program, kill_by, holds_lock, identity });
            }
        }
    }

    /// K5: the first look at the deadline; the child looks again immediately before exec. `None`: it has passed, or is
    /// that of another term.
    fn deadline_for(&self, now: Time, program: Program) -> Option<Time> {
        let Some(term) = program.deadline_term().filter(|_| !self.mutated(KeeperMutation::StartsTooLate)) else {
            return Some(Time::NEVER);
        };
        let armed = self.deadline.filter(|deadline| deadline.term == term && now < deadline.kill_by);
        armed.map(|deadline| deadline.kill_by)
    }

    /// A start that has not forked a child.
    fn refuse(&mut self, why: NotStarted) {
        let run = self.run;
        self.send(FromKeeper::NotStarted { run, why });
        // K6: with a background hook or a health check the tree is not empty; the campaigner must stop it explicitly.
        let is_alone = !self.has_processes();
        self.send(if is_alone { FromKeeper::Empty { run } } else { FromKeeper::Cleared { run } });
    }

    fn grow_tree(&mut self, now: Time, program: Program, main: MainProcess, init: Option<i32>) {
        let timeout = match program {
            Program::OnElected { .. } | Program::OnOusted { .. } => self.policy.hooks.timeout,
            Program::Command { .. } | Program::Follower => Duration::MAX,
        };
        let (group, until) = (main.pid().unwrap_or_default(), now + timeout);
        self.tree = CommandTree::Alive { program: Some(program), main, group, stop: Stop::NotRequested, init, until };
    }

    pub(super) fn on_spawned(&mut self, now: Time, pid: i32, init: Option<i32>) {
        match self.awaited_spawn.take() {
            Some(AwaitedSpawn::Program(program)) => self.grow_tree(now, program, MainProcess::Starting(pid), init),
            Some(AwaitedSpawn::Hook) => self.grow_hook(now, pid, init),
            Some(AwaitedSpawn::Check(check)) => self.grow_check(now, check, pid),
            None => debug_assert!(false, "nothing was spawned"),
        }
    }

    pub(super) fn on_not_spawned(&mut self, now: Time, errno: i32) {
        match self.awaited_spawn.take() {
            Some(AwaitedSpawn::Program(_)) => {
                self.refuse(NotStarted::Failed(errno));
                // K2: without a campaigner this was the last hook, and nothing else keeps the keeper.
                self.finish(now);
            }
            Some(AwaitedSpawn::Hook) => {
                self.send(FromKeeper::BackgroundHookEnded(BackgroundHookEnd::Failed(errno)));
            }
            Some(AwaitedSpawn::Check(check)) => {
                self.send(FromKeeper::CheckEnded { check, end: CheckEnd::Failed(errno) });
            }
            None => debug_assert!(false, "nothing was spawned"),
        }
    }

    pub(super) fn on_executed(&mut self, now: Time) {
        let CommandTree::Alive { program, main, .. } = &mut self.tree else { return };
        let MainProcess::Starting(pid) = *main else { return };
        *main = MainProcess::Running(pid);
        if let Some(Program::Command { term }) = *program
            && self.hold.is_none_or(|hold| hold.term != term)
        {
            self.hold = Some(ClaimHold { term, until: now + self.policy.min_hold });
        }
        self.send(FromKeeper::Started { run: self.run, pid });
        // Leftovers of an earlier hook or check belong to this tree from now on.
        self.adopt_finished_hook();
        self.check_leftovers = None;
        for signal in std::mem::take(&mut self.pending_signals) {
            self.act(KeeperAction::SignalProcess { pid, signal });
        }
    }

    /// The child that reported the failure ends by itself, and is reaped without being the main process.
    pub(super) fn on_not_executed(&mut self, why: NotStarted) {
        let CommandTree::Alive { main, init, .. } = &mut self.tree else { return };
        let MainProcess::Starting(pid) = *main else { return };
        *main = MainProcess::Refused(Some(pid));
        let init = *init;
        self.pending_signals.clear();
        self.dismiss_init(init);
        self.send(FromKeeper::NotStarted { run: self.run, why });
        self.take_terminal_back(CommandEnd::Exited(127), true);
        if self.mutated(KeeperMutation::ClearsTooEarly) {
            self.forget_refused_child();
        }
    }

    pub(super) fn dismiss_init(&mut self, init: Option<i32>) {
        if let Some(init) = init {
            self.act(KeeperAction::DismissInit { init });
        }
    }

    /// K2: with the campaigner gone and the tree empty, the keeper runs the last hook itself. Returns whether it is
    /// being started.
    pub(super) fn run_ousted_hook(&mut self, now: Time) -> bool {
        let Some(term) = self.pending_ousted_hook.take() else { return false };
        let is_due = self.campaigner == CampaignerState::Gone && self.policy.hooks.on_ousted;
        if !is_due || self.mutated(KeeperMutation::ForgetsOustedHook) {
            return false;
        }
        self.start_run(now, Program::OnOusted { term }, self.run + 1, IdentitySource::Kept);
        true
    }
}
