//! The ingredients of a history, the first of its choices.

use std::time::Duration;

use super::super::timing::TimingFlags;
use super::super::{CampaignLimit, Health, Hooks, OnChange, OnLost, Policy, Restart, RestartWhen, Timing};
use crate::takeover::Durability;
use crate::{KeeperPolicy, Signal, StopTo};

use super::choices::SimRng;
use super::clock::{CLOCK_DRIFT_MAX_PPM, ms};
use super::command::{ProcessBehavior, SIGTERM, SimTier};
use super::faults::Fault;
use super::health_check::CHECK_TIMEOUT;
use super::lock_store::LockServer;
use super::mutations::InjectedMutation;
use super::queue_store::QueueServer;
use super::record_store::RecordServer;
use super::store::Store;

/// The kind of store in which the election is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StoreModel {
    /// Leases of its own, and a queue.
    Queue,
    /// One record, observed.
    Record,
    /// The same, where no record is ever lost.
    DurableRecord,
    /// A lock, without a ttl.
    Lock,
}

/// How much faster than true time the clocks are, in millionths.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClockRates {
    /// That of the first candidate.
    pub leader: i64,
    /// Those of the other candidates and of the store.
    pub others: i64,
    /// A command that outlives its lease is no violation as long as there is no other.
    pub only_overlap_counts: bool,
}

#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is drawn by itself")]
pub(super) struct Setup {
    pub mode: StoreModel,
    pub candidates: usize,
    /// The shortest ttl of all.
    pub ttl: Duration,
    /// Whether each candidate has a ttl of its own.
    pub unequal: bool,
    pub stop_timeout: Duration,
    pub drift: bool,
    /// The rates of all clocks, if they are not drawn.
    pub clock_rates: Option<ClockRates>,
    /// Neither the network nor the store ever fails.
    pub calm: bool,
    /// Old deadlines stray in at the keeper.
    pub strays: bool,
    /// The number of messages that the socket between campaigner and keeper has room for.
    pub socket_room: usize,
    pub rejoin: bool,
    /// Some candidates wait for so long only, or end when they have lost.
    pub impatient: bool,
    /// Some candidates restart their command, or keep the boundary for a while.
    pub supervised: bool,
    /// Most candidates have a follower, or hooks.
    pub following: bool,
    /// Each candidate has a health check.
    pub checking: bool,
    /// Whether requests to confirm the leadership arrive now and then.
    pub pending_requests: bool,
    /// Most candidates have a health check, and candidates are drained now and then.
    pub eligibility: bool,
    pub quiet_at: Duration,
    /// From then on the history ends as soon as it has settled.
    pub settles_from: Option<Duration>,
    /// The behavior of every command; drawn for each if not given.
    pub behavior: Option<ProcessBehavior>,
    pub faults: Vec<(Duration, Fault)>,
}

/// The kind of all candidates of a history: what they are asked for besides leading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Situation {
    None,
    Requests,
    Impatient,
    Supervised,
    Following,
    SupervisedAndFollowing,
    Eligibility,
    Checking,
    FollowingAndChecking,
}

impl Situation {
    /// Each as often as it is to occur.
    const ALL: [Situation; 12] = [
        Situation::None,
        Situation::None,
        Situation::Requests,
        Situation::Impatient,
        Situation::Impatient,
        Situation::Supervised,
        Situation::Following,
        Situation::SupervisedAndFollowing,
        Situation::Eligibility,
        Situation::Eligibility,
        // Last, so that recorded choices keep their meaning.
        Situation::Checking,
        Situation::FollowingAndChecking,
    ];
}

const TTLS: [Duration; 4] = [ms(3_000), ms(4_000), ms(6_000), ms(10_000)];

