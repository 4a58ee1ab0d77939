//! `postgres://`: one row for each boundary, compared and swapped by single statements (DESIGN.md 5.3 and 5.6).
//!
//! PostgreSQL grants no leases, and its advisory locks are neither replicated nor fenced. Candidates observe the record, and
//! [`takeover`](elect_core::takeover) says when it may be taken. [`session`] makes it safe; what each kind of server cannot promise
//! is in the manual.

mod connection;
mod errors;
mod facts;
mod first_row;
mod hosts;
mod message_limit;
mod notices;
mod passfile;
mod server;
mod session;
mod settings;
mod statements;
mod stored_record;
mod table;
#[cfg(test)]
mod tests;
mod url;

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::store::claim_release::{ClaimRelease, until_settled};
use crate::store::connection::tls::warn_unverified;
use crate::store::observer::WATCH_LIFETIME_MIN;
use crate::store::record_store::{self, Backend, RecordStore};
use crate::store::url::{StoreKind, StoreUrl};
use crate::store::{
    Access, CampaignResult, Candidacy, Finding, Listing, Notifier, Observation, RenewResult, Store, StoreError,
};
use connection::NAME;
use elect_core::boundary::Boundary;
use elect_core::takeover::{Basis, Reservation};
use elect_keeper::clock;
use first_row::FirstRowObserver;
use notices::Heard;
use server::{PostgresLink, attempt};
use session::Session;
use settings::Settings;
use stored_record::StoredRecord;
use url::PostgresUrl;

pub const KIND: StoreKind = StoreKind {
    schemes: &["postgres", "postgresql"],
    form: "postgres://HOST:PORT/DB",
    about: "a PostgreSQL; several hosts, of which the primary is used: postgres://HOST:PORT,HOST:PORT/DB",
    port: Some(5432),
    mistaken: &[("pg", "postgres"), ("psql", "postgres"), ("pgsql", "postgres")],
    reach: "all hosts",
    check: |url| PostgresUrl::parse(url).map(drop),
    show: |url| PostgresUrl::parse(url).map_or_else(|_| format!("{}:…", url.scheme), |target| target.address()),
    open,
    claim_release: ClaimRelease::Executed(release_claim),
    shortest_times: (Duration::ZERO, Duration::ZERO),
    is_observed: true,
    label_pod: None,
    boundary: None,
};

struct Postgres {
    settings: Settings,
    link: PostgresLink,
    /// Whether the table has been looked at, or made.
    knows_table: bool,
    first_row: Rc<RefCell<FirstRowObserver>>,
    /// Where the last credited renewal was executed, as the keeper knows it.
    settled: Option<Basis<String>>,
}

/// The data that the keeper needs: the access settings, and the record to free.
#[derive(Debug, Serialize, Deserialize)]
struct PostgresClaim {
    settings: Settings,
    boundary: String,
    id: String,
    /// Where the last credited renewal was executed; `None`: none was credited yet.
    settled: Option<Basis<String>>,
}

fn open(url: &StoreUrl<'_>, access: &Access, hints: Notifier) -> Result<Box<dyn Store>, StoreError> {
    let settings = Settings::new(url, access, |name| std::env::var(name).ok())?;
    if access.tls_skip_verify {
        warn_unverified(&settings.shown, Some(&settings.tls));
    }
    let (link, first_row) = (PostgresLink::default(), Rc::default());
    let postgres = Postgres { settings, link, knows_table: false, first_row, settled: None };
    Ok(Box::new(RecordStore::new(postgres, hints)))
}

/// Once the campaigner is dead and its tree is empty, in a process of its own.
fn release_claim(claim: serde_json::Value) -> Pin<Box<dyn Future<Output = Result<(), StoreError>>>> {
    Box::pin(async move {
        let misused =
            |error: &dyn std::fmt::Display| StoreError::Misused(format!("not a claim on a PostgreSQL: {error}"));
        let PostgresClaim { settings, boundary, id, settled } =
            serde_json::from_value(claim).map_err(|error| misused(&error))?;
        let mut link = PostgresLink::default();
        until_settled(async || {
            attempt(&settings, &mut link, async |server| {
                session::release_for_dead(server, &boundary, &id, settled.as_ref()).await
            })
            .await
        })
        .await
    })
}

impl Backend for Postgres {
    type Session = Session;
    type Claim = PostgresClaim;

