//! One connection to the primary: found, looked over, and thrown away at the first trouble.
//!
//! It is never mended behind our back. What is asked in one pipeline is served on one connection, and a connection that broke
//! is followed by a new one with the next attempt, not sooner: that is as often as the election asks.

use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionAddr, ErrorKind, FromRedisValue, IntoConnectionInfo,
    Pipeline, ProtocolVersion, PushInfo, PushKind, RedisConnectionInfo, RedisError, TlsCertificates, Value,
};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::debug;

use super::settings::{Address, Route, Settings, Tls};
use super::trouble::{Trouble, explain};
use crate::clock;
use crate::election::Time;
use crate::store::StoreError;
use crate::store::access::unreadable;
use crate::store::resolver::RedisResolver;

/// What others announce on the channel, as it comes in.
pub type Announcements = mpsc::UnboundedReceiver<PushInfo>;

/// For replicas to confirm a write, in milliseconds; an attempt is over long before that.
const LONGEST_WAIT: u64 = 3_600_000;

/// Keys that are asked about in one pipeline: what others ask meanwhile waits for it.
const AT_ONCE: usize = 200;

pub struct Server {
    connection: MultiplexedConnection,
    /// Of the primary.
    pub address: Address,
    /// Nothing has happened since its last answer that speaks for another one.
    pub is_sound: bool,
    /// Of the present attempt.
    pub deadline: Time,
    pub announcements: Option<Announcements>,
    /// Whether an observer has asked for them.
    pub is_heard: bool,
    /// When it was connected to.
    pub since: Time,
}

/// A script, and the hash by which a server that has run it before knows it.
pub struct Script {
    text: String,
    hash: String,
}

impl Script {
    pub fn new(text: String) -> Script {
        let hash = redis::Script::new(&text).get_hash().to_owned();
        Script { text, hash }
    }
}

impl Server {
    /// The primary, with every doubt about it removed that can be removed by asking.
    ///
    /// # Errors
    ///
    /// It cannot be reached, will not have us, or is no server that holds elections.
    pub async fn connect(settings: &Settings) -> Result<Server, StoreError> {
        let address = match &settings.route {
            Route::Direct(address) => address.clone(),
            Route::Sentinels { sentinels, primary, auth } => ask_sentinels(settings, sentinels, primary, *auth).await?,
        };
        let (sender, announcements) = mpsc::unbounded_channel();
        let config = AsyncConnectionConfig::new().set_push_sender(sender);
        let login = login(settings, true).set_db(settings.db).set_protocol(ProtocolVersion::RESP3);
        let connection = open(settings, &address, login, config).await?;
        let mut server = Server {
            connection,
            address,
            is_sound: true,
            deadline: Time::NEVER,
            announcements: Some(announcements),
            is_heard: false,
            since: clock::now(),
        };
        server.look_over().await?;
        Ok(server)
    }

    /// Whether it is one that can hold elections.
    async fn look_over(&mut self) -> Result<(), StoreError> {
        let info: String = self.ask(&redis::cmd("INFO")).await?;
        let field = |name: &str| {
            info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim).unwrap_or_default()
        };
        let refuse = |why: &str| Err(StoreError::Refused(format!("{}: {why}", self.address)));
        match field("redis_mode") {
            "cluster" => {
                return refuse("it belongs to a Redis Cluster, which cannot hold elections: use a Redis of its own");
            }
            "sentinel" => return refuse("that is a Sentinel: write --store redis+sentinel://HOST:PORT/NAME"),
            _ => {}
        }
        if field("maxmemory_policy").starts_with("allkeys") {
            let policy = field("maxmemory_policy");
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
        let subscribed = if is_pattern {
            self.connection.psubscribe(channel).await
        } else {
            self.connection.subscribe(channel).await
        };
        subscribed.map_err(|error| self.judge(&error))
    }

    /// One command.
    pub async fn ask<T: FromRedisValue>(&mut self, command: &Cmd) -> Result<T, StoreError> {
        let answer = command.query_async(&mut self.connection).await;
        answer.map_err(|error| self.judge(&error))
    }

