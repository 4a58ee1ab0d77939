//! `redis://`: one hash for each boundary, compared and swapped by scripts (DESIGN.md 5.3 and 5.4).
//!
//! Redis grants no leases here (a key that expires by itself is taken by the next one while the last one still runs, and after a
//! restart or a failover there may be two of it). Candidates observe the record, and [`takeover`](elect_core::takeover) says when
//! it may be taken. [`session`] makes it safe; what it cannot promise is in the manual.

mod connection;
mod errors;
mod facts;
mod hint_flags;
mod index;
mod observation;
mod observer;
mod quorum;
mod reply_filter;
mod sentinel;
mod server;
mod session;
mod settings;
mod stored_record;
mod subscriptions;
#[cfg(test)]
mod tests;

use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::store::claim_release::{ClaimRelease, until_settled};
use crate::store::connection::attempt::within;
use crate::store::connection::tls::warn_unverified;
use crate::store::record_store::{self, Backend, RecordStore};
use crate::store::url::{StoreKind, StoreUrl};
use crate::store::{
    Access, CampaignResult, Candidacy, Finding, Listing, Notifier, Observation, RenewResult, Store, StoreError,
};
use elect_core::boundary::Boundary;
use elect_core::takeover::{Basis, Reservation};
use elect_keeper::clock;
use index::BoundaryIndex;
use observer::HintResult;
use server::{Link, RedisServer};
use session::{LuaScripts, Session};
use settings::{RedisUrl, Settings};

pub const KIND: StoreKind = StoreKind {
    schemes: &["redis", "rediss", "redis+sentinel", "rediss+sentinel", "redis+unix"],
    form: "redis://HOST:PORT/DB",
    about: "a Redis, rediss:// for TLS; redis+sentinel://HOST:PORT,…/NAME asks Sentinels for the primary; redis+unix:///PATH",
    port: Some(6379),
    mistaken: &[
        ("unix", "redis+unix"),
        ("redis-socket", "redis+unix"),
        ("redis-sentinel", "redis+sentinel"),
        ("sentinel", "redis+sentinel"),
    ],
    reach: "all hosts",
    check: |url| RedisUrl::parse(url).map(drop),
    show: |url| RedisUrl::parse(url).map_or_else(|_| format!("{}:…", url.scheme), |target| target.address()),
    open,
    claim_release: ClaimRelease::Executed(release_claim),
    shortest_times: (Duration::ZERO, Duration::ZERO),
    is_observed: true,
    label_pod: None,
    boundary: None,
};

struct Redis {
    settings: Settings,
    scripts: Rc<LuaScripts>,
    link: Link,
    index: BoundaryIndex,
    /// Where the last credited renewal was executed, as the keeper knows it.
    settled: Option<Basis<String>>,
}

/// The data that the keeper needs: the access settings, and the record to free.
#[derive(Debug, Serialize, Deserialize)]
struct RedisClaim {
    settings: Settings,
    boundary: String,
    id: String,
    /// Where the last credited renewal was executed; `None`: none was credited yet.
    #[serde(default)]
    settled: Option<Basis<String>>,
}

fn open(url: &StoreUrl<'_>, access: &Access, hints: Notifier) -> Result<Box<dyn Store>, StoreError> {
    let settings = Settings::new(url, access)?;
    warn_unverified(&url.to_string(), settings.tls.as_ref());
    Ok(opened(settings, hints))
}

fn opened(settings: Settings, hints: Notifier) -> Box<dyn Store> {
    let redis = Redis {
        settings,
        scripts: Rc::new(LuaScripts::new()),
        link: Link::default(),
        index: BoundaryIndex::default(),
        settled: None,
    };
    Box::new(RecordStore::new(redis, hints))
}

/// Once the campaigner is dead and its tree is empty, in a process of its own.
fn release_claim(claim: serde_json::Value) -> Pin<Box<dyn Future<Output = Result<(), StoreError>>>> {
    Box::pin(async move {
        let misused = |error: &dyn std::fmt::Display| StoreError::Misused(format!("not a claim on a Redis: {error}"));
        let RedisClaim { settings, boundary, id, settled } =
            serde_json::from_value(claim).map_err(|error| misused(&error))?;
        let boundary: Boundary = boundary.parse().map_err(|error| misused(&error))?;
        let (scripts, mut link) = (LuaScripts::new(), Link::default());
        let key = settings.key(&boundary);
        until_settled(async || {
            attempt(&settings, &mut link, async |server| {
                session::release_for_dead(server, &scripts, &key, &id, settled.as_ref()).await
            })
            .await
        })
        .await
    })
}

/// One attempt, connecting included. The connection is kept if nothing speaks against it.
///
/// Cancellation: may be dropped at any time; what was under way takes its connection along.
async fn attempt<T>(
    settings: &Settings,
    link: &mut Link,
    ask: impl AsyncFnOnce(&mut RedisServer) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let limit = settings.limits.attempt;
    let deadline = clock::now() + limit;
    let attempt = async {
        let mut server = link.take(settings).await?;
        server.deadline = deadline;
        let answer = ask(&mut server).await;
        if server.is_sound {
            link.server = Some(server);
        }
        answer
    };
    within(limit, attempt).await.unwrap_or_else(|| {
        Err(StoreError::Unavailable(format!("{} {}", settings.route, settings.limits.too_slow_for_attempt(limit))))
    })
}

