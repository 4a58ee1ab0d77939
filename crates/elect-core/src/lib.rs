//! The candidate as a pure state machine.
//!
//! It knows no clock, no store, no process and no socket: it is told what happened and when, and says what to do
//! ([`Candidate::handle`]). Everything that makes elect safe is decided here,
//! so that it can be tested a million times a minute; the simulation beside it does that.
//!
//! ```text
//!            won            credited           asked · ended · lost · running out
//! Standing ───────▶ Verifying ───────▶ Leading ───────▶ Stopping ───────▶ Releasing ───────▶ Ended
//!    ▲                 │ lost                              │ empty, lost     │ empty, ours      or Standing again
//!    └─────────────────┴───────────────────────────────────┴─────────────────┘
//! ```
//!
//! With hooks, `Leading` begins with `--on-elected`, and whatever leads out of a leadership leads through `Ousting`, where
//! `--on-ousted` runs over an empty tree. A [follower] is a small machine beside this one; a win waits for its
//! end in `Verifying`, the end of the program in `Parting`.
//!
//! A command that has ended by itself may be started again, or the boundary kept for a while ([`Wishes`]):
//!
//! ```text
//!          ended, empty                    time's up
//! Stopping ───────────▶ Holding ──────────────────────────────────▶ Releasing ──────▶ SittingOut ──▶ Standing
//!                          │ time for a restart, and a lease: ▶ Leading      too often
//! ```
//!
//! A candidate whose patience is exhausted ([`Wishes`]) goes from `Standing`, or from a win that came to nothing, to
//! `Releasing` and ends; one that is to end with its leadership does so instead of standing again.
//!
//! Invariants, each held by the shape of the code and checked by the simulation:
//!
//! - Only `Leading` and `Stopping` may hold a live leader command. `Leading` is entered from `Verifying`, with a lease that
//!   was credited to a request sent after the store had said that we won (T1), and in the same term from `Holding`.
//! - `Stopping` and `Ousting` are left only when the tree is confirmed empty (2.3), and `Releasing` and `Holding` are entered
//!   with an empty tree only.
//! - A follower is started in `Standing` only, and stopped in every other state; `Leading` and `Ended` are entered without.
//! - Whatever comes in, the deadlines are looked at first: an answer that comes after `stop_by` finds the term over.
//! - There is one request at a time; a reply to any other attempt changes nothing.
//!
//! What is deliberately absent: retries inside an attempt, time-outs that are not deadlines, anything that waits.

#![forbid(unsafe_code)]

mod asides;
pub mod boundary;
mod event;
mod follower;
#[cfg(any(test, feature = "test-support"))]
pub mod fuzz;
mod keeper_watch;
pub mod limits;
mod petitions;
mod requests;
mod runs;
mod sabotage;
#[cfg(test)]
mod simulation;
mod state;
pub mod takeover;
#[cfg(test)]
mod tests;
mod time;
mod timing;
mod wishes;

pub use event::{
    Action, Answer, Aside, AsideEnd, AtTerminal, Attempt, Beside, Campaigned, CommandEnd, Denial, Event, FromKeeper,
    Hook, HookFailure, Job, LeaderKey, NotStarted, Outcome, Petition, Reason, Renewed, Report, Run, Signal, Term,
};
pub use time::Time;
pub use timing::{Asked, KILL_ALLOWANCE, Lease, Short, Timing, TimingError, margin};
pub use wishes::{Hooks, OnChange, OnLost, Patience, Restart, RestartWhen, Wishes};

use std::time::Duration;

use asides::Asides;
use follower::Follower;
use keeper_watch::KeeperWatch;
use petitions::Petitions;
use requests::{Kind, Requests};
use runs::{Runs, Sequel};
use sabotage::Sabotage;
use state::{Input, State};

/// One candidate for one boundary, from its first request to the end of the program.
///
/// The caller feeds it events in the order in which they happen, performs the actions it returns, in order and without
/// waiting for any of them, and calls again with [`Event::Tick`] at [`Candidate::wake_at`] at the latest.
#[derive(Debug)]
pub struct Candidate {
    state: State,
    core: Core,
}

