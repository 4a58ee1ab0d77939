//! The campaigner's orders, and its end.

use super::mutation::KeeperMutation;
use super::tree::{CommandTree, MainProcess, Stop};
use super::{CampaignerState, KeeperAction, KeeperMachine, KeeperOrder, KillDeadline};
use crate::{FromKeeper, Program, Signal, Term, Time};

impl KeeperMachine {
    pub(super) fn on_order(&mut self, now: Time, order: KeeperOrder) {
        match order {
            KeeperOrder::Arm { term, kill_by } => self.arm(now, term, kill_by),
            KeeperOrder::Start { program, run } => self.start(now, program, run),
            KeeperOrder::StartBackgroundHook { background_hook, context } => {
                self.start_background_hook(background_hook, context);
            }
            KeeperOrder::StartCheck { check } => self.start_check(check),
            KeeperOrder::Stop { .. } | KeeperOrder::Kill if !self.has_processes() => {
                self.send(FromKeeper::Empty { run: self.last_ordered_run });
            }
            // They do not become a tree: the order may be older than the `Empty` message before the check, and a program
            // may be started in answer to that.
            KeeperOrder::Stop { .. } | KeeperOrder::Kill if self.tree.is_empty() && self.running_hook.is_none() => {
                self.kill_lone_check(now);
                self.is_empty_awaited = true;
            }
            KeeperOrder::Stop { kill_at } => {
                self.take_over_leftovers();
                self.stop(now, kill_at);
            }
            KeeperOrder::Kill => {
                self.take_over_leftovers();
                self.kill(now);
            }
            KeeperOrder::Forward(signal) => self.forward(signal),
            KeeperOrder::Ping => self.pong(),
            KeeperOrder::Resume => self.resume(),
            KeeperOrder::EndHold => self.hold = None,
            KeeperOrder::Dismiss if self.mutated(KeeperMutation::IgnoresDismissal) => {}
            KeeperOrder::Dismiss => {
                self.campaigner = CampaignerState::Dismissed;
                self.begin_final_stop(now);
            }
        }
    }

    /// K2: without a campaigner the tree is stopped within the deadline in force.
    pub(super) fn on_campaigner_gone(&mut self, now: Time) {
        if self.mutated(KeeperMutation::IgnoresEndOfFile) {
            return;
        }
        self.campaigner = CampaignerState::Gone;
        if let CommandTree::Alive { program, .. } = &self.tree {
            self.final_report.program = *program;
        }
        self.begin_final_stop(now);
    }

    /// Forwards a signal to the main process, once it has executed.
    fn forward(&mut self, signal: Signal) {
        let CommandTree::Alive { main, .. } = &self.tree else { return };
        match *main {
            MainProcess::Running(pid) => self.act(KeeperAction::SignalProcess { pid, signal }),
            // Each signal once, as the kernel keeps a blocked signal.
            MainProcess::Starting(_) if self.mutated(KeeperMutation::DropsEarlySignals) => {}
            MainProcess::Starting(_) if !self.pending_signals.contains(&signal) => self.pending_signals.push(signal),
            MainProcess::Starting(_) | MainProcess::Refused(_) | MainProcess::Ended | MainProcess::Nothing => {}
        }
    }

    /// Continues a running program that has not been asked to stop.
    fn resume(&mut self) {
        let CommandTree::Alive {
            program,
            main: MainProcess::Running(_) | MainProcess::Starting(_),
            group,
            stop: Stop::NotRequested,
            ..
        } = self.tree
        else {
            return;
        };
        let may_read = matches!(program, Some(Program::Command { .. }));
        self.act(KeeperAction::ResumeTerminal { group, may_read });
    }

    /// K1: a new term opens only over an empty tree. Any number is accepted then, because the store that issues terms
    /// may have been rebuilt. Within a term the deadline only moves forward, and not after it has killed. While a tree
    /// lives, a message for another term changes nothing. Each is answered, because the campaigner counts it as a ping (K4).
    fn arm(&mut self, now: Time, term: Term, kill_by: Time) {
        let nothing_to_kill = self.tree.is_empty();
        let moves_back = self.mutated(KeeperMutation::DeadlineMovesBack);
        let of_any_term = self.mutated(KeeperMutation::DeadlineOfAnyTerm);
        let deadline = match (&mut self.deadline, &self.tree) {
            (Some(deadline), _) if deadline.term == term => {
                // A deadline that expired over an empty tree belonged to a start that came too late: the next renewal
                // is for the next start.
                if moves_back {
                    deadline.kill_by = kill_by;
                } else if (nothing_to_kill && !deadline.expired) || now < deadline.kill_by {
                    deadline.kill_by = deadline.kill_by.max(kill_by);
                }
                *deadline
            }
            (deadline, CommandTree::Empty) => *deadline.insert(KillDeadline { term, kill_by, expired: false }),
            (deadline, CommandTree::Alive { .. }) if of_any_term => {
                *deadline.insert(KillDeadline { term, kill_by, expired: false })
            }
            (_, CommandTree::Alive { .. }) => return self.pong(),
        };
        self.send(FromKeeper::Armed { term: deadline.term, kill_by: deadline.kill_by });
    }

    /// One answer is enough for all pings that the campaigner has not read an answer to.
    fn pong(&mut self) {
        if !self.outbox.contains(&FromKeeper::Pong) {
            self.send(FromKeeper::Pong);
        }
    }
}
