//! One connection to the primary: opened, checked, and closed after the first error.
//!
//! A request that runs out of time takes its connection along: elect sends no cancel request, since PostgreSQL answers a
//! cancelled wait for a standby as if it had been confirmed (S5).

mod listening;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_postgres::Row;
use tokio_postgres::types::{FromSqlOwned, ToSql, Type};
use tracing::{debug, warn};

use super::connection::{ServerPlace, Wire, open, places};
use super::errors::{PostgresPeer, is_contention, is_denial, is_missing_table, is_wal_refused};
use super::hosts::{HostBoard, HostVerdict, OtherHosts};
use super::notices::Ear;
use super::settings::{Host, Settings};
use super::statements::{IS_DURABLE, LifeSource, Statements, incarnation};
use super::stored_record::{RowSnapshot, StoredRecord};
use crate::store::connection::attempt::within;
use crate::store::connection::errors::{one_line, root_cause};
use crate::store::connection::setup::{Accepted, ConnectionSetup, Readiness, SetupTarget, ready_for_next};
use crate::store::{Listing, StoreError};
use elect_core::Time;
use elect_core::boundary::Boundary;
use elect_keeper::clock;
pub use listening::Listening;

/// A parameter of a statement, with its type: one that is used as two types would be an error.
pub type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// The oldest version that knows every statement.
const VERSION_MIN: i32 = 120_000;
/// Before a holder's write is tried again whose row was locked.
const CONTENTION_PAUSES: [Duration; 4] =
    [Duration::from_millis(2), Duration::from_millis(5), Duration::from_millis(10), Duration::from_millis(20)];

/// The connection that is kept between attempts, if there is one.
#[derive(Default)]
pub struct PostgresLink {
    /// `None`: to be connected to by the next attempt.
    pub server: Option<PostgresServer>,
    /// The primary that was used last, with what was learned beside it, also by an attempt that was cut off.
    last: Option<LastPrimary>,
    setup: ConnectionSetup<PostgresServer>,
}

/// A primary, and the news of the hosts beside it.
struct LastPrimary {
    life: ServerLife,
    board: Arc<HostBoard>,
}

impl LastPrimary {
    /// The newest primary of its cluster that was seen, itself or another one. An older one never counts again.
    fn newest(&self) -> ServerLife {
        let newer = match self.board.verdict() {
            Some(HostVerdict::Newer { timeline, .. }) => Some(timeline),
            Some(HostVerdict::Foreign(_) | HostVerdict::Twin(_)) | None => None,
        };
        ServerLife { timeline: newer.or_else(|| self.life.timeline.clone()), ..self.life.clone() }
    }
}

#[expect(clippy::struct_excessive_bools, reason = "each is true or false by itself")]
pub struct PostgresServer {
    wire: Wire,
    pub ear: Arc<Ear>,
    pub statements: Arc<Statements>,
    /// Nothing has happened since its last answer that speaks for another one.
    pub is_sound: bool,
    /// Whether LISTEN is in force.
    pub is_listening: bool,
    /// Whether a task tells the candidate what the ear hears. It ends with the connection alone.
    is_heard: bool,
    /// Whether the notifications that prove the delivery have been asked for.
    is_proof_sent: bool,
    /// The schema of the table.
    schema: String,
    /// Whether the last look has found no table.
    pub lacks_table: bool,
    /// When it was connected to.
    pub since: Time,
    /// The host of the URL that has led to it.
    pub host: Host,
    pub place: ServerPlace,
    pub life: ServerLife,
    pub life_source: LifeSource,
    /// Whether a crash of its host loses nothing that was confirmed.
    pub is_durable: bool,
    /// Whether the name of its host has other addresses.
    has_several_addresses: bool,
    /// The servers that the connection does not lead to.
    pub others: OtherHosts,
    limit: Duration,
}

/// A server as it said when it was asked last.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServerLife {
    /// Empty, if it is a standby.
    pub incarnation: String,
    /// The identifier of its cluster, which its standbys share.
    pub system: String,
    /// Of the WAL that it writes, as its file names have it: eight hexadecimal digits. `None`: it is a standby.
    pub timeline: Option<String>,
    /// When it was started.
    pub started: String,
}

impl ServerLife {
    /// Whether both are one server, which two addresses lead to.
    pub fn is_same_server(&self, other: &ServerLife) -> bool {
        self == other
    }

