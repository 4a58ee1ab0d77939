//! The shell around the election: events in, actions out.
//!
//! This is the only `select!`. Its arms are cancel safe and yield plain values; an event is handled and its actions are
//! performed synchronously, so that the order in which things happen is the order in which they are decided.
//! Performing an action never waits: what takes time is done by the worker, the keeper or the kernel, and comes
//! back as an event.

use std::collections::VecDeque;
use std::io;
use std::net::TcpListener;
use std::time::Duration;

use anyhow::Context;
use tokio::io::unix::AsyncFd;
use tracing::{debug, error, info, warn};

use crate::command_env::CommandEnv;
use crate::config::{self, Config};
use crate::control::{CandidateInfo, ControlRequest, ControlServer, IncomingRequest};
use crate::event_log::{self, EventLog};
use crate::host_port::HostPort;
use crate::http::HttpServer;
use crate::signals::{SignalEvent, Signals};
use crate::status::{StatusPublisher, StatusSnapshot};
use crate::store::url::StoreUrl;
use crate::store::worker::{self, Events, StoreEvent, StoreNote, StoreRequest, Worker};
use crate::store::{Access, Candidacy, Observation};
use elect_core::{
    Action, Answer, Attempt, BackgroundHook, BackgroundHookEnd, Candidate, Event, FromKeeper, Notice, Outcome, Phase,
    Program, RequestError, Signal, TerminalEvent, Time,
};
use elect_keeper::clock::{self, Alarm};
use elect_keeper::{Keeper, Outbox, Received, ToKeeper};

/// How long a keeper that has nothing left to do may take to end.
const KEEPER_EXIT_TIMEOUT: Duration = Duration::from_secs(2);
/// How soon what a killed keeper left is looked at again.
const SWEEP_INTERVAL: Duration = Duration::from_millis(5);
/// How long the last words before a suspension have to reach the screen.
const LOG_FLUSH_DELAY: Duration = Duration::from_millis(20);

/// One candidacy, from the first question to the end of the program.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, and none excludes another")]
pub struct Driver {
    candidate: Candidate,
    command_env: CommandEnv,
    has_command: bool,
    keeper: AsyncFd<Keeper>,
    keeper_connected: bool,
    keeper_died: bool,
    /// A tree is being killed from here, and there may be more of it than the last batch.
    killing: bool,
    /// What the keeper's socket had no room for, in order.
    keeper_outbox: Outbox,
    worker: Worker,
    events: Events,
    signals: Signals,
    alarm: AsyncFd<Alarm>,
    event_log: EventLog,
    /// Who speaks to us on this host; `None` where there is no place for a socket.
    control: Option<ControlServer>,
    status: StatusPublisher,
    http_server: HttpServer,
    /// What an action brought about at once.
    pending_events: VecDeque<Event>,
    outcome: Option<Outcome>,
    /// Whether leadership is a lease, which runs out while we are suspended.
    has_lease: bool,
    /// A stop signal that we have sent to our own group, and that reaches ourselves as well.
    self_signal: Option<i32>,
}

/// What woke us.
enum Wakeup {
    Signal(SignalEvent),
    Keeper(FromKeeper),
    KeeperEof,
    KeeperWritable,
    Store(StoreEvent),
    StoreGone,
    HttpServerExited,
    Timer,
    ControlRequest(IncomingRequest),
    ControlClosed,
}

