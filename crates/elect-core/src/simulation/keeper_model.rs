//! The keeper of the model, rule by rule as the program's own (K1, K2, K5, K6, K10).

use super::super::time::Time;
use super::clock::ms;
use super::command::{ProcessBehavior, Tree};
use super::coverage::Seen;
use super::host::{CampaignerModel, Delivery, ModelDeadline, ModelMessage, ProcessState};
use super::mutations::InjectedMutation;
use super::run::{SimEvent, Simulation};
use crate::{FromKeeper, NotStarted, Program, RunId, Term};

const ENOENT: i32 = 2;
const EBUSY: i32 = 16;

impl Simulation {
    /// Over the socket, which keeps the order and loses nothing.
    pub(super) fn tell_keeper(&mut self, h: usize, message: ModelMessage) {
        let at = self.now + self.rng.between(ms(0), ms(2));
        let host = &mut self.hosts[h];
        host.to_keeper_at = host.to_keeper_at.max(at);
        let at = host.to_keeper_at;
        self.push(at, SimEvent::ModelMessage(h, message));
    }

    fn answer(&mut self, h: usize, word: FromKeeper) {
        let at = self.now + self.rng.between(ms(0), ms(2));
        let host = &mut self.hosts[h];
        host.from_keeper_at = host.from_keeper_at.max(at);
        let at = host.from_keeper_at;
        self.schedule_delivery(h, at, Delivery::Keeper(word));
    }

    pub(super) fn keeper_hears(&mut self, h: usize, message: ModelMessage) {
        match self.hosts[h].keeper.state {
            ProcessState::Dead => {}
            ProcessState::Stopped => self.hosts[h].keeper.inbox.push_back(message),
            ProcessState::Running { .. } => {
                self.enforce(h);
                self.obey(h, message);
                self.look_after(h);
            }
        }
    }

    pub(super) fn keeper_timer(&mut self, h: usize, generation: u64) {
        if self.hosts[h].keeper.state.is_running() && self.hosts[h].keeper.timer == generation {
            self.enforce(h);
            self.look_after(h);
        }
    }

    pub(super) fn stop_keeper(&mut self, h: usize) {
        self.note(h, || "keeper stopped".into());
        self.coverage.count(Seen::KeeperStopped);
        self.hosts[h].keeper.state = ProcessState::Stopped;
        self.hosts[h].tree.disturbed = true;
    }

    pub(super) fn continue_keeper(&mut self, h: usize) {
        if self.hosts[h].keeper.state != ProcessState::Stopped {
            return;
        }
        self.note(h, || "keeper continued".into());
        self.coverage.count(Seen::KeeperContinued);
        self.hosts[h].keeper.state = ProcessState::Running { since: self.now };
        self.enforce(h);
        while let Some(message) = self.hosts[h].keeper.inbox.pop_front() {
            self.keeper_hears(h, message);
        }
        self.look_after(h);
    }

    fn obey(&mut self, h: usize, message: ModelMessage) {
        let alive = self.keeper_sees_a_tree(h);
        let run = self.hosts[h].keeper.run;
        match message {
            ModelMessage::Arm { term, kill_by } => self.arm(h, term, kill_by),
            // Over an empty tree any term may be armed: there it would be a new one.
            ModelMessage::Stray { term, kill_by } => {
                if alive || self.hosts[h].keeper.deadline.is_some_and(|deadline| deadline.term == term) {
                    self.arm(h, term, kill_by);
                }
            }
            ModelMessage::Stop { .. } | ModelMessage::Kill if self.hosts[h].keeper.refused.is_some() => {
                self.hosts[h].keeper.refused = Some((run, true));
            }
            ModelMessage::Start { program, run } => self.start(h, program, run),
            ModelMessage::Stop { .. } | ModelMessage::Kill if !alive => self.answer(h, FromKeeper::Empty { run }),
            ModelMessage::Stop { kill_at } => self.stop_tree(h, kill_at),
            ModelMessage::Kill => self.kill_tree(h),
            ModelMessage::Ping => self.answer(h, FromKeeper::Pong),
            ModelMessage::EndHold => self.hosts[h].keeper.hold = None,
            ModelMessage::Dismiss => self.stop_for_good(h, CampaignerModel::Dismissed),
            ModelMessage::End if self.injected_mutation == Some(InjectedMutation::KeeperIgnoresTheEnd) => {}
            ModelMessage::End => self.stop_for_good(h, CampaignerModel::Gone),
        }
    }

