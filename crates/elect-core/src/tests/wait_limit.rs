//! The campaign limit, and what follows a leadership that was lost.

use super::*;

const BEHIND: Answer = Answer::Campaign(Campaigned::Waiting { again: None, decided: true });
const FAILED: Answer = Answer::Campaign(Campaigned::Failed);
const EXITED: CommandEnd = CommandEnd::Exited(3);

fn at_most(limit: Duration, on_lost: OnLost) -> Scene {
    Scene::wishing(Policy { campaign_limit: CampaignLimit::For(limit), on_lost, ..Policy::default() })
}

/// `--no-wait`, or `--wait` with a duration.
fn waiting(limit: Duration) -> Scene {
    at_most(limit, OnLost::End)
}

/// `--on-lost`, and no end to waiting.
fn after_loss(on_lost: OnLost) -> Scene {
    Scene::wishing(Policy { on_lost, ..Policy::default() })
}

impl Scene {
    fn asks(&mut self, now: Time) -> Attempt {
        campaign(&self.ticks(now))
    }

    fn keeper_says(&mut self, now: Time, word: FromKeeper) -> Vec<Action> {
        self.hears(now, Event::Keeper(word))
    }

    /// Lets time pass, with the same answer to every question, until it is standing no longer. A keeper answers.
    fn stands_with(&mut self, answer: Answer) -> Vec<Action> {
        for _ in 0..1_000 {
            let now = self.candidate.wake_at();
            let mut actions = self.ticks(now);
            if let Some(Action::Campaign(asked)) = actions.iter().find(|one| matches!(one, Action::Campaign(_))) {
                actions = self.answered(now, *asked, answer);
            }
            if self.candidate.phase() != Phase::Campaigning {
                return actions;
            }
        }
        panic!("it stands for ever");
    }

    /// Has won, and hears nothing more of it.
    fn verifies_in_vain(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        while self.candidate.phase() == Phase::Verifying {
            actions = self.ticks(self.candidate.wake_at());
        }
        actions
    }

    /// It has just given up for this reason: what the store may hold is given back, and that is the end.
    #[track_caller]
    fn ends_giving_up(&mut self, actions: &[Action], report: &Notice, outcome: Outcome) {
        let reported = actions.iter().position(|action| *action == Action::Notice(report.clone()));
        let released = actions.iter().position(|action| matches!(action, Action::Release(_)));
        assert!(reported.is_some() && reported < released, "{actions:?}");
        assert_eq!(self.candidate.phase(), Phase::Releasing);
        let actions = self.answered(self.now, release(actions), Answer::Release(true));
        assert_eq!(actions.last(), Some(&Action::End(outcome)), "{actions:?}");
    }

    #[track_caller]
    fn ends_not_elected(&mut self, actions: &[Action]) {
        self.ends_giving_up(actions, &Notice::NotElected, Outcome::NotElected);
    }

    #[track_caller]
    fn ends_unavailable(&mut self, actions: &[Action]) {
        self.ends_giving_up(actions, &Notice::Unavailable, Outcome::Unavailable);
    }
}

#[test]
fn with_no_wait_the_first_no_is_the_end_and_the_place_is_given_back() {
    // Another candidate leads; or none does, and a record has to be waited for.
    for again in [None, Some(ms(0)), Some(ms(3_000))] {
        let mut scene = waiting(ms(0));
        let asked = scene.asks(at(0));
        assert_eq!(scene.ticks(at(5)), [], "the question has its time");
        let actions = scene.answered(at(6), asked, Answer::Campaign(Campaigned::Waiting { again, decided: true }));
        scene.ends_not_elected(&actions);
    }
}

