//! `mongodb://`: one document for each boundary, compared and swapped by the server (DESIGN.md 5.3 and 5.5).
//!
//! MongoDB grants no leases (its TTL monitor comes once a minute). Candidates observe the record, and
//! [`takeover`](elect_core::takeover) says when it may be taken. [`session`] makes it safe.

mod changes;
mod elector;
mod errors;
mod facts;
mod server;
mod session;
mod settings;
mod stored_record;
#[cfg(test)]
mod tests;
mod ttl_index;
mod watch;

use std::collections::BTreeSet;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tracing::warn;

use crate::store::claim_release::{ClaimRelease, until_settled};
use crate::store::connection::setup::ready_for_next;
use crate::store::connection::tls::warn_unverified;
use crate::store::record_store::{self, Backend, RecordStore};
use crate::store::url::{StoreKind, StoreUrl};
use crate::store::{
    Access, CampaignResult, Candidacy, Finding, Listing, Notifier, Observation, RenewResult, Store, StoreError,
};
use elect_core::boundary::Boundary;
use elect_core::takeover::Reservation;
use elect_keeper::clock;
use server::{ClientSlot, attempt};
use session::Session;
use settings::{MongoUrl, Settings};
use stored_record::StoredRecord;
use ttl_index::IndexCreation;
use watch::{ChangesWatch, Watcher};

pub const KIND: StoreKind = StoreKind {
    schemes: &["mongodb", "mongodb+srv"],
    form: "mongodb://HOST:PORT/DB",
    about: "a MongoDB; mongodb+srv://NAME/DB asks the DNS for its members",
    port: Some(27017),
    mistaken: &[("mongo", "mongodb")],
    reach: "all hosts",
    check: |url| MongoUrl::parse(url).map(drop),
    show: |url| MongoUrl::parse(url).map_or_else(|_| format!("{}:…", url.scheme), |target| target.address()),
    open,
    claim_release: ClaimRelease::Executed(release_claim),
    shortest_times: (Duration::ZERO, Duration::ZERO),
    is_observed: true,
    label_pod: None,
    boundary: None,
};

struct MongoDb {
    settings: Settings,
    link: ClientSlot,
    /// Whether the collection's indexes have been looked at, and a write was confirmed.
    knows_server: bool,
    /// An index that may remove the record of a leader has been reported.
    has_warned_of_index: bool,
    /// The index of elect's own.
    index: IndexCreation,
    /// For an observer: something may have changed.
    news: Rc<Notify>,
}

/// The data that the keeper needs: the access settings, and the record to free.
#[derive(Debug, Serialize, Deserialize)]
struct MongoDbClaim {
    settings: Settings,
    boundary: String,
    id: String,
}

fn open(url: &StoreUrl<'_>, access: &Access, hints: Notifier) -> Result<Box<dyn Store>, StoreError> {
    let settings = Settings::new(url, access)?;
    warn_unverified(&settings.shown, Some(&settings.tls));
    let mongodb = MongoDb {
        settings,
        link: ClientSlot::default(),
        knows_server: false,
        has_warned_of_index: false,
        index: IndexCreation::default(),
        news: Rc::new(Notify::new()),
    };
    Ok(Box::new(RecordStore::new(mongodb, hints)))
}

/// Once the campaigner is dead and its tree is empty, in a process of its own.
fn release_claim(claim: serde_json::Value) -> Pin<Box<dyn Future<Output = Result<(), StoreError>>>> {
    Box::pin(async move {
        let misused = |error: &dyn std::fmt::Display| StoreError::Misused(format!("not a claim on a MongoDB: {error}"));
        let MongoDbClaim { settings, boundary, id } = serde_json::from_value(claim).map_err(|error| misused(&error))?;
        let mut link = ClientSlot::default();
        until_settled(async || {
            attempt(&settings, &mut link, async |server| session::release_for_dead(server, &boundary, &id).await).await
        })
        .await
    })
}

impl Backend for MongoDb {
    type Session = Session;
    type Claim = MongoDbClaim;