impl Setup {
    pub(super) fn draw(rng: &mut SimRng) -> Setup {
        let ttl = rng.of(&TTLS);
        let mode = match rng.below_small(100) {
            0..40 => StoreModel::Queue,
            40..78 => StoreModel::Record,
            78..88 => StoreModel::DurableRecord,
            _ => StoreModel::Lock,
        };
        let situation = rng.of(&Situation::ALL);
        Setup {
            mode,
            candidates: 2 + rng.index(3),
            ttl,
            unequal: rng.percent(30),
            stop_timeout: rng.of(&[ms(500), ms(2_000), ms(8_000)]),
            drift: rng.percent(90),
            clock_rates: None,
            calm: !rng.percent(80),
            strays: rng.percent(50),
            socket_room: rng.of(&[200, 200, 200, 3, 1]),
            rejoin: true,
            impatient: situation == Situation::Impatient,
            supervised: matches!(situation, Situation::Supervised | Situation::SupervisedAndFollowing),
            following: matches!(
                situation,
                Situation::Following | Situation::SupervisedAndFollowing | Situation::FollowingAndChecking
            ),
            checking: matches!(situation, Situation::Checking | Situation::FollowingAndChecking),
            pending_requests: situation == Situation::Requests,
            eligibility: situation == Situation::Eligibility,
            quiet_at: ttl * 10,
            settles_from: None,
            behavior: None,
            faults: vec![(rng.between(ms(1), ttl), Fault::Any)],
        }
    }

    /// No fault, no chance, nobody but those who are there from the beginning.
    pub(super) fn plain(mode: StoreModel, candidates: usize, quiet_at: Duration) -> Setup {
        Setup {
            mode,
            candidates,
            ttl: ms(10_000),
            unequal: false,
            stop_timeout: ms(8_000),
            drift: false,
            clock_rates: None,
            calm: true,
            strays: false,
            socket_room: 200,
            rejoin: false,
            impatient: false,
            supervised: false,
            following: false,
            checking: false,
            pending_requests: false,
            eligibility: false,
            quiet_at,
            settles_from: None,
            behavior: Some(ProcessBehavior::calm()),
            faults: Vec::new(),
        }
    }

    pub(super) fn store(&self, rng: &mut SimRng, injected_mutation: Option<InjectedMutation>) -> Store {
        match self.mode {
            StoreModel::Queue => {
                let rate = match self.clock_rates {
                    Some(rates) => rates.others,
                    None if self.drift => rng.around_zero(CLOCK_DRIFT_MAX_PPM),
                    None => 0,
                };
                // Now and then a server that grants no lease as short as was asked for.
                let odd = !self.calm && rng.percent(20);
                Store::Queue(QueueServer::new(rate, if odd { ms(5_000) } else { ms(0) }, injected_mutation))
            }
            StoreModel::Record | StoreModel::DurableRecord => {
                let memory = if self.mode == StoreModel::Record { Durability::Volatile } else { Durability::Durable };
                let mut server = RecordServer::new(rng.of(&[ms(1_000), self.ttl]), memory, injected_mutation);
                server.reserves = self.eligibility;
                Store::Record(server)
            }
            StoreModel::Lock => Store::Lock(LockServer::default()),
        }
    }

    /// The policy of a candidate besides leading.
    pub(super) fn policy(&self, rng: &mut SimRng) -> Policy {
        if self.eligibility {
            return self.eligibility(rng);
        }
        let policy = self.wishes_without_followers(rng);
        if !self.following {
            return policy;
        }
        let on_change = rng.of(&[OnChange::Restart, OnChange::Restart, OnChange::Signal(Signal(10)), OnChange::Ignore]);
        let hooks = Hooks {
            on_elected: rng.percent(50),
            on_ousted: rng.percent(60),
            on_change: rng.percent(50),
            on_error: rng.percent(50),
            timeout: rng.of(&[ms(300), ms(1_000), self.ttl]),
        };
        Policy { follower: rng.percent(70).then_some(on_change), hooks, ..policy }
    }

    /// The containment of a candidate's command.
    pub(super) fn tier(&self, rng: &mut SimRng) -> SimTier {
        if self.behavior.is_some() {
            return SimTier::Tree;
        }
        rng.of(&[SimTier::Tree, SimTier::Cgroup, SimTier::Pidns])
    }

    /// Whether a candidate inherits a child when it is executed.
    pub(super) fn has_preexisting_child(&self, rng: &mut SimRng) -> bool {
        self.behavior.is_none() && rng.percent(25)
    }

