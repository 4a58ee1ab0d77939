//! Health checks in the model: programs that end, hang, fork, leave processes behind or cannot be killed, and what must
//! hold for them (H3, H5).
//!
//! Candidates with a health check order them themselves. For others they come from here, at intervals, over the
//! campaigner's socket: more of them than any candidate would order, and at any moment.

use std::time::Duration;

use super::clock::ms;
use super::command::{ALL, ExecProgress, ProcessBehavior, Reach, SimTier, Tree};
use super::coverage::Seen;
use super::host::ProcessState;
use super::host_model::{EAGAIN, ENOENT};
use super::invariants::SLACK;
use super::run::{SimEvent, Simulation};
use crate::{CheckEnd, CheckNumber, KILL_ALLOWANCE, KeeperEvent, KeeperOrder, NotStarted};

/// The time-out of every check of a history.
pub(super) const CHECK_TIMEOUT: Duration = ms(400);

/// The checks that a campaigner has ordered.
#[derive(Debug, Default)]
pub(super) struct CheckOrders {
    /// The number of the last one.
    last: u64,
    /// Whether its end has not been reported.
    is_open: bool,
}

impl Simulation {
    /// Orders the first check for a candidate that orders none itself.
    pub(super) fn begin_checks(&mut self, h: usize) {
        if self.setup.checking {
            self.push(self.now + ms(1), SimEvent::CheckDue(h));
        }
    }

    pub(super) fn check_is_due(&mut self, h: usize) {
        if self.hosts[h].campaigner == ProcessState::Dead {
            return;
        }
        // The next one is ordered after the end of the last.
        if self.hosts[h].campaigner.is_running() && !self.hosts[h].check_orders.is_open {
            let orders = &mut self.hosts[h].check_orders;
            (orders.last, orders.is_open) = (orders.last + 1, true);
            let check = CheckNumber(orders.last);
            self.order_keeper(h, KeeperOrder::StartCheck { check });
        }
        let at = self.now + self.rng.between(CHECK_TIMEOUT / 2, CHECK_TIMEOUT * 4);
        self.push(at, SimEvent::CheckDue(h));
    }

    pub(super) fn check_ended(&mut self, h: usize, check: CheckNumber) {
        let orders = &mut self.hosts[h].check_orders;
        if !std::mem::take(&mut orders.is_open) || check != CheckNumber(orders.last) {
            self.violate("H3: the end of a check was not reported once", h);
        }
    }

    pub(super) fn fork_check(&mut self, h: usize) -> KeeperEvent {
        let host = &self.hosts[h];
        let is_left = host.checks.iter().any(|check| check.main_pid().is_some_and(|main| check.is_led_by(main)));
        if is_left {
            self.violate("H5: a second check was started beside one that is left", h);
        }
        let behavior = if self.quiet {
            ProcessBehavior { lifetime: Some(ms(20)), ..ProcessBehavior::calm() }
        } else {
            let stop_timeout = self.hosts[h].stop_timeout;
            ProcessBehavior::hook(&mut self.rng, CHECK_TIMEOUT, stop_timeout)
        };
        if behavior.fails && self.rng.percent(30) {
            return KeeperEvent::NotSpawned { errno: EAGAIN };
        }
        let has_tree = self.hosts[h].keeper.machine.has_tree();
        self.coverage.count(if has_tree { Seen::CheckBesideProgram } else { Seen::CheckAlone });
        let status = self.status_of_check(h);
        let host = &mut self.hosts[h];
        host.next_pid += 1;
        let pid = host.next_pid;
        host.checks.retain(Tree::has_children);
        host.checks.push(Tree::forked(self.now, None, 0, pid, behavior));
        let at = self.now + self.exec_delay(h);
        self.push(at, SimEvent::Exec(h, pid, status));
        KeeperEvent::Spawned { pid, init: None }
    }

    pub(super) fn exec_check(&mut self, h: usize, pid: i32, status: u8) {
        let Simulation { hosts, rng, now, .. } = self;
        let host = &mut hosts[h];
        let Some(check) = host.checks.iter_mut().find(|check| check.main_pid() == Some(pid)) else { return };
        match check.exec {
            ExecProgress::Executed | ExecProgress::Refused(_) => {}
            ExecProgress::Forked { .. } if check.is_killed_before_exec() || !check.main_is_alive() => {}
            ExecProgress::Forked { is_signalled: true } => check.die_before_exec(*now),
            ExecProgress::Forked { is_signalled: false } if check.fails() => {
                check.refuse(NotStarted::Failed(ENOENT), *now + ms(1));
            }
            ExecProgress::Forked { is_signalled: false } => check.execute(*now, status, rng, &mut host.next_pid),
        }
    }

