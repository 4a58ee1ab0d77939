//! `mongodb://`: one document for each boundary, compared and swapped by the server (DESIGN.md 5.3 and 5.5).
//!
//! MongoDB grants no leases (its TTL monitor comes once a minute). Candidates observe the record, and
//! [`takeover`](elect_core::takeover) says when it may be taken. What makes it safe is in [`seat`].

mod errors;
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

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tracing::warn;

use super::claim_release::{ClaimRelease, RELEASE_TIMEOUT_MAX, StoredClaim};
use super::url::{StoreKind, StoreUrl};
use super::{
    Access, CampaignResult, Candidacy, Detail, Listing, Notifier, Observation, RenewResult, Store, StoreError,
};
use elect_core::boundary::Boundary;
use elect_keeper::Claim;
use server::{MongoServer, attempt};
use session::Session;
use settings::{MongoUrl, Settings};
use stored_record::StoredRecord;
use watch::ChangeStreamWatch;

pub const KIND: StoreKind = StoreKind {
    schemes: &["mongodb", "mongodb+srv"],
    form: "mongodb://HOST:PORT/DB",
    about: "a MongoDB; mongodb+srv://NAME/DB asks the DNS for its members",
    reach: "every host that reaches this MongoDB",
    check: |url| MongoUrl::parse(url).map(drop),
    show: |url| MongoUrl::parse(url).map_or_else(|_| format!("{}:…", url.scheme), |target| target.address()),
    open,
    relinquish: ClaimRelease::Executed(relinquish),
};

struct MongoDb {
    settings: Settings,
    hints: Notifier,
    /// `None`: to be connected to by the next attempt.
    server: Option<MongoServer>,
    seat: Option<Session>,
    /// Whether the keeper has the claim: we are asked to campaign only then.
    given: bool,
    /// Whether the collection's indexes have been looked at, and one of our own has been seen to.
    tidied: bool,
    /// For an observer: something may have changed.
    news: Rc<Notify>,
}

/// What the keeper needs: how to get in, and whose record to free.
#[derive(Debug, Serialize, Deserialize)]
struct MongoDbClaim {
    settings: Settings,
    boundary: String,
    id: String,
}

fn open(url: &StoreUrl<'_>, access: &Access, hints: Notifier) -> Result<Box<dyn Store>, StoreError> {
    let settings = Settings::new(url, access)?;
    let news = Rc::new(Notify::new());
    Ok(Box::new(MongoDb { settings, hints, server: None, seat: None, given: false, tidied: false, news }))
}

/// Once the campaigner is dead and its tree is empty, in a process of its own.
fn relinquish(claim: serde_json::Value) -> Pin<Box<dyn Future<Output = Result<(), StoreError>>>> {
    Box::pin(async move {
        let misused = |error: &dyn std::fmt::Display| StoreError::Misused(format!("not a claim on a MongoDB: {error}"));
        let MongoDbClaim { settings, boundary, id } = serde_json::from_value(claim).map_err(|error| misused(&error))?;
        attempt(&settings, &mut None, async |server| session::bequeath(server, &boundary, &id).await).await
    })
}

#[async_trait(?Send)]
impl Store for MongoDb {
    fn grants_leases(&self) -> bool {
        true
    }

    async fn look(&mut self, boundary: &Boundary) -> Result<Observation, StoreError> {
        let seen =
            attempt(&self.settings, &mut self.server, async |server| server.look(boundary.as_str()).await).await?;
        // To those who look on, an abandoned record is no leader, and nothing more.
        Ok(seen.map_or_else(Observation::default, |entry| Observation { obstacle: None, ..entry.sighting() }))
    }

    async fn boundaries(&mut self) -> Result<Vec<Boundary>, StoreError> {
        let all = attempt(&self.settings, &mut self.server, async |server| server.look_at_all().await).await?;
        let known: BTreeSet<Boundary> = all.iter().filter_map(stored_record::boundary).collect();
        Ok(known.into_iter().collect())
    }

    async fn survey(&mut self, _: Detail) -> Result<Vec<Listing>, StoreError> {
        let all = attempt(&self.settings, &mut self.server, async |server| server.look_at_all().await).await?;
        let mut seen: Vec<Listing> = Vec::new();
        for document in &all {
            if let Some(boundary) = stored_record::boundary(document) {
                let sighting =
                    StoredRecord::read(document).map(|entry| Observation { obstacle: None, ..entry.sighting() });
                seen.push((boundary, sighting));
            }
        }
        seen.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(seen)
    }

    async fn changed(&mut self, boundary: Option<&Boundary>) {
        // The next look connects, and says why if it cannot. Without a replica set there are no streams.
        let Some(server) = self.server.as_mut().filter(|server| server.is_replicated) else {
            return std::future::pending().await;
        };
        if !server.watch.as_ref().is_some_and(ChangeStreamWatch::is_alive) {
            let news = Rc::clone(&self.news);
            let boundary = boundary.map(Boundary::to_string);
            server.watch = Some(ChangeStreamWatch::begin(
                server.boundaries.clone(),
                boundary,
                None,
                None::<std::future::Ready<()>>,
                move |_| news.notify_one(),
            ));
        }
        self.news.notified().await;
    }

    fn claim(&mut self, candidacy: &Candidacy) -> Result<Option<Claim>, StoreError> {
        if self.given {
            return Ok(None);
        }
        let claim = MongoDbClaim {
            settings: self.settings.clone(),
            boundary: candidacy.boundary.to_string(),
            id: candidacy.identity.id.clone(),
        };
        Ok(Some(StoredClaim::pack(KIND.name(), candidacy.ttl.min(RELEASE_TIMEOUT_MAX), &claim)))
    }

    async fn campaign(&mut self, candidacy: &Candidacy) -> Result<CampaignResult, StoreError> {
        self.given = true;
        let (hints, tidied) = (&self.hints, &mut self.tidied);
        let seat = self.seat.get_or_insert_with(|| Session::new(candidacy));
        attempt(&self.settings, &mut self.server, async |server| {
            if !*tidied && let Some(index) = ttl_index::threat(&server.boundaries).await {
                warn!("the index {index} on the collection boundaries may remove the record of a leader: drop it");
                seat.distrust();
            }
            let tidies = !std::mem::replace(tidied, true);
            let standing = seat.stand(server, candidacy).await?;
            seat.listen(server, hints, tidies);
            Ok(standing)
        })
        .await
    }

    async fn renew(&mut self, candidacy: &Candidacy) -> Result<RenewResult, StoreError> {
        let hints = &self.hints;
        let Some(seat) = self.seat.as_mut() else {
            return Ok(RenewResult::Lost { why: "nothing was won".to_owned() });
        };
        attempt(&self.settings, &mut self.server, async |server| {
            let renewal = seat.renew(server, candidacy).await?;
            seat.listen(server, hints, false);
            Ok(renewal)
        })
        .await
    }

    async fn release(&mut self, _: &Candidacy) -> Result<(), StoreError> {
        let Some(seat) = self.seat.as_mut().filter(|seat| seat.may_hold()) else { return Ok(()) };
        attempt(&self.settings, &mut self.server, async |server| seat.release(server).await).await
    }
}
