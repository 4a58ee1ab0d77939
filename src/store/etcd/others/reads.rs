//! The requests of a look: some keys of a place at a time, and the values of candidates.

use std::pin::Pin;
use std::task::Poll;

use etcd_client::{Client, Error, GetOptions, KeyValue, Txn, TxnOp, TxnOpResponse};
use tonic::Code;

use super::super::endpoints::classify;
use super::super::peers::PeerElection;
use crate::store::StoreError;

/// The candidates whose values are read at once: etcd allows 1.5 MB for one, and the client 4 MB for an answer.
const FEW_VALUES: usize = 2;
/// As long as the answer is not longer: etcd allows 128 operations.
const MANY_VALUES: usize = 100;

/// Some keys of a place, in the order of their names.
pub struct KeyPage {
    pub pairs: Vec<KeyValue>,
    pub more: bool,
}

/// The key before all those of candidates: a digit follows.
pub fn first_key(place: &PeerElection) -> Vec<u8> {
    format!("{}0", place.election).into_bytes()
}

/// The key behind them.
pub fn last_key(place: &PeerElection) -> Vec<u8> {
    format!("{}g", place.election).into_bytes()
}

/// The first key behind this one that can be a candidate's: after the election it has hexadecimal digits alone, 16 at most.
pub fn behind(place: &PeerElection, last: &[u8]) -> Option<Vec<u8>> {
    let start = place.election.len();
    let is_digit = |byte: &&u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let digits = last.get(start..)?.iter().take(16).take_while(is_digit).count();
    let mut next = last[..last.len().min(start + digits + 1)].to_vec();
    if next.len() == start + digits {
        next.push(0);
        return Some(next);
    }
    // No candidate's key begins with this: behind all that do.
    while next.len() > start && next.last() == Some(&u8::MAX) {
        next.pop();
    }
    let end = next.last_mut().filter(|_| digits > 0 || last[start] < u8::MAX)?;
    *end = end.checked_add(1)?;
    Some(next)
}

/// In one transaction.
pub async fn read(client: &mut Client, pages: &[(&PeerElection, Vec<u8>, i64)]) -> Result<Vec<KeyPage>, Error> {
    let get = |(place, from, limit): &(&PeerElection, Vec<u8>, i64)| {
        let options = GetOptions::new().with_range(last_key(place)).with_limit(*limit).with_keys_only();
        TxnOp::get(from.as_slice(), Some(options))
    };
    let answer = client.txn(Txn::new().and_then(pages.iter().map(get).collect::<Vec<_>>())).await?;
    let ranges = answer.op_responses().into_iter().filter_map(|answer| match answer {
        TxnOpResponse::Get(mut range) => Some(KeyPage { more: range.more(), pairs: range.take_kvs() }),
        TxnOpResponse::Put(_) | TxnOpResponse::Delete(_) | TxnOpResponse::Txn(_) => None,
    });
    Ok(ranges.collect())
}

/// Reads the values of these candidates, as far as they are still there, until one of them is what is looked for.
pub async fn find_by_value<'a, T>(
    client: &mut Client,
    mut candidates: &[(&'a PeerElection, KeyValue)],
    mut found: impl FnMut(&'a PeerElection, &KeyValue) -> Option<T>,
) -> Result<Option<T>, StoreError> {
    // As a rule one of the first is what is looked for.
    let (mut at_once, mut next) = (FEW_VALUES, MANY_VALUES);
    while !candidates.is_empty() {
        let (some, later) = candidates.split_at(at_once.min(candidates.len()));
        match with_values(client, some).await {
            Ok(read) => {
                if let Some(found) = read.iter().find_map(|(place, pair)| found(place, pair)) {
                    return Ok(Some(found));
                }
                (at_once, candidates) = (next, later);
            }
            Err(error) if some.len() > FEW_VALUES && is_too_much(&error) => (at_once, next) = (FEW_VALUES, FEW_VALUES),
            Err(error) => return Err(classify(error)),
        }
    }
    Ok(None)
}

/// Those of the candidates that are still there, with their values.
async fn with_values<'a>(
    client: &mut Client,
    candidates: &[(&'a PeerElection, KeyValue)],
) -> Result<Vec<(&'a PeerElection, KeyValue)>, Error> {
    let gets: Vec<TxnOp> = candidates.iter().map(|(_, pair)| TxnOp::get(pair.key(), None)).collect();
    let answer = client.txn(Txn::new().and_then(gets)).await?;
    let ranges = answer.op_responses().into_iter().filter_map(|answer| match answer {
        TxnOpResponse::Get(mut range) => Some(range.take_kvs().into_iter().next()),
        TxnOpResponse::Put(_) | TxnOpResponse::Delete(_) | TxnOpResponse::Txn(_) => None,
    });
    let there = candidates.iter().zip(ranges).filter_map(|((place, before), pair)| {
        let pair = pair.filter(|pair| pair.create_revision() == before.create_revision())?;
        Some((*place, pair))
    });
    Ok(there.collect())
}

/// The results of all, which run at the same time.
pub async fn all_of<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut running: Vec<Pin<Box<F>>> = futures.map(Box::pin).collect();
    let mut results: Vec<Option<F::Output>> = running.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, result) in running.iter_mut().zip(&mut results) {
            if result.is_none()
                && let Poll::Ready(ready) = future.as_mut().poll(context)
            {
                *result = Some(ready);
            }
        }
        if results.iter().all(Option::is_some) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    results.into_iter().flatten().collect()
}

/// Whether a transaction has more operations than the server was told to take (`--max-txn-ops`).
pub fn has_too_many_operations(error: &Error) -> bool {
    matches!(error, Error::GRpcStatus(status)
        if status.code() == Code::InvalidArgument && status.message().contains("too many operations"))
}

/// The same, or its answer is longer than the client takes.
fn is_too_much(error: &Error) -> bool {
    has_too_many_operations(error) || matches!(error, Error::GRpcStatus(status) if status.code() == Code::OutOfRange)
}

pub fn is_denied(error: &Error) -> bool {
    matches!(error, Error::GRpcStatus(status) if status.code() == Code::PermissionDenied)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::super::peers::PeerKind;
    use super::*;

    #[test]
    fn a_look_goes_on_behind_the_keys_that_begin_as_no_candidate_does() {
        let election = "/jobs/".to_owned();
        let place = &PeerElection { name: "/jobs".to_owned(), election, program: PeerKind::Concurrency };
        let behind = |rest: &[u8]| {
            let next = behind(place, &[place.election.as_bytes(), rest].concat())?;
            Some(next.strip_prefix(place.election.as_bytes()).expect("the same place").to_vec())
        };
        for (rest, next) in [
            (&b"694d"[..], &b"694d\0"[..]),
            (b"694d/x", b"694d0"),
            (b"apiregistration", b"aq"),
            (b"endpoints/1", b"eo"),
            (b"a\xff\xff1", b"b"),
            (b"0123456789abcdef01", b"0123456789abcdef1"),
        ] {
            assert_eq!(behind(rest).as_deref(), Some(next), "{rest:?}");
        }
        assert_eq!(behind(b"\xff1"), None);
    }

    #[test]
    fn requests_for_several_places_are_on_their_way_at_the_same_time() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime").block_on(async {
            let started = tokio::time::Instant::now();
            let answers = all_of((1..=8).rev().map(async |number| {
                tokio::time::sleep(Duration::from_secs(number)).await;
                number
            }));
            assert_eq!(answers.await, [8, 7, 6, 5, 4, 3, 2, 1]);
            assert_eq!(started.elapsed(), Duration::from_secs(8));
        });
    }
}
