//! The end of a command is followed by another start, by a cool-down, or by a hold of the boundary.

use super::*;

const FAILED: CommandEnd = CommandEnd::Exited(3);
const DONE: CommandEnd = CommandEnd::Exited(0);
const KILLED: CommandEnd = CommandEnd::Killed { signal: Signal(9), escalated: false };

fn restart(when: RestartWhen) -> Restart {
    Restart { when, ..Restart::default() }
}

fn restarting(when: RestartWhen, on_lost: OnLost) -> Scene {
    Scene::wishing(Policy { restart: restart(when), on_lost, ..Policy::default() })
}

fn holding(min_hold: Duration) -> Scene {
    Scene::wishing(Policy { min_hold, ..Policy::default() })
}

impl Scene {
    fn keeper_tells(&mut self, now: Time, word: FromKeeper) -> Vec<Action> {
        self.hears(now, Event::Keeper(word))
    }

    /// The command ends by itself, and with it all of its tree.
    fn command_ends(&mut self, now: Time, end: CommandEnd) -> Vec<Action> {
        let run = self.candidate.context.run;
        self.keeper_tells(now, FromKeeper::Exited { run, end });
        self.keeper_tells(now, FromKeeper::Empty { run })
    }

    /// Lets time pass with a store that credits every renewal, and a keeper that answers, until there is this to be
    /// done.
    fn lives_until(&mut self, what: &str, wanted: impl Fn(&Action) -> bool) -> Vec<Action> {
        for _ in 0..100_000 {
            let now = self.candidate.wake_at().max(self.now);
            let mut actions = self.ticks(now);
            if let Some(Action::Renew(asked)) = actions.iter().find(|one| matches!(one, Action::Renew(_))).cloned() {
                actions.extend(self.credited(now, asked, now));
            }
            self.keeper_answers(&actions);
            if actions.iter().any(&wanted) {
                return actions;
            }
        }
        panic!("never: {what}");
    }

    fn keeper_answers(&mut self, actions: &[Action]) {
        for action in actions {
            if let Action::Arm { term, kill_by } = *action {
                self.keeper_tells(self.now, FromKeeper::Armed { term, kill_by });
            } else if *action == Action::Ping {
                self.keeper_tells(self.now, FromKeeper::Pong);
            }
        }
    }

    /// Lets time pass with a store that credits every renewal, and a keeper that says nothing, until there is this to be done.
    fn lives_in_silence_until(&mut self, what: &str, wanted: impl Fn(&Action) -> bool) -> Vec<Action> {
        for _ in 0..1_000 {
            let now = self.candidate.wake_at().max(self.now);
            let mut actions = self.ticks(now);
            if let Some(asked) = actions.iter().find_map(renewal_asked) {
                actions.extend(self.credited(now, asked, now));
            }
            if actions.iter().any(&wanted) {
                return actions;
            }
        }
        panic!("never: {what}");
    }

    /// Waits for the next start, and for the word that it has run. Returns how long that took.
    fn starts_again(&mut self) -> Duration {
        let (before, run) = (self.now, self.candidate.context.run + 1);
        self.lives_until("a restart", |action| matches!(action, Action::Start { .. }));
        assert_eq!((self.candidate.phase(), self.candidate.context.run), (Phase::Leading, run));
        self.keeper_tells(self.now, FromKeeper::Started { run, pid: 4712 });
        self.now.since(before)
    }

    /// How long it says that it sits out, each time that it says so.
    fn gives_up(actions: &[Action]) -> Vec<Option<Duration>> {
        let sits_out = |action: &Action| {
            if let Action::Notice(Notice::GivenUp { sits_out, .. }) = action { Some(*sits_out) } else { None }
        };
        actions.iter().filter_map(sits_out).collect()
    }

