//! The rule of takes and credits, step by step, and the proof that each of its rules is tested (P4).

use super::*;

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn at(seconds: u64) -> Time {
    Time::BOOT + s(seconds)
}

/// A candidate called 1 with a ttl of 10 s.
fn me() -> Takeover<u8> {
    Takeover::new(1, s(10), Durability::Volatile)
}

const fn basis(incarnation: u8, attachments: u64) -> Basis<u8> {
    Basis { incarnation, epoch: Epoch { attachments, commands: 1_000 } }
}

const HERE: Basis<u8> = basis(100, 3);

fn held(holder: u8, nonce: u64) -> ObservedRecord<u8> {
    ObservedRecord { holder, term: 7, nonce, ttl: s(10), state: RecordState::Held, basis: HERE, reservation: None }
}

fn free(holder: u8, nonce: u64) -> ObservedRecord<u8> {
    ObservedRecord { state: RecordState::Free, ..held(holder, nonce) }
}

fn vacant(id: u8, ttl: Duration, term: Term) -> ObservedRecord<u8> {
    ObservedRecord { term, ttl, state: RecordState::Vacant, ..held(id, 1) }
}

fn view(record: impl Into<Option<ObservedRecord<u8>>>) -> StoreState<u8> {
    StoreState { basis: HERE, is_attached: true, record: record.into() }
}

fn on(basis: Basis<u8>, record: ObservedRecord<u8>) -> StoreState<u8> {
    StoreState { basis, ..view(record) }
}

const fn wait(seconds: u64, decided: bool) -> Decision {
    Decision::Wait { left: s(seconds), decided }
}

#[test]
fn a_free_record_is_taken_at_once() {
    assert_eq!(me().decide(at(5), &view(free(2, 1))), Decision::Take);
}

#[test]
fn a_held_record_is_taken_when_it_has_stood_unchanged_for_its_own_ttl() {
    let mut me = me();
    let short = view(ObservedRecord { ttl: s(4), ..held(2, 1) });
    assert_eq!(me.decide(at(5), &short), wait(4, false));
    assert_eq!(me.decide(at(8), &short), wait(1, false));
    assert_eq!(me.decide(at(9), &short), Decision::Take);
    let long = view(ObservedRecord { ttl: s(60), ..held(2, 2) });
    assert_eq!(me.decide(at(9), &long), wait(60, true), "a renewal: all over again");
    assert_eq!(me.decide(at(68), &long), wait(1, true));
    assert_eq!(me.decide(at(69), &long), Decision::Take);
}

#[test]
fn a_missing_record_becomes_a_vacant_one_that_is_waited_for_as_long_as_anybody_may_count_on() {
    let mut one = me();
    assert_eq!(one.decide(at(0), &view(None)), Decision::Vacate);
    assert_eq!(one.vacancy(), Vacancy { nonce: 1, ttl: s(0), term: 0 });
    let empty = view(vacant(50, s(0), 0));
    assert_eq!(one.decide(at(1), &empty), wait(10, false));
    assert_eq!(one.decide(at(11), &empty), Decision::Take);
    assert_eq!(one.take_request().floor, 1);

    let mut one = me();
    one.decide(at(0), &view(ObservedRecord { ttl: s(60), ..held(2, 1) }));
    assert_eq!(one.decide(at(1), &view(None)), Decision::Vacate);
    assert_eq!(one.vacancy(), Vacancy { nonce: 1, ttl: s(60), term: 7 }, "what was seen is handed on");
    assert_eq!(one.decide(at(2), &view(vacant(50, s(60), 7))), wait(60, false), "a ttl that was seen once");
    assert_eq!(one.decide(at(62), &view(vacant(50, s(60), 7))), Decision::Take);

    let mut late = me();
    assert_eq!(late.decide(at(0), &view(vacant(50, s(60), 7))), wait(60, false), "a ttl that its writer has seen");
    assert_eq!(late.take_request().floor, 8, "and a term");
    assert_eq!(late.vacancy(), Vacancy { nonce: 2, ttl: s(60), term: 7 }, "handed on once more");
}

