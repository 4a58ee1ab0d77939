//! One connection to the primary: opened, checked, and closed after the first error.
//!
//! A connection is never replaced within an attempt. All commands of one pipeline go over one connection, and a broken
//! connection is followed by a new one with the next attempt, which is as often as the election asks.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::{Cmd, ErrorKind, FromRedisValue, Pipeline, ProtocolVersion, RedisConnectionInfo, RedisError, Value};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use super::connection::{Connection, open};
use super::errors::ClassifiedError;
use super::hint_flags::HintFlags;
use super::sentinel::{SentinelReply, Setbacks, ask_all};
use super::settings::{Place, Route, Settings};
use super::subscriptions::{Subscribed, Subscriptions};
use crate::store::StoreError;
use crate::store::connection::errors::excerpt;
use crate::store::connection::setup::{Accepted, ConnectionSetup, Readiness, SetupTarget, ready_for_next};
use elect_core::Time;
use elect_keeper::clock;

/// For replicas to confirm a write, in milliseconds; an attempt is over long before that.
const REPLICA_WAIT_MS_MAX: u64 = 3_600_000;

/// Keys that are asked about in one pipeline: what others ask meanwhile waits for it.
const PIPELINE_KEYS_MAX: usize = 200;

/// The connection that is kept between attempts, if there is one, and what is remembered from one connection to the next.
#[derive(Default)]
pub struct Link {
    /// `None`: to be connected to by the next attempt.
    pub server: Option<RedisServer>,
    setup: ConnectionSetup<RedisServer>,
    setbacks: Arc<Mutex<Setbacks>>,
}

pub struct RedisServer {
    connection: Connection,
    /// Of the primary.
    pub address: Place,
    /// The database, whose candidates have groups of their own: channels know no databases.
    pub db: i64,
    /// Nothing has happened since its last answer that speaks for another one.
    pub is_sound: bool,
    /// Of the present attempt.
    pub deadline: Time,
    /// The announcements on the channels that were subscribed to.
    pub ear: Arc<HintFlags>,
    /// Whether it has a listener.
    pub is_heard: bool,
    /// Those of a candidate, which are changed together with the next script, before it.
    pub subscriptions: Subscriptions,
    /// When it was connected to.
    pub since: Time,
}

/// A script, and the hash by which a server that has run it before knows it.
pub struct LuaScript {
    text: String,
    hash: String,
}

/// A script on one key.
#[derive(Clone, Copy)]
pub struct ScriptCall<'a> {
    pub script: &'a LuaScript,
    pub key: &'a str,
    pub arguments: &'a [&'a str],
}

/// Whether the server is believed to know a script by its hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Yes,
    No,
}

/// Before every script: what a server shows that has become a replica may be old, and a candidate that only reads would never
/// learn of its new role.
const ROLE_CHECK: &str = "\
local replication = redis.call('INFO', 'replication')
if string.find(replication, 'role:slave', 1, true) then
  return { 'replica' }
end
";

impl LuaScript {
    pub fn new(text: &str) -> LuaScript {
        let text = format!("{ROLE_CHECK}{text}");
        let hash = redis::Script::new(&text).get_hash().to_owned();
        LuaScript { text, hash }
    }
}

impl Link {
    /// The connection of the attempt before, or a new one to the primary. Setting it up may take several attempts (T6).
    ///
    /// Cancellation: may be dropped at any time; setting up goes on.
    ///
    /// # Errors
    ///
    /// It cannot be reached, will not have us, or is no server that holds elections.
    pub async fn take(&mut self, settings: &Settings) -> Result<RedisServer, StoreError> {
        if let Some(server) = self.server.take() {
            return Ok(server);
        }
        let (name, limits) = (settings.route.to_string(), settings.limits);
        let setbacks = Arc::clone(&self.setbacks);
        let begin = |accepted| {
            let settings = settings.clone();
            async move { connect(&settings, &setbacks, &accepted).await }
        };
        let server = SetupTarget { name: &name, plain_form: settings.tls.is_some().then_some("redis://") };
        match self.setup.next(server, &limits, limits.attempt, begin).await? {
            (server, Readiness::ForThisAttempt) => Ok(server),
            (server, Readiness::ForNextAttempt) => {
                self.server = Some(server);
                Err(ready_for_next(&name))
            }
        }
    }
}

