//! Ineligible candidates: health checks, drains, and the limits of a candidacy beside them (H1 to H8).

use super::*;

const HEALTH: Health = Health { interval: ms(5_000), timeout: ms(3_000), rise: 1, fall: 2, start: Duration::ZERO };

fn with_health(policy: Policy) -> Scene {
    Scene::wishing(Policy { health: Some(HEALTH), ..policy })
}

fn check_started(actions: &[Action]) -> Option<CheckNumber> {
    actions.iter().find_map(|action| if let Action::StartCheck { check } = action { Some(*check) } else { None })
}

fn observation(actions: &[Action]) -> Attempt {
    let asked = actions.iter().find_map(|action| if let Action::Observe(asked) = action { Some(*asked) } else { None });
    asked.unwrap_or_else(|| panic!("no observation in {actions:?}"))
}

impl Scene {
    fn check_ends(&mut self, now: Time, check: CheckNumber, succeeds: bool) -> Vec<Action> {
        let end = CheckEnd::Ended(CommandEnd::Exited(u8::from(!succeeds)));
        self.hears(now, Event::Keeper(FromKeeper::CheckEnded { check, end }))
    }

    /// Ticks until a check is due, and has it end like this.
    fn next_check(&mut self, succeeds: bool) -> Vec<Action> {
        loop {
            let now = self.candidate.wake_at();
            let mut actions = self.ticks(now);
            if let Some(check) = check_started(&actions) {
                actions.extend(self.check_ends(now, check, succeeds));
                return actions;
            }
            for action in actions {
                self.complies(now, &action);
            }
        }
    }

    /// Store and keeper do what the action asks for.
    fn complies(&mut self, now: Time, action: &Action) -> Vec<Action> {
        if let Action::Observe(asked) = *action {
            self.answered(now, asked, Answer::Observe(true))
        } else if let Action::Release(asked) = *action {
            self.answered(now, asked, Answer::Release(true))
        } else if let Action::Renew(asked) = *action {
            self.credited(now, asked, now)
        } else if *action == Action::Ping {
            self.hears(now, Event::Keeper(FromKeeper::Pong))
        } else {
            Vec::new()
        }
    }

    /// The end of the command and of its tree, and of the release if there is one.
    fn command_is_gone(&mut self, now: Time, run: RunId, released: bool) -> Vec<Action> {
        let mut actions = self.hears(now, Event::Keeper(FromKeeper::Empty { run }));
        let asked = |actions: &[Action]| {
            actions.iter().find_map(|action| if let Action::Release(asked) = action { Some(*asked) } else { None })
        };
        while let Some(asked) = asked(&actions) {
            actions = self.answered(self.now, asked, Answer::Release(released));
            if !released {
                actions.extend(self.ticks(self.candidate.wake_at()));
            }
        }
        actions
    }
}

const DRAIN: RequestId = RequestId(41);

#[test]
fn a_candidate_campaigns_once_it_is_known_to_be_healthy() {
    let mut scene = with_health(Policy::default());
    let actions = scene.ticks(at(0));
    let first = check_started(&actions).expect("a check at once");
    // The place in the queue is given back although there is none yet; then the leader is observed.
    let asked = observation(&scene.answered(at(1), release(&actions), Answer::Release(true)));
    assert_eq!(scene.candidate.phase(), Phase::Ineligible);
    assert_eq!(scene.candidate.ineligible_reasons(), IneligibleReasons { drained: false, unhealthy: true });
    scene.answered(at(2), asked, Answer::Observe(true));
    let asked = observation(&scene.ticks(at(2_002)));
    scene.answered(at(2_003), asked, Answer::Observe(false));
    let actions = scene.check_ends(at(2_100), first, true);
    assert!(actions.contains(&Action::Notice(Notice::Healthy)), "{actions:?}");
    campaign(&actions);
    assert_eq!(scene.candidate.phase(), Phase::Campaigning);
}

