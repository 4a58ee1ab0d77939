//! The faults that elect promises to survive (2.1): never campaigner and keeper of one host at once.

use std::time::Duration;

use super::clock::ms;
use super::command::{SIGHUP, SIGTERM};
use super::coverage::Seen;
use super::host::{Delivery, ProcessState};
use super::keeper_shell::{Strike, StruckProcess};
use super::network::NetworkConditions;
use super::record_store::AfterRestart;
use super::run::{SimEvent, Simulation};
use super::setup::StoreModel;
use super::store::Store;
use crate::{Event, KeeperOrder};

#[derive(Debug, Clone, Copy)]
pub(super) enum Fault {
    /// One of the others, by chance, and another such in a while.
    Any,
    /// A signal that asks the campaigner to stop.
    Ask(usize),
    KillCampaigner(usize),
    ContinueCampaigner(usize),
    ContinueKeeper(usize),
    KillKeeper(usize),
    StopCampaigner(usize, Duration),
    StopKeeper(usize, Duration),
    CutFor(usize, Direction, Duration),
    /// A fault in the middle of a keeper's or a campaigner's work, after so many steps.
    StrikeKeeper(usize, u32, StruckProcess),
    StrikeCampaigner(usize, u32, StruckProcess),
    /// The terminal stops the command.
    Suspend(usize),
    /// The shell brings the job back to the foreground.
    Foreground(usize),
    Cut(usize, Direction),
    Mend(usize, Direction),
    StoreBack(AfterRestart),
    /// The store is down for so long.
    StoreDown(Duration, AfterRestart),
    /// The old primary, beside which a standby was promoted, ends.
    FenceOldPrimary,
    /// The processes that campaigner and keeper have left are killed.
    EndOrphans(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Both,
    Requests,
    Replies,
}

impl Direction {
    fn cuts(self) -> (u32, u32) {
        match self {
            Direction::Both => (1, 1),
            Direction::Requests => (1, 0),
            Direction::Replies => (0, 1),
        }
    }

    fn cut(self, (from, to): (u32, u32)) -> (u32, u32) {
        let (requests, replies) = self.cuts();
        (from + requests, to + replies)
    }

    fn mended(self, (from, to): (u32, u32)) -> (u32, u32) {
        let (requests, replies) = self.cuts();
        (from.saturating_sub(requests), to.saturating_sub(replies))
    }
}

impl Simulation {
    pub(super) fn strike(&mut self, fault: Fault) {
        match fault {
            Fault::Any => {
                if !self.quiet {
                    self.strike_by_chance();
                    // The longest is the simplest.
                    let longest = self.setup.ttl * 3 / 4;
                    let rest = longest.saturating_sub(self.rng.between(ms(0), longest.saturating_sub(ms(1))));
                    self.push(self.now + rest, SimEvent::Fault(Fault::Any));
                }
            }
            Fault::Ask(h) => {
                self.note(h, || "asked to stop".into());
                self.on_delivery(h, Delivery::Signal(Event::Stop(SIGTERM)));
            }
            Fault::KillCampaigner(h) => {
                if self.hosts[h].campaigner != ProcessState::Dead && self.is_campaigner_fault_covered(h) {
                    self.kill_campaigner(h);
                }
            }
            Fault::ContinueCampaigner(h) => self.continue_campaigner(h),
            Fault::ContinueKeeper(h) => self.continue_keeper(h),
            Fault::KillKeeper(h) => {
                if self.hosts[h].keeper.state != ProcessState::Dead && self.is_keeper_fault_covered(h) {
                    self.kill_keeper(h);
                }
            }
            Fault::StopCampaigner(h, length) => {
                if self.hosts[h].campaigner.is_running() && self.is_campaigner_fault_covered(h) {
                    self.stop_campaigner(h);
                    self.later(length, Fault::ContinueCampaigner(h));
                }
            }
            Fault::StopKeeper(h, length) => {
                // A keeper without its campaigner is stopped for nothing: that has ended, and has dismissed it.
                let is_present = self.hosts[h].keeper.state.is_running() && self.is_keeper_fault_covered(h);
                if is_present && self.hosts[h].campaigner.is_running() {
                    self.stop_keeper(h);
                    self.later(length, Fault::ContinueKeeper(h));
                }
            }
            Fault::CutFor(h, direction, length) => {
                self.strike(Fault::Cut(h, direction));
                self.later(length, Fault::Mend(h, direction));
            }
            Fault::StrikeKeeper(h, steps, fault) => self.hosts[h].keeper.strike = Some(self.strike_after(steps, fault)),
            Fault::StrikeCampaigner(h, steps, fault) => self.hosts[h].strike = Some(self.strike_after(steps, fault)),
            Fault::Suspend(h) => self.suspend(h),
            Fault::Foreground(h) => {
                if self.hosts[h].campaigner.is_running() {
                    self.order_keeper(h, KeeperOrder::Resume);
                } else if self.hosts[h].campaigner == ProcessState::Stopped {
                    self.later(ms(100), Fault::Foreground(h));
                }
            }
            Fault::Cut(h, direction) => {
                self.note(h, || format!("network cut: {direction:?}"));
                self.hosts[h].cuts = direction.cut(self.hosts[h].cuts);
            }
            Fault::Mend(h, direction) => {
                self.note(h, || format!("network mended: {direction:?}"));
                self.hosts[h].cuts = direction.mended(self.hosts[h].cuts);
            }
            Fault::StoreBack(after) => self.restore_store(after),
            Fault::StoreDown(length, after) => {
                if !self.store_is_down {
                    self.note(usize::MAX, || format!("store down; after it: {after:?}"));
                    self.store_is_down = true;
                    self.later(length, Fault::StoreBack(after));
                }
            }
            Fault::FenceOldPrimary => self.fence_old_primary(),
            Fault::EndOrphans(h) => {
                self.kill_all(h);
                self.host_changed(h);
            }
        }
    }

