//! From a place to a client on a connection: name, TCP or a socket file, TLS, login.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error as TlsError, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_postgres::config::{ChannelBinding, SslMode};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{AsyncMessage, Client, Config, Connection, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::errors::PostgresPeer;
use super::message_limit::{LimitedTls, MessageLimit, Opening};
use super::notices::{CHANNEL, Ear};
use super::settings::{Encryption, Host, HostPlace, Settings};
use crate::store::connection::identity::client_config;
use crate::store::connection::setup::Accepted;
use crate::store::connection::verification::verifier;
use crate::store::{StoreError, resolver};

/// The name of each connection, as the server shows it.
pub const NAME: &str = "elect";
/// Addresses of one name that are asked, all at once.
const ADDRESSES_MAX: usize = 16;

/// Where one server is connected to: the name of a host may have several addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerPlace {
    Address(SocketAddr),
    /// A socket file.
    Socket(PathBuf),
}

/// The places behind a host.
///
/// # Errors
///
/// Its name is not found.
pub async fn places(host: &HostPlace) -> io::Result<Vec<ServerPlace>> {
    let address = match host {
        HostPlace::Address(address) => address,
        HostPlace::Socket(directory, port) => {
            return Ok(vec![ServerPlace::Socket(directory.join(format!(".s.PGSQL.{port}")))]);
        }
    };
    let addresses = resolver::lookup(&address.host, address.port).await?;
    if addresses.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    }
    Ok(addresses.into_iter().take(ADDRESSES_MAX).map(ServerPlace::Address).collect())
}

/// A client, and the task that serves it.
pub struct Wire {
    pub client: Client,
    pub ear: Arc<Ear>,
    pub peer: PostgresPeer,
    /// Aborted when it is dropped.
    _task: JoinSet<()>,
}

/// The task is aborted, and does not say that it ends.
impl Drop for Wire {
    fn drop(&mut self) {
        self.ear.end();
    }
}

/// Connects to one place of a host, and logs in. Bounded by the caller, but for the first round trip.
///
/// # Errors
///
/// The server cannot be reached, or one of both sides does not accept what the other one shows.
pub async fn open(
    settings: &Settings,
    host: &Host,
    place: &ServerPlace,
    accepted: &Accepted,
) -> Result<Wire, StoreError> {
    let peer = PostgresPeer::new(settings, &host.place);
    let mut config = Config::new();
    config.user(&settings.username).dbname(&settings.database).application_name(NAME);
    if let Some(password) = &host.password {
        config.password(&password.0);
    }
    if settings.requires_channel_binding {
        config.channel_binding(ChannelBinding::Require);
    }
    let (address, name) = match (place, &host.place) {
        (ServerPlace::Address(address), HostPlace::Address(named)) => (*address, named.host.clone()),
        (ServerPlace::Address(address), HostPlace::Socket(..)) => (*address, address.ip().to_string()),
        (ServerPlace::Socket(path), _) => {
            config.ssl_mode(SslMode::Disable);
            let stream = connect_to_socket(path).await;
            let stream = stream.map_err(|error| peer.classify_io(&error))?;
            accepted.set();
            let opened = config.connect_raw(MessageLimit::new(stream, Opening::Messages), NoTls).await;
            let (client, connection) = opened.map_err(|error| peer.classify(&error))?;
            return Ok(serve(client, connection, peer));
        }
    };
    config.ssl_mode(match settings.encryption {
        Encryption::Never => SslMode::Disable,
        Encryption::IfOffered => SslMode::Prefer,
        Encryption::Always => SslMode::Require,
    });
    let tls = (settings.encryption != Encryption::Never).then(|| connector(settings)).transpose()?;
    let limit = settings.limits.attempt;
    // One round trip: a server that takes longer would answer no request either.
    let stream = timeout(limit, connect(address, limit))
        .await
        .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, settings.limits.too_slow_for_attempt(limit))));
    let stream = stream.map_err(|error| peer.classify_io(&error))?;
    accepted.set();
    let Some(mut tls) = tls else {
        let opened = config.connect_raw(MessageLimit::new(stream, Opening::Messages), NoTls).await;
        let (client, connection) = opened.map_err(|error| peer.classify(&error))?;
        return Ok(serve(client, connection, peer));
    };
    let connect = MakeTlsConnect::<MessageLimit<TcpStream>>::make_tls_connect(&mut tls, &name);
    let connect = LimitedTls(connect.map_err(|error| StoreError::Refused(error.to_string()))?);
    let opened = config.connect_raw(MessageLimit::new(stream, Opening::TlsAnswer), connect).await;
    let (client, connection) = opened.map_err(|error| peer.classify(&error))?;
    Ok(serve(client, connection, peer))
}

/// Begins to pass messages on. A notice is counted before the answer that follows it is passed on.
fn serve<S, T>(client: Client, mut connection: Connection<S, T>, peer: PostgresPeer) -> Wire
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let ear = Arc::new(Ear::default());
    let listener = Arc::clone(&ear);
    let mut task = JoinSet::new();
    task.spawn(async move {
        loop {
            match std::future::poll_fn(|context| connection.poll_message(context)).await {
                Some(Ok(AsyncMessage::Notice(notice))) => listener.notice(notice.code()),
                Some(Ok(AsyncMessage::Notification(notification))) => {
                    if notification.channel() == CHANNEL {
                        listener.notification(notification.payload());
                    }
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => break,
            }
        }
        listener.end();
    });
    Wire { client, ear, peer, _task: task }
}

async fn connect_to_socket(path: &Path) -> io::Result<UnixStream> {
    const ADVICE: &str = "check the directory and the port, and unix_socket_directories of the server";
    UnixStream::connect(path).await.map_err(|error| {
        if [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused].contains(&error.kind()) {
            io::Error::new(error.kind(), format!("no server listens at this socket file ({error}): {ADVICE}"))
        } else {
            error
        }
    })
}

async fn connect(address: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    // A listener sends nothing: without probes it would not learn that its server is gone.
    setsockopt(&stream, sockopt::KeepAlive, &true)?;
    let millis = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX);
    setsockopt(&stream, sockopt::TcpUserTimeout, &millis)?;
    Ok(stream)
}

fn connector(settings: &Settings) -> Result<MakeRustlsConnect, StoreError> {
    let mut verifier = verifier(&settings.tls)?;
    if !settings.verifies_name && !settings.tls.skip_verify {
        verifier = Arc::new(AnyName(verifier));
    }
    Ok(MakeRustlsConnect::new(client_config(&settings.tls, verifier)?))
}

/// Verifies a certificate but for its names (`sslmode=verify-ca`): they are looked at last, when the chain is in order.
#[derive(Debug)]
struct AnyName(Arc<dyn ServerCertVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let verified = self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        if let Err(TlsError::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        )) = verified
        {
            return Ok(ServerCertVerified::assertion());
        }
        verified
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.0.verify_tls12_signature(message, cert, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.0.verify_tls13_signature(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