#[test]
fn a_leader_that_becomes_unhealthy_hands_over_and_campaigns_again_when_it_is_healthy() {
    let mut scene = with_health(Policy { on_lost: OnLost::End, ..Policy::default() });
    let actions = scene.ticks(at(0));
    scene.answered(at(0), release(&actions), Answer::Release(true));
    let asked = campaign(&scene.check_ends(at(0), CheckNumber(1), true));
    let verifying = renewal(&scene.answered(at(0), asked, Answer::Campaign(Campaigned::Won(7))));
    scene.credited(at(0), verifying, at(0));
    scene.hears(at(0), Event::Keeper(FromKeeper::Started { run: 1, pid: 4711 }));
    scene.next_check(false);
    assert_eq!(scene.candidate.phase(), Phase::Leading, "one failure");
    let actions = scene.next_check(false);
    let stopping = Action::Notice(Notice::Stopping { term: 7, reason: Reason::Unhealthy });
    assert!(actions.contains(&stopping), "{actions:?}");
    assert!(actions.contains(&Action::Stop { kill_at: scene.now + STOP_TIMEOUT }), "{actions:?}");
    scene.command_is_gone(scene.now, 1, true);
    assert_eq!(scene.candidate.phase(), Phase::Ineligible, "H7: --on-lost exit does not count");
    campaign(&scene.next_check(true));
}

#[test]
fn a_win_of_a_candidate_that_is_not_eligible_any_more_is_given_back() {
    let mut scene = Scene::new();
    scene.wins();
    let actions = scene.hears(at(10), Event::Drain(DRAIN));
    let asked = release(&actions);
    let actions = scene.answered(at(20), asked, Answer::Release(true));
    assert!(actions.contains(&Action::Drained { request_id: DRAIN, released: true }), "{actions:?}");
    assert_eq!(scene.candidate.phase(), Phase::Ineligible);
}

#[test]
fn a_drain_ends_with_the_release_or_with_the_lease() {
    for released in [true, false] {
        let mut scene = Scene::new();
        scene.leads();
        let actions = scene.hears(at(1_000), Event::Drain(DRAIN));
        assert!(actions.contains(&Action::Stop { kill_at: at(9_000) }), "{actions:?}");
        let mut actions = scene.command_is_gone(at(1_500), 1, released);
        let answer = Action::Drained { request_id: DRAIN, released };
        if !released {
            assert!(!actions.contains(&answer), "the lease runs");
            let given_up = scene.now;
            while !actions.contains(&answer) {
                let now = scene.candidate.wake_at();
                assert!(now <= at(1_500) + ms(14_000), "H8: no answer before {now:?}");
                actions = scene.ticks(now);
                if let Some(Action::Observe(asked)) = actions.iter().find(|action| matches!(action, Action::Observe(_)))
                {
                    let asked = *asked;
                    actions.extend(scene.answered(now, asked, Answer::Observe(false)));
                }
            }
            assert!(scene.now >= given_up, "H8: {:?}", scene.now);
        }
        assert!(actions.contains(&answer), "{actions:?}");
        let actions = scene.hears(scene.now, Event::Undrain(RequestId(42)));
        assert!(actions.contains(&Action::Grant { request_id: RequestId(42), term: None, until: Time::NEVER }));
        assert_eq!(scene.candidate.phase(), Phase::Campaigning);
    }
}

/// The rest after a resignation leaves the boundary to others. Once one of them has led, the candidate campaigns at once.
#[test]
fn an_undrained_candidate_rests_only_if_no_other_candidate_has_led() {
    let seen = [Some(Event::TermSeen(8)), Some(Event::LeaderObserved(Some(LeaderKey(2)))), None];
    for event in seen {
        let mut scene = Scene::new();
        scene.leads();
        scene.hears(at(100), Event::Drain(DRAIN));
        let actions = scene.command_is_gone(at(200), 1, true);
        let other_has_led = event.is_some();
        event.map(|event| scene.hears(at(210), event));
        scene.answered(at(220), observation(&actions), Answer::Observe(true));
        let actions = scene.hears(at(230), Event::Undrain(RequestId(42)));
        let campaigns = actions.iter().any(|action| matches!(action, Action::Campaign(_)));
        assert_eq!(campaigns, other_has_led, "{actions:?}");
    }
}

