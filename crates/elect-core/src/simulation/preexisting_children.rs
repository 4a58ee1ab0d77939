//! Children that elect inherited when it was executed, and the sweep over what a dead keeper left, which spares them (K4).
//!
//! The counterpart of `Keeper` in elect-keeper: the list of these children is read again before each ping and
//! each deadline, and counts only if the keeper was alive when the list had been read, because a dead keeper's processes
//! are children of the campaigner as well.

use super::command::{ExecProgress, ProcessBehavior, Tree};
use super::coverage::Seen;
use super::host::{Delivery, ProcessState};
use super::mutations::InjectedMutation;
use super::run::Simulation;

impl Simulation {
    /// Some candidates are executed by a shell that has started a job before.
    pub(super) fn inherit_children(&mut self, h: usize) {
        if !self.setup.has_preexisting_child(&mut self.rng) {
            return;
        }
        self.coverage.count(Seen::PreexistingChild);
        let host = &mut self.hosts[h];
        host.next_pid += 1;
        let pid = host.next_pid;
        host.preexisting = Tree::forked(self.now, None, 0, pid, ProcessBehavior::calm());
        host.preexisting.exec = ExecProgress::Executed;
        host.excluded = vec![pid];
    }

    /// Reads the list again. Now and then the keeper dies before that, and the campaigner has not heard of it.
    pub(super) fn refresh_preexisting_children(&mut self, h: usize) {
        let host = &self.hosts[h];
        if !host.preexisting.has_processes() || host.has_reaped_keeper {
            return;
        }
        let lasts = host
            .reference
            .lease
            .is_none_or(|lease| host.clock.at(self.now) + 3 * crate::KILL_ALLOWANCE < lease.kill_by);
        if host.keeper.state.is_running() && lasts && !self.quiet && self.rng.percent(1) {
            self.coverage.count(Seen::KeeperDiedBeforeList);
            self.kill_keeper(h);
        }
        let host = &mut self.hosts[h];
        let is_alive = host.keeper.state != ProcessState::Dead;
        let mut children: Vec<i32> = host.preexisting.living().collect();
        if !is_alive {
            children.extend(host.trees().flat_map(|tree| tree.living().collect::<Vec<_>>()));
        }
        if is_alive || self.injected_mutation == Some(InjectedMutation::ListOfDeadKeeper) {
            host.excluded = children;
        }
    }

    /// Kills what a dead keeper left, but for the excluded processes. Returns whether nothing is left.
    pub(super) fn sweep_once(&mut self, h: usize) -> bool {
        if self.hosts[h].keeper.state != ProcessState::Dead {
            self.violate("K4: a sweep beside a living keeper", h);
            return false;
        }
        let host = &mut self.hosts[h];
        host.has_reaped_keeper = true;
        let excluded = std::mem::take(&mut host.excluded);
        if !host.preexisting.living().all(|pid| excluded.contains(&pid)) {
            self.violate("K4: a child that elect inherited was killed", h);
        }
        let host = &mut self.hosts[h];
        if host.preexisting.has_processes() && host.has_descendants() {
            self.coverage.count(Seen::PreexistingChildSpared);
        }
        let host = &mut self.hosts[h];
        let is_hidden = host.trees().any(|tree| tree.living().any(|pid| excluded.contains(&pid)));
        host.excluded = excluded;
        if is_hidden {
            return true;
        }
        let _ = self.kill_tree(h);
        !self.hosts[h].has_descendants()
    }

    pub(super) fn sweep(&mut self, h: usize) {
        let empty = self.sweep_once(h);
        self.schedule_delivery(h, self.now, Delivery::Swept { empty });
    }
}
