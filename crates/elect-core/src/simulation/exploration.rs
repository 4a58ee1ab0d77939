//! Every single fault at every moment of one hand-over, instead of faults by chance (P6).
//!
//! Two candidates, of which the first leads and is asked to stop. Each history has one fault more, at a time of a grid.
//! Timers are punctual and delays are short, so that nothing but the fault differs from one history to the next.

use std::time::Duration;

use super::clock::ms;
use super::command::ProcessBehavior;
use super::faults::{Direction, Fault};
use super::keeper_shell::StruckProcess;
use super::mutations::InjectedMutation;
use super::run::Simulation;
use super::setup::{Setup, StoreModel};
use crate::keeper::KeeperMutation;

const GRID: Duration = ms(50);
/// The first candidate is asked to stop; it has led for some seconds then.
const ASKED_AT: Duration = ms(5_000);
/// Faults strike until then.
const LAST_FAULT_AT: Duration = ms(10_000);
/// After the longest fault, an observed store needs two leases to be led again.
const ENDS_AT: Duration = ms(45_000);

/// The faults of one host. The steps of a strike are those of the messages and actions around a start and a stop.
fn faults_of(h: usize) -> Vec<Fault> {
    let mut faults = vec![Fault::Ask(h), Fault::KillCampaigner(h), Fault::KillKeeper(h), Fault::Suspend(h)];
    for length in [ms(300), ms(12_000)] {
        faults.push(Fault::StopCampaigner(h, length));
        faults.push(Fault::StopKeeper(h, length));
        faults
            .extend([Direction::Both, Direction::Requests, Direction::Replies].map(|of| Fault::CutFor(h, of, length)));
    }
    for steps in [1, 2, 4, 7, 12] {
        for fault in [StruckProcess::Killed, StruckProcess::StoppedFor(ms(12_000))] {
            faults.push(Fault::StrikeKeeper(h, steps, fault));
            faults.push(Fault::StrikeCampaigner(h, steps, fault));
        }
    }
    faults
}

/// Runs each history. Returns their number, or the fault after which a rule is broken or no candidate leads.
fn explore(mutation: Option<InjectedMutation>) -> Result<u32, String> {
    let mut histories = 0;
    for mode in [StoreModel::Queue, StoreModel::Record, StoreModel::Lock] {
        let with_descendant = ProcessBehavior { on_stop: vec![Some(ms(20)), Some(ms(60))], ..ProcessBehavior::calm() };
        let plain = Setup { behavior: Some(with_descendant), ..Setup::plain(mode, 2, ENDS_AT) };
        for fault in [0, 1].into_iter().flat_map(faults_of) {
            let mut at = GRID;
            while at <= LAST_FAULT_AT {
                let faults = vec![(ASKED_AT, Fault::Ask(0)), (at, fault)];
                let (simulation, rule) = Simulation::new(Setup { faults, ..plain.clone() }, mutation, false).play();
                let told = |what| format!("{what}: {mode:?}, {fault:?} at {at:?}");
                if let Some(rule) = rule {
                    return Err(told(rule));
                }
                let campaigns = |h: &usize| simulation.hosts[*h].campaigner.is_running();
                let leads = |h: &usize| simulation.hosts[*h].leads();
                if simulation.present.iter().any(campaigns) && !simulation.present.iter().any(leads) {
                    return Err(told("no candidate leads"));
                }
                histories += 1;
                at += GRID;
            }
        }
    }
    Ok(histories)
}

#[test]
fn no_single_fault_of_a_hand_over_breaks_a_rule_or_leaves_the_boundary_free() {
    let histories = explore(None).unwrap_or_else(|told| panic!("{told}"));
    println!("{histories} histories, each with one fault");
}

#[test]
fn rules_that_are_broken_on_purpose_show_after_a_single_fault() {
    for rule in [KeeperMutation::IgnoresEndOfFile, KeeperMutation::NoDeadline, KeeperMutation::MainAloneCounts] {
        let told = explore(Some(InjectedMutation::Keeper(rule))).expect_err("a rule is broken");
        println!("{rule:?}: {told}");
    }
}
