//! Winning, waiting, renewing and releasing, with nothing that goes wrong.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{StoreUnderTest, TestCandidate};
use crate::store::{Detail, Observation, RenewResult};
use elect_core::boundary::Boundary;
use elect_keeper::clock;

pub async fn a_candidate_alone_wins_and_its_renewal_is_credited(site: &StoreUnderTest) {
    let mut one = site.player("alone", "one");
    assert_eq!(one.leader().await, None);
    let term = one.win().await;
    assert!(term > 0);
    one.renews().await;
    let seen = one.store.observe(&one.candidacy.boundary).await.expect("looked").leader.expect("a leader");
    let identity = &one.candidacy.identity;
    assert_eq!(
        (&seen.id, &seen.name, seen.host.as_ref(), seen.port),
        (&identity.id, &identity.name, Some(&identity.host), identity.port)
    );
    assert_eq!(seen.term, Some(term));
    assert!(seen.since.is_some());
    one.release().await;
    assert_eq!(one.leader().await, None);
    assert!(one.win().await > term, "its own second term is larger too");
    one.release().await;
}

/// S1: a boundary may move from any store to any other.
pub async fn terms_are_not_below_the_wall_clock_in_milliseconds(site: &StoreUnderTest) {
    let before = clock::wall_millis();
    let mut one = site.player("wall-clock", "one");
    let term = one.win().await;
    one.renews().await;
    assert!(term >= before, "term {term} is below the time of {before} ms before it was won");
    assert!(term <= clock::wall_millis() + 1, "term {term} is beyond the wall clock, although no larger one was seen");
    one.release().await;
}

pub async fn a_second_candidate_waits_knows_the_leader_and_follows_with_a_larger_term(site: &StoreUnderTest) {
    let (mut one, mut two) = (site.player("two", "one"), site.player("two", "two"));
    let first = one.win().await;
    one.renews().await;
    assert_eq!(two.waits_for().await.as_deref(), Some("one"));
    one.release().await;
    let second = two.win().await;
    two.renews().await;
    assert!(second > first, "{second} after {first}");
    assert_eq!(one.waits_for().await.as_deref(), Some("two"));
    assert_eq!(one.leader().await.as_deref(), Some("two"));
    one.release().await;
    two.release().await;
}

pub async fn asking_again_after_winning_gives_the_same_term(site: &StoreUnderTest) {
    let mut one = site.player("again", "one");
    let term = one.win().await;
    assert_eq!(one.win().await, term, "the answer may have been lost on its way");
    one.renews().await;
    one.release().await;
}

pub async fn a_renewal_without_a_win_is_lost_and_a_release_without_one_disturbs_no_leader(site: &StoreUnderTest) {
    let (mut one, mut two) = (site.player("strangers", "one"), site.player("strangers", "two"));
    one.win().await;
    one.renews().await;
    two.has_lost().await;
    two.release().await;
    two.release().await;
    one.renews().await;
    assert_eq!(two.leader().await.as_deref(), Some("one"));
    one.release().await;
    assert!(
        matches!(one.store.renew(&one.candidacy).await, Ok(RenewResult::Lost { .. })),
        "released is not ours any more"
    );
}

pub async fn a_waiter_that_gave_up_takes_nothing_later(site: &StoreUnderTest) {
    let (mut one, mut two) = (site.player("gave-up", "one"), site.player("gave-up", "two"));
    one.win().await;
    one.renews().await;
    two.waits_for().await;
    two.release().await;
    one.release().await;
    let mut three = site.player("gave-up", "three");
    three.win().await;
    three.renews().await;
    assert_eq!(two.leader().await.as_deref(), Some("three"));
    three.release().await;
}

pub async fn a_claim_gives_back_what_a_dead_campaigner_held_leading_or_waiting(site: &StoreUnderTest) {
    let (mut one, mut two) = (site.player("claims", "one"), site.player("claims", "two"));
    let mut three = site.player("claims", "three");
    let first = one.win().await;
    one.renews().await;
    two.waits_for().await;
    three.waits_for().await;
    // The waiter's campaigner dies first, then the leader's; both keepers give back what they have a claim to.
    two.dies(site).await;
    one.dies(site).await;
    assert!(three.win().await > first);
    three.renews().await;
    three.release().await;
}

/// The keeper has the claim before the first request is sent (K2), so a campaigner may die between the two.
pub async fn a_claim_without_a_campaign_takes_nothing_and_gives_back_nothing(site: &StoreUnderTest) {
    let name = "claim-alone";
    let mut early = site.player(name, "early");
    early.claims();
    early.dies(site).await;
    let mut leader = site.player(name, "leader");
    assert_eq!(leader.leader().await, None, "a claim is no candidacy");
    let term = leader.win().await;
    leader.renews().await;
    // Beside a leader, and of a candidate that was once given one before.
    for turn in 0..2 {
        let mut late = site.player(name, "late");
        late.claims();
        if turn == 1 {
            late.claims();
        }
        late.dies(site).await;
        leader.renews().await;
    }
    let seen = leader.store.observe(&leader.candidacy.boundary).await.expect("looked").leader.expect("a leader");
    assert_eq!((seen.id, seen.term), (leader.candidacy.identity.id.clone(), Some(term)));
    leader.release().await;
    let mut next = site.player(name, "next");
    assert!(next.win().await > term);
    next.renews().await;
    next.release().await;
}

