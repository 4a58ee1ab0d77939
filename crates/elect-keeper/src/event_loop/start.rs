//! Starts a program as a tree: the command, the hook before it, the hook after it, or the follower. One at a time.

use std::ffi::OsString;
use std::time::Duration;

use super::stopping::Stop;
use super::{CampaignerState, CommandTree, KeeperLoop, MainProcess};
use crate::clock;
use crate::namespace::Init;
use crate::spawn::spawn;
use elect_core::{FromKeeper, NotStarted, Program, RunId, Term, Time};

/// The environment variables that name the candidate, the term and the leader.
pub type IdentityVars = Vec<(OsString, OsString)>;

/// The hook that must still run after a term.
#[derive(Debug)]
pub struct PendingOustedHook {
    term: Term,
    identity: IdentityVars,
}

impl KeeperLoop {
    pub(super) fn start(&mut self, program: Program, run: RunId, identity: IdentityVars) {
        if let CommandTree::Alive { .. } = self.tree {
            // Two trees never exist at once. The campaigner learns of its mistake; a later `Empty` confirms this order.
            self.last_ordered_run = run;
            let why = NotStarted::Failed(libc::EBUSY);
            self.outbox.push_back(FromKeeper::NotStarted { run, why });
            return;
        }
        (self.run, self.last_ordered_run) = (run, run);
        self.pending_signals.clear();
        match self.spawn_program(program, &identity) {
            Ok((main, init)) => {
                if let MainProcess::Nothing = main {
                    self.outbox.push_back(FromKeeper::NoCommand { run });
                }
                let (group, until) = (main.pid().unwrap_or_default(), clock::now() + self.run_timeout(program));
                let executes = matches!(main, MainProcess::Starting(_));
                let program = Some(program);
                self.tree = CommandTree::Alive { program, main, group, stop: Stop::NotRequested, init, until };
                if !executes {
                    self.adopt_finished_hook();
                }
            }
            Err(why) => {
                self.outbox.push_back(FromKeeper::NotStarted { run, why });
                // K6: with a background hook the tree is not empty; the campaigner must stop the hook explicitly.
                self.outbox.push_back(if self.has_no_hook() {
                    FromKeeper::Empty { run }
                } else {
                    FromKeeper::Cleared { run }
                });
            }
        }
        match program {
            Program::Command { term } | Program::OnElected { term } => {
                self.pending_ousted_hook = Some(PendingOustedHook { term, identity });
            }
            // The hook runs once, even if the campaigner ordered it.
            Program::OnOusted { .. } => self.pending_ousted_hook = None,
            Program::Follower => {}
        }
    }

    fn spawn_program(
        &mut self,
        program: Program,
        identity: &IdentityVars,
    ) -> Result<(MainProcess, Option<Init>), NotStarted> {
        // K5: the first look at the deadline; the child looks again immediately before exec.
        let kill_by = match program.deadline_term() {
            Some(term) => {
                let armed = self.deadline.filter(|deadline| deadline.term == term && clock::now() < deadline.kill_by);
                armed.ok_or(NotStarted::TooLate)?.kill_by
            }
            None => Time::NEVER,
        };
        let spec = self.spec.as_ref().ok_or(NotStarted::Failed(libc::ENOENT))?;
        let executable = match (spec.executable(program), program) {
            (Some(executable), _) => executable,
            (None, Program::Command { .. }) => return Ok((MainProcess::Nothing, None)),
            (None, Program::OnElected { .. } | Program::OnOusted { .. } | Program::Follower) => {
                return Err(NotStarted::Failed(libc::ENOENT));
            }
        };
        // K9: a follower that held the lock would keep it from the leader.
        let holds_the_lock = match program {
            Program::Command { .. } | Program::OnElected { .. } | Program::OnOusted { .. } => true,
            Program::Follower => false,
        };
        if holds_the_lock && self.claim_is_incomplete {
            return Err(NotStarted::Failed(libc::EMFILE));
        }
        let terminal = match program {
            Program::Command { .. } => Some(&mut self.terminal),
            Program::OnElected { .. } | Program::OnOusted { .. } | Program::Follower => None,
        };
        let lock = self.claim.as_ref().and_then(|claim| claim.descriptors.first()).filter(|_| holds_the_lock);
        let mut spawned = spawn(&self.tier, &executable, identity, self.inherited, lock, kill_by, terminal)
            .map_err(|error| NotStarted::Failed(error.raw_os_error().unwrap_or(libc::EIO)))?;
        let init = spawned.init.take();
        Ok((MainProcess::Starting(spawned), init))
    }

    fn run_timeout(&self, program: Program) -> Duration {
        match (program, &self.spec) {
            (Program::OnElected { .. } | Program::OnOusted { .. }, Some(spec)) => spec.scripts.hook_timeout,
            (Program::OnElected { .. } | Program::OnOusted { .. }, None)
            | (Program::Command { .. } | Program::Follower, _) => Duration::MAX,
        }
    }

    /// K2: with the campaigner gone and the tree empty, the keeper runs the last hook itself. Returns whether it has
    /// started.
    pub(super) fn run_ousted_hook(&mut self) -> bool {
        let is_configured = self.spec.as_ref().is_some_and(|spec| spec.scripts.on_ousted.is_some());
        let Some(PendingOustedHook { term, identity }) = self.pending_ousted_hook.take() else { return false };
        if self.campaigner != CampaignerState::Gone || !is_configured {
            return false;
        }
        self.start(Program::OnOusted { term }, self.run + 1, identity);
        matches!(self.tree, CommandTree::Alive { .. })
    }
}
