//! A place in elect where a process can be held, so that a fault strikes between two steps.

use std::fs::{self, File};

use tempfile::TempDir;

use super::host_tools::attempt;
use super::{ElectCmd, until};

/// Where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GatePoint {
    /// The campaigner, before it lists its own children.
    Walk,
    /// A child of the keeper, between fork and exec.
    Exec,
    /// The same, after all that has to be prepared: the last place before the deadline is checked.
    LastStep,
    /// The same, once the child's group has the terminal.
    Terminal,
    /// The campaigner cannot hand a claim to its keeper: the socket is full.
    Claim,
}

/// Open until it is closed.
#[derive(Debug)]
pub struct SyscallGate {
    directory: TempDir,
    at: GatePoint,
}

impl SyscallGate {
    pub fn new(at: GatePoint) -> SyscallGate {
        let directory = tempfile::Builder::new().prefix("elect-gate-").tempdir().expect("a temporary directory");
        let gate = SyscallGate { directory, at };
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/harness/syscall_gate.c");
        attempt(["cc", "-shared", "-fPIC", "-O1", "-o", &gate.path("gate.so"), source]).expect("cc is there");
        gate
    }

    /// An elect that passes this gate.
    pub fn before(&self, elect: ElectCmd) -> ElectCmd {
        self.variables().into_iter().fold(elect, |elect, (name, value)| elect.variable(name, &value))
    }

    /// The variables of an elect that passes this gate.
    pub fn variables(&self) -> [(&'static str, String); 2] {
        let name = match self.at {
            GatePoint::Walk => "GATE_WALK",
            GatePoint::Exec => "GATE_EXEC",
            GatePoint::LastStep => "GATE_LAST_STEP",
            GatePoint::Terminal => "GATE_TERMINAL",
            GatePoint::Claim => "GATE_CLAIM",
        };
        [("LD_PRELOAD", self.path("gate.so")), (name, self.path(""))]
    }

    pub fn close(&self) {
        File::create(self.path("armed")).expect("a directory of ours");
    }

    /// Waits until somebody stands before it.
    #[track_caller]
    pub fn is_reached(&self) {
        until("somebody stands before the gate", || self.was_reached());
    }

    pub fn was_reached(&self) -> bool {
        fs::exists(self.path("reached")).expect("a directory of ours")
    }

    /// Returns when whoever stood before it has gone through.
    #[track_caller]
    pub fn open(&self) {
        let stands = self.was_reached() && self.at != GatePoint::Claim;
        fs::remove_file(self.path("armed")).expect("it was closed");
        if stands {
            until("it has gone through", || !self.was_reached());
        }
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }
}
