//! The driver: one loop with one `select!` that passes events to the election and performs its actions.
//!
//! Each arm is cancel safe and yields a plain value; actions are performed synchronously, in the order in which they are
//! decided. Performing one never waits: worker, keeper and kernel take the time, and the result comes back as an event.

mod control_requests;
mod signal;
mod start;

use std::collections::VecDeque;
use std::io;

use tokio::io::unix::AsyncFd;

use crate::command_env::{self, CommandEnv};
use crate::control::{ControlServer, IncomingRequest};
use crate::event_log::{self, EventLog};
use crate::http::HttpServer;
use crate::job_control::{JobControl, JobEvent};
use crate::keeper_link::{KeeperLink, KeeperWakeup};
use crate::leader_tracker::LeaderTracker;
use crate::signals::{SignalEvent, Signals};
use crate::status::StatusPublisher;
use crate::store::pod_label::PodLabel;
use crate::store::worker::{Events, OpenReservation, StoreEvent, StoreNote, StoreRequest, Worker};
use elect_core::{
    Action, Answer, Attempt, BackgroundHook, Candidate, Event, FromKeeper, Hook, Notice, Outcome, Phase, Program,
    Signal, Time,
};
use elect_keeper::ToKeeper;
use elect_keeper::clock::{self, Alarm};

/// One candidacy, from the first request to the store to the end of the program.
pub struct Driver {
    candidate: Candidate,
    leader_tracker: LeaderTracker,
    command_env: CommandEnv,
    has_command: bool,
    /// Whether elect has a controlling terminal.
    has_terminal: bool,
    keeper: KeeperLink,
    worker: Worker,
    events: Events,
    signals: Signals,
    job_control: JobControl,
    alarm: AsyncFd<Alarm>,
    event_log: EventLog,
    /// `None` where there is no place for a socket.
    control: Option<ControlServer>,
    status: StatusPublisher,
    http_server: HttpServer,
    pod_label: Option<PodLabel>,
    /// The reservation that a `resign --to` waits for.
    reserving: Option<OpenReservation>,
    /// Events that an action has caused at once.
    pending_events: VecDeque<Event>,
    outcome: Option<Outcome>,
}

/// The reason for a wake-up.
enum Wakeup {
    Signal(SignalEvent),
    Keeper(KeeperWakeup),
    Store(StoreEvent),
    StoreGone,
    HttpServerExited,
    Timer,
    ControlRequest(IncomingRequest),
    ControlClosed,
}

impl Driver {
    /// Runs until the candidacy is over and the keeper has ended.
    ///
    /// # Errors
    ///
    /// The worker or the HTTP server has ended, which is a defect. The keeper then kills the command.
    pub async fn run(mut self) -> anyhow::Result<Outcome> {
        let mut startup_pages = crate::setup::StartupPages::new();
        // The first tick as well. The SIGCHLD of a keeper that died before there was a handler is lost.
        self.on_signal(SignalEvent::Child);
        loop {
            if !self.pending_events.is_empty() {
                self.pass_time();
            }
            let may_kill_more = self.keeper.kill_more(self.candidate.may_hold_a_tree());
            startup_pages.release_if_over(may_kill_more);
            let due = if may_kill_more { Time::BOOT } else { self.candidate.wake_at() };
            let status_due = self.status.flush(clock::now(), due);
            if let Some(pod_label) = &self.pod_label {
                pod_label.show(self.status.is_serving(clock::now()));
            }
            if let Some(outcome) = self.outcome.take() {
                self.shut_down(&outcome).await;
                return Ok(outcome);
            }
            self.alarm.get_ref().set(due.min(status_due));
            match self.wait().await? {
                Wakeup::Signal(signal) => self.on_signal(signal),
                Wakeup::Keeper(KeeperWakeup::Message(message)) => self.on_keeper_message(message),
                // Not yet a death: reaping reports that, now or at its signal (K4).
                Wakeup::Keeper(KeeperWakeup::Eof) => self.on_signal(SignalEvent::Child),
                Wakeup::Keeper(KeeperWakeup::Writable) => self.flush(),
                Wakeup::Store(event) => self.on_store_event(event),
                Wakeup::StoreGone => anyhow::bail!("the store's worker has ended"),
                Wakeup::HttpServerExited => anyhow::bail!("the server of the pages has ended"),
                Wakeup::Timer => self.pass_time(),
                Wakeup::ControlRequest(request) => self.on_control_request(request),
                Wakeup::ControlClosed => self.control = None,
            }
        }
    }

