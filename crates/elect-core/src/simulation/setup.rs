//! The ingredients of a history, drawn from its seed.

use std::time::Duration;

use super::super::timing::TimingFlags;
use super::super::{CampaignLimit, Hooks, OnChange, OnLost, Policy, Restart, RestartWhen, Timing};
use crate::takeover::Durability;
use crate::{KeeperPolicy, Signal};

use super::clock::{CLOCK_DRIFT_MAX_PPM, SimRng, ms};
use super::command::{ProcessBehavior, SIGTERM, SimTier};
use super::faults::Fault;
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

#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is drawn by itself")]
pub(super) struct Setup {
    pub seed: u64,
    pub mode: StoreModel,
    pub candidates: usize,
    /// The shortest ttl of all.
    pub ttl: Duration,
    /// Whether each candidate has a ttl of its own.
    pub unequal: bool,
    pub stop_timeout: Duration,
    pub drift: bool,
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
    /// Whether requests to confirm the leadership arrive now and then.
    pub pending_requests: bool,
    pub quiet_at: Duration,
    /// From then on the history ends as soon as it has settled.
    pub settles_from: Option<Duration>,
    /// The behavior of every command; drawn for each if not given.
    pub behavior: Option<ProcessBehavior>,
    pub faults: Vec<(Duration, Fault)>,
}

const TTLS: [Duration; 4] = [ms(3_000), ms(4_000), ms(6_000), ms(10_000)];

impl Setup {
    pub(super) fn draw(seed: u64) -> Setup {
        let mut rng = fastrand::Rng::with_seed(seed ^ 0x005e_ed0f_e1ec_7104);
        let mut rng = SimRng { rng: rng.fork(), punctual: false, drawn: 0 };
        let ttl = rng.of(&TTLS);
        let mode = match rng.rng.u32(0..100) {
            0..40 => StoreModel::Queue,
            // By chance of their own; no seed that had failed before is among them.
            40..88 if seed % 5 == 2 => StoreModel::DurableRecord,
            40..88 => StoreModel::Record,
            _ => StoreModel::Lock,
        };
        Setup {
            seed,
            mode,
            candidates: rng.rng.usize(2..=4),
            ttl,
            unequal: rng.percent(30),
            stop_timeout: rng.of(&[ms(500), ms(2_000), ms(8_000)]),
            drift: rng.percent(90),
            calm: rng.percent(20),
            strays: rng.percent(50),
            socket_room: rng.of(&[1, 3, 200, 200, 200]),
            rejoin: true,
            // One in four, and by chance of their own: the histories with a wait limit, and with them the seeds that have
            // failed once, stay what they were.
            impatient: seed % 4 == 3,
            // By chance of their own as well; no seed that had failed before is among them.
            supervised: seed.is_multiple_of(4),
            // By chance of their own too, and half of those whose commands are restarted among them; but for a seed
            // that had failed before.
            following: matches!(seed % 8, 0 | 6) && seed != 94,
            pending_requests: seed % 8 == 1,
            quiet_at: ttl * 10,
            settles_from: None,
            behavior: None,
            faults: vec![(rng.between(ms(1), ttl), Fault::Any)],
        }
    }

    /// No fault, no chance, nobody but those who are there from the beginning.
    pub(super) fn plain(mode: StoreModel, candidates: usize, quiet_at: Duration) -> Setup {
        Setup {
            seed: 0,
            mode,
            candidates,
            ttl: ms(10_000),
            unequal: false,
            stop_timeout: ms(8_000),
            drift: false,
            calm: true,
            strays: false,
            socket_room: 200,
            rejoin: false,
            impatient: false,
            supervised: false,
            following: false,
            pending_requests: false,
            quiet_at,
            settles_from: None,
            behavior: Some(ProcessBehavior::calm()),
            faults: Vec::new(),
        }
    }

    pub(super) fn store(&self, rng: &mut SimRng, injected_mutation: Option<InjectedMutation>) -> Store {
        match self.mode {
            StoreModel::Queue => {
                let rate = if self.drift { rng.rng.i64(-CLOCK_DRIFT_MAX_PPM..=CLOCK_DRIFT_MAX_PPM) } else { 0 };
                // Now and then a server that grants no lease as short as was asked for.
                let odd = !self.calm && rng.percent(20);
                Store::Queue(QueueServer::new(rate, if odd { ms(5_000) } else { ms(0) }, injected_mutation))
            }
            StoreModel::Record | StoreModel::DurableRecord => {
                let memory = if self.mode == StoreModel::Record { Durability::Volatile } else { Durability::Durable };
                Store::Record(RecordServer::new(rng.of(&[ms(1_000), self.ttl]), memory, injected_mutation))
            }
            StoreModel::Lock => Store::Lock(LockServer::default()),
        }
    }

