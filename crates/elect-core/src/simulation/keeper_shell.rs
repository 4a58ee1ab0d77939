//! The keeper's shell in the model: what `KeeperLoop` does around the real [`KeeperMachine`], step by step.
//!
//! A keeper that is stopped or killed stops or dies between two steps: a message read, an action performed, a child
//! reaped. The steps of a round are those of the machine's header.

use std::collections::VecDeque;
use std::hash::Hash;
use std::mem::discriminant;
use std::time::Duration;

use super::super::time::Time;
use super::clock::ms;
use super::command::ExecProgress;
use super::coverage::Seen;
use super::faults::Fault;
use super::host::{Delivery, ProcessState};
use super::mutations::InjectedMutation;
use super::run::{SimEvent, Simulation};
use super::states::{StateHasher, hash_message};
use crate::KILL_ALLOWANCE;
use crate::{BackgroundHookEnd, FromKeeper, KeeperEvent, KeeperMachine, KeeperOrder, NotStarted, Term};

/// Messages handled in one round.
const BATCH: u32 = 64;

/// A message of the campaigner to its keeper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ModelMessage {
    Order(KeeperOrder),
    /// A deadline of the past.
    Stray {
        term: Term,
        kill_by: Time,
    },
    /// End of file: the campaigner is gone.
    End,
}

/// The next step of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Deadlines,
    Messages { left: u32 },
    ExecStatus,
    Children,
    Terminal,
    Outbox,
    End,
}

/// A fault of a process in the middle of its work.
#[derive(Debug, Clone, Copy)]
pub(super) struct Strike {
    /// Its number in the history.
    pub number: usize,
    pub steps: u32,
    pub fault: StruckProcess,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum StruckProcess {
    Killed,
    StoppedFor(Duration),
}

#[derive(Debug)]
pub(super) struct KeeperProcess {
    pub state: ProcessState,
    pub machine: KeeperMachine,
    /// The messages in the socket.
    pub inbox: VecDeque<ModelMessage>,
    step: Step,
    /// The result of the last action, which the machine has not been told yet.
    result: Option<KeeperEvent>,
    /// Whether it kills a crowd, and has no time for anything else.
    pub is_busy: bool,
    /// A fault that strikes after so many steps.
    pub strike: Option<Strike>,
    /// The time that the timer is set to, and the number of that setting.
    due: Time,
    timer: u64,
    pub stopped_for_good: bool,
    /// Deadlines of the past, one of which may stray in again.
    pub heard: Vec<(Term, Time)>,
    /// The check whose end the machine has been told of, before it is reaped.
    pub ending_check: Option<i32>,
}

impl KeeperProcess {
    pub(super) fn new(now: Duration, machine: KeeperMachine) -> KeeperProcess {
        KeeperProcess {
            state: ProcessState::Running { since: now },
            machine,
            inbox: VecDeque::new(),
            step: Step::Deadlines,
            result: None,
            is_busy: false,
            strike: None,
            due: Time::NEVER,
            timer: 0,
            stopped_for_good: false,
            heard: Vec::new(),
            ending_check: None,
        }
    }

    /// The state of the shell, without that of the machine.
    pub(super) fn hash_state(&self, state: &mut StateHasher) {
        (discriminant(&self.step), self.is_busy, self.result.is_some(), self.inbox.len()).hash(state);
        for message in &self.inbox {
            hash_message(message, state);
        }
    }
}

impl Simulation {
    /// Over the socket, which keeps the order and loses nothing.
    pub(super) fn tell_keeper(&mut self, h: usize, message: ModelMessage) {
        let host = &mut self.hosts[h];
        let is_full = host.keeper.state == ProcessState::Stopped && host.keeper.inbox.len() >= host.socket_room;
        if message != ModelMessage::End && (is_full || !host.outbox.is_empty()) {
            host.outbox.push_back(message);
            self.coverage.count(Seen::SocketFullToKeeper);
            return;
        }
        let at = self.now + self.rng.between(ms(0), ms(2));
        let host = &mut self.hosts[h];
        host.to_keeper_at = host.to_keeper_at.max(at);
        let at = host.to_keeper_at;
        self.push(at, SimEvent::ModelMessage(h, message));
    }

