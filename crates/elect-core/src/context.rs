//! The data that the states share, and the actions that they take.

use std::time::Duration;

use crate::background_hooks::BackgroundHooks;
use crate::eligibility::{Eligibility, HealthChange};
use crate::follower::Follower;
use crate::keeper_liveness::KeeperLiveness;
use crate::mutation::Mutation;
use crate::pending_requests::PendingRequests;
use crate::policy::{CampaignLimit, OnLost};
use crate::resign_tracker::ResignTracker;
use crate::restart_tracker::{AfterExit, RestartTracker};
use crate::state::{AfterRelease, LEASE_NO_TTL};
use crate::store_requests::{StoreRequestKind, StoreRequests};
use crate::{Action, CheckEnd, CheckNumber, CommandEnd, Lease, Notice, Outcome, Policy, Program, Reason, RunId, Term};
use crate::{Time, Timing, TimingError};

/// The data that every state works with.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) timing: Timing,
    pub(crate) stop_timeout: Duration,
    pub(crate) policy: Policy,
    /// The end of the campaign limit: known from the first request on; an election clears it.
    pub(crate) campaign_deadline: Option<Time>,
    pub(crate) store_requests: StoreRequests,
    pub(crate) keeper: KeeperLiveness,
    pub(crate) keeper_died: bool,
    pub(crate) restart_tracker: RestartTracker,
    pub(crate) resign_tracker: ResignTracker,
    pub(crate) eligibility: Eligibility,
    pub(crate) follower: Follower,
    pub(crate) pending_requests: PendingRequests,
    pub(crate) background_hooks: BackgroundHooks,
    /// The number of the last start of any program; 0 before the first.
    pub(crate) run: RunId,
    /// The program of that start.
    pub(crate) program: Option<Program>,
    /// Whether nothing of the last start is left; the follower, which has a tree of its own, does not count.
    pub(crate) tree_is_empty: bool,
    /// The highest term of any leader that was seen, this candidate included (S1).
    pub(crate) highest_term: Term,
    /// Wins in a row whose terms were not above the highest one.
    pub(crate) low_terms: u32,
    /// Whether the store has ever answered: later refusals are treated as transient.
    pub(crate) store_answered: bool,
    /// The time of the last event.
    pub(crate) now: Time,
    pub(crate) jitter: fastrand::Rng,
    pub(crate) actions: Vec<Action>,
    #[cfg(test)]
    pub(crate) mutation: Option<Mutation>,
}

impl Context {
    pub(crate) fn new(timing: Timing, stop_timeout: Duration, policy: Policy, seed: u64) -> Context {
        Context {
            timing,
            stop_timeout,
            policy,
            campaign_deadline: None,
            store_requests: StoreRequests::default(),
            keeper: KeeperLiveness::new(),
            keeper_died: false,
            restart_tracker: RestartTracker::new(policy.restart, policy.min_hold),
            resign_tracker: ResignTracker::default(),
            eligibility: Eligibility::new(policy.drained, policy.health),
            follower: Follower::new(policy.follower, policy.restart),
            pending_requests: PendingRequests::default(),
            background_hooks: BackgroundHooks::default(),
            run: 0,
            program: None,
            tree_is_empty: true,
            highest_term: 0,
            low_terms: 0,
            store_answered: false,
            now: Time::BOOT,
            jitter: fastrand::Rng::with_seed(seed),
            actions: Vec::new(),
            #[cfg(test)]
            mutation: None,
        }
    }

    pub(crate) fn act(&mut self, action: Action) {
        self.actions.push(action);
    }

    pub(crate) fn notice(&mut self, notice: Notice) {
        self.act(Action::Notice(notice));
    }

    pub(crate) fn campaign(&mut self, now: Time) {
        let until = if self.mutated(Mutation::StandsOn) { Time::NEVER } else { self.policy.campaign_limit.from(now) };
        self.campaign_deadline.get_or_insert(until);
        let attempt = self.store_requests.open(StoreRequestKind::Campaign, now, &self.timing);
        self.act(Action::Campaign(attempt));
    }

    pub(crate) fn renew(&mut self, now: Time) {
        let attempt = self.store_requests.open(StoreRequestKind::Renew, now, &self.timing);
        self.act(Action::Renew(attempt));
    }

    pub(crate) fn release(&mut self, now: Time) {
        let attempt = self.store_requests.open(StoreRequestKind::Release, now, &self.timing);
        self.act(Action::Release(attempt));
    }