/// What every state works with.
#[derive(Debug)]
struct Core {
    timing: Timing,
    stop_timeout: Duration,
    wishes: Wishes,
    /// When patience is exhausted: known from the first question on, and of no account from an election on.
    stands_until: Option<Time>,
    requests: Requests,
    keeper: KeeperWatch,
    keeper_died: bool,
    runs: Runs,
    follower: Follower,
    petitions: Petitions,
    asides: Asides,
    /// The last start of any program, and which it was.
    run: Run,
    job: Job,
    /// The highest term that any leader was seen to have, this candidate included (S1).
    highest_term: Term,
    /// Wins in a row whose terms were not above it.
    low_terms: u32,
    /// Whether the store has ever answered: refusals after that are troubles to be waited out.
    store_answered: bool,
    jitter: fastrand::Rng,
    actions: Vec<Action>,
    #[cfg(test)]
    sabotage: Option<Sabotage>,
}

/// Where a candidate is, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Campaigning: not the leader.
    Standing,
    /// The store says we won; being verified.
    Verifying,
    /// Leading.
    Leading,
    /// The command is being stopped.
    Stopping,
    /// Leading, and nothing runs: between two runs of the command, or because the boundary is to be kept.
    Holding,
    /// Leading no longer, and the hook that is to know of it runs.
    Ousting,
    /// The boundary is being given back.
    Releasing,
    /// Not standing for a while: the command has failed here too often, or the hook before it.
    SittingOut,
    /// Over but for the follower, which is being stopped.
    Parting,
    /// Over.
    Ended,
}

impl Candidate {
    /// A candidate that will stand as soon as it is told the time.
    ///
    /// `stop_timeout` is how long a command may take to end when the stop is ours; `seed` feeds the jitter of the
    /// backoff and nothing else.
    #[must_use]
    pub fn new(timing: Timing, stop_timeout: Duration, wishes: Wishes, seed: u64) -> Candidate {
        Candidate {
            state: State::new(),
            core: Core {
                timing,
                stop_timeout,
                wishes,
                stands_until: None,
                requests: Requests::default(),
                keeper: KeeperWatch::new(),
                keeper_died: false,
                runs: Runs::new(wishes.restart, wishes.min_hold),
                follower: Follower::new(wishes.follower, wishes.restart),
                petitions: Petitions::default(),
                asides: Asides::default(),
                run: 0,
                job: Job::Follower,
                highest_term: 0,
                low_terms: 0,
                store_answered: false,
                jitter: fastrand::Rng::with_seed(seed),
                actions: Vec::new(),
                #[cfg(test)]
                sabotage: None,
            },
        }
    }

    /// Takes in what happened at `now` and returns what to do about it, in order.
    pub fn handle(&mut self, now: Time, event: Event) -> Vec<Action> {
        // A message that comes late must find the term over: the deadlines come first (T2).
        self.pass_time(now);
        if let Some(input) = self.recognize(now, event) {
            self.step(now, input);
            self.pass_time(now);
        }
        // A follower lives only while its candidate stands.
        if !matches!(self.state, State::Standing(_)) {
            self.core.dismiss_follower(now);
        }
        let state = std::mem::replace(&mut self.state, State::Ended);
        self.state = state.settle(&mut self.core, now);
        self.answer_petitions();
        if let Some(beside) = self.state.room_for_asides(&self.core)
            && let Some(aside) = self.core.asides.next()
        {
            self.core.act(Action::StartAside { aside, beside });
        }
        if event == Event::Tick && self.may_hold_a_tree() && self.core.keeper.gives_up(now) {
            self.core.report(Report::KeeperSilent);
            if !self.core.breaks(Sabotage::SilentKeeperSpared) {
                self.core.act(Action::KillKeeper);
            }
        }
        std::mem::take(&mut self.core.actions)
    }