async fn connect(
    settings: &Settings,
    setbacks: &Mutex<Setbacks>,
    accepted: &Accepted,
) -> Result<RedisServer, StoreError> {
    match &settings.route {
        Route::Direct(place) => RedisServer::connect(settings, place, accepted).await,
        Route::Sentinels { sentinels, primary, auth } => {
            let (start, limits) = (Instant::now(), settings.limits);
            // A quarter of an attempt is left to Sentinels that are slower than others.
            let soon = start + limits.attempt / 4;
            let answers = ask_all(settings, sentinels, primary, *auth, soon, start + limits.setup).await?;
            follow(settings, setbacks, &answers, accepted).await
        }
    }
}

/// The first of the servers which the Sentinels name that is a working primary. Each has half of an attempt before the next one is
/// tried beside it.
async fn follow(
    settings: &Settings,
    setbacks: &Mutex<Setbacks>,
    answers: &[SentinelReply],
    accepted: &Accepted,
) -> Result<RedisServer, StoreError> {
    let setbacks = || setbacks.lock().unwrap_or_else(PoisonError::into_inner);
    let order = setbacks().order(clock::now(), settings.renew_interval, answers);
    let (mut left, mut dials, mut failure) = (order.into_iter(), JoinSet::new(), None);
    loop {
        if let Some(answer) = left.next() {
            setbacks().begin(&answer, clock::now());
            let (settings, accepted) = (settings.clone(), accepted.clone());
            dials.spawn(async move {
                let server = RedisServer::connect(&settings, &Place::Address(answer.server.clone()), &accepted).await;
                (answer, server)
            });
        }
        let next = async {
            if left.len() == 0 {
                return dials.join_next().await;
            }
            timeout_at(Instant::now() + settings.limits.attempt / 2, dials.join_next()).await.unwrap_or(None)
        };
        match next.await {
            Some(Ok((answer, Ok(server)))) => {
                setbacks().succeed(&answer);
                return Ok(server);
            }
            Some(Ok((answer, Err(error)))) => {
                debug!(server = %answer.server, epoch = answer.epoch, "redis: {error}");
                if !matches!(failure, Some(StoreError::Unavailable(_))) {
                    failure = Some(error);
                }
            }
            // It is slow: the next one is tried beside it. A task that panicked has reported it.
            None | Some(Err(_)) => {}
        }
        if left.len() == 0 && dials.is_empty() {
            return Err(failure.unwrap_or_else(|| StoreError::Unavailable("the Sentinels name no primary".to_owned())));
        }
    }
}

impl RedisServer {
    /// A primary, with every doubt about it removed that can be removed by asking.
    async fn connect(settings: &Settings, place: &Place, accepted: &Accepted) -> Result<RedisServer, StoreError> {
        let ear = Arc::new(HintFlags::default());
        // Nothing is sent yet.
        let login = login(settings, false).set_protocol(ProtocolVersion::RESP2);
        let connection = open(settings, place, place.to_string(), login, &ear, accepted).await?;
        let info = connection.greet(settings).await?;
        let server = RedisServer {
            connection,
            address: place.clone(),
            db: settings.db,
            is_sound: true,
            deadline: Time::NEVER,
            ear,
            is_heard: false,
            subscriptions: Subscriptions::default(),
            since: clock::now(),
        };
        server.check_server(&info)?;
        Ok(server)
    }

    /// Its description of itself.
    pub async fn info(&mut self) -> Result<String, StoreError> {
        self.ask(&redis::cmd("INFO")).await
    }

    /// Whether it is one that can hold elections.
    fn check_server(&self, info: &str) -> Result<(), StoreError> {
        let field = |name: &str| info_field(info, name);
        let refuse = |why: &str| Err(StoreError::Refused(format!("{}: {why}", self.address)));
        match field("redis_mode") {
            "cluster" => {
                return refuse("it belongs to a Redis Cluster, which cannot hold elections: use a Redis of its own");
            }
            "sentinel" => return refuse("that is a Sentinel: write --store redis+sentinel://HOST:PORT/NAME"),
            _ => {}
        }
        if field("maxmemory_policy").starts_with("allkeys") {
            let policy = excerpt(field("maxmemory_policy"));
            return refuse(&format!(
                "its maxmemory-policy is {policy}, which may evict the record of who leads: set noeviction or volatile-lru"
            ));
        }
        if field("role") != "master" {
            return Err(StoreError::Unavailable(format!(
                "{} is a replica, where nobody can be elected: name its primary, or the Sentinels",
                self.address
            )));
        }
        if field("run_id").is_empty() || field("master_replid").is_empty() {
            return refuse("it does not say which life of it this is (run_id and master_replid of INFO)");
        }
        Ok(())
    }

