//! Late, foreign and garbled messages change nothing.

use super::harness::*;
use crate::ToKeeper;
use crate::clock;
use elect_core::{CommandEnd, FromKeeper, NotStarted, Program, Time};

fn too_late(fixture: &mut KeeperFixture, term: u64) {
    let run = fixture.order_start(term, &[]);
    fixture.hears(FromKeeper::NotStarted { run, why: NotStarted::TooLate });
    fixture.empty();
    fixture.hears_no_more();
}

#[test]
fn a_deadline_of_another_term_or_an_earlier_one_is_not_taken() {
    alone(|directory| {
        let mut fixture = script(directory, SLEEPER).fork();
        let (_, kill_by) = fixture.start_under_deadline(&["main"]);
        for term in [0, TERM - 1, TERM + 1, u64::MAX] {
            for other in [Time::NEVER, Time::BOOT] {
                fixture.send(&ToKeeper::Arm { term, kill_by: other });
                fixture.hears(FromKeeper::Pong);
            }
        }
        fixture.hears_no_more();
        for earlier in [Time::BOOT, clock::now(), kill_by - ms(500)] {
            fixture.send(&ToKeeper::Arm { term: TERM, kill_by: earlier });
            fixture.hears(FromKeeper::Armed { term: TERM, kill_by });
        }
        assert!(!fixture.witness.is_gone() || clock::now() >= kill_by, "killed for another's deadline");
        assert!(fixture.witness.gone() >= kill_by, "killed before its deadline");
        fixture.hears(FromKeeper::Expired { term: TERM });
    });
}

#[test]
fn a_term_that_has_expired_stays_so() {
    alone(|directory| {
        let mut fixture = script(directory, SLEEPER).fork();
        let (_, kill_by) = fixture.start_under_deadline(&["main"]);
        fixture.witness.gone();
        fixture.hears(FromKeeper::Expired { term: TERM });
        fixture.exited(killed(libc::SIGKILL, true));
        fixture.empty();
        // The answer names the deadline in force, so that the campaigner knows it.
        fixture.send(&ToKeeper::Arm { term: TERM, kill_by: Time::NEVER });
        fixture.hears(FromKeeper::Armed { term: TERM, kill_by });
        too_late(&mut fixture, TERM);
        // The next term opens normally.
        fixture.arm(TERM + 1, Time::NEVER);
        fixture.order_start(TERM + 1, &[]);
        assert!(matches!(fixture.answer(), FromKeeper::Started { .. }));
    });
}

#[test]
fn over_an_empty_tree_any_other_term_may_be_armed_for_a_store_may_have_been_rebuilt() {
    alone(|directory| {
        let mut fixture = script(directory, SLEEPER).fork();
        let run = {
            fixture.arm(TERM, Time::NEVER);
            fixture.order_start(TERM, &[])
        };
        assert!(matches!(fixture.answer(), FromKeeper::Started { .. }), "run {run}");
        fixture.witness.hears(&["main"]);
        fixture.send(&ToKeeper::Kill);
        fixture.exited(killed(libc::SIGKILL, true));
        fixture.empty();
        for term in [1, TERM - 1, TERM + 1, 2] {
            fixture.arm(term, Time::NEVER);
            fixture.order_start(term, &[]);
            assert!(matches!(fixture.answer(), FromKeeper::Started { .. }), "term {term}");
            fixture.witness.hears(&["main"]);
            fixture.send(&ToKeeper::Kill);
            fixture.exited(killed(libc::SIGKILL, true));
            fixture.empty();
        }
    });
}

#[test]
fn nothing_starts_without_a_deadline_of_its_term_that_lies_ahead() {
    alone(|directory| {
        let mut fixture = script(directory, SLEEPER).fork();
        too_late(&mut fixture, TERM);
        for (term, past) in [(1, Time::BOOT), (2, Time::from_nanos(1)), (3, clock::now())] {
            fixture.arm(term, past);
            too_late(&mut fixture, term);
        }
        // K5: the deadline has killed no process, so a renewal of the same term moves it forward, for the next start.
        fixture.arm(3, clock::now() + ms(1_000_000));
        fixture.arm(4, Time::NEVER);
        too_late(&mut fixture, 3);
        too_late(&mut fixture, 5);
    });
}