    /// Whether 2.1 covers a fault of the campaigner now. If not, the history has a pair of faults of 2.2.
    pub(super) fn is_campaigner_fault_covered(&mut self, h: usize) -> bool {
        self.is_uncovered |= !self.hosts[h].keeper.state.is_running();
        !self.is_uncovered
    }

    /// The same for the keeper. One whose campaigner has ended in good order has nothing left to guard.
    pub(super) fn is_keeper_fault_covered(&mut self, h: usize) -> bool {
        self.is_uncovered |= self.hosts[h].campaigner_is_out_of_action();
        !self.is_uncovered
    }

    fn strike_by_chance(&mut self) {
        if self.present.is_empty() {
            return;
        }
        let h = self.rng.of(&self.present);
        let ttl = self.setup.ttl;
        let host = &self.hosts[h];
        let both_run = host.campaigner.is_running() && host.keeper.state.is_running();
        let network = !self.setup.calm && self.setup.mode != StoreModel::Lock;
        // The simplest is none.
        match 99 - self.rng.below_small(100) {
            0..20 if network => {
                let direction = self.rng.of(&[Direction::Both, Direction::Requests, Direction::Replies]);
                let length = self.rng.between(ttl / 10, ttl * 3 / 2);
                self.strike(Fault::Cut(h, direction));
                self.later(length, Fault::Mend(h, direction));
            }
            20..28 if network && !self.store_is_down => {
                let length = self.rng.between(ms(50), ttl);
                let after = self.restart_by_chance();
                self.note(h, || format!("store down; after it: {after:?}"));
                self.store_is_down = true;
                self.later(length, Fault::StoreBack(after));
            }
            28..36 if network => self.network_conditions = NetworkConditions::draw(&mut self.rng),
            36..42 if both_run && self.rng.percent(60) => self.kill_campaigner(h),
            36..42 if both_run => self.hosts[h].strike = Some(self.strike_of(StruckProcess::Killed)),
            42..47 if both_run && self.rng.percent(40) => {
                self.hosts[h].keeper.strike = Some(self.strike_of(StruckProcess::Killed));
            }
            42..47 if both_run => {
                self.coverage.count(Seen::KeeperKilled);
                self.kill_keeper(h);
            }
            47..57 if both_run && self.rng.percent(40) => {
                let length = self.rng.between(ms(1), ttl * 5 / 4);
                self.hosts[h].keeper.strike = Some(self.strike_of(StruckProcess::StoppedFor(length)));
            }
            47..57 if both_run => {
                self.stop_keeper(h);
                if self.rng.percent(20) {
                    self.hosts[h].keeper.stopped_for_good = true;
                } else {
                    let length = self.rng.between(ms(10), ttl * 5 / 4);
                    self.later(length, Fault::ContinueKeeper(h));
                }
            }
            57..69 if both_run && self.rng.percent(40) => {
                let length = self.rng.between(ms(1), ttl * 3);
                self.hosts[h].strike = Some(self.strike_of(StruckProcess::StoppedFor(length)));
            }
            57..69 if both_run => {
                self.stop_campaigner(h);
                let length = self.rng.between(ms(10), ttl * 3);
                self.later(length, Fault::ContinueCampaigner(h));
            }
            69..79 if host.campaigner != ProcessState::Dead => {
                self.strike(Fault::Ask(h));
                if self.rng.percent(40) {
                    let length = self.rng.between(ms(0), ms(2_000));
                    self.later(length, Fault::Ask(h));
                }
            }
            79..84 if both_run && self.setup.mode == StoreModel::Lock => self.kill_both(h),
            // 2.2: not where a forgotten leader may have a longer ttl than its successor has seen.
            79..86 if network && self.setup.mode == StoreModel::Record && !self.setup.unequal => {
                self.coverage.count(Seen::RecordFlushed);
                self.restart_store(AfterRestart::Flushed);
            }
            86..92 => self.suspend(h),
            92..96 if host.campaigner.is_running() => {
                self.on_delivery(h, Delivery::Signal(Event::Forward(SIGHUP)));
            }
            96..98 if network && self.setup.mode == StoreModel::Record => self.promote_by_chance(),
            _ => {}
        }
    }

