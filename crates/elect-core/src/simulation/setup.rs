//! What a history is made of, drawn from its seed.

use std::time::Duration;

use super::super::event::Signal;
use super::super::timing::Asked;
use super::super::{Hooks, OnChange, OnLost, Patience, Restart, RestartWhen, Timing, Wishes};
use crate::takeover::Durability;

use super::clock::{Dice, FASTEST, ms};
use super::command::Nature;
use super::faults::Fault;
use super::lock_store::LockServer;
use super::queue_store::QueueServer;
use super::record_store::RecordServer;
use super::sabotage::Broken;
use super::store::Store;

/// What kind of store the election is held in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Leases of its own, and a queue.
    Queue,
    /// One record, observed.
    Record,
    /// The same, where no record is ever lost.
    LastingRecord,
    /// A lock, without a ttl.
    Lock,
}

#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is drawn by itself")]
pub(super) struct Setup {
    pub seed: u64,
    pub mode: Mode,
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
    /// The keeper lets a passed deadline move on if nothing was killed for it. K1 allows either.
    pub obliging: bool,
    pub rejoin: bool,
    /// Some candidates wait for so long only, or end when they have lost.
    pub impatient: bool,
    /// Some candidates restart their command, or keep the boundary for a while.
    pub supervised: bool,
    /// Most candidates have a follower, or hooks.
    pub following: bool,
    /// Somebody asks now and then whether it leads.
    pub petitions: bool,
    pub quiet_at: Duration,
    /// The nature of every command; drawn for each if not given.
    pub nature: Option<Nature>,
    pub faults: Vec<(Duration, Fault)>,
}

const TTLS: [Duration; 4] = [ms(3_000), ms(4_000), ms(6_000), ms(10_000)];

impl Setup {
    pub(super) fn draw(seed: u64) -> Setup {
        let mut rng = fastrand::Rng::with_seed(seed ^ 0x005e_ed0f_e1ec_7104);
        let mut dice = Dice { rng: rng.fork(), punctual: false };
        let ttl = dice.of(&TTLS);
        let mode = match dice.rng.u32(0..100) {
            0..40 => Mode::Queue,
            // By chance of their own; no seed that had failed before is among them.
            40..88 if seed % 5 == 2 => Mode::LastingRecord,
            40..88 => Mode::Record,
            _ => Mode::Lock,
        };
        Setup {
            seed,
            mode,
            candidates: dice.rng.usize(2..=4),
            ttl,
            unequal: dice.percent(30),
            stop_timeout: dice.of(&[ms(500), ms(2_000), ms(8_000)]),
            drift: dice.percent(90),
            calm: dice.percent(20),
            strays: dice.percent(50),
            obliging: dice.percent(50),
            rejoin: true,
            // One in four, and by chance of their own: the histories of the patient, and with them the seeds that have
            // failed once, stay what they were.
            impatient: seed % 4 == 3,
            // By chance of their own as well; no seed that had failed before is among them.
            supervised: seed.is_multiple_of(4),
            // By chance of their own too, and half of those whose commands are restarted among them; but for a seed that had
            // failed before.
            following: matches!(seed % 8, 0 | 6) && seed != 94,
            petitions: seed % 8 == 1,
            quiet_at: ttl * 10,
            nature: None,
            faults: vec![(dice.between(ms(1), ttl), Fault::Any)],
        }
    }