    /// The policy of a candidate besides leading.
    pub(super) fn policy(&self, h: usize) -> Policy {
        let policy = self.wishes_without_followers(h);
        if !self.following {
            return policy;
        }
        let mut rng = self.dice_of(h, 0x0f01_1077);
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
    pub(super) fn tier(&self, h: usize) -> SimTier {
        if self.behavior.is_some() {
            return SimTier::Tree;
        }
        self.dice_of(h, 0x0c0e_77a1).of(&[SimTier::Tree, SimTier::Cgroup, SimTier::Pidns])
    }

    /// Whether a candidate inherits a child when it is executed.
    pub(super) fn has_preexisting_child(&self, h: usize) -> bool {
        self.behavior.is_none() && self.dice_of(h, 0x0c41_1d2e).percent(25)
    }

    /// The configuration of a candidate's keeper. Some candidates lead without a command.
    pub(super) fn keeper_policy(&self, h: usize, policy: Policy) -> KeeperPolicy {
        KeeperPolicy {
            stop_signal: SIGTERM,
            stop_timeout: self.stop_timeout,
            min_hold: policy.min_hold,
            has_command: !(self.following && h % 5 == 4),
            has_follower: policy.follower.is_some(),
            hooks: policy.hooks,
        }
    }

    fn wishes_without_followers(&self, h: usize) -> Policy {
        if self.supervised {
            return self.supervision(h);
        }
        if !self.impatient {
            return Policy::default();
        }
        let mut rng = self.dice_of(h, 0x0b5e_55ed);
        let campaign_limit = match rng.rng.u32(0..100) {
            0..35 => CampaignLimit::Unlimited,
            35..60 => CampaignLimit::For(ms(0)),
            _ => CampaignLimit::For(rng.between(ms(1), self.ttl * 2)),
        };
        let on_lost = if rng.percent(50) { OnLost::End } else { OnLost::Recampaign };
        Policy { campaign_limit, on_lost, ..Policy::default() }
    }

    /// The same for those whose commands are restarted, or whose boundary is kept.
    fn supervision(&self, h: usize) -> Policy {
        let mut rng = self.dice_of(h, 0x5afe_4a2d);
        let when = rng.of(&[RestartWhen::Never, RestartWhen::OnFailure, RestartWhen::Always, RestartWhen::Always]);
        let restart = Restart {
            when,
            delay: rng.of(&[ms(0), ms(20), ms(100), self.ttl / 4]),
            limit: rng.rng.u32(1..=4),
            within: rng.between(self.ttl / 4, self.ttl * 3 / 2),
        };
        let min_hold = if rng.percent(50) { rng.between(ms(1), self.ttl * 2) } else { ms(0) };
        let campaign_limit =
            if rng.percent(80) { CampaignLimit::Unlimited } else { CampaignLimit::For(rng.between(ms(0), self.ttl)) };
        let on_lost = if rng.percent(25) { OnLost::End } else { OnLost::Recampaign };
        Policy { campaign_limit, on_lost, min_hold, restart, ..Policy::default() }
    }

    fn dice_of(&self, h: usize, kind: u64) -> SimRng {
        let host = u64::try_from(h).expect("few hosts");
        let seed = self.seed ^ kind ^ host.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        SimRng { rng: fastrand::Rng::with_seed(seed), punctual: false, drawn: 0 }
    }

    /// The timings that one candidate asks for.
    pub(super) fn asked(&self, rng: &mut SimRng) -> TimingFlags {
        let ttl = if self.unequal { rng.of(&TTLS).max(self.ttl) } else { self.ttl };
        let plain = TimingFlags { ttl: Some(ttl), ..TimingFlags::default() };
        if self.behavior.is_some() {
            return plain;
        }
        let odd = match rng.rng.u32(0..6) {
            0 => TimingFlags { renew: Some(ttl / 4), ..plain },
            1 => TimingFlags { fence_grace: Some(ms(100)), ..plain },
            2 => TimingFlags { request_timeout: Some(ttl / 12), ..plain },
            _ => plain,
        };
        if Timing::validate(odd).is_ok() { odd } else { plain }
    }

    pub(super) fn longest_ttl(&self) -> Duration {
        if self.unequal { ms(10_000) } else { self.ttl.max(ms(5_000)) }
    }
}