/// S2: a leader with a long ttl may live although one with a short ttl was seen after it.
#[test]
fn the_longest_of_all_ttls_seen_counts_for_a_missing_record() {
    let mut me = me();
    me.decide(at(0), &view(ObservedRecord { ttl: s(60), ..held(2, 1) }));
    me.decide(at(1), &view(ObservedRecord { ttl: s(4), ..held(3, 2) }));
    assert_eq!(me.decide(at(2), &view(None)), Decision::Vacate);
    assert_eq!(me.vacancy().ttl, s(60));
    assert_eq!(me.decide(at(3), &view(vacant(50, s(4), 7))), wait(60, true));
}

/// S2: this candidate is stopped between two looks, and meanwhile another one leads and is forgotten.
#[test]
fn none_then_led_then_none_is_not_none() {
    let mut me = me();
    assert_eq!(me.decide(at(0), &view(None)), Decision::Vacate);
    me.decide(at(0), &view(vacant(50, s(0), 0)));
    assert_eq!(me.decide(at(12), &view(None)), Decision::Vacate, "it was taken, and all was deleted");
    assert_eq!(me.decide(at(12), &view(vacant(51, s(0), 0))), wait(10, false), "a new version: all over again");
    assert_eq!(me.decide(at(22), &view(vacant(51, s(0), 0))), Decision::Take);
}

#[test]
fn a_missing_record_is_taken_at_once_where_none_is_ever_lost_unless_one_was_seen() {
    let mut one = Takeover::new(1, s(10), Durability::Durable);
    assert_eq!(one.decide(at(0), &view(None)), Decision::Take);
    assert_eq!(one.decide(at(1), &view(held(2, 1))), wait(10, true), "somebody was quicker");
    assert_eq!(one.decide(at(2), &view(None)), Decision::Vacate, "it was deleted under a leader");
    assert_eq!(one.take_request().floor, 8, "terms rise all the same");
    assert_eq!(one.decide(at(3), &view(vacant(50, s(10), 7))), wait(10, true));
    assert_eq!(one.decide(at(13), &view(vacant(50, s(10), 7))), Decision::Take);
    let old = on(basis(101, 3), held(2, 1));
    assert_eq!(one.decide(at(14), &old), wait(10, true), "one that is there is not missing");
}

#[test]
fn a_record_of_another_life_of_the_server_is_waited_for_whatever_it_says() {
    for record in [held(2, 1), free(2, 1), free(1, 1), held(1, 1), vacant(2, s(1), 0)] {
        let mut me = me();
        let old = on(basis(101, 3), ObservedRecord { ttl: s(20), ..record });
        assert_eq!(me.decide(at(0), &old), wait(20, false), "{record:?}");
        assert_eq!(me.decide(at(20), &old), Decision::Take, "{record:?}");
    }
}

#[test]
fn a_server_that_is_started_again_starts_the_wait_again_and_leads_nothing() {
    let mut me = me();
    me.decide(at(0), &view(held(2, 1)));
    assert_eq!(me.decide(at(9), &on(basis(101, 3), held(2, 1))), wait(10, false));
    assert_eq!(me.decide(at(18), &on(basis(102, 3), held(2, 1))), wait(10, false));
    assert_eq!(me.decide(at(28), &on(basis(102, 3), held(2, 1))), Decision::Take);
    assert_eq!(me.epoch_restarts(), 0, "not for a replica");
}