    /// Whether it is a primary of the same cluster, and the other one was promoted after it.
    pub fn is_outdated_by(&self, other: &ServerLife) -> bool {
        self.system == other.system && self.timeline.is_some() && self.timeline < other.timeline
    }
}

/// The answer to a write.
#[derive(Debug)]
pub enum WriteResult {
    /// Another candidate is writing to the row; nothing was done.
    Contended,
    /// It was executed; without a row it has found nothing to write to.
    Done {
        row: Option<Row>,
        /// Whether a notice has come that speaks against it: it is visible, and a failover may forget it (S5).
        is_doubtful: bool,
    },
}

/// The value of a column of an answer that elect's own statement has made.
///
/// # Errors
///
/// It is missing, or of another type: the server is no PostgreSQL as elect knows it.
pub fn value<T: FromSqlOwned>(row: &Row, name: &str) -> Result<T, StoreError> {
    row.try_get(name).map_err(|error| {
        StoreError::Unavailable(one_line(&format!(
            "the answer to a statement has no {name} as PostgreSQL gives it ({}): check host and port of --store",
            root_cause(&error)
        )))
    })
}

/// One attempt, connecting included. The connection is kept if nothing speaks against it.
///
/// Cancellation: may be dropped at any time; what was under way takes its connection along.
pub async fn attempt<T>(
    settings: &Settings,
    link: &mut PostgresLink,
    ask: impl AsyncFnOnce(&mut PostgresServer) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let limit = settings.limits.attempt;
    let attempt = async {
        let mut server = link.take(settings).await?;
        link.last = Some(LastPrimary { life: server.life.clone(), board: server.others.board() });
        let answer = ask(&mut server).await;
        if server.is_sound {
            link.server = Some(server);
        }
        answer
    };
    within(limit, attempt).await.unwrap_or_else(|| {
        Err(StoreError::Unavailable(format!("{} {}", settings.shown, settings.limits.too_slow_for_attempt(limit))))
    })
}

impl PostgresLink {
    /// The connection of the attempt before, or a new one to the primary. Setting it up may take several attempts (T6).
    async fn take(&mut self, settings: &Settings) -> Result<PostgresServer, StoreError> {
        if let Some(server) = self.server.take() {
            return Ok(server);
        }
        let limits = settings.limits;
        let begin = |accepted| {
            let (settings, newest) = (settings.clone(), self.last.as_ref().map(LastPrimary::newest));
            async move { connect(&settings, &accepted, newest.as_ref()).await }
        };
        let target = SetupTarget { name: &settings.shown, plain_form: None };
        match self.setup.next(target, &limits, limits.attempt, begin).await? {
            (server, Readiness::ForThisAttempt) => Ok(server),
            (server, Readiness::ForNextAttempt) => {
                self.server = Some(server);
                Err(ready_for_next(&settings.shown))
            }
        }
    }
}

/// Asks all hosts at once, and all addresses of each. Of several primaries the one on the highest timeline counts: the others were
/// promoted away from. The hosts that have not answered in a quarter of an attempt after the first primary are not waited for
/// here, see [`OtherHosts`].
async fn connect(
    settings: &Settings,
    accepted: &Accepted,
    newest: Option<&ServerLife>,
) -> Result<PostgresServer, StoreError> {
    let (sender, mut logins) = mpsc::unbounded_channel();
    let mut dials = JoinSet::new();
    for host in &settings.hosts {
        dials.spawn(dial(settings.clone(), host.clone(), accepted.clone(), sender.clone()));
    }
    drop(sender);
    let (mut found, mut failure, mut until): (Vec<PostgresServer>, _, _) = (Vec::new(), None, None);
    loop {
        let login = match until {
            None => logins.recv().await,
            Some(until) => tokio::select! {
                login = logins.recv() => login,
                () = sleep_until(until) => None,
            },
        };
        match login {
            Some(Ok(server)) if newest.is_some_and(|newest| server.life.is_outdated_by(newest)) => {
                let why = format!("{} counts no more, since another server was promoted", server.address());
                failure = Some(StoreError::Unavailable(why));
            }
            Some(Ok(server)) => {
                if server.life.timeline.is_some() {
                    until.get_or_insert_with(|| Instant::now() + settings.limits.attempt / 4);
                }
                found.push(server);
            }
            Some(Err(error)) => {
                debug!("postgres: {error}");
                // An outage passes, so that a refusal of another host is not the last word.
                if !matches!(failure, Some(StoreError::Unavailable(_))) {
                    failure = Some(error);
                }
            }
            None => break,
        }
    }
    choose(found, failure)
}

