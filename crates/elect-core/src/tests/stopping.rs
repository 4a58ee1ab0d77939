//! A stop: its grace, the renewals meanwhile, the deadlines of the lease, and the release after it.

use super::*;

#[test]
fn a_stop_of_ours_has_the_stop_timeout_and_renewals_go_on_meanwhile() {
    let mut scene = Scene::new();
    scene.leads();
    let actions = scene.hears(at(1_000), Event::Stop(TERM));
    assert!(actions.contains(&Action::Stop { kill_at: at(9_000) }), "{actions:?}");
    let asked = renewal(&scene.ticks(at(2_000)));
    let actions = scene.credited(at(2_001), asked, at(2_000));
    assert!(actions.contains(&Action::Arm { term: 7, kill_by: at(10_500) }), "T4: {actions:?}");
    // A tree that is not confirmed empty half a second after SIGKILL was due is reported, once a minute.
    let unconfirmed = Action::Notice(Notice::Unconfirmed { term: 7 });
    let mut told = Vec::new();
    while scene.now < at(140_000) {
        let actions = scene.ticks(scene.candidate.wake_at());
        told.extend(actions.contains(&unconfirmed).then_some(scene.now));
        for action in actions {
            match action {
                Action::Renew(asked) => drop(scene.credited(scene.now, asked, scene.now)),
                Action::Ping => drop(scene.hears(scene.now, Event::Keeper(FromKeeper::Pong))),
                Action::Release(_) | Action::Start { .. } | Action::End(_) => panic!("2.3: {action:?}"),
                Action::Campaign(_)
                | Action::Arm { .. }
                | Action::Stop { .. }
                | Action::Kill
                | Action::Forward(_)
                | Action::KillKeeper
                | Action::Sweep
                | Action::EndHold
                | Action::Observe(_)
                | Action::StartCheck { .. }
                | Action::Drained { .. }
                | Action::StartBackgroundHook { .. }
                | Action::Grant { .. }
                | Action::Deny { .. }
                | Action::Notice(_) => {}
            }
        }
    }
    assert_eq!(told, [at(9_500), at(69_500), at(129_500)]);
}

#[test]
fn the_second_request_to_stop_kills_at_once_and_the_third_changes_nothing() {
    let mut scene = Scene::new();
    scene.leads();
    assert!(!scene.hears(at(10), Event::Stop(TERM)).contains(&Action::Kill));
    assert!(scene.hears(at(20), Event::Stop(TERM)).contains(&Action::Kill));
    assert!(!scene.hears(at(30), Event::Stop(TERM)).contains(&Action::Kill));
}

#[test]
fn a_lease_that_runs_out_leaves_the_fence_grace_and_no_way_back() {
    let mut scene = Scene::new();
    scene.leads();
    let asked = renewal(&scene.ticks(at(2_000)));
    assert_eq!(scene.answered(at(2_100), asked, Answer::Renew(Renewed::Failed)), []);
    while scene.candidate.phase() == Phase::Leading {
        scene.ticks(scene.candidate.wake_at());
    }
    assert_eq!(scene.now, at(6_500), "stop_by");
    // A renewal that succeeds now holds the others off and revives nothing.
    let actions = scene.ticks(at(8_499));
    assert!(!actions.contains(&Action::Kill), "{actions:?}");
    assert!(scene.ticks(at(8_500)).contains(&Action::Kill), "kill_by");
    let asked = loop {
        let actions = scene.ticks(scene.candidate.wake_at());
        if actions.iter().any(|action| matches!(action, Action::Renew(_))) {
            break renewal(&actions);
        }
    };
    let actions = scene.credited(scene.now, asked, scene.now);
    assert!(!actions.iter().any(|action| matches!(action, Action::Arm { .. })), "{actions:?}");
    release(&scene.hears(scene.now, Event::Keeper(FromKeeper::Empty { run: 1 })));
}

