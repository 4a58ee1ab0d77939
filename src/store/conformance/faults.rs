//! Requests that are given up, answers that do not come, and writes that arrive when they are not expected any more.

use std::pin::pin;
use std::task::Poll;

use super::gate::{Gate, Trap};
use super::leases::{LONG, SHORT, was_led};
use super::{StoreUnderTest, TestCandidate};
use crate::store::{RenewResult, StoreError};
use elect_keeper::clock;

/// As often as a request of any store waits for something.
const AWAITS: usize = 12;

/// Polls so often, then drops the future, as the worker does when the time is up. Returns whether it was dropped.
async fn dropped_at<T>(awaits: usize, request: impl Future<Output = T>) -> bool {
    let mut request = pin!(request);
    let mut polls = 0;
    std::future::poll_fn(|context| {
        polls += 1;
        match request.as_mut().poll(context) {
            Poll::Ready(_) => Poll::Ready(false),
            Poll::Pending if polls > awaits => Poll::Ready(true),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// The request is caught on its way, and the worker gives it up.
async fn given_up<T>(gate: &Gate, request: impl Future<Output = T>) {
    tokio::select! {
        _ = request => panic!("it was answered although it was caught"),
        _ = gate.caught() => {}
    }
}

pub async fn a_request_that_is_dropped_at_any_await_is_found_by_the_next_question(site: &StoreUnderTest) {
    let name = "dropped";
    was_led(site, name).await;
    let (mut one, mut two) = (site.player(name, "one"), site.player(name, "two"));
    // A candidate that has released stands back for a part of it where others have to ask.
    let ttl = site.ttl.max(SHORT * 3);
    (one.candidacy.ttl, two.candidacy.ttl) = (ttl, ttl);
    let mut last = 0;
    for awaits in 0..AWAITS {
        one.claims();
        dropped_at(awaits, one.store.campaign(&one.candidacy)).await;
        // Another may have been quicker; otherwise it waits for whatever the first one has.
        if let Some(term) = two.wins_at_once().await {
            assert!(term > last, "{term} after {last}");
            last = term;
            two.renews().await;
            assert_eq!(one.waits_for().await.as_deref(), Some("two"));
        }
        two.release().await;
        let term = one.win().await;
        assert!(term > last, "{term} after {last}, dropped at await {awaits}");
        last = term;
        dropped_at(awaits, one.store.renew(&one.candidacy)).await;
        one.renews().await;
        assert!(two.wins_at_once().await.is_none(), "won beside a leader");
        two.release().await;
        one.renews().await;
        dropped_at(awaits, one.store.release(&one.candidacy)).await;
        if awaits % 2 == 0 {
            one.release().await;
            let term = two.win().await;
            assert!(term > last, "{term} after {last}");
            last = term;
            two.renews().await;
            two.release().await;
        } else {
            // It asks for the boundary instead: never again under the term that it has let go.
            let term = one.win().await;
            assert!(term > last, "{term} after {last}: a term that was let go came back");
            last = term;
            one.renews().await;
            one.release().await;
        }
    }
}

pub async fn a_write_whose_answer_is_lost_is_found_by_the_next_question(site: &StoreUnderTest) {
    let name = "lost-answer";
    was_led(site, name).await;
    let gate = Gate::to(site.address()).await;
    let (mut one, mut two) = (site.through(&gate).player(name, "one"), site.player(name, "two"));
    (one.candidacy.ttl, two.candidacy.ttl) = (LONG, LONG);
    "taken.example".clone_into(&mut one.candidacy.identity.host);
    gate.set(Trap::Mute, "taken.example");
    given_up(&gate, one.win()).await;
    let boundary = one.candidacy.boundary.clone();
    let written = two.store.observe(&boundary).await.expect("looked").leader;
    let term = one.win().await;
    if let Some(written) = written {
        assert_eq!(written.id, one.candidacy.identity.id);
        assert!(written.term.is_none_or(|written| written == term), "{written:?} was won, and then {term}");
    }
    one.renews().await;
    assert_eq!(two.waits_for().await.as_deref(), Some("one"));
    two.release().await;
    // A renewal.
    "renewed.example".clone_into(&mut one.candidacy.identity.host);
    gate.set(Trap::Mute, "renewed.example");
    given_up(&gate, one.store.renew(&one.candidacy)).await;
    one.renews().await;
    let seen = two.store.observe(&boundary).await.expect("looked").leader.expect("a leader");
    assert_eq!((seen.term, seen.host.as_deref()), (Some(term), Some("renewed.example")));
    // A release: it has arrived, and is asked for again.
    gate.set(Trap::Mute, one.in_every_request(site));
    given_up(&gate, one.store.release(&one.candidacy)).await;
    one.release().await;
    assert!(two.win().await > term);
    two.renews().await;
    one.has_lost().await;
    two.release().await;
}

pub async fn a_take_that_comes_late_takes_nothing(site: &StoreUnderTest) {
    let name = "late-take";
    was_led(site, name).await;
    let gate = Gate::to(site.address()).await;
    let (mut one, mut two) = (site.through(&gate).player(name, "one"), site.player(name, "two"));
    (one.candidacy.ttl, two.candidacy.ttl) = (LONG, LONG);
    "late.example".clone_into(&mut one.candidacy.identity.host);
    gate.set(Trap::Hold, "late.example");
    given_up(&gate, one.win()).await;
    let term = two.win().await;
    two.renews().await;
    gate.deliver().await;
    two.renews().await;
    assert_eq!(one.waits_for().await.as_deref(), Some("two"));
    one.has_lost().await;
    two.renews().await;
    two.release().await;
    assert!(one.win().await > term);
    one.renews().await;
    one.release().await;
}

pub async fn a_renewal_that_comes_late_changes_nothing_of_the_next_leader(site: &StoreUnderTest) {
    let name = "late-renewal";
    was_led(site, name).await;
    let gate = Gate::to(site.address()).await;
    let (mut one, mut two) = (site.through(&gate).player(name, "one"), site.player(name, "two"));
    (one.candidacy.ttl, two.candidacy.ttl) = (SHORT, LONG);
    let first = one.win().await;
    one.renews().await;
    "late.example".clone_into(&mut one.candidacy.identity.host);
    gate.set(Trap::Hold, "late.example");
    given_up(&gate, one.store.renew(&one.candidacy)).await;
    let second = two.win().await;
    assert!(second > first);
    two.renews().await;
    gate.deliver().await;
    let seen = two.store.observe(&two.candidacy.boundary).await.expect("looked").leader.expect("a leader");
    assert_eq!((&seen.id, seen.term), (&two.candidacy.identity.id, Some(second)));
    assert_ne!(seen.host.as_deref(), Some("late.example"));
    two.renews().await;
    one.has_lost().await;
    two.release().await;
}

/// It is older than one that was credited since.
pub async fn a_renewal_that_comes_late_to_its_own_leader_does_no_harm(site: &StoreUnderTest) {
    let name = "late-own-renewal";
    was_led(site, name).await;
    let gate = Gate::to(site.address()).await;
    let (mut one, mut two) = (site.through(&gate).player(name, "one"), site.player(name, "two"));
    one.candidacy.ttl = LONG;
    let term = one.win().await;
    one.renews().await;
    "late.example".clone_into(&mut one.candidacy.identity.host);
    gate.set(Trap::Hold, "late.example");
    given_up(&gate, one.store.renew(&one.candidacy)).await;
    "later.example".clone_into(&mut one.candidacy.identity.host);
    one.renews().await;
    gate.deliver().await;
    // The server may execute it after the next renewal, which another connection brings.
    let later = async {
        loop {
            one.renews().await;
            let seen = two.store.observe(&one.candidacy.boundary).await.expect("looked").leader.expect("a leader");
            assert_eq!((&seen.id, seen.term), (&one.candidacy.identity.id, Some(term)));
            if seen.host.as_deref() == Some("later.example") {
                return;
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), later)
        .await
        .expect("the older name has come back, and stays");
    assert!(two.wins_at_once().await.is_none(), "won beside a leader");
    two.release().await;
    one.release().await;
}

pub async fn a_release_that_comes_late_frees_nothing_of_the_next_term(site: &StoreUnderTest) {
    let name = "late-release";
    was_led(site, name).await;
    let gate = Gate::to(site.address()).await;
    let (mut one, mut two) = (site.through(&gate).player(name, "one"), site.player(name, "two"));
    (one.candidacy.ttl, two.candidacy.ttl) = (LONG, LONG);
    let first = one.win().await;
    one.renews().await;
    gate.set(Trap::Hold, one.in_every_request(site));
    given_up(&gate, one.store.release(&one.candidacy)).await;
    let second = one.win().await;
    assert!(second > first, "{second} after {first}: a term that was let go came back");
    one.renews().await;
    gate.deliver().await;
    one.renews().await;
    let seen = two.store.observe(&one.candidacy.boundary).await.expect("looked").leader.expect("a leader");
    assert_eq!((&seen.id, seen.term), (&one.candidacy.identity.id, Some(second)));
    assert_eq!(two.waits_for().await.as_deref(), Some("one"));
    two.release().await;
    one.release().await;
}

/// T1: the lease counts from before the first byte has left.
pub async fn a_renewal_is_counted_from_before_its_request_leaves(site: &StoreUnderTest) {
    let name = "sent-first";
    was_led(site, name).await;
    let gate = Gate::to(site.address()).await;
    let mut one = site.through(&gate).player(name, "one");
    one.candidacy.ttl = LONG;
    one.win().await;
    one.renews().await;
    for turn in 0..3 {
        let host = format!("renewal-{turn}.example");
        host.clone_into(&mut one.candidacy.identity.host);
        gate.set(Trap::Note, &host);
        let before = clock::now();
        let renewal = one.store.renew(&one.candidacy).await.expect("an answer");
        let RenewResult::Credited { sent, .. } = renewal else { panic!("not credited: {renewal:?}") };
        let left = gate.caught().await;
        assert!(before <= sent && sent <= left, "counted from {sent:?}, asked at {before:?}, left at {left:?}");
    }
    // The first one of a connection: connecting comes before it, and does not count.
    gate.cut();
    gate.set(Trap::Note, "renewal-2.example");
    let mut player = one;
    let (sent, before) = loop {
        let before = clock::now();
        match player.store.renew(&player.candidacy).await {
            Ok(RenewResult::Credited { sent, .. }) => break (sent, before),
            Ok(other) => panic!("not credited: {other:?}"),
            Err(error) => assert!(matches!(error, StoreError::Unavailable(_)), "{error}"),
        }
    };
    assert!(before <= sent && sent <= clock::now());
    player.release().await;
}

/// A server that is away may come back; one that will not have us is not asked again (exit status 69 and 77).
pub async fn a_server_that_is_away_is_unavailable_and_is_found_again(site: &StoreUnderTest) {
    let name = "away";
    was_led(site, name).await;
    let gate = Gate::to(site.address()).await;
    gate.close();
    let mut one = site.through(&gate).player(name, "one");
    one.candidacy.ttl = LONG;
    let boundary = one.candidacy.boundary.clone();
    one.claims();
    is_unavailable("campaign", one.store.campaign(&one.candidacy).await);
    is_unavailable("look", one.store.observe(&boundary).await);
    is_unavailable("boundaries", one.store.boundaries().await);
    gate.open();
    let term = one.win().await;
    one.renews().await;
    gate.close();
    is_unavailable("renew", one.store.renew(&one.candidacy).await);
    gate.open();
    // It leads as before.
    one.renews().await;
    gate.close();
    is_unavailable("release", one.store.release(&one.candidacy).await);
    gate.open();
    one.release().await;
    let mut two = site.player(name, "two");
    assert!(two.win().await > term);
    two.renews().await;
    two.release().await;
}

#[track_caller]
fn is_unavailable<T: std::fmt::Debug>(what: &str, answer: Result<T, StoreError>) {
    let error = answer.expect_err("the server is away");
    assert!(matches!(error, StoreError::Unavailable(_)), "{what}: {error:?}");
    is_one_line(&error.to_string());
}

#[track_caller]
fn is_one_line(said: &str) {
    assert!(!said.is_empty() && said.len() < 1024 && !said.contains(char::is_control), "{said:?}");
}

pub async fn a_server_that_will_not_have_us_refuses(site: &StoreUnderTest) {
    let mut shut_out = site.shut_out();
    let boundary = shut_out.candidacy.boundary.clone();
    let claimed = shut_out.store.claim(&shut_out.candidacy);
    let asked = match claimed {
        Ok(_) => shut_out.store.campaign(&shut_out.candidacy).await.map(drop),
        Err(error) => Err(error),
    };
    for answer in [asked, shut_out.store.observe(&boundary).await.map(drop)] {
        let error = answer.expect_err("refused");
        assert!(matches!(error, StoreError::Refused(_)), "{error:?}");
        is_one_line(&error.to_string());
        assert!(!error.to_string().contains(super::WRONG_PASSWORD), "{error}");
    }
}

/// In requests of this candidate, also in those that say neither its name nor its address.
impl TestCandidate {
    fn in_every_request(&self, site: &StoreUnderTest) -> &str {
        if site.support.ids_in_requests() { &self.candidacy.identity.id } else { "" }
    }
}
