//! `etcd://`: leases, one key per candidate, and the queue that their create revisions are (DESIGN.md 5.2).
//!
//! The election is etcd's own `concurrency.Election`, so that `etcdctl elect` and Go programs take part in it. It is built on
//! leases, transactions and watches, not on the election service, which can name a leader that holds no key (etcd
//! #19597, #17623). [`session`] makes it safe.

mod dialer;
mod endpoints;
mod keys;
mod observer;
mod session;
mod settings;
mod terms;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::BTreeSet;
use std::pin::Pin;

use async_trait::async_trait;
use etcd_client::{Client, GetOptions};
use serde::{Deserialize, Serialize};

use crate::store::claim_release::{ClaimRelease, RELEASE_TIMEOUT_MAX, StoredClaim, until_settled};
use crate::store::connection::tls::warn_unverified;
use crate::store::url::{StoreKind, StoreUrl};
use crate::store::{
    Access, CampaignResult, Candidacy, Detail, Listing, Notifier, Observation, RenewResult, Store, StoreError,
};
use elect_core::boundary::Boundary;
use elect_core::limits::insert_boundary;
use elect_keeper::Claim;
use endpoints::{Endpoints, classify};
use observer::{QueueObserver, Scope};
use session::Session;
use settings::{EtcdUrl, Settings};
use terms::Terms;

pub const KIND: StoreKind = StoreKind {
    schemes: &["etcd", "etcds"],
    form: "etcd://HOST:PORT,…/PREFIX",
    about: "an etcd, etcds:// for TLS (etcd: alone is the one on this host)",
    port: Some(2379),
    mistaken: &[("http", "etcd"), ("https", "etcds")],
    reach: "all hosts",
    check: |url| EtcdUrl::parse(url).map(drop),
    show,
    open,
    claim_release: ClaimRelease::Executed(release_claim),
};

struct Etcd {
    settings: Settings,
    members: Endpoints,
    hints: Notifier,
    session: Option<Session>,
    /// Whether the keeper has the claim to this session: we are asked to campaign only then.
    given: bool,
    /// Leases that we gave up without hearing that they are gone. What hangs on them must not make us leader again, under
    /// a term that is over.
    unrevoked: Vec<i64>,
    /// Of the boundary that is campaigned for: kept from one session to the next.
    terms: Option<Terms>,
    /// Whether a question has been answered: who asks only once is not told about versions.
    stays: bool,
    observing: QueueObserver,
}

/// The data that the keeper needs: the access settings, and the lease to revoke.
#[derive(Debug, Serialize, Deserialize)]
struct EtcdClaim {
    settings: Settings,
    lease: i64,
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// With what the variables fill in, since that is where the election is held.
fn show(url: &StoreUrl<'_>) -> String {
    match Settings::new(url, &Access::default(), environment) {
        Ok(settings) => {
            let option = settings.terms.name().map_or_else(String::new, |name| format!("?term={name}"));
            format!("{}{}{option}", settings.address(), settings.prefix.trim_end_matches('/'))
        }
        Err(_) => format!("{}:{}", url.scheme, url.rest),
    }
}

fn open(url: &StoreUrl<'_>, access: &Access, hints: Notifier) -> Result<Box<dyn Store>, StoreError> {
    let settings = Settings::new(url, access, environment)?;
    warn_unverified(&settings.address(), settings.tls.as_ref());
    Ok(Box::new(Etcd {
        members: Endpoints::new(settings.clone()),
        settings,
        hints,
        session: None,
        given: false,
        unrevoked: Vec::new(),
        terms: None,
        stays: false,
        observing: QueueObserver::default(),
    }))
}

/// Once the campaigner is dead and its tree is empty, in a process of its own.
fn release_claim(claim: serde_json::Value) -> Pin<Box<dyn Future<Output = Result<(), StoreError>>>> {
    Box::pin(async move {
        let EtcdClaim { settings, lease } = serde_json::from_value(claim)
            .map_err(|error| StoreError::Misused(format!("not a claim on an etcd: {error}")))?;
        let mut members = Endpoints::new(settings);
        until_settled(async || {
            members.try_each(async |mut client: Client| session::revoke(&mut client, lease).await).await
        })
        .await
    })
}

#[async_trait(?Send)]
impl Store for Etcd {
    fn grants_leases(&self) -> bool {
        true
    }

    async fn observe(&mut self, boundary: &Boundary) -> Result<Observation, StoreError> {
        let scope = Scope::new(&self.settings, Some(boundary));
        let mut seen = self.observing.look(&mut self.members, &scope, Detail::Lease).await?;
        seen.pop().map_or_else(|| Ok(Observation::default()), |(_, observation)| observation)
    }

