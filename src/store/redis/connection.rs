//! From an address to a client on a connection: name, TCP, TLS, login.
//!
//! The client of the redis crate gets a stream of ours, so that all that the server sends is limited ([`reply_filter`](super::reply_filter)), and
//! so that a certificate is verified as the flags say, whether the address was configured or learned from a Sentinel (S4).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisConnectionInfo, RedisError};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::errors::{ClassifiedError, classify};
use super::hint_flags::HintFlags;
use super::reply_filter::ReplyFilter;
use super::settings::Settings;
use crate::host_port::ServerAddress;
use crate::store::connection::tls::{TlsSettings, read_pem};
use crate::store::{StoreError, resolver};

/// Addresses of one name that are tried, all at once.
const ADDRESSES_MAX: usize = 16;

/// A client, and the task that serves it.
pub struct Connection {
    pub client: MultiplexedConnection,
    ear: Arc<HintFlags>,
    /// Aborted when it is dropped.
    _task: JoinSet<()>,
}

impl Connection {
    /// The meaning of a failed call on it.
    pub fn classify(&self, who: &str, error: &RedisError) -> ClassifiedError {
        match self.ear.excess() {
            Some(excess) => classify(who, &RedisError::from(io::Error::from(excess))),
            None => classify(who, error),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.ear.ends();
    }
}

/// Connects and logs in. Bounded by the caller: nothing here has a time-out of its own.
///
/// # Errors
///
/// The server cannot be reached, or one of both sides does not accept what the other one shows. `who` names the server in the
/// message.
pub async fn open(
    settings: &Settings,
    address: &ServerAddress,
    who: &str,
    login: RedisConnectionInfo,
    ear: &Arc<HintFlags>,
) -> Result<Connection, StoreError> {
    let failed = |error: io::Error| classify(who, &RedisError::from(error)).error;
    let connector = settings.tls.as_ref().map(connector).transpose()?;
    let stream = connect(address).await.map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    match connector {
        None => serve(stream, who, &login, ear).await,
        Some(connector) => {
            let name = ServerName::try_from(address.host.clone()).map_err(|_| {
                StoreError::Refused(format!("{who} has no name that a certificate could be issued for"))
            })?;
            let stream = connector.connect(name, stream).await.map_err(failed)?;
            serve(stream, who, &login, ear).await
        }
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    who: &str,
    login: &RedisConnectionInfo,
    ear: &Arc<HintFlags>,
) -> Result<Connection, StoreError> {
    let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
    let wire = ReplyFilter::new(stream, Arc::clone(ear));
    let opened = MultiplexedConnection::new_with_config(login, wire, config).await;
    let (client, driver) = opened.map_err(|error| classify(who, &error).error)?;
    let listener = Arc::clone(ear);
    let mut task = JoinSet::new();
    task.spawn(async move {
        driver.await;
        listener.ends();
    });
    Ok(Connection { client, ear: Arc::clone(ear), _task: task })
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
    // The first one stays: other clients ask for the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = ClientConfig::builder().with_root_certificates(roots(tls.ca.as_ref())?);
    let config = match &tls.identity {
        None => config.with_no_client_auth(),
        Some((cert, key)) => {
            let private =
                PrivateKeyDer::from_pem_slice(&read_pem(key)?).map_err(|_| unusable(key, "no private key"))?;
            config.with_client_auth_cert(certificates(cert)?, private).map_err(|error| unusable(key, &error))?
        }
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

/// The authorities that a server's certificate may come from: the given ones alone, or those that this system trusts.
fn roots(ca: Option<&PathBuf>) -> Result<RootCertStore, StoreError> {
    let mut roots = RootCertStore::empty();
    if let Some(ca) = ca {
        for certificate in certificates(ca)? {
            roots.add(certificate).map_err(|error| unusable(ca, &error))?;
        }
        return Ok(roots);
    }
    let known = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(known.certs);
    if roots.is_empty() {
        let reason = known.errors.first().map(|error| format!(": {error}")).unwrap_or_default();
        return Err(StoreError::Refused(format!(
            "this system has no certificate authorities that could be trusted{reason}: name one with --tls-ca"
        )));
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, StoreError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read_pem(path)?).collect();
    match read {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) | Err(_) => Err(unusable(path, "no certificate in PEM")),
    }
}

fn unusable(path: &Path, reason: &(impl std::fmt::Display + ?Sized)) -> StoreError {
    StoreError::Refused(format!("{}: {reason}", path.display()))
}
