//! `etcd://`: leases, one key per candidate, and the queue that their create revisions are (DESIGN.md 5.2).
//!
//! The election is etcd's own `concurrency.Election`, so that `etcdctl elect` and Go programs take part in it. It is built on
//! leases, transactions and watches, not on the election service, which can name a leader that holds no key (etcd
//! #19597, #17623). [`session`] makes it safe.

mod dialer;
mod endpoints;
mod first_answer;
mod keys;
mod layout;
mod observer;
mod others;
mod peers;
mod session;
mod settings;
mod terms;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::BTreeSet;
use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::{Client, GetOptions};
use serde::{Deserialize, Serialize};
use tracing::{debug, warn};

use crate::store::claim_release::{ClaimRelease, RELEASE_TIMEOUT_MAX, StoredClaim, until_settled};
use crate::store::connection::attempt::within;
use crate::store::connection::tls::warn_unverified;
use crate::store::url::{StoreKind, StoreUrl};
use crate::store::{
    Access, CampaignResult, Candidacy, Detail, Finding, Listing, Notifier, Observation, RenewResult, ReserveResult,
    Store, StoreError,
};
use elect_core::Time;
use elect_core::boundary::Boundary;
use elect_core::limits::insert_boundary;
use elect_core::takeover::Reservation;
use elect_keeper::{Claim, clock};
use endpoints::{Endpoints, classify};
use observer::{QueueObserver, Scope};
use others::{Others, prefix_warning};
use session::{QueueView, Session};
use settings::{EtcdUrl, Settings, boundary};
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
    shortest_times: (Duration::ZERO, Duration::ZERO),
    is_observed: false,
    label_pod: None,
    boundary: Some(boundary),
};

/// How often a spare looks at the queue. A leader between two looks shows by the term that it has stored.
const SPARE_POLL_INTERVAL: Duration = Duration::from_millis(500);

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
    /// The last lease was granted beside a look that found an obstacle or was refused, and no campaign has been answered since.
    granted_in_vain: bool,
    /// Of the boundary that is campaigned for: kept from one session to the next.
    terms: Option<Terms>,
    /// Likewise.
    others: Option<Others>,
    /// For observations of this boundary.
    observed_others: Option<(Boundary, Others)>,
    /// Whether a question has been answered: who asks only once is not told about versions.
    stays: bool,
    observing: QueueObserver,
    /// Of a spare: a key is made only after no candidate has had one for so long.
    takeover_delay: Duration,
    /// Since when there has been none, and the revision of the last term.
    empty: Option<(i64, Time)>,
    /// Until when a candidate that has given up its key for an obstacle rests, and that obstacle.
    rest: Option<(Time, Observation)>,
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
            let prefix = settings.keys.all().unwrap_or_default().trim_end_matches('/');
            format!("{}{prefix}{}", settings.address(), settings.keys.options())
        }
        Err(_) => format!("{}:{}", url.scheme, url.rest),
    }
}

fn open(url: &StoreUrl<'_>, access: &Access, hints: Notifier) -> Result<Box<dyn Store>, StoreError> {
    let settings = Settings::new(url, access, environment)?;
    warn_unverified(&settings.address(), settings.tls.as_ref());
    Ok(Box::new(etcd(settings, hints)))
}