    /// The keeper reads again: a campaigner that runs sends what found no room.
    pub(super) fn flush_to_keeper(&mut self, h: usize) {
        if self.hosts[h].keeper.state.is_running() && self.hosts[h].campaigner.is_running() {
            for message in std::mem::take(&mut self.hosts[h].outbox) {
                self.tell_keeper(h, message);
            }
        }
    }

    pub(super) fn order_keeper(&mut self, h: usize, order: KeeperOrder) {
        if let KeeperOrder::Start { .. } = order {
            self.hosts[h].reference.kill_ordered = None;
        } else if let KeeperOrder::Stop { kill_at } = order {
            self.hosts[h].reference.kill_ordered = Some(kill_at);
        }
        self.tell_keeper(h, ModelMessage::Order(order));
    }

    pub(super) fn keeper_hears(&mut self, h: usize, message: ModelMessage) {
        if self.hosts[h].keeper.state != ProcessState::Dead {
            self.hosts[h].keeper.inbox.push_back(message);
            self.run_keeper(h);
        }
    }

    pub(super) fn keeper_timer(&mut self, h: usize, generation: u64) {
        let keeper = &mut self.hosts[h].keeper;
        if keeper.timer == generation {
            keeper.due = Time::NEVER;
            self.run_keeper(h);
        }
    }

    pub(super) fn stop_keeper(&mut self, h: usize) {
        self.note(h, || "keeper stopped".into());
        self.coverage.count(Seen::KeeperStopped);
        self.hosts[h].keeper.state = ProcessState::Stopped;
        self.hosts[h].tree.disturbed = true;
    }

    pub(super) fn continue_keeper(&mut self, h: usize) {
        if self.hosts[h].keeper.state != ProcessState::Stopped {
            return;
        }
        self.note(h, || "keeper continued".into());
        self.coverage.count(Seen::KeeperContinued);
        let keeper = &mut self.hosts[h].keeper;
        keeper.state = ProcessState::Running { since: self.now };
        // The timer may have gone off meanwhile.
        keeper.due = Time::NEVER;
        // The round that was interrupted, and the next, for what has come since.
        self.run_keeper(h);
        self.run_keeper(h);
        self.flush_to_keeper(h);
    }

    /// A round of a keeper that something has woken.
    pub(super) fn run_keeper(&mut self, h: usize) {
        while self.hosts[h].keeper.state.is_running() && !self.hosts[h].keeper.is_busy && self.violation.is_none() {
            let keeper = &mut self.hosts[h].keeper;
            let sleeps = if let Some(result) = keeper.result.take() {
                self.observe(h, result);
                false
            } else if let Some(action) = keeper.machine.next_action() {
                self.hosts[h].keeper.result = self.perform_keeper_action(h, action);
                false
            } else {
                self.take_step(h)
            };
            self.strike_keeper_between_steps(h);
            if sleeps {
                break;
            }
        }
    }

    /// Counts a step, and strikes if that was the last one before a fault. Campaigner and keeper are never out of action
    /// at once.
    fn strike_keeper_between_steps(&mut self, h: usize) {
        let host = &mut self.hosts[h];
        let Some(strike) = &mut host.keeper.strike else { return };
        self.strikes[strike.number].get_or_insert(self.now);
        strike.steps = strike.steps.saturating_sub(1);
        if strike.steps > 0 || !host.keeper.state.is_running() {
            return;
        }
        let fault = host.keeper.strike.take().map(|strike| strike.fault);
        if !host.campaigner.is_running() || self.quiet {
            // 2.2, in an exploration; by chance it was only the wrong moment.
            self.is_uncovered |= self.setup.settles_from.is_some() && host.campaigner_is_out_of_action();
            return;
        }
        match fault {
            Some(StruckProcess::Killed) => {
                self.coverage.count(Seen::KeeperKilledBetweenSteps);
                self.kill_keeper(h);
            }
            Some(StruckProcess::StoppedFor(length)) => {
                self.coverage.count(Seen::KeeperStoppedBetweenSteps);
                self.stop_keeper(h);
                self.push(self.now + length, SimEvent::Fault(Fault::ContinueKeeper(h)));
            }
            None => {}
        }
    }

