//! The rules, one at a time, in situations that the simulation meets only by chance.

use std::time::Duration;

use super::*;

mod control_requests;
mod eligibility;
mod follower;
mod hooks;
mod restarts;
mod stopping;
mod wait_limit;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const fn at(millis: u64) -> Time {
    Time::from_nanos(millis * 1_000_000)
}

const TERM: Signal = Signal(15);
const COMMAND: Program = Program::Command { term: 7 };
const STOP_TIMEOUT: Duration = Duration::from_secs(8);

/// A candidate with the default timings (L 10 s, R 2 s, A 1 s, B 250 to 500 ms, G 2 s), at a time that only moves on.
struct Scene {
    candidate: Candidate,
    now: Time,
}

impl Scene {
    fn new() -> Scene {
        Scene::wishing(Policy::default())
    }

    fn wishing(policy: Policy) -> Scene {
        let timing = Timing::validate(TimingFlags::default()).expect("defaults hold");
        Scene { candidate: Candidate::new(timing, STOP_TIMEOUT, policy, 1), now: at(0) }
    }

    fn hears(&mut self, now: Time, event: Event) -> Vec<Action> {
        assert!(now >= self.now, "time only moves on");
        self.now = now;
        self.candidate.handle(now, event)
    }

    fn ticks(&mut self, now: Time) -> Vec<Action> {
        self.hears(now, Event::Tick)
    }

    fn answered(&mut self, now: Time, attempt: Attempt, answer: Answer) -> Vec<Action> {
        self.hears(now, Event::Answer { attempt, answer })
    }

    fn credited(&mut self, now: Time, attempt: Attempt, sent: Time) -> Vec<Action> {
        let renewed = Renewed::Credited { sent, ttl: Some(ms(10_000)) };
        self.answered(now, attempt, Answer::Renew(renewed))
    }

    /// Asks for the boundary at time zero and wins term 7; returns the attempt that verifies it.
    fn wins(&mut self) -> Attempt {
        let asked = campaign(&self.ticks(at(0)));
        renewal(&self.answered(at(0), asked, Answer::Campaign(Campaigned::Won(7))))
    }

    /// Leads term 7 from time zero, with a command in run 1.
    fn leads(&mut self) {
        let verifying = self.wins();
        let actions = self.credited(at(0), verifying, at(0));
        assert!(actions.contains(&Action::Start { program: COMMAND, run: 1 }), "{actions:?}");
        self.hears(at(0), Event::Keeper(FromKeeper::Started { run: 1, pid: 4711 }));
        self.hears(at(0), Event::Keeper(FromKeeper::Pong));
    }
}

fn campaign(actions: &[Action]) -> Attempt {
    let asked =
        actions.iter().find_map(|action| if let Action::Campaign(asked) = action { Some(*asked) } else { None });
    asked.unwrap_or_else(|| panic!("no campaign in {actions:?}"))
}

/// A leader whose first start was refused as too late, at 100 ms, and whose hurried renewal was credited.
fn refused_start() -> Scene {
    let mut scene = Scene::new();
    let verifying = scene.wins();
    scene.credited(at(0), verifying, at(0));
    let too_late = Event::Keeper(FromKeeper::NotStarted { run: 1, why: NotStarted::TooLate });
    let hurried = renewal(&scene.hears(at(100), too_late));
    let actions = scene.credited(at(101), hurried, at(100));
    assert!(!actions.iter().any(|action| matches!(action, Action::Start { .. })), "{actions:?}");
    scene
}

fn renewal_asked(action: &Action) -> Option<Attempt> {
    if let Action::Renew(asked) = action { Some(*asked) } else { None }
}

fn renewal(actions: &[Action]) -> Attempt {
    actions.iter().find_map(renewal_asked).unwrap_or_else(|| panic!("no renewal in {actions:?}"))
}

fn release(actions: &[Action]) -> Attempt {
    let asked = actions.iter().find_map(|action| if let Action::Release(asked) = action { Some(*asked) } else { None });
    asked.unwrap_or_else(|| panic!("no release in {actions:?}"))
}