#[test]
fn a_second_command_beside_a_living_one_is_refused() {
    alone(|directory| {
        let mut fixture = script(directory, SLEEPER).fork();
        fixture.arm(TERM, Time::NEVER);
        let pid = fixture.start_until(&["main"]);
        for term in [TERM, TERM + 1] {
            let run = fixture.order_start(term, &[]);
            fixture.hears(FromKeeper::NotStarted { run, why: NotStarted::Failed(libc::EBUSY) });
        }
        fixture.hears_no_more();
        assert!(!fixture.witness.is_gone(), "the first goes on");
        signal(pid, libc::SIGUSR1);
        fixture.hears(FromKeeper::Exited { run: 1, end: killed(libc::SIGUSR1, false) });
    });
}

#[test]
fn a_second_command_beside_the_rest_of_the_first_is_refused() {
    alone(|directory| {
        let mut fixture = script(directory, LEAVES_ONE_BEHIND).fork();
        fixture.arm(TERM, Time::NEVER);
        fixture.start_until(&["grandchild"]);
        fixture.exited(CommandEnd::Exited(7));
        fixture.send(&ToKeeper::Start { program: Program::Command { term: TERM }, run: 9, identity: Vec::new() });
        fixture.hears(FromKeeper::NotStarted { run: 9, why: NotStarted::Failed(libc::EBUSY) });
        fixture.hears_no_more();
        assert!(!fixture.witness.is_gone());
        fixture.send(&ToKeeper::Kill);
        // A campaigner that takes the refused run for the present one must not wait for the end of another run.
        fixture.hears(FromKeeper::Empty { run: 9 });
        assert!(fixture.witness.is_gone());
    });
}

#[test]
fn noise_changes_nothing() {
    alone(|directory| {
        let mut fixture = script(directory, SLEEPER).fork();
        fixture.arm(TERM, Time::NEVER);
        fixture.start_until(&["main"]);
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..2_000 {
            // Tags 3 to 8 could be valid messages.
            let tag = random.u8(9..);
            let noise: Vec<u8> = std::iter::once(tag).chain((0..random.usize(..200)).map(|_| random.u8(..))).collect();
            fixture.send_raw(&noise);
            fixture.hears_no_more();
        }
        for cut_short in [&[1][..], &[2, 7, 0], &[3, 1, 2, 3], &[4, 1], &[6, 9, 0, 0], &[5, 0], &[8, 8]] {
            fixture.send_raw(cut_short);
            fixture.hears_no_more();
        }
        assert!(!fixture.witness.is_gone());
    });
}

#[test]
fn a_message_that_is_too_long_is_none_even_if_its_head_could_be_one() {
    alone(|directory| {
        let fixture = script(directory, SLEEPER).fork();
        fixture.arm(TERM, Time::NEVER);
        let longest = 64 * 1024;
        let mut start = vec![3, 1];
        start.extend(TERM.to_ne_bytes());
        start.extend(1u64.to_ne_bytes());
        start.extend(1u64.to_ne_bytes());
        start.extend(b"A");
        let value = vec![b'x'; longest - start.len() - 8];
        start.extend(value.len().to_ne_bytes());
        start.extend(value);
        assert_eq!(start.len(), longest);
        start.extend([0; 16]);
        fixture.send_raw(&start);
        // The answer to this message shows that no program was started.
        fixture.send(&ToKeeper::Kill);
        fixture.hears(FromKeeper::Empty { run: 0 });
        fixture.hears_no_more();
        let error = fixture.keeper.send(&ToKeeper::Start {
            program: Program::Command { term: TERM },
            run: 1,
            identity: vec![("A".into(), "x".repeat(longest).into())],
        });
        assert_eq!(error.expect_err("refused").raw_os_error(), Some(libc::EMSGSIZE));
    });
}

#[test]
fn a_stop_or_a_kill_of_nothing_is_answered_and_changes_nothing() {
    alone(|directory| {
        let mut fixture = script(directory, SLEEPER).fork();
        fixture.send(&ToKeeper::Stop { kill_at: Time::BOOT });
        fixture.hears(FromKeeper::Empty { run: 0 });
        fixture.send(&ToKeeper::Kill);
        fixture.hears(FromKeeper::Empty { run: 0 });
        fixture.send(&ToKeeper::Forward { signal: libc::SIGKILL });
        fixture.hears_no_more();
        fixture.arm(TERM, Time::NEVER);
        fixture.start_until(&["main"]);
    });
}