    pub(super) fn observe(&mut self, h: usize, event: KeeperEvent) {
        let host = &mut self.hosts[h];
        let had_tree = host.keeper.machine.has_tree();
        host.keeper.machine.handle(host.clock.at(self.now), event);
        // The time-outs of a program count from the moment at which the keeper knows of it.
        if let KeeperEvent::Spawned { pid, .. } = event
            && let Some(tree) = host.trees().find(|tree| tree.main_pid() == Some(pid))
        {
            tree.born_at = self.now;
        }
        if had_tree && !host.keeper.machine.has_tree() {
            host.alone_since = self.now;
        }
        let has_processes = host.tree.has_processes() || host.leaf_until.is_some();
        let machine = &host.keeper.machine;
        if !machine.has_tree() && has_processes {
            self.violate("K6: a tree was taken for empty although a process of it lived", h);
        } else if !machine.has_processes() && host.has_descendants() {
            self.violate("K6: no hook was left in the keeper's eyes although a process of one lived", h);
        }
        self.judge_stuck_check(h, event);
    }

    /// Takes the next step of the round. Returns whether the keeper sleeps now.
    fn take_step(&mut self, h: usize) -> bool {
        match self.hosts[h].keeper.step {
            Step::Deadlines => {
                self.observe(h, KeeperEvent::RoundBegins);
                self.hosts[h].keeper.step = Step::Messages { left: BATCH };
            }
            Step::Messages { left } => self.read_message(h, left),
            Step::ExecStatus => {
                self.hosts[h].keeper.step = Step::Children;
                self.read_exec_status(h);
            }
            Step::Children => {
                if !self.reap_child(h) {
                    self.hosts[h].keeper.step = Step::Terminal;
                }
            }
            Step::Terminal => {
                self.hosts[h].keeper.step = Step::Outbox;
                if self.hosts[h].keeper.machine.process_at_terminal().is_some() {
                    let stopped_by = self.hosts[h].tree.take_stop_signal();
                    self.observe(h, KeeperEvent::TerminalChecked { stopped_by });
                }
            }
            Step::Outbox => self.send_message(h),
            Step::End => {
                self.hosts[h].keeper.step = Step::Deadlines;
                self.observe(h, KeeperEvent::RoundEnds);
                self.check_deadline(h);
                self.check_early_signals(h);
                self.set_keeper_timer(h);
                // The last actions, the end among them, belong to this round.
                return !self.hosts[h].keeper.machine.has_actions();
            }
        }
        false
    }

    fn read_message(&mut self, h: usize, left: u32) {
        let keeper = &mut self.hosts[h].keeper;
        let message = (left > 0 && keeper.machine.has_campaigner()).then(|| keeper.inbox.pop_front()).flatten();
        keeper.step = if message.is_some() { Step::Messages { left: left - 1 } } else { Step::ExecStatus };
        match message {
            Some(ModelMessage::Order(order)) => self.obey(h, order),
            // Over an empty tree any term may be armed: there it would be a new one.
            Some(ModelMessage::Stray { term, kill_by }) => {
                let known = keeper.machine.deadline().is_some_and(|(of, _)| of == term);
                if keeper.machine.has_tree() || known {
                    let before = keeper.machine.deadline();
                    self.observe(h, KeeperEvent::Order(KeeperOrder::Arm { term, kill_by }));
                    if self.hosts[h].keeper.machine.deadline() == before {
                        self.coverage.count(Seen::StrayArm);
                    }
                }
            }
            Some(ModelMessage::End) => self.observe(h, KeeperEvent::CampaignerGone),
            None => {}
        }
    }

    fn obey(&mut self, h: usize, order: KeeperOrder) {
        if let KeeperOrder::Start { .. } = order
            && self.hosts[h].keeper.machine.has_tree()
        {
            self.violate("K5, 2.3: a start was ordered before the tree of the last one was confirmed empty", h);
        }
        if let (KeeperOrder::Forward(signal), Some(_)) = (order, self.hosts[h].keeper.machine.starting_child()) {
            self.coverage.count(Seen::ForwardedEarly);
            self.hosts[h].early_signals.push(signal);
        }
        self.observe(h, KeeperEvent::Order(order));
        if let KeeperOrder::Start { program, run } = order
            && self.hosts[h].keeper.machine.runs_nothing()
        {
            self.begin_idle_run(h, program, run);
        }
    }

