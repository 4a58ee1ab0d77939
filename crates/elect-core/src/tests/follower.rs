//! The follower, and the actions that wait for its end.

#![expect(clippy::wildcard_enum_match_arm, reason = "one action among many is looked for")]

use super::*;

const LEADER: LeaderKey = LeaderKey(1);
const OTHER: LeaderKey = LeaderKey(2);
const USR1: Signal = Signal(10);
const FAILED: CommandEnd = CommandEnd::Exited(3);
const WAITING: Answer = Answer::Campaign(Campaigned::Waiting { again: None, decided: true });

fn scene(on_change: OnChange) -> Scene {
    Scene::wishing(Policy { follower: Some(on_change), ..Policy::default() })
}

fn restarting() -> Scene {
    let restart = Restart { when: RestartWhen::Always, delay: ms(0), ..Restart::default() };
    Scene::wishing(Policy { follower: Some(OnChange::Restart), restart, ..Policy::default() })
}

fn starts(actions: &[Action]) -> Option<RunId> {
    actions.iter().find_map(|action| match action {
        Action::Start { program: Program::Follower, run } => Some(*run),
        _ => None,
    })
}

fn leads(actions: &[Action]) -> bool {
    actions.iter().any(|action| matches!(action, Action::Start { program: Program::Command { .. }, .. }))
}

impl Scene {
    fn says(&mut self, word: FromKeeper) -> Vec<Action> {
        self.hears(self.now, Event::Keeper(word))
    }

    /// Behind this leader, with a follower in the run that is returned.
    fn follows(&mut self, leader: LeaderKey) -> RunId {
        let asked = campaign(&self.ticks(self.now));
        self.answered(self.now, asked, WAITING);
        let actions = self.hears(self.now, Event::LeaderObserved(Some(leader)));
        let run = starts(&actions).unwrap_or_else(|| panic!("no follower in {actions:?}"));
        self.says(FromKeeper::Started { run, pid: 4711 });
        run
    }

    fn is_emptied(&mut self, run: RunId, end: CommandEnd) -> Vec<Action> {
        let mut actions = self.says(FromKeeper::Exited { run, end });
        actions.extend(self.says(FromKeeper::Empty { run }));
        actions
    }

    /// Wins term 7 while following, with a lease that is credited at once. Returns the run of the follower.
    fn wins_while_following(&mut self) -> RunId {
        let run = self.follows(LEADER);
        let asked = campaign(&self.hears(self.now, Event::Hint));
        let actions = self.answered(self.now, asked, Answer::Campaign(Campaigned::Won(7)));
        assert!(actions.contains(&Action::Stop { kill_at: self.now + STOP_TIMEOUT }), "{actions:?}");
        let actions = self.credited(self.now, renewal(&actions), self.now);
        assert!(!leads(&actions), "beside the follower: {actions:?}");
        run
    }
}

#[test]
fn a_follower_starts_when_a_leader_is_known_and_goes_on_when_none_is() {
    let mut scene = scene(OnChange::Restart);
    let asked = campaign(&scene.ticks(at(0)));
    assert_eq!(starts(&scene.answered(at(1), asked, WAITING)), None);
    assert_eq!(starts(&scene.hears(at(1), Event::LeaderObserved(None))), None);
    assert_eq!(starts(&scene.hears(at(2), Event::LeaderObserved(Some(LEADER)))), Some(1));
    scene.says(FromKeeper::Started { run: 1, pid: 4711 });
    assert_eq!(scene.hears(at(3), Event::LeaderObserved(None)), []);
    assert_eq!(scene.hears(at(4), Event::LeaderObserved(Some(LEADER))), [], "the same one again");
    assert!(scene.candidate.has_a_follower());
}

#[test]
fn another_leader_restarts_it_once_it_is_gone() {
    let mut scene = scene(OnChange::Restart);
    let run = scene.follows(LEADER);
    let actions = scene.hears(at(100), Event::LeaderObserved(Some(OTHER)));
    assert!(actions.contains(&Action::Stop { kill_at: at(100) + STOP_TIMEOUT }), "{actions:?}");
    assert_eq!(starts(&actions), None, "not beside the old one");
    assert_eq!(starts(&scene.says(FromKeeper::Exited { run, end: FAILED })), None);
    assert_eq!(starts(&scene.says(FromKeeper::Empty { run: run + 1 })), None, "of another run");
    assert_eq!(starts(&scene.says(FromKeeper::Empty { run })), Some(run + 1));
}