    /// Fails at once until it gives up. Returns the delays before the restarts, and what came last.
    fn fails_for_good(&mut self) -> (Vec<Duration>, Vec<Action>) {
        let mut delays = Vec::new();
        loop {
            let actions = self.command_ends(self.now, FAILED);
            if !Scene::gives_up(&actions).is_empty() {
                return (delays, actions);
            }
            delays.push(self.starts_again());
        }
    }
}

#[test]
fn a_restart_follows_the_ends_that_it_was_asked_for() {
    for (when, end, restarts) in [
        (RestartWhen::Never, FAILED, false),
        (RestartWhen::Never, DONE, false),
        (RestartWhen::OnFailure, FAILED, true),
        (RestartWhen::OnFailure, KILLED, true),
        (RestartWhen::OnFailure, DONE, false),
        (RestartWhen::Always, FAILED, true),
        (RestartWhen::Always, DONE, true),
    ] {
        let mut scene = restarting(when, OnLost::Recampaign);
        scene.leads();
        let actions = scene.command_ends(at(100), end);
        if restarts {
            assert_eq!(scene.candidate.phase(), Phase::LeadingIdle, "{when:?} {end:?}");
            scene.starts_again();
        } else {
            let actions = scene.answered(at(100), release(&actions), Answer::Release(true));
            assert_eq!(actions.last(), Some(&Action::End(Outcome::Command(end))), "{when:?}");
        }
    }
}

#[test]
fn a_restart_is_in_the_same_term_and_armed_before() {
    let mut scene = restarting(RestartWhen::Always, OnLost::Recampaign);
    scene.leads();
    scene.command_ends(at(100), DONE);
    let actions = scene.lives_until("a restart", |action| matches!(action, Action::Start { .. }));
    let armed = actions.iter().position(|action| matches!(action, Action::Arm { term: 7, .. }));
    let started = actions.iter().position(|action| *action == Action::Start { program: COMMAND, run: 2 });
    assert!(armed.is_some() && armed < started, "{actions:?}");
}

/// K4: a keeper may have been stopped between two runs, when it had nothing to kill.
#[test]
fn a_question_from_between_two_runs_is_asked_again_at_the_next_start() {
    let delayed = Restart { delay: ms(30_000), ..restart(RestartWhen::Always) };
    let mut scene = Scene::wishing(Policy { restart: delayed, ..Policy::default() });
    scene.leads();
    scene.command_ends(at(100), DONE);
    assert_eq!(scene.candidate.phase(), Phase::LeadingIdle);
    let actions = scene.lives_in_silence_until("a start", |action| matches!(action, Action::Start { .. }));
    let started = scene.now;
    assert!(started > at(20_000) && !actions.contains(&Action::KillKeeper), "{actions:?}");
    assert!(!scene.ticks(started).contains(&Action::KillKeeper));
    scene.lives_in_silence_until("the end of the keeper", |action| *action == Action::KillKeeper);
    let silent = scene.now.since(started);
    assert!(silent >= ms(7_000) && silent <= ms(12_500), "{silent:?}");
}

/// K4: without a lease no deadline passes, which would be a reason to ask.
#[test]
fn a_question_from_before_a_hook_is_asked_again_at_its_start() {
    let hooks = Hooks { on_ousted: true, ..Hooks::default() };
    let mut scene = Scene::wishing(Policy { min_hold: ms(30_000), hooks, ..Policy::default() });
    scene.candidate.context.timing = scene.candidate.context.timing.without_lease();
    let credit = |sent| Answer::Renew(Renewed::Credited { sent, ttl: None });
    let verifying = scene.wins();
    scene.answered(at(0), verifying, credit(at(0)));
    scene.keeper_tells(at(0), FromKeeper::Started { run: 1, pid: 4711 });
    scene.command_ends(at(100), DONE);
    assert_eq!(scene.candidate.phase(), Phase::LeadingIdle);
    let asked = renewal(&scene.ticks(at(1_000)));
    assert!(
        scene.answered(at(1_000), asked, credit(at(1_000))).contains(&Action::Arm { term: 7, kill_by: Time::NEVER })
    );
    // Campaigner and keeper are suspended until the hold is over.
    let actions = scene.ticks(at(40_000));
    assert!(actions.iter().any(|action| matches!(action, Action::Start { .. })), "{actions:?}");
    assert!(!actions.contains(&Action::KillKeeper), "{actions:?}");
    assert!(!scene.ticks(at(49_999)).contains(&Action::KillKeeper));
    assert!(scene.ticks(at(51_500)).contains(&Action::KillKeeper));
}

