//! The record of what a keeper does without its campaigner, for the one line that it logs at its end (K2).

use super::{CampaignerState, KeeperMachine};
use crate::{CommandEnd, Program};

/// What has happened since the campaigner's death.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FinalReport {
    /// The program that was stopped; `None`: nothing was running.
    pub program: Option<Program>,
    /// How it ended, unless it had ended before.
    pub end: Option<CommandEnd>,
    /// How `--on-ousted` ended, if the keeper has run it.
    pub ousted_hook_end: Option<CommandEnd>,
}

impl KeeperMachine {
    /// The report of a keeper whose campaigner has died; `None` while it lives, and after an orderly exit.
    #[must_use]
    pub fn final_report(&self) -> Option<FinalReport> {
        match self.campaigner {
            CampaignerState::Gone => Some(self.final_report),
            CampaignerState::Present | CampaignerState::Dismissed => None,
        }
    }

    /// Notes the end of a main process.
    pub(super) fn note_final_end(&mut self, program: Option<Program>, end: CommandEnd) {
        if self.campaigner != CampaignerState::Gone {
            return;
        }
        match program {
            Some(Program::OnOusted { .. }) if self.final_report.program != program => {
                self.final_report.ousted_hook_end = Some(end);
            }
            Some(
                Program::Command { .. } | Program::OnElected { .. } | Program::OnOusted { .. } | Program::Follower,
            )
            | None => self.final_report.end = Some(end),
        }
    }
}
