//! The candidate: takes events in, routes each to the part that it concerns, and hands the actions out.

use std::time::Duration;

use crate::context::Context;
use crate::input::{ControlInput, Input, KeeperInput, StoreInput};
use crate::mutation::Mutation;
use crate::state::{Facts, State};
use crate::{Action, BackgroundHook, Event, FromKeeper, Hook, IneligibleReasons, Lease, Notice, Phase, Policy};
use crate::{RequestError, RequestId, RunId, Term, Time, Timing};

/// One candidate for one boundary, from its first request to the end of the program.
///
/// The caller feeds it events in the order in which they happen, performs the actions it returns, in order and without
/// waiting for any of them, and calls again with [`Event::Tick`] at [`Candidate::wake_at`] at the latest.
#[derive(Debug)]
pub struct Candidate {
    state: State,
    pub(crate) context: Context,
}

impl Candidate {
    /// A candidate that campaigns from its first event on.
    ///
    /// `stop_timeout` is the time that a command may take to end when elect stops it; `seed` feeds the jitter of the
    /// backoff and nothing else.
    #[must_use]
    pub fn new(timing: Timing, stop_timeout: Duration, policy: Policy, seed: u64) -> Candidate {
        Candidate { state: State::new(), context: Context::new(timing, stop_timeout, policy, seed) }
    }

    /// Takes in an event of the time `now` and returns the actions that follow from it, in order.
    pub fn handle(&mut self, now: Time, event: Event) -> Vec<Action> {
        // A message that comes late must find the term over: the deadlines come first (section 4).
        self.pass_time(now);
        if let Some(input) = self.route(now, event) {
            self.state.handle(&mut self.context, now, input);
            self.pass_time(now);
        }
        // A follower lives only while another candidate may lead.
        if !self.phase().may_follow() {
            self.context.dismiss_follower(now);
        }
        self.state.settle(&mut self.context, now);
        self.answer_pending_requests(now);
        if let Some(hook_context) = self.facts().background_hook_slot
            && let Some(background_hook) = self.context.background_hooks.next()
        {
            self.context.act(Action::StartBackgroundHook { background_hook, hook_context });
        }
        if event == Event::Tick && self.may_hold_a_tree() && self.context.keeper.timed_out(now) {
            self.context.notice(Notice::KeeperSilent);
            if !self.context.mutated(Mutation::SilentKeeperSpared) {
                self.context.act(Action::KillKeeper);
            }
        }
        std::mem::take(&mut self.context.actions)
    }

    /// The time of the next call of [`Candidate::handle`] if no other event comes; [`Time::NEVER`] if none is needed.
    #[must_use]
    pub fn wake_at(&self) -> Time {
        let health_at = if self.may_check() { self.context.eligibility.wake_at(self.context.now) } else { Time::NEVER };
        let drain_at =
            if self.state.has_left() { self.context.pending_requests.wake_at(self.context.now) } else { Time::NEVER };
        let Facts { phase, wake_at, .. } = self.facts();
        let ping_at = if self.may_hold_a_tree() { self.context.keeper.wake_at() } else { Time::NEVER };
        let follower_at = self.context.follower.wake_at(phase.may_follow());
        wake_at.min(health_at).min(drain_at).min(self.context.store_requests.wake_at()).min(ping_at).min(follower_at)
    }

    /// Whether a follower runs, or is being stopped.
    #[must_use]
    pub fn has_a_follower(&self) -> bool {
        !self.context.follower.is_gone()
    }

    /// Whether a command or a follower that has ended is to be started again.
    #[must_use]
    pub fn is_between_runs(&self) -> bool {
        self.state.is_between_runs() || self.context.follower.is_between_runs()
    }

