//! The lease of a session: granted beside the first look, and kept alive.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use etcd_client::{Client, Error, LeaseGrantOptions, LeaseKeepAliveResponse, LeaseKeepAliveStream, LeaseKeeper};

use super::super::endpoints::classify;
use super::super::others::Others;
use super::super::terms::Terms;
use super::{Session, incomplete_answer};
use crate::store::StoreError;
use elect_core::Time;
use elect_core::limits::TTL_MAX;
use elect_keeper::clock;

/// The stream of keep-alives. Dropped at the first trouble: a late answer must not be taken for the next one's.
pub(super) struct KeepAliveStream {
    keeper: LeaseKeeper,
    answers: LeaseKeepAliveStream,
    /// Whether a keep-alive that was sent behind another answer was answered within an attempt.
    is_prompt: bool,
}

/// The answer to a keep-alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KeepAliveReply {
    /// When the request was sent.
    pub sent: Time,
    pub ttl: Duration,
    pub raft_term: u64,
}

impl Session {
    /// Looks before there is a key of ours, and has the lease granted meanwhile: one on which no key hangs keeps no candidate waiting.
    ///
    /// Nothing is revoked here, where a request that is given up may be executed late: that would end a later win. A session whose lease
    /// was granted in vain is given up as any other one.
    pub(super) async fn look_and_grant(
        &mut self,
        client: &mut Client,
        ttl: Duration,
        terms: &mut Terms,
        others: &mut Others,
    ) -> Result<(), StoreError> {
        if self.granted || self.grants_late {
            self.look_before_key(client, terms, others).await?;
        }
        if self.granted {
            return Ok(());
        }
        self.touched = true;
        let (mut granting, lease, looks) = (client.clone(), self.lease, !self.grants_late);
        let look = async { if looks { self.look_before_key(client, terms, others).await } else { Ok(()) } };
        // Both are waited for: a lease that is granted after it was revoked stays until it expires.
        let (looked, granted) = tokio::join!(look, grant(&mut granting, lease, ttl));
        self.granted = granted.is_ok();
        looked.and(granted)
    }

    async fn look_before_key(
        &mut self,
        client: &mut Client,
        terms: &mut Terms,
        others: &mut Others,
    ) -> Result<(), StoreError> {
        let mut other_client = client.clone();
        let look = async { Ok(others.check(&mut other_client, None).await) };
        let ([oldest, _], looked) = tokio::try_join!(self.look_first(client, terms), look)?;
        let has_looked = matches!(looked, Ok(()) | Err(StoreError::Obstacle(_)));
        // As long as another one leads, the result is of no account.
        if oldest.is_none() {
            looked?;
        }
        self.value = self.value.clone().looking(others.looks().filter(|_| has_looked));
        Ok(())
    }
}

impl KeepAliveStream {
    /// Sends a keep-alive, unless there is an answer that was not asked for: it must not be taken for the answer to this one.
    pub(super) async fn ask(&mut self) -> Result<(), StoreError> {
        let early = poll_fn(|context| {
            Poll::Ready(match pin!(self.answers.message()).poll(context) {
                Poll::Ready(early) => Some(early),
                Poll::Pending => None,
            })
        });
        match early.await {
            None => self.keeper.keep_alive().await.map_err(classify),
            Some(Err(error)) => Err(classify(error)),
            Some(Ok(None)) => Err(ended()),
            Some(Ok(Some(_))) => {
                Err(StoreError::Unavailable("the stream of renewals holds an answer that was not asked for".to_owned()))
            }
        }
    }

    async fn answer(&mut self) -> Result<LeaseKeepAliveResponse, StoreError> {
        self.answers.message().await.map_err(classify)?.ok_or_else(ended)
    }

    /// The answer to a keep-alive that was sent behind another answer. A proxy that answers with a delay of its own, as etcd's grpc-proxy does,
    /// has not answered this one by the end of the attempt.
    pub(super) async fn prove(&mut self) -> Result<(), StoreError> {
        self.answer().await?;
        self.is_prompt = true;
        Ok(())
    }

    pub(super) fn is_prompt(&self) -> bool {
        self.is_prompt
    }
}

fn ended() -> StoreError {
    classify(Error::LeaseKeepAliveError(String::new()))
}

/// One keep-alive, on the stream if there is one. `None`: that member knows no such lease, which a transaction has to confirm.
///
/// The first answer on a stream counts only for the first keep-alive of a lease. Answers name their lease and not their request: on a later
/// stream, a proxy may give an answer to a request of an earlier one first.
pub(super) async fn keep_alive(
    client: &mut Client,
    pulse: &mut Option<KeepAliveStream>,
    lease: i64,
    is_first: bool,
) -> Result<Option<KeepAliveReply>, StoreError> {
    let mut sent = clock::now(); // T1
    let (mut stream, counts) = match pulse.take() {
        Some(mut stream) => {
            stream.ask().await?;
            (stream, true)
        }
        // The request that opens the stream is a keep-alive, whose answer comes twice: see `first_answer`.
        None => match client.lease_keep_alive(lease).await {
            Ok((keeper, answers)) => (KeepAliveStream { keeper, answers, is_prompt: false }, is_first),
            Err(Error::LeaseKeepAliveError(_)) => return Ok(None),
            Err(error) => return Err(classify(error)),
        },
    };
    let mut answer = stream.answer().await?;
    if !counts && answer.ttl() > 0 {
        sent = clock::now(); // T1
        stream.ask().await?;
        answer = stream.answer().await?;
        stream.is_prompt = true;
    }
    let ttl = u64::try_from(answer.ttl()).unwrap_or(0);
    if ttl == 0 {
        return Ok(None);
    }
    let raft_term = answer.header().ok_or_else(incomplete_answer)?.raft_term();
    *pulse = Some(stream);
    Ok(Some(KeepAliveReply { sent, ttl: Duration::from_secs(ttl).min(TTL_MAX), raft_term }))
}

/// Grants a lease, whose id is ours alone: if it exists, an earlier request was heard although its answer was not. Whether it is gone is
/// found out by what hangs on it.
async fn grant(client: &mut Client, lease: i64, ttl: Duration) -> Result<(), StoreError> {
    match client.lease_grant(whole_seconds(ttl), Some(LeaseGrantOptions::new().with_id(lease))).await {
        Ok(_) => Ok(()),
        Err(Error::GRpcStatus(status)) if status.message().contains("lease already exists") => Ok(()),
        Err(error) => Err(classify(error)),
    }
}

/// etcd counts in seconds; what it grants is never less than what was asked for.
fn whole_seconds(ttl: Duration) -> i64 {
    let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ttl_is_asked_for_in_whole_seconds_and_never_shortened() {
        assert_eq!(whole_seconds(Duration::from_secs(10)), 10);
        assert_eq!(whole_seconds(Duration::from_millis(2500)), 3);
        assert_eq!(whole_seconds(Duration::from_nanos(1)), 1);
    }
}
