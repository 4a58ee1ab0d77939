//! Control requests: an answer is true when it is given, and a resignation lets another candidate lead.

use super::*;

const WHO: RequestId = RequestId(1);

fn ask(term: Option<Term>) -> Event {
    Event::ConfirmLeadership { request_id: WHO, term }
}

fn yes(until: u64) -> Action {
    Action::Grant { request_id: WHO, term: Some(7), until: at(until) }
}

fn no(why: RequestError) -> Action {
    Action::Deny { request_id: WHO, why }
}

#[test]
fn a_question_is_answered_by_a_renewal_that_was_sent_after_it() {
    let mut scene = Scene::new();
    scene.leads();
    let asked = renewal(&scene.hears(at(100), ask(None)));
    // From the sending: 10 s less a second of margin, the kill allowance and the grace.
    let actions = scene.credited(at(150), asked, at(100));
    assert!(actions.contains(&yes(6_600)), "{actions:?}");
    assert!(
        !scene.hears(at(200), Event::Hint).iter().any(|action| matches!(action, Action::Renew(_))),
        "once is enough"
    );
}

#[test]
fn a_renewal_that_is_under_way_is_none() {
    let mut scene = Scene::new();
    scene.leads();
    let before = renewal(&scene.ticks(at(2_000)));
    assert_eq!(scene.hears(at(2_100), ask(Some(7))), []);
    let actions = scene.credited(at(2_200), before, at(2_000));
    assert!(!actions.contains(&yes(8_500)), "it says nothing about now: {actions:?}");
    let after = renewal(&actions);
    assert!(scene.credited(at(2_300), after, at(2_200)).contains(&yes(8_700)));
}

#[test]
fn a_renewal_that_fails_is_no_answer_and_the_end_of_the_term_is_one() {
    let mut scene = Scene::new();
    scene.leads();
    let asked = renewal(&scene.hears(at(100), ask(None)));
    assert_eq!(scene.answered(at(200), asked, Answer::Renew(Renewed::Failed)), []);
    let mut actions = Vec::new();
    while scene.now < at(6_500) {
        actions = scene.ticks(scene.candidate.wake_at());
        if let Some(Action::Renew(asked)) = actions.iter().find(|action| matches!(action, Action::Renew(_))) {
            actions = scene.answered(scene.now, *asked, Answer::Renew(Renewed::Failed));
        }
    }
    assert!(actions.contains(&no(RequestError::NotLeading)), "{actions:?}");
}

#[test]
fn the_end_of_a_lease_is_the_answer_to_whoever_waits() {
    for lost in [Event::Ousted { term: 7 }, Event::Keeper(FromKeeper::Expired { term: 7 })] {
        let mut scene = Scene::new();
        scene.leads();
        scene.hears(at(100), ask(None));
        assert!(scene.hears(at(200), lost).contains(&no(RequestError::NotLeading)), "{lost:?}");
    }
}

#[test]
fn whoever_does_not_lead_says_so_at_once() {
    let mut scene = Scene::new();
    assert!(scene.hears(at(0), ask(None)).contains(&no(RequestError::NotLeading)), "standing");
    let mut scene = Scene::new();
    scene.wins();
    assert!(scene.hears(at(0), ask(None)).contains(&no(RequestError::NotLeading)), "not verified");
    let mut scene = Scene::new();
    scene.leads();
    assert_eq!(scene.hears(at(1), ask(Some(6))), [no(RequestError::NotLeading)], "another term");
}

#[test]
fn a_command_that_was_asked_to_stop_still_leads_until_the_lease_is_lost() {
    let mut scene = Scene::new();
    scene.leads();
    scene.hears(at(100), Event::Stop(TERM));
    let asked = renewal(&scene.hears(at(200), ask(Some(7))));
    assert!(scene.credited(at(300), asked, at(200)).contains(&yes(6_700)));
    scene.ticks(at(6_700));
    assert!(scene.hears(at(6_800), ask(Some(7))).contains(&no(RequestError::NotLeading)), "4: over is over");
}