    /// K2: nobody is left to ask, so the tree is stopped within the deadline in force.
    fn stop_for_good(&mut self, h: usize, campaigner: CampaignerModel) {
        let host = &mut self.hosts[h];
        host.keeper.campaigner = campaigner;
        // The keeper itself waits for the rest of a refused start.
        host.keeper.refused = None;
        let governed = host.keeper.deadline.filter(|_| host.tree.is_governed());
        let kill_by = governed.map_or(Time::NEVER, |deadline| deadline.kill_by);
        let kill_at = (host.clock.at(self.now) + host.stop_timeout).min(kill_by);
        if self.keeper_sees_a_tree(h) {
            self.stop_tree(h, kill_at);
        }
    }

    /// K1: a new term opens only over an empty tree; within a term the deadline only moves forward.
    fn arm(&mut self, h: usize, term: Term, kill_by: Time) {
        let alive = self.keeper_sees_a_tree(h);
        let host = &mut self.hosts[h];
        let now = host.clock.at(self.now);
        let fresh = ModelDeadline { term, kill_by, expired: false };
        let deadline = match host.keeper.deadline {
            Some(_) if self.injected_mutation == Some(InjectedMutation::DeadlineOfAnyTerm) => fresh,
            Some(old) if old.term == term && self.injected_mutation == Some(InjectedMutation::DeadlineMovesBack) => {
                fresh
            }
            Some(old) if old.term == term => {
                // What has passed has passed, at least if a command was there.
                let passed = old.expired || (now >= old.kill_by && (alive || !self.setup.obliging));
                let kill_by = if passed { old.kill_by } else { old.kill_by.max(kill_by) };
                ModelDeadline { kill_by, ..old }
            }
            Some(old) if alive => old,
            Some(_) | None => fresh,
        };
        host.keeper.deadline = Some(deadline);
        if deadline.term != term || deadline.kill_by > kill_by {
            self.coverage.count(Seen::StrayArm);
        }
        self.answer(h, FromKeeper::Armed { term: deadline.term, kill_by: deadline.kill_by });
    }

    /// How the program will behave that is about to start, and with which status it will end.
    fn behavior(&mut self, h: usize, program: Program) -> (ProcessBehavior, u8) {
        let host = &self.hosts[h];
        let (timeout, stop_timeout) = (host.restart_check.policy.hooks.timeout, host.stop_timeout);
        let ttl = host.reference.ttl.or(host.reference.asked.ttl).expect("asked for");
        // In a history of restarts many commands end soon, and many of those fail.
        let restless = self.setup.supervised && !self.quiet;
        match (program, &self.setup.behavior) {
            (Program::OnElected { .. } | Program::OnOusted { .. }, _) if self.quiet => {
                (ProcessBehavior { lifetime: Some(ms(20)), ..ProcessBehavior::calm() }, 0)
            }
            (Program::OnElected { .. } | Program::OnOusted { .. }, _) => {
                let status = u8::from(self.rng.percent(15));
                (ProcessBehavior::hook(&mut self.rng, timeout, stop_timeout), status)
            }
            (Program::Follower, _) if self.quiet => (ProcessBehavior::calm(), 0),
            (Program::Follower, _) => {
                let status = u8::from(self.rng.percent(50));
                (ProcessBehavior::draw(&mut self.rng, ttl, stop_timeout), status)
            }
            (Program::Command { .. }, Some(behavior)) => (behavior.clone(), 0),
            (Program::Command { .. }, None) => {
                let behavior = match () {
                    () if self.quiet => ProcessBehavior::calm(),
                    () if restless && self.rng.percent(60) => {
                        let lifetime = self.rng.between(ms(1), ttl / 4);
                        ProcessBehavior {
                            lifetime: Some(lifetime),
                            ..ProcessBehavior::draw(&mut self.rng, ttl, stop_timeout)
                        }
                    }
                    () => ProcessBehavior::draw(&mut self.rng, ttl, stop_timeout),
                };
                let status = if restless && self.rng.percent(70) { self.rng.rng.u8(1..=3) } else { 0 };
                (behavior, status)
            }
        }
    }