    /// When to call [`Candidate::handle`] again if nothing else happens; [`Time::NEVER`] if that is not needed.
    #[must_use]
    pub fn wake_at(&self) -> Time {
        let watch = if self.may_hold_a_tree() { self.core.keeper.wake_at() } else { Time::NEVER };
        let follower = self.core.follower.wake_at(matches!(self.state, State::Standing(_)));
        let state = self.state.wake_at(&self.core);
        state.min(self.core.requests.wake_at()).min(watch).min(follower)
    }

    /// Whether a follower runs, or is being stopped.
    #[must_use]
    pub fn has_a_follower(&self) -> bool {
        !self.core.follower.is_gone()
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
        self.core.follower_passes_time(now);
        self.step(now, Input::Time);
        if let Some(failure) = self.core.requests.expire(now) {
            self.step(now, Input::Answer(failure));
            self.step(now, Input::Time);
        }
        if self.may_hold_a_tree() && self.core.keeper.asks(now, &self.core.timing) {
            self.core.act(Action::Ping);
        }
    }

    fn step(&mut self, now: Time, input: Input) {
        let state = std::mem::replace(&mut self.state, State::Ended);
        self.state = state.next(&mut self.core, now, input);
    }

    /// Turns an event into an input of the state machine, or into nothing: a reply to another attempt, a word
    /// about another term.
    fn recognize(&mut self, now: Time, event: Event) -> Option<Input> {
        match event {
            Event::Tick | Event::Keeper(FromKeeper::Terminal(_)) => None,
            Event::Answer { attempt, answer } => {
                let attempt = self.core.answered(attempt);
                self.core.requests.accept(attempt, answer).map(Input::Answer)
            }
            Event::Hint => Some(Input::Hint),
            Event::Ousted { term } => self.is_current(term).then_some(Input::Ousted),
            Event::Keeper(FromKeeper::Armed { term, kill_by }) => {
                self.core.keeper.confirmed(term, kill_by);
                None
            }
            Event::Keeper(FromKeeper::Pong) => {
                self.core.keeper.answered();
                None
            }
            Event::Keeper(FromKeeper::Progress) => {
                self.core.keeper.progressed(now);
                None
            }
            Event::TermSeen(term) => {
                self.core.highest_term = self.core.highest_term.max(term);
                None
            }
            Event::Keeper(FromKeeper::Started { run, pid }) => self.of_run(now, run, Input::Started(pid)),
            Event::Keeper(FromKeeper::Idle { run }) => self.of_run(now, run, Input::Idle),
            Event::Keeper(FromKeeper::NotStarted { run, why }) => self.of_run(now, run, Input::NotStarted(why)),
            Event::Keeper(FromKeeper::Exited { run, end }) => self.of_run(now, run, Input::Exited(end)),
            Event::Keeper(FromKeeper::Expired { term }) => self.is_current(term).then_some(Input::Expired),
            Event::Keeper(FromKeeper::Empty { run }) => self.of_run(now, run, Input::Empty),
            Event::Keeper(FromKeeper::Cleared { run }) => self.of_run(now, run, Input::Cleared),
            Event::Keeper(FromKeeper::AsideEnded(end)) => {
                if let Some((aside, failure)) = self.core.asides.ended(end) {
                    self.core.report(Report::HookFailed { hook: Hook::Aside(aside), failure });
                }
                None
            }
            Event::Leader(leader) => Some(Input::Leader(leader)),
            Event::Due(aside) => {
                let hooks = self.core.wishes.hooks;
                if match aside {
                    Aside::OnChange => hooks.on_change,
                    Aside::OnError => hooks.on_error,
                } {
                    self.core.asides.due(aside);
                }
                None
            }
            Event::KeeperDied => {
                self.core.keeper_died = true;
                self.core.follower_is_bereaved(now);
                Some(Input::KeeperDied)
            }
            Event::Swept { empty } => {
                let followers = self.core.follower_is_swept(now, empty);
                (!followers).then_some(Input::Swept { empty })
            }
            Event::Stop(signal) => {
                self.core.follower_is_asked(now);
                Some(Input::Stop(signal))
            }
            Event::Forward(signal) if self.has_a_follower() => {
                self.core.act(Action::Forward(signal));
                None
            }
            Event::Forward(signal) => Some(Input::Forward(signal)),
            Event::Ask { petition, term } => {
                if self.state.rules().is_some_and(|ours| term.is_none_or(|term| term == ours)) {
                    self.core.petitions.asks(petition, now);
                    return Some(Input::Ask);
                }
                self.core.act(Action::Deny { petition, why: Denial::NotLeading });
                None
            }
            Event::Resign(petition) => {
                match self.phase() {
                    Phase::Leading | Phase::Holding => {
                        self.core.petitions.resigns(petition);
                        return Some(Input::Resign);
                    }
                    Phase::Stopping | Phase::Ousting => {
                        self.core.act(Action::Deny { petition, why: Denial::Stopping });
                    }
                    Phase::Standing
                    | Phase::Verifying
                    | Phase::Releasing
                    | Phase::SittingOut
                    | Phase::Parting
                    | Phase::Ended => self.core.act(Action::Deny { petition, why: Denial::NotLeading }),
                }
                None
            }
        }
    }