fn etcd(settings: Settings, hints: Notifier) -> Etcd {
    Etcd {
        members: Endpoints::new(settings.clone()),
        settings,
        hints,
        session: None,
        given: false,
        unrevoked: Vec::new(),
        granted_in_vain: false,
        terms: None,
        others: None,
        observed_others: None,
        stays: false,
        observing: QueueObserver::default(),
        takeover_delay: Duration::ZERO,
        empty: None,
        rest: None,
    }
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
        let scope = Scope::of_one(&self.settings.keys, boundary);
        let mut seen = self.observing.look(&mut self.members, &scope, Detail::Lease).await?;
        let observation = seen.pop().map_or_else(|| Ok(Observation::default()), |(_, observation)| observation)?;
        if observation.leader.is_some() {
            return Ok(observation);
        }
        if self.observed_others.as_ref().is_none_or(|(of, _)| of != boundary) {
            self.observed_others = Some((boundary.clone(), Others::new(&self.settings.keys, boundary)));
        }
        let Some((_, others)) = &self.observed_others else { return Ok(observation) };
        others.forget_old_denials(clock::now());
        let look = async |mut client: Client| others.obstacle(&mut client, None).await;
        // That no candidate leads is known without it.
        let obstacle = self.members.try_each(look).await.unwrap_or_else(|error| {
            debug!("other elections cannot be looked at: {error}");
            None
        });
        Ok(Observation { obstacle, ..observation })
    }

    async fn observe_all(&mut self, depth: Detail) -> Result<Vec<Listing>, StoreError> {
        let scope = Scope::of_all(&self.settings.keys)?;
        self.observing.look(&mut self.members, &scope, depth).await
    }

    async fn wait_for_change(&mut self, boundary: Option<&Boundary>) {
        // The observation says why there is no scope.
        let Ok(scope) = Scope::new(&self.settings.keys, boundary) else { return std::future::pending().await };
        self.observing.changed(&mut self.members, &scope).await;
    }

    async fn boundaries(&mut self) -> Result<Vec<Boundary>, StoreError> {
        let scope = Scope::of_all(&self.settings.keys)?;
        let keys = self
            .members
            .try_each(async |mut client: Client| {
                let options = GetOptions::new().with_prefix().with_keys_only();
                client.get(scope.prefix(), Some(options)).await.map_err(classify)
            })
            .await?;
        let mut known = BTreeSet::new();
        for boundary in keys.kvs().iter().filter_map(|pair| scope.of(pair.key())) {
            insert_boundary(&mut known, boundary);
        }
        Ok(known.into_iter().collect())
    }

    async fn facts(&mut self) -> Vec<Finding> {
        self.members.facts().await
    }

    fn claim(&mut self, candidacy: &Candidacy) -> Result<Option<Claim>, StoreError> {
        if self.session.as_ref().is_some_and(Session::is_over) {
            self.give_up_session();
        }
        if self.given {
            return Ok(None);
        }
        let (settings, hints) = (&self.settings, &self.hints);
        let session = self.session.get_or_insert_with(|| {
            Session::new(fresh_lease(), &settings.keys, candidacy, settings.limits.attempt, hints.clone())
        });
        if self.granted_in_vain {
            session.grant_late();
        }
        let claim = EtcdClaim { settings: self.settings.clone(), lease: session.lease() };
        Ok(Some(StoredClaim::pack(KIND.name(), candidacy.ttl.min(RELEASE_TIMEOUT_MAX), &claim)))
    }

    async fn campaign(&mut self, candidacy: &Candidacy) -> Result<CampaignResult, StoreError> {
        let deadline = clock::now() + self.settings.limits.attempt;
        self.given = true;
        self.settle().await?;
        if let Some(waiting) = self.rests() {
            return Ok(waiting);
        }
        if !self.takeover_delay.is_zero()
            && let Some(waiting) = self.delays(candidacy).await?
        {
            return Ok(waiting);
        }
        let Some(session) = self.session.as_mut() else {
            return Err(StoreError::Unavailable("nobody has claimed a lease".to_owned()));
        };
        let terms = self.terms.get_or_insert_with(|| terms_of(&self.settings, candidacy));
        let others = self.others.get_or_insert_with(|| others_of(&self.settings, candidacy));
        let stand = async |mut client: Client| Box::pin(session.stand(&mut client, candidacy.ttl, terms, others)).await;
        let standing = self.members.try_each(stand).await;
        match standing {
            Ok(Some(standing)) => {
                self.granted_in_vain = false;
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
                if !self.session.as_ref().is_some_and(Session::lease_requested) {
                    return Err(error);
                }
                let was_seen = self.session.as_ref().is_some_and(Session::key_requested);
                self.give_up_session();
                self.granted_in_vain |= !was_seen;
                // A refusal has ended the connection: over a new one there is not always time, and the next request begins with it.
                if was_seen || matches!(error, StoreError::Obstacle(_)) {
                    // The finding is told in time, whatever becomes of this.
                    let _ = within(deadline.since(clock::now()) / 2, self.settle()).await;
                }
                if !was_seen {
                    return Err(error);
                }
                let observation = Observation::obstructed(error)?;
                // Two candidates in each other's way, which both have given up, must not come back at the same moment.
                let rest = candidacy.ttl.mul_f64(fastrand::f64().mul_add(0.3, 0.05));
                self.rest = Some((clock::now() + rest, observation.clone()));
                Ok(CampaignResult::Waiting { observation, again: Some(rest), decided: true })
            }
            Err(error) => Err(error),
        }
    }

    async fn renew(&mut self, candidacy: &Candidacy) -> Result<RenewResult, StoreError> {
        let (Some(session), Some(terms)) = (self.session.as_mut(), self.terms.as_mut()) else {
            return Ok(RenewResult::Lost { why: "nothing was won".to_owned() });
        };
        let renew = async |mut client: Client| Ok((session.renew(&mut client, candidacy, terms).await?, client));
        let (renewal, client) = self.members.try_each(renew).await?;
        if let Some(others) = &mut self.others {
            others.look_aside(&client);
        }
        self.members.look_at_version();
        Ok(renewal)
    }

    fn set_takeover_delay(&mut self, delay: Duration) {
        self.takeover_delay = delay;
    }

    async fn reserve(
        &mut self,
        _: &Candidacy,
        reservation: Option<Reservation<String>>,
    ) -> Result<ReserveResult, StoreError> {
        let Some(session) = self.session.as_mut() else {
            return Ok(ReserveResult::Impossible("it leads no longer: nothing was reserved".to_owned()));
        };
        let reserve = async |mut client: Client| session.reserve(&mut client, reservation.as_ref()).await;
        self.members.try_each(reserve).await
    }

    async fn release(&mut self, _: &Candidacy) -> Result<(), StoreError> {
        if let Some(session) = self.session.as_mut().filter(|session| session.hands_over()) {
            let hand_over = async |mut client: Client| session.hand_over(&mut client).await;
            if let Err(error) = self.members.try_each(hand_over).await {
                warn!("the boundary is released, and not left to the successor: {error}");
            }
        }
        // This session is over, whether or not the attempt succeeds.
        self.give_up_session();
        self.settle().await
    }
}

