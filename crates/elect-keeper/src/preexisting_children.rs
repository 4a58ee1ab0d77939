//! Children inherited across exec (`sh -c 'x & exec elect'`) and their descendants: no part of the command's tree, and
//! never killed.

use std::io;

use super::sys;

/// A process outside the command's tree, identified by process id and start time, because process ids are reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PreexistingChild {
    pub pid: i32,
    pub start: u64,
}

impl PreexistingChild {
    pub fn of(pid: i32) -> Option<PreexistingChild> {
        PreexistingChild::read(pid).ok().flatten()
    }

    /// The same; `Ok(None)` if there is no such process.
    ///
    /// # Errors
    ///
    /// Its `/proc` entry cannot be read, for example for lack of a descriptor.
    pub fn read(pid: i32) -> io::Result<Option<PreexistingChild>> {
        Ok(sys::start_time_of(pid)?.map(|start| PreexistingChild { pid, start }))
    }

    /// Whether the process still exists. An unreadable `/proc` entry counts as existing, so that a process outside the
    /// tree is never killed.
    pub fn still_exists(self) -> bool {
        sys::start_time_of(self.pid).is_err() || PreexistingChild::of(self.pid) == Some(self)
    }
}
