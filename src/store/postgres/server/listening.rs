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
    /// On each connection, until it counts the listeners at this time.
    UntilCounted(Time),
    /// It rests, and counts the listeners at this time.
    RestsUntil(Time),
}

impl Listening {
    /// Before a look: listens on a connection that does not yet, unless this candidate rests.
    ///
    /// # Errors
    ///
    /// The server does not answer, or refuses.
    pub async fn begin(
        &mut self,
        server: &mut PostgresServer,
        hints: &Notifier,
        boundary: &str,
    ) -> Result<(), StoreError> {
        if server.is_listening || self.rests() {
            return Ok(());
        }
        let name = server.listener_name(boundary);
        server.listen(Some(boundary), &name).await?;
        *self = Listening::UntilCounted(clock::now() + crowd::count_delay());
        pass_on(server, hints);
        Ok(())
    }

    /// After a look that has not led to a win: counts the others if it is time for that, and then listens, or rests. A failure ends
    /// the connection, and nothing else.
    pub async fn count(&mut self, server: &mut PostgresServer, settings: &Settings, hints: &Notifier, boundary: &str) {
        let limit = server.limit / 4;
        if timeout(limit, self.count_now(server, hints, boundary)).await.is_err() {
            // An answer may be under way.
            server.is_sound = false;
        }
        if *self == Listening::Always && server.is_listening && server.is_sound {
            server.prove_delivery(settings);
        }
    }

    async fn count_now(&mut self, server: &mut PostgresServer, hints: &Notifier, boundary: &str) {
        let now = clock::now();
        match *self {
            Listening::UntilCounted(at) if at <= now => match server.count_listeners(boundary).await.map(crowd::choose)
            {
                None | Some(Choice::Listen) => *self = Listening::Always,
                Some(Choice::CountAgain) => *self = Listening::UntilCounted(now + crowd::count_delay()),
                Some(Choice::Rest) => {
                    server.stop_listening().await;
                    self.rest();
                }
            },
            Listening::RestsUntil(until) if until <= now => match server.count_listeners(boundary).await {
                Some(listeners) if !crowd::has_room(listeners) => self.rest(),
                Some(_) | None => {
                    *self = Listening::Always;
                    if server.is_sound && self.begin(server, hints, boundary).await.is_ok() {
                        // The record may have changed since the look.
                        hints.changed();
                    }
                }
            },
            Listening::Always | Listening::UntilCounted(_) | Listening::RestsUntil(_) => {}
        }
    }

    /// A candidate that does not campaign for now stops, if there is no room for another one. A failure ends the connection, and nothing
    /// else.
    pub async fn leave(server: &mut PostgresServer, boundary: &str) {
        if !server.is_listening {
            return;
        }
        let limit = server.limit / 4;
        let leaving = async {
            if server.count_listeners(boundary).await.is_some_and(|listeners| !crowd::has_room(listeners)) {
                server.stop_listening().await;
            }
        };
        if timeout(limit, leaving).await.is_err() {
            server.is_sound = false;
        }
    }

    /// Whether it leaves the notifications to the others.
    pub fn rests(self) -> bool {
        matches!(self, Listening::RestsUntil(_))
    }

    /// A candidate that rests counts the others after its next look.
    pub fn end_rest(&mut self) {
        if self.rests() {
            *self = Listening::RestsUntil(clock::now());
        }
    }

    /// Leaves the notifications to the others.
    fn rest(&mut self) {
        debug!("no hints for now: enough other candidates listen for them");
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
    /// Begins to listen for the changes of one boundary, or of all, on a connection that has this name from then on.
    pub async fn listen(&mut self, boundary: Option<&str>, name: &str) -> Result<(), StoreError> {
        self.ear.attend(boundary);
        self.ask_named("LISTEN elect", name).await?;
        self.is_listening = true;
        Ok(())
    }

    /// Has notifications sent by another connection, and reports if they do not arrive: a pooler that shares connections accepts LISTEN,
    /// and passes on what arrives within an answer, such as a notification that the connection sends to itself, and nothing else.
    /// Must be called inside a [`tokio::task::LocalSet`].
    pub fn prove_delivery(&mut self, settings: &Settings) {
        if std::mem::replace(&mut self.is_proof_sent, true) {
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

    /// Ends what [`PostgresServer::listen`] has begun, or the connection.
    async fn stop_listening(&mut self) {
        self.ear.stop_attending();
        self.is_proof_sent = false;
        if self.ask_named("UNLISTEN elect", NAME).await.is_ok() {
            self.is_listening = false;
        } else {
            self.is_sound = false;
        }
    }

    /// The connections of candidates that listen for the changes of one boundary. `None`: the server does not tell.
    async fn count_listeners(&mut self, boundary: &str) -> Option<usize> {
        // A connection whose host is gone may be there for hours; the others look once in a renewal interval, which is at most a minute by default.
        let question = "SELECT count(*) AS listeners FROM pg_stat_activity \
                        WHERE datname = current_database() AND application_name = $1::text \
                        AND (state_change IS NULL OR state_change > clock_timestamp() - interval '2 minutes')";
        let listener = self.listener_name(boundary);
        match self.wire.client.query_typed_one(question, &[(&listener, Type::TEXT)]).await {
            Ok(row) => value::<i64>(&row, "listeners").ok().and_then(|listeners| usize::try_from(listeners).ok()),
            Err(error) => {
                // An answer, whatever it is, says nothing about the election.
                self.is_sound &= error.as_db_error().is_some();
                None
            }
        }
    }

    /// The name of a connection on which a candidate listens for the changes of a boundary, as the server would shorten it. The
    /// number stands for schema and boundary as they are.
    fn listener_name(&self, boundary: &str) -> String {
        // FNV-1a, so that candidates of all builds have the same.
        let bytes = self.schema.bytes().chain([0]).chain(boundary.bytes());
        let number = bytes.fold(0x811c_9dc5_u32, |number, byte| (number ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        let number = format!("{number:08x}");
        let printable = |character: char| if character.is_ascii_graphic() { character } else { '?' };
        let shown = NAME_BYTES_MAX - NAME.len() - number.len() - 2;
        let boundary: String = boundary.chars().map(printable).take(shown).collect();
        format!("{NAME} {boundary} {number}")
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
