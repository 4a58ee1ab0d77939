//! The driver's client as this store uses it: majority concerns unless a caller says otherwise, the time limit of one attempt, few connections.
//!
//! The driver knows the members of a replica set and finds a new primary by itself. It has no time-out for a connection that
//! has fallen silent, and is slow to look for the next primary; so after a failed attempt the client is dropped with all its
//! connections, and the next attempt begins with a new one.

use std::cell::Cell;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::mongodb::action::{Aggregate, FindOneAndUpdate};
use ::mongodb::bson::{Document, doc};
use ::mongodb::error::Error;
use ::mongodb::event::EventHandler;
use ::mongodb::event::sdam::SdamEvent;
use ::mongodb::options::{
    Acknowledgment, ClientOptions, ReadConcern, ReadPreference, SelectionCriteria, ServerMonitoringMode,
    Tls as DriversTls, TlsOptions, WriteConcern,
};
use ::mongodb::{Client, Collection};

use super::changes::HintCollection;
use super::elector;
use super::errors::{MongoPeer, classify, is_denial, is_still_connecting, is_unconfirmed};
use super::settings::Settings;
use super::stored_record::{NOW, StoredRecord, TOO_LARGE};
use super::watch::ChangesWatch;
use crate::store::connection::attempt::within;
use crate::store::connection::identity::identity;
use crate::store::connection::setup::{Accepted, ConnectionSetup, Readiness, SetupTarget, ready_for_next};
use crate::store::connection::tls::{TlsSettings, read_pem};
use crate::store::connection::verification::authorities;
use crate::store::{StoreError, resolver};
use elect_core::limits::{BOUNDARIES_MAX, RECORD_BYTES_MAX};
use elect_core::{Time, boundary};
use elect_keeper::clock;

const COLLECTION: &str = "boundaries";
/// Between two looks at each member, without any reason. With one, which every failed call is, it looks at once.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(10);
/// For a primary. Observers have more time, but want to hear that there is none.
const SERVER_SELECTION_TIMEOUT: Duration = Duration::from_secs(2);
/// For TCP and TLS to a member, if an attempt is shorter.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(2);
/// Two for calls, one for the cursor on the changes, and one for work beside the election, so that no call waits for either.
const CONNECTIONS_MAX: u32 = 4;
/// A connection that is not needed any more.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

pub struct MongoServer {
    pub boundaries: Collection<Document>,
    /// As it is shown.
    pub address: String,
    /// Whether there are majorities, and may be an earlier primary.
    pub is_replicated: bool,
    /// `None`: to be begun by an observer, or by a candidate that waits.
    pub watch: Option<ChangesWatch>,
    peer: MongoPeer,
    request_timeout: Duration,
    /// When the present attempt ends.
    attempt_ends: Cell<Time>,
    condition: Cell<ClientHealth>,
    elector_is_denied: Cell<bool>,
}

/// A client whose primary is known.
struct Connected {
    boundaries: Collection<Document>,
    is_replicated: bool,
}

/// The client that is kept between attempts, if there is one, and those that are being set up.
#[derive(Default)]
pub struct ClientSlot {
    /// `None`: to be connected to by the next attempt.
    pub server: Option<MongoServer>,
    setup: ConnectionSetup<Connected>,
}

/// Of a client and its connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ClientHealth {
    Sound,
    Doubtful,
    /// The driver must check all members now; by itself it looks for another primary once in a heartbeat.
    Unsound,
}

/// One attempt, connecting included. The connections are kept if nothing was wrong with them.
///
/// Cancellation: may be dropped at any time; what was under way takes its connections along.
pub async fn attempt<T>(
    settings: &Settings,
    slot: &mut ClientSlot,
    ask: impl AsyncFnOnce(&mut MongoServer) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let limit = settings.limits.attempt;
    let is_first = slot.server.is_none();
    let ends = clock::now() + limit;
    let outcome = within(limit, async {
        if slot.server.is_none() {
            let begin = |accepted| {
                let settings = settings.clone();
                async move { Connected::to(&settings, accepted).await }
            };
            // The driver tells a server without TLS from one that is slow.
            let target = SetupTarget { name: &settings.shown, plain_form: None };
            let (connected, readiness) = slot.setup.next(target, &settings.limits, limit, begin).await?;
            slot.server = Some(MongoServer::new(connected, settings));
            if readiness == Readiness::ForNextAttempt {
                return Err(ready_for_next(&settings.shown));
            }
        }
        let Some(server) = &mut slot.server else { return Err(ready_for_next(&settings.shown)) };
        server.attempt_ends.set(ends);
        let answer = ask(server).await;
        if answer.is_ok() {
            server.condition.set(ClientHealth::Sound);
        }
        answer
    })
    .await;
    if let Some(answer) = outcome {
        slot.server.take_if(|server| server.condition.get() == ClientHealth::Unsound);
        return answer;
    }
    // Connecting has cost time that the next attempt will have.
    let is_new = is_first && slot.server.is_some();
    slot.server.take_if(|_| !is_new);
    Err(StoreError::Unavailable(format!("{} {}", settings.shown, settings.limits.too_slow_for_attempt(limit))))
}