    pub(crate) fn observe(&mut self, now: Time) {
        let attempt = self.store_requests.open(StoreRequestKind::Observe, now, &self.timing);
        self.act(Action::Observe(attempt));
    }

    /// A leadership is over, with an empty tree (2.3).
    pub(crate) fn leaves(&mut self, now: Time) {
        self.debug_assert_empty_tree();
        self.eligibility.term_ends(now);
    }

    /// A release is over that began then. The last renewal was sent before, and the store may have executed it as late as
    /// a request may take (H8).
    pub(crate) fn release_ended(&mut self, began: Time, released: bool) {
        let lease_ends = match self.timing.ttl() {
            Some(ttl) => began + ttl + self.timing.request_timeout(),
            None => began + LEASE_NO_TTL,
        };
        self.pending_requests.release_ended(released, lease_ends);
    }

    /// Whether the candidate may campaign and lead.
    pub(crate) fn is_eligible(&self, now: Time) -> bool {
        let reasons = self.eligibility.reasons(now);
        !(reasons.drained || (reasons.unhealthy && !self.mutated(Mutation::CampaignsUnhealthy)))
    }

    /// The reason to stop a leader that is not eligible any more.
    pub(crate) fn ineligible_reason(&self, now: Time) -> Option<Reason> {
        let reason = if self.eligibility.drained { Reason::Drained } else { Reason::Unhealthy };
        (!self.is_eligible(now)).then_some(reason)
    }

    /// Reports a drain, once.
    pub(crate) fn report_drain(&mut self) {
        let is_new = self.eligibility.drained && !self.eligibility.drain_is_reported;
        if is_new {
            self.eligibility.drain_is_reported = true;
            self.notice(Notice::Drained);
        }
    }

    /// Reports a drain. A candidate whose first verdict is awaited has no longer than the campaign limit for it, unless it asks only once.
    pub(crate) fn becomes_ineligible(&mut self, now: Time) {
        self.report_drain();
        match self.policy.campaign_limit {
            CampaignLimit::For(limit) if limit > Duration::ZERO => {
                self.campaign_deadline.get_or_insert(now + limit);
            }
            CampaignLimit::For(_) | CampaignLimit::Unlimited => {}
        }
    }

    /// Starts the health check that is due, and gives up the one that the keeper does not report.
    pub(crate) fn pass_health_time(&mut self, now: Time, counts: bool) {
        let change = self.eligibility.give_up_overdue(now, counts);
        self.health_changed(change);
        if let Some(check) = self.eligibility.check_due(now) {
            self.act(Action::StartCheck { check });
        }
        if let Some(time) = self.eligibility.warning_due(now) {
            self.notice(Notice::LongUnhealthy { time });
        }
    }

    /// A health check is over. Its result changes nothing unless it `counts`.
    pub(crate) fn check_ended(&mut self, now: Time, check: CheckNumber, end: CheckEnd, counts: bool) {
        let any = self.mutated(Mutation::OldCheckCounts);
        let change = self.eligibility.ended(now, check, end, counts, any);
        self.health_changed(change);
    }

    fn health_changed(&mut self, change: Option<HealthChange>) {
        match change {
            Some(HealthChange::Healthy) => self.notice(Notice::Healthy),
            Some(HealthChange::Unhealthy { failures, last }) => self.notice(Notice::Unhealthy { failures, last }),
            None => {}
        }
    }

    pub(crate) fn arm(&mut self, term: Term, lease: Lease) {
        self.keeper.deadline_sent(self.now, term, lease.kill_by, &self.timing);
        self.act(Action::Arm { term, kill_by: lease.kill_by });
    }

    /// The keeper had nothing to kill since the last run: a question that it has not answered yet is asked again.
    pub(crate) fn arm_next_run(&mut self, term: Term, lease: Lease) {
        self.keeper.reset();
        self.arm(term, lease);
    }

    pub(crate) fn start(&mut self, program: Program) -> RunId {
        self.run += 1;
        self.program = Some(program);
        self.keeper.run_started();
        self.tree_is_empty &= matches!(program, Program::Follower);
        self.act(Action::Start { program, run: self.run });
        self.run
    }

    /// Ends a `--min-hold`, if one is in force.
    pub(crate) fn end_hold(&mut self, now: Time) {
        if self.restart_tracker.hold_ends(now) {
            self.act(Action::EndHold);
        }
    }

