//! Containment: by what, beside the walk over the tree, the command's processes are held together (K7).
//!
//! The walk ([`super::tree`]) is made in every tier: a descendant may leave its cgroup, and the deadline does not wait for a
//! tier to work. What a tier adds is one call that kills everybody, however fast they fork and whoever they have become.
//!
//! Chosen and proven before the keeper is forked, so that keeper and campaigner both hold what killing takes, and so that a
//! tier that was named and is not to be had is refused before anything is claimed.

use std::io;

use super::cgroup::CommandCgroup;
use super::namespace::ParentPidNs;
use super::tree::{self, KillSweep, Scanner, SweepSlice};

/// So many are killed one by one: it takes but a fraction of a kill allowance.
const INDIVIDUAL_KILLS_MAX: usize = 2 * 1024;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Containment {
    /// cgroup where one can be made, else tree
    Auto,
    /// A cgroup of its own below elect's (kernel 5.14): whatever forks in it, one call kills it
    Cgroup,
    /// A PID namespace of its own (root): it ends with elect even if all of elect is killed at once
    Pidns,
    /// No more than what is always done: every descendant is found and killed
    Tree,
}

/// What there is.
#[derive(Debug)]
pub enum Tier {
    /// A cgroup for the command, below the one that elect is in.
    Cgroup {
        leaf: CommandCgroup,
        /// Asked for by name: without it nothing is started.
        is_mandatory: bool,
    },
    /// A PID namespace for each start of the command.
    Pidns(ParentPidNs),
    Tree,
}

/// A tier that was named and is not to be had.
#[derive(Debug, thiserror::Error)]
#[error("--containment {tier} is not available here: {reason}; {remedy}, or leave it to --containment auto")]
pub struct NoContainment {
    tier: &'static str,
    remedy: &'static str,
    /// What the kernel says.
    reason: io::Error,
}

impl NoContainment {
    /// Whether it is for a lack of permission, and so for whoever started us to mend.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self.reason.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
    }
}

impl Containment {
    /// Makes what is asked for, or what there is. The second value: why `auto` came to no more than a tree.
    ///
    /// Starts and reaps a child; to be called while SIGCHLD has its default disposition.
    ///
    /// # Errors
    ///
    /// A tier that was named cannot be had.
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
    /// As people know it.
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

    /// For the main process between fork and exec (K6). In a namespace it is by birth.
    ///
    /// # Errors
    ///
    /// The leaf is gone, or the kernel has no memory, and a leaf is a must. Otherwise there is still the tree.
    pub fn enter(&self) -> io::Result<()> {
        match self {
            Tier::Cgroup { leaf, is_mandatory } => {
                leaf.enter().or_else(|error| if *is_mandatory { Err(error) } else { Ok(()) })
            }
            Tier::Pidns(_) | Tier::Tree => Ok(()),
        }
    }

    /// SIGKILL to every descendant of `root`, and to everybody inside. Allocates nothing (K3).
    ///
    /// The one call that kills a whole leaf is kept for what the walk does not settle, because it waits for a lock of the
    /// kernel's: whoever moves a process between two cgroups, anywhere on the machine, holds it until every fork under way is
    /// done, and in a storm those that are forking wait for their turn among all the others. That took up to 2 s, in which a
    /// storm went on; it is over by then if those who can be killed without the lock are.
    pub fn kill(&self, scanner: &mut Scanner, root: i32, except: &[i32], progress: &mut dyn FnMut()) -> KillSweep {
        let Some(leaf) = self.leaf() else { return scanner.kill(root, except, tree::DESCENDANTS_MAX, progress) };
        match scanner.kill(root, except, INDIVIDUAL_KILLS_MAX, progress) {
            KillSweep::Complete(found) if found > 0 || !leaf.is_populated() => KillSweep::Complete(found),
            // They are too fast or too many, have become a user whom we may not signal, or are nobody's descendants.
            KillSweep::Complete(_) | KillSweep::Partial | KillSweep::Unlistable => {
                leaf.kill();
                scanner.kill(root, except, tree::DESCENDANTS_MAX, progress)
            }
        }
    }

    /// The same a batch at a time ([`Scanner::kill_slice`]), for whoever has other things to do.
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

    /// The second half of K6: `true` until it is certain that nobody is inside.
    pub fn is_populated(&self) -> bool {
        self.leaf().is_some_and(CommandCgroup::is_populated)
    }

    /// What becomes ready (`POLLPRI`) when that changes.
    pub fn events(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        self.leaf().map(CommandCgroup::events)
    }

    /// Takes away what has been made. To be called when it is empty and nothing will be started any more.
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
