//! The terminal of the tree: only the command uses it, no hook and no follower.

use super::stopping::{Stop, signal_group};
use super::{CommandTree, KeeperLoop, MainProcess};
use crate::clock;
use crate::sys;
use elect_core::{CommandEnd, FromKeeper, Program, TerminalEvent};

impl KeeperLoop {
    pub(super) fn check_terminal(&mut self) {
        // Only the command uses the terminal.
        let CommandTree::Alive { program: Some(Program::Command { .. }), main, group, stop, .. } = &self.tree else {
            return;
        };
        let (Some(pid), group, stop) = (main.pid(), *group, *stop) else { return };
        // Checked before exec too: a stop signal that arrived while signals were blocked stops the child there.
        if let Some(signal) = sys::stop_signal_of(pid) {
            match stop {
                Stop::NotRequested => {
                    let event = self.terminal.stopped(group, signal, self.own_pid, &mut self.scanner);
                    self.outbox.extend(event.map(FromKeeper::Terminal));
                }
                // A process that has been asked to end must not stay stopped.
                Stop::Terminating { .. } => signal_group(pid, libc::SIGCONT),
                Stop::Killing { .. } => {}
            }
        }
        if matches!(stop, Stop::NotRequested) {
            self.terminal.poll_foreground(clock::now(), group);
        }
    }

    /// Takes the terminal back from a main process that has ended. A command ended by Ctrl-C must not be restarted.
    pub(super) fn take_terminal_back(&mut self, end: CommandEnd, asked: bool) {
        let CommandTree::Alive { program: Some(Program::Command { .. }), group, .. } = self.tree else { return };
        let killed = matches!(end, CommandEnd::Killed { .. });
        let had_it = self.terminal.take_back(group, killed, (self.own_pid, &[]), &mut self.scanner);
        if let CommandEnd::Killed { signal, .. } = end
            && [libc::SIGINT, libc::SIGQUIT].contains(&signal.0)
            && had_it
            && !asked
        {
            self.outbox.push_back(FromKeeper::Terminal(TerminalEvent::Interrupted(signal)));
        }
    }

    /// The group of a running command that has not been asked to stop.
    pub(super) fn running_group(&self) -> Option<i32> {
        match &self.tree {
            CommandTree::Alive {
                main: MainProcess::Running(_) | MainProcess::Starting(_),
                group,
                stop: Stop::NotRequested,
                ..
            } => Some(*group),
            CommandTree::Alive { .. } | CommandTree::Empty => None,
        }
    }
}