    pub(crate) fn campaign_timed_out(&self, now: Time) -> bool {
        self.campaign_deadline.is_some_and(|until| now >= until)
    }

    /// Decides what follows the end of the command, whose tree is empty now.
    pub(crate) fn after_exit(&mut self, now: Time, end: CommandEnd) -> AfterExit {
        let unlimited = self.mutated(Mutation::NoRestartLimit);
        self.restart_tracker.after_exit(now, end, self.timing.ttl(), &mut self.jitter, unlimited)
    }

    /// B: a quarter to half of the request time-out, so that candidates that failed together do not return together.
    pub(crate) fn backoff(&mut self) -> Duration {
        let (shortest, longest) = (self.timing.shortest_backoff(), self.timing.longest_backoff());
        shortest + longest.saturating_sub(shortest).mul_f64(self.jitter.f64())
    }

    /// The due time of a request: never, while another one is outstanding.
    pub(crate) fn when_idle(&self, request_at: Time) -> Time {
        if self.store_requests.is_idle() { request_at } else { Time::NEVER }
    }

    /// The program of the last start, if that has this number.
    pub(crate) fn program_of(&self, run: RunId) -> Option<Program> {
        self.program.filter(|_| self.run == run)
    }

    /// Whether the last start was that of the leader command.
    pub(crate) fn last_start_is_command(&self) -> bool {
        matches!(self.program, Some(Program::Command { .. }))
    }

    /// 2.3: the precondition of each state in which nothing of the term may run.
    pub(crate) fn debug_assert_empty_tree(&self) {
        debug_assert!(self.tree_is_empty || self.has_mutation(), "the tree of run {} is not empty", self.run);
    }

    /// The continuation of a leadership that was lost, once the tree is empty.
    pub(crate) fn after_loss(&self) -> AfterRelease {
        match self.policy.on_lost {
            OnLost::Recampaign => AfterRelease::Campaign(None),
            OnLost::End if self.mutated(Mutation::CampaignsAgain) => AfterRelease::Campaign(None),
            OnLost::End => AfterRelease::Exit(Outcome::LeadershipLost),
        }
    }

    /// The continuation after a resignation: behind the others, and later each time in a row.
    pub(crate) fn after_resign(&mut self, now: Time) -> AfterRelease {
        let rest = self.resign_tracker.resigned(now);
        match self.after_loss() {
            AfterRelease::Campaign(_) => AfterRelease::CampaignBehind(rest),
            then @ (AfterRelease::CampaignAfter(_)
            | AfterRelease::CampaignBehind(_)
            | AfterRelease::CoolDown(_)
            | AfterRelease::Exit(_)) => then,
        }
    }

    /// The continuation after a leadership that ended because the candidate is not eligible (H7). It campaigns again once
    /// it is.
    pub(crate) fn after_ineligible(&mut self, now: Time, reason: Reason) -> AfterRelease {
        if reason == Reason::Unhealthy {
            self.eligibility.resigned(now);
        }
        match self.policy.campaign_limit {
            CampaignLimit::Unlimited => AfterRelease::Campaign(None),
            CampaignLimit::For(_) => AfterRelease::Exit(Outcome::LeadershipLost),
        }
    }

    /// The due time of the renewal after one that was sent at `sent`: at once, if a control request waits for a renewal
    /// that is sent from now on.
    pub(crate) fn next_renewal(&self, now: Time, sent: Time) -> Time {
        if self.pending_requests.wait_for_a_renewal() { now } else { (sent + self.timing.renew()).max(now) }
    }

    /// The lease of a credited renewal, with the timings of the ttl that was granted (T3).
    pub(crate) fn credit(&mut self, term: Term, sent: Time, granted: Option<Duration>) -> Result<Lease, TimingError> {
        if let Some(ttl) = granted {
            self.timing = self.timing.for_granted(ttl).inspect_err(|_| {
                // The end of such a lease is unknown, and it is not renewed for a control request.
                let answers = self.pending_requests.leads_no_longer();
                self.actions.extend(answers);
            })?;
        }
        let lease = self.granted(sent);
        let any = self.mutated(Mutation::OldRenewalAnswers);
        let answers = self.pending_requests.credited(Some(term), lease, any);
        self.actions.extend(answers);
        Ok(lease)
    }
}