    fn read_exec_status(&mut self, h: usize) {
        let host = &mut self.hosts[h];
        let tree = &mut host.tree;
        if tree.exec_is_read || host.keeper.machine.starting_child() != tree.main_pid() {
            return;
        }
        let as_started = self.injected_mutation == Some(InjectedMutation::DeadChildStarted);
        let event = match tree.exec {
            ExecProgress::Executed => KeeperEvent::Executed,
            ExecProgress::Forked { .. } if !tree.main_is_alive() && as_started => KeeperEvent::Executed,
            ExecProgress::Refused(why) => KeeperEvent::NotExecuted(why),
            // The pipe is closed by the death of a child that has not executed.
            ExecProgress::Forked { .. } if !tree.main_is_alive() => {
                KeeperEvent::NotExecuted(NotStarted::Failed(ECANCELED))
            }
            ExecProgress::Forked { .. } => return,
        };
        tree.exec_is_read = true;
        self.observe(h, event);
    }

    /// Reaps a child, or finds that there is none. Returns whether there may be more.
    fn reap_child(&mut self, h: usize) -> bool {
        let host = &self.hosts[h];
        if let Some(main) = host.keeper.machine.check_pid()
            && host.checks.iter().any(|check| check.main_pid() == Some(main) && check.main_is_zombie())
            && host.keeper.ending_check != Some(main)
        {
            self.check_ends(h, main);
            return true;
        }
        let zombie = self.hosts[h].trees().find_map(super::command::Tree::reap);
        if let Some((pid, end)) = zombie {
            let host = &self.hosts[h];
            if host.keeper.machine.starting_child() == Some(pid) {
                self.read_exec_status(h);
            }
            self.count_end(h, pid);
            self.observe(h, KeeperEvent::ChildEnded { pid, end });
            return true;
        }
        if self.hosts[h].trees().any(|tree| tree.has_children()) {
            self.look_past_stuck_check(h);
        } else {
            let is_cgroup_populated = self.hosts[h].leaf_until.is_some();
            self.observe(h, KeeperEvent::NoChildren { is_cgroup_populated });
        }
        false
    }

    fn count_end(&mut self, h: usize, pid: i32) {
        let tree = &self.hosts[h].tree;
        if tree.main_pid() == Some(pid) && tree.exec == ExecProgress::Executed {
            if tree.ended_first.is_some() {
                self.coverage.count(Seen::EndedItself);
            }
            if self.hosts[h].tree.is_alive() {
                self.coverage.count(Seen::LeftDescendants);
            }
        }
        let leads = |hook: &&super::command::Tree| hook.main_pid() == Some(pid);
        if let Some(hook) = self.hosts[h].hooks.iter().find(leads)
            && hook.has_processes()
        {
            let has_tree = self.hosts[h].keeper.machine.has_tree();
            self.coverage.count(if has_tree { Seen::HookLeftovers } else { Seen::HookLeftoversAlone });
        }
    }

    fn send_message(&mut self, h: usize) {
        let Some(&message) = self.hosts[h].keeper.machine.next_message() else {
            self.hosts[h].keeper.step = Step::End;
            return;
        };
        if self.hosts[h].campaigner == ProcessState::Dead {
            self.observe(h, KeeperEvent::ConnectionClosed);
            return;
        }
        let host = &self.hosts[h];
        if host.campaigner == ProcessState::Stopped && host.unread_keeper_messages() >= host.socket_room {
            self.coverage.count(Seen::SocketFullToCampaigner);
            self.hosts[h].keeper.step = Step::End;
            return;
        }
        self.judge_message(h, message);
        self.send_to_campaigner(h, message);
        self.observe(h, KeeperEvent::MessageSent);
    }

    pub(super) fn send_to_campaigner(&mut self, h: usize, message: FromKeeper) {
        let at = self.now + self.rng.between(ms(0), ms(2));
        let host = &mut self.hosts[h];
        host.from_keeper_at = host.from_keeper_at.max(at);
        let at = host.from_keeper_at;
        self.schedule_delivery(h, at, Delivery::Keeper(message));
    }

