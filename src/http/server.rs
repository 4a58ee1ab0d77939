//! `--listen`: the pages over HTTP. No client, however fast or slow, costs much or delays the election.
//!
//! Each connection has a few seconds for its one request. The number of connections is limited; a new one beyond the limit
//! closes the oldest, so that a thousand idle connections keep no health check out.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::rc::Rc;
use std::time::Duration;

use hyper::Request;
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, JoinSet};
use tracing::{debug, info};

use super::routes;
use super::waiting_candidates::WaitingCandidates;
use crate::listen_address::ListenAddress;
use crate::setup;
use crate::status::{SharedStatus, StatusPublisher};
use crate::store::Store;
use elect_keeper::clock;

/// Connections at one time.
const CONNECTIONS_MAX: usize = 64;
/// From its acceptance to the last byte of the answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Of a request's head, in bytes. hyper takes no less.
const HEAD_BYTES_MAX: usize = 8 * 1024;
const HEADERS_MAX: usize = 64;
/// After the kernel had no descriptor for us.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// Takes the address. Nothing is answered yet.
///
/// Not before the keeper has been forked: it would keep the address taken after we are gone.
///
/// # Errors
///
/// The address is in use, not permitted, or not one of this host.
pub fn bind(address: &ListenAddress) -> anyhow::Result<TcpListener> {
    let bound = if let Some(port) = address.port_alone() {
        // Every interface: one socket for both families, or one for IPv4 where there is no IPv6.
        TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).or_else(|error| match error.raw_os_error() {
            Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)),
            Some(_) | None => Err(error),
        })
    } else {
        let found = address.as_str().to_socket_addrs();
        found.and_then(|found| TcpListener::bind(found.collect::<Vec<SocketAddr>>().as_slice()))
    };
    let listener = bound.and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
    listener.map_err(|error| anyhow::anyhow!("--listen {address}: {error}; {}", advice(&error)))
}

fn advice(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EADDRINUSE) => "choose another port, or stop the program that listens there (ss -ltnp shows it)",
        Some(libc::EADDRNOTAVAIL) => "this host has no such address: write :PORT for all of its addresses",
        Some(libc::EACCES) => "ports below 1024 need root or CAP_NET_BIND_SERVICE: choose a higher one",
        Some(_) => "choose another address",
        None => "write an address of this host, or :PORT for all of them",
    }
}

/// The server of the pages, if there is one. It ends when this is dropped, and every connection with it.
#[derive(Debug)]
pub struct HttpServer(Option<JoinHandle<Infallible>>);

impl HttpServer {
    /// Serves what the surface shows, if there is an address to serve it at.
    ///
    /// Must be called inside a [`tokio::task::LocalSet`].
    ///
    /// # Errors
    ///
    /// The listener cannot be watched.
    pub fn serve(
        listener: Option<TcpListener>,
        publisher: &StatusPublisher,
        store: Box<dyn Store>,
    ) -> io::Result<HttpServer> {
        let Some(listener) = listener else { return Ok(HttpServer(None)) };
        let waiting = Rc::new(WaitingCandidates::new(store));
        let listener = tokio::net::TcpListener::from_std(listener)?;
        info!(address = %listener.local_addr()?, "listening");
        // Watched by the driver, in `ended`.
        Ok(HttpServer(Some(tokio::task::spawn_local(serve(listener, Rc::clone(&publisher.shared), waiting)))))
    }

    /// Never, unless the server has a defect. Cancel safe.
    pub async fn ended(&mut self) {
        match &mut self.0 {
            Some(server) => {
                let Err(_) = server.await;
            }
            None => std::future::pending().await,
        }
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        if let Some(server) = &self.0 {
            server.abort();
        }
    }
}