#[test]
fn a_word_about_another_term_changes_nothing_and_one_about_ours_kills_at_once() {
    for final_word in [Event::Ousted { term: 7 }, Event::Keeper(FromKeeper::Expired { term: 7 })] {
        let mut scene = Scene::new();
        scene.leads();
        assert_eq!(scene.hears(at(100), Event::Ousted { term: 6 }), []);
        assert_eq!(scene.hears(at(100), Event::Keeper(FromKeeper::Expired { term: 8 })), []);
        assert_eq!(scene.candidate.phase(), Phase::Leading);
        scene.hears(at(100), final_word);
        assert_eq!(scene.candidate.phase(), Phase::Stopping);
    }
    let mut scene = Scene::new();
    scene.leads();
    assert!(scene.hears(at(100), Event::Ousted { term: 7 }).contains(&Action::Kill), "K11");
    let mut scene = Scene::new();
    scene.wins();
    scene.hears(at(1), Event::Ousted { term: 7 });
    assert_eq!(scene.candidate.phase(), Phase::Campaigning, "a win that was lost before it was verified");
}

#[test]
fn what_the_keeper_says_of_another_run_is_not_taken_for_this_one() {
    let mut scene = Scene::new();
    scene.leads();
    scene.hears(at(100), Event::Stop(TERM));
    for run in [0, 2] {
        scene.hears(at(200), Event::Keeper(FromKeeper::Empty { run }));
        assert_eq!(scene.candidate.phase(), Phase::Stopping, "run {run}");
    }
    scene.hears(at(300), Event::Keeper(FromKeeper::Empty { run: 1 }));
    assert_eq!(scene.candidate.phase(), Phase::Releasing);
    // Late, and of a run that is over: nothing holds a tree any more.
    assert_eq!(scene.hears(at(301), Event::Keeper(FromKeeper::Empty { run: 1 })), []);
}

#[test]
fn an_answer_to_another_question_is_none() {
    let mut scene = Scene::new();
    let asked = campaign(&scene.ticks(at(0)));
    assert_eq!(scene.credited(at(1), asked, at(0)), []);
    assert_eq!(scene.answered(at(1), asked, Answer::Release(true)), []);
    assert_eq!(scene.answered(at(1), Attempt(asked.0 + 1), Answer::Campaign(Campaigned::Won(7))), []);
    renewal(&scene.answered(at(1), asked, Answer::Campaign(Campaigned::Won(7))));
    assert_eq!(scene.answered(at(1), asked, Answer::Campaign(Campaigned::Won(7))), [], "doubled");
}

#[test]
fn a_refusal_ends_a_candidacy_that_never_had_an_answer_and_troubles_one_that_had() {
    let mut scene = Scene::new();
    let asked = campaign(&scene.ticks(at(0)));
    let actions = scene.answered(at(1), asked, Answer::Campaign(Campaigned::Refused));
    assert_eq!(actions, [Action::End(Outcome::Refused)]);

    let mut scene = Scene::new();
    let asked = campaign(&scene.ticks(at(0)));
    scene.answered(at(1), asked, Answer::Campaign(Campaigned::Waiting { again: None, decided: true }));
    let asked = campaign(&scene.ticks(at(2_001)));
    assert_eq!(scene.answered(at(2_002), asked, Answer::Campaign(Campaigned::Refused)), []);
    assert_eq!(scene.candidate.phase(), Phase::Campaigning);
}

#[test]
fn troubles_double_the_rest_between_questions_up_to_a_renewal_interval() {
    let mut scene = Scene::new();
    let mut asked = campaign(&scene.ticks(at(0)));
    for doubled in [1, 2, 4, 8, 8] {
        let before = scene.now;
        scene.answered(before, asked, Answer::Campaign(Campaigned::Failed));
        let rest = scene.candidate.wake_at().since(before);
        assert!(rest >= (ms(250) * doubled).min(ms(2_000)) && rest <= (ms(500) * doubled).min(ms(2_000)), "{rest:?}");
        asked = campaign(&scene.ticks(before + rest));
    }
    // A hint does not hurry a store that is in trouble; after an answer it does.
    scene.answered(scene.now, asked, Answer::Campaign(Campaigned::Failed));
    assert_eq!(scene.hears(scene.now, Event::Hint), []);
    let asked = campaign(&scene.ticks(scene.candidate.wake_at()));
    scene.answered(scene.now, asked, Answer::Campaign(Campaigned::Waiting { again: None, decided: true }));
    assert_eq!(scene.candidate.wake_at(), scene.now + ms(2_000));
    campaign(&scene.hears(scene.now, Event::Hint));
}

