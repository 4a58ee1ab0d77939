//! The follower: the program that runs while another candidate leads.
//!
//! ```text
//!          a leader is known          another leads (restart) · ended by itself · no longer campaigning
//! Gone ─────────────────────▶ Running ──────────────────────────────────────────────────────────────▶ Stopping ──▶ Gone
//! ```
//!
//! The follower is no state, for it decides nothing about leadership: it is started in `Campaigning` and `Ineligible` alone, and every
//! other state stops it. It can delay the states: the command of our own leadership does not start, and the program
//! does not end, before its tree is confirmed empty; if it cannot be emptied, the boundary is given back (K11) and not
//! asked for again (2.3).

use std::time::Duration;

use crate::context::Context;
use crate::end_report::EndReport;
use crate::input::KeeperInput;
use crate::mutation::Mutation;
use crate::policy::{OnChange, Restart};
use crate::restart_tracker::RestartBackoff;
use crate::state::SWEEP_INTERVAL;
use crate::{Action, CommandEnd, HookContext, KILL_ALLOWANCE, LeaderKey, Notice, Program, RunId, Time};

/// There is no limit to a follower's restarts, so there is one to their pace.
const FOLLOWER_RESTART_DELAY_MIN: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct Follower {
    /// `None`: there is none.
    on_change: Option<OnChange>,
    backoff: RestartBackoff,
    /// The leader that was observed last.
    leader: Option<LeaderKey>,
    /// The leader in the environment of the last run.
    told_leader: Option<LeaderKey>,
    /// How the main process of the last run ended.
    end: Option<CommandEnd>,
    /// A stop was asked for while it existed.
    stop_asked: bool,
    stage: FollowerStage,
}

#[derive(Debug)]
enum FollowerStage {
    /// Its tree is empty. It is started at this time if a leader is known then; never, if that takes another leader.
    Gone {
        start_at: Time,
    },
    Running {
        run: RunId,
        main: MainProcess,
    },
    Stopping(FollowerStop),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MainProcess {
    /// The keeper has been told to start it.
    Starting,
    Running,
}

#[derive(Debug)]
struct FollowerStop {
    run: RunId,
    why: StopCause,
    /// The time for SIGKILL, by the keeper or by the campaigner.
    kill_at: Time,
    /// The time at which the campaigner ordered SIGKILL. A campaigner that slept past `kill_at` orders it late, and the
    /// time that the tree then has counts from here.
    killed_at: Option<Time>,
    /// The time of the next notice that it still exists.
    report: EndReport,
    /// When the campaigner sweeps what a dead keeper left it; never, if that lives (K4).
    sweep_at: Time,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StopCause {
    /// It ended by itself, and is to be started again after this long, if at all.
    Ended { again: Option<Duration> },
    /// Another leads.
    Another,
    /// We do not follow any longer.
    Dismissed,
}

impl Follower {
    pub(super) fn new(on_change: Option<OnChange>, restart: Restart) -> Follower {
        let restart = Restart { delay: restart.delay.max(FOLLOWER_RESTART_DELAY_MIN), ..restart };
        Follower {
            on_change,
            backoff: RestartBackoff::new(restart),
            leader: None,
            told_leader: None,
            end: None,
            stop_asked: false,
            stage: FollowerStage::Gone { start_at: Time::NEVER },
        }
    }

    /// Whether its tree is confirmed empty.
    pub(super) fn is_gone(&self) -> bool {
        matches!(self.stage, FollowerStage::Gone { .. })
    }

    /// The context in which a background hook may be started, unless the follower is being stopped.
    pub(super) fn background_hook_slot(&self) -> Option<HookContext> {
        match self.stage {
            FollowerStage::Gone { .. } => Some(HookContext::Alone),
            FollowerStage::Running { run, .. } => Some(HookContext::WithRun(run)),
            FollowerStage::Stopping(_) => None,
        }
    }

    /// Whether it has been killed and is still there (2.3).
    pub(super) fn is_stuck(&self, now: Time) -> bool {
        match &self.stage {
            FollowerStage::Stopping(stopping) => stopping.killed_at.is_some_and(|at| now >= at + KILL_ALLOWANCE),
            FollowerStage::Gone { .. } | FollowerStage::Running { .. } => false,
        }
    }

    pub(super) fn is_run(&self, run: RunId) -> bool {
        match &self.stage {
            FollowerStage::Running { run: own, .. } | FollowerStage::Stopping(FollowerStop { run: own, .. }) => {
                *own == run
            }
            FollowerStage::Gone { .. } => false,
        }
    }

