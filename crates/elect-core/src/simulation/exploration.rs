//! Every single fault at every moment of one hand-over, instead of faults by chance (P6).
//!
//! Two candidates, of which the first leads and is asked to stop. Each history has one fault more, at a time of a grid.
//! Timers are punctual and delays are short, so that nothing but the fault differs from one history to the next.
//! `pairs` does the same with two faults.

use std::time::Duration;

use super::choices::SimRng;
use super::clock::ms;
use super::command::ProcessBehavior;
use super::faults::{Direction, Fault};
use super::keeper_shell::StruckProcess;
use super::mutations::InjectedMutation;
use super::record_store::AfterRestart;
use super::report::{Part, PartKind, reported};
use super::run::Simulation;
use super::setup::{Setup, StoreModel};
use super::states::StateSet;
use crate::keeper::KeeperMutation;

const GRID: Duration = ms(50);
/// The first candidate is asked to stop; it has led for some seconds then.
const ASKED_AT: Duration = ms(5_000);
/// Faults strike until then.
pub(super) const LAST_FAULT_AT: Duration = ms(10_000);
/// After the longest faults, an observed store needs two leases to be led again.
const ENDS_AT: Duration = ms(80_000);
/// The kinds of store.
pub(super) const MODES: [StoreModel; 3] = [StoreModel::Queue, StoreModel::Record, StoreModel::Lock];

/// All faults that are tried with this kind of store.
pub(super) fn faults(mode: StoreModel) -> Vec<Fault> {
    let mut faults: Vec<Fault> = [0, 1].into_iter().flat_map(|h| faults_of(mode, h)).collect();
    let outcomes: &[AfterRestart] = match mode {
        StoreModel::Queue | StoreModel::DurableRecord => &[AfterRestart::Kept],
        StoreModel::Record => &[AfterRestart::Kept, AfterRestart::RolledBack, AfterRestart::Lost],
        StoreModel::Lock => &[],
    };
    for after in outcomes {
        faults.extend([ms(300), ms(12_000)].map(|length| Fault::StoreDown(length, *after)));
    }
    faults
}

/// The faults of one host. The steps of a strike are those of the messages and actions around a start and a stop. A
/// lock needs no network.
fn faults_of(mode: StoreModel, h: usize) -> Vec<Fault> {
    let mut faults = vec![Fault::Ask(h), Fault::KillCampaigner(h), Fault::KillKeeper(h), Fault::Suspend(h)];
    let directions: &[Direction] =
        if mode == StoreModel::Lock { &[] } else { &[Direction::Both, Direction::Requests, Direction::Replies] };
    for length in [ms(300), ms(12_000)] {
        faults.push(Fault::StopCampaigner(h, length));
        faults.push(Fault::StopKeeper(h, length));
        faults.extend(directions.iter().map(|of| Fault::CutFor(h, *of, length)));
    }
    for steps in [1, 2, 4, 7, 12] {
        for fault in [StruckProcess::Killed, StruckProcess::StoppedFor(ms(12_000))] {
            faults.push(Fault::StrikeKeeper(h, steps, fault));
            faults.push(Fault::StrikeCampaigner(h, steps, fault));
        }
    }
    faults
}

/// A hand-over without a fault.
pub(super) fn plain(mode: StoreModel) -> Setup {
    let with_descendant = ProcessBehavior { on_stop: vec![Some(ms(20)), Some(ms(60))], ..ProcessBehavior::calm() };
    let plain = Setup::plain(mode, 2, ENDS_AT);
    Setup {
        behavior: Some(with_descendant),
        faults: vec![(ASKED_AT, Fault::Ask(0))],
        settles_from: Some(LAST_FAULT_AT),
        ..plain
    }
}

/// The result of a history with some faults more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Explored {
    Sound,
    /// A rule was broken, or no candidate leads in the end.
    Found(&'static str),
    /// 2.1 does not cover these faults: campaigner and keeper of one host were out of action at once.
    LeftOut,
}

/// A history with some faults more.
#[derive(Debug)]
pub(super) struct History {
    pub explored: Explored,
    /// The number of choices that it made.
    pub choices: u64,
    /// When the strikes among the faults counted their first step; an earlier one would have been the same.
    pub strikes: Vec<Option<Duration>>,
}

/// Runs the hand-over with these faults, and counts its states.
pub(super) fn explore(
    plain: &Setup,
    faults: &[(Duration, Fault)],
    mutation: Option<InjectedMutation>,
    mut states: Option<&mut StateSet>,
) -> History {
    let mut setup = plain.clone();
    setup.faults.extend_from_slice(faults);
    let mut simulation = Simulation::new(setup, SimRng::from_seed(0), mutation, false);
    let first = faults.iter().map(|(at, _)| *at).min().unwrap_or_default();
    simulation.states = states.as_mut().map(|states| StateSet { from: first, ..std::mem::take(*states) });
    let (mut simulation, rule) = simulation.play();
    if let (Some(states), Some(seen)) = (states, simulation.states.take()) {
        *states = seen;
    }
    let campaigns = |h: &usize| simulation.hosts[*h].campaigner.is_running();
    let leads = |h: &usize| simulation.hosts[*h].leads();
    let explored = match rule {
        Some(rule) => Explored::Found(rule),
        None if simulation.is_uncovered => Explored::LeftOut,
        None if simulation.present.iter().any(campaigns) && !simulation.present.iter().any(leads) => {
            Explored::Found("no candidate leads")
        }
        None => Explored::Sound,
    };
    History { explored, choices: simulation.rng.count() as u64, strikes: simulation.strikes }
}

/// Runs each history with one fault. Returns what they were, or the fault after which a rule is broken or no candidate
/// leads.
fn explore_singles(mutation: Option<InjectedMutation>) -> Result<Part, String> {
    let mut part = Part::default();
    for mode in MODES {
        let plain = plain(mode);
        for fault in faults(mode) {
            let mut at = GRID;
            while at <= LAST_FAULT_AT {
                let history = explore(&plain, &[(at, fault)], mutation, Some(&mut part.states));
                part.counts.histories += 1;
                part.counts.choices += history.choices;
                match history.explored {
                    Explored::Sound => {}
                    Explored::Found(rule) => return Err(format!("{rule}: {mode:?}, {fault:?} at {at:?}")),
                    Explored::LeftOut => return Err(format!("left out: {mode:?}, {fault:?} at {at:?}")),
                }
                at += GRID;
            }
        }
    }
    Ok(part)
}

#[test]
fn no_single_fault_of_a_hand_over_breaks_a_rule_or_leaves_the_boundary_free() {
    reported(PartKind::Singles, || explore_singles(None).unwrap_or_else(|told| panic!("{told}")));
}

#[test]
fn rules_that_are_broken_on_purpose_show_after_a_single_fault() {
    for rule in [KeeperMutation::IgnoresEndOfFile, KeeperMutation::NoDeadline, KeeperMutation::MainAloneCounts] {
        let told = explore_singles(Some(InjectedMutation::Keeper(rule))).expect_err("a rule is broken");
        println!("{rule:?}: {told}");
    }
}