impl Connected {
    /// Finds the primary, and what it is part of.
    ///
    /// # Errors
    ///
    /// It cannot be reached, or will not have us.
    async fn to(settings: &Settings, accepted: Accepted) -> Result<Connected, StoreError> {
        let peer = MongoPeer::new(settings);
        let classify = |error: Error| classify(&peer, &error);
        // The driver looks up names in the runtime's pool, which has to have its thread by now.
        resolver::ensure_prepared().await.map_err(|error| StoreError::Unavailable(error.to_string()))?;
        let options = ClientOptions::parse(&settings.url.0).await.map_err(classify)?;
        // Held until the driver has read what is in it.
        let (mut options, _identity) = demand(options, settings)?;
        let has_answered = accepted.clone();
        options.sdam_event_handler = Some(EventHandler::callback(move |event| {
            if let SdamEvent::ServerHeartbeatSucceeded(_) = event {
                accepted.set();
            }
        }));
        let database = Client::with_options(options).map_err(classify)?.database(&settings.database);
        let hello = loop {
            match database.run_command(doc! { "hello": 1 }).await {
                // No member has answered yet, and none has failed.
                Err(error) if !has_answered.is_set() && is_still_connecting(&error) => {}
                answer => break answer.map_err(classify)?,
            }
        };
        if hello.get_bool("isWritablePrimary").is_ok_and(|is_primary| !is_primary) {
            let what = "is a member that is not the primary: name all members, without directConnection";
            return Err(StoreError::Unavailable(format!("{} {what}", settings.shown)));
        }
        Ok(Connected {
            boundaries: database.collection(COLLECTION),
            // A member of a set, or what stands in front of several of them.
            is_replicated: hello.contains_key("setName") || hello.get_str("msg").is_ok_and(|what| what == "isdbgrid"),
        })
    }
}

impl MongoServer {
    fn new(connected: Connected, settings: &Settings) -> MongoServer {
        MongoServer {
            boundaries: connected.boundaries,
            address: settings.shown.clone(),
            is_replicated: connected.is_replicated,
            watch: None,
            condition: Cell::new(ClientHealth::Sound),
            elector_is_denied: Cell::new(false),
            peer: MongoPeer::new(settings),
            request_timeout: settings.limits.attempt,
            attempt_ends: Cell::new(clock::now()),
        }
    }

    pub fn attempt_left(&self) -> Duration {
        self.attempt_ends.get().since(clock::now())
    }

    /// How much of the present attempt a hint may take: what it does not get, the election still has.
    pub fn time_for_hint(&self) -> Duration {
        self.attempt_left() / 2
    }

    /// How much a hint may take that is written beside the election.
    pub fn time_for_hint_beside(&self) -> Duration {
        self.request_timeout / 2
    }

    /// The hints beside the records.
    pub fn changes(&self) -> HintCollection {
        HintCollection::beside(&self.boundaries)
    }

    /// The record with this boundary's name as a majority has it, and the server's time.
    pub async fn observe(&self, boundary: &str) -> Result<Option<StoredRecord>, StoreError> {
        let mut found = self.find(doc! { "_id": boundary }).await?;
        self.next(&mut found).await?.map(|document| StoredRecord::read(&document)).transpose()
    }

    /// The election of this name that another program holds in this database, in words.
    pub async fn find_elector(&self, boundary: &str) -> Result<Option<String>, StoreError> {
        if self.elector_is_denied.get() {
            return Ok(None);
        }
        match elector::find(&self.boundaries, boundary, self.request_timeout).await {
            Ok(found) => Ok(found),
            // This user knows elect's own collection alone, which is enough.
            Err(error) if is_denial(&error) => {
                self.elector_is_denied.set(true);
                Ok(None)
            }
            Err(error) => Err(self.classify(&error)),
        }
    }