impl Driver {
    /// Sets everything up; nothing is asked of the store yet.
    ///
    /// # Errors
    ///
    /// The kernel gives no timer or signal handler, or the store cannot be opened.
    pub fn new(
        config: &Config,
        candidacy: Candidacy,
        url: StoreUrl<'_>,
        access: &Access,
        keeper: Keeper,
        listener: Option<TcpListener>,
    ) -> anyhow::Result<Driver> {
        let signals = Signals::listen().context("signals cannot be handled")?;
        let alarm = Alarm::new().context("no timer")?;
        let (hints, events) = worker::channel();
        let store = url.open(access, hints.clone())?;
        let timing = if store.grants_leases() { config.timing } else { config.timing.without_lease() };
        info!(
            boundary = %candidacy.boundary,
            store = %url,
            reach = url.reach(),
            containment = keeper.containment(),
            name = candidacy.identity.name,
            "campaigning"
        );
        debug!(id = candidacy.identity.id, keeper = keeper.pid(), "identity");
        if let Some(why) = keeper.fallback() {
            debug!("no cgroup for the command: {why}");
        }
        let mut command_env = CommandEnv::new(&candidacy, &config.inside);
        let control = open_control_socket(&candidacy);
        if let Some(control) = &control {
            command_env.set_socket(control.path());
        }
        let has_command = !config.command.is_empty();
        let pace = (timing.renew(), timing.request_timeout());
        let status = StatusPublisher::new(StatusSnapshot::new(&candidacy, url.kind().name(), has_command, pace));
        let http_server = HttpServer::serve(listener, &status).context("nobody can be listened to")?;
        let worker = Worker::start(store, candidacy, timing.request_timeout(), hints);
        Ok(Driver {
            candidate: Candidate::new(timing, config.stop_timeout, config.policy, fastrand::u64(..)),
            command_env,
            has_command: !config.command.is_empty(),
            keeper: watch(keeper).context("the keeper's socket cannot be watched")?,
            keeper_connected: true,
            keeper_died: false,
            killing: false,
            keeper_outbox: Outbox::default(),
            worker,
            events,
            signals,
            alarm: watch(alarm).context("the timer cannot be watched")?,
            event_log: EventLog::default(),
            control,
            status,
            http_server,
            pending_events: VecDeque::new(),
            outcome: None,
            has_lease: timing.ttl().is_some(),
            self_signal: None,
        })
    }

    /// Runs until the candidacy is over and the keeper has ended.
    ///
    /// # Errors
    ///
    /// The worker is gone, or the store will not have us: what has to be killed has been left to the keeper then.
    pub async fn run(mut self) -> anyhow::Result<Outcome> {
        // Also the first tick. A keeper that died before there was a handler sent its signal to nobody.
        self.on_signal(SignalEvent::Child);
        loop {
            if !self.pending_events.is_empty() {
                self.handle(Event::Tick);
            }
            let due = if self.kill_more() { Time::BOOT } else { self.candidate.wake_at() };
            let told_at = self.status.flush(clock::now(), due);
            if let Some(outcome) = self.outcome.take() {
                self.shut_down(&outcome).await;
                return Ok(outcome);
            }
            self.alarm.get_ref().set(due.min(told_at));
            match self.wait().await? {
                Wakeup::Signal(signal) => self.on_signal(signal),
                Wakeup::Keeper(word) => self.on_keeper_message(word),
                // A closed socket is no death yet: that is what reaping tells, now or at its signal (K4).
                Wakeup::KeeperEof => {
                    self.keeper_connected = false;
                    self.on_signal(SignalEvent::Child);
                }
                Wakeup::KeeperWritable => self.flush(),
                Wakeup::Store(event) => self.on_store_event(event),
                Wakeup::StoreGone => anyhow::bail!("the store's worker has ended"),
                Wakeup::HttpServerExited => anyhow::bail!("the server of the pages has ended"),
                Wakeup::Timer => self.handle(Event::Tick),
                Wakeup::ControlRequest(visit) => self.on_control_request(visit),
                Wakeup::ControlClosed => self.control = None,
            }
        }
    }

