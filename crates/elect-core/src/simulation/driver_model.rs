//! The campaigner's shell in the model: what the driver does around the real [`Candidate`](super::super::Candidate).

use std::time::Duration;

use super::super::Phase;
use super::super::time::Time;
use super::clock::ms;
use super::coverage::Seen;
use super::faults::Fault;
use super::host::{Delivery, ProcessState};
use super::invariants::OpenRequest;
use super::keeper_shell::{ModelMessage, StruckProcess};
use super::run::{SimEvent, Simulation};
use super::store::{Ask, Next, Reply, Request};
use super::transcript;
use crate::{
    Action, Answer, Attempt, BackgroundHook, Campaigned, Event, FromKeeper, KeeperOrder, Notice, Program, Renewed,
};

/// The time within which a dismissed keeper must end before it is killed.
const KEEPER_EXIT_TIMEOUT: Duration = Duration::from_secs(2);

impl Simulation {
    pub(super) fn schedule_delivery(&mut self, h: usize, at: Duration, delivery: Delivery) {
        self.push(at, SimEvent::Delivery(h, delivery));
    }

    pub(super) fn on_delivery(&mut self, h: usize, delivery: Delivery) {
        match self.hosts[h].campaigner {
            ProcessState::Running { .. } => self.deliver_now(h, delivery),
            ProcessState::Stopped => self.hosts[h].inbox.push(delivery),
            ProcessState::Dead => {}
        }
    }

    fn deliver_now(&mut self, h: usize, delivery: Delivery) {
        match delivery {
            Delivery::Signal(event) => self.deliver(h, event),
            Delivery::Keeper(FromKeeper::CheckEnded { check, .. }) if self.setup.checking => self.check_ended(h, check),
            Delivery::Keeper(word) => self.deliver(h, Event::Keeper(word)),
            Delivery::KeeperDied => {
                // The first batch of its processes is killed before the candidate hears of its death.
                let _ = self.sweep_once(h);
                self.deliver(h, Event::KeeperDied);
            }
            Delivery::Swept { empty } => {
                self.coverage.count(if empty { Seen::Swept } else { Seen::SweptInVain });
                self.deliver(h, Event::Swept { empty });
            }
            Delivery::Hint => {
                self.coverage.count(Seen::Hinted);
                self.deliver(h, Event::Hint);
            }
            Delivery::Observed { attempt, answered } => {
                self.deliver(h, Event::Answer { attempt, answer: Answer::Observe(answered) });
                if answered && self.hosts[h].candidate.phase().may_follow() {
                    self.leader_observed(h);
                }
            }
            Delivery::Ousted(term) => {
                self.coverage.count(Seen::Ousted);
                self.deliver(h, Event::Ousted { term });
            }
            Delivery::Reply { attempt, leg, reply } => {
                let host = &mut self.hosts[h];
                let now = host.clock.at(self.now);
                match host.client.reply(now, attempt, leg, reply, &mut self.rng) {
                    Some((leg, Next::Call(request))) => {
                        if matches!(request, Request::Free { .. }) {
                            self.coverage.count(Seen::GaveBack);
                        }
                        self.send(h, Some(attempt), leg, request);
                    }
                    Some((_, Next::Answer(answer))) => {
                        let won = matches!(answer, Answer::Campaign(Campaigned::Won(_)));
                        if won && matches!(reply, Reply::Observed(_)) {
                            self.coverage.count(Seen::FoundOwnTake);
                        }
                        self.deliver(h, Event::Answer { attempt, answer });
                        let failed = [Answer::Campaign(Campaigned::Failed), Answer::Renew(Renewed::Failed)];
                        if failed.contains(&answer) {
                            self.hook_is_due(h, BackgroundHook::OnError);
                        }
                        if matches!(answer, Answer::Campaign(Campaigned::Waiting { .. })) {
                            self.leader_observed(h);
                        }
                    }
                    None => {}
                }
            }
        }
    }

    /// Tells the candidate what happened and performs what it wants.
    pub(super) fn deliver(&mut self, h: usize, event: Event) {
        if !self.hosts[h].campaigner.is_running() || self.violation.is_some() {
            return;
        }
        let now = self.hosts[h].clock.at(self.now);
        if !matches!(event, Event::Tick | Event::TermSeen(_) | Event::Keeper(FromKeeper::Pong)) {
            let clock = self.hosts[h].clock;
            self.note(h, || transcript::event(clock, &event));
        }
        self.restarts_on_event(h, now, event);
        self.follower_on_event(h, event);
        self.eligibility_on_event(h, now, event);
        let lost = self.note_event(h, now, event);
        if lost {
            self.restarts_on_loss(h);
        }
        let before = self.hosts[h].candidate.phase();
        let actions = self.hosts[h].candidate.handle(now, event);
        self.hosts[h].unperformed.extend(actions.into_iter().map(|action| (now, action)));
        self.perform_all(h);
        if !self.hosts[h].campaigner.is_running() {
            return;
        }
        if lost && matches!(before, Phase::Leading | Phase::Stopping) {
            self.check_killed_at_once(h);
        }
        self.set_alarm(h, now, event);
        self.request_id(h, event);
        self.drain_or_undrain(h, event);
    }

