//! The lease of a session: granted beside the first look, and kept alive.

use std::time::Duration;

use etcd_client::{Client, Error, LeaseGrantOptions, Txn, TxnResponse};

use super::super::endpoints::classify;
use super::super::others::Others;
use super::super::terms::Terms;
use super::{KeepAliveReply, KeepAliveStream, Session, incomplete_answer, revoke};
use crate::store::StoreError;
use elect_core::Time;
use elect_core::limits::TTL_MAX;
use elect_keeper::clock;

impl Session {
    /// Looks before there is a key of ours, and has the lease granted meanwhile: without a key it is of no account to anyone. At
    /// once: over a long way each request takes a good part of an attempt.
    pub(super) async fn look_and_grant(
        &mut self,
        client: &mut Client,
        ttl: Duration,
        terms: &mut Terms,
        others: &mut Others,
    ) -> Result<(), StoreError> {
        let grants = !self.touched && !self.granted_in_vain;
        self.touched |= grants;
        let (mut granting_client, lease) = (client.clone(), self.lease);
        let grant = async { if grants { grant(&mut granting_client, lease, ttl).await.map(Some) } else { Ok(None) } };
        // The grant is waited for in any case: one that comes after its lease was taken back would leave a lease behind.
        let (looked, granted) = tokio::join!(self.look_before_key(client, terms, others), grant);
        if let Ok(Some(granted)) = &granted {
            (self.grant, self.granted) = (*granted, true);
        }
        if self.grant.is_some()
            && matches!(looked, Err(StoreError::Obstacle(_) | StoreError::Refused(_)))
            && revoke(client, self.lease).await.is_ok()
        {
            // Nothing is left at the server that would have to be given up.
            (self.touched, self.granted, self.granted_in_vain) = (false, false, true);
        }
        looked.and(granted.map(drop))
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

    /// The transaction that decides. If the grant stands for the first keep-alive, the stream of keep-alives is opened beside it:
    /// the next renewal must not need the time for that, and a lease that cannot be kept alive is no ground to lead on.
    pub(super) async fn decide(
        &mut self,
        client: &mut Client,
        check: Txn,
        opens: bool,
    ) -> Result<(TxnResponse, Option<KeepAliveStream>), StoreError> {
        // Nothing of the renewal is credited if what follows fails: the stream goes with the connection.
        let pulse = self.pulse.take();
        let (mut opening_client, lease) = (client.clone(), self.lease);
        let opened = async { if opens { open_stream(&mut opening_client, lease).await } else { Ok(pulse) } };
        let answer = async { client.txn(check).await.map_err(classify) };
        tokio::try_join!(answer, opened)
    }

    /// Grants the lease, or prolongs it. Whether it is gone is found out by what hangs on it.
    pub(super) async fn keep(&mut self, client: &mut Client, ttl: Duration) -> Result<(), StoreError> {
        if self.granted {
            self.keep_alive(client).await?;
            return Ok(());
        }
        self.touched = true;
        self.grant = grant(client, self.lease, ttl).await?;
        if self.grant.is_none() {
            self.keep_alive(client).await?;
        }
        self.granted = true;
        Ok(())
    }

    /// One keep-alive. `None`: that member knows no such lease, which a transaction has to confirm.
    pub(super) async fn keep_alive(&mut self, client: &mut Client) -> Result<Option<KeepAliveReply>, StoreError> {
        let mut pulse = match self.pulse.take() {
            Some(pulse) => pulse,
            None => match open_stream(client, self.lease).await? {
                Some(pulse) => pulse,
                None => return Ok(None),
            },
        };
        pulse.keeper.keep_alive().await.map_err(classify)?;
        let Some(answer) = pulse.answers.message().await.map_err(classify)? else {
            return Err(StoreError::Unavailable("the server ended the stream of keep-alives".to_owned()));
        };
        let ttl = u64::try_from(answer.ttl()).unwrap_or(0);
        if ttl == 0 {
            return Ok(None);
        }
        let raft_term = answer.header().ok_or_else(incomplete_answer)?.raft_term();
        self.pulse = Some(pulse);
        Ok(Some(KeepAliveReply { ttl: Duration::from_secs(ttl).min(TTL_MAX), raft_term }))
    }
}

/// Opens the stream of keep-alives, by one that counts for nothing. `None`: that member knows no such lease.
async fn open_stream(client: &mut Client, lease: i64) -> Result<Option<KeepAliveStream>, StoreError> {
    match client.lease_keep_alive(lease).await {
        Ok((keeper, answers)) => Ok(Some(KeepAliveStream { keeper, answers })),
        Err(Error::LeaseKeepAliveError(_)) => Ok(None),
        Err(error) => Err(classify(error)),
    }
}

/// Grants a lease, whose id is ours alone. `None`: an earlier request was heard although its answer was not.
async fn grant(client: &mut Client, lease: i64, ttl: Duration) -> Result<Option<(Time, KeepAliveReply)>, StoreError> {
    let sent = clock::now(); // T1
    match client.lease_grant(whole_seconds(ttl), Some(LeaseGrantOptions::new().with_id(lease))).await {
        Ok(answer) => {
            let raft_term = answer.header().ok_or_else(incomplete_answer)?.raft_term();
            let ttl = Duration::from_secs(u64::try_from(answer.ttl()).unwrap_or(0)).min(TTL_MAX);
            Ok((!ttl.is_zero()).then_some((sent, KeepAliveReply { ttl, raft_term })))
        }
        Err(Error::GRpcStatus(status)) if status.message().contains("lease already exists") => Ok(None),
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