    /// The synchronous standby is promoted, while the primary goes on for some candidates.
    fn promote_by_chance(&mut self) {
        let loyal = u64::from(self.rng.below_small(64));
        let length = self.rng.between(self.setup.ttl / 4, self.setup.ttl * 2);
        self.later(length, Fault::FenceOldPrimary);
        self.note(usize::MAX, || format!("standby promoted, old primary goes on for {loyal:b}"));
        if let Store::Record(server) = &mut self.store {
            self.coverage.count(Seen::Promoted);
            server.promote(loyal);
        }
    }

    pub(super) fn fence_old_primary(&mut self) {
        if let Store::Record(server) = &mut self.store {
            server.fence_old_primary();
        }
    }

    fn suspend(&mut self, h: usize) {
        self.note(h, || "terminal stops the command".into());
        self.hosts[h].suspended_at = self.now;
        self.hosts[h].tree.suspend();
        self.run_keeper(h);
    }

    /// A fault in the middle of the next few steps.
    fn strike_of(&mut self, fault: StruckProcess) -> Strike {
        let steps = 1 + self.rng.below_small(24);
        self.strike_after(steps, fault)
    }

    fn strike_after(&mut self, steps: u32, fault: StruckProcess) -> Strike {
        self.strikes.push(None);
        Strike { number: self.strikes.len() - 1, steps, fault }
    }

    fn later(&mut self, length: Duration, fault: Fault) {
        self.push(self.now + length, SimEvent::Fault(fault));
    }

    /// A record is lost only by a store that may lose it, and where all have the same ttl: the design promises nothing
    /// else (2.2).
    fn restart_by_chance(&mut self) -> AfterRestart {
        if self.setup.unequal || self.setup.mode == StoreModel::DurableRecord {
            return AfterRestart::Kept;
        }
        self.rng.of(&[AfterRestart::Kept, AfterRestart::RolledBack, AfterRestart::Lost])
    }

    pub(super) fn restore_store(&mut self, after: AfterRestart) {
        if !std::mem::take(&mut self.store_is_down) {
            return;
        }
        if matches!(self.store, Store::Record(_)) {
            self.coverage.count(match after {
                AfterRestart::Kept => Seen::RecordKept,
                AfterRestart::RolledBack => Seen::RecordRolledBack,
                AfterRestart::Lost | AfterRestart::Flushed => Seen::RecordLost,
            });
        }
        self.restart_store(after);
    }

    fn restart_store(&mut self, after: AfterRestart) {
        self.note(usize::MAX, || format!("store back: {after:?}"));
        let mut effects = std::mem::take(&mut self.effects);
        self.store.restart(self.now, after, &mut effects);
        self.follow(&mut effects);
        self.effects = effects;
        self.push(self.now, SimEvent::Look);
    }

    /// Only the inherited lock still holds the others off (2.2).
    fn kill_both(&mut self, h: usize) {
        self.note(h, || "campaigner and keeper killed".into());
        if self.hosts[h].tree.is_alive() {
            self.coverage.count(Seen::BothKilled);
        }
        let host = &mut self.hosts[h];
        host.tree.disturbed = true;
        (host.campaigner, host.keeper.state) = (ProcessState::Dead, ProcessState::Dead);
        let length = self.rng.between(ms(1), self.setup.ttl);
        self.later(length, Fault::EndOrphans(h));
        self.host_changed(h);
    }
}