    /// Performs the actions of the candidate, one after the other, as long as the campaigner runs.
    fn perform_all(&mut self, h: usize) {
        while self.hosts[h].campaigner.is_running()
            && let Some((decided_at, action)) = self.hosts[h].unperformed.pop_front()
        {
            self.perform(h, decided_at, &action);
            self.strike_campaigner_between_actions(h);
        }
    }

    fn strike_campaigner_between_actions(&mut self, h: usize) {
        let host = &mut self.hosts[h];
        let Some(strike) = &mut host.strike else { return };
        self.strikes[strike.number].get_or_insert(self.now);
        strike.steps = strike.steps.saturating_sub(1);
        // After the last of several actions, it is struck between two events, as by any other fault.
        if strike.steps > 0 || host.unperformed.is_empty() || !host.campaigner.is_running() {
            return;
        }
        let fault = host.strike.take().map(|strike| strike.fault);
        if !host.keeper.state.is_running() || self.quiet {
            // 2.2, in an exploration; by chance it was only the wrong moment.
            self.is_uncovered |= self.setup.settles_from.is_some() && !host.keeper.state.is_running();
            return;
        }
        match fault {
            Some(StruckProcess::Killed) => {
                self.coverage.count(Seen::CampaignerKilledBetweenSteps);
                self.kill_campaigner(h);
            }
            Some(StruckProcess::StoppedFor(length)) => {
                self.coverage.count(Seen::CampaignerStoppedBetweenSteps);
                self.stop_campaigner(h);
                self.push(self.now + length, SimEvent::Fault(Fault::ContinueCampaigner(h)));
            }
            None => {}
        }
    }

    fn set_alarm(&mut self, h: usize, now: Time, event: Event) {
        let host = &mut self.hosts[h];
        let wake_at = host.candidate.wake_at();
        if event == Event::Tick {
            host.immediate_wakeups = if wake_at <= now { host.immediate_wakeups + 1 } else { 0 };
        }
        if host.immediate_wakeups > 3 {
            self.violate("the candidate asks to be woken at once, for ever", h);
            return;
        }
        if host.campaigner.is_running() && host.wake.1 != wake_at {
            host.wake = (host.wake.0 + 1, wake_at);
            let (generation, at) = (host.wake.0, host.clock.when(wake_at));
            if at != Duration::MAX {
                let at = at.max(self.now) + self.rng.lateness();
                self.push(at, SimEvent::Wake(h, generation));
            }
        }
    }

    pub(super) fn wake(&mut self, h: usize, generation: u64) {
        if self.hosts[h].wake.0 == generation && self.hosts[h].campaigner.is_running() {
            self.hosts[h].wake.1 = Time::NEVER;
            self.deliver(h, Event::Tick);
        }
    }