/// The primary, and the connections to the other servers with it.
fn choose(mut found: Vec<PostgresServer>, failure: Option<StoreError>) -> Result<PostgresServer, StoreError> {
    let newest = found.iter().filter_map(|server| server.life.timeline.clone()).max();
    let Some(best) = newest.and_then(|newest| found.iter().position(|one| one.life.timeline.as_ref() == Some(&newest)))
    else {
        let standby = || found.first_mut().map(PostgresServer::standby);
        let failure = failure.or_else(standby);
        return Err(failure.unwrap_or_else(|| StoreError::Unavailable("no host is named".to_owned())));
    };
    let mut best = found.swap_remove(best);
    let verdicts = found.iter().filter_map(|one| HostVerdict::of(&best.life, &one.life, one.address()));
    // None of them is newer.
    if let Some(verdict) =
        verdicts.reduce(|one, other| if matches!(one, HostVerdict::Foreign(_)) { one } else { other })
    {
        return Err(best.disputed(&verdict));
    }
    best.others.keep(found);
    Ok(best)
}

/// Logs in at every address of a host.
async fn dial(
    settings: Settings,
    host: Host,
    accepted: Accepted,
    logins: mpsc::UnboundedSender<Result<PostgresServer, StoreError>>,
) {
    let found = match places(&host.place).await {
        Ok(found) => found,
        Err(error) => {
            // The receiver has found its primary.
            let _ = logins.send(Err(PostgresPeer::new(&settings, &host.place).classify_io(&error)));
            return;
        }
    };
    let has_several_addresses = found.len() > 1;
    let mut dials = JoinSet::new();
    for place in found {
        let (settings, host, accepted) = (settings.clone(), host.clone(), accepted.clone());
        dials.spawn(async move { PostgresServer::login(&settings, &host, &place, &accepted).await });
    }
    while let Some(dialled) = dials.join_next().await {
        // A task that panicked has reported it.
        if let Ok(login) = dialled {
            let _ = logins.send(login.map(|server| PostgresServer { has_several_addresses, ..server }));
        }
    }
}

impl PostgresServer {
    /// A server, with every doubt about it removed that can be removed by asking.
    pub async fn login(
        settings: &Settings,
        host: &Host,
        place: &ServerPlace,
        accepted: &Accepted,
    ) -> Result<PostgresServer, StoreError> {
        let wire = open(settings, host, place, accepted).await?;
        let mut server = PostgresServer {
            ear: Arc::clone(&wire.ear),
            wire,
            statements: Arc::new(Statements::new(&settings.schema, LifeSource::Timeline)),
            is_sound: true,
            is_listening: false,
            is_heard: false,
            is_proof_sent: false,
            schema: settings.schema.clone(),
            lacks_table: false,
            since: clock::now(),
            host: host.clone(),
            place: place.clone(),
            life: ServerLife::default(),
            life_source: LifeSource::Timeline,
            is_durable: true,
            has_several_addresses: false,
            others: OtherHosts::default(),
            limit: settings.limits.attempt,
        };
        let question = format!(
            "SELECT version() AS version, current_setting('server_version_num')::int AS number, {IS_DURABLE} AS is_durable"
        );
        let row = server.ask_one(&question, &[]).await?;
        let version: String = row.try_get("version").map_err(|error| server.judge(&error))?;
        let number: i32 = row.try_get("number").map_err(|error| server.judge(&error))?;
        server.is_durable = row.try_get("is_durable").map_err(|error| server.judge(&error))?;
        let other = ["CockroachDB", "YugabyteDB", "-YB-"].into_iter().find(|name| version.contains(name));
        if let Some(other) = other {
            return Err(server
                .wire
                .peer
                .refused(&format!("is {other}, where elections were not tested: use PostgreSQL")));
        }
        if number < VERSION_MIN {
            return Err(server.wire.peer.refused("is older than PostgreSQL 12, the oldest that elections are held on"));
        }
        let first = server.ask_life().await;
        if first.as_ref().is_err_and(is_wal_refused) {
            server.life_source = LifeSource::Start;
            server.statements = Arc::new(Statements::new(&settings.schema, LifeSource::Start));
            server.read_life().await?;
        } else {
            server.life = first.map_err(|error| server.judge(&error))?;
        }
        server.wire.peer.incarnation.clone_from(&server.life.incarnation);
        Ok(server)
    }