/// 2.5: an outage may last as long as it likes.
#[test]
fn after_any_number_of_failures_in_a_row_the_rest_is_a_renewal_interval() {
    let mut scene = Scene::new();
    let mut asked = campaign(&scene.ticks(at(0)));
    for failures in 1..=100 {
        let before = scene.now;
        scene.answered(before, asked, Answer::Campaign(Campaigned::Failed));
        let rest = scene.candidate.wake_at().since(before);
        assert!(failures < 5 || rest == ms(2_000), "{rest:?} after {failures}");
        asked = campaign(&scene.ticks(before + rest));
    }
}

#[test]
fn a_waiter_asks_when_it_was_told_to_but_at_least_once_in_an_interval() {
    for (again, expected) in [(None, 2_000), (Some(ms(300)), 300), (Some(ms(60_000)), 2_000), (Some(ms(0)), 0)] {
        let mut scene = Scene::new();
        let asked = campaign(&scene.ticks(at(0)));
        let actions = scene.answered(at(10), asked, Answer::Campaign(Campaigned::Waiting { again, decided: true }));
        if expected == 0 {
            campaign(&actions);
        } else {
            assert_eq!(scene.candidate.wake_at(), at(10 + expected));
        }
    }
    // A hint that came while the question was under way may be news.
    let mut scene = Scene::new();
    let asked = campaign(&scene.ticks(at(0)));
    assert_eq!(scene.hears(at(5), Event::Hint), []);
    campaign(&scene.answered(at(10), asked, Answer::Campaign(Campaigned::Waiting { again: None, decided: true })));
}

#[test]
fn the_command_starts_with_more_than_one_renewal_left_or_after_the_next_credit() {
    // stop_by is 6.5 s after the sending: at 4.5 s exactly one renewal of 2 s is left in it.
    for (now, starts) in [(4_499, true), (4_500, false), (4_501, false), (6_400, false)] {
        let mut scene = Scene::new();
        let mut verifying = scene.wins();
        // Attempts time out after a second; the last one is answered late.
        while scene.now < at(now - 900) {
            scene.ticks(scene.candidate.wake_at());
            let actions = scene.ticks(scene.candidate.wake_at().min(at(now)));
            if actions.iter().any(|action| matches!(action, Action::Renew(_))) {
                verifying = renewal(&actions);
            }
        }
        let actions = scene.credited(at(now), verifying, at(0));
        let started = actions.contains(&Action::Start { program: COMMAND, run: 1 });
        assert_eq!(started, starts, "at {now}: {actions:?}");
        if !starts {
            let again = renewal(&actions);
            let actions = scene.credited(at(now + 1), again, at(now));
            let armed = actions.iter().position(|action| matches!(action, Action::Arm { term: 7, .. }));
            let started = actions.iter().position(|action| *action == Action::Start { program: COMMAND, run: 1 });
            assert!(armed.is_some() && armed < started, "armed before it is started: {actions:?}");
        }
    }
}

#[test]
fn a_win_that_cannot_be_verified_within_a_ttl_is_given_back() {
    let mut scene = Scene::new();
    let verifying = scene.wins();
    scene.answered(at(5), verifying, Answer::Renew(Renewed::Failed));
    let rest = scene.candidate.wake_at().since(at(5));
    assert!(rest >= ms(250) && rest <= ms(500), "B: {rest:?}");
    while scene.candidate.phase() == Phase::Verifying {
        assert!(scene.now < at(10_000));
        scene.ticks(scene.candidate.wake_at());
    }
    assert_eq!((scene.candidate.phase(), scene.now), (Phase::Releasing, at(10_000)));
}