#[test]
fn with_no_wait_a_question_that_is_not_settled_is_asked_until_it_is() {
    let undecided = |left| Answer::Campaign(Campaigned::Waiting { again: Some(left), decided: false });
    let mut scene = waiting(ms(0));
    let asked = scene.asks(at(0));
    assert_eq!(scene.answered(at(6), asked, undecided(ms(10_000))), []);
    // It looks again at the usual pace, and goes as soon as it is known that somebody leads.
    assert_eq!(scene.candidate.wake_at(), at(2_006));
    let asked = scene.asks(at(2_006));
    assert_eq!(scene.answered(at(2_007), asked, undecided(ms(700))), []);
    assert_eq!(scene.candidate.wake_at(), at(2_707));
    let asked = scene.asks(at(2_707));
    let actions = scene.answered(at(2_708), asked, BEHIND);
    scene.ends_not_elected(&actions);
    // No other candidate leads.
    let mut scene = waiting(ms(0));
    let asked = scene.asks(at(0));
    scene.answered(at(6), asked, undecided(ms(1_000)));
    let asked = scene.asks(at(1_006));
    scene.answered(at(1_007), asked, Answer::Campaign(Campaigned::Won(7)));
    assert_eq!(scene.candidate.phase(), Phase::Verifying);
    // The store falls silent.
    let mut scene = waiting(ms(0));
    let asked = scene.asks(at(0));
    scene.answered(at(6), asked, undecided(ms(1_000)));
    let asked = scene.asks(at(1_006));
    let actions = scene.answered(at(1_007), asked, FAILED);
    scene.ends_unavailable(&actions);
}

#[test]
fn whoever_waits_for_so_long_waits_no_longer_for_what_is_not_settled() {
    let mut scene = waiting(ms(3_000));
    let actions = scene.stands_with(Answer::Campaign(Campaigned::Waiting { again: None, decided: false }));
    assert_eq!(scene.now, at(3_000));
    scene.ends_not_elected(&actions);
}

/// T6: connecting takes as many attempts as it needs, and is no answer.
#[test]
fn with_no_wait_connecting_does_not_count_as_the_one_attempt() {
    let connecting = || {
        let (mut scene, mut now) = (waiting(ms(0)), at(0));
        for _ in 0..5 {
            let asked = scene.asks(now);
            assert_eq!(scene.answered(now, asked, Answer::Campaign(Campaigned::Connecting)), []);
            assert_eq!(scene.candidate.phase(), Phase::Campaigning);
            now = scene.candidate.wake_at();
        }
        scene
    };
    let mut scene = connecting();
    let actions = scene.stands_with(BEHIND);
    scene.ends_not_elected(&actions);
    let mut scene = connecting();
    let actions = scene.stands_with(FAILED);
    scene.ends_unavailable(&actions);
    // The first answer is a refusal: it is final.
    let mut scene = connecting();
    let actions = scene.stands_with(Answer::Campaign(Campaigned::Refused));
    assert_eq!(actions.last(), Some(&Action::End(Outcome::Refused)), "{actions:?}");
}

#[test]
fn a_bounded_wait_ends_unavailable_if_connecting_takes_longer() {
    let mut scene = waiting(Duration::from_secs(5));
    let actions = scene.stands_with(Answer::Campaign(Campaigned::Connecting));
    scene.ends_unavailable(&actions);
}

#[test]
fn with_no_wait_a_first_attempt_that_fails_is_the_end_as_well() {
    let mut scene = waiting(ms(0));
    let asked = scene.asks(at(0));
    let actions = scene.answered(at(6), asked, FAILED);
    scene.ends_unavailable(&actions);
    // Silence is a failure once the attempt's time is up.
    let mut scene = waiting(ms(0));
    scene.asks(at(0));
    assert_eq!(scene.candidate.wake_at(), at(1_000));
    assert_eq!(scene.ticks(at(999)), []);
    let actions = scene.ticks(at(1_000));
    scene.ends_unavailable(&actions);
}

#[test]
fn a_place_that_cannot_be_given_back_is_left_to_its_lease_in_bounded_time() {
    let mut scene = waiting(ms(0));
    let asked = scene.asks(at(0));
    scene.answered(at(6), asked, FAILED);
    let mut last = Vec::new();
    while scene.candidate.phase() == Phase::Releasing {
        last = scene.ticks(scene.candidate.wake_at());
    }
    assert_eq!((scene.now, last), (at(3_006), vec![Action::End(Outcome::Unavailable)]));
}

