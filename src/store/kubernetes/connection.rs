//! From an address to an HTTP client on a connection: name, TCP, TLS.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use nix::sys::socket::{setsockopt, sockopt};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::errors::KubernetesPeer;
use super::settings::Settings;
use crate::host_port::ServerAddress;
use crate::store::connection::identity::client_config;
use crate::store::connection::setup::Accepted;
use crate::store::connection::tls::TlsSettings;
use crate::store::connection::verification::verifier;
use crate::store::{StoreError, resolver};

/// Addresses of one name that are tried, all at once.
const ADDRESSES_MAX: usize = 16;

/// Longest time between two probes of a connection on which nothing is said.
const PROBE_SECONDS_MAX: u32 = 30;

/// A client, and the task that serves it.
pub struct HttpWire {
    pub client: SendRequest<Full<Bytes>>,
    /// Aborted when it is dropped.
    _task: JoinSet<()>,
}

/// Connects. Bounded by the caller, but for the first round trip.
///
/// # Errors
///
/// The server cannot be reached, or one of both sides does not accept what the other one shows.
pub async fn open(settings: &Settings, peer: &KubernetesPeer, accepted: &Accepted) -> Result<HttpWire, StoreError> {
    // The files are read for each connection: an authority is replaced while elect runs.
    let tls = settings.tls.as_ref().map(connector).transpose()?;
    let limit = settings.limits.attempt;
    // One round trip: a server that takes longer would answer no request either.
    let stream = timeout(limit, connect(&settings.address, limit))
        .await
        .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, settings.limits.too_slow_for_attempt(limit))));
    let stream = stream.map_err(|error| peer.classify_io(&error))?;
    accepted.set();
    let Some(tls) = tls else { return serve(stream, peer).await };
    let name = ServerName::try_from(settings.address.host.clone()).map_err(|_| {
        StoreError::Refused(format!("{} has no name that a certificate could be issued for", settings.shown))
    })?;
    let stream = tls.connect(name, stream).await.map_err(|error| peer.classify_io(&error))?;
    serve(stream, peer).await
}

/// Begins to pass requests on.
async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: &KubernetesPeer,
) -> Result<HttpWire, StoreError> {
    let (client, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| peer.classify_http(&error))?;
    let mut task = JoinSet::new();
    task.spawn(async move {
        // The request that is under way reports the error.
        let _ = connection.await;
    });
    Ok(HttpWire { client, _task: task })
}

/// The first of the addresses of a name that accepts a connection.
async fn connect(address: &ServerAddress, limit: Duration) -> io::Result<TcpStream> {
    let addresses = resolver::lookup(&address.host, address.port).await?;
    let mut dials = JoinSet::new();
    for address in addresses.into_iter().take(ADDRESSES_MAX) {
        dials.spawn(TcpStream::connect(address));
    }
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    while let Some(dialled) = dials.join_next().await {
        match dialled.map_err(io::Error::other).flatten() {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                // A watch sends nothing: without probes it would not learn that its server is gone.
                setsockopt(&stream, sockopt::KeepAlive, &true)?;
                let seconds = u32::try_from(limit.as_secs()).unwrap_or(u32::MAX).clamp(1, PROBE_SECONDS_MAX);
                setsockopt(&stream, sockopt::TcpKeepIdle, &seconds)?;
                setsockopt(&stream, sockopt::TcpKeepInterval, &seconds)?;
                let millis = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX);
                setsockopt(&stream, sockopt::TcpUserTimeout, &millis)?;
                return Ok(stream);
            }
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn connector(tls: &TlsSettings) -> Result<TlsConnector, StoreError> {
    Ok(TlsConnector::from(Arc::new(client_config(tls, verifier(tls)?)?)))
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::getsockopt;

    use super::*;

    /// A watch sends nothing, and would take a server that is gone for one without news for two hours.
    #[test]
    fn a_connection_on_which_nothing_is_said_is_probed() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        for (limit, probed) in
            [(Duration::from_millis(500), 1), (Duration::from_secs(5), 5), (Duration::from_secs(60), 30)]
        {
            let door = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
            let port = door.local_addr().expect("a bound socket has an address").port();
            let address = ServerAddress { host: "127.0.0.1".to_owned(), port };
            let stream = runtime.block_on(connect(&address, limit)).expect("connected");
            assert_eq!(getsockopt(&stream, sockopt::TcpKeepIdle), Ok(probed));
            assert_eq!(getsockopt(&stream, sockopt::TcpKeepInterval), Ok(probed));
        }
    }
}