#[test]
fn a_replica_that_attaches_starts_the_wait_again_and_keeps_a_record_from_being_free() {
    let reset = Basis { epoch: Epoch { attachments: 3, commands: 999 }, ..HERE };
    for other in [basis(100, 4), basis(100, 2), reset] {
        let mut one = me();
        assert_eq!(one.decide(at(0), &view(held(2, 1))), wait(10, false));
        assert_eq!(one.decide(at(9), &on(other, held(2, 1))), wait(10, false), "{other:?}");
        assert_eq!(one.epoch_restarts(), 1);
        assert_eq!(one.decide(at(19), &on(other, held(2, 1))), Decision::Take);
        assert_eq!(me().decide(at(0), &on(other, free(2, 1))), wait(10, false), "{other:?}");
    }
    let later = Basis { epoch: Epoch { attachments: 3, commands: 5_000 }, ..HERE };
    assert_eq!(me().decide(at(0), &on(later, free(2, 1))), Decision::Take, "commands alone are no epoch");
}

#[test]
fn a_wait_begins_when_enough_replicas_are_attached() {
    let without = |record| StoreState { is_attached: false, ..view(record) };
    let mut me = me();
    assert_eq!(me.decide(at(0), &without(held(2, 1))), wait(10, false));
    assert_eq!(me.decide(at(60), &without(held(2, 1))), wait(10, false));
    assert_eq!(me.decide(at(61), &view(held(2, 1))), wait(10, false));
    assert_eq!(me.decide(at(62), &without(held(2, 1))), wait(10, false));
    assert_eq!(me.decide(at(72), &view(held(2, 1))), wait(10, false), "all over again");
    assert_eq!(me.decide(at(82), &view(held(2, 1))), Decision::Take);
    assert_eq!(me.decide(at(83), &without(free(2, 2))), wait(10, false), "nothing that is written here would count");
    assert_eq!(me.decide(at(84), &view(free(2, 2))), Decision::Take);
}

#[test]
fn a_take_whose_answer_was_lost_is_found_by_its_nonce_alone() {
    let mut me = me();
    me.decide(at(0), &view(free(2, 1)));
    let TakeRequest { nonce, floor } = me.take_request();
    assert_eq!(floor, 8);
    let mine = ObservedRecord { term: floor, nonce, ..held(1, nonce) };
    assert_eq!(me.decide(at(1), &view(mine)), Decision::AlreadyOurs(floor));
    let somebody_elses = view(ObservedRecord { holder: 2, ..mine });
    assert!(matches!(me.decide(at(1), &somebody_elses), Decision::Wait { .. }), "the same number is not enough");
    me.discard_outstanding();
    assert_eq!(me.decide(at(2), &view(mine)), Decision::ReleaseStale(floor), "what is over must not come back");
}

/// The store has executed both of them, or the take alone and the renewal later or never.
#[test]
fn a_take_is_found_by_its_nonce_and_by_that_of_the_renewal_that_was_sent_with_it() {
    let mut me = me();
    let before = me.nonce();
    let TakeRequest { nonce: take, .. } = me.take_request();
    let renewal = me.renewal_with_take();
    assert!(take < renewal);
    assert_eq!(me.outstanding_take(), Some(OutstandingTake { take, renewal: Some(renewal) }));
    for nonce in [take, renewal] {
        assert_eq!(me.decide(at(1), &view(held(1, nonce))), Decision::AlreadyOurs(7));
        let others = me.decide(at(1), &view(held(2, nonce)));
        assert!(matches!(others, Decision::Wait { .. }), "the same number is not enough: {others:?}");
    }
    for nonce in [before, renewal + 1] {
        assert_eq!(me.decide(at(1), &view(held(1, nonce))), Decision::ReleaseStale(7));
    }
    // The next take has no renewal with it.
    let TakeRequest { nonce: next, .. } = me.take_request();
    assert_eq!(me.outstanding_take(), Some(OutstandingTake { take: next, renewal: None }));
    assert_eq!(me.decide(at(1), &view(held(1, renewal))), Decision::ReleaseStale(7));
    me.renewal_with_take();
    me.discard_outstanding();
    assert_eq!(me.decide(at(1), &view(held(1, next))), Decision::ReleaseStale(7));
}