    /// Performs an action that was decided at this time.
    fn perform(&mut self, h: usize, now: Time, action: &Action) {
        if !matches!(action, Action::Ping | Action::Sweep) {
            let clock = self.hosts[h].clock;
            self.note(h, || transcript::action(clock, action));
        }
        match *action {
            Action::Campaign(attempt) => self.campaigns(h, now, attempt),
            Action::Renew(attempt) => {
                self.hosts[h].reference.attempts += 1;
                self.ask(h, now, Ask::Renew, attempt);
            }
            Action::Release(attempt) => self.releases(h, now, attempt),
            Action::Observe(attempt) => self.observes(h, attempt),
            Action::Arm { term, kill_by } => {
                self.refresh_preexisting_children(h);
                self.order_keeper(h, KeeperOrder::Arm { term, kill_by });
                let heard = &mut self.hosts[h].keeper.heard;
                heard.push((term, kill_by));
                if self.setup.strays && self.rng.percent(5) {
                    let (term, kill_by) = self.rng.of(&self.hosts[h].keeper.heard);
                    self.tell_keeper(h, ModelMessage::Stray { term, kill_by });
                }
            }
            Action::EndHold => self.order_keeper(h, KeeperOrder::EndHold),
            Action::Grant { request_id, term, until } => self.granted(h, request_id, term, until),
            Action::Deny { request_id, .. } if self.drain_denied(h, request_id) => {}
            Action::Deny { request_id, .. } => self.denied(h, request_id),
            Action::Drained { request_id, released } => self.drained(h, request_id, released),
            Action::Start { program, run } => {
                self.follower_on_start(h, program, run);
                if program.deadline_term().is_some() {
                    self.check_eligible(h);
                }
                if let Program::Command { term } = program {
                    self.restarts_on_start(h, now, term);
                }
                self.order_keeper(h, KeeperOrder::Start { program, run });
            }
            Action::Stop { kill_at } => self.order_keeper(h, KeeperOrder::Stop { kill_at }),
            Action::Kill => {
                self.order_keeper(h, KeeperOrder::Kill);
                let _ = self.kill_tree(h);
                self.hosts[h].reference.kill_ordered = Some(now);
            }
            Action::StartBackgroundHook { background_hook, hook_context } => {
                let context = hook_context;
                self.order_keeper(h, KeeperOrder::StartBackgroundHook { background_hook, context });
            }
            Action::StartCheck { check } => {
                self.note_check_start(h, now, check);
                self.order_keeper(h, KeeperOrder::StartCheck { check });
            }
            Action::Forward(signal) => self.order_keeper(h, KeeperOrder::Forward(signal)),
            Action::Ping => {
                self.check_pings(h);
                self.refresh_preexisting_children(h);
                self.order_keeper(h, KeeperOrder::Ping);
            }
            Action::KillKeeper => {
                self.coverage.count(Seen::KeeperSilent);
                self.check_silence(h);
                self.kill_keeper(h);
            }
            Action::Sweep => self.sweep(h),
            Action::Notice(ref report) => self.reported(h, report),
            Action::End(ref outcome) => {
                self.wait_limit_on_end(h, outcome);
                self.restarts_on_end(h, outcome);
                self.follower_on_end(h);
                self.check_empty(h, "2.3: a candidate ended while its tree was alive");
                self.hosts[h].campaigner = ProcessState::Dead;
                self.order_keeper(h, KeeperOrder::Dismiss);
                self.push(self.now + KEEPER_EXIT_TIMEOUT, SimEvent::KeeperExitTimeout(h));
                self.host_changed(h);
            }
        }
    }

    fn campaigns(&mut self, h: usize, now: Time, attempt: Attempt) {
        if self.hosts[h].tree.program != Some(Program::Follower) {
            self.check_empty(h, "2.3: a candidate whose tree is alive stands again");
        }
        self.check_campaigns(h);
        self.restarts_on_campaign(h, now);
        self.follower_on_campaign(h);
        self.ask(h, now, Ask::Campaign, attempt);
    }

    fn releases(&mut self, h: usize, now: Time, attempt: Attempt) {
        if self.hosts[h].tree.program != Some(Program::Follower) {
            self.check_empty(h, "2.3: a boundary was released while the tree was alive");
        }
        self.restarts_on_release(h, now);
        self.follower_on_release(h);
        self.ask(h, now, Ask::Release, attempt);
    }

    /// The attempt's time-out counts from the decision, the lease from the sending.
    fn ask(&mut self, h: usize, decided_at: Time, ask: Ask, attempt: Attempt) {
        let host = &mut self.hosts[h];
        let sent = host.clock.at(self.now);
        host.reference.request = Some(OpenRequest { attempt, decided_at, sent, ask });
        let request = host.client.begin(sent, ask, attempt);
        self.wait_limit_on_request(h, decided_at, ask);
        self.send(h, Some(attempt), 0, request);
    }

    fn reported(&mut self, h: usize, report: &Notice) {
        self.wait_limit_on_notice(h, report);
        self.restarts_on_notice(h, report);
        self.follower_on_notice(h, report);
        self.eligibility_on_notice(h, report);
        match report {
            Notice::Won { term } => self.hosts[h].reference.new_term(*term),
            Notice::Elected { term } => {
                self.check_term(h, *term);
                self.coverage.count(Seen::Elected);
                self.hook_is_due(h, BackgroundHook::OnChange);
                if self.hosts[h].reference.lost_before {
                    self.coverage.count(Seen::Regained);
                }
                for index in 0..self.present.len() {
                    let other = &self.hosts[self.present[index]];
                    if self.present[index] != h && other.campaigner != ProcessState::Dead {
                        match (other.candidate.phase(), other.campaigner) {
                            (Phase::CoolingDown, _) => self.coverage.count(Seen::ElectedBesideSitter),
                            (Phase::Stopping, _) => self.coverage.count(Seen::TakenWhileStopping),
                            (Phase::Leading, ProcessState::Stopped) => self.coverage.count(Seen::ElectedBesideSleeper),
                            (
                                Phase::Campaigning
                                | Phase::Ineligible
                                | Phase::Verifying
                                | Phase::Leading
                                | Phase::LeadingIdle
                                | Phase::OustedHook
                                | Phase::Releasing
                                | Phase::StoppingFollower
                                | Phase::Ended,
                                _,
                            ) => {}
                        }
                    }
                }
            }
            Notice::Unconfirmed { .. } => self.coverage.count(Seen::Unconfirmed),
            Notice::Released { .. } => self.coverage.count(Seen::Released),
            Notice::NotReleased { .. } => self.coverage.count(Seen::NotReleased),
            Notice::CommandEnded { .. }
            | Notice::TermTooLow { .. }
            | Notice::Started { .. }
            | Notice::LeftBehind { .. }
            | Notice::StopTimedOut { .. }
            | Notice::StopShortened { .. }
            | Notice::Killing { .. }
            | Notice::FollowerKilling
            | Notice::Stopping { .. }
            | Notice::Restarting { .. }
            | Notice::LeadingIdle { .. }
            | Notice::LostAtRest { .. }
            | Notice::GivenUp { .. }
            | Notice::NotAccepted { .. }
            | Notice::HookFailed { .. }
            | Notice::FollowerStarted { .. }
            | Notice::FollowerEnded { .. }
            | Notice::FollowerCannotStart(_)
            | Notice::FollowerStopping { .. }
            | Notice::FollowerUnconfirmed
            | Notice::CampaignsAgain
            | Notice::Drained
            | Notice::Undrained
            | Notice::Healthy
            | Notice::Unhealthy { .. }
            | Notice::LongUnhealthy { .. }
            | Notice::Unusable(_)
            | Notice::NotElected
            | Notice::Unavailable
            | Notice::KeeperSilent
            | Notice::KeeperDied => {}
        }
    }