#[test]
fn whoever_stops_a_candidate_that_is_giving_up_means_at_once() {
    let mut scene = waiting(ms(0));
    let asked = scene.asks(at(0));
    scene.answered(at(6), asked, BEHIND);
    assert_eq!(scene.hears(at(7), Event::Stop(TERM)), [Action::End(Outcome::NotElected)]);
}

#[test]
fn a_refusal_at_the_start_is_one_however_short_the_limit() {
    for limit in [0, 5_000] {
        let mut scene = waiting(ms(limit));
        let asked = scene.asks(at(0));
        let actions = scene.answered(at(1), asked, Answer::Campaign(Campaigned::Refused));
        assert_eq!(actions, [Action::End(Outcome::Refused)]);
    }
    // Later it is a trouble like others.
    let mut scene = waiting(ms(5_000));
    let asked = scene.asks(at(0));
    scene.answered(at(1), asked, BEHIND);
    let actions = scene.stands_with(Answer::Campaign(Campaigned::Refused));
    scene.ends_unavailable(&actions);
}

#[test]
fn a_win_is_verified_whatever_the_limit() {
    for limit in [0, 100] {
        let mut scene = waiting(ms(limit));
        let mut verifying = scene.wins();
        for _ in 0..3 {
            scene.answered(scene.now, verifying, Answer::Renew(Renewed::Failed));
            verifying = renewal(&scene.ticks(scene.candidate.wake_at()));
        }
        assert!(scene.now > at(100), "{:?}", scene.now);
        let sent = scene.now;
        let actions = scene.credited(sent, verifying, sent);
        assert!(actions.contains(&Action::Start { program: COMMAND, run: 1 }), "{actions:?}");
    }
}

#[test]
fn with_no_wait_a_win_that_is_lost_again_is_a_no() {
    for word in [None, Some(Event::Ousted { term: 7 })] {
        let mut scene = waiting(ms(0));
        let verifying = scene.wins();
        let lost = word.unwrap_or(Event::Answer { attempt: verifying, answer: Answer::Renew(Renewed::Lost) });
        let actions = scene.hears(at(10), lost);
        scene.ends_not_elected(&actions);
    }
}

#[test]
fn with_no_wait_a_win_that_nobody_confirms_is_given_back_and_the_end() {
    let mut scene = waiting(ms(0));
    scene.wins();
    let actions = scene.verifies_in_vain();
    assert_eq!(scene.now, at(10_000), "the whole verification timeout");
    assert!(actions.contains(&Action::Notice(Notice::Unavailable)), "{actions:?}");
    let actions = scene.answered(scene.now, release(&actions), Answer::Release(true));
    let expected = [Action::Notice(Notice::Released { term: 7 }), Action::End(Outcome::Unavailable)];
    assert_eq!(actions, expected);
}

#[test]
fn a_bounded_wait_ends_to_the_moment_with_the_stores_last_word() {
    let mut scene = waiting(ms(5_000));
    let actions = scene.stands_with(BEHIND);
    assert_eq!(scene.now, at(5_000), "counted from the first question");
    scene.ends_not_elected(&actions);

    let mut scene = waiting(ms(5_000));
    let actions = scene.stands_with(FAILED);
    assert_eq!(scene.now, at(5_000));
    scene.ends_unavailable(&actions);

    for (words, available) in [([BEHIND, FAILED], false), ([FAILED, BEHIND], true)] {
        let mut scene = waiting(ms(3_000));
        let asked = scene.asks(at(0));
        scene.answered(at(0), asked, words[0]);
        let asked = scene.asks(at(2_000));
        scene.answered(at(2_001), asked, words[1]);
        let actions = scene.ticks(at(3_000));
        if available {
            scene.ends_not_elected(&actions);
        } else {
            scene.ends_unavailable(&actions);
        }
    }
}

#[test]
fn a_bounded_wait_counts_from_the_first_question_and_not_from_boot() {
    let mut scene = waiting(ms(5_000));
    let asked = scene.asks(at(60_000));
    scene.answered(at(60_001), asked, BEHIND);
    let actions = scene.stands_with(BEHIND);
    assert_eq!(scene.now, at(65_000));
    scene.ends_not_elected(&actions);
}