fn left_to(successor: u8, within: u64) -> ObservedRecord<u8> {
    ObservedRecord { reservation: Some(Reservation { successor, within: s(within) }), ..free(2, 1) }
}

#[test]
fn a_free_record_is_left_to_its_successor_for_the_time_of_the_reservation_and_no_longer() {
    assert_eq!(me().decide(at(5), &view(left_to(1, 3))), Decision::Take, "the successor");
    let mut other = me();
    other.decide(at(0), &view(held(2, 0)));
    other.decide(at(1), &view(held(2, 5)));
    assert_eq!(other.decide(at(5), &view(left_to(3, 3))), wait(3, false), "-n waits it out");
    assert_eq!(other.decide(at(7), &view(left_to(3, 3))), wait(1, false));
    assert_eq!(other.decide(at(8), &view(left_to(3, 3))), Decision::Take);
    assert_eq!(me().decide(at(100), &view(left_to(3, 3))), wait(3, false), "counted from when it was seen");
    assert_eq!(me().decide(at(0), &view(left_to(3, 600))), wait(60, false), "a minute at most");
    // It stands behind the others, which take the record first if the successor does not.
    let own = ObservedRecord { holder: 1, ..left_to(3, 3) };
    assert_eq!(me().decide(at(0), &view(own)), wait(4, false), "the one that has resigned");
    // Any take ends it, and what a held record says of it does not count.
    let taken = ObservedRecord { holder: 4, ..held(4, 9) };
    let leftover = ObservedRecord { reservation: left_to(3, 60).reservation, ..taken };
    assert_eq!(other.decide(at(9), &view(leftover)), wait(10, true));
    assert_eq!(other.decide(at(19), &view(leftover)), Decision::Take);
}

#[test]
fn the_reservation_of_a_record_that_cannot_be_trusted_runs_together_with_the_wait_for_it() {
    for (within, left) in [(3, 10), (30, 30)] {
        let mut me = me();
        let old = on(basis(101, 3), left_to(3, within));
        assert_eq!(me.decide(at(0), &old), wait(left, false), "{within}");
        assert_eq!(me.decide(at(left), &old), Decision::Take);
    }
    let mut successor = me();
    let old = on(basis(101, 3), left_to(1, 30));
    assert_eq!(successor.decide(at(0), &old), wait(10, false), "the successor does not lead beside a forgotten leader");
}

#[test]
fn a_spare_takes_a_record_only_after_it_could_have_taken_it_for_its_delay() {
    let spare = || me().delayed_by(s(5));
    let mut one = spare();
    assert_eq!(one.decide(at(1), &view(free(2, 1))), wait(5, false));
    assert_eq!(one.decide(at(5), &view(free(2, 1))), wait(1, false));
    assert_eq!(one.decide(at(6), &view(free(2, 1))), Decision::Take);
    let mut one = spare();
    one.decide(at(0), &view(held(2, 1)));
    assert_eq!(one.decide(at(1), &view(held(2, 2))), wait(15, true), "a lease, and then the delay");
    assert_eq!(one.decide(at(12), &view(held(2, 2))), wait(4, false), "no leader is known any more");
    assert_eq!(one.decide(at(16), &view(held(2, 2))), Decision::Take);
    let mut one = spare();
    one.decide(at(0), &view(free(2, 1)));
    one.decide(at(4), &view(held(3, 1)));
    assert_eq!(one.decide(at(6), &view(free(3, 2))), wait(5, false), "it has been led since: all over again");
    for (delay, left) in [(5, 10), (30, 30)] {
        let mut one = me().delayed_by(s(delay));
        let forgotten = on(basis(101, 3), free(2, 1));
        assert_eq!(one.decide(at(0), &forgotten), wait(left, false), "no leader is seen in either wait");
    }
    let mut durable = Takeover::new(1, s(10), Durability::Durable).delayed_by(s(5));
    assert_eq!(durable.decide(at(0), &view(None)), wait(5, false));
    assert_eq!(durable.decide(at(5), &view(None)), Decision::Take);
}