    /// A dismissed keeper that has not ended is killed, and so is what it leaves.
    pub(super) fn keeper_exit_times_out(&mut self, h: usize) {
        if self.hosts[h].keeper.state != ProcessState::Dead {
            self.coverage.count(Seen::KeeperNotDismissed);
            // A dismissal that found no room behind other orders was not sent.
            let is_dismissed = self.hosts[h].outbox.is_empty();
            if is_dismissed && self.hosts[h].keeper.state.is_running() && !self.hosts[h].has_descendants() {
                self.violate("6: a dismissed keeper that has nothing left to wait for has not ended", h);
            }
            self.hosts[h].keeper.state = ProcessState::Dead;
            self.kill_all(h);
            self.host_changed(h);
        }
    }

    // ---- what befalls it

    pub(super) fn kill_campaigner(&mut self, h: usize) {
        self.note(h, || "campaigner killed".into());
        self.coverage.count(Seen::CampaignerKilled);
        if matches!(self.hosts[h].tree.program, Some(Program::OnOusted { .. })) && self.hosts[h].tree.is_alive() {
            self.coverage.count(Seen::OustedOnlyOnce);
        }
        let host = &mut self.hosts[h];
        (host.campaigner, host.campaigner_was_killed) = (ProcessState::Dead, true);
        host.reference.died_at = self.now;
        host.tree.disturbed = true;
        self.tell_keeper(h, ModelMessage::End);
        self.host_changed(h);
    }

    pub(super) fn stop_campaigner(&mut self, h: usize) {
        self.note(h, || "campaigner stopped".into());
        self.coverage.count(Seen::CampaignerStopped);
        self.hosts[h].campaigner = ProcessState::Stopped;
        self.hosts[h].tree.disturbed = true;
    }

    pub(super) fn continue_campaigner(&mut self, h: usize) {
        if self.hosts[h].campaigner != ProcessState::Stopped {
            return;
        }
        self.note(h, || "campaigner continued".into());
        let host = &mut self.hosts[h];
        host.campaigner = ProcessState::Running { since: self.now };
        let now = host.clock.at(self.now);
        let asleep = host.reference.lease.is_some_and(|lease| now >= lease.kill_by);
        if asleep && host.candidate.phase() == Phase::Leading {
            self.coverage.count(Seen::SleptPastDeadline);
        }
        self.perform_all(h);
        self.flush_to_keeper(h);
        // Messages that were posted precede the timer; the driver has an order of its own.
        let mut inbox = std::mem::take(&mut self.hosts[h].inbox);
        inbox.sort_by_key(Delivery::rank);
        for delivery in inbox {
            self.on_delivery(h, delivery);
        }
        // The keeper finds room for its messages.
        self.run_keeper(h);
        self.hosts[h].wake.1 = Time::NEVER;
        self.deliver(h, Event::Tick);
    }

    pub(super) fn kill_keeper(&mut self, h: usize) {
        if self.hosts[h].keeper.state == ProcessState::Dead {
            return;
        }
        self.note(h, || "keeper dead".into());
        self.hosts[h].keeper.state = ProcessState::Dead;
        self.hosts[h].tree.disturbed = true;
        let at = self.now + self.rng.between(ms(0), ms(5));
        self.schedule_delivery(h, at, Delivery::KeeperDied);
        self.host_changed(h);
    }
}