#[test]
fn a_stop_just_after_the_command_has_ended_does_not_cut_its_release_short_and_a_second_one_does() {
    let mut scene = Scene::new();
    scene.leads();
    let end = CommandEnd::Exited(0);
    scene.hears(at(100), Event::Keeper(FromKeeper::Exited { run: 1, end }));
    let actions = scene.hears(at(100), Event::Keeper(FromKeeper::Empty { run: 1 }));
    release(&actions);
    assert_eq!(scene.hears(at(101), Event::Stop(TERM)), []);
    assert_eq!(scene.candidate.phase(), Phase::Releasing);
    let actions = scene.hears(at(102), Event::Stop(TERM));
    assert!(actions.contains(&Action::End(Outcome::Command(end))), "{actions:?}");
}

#[test]
fn while_stopping_the_pace_of_renewals_is_the_usual_one() {
    let mut scene = Scene::new();
    scene.leads();
    scene.hears(at(1_000), Event::Stop(TERM));
    scene.hears(at(1_000), Event::Keeper(FromKeeper::Pong));
    let asked = renewal(&scene.ticks(at(2_000)));
    scene.hears(at(2_000), Event::Keeper(FromKeeper::Pong));
    let quiet_until = |scene: &mut Scene, until: Time| {
        while scene.candidate.wake_at() < until {
            let actions = scene.ticks(scene.candidate.wake_at());
            assert!(!actions.iter().any(|action| matches!(action, Action::Renew(_))), "{:?}: {actions:?}", scene.now);
            scene.hears(scene.now, Event::Keeper(FromKeeper::Pong));
        }
    };
    // No news in a credit that is not later than the one we have.
    let actions = scene.credited(at(2_010), asked, at(0));
    assert!(!actions.iter().any(|action| matches!(action, Action::Arm { .. })), "{actions:?}");
    let asked = renewal(&actions);
    scene.credited(at(2_020), asked, at(2_010));
    quiet_until(&mut scene, at(4_010));
    let asked = renewal(&scene.ticks(at(4_010)));
    assert_eq!(scene.answered(at(4_020), asked, Answer::Renew(Renewed::Failed)), [], "a backoff comes first");
    quiet_until(&mut scene, at(4_270));
    // Not confirmed empty, and the lease is over: the store is asked at the same pace, to hold the others off.
    let mut renewed = Vec::new();
    while scene.now < at(30_000) {
        for action in scene.ticks(scene.candidate.wake_at()) {
            if let Action::Renew(asked) = action {
                if scene.now < at(9_000) {
                    scene.answered(scene.now, asked, Answer::Renew(Renewed::Failed));
                } else {
                    renewed.push(scene.now);
                    scene.credited(scene.now, asked, scene.now);
                }
            }
        }
        scene.hears(scene.now, Event::Keeper(FromKeeper::Pong));
    }
    assert!(renewed.len() > 5 && renewed.windows(2).all(|pair| pair[1].since(pair[0]) == ms(2_000)), "{renewed:?}");
}

#[test]
fn a_stop_whose_lease_runs_out_is_killed_by_then_and_spoken_of_half_a_second_later() {
    let mut scene = Scene::new();
    scene.leads();
    scene.hears(at(6_000), Event::Stop(TERM));
    let (mut stops, mut kills, mut told) = (Vec::new(), Vec::new(), Vec::new());
    while told.is_empty() {
        let now = scene.candidate.wake_at();
        for action in scene.ticks(now) {
            match action {
                Action::Stop { kill_at } => stops.push((now, kill_at)),
                Action::Kill => kills.push(now),
                Action::Notice(Notice::Unconfirmed { .. }) => told.push(now),
                Action::Renew(asked) => drop(scene.answered(now, asked, Answer::Renew(Renewed::Failed))),
                Action::Ping => drop(scene.hears(now, Event::Keeper(FromKeeper::Pong))),
                Action::Campaign(_)
                | Action::Release(_)
                | Action::Arm { .. }
                | Action::Start { .. }
                | Action::Forward(_)
                | Action::KillKeeper
                | Action::Sweep
                | Action::EndHold
                | Action::Observe(_)
                | Action::StartCheck { .. }
                | Action::Drained { .. }
                | Action::StartBackgroundHook { .. }
                | Action::Grant { .. }
                | Action::Deny { .. }
                | Action::Notice(_)
                | Action::End(_) => {}
            }
        }
    }
    assert_eq!((stops, kills, told), (vec![(at(6_500), at(8_500))], vec![at(8_500)], vec![at(9_000)]));
}