#[test]
fn a_named_successor_is_not_delayed_and_of_delay_and_reservation_the_longer_counts() {
    let spare = || me().delayed_by(s(5));
    assert_eq!(spare().decide(at(0), &view(left_to(1, 3))), Decision::Take);
    assert_eq!(spare().decide(at(0), &view(left_to(3, 3))), wait(5, false));
    assert_eq!(spare().decide(at(0), &view(left_to(3, 20))), wait(20, false));
    assert_eq!(spare().decide(at(0), &view(free(1, 1))), wait(10, false), "its own resignation: for a ttl");
    assert_eq!(me().delayed_by(s(30)).decide(at(0), &view(free(1, 1))), wait(30, false));
}

#[test]
fn nobody_waits_for_himself() {
    let mut me = me();
    assert_eq!(me.decide(at(0), &view(held(1, 40))), Decision::ReleaseStale(7));
    assert_eq!(me.decide(at(0), &view(free(1, 41))), Decision::Take);
}

#[test]
fn terms_rise_above_everything_that_was_ever_seen() {
    let mut me = me();
    me.decide(at(0), &view(ObservedRecord { term: 500, ..held(2, 1) }));
    me.decide(at(1), &view(None));
    assert_eq!(me.take_request().floor, 501);
    me.decide(at(2), &view(ObservedRecord { term: 3, ..held(2, 2) }));
    assert_eq!(me.take_request().floor, 501);
}

#[test]
fn no_two_writes_have_the_same_nonce() {
    let mut me = me();
    let nonces = [me.nonce(), me.take_request().nonce, me.vacancy().nonce, me.nonce(), me.take_request().nonce];
    assert!(nonces.windows(2).all(|pair| pair[0] < pair[1]), "{nonces:?}");
    assert_eq!(me.outstanding(), Some(nonces[4]));
}

#[test]
fn somebody_leads_once_a_held_record_was_seen_to_change() {
    let decided = |views: &[StoreState<u8>]| {
        let mut me = me();
        let last = views.iter().zip(0..).map(|(view, time)| me.decide(at(time), view)).last();
        let Some(Decision::Wait { decided, .. }) = last else { panic!("{last:?}") };
        decided
    };
    assert!(!decided(&[view(held(2, 1))]));
    assert!(!decided(&[view(held(2, 1)), view(held(2, 1))]));
    assert!(decided(&[view(held(2, 1)), view(held(2, 2))]), "renewed");
    assert!(decided(&[view(None), view(held(2, 1))]), "taken before our eyes");
    assert!(decided(&[view(free(2, 1)), view(held(3, 1))]), "somebody was quicker");
    assert!(!decided(&[view(held(2, 1)), view(vacant(50, s(10), 7))]), "lost is not led");
    assert!(!decided(&[view(None), view(vacant(50, s(0), 0)), view(vacant(51, s(0), 0))]), "nor is vacant");
    // After a restart a renewal still counts as one.
    let restarted = |nonce| on(basis(101, 3), held(2, nonce));
    assert!(!decided(&[view(held(2, 1)), restarted(1)]));
    assert!(decided(&[restarted(1), restarted(2)]));
}

/// A renewal sent and answered in the same second, of a lease of 10 s.
fn renewal(second: u64, nonce: u64, basis: Basis<u8>) -> Write<u8> {
    let (sent, received) = (at(second), at(second));
    Write { sent, received, ttl: s(10), nonce, found: nonce - 1, is_confirmed: true, basis }
}

fn leader() -> Takeover<u8> {
    let mut me = me();
    me.decide(at(0), &view(free(2, 1)));
    me.take_request();
    me.took(HERE, true);
    me
}