#[test]
fn after_the_keepers_deadline_nobody_is_told_that_we_lead() {
    let mut scene = Scene::new();
    scene.leads();
    scene.hears(at(100), Event::Stop(TERM));
    // The keeper was first, by its own clock; the lease as we count it has not run out.
    scene.hears(at(200), Event::Keeper(FromKeeper::Expired { term: 7 }));
    let actions = scene.hears(at(300), ask(None));
    assert!(actions.contains(&no(RequestError::NotLeading)), "{actions:?}");
    assert!(!actions.iter().any(|action| matches!(action, Action::Grant { .. })), "{actions:?}");
}

#[test]
fn a_host_that_was_frozen_answers_with_what_is_left_and_that_is_nothing() {
    let mut scene = Scene::new();
    scene.leads();
    let asked = renewal(&scene.hears(at(100), ask(None)));
    // The loop did not run for a minute, and the answer lay waiting.
    let actions = scene.credited(at(60_000), asked, at(100));
    assert!(actions.contains(&no(RequestError::NotLeading)), "{actions:?}");
    assert!(!actions.iter().any(|action| matches!(action, Action::Grant { .. })), "{actions:?}");
}

#[test]
fn a_leader_that_resigns_stops_its_command_releases_and_stands_again() {
    let mut scene = Scene::new();
    scene.leads();
    let actions = scene.hears(at(100), Event::Resign(WHO));
    assert!(actions.contains(&Action::Stop { kill_at: at(8_100) }), "{actions:?}");
    let end = CommandEnd::Killed { signal: TERM, escalated: false };
    scene.hears(at(200), Event::Keeper(FromKeeper::Exited { run: 1, end }));
    let released = release(&scene.hears(at(210), Event::Keeper(FromKeeper::Empty { run: 1 })));
    assert!(!scene.candidate.is_ending());
    let actions = scene.answered(at(220), released, Answer::Release(true));
    assert!(actions.contains(&Action::Grant { request_id: WHO, term: None, until: Time::NEVER }), "{actions:?}");
    assert_eq!(scene.candidate.phase(), Phase::Campaigning);
    // Behind the others: it does not ask again at once.
    let due = scene.candidate.wake_at();
    assert!(due >= at(470), "{due:?}");
    // The first hint is that of its own release.
    let actions = scene.hears(at(221), Event::Hint);
    assert!(!actions.iter().any(|action| matches!(action, Action::Campaign(_))), "{actions:?}");
    assert_eq!(scene.candidate.wake_at(), due);
}

#[test]
fn a_resignation_that_the_store_does_not_confirm_is_told_as_such() {
    let mut scene = Scene::new();
    scene.leads();
    scene.hears(at(100), Event::Resign(WHO));
    scene.hears(at(200), Event::Keeper(FromKeeper::Exited { run: 1, end: CommandEnd::Exited(0) }));
    let mut actions = scene.hears(at(210), Event::Keeper(FromKeeper::Empty { run: 1 }));
    while scene.candidate.phase() == Phase::Releasing {
        actions = scene.ticks(scene.candidate.wake_at());
    }
    assert!(actions.contains(&no(RequestError::NotReleased)), "{actions:?}");
}

#[test]
fn only_a_leader_can_resign_and_only_once() {
    let mut scene = Scene::new();
    assert!(scene.hears(at(0), Event::Resign(WHO)).contains(&no(RequestError::NotLeading)));
    let mut scene = Scene::new();
    scene.leads();
    scene.hears(at(100), Event::Stop(TERM));
    assert_eq!(scene.hears(at(200), Event::Resign(WHO)), [no(RequestError::Stopping)]);
}

#[test]
fn a_stop_overtakes_a_resignation() {
    let mut scene = Scene::new();
    scene.leads();
    scene.hears(at(100), Event::Resign(WHO));
    scene.hears(at(150), Event::Stop(TERM));
    assert!(!scene.candidate.is_ending(), "not yet");
    scene.hears(at(200), Event::Keeper(FromKeeper::Exited { run: 1, end: CommandEnd::Exited(0) }));
    let released = release(&scene.hears(at(210), Event::Keeper(FromKeeper::Empty { run: 1 })));
    assert!(scene.candidate.is_ending());
    let actions = scene.answered(at(220), released, Answer::Release(true));
    assert!(actions.contains(&Action::End(Outcome::Command(CommandEnd::Exited(0)))), "{actions:?}");
    assert!(actions.contains(&Action::Grant { request_id: WHO, term: None, until: Time::NEVER }), "{actions:?}");
}