    /// No fault, no chance, nobody but those who are there from the beginning.
    pub(super) fn plain(mode: Mode, candidates: usize, quiet_at: Duration) -> Setup {
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
            obliging: false,
            rejoin: false,
            impatient: false,
            supervised: false,
            following: false,
            petitions: false,
            quiet_at,
            nature: Some(Nature::calm()),
            faults: Vec::new(),
        }
    }

    pub(super) fn store(&self, dice: &mut Dice, broken: Option<Broken>) -> Store {
        match self.mode {
            Mode::Queue => {
                let rate = if self.drift { dice.rng.i64(-FASTEST..=FASTEST) } else { 0 };
                // Now and then a server that grants no lease as short as was asked for.
                let odd = !self.calm && dice.percent(20);
                Store::Queue(QueueServer::new(rate, if odd { ms(5_000) } else { ms(0) }, broken))
            }
            Mode::Record | Mode::LastingRecord => {
                let memory = if self.mode == Mode::Record { Durability::Volatile } else { Durability::Durable };
                Store::Record(RecordServer::new(dice.of(&[ms(1_000), self.ttl]), memory, broken))
            }
            Mode::Lock => Store::Lock(LockServer::default()),
        }
    }

    /// What a candidate wants besides leading.
    pub(super) fn wishes(&self, h: usize) -> Wishes {
        let wishes = self.wishes_without_followers(h);
        if !self.following {
            return wishes;
        }
        let mut dice = self.dice_of(h, 0x0f01_1077);
        let on_change =
            dice.of(&[OnChange::Restart, OnChange::Restart, OnChange::Signal(Signal(10)), OnChange::Ignore]);
        let hooks = Hooks {
            on_elected: dice.percent(50),
            on_ousted: dice.percent(60),
            timeout: dice.of(&[ms(300), ms(1_000), self.ttl]),
            ..Hooks::default()
        };
        Wishes { follower: dice.percent(70).then_some(on_change), hooks, ..wishes }
    }

    fn wishes_without_followers(&self, h: usize) -> Wishes {
        if self.supervised {
            return self.supervision(h);
        }
        if !self.impatient {
            return Wishes::default();
        }
        let mut dice = self.dice_of(h, 0x0b5e_55ed);
        let patience = match dice.rng.u32(0..100) {
            0..35 => Patience::Endless,
            35..60 => Patience::AtMost(ms(0)),
            _ => Patience::AtMost(dice.between(ms(1), self.ttl * 2)),
        };
        let on_lost = if dice.percent(50) { OnLost::End } else { OnLost::Recampaign };
        Wishes { patience, on_lost, ..Wishes::default() }
    }

    /// The same for those whose commands are restarted, or whose boundary is kept.
    fn supervision(&self, h: usize) -> Wishes {
        let mut dice = self.dice_of(h, 0x5afe_4a2d);
        let when = dice.of(&[RestartWhen::Never, RestartWhen::OnFailure, RestartWhen::Always, RestartWhen::Always]);
        let restart = Restart {
            when,
            delay: dice.of(&[ms(0), ms(20), ms(100), self.ttl / 4]),
            limit: dice.rng.u32(1..=4),
            within: dice.between(self.ttl / 4, self.ttl * 3 / 2),
        };
        let min_hold = if dice.percent(50) { dice.between(ms(1), self.ttl * 2) } else { ms(0) };
        let patience =
            if dice.percent(80) { Patience::Endless } else { Patience::AtMost(dice.between(ms(0), self.ttl)) };
        let on_lost = if dice.percent(25) { OnLost::End } else { OnLost::Recampaign };
        Wishes { patience, on_lost, min_hold, restart, ..Wishes::default() }
    }

    fn dice_of(&self, h: usize, kind: u64) -> Dice {
        let host = u64::try_from(h).expect("few hosts");
        let seed = self.seed ^ kind ^ host.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Dice { rng: fastrand::Rng::with_seed(seed), punctual: false }
    }

    /// The timings that one candidate asks for.
    pub(super) fn asked(&self, dice: &mut Dice) -> Asked {
        let ttl = if self.unequal { dice.of(&TTLS).max(self.ttl) } else { self.ttl };
        let plain = Asked { ttl: Some(ttl), ..Asked::default() };
        if self.nature.is_some() {
            return plain;
        }
        let odd = match dice.rng.u32(0..6) {
            0 => Asked { renew: Some(ttl / 4), ..plain },
            1 => Asked { fence_grace: Some(ms(100)), ..plain },
            2 => Asked { request_timeout: Some(ttl / 12), ..plain },
            _ => plain,
        };
        if Timing::prove(odd).is_ok() { odd } else { plain }
    }

    pub(super) fn longest_ttl(&self) -> Duration {
        if self.unequal { ms(10_000) } else { self.ttl.max(ms(5_000)) }
    }
}