    /// The only place that waits. Signals and the keeper come before the timer, so that a campaigner that was stopped
    /// hears what it missed before it judges anybody's silence; the deadlines are looked at with every event anyway.
    async fn wait(&mut self) -> io::Result<Wakeup> {
        loop {
            tokio::select! {
                biased;
                signal = self.signals.next() => return Ok(Wakeup::Signal(signal)),
                ready = self.keeper.readable(), if self.keeper_connected => {
                    let mut ready = ready?;
                    match ready.get_inner().receive() {
                        Received::Message(Some(word)) => return Ok(Wakeup::Keeper(word)),
                        Received::Message(None) => {}
                        Received::Nothing => ready.clear_ready(),
                        Received::End => return Ok(Wakeup::KeeperEof),
                    }
                }
                ready = self.keeper.writable(), if self.keeper_connected && !self.keeper_outbox.is_empty() => {
                    ready?.clear_ready();
                    return Ok(Wakeup::KeeperWritable);
                }
                event = self.events.recv() => return Ok(event.map_or(Wakeup::StoreGone, Wakeup::Store)),
                ready = self.alarm.readable() => {
                    let mut ready = ready?;
                    ready.clear_ready();
                    ready.get_inner().acknowledge();
                    return Ok(Wakeup::Timer);
                }
                visit = next_of(&mut self.control) => return Ok(visit.map_or(Wakeup::ControlClosed, Wakeup::ControlRequest)),
                () = self.http_server.ended() => return Ok(Wakeup::HttpServerExited),
            }
        }
    }

    // ---- events

    fn on_signal(&mut self, signal: SignalEvent) {
        match signal {
            SignalEvent::Stop(number) if self.self_signal.take_if(|self_signal| *self_signal == number).is_some() => {}
            SignalEvent::Stop(number) => self.handle(Event::Stop(Signal(number))),
            SignalEvent::Forward(libc::SIGHUP) if !self.has_command() => {
                self.handle(Event::Stop(Signal(libc::SIGHUP)));
            }
            SignalEvent::Forward(number) => self.handle(Event::Forward(Signal(number))),
            SignalEvent::Child => {
                self.drain_keeper();
                let died = self.keeper.get_mut().reap() && !std::mem::replace(&mut self.keeper_died, true);
                if died {
                    self.keeper.get_mut().take_terminal_back();
                    // What a hook that ran beside nothing has left us. A tree is swept until it is empty.
                    let _ = self.keeper.get_mut().sweep();
                }
                self.handle(if died { Event::KeeperDied } else { Event::Tick });
            }
            SignalEvent::Continued => self.resume(),
        }
    }

    fn on_keeper_message(&mut self, word: FromKeeper) {
        if let FromKeeper::NotStarted { why, .. } = word {
            event_log::not_started(why);
        }
        if let FromKeeper::Terminal(word) = word {
            self.on_terminal_event(word);
        } else {
            self.handle(Event::Keeper(word));
        }
    }

    /// What the keeper has said already comes before any judgement of its silence.
    fn drain_keeper(&mut self) {
        while let Received::Message(word) = self.keeper.get_ref().receive() {
            if let Some(word) = word {
                self.on_keeper_message(word);
            }
        }
    }

    // ---- the terminal

    fn on_terminal_event(&mut self, word: TerminalEvent) {
        match word {
            // Whoever is being stopped is continued by the keeper, and nobody stands still for it.
            TerminalEvent::Suspended(_) | TerminalEvent::Stopped(_) if self.candidate.phase() != Phase::Leading => {}
            TerminalEvent::Stopped(signal) => event_log::command_stopped(signal),
            TerminalEvent::Suspended(_) => self.suspend(),
            // Ctrl-C reached the command alone. It is meant for all of the job, and not to be answered with a restart.
            TerminalEvent::Interrupted(Signal(number)) => {
                self.self_signal = Some(number);
                elect_keeper::signal_own_group(number);
                self.handle(Event::Stop(Signal(number)));
            }
        }
    }