#[test]
fn what_the_main_process_leaves_behind_is_waited_for() {
    let mut scene = restarting(RestartWhen::Always, OnLost::Recampaign);
    scene.leads();
    let actions = scene.keeper_tells(at(100), FromKeeper::Exited { run: 1, end: FAILED });
    assert!(actions.contains(&Action::Stop { kill_at: at(8_100) }), "{actions:?}");
    let unconfirmed = Action::Notice(Notice::Unconfirmed { term: 7 });
    scene.lives_until("a word about it", |action| {
        assert!(!matches!(action, Action::Start { .. } | Action::Release(_)), "2.3: {action:?}");
        *action == unconfirmed
    });
    scene.keeper_tells(scene.now, FromKeeper::Empty { run: 1 });
    scene.starts_again();
}

#[test]
fn delays_double_with_jitter_and_begin_anew_after_a_run_that_went_well() {
    let mut scene = Scene::wishing(Policy {
        restart: Restart { limit: 1_000, ..restart(RestartWhen::Always) },
        ..Policy::default()
    });
    scene.leads();
    let mut delay = ms(100);
    let mut spread = Vec::new();
    for _ in 0..12 {
        scene.command_ends(scene.now, FAILED);
        let took = scene.starts_again();
        assert!(took >= delay * 3 / 4 && took <= delay, "{took:?} of {delay:?}");
        spread.push(took.as_secs_f64() / delay.as_secs_f64());
        delay = (delay * 2).min(ms(30_000));
    }
    assert!(spread.iter().any(|one| *one < 0.85) && spread.iter().any(|one| *one > 0.9), "{spread:?}");
    // Not quite as long as the longest delay, and then as long.
    for (lasts, delay) in [(29_999, ms(30_000)), (30_000, ms(100))] {
        let end = scene.now + ms(lasts);
        while scene.candidate.wake_at() < end {
            scene.lives_until("time to pass", |_| true);
        }
        scene.command_ends(end, FAILED);
        let took = scene.starts_again();
        assert!(took >= delay * 3 / 4 && took <= delay, "{took:?} of {delay:?}");
    }
}

#[test]
fn after_too_many_restarts_the_boundary_is_given_back_and_not_sought_for_a_while() {
    let mut scene = restarting(RestartWhen::OnFailure, OnLost::Recampaign);
    scene.leads();
    let mut sits_out = ms(60_000);
    for round in 0..5 {
        let (delays, actions) = scene.fails_for_good();
        assert_eq!(delays.len(), 5, "round {round}");
        assert!(delays[0] <= ms(100), "the delay begins anew: {delays:?}");
        assert_eq!(Scene::gives_up(&actions), [Some(sits_out)], "round {round}");
        scene.answered(scene.now, release(&actions), Answer::Release(true));
        assert_eq!(scene.candidate.phase(), Phase::CoolingDown);
        let since = scene.now;
        // That the boundary is free is for others.
        assert_eq!(scene.hears(since + ms(5), Event::Hint), []);
        assert_eq!(scene.candidate.wake_at(), since + sits_out);
        let asked = campaign(&scene.ticks(since + sits_out));
        let term = 8 + round;
        let actions = scene.answered(scene.now, asked, Answer::Campaign(Campaigned::Won(term)));
        let actions = scene.credited(scene.now, renewal(&actions), scene.now);
        let run = scene.candidate.context.run;
        assert!(actions.contains(&Action::Start { program: Program::Command { term }, run }), "{actions:?}");
        scene.keeper_tells(scene.now, FromKeeper::Started { run, pid: 4711 });
        sits_out = (sits_out * 2).min(ms(300_000));
    }
}

