//! TCP connections to members, with addresses from elect's own resolver (DESIGN.md K13).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tonic::codegen::Service;
use tonic::codegen::http::Uri;

use crate::store::connection::identity::client_config;
use crate::store::connection::setup::Accepted;
use crate::store::connection::tls::TlsSettings;
use crate::store::connection::verification::verifier;
use crate::store::resolver;

const PORT: u16 = 2379;

/// Connects to the host of a URI. TLS, if there is any, comes on top and verifies the name in the URI.
pub struct Dialer {
    /// For all addresses of the host together.
    pub dial_timeout: Duration,
    pub accepted: Accepted,
}

impl Service<Uri> for Dialer {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<TcpStream>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (dial_timeout, accepted) = (self.dial_timeout, self.accepted.clone());
        Box::pin(async move { dial(uri, dial_timeout).await.inspect(|_| accepted.set()) })
    }
}

/// Asks a server that ends its connections why it does so: makes another one, completes the TLS handshake, sends nothing, and reads.
///
/// With TLS 1.3 a server looks at the client's certificate when the client has completed its side of the handshake. The alert that refuses
/// it arrives after the first request was sent, and the client library reports a closed connection in place of the alert.
///
/// Returns the words of rustls; `None` if the server says nothing within `limit`, or cannot be reached.
pub async fn ask_for_alert(uri: Uri, tls: &TlsSettings, limit: Duration) -> Option<String> {
    let connector = TlsConnector::from(Arc::new(client_config(tls, verifier(tls).ok()?).ok()?));
    let host = uri.host()?.trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(host.to_owned()).ok()?;
    let alert = async {
        let stream = dial(uri, limit).await.ok()?.into_inner();
        match connector.connect(name, stream).await {
            Ok(mut stream) => stream.read_u8().await.err(),
            Err(error) => Some(error),
        }
    };
    timeout(limit, alert).await.ok().flatten().map(|error| error.to_string())
}

/// Tries the addresses in turn. None of them can use up the time of the others.
async fn dial(uri: Uri, dial_timeout: Duration) -> io::Result<TokioIo<TcpStream>> {
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let addresses = resolver::lookup(host, uri.port_u16().unwrap_or(PORT)).await?;
    let share = dial_timeout / u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in addresses {
        match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true)?;
                return Ok(TokioIo::new(stream));
            }
            Ok(Err(error)) => failure = error,
            Err(_) => failure = io::Error::new(io::ErrorKind::TimedOut, format!("{address} did not answer in time")),
        }
    }
    Err(failure)
}
