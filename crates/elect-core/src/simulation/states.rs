//! The number of distinct states that an exploration reaches.
//!
//! A state is that of the whole model without its times: phases, processes, messages on their way, the store. Two
//! states that differ only in when something is due count as one.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::mem::discriminant;
use std::time::Duration;

use super::command::Tree;
use super::host::{Delivery, ProcessState, SimHost};
use super::keeper_shell::ModelMessage;
use super::run::{SimEvent, Simulation};
use crate::KeeperOrder;

/// No set becomes larger than this.
pub(super) const STATES_MAX: usize = 8_000_000;

/// The hashes of states that were seen.
#[derive(Debug, Clone, Default)]
pub(super) struct StateSet {
    /// States before this moment are the same in every history, and do not count.
    pub from: Duration,
    pub hashes: HashSet<u64, BuildHasherDefault<Unhashed>>,
    /// Those that have been added since this was emptied.
    pub new: Vec<u64>,
}

/// The keys are hashes already.
#[derive(Debug, Default)]
pub(super) struct Unhashed(u64);

impl Hasher for Unhashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("the keys are numbers of 64 bits");
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

/// A quick hash, the same on every machine and in every run.
#[derive(Debug, Default)]
pub(super) struct StateHasher(u64);

impl Hasher for StateHasher {
    fn finish(&self) -> u64 {
        let mixed = (self.0 ^ (self.0 >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        mixed ^ (mixed >> 29)
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.write_u64(u64::from(value));
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(23) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }

    fn write_isize(&mut self, value: isize) {
        self.write_u64(value.cast_unsigned() as u64);
    }
}

impl Simulation {
    /// Counts the present state, if states are counted.
    pub(super) fn count_state(&mut self) {
        let Some(states) = &self.states else { return };
        if self.now < states.from || states.hashes.len() >= STATES_MAX {
            return;
        }
        let hash = self.state_hash();
        if let Some(states) = &mut self.states
            && states.hashes.insert(hash)
        {
            states.new.push(hash);
        }
    }

    fn state_hash(&self) -> u64 {
        let mut state = StateHasher::default();
        (self.setup.mode as u8, self.store_is_down).hash(&mut state);
        for host in &self.hosts {
            self.hash_host(host, &mut state);
        }
        self.store.hash_state(&mut state);
        // The order of what is on its way does not count.
        let on_the_way = self.events().map(|event| self.event_hash(event)).fold(0, u64::wrapping_add);
        on_the_way.hash(&mut state);
        state.finish()
    }

    fn hash_host(&self, host: &SimHost, state: &mut StateHasher) {
        let now = host.clock.at(self.now);
        discriminant(&host.campaigner).hash(state);
        discriminant(&host.keeper.state).hash(state);
        if host.campaigner == ProcessState::Dead && host.keeper.state == ProcessState::Dead && !host.has_descendants() {
            return;
        }
        let candidate = &host.candidate;
        let lease = candidate.lease().map_or(0_u8, |lease| match () {
            () if now < lease.stop_by => 1,
            () if now < lease.kill_by => 2,
            () if now < lease.ends => 3,
            () => 4,
        });
        (candidate.phase() as u8, candidate.has_begun(), candidate.leading_term().is_some(), lease).hash(state);
        (candidate.context.keeper_died, candidate.context.tree_is_empty, candidate.has_a_follower()).hash(state);
        (host.inbox.len(), host.unperformed.len(), host.outbox.len(), host.cuts).hash(state);
        host.has_reaped_keeper.hash(state);
        (host.eligibility_check.drained, candidate.ineligible_reasons().any()).hash(state);
        host.client.open_request().hash(state);
        host.keeper.hash_state(state);
        host.keeper.machine.hash_state(now, state);
        hash_tree(&host.tree, state);
        for hook in host.hooks.iter().chain(&host.checks) {
            hash_tree(hook, state);
        }
    }

    /// An event that is on its way; timers and faults to come show in the state of what they will change.
    fn event_hash(&self, event: &SimEvent) -> u64 {
        let mut state = StateHasher::default();
        match event {
            SimEvent::Delivery(h, delivery) => {
                (1_u8, *h, discriminant(delivery)).hash(&mut state);
                match delivery {
                    Delivery::Keeper(message) => discriminant(message).hash(&mut state),
                    Delivery::Reply { attempt, leg, reply } => {
                        let is_current = self.hosts[*h].client.is_open(*attempt);
                        (is_current, *leg, discriminant(reply)).hash(&mut state);
                    }
                    Delivery::Swept { empty } => empty.hash(&mut state),
                    Delivery::Observed { answered, .. } => answered.hash(&mut state),
                    Delivery::Signal(_) | Delivery::KeeperDied | Delivery::Hint | Delivery::Ousted(_) => {}
                }
            }
            SimEvent::ModelMessage(h, message) => {
                (2_u8, *h, discriminant(message)).hash(&mut state);
                hash_message(message, &mut state);
            }
            SimEvent::AtStore { host, leg, request, .. } => (3_u8, *host, *leg, discriminant(request)).hash(&mut state),
            SimEvent::Exec(h, ..) => (4_u8, *h).hash(&mut state),
            SimEvent::KeeperReleases(h) => (5_u8, *h).hash(&mut state),
            SimEvent::Wake(..)
            | SimEvent::KeeperTimer(..)
            | SimEvent::CheckDue(_)
            | SimEvent::Death(_)
            | SimEvent::KeeperExitTimeout(_)
            | SimEvent::KeeperProgress(_)
            | SimEvent::CrowdKilled(_)
            | SimEvent::LeafEmpty(_)
            | SimEvent::Look
            | SimEvent::Join
            | SimEvent::Fault(_)
            | SimEvent::Quiet
            | SimEvent::Settle => return 0,
        }
        state.finish()
    }
}

pub(super) fn hash_message(message: &ModelMessage, state: &mut StateHasher) {
    match message {
        ModelMessage::Order(order) => discriminant::<KeeperOrder>(order).hash(state),
        ModelMessage::Stray { .. } | ModelMessage::End => {}
    }
}

fn hash_tree(tree: &Tree, state: &mut StateHasher) {
    tree.program.map(|program| discriminant(&program)).hash(state);
    (discriminant(&tree.exec), tree.exec_is_read, tree.suspension as u8).hash(state);
    (tree.stopped.is_some(), tree.killed.is_some(), tree.ended_first.is_some(), tree.disturbed).hash(state);
    tree.hash_processes(state);
}