    /// Ctrl-Z has reached the command, and the whole job stands still with it, or the shell would not ask for the next command
    /// line. The keeper does not: it kills by the deadline as ever (K1).
    fn suspend(&mut self) {
        event_log::suspended(self.has_lease);
        // Who is about to stand still for as long as a person likes may wait for his own last line.
        std::thread::sleep(LOG_FLUSH_DELAY);
        elect_keeper::signal_own_group(libc::SIGTSTP);
        // Here again: continued, or not stopped at all because nobody could ever have continued us (an orphaned group, PID 1).
        event_log::resumed();
        self.resume();
    }

    /// After whatever time: the deadlines first. A command that stands still with us goes on if it is still to live.
    fn resume(&mut self) {
        self.drain_keeper();
        self.handle(Event::Tick);
        self.send(ToKeeper::Resume);
    }

    fn has_command(&self) -> bool {
        let leads = matches!(self.candidate.phase(), Phase::Leading | Phase::Stopping);
        (leads && self.has_command) || self.candidate.has_a_follower()
    }

    fn on_store_event(&mut self, event: StoreEvent) {
        match event {
            StoreEvent::Answer { attempt, answer, story } => {
                let now = clock::now();
                self.status.request_answered(now, &answer);
                if let StoreNote::Observation(sighting) = &story {
                    self.status.set_observation(now, sighting);
                    if let Some(term) =
                        sighting.leader.as_ref().and_then(|leader| self.command_env.term_of_another(leader))
                    {
                        self.handle(Event::TermSeen(term));
                    }
                }
                if answer == Answer::Release(true) {
                    // What was never asked for is given back without a word to the store: that it answers is not said.
                    self.handle(Event::Answer { attempt, answer });
                    return;
                }
                if matches!(story, StoreNote::None | StoreNote::Lost(_)) {
                    self.event_log.store_note(clock::now(), &story);
                    self.handle(Event::Answer { attempt, answer });
                    return;
                }
                // The line that ends the program, or one among others.
                self.handle(Event::Answer { attempt, answer });
                if self.outcome == Some(Outcome::Refused) {
                    event_log::refused(&story);
                    return;
                }
                if let Some(warning) = self.event_log.store_note(clock::now(), &story) {
                    self.command_env.set_error(&warning);
                    self.handle(Event::HookDue(BackgroundHook::OnError));
                }
                if let StoreNote::Observation(sighting) = story {
                    self.on_leader_observed(&sighting);
                }
            }
            StoreEvent::Claim { claim, given } => {
                let sent = self.keeper_outbox.is_empty() && self.keeper.get_ref().send(&ToKeeper::Claim(claim)).is_ok();
                // If the worker no longer waits, its time was up, and the next question brings the claim again.
                let _ = given.send(sent);
            }
            StoreEvent::Hint => self.handle(Event::Hint),
            StoreEvent::Ousted { term } => self.handle(Event::Ousted { term }),
        }
    }

    /// Who leads is of interest to those who wait; others have heard of it too late.
    fn on_leader_observed(&mut self, sighting: &Observation) {
        if self.candidate.phase() != Phase::Campaigning {
            return;
        }
        let news = self.command_env.observe(sighting.leader.as_ref());
        self.handle(Event::LeaderObserved(self.command_env.leader()));
        if news {
            self.handle(Event::HookDue(BackgroundHook::OnChange));
        }
    }

    fn on_control_request(&mut self, visit: IncomingRequest) {
        let leads = self.leads();
        let Some(control) = &mut self.control else { return };
        let Some((request_id, request)) = control.register(visit) else { return };
        match request {
            ControlRequest::Hello => control.grant(request_id, None, Time::NEVER),
            ControlRequest::Assert { term } => self.handle(Event::ConfirmLeadership { request_id, term }),
            ControlRequest::Resign => self.handle(Event::Resign(request_id)),
            ControlRequest::Proclaim { name, advertise } => match announced(name, advertise.as_deref()) {
                None => control.reject(request_id),
                Some((name, advertise)) if leads => {
                    let identity = self.command_env.rename(name, advertise);
                    self.status.rename(&identity);
                    info!(name = identity.name, host = identity.host, port = identity.port, "proclaimed");
                    self.worker.rename(identity);
                    // Answered by the renewal that takes it to the store.
                    self.handle(Event::ConfirmLeadership { request_id, term: None });
                }
                Some(_) => control.deny(request_id, RequestError::NotLeading),
            },
        }
    }

