//! Containment tiers (K7): cgroup, PID namespace, or process-tree walk only.
//!
//! The walk ([`super::tree`]) is made in every tier: a descendant may leave its cgroup, and the deadline does not
//! depend on a tier. A tier adds one call that kills every process, however fast they fork and under whatever user they
//! run.
//!
//! The tier is chosen and proven before the keeper is forked, so that keeper and campaigner both hold the descriptors
//! that killing needs, and so that a tier that was requested and is not available is refused before a claim exists.

use std::io;
use std::os::fd::BorrowedFd;

use super::cgroup::{CommandCgroup, Entrance};
use super::namespace::ParentPidNs;
use super::sys::{self, Forked};
use super::tree::{self, KillSweep, Scanner, SweepSlice};

/// The number of processes killed one by one, which takes a small fraction of a kill allowance.
pub const INDIVIDUAL_KILLS_MAX: usize = 2 * 1024;

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
        /// A cgroup of its own for the health check, if there is one (H5).
        check_leaf: Option<CommandCgroup>,
        /// Requested by name: no program is started outside its leaf.
        is_mandatory: bool,
    },
    /// A PID namespace for each start of the command.
    Pidns(ParentPidNs),
    Tree,
}

/// The place in which one program is started.
#[derive(Debug, Clone, Copy)]
pub enum SpawnPlace<'a> {
    /// A cgroup.
    Leaf {
        leaf: &'a CommandCgroup,
        is_mandatory: bool,
        /// The keeper may wait for the kernel while the process is created (see [`CommandCgroup::fork`]).
        keeper_may_wait: bool,
    },
    /// A new PID namespace.
    NewNamespace(&'a ParentPidNs),
    /// The keeper's own cgroup and namespace.
    BesideKeeper,
}

impl SpawnPlace<'_> {
    /// Forks this process. The second value says whether the child is in its place: otherwise it has to [`enter`](SpawnPlace::enter)
    /// it before exec.
    ///
    /// # Errors
    ///
    /// As `fork(2)`.
    ///
    /// # Safety
    ///
    /// As [`sys::fork_into`].
    pub unsafe fn fork(self) -> io::Result<(Forked, bool)> {
        match self {
            // SAFETY: the caller's promise.
            SpawnPlace::Leaf { leaf, keeper_may_wait: true, .. } => unsafe { leaf.fork() },
            // SAFETY: the caller's promise.
            SpawnPlace::Leaf { keeper_may_wait: false, .. } => Ok((unsafe { sys::fork() }?, false)),
            // SAFETY: the caller's promise.
            SpawnPlace::NewNamespace(_) | SpawnPlace::BesideKeeper => Ok((unsafe { sys::fork() }?, true)),
        }
    }

    /// Whether the keeper may have to wait while it forks, so that orders may have come meanwhile.
    pub fn is_waited_for(self) -> bool {
        match self {
            SpawnPlace::Leaf { leaf, keeper_may_wait, .. } => keeper_may_wait && leaf.creates_inside(),
            SpawnPlace::NewNamespace(_) | SpawnPlace::BesideKeeper => false,
        }
    }

    /// The same place, into which the process moves itself.
    #[must_use]
    pub fn without_waiting(self) -> Self {
        match self {
            SpawnPlace::Leaf { leaf, is_mandatory, .. } => {
                SpawnPlace::Leaf { leaf, is_mandatory, keeper_may_wait: false }
            }
            SpawnPlace::NewNamespace(_) | SpawnPlace::BesideKeeper => self,
        }
    }

    /// Called by the main process between fork and exec (K6), unless it was created inside. A process is in its PID namespace
    /// from its creation.
    ///
    /// # Errors
    ///
    /// The leaf is gone, or the kernel has no memory, and the leaf is mandatory. Otherwise the tree walk remains.
    pub fn enter(self) -> io::Result<()> {
        match self {
            SpawnPlace::Leaf { leaf, is_mandatory, .. } => {
                leaf.enter().or_else(|error| if is_mandatory { Err(error) } else { Ok(()) })
            }
            SpawnPlace::NewNamespace(_) | SpawnPlace::BesideKeeper => Ok(()),
        }
    }
}

