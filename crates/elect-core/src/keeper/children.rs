//! The ends of children, the empty tree (K6), and the terminal, which the command uses and leaves.

use super::mutation::KeeperMutation;
use super::tree::{CommandTree, MainProcess, Stop};
use super::{ChildEnd, KeeperAction, KeeperMachine, SIGINT, SIGQUIT};
use crate::{CommandEnd, FromKeeper, ProcessList, Program, Signal, Time};

impl KeeperMachine {
    pub(super) fn on_child_ended(&mut self, now: Time, pid: i32, end: ChildEnd) {
        if let CommandTree::Alive { main: MainProcess::Refused(child), stop, .. } = &mut self.tree
            && *child == Some(pid)
        {
            *child = None;
            // K10: no main process will end any more. Without a stop, a hook that runs beside the start goes on.
            if !matches!(stop, Stop::NotRequested) {
                self.stop_descendants(now);
            }
        } else if self.tree.main_pid() == Some(pid) {
            self.on_main_ended(now, end);
        } else if self.check_pid() == Some(pid) {
            self.on_check_ended(now, end);
        } else {
            self.on_hook_child_ended(pid, end);
        }
        // The process id may be reused from now on.
        if let CommandTree::Alive { init, .. } = &mut self.tree {
            init.take_if(|init| *init == pid);
        }
        self.clear_refused_start();
    }

    fn on_main_ended(&mut self, now: Time, end: ChildEnd) {
        let CommandTree::Alive { program, main, stop, init, .. } = &mut self.tree else { return };
        *main = MainProcess::Ended;
        let (program, init, stop) = (*program, *init, *stop);
        self.dismiss_init(init);
        let end = end.escalated_if(matches!(stop, Stop::Killing { .. }));
        self.send(FromKeeper::Exited { run: self.run, end });
        self.note_final_end(program, end);
        self.adopt_finished_hook();
        self.take_terminal_back(end, !matches!(stop, Stop::NotRequested));
        if matches!(stop, Stop::NotRequested) {
            self.act(KeeperAction::ListDescendants { except: [self.hook_group(), self.check_pid()] });
        }
        self.stop_descendants(now);
        if self.mutated(KeeperMutation::MainAloneCounts) {
            self.on_no_children(false);
        }
    }

    /// K10: processes that an ended main process has left behind are reported: a program that goes into the background
    /// by itself ends here.
    pub(super) fn on_descendants_listed(&mut self, processes: ProcessList) {
        if processes.count > 0 {
            self.send(FromKeeper::LeftBehind { run: self.run, processes });
        }
    }

    /// For a test: the child counts as reaped.
    pub(super) fn forget_refused_child(&mut self) {
        if let CommandTree::Alive { main: MainProcess::Refused(child), init, .. } = &mut self.tree {
            (*child, *init) = (None, None);
        }
        self.clear_refused_start();
    }

    /// K5: a refused start is cleared once its child, and the init of its namespace, have been reaped. A background
    /// hook or a health check that runs beside it goes on, without a tree. Without either, the end of all children
    /// clears the start.
    fn clear_refused_start(&mut self) {
        let CommandTree::Alive { main: MainProcess::Refused(None), init: None, stop: Stop::NotRequested, .. } =
            self.tree
        else {
            return;
        };
        if self.running_hook.is_none() && !self.has_check_processes() {
            return;
        }
        let hook_has_ended = self.running_hook.as_ref().is_some_and(|hook| hook.main.is_err());
        self.tree = CommandTree::Empty;
        self.send(FromKeeper::Cleared { run: self.run });
        if hook_has_ended {
            self.stop_hook_leftovers();
        }
    }

    /// K6: no descendant is left, because orphaned descendants of a subreaper become its children; and the cgroup is
    /// empty too.
    pub(super) fn on_no_children(&mut self, is_cgroup_populated: bool) {
        if is_cgroup_populated && self.has_processes() && !self.mutated(KeeperMutation::IgnoresCgroup) {
            return;
        }
        self.end_hook();
        debug_assert!(self.running_check.is_none() || self.has_mutation(), "its main process has not been reaped");
        self.confirm_empty();
    }

    /// No process is left that belongs to the tree.
    pub(super) fn confirm_empty(&mut self) {
        self.check_leftovers = None;
        let is_awaited = std::mem::take(&mut self.is_empty_awaited);
        match self.tree {
            CommandTree::Empty if is_awaited => self.send(FromKeeper::Empty { run: self.last_ordered_run }),
            CommandTree::Empty | CommandTree::Alive { main: MainProcess::Nothing, stop: Stop::NotRequested, .. } => {}
            CommandTree::Alive { .. } => {
                self.tree = CommandTree::Empty;
                self.act(KeeperAction::ScheduleFirst);
                self.send(FromKeeper::Empty { run: self.last_ordered_run });
            }
        }
    }

    pub(super) fn on_terminal_checked(&mut self, stopped_by: Option<Signal>) {
        let CommandTree::Alive { program: Some(Program::Command { .. }), main, group, stop, .. } = &self.tree else {
            return;
        };
        let (Some(pid), group, stop) = (main.pid(), *group, *stop) else { return };
        match (stop, stopped_by) {
            (Stop::NotRequested, Some(signal)) => self.act(KeeperAction::HandleTerminalStop { group, signal }),
            // A process that has been asked to end must not stay stopped.
            (Stop::Terminating { .. }, Some(_)) if self.mutated(KeeperMutation::LeavesStopped) => {}
            (Stop::Terminating { .. }, Some(_)) => self.act(KeeperAction::ContinueGroup { main: pid }),
            (Stop::Killing { .. }, Some(_)) | (_, None) => {}
        }
        if matches!(stop, Stop::NotRequested) {
            self.act(KeeperAction::PollForeground { group });
        }
    }

    /// Takes the terminal back from a main process that has ended. A command ended by Ctrl-C must not be restarted.
    pub(super) fn take_terminal_back(&mut self, end: CommandEnd, was_asked: bool) {
        let CommandTree::Alive { program: Some(Program::Command { .. }), group, .. } = self.tree else { return };
        let (with_modes, interrupted_by) = match end {
            CommandEnd::Killed { signal, .. } if [SIGINT, SIGQUIT].contains(&signal) && !was_asked => {
                (true, Some(signal))
            }
            CommandEnd::Killed { .. } => (true, None),
            CommandEnd::Exited(_) => (false, None),
        };
        self.act(KeeperAction::TakeTerminalBack { group, with_modes, interrupted_by });
    }
}
