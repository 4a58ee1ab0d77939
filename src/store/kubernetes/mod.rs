//! `kubernetes:`: one Lease for each boundary, compared and swapped by the API server (DESIGN.md 5.3 and 5.7).
//!
//! The layout is that of client-go's leader election, whose programs take part in the same election. An API server grants no
//! leases: candidates observe the record, and [`takeover`](elect_core::takeover) says when it may be taken. [`session`] makes it
//! safe.

mod connection;
mod errors;
mod facts;
mod lease_ages;
mod name;
mod object;
mod pod_label;
mod server;
mod session;
mod settings;
mod stored_record;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::BTreeMap;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::store::claim_release::{ClaimRelease, until_settled};
use crate::store::connection::tls::warn_unverified;
use crate::store::pod_label::PodLabel;
use crate::store::record_store::{self, Backend, RecordStore};
use crate::store::url::{StoreKind, StoreUrl};
use crate::store::{
    Access, CampaignResult, Candidacy, Finding, Listing, Notifier, Observation, RenewResult, Store, StoreError,
};
use elect_core::boundary::Boundary;
use elect_core::limits::{BOUNDARIES_MAX, cut_name};
use elect_core::takeover::{Reservation, Vacancy};
use lease_ages::LeaseAges;
use name::lease_name;
use object::LeaseObject;
use server::{KubernetesLink, KubernetesServer, attempt};
use session::Session;
use settings::{DEFAULT_PORT, KubernetesUrl, PLAIN_SCHEME, SERVICE_ACCOUNT, Settings};
use stored_record::StoredRecord;
use watch::{LeaseHint, LeaseWatch, WatchScope};

pub const KIND: StoreKind = StoreKind {
    schemes: &["kubernetes", PLAIN_SCHEME],
    form: "kubernetes:NAMESPACE",
    about: "a Lease in Kubernetes, from a pod; from outside kubernetes://HOST:PORT/NAMESPACE",
    port: Some(DEFAULT_PORT),
    mistaken: &[("k8s", "kubernetes"), ("kube", "kubernetes")],
    reach: "all hosts",
    check: |url| KubernetesUrl::parse(url).map(drop),
    show: |url| {
        KubernetesUrl::parse(url).map_or_else(|_| format!("{}:…", url.scheme), |target| target.shown(url.scheme))
    },
    open,
    claim_release: ClaimRelease::Executed(release_claim),
    // The clients of other programs compare times of whole seconds, and would see nothing of renewals that come sooner.
    shortest_times: (Duration::from_secs(5), Duration::from_secs(1)),
    is_observed: true,
    label_pod: Some(label_pod),
    boundary: None,
};

struct Kubernetes {
    settings: Settings,
    link: KubernetesLink,
    /// Whether every right has been tried that an election needs.
    knows_rights: bool,
    ages: LeaseAges,
    /// After which version an observer's watch begins.
    seen_version: Option<String>,
    /// An observer's.
    watch: Option<LeaseWatch>,
    /// For an observer: something may have changed.
    news: Arc<Notify>,
}

/// The data that the keeper needs: the access settings, and the record to free.
#[derive(Debug, Serialize, Deserialize)]
struct KubernetesClaim {
    settings: Settings,
    boundary: String,
    id: String,
}

fn open(url: &StoreUrl<'_>, access: &Access, hints: Notifier) -> Result<Box<dyn Store>, StoreError> {
    let settings = Settings::new(url, access, Path::new(SERVICE_ACCOUNT), |name| std::env::var(name).ok())?;
    warn_unverified(&settings.shown, settings.tls.as_ref());
    let kubernetes = Kubernetes {
        settings,
        link: KubernetesLink::default(),
        knows_rights: false,
        ages: LeaseAges::default(),
        seen_version: None,
        watch: None,
        news: Arc::new(Notify::new()),
    };
    Ok(Box::new(RecordStore::new(kubernetes, hints)))
}

/// Fails if the key is none, or the pod is not known.
fn label_pod(url: &StoreUrl<'_>, access: &Access, key: &str) -> Result<PodLabel, StoreError> {
    let variable = |name: &str| std::env::var(name).ok();
    pod_label::begin(Settings::new(url, access, Path::new(SERVICE_ACCOUNT), variable)?, key, variable)
}

/// Once the campaigner is dead and its tree is empty, in a process of its own.
fn release_claim(claim: serde_json::Value) -> Pin<Box<dyn Future<Output = Result<(), StoreError>>>> {
    Box::pin(async move {
        let misused = |error: &dyn std::fmt::Display| StoreError::Misused(format!("not a claim on a Lease: {error}"));
        let KubernetesClaim { settings, boundary, id } =
            serde_json::from_value(claim).map_err(|error| misused(&error))?;
        let boundary: Boundary = boundary.parse().map_err(|error| misused(&error))?;
        let mut link = KubernetesLink::default();
        until_settled(async || {
            attempt(&settings, &mut link, async |server| session::release_for_dead(server, &boundary, &id).await).await
        })
        .await
    })
}

impl Kubernetes {
    /// To those who look on, an abandoned record is no leader, and nothing more.
    fn shown(&mut self, object: &serde_json::Value, now: u64) -> Result<Observation, StoreError> {
        let stored = StoredRecord::read(object)?;
        let name = cut_name(object["metadata"]["name"].as_str().unwrap_or_default().to_owned());
        let left = self.ages.left(&name, &stored, now);
        Ok(Observation { obstacle: None, ..stored.observation(left) })
    }