    /// The only place that waits. Signals and the keeper come before the timer, so that a campaigner that was stopped
    /// handles the messages that it missed before it finds the keeper silent. Every event checks the deadlines anyway.
    async fn wait(&mut self) -> io::Result<Wakeup> {
        tokio::select! {
            biased;
            signal = self.signals.next() => Ok(Wakeup::Signal(signal)),
            event = self.keeper.next() => Ok(Wakeup::Keeper(event?)),
            event = self.events.recv() => Ok(event.map_or(Wakeup::StoreGone, Wakeup::Store)),
            ready = self.alarm.readable() => {
                let mut ready = ready?;
                ready.clear_ready();
                ready.get_inner().acknowledge();
                Ok(Wakeup::Timer)
            }
            request = next_request(&mut self.control) => {
                Ok(request.map_or(Wakeup::ControlClosed, Wakeup::ControlRequest))
            }
            () = self.http_server.ended() => Ok(Wakeup::HttpServerExited),
        }
    }

    fn on_keeper_message(&mut self, message: FromKeeper) {
        self.event_log.keeper_message(&message);
        self.status.keeper_message(&message);
        if let FromKeeper::NotStarted { why, .. } = message {
            event_log::not_started(why);
        }
        let FromKeeper::Terminal(event) = message else { return self.handle(Event::Keeper(message)) };
        match self.job_control.handle(event, self.candidate.phase() == Phase::Leading) {
            None => {}
            Some(JobEvent::Stop(signal)) => self.handle(Event::Stop(signal)),
            Some(JobEvent::Resumed) => self.resume(),
        }
    }

    /// Handles the keeper's messages that have arrived already.
    fn drain_keeper(&mut self) {
        while let Some(message) = self.keeper.try_receive() {
            self.on_keeper_message(message);
        }
    }

    /// Messages of the keeper that have arrived come first: they may end its silence (K4).
    fn pass_time(&mut self) {
        self.drain_keeper();
        self.handle(Event::Tick);
    }

    fn on_store_event(&mut self, event: StoreEvent) {
        match event {
            StoreEvent::Answer { attempt, answer, note } => self.on_store_answer(attempt, answer, &note),
            StoreEvent::Claim { claim, given } => {
                let sent = self.keeper.send_claim(claim);
                // A worker that no longer waits has timed out; its next request sends the claim again.
                let _ = given.send(sent);
            }
            StoreEvent::Hint => self.handle(Event::Hint),
            StoreEvent::Reserved { request_id, result } => self.on_reserved(request_id, result),
            StoreEvent::Ousted { term } => self.handle(Event::Ousted { term }),
        }
    }

    fn on_store_answer(&mut self, attempt: Attempt, answer: Answer, note: &StoreNote) {
        let now = clock::now();
        self.status.request_answered(now, &answer, note);
        if let StoreNote::Observation(observation) = note {
            self.status.set_observation(now, observation);
            if let Some(seen) = self.leader_tracker.observed_term(observation) {
                self.handle(seen);
            }
        }
        if answer == Answer::Release(true) {
            // Releasing a claim that was never requested does not contact the store, so the log must not say that the
            // store answers again.
            self.handle(Event::Answer { attempt, answer });
            return;
        }
        if matches!(note, StoreNote::None | StoreNote::Lost(_)) {
            self.event_log.store_note(clock::now(), note);
            self.handle(Event::Answer { attempt, answer });
            self.event_log.report_loss();
            return;
        }
        // The outcome decides whether the note is the last line of the log or one among others.
        self.handle(Event::Answer { attempt, answer });
        if self.outcome == Some(Outcome::Refused) {
            event_log::refused(note);
            return;
        }
        if let Some(warning) = self.event_log.store_note(clock::now(), note) {
            self.command_env.set_error(&warning);
            self.handle(Event::HookDue(BackgroundHook::OnError));
        }
        // Only a candidate that may follow tracks other leaders: in any other phase the observation is stale.
        if let StoreNote::Observation(observation) = note
            && self.candidate.phase().may_follow()
        {
            for event in self.leader_tracker.observe(observation) {
                self.handle(event);
            }
        }
    }

    fn handle(&mut self, event: Event) {
        if matches!(event, Event::Stop(_)) {
            self.status.begin_shutdown();
        }
        // Nothing runs that a notice would be about.
        if self.candidate.phase() == Phase::LeadingIdle {
            if matches!(event, Event::Stop(_)) {
                self.command_env.set_reason(command_env::STOPPED);
            } else if matches!(event, Event::Resign(_)) {
                self.command_env.set_reason(command_env::RESIGNED);
            } else if matches!(event, Event::Drain(_)) {
                self.command_env.set_reason(command_env::DRAINED);
            }
        }
        self.pending_events.push_back(event);
        while let Some(event) = self.pending_events.pop_front() {
            for action in self.candidate.handle(clock::now(), event) {
                self.perform(action);
            }
            self.pending_events.extend(self.leader_tracker.set_phase(self.candidate.phase()));
        }
        self.status.update(clock::now(), &self.candidate);
        self.cancel_reservation_if_over();
    }

