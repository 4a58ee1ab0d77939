//! Notifications: which connections of candidates listen for them, and the proof that they arrive.
//!
//! A candidate's connection is named after its boundary while it listens, so that each of them can count the others: among many a
//! few listen ([`crowd`]). The name that a user gives to the connections in the URL is not used, see [`url`](super::super::url).

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tokio_postgres::types::Type;
use tracing::{debug, info};

use super::super::connection::{NAME, ServerPlace, open};
use super::super::errors::is_denial;
use super::super::notices::{Heard, PROOFS};
use super::super::settings::{Host, Settings};
use super::{Parameter, PostgresServer, value};
use crate::store::connection::setup::Accepted;
use crate::store::crowd::{self, Choice};
use crate::store::{Notifier, StoreError};
use elect_core::Time;
use elect_keeper::clock;

/// The bytes of a connection's name that the server keeps.
const NAME_BYTES_MAX: usize = 63;
/// Between two hints, however many notifications there are.
const HINT_INTERVAL: Duration = Duration::from_millis(10);

/// Whether a candidate listens, for the whole of its candidacy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Listening {
    /// On each connection.
    #[default]
    Always,
    /// The same, until the listeners are counted.
    UntilCounted(Time),
    /// Enough others did: not before this.
    RestsUntil(Time),
}

impl Listening {
    /// Begins or ends to listen, if it is time for that.
    ///
    /// # Errors
    ///
    /// The server does not answer, or refuses.
    pub async fn refresh(
        &mut self,
        server: &mut PostgresServer,
        settings: &Settings,
        hints: &Notifier,
        boundary: &str,
    ) -> Result<(), StoreError> {
        let now = clock::now();
        match *self {
            Listening::RestsUntil(until) if now < until => {}
            Listening::RestsUntil(_) => {
                let listeners = server.count_listeners(boundary).await?;
                if crowd::has_room(listeners) {
                    self.begin(server, hints, boundary).await?;
                } else {
                    self.rest(listeners);
                }
            }
            // The connection is another one.
            Listening::Always | Listening::UntilCounted(_) if !server.is_listening => {
                self.begin(server, hints, boundary).await?;
            }
            Listening::UntilCounted(at) if at <= now => {
                let listeners = server.count_listeners(boundary).await?;
                match crowd::choose(listeners) {
                    Choice::Listen => {
                        *self = Listening::Always;
                        server.prove_delivery(settings);
                    }
                    Choice::CountAgain => *self = Listening::UntilCounted(now + crowd::count_delay()),
                    Choice::Rest => {
                        server.stop_listening().await?;
                        self.rest(listeners);
                    }
                }
            }
            Listening::Always | Listening::UntilCounted(_) => {}
        }
        Ok(())
    }

    /// Whether it leaves the notifications to the others.
    pub fn rests(self) -> bool {
        matches!(self, Listening::RestsUntil(_))
    }

    /// Another candidate leads, which has listened until now: this one may be needed in its place.
    pub fn note_handover(&mut self) {
        if self.rests() && crowd::counts_after_handover() {
            *self = Listening::RestsUntil(clock::now());
        }
    }

    async fn begin(&mut self, server: &mut PostgresServer, hints: &Notifier, boundary: &str) -> Result<(), StoreError> {
        server.listen(Some(boundary)).await?;
        *self = Listening::UntilCounted(clock::now() + crowd::count_delay());
        pass_on(server, hints);
        Ok(())
    }

    /// Leaves the notifications to the others.
    fn rest(&mut self, listeners: usize) {
        debug!("no hints for now: {listeners} connections listen for them, which are enough");
        *self = Listening::RestsUntil(clock::now() + crowd::rest());
    }
}

/// Tells the candidate of the notifications on a connection.
fn pass_on(server: &mut PostgresServer, hints: &Notifier) {
    if std::mem::replace(&mut server.is_heard, true) {
        return;
    }
    let (hints, ear) = (hints.clone(), Arc::clone(&server.ear));
    // Not watched: it ends with the connection, and then the next question begins another.
    tokio::task::spawn_local(async move {
        while ear.next().await == Heard::Change {
            hints.changed();
            // A flood of notifications must not become a flood of questions.
            tokio::time::sleep(HINT_INTERVAL).await;
        }
    });
}