    /// Whoever still waits for a word from a state that cannot say it hears what has become of it.
    fn answer_petitions(&mut self) {
        if self.state.rules().is_none() {
            self.core.actions.extend(self.core.petitions.leads_no_longer());
        }
        match self.phase() {
            Phase::Leading | Phase::Holding | Phase::Stopping | Phase::Ousting | Phase::Releasing => {}
            Phase::Standing | Phase::Verifying | Phase::SittingOut | Phase::Parting | Phase::Ended => {
                self.core.actions.extend(self.core.petitions.has_given_up());
            }
        }
    }

    /// What the keeper says of a run is for whoever started it: the follower, or the present state.
    fn of_run(&mut self, now: Time, run: Run, input: Input) -> Option<Input> {
        if self.core.follower.is_run(run) {
            self.core.follower_hears(now, input);
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

    fn is_run(&self, run: Run) -> bool {
        self.state.may_hold_a_tree() && self.core.run == run
    }
}

impl Core {
    fn act(&mut self, action: Action) {
        self.actions.push(action);
    }

    fn report(&mut self, report: Report) {
        self.act(Action::Report(report));
    }

    fn ask_for_the_boundary(&mut self, now: Time) {
        let until = if self.breaks(Sabotage::StandsOn) { Time::NEVER } else { self.wishes.patience.from(now) };
        self.stands_until.get_or_insert(until);
        let attempt = self.requests.open(Kind::Campaign, now, &self.timing);
        self.act(Action::Campaign(attempt));
    }

    fn renew(&mut self, now: Time) {
        let attempt = self.requests.open(Kind::Renew, now, &self.timing);
        self.act(Action::Renew(attempt));
    }

    fn release(&mut self, now: Time) {
        let attempt = self.requests.open(Kind::Release, now, &self.timing);
        self.act(Action::Release(attempt));
    }

    fn arm(&mut self, term: Term, lease: Lease) {
        self.keeper.sent(term, lease.kill_by);
        self.act(Action::Arm { term, kill_by: lease.kill_by });
    }

    fn start(&mut self, job: Job) -> Run {
        self.run += 1;
        self.job = job;
        self.act(Action::Start { job, run: self.run });
        self.run
    }

    /// Nothing is kept for the sake of a hold any longer.
    fn end_hold(&mut self, now: Time) {
        if self.runs.hold_ends(now) {
            self.act(Action::EndHold);
        }
    }

    fn is_out_of_patience(&self, now: Time) -> bool {
        self.stands_until.is_some_and(|until| now >= until)
    }

    /// What follows the end of the command, now that its tree is empty.
    fn sequel(&mut self, now: Time, end: CommandEnd) -> Sequel {
        let unlimited = self.breaks(Sabotage::NoRestartLimit);
        self.runs.sequel(now, end, self.timing.ttl(), &mut self.jitter, unlimited)
    }

    /// B: a quarter to half a request's time-out, so that candidates that failed together do not return together.
    fn backoff(&mut self) -> Duration {
        let (shortest, longest) = (self.timing.shortest_backoff(), self.timing.longest_backoff());
        shortest + longest.saturating_sub(shortest).mul_f64(self.jitter.f64())
    }
}