#[test]
fn a_keeper_that_finds_it_too_late_is_asked_again_after_one_hurried_renewal_and_not_for_ever() {
    let mut scene = Scene::new();
    let verifying = scene.wins();
    scene.credited(at(0), verifying, at(0));
    let too_late = |run| Event::Keeper(FromKeeper::NotStarted { run, why: NotStarted::TooLate });
    let hurried = renewal(&scene.hears(at(100), too_late(1)));
    let empty = |run| Event::Keeper(FromKeeper::Empty { run });
    assert_eq!(scene.hears(at(100), empty(1)), [], "after the next credit");
    let actions = scene.credited(at(101), hurried, at(100));
    assert!(actions.contains(&Action::Start { program: COMMAND, run: 2 }), "{actions:?}");
    // The second time the usual pace is kept, and a ttl after the first refusal it is over.
    let mut run = 2;
    let actions = scene.hears(at(102), too_late(run));
    assert!(!actions.iter().any(|action| matches!(action, Action::Renew(_))), "{actions:?}");
    while scene.candidate.phase() == Phase::Leading {
        assert!(scene.now < at(10_100), "resigns a ttl after the first refusal");
        let actions = scene.ticks(scene.candidate.wake_at());
        if let Some(Action::Renew(asked)) = actions.iter().find(|action| matches!(action, Action::Renew(_))) {
            scene.hears(scene.now, empty(run));
            let actions = scene.credited(scene.now, *asked, scene.now);
            run += 1;
            assert!(actions.contains(&Action::Start { program: COMMAND, run }), "{actions:?}");
            scene.hears(scene.now, too_late(run));
        }
    }
    assert_eq!(scene.now, at(10_100));
}

#[test]
fn a_refused_start_is_retried_only_after_the_keeper_has_confirmed_that_nothing_of_it_is_left() {
    for confirmation in [FromKeeper::Empty { run: 1 }, FromKeeper::Cleared { run: 1 }] {
        let mut scene = refused_start();
        // Of another run: nothing.
        assert_eq!(scene.hears(at(102), Event::Keeper(FromKeeper::Cleared { run: 9 })), []);
        let actions = scene.hears(at(103), Event::Keeper(confirmation));
        assert_eq!(actions, [Action::Start { program: COMMAND, run: 2 }], "with what was credited meanwhile");
        assert_eq!(scene.hears(at(104), Event::Keeper(confirmation)), [], "said once");
    }
}

#[test]
fn a_refused_start_that_is_confirmed_late_waits_for_a_lease_with_more_than_one_renewal_left_in_it() {
    let mut scene = refused_start();
    // The store is silent from here on. stop_by is 6.6 s, R is 2 s.
    while scene.candidate.wake_at() < at(5_000) {
        scene.ticks(scene.candidate.wake_at());
    }
    let actions = scene.hears(at(5_000), Event::Keeper(FromKeeper::Cleared { run: 1 }));
    assert!(!actions.iter().any(|action| matches!(action, Action::Start { .. })), "K5: {actions:?}");
    let mut asked = actions.iter().find_map(renewal_asked);
    let asked = loop {
        if let Some(asked) = asked {
            break asked;
        }
        let due = scene.candidate.wake_at();
        asked = scene.ticks(due).iter().find_map(renewal_asked);
    };
    let now = scene.now;
    let actions = scene.credited(now, asked, now);
    assert!(actions.contains(&Action::Start { program: COMMAND, run: 2 }), "{actions:?}");
}

#[test]
fn a_refused_start_that_is_never_confirmed_is_stopped_and_nothing_is_released() {
    let mut scene = refused_start();
    let mut said = Vec::new();
    while scene.candidate.phase() == Phase::Leading {
        assert!(scene.now <= at(10_100), "resigns a ttl after the refusal");
        let actions = scene.ticks(scene.candidate.wake_at());
        if let Some(Action::Renew(asked)) = actions.iter().find(|action| matches!(action, Action::Renew(_))) {
            let (asked, now) = (*asked, scene.now);
            said.extend(scene.credited(now, asked, now));
        }
        said.extend(actions);
    }
    assert!(!said.iter().any(|action| matches!(action, Action::Start { .. } | Action::Release(_))), "{said:?}");
    assert_eq!(scene.candidate.phase(), Phase::Stopping);
    let now = scene.now;
    let actions = scene.hears(now, Event::Keeper(FromKeeper::Cleared { run: 1 }));
    assert!(!actions.iter().any(|action| matches!(action, Action::Release(_))), "2.3: a hook may live: {actions:?}");
    assert_eq!(scene.candidate.phase(), Phase::Stopping);
    let actions = scene.hears(now, Event::Keeper(FromKeeper::Empty { run: 1 }));
    assert!(actions.iter().any(|action| matches!(action, Action::Release(_))), "{actions:?}");
}