/// The processes that a kill spares.
#[derive(Debug, Clone, Copy)]
pub struct Spared<'a> {
    /// These processes and their descendants.
    pub processes: &'a [i32],
    /// Every process in the cgroup of the health check.
    pub check_leaf: bool,
}

/// A kill of everything.
pub const NONE_SPARED: Spared<'static> = Spared { processes: &[], check_leaf: false };

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
    /// Starts and reaps a child; must be called while SIGCHLD has its default disposition. `has_check` says whether
    /// there will be a health check.
    ///
    /// # Errors
    ///
    /// A requested tier is not available.
    pub fn establish(self, has_check: bool) -> Result<(Tier, Option<io::Error>), NoContainment> {
        match self {
            Containment::Auto => Ok(match Tier::cgroup(has_check, false) {
                Ok(tier) => (tier, None),
                Err(error) => (Tier::Tree, Some(error)),
            }),
            Containment::Cgroup => match Tier::cgroup(has_check, true) {
                Ok(tier) => Ok((tier, None)),
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

    fn cgroup(has_check: bool, is_mandatory: bool) -> io::Result<Tier> {
        let leaf = CommandCgroup::make(Entrance::CreationOrMove)?;
        let check_leaf = match has_check.then(|| CommandCgroup::make(Entrance::Move)).transpose() {
            Ok(check_leaf) => check_leaf,
            Err(error) => {
                leaf.remove();
                return Err(error);
            }
        };
        Ok(Tier::Cgroup { leaf, check_leaf, is_mandatory })
    }

    /// The leaf of the command and that of the health check.
    fn leaves(&self) -> [Option<&CommandCgroup>; 2] {
        match self {
            Tier::Cgroup { leaf, check_leaf, .. } => [Some(leaf), check_leaf.as_ref()],
            Tier::Pidns(_) | Tier::Tree => [None, None],
        }
    }

    /// The place of the command, of the follower and of the hooks. `keeper_may_wait`: nothing runs that the keeper would have
    /// to end in time, and it may be silent for a while.
    pub fn place(&self, keeper_may_wait: bool) -> SpawnPlace<'_> {
        match self {
            Tier::Cgroup { leaf, is_mandatory, .. } => {
                SpawnPlace::Leaf { leaf, is_mandatory: *is_mandatory, keeper_may_wait }
            }
            Tier::Pidns(parent_ns) => SpawnPlace::NewNamespace(parent_ns),
            Tier::Tree => SpawnPlace::BesideKeeper,
        }
    }

    /// The place of the health check (H5).
    pub fn check_place(&self) -> SpawnPlace<'_> {
        match self {
            Tier::Cgroup { check_leaf: Some(leaf), is_mandatory, .. } => {
                SpawnPlace::Leaf { leaf, is_mandatory: *is_mandatory, keeper_may_wait: false }
            }
            Tier::Cgroup { check_leaf: None, .. } | Tier::Pidns(_) | Tier::Tree => SpawnPlace::BesideKeeper,
        }
    }

    /// Sends SIGKILL to every descendant of `root`, and to every process in the leaves. Allocates nothing (K3).
    ///
    /// `cgroup.kill` is used only if the walk is not enough, because it waits for a kernel lock: a process that is
    /// being moved between cgroups, anywhere on the machine, holds that lock until every fork under way is done, and in
    /// a storm the forking processes wait for their turn among all the others. That wait took up to 2 s while a storm
    /// went on; it is short once the processes that can be killed without the lock are dead.
    pub fn kill(&self, scanner: &mut Scanner, root: i32, spared: Spared<'_>, progress: &mut dyn FnMut()) -> KillSweep {
        let [leaf, check_leaf] = self.leaves();
        let leaves = leaf.into_iter().chain(check_leaf.filter(|_| !spared.check_leaf));
        if leaf.is_none() {
            return scanner.kill(root, spared.processes, tree::DESCENDANTS_MAX, progress);
        }
        let is_populated = || leaves.clone().any(CommandCgroup::is_populated);
        match scanner.kill(root, spared.processes, INDIVIDUAL_KILLS_MAX, progress) {
            KillSweep::Complete(found) if found > 0 || !is_populated() => KillSweep::Complete(found),
            // The processes fork too fast or are too many, run as a user whom we may not signal, or are not
            // descendants.
            KillSweep::Complete(_) | KillSweep::Partial | KillSweep::Unlistable => {
                leaves.clone().for_each(CommandCgroup::kill);
                scanner.kill(root, spared.processes, tree::DESCENDANTS_MAX, progress)
            }
        }
    }

    /// Kills one batch ([`Scanner::kill_slice`]), for a caller that has other work to do.
    pub fn kill_slice(&self, scanner: &mut Scanner, root: i32, except: &[i32]) -> SweepSlice {
        let before = scanner.swept();
        let slice = scanner.kill_slice(root, except);
        let swept = scanner.swept();
        for leaf in self.leaves().into_iter().flatten() {
            let too_many = before <= INDIVIDUAL_KILLS_MAX && swept > INDIVIDUAL_KILLS_MAX;
            if too_many || (!matches!(slice, SweepSlice::More) && swept == 0 && leaf.is_populated()) {
                leaf.kill();
            }
        }
        slice
    }

    /// The same for what is in the leaves alone.
    pub fn kill_leaves(&self) {
        self.leaves().into_iter().flatten().for_each(CommandCgroup::kill);
    }

    /// Takes the way of [`Tier::kill_leaves`], and kills nothing.
    pub fn rehearse_kill_of_leaves(&self) {
        self.leaves().into_iter().flatten().for_each(CommandCgroup::rehearse_kill);
    }

    /// Whether processes are created in the leaves, to be restored after a kill that has killed nothing in them.
    pub fn creation(&self) -> [bool; 2] {
        self.leaves().map(|leaf| leaf.is_some_and(CommandCgroup::creates_inside))
    }

    pub fn restore_creation(&self, creation: [bool; 2]) {
        for (leaf, creates_inside) in self.leaves().into_iter().zip(creation) {
            if let Some(leaf) = leaf {
                leaf.restore_creation(creates_inside);
            }
        }
    }

    /// A child was killed. That SIGKILL may have come from `cgroup.kill`, whoever wrote to it (see [`CommandCgroup::fork`]).
    pub fn note_death_by(&self, signal: i32) {
        if signal == libc::SIGKILL {
            self.leaves().into_iter().flatten().for_each(CommandCgroup::create_outside);
        }
    }

    /// Sends SIGKILL to what an ended check has left in its leaf.
    pub fn kill_check_leftovers(&self) {
        // `cgroup.kill` may have to wait for a kernel lock, and most checks leave nothing.
        let [_, check_leaf] = self.leaves();
        check_leaf.into_iter().filter(|leaf| leaf.is_populated()).for_each(CommandCgroup::kill);
    }

    /// The second half of K6: `true` until it is certain that the leaves are empty.
    pub fn is_populated(&self) -> bool {
        self.leaves().into_iter().flatten().any(CommandCgroup::is_populated)
    }

    /// The same for the leaf of the command alone, beside a check that cannot be killed (H5).
    pub fn is_command_populated(&self) -> bool {
        let [leaf, _] = self.leaves();
        leaf.is_some_and(CommandCgroup::is_populated)
    }

    /// Whether a process is in the leaf of the check.
    pub fn is_check_populated(&self) -> bool {
        let [_, check_leaf] = self.leaves();
        check_leaf.is_some_and(CommandCgroup::is_populated)
    }

    /// Descriptors that become ready (`POLLPRI`) when that changes.
    pub fn events(&self) -> [Option<BorrowedFd<'_>>; 2] {
        self.leaves().map(|leaf| leaf.map(CommandCgroup::events))
    }

    /// Removes the leaves. Must be called when they are empty and no program will be started any more.
    pub fn remove(&self) {
        self.leaves().into_iter().flatten().for_each(CommandCgroup::remove);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leaf_that_cannot_be_entered_costs_the_start_where_it_is_a_must() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        for is_mandatory in [true, false] {
            let leaf = CommandCgroup::full(directory.path());
            let tier = Tier::Cgroup { leaf, check_leaf: None, is_mandatory };
            assert_eq!(tier.place(true).enter().is_err(), is_mandatory);
        }
    }
}
