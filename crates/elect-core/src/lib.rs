//! The candidate as a pure state machine.
//!
//! It knows no clock, no store, no process and no socket: it is told what happened and when, and says what to do
//! ([`Candidate::handle`]). Everything that makes elect safe is decided here,
//! so that it can be tested a million times a minute; the simulation beside it does that.
//!
//! ```text
//!            won            credited           asked · ended · lost · running out
//! Campaigning ───────▶ Verifying ───────▶ Leading ───────▶ Stopping ───────▶ Releasing ───────▶ Ended
//!    ▲                 │ lost                              │ empty, lost     │ empty, ours      or Campaigning again
//!    └─────────────────┴───────────────────────────────────┴─────────────────┘
//! ```
//!
//! With hooks, `Leading` begins with `--on-elected`, and whatever leads out of a leadership leads through `OustedHook`, where
//! `--on-ousted` runs over an empty tree. A [follower] is a small machine beside this one; a win waits for its
//! end in `Verifying`, the end of the program in `StoppingFollower`.
//!
//! A command that has ended by itself may be started again, or the boundary kept for a while ([`Policy`]):
//!
//! ```text
//!          ended, empty                    time's up
//! Stopping ───────────▶ LeadingIdle ──────────────────────────────────▶ Releasing ──────▶ CoolingDown ──▶ Campaigning
//!                          │ time for a restart, and a lease: ▶ Leading      too often
//! ```
//!
//! A candidate whose patience is exhausted ([`Policy`]) goes from `Campaigning`, or from a win that came to nothing, to
//! `Releasing` and ends; one that is to end with its leadership does so instead of standing again.
//!
//! Invariants, each held by the shape of the code and checked by the simulation:
//!
//! - Only `Leading` and `Stopping` may hold a live leader command. `Leading` is entered from `Verifying`, with a lease that
//!   was credited to a request sent after the store had said that we won (T1), and in the same term from `LeadingIdle`.
//! - `Stopping` and `OustedHook` are left only when the tree is confirmed empty (2.3), and `Releasing` and `LeadingIdle` are entered
//!   with an empty tree only.
//! - A follower is started in `Campaigning` only, and stopped in every other state; `Leading` and `Ended` are entered without.
//! - Whatever comes in, the deadlines are looked at first: an answer that comes after `stop_by` finds the term over.
//! - There is one request at a time; a reply to any other attempt changes nothing.
//!
//! What is deliberately absent: retries inside an attempt, time-outs that are not deadlines, anything that waits.

#![forbid(unsafe_code)]

mod background_hooks;
pub mod boundary;
mod event;
mod follower;
mod keeper_liveness;
pub mod limits;
mod mutation;
mod pending_requests;
mod policy;
#[cfg(any(test, feature = "test-support"))]
pub mod proptest_support;
mod restart_tracker;
#[cfg(test)]
mod simulation;
mod state;
mod store_requests;
pub mod takeover;
#[cfg(test)]
mod tests;
mod time;
mod timing;

pub use event::{
    Action, Answer, Attempt, BackgroundHook, BackgroundHookEnd, Campaigned, CommandEnd, Event, FromKeeper, Hook,
    HookContext, HookFailure, LeaderKey, NotStarted, Notice, Outcome, Program, Reason, Renewed, RequestError,
    RequestId, RunId, Signal, Term, TerminalEvent,
};
pub use policy::{CampaignLimit, Hooks, OnChange, OnLost, Policy, Restart, RestartWhen};
pub use time::Time;
pub use timing::{HumanDuration, KILL_ALLOWANCE, Lease, Timing, TimingError, TimingFlags, margin};

use std::time::Duration;

use background_hooks::BackgroundHooks;
use follower::Follower;
use keeper_liveness::KeeperLiveness;
use mutation::Mutation;
use pending_requests::PendingRequests;
use restart_tracker::{AfterExit, RestartTracker};
use state::{Input, State};
use store_requests::{StoreRequestKind, StoreRequests};

/// One candidate for one boundary, from its first request to the end of the program.
///
/// The caller feeds it events in the order in which they happen, performs the actions it returns, in order and without
/// waiting for any of them, and calls again with [`Event::Tick`] at [`Candidate::wake_at`] at the latest.
#[derive(Debug)]
pub struct Candidate {
    state: State,
    context: Context,
}

