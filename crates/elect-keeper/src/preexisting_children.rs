//! Children inherited across exec (`sh -c 'x & exec elect'`) and their descendants: no part of the command's tree, and never
//! killed.

use super::sys;

/// A process that is not of the command's tree, by number and start: its number may become that of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PreexistingChild {
    pub pid: i32,
    pub start: u64,
}

impl PreexistingChild {
    pub fn of(pid: i32) -> Option<PreexistingChild> {
        sys::start_time_of(pid).ok().flatten().map(|start| PreexistingChild { pid, start })
    }

    /// Whether it is still there. Where that cannot be told, it counts as there: it is not ours to kill.
    pub fn still_exists(self) -> bool {
        sys::start_time_of(self.pid).is_err() || PreexistingChild::of(self.pid) == Some(self)
    }
}
