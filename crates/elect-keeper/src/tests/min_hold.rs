//! K2: a `--min-hold` that still runs when the campaigner ends. The claim is kept until the hold is over if the claim
//! has no lease; otherwise it is left to a lease that ends sooner.

use super::harness::*;
use crate::ToKeeper;
use crate::clock;
use elect_core::{CommandEnd, Time};

/// Long enough to be measured, short enough for a test.
const HOLD: std::time::Duration = ms(700);
const ENDS: &str = "exit 3";

/// Runs a command that ends by itself. Also returns the time before its start.
fn after_a_command(setting: Setting, kill_by: Time) -> (KeeperFixture, Time) {
    let mut fixture = setting.fork();
    fixture.claim("one");
    fixture.arm(TERM, kill_by);
    let before = clock::now();
    fixture.start();
    fixture.exited(CommandEnd::Exited(3));
    fixture.empty();
    (fixture, before)
}

#[test]
fn without_a_lease_the_claim_is_kept_to_the_end_of_the_hold() {
    alone(|directory| {
        let (fixture, before) = after_a_command(script(directory, ENDS).min_hold(HOLD), Time::NEVER);
        fixture.bereave().releases_once("one");
        assert!(clock::now() >= before + HOLD);
    });
}

#[test]
fn a_command_that_still_runs_is_stopped_first() {
    alone(|directory| {
        let mut fixture = script(directory, SLEEPER).min_hold(HOLD).fork();
        fixture.claim("one");
        fixture.arm(TERM, Time::NEVER);
        let before = clock::now();
        fixture.start_until(&["main"]);
        let orphan = fixture.bereave();
        orphan.witness.gone();
        orphan.releases_once("one");
        assert!(clock::now() >= before + HOLD);
    });
}

#[test]
fn with_a_lease_that_lasts_longer_it_is_released_when_the_hold_is_over() {
    alone(|directory| {
        let kill_by = clock::now() + 60 * SOON;
        let (fixture, before) = after_a_command(script(directory, ENDS).min_hold(HOLD), kill_by);
        fixture.bereave().releases_once("one");
        assert!(clock::now() >= before + HOLD && clock::now() < kill_by);
    });
}

#[test]
fn a_hold_that_outlasts_the_lease_is_left_to_it() {
    alone(|directory| {
        let kill_by = clock::now() + 60 * SOON;
        let (fixture, _) = after_a_command(script(directory, ENDS).min_hold(3_000 * SOON), kill_by);
        assert_eq!(fixture.bereave().releases(), []);
        assert!(clock::now() < kill_by, "at once");
    });
}

#[test]
fn a_hold_that_is_over_or_has_been_ended_keeps_nothing() {
    alone(|directory| {
        let (fixture, before) = after_a_command(script(directory, ENDS).min_hold(ms(10)), Time::NEVER);
        until("it is over", || clock::now() >= before + SOON);
        fixture.bereave().releases_once("one");
    });
    alone(|directory| {
        let (fixture, _) = after_a_command(script(directory, ENDS).min_hold(3_000 * SOON), Time::NEVER);
        fixture.send(&ToKeeper::EndHold);
        fixture.bereave().releases_once("one");
    });
    // No command was started, so no hold has begun.
    alone(|directory| {
        let fixture = script(directory, ENDS).min_hold(3_000 * SOON).fork();
        fixture.claim("one");
        fixture.arm(TERM, Time::NEVER);
        fixture.bereave().releases_once("one");
    });
}

#[test]
fn a_hold_counts_from_the_first_start_of_the_term_and_a_dismissal_ends_it() {
    alone(|directory| {
        // Half of it is longer than a command and a release take on a busy machine.
        let hold = 5 * SOON;
        let (mut fixture, before) = after_a_command(script(directory, ENDS).min_hold(hold), Time::NEVER);
        until("half of it is over", || clock::now() >= before + hold / 2);
        fixture.start();
        let again = clock::now();
        fixture.exited(CommandEnd::Exited(3));
        fixture.empty();
        fixture.bereave().releases_once("one");
        assert!(clock::now() >= before + hold && clock::now() < again + hold, "counted from the first");
    });
    alone(|directory| {
        let (fixture, _) = after_a_command(script(directory, ENDS).min_hold(3_000 * SOON), Time::NEVER);
        fixture.send(&ToKeeper::Dismiss);
        assert_eq!(fixture.bereave().releases(), []);
    });
}