    /// Tries every right once that an election may need later, so that a missing one ends the program at its start (77). Returns
    /// the watch that was begun for that.
    async fn prove_rights(
        server: &mut KubernetesServer,
        session: &Session,
        hints: &Notifier,
        candidacy: &Candidacy,
    ) -> Result<LeaseWatch, StoreError> {
        let nothing = Vacancy { nonce: 0, ttl: candidacy.ttl, term: 0 };
        let trial = LeaseObject::new(&candidacy.boundary, &server.settings.namespace);
        let trial = trial.vacant(&candidacy.boundary, nothing).finish();
        server.observe(session.lease_name()).await?;
        server.prove_rights(session.lease_name(), &trial).await?;
        let (watch, opening) = begin_watch(&server.settings, session, hints);
        // It is only a hint: one that does not begin must not use up the attempt.
        match timeout(server.settings.limits.attempt / 2, opening).await {
            Ok(Ok(Err(error @ StoreError::Refused(_)))) => Err(error),
            Ok(Ok(Ok(()) | Err(_)) | Err(_)) | Err(_) => Ok(watch),
        }
    }
}

fn begin_watch(settings: &Settings, session: &Session, hints: &Notifier) -> (LeaseWatch, watch::Opening) {
    let hints = hints.clone();
    let scope = WatchScope {
        name: Some(session.lease_name().to_owned()),
        since: session.resource_version(),
        own: Some(session.own().clone()),
    };
    LeaseWatch::begin(settings, scope, move |hint| match hint {
        LeaseHint::Change => hints.changed(),
        LeaseHint::Ousted(term) => hints.lost(term),
    })
}

/// Begins to watch for changes, if no watch is alive.
fn listen(settings: &Settings, session: &mut Session, hints: &Notifier) {
    if !session.watch.as_mut().is_some_and(LeaseWatch::is_alive) {
        session.watch = Some(begin_watch(settings, session, hints).0);
    }
}

impl Backend for Kubernetes {
    type Session = Session;
    type Claim = KubernetesClaim;

    fn kind(&self) -> &'static str {
        KIND.name()
    }

    async fn observe(&mut self, boundary: &Boundary) -> Result<Observation, StoreError> {
        let name = lease_name(boundary);
        let snapshot = attempt(&self.settings, &mut self.link, async |server| server.observe(&name).await).await?;
        let Some(object) = snapshot.object else {
            self.seen_version = None;
            return Ok(Observation::default());
        };
        self.seen_version = object["metadata"]["resourceVersion"].as_str().map(str::to_owned);
        self.shown(&object, snapshot.now)
    }

    async fn boundaries(&mut self) -> Result<Vec<Boundary>, StoreError> {
        Ok(self.observe_all().await?.into_iter().map(|(boundary, _)| boundary).collect())
    }

    async fn observe_all(&mut self) -> Result<Vec<Listing>, StoreError> {
        let list = attempt(&self.settings, &mut self.link, async |server| server.list(BOUNDARIES_MAX).await).await?;
        self.seen_version.clone_from(&list.version);
        let mut seen = BTreeMap::new();
        for object in &list.objects {
            // Leases whose name is no boundary's are none of elect's business.
            if let Some(boundary) = stored_record::boundary(object) {
                seen.insert(boundary, self.shown(object, list.now));
            }
        }
        Ok(seen.into_iter().collect())
    }

    async fn wait_for_change(&mut self, boundary: Option<&Boundary>) {
        if !self.watch.as_mut().is_some_and(LeaseWatch::is_alive) {
            let news = Arc::clone(&self.news);
            let since = self.seen_version.clone();
            let scope = WatchScope { name: boundary.map(lease_name), since, own: None };
            self.watch = Some(LeaseWatch::begin(&self.settings, scope, move |_| news.notify_one()).0);
        }
        self.news.notified().await;
    }

    async fn facts(&mut self) -> Vec<Finding> {
        attempt(&self.settings, &mut self.link, async |server| facts::facts(server).await).await.unwrap_or_default()
    }

    fn claim(&self, candidacy: &Candidacy) -> KubernetesClaim {
        KubernetesClaim {
            settings: self.settings.clone(),
            boundary: candidacy.boundary.to_string(),
            id: candidacy.identity.id.clone(),
        }
    }

    fn session(&self, candidacy: &Candidacy) -> Session {
        Session::new(candidacy)
    }

    async fn campaign(
        &mut self,
        session: &mut Session,
        hints: &Notifier,
        candidacy: &Candidacy,
    ) -> Result<CampaignResult, StoreError> {
        let knows_rights = &mut self.knows_rights;
        attempt(&self.settings, &mut self.link, async |server| {
            if !*knows_rights {
                session.watch = Some(Kubernetes::prove_rights(server, session, hints, candidacy).await?);
                *knows_rights = true;
            }
            let result = record_store::campaign(session, server, candidacy).await?;
            listen(&server.settings, session, hints);
            Ok(result)
        })
        .await
    }

    async fn renew(
        &mut self,
        session: &mut Session,
        hints: &Notifier,
        candidacy: &Candidacy,
    ) -> Result<RenewResult, StoreError> {
        if let Some(until) = session.pause_limit() {
            self.link.shorten_pause(until);
        }
        attempt(&self.settings, &mut self.link, async |server| {
            let renewal = session.renew(server, candidacy).await?;
            listen(&server.settings, session, hints);
            Ok(renewal)
        })
        .await
    }

    fn may_hold(session: &Session) -> bool {
        session.may_hold()
    }

    async fn release(
        &mut self,
        session: &mut Session,
        reservation: Option<&Reservation<String>>,
    ) -> Result<(), StoreError> {
        attempt(&self.settings, &mut self.link, async |server| session.release(server, reservation).await).await
    }
}