#[test]
fn a_question_that_is_under_way_at_the_end_of_a_wait_is_not_waited_for() {
    let mut scene = waiting(ms(2_500));
    let asked = scene.asks(at(0));
    scene.answered(at(1), asked, BEHIND);
    let asked = scene.asks(at(2_001));
    assert_eq!(scene.candidate.wake_at(), at(2_500), "before the attempt's own time is up");
    // A possible win is released; its answer belongs to no attempt by then, even if it arrives at that moment.
    let won = Event::Answer { attempt: asked, answer: Answer::Campaign(Campaigned::Won(7)) };
    let actions = scene.hears(at(2_500), won);
    scene.ends_not_elected(&actions);
}

#[test]
fn a_first_question_has_its_time_even_if_the_limit_is_shorter() {
    for (answer, phase) in [
        (BEHIND, Phase::Releasing),
        (Answer::Campaign(Campaigned::Won(7)), Phase::Verifying),
        (FAILED, Phase::Releasing),
    ] {
        let mut scene = waiting(ms(200));
        let asked = scene.asks(at(0));
        assert_eq!(scene.candidate.wake_at(), at(1_000));
        assert_eq!(scene.ticks(at(300)), []);
        scene.answered(at(800), asked, answer);
        assert_eq!(scene.candidate.phase(), phase, "{answer:?}");
    }
}

#[test]
fn a_wait_that_has_begun_goes_on_after_a_win_that_came_to_nothing() {
    // Lost before the limit: the candidate campaigns again, and the last answer of the store is kept until the end.
    let mut scene = waiting(ms(900));
    let verifying = scene.wins();
    scene.answered(at(800), verifying, Answer::Renew(Renewed::Lost));
    assert_eq!((scene.candidate.phase(), scene.candidate.wake_at()), (Phase::Campaigning, at(900)));
    let actions = scene.ticks(at(900));
    scene.ends_not_elected(&actions);
    // The same where the store fell silent.
    let mut scene = waiting(ms(10_100));
    scene.wins();
    let actions = scene.verifies_in_vain();
    scene.answered(at(10_000), release(&actions), Answer::Release(true));
    assert_eq!((scene.candidate.phase(), scene.candidate.wake_at()), (Phase::Campaigning, at(10_100)));
    let actions = scene.ticks(at(10_100));
    scene.ends_unavailable(&actions);
}

#[test]
fn an_unlimited_wait_has_no_end() {
    let mut scene = Scene::new();
    for answer in [BEHIND, FAILED] {
        for _ in 0..1_000 {
            let asked = scene.asks(scene.candidate.wake_at());
            assert_eq!(scene.answered(scene.now, asked, answer), []);
        }
    }
    assert_eq!(scene.candidate.phase(), Phase::Campaigning);
}

/// A way to lose a leadership.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loss {
    Answered,
    Ousted,
    RanOut,
    Expired,
}

impl Scene {
    fn loses(&mut self, loss: Loss) {
        match loss {
            Loss::Answered => {
                let asked = renewal(&self.ticks(at(2_000)));
                self.answered(at(2_001), asked, Answer::Renew(Renewed::Lost));
            }
            Loss::Ousted => drop(self.hears(at(100), Event::Ousted { term: 7 })),
            Loss::RanOut => {
                while self.candidate.phase() == Phase::Leading {
                    self.ticks(self.candidate.wake_at());
                }
            }
            Loss::Expired => drop(self.keeper_says(at(100), FromKeeper::Expired { term: 7 })),
        }
        assert_eq!(self.candidate.phase(), Phase::Stopping, "{loss:?}");
    }
}