    fn start(&mut self, h: usize, program: Program, run: RunId) {
        if self.hosts[h].keeper.refused.is_some() {
            self.violate("K5: a start before the keeper has confirmed that nothing is left of the refused one", h);
            return;
        }
        if self.keeper_sees_a_tree(h) {
            self.answer(h, FromKeeper::NotStarted { run, why: NotStarted::Failed(EBUSY) });
            return;
        }
        let host = &mut self.hosts[h];
        host.keeper.run = run;
        let now = host.clock.at(self.now);
        let governed = program.deadline_term();
        let armed = host.keeper.deadline.filter(|deadline| governed == Some(deadline.term) && !deadline.expired);
        // K5: checked immediately before exec.
        let in_time = governed.is_none()
            || armed.is_some_and(|deadline| now < deadline.kill_by)
            || self.injected_mutation == Some(InjectedMutation::StartsTooLate);
        match program {
            Program::Command { term } | Program::OnElected { term } => host.keeper.ousted_due = Some(term),
            Program::OnOusted { .. } if self.injected_mutation != Some(InjectedMutation::KeeperOustsAgain) => {
                host.keeper.ousted_due = None;
            }
            Program::OnOusted { .. } | Program::Follower => {}
        }
        let idle = matches!(program, Program::Command { .. }) && self.setup.following && h % 5 == 4;
        let (behavior, status) = if idle { (ProcessBehavior::nothing(), 0) } else { self.behavior(h, program) };
        let why = if !in_time {
            self.coverage.count(Seen::TooLate);
            self.hosts[h].reference.too_late_before = true;
            Some(NotStarted::TooLate)
        } else if behavior.fails {
            self.coverage.count(Seen::CannotStart);
            Some(NotStarted::Failed(ENOENT))
        } else {
            None
        };
        if in_time {
            self.follower_on_spawn(h, program);
        }
        if let Some(why) = why {
            self.refuse_start(h, run, why);
            return;
        }
        match program {
            Program::Command { term } => self.note(h, || format!("    command of term {term} starts: {behavior:?}")),
            Program::OnElected { .. } | Program::OnOusted { .. } | Program::Follower => {
                self.note(h, || format!("    {program:?} starts: {behavior:?}"));
            }
        }
        if let Some(term) = governed {
            self.check_birth(h, term);
        }
        if let Program::Command { term } = program {
            self.restarts_on_spawn(h, term);
            self.coverage.count(if idle { Seen::LedWithoutCommand } else { Seen::Started });
        }
        let host = &mut self.hosts[h];
        if std::mem::take(&mut host.reference.too_late_before) {
            self.coverage.count(Seen::StartedAfterAll);
        }
        let policy = host.restart_check.policy;
        if let Program::Command { term } = program
            && host.keeper.hold.is_none_or(|(of, _)| of != term)
        {
            host.keeper.hold = Some((term, now + policy.min_hold));
        }
        host.tree = Tree::born(self.now, program, run, &behavior, status);
        host.tree.disturbed = !host.campaigner.is_running();
        host.keeper.kill_at = Time::NEVER;
        host.keeper.until = match program {
            Program::OnElected { .. } | Program::OnOusted { .. } => now + policy.hooks.timeout,
            Program::Command { .. } | Program::Follower => Time::NEVER,
        };
        (host.keeper.end_reported, host.keeper.empty_reported) = (idle, false);
        let word = if idle { FromKeeper::NoCommand { run } } else { FromKeeper::Started { run, pid: 4711 } };
        self.answer(h, word);
        self.expect_death(h);
    }

    fn refuse_start(&mut self, h: usize, run: RunId, why: NotStarted) {
        self.answer(h, FromKeeper::NotStarted { run, why });
        // The child has to be reaped, which may take long where it cannot be executed or killed at once.
        let ttl = self.hosts[h].reference.ttl.or(self.hosts[h].reference.asked.ttl).expect("asked for");
        let longest = if self.rng.percent(20) && !self.quiet { ttl } else { ms(5) };
        let at = self.now + self.rng.between(ms(0), longest);
        self.hosts[h].keeper.refused = Some((run, false));
        self.push(at, SimEvent::Cleared(h, run));
    }