#[test]
fn after_a_final_no_nothing_is_renewed_and_nothing_released() {
    let mut scene = Scene::new();
    scene.leads();
    scene.hears(at(100), Event::Stop(TERM));
    let asked = renewal(&scene.ticks(at(2_000)));
    assert!(scene.hears(at(2_001), Event::Ousted { term: 7 }).contains(&Action::Kill));
    // The answer that was under way is to a question that nobody asks any more.
    assert_eq!(scene.credited(at(2_002), asked, at(2_000)), []);
    let mut later = Vec::new();
    while scene.now < at(9_000) {
        later.extend(scene.ticks(scene.candidate.wake_at()));
        scene.hears(scene.now, Event::Keeper(FromKeeper::Pong));
    }
    assert!(!later.iter().any(|action| matches!(action, Action::Renew(_) | Action::Release(_))), "{later:?}");
    let actions = scene.hears(scene.now, Event::Keeper(FromKeeper::Empty { run: 1 }));
    assert_eq!(actions, [Action::End(Outcome::Stopped(TERM))]);
}

#[test]
fn a_release_is_tried_for_three_attempts_and_then_left_to_the_lease() {
    let mut scene = Scene::new();
    scene.leads();
    scene.hears(at(100), Event::Stop(TERM));
    scene.hears(at(150), Event::Keeper(FromKeeper::Exited { run: 1, end: CommandEnd::Exited(3) }));
    let asked = release(&scene.hears(at(200), Event::Keeper(FromKeeper::Empty { run: 1 })));
    scene.answered(at(210), asked, Answer::Release(false));
    let rest = scene.candidate.wake_at().since(at(210));
    assert!(rest >= ms(250) && rest <= ms(500), "B: {rest:?}");
    let mut last = Vec::new();
    while scene.candidate.phase() == Phase::Releasing {
        last = scene.ticks(scene.candidate.wake_at());
    }
    assert_eq!(scene.now, at(3_200));
    let expected =
        [Action::Notice(Notice::NotReleased { term: 7 }), Action::End(Outcome::Command(CommandEnd::Exited(3)))];
    assert_eq!(last, expected);
    assert_eq!(scene.candidate.wake_at(), Time::NEVER, "over");
}

/// C4: `fg` after Ctrl-Z, or SIGCONT. The keeper has killed the tree meanwhile, and its messages wait to be read.
#[test]
fn a_suspended_campaigner_does_not_report_a_tree_that_has_ended_meanwhile() {
    let unconfirmed = Action::Notice(Notice::Unconfirmed { term: 7 });
    let killed = CommandEnd::Killed { signal: Signal(9), escalated: true };
    for stop in [None, Some(Event::Stop(TERM))] {
        let mut scene = Scene::new();
        scene.leads();
        if let Some(stop) = stop {
            scene.hears(at(1_000), stop);
        }
        let mut actions = Vec::new();
        for message in
            [FromKeeper::Expired { term: 7 }, FromKeeper::Exited { run: 1, end: killed }, FromKeeper::Empty { run: 1 }]
        {
            actions.extend(scene.hears(at(100_000), Event::Keeper(message)));
        }
        assert!(!actions.contains(&unconfirmed), "{actions:?}");
        assert_eq!(scene.candidate.phase(), Phase::Releasing);
    }
    // A tree that still exists is reported.
    let mut scene = Scene::new();
    scene.leads();
    assert!(!scene.ticks(at(100_000)).contains(&unconfirmed));
    assert!(scene.ticks(at(100_500)).contains(&unconfirmed));
}