#[test]
fn a_term_that_is_not_above_every_term_seen_is_given_back_and_sought_again_ever_later() {
    let mut scene = Scene::new();
    let asked = campaign(&scene.hears(at(0), Event::TermSeen(7)));
    let mut actions = scene.answered(at(0), asked, Answer::Campaign(Campaigned::Won(7)));
    let mut rests = Vec::new();
    for _ in 0..8 {
        assert!(actions.contains(&Action::Notice(Notice::TermTooLow { term: 7, seen: 7 })), "{actions:?}");
        assert!(!actions.iter().any(|action| matches!(action, Action::Renew(_))), "{actions:?}");
        let (asked, now) = (release(&actions), scene.now);
        scene.answered(now, asked, Answer::Release(true));
        let due = scene.candidate.wake_at();
        rests.push(due.since(now));
        let asked = campaign(&scene.ticks(due));
        actions = scene.answered(due, asked, Answer::Campaign(Campaigned::Won(7)));
    }
    assert!(rests[0] <= ms(500), "{rests:?}");
    assert_eq!(rests.last(), Some(&ms(10_000)), "no more than a ttl: {rests:?}");
    // One that is above all of them is led in.
    let (asked, now) = (release(&actions), scene.now);
    scene.answered(now, asked, Answer::Release(true));
    let due = scene.candidate.wake_at();
    let asked = campaign(&scene.ticks(due));
    renewal(&scene.answered(due, asked, Answer::Campaign(Campaigned::Won(8))));
    assert_eq!(scene.candidate.phase(), Phase::Verifying);
}

#[test]
fn nobody_leads_twice_in_one_term_nor_after_a_higher_one_was_seen() {
    let mut scene = Scene::new();
    scene.leads();
    scene.hears(at(1), Event::Ousted { term: 7 });
    scene.hears(at(1), Event::Keeper(FromKeeper::Empty { run: 1 }));
    let due = scene.candidate.wake_at();
    let asked = campaign(&scene.ticks(due));
    let actions = scene.answered(due, asked, Answer::Campaign(Campaigned::Won(7)));
    assert!(actions.contains(&Action::Notice(Notice::TermTooLow { term: 7, seen: 7 })), "{actions:?}");

    // Seen while the win was being verified. The same term of another candidate is no better than a higher one (S1).
    for seen in [7, 9] {
        let mut scene = Scene::new();
        let verifying = scene.wins();
        scene.hears(at(0), Event::TermSeen(seen));
        let actions = scene.credited(at(0), verifying, at(0));
        assert!(actions.contains(&Action::Notice(Notice::TermTooLow { term: 7, seen })), "{actions:?}");
        release(&actions);
    }
}

/// T1, T3: the store holds the others off for no longer than it says, whatever lease was granted before.
#[test]
fn a_renewal_that_is_granted_for_too_short_a_time_brings_the_kill_forward() {
    let short = |sent| Answer::Renew(Renewed::Credited { sent, ttl: Some(ms(1_000)) });
    let mut scene = Scene::new();
    scene.leads();
    let due = scene.candidate.wake_at();
    let renewing = renewal(&scene.ticks(due));
    // The last lease would let it live until 8.5 s. This one ends 1 s after the request, less margin and allowance.
    let kill_at = due + ms(250);
    assert!(scene.answered(due, renewing, short(due)).contains(&Action::Stop { kill_at }));
    assert!(!scene.ticks(kill_at - ms(1)).contains(&Action::Kill));
    assert!(scene.ticks(kill_at).contains(&Action::Kill));

    // The same while the command has its stop time-out.
    let mut scene = Scene::new();
    scene.leads();
    let due = scene.candidate.wake_at();
    let renewing = renewal(&scene.ticks(due));
    scene.hears(due, Event::Stop(Signal(15)));
    scene.answered(due, renewing, short(due));
    let kill_at = scene.candidate.wake_at();
    assert_eq!(kill_at, due + ms(250));
    assert!(scene.ticks(kill_at).contains(&Action::Kill));
}