#[test]
fn another_leader_is_a_signal_or_nothing_where_that_was_asked_for() {
    let mut signalled = scene(OnChange::Signal(USR1));
    signalled.follows(LEADER);
    assert_eq!(signalled.hears(at(1), Event::LeaderObserved(Some(OTHER))), [Action::Forward(USR1)]);
    assert_eq!(signalled.hears(at(2), Event::LeaderObserved(Some(OTHER))), []);
    let mut ignoring = scene(OnChange::Ignore);
    ignoring.follows(LEADER);
    assert_eq!(ignoring.hears(at(1), Event::LeaderObserved(Some(OTHER))), []);
    // A change that comes before it runs is told as soon as it does.
    let mut early = scene(OnChange::Signal(USR1));
    let asked = campaign(&early.ticks(at(0)));
    early.answered(at(0), asked, WAITING);
    assert_eq!(starts(&early.hears(at(0), Event::LeaderObserved(Some(LEADER)))), Some(1));
    assert!(!early.hears(at(1), Event::LeaderObserved(Some(OTHER))).contains(&Action::Forward(USR1)));
    assert!(early.says(FromKeeper::Started { run: 1, pid: 4711 }).contains(&Action::Forward(USR1)));
}

#[test]
fn one_that_ends_by_itself_waits_for_another_leader_or_is_restarted_without_a_limit() {
    let mut once = scene(OnChange::Ignore);
    let run = once.follows(LEADER);
    assert_eq!(starts(&once.is_emptied(run, FAILED)), None);
    assert_eq!(starts(&once.hears(at(1), Event::LeaderObserved(Some(LEADER)))), None);
    assert_eq!(starts(&once.hears(at(2), Event::LeaderObserved(Some(OTHER)))), Some(run + 1));

    let mut again = restarting();
    let mut run = again.follows(LEADER);
    let mut delays = Vec::new();
    for _ in 0..12 {
        assert_eq!(starts(&again.is_emptied(run, FAILED)), None, "not at once, whatever was said");
        let ended = again.now;
        while starts(&[]).is_none() {
            let now = again.candidate.wake_at();
            let actions = again.ticks(now);
            if let Some(Action::Campaign(asked)) = actions.iter().find(|one| matches!(one, Action::Campaign(_))) {
                again.answered(now, *asked, WAITING);
            }
            if actions.contains(&Action::Ping) {
                again.says(FromKeeper::Pong);
            }
            if let Some(next) = starts(&actions) {
                run = next;
                break;
            }
        }
        delays.push(again.now.since(ended));
        again.says(FromKeeper::Started { run, pid: 4711 });
    }
    assert!(delays[0] >= ms(75) && delays[0] <= ms(100), "{delays:?}");
    assert!(delays[3] >= ms(600) && delays[11] >= ms(22_500) && delays[11] <= ms(30_000), "{delays:?}");
}

#[test]
fn a_win_waits_for_the_end_of_the_follower_and_is_renewed_meanwhile() {
    let mut scene = scene(OnChange::Restart);
    let run = scene.wins_while_following();
    assert_eq!(scene.candidate.phase(), Phase::Verifying);
    let actions = scene.ticks(at(2_000));
    assert!(!leads(&scene.credited(at(2_000), renewal(&actions), at(2_000))));
    scene.says(FromKeeper::Exited { run, end: FAILED });
    assert_eq!(scene.candidate.phase(), Phase::Verifying, "K10: what it left behind may live");
    let actions = scene.says(FromKeeper::Empty { run });
    let armed = actions.iter().position(|action| *action == Action::Arm { term: 7, kill_by: at(10_500) });
    let started = actions.iter().position(|action| *action == Action::Start { program: COMMAND, run: run + 1 });
    assert!(armed.is_some() && armed < started, "{actions:?}");
}

#[test]
fn with_one_renewal_left_when_the_follower_is_gone_the_next_credit_decides() {
    let mut scene = scene(OnChange::Restart);
    let run = scene.wins_while_following();
    let asked = renewal(&scene.ticks(at(2_000)));
    scene.answered(at(2_500), asked, Answer::Renew(Renewed::Failed));
    scene.now = at(4_500);
    let actions = scene.is_emptied(run, FAILED);
    assert!(!leads(&actions), "K5: {actions:?}");
    let asked = renewal(&[actions, scene.ticks(at(4_500))].concat());
    assert!(leads(&scene.credited(at(4_501), asked, at(4_500))));
}

/// S1: the lease is held while the follower stops, and the term must still be above every term seen when it is gone.
#[test]
fn a_win_is_given_back_if_a_higher_term_was_seen_while_the_follower_stopped() {
    let mut scene = scene(OnChange::Restart);
    let run = scene.wins_while_following();
    scene.hears(scene.now, Event::TermSeen(9));
    let actions = scene.is_emptied(run, FAILED);
    assert!(!leads(&actions), "{actions:?}");
    assert!(actions.contains(&Action::Notice(Notice::TermTooLow { term: 7, seen: 9 })), "{actions:?}");
    release(&actions);
}

