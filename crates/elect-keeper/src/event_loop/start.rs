//! From an order to a tree: the command, the hook before it, the hook after it, the follower. One at a time.

use std::ffi::OsString;
use std::time::Duration;

use super::{CampaignerState, CommandTree, KeeperLoop, MainProcess, Stop};
use crate::clock;
use crate::namespace::Init;
use crate::spawn::spawn;
use elect_core::{FromKeeper, NotStarted, Program, RunId, Term, Time};

/// Who and where a program is, as variables.
pub type IdentityVars = Vec<(OsString, OsString)>;

/// The hook that is still to run after a term.
#[derive(Debug)]
pub struct PendingOustedHook {
    term: Term,
    identity: IdentityVars,
}

impl KeeperLoop {
    pub(super) fn start(&mut self, job: Program, run: RunId, identity: IdentityVars) {
        if let CommandTree::Alive { .. } = self.tree {
            // Two trees at once: never. The campaigner is told of its mistake; what is empty from here on is so after it.
            self.heard = run;
            let why = NotStarted::Failed(libc::EBUSY);
            self.outbox.push_back(FromKeeper::NotStarted { run, why });
            return;
        }
        (self.run, self.heard) = (run, run);
        self.kept.clear();
        match self.bear(job, &identity) {
            Ok((main, init)) => {
                if let MainProcess::Nothing = main {
                    self.outbox.push_back(FromKeeper::NoCommand { run });
                }
                let (group, until) = (main.pid().unwrap_or_default(), clock::now() + self.time_of(job));
                let executes = matches!(main, MainProcess::Starting(_));
                self.tree = CommandTree::Alive { job, main, group, stop: Stop::NotRequested, init, until };
                if !executes {
                    self.adopt_what_is_beside();
                }
            }
            Err(why) => {
                self.outbox.push_back(FromKeeper::NotStarted { run, why });
                // K6: a hook that runs beside nothing is not nothing; whoever wants it gone says so.
                self.outbox.push_back(if self.is_alone() {
                    FromKeeper::Empty { run }
                } else {
                    FromKeeper::Cleared { run }
                });
            }
        }
        match job {
            Program::Command { term } | Program::OnElected { term } => {
                self.ousted = Some(PendingOustedHook { term, identity });
            }
            // Once: whoever ordered it.
            Program::OnOusted { .. } => self.ousted = None,
            Program::Follower => {}
        }
    }

    fn bear(&mut self, job: Program, identity: &IdentityVars) -> Result<(MainProcess, Option<Init>), NotStarted> {
        let kill_by = match job.deadline_term() {
            Some(term) => {
                let armed = self.deadline.filter(|deadline| deadline.term == term && clock::now() < deadline.kill_by);
                armed.ok_or(NotStarted::TooLate)?.kill_by
            }
            None => Time::NEVER,
        };
        let program = self.program.as_ref().ok_or(NotStarted::Failed(libc::ENOENT))?;
        let executable = match (program.executable(job), job) {
            (Some(executable), _) => executable,
            (None, Program::Command { .. }) => return Ok((MainProcess::Nothing, None)),
            (None, Program::OnElected { .. } | Program::OnOusted { .. } | Program::Follower) => {
                return Err(NotStarted::Failed(libc::ENOENT));
            }
        };
        // K9: a follower that held the lock would keep it from whoever leads.
        let holds_the_lock = match job {
            Program::Command { .. } | Program::OnElected { .. } | Program::OnOusted { .. } => true,
            Program::Follower => false,
        };
        let terminal = match job {
            Program::Command { .. } => Some(&mut self.terminal),
            Program::OnElected { .. } | Program::OnOusted { .. } | Program::Follower => None,
        };
        let lock = self.claim.as_ref().and_then(|claim| claim.descriptors.first()).filter(|_| holds_the_lock);
        let mut spawned = spawn(&self.tier, &executable, identity, self.inherited, lock, kill_by, terminal)
            .map_err(|error| NotStarted::Failed(error.raw_os_error().unwrap_or(libc::EIO)))?;
        let init = spawned.init.take();
        Ok((MainProcess::Starting(spawned), init))
    }

    fn time_of(&self, job: Program) -> Duration {
        match (job, &self.program) {
            (Program::OnElected { .. } | Program::OnOusted { .. }, Some(program)) => program.scripts.hook_timeout,
            (Program::OnElected { .. } | Program::OnOusted { .. }, None)
            | (Program::Command { .. } | Program::Follower, _) => Duration::MAX,
        }
    }

    /// K2: with its campaigner gone, and nothing else left of the term, the keeper runs the last hook itself. Returns whether
    /// there is one now.
    pub(super) fn ousts(&mut self) -> bool {
        let wished = self.program.as_ref().is_some_and(|program| program.scripts.on_ousted.is_some());
        let Some(PendingOustedHook { term, identity }) = self.ousted.take() else { return false };
        if self.campaigner != CampaignerState::Gone || !wished {
            return false;
        }
        self.start(Program::OnOusted { term }, self.run + 1, identity);
        matches!(self.tree, CommandTree::Alive { .. })
    }
}