    /// The configuration of a candidate's keeper. Some candidates lead without a command.
    pub(super) fn keeper_policy(&self, h: usize, policy: Policy) -> KeeperPolicy {
        KeeperPolicy {
            stop_signal: SIGTERM,
            stop_to: if h.is_multiple_of(2) { StopTo::Main } else { StopTo::Group },
            stop_timeout: self.stop_timeout,
            min_hold: policy.min_hold,
            has_command: !(self.following && h % 5 == 4),
            has_follower: policy.follower.is_some(),
            hooks: policy.hooks,
            health_timeout: (self.checking || policy.health.is_some()).then_some(CHECK_TIMEOUT),
        }
    }

    fn wishes_without_followers(&self, rng: &mut SimRng) -> Policy {
        if self.supervised {
            return self.supervision(rng);
        }
        if !self.impatient {
            return Policy::default();
        }
        let campaign_limit = match rng.below_small(100) {
            0..35 => CampaignLimit::Unlimited,
            35..60 => CampaignLimit::For(ms(0)),
            _ => CampaignLimit::For(rng.between(ms(1), self.ttl * 2)),
        };
        let on_lost = if rng.percent(50) { OnLost::End } else { OnLost::Recampaign };
        Policy { campaign_limit, on_lost, ..Policy::default() }
    }

    /// The policy of those that may become ineligible.
    fn eligibility(&self, rng: &mut SimRng) -> Policy {
        let health = Health {
            interval: rng.between(CHECK_TIMEOUT, self.ttl / 4),
            timeout: CHECK_TIMEOUT,
            rise: 1 + rng.below_small(2),
            fall: 1 + rng.below_small(2),
            start: ms(0),
        };
        let follower = rng.percent(40).then_some(OnChange::Restart);
        let min_hold = if rng.percent(20) { rng.between(ms(1), self.ttl * 2) } else { ms(0) };
        let has_health = rng.percent(75);
        let drained = rng.percent(10);
        Policy { health: has_health.then_some(health), drained, follower, min_hold, ..Policy::default() }
    }

    /// The same for those whose commands are restarted, or whose boundary is kept.
    fn supervision(&self, rng: &mut SimRng) -> Policy {
        let when = rng.of(&[RestartWhen::Never, RestartWhen::OnFailure, RestartWhen::Always, RestartWhen::Always]);
        let restart = Restart {
            when,
            delay: rng.of(&[ms(0), ms(20), ms(100), self.ttl / 4]),
            limit: 1 + rng.below_small(4),
            within: rng.between(self.ttl / 4, self.ttl * 3 / 2),
        };
        let min_hold = if rng.percent(50) { rng.between(ms(1), self.ttl * 2) } else { ms(0) };
        let campaign_limit =
            if rng.percent(80) { CampaignLimit::Unlimited } else { CampaignLimit::For(rng.between(ms(0), self.ttl)) };
        let on_lost = if rng.percent(25) { OnLost::End } else { OnLost::Recampaign };
        Policy { campaign_limit, on_lost, min_hold, restart, ..Policy::default() }
    }

    /// The timings that one candidate asks for.
    pub(super) fn asked(&self, rng: &mut SimRng) -> TimingFlags {
        let ttl = if self.unequal { rng.of(&TTLS).max(self.ttl) } else { self.ttl };
        let plain = TimingFlags { ttl: Some(ttl), ..TimingFlags::default() };
        if self.behavior.is_some() {
            return plain;
        }
        let odd = match rng.below_small(6) {
            3 => TimingFlags { renew: Some(ttl / 4), ..plain },
            4 => TimingFlags { fence_grace: Some(ms(100)), ..plain },
            5 => TimingFlags { request_timeout: Some(ttl / 12), ..plain },
            _ => plain,
        };
        if Timing::validate(odd).is_ok() { odd } else { plain }
    }

    pub(super) fn longest_ttl(&self) -> Duration {
        if self.unequal { ms(10_000) } else { self.ttl.max(ms(5_000)) }
    }
}