    /// Runs a script on one key.
    pub async fn run<T: FromRedisValue>(
        &mut self,
        script: &Script,
        key: &str,
        arguments: &[&str],
    ) -> Result<T, StoreError> {
        Ok(self.run_confirmed(script, key, arguments, None).await?.0)
    }

    /// The same, and how many replicas then have what it wrote. Both in one pipeline, so that nothing can come between: on
    /// another connection, which has written nothing, the replicas would have everything.
    pub async fn run_confirmed<T: FromRedisValue>(
        &mut self,
        script: &Script,
        key: &str,
        arguments: &[&str],
        replicas: Option<u64>,
    ) -> Result<(T, u64), StoreError> {
        let mut answers = self.pipeline("EVALSHA", &script.hash, key, arguments, replicas).await?;
        if is_unknown(answers.first()) {
            // Nothing was executed. From now on the server knows it.
            answers = self.pipeline("EVAL", &script.text, key, arguments, replicas).await?;
        }
        let confirmed = match (replicas, answers.pop()) {
            (None, answer) => {
                answers.extend(answer);
                0
            }
            (Some(_), answer) => self.value(answer)?,
        };
        let answer = answers.pop();
        Ok((self.value(answer)?, confirmed))
    }

    /// Runs a script that changes nothing on each of these keys, without waiting for one answer before the next question.
    ///
    /// # Errors
    ///
    /// None can be asked. What speaks against one of them is with that one.
    pub async fn run_on_each<T: FromRedisValue>(
        &mut self,
        script: &Script,
        keys: &[String],
    ) -> Result<Vec<Result<T, StoreError>>, StoreError> {
        let mut all = Vec::with_capacity(keys.len());
        for keys in keys.chunks(AT_ONCE) {
            let mut pipeline = Pipeline::new();
            for (number, key) in keys.iter().enumerate() {
                // By the first the server comes to know it.
                let (how, script) = if number == 0 { ("EVAL", &script.text) } else { ("EVALSHA", &script.hash) };
                pipeline.cmd(how).arg(script).arg(1).arg(key);
            }
            let answers = self.connection.send_packed_commands(&pipeline, 0, pipeline.len()).await;
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
        how: &str,
        script: &str,
        key: &str,
        arguments: &[&str],
        replicas: Option<u64>,
    ) -> Result<Vec<Value>, StoreError> {
        let mut pipeline = Pipeline::new();
        pipeline.cmd(how).arg(script).arg(1).arg(key).arg(arguments);
        if let Some(replicas) = replicas {
            // Its answer has to come before the attempt's time is up. Zero would be for ever.
            let limit = self.deadline.since(clock::now()) / 2;
            let limit = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX).clamp(1, LONGEST_WAIT);
            pipeline.cmd("WAIT").arg(replicas).arg(limit);
        }
        let answers = self.connection.send_packed_commands(&pipeline, 0, pipeline.len()).await;
        answers.map_err(|error| self.judge(&error))
    }

    fn value<T: FromRedisValue>(&mut self, answer: Option<Value>) -> Result<T, StoreError> {
        let read = match answer {
            Some(Value::ServerError(error)) => Err(RedisError::from(error)),
            Some(value) => redis::from_redis_value(value).map_err(RedisError::from),
            None => Err(RedisError::from((ErrorKind::UnexpectedReturnType, "an answer is missing"))),
        };
        read.map_err(|error| self.judge(&error))
    }

    fn judge(&mut self, error: &RedisError) -> StoreError {
        let Trouble { error, speaks_for_another } = explain(&self.address.to_string(), error);
        self.is_sound &= !speaks_for_another;
        error
    }
}

/// Whether the server does not know the script that it was asked to run.
fn is_unknown(answer: Option<&Value>) -> bool {
    matches!(answer, Some(Value::ServerError(error)) if error.code() == "NOSCRIPT")
}