    /// Reports what this server cannot promise.
    pub fn warn(&self) {
        let address = self.address();
        if !self.is_durable {
            warn!(
                "{address}: fsync or full_page_writes is off: a crash may forget who leads, and each restart costs a ttl: set both to on"
            );
        }
        if self.life_source == LifeSource::Start {
            warn!("{address} does not tell its timeline, as an Aurora: each restart costs a ttl");
        }
    }

    /// Asks the server for its life again.
    pub async fn read_life(&mut self) -> Result<(), StoreError> {
        self.life = self.ask_life().await.map_err(|error| self.judge(&error))?;
        Ok(())
    }

    async fn ask_life(&mut self) -> Result<ServerLife, tokio_postgres::Error> {
        let present = incarnation(self.life_source);
        let question = format!(
            "SELECT {present} AS present, (SELECT system_identifier::text FROM pg_control_system()) AS system, \
             extract(epoch FROM pg_postmaster_start_time())::text AS started"
        );
        let row = self.wire.client.query_typed_one(&question, &[]).await?;
        let present: String = row.try_get("present")?;
        let timeline = present.split('/').nth(1).map(str::to_owned);
        let (system, started) = (row.try_get("system")?, row.try_get("started")?);
        Ok(ServerLife { incarnation: present, system, timeline, started })
    }

    /// Begins to read the other hosts, unless that was begun or there are none.
    pub fn read_others(&mut self, settings: &Settings) {
        if settings.hosts.len() > 1 || self.has_several_addresses {
            self.others.start(settings, &self.host, &self.place, &self.life);
        }
    }

    /// Waits until the other hosts have answered or failed, at most a renewal interval ago. To be called before a take and before
    /// the first credit of a term.
    ///
    /// # Errors
    ///
    /// [`StoreError::Connecting`] if that takes longer than a part of an attempt: the next one goes on with the wait. Otherwise they
    /// speak against this server.
    pub async fn settle_others(&mut self) -> Result<(), StoreError> {
        if timeout(self.limit / 4, self.others.settled()).await.is_err() {
            let address = self.address();
            return Err(StoreError::Connecting(format!("{address}: the other hosts have not all answered yet")));
        }
        match self.others.verdict() {
            Some(verdict) => Err(self.disputed(&verdict)),
            None => Ok(()),
        }
    }

    /// Whether this is still the newest primary, as far as is known.
    pub fn check_newest(&mut self) -> Result<(), StoreError> {
        match self.others.verdict() {
            Some(newer @ HostVerdict::Newer { .. }) => Err(self.disputed(&newer)),
            Some(HostVerdict::Foreign(_) | HostVerdict::Twin(_)) | None => Ok(()),
        }
    }

    /// The error for a primary beside which there is another one: candidates that reach one of the two alone would not see each
    /// other.
    fn disputed(&mut self, verdict: &HostVerdict) -> StoreError {
        self.is_sound = false;
        let address = self.address();
        match verdict {
            HostVerdict::Newer { address: newer, .. } => {
                StoreError::Unavailable(format!("{address} counts no more, since {newer} was promoted"))
            }
            HostVerdict::Foreign(other) => self.refused(&format!(
                "and {other} are primaries of two clusters: name the servers of one alone in --store"
            )),
            // Not for good: one of them may have been started again between two questions.
            HostVerdict::Twin(other) => StoreError::Unavailable(format!(
                "{address} and {other} are two primaries on one timeline, so that nobody can be elected: stop one of them"
            )),
        }
    }

    /// As it is shown.
    pub fn address(&self) -> &str {
        &self.wire.peer.address
    }

    fn standby(&mut self) -> StoreError {
        self.is_sound = false;
        StoreError::Unavailable(format!(
            "{} is a standby, where nobody can be elected: name its primary, or all hosts: postgres://HOST,HOST/DB",
            self.address()
        ))
    }

    /// Classifies a failure, and notes whether the connection is worth another attempt.
    fn judge(&mut self, error: &tokio_postgres::Error) -> StoreError {
        self.is_sound &= is_contention(error) || is_denial(error);
        self.wire.peer.classify(error)
    }

    /// The error for a state of the server that waiting does not change.
    pub fn refused(&self, what: &str) -> StoreError {
        self.wire.peer.refused(what)
    }

