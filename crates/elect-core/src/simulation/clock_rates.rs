//! Clocks that run at different rates: up to the margin of section 4 nothing overlaps, and beyond it something does.
//!
//! The worst case is a leader whose clock is slow, cut off from a store and a successor whose clocks are fast, with a
//! command that only SIGKILL ends, and not at once. In true time it lives until (L − M − K) / (1 − r) + K after the
//! renewal was sent, and the store may give the boundary away after L / (1 + r). So M covers rates whose ratio is at most
//! L / (L − M): 10/9, which is one clock off by 10 %, or two off by 5 % in opposite directions.

use std::time::Duration;

use super::choices::SimRng;
use super::clock::{CLOCK_DRIFT_MAX_PPM, ms};
use super::command::ProcessBehavior;
use super::faults::{Direction, Fault};
use super::run::Simulation;
use super::setup::{ClockRates, Setup, StoreModel};
use crate::KILL_ALLOWANCE;

const PERCENT: i64 = 10_000;

/// Cuts the leader off at each of many times. Returns the first rule that is broken.
fn broken(mode: StoreModel, rates: ClockRates) -> Option<&'static str> {
    let stubborn = ProcessBehavior {
        on_stop: vec![None],
        stuck: Some(KILL_ALLOWANCE.saturating_sub(ms(1))),
        ..ProcessBehavior::calm()
    };
    let plain =
        Setup { behavior: Some(stubborn), clock_rates: Some(rates), ..Setup::plain(mode, 2, Duration::from_secs(60)) };
    (0..40).find_map(|time| {
        // The successor, whose clock is fast, would lead first in a store that is observed.
        let asleep = (ms(100), Fault::StopCampaigner(1, Duration::from_secs(20)));
        let cut = (ms(25_000 + 100 * time), Fault::Cut(0, Direction::Both));
        let setup = Setup { faults: vec![asleep, cut], ..plain.clone() };
        Simulation::new(setup, SimRng::from_seed(time), None, false).play().1
    })
}

fn opposite(rate: i64) -> ClockRates {
    ClockRates { leader: -rate, others: rate, only_overlap_counts: false }
}

#[test]
fn clocks_within_the_margin_never_overlap() {
    for mode in [StoreModel::Queue, StoreModel::Record, StoreModel::DurableRecord] {
        for percent in 0..=5 {
            let rates = opposite(percent * PERCENT);
            assert_eq!(broken(mode, rates), None, "{mode:?}, {rates:?}");
        }
        // One clock alone may be off by nearly twice as much.
        let rates = ClockRates { leader: -9 * PERCENT, others: 0, only_overlap_counts: false };
        assert_eq!(broken(mode, rates), None, "{mode:?}, {rates:?}");
        assert_eq!(broken(mode, ClockRates { leader: 0, others: 10 * PERCENT, ..rates }), None, "{mode:?}");
    }
    assert_eq!(CLOCK_DRIFT_MAX_PPM, 5 * PERCENT, "the random histories go as far");
}

#[test]
fn clocks_beyond_the_margin_overlap() {
    for mode in [StoreModel::Queue, StoreModel::Record] {
        // Two clocks that are off by 8 % in opposite directions: the command outlives its lease.
        assert_eq!(
            broken(mode, opposite(8 * PERCENT)),
            Some("T1: a command outlived its lease at the store"),
            "{mode:?}"
        );
        // The successor needs some time, so two commands at once take more.
        let overlaps = |percent: &i64| {
            let rates = ClockRates { only_overlap_counts: true, ..opposite(percent * PERCENT) };
            broken(mode, rates) == Some("2.1: two leader commands at once")
        };
        let first = (6..=30).find(overlaps).expect("an overlap");
        println!("{mode:?}: two commands at once from ±{first} % on");
    }
}
