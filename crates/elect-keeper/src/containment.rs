//! Containment tiers (K7): cgroup, PID namespace, or process-tree walk only.
//!
//! The walk ([`super::tree`]) is made in every tier: a descendant may leave its cgroup, and the deadline does not
//! depend on a tier. A tier adds one call that kills every process, however fast they fork and under whatever user they
//! run.
//!
//! The tier is chosen and proven before the keeper is forked, so that keeper and campaigner both hold the descriptors
//! that killing needs, and so that a tier that was requested and is not available is refused before a claim exists.

use std::io;

use super::cgroup::CommandCgroup;
use super::namespace::ParentPidNs;
use super::tree::{self, KillSweep, Scanner, SweepSlice};

/// The number of processes killed one by one, which takes a small fraction of a kill allowance.
const INDIVIDUAL_KILLS_MAX: usize = 2 * 1024;

/// The requested containment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Containment {
    /// cgroup where one can be made, else tree
    Auto,
    /// A cgroup of its own below elect's (kernel 5.14): one call kills every process in it
    Cgroup,
    /// A PID namespace of its own (root): it ends with elect even if all of elect is killed at once
    Pidns,
    /// No more than what is always done: every descendant is found and killed
    Tree,
}

/// The containment in effect.
#[derive(Debug)]
pub enum Tier {
    /// A cgroup for the command, below the one that elect is in.
    Cgroup {
        leaf: CommandCgroup,
        /// Requested by name: no program is started outside the leaf.
        is_mandatory: bool,
    },
    /// A PID namespace for each start of the command.
    Pidns(ParentPidNs),
    Tree,
}

/// A requested tier that is not available.
#[derive(Debug, thiserror::Error)]
#[error("--containment {tier} is not available here: {reason}; {remedy}, or leave it to --containment auto")]
pub struct NoContainment {
    tier: &'static str,
    remedy: &'static str,
    /// The kernel's error.
    reason: io::Error,
}

impl NoContainment {
    /// Whether the cause is a lack of permission.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self.reason.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
    }
}

impl Containment {
    /// Establishes the requested tier. The second value is the reason for the tier `tree` under `auto`.
    ///
    /// Starts and reaps a child; must be called while SIGCHLD has its default disposition.
    ///
    /// # Errors
    ///
    /// A requested tier is not available.
    pub fn establish(self) -> Result<(Tier, Option<io::Error>), NoContainment> {
        match self {
            Containment::Auto => Ok(match CommandCgroup::make() {
                Ok(leaf) => (Tier::Cgroup { leaf, is_mandatory: false }, None),
                Err(error) => (Tier::Tree, Some(error)),
            }),
            Containment::Cgroup => match CommandCgroup::make() {
                Ok(leaf) => Ok((Tier::Cgroup { leaf, is_mandatory: true }, None)),
                Err(reason) => Err(NoContainment {
                    tier: "cgroup",
                    remedy: "it takes a cgroup (v2) that elect may write to, as with Delegate=yes in a unit",
                    reason,
                }),
            },
            Containment::Pidns => match ParentPidNs::probe() {
                Ok(parent_ns) => Ok((Tier::Pidns(parent_ns), None)),
                Err(reason) => Err(NoContainment { tier: "pidns", remedy: "it takes root (CAP_SYS_ADMIN)", reason }),
            },
            Containment::Tree => Ok((Tier::Tree, None)),
        }
    }
}

impl Tier {
    /// The name in options and logs.
    pub fn name(&self) -> &'static str {
        match self {
            Tier::Cgroup { .. } => "cgroup",
            Tier::Pidns(_) => "pidns",
            Tier::Tree => "tree",
        }
    }

    fn leaf(&self) -> Option<&CommandCgroup> {
        match self {
            Tier::Cgroup { leaf, .. } => Some(leaf),
            Tier::Pidns(_) | Tier::Tree => None,
        }
    }

    /// Called by the main process between fork and exec (K6). A process is in its PID namespace from its creation.
    ///
    /// # Errors
    ///
    /// The leaf is gone, or the kernel has no memory, and the leaf is mandatory. Otherwise the tree walk remains.
    pub fn enter(&self) -> io::Result<()> {
        match self {
            Tier::Cgroup { leaf, is_mandatory } => {
                leaf.enter().or_else(|error| if *is_mandatory { Err(error) } else { Ok(()) })
            }
            Tier::Pidns(_) | Tier::Tree => Ok(()),
        }
    }

    /// Sends SIGKILL to every descendant of `root`, and to every process in the leaf. Allocates nothing (K3).
    ///
    /// `cgroup.kill` is used only if the walk is not enough, because it waits for a kernel lock: a process that is
    /// being moved between cgroups, anywhere on the machine, holds that lock until every fork under way is done, and in
    /// a storm the forking processes wait for their turn among all the others. That wait took up to 2 s while a storm
    /// went on; it is short once the processes that can be killed without the lock are dead.
    pub fn kill(&self, scanner: &mut Scanner, root: i32, except: &[i32], progress: &mut dyn FnMut()) -> KillSweep {
        let Some(leaf) = self.leaf() else { return scanner.kill(root, except, tree::DESCENDANTS_MAX, progress) };
        match scanner.kill(root, except, INDIVIDUAL_KILLS_MAX, progress) {
            KillSweep::Complete(found) if found > 0 || !leaf.is_populated() => KillSweep::Complete(found),
            // The processes fork too fast or are too many, run as a user whom we may not signal, or are not
            // descendants.
            KillSweep::Complete(_) | KillSweep::Partial | KillSweep::Unlistable => {
                leaf.kill();
                scanner.kill(root, except, tree::DESCENDANTS_MAX, progress)
            }
        }
    }

    /// Kills one batch ([`Scanner::kill_slice`]), for a caller that has other work to do.
    pub fn kill_slice(&self, scanner: &mut Scanner, root: i32, except: &[i32]) -> SweepSlice {
        let before = scanner.swept();
        let slice = scanner.kill_slice(root, except);
        if let Some(leaf) = self.leaf() {
            let swept = scanner.swept();
            let too_many = before <= INDIVIDUAL_KILLS_MAX && swept > INDIVIDUAL_KILLS_MAX;
            if too_many || (!matches!(slice, SweepSlice::More) && swept == 0 && leaf.is_populated()) {
                leaf.kill();
            }
        }
        slice
    }

    /// The second half of K6: `true` until it is certain that the leaf is empty.
    pub fn is_populated(&self) -> bool {
        self.leaf().is_some_and(CommandCgroup::is_populated)
    }

    /// A descriptor that becomes ready (`POLLPRI`) when that changes.
    pub fn events(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        self.leaf().map(CommandCgroup::events)
    }

    /// Removes the leaf. Must be called when it is empty and no program will be started any more.
    pub fn remove(&self) {
        if let Some(leaf) = self.leaf() {
            leaf.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leaf_that_cannot_be_entered_costs_the_start_where_it_is_a_must() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        for is_mandatory in [true, false] {
            let tier = Tier::Cgroup { leaf: CommandCgroup::full(directory.path()), is_mandatory };
            assert_eq!(tier.enter().is_err(), is_mandatory);
        }
    }
}