impl PostgresServer {
    /// Begins to listen for the changes of one boundary, or of all.
    pub async fn listen(&mut self, boundary: Option<&str>) -> Result<(), StoreError> {
        self.ear.attend(boundary);
        self.ask_named("LISTEN elect", &boundary.map_or_else(|| NAME.to_owned(), listener_name)).await?;
        self.is_listening = true;
        Ok(())
    }

    /// Has notifications sent by another connection, and reports if they do not arrive: a pooler that shares connections accepts LISTEN,
    /// and passes on what arrives within an answer, such as a notification that the connection sends to itself, and nothing else.
    /// Must be called inside a [`tokio::task::LocalSet`].
    pub fn prove_delivery(&self, settings: &Settings) {
        if self.ear.is_proven() {
            return;
        }
        let proof = format!("? {}", uuid::Uuid::new_v4());
        self.ear.expect_proof(&proof);
        let (ear, limit, address) = (Arc::downgrade(&self.ear), self.limit, self.address().to_owned());
        let (settings, host, place) = (settings.clone(), self.host.clone(), self.place.clone());
        // Not watched: it only reports.
        tokio::task::spawn_local(async move {
            let send = send_proofs(&settings, &host, &place, &proof);
            if let Err(error) = timeout(limit * 2, send).await.unwrap_or_else(|_| Err(settings.silent(&host))) {
                return debug!("postgres: it is not known whether notifications are delivered: {error}");
            }
            sleep(limit).await;
            if ear.upgrade().is_some_and(|ear| ear.lacks_proof(&proof)) {
                info!(
                    "{address} delivers no notifications, as behind a pooler: the record is read every renewal interval"
                );
            }
        });
    }

    /// Ends what [`PostgresServer::listen`] has begun.
    pub async fn stop_listening(&mut self) -> Result<(), StoreError> {
        self.ear.stop_attending();
        self.ask_named("UNLISTEN elect", NAME).await?;
        self.is_listening = false;
        Ok(())
    }

    /// The connections that listen for the changes of one boundary, of any user. 0, if this user may not know.
    pub async fn count_listeners(&mut self, boundary: &str) -> Result<usize, StoreError> {
        let question = "SELECT count(*) AS listeners FROM pg_stat_activity \
                        WHERE datname = current_database() AND application_name = $1::text";
        let listener = listener_name(boundary);
        match self.wire.client.query_typed_one(question, &[(&listener, Type::TEXT)]).await {
            Ok(row) => Ok(usize::try_from(value::<i64>(&row, "listeners")?).unwrap_or(0)),
            Err(error) if is_denial(&error) => Ok(0),
            Err(error) => Err(self.judge(&error)),
        }
    }

    /// One statement, and a name for this connection, in one round trip.
    async fn ask_named(&mut self, statement: &str, name: &str) -> Result<(), StoreError> {
        let client = &self.wire.client;
        let parameters: [Parameter<'_>; 1] = [(&name, Type::TEXT)];
        let naming = "SELECT set_config('application_name', $1::text, false)";
        let (asked, named) = tokio::join!(client.query_typed(statement, &[]), client.query_typed(naming, &parameters));
        asked.and(named).map_err(|error| self.judge(&error)).map(drop)
    }
}

/// The name of a connection that listens for the changes of a boundary, as the server would shorten it: other bytes would count for nothing.
fn listener_name(boundary: &str) -> String {
    let printable = |byte: char| if byte.is_ascii_graphic() { byte } else { '?' };
    format!("{NAME} {}", boundary.chars().map(printable).collect::<String>()).chars().take(NAME_BYTES_MAX).collect()
}

/// Sends notifications on a connection of its own, at times when the other one has hardly anything to ask.
async fn send_proofs(settings: &Settings, host: &Host, place: &ServerPlace, payload: &str) -> Result<(), StoreError> {
    let wire = open(settings, host, place, &Accepted::default()).await?;
    for _ in 0..PROOFS {
        sleep(settings.limits.attempt / 4).await;
        let statement = "SELECT pg_notify('elect', $1::text)::text";
        let sent = wire.client.query_typed(statement, &[(&payload, Type::TEXT)]).await;
        sent.map_err(|error| wire.peer.classify(&error))?;
    }
    Ok(())
}