    /// Nothing is left of a refused start, or of nothing at all if there is no hook beside it or everything was to
    /// stop.
    pub(super) fn clears(&mut self, h: usize, run: RunId) {
        match self.hosts[h].keeper.state {
            ProcessState::Dead => {}
            ProcessState::Stopped => self.push(self.now + ms(10), SimEvent::Cleared(h, run)),
            ProcessState::Running { .. } => {
                let Some((_, asked)) = self.hosts[h].keeper.refused.take() else { return };
                let beside = !asked && self.rng.percent(50);
                if beside {
                    self.coverage.count(Seen::Cleared);
                }
                self.answer(h, if beside { FromKeeper::Cleared { run } } else { FromKeeper::Empty { run } });
            }
        }
    }

    /// The stop signal now, SIGKILL at `kill_at` or when it was already due, whichever is first.
    fn stop_tree(&mut self, h: usize, kill_at: Time) {
        let host = &mut self.hosts[h];
        let first = host.tree.stopped.is_none() && host.tree.killed.is_none();
        host.keeper.kill_at = host.keeper.kill_at.min(kill_at);
        if first {
            host.tree.stop(self.now);
            self.note(h, || "    command gets the stop signal".into());
            self.expect_death(h);
        }
    }

    /// SIGKILL, by whom it may be.
    pub(super) fn kill_tree(&mut self, h: usize) {
        if !self.hosts[h].tree.is_alive() || self.hosts[h].tree.killed.is_some() {
            return;
        }
        self.check_kill(h);
        self.note(h, || "    command killed".into());
        let host = &mut self.hosts[h];
        if host.tree.stopped.is_some() {
            let follows = host.tree.program == Some(Program::Follower);
            self.coverage.count(if follows { Seen::FollowerEscalated } else { Seen::Escalated });
        }
        host.tree.kill(self.now, &mut self.rng);
        self.expect_death(h);
    }

    fn expect_death(&mut self, h: usize) {
        let at = self.hosts[h].tree.next_death();
        if at != std::time::Duration::MAX {
            self.push(at, SimEvent::Death(h));
        }
    }

    pub(super) fn death(&mut self, h: usize) {
        if self.hosts[h].tree.bury(self.now) {
            self.expect_death(h);
            self.look_after(h);
            self.host_changed(h);
        }
    }

    /// K1: past a deadline the tree is killed, whatever anybody says.
    fn enforce(&mut self, h: usize) {
        if !self.keeper_sees_a_tree(h) {
            return;
        }
        let host = &mut self.hosts[h];
        let now = host.clock.at(self.now);
        let passed = |deadline: &ModelDeadline| !deadline.expired && now >= deadline.kill_by;
        let unbroken = self.injected_mutation != Some(InjectedMutation::NoKeeperDeadline);
        // The deadline of a term says nothing of what runs outside of it.
        let governed = host.tree.is_governed() || self.injected_mutation == Some(InjectedMutation::DeadlineForAll);
        let expired = host.keeper.deadline.as_mut().filter(|deadline| passed(deadline) && unbroken && governed);
        if let Some(deadline) = expired {
            deadline.expired = true;
            let term = deadline.term;
            if host.tree.killed.is_none() {
                self.coverage.count(Seen::KeeperExpired);
            }
            self.kill_tree(h);
            self.answer(h, FromKeeper::Expired { term });
        }
        let keeper = &mut self.hosts[h].keeper;
        if now >= keeper.kill_at.min(keeper.until) {
            (keeper.kill_at, keeper.until) = (Time::NEVER, Time::NEVER);
            self.kill_tree(h);
        }
    }

    fn keeper_sees_a_tree(&self, h: usize) -> bool {
        !self.hosts[h].keeper.empty_reported
    }