#[test]
fn with_no_wait_a_term_that_is_too_low_is_a_no() {
    let policy = Policy { campaign_limit: CampaignLimit::For(Duration::ZERO), ..Policy::default() };
    let mut scene = Scene::wishing(policy);
    let asked = campaign(&scene.hears(at(0), Event::TermSeen(7)));
    let actions = scene.answered(at(0), asked, Answer::Campaign(Campaigned::Won(7)));
    let mut actions = scene.answered(at(0), release(&actions), Answer::Release(true));
    while scene.candidate.phase() != Phase::Ended {
        let due = scene.candidate.wake_at();
        actions = scene.ticks(due);
        if let Some(Action::Release(asked)) = actions.iter().find(|action| matches!(action, Action::Release(_))) {
            let asked = *asked;
            actions = scene.answered(due, asked, Answer::Release(true));
        }
    }
    assert_eq!(actions.last(), Some(&Action::End(Outcome::NotElected)), "{actions:?}");
}

#[test]
fn a_signal_is_passed_on_once_there_is_a_main_process_to_take_it() {
    let usr1 = Signal(10);
    let mut scene = Scene::new();
    let verifying = scene.wins();
    assert_eq!(scene.hears(at(0), Event::Forward(usr1)), []);
    scene.credited(at(0), verifying, at(0));
    assert_eq!(scene.hears(at(0), Event::Forward(usr1)), [], "not started yet");
    assert_eq!(scene.hears(at(0), Event::Forward(usr1)), [], "kept once");
    let actions = scene.hears(at(0), Event::Keeper(FromKeeper::Started { run: 1, pid: 4711 }));
    assert_eq!(actions.last(), Some(&Action::Forward(usr1)), "what was kept comes after the start: {actions:?}");
    assert_eq!(actions.iter().filter(|action| matches!(action, Action::Forward(_))).count(), 1);
    assert_eq!(scene.hears(at(0), Event::Forward(usr1)), [Action::Forward(usr1)]);
    scene.hears(at(1), Event::Stop(TERM));
    assert_eq!(scene.hears(at(1), Event::Forward(usr1)), [Action::Forward(usr1)]);
}

#[test]
fn a_dead_keepers_tree_is_swept_until_nothing_is_left_and_then_released() {
    let mut scene = Scene::new();
    scene.leads();
    let actions = scene.hears(at(100), Event::KeeperDied);
    assert!(actions.contains(&Action::Sweep), "{actions:?}");
    assert_eq!(scene.hears(at(100), Event::Swept { empty: false }), []);
    // The keeper is dead: what was still in its socket confirms nothing.
    let again = scene.candidate.wake_at();
    assert!(again > at(100) && again <= at(110), "{again:?}");
    assert!(scene.ticks(again).contains(&Action::Sweep));
    let asked = release(&scene.hears(again, Event::Swept { empty: true }));
    let actions = scene.answered(again, asked, Answer::Release(true));
    assert_eq!(actions.last(), Some(&Action::End(Outcome::KeeperDied)));
}

#[test]
fn a_sweep_means_nothing_while_the_keeper_lives() {
    let mut scene = Scene::new();
    scene.leads();
    scene.hears(at(100), Event::Stop(TERM));
    assert_eq!(scene.hears(at(101), Event::Swept { empty: true }), []);
    assert_eq!(scene.candidate.phase(), Phase::Stopping);
}

#[test]
fn a_lease_only_moves_forward() {
    let mut scene = Scene::new();
    scene.leads();
    let asked = renewal(&scene.ticks(at(2_000)));
    // Counted from a sending that is not later than that of the lease we have: no news.
    let actions = scene.credited(at(2_001), asked, at(0));
    assert!(!actions.iter().any(|action| matches!(action, Action::Arm { .. })), "{actions:?}");
    let asked = renewal(&actions);
    let actions = scene.credited(at(2_002), asked, at(2_001));
    assert!(actions.iter().any(|action| matches!(action, Action::Arm { .. })), "{actions:?}");
}