    /// Counts a message, and compares it with the truth.
    fn judge_message(&mut self, h: usize, message: FromKeeper) {
        match message {
            FromKeeper::Empty { .. } => {
                self.note(h, || "    tree empty".into());
            }
            FromKeeper::Cleared { .. } => self.coverage.count(Seen::Cleared),
            FromKeeper::Started { pid, .. } => {
                let tree = &self.hosts[h].tree;
                if tree.main_pid() == Some(pid) && tree.exec != ExecProgress::Executed {
                    self.violate("K5: a child that did not execute was reported as started", h);
                }
            }
            FromKeeper::Expired { .. } => self.coverage.count(Seen::KeeperExpired),
            FromKeeper::NotStarted { why: NotStarted::TooLate, .. } => {
                self.coverage.count(Seen::TooLate);
                self.hosts[h].reference.too_late_before = true;
            }
            FromKeeper::NotStarted { why: NotStarted::Failed(_), .. } => self.coverage.count(Seen::CannotStart),
            FromKeeper::BackgroundHookEnded(BackgroundHookEnd::NotNow) => self.coverage.count(Seen::HookNotNow),
            FromKeeper::BackgroundHookEnded(BackgroundHookEnd::Failed(_)) => self.coverage.count(Seen::HookCannotStart),
            FromKeeper::Armed { .. }
            | FromKeeper::Pong
            | FromKeeper::Progress
            | FromKeeper::AllKilled
            | FromKeeper::NoCommand { .. }
            | FromKeeper::Exited { .. }
            | FromKeeper::LeftBehind { .. }
            | FromKeeper::StopTimedOut { .. }
            | FromKeeper::Terminal(_)
            | FromKeeper::BackgroundHookEnded(BackgroundHookEnd::Ended(_)) => {}
            FromKeeper::CheckEnded { end, .. } => self.count_check_end(end),
        }
    }

    /// A signal that was forwarded before exec has reached the program.
    fn check_early_signals(&mut self, h: usize) {
        let host = &mut self.hosts[h];
        if host.keeper.machine.starting_child().is_some() {
            return;
        }
        let is_lost = !std::mem::take(&mut host.early_signals).is_empty();
        if is_lost && host.tree.exec == ExecProgress::Executed && host.tree.exec_is_read && host.tree.main_is_alive() {
            self.violate("6: a signal that was forwarded before exec was lost", h);
        }
    }

    /// Kills so many processes that this takes its whole time for a while, and reports its progress (K4).
    pub(super) fn kill_crowd(&mut self, h: usize) {
        self.coverage.count(Seen::CrowdKilled);
        self.hosts[h].keeper.is_busy = true;
        let length = self.rng.between(ms(100), KILL_ALLOWANCE.saturating_sub(ms(20)));
        let mut at = ms(50);
        while at < length {
            self.push(self.now + at, SimEvent::KeeperProgress(h));
            at += ms(50);
        }
        self.push(self.now + length, SimEvent::CrowdKilled(h));
    }

    pub(super) fn report_progress(&mut self, h: usize, message: FromKeeper) {
        let host = &self.hosts[h];
        if !host.keeper.state.is_running() || host.campaigner == ProcessState::Dead {
            return;
        }
        if host.campaigner == ProcessState::Stopped && host.unread_keeper_messages() >= host.socket_room {
            self.coverage.count(Seen::ProgressDropped);
            return;
        }
        self.send_to_campaigner(h, message);
    }

    pub(super) fn crowd_is_killed(&mut self, h: usize) {
        if std::mem::take(&mut self.hosts[h].keeper.is_busy) {
            self.report_progress(h, FromKeeper::AllKilled);
            self.run_keeper(h);
        }
    }

    fn set_keeper_timer(&mut self, h: usize) {
        let host = &mut self.hosts[h];
        let due = host.keeper.machine.wake_at(Time::NEVER);
        if due == host.keeper.due {
            return;
        }
        host.keeper.due = due;
        host.keeper.timer += 1;
        let (at, generation) = (host.clock.when(due), host.keeper.timer);
        if at != Duration::MAX {
            let at = at.max(self.now) + self.rng.lateness();
            self.push(at, SimEvent::KeeperTimer(h, generation));
        }
    }
}

pub(super) const ECANCELED: i32 = 125;