    /// From now on the announcements of this channel come in, or of all channels that match it.
    pub async fn subscribe(&mut self, channel: &str, is_pattern: bool) -> Result<(), StoreError> {
        let command = if is_pattern { "PSUBSCRIBE" } else { "SUBSCRIBE" };
        self.ask::<Value>(redis::cmd(command).arg(channel)).await.map(drop)
    }

    /// Has something announced after this delay, if the connection is there by then. Must be called inside a
    /// [`tokio::task::LocalSet`].
    pub fn announce_later(&self, channel: &str, word: &str, delay: Duration) {
        let mut client = self.connection.client.clone();
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(channel).arg(word);
        // Not watched: a hint may be missing, and the client is of no use once the connection has ended.
        tokio::task::spawn_local(async move {
            tokio::time::sleep(delay).await;
            let _ = publish.exec_async(&mut client).await;
        });
    }

    /// One command.
    pub async fn ask<T: FromRedisValue>(&mut self, command: &Cmd) -> Result<T, StoreError> {
        let answer = command.query_async(&mut self.connection.client).await;
        answer.map_err(|error| self.judge(&error))
    }

    /// Runs a script on one key.
    pub async fn run<T: FromRedisValue>(
        &mut self,
        script: &LuaScript,
        key: &str,
        arguments: &[&str],
    ) -> Result<T, StoreError> {
        Ok(self.run_confirmed(script, key, arguments, None).await?.0)
    }

    /// The same, and how many replicas then have what it wrote. Both in one pipeline, so that nothing can come between: on
    /// another connection, which has written nothing, the replicas would have everything.
    pub async fn run_confirmed<T: FromRedisValue>(
        &mut self,
        script: &LuaScript,
        key: &str,
        arguments: &[&str],
        replicas: Option<u64>,
    ) -> Result<(T, u64), StoreError> {
        let call = ScriptCall { script, key, arguments };
        let mut answers = self.pipeline(&[call], Known::Yes, replicas).await?;
        if is_unknown(answers.first()) {
            // Nothing was executed. From now on the server knows it.
            answers = self.pipeline(&[call], Known::No, replicas).await?;
        }
        let confirmed = replicas.map(|_| answers.pop());
        let answer = answers.pop();
        // The script's answer first: a replica refuses the other command for a reason that says less.
        let answer = self.value(answer)?;
        Ok((answer, confirmed.map_or(Ok(0), |confirmed| self.value(confirmed))?))
    }