/// What every state works with.
#[derive(Debug)]
struct Context {
    timing: Timing,
    stop_timeout: Duration,
    policy: Policy,
    /// When patience is exhausted: known from the first question on, and of no account from an election on.
    campaign_deadline: Option<Time>,
    store_requests: StoreRequests,
    keeper: KeeperLiveness,
    keeper_died: bool,
    restart_tracker: RestartTracker,
    follower: Follower,
    pending_requests: PendingRequests,
    background_hooks: BackgroundHooks,
    /// The last start of any program, and which it was.
    run: RunId,
    program: Program,
    /// The highest term that any leader was seen to have, this candidate included (S1).
    highest_term: Term,
    /// Wins in a row whose terms were not above it.
    low_terms: u32,
    /// Whether the store has ever answered: refusals after that are troubles to be waited out.
    store_answered: bool,
    jitter: fastrand::Rng,
    actions: Vec<Action>,
    #[cfg(test)]
    mutation: Option<Mutation>,
}

/// Where a candidate is, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Campaigning: not the leader.
    Campaigning,
    /// The store says we won; being verified.
    Verifying,
    /// Leading.
    Leading,
    /// The command is being stopped.
    Stopping,
    /// Leading, and nothing runs: between two runs of the command, or because the boundary is to be kept.
    LeadingIdle,
    /// Leading no longer, and the hook that is to know of it runs.
    OustedHook,
    /// The boundary is being given back.
    Releasing,
    /// Not standing for a while: the command has failed here too often, or the hook before it.
    CoolingDown,
    /// Over but for the follower, which is being stopped.
    StoppingFollower,
    /// Over.
    Ended,
}

impl Candidate {
    /// A candidate that will stand as soon as it is told the time.
    ///
    /// `stop_timeout` is how long a command may take to end when the stop is ours; `seed` feeds the jitter of the
    /// backoff and nothing else.
    #[must_use]
    pub fn new(timing: Timing, stop_timeout: Duration, policy: Policy, seed: u64) -> Candidate {
        Candidate {
            state: State::new(),
            context: Context {
                timing,
                stop_timeout,
                policy,
                campaign_deadline: None,
                store_requests: StoreRequests::default(),
                keeper: KeeperLiveness::new(),
                keeper_died: false,
                restart_tracker: RestartTracker::new(policy.restart, policy.min_hold),
                follower: Follower::new(policy.follower, policy.restart),
                pending_requests: PendingRequests::default(),
                background_hooks: BackgroundHooks::default(),
                run: 0,
                program: Program::Follower,
                highest_term: 0,
                low_terms: 0,
                store_answered: false,
                jitter: fastrand::Rng::with_seed(seed),
                actions: Vec::new(),
                #[cfg(test)]
                mutation: None,
            },
        }
    }

    /// Takes in what happened at `now` and returns what to do about it, in order.
    pub fn handle(&mut self, now: Time, event: Event) -> Vec<Action> {
        // A message that comes late must find the term over: the deadlines come first (section 4).
        self.pass_time(now);
        if let Some(input) = self.route(now, event) {
            self.step(now, input);
            self.pass_time(now);
        }
        // A follower lives only while its candidate stands.
        if !matches!(self.state, State::Campaigning(_)) {
            self.context.dismiss_follower(now);
        }
        let state = std::mem::replace(&mut self.state, State::Ended);
        self.state = state.settle(&mut self.context, now);
        self.answer_pending_requests();
        if let Some(beside) = self.state.background_hook_slot(&self.context)
            && let Some(background_hook) = self.context.background_hooks.next()
        {
            self.context.act(Action::StartBackgroundHook { background_hook, beside });
        }
        if event == Event::Tick && self.may_hold_a_tree() && self.context.keeper.timed_out(now) {
            self.context.notice(Notice::KeeperSilent);
            if !self.context.mutated(Mutation::SilentKeeperSpared) {
                self.context.act(Action::KillKeeper);
            }
        }
        std::mem::take(&mut self.context.actions)
    }

    /// When to call [`Candidate::handle`] again if nothing else happens; [`Time::NEVER`] if that is not needed.
    #[must_use]
    pub fn wake_at(&self) -> Time {
        let watch = if self.may_hold_a_tree() { self.context.keeper.wake_at() } else { Time::NEVER };
        let follower = self.context.follower.wake_at(matches!(self.state, State::Campaigning(_)));
        let state = self.state.wake_at(&self.context);
        state.min(self.context.store_requests.wake_at()).min(watch).min(follower)
    }

    /// Whether a follower runs, or is being stopped.
    #[must_use]
    pub fn has_a_follower(&self) -> bool {
        !self.context.follower.is_gone()
    }