    fn is_swept(&self) -> bool {
        matches!(&self.stage, FollowerStage::Stopping(FollowerStop { sweep_at, .. }) if *sweep_at != Time::NEVER)
    }

    /// How it ended, for a program that was asked to stop while it followed: then its status is the program's.
    pub(super) fn end_after_stop(&self) -> Option<CommandEnd> {
        self.end.filter(|_| self.stop_asked)
    }

    /// Whether it has ended by itself and is to be started again.
    pub(super) fn is_between_runs(&self) -> bool {
        self.start_at() != Time::NEVER
    }

    fn start_at(&self) -> Time {
        match self.stage {
            FollowerStage::Gone { start_at } if self.leader.is_some() => start_at,
            FollowerStage::Gone { .. } | FollowerStage::Running { .. } | FollowerStage::Stopping(_) => Time::NEVER,
        }
    }

    /// Starts are due in `Campaigning` and `Ineligible` only.
    pub(super) fn wake_at(&self, stands: bool) -> Time {
        let start_at = if stands { self.start_at() } else { Time::NEVER };
        let FollowerStage::Stopping(stopping) = &self.stage else { return start_at };
        let kill_at = if stopping.killed_at.is_some() { Time::NEVER } else { stopping.kill_at };
        // The first report also wakes the states that wait for the end; the later ones are only reports.
        kill_at.min(stopping.report.wake_at()).min(stopping.sweep_at)
    }
}

impl Context {
    /// Handles an observation of the leader.
    pub(super) fn leader_observed(&mut self, now: Time, leader: Option<LeaderKey>) {
        if leader.is_some() {
            self.resign_tracker.another_leads();
        }
        let Some(on_change) = self.follower.on_change else { return };
        self.follower.leader = leader;
        // The follower goes on while there is no leader: the next one may be the same.
        let Some(leader) = leader.filter(|leader| Some(*leader) != self.follower.told_leader) else { return };
        match (&mut self.follower.stage, on_change) {
            (FollowerStage::Gone { start_at }, _) => *start_at = now,
            (FollowerStage::Running { .. }, OnChange::Restart) => self.stop_follower(now, StopCause::Another),
            (FollowerStage::Running { main: MainProcess::Running, .. }, OnChange::Signal(signal)) => {
                self.follower.told_leader = Some(leader);
                self.act(Action::Forward(signal));
            }
            (FollowerStage::Running { .. }, OnChange::Ignore) => self.follower.told_leader = Some(leader),
            // It gets the change as soon as it runs, or is started again with the leader of that time.
            (FollowerStage::Running { main: MainProcess::Starting, .. }, OnChange::Signal(_))
            | (FollowerStage::Stopping(_), _) => {}
        }
    }

    /// Starts the follower if that is due. Only while the candidate campaigns.
    pub(super) fn start_follower_if_due(&mut self, now: Time) {
        if now < self.follower.start_at() {
            return;
        }
        let run = self.start(Program::Follower);
        self.follower.told_leader = self.follower.leader;
        (self.follower.end, self.follower.stop_asked) = (None, false);
        self.follower.stage = FollowerStage::Running { run, main: MainProcess::Starting };
    }

    /// Handles a message of the keeper about the follower's run.
    pub(super) fn on_follower_message(&mut self, now: Time, word: KeeperInput) {
        match word {
            KeeperInput::Started(pid) => {
                self.notice(Notice::FollowerStarted { pid });
                self.follower.backoff.started(now);
                if let FollowerStage::Running { main, .. } = &mut self.follower.stage {
                    *main = MainProcess::Running;
                    // Another may lead since the order to start it.
                    let leader = self.follower.leader;
                    self.leader_observed(now, leader);
                }
            }
            KeeperInput::NotStarted(why) => {
                self.notice(Notice::FollowerCannotStart(why));
                self.follower_ended(now, None);
            }
            KeeperInput::Exited(end) => {
                self.notice(Notice::FollowerEnded { end });
                self.follower_ended(now, Some(end));
            }
            KeeperInput::Empty => self.follower_gone(now),
            KeeperInput::NoCommand
            | KeeperInput::Cleared
            | KeeperInput::Expired
            | KeeperInput::Died
            | KeeperInput::Swept { .. } => {}
        }
    }

    /// Its main process has ended. The rest of its tree has the stop time-out (K10).
    fn follower_ended(&mut self, now: Time, end: Option<CommandEnd>) {
        self.follower.end = end;
        match &self.follower.stage {
            FollowerStage::Running { .. } => {
                self.follower.backoff.ended(now);
                let again =
                    self.follower.backoff.goes_on_after(end).then(|| self.follower.backoff.delay(&mut self.jitter));
                self.stop_follower(now, StopCause::Ended { again });
            }
            FollowerStage::Stopping(_) | FollowerStage::Gone { .. } => {}
        }
    }

