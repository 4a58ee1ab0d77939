//! Commands that a test lets run into their deadline.

use super::harness::*;
use crate::clock;
use elect_core::{Program, Time};

impl KeeperFixture {
    /// Starts the command, and waits until its tree has written these lines. Returns its process id, and the deadline that it
    /// is under: three quarters of [`SOON`] are left of that at least, however long the start has taken.
    pub fn start_under_deadline(&mut self, lines: &[&str]) -> (i32, Time) {
        self.start_program_under_deadline(Program::Command { term: TERM }, lines)
    }

    pub fn start_program_under_deadline(&mut self, program: Program, lines: &[&str]) -> (i32, Time) {
        let mut kill_by = self.arm_for(SOON);
        let pid = self.start_program(program);
        let mut missing = lines.to_vec();
        until("the words of the command", || {
            // A deadline may move forward, and so it does for as long as the command is on its way.
            if clock::now() + SOON * 3 / 4 > kill_by {
                kill_by = self.arm_for(SOON);
            }
            while let Some(line) = self.witness.line_at_hand() {
                let known = missing.iter().position(|expected| *expected == line);
                missing.remove(known.unwrap_or_else(|| panic!("{line:?} was said, not {missing:?}")));
            }
            missing.is_empty()
        });
        (pid, kill_by)
    }
}
