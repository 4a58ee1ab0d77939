//! A list of processes for the log: a few by name, the others as a number. No decision depends on it.

use std::fmt;

/// The number of processes that are named.
pub const PROCESSES_NAMED_MAX: usize = 4;
/// The length of a name in the kernel, with its final zero.
const NAME_BYTES: usize = 16;

/// Some processes: how many, and the first few by name. It has a fixed size, so that no memory is needed for it (K3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ProcessList {
    /// How many there are.
    pub count: u32,
    /// The first few.
    named: [Option<NamedProcess>; PROCESSES_NAMED_MAX],
}

/// A process by id and name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NamedProcess {
    /// Its process id.
    pub pid: i32,
    /// Its name, as the kernel has it, filled up with zeros.
    pub name: [u8; NAME_BYTES],
}

impl ProcessList {
    /// Adds a process. Its name is asked for only if there is room for it.
    pub fn add(&mut self, pid: i32, name: impl FnOnce() -> [u8; NAME_BYTES]) {
        self.count = self.count.saturating_add(1);
        if let Some(place) = self.named.iter_mut().find(|place| place.is_none()) {
            *place = Some(NamedProcess { pid, name: name() });
        }
    }

    /// The processes that are named.
    pub fn named(&self) -> impl Iterator<Item = &NamedProcess> {
        self.named.iter().flatten()
    }
}

/// `nginx (pid 12), nginx (pid 13) and 3 more`
impl fmt::Display for ProcessList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, process) in self.named().enumerate() {
            let separator = if place == 0 { "" } else { ", " };
            write!(f, "{separator}{process}")?;
        }
        match (self.count as usize).saturating_sub(self.named().count()) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

impl fmt::Display for NamedProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = self.name.iter().position(|byte| *byte == 0).unwrap_or(NAME_BYTES);
        let name = String::from_utf8_lossy(&self.name[..length]);
        write!(f, "{} (pid {})", if name.is_empty() { "?" } else { &name }, self.pid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_few_are_named_and_the_others_are_counted() {
        let mut processes = ProcessList::default();
        for pid in 1..=6 {
            processes.add(pid, || *b"nginx\0\0\0\0\0\0\0\0\0\0\0");
            if pid == 2 {
                assert_eq!(processes.to_string(), "nginx (pid 1), nginx (pid 2)");
            }
        }
        let expected = "nginx (pid 1), nginx (pid 2), nginx (pid 3), nginx (pid 4) and 2 more";
        assert_eq!(processes.to_string(), expected);
        assert_eq!(NamedProcess { pid: 7, name: [0; 16] }.to_string(), "? (pid 7)");
    }
}