/// K5: only a store that stops answering costs the win. Each credit counts again, however long the follower takes.
#[test]
fn a_follower_that_takes_longer_than_a_ttl_costs_no_win_that_is_renewed() {
    let timing = Timing::validate(TimingFlags::default()).expect("defaults hold");
    let policy = Policy { follower: Some(OnChange::Restart), ..Policy::default() };
    let mut scene = Scene { candidate: Candidate::new(timing, ms(60_000), policy, 1), now: at(0) };
    let run = scene.follows(LEADER);
    let asked = campaign(&scene.hears(scene.now, Event::Hint));
    let actions = scene.answered(scene.now, asked, Answer::Campaign(Campaigned::Won(7)));
    scene.credited(scene.now, renewal(&actions), scene.now);
    while scene.now < at(30_000) {
        for action in scene.ticks(scene.candidate.wake_at().min(at(30_000))) {
            match action {
                Action::Renew(asked) => drop(scene.credited(scene.now, asked, scene.now)),
                Action::Ping => drop(scene.says(FromKeeper::Pong)),
                _ => {}
            }
        }
        assert_eq!(scene.candidate.phase(), Phase::Verifying, "at {:?}", scene.now);
    }
    assert!(leads(&scene.is_emptied(run, FAILED)));
}

#[test]
fn a_follower_that_cannot_be_emptied_costs_the_win_and_the_candidacy_until_it_is_gone() {
    let mut scene = scene(OnChange::Restart);
    let run = scene.wins_while_following();
    let mut released = None;
    while scene.now < at(60_000) {
        for action in scene.ticks(scene.candidate.wake_at().min(at(60_000))) {
            match action {
                Action::Renew(asked) => drop(scene.credited(scene.now, asked, scene.now)),
                Action::Ping => drop(scene.says(FromKeeper::Pong)),
                Action::Release(asked) => {
                    released = Some(scene.now);
                    scene.answered(scene.now, asked, Answer::Release(true));
                }
                Action::Kill => assert_eq!(scene.now, at(0) + STOP_TIMEOUT),
                Action::Campaign(_) | Action::Start { .. } => panic!("2.3: {action:?} at {:?}", scene.now),
                _ => {}
            }
        }
    }
    assert_eq!(released, Some(at(0) + STOP_TIMEOUT + KILL_ALLOWANCE), "K11");
    assert_eq!(scene.candidate.phase(), Phase::CoolingDown);
    scene.is_emptied(run, FAILED);
    campaign(&scene.ticks(scene.candidate.wake_at().max(at(60_000))));
}

#[test]
fn a_stuck_follower_ends_a_candidacy_even_without_a_win() {
    let mut scene = scene(OnChange::Restart);
    let run = scene.follows(LEADER);
    scene.hears(at(0), Event::LeaderObserved(Some(OTHER)));
    let mut released = false;
    while !released {
        for action in scene.ticks(scene.candidate.wake_at()) {
            match action {
                Action::Campaign(asked) => drop(scene.answered(scene.now, asked, WAITING)),
                Action::Ping => drop(scene.says(FromKeeper::Pong)),
                Action::Release(asked) => {
                    released = true;
                    assert!(scene.now >= at(8_500));
                    scene.answered(scene.now, asked, Answer::Release(true));
                }
                _ => {}
            }
        }
    }
    assert_eq!(scene.candidate.phase(), Phase::CoolingDown);
    assert_eq!(scene.hears(at(20_000), Event::Hint), [Action::Ping]);
    scene.is_emptied(run, FAILED);
    campaign(&scene.ticks(scene.now));
}

#[test]
fn a_stop_gives_the_place_back_at_once_and_ends_with_the_followers_status() {
    for (end, outcome) in
        [(FAILED, Outcome::Command(FAILED)), (CommandEnd::Exited(0), Outcome::Command(CommandEnd::Exited(0)))]
    {
        let mut scene = scene(OnChange::Restart);
        let run = scene.follows(LEADER);
        let actions = scene.hears(at(100), Event::Stop(TERM));
        assert!(actions.contains(&Action::Stop { kill_at: at(100) + STOP_TIMEOUT }), "{actions:?}");
        let actions = scene.answered(at(101), release(&actions), Answer::Release(true));
        assert_eq!((actions, scene.candidate.phase()), (vec![], Phase::StoppingFollower));
        assert_eq!(scene.is_emptied(run, end).last(), Some(&Action::End(outcome)));
    }
    // The other way round, too.
    let mut scene = scene(OnChange::Restart);
    let run = scene.follows(LEADER);
    let asked = release(&scene.hears(at(100), Event::Stop(TERM)));
    assert!(!scene.is_emptied(run, FAILED).iter().any(|action| matches!(action, Action::End(_))));
    let actions = scene.answered(at(101), asked, Answer::Release(true));
    assert_eq!(actions, [Action::End(Outcome::Command(FAILED))]);
}