impl Backend for Redis {
    type Session = Session;
    type Claim = RedisClaim;

    fn kind(&self) -> &'static str {
        KIND.name()
    }

    async fn observe(&mut self, boundary: &Boundary) -> Result<Observation, StoreError> {
        let (key, scripts) = (self.settings.key(boundary), &self.scripts);
        let look = async |server: &mut RedisServer| {
            // A candidate that observes does not campaign.
            server.subscriptions.leave();
            observation::observe(server, scripts, &key).await
        };
        attempt(&self.settings, &mut self.link, look).await
    }

    async fn boundaries(&mut self) -> Result<Vec<Boundary>, StoreError> {
        Ok(self.observe_all().await?.into_iter().map(|(boundary, _)| boundary).collect())
    }

    async fn observe_all(&mut self) -> Result<Vec<Listing>, StoreError> {
        let (settings, scripts, index) = (&self.settings, &self.scripts, &mut self.index);
        let list = async |server: &mut RedisServer| index.list(server, settings, &scripts.index).await;
        let boundaries: Vec<Boundary> = attempt(settings, &mut self.link, list).await?.into_iter().collect();
        let keys: Vec<String> = boundaries.iter().map(|boundary| settings.key(boundary)).collect();
        let look = async |server: &mut RedisServer| {
            let seen = observation::observe_all(server, scripts, &keys).await?;
            let (mut listings, mut gone) = (Vec::new(), Vec::new());
            for (boundary, seen) in boundaries.into_iter().zip(seen) {
                match seen.transpose() {
                    Some(seen) => listings.push((boundary, seen)),
                    None => gone.push(boundary),
                }
            }
            index.drop_gone(server, settings, &scripts.index, &gone).await;
            Ok(listings)
        };
        attempt(settings, &mut self.link, look).await
    }

    async fn wait_for_change(&mut self, boundary: Option<&Boundary>) {
        let settings = &self.settings;
        let heard = match &mut self.link.server {
            Some(server) => match boundary {
                Some(boundary) => observer::changed(server, &settings.key(boundary), false).await,
                None => observer::changed(server, &format!("{}*", glob_escape(&settings.prefix)), true).await,
            },
            // The next look connects, and says why if it cannot.
            None => HintResult::None,
        };
        match heard {
            HintResult::Change => {}
            HintResult::None => std::future::pending().await,
            HintResult::End { soon } => {
                self.link.server = None;
                if soon {
                    std::future::pending::<()>().await;
                }
            }
        }
    }

    async fn facts(&mut self) -> Vec<Finding> {
        let replicas = self.settings.replicas;
        let look = async |server: &mut RedisServer| Ok(facts::facts(&server.info().await?, replicas));
        attempt(&self.settings, &mut self.link, look).await.unwrap_or_default()
    }

    fn claim(&self, candidacy: &Candidacy) -> RedisClaim {
        RedisClaim {
            settings: self.settings.clone(),
            boundary: candidacy.boundary.to_string(),
            id: candidacy.identity.id.clone(),
            settled: self.settled.clone(),
        }
    }

    fn update_claim(&mut self, session: &Session) -> bool {
        let Some(settled) = session.settled() else { return false };
        if self.settled.as_ref().is_some_and(|known| settled.continues(known)) {
            return false;
        }
        self.settled = Some(settled.clone());
        true
    }

    fn session(&self, candidacy: &Candidacy) -> Session {
        Session::new(&self.settings, Rc::clone(&self.scripts), candidacy)
    }

    async fn campaign(
        &mut self,
        session: &mut Session,
        hints: &Notifier,
        candidacy: &Candidacy,
    ) -> Result<CampaignResult, StoreError> {
        attempt(&self.settings, &mut self.link, async |server| {
            session.listen(server, hints);
            record_store::campaign(session, server, candidacy).await
        })
        .await
    }

    async fn renew(
        &mut self,
        session: &mut Session,
        _: &Notifier,
        candidacy: &Candidacy,
    ) -> Result<RenewResult, StoreError> {
        attempt(&self.settings, &mut self.link, async |server| session.renew(server, candidacy).await).await
    }

    fn may_hold(session: &Session) -> bool {
        session.may_hold()
    }

    async fn release(
        &mut self,
        session: &mut Session,
        reservation: Option<&Reservation<String>>,
    ) -> Result<(), StoreError> {
        // Also if no server can be reached: nothing that was answered before counts any more.
        session.let_go();
        attempt(&self.settings, &mut self.link, async |server| session.release(server, reservation).await).await
    }
}

/// A text in a pattern that matches nothing else.
pub fn glob_escape(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '^' | '-' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}