    /// The main process has ended and is about to be reaped.
    pub(super) fn check_ends(&mut self, h: usize, main: i32) {
        let host = &mut self.hosts[h];
        host.keeper.ending_check = Some(main);
        let check = host.checks.iter().find(|check| check.main_pid() == Some(main));
        let not_executed = check.and_then(|check| match check.exec {
            ExecProgress::Refused(NotStarted::Failed(errno)) => Some(errno),
            ExecProgress::Forked { .. } => Some(super::keeper_shell::ECANCELED),
            ExecProgress::Refused(NotStarted::TooLate) | ExecProgress::Executed => None,
        });
        self.observe(h, KeeperEvent::CheckEnds { not_executed });
    }

    pub(super) fn kill_check(&mut self, h: usize, main: i32, kills_cgroup: bool) {
        let Simulation { hosts, rng, now, .. } = self;
        let host = &mut hosts[h];
        let tier = host.tier;
        let Some(check) = host.checks.iter_mut().find(|check| check.is_led_by(main)) else {
            self.violate("K6: SIGKILL was sent to the id of a check that was reaped", h);
            return;
        };
        // The descendants of a main process that has ended cannot be told from others, but by its group and its cgroup.
        let (reach, tier) = match (check.main_is_alive(), tier) {
            (false, SimTier::Cgroup) if kills_cgroup => (ALL, SimTier::Cgroup),
            (false, SimTier::Tree | SimTier::Cgroup | SimTier::Pidns) => (Reach::Group, SimTier::Tree),
            (true, SimTier::Tree | SimTier::Cgroup | SimTier::Pidns) => (ALL, SimTier::Tree),
        };
        let _ = check.kill(*now, reach, tier, rng);
        self.expect_death(h);
    }

    /// SIGKILL to the hooks and checks that run without a program, but for one check.
    pub(super) fn kill_leftovers(&mut self, h: usize, except: Option<i32>) {
        self.check_spared(h, except);
        let Simulation { hosts, rng, now, .. } = self;
        let tier = hosts[h].tier;
        for tree in hosts[h].trees().filter(|tree| !except.is_some_and(|main| tree.is_led_by(main))) {
            let _ = tree.kill(*now, ALL, tier, rng);
        }
        self.expect_death(h);
    }

    /// A check that has time left is not killed with a hook beside it.
    fn check_spared(&mut self, h: usize, except: Option<i32>) {
        let is_living = |check: &Tree| check.main_is_alive() && check.killed.is_none();
        let is_spared = |check: &Tree| except.is_some_and(|main| check.is_led_by(main));
        if self.hosts[h].checks.iter().any(|check| is_living(check) && !is_spared(check)) {
            self.violate("H3: a check was killed for the time-out of something else", h);
        }
    }

    /// The shell's question when children are left and none has ended.
    pub(super) fn look_past_stuck_check(&mut self, h: usize) {
        let host = &mut self.hosts[h];
        let Some(main) = host.keeper.machine.stuck_check(host.clock.at(self.now)) else { return };
        let excludes = |tree: &mut Tree, is_excluded| {
            if tree.is_led_by(main) {
                tree.is_excluded = is_excluded;
            }
        };
        host.trees().for_each(|tree| excludes(tree, true));
        let others = host.trees().any(|tree| tree.has_processes());
        if others {
            host.trees().for_each(|tree| excludes(tree, false));
            return;
        }
        let is_cgroup_populated = host.leaf_until.is_some();
        self.observe(h, KeeperEvent::OnlyCheckLeft { is_cgroup_populated });
    }

    /// H5: the keeper does not wait for a check that it cannot kill.
    pub(super) fn judge_stuck_check(&mut self, h: usize, event: KeeperEvent) {
        if event == (KeeperEvent::OnlyCheckLeft { is_cgroup_populated: false }) {
            self.coverage.count(Seen::CheckExcluded);
            if self.hosts[h].keeper.machine.has_tree() && !self.hosts[h].keeper.machine.runs_nothing() {
                self.violate("H5: a check that cannot be killed kept the tree from being empty", h);
            }
        }
    }

    /// H3: a check is killed after its time-out; what it leaves without a program, at once.
    pub(super) fn check_checks(&mut self, h: usize) {
        let host = &self.hosts[h];
        let awake = host.keeper.state.since();
        if awake == Duration::MAX || host.checks.is_empty() || host.keeper.is_busy {
            return;
        }
        let overdue = |check: &Tree| {
            let due = (check.born_at + host.clock.lasts(CHECK_TIMEOUT)).max(awake);
            check.main_is_alive() && check.killed.is_none() && self.now > due + SLACK + KILL_ALLOWANCE
        };
        if host.checks.iter().any(overdue) {
            self.violate("H3: a check outlived its time-out", h);
        }
    }

    pub(super) fn count_check_end(&mut self, end: CheckEnd) {
        self.coverage.count(match end {
            CheckEnd::Ended(_) => Seen::CheckEnded,
            CheckEnd::TimedOut => Seen::CheckTimedOut,
            CheckEnd::Failed(_) => Seen::CheckFailed,
            CheckEnd::Interrupted => Seen::CheckInterrupted,
        });
    }
}