#[test]
fn a_renewal_that_has_changed_nothing_is_not_credited() {
    assert!(is_effective(2, 1) && !is_effective(2, 2) && !is_effective(2, u64::MAX));
    let mut me = leader();
    assert_eq!(me.credit(&renewal(1, 2, HERE)), Credit::Counts);
    let stale = Write { found: 9_007_199_254_740_991, ..renewal(2, 3, basis(100, 4)) };
    assert_eq!(me.credit(&stale), Credit::Stale);
    assert_eq!(me.settled(), Some(&HERE), "nor does it say anything of the server");
    assert_eq!(me.credit(&renewal(3, 4, HERE)), Credit::Counts);
}

#[test]
fn the_first_credit_of_a_term_needs_the_server_and_the_replicas_of_its_take() {
    for other in [basis(100, 4), basis(101, 3), Basis { epoch: Epoch { attachments: 3, commands: 9 }, ..HERE }] {
        let mut me = leader();
        assert_eq!(me.credit(&renewal(1, 2, other)), Credit::GiveBack, "{other:?}");
        assert_eq!(me.settled(), None, "the take's basis stays in the record");
        let mut me = leader();
        assert_eq!(me.credit(&renewal(1, 2, HERE)), Credit::Counts);
        assert_eq!(me.credit(&renewal(3, 3, other)), Credit::Counts, "later ones do not: {other:?}");
        assert_eq!(me.settled(), Some(&other));
    }
    assert_eq!(me().credit(&renewal(1, 2, HERE)), Credit::GiveBack, "nothing was taken");
}

#[test]
fn nothing_is_credited_before_two_writes_have_been_confirmed() {
    let mut me = leader();
    me.took(HERE, false);
    let unconfirmed = |second, nonce| Write { is_confirmed: false, ..renewal(second, nonce, HERE) };
    assert_eq!(me.credit(&unconfirmed(1, 2)), Credit::Unconfirmed);
    assert_eq!(
        me.credit(&renewal(2, 3, HERE)),
        Credit::Unconfirmed,
        "the replica may have attached since its script ran"
    );
    assert_eq!(me.credit(&renewal(3, 4, HERE)), Credit::Counts);
    assert_eq!(me.credit(&unconfirmed(4, 5)), Credit::Unconfirmed);
    assert_eq!(me.credit(&renewal(5, 6, HERE)), Credit::Counts);
    let mut me = leader();
    me.took(HERE, false);
    me.credit(&renewal(1, 2, HERE));
    assert_eq!(me.credit(&renewal(2, 3, basis(100, 4))), Credit::GiveBack, "it had attached");
}

#[test]
fn a_credit_after_the_end_of_the_lease_says_nothing_of_a_server_that_was_restarted() {
    let restarted = basis(101, 0);
    for (second, settles) in [(9, true), (10, true), (11, false), (60, false)] {
        let mut me = leader();
        me.credit(&renewal(1, 2, HERE));
        me.credit(&renewal(second, 3, restarted));
        assert_eq!(me.settled() == Some(&restarted), settles, "{second}");
        me.credit(&renewal(second + 1, 4, restarted));
        assert_eq!(me.settled() == Some(&restarted), settles, "and once more: {second}");
    }
    let mut me = leader();
    me.credit(&renewal(1, 2, HERE));
    let later = Basis { epoch: Epoch { attachments: 3, commands: 5_000 }, ..HERE };
    me.credit(&renewal(60, 3, later));
    assert_eq!(me.settled(), Some(&later), "the same server has forgotten nothing");
}

/// T1: the time in which no other candidate can have led counts from the sending of the renewal, however late its answer.
#[test]
fn a_credit_that_was_answered_late_settles_no_longer_than_its_lease_lasts() {
    let restarted = basis(101, 0);
    for (second, settles) in [(10, true), (11, false)] {
        let mut me = leader();
        me.credit(&Write { received: at(8), ..renewal(1, 2, HERE) });
        me.credit(&renewal(second, 3, restarted));
        assert_eq!(me.settled() == Some(&restarted), settles, "{second}");
    }
}