impl Etcd {
    /// The answer to a candidate that rests: it is asked more often than it is to come back, at least once in a renewal interval.
    fn rests(&self) -> Option<CampaignResult> {
        let (until, observation) = self.rest.as_ref()?;
        let left = until.since(clock::now());
        let waiting = || CampaignResult::Waiting { observation: observation.clone(), again: Some(left), decided: true };
        (!left.is_zero()).then(waiting)
    }

    /// The answer to a spare whose time has not come. A place in the queue that it does not need is given up.
    async fn delays(&mut self, candidacy: &Candidacy) -> Result<Option<CampaignResult>, StoreError> {
        let Some(session) = self.session.as_mut() else { return Ok(None) };
        let terms = self.terms.get_or_insert_with(|| terms_of(&self.settings, candidacy));
        let look = async |mut client: Client| session.look(&mut client, terms).await;
        let revision = match self.members.try_each(look).await? {
            QueueView::MayStand => return Ok(None),
            QueueView::Taken(waiting) => {
                self.empty = None;
                if self.session.as_ref().is_some_and(Session::lease_requested) {
                    self.give_up_session();
                    self.settle().await?;
                }
                let CampaignResult::Waiting { observation, decided, .. } = waiting else { return Ok(Some(waiting)) };
                return Ok(Some(CampaignResult::Waiting { observation, again: Some(SPARE_POLL_INTERVAL), decided }));
            }
            QueueView::Empty(revision) => revision,
        };
        let now = clock::now();
        let (_, since) = self.empty.filter(|(last, _)| *last == revision).unwrap_or((revision, now));
        self.empty = Some((revision, since));
        let left = (since + self.takeover_delay).since(now);
        if left.is_zero() {
            return Ok(None);
        }
        let again = Some(left.min(SPARE_POLL_INTERVAL));
        Ok(Some(CampaignResult::Waiting { observation: Observation::default(), again, decided: false }))
    }

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

fn terms_of(settings: &Settings, candidacy: &Candidacy) -> Terms {
    Terms::new(&settings.keys.of(&candidacy.boundary), &candidacy.boundary)
}

fn others_of(settings: &Settings, candidacy: &Candidacy) -> Others {
    if let Some(warning) = prefix_warning(&settings.keys).filter(|_| !settings.keys.ignores_others) {
        warn!("{warning}");
    }
    Others::new(&settings.keys, &candidacy.boundary)
}

/// Chosen at random from all that there are: positive, as the server's own.
fn fresh_lease() -> i64 {
    let [high, low] = [uuid::Uuid::new_v4(), uuid::Uuid::new_v4()].map(|uuid| uuid.as_fields().0);
    i64::from(high >> 1) << 32 | i64::from(low)
}