/// Answers the observations of a candidate that rests. Returns the time and the number of its next campaign.
fn end_of_rest(scene: &mut Scene) -> (Time, Attempt) {
    loop {
        let due = scene.candidate.wake_at();
        let actions = scene.ticks(due);
        let Some(Action::Observe(asked)) = actions.iter().find(|action| matches!(action, Action::Observe(_))) else {
            return (due, campaign(&actions));
        };
        assert!(scene.answered(due, *asked, Answer::Observe(true)).is_empty());
    }
}

/// Another candidate may lead, or may have led and left, while a candidate rests: it has had its turn.
#[test]
fn a_rest_ends_as_soon_as_another_leader_is_seen() {
    for seen in [Event::LeaderObserved(Some(LeaderKey(1))), Event::TermSeen(90)] {
        let mut scene = Scene::new();
        scene.leads();
        let mut now = at(100);
        for term in 8..14 {
            let run = term - 7;
            scene.hears(now, Event::Resign(RequestId(term)));
            let asked = release(&scene.hears(now, Event::Keeper(FromKeeper::Empty { run })));
            scene.answered(now, asked, Answer::Release(true));
            if term == 13 {
                break;
            }
            let (due, asked) = end_of_rest(&mut scene);
            let verifying = renewal(&scene.answered(due, asked, Answer::Campaign(Campaigned::Won(term))));
            scene.credited(due, verifying, due);
            scene.hears(due, Event::Keeper(FromKeeper::Started { run: run + 1, pid: 4711 }));
            now = due + ms(100);
        }
        // It rests for 8 s.
        let due = scene.candidate.wake_at();
        assert_eq!(due, now + ms(2_000));
        let Some(Action::Observe(asked)) = scene.ticks(due).pop() else { panic!("it observes") };
        let actions = [scene.hears(due, seen), scene.answered(due, asked, Answer::Observe(true))].concat();
        let actions = if actions.is_empty() { scene.ticks(scene.candidate.wake_at()) } else { actions };
        campaign(&actions);
        assert_eq!(scene.now, due, "{seen:?}");
    }
}

#[test]
fn a_sole_candidate_that_resigns_again_and_again_rests_longer_each_time() {
    let mut scene = Scene::new();
    scene.leads();
    let (mut now, mut rests) = (at(100), Vec::new());
    for term in 8..14 {
        let run = term - 7;
        scene.hears(now, Event::Resign(RequestId(term)));
        let asked = release(&scene.hears(now, Event::Keeper(FromKeeper::Empty { run })));
        scene.answered(now, asked, Answer::Release(true));
        let (due, asked) = end_of_rest(&mut scene);
        rests.push(due.since(now));
        let verifying = renewal(&scene.answered(due, asked, Answer::Campaign(Campaigned::Won(term))));
        scene.credited(due, verifying, due);
        scene.hears(due, Event::Keeper(FromKeeper::Started { run: run + 1, pid: 4711 }));
        now = due + ms(100);
    }
    assert!(rests[0] <= ms(500) && rests[1] <= ms(500), "the usual backoff: {rests:?}");
    assert_eq!(rests[2..], [ms(1_000), ms(2_000), ms(4_000), ms(8_000)]);
    // Another candidate has its turn.
    scene.hears(now, Event::Resign(RequestId(20)));
    let asked = release(&scene.hears(now, Event::Keeper(FromKeeper::Empty { run: 7 })));
    scene.answered(now, asked, Answer::Release(true));
    let asked = campaign(&scene.hears(now, Event::LeaderObserved(Some(LeaderKey(1)))));
    let won = scene.now;
    let verifying = renewal(&scene.answered(won, asked, Answer::Campaign(Campaigned::Won(20))));
    scene.credited(won, verifying, won);
    scene.hears(won, Event::Resign(RequestId(21)));
    let asked = release(&scene.hears(won, Event::Keeper(FromKeeper::Empty { run: 8 })));
    scene.answered(won, asked, Answer::Release(true));
    assert!(scene.candidate.wake_at().since(won) <= ms(500));
}