async fn serve(
    listener: tokio::net::TcpListener,
    status: Rc<SharedStatus>,
    waiting: Rc<WaitingCandidates>,
) -> Infallible {
    let mut connections = JoinSet::new();
    let mut open = VecDeque::with_capacity(CONNECTIONS_MAX);
    loop {
        match listener.accept().await {
            // Closed: the store goes first.
            Ok((stream, _)) if setup::is_reserved(&stream) => drop(stream),
            Ok((stream, _)) => {
                while connections.try_join_next().is_some() {}
                open.retain(|one: &tokio::task::AbortHandle| !one.is_finished());
                while open.len() >= CONNECTIONS_MAX {
                    open.pop_front().inspect(tokio::task::AbortHandle::abort);
                }
                open.push_back(connections.spawn_local(serve_connection(
                    stream,
                    Rc::clone(&status),
                    Rc::clone(&waiting),
                )));
            }
            Err(error) => {
                debug!("a connection was not accepted: {error}");
                tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
            }
        }
    }
}

/// One request, one answer.
async fn serve_connection(stream: TcpStream, status: Rc<SharedStatus>, waiting: Rc<WaitingCandidates>) {
    let (status, waiting) = (&status, &waiting);
    let service = service_fn(move |request: Request<Incoming>| async move {
        let (has_body, path) = (!request.body().is_end_stream(), request.uri().path());
        if routes::shows_candidates(path) {
            waiting.refresh(status).await;
        }
        Ok::<_, Infallible>(routes::respond(status, clock::now(), request.method(), path, has_body))
    });
    let mut server = http1::Builder::new();
    server.keep_alive(false).header_read_timeout(None).max_headers(HEADERS_MAX).max_buf_size(HEAD_BYTES_MAX);
    // An error of a slow, vanished or invalid client is ignored: no one could act on it.
    let _ = tokio::time::timeout(REQUEST_TIMEOUT, server.serve_connection(TokioIo::new(stream), service)).await;
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::Shutdown;

    use proptest::prelude::*;

    use super::*;
    use crate::status::snapshot::tests::snapshot;
    use crate::store::url::StoreUrl;
    use crate::store::{Access, Notifier};
    use elect_core::proptest_support;

    fn store() -> Box<dyn Store> {
        let url = StoreUrl::parse("always:").expect("known");
        url.open(&Access::default(), Notifier::disconnected()).expect("nothing is asked")
    }

    #[test]
    fn an_address_in_use_is_named_with_what_to_do() {
        let first = bind(&"127.0.0.1:0".parse().expect("an address")).expect("any port");
        let taken: ListenAddress = first.local_addr().expect("bound").to_string().parse().expect("an address");
        let error = bind(&taken).expect_err("taken").to_string();
        assert!(error.contains("in use") && error.contains(taken.as_str()) && error.lines().count() == 1, "{error}");
    }

    fn say(address: SocketAddr, words: &[u8]) -> Vec<u8> {
        let mut stream = std::net::TcpStream::connect(address).expect("it listens");
        // It may be closed before all is sent.
        let _ = stream.write_all(words).and_then(|()| stream.shutdown(Shutdown::Write));
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        answer
    }

    #[test]
    fn whatever_is_sent_is_answered_in_http_or_not_at_all_and_the_next_one_is_heard() {
        let listener = bind(&"127.0.0.1:0".parse().expect("an address")).expect("any port");
        let address = listener.local_addr().expect("bound");
        let requests = (proptest_support::text(), proptest_support::random_bytes()).prop_map(|(path, rest)| {
            [format!("GET /{path} HTTP/1.1\r\n").into_bytes(), rest, b"\r\n\r\n".to_vec()].concat()
        });
        let whole = || Just(b"GET /leader HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".to_vec());
        let said = prop_oneof![proptest_support::random_bytes(), requests, proptest_support::corrupted(whole())];
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let mut server =
                HttpServer::serve(Some(listener), &StatusPublisher::new(snapshot()), store()).expect("a server");
            let client = tokio::task::spawn_blocking(move || {
                proptest_support::check(proptest_support::SLOW, &said, |words| {
                    let answer = say(address, &words);
                    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "{answer:?}");
                });
                let mut stream = std::net::TcpStream::connect(address).expect("it listens");
                stream.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("sent");
                let mut answer = String::new();
                stream.read_to_string(&mut answer).expect("an answer");
                assert!(answer.starts_with("HTTP/1.0 200 "), "{answer}");
            });
            tokio::select! {
                result = client => result.expect("the client went well"),
                () = server.ended() => {}
            }
        });
    }
}