    /// Runs two scripts, one after the other, in one round trip. Other clients' commands may come between. The second one must have no
    /// effect unless the first one has had its effect, which stands whatever becomes of the second one.
    pub async fn run_both<T: FromRedisValue>(
        &mut self,
        calls: [ScriptCall<'_>; 2],
    ) -> Result<(T, Result<T, StoreError>), StoreError> {
        let mut answers = self.pipeline(&calls, Known::Yes, None).await?;
        if is_unknown(answers.first()) {
            // Of the two, nothing has had an effect: the second one has not found what the first one writes.
            answers = self.pipeline(&calls, Known::No, None).await?;
        }
        let mut answers = answers.into_iter();
        let first = self.value(answers.next())?;
        let mut second = answers.next();
        if is_unknown(second.as_ref()) {
            second = match self.pipeline(&calls[1..], Known::No, None).await {
                Ok(answers) => answers.into_iter().next(),
                Err(error) => return Ok((first, Err(error))),
            };
        }
        Ok((first, self.value(second)))
    }

    /// Runs a script that changes nothing on each of these keys, without waiting for one answer before the next question.
    ///
    /// # Errors
    ///
    /// None can be asked. What speaks against one of them is with that one.
    pub async fn run_on_each<T: FromRedisValue>(
        &mut self,
        script: &LuaScript,
        keys: &[String],
    ) -> Result<Vec<Result<T, StoreError>>, StoreError> {
        let mut all = Vec::with_capacity(keys.len());
        for keys in keys.chunks(PIPELINE_KEYS_MAX) {
            let mut pipeline = Pipeline::new();
            for (number, key) in keys.iter().enumerate() {
                // By the first the server comes to know it.
                let (how, script) = if number == 0 { ("EVAL", &script.text) } else { ("EVALSHA", &script.hash) };
                pipeline.cmd(how).arg(script).arg(1).arg(key);
            }
            let answers = self.connection.client.send_packed_commands(&pipeline, 0, pipeline.len()).await;
            let answers = answers.map_err(|error| self.judge(&error))?;
            for (key, answer) in keys.iter().zip(answers) {
                // It may be made to forget it in between.
                let read =
                    if is_unknown(Some(&answer)) { self.run(script, key, &[]).await } else { self.value(Some(answer)) };
                match read {
                    Err(StoreError::Unavailable(why)) => return Err(StoreError::Unavailable(why)),
                    read => all.push(read),
                }
            }
        }
        Ok(all)
    }

    async fn pipeline(
        &mut self,
        calls: &[ScriptCall<'_>],
        known: Known,
        replicas: Option<u64>,
    ) -> Result<Vec<Value>, StoreError> {
        let mut pipeline = Pipeline::new();
        let changes = self.subscriptions.take_changes();
        for change in &changes {
            pipeline.add_command(change.command());
        }
        for ScriptCall { script, key, arguments } in calls {
            let (how, script) = match known {
                Known::Yes => ("EVALSHA", &script.hash),
                Known::No => ("EVAL", &script.text),
            };
            pipeline.cmd(how).arg(script).arg(1).arg(*key).arg(*arguments);
        }
        if let Some(replicas) = replicas {
            // Its answer has to come before the attempt's time is up. Zero would be forever.
            let limit = self.deadline.since(clock::now()) / 2;
            let limit = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX).clamp(1, REPLICA_WAIT_MS_MAX);
            pipeline.cmd("WAIT").arg(replicas).arg(limit);
        }
        let answers = self.connection.client.send_packed_commands(&pipeline, 0, pipeline.len()).await;
        // A connection on which nothing is heard is of no use.
        self.is_sound &= answers.is_ok() || changes.is_empty();
        let mut answers = answers.map_err(|error| self.judge(&error))?.into_iter();
        for (change, answer) in changes.iter().zip(&mut answers) {
            let is_refused = matches!(answer, Value::ServerError(_));
            match self.subscriptions.answered(change, is_refused) {
                Subscribed::Yes => {}
                Subscribed::Unusable => self.is_sound = false,
                Subscribed::No => {
                    self.is_sound = false;
                    self.value::<Value>(Some(answer))?;
                }
            }
        }
        Ok(answers.collect())
    }

    fn value<T: FromRedisValue>(&mut self, answer: Option<Value>) -> Result<T, StoreError> {
        if is_from_replica(answer.as_ref()) {
            self.is_sound = false;
            let address = &self.address;
            return Err(StoreError::Unavailable(format!("{address} is a replica, and not the primary any more")));
        }
        let read = match answer {
            Some(Value::ServerError(error)) => Err(RedisError::from(error)),
            Some(value) => redis::from_redis_value(value).map_err(RedisError::from),
            None => Err(RedisError::from((ErrorKind::UnexpectedReturnType, "an answer is missing"))),
        };
        read.map_err(|error| self.judge(&error))
    }

    fn judge(&mut self, error: &RedisError) -> StoreError {
        let ClassifiedError { error, try_other_server } = self.connection.classify(error);
        self.is_sound &= !try_other_server;
        error
    }
}

/// A field of the answer to `INFO`; empty if it is not there.
#[must_use]
pub fn info_field<'a>(info: &'a str, name: &str) -> &'a str {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim).unwrap_or_default()
}

/// Whether the server does not know the script that it was asked to run.
fn is_unknown(answer: Option<&Value>) -> bool {
    matches!(answer, Some(Value::ServerError(error)) if error.code() == "NOSCRIPT")
}

/// Whether [`ROLE_CHECK`] has ended the script.
fn is_from_replica(answer: Option<&Value>) -> bool {
    let Some(Value::Array(values)) = answer else { return false };
    matches!(&values[..], [Value::BulkString(word)] if word == b"replica")
}

/// The login at a server, without a database and a protocol.
pub fn login(settings: &Settings, with_user: bool) -> RedisConnectionInfo {
    let mut login = RedisConnectionInfo::default().set_skip_set_lib_name();
    if with_user {
        if let Some(name) = &settings.username {
            login = login.set_username(name);
        }
        if let Some(password) = &settings.password {
            login = login.set_password(&password.0);
        }
    }
    login
}