/// 80 bytes are the most that a boundary's name has.
pub async fn boundaries_with_similar_names_are_different_boundaries(site: &StoreUnderTest) {
    let long = "l".repeat(elect_core::boundary::LONGEST);
    let long_below = format!("{}/", "l".repeat(elect_core::boundary::LONGEST - 1));
    let wide = "ü€".repeat(elect_core::boundary::LONGEST / 5);
    let mut names = vec![
        "n",
        "n/m",
        "n2",
        "n.json",
        ".n",
        "N",
        "n m",
        "ñ",
        "n%2Fm",
        "n*",
        "n?",
        "[n]",
        "[n",
        "n[^m]",
        "*",
        "?",
        "n\\m",
        "n/",
        "/n",
        "..",
        "$n",
        "{n}",
        "n:m",
        "'n\"",
        "~n",
        "elect.term",
    ];
    names.extend([long.as_str(), &long_below, &wide]);
    let mut players: Vec<TestCandidate> = names.iter().map(|name| site.player(name, name)).collect();
    // A store that is observed wants to be looked at for a while, and all of them can do that at once.
    for player in &mut players {
        // Until the last one has renewed.
        player.candidacy.ttl = site.ttl * 3;
        player.ask().await;
    }
    for player in &mut players {
        player.win().await;
        player.renews().await;
    }
    for (player, name) in players.iter_mut().zip(&names) {
        assert_eq!(player.leader().await.as_deref(), Some(*name));
    }
    let known = players[0].store.boundaries().await.expect("listed");
    let known: BTreeSet<&str> = known.iter().map(Boundary::as_str).collect();
    assert!(names.iter().all(|name| known.contains(name)), "{known:?}");
    let seen = players[0].store.observe_all(Detail::Leader).await.expect("surveyed");
    for (player, name) in players.iter().zip(&names) {
        let (_, observation) = seen.iter().find(|(boundary, _)| boundary.as_str() == *name).expect("it is there");
        let leader = observation.as_ref().expect("an observation").leader.as_ref();
        assert_eq!(leader.map(|leader| &leader.id), Some(&player.candidacy.identity.id), "{name}");
    }
    for player in &mut players {
        player.release().await;
    }
    for (player, name) in players.iter_mut().zip(&names) {
        assert_eq!(player.leader().await, None, "{name}");
    }
}

pub async fn of_many_candidates_one_leads_at_a_time_and_terms_rise_through_every_hand_over(site: &StoreUnderTest) {
    let (sender, mut terms) = mpsc::unbounded_channel();
    let (turns, mut players) = (4, JoinSet::new());
    for number in 0..8 {
        let mut player = site.player("crowd", &format!("player {number}"));
        let sender = sender.clone();
        players.spawn_local(async move {
            for _ in 0..turns {
                let term = player.win().await;
                player.renews().await;
                sender.send((term, true)).expect("the test listens");
                tokio::task::yield_now().await;
                player.renews().await;
                sender.send((term, false)).expect("the test listens");
                player.release().await;
            }
        });
    }
    drop(sender);
    let (mut last, mut leading) = (0, None);
    loop {
        let (term, begins) = tokio::select! {
            biased;
            // One that has failed while it led is followed by another after its lease, and no two lead then.
            Some(ended) = players.join_next() => {
                ended.expect("a candidate that gets answers");
                continue;
            }
            told = terms.recv() => match told {
                Some(told) => told,
                None => break,
            },
        };
        if begins {
            assert_eq!(leading, None, "two lead");
            assert!(term > last, "{term} after {last}");
            (last, leading) = (term, Some(term));
        } else {
            assert_eq!(leading.take(), Some(term));
        }
    }
    assert!(last > 0);
}

pub async fn an_identity_comes_back_as_it_was_whatever_it_is_made_of(site: &StoreUnderTest) {
    let mut one = site.player("identity", "\"O'Brien\" <Ümläut> \\ {}\n");
    one.candidacy.identity.host = "fe80::1%eth0".to_owned();
    one.candidacy.identity.port = Some(65_535);
    one.win().await;
    one.renews().await;
    let seen = one.store.observe(&one.candidacy.boundary).await.expect("looked").leader.expect("a leader");
    assert_eq!(
        (seen.name, seen.host, seen.port),
        (one.candidacy.identity.name.clone(), Some("fe80::1%eth0".into()), Some(65_535))
    );
    one.release().await;
}