    fn leads(&self) -> bool {
        matches!(self.candidate.phase(), Phase::Leading | Phase::LeadingIdle)
    }

    fn handle(&mut self, event: Event) {
        if matches!(event, Event::Stop(_)) {
            self.status.begin_shutdown();
        }
        self.pending_events.push_back(event);
        while let Some(event) = self.pending_events.pop_front() {
            for action in self.candidate.handle(clock::now(), event) {
                self.perform(action);
            }
            let leads = match self.candidate.phase() {
                Phase::Leading | Phase::Stopping | Phase::LeadingIdle | Phase::OustedHook => true,
                Phase::Campaigning
                | Phase::Verifying
                | Phase::Releasing
                | Phase::CoolingDown
                | Phase::StoppingFollower
                | Phase::Ended => false,
            };
            if !leads && self.command_env.set_own_term(None) {
                self.pending_events.push_back(Event::HookDue(BackgroundHook::OnChange));
            }
        }
        self.status.update(clock::now(), &self.candidate);
    }

    // ---- actions

    fn perform(&mut self, action: Action) {
        match action {
            Action::Campaign(attempt) => self.ask(attempt, StoreRequest::Campaign),
            Action::Renew(attempt) => self.ask(attempt, StoreRequest::Renew),
            Action::Release(attempt) => self.ask(attempt, StoreRequest::Release),
            Action::Arm { term, kill_by } => self.send(ToKeeper::Arm { term, kill_by }),
            Action::Start { program: job, run } => {
                if let Program::Command { .. } = job {
                    self.keeper.get_mut().note_terminal();
                }
                let identity = self.command_env.variables(job);
                self.send(ToKeeper::Start { job, run, identity });
            }
            Action::StartBackgroundHook { background_hook, beside } => {
                let identity = self.command_env.background_hook_env(background_hook);
                self.send(ToKeeper::BackgroundHook { background_hook, beside, identity });
            }
            Action::Stop { kill_at } => self.send(ToKeeper::Stop { kill_at }),
            Action::Kill => {
                self.send(ToKeeper::Kill);
                self.killing = self.keeper.get_mut().kill_tree();
            }
            Action::Forward(Signal(signal)) => self.send(ToKeeper::Forward { signal }),
            Action::Ping => {
                self.keeper.get_mut().note_strangers();
                self.send(ToKeeper::Ping);
            }
            Action::KillKeeper => self.keeper.get_ref().kill(),
            Action::Sweep => {
                let empty = self.keeper.get_mut().sweep();
                self.pending_events.push_back(Event::Swept { empty });
            }
            Action::EndHold => self.send(ToKeeper::EndHold),
            Action::Grant { request_id, term, until } => {
                if let Some(control) = &mut self.control {
                    control.grant(request_id, term, until);
                }
            }
            Action::Deny { request_id, why } => {
                if let Some(control) = &mut self.control {
                    control.deny(request_id, why);
                }
            }
            Action::Notice(report) => {
                if let Notice::Elected { term } = report
                    && self.command_env.set_own_term(Some(term))
                {
                    self.pending_events.push_back(Event::HookDue(BackgroundHook::OnChange));
                }
                self.event_log.notice(&report);
                self.status.report(clock::now(), &report);
            }
            Action::End(outcome) => {
                self.event_log.ended(&outcome);
                self.outcome = Some(outcome);
            }
        }
    }