    /// Whether it leads and its command runs, or would if there were one.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.state.has_begun()
    }

    /// Where the candidate is.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.state.phase()
    }

    /// The term that is being verified, or led.
    #[must_use]
    pub fn term(&self) -> Option<Term> {
        self.state.term()
    }

    /// The lease that the leadership rests on, while there is one.
    #[must_use]
    pub fn lease(&self) -> Option<Lease> {
        self.state.lease()
    }

    fn pass_time(&mut self, now: Time) {
        self.context.follower_passes_time(now);
        self.step(now, Input::Time);
        if let Some(failure) = self.context.store_requests.expire(now) {
            self.step(now, Input::Answer(failure));
            self.step(now, Input::Time);
        }
        if self.may_hold_a_tree() && self.context.keeper.ping_due(now, &self.context.timing) {
            self.context.act(Action::Ping);
        }
    }

    fn step(&mut self, now: Time, input: Input) {
        let state = std::mem::replace(&mut self.state, State::Ended);
        self.state = state.next(&mut self.context, now, input);
    }

    /// Turns an event into an input of the state machine, or into nothing: a reply to another attempt, a word
    /// about another term.
    fn route(&mut self, now: Time, event: Event) -> Option<Input> {
        match event {
            Event::Tick | Event::Keeper(FromKeeper::Terminal(_)) => None,
            Event::Answer { attempt, answer } => {
                let attempt = self.context.answered(attempt);
                self.context.store_requests.accept(attempt, answer).map(Input::Answer)
            }
            Event::Hint => Some(Input::Hint),
            Event::Ousted { term } => self.is_current(term).then_some(Input::Ousted),
            Event::Keeper(FromKeeper::Armed { term, kill_by }) => {
                self.context.keeper.confirmed(term, kill_by);
                None
            }
            Event::Keeper(FromKeeper::Pong) => {
                self.context.keeper.answered();
                None
            }
            Event::Keeper(FromKeeper::Progress) => {
                self.context.keeper.progressed(now);
                None
            }
            Event::TermSeen(term) => {
                self.context.highest_term = self.context.highest_term.max(term);
                None
            }
            Event::Keeper(FromKeeper::Started { run, pid }) => self.route_run_event(now, run, Input::Started(pid)),
            Event::Keeper(FromKeeper::NoCommand { run }) => self.route_run_event(now, run, Input::Idle),
            Event::Keeper(FromKeeper::NotStarted { run, why }) => {
                self.route_run_event(now, run, Input::NotStarted(why))
            }
            Event::Keeper(FromKeeper::Exited { run, end }) => self.route_run_event(now, run, Input::Exited(end)),
            Event::Keeper(FromKeeper::Expired { term }) => self.is_current(term).then_some(Input::Expired),
            Event::Keeper(FromKeeper::Empty { run }) => self.route_run_event(now, run, Input::Empty),
            Event::Keeper(FromKeeper::Cleared { run }) => self.route_run_event(now, run, Input::Cleared),
            Event::Keeper(FromKeeper::BackgroundHookEnded(end)) => {
                if let Some((background_hook, failure)) = self.context.background_hooks.ended(end) {
                    self.context.notice(Notice::HookFailed { hook: Hook::BackgroundHook(background_hook), failure });
                }
                None
            }
            Event::LeaderObserved(leader) => Some(Input::Leader(leader)),
            Event::HookDue(background_hook) => {
                let hooks = self.context.policy.hooks;
                if match background_hook {
                    BackgroundHook::OnChange => hooks.on_change,
                    BackgroundHook::OnError => hooks.on_error,
                } {
                    self.context.background_hooks.due(background_hook);
                }
                None
            }
            Event::KeeperDied => {
                self.context.keeper_died = true;
                self.context.follower_is_bereaved(now);
                Some(Input::KeeperDied)
            }
            Event::Swept { empty } => {
                let followers = self.context.follower_is_swept(now, empty);
                (!followers).then_some(Input::Swept { empty })
            }
            Event::Stop(signal) => {
                self.context.follower_is_asked(now);
                Some(Input::Stop(signal))
            }
            Event::Forward(signal) if self.has_a_follower() => {
                self.context.act(Action::Forward(signal));
                None
            }
            Event::Forward(signal) => Some(Input::Forward(signal)),
            Event::ConfirmLeadership { request_id, term } => {
                if self.state.leading_term().is_some_and(|ours| term.is_none_or(|term| term == ours)) {
                    self.context.pending_requests.asks(request_id, now);
                    return Some(Input::Ask);
                }
                self.context.act(Action::Deny { request_id, why: RequestError::NotLeading });
                None
            }
            Event::Resign(request_id) => {
                match self.phase() {
                    Phase::Leading | Phase::LeadingIdle => {
                        self.context.pending_requests.resigns(request_id);
                        return Some(Input::Resign);
                    }
                    Phase::Stopping | Phase::OustedHook => {
                        self.context.act(Action::Deny { request_id, why: RequestError::Stopping });
                    }
                    Phase::Campaigning
                    | Phase::Verifying
                    | Phase::Releasing
                    | Phase::CoolingDown
                    | Phase::StoppingFollower
                    | Phase::Ended => self.context.act(Action::Deny { request_id, why: RequestError::NotLeading }),
                }
                None
            }
        }
    }

    /// Whoever still waits for a word from a state that cannot say it hears what has become of it.
    fn answer_pending_requests(&mut self) {
        if self.state.leading_term().is_none() {
            self.context.actions.extend(self.context.pending_requests.leads_no_longer());
        }
        match self.phase() {
            Phase::Leading | Phase::LeadingIdle | Phase::Stopping | Phase::OustedHook | Phase::Releasing => {}
            Phase::Campaigning | Phase::Verifying | Phase::CoolingDown | Phase::StoppingFollower | Phase::Ended => {
                self.context.actions.extend(self.context.pending_requests.fail_resignations());
            }
        }
    }

    /// What the keeper says of a run is for whoever started it: the follower, or the present state.
    fn route_run_event(&mut self, now: Time, run: RunId, input: Input) -> Option<Input> {
        if self.context.follower.is_run(run) {
            self.context.follower_hears(now, input);
            return None;
        }
        self.is_run(run).then_some(input)
    }

    /// Whether something that was started here may be alive.
    #[must_use]
    pub fn may_hold_a_tree(&self) -> bool {
        self.state.may_hold_a_tree() || self.has_a_follower()
    }

    fn is_current(&self, term: Term) -> bool {
        self.state.term() == Some(term)
    }

    fn is_run(&self, run: RunId) -> bool {
        self.state.may_hold_a_tree() && self.context.run == run
    }
}