    fn perform(&mut self, action: Action) {
        self.status.action(&action);
        match action {
            Action::Campaign(attempt) => self.ask(attempt, StoreRequest::Campaign),
            Action::Renew(attempt) => self.ask(attempt, StoreRequest::Renew),
            Action::Release(attempt) => self.ask(attempt, StoreRequest::release_by(&self.candidate)),
            Action::Observe(attempt) => self.ask(attempt, StoreRequest::Observe),
            Action::Arm { term, kill_by } => self.send(ToKeeper::Arm { term, kill_by }),
            Action::Start { program, run } => {
                if let Program::Command { .. } = program {
                    self.keeper.note_terminal();
                }
                if let Some(hook) = event_log::hook_of(program) {
                    self.event_log.hook_starts(Some(run), hook);
                }
                let identity = self.command_env.variables(program, self.leader_tracker.known());
                self.send(ToKeeper::Start { program, run, identity });
            }
            Action::StartBackgroundHook { background_hook, hook_context } => {
                self.event_log.hook_starts(None, Hook::BackgroundHook(background_hook));
                let identity = self.command_env.background_hook_env(background_hook, self.leader_tracker.known());
                self.send(ToKeeper::BackgroundHook { background_hook, context: hook_context, identity });
            }
            Action::StartCheck { check } => {
                let identity = self.command_env.check_env(self.leader_tracker.known());
                self.send(ToKeeper::StartCheck { check, identity });
            }
            Action::Stop { kill_at } => self.send(ToKeeper::Stop { kill_at }),
            Action::Kill => {
                self.send(ToKeeper::Kill);
                self.keeper.kill_tree();
            }
            Action::Forward(Signal(signal)) => self.send(ToKeeper::Forward { signal }),
            Action::Ping => self.send(ToKeeper::Ping),
            Action::KillKeeper => self.keeper.kill(),
            Action::Sweep => {
                let empty = self.keeper.sweep();
                self.pending_events.push_back(Event::Swept { empty });
            }
            Action::EndHold => self.send(ToKeeper::EndHold),
            Action::Grant { request_id, term, until } => {
                if let Some(control) = &mut self.control {
                    control.grant(request_id, term, until);
                }
            }
            Action::Drained { request_id, released } => {
                if let Some(control) = &mut self.control {
                    control.drained(request_id, released);
                }
            }
            Action::Deny { request_id, why } => {
                if let Some(control) = &mut self.control {
                    control.deny(request_id, why);
                }
            }
            Action::Notice(notice) => {
                if let Notice::Elected { term } = notice {
                    self.pending_events.extend(self.leader_tracker.elected(term));
                }
                self.event_log.notice(&notice);
                if let Some(reason) = command_env::of_notice(&notice) {
                    self.command_env.set_reason(reason);
                }
                self.status.notice(clock::now(), &notice);
            }
            Action::End(outcome) => {
                self.event_log.ended(&outcome);
                self.outcome = Some(outcome);
            }
        }
    }

    fn ask(&mut self, attempt: Attempt, request: StoreRequest) {
        self.status.request_sent(clock::now());
        // A worker that has ended is an event of its own.
        let _ = self.worker.ask(attempt, request);
    }

    /// Sends in order, or later if there is no room. The list of inherited children is read before each question (K4).
    fn send(&mut self, message: ToKeeper) {
        if matches!(message, ToKeeper::Ping | ToKeeper::Arm { .. }) {
            self.keeper.refresh_preexisting_children(clock::now());
        }
        let answers = self.keeper.send(message);
        self.pending_events.extend(answers.into_iter().map(Event::Keeper));
    }

    fn flush(&mut self) {
        let answers = self.keeper.flush();
        self.pending_events.extend(answers.into_iter().map(Event::Keeper));
    }

    async fn shut_down(&mut self, outcome: &Outcome) {
        self.keeper.finish_sweep();
        if *outcome != Outcome::KeeperDied {
            let signals = &mut self.signals;
            self.keeper.dismiss(async || while signals.next().await != SignalEvent::Child {}).await;
        }
    }
}

/// The next control request, if there can be one.
async fn next_request(control: &mut Option<ControlServer>) -> Option<IncomingRequest> {
    match control {
        Some(control) => control.next().await,
        None => std::future::pending().await,
    }
}