    async fn observe_all(&mut self, depth: Detail) -> Result<Vec<Listing>, StoreError> {
        let scope = Scope::new(&self.settings, None);
        self.observing.look(&mut self.members, &scope, depth).await
    }

    async fn wait_for_change(&mut self, boundary: Option<&Boundary>) {
        let scope = Scope::new(&self.settings, boundary);
        self.observing.changed(&mut self.members, &scope).await;
    }

    async fn boundaries(&mut self) -> Result<Vec<Boundary>, StoreError> {
        let prefix = self.members.prefix().to_owned();
        let keys = self
            .members
            .try_each(async |mut client: Client| {
                let options = GetOptions::new().with_prefix().with_keys_only();
                client.get(prefix.as_str(), Some(options)).await.map_err(classify)
            })
            .await?;
        let mut known = BTreeSet::new();
        for boundary in keys.kvs().iter().filter_map(|pair| keys::boundary(&prefix, pair.key())) {
            insert_boundary(&mut known, boundary);
        }
        Ok(known.into_iter().collect())
    }

    fn claim(&mut self, candidacy: &Candidacy) -> Result<Option<Claim>, StoreError> {
        if self.session.as_ref().is_some_and(Session::is_over) {
            self.give_up_session();
        }
        if self.given {
            return Ok(None);
        }
        let (prefix, hints, scheme) = (self.members.prefix(), &self.hints, self.settings.terms);
        let session =
            self.session.get_or_insert_with(|| Session::new(fresh_lease(), prefix, candidacy, scheme, hints.clone()));
        let claim = EtcdClaim { settings: self.settings.clone(), lease: session.lease() };
        Ok(Some(StoredClaim::pack(KIND.name(), candidacy.ttl.min(RELEASE_TIMEOUT_MAX), &claim)))
    }

    async fn campaign(&mut self, candidacy: &Candidacy) -> Result<CampaignResult, StoreError> {
        self.given = true;
        self.settle().await?;
        let Some(session) = self.session.as_mut() else {
            return Err(StoreError::Unavailable("nobody has claimed a lease".to_owned()));
        };
        let prefix = self.settings.prefix.as_str();
        let new = || Terms::new(self.settings.terms, prefix, &keys::election(prefix, &candidacy.boundary));
        let terms = self.terms.get_or_insert_with(new);
        let stand = async |mut client: Client| session.stand(&mut client, candidacy.ttl, terms).await;
        let standing = self.members.try_each(stand).await;
        match standing {
            Ok(Some(standing)) => {
                if std::mem::replace(&mut self.stays, true) {
                    self.members.look_at_version();
                }
                Ok(standing)
            }
            // The keeper has to know of another lease before there is one.
            Ok(None) => {
                self.given = false;
                let session =
                    self.session.take().ok_or_else(|| StoreError::Unavailable("no candidate stands".to_owned()))?;
                Ok(session.requeue())
            }
            // A candidate that is not to campaign does not stay in the queue.
            Err(error @ (StoreError::Refused(_) | StoreError::Obstacle(_))) => {
                if self.session.as_ref().is_some_and(Session::lease_requested) {
                    self.give_up_session();
                    let _ = self.settle().await;
                }
                Err(error)
            }
            Err(error) => Err(error),
        }
    }

    async fn renew(&mut self, candidacy: &Candidacy) -> Result<RenewResult, StoreError> {
        let (Some(session), Some(terms)) = (self.session.as_mut(), self.terms.as_mut()) else {
            return Ok(RenewResult::Lost { why: "nothing was won".to_owned() });
        };
        let renew = async |mut client: Client| session.renew(&mut client, candidacy, terms).await;
        let renewal = self.members.try_each(renew).await?;
        self.members.look_at_version();
        Ok(renewal)
    }

    async fn release(&mut self, _: &Candidacy) -> Result<(), StoreError> {
        // This session is over, whether or not the attempt succeeds.
        self.give_up_session();
        self.settle().await
    }
}

impl Etcd {
    fn give_up_session(&mut self) {
        if let Some(session) = self.session.take() {
            self.unrevoked.extend(session.lease_requested().then_some(session.lease()));
            self.given = false;
        }
    }

    /// Sees to it that what was given up is gone.
    async fn settle(&mut self) -> Result<(), StoreError> {
        while let Some(&lease) = self.unrevoked.last() {
            self.members.try_each(async |mut client: Client| session::revoke(&mut client, lease).await).await?;
            self.unrevoked.pop();
        }
        Ok(())
    }
}

/// Chosen at random from all that there are: positive, as the server's own.
fn fresh_lease() -> i64 {
    let [high, low] = [uuid::Uuid::new_v4(), uuid::Uuid::new_v4()].map(|uuid| uuid.as_fields().0);
    i64::from(high >> 1) << 32 | i64::from(low)
}