/// Everything that was decided and credited in a history that every rule has a part in.
fn history(mutation: Option<RuleMutation>) -> Vec<String> {
    let mut told = Vec::new();
    let new = |memory| Takeover::new(1, s(10), memory).breaking(mutation);
    let mut decides = |memory, views: &[(u64, StoreState<u8>)]| {
        let mut me = new(memory);
        for (second, view) in views {
            told.push(format!("{:?}", me.decide(at(*second), view)));
        }
        told.push(format!("{:?} {:?}", me.vacancy(), me.take_request()));
    };
    let long = ObservedRecord { ttl: s(60), ..held(2, 1) };
    decides(Durability::Volatile, &[(0, view(None)), (10, view(None))]);
    decides(Durability::Volatile, &[(0, view(vacant(50, s(0), 0)))]);
    decides(
        Durability::Volatile,
        &[(0, view(long)), (11, view(long)), (12, on(basis(101, 3), long)), (23, on(basis(101, 3), long))],
    );
    decides(Durability::Durable, &[(0, view(held(2, 1))), (1, view(None))]);
    decides(Durability::Volatile, &[(0, view(held(1, 40)))]);
    decides(Durability::Volatile, &[(0, on(basis(101, 3), free(2, 1)))]);
    decides(
        Durability::Volatile,
        &[(0, view(held(2, 1))), (9, on(basis(100, 4), held(2, 1))), (11, on(basis(100, 4), held(2, 1)))],
    );
    decides(Durability::Volatile, &[(0, view(left_to(3, 600))), (60, view(left_to(3, 600)))]);
    let without = StoreState { is_attached: false, ..view(held(2, 1)) };
    decides(Durability::Volatile, &[(0, without), (11, without)]);
    for seen in [free(2, 1), held(2, 1), left_to(1, 3)] {
        told.push(format!("{:?}", new(Durability::Volatile).delayed_by(s(5)).decide(at(0), &view(seen))));
    }
    let mut credits = |is_confirmed, writes: &[Write<u8>]| {
        let mut me = new(Durability::Volatile);
        me.took(HERE, is_confirmed);
        for write in writes {
            told.push(format!("{:?}", me.credit(write)));
        }
        told.push(format!("{:?}", me.settled()));
    };
    credits(true, &[Write { found: 9, ..renewal(1, 2, HERE) }]);
    credits(true, &[renewal(1, 2, basis(100, 4))]);
    credits(false, &[renewal(1, 2, HERE)]);
    credits(true, &[renewal(1, 2, HERE), renewal(20, 3, basis(101, 0))]);
    told
}

#[test]
fn every_rule_that_is_broken_on_purpose_changes_a_decision() {
    let right = history(None);
    for rule in [
        RuleMutation::HeldTakenAtOnce,
        RuleMutation::MissingTakenAtOnce,
        RuleMutation::AbsenceHasNoVersion,
        RuleMutation::VacantIsFree,
        RuleMutation::VanishedIsMissing,
        RuleMutation::OwnTtlCounts,
        RuleMutation::OthersTtlsForgotten,
        RuleMutation::VacancyTellsNothing,
        RuleMutation::MineByIdAlone,
        RuleMutation::OldFreeTakenAtOnce,
        RuleMutation::EpochIgnored,
        RuleMutation::WaitsWithoutReplicas,
        RuleMutation::StaleCredited,
        RuleMutation::FirstCreditedAnywhere,
        RuleMutation::FirstConfirmationCredited,
        RuleMutation::LateCreditSettles,
        RuleMutation::ReservationIgnored,
        RuleMutation::ReservationEndless,
        RuleMutation::SuccessorDelayed,
        RuleMutation::DelayIgnored,
        RuleMutation::DelayOverlapsLease,
    ] {
        assert_ne!(history(Some(rule)), right, "{rule:?}");
    }
}