#[test]
fn a_stop_without_a_follower_is_what_it_always_was() {
    let mut scene = scene(OnChange::Restart);
    let run = scene.follows(LEADER);
    scene.is_emptied(run, FAILED);
    let asked = release(&scene.hears(at(100), Event::Stop(TERM)));
    let actions = scene.answered(at(101), asked, Answer::Release(true));
    assert_eq!(actions, [Action::End(Outcome::Stopped(TERM))], "its end was another matter");
}

#[test]
fn a_second_stop_kills_the_follower_at_once() {
    let mut scene = scene(OnChange::Restart);
    scene.follows(LEADER);
    scene.hears(at(100), Event::Stop(TERM));
    assert!(scene.hears(at(200), Event::Stop(TERM)).contains(&Action::Kill));
    assert_eq!(scene.candidate.phase(), Phase::StoppingFollower);
    assert_eq!(scene.hears(at(300), Event::Stop(TERM)), [], "once");
    // One that ignores the first is killed in its time.
    let mut scene = self::scene(OnChange::Restart);
    scene.follows(LEADER);
    let asked = release(&scene.hears(at(100), Event::Stop(TERM)));
    scene.answered(at(100), asked, Answer::Release(true));
    while scene.now < at(8_100) {
        let actions = scene.ticks(scene.candidate.wake_at());
        assert_eq!(actions.contains(&Action::Kill), scene.now == at(8_100), "{actions:?} at {:?}", scene.now);
        if actions.contains(&Action::Ping) {
            scene.says(FromKeeper::Pong);
        }
    }
}

#[test]
fn a_dead_keepers_follower_is_swept_before_the_end() {
    let mut scene = scene(OnChange::Restart);
    scene.follows(LEADER);
    let actions = scene.hears(at(100), Event::KeeperDied);
    assert!(actions.contains(&Action::Sweep), "K4: {actions:?}");
    let actions = scene.answered(at(101), release(&actions), Answer::Release(true));
    assert!(!actions.iter().any(|action| matches!(action, Action::End(_))), "{actions:?}");
    assert_eq!(scene.hears(at(102), Event::Swept { empty: false }), []);
    assert_eq!(scene.ticks(scene.candidate.wake_at()), [Action::Sweep]);
    assert_eq!(scene.hears(at(108), Event::Swept { empty: true }), [Action::End(Outcome::KeeperDied)]);
}

#[test]
fn a_silent_keeper_with_a_follower_is_killed() {
    let mut scene = scene(OnChange::Restart);
    scene.follows(LEADER);
    let mut killed = false;
    while scene.now < at(20_000) && !killed {
        for action in scene.ticks(scene.candidate.wake_at()) {
            match action {
                Action::Campaign(asked) => drop(scene.answered(scene.now, asked, WAITING)),
                Action::KillKeeper => killed = true,
                _ => {}
            }
        }
    }
    assert!(killed, "K4");
}

#[test]
fn signals_are_for_the_follower_while_it_is_there() {
    let mut scene = scene(OnChange::Restart);
    let run = scene.follows(LEADER);
    assert_eq!(scene.hears(at(1), Event::Forward(USR1)), [Action::Forward(USR1)]);
    scene.is_emptied(run, FAILED);
    assert_eq!(scene.hears(at(2), Event::Forward(USR1)), []);
}

#[test]
fn a_leadership_that_is_over_makes_a_follower_again() {
    let mut scene = scene(OnChange::Restart);
    let run = scene.wins_while_following();
    scene.is_emptied(run, FAILED);
    scene.says(FromKeeper::Started { run: run + 1, pid: 4712 });
    scene.hears(at(100), Event::Ousted { term: 7 });
    scene.says(FromKeeper::Empty { run: run + 1 });
    let asked = campaign(&scene.ticks(scene.candidate.wake_at()));
    scene.answered(scene.now, asked, WAITING);
    assert_eq!(
        starts(&scene.hears(scene.now, Event::LeaderObserved(Some(LEADER)))),
        Some(run + 2),
        "even after the same one"
    );
}