#[test]
fn restarts_that_are_far_enough_apart_do_not_count() {
    let restart = Restart { limit: 2, within: ms(10_000), delay: ms(0), when: RestartWhen::Always };
    let mut scene = Scene::wishing(Policy { restart, ..Policy::default() });
    scene.leads();
    for _ in 0..20 {
        let end = scene.now + ms(5_001);
        while scene.candidate.wake_at() < end {
            scene.lives_until("time to pass", |_| true);
        }
        let actions = scene.command_ends(end, FAILED);
        assert_eq!(Scene::gives_up(&actions), []);
        if scene.candidate.phase() == Phase::Leading {
            let run = scene.candidate.context.run;
            scene.keeper_tells(scene.now, FromKeeper::Started { run, pid: 4711 });
        } else {
            scene.starts_again();
        }
    }
}

#[test]
fn who_is_to_end_with_its_leadership_ends_with_the_status_when_it_gives_up() {
    let mut scene = restarting(RestartWhen::OnFailure, OnLost::End);
    scene.leads();
    let (_, actions) = scene.fails_for_good();
    assert_eq!(Scene::gives_up(&actions), [None]);
    let actions = scene.answered(scene.now, release(&actions), Answer::Release(true));
    assert_eq!(actions.last(), Some(&Action::End(Outcome::Command(FAILED))));
}

#[test]
fn a_stop_or_a_dead_keeper_ends_a_delay_and_a_sitting_out() {
    for (event, outcome) in [(Event::Stop(TERM), Outcome::Stopped(TERM)), (Event::KeeperDied, Outcome::KeeperDied)] {
        let mut scene = restarting(RestartWhen::Always, OnLost::Recampaign);
        scene.leads();
        scene.command_ends(at(100), DONE);
        let asked = release(&scene.hears(at(101), event));
        let actions = scene.answered(at(102), asked, Answer::Release(true));
        assert_eq!(actions.last(), Some(&Action::End(outcome.clone())));

        let mut scene = restarting(RestartWhen::Always, OnLost::Recampaign);
        scene.leads();
        let (_, actions) = scene.fails_for_good();
        scene.answered(scene.now, release(&actions), Answer::Release(true));
        let actions = scene.hears(scene.now, event);
        assert_eq!(actions.last(), Some(&Action::End(outcome)));
    }
}

#[test]
fn a_stop_that_comes_with_the_restart_comes_first() {
    let mut scene = restarting(RestartWhen::Always, OnLost::Recampaign);
    scene.leads();
    scene.command_ends(at(100), DONE);
    let actions = scene.hears(at(2_000), Event::Stop(TERM));
    assert!(!actions.iter().any(|action| matches!(action, Action::Start { .. })), "{actions:?}");
    release(&actions);
}

#[test]
fn a_stop_while_the_rest_of_the_tree_is_stopped_leaves_nothing_to_restart_or_to_hold() {
    let mut scene =
        Scene::wishing(Policy { min_hold: ms(60_000), restart: restart(RestartWhen::Always), ..Policy::default() });
    scene.leads();
    scene.keeper_tells(at(100), FromKeeper::Exited { run: 1, end: FAILED });
    scene.hears(at(101), Event::Stop(TERM));
    let actions = scene.keeper_tells(at(102), FromKeeper::Empty { run: 1 });
    assert!(actions.contains(&Action::EndHold), "{actions:?}");
    let actions = scene.answered(at(103), release(&actions), Answer::Release(true));
    assert_eq!(actions.last(), Some(&Action::End(Outcome::Command(FAILED))));
}