/// A proclamation is a renewal under another name and address: the id, the term and the beginning stay.
pub async fn a_renewal_renames_the_leader_in_its_own_record_alone(site: &StoreUnderTest) {
    let mut one = site.player("renamed", "one");
    let mut two = site.player("renamed", "two");
    let term = one.win().await;
    one.renews().await;
    let boundary = one.candidacy.boundary.clone();
    let before = two.store.observe(&boundary).await.expect("looked").leader.expect("a leader");
    for (name, host, port) in [("$renamed", "10.0.0.5", Some(9000)), ("x y", "[::1]", None), ("one", "h", Some(1))] {
        let identity = &mut one.candidacy.identity;
        (identity.name, identity.host, identity.port) = (name.to_owned(), host.to_owned(), port);
        one.renews().await;
        let seen = two.store.observe(&boundary).await.expect("looked").leader.expect("a leader");
        assert_eq!((seen.name.as_str(), seen.host.as_deref(), seen.port), (name, Some(host), port));
        assert_eq!((&seen.id, seen.term, seen.since), (&before.id, Some(term), before.since));
        assert_eq!(two.waits_for().await.as_deref(), Some(name), "{name}: as a waiter sees it");
    }
    one.release().await;
    two.win().await;
    two.renews().await;
    "too late".clone_into(&mut one.candidacy.identity.name);
    one.has_lost().await;
    assert_eq!(one.leader().await.as_deref(), Some("two"));
    two.renews().await;
    two.release().await;
}

pub async fn an_observer_sees_each_change_in_order_with_the_term_before_where_the_store_knows_it(
    site: &StoreUnderTest,
) {
    let mut observer = site.observer("observed");
    assert_eq!(observer.next().await.expect("an answer")[0].1.as_ref().expect("an observation").leader, None);
    let mut last = None;
    for name in ["one", "two", "three"] {
        let mut player = site.player("observed", name);
        let term = player.win().await;
        player.renews().await;
        let seen = super::sees(&mut observer, Some(name)).await;
        assert_eq!(seen.leader.expect("a leader").term, Some(term));
        // Known or not known, but not wrong.
        assert!(seen.previous_term.is_none() || seen.previous_term == last, "{:?}, not {last:?}", seen.previous_term);
        player.renews().await;
        player.release().await;
        let seen = super::sees(&mut observer, None).await;
        assert!(seen.previous_term.is_none_or(|previous_term| previous_term == term), "{seen:?}");
        last = Some(term);
    }
}

pub async fn a_survey_shows_of_each_boundary_what_a_look_at_it_does(site: &StoreUnderTest) {
    let mut players: Vec<TestCandidate> = ["s", "s/t", "s2"].iter().map(|name| site.player(name, name)).collect();
    // At once, as above.
    for player in &mut players[..2] {
        player.ask().await;
    }
    for player in &mut players[..2] {
        player.win().await;
        player.renews().await;
    }
    let mut second = site.player("s/t", "second");
    second.waits_for().await;
    let leader = |observation: &Observation| observation.leader.as_ref().map(|leader| (leader.id.clone(), leader.term));
    let mut store = site.store();
    for depth in [Detail::Leader, Detail::Lease] {
        for player in &mut players[..2] {
            player.renews().await;
        }
        let seen = store.observe_all(depth).await.expect("surveyed");
        assert!(seen.is_sorted_by_key(|(boundary, _)| boundary.clone()), "{seen:?}");
        for player in &players[..2] {
            let boundary = &player.candidacy.boundary;
            let (_, at_once) = seen.iter().find(|(each, _)| each == boundary).expect("it is there");
            let at_once = at_once.as_ref().expect("an observation");
            let alone = store.observe(boundary).await.expect("looked");
            assert_eq!((leader(at_once), &at_once.candidates), (leader(&alone), &alone.candidates));
            assert_eq!(leader(at_once).map(|(id, _)| id).as_ref(), Some(&player.candidacy.identity.id));
        }
    }
    for mut player in players.into_iter().chain([second]) {
        player.release().await;
    }
}

/// T1, from the inside: see `faults` for the time at which the request leaves.
pub async fn a_renewal_counts_from_after_it_was_asked_for_and_from_before_its_answer(site: &StoreUnderTest) {
    let mut one = site.player("sent", "one");
    let began = clock::now();
    one.win().await;
    if site.support.renews_with_take() {
        let first = one.store.renew(&one.candidacy).await;
        assert!(matches!(first, Ok(RenewResult::Credited { sent, .. }) if began <= sent && sent <= clock::now()));
    }
    let mut last = clock::now();
    for _ in 0..5 {
        let before = clock::now();
        let Ok(RenewResult::Credited { sent, ttl }) = one.store.renew(&one.candidacy).await else {
            panic!("not credited")
        };
        assert!(before <= sent && sent <= clock::now(), "{before:?} {sent:?}");
        assert!(last <= sent, "a credit does not go back");
        assert!(ttl.is_none_or(|ttl| ttl >= one.candidacy.ttl && ttl <= one.candidacy.ttl + Duration::from_secs(1)));
        last = sent;
    }
    one.release().await;
}