    /// Reaps, and says what there is to say.
    fn look_after(&mut self, h: usize) {
        if !self.hosts[h].keeper.state.is_running() {
            return;
        }
        let host = &mut self.hosts[h];
        let now = host.clock.at(self.now);
        let run = host.keeper.run;
        if let Some(end) = host.tree.main_end().filter(|_| !host.keeper.end_reported) {
            host.keeper.end_reported = true;
            if host.tree.ended_first.is_some() {
                self.coverage.count(Seen::EndedItself);
            }
            if host.tree.is_alive() {
                self.coverage.count(Seen::LeftDescendants);
            }
            let kill_at = now + host.stop_timeout;
            self.answer(h, FromKeeper::Exited { run, end });
            // K10: what remains of the tree gets its time.
            if self.hosts[h].tree.is_alive() && self.hosts[h].tree.stopped.is_none() {
                self.stop_tree(h, kill_at);
            }
        }
        let host = &mut self.hosts[h];
        let empty = !host.tree.is_alive()
            || (self.injected_mutation == Some(InjectedMutation::MainAloneCounts) && host.tree.main_end().is_some());
        if empty && !host.keeper.empty_reported {
            host.keeper.empty_reported = true;
            (host.keeper.kill_at, host.keeper.until) = (Time::NEVER, Time::NEVER);
            self.note(h, || "    tree empty".into());
            self.answer(h, FromKeeper::Empty { run });
        }
        self.set_timer(h);
        self.check_deadline(h);
        let host = &self.hosts[h];
        if host.keeper.empty_reported && host.keeper.campaigner != CampaignerModel::Present && !self.keeper_holds(h) {
            self.keeper_ends(h);
        }
    }

    /// K2: until when the keeper keeps the claim, if its campaigner is dead and the lease lasts for so long.
    fn held_until(&self, h: usize) -> Time {
        let keeper = &self.hosts[h].keeper;
        let ours = keeper.empty_reported && keeper.campaigner == CampaignerModel::Gone;
        match keeper.hold {
            Some((_, until)) if ours && self.injected_mutation != Some(InjectedMutation::KeeperForgetsTheHold) => until,
            Some(_) | None => Time::BOOT,
        }
    }

    fn outlives_its_lease(&self, h: usize) -> bool {
        let lease_ends = self.hosts[h].keeper.deadline.map_or(Time::NEVER, |deadline| deadline.kill_by);
        self.held_until(h) > lease_ends
    }

    fn keeper_holds(&self, h: usize) -> bool {
        self.hosts[h].clock.at(self.now) < self.held_until(h) && !self.outlives_its_lease(h)
    }

    /// K2: without a campaigner the keeper runs the last hook itself. Returns whether there is one now.
    fn keeper_ousts(&mut self, h: usize) -> bool {
        let host = &mut self.hosts[h];
        let wished = host.restart_check.policy.hooks.on_ousted
            && self.injected_mutation != Some(InjectedMutation::KeeperForgetsOusted);
        let gone = host.keeper.campaigner == CampaignerModel::Gone && wished;
        let Some(term) = host.keeper.ousted_due.take_if(|_| gone) else { return false };
        self.coverage.count(Seen::OustedByKeeper);
        let run = self.hosts[h].keeper.run + 1;
        self.start(h, Program::OnOusted { term }, run);
        !self.hosts[h].keeper.empty_reported
    }

    fn keeper_ends(&mut self, h: usize) {
        if self.keeper_ousts(h) {
            self.set_timer(h);
            return;
        }
        let held = self.hosts[h].clock.at(self.now) < self.held_until(h);
        let host = &mut self.hosts[h];
        host.keeper.state = ProcessState::Dead;
        if held {
            self.coverage.count(Seen::KeeperLeftTheHoldToTheLease);
        } else if host.keeper.campaigner == CampaignerModel::Gone {
            self.restarts_on_keeper_death(h);
            self.follower_on_keeper_death(h);
            self.note(h, || "    keeper releases".into());
            self.check_empty(h, "2.3: a keeper released while the tree was alive");
            let request = self.hosts[h].client.keeper_release();
            self.send(h, None, 0, request);
        }
        self.host_changed(h);
    }

    fn set_timer(&mut self, h: usize) {
        let hold = if self.keeper_holds(h) { self.held_until(h) } else { Time::NEVER };
        let host = &mut self.hosts[h];
        let deadline = match host.keeper.deadline {
            Some(ModelDeadline { expired: false, kill_by, .. })
                if !host.keeper.empty_reported && host.tree.is_governed() =>
            {
                kill_by
            }
            Some(_) | None => Time::NEVER,
        };
        let due = deadline.min(host.keeper.kill_at).min(host.keeper.until).min(hold);
        if due == host.keeper.due {
            return;
        }
        host.keeper.due = due;
        host.keeper.timer += 1;
        let (at, generation) = (host.clock.when(due), host.keeper.timer);
        if at != std::time::Duration::MAX {
            let at = at.max(self.now) + self.rng.lateness();
            self.push(at, SimEvent::KeeperTimer(h, generation));
        }
    }
}