    /// All of them, in the order of their names.
    pub async fn observe_all(&self) -> Result<Vec<Document>, StoreError> {
        // Documents whose _id is no boundary's name may be in the collection, and are none of elect's business.
        let name_size = i64::try_from(boundary::LONGEST + "name".len() + 16).unwrap_or(i64::MAX);
        let is_short = doc! { "$lte": [{ "$bsonSize": { "name": "$_id" } }, name_size] };
        let mut found = self.find(doc! { "_id": { "$type": "string" }, "$expr": is_short }).await?;
        let mut all = Vec::new();
        while let Some(document) = self.next(&mut found).await? {
            all.push(document);
        }
        Ok(all)
    }

    /// As [`MongoServer::observe`], by a primary that has made sure that it still is one. Slow.
    /// A document that is no record is an answer as well.
    pub async fn read_linearizable(
        &self,
        boundary: &str,
    ) -> Result<Option<Result<StoredRecord, StoreError>>, StoreError> {
        let mut looking = self.aggregate(doc! { "_id": boundary });
        if self.is_replicated {
            looking = looking.read_concern(ReadConcern::linearizable());
        }
        let mut found = looking.await.map_err(|error| self.classify(&error))?;
        Ok(self.next(&mut found).await?.map(|document| StoredRecord::read(&document)))
    }

    fn aggregate(&self, filter: Document) -> Aggregate<'_> {
        // A document that is too large to be a record is not transferred, but for its name.
        let limit = i64::try_from(RECORD_BYTES_MAX).unwrap_or(i64::MAX);
        let is_larger = doc! { "$gt": [{ "$bsonSize": "$$ROOT" }, limit] };
        let bounded = doc! { "$cond": [is_larger, { "_id": "$_id", TOO_LARGE: true }, "$$ROOT"] };
        let pipeline = [
            doc! { "$match": filter },
            doc! { "$sort": { "_id": 1 } },
            doc! { "$limit": i64::try_from(BOUNDARIES_MAX).unwrap_or(i64::MAX) },
            doc! { "$replaceWith": bounded },
            doc! { "$set": { NOW: "$$NOW" } },
        ];
        self.boundaries.aggregate(pipeline).max_time(self.request_timeout)
    }

    async fn find(&self, filter: Document) -> Result<::mongodb::Cursor<Document>, StoreError> {
        self.aggregate(filter).await.map_err(|error| self.classify(&error))
    }

    async fn next(&self, found: &mut ::mongodb::Cursor<Document>) -> Result<Option<Document>, StoreError> {
        if !found.advance().await.map_err(|error| self.classify(&error))? {
            return Ok(None);
        }
        found.deserialize_current().map(Some).map_err(|error| self.classify(&error))
    }

    /// Confirmed by a majority, and on its disks, while this attempt can still hear that it is not: an attempt that runs out of
    /// time says nothing of a majority, and drops the client.
    pub fn confirmed(&self) -> WriteConcern {
        confirmed_within(self.attempt_left() * 3 / 4)
    }

    /// Compares and swaps, both in the server. Confirmed by a majority, and on its disks, or an error; unless the caller sets
    /// another write concern.
    pub fn change(&self, filter: Document, change: Document) -> FindOneAndUpdate<'_, Document> {
        self.boundaries.find_one_and_update(filter, vec![doc! { "$set": change }]).max_time(self.request_timeout)
    }

    /// Waits until a majority has all that this server has written so far. Writes nothing.
    ///
    /// # Errors
    ///
    /// No majority has it in time, or this server or this user cannot have writes confirmed.
    pub async fn confirm_all(&self, boundary: &str) -> Result<(), StoreError> {
        let nothing = doc! { "_id": boundary, "state": { "$in": [] } };
        let write = self.boundaries.update_one(nothing, doc! { "$set": { "state": "free" } });
        let write = write.write_concern(self.confirmed());
        write.await.map(drop).map_err(|error| self.classify(&error))
    }

    /// Classifies a failure, and notes whether these connections are worth another attempt.
    pub fn classify(&self, error: &Error) -> StoreError {
        let last = self.condition.get();
        self.condition.set(match last {
            // It has answered, and is short of a majority. Once: whoever is cut off says the same.
            ClientHealth::Sound if is_unconfirmed(error) => ClientHealth::Doubtful,
            ClientHealth::Sound | ClientHealth::Doubtful | ClientHealth::Unsound => ClientHealth::Unsound,
        });
        classify(&self.peer, error)
    }

    /// It is a primary that does not know yet that it is none.
    pub fn is_stale_primary(&self) -> StoreError {
        self.condition.set(ClientHealth::Unsound);
        let why = "has answered for an older state of the record: it is not the primary any more";
        StoreError::Unavailable(format!("{} {why}", self.address))
    }
}