#[test]
fn drains_are_idempotent_and_the_later_of_two_requests_wins() {
    let mut scene = Scene::new();
    scene.leads();
    scene.hears(at(100), Event::Drain(DRAIN));
    scene.hears(at(200), Event::Drain(RequestId(43)));
    let actions = scene.hears(at(300), Event::Undrain(RequestId(44)));
    for denied in [DRAIN, RequestId(43)] {
        assert!(actions.contains(&Action::Deny { request_id: denied, why: RequestError::Undrained }), "{actions:?}");
    }
    let actions = scene.command_is_gone(at(400), 1, true);
    assert_eq!(scene.candidate.phase(), Phase::Campaigning, "{actions:?}");
    scene.hears(at(500), Event::Undrain(RequestId(45)));
    let actions = scene.hears(at(600), Event::Drain(RequestId(46)));
    let actions = scene.answered(at(700), release(&actions), Answer::Release(true));
    assert!(actions.contains(&Action::Drained { request_id: RequestId(46), released: true }));
    let actions = scene.hears(at(800), Event::Drain(RequestId(47)));
    assert!(actions.contains(&Action::Drained { request_id: RequestId(47), released: true }), "{actions:?}");
}

#[test]
fn a_lost_lease_leaves_nothing_to_release_and_the_drain_stays() {
    let mut scene = Scene::new();
    scene.leads();
    scene.hears(at(100), Event::Drain(DRAIN));
    scene.hears(at(200), Event::Ousted { term: 7 });
    let actions = scene.command_is_gone(at(300), 1, true);
    assert!(actions.contains(&Action::Drained { request_id: DRAIN, released: true }), "{actions:?}");
    assert_eq!(scene.candidate.phase(), Phase::Ineligible);
}

/// H7: a hold serves the boundary, and not the command.
#[test]
fn a_drain_and_a_resignation_end_the_command_and_not_the_hold() {
    for event in [Event::Drain(DRAIN), Event::Resign(DRAIN)] {
        let mut scene = Scene::wishing(Policy { min_hold: ms(3_000), ..Policy::default() });
        scene.leads();
        scene.hears(at(100), event);
        let actions = scene.command_is_gone(at(200), 1, true);
        assert_eq!(scene.candidate.phase(), Phase::LeadingIdle, "{actions:?}");
        while scene.candidate.phase() == Phase::LeadingIdle {
            let now = scene.candidate.wake_at();
            for action in scene.ticks(now) {
                assert!(!matches!(action, Action::Grant { .. } | Action::Drained { .. }), "during the hold");
                if let Action::Renew(asked) = action {
                    scene.credited(now, asked, now);
                }
            }
        }
        assert_eq!(scene.now, at(3_000));
    }
}

/// H7: between two runs no result counts, and a drain does.
#[test]
fn between_two_runs_of_the_command_a_drain_counts_and_a_check_does_not() {
    let restart = Restart { when: RestartWhen::Always, delay: ms(20_000), ..Restart::default() };
    let mut scene = with_health(Policy { restart, ..Policy::default() });
    let actions = scene.ticks(at(0));
    scene.answered(at(0), release(&actions), Answer::Release(true));
    let asked = campaign(&scene.check_ends(at(0), CheckNumber(1), true));
    let verifying = renewal(&scene.answered(at(0), asked, Answer::Campaign(Campaigned::Won(7))));
    scene.credited(at(0), verifying, at(0));
    scene.hears(at(0), Event::Keeper(FromKeeper::Started { run: 1, pid: 4711 }));
    scene.hears(at(10), Event::Keeper(FromKeeper::Exited { run: 1, end: CommandEnd::Exited(1) }));
    scene.hears(at(10), Event::Keeper(FromKeeper::Empty { run: 1 }));
    assert_eq!(scene.candidate.phase(), Phase::LeadingIdle);
    scene.next_check(false);
    scene.next_check(false);
    assert_eq!(scene.candidate.phase(), Phase::LeadingIdle);
    assert_eq!(scene.candidate.ineligible_reasons(), IneligibleReasons::default(), "two failures, and none counts");
    let actions = scene.hears(scene.now, Event::Drain(DRAIN));
    scene.answered(scene.now, release(&actions), Answer::Release(true));
    assert_eq!(scene.candidate.phase(), Phase::Ineligible);
}

