//! The campaigner's shell in the model: what the driver does around the real [`Candidate`](super::super::Candidate).

use std::time::Duration;

use super::super::Phase;
use super::super::event::{Action, Answer, Attempt, Campaigned, Event, FromKeeper, Job, Report};
use super::super::time::Time;
use super::clock::ms;
use super::coverage::Seen;
use super::host::{Letter, Life, ToKeeper};
use super::store::{Ask, Next, Reply, Request};
use super::transcript;
use super::world::{What, World};

impl World {
    pub(super) fn post(&mut self, h: usize, at: Duration, letter: Letter) {
        self.push(at, What::Letter(h, letter));
    }

    pub(super) fn letter_arrives(&mut self, h: usize, letter: Letter) {
        match self.hosts[h].campaigner {
            Life::Running { .. } => self.open_letter(h, letter),
            Life::Stopped => self.hosts[h].inbox.push(letter),
            Life::Dead => {}
        }
    }

    fn open_letter(&mut self, h: usize, letter: Letter) {
        match letter {
            Letter::Signal(event) => self.deliver(h, event),
            Letter::Keeper(word) => self.deliver(h, Event::Keeper(word)),
            Letter::KeeperDied => self.deliver(h, Event::KeeperDied),
            Letter::Swept { empty } => {
                self.coverage.count(if empty { Seen::Swept } else { Seen::SweptInVain });
                self.deliver(h, Event::Swept { empty });
            }
            Letter::Hint => {
                self.coverage.count(Seen::Hinted);
                self.deliver(h, Event::Hint);
            }
            Letter::Ousted(term) => {
                self.coverage.count(Seen::Ousted);
                self.deliver(h, Event::Ousted { term });
            }
            Letter::Reply { attempt, leg, reply } => {
                let host = &mut self.hosts[h];
                let now = host.clock.at(self.now);
                match host.client.reply(now, attempt, leg, reply, &mut self.dice) {
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
                        if matches!(answer, Answer::Campaign(Campaigned::Waiting { .. })) {
                            self.sighting(h);
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
        self.supervision_hears(h, now, event);
        self.following_hears(h, event);
        let lost = self.note_event(h, now, event);
        if lost {
            self.supervision_loses(h);
        }
        let before = self.hosts[h].candidate.phase();
        let actions = self.hosts[h].candidate.handle(now, event);
        for action in actions {
            self.perform(h, now, &action);
        }
        if lost && matches!(before, Phase::Leading | Phase::Stopping) {
            self.check_killed_at_once(h);
        }
        self.set_alarm(h, now, event);
        self.petition(h, event);
    }

    fn set_alarm(&mut self, h: usize, now: Time, event: Event) {
        let host = &mut self.hosts[h];
        let wake_at = host.candidate.wake_at();
        if event == Event::Tick {
            host.restless = if wake_at <= now { host.restless + 1 } else { 0 };
        }
        if host.restless > 3 {
            self.violate("the candidate asks to be woken at once, for ever", h);
            return;
        }
        if host.campaigner.is_running() && host.wake.1 != wake_at {
            host.wake = (host.wake.0 + 1, wake_at);
            let (generation, at) = (host.wake.0, host.clock.when(wake_at));
            if at != Duration::MAX {
                let at = at.max(self.now) + self.dice.lateness();
                self.push(at, What::Wake(h, generation));
            }
        }
    }

    pub(super) fn wake(&mut self, h: usize, generation: u64) {
        if self.hosts[h].wake.0 == generation && self.hosts[h].campaigner.is_running() {
            self.hosts[h].wake.1 = Time::NEVER;
            self.deliver(h, Event::Tick);
        }
    }

    fn perform(&mut self, h: usize, now: Time, action: &Action) {
        if !matches!(action, Action::Ping | Action::Sweep) {
            let clock = self.hosts[h].clock;
            self.note(h, || transcript::action(clock, action));
        }
        match *action {
            Action::Campaign(attempt) => {
                if self.hosts[h].tree.job != Some(Job::Follower) {
                    self.check_empty(h, "2.3: a candidate whose tree is alive stands again");
                }
                self.supervision_stands(h, now);
                self.following_stands(h);
                self.ask(h, now, Ask::Campaign, attempt);
            }
            Action::Renew(attempt) => {
                self.hosts[h].books.attempts += 1;
                self.ask(h, now, Ask::Renew, attempt);
            }
            Action::Release(attempt) => {
                if self.hosts[h].tree.job != Some(Job::Follower) {
                    self.check_empty(h, "2.3: a boundary was released while the tree was alive");
                }
                self.supervision_releases(h, now);
                self.following_releases(h);
                self.ask(h, now, Ask::Release, attempt);
            }
            Action::Arm { term, kill_by } => {
                self.tell_keeper(h, ToKeeper::Arm { term, kill_by });
                let heard = &mut self.hosts[h].keeper.heard;
                heard.push((term, kill_by));
                if self.setup.strays && self.dice.percent(5) {
                    let (term, kill_by) = self.dice.of(&self.hosts[h].keeper.heard);
                    self.tell_keeper(h, ToKeeper::Stray { term, kill_by });
                }
            }
            Action::EndHold => self.tell_keeper(h, ToKeeper::EndHold),
            Action::Grant { petition, term, until } => self.granted(h, petition, term, until),
            Action::Deny { petition, .. } => self.denied(h, petition),
            Action::Start { job, run } => {
                self.following_starts(h, job, run);
                if let Job::Command { term } = job {
                    self.supervision_starts(h, now, term);
                }
                self.tell_keeper(h, ToKeeper::Start { job, run });
            }
            Action::Stop { kill_at } => self.tell_keeper(h, ToKeeper::Stop { kill_at }),
            Action::Kill => {
                self.tell_keeper(h, ToKeeper::Kill);
                self.kill_tree(h);
            }
            Action::StartAside { .. } | Action::Forward(_) => {}
            Action::Ping => {
                self.check_pings(h);
                self.tell_keeper(h, ToKeeper::Ping);
            }
            Action::KillKeeper => {
                self.coverage.count(Seen::KeeperSilent);
                self.kill_keeper(h);
            }
            Action::Sweep => self.sweep(h),
            Action::Report(ref report) => self.reported(h, report),
            Action::End(ref outcome) => {
                self.patience_ends(h, outcome);
                self.supervision_ends(h, outcome);
                self.following_leaves(h);
                self.check_empty(h, "2.3: a candidate ended while its tree was alive");
                self.hosts[h].campaigner = Life::Dead;
                self.tell_keeper(h, ToKeeper::Dismiss);
                self.host_changed(h);
            }
        }
    }

    fn ask(&mut self, h: usize, now: Time, ask: Ask, attempt: Attempt) {
        let host = &mut self.hosts[h];
        host.books.request = Some((attempt, now, ask));
        let request = host.client.begin(now, ask, attempt);
        self.patience_asks(h, now, ask);
        self.send(h, Some(attempt), 0, request);
    }

    fn reported(&mut self, h: usize, report: &Report) {
        self.patience_reports(h, report);
        self.supervision_reports(h, report);
        self.following_reports(h, report);
        match report {
            Report::Won { term } => self.hosts[h].books.new_term(*term),
            Report::Elected { term } => {
                self.check_term(h, *term);
                self.coverage.count(Seen::Elected);
                if self.hosts[h].books.lost_before {
                    self.coverage.count(Seen::Regained);
                }
                for index in 0..self.present.len() {
                    let other = &self.hosts[self.present[index]];
                    if self.present[index] != h && other.campaigner != Life::Dead {
                        match (other.candidate.phase(), other.campaigner) {
                            (Phase::SittingOut, _) => self.coverage.count(Seen::ElectedBesideSitter),
                            (Phase::Stopping, _) => self.coverage.count(Seen::TakenWhileStopping),
                            (Phase::Leading, Life::Stopped) => self.coverage.count(Seen::ElectedBesideSleeper),
                            (
                                Phase::Standing
                                | Phase::Verifying
                                | Phase::Leading
                                | Phase::Holding
                                | Phase::Ousting
                                | Phase::Releasing
                                | Phase::Parting
                                | Phase::Ended,
                                _,
                            ) => {}
                        }
                    }
                }
            }
            Report::Unconfirmed { .. } => self.coverage.count(Seen::Unconfirmed),
            Report::Released { .. } => self.coverage.count(Seen::Released),
            Report::NotReleased { .. } => self.coverage.count(Seen::NotReleased),
            Report::CommandEnded { .. }
            | Report::TermTooLow { .. }
            | Report::Started { .. }
            | Report::Stopping { .. }
            | Report::Restarting { .. }
            | Report::Holding { .. }
            | Report::LostAtRest { .. }
            | Report::GivenUp { .. }
            | Report::NotAccepted { .. }
            | Report::HookFailed { .. }
            | Report::FollowerStarted { .. }
            | Report::FollowerEnded { .. }
            | Report::FollowerCannotStart(_)
            | Report::FollowerStopping { .. }
            | Report::FollowerUnconfirmed
            | Report::StandsAgain
            | Report::Unusable(_)
            | Report::NotElected
            | Report::Unavailable
            | Report::KeeperSilent
            | Report::KeeperDied => {}
        }
    }

    fn sweep(&mut self, h: usize) {
        if self.hosts[h].keeper.life != Life::Dead {
            self.violate("K4: a sweep beside a living keeper", h);
            return;
        }
        self.kill_tree(h);
        let empty = !self.hosts[h].tree.is_alive();
        self.post(h, self.now, Letter::Swept { empty });
    }

    // ---- what befalls it

    pub(super) fn kill_campaigner(&mut self, h: usize) {
        self.note(h, || "campaigner killed".into());
        self.coverage.count(Seen::CampaignerKilled);
        if matches!(self.hosts[h].tree.job, Some(Job::OnOusted { .. })) && self.hosts[h].tree.is_alive() {
            self.coverage.count(Seen::OustedOnlyOnce);
        }
        let host = &mut self.hosts[h];
        host.campaigner = Life::Dead;
        host.books.died_at = self.now;
        host.tree.disturbed = true;
        self.tell_keeper(h, ToKeeper::End);
        self.host_changed(h);
    }

    pub(super) fn stop_campaigner(&mut self, h: usize) {
        self.note(h, || "campaigner stopped".into());
        self.coverage.count(Seen::CampaignerStopped);
        self.hosts[h].campaigner = Life::Stopped;
        self.hosts[h].tree.disturbed = true;
    }

    pub(super) fn continue_campaigner(&mut self, h: usize) {
        if self.hosts[h].campaigner != Life::Stopped {
            return;
        }
        self.note(h, || "campaigner continued".into());
        let host = &mut self.hosts[h];
        host.campaigner = Life::Running { since: self.now };
        let now = host.clock.at(self.now);
        let asleep = host.books.lease.is_some_and(|lease| now >= lease.kill_by);
        if asleep && host.candidate.phase() == Phase::Leading {
            self.coverage.count(Seen::SleptPastDeadline);
        }
        // What was posted is there before the timer is looked at; the driver has an order of its own.
        let mut inbox = std::mem::take(&mut self.hosts[h].inbox);
        inbox.sort_by_key(Letter::rank);
        for letter in inbox {
            self.letter_arrives(h, letter);
        }
        self.hosts[h].wake.1 = Time::NEVER;
        self.deliver(h, Event::Tick);
    }

    pub(super) fn kill_keeper(&mut self, h: usize) {
        if self.hosts[h].keeper.life == Life::Dead {
            return;
        }
        self.note(h, || "keeper dead".into());
        self.hosts[h].keeper.life = Life::Dead;
        self.hosts[h].tree.disturbed = true;
        let at = self.now + self.dice.between(ms(0), ms(5));
        self.post(h, at, Letter::KeeperDied);
        self.host_changed(h);
    }
}