#[test]
fn a_lost_leadership_is_the_end_where_that_is_wished_and_a_new_stand_where_not() {
    for loss in [Loss::Answered, Loss::Ousted, Loss::RanOut, Loss::Expired] {
        for on_lost in [OnLost::End, OnLost::Recampaign] {
            let mut scene = after_loss(on_lost);
            scene.leads();
            scene.loses(loss);
            // The command ends because it was told to: its status is not what this is about.
            scene.keeper_says(scene.now, FromKeeper::Exited { run: 1, end: EXITED });
            let mut actions = scene.keeper_says(scene.now, FromKeeper::Empty { run: 1 });
            // The release of what the store may still hold comes first.
            if matches!(loss, Loss::RanOut | Loss::Expired) {
                assert_eq!(scene.candidate.phase(), Phase::Releasing, "{loss:?}");
                actions = scene.answered(scene.now, release(&actions), Answer::Release(true));
            }
            let ended = actions.contains(&Action::End(Outcome::LeadershipLost));
            assert_eq!(ended, on_lost == OnLost::End, "{loss:?}: {actions:?}");
            let phase = if ended { Phase::Ended } else { Phase::Campaigning };
            assert_eq!(scene.candidate.phase(), phase, "{loss:?}");
        }
    }
}

#[test]
fn a_leadership_that_is_lost_while_stopping_ends_as_the_stop_would_have() {
    // Asked to stop, then lost; lost, then asked to stop.
    for first in [true, false] {
        let mut scene = after_loss(OnLost::End);
        scene.leads();
        let events = [Event::Stop(TERM), Event::Ousted { term: 7 }];
        scene.hears(at(100), events[usize::from(!first)]);
        scene.hears(at(101), events[usize::from(first)]);
        scene.keeper_says(at(102), FromKeeper::Exited { run: 1, end: EXITED });
        let actions = scene.keeper_says(at(103), FromKeeper::Empty { run: 1 });
        assert_eq!(actions, [Action::End(Outcome::Command(EXITED))]);
    }
    // The command had ended by itself.
    let mut scene = after_loss(OnLost::End);
    scene.leads();
    scene.keeper_says(at(100), FromKeeper::Exited { run: 1, end: EXITED });
    scene.hears(at(101), Event::Ousted { term: 7 });
    let actions = scene.keeper_says(at(102), FromKeeper::Empty { run: 1 });
    assert_eq!(actions, [Action::End(Outcome::Command(EXITED))]);
}

#[test]
fn a_leadership_that_is_given_up_because_nothing_could_start_is_lost_too() {
    let mut scene = after_loss(OnLost::End);
    let verifying = scene.wins();
    scene.credited(at(0), verifying, at(0));
    let mut run = 1;
    let too_late = |run| FromKeeper::NotStarted { run, why: NotStarted::TooLate };
    let mut actions = scene.keeper_says(at(0), too_late(run));
    while scene.candidate.phase() == Phase::Leading {
        if let Some(Action::Renew(asked)) = actions.iter().find(|action| matches!(action, Action::Renew(_))) {
            scene.keeper_says(scene.now, FromKeeper::Empty { run });
            scene.credited(scene.now, *asked, scene.now);
            run += 1;
            scene.keeper_says(scene.now, too_late(run));
        }
        actions = scene.ticks(scene.candidate.wake_at());
    }
    let actions = scene.keeper_says(scene.now, FromKeeper::Empty { run });
    let actions = scene.answered(scene.now, release(&actions), Answer::Release(true));
    assert_eq!(actions.last(), Some(&Action::End(Outcome::LeadershipLost)));
}

#[test]
fn after_a_leadership_the_limit_starts_again_with_the_first_question() {
    for limit in [5_000, 0] {
        let mut scene = at_most(ms(limit), OnLost::Recampaign);
        scene.leads();
        scene.hears(at(6_000), Event::Ousted { term: 7 });
        scene.keeper_says(at(60_000), FromKeeper::Exited { run: 1, end: EXITED });
        scene.keeper_says(at(60_000), FromKeeper::Empty { run: 1 });
        assert_eq!(scene.candidate.phase(), Phase::Campaigning);
        let first = scene.candidate.wake_at();
        assert!(first >= at(60_250) && first <= at(60_500), "B: {first:?}");
        let asked = scene.asks(first);
        assert_eq!(scene.candidate.wake_at(), first + ms(1_000), "the first question has its time");
        let mut actions = scene.answered(first, asked, BEHIND);
        if limit > 0 {
            actions = scene.stands_with(BEHIND);
        }
        assert_eq!(scene.now, first + ms(limit));
        scene.ends_not_elected(&actions);
    }
}
