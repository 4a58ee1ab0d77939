//! The cells of the matrix: each fault on each store in each tier of containment, and what is promised there.

use std::fmt;
use std::time::Duration;

use super::faults::{Act, FAULTS, MatrixFault};
use crate::harness::containment_support::tiers;
use crate::harness::store_fixtures::{self, StoreEntry};

/// One fault on one store in one tier.
#[derive(Clone, Copy)]
pub struct Cell {
    pub fault: &'static MatrixFault,
    pub store: &'static StoreEntry,
    pub tier: &'static str,
    /// Whether `--containment auto` chooses this tier here.
    pub is_default_tier: bool,
}

/// The promise of DESIGN.md for a cell (section 2), by which each run of it is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    /// A process survives to hand over.
    AtOnce,
    /// The lease has to run out, or is given back late.
    WithinLease,
    /// Nothing changes until the leader is asked to stop.
    KeepsLeading,
    /// The store is away for longer than a lease.
    AfterRepair,
    /// The store is away for a time that a lease may or may not outlive.
    KeepsOrAfterRepair,
    /// A process of the tree cannot be killed, or nothing is left that would kill it.
    Blocked,
    /// Two may be alive for a moment (2.2).
    BriefOverlap,
}

impl Promise {
    pub fn text(self) -> &'static str {
        match self {
            Promise::AtOnce => "the old tree ends, then the next command starts within half a ttl",
            Promise::WithinLease => {
                "the old tree is dead within a ttl; then the next command starts within ttl + R + 1 s"
            }
            Promise::KeepsLeading => {
                "the leader goes on alone; when it is asked to stop, the next command starts at once"
            }
            Promise::AfterRepair => "the old tree is dead within a ttl; a command starts when the store is back",
            Promise::KeepsOrAfterRepair => "the leader goes on, or its tree is dead before a command starts",
            Promise::Blocked => "nothing else starts while a process of the old tree is alive",
            Promise::BriefOverlap => {
                "another candidate leads meanwhile; the old tree is killed when it thaws, so that both may live for a \
                 moment (2.2)"
            }
        }
    }

    /// Whether the witness may meet two trees.
    pub fn allows_overlap(self) -> bool {
        self == Promise::BriefOverlap
    }
}

/// Renewals are at a fifth of the ttl (T2).
pub fn renewal(lease: Duration) -> Duration {
    lease / 5
}

impl Cell {
    pub fn promise(&self) -> Promise {
        let has_lease = self.has_lease();
        match self.fault.act {
            Act::Frozen if has_lease => Promise::BriefOverlap,
            Act::CampaignerStopped | Act::BothKilled if has_lease => Promise::WithinLease,
            Act::BothKilled if self.tier == "pidns" => Promise::AtOnce,
            Act::Leader(_) => Promise::AtOnce,
            Act::KeeperStopped | Act::Link(_) => Promise::WithinLease,
            Act::CampaignerStopped | Act::Frozen | Act::Clock(_) => Promise::KeepsLeading,
            Act::BothKilled | Act::Stuck => Promise::Blocked,
            Act::ServerAway(_) => Promise::AfterRepair,
            Act::ServerRestarted | Act::Failover => Promise::KeepsOrAfterRepair,
        }
    }

    /// The file store alone grants no lease: it is the lock that excludes.
    pub fn has_lease(&self) -> bool {
        self.store.has_server
    }

    /// Why there is no such cell, if there is none.
    pub fn obstacle(&self) -> Option<&'static str> {
        match self.fault.act {
            Act::Link(_) | Act::ServerAway(_) | Act::ServerRestarted if !self.store.has_server => {
                Some("the store has no network and no server")
            }
            Act::Failover if self.store.start_failover.is_none() => Some("the store has no servers that take over"),
            Act::Link(_)
            | Act::ServerAway(_)
            | Act::ServerRestarted
            | Act::Failover
            | Act::Leader(_)
            | Act::CampaignerStopped
            | Act::KeeperStopped
            | Act::BothKilled
            | Act::Clock(_)
            | Act::Stuck
            | Act::Frozen => None,
        }
    }

    /// How often the cell runs in the long form.
    pub fn planned_runs(&self) -> usize {
        match (self.obstacle(), self.fault.needs_many_runs, self.is_default_tier) {
            (Some(_), _, _) => 0,
            (None, false, _) => 50,
            (None, true, true) => 200,
            (None, true, false) => 20,
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.store.name, self.fault.name, self.tier)
    }
}

/// All of them, in the order of the report. A tier that this machine does not have is left out.
pub fn all_cells() -> Vec<Cell> {
    let tiers = tiers();
    let default_tier = if tiers.contains(&"cgroup") { "cgroup" } else { "tree" };
    let mut cells = Vec::new();
    for fault in FAULTS {
        for store in store_fixtures::entries() {
            for &tier in &tiers {
                cells.push(Cell { fault, store, tier, is_default_tier: tier == default_tier });
            }
        }
    }
    cells
}