fn end_of(actions: &[Action]) -> Option<Outcome> {
    actions.iter().find_map(|action| if let Action::End(outcome) = action { Some(outcome.clone()) } else { None })
}

/// H7: with --no-wait or --wait the candidacy ends, once it is known that the candidate is not eligible.
#[test]
fn a_candidacy_with_a_limit_ends_instead() {
    for limit in [Duration::ZERO, ms(60_000)] {
        let policy = Policy { campaign_limit: CampaignLimit::For(limit), on_lost: OnLost::End, ..Policy::default() };
        // Drained from the beginning.
        let mut scene = Scene::wishing(Policy { drained: true, ..policy });
        let mut actions = scene.ticks(at(0));
        while end_of(&actions).is_none() {
            actions = scene.answered(at(0), release(&actions), Answer::Release(true));
        }
        assert_eq!(end_of(&actions), Some(Outcome::NotElected));
        // Unhealthy, once that is known.
        let mut scene = with_health(policy);
        scene.next_check(false);
        assert_eq!(scene.candidate.phase(), Phase::Ineligible, "one failure decides nothing");
        let mut actions = scene.next_check(false);
        while end_of(&actions).is_none() {
            actions = scene.answered(scene.now, release(&actions), Answer::Release(true));
        }
        assert_eq!(end_of(&actions), Some(Outcome::NotElected));
        // A leader.
        let mut scene = Scene::wishing(policy);
        scene.leads();
        scene.hears(at(100), Event::Drain(DRAIN));
        let actions = scene.command_is_gone(at(200), 1, true);
        assert_eq!(end_of(&actions), Some(Outcome::LeadershipLost), "{actions:?}");
        assert!(actions.contains(&Action::Drained { request_id: DRAIN, released: true }), "{actions:?}");
    }
}

/// A verdict that does not come does not keep a candidate beyond its limit.
#[test]
fn the_first_verdict_has_no_longer_than_the_wait_limit() {
    let policy = Policy { campaign_limit: CampaignLimit::For(ms(7_000)), ..Policy::default() };
    let mut scene = Scene::wishing(Policy { health: Some(Health { fall: 9, ..HEALTH }), ..policy });
    scene.next_check(false);
    scene.next_check(false);
    let mut actions = Vec::new();
    while end_of(&actions).is_none() {
        let now = scene.candidate.wake_at();
        actions = scene.ticks(now);
        for action in actions.clone() {
            actions.extend(scene.complies(now, &action));
        }
    }
    assert_eq!((end_of(&actions), scene.now), (Some(Outcome::NotElected), at(7_000)));
}

/// The follower's health may be what the check waits for.
#[test]
fn a_follower_runs_in_an_ineligible_candidate_and_goes_on_when_the_candidate_is_drained() {
    let mut scene = Scene::wishing(Policy { follower: Some(OnChange::Restart), ..Policy::default() });
    let asked = campaign(&scene.ticks(at(0)));
    scene.answered(at(0), asked, Answer::Campaign(Campaigned::Waiting { again: None, decided: true }));
    let actions = scene.hears(at(0), Event::LeaderObserved(Some(LeaderKey(1))));
    assert!(actions.contains(&Action::Start { program: Program::Follower, run: 1 }));
    scene.hears(at(1), Event::Keeper(FromKeeper::Started { run: 1, pid: 4711 }));
    let mut actions = scene.hears(at(100), Event::Drain(DRAIN));
    actions.extend(scene.answered(at(200), release(&actions), Answer::Release(true)));
    assert!(!actions.iter().any(|action| matches!(action, Action::Stop { .. })), "{actions:?}");
    assert!(scene.candidate.has_a_follower());
    let asked = observation(&actions);
    scene.answered(at(300), asked, Answer::Observe(true));
    let actions = scene.hears(at(300), Event::LeaderObserved(Some(LeaderKey(2))));
    assert!(actions.contains(&Action::Stop { kill_at: at(8_300) }), "another leads: {actions:?}");
}