    /// Its tree is confirmed empty.
    fn follower_gone(&mut self, now: Time) {
        let FollowerStage::Stopping(stopping) = &self.follower.stage else { return };
        let another = self.follower.leader.is_some() && self.follower.leader != self.follower.told_leader;
        let start_at = match stopping.why {
            StopCause::Ended { .. } | StopCause::Another if another => now,
            StopCause::Ended { again: Some(delay) } => now + delay,
            StopCause::Another => now,
            StopCause::Ended { again: None } | StopCause::Dismissed => Time::NEVER,
        };
        self.follower.stage = FollowerStage::Gone { start_at };
    }

    /// The candidate does not campaign, so it follows no leader.
    pub(super) fn dismiss_follower(&mut self, now: Time) {
        if self.follower.on_change.is_none() {
            return;
        }
        (self.follower.leader, self.follower.told_leader) = (None, None);
        match &mut self.follower.stage {
            FollowerStage::Gone { start_at } => *start_at = Time::NEVER,
            FollowerStage::Running { .. } => self.stop_follower(now, StopCause::Dismissed),
            FollowerStage::Stopping(stopping) => stopping.why = StopCause::Dismissed,
        }
    }

    /// The stop signal, then SIGKILL; to one that has ended, that is for what it left behind.
    fn stop_follower(&mut self, now: Time, why: StopCause) {
        let FollowerStage::Running { run, .. } = self.follower.stage else { return };
        match why {
            StopCause::Ended { .. } => {}
            StopCause::Another => self.notice(Notice::FollowerStopping { for_another: true }),
            StopCause::Dismissed => self.notice(Notice::FollowerStopping { for_another: false }),
        }
        let kill_at = now + self.stop_timeout;
        self.act(Action::Stop { kill_at });
        let (report, sweep_at) = (EndReport::NEVER, Time::NEVER);
        let stopping = FollowerStop { run, why, kill_at, killed_at: None, report, sweep_at };
        self.follower.stage = FollowerStage::Stopping(stopping);
    }

    /// A stop was asked for; a second one kills at once.
    pub(super) fn stop_asked_of_follower(&mut self, now: Time) {
        if self.follower.is_gone() {
            return;
        }
        if std::mem::replace(&mut self.follower.stop_asked, true)
            && let FollowerStage::Stopping(stopping) = &mut self.follower.stage
        {
            let is_early = now < stopping.kill_at;
            stopping.kill_at = stopping.kill_at.min(now);
            if is_early {
                self.notice(Notice::FollowerKilling);
            }
            self.pass_follower_time(now);
        }
    }

    /// The keeper is dead: the campaigner inherits the tree and empties it itself (K4).
    pub(super) fn on_keeper_death(&mut self, now: Time) {
        self.stop_follower(now, StopCause::Dismissed);
        if let FollowerStage::Stopping(stopping) = &mut self.follower.stage {
            // A sweep is a kill.
            stopping.killed_at.get_or_insert(now);
            stopping.sweep_at = now;
            stopping.report.bring_forward(now, now);
            self.pass_follower_time(now);
        }
    }

    /// A sweep has been made. Returns whether it was this tree's.
    pub(super) fn follower_swept(&mut self, now: Time, empty: bool) -> bool {
        let own = self.follower.is_swept();
        if own && empty {
            self.follower_gone(now);
        }
        own
    }

    pub(super) fn pass_follower_time(&mut self, now: Time) {
        let FollowerStage::Stopping(stopping) = &mut self.follower.stage else { return };
        if now >= stopping.kill_at && stopping.killed_at.is_none() {
            (stopping.killed_at, stopping.report) = (Some(now), EndReport::after_kill_at(now, now));
            self.actions.push(Action::Kill);
        }
        if stopping.report.is_due(now) {
            self.actions.push(Action::Notice(Notice::FollowerUnconfirmed));
        }
        if now >= stopping.sweep_at {
            stopping.sweep_at = now + SWEEP_INTERVAL;
            self.actions.push(Action::Sweep);
        }
    }

    /// Whether nothing of it is in the way of our own leadership.
    pub(super) fn is_without_follower(&self) -> bool {
        self.follower.is_gone() || self.mutated(Mutation::FollowerBesideLeader)
    }

    /// Whether a killed follower is still there: nothing is asked for then (2.3).
    pub(super) fn is_held_up(&self, now: Time) -> bool {
        self.follower.is_stuck(now) && !self.mutated(Mutation::StandsBesideStuckFollower)
    }
}