    fn kind(&self) -> &'static str {
        KIND.name()
    }

    async fn observe(&mut self, boundary: &Boundary) -> Result<Observation, StoreError> {
        attempt(&self.settings, &mut self.link, async |server| {
            let seen = server.observe(boundary.as_str()).await?;
            // To those who look on, an abandoned record is no leader, and nothing more.
            let seen = seen.map_or_else(Observation::default, |stored| stored.observation());
            let obstacle = match seen.leader {
                Some(_) => None,
                None => server.find_elector(boundary.as_str()).await?,
            };
            Ok(Observation { obstacle, ..seen })
        })
        .await
    }

    async fn boundaries(&mut self) -> Result<Vec<Boundary>, StoreError> {
        let all = attempt(&self.settings, &mut self.link, async |server| server.observe_all().await).await?;
        let known: BTreeSet<Boundary> = all.iter().filter_map(stored_record::boundary).collect();
        Ok(known.into_iter().collect())
    }

    async fn observe_all(&mut self) -> Result<Vec<Listing>, StoreError> {
        let all = attempt(&self.settings, &mut self.link, async |server| server.observe_all().await).await?;
        let mut seen: Vec<Listing> = Vec::new();
        for document in &all {
            if let Some(boundary) = stored_record::boundary(document) {
                let observation =
                    StoredRecord::read(document).map(|stored| Observation { obstacle: None, ..stored.observation() });
                seen.push((boundary, observation));
            }
        }
        seen.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(seen)
    }

    async fn wait_for_change(&mut self, boundary: Option<&Boundary>) {
        // The next look connects, and says why if it cannot.
        let Some(server) = self.link.server.as_mut() else { return std::future::pending().await };
        if !server.watch.as_ref().is_some_and(ChangesWatch::is_settled) {
            let (changes, news) = (server.changes(), Rc::clone(&self.news));
            let boundary = boundary.map(Boundary::to_string);
            server.watch = Some(ChangesWatch::begin(changes, boundary, Watcher::Observer, move || news.notify_one()));
        }
        self.news.notified().await;
    }

    async fn facts(&mut self) -> Vec<Finding> {
        attempt(&self.settings, &mut self.link, async |server| Ok(facts::facts(server).await)).await.unwrap_or_default()
    }

    fn claim(&self, candidacy: &Candidacy) -> MongoDbClaim {
        MongoDbClaim {
            settings: self.settings.clone(),
            boundary: candidacy.boundary.to_string(),
            id: candidacy.identity.id.clone(),
        }
    }

    fn session(&self, candidacy: &Candidacy) -> Session {
        Session::new(candidacy, self.settings.renew_interval)
    }

    async fn campaign(
        &mut self,
        session: &mut Session,
        hints: &Notifier,
        candidacy: &Candidacy,
    ) -> Result<CampaignResult, StoreError> {
        let (knows_server, has_warned) = (&mut self.knows_server, &mut self.has_warned_of_index);
        attempt(&self.settings, &mut self.link, async |server| {
            if !*knows_server {
                let began = clock::now();
                let unsafe_index = ttl_index::find_unsafe_index(&server.boundaries).await;
                if let Some(index) = unsafe_index.map_err(|error| server.classify(&error))? {
                    if !std::mem::replace(has_warned, true) {
                        warn!(
                            "the index {index} on the collection boundaries may remove the record of a leader: drop it"
                        );
                    }
                    session.set_volatile();
                }
                // The take of a free record waits for no confirmation. Where none can be had, that has to be said before anything is won (S6).
                server.confirm_all(candidacy.boundary.as_str()).await?;
                *knows_server = true;
                // The campaign that follows is one request more than these. On a slow network the next attempt has its whole time for that.
                if server.attempt_left() < clock::now().since(began) * 2 {
                    return Err(ready_for_next(&server.address));
                }
            }
            let result = record_store::campaign(session, server, candidacy).await?;
            if let CampaignResult::Waiting { .. } = result {
                session.listen(server, hints);
            }
            Ok(result)
        })
        .await
    }

    async fn renew(
        &mut self,
        session: &mut Session,
        _: &Notifier,
        candidacy: &Candidacy,
    ) -> Result<RenewResult, StoreError> {
        let own_index = &self.index;
        attempt(&self.settings, &mut self.link, async |server| {
            let renewal = session.renew(server, candidacy).await?;
            if let RenewResult::Credited { .. } = renewal {
                session.announce(server, candidacy, own_index);
            }
            Ok(renewal)
        })
        .await
    }

    fn may_hold(session: &Session) -> bool {
        session.may_hold()
    }

    async fn leave_crowd(&mut self, _: &Session) {
        if let Some(watch) = self.link.server.as_ref().and_then(|server| server.watch.as_ref()) {
            watch.leave_crowd();
        }
    }

    async fn release(
        &mut self,
        session: &mut Session,
        reservation: Option<&Reservation<String>>,
    ) -> Result<(), StoreError> {
        attempt(&self.settings, &mut self.link, async |server| session.release(server, reservation).await).await
    }
}