#[test]
fn a_lease_that_is_lost_between_two_runs_leaves_nothing_to_kill() {
    for on_lost in [OnLost::Recampaign, OnLost::End] {
        let mut scene = restarting(RestartWhen::Always, on_lost);
        scene.leads();
        scene.command_ends(at(100), DONE);
        let actions = scene.hears(at(101), Event::Ousted { term: 7 });
        assert!(!actions.contains(&Action::Kill), "{actions:?}");
        assert_eq!(actions.contains(&Action::End(Outcome::LeadershipLost)), on_lost == OnLost::End);
        if on_lost == OnLost::Recampaign {
            assert_eq!(scene.candidate.phase(), Phase::Campaigning);
        }
    }
}

#[test]
fn a_lease_that_runs_out_before_a_restart_is_over() {
    let restart = Restart { delay: ms(30_000), ..restart(RestartWhen::Always) };
    let mut scene = Scene::wishing(Policy { restart, ..Policy::default() });
    scene.leads();
    scene.command_ends(at(100), DONE);
    // No renewal is answered. The keeper is not pinged either: nothing runs.
    let mut rounds = 0;
    while scene.candidate.phase() == Phase::LeadingIdle {
        rounds += 1;
        assert!(rounds < 1_000, "it wakes again and again at {:?}", scene.now);
        let actions = scene.ticks(scene.candidate.wake_at());
        assert!(!actions.contains(&Action::Ping) && !actions.iter().any(|one| matches!(one, Action::Start { .. })));
    }
    assert_eq!((scene.now, scene.candidate.phase()), (at(6_500), Phase::Releasing));
    // The same while the rest of the old tree is still being stopped.
    let mut scene = restarting(RestartWhen::Always, OnLost::Recampaign);
    scene.leads();
    scene.keeper_tells(at(100), FromKeeper::Exited { run: 1, end: FAILED });
    while scene.now < at(6_500) {
        scene.ticks(scene.candidate.wake_at());
    }
    release(&scene.keeper_tells(at(7_000), FromKeeper::Empty { run: 1 }));
    // And if the keeper's deadline was the one that passed.
    let mut scene = restarting(RestartWhen::Always, OnLost::Recampaign);
    scene.leads();
    scene.keeper_tells(at(100), FromKeeper::Exited { run: 1, end: FAILED });
    scene.keeper_tells(at(101), FromKeeper::Expired { term: 7 });
    release(&scene.keeper_tells(at(102), FromKeeper::Empty { run: 1 }));
}

#[test]
fn a_restart_waits_for_a_lease_with_more_than_one_renewal_left_in_it() {
    let restart = Restart { delay: ms(4_600), ..restart(RestartWhen::Always) };
    let mut scene = Scene::wishing(Policy { restart, ..Policy::default() });
    scene.leads();
    scene.command_ends(at(1_000), DONE);
    let mut asked = None;
    while scene.now < at(5_600) {
        let actions = scene.ticks(scene.candidate.wake_at().min(at(5_600)));
        assert!(!actions.iter().any(|action| matches!(action, Action::Start { .. })), "K5: {actions:?}");
        asked = actions.iter().find(|one| matches!(one, Action::Renew(_))).map(|_| renewal(&actions)).or(asked);
    }
    // The one that is under way is answered at last.
    let asked = asked.expect("it has been renewing");
    let sent = scene.now - ms(100);
    let actions = scene.credited(scene.now, asked, sent);
    if !actions.contains(&Action::Start { program: COMMAND, run: 2 }) {
        // It had been given up just before.
        scene.starts_again();
    }
}

#[test]
fn a_boundary_is_kept_from_the_start_of_the_command_however_it_ended() {
    for end in [DONE, FAILED, KILLED] {
        let mut scene = holding(ms(60_000));
        scene.leads();
        let actions = scene.command_ends(at(100), end);
        assert!(actions.contains(&Action::Notice(Notice::LeadingIdle { term: 7, left: ms(59_900) })), "{actions:?}");
        let actions = scene.lives_until("the release", |action| matches!(action, Action::Release(_)));
        assert_eq!(scene.now, at(60_000));
        let actions = scene.answered(scene.now, release(&actions), Answer::Release(true));
        assert_eq!(actions.last(), Some(&Action::End(Outcome::Command(end))));
    }
    // It has taken longer.
    let mut scene = holding(ms(60));
    scene.leads();
    release(&scene.command_ends(at(100), DONE));
}