    /// Whether it leads and its command runs, or would run if there were one.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.facts().has_begun
    }

    /// The phase of the candidate.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.facts().phase
    }

    /// Whether the boundary is being released, and nothing but the end follows, without another campaign.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        self.state.is_ending()
    }

    /// The term that is being verified, or led.
    #[must_use]
    pub fn term(&self) -> Option<Term> {
        self.facts().term
    }

    /// The term that is led with a lease whose renewals count: leadership in it can be confirmed.
    #[must_use]
    pub fn leading_term(&self) -> Option<Term> {
        self.facts().leading_term
    }

    /// The lease that the leadership rests on, while there is one.
    #[must_use]
    pub fn lease(&self) -> Option<Lease> {
        self.facts().lease
    }

    /// Whether a program that was started here may be alive.
    #[must_use]
    pub fn may_hold_a_tree(&self) -> bool {
        self.facts().may_hold_tree || self.has_a_follower() || self.context.eligibility.has_outstanding_check()
    }

    /// The reasons why it may not campaign.
    #[must_use]
    pub fn ineligible_reasons(&self) -> IneligibleReasons {
        self.context.eligibility.reasons(self.context.now)
    }

    /// Whether health checks are started.
    fn may_check(&self) -> bool {
        !self.context.keeper_died && !matches!(self.phase(), Phase::StoppingFollower | Phase::Ended)
    }

    /// Whether the results of health checks count: not between two runs of the command (H7).
    fn results_count(&self) -> bool {
        self.phase() != Phase::LeadingIdle
    }

    fn facts(&self) -> Facts {
        self.state.facts(&self.context)
    }

    fn pass_time(&mut self, now: Time) {
        self.context.now = now;
        if self.may_check() {
            let counts = self.results_count();
            self.context.pass_health_time(now, counts);
        }
        self.context.pass_follower_time(now);
        self.state.handle(&mut self.context, now, Input::Time);
        if let Some(failure) = self.context.store_requests.expire(now) {
            self.state.handle(&mut self.context, now, Input::Store(StoreInput::Answer(failure)));
            self.state.handle(&mut self.context, now, Input::Time);
        }
        if self.may_hold_a_tree() && self.context.keeper.ping_due(now, &self.context.timing) {
            self.context.act(Action::Ping);
        }
    }

    /// Turns an event into an input of the present state. Nothing is left for the state of a reply to another attempt,
    /// of a message about another term, and of an event that another part has handled.
    fn route(&mut self, now: Time, event: Event) -> Option<Input> {
        match event {
            Event::Tick => None,
            Event::Answer { attempt, answer } => {
                let attempt = self.context.answered(attempt);
                self.context.store_requests.accept(attempt, answer).map(StoreInput::Answer).map(Input::Store)
            }
            Event::Hint => Some(Input::Store(StoreInput::Hint)),
            Event::Ousted { term } => self.is_current(term).then_some(Input::Store(StoreInput::Ousted)),
            Event::TermSeen(term) => {
                self.context.highest_term = self.context.highest_term.max(term);
                None
            }
            Event::LeaderObserved(leader) => Some(Input::Store(StoreInput::LeaderObserved(leader))),
            Event::HookDue(background_hook) => {
                self.background_hook_due(background_hook);
                None
            }
            Event::Keeper(message) => self.route_keeper_message(now, message),
            Event::KeeperDied => {
                self.context.keeper_died = true;
                self.context.on_keeper_death(now);
                Some(Input::Keeper(KeeperInput::Died))
            }
            Event::Swept { empty } => {
                if self.context.follower_swept(now, empty) {
                    return None;
                }
                self.context.tree_is_empty |= empty && self.context.keeper_died;
                Some(Input::Keeper(KeeperInput::Swept { empty }))
            }
            Event::Stop(signal) => {
                self.context.stop_asked_of_follower(now);
                Some(Input::Control(ControlInput::Stop(signal)))
            }
            Event::Forward(signal) if self.has_a_follower() => {
                self.context.act(Action::Forward(signal));
                None
            }
            Event::Forward(signal) => Some(Input::Control(ControlInput::Forward(signal))),
            Event::ConfirmLeadership { request_id, term } => self.confirm_leadership(now, request_id, term),
            Event::Resign(request_id) => self.resign(request_id),
            Event::Drain(request_id) => {
                self.drain(request_id);
                Some(Input::Time)
            }
            Event::Undrain(request_id) => {
                self.undrain(request_id);
                Some(Input::Time)
            }
        }
    }

    fn route_keeper_message(&mut self, now: Time, message: FromKeeper) -> Option<Input> {
        match message {
            FromKeeper::Terminal(_) => None,
            FromKeeper::Armed { term, kill_by } => {
                self.context.keeper.confirmed(term, kill_by);
                None
            }
            FromKeeper::Pong => {
                self.context.keeper.answered();
                None
            }
            FromKeeper::Progress if self.context.mutated(Mutation::ProgressIgnored) => None,
            FromKeeper::Progress => {
                self.context.keeper.progressed(now);
                None
            }
            FromKeeper::AllKilled => {
                self.context.keeper.all_killed(now);
                None
            }
            FromKeeper::Started { run, pid } => self.route_run_message(now, run, KeeperInput::Started(pid)),
            FromKeeper::NoCommand { run } => self.route_run_message(now, run, KeeperInput::NoCommand),
            FromKeeper::NotStarted { run, why } => self.route_run_message(now, run, KeeperInput::NotStarted(why)),
            FromKeeper::Exited { run, end } => self.route_run_message(now, run, KeeperInput::Exited(end)),
            FromKeeper::LeftBehind { run, processes } => {
                if let Some(program) = self.context.program_of(run) {
                    self.context.notice(Notice::LeftBehind { program, processes });
                }
                None
            }
            FromKeeper::StopTimedOut { run, processes } => {
                if let Some(program) = self.context.program_of(run) {
                    self.context.notice(Notice::StopTimedOut { program, after: self.context.stop_timeout, processes });
                }
                None
            }
            FromKeeper::Expired { term } => self.is_current(term).then_some(Input::Keeper(KeeperInput::Expired)),
            FromKeeper::Empty { run } => {
                let input = self.route_run_message(now, run, KeeperInput::Empty);
                self.context.tree_is_empty |= input.is_some();
                input
            }
            FromKeeper::Cleared { run } => self.route_run_message(now, run, KeeperInput::Cleared),
            FromKeeper::CheckEnded { check, end } => {
                let counts = self.results_count();
                self.context.check_ended(now, check, end, counts);
                Some(Input::Time)
            }
            FromKeeper::BackgroundHookEnded(end) => {
                if let Some((background_hook, failure)) = self.context.background_hooks.ended(end) {
                    self.context.notice(Notice::HookFailed { hook: Hook::BackgroundHook(background_hook), failure });
                }
                None
            }
        }
    }

    fn drain(&mut self, request_id: RequestId) {
        self.context.pending_requests.drains(request_id);
        self.context.eligibility.drained = true;
        self.context.report_drain();
    }

    fn undrain(&mut self, request_id: RequestId) {
        let denied = self.context.pending_requests.undrained();
        self.context.actions.extend(denied);
        self.context.eligibility.drain_is_reported = false;
        if std::mem::replace(&mut self.context.eligibility.drained, false) {
            self.context.notice(Notice::Undrained);
        }
        self.context.act(Action::Grant { request_id, term: None, until: Time::NEVER });
    }

    /// A message of the keeper about a run concerns the part that started it: the follower, or the present state.
    fn route_run_message(&mut self, now: Time, run: RunId, word: KeeperInput) -> Option<Input> {
        if self.context.follower.is_run(run) {
            self.context.on_follower_message(now, word);
            return None;
        }
        (self.facts().may_hold_tree && self.context.run == run).then_some(Input::Keeper(word))
    }

    fn background_hook_due(&mut self, background_hook: BackgroundHook) {
        let hooks = self.context.policy.hooks;
        let is_configured = match background_hook {
            BackgroundHook::OnChange => hooks.on_change,
            BackgroundHook::OnError => hooks.on_error,
        };
        if is_configured {
            self.context.background_hooks.due(background_hook);
        }
    }

    fn confirm_leadership(&mut self, now: Time, request_id: RequestId, term: Option<Term>) -> Option<Input> {
        if self.leading_term().is_some_and(|ours| term.is_none_or(|term| term == ours)) {
            self.context.pending_requests.asks(request_id, now);
            return Some(Input::Control(ControlInput::ConfirmLeadership));
        }
        self.context.act(Action::Deny { request_id, why: RequestError::NotLeading });
        None
    }

    fn resign(&mut self, request_id: RequestId) -> Option<Input> {
        let phase = self.phase();
        if phase.accepts_requests() {
            self.context.pending_requests.resigns(request_id);
            return Some(Input::Control(ControlInput::Resign));
        }
        let why = if phase.holds_term() { RequestError::Stopping } else { RequestError::NotLeading };
        self.context.act(Action::Deny { request_id, why });
        None
    }

    /// Answers pending control requests that the present state can no longer satisfy.
    fn answer_pending_requests(&mut self, now: Time) {
        let Facts { phase, leading_term, .. } = self.facts();
        if leading_term.is_none() {
            self.context.actions.extend(self.context.pending_requests.leads_no_longer());
        }
        if !phase.holds_term() && phase != Phase::Releasing {
            self.context.actions.extend(self.context.pending_requests.answer_resignations());
        }
        if self.state.has_left() {
            let answers = self.context.pending_requests.answer_drains(now, phase == Phase::Ended);
            self.context.actions.extend(answers);
        }
    }

    fn is_current(&self, term: Term) -> bool {
        self.term() == Some(term)
    }
}
