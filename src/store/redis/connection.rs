//! From an address to a client on a connection: name, TCP, TLS, login.
//!
//! The client of the redis crate gets a stream of ours, so that all that the server sends is limited ([`reply_filter`](super::reply_filter)), and
//! so that a certificate is verified as the flags say, whether the address was configured or learned from a Sentinel (S4).

use std::io;
use std::path::Path;
use std::sync::Arc;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ErrorKind, RedisConnectionInfo, RedisError};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::errors::{ClassifiedError, RedisPeer, classify};
use super::hint_flags::HintFlags;
use super::reply_filter::ReplyFilter;
use super::settings::{Place, Settings};
use crate::host_port::ServerAddress;
use crate::store::connection::identity::client_config;
use crate::store::connection::setup::Accepted;
use crate::store::connection::tls::TlsSettings;
use crate::store::connection::verification::verifier;
use crate::store::{StoreError, resolver};

/// Addresses of one name that are tried, all at once.
const ADDRESSES_MAX: usize = 16;

/// A client, and the task that serves it.
pub struct Connection {
    pub client: MultiplexedConnection,
    ear: Arc<HintFlags>,
    peer: RedisPeer,
    /// Aborted when it is dropped.
    _task: JoinSet<()>,
}

impl Connection {
    /// Logs in with RESP3, selects the database and has the server describe itself, in one round trip of a connection on which nothing
    /// was sent yet.
    ///
    /// # Errors
    ///
    /// The first one that the server answers with.
    pub async fn greet(&self, settings: &Settings) -> Result<String, StoreError> {
        let mut hello = redis::cmd("HELLO");
        hello.arg(3);
        if let Some(password) = &settings.password {
            hello.arg("AUTH").arg(settings.username.as_deref().unwrap_or("default")).arg(&password.0);
        }
        let mut clients = [(); 3].map(|()| self.client.clone());
        let [login, select, info] = &mut clients;
        let login = async { hello.exec_async(login).await.map_err(without_resp3) };
        let select = async {
            match settings.db {
                0 => Ok(()),
                db => redis::cmd("SELECT").arg(db).exec_async(select).await,
            }
        };
        let info = async { redis::cmd("INFO").query_async::<String>(info).await };
        // Sent in this order, without waiting for an answer in between; a server may close the connection after the first one.
        let greeted = tokio::try_join!(biased; login, select, info);
        let failed = |error: RedisError| self.peer.at_login(self.classify(&error).error);
        greeted.map(|((), (), info)| info).map_err(failed)
    }

    /// The meaning of a failed call on it.
    pub fn classify(&self, error: &RedisError) -> ClassifiedError {
        classify_with(&self.ear, &self.peer, error)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.ear.ends();
    }
}

fn classify_with(ear: &HintFlags, peer: &RedisPeer, error: &RedisError) -> ClassifiedError {
    match ear.excess() {
        Some(excess) => classify(peer, &RedisError::from(io::Error::from(excess))),
        None => classify(peer, error),
    }
}

/// The server does not know the command at all.
fn without_resp3(error: RedisError) -> RedisError {
    if error.detail().is_some_and(|detail| detail.starts_with("unknown command `HELLO`")) {
        return (ErrorKind::RESP3NotSupported, "the server lacks the command HELLO").into();
    }
    error
}

/// Connects, and logs in if the login says so. Bounded by the caller: nothing here has a time-out of its own.
///
/// # Errors
///
/// The server cannot be reached, or one of both sides does not accept what the other one shows. `who` names the server in the
/// message.
pub async fn open(
    settings: &Settings,
    place: &Place,
    who: String,
    login: RedisConnectionInfo,
    ear: &Arc<HintFlags>,
    accepted: &Accepted,
) -> Result<Connection, StoreError> {
    let peer = RedisPeer::new(who, settings);
    let failed = |error: io::Error| classify(&peer, &RedisError::from(error)).error;
    let address = match place {
        Place::Address(address) => address,
        Place::Socket(path) => {
            let stream = connect_to_socket(path).await.map_err(failed)?;
            accepted.set();
            return serve(stream, peer, &login, ear).await;
        }
    };
    let connector = settings.tls.as_ref().map(connector).transpose()?;
    // One round trip: a server that takes longer would answer no request either.
    let stream = timeout(settings.limits.attempt, connect(address)).await.unwrap_or_else(|_| {
        let too_slow = settings.limits.too_slow_for_attempt(settings.limits.attempt);
        Err(io::Error::new(io::ErrorKind::TimedOut, too_slow))
    });
    let stream = stream.map_err(failed)?;
    accepted.set();
    stream.set_nodelay(true).map_err(failed)?;
    match connector {
        None => serve(stream, peer, &login, ear).await,
        Some(connector) => {
            let name = ServerName::try_from(address.host.clone()).map_err(|_| {
                StoreError::Refused(format!("{peer} has no name that a certificate could be issued for"))
            })?;
            let stream = connector.connect(name, stream).await.map_err(failed)?;
            serve(stream, peer, &login, ear).await
        }
    }
}

async fn connect_to_socket(path: &Path) -> io::Result<UnixStream> {
    const ADVICE: &str = "check the path, and unixsocket in the server's configuration";
    UnixStream::connect(path).await.map_err(|error| {
        if [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused].contains(&error.kind()) {
            io::Error::new(error.kind(), format!("no server listens at this socket file ({error}): {ADVICE}"))
        } else {
            error
        }
    })
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: RedisPeer,
    login: &RedisConnectionInfo,
    ear: &Arc<HintFlags>,
) -> Result<Connection, StoreError> {
    let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
    let wire = ReplyFilter::new(stream, Arc::clone(ear));
    let opened = MultiplexedConnection::new_with_config(login, wire, config).await;
    let (client, driver) = opened.map_err(|error| peer.at_login(classify_with(ear, &peer, &error).error))?;
    let listener = Arc::clone(ear);
    let mut task = JoinSet::new();
    task.spawn(async move {
        driver.await;
        listener.ends();
    });
    Ok(Connection { client, ear: Arc::clone(ear), peer, _task: task })
}

/// The first of the addresses of a name that accepts a connection.
async fn connect(address: &ServerAddress) -> io::Result<TcpStream> {
    let addresses = resolver::lookup(&address.host, address.port).await?;
    let mut dials = JoinSet::new();
    for address in addresses.into_iter().take(ADDRESSES_MAX) {
        dials.spawn(TcpStream::connect(address));
    }
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    while let Some(dialled) = dials.join_next().await {
        match dialled.map_err(io::Error::other).flatten() {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn connector(tls: &TlsSettings) -> Result<TlsConnector, StoreError> {
    Ok(TlsConnector::from(Arc::new(client_config(tls, verifier(tls)?)?)))
}