#[test]
fn a_stop_ends_a_hold_at_once_and_so_does_the_loss_of_the_lease() {
    for event in [Event::Stop(TERM), Event::Ousted { term: 7 }] {
        let mut scene = holding(ms(60_000));
        scene.leads();
        scene.command_ends(at(100), FAILED);
        let mut actions = scene.hears(at(101), event);
        assert!(actions.contains(&Action::EndHold) && !actions.contains(&Action::Kill), "{actions:?}");
        if event == Event::Stop(TERM) {
            actions = scene.answered(at(102), release(&actions), Answer::Release(true));
        }
        assert_eq!(actions.last(), Some(&Action::End(Outcome::Command(FAILED))));
    }
}

#[test]
fn a_hold_goes_on_asking_a_store_that_does_not_answer() {
    let mut scene = holding(ms(60_000));
    scene.leads();
    scene.command_ends(at(100), DONE);
    let mut asked = Vec::new();
    while scene.candidate.phase() == Phase::LeadingIdle {
        let actions = scene.ticks(scene.candidate.wake_at());
        asked.extend(actions.iter().any(|one| matches!(one, Action::Renew(_))).then_some(scene.now));
    }
    assert_eq!(scene.now, at(60_000));
    assert!(asked.len() > 20 && asked.windows(2).all(|pair| pair[1].since(pair[0]) >= ms(250)), "{asked:?}");
}

#[test]
fn a_credit_arms_the_keeper_although_nothing_runs() {
    let rest = || restarting(RestartWhen::Always, OnLost::Recampaign);
    for scene in [holding(ms(60_000)), rest()] {
        let mut scene = scene;
        scene.leads();
        scene.command_ends(at(1_900), DONE);
        assert_eq!(scene.candidate.phase(), Phase::LeadingIdle);
        let asked = renewal(&scene.hears(at(1_950), Event::ConfirmLeadership { request_id: RequestId(1), term: None }));
        // Should the campaigner die now, the keeper has to know how long there is a lease (K2).
        let actions = scene.credited(at(1_960), asked, at(1_950));
        assert!(actions.contains(&Action::Arm { term: 7, kill_by: at(10_450) }), "{actions:?}");
    }
}

#[test]
fn a_dead_keeper_ends_no_hold() {
    let mut scene = holding(ms(60_000));
    scene.leads();
    scene.command_ends(at(100), DONE);
    scene.hears(at(101), Event::KeeperDied);
    let actions = scene.lives_until("the release", |action| matches!(action, Action::Release(_)));
    assert_eq!(scene.now, at(60_000));
    let actions = scene.answered(scene.now, release(&actions), Answer::Release(true));
    assert_eq!(actions.last(), Some(&Action::End(Outcome::KeeperDied)));
}

#[test]
fn a_hold_counts_from_the_first_run_of_a_term_and_comes_before_sitting_out() {
    let policy = Policy { min_hold: ms(60_000), restart: restart(RestartWhen::OnFailure), ..Policy::default() };
    let mut scene = Scene::wishing(policy);
    scene.leads();
    let (_, actions) = scene.fails_for_good();
    assert_eq!((scene.candidate.phase(), Scene::gives_up(&actions)), (Phase::LeadingIdle, vec![Some(ms(60_000))]));
    let actions = scene.lives_until("the release", |action| matches!(action, Action::Release(_)));
    assert_eq!(scene.now, at(60_000));
    scene.answered(scene.now, release(&actions), Answer::Release(true));
    assert_eq!((scene.candidate.phase(), scene.candidate.wake_at()), (Phase::CoolingDown, at(120_000)));
}