fn login(settings: &Settings, with_user: bool) -> RedisConnectionInfo {
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

/// Bounded by whoever asks: nothing here has a time-out of its own.
async fn open(
    settings: &Settings,
    address: &Address,
    login: RedisConnectionInfo,
    config: AsyncConnectionConfig,
) -> Result<MultiplexedConnection, StoreError> {
    let (host, port) = (address.host.clone(), address.port);
    let target = match settings.tls {
        None => ConnectionAddr::Tcp(host, port),
        Some(_) => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
    };
    let explain = |error: RedisError| explain(&address.to_string(), &error).error;
    let target = target.into_connection_info().map_err(explain)?;
    let target = target.set_redis_settings(login).set_tcp_settings(TcpSettings::default().set_nodelay(true));
    let client = match &settings.tls {
        None => Client::open(target),
        Some(tls) => {
            // The first one stays: etcd's client asks for the same.
            let _ = rustls::crypto::ring::default_provider().install_default();
            Client::build_with_tls(target, certificates(tls)?)
        }
    };
    let config = config.set_connection_timeout(None).set_response_timeout(None).set_dns_resolver(RedisResolver);
    client.map_err(explain)?.get_multiplexed_async_connection_with_config(&config).await.map_err(explain)
}

fn certificates(tls: &Tls) -> Result<TlsCertificates, StoreError> {
    let read = |path: &std::path::PathBuf| std::fs::read(path).map_err(|error| unreadable(path, &error));
    let client_tls = match &tls.identity {
        Some((cert, key)) => Some(ClientTlsConfig { client_cert: read(cert)?, client_key: read(key)? }),
        None => None,
    };
    Ok(TlsCertificates { client_tls, root_cert: tls.ca.as_ref().map(read).transpose()? })
}

/// The primary as the first Sentinel that answers knows it. Each has a quarter of what is left of the attempt, the last one
/// half: the primary is still to be asked.
async fn ask_sentinels(
    settings: &Settings,
    sentinels: &[Address],
    primary: &str,
    auth: bool,
) -> Result<Address, StoreError> {
    let deadline = clock::now() + settings.request_timeout;
    let mut failure = None;
    for (number, sentinel) in sentinels.iter().enumerate() {
        let left = deadline.since(clock::now());
        let share = if number + 1 == sentinels.len() { left } else { left / 2 };
        let asked = timeout(share / 2, ask_sentinel(settings, sentinel, primary, auth)).await;
        let error = match asked {
            Ok(Ok(address)) => return Ok(address),
            Ok(Err(error)) => error,
            Err(_) => StoreError::Unavailable(format!("the Sentinel {sentinel} did not answer in time")),
        };
        debug!(%sentinel, "redis: {error}");
        if !matches!(failure, Some(StoreError::Unavailable(_))) {
            failure = Some(error);
        }
    }
    Err(failure.unwrap_or_else(|| StoreError::Unavailable("there is no Sentinel to ask".to_owned())))
}

async fn ask_sentinel(
    settings: &Settings,
    sentinel: &Address,
    primary: &str,
    auth: bool,
) -> Result<Address, StoreError> {
    let explain = |error: RedisError| explain(&format!("the Sentinel {sentinel}"), &error).error;
    let mut connection = open(settings, sentinel, login(settings, auth), AsyncConnectionConfig::new()).await?;
    let known: Option<(String, u16)> = redis::cmd("SENTINEL")
        .arg("get-master-addr-by-name")
        .arg(primary)
        .query_async(&mut connection)
        .await
        .map_err(explain)?;
    let Some((host, port)) = known else {
        return Err(StoreError::Refused(format!("the Sentinel {sentinel} knows no primary named {primary:?}")));
    };
    Ok(Address { host, port })
}

/// The word that was announced on a channel.
pub fn announced(push: &PushInfo) -> Option<String> {
    // Behind the channel, and behind the pattern that it matches.
    let place = if push.kind == PushKind::PMessage { 2 } else { 1 };
    let word = push.data.get(place).filter(|_| matches!(push.kind, PushKind::Message | PushKind::PMessage))?;
    String::from_redis_value_ref(word).ok()
}