    /// One statement.
    pub async fn ask(&mut self, statement: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Row>, StoreError> {
        let answer = self.wire.client.query_typed(statement, parameters).await;
        answer.map_err(|error| self.judge(&error))
    }

    /// One statement whose answer has exactly one row.
    pub async fn ask_one(&mut self, statement: &str, parameters: &[Parameter<'_>]) -> Result<Row, StoreError> {
        let answer = self.wire.client.query_typed_one(statement, parameters).await;
        answer.map_err(|error| self.judge(&error))
    }

    /// Statements that make something which others may be making at once, in one transaction. `false`: it is there, or the others
    /// make it.
    pub async fn create(&mut self, statements: &str) -> Result<bool, StoreError> {
        match self.wire.client.batch_execute(statements).await {
            Err(error) if is_contention(&error) => Ok(false),
            Err(error) => Err(self.judge(&error)),
            Ok(()) => Ok(true),
        }
    }

    /// One write, and what was said beside its answer.
    pub async fn write(&mut self, statement: &str, parameters: &[Parameter<'_>]) -> Result<WriteResult, StoreError> {
        let doubts = self.ear.doubts();
        match self.wire.client.query_typed_opt(statement, parameters).await {
            Ok(row) => Ok(WriteResult::Done { row, is_doubtful: self.ear.doubts() != doubts }),
            Err(error) if is_contention(&error) => Ok(WriteResult::Contended),
            Err(error) => Err(self.judge(&error)),
        }
    }

    /// A write by the holder of the row. It is tried again for some milliseconds if the row is locked: a take that comes too late
    /// locks the row until its transaction ends, although it changes nothing.
    pub async fn write_as_holder(
        &mut self,
        statement: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<WriteResult, StoreError> {
        for pause in CONTENTION_PAUSES {
            match self.write(statement, parameters).await? {
                WriteResult::Contended => tokio::time::sleep(pause).await,
                done @ WriteResult::Done { .. } => return Ok(done),
            }
        }
        self.write(statement, parameters).await
    }

    /// A statement of which nothing depends. `false`: this user may not execute it.
    pub async fn attempt_optional(
        &mut self,
        statement: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<bool, StoreError> {
        match self.wire.client.execute_typed(statement, parameters).await {
            Err(error) if is_denial(&error) => Ok(false),
            Err(error) if is_contention(&error) => Ok(true),
            Err(error) => Err(self.judge(&error)),
            Ok(_) => Ok(true),
        }
    }

    /// The record of this boundary. Without a table there is none.
    pub async fn observe(&mut self, boundary: &str) -> Result<RowSnapshot, StoreError> {
        let statements = Arc::clone(&self.statements);
        let parameters: [Parameter<'_>; 1] = [(&boundary, Type::TEXT)];
        let answer = self.wire.client.query_typed_one(&statements.look, &parameters).await;
        self.lacks_table = answer.as_ref().is_err_and(is_missing_table);
        let row = match answer {
            Err(_) if self.lacks_table => {
                return Ok(RowSnapshot { incarnation: String::new(), now: 0, first: None, stored: None });
            }
            answer => answer.map_err(|error| self.judge(&error))?,
        };
        if row.try_get("is_standby").map_err(|error| self.judge(&error))? {
            return Err(self.standby());
        }
        RowSnapshot::read_with_first(&row, &statements.table)
    }

    /// Every boundary with what is known of it, in the order of their names.
    pub async fn observe_all(&mut self) -> Result<Vec<Listing>, StoreError> {
        let statements = Arc::clone(&self.statements);
        let rows = match self.wire.client.query_typed(&statements.look_at_all, &[]).await {
            Err(error) if is_missing_table(&error) => return Ok(Vec::new()),
            answer => answer.map_err(|error| self.judge(&error))?,
        };
        let (mut seen, mut names) = (Vec::new(), BTreeSet::new());
        for row in &rows {
            let name: String = row.try_get("boundary").map_err(|error| self.judge(&error))?;
            // Rows whose key is no boundary's name are none of elect's business.
            let Ok(boundary) = name.parse::<Boundary>() else { continue };
            let snapshot = RowSnapshot::read(row, &statements.table)?;
            let observation = snapshot.stored.transpose().map(|stored| stored.as_ref().map(StoredRecord::shown));
            if names.insert(boundary.clone()) {
                seen.push((boundary, observation.map(Option::unwrap_or_default)));
            }
        }
        seen.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(seen)
    }
}