    fn kind(&self) -> &'static str {
        KIND.name()
    }

    async fn observe(&mut self, boundary: &Boundary) -> Result<Observation, StoreError> {
        let seen =
            attempt(&self.settings, &mut self.link, async |server| server.observe(boundary.as_str()).await).await?;
        self.first_row.borrow_mut().note(clock::now(), &seen);
        Ok(seen.stored.transpose()?.as_ref().map(StoredRecord::shown).unwrap_or_default())
    }

    async fn boundaries(&mut self) -> Result<Vec<Boundary>, StoreError> {
        Ok(self.observe_all().await?.into_iter().map(|(boundary, _)| boundary).collect())
    }

    async fn observe_all(&mut self) -> Result<Vec<Listing>, StoreError> {
        attempt(&self.settings, &mut self.link, async |server| server.observe_all().await).await
    }

    async fn wait_for_change(&mut self, boundary: Option<&Boundary>) {
        // The next look connects, and says why if it cannot.
        let Some(server) = self.link.server.as_mut().filter(|_| self.settings.listens) else {
            return std::future::pending().await;
        };
        if !server.is_listening {
            if server.listen(boundary.map(Boundary::as_str), NAME).await.is_err() {
                self.link.server = None;
                return std::future::pending().await;
            }
            server.prove_delivery(&self.settings);
            return;
        }
        match server.ear.next().await {
            Heard::Change => {}
            Heard::End => {
                let soon = clock::now().since(server.since) < WATCH_LIFETIME_MIN;
                self.link.server = None;
                if soon {
                    std::future::pending::<()>().await;
                }
            }
        }
    }

    async fn facts(&mut self) -> Vec<Finding> {
        let settings = &self.settings;
        attempt(settings, &mut self.link, async |server| facts::facts(server, settings).await).await.unwrap_or_default()
    }

    fn claim(&self, candidacy: &Candidacy) -> PostgresClaim {
        PostgresClaim {
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
        Session::new(&self.settings, candidacy, Rc::clone(&self.first_row))
    }

    async fn campaign(
        &mut self,
        session: &mut Session,
        hints: &Notifier,
        candidacy: &Candidacy,
    ) -> Result<CampaignResult, StoreError> {
        let (knows_table, settings) = (&mut self.knows_table, &self.settings);
        let result = attempt(settings, &mut self.link, async |server| {
            server.read_others(settings);
            server.check_newest()?;
            if !*knows_table {
                table::ensure(server, settings).await?;
                *knows_table = true;
                server.warn();
                table::tidy(server, candidacy.boundary.as_str()).await?;
            }
            if settings.listens {
                session.listen(server, hints).await?;
            }
            let result = record_store::campaign(session, server, candidacy).await;
            match &result {
                Ok(CampaignResult::Waiting { .. }) => session.count_listeners(server, settings, hints).await,
                Ok(CampaignResult::Won { .. }) if server.is_listening => server.prove_delivery(settings),
                Ok(_) | Err(_) => {}
            }
            // Dropped, or not there yet on the standby that was promoted.
            *knows_table &= !server.lacks_table;
            result
        })
        .await?;
        if !settings.listens && matches!(result, CampaignResult::Waiting { .. }) {
            // `?listen=0` is for servers with few connections: only a leader keeps one.
            self.link.server = None;
        }
        Ok(result)
    }

    async fn renew(
        &mut self,
        session: &mut Session,
        hints: &Notifier,
        candidacy: &Candidacy,
    ) -> Result<RenewResult, StoreError> {
        let settings = &self.settings;
        attempt(settings, &mut self.link, async |server| {
            server.read_others(settings);
            if let Some(term) = session.term() {
                server.others.tell(hints, term);
            }
            session.renew(server, candidacy).await
        })
        .await
    }

    fn may_hold(session: &Session) -> bool {
        session.may_hold()
    }

    async fn leave_crowd(&mut self, session: &Session) {
        if let Some(server) = &mut self.link.server {
            session.leave_crowd(server).await;
        }
        self.link.server.take_if(|server| !server.is_sound);
    }

    async fn release(
        &mut self,
        session: &mut Session,
        reservation: Option<&Reservation<String>>,
    ) -> Result<(), StoreError> {
        attempt(&self.settings, &mut self.link, async |server| {
            session.release(server, reservation).await?;
            session.leave_crowd(server).await;
            Ok(())
        })
        .await
    }
}