impl Context {
    fn act(&mut self, action: Action) {
        self.actions.push(action);
    }

    fn notice(&mut self, report: Notice) {
        self.act(Action::Notice(report));
    }

    fn ask_for_the_boundary(&mut self, now: Time) {
        let until = if self.mutated(Mutation::StandsOn) { Time::NEVER } else { self.policy.campaign_limit.from(now) };
        self.campaign_deadline.get_or_insert(until);
        let attempt = self.store_requests.open(StoreRequestKind::Campaign, now, &self.timing);
        self.act(Action::Campaign(attempt));
    }

    fn renew(&mut self, now: Time) {
        let attempt = self.store_requests.open(StoreRequestKind::Renew, now, &self.timing);
        self.act(Action::Renew(attempt));
    }

    fn release(&mut self, now: Time) {
        let attempt = self.store_requests.open(StoreRequestKind::Release, now, &self.timing);
        self.act(Action::Release(attempt));
    }

    fn arm(&mut self, term: Term, lease: Lease) {
        self.keeper.deadline_sent(term, lease.kill_by);
        self.act(Action::Arm { term, kill_by: lease.kill_by });
    }

    fn start(&mut self, program: Program) -> RunId {
        self.run += 1;
        self.program = program;
        self.act(Action::Start { program, run: self.run });
        self.run
    }

    /// Nothing is kept for the sake of a hold any longer.
    fn end_hold(&mut self, now: Time) {
        if self.restart_tracker.hold_ends(now) {
            self.act(Action::EndHold);
        }
    }

    fn campaign_timed_out(&self, now: Time) -> bool {
        self.campaign_deadline.is_some_and(|until| now >= until)
    }

    /// What follows the end of the command, now that its tree is empty.
    fn after_exit(&mut self, now: Time, end: CommandEnd) -> AfterExit {
        let unlimited = self.mutated(Mutation::NoRestartLimit);
        self.restart_tracker.after_exit(now, end, self.timing.ttl(), &mut self.jitter, unlimited)
    }

    /// B: a quarter to half a request's time-out, so that candidates that failed together do not return together.
    fn backoff(&mut self) -> Duration {
        let (shortest, longest) = (self.timing.shortest_backoff(), self.timing.longest_backoff());
        shortest + longest.saturating_sub(shortest).mul_f64(self.jitter.f64())
    }
}