/// A majority has it on its disks, or the server says that this is not so by then.
fn confirmed_within(time: Duration) -> WriteConcern {
    // None at all would be no limit.
    let time = time.max(Duration::from_millis(1));
    WriteConcern::builder().w(Acknowledgment::Majority).journal(true).w_timeout(time).build()
}

/// The options that elect sets itself, whatever the URL says.
fn demand(
    options: ClientOptions,
    settings: &Settings,
) -> Result<(ClientOptions, Option<ClientCertificate>), StoreError> {
    // Sooner than the attempt's time is up: so that the answer says what was missing.
    let attempt = settings.limits.attempt;
    let answer_within = attempt * 3 / 4;
    let mut options = options;
    options.write_concern = Some(confirmed_within(answer_within));
    options.read_concern = Some(ReadConcern::majority());
    // elect asks again by itself, and knows its writes by their nonces. The server would keep each answer for the driver: two
    // more writes with every renewal, and two reads before the first write of a candidate.
    options.retry_writes = Some(false);
    options.selection_criteria = Some(SelectionCriteria::ReadPreference(ReadPreference::Primary));
    options.server_selection_timeout = Some((attempt / 2).min(SERVER_SELECTION_TIMEOUT));
    // TCP and TLS, without the login: it goes on beyond the attempt.
    options.connect_timeout = Some(attempt.max(HANDSHAKE_TIMEOUT).min(settings.limits.setup));
    options.heartbeat_freq = Some(HEARTBEAT_INTERVAL);
    // The other modes keep two connections to each member busy instead of one at rest.
    options.server_monitoring_mode = Some(ServerMonitoringMode::Poll);
    options.max_pool_size = Some(CONNECTIONS_MAX);
    options.min_pool_size = None;
    options.max_idle_time = Some(IDLE_TIMEOUT);
    options.app_name.get_or_insert_with(|| "elect".to_owned());
    let mut tls = match options.tls.take() {
        Some(DriversTls::Enabled(tls)) => tls,
        in_the_clear if !settings.tls.is_given() => {
            options.tls = in_the_clear;
            return Ok((options, None));
        }
        Some(DriversTls::Disabled) | None => TlsOptions::default(),
    };
    let TlsSettings { ca, identity: files, skip_verify } = &settings.tls;
    // Checked first: of a pair that does not fit together the driver says nothing that helps.
    identity(&settings.tls)?;
    if *skip_verify {
        tls.allow_invalid_certificates = Some(true);
    }
    if let Some(ca) = ca {
        authorities(ca)?;
    }
    // The driver brings authorities of its own, and this system may know others.
    tls.ca_file_path = ca.clone().or(tls.ca_file_path).or_else(systems_authorities);
    let identity = files.as_ref().map(|(cert, key)| ClientCertificate::of(cert, key)).transpose()?;
    if let Some(file) = &identity {
        tls.cert_key_file_path = Some(file.path());
    }
    options.tls = Some(DriversTls::Enabled(tls));
    Ok((options, identity))
}

/// Where this system keeps the authorities that it trusts, in one file; `None`: in none of the usual ones.
fn systems_authorities() -> Option<PathBuf> {
    let usual = [
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/ssl/ca-bundle.pem",
        "/etc/ssl/cert.pem",
    ];
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    named.into_iter().chain(usual.map(PathBuf::from)).find(|path| path.is_file())
}

/// Certificate and key in one file, as the driver wants them; on no disk.
struct ClientCertificate(std::fs::File);

impl ClientCertificate {
    fn of(cert: &Path, key: &Path) -> Result<ClientCertificate, StoreError> {
        use std::io::Write;
        let both = [read_pem(cert)?, b"\n".to_vec(), read_pem(key)?].concat();
        let flags = nix::sys::memfd::MFdFlags::MFD_CLOEXEC;
        let failed = |error: std::io::Error| StoreError::Refused(format!("a file in memory: {error}"));
        let file = nix::sys::memfd::memfd_create(c"identity", flags).map_err(|error| failed(error.into()))?;
        let mut file = std::fs::File::from(file);
        file.write_all(&both).map_err(failed)?;
        Ok(ClientCertificate(file))
    }

    fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.0.as_raw_fd()).into()
    }
}