    /// The next batch of those that are killed from here, so that nothing else waits for all of them. Returns whether there
    /// may be more; not when the keeper has confirmed that its tree is empty.
    fn kill_more(&mut self) -> bool {
        let keeper = self.keeper.get_mut();
        if self.keeper_died {
            if keeper.is_sweeping() && !self.candidate.may_hold_a_tree() {
                let _ = keeper.sweep();
            }
            return keeper.is_sweeping();
        }
        self.killing = self.killing && self.candidate.may_hold_a_tree() && keeper.kill_more();
        self.killing
    }

    fn ask(&mut self, attempt: Attempt, question: StoreRequest) {
        self.status.request_sent(clock::now());
        // A worker that has ended is an event of its own.
        let _ = self.worker.ask(attempt, question);
    }

    /// In order, and without waiting: what finds no room is sent when there is some.
    fn send(&mut self, message: ToKeeper) {
        self.keeper_outbox.push(message);
        self.flush();
    }

    fn flush(&mut self) {
        let keeper = self.keeper.get_ref();
        for message in self.keeper_outbox.flush(|message| keeper.send(message)) {
            if let ToKeeper::BackgroundHook { .. } = message {
                let ended = FromKeeper::BackgroundHookEnded(BackgroundHookEnd::Failed(libc::E2BIG));
                self.pending_events.push_back(Event::Keeper(ended));
            } else {
                // The election counts on it: without it a keeper is of no use, and its death is handled (K4).
                error!("the keeper cannot be told what to do, and is killed");
                keeper.kill();
            }
        }
    }

    /// Sends the keeper home, and waits for it: what it holds of the store goes with it.
    async fn shut_down(&mut self, outcome: &Outcome) {
        if self.keeper_died {
            while self.keeper.get_ref().is_sweeping() {
                let _ = self.keeper.get_mut().sweep();
            }
        }
        if *outcome == Outcome::KeeperDied {
            return;
        }
        self.send(ToKeeper::Dismiss);
        let gone = async {
            while !self.keeper.get_mut().reap() {
                while self.signals.next().await != SignalEvent::Child {}
            }
        };
        if tokio::time::timeout(KEEPER_EXIT_TIMEOUT, gone).await.is_err() {
            // Whatever keeps it, nothing of ours outlives us.
            let keeper = self.keeper.get_mut();
            let _ = keeper.kill_tree();
            keeper.kill();
            let swept = async {
                while !(self.keeper.get_mut().reap() && self.keeper.get_mut().sweep()) {
                    tokio::time::sleep(SWEEP_INTERVAL).await;
                }
            };
            let _ = tokio::time::timeout(KEEPER_EXIT_TIMEOUT, swept).await;
        }
    }
}

/// A candidate that nobody can speak to is one all the same.
fn open_control_socket(candidacy: &Candidacy) -> Option<ControlServer> {
    let (boundary, me) = (candidacy.boundary.to_string(), candidacy.identity.clone());
    let control = ControlServer::open(CandidateInfo { boundary, id: me.id, name: me.name });
    control.inspect_err(|why| warn!("no control socket, so no assert, extend, resign or proclaim: {why}")).ok()
}

/// A name and an address as the flags would take them; `None` if one of them is none.
fn announced(name: Option<String>, advertise: Option<&str>) -> Option<(Option<String>, Option<HostPort>)> {
    let advertise: Option<HostPort> = advertise.map(str::parse).transpose().ok()?;
    let mut texts = name.iter().chain(advertise.iter().map(|address| &address.host));
    texts.all(|text| config::is_valid_name(text)).then_some((name, advertise))
}

/// The next visitor, if there can be one.
async fn next_of(control: &mut Option<ControlServer>) -> Option<IncomingRequest> {
    match control {
        Some(control) => control.next().await,
        None => std::future::pending().await,
    }
}

/// Watches a descriptor that lives as long as its owner.
#[expect(
    deprecated,
    reason = "its successor is unsafe to call, and what it guards against is a descriptor closed early"
)]
fn watch<T: std::os::fd::AsRawFd>(owner: T) -> io::Result<AsyncFd<T>> {
    AsyncFd::new(owner)
}
